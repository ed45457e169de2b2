"""Two threads of a candidate, switched at environment calls as a schedule says.

The threads are greenlets: only one runs at a time, and only this module switches. A schedule
is a list of points; at each the running thread yields. A blocked thread yields until what it
waits for is there; when all are blocked that is a deadlock, found by the scheduler itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import greenlet

from conformance.environment.door import Environment, Frame

POINT_BUDGET = 20_000
"""Points of preemption within one parallel step after which it counts as a livelock."""


class Deadlock(Exception):
    """No thread can go on; the message says what each waits for."""


class Scheduler:
    """Run operations side by side in one environment."""

    def __init__(self, env: Environment, schedule: Sequence[int]) -> None:
        self.env = env
        self.schedule = frozenset(schedule)
        self.threads: list[greenlet.greenlet] = []
        self.frames: list[Frame] = []
        self.waiting: dict[int, tuple[str, Callable[[], bool]]] = {}
        self.atomic: list[int] = []
        self.running = 0
        self.preferred = 0
        self.points = 0
        self.switches = 0

    def run(self, work: Sequence[tuple[Callable[[], Any], Frame]]) -> list[Any]:
        """Perform each piece of work on its own thread; the results in the same order.

        Raises:
            Deadlock  every unfinished thread waits, or they only yield to one another
            Breach    what a thread raised, at once; the others are dropped
        """
        env = self.env
        results: list[Any] = [None] * len(work)
        main = greenlet.getcurrent()

        def body(index: int, function: Callable[[], Any]) -> Callable[[], None]:
            def thread() -> None:
                results[index] = function()

            return thread

        for index, (function, frame) in enumerate(work):
            self.threads.append(greenlet.greenlet(body(index, function), main))
            self.frames.append(frame)
            self.atomic.append(env.atomic)
        env.preempt = self._point
        env.scheduler = self
        try:
            while True:
                alive = [i for i, thread in enumerate(self.threads) if not thread.dead]
                if not alive:
                    return results
                self._resume(self._next(alive))
        finally:
            env.preempt = None
            env.scheduler = None
            for thread in self.threads:
                if not thread.dead and thread:
                    thread.throw()

    def block(self, what: str, ready: Callable[[], bool]) -> None:
        """Stop the running thread until `ready()`; called by locks and waits of the environment."""
        me = self.running
        while not ready():
            self.waiting[me] = (what, ready)
            self._yield()
        self.waiting.pop(me, None)

    def _next(self, alive: list[int]) -> int:
        """The thread to resume: the running one, unless it is done, blocked or yielded."""
        able = [i for i in alive if i not in self.waiting or self.waiting[i][1]()]
        if not able:
            waits = ", ".join(f"thread {i} waits for {self.waiting[i][0]}" for i in alive)
            raise Deadlock(f"deadlock: {waits}")
        return self.preferred if self.preferred in able else able[0]

    def _resume(self, index: int) -> None:
        env = self.env
        if index != self.running:
            self.switches += 1
        self.running = index
        self.preferred = index
        env.frame, env.atomic = self.frames[index], self.atomic[index]
        self.threads[index].switch()
        self.atomic[index] = env.atomic

    def _yield(self) -> None:
        """Back to the loop, which picks the other thread if it can run."""
        self.preferred = (self.running + 1) % len(self.threads)
        main = self.threads[self.running].parent
        assert main is not None
        main.switch()

    def _point(self, call: str) -> None:
        point = self.points
        self.points = point + 1
        if point >= POINT_BUDGET:
            raise Deadlock(f"livelock: {POINT_BUDGET} points of preemption without an end, the last at {call}")
        if point in self.schedule:
            self._yield()
