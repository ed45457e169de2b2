"""Whether a candidate is plugged in as it should be, before anybody asks whether it is right.

It is done in a process of its own, which tells of each check as soon as it is done; so whoever hears of them knows
how far it came where the candidate ends that process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from conformance.candidates.load import Candidate, load
from conformance.candidates.promised import entry_points
from conformance.engines import explore
from conformance.engines.campaign import Walker
from conformance.engines.context import Context
from conformance.lockstep import Lockstep
from conformance.recording import StepReport
from conformance.reports import values
from conformance.reports.story import steps as told_steps
from conformance.runs.request import GATE_STEPS
from conformance.runs.watchdog import watching
from conformance.runs.workers import Tell
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace
from conformance.verdict import Failure

WALKS = 60
"""Random walks at most, in which entry points are reached and speed is measured."""
SECONDS = 8.0
"""After which no walk begins."""
ENOUGH = 50
"""Steps by which speed can be told."""
SLOW = 100.0
"""Steps per second below which the gate takes longer than anybody waits."""
STEPS_LONGEST = 40
"""Steps of the trace that is done twice."""
CHECKS = ("starts", "answers", "entry points", "environment", "two starts", "same trace", "speed")
"""In the order in which they are done, once it is loaded."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    said: str
    do: str = ""
    """What to do about it, where it is not as it should be."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """A job: who is to be looked at."""

    name: str
    spec: str
    profile: str | None


def checkup_job(job: Checkup, tell: Tell) -> list[Check]:
    """Every check that can be made, in any process."""
    candidate = load(job.spec, subsystem(job.name))
    of = candidate.part(subsystem(job.name))
    done: list[Check] = []
    with watching():
        for check in _checks(of, candidate, job.profile or candidate.profile):
            done.append(check)
            tell(len(done), 0, 0, msgspec.to_builtins(check))
    return done


def _checks(of: Subsystem, candidate: Candidate, profile: str) -> Iterator[Check]:
    context = Context(of, candidate, profile)
    worlds = [config for config in of.configs if context.allows(config)]
    worlds += [scope.config for _, scope in explore.scopes(context)] if not worlds else []
    if not worlds:
        yield Check("starts", False, "no world is for such a candidate", "declare the capabilities that it has")
        return
    starts, on = _starts(context, worlds)
    yield starts
    if not on:
        return
    walked = _walked(context)
    yield walked.answers()
    yield walked.reached()
    yield walked.called()
    yield _two_starts(context, worlds[0])
    yield _same_trace(context, walked.longest or Trace(of.name, profile, worlds[0], ()))
    yield walked.speed()


# -- does it start


def _starts(context: Context, worlds: Sequence[Any]) -> tuple[Check, bool]:
    """It starts in every world that it is for; and whether there is a world in which to look at the rest.

    Whoever has everything still to do may not get as far as a world: a finding, which the plumbing is not blamed for.
    """
    for number, config in enumerate(worlds):
        lockstep = _lockstep(context, Trace(context.subsystem.name, context.profile, config, ()))
        lockstep.close()
        failure = lockstep.failure
        if failure is not None and failure.kind in ("crash", "hang", "type"):
            where = "" if not number else f" in the world {values.value(config)}"
            do = "the constructor is given the port alone, and must return; leave work to the entry points"
            return Check("starts", False, f"{failure.detail}{where}", do), False
        if failure is not None and not number:
            said = f"no world yet: {failure.detail}; {failure.clause.id} comes first, and the other checks after it"
            return Check("starts", True, said), False
    return Check("starts", True, f"in {len(worlds)} of {len(worlds)} worlds"), True


# -- random walks


class _Walked:
    """What a few random walks showed."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.entered: set[str] = set()
        self.calls: dict[str, int] = {}
        self.wrong: Failure | None = None
        """A crash, a hang or a value of a wrong type."""
        self.stopped: Failure | None = None
        """The first failure of another kind."""
        self.longest: Trace | None = None
        """The trace with most steps."""
        self.steps = 0
        self.seconds = 0.0

    def walk(self, walker: Walker) -> None:
        """One more; the time that it takes to make a failure's trace small is not the candidate's.

        The kernel may tell of a wait only later, so what was waited for is never taken from what was worked.
        """
        context = walker.context
        found, steps = len(context.failures), context.tally.steps
        began, worked = time.monotonic() - _waited(), time.process_time()
        trace = walker.walk()
        if len(context.failures) == found:
            self.seconds += max(time.monotonic() - _waited() - began, time.process_time() - worked)
            self.steps += context.tally.steps - steps
        if self.longest is None or len(trace.steps) > len(self.longest.steps):
            self.longest = trace

    def answers(self) -> Check:
        """Every call comes back, with a value of the right type."""
        found = self.wrong
        if found is None:
            return Check("answers", True, "all that was called came back with values of the right types")
        assert found.trace is not None
        last = values.operation(found.trace.steps[-1].op) if found.trace.steps else "the start"
        do = f"specs/{self.context.subsystem.name}/port.py says what each entry point returns; none may raise"
        return Check("answers", False, f"{found.detail} (in {last})", do)

    def reached(self) -> Check:
        """Every entry point that it must have is called by the harness."""
        of, has = self.context.subsystem, self.context.candidate.capabilities
        wanted = [name for name, _, _ in entry_points(of, has)]
        missed = [name for name in wanted if name not in self.entered]
        said = f"{len(wanted) - len(missed)} of {len(wanted)} were entered"
        if not missed:
            return Check("entry points", True, said)
        listed = ", ".join(missed[:8]) + (", …" if len(missed) > 8 else "")
        said = f"{said}; not {listed}"
        if self.stopped is not None:
            why = f"{said}, since {self.stopped.clause.id} fails before ({values.snake(self.stopped.operation)})"
            return Check("entry points", True, why)
        return Check("entry points", bool(self.entered), said, "declare the capabilities that it has")

    def called(self) -> Check:
        """Its environment calls arrive."""
        if self.calls:
            made = sum(self.calls.values())
            return Check("environment", True, f"{made} calls came through, of {len(self.calls)} kinds")
        do = "call the kernel through the port that the constructor is given; nothing else is seen"
        has = self.context.candidate.capabilities
        if has and has <= {"helpers", "verifier", "layer-r"}:
            return Check("environment", True, "no call came through, and none is needed")
        if self.stopped is not None and "-ENOSYS" in self.stopped.got + self.stopped.detail:
            return Check("environment", True, f"no call yet: {values.snake(self.stopped.operation)} answers -ENOSYS")
        return Check("environment", False, "no call came through", do)

    def speed(self) -> Check:
        """It is fast enough for the gate."""
        if self.steps < ENOUGH:
            return Check("speed", True, "not measured: too few steps came to an end")
        rate = self.steps / max(self.seconds, 1e-6)
        of = self.context.subsystem
        gate = GATE_STEPS["campaign"] + sum(s.transitions or 0 for _, s in explore.scopes(self.context))
        said = (
            f"{rate:,.0f} steps per second; the gate takes more than {gate:,} steps, {_minutes(gate / max(rate, 1.0))}"
        )
        if self.context.candidate.spec.startswith("cmd:"):
            profile = "profile the program: most of the time goes by in it"
        else:
            profile = (
                f"profile it: python -m cProfile -s tottime -m conformance run {of.name} --engine explore --candidate …"
            )
        do = f"do it again where nothing else runs; then {profile}"
        return Check("speed", rate >= SLOW, said, do)


