"""A driver that keeps nothing while its device is closed: power, regions and memory are those of the opens."""

from __future__ import annotations

import struct
from typing import Any

from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import PAGE_SIZE

LOCK = 0x10
"""Address of the static mutex."""
SLOT = 32
"""Bytes of one vector's slot; its address is the vector's dev_id."""


class LazyDriver:
    """A set looks the eventfd up first, requests the irq up to twice, and puts the old mapping back when that fails."""

    profile = "upstream"
    capabilities = frozenset({"intx", "compat"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.line = 0
        self.vectors = 0
        """With MSI-X, else 0."""
        self.opens = 0
        self.slots = 0
        self.is_masked = False
        """As probe found INTx."""
        self.wired: dict[int, int] = {}

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Look what there is, and register it."""
        port = self.port
        if hdr_type:
            return -k.ENODEV
        self.line, self.opens = irq, 0
        if error := port.pci_enable_device():
            return int(error)
        self.vectors = max(0, min(port.pci_msix_vec_count(), k.MAX_MSIX_VECTORS))
        self.is_masked = bool(port.pci_read_config(k.PCI_COMMAND + 1, 1) & k.PCI_COMMAND_INTX_DISABLE >> 8)
        error = 0
        if not self.vectors and (irq in (0, k.IRQ_NOTCONNECTED) or not port.pci_intx_mask_supported()):
            error = -k.EINVAL
        error = error or port.uio_register_device("lazy", "1", k.UIO_IRQ_CUSTOM, False, *self._exports())
        if error:
            port.pci_disable_device()
        return int(error)

    def _exports(self) -> tuple[MAPS_TYPE, PORTS_TYPE]:
        port = self.port
        cap = port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        private = [
            port.pci_read_config(cap + at, 4) & k.PCI_MSIX_BIR for at in (k.PCI_MSIX_TABLE, k.PCI_MSIX_PBA) if cap
        ]
        mem, ports = [], []
        for bar in range(k.PCI_BARS):
            start, size = port.pci_resource_start(bar), port.pci_resource_len(bar)
            if not start or not size:
                continue
            if port.pci_resource_flags(bar) & k.IORESOURCE_IO:
                ports.append((f"BAR{bar}", start, size, k.UIO_PORT_X86))
            elif bar not in private:
                first = start & -PAGE_SIZE
                pages = start + size - first + PAGE_SIZE - 1 & -PAGE_SIZE
                mem.append((f"BAR{bar}", first, start - first, pages, k.UIO_MEM_PHYS))
        return tuple(mem[: k.MAX_UIO_MAPS]), tuple(ports[: k.MAX_UIO_PORT_REGIONS])

    def remove(self) -> None:
        """The device file goes first; then what a handle that is still open has."""
        port = self.port
        port.uio_unregister_device()
        if self.opens:
            self.opens = 0
            self._power_down()
        port.pci_intx(int(not self.is_masked))
        port.pci_disable_device()

    def open(self) -> int:
        """The first one acquires everything."""
        port = self.port
        if not port.capable(k.CAP_SYS_RAWIO):
            return -k.EPERM
        port.mutex_lock(LOCK)
        error = 0 if self.opens else self._power_up()
        self.opens += not error
        port.mutex_unlock(LOCK)
        return error

    def _power_up(self) -> int:
        port = self.port
        if error := port.pci_enable_device():
            return int(error)
        error = port.pci_request_regions("lazy")
        if not error:
            self.slots = port.kcalloc(max(self.vectors, 1), SLOT)
            error = self._enable() if self.slots else -k.ENOMEM
            if not error:
                port.pci_set_master()
                return 0
            port.kfree(self.slots)
            port.pci_release_regions()
        self._give_power_back()
        return int(error)

    def _give_power_back(self) -> None:
        self.port.pci_disable_device()

    def _enable(self) -> int:
        if not self.vectors:
            self.port.pci_intx(0)
            return 0
        return min(0, int(self.port.pci_enable_msix_range(tuple(range(self.vectors)), self.vectors, self.vectors)))

    def _power_down(self) -> None:
        """References are dropped in one go, when nothing interrupts any more."""
        port = self.port
        port.pci_clear_master()
        if not self.vectors:
            port.pci_intx(0)
        for vector in self.wired:
            port.free_irq(self._irq(vector), self.slots + SLOT * vector)
        wired, self.wired = self.wired, {}
        if self.vectors:
            port.pci_disable_msix()
        for trigger in wired.values():
            port.eventfd_ctx_put(trigger)
        port.kfree(self.slots)
        port.pci_release_regions()
        port.pci_disable_device()

    def release(self) -> int:
        """The last one gives everything back."""
        self.port.mutex_lock(LOCK)
        self.opens -= 1
        if not self.opens:
            self._power_down()
        self.port.mutex_unlock(LOCK)
        return 0

    def _irq(self, vector: int) -> int:
        return int(self.port.pci_irq_vector(vector)) if self.vectors else self.line

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        """The same."""
        return self.ioctl(cmd, arg)

    def ioctl(self, cmd: int, arg: int) -> int:
        """UIO_MSI_IRQ_SET and nothing else."""
        port = self.port
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        data = port.copy_from_user(arg, k.IRQ_SET_SIZE)
        if len(data) < k.IRQ_SET_SIZE:
            return -k.EFAULT
        vector, fd = struct.unpack("=Ii", data)
        if vector >= max(self.vectors, 1):
            return -k.ERANGE
        trigger = int(port.eventfd_ctx_fdget(fd)) if fd >= 0 else 0
        if trigger < 0:
            return trigger
        port.mutex_lock(LOCK)
        error, unused = self._replace(vector, trigger) if self.opens else (-k.ENODEV, trigger)
        port.mutex_unlock(LOCK)
        if unused:
            port.eventfd_ctx_put(unused)
        return error

    def _replace(self, vector: int, trigger: int) -> tuple[int, int]:
        """0 or an errno, and the reference that is needed no more."""
        old = self.wired.get(vector, 0)
        if not self.vectors:
            self.port.pci_intx(0)
        if old:
            self.port.free_irq(self._irq(vector), self.slots + SLOT * vector)
            del self.wired[vector]
        error = self._install(vector, trigger) if trigger else 0
        if not error:
            return 0, old
        if old and self._install(vector, old):
            self.port.eventfd_ctx_put(old)
        return error, trigger

    def _install(self, vector: int, trigger: int) -> int:
        """Two attempts; INTx is unmasked once the handler is there."""
        port, irq = self.port, self._irq(vector)
        self.wired[vector] = trigger
        for _ in range(2):
            if self.vectors:
                port.pci_write_msi_msg(irq)
            flags = 0 if self.vectors else k.IRQF_SHARED
            error = int(port.request_irq(irq, flags, 0, self.slots + SLOT * vector))
            if not error:
                if not self.vectors:
                    port.pci_intx(1)
                return 0
        del self.wired[vector]
        return error

    def handler(self, irq: int, dev_id: int) -> int:
        """Reading config space tells whether INTx is this function's; readers are woken as well."""
        port = self.port
        if not self.vectors:
            if port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE:
                return k.IRQ_NONE
            if not port.pci_check_and_mask_intx():
                return k.IRQ_NONE
        port.eventfd_signal(self.wired[(dev_id - self.slots) // SLOT])
        port.uio_event_notify()
        return k.IRQ_HANDLED
