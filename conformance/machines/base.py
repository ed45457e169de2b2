"""What the five Hypothesis machines share: a lockstep that each rule takes one step of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from conformance.engines.context import HANGS
from conformance.lockstep import Lockstep
from conformance.model.step import Fault, Parallel, Step
from conformance.strategies.domain import parallels
from conformance.subsystem import Subsystem
from conformance.trace import Trace
from conformance.verdict import Failure, Tally


class Disagreement(AssertionError):
    """The candidate and the model disagree; Hypothesis shrinks what led here."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.signature)
        self.failure = failure


class Machine(RuleBasedStateMachine):
    """Drive a candidate and the model with the same operations.

    The engine makes a subclass with `factory`, `profile` and the rest filled in. A rule calls
    `self.take(op, …)`; an operation the world cannot do now, or after a known failure, is passed over.
    """

    of: ClassVar[Subsystem]
    """The subsystem this machine drives; set by the engine, like all below."""
    factory: ClassVar[Callable[[Any], Any]]
    profile: ClassVar[str]
    capabilities: ClassVar[frozenset[str]] = frozenset()
    environment: ClassVar[Callable[..., Any] | None] = None
    known: ClassVar[set[str]]
    """Signatures already reported: an example that hits one ends quietly."""
    found: ClassVar[list[Failure]]
    """Failures in the order in which examples met them; the last one of a signature is minimal."""
    warned: ClassVar[dict[str, Failure]]
    tally: ClassVar[Tally]

    def __init__(self) -> None:
        super().__init__()
        self.lockstep: Lockstep | None = None

    @property
    def state(self) -> Any:
        """The model's state; None before `begin`."""
        return None if self.lockstep is None else self.lockstep.state

    def begin(self, config: Any) -> None:
        """Start a candidate in the world that `config` describes."""
        cls = type(self)
        if cls.tally.hangs >= HANGS:
            return
        header = Trace(cls.of.name, cls.profile, config, ())
        self.lockstep = Lockstep(self.of, header, cls.factory, environment=cls.environment, counts=cls.tally.clauses)
        cls.tally.traces += 1
        self._judge()

    def take(self, op: Any, faults: tuple[Fault, ...] = (), during: tuple[tuple[int, Step], ...] = ()) -> None:
        """Take one step, if the world can do it now."""
        lockstep = self.lockstep
        if lockstep is None or lockstep.failure is not None or not lockstep.legal(op):
            return
        parts = (op.left.op, op.right.op) if type(op) is Parallel else (op,)
        if not all(self._can(type(part)) for part in parts):
            return
        lockstep.step(Step(op, faults, during))
        type(self).tally.steps += 1
        self._judge()

    @precondition(lambda self: self.has_company())
    @rule(op=st.runner().flatmap(lambda machine: machine.parallels()))
    def at_once(self, op: Parallel) -> None:
        """Two operations on two threads, switched where the schedule says."""
        self.take(op)

    def has_company(self) -> bool:
        """Whether the world has started, and the candidate has operations that may run beside one another."""
        return self.lockstep is not None and _parallels(self.of, self.capabilities) is not None

    def parallels(self) -> st.SearchStrategy[Parallel]:
        """Pairs of operations that the candidate has, with their schedules."""
        found = _parallels(self.of, self.capabilities)
        return st.nothing() if found is None else found

    def _can(self, op: type) -> bool:
        return self.of.needs.get(op, frozenset()) <= self.capabilities

    def teardown(self) -> None:
        """Give back what the example held."""
        if self.lockstep is not None:
            for warning in self.lockstep.warnings:
                type(self).warned.setdefault(warning.signature, warning)
            self.lockstep.close()

    def _judge(self) -> None:
        lockstep = self.lockstep
        assert lockstep is not None
        failure = lockstep.failure
        if failure is not None:
            type(self).tally.hangs += failure.kind == "hang"
        if failure is None or failure.signature in type(self).known:
            return
        type(self).found.append(failure)
        raise Disagreement(failure)


@cache
def _parallels(of: Subsystem, capabilities: frozenset[str]) -> st.SearchStrategy[Parallel] | None:
    """What may run beside what, for a candidate with these capabilities; None where nothing may."""
    able = {op for op in of.shapes if of.needs.get(op, frozenset()) <= capabilities}
    return parallels({op: shape for op, shape in of.shapes.items() if op in able})
