"""One function with vfio-pci, one process in the guest; operations are its system calls, and events from outside."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from errno import ENOENT
from typing import Any, ClassVar

from conformance.model.uio_msi import Config, View
from conformance.model.uio_msi.operations import (
    PAGE,
    PAGE_END,
    Close,
    IrqSet,
    Open,
    Probe,
    RaiseMany,
    RaiseVector,
    RawIoctl,
    Remove,
    Write,
)
from conformance.real.guest.channel import O_RDWR, Answer, call, opening
from conformance.real.guest.functions import INTX_DISABLE, MASTER, MEMORY, FunctionWorld
from conformance.real.guest.ivshmem import Doorbell
from conformance.real.guest.packages import Kernel
from conformance.real.guest.process import counter
from conformance.specs.uio_msi.constants import COMMAND_MASK, ENODEV, ENOTTY, EOPNOTSUPP, EVENTFD_MAX, UIO_MSI_IRQ_SET

SET_IRQS = 0x3B6E
SET_IRQS_SIZE = 24
_GET_DEVICE_FD, _SET_CONTAINER, _SET_IOMMU = 0x3B6A, 0x3B68, 0x3B66
_NONE, _MASK, _UNMASK = 1, 8, 16
TRIGGER_NONE, TRIGGER_EVENTFD = 32 | _NONE, 32 | 4
"""Flags of VFIO_DEVICE_SET_IRQS: let it happen, or disable; have eventfds signalled."""
_INTX, _MSIX = 0, 2
_CONFIG_REGION = 7 << 40
_FIXED = 0x32
"""MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS."""
_DRIVER = "vfio-pci"


class Vfio(FunctionWorld):
    """vfio-pci and one function. Errnos are mapped where the two interfaces name one thing differently."""

    def __init__(self, kernel: Kernel, config: Config, keeps_intx: bool = False) -> None:
        super().__init__(kernel, config, config.vectors)
        self.keeps_intx = keeps_intx
        """Whether a refused eventfd leaves INTx as it was; the kernels differ."""

    def set_up(self) -> None:
        """One page of user memory is mapped, where the model has it."""
        super().set_up()
        self.index = _MSIX if self.config.vectors else _INTX
        self.group: tuple[int, ...] = ()
        self.is_wired = False
        """INTx: the last set gave it an eventfd."""
        self.channel.one(call("mmap", PAGE, PAGE_END - PAGE, 3, _FIXED, 2**64 - 1, 0))

    @property
    def doorbell(self) -> Doorbell:
        """What raises the function's vectors."""
        return self.guest.served[self.config.vectors]

    # -- binding

    def probe(self, _op: Probe) -> int:
        """Bind, and open the group, so that handles can be had."""
        result = self.function.bind(_DRIVER)
        if result:
            return result
        opened = [opening(path, O_RDWR) for path in (f"/dev/vfio/{self.function.group()}", "/dev/vfio/vfio")]
        group, container = (answer.value for answer in self.channel.ask(opened))
        self.group = (group, container)
        steps = (
            call("ioctl", group, _SET_CONTAINER, struct.pack("<i", container)),
            call("ioctl", container, _SET_IOMMU, 1),
        )
        return min(0, group, container, *(answer.value for answer in self.channel.ask(steps)))

    def remove(self, _op: Remove) -> int:
        """Close the group and unbind."""
        self._leave_group()
        return self.function.unbind(_DRIVER)

    def _leave_group(self) -> None:
        if self.group:
            self.channel.ask([call("close", fd) for fd in self.group])
            self.group = ()

    # -- handles

    def open_handle(self, _op: Open) -> int:
        """A handle; the first one enables all vectors and assigns none."""
        if not self.group:
            gone = self.channel.one(opening(f"/dev/vfio/{self.function.group()}", O_RDWR)).value
            return -ENODEV if gone == -ENOENT else gone
        fd = self.channel.one(self.opening_handle()).value
        if fd < 0:
            return fd
        self.handles.append(fd)
        if len(self.handles) > 1:
            return 0
        self.begin_with(fd)
        self.function.opened(fd)
        if not self.config.vectors:
            return 0
        none = struct.pack(f"<{self.config.vectors}i", *(-1,) * self.config.vectors)
        result = self._set_irqs(TRIGGER_EVENTFD, 0, self.config.vectors, none)
        if result < 0:
            self.close_handle(Close())
        else:
            self._reset_pending()
        return result

    def opening_handle(self) -> str:
        """The request for a handle, of a function that is bound."""
        return call("ioctl", self.group[0], _GET_DEVICE_FD, self.function.bdf.encode() + b"\0")

    def _reset_pending(self) -> None:
        """Clear the pending bits: the function lacks the reset that VFIO would do, so a private eventfd takes them."""
        held = self.pending(self.channel.ask(self._look_pending()))
        vectors = [vector for vector, is_held in enumerate(held) if is_held]
        if not vectors:
            return
        private = self.channel.one(call("eventfd2", 0, 0)).value
        taken = [
            self.setting(TRIGGER_EVENTFD, vector, 1, struct.pack("<i", fd))
            for vector in vectors
            for fd in (private, -1)
        ]
        self.channel.ask([*taken, call("close", private)])

    def begin_with(self, fd: int) -> None:
        """The first handle is among those that are no eventfds; its function decodes and may send."""
        where = _CONFIG_REGION + 4
        _, command = self.channel.must_all([self.files.name_device(fd), call("pread", fd, bytes(2), 2, where)])
        (found,) = struct.unpack("<H", command.data[0])
        self.channel.one(call("pwrite", fd, struct.pack("<H", found | MEMORY | MASTER), 2, where))

    def close_handle(self, _op: Close) -> int:
        """Close the handle opened last."""
        if len(self.handles) == 1:
            self.is_wired = False
            self.files.forget_device()
        result = self.channel.one(call("close", self.handles.pop())).value
        if not self.handles:
            self.function.closed()
        return result

    # -- ioctls

    def irq_set(self, op: IrqSet) -> int:
        """SET_IRQS of one vector."""
        return self._set(op.vector, op.fd)

    def raw_ioctl(self, op: RawIoctl) -> int:
        """Any command; that of uio_msi stands for SET_IRQS, at the same pointer."""
        if op.cmd & COMMAND_MASK != UIO_MSI_IRQ_SET:
            return self.channel.one(call("ioctl", self.handles[-1], op.cmd & COMMAND_MASK, op.pointer)).value
        if PAGE <= op.pointer <= PAGE_END - SET_IRQS_SIZE:
            return self._set(op.vector, op.fd, op.pointer)
        return self.channel.one(call("ioctl", self.handles[-1], SET_IRQS, op.pointer)).value

    def _set(self, vector: int, fd: int, pointer: int = 0) -> int:
        """Assign an eventfd, or none: VFIO has -1 for that, any negative number here.

        INTx without an eventfd stays enabled in VFIO, and masked if it was; what unmapping means here is disabling it.
        """
        if self.index == _INTX and not vector and fd < 0:
            return self._disable_intx()
        result = self._set_irqs(TRIGGER_EVENTFD, vector, 1, struct.pack("<i", max(fd, -1)), pointer)
        if self.index == _INTX and not vector:
            if not result:
                self.is_wired = True
                self.function.show_again()
            elif not self.keeps_intx:
                self._disable_intx()
        return result

    def _disable_intx(self) -> int:
        """Where it is not enabled VFIO has nothing to disable."""
        was_wired, self.is_wired = self.is_wired, False
        return self._set_irqs(TRIGGER_NONE, 0, 0, b"") if was_wired else 0

    def _set_irqs(self, flags: int, start: int, count: int, data: bytes, pointer: int = 0) -> int:
        if not pointer:
            return self.channel.one(self.setting(flags, start, count, data)).value
        argument = self._argument(flags, start, count, data)
        lines = [f"w {pointer} {argument.hex()}", call("ioctl", self.handles[-1], SET_IRQS, pointer)]
        return self.channel.ask(lines)[1].value

    def _argument(self, flags: int, start: int, count: int, data: bytes) -> bytes:
        return struct.pack("<IIIII", 20 + len(data), flags, self.index, start, count) + data

    def setting(self, flags: int, start: int, count: int, data: bytes) -> str:
        """The request for SET_IRQS."""
        return call("ioctl", self.handles[-1], SET_IRQS, self._argument(flags, start, count, data))

    def write(self, op: Write) -> int:
        """irqcontrol: mask and unmask. MSI-X has neither, which VFIO says with -ENOTTY."""
        result = self._set_irqs(_NONE | (_UNMASK if op.value else _MASK), 0, 1, b"")
        return -EOPNOTSUPP if result == -ENOTTY else result

    # -- the function

    def raise_vector(self, op: RaiseVector) -> int:
        """An event, from outside."""
        self.doorbell.ring(op.vector)
        return 0

    def raise_many(self, op: RaiseMany) -> int:
        """Each one is taken before the next comes: an edge has no memory."""
        for _ in range(op.count):
            self.doorbell.ring(op.vector)
            self.channel.one(self.function.look())
        return 0

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        Probe: probe,
        Remove: remove,
        Open: open_handle,
        Close: close_handle,
        IrqSet: irq_set,
        RawIoctl: raw_ioctl,
        Write: write,
        RaiseVector: raise_vector,
        RaiseMany: raise_many,
        **FunctionWorld.COMMON,
    }

    def look(self) -> Any:
        """What the guest shows: fdinfo, sysfs, config space, the pending bits of the function.

        A signal of the kernel's fills an eventfd up to 2**64 - 1, a write of user space to one less, as does the model.
        """
        looks = self.files.looks()
        lines = [
            *looks,
            self.function.bound(_DRIVER),
            f"n {self.function.folder}/msi_irqs",
            self.function.look(),
            *self._look_pending(),
        ]
        answers = self.channel.ask(lines)
        counters, (bound, enabled, command, *pending) = answers[: len(looks)], answers[len(looks) :]
        disabled = bool(struct.unpack("<H", command.data[0])[0] & INTX_DISABLE)
        return View(
            None, bound.value == 0, max(enabled.value, 0), None,  # type: ignore[arg-type]  # hidden
            tuple([min(counter(answer.data[0]), EVENTFD_MAX) for answer in counters]),
            self.pending(pending),
            bool(not self.config.vectors and self.is_wired and disabled),
            None, None,  # type: ignore[arg-type]  # hidden
        )  # fmt: skip

    def _look_pending(self) -> list[str]:
        """Requests for the pending bits, of a function that is open and has MSI-X."""
        is_on = self.handles and self.config.vectors
        return self.function.look_pending(self.handles[0], self.config.vectors) if is_on else []

    def pending(self, answers: list[Answer]) -> tuple[bool, ...]:
        """The pending bits in these answers."""
        bits = sum(struct.unpack("<I", answer.data[0])[0] << 32 * i for i, answer in enumerate(answers))
        return tuple([bool(bits >> v & 1) for v in range(max(self.config.vectors, 1))])

    def clean(self) -> None:
        """Handles, the group, the binding, eventfds; the line is let go."""
        if not self.config.vectors:
            self.function.set_line(asserted=False)
        while self.handles:
            self.close_handle(Close())
        self._leave_group()
        if self.channel.one(self.function.bound(_DRIVER)).value == 0:
            self.function.unbind(_DRIVER)
        self.files.close()
