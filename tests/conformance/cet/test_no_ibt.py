"""A hypervisor that virtualizes shadow stacks alone is judged for these; what it says it lacks it must lack."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.load import Candidate
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, IBT_ONLY, SHSTK_ONLY
from tests.conformance.cet.judging import ONE, A, S, blamed, run
from tests.conformance.cet.mutants import bent, giving

ALONE = m.Config(vcpus=(IBT_ONLY,))
WITHOUT_TDP = m.Host(tdp=False)


class NoIbt(Upstream):
    """Knows nothing of IBT."""

    def set_caps(self) -> None:
        """SHSTK alone."""
        super().set_caps()
        self.ibt = False
        self.settle_xss()


def answers(self: NoIbt) -> tuple[bool, bool, int]:
    """What userspace is told is not what guests get."""
    return self.shstk, False, self.xss


def keeps_xss(self: NoIbt) -> None:
    """The features are gone, their bits of XSS are not."""
    Upstream.set_caps(self)
    self.ibt = False


def both_or_none(self: Upstream) -> None:
    """No IBT without shadow stacks."""
    Upstream.set_caps(self)
    self.ibt = self.ibt and self.shstk
    self.settle_xss()


def passes(self: NoIbt, *args: Any) -> int:
    """U_CET passes whatever the vCPU has."""
    result = Upstream.set_cpuid(self, *args)
    for access in (k.READ, k.WRITE):
        self.port.set_intercept(args[0], 1, k.U_CET, access, False)
    return result


SayOnly = bent(Upstream, kvm_caps=answers)
"""Says that it has no IBT, and gives it to guests."""
OnlyWithShstk = bent(Upstream, set_caps=both_or_none)
"""Offers IBT, but not where shadow stacks can't be."""


def test_a_hypervisor_without_ibt_is_not_accused() -> None:
    """In the worlds of the campaign, loaded anew on others."""
    candidate = Candidate("NoIbt", NoIbt, "upstream", frozenset(S.capabilities))
    context = Context(subsystem=S, candidate=candidate, profile="upstream", steps=8_000, seed=3)

    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []


@pytest.mark.parametrize(
    "trace",
    [
        (m.MsrIndexList(), m.NestedCapabilities(), m.SupportedXss()),
        (m.SetMsrs(0, ((k.U_CET, 4),)), m.SetMsrs(0, ((k.U_CET, 1),)), m.SetSregs(0, True, True), m.Run(0)),
        (m.Destroy(0), m.VendorInit(WITHOUT_TDP), m.MsrIndexList(), m.NestedCapabilities(), m.SupportedXss()),
        (m.Destroy(0), m.VendorInit(m.Host(own_xss=0x800)), m.Create(0), m.SetOneReg(0, k.ONE_REG_MSR | k.S_CET, 4)),
    ],
)
@pytest.mark.parametrize("config", [ONE, ALONE, m.Config(AMD, (SHSTK_ONLY,)), m.Config(WITHOUT_TDP, (IBT_ONLY,))])
def test_what_it_offers_is_what_it_is_judged_by(trace: tuple[Any, ...], config: m.Config) -> None:
    """The kernel's design in both forms, on hosts where they differ and where they don't."""
    assert [run(design, *trace, config=config).failure for design in (NoIbt, Upstream, Linux)] == [None] * 3


@pytest.mark.parametrize(
    ("culprit", "config", "trace", "clause"),
    [
        (SayOnly, ONE, (m.SetMsrs(0, ((k.S_CET, 4),)),), "CET-003"),
        (SayOnly, ALONE, (m.SetSregs(0, True, True),), "CET-070"),
        (SayOnly, ALONE, (m.Run(0),), "CET-037"),
        (SayOnly, ALONE, (m.GetMsrs(0, (k.U_CET,)),), "CET-055"),
        (SayOnly, m.Config(WITHOUT_TDP), (m.MsrIndexList(),), "CET-031"),
        (bent(NoIbt, set_cpuid=passes), ALONE, (m.Run(0),), "CET-037"),
        (bent(NoIbt, nested_load_cet=giving(True)), m.Config(WITHOUT_TDP), (m.NestedCapabilities(),), "CET-066"),
        (bent(NoIbt, set_caps=keeps_xss), m.Config(WITHOUT_TDP, (IBT_ONLY,)), (m.SupportedXss(),), "CET-061"),
        (bent(NoIbt, nested_load_cet=giving(False)), ONE, (m.NestedCapabilities(),), "CET-066"),
        (OnlyWithShstk, ONE, (m.Destroy(0), m.VendorInit(WITHOUT_TDP)), "CET-063"),
        (bent(NoIbt, vendor_init=giving(0)), m.Config(m.Host(s_cet=1)), (m.HostTask(0),), "CET-065"),
    ],
)
def test_what_it_says_it_lacks_it_lacks(culprit: type, config: m.Config, trace: tuple[Any, ...], clause: str) -> None:
    """Bits, CR4, intercepts and lists follow the answer; who offered IBT once does wherever it may be."""
    assert blamed(run(culprit, *trace, config=config)) == clause


def test_shadow_stacks_are_judged_all_the_same() -> None:
    """A guest with SHSTK of a hypervisor without IBT."""
    deaf = bent(NoIbt, xstate_write=lambda *_: None)

    assert blamed(run(deaf, m.SetMsrs(0, ((k.PL0_SSP, A),)), m.Run(0), m.Rdmsr(0, k.PL0_SSP))) == "CET-024"
