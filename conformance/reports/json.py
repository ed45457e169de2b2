"""The report for other programs: JSON lines, described by `report.schema.json` beside this file.

A header begins each subsystem's part, a footer ends the report. One without a footer is truncated and never a pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from conformance.reports.record import SCHEMA, AnyLine, Report, gathered, scattered
from conformance.verdict import UsageError

_DECODER = msgspec.json.Decoder(AnyLine)


class _Version(msgspec.Struct):
    """What says how the rest of a report is to be read."""

    schema: int = SCHEMA


_VERSION = msgspec.json.Decoder(_Version)


def render(report: Report) -> bytes:
    """One JSON object a line."""
    return b"".join(encode(line) + b"\n" for line in scattered(report))


def encode(what: Any) -> bytes:
    """Any record or plain value; lone surrogates, which UTF-8 does not have, as the text of their escapes."""
    try:
        return msgspec.json.encode(what)
    except UnicodeEncodeError:
        return msgspec.json.encode(_with_escapes(msgspec.to_builtins(what)))


def _with_escapes(what: Any) -> Any:
    match what:
        case str():
            return what.encode(errors="backslashreplace").decode()
        case dict():
            return {_with_escapes(key): _with_escapes(item) for key, item in what.items()}
        case list() | tuple():
            return [_with_escapes(item) for item in what]
    return what


def read(path: Path) -> Report:
    """A report that was written before; without a footer where its run did not end.

    Raises:
        UsageError  there is no such file, or a line of it is not of a report
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            _check_schema(line)
            found.append(_DECODER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: line {number} is not of a report: {error}") from None
    try:
        return gathered(found)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _check_schema(line: bytes) -> None:
    if (schema := _VERSION.decode(line).schema) != SCHEMA:
        raise msgspec.ValidationError(f"this version reads schema {SCHEMA}, not {schema}")
