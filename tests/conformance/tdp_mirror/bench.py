"""Simulators of tdp_mirror's world without the world, and what tests of them share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.tdp_mirror.accounts import Accounts
from conformance.environment.tdp_mirror.changes import Changes
from conformance.environment.tdp_mirror.entries import Entries
from conformance.environment.tdp_mirror.frozen import FrozenEntries
from conformance.environment.tdp_mirror.guests import Guests
from conformance.environment.tdp_mirror.heap import Heap
from conformance.environment.tdp_mirror.links import Links
from conformance.environment.tdp_mirror.meaning import Meaning
from conformance.environment.tdp_mirror.mirror import Mirror
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.pages_lock import PagesLock
from conformance.environment.tdp_mirror.rcu import Rcu
from conformance.environment.tdp_mirror.roots import Roots
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.environment.tdp_mirror.slots import Slots
from conformance.environment.tdp_mirror.slots_lock import SlotsLock
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.tlbs import Tlbs
from conformance.environment.tdp_mirror.vcpus import Vcpus
from conformance.environment.tdp_mirror.vm import Vm
from conformance.model.step import Fault
from conformance.model.tdp_mirror import Config
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror.domains import SMALL
from conformance.verdict import Violation

LEAF = k.NONPRESENT | 1 << k.PRESENT | k.RWX
"""A present entry of level 1 for page frame 0, or one that points nowhere yet."""


class Bench:
    """The simulators around the page tables, wired by hand, with a door to nowhere; it is its own candidate."""

    def __init__(self, config: Config = SMALL) -> None:
        self.config = config
        self.door = door = Environment()
        self.door.driver = self
        self.callbacks: list[int] = []
        """Tables whose RCU callbacks ran."""
        self.threads = threads = Threads(door)
        self.mmu_lock = lock = MmuLock(door, threads)
        self.pages_lock = PagesLock(door, threads)
        self.slots_lock = SlotsLock(door, threads, lock)
        self.vm = Vm(door, threads)
        self.tables = tables = Tables(door, config)
        self.frozen = frozen = FrozenEntries(door, threads, lock)
        self.tlbs = Tlbs(door, config, threads, tables)
        self.sept = SecureEpt(config)
        self.guests = Guests(door, threads, lock, self.sept)
        self.vcpus = Vcpus(door, config, threads, lock, self.tlbs, self.guests)
        self.heap = Heap(door, threads, lock, tables, self.vcpus, frozen)
        self.rcu = Rcu(door, threads, tables, self.heap)
        self.accounts = Accounts(door)
        self.links = Links(door, config, threads, lock, tables, self.heap, self.accounts, self.tlbs)
        self.slots = Slots(door, config, self.slots_lock)
        self.mirror = Mirror(door, threads, lock, tables, frozen)
        self.changes = Changes(door, config, threads, lock, self.slots, tables, frozen, self.mirror, self.links)
        self.entries = Entries(door, threads, lock, self.rcu, tables, frozen, self.changes)
        self.roots = Roots(door, config, threads, lock, self.pages_lock, self.vcpus, tables, self.heap, self.links)
        self.meaning = Meaning(tables, self.roots)

    def rcu_callback(self, page: int) -> None:
        """The candidate's entry point."""
        self.callbacks.append(page)

    def begin(self, op: Any) -> None:
        """The thread performs an operation."""
        self.threads.begin(self.threads.me, op)

    def root(self, *, mirror: bool = False) -> Page:
        """A listed root with one reference."""
        page, header = self.heap.page_alloc(k.TABLE, k.NONPRESENT), self.heap.page_alloc(k.HEADER, 0)
        self.tables.sp_init(page, header, self.config.levels | mirror << k.ROLE_MIRROR, 0, 0)
        self.pages_lock.pages_lock()
        self.roots.roots_add(page)
        self.pages_lock.pages_unlock()
        self.roots.refcount_set(page, 1)
        return self.tables.of(page)

    def table(self, parent: Page, gfn: int = 0) -> Page:
        """A table that can be linked below another one."""
        new = self.heap._new  # whatever locks are held
        page, header = new(k.TABLE, k.NONPRESENT), new(k.HEADER, 0)
        external = new(k.EXTERNAL, 0) if parent.is_mirror else 0
        self.tables.sp_init(page, header, parent.role - 1, gfn, external)
        return self.tables.of(page)

    def linked(self, parent: Page, index: int, gfn: int = 0) -> Page:
        """A table below a direct one, linked with the write lock held."""
        child = self.table(parent, gfn)
        self.entries.pt_store(parent.pa, index, LEAF | child.pa)
        return child

    def mapped(self) -> Page:
        """The lowest table of a direct root that maps gfn 0 of its half to frame 5; the write lock is held."""
        root = self.root()
        self.mmu_lock.write_lock()
        table = self.linked(self.linked(root, 1), 0)
        self.entries.pt_store(table.pa, 0, LEAF | 5 << k.PAGE_SHIFT)
        return table


@contextmanager
def breach(clause: Clause, said: str = "") -> Iterator[None]:
    """The clause is broken within."""
    with pytest.raises(Violation, match=said or None) as raised:
        yield
    assert raised.value.clause is clause


def refusing(call: str, value: int) -> Frame:
    """An operation in which the first such call is refused."""
    frame = Frame((Fault(call, value),))
    frame.made[call] = 1
    return frame


class OtherThread:
    """A scheduler that says that thread 0 runs, and that waits end at once."""

    def __init__(self, frame: Frame | None = None) -> None:
        self.running = 0
        self.frames = [frame] if frame is not None else []
        self.waited: list[str] = []

    def block(self, what: str, ready: Any) -> None:
        """Whoever is waited for is through."""
        self.waited.append(what)

    def give_way(self) -> None:
        """Nobody else runs."""
        self.waited.append("give_way")
