"""What the Hypothesis machines are made of: every step that is drawn can be taken where the machine stands.

An operation is chosen among those that can happen, as often as its weight says; its values among those that are legal,
from the same domains as everything else. Hypothesis has one rule to choose from, not one for each operation: its own
choice asks every rule's precondition several times over, which made a step five times dearer. Plain values come first
in each pool, and what accompanies an operation (a refusal, a step in the middle, a second thread) is drawn after it and
seldom, so that Hypothesis shrinks towards plain steps by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from random import Random
from typing import Any, ClassVar

from hypothesis import event, target
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.strategies import SearchStrategy

from conformance.engines.experience import Experience
from conformance.lockstep import Lockstep
from conformance.model.step import Fault, Parallel, Step
from conformance.reports.values import snake
from conformance.specs.clause import Clause
from conformance.strategies.domain import Shape
from conformance.subsystem import Subsystem
from conformance.trace import Trace
from conformance.verdict import Failure, Tally

POOL = 1024
"""Instances of one operation that a rule draws from at most."""
COMPANY = 64
"""One draw in this many parts decides what accompanies an operation: nothing, most often."""
CALM = (0, 0, 0)
MOODS = (CALM, CALM, *((8, 5, 3),) * 3, (24, 0, 0), (24, 3, 0), (2, 14, 6), (4, 4, 12), (0, 8, 8))
"""Of these parts, those with a refusal, with a step in the middle, and with a second thread: each example has one of
these moods, since a state that many refusals lead to is not one that is reached with company, or with neither."""
AGAIN = 0.05
"""Weight of the operations that were taken just before, relative to all others."""
RECENT = 3
"""How far back such an operation lies at most."""
SUGGESTED = 0.4
"""Weight of the steps that the subsystem suggests, relative to all others."""
SEEDS = 2**16
"""Suggestions that can be drawn in one state."""
NEAR = 160
"""The first instances of a pool, among which one must be legal for the operation to count as possible."""
KEPT = 0.7
"""Share of the operations that one example uses."""
TRIES = 4
"""How often the subsystem is asked for a step that fits."""
WORLDS = 8
"""Worlds of one example at most: one more after each failure that is known."""
COPIES = 12
"""How often the operation with the largest weight stands in the table."""


class Enough(BaseException):
    """Nothing more is wanted of this run; no Exception, so that Hypothesis takes it for no failure."""


class Disagreement(AssertionError):
    """The candidate and the model disagree; Hypothesis shrinks what led here."""

    def __init__(self, failure: Failure, text: str = "") -> None:
        super().__init__(text or failure.signature)
        self.failure = failure


Number = Callable[[int], int]
"""Draws a number from 0 up to the one given, and shrinks towards 0."""


class Again:
    """Stands in the table for what was done just before, with the same arguments."""


class _Drawn(SearchStrategy[Any]):
    """What a method of the machine makes of numbers: one draw of Hypothesis each, without spans of their own."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def __repr__(self) -> str:
        return f"{self.method}()"

    def do_draw(self, data: Any) -> Any:
        """Ask the machine that the data is for."""
        machine: Machine = data.hypothesis_runner

        def number(top: int) -> int:
            value: int = data.draw_integer(0, top)
            return value

        return getattr(machine, self.method)(number)


