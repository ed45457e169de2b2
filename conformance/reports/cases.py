"""A report as the tests that continuous integration counts: one per clause, and what else can go wrong.

Every form for such systems is written from these, so that they agree: where the run's exit code is 0 nothing is
red, and where it is not something is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from conformance.reports import text, values
from conformance.reports.record import (
    ClauseVerdict,
    Finding,
    Footer,
    Header,
    KillFound,
    Part,
    Report,
    StaleFound,
    WarningFound,
)
from conformance.verdict import Exit, Verdict

RUN = "run"
"""Name of the case that stands for a run itself; only where there is something to say of it."""


class Outcome(Enum):
    """What became of a case."""

    PASS = "pass"
    FAIL = "fail"
    """The candidate broke the clause."""
    ERROR = "error"
    """Nobody can tell."""
    KNOWN = "known"
    """It failed as the baseline expects."""
    SKIP = "skip"

    @property
    def is_red(self) -> bool:
        """Whether somebody has to look at it."""
        return self in (Outcome.FAIL, Outcome.ERROR)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a list of tests."""

    name: str
    """Id of a clause or a defect, and what else is safe in names: letters, digits, `-` and `_`."""
    outcome: Outcome
    why: str = ""
    """One line; empty where it simply passed."""
    text: str = ""
    """What there is to read: failures and warnings from headline to source."""
    clause: ClauseVerdict | None = None
    findings: Sequence[Finding] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of one candidate of one subsystem."""

    part: Part
    cases: list[Case]

    def count(self, *outcomes: Outcome) -> int:
        """How many cases have these outcomes."""
        return sum(case.outcome in outcomes for case in self.cases)


def suites(report: Report) -> list[Suite]:
    """The cases of each part; at least one, since a report without parts has not begun."""
    parts = report.parts or [Part(Header(subsystem="conformance", profile="", candidate=""))]
    listed = [Suite(part, _cases(part, report.footer)) for part in parts]
    if report.footer is not None and report.footer.exit and not any(s.count(*_RED) for s in listed):
        listed[-1].cases.append(Case(RUN, Outcome.ERROR, line(report.footer.why)))
    return listed


_RED = tuple(outcome for outcome in Outcome if outcome.is_red)


def _cases(part: Part, footer: Footer | None) -> list[Case]:
    stale = Outcome.FAIL if footer is None or footer.exit else Outcome.PASS
    cases = [_clause(part, clause) for clause in part.clauses]
    cases += [_stale(found, stale) for found in part.stale]
    cases += [_kill(found) for found in part.kills]
    return cases + _run(part, footer)


def _clause(part: Part, clause: ClauseVerdict) -> Case:
    found = part.findings(clause.id)
    outcome, why = _outcome(part, clause, found)
    told = "\n\n".join(text.finding(f, clause, part.header.candidate, f.saved) for f in found)
    return Case(safe(clause.id), outcome, line(why), told, clause, found)


def _outcome(part: Part, clause: ClauseVerdict, found: Sequence[Finding]) -> tuple[Outcome, str]:
    match clause.verdict:
        case Verdict.PASS.value:
            return Outcome.PASS, ""
        case Verdict.NOT_FOLLOWED.value:
            return Outcome.PASS, f"not followed: {', '.join(f.signature for f in found)}"
        case Verdict.KNOWN.value:
            return Outcome.KNOWN, f"known failure: {', '.join(map(_known, found))}"
        case Verdict.FAIL.value if found and all(f.flaky for f in found):
            return Outcome.ERROR, f"{_heading(part, clause, found)}, which did not show again when replayed"
        case Verdict.FAIL.value:
            return Outcome.FAIL, _heading(part, clause, found)
        case Verdict.NOT_EXERCISED.value if clause.gap is not None:
            reason = f" ({clause.gap})" if clause.gap else ""
            return Outcome.SKIP, f"not exercised: {clause.why}, which is known{reason}"
        case Verdict.NOT_EXERCISED.value if clause.is_binding and _is_inconclusive(part):
            return Outcome.ERROR, f"not exercised: {clause.why}"
    return Outcome.SKIP, f"{clause.verdict.replace('-', ' ')}: {clause.why}"


def _known(found: Finding) -> str:
    return f"{found.signature} ({found.reason})" if found.reason else found.signature


def _heading(part: Part, clause: ClauseVerdict, found: Sequence[Finding]) -> str:
    if not found:
        return clause.text
    more = f", and in {len(found) - 1} more ways" if len(found) > 1 else ""
    return text.headline(found[0], clause, part.header.candidate) + more


def _is_inconclusive(part: Part) -> bool:
    """Whether clauses that nobody exercised are what keeps the run from a verdict, or some of it."""
    concluded = part.conclusion
    return concluded is None or (concluded.exit == Exit.INCONCLUSIVE and concluded.complete)


def _stale(found: StaleFound, outcome: Outcome) -> Case:
    why = found.text or f"{found.signature} is a known failure that no longer fails ({found.id})"
    name = "stale" if found.became == "fixed" else found.became
    return Case(f"{safe(found.clause)}-{name}-{safe(found.signature)}", outcome, line(why))


def _kill(found: KillFound) -> Case:
    if found.why_not:
        return Case(safe(found.defect), Outcome.SKIP, line(found.why_not))
    if not found.killed:
        return Case(safe(found.defect), Outcome.FAIL, line(f"{found.defect} survived; {_expected(found)}"))
    if found.clause not in found.expected:
        return Case(safe(found.defect), Outcome.PASS, line(f"killed by {found.clause}; {_expected(found)}"))
    return Case(safe(found.defect), Outcome.PASS)


def _expected(found: KillFound) -> str:
    return f"expected to be killed by {' or '.join(found.expected)}"


def _run(part: Part, footer: Footer | None) -> list[Case]:
    """What keeps a part from a verdict and is no clause's fault."""
    concluded = part.conclusion
    if footer is None:
        return [Case(RUN, Outcome.ERROR, "the run did not end: its report has no footer")]
    if concluded is None:
        return [] if part.kills else [Case(RUN, Outcome.ERROR, line(footer.why))]
    if concluded.errors:
        return [Case(RUN, Outcome.ERROR, line(concluded.errors[0]), "\n".join(map(line, concluded.errors)))]
    if concluded.interrupted or concluded.exit == Exit.NOTHING_RAN:
        return [Case(RUN, Outcome.ERROR, line(concluded.why))]
    return []


def warnings(case: Case) -> list[Finding]:
    """Breaches of a SHOULD clause that fail nothing."""
    return [found for found in case.findings if isinstance(found, WarningFound) and case.outcome is Outcome.PASS]


def safe(name: str) -> str:
    """A name that every form can hold."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "_"


def line(what: str, limit: int = 1_000) -> str:
    """One line of plain characters, not too long."""
    return cut(" ".join(values.printable(part) for part in what.split()), limit)


def cut(what: str, limit: int) -> str:
    """A text of at most `limit` characters, which says so where it was longer."""
    if len(what) <= limit:
        return what
    note = f"… ({len(what)} characters)"
    return what[: limit - len(note)] + note


def file_of(candidate: str) -> str | None:
    """The file of a candidate that is one: `drivers/mine.py` of `drivers/mine.py:Uio`."""
    path = candidate.rpartition(":")[0]
    return path if path.endswith(".py") else None
