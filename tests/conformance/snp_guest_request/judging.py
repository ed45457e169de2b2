"""Short runs of a candidate, and what they blame."""

from __future__ import annotations

from typing import Any

from conformance.environment import snp_guest_request as environment
from conformance.environment.snp_guest_request.crypto import REAL, STAND_IN
from conformance.lockstep import Report, run_trace
from conformance.model.snp_guest_request.operations import Config
from conformance.model.step import Step
from conformance.subsystem import subsystem
from conformance.trace import Trace

S = subsystem("snp_guest_request")
SUITES = [REAL, STAND_IN]
DATA = bytes(range(64))


def steps(*ops: Any) -> tuple[Step, ...]:
    """Plain steps."""
    return tuple(op if isinstance(op, Step) else Step(op) for op in ops)


def run(factory: Any, *ops: Any, fast: bool = True, **config: Any) -> Report:
    """Judge these operations."""
    trace = Trace(S.name, factory.profile, Config(**config), steps(*ops))
    return run_trace(S, trace, factory, environment=environment.FAST if fast else None, record=True)


def blamed(report: Report) -> str:
    """Id of the clause that ended the trace."""
    assert report.failure is not None
    return report.failure.clause.id
