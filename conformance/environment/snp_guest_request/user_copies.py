"""The memory of the process that hands certificates in, and asks for them."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.specs.snp_guest_request.constants import EFAULT, PAGE_SIZE

USER_BASE = 0x5500_0000_0000


class UserCopies(Simulator):
    """copy_from_user and copy_to_user: one range that the caller lends, one into which it wants something copied.

    A planned fault comes in the middle: half of the bytes are copied by then. Of more than a page another thread may
    see that half.
    """

    def __init__(self, door: Environment, memory: HostMemory) -> None:
        super().__init__(door)
        self.memory = memory
        self.refused = door.refused
        self.lent = b""
        """What the caller has at USER_BASE for the kernel to read."""
        self.room = bytearray()
        """What it has there for the kernel to write."""

    def copy_from_user(self, address: int, user: int, size: int) -> int:
        memory, offset = self.memory.at(address, size)
        start = user - USER_BASE
        if start < 0 or start + size > len(self.lent):
            return -EFAULT
        refusal = self.refused("copy_from_user")
        half = size // 2
        memory.lent = True
        memory.data[offset : offset + half] = self.lent[start : start + half]
        if refusal:
            return refusal
        if size > PAGE_SIZE:
            self.memory.meanwhile("copy_from_user")
            memory, offset = self.memory.at(address, size)
        memory.data[offset + half : offset + size] = self.lent[start + half : start + size]
        return 0

    def copy_to_user(self, user: int, address: int, size: int) -> int:
        memory, offset = self.memory.at(address, size)
        start = user - USER_BASE
        if start < 0 or start + size > len(self.room):
            return -EFAULT
        refusal = self.refused("copy_to_user")
        taken = size // 2 if refusal else size
        self.room[start : start + taken] = memory.data[offset : offset + taken]
        return refusal
