/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that tdp_mirror.h speaks of; errnos are those of <errno.h>. */
#ifndef CONFORMANCE_TDP_MIRROR_CONSTANTS_H
#define CONFORMANCE_TDP_MIRROR_CONSTANTS_H

/* -- errno, as Linux numbers them -- */

#define EHWPOISON 133

/* -- page-table entries (Intel EPT with accessed and dirty bits) -- */

#define PAGE_SHIFT 12
#define INVALID_PAGE 0xFFFFFFFFFFFFFFFFULL
/* root_hpa and mirror_root_hpa while there is no root. */
#define RWX 7
#define READ 0
#define WRITE 1
#define EXEC 2
/* Bit numbers of the permissions. */
#define HUGE 7
#define ACCESSED 8
#define DIRTY 9
#define PRESENT 11
/* MMU-present: the only test of presence. */
#define PFN_BITS 40
/* Bits 12 to 51 hold the page frame number. */
#define HOST_WRITABLE 57
#define MMU_WRITABLE 58
#define SUPPRESS_VE 63
#define NONPRESENT 0x8000000000000000ULL
#define FROZEN 0x80000000000005A0ULL
#define MEMTYPE_WB 0x30

/* -- levels -- */

#define PG_LEVEL_4K 1
#define PG_LEVEL_2M 2
#define MAX_HUGE_LEVEL 3

/* -- role word of a table (the bits that this subsystem uses) -- */

#define ROLE_LEVEL_MASK 0xF
#define ROLE_DIRECT 7
#define ROLE_ACCESS 8
#define ROLE_INVALID 11
#define ROLE_MIRROR 19

/* -- root types and filters -- */

#define TYPE_VALIDITY 1
/* Bit 0. Upstream: also invalid roots. As posted: valid roots only. */
#define DIRECT_ROOTS 2
#define MIRROR_ROOTS 4
#define FILTER_SHARED 1
#define FILTER_PRIVATE 2

/* -- results of faults, bits of error codes -- */

#define RET_PF_CONTINUE 0
#define RET_PF_RETRY 1
#define RET_PF_EMULATE 2
#define RET_PF_WRITE_PROTECTED 3
#define RET_PF_INVALID 4
#define RET_PF_FIXED 5
#define RET_PF_SPURIOUS 6
#define PFERR_PRESENT 0
#define PFERR_WRITE 1
#define PFERR_GUEST_FINAL 32
#define PFERR_PRIVATE_ACCESS 49
/* Bit numbers. */

/* -- uAPI -- */

#define MEMORY_EXIT_PRIVATE 8
#define ATTRIBUTE_PRIVATE 8
#define MEM_LOG_DIRTY_PAGES 1
#define MEM_READONLY 2
#define MEM_GUEST_MEMFD 4
#define SLOT_INVALID 0x10000
/* Internal flag of a slot that is being deleted or moved. */

/* -- page kinds of the memory caches -- */

#define HEADER 0
#define TABLE 1
#define EXTERNAL 2

/* -- requests to vCPUs -- */

#define REQ_FREE_OBSOLETE_ROOTS 1
#define REQ_OUTSIDE_GUEST 2

/* -- TDX: states of a TD, levels, status codes -- */

#define TD_INIT 0
#define TD_RUNNABLE 1
#define TD_TEARDOWN 2
#define TDX_SUCCESS 0
#define TDX_OPERAND_BUSY 0x8000020000000000ULL
#define TDX_PREVIOUS_TLB_EPOCH_BUSY 0x8000020100000000ULL
#define TDX_OPERAND_BUSY_HOST_PRIORITY 0x8000020400000000ULL
#define TDX_TD_ASSOCIATED_PAGES_EXIST 0xC000040000000000ULL
#define TDX_EPT_WALK_FAILED 0xC0000B0000000000ULL
#define TDX_GPA_RANGE_NOT_BLOCKED 0xC0000B0600000000ULL
#define TDX_GPA_RANGE_ALREADY_BLOCKED 0xB0700000000ULL
#define TDX_TLB_TRACKING_NOT_DONE 0xC0000B0800000000ULL
#define TDX_PAGE_ALREADY_ACCEPTED 0xB0A00000000ULL
#define TDX_PAGE_SIZE_MISMATCH 0xC0000B0B00000000ULL
#define TDX_EPT_ENTRY_STATE_INCORRECT 0xC0000B0D00000000ULL
#define TDX_EPT_PAGE_NOT_FREE 0xC0000B0E00000000ULL
#define TDX_OPERAND_INVALID 0xC000010000000000ULL
#define TDX_PAGE_METADATA_INCORRECT 0xC000030000000000ULL
#define TDX_OPERAND_ID_RCX 1
#define TDX_OPERAND_ID_TDR 0x80
#define TDX_OPERAND_ID_SEPT 0x92
#define TDX_OPERAND_ID_EPOCH 0xA9
#define TDX_STATUS_MASK 0xFFFFFFFF00000000ULL
/* What the low 32 bits add, the operand, is not part of the status. */

#endif
