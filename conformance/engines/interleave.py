"""Two operations at once: every schedule with few switches, from the states that matter.

A start is a configuration and the steps that lead to the state; a subsystem names its own in
`strategies/S.py` as `STARTS`, otherwise its openings serve. From each start, every pair of
operations that the shapes allow beside one another is run with one switch at each point of
preemption and with two, in random order. Of operations that do the same in a state one is enough,
and pairs whose order matters to the model come before those that commute. Where a candidate may hide
what happened, a subsystem names steps that look, `AFTERWARDS`.
The hunt goes on with random starts, pairs and points.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, product, zip_longest
from math import isqrt
from random import Random
from typing import Any, TypeVar

from conformance.engines.context import Context
from conformance.engines.minimise import minimiser
from conformance.lockstep import Lockstep
from conformance.trace import Trace
from model.step import Outcome, Parallel, Step
from strategies.domain import Shape

GATE_SCHEDULES = 4_000
"""Schedules that the gate tries."""
INSTANCES = 400
"""Operations of one kind that are looked at for something new to do."""
KEPT = 8
"""Operations of one kind that are paired."""
MEETING = 3
"""Pairs of two kinds whose order matters that are tried from one start."""
PLAIN_STARTS = 3
"""Starts from which pairs whose order does not matter are tried as well."""
DEPTHS = (1, 2, 3)
"""Switches of a random schedule."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where two operations meet: a world, and the steps that lead to the state."""

    config: Any
    steps: tuple[Step, ...] = ()


Pair = tuple[Start, Step, Step]
T = TypeVar("T")


def run(context: Context) -> None:
    """Explore the interleavings of the operations that the shapes name as partners."""
    if not any(shape.beside for shape in context.subsystem.shapes.values()):
        return
    search = _Search(context)
    if search.exhaust() and context.hunting:
        search.wander()
    search.note()


def starts(context: Context) -> list[Start]:
    """The subsystem's own starts, or the opening of each configuration; those the candidate can do."""
    of = context.subsystem
    name = f"strategies.{of.name}"
    own: tuple[Start, ...] = ()
    if importlib.util.find_spec(name) is not None:
        own = tuple(Start(*start) for start in getattr(importlib.import_module(name), "STARTS", ()))
    if not own:
        profile = of.profiles[context.profile]
        own = tuple(Start(c, of.opening(c, profile) if of.opening is not None else ()) for c in of.configs)
    return [
        start
        for start in own
        if context.allows(start.config) and all(context.can(type(step.op)) for step in start.steps)
    ]


def afterwards(context: Context) -> tuple[Step, ...]:
    """Steps that look at what two operations left behind, where the view does not show it: `AFTERWARDS`."""
    name = f"strategies.{context.subsystem.name}"
    if importlib.util.find_spec(name) is None:
        return ()
    own: tuple[Step, ...] = getattr(importlib.import_module(name), "AFTERWARDS", ())
    return tuple(step for step in own if context.can(type(step.op)))


