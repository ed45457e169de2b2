"""A partial view: what an adapter can do to a real implementation, and what it can see of it.

The simulated world of a subsystem is replaced by one that performs operations on the real thing. The lockstep
compares results and what is visible of the view; operations that the adapter has no way to perform are not drawn,
and clauses that need them, or what is hidden, are not applicable.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar

from conformance.environment.door import Environment
from conformance.model.step import Parallel, Step
from conformance.real.scripts import Bench
from conformance.strategies.domain import Scope, Shape
from conformance.subsystem import Subsystem
from conformance.verdict import HarnessError

OPERATIONS, MICROSECONDS = "operations on the real thing", "microseconds in them"
"""Figures of the report."""
OUT_OF_REACH = "out of reach of this adapter"
"""Stands among the capabilities that an operation or a configuration needs; no candidate has it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How often one thing can be done in a second, and how often it could where the facts were measured."""

    what: str
    measured: float
    fact: float

    @property
    def ratio(self) -> float:
        """Of what is measured here to the fact."""
        return self.measured / self.fact

    @property
    def is_usual(self) -> bool:
        """Within a factor of two, or faster."""
        return self.ratio >= 0.5


_ROUND, _ROUNDS, _PATIENCE = 0.001, 50, 10.0
"""Seconds that a round should take, how many there are at least, and seconds after which there are no more."""


def rate(what: str, fact: float, function: Callable[[], object], each: int = 1) -> Rate:
    """The best of many short rounds, so that a busy moment does not decide; while that is not usual there are more.

    `each` says how many of the things are done by one call.
    """
    function()
    times = max(1, round(fact / each * _ROUND))
    best, begun, rounds = 0.0, time.perf_counter(), 0
    while rounds < _ROUNDS or not Rate(what, best, fact).is_usual:
        started = time.perf_counter()
        for _ in range(times):
            function()
        ended = time.perf_counter()
        best, rounds = max(best, times * each / (ended - started)), rounds + 1
        if ended - begun > _PATIENCE:
            break
    return Rate(what, best, fact)


class Adapter(ABC):
    """One real implementation. Made by `conformance.real.names.adapter`; made only where the implementation is there.

    A subclass probes feature by feature in its constructor, narrows what its class declares, and says in `absent`
    what is not there. It raises UsageError with one sentence where the implementation cannot be had at all.
    """

    profile: str
    """Of the subsystem."""
    capabilities: frozenset[str]
    operations: frozenset[type]
    """Those that it can perform."""
    view_fields: frozenset[str] = frozenset()
    """Those that it can see; all others are hidden, in what the model expects too."""
    clauses: frozenset[str] | None = None
    """Ids of the clauses that what it sees can break; None: all that the capabilities ask for."""
    absent: Mapping[str, frozenset[str]] = MappingProxyType({})
    """What this machine or version lacks, in one sentence: ids of the clauses that are not applicable for it."""
    findings: Mapping[str, str] = MappingProxyType({})
    """Signatures of failures that are known of this implementation, and where `docs/findings.md` settles them."""
    scopes: frozenset[str] | None = None
    """Names of the small worlds that are explored; None: all that can be built."""
    version: str = ""
    """What is behind it, for reports."""
    scripts: ClassVar[str] = ""
    """Whose scripts are played, by the name of its folder; empty: none."""

    gate_steps: ClassVar[int] = 4_000
    """Steps of the campaign in the gate; each is a real operation."""
    examples: ClassVar[int] = 240
    """Examples of the machine in the gate."""
    worlds: ClassVar[tuple[Any, ...]] = ()
    """Configurations that random runs draw from beside the subsystem's."""
    length: ClassVar[int] = 50
    """Steps of an example at most."""

    @abstractmethod
    def environment(self, config: Any, profile: Any) -> RealWorld:
        """A fresh world on the real implementation."""

    def bench(self) -> Bench:
        """What its scripts are played on, a fresh one for each."""
        raise HarnessError(f"{type(self).__name__} has no bench for scripts")

    def builds(self, config: Any) -> bool:
        """Whether it can make the world that a configuration describes."""
        del config
        return True

    def legal(self, state: Any, op: Any) -> bool:
        """Whether it can perform this very operation here; beside what the model calls legal."""
        del state, op
        return True

    def visible(self, view: Any) -> Any:
        """The view with all that it cannot see hidden; for the model's view and for its own."""
        return view._replace(**{name: None for name in view._fields if name not in self.view_fields})

    def rates(self) -> tuple[Rate, ...]:
        """How fast it is here, beside the facts."""
        return ()

    def judged(self, of: Subsystem) -> frozenset[str]:
        """Ids of the clauses that it can be held to."""
        lost = {clause for clauses in self.absent.values() for clause in clauses}
        return (self.clauses or frozenset(clause.id for clause in of.clauses)) - lost


