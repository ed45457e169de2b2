"""The world of the TDP MMU, its builtin candidates and its zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror import CANDIDATES, AsPosted, PostedTypes, Upstream, Upstream619
from conformance.candidates.defects.tdp_mirror import DEFECTS
from conformance.candidates.load import load
from conformance.engines import campaign, explore, interleave
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.subsystem import subsystem
from conformance.trace import Trace, decode, encode
from conformance.verdict import Failure
from model import tdp_mirror as model
from model.step import Fault, Parallel, Step
from specs import tdp_mirror as spec
from strategies import tdp_mirror as ops

OF = subsystem("tdp_mirror")
BUSY = spec.TDX_OPERAND_BUSY
SHARED = ops.SHARED
CREATE, RELOAD = Step(model.VcpuCreate()), Step(model.MmuReload())
SECOND = (Step(model.VcpuCreate(1)), Step(model.MmuReload(1)))


def judge(
    *steps: Step,
    candidate: Callable[[Any], Any] = Upstream,
    config: model.Config = ops.SMALL,
    profile: str = "upstream",
) -> Report:
    """Judge a trace."""
    return run_trace(OF, Trace("tdp_mirror", profile, config, steps), candidate)


def failed(report: Report) -> Failure:
    """What ended the trace, or the SHOULD clause that it broke."""
    failure = report.failure or (report.warnings[0] if report.warnings else None)
    assert failure is not None
    return failure


def context(candidate: str, **options: Any) -> Context:
    """A context over a builtin candidate."""
    loaded = load(candidate, OF)
    return Context(subsystem=OF, candidate=loaded, profile=loaded.profile, **options)


# -- the zoo

SHORTEST: dict[str, tuple[str, model.Config, tuple[Step, ...]]] = {
    "A-01": (
        "TDP-026",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.ZapAllFast()),
            Step(model.MmuReload()),
        ),
    ),
    "A-02": (
        "TDP-029",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.ZapAllFast()),
        ),
    ),
    "A-03": (
        "TDP-074",
        ops.DEEP,
        (
            Step(model.VcpuCreate()),
            Step(model.InitRegion()),
            Step(model.GmemInvalidate()),
            Step(model.HkidRelease()),
            Step(model.VcpuDestroy()),
            Step(model.VmUninit()),
        ),
    ),
    "A-04": (
        "TDP-100",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True)),
            Step(model.ZapAll()),
        ),
    ),
    "A-05": (
        "TDP-087",
        ops.HUGE,
        (
            Step(model.SetAttributes(address=4096, attributes=8)),
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=4096, private=True)),
            Step(model.HvaInvalidate(may_block=False)),
        ),
    ),
    "A-06": (
        "TDP-096",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True)),
            Step(model.ZapLeafs()),
        ),
    ),
    "A-07": (
        "TDP-095",
        ops.HUGE,
        (
            Step(model.SetAttributes(address=4096, attributes=8)),
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=4096, private=True)),
            Step(model.WrprotSlot()),
        ),
    ),
    "A-08": (
        "TDP-058",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True), (Fault("ext_link", -16, 2),)),
            Step(model.InjectHuge()),
            Step(model.PageFault(private=True)),
        ),
    ),
    "A-09": (
        "TDP-057",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.TdpMap(private=True, level=2)),
        ),
    ),
    "A-10": (
        "TDP-095",
        ops.HUGE,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=16384)),
            Step(model.FastFault()),
        ),
    ),
    "A-11": (
        "TDP-068",
        ops.HUGE,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=16384)),
            Step(model.FastFault(gpa=16384)),
        ),
    ),
    "A-12": (
        "TDP-010",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.SelectRoot(types=5)),
        ),
    ),
    "A-13": ("TDP-006", ops.SMALL, (Step(model.Unmap(attr_filter=0, may_block=False)),)),
    "A-14": (
        "TDP-080",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=28672)),
            Step(model.ZapLeafs()),
        ),
    ),
    "A-16": (
        "TDP-014",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=16384, private=True)),
        ),
    ),
    "A-17": (
        "TDP-050",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True)),
        ),
    ),
    "A-18": (
        "TDP-024",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.TdpMap(private=True)),
        ),
    ),
    "U-01": (
        "TDP-049",
        ops.HUGE,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=28672)),
            Step(model.ClearDirtySlot()),
            Step(model.WrprotSlot(), (Fault("pt_cmpxchg", 1),)),
        ),
    ),
    "U-02": (
        "TDP-067",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True), (Fault("ext_link", -16, 2),)),
            Step(model.InjectHuge()),
            Step(model.PageFault(private=True)),
        ),
    ),
    "U-03": (
        "TDP-081",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.Unmap(may_block=False, flush=True)),
        ),
    ),
    "U-04": ("TDP-003", ops.SMALL, (Step(model.RootMatch(invalid=True, types=5)),)),
    "U-05": (
        "TDP-007",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=28672)),
            Step(model.InvalidateRoots()),
            Step(model.HvaInvalidate(may_block=False)),
        ),
    ),
    "U-06": (
        "TDP-089",
        ops.HUGE,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=16384)),
            Step(model.SetAttributes(attributes=8)),
        ),
    ),
    "U-07": (
        "TDP-075",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True)),
            Step(model.GmemInvalidate()),
        ),
    ),
    "U-08": ("TDP-100", ops.DEEP, (Step(model.SeptFree()),)),
    "U-09": ("TDP-072", ops.EARLY, (Step(model.SeptSet(level=1)),)),
    "U-10": (
        "TDP-102",
        ops.DEEP,
        (
            Step(model.VcpuCreate()),
            Step(model.InitRegion(), (Fault("tdh_mem_page_add", BUSY),)),
            Step(model.GmemInvalidate()),
        ),
    ),
    "U-11": (
        "TDP-039",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.ZapAllFast()),
            Step(model.MmuReload()),
        ),
    ),
    "U-12": (
        "TDP-055",
        ops.DELETING,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(private=True, prefetch=True)),
        ),
    ),
    "U-13": (
        "TDP-105",
        ops.DELETING,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.EptViolation()),
        ),
    ),
    "U-14": (
        "TDP-092",
        ops.HUGE,
        (
            Step(model.VcpuCreate()),
            Step(model.MmuReload()),
            Step(model.PageFault(gpa=28672)),
            Step(
                Parallel(
                    Step(model.SetAttributes(address=4096, size=8192, attributes=8)),
                    Step(model.PageFault(gpa=28672)),
                    (7, 76),
                )
            ),
        ),
    ),
    "U-15": (
        "TDP-019",
        ops.HIGH,
        (
            Step(model.VcpuCreate()),
            Step(model.Prefault(gpa=32768)),
        ),
    ),
    "U-16": ("TDP-020", ops.HIGH, (Step(model.SlotCreate(slot=3, base=7, npages=2)),)),
    "U-17": (
        "TDP-057",
        ops.SMALL,
        (
            Step(model.VcpuCreate()),
            Step(model.Prefault()),
            Step(model.TdpMap(private=True, level=2)),
        ),
    ),
    "U-18": (
        "TDP-097",
        ops.DEEP,
        (
            Step(model.VcpuCreate()),
            Step(model.InitRegion()),
            Step(model.Finalize()),
            Step(model.GmemInvalidate(), (Fault("tdh_mem_range_block", BUSY),)),
        ),
    ),
    "U-19": (
        "TDP-079",
        ops.DEEP,
        (
            Step(model.VcpuCreate()),
            Step(model.InitRegion()),
            Step(
                model.GmemInvalidate(),
                (
                    Fault("tdh_mem_range_block", BUSY),
                    Fault("tdh_mem_range_block", BUSY, 2),
                ),
            ),
        ),
    ),
    "U-21": (
        "TDP-074",
        ops.DEEP,
        (
            Step(model.VcpuCreate()),
            Step(model.InitRegion()),
            Step(model.GmemInvalidate()),
            Step(model.HkidRelease()),
            Step(model.VcpuDestroy()),
            Step(model.VmUninit()),
        ),
    ),
}
"""By defect: the clause that is cited, the world, and a shortest trace that shows it."""


def test_every_defect_is_in_the_zoo_or_says_why_not() -> None:
    """Eighteen of the posted design, twenty-one of the series and of upstream."""
    assert [d.id for d in DEFECTS] == [f"A-{n:02}" for n in range(1, 19)] + [f"U-{n:02}" for n in range(1, 22)]
    assert all((d.candidate is None) == bool(d.why_not) for d in DEFECTS)
    assert set(SHORTEST) == {d.id for d in DEFECTS if d.candidate is not None}


@pytest.mark.parametrize("name", SHORTEST)
def test_a_defect_is_shown_by_its_shortest_trace(name: str) -> None:
    """The clause is one of those expected, and the correct candidate passes."""
    clause, config, steps = SHORTEST[name]
    defect = next(d for d in DEFECTS if d.id == name)
    assert defect.candidate is not None
    profile = getattr(defect.candidate, "profile", "upstream")

    wrong = judge(*steps, candidate=defect.candidate, config=config, profile=profile)
    right = judge(*steps, candidate=PostedTypes if profile == "as-posted" else Upstream, config=config, profile=profile)

    assert failed(wrong).clause.id == clause
    assert clause in defect.clauses
    assert right.failure is None


def test_traces_with_races_survive_a_file() -> None:
    """A schedule is data like the rest of the trace."""
    _, config, steps = SHORTEST["U-14"]
    trace = Trace("tdp_mirror", "upstream", config, steps)

    again = decode(encode(trace), {"tdp_mirror": OF.config}, {"tdp_mirror": OF.operations})

    assert again == trace


def test_a_race_replays_to_the_same_switch() -> None:
    """The same trace fails the same way every time."""
    _, config, steps = SHORTEST["U-14"]
    defect = next(d for d in DEFECTS if d.id == "U-14")
    assert defect.candidate is not None

    first, second = (failed(judge(*steps, candidate=defect.candidate, config=config)) for _ in range(2))

    assert (first.signature, first.detail) == (second.signature, second.detail)


# -- the correct candidates


@pytest.mark.parametrize("name", [n for n, scope in ops.SCOPES.items() if scope.in_gate])
def test_the_gate_explores_exactly_these_worlds(name: str) -> None:
    """The counts are pinned: a change nobody expected is news."""
    here = context("builtin:upstream")
    scope = ops.SCOPES[name]
    exploration = explore._Exploration(here, name, scope)
    while exploration.go_on():
        pass

    assert here.failures == []
    assert here.warnings == []
    assert (here.notes[f"{name}: states"], here.notes[f"{name}: transitions"]) == (scope.states, scope.transitions)


@pytest.mark.parametrize("candidate", ["builtin:upstream", "builtin:upstream-6.19"])
def test_random_walks_of_a_correct_candidate_are_silent(candidate: str) -> None:
    """Interrupts, second threads and faults included."""
    here = context(candidate, steps=6_000, seed=5)

    campaign.run(here)

    assert here.failures == []
    assert here.warnings == []


def test_interleavings_of_the_correct_candidate_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some order of the two operations explains every schedule."""
    monkeypatch.setattr(interleave, "GATE_SCHEDULES", 600)
    here = context("builtin:upstream", seed=3)

    interleave.run(here)

    assert here.failures == []
    assert here.notes["interleave: schedules"] == 600
    assert here.notes["interleave: switches"] > 600


