"""What a hypervisor owes guest, userspace and host of CET state: one clause a sentence."""

from __future__ import annotations

from conformance.specs.clause import Clause, Kind, Level

FPU_MANAGED = frozenset({"upstream", "hardware"})
"""Profiles in which the FPU code keeps components 11 and 12."""

# Values of U_CET and S_CET

CET_RESERVED_BITS = Clause(
    id="CET-001",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A write of U_CET or S_CET with any of bits 9:6 set is refused and changes nothing.",
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; KVM selftest msrs_test",
)
CET_SHSTK_BITS_NEED_SHSTK = Clause(
    id="CET-002",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An emulated or host-initiated write of U_CET or S_CET with bit 0 or 1 set is refused while the vCPU "
        "lacks SHSTK."
    ),
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet",
)
CET_IBT_BITS_NEED_IBT = Clause(
    id="CET-003",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An emulated or host-initiated write of U_CET or S_CET with any of bits 5:2 or 63:10 set is refused while "
        "the vCPU lacks IBT."
    ),
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet",
)
CET_SUPPRESS_OR_TRACKER = Clause(
    id="CET-004",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A write of U_CET or S_CET with SUPPRESS and TRACKER both set is refused; either alone is accepted.",
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; nested VMX consistency checks",
)
CET_BASE_ALIGNED = Clause(
    id="CET-005",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An emulated or host-initiated write of U_CET or S_CET with bit 12 or 13 set is refused.",
    source=(
        "KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; the manual and Bochs have no such "
        "rule, so profile `hardware` accepts; whether hardware rejects the bits is not verified"
    ),
    profiles=frozenset({"upstream", "v5", "as-posted"}),
)
CET_BASE_CANONICAL = Clause(
    id="CET-006",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text="A legacy bitmap base that is not a canonical address is refused, and never reaches a WRMSR that may fault.",
    source="Bochs msr.cc; KVM does not check (read from its source, no upstream report found)",
)
CET_NEITHER_FEATURE = Clause(
    id="CET-007",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A guest access to U_CET or S_CET on a vCPU with neither SHSTK nor IBT gives #GP.",
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; KVM selftest msrs_test",
)
CET_ONE_FEATURE = Clause(
    id="CET-008",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A vCPU with SHSTK or IBT reads U_CET and S_CET, and writes what the rules on their values allow.",
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet",
)
LAST_ACCEPTED_VALUE = Clause(
    id="CET-009",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A CET MSR reads 0 after creation and RESET, and afterwards the last value accepted.",
    source="KVM selftest msrs_test",
)
# Values of PLx_SSP and INT_SSP_TAB

SSP_ALIGNED = Clause(
    id="CET-010",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A write of PL0..PL3_SSP or GUEST_SSP with bit 0 or 1 set is refused; bit 2 may be set.",
    source=(
        "KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; review of the seed's v3 (the "
        "manual's text says 8 bytes, its pseudocode 4)"
    ),
)
SSP_CANONICAL = Clause(
    id="CET-011",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A write of a value to PL0..PL3_SSP, INT_SSP_TAB or GUEST_SSP that is not canonical for the host's widest "
        "linear address is refused."
    ),
    source="is_noncanonical_msr_address; nested VMX consistency checks",
)
TABLE_UNALIGNED = Clause(
    id="CET-012",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A write of INT_SSP_TAB is accepted at any alignment.",
    source=(
        "KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; supersedes the 4-byte rule of the "
        "seed's v4 and v5"
    ),
)
SSP_NEEDS_SHSTK = Clause(
    id="CET-013",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A guest access to PL0..PL3_SSP or INT_SSP_TAB on a vCPU without SHSTK gives #GP, even with IBT.",
    source=(
        "KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; 2021 review of "
        "vmx_update_intercept_for_cet_msr"
    ),
)
TABLE_NEEDS_LM = Clause(
    id="CET-014",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An access to INT_SSP_TAB on a vCPU without long mode is unsupported, for reads as for writes.",
    source=(
        "KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; that reads are meant too is "
        "inferred, upstream's read path lacks the test"
    ),
)
UPPER_HALF_WITHOUT_LM = Clause(
    id="CET-015",
    level=Level.MAY,
    kind=Kind.RESPONSE,
    text="Bits 63:32 of a shadow-stack pointer may be kept or dropped on a vCPU that is not in 64-bit mode.",
    source="Review of the series' v12, patch 15",
    untestable="Both results conform, so traces give such a vCPU no value above 32 bits.",
)
ZERO_IS_A_VALUE = Clause(
    id="CET-016",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Zero is stored like any other value of a CET MSR, also after a non-zero one.",
    source="KVM selftest msrs_test; review of the seed's v4",
)
POINTERS_INDEPENDENT = Clause(
    id="CET-017",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Writing one CET MSR changes no other, on any path.",
    source="Architecture",
)
NO_ORDER_WITH_ENABLE = Clause(
    id="CET-018",
    level=Level.MUST_NOT,
    kind=Kind.RESPONSE,
    text="Writes of PLx_SSP and of S_CET.SH_STK_EN need no particular order.",
    source="Review of the seed's v4 and its answer",
)
# Host-initiated access and the userspace interface

