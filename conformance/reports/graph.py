"""What was explored of a scope, told as plain data: figures by depth, and the state graph where it is small.

Like a story it is made where the model's states are at hand, and read where reports are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from conformance.engines.context import Explored
from conformance.reports import values
from conformance.subsystem import Subsystem

SMALL = 60
"""States up to which a graph is told, and not only its figures."""


class Depth(msgspec.Struct, frozen=True):
    """The states that are a number of steps away from the start."""

    states: int
    legal: int
    """Transitions: pairs of a state and a step that can be taken there."""
    tried: int
    failed: int


class Node(msgspec.Struct, frozen=True):
    """One state of a small graph."""

    depth: int
    seen: tuple[str, ...]
    """What can be observed there and is not as at the start: `name = value`."""
    legal: int
    tried: int
    failed: int


class Arrow(msgspec.Struct, frozen=True, rename={"origin": "from"}):
    """That steps lead from one state to another."""

    origin: int
    to: int
    step: int
    """One of them, by its place in the graph's list."""
    steps: int
    """How many do."""


class Graph(msgspec.Struct, frozen=True):
    """The states of a small scope, the start first; steps that change nothing are left out."""

    states: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    steps: tuple[str, ...]


def tell(explored: Explored, of: Subsystem, profile: str) -> dict[str, Any]:
    """The fields of a report's `scope` line."""
    depths = [[0, 0, 0, 0] for _ in range(1 + max((s.depth for s in explored.states), default=-1))]
    for state in explored.states:
        for column, figure in enumerate((1, state.legal, state.tried, state.failed)):
            depths[state.depth][column] += figure
    graph = _graph(explored, of, profile) if len(explored.states) <= SMALL else None
    scope = of.scopes[explored.scope]
    return {
        "scope": explored.scope,
        "world": _world(explored.config),
        "depths": [msgspec.to_builtins(Depth(*row)) for row in depths],
        "limit": scope.depth,
        "graph": msgspec.to_builtins(graph),
    }


def _graph(explored: Explored, of: Subsystem, profile: str) -> Graph:
    start = of.view(of.initial(explored.config, of.profiles[profile]))
    numbers: dict[str, int] = {}
    arrows = tuple(
        Arrow(edge.origin, edge.to, numbers.setdefault(values.step(edge.step), len(numbers)), edge.steps)
        for edge in explored.edges
    )
    states = tuple(
        Node(s.depth, tuple(_seen(start, of.view(s.state), of)), s.legal, s.tried, s.failed) for s in explored.states
    )
    return Graph(states, arrows, tuple(numbers))


def _seen(start: Any, view: Any, of: Subsystem) -> Iterator[str]:
    yield from values.differences(start, view, list(of.view_clauses), of.view_labels)[1].splitlines()


def _world(config: Any) -> str:
    told = values.value(config)
    return "" if told.endswith("()") else told
