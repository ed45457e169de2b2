"""Correct uio_msi drivers that are built in another way than the shipped one.

The first keeps the action of a wired vector and swaps the eventfd under it, undoes a failed probe
with a stack, leaves out the BARs that hold the MSI-X table or the pending bits, and lets the
function do DMA only while it is open. Others allocate where it does not, keep everything in the
device, or make the choices of VFIO and of the posted driver. The suite must accuse none of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE
from conformance.specs.uio_msi import constants as k

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
                offset = start % PAGE
                size = -(-(offset + length) // PAGE) * PAGE
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
        self.is_masked = False
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
        return 0 if self.is_msix or port.pci_intx_mask_supported() else -k.ENODEV

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
            at, end = start // PAGE * PAGE, _page_end(start + size)
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
            pages.append((start // PAGE * PAGE, _page_end(start + size)))
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
        self.port.free_irq(self.irqs[vector], self._dev_id(vector))
        self.ctx[vector] = 0
        self.port.eventfd_ctx_put(ctx)

    # -- INTx

    def _mask(self) -> None:
        """Whatever the flag says: user space may have written the disable bit meanwhile."""
        self._lock(0)
        self.port.pci_intx(0)
        self.is_masked = True
        self._unlock(0)

    def _unmask(self) -> None:
        """Where the level is still up, stay masked and signal at once."""
        self._lock(0)
        if self.is_masked:
            if self.port.pci_check_and_unmask_intx():
                self.is_masked = False
            elif self.ctx[0]:
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
        if not is_ours and not self.is_masked:
            is_ours = self.is_masked = bool(self.port.pci_check_and_mask_intx())
        if is_ours and self.ctx[vector]:
            self.port.eventfd_signal(self.ctx[vector])
        self._unlock(vector)
        return k.IRQ_HANDLED if is_ours else k.IRQ_NONE


def _page_end(address: int) -> int:
    return -(-address // PAGE) * PAGE


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


class MendedDriver:
    """What the driver of 2015 meant to do: its choices, with a mutex of the module and a stack that undoes."""

    profile = "as-posted"
    capabilities = frozenset({"intx", "compat", "core-4.1"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.undo: list[Callable[[], None]] = []
        self.is_bound = False
        self.is_msix = False
        self.line = 0
        self.opens = 0
        self.contexts = 0
        self.names: list[int] = []
        self.ctx: list[int] = []
        self.irqs: list[int] = []

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Bind anything that can interrupt."""
        self.__init__(self.port)  # type: ignore[misc]  # as new
        self.line = irq
        error = self._acquire()
        while error and self.undo:
            self.undo.pop()()
        return error

    def _acquire(self) -> int:
        port = self.port
        device = self._keep(port.kzalloc(0x400))
        if not device:
            return -k.ENOMEM
        if error := port.pci_enable_device():
            return int(error)
        self.undo.append(port.pci_disable_device)
        if error := port.pci_request_regions("uio_msi"):
            return int(error)
        self.undo.append(port.pci_release_regions)
        port.pci_set_master()
        mem, ports = self._map_bars()
        if mem is None:
            return -k.EINVAL
        if error := self._allocate():
            return error
        masked = port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE
        if not self.is_msix:
            self.undo.append(lambda: port.pci_intx(int(not masked)))
        port.pci_set_drvdata(device)
        self.undo.append(lambda: port.pci_set_drvdata(0))
        self.is_bound = True
        error = port.uio_register_device("uio_msi", "0.1.1", k.UIO_IRQ_CUSTOM, False, mem, ports)
        self.is_bound = not error
        return int(error)

    def _keep(self, token: int) -> int:
        if token:
            self.undo.append(lambda: self.port.kfree(token))
        return token

    def _map_bars(self) -> tuple[MAPS_TYPE | None, PORTS_TYPE]:
        """Every BAR whole, and mapped for the driver too; no maps where that fails."""
        port = self.port
        mem: list[tuple[str, int, int, int, int]] = []
        ports: list[tuple[str, int, int, int]] = []
        for bar in range(k.PCI_BARS):
            start, size = port.pci_resource_start(bar), port.pci_resource_len(bar)
            if not start or not size:
                continue
            if port.pci_resource_flags(bar) & k.IORESOURCE_MEM and len(mem) < k.MAX_UIO_MAPS:
                token = port.ioremap(start, size)
                if not token:
                    return None, ()
                self.undo.append(partial(port.iounmap, token))
                mem.append((f"BAR{bar}", start, 0, size, k.UIO_MEM_PHYS))
            elif port.pci_resource_flags(bar) & k.IORESOURCE_IO and len(ports) < k.MAX_UIO_PORT_REGIONS:
                ports.append((f"BAR{bar}", start, size, k.UIO_PORT_X86))
        return tuple(mem), tuple(ports)

    def _allocate(self) -> int:
        port = self.port
        size = port.pci_msix_vec_count()
        self.is_msix = size > 0
        if not self.is_msix and not port.pci_intx_mask_supported():
            return -k.EINVAL
        vectors = min(size, k.MAX_MSIX_VECTORS) if self.is_msix else 1
        self.contexts, self.ctx = self._keep(port.kcalloc(vectors, SLOT)), [0] * vectors
        if not self.contexts:
            return -k.ENOMEM
        for vector in range(vectors):
            self.names.append(self._keep(port.kasprintf(f"uio_msi[{vector}]")))
            if not self.names[vector]:
                return -k.ENOMEM
        return 0

    def remove(self) -> None:
        """Unregister, then undo; callbacks that come late find nothing."""
        self.port.uio_unregister_device()
        self.port.mutex_lock(LOCK)
        if self.opens:
            self._tear_down()
        self.is_bound = False
        self.port.mutex_unlock(LOCK)
        while self.undo:
            self.undo.pop()()

    def _tear_down(self) -> None:
        for vector in range(len(self.ctx)):
            self._unmap(vector)
        if self.is_msix:
            self.port.pci_disable_msix()
        self.irqs = []

    def _unmap(self, vector: int) -> None:
        if self.ctx[vector]:
            self.port.free_irq(self.irqs[vector], self.contexts + SLOT * vector)
            self.port.eventfd_ctx_put(self.ctx[vector])
            self.ctx[vector] = 0

    def open(self) -> int:
        """Enable, and count what worked."""
        self.port.mutex_lock(LOCK)
        error = -k.ENODEV
        if self.is_bound:
            error = 0 if self.opens else self._enable()
            self.opens += not error
        self.port.mutex_unlock(LOCK)
        return error

    def _enable(self) -> int:
        if not self.is_msix:
            self.irqs = [self.line]
            return 0
        error = self.port.pci_enable_msix(tuple(range(len(self.ctx))))
        if not error:
            self.irqs = [self.port.pci_irq_vector(vector) for vector in range(len(self.ctx))]
        return -k.ENOSPC if error > 0 else int(error)

    def release(self) -> int:
        """The last one tears down."""
        self.port.mutex_lock(LOCK)
        if self.is_bound:
            self.opens -= 1
            if not self.opens:
                self._tear_down()
        self.port.mutex_unlock(LOCK)
        return 0

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        """The same."""
        return self.ioctl(cmd, arg)

    def ioctl(self, cmd: int, arg: int) -> int:
        """UIO_MSI_IRQ_SET and nothing else."""
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.EOPNOTSUPP
        data = self.port.copy_from_user(arg, k.IRQ_SET_SIZE)
        if len(data) < k.IRQ_SET_SIZE:
            return -k.EFAULT
        self.port.mutex_lock(LOCK)
        error = self._set(*struct.unpack("=Ii", data)) if self.is_bound else -k.ENODEV
        self.port.mutex_unlock(LOCK)
        return error

    def _set(self, vector: int, fd: int) -> int:
        port = self.port
        if vector >= len(self.ctx):
            return -k.ERANGE
        if not self.irqs:
            return -k.EIO
        self._unmap(vector)
        ctx = port.eventfd_ctx_fdget(fd) if fd >= 0 else 0
        if ctx <= 0:
            return int(ctx)
        self.ctx[vector] = ctx
        flags = 0 if self.is_msix else k.IRQF_SHARED
        error = port.request_irq(self.irqs[vector], flags, self.names[vector], self.contexts + SLOT * vector)
        if error:
            self.ctx[vector] = 0
            port.eventfd_ctx_put(ctx)
        return int(error)

    def handler(self, irq: int, dev_id: int) -> int:
        """Only user space unmasks, so what is masked is left alone."""
        port = self.port
        if not self.is_msix:
            if port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE:
                return k.IRQ_NONE
            if not port.pci_check_and_mask_intx():
                return k.IRQ_NONE
        port.eventfd_signal(self.ctx[(dev_id - self.contexts) // SLOT])
        return k.IRQ_HANDLED
