"""TDP MMU with direct and mirror roots, and an external page table that mirrors follow.

A guest-physical address space in two halves, told apart by one address bit. The shared half is
translated by an ordinary page table under a *direct* root; the private half by an *external* tree
that only protected firmware touches. The implementation keeps a *mirror* root, shaped like the
external tree, and propagates every change of it through slow calls that can fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from conformance.specs import clause
from conformance.specs.clause import Clause, Kind, Level

# -- errno, as Linux numbers them

ENOENT = 2
EINTR = 4
EIO = 5
EAGAIN = 11
ENOMEM = 12
EFAULT = 14
EBUSY = 16
EEXIST = 17
EINVAL = 22
EOPNOTSUPP = 95
EHWPOISON = 133

# -- page-table entries (Intel EPT with accessed and dirty bits)

PAGE_SHIFT = 12
INVALID_PAGE = 2**64 - 1
"""root_hpa and mirror_root_hpa while there is no root."""
RWX = 7
READ, WRITE, EXEC = 0, 1, 2
"""Bit numbers of the permissions."""
HUGE = 7
ACCESSED = 8
DIRTY = 9
PRESENT = 11
"""MMU-present: the only test of presence."""
PFN_BITS = 40
"""Bits 12 to 51 hold the page frame number."""
HOST_WRITABLE = 57
MMU_WRITABLE = 58
SUPPRESS_VE = 63
NONPRESENT = 1 << SUPPRESS_VE
FROZEN = NONPRESENT | 0x5A0
MEMTYPE_WB = 6 << 3

# -- levels

PG_LEVEL_4K = 1
PG_LEVEL_2M = 2
MAX_HUGE_LEVEL = 3

# -- role word of a table (the bits that this subsystem uses)

ROLE_LEVEL_MASK = 0xF
ROLE_DIRECT = 7
ROLE_ACCESS = 8
ROLE_INVALID = 11
ROLE_MIRROR = 19

# -- root types and filters

TYPE_VALIDITY = 1
"""Bit 0. Upstream: also invalid roots. As posted: valid roots only."""
DIRECT_ROOTS = 2
MIRROR_ROOTS = 4
FILTER_SHARED = 1
FILTER_PRIVATE = 2

# -- results of faults, bits of error codes

RET_PF_CONTINUE, RET_PF_RETRY, RET_PF_EMULATE, RET_PF_WRITE_PROTECTED = 0, 1, 2, 3
RET_PF_INVALID, RET_PF_FIXED, RET_PF_SPURIOUS = 4, 5, 6
PFERR_PRESENT, PFERR_WRITE = 0, 1
PFERR_GUEST_FINAL = 32
PFERR_PRIVATE_ACCESS = 49
"""Bit numbers."""

# -- uAPI

MEMORY_EXIT_PRIVATE = 1 << 3
ATTRIBUTE_PRIVATE = 1 << 3
MEM_LOG_DIRTY_PAGES = 1 << 0
MEM_READONLY = 1 << 1
MEM_GUEST_MEMFD = 1 << 2
SLOT_INVALID = 1 << 16
"""Internal flag of a slot that is being deleted or moved."""

# -- page kinds of the memory caches

HEADER, TABLE, EXTERNAL = 0, 1, 2

# -- requests to vCPUs

REQ_FREE_OBSOLETE_ROOTS = 1
REQ_OUTSIDE_GUEST = 2

# -- TDX: states of a TD, levels, status codes

TD_INIT, TD_RUNNABLE, TD_TEARDOWN = 0, 1, 2
TDX_SUCCESS = 0
TDX_OPERAND_BUSY = 0x8000020000000000
TDX_PREVIOUS_TLB_EPOCH_BUSY = 0x8000020100000000
TDX_OPERAND_BUSY_HOST_PRIORITY = 0x8000020400000000
TDX_TD_ASSOCIATED_PAGES_EXIST = 0xC000040000000000
TDX_EPT_WALK_FAILED = 0xC0000B0000000000
TDX_GPA_RANGE_NOT_BLOCKED = 0xC0000B0600000000
TDX_GPA_RANGE_ALREADY_BLOCKED = 0x00000B0700000000
TDX_TLB_TRACKING_NOT_DONE = 0xC0000B0800000000
TDX_PAGE_ALREADY_ACCEPTED = 0x00000B0A00000000
TDX_PAGE_SIZE_MISMATCH = 0xC0000B0B00000000
TDX_EPT_ENTRY_STATE_INCORRECT = 0xC0000B0D00000000
TDX_EPT_PAGE_NOT_FREE = 0xC0000B0E00000000
TDX_OPERAND_INVALID = 0xC000010000000000
TDX_PAGE_METADATA_INCORRECT = 0xC000030000000000
TDX_OPERAND_ID_RCX = 1
TDX_OPERAND_ID_TDR = 0x80
TDX_OPERAND_ID_SEPT = 0x92
TDX_OPERAND_ID_EPOCH = 0xA9
TDX_STATUS_MASK = 0xFFFFFFFF00000000
"""What the low 32 bits add, the operand, is not part of the status."""

CAPABILITIES = {
    "small-tables": "page tables of fewer than 512 entries and fewer than four levels, as bounded runs use",
    "seamcalls": "the external operations themselves, down to the firmware's SEAMCALLs",
    "tables-of-512": "page tables of 512 entries and four or five levels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(clause.Profile):
    """What differs between the seed, the releases and the later clean-up."""

    bit0_is_valid: bool = False
    """Bit 0 of root types restricts to valid roots, rather than including invalid ones."""
    warns_on_empty_filter: bool = False
    """Filter 0 warns on every VM, not only where there is a mirror."""
    root_by_access: bool = False
    """The root of a fault follows the access (private or not) rather than the address."""
    pins_pages: bool = True
    """Pages that the TD owns are kept by a reference; afterwards the caller's word is enough."""
    premapped: bool = True
    """Leaves set before the TD is finalized are counted, and added to it only later."""


PROFILES = {
    "upstream": Profile(name="upstream", text="Linux 6.16 with the error codes of 6.19"),
    "upstream-6.19": Profile(
        name="upstream-6.19",
        text="after the post-populate clean-ups: pages are added at once",
        pins_pages=False,
        premapped=False,
    ),
    "as-posted": Profile(
        name="as-posted",
        text="the seed post of May 2024 with the rest of its series",
        bit0_is_valid=True,
        warns_on_empty_filter=True,
        root_by_access=True,
    ),
}

# -- clauses

ROOT_KIND_FIXED = Clause(
    id="TDP-001",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Every root is exactly one of direct or mirror; fixed by role.is_mirror at creation and never "
        "changed; all tables below it carry the same flag."
    ),
    source="seed post (v2 09/15); Linux 6.16 tdp_mmu.c tdp_mmu_init_child_sp",
)

MATCH_NEEDS_KIND = Clause(
    id="TDP-002",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="root_match returns false and warns once if types contains neither DIRECT nor MIRROR.",
    source="seed post (v2 09/15); Linux 6.16 tdp_mmu_root_match",
)

MATCH_INVALID_WITH_KIND = Clause(
    id="TDP-003",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An invalid root matches only if types has INVALID and has the root's own kind bit; a valid root "
        "matches iff its kind bit is set. Full truth table: 8 types x 4 roots."
    ),
    source="Linux 6.16 tdp_mmu_root_match",
    profiles=frozenset({"upstream", "upstream-6.19"}),
)

