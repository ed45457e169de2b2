"""slots_lock: the mutex of slots and attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.threads import Threads
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class SlotsLock(Simulator):
    """The mutex under which slots and attributes change: taken before mmu_lock, held by a thread.

    What must be true before it is let go is for others to say, by `before_release`.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.BALANCED,
        c.CONVERSION_ZAPS_OLD,
    )

    def __init__(self, door: Environment, threads: Threads, mmu_lock: MmuLock) -> None:
        super().__init__(door)
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.holder = -1
        """The thread that holds it, -1 for none."""
        self.before_release: Callable[[], None] = _nothing

    def needed(self, what: str) -> None:
        """What is done must be done under the lock."""
        if self.holder != self.threads.me:
            raise Violation(c.CONVERSION_ZAPS_OLD, f"{what} without slots_lock")

    # -- environment calls

    def slots_lock(self) -> None:
        """The mutex of slots and attributes."""
        me = self.threads.me
        if self.holder == me or self.mmu_lock.is_held(me):
            raise Violation(c.BALANCED, "slots_lock taken twice, or under mmu_lock")
        if not self.door.wait_until("slots_lock", lambda: self.holder < 0):
            raise Violation(c.BALANCED, "slots_lock taken while it is held")
        self.holder = me

    def slots_unlock(self) -> None:
        """Release it."""
        if self.holder != self.threads.me:
            raise Violation(c.BALANCED, "slots_lock released, not held")
        self.before_release()
        self.holder = -1


def _nothing() -> None:
    """Nothing has to be true."""
