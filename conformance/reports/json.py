"""The report for other programs: JSON lines, described by `report.schema.json` beside this file.

A header begins each subsystem's part, a footer ends the report. A report without a footer is
truncated and never a pass, so one without is written before the run starts: whatever ends the
run, what stands at the path is either this run's whole report or marked as unfinished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from conformance.reports.version import SUITE
from conformance.runs.conclusion import Conclusion
from conformance.runs.result import failure_to_data
from conformance.runs.strength import Kill
from conformance.trace import write_atomically
from conformance.verdict import Exit, UsageError

SCHEMA = 1
"""Version of the report format."""

Line = dict[str, Any]


def header(
    subsystem: str,
    candidate: str,
    profile: str,
    *,
    seed: int = 0,
    budget: float | None = None,
    engines: Sequence[str] = (),
    capabilities: Sequence[str] = (),
) -> Line:
    """What was tested, and how."""
    return {
        "kind": "header",
        "schema": SCHEMA,
        "suite": SUITE,
        "subsystem": subsystem,
        "profile": profile,
        "candidate": candidate,
        "capabilities": sorted(capabilities),
        "seed": seed,
        "budget": budget,
        "engines": list(engines),
    }


def findings(conclusion: Conclusion) -> Iterator[Line]:
    """One line per clause, then the failures, then the breaches of SHOULD clauses."""
    for clause, verdict in conclusion.verdicts.items():
        yield {
            "kind": "clause",
            "id": clause.id,
            "level": clause.level.value,
            "verdict": verdict.value,
            "exercised": conclusion.exercised.get(clause, 0),
        }
    for failure in conclusion.failures:
        yield {"kind": "failure", **failure_to_data(failure)}
    for warning in conclusion.warnings:
        yield {"kind": "warning", **failure_to_data(warning)}


def kill(found: Kill) -> Line:
    """What became of one defect of the zoo."""
    return {
        "kind": "kill",
        "defect": found.defect.id,
        "clause": found.failure.clause.id if found.failure is not None else None,
        "expected": list(found.defect.clauses),
        "killed": found.is_killed,
        "engine": found.engine,
        "steps": found.steps,
        "seconds": round(found.seconds, 3),
        "why_not": found.defect.why_not,
    }


def footer(code: Exit, why: str, *, steps: int, seconds: float, interrupted: bool = False) -> Line:
    """The last line: how it ended."""
    return {
        "kind": "footer",
        "exit": int(code),
        "why": why,
        "steps": steps,
        "seconds": round(seconds, 3),
        "interrupted": interrupted,
    }


def begin(paths: Sequence[Path], lines: Sequence[Line]) -> None:
    """Write the headers before the run starts: a report that is plainly unfinished.

    Raises:
        UsageError  a path where nothing can be written
    """
    for path in paths:
        if _is_regular(path):
            try:
                write(path, lines)
            except OSError as error:
                raise UsageError(f"--report=json:{path}: {error.strerror or error}") from None


def write(path: Path, lines: Sequence[Line]) -> None:
    """Write a report, whole or not at all; devices and pipes are written to as they are.

    Raises:
        OSError  the disk is full, or the path is gone
    """
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    if _is_regular(path):
        write_atomically(path.resolve(), text)
    else:
        with path.open("wb") as file:
            file.write(text)


def _is_regular(path: Path) -> bool:
    return path.is_file() or not path.exists()
