"""A PCI function whose MSI-X vectors the suite raises: QEMU's ivshmem-doorbell, of which we are the server."""

from __future__ import annotations

import array
import os
import select
import socket
import struct
from dataclasses import dataclass, field

from conformance.verdict import Hang

_PATIENCE = 20.0
_FULL = 2**64 - 2
"""What an eventfd holds at most: it can be written again, which poll tells, as soon as it has been read."""


@dataclass(slots=True)
class Doorbell:
    """One such function: an eventfd for each vector."""

    vectors: int
    eventfds: list[int] = field(default_factory=list)

    def serve(self, end: socket.socket) -> None:
        """Say all that a server has to say, before QEMU listens: version, our peer's number, memory, eventfds."""
        memory = os.memfd_create("ivshmem")
        os.ftruncate(memory, 1 << 20)
        end.sendall(struct.pack("<qq", 0, 0))
        _send(end, -1, memory)
        os.close(memory)
        for _ in range(self.vectors):
            eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self.eventfds.append(eventfd)
            _send(end, 0, eventfd)

    def ring(self, vector: int) -> None:
        """Raise a vector, and wait until QEMU has taken it: whatever the guest is asked next comes after it.

        Raises:
            Hang  QEMU does not take it
        """
        eventfd = self.eventfds[vector]
        os.eventfd_write(eventfd, _FULL)
        poller = select.poll()
        poller.register(eventfd, select.POLLOUT)
        if not poller.poll(_PATIENCE * 1000):
            raise Hang(f"QEMU does not take the event of vector {vector}")

    def close(self) -> None:
        """Forget the eventfds; QEMU has its own descriptors of them."""
        while self.eventfds:
            os.close(self.eventfds.pop())


def _send(end: socket.socket, value: int, fd: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    end.sendmsg([struct.pack("<q", value)], rights)
