"""What the adapters of kernels in guests have in common."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.real.adapter import Adapter, Rate, rate
from conformance.real.guest.channel import Channel
from conformance.real.guest.packages import kernel
from conformance.real.guest.world import GuestWorld

_EMPTY, _AT_ONCE = "d 0", 50
"""A request that needs nothing, and how many are sent at once."""


class GuestAdapter(Adapter):
    """An adapter of a Debian kernel, which must be in the cache; QEMU must be on this machine."""

    title: str
    """What of the kernel is asked: `vfio-pci of Linux`."""
    world: type[GuestWorld]
    """Of which it makes environments."""
    scopes = frozenset[str]()
    gate_steps = 800
    examples = 200
    length = 25

    def __init__(self, version: str) -> None:
        self.kernel = kernel(version)
        self.version = f"{self.title} {self.kernel.release} (package {self.kernel.version})"

    @property
    def absent(self) -> Mapping[str, frozenset[str]]:  # type: ignore[override]  # nobody sets it
        """Traces that ended before their time, since the emulator did; no clause is lost by it."""
        return dict.fromkeys(self.world.lost, frozenset[str]())


def round_trips(channel: Channel) -> tuple[Rate, ...]:
    """Requests that wait for each other, and such that do not."""
    return (
        rate("request and answer", 3600, lambda: channel.one(_EMPTY)),
        rate("requests sent at once", 6000, lambda: channel.ask([_EMPTY] * _AT_ONCE), _AT_ONCE),
    )
