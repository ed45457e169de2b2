"""The world of tdp_mirror as a whole: it names what wrong TDP MMUs do, and accuses no right ones."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror import opening
from conformance.strategies.tdp_mirror.domains import DEEP, EARLY, FOUR_LEVELS, SHARED
from conformance.trace import Trace
from tests.conformance.tdp_mirror.judging import CREATE, OF, RELOAD, SECOND, failed, judge


class StoresOverLiveLeaf(Upstream):
    """Uses a plain store where hardware may set bits."""

    def set_spte(self, sp: Any, index: int, gfn: int, new: int) -> int:
        """No exchange."""
        old: int = self.port.pt_read(sp.page, index)
        self.port.pt_store(sp.page, index, new)
        self.handle_changed_spte(sp, gfn, old, new, sp.level, False)
        return old


class NoFlush(Upstream):
    """Forgets that a flush is due."""

    def zap_leafs_root(self, *args: Any) -> bool:
        """Never."""
        super().zap_leafs_root(*args)
        return False


class YieldsUnflushed(Upstream):
    """Drops the lock with a flush pending."""

    def cond_resched(self, iterator: Any, flush: bool) -> bool:
        """Without the flush."""
        return super().cond_resched(iterator, False)


class YieldsAlways(Upstream):
    """Drops the lock although the caller may not block."""

    def zap_leafs_root(self, root: Any, start: int, end: int, can_yield: bool, flush: bool) -> bool:
        """As if it might."""
        return super().zap_leafs_root(root, start, end, True, flush)


class ZeroTables(Upstream):
    """Links tables full of zeros."""

    def initial_entry(self) -> int:
        """Guests would get no #VE."""
        return 0


class ReadOnlyMirror(Upstream):
    """Mirrors follow the permissions of the page."""

    def make_spte(self, fault: Any, level: int, mirror: bool) -> int:
        """Without W."""
        spte = super().make_spte(fault, level, mirror)
        return spte & ~(1 << k.WRITE) if mirror else spte


class LeafBeforeHook(Upstream):
    """Publishes a mirror leaf before the external tree agreed."""

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """The other way round."""
        return 0 if self.port.pt_cmpxchg(page, index, old, new) == old else -k.EBUSY


class FreesExternalLate(Upstream):
    """Frees the external page with the firmware still owning it."""

    def free_external(self, sp: Any) -> None:
        """Whatever the answer."""
        self.port.ext_free(sp.gfn, sp.level, sp.external)


class FreesAtOnce(Upstream):
    """Frees a table without a grace period."""

    def put_root(self, root: Any) -> None:
        """At once."""
        if self.port.refcount_dec_and_test(root.page):
            self.port.pages_lock()
            self.roots.remove(root)
            self.port.roots_del(root.page)
            self.port.pages_unlock()
            self.free_sp(root)


class ResolvesFirst(Upstream):
    """Takes the snapshot after the attributes."""

    def faultin(self, fault: Any) -> int:
        """Attributes, then sequence."""
        if self.private and fault.private != bool(self.port.attributes(fault.gfn)):
            self.fault_exit(fault)
            return -k.EFAULT
        fault.seq = self.port.mmu_invalidate_seq()
        fault.slot = self.port.memslot(fault.gfn)
        return self.get_pfn(fault)


class NeverStale(Upstream):
    """Does not look whether the page is still the right one."""

    def is_stale(self, fault: Any) -> bool:
        """It surely is."""
        return False


class StoresFirst(Upstream):
    """Stores attributes before the old half is zapped."""

    def unmap_slots(self, start: int, end: int, attr_filter: int, need: int = 0, may_block: int = 1) -> None:
        """Not now."""
        if need:
            super().unmap_slots(start, end, attr_filter, need, may_block)


class WrongLevelOfFree(Upstream):
    """Names the parent's level when a table is freed."""

    def free_external(self, sp: Any) -> None:
        """One too high."""
        self.port.ext_free(sp.gfn, sp.level + 1, sp.external)


class LeaksTable(Upstream):
    """Keeps the table when linking failed."""

    def free_sp(self, sp: Any) -> None:
        """Only after a grace period."""
        if sp.parent is None or sp.external == 0:
            super().free_sp(sp)


