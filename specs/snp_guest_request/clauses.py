"""The clauses of guest requests, and one on robustness."""

from __future__ import annotations

from conformance.specs.clause import Clause, Kind, Level

_GHCB = frozenset({"upstream", "linux", "kernel-certs", "bounce-certs", "stub"})
_BOUNCE = frozenset({"upstream", "linux", "bounce-certs", "stub"})
_INPLACE = frozenset({"as-posted", "kernel-certs"})
_KERNEL_CERTS = frozenset({"as-posted", "kernel-certs", "bounce-certs"})
_USERSPACE_CERTS = frozenset({"upstream", "linux"})
_CERTS = frozenset({"upstream", "linux", "as-posted", "kernel-certs", "bounce-certs"})
_HYPERVISOR = frozenset({"hypervisor"})
_GUEST = frozenset({"guest"})
_VERIFIER = frozenset({"verifier"})
_THROTTLE = frozenset({"hypervisor", "throttle"})
_MOVE = frozenset({"hypervisor", "move"})
_STORE = frozenset({"hypervisor", "kernel-certs"})
_FETCH = frozenset({"hypervisor", "userspace-certs"})

NOT_SNP = Clause(
    id="SNP-001",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An exit of a VM that is not SNP is answered malformed(4) for both exit codes, without a firmware "
        "command and without touching a guest page; with posted errors SW_EXITINFO2 is 0x10."
    ),
    source="KVM, sev_es_validate_vmgexit; posted patch",
    needs=_HYPERVISOR,
)

USAGE = Clause(
    id="SNP-002",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A GHCB usage other than 0 is answered malformed(2), before anything else is looked at.",
    source="KVM, sev_es_validate_vmgexit",
    needs=_HYPERVISOR,
)

VALID_BITS = Clause(
    id="SNP-003",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A missing valid bit of SW_EXITCODE, SW_EXITINFO1 or SW_EXITINFO2 is answered malformed(4).",
    source="KVM, sev_es_validate_vmgexit",
    needs=_HYPERVISOR,
)

REGISTERED_GHCB = Clause(
    id="SNP-004",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="When the GHCB of an SNP VM is not the registered one, KVM_RUN returns -EINVAL and nothing is processed.",
    source="KVM, sev_handle_vmgexit",
    needs=_HYPERVISOR,
)

REQUEST_ALIGNED = Clause(
    id="SNP-005",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A request GPA that is not 4 KiB aligned is answered malformed(4); with posted errors SW_EXITINFO2 is 0x16.",
    source=(
        "KVM, sev_es_validate_vmgexit; the GHCB text itself was not readable, and may ask only that the "
        "message fits its page"
    ),
    needs=_HYPERVISOR,
)

RESPONSE_ALIGNED = Clause(
    id="SNP-006",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A response GPA that is not 4 KiB aligned is answered as a misaligned request GPA is.",
    source="KVM, sev_es_validate_vmgexit; GHCB wording unverified",
    needs=_HYPERVISOR,
)

DISTINCT_PAGES = Clause(
    id="SNP-007",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Equal request and response GPAs are answered malformed(4); with posted errors they are refused as well.",
    source="KVM, sev_es_validate_vmgexit; GHCB wording unverified",
    needs=_HYPERVISOR,
)

REGISTERS_SUPPLIED = Clause(
    id="SNP-008",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An extended request with MSG_TYPE 5 and a clear valid bit of RAX or RBX is answered malformed(5).",
    source="KVM, snp_handle_ext_guest_req",
    profiles=_GHCB,
    needs=_HYPERVISOR,
)

DATA_ALIGNED = Clause(
    id="SNP-009",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An extended report request whose RAX is not 4 KiB aligned is answered malformed(5) even when RBX is "
        "0; with posted errors SW_EXITINFO2 is 9."
    ),
    source="KVM, snp_handle_ext_guest_req; posted patch",
    needs=_HYPERVISOR,
)

OTHER_TYPES_ARE_BASIC = Clause(
    id="SNP-010",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="An extended request with a MSG_TYPE other than 5 ignores RAX and RBX and equals a basic request.",
    source="KVM, snp_handle_ext_guest_req",
    profiles=_GHCB,
    needs=_HYPERVISOR,
)

MALFORMED_IS_INERT = Clause(
    id="SNP-011",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "A malformed answer has no side effect: no firmware command, no RMP change, no write to guest memory "
        "but the GHCB, no reference kept."
    ),
    source="KVM, sev_handle_vmgexit",
    needs=_HYPERVISOR,
)

