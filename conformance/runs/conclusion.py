"""The verdict on a candidate: what the results of its units come to, per clause and as an exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from conformance.baseline.entry import Stale, gap, identifier
from conformance.runs.request import ENGINES
from conformance.runs.result import Result, failure_from_data
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import encode
from conformance.verdict import Ending, Exit, Failure, Tally, Verdict


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
    """By clause and signature, so that it does not matter which unit found them."""
    warnings: list[Failure]
    known: Mapping[str, str]
    """Signatures that the baseline accepts, and why."""
    gaps: Mapping[str, str]
    """Ids of clauses of which it accepts that nothing exercises them, and why."""
    stale: list[Stale]
    """Entries of it that need attention."""
    complete: bool
    """Whether all the work there is was to be done."""
    steps: int
    seconds: float
    notes: dict[str, int]
    scopes: list[dict[str, Any]]
    """What was explored, as in the report."""
    absent: list[str]
    """What a real implementation lacks here, a sentence each."""
    errors: list[str]
    interrupted: bool
    exit: Exit
    why: str
    """What the last line says after the exit code."""


def conclude(
    results: Sequence[Result],
    *,
    strict: bool = False,
    complete: bool = True,
    only: str = "*",
    hunting: bool = False,
) -> Conclusion:
    """The verdict on one candidate from the results of its units.

    Not `complete` says that a part of the work was left out (a shard, a selection of engines), which the
    verdict then says too. `strict` makes failures of the breaches of SHOULD clauses. `only` is a pattern
    of the clause ids that are judged: `UIO-03*`. What the gate is known not to exercise, `hunting` may.
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
            _keep_smallest(failures if strict else warnings, failure_from_data(data, of))
    capabilities = frozenset(results[0].capabilities)
    profile = results[0].profile
    accepted = {signature: why for result in results for signature, why in result.known.items()}
    verdicts = {
        clause: _verdict(clause, profile, capabilities, results[0].judged, tally, failures, warnings, accepted)
        for clause in of.clauses
        if fnmatchcase(clause.id, only)
    }
    conclusion = Conclusion(
        subsystem=of,
        spec=results[0].spec,
        profile=profile,
        capabilities=capabilities,
        verdicts=verdicts,
        exercised=tally.clauses,
        failures=[failures[s] for s in sorted(failures) if failures[s].clause in verdicts],
        warnings=[warnings[s] for s in sorted(warnings) if warnings[s].clause in verdicts],
        known=accepted,
        gaps={clause: why for result in results for clause, why in result.gaps.items()},
        stale=[found for found in _stale(results) if fnmatchcase(found.clause, only)],
        complete=complete,
        steps=tally.steps,
        seconds=sum(result.seconds for result in results),
        notes=_notes(results),
        scopes=[seen for result in results for seen in result.scopes],
        absent=list(dict.fromkeys(sentence for result in results for sentence in result.absent)),
        errors=sorted(error for result in results for error in result.errors),
        interrupted=any(result.interrupted for result in results),
        exit=Exit.CONFORMS,
        why="",
    )
    if complete and not hunting:
        conclusion.stale += _filled(conclusion)
    conclusion.stale.sort(key=lambda found: (found.id, found.became))
    conclusion.exit, conclusion.why = _exit(conclusion)
    return conclusion


def _notes(results: Sequence[Result]) -> dict[str, int]:
    """Figures of the engines, those of one name together."""
    notes: dict[str, int] = {}
    for result in results:
        for name, figure in result.notes.items():
            notes[name] = notes.get(name, 0) + figure
    return notes


def _stale(results: Sequence[Result]) -> Iterable[Stale]:
    """Entries that need attention, each once."""
    told = [msgspec.convert(found, Stale) for result in results for found in result.stale]
    return {(found.id, found.became): found for found in told}.values()


def _filled(conclusion: Conclusion) -> list[Stale]:
    """Clauses that were accepted not to be exercised, and were."""
    told = {found.signature for found in conclusion.stale if found.became == "fixed"}
    found = []
    for clause, verdict in conclusion.verdicts.items():
        signature = gap(clause.id)
        if clause.id in conclusion.gaps and verdict is not Verdict.NOT_EXERCISED and signature not in told:
            name = identifier(conclusion.subsystem.name, conclusion.spec, conclusion.profile, signature)
            found.append(Stale(clause.id, signature, name, "fixed", f"{clause.id} is exercised now: {name}"))
    return found


def _keep_smallest(kept: dict[str, Failure], failure: Failure) -> None:
    before = kept.get(failure.signature)
    if before is None or _plainness(failure) < _plainness(before):
        kept[failure.signature] = failure


def _plainness(failure: Failure) -> tuple[bool, int, int, str, str]:
    """Of two failures with one signature the smaller one is kept, whichever comes first."""
    assert failure.trace is not None
    engine = ENGINES.index(failure.engine) if failure.engine in ENGINES else len(ENGINES)
    return failure.flaky, len(failure.trace.steps), engine, encode(failure.trace), failure.detail


def _verdict(
    clause: Clause,
    profile: str,
    capabilities: frozenset[str],
    judged: Sequence[str] | None,
    tally: Tally,
    failures: dict[str, Failure],
    warnings: dict[str, Failure],
    accepted: Mapping[str, str],
) -> Verdict:
    broken = [s for s, f in failures.items() if f.clause is clause]
    if broken:
        return Verdict.KNOWN if all(s in accepted for s in broken) else Verdict.FAIL
    ignored = [s for s, f in warnings.items() if f.clause is clause]
    if ignored:
        return Verdict.KNOWN if all(s in accepted for s in ignored) else Verdict.NOT_FOLLOWED
    if clause.untestable:
        return Verdict.UNTESTABLE
    if not clause.applies(profile, capabilities) or (judged is not None and clause.id not in judged):
        return Verdict.NOT_APPLICABLE
    if tally.clauses.get(clause, 0) >= clause.minimum:
        return Verdict.PASS
    return Verdict.NOT_EXERCISED