MATCH_VALID_BIT = Clause(
    id="TDP-004",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="With VALID set, invalid roots never match; without VALID, validity is ignored; kind bit always required.",
    source="seed post (v2 09/15)",
    profiles=frozenset({"as-posted"}),
)

FILTER_TO_TYPES = Clause(
    id="TDP-005",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "filter_to_types: no mirror -> DIRECT for every filter; mirror -> PRIVATE gives MIRROR, SHARED gives "
        "DIRECT, both gives both; 0 on a mirror VM warns once and gives 0. As-posted warns on 0 for every VM."
    ),
    source="seed post (v2 09/15); Linux 6.16 tdp_mmu.h",
)

EMPTY_FILTER_NOT_SILENT = Clause(
    id="TDP-006",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "An unmap whose filter is 0 on a mirror VM must not report normal success while leaving mappings: "
        "reject, bug the VM, or zap both halves. (Linux 6.16 warns and zaps nothing: accepted only with the "
        "warning recorded)."
    ),
    source="derived here, no public report, v2 01/15",
)

UNMAP_INCLUDES_INVALID = Clause(
    id="TDP-007",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="unmap_gfn_range processes roots of the filtered kinds including invalid ones.",
    source="Linux 6.16 kvm_tdp_mmu_unmap_gfn_range",
)

AGE_VALID_ONLY = Clause(
    id="TDP-008",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="age/test_age process valid roots only.",
    source="Linux 6.16 __kvm_tdp_mmu_age_gfn_range",
)

INVALIDATE_IGNORES_INVALID_BIT = Clause(
    id="TDP-009",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="invalidate_roots with INVALID in types warns once and ignores that bit.",
    source="Linux 6.16 kvm_tdp_mmu_invalidate_roots",
)

SELECT_MIRROR = Clause(
    id="TDP-010",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text=(
        "Selecting 'the mirror root of a vCPU' works for any mask that includes MIRROR but not DIRECT; extra "
        "validity bits must not flip the answer to the direct root."
    ),
    source="derived here, no public report (seed post (v2 09/15) compares for equality)",
)

ADDR_IS_DIRECT = Clause(
    id="TDP-011",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="addr_is_direct(gpa) = (direct_bits == 0) or (gpa>>12 & direct_bits) != 0.",
    source="Linux 6.16 mmu.h",
)

NO_ALIAS_IN_CALLS = Clause(
    id="TDP-012",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "fault.gfn = (gpa>>12) & ~direct_bits. No gfn given to slots, attributes, gmem, invalidation ranges, "
        "flush, stats or ext ops contains an alias bit."
    ),
    source="seed post (v2 09/15) notes; Linux 6.16 mmu_internal.h",
)

ROOT_BY_ADDRESS = Clause(
    id="TDP-013",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "A fault on a direct address operates only on the direct root, on a non-direct address only on the "
        "mirror root. (as-posted: by is_private; the two agree whenever is_private == not direct)."
    ),
    source="Linux 6.16 tdp_mmu_get_root_for_fault; review of v2 on seed post (v2 09/15)",
)

HALVES_DISAGREE = Clause(
    id="TDP-014",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "On a mirror VM a fault whose PRIVATE_ACCESS bit disagrees with the address half is refused (EFAULT "
        "or VM bug), never mapped. Upstream has no check: it would put a gmem page under the direct root."
    ),
    source="derived here, no public report",
)

WALK_INDEX = Clause(
    id="TDP-015",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Walks of a direct root index with gfn|direct_bits, walks of a mirror root with the natural gfn; "
        "consequently direct leaves of a 4-level TD live only in root slots 256-511, 5-level (bit 51) only "
        "where root index bit 3 is set."
    ),
    source="Linux 6.16 kvm_gfn_root_bits, tdp_iter.c",
)

WALK_START_BOUND = Clause(
    id="TDP-016",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A ranged walk whose start is >= direct_bits (nonzero) visits nothing and warns once.",
    source="Linux 6.16 tdp_iter_start",
)

ZAP_WHOLE_ROOT = Clause(
    id="TDP-017",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Zapping a whole root covers all 512 root entries irrespective of direct_bits.",
    source="Linux 6.16 for_each_tdp_pte_min_level_all",
)

ALIAS_AT_FAULTIN = Clause(
    id="TDP-018",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A gfn with an alias bit reaching page resolution is a VM bug and returns EFAULT.",
    source="Linux 6.16 kvm_mmu_faultin_pfn",
)

UNMAPPABLE_ADDRESS = Clause(
    id="TDP-019",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "An address not representable at the root level (bit >=48 at 4 levels, >=52 at 5) is never mapped; "
        "result EFAULT if a slot exists, EMULATE otherwise. Default profile before Feb 2026 leaves it "
        "unspecified; never may it alias a lower gfn."
    ),
    source="'[PATCH] KVM: x86/mmu: Don't create SPTEs for addresses that aren't mappable', 18 Feb 2026",
)

SLOT_ALIAS = Clause(
    id="TDP-020",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Slot creation/move fails EINVAL if the last gfn exceeds max_gfn or is an alias. The spec extends "
        "this to any gfn of the slot being an alias."
    ),
    source="Linux 6.16 x86.c kvm_arch_prepare_memory_region; derived here, no public report",
)

ROOT_REUSED = Clause(
    id="TDP-021",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Loading reuses an existing valid root whose full role word is equal (kind, as_id, level included), "
        "adding one reference."
    ),
    source="Linux 6.16 kvm_tdp_mmu_alloc_root",
)

NEW_ROOT_REFERENCES = Clause(
    id="TDP-022",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="A new root has 2 references: vCPU + the MMU's own.",
    source="Linux 6.16 kvm_tdp_mmu_alloc_root",
)

ONE_ROOT_PER_ROLE = Clause(
    id="TDP-023",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Concurrent loads create at most one valid root per role word (re-check under pages_lock).",
    source="Linux 6.16 kvm_tdp_mmu_alloc_root",
)

MIRROR_BEFORE_DIRECT = Clause(
    id="TDP-024",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "On a mirror VM the mirror root is obtained before the direct root; (mirror INVALID, root valid) is "
        "never observable. On other VMs mirror_root_hpa stays INVALID forever."
    ),
    source="Linux 6.16 kvm_mmu_reload; review of v3 13/17",
)

MIRROR_ONLY_ONCE = Clause(
    id="TDP-025",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="A load obtains the mirror root only if the vCPU's mirror_root_hpa is INVALID.",
    source="review of v3 13/17, v4; Linux 6.16 mmu_alloc_direct_roots",
)

ROOT_REFERENCES = Clause(
    id="TDP-026",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "refs(root) = [MMU reference not yet put] + number of vCPUs holding it + live iterators, at every "
        "call boundary."
    ),
    source="Linux 6.16 comments",
)

MIRROR_SURVIVES_UNLOAD = Clause(
    id="TDP-027",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="unload, reset, obsolete-root freeing and slot updates leave mirror_root_hpa and its reference untouched.",
    source="seed post (v2 09/15) log",
)

DESTROY_PUTS_MIRROR = Clause(
    id="TDP-028",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "vCPU destroy puts the mirror reference exactly once, under mmu_lock for read, and stores INVALID. It "
        "must release it whichever MMU context is current."
    ),
    source="seed post (v2 09/15) kvm_mmu_destroy; derived here, no public report",
)

