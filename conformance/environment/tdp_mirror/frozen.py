"""Frozen entries: whose they are, and what those must do that meet them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.threads import Threads
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import FROZEN
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment

Key = tuple[int, int]
"""Address of a table, and index."""

_NOWHERE: frozenset[int] = frozenset()


class FrozenEntries(Simulator):
    """The protocol of the word FROZEN in linked tables: who stored it has the entry for itself until it stores another.

    A mapper that meets one gives up, for as long as it has the lock (TDP-044).
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.FROZEN_IS_OWNED,
        c.NOTHING_LEFT_FROZEN,
        c.EXCLUSIVE_SETTER_NOT_FROZEN,
    )

    def __init__(self, door: Environment, threads: Threads, mmu_lock: MmuLock) -> None:
        super().__init__(door)
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.owners: dict[Key, tuple[int, int]] = {}
        """To the thread that froze the entry, and what was there."""
        self.met = threads.own(_NOWHERE)
        """Sections of mmu_lock, counted as `MmuLock.reads` does, in which a mapper met a frozen entry."""
        self.lost: list[Key | None] = threads.own(None)
        """The last freeze that was lost."""

    def meet(self, me: int) -> None:
        """A mapper reads FROZEN."""
        self.met[me] |= {self.mmu_lock.reads[me]}

    def lose(self, me: int, key: Key) -> None:
        """Somebody else changed the entry that was to be frozen."""
        self.lost[me] = key

    def win(self, me: int) -> None:
        """The next exchange succeeded."""
        self.lost[me] = None

    def may_map(self, what: str) -> None:
        """A mapper that met FROZEN gives up."""
        me = self.threads.me
        if self.met[me] and self.mmu_lock.reads[me] in self.met[me]:
            raise Violation(c.FROZEN_IS_OWNED, f"{what} after a frozen entry was met")

    def gave_up(self, me: int) -> bool:
        """Whether it met one the last time that it had the lock, and so must say RETRY."""
        return self.mmu_lock.reads[me] - 1 in self.met[me]

    def judge(self, key: Key, old: int, new: int, plain: bool, where: str) -> None:
        """One change of a linked entry: a frozen one is its owner's, and a plain store does not freeze."""
        if old == FROZEN:
            owner = self.owners.get(key, (-1, 0))[0]
            me = self.threads.me
            if owner not in (me, -1):
                raise Violation(c.FROZEN_IS_OWNED, f"{where}: frozen by thread {owner}, changed by thread {me}")
            if new == FROZEN:
                raise Violation(c.FROZEN_IS_OWNED, f"{where}: frozen twice")
            self.door.hold(c.FROZEN_IS_OWNED)
        if new == FROZEN and plain:
            raise Violation(c.EXCLUSIVE_SETTER_NOT_FROZEN, f"{where}: FROZEN stored in a linked table")
        if plain:
            self.door.hold(c.EXCLUSIVE_SETTER_NOT_FROZEN)

    def before(self, key: Key, word: int) -> int:
        """What an entry said before it was frozen, if it is."""
        return self.owners.get(key, (-1, word))[1] if word == FROZEN else word

    def note(self, key: Key, old: int, new: int) -> None:
        """The entry changes: it is frozen, or free again."""
        if new == FROZEN:
            self.owners[key] = (self.threads.me, old)
        else:
            self.owners.pop(key, None)

    def out_of_reach(self, removed: set[int]) -> None:
        """Whoever takes a table out leaves its entries frozen, those as well that he froze before."""
        self.owners = {key: owner for key, owner in self.owners.items() if key[0] not in removed}

    def none_left(self, me: int) -> None:
        """Whoever returns leaves no entry frozen."""
        for (pa, index), (owner, _) in self.owners.items():
            if owner == me:
                raise Violation(c.NOTHING_LEFT_FROZEN, f"entry {index} of table {pa:#x} is left frozen")
        self.door.hold(c.NOTHING_LEFT_FROZEN)
