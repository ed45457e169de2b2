"""VMCBs, the processor's copy of them, and what VMRUN and #VMEXIT do with their save area."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.cet.registers import SAVE_AREA, SSP, SWITCHED, TABLE, S
from conformance.environment.cet.vcpus import PerVcpu
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.verdict import Crash

if TYPE_CHECKING:
    from conformance.environment.cet.platform import Platform
    from conformance.environment.cet.processors import Processors
    from conformance.environment.cet.threads import Thread
    from conformance.environment.door import Environment


class Blocks:
    """vmcb01 and vmcb02 of a vCPU."""

    __slots__ = ("cached", "clean", "fields", "level", "ran_on")

    def __init__(self) -> None:
        self.fields: tuple[dict[int, int], dict[int, int]] = ({}, {})
        """By level, in memory; a field that was never written is 0."""
        self.level = 0
        """Which one VMRUN uses: 0 for L1, 1 for L2."""
        self.clean = [False, False]
        """Clean bit 12 of each."""
        self.cached: dict[tuple[int, int], tuple[int, ...]] = {}
        """What a physical CPU keeps of one since it last ran it, by number of the CPU and level."""
        self.ran_on = [-1, -1]
        """The physical CPU that ran each last."""


class Vmcb(PerVcpu[Blocks]):
    """SVM: S_CET, SSP and ISST_ADDR in the save areas, and clean bit 12, by which a physical CPU uses its copy.

    The copy is used whenever it may be, and nobody takes it away. Other fields and clean bits are not modelled.
    """

    CLAUSES = (c.VMCB_DIRTY, c.VMCB_MOVED)

    def __init__(self, door: Environment, platform: Platform, processors: Processors) -> None:
        super().__init__(door)
        self.platform = platform
        self.files = processors.files

    def add(self, vcpu: int) -> None:
        """Two new VMCBs."""
        self.parts[vcpu] = Blocks()

    def digest(self) -> Hashable:
        """What both hold: L1's and L2's state of long ago, which a candidate may go on with by mistake."""
        return tuple(
            tuple(fields.get(field, 0) for fields in part.fields for field in SAVE_AREA) for part in self.parts.values()
        )

    def level(self, vcpu: int) -> int:
        """Which one the next VMRUN uses: 0 for L1, 1 for L2."""
        return self.parts[vcpu].level

    def enter(self, thread: Thread) -> None:
        """VMRUN loads the save area, or the processor's copy of it where the clean bit says they agree."""
        part, regs = self.parts[thread.number], self.files[thread.cpu]
        level = part.level
        place = thread.cpu, level
        fields = part.fields[level]
        memory = tuple(fields.get(field, 0) for field in SAVE_AREA)
        agree = not part.clean[level] or memory == part.cached.get(place, memory)
        if part.ran_on[level] == thread.cpu:
            wrong = "VMRUN with clean bit 12 set after a write of S_CET, SSP or ISST_ADDR"
            self.door.require(c.VMCB_DIRTY, agree, wrong)
        else:
            wrong = f"VMRUN with clean bit 12 set on CPU {thread.cpu}, which holds an older copy"
            self.door.require(c.VMCB_MOVED, agree, wrong)
        part.cached[place], part.ran_on[level] = memory, thread.cpu
        for register, value in zip(SWITCHED, memory, strict=True):
            regs[register] = value

    def leave(self, thread: Thread) -> None:
        """#VMEXIT stores the guest's three registers, and brings the host's back."""
        part, regs = self.parts[thread.number], self.files[thread.cpu]
        level = part.level
        fields = part.fields[level]
        memory = (regs[S], regs[SSP], regs[TABLE])
        fields[k.VMCB_S_CET], fields[k.VMCB_SSP], fields[k.VMCB_ISST_ADDR] = memory
        part.cached[thread.cpu, level] = memory
        part.clean[level] = True
        regs[S], regs[SSP], regs[TABLE] = self.platform.host.s_cet, 0, 0

    def _part(self, vcpu: int, level: int) -> Blocks:
        if not self.platform.amd or level not in (1, 2):
            raise Crash(f"no such control structure on this host (level {level})", "type")
        return self.of(vcpu)

    def vmcb_read(self, vcpu: int, level: int, field: int) -> int:
        """Memory, not the processor's copy."""
        return self._part(vcpu, level).fields[level - 1].get(field, 0)

    def vmcb_write(self, vcpu: int, level: int, field: int, value: int) -> None:
        """Memory, not the processor's copy."""
        self._part(vcpu, level).fields[level - 1][field] = value

    def vmcb_mark_dirty(self, vcpu: int, level: int, bit: int) -> None:
        """Clear one clean bit."""
        part = self._part(vcpu, level)
        if bit == k.VMCB_CET:
            part.clean[level - 1] = False

    def vmcb_switch(self, vcpu: int, level: int) -> None:
        """Choose the VMCB of the next VMRUN."""
        self._part(vcpu, level).level = level - 1
