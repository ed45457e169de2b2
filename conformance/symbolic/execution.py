"""One run of candidate and model with words in place of ints, and the path that it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from conformance.engines.corpus import OUT_OF_RANGE
from conformance.environment.door import Environment, Frame
from conformance.model.step import Outcome, Step, each
from conformance.subsystem import Subsystem
from conformance.symbolic.arguments import changed, variables
from conformance.symbolic.solver import Name, Variable
from conformance.symbolic.tracing import traced
from conformance.symbolic.words import PATH, Condition, Term, Word, term_of
from conformance.verdict import Breach

MOST_STATES = 4
"""States of the model that are followed where what was seen leaves several open."""
ASKED = 24
"""Pairs of results, or of fields of the view, that are compared as terms after each step."""


@dataclass(slots=True)
class Run:
    """What one run showed."""

    steps: tuple[Step, ...]
    variables: dict[Name, Variable]
    path: list[Condition] = field(default_factory=list)
    doubts: list[tuple[int, Term, int, str]] = field(default_factory=list)
    """(conditions before it, a term that is true where candidate and model differ, step, what of it)."""
    kinds: set[type] = field(default_factory=set)
    """Operations that the world could do."""
    is_possible: bool = True
    """Whether the world can do with these values at all."""
    agreed: bool = True
    """Whether the model explains all that was seen."""


class Execution:
    """Runs traces on one candidate."""

    def __init__(self, of: Subsystem, factory: Callable[[Any], Any], profile: str) -> None:
        self.of = of
        self.factory = factory
        self.profile = of.profiles[profile]
        self.environment = of.fast or of.environment

    def run(self, config: Any, steps: tuple[Step, ...]) -> Run:
        """Take the steps that are legal, their ints as words; nothing here judges.

        A breach ends the run: the lockstep will say what it means.
        """
        found = Run(steps, variables(self.of, steps))
        PATH.conditions, PATH.on, PATH.is_target = [], False, False
        env = self.environment(config, self.profile)
        _let_words_through(env)
        try:
            with traced():
                self._take(env, config, steps, found)
        except Breach:
            found.agreed = False
        except OUT_OF_RANGE:  # of a value that means nothing to the world; the candidate's own exceptions are breaches
            found.is_possible = False
        finally:
            PATH.on = False
            env.close()
        found.path = PATH.conditions
        return found

    def _take(self, env: Environment, config: Any, steps: tuple[Step, ...], found: Run) -> None:
        of, profile = self.of, self.profile
        env.start(self.factory)
        states = (env.starting_at(of.initial(config, profile)),)
        for number, step in enumerate(steps):
            PATH.step, PATH.on, PATH.is_target = number, True, True
            op = changed(step.op, _words(found.variables, number))
            if not of.legal(states[0], op):
                continue
            PATH.is_target = False
            env.frame = frame = Frame(step.faults)
            result = env.perform(op)
            PATH.on = False
            if env.breach is not None:
                found.agreed = False
                return
            observed = env.view()
            PATH.on = PATH.is_target = True
            answers = of.answers(**frame.given)
            outcomes = [o for state in states for o in each(of.step(state, op, answers, profile))]
            PATH.on = False
            fitting = [o for o in outcomes if o.result == result and of.view(o.state) == observed]
            found.kinds.add(type(op))
            if not fitting:
                found.agreed = False
                return
            if len(outcomes) == 1:
                self._doubt(found, outcomes[0], result, observed, number)
            states = tuple(dict.fromkeys(o.state for o in fitting))[:MOST_STATES]

    def _doubt(self, found: Run, outcome: Outcome, result: Any, observed: Any, number: int) -> None:
        """Where candidate and model gave the same value by different ways, another value may tell them apart."""
        pairs = [("result", *pair) for pair in _pairs(outcome.result, result)]
        pairs += [("view", *pair) for pair in _pairs(self.of.view(outcome.state), observed)]
        for what, ours, theirs in pairs[:ASKED]:
            left, right = term_of(ours), term_of(theirs)
            if left != right:
                found.doubts.append((len(PATH.conditions), ("ne", left, right), number, what))


def _words(known: dict[Name, Variable], number: int) -> Callable[[Name, int], int]:
    def make(name: Name, value: int) -> int:
        whole = (number, *name)
        return Word(value, ("var", whole)) if whole in known else value

    return make


def _pairs(left: Any, right: Any) -> Iterator[tuple[int, int]]:
    """Ints at the same place, one of which at least is a word."""
    if isinstance(left, int) and isinstance(right, int):
        if isinstance(left, Word) or isinstance(right, Word):
            yield left, right
    elif isinstance(left, tuple) and isinstance(right, tuple):
        for mine, other in zip(left, right, strict=False):
            yield from _pairs(mine, other)
    elif dataclasses.is_dataclass(left) and type(left) is type(right):
        for at in dataclasses.fields(left):
            yield from _pairs(getattr(left, at.name), getattr(right, at.name))


def _let_words_through(env: Environment) -> None:
    """A word is as good as the int that it is; and only what the candidate's own code asks is the candidate's."""
    plainly, way_in = env.enter, env.enter_int

    def enter(function: Callable[..., Any], *args: Any) -> Any:
        before, PATH.is_target = PATH.is_target, True
        try:
            return plainly(function, *args)
        finally:
            PATH.is_target = before

    def enter_int(function: Callable[..., Any], *args: Any) -> int:
        result = enter(function, *args)
        return result if isinstance(result, Word) else way_in(lambda: result)

    env.enter = enter  # type: ignore[method-assign]  # for this one world
    env.enter_int = enter_int  # type: ignore[method-assign]  # as above
    env._port = partial(_Port, env._port)  # type: ignore[misc, assignment]  # as above


class _Port:
    """The port, behind which it is not the candidate that asks."""

    def __init__(self, kind: Callable[[Environment], Any], env: Environment) -> None:
        self._real = kind(env)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)

        def call(*args: Any) -> Any:
            before, PATH.is_target = PATH.is_target, False
            try:
                return method(*args)
            finally:
                PATH.is_target = before

        setattr(self, name, call)
        return call
