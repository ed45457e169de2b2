"""A hypervisor without shadow stacks, or with them on one vendor's hosts alone, is judged by what it offers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.load import Candidate
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, IBT_ONLY, SHSTK_ONLY
from tests.conformance.cet.judging import ONE, S, blamed, run
from tests.conformance.cet.mutants import bent, giving, then

SVM = m.Config(AMD, (SHSTK_ONLY,))
WITHOUT_TDP = m.Host(tdp=False)


class NoShstk(Upstream):
    """Tracks indirect branches, where it may."""

    def set_caps(self) -> None:
        """IBT alone."""
        super().set_caps()
        self.shstk = False
        self.settle_xss()


class Neither(NoShstk):
    """Knows nothing of CET."""

    def set_caps(self) -> None:
        """Nothing."""
        super().set_caps()
        self.ibt = False
        self.settle_xss()


class OneVendor(Upstream):
    """Has shadow stacks on AMD's hosts alone."""

    def set_caps(self) -> None:
        """All or IBT."""
        super().set_caps()
        self.shstk = self.shstk and self.svm
        self.settle_xss()


def answers(self: NoShstk) -> tuple[bool, bool, int]:
    """What userspace is told is not what guests get."""
    return False, self.ibt, self.xss


def only_plain(self: Upstream) -> None:
    """Shadow stacks where addresses have 48 bits."""
    Upstream.set_caps(self)
    self.shstk = self.shstk and not self.port.host_cap("la57")
    self.settle_xss()


def passes(self: NoShstk, *args: Any) -> int:
    """PL3_SSP passes whatever the vCPU has."""
    result = Upstream.set_cpuid(self, *args)
    for access in (k.READ, k.WRITE):
        self.port.set_intercept(args[0], 1, k.PL3_SSP, access, False)
    return result


SayOnly = bent(Upstream, kvm_caps=answers)
"""Says that it has no shadow stacks, and gives them to guests."""
WhateverSCet = then("vendor_init", lambda self: -k.EIO if self.port.host_cap("s_cet") else 0)
"""Refuses hosts with whatever S_CET."""
OnlyPlain = bent(Upstream, set_caps=only_plain)
"""Offers shadow stacks, but not where they are as good."""


@pytest.mark.parametrize("design", [NoShstk, Neither, OneVendor])
def test_a_hypervisor_without_shadow_stacks_is_not_accused(design: type) -> None:
    """In the worlds of the campaign, loaded anew on others."""
    candidate = Candidate(design.__name__, design, "upstream", frozenset(S.capabilities))
    context = Context(subsystem=S, candidate=candidate, profile="upstream", steps=4_000, seed=3)

    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []


@pytest.mark.parametrize(
    "trace",
    [
        (m.MsrIndexList(), m.NestedCapabilities(), m.SupportedXss()),
        (m.SetMsrs(0, ((k.S_CET, 1),)), m.GetMsrs(0, (k.PL0_SSP,)), m.SetSregs(0, True, True), m.Run(0)),
        (m.Destroy(0), m.VendorInit(AMD), m.MsrIndexList(), m.Create(0), m.SetOneReg(0, k.ONE_REG_GUEST_SSP, 8)),
        (m.Destroy(0), m.VendorInit(m.Host()), m.MsrIndexList(), m.NestedCapabilities(), m.Create(0), m.Run(0)),
        (m.Destroy(0), m.VendorInit(m.Host(s_cet=1)), m.HostTask(0)),
    ],
)
@pytest.mark.parametrize("config", [ONE, SVM, m.Config(vcpus=(IBT_ONLY,)), m.Config(WITHOUT_TDP, (IBT_ONLY,))])
@pytest.mark.parametrize("design", [NoShstk, Neither, OneVendor])
def test_what_it_offers_is_what_it_is_judged_by(trace: tuple[Any, ...], config: m.Config, design: type) -> None:
    """On hosts where designs differ and where they don't."""
    vendor = config.host.vendor
    ops = [m.VendorInit(replace(op.host, vendor=vendor)) if isinstance(op, m.VendorInit) else op for op in trace]

    assert run(design, *ops, config=config).failure is None


@pytest.mark.parametrize(
    ("culprit", "config", "trace", "clause"),
    [
        (SayOnly, ONE, (m.SetMsrs(0, ((k.S_CET, 1),)),), "CET-002"),
        (SayOnly, SVM, (m.SetSregs(0, True, True),), "CET-070"),
        (SayOnly, ONE, (m.Run(0),), "CET-035"),
        (SayOnly, ONE, (m.MsrIndexList(),), "CET-031"),
        (SayOnly, ONE, (m.GetRegList(0, 1),), "CET-029"),
        (SayOnly, SVM, (m.SupportedXss(),), "CET-061"),
        (bent(NoShstk, set_cpuid=passes), ONE, (m.Run(0),), "CET-035"),
        (bent(Neither, nested_load_cet=giving(True)), ONE, (m.NestedCapabilities(),), "CET-066"),
        (OnlyPlain, ONE, (m.Destroy(0), m.VendorInit(m.Host(la57=True))), "CET-061"),
        (OnlyPlain, ONE, (m.Destroy(0), m.VendorInit(m.Host(la57=True, s_cet=4))), "CET-061"),
        (WhateverSCet, m.Config(vcpus=()), (m.VendorInit(m.Host(s_cet=4)),), "CET-065"),
        (OneVendor, SVM, (m.Destroy(0), m.VendorInit(m.Host("amd", ibt=False, tdp=False)), m.HostTask(0)), None),
        (bent(OnlyPlain, vendor_init=giving(0)), m.Config(m.Host(s_cet=1)), (m.HostTask(0),), "CET-065"),
    ],
)
def test_what_it_says_it_lacks_it_lacks(culprit: type, config: m.Config, trace: Any, clause: str | None) -> None:
    """Bits, CR4, intercepts and lists follow the answer; what was offered once is offered wherever that vendor may."""
    report = run(culprit, *trace, config=config)

    assert (report.failure and blamed(report)) == clause
