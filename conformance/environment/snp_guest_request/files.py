"""Open files of the process that owns the VMs."""

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.specs.snp_guest_request.constants import NO_FD

CLOSED_FD = 30
"""A descriptor that was never opened."""
FOREIGN_FD = 9
"""A descriptor of another file."""


class Files(Simulator):
    """The descriptor table, as far as it matters: which descriptors are the secure processor's.

    Numbers are not used again, but for one that is closed and opened as something else.
    """

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.files: dict[int, str] = {FOREIGN_FD: "other"}
        """sev, closed, or other, by descriptor."""
        self.next_fd = 100
        self.of_vm = [0, 0]
        """The descriptor that each VM was given at launch."""

    def opened(self) -> int:
        """A file descriptor of the secure processor, of a number that was never used."""
        fd = self.next_fd
        self.next_fd += 1
        self.files[fd] = "sev"
        return fd

    def close(self, vm: int, *, foreign: bool) -> None:
        """The VM's file is closed; its number may then mean another one."""
        self.files[self.of_vm[vm]] = "other" if foreign else "closed"

    def is_secure_processor(self, fd: int) -> bool:
        """Whether commands can be given through it, by the kernel itself or by the file's owner."""
        return fd == NO_FD or self.files.get(fd) == "sev"