HOST_VALUES_CHECKED = Clause(
    id="CET-019",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The rules on values hold for host-initiated writes too.",
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet",
)
ADVERTISED_BUT_ABSENT = Clause(
    id="CET-020",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A host-initiated read of an advertised MSR that the vCPU lacks gives 0, a write of 0 succeeds without "
        "effect, and any other write fails."
    ),
    source="kvm_do_msr_access",
)
FAILED_READ_GIVES_ZERO = Clause(
    id="CET-021",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A read that fails delivers 0, never a stale value.",
    source="kvm_do_msr_access",
)
BATCH_STOPS_AT_FAILURE = Clause(
    id="CET-022",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "KVM_GET_MSRS and KVM_SET_MSRS return how many entries they processed before the first failure; earlier "
        "entries take effect, later ones do not."
    ),
    source="__msr_io",
)
BATCH_LIMIT = Clause(
    id="CET-023",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A batch of 256 or more MSRs is refused with -E2BIG and changes nothing.",
    source="msr_io; the limit's value from memory",
)
HOST_WRITE_REACHES_GUEST = Clause(
    id="CET-024",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A host-initiated write made while the vCPU does not run is what the guest reads next, whether or not the "
        "guest ever touched the MSR."
    ),
    source="KVM selftest msrs_test; the seed's lazy activation breaks it",
)
HOST_READS_GUEST_VALUE = Clause(
    id="CET-025",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A host-initiated read gives the guest's last value, however the guest wrote it.",
    source="KVM selftest msrs_test",
)
ONE_REG_IS_HOST_ACCESS = Clause(
    id="CET-026",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "KVM_GET_ONE_REG and KVM_SET_ONE_REG of an MSR id do what a host-initiated access of that MSR does, with "
        "failures as -EINVAL."
    ),
    source="kvm_get_set_one_reg",
    needs=frozenset({"one-reg"}),
)
ONE_REG_ID = Clause(
    id="CET-027",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A register id with a wrong architecture, reserved bits, an unknown type or index, a wrong size, or "
        "GUEST_SSP without SHSTK is refused with -EINVAL even under ignore_msrs; only then is the value looked for, "
        "and can its pointer fault with -EFAULT."
    ),
    source="kvm_get_set_one_reg; review of the series' v15, patch 13",
    needs=frozenset({"one-reg"}),
)
GUEST_SSP_REGISTER = Clause(
    id="CET-028",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="GUEST_SSP reads as the vCPU's SSP, and a checked write of it reads back.",
    source="KVM selftest msrs_test",
    needs=frozenset({"one-reg"}),
)
REG_LIST = Clause(
    id="CET-029",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "KVM_GET_REG_LIST counts GUEST_SSP iff the vCPU has SHSTK, always writes the count back, and fails with "
        "-E2BIG iff the capacity is smaller."
    ),
    source="kvm_get_reg_list",
    needs=frozenset({"one-reg"}),
)
INTERNAL_MSR_HIDDEN = Clause(
    id="CET-030",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="A guest access to MSR 0x4b564dff is always refused, in SMM too.",
    source="KVM x86 MSR code: __kvm_set_msr, __kvm_get_msr, kvm_is_valid_u_s_cet; review of the SMM patch",
)
ADVERTISED_LIST = Clause(
    id="CET-031",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "KVM_GET_MSR_INDEX_LIST has U_CET and S_CET iff KVM has SHSTK or IBT, PL0..PL3_SSP iff SHSTK, INT_SSP_TAB "
        "iff SHSTK and LM, XSS iff any XSS bit is supported."
    ),
    source="kvm_probe_msr_to_save; KVM selftest msrs_test",
)
MIGRATION_ROUND_TRIP = Clause(
    id="CET-032",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "A vCPU restored from the advertised MSRs and listed registers of another, in any order, gives every "
        "guest read the source would give, XSS included."
    ),
    source="Firecracker pull request 5972; QEMU's save and restore patches",
)
XSAVE_IMAGE_IS_USERS = Clause(
    id="CET-033",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="KVM_GET_XSAVE and KVM_SET_XSAVE carry no CET component, and cannot change CET state.",
    source="Thread on the series' v13, patch 5",
    needs=frozenset({"xsave"}),
)
IGNORED_MSRS_HAVE_NO_STATE = Clause(
    id="CET-034",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="With ignore_msrs an unsupported access succeeds, reads 0 and drops writes.",
    source="kvm_do_msr_access; KVM selftest msrs_test",
)
# Interception