def _walked(context: Context) -> _Walked:
    """Random walks, of plain steps."""
    walked = _Walked(context)
    quiet = Context(_watched(context.subsystem, walked), context.candidate, context.profile)
    walker = Walker(quiet, Random(0))
    started = time.monotonic()
    if not walker.configs or not walker.operations:
        _explore(quiet)
        walked.steps, walked.seconds = quiet.tally.steps, time.monotonic() - started
    else:
        walker.sample_pools()
        for _ in range(WALKS):
            walked.walk(walker)
            if quiet.tally.hangs or time.monotonic() - started > SECONDS:
                break
    for failure in quiet.failures:
        if failure.kind in ("crash", "hang", "type"):
            walked.wrong = walked.wrong or failure
        else:
            walked.stopped = walked.stopped or failure
    return walked


def _explore(context: Context) -> None:
    """Where no random walk applies: the small worlds."""
    context.deadline = 400.0
    context.clock = lambda: float(context.tally.steps)
    explore.run(context)


def _watched(of: Subsystem, walked: _Walked) -> Subsystem:
    """The subsystem with a world that notes what is entered and called."""

    class Watched(of.environment):  # type: ignore[name-defined,misc]  # the class is known at run time alone
        def enter(self, function: Any, *args: Any) -> Any:
            walked.entered.add(getattr(function, "__name__", ""))
            return super().enter(function, *args)

        def close(self) -> None:
            for name, n in self.frame.made.items():
                walked.calls[name] = walked.calls.get(name, 0) + n
            super().close()

    plain = {op: replace(shape, faults=(), interrupts=(), beside=()) for op, shape in of.shapes.items()}
    return replace(of, environment=Watched, fast=None, shapes=plain)


