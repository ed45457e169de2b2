"""The verdict on a candidate: what the results of its units come to, per clause and as an exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from conformance.runs.result import Result, failure_from_data
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import Exit, Failure, Tally, Verdict


@dataclass(slots=True)
class Conclusion:
    """The verdict on one candidate of one subsystem."""

    subsystem: Subsystem
    spec: str
    profile: str
    capabilities: frozenset[str]
    verdicts: dict[Clause, Verdict]
    exercised: dict[Clause, int]
    failures: list[Failure]
    warnings: list[Failure]
    steps: int
    seconds: float
    notes: dict[str, int]
    errors: list[str]
    interrupted: bool
    exit: Exit
    why: str
    """What the last line says after the exit code."""


def conclude(
    results: Sequence[Result],
    *,
    strict: bool = False,
    known: Iterable[str] = (),
    complete: bool = True,
    only: str = "*",
) -> Conclusion:
    """The verdict on one candidate from the results of its units.

    `known` are signatures that the baseline accepts. Not `complete` (a shard, a selection of
    engines) means that clauses left unexercised say nothing. `only` is a pattern of the clause
    ids that are judged: `UIO-03*`.
    """
    of = subsystem(results[0].subsystem)
    tally = Tally()
    failures: dict[str, Failure] = {}
    warnings: dict[str, Failure] = {}
    for result in results:
        tally.add(Tally({of.clause(i): n for i, n in result.clauses.items()}, result.steps, result.traces))
        for data in result.failures:
            _keep_smallest(failures, failure_from_data(data, of))
        for data in result.warnings:
            _keep_smallest(warnings, failure_from_data(data, of))
    capabilities = frozenset(results[0].capabilities)
    profile = results[0].profile
    accepted = frozenset(known)
    verdicts = {
        clause: _verdict(clause, profile, capabilities, tally, failures, warnings, accepted, strict)
        for clause in of.clauses
        if fnmatchcase(clause.id, only)
    }
    notes: dict[str, int] = {}
    for result in results:
        for name, figure in result.notes.items():
            notes[name] = notes.get(name, 0) + figure
    conclusion = Conclusion(
        subsystem=of,
        spec=results[0].spec,
        profile=profile,
        capabilities=capabilities,
        verdicts=verdicts,
        exercised=tally.clauses,
        failures=[failure for failure in failures.values() if failure.clause in verdicts],
        warnings=[warning for warning in warnings.values() if warning.clause in verdicts],
        steps=tally.steps,
        seconds=sum(result.seconds for result in results),
        notes=notes,
        errors=[result.error for result in results if result.error],
        interrupted=any(result.interrupted for result in results),
        exit=Exit.CONFORMS,
        why="",
    )
    conclusion.exit, conclusion.why = _exit(conclusion, complete)
    return conclusion


def _keep_smallest(kept: dict[str, Failure], failure: Failure) -> None:
    before = kept.get(failure.signature)
    if before is None or (failure.flaky, _length(failure)) < (before.flaky, _length(before)):
        kept[failure.signature] = failure


def _length(failure: Failure) -> int:
    return len(failure.trace.steps) if failure.trace is not None else 0


def _verdict(
    clause: Clause,
    profile: str,
    capabilities: frozenset[str],
    tally: Tally,
    failures: dict[str, Failure],
    warnings: dict[str, Failure],
    accepted: frozenset[str],
    strict: bool,
) -> Verdict:
    broken = [s for s, f in failures.items() if f.clause is clause]
    if strict:
        broken += [s for s, f in warnings.items() if f.clause is clause]
    if broken:
        return Verdict.KNOWN if all(s in accepted for s in broken) else Verdict.FAIL
    if clause.untestable:
        return Verdict.UNTESTABLE
    if not clause.applies(profile, capabilities):
        return Verdict.NOT_APPLICABLE
    if tally.clauses.get(clause, 0) >= clause.minimum:
        return Verdict.PASS
    return Verdict.NOT_EXERCISED


def _exit(conclusion: Conclusion, complete: bool) -> tuple[Exit, str]:
    """The exit code and its reason, worst first."""
    broken = [c for c, v in conclusion.verdicts.items() if v is Verdict.FAIL]
    shown = {f.clause for f in [*conclusion.failures, *conclusion.warnings] if not f.flaky}
    failing = [c for c in broken if c in shown]
    if conclusion.errors:
        return Exit.HARNESS, conclusion.errors[0]
    if failing:
        listed = ", ".join(c.id for c in failing[:6]) + (", …" if len(failing) > 6 else "")
        plural = "clause" if len(failing) == 1 else "clauses"
        return Exit.DOES_NOT_CONFORM, f"does not conform: {len(failing)} {plural} broken ({listed})"
    if broken:
        listed = ", ".join(c.id for c in broken[:6])
        return Exit.INCONCLUSIVE, f"inconclusive: failures that did not show again when replayed ({listed})"
    if conclusion.interrupted:
        return Exit.INCONCLUSIVE, "inconclusive: interrupted before the end"
    if conclusion.steps == 0:
        return Exit.NOTHING_RAN, "nothing ran: no trace applied to this candidate"
    missed = [c for c, v in conclusion.verdicts.items() if v is Verdict.NOT_EXERCISED and c.level.is_binding]
    if missed and complete:
        listed = ", ".join(c.id for c in missed[:6]) + (", …" if len(missed) > 6 else "")
        return Exit.INCONCLUSIVE, f"inconclusive: {len(missed)} MUST not exercised ({listed})"
    passed = sum(v is Verdict.PASS for v in conclusion.verdicts.values())
    known = sum(v is Verdict.KNOWN for v in conclusion.verdicts.values())
    note = f", {known} known failures" if known else ""
    return Exit.CONFORMS, f"conforms: {passed} clauses passed{note}"


def worst(exits: Iterable[Exit]) -> Exit:
    """The exit code of several conclusions together."""
    order = (
        Exit.CONFORMS,
        Exit.NOTHING_RAN,
        Exit.STALE_BASELINE,
        Exit.INCONCLUSIVE,
        Exit.DOES_NOT_CONFORM,
        Exit.HARNESS,
        Exit.USAGE,
    )
    return max(exits, key=order.index, default=Exit.NOTHING_RAN)
