"""A failure told as plain data: what its steps did, which calls they made, what they changed.

It is made where the candidate is, by replaying the minimal trace, and read where reports are written; so nobody
who writes a report has to know the candidate. All values are texts already.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from conformance.candidates.load import Candidate
from conformance.company import Done
from conformance.lockstep import run_trace
from conformance.model.step import Parallel, Step
from conformance.recording import StepReport
from conformance.reports import values
from conformance.runs.watchdog import watching
from conformance.subsystem import Subsystem
from conformance.trace import Trace
from conformance.verdict import Failure, HarnessError

HANDLES_FROM = 0x1000
"""Numbers of this size and above that a call returned are handles and addresses rather than counts."""


class Act(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation of a step: the step's own, one in the middle of it, or one of two threads."""

    did: str
    """The operation with its arguments."""
    returned: str = ""
    """Its result; empty where it returns nothing, or did not return."""
    ended: bool = True
    met: tuple[str, ...] = ()
    """Refusals it met: `request_irq refused: EBUSY`."""
    point: int | None = None
    """The point of preemption at which it happened, in the middle of the step's own."""
    side: str = ""
    """`left` or `right`, of two threads."""


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """One environment call."""

    of: int
    """Which of the step's acts made it."""
    made: str
    """The call with its arguments."""
    returned: str = ""


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step."""

    acts: tuple[Act, ...]
    calls: tuple[Call, ...] = ()
    """In the order in which they took effect."""
    changes: tuple[str, ...] = ()
    """What can be observed and is not what it was before the step: `name = value`."""
    switches: tuple[int, ...] | None = None
    """The points at which two threads were switched; None where there is one."""


class Story(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened, from the world's start to the failure."""

    steps: tuple[Told, ...]
    world: tuple[str, ...] = ()
    """Profile and configuration, where they are not the plainest."""
    note: str = ""
    """Why the steps are not to be believed, or are not there."""
    origins: tuple[str, ...] = ()
    """Where what is wrong comes from: `actions: request_irq(17, …) in step 2, open`."""
    cause: str = ""
    """The operation and the call in which it went wrong; failures with one cause are told together."""


def tell(found: Failure, of: Subsystem, candidate: Candidate) -> Failure:
    """The failure with its story: its trace replayed on a fresh candidate."""
    assert found.trace is not None
    reports, note = _replayed(found, of, candidate)
    return told(found, reports, of, note)


def told(found: Failure, reports: Sequence[StepReport], of: Subsystem, note: str = "") -> Failure:
    """The failure with the story that the reports of its steps tell."""
    assert found.trace is not None
    lines, cause = origins(reports, found, of)
    acts = tuple(steps(reports, of, found.trace))
    return replace(found, story=Story(acts, tuple(world(found.trace, of)), note, lines, cause))


def origins(reports: Sequence[StepReport], found: Failure, of: Subsystem) -> tuple[tuple[str, ...], str]:
    """Which call put each wrong value there or handed out what is complained of, and the earliest of these places."""
    places = [*(_writers(reports, of) if "view." in found.kind else ()), *_givers(reports, found)]
    lines = tuple(
        f"{what}: {_made(of, *call)} in step {number + 1}, {values.snake(operation)}"
        for what, number, operation, call in places
    )
    if not places:
        return (), values.snake(found.operation)
    _, _, operation, call = min(places, key=lambda place: place[1])
    return lines, f"{values.snake(operation)}, {call[0]}"


Place = tuple[str, int, str, tuple[str, Any, Any]]
"""What is wrong, the number of the step and the operation in which it was made so, and the call that did."""


def _writers(reports: Sequence[StepReport], of: Subsystem) -> Iterator[Place]:
    """For each field that is not as expected, the last call that changed it."""
    if not reports or reports[-1].expected is None or reports[-1].got is None:
        return
    want, got = reports[-1].expected, reports[-1].got
    for name in of.view_clauses:
        if getattr(want, name) == getattr(got, name):
            continue
        last = None
        for number, report in enumerate(reports):
            for field, who, call in report.wrote:
                if field == name:
                    last = name, number, type(report.done[who].step.op).__name__, call
        if last is not None:
            yield last