PRIVATE = Step(ops.PageFault(private=True))
PUBLIC = Step(ops.PageFault(gpa=0x3000 | SHARED))
END = (
    Step(ops.GmemInvalidate()),
    Step(ops.HkidRelease()),
    Step(ops.VcpuDestroy()),
    Step(ops.VmUninit()),
)
TOUCH = Step(ops.Access(gpa=0x3000 | SHARED))
CLEANED = (Step(ops.ClearDirtySlot(1)), Step(ops.HvaInvalidate()))


WRONG: tuple[tuple[type[Upstream], str, tuple[Step, ...]], ...] = (
        (StoresOverLiveLeaf, "TDP-046", (CREATE, RELOAD, PUBLIC, *CLEANED)),
        (NoFlush, "TDP-081", (CREATE, RELOAD, PUBLIC, Step(ops.Unmap()))),
        (NoFlush, "TDP-084", (CREATE, RELOAD, PUBLIC, TOUCH, Step(ops.HvaInvalidate()))),
        (YieldsUnflushed, "TDP-082", (CREATE, RELOAD, Step(ops.PageFault(gpa=0x2000 | SHARED)),
                                      Step(ops.Unmap(), (Fault("resched", 2),)))),
        (YieldsAlways, "TDP-083", (CREATE, RELOAD, PUBLIC,
                                   Step(ops.Unmap(may_block=False), (Fault("resched", 2),)))),
        (ZeroTables, "TDP-041", (CREATE, RELOAD)),
        (ReadOnlyMirror, "TDP-059", (CREATE, RELOAD, PRIVATE)),
        (LeafBeforeHook, "TDP-061", (CREATE, RELOAD, PRIVATE)),
        (FreesExternalLate, "TDP-078", (CREATE, RELOAD, PRIVATE, *END[:-1],
                                        Step(ops.VmUninit(), (Fault("ext_free", -k.EIO),)))),
        (FreesAtOnce, "TDP-085", (CREATE, RELOAD, Step(ops.ZapAllFast()), Step(ops.MmuUnload()))),
        (ResolvesFirst, "TDP-051", (CREATE, RELOAD, PRIVATE)),
        (NeverStale, "TDP-056", (CREATE, RELOAD, Step(ops.ZapAllFast()), PUBLIC)),
        (StoresFirst, "TDP-089", (CREATE, RELOAD, PRIVATE, Step(ops.SetAttributes()))),
        (WrongLevelOfFree, "TDP-077", (CREATE, RELOAD, PRIVATE, *END)),
        (LeaksTable, "TDP-063", (CREATE, RELOAD, Step(PRIVATE.op, (Fault("ext_link", -k.EBUSY),)))),
)  # fmt: skip
"""Wrong candidates, the clause that each breaks, and where it shows."""


@pytest.mark.parametrize(("candidate", "clause", "steps"), WRONG)
def test_the_environment_names_what_is_wrong(candidate: type, clause: str, steps: tuple[Step, ...]) -> None:
    """Where it happens, by the clause it breaks."""
    assert failed(judge(*steps, candidate=candidate)).clause.id == clause


def test_two_faults_on_one_leaf_are_one_mapping() -> None:
    """One of them is FIXED; the other finds the leaf or the frozen entry, whatever the switch."""
    for point in range(0, 120, 3):
        left, right = Step(ops.PageFault(0, 0, True)), Step(ops.PageFault(1, 0, True))

        report = judge(CREATE, RELOAD, *SECOND, Step(Parallel(left, right, (point,))))

        assert report.failure is None


def test_a_vcpu_does_one_thing_at_a_time() -> None:
    """Two operations of one vCPU are no pair."""
    both = Step(Parallel(Step(ops.MmuReload()), Step(ops.MmuUnload())))

    assert judge(CREATE, both).tally.steps == 1


def test_a_stale_fault_is_seen_as_the_wrong_page() -> None:
    """The page moved between its resolution and the map: no order of the two explains the leaf."""
    failures = [
        judge(CREATE, RELOAD, Step(PUBLIC.op, during=((point, Step(ops.HvaInvalidate())),)), candidate=NeverStale)
        for point in range(60)
    ]

    assert any(report.failure is not None for report in failures)


def test_a_map_on_a_mirror_without_a_direct_root_has_its_caches_filled() -> None:
    """The harness fills them, as the caller of the map would; nobody is accused."""
    steps = (*(Step(op) for op in (ops.VcpuCreate(), ops.MmuReload(), ops.MmuUnload())),)
    maps = [Step(ops.TdpMap(gpa=gfn << 12, private=True)) for gfn in (0, 1, 0, 1)]
    again = Step(ops.GmemInvalidate())

    assert judge(*steps, *maps, again, *maps).failure is None


