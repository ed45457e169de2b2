"""Small worlds without gaps: every transition of every reachable model state, on the candidate.

One candidate walks on from transition to transition as long as there is an untried one at hand,
and is replaced by a fresh one that replays the shortest path to the nearest untried transition
when there is none. States nearest to the start come first. A transition that fails is tried
again on a fresh candidate by the shortest path, so the counterexample is a shortest one unless
the candidate needed the longer walk; then the walk is minimised.

Two ways to a state are merged where the model's state is equal, and the world's as well
(`Environment.digest`: contents that a candidate wrote earlier, caches, freed tokens). A candidate
may remember still more, so scopes can also ask for all sequences up to a length without merging states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from heapq import heappop, heappush
from typing import Any

from conformance.engines.context import Context, Edge, Explored, Reached
from conformance.engines.garbage import collected_seldom
from conformance.engines.minimise import minimiser
from conformance.lockstep import Lockstep
from conformance.model.step import Parallel, Step
from conformance.strategies.domain import Scope
from conformance.trace import Trace
from conformance.verdict import Failure

LONGEST_WALK = 200
"""Steps after which a walk ends, so that what must be minimised stays short and every scope has its turn."""

States = tuple[Any, ...]
"""The model states that explain what was seen: one, unless the observations leave it open."""
Key = tuple[States, Hashable]
"""By what places are told apart: the model's states, and what the world remembers beyond them."""


@collected_seldom()
def run(context: Context) -> None:
    """Explore every scope that applies to the candidate, a walk in each in turn.

    So what shows near the start of any scope is found before one of them is seen through.
    """
    if context.part == 0:
        begin_others(context)
    mine = [(name, scope) for n, (name, scope) in enumerate(scopes(context)) if n % context.parts == context.part]
    waiting = deque(_Exploration(context, name, scope) for name, scope in mine)
    while waiting and not context.expired():
        exploration = waiting.popleft()
        if exploration.go_on():
            waiting.append(exploration)
    for exploration in waiting:
        exploration.end()
    for _, scope in mine:
        if scope.sequences:
            sequences(context, scope)


def begin_others(context: Context) -> None:
    """Begin each world that no scope has once, as it usually begins."""
    of = context.subsystem
    explored = {scope.config for _, scope in scopes(context)}
    for config in filter(context.allows, of.configs):
        if config in explored:
            continue
        if context.expired():
            return
        trace = Trace(of.name, context.profile, config, ())
        path: tuple[Step, ...] = ()
        begun = _replay(context, trace, path)
        for step in () if of.opening is None else of.opening(config, begun.profile):
            if begun.failure is None and _can(context, step) and _legal(context, begun.state, step):
                path = (*path, step)
                begun = _replay(context, trace, path)


def scopes(context: Context) -> Iterator[tuple[str, Scope]]:
    """The scopes that apply: this profile, these capabilities, small enough for the gate or hunting."""
    for name, scope in context.subsystem.scopes.items():
        if scope.profiles and context.profile not in scope.profiles:
            continue
        if not scope.needs <= context.candidate.capabilities or not context.allows(scope.config):
            continue
        if scope.in_gate or context.hunting:
            yield name, scope


class _Place:
    """One explored state: how it is reached, and what has been tried there."""

    __slots__ = ("depth", "edges", "failed", "key", "led", "legal", "path", "tried", "untried")

    def __init__(self, key: Key, path: tuple[Step, ...], untried: list[Step]) -> None:
        self.key = key
        self.path = path
        """The shortest known way there."""
        self.depth = len(path)
        self.untried = untried
        """Legal steps not yet taken here, last first."""
        self.legal = len(untried)
        self.tried = 0
        self.failed = 0
        self.edges: dict[Key, Step] = {}
        """Places reached in one step, and by which."""
        self.led: dict[Key, int] = {}
        """How many steps lead to each of them."""

    @property
    def states(self) -> States:
        """The model's part of the key."""
        return self.key[0]


def _key(lockstep: Lockstep) -> Key:
    return lockstep.states, lockstep.env.digest()


