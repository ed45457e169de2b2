"""The world of the TDP MMU, its builtin candidates and its zoo."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror import CANDIDATES
from conformance.candidates.builtin.tdp_mirror.as_posted import AsPosted, PostedTypes
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream_6_19 import Upstream619
from conformance.candidates.defects.tdp_mirror import DEFECTS
from conformance.candidates.load import load
from conformance.engines import campaign, explore, interleave
from conformance.engines.context import Context
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.lockstep import Report, run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.state import BLOCKED, MAPPED, PENDING, PENDING_BLOCKED
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror import SCOPES, opening
from conformance.strategies.tdp_mirror.domains import DEEP, DELETING, EARLY, FOUR_LEVELS, HIGH, HUGE, SHARED, SMALL
from conformance.subsystem import subsystem
from conformance.trace import Trace, decode, encode
from conformance.verdict import Failure

OF = subsystem("tdp_mirror")
BUSY = k.TDX_OPERAND_BUSY
CREATE, RELOAD = Step(ops.VcpuCreate()), Step(ops.MmuReload())
SECOND = (Step(ops.VcpuCreate(1)), Step(ops.MmuReload(1)))


def judge(
    *steps: Step,
    candidate: Callable[[Any], Any] = Upstream,
    config: Config = SMALL,
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

SHORTEST: dict[str, tuple[str, Config, tuple[Step, ...]]] = {
    "A-01": (
        "TDP-025",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.ZapAllFast()),
            Step(ops.MmuReload()),
        ),
    ),
    "A-02": (
        "TDP-029",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.ZapAllFast()),
        ),
    ),
    "A-03": (
        "TDP-074",
        DEEP,
        (
            Step(ops.VcpuCreate()),
            Step(ops.InitRegion()),
            Step(ops.GmemInvalidate()),
            Step(ops.HkidRelease()),
            Step(ops.VcpuDestroy()),
            Step(ops.VmUninit()),
        ),
    ),
    "A-04": (
        "TDP-100",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True)),
            Step(ops.ZapAll()),
        ),
    ),
    "A-05": (
        "TDP-087",
        HUGE,
        (
            Step(ops.SetAttributes(address=4096, attributes=8)),
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=4096, private=True)),
            Step(ops.HvaInvalidate(may_block=False)),
        ),
    ),
    "A-06": (
        "TDP-096",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True)),
            Step(ops.ZapLeafs()),
        ),
    ),
    "A-07": (
        "TDP-095",
        HUGE,
        (
            Step(ops.SetAttributes(address=4096, attributes=8)),
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=4096, private=True)),
            Step(ops.WrprotSlot()),
        ),
    ),
    "A-08": (
        "TDP-058",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True), (Fault("ext_link", -16, 2),)),
            Step(ops.InjectHuge()),
            Step(ops.PageFault(private=True)),
        ),
    ),
    "A-09": (
        "TDP-057",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.TdpMap(private=True, level=2)),
        ),
    ),
    "A-10": (
        "TDP-095",
        HUGE,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=16384)),
            Step(ops.FastFault()),
        ),
    ),
    "A-11": (
        "TDP-012",
        HUGE,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=16384)),
            Step(ops.FastFault(gpa=16384)),
        ),
    ),
    "A-12": (
        "TDP-010",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.SelectRoot(types=5)),
        ),
    ),
    "A-13": ("TDP-006", SMALL, (Step(ops.Unmap(attr_filter=0, may_block=False)),)),
    "A-14": (
        "TDP-080",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=28672)),
            Step(ops.ZapLeafs()),
        ),
    ),
    "A-16": (
        "TDP-014",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=16384, private=True)),
        ),
    ),
    "A-17": (
        "TDP-050",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True)),
        ),
    ),
    "A-18": (
        "TDP-024",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.TdpMap(private=True)),
        ),
    ),
    "U-01": (
        "TDP-049",
        HUGE,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=28672)),
            Step(ops.ClearDirtySlot()),
            Step(ops.WrprotSlot(), (Fault("pt_cmpxchg", 1),)),
        ),
    ),
    "U-02": (
        "TDP-067",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True), (Fault("ext_link", -16, 2),)),
            Step(ops.InjectHuge()),
            Step(ops.PageFault(private=True)),
        ),
    ),
    "U-03": (
        "TDP-081",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.Unmap(may_block=False, flush=True)),
        ),
    ),
    "U-04": ("TDP-003", SMALL, (Step(ops.RootMatch(invalid=True, types=5)),)),
    "U-05": (
        "TDP-007",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=28672)),
            Step(ops.InvalidateRoots()),
            Step(ops.HvaInvalidate(may_block=False)),
        ),
    ),
    "U-06": (
        "TDP-089",
        HUGE,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=16384)),
            Step(ops.SetAttributes(attributes=8)),
        ),
    ),
    "U-07": (
        "TDP-075",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True)),
            Step(ops.GmemInvalidate()),
        ),
    ),
    "U-08": ("TDP-100", DEEP, (Step(ops.SeptFree()),)),
    "U-09": ("TDP-072", EARLY, (Step(ops.SeptSet(level=1)),)),
    "U-10": (
        "TDP-102",
        DEEP,
        (
            Step(ops.VcpuCreate()),
            Step(ops.InitRegion(), (Fault("tdh_mem_page_add", BUSY),)),
            Step(ops.GmemInvalidate()),
        ),
    ),
    "U-11": (
        "TDP-039",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.ZapAllFast()),
            Step(ops.MmuReload()),
        ),
    ),
    "U-12": (
        "TDP-055",
        DELETING,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(private=True, prefetch=True)),
        ),
    ),
    "U-13": (
        "TDP-105",
        DELETING,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.EptViolation()),
        ),
    ),
    "U-14": (
        "TDP-092",
        HUGE,
        (
            Step(ops.VcpuCreate()),
            Step(ops.MmuReload()),
            Step(ops.PageFault(gpa=28672)),
            Step(
                Parallel(
                    Step(ops.SetAttributes(address=4096, size=8192, attributes=8)),
                    Step(ops.PageFault(gpa=28672)),
                    (7, 76),
                )
            ),
        ),
    ),
    "U-15": (
        "TDP-019",
        HIGH,
        (
            Step(ops.VcpuCreate()),
            Step(ops.Prefault(gpa=32768)),
        ),
    ),
    "U-16": ("TDP-020", HIGH, (Step(ops.SlotCreate(slot=3, base=7, npages=2)),)),
    "U-17": (
        "TDP-057",
        SMALL,
        (
            Step(ops.VcpuCreate()),
            Step(ops.Prefault()),
            Step(ops.TdpMap(private=True, level=2)),
        ),
    ),
    "U-18": (
        "TDP-097",
        DEEP,
        (
            Step(ops.VcpuCreate()),
            Step(ops.InitRegion()),
            Step(ops.Finalize()),
            Step(ops.GmemInvalidate(), (Fault("tdh_mem_range_block", BUSY),)),
        ),
    ),
    "U-19": (
        "TDP-079",
        DEEP,
        (
            Step(ops.VcpuCreate()),
            Step(ops.InitRegion()),
            Step(
                ops.GmemInvalidate(),
                (
                    Fault("tdh_mem_range_block", BUSY),
                    Fault("tdh_mem_range_block", BUSY, 2),
                ),
            ),
        ),
    ),
    "U-21": (
        "TDP-074",
        DEEP,
        (
            Step(ops.VcpuCreate()),
            Step(ops.InitRegion()),
            Step(ops.GmemInvalidate()),
            Step(ops.HkidRelease()),
            Step(ops.VcpuDestroy()),
            Step(ops.VmUninit()),
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


@pytest.mark.parametrize("name", [n for n, scope in SCOPES.items() if scope.in_gate])
def test_the_gate_explores_exactly_these_worlds(name: str) -> None:
    """The counts are pinned: a change nobody expected is news."""
    here = context("builtin:upstream")
    scope = SCOPES[name]
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
    assert here.notes["interleave: schedules"] == 600 + sum(SCHEDULES.values())
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
AGED = (Step(ops.Age()), Step(ops.HvaInvalidate()))


@pytest.mark.parametrize(
    ("candidate", "clause", "steps"),
    [
        (StoresOverLiveLeaf, "TDP-046", (CREATE, RELOAD, PUBLIC, *AGED)),
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
    ],
)  # fmt: skip
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


# -- the posted design

POSTED: dict[str, tuple[Step, ...] | str] = {
    "A-01": (CREATE, RELOAD, Step(ops.MmuUnload()), RELOAD),
    **{f"A-{n:02}": SHORTEST[f"A-{n:02}"][2] for n in (*range(2, 14), 16, 18)},
    "A-14": "Every caller of the posted series was converted; the constant is left to callers outside it.",
    "A-15": "A TD has no nested context, and the port has one MMU per vCPU.",
    "A-17": "The lookups lie within RCU read sections; what is missing is an annotation.",
}
"""By defect of section 7a: a trace on which the posted design shows it, or why it does not."""


@pytest.mark.parametrize("name", [name for name, shown in POSTED.items() if not isinstance(shown, str)])
def test_the_posted_design_shows_its_defect(name: str) -> None:
    """Though the other defects are there as well, the clause is one of those of this defect."""
    steps, config = POSTED[name], SHORTEST[name][1]
    assert not isinstance(steps, str)

    failure = failed(judge(*steps, candidate=AsPosted, config=config, profile="as-posted"))

    assert failure.clause.id in next(d.clauses for d in DEFECTS if d.id == name)
    assert failure.step == len(steps) - 1


def test_every_defect_of_the_posted_design_is_accounted_for() -> None:
    """Eighteen, shown or with a reason why not."""
    assert sorted(POSTED) == [f"A-{n:02}" for n in range(1, 19)]


# -- races

SCHEDULES = {
    "one private leaf twice": 162,
    "one private leaf twice, busy": 154,
    "two private leaves of one new table": 162,
    "a private fault and a reload": 64,
    "a shared fault and a yielding unmap": 99,
    "a private fault and its conversion": 128,
    "a shared fault and its conversion": 110,
    "zapping invalid roots and a notifier": 144,
    "a yielding zap and a fault": 111,
    "the end of a vCPU and a reload": 94,
    "two first loads": 102,
    "a prefault and the end of its slot": 150,
    "a violation and the end of its slot": 138,
    "a huge fault and a conversion of its half": 100,
    "a split and a notifier": 152,
    "a split and write protection": 128,
    "a split and the fast zap": 150,
    "a fast fault and write protection": 46,
    "a page accepted and taken": 76,
    "two pages added": 104,
    "a page added and the TD finalized": 148,
}
"""By race: schedules of as many switches as it says, in both orders of starting."""


@pytest.mark.parametrize("name", ["builtin:upstream", "builtin:upstream-6.19"])
def test_the_races_of_the_sources_are_tried_without_gaps_and_hold(name: str) -> None:
    """The eight pairs of section 9 and the others that the sources tell of; a count that changes is news."""
    here = context(name)
    search = interleave._Search(here)

    deque(search.races(), maxlen=0)

    assert here.failures == []
    assert search.raced == SCHEDULES | (
        {} if name == "builtin:upstream" else {"a page added and the TD finalized": 130}
    )


# -- correct implementations that are built in another way

PEERS = Path(__file__).parent / "peers" / "tdp_mirror.py"


@pytest.mark.parametrize("name", ["Backwards", "Coarse", "Unpinned"])
def test_a_peer_is_not_accused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the small scopes nor at random nor with another thread."""
    monkeypatch.setattr(interleave, "GATE_SCHEDULES", 500)
    here = context(f"{PEERS}:{name}", steps=6_000)

    explore.run(here)
    campaign.run(here)
    interleave.run(here)

    assert [failure.signature for failure in here.failures] == []


