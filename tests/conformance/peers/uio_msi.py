"""Correct uio_msi drivers that are built in another way than the shipped one.

The first keeps the action of a wired vector and swaps the eventfd under it, undoes a failed probe
with a stack, leaves out the BARs that hold the MSI-X table or the pending bits, and lets the
function do DMA only while it is open. The others allocate where it does not. The suite must
accuse none of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from specs import uio_msi as spec

LOCK = 0x10
"""Address of the static mutex."""
SLOT = 16
"""Bytes of one vector's slot; its address is the vector's dev_id."""
PAGE = 0x1000


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
        if hdr_type & 0x7F == spec.PCI_HEADER_TYPE_BRIDGE:
            return -spec.ENODEV
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
        self.command = port.pci_read_config(spec.PCI_COMMAND, 2)
        size = port.pci_msix_vec_count()
        self.is_msix, self.line = size > 0, irq
        if not self.is_msix and not (irq and port.pci_intx_mask_supported()):
            return -spec.ENODEV
        vectors = min(size, spec.MAX_MSIX_VECTORS) if self.is_msix else 1
        self.slots = port.kcalloc(vectors, SLOT)
        if not self.slots:
            return -spec.ENOMEM
        self.undo.append(lambda: port.kfree(self.slots))
        self.ctx, self.names = [0] * vectors, [0] * vectors
        port.pci_set_drvdata(self.slots)
        self.undo.append(lambda: port.pci_set_drvdata(0))
        mem, ports = self._maps()
        if error := port.uio_register_device("swapping", "1", spec.UIO_IRQ_CUSTOM, False, mem, ports):
            return int(error)
        self.undo.append(port.uio_unregister_device)
        return 0

    def _unwind(self) -> None:
        while self.undo:
            self.undo.pop()()

    def _maps(self) -> tuple[spec.MAPS_TYPE, spec.PORTS_TYPE]:
        """BARs for user space: whole pages, and none with the MSI-X table or the pending bits."""
        port = self.port
        kept_back = self._msix_bars() if self.is_msix else set()
        mem: list[tuple[str, int, int, int, int]] = []
        ports: list[tuple[str, int, int, int]] = []
        for bar in range(spec.PCI_BARS):
            start, length = port.pci_resource_start(bar), port.pci_resource_len(bar)
            if not start or not length:
                continue
            flags = port.pci_resource_flags(bar)
            if flags & spec.IORESOURCE_MEM and bar not in kept_back and len(mem) < spec.MAX_UIO_MAPS:
                offset = start % PAGE
                size = -(-(offset + length) // PAGE) * PAGE
                mem.append((f"BAR{bar}", start - offset, offset, size, spec.UIO_MEM_PHYS))
            elif flags & spec.IORESOURCE_IO and len(ports) < spec.MAX_UIO_PORT_REGIONS:
                ports.append((f"BAR{bar}", start, length, spec.UIO_PORT_X86))
        return tuple(mem), tuple(ports)

    def _msix_bars(self) -> set[int]:
        at = self.port.pci_find_capability(spec.PCI_CAP_ID_MSIX)
        words = (self.port.pci_read_config(at + where, 4) for where in (spec.PCI_MSIX_TABLE, spec.PCI_MSIX_PBA))
        return {word & spec.PCI_MSIX_BIR for word in words}

    def remove(self) -> None:
        """No callback runs once unregistered; then all goes back, open handles or not."""
        self.undo.pop()()
        if self.opens:
            self._shut()
        if not self.is_msix:
            self._restore_command()
        self._unwind()

    def _restore_command(self) -> None:
        self.port.pci_intx(0 if self.command & spec.PCI_COMMAND_INTX_DISABLE else 1)

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
        if cmd & spec.COMMAND_MASK != spec.UIO_MSI_IRQ_SET:
            return -spec.ENOTTY
        data = self.port.copy_from_user(arg, spec.IRQ_SET_SIZE)
        if len(data) != spec.IRQ_SET_SIZE:
            return -spec.EFAULT
        vector, fd = struct.unpack("=Ii", data)
        self.port.mutex_lock(LOCK)
        result = self._set(vector, fd)
        self.port.mutex_unlock(LOCK)
        return result

    def _set(self, vector: int, fd: int) -> int:
        if vector >= len(self.ctx):
            return -spec.ERANGE
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
        error = 0 if name else -spec.ENOMEM
        if not error:
            if self.is_msix:
                port.pci_write_msi_msg(self.irqs[vector])
            self.ctx[vector], self.names[vector] = ctx, name
            flags = 0 if self.is_msix else spec.IRQF_SHARED
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
            if self.port.pci_read_config(spec.PCI_COMMAND, 2) & spec.PCI_COMMAND_INTX_DISABLE:
                return spec.IRQ_NONE
            if not self.port.pci_check_and_mask_intx():
                return spec.IRQ_NONE
        self.port.eventfd_signal(self.ctx[vector])
        return spec.IRQ_HANDLED


class AllocatesBeforeLookUp(SwappingDriver):
    """Allocates what a set needs before it knows whether the fd is any good, as VFIO does."""

    def _set(self, vector: int, fd: int) -> int:
        if vector >= len(self.ctx) or fd < 0:
            return super()._set(vector, fd)
        scratch = self.port.kcalloc(1, SLOT)
        if not scratch:
            return -spec.ENOMEM
        result = super()._set(vector, fd)
        self.port.kfree(scratch)
        return result


class AllocatesBeforeCopy(SwappingDriver):
    """Copies the argument into memory that it allocates first, as memdup_user does."""

    def ioctl(self, cmd: int, arg: int) -> int:
        """The command alone is looked at without memory."""
        if cmd != spec.UIO_MSI_IRQ_SET:
            return -spec.ENOTTY
        buffer = self.port.kzalloc(spec.IRQ_SET_SIZE)
        if not buffer:
            return -spec.ENOMEM
        result = super().ioctl(cmd, arg)
        self.port.kfree(buffer)
        return result