INTERCEPT_WITHOUT_SHSTK = Clause(
    id="CET-035",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Reads and writes of PL0..PL3_SSP are intercepted while the vCPU lacks SHSTK.",
    source="Series v16, patch 16; review of the seed",
)
PASS_WITH_SHSTK = Clause(
    id="CET-036",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="PL0..PL3_SSP are not intercepted while the vCPU has SHSTK and no filter denies them.",
    source="Series v16, patch 16",
    profiles=FPU_MANAGED,
)
CET_INTERCEPTS = Clause(
    id="CET-037",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "U_CET and S_CET are intercepted on VMX iff the vCPU has neither SHSTK nor IBT, on SVM iff it lacks "
        "SHSTK, filters aside."
    ),
    source="Series v16, patches 16 and 38",
    profiles=FPU_MANAGED,
)
TABLE_INTERCEPTED = Clause(
    id="CET-038",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="INT_SSP_TAB is always intercepted.",
    source="Series v16, patches 16 and 38",
    profiles=FPU_MANAGED,
)
PASSED_READS_ARE_LOADED = Clause(
    id="CET-039",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="An MSR whose read is passed through has the vCPU's value in hardware whenever the guest runs.",
    source="Derived from the seed's lazy activation",
)
BYPASSING_WRITES_ARE_SAVED = Clause(
    id="CET-040",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="An MSR that the guest can change without an exit, XRSTORS included, is saved on leaving.",
    source="Reviews of the seed's v5; series v16, patch 16",
)
FILTER_INTERCEPTS = Clause(
    id="CET-041",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Intercepts follow set_cpuid and the MSR filter; an MSR the filter denies is intercepted, and a guest "
        "access to it gives #GP."
    ),
    source="kvm_msr_allowed, from memory",
)
INTERCEPTED_ACTS_ON_LIVE = Clause(
    id="CET-042",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An intercepted or emulated access made while the vCPU's state is live sees the latest passed-through "
        "write, and is seen by the next passed-through read."
    ),
    source="Derived; the seed's getter and setter break it",
)
# Context switches and preemption