# -- the firmware's page table

MAPPED_AT = 0
"""gfn of the leaf that the tests of the firmware's page table work on."""


def secure_ept(kind: str, *, runnable: bool = True) -> SecureEpt:
    """A tree with one leaf of 4K, or the table above it, in some state; FREE when `kind` is empty."""
    sept = SecureEpt(DEEP)
    assert sept.sept_add(0, 3, 0x1000) == 0
    if kind.startswith("table"):
        assert sept.sept_add(0, 2, 0x2000) == 0
    elif kind:
        assert sept.sept_add(0, 2, 0x2000) == 0
        assert sept.page_add(MAPPED_AT, 77) == 0
        if "pending" in kind:
            sept.pending.add((0, 1))
    else:
        assert sept.sept_add(0, 2, 0x2000) == 0
    sept.runnable = runnable
    if "blocked" in kind:
        assert sept.range_block(0, 2 if kind.startswith("table") else 1) == 0
        if "tracked" in kind:
            assert sept.track() == 0
    return sept


LEAF_CALLS: dict[str, Callable[[SecureEpt], int]] = {
    "SEPT.ADD": lambda sept: sept.sept_add(0, 2, 0x3000),
    "PAGE.ADD": lambda sept: sept.page_add(0, 78),
    "PAGE.AUG": lambda sept: sept.page_aug(0, 1, 78),
    "ACCEPT": lambda sept: sept.accept(0),
    "RANGE.BLOCK": lambda sept: sept.range_block(0, 1),
    "RANGE.UNBLOCK": lambda sept: sept.range_unblock(0, 1),
    "PAGE.REMOVE": lambda sept: sept.page_remove(0, 1),
    "SEPT.REMOVE": lambda sept: sept.sept_remove(0, 2),
}
RCX = k.TDX_OPERAND_ID_RCX
STATE = k.TDX_EPT_ENTRY_STATE_INCORRECT | RCX
NOT_BLOCKED = k.TDX_GPA_RANGE_NOT_BLOCKED | RCX
NOT_TRACKED = k.TDX_TLB_TRACKING_NOT_DONE | RCX
NOT_FREE = k.TDX_EPT_PAGE_NOT_FREE