GHCB_SNAPSHOT = Clause(
    id="SNP-012",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "GHCB inputs are taken once per VMGEXIT; later stores of the guest cannot change what is checked or "
        "used, across a userspace exit either."
    ),
    source="KVM, sev_es_sync_from_ghcb",
    needs=_HYPERVISOR,
)

CHECK_ORDER = Clause(
    id="SNP-013",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Inputs are checked in the order usage, valid bits, exit code with SNP, alignment and distinctness, "
        "then the header byte, then RAX and RBX."
    ),
    source="KVM, sev_es_validate_vmgexit",
    needs=_HYPERVISOR,
)

LARGER_BUFFER = Clause(
    id="SNP-014",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A data buffer larger than needed is accepted for every RBX up to 2^64-1.",
    source="review of v6 42/49; review of v7 62/64",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

ONE_COMMAND = Clause(
    id="SNP-015",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "A valid request leads to exactly one SNP_GUEST_REQUEST with the VM's own context page and 4 KiB "
        "pages, at addresses that carry the C-bit."
    ),
    source="posted patch; KVM, __snp_handle_guest_req",
    needs=_HYPERVISOR,
)

WHOLE_REQUEST = Clause(
    id="SNP-016",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "Firmware is given the 4096 bytes of the guest's request page as of one instant; the hypervisor edits "
        "neither header nor payload."
    ),
    source="KVM, __snp_handle_guest_req",
    profiles=_BOUNCE,
    needs=_HYPERVISOR,
)

SUCCESS = Clause(
    id="SNP-017",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "After firmware success the guest's response page holds the firmware's bytes, SW_EXITINFO1 and "
        "SW_EXITINFO2 are 0, and the vCPU resumes."
    ),
    source="KVM, snp_handle_guest_req",
    needs=_HYPERVISOR,
)

FIRMWARE_STATUS = Clause(
    id="SNP-018",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "After a firmware status other than 0, SW_EXITINFO1 is 0, SW_EXITINFO2 is that status, and the vCPU resumes."
    ),
    source="GHCB as quoted in review; KVM, snp_handle_guest_req",
    needs=_HYPERVISOR,
)

NOT_DELIVERED = Clause(
    id="SNP-019",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A command that reached no firmware is never reported as success: KVM_RUN returns its errno, or with "
        "posted errors SW_EXITINFO2 is not 0."
    ),
    source="KVM, snp_handle_guest_req; v9 and v10 of the patch",
    needs=_HYPERVISOR,
)

TIMEOUT = Clause(
    id="SNP-020",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A command that timed out is never reported as success: KVM_RUN returns -ETIMEDOUT, or with posted "
        "errors SW_EXITINFO2 is not 0."
    ),
    source="ccp, __sev_do_cmd_locked; KVM",
    needs=_HYPERVISOR,
)

GUEST_PAGE_FAULT = Clause(
    id="SNP-021",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A request page that cannot be read or a response page that cannot be written makes KVM_RUN return "
        "-EIO; with posted errors SW_EXITINFO2 is 9."
    ),
    source="KVM, __snp_handle_guest_req; posted patch",
    needs=_HYPERVISOR,
)

NO_HOST_BYTES = Clause(
    id="SNP-022",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="What is written to guest memory never holds host memory or data of another VM.",
    source="KVM, snp_guest_req_init; v5 of the patch",
    needs=_HYPERVISOR,
)

NO_OLD_RESPONSE = Clause(
    id="SNP-023",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="After a firmware error the response page carries no older response of the VM.",
    source="reading of KVM, not a published bug",
    profiles=_BOUNCE,
    needs=_HYPERVISOR,
)

TYPE_OF_SNAPSHOT = Clause(
    id="SNP-024",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="The MSG_TYPE that decides about certificates is that of the bytes that are forwarded.",
    source="reading of KVM, not a published bug",
    profiles=_BOUNCE,
    needs=_HYPERVISOR,
)

NO_CONTEXT = Clause(
    id="SNP-025",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Without a guest context no SNP_GUEST_REQUEST is issued and the guest does not see success.",
    source="reading of the posted patch and KVM",
    needs=_HYPERVISOR,
)