NO_LOST_UPDATE = Clause(
    id="CET-043",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "No interleaving of preemptions, in any phase in which the vCPU is loaded, changes a value the guest or "
        "the host reads."
    ),
    source="Analysis of the seed, patch 1",
)
SAVE_IS_IDEMPOTENT = Clause(
    id="CET-044",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="A save made while the vCPU's values are not in hardware leaves the stored values alone.",
    source="Analysis of the seed, patch 1",
)
NO_RELOAD_OUTSIDE_RUN = Clause(
    id="CET-045",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Being scheduled in outside of running leaves none of the vCPU's values in hardware past vcpu_put.",
    source="Analysis of the seed, patch 1",
)
NO_LEAK_BETWEEN_VCPUS = Clause(
    id="CET-046",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "A value written by or for one vCPU is never read on another, nor in a readable register while the other "
        "is in guest mode."
    ),
    source="Review of the seed, 19 July 2023",
)
S_CET_IS_THE_HOSTS = Clause(
    id="CET-047",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Hardware's S_CET is the host's whenever no guest runs.",
    source="Thread on the series' v13, patch 5",
)
USER_STATE_IS_THE_TASKS = Clause(
    id="CET-048",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="At return to userspace, and while another task runs, hardware's U_CET and PL3_SSP are that task's own.",
    source="Thread on the series' v13, patch 5; the seed's review",
)
SUPERVISOR_POINTERS_CLEARED = Clause(
    id="CET-049",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="At return to userspace, and while another task runs, hardware's PL0..PL2_SSP are 0.",
    source="The seed, patch 1; other designs may leave them, review of 4 August 2023",
    profiles=frozenset({"as-posted"}),
)
PCPU_MIGRATION_TRANSPARENT = Clause(
    id="CET-050",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Moving to another physical CPU between guest instructions changes no CET value.",
    source="KVM selftest msrs_test",
)
SAVE_IS_ATOMIC = Clause(
    id="CET-051",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="Reading and clearing the registers in a save cannot be torn by the same vCPU being scheduled out.",
    source="Reviews of the seed's v4, inferred",
)
FAST_PATH_INVALIDATED = Clause(
    id="CET-052",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="A reload is skipped only while nobody else wrote those registers on that physical CPU.",
    source="Derived",
)
FPU_RESIDENT = Clause(
    id="CET-053",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="U_CET and PL0..PL3_SSP are read and written with the guest FPU in use and locked into hardware.",
    source="kvm_access_xstate_msr",
    profiles=FPU_MANAGED,
)
FPU_BALANCED = Clause(
    id="CET-054",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="The guest FPU is loaded and put in turn on every path.",
    source="Series of 30 October 2025 on the FPU in KVM",
)
FPU_LOADED_FOR_BATCH = Clause(
    id="CET-055",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "An MSR or register ioctl loads the guest FPU iff it accesses an XSTATE-managed MSR of this vCPU, at most "
        "once, and puts it before returning."
    ),
    source="__msr_io",
    profiles=FPU_MANAGED,
)
S_CET_NOT_XSTATE = Clause(
    id="CET-056",
    level=Level.MUST_NOT,
    kind=Kind.SECURITY,
    text="A guest's S_CET is never written to the host's MSR.",
    source="Thread on the series' v13, patch 5",
    profiles=FPU_MANAGED,
)
NO_SWAP_ON_KERNEL_EXITS = Clause(
    id="CET-057",
    level=Level.SHOULD,
    kind=Kind.ENV_PROTOCOL,
    text="An exit handled in the kernel reads and writes no shadow-stack MSR.",
    source="Reviews of the seed of July and August 2023",
)
HALT_IS_PREEMPTION = Clause(
    id="CET-058",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Blocking in KVM_RUN changes no CET value.",
    source="The seed's own concern",
)
DESTROYED_LEAVES_NOTHING = Clause(
    id="CET-059",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="After a vCPU is destroyed no register of the host and no later vCPU shows its values.",
    source="Derived",
)
# Capability derivation