@pytest.mark.parametrize(
    ("kind", "call", "status", "becomes"),
    [
        ("", "SEPT.ADD", STATE, ""),
        ("", "PAGE.ADD", k.TDX_OPERAND_INVALID, ""),
        ("", "PAGE.AUG", 0, PENDING),
        ("", "ACCEPT", k.TDX_EPT_ENTRY_STATE_INCORRECT, ""),
        ("", "RANGE.BLOCK", STATE, ""),
        ("", "RANGE.UNBLOCK", NOT_BLOCKED, ""),
        ("", "PAGE.REMOVE", STATE, ""),
        ("mapped", "PAGE.AUG", STATE, MAPPED),
        ("mapped", "ACCEPT", k.TDX_PAGE_ALREADY_ACCEPTED, MAPPED),
        ("mapped", "RANGE.BLOCK", 0, BLOCKED),
        ("mapped", "RANGE.UNBLOCK", NOT_BLOCKED, MAPPED),
        ("mapped", "PAGE.REMOVE", NOT_BLOCKED, MAPPED),
        ("mapped", "SEPT.REMOVE", NOT_FREE, MAPPED),
        ("pending", "ACCEPT", 0, MAPPED),
        ("pending", "RANGE.BLOCK", 0, PENDING_BLOCKED),
        ("pending", "PAGE.REMOVE", NOT_BLOCKED, PENDING),
        ("mapped, blocked", "ACCEPT", k.TDX_EPT_ENTRY_STATE_INCORRECT, BLOCKED),
        ("mapped, blocked", "RANGE.BLOCK", k.TDX_GPA_RANGE_ALREADY_BLOCKED, BLOCKED),
        ("mapped, blocked", "RANGE.UNBLOCK", NOT_TRACKED, BLOCKED),
        ("mapped, blocked", "PAGE.REMOVE", NOT_TRACKED, BLOCKED),
        ("mapped, blocked, tracked", "RANGE.UNBLOCK", 0, MAPPED),
        ("mapped, blocked, tracked", "PAGE.REMOVE", 0, ""),
        ("pending, blocked, tracked", "RANGE.UNBLOCK", 0, PENDING),
        ("pending, blocked, tracked", "PAGE.REMOVE", 0, ""),
        ("table", "SEPT.REMOVE", NOT_BLOCKED, ""),
        ("table, blocked", "SEPT.REMOVE", NOT_TRACKED, ""),
        ("table, blocked, tracked", "SEPT.REMOVE", 0, ""),
    ],
)
def test_the_firmware_accepts_these_states(kind: str, call: str, status: int, becomes: str) -> None:
    """The table of the module's source: status and state afterwards."""
    sept = secure_ept(kind)

    assert LEAF_CALLS[call](sept) == status
    assert sept.state(0) == becomes


