"""What commands print: standard output as it is, if it is there at all, and one line on standard error."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import textwrap

import click

NARROWEST = 20
"""Columns below which nobody reads."""
KEPT = re.compile(r"\s*(repeat\s+)?(python -m )?conformance \w")
"""Lines to be pasted, which are not broken."""
HANGING = re.compile(r" *(\S+( \S+)?  +)?")
"""Indentation and label of a line: what follows is wrapped beside them."""


def say(text: str) -> None:
    """Print on standard output; headlines in colour where that is wanted, no wider than where it is read."""
    if (columns := _columns()) is not None:
        text = "\n".join(part for line in text.split("\n") for part in _folded(line, columns))
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        text = "\n".join(_coloured(line) for line in text.split("\n"))
    put(text)


def put(text: str) -> None:
    """Print on standard output what programs read.

    Raises:
        OSError  it cannot be written
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:  # nobody reads on: end like a program that SIGPIPE ended
        _give_up()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        _give_up()
        raise OSError(error.errno, error.strerror, "standard output") from None


def complain(text: str) -> None:
    """Print on standard error."""
    print(f"conformance: {text}", file=sys.stderr, flush=True)


def open_missing() -> None:
    """Put something in the place of closed standard streams, for us and what we start: no file of ours takes it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _give_up() -> None:
    """What is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _columns() -> int | None:
    """How wide a line may be; None where nobody says."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def _folded(line: str, columns: int) -> list[str]:
    """A line in pieces that fit, without tearing words apart, each beside the first one's label."""
    if len(line) <= columns or KEPT.match(line):
        return [line]
    found = HANGING.match(line)
    hanging = found.end() if found is not None else 0
    if hanging > columns // 2:
        hanging = len(line) - len(line.lstrip())
    return textwrap.wrap(
        line,
        columns,
        subsequent_indent=" " * min(hanging, columns // 2),
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _coloured(line: str) -> str:
    if " violated by " in line:
        return click.style(line, fg="red", bold=True)
    if line.startswith(("  warning ", "  expected ", "  got ")) or " not followed by " in line:
        return click.style(line, fg="yellow")
    return line