XSS_WITHIN_HARDWARE = Clause(
    id="CET-060",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="The XSS bits KVM supports are a subset of the hardware's, and none without XSAVES.",
    source="vmx_set_cpu_caps and kvm_setup_xss_caps",
)
XSS_AND_FEATURES_TOGETHER = Clause(
    id="CET-061",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Without both CET bits in XSS neither SHSTK nor IBT is offered, and without either feature neither XSS bit is."
    ),
    source="Add XSS support for CET_KERNEL and CET_USER",
)
VMX_PREREQUISITES = Clause(
    id="CET-062",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="On VMX SHSTK and IBT need the load-CET entry and exit controls, unrestricted guest and VMX_BASIC[56].",
    source="Enable CET virtualization for VMX and advertise to userspace",
)
PAGING_PREREQUISITES = Clause(
    id="CET-063",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="SHSTK needs TDP, and neither feature is offered with a smaller guest MAXPHYADDR.",
    source="Series v16, cover letter",
)
NO_IBT_ON_SVM = Clause(
    id="CET-064",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="IBT is never offered on SVM.",
    source="From memory of the series",
)
HOST_SHADOW_STACK_REFUSED = Clause(
    id="CET-065",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Initialisation fails with -EIO while the host's S_CET has SH_STK_EN set.",
    source="Set host constant supervisor states to VMCS fields",
)
NESTED_CAPS_LAST = Clause(
    id="CET-066",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="Nested VMX offers the load-CET controls iff SHSTK or IBT survives every adjustment.",
    source="Series v16, cover letter",
    needs=frozenset({"nested"}),
)
EMULATOR_REFUSES = Clause(
    id="CET-067",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "The emulator refuses control transfers that active SHSTK or IBT affects and task switches, and a far "
        "jump to compatibility mode with SSP above 32 bits gives #GP or is refused."
    ),
    source=(
        "Series v16: cover letter and the FAR JMP patch; kernel e30f3a0ac1e9 (every far JMP is affected by IBT, of "
        "either privilege level) and 3015807872e1 (task switches likewise)"
    ),
    needs=frozenset({"emulator"}),
)
# CR0, CR4 and XSS

CET_NEEDS_WP = Clause(
    id="CET-068",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Setting CR4.CET while CR0.WP is 0 gives #GP and changes nothing.",
    source="Series v16, patch 10",
)
WP_HELD_BY_CET = Clause(
    id="CET-069",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Clearing CR0.WP while CR4.CET is 1 gives #GP and changes nothing.",
    source="Series v16, patch 10",
)
CR4_CET_RESERVED = Clause(
    id="CET-070",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="CR4.CET is reserved iff the vCPU has neither SHSTK nor IBT: #GP for the guest, -EINVAL for userspace.",
    source="Add XSS support for CET_KERNEL and CET_USER",
)
TOGGLE_KEEPS_STATE = Clause(
    id="CET-071",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Changing CR4.CET changes no CET MSR and not SSP.",
    source="Review of 28 January 2021",
)
SREGS_PAIR = Clause(
    id="CET-072",
    level=Level.MAY,
    kind=Kind.RESPONSE,
    text="KVM_SET_SREGS with CR4.CET=1 and CR0.WP=0 is refused with -EINVAL, or accepted and the next entry fails.",
    source="Not verified; upstream does not obviously check it",
)
XSS_WRITE = Clause(
    id="CET-073",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A write of XSS is refused without XSAVES and outside the bits the guest supports, and an accepted change "
        "refreshes the sizes of CPUID.(0xD,1)."
    ),
    source="__kvm_set_msr",
)
XSS_READ = Clause(
    id="CET-074",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A guest read of XSS without XSAVES gives #GP; a host-initiated read always succeeds.",
    source="__kvm_get_msr",
)
XSS_NEVER_FAULTS = Clause(
    id="CET-075",
    level=Level.MUST_NOT,
    kind=Kind.SECURITY,
    text="An accepted guest XSS value never faults when it is loaded into hardware.",
    source="The seed, patch 3; inferred",
)
# Reset and SMM

