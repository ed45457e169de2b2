"""The kernel log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator

if TYPE_CHECKING:
    from conformance.environment.door import Environment

LOG_BURST = 10
"""Lines that a rate-limited print lets through."""


class Log(Simulator):
    """How many lines reach the log; what they say is not looked at, and no time passes that would let more through."""

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.printed = 0
        """Lines printed since somebody began to count."""
        self.limited = 0
        """Lines that asked for the limit, printed or not."""

    def dev_err(self, text: str) -> None:
        """As the port says."""
        self.printed += 1

    def dev_warn(self, text: str) -> None:
        """As the port says."""
        self.printed += 1

    def dev_info(self, text: str) -> None:
        """As the port says."""
        self.printed += 1

    def dev_err_ratelimited(self, text: str) -> None:
        """As the port says."""
        self.limited += 1
        if self.limited <= LOG_BURST:
            self.printed += 1
