"""The VMs as KVM keeps them beside their guests."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator


class Vms(Simulator):
    """Which VMs are bugged and never run again, and which of them fetch certificates from userspace."""

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.bugged = [False, False]
        self.fetching: set[int] = set()
        """VMs for which fetching certificates from userspace was enabled."""

    def vm_bug(self, vm: int) -> int:
        self.bugged[vm] = True
        return 0

    def move(self, src: int, dst: int) -> None:
        """A VM takes another one over, as it was enabled."""
        if src in self.fetching:
            self.fetching.add(dst)

    def forget(self, vm: int) -> None:
        """The VM's number is free again."""
        self.bugged[vm] = False
        self.fetching.discard(vm)
