"""Who looks at a physical CPU after a vCPU: its own userspace, other tasks, whoever comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import PL0, PL2, POINTERS, TABLE, S
from conformance.environment.simulator import Simulator
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import MSRS
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.cet.processors import Processors
    from conformance.environment.cet.threads import Thread
    from conformance.environment.cet.values import Values
    from conformance.environment.door import Environment


class Onlookers(Simulator):
    """What must not be left in hardware: they look at returns to userspace, host tasks, and destroyed vCPUs.

    What the FPU code itself leaves there is not theirs: only a profile that clears is held to zeros.
    """

    CLAUSES = (
        c.NO_RELOAD_OUTSIDE_RUN,
        c.SUPERVISOR_POINTERS_CLEARED,
        c.S_CET_IS_THE_HOSTS,
        c.DESTROYED_LEAVES_NOTHING,
    )

    def __init__(self, door: Environment, processors: Processors, values: Values, profile: Profile) -> None:
        self.door = door
        self.processors = processors
        self.values = values
        self.cleared = profile.cleared

    def after_ioctl(self, thread: Thread) -> None:
        """An ioctl other than KVM_RUN brings no value of the vCPU into hardware that outlives it.

        Only the physical CPU it ends on counts, and only what came there since the thread did:
        others may have left the same values there before.
        """
        regs, written = self.processors.files[thread.cpu], self.values.parts[thread.number]
        for place, old in zip(POINTERS, thread.found, strict=True):
            value = regs[place]
            if value and value != old and value in written:
                raise Violation(c.NO_RELOAD_OUTSIDE_RUN, f"PL{place - PL0}_SSP is {value:#x} after vcpu_put")
        self.door.hold(c.NO_RELOAD_OUTSIDE_RUN)

    def in_user_mode(self, cpu: int) -> None:
        """Where the profile says so, PL0..PL2_SSP are 0 whenever somebody else may look."""
        if self.cleared:
            values = self.processors.files[cpu][PL0 : PL2 + 1]
            if any(values):
                found = ", ".join(f"{x:#x}" for x in values)
                raise Violation(c.SUPERVISOR_POINTERS_CLEARED, f"PL0..PL2_SSP of the host are {found}")
            self.door.hold(c.SUPERVISOR_POINTERS_CLEARED)

    def host_task(self, cpu: int) -> None:
        """Another task finds nothing of the vCPUs, and runs with the host's own S_CET."""
        self.in_user_mode(cpu)
        found, own = self.processors.files[cpu][S], self.processors.platform.host.s_cet
        self.door.require(c.S_CET_IS_THE_HOSTS, found == own, f"S_CET is {found:#x} under a host task")

    def after_destruction(self, vcpu: int) -> None:
        """No register of the host holds what only the destroyed vCPU knew."""
        written, host = self.values.parts[vcpu], self.processors.platform.host
        shown = (S, TABLE, *POINTERS) if self.cleared else (S, TABLE)
        for regs in self.processors.files:
            for place in shown:
                value = regs[place]
                if value and value in written and value != host.s_cet and not self.values.are_known_beside(vcpu, value):
                    raise Violation(
                        c.DESTROYED_LEAVES_NOTHING, f"{hex(MSRS[place])} of the host still holds {value:#x}"
                    )
        self.door.hold(c.DESTROYED_LEAVES_NOTHING)