RESET_CLEARS = Clause(
    id="CET-076",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "RESET and INIT clear U_CET, S_CET, PL0..PL3_SSP, INT_SSP_TAB and SSP; XSS is cleared by RESET and kept "
        "by INIT."
    ),
    source="kvm_xstate_reset; KVM's INIT of XSS (Bochs differs on XSS); Bochs init.cc",
)
INIT_ANYWHERE = Clause(
    id="CET-077",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "INIT clears the CET components of a guest fpstate that is not in use, putting and reloading the FPU only "
        "if it was."
    ),
    source="Series of 30 October 2025 on the FPU in KVM",
)
INIT_SPARES_OTHERS = Clause(
    id="CET-078",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="INIT clears no XSTATE component but those of MPX and CET.",
    source="kvm_xstate_reset",
)
SSP_THROUGH_SMRAM = Clause(
    id="CET-079",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "SMI stores SSP at 0xFF18 of the 64-bit map iff the vCPU has SHSTK, RSM restores it, shuts down on an "
        "invalid one, and no other CET MSR changes."
    ),
    source="Review of the SMM patch; smm.c",
    needs=frozenset({"smm"}),
)
SMM_CLEARS_CR4 = Clause(
    id="CET-080",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="SMI clears CR4.CET and RSM restores it, also when the handler cleared CR0.WP.",
    source="From memory of the manuals; not verified in KVM",
    needs=frozenset({"smm"}),
)
# Nested VMX

NESTED_CR_PAIR = Clause(
    id="CET-081",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Nested entry with CR4.CET=1 and CR0.WP=0 fails: VM-fail for the host area, a failed entry for the guest area."
    ),
    source="Series v16, cover letter",
    needs=frozenset({"nested"}),
)
NESTED_HOST_AREA = Clause(
    id="CET-082",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "With the exit control the host area's S_CET is valid, its SSP aligned, its table canonical, and both "
        "canonical in 64-bit mode or below 4 GiB outside it; else VM-fail."
    ),
    source="Series v15, patch 23",
    needs=frozenset({"nested"}),
)
NESTED_GUEST_AREA = Clause(
    id="CET-083",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "With the entry control the guest area's S_CET is valid, its SSP aligned with bits 63:N equal, its table "
        "canonical; else the entry fails."
    ),
    source="Series v15, patch 23",
    needs=frozenset({"nested"}),
)
L2_STARTS = Clause(
    id="CET-084",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "L2 starts with the guest area's S_CET, SSP and table if the entry control is set, otherwise and on state "
        "restore with the values in force before."
    ),
    source="Series v16, patch 31",
    needs=frozenset({"nested"}),
)
L2_STORED = Clause(
    id="CET-085",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="On exit the guest area receives L2's S_CET, SSP and table as far as the vCPU has the features.",
    source="Series v16, patch 31",
    needs=frozenset({"nested"}),
)
L1_RESUMES = Clause(
    id="CET-086",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="After exit L1 has the host area's S_CET, SSP and table if the exit control is set, otherwise L2's.",
    source="Series v16, patch 31",
    needs=frozenset({"nested"}),
)
NESTING_KEEPS_USER_STATE = Clause(
    id="CET-087",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Nested transitions change neither U_CET nor PL0..PL3_SSP.",
    source="Series v16, patch 31",
    needs=frozenset({"nested"}),
)
L2_INTERCEPTS = Clause(
    id="CET-088",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="L2 reaches PL0..PL3_SSP, U_CET and S_CET without exit only where L0 and L1 both pass them.",
    source="Series v16, patch 31",
    needs=frozenset({"nested"}),
)
VMCS12_FIELDS_ABSENT = Clause(
    id="CET-089",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "L1 cannot VMREAD the CET fields of vmcs12's guest area without the VM-entry control that loads CET state, nor "
        "those of its host area without the VM-exit control; with both controls and the feature it reads their values."
    ),
    source="SDM volume 3, appendix B; fix of January 2026 to vmcs12 field access",
    needs=frozenset({"nested"}),
)
# Nested SVM

