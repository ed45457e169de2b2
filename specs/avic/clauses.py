"""Every clause of the AVIC catalogue, in the order of their ids."""

from __future__ import annotations

from conformance.specs.clause import Clause, Kind, Level

NEEDS_CPUID_BIT = Clause(
    id="AVIC-001",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="AVIC is usable only if CPUID Fn8000_000A EDX[13] is 1; no other bit implies it.",
    source="APM 15.29.7; AVIC series as posted in 2016, part 1, patch 4",
    needs=frozenset({"layer-t"}),
)

NEEDS_NESTED_PAGING = Clause(
    id="AVIC-002",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="AVIC is off, without an error, whenever nested paging is off, whatever the parameter says.",
    source="AVIC series as posted in 2016, part 1, patch 4, svm_hardware_setup; APM 15.29.4.1",
    needs=frozenset({"layer-t"}),
)

OPT_IN_BY_PARAMETER = Clause(
    id="AVIC-003",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The parameter's default is off, and any non-zero integer turns AVIC on.",
    source="AVIC series as posted in 2016, part 1, patch 4",
    profiles=frozenset({"as-posted"}),
    needs=frozenset({"layer-t"}),
)

AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4 = Clause(
    id="AVIC-004",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Auto mode (-1) turns AVIC on if and only if EDX[18] is set and the CPU is a Zen 4 or of family 0x1A or "
        "later; an explicit 0 or 1 overrides that test alone."
    ),
    source="avic_want_avic_enabled",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

FORCE_BYPASSES_ONLY_CPUID = Clause(
    id="AVIC-005",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="force_avic bypasses the test of EDX[13] only, never those of nested paging or SNP.",
    source="avic_want_avic_enabled",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

X2AVIC_ALONE_IS_NOTHING = Clause(
    id="AVIC-006",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="EDX[18] without EDX[13], and without force, gives neither AVIC nor x2AVIC.",
    source="avic_want_avic_enabled",
    needs=frozenset({"layer-t"}),
)

SNP_HOST_KEEPS_AVIC_OFF = Clause(
    id="AVIC-007",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="On an SNP host without HvInUseWrAllowed AVIC stays off.",
    source="avic_want_avic_enabled",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES = Clause(
    id="AVIC-008",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "On families 0x17 and 0x18 IPI virtualization is off: IsRunning is never 1 in an entry that hardware can see."
    ),
    source="avic_hardware_setup; commits 8de4a1c8164e and 9a12fa5213cf",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

OFF_MEANS_UNTOUCHED = Clause(
    id="AVIC-009",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "With AVIC off no AVIC page is allocated, no AVIC field of the VMCB nor int_ctl bits 30 and 31 are "
        "written, and every teardown entry point does nothing."
    ),
    source="AVIC series as posted in 2016, part 1, patch 4, avic_vcpu_uninit and avic_vm_uninit; avic.c",
    needs=frozenset({"layer-t"}),
)

NO_IRQCHIP_NO_AVIC = Clause(
    id="AVIC-010",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Without an in-kernel local APIC vCPU creation succeeds, AVIC stays inactive for that VM, and no APIC "
        "register is touched."
    ),
    source="avic_init_vcpu, avic_vcpu_precreate",
    needs=frozenset({"layer-t"}),
)

HIGHEST_APIC_ID = Clause(
    id="AVIC-011",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "The highest usable guest physical APIC id is 254 in xAVIC, 511 in x2AVIC, 4095 with ECX[6], and never "
        "above max_vcpu_ids - 1."
    ),
    source="__avic_get_max_physical_id; APM 15.29.4.3",
    needs=frozenset({"layer-t"}),
)

ACTIVE_CONTROLS_SET = Clause(
    id="AVIC-012",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="While AVIC is active for a vCPU, int_ctl bits 31 and 24 and NP_ENABLE are 1 at VMRUN.",
    source="APM 15.29.4.1; init_vmcb",
    needs=frozenset({"layer-t"}),
)

X2_BIT_ONLY_IN_X2APIC_MODE = Clause(
    id="AVIC-013",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="int_ctl bit 30 is 1 only with bit 31, in x2APIC mode, and where x2AVIC exists.",
    source="APM 15.29.4.1; avic_activate_vmcb",
    needs=frozenset({"layer-t"}),
)

ONLY_ADDRESS_BITS_STORED = Clause(
    id="AVIC-014",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "The VMCB pointers at 0xE0, 0xF0 and 0xF8 name this vCPU's backing page and the VM's tables, with only "
        "bits 51:12 of an address stored and nothing but the maximum index below them."
    ),
    source="APM 15.29.4.2 and 15.29.4.3; the seed's intent of AVIC_HPA_MASK",
    needs=frozenset({"layer-t"}),
)

MAX_INDEX_IN_RANGE = Clause(
    id="AVIC-015",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "The maximum index is at most 255 in xAVIC and 511 in x2AVIC without ECX[6], inside the table, and not below "
        "the largest valid index that is addressable."
    ),
    source="APM 15.29.4.3 and 15.29.5.2",
    needs=frozenset({"layer-t"}),
)

TABLES_BELONG_TO_ONE_VM = Clause(
    id="AVIC-016",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "All vCPUs of a VM hold the same table pointers, and vCPUs of different VMs share no table and no backing page."
    ),
    source="APM 15.29.5",
    needs=frozenset({"layer-t"}),
)

APIC_BAR_FOLLOWS_BASE = Clause(
    id="AVIC-017",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "VMCB 0x98 is the APIC base while AVIC is active: 0xFEE00000 after RESET, unchanged by INIT, restored "
        "after the VMCB was rebuilt."
    ),
    source="APM 15.29.3; AVIC series as posted in 2016, part 1, patch 4, svm_vcpu_reset; avic_init_vmcb",
    needs=frozenset({"layer-t"}),
)