def test_a_slot_in_deletion_is_met_whatever_backs_it() -> None:
    """EAGAIN comes before the missing guest memory."""
    private = Step(ops.SetAttributes(0, 0x4000, k.ATTRIBUTE_PRIVATE))
    both = Parallel(Step(ops.Prefault(gpa=0x3000)), Step(ops.SlotDelete(1)), (3,))

    assert judge(CREATE, private, Step(both)).failure is None


def test_a_stale_first_try_may_be_followed_by_a_broken_one() -> None:
    """Each try of a prefault meets its own answers."""
    early = Step(ops.Prefault(), during=((19, Step(ops.HvaInvalidate())),))

    assert judge(CREATE, RELOAD, early, config=EARLY).failure is None


def test_a_violation_goes_back_to_the_run_loop_for_an_event() -> None:
    """Roots become obsolete between a busy answer and the next try."""
    for point in range(90):
        busy = Step(ops.EptViolation(), (Fault("ext_link", -k.EBUSY),), ((point, Step(ops.ZapAllFast())),))

        assert judge(CREATE, RELOAD, busy).failure is None


def test_a_guest_that_accepts_makes_blocking_busy() -> None:
    """The first try to block meets the guest's lock, the kick waits for it, the second succeeds."""
    beside = Parallel(Step(ops.Accept(1)), Step(ops.GmemInvalidate(0, 1)), (0,))
    steps = (*opening(DEEP, PROFILES["upstream"])[:-1], Step(ops.Finalize()), *SECOND, Step(beside))

    report = run_trace(OF, Trace("tdp_mirror", "upstream", DEEP, steps), Upstream, record=True)

    assert report.failure is None
    assert [name for _, (name, *_) in report.steps[-1].calls].count("tdh_mem_range_block") == 2


class LinksNothing(Upstream):
    """Says that the firmware has a table, and never asked it."""

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """Nothing."""
        return 0


class FailsByItself(Upstream):
    """Names a page of another gfn to the firmware, and passes the refusal on."""

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """Off by one."""
        return super().sept_set(gfn ^ 2, level, pfn)


class RemovesForNothing(Upstream):
    """A fault on a page that is there takes it out first."""

    def map_fault(self, fault: Any) -> int:
        """The guest has accepted it for nothing."""
        if fault.private and self.gpa_is_mapped(fault.vcpu, fault.gpa):
            port = self.port
            port.read_unlock()
            port.write_lock()
            if self.unmap_gfn_range(fault.gfn, fault.gfn + 1, k.FILTER_PRIVATE, 1, 0):
                port.flush_remote_tlbs()
            port.write_unlock()
            port.read_lock()
        return super().map_fault(fault)


@pytest.mark.parametrize(
    ("candidate", "clause", "steps"),
    [
        (LinksNothing, "TDP-060", (Step(ops.VcpuCreate()), Step(ops.InitRegion()))),
        (
            FailsByItself,
            "TDP-066",
            (*opening(DEEP, PROFILES["upstream"]), Step(ops.PageFault(gpa=0x1000, private=True))),
        ),
        (
            RemovesForNothing,
            "TDP-068",
            (
                *opening(DEEP, PROFILES["upstream"]),
                Step(ops.PageFault(private=True)),
            ),
        ),
    ],
)
def test_what_the_firmware_was_not_told_or_told_wrongly_shows(
    candidate: type, clause: str, steps: tuple[Step, ...]
) -> None:
    """A refusal is an excuse only when the firmware had a reason of its own."""
    assert failed(judge(*steps, candidate=candidate, config=DEEP)).clause.id == clause


def test_every_page_of_a_huge_range_moves() -> None:
    """An invalidation of a slot of 2**34 pages moves the last one as well as the first."""
    steps = (
        Step(ops.VcpuCreate()),
        Step(ops.MmuReload()),
        Step(ops.SlotCreate(2, 2**34, 2**34 - 1, 0)),
        Step(ops.HvaInvalidate(0, 2**35)),
        Step(ops.PageFault(gpa=2**35 - 2 << 12 | 1 << 47)),
        Step(ops.SetAttributes(2**46, 2**45, k.ATTRIBUTE_PRIVATE)),
        Step(ops.PageFault(gpa=2**34 + 5 << 12, private=True)),
    )

    report = judge(*steps, config=FOUR_LEVELS)

    assert report.failure is None
