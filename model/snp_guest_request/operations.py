"""The world, the operations of both kinds, the refusals they may meet, and what they need."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs.snp_guest_request.constants import SNP

VM_OF = (0, 0, 1)
"""vCPUs 0 and 1 belong to VM 0, vCPU 2 to VM 1."""

CPU_OF = (0, 1, 0)
"""Number of each vCPU within its VM; the guest uses that VMPCK."""


@dataclass(frozen=True, slots=True)
class Config:
    """The world a trace starts in."""

    side: str = "hypervisor"
    """`hypervisor` for kind H, `guest` for kind G; `verifier` for what only parses, with no VM and no guest."""
    started: bool = True
    """Kind H: VM 0 is an SNP VM that runs already."""
    vcpus: int = 1
    """Kind H: how many vCPUs VM 0 starts with, 1 or 2."""
    second: int = 0
    """Kind H: VM 1 is absent (0), SEV_ES or SNP, and runs with one vCPU."""
    certs: bool = False
    """Kind H: VM 0 fetches certificates from userspace."""
    throttle: bool = False
    """Kind H: requests are limited to 2 per 2 s and VM."""
    count: int = 0
    """Messages already counted for VMPCK 0, by firmware and in the secrets page; even."""
    host: str = "direct"
    """Kind G: who answers the guest's exits, firmware at once or the shipped `hypervisor`."""
    open: bool = True
    """Kind G: the driver is open already."""


# -- operations of kind H


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """The guest leaves `message` in its request page and exits with SNP Guest Request."""

    vcpu: int = 0
    message: str = "report"
    req: str = "R"
    resp: str = "P"
    missing: str = ""
    """Valid bits that are clear: letters of c (exit code), 1, 2 (exit info), a (RAX), b (RBX), x (RCX), d (RDX)."""
    usage: int = 0
    ghcb: str = "own"
    """`own`, `sibling` for the VM's other vCPU's, or `spare`: a page that was never registered."""
    race: str = ""
    """What the guest stores once the hypervisor has read it: `type` of the message, or a field of the GHCB:
    `info1`, `info2`, `code`, `valid`, `usage`."""


@dataclass(frozen=True, slots=True)
class ExtGuestRequest:
    """As GuestRequest, with SNP Extended Guest Request: RAX and RBX name the pages for certificates."""

    vcpu: int = 0
    message: str = "report"
    req: str = "R"
    resp: str = "P"
    data: str = "D"
    npages: int = 4
    missing: str = ""
    usage: int = 0
    ghcb: str = "own"
    race: str = ""
    """As in GuestRequest, or `rax`, `rbx`."""


@dataclass(frozen=True, slots=True)
class UnknownExit:
    """The guest exits with a code that nobody defined."""

    vcpu: int = 0
    missing: str = ""
    usage: int = 0
    code: int = 0x8000_00FF
    """SW_EXITCODE, u64; its lower half may be a code that is defined."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Userspace answers a certificate exit and runs the vCPU again."""

    vcpu: int = 0
    ret: int = 0
    npages: int = 1
    race: str = ""
    """`ret`: another thread changes it once it was read; `rax`, `rbx`: the guest changes its GHCB before."""


@dataclass(frozen=True, slots=True)
class Boot:
    """A VM from nothing to running, with one vCPU; `certs` enables certificate fetching on the way."""

    vm: int = 0
    kind: int = SNP
    certs: bool = False


@dataclass(frozen=True, slots=True)
class VmCreate:
    """An empty VM."""

    vm: int = 0
    kind: int = SNP


@dataclass(frozen=True, slots=True)
class SevInit:
    """KVM_SEV_INIT2."""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class LaunchStart:
    """KVM_SEV_SNP_LAUNCH_START with a file that is the secure processor's, closed or another."""

    vm: int = 0
    fd: str = "open"
    valid: bool = True
    """Whether policy and flags are."""
    reserved: bool = False
    """Whether a bit of the policy is set that must be 0: the highest."""


