"""Two threads of a candidate, switched at environment calls as a schedule says.

The threads are greenlets, or threads that take turns as these do (`baton.py`): only one runs at a time, and only this
module switches. A schedule is a set of points of preemption; at each the running thread yields. A blocked thread
yields until what it waits for is there; when all are blocked that is a deadlock, found by the scheduler itself. The
same schedule always switches at the same places.

Where no schedule is known yet, `Priorities` decide at each point; the points at which they
switched are the schedule that repeats it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import greenlet

from conformance.environment.baton import Baton
from conformance.environment.door import Environment, Frame
from conformance.verdict import Breach, Hang

POINT_BUDGET = 100_000
"""Points of preemption within one parallel step after which it counts as a livelock."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of preemption that a thread passed."""

    thread: int
    call: str
    """The environment call before or after whose effect it lies."""
    is_open: bool
    """Whether another thread could have gone on there, so that a switch makes a difference."""


@dataclass(slots=True)
class Priorities:
    """Probabilistic concurrency testing: of the threads that can run the one with the highest priority does.

    Thread 0 begins with the higher one. At each of `changes` the running thread falls below the other, so a
    thread that was only blocked goes on as soon as it can. With `changes` drawn evenly from the k points of two
    operations, a bug that takes d changes shows with a probability of at least 1 / (2 k^d).

    Source: Burckhardt et al., A randomized scheduler with probabilistic guarantees of finding bugs (2010).
    """

    changes: frozenset[int]
    highest: int = 0

    def switch_at(self, point: int, running: int) -> bool:
        """Whether the thread that runs must make way at this point."""
        if point in self.changes and running == self.highest:
            self.highest = 1 - running
        return running != self.highest


class Scheduler:
    """Run operations side by side in one environment."""

    __slots__ = (
        "_alive",
        "_main",
        "_new",
        "_waiting",
        "atomic",
        "env",
        "frames",
        "passed",
        "points",
        "priorities",
        "running",
        "schedule",
        "switches",
        "taken",
        "threads",
    )

    keep: ClassVar[Callable[[], list[int]] | None] = None
    """Makes the list of the switches taken, where they are to be known even if this process ends in their midst."""

    def __init__(self, env: Environment, schedule: Sequence[int], priorities: Priorities | None = None) -> None:
        """Switch as `schedule` says, or as `priorities` do if they are given."""
        self.env = env
        self.schedule = frozenset(schedule)
        self.priorities = priorities
        self.taken: list[int] = [] if Scheduler.keep is None else Scheduler.keep()
        """Points at which the running thread was made to yield and another one went on."""
        self.threads: list[Any] = []
        """Greenlets, or threads of the operating system where the candidate needs such."""
        self.frames: list[Frame] = []
        self.atomic: list[int] = []
        """Depth of atomic context of each thread that does not run."""
        self.running = 0
        """Number of the thread that runs."""
        self.points = 0
        """Points of preemption passed, over all threads."""
        self.passed: list[Point] = []
        self.switches = 0
        """How often another thread went on than the one before."""
        self._alive: list[int] = []
        self._waiting: dict[int, tuple[str, Callable[[], bool]]] = {}
        self._new = Baton if getattr(env.driver, "real_threads", False) else greenlet.greenlet
        self._main: Any = Baton.main() if self._new is Baton else greenlet.getcurrent()

    def run(self, work: Sequence[tuple[Callable[[], Any], Frame]]) -> list[Any]:
        """Perform each piece of work on its own thread; the results in the same order. The first one starts.

        Raises:
            Hang    every unfinished thread waits, or they only yield to one another
            Breach  what a thread raised, at once; the others are dropped
        """
        env = self.env
        results: list[Any] = [None] * len(work)
        for index, (function, frame) in enumerate(work):
            self.threads.append(self._new(self._body(index, function, results), self._main))
            self.frames.append(frame)
            self.atomic.append(env.atomic)
        self._alive = list(range(len(work)))
        env.preempt = self._point
        env.scheduler = self
        try:
            while self._alive:
                self._enter(self._choose(self.running))
                self.threads[self.running].switch()
            return results
        except Breach as breach:
            env.remember(breach)
            raise
        finally:
            env.preempt = None
            env.scheduler = None
            self._drop()

    def block(self, what: str, ready: Callable[[], bool]) -> None:
        """Stop the running thread until `ready()`; called by locks and waits of the environment.

        Raises:
            Hang  no other thread can go on either
        """
        me = self.running
        self._waiting[me] = (what, ready)
        while not ready():
            self._yield()
        del self._waiting[me]

    def give_way(self) -> None:
        """Let the other thread run, if it can: what a loop that waits for it must do."""
        self._yield()

    def _body(self, index: int, function: Callable[[], Any], results: list[Any]) -> Callable[[], None]:
        def thread() -> None:
            results[index] = function()
            self._alive.remove(index)

        return thread

    def _choose(self, preferred: int) -> int:
        """The preferred thread if it can run, else the next one that can."""
        waiting = self._waiting
        if preferred in self._alive and (preferred not in waiting or waiting[preferred][1]()):
            return preferred
        for index in self._alive:
            if index not in waiting or waiting[index][1]():
                return index
        waits = ", ".join(f"thread {index} waits for {waiting[index][0]}" for index in self._alive)
        raise self.env.remember(Hang(f"deadlock: {waits}"))

    def _enter(self, index: int) -> None:
        """From now on this thread runs: its frame and its atomic context are the environment's."""
        env = self.env
        if index != self.running:
            env.at_switch()
            self.switches += 1
            self.atomic[self.running] = env.atomic
            self.running = index
        env.frame, env.atomic = self.frames[index], self.atomic[index]

    def _yield(self) -> None:
        """On to the other thread, straight away, if it can run."""
        me = self.running
        chosen = self._choose((me + 1) % len(self.threads))
        if chosen != me:
            self._enter(chosen)
            self.threads[chosen].switch()

    def _point(self, call: str) -> None:
        point = self.points
        self.points = point + 1
        me = self.running
        is_open = self._can_yield(me)
        self.passed.append(Point(me, call, is_open))
        if point >= POINT_BUDGET * self.env.work:
            hang = Hang(f"livelock: {point} points of preemption without an end, the last at {call}")
            raise self.env.remember(hang)
        wanted = point in self.schedule if self.priorities is None else self.priorities.switch_at(point, me)
        if wanted and is_open:
            self.taken.append(point)
            self._yield()

    def _can_yield(self, me: int) -> bool:
        """Whether another thread can go on."""
        waiting = self._waiting
        return any(i != me and (i not in waiting or waiting[i][1]()) for i in self._alive)

    def _drop(self) -> None:
        """End threads that were left in the middle; what they raise on the way out says nothing more."""
        for thread in self.threads:
            if thread and not thread.dead:
                with contextlib.suppress(BaseException):
                    thread.throw()