CLEAN_BIT_CLEARED_ON_CHANGE = Clause(
    id="AVIC-018",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="A change of VMCB 0x98, 0xE0, 0xF0 or 0xF8 after the first VMRUN clears clean bit 11 before the next one.",
    source="APM figure 15-4",
    needs=frozenset({"layer-t"}),
)

VMCB_OF_RUNNING_VCPU_UNTOUCHED = Clause(
    id="AVIC-019",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="The VMCB of a vCPU in guest mode is never modified but by a request that first takes it out.",
    source="APM 15.15 semantics; __kvm_set_or_clear_apicv_inhibit",
    needs=frozenset({"layer-t"}),
)

ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS = Clause(
    id="AVIC-020",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Inactive means bits 31:30 and the maximum index 0, CR8 writes and x2APIC MSRs intercepted; active means "
        "CR8 writes not intercepted and the x2APIC MSRs open if and only if bit 30 is 1."
    ),
    source="avic_activate_vmcb, avic_deactivate_vmcb",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

X2APIC_MSRS_INTERCEPTED = Clause(
    id="AVIC-021",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Whenever a vCPU is not in x2APIC mode with bit 30 set, every access to MSRs 0x800-0x8FF is intercepted.",
    source="commit b65235f6e102",
    needs=frozenset({"layer-t"}),
)

TLB_FLUSHED_ON_ACTIVATION = Clause(
    id="AVIC-022",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "A TLB flush of the vCPU is requested on every activation and every switch between xAVIC and x2AVIC, and "
        "in xAVIC a core that runs another vCPU of the same VM and ASID than last time does so with TLB_CONTROL "
        "3."
    ),
    source="avic_activate_vmcb; APM 15.29.4.3, note on multiprocessors",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

POINTERS_VALID_WHILE_INHIBITED = Clause(
    id="AVIC-023",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="VMCB pointers and APIC_BAR are valid from vCPU creation on, even while AVIC is inhibited.",
    source="commit 3989a6d036c8",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

V_TPR_FOLLOWS_TPR = Clause(
    id="AVIC-024",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="V_TPR equals TPR[7:4] of the APIC state at every VMRUN, whoever changed TPR last.",
    source="APM 15.29.3.1; commit d02e48830e3f",
    needs=frozenset({"layer-t"}),
)

TABLES_START_ZEROED = Clause(
    id="AVIC-025",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="The table pages are zero-filled before any VMCB points at them.",
    source="AVIC series as posted in 2016, part 1, patch 4, avic_vm_init; avic.c",
    needs=frozenset({"layer-t"}),
)

ENTRY_NAMES_BACKING_PAGE = Clause(
    id="AVIC-026",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "The entry of each created, addressable vCPU is valid and points at the backing page of its VMCB; "
        "entries without a vCPU are 0."
    ),
    source="APM 15.29.5.2; avic_init_backing_page",
    needs=frozenset({"layer-t"}),
)

ENTRY_RESERVED_BITS_ZERO = Clause(
    id="AVIC-027",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Bits 61:52 of every entry that hardware can see are 0.",
    source="APM table 15-23; __avic_vcpu_put",
    needs=frozenset({"layer-t"}),
)

RESERVED_ENTRIES_ZERO = Clause(
    id="AVIC-028",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="In xAVIC entry 255 and bytes 2048-4095 of the physical table stay 0.",
    source="APM 15.29.5.2",
    needs=frozenset({"layer-t"}),
)

NO_ENTRY_OUTSIDE_RANGE = Clause(
    id="AVIC-029",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An index below 0 or above the maximum has no physical table entry, never an address.",
    source="AVIC series as posted in 2016, part 1, patch 4, avic_get_phy_ait_entry",
    needs=frozenset({"layer-t", "helpers"}),
)

IS_RUNNING_TELLS_THE_TRUTH = Clause(
    id="AVIC-030",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "IsRunning is 1 if and only if the vCPU is loaded, not blocking, AVIC is active for it and IPI "
        "virtualization is on."
    ),
    source="APM 15.29.5.2; __avic_vcpu_load, __avic_vcpu_put",
    needs=frozenset({"layer-t", "exits"}),
)

HOST_ID_IS_WHOLE = Clause(
    id="AVIC-031",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "While IsRunning is 1, bits 11:0 of the entry are the full 12-bit APIC id of the core that the vCPU is "
        "loaded on."
    ),
    source="APM table 15-23; commit 4a204f789587",
    needs=frozenset({"layer-t", "exits"}),
)

ENTRY_STORES_ARE_ATOMIC = Clause(
    id="AVIC-032",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Every update of a table entry is a single aligned store, so hardware never sees IsRunning with an old "
        "host id nor a valid bit with an old pointer."
    ),
    source="avic.c, use of WRITE_ONCE",
    needs=frozenset({"layer-t"}),
)

HOST_ID_KEPT_AFTER_PUT = Clause(
    id="AVIC-033",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="Clearing IsRunning keeps the last host id, so that a stray doorbell reaches only a core that ran this vCPU.",
    source="__avic_vcpu_put",
    needs=frozenset({"layer-t", "exits"}),
)

LOAD_WHILE_BLOCKING_WAITS = Clause(
    id="AVIC-034",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Load while blocking changes nothing, unblocking performs the load, and put of a blocking vCPU that is "
        "already not running changes nothing."
    ),
    source="__avic_vcpu_load, avic_vcpu_put, avic_vcpu_unblocking",
    needs=frozenset({"layer-t", "exits"}),
)

WIDE_HOST_ID_CHANGES_NOTHING = Clause(
    id="AVIC-035",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A host APIC id that does not fit 12 bits leaves the entry unchanged, without a crash.",
    source="__avic_vcpu_load",
    needs=frozenset({"layer-t", "exits"}),
)

BLOCKING_CHECKS_IRR_LAST = Clause(
    id="AVIC-036",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Blocking clears IsRunning before the last check of IRR, and a vCPU with a deliverable vector does not sleep."
    ),
    source="avic_vcpu_blocking",
    needs=frozenset({"layer-t", "exits"}),
)

