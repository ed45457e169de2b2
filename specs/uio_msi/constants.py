"""Numbers of the ioctl, of the kernel and of PCI config space."""

from __future__ import annotations

# -- The ioctl

UIO_MSI_IRQ_SET = 0x40084987
"""_IOW('I', 0x87, struct uio_msi_irq_set) where the write bit is 30: x86, arm, riscv, s390."""
IRQ_SET_SIZE = 8
"""Bytes of struct uio_msi_irq_set: u32 vec, s32 fd, native byte order."""
COMMAND_MASK = 0xFFFF_FFFF
"""A command is 32 bits wide; the system call drops the rest."""

# -- Limits and constants of the kernel

MAX_MSIX_VECTORS = 64
MAX_UIO_MAPS = 5
MAX_UIO_PORT_REGIONS = 5
PCI_BARS = 6
PAGE_SIZE = 0x1000
EVENTFD_MAX = 2**64 - 2
"""Largest counter that user space can reach; the harness's signals saturate there (the kernel's own one later)."""

EIO = 5
EPERM = 1
EBADF = 9
EAGAIN = 11
ENOMEM = 12
EACCES = 13
EFAULT = 14
EBUSY = 16
ENODEV = 19
EINVAL = 22
ENOTTY = 25
ENOSPC = 28
ERANGE = 34
ENOSYS = 38
EOPNOTSUPP = 95
ENOTCONN = 107
ERESTARTSYS = 512
EPROBE_DEFER = 517
ENOTSUPP = 524
KERNEL_INTERNAL = (ERESTARTSYS, EPROBE_DEFER, ENOTSUPP)
"""Codes that user space must never see."""

UIO_IRQ_CUSTOM = -1
UIO_IRQ_NONE = 0
UIO_MEM_PHYS = 1
UIO_PORT_X86 = 1
IRQF_SHARED = 0x80
IRQ_NOTCONNECTED = 0x8000_0000
"""pdev->irq of a function whose INTx pin leads nowhere; 0 says the same."""
IRQ_NONE = 0
IRQ_HANDLED = 1
IORESOURCE_IO = 0x100
IORESOURCE_MEM = 0x200
CAP_SYS_RAWIO = 17

PCI_COMMAND = 0x04
PCI_COMMAND_MASTER = 0x0004
PCI_COMMAND_INTX_DISABLE = 0x0400
PCI_STATUS = 0x06
PCI_STATUS_INTERRUPT = 0x0008
PCI_HEADER_TYPE = 0x0E
PCI_HEADER_TYPE_BRIDGE = 1
PCI_HEADER_TYPE_CARDBUS = 2
PCI_CAPABILITY_LIST = 0x34
PCI_CAP_ID_MSIX = 0x11
PCI_MSIX_FLAGS = 2
"""Offset within the capability: bits 10:0 table size minus 1, bit 14 function mask, bit 15 enable."""
PCI_MSIX_FLAGS_QSIZE = 0x07FF
PCI_MSIX_FLAGS_ENABLE = 0x8000
PCI_MSIX_TABLE = 4
"""Offset within the capability: bits 2:0 BAR, bits 31:3 offset of the table."""
PCI_MSIX_PBA = 8
"""Offset within the capability: bits 2:0 BAR, bits 31:3 offset of the pending bits."""
PCI_MSIX_BIR = 0x7
PCI_MSIX_OFFSET = 0xFFFF_FFF8
PCI_MSIX_ENTRY_SIZE = 16
