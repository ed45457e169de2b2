"""What the driver of 2015 meant to do."""

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
        if not self.is_msix and not (self.line not in (0, k.IRQ_NOTCONNECTED) and port.pci_intx_mask_supported()):
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
