"""What may happen to an AVIC driver and to a router: configuration, operations, answers."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.model.avic.routing import Apic, Message
from conformance.specs.avic.constants import (
    APIC_ICR,
    APIC_ICR2,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_TDCR,
    APIC_TMICT,
    CPUID_AVIC,
    CPUID_NP,
)


@dataclass(frozen=True, slots=True)
class Config:
    """The host, the parameters, the hardware's freedom, and the vCPUs a trace starts with."""

    vcpus: tuple[int, ...] = ()
    """Ids of the vCPUs of VM 0, created in this order at the start; empty starts without a VM."""
    running: bool = False
    """They are loaded on cores 0x20, 0x21, … and in guest mode."""
    enabled: bool = False
    """They are software-enabled, and their flat logical ids are 1, 2, 4, …"""
    x2apic: bool = False
    """They are in x2APIC mode."""
    irqchip: bool = True
    """VM 0 has an in-kernel local APIC."""
    max_vcpu_ids: int = 4096
    edx: int = 1 << CPUID_NP | 1 << CPUID_AVIC
    ecx: int = 0
    npt: bool = True
    family: int = 0x19
    zen4: bool = False
    snp: bool = False
    hv_inuse_wr: bool = False
    avic: int = 1
    """The module parameter: -1 auto, 0 off, anything else on."""
    force: bool = False
    ipiv: bool = True
    next_tag: int = 1
    """Where the generator of VM tags stands."""
    software: bool = False
    """With AVIC off, the driver's APIC is asked all the same: it works in software then (AVIC-117)."""
    tagged: bool = False
    """Physical addresses carry bits outside 51:12, so that a wrong mask shows."""
    busy_sticky: bool = False
    """Hardware leaves ICR busy set, in the page and in EXITINFO1, when it gives up on an IPI."""
    checks_spiv: bool = False
    """Hardware skips software-disabled targets."""
    clears_tmr: bool = False
    """Hardware clears the TMR bit of an edge IPI."""
    narrow_host_ids: bool = False
    """Hardware ignores bits 11:8 of a host APIC id."""
    stale_running: bool = False
    """Erratum 1235: hardware may see IsRunning after software cleared it."""
    last_index: bool = False
    """Of several targets that do not run, the exit names the last."""
    eoi_cleared: bool = False
    """Hardware has cleared the in-service bit when a level EOI exits."""
    nonfixed_is_invalid_target: bool = False
    """An IPI of another mode than fixed exits with id 2 instead of 0."""


# -- operations: layer R