@dataclass(frozen=True, slots=True)
class LaunchFinish:
    """KVM_SEV_SNP_LAUNCH_FINISH."""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class EnableReqCerts:
    """KVM_SEV_SNP_ENABLE_REQ_CERTS, and the attribute query."""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class VcpuCreate:
    """A vCPU."""

    vcpu: int = 0


@dataclass(frozen=True, slots=True)
class RegisterGhcb:
    """The guest registers a page as its GHCB; the one it registered before is none any more."""

    vcpu: int = 0
    ghcb: str = "own"
    """As in GuestRequest."""


@dataclass(frozen=True, slots=True)
class Decommission:
    """Give the guest context up."""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class VmDestroy:
    """The last reference to the VM goes."""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class MoveFrom:
    """A new VM 1 takes VM 0 over on the same host."""


@dataclass(frozen=True, slots=True)
class MirrorFrom:
    """A new VM 1 mirrors VM 0."""


@dataclass(frozen=True, slots=True)
class SnpShutdown:
    """SNP is shut down while no VM runs, to be initialised again by the next."""


@dataclass(frozen=True, slots=True)
class SetInstanceCerts:
    """KVM_SEV_SNP_SET_CERTS with `length` bytes of blob `blob`."""

    vm: int = 0
    blob: str = "A"
    length: int = 4096


@dataclass(frozen=True, slots=True)
class GetInstanceCerts:
    """KVM_SEV_SNP_GET_CERTS into a buffer of `length` bytes."""

    vm: int = 0
    length: int = 0x4000


@dataclass(frozen=True, slots=True)
class HostSetExtConfig:
    """SNP_SET_EXT_CONFIG: the host's certificates, and a new reported TCB with them."""

    blob: str = "H"
    """Blob `H` or `I`, or "" for a null pointer."""
    length: int = 4096
    tcb: int = 0
    writable: bool = True


@dataclass(frozen=True, slots=True)
class HostGetExtConfig:
    """SNP_GET_EXT_CONFIG into a buffer of `length` bytes."""

    length: int = 0x4000


@dataclass(frozen=True, slots=True)
class CloseFd:
    """Userspace closes the VM's file of the secure processor; its number may then mean another file."""

    vm: int = 0
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class RemoveSlot:
    """Userspace takes a page of guest memory away."""

    vm: int = 0
    page: str = "P0"


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds pass."""

    seconds: int = 2


# -- operations of kind G


@dataclass(frozen=True, slots=True)
class Open:
    """Load the driver for a VMPCK."""

    vmpck: int = 0


@dataclass(frozen=True, slots=True)
class GetReport:
    """SNP_GET_REPORT; `host` says how the host treats each exit of this operation, honestly once it ends."""

    host: tuple[str, ...] = ()
    vmpl: int = 3
    """The VMPL that the answer is for: no lower than that of the key."""
    data_word: int = 0
    """What the second 8 bytes of the report data differ by from what callers usually give; u64."""


KNOWN_FIELDS = 6
"""Bits of a key request's guest_field_select that firmware knows."""


@dataclass(frozen=True, slots=True)
class GetDerivedKey:
    """SNP_GET_DERIVED_KEY."""

    host: tuple[str, ...] = ()
    fields: int = 0
    vmpl: int = 3


@dataclass(frozen=True, slots=True)
class GetExtReport:
    """SNP_GET_EXT_REPORT with a buffer of `certs_len` bytes, or none."""

    host: tuple[str, ...] = ()
    certs_len: int = 0x4000
    buffer: bool = True
    vmpl: int = 3
    data_word: int = 0
    """What the second 8 bytes of the report data differ by from what callers usually give; u64."""


@dataclass(frozen=True, slots=True)
class Close:
    """Unload the driver."""


@dataclass(frozen=True, slots=True)
class Kexec:
    """Another kernel starts: the driver's memory is lost, the secrets page stays."""

    vmpck: int = 0


@dataclass(frozen=True, slots=True)
class ParseCerts:
    """Parse a certificate table, by name."""

    table: str = "two"


