"""A subsystem small enough to see through: a shelf of slots that hold numbers.

Putting needs memory from the environment; taking gives it back. It exists to test the core
without a real subsystem: the tests derive wrong candidates from `Shelf`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from conformance.candidates.load import Candidate
from conformance.engines.context import Context
from conformance.environment.door import Environment
from conformance.model.step import Fault, Outcome, Outcomes, Parallel, Step
from conformance.specs.clause import Clause, Kind, Level, Profile
from conformance.strategies.domain import Domain, Scope, Shape
from conformance.subsystem import Check, Record, Subsystem
from conformance.trace import Trace
from conformance.verdict import Violation

ENOMEM, ENOSPC, ENOENT = 12, 28, 2


def _clause(number: int, level: Level, kind: Kind, text: str) -> Clause:
    return Clause(id=f"TOY-{number:03d}", level=level, kind=kind, text=text, source="the tests")


STORED = _clause(1, Level.MUST, Kind.STATE, "What is put is on the shelf.")
FULL = _clause(2, Level.MUST, Kind.RESPONSE, "A full shelf refuses with -ENOSPC.")
NO_MEMORY = _clause(3, Level.MUST, Kind.RESPONSE, "Without memory putting fails with -ENOMEM.")
LAST_OUT = _clause(4, Level.MUST, Kind.RESPONSE, "Take returns the number put last.")
EMPTY = _clause(5, Level.MUST, Kind.RESPONSE, "An empty shelf answers -ENOENT.")
FREED_ONCE = _clause(6, Level.MUST, Kind.ENV_PROTOCOL, "Memory is given back once.")
NO_LEAK = _clause(7, Level.MUST, Kind.RESOURCE, "One allocation is held per number on the shelf.")
ROBUST = _clause(8, Level.MUST, Kind.SECURITY, "No crash.")
TIDY = _clause(9, Level.SHOULD, Kind.STATE, "Clear keeps nothing.")
ASK_FIRST = _clause(10, Level.MUST, Kind.ORDERING, "A full shelf asks for no memory.")
LOCKED = _clause(11, Level.MUST, Kind.ENV_PROTOCOL, "The lock is not taken twice.")

CLEARED = _clause(12, Level.MUST, Kind.RESPONSE, "Clear returns 0.")


@dataclass(frozen=True, slots=True)
class Config:
    """How many numbers fit."""

    size: int = 2
    odd: bool = False
    """Makes no difference."""


@dataclass(frozen=True, slots=True)
class Put:
    """Put a number on the shelf."""

    value: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Take the last number off."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Take everything off; the first number may stay (TIDY says it should not)."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals."""

    alloc: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """The numbers, first put first."""

    size: int
    numbers: tuple[int, ...] = ()


class View(NamedTuple):
    """What can be seen: how much memory is held, and how many numbers there are."""

    numbers: tuple[int, ...]
    held: int


def _view(state: State) -> View:
    return View(state.numbers, len(state.numbers))


def _step(state: State, op: Put | Take | Clear, env: Answers, _profile: Profile) -> Outcomes:
    match op:
        case Put(value):
            if len(state.numbers) == state.size:
                return Outcome(state, -ENOSPC, because=FULL)
            if env.alloc:
                return Outcome(state, env.alloc, because=NO_MEMORY)
            return Outcome(State(state.size, (*state.numbers, value)), 0, because=STORED, also=(NO_LEAK,))
        case Take():
            if not state.numbers:
                return Outcome(state, -ENOENT, because=EMPTY)
            return Outcome(State(state.size, state.numbers[:-1]), state.numbers[-1], because=LAST_OUT)
        case Clear():
            clean = Outcome(State(state.size), 0, because=CLEARED, also=(TIDY,))
            if not state.numbers:
                return clean
            return clean, Outcome(State(state.size, state.numbers[:1]), 0, because=CLEARED, breaches=(TIDY,))


class ShelfProtocol(Protocol):
    """Entry points."""

    def put(self, value: int) -> int:
        """0 or -errno."""

    def take(self) -> int:
        """The number or -errno."""

    def clear(self) -> int:
        """0."""


class Port(Protocol):
    """Environment calls."""

    def alloc(self) -> int:
        """A token, or -ENOMEM."""

    def free(self, token: int) -> None:
        """Give a token back."""

    def show(self, numbers: tuple[int, ...]) -> None:
        """Tell the world what is on the shelf."""

    def lock(self) -> None:
        """Take the only lock."""

    def unlock(self) -> None:
        """Release it."""


