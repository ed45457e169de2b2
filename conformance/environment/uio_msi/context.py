"""The context in which the driver makes a call: a process, a handler, a spinlock's critical section."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.uio_msi import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame


class Context(Simulator):
    """What preempt_count says of each operation: whether it is in a handler, how many spinlocks it holds.

    Beside another thread a handler has a CPU of its own, and keeps nobody else from sleeping. Not modelled: softirqs,
    interrupts that are off without a spinlock.
    """

    CLAUSES = (c.HANDLERS_DO_NOT_SLEEP, c.MEMORY_SAFE)

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.handling: set[Frame] = set()
        """Operations that are in a handler."""
        self.spinning: dict[Frame, int] = {}
        """Spinlocks held, by operation; none that holds none."""

    def may_sleep(self, call: str) -> None:
        """Refuse a call that sleeps in a handler or under a spinlock."""
        door = self.door
        if self.handling:
            self.needs_process(call)
        if door.atomic and (door.scheduler is None or door.frame in self.spinning):
            raise Violation(c.MEMORY_SAFE, f"{call} while a spinlock is held")

    def needs_process(self, call: str) -> None:
        """Refuse a call in a handler; under a spinlock it is fine."""
        if self.handling and self.door.frame in self.handling:
            raise Violation(c.HANDLERS_DO_NOT_SLEEP, f"{call} in an interrupt handler")

    def is_atomic(self) -> bool:
        """Whether no interrupt is taken here now: in a handler, and under a spinlock."""
        door = self.door
        if self.handling and door.frame in self.handling:
            return True
        return door.atomic > 0 and (door.scheduler is None or door.frame in self.spinning)
