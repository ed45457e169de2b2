"""What a page shows: reports side by side, the verdicts of each clause in a row, failures and kills."""

from __future__ import annotations

import importlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from conformance.reports.record import Finding, Footer, Header, KillFound, Part, Report, StaleFound
from conformance.runs.request import ENGINES
from conformance.specs.clause import Clause
from conformance.subsystem import available
from conformance.verdict import Exit, Verdict

MARKS = {
    "fail": "✗",
    "known": "◆",
    "not-followed": "!",
    "not-exercised": "○",
    "not-applicable": "–",
    "untestable": "∅",
    "pass": "✓",
    "warning": "!",
}
"""A mark beside each verdict's word, worst first, so that colour is never alone."""
ENDS: dict[int, str] = {
    Exit.CONFORMS: "pass",
    Exit.DOES_NOT_CONFORM: "fail",
    Exit.HARNESS: "fail",
}
"""How an exit code looks; the others as inconclusive."""


@dataclass(frozen=True, slots=True)
class Run:
    """One report."""

    name: str
    footer: Footer | None
    """None where the run did not end."""

    @property
    def look(self) -> str:
        """Which verdict its end looks like."""
        return "not-exercised" if self.footer is None else ENDS.get(self.footer.exit, "not-exercised")


@dataclass(slots=True)
class Column:
    """What one report says of one candidate of one subsystem."""

    number: int
    run: Run
    part: Part
    label: str = ""
    """Tells it from the others of its subsystem."""

    @property
    def header(self) -> Header:
        """What was tested, and how."""
        return self.part.header

    @property
    def counts(self) -> list[tuple[str, int]]:
        """How many clauses have each verdict, worst first."""
        counted = Counter(clause.verdict for clause in self.part.clauses)
        return [(verdict, counted[verdict]) for verdict in MARKS if counted[verdict]]

    @property
    def bars(self) -> Iterator[tuple[str, float, float]]:
        """(verdict, start, width) in parts of a hundred."""
        start = 0.0
        for verdict, n in self.counts:
            width = round(100 * n / len(self.part.clauses), 2)
            yield verdict, round(start, 2), width
            start += width

    @property
    def explored(self) -> dict[str, int]:
        """The figures of its scopes together."""
        rows = [row for scope in self.part.scopes for row in scope.depths]
        return {name: sum(getattr(row, name) for row in rows) for name in ("states", "legal", "tried", "failed")}


