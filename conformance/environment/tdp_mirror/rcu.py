"""RCU: readers of the page tables, and the grace periods after which removed tables are freed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.heap import Heap
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.words import present
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import FROZEN
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


def _closed(entry: int) -> int:
    """A frozen entry as it was before somebody who ages what it once mapped cleared its accessed bit."""
    return entry | 1 << k.ACCESSED


class Rcu(Simulator):
    """Read sections of two threads, and callbacks, which run at the earliest moment that is allowed.

    Sections nest, and belong to an operation. A grace period lasts until every thread that was in a section has
    left it; its callback runs at once on the thread that ended it, in atomic context.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.FREED_AFTER_GRACE,
        c.BALANCED,
        c.TABLE_GRACE_PERIOD,
        c.REMOVED_FROZEN,
    )

    def __init__(self, door: Environment, threads: Threads, tables: Tables, heap: Heap) -> None:
        super().__init__(door)
        self.threads = threads
        self.tables = tables
        self.heap = heap
        self.depth = threads.own(0)
        """Sections that each thread's operation is in."""
        self.waiting: list[tuple[int, set[int]]] = []
        """Tables that were given up, and the threads that may still read each."""
        self.waited = True
        """Whether callbacks were waited for since the last was asked for."""

    # -- environment calls

    def rcu_read_lock(self) -> None:
        """Enter a section."""
        self.depth[self.threads.me] += 1

    def rcu_read_unlock(self) -> None:
        """Leave it; grace periods may end here."""
        me = self.threads.me
        depth = self.depth
        if not depth[me]:
            raise Violation(c.BALANCED, "RCU left, not entered")
        depth[me] -= 1
        if not depth[me] and self.waiting:
            for _, readers in self.waiting:
                readers.discard(me)
            self._end_grace_periods()

    def call_rcu(self, page: int) -> None:
        """Ask for a grace period before a table is freed (TDP-034, 085, 086)."""
        table = self.tables.of(page)
        if table.linked or not table.removed or table.grace:
            clause = c.FREED_AFTER_GRACE if table.root is table else c.TABLE_GRACE_PERIOD
            raise Violation(clause, f"call_rcu({page:#x}): the table is still linked, or was given up before")
        if table.root is not table:
            self._judge_removed(table)
        self.door.hold(c.TABLE_GRACE_PERIOD)
        table.grace = True
        self.waited = False
        self.waiting.append((page, {thread for thread, depth in enumerate(self.depth) if depth}))
        self._end_grace_periods()

    def rcu_barrier(self) -> None:
        """Wait for all callbacks."""
        if self.waiting and self.door.scheduler is not None:
            self.door.scheduler.block("RCU callbacks", lambda: not self.waiting)
        self.waited = True

    def _judge_removed(self, table: Page) -> None:
        """A removed table takes no new entries, and was cut off from above first (TDP-086).

        Whoever unlinked it as a writer of mmu_lock met no mapper in it: there an entry that is not present stays so.
        """
        entries = set(table.entries.values())
        if len(table.entries) < self.tables.entries:
            entries.add(table.init)
        if any(map(present, entries)) if table.shut else {_closed(entry) for entry in entries} != {FROZEN}:
            raise Violation(c.REMOVED_FROZEN, f"removed table {table.pa:#x} still takes new entries")
        above, index = table.parent or (table, 0)
        entry = above.read(index)
        if above.removed and above.root is not above and (present(entry) if above.shut else _closed(entry) != FROZEN):
            raise Violation(c.REMOVED_FROZEN, f"removed table {above.pa:#x}: entry {index} is not frozen in time")
        self.door.hold(c.REMOVED_FROZEN)

    def _end_grace_periods(self) -> None:
        """Run the callbacks for which no reader is left, at the earliest moment."""
        ready = [page for page, readers in self.waiting if not readers]
        if not ready:
            return
        self.waiting = [item for item in self.waiting if item[1]]
        door = self.door
        for page in ready:
            self.heap.let_go(self.tables.pages[page])
            door.atomic += 1
            try:
                door.enter(door.driver.rcu_callback, page)
            finally:
                door.atomic -= 1
