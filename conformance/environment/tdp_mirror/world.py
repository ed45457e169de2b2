"""The kernel around the TDP MMU, the hardware and the firmware below it: everything wired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.environment.door import Environment
from conformance.environment.tdp_mirror import invariants
from conformance.environment.tdp_mirror.accounts import Accounts
from conformance.environment.tdp_mirror.attributes import Attributes
from conformance.environment.tdp_mirror.changes import Changes
from conformance.environment.tdp_mirror.entries import Entries
from conformance.environment.tdp_mirror.external import ExternalTree
from conformance.environment.tdp_mirror.frozen import FrozenEntries
from conformance.environment.tdp_mirror.groups import GUEST, MAPPING
from conformance.environment.tdp_mirror.guest_memory import GuestMemory
from conformance.environment.tdp_mirror.guests import Guests
from conformance.environment.tdp_mirror.heap import Heap
from conformance.environment.tdp_mirror.invalidation import Invalidation
from conformance.environment.tdp_mirror.links import Links
from conformance.environment.tdp_mirror.meaning import Meaning
from conformance.environment.tdp_mirror.mirror import Mirror
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.module import TdxModule
from conformance.environment.tdp_mirror.operations import OPERATIONS
from conformance.environment.tdp_mirror.pages_lock import PagesLock
from conformance.environment.tdp_mirror.rcu import Rcu
from conformance.environment.tdp_mirror.roots import Roots
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.environment.tdp_mirror.slots import Slots
from conformance.environment.tdp_mirror.slots_lock import SlotsLock
from conformance.environment.tdp_mirror.srcu import Srcu
from conformance.environment.tdp_mirror.tables import Tables
from conformance.environment.tdp_mirror.td import Td
from conformance.environment.tdp_mirror.td_pages import TdPages
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.tlbs import Tlbs
from conformance.environment.tdp_mirror.vcpus import Vcpus
from conformance.environment.tdp_mirror.view import view
from conformance.environment.tdp_mirror.vm import Vm
from conformance.model.tdp_mirror import Config, View
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.state import Gfns
from conformance.specs.tdp_mirror import Port, Profile

CALLS = 150_000
"""Environment calls within one operation after which a candidate hangs, where there are hardly any tables."""
POINTS = 100_000
"""Points of preemption that two operations need at most there."""


class TdpMirror(Environment):
    """Each thing of the world, made in the order in which they know one another."""

    PORT = Port
    OPERATIONS = OPERATIONS

    threads: Threads
    mmu_lock: MmuLock
    pages_lock: PagesLock
    slots_lock: SlotsLock
    srcu: Srcu
    vm: Vm
    tables: Tables
    frozen: FrozenEntries
    tlbs: Tlbs
    guests: Guests
    vcpus: Vcpus
    heap: Heap
    rcu: Rcu
    accounts: Accounts
    links: Links
    slots: Slots
    mirror: Mirror
    changes: Changes
    pt_entries: Entries
    roots: Roots
    td: Td
    td_pages: TdPages
    guest_memory: GuestMemory
    invalidation: Invalidation
    attributes: Attributes
    module: TdxModule
    external: ExternalTree

    def __init__(self, config: Config, profile: Profile) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.calls = CALLS
        self.active = 0
        """Operations in progress."""
        self.performed: Any = None
        """The operation that ended last."""
        self.settled = (-1, Gfns())
        """Version of the tables, and private gfns, for which the halves were found to be in order."""
        threads = self.threads = Threads(self)
        mmu_lock = self.mmu_lock = MmuLock(self, threads)
        self.pages_lock = PagesLock(self, threads)
        self.slots_lock = SlotsLock(self, threads, mmu_lock)
        self.srcu = Srcu(self, threads)
        self.vm = Vm(self, threads)
        sept = self.sept = SecureEpt(config)
        self._wire_tables(config, threads, mmu_lock, sept)
        self.td = Td(self, config, sept)
        self.td_pages = TdPages(self, profile, sept)
        self.module = TdxModule(self, threads, sept, self.guests, self.td_pages)
        memory = self.guest_memory = GuestMemory(self, config, threads, mmu_lock, self.slots, sept, self.td_pages)
        self.invalidation = Invalidation(self, config, threads, mmu_lock, self.slots_lock, memory)
        self.attributes = Attributes(
            self, config, threads, self.slots_lock, self.invalidation, memory, self.meaning, self.vm
        )
        self.external = ExternalTree(
            self, config, profile, threads, mmu_lock, self.vm, self.tables, self.meaning, self.frozen, self.mirror,
            self.heap, memory, sept, self.module,
        )  # fmt: skip
        mmu_lock.before_yield = self.tlbs.judge_yield
        mmu_lock.before_release = self._mmu_lock_released
        self.slots_lock.before_release = self.invalidation.judge_slots_unlock

    def _wire_tables(self, config: Config, threads: Threads, mmu_lock: MmuLock, sept: SecureEpt) -> None:
        """The page tables, and whatever has to do with them."""
        tables = self.tables = Tables(self, config)
        frozen = self.frozen = FrozenEntries(self, threads, mmu_lock)
        self.tlbs = Tlbs(self, config, threads, tables)
        self.guests = Guests(self, threads, mmu_lock, sept)
        self.vcpus = Vcpus(self, config, threads, mmu_lock, self.tlbs, self.guests)
        self.heap = Heap(self, threads, mmu_lock, tables, self.vcpus, frozen)
        self.rcu = Rcu(self, threads, tables, self.heap)
        self.accounts = Accounts(self)
        self.links = Links(self, config, threads, mmu_lock, tables, self.heap, self.accounts, self.tlbs)
        self.slots = Slots(self, config, self.slots_lock)
        self.mirror = Mirror(self, threads, mmu_lock, tables, frozen)
        self.changes = Changes(self, config, threads, mmu_lock, self.slots, tables, frozen, self.mirror, self.links)
        self.pt_entries = Entries(self, threads, mmu_lock, self.rcu, tables, frozen, self.changes)
        self.roots = Roots(self, config, threads, mmu_lock, self.pages_lock, self.vcpus, tables, self.heap, self.links)
        self.meaning = Meaning(tables, self.roots)

    def _mmu_lock_released(self, writing: bool) -> None:
        if writing:
            self.vcpus.judge_release()
            invariants.pages_gone(self)
        elif type(self.threads.op) in MAPPING and not self.mmu_lock.readers[1 - self.threads.me]:
            self.tlbs.judge_mapped()
        self.tlbs.judge_release()

    def begin(self, factory: Callable[[Any], Any]) -> None:
        """Create the candidate and let it initialise the VM."""
        super().begin(factory)
        config = self.config
        self.enter_int(
            self.driver.vm_init, int(config.mirror), config.direct_bits, config.levels, config.index_bits,
            config.max_gfn, int(config.private),
        )  # fmt: skip

    def can_interrupt(self, op: Any) -> bool:
        """Guest accesses always; anything else only while nobody holds a lock."""
        me = self.threads.me
        if not self.can_run_beside(self.threads.ops[me], op):
            return False
        if type(op) in GUEST:
            return True
        locks = self.pages_lock.holder, self.slots_lock.holder, self.guest_memory.file_holder
        free = self.mmu_lock.is_free() and max(locks) < 0
        moves = type(op) in (ops.SlotDelete, ops.SlotMove)
        return free and not self.rcu.depth[me] and not (self.srcu.depth[me] and moves)

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """A vCPU does one thing at a time."""
        vcpu = getattr(left, "vcpu", None)
        return vcpu is None or vcpu != getattr(right, "vcpu", None)

    def act(self, op: Any) -> Any:
        """One operation, and what must be true when it returns."""
        threads = self.threads
        me = threads.me
        outer = threads.begin(me, op)
        self.active += 1
        if self.active > 1 and type(op) in MAPPING:
            self._map_beside(outer[0] if outer else self.threads.ops[1 - me])
        if self.tables.entries > 2:
            self._allow_for_work()
        try:
            vcpu = getattr(op, "vcpu", -1)
            if self.config.deep and vcpu >= 0 and type(op) not in GUEST:
                self.guests.leave(vcpu)
            result = OPERATIONS[type(op)](self, op)
            if outer is None:  # what it interrupted may hold a few things
                invariants.nothing_left(self, me)
        finally:
            self.active -= 1
            threads.end(me, outer)
            self.performed = op
        if not self.active:
            invariants.settle(self)
        return result

    def _map_beside(self, other: Any) -> None:
        """Of two who map at the same time one may make way for the other without having met him."""
        if type(other) in MAPPING:
            self.frame.given.setdefault("contended", 1)
            self.threads.tell_others("contended")

    def _allow_for_work(self) -> None:
        """Who walks all entries once for each level and makes way at each of them begins again at the root there."""
        levels = self.config.levels
        work = self.tables.entries * len(self.tables.pages) * levels * (2 * levels + 8)
        self.calls = CALLS + work
        self.work = 1 + 4 * work // POINTS

    def at_switch(self) -> None:
        """Between two threads: the mirror is the external tree, but for entries that somebody is at."""
        invariants.mirror_is_external(self)

    def view(self) -> View:
        """What can be seen from outside."""
        return view(self)
