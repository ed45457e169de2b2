"""Each simulator of slots, guest memory and the TD alone: it behaves, and a misuse is a breach at once."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.environment.door import Environment
from conformance.environment.tdp_mirror.attributes import Attributes
from conformance.environment.tdp_mirror.external import ExternalTree
from conformance.environment.tdp_mirror.guest_memory import GuestMemory
from conformance.environment.tdp_mirror.invalidation import Invalidation
from conformance.environment.tdp_mirror.module import TdxModule
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.environment.tdp_mirror.td import Td
from conformance.environment.tdp_mirror.td_pages import TdPages
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import EBUSY, EEXIST, EIO, FROZEN, NONPRESENT
from conformance.strategies.tdp_mirror.domains import DEEP, SMALL
from tests.conformance.tdp_mirror.bench import LEAF, Bench, OtherThread, breach, refusing

UPSTREAM = PROFILES["upstream"]


class TdBench(Bench):
    """With the simulators of guest memory and of the TD."""

    def __init__(self, config: Config = SMALL) -> None:
        super().__init__(config)
        door, threads, lock = self.door, self.threads, self.mmu_lock
        self.td_pages = TdPages(door, UPSTREAM, self.sept)
        self.module = TdxModule(door, threads, self.sept, self.guests, self.td_pages)
        self.memory = GuestMemory(door, config, threads, lock, self.slots, self.sept, self.td_pages)
        self.invalidation = Invalidation(door, config, threads, lock, self.slots_lock, self.memory)
        self.attributes = Attributes(
            door, config, threads, self.slots_lock, self.invalidation, self.memory, self.meaning, self.vm
        )
        self.external = ExternalTree(
            door, config, UPSTREAM, threads, lock, self.vm, self.tables, self.meaning, self.frozen, self.mirror,
            self.heap, self.memory, self.sept, self.module,
        )  # fmt: skip
        self.answers: list[int] = []
        """What the candidate's hooks return, in turn."""

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """The candidate's hook."""
        status = self.module.tdh_mem_sept_add(gfn << k.PAGE_SHIFT, level - 1, page)
        return self.answers.pop() if status else 0

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """The candidate's hook, which does nothing."""
        return 0

    def tree(self) -> None:
        """A mirror down to level 1 for gfn 0, linked outside, with mmu_lock held for write."""
        parent = self.root(mirror=True)
        self.mmu_lock.write_lock()
        for level in (3, 2):
            parent = self.link(parent.pa, level)

    def link(self, parent: int, level: int) -> Any:
        """Freeze, link outside, publish."""
        child = self.table(self.tables.of(parent))
        self.entries.pt_cmpxchg(parent, 0, NONPRESENT, FROZEN)
        assert self.external.ext_link(0, level, child.external) == 0
        self.entries.pt_store(parent, 0, LEAF | child.pa)
        return child

    def leaf(self) -> tuple[int, int]:
        """Address of the table of level 1, and the page frame of gfn 0 that it maps."""
        self.tree()
        place = self.meaning.mirror_entry(0, 1)
        assert place is not None
        page, pfn = place[0].pa, self.memory.page(0, True)
        self.entries.pt_cmpxchg(page, 0, NONPRESENT, FROZEN)
        assert self.external.ext_set(0, 1, pfn) == 0
        self.entries.pt_store(page, 0, LEAF | pfn << k.PAGE_SHIFT)
        return page, pfn


# -- slots, attributes, invalidations


def test_slots_do_not_overlap_and_change_under_their_lock() -> None:
    """Looked up by gfn, by range and by id."""
    bench = Bench()
    with breach(c.CONVERSION_ZAPS_OLD, "memslot_install without slots_lock"):
        bench.slots.memslot_install(2, 0, 1, 0)
    bench.slots_lock.slots_lock()

    assert bench.slots.memslot_install(2, 0, 1, 0) == -EEXIST
    assert bench.slots.memslot(3) == bench.slots.memslot_by_id(1) == (1, 3, 1, 0)
    bench.slots.memslot_remove(1)
    assert bench.slots.memslot(3) == ()
    assert bench.slots.memslot_install(2, 3, 1, 0) == 0
    assert [slot[0] for slot in bench.slots.memslots(0, 4)] == [0, 2]
    with breach(c.NO_ALIAS_IN_CALLS, "memslot: gfn 0x4"):
        bench.slots.memslot(4)


