"""The limit on the rate of guest requests."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c

RATE_BURST, RATE_SECONDS = 2, 2


class RateLimit(Simulator):
    """__ratelimit() with a state per VM: a burst of two in two seconds; one more must not reach firmware.

    Seconds pass only when the world says so.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.RATE,)

    def __init__(self, door: Environment, tasks: Tasks, *, is_limited: bool) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.is_limited = is_limited
        self.seconds = 0
        """Since the world began."""
        self.forwarded: dict[int, list[int]] = {}
        """By VM, when requests were forwarded."""
        self.granted: dict[int, list[int]] = {}
        """By VM, when it was said to be within its rate."""

    def ratelimit(self, vm: int) -> int:
        if not self.is_limited:
            return 1
        self.door.require(
            c.RATE, vm == self.tasks.current.vm, f"a request of VM {self.tasks.current.vm} asks for the rate of VM {vm}"
        )
        recent = [t for t in self.granted.get(vm, []) if self.seconds - t < RATE_SECONDS]
        if len(recent) >= RATE_BURST:
            self.door.frame.given.setdefault("ratelimit", 1)
            return 0
        self.granted[vm] = [*recent, self.seconds]
        self.tasks.current.is_granted |= vm == self.tasks.current.vm
        return 1

    def count(self, vm: int) -> None:
        """A request of the VM was forwarded."""
        if not self.is_limited:
            return
        recent = [t for t in self.forwarded.get(vm, []) if self.seconds - t < RATE_SECONDS]
        self.door.require(
            c.RATE,
            self.tasks.current.is_granted or len(recent) < RATE_BURST,
            f"{len(recent) + 1} requests of VM {vm} within {RATE_SECONDS} s were forwarded",
        )
        self.forwarded[vm] = [*recent, self.seconds]

    def digest(self) -> Hashable:
        """By VM, how long ago requests were granted and forwarded, as far as it still counts."""
        return tuple(
            (vm, tuple(self.seconds - t for t in times if self.seconds - t < RATE_SECONDS))
            for kept in (self.granted, self.forwarded)
            for vm, times in sorted(kept.items())
        )

    def forget(self, vm: int) -> None:
        """The VM is gone, and its rate with it."""
        self.forwarded.pop(vm, None)
        self.granted.pop(vm, None)