ONE_MIRROR_ROOT = Clause(
    id="TDP-029",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "At most one mirror root exists per VM from first load until vm_uninit and it is valid throughout; no "
        "other entry point invalidates it."
    ),
    source="seed post (v2 09/15) log, v2 14/15",
)

FAST_ZAP_DIRECT = Clause(
    id="TDP-030",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "zap_all_fast invalidates only DIRECT roots and raises FREE_OBSOLETE_ROOTS on all vCPUs in the same "
        "write-locked section; then zaps them."
    ),
    source="Linux 6.16 kvm_mmu_zap_all_fast",
)

INVALIDATE_WRITE_LOCK = Clause(
    id="TDP-031",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="Invalidation needs mmu_lock for write unless the VM has no users or never had a vCPU.",
    source="Linux 6.16 kvm_tdp_mmu_invalidate_roots",
)

SCHEDULED_ONCE = Clause(
    id="TDP-032",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Invalidating a valid root sets scheduled; zap_invalidated zaps each scheduled root, clears the flag, "
        "and puts the MMU's reference exactly once, after the zap. Already-invalid roots are not rescheduled."
    ),
    source="Linux 6.16 kvm_tdp_mmu_invalidate_roots",
)

FINAL_PUT_OF_VALID = Clause(
    id="TDP-033",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The final put of a valid root is a VM bug.",
    source="Linux 6.16 kvm_tdp_mmu_put_root",
)

FREED_AFTER_GRACE = Clause(
    id="TDP-034",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="The final put unlinks the root under pages_lock and frees it after an RCU grace period.",
    source="Linux 6.16 kvm_tdp_mmu_put_root",
)

ZAP_ALL_DIRECT = Clause(
    id="TDP-035",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="zap_all touches DIRECT roots, valid and invalid, and never a mirror root.",
    source="v4 patch 17; Linux 6.16",
)

UNINIT_COMPLETE = Clause(
    id="TDP-036",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "vm_uninit invalidates all valid roots, zaps them with mmu_lock for write, ends with an empty root "
        "list and zero accounted tables, then waits for all RCU callbacks. It terminates for any mirror "
        "content."
    ),
    source="v4 patch 01; Linux 6.16 kvm_mmu_uninit_tdp_mmu",
)

ROOT_WITHOUT_EXTERNAL = Clause(
    id="TDP-037",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="A mirror root has no external page; only linked child tables do.",
    source="v2 10/15",
)

ITERATOR_PUTS = Clause(
    id="TDP-038",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="A root iterator left early puts the reference it holds.",
    source="Linux 6.16 kvm_tdp_mmu_try_split_huge_pages",
)

RELOAD_FREES_OBSOLETE = Clause(
    id="TDP-039",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="mmu_reload first frees obsolete roots if requested; it never returns with an invalid direct root installed.",
    source="'[PATCH v2 5/5] KVM: x86/mmu: Check and free obsolete roots in kvm_mmu_reload()', 18 Mar 2025",
)

NO_MAP_UNDER_INVALID = Clause(
    id="TDP-040",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="No mapping is ever installed under an invalid root, mirror included.",
    source="Linux 6.19 kvm_tdp_mmu_map warning",
)

NEW_TABLE_NONPRESENT = Clause(
    id="TDP-041",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="All 512 entries of a new table are NONPRESENT (bit 63 set) before it becomes reachable.",
    source="Linux 6.16 mmu.c kvm_mmu_create (cache init_value)",
)

NONPRESENT_ENCODING = Clause(
    id="TDP-042",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Every reachable non-present, non-MMIO entry equals NONPRESENT or FROZEN; bit 63 is set in all present entries."
    ),
    source="Linux 6.16 spte.h, tdp_iter.h",
)

PRESENCE_BIT = Clause(
    id="TDP-043",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Presence is decided by bit 11 only; FROZEN is not present.",
    source="Linux 6.16 spte.h",
)

FROZEN_IS_OWNED = Clause(
    id="TDP-044",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "A FROZEN entry is changed only by the thread that froze it. A mapper that meets FROZEN returns RETRY "
        "without allocating."
    ),
    source="Linux 6.16 kvm_tdp_mmu_map",
)

NOTHING_LEFT_FROZEN = Clause(
    id="TDP-045",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="No FROZEN entry remains reachable from a root when the freezing call returns, whatever the outcome.",
    source="Linux 6.16 set_external_spte_present",
)

ATOMIC_UPDATES = Clause(
    id="TDP-046",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "Under the read lock a present entry changes only by cmpxchg/atomic ops; plain stores only by the "
        "freezer or under the write lock; entries with volatile bits are exchanged atomically even under the "
        "write lock."
    ),
    source="Linux 6.16 tdp_iter.h",
)

LEAF_PFN_FIXED = Clause(
    id="TDP-047",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Replacing a present leaf by a present leaf with another pfn is fatal; never happens.",
    source="Linux 6.16 handle_changed_spte",
)

EXCLUSIVE_SETTER_NOT_FROZEN = Clause(
    id="TDP-048",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "FROZEN is never written to or read as the old value by the exclusive-lock setter except inside removed tables."
    ),
    source="Linux 6.16 tdp_mmu_set_spte",
)

REFRESH_AFTER_FAILURE = Clause(
    id="TDP-049",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text=(
        "After a failed cmpxchg the iterator's cached old value equals the value found. Upstream through 6.18 "
        "breaks this on mirror entries."
    ),
    source="RFC v5 of S-EPT hugepages patch 02",
)

RCU_PROTECTED = Clause(
    id="TDP-050",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "Page-table memory reachable by others is accessed only inside an RCU read section or under rules that pin it."
    ),
    source="v6 (rcu_dereference fix), Linux 6.16",
)

SNAPSHOT_FIRST = Clause(
    id="TDP-051",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "inv.seq is snapshot before the attribute check, which precedes pfn resolution; both precede taking mmu_lock."
    ),
    source="Linux 6.16 kvm_mmu_faultin_pfn",
)

ATTRIBUTE_MISMATCH = Clause(
    id="TDP-052",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "is_private != (attr[gfn]==PRIVATE) returns EFAULT with a memory-fault exit: gpa = stripped gfn<<12, "
        "size 4096, flag PRIVATE iff is_private."
    ),
    source="Linux 6.16 kvm_mmu_faultin_pfn",
)

NO_BACKING = Clause(
    id="TDP-053",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Private fault without a slot, or on a slot without gmem: EFAULT + exit. Shared without slot: MMIO "
        "handling (EMULATE)."
    ),
    source="Linux 6.16 kvm_handle_noslot_fault, kvm_mmu_faultin_pfn_private",
)

GMEM_ERROR = Clause(
    id="TDP-054",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="gmem errors are returned unchanged with a memory-fault exit.",
    source="Linux 6.16",
)

INVALID_SLOT = Clause(
    id="TDP-055",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A slot flagged INVALID gives RETRY for guest faults; for prefetch EAGAIN (6.18+; before: RETRY).",
    source="Linux 6.16; 'Return -EAGAIN if userspace deletes/moves memslot during prefault', Aug 2025",
)

STALE_FAULT = Clause(
    id="TDP-056",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Under mmu_lock, a fault is dropped with RETRY and no table change if the vCPU's direct root is "
        "obsolete, or an invalidation covers gfn, or inv.seq changed. Applies to private faults too."
    ),
    source="Linux 6.16 is_page_fault_stale",
)

