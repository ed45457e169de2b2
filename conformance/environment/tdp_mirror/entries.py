"""The accesses to page-table memory that a candidate makes, as the memory controller sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.changes import Changes
from conformance.environment.tdp_mirror.frozen import FrozenEntries
from conformance.environment.tdp_mirror.groups import MAPPING
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.rcu import Rcu
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.words import is_leaf, present
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import FROZEN
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Entries(Simulator):
    """Reads, plain stores and atomic accesses of entries, each at one moment.

    Hardware may set accessed and dirty bits just before one, where that is planned. What a change may be is
    the business of `Changes`. Not modelled: the order of accesses that a weak memory would allow.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.REFRESH_AFTER_FAILURE,
        c.RCU_PROTECTED,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "pt_read": (c.RCU_PROTECTED,),
        "pt_cmpxchg": (c.ATOMIC_UPDATES, c.NONPRESENT_ENCODING),
        "pt_store": (c.ATOMIC_UPDATES, c.NONPRESENT_ENCODING),
    }

    def __init__(
        self,
        door: Environment,
        threads: Threads,
        mmu_lock: MmuLock,
        rcu: Rcu,
        tables: Tables,
        frozen: FrozenEntries,
        changes: Changes,
    ) -> None:
        super().__init__(door)
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.rcu_depth = rcu.depth
        self.tables = tables
        self.pages = tables.pages
        self.size = tables.entries
        self.frozen = frozen
        self.change = changes.make
        self.stale: list[tuple[int, int, int, int] | None] = threads.own(None)
        """The last exchange of the operation, if it failed: page, index, expected, found."""

    def _access(self, page: int, index: int) -> Page:
        """The table, if this thread may touch it now (TDP-050)."""
        table = self.pages.get(page) or self.tables.of(page)
        if table.linked:
            scheduler = self.door.scheduler
            me = scheduler.running if scheduler is not None else 0
            if not self.rcu_depth[me] and self.mmu_lock.writer != me:
                self._bare(page, me)
        if not 0 <= index < self.size:
            raise Crash(f"entry {index} of a table of {self.size}")
        return table

    def _bare(self, page: int, me: int) -> None:
        """Outside an RCU section the lock for read keeps a table, where none ever goes but under that for write."""
        if not self.mmu_lock.readers[me] or self.tables.gone_beside_readers:
            raise Violation(c.RCU_PROTECTED, f"table {page:#x} is accessed outside an RCU read section")
        self.tables.bare = page

    def _by_hardware(self, call: str, table: Page, index: int, entry: int) -> int:
        """Set accessed and dirty as hardware may at any time, if that is planned and possible: the new bits."""
        root = table.root
        if root is None or root.is_mirror or not is_leaf(entry, table.level):
            return 0
        marked = entry | 1 << k.ACCESSED | (entry >> k.WRITE & 1) << k.DIRTY
        if marked == entry or not self.door.refused(call):
            return 0
        table.entries[index] = marked
        self.tables.dirtied += (marked ^ entry) >> k.DIRTY & 1
        return marked ^ entry

    def _contended(self) -> None:
        if self.door.scheduler is not None:
            self.door.frame.given.setdefault("contended", 1)

    # -- environment calls

    def pt_read(self, page: int, index: int) -> int:
        """Read an entry."""
        table = self._access(page, index)
        value = table.entries.get(index, table.init)
        if value == FROZEN and self.door.scheduler is not None:
            self._contended()
            me = self.threads.me
            if table.linked and type(self.threads.op) in MAPPING and self.mmu_lock.is_held(me):
                self.frozen.meet(me)
        return value

    def pt_store(self, page: int, index: int, value: int) -> None:
        """Plain store."""
        table = self._access(page, index)
        noted = self._by_hardware("pt_store", table, index, table.read(index)) if self.door.frame.plan else 0
        self.change(table, index, table.read(index), value, True, noted)

    def pt_cmpxchg(self, page: int, index: int, old: int, new: int) -> int:
        """Compare and exchange; hardware may set bits just before."""
        table = self._access(page, index)
        found = table.read(index)
        if found == old and self.door.frame.plan and self._by_hardware("pt_cmpxchg", table, index, found):
            found = table.read(index)
        me = self.threads.me
        if found != old:
            now = (page, index, old, found)
            if self.stale[me] == now:
                raise Violation(
                    c.REFRESH_AFTER_FAILURE, f"exchange of entry {index} repeated with the stale value {old:#x}"
                )
            self.stale[me] = now
            if new == FROZEN:
                self.frozen.lose(me, (page, index))
            self._contended()
            return found
        self.frozen.win(me)
        if self.stale[me] is not None:
            self.stale[me] = None
            self.door.hold(c.REFRESH_AFTER_FAILURE)
        if present(new) and not present(old):
            self.frozen.may_map("an entry is changed")
        self.change(table, index, old, new, False)
        return found

    def pt_xchg(self, page: int, index: int, new: int) -> int:
        """Exchange."""
        table = self._access(page, index)
        noted = self._by_hardware("pt_xchg", table, index, table.read(index)) if self.door.frame.plan else 0
        old = table.read(index)
        self.change(table, index, old, new, False, noted)
        return old

    def pt_and(self, page: int, index: int, mask: int) -> int:
        """Atomic and."""
        table = self._access(page, index)
        old = table.read(index)
        self.change(table, index, old, old & mask, False)
        return old