LOGICAL_INDEX_IS_POWER_OF_TWO = Clause(
    id="AVIC-037",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Flat 1<<i has index i, cluster c<<4 | 1<<j has 4c+j; 0, several bits and cluster 15 have none.",
    source="APM 15.29.5.3; avic_get_logical_id_entry",
    needs=frozenset({"layer-t", "helpers"}),
)

NO_STALE_LOGICAL_ENTRY = Clause(
    id="AVIC-038",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Every valid logical entry belongs to an xAPIC-mode vCPU with that id whose current LDR and DFR map to "
        "its index, whenever AVIC is active for all vCPUs."
    ),
    source="APM 15.29.5.3",
    needs=frozenset({"layer-t", "exits"}),
)

LOGICAL_ENTRIES_COMPLETE = Clause(
    id="AVIC-039",
    level=Level.SHOULD,
    kind=Kind.INVARIANT,
    text="Each xAPIC vCPU whose LDR and DFR have an index owns a valid logical entry there.",
    source="APM 15.29.5.3; KVM behaviour",
    needs=frozenset({"layer-t", "exits"}),
)

LOGICAL_RESERVED_BITS_ZERO = Clause(
    id="AVIC-040",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Bits 30:8 of every logical entry are 0, valid or not.",
    source="APM table 15-24",
    needs=frozenset({"layer-t", "exits"}),
)

LDR_WRITE_MOVES_OWN_ENTRY = Clause(
    id="AVIC-041",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An LDR write touches the entries of the vCPU's previous and of its new LDR and DFR only: the first "
        "becomes invalid, the second is installed; an LDR without an index leaves none but is remembered."
    ),
    source="avic_handle_ldr_update",
    needs=frozenset({"layer-t", "exits"}),
)

LOGICAL_WRITES_REACH_SOFTWARE_APIC = Clause(
    id="AVIC-042",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Every LDR or DFR write, valid or not, is also applied to the software APIC.",
    source="avic_unaccel_trap_write",
    needs=frozenset({"layer-t", "exits"}),
)

DFR_CHANGE_INVALIDATES_OLD_ENTRY = Clause(
    id="AVIC-043",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A DFR change invalidates the entry derived from the old DFR.",
    source="avic_handle_dfr_update",
    needs=frozenset({"layer-t", "exits"}),
)

RESET_REMOVES_LOGICAL_ENTRY = Clause(
    id="AVIC-044",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="RESET and INIT remove the vCPU's logical entry, at the latest when AVIC is active for it again.",
    source="AVIC-038 applied to reset; kvm_lapic_reset",
    needs=frozenset({"layer-t", "exits"}),
)

RESTORE_SYNCS_LOGICAL_TABLE = Clause(
    id="AVIC-045",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "set_lapic and activation after an inhibit bring the logical table in line with LDR and DFR before the "
        "next VMRUN."
    ),
    source="avic_refresh_virtual_apic_mode",
    needs=frozenset({"layer-t", "exits"}),
)

X2APIC_LDR_IS_READ_ONLY = Clause(
    id="AVIC-046",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="In x2APIC mode LDR is read-only and derived from the id, and the LDR and DFR handlers do nothing.",
    source="avic.c; APM 16.14",
    needs=frozenset({"layer-t", "exits"}),
)

FLAT_IS_ALL_ONES = Clause(
    id="AVIC-047",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Flat mode is selected if and only if DFR is 0xFFFFFFFF once its low 28 bits are forced to 1.",
    source="avic.c; APM 15.29.5.3",
    needs=frozenset({"layer-t", "helpers"}),
)

BACKING_PAGE_STAYS = Clause(
    id="AVIC-048",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Each vCPU has exactly one backing page, 4 KiB aligned, shared with nobody, which cannot be moved or "
        "freed while a VMCB or table entry holds its address."
    ),
    source="APM 15.29.2 and 15.29.3",
    needs=frozenset({"layer-t"}),
)

BACKING_PAGE_IS_PRIVATE = Clause(
    id="AVIC-049",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "A backing page is reachable by the guest only through the filtered APIC window of its own vCPU, and not "
        "by user space mappings."
    ),
    source="APM 15.29.8.1, intent",
    needs=frozenset({"layer-t"}),
)

REGISTERS_HAVE_RESET_VALUES = Clause(
    id="AVIC-050",
    level=Level.MUST,
    kind=Kind.STATE,
    text=(
        "After creation and RESET the registers have their reset values; after INIT the same but APIC_BASE and "
        "ID are unchanged."
    ),
    source="APM table 16-2 and 16.10; kvm_lapic_reset",
    needs=frozenset({"layer-t"}),
)

LVT0_MASKED_AFTER_RESET = Clause(
    id="AVIC-051",
    level=Level.MUST,
    kind=Kind.STATE,
    text="LVT0 is masked (0x10000) after reset; 0x700 is acceptable on the boot vCPU only.",
    source="APM table 16-2; observed on KVM 6.18",
    needs=frozenset({"layer-t"}),
)

OTHER_VCPUS_KEEP_REGISTERS = Clause(
    id="AVIC-052",
    level=Level.MUST,
    kind=Kind.STATE,
    text="Creating, failing to create, or freeing a vCPU changes no register of another vCPU.",
    source="AVIC-048; upstream redesign",
    needs=frozenset({"layer-t"}),
)

ONE_APIC_STATE = Clause(
    id="AVIC-053",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="get_lapic returns what the guest sees, and set_lapic is visible to the guest.",
    source="upstream design, one register page",
    needs=frozenset({"layer-t"}),
)

