"""Short traces to begin with, whose arguments are then solved for: the suite's own, openings, scopes, and walks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from conformance.engines import corpus
from conformance.engines.context import Context, lacking
from conformance.model.step import Parallel, Step
from conformance.strategies.domain import Scope
from conformance.subsystem import Subsystem
from conformance.symbolic.arguments import may_hold

WALK = 6
"""Steps of a walk, after the opening."""
VARIANTS = 2
"""Drawn instances of each operation beside the plainest one."""


NARROW_ONLY, URGENT = 1, 3
"""Ranks of questions: below the one, what chance does not find; below the other, ways that nothing took."""
WORLDS = 6
"""Configurations in which an operation is looked for that the plainer ones cannot do."""
VALUES = 8
"""Values of each other field that are tried with a number that was solved for."""
SHUFFLES = 3
"""Orders in which all operations follow a narrow way."""
PREPARED = 450
"""Drawn sequences that come before an operation with a number that no domain lists."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A configuration and the operations from there; their arguments are to begin with."""

    config: Any
    steps: tuple[Step, ...]
    below: int | None = None
    """Questions of a rank below this follow it; None: all. What is not asked now is asked later."""


class Skeletons:
    """Where an exploration begins, again and again; without end."""

    def __init__(self, context: Context, random: Random) -> None:
        self.context = context
        self.of: Subsystem = context.subsystem
        self.random = random
        self.profile = self.of.profiles[context.profile]
        self.configs = [config for config in self.of.configs if context.allows(config)]
        self.kinds = [kind for kind, shape in self.of.shapes.items() if context.can(kind) and shape.weight > 0]
        self.reached: set[type] = set()
        """Operations that some run could do."""
        self.weights = [self.of.shapes[kind].weight for kind in self.kinds]

    def __iter__(self) -> Iterator[Skeleton]:
        yield from self.plainest()
        yield from _by_turns([self.shipped(), self.singles(), self.scopes()])
        while self.configs and self.kinds:
            yield self.walk()

    def shipped(self) -> Iterator[Skeleton]:
        """The traces that the suite ships, but for what happens in company."""
        for path in corpus.files(corpus.SHIPPED / self.of.name):
            trace = corpus.read(path)
            if lacking(self.of, trace, self.context.candidate.capabilities):
                continue
            steps = tuple(step for step in trace.steps if is_alone(step))
            if steps:
                yield Skeleton(trace.config, steps, URGENT)

    def plainest(self) -> Iterator[Skeleton]:
        """The plainest instance of each operation, in the plainest world that can do it, after the opening."""
        for config in self.configs[:WORLDS]:
            for kind in self.kinds:
                if kind not in self.reached:
                    yield Skeleton(config, (*self.opening(config), self._plainest(kind)), NARROW_ONLY)

    def singles(self) -> Iterator[Skeleton]:
        """Drawn instances of each operation, in any world after the opening."""
        for _ in range(VARIANTS):
            for kind in self.kinds:
                config = self.random.choice(self.configs)
                yield Skeleton(config, (*self.opening(config), self.draw(kind)), URGENT)

    def scopes(self) -> Iterator[Skeleton]:
        """Steps of the scopes, each in some order after the opening."""
        for scope in self.of.scopes.values():
            if scope.profiles and self.context.profile not in scope.profiles:
                continue
            if not self.context.allows(scope.config) or not scope.needs <= self.context.candidate.capabilities:
                continue
            yield from self._scope(scope)

    def _scope(self, scope: Scope) -> Iterator[Skeleton]:
        steps = [step for step in scope.steps if isinstance(step, Step) and is_alone(step)]
        steps = [step for step in steps if self.context.can(type(step.op))]
        if steps:
            opening = self.opening(scope.config)
            yield Skeleton(scope.config, (*opening, *self.random.sample(steps, min(2 * WALK, len(steps)))), URGENT)

    def walk(self) -> Skeleton:
        """A drawn sequence of operations after the opening."""
        config = self.random.choice(self.configs) if self.random.random() < 0.5 else self.configs[0]
        return Skeleton(config, (*self.opening(config), *self.steps(WALK)))

    def steps(self, count: int) -> tuple[Step, ...]:
        """Drawn steps."""
        return tuple(self.draw(kind) for kind in self.random.choices(self.kinds, self.weights, k=count))

    def opening(self, config: Any) -> tuple[Step, ...]:
        """What usually comes first in this world, or nothing."""
        if self.of.opening is None:
            return ()
        return tuple(step for step in self.of.opening(config, self.profile) if self.context.can(type(step.op)))

    def variants(self, step: Step, solved: AbstractSet[Any]) -> Iterator[Step]:
        """The step with other values in one of the fields that were not solved for."""
        for name, domain in self.of.shapes[type(step.op)].fields.items():
            if name not in solved:
                for value in domain.values[:VALUES]:
                    if value != getattr(step.op, name):
                        yield replace(step, op=replace(step.op, **{name: value}))

    def prepared(
        self, config: Any, steps: tuple[Step, ...], ways: list[dict[str, Any]]
    ) -> Iterator[tuple[Any, tuple[Step, ...]]]:
        """The last step behind others, there and in other worlds, with fields as one of `ways` has them.

        What a number does may show only where there is something to do. Nothing where domains list all that these
        fields hold: the engines that draw meet that.
        """
        *before, step = steps
        fields_of = self.of.shapes[type(step.op)].fields
        ways = [way for way in ways if any(value not in fields_of[name].values for name, value in way.items())]
        known = list(self.shipped())
        for at in range(PREPARED if ways else 0):
            others = [(name, domain) for name, domain in fields_of.items() if self.random.random() < 0.5]
            values = {name: domain.sample(self.random) for name, domain in others} | self.random.choice(ways)
            last = replace(step, op=replace(step.op, **values)), *self.of.afterwards
            further = self.steps(self.random.randint(1, WALK))
            if at % 3 == 0:
                yield config, (*before, *further, *last)
            elif at % 3 == 1 or not known:
                world = self.random.choice(self.configs)
                yield world, (*self.opening(world), *further, *last)
            else:
                shipped = self.random.choice(known)
                yield shipped.config, (*shipped.steps[: self.random.randint(1, len(shipped.steps))], *last)

    def looks(self, op: Any) -> Iterator[tuple[Step, ...]]:
        """Each operation at the same place as this one, since what went wrong may show only there; and all of them."""
        given = {f.name: getattr(op, f.name) for f in fields(op)}
        listed = [Step(self._like(kind, given)) for kind in self.kinds]
        for step in listed:
            yield step, *self.of.afterwards
        for _ in range(SHUFFLES):
            yield tuple(self.random.sample(listed, len(listed)))

    def _like(self, kind: type, given: dict[str, Any]) -> Any:
        """The plainest instance, with fields of that name where they may hold the same."""
        chosen = {}
        for name, domain in self.of.shapes[kind].fields.items():
            value = given.get(name, domain.scope[0])
            chosen[name] = value if may_hold(self.of, kind, name, value) else domain.scope[0]
        return kind(**chosen)

    def draw(self, kind: type) -> Step:
        """An instance of an operation."""
        domains = self.of.shapes[kind].fields
        return Step(kind(**{name: domain.sample(self.random) for name, domain in domains.items()}))

    def _plainest(self, kind: type) -> Step:
        return Step(kind(**{name: domain.scope[0] for name, domain in self.of.shapes[kind].fields.items()}))


def is_alone(step: Step) -> bool:
    """Whether nothing happens beside it."""
    return not step.during and type(step.op) is not Parallel


def _by_turns(sources: list[Iterable[Skeleton]]) -> Iterator[Skeleton]:
    """One of each in turn, until all are used up."""
    left = [iter(source) for source in sources]
    while left:
        for source in list(left):
            found = next(source, None)
            if found is None:
                left.remove(source)
            else:
                yield found
