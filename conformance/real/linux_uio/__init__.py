"""uio_pci_generic of an unmodified kernel: the UIO core's handles, and INTx that only user space unmasks.

It has no ioctl. What maps an event to an eventfd is what its users do: read the count of events, and signal. The
adapter does that between operations; profile `as-posted`.
"""

from conformance.real.linux_uio.adapter import LinuxUio

__all__ = ["LinuxUio"]