REGISTERS_KEPT = Clause(
    id="SNP-026",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "RAX, RBX, RCX and RDX come back as the guest supplied them, but for RBX when the data buffer was too "
        "small; a register not supplied may read 0."
    ),
    source="KVM, sev_es_sync_to_ghcb",
    needs=_HYPERVISOR,
)

RESPONSE_FIRMWARE_OWNED = Clause(
    id="SNP-027",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text="When the command is issued the response page is a 4 KiB page in state FIRMWARE.",
    source="AMD's published Genoa firmware source; posted patch",
    needs=_HYPERVISOR,
)

GUEST_PAGES_STAY = Clause(
    id="SNP-028",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="No guest page changes its RMP state because of a guest request.",
    source="KVM, snp_guest_req_init; cover letter of the split-off series",
    profiles=_BOUNCE,
    needs=_HYPERVISOR,
)

RESPONSE_PAGE_FREE = Clause(
    id="SNP-029",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "A response page that is not in state HYPERVISOR, or is a GHCB, the request page, a data page or "
        "private to the guest, is refused without change."
    ),
    source="review of May 2024; reading of the posted patch",
    profiles=_INPLACE,
    needs=_HYPERVISOR,
)

RESPONSE_PAGE_BACK = Clause(
    id="SNP-030",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "When the request ends, whatever its outcome, the response page is in state HYPERVISOR again, or it "
        "is leaked and the VM is dead."
    ),
    source="posted patch; review of May 2024",
    profiles=_INPLACE,
    needs=_HYPERVISOR,
)

RECLAIM_FIRST = Clause(
    id="SNP-031",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "SNP_PAGE_RECLAIM succeeds before the page is made shared, no RMPUPDATE meets an immutable entry, and "
        "there is one reclaim per transition."
    ),
    source="AMD's published Genoa firmware source; review of May 2024; the RMPUPDATE rule is unverified",
    profiles=_INPLACE,
    needs=_HYPERVISOR,
)

RECLAIM_FAILED = Clause(
    id="SNP-032",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "When the reclaim fails the page is leaked, the VM is marked bugged, KVM_RUN returns an error, and no "
        "RMPUPDATE follows."
    ),
    source="review of May 2024; ccp, snp_reclaim_pages",
    profiles=_INPLACE,
    needs=_HYPERVISOR,
)

MAKE_SHARED_FAILED = Clause(
    id="SNP-033",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "When making the page shared fails, the page is leaked, the VM is marked bugged, and KVM_RUN returns an error."
    ),
    source="review of May 2024",
    profiles=_INPLACE,
    needs=_HYPERVISOR,
)

NO_WRITE_TO_ASSIGNED = Clause(
    id="SNP-034",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="The host never writes a page whose RMP entry is assigned.",
    source="x86 virt svm, RMP fault comments; review of May 2024",
    needs=_HYPERVISOR,
)

NO_FREE_OF_ASSIGNED = Clause(
    id="SNP-035",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="No page goes back to the allocator unless its RMP state is HYPERVISOR.",
    source="ccp, __snp_free_firmware_pages",
    needs=_HYPERVISOR,
)

REFERENCES_DROPPED = Clause(
    id="SNP-036",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="Every reference taken to a guest page is dropped exactly once, on every path.",
    source="review of May 2024",
    needs=_HYPERVISOR,
)

BOUNCE_PAGES = Clause(
    id="SNP-037",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "The response bounce page is FIRMWARE for the VM's life and is reclaimed and made shared before it is "
        "freed; the request bounce page stays HYPERVISOR."
    ),
    source="KVM, snp_guest_req_cleanup",
    profiles=_BOUNCE,
    needs=_HYPERVISOR,
)

PAGE_STAYS_IN_FLIGHT = Clause(
    id="SNP-038",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Removing a memslot while a request is in flight neither frees nor remaps the page that firmware uses.",
    source="reading of the posted patch",
    needs=_HYPERVISOR,
)

CHEAP_CHECKS_FIRST = Clause(
    id="SNP-039",
    level=Level.SHOULD,
    kind=Kind.ENV_PROTOCOL,
    text="Alignment, sizes and certificate space are checked before any RMP change or firmware command.",
    source="reading of the posted patch against KVM",
    profiles=_KERNEL_CERTS,
    needs=_HYPERVISOR,
)

