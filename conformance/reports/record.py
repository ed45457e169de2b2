"""A report as records: one per line of the JSON form, and what every other form is written from.

`report.schema.json` beside this file says the same to other programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from conformance.reports.graph import Depth, Graph
from conformance.reports.story import Story
from conformance.reports.version import SUITE
from conformance.runs.conclusion import Conclusion
from conformance.runs.result import failure_to_data
from conformance.runs.strength import Kill
from conformance.specs.clause import Clause, Level
from conformance.verdict import Ending, Exit, Failure, Verdict

SCHEMA = 1
"""Version of the report format."""
BINDING = tuple(level.value for level in Level if level.is_binding)
"""Levels of the clauses whose breach means that the candidate does not conform."""


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
    seed: int | None = 0
    """None where reports with different seeds were merged."""
    budget: float | None = None
    """Seconds of the hunt; None for the gate."""
    engines: tuple[str, ...] = ()
    only: str = "*"
    """Pattern of the ids of the clauses that were judged."""
    strict: bool = False
    """Whether breaches of SHOULD clauses fail."""
    units: tuple[str, ...] = ()
    """The units of work that it covers; those of a shard are some of a run's."""


class ClauseVerdict(Line, frozen=True, tag="clause"):
    """The verdict on one clause."""

    id: str
    level: str
    verdict: str
    exercised: int
    text: str = ""
    """The clause's sentence."""
    source: str = ""
    why: str = ""
    """Why it was not judged; empty where it was."""
    gap: str | None = None
    """Why a baseline accepts that nothing exercises it; None where it does not."""

    @property
    def is_binding(self) -> bool:
        """Whether a breach means that the candidate does not conform."""
        return self.level in BINDING


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
    status: Literal["new", "known"] = "new"
    """`known`: a baseline expects it."""
    reason: str = ""
    """Why that accepts it: reason, ticket, owner, last day."""
    saved: str = ""
    """Where its trace was saved; empty where it was not."""


class FailureFound(Finding, frozen=True, tag="failure", kw_only=True):
    """A clause that binds was broken."""


class WarningFound(Finding, frozen=True, tag="warning", kw_only=True):
    """A SHOULD clause was not followed."""


class StaleFound(Line, frozen=True, tag="stale"):
    """An entry of the baseline that needs attention."""

    clause: str
    signature: str
    id: str
    """What the baseline calls it."""
    became: Literal["fixed", "changed", "review", "expired"] = "fixed"
    """`fixed`: its trace no longer fails; `changed`: it fails otherwise; `review`: it cannot be judged any more."""
    text: str = ""
    """The same as a sentence, and where the entry is."""

    @property
    def is_gone(self) -> bool:
        """Whether the failure is, as far as its trace shows."""
        return self.became in ("fixed", "changed")


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


class Concluded(Line, frozen=True, tag="conclusion", kw_only=True):
    """Ends what is said of one candidate: what the run of it came to."""

    exit: int
    why: str
    complete: bool
    """Whether all the work there is was to be done, so that a MUST left unexercised is a gap."""
    steps: int
    seconds: float
    """The time of its units, added up."""
    interrupted: bool = False
    errors: tuple[str, ...] = ()
    """Where the suite itself failed, one sentence each."""
    notes: dict[str, int] = {}
    """Figures of the engines: states and transitions explored."""


class Footer(Line, frozen=True, tag="footer"):
    """Ends a report: how the run ended."""

    exit: int
    why: str
    steps: int
    seconds: float
    interrupted: bool = False


AnyLine = (
    Header | ClauseVerdict | FailureFound | WarningFound | StaleFound | ScopeExplored | KillFound | Concluded | Footer
)


class Part(msgspec.Struct):
    """What a report says of one candidate of one subsystem."""

    header: Header
    clauses: list[ClauseVerdict] = []
    failures: list[FailureFound] = []
    warnings: list[WarningFound] = []
    stale: list[StaleFound] = []
    scopes: list[ScopeExplored] = []
    kills: list[KillFound] = []
    conclusion: Concluded | None = None

    def clause(self, identifier: str) -> ClauseVerdict:
        """What it says of a clause; little, where a finding cites one that was not judged."""
        return next((c for c in self.clauses if c.id == identifier), ClauseVerdict(identifier, "MUST", "fail", 0))

    def findings(self, identifier: str) -> list[Finding]:
        """The ways in which the candidate breaks a clause."""
        return [found for found in [*self.failures, *self.warnings] if found.clause == identifier]


