/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that cet.h speaks of; errnos are those of <errno.h>. */
#ifndef CONFORMANCE_CET_CONSTANTS_H
#define CONFORMANCE_CET_CONSTANTS_H

#define U_CET 0x6A0
#define S_CET 0x6A2
#define PL0_SSP 0x6A4
#define PL1_SSP 0x6A5
#define PL2_SSP 0x6A6
#define PL3_SSP 0x6A7
#define INT_SSP_TAB 0x6A8
#define XSS 0xDA0
#define INTERNAL_GUEST_SSP 0x4B564DFF
/* KVM's own name for SSP, which is no MSR; for registers of userspace only. */
#define SH_STK_EN 0
/* Bit of U_CET and S_CET that turns shadow stacks on. */
#define ENDBR_EN 2
/* Bit of U_CET and S_CET that turns indirect branch tracking on. */
#define CR0_WP 16
#define CR4_CET 23
#define CET_U 11
/* XSAVES component of U_CET and PL3_SSP, 16 bytes; also its bit in XSS. */
#define CET_S 12
/* XSAVES component of PL0_SSP, PL1_SSP and PL2_SSP, 24 bytes; also its bit in XSS. */
#define XSAVE_BASE_SIZE 576
/* Bytes of a compacted image with the legacy area and the header alone. */
#define READ 1
#define WRITE 2
/* Kinds of access an intercept stops, as bits. */
#define GUEST_CR0 0x6800
#define GUEST_CR4 0x6804
#define GUEST_S_CET 0x6828
#define GUEST_SSP 0x682A
#define GUEST_INTR_SSP_TABLE 0x682C
#define HOST_CR0 0x6C00
#define HOST_CR4 0x6C04
#define HOST_S_CET 0x6C18
#define HOST_SSP 0x6C1A
#define HOST_INTR_SSP_TABLE 0x6C1C
/* The CET fields of a VMCS, guest area first. */
#define VM_EXIT_CONTROLS 0x400C
#define VM_ENTRY_CONTROLS 0x4012
#define VM_ENTRY_LOAD_CET 20
#define VM_EXIT_LOAD_CET 28
#define VM_EXIT_HOST_64 9
/* VM-exit control "host address-space size": L1 resumes in 64-bit mode. */
#define VMCB_S_CET 0x1E0
#define VMCB_SSP 0x1E8
#define VMCB_ISST_ADDR 0x1F0
/* Offsets in the save area of a VMCB. */
#define VMCB_CLEAN 0xC0
/* Offset of the clean field in the control area; used for vmcb12 only. */
#define VMCB_CET 12
/* Clean bit of S_CET, SSP and ISST_ADDR. */
#define SMRAM_SSP 0xFF18
#define SMRAM_CR4 0xFF48
#define SMRAM_CR0 0xFF58
/* Slots of the 64-bit SMM state-save map. */
#define MAX_MSR_ENTRIES 256
/* A batch of this many MSRs or more is refused. */
#define ONE_REG_SIZE 16
/* Bytes of struct kvm_one_reg: the id, and where the 8 bytes of the value are. */
#define ONE_REG_MSR 0x2030000200000000ULL
/* Id of a 64-bit register of type MSR; the MSR's number is in the low 32 bits. */
#define ONE_REG_GUEST_SSP 0x2030000300000000ULL
/* Id of the one KVM-defined register. */
#define ENTERED 0
#define VMFAIL_HOST_STATE 1
#define INVALID_GUEST_STATE 2
#define VMEXIT_INVALID 3
/*
 * What nested_enter returns: success, VM-instruction error, failed VM entry, failed VMRUN.
 */
#define EMULATED 0
#define EMULATED_GP 1
#define UNHANDLEABLE 2
/* What emulate returns: done, #GP(0) for the guest, refused. */

#endif
