"""What a design remembers of the time before: a module loaded anew, a VMRUN that failed, the entry before a restore."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.load import Candidate
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, CARRIED, EXCHANGED, SHSTK_ONLY, UNLIKE
from tests.conformance.cet.judging import ONE, A, B, S, blamed, run
from tests.conformance.cet.mutants import bent, then

SVM = m.Config(AMD, (SHSTK_ONLY,))
FIRST = m.Area(s_cet=1, ssp=A, table=A, cet=False)
REFUSED = m.Area(s_cet=1, ssp=B, table=B, wp=False, address=1)
OTHER = replace(EXCHANGED, host_s_cet=1)
MENDED = replace(REFUSED, wp=True, cet=False, clean=True)


def noted(self: Any, vcpu: int) -> None:
    """The vmcb12 of a VMRUN counts as the last, whatever came of it."""
    if self.port.host_cap("vendor"):
        self.vcpus[vcpu].last_vmcb12 = self.port.vmcb12_address(vcpu)


def once(name: str) -> type:
    """A driver that keeps what it sampled of its first host."""

    def sampled(self: Any) -> None:
        if hasattr(self, "first"):
            setattr(self, name, self.first)
        self.first = getattr(self, name)

    return then("vendor_init", sampled)


def captured(self: Any, v: Any, run_pending: bool) -> None:
    """A restore goes on with L1's values of the last entry."""
    if run_pending:
        v.before = [self.field_read(v, field) for field in (k.GUEST_S_CET, k.GUEST_SSP)]
    Upstream.enter_vmcs02(self, v, run_pending)
    if not run_pending and hasattr(v, "before"):
        for field, value in zip((k.GUEST_S_CET, k.GUEST_SSP), v.before, strict=True):
            self.field_write(v, field, value)


def by_hardware(self: Any, vcpu: int, *asked: Any) -> int:
    """XSS has the bits that the processor has, whatever KVM offers."""
    result: int = Upstream.set_cpuid(self, vcpu, *asked)
    self.vcpus[vcpu].supported_xss = asked[-1] & self.port.host_cap("xss")
    return result


def remembered(self: Any, v: Any, run_pending: bool) -> None:
    """The host area's S_CET is read at an entry alone."""
    v.restored = not run_pending
    if run_pending:
        v.host_s_cet = self.port.vmcs12_read(v.number, k.HOST_S_CET)
    Upstream.enter_vmcs02(self, v, run_pending)


def stale_area(self: Any, v: Any, values: list[int]) -> None:
    """After a restore L1 gets that of the vmcs12 entered before."""
    Upstream.load_host_area(self, v, values)
    if v.restored and hasattr(v, "host_s_cet"):
        self.field_write(v, k.GUEST_S_CET, v.host_s_cet)


def of_both(self: Any, v: Any, msr: int, value: int, host: bool) -> None:
    """Userspace's write of the table while L2 runs is L1's as well."""
    if self.svm and host and v.l2 and msr == k.INT_SSP_TAB:
        self.port.vmcb_write(v.number, 1, k.VMCB_ISST_ADDR, value)
        self.port.vmcb_mark_dirty(v.number, 1, k.VMCB_CET)


TOO_EARLY = then("nested_enter", noted, Linux)
XSS_OF_FIRST, S_CET_OF_FIRST, WIDTH_OF_FIRST = (once(name) for name in ("host_xss", "host_s_cet", "width"))
BEFORE = bent(Upstream, enter_vmcs02=captured)
RELOADED = m.Destroy(0), m.VendorInit(UNLIKE), m.Create(0)

XSS_LOADED = m.Wrmsr(0, k.XSS, 0x1000), m.ReadSsp(0)


@pytest.mark.parametrize(
    ("culprit", "scope", "config", "trace", "clause"),
    [
        (
            TOO_EARLY,
            "two-vmcb12s",
            SVM,
            (m.Run(0), *(m.NestedEnter(0, FIRST), m.NestedExit(0)), *(m.NestedEnter(0, x) for x in (REFUSED, MENDED)))
            + (m.ReadSsp(0),),
            "CET-101",
        ),
        (
            XSS_OF_FIRST,
            "reloaded",
            ONE,
            (*RELOADED, m.Run(0), m.Wrmsr(0, k.XSS, 0x1000), m.ReadSsp(0), m.Leave(0)),
            "CET-096",
        ),
        (
            bent(Upstream, set_cpuid=by_hardware),
            "presence-host-xss-alone",
            m.Config(m.Host(shstk=False, ibt=False)),
            (m.SetMsrs(0, ((k.XSS, 0x1800),)),),
            "CET-073",
        ),
        (
            bent(Upstream, enter_vmcs02=remembered, load_host_area=stale_area),
            "restored",
            ONE,
            (m.Run(0), m.NestedEnter(0, OTHER), m.NestedExit(0), m.Leave(0), m.SetNestedState(0, EXCHANGED))
            + (m.Run(0), m.NestedExit(0), m.Rdmsr(0, k.S_CET)),
            "CET-086",
        ),
        (
            then("set_msr", of_both),
            "userspace-in-l2-svm",
            SVM,
            (m.Run(0), m.NestedEnter(0, EXCHANGED), m.Leave(0), m.SetMsrs(0, ((k.INT_SSP_TAB, A),)), m.Run(0))
            + (m.NestedExit(0), m.Rdmsr(0, k.INT_SSP_TAB)),
            "CET-090",
        ),
        (S_CET_OF_FIRST, "reloaded", ONE, (*RELOADED, m.Run(0)), "CET-047"),
        (WIDTH_OF_FIRST, "reloaded", ONE, (*RELOADED, m.SetMsrs(0, ((k.PL0_SSP, 1 << 50),))), "CET-011"),
        (
            BEFORE,
            "userspace-in-l2",
            ONE,
            (m.SetSregs(0, True, False), m.Run(0), m.NestedEnter(0, EXCHANGED), m.NestedExit(0), m.Leave(0))
            + (m.SetNestedState(0, CARRIED), m.Run(0), m.Rdmsr(0, k.S_CET)),
            "CET-084",
        ),
    ],
)
def test_what_was_true_the_first_time_is_asked_again(
    culprit: type, scope: str, config: m.Config, trace: tuple[Any, ...], clause: str
) -> None:
    """By hand and by a small world; the right designs are left alone."""
    context = Context(
        subsystem=replace(S, scopes={scope: S.scopes[scope]}),
        candidate=Candidate("culprit", culprit, "upstream", frozenset(S.capabilities)),
        profile="upstream",
        stop_at_first=True,
    )

    explore.run(context)

    assert context.failures
    assert blamed(run(culprit, *trace, config=config)) == clause
    assert [run(design, *trace, config=config).failure for design in (Linux, Upstream)] == [None, None]
