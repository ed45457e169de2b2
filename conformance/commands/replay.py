"""`conformance replay`: one trace, step by step, with what each step changes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from conformance.candidates.load import Candidate, check_profile, load
from conformance.engines import corpus
from conformance.lockstep import run_trace
from conformance.model.step import Parallel, Step
from conformance.reports import text, values
from conformance.runs.watchdog import watching
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace
from conformance.verdict import Ending, Exit, UsageError


def replay(path: Path, spec: str, profile: str | None, say: Callable[[str], None]) -> Ending:
    """Judge one saved trace and show every step.

    Raises:
        UsageError  not a trace, or not one for this candidate or profile
    """
    trace = corpus.read(path)
    of = subsystem(trace.subsystem)
    candidate = load(_own(spec, of, path), of)
    if profile is not None:
        check_profile(f"--profile={profile}", profile, of)
        trace = replace(trace, profile=profile)
    check_profile(f"{path}: $.profile", trace.profile, of)
    lacking = _lacking(trace, of, candidate)
    if lacking:
        return Ending(
            Exit.NOTHING_RAN, f"nothing ran: the trace needs {', '.join(lacking)}, which {spec} does not have"
        )
    try:
        with watching():
            report = run_trace(of, trace, candidate.factory, record=True)
    except (ArithmeticError, AssertionError, LookupError, ValueError, struct.error) as error:
        raise UsageError(f"{path}: a value in it is out of its range: {type(error).__name__}: {error}") from error
    say(f"{of.name}: {candidate.spec}, profile {trace.profile}, {values.value(trace.config)}")
    view = of.view(of.initial(trace.config, of.profiles[trace.profile]))
    for number, taken in enumerate(report.steps, 1):
        say("\n".join([*text.step(number, taken), *_changes(of, view, taken.got)]))
        view = taken.got or view
    left_out = len(trace.steps) - len(report.steps)
    if left_out and report.failure is None:
        say(f"  {left_out} of {len(trace.steps)} steps cannot happen in this world and were left out")
    for warning in report.warnings:
        say("\n".join(text.warning(warning)))
    if not report.steps:
        return Ending(Exit.NOTHING_RAN, f"nothing ran: none of the {len(trace.steps)} steps can happen")
    if report.failure is None:
        return Ending(Exit.CONFORMS, f"{of.name}: no failure in {len(report.steps)} steps")
    say("\n" + text.failure(report.failure, of, candidate))
    return Ending(Exit.DOES_NOT_CONFORM, f"{of.name}: {report.failure.clause.id} broken")


def _own(spec: str, of: Subsystem, path: Path) -> str:
    """The candidate's spec without `SUBSYSTEM=`, which must be the trace's."""
    name, equals, rest = spec.partition("=")
    if not equals or not name.isidentifier():
        return spec
    if name != of.name:
        raise UsageError(f"{path} is a trace of {of.name}, and the candidate is one of {name}")
    return rest


def _lacking(trace: Trace, of: Subsystem, candidate: Candidate) -> list[str]:
    """Capabilities that the trace needs and the candidate does not declare."""
    needed = set(of.requires(trace.config))
    for step in trace.steps:
        for op in _operations(step):
            needed |= of.needs.get(type(op), frozenset())
    return sorted(needed - candidate.capabilities)


def _operations(step: Step) -> list[Any]:
    inner = [op for _, other in step.during for op in _operations(other)]
    if isinstance(step.op, Parallel):
        return [*_operations(step.op.left), *_operations(step.op.right), *inner]
    return [step.op, *inner]


def _changes(of: Subsystem, before: Any, after: Any) -> list[str]:
    """What a step changed of what can be observed."""
    if after is None:
        return []
    _, now = values.differences(before, after, list(of.view_clauses))
    return [f"              {line}" for line in now.splitlines()]