def test_a_slot_in_deletion_is_told_beside_it() -> None:
    """The model hears of it."""
    bench = Bench()
    bench.slots_lock.slots_lock()
    bench.slots.memslot_install(1, 3, 1, k.SLOT_INVALID)
    bench.door.scheduler = OtherThread()

    bench.slots.memslot(3)

    assert bench.door.frame.given == {"slot_invalid": 1}


def test_invalidations_are_begun_and_ended_under_the_write_lock() -> None:
    """A fault of their range is stale, and the sequence counts them."""
    bench = TdBench()
    with breach(c.STALE_FAULT, "without the write lock"):
        bench.invalidation.mmu_invalidate_begin(0, 2)
    before = bench.invalidation.mmu_invalidate_seq()
    bench.mmu_lock.write_lock()
    bench.invalidation.mmu_invalidate_begin(0, 2)

    assert [bench.invalidation.mmu_invalidate_retry(before, gfn) for gfn in (1, 2)] == [1, 0]
    bench.invalidation.mmu_invalidate_end()
    assert bench.invalidation.mmu_invalidate_retry(before, 2) == 1
    with breach(c.STALE_FAULT, "without a beginning"):
        bench.invalidation.mmu_invalidate_end()


def test_a_conversion_keeps_slots_lock_to_its_end() -> None:
    """And begins with it."""
    bench = TdBench()
    bench.begin(ops.SetAttributes())
    bench.mmu_lock.write_lock()
    with breach(c.CONVERSION_ZAPS_OLD, "the invalidation of a conversion without"):
        bench.invalidation.mmu_invalidate_begin(0, 2)
    bench.mmu_lock.write_unlock()
    bench.slots_lock.slots_lock()
    bench.mmu_lock.write_lock()
    bench.invalidation.mmu_invalidate_begin(0, 2)

    with breach(c.CONVERSION_ZAPS_OLD, "in the middle"):
        bench.invalidation.judge_slots_unlock()


def test_attributes_change_inside_an_invalidation_of_what_is_not_mapped() -> None:
    """The old half is zapped first."""
    bench = TdBench()
    bench.leaf()
    bench.mmu_lock.write_unlock()
    bench.slots_lock.slots_lock()
    assert bench.attributes.attributes(0) == k.ATTRIBUTE_PRIVATE
    with breach(c.CONVERSION_ZAPS_OLD, "outside an invalidation"):
        bench.attributes.store_attributes(0, 2, 0)
    bench.mmu_lock.write_lock()
    bench.invalidation.mmu_invalidate_begin(0, 2)
    with breach(c.CONVERSION_ZAPS_OLD, "still mapped in its old half"):
        bench.attributes.store_attributes(0, 1, 0)

    bench.attributes.store_attributes(1, 2, 0)

    assert bench.attributes.range_has_attributes(0, 1, k.ATTRIBUTE_PRIVATE) == 1
    assert bench.attributes.range_has_attributes(0, 2, k.ATTRIBUTE_PRIVATE) == 0
    bench.door.frame = refusing("reserve_attributes", -k.ENOMEM)
    assert bench.attributes.reserve_attributes(0, 1) == -k.ENOMEM


def test_attributes_that_change_within_a_call_are_told() -> None:
    """They decide what the candidate does."""
    bench = TdBench()
    bench.attributes.attributes(0)
    bench.attributes.private = bench.attributes.private.with_range(0, 1, False)

    assert bench.attributes.attributes(0) == 0
    assert bench.door.frame.given == {"attributes_changed": 1}


# -- guest memory