class _Search:
    """The schedules tried so far, and how to try one more."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.random = Random(f"{context.subsystem.name}:{context.profile}:{context.seed}:{context.part}:interleave")
        self.starts = starts(context)
        self.afterwards = afterwards(context)
        self.minimise = minimiser(context)
        self.reach: dict[tuple[Start, tuple[type, type]], tuple[list[str], list[str]]] = {}
        """By start and kinds: the calls at the points of preemption of left and right, one after the other."""
        self.passed: list[tuple[int, str]] = []
        """Thread and call of each point of the last schedule that ran to its end."""
        self.pairs = 0
        self.schedules = 0
        self.switches = 0

    @property
    def over(self) -> bool:
        """Whether to stop: time is up, or the gate has tried enough."""
        return self.context.expired() or (not self.context.hunting and self.schedules >= GATE_SCHEDULES)

    def exhaust(self) -> bool:
        """Every schedule of one and of two switches, in random order; False when it was stopped.

        Kinds of pairs take turns, the more the more pairs there are of them, so that rare ones are not left out.
        """
        mine = [pair for n, pair in enumerate(self._pairs()) if n % self.context.parts == self.context.part]
        self.random.shuffle(mine)
        self.pairs = len(mine)
        groups: dict[tuple[type, type], deque[tuple[Pair, Iterator[tuple[int, ...]]]]] = {}
        for pair in mine:
            groups.setdefault(_kinds(pair), deque()).append((pair, self._schedules(pair)))
        turns = {kinds: isqrt(len(group)) + 1 for kinds, group in groups.items()}
        while groups:
            for kinds, group in list(groups.items()):
                for _ in range(turns[kinds]):
                    if self.over:
                        return False
                    if not self._next(group):
                        del groups[kinds]
                        break
        return True

    def _next(self, group: deque[tuple[Pair, Iterator[tuple[int, ...]]]]) -> bool:
        """One more schedule of the pair whose turn it is; False when the group has none left."""
        while group:
            pair, schedules = group.popleft()
            schedule = next(schedules, None)
            if schedule is not None:
                if self._try(*pair, schedule):
                    group.append((pair, schedules))
                    if not schedule:
                        calls = [[call for thread, call in self.passed if thread == side] for side in (0, 1)]
                        self.reach[pair[0], _kinds(pair)] = calls[0], calls[1]
                return True
        return False

    def _schedules(self, pair: Pair) -> Iterator[tuple[int, ...]]:
        """Schedules of one and of two switches in turn, those at the borders of critical sections first."""
        here = (pair[0], _kinds(pair))
        if here not in self.reach:
            yield ()
        left, right = self.reach.get(here, ([], []))
        one = self._shuffled(((point,) for point in _borders(left)), ((point,) for point in range(len(left))))
        two = self._shuffled(
            ((first, first + 1 + second) for first in _borders(left) for second in _borders(right)),
            ((first, first + 1 + second) for first in range(0, len(left), 2) for second in range(0, len(right), 2)),
        )
        for single, double in zip_longest(one, two):
            if double is not None:
                yield double
            if single is not None:
                yield single

    def _shuffled(self, first: Iterable[tuple[int, ...]], then: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Both without repetition, each in random order."""
        chosen = list(first)
        self.random.shuffle(chosen)
        seen = set(chosen)
        rest = [schedule for schedule in then if schedule not in seen]
        self.random.shuffle(rest)
        return chosen + rest

    def wander(self) -> None:
        """Random starts, a few random steps, a random pair, a few random points, until the time is up."""
        random = self.random
        while not self.over:
            start = random.choice(self.starts)
            lockstep = self._at(start, note=False)
            try:
                more = []
                for _ in range(random.randrange(4)):
                    step = self._random_step(lockstep)
                    if step is None or lockstep.step(step) is not None:
                        break
                    more.append(step)
                pair = None if lockstep.failure is not None else self._random_pair(lockstep)
            finally:
                lockstep.close()
            if pair is not None:
                here = Start(start.config, (*start.steps, *more))
                reach = max(4, 2 * self.context.subsystem.shapes[type(pair[0].op)].points)
                schedule = tuple(sorted(random.sample(range(reach), random.choice(DEPTHS))))
                self._try(here, *pair, schedule)

    def note(self) -> None:
        """Figures worth printing."""
        self.context.notes["interleave: pairs"] = self.pairs
        self.context.notes["interleave: schedules"] = self.schedules
        self.context.notes["interleave: switches"] = self.switches

    # -- pairs

    def _pairs(self) -> Iterator[Pair]:
        """Every pair worth trying, in both orders of starting."""
        for number, start in enumerate(self.starts):
            lockstep = self._at(start)
            try:
                if lockstep.failure is not None:
                    continue
                found = self._pairs_at(lockstep, commuting=number < PLAIN_STARTS)
            finally:
                lockstep.close()
            for left, right in found:
                yield start, left, right

    def _pairs_at(self, lockstep: Lockstep, *, commuting: bool) -> list[tuple[Step, Step]]:
        """Of each two kinds the pairs whose order matters, and one whose order does not."""
        context = self.context
        shapes = context.subsystem.shapes
        kinds = [kind for kind, shape in shapes.items() if shape.beside and context.can(kind)]
        partners = {kind: [k for k in shapes[kind].beside if context.can(k)] for kind in kinds}
        instances = {
            kind: self._instances(lockstep, kind) for kind in dict.fromkeys((*kinds, *chain(*partners.values())))
        }
        found: dict[tuple[Step, Step], None] = {}
        for kind in kinds:
            for other in partners[kind]:
                able = [
                    (left, right)
                    for left, right in product(instances[kind], instances[other])
                    if lockstep.env.can_run_beside(left.op, right.op)
                ]
                meeting = [pair for pair in able if not self._commute(lockstep, *pair)]
                plain = [pair for pair in able if pair not in meeting][:1] if commuting else []
                for left, right in (*_spread(meeting), *plain):
                    found[left, right] = None
                    found[right, left] = None
        return list(found)

    def _commute(self, lockstep: Lockstep, left: Step, right: Step) -> bool:
        """Whether the model allows the same ends in both orders."""
        return self._ends(lockstep, left, right) == {
            (state, second, first) for state, first, second in self._ends(lockstep, right, left)
        }

    def _ends(self, lockstep: Lockstep, first: Step, second: Step) -> set[tuple[Any, Any, Any]]:
        """State and results after two operations in this order, in all the ways that are allowed."""
        return {
            (after.state, before.result, after.result)
            for before in self._outcomes(lockstep, lockstep.states[0], first)
            for after in self._outcomes(lockstep, before.state, second)
        }

    def _outcomes(self, lockstep: Lockstep, state: Any, step: Step) -> tuple[Outcome, ...]:
        of = self.context.subsystem
        if not of.legal(state, step.op):
            return ()
        outcomes = of.step(state, step.op, lockstep.answers, lockstep.profile)
        return (outcomes,) if isinstance(outcomes, Outcome) else outcomes

    def _instances(self, lockstep: Lockstep, kind: type) -> list[Step]:
        """Operations of a kind that are legal and do something of their own, those that change the state first."""
        of = self.context.subsystem
        state = lockstep.states[0]
        changing: dict[Any, Step] = {}
        idle: dict[Any, Step] = {}
        for op in _operations(kind, of.shapes[kind]):
            if not of.legal(state, op):
                continue
            step = Step(op)
            outcome = self._outcomes(lockstep, state, step)[0]
            where = getattr(op, "vcpu", None)
            (idle if outcome.state == state else changing).setdefault((outcome.state, outcome.result, where), step)
        return [*_spread(list(changing.values()), KEPT), *_spread(list(idle.values()), 2)]

    def _random_step(self, lockstep: Lockstep) -> Step | None:
        of = self.context.subsystem
        if of.suggest is not None and self.random.random() < 0.6:
            step = of.suggest(lockstep.states[0], self.random)
            if step is not None and self.context.can(type(step.op)) and lockstep.legal(step.op):
                return step
        kinds = [kind for kind, shape in of.shapes.items() if shape.weight > 0 and self.context.can(kind)]
        for _ in range(8):
            step = Step(self._random_operation(self.random.choice(kinds)))
            if lockstep.legal(step.op):
                return step
        return None

    def _random_pair(self, lockstep: Lockstep) -> tuple[Step, Step] | None:
        shapes = self.context.subsystem.shapes
        kinds = [kind for kind, shape in shapes.items() if shape.beside and self.context.can(kind)]
        for _ in range(30):
            kind = self.random.choice(kinds)
            other = self.random.choice(shapes[kind].beside)
            if not self.context.can(other):
                continue
            left, right = Step(self._random_operation(kind)), Step(self._random_operation(other))
            if self.random.random() < 0.5:
                left, right = right, left
            if lockstep.legal(Parallel(left, right)):
                return left, right
        return None

    def _random_operation(self, kind: type) -> Any:
        fields = self.context.subsystem.shapes[kind].fields
        return kind(**{name: domain.sample(self.random) for name, domain in fields.items()})

    # -- one schedule

    def _at(self, start: Start, *, note: bool = True) -> Lockstep:
        """A fresh candidate that has taken the steps of a start."""
        context = self.context
        trace = Trace(context.subsystem.name, context.profile, start.config, ())
        lockstep = Lockstep(
            context.subsystem,
            trace,
            context.candidate.factory,
            environment=context.fast,
            counts=context.tally.clauses,
        )
        for step in start.steps:
            if lockstep.failure is None and lockstep.legal(step.op):
                lockstep.step(step)
        context.tally.steps += lockstep.steps
        context.tally.traces += 1
        if note and lockstep.failure is not None:
            context.note_failure(lockstep.failure, self.minimise)
        return lockstep

    def _try(self, start: Start, left: Step, right: Step, schedule: tuple[int, ...]) -> bool:
        """Run a pair with a schedule; False when it cannot run, cannot be switched, or failed."""
        lockstep = self._at(start)
        try:
            step = Step(Parallel(left, right, schedule))
            if lockstep.failure is not None or not lockstep.legal(step.op):
                return False
            self.schedules += 1
            self.context.tally.steps += 1
            failure = lockstep.step(step)
            self.switches += lockstep.switches
            for look in self.afterwards:
                if lockstep.failure is None and lockstep.legal(look.op):
                    self.context.tally.steps += 1
                    failure = lockstep.step(look)
        finally:
            lockstep.close()
        if lockstep.warnings:
            self.context.note_warnings(lockstep.warnings, self.minimise)
        if failure is not None:
            self.context.note_failure(failure, self.minimise)
            return False
        self.passed = lockstep.passed
        return bool(lockstep.passed)


def _kinds(pair: Pair) -> tuple[type, type]:
    return type(pair[1].op), type(pair[2].op)


def _borders(calls: list[str]) -> list[int]:
    """Points next to a call that takes or releases a lock; all points when there is none."""
    return [point for point, call in enumerate(calls) if "lock" in call] or list(range(len(calls)))


def _spread(items: list[T], count: int = MEETING) -> list[T]:
    """As many as are kept, evenly over the list, so that not all are alike."""
    if len(items) <= count:
        return items
    return [items[i * len(items) // count] for i in range(count)]


def _operations(kind: type, shape: Shape) -> Iterator[Any]:
    """Operations over the scopes of the fields, plainest first, no more than are looked at."""
    names = list(shape.fields)
    for number, values in enumerate(product(*(shape.fields[name].scope for name in names))):
        if number >= INSTANCES:
            return
        yield kind(**dict(zip(names, values, strict=True)))
