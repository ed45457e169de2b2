"""Two operations at once: every schedule with few switches, from the states that matter.

First come the races that a subsystem names in `strategies/S.py` as `RACES`: all their schedules, those with no
switch first, then with one, then with two; in both orders of starting. Then, from each of
its `STARTS` (or of its openings), every pair of operations that the shapes allow beside one another: of operations
that do the same in a state one is enough, and pairs whose order matters to the model come before those that commute.
The gate samples their schedules; the hunt tries all with one and two switches, races with one switch more, and random
starts, pairs and priorities in turn. Where a candidate may hide what happened, a subsystem names steps that look,
`AFTERWARDS`.

A schedule is found by running the one before it: it is that schedule with one more switch, at a point passed later
where the other thread could go on (iterative context bounding). So none is guessed, and none is left out.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, product
from math import isqrt
from random import Random
from typing import Any, TypeVar

from conformance.engines.context import Context
from conformance.engines.garbage import collected_seldom
from conformance.engines.minimise import minimiser
from conformance.engines.priorities import Draw
from conformance.environment.scheduler import Point, Priorities
from conformance.lockstep import Lockstep
from conformance.model.step import Outcome, Parallel, Step, each
from conformance.strategies.domain import Race, Shape
from conformance.trace import Trace

GATE_SCHEDULES = 4_000
"""Schedules of pairs other than the races that the gate tries."""
SWITCHES = 2
"""Switches up to which the schedules of a pair are tried without gaps."""
INSTANCES = 400
"""Operations of one kind that are looked at for something new to do."""
KEPT = 8
"""Operations of one kind that are paired."""
MEETING = 3
"""Pairs of two kinds whose order matters that are tried from one start."""
TURN = 20
"""Schedules in a row from one source of the hunt."""
PLAIN_STARTS = 3
"""Starts from which pairs whose order does not matter are tried as well."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where two operations meet: a world, and the steps that lead to the state."""

    config: Any
    steps: tuple[Step, ...] = ()


Pair = tuple[Start, Step, Step]
T = TypeVar("T")
END = object()


