"""The forms in which reports are written, and how they get to their files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from conformance.reports import annotations as workflow
from conformance.reports import github, html, json, junit, kcidb, ktap, sarif, tap
from conformance.reports.record import Line, Report, gathered
from conformance.trace import write_atomically
from conformance.verdict import UsageError

FORMS: dict[str, Callable[[Report], bytes]] = {
    "json": json.render,
    "junit": junit.render,
    "ktap": ktap.render,
    "tap": tap.render,
    "kcidb": kcidb.render,
    "sarif": sarif.render,
    "github": github.render,
    "annotations": workflow.render,
    "html": html.render,
}
"""By the word before the colon of `--report`."""
OUTPUT = ("-", "/dev/stdout")
"""Paths that mean standard output."""
TOGETHER: dict[str, Callable[[Sequence[tuple[str, Report]]], bytes]] = {"html": html.together}
"""Those that hold several reports, each with a name."""
READY: dict[str, Callable[[], object]] = {"html": html.template}
"""Raises UsageError where what the form needs is not installed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One report that somebody asked for."""

    form: str
    path: Path | None
    """None: standard output."""
    asked: str
    """The option as it was given."""


def targets(texts: Sequence[str], option: str = "--report") -> tuple[Target, ...]:
    """Where reports go; each can be written, which is found out before anything runs.

    Raises:
        UsageError  not `FORM:PATH`, a path where nothing can be written, or a form that needs what is not installed
    """
    found = []
    for text in texts:
        form, colon, name = text.partition(":")
        if form not in FORMS or not colon or not name:
            meant = get_close_matches(form, FORMS, 1) if form not in FORMS else []
            near = f"; did you mean {meant[0]!r}?" if meant else ""
            raise UsageError(f"{option}={text}: expected FORM:PATH, where FORM is {', '.join(FORMS)}{near}")
        if name in OUTPUT:
            found.append(Target(form, None, f"{option}={text}"))
            continue
        path = Path(name).absolute()
        _check(path, f"{option}={text}")
        ready(form)
        found.append(Target(form, path, f"{option}={text}"))
    return tuple(found)


def ready(form: str) -> None:
    """Find out before anything runs whether a form can be written here.

    Raises:
        UsageError  something it needs is not installed
    """
    if form in READY:
        READY[form]()


def _check(path: Path, option: str) -> None:
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a directory")
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no directory {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
        raise UsageError(f"{option}: {path} cannot be written")


def begin(chosen: Sequence[Target], headers: Sequence[Line]) -> None:
    """Write reports that are plainly unfinished, before the run starts.

    Whatever ends the run, what stands at the path is either this run's whole report or marked as unfinished.

    Raises:
        UsageError  a path where nothing can be written
    """
    for target in chosen:
        if target.path is not None and _is_regular(target.path):
            try:
                _write(target, gathered(headers))
            except OSError as error:
                raise UsageError(f"{target.asked}: {error.strerror or error}") from None


def write(chosen: Sequence[Target], lines: Sequence[Line]) -> None:
    """Write reports, each whole or not at all; devices and pipes are written to as they are.

    Raises:
        OSError  the disk is full, or the path is gone
    """
    for target in chosen:
        _write(target, gathered(lines))


def _write(target: Target, report: Report) -> None:
    put(target, FORMS[target.form](report))


def put(target: Target, data: bytes) -> None:
    """Write a report as it is: whole or not at all, where the path is a file."""
    if target.path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        if _is_regular(target.path):
            write_atomically(target.path.resolve(), data)
        else:
            target.path.write_bytes(data)
    except OSError as error:
        if error.filename is None:
            error.filename = str(target.path)
        raise


def _is_regular(path: Path) -> bool:
    return path.is_file() or not path.exists()
