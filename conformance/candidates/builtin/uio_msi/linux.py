"""The driver as the kernel's own pieces would make it: vfio_pci_intrs.c behind the callbacks of a UIO driver.

Interrupts follow drivers/vfio/pci/vfio_pci_intrs.c since 18c198c96a81: one context for each mapped MSI-X vector, whose
dev_id is the eventfd itself; for INTx one context and one action that stay, while the trigger is swapped. Binding and
maps follow drivers/uio/uio_pci_generic.c, opening and closing igb_uio, who may open VFIO's no-IOMMU mode.

It departs from them where a clause binds and they do not keep it, or where user space reaches config space, which VFIO
hides from it; each place says so.
"""

from __future__ import annotations

import struct
from typing import ClassVar

from conformance.specs.uio_msi import CAPABILITIES, Port
from conformance.specs.uio_msi import constants as k

PCI_HEADER_TYPE_CARDBUS = 2
VDEV_SIZE = 0x400
IGATE = 0x10
"""Offset of the mutex within the device's allocation."""
IRQLOCK = 0x40
"""Offset of the spinlock within the device's allocation."""
CTX_SIZE = 0x60
PAGE_MASK = -k.PAGE_SIZE

NONE, INTX, MSIX = range(3)
"""irq_type: what interrupts are set up."""

Range = tuple[int, int]
"""First bus address, and the one after the last."""


class IrqCtx:
    """struct vfio_pci_irq_ctx: who is signalled by one vector."""

    __slots__ = ("name", "token", "trigger")

    def __init__(self, token: int, name: int = 0, trigger: int = 0) -> None:
        self.token = token
        self.name = name
        self.trigger = trigger
        """An eventfd, or NULL while an INTx action tells nobody."""


class Vdev:
    """struct vfio_pci_core_device: what one binding remembers."""

    def __init__(self, token: int, irq: int) -> None:
        self.token = token
        self.irq = irq
        """pdev->irq."""
        self.refcnt = 0
        self.irq_type = NONE
        self.is_msix = False
        """Which interrupts an open sets up, decided by probe."""
        self.max_vectors = 1
        self.ctx: dict[int, IrqCtx] = {}
        self.found_command = 0
        """The command register as probe found it."""


