"""What the mirror and the external tree owe one another: entries agreed to, leaves cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.frozen import FrozenEntries, Key
from conformance.environment.tdp_mirror.groups import SHARED_ONLY
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.words import is_leaf, pfn_of, present
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import FROZEN, RWX
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Mirror(Simulator):
    """The order in which a mirror and the external tree behind it change.

    An entry is frozen, then the external tree agrees, then the entry is published; a leaf is cleared, then it is
    removed outside. The tree itself is `SecureEpt`, its hooks are `ExternalTree`.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.MIRROR_4K_ONLY,
        c.MIRROR_NO_HUGE,
        c.MIRROR_LEAF_RWX,
        c.FREEZE_EXTERNAL_PUBLISH,
        c.FAILED_EXTERNAL_RESTORES,
        c.SET_ARGUMENTS,
        c.ATOMIC_ZAP_REFUSED,
        c.REMOVE_ARGUMENTS,
        c.MIRROR_UNTOUCHED,
    )

    def __init__(
        self, door: Environment, threads: Threads, mmu_lock: MmuLock, tables: Tables, frozen: FrozenEntries
    ) -> None:
        super().__init__(door)
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.tables = tables
        self.frozen = frozen
        self.agreed: dict[Key, int] = {}
        """To what the external tree agreed to: a page frame, or 0 for a table."""
        self.cleared: dict[int, tuple[int, int]] = {}
        """gfn of a mirror leaf that was cleared to its page frame and thread; the external tree does not know yet."""

    def judge(self, table: Page, index: int, old: int, new: int, where: str) -> None:
        """One change of an entry of a linked mirror."""
        if present(old):
            self._judge_present(table, index, old, new, where)
        elif present(new):
            self._judge_published(table, (table.pa, index), old, new, where)
        elif old == FROZEN:
            self._judge_restored((table.pa, index), new, where)

    def _judge_present(self, table: Page, index: int, old: int, new: int, where: str) -> None:
        """What is mapped goes only under the write lock, and never changes (TDP-058, 074, 095)."""
        me = self.threads.me
        writer = self.mmu_lock.writer
        if new == FROZEN and writer != me:
            return
        if present(new) and table.level > 1:
            raise Violation(c.MIRROR_NO_HUGE, f"{where} of a mirror: {old:#x} becomes {new:#x}")
        if present(new):
            raise Violation(c.MIRROR_UNTOUCHED, f"{where} of a mirror: {old:#x} becomes {new:#x}")
        if writer != me:
            raise Violation(c.ATOMIC_ZAP_REFUSED, f"{where} of a mirror: zapped without the write lock")
        if type(self.threads.op) in SHARED_ONLY:
            raise Violation(c.MIRROR_UNTOUCHED, f"{where} of a mirror: {old:#x} becomes {new:#x}")
        self.door.hold(c.ATOMIC_ZAP_REFUSED)
        if is_leaf(old, table.level):
            self.clear(table, index, old)

    def _judge_published(self, table: Page, key: Key, old: int, new: int, where: str) -> None:
        """Only what the external tree agreed to is published, as 4K with all permissions (TDP-057, 059, 061)."""
        hold = self.door.hold
        if old == FROZEN and key not in self.agreed and new == self._before(key, 0):
            return
        if old != FROZEN or key not in self.agreed:
            raise Violation(c.FREEZE_EXTERNAL_PUBLISH, f"{where} of a mirror: {new:#x} before the external tree agreed")
        agreed = self.agreed[key]
        if agreed and agreed != pfn_of(new):
            raise Violation(c.SET_ARGUMENTS, f"{where}: {new:#x} published, page {agreed:#x} set outside")
        if is_leaf(new, table.level):
            if table.level > 1:
                raise Violation(c.MIRROR_4K_ONLY, f"{where}: huge leaf {new:#x} in a mirror")
            if new & RWX != RWX:
                raise Violation(c.MIRROR_LEAF_RWX, f"{where}: mirror leaf {new:#x} lacks R, W or X")
            hold(c.MIRROR_LEAF_RWX)
        hold(c.FREEZE_EXTERNAL_PUBLISH)

    def _judge_restored(self, key: Key, new: int, where: str) -> None:
        """Where the external tree refused, the entry becomes what it was (TDP-063)."""
        before = self._before(key, new)
        if present(before):
            raise Violation(c.ATOMIC_ZAP_REFUSED, f"{where} of a mirror: zapped without the write lock")
        if new != before:
            raise Violation(c.FAILED_EXTERNAL_RESTORES, f"{where}: {before:#x} restored as {new:#x}")
        if key in self.agreed:
            raise Violation(c.FREEZE_EXTERNAL_PUBLISH, f"{where}: the external tree agreed, nothing published")
        self.door.hold(c.FAILED_EXTERNAL_RESTORES)

    def _before(self, key: Key, unknown: int) -> int:
        """What was there before the entry was frozen."""
        frozen = self.frozen.owners.get(key)
        return unknown if frozen is None else frozen[1]

    def agree(self, key: Key, page: int) -> None:
        """The external tree has agreed to what the frozen entry will be: a page frame, or 0 for a table."""
        self.agreed[key] = page

    def thaw(self, key: Key) -> None:
        """The entry is frozen no longer, and whatever was agreed to is done."""
        self.agreed.pop(key, None)

    def clear(self, table: Page, index: int, old: int) -> None:
        """A leaf is gone from the mirror, and the external tree must hear of it."""
        self.cleared[self.tables.gfn(table, index)] = (pfn_of(old), self.threads.me)

    def told(self, gfn: int) -> None:
        """The external tree has heard of a cleared leaf, whatever it made of that."""
        self.cleared.pop(gfn, None)

    def none_left(self, me: int) -> None:
        """Whoever returns has told the external tree of every leaf that it cleared."""
        for gfn, (pfn, owner) in self.cleared.items():
            if owner == me:
                raise Violation(
                    c.REMOVE_ARGUMENTS, f"mirror leaf of gfn {gfn:#x} cleared, page {pfn:#x} not removed outside"
                )
