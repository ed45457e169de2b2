"""The fields of operations as variables: the ints in a trace, their bounds, and others in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from conformance.model.step import Step
from conformance.strategies.domain import Domain
from conformance.subsystem import Subsystem
from conformance.symbolic.solver import Name, Variable

FEW = 1 << 8
"""Where listed values lie closer together than this, a field is an index or a choice, and stays between them."""
WORD = 1 << 16
"""Where they do not lie as far apart as this, a field is an offset or an id, and is one of those listed."""
_WIDTHS = (32, 64)


def leaves(value: Any, name: Name = ()) -> Iterator[tuple[Name, int]]:
    """The ints in a value, by where they are."""
    if isinstance(value, int):
        yield name, int(value)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), (*name, field.name))
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield from leaves(item, (*name, at))


def changed(value: Any, make: Callable[[Name, int], int], name: Name = ()) -> Any:
    """The value with other ints in it."""
    if isinstance(value, int):
        return make(name, value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        new = {
            f.name: changed(getattr(value, f.name), make, (*name, f.name)) for f in dataclasses.fields(value) if f.init
        }
        return replace(value, **new)
    if isinstance(value, tuple):
        return tuple(changed(item, make, (*name, at)) for at, item in enumerate(value))
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """What an int may be."""

    least: int
    most: int
    listed: tuple[int, ...] = ()
    """One of these, where there are any."""


@cache
def _limits(of: Subsystem, kind: type) -> Mapping[Name, Limits]:
    """What each int of an operation may be: what its domain lists, or the machine word that this needs."""
    known: dict[Name, set[int]] = {}
    bounds: dict[Name, tuple[int, int]] = {}
    shape = of.shapes.get(kind)
    for field, domain in (shape.fields if shape is not None else {}).items():
        for name, value in _listed(field, domain):
            known.setdefault(name, set()).add(value)
        if domain.bounds is not None:
            bounds[field,] = domain.bounds
    return {name: _widened(values, bounds.get(name)) for name, values in known.items()}


def _listed(field: str, domain: Domain[Any]) -> Iterator[tuple[Name, int]]:
    for listed in domain.values:
        for name, value in leaves(listed, (field,)):
            yield schema(name), value
    for bound in domain.bounds or ():
        yield (field,), bound


def schema(name: Name) -> Name:
    """Where an int is, without its place in a list; pairs in a list keep theirs in the pair."""
    numbers = [at for at, part in enumerate(name) if isinstance(part, int)]
    keep = numbers[-1] if len(numbers) > 1 else -1
    return tuple(part if not isinstance(part, int) or at == keep else "*" for at, part in enumerate(name))


def _widened(values: set[int], bounds: tuple[int, int] | None) -> Limits:
    least, most = min(values), max(values)
    if most - least < FEW or bounds == (least, most):
        return Limits(least, most)
    if most - least < WORD and bounds is None:
        return Limits(least, most, tuple(sorted(values)))
    for width in _WIDTHS:
        if least >= 0 and most < 1 << width:
            return Limits(0, (1 << width) - 1)
        if -(1 << width - 1) <= least < 0 and most < 1 << width - 1:
            return Limits(-(1 << width - 1), (1 << width - 1) - 1)
    return Limits(least, most)


def may_hold(of: Subsystem, kind: type, field: str, value: Any) -> bool:
    """Whether the domain of a field lists a value, or has it within the bounds of its ints."""
    if value in of.shapes[kind].fields[field].values:
        return True
    limits = _limits(of, kind)
    inside = [(limits.get(schema(name)), n) for name, n in leaves(value, (field,))]
    return bool(inside) and all(known is not None and _is_within(n, known) for known, n in inside)


def _is_within(value: int, limits: Limits) -> bool:
    return value in limits.listed if limits.listed else limits.least <= value <= limits.most


def variables(of: Subsystem, steps: tuple[Step, ...]) -> dict[Name, Variable]:
    """The variables of a trace; ints that no domain speaks of stay as they are."""
    found: dict[Name, Variable] = {}
    for number, step in enumerate(steps):
        kind: type = type(step.op)
        known = _limits(of, kind)
        for name, value in leaves(step.op):
            limits = known.get(schema(name))
            if limits is not None and limits.least < limits.most:
                listed = (value, *limits.listed) if limits.listed else ()
                found[number, *name] = Variable(value, min(limits.least, value), max(limits.most, value), listed)
    return found


def with_values(steps: tuple[Step, ...], values: Mapping[Name, int]) -> tuple[Step, ...]:
    """The same trace with other values; flags stay flags."""

    def at(number: int) -> Callable[[Name, int], int]:
        def make(name: Name, old: int) -> int:
            new = values.get((number, *name), old)
            return bool(new) if isinstance(old, bool) else new

        return make

    return tuple(replace(step, op=changed(step.op, at(number))) for number, step in enumerate(steps))