VMRUN_SWITCHES = Clause(
    id="CET-090",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="With SHSTK VMRUN loads S_CET, SSP and the table from vmcb12, #VMEXIT stores them back and restores L1's.",
    source="nSVM: Save/load CET Shadow Stack state to/from vmcb12/vmcb02",
    needs=frozenset({"nested"}),
)
VMRUN_CHECKS = Clause(
    id="CET-091",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="VMRUN fails as invalid on reserved bits in vmcb12's S_CET, and on CR4.CET=1 with CR0.WP=0.",
    source="Replies to the nSVM patch, October to December 2025; upstream lacked the checks at merge",
    needs=frozenset({"nested"}),
)
VMCB_DIRTY = Clause(
    id="CET-092",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "A software write to a VMCB's S_CET, SSP or table marks clean bit 12 of that VMCB dirty before its next VMRUN."
    ),
    source="SVM: Emulate reads and writes to shadow stack MSRs; inferred from the source for L2",
)
# Robustness

ANSWERS = Clause(
    id="CET-093",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Every entry point comes back with a value of its type, and with preemption and the FPU lock as it found them."
    ),
    source="Derived",
)

# What else a nested entry, the host and a reset are owed

FAILED_ENTRY_IS_AN_EXIT = Clause(
    id="CET-094",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "After a nested entry that failed on the guest area L1 has the host area's CR0 and CR4, and the host area's "
        "S_CET, SSP and table if the exit control is set, otherwise its own; the guest area is not stored."
    ),
    source=(
        "SDM volume 3, VM-entry failures during or after loading guest state; vmentry_fail_vmexit. Linux 6.18 gives "
        "L1 the guest area's values where the exit control is clear (read from its source, no upstream report found)"
    ),
    needs=frozenset({"nested"}),
)
REFUSED_ENTRY_CHANGES_NOTHING = Clause(
    id="CET-095",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="A nested entry that VM-fails, or a VMRUN that is invalid, changes no CET value of L1.",
    source="SDM volume 3, VM instruction error; APM volume 2, VMRUN canonicalization and consistency checks",
    needs=frozenset({"nested"}),
)
XSS_IS_THE_HOSTS = Clause(
    id="CET-096",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Once the vCPU's thread has left its physical CPU or returned to userspace, hardware's XSS is the host's.",
    source="kvm_load_host_xfeatures; a Linux host with user shadow stacks runs with XSS bit 11 set",
)
SSP_IS_THE_HOSTS = Clause(
    id="CET-097",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Hardware's SSP and interrupt SSP table are the host's whenever no guest runs.",
    source="Set host constant supervisor states to VMCS fields",
)
VMCB_MOVED = Clause(
    id="CET-098",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="Clean bit 12 of a VMCB is cleared before a VMRUN on a physical CPU that holds an older copy of it.",
    source="APM volume 2, VMCB clean field: a VMCB that moved to another core; pre_svm_run",
)
RESET_CLEARS_CRS = Clause(
    id="CET-099",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="RESET and INIT leave CR4.CET and CR0.WP clear.",
    source="SDM volume 3, IA-32 processor states following power-up, reset, or INIT; kvm_vcpu_reset",
)
RESET_LEAVES_MODES = Clause(
    id="CET-100",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="RESET of a vCPU that is in SMM or in L2 leaves both: it goes on as L1, with what RESET gives.",
    source="kvm_vcpu_reset, which calls kvm_leave_nested and kvm_smm_changed",
)
CLEAN_VMCB12 = Clause(
    id="CET-101",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="VMRUN takes vmcb12's S_CET, SSP and table whatever its clean bit 12, unless it ran the same vmcb12 last.",
    source="nested_vmcb02_prepare_save and last_vmcb12_gpa; APM volume 2, VMCB clean field",
    needs=frozenset({"nested"}),
)

