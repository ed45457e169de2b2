"""pages_lock: the spinlock of the list of roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.threads import Threads
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class PagesLock(Simulator):
    """The spinlock under which roots are listed and unlisted, held by a thread."""

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.BALANCED,)

    def __init__(self, door: Environment, threads: Threads) -> None:
        super().__init__(door)
        self.threads = threads
        self.holder = -1
        """The thread that holds it, -1 for none."""

    def pages_lock(self) -> None:
        """The spinlock of the lists."""
        me = self.threads.me
        if self.holder == me:
            raise Violation(c.BALANCED, "pages_lock taken twice")
        if not self.door.wait_until("pages_lock", lambda: self.holder < 0):
            raise Violation(c.BALANCED, "pages_lock taken while it is held")
        self.holder = me

    def pages_unlock(self) -> None:
        """Release it."""
        if self.holder != self.threads.me:
            raise Violation(c.BALANCED, "pages_lock released, not held")
        self.holder = -1
