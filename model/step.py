"""What the specification is asked, and what it answers: steps in, outcomes out.

A trace is plain data. Nothing here knows a subsystem: operations, answers, states and
results are each subsystem's own frozen records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from conformance.specs.clause import Clause


@dataclass(frozen=True, slots=True)
class Fault:
    """One planned refusal: the `nth` time the candidate makes `call` within the step, it gets `value`.

    Faults are named by call, not by position, so one trace means the same for every candidate.
    """

    call: str
    """Name of the environment call, as in the port: `request_irq`."""
    value: int
    """What the call returns instead: usually a negative errno. Never 0."""
    nth: int = 1
    """Which call of that name within the step, counted from 1."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, the faults planned for it, and what happens in the middle of it."""

    op: Any
    """An operation of the subsystem, or `Parallel`."""
    faults: tuple[Fault, ...] = ()
    during: tuple[tuple[int, Step], ...] = ()
    """(k, step): at the k-th point of preemption, from 0, that step happens in full.

    Every environment call has two points, before its effect and after it; those at which
    the environment cannot be interrupted (atomic context) are not counted. Steps whose point
    is never reached do not happen.
    """


@dataclass(frozen=True, slots=True)
class Parallel:
    """Two operations on two threads that switch at environment calls.

    `left` starts. `schedule` lists the points of preemption, counted from 0 over both threads,
    at which the running thread yields to the other one. A thread that blocks or ends yields
    anyway. Correct if one of the two orders explains both results and the view.
    """

    left: Step
    right: Step
    schedule: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Outcome:
    """One thing the specification allows an operation to do.

    Never changed once made. Not frozen, because one is made for every step taken and a frozen
    record takes three times as long to make (0.85 against 0.29 microseconds).
    """

    state: Any
    """The next state."""
    result: Any
    """What the caller gets: compared with what the candidate returned."""
    because: Clause
    """Decides this branch; cited when the result disagrees, counted when it is taken."""
    effect: Clause | None = None
    """Cited when the view disagrees after this branch; the view field's own clause when None."""
    also: tuple[Clause, ...] = ()
    """Further clauses that taking this branch exercises."""
    breaches: tuple[Clause, ...] = ()
    """SHOULD clauses that this outcome breaks: tolerated, reported, and the run goes on."""
    parts: tuple[Clause, ...] = ()
    """Of a result with several parts, the clause of each; that of the first that disagrees is cited."""

    def has_parts_as(self, result: Any) -> bool:
        """Whether a result can be compared part by part."""
        return bool(self.parts) and isinstance(result, tuple) and len(result) == len(self.parts)

    def agreement(self, result: Any) -> int:
        """How many parts of a result are as here before the first that is not."""
        if not self.has_parts_as(result):
            return 0
        pairs = zip(self.result, result, strict=True)
        return next((n for n, (expected, got) in enumerate(pairs) if expected != got), len(self.parts))

    def decider(self, result: Any) -> Clause:
        """The clause to cite where this was returned instead."""
        at = self.agreement(result)
        return self.parts[at] if self.has_parts_as(result) and at < len(self.parts) else self.because


class Open(Protocol):
    """Outcomes that are made when they are asked for: `model.freedom.Freedom`."""

    def __iter__(self) -> Iterator[Outcome]:
        """All of them, the plainest first."""

    def explaining(self, result: Any) -> Iterator[Outcome]:
        """Those whose result equals what was returned."""


Labels = tuple[str | Sequence[str], ...]
"""What the parts of a view's field are called, a level each: `vCPU {}` for what is numbered, or the names of all."""

Outcomes = Outcome | tuple[Outcome, ...] | Open
"""What a model function returns; the plain Outcome where it leaves no freedom."""


def each(outcomes: Outcomes) -> tuple[Outcome, ...]:
    """One outcome or several, as several."""
    if isinstance(outcomes, Outcome):
        return (outcomes,)
    return outcomes if isinstance(outcomes, tuple) else tuple(outcomes)