PPR_FROM_TPR_AND_ISR = Clause(
    id="AVIC-054",
    level=Level.MUST,
    kind=Kind.STATE,
    text="PPR is TPR if TPR[7:4] >= ISRV[7:4], else ISRV & 0xF0.",
    source=(
        "__apic_update_ppr; APM 16.6.4; that Intel leaves the sub-class of equal classes open is general "
        "knowledge, not verified"
    ),
    needs=frozenset({"layer-t"}),
)

BITMAPS_CHANGE_ATOMICALLY = Clause(
    id="AVIC-055",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="Software changes IRR, ISR and TMR words of a live backing page with atomic OR and AND only.",
    source="APM 15.29.6.1 and 15.29.6.2; kvm_lapic_set_irr",
    needs=frozenset({"layer-t", "exits"}),
)

TMR_BEFORE_IRR = Clause(
    id="AVIC-056",
    level=Level.SHOULD,
    kind=Kind.ORDERING,
    text="The TMR bit of a vector is set or cleared before its IRR bit is set.",
    source="__apic_accept_irq, order",
    needs=frozenset({"layer-t", "exits"}),
)

X2_ICR_STORED_IN_HALVES = Clause(
    id="AVIC-057",
    level=Level.MUST,
    kind=Kind.STATE,
    text="The x2APIC ICR is stored with its low half at 0x300 and its high half at 0x310, and read back combined.",
    source="APM 15.29.10; kvm_x2apic_icr_write",
    needs=frozenset({"layer-t", "exits"}),
)

FAILED_CREATE_LEAVES_NOTHING = Clause(
    id="AVIC-058",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "A failing vcpu_create leaves allocations, memslots, tables, other vCPUs and VMCBs as before, but for "
        "tables that the VM keeps for its first vCPU, and returns the injected error."
    ),
    source="the seed's intent; error table",
    needs=frozenset({"layer-t"}),
)

BACKING_PAGE_ERROR_RETURNED = Clause(
    id="AVIC-059",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An error from the set-up of the backing page is returned, never ignored.",
    source="AVIC series as posted in 2016, part 1, patch 4, violated there",
    needs=frozenset({"layer-t"}),
)

TABLES_FREED_ONCE = Clause(
    id="AVIC-060",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Tables are freed exactly once, when no vCPU can reference them, and nothing of a VM is left after it is "
        "destroyed."
    ),
    source="AVIC series as posted in 2016, part 1, patch 4, avic_vcpu_uninit",
    needs=frozenset({"layer-t"}),
)

DUPLICATE_ID_REFUSED = Clause(
    id="AVIC-061",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Creating a duplicate id returns -EEXIST and has no side effect on the existing vCPU.",
    source="KVM ABI; observed on KVM 6.18; the position of the check in 2016 is not verified",
    needs=frozenset({"layer-t"}),
)

TABLES_PUBLISHED_COMPLETE = Clause(
    id="AVIC-062",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Per-VM structures are published only when complete; two concurrent first creations allocate one set of tables."
    ),
    source="AVIC-058 and AVIC-060",
    needs=frozenset({"layer-t"}),
)

VM_TAG_UNIQUE = Clause(
    id="AVIC-063",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "The tag of a VM is unique among live VMs and never 0, also after the counter wraps and with concurrent "
        "allocation."
    ),
    source="avic_add_vm_to_ga_log_list",
    needs=frozenset({"layer-t"}),
)

TOO_BIG_ID_INHIBITS = Clause(
    id="AVIC-064",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An id above the hardware maximum is created, inhibits AVIC (PHYSICAL_ID_TOO_BIG), and writes no table entry."
    ),
    source="commit 1aa6e256e46f; avic_init_backing_page",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)

ACQUISITIONS_BALANCE = Clause(
    id="AVIC-065",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="kmap, page references and locks are balanced on every path, and no freed page is used.",
    source="AVIC series as posted in 2016, part 1, patch 4",
    needs=frozenset({"layer-t"}),
)

FAILED_VM_LEAVES_NOTHING = Clause(
    id="AVIC-066",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="Failure of VM creation after the per-VM allocation releases everything.",
    source="2019 list thread, kvm_arch_destroy_vm if vm creation fails",
    needs=frozenset({"layer-t"}),
)

DESTROY_LEAVES_GALOG_FIRST = Clause(
    id="AVIC-067",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "VM destroy removes the VM from the GALog lookup before its vCPUs are freed; the notifier is "
        "unregistered on module exit."
    ),
    source="avic_vm_pre_destroy, avic_hardware_unsetup",
    needs=frozenset({"layer-t", "posted"}),
)

UNACCELERATED_IPI_SENT_ONCE = Clause(
    id="AVIC-068",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "For exit id 0 the driver performs the whole IPI of EXITINFO1 exactly once; the ICR keeps the guest's "
        "value, with busy 0."
    ),
    source="avic_incomplete_ipi_interception",
    needs=frozenset({"layer-t", "exits"}),
)

PARTLY_INVALID_IPI_SENT = Clause(
    id="AVIC-069",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "For exit id 2 the valid targets of a partly invalid destination receive the IPI and non-existent ones "
        "are ignored."
    ),
    source="commit 5aede752a839",
    needs=frozenset({"layer-t", "exits"}),
)

NOT_RUNNING_TARGETS_WOKEN_ONLY = Clause(
    id="AVIC-070",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="For exit id 1 no IRR bit is set again; every target that is not in guest mode is woken.",
    source="2019 discussion of the revert 4a58038b9e42; avic.c",
    needs=frozenset({"layer-t", "exits"}),
)

ALL_TARGETS_WOKEN = Clause(
    id="AVIC-071",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="For exit id 1 all targets of the destination or shorthand are covered, not only the one named by the index.",
    source="avic_kick_target_vcpus",
    needs=frozenset({"layer-t", "exits"}),
)

SENDERS_MODE_DECODES = Clause(
    id="AVIC-072",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The destination of exit id 1 is decoded in the sender's mode and with the sender's DFR.",
    source="avic_kick_target_vcpus",
    needs=frozenset({"layer-t", "exits"}),
)

