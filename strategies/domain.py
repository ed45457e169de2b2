"""What values a field may take, declared once and used at four resolutions.

`scope` is what exhaustive runs enumerate, `edges` the boundary values, `sampler()` the fast
source for the campaign, `strategy()` the Hypothesis strategy, and `bounds` the interval for
CrossHair. `simpler(value)` is what the minimiser tries in place of a value, plainest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from conformance.model.step import Step

if TYPE_CHECKING:
    from hypothesis import strategies as st

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Domain(Generic[T]):
    """A finite list of values that matter, plainest first, and optionally an interval around them."""

    scope: tuple[T, ...]
    """The few values that exhaustive runs use; the first is the plainest."""
    edges: tuple[T, ...] = ()
    """Boundary and hostile values beyond the scope, plainest first."""
    bounds: tuple[int, int] | None = None
    """Inclusive interval for integers: random runs also draw from it, CrossHair stays within it."""
    usual: float = 0.8
    """How often the campaign draws from `scope` rather than from `edges` or `bounds`."""

    def __post_init__(self) -> None:
        if not self.scope:
            raise ValueError("a domain needs at least one value in its scope")

    @property
    def values(self) -> tuple[T, ...]:
        """Every listed value, plainest first."""
        return self.scope + tuple(v for v in self.edges if v not in self.scope)

    def sample(self, random: Random) -> T:
        """One value for the campaign."""
        if random.random() < self.usual or not (self.edges or self.bounds):
            return random.choice(self.scope)
        if self.bounds is not None and (not self.edges or random.random() < 0.25):
            return random.randint(*self.bounds)  # type: ignore[return-value]  # bounds imply T is int
        return random.choice(self.edges)

    def strategy(self) -> st.SearchStrategy[T]:
        """The same values for Hypothesis; shrinks towards the plainest."""
        from hypothesis import strategies as st  # half of the time that a command takes to start

        listed = st.sampled_from(self.values)
        if self.bounds is None:
            return listed
        return st.one_of(listed, st.integers(*self.bounds))

    def simpler(self, value: T) -> Sequence[T]:
        """Values to try in place of `value`, plainest first; empty when it is the plainest."""
        listed = self.values
        return listed[: listed.index(value)] if value in listed else listed

    def map(self, function: Callable[[T], T]) -> Domain[T]:
        """The same domain with `function` applied to each listed value; bounds are dropped."""
        return Domain(tuple(map(function, self.scope)), tuple(map(function, self.edges)), usual=self.usual)


def just(value: T) -> Domain[T]:
    """The domain of a field that never varies."""
    return Domain((value,))


BOOLEAN: Domain[bool] = Domain((False, True))
"""A flag, off first."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How often one kind of operation happens, what its fields hold, and what may go wrong during it."""

    fields: Mapping[str, Domain[Any]]
    """One domain per field of the operation, by field name."""
    weight: float = 1.0
    """Relative frequency in the campaign."""
    faults: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """(environment call, values it can be refused with); one of them is planned now and then."""
    deepest: int = 1
    """Largest `nth` of a planned fault: 1 where the candidate makes each call at most once."""
    interrupts: tuple[type, ...] = ()
    """Operations that may happen in the middle of this one (`Step.during`)."""
    beside: tuple[type, ...] = ()
    """Operations that may run on a second thread at the same time (`Parallel`)."""
    points: int = 12
    """Points of preemption that are tried, from 0; more than a correct candidate has is harmless."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A small world that is explored without gaps."""

    config: object
    steps: tuple[object, ...]
    """Every step to try in every state (`model.step.Step`)."""
    depth: int | None = None
    """Longest path from the initial state; None explores until nothing new appears."""
    states: int | None = None
    """Pinned count of reachable states for the correct candidate, None until measured."""
    transitions: int | None = None
    """Pinned count of legal (state, step) pairs."""
    sequences: int = 0
    """Also every sequence of steps up to this length, without merging states."""
    profiles: frozenset[str] = frozenset()
    """Profiles it is explored in; empty means all."""
    needs: frozenset[str] = frozenset()
    """Capabilities a candidate must have for it."""
    in_gate: bool = True
    """Whether the gate explores it, or only the hunt and `strength`."""


@dataclass(frozen=True, slots=True)
class Race:
    """Two operations that meet in one state, all of whose schedules with few switches are tried."""

    config: object
    steps: tuple[Step, ...]
    """Steps that lead from the start of `config` to the state."""
    left: Step
    right: Step
    switches: int = 2
    """Switches of a schedule at most, not counting those where a thread blocks or ends."""
    profiles: frozenset[str] = frozenset()
    """Profiles it is tried in; empty means all."""
