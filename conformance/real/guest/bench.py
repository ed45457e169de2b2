"""What benches for scripts have in common whose real thing is a kernel in a guest."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from typing import Any, TypeVar

from conformance.real.guest.channel import O_NONBLOCK, Channel, call
from conformance.real.guest.functions import FunctionWorld
from conformance.real.guest.packages import Kernel
from conformance.real.guest.world import GuestWorld, outside
from conformance.real.scripts import Bench, act
from conformance.verdict import HarnessError

World = TypeVar("World", bound=GuestWorld)
_SOON = 1000
"""Milliseconds that an event may take which is expected."""


class GuestBench(Bench):
    """A world of the adapter's, begun by the first act, and what scripts have opened beside it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.given = ExitStack()
        self.world: Any = None
        self.opened: list[int] = []

    def enter(self, world: World) -> World:
        """Begin a world; it is given back when the script is over."""
        self.world = self.given.enter_context(outside(world))
        return world

    def close(self) -> None:
        """Descriptors, then the world."""
        if self.opened and self.channel.is_open:
            self.channel.ask([call("close", fd) for fd in self.opened])
        self.given.close()

    @property
    def channel(self) -> Channel:
        """That leads into the guest."""
        if self.world is None:
            raise HarnessError("a script asks for something before it begins a world")
        channel: Channel = self.world.channel
        return channel

    @act
    def parameter(self, module: str, name: str) -> str:
        """A parameter of a module, as sysfs shows it."""
        answer = self.channel.one(f"c /sys/module/{module}/parameters/{name}")
        return answer.data[0].decode().strip() if answer.data else str(answer.value)

    @act
    def eventfd(self, count: int = 0) -> int:
        """An eventfd that does not block; its descriptor."""
        fd = self.channel.must(call("eventfd2", count, O_NONBLOCK))
        self.opened.append(fd)
        return fd

    @act
    def read_eventfd(self, fd: int, soon: bool = False) -> int:
        """Read an eventfd, at once, or as soon as it can be read; -EAGAIN where it cannot."""
        lines = [call("poll", struct.pack("<ihh", fd, 1, 0), 1, _SOON if soon else 0), call("read", fd, bytes(8), 8)]
        _, read = self.channel.ask(lines)
        return int(struct.unpack("<Q", read.data[0])[0]) if read.value == 8 else read.value

    @act
    def close_fd(self, fd: int) -> int:
        """Close a descriptor."""
        self.opened.remove(fd)
        return self.channel.one(call("close", fd)).value


class FunctionBench(GuestBench):
    """One PCI function."""

    world: FunctionWorld

    @act
    def set_line(self, level: bool) -> int:
        """The function asserts INTx, or not."""
        self.world.function.set_line(asserted=level)
        return 0

    @act
    def command_bit(self, bit: int) -> int:
        """A bit of the command register."""
        return self.world.function.command() >> bit & 1

    @act
    def set_command(self, on: int = 0, off: int = 0) -> int:
        """Set and clear bits of the command register through sysfs."""
        self.world.function.set_command(on, off)
        return 0