class RealWorld(Environment, ABC):
    """Base of the worlds of adapters: what the real thing did is told, nothing is simulated.

    A subclass gives `OPERATIONS` and `view()`, waits for nothing without a bound, and gives everything back in
    `close()`. What it raises is a mistake of the adapter's, unless it is a `Breach`.
    """

    done: ClassVar[int] = 0
    """Operations on real things so far, in this process."""
    nanoseconds: ClassVar[int] = 0
    """How long they took, looking included."""

    def start(self, factory: Callable[[Any], Any]) -> None:
        """There is no object of a candidate's: the real thing is asked by the operations."""
        self.driver = factory(None)

    @property
    def port(self) -> Any:
        """Nobody calls back."""
        return None

    def perform(self, op: Any) -> Any:
        """Perform one operation on the real thing, and count how long it takes."""
        started = time.perf_counter_ns()
        try:
            return self.OPERATIONS[type(op)](self, op)
        finally:
            RealWorld.done += 1
            RealWorld.nanoseconds += time.perf_counter_ns() - started

    def can_interrupt(self, op: Any) -> bool:
        """Nothing can be done in the middle of a real operation."""
        return False

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Nor at a switch of threads that we choose."""
        return False


def seen_by(of: Subsystem, adapter: Adapter) -> Subsystem:
    """The subsystem as an adapter can drive and see it."""
    out = frozenset({OUT_OF_REACH})
    needs = dict(of.needs)
    for op in of.operations.values():
        if op not in adapter.operations:
            needs[op] = needs.get(op, frozenset()) | out

    def requires(config: Any) -> frozenset[str]:
        return of.requires(config) | (frozenset() if adapter.builds(config) else out)

    def legal(state: Any, op: Any) -> bool:
        return type(op) in adapter.operations and of.legal(state, op) and adapter.legal(state, op)

    def view(state: Any) -> Any:
        return adapter.visible(of.view(state))

    def suggest(state: Any, random: Random) -> Step | None:
        step = None if of.suggest is None else of.suggest(state, random)
        return step if step is not None and _is_alone(step, adapter) else None

    def opening(config: Any, profile: Any) -> tuple[Step, ...]:
        steps = () if of.opening is None else of.opening(config, profile)
        return tuple(step for step in steps if _is_alone(step, adapter))

    return replace(
        of,
        environment=adapter.environment,
        fast=None,
        legal=legal,
        legal_beside=None,
        view=view,
        requires=requires,
        needs=needs,
        configs=tuple(config for config in (*adapter.worlds, *of.configs) if adapter.builds(config)),
        shapes={op: _alone(shape) for op, shape in of.shapes.items()},
        scopes=dict(_scopes(of, adapter)),
        suggest=suggest if of.suggest is not None else None,
        opening=opening if of.opening is not None else None,
        checks={},
        starts=(),
        afterwards=(),
        races={},
        undisturbed=True,
    )


def _is_alone(step: Step, adapter: Adapter) -> bool:
    """Whether a step is one operation that can be performed, without refusals or company."""
    alone = not step.faults and not step.during and type(step.op) is not Parallel
    return alone and type(step.op) in adapter.operations


def _alone(shape: Shape) -> Shape:
    """The shape without refusals and company: nobody can ask a real implementation for them."""
    return replace(shape, faults=(), interrupts=(), beside=())


def _scopes(of: Subsystem, adapter: Adapter) -> list[tuple[str, Scope]]:
    """The small worlds that it can build, with the steps that it can take."""
    kept: dict[Hashable, tuple[str, Scope]] = {}
    for name, scope in of.scopes.items():
        steps = tuple(step for step in scope.steps if isinstance(step, Step) and _is_alone(step, adapter))
        wanted = adapter.scopes is None or name in adapter.scopes
        if wanted and steps and adapter.builds(scope.config):
            left = replace(scope, steps=steps, states=None, transitions=None)
            kept.setdefault((scope.config, steps, scope.depth), (name, left))  # many differ in what it cannot do
    return list(kept.values())