def _waited() -> float:
    """Seconds that we have waited for a processor, because others use it; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


# -- does it depend on anything but what it is told


def _two_starts(context: Context, config: Any) -> Check:
    """Two candidates, one after the other, do the same at their start."""
    trace = Trace(context.subsystem.name, context.profile, config, ())
    first, second = (_log(context, trace) for _ in range(2))
    difference = _difference(first, second)
    if difference is None:
        return Check("two starts", True, "two candidates start alike")
    return Check("two starts", False, difference, _OUTSIDE)


def _same_trace(context: Context, trace: Trace) -> Check:
    """The same steps twice, each time on a fresh candidate."""
    trace = trace.with_steps(trace.steps[:STEPS_LONGEST])
    difference = _difference(_log(context, trace), _log(context, trace))
    if difference is None:
        return Check("same trace", True, f"{len(trace.steps)} steps twice: the same calls, the same results")
    return Check("same trace", False, difference, _OUTSIDE)


_OUTSIDE = (
    "keep all state in the object: module globals, class attributes, the clock, random numbers, id() and the order of "
    "sets make runs differ, so that no failure can be shown again"
)


def _log(context: Context, trace: Trace) -> list[str]:
    """What happens in a trace, line by line."""
    lockstep = _lockstep(context, trace)
    try:
        lines = [f"at the start: {values.call(*call)}" for call in lockstep.env.frame.log] if not trace.steps else []
        for step in trace.steps:
            if lockstep.failure is None and lockstep.legal(step.op):
                lockstep.step(step)
        lines += _lines(lockstep.reports, context.subsystem, trace)
        if lockstep.failure is not None:
            lines.append(f"{lockstep.failure.signature}: {lockstep.failure.detail or lockstep.failure.got}")
    finally:
        lockstep.close()
    return lines


def _lines(reports: Sequence[StepReport], of: Subsystem, trace: Trace) -> Iterator[str]:
    for number, step in enumerate(told_steps(reports, of, trace), 1):
        for call in step.calls:
            yield f"in step {number}: {call.made}" + (f" -> {call.returned}" if call.returned else "")
        for act in step.acts:
            yield f"step {number}: {act.did}" + (f" -> {act.returned}" if act.returned else "")


def _difference(first: Sequence[str], second: Sequence[str]) -> str | None:
    """The first line that is not the same."""
    for number in range(max(len(first), len(second))):
        one, other = (lines[number] if number < len(lines) else "nothing more" for lines in (first, second))
        if one != other:
            return f"first {one}; then {other}"
    return None


def _lockstep(context: Context, trace: Trace) -> Lockstep:
    of, factory = context.subsystem, context.candidate.factory
    return Lockstep(of, trace, factory, environment=context.fast, record=bool(trace.steps))
