"""Random priorities for two operations at once, from what was learned of how far such operations reach."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from conformance.engines.experience import Experience
from conformance.environment.scheduler import Priorities
from conformance.model.step import Parallel
from conformance.strategies.domain import Shape

CHANGES = (1, 1, 2, 2, 3)
"""How many changes of priority are drawn."""


class Draw:
    """Priorities whose changes fall evenly over the points that operations of these kinds pass."""

    def __init__(self, random: Random, shapes: Mapping[type, Shape], experience: Experience | None = None) -> None:
        self.random = random
        self.shapes = shapes
        self.experience = experience or Experience()

    def priorities(self, op: Parallel) -> Priorities:
        """Where priorities change when these two run: up to three points of as many as they may pass."""
        left, right = type(op.left.op), type(op.right.op)
        reach = self.experience.across(left, right, self.shapes[left], self.shapes[right])
        changes = min(reach, self.random.choice(CHANGES))
        return Priorities(frozenset(self.random.sample(range(reach), changes)))

    def learn(self, op: Parallel, passed: int) -> None:
        """Two operations passed so many points."""
        self.experience.passed(op, passed)
