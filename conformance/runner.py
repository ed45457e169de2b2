"""A run: what to do for each candidate, in units that can be done side by side, and the conclusion.

`units(request)` lists the work, `run_unit(unit)` does one piece of it in any process and
returns plain data, `conclude(…)` turns the results into a verdict per clause and an exit code.
The command line and the pytest plugin are two ways of calling these three.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from conformance.candidates.load import check_profile, load
from conformance.engines import campaign, corpus, explore, interleave, machine
from conformance.engines.context import Context, is_binding
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace, from_data, to_data
from conformance.verdict import Exit, Failure, HarnessError, Tally, UsageError, Verdict
from conformance.watchdog import watching

ENGINES = ("corpus", "explore", "interleave", "campaign", "machine")
"""In the order in which they run: known failures first, then shortest counterexamples."""

GATE_STEPS = {"campaign": 40_000}
"""Steps of the engines that could go on for ever, in the gate."""

PARTS = {"campaign": 2, "interleave": 2}
"""Into how many units an engine's work divides in the gate; fixed, so the verdict is the same for every `-n`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for."""

    candidates: tuple[tuple[str, str], ...]
    """(subsystem, candidate spec)."""
    profile: str | None = None
    """None: the one the candidate declares."""
    engines: tuple[str, ...] = ENGINES
    seed: int = 0
    budget: float | None = None
    """Seconds to hunt; None: the gate."""
    corpus: str | None = None
    shard: tuple[int, int] = (1, 1)
    """Do part I of N."""
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work: an engine, or a part of one, on one candidate."""

    subsystem: str
    spec: str
    profile: str | None
    engine: str
    seed: int = 0
    part: int = 0
    parts: int = 1
    seconds: float | None = None
    corpus: str | None = None

    @property
    def name(self) -> str:
        """For progress lines and test ids: `uio_msi.campaign.1`."""
        suffix = f".{self.part + 1}" if self.parts > 1 else ""
        return f"{self.subsystem}.{self.engine}{suffix}"


@dataclass(slots=True)
class Result:
    """What one unit found, as plain data that crosses process borders."""

    unit: str
    subsystem: str
    spec: str
    profile: str
    capabilities: list[str]
    clauses: dict[str, int] = field(default_factory=dict)
    """Clause id -> how often it was exercised."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """See `failure_to_data`."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    traces: int = 0
    seconds: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False
    error: str = ""
    """One sentence when the harness itself failed."""


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


def units(request: Request) -> list[Unit]:
    """The work of a request, in a fixed order; `shard` picks its part of the list."""
    listed: list[Unit] = []
    for name, spec in request.candidates:
        for engine in request.engines:
            if engine == "corpus" and request.corpus is None:
                continue
            listed += _engine_units(request, name, spec, engine)
    index, count = request.shard
    chosen = listed[index - 1 :: count]
    if request.budget is None:
        return chosen
    return _share_time(chosen, request)


def _engine_units(request: Request, name: str, spec: str, engine: str) -> list[Unit]:
    parts = max(PARTS.get(engine, 1), 1)
    return [
        Unit(name, spec, request.profile, engine, request.seed, part, parts, None, request.corpus)
        for part in range(parts)
    ]


def _share_time(chosen: Sequence[Unit], request: Request) -> list[Unit]:
    """Divide the budget: each unit gets its share of what the workers have."""
    from dataclasses import replace

    assert request.budget is not None
    shares = {"corpus": 0.5, "explore": 2.0, "interleave": 1.0, "campaign": 3.0, "machine": 3.0}
    total = sum(shares[unit.engine] for unit in chosen) or 1.0
    seconds = request.budget * max(1, min(request.workers, len(chosen)))
    return [replace(unit, seconds=max(1.0, seconds * shares[unit.engine] / total)) for unit in chosen]


def run_unit(unit: Unit, progress: Callable[[Context], None] | None = None) -> Result:
    """Do one piece of work.

    Raises:
        UsageError  the candidate cannot be loaded, or the profile does not exist
    """
    of = subsystem(unit.subsystem)
    candidate = load(unit.spec, of)
    profile = unit.profile or candidate.profile
    check_profile("--profile", profile, of)
    started = time.monotonic()
    context = Context(
        subsystem=of,
        candidate=candidate,
        profile=profile,
        seed=unit.seed,
        steps=GATE_STEPS.get(unit.engine) if unit.seconds is None else None,
        deadline=None if unit.seconds is None else started + unit.seconds,
        part=unit.part,
        parts=unit.parts,
        hunting=unit.seconds is not None,
        engine=unit.engine,
        progress=progress,
    )
    error, interrupted = "", False
    try:
        with watching(), redirect_stdout(sys.stderr):  # what a candidate prints is not our verdict
            _engine(unit, context)
    except KeyboardInterrupt:
        interrupted = True
    except HarnessError as failed:
        error = f"{unit.name}: {failed}"
    return Result(
        unit=unit.name,
        subsystem=of.name,
        spec=unit.spec,
        profile=profile,
        capabilities=sorted(candidate.capabilities),
        clauses={clause.id: n for clause, n in context.tally.clauses.items()},
        failures=[failure_to_data(failure) for failure in context.failures],
        warnings=[failure_to_data(failure) for failure in context.warnings],
        steps=context.tally.steps,
        traces=context.tally.traces,
        seconds=time.monotonic() - started,
        notes=context.notes,
        interrupted=interrupted,
        error=error,
    )


def _engine(unit: Unit, context: Context) -> None:
    match unit.engine:
        case "corpus":
            corpus.run(context, Path(unit.corpus or "corpus"))
        case "explore":
            explore.run(context)
        case "interleave":
            interleave.run(context)
        case "campaign":
            campaign.run(context)
        case "machine":
            machine.run(context)
        case other:
            raise UsageError(f"--engine: unknown engine {other!r}; known: {', '.join(ENGINES)}")


def failure_to_data(failure: Failure) -> dict[str, Any]:
    """A failure as JSON-ready values, as in the report."""
    assert failure.trace is not None
    return {
        "clause": failure.clause.id,
        "signature": failure.signature,
        "operation": failure.operation,
        "mismatch": failure.kind,
        "detail": failure.detail,
        "step": failure.step,
        "expected": failure.expected,
        "got": failure.got,
        "engine": failure.engine,
        "seconds": failure.seconds,
        "flaky": failure.flaky,
        "trace": to_data(failure.trace),
    }


def failure_from_data(data: dict[str, Any], of: Subsystem) -> Failure:
    """Read what `failure_to_data` wrote."""
    trace: Trace = from_data(data["trace"], {of.name: of.config}, {of.name: of.operations})
    return Failure(
        clause=of.clause(data["clause"]),
        operation=data["operation"],
        kind=data["mismatch"],
        detail=data["detail"],
        step=data["step"],
        expected=data["expected"],
        got=data["got"],
        engine=data["engine"],
        seconds=data["seconds"],
        flaky=data["flaky"],
        trace=trace,
    )


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


__all__ = [
    "ENGINES",
    "Conclusion",
    "Request",
    "Result",
    "Unit",
    "conclude",
    "failure_from_data",
    "failure_to_data",
    "is_binding",
    "run_unit",
    "units",
    "worst",
]