HALVES = Clause(
    id="SNP-040",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A hypervisor condition uses bits 63:32 of SW_EXITINFO2, a firmware status bits 31:0, and never are "
        "both halves non-zero."
    ),
    source="GHCB as quoted in review; certificate-fetching series v7",
    profiles=_GHCB,
    needs=_HYPERVISOR,
)

NO_ACTION = Clause(
    id="SNP-041",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="SW_EXITINFO1 is 0 for every completion that is not malformed.",
    source="KVM, snp_handle_guest_req",
    needs=_HYPERVISOR,
)

CLEANUP_IS_NO_STATUS = Clause(
    id="SNP-042",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A failing cleanup never replaces or looks like a firmware status.",
    source="follow-up to the posted patch; review of May 2024",
    profiles=_INPLACE,
    needs=_HYPERVISOR,
)

BUSY_IS_INERT = Clause(
    id="SNP-043",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="BUSY is only answered when no firmware command ran, and the identical page succeeds later.",
    source="certificate-fetching series v7; sev-guest",
    profiles=_USERSPACE_CERTS,
    needs=_FETCH,
)

RAN_OR_NOT = Clause(
    id="SNP-044",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An answer with a non-zero high half is only given when no firmware command ran, an answer from "
        "firmware only when one ran."
    ),
    source="sev-guest depends on it",
    profiles=_GHCB,
    needs=_HYPERVISOR,
)

RATE = Clause(
    id="SNP-045",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text="Requests above the configured rate are answered BUSY, per VM, without starving others.",
    source="GHCB as quoted in review; throttling patch of early 2023",
    needs=_THROTTLE,
)

DEAD_FIRMWARE = Clause(
    id="SNP-046",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "While the secure processor is dead a request fails at once with an error of the -EBUSY class and no "
        "page changes state."
    ),
    source="ccp, __sev_do_cmd_locked",
    needs=_HYPERVISOR,
)

NO_UNINITIALISED = Clause(
    id="SNP-047",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Every bit of SW_EXITINFO2, of RBX and of guest pages that is written is defined.",
    source="posted patch; KVM initialises the status to 0",
    needs=_HYPERVISOR,
)

TOO_SMALL = Clause(
    id="SNP-048",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "With fewer pages than the certificates need, no firmware command runs, the data pages are untouched, "
        "RBX is what is needed, and SW_EXITINFO2 is 1 << 32."
    ),
    source="GHCB; ccp API of v7 32/64; certificate-fetching series v7",
    profiles=_CERTS,
    needs=_HYPERVISOR,
)

PAGES_NEEDED = Clause(
    id="SNP-049",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="A blob of n bytes, n > 0, needs n/4096 pages, rounded up.",
    source="review of v7 62/64",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

BLOB_COPIED = Clause(
    id="SNP-050",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "With enough space the bytes at RAX equal the blob and nothing is written beyond the pages it needs; "
        "padding is zero."
    ),
    source="review of v7 62/64; v8 45/56",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

EMPTY_TABLE = Clause(
    id="SNP-051",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Without certificates the first 24 bytes at RAX become zero when RBX is at least 1, nothing is "
        "written when it is 0, and the request is forwarded."
    ),
    source="KVM, snp_handle_ext_guest_req",
    needs=_HYPERVISOR,
)

DATA_BEFORE_COMMAND = Clause(
    id="SNP-052",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "A write to the data pages that fails is found before the firmware command is issued, and the result is -EIO."
    ),
    source="KVM, snp_handle_ext_guest_req; contrast v8 45/56",
    needs=_HYPERVISOR,
)