def test_a_page_is_resolved_after_a_snapshot_and_the_attributes() -> None:
    """Outside mmu_lock, and anew after it."""
    bench = TdBench()
    with breach(c.SNAPSHOT_FIRST, "before the invalidation sequence"):
        bench.memory.gmem_get_pfn(0, 0)
    bench.invalidation.mmu_invalidate_seq()
    with breach(c.SNAPSHOT_FIRST, "before the invalidation sequence"):
        bench.memory.gmem_get_pfn(0, 0)
    bench.attributes.attributes(0)

    assert bench.memory.gmem_get_pfn(0, 0) == bench.memory.page(0, True)
    assert bench.memory.hva_get_pfn(1, 3, 0) == (bench.memory.page(3, False), 1, 1)
    bench.mmu_lock.read_lock()
    with breach(c.SNAPSHOT_FIRST, "under mmu_lock"):
        bench.memory.gmem_get_pfn(0, 0)
    bench.mmu_lock.read_unlock()
    with breach(c.SNAPSHOT_FIRST, "before"):
        bench.memory.gmem_get_pfn(0, 0)
    with breach(c.NO_BACKING):
        bench.memory.gmem_get_pfn(0, 3)


def test_references_to_pages_are_put_once() -> None:
    """And a refusal gives none."""
    bench = TdBench()
    bench.invalidation.mmu_invalidate_seq()
    bench.attributes.attributes(0)
    bench.door.frame = refusing("gmem_get_pfn", -k.EHWPOISON)
    assert bench.memory.gmem_get_pfn(0, 0) == -k.EHWPOISON
    bench.memory.hva_get_pfn(0, 0, 1)
    bench.memory.pfn_release(7)

    with breach(c.BALANCED):
        bench.memory.pfn_release(7)


def test_pages_move_when_their_invalidation_ends() -> None:
    """Those of the slots in the range."""
    bench = TdBench()
    was = bench.memory.page(0, True), bench.memory.page(0, False)
    bench.memory.will_move("gmem", 0, 1)

    bench.memory.move()
    bench.memory.move()

    assert bench.memory.page(0, True) != was[0]
    assert bench.memory.page(0, False) == was[1]
    assert {was[0], bench.memory.page(0, True)} == set(bench.memory.pages(0))


def test_a_page_of_the_td_does_not_go_back_unless_it_is_pinned() -> None:
    """TDP-079."""
    sept = SecureEpt(DEEP)
    pages = TdPages(Environment(), UPSTREAM, sept)

    sept.leaves[0, 1] = 7
    pages.given_away(7)
    with breach(c.FAILED_REMOVE_KEEPS_PAGE, "given to the TD without a reference"):
        pages.judge_given()
    with breach(c.FAILED_REMOVE_KEEPS_PAGE, "goes back to the host"):
        pages.go_back(7)
    pages.given_away(7)
    pages.page_pin(7)
    pages.judge_given()
    pages.go_back(7)
    later = TdPages(Environment(), PROFILES["upstream-6.19"], sept)
    later.given_away(7)
    later.judge_given()
    later.go_back(7)
    assert (pages.handed_back, later.handed_back) == (0, 7)


def test_a_page_is_cleaned_before_it_is_let_go() -> None:
    """Written back, cleared, and not mapped outside."""
    sept = SecureEpt(DEEP)
    pages = TdPages(Environment(), UPSTREAM, sept)
    pages.page_pin(7)
    pages.taken_out(7)

    with breach(c.REMOVAL_SEQUENCE, "cleared before its cache lines"):
        pages.clear_page(7)
    with breach(c.REMOVAL_SEQUENCE, "before clear, wbinvd"):
        pages.page_unpin(7)
    assert pages.tdh_phymem_page_wbinvd(7) == 0
    pages.clear_page(7)
    sept.leaves[0, 1] = 7
    with breach(c.FAILED_REMOVE_KEEPS_PAGE, "while the external tree maps it"):
        pages.page_unpin(7)
    sept.leaves.clear()
    pages.page_unpin(7)
    with breach(c.BALANCED):
        pages.page_unpin(7)


