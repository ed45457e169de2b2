"""Right code that was accused once: one row for each kind, with the trace, and a candidate that behaves as described.

Beside it the wrong code that the same loosening must not let pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror.linux import Linux
from conformance.candidates.builtin.tdp_mirror.linux.kvm import Fault as PageFaultOf
from conformance.candidates.builtin.tdp_mirror.linux.kvm import Sp
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.lockstep import Lockstep
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror.domains import (
    BROKEN,
    DEEP,
    EARLY,
    FIVE_LEVELS,
    HIGH,
    HUGE,
    PROTECTED,
    SHARED,
    SMALL,
)
from conformance.trace import Trace
from tests.conformance.peers.linux_tdp_mirror import (
    BuildsAside,
    Exchanges,
    FlushesMore,
    Linux619,
    LooksFirst,
    RecoversByZapping,
    TriesAgain,
)
from tests.conformance.tdp_mirror.judging import BUSY, CREATE, OF, RELOAD, SECOND, judge

ALL_SHARED = replace(SMALL, private_gfns=())
PRIVATE, SHARED_3 = Step(ops.PageFault(0, 0, True)), Step(ops.PageFault(0, 0x3000 | SHARED))
NO_LINK = (Fault("ext_link", -k.EIO),)


class PopulatesUnderSlotsLock(Linux):
    """Kernels before the file's lock was in the port: both who adds a page and who takes it hold slots_lock."""

    def gmem_populate(self, vcpu: int, gpa: int) -> int:
        """The page of the file, then everything else."""
        slot = self.port.memslot(gpa >> k.PAGE_SHIFT)
        return self._gmem_populate_locked(vcpu, gpa, slot) if slot and slot[3] & k.MEM_GUEST_MEMFD else -k.EINVAL

    def gmem_invalidate(self, start: int, end: int) -> None:
        """Nobody adds a page meanwhile."""
        self.port.slots_lock()
        super().gmem_invalidate(start, end)
        self.port.slots_unlock()


class CountsItself(Linux):
    """How many pages wait to be added is nobody else's business."""

    waiting = 0

    def _record_premap_cnt(self) -> int:
        """Counted here."""
        if self.vm_bug_on(bool(self.port.pre_fault_allowed()), "prefault of a TD that does not run"):
            return -k.EIO
        self.waiting += 1
        return 0

    def _uncount_premap(self) -> bool:
        """And here."""
        self.waiting -= 1
        return True

    def _finalize_locked(self) -> int:
        """And asked here."""
        return -k.EINVAL if self.waiting else super()._finalize_locked()


class ForgetsPages(Linux):
    """A page that the TD withholds is not spoken of any more, as Linux does it."""

    def handle_removed_pt(self, table: int, *, shared: bool) -> None:
        """The pointer is cleared, that is all."""
        self.port, port = Silent(self.port), self.port
        super().handle_removed_pt(table, shared=shared)
        self.port = port