INSTANCE_WINS = Clause(
    id="SNP-053",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The VM's own blob wins over the host's; with neither the table is empty.",
    source="review of v7 62/64; v9 49/51",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

INSTANCE_IOCTLS = Clause(
    id="SNP-054",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "SET and GET of a VM's certificates return what the table of errors says, and a bad pointer leaves "
        "the previous blob whole."
    ),
    source="v7 62/64; v9 49/51",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

NO_STALE_BLOB = Clause(
    id="SNP-055",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="After SET with length L no reader sees bytes of an older blob.",
    source="review of v7 62/64",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

BLOB_ATOMIC = Clause(
    id="SNP-056",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "SET, GET and uninstall are atomic against a running extended request: a guest sees one blob whole, "
        "never a mixture or freed memory."
    ),
    source="v9 49/51; v10 of the patch",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

HOST_IOCTLS = Clause(
    id="SNP-057",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Host-wide SET is refused with -EPERM when not writable and -EINVAL for a length of 0 or not a "
        "multiple of 4096; a null pointer removes the blob; GET with too small a length stores the length "
        "needed and returns -ENOSR or -EIO."
    ),
    source="ccp API of v7 32/64; v9 49/51",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

HOST_CERTS_DROPPED = Clause(
    id="SNP-058",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="When the host's certificates are dropped, pointer and length are cleared together.",
    source="reading of the ccp API of v7 32/64",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

LOCK_ORDER = Clause(
    id="SNP-059",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="The order in which locks are taken has no cycle.",
    source="reading of the ccp API of v7 32/64",
    needs=_HYPERVISOR,
)

CERTS_OF_SIGNER = Clause(
    id="SNP-060",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="The certificates returned belong to the key and TCB that signed the report of the same request.",
    source="posted thread; certificate-fetching series v7",
    profiles=_KERNEL_CERTS,
    needs=_STORE,
)

ENABLE_CERTS = Clause(
    id="SNP-061",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Fetching certificates from userspace can be enabled only for SNP and before any vCPU exists, "
        "otherwise -EINVAL; the attribute query returns 1."
    ),
    source="certificate-fetching series v7",
    profiles=_USERSPACE_CERTS,
    needs=_FETCH,
)

CERTS_EXIT = Clause(
    id="SNP-062",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "An extended report request leaves to userspace with reason 42, gpa RAX, npages RBX as supplied and "
        "ret 0, before any firmware command."
    ),
    source="certificate-fetching series v7",
    profiles=_USERSPACE_CERTS,
    needs=_FETCH,
)

CERTS_ANSWER = Clause(
    id="SNP-063",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "The vCPU continues as `ret` says: 0 forwards, ENOSPC answers too small with npages in RBX, EAGAIN "
        "answers busy, EIO the generic error, all else makes KVM_RUN return -EINVAL; `ret` is read once."
    ),
    source="certificate-fetching series v7",
    profiles=_USERSPACE_CERTS,
    needs=_FETCH,
)

NO_OTHER_EXIT = Clause(
    id="SNP-064",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="Basic requests and extended ones that ask for no report never leave to userspace for certificates.",
    source="certificate-fetching series v7",
    profiles=_USERSPACE_CERTS,
    needs=_FETCH,
)

ONE_AT_A_TIME = Clause(
    id="SNP-065",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="One request per VM uses shared buffers at a time: two vCPUs get their own responses.",
    source="posted patch; KVM, snp_handle_guest_req",
    needs=_HYPERVISOR,
)

LOCK_FREE_AFTER = Clause(
    id="SNP-066",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="No lock is held after an entry point returns, on any path.",
    source="posted patch",
    needs=_HYPERVISOR,
)

LOCK_INITIALISED = Clause(
    id="SNP-067",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="A lock is initialised exactly once before its first use on every path that makes a VM an SNP VM.",
    source="posted patch for init; move and mirror by reading, unverified",
    needs=_HYPERVISOR,
)

FD_RULE = Clause(
    id="SNP-068",
    level=Level.MUST,
    kind=Kind.ENV_PROTOCOL,
    text=(
        "Firmware commands of a VM obey the rule of its stored fd alike: a closed or foreign fd gives -EBADF "
        "for basic and extended requests."
    ),
    source="posted thread and follow-up",
    needs=_HYPERVISOR,
)

INIT_FAILURE = Clause(
    id="SNP-069",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="A failing init, of a VM or a vCPU, returns the error and releases all that it took; a later one can succeed.",
    source="KVM, commit e5d253c60e96",
    needs=_HYPERVISOR,
)

CONTEXT_FAILURE = Clause(
    id="SNP-070",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text="Context creation that fails at any step frees page and buffers and publishes nothing.",
    source="posted patch",
    needs=_HYPERVISOR,
)

ONE_CONTEXT = Clause(
    id="SNP-071",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="LAUNCH_START on a VM that has a context, or with invalid inputs, returns -EINVAL and leaks nothing.",
    source="KVM, commit e3a7792d9676; the posted tree's own check is unverified",
    needs=_HYPERVISOR,
)

DECOMMISSION = Clause(
    id="SNP-072",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "Decommissioning frees the context page and certificate storage and clears the pointers; it is "
        "idempotent, and later certificate ioctls return -EINVAL."
    ),
    source="posted patch",
    needs=_HYPERVISOR,
)

