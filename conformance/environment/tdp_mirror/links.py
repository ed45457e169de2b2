"""Tables that come into reach of walks, and go out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.accounts import Accounts
from conformance.environment.tdp_mirror.heap import Heap
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.tlbs import Tlbs
from conformance.environment.tdp_mirror.words import PFN_MASK, is_leaf, present
from conformance.model.tdp_mirror import Config
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import NONPRESENT
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


_KEPT = 1 << k.READ | 1 << k.WRITE | 1 << k.HOST_WRITABLE | 1 << k.MMU_WRITABLE
"""Bits of a huge leaf that its parts have if it has them."""
_DIRTY = 1 << k.DIRTY
_MEANINGLESS = 1 << k.ACCESSED | _DIRTY
"""Bits that say nothing of an entry which points to a table."""


class Links(Simulator):
    """What an entry that points to a table does to that table, and what must be true of it then.

    Keeps `linked` and `removed` of pages and where they hang; counts leaves, and notes which of them TLBs may hold.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.ROOT_KIND_FIXED,
        c.UNMAPPABLE_ADDRESS,
        c.NEW_TABLE_NONPRESENT,
        c.NONPRESENT_ENCODING,
        c.ATOMIC_UPDATES,
        c.LEAF_PFN_FIXED,
        c.RCU_PROTECTED,
        c.CHILD_ROLE,
        c.SPLIT_KEEPS,
    )

    def __init__(
        self,
        door: Environment,
        config: Config,
        threads: Threads,
        mmu_lock: MmuLock,
        tables: Tables,
        heap: Heap,
        accounts: Accounts,
        tlbs: Tlbs,
    ) -> None:
        super().__init__(door)
        self.levels = config.levels
        self.bits = config.direct_bits
        self.cover = config.cover
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.tables = tables
        self.heap = heap
        self.accounts = accounts
        self.tlbs = tlbs

    def count(self, table: Page, index: int, old: int, new: int) -> None:
        """Leaves that come and go; those of valid direct roots that go need a flush, of a mirror the firmware's."""
        level = table.level
        was, now = is_leaf(old, level), is_leaf(new, level)
        if was == now:
            return
        self.accounts.count(level, 1 if now else -1)
        root = table.root
        assert root is not None
        if was and not root.is_mirror and not root.invalid and not present(new):
            self.tlbs.due.add(self.tables.gfn(table, index))

    def restored(self, table: Page, index: int) -> None:
        """A leaf that was frozen is there again: what TLBs hold of it is true."""
        self.tlbs.due.discard(self.tables.gfn(table, index))

    def relink(self, table: Page, index: int, old: int, new: int, split: int) -> None:
        """Tables that an entry points to come into reach, perhaps where a huge leaf was split, or go out of it."""
        level = table.level
        if self._same_table(table, index, old, new):
            return
        if present(old) and not is_leaf(old, level):
            self.threads.tell_others("contended")
            before = set(self.tlbs.due)
            self._unlink(self.tables.pages[old & PFN_MASK])
            if is_leaf(new, level):
                self.tlbs.due = before
        if present(new) and not is_leaf(new, level):
            self._link(table, index, new, split)

    def _same_table(self, table: Page, index: int, old: int, new: int) -> bool:
        """Whether an entry points to the table that it did; of its bits only accessed and dirty mean nothing there."""
        level = table.level
        both = present(old) and present(new) and not is_leaf(old, level) and not is_leaf(new, level)
        if not both or (old ^ new) & PFN_MASK:
            return False
        if (old ^ new) & ~_MEANINGLESS:
            where = f"entry {index} of the level {level} table {table.pa:#x}"
            raise Violation(c.ATOMIC_UPDATES, f"{where}: {old:#x} becomes {new:#x}, though it points to a table by now")
        return True

    def _link(self, parent: Page, index: int, entry: int, split: int) -> None:
        """A table comes into reach, in the place of a huge leaf if it splits one."""
        child = self.tables.of(entry & PFN_MASK)
        if child.linked or child.removed:
            raise Violation(c.CHILD_ROLE, f"table {child.pa:#x} is linked twice")
        assert parent.root is not None
        child.level = parent.level - 1
        child.raw = parent.raw + index * self.cover(parent.level)
        child.root = parent.root
        child.parent = (parent, index)
        self._judge_header(parent, child)
        if split:
            self.tlbs.due.discard(child.gfn)
            self._judge_split(child, split)
        else:
            self.fresh(child)
        child.linked = True
        self.accounts.link(1)
        self.heap.take(child.pa, child.header, child.external)
        self.door.hold(c.CHILD_ROLE)

    def _judge_header(self, parent: Page, child: Page) -> None:
        """A child has its parent's role, one level below, and says where it hangs (TDP-001, 069)."""
        gfn = child.raw & ~self.bits
        if child.role >> k.ROLE_MIRROR & 1 != parent.role >> k.ROLE_MIRROR & 1:
            raise Violation(c.ROOT_KIND_FIXED, f"a child of table {parent.pa:#x} has another mirror flag")
        if child.gfn >= self.cover(self.levels + 1):
            raise Violation(c.UNMAPPABLE_ADDRESS, f"a table for gfn {child.gfn:#x} is linked at gfn {gfn:#x}")
        wanted = parent.role - 1 & ~(1 << k.ROLE_INVALID)
        if child.role & ~(1 << k.ROLE_INVALID) != wanted or child.gfn != gfn:
            raise Violation(
                c.CHILD_ROLE,
                f"table {child.pa:#x}: role {child.role:#x}, gfn {child.gfn:#x}, expected {wanted:#x}, {gfn:#x}",
            )

    def _judge_split(self, child: Page, split: int) -> None:
        """The table maps what the huge leaf did in whose place it comes."""
        first, step = split & PFN_MASK, self.cover(child.level) << k.PAGE_SHIFT
        for i in range(self.tables.entries):
            value = child.read(i)
            if not value >> k.SUPPRESS_VE & 1:
                raise Violation(c.NONPRESENT_ENCODING, f"entry {i} of table {child.pa:#x}: {value:#x} lacks bit 63")
            if not is_leaf(value, child.level) or value & PFN_MASK != first + i * step:
                raise Violation(c.LEAF_PFN_FIXED, f"entry {i} of table {child.pa:#x}: {value:#x}, split {split:#x}")
            if (value ^ split) & _KEPT or split & ~value & _DIRTY:
                raise Violation(c.SPLIT_KEEPS, f"entry {i} of table {child.pa:#x}: {value:#x}, split {split:#x}")
            self.tables.dirtied += value & ~split & _DIRTY != 0
            self.count(child, i, NONPRESENT, value)
        self.door.hold(c.SPLIT_KEEPS)
        self.threads.tell_others("split_beside")

    def fresh(self, table: Page) -> None:
        """All entries NONPRESENT before anybody can reach them, but for those that map (TDP-041)."""
        values = set(table.entries.values())
        if len(table.entries) < self.tables.entries:
            values.add(table.init)
        if values - {NONPRESENT}:
            wrong = min(values - {NONPRESENT})
            raise Violation(c.NEW_TABLE_NONPRESENT, f"new table {table.pa:#x} holds {wrong:#x}")
        self.door.hold(c.NEW_TABLE_NONPRESENT)

    def _unlink(self, table: Page) -> None:
        """A table and all below it are out of reach for new walks."""
        table.linked, table.removed = False, True
        table.shut = self.mmu_lock.writer == self.threads.me
        if not table.shut:
            self.tables.gone_beside_readers = True
            if self.tables.bare:
                detail = (
                    f"table {table.pa:#x} goes beside readers of mmu_lock, who had {self.tables.bare:#x} without RCU"
                )
                raise Violation(c.RCU_PROTECTED, detail)
        self.accounts.link(-1)
        root = table.root
        assert root is not None
        for index, value in table.entries.items():
            if is_leaf(value, table.level):
                if not root.is_mirror and not root.invalid:
                    self.tlbs.due.add(self.tables.gfn(table, index))
            elif present(value):
                self._unlink(self.tables.pages[value & PFN_MASK])
