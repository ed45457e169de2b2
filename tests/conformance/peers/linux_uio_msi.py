"""Legal ways in which other kernels, and other drivers of the kernel, differ from `linux`."""

from __future__ import annotations

from conformance.candidates.builtin.uio_msi.linux import CTX_SIZE, INTX, MSIX, IrqCtx, Linux, Vdev
from conformance.specs.uio_msi import constants as k


class RequestedAtOpen(Linux):
    """The first open requests INTx, as igb_uio's does, and the last release frees it."""

    def _enable_interrupts(self, vdev: Vdev) -> int:
        return self._msi_enable(vdev) if vdev.is_msix else self._intx_enable(vdev, 0)


class FreedWhileUnmapped(Linux):
    """INTx is freed and requested by every set, as in VFIO before 18c198c96a81; in between the disable bit is set.

    User space, which could clear it meanwhile, is kept out of config space.
    """

    def _set_intx_trigger(self, vdev: Vdev, fd: int) -> int:
        self.port.pci_cfg_access_lock()
        err = self._replace_intx(vdev, fd)
        self.port.pci_cfg_access_unlock()
        return err

    def _replace_intx(self, vdev: Vdev, fd: int) -> int:
        port = self.port
        masked = False
        if vdev.irq_type == INTX:
            masked = not self._intx_mask(vdev)
            self._intx_disable(vdev)
        if fd < 0:
            return 0
        trigger = port.eventfd_ctx_fdget(fd)
        if trigger < 0:
            return trigger
        err = self._intx_enable(vdev, trigger, masked)
        if err:
            port.eventfd_ctx_put(trigger)
        return err


class MasksWhileUnmapped(Linux):
    """The INTx action stays, but has nothing to do: the disable bit is set from an unmapping set to the next map."""

    def _intx_set_signal(self, vdev: Vdev, trigger: int) -> None:
        if not trigger:
            self._intx_mask(vdev)
        super()._intx_set_signal(vdev, trigger)


class LooksUpFirst(Linux):
    """The new eventfd is looked up, and all is allocated, before the old action is freed; every set unmasks INTx."""

    profile = "upstream"
    OUT_OF_RANGE = -k.ERANGE

    def _intx_set_signal(self, vdev: Vdev, trigger: int) -> None:
        was_mapped = bool(vdev.ctx[0].trigger)
        super()._intx_set_signal(vdev, trigger)
        if was_mapped and trigger:
            self._intx_unmask(vdev, vdev.ctx[0])

    def _msi_set_vector_signal(self, vdev: Vdev, vector: int, fd: int) -> int:
        if fd < 0:
            return super()._msi_set_vector_signal(vdev, vector, fd)
        port = self.port
        trigger = port.eventfd_ctx_fdget(fd)
        if trigger < 0:
            return trigger
        name = port.kasprintf(f"uio_msi[{vector}]")
        token = port.kzalloc(CTX_SIZE) if name else 0
        err = -k.ENOMEM
        if token:
            super()._msi_set_vector_signal(vdev, vector, -1)
            irq = port.pci_irq_vector(vector)
            port.pci_write_msi_msg(irq)
            err = port.request_irq(irq, 0, name, trigger)
        if err:
            port.eventfd_ctx_put(trigger)
            port.kfree(name)
            port.kfree(token)
            return err
        vdev.ctx[vector] = IrqCtx(token, name, trigger)
        return 0


class UnmasksByTheBit(LooksUpFirst):
    """Interrupts as igb_uio has them: requested at open, irqcontrol without the mutex, and an unmask clears the bit."""

    def _enable_interrupts(self, vdev: Vdev) -> int:
        return self._msi_enable(vdev) if vdev.is_msix else self._intx_enable(vdev, 0)

    def irqcontrol(self, on: int) -> int:
        """The core keeps open and release away; the action is there from the one to the other."""
        if self.vdev.irq_type == INTX:
            self.port.pci_intx(int(on != 0))
        return 0

    def _intx_unmask(self, vdev: Vdev, ctx: IrqCtx) -> None:
        """The line calls the handler for what is still pending."""
        self.port.pci_intx(1)


class TakesWhatThereIs(LooksUpFirst):
    """An open for which there are too few vectors is content with those, and serves no others until it is closed."""

    wanted = 0

    def _msi_enable(self, vdev: Vdev) -> int:
        self.wanted = vdev.max_vectors
        ret = self.port.pci_alloc_irq_vectors(1, self.wanted)
        if ret < 0:
            return ret
        vdev.max_vectors = ret
        vdev.irq_type = MSIX
        return 0

    def _msi_disable(self, vdev: Vdev) -> None:
        super()._msi_disable(vdev)
        vdev.max_vectors = self.wanted


PEERS = {
    "requested-at-open": RequestedAtOpen,
    "freed-while-unmapped": FreedWhileUnmapped,
    "masks-while-unmapped": MasksWhileUnmapped,
    "looks-up-first": LooksUpFirst,
    "unmasks-by-the-bit": UnmasksByTheBit,
    "takes-what-there-is": TakesWhatThereIs,
}
"""By name."""
