"""Reports of shards and of workers as the report of the one run that they are parts of.

What a merged report says is concluded again by the code that concludes runs, from the counts and the findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from conformance.baseline.entry import Stale
from conformance.reports.record import Finding, Header, Line, Part, Report, StaleFound, whole
from conformance.reports.version import SUITE
from conformance.runs.conclusion import Conclusion, conclude, together
from conformance.runs.request import ALL_ENGINES, BASELINE, is_complete
from conformance.runs.result import Result
from conformance.subsystem import available
from conformance.trace import TraceError, to_data
from conformance.verdict import Ending, Exit, UsageError, Verdict

SAME = {
    "suite": "version",
    "schema": "schema",
    "candidate": "candidate",
    "profile": "profile",
    "capabilities": "capabilities",
    "budget": "budget",
    "only": "pattern of clauses",
    "strict": "--strict",
}
"""What the parts of one run have in common, and what it is called."""


@dataclass(frozen=True, slots=True)
class Source:
    """A report, and what to call it."""

    name: str
    report: Report


@dataclass(frozen=True, slots=True)
class Merged:
    """What the reports come to together."""

    lines: list[Line]
    """Without a footer where one of the parts has none."""
    ending: Ending
    conclusions: list[Conclusion]


def merge(sources: Sequence[Source]) -> Merged:
    """One report of several; it does not matter in which order they are given.

    Raises:
        UsageError  they are not of one run: another version, candidate, profile, or the same work twice
    """
    grouped = _grouped(sources)
    headers, conclusions = [], []
    for parts in grouped.values():
        headers.append(_header(parts))
        concluded = _concluded(parts, headers[-1])
        if concluded is not None:
            conclusions.append(concluded)
    footers = [source.report.footer for source in sources]
    interrupted = any(footer is not None and footer.interrupted for footer in footers)
    ending = together(conclusions, interrupted)
    saved = dict(_saved(conclusions, [part for source in sources for part in source.report.parts]))
    seconds = sum(footer.seconds for footer in footers if footer is not None)
    lines = whole(headers, conclusions, ending, seconds=seconds, interrupted=interrupted, saved=saved)
    truncated = [source.name for source in sources if source.report.footer is None]
    if truncated:
        return Merged(lines[:-1], _unfinished(ending, truncated), conclusions)
    return Merged(lines, ending, conclusions)


def _unfinished(ending: Ending, truncated: Sequence[str]) -> Ending:
    if ending.exit in (Exit.DOES_NOT_CONFORM, Exit.HARNESS):
        return Ending(ending.exit, f"{ending.why}; {truncated[0]} is truncated")
    return Ending(Exit.INCONCLUSIVE, f"inconclusive: {truncated[0]} is truncated")


def _grouped(sources: Sequence[Source]) -> dict[str, list[tuple[str, Part]]]:
    """The parts of each subsystem with the names of their reports, in the order in which a run has them."""
    grouped: dict[str, list[tuple[str, Part]]] = {}
    for source in sources:
        for part in source.report.parts:
            _check(source.name, part)
            grouped.setdefault(part.header.subsystem, []).append((source.name, part))
    return {name: grouped[name] for name in available() if name in grouped}


def _check(name: str, part: Part) -> None:
    """Refuse what cannot be concluded again here."""
    if part.header.suite != SUITE:
        raise UsageError(f"{name}: it is of {part.header.suite}, and this is {SUITE}")
    if part.header.subsystem not in available():
        raise UsageError(f"{name}: there is no subsystem {part.header.subsystem!r} here")
    if part.kills:
        raise UsageError(f"{name}: it is a report of strength, and only those of runs are merged")


def _header(parts: Sequence[tuple[str, Part]]) -> Header:
    """What was tested and how, once for all parts."""
    first_name, first = parts[0][0], parts[0][1].header
    done: dict[tuple[str, int | None], str] = {}
    for name, part in parts:
        head = part.header
        for field, called in SAME.items():
            mine, theirs = getattr(first, field), getattr(head, field)
            if mine != theirs:
                raise UsageError(f"{name}: another {called} than in {first_name}: {_told(theirs)}, not {_told(mine)}")
        for unit in head.units:
            before = done.setdefault((unit, head.seed), name)
            if before is not name and head.seed is not None:
                raise UsageError(f"{name}: the work of {unit} is in {before} already")
    heads = [part.header for _, part in parts]
    seeds = {head.seed for head in heads}
    return msgspec.structs.replace(
        first,
        seed=seeds.pop() if len(seeds) == 1 else None,
        engines=tuple(engine for engine in ALL_ENGINES if any(engine in head.engines for head in heads)),
        units=tuple(sorted({unit for head in heads for unit in head.units}, key=_place)),
    )


def _told(value: object) -> str:
    return repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


def _place(unit: str) -> tuple[int, int]:
    """Where in a run a unit stands."""
    _, engine, part, *_ = [*unit.split("."), "", ""]
    order = (BASELINE, *ALL_ENGINES)
    return order.index(engine) if engine in order else len(order), int(part) if part.isdecimal() else 0


def _concluded(parts: Sequence[tuple[str, Part]], header: Header) -> Conclusion | None:
    """The verdict on all parts together; None where none of them was begun."""
    results = [_result(part) for _, part in parts if part.conclusion is not None or part.clauses]
    if not results:
        return None
    complete = is_complete(header.subsystem, header.units)
    hunting = header.budget is not None
    try:
        return conclude(results, strict=header.strict, complete=complete, only=header.only, hunting=hunting)
    except TraceError as error:
        raise UsageError(f"{', '.join(name for name, _ in parts)}: a trace cannot be read: {error}") from None


def _result(part: Part) -> Result:
    """What a report says of a candidate, as if one unit had found it all."""
    head, concluded = part.header, part.conclusion
    result = Result(
        unit="",
        subsystem=head.subsystem,
        spec=head.candidate,
        profile=head.profile,
        capabilities=list(head.capabilities),
        clauses={clause.id: clause.exercised for clause in part.clauses},
        failures=[msgspec.to_builtins(found) for found in part.failures],
        warnings=[msgspec.to_builtins(found) for found in part.warnings],
        scopes=[msgspec.to_builtins(seen) for seen in part.scopes],
        known={found.signature: found.reason for found in _findings(part) if found.status == "known"},
        gaps={clause.id: clause.gap for clause in part.clauses if clause.gap is not None},
        stale=[_stale(found) for found in part.stale],
    )
    if head.candidate.startswith("real:"):
        result.judged = [clause.id for clause in part.clauses if clause.verdict != Verdict.NOT_APPLICABLE.value]
    if concluded is not None:
        result.steps, result.seconds = concluded.steps, concluded.seconds
        result.notes, result.errors = dict(concluded.notes), list(concluded.errors)
        result.interrupted = concluded.interrupted
    return result


def _findings(part: Part) -> Iterator[Finding]:
    yield from part.failures
    yield from part.warnings


def _saved(conclusions: Sequence[Conclusion], parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    """(signature, where its trace is) of the findings that were kept."""
    paths = {(f.signature, msgspec.json.encode(f.trace)): f.saved for part in parts for f in _findings(part)}
    for found in [f for conclusion in conclusions for f in [*conclusion.failures, *conclusion.warnings]]:
        assert found.trace is not None
        yield found.signature, paths.get((found.signature, msgspec.json.encode(to_data(found.trace))), "")


def _stale(found: StaleFound) -> dict[str, str]:
    """As a result has it."""
    return {name: getattr(found, name) for name in Stale.__struct_fields__}