# -- the TD


def test_prefault_is_allowed_once_the_td_is_seen_to_run() -> None:
    """TDP-101."""
    td = Td(Environment(), DEEP, SecureEpt(DEEP))
    assert (td.pre_fault_allowed(), td.td_state(), td.hkid_assigned()) == (0, k.TD_INIT, 1)

    with breach(c.PREFAULT_AFTER_FINALIZE):
        td.allow_pre_fault()
    td.set_td_state(k.TD_RUNNABLE)
    td.allow_pre_fault()
    td.sept.key = False

    assert (td.pre_fault_allowed(), td.hkid_assigned()) == (1, 0)
    assert (td.premapped(2), td.premapped(-1)) == (2, 1)


def test_vcpus_are_kept_out_and_kicked() -> None:
    """The firmware counts who is inside."""
    bench = Bench(DEEP)
    assert bench.guests.enter(0)
    assert bench.sept.inside == [0, 1]
    with breach(c.BUSY_RETRY_ONCE, "without the write lock"):
        bench.guests.wait_for_sept_zap(1)
    bench.mmu_lock.write_lock()
    bench.guests.wait_for_sept_zap(1)
    bench.vcpus.make_all_cpus_request(k.REQ_OUTSIDE_GUEST)

    assert (bench.guests.kicked[0], bench.sept.inside) == (True, [0, 0])
    assert not bench.guests.enter(0)
    with breach(c.BUSY_RETRY_ONCE, "left set"):
        bench.guests.none_left(0)
    bench.guests.wait_for_sept_zap(0)
    bench.guests.none_left(0)
    assert bench.guests.enter(0)


def test_a_kick_waits_for_a_guest_that_runs() -> None:
    """On the other thread."""
    bench = Bench(DEEP)
    bench.guests.inside[1] = True
    bench.door.scheduler = OtherThread()

    bench.guests.kick()

    assert bench.door.scheduler.waited == ["vCPUs to leave the guest"]


def test_a_call_into_the_module_meets_the_locks_of_others() -> None:
    """Busy is told to the caller, and given to the model."""
    bench = TdBench(DEEP)
    bench.sept.acquire(1, "exclusive")

    status = bench.module.tdh_mem_sept_add(0, 2, 0x1000)

    assert status == k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT
    assert bench.door.frame.given == {"tdh_mem_sept_add": status}
    bench.sept.release(1)
    assert bench.module.tdh_mem_sept_add(0, 2, 0x1000) == 0
    with breach(c.NO_ALIAS_IN_CALLS, "SEAMCALL"):
        bench.module.tdh_mem_sept_add(DEEP.direct_bits << k.PAGE_SHIFT, 2, 0x1000)


def test_a_removal_is_tried_again_with_vcpus_kept_out() -> None:
    """TDP-098."""
    bench = TdBench(DEEP)
    bench.door.frame = refusing("tdh_mem_range_block", k.TDX_OPERAND_BUSY)
    assert bench.module.tdh_mem_range_block(0, 0) == k.TDX_OPERAND_BUSY

    with breach(c.BUSY_RETRY_ONCE, "without keeping vCPUs out"):
        bench.module.tdh_mem_range_block(0, 0)
    assert not bench.module.removal_failed
    bench.mmu_lock.write_lock()
    bench.guests.wait_for_sept_zap(1)
    bench.guests.kick()
    assert bench.module.tdh_mem_range_block(0, 0) == k.TDX_OPERAND_BUSY
    assert bench.module.removal_failed