def _exit(conclusion: Conclusion) -> tuple[Exit, str]:
    """The exit code and its reason, worst first."""
    stale = attention(conclusion.stale)
    also = f"; {stale}" if stale else ""
    broken = [c for c, v in conclusion.verdicts.items() if v is Verdict.FAIL]
    shown = {f.clause for f in [*conclusion.failures, *conclusion.warnings] if not f.flaky}
    failing = [c for c in broken if c in shown]
    if conclusion.errors:
        return Exit.HARNESS, conclusion.errors[0]
    if failing:
        listed = ", ".join(c.id for c in failing[:6]) + (", …" if len(failing) > 6 else "")
        plural = "clause" if len(failing) == 1 else "clauses"
        return Exit.DOES_NOT_CONFORM, f"does not conform: {len(failing)} {plural} broken ({listed}){also}"
    if broken:
        listed = ", ".join(c.id for c in broken[:6])
        return Exit.INCONCLUSIVE, f"inconclusive: failures that did not show again when replayed ({listed})"
    if conclusion.interrupted:
        return Exit.INCONCLUSIVE, "inconclusive: interrupted before the end"
    if conclusion.steps == 0:
        return Exit.NOTHING_RAN, f"nothing ran: {_inapplicable(conclusion.subsystem, conclusion.capabilities)}"
    unseen = [c for c, v in conclusion.verdicts.items() if v is Verdict.NOT_EXERCISED and c.level.is_binding]
    missed = [clause for clause in unseen if clause.id not in conclusion.gaps]
    if missed:
        listed = ", ".join(c.id for c in missed[:6]) + (", …" if len(missed) > 6 else "")
        part = "" if conclusion.complete else "no failure in the part of the work that was done, "
        return Exit.INCONCLUSIVE, f"inconclusive: {part}{len(missed)} MUST not exercised ({listed}){also}"
    if stale:
        return Exit.STALE_BASELINE, stale
    return Exit.CONFORMS, _content(conclusion)


def _inapplicable(of: Subsystem, declared: frozenset[str]) -> str:
    """Why nothing can be asked of a candidate with these capabilities, and what the least is that it lacks."""
    worlds = [of.requires(config) for config in of.configs] or [frozenset[str]()]
    wanted = {frozenset((of.needs.get(op, frozenset()) | world) - declared) for op in of.shapes for world in worlds}
    useful = {w for op in of.shapes for world in worlds if declared & (w := of.needs.get(op, frozenset()) | world)}
    lacked = {frozenset(w - declared) for w in useful} or wanted
    fewest = min((len(w) for w in lacked if w), default=0)
    if not fewest:
        return "no trace applied to this candidate"
    has = f"{', '.join(sorted(declared))} alone" if declared else "no capability"
    least = " or ".join(sorted(" and ".join(sorted(w)) for w in lacked if len(w) == fewest))
    return f"to a candidate with {has} no operation applies; declare {least} as well"


_BECAME = {
    "fixed": ("no longer fails", "no longer fail"),
    "changed": ("fails otherwise", "fail otherwise"),
    "review": ("cannot be judged any more", "cannot be judged any more"),
    "expired": ("has expired", "have expired"),
}


def attention(stale: Sequence[Stale]) -> str:
    """What the entries of a baseline come to that need attention; empty where none does."""
    told = []
    for became, (one, more) in _BECAME.items():
        ids = [found.id for found in stale if found.became == became]
        if ids:
            listed = ", ".join(ids[:6]) + (", …" if len(ids) > 6 else "")
            told.append(f"{len(ids)} {one if len(ids) == 1 else more} ({listed})")
    return f"the baseline needs attention: {', '.join(told)}" if told else ""


def _content(conclusion: Conclusion) -> str:
    """What a run that found nothing says of itself: no more than it has seen."""
    counts = {verdict: sum(v is verdict for v in conclusion.verdicts.values()) for verdict in Verdict}
    told = [f"{counts[Verdict.PASS]} clauses passed"]
    told += [f"{n} known {'failure' if n == 1 else 'failures'}"] if (n := counts[Verdict.KNOWN]) else []
    gaps = sum(v is Verdict.NOT_EXERCISED and clause.id in conclusion.gaps for clause, v in conclusion.verdicts.items())
    told += [f"{gaps} MUST not exercised, as accepted"] if gaps else []
    told += [f"{n} SHOULD not followed"] if (n := counts[Verdict.NOT_FOLLOWED]) else []
    judged, there = len(conclusion.verdicts), len(conclusion.subsystem.clauses)
    told += [f"the other {there - judged} were not judged"] if judged < there else []
    part = "" if conclusion.complete else "as far as the part of the work goes that was done, "
    head = "nothing new" if counts[Verdict.KNOWN] or gaps else "conforms"
    return f"{part}{head}: {', '.join(told)}"


def together(conclusions: Sequence[Conclusion], interrupted: bool) -> Ending:
    """The end of the runs of several subsystems."""
    if not conclusions:
        return Ending(Exit.INCONCLUSIVE, "inconclusive: interrupted before the end")
    exits = [c.exit for c in conclusions] + ([Exit.INCONCLUSIVE] if interrupted else [])
    whys = [f"{c.subsystem.name}: {c.why}" for c in conclusions]
    if interrupted and not any(c.interrupted for c in conclusions):
        whys.append("interrupted before the end")
    return Ending(worst(exits), "; ".join(whys))


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