OPERATIONS = (
    GuestRequest,
    ExtGuestRequest,
    UnknownExit,
    Continue,
    Boot,
    VmCreate,
    SevInit,
    LaunchStart,
    LaunchFinish,
    EnableReqCerts,
    VcpuCreate,
    RegisterGhcb,
    Decommission,
    VmDestroy,
    MoveFrom,
    MirrorFrom,
    SnpShutdown,
    SetInstanceCerts,
    GetInstanceCerts,
    HostSetExtConfig,
    HostGetExtConfig,
    CloseFd,
    RemoveSlot,
    Wait,
    Open,
    GetReport,
    GetDerivedKey,
    GetExtReport,
    Close,
    Kexec,
    ParseCerts,
)

Operation = (
    GuestRequest
    | ExtGuestRequest
    | UnknownExit
    | Continue
    | Boot
    | VmCreate
    | SevInit
    | LaunchStart
    | LaunchFinish
    | EnableReqCerts
    | VcpuCreate
    | RegisterGhcb
    | Decommission
    | VmDestroy
    | MoveFrom
    | MirrorFrom
    | SnpShutdown
    | SetInstanceCerts
    | GetInstanceCerts
    | HostSetExtConfig
    | HostGetExtConfig
    | CloseFd
    | RemoveSlot
    | Wait
    | Open
    | GetReport
    | GetDerivedKey
    | GetExtReport
    | Close
    | Kexec
    | ParseCerts
)

Request = GuestRequest | ExtGuestRequest

LATE_EFAULT = -(1 << 16) - 14
"""Refusal of a firmware command that ran: firmware succeeded, and only then the driver failed with -EFAULT."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals really met, by environment call; 0 where none was.

    `snp_guest_request` is a firmware status when positive, -ETIMEDOUT when firmware did not answer,
    LATE_EFAULT, or the errno of a command that did not get there.
    """

    ghcb_map: int = 0
    alloc_page: int = 0
    alloc_fw_page: int = 0
    kmalloc: int = 0
    kzalloc: int = 0
    copy_from_user: int = 0
    copy_to_user: int = 0
    read_guest: int = 0
    write_guest: int = 0
    clear_guest: int = 0
    gfn_to_pfn: int = 0
    rmp_make_private: int = 0
    rmp_make_shared: int = 0
    snp_gctx_create: int = 0
    snp_launch_start: int = 0
    snp_activate: int = 0
    snp_launch_finish: int = 0
    snp_decommission: int = 0
    snp_guest_request: int = 0
    snp_page_reclaim: int = 0
    snp_config: int = 0
    mutex_lock_killable: int = 0
    alloc_asid: int = 0
    ratelimit: int = 0
    alloc_pages: int = 0
    set_decrypted: int = 0
    set_encrypted: int = 0


_GUEST = frozenset({"guest"})
_HYPERVISOR = frozenset({"hypervisor"})
_GUEST_OPERATIONS = (Open, GetReport, GetDerivedKey, GetExtReport, Close, Kexec)
NEEDS: dict[type, frozenset[str]] = dict.fromkeys(OPERATIONS, _HYPERVISOR)
NEEDS |= dict.fromkeys(_GUEST_OPERATIONS, _GUEST)
NEEDS |= dict.fromkeys((MoveFrom, MirrorFrom), frozenset({"hypervisor", "move"}))
NEEDS |= dict.fromkeys(
    (SetInstanceCerts, GetInstanceCerts, HostSetExtConfig, HostGetExtConfig), frozenset({"hypervisor", "kernel-certs"})
)
NEEDS |= dict.fromkeys((EnableReqCerts, Continue), frozenset({"hypervisor", "userspace-certs"}))
NEEDS[ParseCerts] = frozenset({"verifier"})


def requires(config: Config) -> frozenset[str]:
    """Capabilities that the world needs."""
    needed = {config.side}
    if config.certs:
        needed.add("userspace-certs")
    if config.throttle:
        needed.add("throttle")
    return frozenset(needed)
