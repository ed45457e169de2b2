"""Which values a vCPU can know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.vcpus import PerVcpu
from conformance.specs.cet import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.cet.threads import Threads
    from conformance.environment.door import Environment


class Values(PerVcpu[set[int]]):
    """The set of values ever written by or for each vCPU, in whatever register: no real thing, but what makes a leak.

    A register or a result that shows a vCPU a value only another one knows is a leak, whatever else is right.
    """

    CLAUSES = (c.NO_LEAK_BETWEEN_VCPUS, c.DESTROYED_LEAVES_NOTHING)

    def __init__(self, door: Environment, threads: Threads) -> None:
        super().__init__(door)
        self.threads = threads
        self.ghosts: set[int] = set()
        """Values of vCPUs that were destroyed."""

    def add(self, vcpu: int) -> None:
        """Everybody knows zero."""
        self.parts[vcpu] = {0}

    def learn(self, vcpu: int, *values: int) -> None:
        """The guest, or userspace for it, writes these."""
        self.parts[vcpu].update(values)

    def check(self, vcpu: int, value: int, what: str) -> None:
        """A value that only another vCPU knows must not show here."""
        if value in self.parts[vcpu]:
            return
        slot = self.threads.parts[vcpu].slot
        if value in self.ghosts:
            raise Violation(c.DESTROYED_LEAVES_NOTHING, f"vCPU {slot} {what} {value:#x} of a destroyed vCPU")
        for other, known in self.parts.items():
            if other != vcpu and value in known:
                whose = self.threads.parts[other].slot
                raise Violation(c.NO_LEAK_BETWEEN_VCPUS, f"vCPU {slot} {what} {value:#x} of vCPU {whose}")

    def are_known_beside(self, vcpu: int, value: int) -> bool:
        """Whether another vCPU knows the value, too."""
        return any(other != vcpu and value in known for other, known in self.parts.items())

    def bury(self, known: set[int]) -> None:
        """A vCPU that knew these is destroyed; what others know is theirs."""
        self.ghosts |= known - {0}
        for other in self.parts.values():
            self.ghosts -= other
