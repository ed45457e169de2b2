"""A guest's clock."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator


class Clock(Simulator):
    """Seconds since the guest started; they pass while it sleeps."""

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.seconds = 0

    def sleep(self, seconds: int) -> int:
        self.seconds += max(seconds, 0)
        return 0

    def now(self) -> int:
        return self.seconds
