"""Make a failing trace small: drop steps, drop faults and company, simplify values.

A smaller trace counts only if it fails with the same signature, so a minimal trace shows the
same failure and not another one that happens to be shorter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from conformance.engines.context import Context
from conformance.environment.door import Environment
from conformance.model.step import Parallel, Step
from conformance.trace import Trace
from conformance.verdict import Failure, HarnessError

RUNS = 2_000
"""Traces tried at most for one failure; what is smallest by then is reported."""
HANGING = 16
"""Of these, those at most that hang, since each costs the watchdog's patience."""


def minimise(context: Context, failure: Failure, environment: Callable[..., Environment] | None = None) -> Failure:
    """The same failure with the smallest trace found, confirmed on the default environment.

    A failure that needs no company, though it was met in company, is reported as the plain
    failure it is; its signature is then another one.
    """
    if failure.trace is None:
        return failure
    failure = without_company(context, failure, environment or context.fast)
    if failure.signature in context.known:
        return failure  # the plain failure is known, and nobody will read this one
    probe = _Probe(context, failure.signature, environment or context.fast)
    assert failure.trace is not None
    smallest = probe(failure.trace)
    if smallest is None and environment is None:  # of what is the operating system's, the fast one has nothing
        probe = _Probe(context, failure.signature, context.subsystem.environment)
        smallest = probe(failure.trace)
    if smallest is None:
        return replace(failure, flaky=True)
    while not probe.is_spent:
        smaller = _smaller(context, smallest, probe)
        if smaller is None:
            break
        smallest = smaller
    confirmed = _Probe(context, failure.signature, context.subsystem.environment)(_trace(smallest))
    return confirmed or smallest


def without_company(context: Context, failure: Failure, environment: Callable[..., Environment]) -> Failure:
    """What fails when the last step's operations follow one another, if anything does."""
    steps = _trace(failure).steps
    for plain in _plain(steps[-1]) if steps else ():  # without a step, the start itself failed
        trace = _trace(failure).with_steps(steps[:-1] + plain)
        report = context.judge(context.subsystem, trace, context.candidate.factory, environment=environment)
        if report.failure is not None:
            return report.failure
        for warning in report.warnings:
            if failure.kind == "should" and warning.clause is failure.clause:
                return warning
    return failure


def _plain(step: Step) -> Iterator[tuple[Step, ...]]:
    """The orders in which the operations of a step with company may follow one another."""
    if type(step.op) is Parallel:
        yield (step.op.left, step.op.right)
        yield (step.op.right, step.op.left)
    elif step.during:
        inner = tuple(other for _, other in step.during)
        yield (replace(step, during=()), *inner)
        yield (*inner, replace(step, during=()))


class _Probe:
    """Does this trace still fail with that signature?"""

    def __init__(self, context: Context, signature: str, environment: Callable[..., Environment]) -> None:
        self.context = context
        self.signature = signature
        self.environment = environment
        self.runs = 0
        self.hangs = 0

    @property
    def is_spent(self) -> bool:
        """Whether it has been asked often enough."""
        return self.runs >= RUNS or self.hangs >= HANGING

    def __call__(self, trace: Trace) -> Failure | None:
        """The failure with its trace cut after the failing step, or None."""
        self.runs += 1
        context = self.context
        report = context.judge(context.subsystem, trace, context.candidate.factory, environment=self.environment)
        self.hangs += report.failure is not None and report.failure.kind == "hang"
        for found in [*report.warnings, *([report.failure] if report.failure else [])]:
            if found.signature == self.signature:
                return found
        return None


def _trace(failure: Failure) -> Trace:
    assert failure.trace is not None
    return failure.trace


def _smaller(context: Context, failure: Failure, probe: _Probe) -> Failure | None:
    """The first simplification that still fails, greatest first."""
    trace = _trace(failure)
    for steps in _candidates(context, trace.steps):
        if probe.is_spent:
            return None
        found = probe(trace.with_steps(steps))
        if found is not None and _size(_trace(found)) < _size(trace):
            return found
        if found is not None and len(_trace(found).steps) == len(trace.steps) and steps == _trace(found).steps:
            return found
    for config in _plainer_configs(context, trace.config):
        try:
            found = probe(replace(trace, config=config))
        except (ArithmeticError, AssertionError, HarnessError, LookupError, ValueError):
            continue  # no world is like that
        if found is not None and len(_trace(found).steps) == len(trace.steps):
            return found
    return None


