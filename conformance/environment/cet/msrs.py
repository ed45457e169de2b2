"""RDMSR and WRMSR as the host's kernel executes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import PLACE, XSS, XSTATE, S
from conformance.environment.simulator import Simulator
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import EIO
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.cet.fpu import Fpu
    from conformance.environment.cet.processors import Processors
    from conformance.environment.door import Environment


class Msrs(Simulator):
    """The instructions, on the physical CPU of the thread that executes them, with exception fixup or without.

    What the candidate must not touch: registers that the FPU code keeps unless it locked them, and the host's
    S_CET. MSRs of other subsystems are not modelled.
    """

    CLAUSES = (c.FPU_RESIDENT, c.S_CET_NOT_XSTATE, c.S_CET_IS_THE_HOSTS, c.XSS_NEVER_FAULTS, c.ANSWERS)

    def __init__(self, door: Environment, processors: Processors, fpu: Fpu, profile: Profile) -> None:
        self.door = door
        self.processors = processors
        self.fpu = fpu
        self.managed = profile.fpu_managed

    def _registers(self, msr: int, value: int | None) -> tuple[list[int], int]:
        """The register file in use, and the place; checks what holds for RDMSR and WRMSR alike."""
        place = PLACE.get(msr)
        if place is None:
            raise Violation(c.ANSWERS, f"access to unknown MSR {msr:#x} faults")
        thread = self.door.frame.actor
        if self.managed and place in XSTATE:
            if thread is None or not self.fpu.is_resident(thread):
                raise Violation(c.FPU_RESIDENT, f"{hex(msr)} accessed without the guest FPU locked into hardware")
            self.door.hold(c.FPU_RESIDENT)
        if value is not None and place == S and value != self.processors.platform.host.s_cet:
            clause = c.S_CET_NOT_XSTATE if self.managed else c.S_CET_IS_THE_HOSTS
            raise Violation(clause, f"the host's S_CET is set to {value:#x}")
        return self.processors.files[0 if thread is None else thread.cpu], place

    def rdmsr(self, msr: int) -> int:
        """RDMSR, must not fault."""
        regs, place = self._registers(msr, None)
        fault = self.processors.fault(msr, None)
        if fault is not None:
            raise Violation(c.ANSWERS, f"RDMSR {msr:#x} faults on this host", "fault")
        return regs[place]

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR, must not fault."""
        regs, place = self._registers(msr, value)
        fault = self.processors.fault(msr, value)
        if fault is not None:
            raise Violation(fault, f"WRMSR {msr:#x} = {value:#x} faults on this host", "fault")
        if place == XSS:
            self.door.hold(c.XSS_NEVER_FAULTS)
        regs[place] = value

    def wrmsr_safe(self, msr: int, value: int) -> int:
        """WRMSR that may fault."""
        regs, place = self._registers(msr, value)
        if self.processors.fault(msr, value) is not None:
            return -EIO
        regs[place] = value
        return 0
