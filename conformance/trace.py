"""Traces as files: versioned JSON, strict in what it accepts, never pickle and never eval."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from conformance.model.step import Fault, Parallel, Step

SCHEMA = 1
"""Version of the trace format."""


class TraceError(ValueError):
    """The text is not a trace; the message names the offending value by its path."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A header and the steps: all that is needed to repeat a run on any candidate."""

    subsystem: str
    profile: str
    config: Any
    """The subsystem's configuration record."""
    steps: tuple[Step, ...]

    def with_steps(self, steps: tuple[Step, ...]) -> Trace:
        """The same header over other steps."""
        return replace(self, steps=steps)


def to_data(trace: Trace) -> dict[str, Any]:
    """The trace as JSON-ready values; fields that hold their default are left out."""
    return {
        "schema": SCHEMA,
        "subsystem": trace.subsystem,
        "profile": trace.profile,
        "config": _record(trace.config),
        "steps": [_step(step) for step in trace.steps],
    }


def encode(trace: Trace) -> str:
    """The trace as the text of a trace file."""
    return msgspec.json.format(msgspec.json.encode(to_data(trace)), indent=1).decode() + "\n"


def decode(text: str | bytes, config: Mapping[str, type], operations: Mapping[str, Mapping[str, type]]) -> Trace:
    """Read a trace file.

    `config` and `operations` give, by subsystem, the configuration record and the operations
    by name.

    Raises:
        TraceError  not JSON, an unknown version, field, operation or subsystem, a wrong type
    """
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise TraceError(f"not a trace file: {error}") from None
    except RecursionError:
        raise TraceError("not a trace file: its values are nested too deep") from None
    return from_data(data, config, operations)


def from_data(data: Any, config: Mapping[str, type], operations: Mapping[str, Mapping[str, type]]) -> Trace:
    """Check decoded JSON values and build the trace; raises TraceError as `decode` does."""
    _object(data, "$", {"schema", "subsystem", "profile", "config", "steps"}, {"schema", "subsystem", "steps"})
    if data["schema"] != SCHEMA:
        raise TraceError(f"$.schema: this version reads schema {SCHEMA}, not {data['schema']!r}")
    subsystem = data["subsystem"]
    if not isinstance(subsystem, str) or subsystem not in operations:
        raise TraceError(f"$.subsystem: unknown subsystem {subsystem!r}; known: {', '.join(sorted(operations))}")
    profile = data.get("profile", "upstream")
    if not isinstance(profile, str):
        raise TraceError(f"$.profile: expected str, got {profile!r}")
    steps = data["steps"]
    if not isinstance(steps, list):
        raise TraceError(f"$.steps: expected array, got {type(steps).__name__}")
    known = operations[subsystem]
    return Trace(
        subsystem=subsystem,
        profile=profile,
        config=_convert(data.get("config", {}), config[subsystem], "$.config"),
        steps=tuple(_read_step(step, known, f"$.steps[{i}]") for i, step in enumerate(steps)),
    )


def write_atomically(path: Path, text: str | bytes) -> None:
    """Replace `path` by `text`, or leave it as it was: a reader never sees half a file.

    Raises:
        OSError  the directory cannot be written, or the disk is full
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _record(value: Any) -> Any:
    """A frozen record as an object without its defaulted fields; containers recursively."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = {}
        for f in dataclasses.fields(value):
            item = getattr(value, f.name)
            if f.default is dataclasses.MISSING or item != f.default:
                kept[f.name] = _record(item)
        return kept
    if isinstance(value, tuple | list):
        return [_record(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_record(item) for item in value)
    return msgspec.to_builtins(value)


def _step(step: Step) -> dict[str, Any]:
    if isinstance(step.op, Parallel):
        data: dict[str, Any] = {
            "op": "Parallel",
            "left": _step(step.op.left),
            "right": _step(step.op.right),
            "schedule": list(step.op.schedule),
        }
    else:
        data = {"op": type(step.op).__name__, **_record(step.op)}
    if step.faults:
        data["answers"] = {f.call if f.nth == 1 else f"{f.call}#{f.nth}": f.value for f in step.faults}
    if step.during:
        data["during"] = [[k, _step(inner)] for k, inner in step.during]
    return data


def _read_step(data: Any, known: Mapping[str, type], path: str, *, alone: bool = True) -> Step:
    if not isinstance(data, dict) or not isinstance(data.get("op"), str):
        raise TraceError(f"{path}.op: a step is an object with the name of its operation")
    fields = {k: v for k, v in data.items() if k not in ("op", "answers", "during")}
    if not alone and (data["op"] == "Parallel" or "during" in data):
        raise TraceError(f"{path}: a step beside or within another has no company of its own")
    if data["op"] == "Parallel":
        _object(fields, path, {"left", "right", "schedule"}, {"left", "right"})
        op: Any = Parallel(
            _read_step(fields["left"], known, f"{path}.left", alone=False),
            _read_step(fields["right"], known, f"{path}.right", alone=False),
            _convert(fields.get("schedule", []), tuple[int, ...], f"{path}.schedule"),
        )
    elif data["op"] in known:
        op = _convert(fields, known[data["op"]], path)
    else:
        raise TraceError(f"{path}.op: unknown operation {data['op']!r}; known: {', '.join(sorted(known))}")
    return Step(
        op,
        faults=_read_faults(data.get("answers", {}), f"{path}.answers"),
        during=_read_during(data.get("during", []), known, f"{path}.during"),
    )


def _read_faults(data: Any, path: str) -> tuple[Fault, ...]:
    if not isinstance(data, dict):
        raise TraceError(f"{path}: expected object, got {type(data).__name__}")
    faults = []
    for key, value in data.items():
        call, _, nth = key.partition("#")
        if type(value) is not int or value == 0:
            raise TraceError(f"{path}.{key}: expected a non-zero int, got {value!r}")
        if nth and not (nth.isdecimal() and int(nth) > 0):
            raise TraceError(f"{path}.{key}: what follows # is the number of the call, from 1")
        faults.append(Fault(call, value, int(nth or 1)))
    return tuple(faults)


def _read_during(data: Any, known: Mapping[str, type], path: str) -> tuple[tuple[int, Step], ...]:
    if not isinstance(data, list):
        raise TraceError(f"{path}: expected array, got {type(data).__name__}")
    inner = []
    for i, pair in enumerate(data):
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and pair[0] >= 0):
            raise TraceError(f"{path}[{i}]: expected [point, step], got {pair!r}")
        inner.append((pair[0], _read_step(pair[1], known, f"{path}[{i}][1]", alone=False)))
    return tuple(inner)


def _convert(data: Any, kind: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(data, dict):
        names = {f.name for f in dataclasses.fields(kind)}
        _object(data, path, names, set())
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        message, _, inner = str(error).partition(" - at `")
        inner = inner.rstrip("`").removeprefix("$")
        raise TraceError(f"{path}{inner}: {message}") from None


def _object(data: Any, path: str, allowed: set[str], required: set[str]) -> None:
    if not isinstance(data, dict):
        raise TraceError(f"{path}: expected object, got {type(data).__name__}")
    for name in data:
        if name not in allowed:
            raise TraceError(f"{path}.{name}: unknown field; known: {', '.join(sorted(allowed))}")
    for name in sorted(required - set(data)):
        raise TraceError(f"{path}.{name}: missing")
