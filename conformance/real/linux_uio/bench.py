"""The acts of scripts on uio_pci_generic: reads and writes of the device file."""

from __future__ import annotations

import struct

from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import Probe
from conformance.real.guest.bench import FunctionBench
from conformance.real.guest.channel import O_NONBLOCK, O_RDWR, call, opening
from conformance.real.guest.functions import INTX_DISABLE, MEMORY
from conformance.real.linux_uio.world import Uio
from conformance.real.scripts import act


class UioBench(FunctionBench):
    """One function with INTx, and handles of its device file."""

    world: Uio

    @act
    def bind(self) -> int:
        """Bind the function."""
        return self.enter(Uio(self.kernel, Config(vectors=0))).probe(Probe())

    @act
    def open(self) -> int:
        """Open the device file; a handle that blocks nobody."""
        fd = self.channel.must(opening("/dev/uio0", O_RDWR | O_NONBLOCK))
        self.opened.append(fd)
        return fd

    @act
    def enable(self) -> int:
        """Let the function interrupt."""
        self.world.function.set_command(MEMORY, INTX_DISABLE)
        self.world.function.show_again()
        return 0

    @act
    def raise_line(self) -> int:
        """The function asserts INTx."""
        self.world.function.set_line(asserted=True)
        return 0

    @act
    def acknowledge(self) -> int:
        """The function is told to deassert."""
        self.world.function.set_line(asserted=False)
        return 0

    @act
    def read(self, fd: int, size: int = 4) -> int:
        """Read so many bytes: the length, or the errno."""
        return self.channel.one(call("read", fd, bytes(size), size)).value

    @act
    def read_count(self, fd: int, since: int = 0) -> int:
        """Read the count of events, less one that was kept; or the errno."""
        answer = self.channel.one(call("read", fd, bytes(4), 4))
        return int(struct.unpack("<I", answer.data[0])[0]) - since if answer.value == 4 else answer.value

    @act
    def event(self, since: int = 0) -> int:
        """The count in sysfs, less one that was kept."""
        return int(self.channel.one("c /sys/class/uio/uio0/event").data[0]) - since

    @act
    def write(self, fd: int, value: int) -> int:
        """Write 4 bytes: irqcontrol."""
        return self.channel.one(call("write", fd, struct.pack("<i", value), 4)).value

    @act
    def poll(self, fd: int) -> int:
        """Whether poll says at once that it can be read."""
        return self.channel.one(call("poll", struct.pack("<ihh", fd, 1, 0), 1, 0)).value