def _plainer_configs(context: Context, config: Any) -> Iterator[Any]:
    """The plainest world, or this one with a field less that is special."""
    plainest = context.subsystem.configs[0]
    if config == plainest:
        return
    if context.allows(plainest):
        yield plainest
    for field in dataclasses.fields(config):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is not dataclasses.MISSING and getattr(config, field.name) != default:
            plainer = replace(config, **{field.name: default})
            if context.allows(plainer):
                yield plainer


def _size(trace: Trace) -> tuple[int, int]:
    """Operations, then what accompanies them: two operations one after the other beat two at once."""
    return sum(map(_operations, trace.steps)), sum(map(_company, trace.steps))


def _operations(step: Step) -> int:
    if type(step.op) is Parallel:
        return _operations(step.op.left) + _operations(step.op.right)
    return 1 + sum(_operations(inner) for _, inner in step.during)


def _company(step: Step) -> int:
    if type(step.op) is Parallel:
        return 3 + len(step.op.schedule) + _company(step.op.left) + _company(step.op.right)
    return len(step.faults) + sum(2 + _company(inner) for _, inner in step.during)


def _candidates(context: Context, steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    n = len(steps)
    chunk = n // 2
    while chunk >= 1:
        for start in range(n - chunk, -1, -1 if chunk == 1 else -chunk):
            yield steps[:start] + steps[start + chunk :]
        chunk //= 2
    for i, step in enumerate(steps):
        for plainer in plainer_steps(context, step):
            yield (*steps[:i], *plainer, *steps[i + 1 :])


def plainer_steps(context: Context, step: Step) -> Iterator[tuple[Step, ...]]:
    """What may stand in place of one step: without company, without faults, with plainer values."""
    op = step.op
    if type(op) is Parallel:
        yield (op.left, op.right)
        yield (op.right, op.left)
        for i in range(len(op.schedule)):
            yield (replace(step, op=replace(op, schedule=op.schedule[:i] + op.schedule[i + 1 :])),)
        for i, point in enumerate(op.schedule):
            if point > 0 and point - 1 not in op.schedule:
                moved = op.schedule[:i] + (point - 1,) + op.schedule[i + 1 :]
                yield (replace(step, op=replace(op, schedule=moved)),)
        for left in plainer_steps(context, op.left):
            if len(left) == 1:
                yield (replace(step, op=replace(op, left=left[0])),)
        for right in plainer_steps(context, op.right):
            if len(right) == 1:
                yield (replace(step, op=replace(op, right=right[0])),)
        return
    for i, (k, inner) in enumerate(step.during):
        rest = step.during[:i] + step.during[i + 1 :]
        yield (replace(step, during=rest),)
        yield (inner, replace(step, during=rest))
        yield (replace(step, during=rest), inner)
        if k > 0:
            yield (replace(step, during=(*rest, (k - 1, inner))),)
        for plainer in plainer_steps(context, inner):
            if len(plainer) == 1:
                yield (replace(step, during=(*rest, (k, plainer[0]))),)
    for i, fault in enumerate(step.faults):
        rest_faults = step.faults[:i] + step.faults[i + 1 :]
        yield (replace(step, faults=rest_faults),)
        if fault.nth > 1:
            yield (replace(step, faults=(*rest_faults, replace(fault, nth=fault.nth - 1))),)
    for field in dataclasses.fields(op):
        for value in _plainer_values(context, op, field.name):
            yield (replace(step, op=replace(op, **{field.name: value})),)


def _plainer_values(context: Context, op: Any, field: str) -> Iterator[Any]:
    shape = context.subsystem.shapes.get(type(op))
    domain = shape.fields.get(field) if shape is not None else None
    if domain is not None:
        yield from domain.simpler(getattr(op, field))


def minimiser(context: Context) -> Callable[[Failure], Failure]:
    """`minimise` for this context, as `note_failure` wants it."""
    return partial(minimise, context)
