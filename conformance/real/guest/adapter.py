"""What the adapters of kernels in guests have in common."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.real.adapter import Adapter
from conformance.real.guest.packages import kernel
from conformance.real.guest.world import GuestWorld


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
