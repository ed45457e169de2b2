"""The UIO core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.model.uio_msi.operations import PDEV_IRQ
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    EINVAL,
    MAX_UIO_MAPS,
    MAX_UIO_PORT_REGIONS,
    UIO_IRQ_CUSTOM,
    UIO_IRQ_NONE,
)
from conformance.verdict import HarnessError, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.device import Device
    from conformance.environment.uio_msi.intx import Intx
    from conformance.environment.uio_msi.process import Process


class UioCore(Simulator):
    """drivers/uio/uio.c: one device file, what the driver registered for it, and info_lock.

    The 6.x core excludes open, release and write from one another and from removal. How the patch that forwards
    ioctls excluded them is not known: here removal waits for them, and they run side by side. The core of Linux 4.1
    excludes nothing. read, poll and mmap are not modelled.
    """

    CLAUSES = (c.AT_MOST_FIVE, c.NOTHING_RELEASED_TWICE)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"uio_unregister_device": (c.NOTHING_RELEASED_TWICE,)}

    def __init__(
        self, door: Environment, context: Context, device: Device, process: Process, intx: Intx, is_old: bool
    ) -> None:
        super().__init__(door)
        self.context = context
        self.device = device
        self.process = process
        self.intx = intx
        self.is_old = is_old
        """Whether it is the core of Linux 4.1."""
        self.registered = False
        self.opens = 0
        """Handles of the device file."""
        self.mem: MAPS_TYPE = ()
        self.port_regions: PORTS_TYPE = ()
        self.has_irqcontrol = False
        self.irq = UIO_IRQ_CUSTOM
        """What the driver registered as its irq."""
        self.info_lock: Frame | None = None
        """Who is inside a callback of the driver; the 6.x core excludes others."""

    def uio_register_device(
        self, name: str, version: str, irq: int, irqcontrol: bool, mem: MAPS_TYPE, port: PORTS_TYPE
    ) -> int:
        """As the port says."""
        self.context.may_sleep("uio_register_device")
        if self.registered or not name or not version:
            return -EINVAL
        if irq not in (UIO_IRQ_CUSTOM, UIO_IRQ_NONE, PDEV_IRQ):
            # The core requests it, and there is no such irq.
            return -EINVAL
        self.door.require(
            c.AT_MOST_FIVE,
            len(mem) <= MAX_UIO_MAPS and len(port) <= MAX_UIO_PORT_REGIONS,
            f"{len(mem)} memory and {len(port)} port entries",
        )
        refusal = self.door.refused("uio_register_device")
        if refusal:
            return refusal
        self.mem, self.port_regions, self.has_irqcontrol = tuple(mem), tuple(port), irqcontrol
        self.irq = irq
        self.intx.is_cores = irq == PDEV_IRQ
        self.registered = True
        self.device.acquired.append("uio_register_device")
        return 0

    def uio_unregister_device(self) -> None:
        """As the port says. The 6.x core waits for callbacks under way."""
        self.context.may_sleep("uio_unregister_device")
        if not self.registered:
            raise Violation(c.NOTHING_RELEASED_TWICE, "uio_unregister_device of a device that is not registered")
        self.take_info_lock()
        arguments = self.process.arguments
        if not self.is_old and not self.door.wait_until("ioctls under way", lambda: not arguments):
            raise HarnessError("the device was unregistered in the middle of an ioctl")
        self.registered = False
        self.irq = UIO_IRQ_CUSTOM
        self.intx.is_cores = False
        self.drop_info_lock()
        self.device.released("uio_register_device")

    def uio_event_notify(self) -> None:
        """As the port says."""

    def take_info_lock(self) -> None:
        """Enter a callback, once nobody else is in one."""
        if self.is_old:
            return
        if self.info_lock is not None and not self.door.wait_until("info_lock of the UIO core", self._is_unlocked):
            raise HarnessError("a callback was entered while another one was under way")
        self.info_lock = self.door.frame

    def drop_info_lock(self) -> None:
        """Leave the callback."""
        self.info_lock = None

    def _is_unlocked(self) -> bool:
        return self.info_lock is None
