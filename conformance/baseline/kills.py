"""The recorded kill matrix: which clause kills which defect of the zoo, so that a kill that is lost shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import tomlkit

from conformance.baseline.file import Broken, parsed, refused
from conformance.runs.strength import Kill
from conformance.trace import write_atomically
from conformance.verdict import UsageError

PREAMBLE = "Which clause kills which defect of the zoo. `conformance strength --record` writes it."

Matrix = dict[str, dict[str, str]]
"""Subsystem -> defect -> clause."""


def read(path: Path) -> Matrix:
    """A recorded matrix.

    Raises:
        UsageError  there is no such file, or it is none
    """
    try:
        data: Matrix = parsed(path.read_text(), 1).unwrap()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no kill matrix: {error}") from None
    except Broken as error:
        raise refused(path, error.problem) from None
    for name, kills in data.items():
        if not isinstance(kills, dict) or not all(isinstance(clause, str) for clause in kills.values()):
            raise UsageError(f"{path} is no kill matrix: {name} is not a table of defects, each with a clause")
    return data


def write(path: Path, found: Mapping[str, Sequence[Kill]], only: str = "*") -> None:
    """Record what was found; defects that `only` left out, and other subsystems, stay as they are."""
    matrix = read(path) if path.exists() else {}
    for name, kills in found.items():
        kept = {defect: clause for defect, clause in matrix.get(name, {}).items() if not fnmatchcase(defect, only)}
        matrix[name] = kept | _clauses(kills)
    document = tomlkit.document()
    document.add(tomlkit.comment(PREAMBLE))
    for name in sorted(matrix):
        table = tomlkit.table()
        for defect in sorted(matrix[name]):
            table.add(defect, matrix[name][defect])
        document.add(tomlkit.nl())
        document.add(name, table)
    write_atomically(path.resolve(), tomlkit.dumps(document))


def lost(recorded: Matrix, found: Mapping[str, Sequence[Kill]], only: str = "*") -> Iterator[str]:
    """Kills that are recorded and were not found again, each as a sentence."""
    for name, kills in found.items():
        before = {d: clause for d, clause in recorded.get(name, {}).items() if fnmatchcase(d, only)}
        now = _clauses(kills)
        tried = {kill.defect.id for kill in kills if kill.defect.candidate is not None}
        for defect, clause in before.items():
            if defect not in tried:
                yield f"{defect}, which {clause} killed, is no longer in the zoo"
            elif defect not in now:
                yield f"{defect} is no longer killed; {clause} killed it"
        if only == "*":
            yield from _idle(before, now)


def _idle(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Clauses that killed something and kill nothing any more, though all is still killed."""
    for clause in sorted(set(before.values()) - set(now.values())):
        once = [defect for defect, killer in before.items() if killer == clause and defect in now]
        if once:
            yield f"{clause} kills nothing any more; it killed {', '.join(once)}"


def _clauses(kills: Sequence[Kill]) -> dict[str, str]:
    return {kill.defect.id: kill.failure.clause.id for kill in kills if kill.failure is not None}
