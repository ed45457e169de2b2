"""VFIO of an unmodified kernel as a driver of uio_msi: SET_IRQS is the same ioctl with other numbers.

MSI-X comes from ivshmem-doorbell functions, one for each size of table, whose vectors the suite raises from outside;
INTx from QEMU's `edu`, through its registers. Profile `vfio-like`.
"""

from conformance.real.linux_vfio.adapter import LinuxVfio

__all__ = ["LinuxVfio"]
