"""Traces of tdp_mirror under judgement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.load import load
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.model.step import Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror.domains import SMALL
from conformance.subsystem import subsystem
from conformance.trace import Trace
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