class Linux:
    """A UIO driver whose interrupts are VFIO's. It relies on the 6.x core: no callback once it is unregistered."""

    profile = "vfio-like"
    capabilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES) - {"core-4.1"}

    UNKNOWN_COMMAND = -k.ENOTTY
    OUT_OF_RANGE = -k.EINVAL
    """vfio_set_irqs_validate_and_prepare."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.vdev = Vdev(0, 0)

    # -- binding: uio_pci_generic.c

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """As the port says. Nothing is mapped into the kernel and no region claimed, as in uio_pci_generic."""
        port = self.port
        if hdr_type & 0x7F in (k.PCI_HEADER_TYPE_BRIDGE, PCI_HEADER_TYPE_CARDBUS):
            port.dev_warn("ignoring PCI bridge")
            return -k.ENODEV
        token = port.kzalloc(VDEV_SIZE)
        if not token:
            return -k.ENOMEM
        # Of a VF, which has no pin, irq is 0.
        self.vdev = vdev = Vdev(token, irq)
        port.mutex_init(token + IGATE)
        err = port.pci_enable_device()
        if err:
            port.dev_err(f"pci_enable_device failed: {err}")
        else:
            err = self._probe_enabled(vdev)
            if err:
                port.pci_disable_device()
        if err:
            port.kfree(token)
        return err

    def _probe_enabled(self, vdev: Vdev) -> int:
        """The part of probe that talks to the function."""
        port = self.port
        vdev.found_command = port.pci_read_config(k.PCI_COMMAND, 2)
        err = self._choose_interrupts(vdev)
        if err:
            self._restore_intx(vdev)
            return err
        mem, ports = self._setup_bars()
        port.pci_set_drvdata(vdev.token)
        err = port.uio_register_device("uio_msi", "0.1.1", k.UIO_IRQ_CUSTOM, True, mem, ports)
        if err:
            port.pci_set_drvdata(0)
            self._restore_intx(vdev)
        return err

    def _choose_interrupts(self, vdev: Vdev) -> int:
        """MSI-X if it can be had at all, tried as igb_uio tries it; otherwise INTx."""
        port = self.port
        count = port.pci_msix_vec_count()
        err = -k.ENODEV
        if count > 0:
            err = port.pci_alloc_irq_vectors(1, 1)
            if err > 0:
                port.pci_free_irq_vectors()
                # Both turn the disable bit over.
                self._restore_intx(vdev)
                vdev.is_msix = True
                vdev.max_vectors = min(count, k.MAX_MSIX_VECTORS)
                return 0
        if vdev.irq in (0, k.IRQ_NOTCONNECTED):
            port.dev_warn("no IRQ assigned to device")
            return err
        return 0 if port.pci_intx_mask_supported() else err

    def _setup_bars(self) -> tuple[tuple[tuple[str, int, int, int, int], ...], tuple[tuple[str, int, int, int], ...]]:
        """mem[] and port[]; whole pages, as in uio_pci_generic, without the pages of VFIO's sparse mmap."""
        port = self.port
        guarded = self._msix_pages()
        mem: list[tuple[str, int, int, int, int]] = []
        ports: list[tuple[str, int, int, int]] = []
        for bar in range(k.PCI_BARS):
            start, size, flags = port.pci_resource_start(bar), port.pci_resource_len(bar), port.pci_resource_flags(bar)
            if not start or not size:
                continue
            name = f"BAR{bar}"
            if flags & k.IORESOURCE_IO:
                ports.append((name, start, size, k.UIO_PORT_X86))
            elif flags & k.IORESOURCE_MEM:
                for first, end in _sparse((start & PAGE_MASK, start + size + ~PAGE_MASK & PAGE_MASK), guarded):
                    mem.append((name, first, max(start - first, 0), end - first, k.UIO_MEM_PHYS))
        return tuple(mem[: k.MAX_UIO_MAPS]), tuple(ports[: k.MAX_UIO_PORT_REGIONS])

    def _msix_pages(self) -> list[Range]:
        """Pages that user space must not write. VFIO leaves the pending bits in; UIO-085 does not."""
        port = self.port
        pos = port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        if not pos:
            return []
        entries = (port.pci_read_config(pos + k.PCI_MSIX_FLAGS, 2) & k.PCI_MSIX_FLAGS_QSIZE) + 1
        pages = []
        for field, size in (
            (k.PCI_MSIX_TABLE, entries * k.PCI_MSIX_ENTRY_SIZE),
            (k.PCI_MSIX_PBA, (entries + 63) // 64 * 8),
        ):
            where = port.pci_read_config(pos + field, 4)
            start = port.pci_resource_start(where & k.PCI_MSIX_BIR) + (where & k.PCI_MSIX_OFFSET)
            pages.append((start & PAGE_MASK, start + size + ~PAGE_MASK & PAGE_MASK))
        return sorted(pages)

    def remove(self) -> None:
        """As the port says. The core calls no release from here on, so whoever has it open loses the interrupts."""
        port, vdev = self.port, self.vdev
        port.uio_unregister_device()
        if vdev.refcnt:
            self._disable(vdev)
            vdev.refcnt = 0
        self._restore_intx(vdev)
        port.pci_disable_device()
        port.pci_set_drvdata(0)
        port.kfree(vdev.token)

    def _restore_intx(self, vdev: Vdev) -> None:
        """The disable bit as probe found it: what VFIO does with the saved state of config space."""
        port = self.port
        bit = k.PCI_COMMAND_INTX_DISABLE
        if (port.pci_read_config(k.PCI_COMMAND, 2) ^ vdev.found_command) & bit:
            port.pci_intx(int(not vdev.found_command & bit))

    # -- opening: igb_uio, and vfio_pci_core.c

    def open(self) -> int:
        """As the port says. As VFIO's no-IOMMU groups it opens to CAP_SYS_RAWIO only."""
        port, vdev = self.port, self.vdev
        if not port.capable(k.CAP_SYS_RAWIO):
            return -k.EPERM
        port.mutex_lock(vdev.token + IGATE)
        err = 0
        if not vdev.refcnt:
            err = self._enable(vdev)
        if not err:
            vdev.refcnt += 1
        port.mutex_unlock(vdev.token + IGATE)
        return err

    def release(self) -> int:
        """As the port says."""
        port, vdev = self.port, self.vdev
        port.mutex_lock(vdev.token + IGATE)
        vdev.refcnt -= 1
        if not vdev.refcnt:
            self._disable(vdev)
        port.mutex_unlock(vdev.token + IGATE)
        return 0

    def _enable(self, vdev: Vdev) -> int:
        """igbuio_pci_open; it left the function a bus master when the interrupts failed."""
        port = self.port
        port.pci_set_master()
        err = self._enable_interrupts(vdev)
        if err:
            port.pci_clear_master()
        return err

    def _enable_interrupts(self, vdev: Vdev) -> int:
        if vdev.is_msix:
            return self._msi_enable(vdev)
        # Nobody is there to serve the line before the first set. VFIO enables the pin here already.
        self.port.pci_intx(0)
        return 0

    def _disable(self, vdev: Vdev) -> None:
        """vfio_pci_core_disable: the interrupts, then DMA; the pin stays off."""
        if vdev.irq_type == MSIX:
            self._msi_disable(vdev)
        elif vdev.irq_type == INTX:
            self._intx_disable(vdev)
        self.port.pci_intx(0)
        self.port.pci_clear_master()

    # -- the ioctl: vfio_pci_ioctl_set_irqs

    def ioctl(self, cmd: int, arg: int) -> int:
        """As the port says."""
        port, vdev = self.port, self.vdev
        if cmd != k.UIO_MSI_IRQ_SET:
            return self.UNKNOWN_COMMAND
        data = port.copy_from_user(arg, k.IRQ_SET_SIZE)
        if len(data) < k.IRQ_SET_SIZE:
            return -k.EFAULT
        vector, fd = struct.unpack("=Ii", data)
        # What can be said without the lock, VFIO says without it.
        if vector >= vdev.max_vectors:
            return self.OUT_OF_RANGE
        port.mutex_lock(vdev.token + IGATE)
        if vdev.is_msix:
            err = self._msi_set_vector_signal(vdev, vector, fd)
        else:
            err = self._set_intx_trigger(vdev, fd)
        port.mutex_unlock(vdev.token + IGATE)
        return err

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        """compat_ptr_ioctl."""
        return self.ioctl(cmd, arg)

    def irqcontrol(self, on: int) -> int:
        """VFIO_IRQ_SET_ACTION_MASK and _UNMASK of INTx; as there, only once INTx is set up."""
        port, vdev = self.port, self.vdev
        port.mutex_lock(vdev.token + IGATE)
        err = 0
        if vdev.irq_type != INTX:
            err = -k.EINVAL
        elif on:
            self._intx_unmask(vdev, vdev.ctx[0])
        else:
            self._intx_mask(vdev)
        port.mutex_unlock(vdev.token + IGATE)
        return err

    # -- INTx: vfio_pci_intrs.c

    def _is_masked(self) -> bool:
        """The disable bit. VFIO keeps a flag, which user space that writes config space by itself would belie."""
        return bool(self.port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE)

    def _send_intx_eventfd(self, ctx: IrqCtx) -> None:
        trigger = ctx.trigger
        if trigger:
            self.port.eventfd_signal(trigger)

    def _intx_mask(self, vdev: Vdev) -> bool:
        """Mask whether anything is pending or not. True if that changed anything."""
        port = self.port
        port.spin_lock_irqsave(vdev.token + IRQLOCK)
        changed = not self._is_masked()
        if changed:
            port.pci_intx(0)
        port.spin_unlock_irqrestore(vdev.token + IRQLOCK)
        return changed

    def _intx_unmask(self, vdev: Vdev, ctx: IrqCtx) -> None:
        """Unmask; a level that is still there is sent to the user at once instead, and stays masked."""
        port = self.port
        port.spin_lock_irqsave(vdev.token + IRQLOCK)
        resend = self._is_masked() and not port.pci_check_and_unmask_intx()
        port.spin_unlock_irqrestore(vdev.token + IRQLOCK)
        if resend:
            self._send_intx_eventfd(ctx)

    def _intx_handler(self, vdev: Vdev, ctx: IrqCtx) -> int:
        """A masked function does not drive the line: another one does."""
        port = self.port
        port.spin_lock_irqsave(vdev.token + IRQLOCK)
        ours = not self._is_masked() and port.pci_check_and_mask_intx()
        port.spin_unlock_irqrestore(vdev.token + IRQLOCK)
        if not ours:
            return k.IRQ_NONE
        self._send_intx_eventfd(ctx)
        return k.IRQ_HANDLED

    def _intx_enable(self, vdev: Vdev, trigger: int, masked: bool = False) -> int:
        """Everything the handler uses stands before request_irq; unless `masked`, the pin is enabled just before it."""
        port = self.port
        name = port.kasprintf("uio_msi-intx")
        if not name:
            return -k.ENOMEM
        token = port.kzalloc(CTX_SIZE)
        if not token:
            port.kfree(name)
            return -k.ENOMEM
        vdev.ctx[0] = ctx = IrqCtx(token, name, trigger)
        vdev.irq_type = INTX
        port.pci_intx(int(not masked))
        err = port.request_irq(vdev.irq, k.IRQF_SHARED, name, token)
        if err:
            # VFIO leaves the pin enabled, with nobody to serve it.
            port.pci_intx(0)
            vdev.irq_type = NONE
            port.kfree(name)
            self._ctx_free(vdev, ctx, 0)
        return err

    def _intx_set_signal(self, vdev: Vdev, trigger: int) -> None:
        """Swap the trigger; the action stays, and with no trigger it still masks the function."""
        port, ctx = self.port, vdev.ctx[0]
        old = ctx.trigger
        ctx.trigger = trigger
        if old:
            port.synchronize_irq(vdev.irq)
            port.eventfd_ctx_put(old)
        elif trigger:
            # VFIO leaves this to its user, who has an unmask of his own; UIO-083 does not.
            self._intx_unmask(vdev, ctx)

    def _intx_disable(self, vdev: Vdev) -> None:
        port, ctx = self.port, vdev.ctx[0]
        port.free_irq(vdev.irq, ctx.token)
        if ctx.trigger:
            port.eventfd_ctx_put(ctx.trigger)
        port.kfree(ctx.name)
        self._ctx_free(vdev, ctx, 0)
        vdev.irq_type = NONE

    def _set_intx_trigger(self, vdev: Vdev, fd: int) -> int:
        """vfio_pci_set_intx_trigger: the fd is looked up before anything is undone."""
        port = self.port
        trigger = 0
        if fd >= 0:
            trigger = port.eventfd_ctx_fdget(fd)
            if trigger < 0:
                return trigger
        if vdev.irq_type == INTX:
            self._intx_set_signal(vdev, trigger)
            return 0
        if not trigger:
            # VFIO would request the line for nobody; UIO-013 forbids that.
            return 0
        err = self._intx_enable(vdev, trigger)
        if err:
            port.eventfd_ctx_put(trigger)
        return err

    # -- MSI-X: vfio_pci_intrs.c

    def _msi_enable(self, vdev: Vdev) -> int:
        """All vectors or none. VFIO returns how many there are, which an open must not."""
        port, nvec = self.port, vdev.max_vectors
        ret = port.pci_alloc_irq_vectors(1, nvec)
        if ret < 0:
            return ret
        if ret < nvec:
            port.pci_free_irq_vectors()
            return -k.ENOSPC
        vdev.irq_type = MSIX
        return 0

    def _msi_set_vector_signal(self, vdev: Vdev, vector: int, fd: int) -> int:
        """The old wiring goes before anything about the new one is known."""
        port = self.port
        ctx = vdev.ctx.get(vector)
        if ctx is not None:
            port.free_irq(port.pci_irq_vector(vector), ctx.trigger)
            port.kfree(ctx.name)
            port.eventfd_ctx_put(ctx.trigger)
            self._ctx_free(vdev, ctx, vector)
        if fd < 0:
            return 0
        irq = port.pci_irq_vector(vector)
        if irq < 0:
            return irq
        token = port.kzalloc(CTX_SIZE)
        if not token:
            return -k.ENOMEM
        ctx = IrqCtx(token)
        vdev.ctx[vector] = ctx
        ctx.name = port.kasprintf(f"uio_msi[{vector}]")
        err = self._msi_request(ctx, irq, fd) if ctx.name else -k.ENOMEM
        if err:
            port.kfree(ctx.name)
            self._ctx_free(vdev, ctx, vector)
        return err

    def _msi_request(self, ctx: IrqCtx, irq: int, fd: int) -> int:
        """The second half: the eventfd is the dev_id, so the handler needs nothing else."""
        port = self.port
        trigger = port.eventfd_ctx_fdget(fd)
        if trigger < 0:
            return trigger
        # A backdoor reset may have cleared the message.
        port.pci_write_msi_msg(irq)
        err = port.request_irq(irq, 0, ctx.name, trigger)
        if err:
            port.eventfd_ctx_put(trigger)
            return err
        ctx.trigger = trigger
        return 0

    def _msi_disable(self, vdev: Vdev) -> None:
        for vector in tuple(vdev.ctx):
            self._msi_set_vector_signal(vdev, vector, -1)
        self.port.pci_free_irq_vectors()
        vdev.irq_type = NONE

    def _ctx_free(self, vdev: Vdev, ctx: IrqCtx, vector: int) -> None:
        del vdev.ctx[vector]
        self.port.kfree(ctx.token)

    # -- interrupts

    def handler(self, irq: int, dev_id: int) -> int:
        """vfio_intx_handler, or vfio_msihandler, which is given the eventfd."""
        vdev = self.vdev
        if vdev.irq_type == INTX:
            return self._intx_handler(vdev, vdev.ctx[0])
        self.port.eventfd_signal(dev_id)
        return k.IRQ_HANDLED


def _sparse(pages: Range, guarded: list[Range]) -> list[Range]:
    """What is left of `pages` without the guarded ones, which are sorted."""
    first, end = pages
    left = []
    for hole, hole_end in guarded:
        if hole_end <= first or hole >= end:
            continue
        if hole > first:
            left.append((first, hole))
        first = max(first, hole_end)
    if first < end:
        left.append((first, end))
    return left
