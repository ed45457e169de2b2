"""Drivers that keep everything in the device."""

from __future__ import annotations

import struct
from typing import Any

from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import PAGE_SIZE

SLOT = 16
"""Bytes of one vector's slot; its address is the vector's dev_id."""


class SelfContainedDriver:
    """Keeps everything in the device, for the 6.x core alone.

    The slots are allocated at the first open, for as many vectors as can be had; a spinlock in each
    guards the eventfd against the handler; eventfds are looked up before the mutex is taken. INTx
    has a masked flag, and where its level is still up, unmasking signals in the handler's stead, as
    in VFIO. Of the BARs with the MSI-X table or the pending bits, the other pages are exported.
    """

    profile = "upstream"
    capabilities = frozenset({"intx", "irqcontrol", "compat"})
    out_of_range = -k.ERANGE

    def __init__(self, port: Any) -> None:
        self.port = port
        self.device = 0
        self.size = 0
        self.line = 0
        self.opens = 0
        self.is_msix = False
        self.found = 0
        self.table = 0
        self.irqs: list[int] = []
        self.ctx: list[int] = []

    # -- life

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Look at the function before it is enabled; undo step by step."""
        port = self.port
        if hdr_type == k.PCI_HEADER_TYPE_BRIDGE:
            return -k.ENODEV
        device = port.kzalloc(0x800)
        if not device:
            return -k.ENOMEM
        self.__init__(port)  # type: ignore[misc]  # as new
        self.device, self.line, self.size = device, irq, port.pci_msix_vec_count()
        port.mutex_init(self.mutex)
        mem, ports = self._regions()
        error = port.pci_enable_device()
        if not error:
            error = port.pci_request_regions("contained")
            if not error:
                error = self._choose_mode()
                if not error:
                    port.pci_set_drvdata(device)
                    error = port.uio_register_device("contained", "9", k.UIO_IRQ_CUSTOM, True, mem, ports)
                    if not error:
                        return 0
                    port.pci_set_drvdata(0)
                port.pci_release_regions()
            port.pci_disable_device()
        port.kfree(device)
        return int(error)

    @property
    def mutex(self) -> int:
        """Address of the device's mutex."""
        return self.device + 0x10

    def _choose_mode(self) -> int:
        port = self.port
        self.found = port.pci_read_config(k.PCI_COMMAND + 1, 1) & 4
        if self.size > 0:
            entries = tuple(range(min(self.size, k.MAX_MSIX_VECTORS)))
            self.is_msix = port.pci_enable_msix_range(entries, 1, len(entries)) > 0
            port.pci_disable_msix()
        has_line = self.line not in (0, k.IRQ_NOTCONNECTED) and port.pci_intx_mask_supported()
        return 0 if self.is_msix or has_line else -k.ENODEV

    def _regions(self) -> tuple[MAPS_TYPE, PORTS_TYPE]:
        """From the last BAR to the first; a memory BAR without its secret pages."""
        port = self.port
        secret = sorted(self._secret()) if self.size > 0 else []
        mem: list[tuple[str, int, int, int, int]] = []
        ports: list[tuple[str, int, int, int]] = []
        for bar in reversed(range(k.PCI_BARS)):
            flags, start, size = (
                port.pci_resource_flags(bar),
                port.pci_resource_start(bar),
                port.pci_resource_len(bar),
            )
            if not start or not size:
                continue
            if flags & k.IORESOURCE_IO:
                ports.insert(0, (f"BAR{bar}", start, size, k.UIO_PORT_X86))
                continue
            at, end = start // PAGE_SIZE * PAGE_SIZE, _page_end(start + size)
            pieces = []
            for first, after in secret:
                if at < first < end:
                    pieces.append((at, first))
                at = max(at, after) if first < end else at
            if at < end:
                pieces.append((at, end))
            mem[:0] = [
                (f"BAR{bar}", first, max(start - first, 0), after - first, k.UIO_MEM_PHYS) for first, after in pieces
            ]
        return tuple(mem[: k.MAX_UIO_MAPS]), tuple(ports[: k.MAX_UIO_PORT_REGIONS])

    def _secret(self) -> list[tuple[int, int]]:
        """Pages of the MSI-X table and of the pending bits, as the capability says."""
        port = self.port
        at = port.pci_read_config(k.PCI_CAPABILITY_LIST, 1)
        while port.pci_read_config(at, 1) != k.PCI_CAP_ID_MSIX:
            at = port.pci_read_config(at + 1, 1)
        vectors = (port.pci_read_config(at + k.PCI_MSIX_FLAGS, 2) & k.PCI_MSIX_FLAGS_QSIZE) + 1
        pages = []
        for register, size in ((k.PCI_MSIX_TABLE, 16 * vectors), (k.PCI_MSIX_PBA, 8 * -(-vectors // 64))):
            word = port.pci_read_config(at + register, 4)
            start = port.pci_resource_start(word & k.PCI_MSIX_BIR) + (word & k.PCI_MSIX_OFFSET)
            pages.append((start // PAGE_SIZE * PAGE_SIZE, _page_end(start + size)))
        return pages

    def remove(self) -> None:
        """No callback runs once unregistered; the disable bit goes back as it was."""
        port = self.port
        port.uio_unregister_device()
        if self.opens:
            self._stop()
        if not self.is_msix:
            port.pci_cfg_access_lock()
            command = port.pci_read_config(k.PCI_COMMAND + 1, 1)
            port.pci_write_config(k.PCI_COMMAND + 1, 1, command & ~4 | self.found)
            port.pci_cfg_access_unlock()
        port.pci_set_drvdata(0)
        port.pci_release_regions()
        port.pci_disable_device()
        port.kfree(self.device)

    # -- handles

    def open(self) -> int:
        """Whoever may, and the first one starts the device."""
        self.port.mutex_lock(self.mutex)
        error = 0 if self.port.capable(k.CAP_SYS_RAWIO) else -k.EPERM
        if not error and not self.opens:
            error = self._start()
        self.opens += not error
        self.port.mutex_unlock(self.mutex)
        return error

    def _start(self) -> int:
        port = self.port
        most = min(self.size, k.MAX_MSIX_VECTORS) if self.is_msix else 1
        table = port.kcalloc(most, 2 * SLOT)
        if not table:
            return -k.ENOMEM
        irqs = [self.line]
        if self.is_msix:
            got = port.pci_enable_msix_range(tuple(range(most)), 1, most)
            if got < 0:
                port.kfree(table)
                return int(got)
            irqs = [port.pci_irq_vector(vector) for vector in range(got)]
        else:
            port.pci_intx(0)
        port.pci_set_master()
        self.table, self.irqs, self.ctx = table, irqs, [0] * len(irqs)
        return 0

    def _stop(self) -> None:
        port = self.port
        port.pci_clear_master()
        for vector in reversed(range(len(self.ctx))):
            if self.ctx[vector]:
                self._detach(vector)
        if self.is_msix:
            port.pci_disable_msix()
        port.kfree(self.table)
        self.table, self.irqs, self.ctx, self.opens = 0, [], [], 0

    def release(self) -> int:
        """The last one stops it."""
        self.port.mutex_lock(self.mutex)
        if self.opens == 1:
            self._stop()
        else:
            self.opens -= 1
        self.port.mutex_unlock(self.mutex)
        return 0

    # -- vectors

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        """As compat_ptr does it."""
        return self.ioctl(cmd, arg & 0xFFFF_FFFF)

    def ioctl(self, cmd: int, arg: int) -> int:
        """What can be checked without the mutex is checked before it is taken."""
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        data = self.port.copy_from_user(arg, k.IRQ_SET_SIZE)
        if len(data) != k.IRQ_SET_SIZE:
            return -k.EFAULT
        vector, fd = struct.unpack("=Ii", data)
        if vector >= len(self.ctx):
            return self.out_of_range
        return self._set(vector, fd)

    def _set(self, vector: int, fd: int) -> int:
        ctx = self.port.eventfd_ctx_fdget(fd) if fd >= 0 else 0
        if ctx < 0:
            return int(ctx)
        self.port.mutex_lock(self.mutex)
        error = 0
        if ctx:
            error = self._replace(vector, ctx) if self.ctx[vector] else self._attach(vector, ctx)
        elif self.ctx[vector]:
            self._detach(vector)
        self.port.mutex_unlock(self.mutex)
        return error

    def _dev_id(self, vector: int) -> int:
        return self.table + 2 * SLOT * vector

    def _lock(self, vector: int) -> None:
        self.port.spin_lock_irqsave(self._dev_id(vector) + 8)

    def _unlock(self, vector: int) -> None:
        self.port.spin_unlock_irqrestore(self._dev_id(vector) + 8)

    def _store(self, vector: int, ctx: int) -> None:
        """The handler signals under the lock: once this returns it has done with the old one."""
        self._lock(vector)
        self.ctx[vector] = ctx
        self._unlock(vector)

    def _replace(self, vector: int, ctx: int) -> int:
        old = self.ctx[vector]
        if old != ctx:
            self._store(vector, ctx)
        self.port.eventfd_ctx_put(old)
        if not self.is_msix:
            self._unmask()
        return 0

    def _attach(self, vector: int, ctx: int) -> int:
        port, irq = self.port, self.irqs[vector]
        self.ctx[vector] = ctx
        if self.is_msix:
            port.pci_write_msi_msg(irq)
        else:
            self._mask()
        error = port.request_irq(irq, 0 if self.is_msix else k.IRQF_SHARED, 0, self._dev_id(vector))
        if error:
            self.ctx[vector] = 0
            port.eventfd_ctx_put(ctx)
        elif not self.is_msix:
            self._unmask()
        return int(error)

    def _detach(self, vector: int) -> None:
        """An event of MSI-X must find an eventfd until the vector is masked; the level of INTx stays."""
        ctx = self.ctx[vector]
        if not self.is_msix:
            self._store(vector, 0)
            self._mask()
        self.port.free_irq(self.irqs[vector], self._dev_id(vector))
        self.ctx[vector] = 0
        self.port.eventfd_ctx_put(ctx)

    # -- INTx

    def _mask(self) -> None:
        """Whatever was the case: user space may have written the disable bit meanwhile."""
        self._lock(0)
        self.port.pci_intx(0)
        self._unlock(0)

    def _is_masked(self) -> bool:
        return bool(self.port.pci_read_config(k.PCI_COMMAND + 1, 1) & 4)

    def _unmask(self) -> None:
        """Where the level is still up, stay masked and signal at once."""
        self._lock(0)
        if self._is_masked() and self.ctx[0] and not self.port.pci_check_and_unmask_intx():
            self.port.eventfd_signal(self.ctx[0])
        self._unlock(0)

    def irqcontrol(self, on: int) -> int:
        """Of INTx alone."""
        if self.is_msix:
            return -k.EINVAL
        self.port.mutex_lock(self.mutex)
        if on:
            self._unmask()
        else:
            self._mask()
        self.port.mutex_unlock(self.mutex)
        return 0

    def handler(self, irq: int, dev_id: int) -> int:
        """Signal under the slot's lock, if there is still somebody to tell."""
        vector = (dev_id - self.table) // (2 * SLOT)
        self._lock(vector)
        is_ours = self.is_msix
        if not is_ours and not self._is_masked():
            is_ours = bool(self.port.pci_check_and_mask_intx())
        if is_ours and self.ctx[vector]:
            self.port.eventfd_signal(self.ctx[vector])
        self._unlock(vector)
        return k.IRQ_HANDLED if is_ours else k.IRQ_NONE


def _page_end(address: int) -> int:
    return -(-address // PAGE_SIZE) * PAGE_SIZE


class BlockDriver(SelfContainedDriver):
    """The same with VFIO's choices: the old handler goes first, whatever becomes of the new one."""

    profile = "vfio-like"
    out_of_range = -k.EINVAL

    def _set(self, vector: int, fd: int) -> int:
        self.port.mutex_lock(self.mutex)
        if self.ctx[vector] and (self.is_msix or fd < 0):
            self._detach(vector)
        error = self._name_and_look_up(vector, fd) if fd >= 0 else 0
        self.port.mutex_unlock(self.mutex)
        return error

    def _name_and_look_up(self, vector: int, fd: int) -> int:
        port, old = self.port, self.ctx[vector]
        name = port.kasprintf(f"block[{vector}]")
        port.kfree(name)
        ctx = port.eventfd_ctx_fdget(fd) if name else -k.ENOMEM
        if ctx >= 0 and not old:
            return self._attach(vector, ctx)
        if ctx < 0:
            if old:
                self._detach(vector)
            return int(ctx)
        self._store(vector, ctx)
        port.synchronize_irq(self.irqs[vector])
        port.eventfd_ctx_put(old)
        return 0