DECOMMISSION_FAILED = Clause(
    id="SNP-073",
    level=Level.MUST,
    kind=Kind.RESOURCE,
    text=(
        "When decommissioning fails, context page and ASID are leaked on purpose, nothing is freed twice, and "
        "destroying the VM still completes."
    ),
    source="KVM, sev_vm_destroy",
    needs=_HYPERVISOR,
)

DESTROY_ORDER = Clause(
    id="SNP-074",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text=(
        "Destroying a VM reclaims its response buffer before it frees it, and decommissions its context before it "
        "releases the ASID."
    ),
    source="KVM, sev_vm_destroy",
    needs=_HYPERVISOR,
)

MOVE = Clause(
    id="SNP-075",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Moving or mirroring an SNP VM is refused, or the destination ends usable and the source can issue no "
        "more requests; a mirror is no SNP VM."
    ),
    source="KVM, sev_vm_copy_enc_context_from",
    needs=_MOVE,
)

CONTEXT_DROPPED = Clause(
    id="SNP-076",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text=(
        "A message that makes firmware drop the guest's context neither crashes nor double frees: later "
        "requests fail cleanly and a failing decommission is tolerated."
    ),
    source="AMD's published Genoa firmware source with KVM, by reading",
    needs=_HYPERVISOR,
)

VMS_INDEPENDENT = Clause(
    id="SNP-077",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Requests of different VMs share no buffer and no lock beyond the firmware mailbox.",
    source="KVM, struct kvm_sev_info",
    needs=_HYPERVISOR,
)

KILLABLE = Clause(
    id="SNP-078",
    level=Level.SHOULD,
    kind=Kind.INVARIANT,
    text="Waiting for the per-VM lock is killable.",
    source="reading of the posted patch",
    needs=_HYPERVISOR,
)

NO_LOCK_IN_USERSPACE = Clause(
    id="SNP-079",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="While a certificate exit is pending the per-VM lock is not held.",
    source="certificate-fetching series v7",
    profiles=_USERSPACE_CERTS,
    needs=_FETCH,
)

COUNTERS = Clause(
    id="SNP-080",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Message counters start at 0 per VMPCK and grow by 2 per processed request and only then.",
    source="AMD's published Genoa firmware source",
    needs=_HYPERVISOR,
)

RESPONSE_HEADER = Clause(
    id="SNP-081",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A response has the request's VMPCK, its type plus 1 and its number plus 1; errors of the payload "
        "arrive inside a valid response."
    ),
    source="AMD's published Genoa firmware source",
    untestable="Firmware is the world's own here; a hypervisor that changes the response breaks SNP-017.",
)

STATUS_ORDER = Clause(
    id="SNP-082",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The firmware status is that of the first check that fails, in the firmware's order.",
    source="AMD's published Genoa firmware source; the status of a bad tag differs on Milan",
    needs=_HYPERVISOR,
    untestable="Firmware is the world's own here; a hypervisor that hands on another status breaks SNP-018.",
)

SIGNATURE = Clause(
    id="SNP-083",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The report's signature verifies with the certificate's key over bytes 0..0x29F; R and S are 72 bytes "
        "little-endian, the rest is zero."
    ),
    source="go-sev-guest, abi.go; checked on real reports",
    needs=_GUEST,
)

NO_IV_REUSE = Clause(
    id="SNP-084",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text="Two different messages are never encrypted under the same VMPCK and sequence number.",
    source="sev-guest, commit 47894e0fa6a5",
    needs=_GUEST,
)

SEQUENCE = Clause(
    id="SNP-085",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "The number sent is the stored one plus 1, the stored one grows by 2 per completed exchange, and when "
        "the next would reach 2^32-1 the driver returns -EIO without sending."
    ),
    source="sev-guest, snp_get_msg_seqno",
    needs=_GUEST,
)

TOO_SMALL_RESEND = Clause(
    id="SNP-086",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "When the data buffer is too small the identical ciphertext is sent again as a basic request and "
        "completed; the caller gets -EIO, 1 << 32 and the size needed, and the key stays usable."
    ),
    source="sev-guest, commits 47894e0fa6a5 and dd093fb08e8f",
    needs=_GUEST,
)

BUSY_RESEND = Clause(
    id="SNP-087",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "After BUSY the identical bytes are sent again after a delay, for up to 60 s; then -ETIMEDOUT and the "
        "key is wiped."
    ),
    source="sev-guest, __handle_guest_request",
    needs=_GUEST,
)

