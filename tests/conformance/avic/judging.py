"""What these tests share: one trace, judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.lockstep import Report, run_trace
from conformance.model.avic import Config
from conformance.model.step import Step
from conformance.subsystem import subsystem
from conformance.trace import Trace

AVIC = subsystem("avic")


def judged(candidate: Callable[[Any], Any], config: Config, *ops: Any, profile: str = "upstream") -> Report:
    """The report on a trace of these operations."""
    steps = tuple(op if isinstance(op, Step) else Step(op) for op in ops)
    return run_trace(AVIC, Trace("avic", profile, config, steps), candidate)


def cited(report: Report) -> str:
    """Id of the clause that failed, or nothing."""
    return report.failure.clause.id if report.failure else ""