class World(Environment):
    """Memory, a window onto the shelf, and one lock."""

    PORT = Port
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"free": (FREED_ONCE,)}

    def __init__(self, _config: Config, _profile: Profile) -> None:
        super().__init__()
        self.tokens: set[int] = set()
        self.next = 1
        self.shown: tuple[int, ...] = ()
        self.locked = False

    def alloc(self) -> int:
        """A fresh token."""
        if refused := self.refused("alloc"):
            return refused
        self.tokens.add(self.next)
        self.next += 1
        return self.next - 1

    def free(self, token: int) -> None:
        """Each token once."""
        if token not in self.tokens:
            raise Violation(FREED_ONCE, f"free({token}): not held")
        self.tokens.remove(token)

    def show(self, numbers: tuple[int, ...]) -> None:
        """Remember."""
        self.shown = numbers

    def lock(self) -> None:
        """Block while another thread has it."""
        if self.scheduler is not None:
            self.scheduler.block("the lock", lambda: not self.locked)
        if self.locked:
            raise Violation(LOCKED, "lock(): held already")
        self.locked = True

    def unlock(self) -> None:
        """Release."""
        self.locked = False

    def view(self) -> View:
        """As shown."""
        return View(self.shown, len(self.tokens))

    def do_put(self, op: Put) -> int:
        """Enter the candidate."""
        return self.enter_int(self.driver.put, op.value)

    def do_take(self, _op: Take) -> int:
        """Enter the candidate."""
        return self.enter_int(self.driver.take)

    def do_clear(self, _op: Clear) -> int:
        """Enter the candidate."""
        return self.enter_int(self.driver.clear)

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {Put: do_put, Take: do_take, Clear: do_clear}


class Shelf:
    """The correct candidate."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self.size = 2
        self.items: list[tuple[int, int]] = []

    def put(self, value: int) -> int:
        """Check, allocate, store, show; all under the lock."""
        self.port.lock()
        result = self._put(value)
        self.port.unlock()
        return result

    def _put(self, value: int) -> int:
        if len(self.items) >= self.size:
            return -ENOSPC
        token = self.port.alloc()
        if token < 0:
            return int(token)
        self.items.append((value, token))
        self._show()
        return 0

    def take(self) -> int:
        """Pop, free, show."""
        self.port.lock()
        result = -ENOENT
        if self.items:
            result, token = self.items.pop()
            self.port.free(token)
            self._show()
        self.port.unlock()
        return result

    def clear(self) -> int:
        """Free all."""
        while self.items:
            self.port.free(self.items.pop()[1])
        self._show()
        return 0

    def _show(self) -> None:
        self.port.show(tuple(value for value, _ in self.items))


def _asks_first(record: Record) -> bool | str:
    if record.result != -ENOSPC:
        return False
    return "alloc" not in [name for name, _, _ in record.calls] or "asked for memory although full"


VALUES = Domain((0, 1), edges=(7, 255))
STEPS = (
    Step(Put(0)),
    Step(Put(1)),
    Step(Put(0), (Fault("alloc", -ENOMEM),)),
    Step(Take()),
    Step(Clear()),
)
UPSTREAM = Profile(name="upstream", text="The only one.")

TOY = Subsystem(
    name="toy",
    title="A shelf.",
    clauses=(STORED, FULL, NO_MEMORY, LAST_OUT, EMPTY, FREED_ONCE, NO_LEAK, ROBUST, TIDY, ASK_FIRST, LOCKED, CLEARED),
    profiles=MappingProxyType({"upstream": UPSTREAM}),
    capabilities={},
    robustness=ROBUST,
    candidate=ShelfProtocol,
    optional={},
    port=Port,
    config=Config,
    operations={"Put": Put, "Take": Take, "Clear": Clear},
    answers=Answers,
    initial=lambda config, _profile: State(config.size),
    legal=lambda _state, _op: True,
    step=_step,
    view=_view,
    view_clauses={"numbers": STORED, "held": NO_LEAK},
    cite=None,
    requires=lambda _config: frozenset(),
    needs={},
    configs=(Config(),),
    shapes={
        Put: Shape({"value": VALUES}, weight=2, faults=(("alloc", (-ENOMEM,)),), beside=(Put, Take)),
        Take: Shape({}),
        Clear: Shape({}, weight=0.3),
    },
    scopes={"all": Scope(Config(), STEPS, sequences=2)},
    suggest=None,
    opening=None,
    environment=World,
    fast=None,
    checks={Put: (Check(ASK_FIRST, _asks_first),)},
)


def trace(*steps: Step | Put | Take | Clear) -> Trace:
    """A trace of these operations."""
    return Trace("toy", "upstream", Config(), tuple(s if isinstance(s, Step) else Step(s) for s in steps))


def context(candidate: type = Shelf, **options: Any) -> Context:
    """A context over a candidate class; the machine has examples enough to find what is wrong with it."""
    options.setdefault("examples", 120)
    loaded = Candidate("toy", candidate, "upstream", frozenset())
    return Context(subsystem=TOY, candidate=loaded, profile="upstream", **options)


__all__ = ["TOY", "Parallel", "Shelf", "context", "trace"]