WIPE = Clause(
    id="SNP-088",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Any other non-zero answer, too small to a basic request or after the resend included, wipes the "
        "VMPCK, and further calls return -ENOTTY."
    ),
    source="sev-guest, snp_disable_vmpck",
    needs=_GUEST,
)

RESPONSE_CHECKED = Clause(
    id="SNP-089",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The response is copied to private memory, then its number, type, version, size and tag are checked; "
        "otherwise -EBADMSG and the key is wiped."
    ),
    source="sev-guest, verify_and_dec_payload",
    needs=_GUEST,
)

PRIVATE_ENCRYPTION = Clause(
    id="SNP-090",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "The shared response page is cleared before sending, messages are encrypted in private memory, and an "
        "older response is never accepted."
    ),
    source="sev-guest; coconut-svsm, greq",
    needs=_GUEST,
)

CERTS_LENGTH = Clause(
    id="SNP-091",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "A certs_len that is no multiple of 4096 or above 0x4000 returns -EINVAL before anything is sent; "
        "without length or address no pages are offered, and without address the length need not be looked at."
    ),
    source="sev-guest, get_ext_report",
    needs=_GUEST,
)

ONE_LOCK = Clause(
    id="SNP-092",
    level=Level.MUST,
    kind=Kind.ORDERING,
    text="One lock covers the sequence number and all shared pages, data pages and their count included.",
    source="sev-guest, commit 3e385c0d6ce8",
    needs=_GUEST,
)

TABLE_BOUNDS = Clause(
    id="SNP-093",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Parsing a certificate table stops at the zero entry, bounds offset plus length without wrapping, never reads "
        "beyond the buffer, and finds no table empty because of a bad entry."
    ),
    source="sev-guest, sev_report_new; go-sev-guest",
    needs=_VERIFIER,
)

SHARED_PAGES_BACK = Clause(
    id="SNP-094",
    level=Level.SHOULD,
    kind=Kind.RESOURCE,
    text="Shared pages are encrypted again before they are freed, and leaked when that fails.",
    source="sev-guest, free_shared_pages",
    needs=_GUEST,
)

ROBUST = Clause(
    id="SNP-095",
    level=Level.MUST,
    kind=Kind.INVARIANT,
    text="Every entry point returns, and returns a value of its documented type, whatever it is asked.",
    source="the suite's own",
)

SEALED_HEADER = Clause(
    id="SNP-096",
    level=Level.SHOULD,
    kind=Kind.SECURITY,
    text="A response that opens with the guest's key is held to the number, type, version and size asked for.",
    source="sev-guest, verify_and_dec_payload; only a holder of the VMPCK can break it, so it is defence in depth",
    needs=_GUEST,
)

AS_ASKED = Clause(
    id="SNP-097",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text="The request holds what the caller asked for: its data and VMPL, and of a key its fields, SVN and TCB.",
    source="sev-guest, get_report and get_derived_key",
    needs=_GUEST,
)

CERTS_PAGES_CLEAR = Clause(
    id="SNP-098",
    level=Level.MUST,
    kind=Kind.SECURITY,
    text=(
        "Pages offered for certificates are clear when they are offered, so that a host that supplies none leaves an "
        "empty table and the caller finds nothing of anybody else's."
    ),
    source="sev-guest, get_ext_report",
    needs=_GUEST,
)

STATUS_TO_CALLER = Clause(
    id="SNP-099",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "When an answer other than too small or busy ends a request, the caller's exitinfo2 is that answer, or after "
        "too small 1 << 32 all the same; never does it hold bits that nobody wrote."
    ),
    source="uapi sev-guest.h, exitinfo2; sev-guest, snp_issue_guest_request",
    needs=_GUEST,
)

LIFE_ORDER = Clause(
    id="SNP-100",
    level=Level.MUST,
    kind=Kind.RESPONSE,
    text=(
        "Initialising a VM that is initialised, starting a launch before that or of a VM that is not SNP, and "
        "finishing one that is finished or was not started return an error and change nothing."
    ),
    source="KVM, __sev_guest_init, snp_launch_start, snp_launch_finish",
    needs=_HYPERVISOR,
)

