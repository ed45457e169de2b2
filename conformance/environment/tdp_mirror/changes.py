"""One change of one entry: what it may be, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.frozen import FrozenEntries
from conformance.environment.tdp_mirror.groups import CHANGING_BITS, MAPPING, PROTECTING, is_prefetch
from conformance.environment.tdp_mirror.links import Links
from conformance.environment.tdp_mirror.mirror import Mirror
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.slots import Slots
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.words import PFN_MASK, is_leaf, is_volatile, present
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import FROZEN, NONPRESENT
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


_FAULTS = (ops.PageFault, ops.FastFault, ops.Prefault)
"""What makes shared leaves writable for a guest."""


class Changes(Simulator):
    """The judge of every change of a word of page-table memory; it has no state but what it tells others to keep.

    Who may change it, by which kind of access, to which word: encoding, locks, the page under a leaf, the half of the
    address space. What only mirrors must observe is the business of `Mirror`, what frozen entries that of
    `FrozenEntries`, what becomes of tables that of `Links`.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.WALK_INDEX,
        c.NO_MAP_UNDER_INVALID,
        c.NONPRESENT_ENCODING,
        c.ATOMIC_UPDATES,
        c.LEAF_PFN_FIXED,
        c.MIRROR_NO_HUGE,
        c.PREFETCH_NOT_ACCESSED,
        c.LOGGED_AT_4K,
    )

    def __init__(
        self,
        door: Environment,
        config: Config,
        threads: Threads,
        mmu_lock: MmuLock,
        slots: Slots,
        tables: Tables,
        frozen: FrozenEntries,
        mirror: Mirror,
        links: Links,
    ) -> None:
        super().__init__(door)
        self.bits = config.direct_bits
        self.cover = config.cover
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.slots = slots
        self.tables = tables
        self.frozen = frozen
        self.mirror = mirror
        self.links = links

    def make(self, table: Page, index: int, old: int, new: int, plain: bool, noted: int = 0) -> None:
        """Judge one change of one entry, by a plain store or an atomic access, and make it.

        `noted`: bits that hardware set at this very moment, which nobody can have seen before.
        """
        root = table.root
        if old == new and not plain and old != FROZEN:
            return  # bits cleared of an entry that has none of them change nothing
        if not table.linked:
            if root is not None:
                self._judge_removed(table, index, old, plain)
                self._judge_revived(old, new, f"entry {index} of the removed table {table.pa:#x}")
                self.links.count(table, index, old, new)
                if root.is_mirror and is_leaf(old, table.level) and not present(new):
                    self.mirror.clear(table, index, old)
            table.entries[index] = new
            return
        assert root is not None
        where = f"entry {index} of the level {table.level} table {table.pa:#x}"
        key = (table.pa, index)
        self.frozen.judge(key, old, new, plain, where)
        self._judge_word(table, index, new, where)
        self._judge_access(root, old, new, plain, where)
        if root.is_mirror:
            self.mirror.judge(table, index, old, new, where)
        elif plain and is_volatile(old, table.level):
            raise Violation(c.ATOMIC_UPDATES, f"{where}: plain store over {old:#x}, which hardware may change")
        if present(new):
            self._judge_leaf(table, index, old, new, where)
            was_dirty = is_leaf(old, table.level) and old >> k.DIRTY & 1
            self.tables.dirtied += is_leaf(new, table.level) and new >> k.DIRTY & 1 and not was_dirty
        if is_leaf(old, table.level) and is_leaf(new, table.level):
            self._judge_bits(old & ~new, noted, where)
        before = self.frozen.before(key, old)
        self.frozen.note(key, old, new)
        if new != FROZEN and root.is_mirror:
            self.mirror.thaw(key)
        self.links.count(table, index, old, new)
        if old != before and is_leaf(new, table.level) and not (new ^ before) & PFN_MASK:
            self.links.restored(table, index)
        table.entries[index] = new
        self.tables.version += 1
        split = self._split(root, old, before, new, table.level)
        brought = () if split else self._brought(root, new, table.level)
        self.links.relink(table, index, old, new, split)
        if self.frozen.owners and present(old) and not is_leaf(old, table.level):
            self.frozen.out_of_reach({pa for pa, page in self.tables.pages.items() if page.removed})
        for child, place, value in brought:
            self.make(child, place, NONPRESENT, value, plain=False)

    def _split(self, root: Page, old: int, before: int, new: int, level: int) -> int:
        """The huge leaf that a table takes the place of, 0 for none.

        Who freezes the leaf first, and flushes, splits it if the table is full; an empty one comes for itself.
        """
        if not present(new) or is_leaf(new, level) or not is_leaf(before, level):
            return 0
        if old != before and (root.is_mirror or not any(map(present, self.tables.of(new & PFN_MASK).entries.values()))):
            return 0
        return before

    def _brought(self, root: Page, new: int, level: int) -> tuple[tuple[Page, int, int], ...]:
        """Entries of a direct table that was filled before it is linked: as if each came right after the table."""
        if root.is_mirror or not present(new) or is_leaf(new, level):
            return ()
        child = self.tables.of(new & PFN_MASK)
        if child.linked or child.removed:
            return ()
        brought = tuple((child, place, value) for place, value in child.entries.items() if present(value))
        child.entries.update((place, NONPRESENT) for _, place, _ in brought)
        return brought

    def _judge_removed(self, table: Page, index: int, old: int, plain: bool) -> None:
        """Others still have their hands in a table that was just unlinked (TDP-046)."""
        if not plain or not present(old) or not table.removed:
            return
        where = f"entry {index} of the removed table {table.pa:#x}"
        if self.mmu_lock.writer != self.threads.me:
            raise Violation(c.ATOMIC_UPDATES, f"{where}: plain store over {old:#x} without the write lock")
        if not table.is_mirror and is_volatile(old, table.level):
            raise Violation(c.ATOMIC_UPDATES, f"{where}: plain store over {old:#x}, which hardware may change")

    def _judge_word(self, table: Page, index: int, new: int, where: str) -> None:
        """Bit 63 is set, but for MMIO; what is not present says nothing more (TDP-042)."""
        if present(new):
            if not new >> k.SUPPRESS_VE & 1:
                raise Violation(c.NONPRESENT_ENCODING, f"{where}: {new:#x} is present without bit 63")
            return
        if new in (NONPRESENT, FROZEN):
            return
        assert table.root is not None
        is_direct = not table.root.is_mirror
        if not (is_direct and not new >> k.SUPPRESS_VE & 1 and self.slots.of(self.tables.gfn(table, index)) is None):
            raise Violation(c.NONPRESENT_ENCODING, f"{where}: {new:#x} is neither present, NONPRESENT nor FROZEN")

    def _judge_access(self, root: Page, old: int, new: int, plain: bool, where: str) -> None:
        """Plain stores need the write lock, atomic ones some lock; nothing comes under an invalid root."""
        me = self.threads.me
        lock = self.mmu_lock
        is_present, was_present = present(new), present(old)
        if plain and lock.writer != me and old != FROZEN:
            raise Violation(c.ATOMIC_UPDATES, f"{where}: plain store of {new:#x} over {old:#x} without the write lock")
        if not plain and lock.writer != me and not lock.readers[me] and not (was_present and is_present):
            raise Violation(c.ATOMIC_UPDATES, f"{where}: {old:#x} becomes {new:#x} without mmu_lock")
        if is_present and not was_present:
            if root.invalid:
                raise Violation(c.NO_MAP_UNDER_INVALID, f"{where}: {new:#x} installed under an invalid root")
            self.door.hold(c.NO_MAP_UNDER_INVALID)

    def _judge_leaf(self, table: Page, index: int, old: int, new: int, where: str) -> None:
        """Pages do not change under a leaf; each half is where it belongs."""
        root = table.root
        assert root is not None
        level = table.level
        if is_leaf(old, level) and is_leaf(new, level) and (old ^ new) & PFN_MASK:
            raise Violation(c.LEAF_PFN_FIXED, f"{where}: {old:#x} becomes {new:#x}, another page")
        if present(old) and is_leaf(new, level):
            self.door.hold(c.LEAF_PFN_FIXED)
        if not root.is_mirror and is_leaf(new, level) and not present(old):
            self._judge_revived(old, new, where)
            if is_prefetch(self.threads.op) or self._is_along(table, index):
                if new >> k.ACCESSED & 1:
                    raise Violation(c.PREFETCH_NOT_ACCESSED, f"{where}: {new:#x} is installed by a prefetch")
                self.door.hold(c.PREFETCH_NOT_ACCESSED)
        if level > 1 and is_leaf(new, level) and type(self.threads.op) in _FAULTS:
            self._judge_logged(table, index, old if is_leaf(old, level) else 0, new, where)
        if self.bits:
            step = self.cover(level)
            raw = table.raw + index * step
            if step <= self.bits and bool(raw & self.bits) == root.is_mirror:
                raise Violation(c.WALK_INDEX, f"{where}: gfn {raw:#x} is in the other half of this root")
        if root.is_mirror and present(old) and not is_leaf(old, level):
            raise Violation(c.MIRROR_NO_HUGE, f"{where}: a table of a mirror is replaced by {new:#x}")

    def _is_along(self, table: Page, index: int) -> bool:
        """Whether a fault maps this page along with its own; which of the table's they are is told to the model."""
        op = self.threads.op
        if type(op) not in MAPPING or table.level > 1:
            return False
        gfn = op.gpa >> k.PAGE_SHIFT & ~self.bits
        if self.tables.gfn(table, index) == gfn:
            return False
        if table.gfn == gfn & -self.cover(2):
            given = self.door.frame.given
            given["along"] = given.get("along", 0) | 1 << index
        return True

    def _judge_logged(self, table: Page, index: int, before: int, new: int, where: str) -> None:
        """Nothing huge becomes writable where each page is logged for itself (TDP-112)."""
        slot = self.slots.of(self.tables.gfn(table, index))
        if slot is None or not slot[3] & k.MEM_LOG_DIRTY_PAGES:
            return
        if (new & ~before) >> k.WRITE & 1:
            raise Violation(c.LOGGED_AT_4K, f"{where}: the huge leaf {new:#x} is made writable in slot {slot[0]}")
        self.door.hold(c.LOGGED_AT_4K)

    def _judge_revived(self, old: int, new: int, where: str) -> None:
        """Whoever changes bits brings no entry back that was zapped meanwhile (TDP-046)."""
        if type(self.threads.op) in CHANGING_BITS and present(new) and not present(old):
            raise Violation(c.ATOMIC_UPDATES, f"{where}: {old:#x} becomes {new:#x}, though only bits were to change")

    def _judge_bits(self, lost: int, noted: int, where: str) -> None:
        """What hardware noted is lost only where somebody asks for it (TDP-046).

        An accessed bit of this moment may be: an exchange shows it, and a false answer is tolerated.
        """
        op = type(self.threads.op)
        if (lost & ~noted) >> k.ACCESSED & 1 and op is not ops.Age:
            raise Violation(c.ATOMIC_UPDATES, f"{where}: the accessed bit is lost")
        if lost >> k.DIRTY & 1 and op not in PROTECTING:
            raise Violation(c.ATOMIC_UPDATES, f"{where}: the dirty bit is lost")