class Report(msgspec.Struct):
    """A whole report; without a footer it is truncated, and never a pass."""

    parts: list[Part]
    footer: Footer | None = None


def whole(
    headers: Sequence[Header],
    conclusions: Sequence[Conclusion],
    ending: Ending,
    *,
    seconds: float,
    interrupted: bool = False,
    saved: Mapping[str, str] = MappingProxyType({}),
) -> list[Line]:
    """The lines of the report of a run.

    `saved` says where the traces of which signatures are.
    """
    lines: list[Line] = []
    for head in headers:
        lines.append(head)
        for conclusion in conclusions:
            if conclusion.subsystem.name == head.subsystem:
                lines += [*findings(conclusion, saved), ended(conclusion)]
    steps = sum(conclusion.steps for conclusion in conclusions)
    return [*lines, footer(ending.exit, ending.why, steps=steps, seconds=seconds, interrupted=interrupted)]


def findings(conclusion: Conclusion, saved: Mapping[str, str] = MappingProxyType({})) -> Iterator[Line]:
    """One line per clause, then the failures, the breaches of SHOULD clauses, and what was explored."""
    for clause, verdict in conclusion.verdicts.items():
        yield clause_verdict(clause, verdict, conclusion)
    for kind, found in [
        *((FailureFound, f) for f in conclusion.failures),
        *((WarningFound, f) for f in conclusion.warnings),
    ]:
        status = "known" if found.signature in conclusion.known else "new"
        extra = {"status": status, "saved": saved.get(found.signature, "")}
        reason = conclusion.known.get(found.signature, "")
        yield msgspec.convert({**failure_to_data(found), **extra, "reason": reason}, kind)
    for gone in conclusion.stale:
        yield msgspec.convert(msgspec.to_builtins(gone), StaleFound)
    yield from (msgspec.convert(seen, ScopeExplored) for seen in conclusion.scopes)


def ended(conclusion: Conclusion) -> Concluded:
    """What the run of one candidate came to."""
    return Concluded(
        exit=int(conclusion.exit),
        why=conclusion.why,
        complete=conclusion.complete,
        steps=conclusion.steps,
        seconds=round(conclusion.seconds, 3),
        interrupted=conclusion.interrupted,
        errors=tuple(conclusion.errors),
        notes=dict(sorted(conclusion.notes.items())),
    )


def finding(found: Failure) -> Finding:
    """A failure as a record."""
    return msgspec.convert(failure_to_data(found), FailureFound)


def clause_verdict(clause: Clause, verdict: Verdict = Verdict.FAIL, of: Conclusion | None = None) -> ClauseVerdict:
    """What a run says of a clause, with what the clause itself says."""
    exercised = 0 if of is None else of.exercised.get(clause, 0)
    why = "" if of is None else _why(clause, verdict, exercised, of)
    gap = None if of is None else of.gaps.get(clause.id)
    level = clause.level.value
    return ClauseVerdict(clause.id, level, verdict.value, exercised, clause.text, clause.source, why, gap)


def _why(clause: Clause, verdict: Verdict, exercised: int, of: Conclusion) -> str:
    """Why a clause was not judged."""
    match verdict:
        case Verdict.UNTESTABLE:
            return clause.untestable
        case Verdict.NOT_APPLICABLE if clause.profiles and of.profile not in clause.profiles:
            return f"holds in profile {' and '.join(sorted(clause.profiles))} alone"
        case Verdict.NOT_APPLICABLE if clause.needs <= of.capabilities:
            return "what would show it is out of reach of the adapter that the candidate is seen through"
        case Verdict.NOT_APPLICABLE:
            return f"needs {' and '.join(sorted(clause.needs - of.capabilities))}, which the candidate does not have"
        case Verdict.NOT_EXERCISED:
            return f"exercised {exercised} of {clause.minimum} times" if exercised else "no trace reached it"
    return ""


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
        case StaleFound():
            part.stale.append(line)
        case ScopeExplored():
            part.scopes.append(line)
        case KillFound():
            part.kills.append(line)
        case Concluded():
            part.conclusion = line


def scattered(report: Report) -> Sequence[Line]:
    """The lines again, in order."""
    lines: list[Line] = []
    for part in report.parts:
        lines += [part.header, *part.clauses, *part.failures, *part.warnings, *part.stale]
        lines += [*part.scopes, *part.kills]
        lines += [part.conclusion] if part.conclusion is not None else []
    return [*lines, *([report.footer] if report.footer is not None else [])]