class _Exploration:
    """The state graph of one scope, as far as it is known."""

    def __init__(self, context: Context, name: str, scope: Scope) -> None:
        self.context = context
        self.name = name
        self.scope = scope
        self.trace = Trace(context.subsystem.name, context.profile, scope.config, ())
        self.steps = _usable(context, scope)
        self.places: dict[Key, _Place] = {}
        self.queue: list[tuple[int, int, Key]] = []
        """Places with untried steps, nearest first; outdated entries are passed over."""
        self.queued = 0
        self.transitions = 0
        self.lockstep: Lockstep | None = None

    def go_on(self) -> bool:
        """Take one more walk; False when no reachable transition is untried any more."""
        if not self.places:
            first = self._restart(())
            if first.failure is not None:
                self._finish()
                return False
            self._reach(first, None, None)
        place = self._nearest()
        if place is None:
            self.end()
            return False
        if self._restart(place.path, place.states).failure is None:
            self._walk(place)
        else:
            place.untried.clear()
        self._finish()
        return True

    def end(self) -> None:
        """Close the last candidate and note how far the exploration came."""
        self._finish()
        self.context.notes[f"{self.name}: states"] = len(self.places)
        self.context.notes[f"{self.name}: transitions"] = self.transitions
        self.context.explored.append(self._explored())

    def _explored(self) -> Explored:
        numbers = {key: number for number, key in enumerate(self.places)}
        return Explored(
            self.name,
            self.scope.config,
            tuple(Reached(p.states[0], p.depth, p.legal, p.tried, p.failed) for p in self.places.values()),
            tuple(
                Edge(numbers[origin], numbers[key], step, p.led[key])
                for origin, p in self.places.items()
                for key, step in p.edges.items()
            ),
        )

    def _nearest(self) -> _Place | None:
        """The place nearest to the start that has something untried."""
        while self.queue:
            depth, _, key = self.queue[0]
            place = self.places[key]
            if place.untried and place.depth == depth:
                return place
            heappop(self.queue)
        return None

    def _walk(self, place: _Place) -> None:
        """Go on from place to place while untried transitions are at hand."""
        assert self.lockstep is not None
        lockstep = self.lockstep
        while lockstep.steps < LONGEST_WALK and not self.context.expired():
            if place.untried and self._may_go_on(place):
                step = place.untried.pop()
                self.transitions += 1
                place.tried += 1
                if lockstep.step(step) is not None:
                    place.failed += 1
                    self._failed(place, step)
                    return
                place = self._reach(lockstep, place, step)
                continue
            onward = self._onward(place)
            if onward is None or lockstep.step(onward) is not None:
                if lockstep.failure is not None:
                    self._failed(place, onward)
                return
            known = self.places.get(_key(lockstep))
            if known is None:
                return
            place = known

    def _may_go_on(self, place: _Place) -> bool:
        """Keep to the neighbourhood of the nearest untried transition, so that short traces come first."""
        return place.depth <= self.queue[0][0] + self.context.subsystem.ahead if self.queue else True

    def _onward(self, place: _Place) -> Step | None:
        """A known step towards a place with something untried, one or two steps away."""
        for key, step in place.edges.items():
            if self.places[key].untried and self._may_go_on(self.places[key]):
                return step
        for key, step in place.edges.items():
            if any(self.places[beyond].untried for beyond in self.places[key].edges):
                return step
        return None

    def _reach(self, lockstep: Lockstep, origin: _Place | None, step: Step | None) -> _Place:
        """Note where a step led; a shorter way to a known place shortens all ways through it."""
        path = () if origin is None or step is None else (*origin.path, step)
        key = _key(lockstep)
        place = self.places.get(key)
        if place is None:
            is_last = self.scope.depth is not None and len(path) >= self.scope.depth
            place = self.places[key] = _Place(key, path, [] if is_last else self._legal_steps(key[0]))
            self._enqueue(place)
        elif len(path) < place.depth:
            self._shorten(place, path)
        if origin is not None and step is not None and place is not origin:
            origin.edges.setdefault(key, step)
            origin.led[key] = origin.led.get(key, 0) + 1
        return place

    def _legal_steps(self, states: States) -> list[Step]:
        """What can be tried there, last first."""
        return [step for step in reversed(self.steps) if _legal(self.context, states[0], step)]

    def _shorten(self, place: _Place, path: tuple[Step, ...]) -> None:
        """Propagate a shorter path along the known edges."""
        waiting = [(place, path)]
        while waiting:
            place, path = waiting.pop()
            if len(path) >= place.depth:
                continue
            limit = self.scope.depth
            if limit is not None and place.depth >= limit > len(path):
                place.untried = self._legal_steps(place.states)
                place.legal = len(place.untried)
            place.path, place.depth = path, len(path)
            self._enqueue(place)
            waiting += [(self.places[key], (*path, step)) for key, step in place.edges.items()]

    def _enqueue(self, place: _Place) -> None:
        if place.untried:
            self.queued += 1
            heappush(self.queue, (place.depth, self.queued, place.key))

    def _failed(self, place: _Place, step: Step | None) -> None:
        """Report a failing transition: by the shortest path if that shows it, else by the walk."""
        assert self.lockstep is not None
        walked = self.lockstep.failure
        assert walked is not None
        short: Failure | None = None
        if step is not None and walked.signature not in self.context.known:
            short = self._restart((*place.path, step), note=False).failure
        self.context.note_failure(short or walked, minimiser(self.context))
        if short is not None and short.signature != walked.signature:
            self.context.note_failure(walked, minimiser(self.context))

    def _restart(self, path: tuple[Step, ...], judged: States | None = None, *, note: bool = True) -> Lockstep:
        """A fresh candidate that has taken these steps; not judged again where `judged` says where they led."""
        self._finish()
        context = self.context
        self.lockstep = Lockstep(
            context.subsystem,
            self.trace,
            context.candidate.factory,
            environment=context.fast,
            counts=context.tally.clauses,
        )
        if judged is None or any(step.during or type(step.op) is Parallel for step in path):
            self.lockstep.run(path)
        elif self.lockstep.failure is None:
            self.lockstep.retrace(path, judged)
        if note and self.lockstep.failure is not None:
            context.note_failure(self.lockstep.failure, minimiser(context))
        return self.lockstep

    def _finish(self) -> None:
        """Close the candidate at hand and count what it did."""
        lockstep, self.lockstep = self.lockstep, None
        if lockstep is None:
            return
        before = lockstep.failure
        lockstep.close()
        self.context.tally.steps += lockstep.steps
        self.context.tally.traces += 1
        if lockstep.warnings:
            self.context.note_warnings(lockstep.warnings, minimiser(self.context))
        if before is None and lockstep.failure is not None:
            self.context.note_failure(lockstep.failure, minimiser(self.context))


