"""Every clause can fail: for each that can be tested there is a wrong candidate that is cited with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror.as_posted import PostedTypes
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream_6_19 import Upstream619
from conformance.candidates.defects.tdp_mirror import DEFECTS
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import CLAUSES
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror.domains import COPIED, DEEP, DELETING, HUGE, PLAIN, SHARED, SMALL
from tests.conformance.tdp_mirror import mutants as m
from tests.conformance.tdp_mirror.judging import BUSY, CREATE, RELOAD, SECOND, failed, judge
from tests.conformance.tdp_mirror.mutants import tampering
from tests.conformance.tdp_mirror.test_world import WRONG, LinksNothing
from tests.conformance.tdp_mirror.test_zoo import SHORTEST

PRIVATE, PUBLIC = Step(ops.PageFault(private=True)), Step(ops.PageFault(gpa=0x3000 | SHARED))
OTHER = Step(ops.PageFault(1, private=True))
END = (Step(ops.HkidRelease()), Step(ops.VcpuDestroy()), Step(ops.VmUninit()))
TD = (CREATE, Step(ops.InitRegion()), Step(ops.Finalize()))

Row = tuple[Callable[[Any], Any], Config, tuple[Step, ...]]

MUTANTS: dict[str, Row] = {
    "TDP-001": (m.ChildrenWithoutFlag, SMALL, (CREATE, RELOAD, PRIVATE)),
    "TDP-002": (m.MatchesInSilence, SMALL, (Step(ops.RootMatch()),)),
    "TDP-004": (m.PostedMatchesInvalid, SMALL, (Step(ops.RootMatch(False, True, 3)),)),
    "TDP-005": (m.SwapsFilters, SMALL, (Step(ops.FilterToTypes(1)),)),
    "TDP-008": (m.AgesInvalid, SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.InvalidateRoots()), Step(ops.Age()))),
    "TDP-009": (m.InvalidatesInSilence, SMALL, (Step(ops.InvalidateRoots(3)),)),
    "TDP-011": (m.NothingIsDirect, PLAIN, (Step(ops.AddrIsDirect()),)),
    "TDP-013": (m.LooksUnderDirect, SMALL, (CREATE, RELOAD, PRIVATE, Step(ops.GpaIsMapped()))),
    "TDP-015": (m.DirectWithoutBits, SMALL, (CREATE, RELOAD, PUBLIC)),
    "TDP-016": (m.WalksInSilence, SMALL, (CREATE, RELOAD, Step(ops.ZapLeafs(4, 8)))),
    "TDP-018": (tampering("vm_bug", lambda _real, _what: None), SMALL, (CREATE, RELOAD, Step(ops.Faultin(gfn=4)))),
    "TDP-021": (m.RootPerVcpu, SMALL, (CREATE, RELOAD, *SECOND)),
    "TDP-022": (tampering("refcount_set", lambda real, page, _: real(page, 3)), SMALL, (CREATE, RELOAD)),
    "TDP-023": (m.NeverFinds, SMALL, (CREATE, RELOAD, *SECOND)),
    "TDP-026": (m.TakesTwice, SMALL, (CREATE, RELOAD, *SECOND)),
    "TDP-027": (m.UnloadsBoth, SMALL, (CREATE, RELOAD, Step(ops.MmuUnload()))),
    "TDP-028": (m.DestroysUnlocked, SMALL, (CREATE, RELOAD, Step(ops.VcpuDestroy()))),
    "TDP-030": (m.TellsNobody, SMALL, (CREATE, RELOAD, Step(ops.ZapAllFast()))),
    "TDP-031": (m.InvalidatesShared, SMALL, (CREATE, RELOAD, Step(ops.ZapAllFast()))),
    "TDP-033": (
        tampering("vm_bug", lambda _real, _what: None),
        SMALL,
        (CREATE, RELOAD, Step(ops.StealReference()), Step(ops.MmuUnload())),
    ),
    "TDP-034": (
        tampering("roots_del", lambda real, page: (real.__self__.pages_unlock(), real(page))),
        SMALL,
        (CREATE, RELOAD, Step(ops.ZapAllFast()), Step(ops.MmuUnload())),
    ),
    "TDP-036": (m.UninitHurries, SMALL, (CREATE, RELOAD, *END)),
    "TDP-037": (m.ExternalRoot, SMALL, (CREATE, RELOAD)),
    "TDP-038": (
        m.LeavesEarly,
        HUGE,
        (CREATE, RELOAD, Step(ops.PageFault(gpa=SHARED)), Step(ops.SplitHuge(), (Fault("page_alloc", -k.ENOMEM),))),
    ),
    "TDP-040": (m.MapsUnderInvalid, SMALL, (CREATE, RELOAD, Step(ops.InvalidateRoots()), PUBLIC)),
    "TDP-042": (m.LeavesWithoutSve, SMALL, (CREATE, RELOAD, PUBLIC)),
    "TDP-043": (m.WalkSeesTooMuch, SMALL, (CREATE, RELOAD, Step(ops.GetWalk()))),
    "TDP-044": (
        tampering("pt_read", lambda real, *at: k.NONPRESENT if real(*at) == k.FROZEN else real(*at)),
        SMALL,
        (CREATE, RELOAD, *SECOND, Step(Parallel(PRIVATE, OTHER, (37,)))),
    ),
    "TDP-045": (m.LeavesFrozen, SMALL, (CREATE, RELOAD, Step(PRIVATE.op, (Fault("ext_set", -k.EBUSY),)))),
    "TDP-047": (
        m.OtherPage,
        COPIED,
        (
            CREATE,
            RELOAD,
            Step(ops.PageFault(gpa=0x1000 | SHARED)),
            Step(ops.PageFault(gpa=0x1000 | SHARED, write=True)),
        ),
    ),
    "TDP-048": (m.FreezesExclusively, SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.Unmap()))),
    "TDP-052": (m.NoExit, SMALL, (CREATE, RELOAD, Step(ops.PageFault(gpa=SHARED)))),
    "TDP-053": (m.NoSlotIsAnError, SMALL, (CREATE, RELOAD, Step(ops.SlotDelete(1)), PUBLIC)),
    "TDP-054": (m.OneErrorForAll, SMALL, (CREATE, RELOAD, Step(PRIVATE.op, (Fault("gmem_get_pfn", -k.ENOMEM),)))),
    "TDP-055": (m.DeletionIsAnError, DELETING, (CREATE, RELOAD, Step(ops.PageFault(private=True, prefetch=True)))),
    "TDP-060": (LinksNothing, DEEP, (CREATE, Step(ops.InitRegion()))),
    "TDP-062": (m.LosesTheFreeze, SMALL, (CREATE, RELOAD, *SECOND, Step(Parallel(PRIVATE, OTHER, (73,))))),
    "TDP-064": (m.BusyIsABug, SMALL, (CREATE, RELOAD, Step(PRIVATE.op, (Fault("ext_set", -k.EBUSY),)))),
    "TDP-065": (tampering("ext_link", lambda real, gfn, *rest: real(gfn + 1, *rest)), SMALL, (CREATE, RELOAD, PRIVATE)),
    "TDP-066": (tampering("ext_set", lambda real, *at: real(*at[:-1], at[-1] + 1)), SMALL, (CREATE, RELOAD, PRIVATE)),
    "TDP-069": (
        tampering("sp_init", lambda real, page, header, role, gfn, ext: real(page, header, role, 0, ext)),
        SMALL,
        (CREATE, RELOAD, PUBLIC),
    ),
    "TDP-070": (tampering("account_pgtable", lambda _real, _change: None), SMALL, (CREATE, RELOAD, PUBLIC)),
    "TDP-071": (m.FillsCachesLate, SMALL, (CREATE, RELOAD, PUBLIC)),
    "TDP-073": (m.RemovesLate, SMALL, (CREATE, RELOAD, PRIVATE, Step(ops.GmemInvalidate()))),
    "TDP-076": (m.FreesTopDown, SMALL, (CREATE, RELOAD, PRIVATE, Step(ops.GmemInvalidate()), *END)),
    "TDP-088": (
        m.PunchesBoth,
        SMALL,
        (CREATE, RELOAD, Step(ops.PageFault(gpa=0x2000 | SHARED)), Step(ops.GmemInvalidate())),
    ),
    "TDP-090": (
        tampering("attributes", lambda real, gfn: real(gfn) and 0),
        SMALL,
        (CREATE, RELOAD, Step(ops.PageFault(gpa=SHARED))),
    ),
    "TDP-091": (
        tampering("reserve_attributes", lambda real, *at: real(*at) and 0),
        SMALL,
        (Step(ops.SetAttributes(), (Fault("reserve_attributes", -k.ENOMEM),)),),
    ),
    "TDP-093": (m.DeletesMore, SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.SlotDelete()))),
    "TDP-098": (
        m.InsistsRudely,
        DEEP,
        (*TD, Step(ops.GmemInvalidate(), (Fault("tdh_mem_range_block", BUSY),))),
    ),
    "TDP-099": (
        m.BusyIsBroken,
        DEEP,
        (*TD, Step(ops.PageFault(gpa=0x1000, private=True), (Fault("tdh_mem_page_aug", BUSY),))),
    ),
    "TDP-101": (m.AllowsTooSoon, DEEP, (CREATE, Step(ops.Finalize()))),
    "TDP-103": (m.PrefaultsNothing, SMALL, (CREATE, Step(ops.SlotDelete(1)), Step(ops.Prefault(gpa=0x3000)))),
    "TDP-106": (
        m.keeps_no_page,
        DEEP,
        (*TD, Step(ops.GmemInvalidate(), (Fault("tdh_mem_page_remove", k.TDX_OPERAND_INVALID),))),
    ),
    "TDP-111": (m.RecoversNothing, SMALL, (CREATE, RELOAD, PUBLIC, Step(ops.ZapSp(False, 1, 2)))),
}
"""Clause to a candidate with one line wrong, the world, and where it shows."""

TABLE: dict[str, Row] = {
    **{row[0]: (next(d.candidate for d in DEFECTS if d.id == name), *row[1:]) for name, row in SHORTEST.items()},
    **{clause: (candidate, SMALL, steps) for candidate, clause, steps in WRONG},
    **MUTANTS,
}
"""The same for all clauses, with the defects of the zoo."""


def profile_of(clause: str) -> str:
    """The profile in which a clause is in force."""
    found = next(c for c in CLAUSES if c.id == clause)
    return min(found.profiles, key=lambda name: name != "upstream", default="upstream")


def test_no_clause_is_left_out() -> None:
    """Each that can be tested has a row, and each row is a clause."""
    testable = {clause.id for clause in CLAUSES if not clause.untestable}

    assert testable - TABLE.keys() == set()
    assert TABLE.keys() <= testable


@pytest.mark.parametrize("clause", sorted(TABLE))
def test_a_clause_can_fail(clause: str) -> None:
    """The wrong candidate is cited with it at the last step, the right one with nothing."""
    candidate, config, steps = TABLE[clause]
    profile = getattr(candidate, "profile", profile_of(clause))
    right = {"as-posted": PostedTypes, "upstream-6.19": Upstream619}.get(profile, Upstream)

    failure = failed(judge(*steps, candidate=candidate, config=config, profile=profile))

    assert failure.clause.id == clause
    assert failure.step == len(steps) - 1
    assert judge(*steps, candidate=right, config=config, profile=profile).failure is None
