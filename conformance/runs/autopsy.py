"""What a candidate died of that ended its own process: `os._exit`, a crash in C code, a signal, a sanitizer."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from conformance.processes import ended
from conformance.runs.checkpoint import OUTPUT

READ = 1 << 15
"""Bytes of the output, the last ones, that are looked at."""
LINES = 5
"""Lines of it that are told."""
WIDE = 160
"""Characters of a line that are told."""
OURS = tuple(
    f"{Path(__file__).parents[1]}/{part}" for part in ("abi/", "environment/", "runs/", "candidates/library.py")
)
"""Where Python code calls C code of a candidate: its place says nothing."""
SPENT = "used up the memory that it may have"
"""Of a process in which even the harness had no memory left."""

_SUMMARY = re.compile(r"^SUMMARY: (\w*Sanitizer: .*)$", re.MULTILINE)
_STACK = re.compile(
    r"^ +#\d+ 0x\w+ in (?!__interceptor|operator )(\S+) (?!\S*libsanitizer)(?:\S*/)?(\S+)", re.MULTILINE
)
_FATAL = "Fatal Python error: "
_FRAME = re.compile(r'^  File "([^"\n]*)", line (\d+) in (\S+)', re.MULTILINE)
_LIBRARY = re.compile(r'^  File "[^"\n]*/ctypes/__init__.py".*\n', re.MULTILINE)
_NUMBER = re.compile(r"^==\d+==\s*")


def how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code == -signal.SIGXFSZ:
        return f"wrote more than {OUTPUT >> 20} MiB to its output"
    return ended(code)


def told(how: str, output: str) -> str:
    """The same, with what the output says of it: a sanitizer's summary, the place in Python, the last lines."""
    summary = _SUMMARY.findall(output)
    if summary:
        frame = _STACK.search(output)
        where = "" if frame is None or frame[1] in summary[-1] else f", called by {frame[1]} at {frame[2]}"
        return f"{how}: {summary[-1]}{where}"
    output, fatal, frames = output.partition(_FATAL)
    place = _FRAME.search(_LIBRARY.sub("", frames))
    if fatal and place is not None and not place[1].startswith(OURS):
        how = f"{how}, at {Path(place[1]).name}:{place[2]} in {place[3]}"
    lines = [_NUMBER.sub("", line.rstrip())[:WIDE] for line in output.splitlines() if line.strip()]
    return "\n".join([how, *(f"| {line}" for line in lines[-LINES:])])
