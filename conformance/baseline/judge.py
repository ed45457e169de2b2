"""The stored traces first: each is judged again, so that what is known does not depend on what a search meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from conformance.baseline.entry import Entry, Stale
from conformance.engines.context import Context, lacking
from conformance.engines.corpus import OUT_OF_RANGE, out_of_range
from conformance.engines.minimise import minimiser
from conformance.lockstep import Report, run_trace
from conformance.subsystem import Subsystem
from conformance.trace import Trace, TraceError, from_data
from conformance.verdict import Failure


@dataclass(slots=True)
class Judged:
    """What the entries that are in force here come to."""

    known: dict[str, str] = field(default_factory=dict)
    """Signature -> why it is accepted: of the entries whose traces fail as they did."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Clause -> why it is accepted that nothing exercises it."""
    stale: list[Stale] = field(default_factory=list)


class NotLegal(Exception):
    """A stored trace cannot be judged any more; the message says why."""


def judge(context: Context, entries: Sequence[Entry], today: date) -> Judged:
    """Judge every stored trace of the candidate and profile; known failures are noted as they are.

    What fails otherwise than it did is a new failure, and is minimised like any.
    """
    judged = Judged()
    others: list[Failure] = []
    for entry in entries:
        if entry.profile != context.profile or not entry.when.holds(context.candidate.capabilities):
            continue
        judged.stale += expired(entry, today)
        if entry.is_gap:
            judged.gaps[entry.clause] = entry.why
            continue
        try:
            report = _judged(context, entry)
        except NotLegal as why:
            judged.stale.append(entry.stale("review", f"cannot be judged any more, since {why}"))
            continue
        found = [*report.warnings, *([report.failure] if report.failure is not None else [])]
        same = [failure for failure in found if failure.signature == entry.signature]
        others += [failure for failure in found if failure.signature != entry.signature]
        if same:
            judged.known[entry.signature] = entry.why
            context.note_failure(same[0], lambda failure: failure)
        elif report.failure is not None:
            judged.stale.append(entry.stale("changed", f"fails otherwise now, as {report.failure.signature}"))
        elif report.tally.steps < len(stored(context.subsystem, entry).steps):
            told = "cannot be judged any more, since the model does not let all the steps of its trace happen"
            judged.stale.append(entry.stale("review", told))
        else:
            judged.stale.append(entry.stale("fixed", "no longer fails"))
    for failure in others:
        context.note_failure(failure, minimiser(context))
    return judged


def _judged(context: Context, entry: Entry) -> Report:
    """What a stored trace shows now."""
    trace = stored(context.subsystem, entry)
    missing = lacking(context.subsystem, trace, context.candidate.capabilities)
    if missing:
        raise NotLegal(f"its trace needs {' and '.join(missing)}, which the candidate does not have")
    try:
        report = run_trace(context.subsystem, trace, context.candidate.factory)
    except OUT_OF_RANGE as error:
        raise NotLegal(out_of_range(error)) from None
    context.tally.add(report.tally)
    return report


def expired(entry: Entry, today: date) -> list[Stale]:
    """That it has, if it has."""
    if entry.expires is None or entry.expires >= today:
        return []
    return [entry.stale("expired", f"was accepted until {entry.expires.isoformat()}")]


def stored(of: Subsystem, entry: Entry) -> Trace:
    """The trace of an entry.

    Raises:
        NotLegal  it is none of this version
    """
    try:
        trace = from_data(msgspec.json.decode(entry.trace), {of.name: of.config}, {of.name: of.operations})
    except (TraceError, msgspec.DecodeError) as error:
        raise NotLegal(f"its trace is none of this version: {error}") from None
    if trace.profile != entry.profile:
        raise NotLegal(f"its trace is of profile {trace.profile}, and it of {entry.profile}")
    return trace
