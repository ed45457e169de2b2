"""Saved traces first: what failed once is tried before anything is searched for.

The suite ships traces of its own, one for each defect of the zoo and one for each field of the view; a user has a
folder of them, a *corpus*: whatever its files are called, each is a trace of some subsystem.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import re
import stat
import struct
from dataclasses import fields, replace
from pathlib import Path

import msgspec

from conformance.engines.context import Context, lacking
from conformance.engines.minimise import minimiser
from conformance.lockstep import Report, run_trace
from conformance.model.step import Parallel, Step
from conformance.real.scripts import Outcome, play_all, shipped
from conformance.subsystem import available, subsystem
from conformance.trace import Trace, TraceError, decode, encode, write_atomically
from conformance.verdict import Failure, HarnessError, UsageError

TRACES = Path(".conformance/traces")
"""Where failing traces go, so that the printed command can repeat them."""
SHIPPED = Path(__file__).resolve().parents[1] / "corpus"
"""The traces that the suite ships, a folder for each subsystem."""
LARGEST = 64 << 20
"""Bytes that a trace file may have; a trace of a million steps has fewer."""


def read(path: Path) -> Trace:
    """Read a trace file; UsageError with the path of the offending value when it is not one."""
    text = _text(path)
    name = _subsystem_of(text)
    known = {name: subsystem(name)} if name in available() else {}
    operations = {n: known[n].operations if n in known else {} for n in available()}
    try:
        trace = decode(text, {n: s.config for n, s in known.items()}, operations)
    except TraceError as error:
        raise UsageError(f"{path}: {error}") from None
    for number, step in enumerate(trace.steps):
        _check_faults(path, f"$.steps[{number}]", step, {f.name for f in fields(known[name].answers)})
    return trace


def _text(path: Path) -> bytes:
    """The bytes of a regular file of a bearable size; a pipe would make us wait, a device never ends."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            told = os.fstat(handle)
            if stat.S_ISDIR(told.st_mode):
                raise UsageError(f"{path}: {os.strerror(errno.EISDIR)}")
            if not stat.S_ISREG(told.st_mode):
                raise UsageError(f"{path}: not a regular file")
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    if len(text) > LARGEST:
        raise UsageError(f"{path}: larger than the {LARGEST >> 20} MiB that a trace file may have")
    return text


def _check_faults(path: Path, where: str, step: Step, calls: set[str]) -> None:
    """UsageError when a fault is planned for a call that cannot be refused."""
    sides = [step.op.left, step.op.right] if isinstance(step.op, Parallel) else []
    for inner in [*sides, *(other for _, other in step.during)]:
        _check_faults(path, where, inner, calls)
    for fault in step.faults:
        if fault.call not in calls:
            near = difflib.get_close_matches(fault.call, calls, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(calls))}"
            raise UsageError(f"{path}: {where}.answers: no call {fault.call!r} can be refused{hint}")


def _subsystem_of(text: bytes) -> str:
    """Which subsystem a trace says it is of, so that only that one is loaded."""
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return ""
    name = data.get("subsystem") if isinstance(data, dict) else None
    return name if isinstance(name, str) else ""


def files(folder: Path) -> list[Path]:
    """Trace files below a corpus folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*.json") if not path.is_dir()) if folder.is_dir() else []


def check(folder: Path, option: str = "--corpus") -> None:
    """Refuse a corpus that is not there, or a file in it that is no trace, before anything runs.

    Raises:
        UsageError  what is wrong, and where
    """
    if not folder.exists():
        raise UsageError(
            f"{option}={folder}: there is no such folder; `conformance corpus init {folder}` makes an empty one"
        )
    if not folder.is_dir():
        raise UsageError(f"{option}={folder}: not a folder")
    for path in files(folder):
        read(path)


def run(context: Context, own: Path | None = None) -> None:
    """Judge the user's traces, then the suite's, under the candidate's profile; of a real implementation play scripts.

    Raises:
        HarnessError  what was measured of it is not so: its adapter is wrong, or it is another than it was
    """
    different = _play(context) if context.part == 0 else []
    _judge(context, own)
    if different:
        raise HarnessError(f"{context.candidate.spec} does not reproduce what was measured: {'; '.join(different)}")


def _play(context: Context) -> list[str]:
    """The differences, a sentence each, of the scripts that are shipped for the candidate's adapter."""
    adapter = context.candidate.adapter
    if adapter is None or not adapter.scripts:
        return []
    different = []
    scripts = shipped(SHIPPED / context.subsystem.name / "real" / "raw", adapter.scripts)
    figures = dict.fromkeys(Outcome, 0)
    for played in play_all(scripts, adapter.bench):
        figures[played.outcome] += 1
        if played.outcome is Outcome.DIFFERENT:
            script = played.script
            different.append(f"{script.fact}, {script.row} ({script.name}): {played.difference}")
    context.notes |= {f"measured facts {outcome.value}": n for outcome, n in figures.items() if n}
    return different


def _judge(context: Context, own: Path | None) -> None:
    """All traces that the candidate can take."""
    number = 0
    for folder in (*([own] if own is not None else []), SHIPPED / context.subsystem.name):
        for path in files(folder):
            trace = read(path)
            if trace.subsystem != context.subsystem.name or lacking(
                context.subsystem, trace, context.candidate.capabilities
            ):
                continue
            number += 1
            if (number - 1) % context.parts != context.part:
                continue
            if context.expired():
                return
            report = _judged(context, path, replace(trace, profile=context.profile))
            context.tally.add(report.tally)
            for failure in [*report.warnings, *([report.failure] if report.failure else [])]:
                context.note_failure(failure, minimiser(context))


def _judged(context: Context, path: Path, trace: Trace) -> Report:
    try:
        return run_trace(context.subsystem, trace, context.candidate.factory)
    except OUT_OF_RANGE as error:
        raise HarnessError(f"{path}: {out_of_range(error)}") from error
    except HarnessError as error:
        raise HarnessError(f"{path}: {error}") from error


OUT_OF_RANGE = (ArithmeticError, AssertionError, LookupError, ValueError, struct.error)
"""What a world raises over a value of a trace that is of the right type and means nothing to it."""


def out_of_range(error: BaseException) -> str:
    """That, as a sentence."""
    return f"a value in it is out of its range: {type(error).__name__}: {error}"


def save(folder: Path, failure: Failure) -> Path:
    """Keep a failure's trace below a folder; its name is its signature and a digest of its text."""
    assert failure.trace is not None
    return put(folder, slug(failure.signature), failure.trace)


def put(folder: Path, stem: str, trace: Trace) -> Path:
    """Write a trace where it belongs; one that is there already is left as it is."""
    text = encode(trace)
    path = folder / trace.subsystem / f"{stem}-{digest(text)}.json"
    if not path.is_file():
        write_atomically(path, text)
    return path


def slug(signature: str) -> str:
    """A signature as it stands in the names of files."""
    return signature.replace(":", "-").replace("|", "+")


def digest(text: str) -> str:
    """Tells traces apart in the names of files."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def stem(path: Path) -> str:
    """The name of a trace file without the digest."""
    return re.sub(r"-[0-9a-f]{8}$", "", path.stem)