def test_a_page_is_removed_blocked_tracked_and_with_vcpus_out() -> None:
    """TDP-097; and pages of the TD are of 4K."""
    bench = TdBench(DEEP)
    with breach(c.REMOVAL_SEQUENCE, "before the TD is finalized"):
        bench.module.tdh_mem_track()
    with breach(c.MIRROR_4K_ONLY):
        bench.module.tdh_mem_page_aug(0, 1, 7)
    for level in (2, 1):
        assert bench.module.tdh_mem_sept_add(0, level, level << k.PAGE_SHIFT) == 0
    bench.td_pages.page_pin(7)
    assert bench.module.tdh_mem_page_add(0, 7) == 0
    assert bench.module.tdh_mr_finalize() == 0
    with breach(c.REMOVAL_SEQUENCE, "without kicking"):
        bench.module.tdh_mem_page_remove(0, 0)
    bench.guests.kick()
    with breach(c.REMOVAL_SEQUENCE, "not blocked"):
        bench.module.tdh_mem_page_remove(0, 0)
    bench.module.begin_hook()
    assert (bench.module.tdh_mem_range_block(0, 0), bench.module.tdh_mem_track()) == (0, 0)
    bench.guests.kick()

    assert bench.module.tdh_mem_page_remove(0, 0) == 0
    assert bench.td_pages.unclean == {7: {"wbinvd", "clear"}}


def test_a_guest_accepts_what_is_pending() -> None:
    """It holds the tree meanwhile."""
    bench = TdBench(DEEP)

    assert bench.module.accept(0, 0) == k.TDX_EPT_ENTRY_STATE_INCORRECT
    assert bench.sept.sharing == {}


# -- the mirror and the external tree


def test_a_mirror_grows_with_the_external_tree() -> None:
    """Frozen, agreed, published; then both are the same."""
    bench = TdBench()
    page, pfn = bench.leaf()

    assert bench.sept.leaves == {(0, 1): pfn}
    assert set(bench.sept.tables) == bench.meaning.of_all().tables[0]
    assert (bench.mirror.agreed, bench.frozen.owners) == ({}, {})
    with breach(c.PRESENT_NOT_SET_AGAIN):
        bench.external.ext_set(0, 1, pfn)
    assert bench.tables.of(page).read(0) & k.RWX == k.RWX


def test_nothing_is_published_that_the_external_tree_did_not_agree_to() -> None:
    """Nor told it without a frozen entry."""
    bench = TdBench()
    bench.tree()
    place = bench.meaning.mirror_entry(0, 1)
    assert place is not None
    page, pfn = place[0].pa, bench.memory.page(0, True)

    with breach(c.FREEZE_EXTERNAL_PUBLISH, "the entry is not frozen"):
        bench.external.ext_set(0, 1, pfn)
    with breach(c.FREEZE_EXTERNAL_PUBLISH, "before the external tree agreed"):
        bench.entries.pt_xchg(page, 0, LEAF | pfn << k.PAGE_SHIFT)
    bench.entries.pt_cmpxchg(page, 0, NONPRESENT, FROZEN)
    with breach(c.SET_ARGUMENTS):
        bench.external.ext_set(0, 1, pfn + 1)
    bench.external.ext_set(0, 1, pfn)
    with breach(c.FREEZE_EXTERNAL_PUBLISH, "twice"):
        bench.external.ext_set(0, 1, pfn)
    with breach(c.SET_ARGUMENTS, "published"):
        bench.entries.pt_store(page, 0, LEAF | pfn + 1 << k.PAGE_SHIFT)
    with breach(c.MIRROR_LEAF_RWX):
        bench.entries.pt_store(page, 0, LEAF & ~k.RWX | pfn << k.PAGE_SHIFT)


def test_a_refusal_restores_the_entry() -> None:
    """To what was there; and one that is not busy kills the VM."""
    bench = TdBench()
    bench.tree()
    place = bench.meaning.mirror_entry(0, 1)
    assert place is not None
    page = place[0].pa
    bench.entries.pt_cmpxchg(page, 0, NONPRESENT, FROZEN)
    bench.door.frame = refusing("ext_set", -EBUSY)
    assert bench.external.ext_set(0, 1, bench.memory.page(0, True)) == -EBUSY
    assert (bench.external.failed[0], bench.vm.bugged) == (True, False)

    bench.door.frame = refusing("ext_set", -EIO)
    assert bench.external.ext_set(0, 1, bench.memory.page(0, True)) == -EIO
    assert bench.vm.bugged
    bench.entries.pt_store(page, 0, NONPRESENT)
    bench.frozen.none_left(0)


