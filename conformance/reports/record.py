"""A report as records: one per line of the JSON form, and what every other form is written from.

`report.schema.json` beside this file says the same to other programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from conformance.reports.graph import Depth, Graph
from conformance.reports.story import Story
from conformance.reports.version import SUITE
from conformance.runs.conclusion import Conclusion
from conformance.runs.result import failure_to_data
from conformance.runs.strength import Kill
from conformance.verdict import Exit

SCHEMA = 1
"""Version of the report format."""


class Line(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """One line of a report."""


class Header(Line, frozen=True, tag="header", kw_only=True):
    """Begins what is said of one candidate: what was tested, and how."""

    schema: int = SCHEMA
    suite: str = SUITE
    subsystem: str
    profile: str
    candidate: str
    """As given to --candidate; `zoo` for kills."""
    capabilities: tuple[str, ...] = ()
    seed: int = 0
    budget: float | None = None
    """Seconds of the hunt; None for the gate."""
    engines: tuple[str, ...] = ()


class ClauseVerdict(Line, frozen=True, tag="clause"):
    """The verdict on one clause."""

    id: str
    level: str
    verdict: str
    exercised: int


class Finding(Line, frozen=True, kw_only=True):
    """A way in which the candidate breaks a clause."""

    clause: str
    signature: str
    operation: str
    mismatch: str
    detail: str
    step: int
    """Index of the failing step; -1 when the candidate was created."""
    expected: str
    got: str
    engine: str
    seconds: float
    flaky: bool
    trace: dict[str, Any]
    """As in a trace file."""
    story: Story | None


class FailureFound(Finding, frozen=True, tag="failure", kw_only=True):
    """A clause that binds was broken."""


class WarningFound(Finding, frozen=True, tag="warning", kw_only=True):
    """A SHOULD clause was not followed."""


class KillFound(Line, frozen=True, tag="kill"):
    """What became of one defect of the zoo."""

    defect: str
    clause: str | None
    expected: tuple[str, ...]
    killed: bool
    engine: str
    steps: int
    seconds: float
    why_not: str
    text: str = ""
    """What is wrong with it, in one sentence."""


class ScopeExplored(Line, frozen=True, tag="scope", kw_only=True):
    """How much of a small world was seen."""

    scope: str
    world: str
    """Its configuration; empty where it is the plainest."""
    depths: tuple[Depth, ...]
    """Figures by distance from the start."""
    limit: int | None
    """Depth at which the scope ends; None where it goes on until nothing new appears."""
    graph: Graph | None
    """None where there are too many states to draw."""


class Footer(Line, frozen=True, tag="footer"):
    """Ends a report: how the run ended."""

    exit: int
    why: str
    steps: int
    seconds: float
    interrupted: bool = False


AnyLine = Header | ClauseVerdict | FailureFound | WarningFound | ScopeExplored | KillFound | Footer


class Part(msgspec.Struct):
    """What a report says of one candidate of one subsystem."""

    header: Header
    clauses: list[ClauseVerdict] = []
    failures: list[FailureFound] = []
    warnings: list[WarningFound] = []
    scopes: list[ScopeExplored] = []
    kills: list[KillFound] = []


class Report(msgspec.Struct):
    """A whole report; without a footer it is truncated, and never a pass."""

    parts: list[Part]
    footer: Footer | None = None


def findings(conclusion: Conclusion) -> Iterator[Line]:
    """One line per clause, then the failures, the breaches of SHOULD clauses, and what was explored."""
    for clause, verdict in conclusion.verdicts.items():
        yield ClauseVerdict(clause.id, clause.level.value, verdict.value, conclusion.exercised.get(clause, 0))
    yield from (msgspec.convert(failure_to_data(found), FailureFound) for found in conclusion.failures)
    yield from (msgspec.convert(failure_to_data(found), WarningFound) for found in conclusion.warnings)
    yield from (msgspec.convert(seen, ScopeExplored) for seen in conclusion.scopes)


def kill(found: Kill) -> Line:
    """What became of one defect."""
    return KillFound(
        found.defect.id,
        found.failure.clause.id if found.failure is not None else None,
        tuple(found.defect.clauses),
        found.is_killed,
        found.engine,
        found.steps,
        round(found.seconds, 3),
        found.defect.why_not,
        found.defect.text,
    )


def footer(code: Exit, why: str, *, steps: int, seconds: float, interrupted: bool = False) -> Line:
    """The last line: how it ended."""
    return Footer(int(code), why, steps, round(seconds, 3), interrupted)


def gathered(lines: Iterable[Line]) -> Report:
    """The lines of a report by candidate.

    Raises:
        ValueError  a line stands where it cannot: before every header, or after the footer
    """
    report = Report([])
    for line in lines:
        if report.footer is not None:
            raise ValueError("something follows the footer")
        if isinstance(line, Footer):
            report.footer = line
        elif isinstance(line, Header):
            report.parts.append(Part(line))
        elif not report.parts:
            raise ValueError("a report begins with a header")
        else:
            _put(report.parts[-1], line)
    return report


def _put(part: Part, line: Line) -> None:
    match line:
        case ClauseVerdict():
            part.clauses.append(line)
        case FailureFound():
            part.failures.append(line)
        case WarningFound():
            part.warnings.append(line)
        case ScopeExplored():
            part.scopes.append(line)
        case KillFound():
            part.kills.append(line)


def scattered(report: Report) -> Sequence[Line]:
    """The lines again, in order."""
    lines: list[Line] = []
    for part in report.parts:
        lines += [part.header, *part.clauses, *part.failures, *part.warnings, *part.scopes, *part.kills]
    return [*lines, *([report.footer] if report.footer is not None else [])]
