"""`conformance replay`: one trace, step by step, with what each step changes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conformance.candidates.load import check_profile, load
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.lockstep import run_trace
from conformance.reports import story, text, values
from conformance.runs.watchdog import watching
from conformance.subsystem import Subsystem, subsystem
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
    missing = lacking(of, trace, candidate.capabilities)
    if missing:
        return Ending(
            Exit.NOTHING_RAN, f"nothing ran: the trace needs {', '.join(missing)}, which {spec} does not have"
        )
    try:
        with watching():
            report = run_trace(of, trace, candidate.factory, record=True)
    except (ArithmeticError, AssertionError, LookupError, ValueError, struct.error) as error:
        raise UsageError(f"{path}: a value in it is out of its range: {type(error).__name__}: {error}") from error
    say(f"{of.name}: {candidate.spec}, profile {trace.profile}, {values.value(trace.config)}")
    for number, told in enumerate(story.steps(report.steps, of, trace), 1):
        say("\n".join([*text.step(number, told), *(f"              {line}" for line in told.changes)]))
    left_out = len(trace.steps) - len(report.steps)
    if left_out and report.failure is None:
        say(f"  {left_out} of {len(trace.steps)} steps cannot happen in this world and were left out")
    for warning in report.warnings:
        say("\n".join(text.warning(warning)))
    if not report.steps:
        return Ending(Exit.NOTHING_RAN, f"nothing ran: none of the {len(trace.steps)} steps can happen")
    if report.failure is None:
        return Ending(Exit.CONFORMS, f"{of.name}: no failure in {len(report.steps)} steps")
    say("\n" + text.failure(story.tell(report.failure, of, candidate), candidate.spec))
    return Ending(Exit.DOES_NOT_CONFORM, f"{of.name}: {report.failure.clause.id} broken")


def _own(spec: str, of: Subsystem, path: Path) -> str:
    """The candidate's spec without `SUBSYSTEM=`, which must be the trace's."""
    name, equals, rest = spec.partition("=")
    if not equals or not name.isidentifier():
        return spec
    if name != of.name:
        raise UsageError(f"{path} is a trace of {of.name}, and the candidate is one of {name}")
    return rest
