"""Each simulator around the page tables alone: it behaves, and a misuse is a breach where it is committed."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.tdp_mirror.accounts import Accounts
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.pages_lock import PagesLock
from conformance.environment.tdp_mirror.slots_lock import SlotsLock
from conformance.environment.tdp_mirror.srcu import Srcu
from conformance.environment.tdp_mirror.tables import Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.vm import BUGS, Vm
from conformance.environment.tdp_mirror.world import TdpMirror
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import FROZEN, INVALID_PAGE, NONPRESENT
from conformance.strategies.tdp_mirror.domains import SMALL
from conformance.verdict import Crash
from tests.conformance.tdp_mirror.bench import LEAF, Bench, OtherThread, breach, refusing


def test_every_simulator_says_what_it_holds_a_candidate_to() -> None:
    """No clause is cited in its file that it does not name, as its own or as one of its calls."""
    for kind in TdpMirror.simulators().values():
        source = Path(inspect.getfile(kind)).read_text()
        named = {*kind.CLAUSES, *(clause for clauses in kind.CALL_CLAUSES.values() for clause in clauses)}
        cited = {getattr(c, name) for name in re.findall(r"\bc\.([A-Z_0-9]+)", source)}
        assert cited <= named, kind
        assert kind.__doc__


# -- threads


def test_an_operation_begins_afresh_and_the_outer_one_goes_on() -> None:
    """What belongs to an operation is put back when one in its middle ends."""
    threads = Threads(Environment())
    depth = threads.own(0)
    outer = threads.begin(0, "outer")
    depth[0] = 3

    inner = threads.begin(0, "inner")
    assert (threads.op, depth[0], outer) == ("inner", 0, None)
    threads.end(0, inner)

    assert (threads.op, depth[0]) == ("outer", 3)


def test_rescheduling_is_planned_once_or_from_then_on() -> None:
    """2 means that it is due at each look."""
    threads = Threads(Environment())
    threads.door.frame = refusing("resched", 2)

    assert threads.resched() == 1
    threads.door.frame.made["resched"] = 2
    assert threads.resched() == 1
    threads.door.frame = refusing("resched", 1)
    threads.door.frame.made["resched"] = 2
    assert threads.resched() == 0


def test_a_signal_is_planned_and_other_threads_are_told() -> None:
    """Told means: the model hears that they may have met it."""
    threads, other = Threads(Environment()), Frame()
    threads.door.frame = refusing("signal_pending", 1)
    threads.door.scheduler = OtherThread(other)

    assert threads.signal_pending() == 1
    threads.cond_resched()
    threads.tell_others("killed")

    assert other.given == {"killed": 1}


# -- locks


def test_mmu_lock_is_had_once_and_given_back() -> None:
    """For read or for write, not both."""
    door = Environment()
    lock = MmuLock(door, Threads(door))
    lock.read_lock()

    with breach(c.BALANCED, "taken for write while held"):
        lock.write_lock()
    lock.read_unlock()
    lock.write_lock()
    with breach(c.BALANCED, "released for read, not held"):
        lock.read_unlock()
    lock.write_unlock()
    with breach(c.BALANCED, "released for write, not held"):
        lock.write_unlock()

    assert lock.is_free()
    assert lock.reads[0] == 1


def test_what_must_hold_is_asked_before_mmu_lock_is_let_go() -> None:
    """A yield asks twice: before it drops the lock, and as it does."""
    door = Environment()
    lock = MmuLock(door, Threads(door))
    asked: list[Any] = []
    lock.before_yield = lambda: asked.append("yield")
    lock.before_release = asked.append

    lock.read_lock()
    lock.lock_yield()
    lock.read_unlock()
    lock.write_lock()
    lock.write_unlock()

    assert asked == ["yield", False, False, True]


def test_a_caller_that_may_not_block_keeps_mmu_lock() -> None:
    """TDP-083."""
    door = Environment()
    lock = MmuLock(door, Threads(door))
    lock.write_lock()
    lock.may_block[0] = False

    with breach(c.NO_BLOCK_NO_YIELD):
        lock.lock_yield()


def test_the_lock_of_another_thread_is_waited_for() -> None:
    """Without another thread that is a deadlock, and a breach."""
    door = Environment()
    lock = MmuLock(door, Threads(door))
    lock.writer = 1

    with breach(c.BALANCED, "taken while it is held"):
        lock.read_lock()
    door.scheduler = OtherThread()
    lock.read_lock()
    assert door.scheduler.waited == ["mmu_lock for read"]


def test_pages_lock_is_had_once() -> None:
    """And released by who has it."""
    door = Environment()
    lock = PagesLock(door, Threads(door))

    with breach(c.BALANCED, "not held"):
        lock.pages_unlock()
    lock.pages_lock()
    with breach(c.BALANCED, "taken twice"):
        lock.pages_lock()
    lock.pages_unlock()


def test_slots_lock_comes_before_mmu_lock() -> None:
    """And what changes slots asks for it."""
    door = Environment()
    threads = Threads(door)
    mmu_lock = MmuLock(door, threads)
    lock = SlotsLock(door, threads, mmu_lock)
    mmu_lock.read_lock()

    with breach(c.BALANCED, "under mmu_lock"):
        lock.slots_lock()
    mmu_lock.read_unlock()
    with breach(c.CONVERSION_ZAPS_OLD, "a change without slots_lock"):
        lock.needed("a change")
    lock.slots_lock()
    lock.needed("a change")
    lock.slots_unlock()


def test_srcu_sections_nest_and_are_waited_for() -> None:
    """A section of the other thread is over before the wait is."""
    door = Environment()
    srcu = Srcu(door, Threads(door))
    srcu.srcu_read_lock()
    srcu.synchronize_srcu()
    srcu.srcu_read_unlock()

    with breach(c.BALANCED):
        srcu.srcu_read_unlock()
    srcu.depth[1] = 1
    door.scheduler = OtherThread()
    srcu.synchronize_srcu()
    assert door.scheduler.waited == ["readers of the old slots"]


# -- the VM


def test_a_dead_vm_may_be_bugged_again_but_not_for_ever() -> None:
    """A loop that spins on it is found."""
    door = Environment()
    vm = Vm(door, Threads(door))

    assert vm.vm_is_dead() == 0
    for _ in range(BUGS):
        vm.vm_bug("again")
    assert vm.vm_is_dead() == 1
    with breach(c.ATOMIC_ZAP_REFUSED, f"bugged {BUGS} times"):
        vm.vm_bug("again")


def test_a_warning_is_known_by_the_operation_that_gave_it() -> None:
    """The fast path gives none."""
    door = Environment()
    vm = Vm(door, Threads(door))
    vm.threads.begin(0, ops.FilterToTypes())
    vm.warn_once("an empty filter")

    vm.warns(c.FILTER_TO_TYPES, "due")
    with breach(c.WALK_START_BOUND, "no warning: due"):
        vm.warns(c.WALK_START_BOUND, "due")
    vm.threads.begin(0, ops.FastFault())
    with breach(c.NO_ALIAS_IN_CALLS):
        vm.warn_once("whatever")
    vm.memory_fault_exit(0x1000, 4096, 8)
    assert vm.exits[0] == (0x1000, 4096, 8)


def test_counts_agree_with_what_is_there() -> None:
    """Tables first, then leaves by level."""
    accounts = Accounts(Environment())
    accounts.link(1)

    with breach(c.STATISTICS, "1 tables are linked, 0 are accounted"):
        accounts.settle()
    accounts.account_pgtable(1)
    accounts.count(2, 1)
    with breach(c.STATISTICS, "1 leaves of level 2"):
        accounts.settle()
    accounts.update_page_stats(2, 1)
    accounts.settle()


# -- page tables


def test_only_a_table_is_a_table() -> None:
    """And a freed one is told apart from what never was."""
    tables = Tables(Environment(), SMALL)
    tables.add(0x5000, NONPRESENT)
    tables.sp_init(0x5000, 0x6000, 3, 0, 0)

    assert tables.of(0x5000).read(1) == NONPRESENT
    with breach(c.NO_ALIAS_IN_CALLS):
        tables.sp_init(0x5000, 0x6000, 3, SMALL.direct_bits, 0)
    with breach(c.MIRROR_BEFORE_DIRECT, "is no page table"):
        tables.of(0x7000)
    tables.drop(0x5000)
    with breach(c.TABLE_GRACE_PERIOD, "after it was freed"):
        tables.of(0x5000)


def test_hardware_finds_what_is_mapped() -> None:
    """Through the tables, in the half of the root."""
    bench = Bench()
    table = bench.mapped()
    root = bench.roots.listed[0]

    assert bench.tables.lookup(root, 0) == 5
    assert bench.tables.lookup(root, 1) == -1
    assert bench.tables.is_writable(root, 0)
    assert [(page.pa, index) for page, index, _ in bench.tables.walk(root)][-1] == (table.pa, 0)
    assert bench.meaning.of_all().tables == (frozenset(), {(2, 0), (1, 0)})


def test_entries_are_read_in_an_rcu_section() -> None:
    """Or under the write lock; and within the table."""
    bench = Bench()
    root = bench.root()

    with breach(c.RCU_PROTECTED):
        bench.entries.pt_read(root.pa, 0)
    bench.rcu.rcu_read_lock()
    assert bench.entries.pt_read(root.pa, 0) == NONPRESENT
    with pytest.raises(Crash, match="entry 2 of a table of 2"):
        bench.entries.pt_read(root.pa, 2)


def test_a_failed_exchange_is_not_repeated_with_the_same_value() -> None:
    """TDP-045: look again first."""
    bench = Bench()
    root = bench.root()
    bench.rcu.rcu_read_lock()
    bench.mmu_lock.read_lock()

    assert bench.entries.pt_cmpxchg(root.pa, 1, LEAF, FROZEN) == NONPRESENT
    assert bench.frozen.lost[0] == (root.pa, 1)
    with breach(c.REFRESH_AFTER_FAILURE):
        bench.entries.pt_cmpxchg(root.pa, 1, LEAF, FROZEN)


def test_hardware_sets_bits_where_that_is_planned() -> None:
    """Just before the access, so that an exchange fails."""
    bench = Bench()
    table = bench.mapped()
    was = table.read(0)
    bench.door.frame = refusing("pt_cmpxchg", 1)

    assert bench.entries.pt_cmpxchg(table.pa, 0, was, NONPRESENT) == was | 1 << k.ACCESSED | 1 << k.DIRTY


@pytest.mark.parametrize(
    ("new", "clause"),
    [
        (0x123, c.NONPRESENT_ENCODING),
        (1 << k.PRESENT | k.RWX, c.NONPRESENT_ENCODING),
        (FROZEN, c.EXCLUSIVE_SETTER_NOT_FROZEN),
        (LEAF | 6 << k.PAGE_SHIFT, c.ATOMIC_UPDATES),
    ],
)
def test_a_word_that_no_entry_may_be_is_seen(new: int, clause: Any) -> None:
    """Whoever stores it; the last one is another page, over what hardware may change."""
    bench = Bench()
    table = bench.mapped()

    with breach(clause):
        bench.entries.pt_store(table.pa, 0, new)


def test_the_page_under_a_leaf_does_not_change() -> None:
    """By an exchange either."""
    bench = Bench()
    table = bench.mapped()

    with breach(c.LEAF_PFN_FIXED):
        bench.entries.pt_xchg(table.pa, 0, LEAF | 6 << k.PAGE_SHIFT)


def test_a_leaf_belongs_into_the_half_of_its_root() -> None:
    """The other entry of a direct root is the private half."""
    bench = Bench()
    root = bench.root()
    bench.mmu_lock.write_lock()
    child = bench.table(root)

    with breach(c.WALK_INDEX):
        bench.entries.pt_store(root.pa, 0, LEAF | child.pa)


def test_entries_change_under_a_lock() -> None:
    """A plain store asks for the write lock, an atomic access for one."""
    bench = Bench()
    table = bench.mapped()
    bench.mmu_lock.write_unlock()
    bench.rcu.rcu_read_lock()

    with breach(c.ATOMIC_UPDATES, "plain store"):
        bench.entries.pt_store(table.pa, 0, NONPRESENT)
    with breach(c.ATOMIC_UPDATES, "without mmu_lock"):
        bench.entries.pt_xchg(table.pa, 0, NONPRESENT)


def test_nothing_comes_under_an_invalid_root() -> None:
    """TDP-033."""
    bench = Bench()
    table = bench.mapped()
    bench.roots.role_invalidate(bench.roots.listed[0].pa)

    with breach(c.NO_MAP_UNDER_INVALID):
        bench.entries.pt_xchg(table.pa, 1, LEAF | 6 << k.PAGE_SHIFT)


def test_a_frozen_entry_is_its_owners() -> None:
    """And nobody returns with one."""
    bench = Bench()
    bench.frozen.owners[0x5000, 0] = (1, NONPRESENT)

    with breach(c.FROZEN_IS_OWNED, "frozen by thread 1"):
        bench.frozen.judge((0x5000, 0), FROZEN, NONPRESENT, False, "here")
    bench.frozen.none_left(0)
    bench.frozen.note((0x5000, 1), NONPRESENT, FROZEN)
    with breach(c.NOTHING_LEFT_FROZEN, "entry 1"):
        bench.frozen.none_left(0)


def test_a_mapper_that_met_a_frozen_entry_gives_up() -> None:
    """As long as it has the lock."""
    bench = Bench()
    bench.mmu_lock.read_lock()
    bench.frozen.meet(0)

    with breach(c.FROZEN_IS_OWNED, "a map after a frozen entry was met"):
        bench.frozen.may_map("a map")
    bench.mmu_lock.read_unlock()
    bench.frozen.may_map("a map")
    assert bench.frozen.gave_up(0)


def test_a_table_is_linked_once_with_its_parents_role() -> None:
    """And all its entries are NONPRESENT before."""
    bench = Bench()
    root = bench.root()
    bench.mmu_lock.write_lock()
    wrong = bench.table(root, gfn=2)
    with breach(c.CHILD_ROLE, "gfn 0x2, expected"):
        bench.entries.pt_store(root.pa, 1, LEAF | wrong.pa)
    bench = Bench()
    root = bench.root()
    bench.mmu_lock.write_lock()
    full = bench.table(root)
    bench.entries.pt_store(full.pa, 0, 0)
    with breach(c.NEW_TABLE_NONPRESENT):
        bench.entries.pt_store(root.pa, 1, LEAF | full.pa)


def test_an_unlinked_table_is_out_of_reach_and_its_leaves_need_a_flush() -> None:
    """All below it as well."""
    bench = Bench()
    table = bench.mapped()
    root = bench.roots.listed[0]
    assert not bench.tlbs.is_due()

    bench.entries.pt_xchg(root.pa, 1, NONPRESENT)

    assert (table.linked, table.removed, bench.accounts.linked) == (False, True, 0)
    assert bench.tlbs.due == {0}
    with breach(c.FLUSH_BEFORE_YIELD):
        bench.tlbs.judge_yield()


# -- RCU and the heap


def test_a_removed_table_waits_for_its_readers() -> None:
    """Its callback runs when the last of them leaves, and then it may be freed."""
    bench = Bench()
    table = bench.mapped()
    for index in (0, 1):
        bench.entries.pt_xchg(table.pa, index, NONPRESENT)
    bench.rcu.rcu_read_lock()
    bench.mmu_lock.write_unlock()
    bench.mmu_lock.read_lock()
    parent, index = table.parent or (table, 0)
    bench.entries.pt_xchg(parent.pa, index, NONPRESENT)
    with breach(c.REMOVED_FROZEN):
        bench.rcu.call_rcu(table.pa)
    for index in (0, 1):
        bench.entries.pt_xchg(table.pa, index, FROZEN)

    bench.rcu.call_rcu(table.pa)
    assert bench.callbacks == []
    with breach(c.TABLE_GRACE_PERIOD):
        bench.heap.page_free(table.pa)
    bench.rcu.rcu_read_unlock()

    assert bench.callbacks == [table.pa]
    bench.heap.page_free(table.pa)


def test_a_writer_who_removes_a_table_freezes_what_is_present() -> None:
    """Nobody is on the way to the other entries."""
    bench = Bench()
    table = bench.mapped()
    parent, index = table.parent or (table, 0)
    bench.entries.pt_store(parent.pa, index, NONPRESENT)
    with breach(c.REMOVED_FROZEN):
        bench.rcu.call_rcu(table.pa)
    bench.entries.pt_xchg(table.pa, 0, FROZEN)

    bench.rcu.call_rcu(table.pa)

    assert bench.callbacks == [table.pa]


def test_a_linked_table_is_not_given_up() -> None:
    """And sections are left once."""
    bench = Bench()
    table = bench.mapped()

    with breach(c.TABLE_GRACE_PERIOD):
        bench.rcu.call_rcu(table.pa)
    with breach(c.BALANCED):
        bench.rcu.rcu_read_unlock()
    bench.rcu.rcu_barrier()
    assert bench.rcu.waited


def test_objects_come_from_caches_that_were_filled_before() -> None:
    """Under mmu_lock nothing sleeps, and nobody keeps an object to himself."""
    bench = Bench()
    bench.vcpus.create(0)
    with pytest.raises(Crash, match="there is no vCPU 1"):
        bench.heap.cache_topup(1, k.TABLE, 1, NONPRESENT)
    assert bench.heap.cache_topup(0, k.TABLE, 1, NONPRESENT) == 0
    bench.mmu_lock.read_lock()

    page = bench.heap.cache_alloc(0, k.TABLE)
    with breach(c.ALLOCATION_BEFORE_LOCK, "cache of tables is empty"):
        bench.heap.cache_alloc(0, k.TABLE)
    with breach(c.ALLOCATION_BEFORE_LOCK, "cache_topup under mmu_lock"):
        bench.heap.cache_topup(0, k.TABLE, 1, NONPRESENT)
    with breach(c.ALLOCATION_BEFORE_LOCK, "page_alloc under mmu_lock"):
        bench.heap.page_alloc(k.HEADER, 0)
    with breach(c.BALANCED, f"table {page:#x} is neither linked nor given back"):
        bench.heap.none_left(0, c.BALANCED)
    bench.heap.page_free(page)
    bench.heap.none_left(0, c.BALANCED)


def test_an_allocation_is_refused_as_planned() -> None:
    """A cache with an errno, a page with 0."""
    bench = Bench()
    bench.vcpus.create(0)
    bench.door.frame = refusing("cache_topup", -k.ENOMEM)
    assert bench.heap.cache_topup(0, k.TABLE, 1, NONPRESENT) == -k.ENOMEM
    bench.door.frame = refusing("page_alloc", 1)
    assert bench.heap.page_alloc(k.TABLE, NONPRESENT) == 0


def test_a_vcpu_ends_with_empty_caches() -> None:
    """What it has in store would leak."""
    bench = Bench()
    bench.vcpus.create(0)
    bench.heap.cache_topup(0, k.HEADER, 3, 0)

    with breach(c.BALANCED, "still hold objects"):
        bench.heap.end_vcpu(0)
    bench.heap.cache_free(0)
    bench.heap.end_vcpu(0)


def test_what_the_td_owns_is_leaked_and_not_freed() -> None:
    """TDP-078."""
    bench = Bench()
    page = bench.heap.page_alloc(k.EXTERNAL, 0)
    with breach(c.BALANCED, "nothing forbids"):
        bench.heap.page_leak(page)
    bench.heap.give_to_td(page)

    with breach(c.FAILED_FREE_LEAKS):
        bench.heap.page_free(page)
    bench.heap.page_leak(page)
    assert bench.heap.leaked == 1
    with breach(c.BALANCED, "freed twice"):
        bench.heap.page_free(page)


# -- roots and vCPUs


def test_there_is_one_valid_root_of_a_role() -> None:
    """Listed and unlisted under pages_lock, without references at the end."""
    bench = Bench()
    root = bench.root()

    with breach(c.ONE_ROOT_PER_ROLE, "two valid roots"):
        bench.root()
    with breach(c.FREED_AFTER_GRACE, "with 1 references"):
        bench.roots.roots_del(root.pa)
    assert bench.roots.refcount_inc_not_zero(root.pa) == 1
    assert bench.roots.refcount_dec_and_test(root.pa) == 0
    assert bench.roots.refcount_dec_and_test(root.pa) == 1
    assert bench.roots.refcount_inc_not_zero(root.pa) == 0
    with breach(c.ROOT_REFERENCES):
        bench.roots.refcount_dec_and_test(root.pa)
    bench.roots.roots_del(root.pa)
    assert bench.roots.listed == []


def test_roots_become_obsolete_under_the_write_lock_and_vcpus_are_told() -> None:
    """The mirror never does."""
    bench = Bench()
    root, mirror = bench.root(), bench.root(mirror=True)
    bench.vcpus.create(0)

    with breach(c.INVALIDATE_WRITE_LOCK):
        bench.roots.role_invalidate(root.pa)
    bench.mmu_lock.write_lock()
    with breach(c.ONE_MIRROR_ROOT):
        bench.roots.role_invalidate(mirror.pa)
    bench.roots.role_invalidate(root.pa)
    with breach(c.FAST_ZAP_DIRECT, "before vCPUs are told"):
        bench.vcpus.judge_release()
    bench.vcpus.make_all_cpus_request(k.REQ_FREE_OBSOLETE_ROOTS)
    bench.vcpus.judge_release()

    assert bench.roots.valid(mirror=False) is None
    assert bench.vcpus.vcpu_has_events(0) == 1
    assert [bench.vcpus.check_request(0, k.REQ_FREE_OBSOLETE_ROOTS) for _ in range(2)] == [1, 0]


def test_the_mirror_comes_before_the_direct_root() -> None:
    """TDP-024; and a vCPU ends with neither."""
    bench = Bench()
    root, mirror = bench.root(), bench.root(mirror=True)
    bench.vcpus.create(0)

    with breach(c.MIRROR_BEFORE_DIRECT, "no mirror root"):
        bench.vcpus.vcpu_root(0, 0, root.pa)
    bench.vcpus.vcpu_root(0, 1, mirror.pa)
    bench.vcpus.vcpu_root(0, 0, root.pa)
    assert bench.vcpus.users(root.pa) == 1
    with breach(c.DESTROY_PUTS_MIRROR, "with a root installed"):
        bench.vcpus.destroy(0)
    bench.vcpus.vcpu_root(0, 0, INVALID_PAGE)
    bench.vcpus.vcpu_root(0, 1, INVALID_PAGE)
    bench.vcpus.destroy(0)
    with pytest.raises(Crash, match="there is no vCPU 0"):
        bench.tlbs.of(0)


def test_hardware_walks_the_direct_root_and_remembers() -> None:
    """Until it is flushed; what was zapped may not outlive the lock."""
    bench = Bench()
    table = bench.mapped()
    root = bench.roots.listed[0]
    bench.vcpus.create(0)
    bench.tlbs.access(0, bench.config.direct_bits, write=True)
    assert bench.tlbs.of(0).held == {}
    bench.tlbs.load_pgd(0, root.pa, bench.config.levels)

    bench.tlbs.access(0, bench.config.direct_bits, write=True)
    assert table.read(0) >> k.DIRTY & 1
    bench.tlbs.judge_release()
    bench.begin(ops.ClearDirtySlot())
    bench.entries.pt_and(table.pa, 0, ~(1 << k.WRITE))
    with breach(c.NO_STALE_TLB, "be written, which is protected"):
        bench.tlbs.judge_protected()
    bench.entries.pt_xchg(table.pa, 0, NONPRESENT)
    with breach(c.NO_STALE_TLB, "which was zapped"):
        bench.tlbs.judge_release()
    assert bench.tlbs.flush_range(0, 1) == 0
    bench.tlbs.judge_release()
    bench.tlbs.judge_yield()


def test_only_a_direct_root_is_loaded() -> None:
    """At the level of the VM."""
    bench = Bench()
    mirror = bench.root(mirror=True)
    bench.vcpus.create(0)

    with breach(c.ROOT_BY_ADDRESS):
        bench.tlbs.load_pgd(0, mirror.pa, bench.config.levels)
    bench.door.frame = refusing("flush_range", -k.EOPNOTSUPP)
    assert bench.tlbs.flush_range(0, 1) == -k.EOPNOTSUPP
    bench.tlbs.due = {0}
    bench.tlbs.flush_remote_tlbs()
    assert not bench.tlbs.is_due()
