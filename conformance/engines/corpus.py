"""Saved traces first: what failed once is tried before anything is searched for."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import fields
from pathlib import Path

import msgspec

from conformance.engines.context import Context
from conformance.engines.minimise import minimiser
from conformance.lockstep import run_trace
from conformance.model.step import Parallel, Step
from conformance.subsystem import available, subsystem
from conformance.trace import Trace, TraceError, decode, encode, write_atomically
from conformance.verdict import Failure, UsageError

TRACES = Path(".conformance/traces")
"""Where failing traces go, so that the printed command can repeat them."""


def read(path: Path) -> Trace:
    """Read a trace file; UsageError with the path of the offending value when it is not one."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
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
    except msgspec.DecodeError:
        return ""
    name = data.get("subsystem") if isinstance(data, dict) else None
    return name if isinstance(name, str) else ""


def files(folder: Path) -> list[Path]:
    """Trace files below a corpus folder, in a fixed order."""
    return sorted(folder.rglob("*.json")) if folder.is_dir() else []


def run(context: Context, folder: Path) -> None:
    """Judge every saved trace of the subsystem under the candidate's profile."""
    for number, path in enumerate(files(folder)):
        trace = read(path)
        if trace.subsystem != context.subsystem.name or trace.profile != context.profile:
            continue
        if number % context.parts != context.part or not context.allows(trace.config):
            continue
        if context.expired():
            return
        report = run_trace(context.subsystem, trace, context.candidate.factory)
        context.tally.add(report.tally)
        for failure in [*report.warnings, *([report.failure] if report.failure else [])]:
            context.note_failure(failure, minimiser(context))


def save(folder: Path, failure: Failure) -> Path:
    """Keep a failure's trace in the corpus; its name is its signature and a digest of its text."""
    assert failure.trace is not None
    text = encode(failure.trace)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = failure.signature.replace(":", "-").replace("|", "+")
    path = folder / failure.trace.subsystem / f"{name}-{digest}.json"
    write_atomically(path, text)
    return path