class _OnlyRule(SearchStrategy[Any]):
    """The only rule with its step, in place of a choice that costs Hypothesis more than the step does."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        (self.rule,) = machine.rules
        self.argument = self.rule.arguments["step"]

    def do_draw(self, data: Any) -> Any:
        """The rule and its arguments."""
        return self.rule, {"step": data.draw(self.argument)}


class Machine(RuleBasedStateMachine):
    """Drive a candidate and the model with the same operations.

    `machine_of` makes a subclass with the rules of a subsystem; who drives it makes one more, with the candidate.
    """

    of: ClassVar[Subsystem]
    table: ClassVar[tuple[type | None, ...]]
    """The operations, each as often as its weight says; None stands for what the subsystem suggests."""
    configs: ClassVar[tuple[Any, ...]]
    factory: ClassVar[Callable[[Any], Any]]
    profile: ClassVar[str]
    capabilities: ClassVar[frozenset[str]] = frozenset()
    environment: ClassVar[Callable[..., Any] | None] = None
    known: ClassVar[set[str]] = set()
    """Signatures already reported: the machine goes on in a fresh world where it meets one."""
    on_failure: ClassVar[Callable[[Failure], None]]
    """What becomes of a failure that is not known: it is noted, or raised."""
    on_warning: ClassVar[Callable[[Failure], None]]
    tally: ClassVar[Tally]
    idle: ClassVar[int] = 0
    """How often the rule fired where nothing could happen."""
    stopped: ClassVar[Callable[[], bool]] = staticmethod(lambda: False)
    """Whether to end, at once and wherever Hypothesis is."""
    tells: ClassVar[bool] = False
    """Whether Hypothesis is told of operations and clauses (`event`, `target`)."""
    part: ClassVar[int] = 0
    """Which part of the work this is: equal choices lead elsewhere in each, even under one `--hypothesis-seed`."""
    experience: ClassVar[Experience] = Experience()
    """What earlier rounds saw; the same for all examples of a round, so that equal choices lead to equal steps."""
    seeing: ClassVar[Experience | None] = None
    """What this round sees, where anybody wants to know."""

    def __init__(self) -> None:
        super().__init__()
        cheap: Any = _OnlyRule(self)
        self._rules_strategy = cheap
        self.lockstep: Lockstep | None = None
        self.config: Any = None
        self.worlds = 0
        self._fitting: dict[type, int] = {}
        self._left_out: frozenset[type] = frozenset()
        """Operations that this example does without: what one hides another shows."""
        self._mood = CALM
        self._recent: list[Any] = []
        """The last operations taken, the latest first."""
        self._fresh: set[Clause] = set()

    # -- what can happen here

    def fits(self, kind: type) -> bool:
        """Whether an operation of this kind can happen now."""
        if self.lockstep is None or self.lockstep.failure is not None or kind is Again:
            return False
        if kind not in self._fitting:
            state, legal, near = self.lockstep.states[0], self.of.legal, pool(self.of, kind)[:NEAR]
            self._fitting[kind] = next((at for at, op in enumerate(near) if legal(state, op)), -1)
        return self._fitting[kind] >= 0

    def kind_from(self, at: int) -> type | None:
        """The operation at this place of the table, or the next behind it that can happen; None: what is suggested."""
        table = type(self).table
        for kind in table[at:] + table[:at]:
            if kind is None and self.suggestion(0) is not None:
                return None
            if kind is Again and self._repeatable():
                return kind
            if kind is not None and kind not in self._left_out and self.fits(kind):
                return kind
        return next((kind for kind in table if kind is not None and self.fits(kind)), None)

    def legal_from(self, kind: type, at: int) -> Any:
        """The instance at this place of the pool, or the next legal one behind it, else the plainest."""
        assert self.lockstep is not None
        listed, state, legal = pool(self.of, kind), self.lockstep.states[0], self.of.legal
        for op in islice(listed, at, at + NEAR):
            if legal(state, op):
                return op
        return listed[self._fitting[kind]]

    def suggestion(self, seed: int) -> Step | None:
        """A step that the subsystem suggests for this state, of a few tries; the same for the same seed."""
        if self.lockstep is None or self.lockstep.failure is not None or self.of.suggest is None:
            return None
        state = self.lockstep.states[0]
        for more in range(TRIES):
            step = self.of.suggest(state, Random(seed + more * SEEDS))
            if step is not None and _can(self.of, step.op, type(self).capabilities) and self.lockstep.legal(step.op):
                return step
        return None

    # -- drawing

    def world(self, number: Number) -> tuple[Any, tuple[Step, ...]]:
        """A configuration, the plainest half of the time, and the steps that open it; settles how to draw from now."""
        cls, of = type(self), self.of
        config = cls.configs[max(0, number(2 * len(cls.configs) - 2) - len(cls.configs) + 1)]
        opened, seed = number(4) < 4, number(SEEDS - 1)
        source, kinds = Random(seed + cls.part * SEEDS), [kind for kind in cls.table if kind not in (None, Again)]
        if seed:
            self._left_out = frozenset(kind for kind in dict.fromkeys(kinds) if source.random() >= KEPT)
            self._mood = source.choice(MOODS)
        steps = of.opening(config, of.profiles[cls.profile]) if opened and of.opening is not None else ()
        return config, tuple(self._opening(number, step) for step in steps if _can(of, step.op, cls.capabilities))

    def _opening(self, number: Number, step: Step) -> Step:
        """A step of the opening, which may be refused or interrupted like any other."""
        kind = type(step.op)
        plain = not step.faults and not step.during and kind in self.of.shapes
        return self.accompanied(number, kind, step.op, alone=True) if plain else step

    def drawn(self, number: Number) -> Step | None:
        """A step that can be taken where the machine stands; None where none can."""
        kind = self.kind_from(number(len(type(self).table) - 1))
        if kind is None:
            plainest = self.suggestion(0)
            return None if plainest is None else self.suggestion(number(SEEDS - 1)) or plainest
        if kind is Again:
            repeatable = self._repeatable()
            op = repeatable[number(RECENT - 1) % len(repeatable)]
            return self.accompanied(number, type(op), op)
        op = self.legal_from(kind, number(len(pool(self.of, kind)) - 1))
        return self.accompanied(number, kind, op)

    def _repeatable(self) -> list[Any]:
        """What was done just before and can be done again."""
        if self.lockstep is None or self.lockstep.failure is not None:
            return []
        state, legal = self.lockstep.states[0], self.of.legal
        return [op for op in self._recent if legal(state, op)]

    # -- taking steps

    @initialize(world=_Drawn("world"))
    def start(self, world: tuple[Any, tuple[Step, ...]]) -> None:
        """Load the candidate into a world, usually with what makes it interesting done already."""
        config, opening = world
        self.begin(config)
        for step in opening:
            if self.lockstep is not None and self.lockstep.legal(step.op):
                self.take(step)

    @rule(step=_Drawn("drawn"))
    def step(self, step: Step | None) -> None:
        """Take a step that can happen here; where nothing can any more, begin in another world of that kind."""
        __tracebackhide__ = True
        if step is None:
            type(self).idle += 1
            if self.lockstep is not None:
                self.begin(self.config)
        else:
            self.take(step)

    def begin(self, config: Any) -> None:
        """Start a candidate in the world that `config` describes."""
        cls = type(self)
        self._end()
        if cls.stopped():
            raise Enough
        if self.worlds >= WORLDS:
            return
        self.config = config
        self.worlds += 1
        header = Trace(cls.of.name, cls.profile, config, ())
        self.lockstep = Lockstep(self.of, header, cls.factory, environment=cls.environment, counts=cls.tally.clauses)
        self._fitting.clear()
        cls.tally.traces += 1
        self._judge()

    def take(self, step: Step) -> None:
        """Take one step that fits the state."""
        __tracebackhide__ = True
        lockstep, cls = self.lockstep, type(self)
        assert lockstep is not None
        if cls.tells:
            before = set(lockstep.counts)
            event(f"operation {snake(type(step.op).__name__)}")
        state = lockstep.states[0]
        lockstep.step(step)
        kind = type(step.op)
        if kind in self.of.shapes:
            self._recent = [step.op, *self._recent[: RECENT - 1]]
        if cls.seeing is not None and lockstep.failure is None:
            cls.seeing.saw(step, lockstep)
        if lockstep.states[0] is not state:
            self._fitting.clear()
        cls.tally.steps += 1
        if cls.tells:
            self._fresh |= lockstep.counts.keys() - before
        self._judge()

    def teardown(self) -> None:
        """Give back what the example held, and tell Hypothesis how far it came."""
        self._end()
        if type(self).tells and self._fresh:
            for clause in self._fresh:
                event(f"clause {clause.id}")
            target(float(len(self._fresh)), label="clauses reached for the first time")

    def _end(self) -> None:
        lockstep, self.lockstep = self.lockstep, None
        if lockstep is not None:
            before = lockstep.failure
            lockstep.close()
            for warning in lockstep.warnings:
                type(self).on_warning(warning)
            if before is None and lockstep.failure is not None and lockstep.failure.signature not in type(self).known:
                type(self).on_failure(lockstep.failure)

    def _judge(self) -> None:
        __tracebackhide__ = True
        lockstep, cls = self.lockstep, type(self)
        assert lockstep is not None
        failure = lockstep.failure
        if failure is None:
            return
        cls.tally.hangs += failure.kind == "hang"
        if failure.signature not in cls.known:
            cls.on_failure(failure)
        self.begin(self.config)

    # -- drawing what accompanies an operation

    def accompanied(self, number: Number, kind: type, op: Any, *, alone: bool = False) -> Step:
        """The operation, now and then with a refusal, with steps in the middle of it, or with one beside it."""
        shape = self.of.shapes[kind]
        faulty, interrupted, concurrent = self._mood
        if self._mood == CALM or not (shape.faults or shape.interrupts or shape.beside):
            return Step(op)
        part = COMPANY - 1 - number(COMPANY - 1)
        if part < faulty and shape.faults:
            return Step(op, (self._fault(number, kind, shape),))
        if part < faulty + interrupted and shape.interrupts:
            return Step(op, (), self._during(number, kind, shape))
        if part < faulty + interrupted + concurrent and shape.beside and not alone:
            return self._beside(number, kind, op, shape)
        return Step(op)

    def _fault(self, number: Number, kind: type, shape: Shape) -> Fault:
        """One planned refusal of a call that the operation makes."""
        table = type(self).experience.refusable(kind, shape)
        call, values, deepest = table[number(len(table) - 1)]
        return Fault(call, values[number(len(values) - 1)], 1 + number(deepest - 1))

    def _during(self, number: Number, kind: type, shape: Shape) -> tuple[tuple[int, Step], ...]:
        """One or two steps in the middle of another, at points of preemption."""
        inner = [other for other in shape.interrupts if _has(self.of, other, type(self).capabilities)]
        if not inner:
            return ()
        points = type(self).experience.within(kind, shape)
        steps = []
        for _ in range(1 if number(3) < 3 else 2):
            other, at = inner[number(len(inner) - 1)], number(points - 1)
            steps.append((at, Step(self._instance(number, other))))
        return tuple(sorted(steps, key=lambda pair: pair[0]))

    def _instance(self, number: Number, kind: type) -> Any:
        """One that is legal now, if any is: by the time it happens another may be."""
        listed = pool(self.of, kind)
        at = number(len(listed) - 1)
        return self.legal_from(kind, at) if self.fits(kind) else listed[at]

    def _beside(self, number: Number, kind: type, op: Any, shape: Shape) -> Step:
        """The operation on one thread with another on a second, where the world can do both."""
        others = [other for other in shape.beside if _has(self.of, other, type(self).capabilities) and self.fits(other)]
        if not others:
            return Step(op)
        other = others[number(len(others) - 1)]
        right = self.legal_from(other, number(len(pool(self.of, other)) - 1))
        reach = type(self).experience.across(kind, other, shape, self.of.shapes[other])
        switches = {number(reach) for _ in range(number(3))}
        at_once = Parallel(Step(op), Step(right), tuple(sorted(switches)))
        assert self.lockstep is not None
        return Step(at_once) if self.lockstep.legal(at_once) else Step(op)


def machine_of(of: Subsystem, capabilities: frozenset[str]) -> type[Machine]:
    """The machine of a subsystem, for a candidate with these capabilities."""
    kinds = {kind: shape for kind, shape in of.shapes.items() if shape.weight > 0 and _has(of, kind, capabilities)}
    heaviest = max((shape.weight for shape in kinds.values()), default=1.0)
    table: list[type | None] = []
    for kind, shape in kinds.items():
        table += [kind] * max(1, round(COPIES * shape.weight / heaviest))
    if of.suggest is not None:
        table += [None] * round(SUGGESTED * len(table))
    if table:
        table += [Again] * max(1, round(AGAIN * len(table)))
    name = "".join(part.capitalize() for part in of.name.split("_")) + "Machine"
    configs = tuple(config for config in of.configs if of.requires(config) <= capabilities)
    members = {"of": of, "capabilities": capabilities, "table": tuple(table), "configs": configs}
    return type(name, (Machine,), {"__doc__": f"Drive a candidate of {of.name} and its model.", **members})


@cache
def pool(of: Subsystem, kind: type) -> tuple[Any, ...]:
    """Instances of an operation, the plainest first.

    Each value of each field with plain neighbours, then the combinations of what scopes use, those that
    differ least from the plainest first, then a fixed sample of all values as the campaign draws them.
    """
    fields = of.shapes[kind].fields
    plain = {name: domain.scope[0] for name, domain in fields.items()}
    found: dict[Any, None] = {kind(**plain): None}
    for values in ("scope", "values"):
        for name, domain in fields.items():
            found |= dict.fromkeys(kind(**(plain | {name: value})) for value in getattr(domain, values))
    names = list(fields)
    for chosen in islice(_combined([domain.scope for domain in fields.values()]), POOL // 2):
        found.setdefault(kind(**dict(zip(names, chosen, strict=True))))
    source = Random(f"{of.name}:{kind.__name__}")
    if any(domain.edges or domain.bounds for domain in fields.values()):
        for _ in range(POOL - len(found)):
            found.setdefault(kind(**{name: domain.sample(source) for name, domain in fields.items()}))
    return tuple(found)


def _combined(lists: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Every combination of values, those that differ least from the plainest first."""

    def of_sum(total: int, at: int) -> Iterator[tuple[Any, ...]]:
        if at == len(lists):
            if total == 0:
                yield ()
            return
        for place in range(min(total, len(lists[at]) - 1) + 1):
            for rest in of_sum(total - place, at + 1):
                yield (lists[at][place], *rest)

    for total in range(sum(len(listed) - 1 for listed in lists) + 1):
        yield from of_sum(total, 0)


def _has(of: Subsystem, kind: type, capabilities: frozenset[str]) -> bool:
    return of.needs.get(kind, frozenset()) <= capabilities


def _can(of: Subsystem, op: Any, capabilities: frozenset[str]) -> bool:
    """Whether the candidate has what an operation, or both of two, need."""
    sides = (op.left.op, op.right.op) if type(op) is Parallel else (op,)
    return all(_has(of, type(side), capabilities) for side in sides)


__all__ = ["Disagreement", "Machine", "machine_of", "pool"]
