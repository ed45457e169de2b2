"""Register offsets, bit positions and other constants of AVIC and of the local APIC."""

from __future__ import annotations

EBADF = 9
EAGAIN = 11
ENOMEM = 12
EBUSY = 16
EEXIST = 17
EFAULT = 14
EINVAL = 22
EIO = 5

# CPUID Fn8000_000A EDX and ECX
CPUID_NP = 0
CPUID_AVIC = 13
CPUID_X2AVIC = 18
CPUID_X2AVIC_EXT = 6
"""In ECX: 4096 vCPUs in x2AVIC mode."""

# local APIC registers: offsets in the 4 KiB page
APIC_ID = 0x020
APIC_LVR = 0x030
APIC_TPR = 0x080
APIC_APR = 0x090
APIC_PPR = 0x0A0
APIC_EOI = 0x0B0
APIC_RRR = 0x0C0
APIC_LDR = 0x0D0
APIC_DFR = 0x0E0
APIC_SPIV = 0x0F0
APIC_ISR = 0x100
APIC_TMR = 0x180
APIC_IRR = 0x200
APIC_ESR = 0x280
APIC_ICR = 0x300
APIC_ICR2 = 0x310
APIC_LVTT = 0x320
APIC_LVTTHMR = 0x330
APIC_LVTPC = 0x340
APIC_LVT0 = 0x350
APIC_LVT1 = 0x360
APIC_LVTERR = 0x370
APIC_TMICT = 0x380
APIC_TMCCT = 0x390
APIC_TDCR = 0x3E0
APIC_SELF_IPI = 0x3F0
"""Exists in x2APIC mode only, as MSR 0x83F."""

_NAMED = {
    APIC_ID: "ID", APIC_LVR: "LVR", APIC_TPR: "TPR", APIC_APR: "APR", APIC_PPR: "PPR", APIC_EOI: "EOI",
    APIC_RRR: "RRR", APIC_LDR: "LDR", APIC_DFR: "DFR", APIC_SPIV: "SPIV", APIC_ESR: "ESR", APIC_ICR: "ICR",
    APIC_ICR2: "ICR2", APIC_LVTT: "LVTT", APIC_LVTTHMR: "LVTTHMR", APIC_LVTPC: "LVTPC", APIC_LVT0: "LVT0",
    APIC_LVT1: "LVT1", APIC_LVTERR: "LVTERR", APIC_TMICT: "TMICT", APIC_TMCCT: "TMCCT", APIC_TDCR: "TDCR",
    APIC_SELF_IPI: "SELF_IPI",
    **{start + 16 * n: f"{bank}{n}" for start, bank in ((APIC_ISR, "ISR"), (APIC_TMR, "TMR"), (APIC_IRR, "IRR"))
       for n in range(8)},
}  # fmt: skip
REGISTER_NAMES = tuple(f"{_NAMED[at]} ({at:#x})" if at in _NAMED else f"{at:#x}" for at in range(0, 0x400, 16))
"""What the registers are called, by offset / 16."""

TRAP_WRITES = (
    APIC_ID,
    APIC_RRR,
    APIC_LDR,
    APIC_DFR,
    APIC_SPIV,
    APIC_ESR,
    APIC_LVTT,
    APIC_LVTTHMR,
    APIC_LVTPC,
    APIC_LVT0,
    APIC_LVT1,
    APIC_LVTERR,
    APIC_TMICT,
    APIC_TDCR,
)
"""Writes that hardware performs in the page and then traps, besides EOI and ICR (APM table 15-22)."""

FAULT_READS = (APIC_APR, APIC_TMCCT)
"""Readable registers below 0x400 whose read exits before the access."""

FLAT = 0xFFFFFFFF
CLUSTER = 0x0FFFFFFF
LVT_MASKED = 0x10000
LVT0_EXTINT = 0x700
SPIV_RESET = 0xFF
SPIV_ENABLE = 8
"""Bit of SPIV that enables the APIC in software."""

BROADCAST = 0xFF
X2_BROADCAST = 0xFFFFFFFF

APIC_BASE = 0xFEE00000
BASE_BSP = 8
BASE_EXTD = 10
BASE_AE = 11
"""Bits of the APIC_BASE MSR."""

# ICR low half
ICR_BUSY = 12
ICR_LOGICAL = 11
ICR_ASSERT = 14
ICR_LEVEL = 15
ICR_SHORTHAND = 18
FIXED, LOWEST, SMI, REMOTE_READ, NMI, INIT, STARTUP, EXTINT = range(8)
"""Delivery modes."""
NO_SHORTHAND, SELF, ALL, OTHERS = range(4)
"""Destination shorthands."""
X2_ICR_RESERVED = 0xFFF32000
"""Bits 13, 17:16 and 31:20; bit 12 (busy) is a case of its own."""

# VMCB control area
VMCB_ASID = 0x058
VMCB_TLB_CONTROL = 0x05C
VMCB_INT_CTL = 0x060
VMCB_NESTED_CTL = 0x090
VMCB_APIC_BAR = 0x098
VMCB_BACKING_PAGE = 0x0E0
VMCB_LOGICAL_TABLE = 0x0F0
VMCB_PHYSICAL_TABLE = 0x0F8
INT_CTL_INTR_MASKING = 24
INT_CTL_X2AVIC = 30
INT_CTL_AVIC = 31
CLEAN_AVIC = 11
"""Clean bit of the fields at 0x98, 0xE0, 0xF0 and 0xF8."""
TLB_FLUSH_ASID = 3

ADDRESS_BITS = 0x000F_FFFF_FFFF_F000
"""Bits 51:12, the only ones of an address that an AVIC field holds."""

# table entries
ENTRY_VALID = 63
ENTRY_RUNNING = 62
LOGICAL_VALID = 31
MAX_XAVIC = 254
MAX_X2AVIC = 511
MAX_X2AVIC_EXT = 4095

# exits
EXIT_INCOMPLETE_IPI = 0x401
EXIT_NOACCEL = 0x402
IPI_INVALID_TYPE, IPI_NOT_RUNNING, IPI_INVALID_TARGET, IPI_INVALID_PAGE, IPI_INVALID_VECTOR = range(5)
"""Ids of AVIC_INCOMPLETE_IPI, EXITINFO2[63:32]."""

DOORBELL_MSR = 0xC001011B
X2APIC_MSRS = 0x800

(
    INHIBIT_DISABLED,
    INHIBIT_HYPERV,
    INHIBIT_ABSENT,
    INHIBIT_BLOCKIRQ,
    INHIBIT_PHYSICAL_ID_ALIASED,
    INHIBIT_APIC_ID_MODIFIED,
    INHIBIT_APIC_BASE_MODIFIED,
    INHIBIT_NESTED,
    INHIBIT_IRQWIN,
    INHIBIT_PIT_REINJ,
    INHIBIT_SEV,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_TOO_BIG,
) = range(13)
"""Bit numbers of the reasons that keep AVIC off for a VM."""

TOLD_INHIBITS = (INHIBIT_HYPERV, INHIBIT_BLOCKIRQ, INHIBIT_IRQWIN, INHIBIT_PIT_REINJ, INHIBIT_SEV)
"""Reasons that somebody outside the APIC sets and clears."""

NO_METADATA = 1
"""What `set_vcpu_affinity` returns when it succeeds but gives no metadata."""
