"""The zoo of tdp_mirror: each defect is shown by a shortest trace, and by the posted design where that has it."""

from __future__ import annotations

import pytest

from conformance.candidates.builtin.tdp_mirror.as_posted import AsPosted, PostedTypes
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.defects.tdp_mirror import DEFECTS
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.strategies.tdp_mirror.domains import (
    DEEP,
    DELETING,
    EARLY,
    HIGH,
    HUGE,
    LOGGED,
    SMALL,
    TWO_FILES,
    UNALIGNED,
    UNEVEN,
)
from conformance.trace import Trace, decode, encode
from tests.conformance.tdp_mirror.judging import BUSY, CREATE, OF, RELOAD, failed, judge

PUBLIC = Step(ops.PageFault(gpa=0x7000))
LOG = Step(ops.SlotCreate(0, 0, 4, 1))

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
            PUBLIC,
            Step(ops.ZapAllFast()),
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
            Step(ops.Finalize()),
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
    "U-12": ("TDP-105", DELETING, (Step(ops.VcpuCreate()), Step(ops.Prefault()))),
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
    "U-16": ("TDP-020", HIGH, (Step(ops.SlotDelete(1)), Step(ops.SlotCreate(slot=3, base=7, npages=2)))),
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
    "N-01": (
        "TDP-058",
        SMALL,
        (
            CREATE,
            RELOAD,
            Step(ops.PageFault(private=True), (Fault("ext_link", -16, 2),)),
            Step(ops.InjectHuge()),
            Step(ops.PageFault(private=True)),
        ),
    ),
    "N-02": ("TDP-056", SMALL, (CREATE, RELOAD, Step(ops.HvaInvalidate()), PUBLIC)),
    "N-03": ("TDP-035", UNALIGNED, (CREATE, RELOAD, Step(ops.PageFault(gpa=0x6000)), Step(ops.ZapAll()))),
    "N-04": ("TDP-107", HUGE, (CREATE, RELOAD, Step(ops.PageFault(gpa=0x4000, write=True)), Step(ops.SplitHuge()))),
    "N-05": ("TDP-108", SMALL, (CREATE, Step(ops.Prefault(gpa=0x3000)))),
    "N-06": (
        "TDP-082",
        SMALL,
        (
            CREATE,
            RELOAD,
            Step(ops.PageFault(private=True)),
            Step(ops.Unmap(attr_filter=2)),
            PUBLIC,
            Step(ops.Unmap(attr_filter=3), (Fault("resched", 2),)),
        ),
    ),
    "N-07": (
        "TDP-046",
        SMALL,
        (CREATE, RELOAD, PUBLIC, Step(Parallel(Step(ops.Age()), Step(ops.HvaInvalidate()), (23,)))),
    ),
    "N-08": ("TDP-086", SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.ZapAllFast()))),
    "N-09": (
        "TDP-051",
        SMALL,
        (CREATE, RELOAD, Step(ops.PageFault(0, 0, True), during=((14, Step(ops.HvaInvalidate(0, 4))),))),
    ),
    "N-10": ("TDP-089", SMALL, (Step(ops.SetAttributes(size=0x4000, attributes=8)),)),
    "N-11": ("TDP-097", DEEP, (CREATE, Step(ops.InitRegion()), Step(ops.Finalize()), Step(ops.GmemInvalidate()))),
    "N-12": ("TDP-068", SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.PageFault(gpa=0x7000, write=True)))),
    "N-13": ("TDP-104", SMALL, (CREATE, RELOAD, Step(ops.EptViolation(), (Fault("ext_link", -5),)))),
    "N-14": ("TDP-020", SMALL, (Step(ops.SlotMove(base=4)),)),
    "N-15": ("TDP-094", SMALL, (Step(ops.SlotCreate(0, 3, 0)),)),
    "N-16": ("TDP-110", UNEVEN, (CREATE, RELOAD, Step(ops.PageFault(gpa=0x6000)), Step(ops.RecoverHuge()))),
    "N-17": (
        "TDP-109",
        HUGE,
        (
            CREATE,
            RELOAD,
            Step(ops.PageFault(gpa=0x4000, write=True)),
            Step(ops.PageFault(gpa=0x6000, write=True)),
            Step(ops.WrprotSlot()),
        ),
    ),
    "N-18": ("TDP-017", SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.ZapAllFast()))),
    "N-20": (
        "TDP-064",
        DEEP,
        (
            CREATE,
            Step(ops.InitRegion()),
            Step(ops.Finalize()),
            Step(ops.PageFault(gpa=0x1000, private=True), (Fault("tdh_mem_page_aug", 0xC000010000000000),)),
        ),
    ),
    "N-19": ("TDP-032", SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.ZapAllFast()))),
    "N-23": ("TDP-094", HUGE, (Step(ops.SlotCreate(0, 0, 4, 5)),)),
    "N-21": ("TDP-112", LOGGED, (CREATE, RELOAD, LOG, Step(ops.PageFault(gpa=0x4000, write=True)))),
    "N-22": (
        "TDP-112",
        LOGGED,
        (
            CREATE,
            RELOAD,
            Step(ops.PageFault(gpa=0x4000, write=True)),
            LOG,
            Step(ops.WrprotSlot()),
            Step(ops.FastFault(0, 0x4000, False, True)),
        ),
    ),
    "N-24": (
        "TDP-084",
        HUGE,
        (CREATE, RELOAD, Step(ops.PageFault(gpa=0x4000)), Step(ops.TdpMap(0, 0x4000, False, 1))),
    ),
    "N-25": ("TDP-080", SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.HvaInvalidate(3, 4)))),
    "N-26": ("TDP-056", TWO_FILES, (CREATE, RELOAD, Step(ops.GmemInvalidate(0, 4)))),
    "N-27": ("TDP-081", SMALL, (CREATE, RELOAD, Step(ops.InvalidateRoots()), Step(ops.Unmap(0, 4, 1, True, True)))),
}
"""By defect: the clause that is cited, the world, and a shortest trace that shows it."""


def test_every_defect_is_in_the_zoo_or_says_why_not() -> None:
    """Eighteen of the posted design, twenty-one of the series and of upstream, and those that nobody saw before."""
    numbered = (("A", 18), ("U", 21), ("N", 27))
    assert [d.id for d in DEFECTS] == [f"{kind}-{n:02}" for kind, last in numbered for n in range(1, last + 1)]
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
