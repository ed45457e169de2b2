"""How far a long run is: live lines on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.live import Live

EVERY = 5.0
"""Seconds between two plain lines."""
FIRST = 1.0
"""Seconds until the first one."""
ROWS = 8
"""Running jobs shown at most."""
NEXT = 2
"""Jobs that come next, in a plain line."""


@dataclass(slots=True)
class _Row:
    steps: int = 0
    clauses: int = 0
    failures: int = 0
    started: float = 0.0


def counted(n: int, what: str) -> str:
    """`1 failure`, `2 failures`."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


class Progress:
    """Shows the jobs that run and what they have found together. Use as a context manager."""

    def __init__(self, names: list[str], *, has_steps: bool = True) -> None:
        self.names = names
        self.rows: dict[int, _Row] = {}
        self.over: set[int] = set()
        """Jobs that are done."""
        self.steps = 0
        """Steps of the jobs that are done."""
        self.clauses: set[str] = set()
        """Clauses that they exercised."""
        self.signatures: set[str] = set()
        """Failures that they found."""
        self.started = time.monotonic()
        self.said = self.started - max(EVERY - FIRST, 0.0)
        self.has_steps = has_steps
        self.live = _live()

    def __enter__(self) -> Self:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def tell(self, number: int, steps: int, clauses: int, failures: int, *_found: dict[str, Any]) -> None:
        """Job `number` has got this far."""
        row = self.rows.get(number)
        if row is None:
            row = self.rows[number] = _Row(started=time.monotonic())
        row.steps, row.clauses, row.failures = steps, clauses, failures
        self._show()

    def end(self, number: int, steps: int, clauses: Iterable[str], signatures: Iterable[str]) -> None:
        """Job `number` is done."""
        self.rows.pop(number, None)
        self.over.add(number)
        self.steps += steps
        self.clauses.update(clauses)
        self.signatures.update(signatures)
        self._show()

    @property
    def is_over(self) -> bool:
        """Whether all jobs are done."""
        return len(self.over) >= len(self.names)

    def first(self, signature: str, told: str) -> None:
        """The first failure stays in sight, in full, while the rest goes on."""
        self._say(f"first failure after {time.monotonic() - self.started:.1f} s: {signature}\n\n{told}\n")

    def _say(self, lines: str) -> None:
        """Lines that stay."""
        if self.live is not None:
            self.live.console.print(lines, soft_wrap=True, markup=False, highlight=False)
        elif sys.stderr is not None:
            print(lines, file=sys.stderr, flush=True)

    def _show(self) -> None:
        if self.live is not None:
            from rich.text import Text

            lines = [self._total(), *(self._line(number) for number in list(self.rows)[:ROWS])]
            if then := self._named(self._waiting()):
                lines.append(f"        then {then}")
            self.live.update(Text("\n".join(lines)))
        elif time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            running, then = self._named(self.rows), self._named(self._waiting(), NEXT)
            self._say(self._total() + (f"; running {running}" if running else "") + (f"; then {then}" if then else ""))

    def _waiting(self) -> list[int]:
        """Jobs that have not begun, as far as anybody can tell."""
        return [number for number in range(len(self.names)) if number not in self.over and number not in self.rows]

    def _named(self, numbers: Iterable[int], most: int = ROWS) -> str:
        """Their names, the first ones of many."""
        named = [self.names[number] for number in numbers]
        return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")

    def _steps(self) -> int:
        return self.steps + sum(row.steps for row in self.rows.values())

    def _total(self) -> str:
        """What all jobs have done; jobs may find the same, so that of those that run only the most counts."""
        steps = self._steps()
        clauses = max(len(self.clauses), *(row.clauses for row in self.rows.values()), 0)
        failures = max(len(self.signatures), *(row.failures for row in self.rows.values()), 0)
        elapsed = time.monotonic() - self.started
        if not self.has_steps:
            return f"{elapsed:4.0f} s  {len(self.over)}/{len(self.names)} done"
        speed = steps / max(elapsed, 0.1)
        return (
            f"{elapsed:4.0f} s  {len(self.over)}/{len(self.names)} done  {steps:,} steps  {speed:,.0f}/s"
            f"  {counted(clauses, 'clause')} exercised  {counted(failures, 'failure')}"
        )

    def _line(self, number: int) -> str:
        row = self.rows[number]
        speed = row.steps / max(time.monotonic() - row.started, 0.1)
        failures = counted(row.failures, "failure")
        return f"        {self.names[number]:<28} {row.steps:>12,} steps {speed:>10,.0f}/s  {failures}"


def _live() -> Live | None:
    """Lines that change, on a terminal that can; elsewhere what draws them is not even loaded."""
    if sys.stderr is None or not sys.stderr.isatty() or "NO_COLOR" in os.environ:
        return None
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    return Live(console=console, transient=True, refresh_per_second=5) if console.is_terminal else None
