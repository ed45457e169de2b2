/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that avic.h speaks of; errnos are those of <errno.h>. */
#ifndef CONFORMANCE_AVIC_CONSTANTS_H
#define CONFORMANCE_AVIC_CONSTANTS_H

/* -- CPUID Fn8000_000A EDX and ECX -- */

#define CPUID_NP 0
#define CPUID_AVIC 13
#define CPUID_X2AVIC 18
#define CPUID_X2AVIC_EXT 6
/* In ECX: 4096 vCPUs in x2AVIC mode. */

/* -- local APIC registers: offsets in the 4 KiB page -- */

#define APIC_ID 0x20
#define APIC_LVR 0x30
#define APIC_TPR 0x80
#define APIC_APR 0x90
#define APIC_PPR 0xA0
#define APIC_EOI 0xB0
#define APIC_RRR 0xC0
#define APIC_LDR 0xD0
#define APIC_DFR 0xE0
#define APIC_SPIV 0xF0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ESR 0x280
#define APIC_ICR 0x300
#define APIC_ICR2 0x310
#define APIC_LVTT 0x320
#define APIC_LVTTHMR 0x330
#define APIC_LVTPC 0x340
#define APIC_LVT0 0x350
#define APIC_LVT1 0x360
#define APIC_LVTERR 0x370
#define APIC_TMICT 0x380
#define APIC_TMCCT 0x390
#define APIC_TDCR 0x3E0
#define APIC_SELF_IPI 0x3F0
/* Exists in x2APIC mode only, as MSR 0x83F. */
#define FLAT 0xFFFFFFFFU
#define CLUSTER 0xFFFFFFF
#define LVT_MASKED 0x10000
#define LVT0_EXTINT 0x700
#define SPIV_RESET 0xFF
#define SPIV_ENABLE 8
/* Bit of SPIV that enables the APIC in software. */
#define BROADCAST 0xFF
#define X2_BROADCAST 0xFFFFFFFFU
#define APIC_BASE 0xFEE00000U
#define BASE_BSP 8
#define BASE_EXTD 10
#define BASE_AE 11
/* Bits of the APIC_BASE MSR. */

/* -- ICR low half -- */

#define ICR_BUSY 12
#define ICR_LOGICAL 11
#define ICR_ASSERT 14
#define ICR_LEVEL 15
#define ICR_SHORTHAND 18
#define FIXED 0
#define LOWEST 1
#define SMI 2
#define REMOTE_READ 3
#define NMI 4
#define INIT 5
#define STARTUP 6
#define EXTINT 7
/* Delivery modes. */
#define NO_SHORTHAND 0
#define SELF 1
#define ALL 2
#define OTHERS 3
/* Destination shorthands. */
#define X2_ICR_RESERVED 0xFFF32000U
/* Bits 13, 17:16 and 31:20; bit 12 (busy) is a case of its own. */

/* -- VMCB control area -- */

#define VMCB_ASID 0x58
#define VMCB_TLB_CONTROL 0x5C
#define VMCB_INT_CTL 0x60
#define VMCB_NESTED_CTL 0x90
#define VMCB_APIC_BAR 0x98
#define VMCB_BACKING_PAGE 0xE0
#define VMCB_LOGICAL_TABLE 0xF0
#define VMCB_PHYSICAL_TABLE 0xF8
#define INT_CTL_INTR_MASKING 24
#define INT_CTL_X2AVIC 30
#define INT_CTL_AVIC 31
#define CLEAN_AVIC 11
/* Clean bit of the fields at 0x98, 0xE0, 0xF0 and 0xF8. */
#define TLB_FLUSH_ASID 3
#define ADDRESS_BITS 0xFFFFFFFFFF000ULL
/* Bits 51:12, the only ones of an address that an AVIC field holds. */

/* -- table entries -- */

#define ENTRY_VALID 63
#define ENTRY_RUNNING 62
#define LOGICAL_VALID 31
#define MAX_XAVIC 254
#define MAX_X2AVIC 511
#define MAX_X2AVIC_EXT 4095

/* -- exits -- */

#define EXIT_INCOMPLETE_IPI 0x401
#define EXIT_NOACCEL 0x402
#define IPI_INVALID_TYPE 0
#define IPI_NOT_RUNNING 1
#define IPI_INVALID_TARGET 2
#define IPI_INVALID_PAGE 3
#define IPI_INVALID_VECTOR 4
/* Ids of AVIC_INCOMPLETE_IPI, EXITINFO2[63:32]. */
#define DOORBELL_MSR 0xC001011BU
#define X2APIC_MSRS 0x800
#define INHIBIT_DISABLED 0
#define INHIBIT_HYPERV 1
#define INHIBIT_ABSENT 2
#define INHIBIT_BLOCKIRQ 3
#define INHIBIT_PHYSICAL_ID_ALIASED 4
#define INHIBIT_APIC_ID_MODIFIED 5
#define INHIBIT_APIC_BASE_MODIFIED 6
#define INHIBIT_NESTED 7
#define INHIBIT_IRQWIN 8
#define INHIBIT_PIT_REINJ 9
#define INHIBIT_SEV 10
#define INHIBIT_LOGICAL_ID_ALIASED 11
#define INHIBIT_PHYSICAL_ID_TOO_BIG 12
/* Bit numbers of the reasons that keep AVIC off for a VM. */
#define NO_METADATA 1
/* What set_vcpu_affinity returns when it succeeds but gives no metadata. */

#endif
