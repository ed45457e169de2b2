"""Stored traces one of which ends its process: each is judged in a process of its own, so that the others count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from conformance.baseline.entry import Stale
from conformance.baseline.judge import NotLegal, expired, stored
from conformance.runs.autopsy import post_mortem
from conformance.runs.describe import Described
from conformance.runs.replaying import Replay, Replayed, death_job
from conformance.runs.request import BASELINE, Unit
from conformance.runs.result import Result, failure_to_data
from conformance.runs.unit import unit_job, without_findings
from conformance.runs.workers import Died, Jobs
from conformance.subsystem import subsystem


def ended_early(unit: Unit, candidate: Described, how: str) -> Result:
    """What a unit found whose process has ended under it, whatever its kind."""
    if unit.engine == BASELINE:
        return _one_by_one(unit, candidate)
    return post_mortem(unit, candidate, how, lambda *_: None)


def _one_by_one(unit: Unit, candidate: Described) -> Result:
    together = without_findings(unit, candidate, "")
    together.errors.clear()
    for entry in unit.entries:
        alone = _alone(replace(unit, entries=(entry,)), candidate)
        together.add(alone)
        together.known |= alone.known
        together.gaps |= alone.gaps
        together.stale += alone.stale
    return together


def _alone(unit: Unit, candidate: Described) -> Result:
    """What one stored trace comes to."""
    result: Result = _done(unit_job, unit)
    if not isinstance(result, Died):
        return result
    (entry,) = unit.entries
    of = subsystem(unit.subsystem)
    try:
        trace = stored(of, entry)
    except NotLegal as why:
        return without_findings(unit, candidate, f"{unit.name}: {entry.id}: {why}")
    replayed: Replayed | Died | None = _done(death_job, Replay(unit.spec, trace))
    if not isinstance(replayed, Replayed) or replayed.failure is None:
        return without_findings(unit, candidate, f"{unit.name}: {entry.id}: {result.how}, once only")
    failure = replace(replayed.failure, engine=BASELINE)
    found = without_findings(unit, candidate, "")
    found.errors.clear()
    found.failures.append(failure_to_data(failure))
    found.clauses = {of.robustness.id: 1}
    found.steps, found.traces = len(trace.steps), 1
    stale: list[Stale] = [] if unit.today is None else expired(entry, unit.today)
    if failure.signature == entry.signature:
        found.known[entry.signature] = entry.why
    else:
        stale.append(entry.stale("changed", f"fails otherwise now, as {failure.signature}"))
    found.stale = [msgspec.to_builtins(each) for each in stale]
    return found


def _done(function: Any, job: Any) -> Any:
    """What a job comes to in a process of its own."""
    for _, answer in Jobs(function, [job], 1, lambda *_: None, apart=True).run():
        return answer
    raise KeyboardInterrupt
