"""A driver that keeps every clause."""

from __future__ import annotations

import struct
from typing import ClassVar

from conformance.specs.uio_msi import CAPABILITIES, MAPS_TYPE, PORTS_TYPE, Port
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import (
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOSPC,
    ENOTTY,
    EPERM,
    ERANGE,
    IRQ_HANDLED,
    IRQ_NONE,
    IRQF_SHARED,
    MAX_MSIX_VECTORS,
    MAX_UIO_MAPS,
    MAX_UIO_PORT_REGIONS,
    PAGE_SIZE,
    UIO_MSI_IRQ_SET,
)

STATE_MUTEX = 0x100
"""Static mutex of the module: it outlives the device, so a late callback can still take it."""
SIZEOF_DEVICE = 0x400
SIZEOF_CONTEXT = 0x10


class Upstream:
    """A driver that keeps every clause.

    Callbacks and remove exclude one another by a mutex of the module, and a callback that comes
    too late finds the device gone. Tables are driver memory, so they are allocated at probe; the
    dev_id of a vector is the address of its entry in the context table.
    """

    profile: ClassVar[str] = "upstream"
    capabilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES)

    def __init__(self, port: Port) -> None:
        self.port = port
        self.device = 0
        self._forget()

    def _forget(self) -> None:
        """No device."""
        self.bound = False
        self.open_count = 0
        self.msix = False
        self.max_vectors = 0
        self.irq = 0
        self.contexts = 0
        """Address of the context table."""
        self.names: list[int] = []
        self.triggers: list[int] = []
        """eventfd context by vector, 0 while it has none."""
        self.irqs: list[int] = []
        """irq number by vector, of the current enabling."""
        self.was_masked = False

    # -- probe and remove

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Bind the device; undo what was done when a step fails."""
        port = self.port
        if hdr_type & 0x7F:
            return -ENODEV
        device = port.kzalloc(SIZEOF_DEVICE)
        if not device:
            return -ENOMEM
        err = port.pci_enable_device()
        if err:
            port.kfree(device)
            return err
        err = port.pci_request_regions("uio_msi")
        if not err:
            err = self._set_up(irq)
            if not err:
                self.device = device
                port.pci_set_drvdata(device)
                self.bound = True
                bars = self._bars()
                maps, ports = self._maps(bars), self._ports(bars)
                err = port.uio_register_device("uio_msi", "1.0", k.UIO_IRQ_CUSTOM, True, maps, ports)
                if not err:
                    return 0
                self.bound = False
                port.pci_set_drvdata(0)
                self._free_tables()
            port.pci_release_regions()
        port.pci_disable_device()
        port.kfree(device)
        self._forget()
        return err

    def _set_up(self, irq: int) -> int:
        """Choose the mode and allocate its tables."""
        port = self.port
        self.irq = irq
        self.was_masked = bool(port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE)
        count = port.pci_msix_vec_count()
        self.msix = count > 0 and self._msix_works()
        if self.msix:
            self.max_vectors = min(count, MAX_MSIX_VECTORS)
        elif irq not in (0, k.IRQ_NOTCONNECTED) and port.pci_intx_mask_supported():
            self.max_vectors = 1
        else:
            return -EINVAL
        return self._allocate_tables()

    def _msix_works(self) -> bool:
        """Try one vector: a bus or a host may forbid what the capability promises."""
        if self.port.pci_alloc_irq_vectors(1, 1) < 0:
            return False
        self.port.pci_free_irq_vectors()
        return True

    def _allocate_tables(self) -> int:
        port = self.port
        self.contexts = port.kcalloc(self.max_vectors, SIZEOF_CONTEXT)
        if not self.contexts:
            return -ENOMEM
        self.triggers = [0] * self.max_vectors
        for vector in range(self.max_vectors):
            name = port.kasprintf(f"uio_msi[{vector}](0000:00:04.0)")
            if not name:
                self._free_tables()
                return -ENOMEM
            self.names.append(name)
        return 0

    def _free_tables(self) -> None:
        for name in reversed(self.names):
            self.port.kfree(name)
        self.names = []
        self.port.kfree(self.contexts)
        self.contexts = 0

    def _bars(self) -> list[tuple[int, int, int, int]]:
        """Index, flags, start and size of the BARs that are there."""
        port = self.port
        bars = []
        for bar in range(k.PCI_BARS):
            flags = port.pci_resource_flags(bar)
            if flags:
                start, size = port.pci_resource_start(bar), port.pci_resource_len(bar)
                if start and size:
                    bars.append((bar, flags, start, size))
        return bars

    def _maps(self, bars: list[tuple[int, int, int, int]]) -> MAPS_TYPE:
        """Memory BARs in pages; those with the MSI-X table stay private."""
        memory = [
            (bar, start & -PAGE_SIZE, start - (start & -PAGE_SIZE), start + size + PAGE_SIZE - 1 & -PAGE_SIZE)
            for bar, flags, start, size in bars
            if flags & k.IORESOURCE_MEM
        ]
        table = self._table_bars()
        private = [(first, end) for bar, first, _, end in memory if bar in table]
        maps: list[tuple[str, int, int, int, int]] = []
        for bar, first, offs, end in memory:
            if len(maps) < MAX_UIO_MAPS and not any(first < stop and begin < end for begin, stop in private):
                maps.append((f"BAR{bar}", first, offs, end - first, k.UIO_MEM_PHYS))
        return tuple(maps)

    def _table_bars(self) -> set[int]:
        """BARs in which the MSI-X table and the pending bits lie."""
        port = self.port
        cap = port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        if not cap:
            return set()
        registers = (k.PCI_MSIX_TABLE, k.PCI_MSIX_PBA)
        return {port.pci_read_config(cap + register, 4) & k.PCI_MSIX_BIR for register in registers}

    def _ports(self, bars: list[tuple[int, int, int, int]]) -> PORTS_TYPE:
        """Port BARs as they are."""
        ports = [
            (f"BAR{bar}", start, size, k.UIO_PORT_X86) for bar, flags, start, size in bars if flags & k.IORESOURCE_IO
        ]
        return tuple(ports[:MAX_UIO_PORT_REGIONS])

    def remove(self) -> None:
        """Unbind: the core will not call release any more, so whatever is mapped goes now."""
        port = self.port
        port.mutex_lock(STATE_MUTEX)
        if self.open_count:
            self._shut_down()
        self.bound = False
        port.mutex_unlock(STATE_MUTEX)
        port.uio_unregister_device()
        if not self.msix:
            self._set_intx_mask(self.was_masked)
        self._free_tables()
        port.pci_set_drvdata(0)
        port.pci_release_regions()
        port.pci_disable_device()
        port.kfree(self.device)
        self._forget()

    # -- open and release

    def open(self) -> int:
        """The first open turns the device on."""
        port = self.port
        if not port.capable(k.CAP_SYS_RAWIO):
            return -EPERM
        port.mutex_lock(STATE_MUTEX)
        err = -ENODEV
        if self.bound:
            err = self._switch_on() if self.open_count == 0 else 0
            if not err:
                self.open_count += 1
        port.mutex_unlock(STATE_MUTEX)
        return err

    def _switch_on(self) -> int:
        port = self.port
        port.pci_set_master()
        if self.msix:
            count = port.pci_enable_msix(tuple(range(self.max_vectors)))
            if count:
                port.pci_clear_master()
                return count if count < 0 else -ENOSPC
            self.irqs = [port.pci_irq_vector(vector) for vector in range(self.max_vectors)]
        else:
            # Nobody serves the shared line until the first set.
            port.pci_intx(0)
            self.irqs = [self.irq]
        return 0

    def release(self) -> int:
        """The last release turns the device off."""
        port = self.port
        port.mutex_lock(STATE_MUTEX)
        if self.bound:
            self.open_count -= 1
            if not self.open_count:
                self._shut_down()
        port.mutex_unlock(STATE_MUTEX)
        return 0

    def _shut_down(self) -> None:
        """Unmap every vector, then switch MSI-X and bus mastering off."""
        for vector in range(self.max_vectors):
            if self.triggers[vector]:
                self._detach(vector)
        if self.msix:
            self.port.pci_disable_msix()
        self.irqs = []
        self.open_count = 0
        self.port.pci_clear_master()

    # -- the ioctl

    def ioctl(self, cmd: int, arg: int) -> int:
        """UIO_MSI_IRQ_SET."""
        if cmd != UIO_MSI_IRQ_SET:
            return -ENOTTY
        port = self.port
        data = port.copy_from_user(arg, 8)
        if len(data) < 8:
            return -EFAULT
        vector, fd = struct.unpack("=Ii", data)
        port.mutex_lock(STATE_MUTEX)
        err = self._set(vector, fd) if self.bound else -ENODEV
        port.mutex_unlock(STATE_MUTEX)
        return err

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        """The layout is the same for 32-bit callers."""
        return self.ioctl(cmd, arg)

    def _set(self, vector: int, fd: int) -> int:
        if vector >= self.max_vectors:
            self.port.dev_err_ratelimited(f"no vector {vector}")
            return -ERANGE
        if fd < 0:
            if self.triggers[vector]:
                self._detach(vector)
            return 0
        if not self.irqs:
            return -EIO
        trigger = self.port.eventfd_ctx_fdget(fd)
        if trigger < 0:
            return trigger
        return self._attach_msix(vector, trigger) if self.msix else self._attach_intx(trigger)

    def _attach_msix(self, vector: int, trigger: int) -> int:
        """Take the old handler away, install the new one; put the old one back when that is refused."""
        port = self.port
        irq, old = self.irqs[vector], self.triggers[vector]
        dev_id = self.contexts + vector * SIZEOF_CONTEXT
        if old:
            port.free_irq(irq, dev_id)
        # A reset may have cleared the table, and the handler may run before request_irq returns.
        port.pci_write_msi_msg(irq)
        self.triggers[vector] = trigger
        err = port.request_irq(irq, 0, self.names[vector], dev_id)
        if not err:
            if old:
                port.eventfd_ctx_put(old)
            return 0
        port.eventfd_ctx_put(trigger)
        self.triggers[vector] = old
        if old and port.request_irq(irq, 0, self.names[vector], dev_id):
            self.triggers[vector] = 0
            port.eventfd_ctx_put(old)
        return err

    def _attach_intx(self, trigger: int) -> int:
        """Swap the eventfd under the handler, or install it; then unmask."""
        port = self.port
        old = self.triggers[0]
        self.triggers[0] = trigger
        if old:
            port.synchronize_irq(self.irq)
            port.eventfd_ctx_put(old)
        # Before request_irq, inside which a level that is up already signals.
        port.pci_intx(1)
        err = 0 if old else port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if err:
            port.pci_intx(0)
            self.triggers[0] = 0
            port.eventfd_ctx_put(trigger)
        return err

    def _detach(self, vector: int) -> None:
        port = self.port
        if not self.msix:
            # From here on nobody serves the line.
            port.pci_intx(0)
        port.free_irq(self.irqs[vector], self.contexts + vector * SIZEOF_CONTEXT)
        port.eventfd_ctx_put(self.triggers[vector])
        self.triggers[vector] = 0

    # -- interrupts

    def irqcontrol(self, on: int) -> int:
        """Unmask or mask INTx."""
        port = self.port
        port.mutex_lock(STATE_MUTEX)
        err = -ENODEV
        if self.bound and self.open_count:
            if not self.msix and self.triggers[0]:
                port.pci_intx(1 if on else 0)
            err = 0
        port.mutex_unlock(STATE_MUTEX)
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        """Signal the eventfd of the vector whose context `dev_id` is."""
        port = self.port
        if self.msix:
            port.eventfd_signal(self.triggers[(dev_id - self.contexts) // SIZEOF_CONTEXT])
            return IRQ_HANDLED
        command = port.pci_read_config(k.PCI_COMMAND, 2)
        if command & k.PCI_COMMAND_INTX_DISABLE or not port.pci_check_and_mask_intx():
            return IRQ_NONE
        port.eventfd_signal(self.triggers[0])
        return IRQ_HANDLED

    def _set_intx_mask(self, masked: bool) -> None:
        self.port.pci_intx(0 if masked else 1)