MIRROR_4K_ONLY = Clause(
    id="TDP-057",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "No leaf above level 1 is ever installed under a mirror root; a request for one must be refused "
        "before any table is changed."
    ),
    source="seed post (v2 09/15) log; Linux 6.16 tdx_sept_set_private_spte",
)

MIRROR_NO_HUGE = Clause(
    id="TDP-058",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "A huge leaf found on a mirror walk is a VM bug and must not be split; a non-leaf on a mirror must "
        "not be replaced by a huge leaf."
    ),
    source="seed post (v2 09/15); RFC v5 of S-EPT hugepages 'Prevent hugepage promotion for mirror roots'",
)

MIRROR_LEAF_RWX = Clause(
    id="TDP-059",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Mirror leaves are installed with R, W and X all set and writable.",
    source="Linux 6.19 warning in set_private_spte",
)

BUILD_TOP_DOWN = Clause(
    id="TDP-060",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="Build top-down: ext op for (gfn, level L) is issued only after ext.link for every ancestor succeeded.",
    source="v2 10/15 race; TDX module 1.5 (EPT_WALK_FAILED)",
)

FREEZE_EXTERNAL_PUBLISH = Clause(
    id="TDP-061",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "For one mirror entry: freeze, then exactly one ext op, then publish. The new value is never visible "
        "before the ext op succeeded."
    ),
    source="v2 10/15",
)

LOST_FREEZE = Clause(
    id="TDP-062",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="If the freeze cmpxchg fails no ext op is made; result RETRY.",
    source="Linux 6.16",
)

FAILED_EXTERNAL_RESTORES = Clause(
    id="TDP-063",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "If the ext op fails the entry is restored to exactly its old value; nothing is accounted; an "
        "unlinked table, its header and its external page are all freed; result RETRY."
    ),
    source="Linux 6.16 set_external_spte_present, kvm_tdp_mmu_map",
)

BUSY_IS_NO_BUG = Clause(
    id="TDP-064",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "ext EBUSY never bugs the VM on the mapping side; any other ext error does, and then later faults "
        "return EIO/exit instead of spinning."
    ),
    source="Linux 6.16 tdx.c; tdp_map_page VM_DEAD check",
)

LINK_ARGUMENTS = Clause(
    id="TDP-065",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "ext.link arguments: gfn aligned to the entry, level of the parent entry (2..root), the child's "
        "external page, non-NULL; child's header gfn equals gfn and level+1."
    ),
    source="Linux 6.16 get_external_spt",
)

SET_ARGUMENTS = Clause(
    id="TDP-066",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="ext.set arguments: exact gfn, level 1, pfn of the new entry.",
    source="Linux 6.16",
)

PRESENT_NOT_SET_AGAIN = Clause(
    id="TDP-067",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "An ext op that would make present an already-present mirror entry is refused: VM bug, error, no ext "
        "call. Upstream <=6.18 only bugs and goes on."
    ),
    source="RFC v5 of S-EPT hugepages patch 05",
)

FAULT_RESULT = Clause(
    id="TDP-068",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "FIXED exactly when this call changed the leaf; SPURIOUS if the leaf already permits the access (or "
        "prefetch) and then its pfn equals the resolved pfn; RETRY otherwise."
    ),
    source="Linux 6.16 tdp_mmu_map_handle_target_level",
)

CHILD_ROLE = Clause(
    id="TDP-069",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Child tables inherit the parent's role with level-1; base gfn = entry's gfn.",
    source="Linux 6.16",
)

STATISTICS = Clause(
    id="TDP-070",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Leaf statistics change by the exact number of leaves; a table is accounted once after successful "
        "linking and unaccounted once on unlink."
    ),
    source="Linux 6.16",
)

ALLOCATION_BEFORE_LOCK = Clause(
    id="TDP-071",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Allocation can fail only before mmu_lock (top-up to 5 of each kind: header, table page, and on "
        "mirror VMs external page; ENOMEM, no state change). A fault consumes at most root_level-1 tables, a "
        "load at most 2 roots."
    ),
    source="Linux 6.16 mmu_topup_memory_caches",
)

BALANCED = Clause(
    id="TDP-072",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="Each call returns the references it took (pfn page, roots, RCU, locks) on every path.",
    source="Linux 6.16",
)

REMOVE_WRITE_LOCKED = Clause(
    id="TDP-073",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="Mirror leaves are removed only with mmu_lock held for write.",
    source="Linux 6.16 remove_external_spte",
)

ATOMIC_ZAP_REFUSED = Clause(
    id="TDP-074",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A read-lock (atomic) zap aimed at a mirror entry is a VM bug, changes nothing, and the caller "
        "terminates (no retry loop)."
    ),
    source="Linux 6.16 __tdp_mmu_set_spte_atomic; derived here, no public report",
)

REMOVE_ARGUMENTS = Clause(
    id="TDP-075",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "Removing a present mirror leaf clears the entry first, then calls ext.remove exactly once with (gfn, "
        "level, old pfn); never for non-present or non-leaf entries."
    ),
    source="Linux 6.16",
)

FREE_BOTTOM_UP = Clause(
    id="TDP-076",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "A mirror table is freed bottom-up: every child leaf removed and every child table freed before "
        "ext.free of the table."
    ),
    source="Linux 6.16 handle_removed_pt; TDX module 1.5 SEPT.REMOVE",
)

FREE_ARGUMENTS = Clause(
    id="TDP-077",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="ext.free arguments: base gfn and level of the freed table itself (not the parent entry), its external page.",
    source="Linux 6.16",
)

FAILED_FREE_LEAKS = Clause(
    id="TDP-078",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "If ext.free fails the external page is leaked on purpose (never returned to the allocator); header "
        "and mirror page are still freed."
    ),
    source="Linux 6.16",
)

FAILED_REMOVE_KEEPS_PAGE = Clause(
    id="TDP-079",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "If ext.remove fails the VM is bugged and dead; the backing page must not be handed back for host use "
        "while the external tree may still map it. (<=6.18 achieved by an extra page reference; 6.19 dropped "
        "it)."
    ),
    source="Linux 6.16 tdx.c; Linux 6.19",
)

ZAP_EXACT = Clause(
    id="TDP-080",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="zap_leafs/unmap remove exactly the leaves in [start,end) (end clamped to max_gfn+1); tables stay linked.",
    source="Linux 6.16 tdp_mmu_zap_leafs",
)

FLUSH_STICKY = Clause(
    id="TDP-081",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The flush flag is sticky: result = input OR (a leaf of a valid root was zapped since the last "
        "flush). Skipping a root must return the input flag."
    ),
    source="v19 059/130, review; Linux 6.16",
)

FLUSH_BEFORE_YIELD = Clause(
    id="TDP-082",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Before yielding mmu_lock with a pending flush the flush is done; after a yield the walk restarts "
        "from the root at the next unvisited gfn and makes progress."
    ),
    source="Linux 6.16 tdp_mmu_iter_cond_resched",
)

NO_BLOCK_NO_YIELD = Clause(
    id="TDP-083",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="With may_block=false the lock is never dropped.",
    source="Linux 6.16",
)

NO_STALE_TLB = Clause(
    id="TDP-084",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "When a call releases the write lock (or the caller does, per returned flag) no vCPU TLB holds a "
        "translation of a zapped leaf of a valid root. Leaves of invalid roots are covered by the flush at "
        "the next root load."
    ),
    source="Linux 6.16",
)

TABLE_GRACE_PERIOD = Clause(
    id="TDP-085",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Table pages are freed only after unlink plus an RCU grace period.",
    source="Linux 6.16",
)

