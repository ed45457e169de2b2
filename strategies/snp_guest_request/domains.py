"""Worlds, values of the fields, and refusals: the plainest first."""

from __future__ import annotations

from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import LATE_EFAULT, Config
from conformance.specs.snp_guest_request.constants import (
    EAGAIN,
    EBADF,
    EBUSY,
    EFAULT,
    EINTR,
    EIO,
    ENODEV,
    ENOMEM,
    ENOSPC,
    ETIMEDOUT,
    EXT_GUEST_REQUEST,
    GUEST_REQUEST,
    INVALID_KEY,
    SEV_ES,
    SNP,
    UNUSED_STATUS,
)
from conformance.strategies.domain import Domain

CONFIGS = (
    Config(),
    Config(certs=True),
    Config(vcpus=2),
    Config(vcpus=2, certs=True),
    Config(second=SNP),
    Config(certs=True, second=SNP),
    Config(second=SEV_ES),
    Config(started=False),
    Config(count=2**64 - 4),
    Config(count=2**64 - 2),
    Config(throttle=True, second=SNP),
    Config(side="guest"),
    Config(side="guest", host="hypervisor"),
    Config(side="guest", count=2**32 - 6),
    Config(side="guest", open=False),
)

VMS = Domain((0, 1))
VMPLS = Domain((3,), (2, 1, 0), usual=0.8)
FIELDS = Domain((0, 9), (63, 16, 32, 64, 2**32, 2**63))
DATA_WORD = Domain((0,), (2**64 - 1,), bounds=(0, 2**64 - 1))
VCPUS = Domain((0, 1, 2))

MESSAGE_NAMES = Domain(
    ("report", "key", "bad-tag", "replay"), tuple(m for m in MESSAGES if m not in ("report", "key")), usual=0.6
)

REQUESTS = Domain(
    ("R",),
    (
        "hole",
        "P",
        "R+8",
        "private",
        "readonly",
        "0",
        "far R",
        "2^51",
        "2^52-4096",
        "2^63",
        "-4096",
        "R+4095",
        "R+2048",
    ),
    usual=0.85,
)

RESPONSES = Domain(
    ("P",),
    (
        "P'",
        "hole",
        "R",
        "private",
        "readonly",
        "G",
        "G'",
        "D",
        "D1",
        "P+8",
        "P+1",
        "P+2048",
        "0",
        "far P",
        "2^51",
        "2^63",
        "-4096",
        "R'",
    ),
    usual=0.7,
)

DATA = Domain(
    ("D", "D3"),
    ("D+8", "hole", "P", "G", "R", "private", "readonly", "D1", "D+1", "D+2048", "0", "far D", "2^63", "-4096"),
    usual=0.75,
)

NPAGES = Domain((4, 0, 1, 2), (3, 5, 2**20, 2**51, 2**52 - 1, 2**52, 2**52 + 1, 2**63, 2**64 - 1), usual=0.75)
MISSING = Domain(("",), ("a", "b", "ab", "1", "2", "c", "12", "x", "d", "c12ab", "abxd"), usual=0.88)
USAGE = Domain((0,), (1, 0xFFFFFFFF, 2, 0x10000, 2**31), usual=0.95)
UNKNOWN_CODES = Domain(
    (0x8000_00FF,),
    (1 << 32 | GUEST_REQUEST, 1 << 32 | EXT_GUEST_REQUEST, 1 << 63 | GUEST_REQUEST, 1 << 63 | EXT_GUEST_REQUEST),
)
GHCB = Domain(("own",), ("spare", "sibling"), usual=0.95)
STATUSES = tuple(s for s in range(1, INVALID_KEY + 1) if s != UNUSED_STATUS)

COMMAND = (
    0x16,
    0x1D,
    0x27,
    0x01,
    -EBADF,
    -ENODEV,
    -EFAULT,
    -ETIMEDOUT,
    LATE_EFAULT,
)

RETS = tuple(e for e in (*range(1, 41), 110, 255) if e not in (EIO, EAGAIN, ENOSPC))
"""What userspace may answer though it means nothing."""

REQUEST_FAULTS = (
    ("snp_guest_request", COMMAND),
    ("snp_page_reclaim", (-EIO,)),
    ("rmp_make_shared", (-EFAULT,)),
    ("rmp_make_private", (-EFAULT,)),
    ("read_guest", (-EFAULT,)),
    ("write_guest", (-EFAULT,)),
    ("clear_guest", (-EFAULT,)),
    ("gfn_to_pfn", (-EFAULT,)),
    ("ghcb_map", (-EFAULT,)),
    ("mutex_lock_killable", (-EINTR,)),
    ("kzalloc", (-ENOMEM,)),
)

MEMORY_FAULTS = (
    ("alloc_page", (-ENOMEM,)),
    ("alloc_fw_page", (-ENOMEM,)),
    ("kzalloc", (-ENOMEM,)),
    ("kmalloc", (-ENOMEM,)),
)

ASID_FAULT = ("alloc_asid", (-EBUSY,))

LAUNCH_FAULTS = (
    ("alloc_fw_page", (-ENOMEM,)),
    ("kzalloc", (-ENOMEM,)),
    ("snp_gctx_create", (0x1A, -EBUSY)),
    ("snp_launch_start", (0x07, -EBUSY)),
    ("snp_activate", (0x0D, -EBUSY)),
    ("snp_decommission", (0x10, -EBUSY)),
    ("snp_page_reclaim", (-EIO,)),
)

TEARDOWN_FAULTS = (
    ("snp_decommission", (0x10, -EBUSY, -ETIMEDOUT)),
    ("snp_page_reclaim", (-EIO,)),
    ("rmp_make_shared", (-EFAULT,)),
)

STORE_FAULTS = (("copy_from_user", (-EFAULT,)), ("kzalloc", (-ENOMEM,)), ("kmalloc", (-ENOMEM,)))
LENGTHS = Domain((4096, 8192), (1, 20, 24, 0, 4095, 4097, 8191, 0x3FFF, 0x4000, 0x4001, 0x5000, 2**64 - 1), usual=0.5)
ROOM = Domain((0x4000,), (0, 1, 20, 4095, 4096, 4097, 8191, 8192), usual=0.5)

KERNEL_CERTS = frozenset({"as-posted", "kernel-certs", "bounce-certs"})
"""Profiles in which a handler keeps certificates, whether it works on the guest's own pages or on others."""