def test_before_the_td_runs_nothing_need_be_blocked() -> None:
    """Removal asks for tracking only where a vCPU may hold a translation."""
    sept = secure_ept("mapped", runnable=False)

    assert sept.page_remove(0, 1) == 0
    assert sept.sept_remove(0, 2) == 0


def test_a_vcpu_in_the_old_epoch_keeps_a_page_from_being_removed() -> None:
    """The epoch of blocking is over when the epoch after it has begun and nobody of it is inside."""
    sept = secure_ept("mapped")
    entered = sept.enter()

    assert sept.range_block(0, 1) == 0
    assert sept.track() == 0
    assert sept.page_remove(0, 1) == NOT_TRACKED
    assert sept.track() == k.TDX_PREVIOUS_TLB_EPOCH_BUSY
    sept.leave(entered)
    assert sept.page_remove(0, 1) == 0


def test_a_page_is_in_the_tree_once() -> None:
    """Leaves and tables are pages of the TD."""
    sept = secure_ept("mapped")

    assert sept.page_aug(1, 1, 77) == k.TDX_PAGE_METADATA_INCORRECT
    assert sept.page_aug(1, 1, 2) == k.TDX_PAGE_METADATA_INCORRECT
    assert sept.page_aug(1, 1, 78) == 0


def test_the_walk_must_reach_the_entry_and_name_the_private_half() -> None:
    """A missing table, an alias, an address beyond the root, and an entry that is not aligned."""
    sept = secure_ept("")

    assert sept.page_aug(2, 1, 78) == k.TDX_EPT_WALK_FAILED
    assert sept.page_aug(4, 1, 78) == k.TDX_OPERAND_INVALID
    assert sept.page_aug(8, 1, 78) == k.TDX_OPERAND_INVALID
    assert sept.sept_add(1, 2, 0x3000) == k.TDX_OPERAND_INVALID


