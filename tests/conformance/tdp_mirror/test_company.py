"""What leaves say, and the tables above them, while two threads are at them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.candidates.builtin.tdp_mirror import CANDIDATES
from conformance.candidates.builtin.tdp_mirror.linux import Linux
from conformance.candidates.builtin.tdp_mirror.linux.kvm import Fault
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault as ShadowFault
from conformance.candidates.builtin.tdp_mirror.upstream.spte import ACCESSED, DIRTY, WRITABLE
from conformance.candidates.builtin.tdp_mirror.upstream.tdp_iter import Iter
from conformance.model.step import Parallel, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror.constants import FILTER_PRIVATE, RET_PF_RETRY
from conformance.strategies.tdp_mirror.domains import HUGE, SHARED, SMALL, fault_at
from conformance.verdict import Failure
from tests.conformance.tdp_mirror.judging import CREATE, RELOAD, SECOND, judge

BOTH = (CREATE, RELOAD, *SECOND)
SPLIT = Step(ops.SplitHuge(0, 0, 4))
LEAF, TABLE = Step(ops.TdpMap(1, SHARED, False, 1)), Step(ops.TdpMap(0, SHARED, False, 2))
"""The leaf in a table, and the huge leaf that comes in the table's place."""


def failures(
    candidate: type, left: Step, right: Step, *before: Step, config: Config = HUGE, last: int = 60
) -> Iterator[Failure]:
    """Of every schedule with one switch."""
    for point in range(last):
        report = judge(*BOTH, *before, Step(Parallel(left, right, (point,))), candidate=candidate, config=config)
        if report.failure is not None:
            yield report.failure


class FetchAnd(Upstream):
    """Clears bits by one atomic access, whatever the entry is by then."""

    taken = ACCESSED | DIRTY | WRITABLE

    def clear_bits(self, it: Iter, bits: int) -> bool:
        if not bits & self.taken:
            return super().clear_bits(it, bits)
        return bool(self.port.pt_and(it.page, it.index, ~bits & 2**64 - 1) & bits)


class AgesByFetchAnd(FetchAnd):
    """Only the accessed bit, which says nothing of an entry that points to a table."""

    taken = ACCESSED


class CollectsFirst(Upstream):
    """Clears the dirty bits of what were the slot's leaves when they were collected."""

    def clear_dirty_slot(self, slot: int) -> None:
        found = [(it.page, it.index) for it in self.shared_leaves(*self.slot_range(slot))]
        self.port.rcu_read_lock()
        for page, index in found:
            self.port.pt_and(page, index, ~DIRTY & 2**64 - 1)
        self.port.rcu_read_unlock()


class TriesAgain(Upstream):
    """A fault that was stale begins afresh, once."""

    def handle_fault(self, fault: ShadowFault) -> int:
        gfn, result = fault.gfn, super().handle_fault(fault)
        if result == RET_PF_RETRY:
            fault.gfn = gfn
            result = super().handle_fault(fault)
        return result


class AsksOnce(Upstream):
    """Whether a fault is stale is asked, and not listened to."""

    def is_stale(self, fault: ShadowFault) -> bool:
        super().is_stale(fault)
        return False


