"""Errnos, MSRs, bits, VMCS fields, VMCB and SMRAM offsets, register ids, and what two entry points return."""

from __future__ import annotations

EIO = 5
E2BIG = 7
ENOMEM = 12
EFAULT = 14
EINVAL = 22

U_CET = 0x6A0
S_CET = 0x6A2
PL0_SSP = 0x6A4
PL1_SSP = 0x6A5
PL2_SSP = 0x6A6
PL3_SSP = 0x6A7
INT_SSP_TAB = 0x6A8
XSS = 0xDA0
INTERNAL_GUEST_SSP = 0x4B564DFF
"""KVM's own name for SSP, which is no MSR; for registers of userspace only."""

CONTROL_MSRS = (U_CET, S_CET)
POINTER_MSRS = (PL0_SSP, PL1_SSP, PL2_SSP, PL3_SSP)
MSRS = (*CONTROL_MSRS, *POINTER_MSRS, INT_SSP_TAB, XSS)
"""All MSRs of the subsystem, in the order of their numbers."""

SH_STK_EN = 0
"""Bit of U_CET and S_CET that turns shadow stacks on."""
ENDBR_EN = 2
"""Bit of U_CET and S_CET that turns indirect branch tracking on."""
CR0_WP = 16
CR4_CET = 23

CET_U = 11
"""XSAVES component of U_CET and PL3_SSP, 16 bytes; also its bit in XSS."""
CET_S = 12
"""XSAVES component of PL0_SSP, PL1_SSP and PL2_SSP, 24 bytes; also its bit in XSS."""
XSAVE_BASE_SIZE = 576
"""Bytes of a compacted image with the legacy area and the header alone."""

READ = 1
WRITE = 2
"""Kinds of access an intercept stops, as bits."""

GUEST_CR0 = 0x6800
GUEST_CR4 = 0x6804
GUEST_S_CET = 0x6828
GUEST_SSP = 0x682A
GUEST_INTR_SSP_TABLE = 0x682C
HOST_CR0 = 0x6C00
HOST_CR4 = 0x6C04
HOST_S_CET = 0x6C18
HOST_SSP = 0x6C1A
HOST_INTR_SSP_TABLE = 0x6C1C
HOST_FIELDS = (HOST_S_CET, HOST_SSP, HOST_INTR_SSP_TABLE)
GUEST_FIELDS = (GUEST_S_CET, GUEST_SSP, GUEST_INTR_SSP_TABLE)
VMCS12_FIELDS = (*GUEST_FIELDS, *HOST_FIELDS)
"""The CET fields of a VMCS, guest area first."""
VM_EXIT_CONTROLS = 0x400C
VM_ENTRY_CONTROLS = 0x4012
VM_ENTRY_LOAD_CET = 20
VM_EXIT_LOAD_CET = 28
VM_EXIT_HOST_64 = 9
"""VM-exit control "host address-space size": L1 resumes in 64-bit mode."""

VMCB_S_CET = 0x1E0
VMCB_SSP = 0x1E8
VMCB_ISST_ADDR = 0x1F0
"""Offsets in the save area of a VMCB."""
VMCB_CLEAN = 0x0C0
"""Offset of the clean field in the control area; used for vmcb12 only."""
VMCB_CET = 12
"""Clean bit of S_CET, SSP and ISST_ADDR."""

SMRAM_SSP = 0xFF18
SMRAM_CR4 = 0xFF48
SMRAM_CR0 = 0xFF58
"""Slots of the 64-bit SMM state-save map."""

MAX_MSR_ENTRIES = 256
"""A batch of this many MSRs or more is refused."""
ONE_REG_SIZE = 16
"""Bytes of `struct kvm_one_reg`: the id, and where the 8 bytes of the value are."""
ONE_REG_MSR = 0x2030_0002_0000_0000
"""Id of a 64-bit register of type MSR; the MSR's number is in the low 32 bits."""
ONE_REG_GUEST_SSP = 0x2030_0003_0000_0000
"""Id of the one KVM-defined register."""

ENTERED = 0
VMFAIL_HOST_STATE = 1
INVALID_GUEST_STATE = 2
VMEXIT_INVALID = 3
"""What `nested_enter` returns: success, VM-instruction error, failed VM entry, failed VMRUN."""

EMULATED = 0
EMULATED_GP = 1
UNHANDLEABLE = 2
"""What `emulate` returns: done, #GP(0) for the guest, refused."""
