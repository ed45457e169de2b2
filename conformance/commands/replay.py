"""`conformance replay`: one trace, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conformance.candidates.promised import check_profile
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.reports import text, values
from conformance.runs.describe import describe
from conformance.runs.replaying import replayed
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import NOT_TRIED, Ending, Exit, HarnessError, UsageError


def replay(path: Path, spec: str, profile: str | None, say: Callable[[str], None]) -> Ending:
    """Judge one saved trace and show every step.

    Raises:
        UsageError    not a trace, or not one for this candidate or profile
        HarnessError  what is under the candidate ended, so that nobody can tell
    """
    trace = corpus.read(path)
    of = subsystem(trace.subsystem)
    candidate = describe(of.name, _own(spec, of, path), profile)
    if profile is not None:
        trace = replace(trace, profile=profile)
    check_profile(f"{path}: $.profile", trace.profile, of)
    missing = lacking(of, trace, candidate.capabilities)
    if missing:
        return Ending(
            Exit.NOTHING_RAN, f"nothing ran: the trace needs {', '.join(missing)}, which {spec} does not have"
        )
    try:
        done = replayed(candidate.spec, trace)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if done.failure is not None and done.failure.kind == NOT_TRIED:
        raise HarnessError(f"{path}: {done.failure.detail}")
    say(f"{of.name}: {candidate.spec}, profile {trace.profile}, {values.value(trace.config)}")
    for number, told in enumerate(done.steps, 1):
        say("\n".join([*text.step(number, told), *(f"              {line}" for line in told.changes)]))
    left_out = len(trace.steps) - len(done.steps)
    if left_out and done.failure is None:
        say(f"  {left_out} of {len(trace.steps)} steps cannot happen in this world and were left out")
    for warning in done.warnings:
        say("\n".join(text.warning(warning)))
    if not done.steps and done.failure is None:
        return Ending(Exit.NOTHING_RAN, f"nothing ran: none of the {len(trace.steps)} steps can happen")
    if done.failure is None:
        return Ending(Exit.CONFORMS, f"{of.name}: no failure in {len(done.steps)} steps")
    say("\n" + text.failure(done.failure, candidate.spec))
    return Ending(Exit.DOES_NOT_CONFORM, f"{of.name}: {done.failure.clause.id} broken")


def _own(spec: str, of: Subsystem, path: Path) -> str:
    """The candidate's spec without `SUBSYSTEM=`, which must be the trace's."""
    name, equals, rest = spec.partition("=")
    if not equals or not name.isidentifier():
        return spec
    if name != of.name:
        raise UsageError(f"{path} is a trace of {of.name}, and the candidate is one of {name}")
    return rest
