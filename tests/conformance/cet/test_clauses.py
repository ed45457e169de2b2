"""Every clause can fail: for each a wrong hypervisor, and a trace in which it is cited."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.defects.cet import repaired as hand
from conformance.candidates.defects.cet import upstream as wrong
from conformance.lockstep import Report
from conformance.model.cet import operations as m
from conformance.model.step import Fault, Step
from conformance.specs.cet import CLAUSES
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, IBT_ONLY, NEITHER, SHSTK_ONLY, WITHOUT_CET
from tests.conformance.cet import mutants as bad
from tests.conformance.cet.judging import ONE, TWO, A, B, run, window
from tests.conformance.cet.mutants import bent, first, giving, then

IBT, SHSTK, NONE = (m.Config(vcpus=(cpuid,)) for cpuid in (IBT_ONLY, SHSTK_ONLY, NEITHER))
NO_LM = m.Config(vcpus=(m.Cpuid(lm=False),))
NO_XSAVES = m.Config(vcpus=(m.Cpuid(xsaves=False, xss=0),))
IGNORING = m.Config(vcpus=(NEITHER,), ignore_msrs=True)
SVM = m.Config(AMD, (SHSTK_ONLY,))
NO_CET = m.Config(WITHOUT_CET, (m.Cpuid(),))
BUSY = m.Config(m.Host(own_xss=0x800))
EMPTY = m.Config(vcpus=())

RUN, LEAVE, EXIT = m.Run(0), m.Leave(0), m.Exit(0)
PL0, SSP = k.ONE_REG_MSR | k.PL0_SSP, k.ONE_REG_GUEST_SSP
NO_COPY = (Fault("copy_from_user", -k.EFAULT),)


def guest(msr: int, value: int) -> m.Wrmsr:
    """A write that the hypervisor judges."""
    return m.Wrmsr(0, msr, value, emulated=True)


def host(msr: int, value: int) -> m.SetMsrs:
    """A write by userspace."""
    return m.SetMsrs(0, ((msr, value),))


def seen(msr: int) -> m.Rdmsr:
    """A read that the hypervisor answers."""
    return m.Rdmsr(0, msr, emulated=True)


AnyControl = bent(Upstream, valid_cet=giving(True))
NoControl = bent(Upstream, valid_cet=giving(False))
AnyArea = bent(Upstream, check_vmcs12=giving(0))
SeesEight = bent(Upstream, fetch_msr=giving(8))
NoFilter = bent(Upstream, set_msr_filter=giving(None))
TWICE = (RUN, m.Wrmsr(0, k.PL0_SSP, A), m.Wrmsr(0, k.PL0_SSP, B))
CUP = (RUN, m.MovCr0(0, True), m.MovCr4(0, True))

Row = tuple[type, tuple[Any, ...], m.Config]

TABLE: dict[str, Row] = {
    "CET-001": (AnyControl, (host(k.S_CET, 0x40),), ONE),
    "CET-002": (AnyControl, (host(k.S_CET, 1),), IBT),
    "CET-003": (AnyControl, (host(k.S_CET, 4),), SHSTK),
    "CET-004": (AnyControl, (host(k.S_CET, 0xC00),), ONE),
    "CET-005": (AnyControl, (host(k.S_CET, 0x1000),), ONE),
    "CET-006": (wrong.UncheckedBase, (host(k.S_CET, 0x8000_0000_4004),), ONE),
    "CET-007": (bad.ReadsAnything, (RUN, m.Rdmsr(0, k.S_CET)), NONE),
    "CET-008": (NoControl, (RUN, guest(k.S_CET, 1)), ONE),
    "CET-009": (SeesEight, (RUN, seen(k.PL0_SSP)), ONE),
    "CET-010": (bad.AnyPointer, (m.SetOneReg(0, SSP, 1),), ONE),
    "CET-011": (bad.AnyPointer, (m.SetOneReg(0, SSP, 1 << 47),), ONE),
    "CET-012": (bad.AlignedTable, (host(k.INT_SSP_TAB, A | 1),), ONE),
    "CET-013": (bad.ReadsAnything, (RUN, m.Rdmsr(0, k.PL0_SSP)), IBT),
    "CET-014": (wrong.TableReadWithoutLm, (RUN, m.Rdmsr(0, k.INT_SSP_TAB)), NO_LM),
    "CET-016": (bad.IgnoresZero, (RUN, guest(k.S_CET, 1), guest(k.S_CET, 0), seen(k.S_CET)), ONE),
    "CET-017": (bad.WritesTwo, (RUN, guest(k.PL0_SSP, A), seen(k.PL1_SSP)), ONE),
    "CET-018": (bad.EnabledFirst, (RUN, guest(k.PL0_SSP, A)), ONE),
    "CET-019": (bad.AnyPointer, (m.SetOneReg(0, SSP, 1 << 47 | 1),), ONE),
    "CET-020": (bad.ZeroRefused, (host(k.PL0_SSP, 0),), NONE),
    "CET-021": (wrong.SspForAnyVcpu, (m.GetMsrs(0, (k.INTERNAL_GUEST_SSP,)),), IBT),
    "CET-022": (bad.GoesOn, (m.SetMsrs(0, ((k.PL0_SSP, 8), (k.PL1_SSP, 1), (k.PL2_SSP, 8))),), ONE),
    "CET-023": (bad.NoLimit, (m.SetMsrs(0, ((k.PL0_SSP, 8),) * 256),), ONE),
    "CET-024": (bad.HostWriteLost, (host(k.PL0_SSP, A), RUN, m.Rdmsr(0, k.PL0_SSP)), ONE),
    "CET-025": (bad.HostReadsZero, (RUN, m.Wrmsr(0, k.PL0_SSP, A), LEAVE, m.GetMsrs(0, (k.PL0_SSP,))), ONE),
    "CET-026": (bent(Upstream, set_one_reg=giving(-k.EINVAL)), (m.SetOneReg(0, PL0, A),), ONE),
    "CET-027": (wrong.ValueBeforeId, (Step(m.SetOneReg(0, SSP | 1, A), NO_COPY),), ONE),
    "CET-028": (bent(Upstream, get_one_reg=giving((0, 0))), (m.SetOneReg(0, SSP, A), m.GetOneReg(0, SSP)), ONE),
    "CET-029": (bent(Upstream, get_reg_list=giving((0, 0, ()))), (m.GetRegList(0, 1),), ONE),
    "CET-030": (wrong.InternalMsrInSmm, (*CUP, m.Smi(0), m.Rdmsr(0, k.INTERNAL_GUEST_SSP)), ONE),
    "CET-031": (wrong.XssNotAdvertised, (m.MsrIndexList(),), ONE),
    "CET-032": (wrong.XssNotAdvertised, (host(k.XSS, 0x1800), m.Migrate(0), RUN, m.Rdmsr(0, k.XSS)), ONE),
    "CET-033": (bent(Upstream, get_xsave=giving((2, 12))), (m.GetXsave(0),), ONE),
    "CET-034": (then("vendor_init", lambda s: setattr(s, "ignore_msrs", False)), (RUN, m.Rdmsr(0, 0x6A9)), IGNORING),
    "CET-035": (wrong.Pl3ForIbt, (RUN,), IBT),
    "CET-036": (wrong.PointersIntercepted, (RUN,), ONE),
    "CET-037": (
        bent(Upstream, passes=lambda s, v, msr: msr in k.POINTER_MSRS and Upstream.passes(s, v, msr)),
        (RUN,),
        ONE,
    ),
    "CET-038": (
        then("recalc_intercepts", lambda s, v: s.port.set_intercept(v.number, 1, k.INT_SSP_TAB, 3, False)),
        (RUN,),
        ONE,
    ),
    "CET-039": (bad.NeverLoads, (host(k.XSS, 0x1000), host(k.PL0_SSP, A), RUN, m.Xsaves(0, 12)), ONE),
    "CET-040": (
        bent(hand.XrstorsBypass, profile="v5"),  # type: ignore[arg-type]  # an attribute, not a method
        (RUN, m.Wrmsr(0, k.XSS, 0x1000), m.Xrstors(0, 12, (A, A, A)), LEAVE, RUN, m.Rdmsr(0, k.PL1_SSP)),
        ONE,
    ),
    "CET-041": (NoFilter, (m.SetFilter(0, (k.PL0_SSP,)), RUN), ONE),
    "CET-042": (
        hand.ReadsArray,
        (RUN, m.Wrmsr(0, k.PL0_SSP, A), m.Wrmsr(0, k.PL0_SSP, B), seen(k.PL0_SSP)),
        ONE,
    ),
    "CET-043": (bad.LosesAtSwitch, (*TWICE, m.Preempt(0), m.Rdmsr(0, k.PL0_SSP)), ONE),
    "CET-044": (hand.ExitWindowSave, (RUN, m.Wrmsr(0, k.PL0_SSP, A), window(LEAVE, 5), RUN, seen(k.PL0_SSP)), ONE),
    "CET-045": (hand.ReloadOutsideRun, (host(k.PL0_SSP, A), window(m.GetMsrs(0, (k.S_CET,)), 0)), ONE),
    "CET-046": (hand.StaleReads, (m.Run(1), m.Wrmsr(1, k.PL0_SSP, B), RUN), TWO),
    "CET-047": (
        then("set_constant_fields", lambda s, v: s.port.vmcs_write(v.number, k.VM_EXIT_CONTROLS, 0)),
        (RUN, m.Wrmsr(0, k.S_CET, 1)),
        ONE,
    ),
    "CET-048": (first("vcpu_put", lambda s, v: s.port.wrmsr(k.PL3_SSP, A), Repaired), (RUN, LEAVE), ONE),
    "CET-049": (bad.NeverClears, (RUN, m.Wrmsr(0, k.PL0_SSP, A), LEAVE), ONE),
    "CET-050": (bad.LosesOnTheWay, (RUN, m.Wrmsr(0, k.PL0_SSP, A), m.Preempt(0, 1), m.Rdmsr(0, k.PL0_SSP)), ONE),
    "CET-051": (
        bad.TornSave,
        (RUN, m.Wrmsr(0, k.PL0_SSP, A), window(guest(k.PL1_SSP, B), 8), m.Rdmsr(0, k.PL0_SSP)),
        ONE,
    ),
    "CET-052": (
        bad.NeverReloads,
        (RUN, m.Wrmsr(0, k.PL1_SSP, 16), m.Wrmsr(0, k.PL1_SSP, 8), m.Run(1), m.Wrmsr(1, k.PL1_SSP, 16))
        + (m.Rdmsr(0, k.PL1_SSP),),
        TWO,
    ),
    "CET-053": (wrong.OneRegWithoutFpu, (m.GetOneReg(0, PL0),), ONE),
    "CET-054": (bent(Upstream, run_end=giving(None)), (RUN, LEAVE), ONE),
    "CET-055": (bent(Upstream, is_xstate_msr=lambda s, v, msr: True), (m.GetMsrs(0, (k.S_CET,)),), ONE),
    "CET-056": (wrong.SCetThroughXstate, (host(k.S_CET, 1),), ONE),
    "CET-057": (hand.SwapEveryExit, (RUN, m.Wrmsr(0, k.PL0_SSP, A), EXIT), ONE),
    "CET-058": (bad.LosesAtSwitch, (*TWICE, m.Halt(0), m.Rdmsr(0, k.PL0_SSP)), ONE),
    "CET-059": (bent(Upstream, vcpu_destroy=giving(None)), (m.Destroy(0),), ONE),
    "CET-060": (wrong.CetKernelForced, (m.VendorInit(m.Host(xss=0)), m.SupportedXss()), EMPTY),
    "CET-061": (wrong.AnyCetBitWillDo, (m.VendorInit(m.Host(xss=0x800)),), EMPTY),
    "CET-062": (bent(Upstream, vendor_can=giving(True)), (m.VendorInit(m.Host(unrestricted=False)),), EMPTY),
    "CET-063": (wrong.ShadowPagingForgotten, (m.VendorInit(m.Host(tdp=False)),), EMPTY),
    "CET-064": (
        then("set_caps", lambda s: setattr(s, "ibt", s.port.host_cap("ibt") == 1)),
        (m.VendorInit(m.Host(vendor="amd")),),
        m.Config(m.Host(vendor="amd", ibt=False), ()),
    ),
    "CET-065": (then("vendor_init", lambda s: 0), (m.VendorInit(m.Host(s_cet=1)),), EMPTY),
    "CET-066": (
        wrong.NestedCapsFirst,
        (m.VendorInit(m.Host(unrestricted=False)), m.NestedCapabilities()),
        EMPTY,
    ),
    "CET-067": (bent(Upstream, emulate=giving(0)), (*CUP, m.Wrmsr(0, k.S_CET, 1), m.Emulate(0, "ret")), ONE),
    "CET-068": (bent(Upstream, set_cr4=giving(0)), (RUN, m.MovCr4(0, True)), ONE),
    "CET-069": (bent(Upstream, set_cr0=giving(0)), (m.SetSregs(0, True, True), RUN, m.MovCr0(0, False)), ONE),
    "CET-070": (bent(Upstream, bad_cet_cr4=giving(False)), (m.SetSregs(0, True, True),), NONE),
    "CET-071": (
        wrong.ToggleClears,
        (RUN, m.MovCr0(0, True), m.WriteSsp(0, A), m.MovCr4(0, True), m.ReadSsp(0)),
        ONE,
    ),
    "CET-072": (bent(Upstream, set_sregs=giving(1)), (m.SetSregs(0, False, True),), ONE),
    "CET-073": (bent(Upstream, set_xss=giving(0)), (RUN, m.Wrmsr(0, k.XSS, 1 << 8)), ONE),
    "CET-074": (bad.ReadsAnything, (RUN, m.Rdmsr(0, k.XSS)), NO_XSAVES),
    "CET-075": (first("enter_guest", lambda s, v: s.port.wrmsr(k.XSS, 1 << 8)), (RUN,), ONE),
    "CET-076": (
        bent(Upstream, reset_xstate=giving(None)),
        (RUN, m.Wrmsr(0, k.PL0_SSP, A), m.Init(0), m.Rdmsr(0, k.PL0_SSP)),
        ONE,
    ),
    "CET-077": (
        bent(Upstream, reset_xstate=lambda s, v: s.port.fpstate_clear(v.number, k.CET_U)),
        (RUN, m.Init(0)),
        ONE,
    ),
    "CET-078": (first("reset_xstate", lambda s, v: s.port.fpstate_clear(v.number, 2)), (m.Reset(0),), ONE),
    "CET-079": (wrong.RsmIgnoresFailure, (RUN, m.Smi(0), m.Rsm(0, 1)), ONE),
    "CET-080": (bent(Upstream, smi=giving(None)), (m.SetSregs(0, True, True), RUN, m.Smi(0)), ONE),
    "CET-081": (AnyArea, (RUN, m.NestedEnter(0, m.Area(wp=False))), ONE),
    "CET-082": (AnyArea, (RUN, m.NestedEnter(0, m.Area(host_ssp=2))), ONE),
    "CET-083": (AnyArea, (RUN, m.NestedEnter(0, m.Area(ssp=2))), ONE),
    "CET-084": (
        bent(Upstream, has_field=giving(False)),
        (RUN, m.NestedEnter(0, m.Area(s_cet=1)), m.Rdmsr(0, k.S_CET)),
        ONE,
    ),
    "CET-085": (
        then("nested_exit", lambda s, n: s.port.vmcs12_write(n, k.GUEST_SSP, 0)),
        (RUN, m.NestedEnter(0), m.WriteSsp(0, A), m.NestedExit(0)),
        ONE,
    ),
    "CET-086": (
        then("load_host_area", lambda s, v, values: s.field_write(v, k.GUEST_SSP, 0)),
        (RUN, m.NestedEnter(0, m.Area(host_ssp=A)), m.NestedExit(0), m.ReadSsp(0)),
        ONE,
    ),
    "CET-087": (
        then("nested_enter", lambda s, n: s.xstate_write(s.vcpus[n], k.PL0_SSP, 8)),
        (RUN, m.NestedEnter(0), m.Rdmsr(0, k.PL0_SSP)),
        ONE,
    ),
    "CET-088": (
        then("recalc_intercepts", lambda s, v: s.port.set_intercept(v.number, 2, k.PL0_SSP, 3, False)),
        (RUN, m.NestedEnter(0, m.Area(intercepts=(k.PL0_SSP,)))),
        ONE,
    ),
    "CET-089": (wrong.Vmcs12FieldsAlways, (RUN, m.Vmread(0, k.HOST_SSP)), NO_CET),
    "CET-090": (
        then("nested_enter", lambda s, n: s.field_write(s.vcpus[n], k.GUEST_SSP, 0)),
        (RUN, m.NestedEnter(0, m.Area(ssp=A)), m.ReadSsp(0)),
        SVM,
    ),
    "CET-091": (wrong.UncheckedVmcb12, (RUN, m.NestedEnter(0, m.Area(s_cet=0x40))), SVM),
    "CET-092": (wrong.WrongVmcbDirty, (RUN, m.NestedEnter(0), m.Wrmsr(0, k.INT_SSP_TAB, A), EXIT), SVM),
    "CET-093": (bent(Upstream, guest_rdmsr=giving(None)), (RUN, m.Rdmsr(0, k.XSS)), ONE),
    "CET-094": (wrong.FailedEntryIgnored, (RUN, m.NestedEnter(0, m.Area(ssp=2, host_ssp=A)), m.ReadSsp(0)), ONE),
    "CET-095": (
        wrong.RefusedEntryClears,
        (RUN, m.Wrmsr(0, k.S_CET, 1), m.NestedEnter(0, m.Area(s_cet=0x40)), m.Rdmsr(0, k.S_CET)),
        SVM,
    ),
    "CET-096": (wrong.XssLeftBehind, (RUN, LEAVE), BUSY),
    "CET-097": (wrong.HostFieldsOfL1, (RUN, m.NestedEnter(0, m.Area(host_table=A))), ONE),
    "CET-098": (
        wrong.VmcbTrustedElsewhere,
        (RUN, m.Preempt(0, 1), m.Wrmsr(0, k.S_CET, 1), m.Preempt(0), EXIT),
        SVM,
    ),
    "CET-099": (wrong.InitKeepsCr4, (m.SetSregs(0, True, True), RUN, m.Init(0)), ONE),
    "CET-100": (wrong.ResetStaysInL2, (RUN, m.NestedEnter(0), LEAVE, m.Reset(0), RUN), SVM),
    "CET-101": (
        wrong.CleanVmcb12OfNobody,
        (RUN, m.NestedEnter(0, m.Area(s_cet=1)), m.NestedExit(0), LEAVE, m.Migrate(0), RUN)
        + (m.NestedEnter(0, m.Area(s_cet=1, clean=True)), m.Rdmsr(0, k.S_CET)),
        SVM,
    ),
}
"""By clause: who breaks it, the operations that show it, and the world."""


def cited(report: Report) -> list[str]:
    """Ids of the clause that ended the trace, or of the SHOULD clauses that it went on from."""
    return [report.failure.clause.id] if report.failure else [warning.clause.id for warning in report.warnings]


def base_of(culprit: type) -> type:
    """The right candidate that a wrong one was made from."""
    return next(kind for kind in culprit.__mro__ if kind in (Upstream, Repaired, bad.LazySwap))


def test_the_table_has_no_gaps() -> None:
    """A clause that no candidate can break through this port says why it is not testable."""
    testable = [clause.id for clause in CLAUSES if not clause.untestable]

    assert list(TABLE) == testable


@pytest.mark.parametrize("clause", TABLE)
def test_a_clause_can_fail(clause: str) -> None:
    """It is cited for who breaks it; who does not passes the same trace."""
    culprit, ops, config = TABLE[clause]

    assert clause in cited(run(culprit, *ops, config=config))

    right = base_of(culprit)
    profile = getattr(culprit, "profile", "upstream") if right is Repaired else ""
    assert cited(run(right, *ops, config=config, profile=profile)) == []