class LeavesTheMirrorToTheFirmware(Upstream):
    """Asks for no flush where only the private half lost leaves."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        result = super().unmap_gfn_range(start, end, attr_filter, may_block, flush)
        return flush if attr_filter == FILTER_PRIVATE else result


class NeverRepeats(Linux):
    """A leaf that is there is answered by RETRY."""

    def tdp_mmu_map(self, fault: Fault) -> int:
        return RET_PF_RETRY if fault.goal_level == 1 else super().tdp_mmu_map(fault)


@pytest.mark.parametrize("candidate", [*(CANDIDATES[name] for name in ("upstream", "linux")), AgesByFetchAnd])
def test_an_accessed_bit_of_a_table_s_entry_says_nothing(candidate: type) -> None:
    """Ageing may meet the table that a split has put in the place of its leaf."""
    assert not [*failures(candidate, Step(ops.Age(0, 4)), SPLIT, fault_at(0, False))]


def test_what_may_not_be_written_below_a_table_is_not_taken_from_its_entry() -> None:
    """The permission of the entry is that of all below it, and no fault gives it back."""
    found = {f.clause.id for f in failures(FetchAnd, Step(ops.WrprotSlot()), SPLIT, fault_at(0, False, write=True))}
    assert found == {"TDP-046"}


def test_a_split_beside_it_leaves_nothing_dirty() -> None:
    """The parts of a dirty leaf are dirty; whoever cleared the bit of the whole has cleared nothing."""
    found = [*failures(CollectsFirst, Step(ops.ClearDirtySlot()), SPLIT, fault_at(0, False, write=True))]
    assert {f.clause.id for f in found} == {"TDP-109"}
    assert "is left dirty" in found[0].detail


@pytest.mark.parametrize("name", ["upstream", "linux"])
def test_clearing_what_another_splits_or_writes_is_clean(name: str) -> None:
    """A guest that writes meanwhile leaves its page dirty, and nobody is to blame."""
    clear = Step(ops.ClearDirtySlot())
    for other in (SPLIT, Step(ops.Access(0, SHARED, True)), Step(ops.FastFault(0, SHARED, False, True))):
        assert not [*failures(CANDIDATES[name], clear, other, fault_at(0, False, write=True), Step(ops.WrprotSlot()))]


@pytest.mark.parametrize("name", ["upstream", "linux"])
def test_a_table_that_goes_meanwhile_may_be_walked_again(name: str) -> None:
    """The walk that was in it may end with RETRY, or find the huge leaf."""
    before = Step(ops.TdpMap(0, SHARED, False, 1))
    assert not [*failures(CANDIDATES[name], LEAF, TABLE, before)]
    assert not [*failures(CANDIDATES[name], TABLE, LEAF, before)]


def test_retry_needs_a_reason() -> None:
    """Where no table goes, a leaf that is there is found."""
    report = judge(*BOTH, Step(ops.TdpMap(0, SHARED, False, 2)), LEAF, candidate=NeverRepeats, config=HUGE)
    assert report.failure is not None
    assert report.failure.clause.id == "TDP-068"


TAKEN = Step(ops.HvaInvalidate(0, 4))


def test_a_fault_may_begin_afresh_itself() -> None:
    """It sees the page that came meanwhile."""
    assert not [*failures(TriesAgain, fault_at(3, False), TAKEN, config=SMALL, last=40)]


def test_a_fault_that_goes_on_is_found() -> None:
    assert "TDP-056" in {f.clause.id for f in failures(AsksOnce, fault_at(3, False), TAKEN, config=SMALL, last=40)}


def test_what_the_firmware_flushes_needs_no_other_flush() -> None:
    private, both = Step(ops.PageFault(gpa=0, private=True)), Step(ops.Unmap(attr_filter=3))
    taken = (Step(ops.Unmap(attr_filter=2)), both)
    assert judge(*BOTH, private, *taken, candidate=LeavesTheMirrorToTheFirmware).failure is None


class DeletesWhateverTheFlags(Linux):
    """A slot of no pages goes, and what its flags might have been is nobody's business."""

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        return super().slot_create(slot, base, npages, flags if npages else 0)


def test_flags_of_no_pages_say_nothing() -> None:
    steps = (CREATE, RELOAD, Step(ops.SlotCreate(0, 3, 0, 5)))
    assert all(judge(*steps, candidate=right).failure is None for right in (Linux, DeletesWhateverTheFlags))
    resized = judge(Step(ops.SlotCreate(0, 0, 2, 4)), candidate=DeletesWhateverTheFlags)
    assert resized.failure is None


class KeepsTables(Linux):
    """A table that is there stays: the page is mapped in it, whatever level is asked for."""

    always = False

    def tdp_mmu_map(self, fault: Fault) -> int:
        if fault.goal_level > 1 and (self.always or len(self._get_walk(fault.vcpu, fault.addr)) > 2):
            fault.goal_level, fault.pfn = 1, fault.pfn + fault.gfn % 2
        return super().tdp_mmu_map(fault)


class MapsSmall(KeepsTables):
    """Never huge."""

    always = True


def test_a_table_may_stay_where_a_huge_leaf_is_asked_for() -> None:
    """Where there is none, nobody makes one instead."""
    small, huge = Step(ops.TdpMap(0, 0x6000, False, 1)), Step(ops.TdpMap(0, 0x7000, False, 2))
    assert judge(*BOTH, small, huge, candidate=KeepsTables, config=HUGE).failure is None
    assert judge(*BOTH, small, huge, candidate=Linux, config=HUGE).failure is None
    assert judge(*BOTH, huge, candidate=MapsSmall, config=HUGE).failure is not None
