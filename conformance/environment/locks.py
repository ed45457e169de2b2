"""Locks of the simulated kernel, by key: mutexes, spinlocks, what else one operation holds at a time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame


class Locks:
    """Who holds which lock. What a misuse means is for the simulator to say that keeps them.

    A lock is held by an operation, not by a thread; no priorities, no fairness: whoever the scheduler lets go on
    first has it.
    """

    __slots__ = ("door", "owners")

    def __init__(self, door: Environment) -> None:
        self.door = door
        self.owners: dict[Hashable, Frame] = {}
        """The operation that holds each lock that is held."""

    def take(self, key: Hashable, what: str) -> bool:
        """Hold the lock, once the operation that holds it has let go.

        False where that will not be: the caller holds it already, or there is no other thread to wait for.
        """
        door, owners = self.door, self.owners
        owner = owners.get(key)
        if owner is not None:
            if owner is door.frame or door.scheduler is None:
                return False
            door.scheduler.block(what, lambda: key not in owners)
        owners[key] = door.frame
        return True

    def drop(self, key: Hashable) -> bool:
        """Let go; False when the caller does not hold it."""
        if self.owners.get(key) is not self.door.frame:
            return False
        del self.owners[key]
        return True

    def held(self, frame: Frame) -> list[Hashable]:
        """What an operation holds, in the order taken."""
        return [key for key, owner in self.owners.items() if owner is frame]