def test_the_posted_design_breaks_what_the_series_fixed_later() -> None:
    """Its own root types are in order, the rest is not."""
    here = context("builtin:as-posted", steps=4_000)

    campaign.run(here)

    cited = {failure.clause.id for failure in here.failures}
    assert len(cited) >= 8
    assert not cited & {"TDP-002", "TDP-003", "TDP-004"}


def test_candidates_name_their_profiles() -> None:
    """Each is judged by the profile it declares."""
    assert {name: candidate.profile for name, candidate in CANDIDATES.items()} == {
        "upstream": "upstream",
        "upstream-6.19": "upstream-6.19",
        "as-posted": "as-posted",
    }
    assert (Upstream.profile, Upstream619.profile, AsPosted.profile) == tuple(CANDIDATES)


# -- the environment, one wrong driver each


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
        return spte & ~(1 << spec.WRITE) if mirror else spte


class LeafBeforeHook(Upstream):
    """Publishes a mirror leaf before the external tree agreed."""

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """The other way round."""
        return 0 if self.port.pt_cmpxchg(page, index, old, new) == old else -spec.EBUSY


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
            return -spec.EFAULT
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


PRIVATE = Step(model.PageFault(private=True))
PUBLIC = Step(model.PageFault(gpa=0x3000 | SHARED))
END = (
    Step(model.GmemInvalidate()),
    Step(model.HkidRelease()),
    Step(model.VcpuDestroy()),
    Step(model.VmUninit()),
)
TOUCH = Step(model.Access(gpa=0x3000 | SHARED))
AGED = (Step(model.Age()), Step(model.HvaInvalidate()))


