"""Drivers that keep the action of a wired vector and swap the eventfd under it.

A failed probe is undone with a stack; BARs that hold the MSI-X table or the pending bits are left out; the function
does DMA only while it is open.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import PAGE_SIZE

LOCK = 0x10
"""Address of the static mutex."""
SLOT = 16
"""Bytes of one vector's slot; its address is the vector's dev_id."""


class SwappingDriver:
    """One device; `ctx[v]` is what vector v signals, whether or not its action was installed long ago."""

    profile = "upstream"
    capabilities = frozenset({"intx"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.undo: list[Callable[[], None]] = []
        self.ctx: list[int] = []
        self.names: list[int] = []
        self.slots = 0
        self.opens = 0
        self.is_msix = False
        self.line = 0
        self.irqs: list[int] = []
        self.command = 0

    # -- life

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Acquire one thing after the other; whatever fails undoes the ones before."""
        if hdr_type & 0x7F == k.PCI_HEADER_TYPE_BRIDGE:
            return -k.ENODEV
        self.undo, self.opens, self.irqs = [], 0, []
        error = self._acquire(irq)
        if error:
            self._unwind()
        return error

    def _acquire(self, irq: int) -> int:
        port = self.port
        if error := port.pci_enable_device():
            return int(error)
        self.undo.append(port.pci_disable_device)
        if error := port.pci_request_regions("swapping"):
            return int(error)
        self.undo.append(port.pci_release_regions)
        self.command = port.pci_read_config(k.PCI_COMMAND, 2)
        size = port.pci_msix_vec_count()
        self.is_msix, self.line = size > 0, irq
        if not self.is_msix and not (irq and port.pci_intx_mask_supported()):
            return -k.ENODEV
        vectors = min(size, k.MAX_MSIX_VECTORS) if self.is_msix else 1
        self.slots = port.kcalloc(vectors, SLOT)
        if not self.slots:
            return -k.ENOMEM
        self.undo.append(lambda: port.kfree(self.slots))
        self.ctx, self.names = [0] * vectors, [0] * vectors
        port.pci_set_drvdata(self.slots)
        self.undo.append(lambda: port.pci_set_drvdata(0))
        mem, ports = self._maps()
        if error := port.uio_register_device("swapping", "1", k.UIO_IRQ_CUSTOM, False, mem, ports):
            return int(error)
        self.undo.append(port.uio_unregister_device)
        return 0

    def _unwind(self) -> None:
        while self.undo:
            self.undo.pop()()

    def _maps(self) -> tuple[MAPS_TYPE, PORTS_TYPE]:
        """BARs for user space: whole pages, and none with the MSI-X table or the pending bits."""
        port = self.port
        kept_back = self._msix_bars() if self.is_msix else set()
        mem: list[tuple[str, int, int, int, int]] = []
        ports: list[tuple[str, int, int, int]] = []
        for bar in range(k.PCI_BARS):
            start, length = port.pci_resource_start(bar), port.pci_resource_len(bar)
            if not start or not length:
                continue
            flags = port.pci_resource_flags(bar)
            if flags & k.IORESOURCE_MEM and bar not in kept_back and len(mem) < k.MAX_UIO_MAPS:
                offset = start % PAGE_SIZE
                size = -(-(offset + length) // PAGE_SIZE) * PAGE_SIZE
                mem.append((f"BAR{bar}", start - offset, offset, size, k.UIO_MEM_PHYS))
            elif flags & k.IORESOURCE_IO and len(ports) < k.MAX_UIO_PORT_REGIONS:
                ports.append((f"BAR{bar}", start, length, k.UIO_PORT_X86))
        return tuple(mem), tuple(ports)

    def _msix_bars(self) -> set[int]:
        at = self.port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        words = (self.port.pci_read_config(at + where, 4) for where in (k.PCI_MSIX_TABLE, k.PCI_MSIX_PBA))
        return {word & k.PCI_MSIX_BIR for word in words}

    def remove(self) -> None:
        """No callback runs once unregistered; then all goes back, open handles or not."""
        self.undo.pop()()
        if self.opens:
            self._shut()
        if not self.is_msix:
            self._restore_command()
        self._unwind()

    def _restore_command(self) -> None:
        self.port.pci_intx(0 if self.command & k.PCI_COMMAND_INTX_DISABLE else 1)

    # -- handles

    def open(self) -> int:
        """The first one switches DMA and MSI-X on."""
        self.port.mutex_lock(LOCK)
        error = 0
        if self.opens == 0:
            error = self._start()
        if not error:
            self.opens += 1
        self.port.mutex_unlock(LOCK)
        return error

    def _start(self) -> int:
        port = self.port
        if not self.is_msix:
            port.pci_intx(0)
            port.pci_set_master()
            self.irqs = [self.line]
            return 0
        vectors = len(self.ctx)
        got = port.pci_alloc_irq_vectors(vectors, vectors)
        if got < 0:
            return int(got)
        port.pci_set_master()
        self.irqs = [port.pci_irq_vector(v) for v in range(vectors)]
        return 0

    def release(self) -> int:
        """The last one undoes it all."""
        self.port.mutex_lock(LOCK)
        self.opens -= 1
        if self.opens == 0:
            self._shut()
        self.port.mutex_unlock(LOCK)
        return 0

    def _shut(self) -> None:
        for vector in range(len(self.ctx)):
            self._unwire(vector)
        if self.is_msix:
            self.port.pci_free_irq_vectors()
        self.port.pci_clear_master()
        self.irqs = []
        self.opens = 0

    # -- vectors

    def ioctl(self, cmd: int, arg: int) -> int:
        """UIO_MSI_IRQ_SET and nothing else."""
        if cmd & k.COMMAND_MASK != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        data = self.port.copy_from_user(arg, k.IRQ_SET_SIZE)
        if len(data) != k.IRQ_SET_SIZE:
            return -k.EFAULT
        vector, fd = struct.unpack("=Ii", data)
        self.port.mutex_lock(LOCK)
        result = self._set(vector, fd)
        self.port.mutex_unlock(LOCK)
        return result

    def _set(self, vector: int, fd: int) -> int:
        if vector >= len(self.ctx):
            return -k.ERANGE
        if fd < 0:
            self._unwire(vector)
            return 0
        ctx = self.port.eventfd_ctx_fdget(fd)
        if ctx < 0:
            return int(ctx)
        error = self._swap(vector, ctx) if self.ctx[vector] else self._wire(vector, ctx)
        if not error and not self.is_msix:
            self.port.pci_intx(1)
        return error

    def _swap(self, vector: int, ctx: int) -> int:
        old, self.ctx[vector] = self.ctx[vector], ctx
        self.port.synchronize_irq(self.irqs[vector])
        self.port.eventfd_ctx_put(old)
        return 0

    def _wire(self, vector: int, ctx: int) -> int:
        port = self.port
        name = port.kasprintf(f"swapping[{vector}]")
        error = 0 if name else -k.ENOMEM
        if not error:
            if self.is_msix:
                port.pci_write_msi_msg(self.irqs[vector])
            self.ctx[vector], self.names[vector] = ctx, name
            flags = 0 if self.is_msix else k.IRQF_SHARED
            error = port.request_irq(self.irqs[vector], flags, name, self._dev_id(vector))
        if error:
            self.ctx[vector] = self.names[vector] = 0
            port.kfree(name)
            port.eventfd_ctx_put(ctx)
        return int(error)

    def _unwire(self, vector: int) -> None:
        ctx = self.ctx[vector]
        if not ctx:
            return
        if not self.is_msix:
            self.port.pci_intx(0)
        self.port.free_irq(self.irqs[vector], self._dev_id(vector))
        self.ctx[vector] = 0
        self.port.eventfd_ctx_put(ctx)
        self.port.kfree(self.names[vector])
        self.names[vector] = 0

    def _dev_id(self, vector: int) -> int:
        return self.slots + SLOT * vector

    def handler(self, irq: int, dev_id: int) -> int:
        """Signal; on a shared line, only for what is ours and not masked yet."""
        vector = (dev_id - self.slots) // SLOT
        if not self.is_msix:
            if self.port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE:
                return k.IRQ_NONE
            if not self.port.pci_check_and_mask_intx():
                return k.IRQ_NONE
        self.port.eventfd_signal(self.ctx[vector])
        return k.IRQ_HANDLED


class AllocatesBeforeLookUp(SwappingDriver):
    """Allocates what a set needs before it knows whether the fd is any good, as VFIO does."""

    def _set(self, vector: int, fd: int) -> int:
        if vector >= len(self.ctx) or fd < 0:
            return super()._set(vector, fd)
        scratch = self.port.kcalloc(1, SLOT)
        if not scratch:
            return -k.ENOMEM
        result = super()._set(vector, fd)
        self.port.kfree(scratch)
        return result


class AllocatesBeforeCopy(SwappingDriver):
    """Copies the argument into memory that it allocates first, as memdup_user does."""

    def ioctl(self, cmd: int, arg: int) -> int:
        """The command alone is looked at without memory."""
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        buffer = self.port.kzalloc(k.IRQ_SET_SIZE)
        if not buffer:
            return -k.ENOMEM
        result = super().ioctl(cmd, arg)
        self.port.kfree(buffer)
        return result