OUTPUT_VALID = Clause(
    id="SNP-101",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text="What the guest is answered in SW_EXITINFO1, SW_EXITINFO2 and RBX carries its valid bit.",
    source="KVM, ghcb_set_sw_exit_info_1 and its siblings; coconut-svsm, ghcb.rs, which looks at them",
    needs=_HYPERVISOR,
)

NO_SUCCESS_LEFT = Clause(
    id="SNP-102",
    level=Level.SHOULD,
    kind=Kind.RESPONSE,
    text="After an errno of KVM_RUN the GHCB says no success, so that a vCPU that is run all the same is not deceived.",
    source="reading of KVM, sev_handle_vmgexit, which stores 0 in both fields before it calls the handler",
    profiles=_GHCB,
    needs=_HYPERVISOR,
)

CLAUSES = (
    NOT_SNP,
    USAGE,
    VALID_BITS,
    REGISTERED_GHCB,
    REQUEST_ALIGNED,
    RESPONSE_ALIGNED,
    DISTINCT_PAGES,
    REGISTERS_SUPPLIED,
    DATA_ALIGNED,
    OTHER_TYPES_ARE_BASIC,
    MALFORMED_IS_INERT,
    GHCB_SNAPSHOT,
    CHECK_ORDER,
    LARGER_BUFFER,
    ONE_COMMAND,
    WHOLE_REQUEST,
    SUCCESS,
    FIRMWARE_STATUS,
    NOT_DELIVERED,
    TIMEOUT,
    GUEST_PAGE_FAULT,
    NO_HOST_BYTES,
    NO_OLD_RESPONSE,
    TYPE_OF_SNAPSHOT,
    NO_CONTEXT,
    REGISTERS_KEPT,
    RESPONSE_FIRMWARE_OWNED,
    GUEST_PAGES_STAY,
    RESPONSE_PAGE_FREE,
    RESPONSE_PAGE_BACK,
    RECLAIM_FIRST,
    RECLAIM_FAILED,
    MAKE_SHARED_FAILED,
    NO_WRITE_TO_ASSIGNED,
    NO_FREE_OF_ASSIGNED,
    REFERENCES_DROPPED,
    BOUNCE_PAGES,
    PAGE_STAYS_IN_FLIGHT,
    CHEAP_CHECKS_FIRST,
    HALVES,
    NO_ACTION,
    CLEANUP_IS_NO_STATUS,
    BUSY_IS_INERT,
    RAN_OR_NOT,
    RATE,
    DEAD_FIRMWARE,
    NO_UNINITIALISED,
    TOO_SMALL,
    PAGES_NEEDED,
    BLOB_COPIED,
    EMPTY_TABLE,
    DATA_BEFORE_COMMAND,
    INSTANCE_WINS,
    INSTANCE_IOCTLS,
    NO_STALE_BLOB,
    BLOB_ATOMIC,
    HOST_IOCTLS,
    HOST_CERTS_DROPPED,
    LOCK_ORDER,
    CERTS_OF_SIGNER,
    ENABLE_CERTS,
    CERTS_EXIT,
    CERTS_ANSWER,
    NO_OTHER_EXIT,
    ONE_AT_A_TIME,
    LOCK_FREE_AFTER,
    LOCK_INITIALISED,
    FD_RULE,
    INIT_FAILURE,
    CONTEXT_FAILURE,
    ONE_CONTEXT,
    DECOMMISSION,
    DECOMMISSION_FAILED,
    DESTROY_ORDER,
    MOVE,
    CONTEXT_DROPPED,
    VMS_INDEPENDENT,
    KILLABLE,
    NO_LOCK_IN_USERSPACE,
    COUNTERS,
    RESPONSE_HEADER,
    STATUS_ORDER,
    SIGNATURE,
    NO_IV_REUSE,
    SEQUENCE,
    TOO_SMALL_RESEND,
    BUSY_RESEND,
    WIPE,
    RESPONSE_CHECKED,
    PRIVATE_ENCRYPTION,
    CERTS_LENGTH,
    ONE_LOCK,
    TABLE_BOUNDS,
    SHARED_PAGES_BACK,
    ROBUST,
    SEALED_HEADER,
    AS_ASKED,
    CERTS_PAGES_CLEAR,
    STATUS_TO_CALLER,
    LIFE_ORDER,
    OUTPUT_VALID,
    NO_SUCCESS_LEFT,
)
"""All clauses, in the order of their ids."""

ROBUSTNESS = ROBUST
"""What crashes, hangs and values of a wrong type break."""