@pytest.mark.parametrize(
    ("candidate", "clause", "steps"),
    [
        (StoresOverLiveLeaf, "TDP-046", (CREATE, RELOAD, PUBLIC, *AGED)),
        (NoFlush, "TDP-081", (CREATE, RELOAD, PUBLIC, Step(model.Unmap()))),
        (NoFlush, "TDP-084", (CREATE, RELOAD, PUBLIC, TOUCH, Step(model.HvaInvalidate()))),
        (YieldsUnflushed, "TDP-082", (CREATE, RELOAD, Step(model.PageFault(gpa=0x2000 | SHARED)),
                                      Step(model.Unmap(), (Fault("resched", 2),)))),
        (YieldsAlways, "TDP-083", (CREATE, RELOAD, PUBLIC,
                                   Step(model.Unmap(may_block=False), (Fault("resched", 2),)))),
        (ZeroTables, "TDP-041", (CREATE, RELOAD)),
        (ReadOnlyMirror, "TDP-059", (CREATE, RELOAD, PRIVATE)),
        (LeafBeforeHook, "TDP-061", (CREATE, RELOAD, PRIVATE)),
        (FreesExternalLate, "TDP-078", (CREATE, RELOAD, PRIVATE, *END[:-1],
                                        Step(model.VmUninit(), (Fault("ext_free", -spec.EIO),)))),
        (FreesAtOnce, "TDP-085", (CREATE, RELOAD, Step(model.ZapAllFast()), Step(model.MmuUnload()))),
        (ResolvesFirst, "TDP-051", (CREATE, RELOAD, PRIVATE)),
        (NeverStale, "TDP-056", (CREATE, RELOAD, Step(model.ZapAllFast()), PUBLIC)),
        (StoresFirst, "TDP-089", (CREATE, RELOAD, PRIVATE, Step(model.SetAttributes()))),
        (WrongLevelOfFree, "TDP-077", (CREATE, RELOAD, PRIVATE, *END)),
        (LeaksTable, "TDP-063", (CREATE, RELOAD, Step(PRIVATE.op, (Fault("ext_link", -spec.EBUSY),)))),
    ],
)  # fmt: skip
def test_the_environment_names_what_is_wrong(candidate: type, clause: str, steps: tuple[Step, ...]) -> None:
    """Where it happens, by the clause it breaks."""
    assert failed(judge(*steps, candidate=candidate)).clause.id == clause


