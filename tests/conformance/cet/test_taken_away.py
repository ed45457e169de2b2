"""A CPUID that takes features away after their registers were set: what has gone is out of sight, the rest is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.load import Candidate
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import IBT_ONLY, NEITHER, SHSTK_ONLY
from tests.conformance.cet.judging import A, B, S, blamed, run
from tests.conformance.cet.mutants import bent

SET = m.SetMsrs(0, ((k.U_CET, 4), (k.PL1_SSP, A), (k.PL3_SSP, B), (k.XSS, 0x1800)))
TABLE = m.SetMsrs(0, ((k.INT_SSP_TAB, A),))
GONE, IBT_LEFT, SHSTK_LEFT = (m.SetCpuid(0, cpuid) for cpuid in (NEITHER, IBT_ONLY, SHSTK_ONLY))
SAVES = m.Run(0), m.Xsaves(0, k.CET_U), m.Xsaves(0, k.CET_S)


def clearing(*components: int) -> type:
    """A design that clears these components when the vCPU gets less than it had."""

    def set_cpuid(self: Any, vcpu: int, *asked: Any) -> int:
        v = self.vcpus[vcpu]
        had = v.shstk, v.ibt
        result: int = Upstream.set_cpuid(self, vcpu, *asked)
        if (v.shstk, v.ibt) < had and not v.shstk and not v.ibt:
            for component in components:
                self.port.fpstate_clear(vcpu, component)
        return result

    return bent(Upstream, set_cpuid=set_cpuid)


@pytest.mark.parametrize(
    "design", [Upstream, Linux, Repaired, *map(clearing, (k.CET_U, k.CET_S)), clearing(k.CET_U, k.CET_S)]
)
@pytest.mark.parametrize(
    "trace",
    [
        (SET, GONE, m.GetMsrs(0, k.MSRS), *SAVES),
        (SET, IBT_LEFT, m.GetMsrs(0, k.MSRS), m.GetRegList(0, 8), *SAVES[:1], m.Rdmsr(0, k.U_CET)),
        (m.SetMsrs(0, SET.entries[1:]), SHSTK_LEFT, m.GetMsrs(0, k.MSRS), m.Run(0), m.Rdmsr(0, k.PL1_SSP)),
    ],
)
def test_a_design_may_keep_or_clear_what_has_gone(design: type, trace: tuple[Any, ...]) -> None:
    """Each component by itself; only XSAVES shows it, to a guest whose CPUID has the component without the feature."""
    assert run(design, *trace).failure is None


def test_what_has_gone_is_not_asked_to_come_back() -> None:
    """Nobody says whether it survives; a register that was zero may come, and what is had still may change."""
    context = Context(
        subsystem=replace(S, scopes={"bereft": S.scopes["bereft"]}),
        candidate=Candidate("clearing", clearing(k.CET_U, k.CET_S), "upstream", frozenset(S.capabilities)),
        profile="upstream",
    )

    explore.run(context)

    assert context.failures == []


def gives_anyway(self: Any, v: Any, msr: int, host: bool) -> tuple[int, int]:
    """Userspace reads what is stored."""
    if host and msr == k.INT_SSP_TAB and msr in self.advertised:
        return 0, self.fetch_msr(v, msr)
    return Upstream.get_msr(self, v, msr, host)


def starts_anew(self: Any, vcpu: int, *asked: Any) -> int:
    """Another CPUID is another vCPU."""
    v = self.vcpus[vcpu]
    if v.offered not in (None, asked):
        self.port.fpstate_clear(vcpu, k.CET_U)
    result: int = Upstream.set_cpuid(self, vcpu, *asked)
    return result


def grows_only(self: Any, v: Any) -> None:
    """Intercepts are dropped when a feature comes, and stay so."""
    for msr in (k.U_CET, k.S_CET, *k.POINTER_MSRS):
        if self.passes(v, msr):
            for access in (k.READ, k.WRITE):
                self.port.set_intercept(v.number, 1, msr, access, False)


def as_it_began(self: Any, vcpu: int, *asked: Any) -> int:
    """The features of the first CPUID stay; the values are judged by these."""
    v = self.vcpus[vcpu]
    shstk, ibt = v.shstk, v.ibt
    result: int = Upstream.set_cpuid(self, vcpu, *asked)
    v.shstk, v.ibt = v.shstk or shstk, v.ibt or ibt
    return result


@pytest.mark.parametrize(
    ("culprit", "trace", "clause"),
    [
        (bent(Upstream, get_msr=gives_anyway), (TABLE, IBT_LEFT, m.GetMsrs(0, (k.INT_SSP_TAB,))), "CET-020"),
        (bent(Upstream, set_cpuid=starts_anew), (SET, IBT_LEFT, m.GetMsrs(0, (k.U_CET,))), "CET-009"),
        (bent(Upstream, recalc_intercepts=grows_only), (SET, GONE, m.Run(0)), "CET-035"),
        (bent(Upstream, set_cpuid=as_it_began), (SET, IBT_LEFT, m.GetRegList(0, 8)), "CET-029"),
    ],
)
def test_what_has_gone_is_out_of_sight(culprit: type, trace: tuple[Any, ...], clause: str) -> None:
    """For userspace and for the guest; and what has not gone is there."""
    assert blamed(run(culprit, *trace)) == clause
