"""One function with uio_pci_generic, and a process that turns its events into signals of an eventfd."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from errno import ENODEV, ENOENT
from typing import Any, ClassVar

from conformance.model.uio_msi import Config, View
from conformance.model.uio_msi.operations import (
    Close,
    ConfigIntx,
    IrqSet,
    Open,
    Probe,
    Remove,
    Write,
)
from conformance.real.guest.channel import O_NONBLOCK, O_RDWR, Answer, call, opening
from conformance.real.guest.functions import INTX_DISABLE, FunctionWorld
from conformance.real.guest.packages import Kernel
from conformance.real.guest.process import counter
from conformance.specs.uio_msi.constants import EVENTFD_MAX

DRIVER = "uio_pci_generic"
_DEVICE = "/dev/uio0"
_EVENT = 4
"""Bytes of the count of events."""


class Uio(FunctionWorld):
    """uio_pci_generic and one function."""

    def __init__(self, kernel: Kernel, config: Config, *, forgets_event: bool = False) -> None:
        super().__init__(kernel, config, 0)
        self.forgets_event = forgets_event
        """For tests: the reader loses what it reads."""

    def set_up(self) -> None:
        """Nobody reads yet."""
        super().set_up()
        self.answers: list[Answer] = []
        """What was seen after the last operation."""
        self.seen = 0
        """Events that the reader knows of."""
        self.target = -1
        """Descriptor, kept aside, of the eventfd that vector 0 signals."""

    def finish(self, op: Any) -> None:
        """Read what events there are, and look in the same turn; what was signalled then is looked at anew."""
        del op
        lines = self._looks()
        if not self.handles:
            self.answers = self.channel.ask(lines)
            return
        read, *self.answers = self.channel.ask([self.reading(), *lines])
        if self._signal(read):
            self.answers = self.channel.ask(lines)

    def probe(self, _op: Probe) -> int:
        """Bind."""
        result = self.function.bind(DRIVER)
        self.function.show_again()
        return result

    def remove(self, _op: Remove) -> int:
        """Unbind."""
        return self.function.unbind(DRIVER)

    def open_handle(self, _op: Open) -> int:
        """Open the device."""
        fd = self.channel.one(opening(_DEVICE, O_RDWR | O_NONBLOCK)).value
        if fd >= 0:
            self.handles.append(fd)
            if len(self.handles) == 1:  # what came before is nobody's
                self.seen = int(self.channel.one("c /sys/class/uio/uio0/event").data[0])
        return 0 if fd >= 0 else -ENODEV if fd == -ENOENT else fd

    def close_handle(self, _op: Close) -> int:
        """Close the handle opened last; nobody reads any more after the first."""
        if len(self.handles) == 1:
            self.target = -1
        return self.channel.one(call("close", self.handles.pop())).value

    def write(self, op: Write) -> int:
        """irqcontrol, which this driver does not have."""
        answer = self.channel.one(call("write", self.handles[0], struct.pack("<i", op.value), 4))
        return min(answer.value, 0)

    def irq_set(self, op: IrqSet) -> int:
        """The reader signals another eventfd from now on; a fresh one unmasks INTx first, as its users do."""
        was_mapped = self.target >= 0
        self._read_events()
        self.target = self.files.kept[self.files.named[op.fd]] if op.fd >= 0 else -1
        if op.fd >= 0 and not was_mapped:
            self.function.set_command(0, INTX_DISABLE)
            self.function.show_again()
        return 0

    def _read_events(self) -> None:
        """Read the count of events, and signal as many."""
        if self.handles:
            self._signal(self.channel.one(self.reading()))

    def _signal(self, read: Answer) -> bool:
        """Signal the eventfd as often as what was read says; whether it was."""
        if read.value != _EVENT:
            return False
        (count,) = struct.unpack("<I", read.data[0])
        new = (count - self.seen) & 0xFFFFFFFF
        self.seen = count
        if self.target < 0 or self.forgets_event:
            return False
        self.channel.one(call("write", self.target, struct.pack("<Q", new), 8))
        return True

    def reading(self) -> str:
        """The request for the count of events, which does not wait for one."""
        return call("read", self.handles[0], bytes(_EVENT), _EVENT)

    def config_intx(self, op: ConfigIntx) -> int:
        """User space writes the disable bit."""
        self.function.set_command(INTX_DISABLE if op.disable else 0, 0 if op.disable else INTX_DISABLE)
        return 0

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        Probe: probe,
        Remove: remove,
        Open: open_handle,
        Close: close_handle,
        IrqSet: irq_set,
        Write: write,
        ConfigIntx: config_intx,
        **FunctionWorld.COMMON,
    }

    def look(self) -> Any:
        """What the guest showed after the last operation: fdinfo, the device file, config space."""
        *counters, device, command = self.answers or self.channel.ask(self._looks())
        disabled = bool(struct.unpack("<H", command.data[0])[0] & INTX_DISABLE)
        return View(
            None, device.value == 0, 0, None,  # type: ignore[arg-type]  # hidden
            tuple([min(counter(answer.data[0]), EVENTFD_MAX) for answer in counters]),
            (False,), self.target >= 0 and disabled, None, None,  # type: ignore[arg-type]  # hidden
        )  # fmt: skip

    def _looks(self) -> list[str]:
        """Requests for all of it."""
        return [*self.files.looks(), call("access", _DEVICE, 0), self.function.look()]

    def clean(self) -> None:
        """Handles, the binding, eventfds; the line is let go."""
        self.function.set_line(asserted=False)
        self.channel.ask([call("close", fd) for fd in self.handles] or ["d 0"])
        if self.channel.one(self.function.bound(DRIVER)).value == 0:
            self.function.unbind(DRIVER)
        self.function.set_command(0, INTX_DISABLE)
        self.files.close()
