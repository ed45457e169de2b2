"""A world inside a guest: one at a time, since its devices are there once."""

from __future__ import annotations

from typing import Any, ClassVar

from conformance.real.adapter import RealWorld
from conformance.real.guest.machine import Guest
from conformance.verdict import HarnessError


class GuestWorld(RealWorld):
    """Base of the worlds in guests. A new one takes the guest from the one before, which is given back by then."""

    _holder: ClassVar[dict[int, GuestWorld]] = {}
    """By guest, whose it is."""

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self.guest = guest
        self.channel = guest.channel
        before = GuestWorld._holder.get(id(guest))
        if before is not None:
            before.close()
        GuestWorld._holder[id(guest)] = self

    def perform(self, op: Any) -> Any:
        """Perform one operation, unless another world has the guest by now."""
        if GuestWorld._holder.get(id(self.guest)) is not self:
            raise HarnessError("two worlds in one guest at once")
        return super().perform(op)

    def close(self) -> None:
        """Leave nothing in the guest, if it is still this world's."""
        if GuestWorld._holder.get(id(self.guest)) is self:
            del GuestWorld._holder[id(self.guest)]
            self.guest.give_back(self.clean, self.breach)

    def clean(self) -> None:
        """Give back all that this world has in the guest."""
        raise NotImplementedError
