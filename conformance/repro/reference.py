"""What a trace comes to on a correct candidate: the results, and those that are allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conformance.candidates.load import Candidate, builtin_names, load
from conformance.engines.context import lacking
from conformance.lockstep import Lockstep
from conformance.model.step import Parallel, Step, each
from conformance.subsystem import Subsystem
from conformance.trace import Trace

FEW = 8
"""Results that are listed; where more are allowed, the model alone judges."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One step on the correct candidate."""

    step: Step
    result: Any
    allowed: tuple[Any, ...]
    """All results that the model allows, where these are plain values and few; else empty."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A trace on a shipped candidate that gets it right."""

    spec: str
    steps: list[Taken]


def reference(of: Subsystem, trace: Trace) -> Reference | None:
    """The steps of a trace on a shipped candidate that gets them right; None where none does."""
    for name in builtin_names(of):
        candidate = load(f"builtin:{name}", of)
        if candidate.profile != trace.profile or lacking(of, trace, candidate.capabilities):
            continue
        taken = _taken(of, trace, candidate)
        if taken is not None:
            return Reference(candidate.spec, taken)
    return None


def _taken(of: Subsystem, trace: Trace, candidate: Candidate) -> list[Taken] | None:
    """Its steps, if nothing is wrong with them."""
    lockstep = Lockstep(of, trace, candidate.factory, record=True)
    steps: list[Taken] = []
    try:
        for step in trace.steps:
            if lockstep.failure is not None or not lockstep.legal(step.op):
                break
            states = lockstep.states
            if lockstep.step(step) is not None or lockstep.warnings:
                break
            report = lockstep.reports[-1]
            allowed = () if step.during or isinstance(step.op, Parallel) else _allowed(of, lockstep, states, step)
            steps.append(Taken(step, report.result, allowed))
    finally:
        lockstep.close()
    return steps if len(steps) == len(trace.steps) and lockstep.failure is None else None


def _allowed(of: Subsystem, lockstep: Lockstep, states: tuple[Any, ...], step: Step) -> tuple[Any, ...]:
    given = lockstep.env.frame.given
    answers = of.answers(**given)
    results: dict[Any, None] = {}
    for state in states:
        for outcome in each(of.step(state, step.op, answers, lockstep.profile)):
            if not is_plain(outcome.result) or len(results) > FEW:
                return ()
            results[outcome.result] = None
    return tuple(results) if len(results) <= FEW else ()


def is_plain(value: Any) -> bool:
    """Whether a value can be written down as it is."""
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (int, bool, str, bytes)
