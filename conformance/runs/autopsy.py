"""What a candidate was doing when it ended its own process: `os._exit`, a crash in C code, a signal.

Whoever dies tells nothing. So the work is done once more by a process forked for it, which writes down each step
before it takes it, in memory that outlives it. That the process ends on this trace, and on smaller ones, is then
found out in the same way, and reported as any other crash.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from conformance.candidates.load import load
from conformance.company import Done
from conformance.engines.context import Context
from conformance.engines.minimise import minimise
from conformance.environment.door import Environment, Frame
from conformance.lockstep import Lockstep, Report, operation_name, run_trace, started
from conformance.model.step import Parallel, Step
from conformance.recording import StepReport
from conformance.reports import story, values
from conformance.runs.describe import Described
from conformance.runs.request import Unit
from conformance.runs.result import Result, failure_to_data
from conformance.runs.unit import run_unit, without_findings
from conformance.runs.watchdog import watching
from conformance.runs.workers import Died, Jobs, Tell, ended
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace
from conformance.verdict import Failure

SIZE = 1 << 28
"""Bytes of a journal at most; those that are not written take no room."""
PATIENCE = 30.0
"""Seconds that one trace may take."""
POINTS = 24
"""Points of preemption at which two threads are switched in search of an end that was met in company."""


def post_mortem(unit: Unit, candidate: Described, how: str, tell: Callable[[int, int, int, int], None]) -> Result:
    """The result of a unit whose process has ended: the trace that ends it, or the sentence that nobody can tell."""
    jobs = Jobs(autopsy_job, [unit], 1, tell, apart=True)
    for _, answer in jobs.run():
        if not isinstance(answer, Died):
            result: Result = answer
            return result
    return without_findings(unit, candidate, f"{unit.name}: {how}")


def autopsy_job(unit: Unit, tell: Tell) -> Result:
    """Do a unit once more, and find out on which trace its process ends."""
    of = subsystem(unit.subsystem)
    candidate = load(unit.spec, of)
    of = candidate.part(of)
    journal = Journal()
    found: list[Any] = []

    def again(say: Callable[[Any], None]) -> Result:
        told = 0

        def progress(context: Context) -> None:
            nonlocal told
            tell(context.tally.steps, len(context.tally.clauses), len(context.failures))
            while told < len(context.failures):
                say(failure_to_data(context.failures[told]))
                told += 1

        Lockstep.keep = journal.begin
        return run_unit(unit, progress)

    done = apart(again, found.append, None)
    if isinstance(done, Result) and done.interrupted:
        return done
    if isinstance(done, Result):
        done.errors.append(f"{unit.name}: its process ended, and did not end when the work was done once more")
        return done
    trace = journal.read()
    if trace is None:
        return without_findings(unit, Described(unit.spec, candidate.profile, candidate.capabilities), str(done))
    context = Context(
        subsystem=of,
        candidate=candidate,
        profile=trace.profile,
        engine=unit.engine,
        judge=partial(judged, journal),
    )
    smallest = minimise(context, death(of, with_switches(context, trace), str(done)))
    smallest = tell_death(replace(smallest, engine=unit.engine), of, candidate.factory)
    return Result(
        unit=unit.name,
        subsystem=of.name,
        spec=unit.spec,
        profile=trace.profile,
        capabilities=sorted(candidate.capabilities),
        clauses={of.robustness.id: 1},
        failures=[*found, failure_to_data(smallest)],
        steps=len(trace.steps),
        traces=1,
    )


def death(of: Subsystem, trace: Trace, how: str) -> Failure:
    """The failure of a trace in whose last step the process ended."""
    op = trace.steps[-1].op if trace.steps else started
    return Failure(
        clause=of.robustness,
        operation=operation_name(op),
        kind="crash",
        detail=how,
        step=len(trace.steps) - 1,
        trace=trace,
    )


def tell_death(found: Failure, of: Subsystem, factory: Callable[[Any], Any]) -> Failure:
    """The failure with its story: its steps before the last, replayed, and the last, of which nobody can tell."""
    assert found.trace is not None
    trace = found.trace
    before, last = trace.steps[:-1], trace.steps[-1:]

    def replayed(_say: Callable[[Any], None]) -> list[story.Told]:
        report = run_trace(of, trace.with_steps(before), factory, record=True)
        return list(story.steps(report.steps, of, trace))

    told = apart(replayed) if before else []
    if not isinstance(told, list):
        return replace(found, story=story.Story((), note="the candidate is not deterministic"))
    told += [story.step(StepReport(step, _unended(step), (), None, None)) for step in last]
    return replace(
        found, story=story.Story(tuple(told), tuple(story.world(trace, of)), cause=values.snake(found.operation))
    )


def _unended(step: Step) -> tuple[Done, ...]:
    """The operations of a step that did not end."""
    sides = (step.op.left, step.op.right) if isinstance(step.op, Parallel) else (step,)
    return tuple(Done(side, None, Frame()) for side in sides)


def with_switches(context: Context, trace: Trace) -> Trace:
    """The trace with a schedule that ends the process, where the switches of its last step were drawn as it went."""
    last = trace.steps[-1] if trace.steps else None
    if last is None or not isinstance(last.op, Parallel) or last.op.schedule:
        return trace
    one = ((point,) for point in range(POINTS))
    for schedule in chain(((),), one, combinations(range(POINTS), 2)):
        told = trace.with_steps((*trace.steps[:-1], replace(last, op=replace(last.op, schedule=schedule))))
        report = context.judge(context.subsystem, told, context.candidate.factory, environment=context.fast)
        if report.failure is not None:
            return told
    return trace


def judged(
    journal: Journal,
    of: Subsystem,
    trace: Trace,
    factory: Callable[[Any], Any],
    *,
    environment: Callable[..., Environment] | None = None,
) -> Report:
    """Whether a process ends on a trace, as `run_trace` would report it; what else is wrong with it does not count."""

    def run(_say: Callable[[Any], None]) -> None:
        Lockstep.keep = journal.begin
        with watching():
            run_trace(of, trace, factory, environment=environment)

    how = apart(run)
    reached = journal.read()
    return Report(failure=death(of, reached, how) if isinstance(how, str) and reached is not None else None)


def apart(
    function: Callable[[Callable[[Any], None]], Any],
    hear: Callable[[Any], None] = lambda _: None,
    patience: float | None = PATIENCE,
) -> Any:
    """What a function returns in a process forked for it, or a text that says how that process ended.

    The function is given another one that says something to `hear` before it returns. An exception counts as None.
    """
    ours, theirs = Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        _perform(function, theirs)
    theirs.close()
    exited = os.pidfd_open(child)
    answer: Any = None
    deadline = None if patience is None else time.monotonic() + patience
    try:
        while True:
            ready = wait([ours, exited], None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"its process did not end in {patience:g} s"
            if ours in ready or ours.poll():
                try:
                    is_last, answer = ours.recv()
                except EOFError:
                    pass
                else:
                    if not is_last:
                        hear(answer)
                        continue
                    os.waitpid(child, 0)
                    return answer
            _, status = os.waitpid(child, 0)
            return ended(os.waitstatus_to_exitcode(status))
    finally:
        ours.close()
        os.close(exited)


def _perform(function: Callable[[Callable[[Any], None]], Any], connection: Connection) -> None:
    """In the forked process: never returns."""
    try:
        answer = function(lambda said: connection.send((False, said)))
    except BaseException:  # whatever it is, this fork must not go on as its parent; no answer says that it failed
        answer = None
    try:
        connection.send((True, answer))
    finally:
        os._exit(0)


class Journal:
    """The trace that is being run, in memory that is shared with whoever runs it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE)
        self.writer: Kept | None = None

    def begin(self, trace: Trace) -> list[Step]:
        """A list for the steps of a trace, which writes down what is appended."""
        return Kept(self, trace.with_steps(()))

    def rewrite(self, kept: Kept) -> None:
        """Begin anew, with all that has been taken of this trace."""
        self.writer = kept
        self._set_end(8)
        for item in (kept.header, *kept):
            self.add(item)

    def add(self, item: Any) -> None:
        """Write down one more."""
        end = self._end()
        text = pickle.dumps(item)
        if end + len(text) > SIZE:
            raise MemoryError("the trace is too long to be written down")
        self.memory[end : end + len(text)] = text
        self._set_end(end + len(text))

    def read(self) -> Trace | None:
        """The trace, its last step not known to have ended; None where none had begun. Then forget it."""
        end = self._end()
        self._set_end(0)
        if end <= 8:
            return None
        file = io.BytesIO(self.memory[8:end])
        header: Trace = pickle.load(file)  # noqa: S301 - written by ourselves, where the candidate is too
        steps = []
        while file.tell() < end - 8:
            steps.append(pickle.load(file))  # noqa: S301 - as above
        return header.with_steps(tuple(steps))

    def _end(self) -> int:
        return int.from_bytes(self.memory[:8], "little")

    def _set_end(self, end: int) -> None:
        self.memory[:8] = end.to_bytes(8, "little")


class Kept(list[Step]):
    """The steps taken of one trace; each is written down before it is taken."""

    def __init__(self, journal: Journal, header: Trace) -> None:
        super().__init__()
        self.journal = journal
        self.header = header
        journal.rewrite(self)

    def append(self, item: Step) -> None:
        """One more step is about to be taken."""
        super().append(item)
        if self.journal.writer is self:
            self.journal.add(item)
        else:  # another trace was run in between
            self.journal.rewrite(self)
