"""What checking costs: the same walks judged, and driven without a model or a check.

Prints, per subsystem, the steps per second of the campaign, of the same steps replayed under
judgement, and of candidate and environment alone; the last column is the ratio that must stay
at or below two. Seconds are the processor's. All figures come from one run, so they may be compared with one another.
"""

from __future__ import annotations

import sys
import time
from random import Random

from conformance.candidates.load import load
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.engines.garbage import collected_seldom
from conformance.environment.door import Frame
from conformance.lockstep import Lockstep
from conformance.model.step import Parallel
from conformance.subsystem import Subsystem, available, subsystem
from conformance.trace import Trace

STEPS = 30_000
"""Steps of the campaign that is measured."""
ROUNDS = 9
"""Rounds of either kind, in turn; the quickest counts."""


def walks(of: Subsystem) -> tuple[Context, list[Trace], float]:
    """Traces of a campaign over the correct candidate, and its steps per second."""
    candidate = load("builtin:upstream", of)
    context = Context(subsystem=of, candidate=candidate, profile=candidate.profile, steps=STEPS)
    started = time.process_time()
    campaign.run(context)
    speed = context.tally.steps / (time.process_time() - started)
    walker = campaign.Walker(context, Random("benchmark"))
    walker.sample_pools()
    return context, [walker.walk() for _ in range(60)], speed


def plain(trace: Trace) -> Trace:
    """The trace without steps that have company: those are the scheduler's, not the judge's."""
    return trace.with_steps(tuple(s for s in trace.steps if not s.during and type(s.op) is not Parallel))


def judged(context: Context, traces: list[Trace]) -> tuple[int, float]:
    """Take the steps under judgement; steps taken and seconds."""
    steps = 0
    started = time.process_time()
    for trace in traces:
        lockstep = Lockstep(context.subsystem, trace, context.candidate.factory, environment=context.fast)
        for step in trace.steps:
            if lockstep.legal(step.op):
                lockstep.step(step)
        steps += lockstep.steps
        lockstep.close()
    return steps, time.process_time() - started


def legal_parts(context: Context, traces: list[Trace]) -> list[Trace]:
    """The traces without steps that are not legal where they stand."""
    kept = []
    for trace in traces:
        lockstep = Lockstep(context.subsystem, trace, context.candidate.factory, environment=context.fast)
        for step in trace.steps:
            if lockstep.legal(step.op):
                lockstep.step(step)
        kept.append(trace.with_steps(tuple(lockstep.history)))
        lockstep.close()
    return kept


def driven(context: Context, traces: list[Trace]) -> tuple[int, float]:
    """The same steps on candidate and environment alone."""
    of = context.subsystem
    steps = 0
    started = time.process_time()
    for trace in traces:
        env = context.fast(trace.config, of.profiles[trace.profile])
        env.start(context.candidate.factory)
        for step in trace.steps:
            env.frame = Frame(step.faults)
            env.perform(step.op)
        steps += len(trace.steps)
        env.close()
    return steps, time.process_time() - started


def main() -> None:
    """Measure the subsystems named on the command line, or all of them."""
    print(f"{'subsystem':<20}{'campaign/s':>12}{'judged/s':>12}{'driven/s':>12}{'ratio':>8}")
    for name in sys.argv[1:] or available():
        context, recorded, speed = walks(subsystem(name))
        traces = legal_parts(context, [plain(trace) for trace in recorded])
        with collected_seldom():  # as engines have it
            rounds = [(judged(context, traces)[1], driven(context, traces)[1]) for _ in range(ROUNDS)]
        best_judged, best_driven = (min(column) for column in zip(*rounds, strict=True))
        steps = sum(len(trace.steps) for trace in traces)
        print(
            f"{name:<20}{speed:>12,.0f}{steps / best_judged:>12,.0f}{steps / best_driven:>12,.0f}"
            f"{best_judged / best_driven:>8.2f}"
        )


if __name__ == "__main__":
    main()
