"""The KVM ioctls that adapters make, on the host and in guests: numbers and layouts, as the kernel documents them."""

from __future__ import annotations

import struct

KVMIO = 0xAE


def _io(number: int, direction: int = 0, size: int = 0) -> int:
    """An ioctl request; direction 0 none, 1 write, 2 read, 3 both."""
    return direction << 30 | size << 16 | KVMIO << 8 | number


GET_API_VERSION = _io(0x00)
CREATE_VM = _io(0x01)
CHECK_EXTENSION = _io(0x03)
GET_VCPU_MMAP_SIZE = _io(0x04)
GET_SUPPORTED_CPUID = _io(0x05, 3, 8)
CREATE_VCPU = _io(0x41)
GET_DIRTY_LOG = _io(0x42, 1, 16)
SET_USER_MEMORY_REGION = _io(0x46, 1, 32)
CREATE_IRQCHIP = _io(0x60)
SET_GSI_ROUTING = _io(0x6A, 1, 8)
IRQFD = _io(0x76, 1, 32)
RUN = _io(0x80)
SET_REGS = _io(0x82, 1, 144)
GET_SREGS = _io(0x83, 2, 312)
SET_SREGS = _io(0x84, 1, 312)
SET_MSRS = _io(0x89, 1, 8)
GET_LAPIC = _io(0x8E, 2, 1024)
SET_LAPIC = _io(0x8F, 1, 1024)
SET_CPUID2 = _io(0x90, 1, 8)
GET_MP_STATE = _io(0x98, 2, 4)
SET_MP_STATE = _io(0x99, 1, 4)
ENABLE_CAP = _io(0xA3, 1, 104)
SIGNAL_MSI = _io(0xA5, 1, 32)
PRE_FAULT_MEMORY = _io(0xD5, 3, 64)

CAP_IRQFD, CAP_SIGNAL_MSI, CAP_SPLIT_IRQCHIP, CAP_X2APIC_API, CAP_MAX_VCPU_ID = 32, 77, 121, 129, 128
CAP_PRE_FAULT_MEMORY = 236

USE_32BIT_IDS, DISABLE_BROADCAST_QUIRK = 1, 2
"""Arguments of KVM_CAP_X2APIC_API."""
IRQFD_DEASSIGN = 1
ROUTING_MSI = 2
EXIT_IO, EXIT_MMIO = 2, 6
"""Reasons of the exits after OUT, and where there is no memory."""
EXIT_REASON, EXIT_PORT = 8, 34
"""Offsets in the kvm_run page."""
IMMEDIATE_EXIT = 1
"""Offset of the byte that makes KVM_RUN return."""

MSR_APIC_BASE, MSR_X2APIC_ICR = 0x1B, 0x830

NUMBERS = struct.Struct("<II")
ROUTE = struct.Struct("<IIII IIII 16x")
"""gsi, type, flags, pad; MSI: addr_lo, addr_hi, data, devid."""
MSI = struct.Struct("<IIIII 12x")
"""addr_lo, addr_hi, data, flags, devid."""
FD_AND_GSI = struct.Struct("<iIII 16x")
"""Of KVM_IRQFD: fd, gsi, flags, resamplefd."""
CAP = struct.Struct("<II4Q 64x")
MEMORY = struct.Struct("<IIQQQ")
MSR = struct.Struct("<IIQ")
SEGMENT = struct.Struct("<QIH8B2x")
"""base, limit, selector, type, present, dpl, db, s, l, g, avl."""
