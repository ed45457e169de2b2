"""What each simulator is: one thing of the world, with its state, its calls and the clauses that it holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.specs.clause import Clause

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Simulator:
    """One thing of the world around a candidate: it owns its state, and has a method for each call that goes to it.

    Its docstring says what real thing it stands for, and what it does not model. It knows the door, and of the other
    simulators those it is given; so it can be made and tested alone, with a plain `Environment()` as its door.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = ()
    """What it holds a candidate to: the clauses that it cites by itself."""
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {}
    """Clauses that each of its calls exercises, because it checks them there."""

    def __init__(self, door: Environment) -> None:
        self.door = door
        """Refusals planned, checks counted, breaches remembered, atomic context, other threads."""

    def digest(self) -> Hashable:
        """What it remembers beyond what the model's state tells, by which `explore` tells states apart.

        A value, without what only grows (tokens, addresses, counters); equal where a candidate meets an equal world.
        """
        return ()