def test_demoting_and_promoting_keep_the_pages_and_their_state() -> None:
    """A huge leaf that is blocked and tracked becomes a table of leaves, and the table a huge leaf again."""
    sept = secure_ept("")
    assert sept.sept_remove(0, 2) == NOT_BLOCKED
    assert (sept.range_block(0, 2), sept.track(), sept.sept_remove(0, 2)) == (0, 0, 0)
    assert sept.page_aug(0, 2, 78) == 0

    assert sept.page_demote(0, 2, 0x4000) == NOT_BLOCKED
    assert (sept.range_block(0, 2), sept.track(), sept.page_demote(0, 2, 0x4000)) == (0, 0, 0)
    assert sept.leaves == {(0, 1): 78, (1, 1): 79}
    assert sept.state(0) == sept.state(1) == PENDING
    assert sept.page_remove(0, 2) == k.TDX_PAGE_SIZE_MISMATCH | RCX
    assert sept.accept(0, 2) == k.TDX_PAGE_SIZE_MISMATCH
    assert (sept.range_block(0, 2), sept.track(), sept.page_promote(0, 2)) == (0, 0, 0)
    assert sept.leaves == {(0, 2): 78}
    assert sept.state(0, 2) == PENDING


def test_leaves_in_different_states_are_not_promoted() -> None:
    """Half of a table accepted, half not."""
    sept = secure_ept("pending")
    assert sept.page_aug(1, 1, 78) == 0
    assert sept.accept(1) == 0

    assert (sept.range_block(0, 2), sept.track()) == (0, 0)
    assert sept.page_promote(0, 2) == STATE


def test_pages_are_reclaimed_once_the_key_is_gone_and_the_root_last() -> None:
    """The life cycle of the key, and the count of what hangs on the TD."""
    sept = secure_ept("")

    assert sept.reclaim(0x1000) == k.TDX_OPERAND_INVALID
    sept.key = False
    assert sept.page_aug(0, 1, 78) == k.TDX_OPERAND_INVALID
    assert sept.track() == k.TDX_OPERAND_INVALID
    assert sept.reclaim(0x9000) == k.TDX_PAGE_METADATA_INCORRECT
    assert sept.reclaim_root() == k.TDX_TD_ASSOCIATED_PAGES_EXIST
    assert (sept.reclaim(0x1000), sept.reclaim(0x2000)) == (0, 0)
    assert sept.reclaim_root() == 0


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("shared", "shared", 0),
        ("shared", "exclusive", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT),
        ("exclusive", "shared", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT),
        ("exclusive", "none", 0),
        ("none", "root", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_TDR),
        ("root", "shared", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_TDR),
    ],
)
def test_the_locks_of_the_firmware_do_not_wait(first: str, second: str, status: int) -> None:
    """Who comes second is told that the operand is busy, and which one."""
    sept = SecureEpt(DEEP)

    assert sept.acquire(0, first) == 0
    assert sept.acquire(1, second) == status
    sept.release(0)
    assert sept.acquire(1, second) == 0


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
