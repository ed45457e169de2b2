"""A driver whose handlers are there from open on, and which keeps in its own memory what it cannot tell anybody yet."""

from __future__ import annotations

from conformance.candidates.builtin.uio_msi.upstream import SIZEOF_CONTEXT, Upstream
from conformance.specs.uio_msi.constants import IRQ_HANDLED

LOCK = 8
"""Offset of the spinlock in the device."""


class KeepingDriver(Upstream):
    """The first open requests every vector; a set only swaps the eventfd that its handler looks up."""

    def _forget(self) -> None:
        super()._forget()
        self.early: set[int] = set()
        """Vectors of whose event nobody was told."""

    def _cookie(self, vector: int) -> int:
        return self.contexts + vector * SIZEOF_CONTEXT

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err or not self.msix:
            return err
        for vector, irq in enumerate(self.irqs):
            err = self.port.request_irq(irq, 0, self.names[vector], self._cookie(vector))
            if err:
                self._switch_off(vector)
                return err
        return 0

    def _switch_off(self, requested: int) -> None:
        for vector in range(requested):
            self.port.free_irq(self.irqs[vector], self._cookie(vector))
        self.port.pci_disable_msix()
        self.port.pci_clear_master()
        self.irqs = []

    def _shut_down(self) -> None:
        if not self.msix:
            super()._shut_down()
            return
        self._switch_off(self.max_vectors)
        for trigger in filter(None, self.triggers):
            self.port.eventfd_ctx_put(trigger)
        self.triggers = [0] * self.max_vectors
        self._drop_early()
        self.open_count = 0

    def _drop_early(self) -> None:
        self.early = set()

    def _attach_msix(self, vector: int, trigger: int) -> int:
        self.port.pci_write_msi_msg(self.irqs[vector])
        self._swap(vector, trigger)
        return 0

    def _detach(self, vector: int) -> None:
        if self.msix:
            self._swap(vector, 0)
        else:
            super()._detach(vector)

    def _swap(self, vector: int, trigger: int) -> None:
        port, lock = self.port, self.device + LOCK
        port.spin_lock_irqsave(lock)
        old, self.triggers[vector] = self.triggers[vector], trigger
        if trigger and vector in self.early:
            self._tell_late(vector, trigger)
        port.spin_unlock_irqrestore(lock)
        if old:
            port.synchronize_irq(self.irqs[vector])
            port.eventfd_ctx_put(old)

    def _tell_late(self, vector: int, trigger: int) -> None:
        self.early.remove(vector)
        self.port.eventfd_signal(trigger)

    def handler(self, irq: int, dev_id: int) -> int:
        if not self.msix:
            return super().handler(irq, dev_id)
        port, lock, vector = self.port, self.device + LOCK, (dev_id - self.contexts) // SIZEOF_CONTEXT
        port.spin_lock_irqsave(lock)
        if self.triggers[vector]:
            port.eventfd_signal(self.triggers[vector])
        else:
            self.early.add(vector)
        port.spin_unlock_irqrestore(lock)
        return IRQ_HANDLED