def _givers(reports: Sequence[StepReport], found: Failure) -> Iterator[Place]:
    """For each handle or address in the sentence, the call that gave it to the candidate, the last time it was given.

    Calls that are ever the first to return a handle are those that give; the others look one up.
    """
    named = {int(text, 0) for text in re.findall(r"\b(?:0x[0-9a-f]+|[1-9]\d*)\b", found.detail)}
    seen: set[int] = set()
    allocators: set[str] = set()
    given: dict[int, Place] = {}
    for number, report in enumerate(reports):
        for who, call in report.calls:
            handle = call[2]
            if type(handle) is not int or handle < HANDLES_FROM:
                continue
            if handle not in seen:
                seen.add(handle)
                allocators.add(call[0])
            if handle in named and call[0] in allocators:
                given[handle] = hex(handle), number, type(report.done[who].step.op).__name__, call
    yield from given.values()


def steps(reports: Sequence[StepReport], of: Subsystem, trace: Trace) -> Iterator[Told]:
    """Each step that a replay took."""
    view = of.view(of.initial(trace.config, of.profiles[trace.profile]))
    for report in reports:
        yield step(of, report, _changes(of, view, report.got))
        view = report.got or view


def step(of: Subsystem, report: StepReport, changes: tuple[str, ...] = ()) -> Told:
    """One step as data."""
    op = report.step.op
    if isinstance(op, Parallel):
        acts = [_act(done, report, side=side) for side, done in zip(("left", "right"), report.done, strict=False)]
        return Told(tuple(acts), _calls(of, report), changes, tuple(op.schedule))
    acts = [_act(report.done[0], report)]
    acts += [_act(done, report, point=_point(report.step, done)) for done in report.inner]
    return Told(tuple(acts), _calls(of, report), changes)


def _act(done: Done, report: StepReport, *, point: int | None = None, side: str = "") -> Act:
    met = tuple(
        f"{name} refused: {values.errno_name(value)}" if value < 0 else f"{name} returned {values.number(value)}"
        for name, value in done.frame.given.items()
    )
    returned = "" if done.result is None else values.result(done.result)
    ended = done.result is not None or report.got is not None
    return Act(values.operation(done.step.op), returned, ended, met, point, side)


def _point(step: Step, done: Done) -> int | None:
    return next((k for k, planned in step.during if planned is done.step), None)


def _calls(of: Subsystem, report: StepReport) -> tuple[Call, ...]:
    return tuple(
        Call(who, _made(of, name, arguments, None), "" if returned is None else values.result(returned))
        for who, (name, arguments, returned) in report.calls
    )


def _made(of: Subsystem, name: str, arguments: Sequence[Any], returned: Any) -> str:
    """A call with its arguments as its parameters' names ask for."""
    return values.call(name, arguments, returned, _parameters(of.port, name))


@cache
def _parameters(port: type, name: str) -> tuple[str, ...]:
    method = getattr(port, name, None)
    return () if method is None else tuple(inspect.signature(method).parameters)[1:]


def _changes(of: Subsystem, before: Any, after: Any) -> tuple[str, ...]:
    """What a step changed of what can be observed."""
    if after is None:
        return ()
    return tuple(values.differences(before, after, list(of.view_clauses), of.view_labels)[1].splitlines())


def _replayed(found: Failure, of: Subsystem, candidate: Candidate) -> tuple[list[StepReport], str]:
    """The steps with their results, and a note when the failure did not show again."""
    assert found.trace is not None
    report = None
    for environment in (of.environment, *([of.fast] if of.fast is not None else [])):
        try:
            with watching():
                report = run_trace(of, found.trace, candidate.factory, environment=environment, record=True)
        except HarnessError as error:
            return [], f"replaying it failed: {error}"
        again = [*report.warnings, *([report.failure] if report.failure is not None else [])]
        if found.signature in [f.signature for f in again]:
            return report.steps, ""
    assert report is not None
    return report.steps, "it did not fail again when its trace was replayed: the candidate is not deterministic"


def world(trace: Trace, of: Subsystem) -> list[str]:
    """Profile and configuration, where they are not the plainest."""
    told = [] if trace.profile == of.default_profile else [f"profile {trace.profile}"]
    config = values.value(trace.config)
    return [*told, *([] if config.endswith("()") else [config])]
