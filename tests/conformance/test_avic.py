"""AVIC: the environment's hardware, the shipped candidates, and the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.avic import CANDIDATES
from conformance.candidates.builtin.avic.router import KvmLapic, Router
from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.defects.avic import DEFECTS
from conformance.candidates.defects.avic import drivers as d
from conformance.candidates.load import load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.subsystem import subsystem
from conformance.trace import Trace
from model.avic import Config
from model.avic import state as s
from model.step import Fault, Step
from specs.avic.registers import APIC_DFR, APIC_LDR, APIC_SPIV, CLUSTER, ENOMEM
from strategies.avic import RESET, RUNNING, SCOPES, THREE, X2

AVIC = subsystem("avic")


def judged(candidate: Callable[[Any], Any], config: Config, *ops: Any, profile: str = "upstream") -> Report:
    """The report on a trace of these operations."""
    steps = tuple(op if isinstance(op, Step) else Step(op) for op in ops)
    return run_trace(AVIC, Trace("avic", profile, config, steps), candidate)


def cited(report: Report) -> str:
    """Id of the clause that failed, or nothing."""
    return report.failure.clause.id if report.failure else ""


def test_start_that_fails_is_minimised() -> None:
    """A candidate that is wrong before the first step is reported with an empty trace."""
    candidate = load("builtin:UP-15", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="upstream", stop_at_first=True)

    explore.run(context)

    assert [f.clause.id for f in context.failures] == ["AVIC-008"]
    assert context.failures[0].trace is not None
    assert context.failures[0].trace.steps == ()


def test_campaign_opens_only_with_what_the_candidate_has() -> None:
    """A pure router is walked through messages alone, though walks usually open with a VM."""
    candidate = load("builtin:router", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="upstream", steps=600)

    campaign.run(context)

    assert context.failures == []
    assert context.tally.steps >= 600