REMOVED_FROZEN = Clause(
    id="TDP-086",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Removed tables have their entries set FROZEN before recursion so that late lockless mappers cannot "
        "install into them."
    ),
    source="Linux 6.16 handle_removed_pt",
)

HVA_SHARED_ONLY = Clause(
    id="TDP-087",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="hva-based notifications (invalidate, age, release) affect SHARED only.",
    source="Linux 6.16 kvm_main kvm_handle_hva_range",
)

GMEM_PRIVATE_ONLY = Clause(
    id="TDP-088",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="gmem invalidation (hole punch, release, memory error) affects PRIVATE only, for exactly the bound gfns.",
    source="Linux 6.16 gmem kvm_gmem_invalidate_begin",
)

CONVERSION_ZAPS_OLD = Clause(
    id="TDP-089",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Setting attribute PRIVATE zaps SHARED only; setting SHARED zaps PRIVATE only. Order: zap old half, "
        "store attributes, end invalidation; all under slots_lock."
    ),
    source="v2 01/15; Linux 6.16 kvm_arch_pre_set_memory_attributes",
)

CONVERSION_FINAL = Clause(
    id="TDP-090",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "After set_attributes returns 0: no gfn in range is mapped in the old half, now or by any fault that "
        "started earlier. Quiescent invariant: g in P implies attr PRIVATE; g in S implies attr SHARED."
    ),
    source="v2 01/15; Linux 6.16 kvm_arch_pre_set_memory_attributes",
)

CONVERSION_IDLE = Clause(
    id="TDP-091",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "If the whole range already has the attribute nothing is zapped and 0 is returned. ENOMEM while "
        "reserving changes nothing."
    ),
    source="Linux 6.16 kvm_vm_set_mem_attributes",
)

STRADDLING_HUGE = Clause(
    id="TDP-092",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="While attributes change, potential hugepages straddling head or tail are inside the invalidation range.",
    source="commit 9129633d568e (6.15)",
)

SLOT_DELETE_LEAFS = Clause(
    id="TDP-093",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Slot delete/move on a mirror VM zaps leaves of both halves within the slot only; tables and both "
        "roots stay valid."
    ),
    source="Linux 6.16 kvm_mmu_zap_memslot",
)

GMEM_SLOT_FLAGS = Clause(
    id="TDP-094",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Slots with gmem cannot have LOG_DIRTY or READONLY and cannot be modified after creation (EINVAL).",
    source="Linux 6.16 kvm_main",
)

MIRROR_UNTOUCHED = Clause(
    id="TDP-095",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Write-protect, dirty clearing, aging, access tracking, huge split/recover, NX recovery and the fast "
        "fault path never alter a mirror entry."
    ),
    source="v2 00/15, seed post (v2 09/15); Linux 6.16",
)

HOST_EVENTS_SPARE_PRIVATE = Clause(
    id="TDP-096",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "No host-virtualisation event (non-coherent DMA, APICv, MTRR, MMIO generation wrap, nx parameter) "
        "removes private leaves."
    ),
    source="v2 00/15",
)

REMOVAL_SEQUENCE = Clause(
    id="TDP-097",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Leaf removal on a runnable TD: BLOCK, TRACK, kick all vCPUs out, PAGE.REMOVE, cache write-back, page "
        "clear; before finalize TRACK and kick are omitted."
    ),
    source="Linux 6.16 tdx.c",
    needs=frozenset({"seamcalls"}),
)

BUSY_RETRY_ONCE = Clause(
    id="TDP-098",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "BLOCK, TRACK, REMOVE: on BUSY set wait_for_sept_zap, kick, retry once, clear; both stores under the "
        "write lock; a second failure is a VM bug. vCPUs must not enter while the flag is set."
    ),
    source="Linux 6.16 tdx.c",
    needs=frozenset({"seamcalls"}),
)

BUSY_TO_EBUSY = Clause(
    id="TDP-099",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="SEPT.ADD, AUG, ADD: BUSY becomes EBUSY without kicking.",
    source="Linux 6.16 tdx.c",
    needs=frozenset({"seamcalls"}),
)

HKID_ORDER = Clause(
    id="TDP-100",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "ext.remove only while HKID assigned; ext.free only after HKID released. Hence all private leaves go "
        "before HKID release. Violation = VM bug + EIO (EINVAL <=6.18)."
    ),
    source="Linux 6.16, Linux 6.19 tdx.c",
)

PREFAULT_AFTER_FINALIZE = Clause(
    id="TDP-101",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Prefault before finalize fails EOPNOTSUPP; state=RUNNABLE is visible before pre_fault_allowed=true.",
    source="Linux 6.16 tdx_td_finalize",
    needs=frozenset({"seamcalls"}),
)

PREMAPPED_COUNT = Clause(
    id="TDP-102",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Up to 6.18, a leaf set before finalize is counted in nr_premapped and is not in E until PAGE.ADD; "
        "finalize fails EINVAL while the count is nonzero; zapping such a leaf decrements it. From 6.19 ADD "
        "happens inside ext.set."
    ),
    source="Linux 6.16, Linux 6.19 tdx.c",
    needs=frozenset({"seamcalls"}),
)

PREFAULT_RESULTS = Clause(
    id="TDP-103",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Prefault of an alias gpa fails EINVAL; otherwise it faults the private half if attr PRIVATE, else "
        "gpa|direct_bits. Results: FIXED/SPURIOUS/WRITE_PROTECTED -> progress; EMULATE -> ENOENT; signal -> "
        "EINTR; VM dead -> EIO; RETRY loops (bounded by TDP-055)."
    ),
    source="Linux 6.16 kvm_arch_vcpu_pre_fault_memory, kvm_tdp_map_page",
)

VIOLATION_RETRIED = Clause(
    id="TDP-104",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A private EPT violation is handled as a write and retried locally until not RETRY, event pending, "
        "signal, VM dead (EIO), or slot INVALID (6.18+)."
    ),
    source="Linux 6.16, 6.19 tdx_handle_ept_violation",
)


ROBUSTNESS = Clause(
    id="TDP-105",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Every entry point returns, with a value of its declared type, whatever the environment answers.",
    source="common sense of a kernel entry point; loops that spin on a dead VM were the defect of several postings",
)

KEEPS_PAGE_ANYHOW = Clause(
    id="TDP-106",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text=(
        "Though no reference keeps it, the backing page of a leaf that could not be removed is not handed back "
        "for host use while the external tree may still map it."
    ),
    source="Linux 6.19, which dropped the references; what the releases before demand (TDP-079)",
    profiles=frozenset({"upstream-6.19"}),
)

