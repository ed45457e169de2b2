"""The MSR permission bitmaps, and what must be stopped or passed at a VM entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import PLACE, TABLE, XSS
from conformance.environment.cet.vcpus import PerVcpu
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import CONTROL_MSRS, MSRS, READ, WRITE
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.cet.guest_memory import GuestMemory
    from conformance.environment.cet.platform import Platform
    from conformance.environment.door import Environment

BITMAP = MSRS[:7]
"""The MSRs that have bitmap entries."""
PASSABLE = tuple(
    (msr, 2 * PLACE[msr], msr in CONTROL_MSRS, c.CET_INTERCEPTS if msr in CONTROL_MSRS else c.PASS_WITH_SHSTK)
    for msr in BITMAP[:-1]
)
"""MSRs that may pass: where their bits are, whether one of the two controls, and the clause that lets them pass."""
INTERCEPT_ALL = 0x3FFF
"""READ and WRITE of each of them, two bits each."""


def _accesses(bits: int) -> str:
    """What the bits of a bitmap stand for: `reads of 0x6a0, writes of 0x6a2`."""
    kinds = {READ: "reads", WRITE: "writes", READ | WRITE: "accesses"}
    there = {msr: bits >> 2 * PLACE[msr] & 3 for msr in BITMAP}
    return ", ".join(f"{kinds[kind]} of {msr:#x}" for msr, kind in there.items() if kind)


class Permissions:
    """The bitmaps of one vCPU, and what they must follow."""

    __slots__ = ("bits", "denied", "filtered", "ibt", "shstk")

    def __init__(self) -> None:
        self.bits = [INTERCEPT_ALL, INTERCEPT_ALL]
        """While it runs L1, and L2."""
        self.shstk = False
        self.ibt = False
        """What the guest has of its CPUID and KVM's capabilities."""
        self.denied: tuple[int, ...] = ()
        """What userspace's filter denies."""
        self.filtered = False
        """A filter denied something once."""


class Intercepts(PerVcpu[Permissions]):
    """The MSR bitmaps of VMX or the permission map of SVM, for the seven CET MSRs, at L1 and at L2.

    XSS and whatever has no entry is always intercepted. Where the profile has the FPU code swap everything, what
    must pass is prescribed too.
    """

    CLAUSES = (
        c.INTERCEPT_WITHOUT_SHSTK,
        c.FILTER_INTERCEPTS,
        c.L2_INTERCEPTS,
        c.TABLE_INTERCEPTED,
        c.CET_INTERCEPTS,
        c.PASS_WITH_SHSTK,
    )

    def __init__(self, door: Environment, platform: Platform, memory: GuestMemory, profile: Profile) -> None:
        super().__init__(door)
        self.platform = platform
        self.memory = memory
        self.managed = profile.fpu_managed

    def add(self, vcpu: int) -> None:
        """Everything is intercepted."""
        self.parts[vcpu] = Permissions()

    def configure(self, vcpu: int, shstk: bool, ibt: bool) -> None:
        """The guest's CPUID is set."""
        part, caps = self.parts[vcpu], self.platform.caps
        part.shstk, part.ibt = shstk and caps[0], ibt and caps[1]

    def deny(self, vcpu: int, denied: tuple[int, ...]) -> None:
        """The filter is set."""
        part = self.parts[vcpu]
        part.denied = denied
        part.filtered = part.filtered or bool(denied)

    def at_entry(self, vcpu: int, level: int) -> int:
        """The bitmap of this entry: what must be stopped, and where the profile prescribes it, what must pass.

        Only entries count, so a candidate may recompute its bitmaps when it asks for them or just before it enters.
        """
        part, hold = self.parts[vcpu], self.door.hold
        bits = part.bits[level]
        if not part.shstk:
            if bits >> 4 & 0xFF != 0xFF:
                raise Violation(c.INTERCEPT_WITHOUT_SHSTK, f"{_accesses(~bits & 0xFF0)} pass at this entry")
            hold(c.INTERCEPT_WITHOUT_SHSTK)
        for msr in part.denied:
            if msr in BITMAP:
                if bits >> 2 * PLACE[msr] & 3 != 3:
                    raise Violation(c.FILTER_INTERCEPTS, f"{msr:#x} is passed through, which the filter denies")
                hold(c.FILTER_INTERCEPTS)
        if level:
            for msr in self.memory.parts[vcpu].intercepts:
                if msr in BITMAP:
                    if ~bits >> 2 * PLACE[msr] & 3:
                        raise Violation(c.L2_INTERCEPTS, f"L2 reaches {msr:#x}, which L1 intercepts")
                    hold(c.L2_INTERCEPTS)
        if self.managed:
            self._prescribed(part, level, bits)
        return bits

    def _prescribed(self, part: Permissions, level: int, bits: int) -> None:
        """Interception where the FPU code swaps all registers; L2 may be stopped more often than that."""
        hold, shstk = self.door.hold, part.shstk
        if bits >> 2 * TABLE & 3 != 3:
            raise Violation(c.TABLE_INTERCEPTED, f"{_accesses(~bits & 3 << 2 * TABLE)} pass at this entry")
        hold(c.TABLE_INTERCEPTED)
        controls = shstk or (part.ibt and not self.platform.amd)
        if not controls:
            if bits & 0xF != 0xF:
                raise Violation(c.CET_INTERCEPTS, f"{_accesses(~bits & 0xF)} pass at this entry")
            hold(c.CET_INTERCEPTS)
        if level:
            return
        for msr, shift, is_control, passes in PASSABLE:
            if msr in part.denied or not (controls if is_control else shstk):
                continue
            clause = c.FILTER_INTERCEPTS if part.filtered else passes
            if bits >> shift & 3:
                raise Violation(clause, f"{_accesses(bits & 3 << shift)} are intercepted at this entry")
            hold(clause)

    def stops(self, vcpu: int, level: int, place: int, access: int) -> bool:
        """Whether an access exits."""
        return place >= XSS or bool(self.parts[vcpu].bits[level] >> 2 * place & access)

    def set_intercept(self, vcpu: int, level: int, msr: int, access: int, on: bool) -> None:
        """Set or clear bitmap bits."""
        part, place = self.of(vcpu), PLACE.get(msr, XSS)
        if level not in (1, 2) or place >= XSS or access & ~3:
            raise Crash(f"set_intercept({vcpu}, {level}, {msr:#x}, {access}): no such bit", "type")
        bits = access << 2 * place
        part.bits[level - 1] = part.bits[level - 1] | bits if on else part.bits[level - 1] & ~bits
