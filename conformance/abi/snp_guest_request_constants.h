/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that snp_guest_request.h speaks of; errnos are those of <errno.h>. */
#ifndef CONFORMANCE_SNP_GUEST_REQUEST_CONSTANTS_H
#define CONFORMANCE_SNP_GUEST_REQUEST_CONSTANTS_H

/* -- errno, as Linux numbers them -- */


/* -- VMGEXIT and the GHCB page -- */

#define GUEST_REQUEST 0x80000011U
#define EXT_GUEST_REQUEST 0x80000012U
#define FIRST_UNDEFINED 0x800000FFU
#define UNSUPPORTED_EVENT 0x8000FFFFU
#define PAGE_SIZE 4096
#define GHCB_RAX 0x1F8
#define GHCB_RCX 0x308
#define GHCB_RDX 0x310
#define GHCB_RBX 0x318
#define GHCB_SW_EXITCODE 0x390
#define GHCB_SW_EXITINFO1 0x398
#define GHCB_SW_EXITINFO2 0x3A0
#define GHCB_VALID_BITMAP 0x3F0
/* 16 bytes; the valid bit of the field at offset o is bit o/8. */
#define GHCB_USAGE 0xFFC
/* u32; 0 is the only usage defined. */
#define MALFORMED 2
/* SW_EXITINFO1: the input was malformed, SW_EXITINFO2 says why. */
#define INVALID_USAGE 2
#define MISSING_INPUT 4
#define INVALID_INPUT 5
#define INVALID_EVENT 6
#define TOO_SMALL_INFO2 0x100000000ULL
#define BUSY_INFO2 0x200000000ULL
#define GENERIC_INFO2 0xFFFFFFFF00000000ULL

/* -- results of `vmgexit` and `vcpu_continue` -- */

#define EXIT 0
/* KVM_RUN returns 0: userspace has something to do. */
#define RESUME 1
/* The guest goes on. */
#define EXIT_SNP_REQ_CERTS 42
/* Exit reason: userspace shall supply certificates. */
#define RUN_NPAGES 1
#define RUN_RET 2
/* Fields that run_read reads. */

/* -- VMs -- */

#define SEV 1
#define SEV_ES 2
#define SNP 3

/* -- firmware -- */

#define C_BIT 51
/*
 * Number of the bit that marks an encrypted address; addresses given to firmware carry it.
 */
#define FW_BLOB_MAX_SIZE 0x4000
/* The lock that every firmware command takes; there from the start. */
#define NO_FD (-1)
/*
 * In place of a file descriptor: the caller is the kernel itself, and no file is checked.
 */
#define UNINITIALISED 0xAAAAAAAAAAAAAAAAULL
/*
 * What a variable holds that nobody has written; each half of it is recognised where it leaves the
 * host.
 */
#define INVALID_PLATFORM_STATE 1
#define INVALID_GUEST_STATE 2
#define INVALID_ADDRESS 9
#define BAD_MEASUREMENT 0xB
#define ASID_OWNED 0xC
#define INVALID_ASID 0xD
#define INVALID_GUEST 0x10
#define INVALID_PARAM 0x16
#define INVALID_PAGE_SIZE 0x19
#define INVALID_PAGE_STATE 0x1A
#define AEAD_OFLOW 0x1D
#define INVALID_KEY 0x27
#define UNUSED_STATUS 0x1E
/* The one value up to INVALID_KEY that is no status. */

/* -- RMP states, as `rmp_lookup` answers -- */

#define HYPERVISOR 0
#define HV_FIXED 1
#define FIRMWARE 2
#define CONTEXT 3
#define METADATA 4
#define RECLAIM 5
#define PRE_GUEST 6
#define PRE_SWAP 7
#define GUEST_INVALID 8
#define GUEST_VALID 9

/* -- guest messages -- */

#define HEADER_SIZE 0x60
#define MSG_SEQNO 0x20
#define MSG_ALGO 0x30
#define MSG_HDR_VERSION 0x31
#define MSG_HDR_SIZE 0x32
#define MSG_TYPE 0x34
#define MSG_VERSION 0x35
#define MSG_SIZE 0x36
#define MSG_VMPCK 0x3C
#define CPUID_REQ 1
#define KEY_REQ 3
#define REPORT_REQ 5
#define EXPORT_REQ 7
#define TSC_INFO_REQ 17
#define REPORT_RSP_SIZE 0x4C0
#define KEY_RSP_SIZE 0x40
#define REPORT_SIZE 0x4A0

/* -- secrets page -- */

#define SECRETS_VMPCK 0x20
/* Four keys of 32 bytes; 32 zero bytes mean that the key is disabled. */
#define SECRETS_SEQNO 0xA0
/* Four u32 for the operating system: the sequence number last used with each key. */

#endif
