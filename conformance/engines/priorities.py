"""Random priorities for two operations at once, from what was learned of how far such operations reach."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from conformance.environment.scheduler import Priorities
from conformance.model.step import Parallel
from conformance.strategies.domain import Shape

CHANGES = (1, 1, 2, 2, 3)
"""How many changes of priority are drawn."""


class Draw:
    """Priorities whose changes fall evenly over the points that operations of these kinds pass."""

    def __init__(self, random: Random, shapes: Mapping[type, Shape]) -> None:
        self.random = random
        self.shapes = shapes
        self.reach: dict[tuple[type, type], int] = {}
        """Points passed at most by two operations of these kinds, so far."""

    def priorities(self, op: Parallel) -> Priorities:
        """Where priorities change when these two run: up to three points of as many as they may pass."""
        left, right = type(op.left.op), type(op.right.op)
        reach = self.reach.get((left, right))
        if reach is None:
            reach = 2 * max(1, self.shapes[left].points)
        changes = min(reach, self.random.choice(CHANGES))
        return Priorities(frozenset(self.random.sample(range(reach), changes)))

    def learn(self, op: Parallel, passed: int) -> None:
        """Two operations passed so many points."""
        kinds = type(op.left.op), type(op.right.op)
        self.reach[kinds] = max(self.reach.get(kinds, 1), passed)