def test_a_mirror_leaf_is_cleared_first_and_removed_once() -> None:
    """Under the write lock, and while the TD has its key."""
    bench = TdBench()
    page, pfn = bench.leaf()
    with breach(c.REMOVE_ARGUMENTS, "no such leaf cleared"):
        bench.external.ext_remove(0, 1, pfn)
    bench.entries.pt_xchg(page, 0, NONPRESENT)
    with breach(c.REMOVE_ARGUMENTS, "not removed outside"):
        bench.mirror.none_left(0)
    bench.sept.key = False
    with breach(c.HKID_ORDER):
        bench.external.ext_remove(0, 1, pfn)
    bench.sept.key = True

    assert bench.external.ext_remove(0, 1, pfn) == 0
    assert bench.sept.leaves == {}
    bench.mirror.none_left(0)


@pytest.mark.parametrize("op", [ops.Age(), ops.WrprotSlot()])
def test_a_mirror_is_not_touched_by_what_is_for_the_shared_half(op: Any) -> None:
    """TDP-095; and its leaves do not change."""
    bench = TdBench()
    page, pfn = bench.leaf()

    with breach(c.MIRROR_UNTOUCHED):
        bench.entries.pt_store(page, 0, LEAF | 1 << k.ACCESSED | pfn << k.PAGE_SHIFT)
    bench.begin(op)
    with breach(c.MIRROR_UNTOUCHED):
        bench.entries.pt_store(page, 0, NONPRESENT)


def test_external_tables_are_taken_back_bottom_up_without_the_key() -> None:
    """TDP-076, 077, 100."""
    bench = TdBench()
    bench.tree()
    upper, lower = bench.sept.tables[2, 0], bench.sept.tables[1, 0]
    with breach(c.HKID_ORDER):
        bench.external.ext_free(0, 1, lower)
    bench.sept.key = False
    with breach(c.FREE_BOTTOM_UP):
        bench.external.ext_free(0, 2, upper)
    with breach(c.FREE_ARGUMENTS):
        bench.external.ext_free(0, 1, upper)

    assert bench.external.ext_free(0, 1, lower) == 0
    assert bench.heap.owned == {upper}


def test_a_table_that_the_td_keeps_may_be_asked_for_again() -> None:
    """TDP-077, 078: the answer stays; with other arguments it is no such table."""
    bench = TdBench()
    bench.tree()
    lower = bench.sept.tables[1, 0]
    bench.sept.key = False
    bench.door.frame = refusing("ext_free", -k.EIO)

    assert bench.external.ext_free(0, 1, lower) == -k.EIO
    assert bench.external.ext_free(0, 1, lower) == -k.EIO
    assert bench.vm.bugged
    with breach(c.FREE_ARGUMENTS):
        bench.external.ext_free(2, 1, lower)


def test_a_hook_of_the_candidate_is_judged_by_what_it_made_of_the_answers() -> None:
    """BUSY comes back as EBUSY; a removal that asked for nothing is none."""
    bench = TdBench(DEEP)
    root = bench.root(mirror=True)
    bench.mmu_lock.write_lock()
    child = bench.table(root)
    bench.entries.pt_cmpxchg(root.pa, 0, NONPRESENT, FROZEN)
    bench.door.frame = refusing("tdh_mem_sept_add", k.TDX_OPERAND_BUSY)
    bench.answers = [-EBUSY, -EIO]

    with breach(c.BUSY_TO_EBUSY):
        bench.external.ext_link(0, 3, child.external)
    bench.door.breach = None
    assert bench.external.ext_link(0, 3, child.external) == -EBUSY
    bench.mirror.cleared[0] = (7, 0)
    bench.sept.leaves[0, 1] = 7
    with breach(c.REMOVAL_SEQUENCE, "the page is still there"):
        bench.external.ext_remove(0, 1, 7)