OTHER_IPI_EXITS_RESUME = Clause(
    id="AVIC-073",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Exit ids 3 and above resume the guest and deliver nothing; id 3, the driver's own mistake, is reported.",
    source="avic_incomplete_ipi_interception",
    needs=frozenset({"layer-t", "exits"}),
)

NO_LOST_WAKE_UP = Clause(
    id="AVIC-074",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="At quiescence no vCPU sleeps with a deliverable vector in IRR.",
    source="APM 15.29.6.1; avic.c",
    needs=frozenset({"layer-t", "exits"}),
)

ANY_EXITINFO_TOLERATED = Clause(
    id="AVIC-075",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The IPI exit handler tolerates any EXITINFO1 and EXITINFO2: no access outside the tables, no warning "
        "that a guest can trigger."
    ),
    source="commit dd4589eee99d",
    needs=frozenset({"layer-t", "exits"}),
)

TRAPS_AND_FAULTS_TOLD_APART = Clause(
    id="AVIC-076",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Trap-class accesses are treated as done, fault-class ones are emulated exactly once.",
    source="APM table 15-22; avic_unaccelerated_access_interception",
    needs=frozenset({"layer-t", "exits"}),
)

TRAP_REAPPLIES_WITH_MASKS = Clause(
    id="AVIC-077",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A trapped write re-applies the page's value through the software APIC with its masks.",
    source="kvm_lapic_reg_write",
    needs=frozenset({"layer-t", "exits"}),
)

REMOTE_READ_IGNORED = Clause(
    id="AVIC-078",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Writes to the remote read register are ignored.",
    source="avic_unaccel_trap_write",
    needs=frozenset({"layer-t", "exits"}),
)

LEVEL_EOI_BROADCAST_ONCE = Clause(
    id="AVIC-079",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A level EOI exit ends with the in-service bit of the vector clear and its EOI broadcast once.",
    source="APM 15.29.3.1; kvm_apic_write_nodecode, apic_set_eoi",
    needs=frozenset({"layer-t", "exits"}),
)

FOREIGN_APIC_ID_INHIBITS = Clause(
    id="AVIC-080",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A guest write of another APIC id is accepted and inhibits AVIC, the original value removes the inhibit, "
        "and physical entries never move."
    ),
    source="kvm_recalculate_apic_map",
    needs=frozenset({"layer-t", "exits"}),
)

UNKNOWN_OFFSETS_HARMLESS = Clause(
    id="AVIC-081",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Unknown or reserved offsets never crash nor end in an error to user space.",
    source="AVIC-075, same reasoning",
    needs=frozenset({"layer-t", "exits"}),
)

DELIVERY_SETS_IRR_FIRST = Clause(
    id="AVIC-082",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "deliver() sets IRR, then reads the target's mode: in guest and active a doorbell, active and outside a "
        "wake-up, inactive an event request and a kick."
    ),
    source="svm_deliver_interrupt",
    needs=frozenset({"layer-t", "exits"}),
)

DOORBELL_NAMES_THE_CORE = Clause(
    id="AVIC-083",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "The doorbell's value is the host APIC id of the target's core with reserved bits 0; spurious doorbells "
        "are harmless."
    ),
    source="APM 15.29.8.2; avic_ring_doorbell",
    needs=frozenset({"layer-t", "exits"}),
)

HWAPIC_UPDATES_DO_NOTHING = Clause(
    id="AVIC-084",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="hwapic_irr_update and hwapic_isr_update have no effect.",
    source="AVIC series as posted in 2016, part 1, patch 4",
    needs=frozenset({"layer-t"}),
)

ACTIVE_IFF_NOTHING_FORBIDS = Clause(
    id="AVIC-085",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "AVIC is active for a vCPU if and only if the module has it on, the VM has an in-kernel APIC and no "
        "inhibit, and the vCPU's APIC is enabled, its id addressable and nested guest mode off."
    ),
    source="__kvm_vcpu_update_apicv",
    needs=frozenset({"layer-t"}),
)

INHIBIT_CONDITIONS = Clause(
    id="AVIC-086",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Aliased physical ids, a logical map that is not one to one, a foreign xAPIC id and a moved APIC base "
        "inhibit AVIC, as do AutoEOI, PIT reinjection, an open interrupt window, SEV and BLOCKIRQ when told."
    ),
    source="lapic.c; kvm_host.h",
    needs=frozenset({"layer-t", "exits"}),
)

INHIBITS_RECOMPUTED = Clause(
    id="AVIC-087",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "The inhibits of aliased and foreign ids are recomputed at every map recalculation, the interrupt "
        "window's is cleared when it opens, and that of a moved base is never cleared."
    ),
    source="kvm_recalculate_apic_map, __kvm_apic_set_base",
    needs=frozenset({"layer-t", "exits"}),
)

INHIBIT_KICKS_AND_LOSES_NOTHING = Clause(
    id="AVIC-088",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "The first inhibit takes every vCPU out of the guest before it is in force, and an interrupt accepted "
        "around the switch is delivered exactly once."
    ),
    source="__kvm_set_or_clear_apicv_inhibit, kvm_apic_update_apicv",
    needs=frozenset({"layer-t", "exits"}),
)

INHIBITED_NEVER_RUNNING = Clause(
    id="AVIC-089",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="While inhibited, IsRunning is 0 for every vCPU.",
    source="avic_refresh_apicv_exec_ctrl",
    needs=frozenset({"layer-t", "exits"}),
)

X2APIC_REMOVES_ACCESS_PAGE = Clause(
    id="AVIC-090",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Without x2AVIC the APIC access memslot is gone, for good, once a vCPU uses x2APIC mode, so that MMIO "
        "cannot reach a backing page."
    ),
    source="kvm_vcpu_update_apicv, kvm_inhibit_apic_access_page",
    needs=frozenset({"layer-t"}),
)