@dataclass(slots=True)
class Shown:
    """One failure or warning."""

    number: int
    column: Column
    found: Finding
    verdict: str
    level: str
    text: str
    """The clause's sentence."""
    source: str

    @property
    def where(self) -> str:
        """`at step 3 of 3`."""
        n = len(self.found.trace.get("steps", ()))
        return "when it was created" if self.found.step < 0 else f"at step {self.found.step + 1} of {n}"

    @property
    def file(self) -> str:
        """Name of a file for its trace."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.found.signature).strip("-.") + ".json"

    @property
    def command(self) -> str:
        """What to type to see it again."""
        return f"conformance replay {self.file} --candidate {shlex.quote(self.column.header.candidate)}"

    @property
    def differences(self) -> list[tuple[str, str]]:
        """Lines of what was expected and got, side by side."""
        left, right = self.found.expected.split("\n"), self.found.got.split("\n")
        length = max(len(left), len(right))
        return list(zip(left + [""] * (length - len(left)), right + [""] * (length - len(right)), strict=True))


@dataclass(slots=True)
class Cell:
    """The verdict on one clause of one candidate."""

    verdict: str
    exercised: int
    shown: list[Shown] = field(default_factory=list)


@dataclass(slots=True)
class Row:
    """One clause and its verdicts, in the order of the columns; None where a report does not judge it."""

    id: str
    level: str
    text: str
    source: str
    kind: str
    cells: list[Cell | None]

    @property
    def verdicts(self) -> str:
        """All of them, once each."""
        return " ".join(dict.fromkeys(self._shown()))

    @property
    def differs(self) -> bool:
        """Whether the candidates do."""
        return len({cell.verdict if cell is not None else "" for cell in self.cells}) > 1

    def _shown(self) -> Iterator[str]:
        for cell in self.cells:
            if cell is not None:
                yield cell.verdict
                yield from (shown.verdict for shown in cell.shown if shown.verdict == "warning")


@dataclass(slots=True)
class Zoo:
    """The kills of one subsystem in one report."""

    column: Column

    @property
    def kills(self) -> list[KillFound]:
        """Those tried, then those without a candidate."""
        return sorted(self.column.part.kills, key=lambda kill: bool(kill.why_not))

    @property
    def engines(self) -> list[str]:
        """Those that killed something, in the order in which they are tried."""
        used = {kill.engine for kill in self.kills if kill.killed}
        return [name for name in ENGINES if name in used] + sorted(used - set(ENGINES))

    @property
    def by_clause(self) -> list[tuple[str, list[list[KillFound]]]]:
        """Each clause that killed, with its kills by engine."""
        killed = [kill for kill in self.kills if kill.killed and kill.clause is not None]
        clauses = sorted({kill.clause or "" for kill in killed})
        return [(c, [[k for k in killed if (k.clause, k.engine) == (c, e)] for e in self.engines]) for c in clauses]

    @property
    def summary(self) -> str:
        """`killed 43 of 44`."""
        tried = [kill for kill in self.kills if not kill.why_not]
        return f"killed {sum(kill.killed for kill in tried)} of {len(tried)}"


@dataclass(slots=True)
class Section:
    """One subsystem."""

    name: str
    columns: list[Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    zoos: list[Zoo] = field(default_factory=list)


@dataclass(slots=True)
class Page:
    """Several reports side by side."""

    runs: list[Run]
    columns: list[Column]
    sections: list[Section]
    shown: list[Shown]

    @property
    def title(self) -> str:
        """The subsystems."""
        return ", ".join(section.name for section in self.sections) or "nothing ran"

    @property
    def stale(self) -> list[tuple[Column, StaleFound]]:
        """Entries of baselines that need attention."""
        return [(column, found) for column in self.columns for found in column.part.stale]

    @property
    def explored(self) -> list[Column]:
        """Candidates some of whose scopes were explored."""
        return [column for column in self.columns if column.part.scopes]

    @property
    def verdicts(self) -> list[str]:
        """Those that some clause has, worst first."""
        had = {verdict for section in self.sections for row in section.rows for verdict in row.verdicts.split()}
        return [verdict for verdict in MARKS if verdict in had]

    @property
    def has_candidates(self) -> bool:
        """Whether it shows any."""
        return any(section.columns for section in self.sections)

    @property
    def has_several(self) -> bool:
        """Whether there are candidates that can differ."""
        return any(len(section.columns) > 1 for section in self.sections)

    @property
    def has_rows(self) -> bool:
        """Whether any clause was judged."""
        return any(section.rows for section in self.sections)

    @property
    def has_zoos(self) -> bool:
        """Whether it shows kills."""
        return any(section.zoos for section in self.sections)


def gather(reports: Sequence[tuple[str, Report]]) -> Page:
    """The page of these reports, each with the name it is known by."""
    runs: list[Run] = []
    columns: list[Column] = []
    for name, report in reports:
        runs.append(Run(name, report.footer))
        columns += [Column(len(columns) + n, runs[-1], part) for n, part in enumerate(report.parts)]
    _label([c for c in columns if not c.part.kills], [_candidate, _profile, _run, _place])
    sections = _sections(columns)
    shown = [found for section in sections for found in _failures(section)]
    for number, found in enumerate(shown, 1):
        found.number = number
    for section in sections:
        _fill(section, shown)
    return Page(runs, columns, sections, shown)


def _candidate(column: Column) -> str:
    return column.header.candidate


def _profile(column: Column) -> str:
    return f"profile {column.header.profile}"


def _run(column: Column) -> str:
    return column.run.name


def _place(column: Column) -> str:
    return f"no. {column.number + 1}"


def _label(columns: list[Column], ways: list[Any]) -> None:
    """Name each column by as few of these as tell it from the others of its subsystem."""
    way, *others = ways
    for column in columns:
        column.label = ", ".join(part for part in (column.label, way(column)) if part)
    groups: dict[tuple[str, str], list[Column]] = {}
    for column in columns:
        groups.setdefault((column.header.subsystem, column.label), []).append(column)
    for alike in groups.values():
        if len(alike) > 1 and others:
            _label(alike, others)


def _sections(columns: list[Column]) -> list[Section]:
    found: dict[str, Section] = {}
    for column in columns:
        section = found.setdefault(column.header.subsystem, Section(column.header.subsystem))
        if column.part.kills or column.header.candidate == "zoo":
            section.zoos.append(Zoo(column))
        else:
            section.columns.append(column)
    return list(found.values())


@cache
def _catalogue(name: str) -> dict[str, Clause]:
    """The clauses of a subsystem as this suite has them; none of one it does not know."""
    if name not in available():
        return {}
    return {clause.id: clause for clause in importlib.import_module(f"conformance.specs.{name}").CLAUSES}


def _failures(section: Section) -> Iterator[Shown]:
    """Failures, then warnings, of each candidate in turn, by clause."""
    catalogue = _catalogue(section.name)
    for column in section.columns:
        judged = {clause.id: clause for clause in column.part.clauses}
        found: list[tuple[Finding, str]] = [(f, _verdict(f, "fail")) for f in column.part.failures]
        found += [(f, _verdict(f, "warning")) for f in column.part.warnings]
        for finding, verdict in sorted(found, key=lambda pair: (pair[1] == "warning", pair[0].clause)):
            clause = catalogue.get(finding.clause)
            level = judged[finding.clause].level if finding.clause in judged else clause.level.value if clause else ""
            text, source = (clause.text, clause.source) if clause else ("", "")
            yield Shown(0, column, finding, verdict, level, text, source)


def _verdict(found: Finding, otherwise: str) -> str:
    return Verdict.KNOWN.value if found.status == "known" else otherwise


def _fill(section: Section, shown: list[Shown]) -> None:
    """The rows of a section: every clause that one of its reports judges."""
    catalogue = _catalogue(section.name)
    of: dict[tuple[int, str], list[Shown]] = {}
    for found in shown:
        of.setdefault((found.column.number, found.found.clause), []).append(found)
    rows: dict[str, Row] = {}
    for place, column in enumerate(section.columns):
        for clause in column.part.clauses:
            if clause.id not in rows:
                known = catalogue.get(clause.id)
                text, source, kind = (known.text, known.source, known.kind.value) if known else ("", "", "")
                rows[clause.id] = Row(clause.id, clause.level, text, source, kind, [None] * len(section.columns))
            mine = of.get((column.number, clause.id), [])
            rows[clause.id].cells[place] = Cell(clause.verdict, clause.exercised, mine)
    section.rows = sorted(rows.values(), key=lambda row: row.id)
