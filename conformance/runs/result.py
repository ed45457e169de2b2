"""What one unit found, as plain data that crosses the borders of processes and goes into reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from conformance.engines.leads import Recipe
from conformance.reports.story import Story
from conformance.subsystem import Subsystem
from conformance.trace import Trace, from_data, to_data
from conformance.verdict import Failure


@dataclass(slots=True)
class Result:
    """What one unit found, or several together, as plain data that crosses process borders."""

    unit: str
    subsystem: str
    spec: str
    profile: str
    capabilities: list[str]
    judged: list[str] | None = None
    """Ids of the clauses that a real implementation can be held to, as far as it can be seen; None: as usual."""
    absent: list[str] = field(default_factory=list)
    """What a real implementation lacks here, a sentence each."""
    clauses: dict[str, int] = field(default_factory=dict)
    """Clause id -> how often it was exercised."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """See `failure_to_data`."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    traces: int = 0
    seconds: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)
    scopes: list[dict[str, Any]] = field(default_factory=list)
    """What was explored; see `reports.graph.tell`."""
    known: dict[str, str] = field(default_factory=dict)
    """Signature -> why a baseline accepts it: of those whose stored traces failed as they did."""
    gaps: dict[str, str] = field(default_factory=dict)
    """Clause id -> why a baseline accepts that nothing exercises it."""
    stale: list[dict[str, str]] = field(default_factory=list)
    """Entries of the baseline that need attention; see `baseline.entry.Stale`."""
    interrupted: bool = False
    transitions: dict[str, int] = field(default_factory=dict)
    """Of a hunt on many machines: how often which clause decided a step after which; see `engines.leads`."""
    recipes: dict[str, Recipe] = field(default_factory=dict)
    """What the walks drew from that exercised what is rare: a clause or a transition."""
    settled: bool = False
    """Whether the candidate starts in no world, so that no other unit will see more."""
    errors: list[str] = field(default_factory=list)
    """One sentence each time the harness itself failed."""

    def add(self, other: Result) -> None:
        """Take up what the same unit found with another seed; what leads the next ones is not kept."""
        for clause, n in other.clauses.items():
            self.clauses[clause] = self.clauses.get(clause, 0) + n
        for note, n in other.notes.items():
            self.notes[note] = self.notes.get(note, 0) + n
        self.failures += other.failures
        self.warnings += other.warnings
        self.steps += other.steps
        self.traces += other.traces
        self.seconds += other.seconds
        self.scopes += other.scopes
        self.interrupted = self.interrupted or other.interrupted
        self.errors += other.errors


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
        "story": msgspec.to_builtins(failure.story),
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
        story=msgspec.convert(data["story"], Story | None),
    )
