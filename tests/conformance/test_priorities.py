"""Random priorities change within what two operations may pass, from what is known of either."""

from __future__ import annotations

from random import Random

from conformance.engines.experience import Experience
from conformance.engines.priorities import Draw
from conformance.model.step import Parallel, Step
from conformance.strategies.domain import Shape
from tests.toy import Put, Take

SHAPES = {Put: Shape({}, points=3), Take: Shape({}, points=40)}


def changes(op: Parallel, experience: Experience) -> set[int]:
    """The points at which many draws change."""
    draw = Draw(Random(1), SHAPES, experience)
    return set().union(*(draw.priorities(op).changes for _ in range(600)))


def test_the_longer_operation_says_how_far_changes_reach() -> None:
    """Whichever of the two it is; once both were seen at once, what they passed then."""
    experience = Experience()
    op = Parallel(Step(Put()), Step(Take()))

    assert max(changes(op, experience)) > 70
    assert max(changes(Parallel(op.right, op.left), experience)) > 70

    experience.passed(op, 9)

    assert changes(op, experience) == set(range(9))