@dataclass(frozen=True, slots=True)
class Route:
    """Who accepts this message?"""

    apics: tuple[Apic, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class SignalMsi:
    """What does KVM_SIGNAL_MSI return for this message?"""

    apics: tuple[Apic, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Act:
    """One of the things that are done with eventfds and the routing table."""

    what: str
    """`route`, `assign`, `deassign`, `write` or `read`."""
    fd: int = 0
    """0 to 2 are eventfds, 3 is open and none, 4 is not open."""
    n: int = 0
    """The gsi of assign and deassign; what is written."""
    table: tuple[tuple[int, int], ...] = ()
    """Of route: (gsi, vector) each."""

    def __str__(self) -> str:
        """As a report shows it: what is done, with what counts for it."""
        match self.what:
            case "route":
                return f"route({', '.join(f'gsi {gsi}: vector {vector:#x}' for gsi, vector in self.table)})"
            case "write":
                return f"write(fd={self.fd}, count={self.n})"
            case "read":
                return f"read(fd={self.fd})"
        return f"{self.what}(fd={self.fd}, gsi={self.n})"


@dataclass(frozen=True, slots=True)
class Irqfds:
    """Interrupts from eventfds, in a fresh VM with one enabled xAPIC."""

    acts: tuple[Act, ...]


# -- setup and lifecycle


@dataclass(frozen=True, slots=True)
class HwSetup:
    """The module is loaded on such a host with such parameters."""

    edx: int = 1 << CPUID_NP | 1 << CPUID_AVIC
    """CPUID Fn8000_000A EDX."""
    ecx: int = 0
    npt: bool = True
    family: int = 0x19
    zen4: bool = False
    snp: bool = False
    hv_inuse_wr: bool = False
    avic: int = 1
    force: bool = False
    ipiv: bool = True


@dataclass(frozen=True, slots=True)
class HwUnsetup:
    """Module exit and load: what was registered is given back, and registered again."""


@dataclass(frozen=True, slots=True)
class VmCreate:
    """Create a VM."""

    vm: int = 0
    irqchip: bool = True
    max_vcpu_ids: int = 4096
    abandoned: bool = False
    """Something later in the creation fails, so the VM is destroyed at once."""


@dataclass(frozen=True, slots=True)
class VmDestroy:
    """Destroy a VM with all its vCPUs."""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class VmTag:
    """Is the VM's tag unique among live VMs and not 0?"""

    vm: int = 0


@dataclass(frozen=True, slots=True)
class VcpuCreate:
    """Create a vCPU; RESET follows."""

    id: int = 0
    vm: int = 0
    abandoned: bool = False
    """Something later in the creation fails, so the vCPU is freed at once."""


@dataclass(frozen=True, slots=True)
class VcpuFree:
    """Free a vCPU that no thread runs any more, while its VM lives on."""

    id: int = 0
    vm: int = 0


@dataclass(frozen=True, slots=True)
class TagsPass:
    """So many VMs come and go that the generator of tags stands at `next`."""

    next: int = 1


@dataclass(frozen=True, slots=True)
class VcpuReset:
    """RESET or INIT of a vCPU outside the guest."""

    id: int = 0
    init: bool = False


@dataclass(frozen=True, slots=True)
class VmcbReinit:
    """A SHUTDOWN exit left the VMCB undefined."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class Enter:
    """A short visit to the guest of a vCPU that is not loaded: load, VMRUN, an accelerated TPR write, exit, put."""

    id: int = 0
    tpr: int = -1
    """What the guest writes to TPR; -1 for nothing."""
    vm: int = 0


@dataclass(frozen=True, slots=True)
class SetLapic:
    """KVM_SET_LAPIC with reset values but for these registers."""

    id: int = 0
    tpr: int = 0
    ldr: int = 0
    """Logical id, bits 31:24; ignored in x2APIC mode."""
    cluster: bool = False
    spiv: int = 0x1FF
    irr: int = 0
    """A pending vector, 0 for none."""
    isr: int = 0
    """A vector in service, 0 for none."""
    level: bool = False
    """The vector in service is level-triggered."""
    rest: bool = False
    """What else can be restored is not as after RESET either: see `RESTORED`."""
    xid: int = -1
    """ID, bits 31:24; -1 for that of the vCPU. Ignored in x2APIC mode."""


RESTORED = {
    APIC_ICR: 0x44041,
    APIC_ICR2: 1 << 24,
    APIC_LVTT: 0x10031,
    APIC_LVTERR: 0x100FE,
    APIC_TMICT: 0x1000,
    APIC_TDCR: 0xB,
}
"""Registers of `SetLapic.rest`; ICR says what was sent, to itself, long ago."""


@dataclass(frozen=True, slots=True)
class GetLapic:
    """Read one register through KVM_GET_LAPIC."""

    id: int = 0
    offset: int = 0x080


@dataclass(frozen=True, slots=True)
class HwapicUpdate:
    """The common code reports the highest IRR and ISR vectors."""

    id: int = 0
    irr: int = 0x41
    isr: int = 0x41


@dataclass(frozen=True, slots=True)
class MemoryPressure:
    """The host moves every page that nobody holds a reference to."""


@dataclass(frozen=True, slots=True)
class GuestStore:
    """A vCPU stores to guest-physical page 0xFEE00 + n, n > 0, as to memory."""

    page: int = 1


@dataclass(frozen=True, slots=True)
class UserStore:
    """User space stores into its mapping of memory at guest-physical page 0xFEE00 + n."""

    page: int = 0


# -- running


@dataclass(frozen=True, slots=True)
class SetApicBase:
    """Write the APIC_BASE MSR."""

    id: int = 0
    value: int = 0xFEE00800
    host: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The vCPU's thread gets a core."""

    id: int = 0
    host_id: int = 0x20


@dataclass(frozen=True, slots=True)
class Put:
    """The vCPU's thread loses its core; it leaves the guest first."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """The vCPU leaves the guest, by HLT or for the host's sake, and stays outside."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A vCPU outside the guest has nothing to do."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class Unblock:
    """A sleeping vCPU wakes for a reason of its own."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class VmRun:
    """Enter the guest and stay."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class GuestIpi:
    """A vCPU in the guest writes its ICR."""

    id: int = 0
    dest: int = 1
    """8 bits in xAPIC mode, 32 in x2APIC mode."""
    logical: bool = False
    shorthand: int = 0
    mode: int = 0
    vector: int = 0x41
    level: bool = False
    asserted: bool = True
    extra: int = 0
    """Further bits of ICR low: reserved ones, busy."""
    defer: bool = False
    """An exit stays pending until HandleExit, so that other things happen before the handler."""


@dataclass(frozen=True, slots=True)
class GuestSelfIpi:
    """A vCPU in the guest, in x2APIC mode, writes SELF_IPI."""

    id: int = 0
    value: int = 0x41


@dataclass(frozen=True, slots=True)
class GuestWrite:
    """A vCPU in the guest writes an APIC register other than EOI and ICR."""

    id: int = 0
    offset: int = 0x080
    value: int = 0


@dataclass(frozen=True, slots=True)
class GuestRead:
    """A vCPU in the guest reads an APIC register."""

    id: int = 0
    offset: int = 0x090


@dataclass(frozen=True, slots=True)
class GuestEoi:
    """A vCPU in the guest ends its highest interrupt."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class HandleExit:
    """The handler of a deferred exit runs, and the guest resumes."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class RawIpiExit:
    """An AVIC_INCOMPLETE_IPI exit with any content."""

    id: int = 0
    info1: int = 0
    info2: int = 0


@dataclass(frozen=True, slots=True)
class RawNoaccel:
    """An AVIC_NOACCEL exit with any content."""

    id: int = 0
    info1: int = 0
    info2: int = 0


@dataclass(frozen=True, slots=True)
class Deliver:
    """The host sends a fixed interrupt to a vCPU."""

    id: int = 0
    vector: int = 0x41
    level: bool = False


@dataclass(frozen=True, slots=True)
class Inhibit:
    """Somebody sets or clears an inhibit reason of VM 0."""

    reason: int = 3
    on: bool = True


# -- posted interrupts


@dataclass(frozen=True, slots=True)
class UpdateIrte:
    """Route a device interrupt to a vCPU, or to none (-1)."""

    irq: int = 0
    id: int = 0
    vector: int = 0x51


@dataclass(frozen=True, slots=True)
class IommuPost:
    """The device raises its posted interrupt."""

    irq: int = 0


@dataclass(frozen=True, slots=True)
class GaLogNotify:
    """The GALog holds a tag that nobody has."""

    tag: int = 0


# -- helpers


@dataclass(frozen=True, slots=True)
class HpaField:
    """The field that holds a physical address."""

    address: int = 0x12345000


@dataclass(frozen=True, slots=True)
class LogicalIndex:
    """Index in the logical table."""

    ldr: int = 1
    dfr: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class PhysIndex:
    """Offset of a physical entry."""

    index: int = 0


@dataclass(frozen=True, slots=True)
class TagRoundTrip:
    """Encode and decode a GATag."""

    vm_tag: int = 1
    index: int = 0


@dataclass(frozen=True, slots=True)
class X2Ldr:
    """LDR of an x2APIC."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class Ppr:
    """PPR from TPR and the highest in-service vector."""

    tpr: int = 0
    isrv: int = 0


OPERATIONS = (
    Route,
    SignalMsi,
    Irqfds,
    HwSetup,
    HwUnsetup,
    VmCreate,
    VmDestroy,
    VmTag,
    TagsPass,
    VcpuCreate,
    VcpuFree,
    VcpuReset,
    VmcbReinit,
    Enter,
    SetLapic,
    GetLapic,
    HwapicUpdate,
    MemoryPressure,
    GuestStore,
    UserStore,
    SetApicBase,
    Load,
    Put,
    Exit,
    Block,
    Unblock,
    VmRun,
    GuestIpi,
    GuestSelfIpi,
    GuestWrite,
    GuestRead,
    GuestEoi,
    HandleExit,
    RawIpiExit,
    RawNoaccel,
    Deliver,
    Inhibit,
    UpdateIrte,
    IommuPost,
    GaLogNotify,
    HpaField,
    LogicalIndex,
    PhysIndex,
    TagRoundTrip,
    X2Ldr,
    Ppr,
)

_ROUTERS = frozenset({"layer-r"})
_TABLES = frozenset({"layer-t"})
_EXITS = frozenset({"layer-t", "exits"})
_POSTED = frozenset({"layer-t", "exits", "posted"})
_HELPERS = frozenset({"helpers"})
_NEEDED = (
    (
        _TABLES,
        (
            "HwSetup HwUnsetup VmCreate VmDestroy VmTag TagsPass VcpuCreate VcpuFree VcpuReset VmcbReinit Enter "
            "SetLapic GetLapic HwapicUpdate MemoryPressure GuestStore UserStore"
        ),
    ),
    (
        _EXITS,
        (
            "SetApicBase Load Put Exit Block Unblock VmRun GuestIpi GuestSelfIpi GuestWrite GuestRead GuestEoi "
            "HandleExit RawIpiExit RawNoaccel Deliver Inhibit"
        ),
    ),
    (_POSTED, "UpdateIrte IommuPost GaLogNotify"),
    (_HELPERS, "HpaField LogicalIndex PhysIndex TagRoundTrip X2Ldr Ppr"),
    (_ROUTERS, "Route"),
    (frozenset({"layer-r", "kvm-return"}), "SignalMsi"),
    (frozenset({"irqfd"}), "Irqfds"),
)
NEEDS: dict[type, frozenset[str]] = {
    op: needs for needs, names in _NEEDED for op in OPERATIONS if op.__name__ in names.split()
}
"""Capabilities that each operation needs."""


def requires(config: Config) -> frozenset[str]:
    """Capabilities that a configuration needs."""
    if not config.vcpus:
        return frozenset()
    if config.software:
        return _POSTED
    return _EXITS if config.running or config.x2apic else _TABLES


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals of the environment calls a candidate may meet, 0 for none."""

    alloc_page: int = 0
    kzalloc: int = 0
    alloc_vmcb: int = 0
    gfn_to_page: int = 0
    set_memory_region: int = 0
    """Negative errno."""
    set_vcpu_affinity: int = 0
    """1: it succeeds without metadata."""
