"""What an operation leaves open, said as data: parts that are done or not, and the ways in which it may end.

A driver finds several things wrong in some order, and has done some of its work by then; no clause says
which order. So an operation is described by its *parts* (each a change of the state, some of them ordered)
and its *ends* (each a result, with the parts that must or cannot have been done by then). Every set of
parts that contains what its members come after, with every end that such a set allows, is an outcome;
nobody lists them. An operation that can only succeed, or fail before it did anything, has no need of this.

    Freedom(
        state,
        parts=(
            Part("detached", lambda s: with_wired(s, vector, None)),
            Part("wired", lambda s: with_wired(s, vector, fd), after=("detached",)),
        ),
        ends=(
            End(0, because=c.WIRED, complete=True),
            End(-EBADF, because=c.BAD_FD, before=("wired",)),
            End(-ENOMEM, because=c.DETACHED_ON_REFUSAL, after=("detached",), before=("wired",)),
        ),
    )
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from conformance.model.step import Outcome
from conformance.specs.clause import Clause


@dataclass(frozen=True, slots=True)
class Part:
    """A change that an operation makes on its way; when it ends, the change is there or it is not."""

    name: str
    """What is then the case: `detached`, `response cleared`."""
    change: Callable[[Any], Any]
    """The state after it, from the state before. Parts that no `after` orders must commute."""
    after: tuple[str, ...] = ()
    """Parts without which it is never done."""
    owed: bool = True
    """Whether an operation that ends complete has done it; else it may be left out."""


@dataclass(frozen=True, slots=True)
class End:
    """One way in which an operation may end; the fields that `Outcome` has too mean the same."""

    result: Any
    because: Clause
    effect: Clause | None = None
    also: tuple[Clause, ...] = ()
    breaches: tuple[Clause, ...] = ()
    complete: bool = False
    """Whether all parts owed are done: this is no refusal."""
    after: tuple[str, ...] = ()
    """Parts that are done before anybody can end like this."""
    before: tuple[str, ...] = ()
    """Parts that nobody can have done who ends like this."""


@dataclass(frozen=True, slots=True, eq=False)
class Freedom:
    """Every outcome that the parts and ends of one operation come to; the plainest end is listed first.

    Iterating makes them one by one: those of the first end first, and of each end those with the fewest parts
    that nobody owes. States that come out equal are given once per end.
    """

    state: Any
    parts: tuple[Part, ...]
    """In an order in which they can be done."""
    ends: tuple[End, ...]
    then: Callable[[Outcome], Outcome] | None = None
    """What becomes of each outcome: what a model adds to all of them."""

    def __iter__(self) -> Iterator[Outcome]:
        return self._of(self.ends)

    def explaining(self, result: Any) -> Iterator[Outcome]:
        """Only the outcomes with this result; what others would come to is not computed."""
        return self._of(end for end in self.ends if end.result == result)

    def or_ends(self, *ends: End) -> Freedom:
        """The same operation with further ends."""
        return replace(self, ends=(*self.ends, *ends))

    def each(self, change: Callable[[Outcome], Outcome]) -> Freedom:
        """The same operation with every outcome changed."""
        first = self.then
        return replace(self, then=change if first is None else lambda outcome: change(first(outcome)))

    def _of(self, ends: Iterable[End]) -> Iterator[Outcome]:
        for end in ends:
            seen: set[Any] = set()
            for state in self._states(end):
                if state not in seen:
                    seen.add(state)
                    outcome = Outcome(state, end.result, end.because, end.effect, end.also, end.breaches)
                    yield outcome if self.then is None else self.then(outcome)

    def _states(self, end: End) -> Iterator[Any]:
        """The states in which the operation can end like this, fewest parts beyond the owed ones first."""
        chosen: list[tuple[frozenset[str], Any]] = [(frozenset(), self.state)]
        for part in self.parts:
            must = part.name in end.after or (end.complete and part.owed and part.name not in end.before)
            grown: list[tuple[frozenset[str], Any]] = []
            for done, state in chosen:
                can = part.name not in end.before and done.issuperset(part.after)
                if not must:
                    grown.append((done, state))
                if can:
                    grown.append((done | {part.name}, part.change(state)))
            chosen = grown
        chosen.sort(key=lambda found: len(found[0]))
        return (state for _, state in chosen)


def also_ends(outcomes: Iterable[Outcome], state: Any, *ends: End) -> Iterator[Outcome]:
    """The outcomes, and further ways to end with nothing done: what somebody may find wrong from now on, anywhere."""
    yield from outcomes
    yield from Freedom(state, (), ends)
