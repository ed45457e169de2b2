"""The world of a UIO MSI-X driver, wired: one PCI function, one process, one driver."""

from __future__ import annotations

from typing import Any, Protocol

from conformance.environment.door import Environment
from conformance.environment.eventfd import Eventfds, FastEventfds, RealEventfds, World
from conformance.environment.irq import IrqCore
from conformance.environment.uio_msi import operations
from conformance.environment.uio_msi.config_space import ConfigSpace
from conformance.environment.uio_msi.context import Context
from conformance.environment.uio_msi.device import Device
from conformance.environment.uio_msi.eventfds import EventfdContexts, open_files
from conformance.environment.uio_msi.handlers import Handlers
from conformance.environment.uio_msi.heap import Heap
from conformance.environment.uio_msi.intx import Intx
from conformance.environment.uio_msi.iomem import IoMemory
from conformance.environment.uio_msi.irqs import Irqs
from conformance.environment.uio_msi.log import Log
from conformance.environment.uio_msi.msix import Msix
from conformance.environment.uio_msi.mutexes import Mutexes
from conformance.environment.uio_msi.process import Process
from conformance.environment.uio_msi.spinlocks import Spinlocks
from conformance.environment.uio_msi.uio_core import UioCore
from conformance.environment.uio_msi.view import view
from conformance.model.uio_msi import Config, View
from conformance.model.uio_msi.operations import (
    Close,
    CompatIoctl,
    CompatIrqSet,
    ConfigIntx,
    Flood,
    IrqSet,
    Open,
    Probe,
    RaiseVector,
    RawIoctl,
    Remove,
    Write,
)
from conformance.specs.uio_msi import Port, Profile

CALLBACKS = frozenset({Probe, Remove, Open, Close, IrqSet, CompatIrqSet, RawIoctl, CompatIoctl, Write, Flood})
"""Operations that enter the driver from process context."""
KEEP_OPEN = frozenset({IrqSet, CompatIrqSet, Write})
"""System calls on a handle, which cannot be released meanwhile."""


class Backend(Protocol):
    """What makes the eventfds."""

    def __call__(self, world: World, /) -> Eventfds:
        """Eventfds for one world."""
        ...


class UioMsi(Environment):
    """One PCI function, one process, one driver.

    Simulators behave as the kernel and the hardware do; a misuse is a Violation at the call that
    commits it. Nothing here is repaired for a candidate.
    """

    PORT = Port
    OPERATIONS = operations.OPERATIONS
    TWO_CPUS = True

    context: Context
    log: Log
    heap: Heap
    iomem: IoMemory
    mutexes: Mutexes
    process: Process
    eventfds: EventfdContexts
    device: Device
    handlers: Handlers
    intx: Intx
    msix: Msix
    config_space: ConfigSpace
    irqs: Irqs
    uio: UioCore
    spinlocks: Spinlocks

    def __init__(self, config: Config, profile: Profile, backend: Backend = RealEventfds) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        core = IrqCore()
        self.context = context = Context(self)
        self.log = Log(self)
        self.heap = heap = Heap(self, context)
        self.iomem = IoMemory(self, context)
        self.mutexes = mutexes = Mutexes(self, context, heap)
        heap.at_free = mutexes.forget
        self.process = process = Process(self, context, mutexes)
        self.eventfds = eventfds = EventfdContexts(self, context, process, backend(open_files(config)))
        self.device = device = Device(self, core)
        self.handlers = handlers = Handlers(self, context, heap, core, device)
        self.intx = intx = Intx(self, context, core, handlers, eventfds, config)
        self.msix = msix = Msix(self, context, core, device, handlers, intx, process, eventfds, config)
        self.config_space = ConfigSpace(self, context, device, intx, msix, config)
        self.irqs = Irqs(self, context, heap, core, handlers, intx, msix)
        self.uio = UioCore(self, context, device, process, intx, config.core_41 or profile.core == "4.1")
        self.spinlocks = Spinlocks(self, context, heap, intx)

    def close(self) -> None:
        """Close the eventfds."""
        self.eventfds.files.close()

    def descriptor(self, call: str, result: int) -> int | None:
        """The driver's reference to an eventfd, where that is a descriptor."""
        return self.eventfds.descriptor(result) if call == "eventfd_ctx_fdget" and result > 0 else None

    def view(self) -> View:
        """What can be observed from outside."""
        return view(self)

    def can_interrupt(self, op: Any) -> bool:
        """Hardware and user space act at any time; a callback only where no lock keeps it out.

        Two events of a vector within the gap of one replacement are one, which no order of the three explains.
        """
        if type(op) is RaiseVector and op.vector in self.msix.window:
            return False
        if type(op) is ConfigIntx and self.config_space.locks.owners:
            return False
        if type(op) not in CALLBACKS:
            return True
        if type(op) is Remove and self.process.arguments and not self.uio.is_old:
            return False
        locks = (self.mutexes.locks, self.spinlocks.locks, self.config_space.locks)
        return self.uio.info_lock is None and not any(table.owners for table in locks)

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """An ioctl or a write keeps its file open, so what is released meanwhile is another handle."""
        kinds = {type(left), type(right)}
        return Close not in kinds or not kinds & KEEP_OPEN or self.uio.opens > 1


class FastUioMsi(UioMsi):
    """The same world with eventfds in memory."""

    def __init__(self, config: Config, profile: Profile) -> None:
        super().__init__(config, profile, FastEventfds)