TAG_ROUND_TRIP = Clause(
    id="AVIC-091",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A GATag decodes to the VM and vCPU it was made from, and unknown tags are ignored.",
    source="avic.c, static assertion",
    needs=frozenset({"layer-t", "posted"}),
)

GALOG_WAKES_EXACTLY_ONE = Clause(
    id="AVIC-092",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The GALog notifier wakes exactly the vCPU of the tag and leaves IRR alone.",
    source="avic_ga_log_notifier",
    needs=frozenset({"layer-t", "posted"}),
)

OLD_VCPU_FORGETS_IRTE = Clause(
    id="AVIC-093",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Re-targeting or un-posting an IRTE takes it off the old vCPU's list first, and a route that cannot be "
        "posted returns it to host mode."
    ),
    source="commit 9bcac97dc42d; 2025-06 list discussion",
    needs=frozenset({"layer-t", "posted"}),
)

IRTE_FOLLOWS_VCPU = Clause(
    id="AVIC-094",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "IsRun and the destination of an IRTE always equal the vCPU's, and GALogIntr is set if and only if it blocks."
    ),
    source="__avic_vcpu_load, __avic_vcpu_put",
    needs=frozenset({"layer-t", "posted"}),
)

MISSING_METADATA_REVERTS = Clause(
    id="AVIC-095",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An affinity call that succeeds without metadata ends with the IRTE in host mode and -EIO.",
    source="avic_pi_update_irte",
    needs=frozenset({"layer-t", "posted"}),
)

PHYSICAL_DESTINATION = Clause(
    id="AVIC-096",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A physical destination matches an xAPIC if it is 0xFF or ID[31:24], an x2APIC if it is 0xFFFFFFFF or "
        "the 32-bit id."
    ),
    source="kvm_apic_match_physical_addr; the Intel manual, 11.6.2.1 and 11.12, from general knowledge, not verified",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

LOGICAL_DESTINATION_XAPIC = Clause(
    id="AVIC-097",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A logical destination matches an xAPIC if it is 0xFF, if it shares a bit with a flat LDR, or if cluster "
        "and member of a cluster LDR agree."
    ),
    source="kvm_apic_match_logical_addr; APM 15.29.6.1 step 2",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

LOGICAL_DESTINATION_X2APIC = Clause(
    id="AVIC-098",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A logical destination matches an x2APIC if it is 0xFFFFFFFF or names its cluster and one of its members.",
    source="kvm_apic_match_logical_addr; APM 16.14",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

SHORTHAND_OVERRIDES = Clause(
    id="AVIC-099",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A shorthand overrides destination and mode: self, every APIC, every APIC but the sender.",
    source="kvm_apic_match_dest",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

FIXED_NEEDS_SOFTWARE_ENABLE = Clause(
    id="AVIC-100",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Fixed and lowest-priority messages are accepted only by software-enabled APICs; INIT, STARTUP, NMI and "
        "SMI do not need that."
    ),
    source="__apic_accept_irq; observed on KVM 6.18",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

LOWEST_PRIORITY_PICKS_ONE = Clause(
    id="AVIC-101",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Exactly one of the matching enabled APICs accepts a lowest-priority message; a broadcast, by physical "
        "destination or shorthand, may be treated as fixed."
    ),
    source="irq_comm.c; observed on KVM 6.18",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

LOW_VECTORS_ILLEGAL = Clause(
    id="AVIC-102",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Vectors 0-15 in fixed or lowest-priority mode set no IRR bit.",
    source="APM table 15-27; the Intel manual from general knowledge, not verified",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

DEASSERT_DELIVERS_NOTHING = Clause(
    id="AVIC-103",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A level-triggered fixed message with level 0 delivers nothing.",
    source="KVM 6.16 lapic.c; observed on KVM 6.18",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

ACCEPTANCE_SETS_IRR_AND_TMR = Clause(
    id="AVIC-104",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Acceptance sets the IRR bit and sets TMR for level, clears it for edge; a message for a pending vector "
        "is merged."
    ),
    source="KVM 6.16 lapic.c; APM 16.6.3",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-t", "exits"}),
)

X2_ICR_RESERVED_BITS_FAULT = Clause(
    id="AVIC-105",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An x2APIC ICR write with a reserved bit, or a SELF_IPI above 0xFF, gives #GP and sends nothing.",
    source="kvm_x2apic_icr_write; observed on KVM 6.18",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

DISABLED_APIC_RECEIVES_NOTHING = Clause(
    id="AVIC-106",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An APIC with AE=0 receives nothing.",
    source="observed on KVM 6.18",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-r"}),
)

HARDWARE_AND_HANDLER_MATCH_ROUTING = Clause(
    id="AVIC-107",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Hardware on the driver's tables followed by its exit handler sets exactly the IRR bits that routing names.",
    source="derived from AVIC-026 to AVIC-104",
    needs=frozenset({"layer-t", "exits"}),
)

ENTRY_POINTS_RETURN = Clause(
    id="AVIC-108",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Every entry point comes back, with a value of its type, and without crashing.",
    source="the contract of the suite",
)

KVM_FAST_PATH = Clause(
    id="AVIC-109",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A message that KVM's optimised map can resolve reaches the mapped vCPUs and nobody else.",
    source="kvm_irq_delivery_to_apic_fast; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"layer-r"}),
)

KVM_SLOW_PATH = Clause(
    id="AVIC-110",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A broadcast, a shorthand, or a message that the optimised map cannot resolve reaches the vCPUs that "
        "match it one by one."
    ),
    source="kvm_irq_delivery_to_apic; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"layer-r"}),
)

KVM_ACCEPTED_COUNT = Clause(
    id="AVIC-111",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "KVM_SIGNAL_MSI returns the number of vCPUs that accepted, 0 if the map resolved it to nobody, -EPERM if "
        "the slow path matched nobody."
    ),
    source="kvm_irq_delivery_to_apic; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"layer-r", "kvm-return"}),
)

APIC_BASE_REFUSED = Clause(
    id="AVIC-112",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An APIC base with EXTD but not AE or with reserved bits is refused, as are a guest's own steps from "
        "x2APIC to xAPIC and from disabled to x2APIC."
    ),
    source="kvm_apic_set_base; observed on KVM 6.18",
    needs=frozenset({"layer-t", "exits"}),
)

NO_SLEEPING_WHILE_ATOMIC = Clause(
    id="AVIC-113",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="Nothing that may sleep is called with a spinlock held.",
    source="commits 7537deda3652 and fd92bd3b4445",
    needs=frozenset({"layer-t", "posted"}),
)

X2_GUEST_WRITE_FAULTS = Clause(
    id="AVIC-114",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A guest in x2APIC mode that sets reserved bits of ICR or SELF_IPI gets #GP, and nothing is sent or stored.",
    source="AVIC-105 applied to a driver of layer T; kvm_x2apic_icr_write",
    profiles=frozenset({"upstream", "as-posted", "arch"}),
    needs=frozenset({"layer-t", "exits"}),
)
EOI_ENDED_BY_VECTOR = Clause(
    id="AVIC-115",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text=(
        "A level EOI exit is finished for the vector that EXITINFO2 names, so that it is right whether or not "
        "hardware had cleared the in-service bit."
    ),
    source=(
        "APM 15.29.3.1 and 15.29.9.2, whose wording conflicts; what processors do is not verified, and Linux ends the "
        "highest vector in service"
    ),
    needs=frozenset({"layer-t", "exits"}),
)

TIMER_LVT_INTERCEPTED = Clause(
    id="AVIC-116",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "While x2AVIC is active, writes of the timer LVT stay intercepted: TSC-deadline mode is not virtualized, and "
        "the processor would give #GP."
    ),
    source="avic_set_x2apic_msr_interception, comment on LVTT",
    profiles=frozenset({"upstream"}),
    needs=frozenset({"layer-t"}),
)
OFF_IS_A_SOFTWARE_APIC = Clause(
    id="AVIC-117",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "With AVIC off a VM with an in-kernel local APIC works as ever: its registers are kept, interrupts injected, "
        "inhibits and routes succeed, and no IRTE is posted."
    ),
    source="avic_pi_update_irte; the crash of 5.6-rc with assigned devices and AVIC off",
    needs=frozenset({"layer-t", "exits"}),
)
RESTORED_INTERRUPTS_END = Clause(
    id="AVIC-118",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "set_lapic takes over ISR and TMR as well: what was in service still is, holds back lower classes, and ends "
        "as it began, level or edge."
    ),
    source="kvm_apic_set_state",
    needs=frozenset({"layer-t", "exits"}),
)