CLAUSES: tuple[Clause, ...] = (
    ROOT_KIND_FIXED,
    MATCH_NEEDS_KIND,
    MATCH_INVALID_WITH_KIND,
    MATCH_VALID_BIT,
    FILTER_TO_TYPES,
    EMPTY_FILTER_NOT_SILENT,
    UNMAP_INCLUDES_INVALID,
    AGE_VALID_ONLY,
    INVALIDATE_IGNORES_INVALID_BIT,
    SELECT_MIRROR,
    ADDR_IS_DIRECT,
    NO_ALIAS_IN_CALLS,
    ROOT_BY_ADDRESS,
    HALVES_DISAGREE,
    WALK_INDEX,
    WALK_START_BOUND,
    ZAP_WHOLE_ROOT,
    ALIAS_AT_FAULTIN,
    UNMAPPABLE_ADDRESS,
    SLOT_ALIAS,
    ROOT_REUSED,
    NEW_ROOT_REFERENCES,
    ONE_ROOT_PER_ROLE,
    MIRROR_BEFORE_DIRECT,
    MIRROR_ONLY_ONCE,
    ROOT_REFERENCES,
    MIRROR_SURVIVES_UNLOAD,
    DESTROY_PUTS_MIRROR,
    ONE_MIRROR_ROOT,
    FAST_ZAP_DIRECT,
    INVALIDATE_WRITE_LOCK,
    SCHEDULED_ONCE,
    FINAL_PUT_OF_VALID,
    FREED_AFTER_GRACE,
    ZAP_ALL_DIRECT,
    UNINIT_COMPLETE,
    ROOT_WITHOUT_EXTERNAL,
    ITERATOR_PUTS,
    RELOAD_FREES_OBSOLETE,
    NO_MAP_UNDER_INVALID,
    NEW_TABLE_NONPRESENT,
    NONPRESENT_ENCODING,
    PRESENCE_BIT,
    FROZEN_IS_OWNED,
    NOTHING_LEFT_FROZEN,
    ATOMIC_UPDATES,
    LEAF_PFN_FIXED,
    EXCLUSIVE_SETTER_NOT_FROZEN,
    REFRESH_AFTER_FAILURE,
    RCU_PROTECTED,
    SNAPSHOT_FIRST,
    ATTRIBUTE_MISMATCH,
    NO_BACKING,
    GMEM_ERROR,
    INVALID_SLOT,
    STALE_FAULT,
    MIRROR_4K_ONLY,
    MIRROR_NO_HUGE,
    MIRROR_LEAF_RWX,
    BUILD_TOP_DOWN,
    FREEZE_EXTERNAL_PUBLISH,
    LOST_FREEZE,
    FAILED_EXTERNAL_RESTORES,
    BUSY_IS_NO_BUG,
    LINK_ARGUMENTS,
    SET_ARGUMENTS,
    PRESENT_NOT_SET_AGAIN,
    FAULT_RESULT,
    CHILD_ROLE,
    STATISTICS,
    ALLOCATION_BEFORE_LOCK,
    BALANCED,
    REMOVE_WRITE_LOCKED,
    ATOMIC_ZAP_REFUSED,
    REMOVE_ARGUMENTS,
    FREE_BOTTOM_UP,
    FREE_ARGUMENTS,
    FAILED_FREE_LEAKS,
    FAILED_REMOVE_KEEPS_PAGE,
    ZAP_EXACT,
    FLUSH_STICKY,
    FLUSH_BEFORE_YIELD,
    NO_BLOCK_NO_YIELD,
    NO_STALE_TLB,
    TABLE_GRACE_PERIOD,
    REMOVED_FROZEN,
    HVA_SHARED_ONLY,
    GMEM_PRIVATE_ONLY,
    CONVERSION_ZAPS_OLD,
    CONVERSION_FINAL,
    CONVERSION_IDLE,
    STRADDLING_HUGE,
    SLOT_DELETE_LEAFS,
    GMEM_SLOT_FLAGS,
    MIRROR_UNTOUCHED,
    HOST_EVENTS_SPARE_PRIVATE,
    REMOVAL_SEQUENCE,
    BUSY_RETRY_ONCE,
    BUSY_TO_EBUSY,
    HKID_ORDER,
    PREFAULT_AFTER_FINALIZE,
    PREMAPPED_COUNT,
    PREFAULT_RESULTS,
    VIOLATION_RETRIED,
    ROBUSTNESS,
    KEEPS_PAGE_ANYHOW,
)


