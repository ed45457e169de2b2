"""The acts of scripts on vfio-pci: SET_IRQS with any header, and what becomes of events."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import Close, Probe
from conformance.real.guest.bench import FunctionBench
from conformance.real.guest.channel import call
from conformance.real.linux_vfio.world import SET_IRQS, Vfio
from conformance.real.scripts import act

_DEVICE_INFO, _REGION_INFO, _IRQ_INFO = 0x3B6B, 0x3B6C, 0x3B6D
_FLAGS = {"none": 1, "bool": 2, "eventfd": 4, "mask": 8, "unmask": 16, "trigger": 32}
_HEADER = 20


class VfioBench(FunctionBench):
    """One function with vfio-pci, and a handle on which nothing is enabled yet."""

    world: Vfio

    @act
    def bind(self, vectors: int) -> int:
        """Bind a function with so many MSI-X vectors, or with INTx alone, and open its group."""
        return int(self.enter(Vfio(self.kernel, Config(vectors=vectors))).perform(Probe()))

    @act
    def open(self) -> int:
        """VFIO_GROUP_GET_DEVICE_FD; the function decodes and may send."""
        fd = self.channel.must(self.world.opening_handle())
        self.world.handles.append(fd)
        if len(self.world.handles) == 1:
            self.world.begin_with(fd)
            self.world.function.opened(fd)
        return 0

    @act
    def close_handle(self) -> int:
        """Close the handle that was opened last."""
        return self.world.close_handle(Close())

    @act
    def set_irqs(
        self,
        flags: str,
        start: int = 0,
        count: int = 1,
        fds: Sequence[int] = (),
        data: str = "",
        index: int = -1,
        argsz: int = -1,
    ) -> int:
        """VFIO_DEVICE_SET_IRQS: flags by name or number, data as eventfds or in hex; `argsz` that of all of it."""
        told = sum(_FLAGS[flag] if flag in _FLAGS else int(flag, 0) for flag in flags.split())
        content = struct.pack(f"<{len(fds)}i", *fds) + bytes.fromhex(data)
        size = _HEADER + len(content) if argsz < 0 else argsz
        argument = struct.pack("<5I", size, told, self.world.index if index < 0 else index, start, count) + content
        return self.channel.one(call("ioctl", self.world.handles[-1], SET_IRQS, argument)).value

    @act
    def irq_info(self, index: int) -> list[int]:
        """VFIO_DEVICE_GET_IRQ_INFO: flags and count; or the errno twice."""
        answer = self.channel.one(call("ioctl", self.world.handles[-1], _IRQ_INFO, struct.pack("<4I", 16, 0, index, 0)))
        return list(struct.unpack("<4I", answer.data[0])[1::2]) if answer.value >= 0 else [answer.value] * 2

    @act
    def device_info(self) -> list[int]:
        """VFIO_DEVICE_GET_INFO: numbers of regions and of interrupt indexes."""
        answer = self.channel.one(
            call("ioctl", self.world.handles[-1], _DEVICE_INFO, struct.pack("<5I", 20, 0, 0, 0, 0))
        )
        return list(struct.unpack("<5I", answer.data[0])[2:4])

    @act
    def region_size(self, index: int) -> int:
        """VFIO_DEVICE_GET_REGION_INFO: the size of a region."""
        argument = struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0)
        answer = self.channel.one(call("ioctl", self.world.handles[-1], _REGION_INFO, argument))
        return int(struct.unpack("<IIIIQQ", answer.data[0])[4]) if answer.value >= 0 else answer.value

    @act
    def ring(self, vector: int) -> int:
        """The function raises a vector, from outside; the guest has had it when this returns."""
        self.world.doorbell.ring(vector)
        self.channel.one(self.world.function.look())
        return 0

    @act
    def is_pending(self, vector: int) -> int:
        """The pending bit of a vector in the MSI-X structure."""
        looks = self.world.function.look_pending(self.world.handles[0], self.world.config.vectors)
        return int(self.world.pending(self.channel.ask(looks))[vector])