@collected_seldom()
def run(context: Context) -> None:
    """Explore the interleavings of the operations that the shapes name as partners."""
    shapes = context.subsystem.shapes
    paired = any(context.can(kind) and any(map(context.can, shape.beside)) for kind, shape in shapes.items())
    if not races(context) and not paired:
        return
    search = _Search(context)
    then: Iterator[None] = islice(search.every_pair(), GATE_SCHEDULES // context.parts)
    if context.hunting:
        then = _turns(search.races(further=1), search.every_pair(), search.wander())
    for _ in chain(search.races(), then):
        if context.expired():
            break
    search.note()


def starts(context: Context) -> list[Start]:
    """The subsystem's own starts, or the opening of each configuration; those the candidate can do."""
    of = context.subsystem
    own = tuple(Start(*start) for start in of.starts)
    if not own:
        profile = of.profiles[context.profile]
        own = tuple(Start(c, of.opening(c, profile) if of.opening is not None else ()) for c in of.configs)
    return [start for start in own if _can_start(context, start)]


def races(context: Context) -> dict[str, Race]:
    """The races of this profile that the candidate can run."""
    return {
        name: race
        for name, race in context.subsystem.races.items()
        if (not race.profiles or context.profile in race.profiles)
        and _can_start(context, Start(race.config, race.steps))
        and context.can(type(race.left.op))
        and context.can(type(race.right.op))
    }


def _can_start(context: Context, start: Start) -> bool:
    return context.allows(start.config) and all(context.can(type(step.op)) for step in start.steps)


class Schedules:
    """The schedules of one pair, each found by running the one it extends by a switch."""

    __slots__ = ("_untried", "begun", "most", "pair")

    def __init__(self, pair: Pair, most: int) -> None:
        self.pair = pair
        self.most = most
        """Switches at most."""
        self.begun = False
        self._untried: list[list[tuple[tuple[int, ...], array[int]]]] = [[] for _ in range(most)]
        """By number of switches less one: schedules that were run, with the points at which to switch once more."""

    def extend(self, schedule: tuple[int, ...], points: list[int]) -> None:
        """Note that `schedule` was run, and that it may be extended by each of these points, last first."""
        if points and len(schedule) < self.most:
            self._untried[len(schedule)].append((schedule, array("L", points)))

    def depths(self) -> list[int]:
        """Numbers of switches of which there are untried schedules."""
        if not self.begun:
            return [0]
        return [depth + 1 for depth, level in enumerate(self._untried) if level]

    def next(self, depth: int, random: Random | None = None) -> tuple[int, ...]:
        """An untried schedule of that many switches: of the schedule run first, or of any."""
        if depth == 0:
            self.begun = True
            return ()
        level = self._untried[depth - 1]
        at = random.randrange(len(level)) if random is not None else 0
        schedule, points = level[at]
        point = points.pop()
        if not points:
            level[at] = level[-1] if random is not None else level[at]
            level.pop(-1 if random is not None else at)
        return (*schedule, point)


class _Search:
    """The schedules tried so far, and how to try one more."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.random = Random(f"{context.subsystem.name}:{context.profile}:{context.seed}:{context.part}:interleave")
        self.starts = starts(context)
        self.minimise = minimiser(context)
        self.afterwards = tuple(step for step in context.subsystem.afterwards if context.can(type(step.op)))
        self.known: dict[Start, tuple[tuple[Step, ...], tuple[Any, ...]]] = {}
        """The steps of each start that were legal, and the model states they led to."""
        self.draw = Draw(self.random, context.subsystem.shapes)
        self.passed: list[Point] = []
        """Points of the last schedule that ran to its end."""
        self.pairs = 0
        self.schedules = 0
        self.switches = 0
        self.raced: dict[str, int] = {}
        """Schedules tried of each race."""

    def races(self, further: int = 0) -> Iterator[None]:
        """Every schedule of every race, fewest switches first, up to `further` switches more than it asks for."""
        listed = races(self.context).items()
        mine = [race for n, race in enumerate(listed) if n % self.context.parts == self.context.part]
        self.raced = {name: self.raced.get(name, 0) for name, _ in mine}
        waiting = [
            (name, Schedules((Start(race.config, race.steps), *sides), race.switches + further))
            for name, race in mine
            for sides in ((race.left, race.right), (race.right, race.left))
        ]
        for depth in range(1 + max((tree.most for _, tree in waiting), default=0)):
            for name, tree in waiting:
                while depth in tree.depths():
                    self.raced[name] += 1
                    self._run(tree, tree.next(depth))
                    yield

    def every_pair(self) -> Iterator[None]:
        """Every schedule with one and with two switches of every pair, in random order.

        Kinds of pairs take turns, the more the more pairs there are of them, so that rare ones are not left out.
        """
        mine = [pair for n, pair in enumerate(self._pairs()) if n % self.context.parts == self.context.part]
        self.random.shuffle(mine)
        self.pairs = len(mine)
        groups: dict[tuple[type, type], deque[Schedules]] = {}
        for pair in mine:
            groups.setdefault(_kinds(pair), deque()).append(Schedules(pair, SWITCHES))
        turns = {kinds: isqrt(len(group)) + 1 for kinds, group in groups.items()}
        while groups:
            for kinds, group in list(groups.items()):
                for _ in range(turns[kinds]):
                    if not self._next(group):
                        del groups[kinds]
                        break
                    yield

    def _next(self, group: deque[Schedules]) -> bool:
        """One more schedule of the pair whose turn it is; False when the group has none left."""
        while group:
            tree = group.popleft()
            depths = tree.depths()
            if depths:
                self._run(tree, tree.next(self.random.choice(depths), self.random))
                group.append(tree)
                return True
        return False

    def _run(self, tree: Schedules, schedule: tuple[int, ...]) -> None:
        """Run one schedule of a pair, and note which others extend it."""
        if self._try(*tree.pair, schedule):
            tree.extend(schedule, self._further(schedule))

    def _further(self, schedule: tuple[int, ...]) -> list[int]:
        """Points at which one more switch makes a difference; those next to a lock last, where they are taken first."""
        after = schedule[-1] if schedule else -1
        points = [k for k, point in enumerate(self.passed) if k > after and point.is_open]
        self.random.shuffle(points)
        return sorted(points, key=lambda k: "lock" in self.passed[k].call)

    def wander(self) -> Iterator[None]:
        """Random starts, a few random steps, a random pair, random priorities, for ever."""
        random = self.random
        while self.starts:
            start = random.choice(self.starts)
            lockstep = self._at(start)
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
                priorities = self.draw.priorities(Parallel(*pair))
                if self._try(here, *pair, (), priorities):
                    self.draw.learn(Parallel(*pair), len(self.passed))
                self.known.pop(here, None)
            yield

    def note(self) -> None:
        """Figures worth printing."""
        notes = self.context.notes
        notes["interleave: races"] = len(self.raced)
        notes["interleave: schedules of races"] = sum(self.raced.values())
        notes["interleave: pairs"] = self.pairs
        notes["interleave: schedules"] = self.schedules
        notes["interleave: switches"] = self.switches

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
        return each(of.step(state, step.op, lockstep.answers, lockstep.profile))

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

    def _at(self, start: Start) -> Lockstep:
        """A fresh candidate that has taken the steps of a start; they are judged the first time."""
        context = self.context
        trace = Trace(context.subsystem.name, context.profile, start.config, ())
        lockstep = Lockstep(
            context.subsystem,
            trace,
            context.candidate.factory,
            environment=context.fast,
            counts=context.tally.clauses,
        )
        context.tally.traces += 1
        if lockstep.failure is None and start in self.known:
            lockstep.retrace(*self.known[start])
            return lockstep
        for step in start.steps:
            if lockstep.failure is None and lockstep.legal(step.op):
                lockstep.step(step)
        context.tally.steps += lockstep.steps
        if lockstep.failure is not None:
            context.note_failure(lockstep.failure, self.minimise)
        elif not any(step.during or type(step.op) is Parallel for step in start.steps):
            self.known[start] = tuple(lockstep.history), lockstep.states
        return lockstep

    def _try(
        self,
        start: Start,
        left: Step,
        right: Step,
        schedule: tuple[int, ...],
        priorities: Priorities | None = None,
    ) -> bool:
        """Run a pair with a schedule, or as priorities say; False when it cannot run, or failed."""
        lockstep = self._at(start)
        try:
            step = Step(Parallel(left, right, schedule))
            if lockstep.failure is not None or not lockstep.legal(step.op):
                return False
            self.schedules += 1
            self.context.tally.steps += 1
            failure = lockstep.step(step, priorities)
            self.switches += lockstep.company.switches if lockstep.company is not None else 0
            for look in self.afterwards:
                if lockstep.failure is None and lockstep.legal(look.op):
                    self.context.tally.steps += 1
                    failure = lockstep.step(look)
        finally:
            lockstep.close()
        failure = failure or lockstep.failure
        if lockstep.warnings:
            self.context.note_warnings(lockstep.warnings, self.minimise)
        if failure is not None:
            self.context.note_failure(failure, self.minimise)
            return False
        self.passed = lockstep.passed
        return True


def _turns(*sources: Iterator[None]) -> Iterator[None]:
    """All of them in turn, until none has anything left."""
    waiting = deque(sources)
    while waiting:
        source = waiting.popleft()
        for _ in islice(source, TURN):
            yield
        if next(source, END) is not END:
            waiting.append(source)
            yield


def _kinds(pair: Pair) -> tuple[type, type]:
    return type(pair[1].op), type(pair[2].op)


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
