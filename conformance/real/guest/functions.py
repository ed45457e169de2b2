"""The machine with its PCI functions, what a function is known by inside, and the world around one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import CloseFd, ListInterrupts, ReadEventfd, ReuseFd, SetIntx
from conformance.real.guest.channel import O_RDWR, O_SYNC, Back, Channel, call, opening, storing
from conformance.real.guest.ivshmem import Doorbell
from conformance.real.guest.machine import Guest, Machine, guest
from conformance.real.guest.packages import Kernel
from conformance.real.guest.process import Files
from conformance.real.guest.world import GuestWorld
from conformance.specs.uio_msi.constants import EVENTFD_MAX

SIZES = (1, 2, 3, 4, 64)
"""Sizes of the MSI-X tables that there are."""
EDU = 16
"""Slot of the function with INTx."""
STATUS, RAISE, ACKNOWLEDGE = 0x24, 0x60, 0x64
"""Registers of `edu`."""
MEMORY, MASTER, INTX_DISABLE = 2, 4, 0x400
"""Bits of the command register."""
_SLOTS = {size: 8 + i for i, size in enumerate(SIZES)}
_SHARED, _READ_WRITE = 1, 3
_MSIX = 0x11


def machine(kernel: Kernel) -> Machine:
    """A guest with vfio-pci behind an IOMMU, an `edu` and one doorbell of each size."""
    devices = ["-device", "intel-iommu,intremap=on"]
    for size, slot in _SLOTS.items():
        devices += ["-chardev", f"socket,id=doorbell{size},fd={{doorbell{size}}}"]
        devices += ["-device", f"ivshmem-doorbell,chardev=doorbell{size},vectors={size},master=on,addr={slot:#x}"]
    devices += ["-device", f"edu,addr={EDU:#x}"]
    return Machine(
        kernel=kernel,
        modules=("vfio_pci", "vfio_iommu_type1", "uio_pci_generic"),
        append="intel_iommu=on iommu=pt",
        devices=tuple(devices),
        sockets=tuple(f"doorbell{size}" for size in SIZES),
    )


def started(kernel: Kernel) -> Guest:
    """The guest of this process; `served` are its doorbells by size."""
    return guest(machine(kernel), serve)


def serve(ends: dict[str, socket.socket]) -> dict[int, Doorbell]:
    """The doorbells by size, each served on its socket."""
    doorbells = {size: Doorbell(size) for size in SIZES}
    for size, doorbell in doorbells.items():
        doorbell.serve(ends[f"doorbell{size}"])
    return doorbells


def address(vectors: int) -> str:
    """Domain, bus, device and function of the one with so many vectors, or of that with INTx."""
    return f"0000:00:{_SLOTS.get(vectors, EDU):02x}.0"


@dataclass(slots=True)
class Function:
    """A PCI function as sysfs shows it."""

    channel: Channel
    bdf: str
    registers: int = 0
    """Where its BAR 0 is mapped in the helper, of the function without MSI-X."""
    handle: int = -1
    """VFIO's, while one is open: newer kernels take away what is mapped through sysfs then."""
    pending: int = 0
    """Where VFIO has its pending bits: region and offset."""
    config: int = 0
    """Descriptor of config space."""
    group_number: str = ""
    """Of its IOMMU group, once it was asked for."""

    @property
    def folder(self) -> str:
        """In sysfs."""
        return f"/sys/bus/pci/devices/{self.bdf}"

    def map(self) -> None:
        """Look at the function's config space and registers."""
        self.config = self.channel.must(opening(f"{self.folder}/config", O_RDWR))
        content = self.channel.one(call("pread", self.config, bytes(256), 256, 0)).data[0]
        at = _capability(content, _MSIX)
        if at:
            (where,) = struct.unpack_from("<I", content, at + 8)
            self.pending = (where & 7) << 40 | where & ~7
            return
        self._place(0)
        self._map_registers()

    def _map_registers(self) -> None:
        _, mapped, _ = self.channel.must_all([
            opening(f"{self.folder}/resource0", O_RDWR | O_SYNC),
            call("mmap", 0, 4096, _READ_WRITE, _SHARED, Back(1), 0),
            call("close", Back(2)),
        ])  # fmt: skip
        self.registers = mapped.value

    def opened(self, handle: int) -> None:
        """VFIO has given a handle, which is the way to the registers then."""
        self.handle = handle

    def closed(self) -> None:
        """The last handle is closed."""
        self.handle = -1
        if self.registers:
            self.channel.one(call("munmap", self.registers, 4096))
            self._map_registers()

    def writing_register(self, register: int, value: int) -> str:
        """The request that writes a register."""
        if self.handle >= 0:
            return call("pwrite", self.handle, struct.pack("<I", value), 4, register)
        return f"p {self.registers + register} {value}"

    def _status(self) -> str:
        if self.handle >= 0:
            return call("pread", self.handle, bytes(4), 4, STATUS)
        return f"l {self.registers + STATUS}"

    def _place(self, bar: int) -> None:
        """Let the function answer where the kernel knows it: what QEMU cannot save has no address when restored."""
        resources = self.channel.one(f"c {self.folder}/resource").data[0].split(b"\n")
        start = int(resources[bar].split()[0], 16)
        self.channel.must(call("pwrite", self.config, struct.pack("<I", start), 4, 0x10 + 4 * bar))
        self.set_command(MEMORY, 0)

    def set_command(self, on: int, off: int) -> None:
        """Set and clear bits of the command register, as user space does through sysfs."""
        self.channel.must(self.writing((self.command() | on) & ~off))

    def writing(self, command: int) -> str:
        """The request that writes the command register."""
        return call("pwrite", self.config, struct.pack("<H", command), 2, 4)

    def set_line(self, *, asserted: bool) -> None:
        """Let the function assert INTx, or not, by its own registers."""
        decoding = self.writing(self.command() | MEMORY)
        self.channel.ask([decoding, self.writing_register(RAISE if asserted else ACKNOWLEDGE, 1)])

    def show_again(self) -> None:
        """QEMU's I/O APIC forgets a level that came before the kernel called the pin one of a level: show it again."""
        found = self.command()
        _, status = self.channel.ask([self.writing(found | MEMORY), self._status()])
        is_asserted = any(status.data[0]) if status.data else status.value
        if is_asserted and not found & INTX_DISABLE:
            self.channel.ask([self.writing_register(register, 1) for register in (ACKNOWLEDGE, RAISE)])

    def command(self) -> int:
        """The command register."""
        return int(struct.unpack("<H", self.channel.one(self.look()).data[0])[0])

    def look(self) -> str:
        """The request for the command register."""
        return call("pread", self.config, bytes(2), 2, 4)

    def look_pending(self, handle: int, vectors: int) -> list[str]:
        """Requests for the pending bits, 32 at once, through VFIO's own window on the BAR of the table."""
        return [call("pread", handle, bytes(4), 4, self.pending + 4 * i) for i in range((vectors + 31) // 32)]

    def bind(self, driver: str) -> int:
        """Give the function to a driver. 0 or a negative errno."""
        _, probed, bound = self.channel.ask([
            storing(f"{self.folder}/driver_override", driver.encode()),
            storing("/sys/bus/pci/drivers_probe", self.bdf.encode()),
            self.bound(driver),
        ])  # fmt: skip
        return min(probed.value, 0) or bound.value

    def unbind(self, driver: str) -> int:
        """Take it away again."""
        return min(0, self.channel.one(storing(f"/sys/bus/pci/drivers/{driver}/unbind", self.bdf.encode())).value)

    def bound(self, driver: str) -> str:
        """The request that asks whether the driver has it: 0 or a negative errno."""
        return call("access", f"/sys/bus/pci/drivers/{driver}/{self.bdf}", 0)

    def group(self) -> str:
        """The IOMMU group."""
        if not self.group_number:
            answer = self.channel.one(call("readlink", f"{self.folder}/iommu_group", bytes(256), 256))
            self.group_number = answer.data[0][: answer.value].decode().rsplit("/", 1)[-1]
        return self.group_number


def _capability(content: bytes, wanted: int) -> int:
    at = content[0x34]
    while at:
        if content[at] == wanted:
            return at
        at = content[at + 1]
    return 0


def function(running: Guest, bdf: str) -> Function:
    """The function, mapped once in each guest."""
    found: Function | None = running.functions.get(bdf)
    if found is None:
        found = Function(running.channel, bdf)
        found.map()
        running.functions[bdf] = found
    return found


class FunctionWorld(GuestWorld):
    """One function of the machine, and a process that has eventfds: what is the same with every driver."""

    def __init__(self, kernel: Kernel, config: Config, vectors: int) -> None:
        super().__init__(partial(started, kernel))
        self.config = config
        self.vectors = vectors

    def set_up(self) -> None:
        """The function, bound to nothing, and the process's eventfds."""
        self.function = function(self.guest, address(self.vectors))
        self.handles: list[int] = []
        self.files = Files(self.channel, self.config)

    def close_fd(self, op: CloseFd) -> int:
        """Close one of its eventfds."""
        return self.files.close_number(op.fd)

    def reuse_fd(self, op: ReuseFd) -> int:
        """Something else under the number."""
        return self.files.reuse(op.fd, op.pipe)

    def read_eventfd(self, op: ReadEventfd) -> int:
        """Take the counter."""
        return min(self.files.read(op.fd), EVENTFD_MAX)

    def list_interrupts(self, _op: ListInterrupts) -> int:
        """Read /proc/interrupts."""
        return min(0, self.channel.one("c /proc/interrupts").value)

    def set_intx(self, op: SetIntx) -> int:
        """The function asserts and deasserts."""
        self.function.set_line(asserted=op.level)
        return 0

    COMMON: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        CloseFd: close_fd,
        ReuseFd: reuse_fd,
        ReadEventfd: read_eventfd,
        ListInterrupts: list_interrupts,
        SetIntx: set_intx,
    }
    """The part of `OPERATIONS` that is the same with every driver."""
