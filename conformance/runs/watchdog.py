"""A candidate that loops without calling the environment is stopped by a timer."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from conformance.environment.door import Environment
from conformance.runs.checkpoint import Runner
from conformance.verdict import Hang

PATIENCE = 5.0
"""Seconds one entry into the candidate may take."""
IMPATIENCE = 1.0
"""Seconds from the second time on: it is known to hang."""
TICK = 0.5
"""Seconds between two looks."""


class Watchdog:
    """Looks every `TICK` seconds whether the candidate is still in the same entry.

    A SIGALRM handler runs between two bytecodes of the main thread, so it can raise out of an
    endless loop in Python code. It never raises while the harness itself is running.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.last = -1
        self.waited = 0.0

    def look(self, _signal: int, _frame: FrameType | None) -> None:
        """Count a tick; raise Hang once the same entry has lasted too long."""
        now = Environment.entries + Environment.heard
        if not Environment.inside or now != self.last:
            self.last, self.waited = now, 0.0
            return
        self.waited += TICK
        if self.waited >= self.patience:
            limit, self.waited, self.patience = self.patience, 0.0, IMPATIENCE
            raise Hang(f"did not return within {limit:g} s")


@contextmanager
def watching(patience: float = PATIENCE) -> Iterator[None]:
    """Guard what runs inside against endless loops, on the main thread; a contained process is watched from outside."""
    if Runner.now is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    dog = Watchdog(patience)
    before: Any = signal.signal(signal.SIGALRM, dog.look)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