CLAUSES = (
    CET_RESERVED_BITS,
    CET_SHSTK_BITS_NEED_SHSTK,
    CET_IBT_BITS_NEED_IBT,
    CET_SUPPRESS_OR_TRACKER,
    CET_BASE_ALIGNED,
    CET_BASE_CANONICAL,
    CET_NEITHER_FEATURE,
    CET_ONE_FEATURE,
    LAST_ACCEPTED_VALUE,
    SSP_ALIGNED,
    SSP_CANONICAL,
    TABLE_UNALIGNED,
    SSP_NEEDS_SHSTK,
    TABLE_NEEDS_LM,
    UPPER_HALF_WITHOUT_LM,
    ZERO_IS_A_VALUE,
    POINTERS_INDEPENDENT,
    NO_ORDER_WITH_ENABLE,
    HOST_VALUES_CHECKED,
    ADVERTISED_BUT_ABSENT,
    FAILED_READ_GIVES_ZERO,
    BATCH_STOPS_AT_FAILURE,
    BATCH_LIMIT,
    HOST_WRITE_REACHES_GUEST,
    HOST_READS_GUEST_VALUE,
    ONE_REG_IS_HOST_ACCESS,
    ONE_REG_ID,
    GUEST_SSP_REGISTER,
    REG_LIST,
    INTERNAL_MSR_HIDDEN,
    ADVERTISED_LIST,
    MIGRATION_ROUND_TRIP,
    XSAVE_IMAGE_IS_USERS,
    IGNORED_MSRS_HAVE_NO_STATE,
    INTERCEPT_WITHOUT_SHSTK,
    PASS_WITH_SHSTK,
    CET_INTERCEPTS,
    TABLE_INTERCEPTED,
    PASSED_READS_ARE_LOADED,
    BYPASSING_WRITES_ARE_SAVED,
    FILTER_INTERCEPTS,
    INTERCEPTED_ACTS_ON_LIVE,
    NO_LOST_UPDATE,
    SAVE_IS_IDEMPOTENT,
    NO_RELOAD_OUTSIDE_RUN,
    NO_LEAK_BETWEEN_VCPUS,
    S_CET_IS_THE_HOSTS,
    USER_STATE_IS_THE_TASKS,
    SUPERVISOR_POINTERS_CLEARED,
    PCPU_MIGRATION_TRANSPARENT,
    SAVE_IS_ATOMIC,
    FAST_PATH_INVALIDATED,
    FPU_RESIDENT,
    FPU_BALANCED,
    FPU_LOADED_FOR_BATCH,
    S_CET_NOT_XSTATE,
    NO_SWAP_ON_KERNEL_EXITS,
    HALT_IS_PREEMPTION,
    DESTROYED_LEAVES_NOTHING,
    XSS_WITHIN_HARDWARE,
    XSS_AND_FEATURES_TOGETHER,
    VMX_PREREQUISITES,
    PAGING_PREREQUISITES,
    NO_IBT_ON_SVM,
    HOST_SHADOW_STACK_REFUSED,
    NESTED_CAPS_LAST,
    EMULATOR_REFUSES,
    CET_NEEDS_WP,
    WP_HELD_BY_CET,
    CR4_CET_RESERVED,
    TOGGLE_KEEPS_STATE,
    SREGS_PAIR,
    XSS_WRITE,
    XSS_READ,
    XSS_NEVER_FAULTS,
    RESET_CLEARS,
    INIT_ANYWHERE,
    INIT_SPARES_OTHERS,
    SSP_THROUGH_SMRAM,
    SMM_CLEARS_CR4,
    NESTED_CR_PAIR,
    NESTED_HOST_AREA,
    NESTED_GUEST_AREA,
    L2_STARTS,
    L2_STORED,
    L1_RESUMES,
    NESTING_KEEPS_USER_STATE,
    L2_INTERCEPTS,
    VMCS12_FIELDS_ABSENT,
    VMRUN_SWITCHES,
    VMRUN_CHECKS,
    VMCB_DIRTY,
    ANSWERS,
    FAILED_ENTRY_IS_AN_EXIT,
    REFUSED_ENTRY_CHANGES_NOTHING,
    XSS_IS_THE_HOSTS,
    SSP_IS_THE_HOSTS,
    VMCB_MOVED,
    RESET_CLEARS_CRS,
    RESET_LEAVES_MODES,
    CLEAN_VMCB12,
)

ROBUSTNESS = ANSWERS
"""Cited for crashes, hangs and values of a wrong type."""