IRQFD_ONCE = Clause(
    id="AVIC-119",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "KVM_IRQFD refuses with -EBUSY an eventfd that it has already, on whichever gsi, with -EINVAL what is no "
        "eventfd and with -EBADF what is not open; several eventfds may have one gsi."
    ),
    source="kvm_irqfd_assign; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"irqfd"}),
)

IRQFD_DELIVERS = Clause(
    id="AVIC-120",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A write to an assigned eventfd delivers once, whatever was written, the MSI that its gsi has then, and "
        "empties the counter, also where the gsi has none."
    ),
    source="irqfd_wakeup; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"irqfd"}),
)

IRQFD_FIRES_WHEN_PENDING = Clause(
    id="AVIC-121",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An eventfd whose counter is not 0 delivers when it is assigned, without another write, and keeps its counter."
    ),
    source="kvm_irqfd_assign; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"irqfd"}),
)

IRQFD_DEASSIGNED = Clause(
    id="AVIC-122",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Deassigning an eventfd succeeds also where that gsi does not have it, and then changes nothing; an eventfd "
        "that is not assigned delivers nothing and keeps what is written to it."
    ),
    source="kvm_irqfd_deassign; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"irqfd"}),
)

ROUTING_REPLACED_WHOLE = Clause(
    id="AVIC-123",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "KVM_SET_GSI_ROUTING replaces the whole table; with a gsi that is not below what KVM_CAP_IRQ_ROUTING tells, "
        "which is 1024 or more, or two MSIs on one gsi, it gives -EINVAL and changes nothing."
    ),
    source="kvm_set_irq_routing; KVM_MAX_IRQ_ROUTES: 1024, since 5.0 4096; observed on KVM 6.18",
    profiles=frozenset({"kvm-lapic"}),
    needs=frozenset({"irqfd"}),
)

OLD_LOGICAL_ENTRY_FIRST = Clause(
    id="AVIC-124",
    level=Level.SHOULD,
    kind=Kind.ORDERING,
    text="An LDR or DFR write makes the entry of the old logical id invalid before that of the new one is valid.",
    source="avic_handle_ldr_update; APM 15.29.5.3 gives no order, and software sends what no valid entry names",
    needs=frozenset({"layer-t", "exits"}),
)

