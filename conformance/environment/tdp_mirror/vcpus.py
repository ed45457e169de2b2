"""What the kernel holds of each vCPU: its roots, and what it is asked to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.guests import Guests
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.tlbs import Tlbs
from conformance.model.tdp_mirror import Config
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import INVALID_PAGE
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Vcpu:
    """What the kernel holds of a vCPU."""

    __slots__ = ("mirror", "requests", "root")

    def __init__(self) -> None:
        self.root = INVALID_PAGE
        self.mirror = INVALID_PAGE
        self.requests: set[int] = set()


class Vcpus(Simulator):
    """The vCPUs that exist, with root_hpa, mirror_root_hpa and requests.

    Not modelled: the run loop; whoever performs an operation looks at requests when it says so.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.MIRROR_BEFORE_DIRECT,
        c.DESTROY_PUTS_MIRROR,
        c.FAST_ZAP_DIRECT,
    )

    def __init__(
        self, door: Environment, config: Config, threads: Threads, mmu_lock: MmuLock, tlbs: Tlbs, guests: Guests
    ) -> None:
        super().__init__(door)
        self.has_mirror = config.mirror
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.tlbs = tlbs
        self.guests = guests
        self.all: list[Vcpu | None] = [None] * config.vcpus
        self.untold = False
        """Whether a root was invalidated and vCPUs were not asked yet to drop it."""

    def create(self, vcpu: int) -> None:
        """A vCPU without roots, and hardware that has translated nothing."""
        self.all[vcpu] = Vcpu()
        self.tlbs.create(vcpu)

    def destroy(self, vcpu: int) -> None:
        """It is gone, and has dropped its roots."""
        v = self.of(vcpu)
        if (v.root, v.mirror) != (INVALID_PAGE, INVALID_PAGE):
            raise Violation(c.DESTROY_PUTS_MIRROR, f"vCPU {vcpu} is destroyed with a root installed")
        self.all[vcpu] = None
        self.tlbs.destroy(vcpu)

    def of(self, vcpu: int) -> Vcpu:
        """A vCPU by its number."""
        v = self.all[vcpu] if 0 <= vcpu < len(self.all) else None
        if v is None:
            raise Crash(f"there is no vCPU {vcpu}")
        return v

    def may_fault(self) -> bool:
        """Whether one has a root loaded."""
        return any(v is not None and v.root != INVALID_PAGE for v in self.all)

    def users(self, root: int) -> int:
        """How many have a root loaded."""
        return sum(v is not None and root in (v.root, v.mirror) for v in self.all)

    def must_be_told(self) -> None:
        """A root is obsolete, and vCPUs do not know unless they have still to look at what they were told before."""
        self.untold = any(v is not None and k.REQ_FREE_OBSOLETE_ROOTS not in v.requests for v in self.all)

    def judge_release(self) -> None:
        """Obsolete roots are announced before others can have the lock (TDP-030), no matter which comes first."""
        if self.untold:
            raise Violation(c.FAST_ZAP_DIRECT, "the write lock is dropped before vCPUs are told of obsolete roots")

    # -- environment calls

    def vcpu_root(self, vcpu: int, mirror: int, page: int) -> None:
        """Store a root of a vCPU (TDP-024)."""
        v = self.of(vcpu)
        if mirror:
            v.mirror = page
        else:
            v.root = page
            self.tlbs.unload(vcpu)
        if self.has_mirror and v.mirror == INVALID_PAGE and v.root != INVALID_PAGE:
            raise Violation(c.MIRROR_BEFORE_DIRECT, f"vCPU {vcpu} has a direct root and no mirror root")
        if not self.has_mirror and v.mirror != INVALID_PAGE:
            raise Violation(c.MIRROR_BEFORE_DIRECT, f"vCPU {vcpu} of a VM without mirrors has a mirror root")

    def make_all_cpus_request(self, request: int) -> None:
        """Raise a request, or kick vCPUs out of the guest."""
        if request == k.REQ_OUTSIDE_GUEST:
            self.guests.kick()
            return
        if self.mmu_lock.writer != self.threads.me:
            raise Violation(c.FAST_ZAP_DIRECT, "roots are declared obsolete outside the write lock")
        self.untold = False
        for v in self.all:
            if v is not None:
                v.requests.add(request)

    def check_request(self, vcpu: int, request: int) -> int:
        """Test and clear."""
        v = self.of(vcpu)
        if request in v.requests:
            v.requests.discard(request)
            return 1
        return 0

    def vcpu_has_events(self, vcpu: int) -> int:
        """Whether a request waits for the vCPU."""
        if not self.of(vcpu).requests:
            return 0
        self.door.frame.given.setdefault("vcpu_has_events", 1)
        return 1
