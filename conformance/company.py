"""What happens in company: steps in the middle of a step, two threads at once, and the orders that explain them.

`Company` performs one such step and says which orders of its operations the specification allows; what that means
for the candidate is for the lockstep to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, permutations
from typing import Any

from conformance.environment.door import Environment, Frame
from conformance.environment.scheduler import Point, Priorities, Scheduler
from conformance.model.step import Outcome, Parallel, Step
from conformance.reports import values
from conformance.subsystem import Subsystem
from conformance.verdict import Breach

MAX_REORDERED = 4
"""Operations of one step with company that may be explained in any order."""


@dataclass(frozen=True, slots=True)
class Done:
    """One operation that really happened: what the candidate returned, and the refusals it met."""

    step: Step
    result: Any
    frame: Frame


class Company:
    """The operations of one step with company: performed once, then explained."""

    __slots__ = (
        "allowed",
        "done",
        "env",
        "frame_of",
        "groups",
        "passed",
        "states",
        "step",
        "subsystem",
        "switches",
    )

    def __init__(
        self,
        subsystem: Subsystem,
        env: Environment,
        states: tuple[Any, ...],
        step: Step,
        allowed: Callable[[Any, Done], tuple[Outcome, ...]],
        frame_of: Callable[[Step], Frame],
    ) -> None:
        self.subsystem = subsystem
        self.env = env
        self.states = states
        """The model's states before the step."""
        self.step = step
        """What is performed; with the schedule that repeats it, once priorities have chosen the switches."""
        self.allowed = allowed
        """(state, operation that happened) -> the outcomes that the model allows."""
        self.frame_of = frame_of
        self.done: list[Done] = []
        """Operations that have begun, in the order in which they did; their result is None until they end."""
        self.groups: list[list[Done]] = []
        """The same as two groups, each in its own order: the step and what happened during it, or two threads."""
        self.passed: list[Point] = []
        """Points of preemption that two threads passed."""
        self.switches = 0
        """How often they were switched."""

    def perform(self, priorities: Priorities | None) -> None:
        """Perform the step and its company.

        Raises:
            Breach  an operation broke a clause; `done` then holds what had begun
        """
        try:
            if type(self.step.op) is Parallel:
                self._perform_parallel(self.step.op, priorities)
            else:
                self._perform_interrupted()
        finally:
            self.env.preempt = None
        if self.env.breach is None:
            self.done = in_order(self.groups)

    def _perform_interrupted(self) -> None:
        """Perform a step's operation, and at its points the steps planned there."""
        env, step = self.env, self.step
        frame = env.frame
        planned: dict[int, list[Step]] = {}
        for k, other in step.during:
            planned.setdefault(k, []).append(other)

        world = self.states[0]
        inner: list[Done] = []

        def preempt(_call: str) -> None:
            nonlocal world
            if env.frame is not frame:
                return
            k = frame.points
            frame.points = k + 1
            for other in planned.get(k, ()):
                if env.breach is not None or world is None:
                    return
                if env.can_interrupt(other.op) and self.subsystem.legal(world, other.op):
                    done = self._perform_inner(other)
                    inner.append(done)
                    world = self._after(world, done)

        env.preempt = preempt
        self.done = [Done(step, None, frame)]
        self.groups = [[Done(step, env.perform(step.op), frame)], inner]

    def _perform_inner(self, step: Step) -> Done:
        env = self.env
        outer = env.frame
        env.frame = frame = self.frame_of(step)
        frame.outer = outer
        self.done.append(Done(step, None, frame))
        try:
            done = self.done[-1] = Done(step, env.perform(step.op), frame)
            return done
        except Breach as breach:  # it passes through the interrupted candidate, which may swallow it
            raise env.remember(breach) from None
        finally:
            env.frame = outer

    def _after(self, world: Any, done: Done) -> Any:
        """The state that decides what the world can do next, once `done` happened in the middle of something.

        None where only the operation around it explains the result: nothing more is tried then.
        """
        return next((o.state for o in self.allowed(world, done) if o.result == done.result), None)

    def _perform_parallel(self, op: Parallel, priorities: Priorities | None) -> None:
        """Perform two operations on two threads; each becomes a group of one."""
        env = self.env
        sides = (op.left, op.right)
        frames = [self.frame_of(side) for side in sides]
        self.done = [Done(side, None, frame) for side, frame in zip(sides, frames, strict=True)]
        work = [(partial(env.perform, side.op), frame) for side, frame in zip(sides, frames, strict=True)]
        scheduler = Scheduler(env, op.schedule, priorities)
        try:
            results = scheduler.run(work)
        finally:
            self.passed, self.switches = scheduler.passed, scheduler.switches
            if priorities is not None:
                self.step = replace(self.step, op=replace(op, schedule=tuple(scheduler.taken)))
        self.groups = [[Done(side, result, frame)] for side, result, frame in zip(sides, results, frames, strict=True)]

    # -- what explains it

    def explanations(self) -> Iterator[list[Outcome]]:
        """Every way the specification allows what was returned, in every order of the operations."""
        for order in _orders(self.groups):
            yield from self._paths(order, observed_only=True)

    def nearest(self) -> tuple[Done, Outcome] | None:
        """Where no order explains the results: of the order that explains most of them, the first that it does not."""
        best: tuple[Done, Outcome] | None = None
        most = (-1, -1)
        for order in _orders(self.groups):
            for path in self._paths(order):
                wrong = [at for at, done in enumerate(order) if path[at].result != done.result]
                done, outcome = order[wrong[0]], path[wrong[0]]
                right = (-len(wrong), outcome.agreement(done.result))
                if best is None or right > most:
                    best, most = (done, outcome), right
        return best

    def allowed_results(self) -> Iterator[str]:
        """The results that the orders of the operations allow, written in the order of the groups."""
        for order in _orders(self.groups):
            for path in self._paths(order):
                results = {id(done): outcome.result for done, outcome in zip(order, path, strict=True)}
                yield _together(self.done, [results[id(done)] for done in self.done])

    def results(self) -> str:
        """The results that were seen, in the same form."""
        return _together(self.done, [done.result for done in self.done])

    def _paths(self, order: Sequence[Done], *, observed_only: bool = False) -> Iterator[list[Outcome]]:
        """Every way the specification allows these operations one after the other; or those with the results seen."""
        last = len(order) - 1
        legal = self.subsystem.legal
        later = self.subsystem.legal_beside or legal

        def extend(state: Any, at: int, path: list[Outcome]) -> Iterator[list[Outcome]]:
            done = order[at]
            if not (later if at else legal)(state, done.step.op):
                return
            for outcome in self.allowed(state, done):
                if observed_only and outcome.result != done.result:
                    continue
                if at == last:
                    yield [*path, outcome]
                else:
                    yield from extend(outcome.state, at + 1, [*path, outcome])

        for state in self.states:
            yield from extend(state, 0, [])


def in_order(groups: Sequence[Sequence[Done]]) -> list[Done]:
    """The order in which the groups follow one another."""
    return [done for group in groups for done in group]


def _orders(groups: Sequence[Sequence[Done]]) -> Iterator[list[Done]]:
    """The orders in which two groups may be explained: first those that keep each group's own order.

    Then the others too, as long as they are few: an operation may take effect in parts (it looks
    a descriptor up, and acts on it later), so what happened during it, one after the other, may
    have to be explained the other way round.
    """
    left, right = groups
    total = len(left) + len(right)
    for places in combinations(range(total), len(left)):
        lefts, rights = iter(left), iter(right)
        taken = set(places)
        yield [next(lefts) if i in taken else next(rights) for i in range(total)]
    if 2 < total <= MAX_REORDERED:
        yield from map(list, permutations(in_order(groups)))


def _together(done: Sequence[Done], results: Sequence[Any]) -> str:
    return " and ".join(values.performed(d.step.op, r) for d, r in zip(done, results, strict=True))