CLAUSES = (
    NEEDS_CPUID_BIT,
    NEEDS_NESTED_PAGING,
    OPT_IN_BY_PARAMETER,
    AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4,
    FORCE_BYPASSES_ONLY_CPUID,
    X2AVIC_ALONE_IS_NOTHING,
    SNP_HOST_KEEPS_AVIC_OFF,
    NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES,
    OFF_MEANS_UNTOUCHED,
    NO_IRQCHIP_NO_AVIC,
    HIGHEST_APIC_ID,
    ACTIVE_CONTROLS_SET,
    X2_BIT_ONLY_IN_X2APIC_MODE,
    ONLY_ADDRESS_BITS_STORED,
    MAX_INDEX_IN_RANGE,
    TABLES_BELONG_TO_ONE_VM,
    APIC_BAR_FOLLOWS_BASE,
    CLEAN_BIT_CLEARED_ON_CHANGE,
    VMCB_OF_RUNNING_VCPU_UNTOUCHED,
    ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS,
    X2APIC_MSRS_INTERCEPTED,
    TLB_FLUSHED_ON_ACTIVATION,
    POINTERS_VALID_WHILE_INHIBITED,
    V_TPR_FOLLOWS_TPR,
    TABLES_START_ZEROED,
    ENTRY_NAMES_BACKING_PAGE,
    ENTRY_RESERVED_BITS_ZERO,
    RESERVED_ENTRIES_ZERO,
    NO_ENTRY_OUTSIDE_RANGE,
    IS_RUNNING_TELLS_THE_TRUTH,
    HOST_ID_IS_WHOLE,
    ENTRY_STORES_ARE_ATOMIC,
    HOST_ID_KEPT_AFTER_PUT,
    LOAD_WHILE_BLOCKING_WAITS,
    WIDE_HOST_ID_CHANGES_NOTHING,
    BLOCKING_CHECKS_IRR_LAST,
    LOGICAL_INDEX_IS_POWER_OF_TWO,
    NO_STALE_LOGICAL_ENTRY,
    LOGICAL_ENTRIES_COMPLETE,
    LOGICAL_RESERVED_BITS_ZERO,
    LDR_WRITE_MOVES_OWN_ENTRY,
    LOGICAL_WRITES_REACH_SOFTWARE_APIC,
    DFR_CHANGE_INVALIDATES_OLD_ENTRY,
    RESET_REMOVES_LOGICAL_ENTRY,
    RESTORE_SYNCS_LOGICAL_TABLE,
    X2APIC_LDR_IS_READ_ONLY,
    FLAT_IS_ALL_ONES,
    BACKING_PAGE_STAYS,
    BACKING_PAGE_IS_PRIVATE,
    REGISTERS_HAVE_RESET_VALUES,
    LVT0_MASKED_AFTER_RESET,
    OTHER_VCPUS_KEEP_REGISTERS,
    ONE_APIC_STATE,
    PPR_FROM_TPR_AND_ISR,
    BITMAPS_CHANGE_ATOMICALLY,
    TMR_BEFORE_IRR,
    X2_ICR_STORED_IN_HALVES,
    FAILED_CREATE_LEAVES_NOTHING,
    BACKING_PAGE_ERROR_RETURNED,
    TABLES_FREED_ONCE,
    DUPLICATE_ID_REFUSED,
    TABLES_PUBLISHED_COMPLETE,
    VM_TAG_UNIQUE,
    TOO_BIG_ID_INHIBITS,
    ACQUISITIONS_BALANCE,
    FAILED_VM_LEAVES_NOTHING,
    DESTROY_LEAVES_GALOG_FIRST,
    UNACCELERATED_IPI_SENT_ONCE,
    PARTLY_INVALID_IPI_SENT,
    NOT_RUNNING_TARGETS_WOKEN_ONLY,
    ALL_TARGETS_WOKEN,
    SENDERS_MODE_DECODES,
    OTHER_IPI_EXITS_RESUME,
    NO_LOST_WAKE_UP,
    ANY_EXITINFO_TOLERATED,
    TRAPS_AND_FAULTS_TOLD_APART,
    TRAP_REAPPLIES_WITH_MASKS,
    REMOTE_READ_IGNORED,
    LEVEL_EOI_BROADCAST_ONCE,
    FOREIGN_APIC_ID_INHIBITS,
    UNKNOWN_OFFSETS_HARMLESS,
    DELIVERY_SETS_IRR_FIRST,
    DOORBELL_NAMES_THE_CORE,
    HWAPIC_UPDATES_DO_NOTHING,
    ACTIVE_IFF_NOTHING_FORBIDS,
    INHIBIT_CONDITIONS,
    INHIBITS_RECOMPUTED,
    INHIBIT_KICKS_AND_LOSES_NOTHING,
    INHIBITED_NEVER_RUNNING,
    X2APIC_REMOVES_ACCESS_PAGE,
    TAG_ROUND_TRIP,
    GALOG_WAKES_EXACTLY_ONE,
    OLD_VCPU_FORGETS_IRTE,
    IRTE_FOLLOWS_VCPU,
    MISSING_METADATA_REVERTS,
    PHYSICAL_DESTINATION,
    LOGICAL_DESTINATION_XAPIC,
    LOGICAL_DESTINATION_X2APIC,
    SHORTHAND_OVERRIDES,
    FIXED_NEEDS_SOFTWARE_ENABLE,
    LOWEST_PRIORITY_PICKS_ONE,
    LOW_VECTORS_ILLEGAL,
    DEASSERT_DELIVERS_NOTHING,
    ACCEPTANCE_SETS_IRR_AND_TMR,
    X2_ICR_RESERVED_BITS_FAULT,
    DISABLED_APIC_RECEIVES_NOTHING,
    HARDWARE_AND_HANDLER_MATCH_ROUTING,
    ENTRY_POINTS_RETURN,
    KVM_FAST_PATH,
    KVM_SLOW_PATH,
    KVM_ACCEPTED_COUNT,
    APIC_BASE_REFUSED,
    NO_SLEEPING_WHILE_ATOMIC,
    X2_GUEST_WRITE_FAULTS,
    EOI_ENDED_BY_VECTOR,
    TIMER_LVT_INTERCEPTED,
    OFF_IS_A_SOFTWARE_APIC,
    RESTORED_INTERRUPTS_END,
    IRQFD_ONCE,
    IRQFD_DELIVERS,
    IRQFD_FIRES_WHEN_PENDING,
    IRQFD_DEASSIGNED,
    ROUTING_REPLACED_WHOLE,
    OLD_LOGICAL_ENTRY_FIRST,
)
"""All of them; the ids run without a gap."""

ROBUSTNESS = ENTRY_POINTS_RETURN
"""What a candidate breaks that crashes, hangs or returns a value of a wrong type."""