class Silent:
    """A port on which no page is leaked."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name) if name != "page_leak" else lambda _page: None


class ReservesFirst(Upstream):
    """Memory for attributes comes before the question whether they change."""

    def change_attributes(self, start: int, end: int, attributes: int) -> int:
        """Reserved twice."""
        return self.port.reserve_attributes(start, end) or super().change_attributes(start, end, attributes)


class SlotBySlot(Linux):
    """Each slot has an invalidation of its own."""

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """From its beginning to its end."""
        for slot in self.slots_in(start, end):
            super().hva_invalidate(*self.clip(slot, start, end), may_block)


class WaitsIfItMust(Upstream):
    """Callbacks are waited for where there were any."""

    asked = False

    def put_root(self, root: Any) -> None:
        """A root that goes asks for one."""
        super().put_root(root)
        self.asked |= root not in self.roots

    def vm_uninit(self) -> None:
        """Without roots there was none."""
        self.invalidate_roots(k.DIRECT_ROOTS | k.MIRROR_ROOTS)
        self.zap_scheduled(shared=False)
        if self.asked:
            self.port.rcu_barrier()


class TellsTheCaller(Upstream):
    """Hooks say that something went wrong; whoever hears it bugs the VM."""

    def sept_error(self, status: int) -> int:
        """0, -EBUSY or -EIO."""
        return super().sept_error_quiet(status)

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """The caller of the hook."""
        error = super().set_external_present(page, index, gfn, old, new, level)
        if error == -k.EIO:
            self.port.vm_bug("the external tree is broken")
        return error


class Keeps(Upstream):
    """A valid root whose last reference is put bugs the VM, and stays in the list."""

    def put_root(self, root: Any) -> None:
        """Nobody can have it any more."""
        if root.invalid:
            super().put_root(root)
        elif self.port.refcount_dec_and_test(root.page):
            self.port.vm_bug("final put of a valid root")


class ReloadsFirst(Upstream):
    """Roots are loaded before it is asked whether the VM is dead."""

    def tdp_map_page(self, vcpu: int, gpa: int, private: bool) -> int:
        """Then everything else."""
        return self.mmu_reload(vcpu) or super().tdp_map_page(vcpu, gpa, private)


class KeepsAndReloadsFirst(Keeps, ReloadsFirst):
    """The root that is loaded is another than the one that was kept."""


RELEASED = (Step(ops.HkidRelease()), Step(ops.VcpuDestroy()))
PUT_WHILE_VALID = (
    CREATE,
    RELOAD,
    Step(ops.ZapAllFast()),
    *SECOND,
    Step(ops.StealReference()),
    Step(ops.MmuUnload(1)),
    Step(ops.Prefault()),
)

ROWS: dict[str, tuple[type[Any], Config, tuple[Step, ...]]] = {
    "the file's lock keeps a page as a snapshot would": (Linux, DEEP, (CREATE, Step(ops.InitRegion()))),
    "and so does slots_lock": (PopulatesUnderSlotsLock, DEEP, (CREATE, Step(ops.InitRegion()))),
    "a page that is shared is not added": (
        Linux,
        DEEP,
        (CREATE, Step(ops.SetAttributes(0, 4096, 0)), Step(ops.InitRegion())),
    ),
    "a slot without guest memory has none to add": (
        Linux,
        DEEP,
        (CREATE, Step(ops.SetAttributes(0x3000, 4096, k.ATTRIBUTE_PRIVATE)), Step(ops.InitRegion(0, 0x3000))),
    ),
    "a dirty leaf that is not accessed is stored over": (
        Linux,
        ALL_SHARED,
        (CREATE, RELOAD, Step(ops.Prefault()), Step(ops.HvaInvalidate(0, 4, False))),
    ),
    "hardware sets the accessed bit just before a store": (
        Linux,
        ALL_SHARED,
        (CREATE, RELOAD, Step(ops.Prefault()), Step(ops.WriteProtectGfn(0, 0), (Fault("pt_store", 1),))),
    ),
    "or before an exchange, which shows it": (
        Exchanges,
        ALL_SHARED,
        (CREATE, RELOAD, Step(ops.Prefault()), Step(ops.WriteProtectGfn(0, 0), (Fault("pt_xchg", 1),))),
    ),
    "a writer leaves entries alone that are not present": (
        Linux,
        SMALL,
        (CREATE, RELOAD, SHARED_3, Step(ops.ZapAll())),
    ),
    "in one table as in all": (Linux, SMALL, (CREATE, RELOAD, SHARED_3, Step(ops.ZapSp(False, 1, 2)))),
    "nothing is invalidated where no slot is": (
        Linux,
        SMALL,
        (Step(ops.SlotDelete(1)), Step(ops.SetAttributes(0x3000, 4096, k.ATTRIBUTE_PRIVATE))),
    ),
    "a slot of no pages is deleted": (
        Linux,
        SMALL,
        (CREATE, RELOAD, PRIVATE, Step(ops.SlotCreate(0, 3, 0, 0)), Step(ops.SlotCreate(0, 3, 0, 0))),
    ),
    "a slot is empty before the move is refused": (Linux, SMALL, (CREATE, RELOAD, SHARED_3, Step(ops.SlotMove(1, 4)))),
    "an ioctl on a dead VM is refused whatever it asks": (
        Linux,
        SMALL,
        (CREATE, RELOAD, Step(ops.Faultin(0, 4)), Step(ops.Prefault(flags=1))),
    ),
    "before it is asked whether the TD is finalized": (
        Linux,
        DEEP,
        (CREATE, RELOAD, Step(ops.SeptSet(0, 2)), Step(ops.Prefault())),
    ),
    "a violation is looked at before the VM": (
        Linux,
        SMALL,
        (CREATE, RELOAD, *(Step(ops.TdpMap(0, 0, True, 2)),), Step(ops.EptViolation())),
    ),
    "also after the external tree broke": (
        Linux,
        SMALL,
        (CREATE, RELOAD, Step(ops.PageFault(0, 0, True), NO_LINK), Step(ops.EptViolation())),
    ),
    "without a mirror private faults may be fast": (
        Linux,
        PROTECTED,
        (CREATE, RELOAD, Step(ops.PageFault(0, 0x1000, True)), Step(ops.FastFault(0, 0x1000, True, True))),
    ),
    "tracking returns nothing, the removal fails": (
        Linux,
        DEEP,
        (
            CREATE,
            Step(ops.InitRegion()),
            Step(ops.Finalize()),
            Step(ops.GmemInvalidate(), (Fault("tdh_mem_track", BROKEN),)),
        ),
    ),
    "a removal returns nothing": (Linux619, DEEP, (Step(ops.HkidRelease()), Step(ops.SeptRemove()))),
    "leaves that could be huge are zapped": (
        RecoversByZapping,
        HUGE,
        (CREATE, RELOAD, Step(ops.PageFault(0, SHARED)), Step(ops.SplitHuge(0, 0, 4)), Step(ops.RecoverHuge())),
    ),
    "a flush more than is due": (FlushesMore, SMALL, (Step(ops.Unmap()), Step(ops.ZapLeafs()))),
    "there is no mirror root to select": (Linux, PROTECTED, (CREATE, RELOAD, Step(ops.SelectRoot(0, 4)))),
    "memory is wanted before the halves are compared": (
        Linux,
        SMALL,
        (CREATE, RELOAD, Step(ops.PageFault(0, 0), (Fault("cache_topup", -k.ENOMEM),))),
    ),
    "the count of pages that wait is the driver's own": (
        CountsItself,
        DEEP,
        (
            CREATE,
            Step(ops.InitRegion(), (Fault("tdh_mem_page_add", BUSY),)),
            Step(ops.Finalize()),
            Step(ops.GmemInvalidate()),
            Step(ops.Finalize()),
        ),
    ),
    "a page that is withheld may be forgotten": (
        ForgetsPages,
        SMALL,
        (
            CREATE,
            RELOAD,
            PRIVATE,
            Step(ops.GmemInvalidate()),
            *RELEASED,
            Step(ops.VmUninit(), (Fault("ext_free", -k.EIO),)),
        ),
    ),
    "memory is wanted before it is known to be needed": (
        ReservesFirst,
        SMALL,
        (Step(ops.SetAttributes(0, 4096, k.ATTRIBUTE_PRIVATE), (Fault("reserve_attributes", -k.ENOMEM),)),),
    ),
    "each slot is invalidated on its own": (
        SlotBySlot,
        ALL_SHARED,
        (
            CREATE,
            RELOAD,
            SHARED_3,
            Step(ops.PageFault(0, SHARED)),
            Step(ops.HvaInvalidate()),
            SHARED_3,
            Step(ops.PageFault(0, SHARED)),
        ),
    ),
    "nobody waits for callbacks that were not asked for": (
        WaitsIfItMust,
        SMALL,
        (Step(ops.HkidRelease()), Step(ops.VmUninit())),
    ),
    "who is told by a hook bugs the VM": (
        TellsTheCaller,
        DEEP,
        (
            CREATE,
            Step(ops.InitRegion()),
            Step(ops.Finalize()),
            Step(ops.PageFault(0, 0x1000, True), (Fault("tdh_mem_page_aug", BROKEN),)),
        ),
    ),
    "slots overlap before they are aliases": (
        Linux,
        HIGH,
        (Step(ops.SlotCreate(3, 7, 2, 0)), Step(ops.SlotMove(1, 10))),
    ),
    "the other vCPU loads a root after the last put of one that was valid": (Upstream, SMALL, PUT_WHILE_VALID),
    "which may stay in the list": (Keeps, SMALL, PUT_WHILE_VALID),
    "or it loads one before it finds the VM dead": (ReloadsFirst, SMALL, PUT_WHILE_VALID),
    "and not the one that stayed": (KeepsAndReloadsFirst, SMALL, PUT_WHILE_VALID),
}
"""Sentence to candidate, world and trace."""


@pytest.mark.parametrize("row", ROWS)
def test_right_code_is_not_accused(row: str) -> None:
    """Neither by a clause that binds nor by one that should be followed."""
    candidate, config, steps = ROWS[row]

    report = judge(*steps, candidate=candidate, config=config, profile=candidate.profile)

    assert report.failure is None
    assert report.warnings == []
    assert report.tally.steps == len(steps)


def _asks_first(name: str) -> Callable[..., int]:
    entry = getattr(Linux, name)
    return lambda self, *args: -k.EIO if self.ioctl_is_refused() else entry(self, *args)


def _refuses(name: str) -> type[Linux]:
    return type("Refuses", (Linux,), {name: lambda _self, *_args: -k.EIO})


REFUSING: dict[str, tuple[ops.Op, str]] = {
    "vcpu_create": (ops.VcpuCreate(1), "TDP-024"),
    "mmu_reload": (ops.MmuReload(1), "TDP-039"),
    "page_fault": (ops.PageFault(1, 0, True), "TDP-068"),
    "tdp_map": (ops.TdpMap(1, 0, True), "TDP-068"),
    "faultin_pfn": (ops.Faultin(1, 0, True), "TDP-051"),
    "prefault": (ops.Prefault(1), "TDP-103"),
    "ept_violation": (ops.EptViolation(1), "TDP-104"),
    "set_attributes": (ops.SetAttributes(0, 4096, 0), "TDP-089"),
    "slot_create": (ops.SlotCreate(0, 0, 2, k.MEM_GUEST_MEMFD), "TDP-094"),
    "slot_delete": (ops.SlotDelete(), "TDP-093"),
    "slot_move": (ops.SlotMove(1, 4), "TDP-020"),
    "init_mem_region": (ops.InitRegion(1), "TDP-102"),
    "td_finalize": (ops.Finalize(), "TDP-102"),
}
"""Entry points that return an errno: their operations, and the clause that a refusal breaks while the VM lives."""
REFUSES_WHEN_DEAD = type("RefusesWhenDead", (Linux,), {name: _asks_first(name) for name in REFUSING})
"""Each of them asks before anything else."""


def _world_of(op: ops.Op) -> tuple[Config, tuple[Step, ...], Step]:
    """Where an operation can happen, what comes before it, and what kills the VM there."""
    before = {ops.VcpuCreate: (CREATE, RELOAD), ops.MmuReload: (CREATE, RELOAD, SECOND[0])}
    deep = isinstance(op, ops.InitRegion | ops.Finalize)
    killer = Step(ops.SeptSet(0, 2) if deep else ops.TdpMap(0, 0, True, 2))
    return DEEP if deep else SMALL, before.get(type(op), (CREATE, RELOAD, *SECOND)), killer


@pytest.mark.parametrize("candidate", [Linux, REFUSES_WHEN_DEAD])
@pytest.mark.parametrize("name", REFUSING)
def test_whoever_finds_the_vm_dead_refuses(name: str, candidate: type[Linux]) -> None:
    """One thread bugs the VM, the other refuses as it may at any time."""
    op, _ = REFUSING[name]
    config, before, wrong = _world_of(op)

    reports = [
        judge(*before, Step(Parallel(left, right, (point,))), config=config, candidate=candidate)
        for left, right in ((wrong, Step(op)), (Step(op), wrong))
        for point in range(0, 36, 6)
    ]

    assert [report.failure for report in reports] == [None] * 12
    assert {report.tally.steps for report in reports} == {len(before) + 1}


@pytest.mark.parametrize("name", REFUSING)
def test_nobody_refuses_while_the_vm_lives(name: str) -> None:
    """What is answered to a dead VM is wrong for another."""
    op, clause = REFUSING[name]
    config, before, _ = _world_of(op)

    failure = judge(*before, Step(op), config=config, candidate=_refuses(name)).failure

    assert failure is not None
    assert failure.clause.id == clause


@pytest.mark.parametrize("op", [ops.HvaInvalidate, ops.GmemInvalidate, ops.Age, ops.TestAge])
@pytest.mark.parametrize(("start", "end"), [(4, 8), (4, 4), (0, 5), (3, 3)])
def test_nobody_invalidates_aliases_or_nothing(op: type[Any], start: int, end: int) -> None:
    """gfns have no alias bits, and whoever takes pages back, or asks for their age, means some: the harness too."""
    report = judge(Step(op(start, end)))

    assert report.tally.steps == 0


@pytest.mark.parametrize(("end", "steps"), [(1, 4), (2, 5)])
def test_the_host_cuts_no_huge_page_of_a_td_without_a_key(end: int, steps: int) -> None:
    """It takes back the whole of it, as it does of one that runs."""
    huge = (CREATE, RELOAD, Step(ops.PageFault(0, SHARED)), Step(ops.HkidRelease()))

    report = judge(*huge, Step(ops.HvaInvalidate(0, end)), config=HUGE)

    assert report.failure is None
    assert report.tally.steps == steps


class PopulatesUnlocked(Linux):
    """Who adds a page holds slots_lock, and nobody who takes one cares."""

    gmem_populate = PopulatesUnderSlotsLock.gmem_populate


def test_a_lock_that_keeps_nothing_is_no_excuse() -> None:
    """The page is resolved, taken away, and the one in its place mapped: some schedule shows the wrong one added."""
    add, take = Step(ops.InitRegion()), Step(ops.GmemInvalidate(0, 1))

    failures = [
        judge(CREATE, Step(Parallel(add, take, (point,))), config=DEEP, candidate=PopulatesUnlocked).failure
        for point in range(60)
    ]

    assert any(failures)


@pytest.mark.parametrize("point", range(0, 36, 3))
def test_bits_may_be_cleared_that_are_not_there(point: int) -> None:
    """Ageing without a lock meets an entry that was zapped meanwhile, and leaves it as it is."""
    beside = Parallel(Step(ops.Age()), Step(ops.HvaInvalidate()), (point,))

    assert judge(CREATE, RELOAD, SHARED_3, Step(beside), candidate=Linux).failure is None


@pytest.mark.parametrize("point", range(0, 120, 5))
def test_roots_are_seen_when_they_are_listed(point: int) -> None:
    """Two first loads share them."""
    beside = Parallel(Step(ops.MmuReload()), Step(ops.MmuReload(1)), (point,))

    assert judge(CREATE, Step(ops.VcpuCreate(1)), Step(beside), candidate=Linux).failure is None


@pytest.mark.parametrize(("config", "gpa", "asked"), [(PROTECTED, 0, False), (SMALL, SHARED, False), (SMALL, 0, True)])
def test_only_a_private_violation_of_a_td_is_asked_for(config: Config, gpa: int, *, asked: bool) -> None:
    """Any other is an access to the shared half, which no driver handles as a private one; on a dead VM neither."""
    lockstep = Lockstep(OF, Trace("tdp_mirror", "upstream", config, ()), Linux)
    for step in (CREATE, RELOAD):
        assert lockstep.step(step) is None
    for dead in (False, True):
        assert OF.legal(replace(lockstep.state, bugged=dead), ops.EptViolation(0, gpa)) is asked


class SetsPagesTooEarly(Linux619):
    """A page is added to a TD that does not run though prefault is allowed already."""

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """Nobody looks."""
        return -k.EIO if self.port.tdh_mem_page_add(gfn << k.PAGE_SHIFT, pfn) else 0


def test_a_page_set_where_prefault_is_allowed_too_early_is_named() -> None:
    """What both kernels refuse is said by the clause on prefault, not by that on references."""
    steps = (Step(ops.SeptSet(0, 1)),)

    wrong = judge(*steps, config=EARLY, candidate=SetsPagesTooEarly, profile="upstream-6.19")

    assert wrong.failure is not None
    assert wrong.failure.clause.id == "TDP-101"
    assert judge(*steps, config=EARLY, candidate=Linux619, profile="upstream-6.19").failure is None


class FillsTheTable(BuildsAside):
    """A table that is built aside says of every gfn that it is mapped to the one page that there is."""

    def fill(self, table: int, index: int, spte: int) -> None:
        """All entries."""
        for place in range(1 << self.kvm.index_bits):
            super().fill(table, place, spte)


class LeavesRubbish(BuildsAside):
    """The other entries of a table that is built aside are what happened to lie there."""

    def fill(self, table: int, index: int, spte: int) -> None:
        """Nobody has cleared them."""
        super().fill(table, index, spte)
        super().fill(table, index ^ 1, 0)


def test_a_direct_table_may_be_filled_before_it_is_linked() -> None:
    """One exchange makes tables and leaf visible."""
    steps = (CREATE, RELOAD, SHARED_3, Step(ops.PageFault(0, 0x2000 | SHARED)), Step(ops.HvaInvalidate()))

    assert judge(*steps, candidate=BuildsAside).failure is None


@pytest.mark.parametrize(("candidate", "clause"), [(FillsTheTable, "TDP-108"), (LeavesRubbish, "TDP-041")])
def test_what_a_table_brings_with_it_is_judged(candidate: type[Linux], clause: str) -> None:
    """As if each entry had come on its own."""
    failure = judge(CREATE, RELOAD, SHARED_3, candidate=candidate).failure

    assert failure is not None
    assert failure.clause.id == clause


class FindsNothing(LooksFirst):
    """Whoever looks first calls present what is not."""

    def look(self, fault: PageFaultOf, root: Sp) -> int:
        """The mirror is never read."""
        return k.PG_LEVEL_4K if root.is_mirror else super().look(fault, root)


class MapsUnderObsoleteRoot(LooksFirst):
    """That the direct root is obsolete is no matter to private faults."""

    def is_obsolete_root(self, vcpu: int) -> bool:
        """Nobody looks."""
        return False


OBSOLETE = (CREATE, RELOAD, PRIVATE, Step(ops.InvalidateRoots()))


@pytest.mark.parametrize("op", [ops.PageFault(0, 0, True), ops.EptViolation(0, 0)])
def test_a_private_page_may_be_found_mapped_while_the_direct_root_is_obsolete(op: ops.Op) -> None:
    """The guest comes back by way of the load; other kernels have it come back first."""
    assert judge(*OBSOLETE, Step(op), candidate=LooksFirst).failure is None
    assert judge(*OBSOLETE, Step(op), candidate=Linux).failure is None


@pytest.mark.parametrize(("candidate", "clause"), [(FindsNothing, "TDP-068"), (MapsUnderObsoleteRoot, "TDP-056")])
def test_nothing_is_found_that_is_not_there_nor_mapped_meanwhile(candidate: type[Linux], clause: str) -> None:
    """The other page of the same table."""
    failure = judge(*OBSOLETE, Step(ops.PageFault(0, 0x1000, True)), candidate=candidate).failure

    assert failure is not None
    assert failure.clause.id == clause


class InvalidatesWhatCanBeMapped(Linux):
    """A conversion invalidates no gfn beyond the split, where no leaf of either half can be."""

    def _handle_pre_set(self, start: int, end: int, attributes: int) -> bool:
        """An empty range there."""
        if start < self.first_without():
            return super()._handle_pre_set(start, end, attributes)
        self.port.write_lock()
        self.port.mmu_invalidate_begin(0, 0)
        self.port.write_unlock()
        return True

    def first_without(self) -> int:
        """The first gfn that needs no invalidation."""
        return self.kvm.direct_bits


class InvalidatesNothing(InvalidatesWhatCanBeMapped):
    """A conversion invalidates no gfn."""

    def first_without(self) -> int:
        """From the beginning."""
        return 0


def test_what_cannot_be_mapped_need_not_be_invalidated() -> None:
    """A slot beyond what the root can name has attributes, and no entries; any other has both."""
    beyond = Step(ops.SetAttributes(8 << 12, 0x1000, k.ATTRIBUTE_PRIVATE))
    within = Step(ops.SetAttributes(1 << 12, 0x1000, k.ATTRIBUTE_PRIVATE))

    assert judge(beyond, config=HIGH, candidate=InvalidatesWhatCanBeMapped).failure is None
    wrong = judge(within, config=HIGH, candidate=InvalidatesNothing).failure
    assert wrong is not None
    assert wrong.clause.id == "TDP-089"


class SwallowsBusy(TriesAgain):
    """A call that was refused as busy counts as made."""

    def told(self, status: int) -> int:
        """0 for busy."""
        error = super().told(status)
        return 0 if error == -k.EBUSY else error


class KicksBeforeTryingAgain(TriesAgain):
    """vCPUs are kicked out of the guest when the module is busy with something that adds."""

    def again(self, seamcall: Callable[[], int]) -> int:
        """Before the second time."""
        status = seamcall()
        if status:
            self.port.make_all_cpus_request(k.REQ_OUTSIDE_GUEST)
            status = seamcall()
        return status


RUNNING = (CREATE, Step(ops.InitRegion()), Step(ops.Finalize()))
BUSY_ONCE = Step(ops.PageFault(0, 0x1000, True), (Fault("tdh_mem_page_aug", BUSY),))
BUSY_LONG = Step(ops.PageFault(0, 0x1000, True), tuple(Fault("tdh_mem_page_aug", BUSY, n) for n in (1, 2, 3)))


@pytest.mark.parametrize("step", [BUSY_ONCE, BUSY_LONG])
def test_what_the_module_was_busy_for_may_be_tried_again(step: Step) -> None:
    """At once, and in vain."""
    assert judge(*RUNNING, step, config=DEEP, candidate=TriesAgain).failure is None


@pytest.mark.parametrize(("candidate", "step"), [(SwallowsBusy, BUSY_LONG), (KicksBeforeTryingAgain, BUSY_ONCE)])
def test_busy_is_told_and_nobody_is_kicked(candidate: type[Linux], step: Step) -> None:
    """However often it was tried."""
    failure = judge(*RUNNING, step, config=DEEP, candidate=candidate).failure

    assert failure is not None
    assert failure.clause.id == "TDP-099"


@pytest.mark.parametrize(("config", "asked"), [(PROTECTED, False), (SMALL, True)])
def test_what_a_deletion_zaps_is_asked_of_vms_with_a_mirror_alone(config: Config, *, asked: bool) -> None:
    """Elsewhere all roots may go for it; a slot of no pages is a deletion too."""
    state = Lockstep(OF, Trace("tdp_mirror", "upstream", config, ()), Linux).state

    assert OF.legal(state, ops.SlotDelete(0)) is asked
    assert OF.legal(state, ops.SlotCreate(0, 3, 0, 0)) is asked
    assert OF.legal(state, ops.SlotCreate(0, 3, 1, 0))


class ZapsForEver(Linux):
    """The zap asks whether to make way, and does nothing else."""

    def zap_all_fast(self) -> None:
        """Without an end."""
        while True:
            self.port.resched()


YIELDING = Step(ops.ZapAllFast(), (Fault("resched", 2),))
MANY = (CREATE, RELOAD, *(Step(ops.PageFault(0, gfn << k.PAGE_SHIFT | 1 << 51)) for gfn in (511, 512)), *SECOND)


def test_who_makes_way_at_each_of_many_entries_comes_to_an_end() -> None:
    """He begins again at the root each time."""
    beside = Step(Parallel(YIELDING, Step(ops.MmuReload(1)), (5,)))

    assert judge(*MANY, beside, config=FIVE_LEVELS, candidate=Linux).failure is None


def test_who_spins_among_many_entries_is_found() -> None:
    """However much there is to do."""
    failure = judge(*MANY, YIELDING, config=FIVE_LEVELS, candidate=ZapsForEver).failure

    assert failure is not None
    assert failure.clause.id == "TDP-105"
