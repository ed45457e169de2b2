"""One trace, step by step, where the candidate is: what it did is told as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from conformance.candidates.load import load
from conformance.engines.corpus import OUT_OF_RANGE, out_of_range
from conformance.lockstep import Lockstep
from conformance.reports import story
from conformance.reports.progress import Progress
from conformance.runs.checkpoint import Runner
from conformance.runs.containment import contained, may_die
from conformance.runs.describe import is_ours
from conformance.runs.watchdog import watching
from conformance.runs.workers import Died, Jobs, Tell
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace
from conformance.verdict import Failure, HarnessError, UsageError

EVERY = 64
"""Steps between two looks at whether to say how far it is."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A trace to take on a candidate."""

    spec: str
    trace: Trace


@dataclass(slots=True)
class Replayed:
    """What that showed."""

    steps: list[story.Told]
    failure: Failure | None = None
    """With its story."""
    warnings: list[Failure] = field(default_factory=list)


def replayed(spec: str, trace: Trace) -> Replayed:
    """Take a trace on a candidate: on a stranger in a process of its own, which may end as it likes.

    Raises:
        UsageError    the candidate cannot be loaded, or a value of the trace is out of its range
        HarnessError  its process ended, once only
    """
    with Progress(["replay"]) as progress:
        answer = _done(replay_job, Replay(spec, trace), progress.tell)
        if isinstance(answer, Died):
            raise HarnessError(answer.how)
        result: Replayed = answer
        return result


def _done(function: Callable[[Replay, Tell], Any], job: Replay, tell: Callable[[int, int, int, int], None]) -> Any:
    jobs = Jobs(function, [job], 1, tell, apart=not is_ours(job.spec))
    for _, answer in jobs.run():
        return answer
    raise KeyboardInterrupt


def replay_job(job: Replay, tell: Tell) -> Replayed | Died:
    """Take the steps of a trace, in any process; a candidate that may end it has one of its own."""
    if not may_die(job.spec):
        return _replay_job(job, tell)
    subsystem(job.trace.subsystem)  # loaded once, not in each process
    result: Replayed | Died = contained(partial(_replay_job, job), tell)
    return result


def _replay_job(job: Replay, tell: Tell) -> Replayed:
    of, trace = subsystem(job.trace.subsystem), job.trace
    candidate = load(job.spec, of)
    of = candidate.part(of)
    try:
        with watching():
            lockstep = _lockstep(of, trace, candidate.factory, tell)
            failure = lockstep.failure
            if failure is not None and Runner.now is not None and Runner.now.fates:
                again = _lockstep(of, trace, candidate.factory, tell).failure
                if again is None or again.signature != failure.signature:
                    how = failure.detail.splitlines()[0]
                    raise HarnessError(f"{how}, and did not end when the trace was taken once more")
    except OUT_OF_RANGE as error:
        raise UsageError(out_of_range(error)) from None
    steps = list(story.steps(lockstep.reports, of, trace))
    if failure is not None:
        failure = story.told(failure, lockstep.reports, of)
    return Replayed(steps, failure, lockstep.warnings)


def _lockstep(of: Subsystem, trace: Trace, factory: Callable[[Any], Any], tell: Tell) -> Lockstep:
    """Candidate and model once they have taken the steps that can happen, up to a failure."""
    lockstep = Lockstep(of, trace, factory, record=True)
    try:
        for number, step in enumerate(trace.steps):
            if lockstep.failure is not None:
                break
            if lockstep.legal(step.op):
                lockstep.step(step)
            if number % EVERY == 0:
                tell(lockstep.steps, len(lockstep.counts), 0)
    finally:
        lockstep.close()
    return lockstep
