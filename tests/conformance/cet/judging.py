"""Traces of cet, judged: what its tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.lockstep import Report, run_trace
from conformance.model.cet import operations as m
from conformance.model.step import Step
from conformance.subsystem import subsystem
from conformance.trace import Trace

S = subsystem("cet")
A, B = 0x1000_0000_0000, 0x1000_0001_0000
ONE = m.Config()
TWO = m.Config(vcpus=(m.Cpuid(), m.Cpuid()))


def run(factory: Callable[[Any], Any], *ops: Any, config: m.Config = ONE, profile: str = "") -> Report:
    """Judge these operations."""
    steps = tuple(op if isinstance(op, Step) else Step(op) for op in ops)
    name = profile or getattr(factory, "profile", "upstream")
    return run_trace(S, Trace("cet", name, config, steps), factory, record=True)


def blamed(report: Report) -> str:
    """Id of the clause that ended the trace."""
    assert report.failure is not None
    return report.failure.clause.id


def window(op: Any, point: int, cpu: int = 0) -> Step:
    """The operation with a preemption of its own vCPU at point `point`."""
    return Step(op, during=((point, Step(m.Window(op.vcpu, cpu))),))
