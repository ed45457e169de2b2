"""The fast campaign: seeded random walks over swarm subsets of the operations.

Steps are drawn from pools that are sampled once per batch of walks, so a draw costs two
random numbers; each walk uses a random subset of the operations (swarm testing), since what
one operation hides another shows, and has one mood: many refusals, much company, neither, or some of both.
Now and then what was just done is done again. Two operations at once are switched by random priorities.
In a hunt on many machines some walks follow what others have seen: see `leads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from conformance.engines.context import Context
from conformance.engines.experience import Experience
from conformance.engines.garbage import collected_seldom
from conformance.engines.leads import CHANGED, Recipe
from conformance.engines.minimise import minimiser
from conformance.engines.priorities import Draw
from conformance.lockstep import Lockstep
from conformance.model.step import Fault, Parallel, Step
from conformance.strategies.domain import Shape
from conformance.trace import Trace

WALK = 60
"""Steps of one walk."""
BATCH = 250
"""Walks between two samplings of the pools."""
POOL = 64
"""Steps sampled of each operation for each mood."""
KEPT = 0.7
"""Share of the operations that one walk uses."""
Mood = tuple[float, float, float]
CALM: Mood = (0.0, 0.0, 0.0)
MOODS: tuple[Mood, ...] = ((0.15, 0.08, 0.015), (0.45, 0.04, 0.0), (0.03, 0.2, 0.06), CALM)
"""Shares of the steps with a planned fault, for operations that can have one; with another step during
them; and with another operation beside them on a second thread, where one fits."""
LIKELY = (4, 2, 2, 1)
"""How often a walk has each mood."""
AGAIN = 0.04
"""Chance of doing again what was just done."""
SUGGESTED = 0.3
"""Chance of asking the subsystem for a step that fits."""


@collected_seldom()
def run(context: Context) -> None:
    """Walk until the steps or the time are used up."""
    seed = f"{context.subsystem.name}:{context.profile}:{context.seed}:{context.part}"
    walker = Walker(context, Random(seed))
    if not walker.configs or not walker.operations:
        return
    limit = None if context.steps is None else context.steps // context.parts
    walks = 0
    while limit is None or max(context.tally.steps, context.tally.traces) < limit:  # some never take a step
        if context.expired():
            return
        if walks % BATCH == 0:
            walker.sample_pools()
        walks += 1
        walker.walk()


class Walker:
    """Draws steps and takes them."""

    def __init__(self, context: Context, random: Random) -> None:
        of = context.subsystem
        self.context = context
        self.random = random
        self.configs = [config for config in of.configs if context.allows(config)]
        self.operations = [op for op, shape in of.shapes.items() if context.can(op) and shape.weight > 0]
        self.pools: list[dict[type, list[Step]]] = []
        """By mood."""
        self.experience = Experience()
        self.minimise = minimiser(context)
        self.draw = Draw(random, of.shapes, self.experience)

    def sample_pools(self) -> None:
        """Draw the steps that the next walks choose from."""
        self.pools = [{op: [self._step(op, mood) for _ in range(POOL)] for op in self.operations} for mood in MOODS]

    def walk(self) -> Trace:
        """One walk on a fresh candidate; the trace taken."""
        context, random = self.context, self.random
        of, leads = context.subsystem, context.leads
        recipe = None if leads is None else leads.recipe(random)
        config = self._world(recipe)
        before = {} if leads is None else dict(context.tally.clauses)
        trace = Trace(of.name, context.profile, config, ())
        lockstep = Lockstep(
            of, trace, context.candidate.factory, environment=context.fast, counts=context.tally.clauses
        )
        kept: list[type] = []
        mood = random.choices(range(len(MOODS)), LIKELY)[0] if recipe is None else recipe.mood
        try:
            if of.opening is not None and random.random() < 0.8:
                self._open(lockstep, of.opening(config, lockstep.profile), MOODS[mood])
            kept = self._swarm(recipe)
            self._wander(lockstep, self._table(kept, self.pools[mood]), mood)
        finally:
            lockstep.close()
        if leads is not None:
            drawn = Recipe(of.configs.index(config), tuple(op.__name__ for op in kept), mood)
            leads.walked(drawn, before, context.tally.clauses)
        context.tally.steps += lockstep.steps
        context.tally.traces += 1
        if lockstep.warnings:
            context.note_warnings(lockstep.warnings, self.minimise)
        if lockstep.failure is not None:
            context.note_failure(lockstep.failure, self.minimise)
        return trace.with_steps(tuple(lockstep.history))

    def _world(self, recipe: Recipe | None) -> Any:
        """The configuration of a walk."""
        if recipe is not None and (config := self.context.subsystem.configs[recipe.world]) in self.configs:
            return config
        return self.random.choice(self.configs) if self.random.random() < 0.6 else self.configs[0]

    def _open(self, lockstep: Lockstep, steps: Sequence[Step], mood: Mood) -> None:
        """Take the steps with which walks begin, which may have company like any other."""
        for plain in steps:
            kind = type(plain.op)
            if lockstep.failure is not None or not self.context.can(kind) or not lockstep.legal(plain.op):
                continue
            shape, step = self.context.subsystem.shapes.get(kind), plain
            if shape is not None and not plain.faults and not plain.during:
                step = Step(plain.op, self._faults(kind, shape, mood), self._during(kind, shape, mood))
            lockstep.step(step)
            self.experience.saw(step, lockstep)

    def _wander(self, lockstep: Lockstep, table: Sequence[Sequence[Step]], mood: int) -> None:
        """Take random legal steps of the table until the walk is over."""
        number, leads, saw = self.random.random, self.context.leads, self.experience.saw
        legal, take, suggest = self.context.subsystem.legal, lockstep.step, self.context.subsystem.suggest
        size, last, concurrent = len(table), None, MOODS[mood][2]
        for _ in range(WALK if lockstep.failure is None else 0):
            step, chance = None, number()
            if chance < AGAIN:
                step = last
            elif suggest is not None and chance < AGAIN + SUGGESTED:
                step = suggest(lockstep.states[0], self.random)
                if step is not None and not self._can(step.op):
                    step = None
            for _attempt in range(12):
                if step is None:
                    step = table[int(number() * size)][int(number() * POOL)]
                op = step.op
                if concurrent and type(op) is not Parallel and number() < concurrent and legal(lockstep.states[0], op):
                    step = self._beside(step, lockstep, self.pools[mood])
                    op = step.op
                if type(op) is Parallel:
                    if lockstep.legal(op):
                        if take(step, None if op.schedule else self.draw.priorities(op)) is not None:
                            return
                        break
                elif legal(lockstep.states[0], op):
                    if take(step) is not None:
                        return
                    break
                step = None
            else:
                continue
            last = step
            saw(step, lockstep)
            if leads is not None:
                leads.decided(lockstep.because)

    def _can(self, op: Any) -> bool:
        """Whether the candidate has what an operation, or each of two, needs."""
        can = self.context.can
        return can(type(op.left.op)) and can(type(op.right.op)) if type(op) is Parallel else can(type(op))

    def _swarm(self, recipe: Recipe | None) -> list[type]:
        """A random subset of the operations, or those of the recipe but for a few."""
        random = self.random
        if recipe is None:
            likely = dict.fromkeys(self.operations, KEPT)
        else:
            likely = {op: 1 - CHANGED if op.__name__ in recipe.operations else CHANGED for op in self.operations}
        return [op for op in self.operations if random.random() < likely[op]] or [random.choice(self.operations)]

    def _table(self, kept: list[type], pools: Mapping[type, list[Step]]) -> list[list[Step]]:
        """The pools of these operations, repeated by weight."""
        shapes = self.context.subsystem.shapes
        heaviest = max(shapes[op].weight for op in kept)
        table: list[list[Step]] = []
        for op in kept:
            table += [pools[op]] * max(1, round(16 * shapes[op].weight / heaviest))
        return table

    def _step(self, kind: type, mood: Mood) -> Step:
        """One step of an operation with whatever may accompany it."""
        shape = self.context.subsystem.shapes[kind]
        return Step(self._operation(kind, shape), self._faults(kind, shape, mood), self._during(kind, shape, mood))

    def _beside(self, step: Step, lockstep: Lockstep, pools: Mapping[type, list[Step]]) -> Step:
        """The step, which is legal here, on one thread, and another that is on a second; alone where none is."""
        shape = self.context.subsystem.shapes.get(type(step.op))
        others = [other for other in shape.beside if other in pools] if shape is not None else []
        if not others:
            return step
        pool = pools[self.random.choice(others)]
        left = Step(step.op, step.faults)
        for _attempt in range(12):
            right = pool[int(self.random.random() * POOL)]
            at_once = Parallel(left, Step(right.op, right.faults))
            if lockstep.legal(at_once):
                return Step(at_once)
        return step

    def _operation(self, kind: type, shape: Shape) -> Any:
        return kind(**{name: domain.sample(self.random) for name, domain in shape.fields.items()})

    def _faults(self, kind: type, shape: Shape, mood: Mood) -> tuple[Fault, ...]:
        random = self.random
        if not shape.faults or random.random() >= mood[0]:
            return ()
        call, values, deepest = random.choice(self.experience.refusable(kind, shape))
        return (Fault(call, random.choice(values), random.randint(1, deepest)),)

    def _during(self, kind: type, shape: Shape, mood: Mood) -> tuple[tuple[int, Step], ...]:
        random = self.random
        if not shape.interrupts or random.random() >= mood[1]:
            return ()
        inner = []
        points = self.experience.within(kind, shape)
        for _ in range(1 if random.random() < 0.8 else 2):
            other = random.choice(shape.interrupts)
            if self.context.can(other):
                happens = Step(self._operation(other, self.context.subsystem.shapes[other]))
                inner.append((random.randrange(points), happens))
        return tuple(sorted(inner, key=lambda pair: pair[0]))
