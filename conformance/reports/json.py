"""The report for other programs: JSON lines, described by `report.schema.json` beside this file.

A header begins each subsystem's part, a footer ends the report. One without a footer is truncated and never a pass.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from conformance.reports.record import AnyLine, Report, gathered, scattered
from conformance.verdict import UsageError

_DECODER = msgspec.json.Decoder(AnyLine)


def render(report: Report) -> bytes:
    """One JSON object a line."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in scattered(report))


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
            found.append(_DECODER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: line {number} is not of a report: {error}") from None
    try:
        return gathered(found)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
