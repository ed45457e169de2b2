"""SRCU: readers of the slots, and the wait for those of the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.threads import Threads
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Srcu(Simulator):
    """The sleepable RCU of the slots: sections nest, and belong to an operation.

    Not modelled: grace periods; a wait lasts until the other thread is in no section.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.BALANCED,)

    def __init__(self, door: Environment, threads: Threads) -> None:
        super().__init__(door)
        self.threads = threads
        self.depth = threads.own(0)
        """Sections that each thread's operation is in; the run loop enters one for a fault by itself."""

    def srcu_read_lock(self) -> None:
        """Enter a section."""
        self.depth[self.threads.me] += 1

    def srcu_read_unlock(self) -> None:
        """Leave it."""
        me = self.threads.me
        if not self.depth[me]:
            raise Violation(c.BALANCED, "SRCU left, not entered")
        self.depth[me] -= 1

    def synchronize_srcu(self) -> None:
        """Wait for readers of the old slots."""
        other = 1 - self.threads.me
        if self.depth[other] and not self.door.wait_until("readers of the old slots", lambda: not self.depth[other]):
            raise Violation(c.BALANCED, "readers of the old slots taken while it is held")
