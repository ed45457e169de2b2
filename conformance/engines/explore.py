"""Small worlds without gaps: every transition of every reachable model state, on the candidate.

Breadth first, each transition on a fresh candidate that first replays the shortest path to
its state; so the first counterexample is a shortest one. A candidate may remember more than
the model, so scopes can also ask for all sequences up to a length without merging states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from conformance.engines.context import Context
from conformance.engines.minimise import minimiser
from conformance.lockstep import Lockstep
from conformance.trace import Trace
from model.step import Parallel, Step
from strategies.domain import Scope


def run(context: Context) -> None:
    """Explore every scope that applies to the candidate; the parts divide the scopes' transitions."""
    for name, scope in scopes(context):
        explore(context, name, scope)
        if scope.sequences:
            sequences(context, scope)


def scopes(context: Context) -> Iterator[tuple[str, Scope]]:
    """The scopes that apply: this profile, these capabilities, small enough for the gate or hunting."""
    for name, scope in context.subsystem.scopes.items():
        if scope.profiles and context.profile not in scope.profiles:
            continue
        if not scope.needs <= context.candidate.capabilities or not context.allows(scope.config):
            continue
        if scope.in_gate or context.hunting:
            yield name, scope


def explore(context: Context, name: str, scope: Scope) -> None:
    """Take every step of the scope in every state reached."""
    trace = Trace(context.subsystem.name, context.profile, scope.config, ())
    steps = _usable(context, scope)
    start = _replay(context, trace, ())
    if start.failure is not None:
        context.note_failure(start.failure, minimiser(context))
        return
    seen: set[tuple[Any, ...]] = {start.states}
    queue: deque[tuple[tuple[Step, ...], tuple[Any, ...]]] = deque([((), start.states)])
    transitions = 0
    while queue:
        path, states = queue.popleft()
        if scope.depth is not None and len(path) >= scope.depth:
            continue
        for step in steps:
            if not _legal(context, states[0], step):
                continue
            if context.expired():
                return
            transitions += 1
            if (
                transitions % context.parts != context.part
                and context.parts > 1
                and not _is_new(context, states, step, seen)
            ):
                continue
            lockstep = _replay(context, trace, (*path, step))
            if lockstep.failure is None and lockstep.states not in seen:
                seen.add(lockstep.states)
                queue.append(((*path, step), lockstep.states))
    context.notes[f"{name}: states"] = len(seen)
    context.notes[f"{name}: transitions"] = transitions


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


def _is_new(context: Context, states: tuple[Any, ...], step: Step, seen: set[tuple[Any, ...]]) -> bool:
    """Whether the model alone says that the step leads somewhere unexplored (or is not sure)."""
    if step.faults or step.during or type(step.op) is Parallel or len(states) > 1:
        return True
    of = context.subsystem
    outcomes = of.step(states[0], step.op, of.answers(), of.profiles[context.profile])
    if isinstance(outcomes, tuple):
        return True
    return (outcomes.state,) not in seen


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
