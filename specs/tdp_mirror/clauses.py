"""The clauses on a TDP MMU with direct and mirror roots, in the order of their ids."""

from __future__ import annotations

from conformance.specs.clause import Clause, Kind, Level

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
        "this to any gfn of the slot being an alias. Of a slot whose move fails the leaves may be gone."
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
    text=(
        "All 512 entries of a new table are NONPRESENT (bit 63 set) before it becomes reachable. Below a direct root "
        "it may come with entries that map what they are to map."
    ),
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
        "freezer or under the write lock; entries of which hardware may set the dirty bit, or the fast path the "
        "writable one, are exchanged atomically even under the write lock. Nothing that hardware noted before is "
        "lost, and no entry becomes present again because its bits were changed."
    ),
    source="Linux 6.16 tdp_iter.h; spte.c spte_needs_atomic_update, which lets the accessed bit be lost",
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
        "Page-table memory reachable by others is accessed only inside an RCU read section or under rules that pin it: "
        "under the write lock, or under the read lock where no table is unlinked but under the write lock."
    ),
    source="v6 (rcu_dereference fix), Linux 6.16",
)

SNAPSHOT_FIRST = Clause(
    id="TDP-051",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "inv.seq is snapshot before the attribute check, which precedes pfn resolution; both precede taking mmu_lock. "
        "Where a lock keeps the page where it is, of the file or, while a TD is built, of the slots, no snapshot is "
        "needed."
    ),
    source="Linux 6.16 kvm_mmu_faultin_pfn, kvm_gmem_populate",
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
        "handling (EMULATE). No leaf covers a gfn that is not in the slot of the one it was made for."
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
        "obsolete, or an invalidation covers gfn, or inv.seq changed. Applies to private faults too; what the mirror "
        "maps already may be found without the lock."
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
        "return EIO/exit instead of spinning. Whoever finds the VM dead may refuse with EIO, in every operation and "
        "before anything else is looked at."
    ),
    source="Linux 6.16 tdx.c; tdp_map_page VM_DEAD check; kvm_vcpu_ioctl, kvm_vm_ioctl",
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
    text=(
        "zap_leafs/unmap remove exactly the leaves in [start,end) (end clamped to max_gfn+1); tables stay linked. A "
        "huge leaf that lies there in part goes as a whole, or is split first."
    ),
    source="Linux 6.16 tdp_mmu_zap_leafs",
)

FLUSH_STICKY = Clause(
    id="TDP-081",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The flush flag is sticky: the result is true if the input was, or a leaf of a valid root was zapped, since "
        "the last flush. Skipping a root must return the input flag. A flush that is not due does no harm; for leaves "
        "of a mirror none is due, the firmware flushes what it removes."
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
        "install into them. Under the write lock there are none, and what is not present may be left as it is."
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
        "store attributes, end invalidation; all under slots_lock. Where no slot is, nothing need be invalidated."
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
    text=(
        "Slots with gmem cannot have LOG_DIRTY or READONLY and cannot be modified after creation (EINVAL); of no "
        "pages they are deleted, or that is refused."
    ),
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
    text="SEPT.ADD, AUG, ADD: BUSY becomes EBUSY without kicking, unless the call is made again at once and succeeds.",
    source="Linux 6.16 tdx.c; v19 of the TDX series, which made SEPT calls again up to sixteen times",
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
    text=(
        "Prefault before finalize fails EOPNOTSUPP; state=RUNNABLE is visible before pre_fault_allowed=true. Where it "
        "is allowed though the TD does not run, the hook that sets a page refuses: VM bug, EIO."
    ),
    source="Linux 6.16 tdx_td_finalize, tdx_mem_page_record_premap_cnt; Linux 6.19 tdx_mem_page_add",
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
        "signal, VM dead (EIO), or slot INVALID (6.18+). That the VM is dead need not be asked before the first try."
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

SPLIT_KEEPS = Clause(
    id="TDP-107",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The small leaves that a huge one is split into say what it said: they may be read and written as it might, "
        "and are dirty if it was. A fault in whose way it is may take it down instead."
    ),
    source="Linux 6.16 spte.c make_small_spte",
)

PREFETCH_NOT_ACCESSED = Clause(
    id="TDP-108",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A shared leaf that a prefetch installs, or a fault along with its own, is not marked accessed: nobody has "
        "touched the page yet."
    ),
    source="Linux 6.16 spte.c make_spte",
)

PROTECTION_COMPLETE = Clause(
    id="TDP-109",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Write protection takes the permission to write from every leaf of its range in the valid direct root, "
        "clearing dirty takes the dirty bit, and neither takes more."
    ),
    source="Linux 6.16 kvm_tdp_mmu_wrprot_slot, kvm_tdp_mmu_clear_dirty_slot, kvm_tdp_mmu_write_protect_gfn",
)

SPLIT_COMPLETE = Clause(
    id="TDP-110",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Splitting leaves no huge leaf above the level in its range, and no gfn unmapped that was mapped, unless "
        "memory is short or somebody changes the tables meanwhile. Recovering takes leaves only where one huge leaf "
        "could be, and puts that in their place or nothing."
    ),
    source="Linux 6.16 kvm_tdp_mmu_try_split_huge_pages, kvm_tdp_mmu_recover_huge_pages",
)

NX_RECOVERY_ZAPS = Clause(
    id="TDP-111",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="NX recovery of a direct table takes away the table with all below it, and nothing else.",
    source="Linux 6.16 kvm_tdp_mmu_zap_sp",
)

LOGGED_AT_4K = Clause(
    id="TDP-112",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Where a slot logs dirty pages, no huge leaf is made writable, neither by a fault nor by the lockless path: a "
        "page is logged for itself. What was huge and writable before is left to splitting and protection."
    ),
    source="Linux 6.16 mmu.c kvm_mmu_hugepage_adjust, fast_page_fault",
    needs=frozenset({"log-dirty"}),
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
    SPLIT_KEEPS,
    PREFETCH_NOT_ACCESSED,
    PROTECTION_COMPLETE,
    SPLIT_COMPLETE,
    NX_RECOVERY_ZAPS,
    LOGGED_AT_4K,
)