def sequences(context: Context, scope: Scope) -> None:
    """Every legal sequence up to the scope's length, without merging states."""
    trace = Trace(context.subsystem.name, context.profile, scope.config, ())
    steps = _usable(context, scope)
    stack: list[tuple[tuple[Step, ...], Any]] = [((), _replay(context, trace, ()).state)]
    while stack:
        path, state = stack.pop()
        for step in steps:
            if not _legal(context, state, step):
                continue
            if context.expired():
                return
            lockstep = _replay(context, trace, (*path, step))
            if lockstep.failure is None and len(path) + 1 < scope.sequences:
                stack.append(((*path, step), lockstep.state))


def _usable(context: Context, scope: Scope) -> tuple[Step, ...]:
    return tuple(step for step in scope.steps if isinstance(step, Step) and _can(context, step))


def _can(context: Context, step: Step) -> bool:
    if type(step.op) is Parallel:
        return _can(context, step.op.left) and _can(context, step.op.right)
    return context.can(type(step.op)) and all(_can(context, inner) for _, inner in step.during)


def _legal(context: Context, state: Any, step: Step) -> bool:
    if type(step.op) is Parallel:
        return all(context.subsystem.legal(state, side.op) for side in (step.op.left, step.op.right))
    return context.subsystem.legal(state, step.op)


def _replay(context: Context, trace: Trace, path: tuple[Step, ...]) -> Lockstep:
    """A fresh candidate that has taken these steps; its failure is recorded."""
    lockstep = Lockstep(
        context.subsystem,
        trace,
        context.candidate.factory,
        environment=context.fast,
        counts=context.tally.clauses,
    )
    try:
        lockstep.run(path)
    finally:
        lockstep.close()
    context.tally.steps += lockstep.steps
    context.tally.traces += 1
    if lockstep.warnings:
        context.note_warnings(lockstep.warnings, minimiser(context))
    if lockstep.failure is not None:
        context.note_failure(lockstep.failure, minimiser(context))
    return lockstep