def test_two_faults_on_one_leaf_are_one_mapping() -> None:
    """One of them is FIXED; the other finds the leaf or the frozen entry, whatever the switch."""
    for point in range(0, 120, 3):
        left, right = Step(model.PageFault(0, 0, True)), Step(model.PageFault(1, 0, True))

        report = judge(CREATE, RELOAD, *SECOND, Step(Parallel(left, right, (point,))))

        assert report.failure is None


def test_a_vcpu_does_one_thing_at_a_time() -> None:
    """Two operations of one vCPU are no pair."""
    both = Step(Parallel(Step(model.MmuReload()), Step(model.MmuUnload())))

    assert judge(CREATE, both).tally.steps == 1


def test_a_stale_fault_is_seen_as_the_wrong_page() -> None:
    """The page moved between its resolution and the map: no order of the two explains the leaf."""
    failures = [
        judge(CREATE, RELOAD, Step(PUBLIC.op, during=((point, Step(model.HvaInvalidate())),)), candidate=NeverStale)
        for point in range(60)
    ]

    assert any(report.failure is not None for report in failures)


def test_a_map_on_a_mirror_without_a_direct_root_has_its_caches_filled() -> None:
    """The harness fills them, as the caller of the map would; nobody is accused."""
    steps = (*(Step(op) for op in (model.VcpuCreate(), model.MmuReload(), model.MmuUnload())),)
    maps = [Step(model.TdpMap(gpa=gfn << 12, private=True)) for gfn in (0, 1, 0, 1)]
    again = Step(model.GmemInvalidate())

    assert judge(*steps, *maps, again, *maps).failure is None


def test_a_slot_in_deletion_is_met_whatever_backs_it() -> None:
    """EAGAIN comes before the missing guest memory."""
    private = Step(model.SetAttributes(0, 0x4000, spec.ATTRIBUTE_PRIVATE))
    both = Parallel(Step(model.Prefault(gpa=0x3000)), Step(model.SlotDelete(1)), (3,))

    assert judge(CREATE, private, Step(both)).failure is None


def test_a_stale_first_try_may_be_followed_by_a_broken_one() -> None:
    """Each try of a prefault meets its own answers."""
    early = Step(model.Prefault(), during=((19, Step(model.HvaInvalidate())),))

    assert judge(CREATE, RELOAD, early, config=ops.EARLY).failure is None


def test_a_violation_goes_back_to_the_run_loop_for_an_event() -> None:
    """Roots become obsolete between a busy answer and the next try."""
    for point in range(90):
        busy = Step(model.EptViolation(), (Fault("ext_link", -spec.EBUSY),), ((point, Step(model.ZapAllFast())),))

        assert judge(CREATE, RELOAD, busy).failure is None
