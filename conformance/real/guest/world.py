"""A world inside a guest: one at a time, since its devices are there once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from conformance.real.adapter import RealWorld
from conformance.real.guest.machine import Guest
from conformance.verdict import HarnessError


class GuestWorld(RealWorld):
    """Base of the worlds in guests. A new one takes the guest from the one before, which is given back by then."""

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self.guest = guest
        self.channel = guest.channel
        if guest.holder is not None:
            guest.holder.close()
        guest.holder = self

    def perform(self, op: Any) -> Any:
        """Perform one operation, unless another world has the guest by now."""
        if self.guest.holder is not self:
            raise HarnessError("two worlds in one guest at once")
        return super().perform(op)

    def close(self) -> None:
        """Leave nothing in the guest, if it is still this world's."""
        if self.guest.holder is self:
            self.guest.holder = None
            self.guest.give_back(self.clean, self.breach)

    @abstractmethod
    def clean(self) -> None:
        """Give back all that this world has in the guest."""
