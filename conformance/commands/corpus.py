"""`conformance corpus`: a folder of traces, committed beside a candidate, that every run tries first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.candidates.load import builtin_names, load
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.lockstep import run_trace
from conformance.subsystem import subsystem
from conformance.trace import Trace, encode, write_atomically
from conformance.verdict import Ending, Exit, UsageError

README = """\
# Traces that failed once

`conformance run ... --corpus {name}` tries these before it searches for anything, and with `--budget` adds what it
finds. Each is named for what it showed; `conformance replay FILE --candidate SPEC` shows its steps. Keep them under
version control. `conformance corpus lint {name}` says which cannot show anything any more.
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about one file that somebody should know."""

    path: Path
    text: str
    is_useless: bool = False
    """Whether nothing is lost when the file goes."""


def init(folder: Path) -> Ending:
    """Make an empty corpus; a folder that is there becomes one, with all that is in it."""
    _make(folder)
    return Ending(Exit.CONFORMS, f"{folder} is a corpus of {len(corpus.files(folder))} traces")


def add(folder: Path, paths: tuple[Path, ...]) -> Ending:
    """Copy trace files into a corpus, which is made where there is none; each at most once."""
    traces = [(corpus.stem(path), corpus.read(path)) for path in paths]
    _make(folder)
    there = {encode(corpus.read(path)) for path in corpus.files(folder)}
    added = 0
    for stem, trace in traces:
        text = encode(trace)
        if text not in there:
            corpus.put(folder, stem, trace)
            there.add(text)
            added += 1
    return Ending(Exit.CONFORMS, f"{added} traces added to {folder}, {len(traces) - added} were there already")


def lint(folder: Path, say: Say) -> Ending:
    """Say what is wrong with the files of a corpus; 1 where something is."""
    remarks = _remarks(folder)
    for remark in remarks:
        say(f"{remark.path}: {remark.text}")
    code = Exit.DOES_NOT_CONFORM if remarks else Exit.CONFORMS
    return Ending(code, f"{len(remarks)} remarks on the {len(corpus.files(folder))} traces of {folder}")


def prune(folder: Path, say: Say) -> Ending:
    """Remove the files of a corpus that show nothing that others do not show; what is no trace stays."""
    useless = [remark for remark in _remarks(folder) if remark.is_useless]
    for remark in useless:
        remark.path.unlink()
        say(f"{remark.path}: removed: {remark.text}")
    return Ending(Exit.CONFORMS, f"{len(useless)} traces removed, {len(corpus.files(folder))} left in {folder}")


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):  # an empty folder cannot be committed
            write_atomically(folder / "README.md", README.format(name=folder.name))
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror}") from None


def _remarks(folder: Path) -> list[Remark]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: {'not a folder' if folder.exists() else 'there is no such folder'}")
    return list(_looked_at(folder))


def _looked_at(folder: Path) -> Iterator[Remark]:
    seen: dict[str, Path] = {}
    for path in corpus.files(folder):
        try:
            trace = corpus.read(path)
        except UsageError as error:
            yield Remark(path, str(error).removeprefix(f"{path}: "))
            continue
        text = encode(trace)
        if text in seen:
            yield Remark(path, f"the same trace as {seen[text]}", is_useless=True)
            continue
        seen[text] = path
        try:
            possible = _possible(trace)
        except corpus.OUT_OF_RANGE as error:
            yield Remark(path, corpus.out_of_range(error))
            continue
        if possible < len(trace.steps):
            left_out = len(trace.steps) - possible
            told = f"{left_out} of {len(trace.steps)} steps cannot happen in this version's model"
            yield Remark(path, told, is_useless=possible == 0)


def _possible(trace: Trace) -> int:
    """How many steps of a trace can happen, on the shipped candidate that gets furthest."""
    of = subsystem(trace.subsystem)
    if trace.profile not in of.profiles:
        trace = replace(trace, profile=of.default_profile)
    passed = []
    for name in builtin_names(of):
        candidate = load(f"builtin:{name}", of)
        if not lacking(of, trace, candidate.capabilities):
            report = run_trace(of, trace, candidate.factory, record=True)
            passed += [len(report.steps)] if report.failure is None else []
    return max(passed, default=len(trace.steps))  # where all fail, what follows may well be possible
