"""The patch of 2015 with its defects."""

from __future__ import annotations

import struct
from typing import ClassVar

from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE, Port
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import (
    EFAULT,
    EINVAL,
    ENOMEM,
    EOPNOTSUPP,
    ERANGE,
    IRQ_HANDLED,
    IRQ_NONE,
    IRQF_SHARED,
    MAX_MSIX_VECTORS,
    MAX_UIO_MAPS,
    MAX_UIO_PORT_REGIONS,
    UIO_MSI_IRQ_SET,
)

SIZEOF_DEVICE = 0x400
SIZEOF_CONTEXT = 0x10


class _Device:
    """struct uio_msi_pci_dev of the posted driver."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.mutex = address + 0x100
        self.ref_cnt = 0
        self.max_vectors = 0
        self.pdev_irq = 0
        self.iomaps: list[int] = []
        self.msix: list[int] | None = None
        """irq number of each entry, as pci_enable_msix left it; NULL in INTx mode."""
        self.arrays: list[int] = []
        self.names: list[int] = []
        self.triggers: list[int] = []


class AsPosted:
    """The driver as it was posted on 30 Sep 2015, with all that is wrong with it."""

    profile: ClassVar[str] = "as-posted"
    capabilities: ClassVar[frozenset[str]] = frozenset({"intx", "core-4.1"})

    def __init__(self, port: Port) -> None:
        self.port = port
        self.device = _Device(0)
        self.bound: dict[int, _Device] = {}
        """What lies at the address in drvdata."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Bind the device."""
        port = self.port
        address = port.kzalloc(SIZEOF_DEVICE)
        if not address:
            return -ENOMEM
        device = _Device(address)
        device.pdev_irq = irq
        err = port.pci_enable_device()
        if not err:
            err = port.pci_request_regions("uio_msi")
            if not err:
                port.pci_set_master()
                err = self._claimed(device)
                if not err:
                    return 0
                port.pci_release_regions()
            port.pci_disable_device()
        port.kfree(address)
        return err

    def _claimed(self, device: _Device) -> int:
        """The rest of probe, once the regions are claimed."""
        port = self.port
        port.mutex_init(device.mutex)
        err, mem, ports = self._setup_maps(device)
        if not err:
            err = self._allocate(device)
            if not err and device.names:
                self.device = device
                err = port.uio_register_device("uio_msi", "0.1.1", k.UIO_IRQ_CUSTOM, False, mem, ports)
                if not err:
                    self.bound[device.address] = device
                    port.pci_set_drvdata(device.address)
                    return 0
            self._free_arrays(device)
        self._release_iomaps(device)
        if not err:
            port.pci_release_regions()
            port.pci_disable_device()
            port.kfree(device.address)
        return err

    def _allocate(self, device: _Device) -> int:
        """Tables and names; err keeps what it was before when an allocation fails in INTx mode."""
        port = self.port
        err = 0
        count = port.pci_msix_vec_count()
        if count > 0:
            device.max_vectors = min(count, MAX_MSIX_VECTORS)
            err = -ENOMEM
            entries = port.kcalloc(device.max_vectors, 8)
            if not entries:
                return err
            device.arrays.append(entries)
            device.msix = [0] * device.max_vectors
        elif port.pci_intx_mask_supported():
            device.max_vectors = 1
        else:
            return -EINVAL
        contexts = port.kcalloc(device.max_vectors, SIZEOF_CONTEXT)
        if not contexts:
            return err
        device.arrays.append(contexts)
        device.triggers = [0] * device.max_vectors
        for i in range(device.max_vectors):
            device.msix[i] = 0  # type: ignore[index]  # NULL in INTx mode, as posted
            name = port.kasprintf(f"uio_msi[{i}](0000:00:04.0)")
            if not name:
                return err
            device.names.append(name)
        return 0

    def _setup_maps(self, device: _Device) -> tuple[int, MAPS_TYPE, PORTS_TYPE]:
        port = self.port
        mem: list[tuple[str, int, int, int, int]] = []
        ports: list[tuple[str, int, int, int]] = []
        for bar in range(k.PCI_BARS):
            start, size = port.pci_resource_start(bar), port.pci_resource_len(bar)
            if not start or not size:
                continue
            if port.pci_resource_flags(bar) & k.IORESOURCE_MEM:
                if len(mem) < MAX_UIO_MAPS:
                    token = port.ioremap(start, size)
                    if not token:
                        self._release_iomaps(device)
                        return -EINVAL, (), ()
                    device.iomaps.append(token)
                    mem.append((f"BAR{bar}", start, 0, size, k.UIO_MEM_PHYS))
            elif len(ports) < MAX_UIO_PORT_REGIONS:
                ports.append((f"BAR{bar}", start, size, k.UIO_PORT_X86))
        return 0, tuple(mem), tuple(ports)

    def _release_iomaps(self, device: _Device) -> None:
        for token in device.iomaps:
            self.port.iounmap(token)

    def _free_arrays(self, device: _Device) -> None:
        for token in (*device.names, *device.arrays):
            self.port.kfree(token)

    def remove(self) -> None:
        """Unbind the device; what open handles hold is forgotten."""
        port = self.port
        device = self.bound[port.pci_get_drvdata()]
        port.uio_unregister_device()
        self._release_iomaps(device)
        port.pci_release_regions()
        port.pci_disable_device()
        self._free_arrays(device)
        port.kfree(device.address)

    def open(self) -> int:
        """Count, then enable."""
        device = self.device
        self.port.mutex_lock(device.mutex)
        err = 0
        device.ref_cnt += 1
        if device.ref_cnt == 1 and device.msix is not None:
            err = self.port.pci_enable_msix(tuple(range(device.max_vectors)))
            if not err:
                device.msix = [self.port.pci_irq_vector(i) for i in range(device.max_vectors)]
        self.port.mutex_unlock(device.mutex)
        return err

    def release(self) -> int:
        """The last release unmaps everything."""
        device = self.device
        self.port.mutex_lock(device.mutex)
        device.ref_cnt -= 1
        if device.ref_cnt == 0:
            for i in range(device.max_vectors):
                irq = device.msix[i]  # type: ignore[index]  # NULL in INTx mode, as posted
                trigger = device.triggers[i]
                if trigger:
                    self.port.free_irq(irq, trigger)
                    self.port.eventfd_ctx_put(trigger)
                    device.triggers[i] = 0
            if device.msix is not None:
                self.port.pci_disable_msix()
        self.port.mutex_unlock(device.mutex)
        return 0

    def ioctl(self, cmd: int, arg: int) -> int:
        """UIO_MSI_IRQ_SET."""
        if cmd != UIO_MSI_IRQ_SET:
            return -EOPNOTSUPP
        data = self.port.copy_from_user(arg, 8)
        if len(data) < 8:
            return -EFAULT
        vector, fd = struct.unpack("=Ii", data)
        device = self.device
        self.port.mutex_lock(device.mutex)
        err = self._set_irq_eventfd(device, vector, fd)
        self.port.mutex_unlock(device.mutex)
        return err

    def _set_irq_eventfd(self, device: _Device, vector: int, fd: int) -> int:
        port = self.port
        if vector >= device.max_vectors:
            port.dev_err(f"vec {vector} >= num_vec {device.max_vectors}")
            return -ERANGE
        irq = device.msix[vector]  # type: ignore[index]  # NULL in INTx mode, as posted
        old = device.triggers[vector]
        if old:
            port.free_irq(irq, old)
            port.eventfd_ctx_put(old)
            device.triggers[vector] = 0
        if fd < 0:
            return 0
        trigger = port.eventfd_ctx_fdget(fd)
        if trigger < 0:
            port.dev_err("cannot get the eventfd")
            return trigger
        if device.msix is not None:
            err = port.request_irq(irq, 0, device.names[vector], trigger)
        else:
            err = port.request_irq(device.pdev_irq, IRQF_SHARED, device.names[vector], device.address)
        if err:
            port.dev_err("request_irq failed")
            port.eventfd_ctx_put(trigger)
            return err
        device.triggers[vector] = trigger
        return 0

    def handler(self, irq: int, dev_id: int) -> int:
        """One handler for MSI-X, whose dev_id is the eventfd, one for INTx, whose dev_id is the device."""
        if self.device.msix is not None:
            self.port.eventfd_signal(dev_id)
            return IRQ_HANDLED
        if not self.port.pci_check_and_mask_intx():
            return IRQ_NONE
        self.port.eventfd_signal(self.device.triggers[0])
        return IRQ_HANDLED
