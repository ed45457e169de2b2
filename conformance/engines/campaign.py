"""The fast campaign: seeded random walks over swarm subsets of the operations.

Steps are drawn from pools that are sampled once per batch of walks, so a draw costs two
random numbers; each walk uses a random subset of the operations (swarm testing), since what
one operation hides another shows. Two operations at once are switched by random priorities.
In a hunt on many machines some walks follow what others have seen: see `leads`.
"""

from __future__ import annotations

from random import Random
from typing import Any

from conformance.engines.context import Context
from conformance.engines.leads import CHANGED, Recipe
from conformance.engines.minimise import minimiser
from conformance.engines.priorities import Draw
from conformance.lockstep import Lockstep
from conformance.model.step import Fault, Parallel, Step
from conformance.strategies.domain import Shape
from conformance.trace import Trace

WALK = 60
"""Steps of one walk."""
BATCH = 400
"""Walks between two samplings of the pools."""
POOL = 192
"""Steps sampled of each operation."""
KEPT = 0.7
"""Share of the operations that one walk uses."""
FAULTY = 0.15
"""Share of a pool's steps with a planned fault, for operations that can have one."""
INTERRUPTED = 0.08
"""Share with another step during them."""
CONCURRENT = 0.04
"""Share with another operation beside them on a second thread."""


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
        self.pools: dict[type, list[Step]] = {}
        self.minimise = minimiser(context)
        self.draw = Draw(random, of.shapes)

    def sample_pools(self) -> None:
        """Draw the steps that the next walks choose from."""
        self.pools = {op: [self._step(op) for _ in range(POOL)] for op in self.operations}

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
        try:
            if of.opening is not None and random.random() < 0.8:
                for step in of.opening(config, lockstep.profile):
                    if lockstep.failure is None and context.can(type(step.op)) and lockstep.legal(step.op):
                        lockstep.step(step)
            kept = self._swarm(recipe)
            self._wander(lockstep, kept)
        finally:
            lockstep.close()
        if leads is not None:
            drawn = Recipe(of.configs.index(config), tuple(op.__name__ for op in kept))
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

    def _wander(self, lockstep: Lockstep, kept: list[type]) -> None:
        """Take random legal steps of these operations until the walk is over."""
        number, leads = self.random.random, self.context.leads
        legal, take, suggest = self.context.subsystem.legal, lockstep.step, self.context.subsystem.suggest
        table = self._table(kept)
        size, failure = len(table), lockstep.failure
        for _ in range(WALK if failure is None else 0):
            step = None
            if suggest is not None and number() < 0.3:
                step = suggest(lockstep.states[0], self.random)
                if step is not None and not self.context.can(type(step.op)):
                    step = None
            for _attempt in range(12):
                if step is None:
                    step = table[int(number() * size)][int(number() * POOL)]
                op = step.op
                if type(op) is Parallel:
                    if lockstep.legal(op):
                        if take(step, None if op.schedule else self.draw.priorities(op)) is not None:
                            return
                        self.draw.learn(op, len(lockstep.passed))
                        if leads is not None:
                            leads.decided(lockstep.because)
                        break
                elif legal(lockstep.states[0], op):
                    if take(step) is not None:
                        return
                    if leads is not None:
                        leads.decided(lockstep.because)
                    break
                step = None

    def _swarm(self, recipe: Recipe | None) -> list[type]:
        """A random subset of the operations, or those of the recipe but for a few."""
        random = self.random
        if recipe is None:
            likely = dict.fromkeys(self.operations, KEPT)
        else:
            likely = {op: 1 - CHANGED if op.__name__ in recipe.operations else CHANGED for op in self.operations}
        return [op for op in self.operations if random.random() < likely[op]] or [random.choice(self.operations)]

    def _table(self, kept: list[type]) -> list[list[Step]]:
        """Pools of these operations, repeated by weight."""
        shapes = self.context.subsystem.shapes
        heaviest = max(shapes[op].weight for op in kept)
        table: list[list[Step]] = []
        for op in kept:
            table += [self.pools[op]] * max(1, round(16 * shapes[op].weight / heaviest))
        return table

    def _step(self, kind: type) -> Step:
        """One step of an operation with whatever may accompany it."""
        random = self.random
        shape = self.context.subsystem.shapes[kind]
        step = Step(self._operation(kind, shape), self._faults(shape))
        if shape.beside and random.random() < CONCURRENT:
            other = random.choice(shape.beside)
            if self.context.can(other):
                other_shape = self.context.subsystem.shapes[other]
                right = Step(self._operation(other, other_shape), self._faults(other_shape))
                return Step(Parallel(step, right))
        if shape.interrupts and random.random() < INTERRUPTED:
            return Step(step.op, step.faults, self._during(shape))
        return step

    def _operation(self, kind: type, shape: Shape) -> Any:
        return kind(**{name: domain.sample(self.random) for name, domain in shape.fields.items()})

    def _faults(self, shape: Shape) -> tuple[Fault, ...]:
        random = self.random
        if not shape.faults or random.random() >= FAULTY:
            return ()
        call, values = random.choice(shape.faults)
        return (Fault(call, random.choice(values), random.randint(1, shape.deepest)),)

    def _during(self, shape: Shape) -> tuple[tuple[int, Step], ...]:
        random = self.random
        inner = []
        for _ in range(1 if random.random() < 0.8 else 2):
            kind = random.choice(shape.interrupts)
            if self.context.can(kind):
                other = Step(self._operation(kind, self.context.subsystem.shapes[kind]))
                inner.append((random.randrange(shape.points), other))
        return tuple(sorted(inner, key=lambda pair: pair[0]))
