"""Arguments by solving: what random values never are, because a branch waits for one number out of 2**64.

Short skeletons of operations run with symbolic arguments; where a comparison of candidate or model went one way,
z3 finds values for the other. What is found are traces, and the lockstep judges them like any others.
"""

from __future__ import annotations

from conformance.engines.context import Context
from conformance.engines.corpus import OUT_OF_RANGE
from conformance.engines.minimise import minimiser
from conformance.lockstep import run_trace
from conformance.symbolic.proposing import proposals


def run(context: Context) -> None:
    """Judge what the search proposes, until it ends or the time is up."""
    minimise = minimiser(context)
    for trace in proposals(context):
        if context.expired():
            return
        try:
            report = run_trace(context.subsystem, trace, context.candidate.factory, environment=context.fast)
        except OUT_OF_RANGE:
            continue  # what follows what was solved for is drawn, and may mean nothing there
        context.tally.add(report.tally)
        if report.warnings:
            context.note_warnings(report.warnings, minimise)
        if report.failure is not None:
            context.note_failure(report.failure, minimise)
