"""A UIO MSI-X driver in forty lines: a first draft, with what a first draft gets wrong.

conformance run uio_msi --candidate examples/uio_minimal.py:Minimal
"""

import struct

ENOTTY, EFAULT, ERANGE, EINVAL = 25, 14, 34, 22
UIO_MSI_IRQ_SET = 0x40084987


class Minimal:
    """Entry points have the kernel's names; `port` is the kernel and the device behind it."""

    capabilities = frozenset()  # no INTx, no 32-bit callers, no irqcontrol

    def __init__(self, port):
        self.port = port

    def probe(self, irq, hdr_type, is_virtfn):
        self.port.pci_enable_device()
        self.port.pci_request_regions("uio_msi")
        self.count = self.port.pci_msix_vec_count()
        self.contexts = [0] * self.count
        return self.port.uio_register_device("uio_msi", "1", -1, True, (), ())

    def remove(self):
        self.port.uio_unregister_device()
        self.port.pci_release_regions()
        self.port.pci_disable_device()

    def open(self):
        self.port.pci_set_master()
        return self.port.pci_enable_msix(tuple(range(self.count)))

    def release(self):
        for vector in range(self.count):
            self.wire(vector, -1)
        self.port.pci_disable_msix()
        return 0

    def ioctl(self, cmd, arg):
        if cmd != UIO_MSI_IRQ_SET:
            return -ENOTTY
        data = self.port.copy_from_user(arg, 8)
        if len(data) < 8:
            return -EFAULT
        vector, fd = struct.unpack("=Ii", data)
        return self.wire(vector, fd) if vector < self.count else -ERANGE

    def wire(self, vector, fd):
        irq = self.port.pci_irq_vector(vector)
        if self.contexts[vector]:
            self.port.free_irq(irq, vector)
            self.port.eventfd_ctx_put(self.contexts[vector])
            self.contexts[vector] = 0
        if fd < 0:
            return 0
        context = self.port.eventfd_ctx_fdget(fd)
        if context < 0:
            return context
        self.contexts[vector] = context
        return self.port.request_irq(irq, 0, 0, vector)

    def handler(self, irq, dev_id):
        self.port.eventfd_signal(self.contexts[dev_id])
        return 1
