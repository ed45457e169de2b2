"""What operations were seen to do: which calls they make and how far they reach, so that what accompanies them strikes.

A refusal of a call that an operation never makes does not happen, and a switch behind its last point changes nothing.
Shapes can only say what any candidate may do; this is what the one under test does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from conformance.lockstep import Lockstep
from conformance.model.step import Parallel, Step
from conformance.strategies.domain import Shape

LOOKED = 40
"""How many steps of each kind of operation are looked at."""
TWICE = 2
"""How often a call that was seen stands in the table, beside those that were not."""


@dataclass(slots=True)
class Experience:
    """By kind of operation: the calls that were seen in it, and the points of preemption."""

    calls: dict[type, dict[str, int]] = field(default_factory=dict)
    """How often each call was made, at most, by one operation."""
    points: dict[type, int] = field(default_factory=dict)
    """Points passed by one operation with others in the middle of it, at most."""
    reach: dict[tuple[type, type], int] = field(default_factory=dict)
    """Points passed by two at once, at most."""
    _looked: dict[type, int] = field(default_factory=dict)

    def saw(self, step: Step, lockstep: Lockstep) -> None:
        """A step was taken."""
        op = step.op
        if type(op) is Parallel:
            self.passed(op, len(lockstep.passed))
            return
        kind, frame = type(op), lockstep.env.frame
        if step.during:
            self.points[kind] = max(self.points.get(kind, 1), frame.points)
        looked = self._looked.get(kind, 0)
        if looked >= LOOKED:
            return
        self._looked[kind] = looked + 1
        made: dict[str, int] = {}
        for name, _, _ in frame.log:
            made[name] = made.get(name, 0) + 1
        known = self.calls.setdefault(kind, {})
        for name, n in made.items():
            if n > known.get(name, 0):
                known[name] = n

    def passed(self, op: Parallel, points: int) -> None:
        """Two operations at once passed so many points."""
        kinds = type(op.left.op), type(op.right.op)
        self.reach[kinds] = max(self.reach.get(kinds, 1), points)

    def refusable(self, kind: type, shape: Shape) -> tuple[tuple[str, tuple[int, ...], int], ...]:
        """(call, values, deepest) of the refusals to plan; calls that were seen more often than those that were not."""
        known = self.calls.get(kind, {})
        seen = [(call, values, min(n, shape.deepest)) for call, values in shape.faults if (n := known.get(call, 0))]
        unseen = [(call, values, shape.deepest) for call, values in shape.faults if call not in known]
        return (*seen * TWICE, *unseen)

    def within(self, kind: type, shape: Shape) -> int:
        """Points at which something may happen in the middle of such an operation."""
        return self.points.get(kind, shape.points)

    def across(self, left: type, right: type, shape: Shape, other: Shape) -> int:
        """Points at which two such operations may be switched."""
        return self.reach.get((left, right), 2 * max(1, shape.points, other.points))