class Candidate(Protocol):
    """What the harness calls. gfns are without alias bits unless said otherwise; ranges are [start, end)."""

    def vm_init(
        self, mirror: int, direct_bits: int, root_level: int, index_bits: int, max_gfn: int, private: int
    ) -> int:
        """Start the VM's MMU; called once, before anything else.

        `mirror`: whether the VM has mirror roots. `direct_bits`: gfn mask of the shared half, 0 when there is no
        split. `index_bits`: binary logarithm of the entries of a table (9 in real hardware).
        `private`: whether it has private memory. Returns 0.
        """

    def vcpu_create(self, vcpu: int) -> int:
        """0, or -ENOMEM."""

    def vcpu_destroy(self, vcpu: int) -> None:
        """Drop both roots and the caches of the vCPU."""

    def mmu_reload(self, vcpu: int) -> int:
        """Free obsolete roots if that is requested, then load roots if there is none. 0, or -ENOMEM."""

    def mmu_unload(self, vcpu: int) -> None:
        """Drop the direct root."""

    def free_obsolete_roots(self, vcpu: int) -> None:
        """Drop the direct root if it is invalid."""

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """Whether a root of this kind and validity belongs to `types`. 0 or 1."""

    def filter_to_types(self, attr_filter: int) -> int:
        """Root types that an attribute filter stands for."""

    def addr_is_direct(self, gpa: int) -> int:
        """Whether `gpa` lies in the shared half, or there is no split. 0 or 1."""

    def gfn_is_alias(self, gfn: int) -> int:
        """Whether `gfn` has an alias bit set. 0 or 1."""

    def select_root(self, vcpu: int, types: int) -> int:
        """Address of the vCPU's mirror root for types with MIRROR and without DIRECT, of its direct root otherwise."""

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """Resolve a fault. RET_PF or a negative errno; takes its own locks."""

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """Install `pfn` at `goal_level`; the caller holds mmu_lock for read. RET_PF or a negative errno."""

    def faultin_pfn(self, vcpu: int, gfn: int, is_private: int) -> int:
        """Resolve the page behind a raw gfn as a fault would, without mapping it.

        0 (RET_PF_CONTINUE), RET_PF, or a negative errno; -EFAULT and a VM bug when `gfn` has an alias bit.
        """

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        """KVM_PRE_FAULT_MEMORY for the first page of the range: bytes advanced, or a negative errno."""

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """A private EPT violation: a write, retried until it is not RETRY. RET_PF or a negative errno."""

    def fast_pf(self, vcpu: int, gpa: int, error_code: int) -> int:
        """The lockless path: INVALID (go the slow way), FIXED or SPURIOUS."""

    def get_walk(self, vcpu: int, gpa: int) -> tuple[int, ...]:
        """Entries on the walk to `gpa`, from the root down to the last level reached."""

    def gpa_is_mapped(self, vcpu: int, gpa: int) -> int:
        """Whether a present leaf maps `gpa`; the caller holds mmu_lock for read. 0 or 1."""

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """Zap leaves of valid roots, for an event of the host. mmu_lock held for write. Whether to flush."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """Zap the leaves of the filtered halves. mmu_lock held for write. Whether to flush."""

    def age_gfn_range(self, start: int, end: int) -> int:
        """Clear the accessed bits of the shared half. Whether one was set."""

    def test_age_gfn(self, start: int, end: int) -> int:
        """Whether an accessed bit of the shared half is set."""

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """Write-protect a slot. mmu_lock held for read. Whether anything changed."""

    def clear_dirty_slot(self, slot: int) -> None:
        """Clear the dirty bits of a slot. mmu_lock held for read."""

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """Clear the dirty (or writable) bits of gfn + each bit of `mask`. mmu_lock held for write."""

    def write_protect_gfn(self, slot: int, gfn: int, min_level: int) -> int:
        """Write-protect one page and take away MMU-writable. mmu_lock held for write. Whether it was writable."""

    def split_huge(self, slot: int, start: int, end: int, target_level: int) -> None:
        """Split huge leaves above the level. mmu_lock held for read."""

    def recover_huge(self, slot: int) -> int:
        """Zap leaves that could be huge. mmu_lock held for write. Whether to flush."""

    def zap_sp(self, page: int) -> int:
        """NX recovery: zap the table at `page` if it is linked. mmu_lock held for write. 0 or 1."""

    def invalidate_roots(self, types: int) -> None:
        """Mark valid roots of `types` invalid, scheduled to be zapped. mmu_lock held for write."""

    def zap_invalidated_roots(self) -> None:
        """Zap scheduled roots and put the MMU's reference to each. Takes mmu_lock itself."""

    def zap_all_fast(self) -> None:
        """Invalidate and replace all direct roots. slots_lock held."""

    def zap_all(self) -> None:
        """mmu_notifier release: zap every direct root. Takes mmu_lock itself."""

    def vm_uninit(self) -> None:
        """Free everything. No vCPU is left, the HKID is released."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """KVM_SET_MEMORY_ATTRIBUTES. 0 or a negative errno; takes slots_lock and mmu_lock itself."""

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """The host takes back the pages behind the shared half. Takes mmu_lock itself."""

    def gmem_invalidate(self, start: int, end: int) -> None:
        """A hole is punched in guest memory, or the file closed. Takes mmu_lock itself."""

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """0 or -EINVAL; an existing slot is modified."""

    def slot_delete(self, slot: int) -> int:
        """0 or -EINVAL."""

    def slot_move(self, slot: int, base: int) -> int:
        """0 or -EINVAL."""

    def rcu_callback(self, page: int) -> None:
        """The grace period asked for by call_rcu(page) is over: free what `page` needs no more."""

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """The external operation behind ext_link. 0, -EBUSY or -EIO."""

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """The external operation behind ext_set. 0, -EBUSY or -EIO."""

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """The external operation behind ext_remove. 0 or -EIO."""

    def sept_free(self, gfn: int, level: int, page: int) -> int:
        """The external operation behind ext_free. 0 or -EIO."""

    def init_mem_region(self, vcpu: int, gpa: int) -> int:
        """KVM_TDX_INIT_MEM_REGION of one page: map it and add it to the TD, before finalize. 0 or a negative errno."""

    def td_finalize(self) -> int:
        """KVM_TDX_FINALIZE_VM. 0 or a negative errno."""


OPTIONAL = {
    "sept_link": "seamcalls",
    "sept_set": "seamcalls",
    "sept_remove": "seamcalls",
    "sept_free": "seamcalls",
    "init_mem_region": "seamcalls",
    "td_finalize": "seamcalls",
}


class Port(Protocol):
    """What a candidate may call. Tables are named by their physical address; handles are ints, NULL is 0."""

    # -- memory

    def cache_topup(self, vcpu: int, kind: int, count: int, init: int) -> int:
        """Fill a vCPU's cache of HEADER, TABLE or EXTERNAL objects up to `count`; entries of tables start as `init`.

        0, or -ENOMEM. May sleep: not under mmu_lock.
        """

    def cache_alloc(self, vcpu: int, kind: int) -> int:
        """Take an object from the cache; never fails if it was topped up."""

    def cache_free(self, vcpu: int) -> None:
        """Give back all that the vCPU's caches hold."""

    def page_alloc(self, kind: int, init: int) -> int:
        """Allocate one object outside any cache. Its address, or 0. May sleep."""

    def page_free(self, page: int) -> None:
        """Give an object back to the allocator."""

    def page_leak(self, page: int) -> None:
        """Drop a page on purpose because its owner is not known any more; it is never given out again."""

    def sp_init(self, page: int, header: int, role: int, gfn: int, external: int) -> None:
        """Fill in the header of a table before it is linked: role word, base gfn, external page or 0."""

    def account_pgtable(self, change: int) -> None:
        """One page table more or less, roots not counted."""

    def update_page_stats(self, level: int, change: int) -> None:
        """So many leaves more or less at this level."""

    # -- page-table entries

    def pt_read(self, page: int, index: int) -> int:
        """Read an entry (READ_ONCE)."""

    def pt_store(self, page: int, index: int, value: int) -> None:
        """Plain store (WRITE_ONCE)."""

    def pt_cmpxchg(self, page: int, index: int, old: int, new: int) -> int:
        """Compare and exchange; returns the value found, which is `old` on success."""

    def pt_xchg(self, page: int, index: int, new: int) -> int:
        """Exchange; returns the old value."""

    def pt_and(self, page: int, index: int, mask: int) -> int:
        """Atomic fetch-and; returns the old value."""

    # -- roots

    def refcount_set(self, page: int, count: int) -> None:
        """Initialise a root's reference count."""

    def refcount_inc_not_zero(self, page: int) -> int:
        """Take a reference unless there is none left. 0 or 1."""

    def refcount_dec_and_test(self, page: int) -> int:
        """Put a reference; 1 if it was the last."""

    def roots_add(self, page: int) -> None:
        """Insert a root in the list; pages_lock held."""

    def roots_del(self, page: int) -> None:
        """Remove a root from the list; pages_lock held."""

    def role_invalidate(self, page: int) -> None:
        """Set role.invalid of a root."""

    def vcpu_root(self, vcpu: int, mirror: int, page: int) -> None:
        """Store root_hpa, or mirror_root_hpa, of a vCPU: an address or INVALID_PAGE."""

    def load_pgd(self, vcpu: int, page: int, level: int) -> None:
        """Give the direct root to hardware; flushes the vCPU's TLB."""

    # -- locks and RCU

    def read_lock(self) -> None:
        """mmu_lock for read."""

    def read_unlock(self) -> None:
        """Release mmu_lock taken for read."""

    def write_lock(self) -> None:
        """mmu_lock for write."""

    def write_unlock(self) -> None:
        """Release mmu_lock taken for write."""

    def lock_yield(self) -> None:
        """Drop mmu_lock, let others run, and take it again in the same mode."""

    def pages_lock(self) -> None:
        """tdp_mmu_pages_lock: the list of roots and of tables."""

    def pages_unlock(self) -> None:
        """Release the pages lock."""

    def slots_lock(self) -> None:
        """A mutex: slots and attributes change under it. Not under mmu_lock."""

    def slots_unlock(self) -> None:
        """Release the slots mutex."""

    def srcu_read_lock(self) -> None:
        """Slots read under it stay."""

    def srcu_read_unlock(self) -> None:
        """Leave the section."""

    def synchronize_srcu(self) -> None:
        """Wait until every reader that holds an old slot is gone."""

    def rcu_read_lock(self) -> None:
        """Enter an RCU read section; they nest."""

    def rcu_read_unlock(self) -> None:
        """Leave an RCU read section."""

    def call_rcu(self, page: int) -> None:
        """After a grace period call `rcu_callback(page)`."""

    def rcu_barrier(self) -> None:
        """Wait until all callbacks have run."""

    def resched(self) -> int:
        """Whether mmu_lock should be dropped for others. 0 or 1."""

    def cond_resched(self) -> None:
        """Let others run; called in loops that wait for them."""

    # -- the external tree

    def ext_link(self, gfn: int, level: int, page: int) -> int:
        """Link `page` under the external entry (gfn, level). 0, -EBUSY or -EIO."""

    def ext_set(self, gfn: int, level: int, pfn: int) -> int:
        """Map `pfn` at gfn. 0, -EBUSY or -EIO."""

    def ext_remove(self, gfn: int, level: int, pfn: int) -> int:
        """Unmap the leaf. 0 or -EIO."""

    def ext_free(self, gfn: int, level: int, page: int) -> int:
        """Give back the external page of the table of this level at this base gfn. 0 or -EIO."""

    # -- TLBs and requests

    def flush_remote_tlbs(self) -> None:
        """Flush every vCPU's TLB."""

    def flush_range(self, gfn: int, count: int) -> int:
        """Flush gfns and their aliases. 0, or -EOPNOTSUPP: flush everything instead."""

    def make_all_cpus_request(self, request: int) -> None:
        """Raise a request on every vCPU."""

    def check_request(self, vcpu: int, request: int) -> int:
        """Test and clear a request. 0 or 1."""

    def vcpu_has_events(self, vcpu: int) -> int:
        """Whether a request waits for the vCPU, so that it should go back to its run loop. 0 or 1."""

    # -- slots, attributes, invalidation, pages

    def memslot(self, gfn: int) -> tuple[int, ...]:
        """(slot, base, npages, flags) of the slot that holds `gfn`, or ()."""

    def memslots(self, start: int, end: int) -> tuple[tuple[int, ...], ...]:
        """The slots that overlap [start, end), by base gfn."""

    def memslot_by_id(self, slot: int) -> tuple[int, ...]:
        """(slot, base, npages, flags), or ()."""

    def memslot_install(self, slot: int, base: int, npages: int, flags: int) -> int:
        """Add or replace a slot; slots_lock held. 0, or -EEXIST when it overlaps another."""

    def memslot_remove(self, slot: int) -> None:
        """Remove a slot; slots_lock held."""

    def attributes(self, gfn: int) -> int:
        """0 or ATTRIBUTE_PRIVATE."""

    def range_has_attributes(self, start: int, end: int, value: int) -> int:
        """Whether all gfns of [start, end) have exactly these attributes. 0 or 1."""

    def reserve_attributes(self, start: int, end: int) -> int:
        """Reserve memory so that storing cannot fail. 0 or -ENOMEM."""

    def store_attributes(self, start: int, end: int, value: int) -> None:
        """Set the attributes of a range; slots_lock held."""

    def mmu_invalidate_begin(self, start: int, end: int) -> None:
        """An invalidation of [start, end) begins; mmu_lock held for write."""

    def mmu_invalidate_end(self) -> None:
        """It ends, and the sequence number grows; mmu_lock held for write."""

    def mmu_invalidate_seq(self) -> int:
        """The sequence number; read with a barrier after it."""

    def mmu_invalidate_retry(self, seq: int, gfn: int) -> int:
        """Whether an invalidation covers `gfn` or has happened since `seq`. 0 or 1."""

    def gmem_get_pfn(self, slot: int, gfn: int) -> int:
        """Page of guest memory, with a reference; or a negative errno. May sleep."""

    def hva_get_pfn(self, slot: int, gfn: int, write: int) -> tuple[int, int, int]:
        """(pfn, writable, largest level) behind the shared half, with a reference. May sleep.

        `writable`: whether the leaf is to be writable, even for a read.
        """

    def max_mapping_level(self, slot: int, gfn: int) -> int:
        """Largest level at which the host maps the page behind a shared gfn now."""

    def pfn_release(self, pfn: int) -> None:
        """Put the reference taken by gmem_get_pfn or hva_get_pfn."""

    def memory_fault_exit(self, gpa: int, size: int, flags: int) -> None:
        """Fill in KVM_EXIT_MEMORY_FAULT."""

    def pre_fault_allowed(self) -> int:
        """Whether pages may be prefaulted. 0 or 1."""

    def signal_pending(self) -> int:
        """Whether the thread should go back to userspace. 0 or 1."""

    def vm_is_dead(self) -> int:
        """Whether a VM bug, or its end, has marked the VM dead. 0 or 1."""

    # -- complaints

    def vm_bug(self, what: str) -> None:
        """KVM_BUG_ON: warns and marks the VM dead, and comes back."""

    def warn_once(self, what: str) -> None:
        """WARN_ON_ONCE: noted, and comes back."""

    # -- SEAMCALLs and what belongs to them (capability seamcalls); 64-bit status unless said otherwise

    def tdh_mem_sept_add(self, gpa: int, level: int, page: int) -> int:
        """TDH.MEM.SEPT.ADD: link `page` under the entry of this TDX level."""

    def tdh_mem_page_add(self, gpa: int, pfn: int) -> int:
        """TDH.MEM.PAGE.ADD, before finalize."""

    def tdh_mem_page_aug(self, gpa: int, level: int, pfn: int) -> int:
        """TDH.MEM.PAGE.AUG: add a pending page to a runnable TD."""

    def tdh_mem_range_block(self, gpa: int, level: int) -> int:
        """TDH.MEM.RANGE.BLOCK."""

    def tdh_mem_range_unblock(self, gpa: int, level: int) -> int:
        """TDH.MEM.RANGE.UNBLOCK of what is blocked and tracked."""

    def tdh_mem_track(self) -> int:
        """TDH.MEM.TRACK: a new TLB epoch."""

    def tdh_mem_page_remove(self, gpa: int, level: int) -> int:
        """TDH.MEM.PAGE.REMOVE."""

    def tdh_mem_sept_remove(self, gpa: int, level: int) -> int:
        """TDH.MEM.SEPT.REMOVE of the empty table under the entry of this TDX level."""

    def tdh_mem_page_demote(self, gpa: int, level: int, page: int) -> int:
        """TDH.MEM.PAGE.DEMOTE: split a huge leaf, with `page` as the table."""

    def tdh_mem_page_promote(self, gpa: int, level: int) -> int:
        """TDH.MEM.PAGE.PROMOTE: merge the table under the entry of this TDX level into a huge leaf."""

    def tdh_phymem_page_wbinvd(self, pfn: int) -> int:
        """TDH.PHYMEM.PAGE.WBINVD: write back the cache lines of a page."""

    def tdh_phymem_page_reclaim(self, page: int) -> int:
        """TDH.PHYMEM.PAGE.RECLAIM: take back a page of a TD that is torn down."""

    def tdh_mr_finalize(self) -> int:
        """TDH.MR.FINALIZE: the TD becomes runnable."""

    def clear_page(self, pfn: int) -> None:
        """Overwrite a page that the TD no longer owns (MOVDIR64B)."""

    def page_pin(self, pfn: int) -> None:
        """Take a reference on a page that the TD will own."""

    def page_unpin(self, pfn: int) -> None:
        """Put that reference."""

    def wait_for_sept_zap(self, value: int) -> None:
        """Whether vCPUs must stay out of the guest; mmu_lock held for write."""

    def hkid_assigned(self) -> int:
        """Whether the TD still has its key. 0 or 1."""

    def td_state(self) -> int:
        """TD_INIT, TD_RUNNABLE or TD_TEARDOWN, as last set."""

    def set_td_state(self, state: int) -> None:
        """Store the state of the TD."""

    def allow_pre_fault(self) -> None:
        """pre_fault_allowed = true."""

    def premapped(self, change: int) -> int:
        """Add to nr_premapped and return it."""
