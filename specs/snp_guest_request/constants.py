"""Numbers of the GHCB, the firmware interface, the guest message and Linux, as their manuals give them."""

from __future__ import annotations

from typing import Final

# -- errno, as Linux numbers them

EPERM: Final = 1
ENOENT: Final = 2
EINTR: Final = 4
EIO: Final = 5
EBADF: Final = 9
EAGAIN: Final = 11
ENOMEM: Final = 12
EFAULT: Final = 14
EBUSY: Final = 16
ENODEV: Final = 19
EINVAL: Final = 22
ENOTTY: Final = 25
ENOSPC: Final = 28
ENOSR: Final = 63
EBADMSG: Final = 74
ETIMEDOUT: Final = 110

# -- VMGEXIT and the GHCB page

GUEST_REQUEST: Final = 0x80000011
EXT_GUEST_REQUEST: Final = 0x80000012
FIRST_UNDEFINED: Final = 0x8000_00FF
"""SW_EXITCODE from which no version of the GHCB specification (56421) defines one, but for the next."""
UNSUPPORTED_EVENT: Final = 0x8000_FFFF
PAGE_SIZE: Final = 4096
GHCB_RAX: Final = 0x1F8
GHCB_RCX: Final = 0x308
GHCB_RDX: Final = 0x310
GHCB_RBX: Final = 0x318
GHCB_SW_EXITCODE: Final = 0x390
GHCB_SW_EXITINFO1: Final = 0x398
GHCB_SW_EXITINFO2: Final = 0x3A0
GHCB_VALID_BITMAP: Final = 0x3F0
"""16 bytes; the valid bit of the field at offset o is bit o/8."""
GHCB_USAGE: Final = 0xFFC
"""u32; 0 is the only usage defined."""

MALFORMED: Final = 2
"""SW_EXITINFO1: the input was malformed, SW_EXITINFO2 says why."""
INVALID_USAGE: Final = 2
MISSING_INPUT: Final = 4
INVALID_INPUT: Final = 5
INVALID_EVENT: Final = 6

TOO_SMALL_INFO2: Final = 1 << 32
BUSY_INFO2: Final = 2 << 32
GENERIC_INFO2: Final = 0xFFFFFFFF << 32

# -- results of `vmgexit` and `vcpu_continue`

EXIT: Final = 0
"""KVM_RUN returns 0: userspace has something to do."""
RESUME: Final = 1
"""The guest goes on."""
EXIT_SNP_REQ_CERTS: Final = 42
"""Exit reason: userspace shall supply certificates."""

RUN_NPAGES: Final = 1
RUN_RET: Final = 2
"""Fields that `run_read` reads."""

# -- VMs

SEV: Final = 1
SEV_ES: Final = 2
SNP: Final = 3

# -- firmware

C_BIT: Final = 51
"""Number of the bit that marks an encrypted address; addresses given to firmware carry it."""
FW_BLOB_MAX_SIZE: Final = 0x4000
SEV_CMD_MUTEX: Final = "sev_cmd_mutex"
"""The lock that every firmware command takes; there from the start."""
NO_FD: Final = -1
"""In place of a file descriptor: the caller is the kernel itself, and no file is checked."""
UNINITIALISED: Final = 0xAAAAAAAAAAAAAAAA
"""What a variable holds that nobody has written; each half of it is recognised where it leaves the host."""

INVALID_PLATFORM_STATE: Final = 0x01
INVALID_GUEST_STATE: Final = 0x02
INVALID_ADDRESS: Final = 0x09
BAD_MEASUREMENT: Final = 0x0B
ASID_OWNED: Final = 0x0C
INVALID_ASID: Final = 0x0D
INVALID_GUEST: Final = 0x10
INVALID_PARAM: Final = 0x16
INVALID_PAGE_SIZE: Final = 0x19
INVALID_PAGE_STATE: Final = 0x1A
AEAD_OFLOW: Final = 0x1D
INVALID_KEY: Final = 0x27
UNUSED_STATUS: Final = 0x1E
"""The one value up to INVALID_KEY that is no status."""

# -- RMP states, as `rmp_lookup` answers

HYPERVISOR: Final = 0
HV_FIXED: Final = 1
FIRMWARE: Final = 2
CONTEXT: Final = 3
METADATA: Final = 4
RECLAIM: Final = 5
PRE_GUEST: Final = 6
PRE_SWAP: Final = 7
GUEST_INVALID: Final = 8
GUEST_VALID: Final = 9
RMP_NAMES: Final = (
    "HYPERVISOR",
    "HV_FIXED",
    "FIRMWARE",
    "CONTEXT",
    "METADATA",
    "RECLAIM",
    "PRE_GUEST",
    "PRE_SWAP",
    "GUEST_INVALID",
    "GUEST_VALID",
)

# -- guest messages

HEADER_SIZE: Final = 0x60
MSG_SEQNO: Final = 0x20
MSG_ALGO: Final = 0x30
MSG_HDR_VERSION: Final = 0x31
MSG_HDR_SIZE: Final = 0x32
MSG_TYPE: Final = 0x34
MSG_VERSION: Final = 0x35
MSG_SIZE: Final = 0x36
MSG_VMPCK: Final = 0x3C
CPUID_REQ: Final = 1
KEY_REQ: Final = 3
REPORT_REQ: Final = 5
EXPORT_REQ: Final = 7
TSC_INFO_REQ: Final = 17
REPORT_RSP_SIZE: Final = 0x4C0
KEY_RSP_SIZE: Final = 0x40
REPORT_SIZE: Final = 0x4A0

# -- secrets page

SECRETS_VMPCK: Final = 0x20
"""Four keys of 32 bytes; 32 zero bytes mean that the key is disabled."""
SECRETS_SEQNO: Final = 0xA0
"""Four u32 for the operating system: the sequence number last used with each key."""
