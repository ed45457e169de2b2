"""What guests, userspace and hardware may show of CET state: one pure function per operation.

The state is per vCPU and says nothing of physical CPUs or backing stores: preemption changes no
value, which is the point of the subsystem. `Vcpu.origin` and `since` remember how a vCPU's values
came about and what they survived, so that a wrong value later cites the clause that says it should have survived that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.specs.clause import Clause

# -- values and bit fields


def field_of(value: int, low: int, high: int) -> int:
    """Bits `high` to `low` of a 64-bit value."""
    return value >> low & (1 << (high - low + 1)) - 1


def is_canonical(value: int, width: int) -> bool:
    """Whether bits 63 down to `width` - 1 of a 64-bit address are all equal."""
    return value >> (width - 1) in (0, (1 << (65 - width)) - 1)


def is_uniform_above(value: int, width: int) -> bool:
    """Whether bits 63 down to `width` are all equal: one bit less than canonical."""
    return value >> width in (0, (1 << (64 - width)) - 1)


def control_refusal(value: int, shstk: bool, ibt: bool, base_aligned: bool) -> Clause | None:
    """The clause by which a value of U_CET or S_CET is refused whatever its base; None if none does."""
    if field_of(value, 6, 9):
        return c.CET_RESERVED_BITS
    if not shstk and field_of(value, 0, 1):
        return c.CET_SHSTK_BITS_NEED_SHSTK
    if not ibt and (field_of(value, 2, 5) or field_of(value, 10, 63)):
        return c.CET_IBT_BITS_NEED_IBT
    if field_of(value, 10, 11) == 3:
        return c.CET_SUPPRESS_OR_TRACKER
    if base_aligned and field_of(value, 12, 13):
        return c.CET_BASE_ALIGNED
    return None


def base_of(value: int) -> int:
    """The legacy bitmap's address in U_CET or S_CET."""
    return value >> 12 << 12


def pointer_refusal(value: int, width: int) -> Clause | None:
    """The clause by which a shadow-stack pointer is refused; None if none does."""
    if field_of(value, 0, 1):
        return c.SSP_ALIGNED
    if not is_canonical(value, width):
        return c.SSP_CANONICAL
    return None


def one_reg_msr(reg: int) -> int | None:
    """The MSR a register id stands for, GUEST_SSP's internal number included; None for a bad id."""
    index, kind, reserved = field_of(reg, 0, 31), field_of(reg, 32, 39), field_of(reg, 40, 51)
    if field_of(reg, 56, 63) != 0x20 or reserved or field_of(reg, 52, 55) != 3:
        return None
    if kind == 3:
        return k.INTERNAL_GUEST_SSP if index == 0 else None
    return index if kind == 2 else None


def xsaves_size(xss: int) -> int:
    """Bytes of a compacted image with XCR0 = 3 and these bits of XSS."""
    return k.XSAVE_BASE_SIZE + 16 * (xss >> k.CET_U & 1) + 24 * (xss >> k.CET_S & 1)


# -- records


@dataclass(frozen=True, slots=True)
class Host:
    """A physical host and how KVM was loaded on it."""

    vendor: str = "intel"
    """`intel` or `amd`."""
    shstk: bool = True
    ibt: bool = True
    xsaves: bool = True
    lm: bool = True
    xss: int = 0x1800
    """XSS bits of the hardware."""
    load_cet_entry: bool = True
    """VMX has the load-CET entry control."""
    load_cet_exit: bool = True
    """VMX has the load-CET exit control."""
    basic56: bool = True
    """IA32_VMX_BASIC[56]: no consistency check of error codes."""
    unrestricted: bool = True
    """Unrestricted guest is enabled."""
    tdp: bool = True
    smaller_maxphyaddr: bool = False
    """Emulation of a guest MAXPHYADDR below the host's is on."""
    la57: bool = False
    s_cet: int = 0
    """S_CET of the host itself."""
    sev_es: bool = False
    """The guests' register state is encrypted."""

    @property
    def width(self) -> int:
        """Bits of a linear address, at its widest."""
        return 57 if self.la57 else 48


@dataclass(frozen=True, slots=True)
class Cpuid:
    """What userspace offers a guest by KVM_SET_CPUID2."""

    shstk: bool = True
    ibt: bool = True
    lm: bool = True
    xsaves: bool = True
    xss: int = 0x1800
    """CPUID.(0xD,1):EDX:ECX."""


@dataclass(frozen=True, slots=True)
class Config:
    """The host, and the vCPUs that exist when a trace starts."""

    host: Host = Host()
    vcpus: tuple[Cpuid, ...] = (Cpuid(),)
    ignore_msrs: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """What L1 wrote into its vmcs12 or vmcb12 before entering L2."""

    s_cet: int = 0
    ssp: int = 0
    table: int = 0
    wp: bool = True
    cet: bool = True
    """L2's CR0.WP and CR4.CET."""
    load: bool = True
    """VM-entry control "load CET state"."""
    clean: bool = False
    """SVM: clean bit 12 is set."""
    host_s_cet: int = 0
    host_ssp: int = 0
    host_table: int = 0
    host_wp: bool = True
    host_cet: bool = False
    """L1's CR0.WP and CR4.CET after the exit."""
    load_host: bool = True
    """VM-exit control "load CET state"."""
    host_64: bool = True
    """L1 resumes in 64-bit mode."""
    intercepts: tuple[int, ...] = ()
    """MSRs whose accesses L1 intercepts."""


# -- operations


@dataclass(frozen=True, slots=True)
class VendorInit:
    """Load the module anew, on this host; once in a trace, while there is no vCPU."""

    host: Host


@dataclass(frozen=True, slots=True)
class SupportedXss:
    """Read the CET bits of `kvm_caps.supported_xss`."""


@dataclass(frozen=True, slots=True)
class MsrIndexList:
    """KVM_GET_MSR_INDEX_LIST."""


@dataclass(frozen=True, slots=True)
class NestedCapabilities:
    """Whether nested VMX offers the load-CET controls."""


@dataclass(frozen=True, slots=True)
class Create:
    """Create a vCPU in an empty slot and give it this CPUID."""

    vcpu: int
    cpuid: Cpuid = Cpuid()


@dataclass(frozen=True, slots=True)
class Destroy:
    """Destroy a vCPU that is in no ioctl."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class SetCpuid:
    """KVM_SET_CPUID2."""

    vcpu: int
    cpuid: Cpuid = Cpuid()
    cpu: int = 0
    """Physical CPU of the calling thread, here and below."""


@dataclass(frozen=True, slots=True)
class SetFilter:
    """KVM_X86_SET_MSR_FILTER: the guest may not access these MSRs."""

    vcpu: int
    denied: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """KVM_RUN up to a first exit: vcpu_load, window, run_begin, window, entry and exit."""

    vcpu: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """KVM_RUN returns to userspace: run_end, window, vcpu_put."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class Wrmsr:
    """The guest writes an MSR."""

    vcpu: int
    msr: int
    value: int
    emulated: bool = False
    """Through the instruction emulator, whatever is intercepted."""


@dataclass(frozen=True, slots=True)
class Rdmsr:
    """The guest reads an MSR: (0, value), or (1, 0) for #GP."""

    vcpu: int
    msr: int
    emulated: bool = False


@dataclass(frozen=True, slots=True)
class Xrstors:
    """The guest restores component 11 (U_CET, PL3_SSP) or 12 (PL0..PL2_SSP). 0, or 1 for #GP."""

    vcpu: int
    component: int
    words: tuple[int, ...] = ()
    """The component's values; none at all stands for an image that marks it initial."""


@dataclass(frozen=True, slots=True)
class Xsaves:
    """The guest saves component 11 or 12: its words, or None where XSS does not enable it."""

    vcpu: int
    component: int


@dataclass(frozen=True, slots=True)
class WriteSsp:
    """The guest moves SSP, as SETSSBSY, RSTORSSP or a CALL do."""

    vcpu: int
    value: int


@dataclass(frozen=True, slots=True)
class ReadSsp:
    """The guest reads SSP."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class CpuidSize:
    """The guest reads CPUID.(0xD,1):EBX."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class MovCr0:
    """The guest changes CR0.WP. 0, or 1 for #GP."""

    vcpu: int
    wp: bool


@dataclass(frozen=True, slots=True)
class MovCr4:
    """The guest changes CR4.CET. 0, or 1 for #GP."""

    vcpu: int
    cet: bool
    owned: bool = False
    """VMX: the bit is guest-owned, so the instruction does not exit."""


@dataclass(frozen=True, slots=True)
class Exit:
    """An exit that the kernel handles by itself, without any MSR."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class Halt:
    """HLT: the thread blocks in KVM_RUN and is woken on `cpu`."""

    vcpu: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Preempt:
    """The thread of a vCPU in KVM_RUN's loop is scheduled out, and in again on `cpu`."""

    vcpu: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """The same wherever the thread is in an ioctl; happens only during another operation of the vCPU."""

    vcpu: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class HostTask:
    """Another task runs in user mode on `cpu` for a while."""

    cpu: int


@dataclass(frozen=True, slots=True)
class KernelFpu:
    """A softirq on `cpu` uses the FPU."""

    cpu: int


@dataclass(frozen=True, slots=True)
class SetMsrs:
    """KVM_SET_MSRS: how many were processed, or an errno."""

    vcpu: int
    entries: tuple[tuple[int, int], ...]
    """(MSR, value) pairs."""
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class GetMsrs:
    """KVM_GET_MSRS: how many were processed, or an errno, and the values."""

    vcpu: int
    indices: tuple[int, ...]
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class SetOneReg:
    """KVM_SET_ONE_REG."""

    vcpu: int
    reg: int
    value: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class GetOneReg:
    """KVM_GET_ONE_REG: (0, value) or (errno, 0)."""

    vcpu: int
    reg: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class GetRegList:
    """KVM_GET_REG_LIST: result, count written back, ids."""

    vcpu: int
    n: int
    """Capacity of the user's array."""
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class SetSregs:
    """KVM_SET_SREGS, CR0.WP and CR4.CET."""

    vcpu: int
    wp: bool
    cet: bool
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Init:
    """An INIT reaches a vCPU that is in KVM_RUN."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A full RESET of a vCPU that is not in KVM_RUN."""

    vcpu: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class GetMpState:
    """KVM_GET_MP_STATE."""

    vcpu: int
    init: bool
    """An INIT is pending."""
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class GetXsave:
    """KVM_GET_XSAVE: whether the image holds a CET component."""

    vcpu: int
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class SetXsave:
    """KVM_SET_XSAVE of an image with one component."""

    vcpu: int
    component: int
    words: tuple[int, ...] = ()
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Emulate:
    """The emulator meets an instruction, at CPL 3 or 0."""

    vcpu: int
    instruction: str
    user: bool = False


@dataclass(frozen=True, slots=True)
class Smi:
    """An SMI arrives."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class Rsm:
    """The SMM handler ends. 0, or 1 for a shutdown."""

    vcpu: int
    ssp: int | None = None
    """What the handler stored in the SSP slot; None if nothing."""


@dataclass(frozen=True, slots=True)
class NestedEnter:
    """L1 enters L2."""

    vcpu: int
    area: Area = Area()


@dataclass(frozen=True, slots=True)
class NestedExit:
    """L2 exits to L1."""

    vcpu: int


@dataclass(frozen=True, slots=True)
class SetNestedState:
    """KVM_SET_NESTED_STATE of a vCPU in L2, no entry pending. VMX only."""

    vcpu: int
    area: Area = Area()
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Vmread:
    """L1 reads a CET field of its vmcs12: (0, value), or (1, 0) for VMfail."""

    vcpu: int
    field: int


@dataclass(frozen=True, slots=True)
class Migrate:
    """Save everything advertised, restore it into a fresh vCPU of a fresh VM, destroy the old one."""

    vcpu: int
    order: int = 0
    """0: MSRs as listed, then GUEST_SSP; 1: the reverse; 2: GUEST_SSP, then each MSR by KVM_SET_ONE_REG."""
    cpu: int = 0


Operation = (
    VendorInit
    | SupportedXss
    | MsrIndexList
    | NestedCapabilities
    | Create
    | Destroy
    | SetCpuid
    | SetFilter
    | Run
    | Leave
    | Wrmsr
    | Rdmsr
    | Xrstors
    | Xsaves
    | WriteSsp
    | ReadSsp
    | CpuidSize
    | MovCr0
    | MovCr4
    | Exit
    | Halt
    | Preempt
    | Window
    | HostTask
    | KernelFpu
    | SetMsrs
    | GetMsrs
    | SetOneReg
    | GetOneReg
    | GetRegList
    | SetSregs
    | Init
    | Reset
    | GetMpState
    | GetXsave
    | SetXsave
    | Emulate
    | Smi
    | Rsm
    | NestedEnter
    | NestedExit
    | SetNestedState
    | Vmread
    | Migrate
)

OPERATIONS: tuple[type, ...] = (
    VendorInit,
    SupportedXss,
    MsrIndexList,
    NestedCapabilities,
    Create,
    Destroy,
    SetCpuid,
    SetFilter,
    Run,
    Leave,
    Wrmsr,
    Rdmsr,
    Xrstors,
    Xsaves,
    WriteSsp,
    ReadSsp,
    CpuidSize,
    MovCr0,
    MovCr4,
    Exit,
    Halt,
    Preempt,
    Window,
    HostTask,
    KernelFpu,
    SetMsrs,
    GetMsrs,
    SetOneReg,
    GetOneReg,
    GetRegList,
    SetSregs,
    Init,
    Reset,
    GetMpState,
    GetXsave,
    SetXsave,
    Emulate,
    Smi,
    Rsm,
    NestedEnter,
    NestedExit,
    SetNestedState,
    Vmread,
    Migrate,
)

NEEDS: dict[type, frozenset[str]] = {
    NestedCapabilities: frozenset({"nested"}),
    NestedEnter: frozenset({"nested"}),
    NestedExit: frozenset({"nested"}),
    SetNestedState: frozenset({"nested"}),
    Vmread: frozenset({"nested"}),
    SetOneReg: frozenset({"one-reg"}),
    GetOneReg: frozenset({"one-reg"}),
    GetRegList: frozenset({"one-reg"}),
    Migrate: frozenset({"one-reg"}),
    GetXsave: frozenset({"xsave"}),
    SetXsave: frozenset({"xsave"}),
    Smi: frozenset({"smm"}),
    Rsm: frozenset({"smm"}),
    Emulate: frozenset({"emulator"}),
}

EMULATED = ("mov", "ret", "indirect_jmp", "indirect_call", "far_jmp", "task_switch")
"""Instructions `Emulate` knows."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals of the environment, 0 where it did not refuse."""

    alloc_guest_fpstate: int = 0
    copy_from_user: int = 0
    copy_to_user: int = 0


# -- state

PL0, PL1, PL2, PL3 = 2, 3, 4, 5
U, S, TABLE, XSS, SSP = 0, 1, 6, 7, 8
"""Places in `Vcpu.regs`: the MSRs by number, then SSP."""
PLACE = {msr: place for place, msr in enumerate(k.MSRS)} | {k.INTERNAL_GUEST_SSP: SSP}
COMPONENTS = {k.CET_U: (U, PL3), k.CET_S: (PL0, PL1, PL2)}
"""Registers of an XSAVES component."""
ZEROS = (0,) * 9

FRESH, HOST, GUEST, EMULATED_WRITE, XRSTORS, RESET, MIGRATED, NESTED, SMM, SUCCESSOR, VMRUN = range(11)
"""How a vCPU's values came to be what they are: the last operation that was meant to change some."""
UNTOUCHED, SWITCHED, MOVED, WINDOW, HALTED, CROSSED, TOGGLED = range(7)
"""What they survived since then, that was not meant to change any."""

ORIGINS = {
    FRESH: c.LAST_ACCEPTED_VALUE,
    XRSTORS: c.INTERCEPTED_ACTS_ON_LIVE,
    RESET: c.RESET_CLEARS,
    MIGRATED: c.MIGRATION_ROUND_TRIP,
    SMM: c.SSP_THROUGH_SMRAM,
    SUCCESSOR: c.DESTROYED_LEAVES_NOTHING,
}
"""The clause by which an operation gives registers their values."""
SURVIVED = {
    SWITCHED: c.NO_LOST_UPDATE,
    MOVED: c.PCPU_MIGRATION_TRANSPARENT,
    WINDOW: c.SAVE_IS_IDEMPOTENT,
    HALTED: c.HALT_IS_PREEMPTION,
    CROSSED: c.FAST_PATH_INVALIDATED,
    TOGGLED: c.TOGGLE_KEEPS_STATE,
}
"""The clause by which they keep them."""


@dataclass(frozen=True, slots=True)
class L2:
    """What an exit to L1 needs to know."""

    regs: tuple[int, int, int]
    """S_CET, SSP and table that L1 gets back; on VMX only with the exit control set."""
    restores: bool
    """Whether L1 gets them back; otherwise L2's values carry over."""
    wp: bool
    cet: bool
    """L1's CR0.WP and CR4.CET after the exit."""
    intercepts: tuple[int, ...]
    entered: bool
    """By an entry, not by a restore of state."""


@dataclass(frozen=True, slots=True)
class Vcpu:
    """One vCPU as guest and userspace know it."""

    asked: Cpuid
    """The CPUID userspace set."""
    shstk: bool
    ibt: bool
    xss: int
    """The CPUID within KVM's capabilities."""
    regs: tuple[int, ...] = ZEROS
    live: bool = False
    """In KVM_RUN; otherwise in no ioctl at all."""
    ran: bool = False
    wp: bool = False
    cet: bool = False
    origin: int = FRESH
    place: int = 0
    """The register last written, if it was one."""
    over: bool = False
    """What was written or cleared had another value before."""
    since: int = UNTOUCHED
    denied: tuple[int, ...] = ()
    smm: tuple[bool, bool] | None = None
    """CR0.WP and CR4.CET before the SMI, while in SMM."""
    smram: int = 0
    """The SSP slot of SMRAM."""
    l2: L2 | None = None
    area: tuple[int, int, int] = (0, 0, 0)
    """S_CET, SSP and table in the vmcs12 or vmcb12 in memory."""
    refused: bool = False
    """The last VMRUN failed, so nobody knows whether the processor has vmcb12's values."""
    dead: bool = False
    """Shut down; only RESET helps."""


@dataclass(frozen=True, slots=True)
class State:
    """A host with KVM loaded on it, and the vCPUs by slot."""

    host: Host
    shstk: bool
    ibt: bool
    xss: int
    """kvm_caps."""
    ready: bool
    """vendor_init succeeded."""
    vcpus: tuple[Vcpu | None, ...]
    ignore_msrs: bool
    exact: bool
    """Interception is prescribed, since the FPU code swaps everything."""
    reloaded: bool = False
    """The module was loaded anew; a trace does that once."""
    ghosts: bool = False
    """A vCPU was destroyed that had values."""


SLOTS = 2
"""vCPUs that may exist at once."""
CPUS = 2
"""Physical CPUs."""


def capabilities(host: Host) -> tuple[bool, bool, int, Clause]:
    """SHSTK, IBT and XSS bits that KVM may offer on this host, and the clause that decides the most."""
    shstk, ibt, because = host.shstk, host.ibt, c.XSS_AND_FEATURES_TOGETHER
    xss = host.xss & 0x1800 if host.xsaves else 0
    if ibt and host.vendor == "amd":
        ibt, because = False, c.NO_IBT_ON_SVM
    controls = host.load_cet_entry and host.load_cet_exit and host.basic56 and host.unrestricted
    if host.vendor == "intel" and not controls:
        shstk, ibt, because = False, False, c.VMX_PREREQUISITES
    if not host.tdp and shstk:
        shstk, because = False, c.PAGING_PREREQUISITES
    if host.smaller_maxphyaddr and (shstk or ibt):
        shstk, ibt, because = False, False, c.PAGING_PREREQUISITES
    if xss != 0x1800 and (shstk or ibt):
        shstk, ibt, because = False, False, c.XSS_AND_FEATURES_TOGETHER
    return shstk, ibt, xss if shstk or ibt else 0, because


def initial(config: Config, profile: Profile) -> State:
    """The module loaded on the configuration's host, its vCPUs created."""
    shstk, ibt, xss, _ = capabilities(config.host)
    ready = not config.host.s_cet >> k.SH_STK_EN & 1
    bare = State(config.host, shstk, ibt, xss, ready, (None,) * SLOTS, config.ignore_msrs, profile.fpu_managed)
    vcpus = tuple(new_vcpu(bare, cpuid) for cpuid in config.vcpus) if ready else ()
    return replace(bare, vcpus=(vcpus + (None,) * SLOTS)[:SLOTS])


def new_vcpu(state: State, cpuid: Cpuid) -> Vcpu:
    """A vCPU in power-up state with that CPUID."""
    return Vcpu(cpuid, cpuid.shstk and state.shstk, cpuid.ibt and state.ibt, cpuid.xss & state.xss)


def _given(state: State, q: Cpuid) -> tuple[bool, bool, bool, bool, int]:
    """What a guest gets of a CPUID."""
    host = state.host
    return q.shstk and state.shstk, q.ibt and state.ibt, q.lm and host.lm, q.xsaves and host.xsaves, q.xss & state.xss


def advertised(state: State) -> tuple[int, ...]:
    """The CET MSRs in the index list, by number."""
    listed: tuple[int, ...] = ()
    if state.shstk or state.ibt:
        listed += k.CONTROL_MSRS
    if state.shstk:
        listed += k.POINTER_MSRS
        if state.host.lm:
            listed += (k.INT_SSP_TAB,)
    if state.xss:
        listed += (k.XSS,)
    return listed


# -- legality


def legal(state: State, op: Operation) -> bool:
    """What the world can do at all."""
    match op:
        case VendorInit():
            return not state.reloaded and not any(state.vcpus)
        case SupportedXss() | MsrIndexList() | NestedCapabilities():
            return state.ready
        case HostTask(cpu) | KernelFpu(cpu):
            return 0 <= cpu < CPUS
        case Create(vcpu):
            return state.ready and 0 <= vcpu < SLOTS and state.vcpus[vcpu] is None
        case _:
            v = state.vcpus[op.vcpu] if 0 <= op.vcpu < SLOTS else None
            return v is not None and 0 <= getattr(op, "cpu", 0) < CPUS and _legal_of(state, v, op)


def _legal_of(state: State, v: Vcpu, op: Operation) -> bool:
    """Legality of an operation on a vCPU that exists."""
    kind = type(op)
    if kind is Window:
        return True
    if kind is Destroy or kind is Leave:
        return v.live == (kind is Leave)
    if v.dead:
        return kind is Reset and not v.live
    if kind in WHILE_LIVE:
        return v.live and _legal_live(state, v, op)
    return not v.live and _legal_idle(state, v, op)


WHILE_LIVE = frozenset(
    {
        Wrmsr,
        Rdmsr,
        Xrstors,
        Xsaves,
        WriteSsp,
        ReadSsp,
        CpuidSize,
        MovCr0,
        MovCr4,
        Exit,
        Halt,
        Init,
        Emulate,
        Smi,
        Rsm,
        NestedEnter,
        NestedExit,
        Vmread,
        Leave,
        Preempt,
    }
)
"""Operations of a vCPU in KVM_RUN; all others need one that is in no ioctl."""


def _legal_live(state: State, v: Vcpu, op: Operation) -> bool:
    """What a guest that runs can do or meet."""
    host, plain = state.host, v.l2 is None and v.smm is None
    match op:
        case Wrmsr(_, msr, value):
            return 0 <= value < 1 << 64 and not _stopped_by_l1(v, msr) and _fits(v, msr, value)
        case Rdmsr(_, msr):
            return not _stopped_by_l1(v, msr)
        case Xrstors(_, component, words):
            return v.asked.xsaves and host.xsaves and _loadable(host, v, component, words)
        case Xsaves(_, component):
            return v.asked.xsaves and host.xsaves and component in COMPONENTS
        case WriteSsp(_, value):
            return v.shstk and v.smm is None and value % 4 == 0 and is_canonical(value, host.width) and _low(v, value)
        case ReadSsp():
            return v.shstk and v.smm is None
        case CpuidSize():
            return v.asked.xsaves and host.xsaves
        case MovCr0():
            return v.l2 is None
        case MovCr4(_, _, owned):
            return v.l2 is None and (not owned or (host.vendor == "intel" and (v.shstk or v.ibt)))
        case Emulate(_, instruction):
            return plain and v.asked.lm and instruction in EMULATED
        case Smi():
            return plain and v.asked.lm
        case Rsm(_, ssp):
            return v.smm is not None and (ssp is None or 0 <= ssp < 1 << 64)
        case NestedEnter(_, area):
            return plain and _plausible(state, v, area)
        case NestedExit():
            return v.l2 is not None
        case Vmread(_, field):
            return plain and host.vendor == "intel" and field in (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
        case Init():
            return plain
        case _:
            return True


def _legal_idle(state: State, v: Vcpu, op: Operation) -> bool:
    """What userspace can ask of a vCPU that is in no ioctl."""
    plain = v.l2 is None and v.smm is None
    match op:
        case Run():
            return v.wp or not v.cet
        case SetCpuid(_, cpuid):
            return plain and (v.ran or v.regs == ZEROS or cpuid == v.asked) and not v.cet
        case SetMsrs(_, entries):
            return all(msr != k.INTERNAL_GUEST_SSP and 0 <= x < 1 << 64 and _fits(v, msr, x) for msr, x in entries)
        case GetMsrs(_, indices):
            return k.INTERNAL_GUEST_SSP not in indices
        case SetOneReg(_, reg, value):
            msr = one_reg_msr(reg)
            return reg != _ALIAS and 0 <= value < 1 << 64 and _settled(v, reg) and (not msr or _fits(v, msr, value))
        case GetOneReg(_, reg):
            return reg != _ALIAS and _settled(v, reg)
        case GetRegList(_, n):
            return 0 <= n < 1 << 64
        case SetSregs():
            return plain
        case Reset():
            return plain
        case GetMpState(_, init):
            return plain or not init
        case SetXsave(_, component, words):
            return component == 2 or len(words) == len(COMPONENTS.get(component, (0,) * 99))
        case SetNestedState(_, area):
            return (
                plain
                and state.host.vendor == "intel"
                and _plausible(state, v, area)
                and area.wp
                and area.cet == v.cet
                and v.wp
                and _entry_refusal(state, v, area, True) is None
            )
        case Migrate():
            return plain and _restorable(state, v)
        case _:
            return True


_ALIAS = k.ONE_REG_MSR | k.INTERNAL_GUEST_SSP
"""GUEST_SSP's internal number as an MSR: what that does is not specified."""


def _settled(v: Vcpu, reg: int) -> bool:
    """SSP in SMM is nobody's business: only what RSM restores counts."""
    return v.smm is None or reg != k.ONE_REG_GUEST_SSP


def _low(v: Vcpu, value: int) -> bool:
    """Without LM nobody says what becomes of bits 63:32 (CET-015)."""
    return v.asked.lm or not value >> 32


def _fits(v: Vcpu, msr: int, value: int) -> bool:
    return msr == k.XSS or _low(v, value)


def _stopped_by_l1(v: Vcpu, msr: int) -> bool:
    return v.l2 is not None and msr in v.l2.intercepts


def _loadable(host: Host, v: Vcpu, component: int, words: tuple[int, ...]) -> bool:
    """Whether XRSTORS can be asked this: images that hold an invalid value are nobody's test."""
    if component not in COMPONENTS:
        return False
    if not words:
        return True
    if len(words) != len(COMPONENTS[component]) or not all(0 <= x < 1 << 64 and _low(v, x) for x in words):
        return False
    pointers = words[1:] if component == k.CET_U else words
    if component == k.CET_U and not _hardware_takes(host, words[0]):
        return False
    return all(pointer_refusal(x, host.width) is None for x in pointers)


def _hardware_takes(host: Host, value: int) -> bool:
    """Whether the processor itself accepts a value of U_CET or S_CET: the host's features decide."""
    ibt = host.ibt and host.vendor == "intel"
    return control_refusal(value, host.shstk, ibt, False) is None and is_canonical(base_of(value), host.width)


def _plausible(state: State, v: Vcpu, area: Area) -> bool:
    """Whether L1 can have written this: controls that exist, 64-bit fields, a truthful clean bit."""
    words = (area.s_cet, area.ssp, area.table, area.host_s_cet, area.host_ssp, area.host_table)
    if not all(0 <= x < 1 << 64 for x in words) or not v.asked.lm:
        return False
    has = v.shstk or v.ibt
    if not has and (area.load or area.load_host or area.cet or area.host_cet):
        return False
    if state.host.vendor == "amd":
        return v.shstk and (not area.clean or (words[:3] == v.area and not v.refused))
    return not area.clean


def _restorable(state: State, v: Vcpu) -> bool:
    """Whether every value is one that userspace can read and write back, and CR0 and CR4 fit."""
    if v.cet and not v.wp:
        return False
    for msr, place in PLACE.items():
        value = v.regs[place]
        if value and (_lacks(state, v, msr) is not None or _refusal(state, v, msr, value, True)):
            return False
        if value and place in (U, S) and not is_canonical(base_of(value), state.host.width):
            return False
    return True


# -- the step


def step(state: State, op: Operation, env: Answers, profile: Profile) -> Outcomes:
    """What the specification allows `op` to do in `state`."""
    match op:
        case Rdmsr():
            return rdmsr(state, op)
        case Wrmsr():
            return wrmsr(state, op, profile)
        case Xrstors():
            return xrstors(state, op)
        case Xsaves():
            return xsaves(state, op)
        case Run():
            return run(state, op)
        case Leave():
            return leave(state, op)
        case Preempt() | Window() | Halt():
            return preempt(state, op)
        case HostTask():
            return Outcome(state, None, because=c.USER_STATE_IS_THE_TASKS)
        case KernelFpu():
            return Outcome(state, None, because=c.FPU_BALANCED)
        case Exit():
            return Outcome(state, None, because=c.NO_LOST_UPDATE)
        case WriteSsp() | ReadSsp():
            return ssp(state, op)
        case SetMsrs():
            return set_msrs(state, op, env, profile)
        case GetMsrs():
            return get_msrs(state, op, env)
        case SetOneReg():
            return set_one_reg(state, op, env, profile)
        case GetOneReg():
            return get_one_reg(state, op, env)
        case GetRegList():
            return get_reg_list(state, op, env)
        case MovCr0() | MovCr4():
            return mov_cr(state, op)
        case SetSregs():
            return set_sregs(state, op)
        case Init() | Reset() | GetMpState():
            return reset(state, op)
        case CpuidSize():
            return cpuid_size(state, op)
        case GetXsave() | SetXsave():
            return xsave(state, op)
        case Emulate():
            return emulate(state, op)
        case Smi():
            return smi(state, op)
        case Rsm():
            return rsm(state, op)
        case NestedEnter() | SetNestedState():
            return nested_enter(state, op, profile)
        case NestedExit():
            return nested_exit(state, op)
        case Vmread():
            return vmread(state, op)
        case Migrate():
            return migrate(state, op)
        case VendorInit():
            return vendor_init(state, op)
        case SupportedXss():
            because = c.XSS_AND_FEATURES_TOGETHER if state.host.xsaves else c.XSS_WITHIN_HARDWARE
            return Outcome(state, state.xss, because=because)
        case MsrIndexList():
            return Outcome(state, advertised(state), because=c.ADVERTISED_LIST)
        case NestedCapabilities():
            offered = state.host.vendor == "intel" and (state.shstk or state.ibt)
            return Outcome(state, offered, because=c.NESTED_CAPS_LAST)
        case Create() | Destroy() | SetCpuid() | SetFilter():
            return configure(state, op, env)
        case _:
            assert_never(op)


def _vcpu(state: State, slot: int) -> Vcpu:
    vcpu = state.vcpus[slot]
    assert vcpu is not None
    return vcpu


def _with(state: State, slot: int, vcpu: Vcpu | None) -> State:
    vcpus = state.vcpus
    new = (*vcpus[:slot], vcpu, *vcpus[slot + 1 :])
    return State(
        state.host,
        state.shstk,
        state.ibt,
        state.xss,
        state.ready,
        new,
        state.ignore_msrs,
        state.exact,
        state.reloaded,
        state.ghosts,
    )


def _crossed(state: State, slot: int) -> State:
    """The other vCPU's registers may have been displaced by this one's."""
    other = state.vcpus[1 - slot]
    if other is None or not other.live or other.since == CROSSED or other.origin in (FRESH, HOST, SUCCESSOR):
        return state
    return _with(state, 1 - slot, replace(other, since=CROSSED))


def _written(v: Vcpu, place: int, value: int, origin: int) -> Vcpu:
    """One register has a new value."""
    return replace(
        v,
        regs=_put(v.regs, place, value),
        origin=origin,
        place=place,
        over=v.regs[place] != value,
        since=UNTOUCHED,
    )


def _put(regs: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*regs[:place], value, *regs[place + 1 :])


# -- the module and the vCPUs


def vendor_init(state: State, op: VendorInit) -> Outcome:
    """Load the module: (result, SHSTK, IBT)."""
    host = op.host
    if host.s_cet >> k.SH_STK_EN & 1:
        new = State(host, False, False, 0, False, state.vcpus, state.ignore_msrs, state.exact, True)
        return Outcome(new, (-k.EIO, False, False), because=c.HOST_SHADOW_STACK_REFUSED)
    shstk, ibt, xss, because = capabilities(host)
    if host.s_cet:
        because = c.HOST_SHADOW_STACK_REFUSED
    new = State(host, shstk, ibt, xss, True, state.vcpus, state.ignore_msrs, state.exact, True)
    return Outcome(new, (0, shstk, ibt), because=because)


def configure(state: State, op: Create | Destroy | SetCpuid | SetFilter, env: Answers) -> Outcomes:
    """Create and destroy vCPUs, set their CPUID and the MSR filter.

    Returns:
        0        done
        -ENOMEM  no fpstate; no vCPU was created
        -EINVAL  another CPUID after the first run; 0 if it differs only in what KVM does not give anyway
    """
    match op:
        case Create(slot, cpuid):
            if env.alloc_guest_fpstate:
                return Outcome(state, -k.ENOMEM, because=c.ANSWERS)
            new = replace(new_vcpu(state, cpuid), origin=SUCCESSOR if state.ghosts else FRESH)
            return Outcome(_with(state, slot, new), 0, because=c.DESTROYED_LEAVES_NOTHING)
        case Destroy(slot):
            ghosts = state.ghosts or any(_vcpu(state, slot).regs)
            return Outcome(replace(_with(state, slot, None), ghosts=ghosts), None, because=c.DESTROYED_LEAVES_NOTHING)
        case SetCpuid(slot, cpuid):
            v = _vcpu(state, slot)
            if v.ran and cpuid != v.asked:
                refused = Outcome(state, -k.EINVAL, because=c.FILTER_INTERCEPTS)
                same = _given(state, cpuid) == _given(state, v.asked)
                return (refused, replace(refused, result=0)) if same else refused
            if cpuid == v.asked:
                return Outcome(state, 0, because=c.FILTER_INTERCEPTS)
            new = replace(new_vcpu(state, cpuid), denied=v.denied, wp=v.wp, area=v.area, smram=v.smram)
            return Outcome(_with(state, slot, new), 0, because=c.FILTER_INTERCEPTS)
        case SetFilter(slot, denied):
            new = replace(_vcpu(state, slot), denied=denied)
            return Outcome(_with(state, slot, new), None, because=c.FILTER_INTERCEPTS)


# -- running


def run(state: State, op: Run) -> Outcome:
    """Begin to run; the values are those of before."""
    v = _vcpu(state, op.vcpu)
    new = _with(_crossed(state, op.vcpu), op.vcpu, replace(v, live=True, ran=True))
    return Outcome(new, None, because=c.NO_LOST_UPDATE)


def leave(state: State, op: Leave) -> Outcome:
    """Return to userspace; the values stay."""
    v = _vcpu(state, op.vcpu)
    bypassed = v.origin == XRSTORS and v.since == UNTOUCHED
    new = replace(v, live=False, since=SWITCHED if bypassed else v.since)
    return Outcome(_with(state, op.vcpu, new), None, because=c.NO_LOST_UPDATE)


def preempt(state: State, op: Preempt | Window | Halt) -> Outcome:
    """Being scheduled out and in changes nothing."""
    v = _vcpu(state, op.vcpu)
    because = c.HALT_IS_PREEMPTION if isinstance(op, Halt) else c.NO_LOST_UPDATE
    if not v.live:
        since = WINDOW
    elif op.cpu:
        since = MOVED
    else:
        since = HALTED if isinstance(op, Halt) else SWITCHED
    if since == v.since:
        return Outcome(state, None, because=because)
    return Outcome(_with(state, op.vcpu, replace(v, since=since)), None, because=because, also=_ATOMIC)


_ATOMIC = (c.SAVE_IS_ATOMIC,)


# -- accesses to MSRs


def _lacks(state: State, v: Vcpu, msr: int) -> Clause | None:
    """The clause by which this vCPU does not have the MSR; None if it has it."""
    if msr in k.CONTROL_MSRS:
        return None if v.shstk or v.ibt else c.CET_NEITHER_FEATURE
    if msr in k.POINTER_MSRS or msr == k.INTERNAL_GUEST_SSP:
        return None if v.shstk else c.SSP_NEEDS_SHSTK
    if msr == k.INT_SSP_TAB:
        if not v.shstk:
            return c.SSP_NEEDS_SHSTK
        return None if v.asked.lm and state.host.lm else c.TABLE_NEEDS_LM
    if msr == k.XSS:
        return None if v.asked.xsaves and state.host.xsaves else c.XSS_WRITE
    return c.FAILED_READ_GIVES_ZERO


def _refusal(state: State, v: Vcpu, msr: int, value: int, base_aligned: bool) -> Clause | None:
    """The clause by which KVM refuses this value for an MSR the vCPU has; None if none does."""
    if msr in k.CONTROL_MSRS:
        return control_refusal(value, v.shstk, v.ibt, base_aligned)
    if msr == k.INT_SSP_TAB:
        return None if is_canonical(value, state.host.width) else c.SSP_CANONICAL
    if msr == k.XSS:
        return c.XSS_WRITE if value & ~v.xss else None
    return pointer_refusal(value, state.host.width)


def _survival(v: Vcpu, place: int, *, host: bool = False, emulated: bool = False) -> Clause:
    """The clause by which this register has its value now."""
    origin = v.origin
    if v.since != UNTOUCHED and origin != RESET:
        return c.BYPASSING_WRITES_ARE_SAVED if origin == XRSTORS else SURVIVED[v.since]
    if origin in (GUEST, EMULATED_WRITE, HOST):
        if place != v.place:
            return c.POINTERS_INDEPENDENT
        if origin == HOST:
            return c.LAST_ACCEPTED_VALUE if host else c.HOST_WRITE_REACHES_GUEST
        if host:
            return c.HOST_READS_GUEST_VALUE if v.regs[place] else c.ZERO_IS_A_VALUE
        if emulated != (origin == EMULATED_WRITE):
            return c.INTERCEPTED_ACTS_ON_LIVE
        return c.LAST_ACCEPTED_VALUE if v.regs[place] else c.ZERO_IS_A_VALUE
    if origin == XRSTORS and host:
        return c.HOST_READS_GUEST_VALUE
    if origin in (NESTED, VMRUN):
        return _nested_survival(v, place)
    return ORIGINS[origin]


def _nested_survival(v: Vcpu, place: int) -> Clause:
    if place not in (S, TABLE, SSP):
        return c.NESTING_KEEPS_USER_STATE
    if v.origin == VMRUN:
        return c.VMRUN_SWITCHES
    return c.L1_RESUMES if v.l2 is None else c.L2_STARTS


def rdmsr(state: State, op: Rdmsr) -> Outcome:
    """The guest reads an MSR.

    Returns:
        (0, value)  the last value, however it was written and whatever happened since
        (1, 0)      #GP: absent, filtered, or KVM's own
    """
    v, msr = _vcpu(state, op.vcpu), op.msr
    if msr == k.INTERNAL_GUEST_SSP:
        return Outcome(state, (1, 0), because=c.INTERNAL_MSR_HIDDEN)
    if msr in v.denied:
        return Outcome(state, (1, 0), because=c.FILTER_INTERCEPTS)
    lacks = _lacks(state, v, msr)
    if lacks is not None:
        if msr == k.XSS:
            return Outcome(state, (1, 0), because=c.XSS_READ)
        if state.ignore_msrs:
            return Outcome(state, (0, 0), because=c.IGNORED_MSRS_HAVE_NO_STATE)
        return Outcome(state, (1, 0), because=lacks)
    place = PLACE[msr]
    because = _survival(v, place, emulated=op.emulated)
    also = _CONTROL_READ if place < 2 else _READ
    return Outcome(state, (0, v.regs[place]), because=because, also=also)


_READ = (c.LAST_ACCEPTED_VALUE, c.PASSED_READS_ARE_LOADED)
_CONTROL_READ = (*_READ, c.CET_ONE_FEATURE)


def wrmsr(state: State, op: Wrmsr, profile: Profile) -> Outcomes:
    """The guest writes an MSR. 0, or 1 for #GP, with nothing changed.

    A write that is passed through is judged by the processor with the host's features;
    the others by KVM with the vCPU's. Where a profile leaves interception open, both may be.
    """
    v, msr, value = _vcpu(state, op.vcpu), op.msr, op.value
    if msr == k.INTERNAL_GUEST_SSP:
        return Outcome(state, 1, because=c.INTERNAL_MSR_HIDDEN)
    if msr in v.denied:
        return Outcome(state, 1, because=c.FILTER_INTERCEPTS)
    lacks = _lacks(state, v, msr)
    if lacks is not None:
        if state.ignore_msrs:
            return Outcome(state, 0, because=c.IGNORED_MSRS_HAVE_NO_STATE)
        return Outcome(state, 1, because=lacks)
    refusal = _refusal(state, v, msr, value, profile.base_aligned)
    new = _with(
        _crossed(state, op.vcpu),
        op.vcpu,
        _written(v, PLACE[msr], value, EMULATED_WRITE if op.emulated else GUEST),
    )
    stored = Outcome(new, 0, because=_STORED[msr], also=_enabling(v, msr))
    if msr not in k.CONTROL_MSRS:
        return stored if refusal is None else Outcome(state, 1, because=refusal)
    passed = (
        stored if _hardware_takes(state.host, value) else Outcome(state, 1, because=refusal or c.CET_BASE_CANONICAL)
    )
    if state.exact and not op.emulated:
        return passed
    judged = _judged(state, stored, value, refusal)
    if op.emulated or judged == (passed,):
        return judged
    return (passed, *judged)


def _judged(state: State, stored: Outcome, value: int, refusal: Clause | None) -> tuple[Outcome, ...]:
    """What KVM's own check of U_CET or S_CET may say: a bad base should be refused, but need not be."""
    if refusal is not None:
        return (Outcome(state, 1, because=refusal),)
    if is_canonical(base_of(value), state.host.width):
        return (stored,)
    tolerated = replace(stored, breaches=(c.CET_BASE_CANONICAL,))
    return (Outcome(state, 1, because=c.CET_BASE_CANONICAL), tolerated)


_STORED = {
    **dict.fromkeys(k.CONTROL_MSRS, c.CET_ONE_FEATURE),
    **dict.fromkeys(k.POINTER_MSRS, c.SSP_ALIGNED),
    k.INT_SSP_TAB: c.TABLE_UNALIGNED,
    k.XSS: c.XSS_WRITE,
}


def _enabling(v: Vcpu, msr: int) -> tuple[Clause, ...]:
    """Counts the two orders of writing pointers and enabling shadow stacks."""
    if (msr in k.POINTER_MSRS and v.regs[S] >> k.SH_STK_EN & 1) or msr == k.S_CET:
        return (c.NO_ORDER_WITH_ENABLE,)
    return (c.XSS_NEVER_FAULTS,) if msr == k.XSS else ()


def xrstors(state: State, op: Xrstors) -> Outcome:
    """The guest restores a component, without an exit. 0, or 1 for #GP where XSS lacks the bit."""
    v = _vcpu(state, op.vcpu)
    because = _enabled_by(v)
    if not v.regs[XSS] >> op.component & 1:
        return Outcome(state, 1, because=because)
    regs = v.regs
    places = COMPONENTS[op.component]
    for place, value in zip(places, op.words or (0,) * len(places), strict=True):
        regs = _put(regs, place, value)
    new = _with(_crossed(state, op.vcpu), op.vcpu, replace(v, regs=regs, origin=XRSTORS, since=UNTOUCHED))
    return Outcome(new, 0, because=because)


def _enabled_by(v: Vcpu) -> Clause:
    """The clause by which XSS enables a component or not."""
    return ORIGINS[v.origin] if v.origin in (RESET, MIGRATED) else c.XSS_WRITE


def xsaves(state: State, op: Xsaves) -> Outcome:
    """The guest saves a component, without an exit."""
    v = _vcpu(state, op.vcpu)
    if not v.regs[XSS] >> op.component & 1:
        return Outcome(state, None, because=_enabled_by(v))
    words = tuple(v.regs[place] for place in COMPONENTS[op.component])
    return Outcome(state, words, because=_survival(v, COMPONENTS[op.component][0]), also=_READ)


def ssp(state: State, op: WriteSsp | ReadSsp) -> Outcome:
    """The guest moves or reads SSP, without an exit."""
    v = _vcpu(state, op.vcpu)
    if isinstance(op, ReadSsp):
        return Outcome(state, v.regs[SSP], because=_survival(v, SSP))
    new = _written(v, SSP, op.value, GUEST)
    return Outcome(_with(state, op.vcpu, new), None, because=c.LAST_ACCEPTED_VALUE)


def _host_read(state: State, v: Vcpu, msr: int) -> tuple[bool, int, Clause]:
    """A host-initiated read: whether it succeeds, its value, and the clause that says so."""
    lacks = _lacks(state, v, msr)
    if msr == k.XSS:
        return True, v.regs[XSS], _survival(v, XSS, host=True) if v.regs[XSS] or v.origin == RESET else c.XSS_READ
    if lacks is None:
        place = PLACE[msr]
        return True, v.regs[place], _survival(v, place, host=True)
    if msr in advertised(state):
        return True, 0, c.ADVERTISED_BUT_ABSENT
    if state.ignore_msrs:
        return True, 0, c.IGNORED_MSRS_HAVE_NO_STATE
    return False, 0, c.FAILED_READ_GIVES_ZERO


def _host_write(state: State, v: Vcpu, msr: int, value: int, base_aligned: bool) -> tuple[Vcpu | None, Clause, bool]:
    """A host-initiated write: the vCPU afterwards or None, the clause, and whether it may be tolerated."""
    lacks = _lacks(state, v, msr)
    if lacks is not None:
        if value == 0 and msr in advertised(state):
            return v, c.ADVERTISED_BUT_ABSENT, False
        if state.ignore_msrs:
            return v, c.IGNORED_MSRS_HAVE_NO_STATE, False
        return None, c.ADVERTISED_BUT_ABSENT if msr in advertised(state) else lacks, False
    refusal = _refusal(state, v, msr, value, base_aligned)
    if refusal is not None:
        return None, refusal, False
    new = _written(v, PLACE[msr], value, HOST)
    bad_base = msr in k.CONTROL_MSRS and not is_canonical(base_of(value), state.host.width)
    return new, c.CET_BASE_CANONICAL if bad_base else c.HOST_WRITE_REACHES_GUEST, bad_base


def get_msrs(state: State, op: GetMsrs, env: Answers) -> Outcome:
    """KVM_GET_MSRS.

    Returns:
        (n, values)    the entries before the first that failed, all if none did
        (-E2BIG, ())   256 entries or more
        (-EFAULT, ())  a bad user pointer
    """
    if env.copy_from_user:
        return Outcome(state, (-k.EFAULT, ()), because=c.BATCH_STOPS_AT_FAILURE)
    if len(op.indices) >= k.MAX_MSR_ENTRIES:
        return Outcome(state, (-k.E2BIG, ()), because=c.BATCH_LIMIT)
    if env.copy_to_user:
        return Outcome(state, (-k.EFAULT, ()), because=c.BATCH_STOPS_AT_FAILURE)
    v = _vcpu(state, op.vcpu)
    values: list[int] = []
    because = c.BATCH_STOPS_AT_FAILURE
    for msr in op.indices:
        succeeded, value, clause = _host_read(state, v, msr)
        if not values or PLACE.get(msr) == v.place:
            because = clause
        if not succeeded:
            return Outcome(state, (len(values), tuple(values)), because=clause, also=_STOPPED)
        values.append(value)
    return Outcome(state, (len(values), tuple(values)), because=because, also=_HOST_READ)


_STOPPED = (c.BATCH_STOPS_AT_FAILURE, c.FAILED_READ_GIVES_ZERO)
_HOST_READ = (c.HOST_READS_GUEST_VALUE,)


def set_msrs(state: State, op: SetMsrs, env: Answers, profile: Profile) -> Outcomes:
    """KVM_SET_MSRS.

    Returns:
        n        entries stored, up to the first that was refused
        -E2BIG   256 entries or more, none stored
        -EFAULT  a bad user pointer, none stored
    """
    if env.copy_from_user:
        return Outcome(state, -k.EFAULT, because=c.BATCH_STOPS_AT_FAILURE)
    if len(op.entries) >= k.MAX_MSR_ENTRIES:
        return Outcome(state, -k.E2BIG, because=c.BATCH_LIMIT)
    stopped: list[Outcome] = []
    v = _vcpu(state, op.vcpu)
    because, tolerated = c.BATCH_STOPS_AT_FAILURE, False
    for n, (msr, value) in enumerate(op.entries):
        new, clause, bad_base = _host_write(state, v, msr, value, profile.base_aligned)
        because = clause if n == 0 else c.BATCH_STOPS_AT_FAILURE
        if new is None or bad_base:
            breaches = (c.CET_BASE_CANONICAL,) if tolerated else ()
            stopped.append(_stored(state, op.vcpu, v, n, because, breaches))
        if new is None:
            return tuple(stopped)
        v, tolerated = new, tolerated or bad_base
    breaches = (c.CET_BASE_CANONICAL,) if tolerated else ()
    done = _stored(state, op.vcpu, v, len(op.entries), because, breaches)
    return (*stopped, done) if stopped else done


def _stored(state: State, slot: int, v: Vcpu, n: int, because: Clause, breaches: tuple[Clause, ...]) -> Outcome:
    return Outcome(_with(state, slot, v), n, because=because, also=_HOST_WRITE, breaches=breaches)


_HOST_WRITE = (c.HOST_VALUES_CHECKED,)


def set_one_reg(state: State, op: SetOneReg, env: Answers, profile: Profile) -> Outcomes:
    """KVM_SET_ONE_REG.

    Returns:
        0        stored
        -EINVAL  a bad id, a register the vCPU lacks, or a value refused
        -EFAULT  a good id and a bad user pointer
    """
    v, msr = _vcpu(state, op.vcpu), one_reg_msr(op.reg)
    if msr is None or (msr == k.INTERNAL_GUEST_SSP and not v.shstk):
        return Outcome(state, -k.EINVAL, because=c.ONE_REG_ID)
    if env.copy_from_user:
        return Outcome(state, -k.EFAULT, because=c.ONE_REG_ID)
    clause = c.GUEST_SSP_REGISTER if msr == k.INTERNAL_GUEST_SSP else c.ONE_REG_IS_HOST_ACCESS
    new, _, bad_base = _host_write(state, v, msr, op.value, profile.base_aligned)
    refused = Outcome(state, -k.EINVAL, because=clause)
    if new is None:
        return refused
    stored = Outcome(_with(state, op.vcpu, new), 0, because=clause)
    return (refused, replace(stored, breaches=(c.CET_BASE_CANONICAL,))) if bad_base else stored


def get_one_reg(state: State, op: GetOneReg, env: Answers) -> Outcome:
    """KVM_GET_ONE_REG.

    Returns:
        (0, value)    the register
        (-EINVAL, 0)  a bad id, or a register the vCPU lacks
        (-EFAULT, 0)  a bad user pointer
    """
    v, msr = _vcpu(state, op.vcpu), one_reg_msr(op.reg)
    if msr is None or (msr == k.INTERNAL_GUEST_SSP and not v.shstk):
        return Outcome(state, (-k.EINVAL, 0), because=c.ONE_REG_ID)
    succeeded, value, clause = _host_read(state, v, msr)
    if not succeeded:
        return Outcome(state, (-k.EINVAL, 0), because=c.ONE_REG_IS_HOST_ACCESS)
    if env.copy_to_user:
        return Outcome(state, (-k.EFAULT, 0), because=c.ONE_REG_ID)
    if v.origin in (FRESH, HOST) and v.since == UNTOUCHED:
        clause = c.GUEST_SSP_REGISTER if msr == k.INTERNAL_GUEST_SSP else c.ONE_REG_IS_HOST_ACCESS
    also = (c.GUEST_SSP_REGISTER,) if msr == k.INTERNAL_GUEST_SSP else (c.ONE_REG_IS_HOST_ACCESS,)
    return Outcome(state, (0, value), because=clause, also=also)


def get_reg_list(state: State, op: GetRegList, env: Answers) -> Outcome:
    """KVM_GET_REG_LIST: (result, count, ids); a bad user pointer leaves count and ids open."""
    if env.copy_from_user or env.copy_to_user:
        return Outcome(state, (-k.EFAULT, 0, ()), because=c.REG_LIST)
    ids = (k.ONE_REG_GUEST_SSP,) if _vcpu(state, op.vcpu).shstk else ()
    if op.n < len(ids):
        return Outcome(state, (-k.E2BIG, len(ids), ()), because=c.REG_LIST)
    return Outcome(state, (0, len(ids), ids), because=c.REG_LIST)


# -- control registers, reset, XSAVE, the emulator


def mov_cr(state: State, op: MovCr0 | MovCr4) -> Outcome:
    """The guest changes CR0.WP or CR4.CET. 0, or 1 for #GP with nothing changed."""
    v = _vcpu(state, op.vcpu)
    wp = op.wp if isinstance(op, MovCr0) else v.wp
    cet = op.cet if isinstance(op, MovCr4) else v.cet
    if cet and not (v.shstk or v.ibt):
        return Outcome(state, 1, because=c.CR4_CET_RESERVED, effect=c.CR4_CET_RESERVED)
    if cet and not wp:
        clause = c.WP_HELD_BY_CET if isinstance(op, MovCr0) else c.CET_NEEDS_WP
        return Outcome(state, 1, because=clause, effect=clause)
    since = TOGGLED if cet != v.cet else v.since
    clause = c.WP_HELD_BY_CET if isinstance(op, MovCr0) else c.CET_NEEDS_WP
    also = (c.CR4_CET_RESERVED,) if isinstance(op, MovCr4) else ()
    new = replace(v, wp=wp, cet=cet, since=since)
    return Outcome(_with(state, op.vcpu, new), 0, because=clause, effect=clause, also=also)


def set_sregs(state: State, op: SetSregs) -> Outcomes:
    """KVM_SET_SREGS. 0, or -EINVAL with nothing changed."""
    v = _vcpu(state, op.vcpu)
    if op.cet and not (v.shstk or v.ibt):
        return Outcome(state, -k.EINVAL, because=c.CR4_CET_RESERVED, effect=c.CR4_CET_RESERVED)
    new = replace(v, wp=op.wp, cet=op.cet, since=TOGGLED if op.cet != v.cet else v.since)
    stored = Outcome(_with(state, op.vcpu, new), 0, because=c.SREGS_PAIR)
    if op.cet and not op.wp:
        return (Outcome(state, -k.EINVAL, because=c.SREGS_PAIR), stored)
    return replace(stored, because=c.CR4_CET_RESERVED)


def reset(state: State, op: Init | Reset | GetMpState) -> Outcomes:
    """INIT and RESET clear everything; INIT keeps XSS.

    An INIT that KVM_GET_MP_STATE leaves pending is processed by a KVM_RUN, which freezes the CPUID.
    """
    v = _vcpu(state, op.vcpu)
    result = 0 if isinstance(op, GetMpState) else None
    if isinstance(op, GetMpState) and not op.init:
        return Outcome(state, result, because=c.INIT_ANYWHERE)
    xss = 0 if isinstance(op, Reset) else v.regs[XSS]
    new = replace(
        v,
        regs=_put(ZEROS, XSS, xss),
        wp=False,
        cet=False,
        origin=RESET,
        over=any(v.regs),
        since=UNTOUCHED,
        dead=False,
    )
    because = c.RESET_CLEARS if isinstance(op, Reset) else c.INIT_ANYWHERE
    done = Outcome(_with(state, op.vcpu, new), result, because=because, effect=c.RESET_CLEARS)
    if isinstance(op, GetMpState) and not v.ran:
        return (done, replace(done, state=_with(state, op.vcpu, replace(new, ran=True))))
    return done


def cpuid_size(state: State, op: CpuidSize) -> Outcome:
    """CPUID.(0xD,1):EBX follows XSS."""
    return Outcome(state, xsaves_size(_vcpu(state, op.vcpu).regs[XSS]), because=c.XSS_WRITE)


def xsave(state: State, op: GetXsave | SetXsave) -> Outcomes:
    """KVM_GET_XSAVE holds no CET component; KVM_SET_XSAVE of one is refused or ignored."""
    if isinstance(op, GetXsave):
        return Outcome(state, False, because=c.XSAVE_IMAGE_IS_USERS)
    taken = Outcome(state, 0, because=c.XSAVE_IMAGE_IS_USERS)
    if op.component not in COMPONENTS:
        return taken
    return (replace(taken, result=-k.EINVAL), taken)


def emulate(state: State, op: Emulate) -> Outcomes:
    """The emulator refuses what active CET affects, and does the rest."""
    v = _vcpu(state, op.vcpu)
    done = Outcome(state, k.EMULATED, because=c.EMULATOR_REFUSES)
    refused = Outcome(state, k.UNHANDLEABLE, because=c.EMULATOR_REFUSES)
    here, there = (v.regs[U], v.regs[S]) if op.user else (v.regs[S], v.regs[U])
    shstk, ibt = v.cet and here >> k.SH_STK_EN & 1, v.cet and here >> k.ENDBR_EN & 1
    elsewhere = v.cet and (there >> k.SH_STK_EN | there >> k.ENDBR_EN) & 1
    match op.instruction:
        case "ret":
            return refused if shstk else done
        case "indirect_jmp":
            return refused if ibt else done
        case "indirect_call":
            return refused if shstk or ibt else done
        case "task_switch":
            if shstk or ibt:
                return refused
            return (done, refused) if elsewhere else done
        case "far_jmp":
            if shstk and v.regs[SSP] >> 32:
                done = Outcome(state, k.EMULATED_GP, because=c.EMULATOR_REFUSES)
            return (done, refused) if ibt else done
        case _:
            return done


# -- SMM


def smi(state: State, op: Smi) -> Outcomes:
    """Enter SMM: SSP goes to SMRAM if the vCPU has one, CR4.CET is cleared.

    Without SHSTK nothing is stored, but who fills the whole map at once leaves a zero there.
    """
    v = _vcpu(state, op.vcpu)
    smram = v.regs[SSP] if v.shstk else v.smram
    new = replace(v, smm=(v.wp, v.cet), smram=smram, cet=False, origin=SMM, since=UNTOUCHED)
    done = Outcome(_with(state, op.vcpu, new), None, because=c.SSP_THROUGH_SMRAM, also=(c.SMM_CLEARS_CR4,))
    if v.shstk or not v.smram:
        return done
    return (done, replace(done, state=_with(state, op.vcpu, replace(new, smram=0))))


def rsm(state: State, op: Rsm) -> Outcome:
    """Leave SMM: SSP and the control registers come back. 0, or 1 to shut down on a bad SSP."""
    v = _vcpu(state, op.vcpu)
    assert v.smm is not None
    slot = v.smram if op.ssp is None else op.ssp
    wp, cet = v.smm
    if v.shstk and pointer_refusal(slot, state.host.width):
        dead = replace(v, smm=None, smram=slot, dead=True)
        return Outcome(_with(state, op.vcpu, dead), 1, because=c.SSP_THROUGH_SMRAM)
    regs = _put(v.regs, SSP, slot) if v.shstk else v.regs
    new = replace(v, regs=regs, smm=None, smram=slot, wp=wp, cet=cet, origin=SMM, since=UNTOUCHED)
    return Outcome(_with(state, op.vcpu, new), 0, because=c.SSP_THROUGH_SMRAM, effect=c.SMM_CLEARS_CR4)


# -- nesting


def _entry_refusal(state: State, v: Vcpu, area: Area, base_aligned: bool) -> tuple[int, Clause] | None:
    """How and why an entry to L2 fails; None if it does not."""
    if state.host.vendor == "amd":
        bad = control_refusal(area.s_cet, v.shstk, v.ibt, base_aligned) or (area.cet and not area.wp)
        return (k.VMEXIT_INVALID, c.VMRUN_CHECKS) if bad else None
    width = state.host.width
    if area.host_cet and not area.host_wp:
        return k.VMFAIL_HOST_STATE, c.NESTED_CR_PAIR
    if area.load_host and not _host_area_valid(v, area, width, base_aligned):
        return k.VMFAIL_HOST_STATE, c.NESTED_HOST_AREA
    if area.cet and not area.wp:
        return k.INVALID_GUEST_STATE, c.NESTED_CR_PAIR
    if area.load and not _guest_area_valid(v, area, width, base_aligned):
        return k.INVALID_GUEST_STATE, c.NESTED_GUEST_AREA
    return None


def _host_area_valid(v: Vcpu, area: Area, width: int, base_aligned: bool) -> bool:
    if control_refusal(area.host_s_cet, v.shstk, v.ibt, base_aligned) or area.host_ssp % 4:
        return False
    if not is_canonical(area.host_table, width):
        return False
    if area.host_64:
        return is_canonical(area.host_s_cet, width) and is_canonical(area.host_ssp, width)
    return not area.host_s_cet >> 32 and not area.host_ssp >> 32


def _guest_area_valid(v: Vcpu, area: Area, width: int, base_aligned: bool) -> bool:
    return (
        control_refusal(area.s_cet, v.shstk, v.ibt, base_aligned) is None
        and area.ssp % 4 == 0
        and is_uniform_above(area.ssp, width)
        and is_canonical(area.table, width)
    )


def nested_enter(state: State, op: NestedEnter | SetNestedState, profile: Profile) -> Outcome:
    """L1 enters L2, or userspace restores a vCPU that is in it.

    Returns one of `ENTERED`, `VMFAIL_HOST_STATE`, `INVALID_GUEST_STATE`, `VMEXIT_INVALID`.
    """
    v, area = _vcpu(state, op.vcpu), op.area
    amd = state.host.vendor == "amd"
    entering = isinstance(op, NestedEnter)
    words = (area.s_cet, area.ssp, area.table)
    written = replace(v, area=words)
    refusal = _entry_refusal(state, v, area, profile.base_aligned)
    if refusal is not None:
        return Outcome(_with(state, op.vcpu, replace(written, refused=True)), refusal[0], because=refusal[1])
    regs = v.regs
    if entering and (amd or area.load):
        regs = _switched(v, words)
    back = (v.regs[S], v.regs[SSP], v.regs[TABLE]) if amd else (area.host_s_cet, area.host_ssp, area.host_table)
    l2 = L2(
        regs=back,
        restores=amd or area.load_host,
        wp=v.wp if amd else area.host_wp,
        cet=v.cet if amd else area.host_cet,
        intercepts=area.intercepts,
        entered=entering,
    )
    cet, wp = (area.cet, area.wp) if entering else (v.cet, v.wp)
    new = replace(
        written, regs=regs, wp=wp, cet=cet, l2=l2, refused=False, origin=VMRUN if amd else NESTED, since=UNTOUCHED
    )
    because = c.VMRUN_SWITCHES if amd else _accepted(area)
    return Outcome(_with(state, op.vcpu, new), k.ENTERED, because=because, also=_ENTRY[amd])


def _accepted(area: Area) -> Clause:
    """The clause that an entry refused for no reason breaks: that of the area whose values are out of the ordinary."""
    if area.load_host and (area.host_s_cet >> 6 or area.host_ssp % 8 or (area.host_ssp | area.host_table) >> 47):
        return c.NESTED_HOST_AREA
    if area.load and (area.s_cet >> 6 or area.ssp % 8 or (area.ssp | area.table) >> 47):
        return c.NESTED_GUEST_AREA
    return c.L2_STARTS


_ENTRY = {True: (c.VMRUN_CHECKS,), False: (c.NESTED_HOST_AREA, c.NESTED_GUEST_AREA, c.L2_STARTS)}


def _switched(v: Vcpu, words: tuple[int, int, int]) -> tuple[int, ...]:
    """S_CET, SSP and table as far as the vCPU has them."""
    regs = v.regs
    if v.shstk or v.ibt:
        regs = _put(regs, S, words[0])
    if v.shstk:
        regs = _put(_put(regs, SSP, words[1]), TABLE, words[2])
    return regs


def nested_exit(state: State, op: NestedExit) -> Outcome:
    """L2's values go to the guest area; L1 gets the host area's, its own, or L2's."""
    v = _vcpu(state, op.vcpu)
    l2 = v.l2
    assert l2 is not None
    stored = (
        v.regs[S] if v.shstk or v.ibt else v.area[0],
        v.regs[SSP] if v.shstk else v.area[1],
        v.regs[TABLE] if v.shstk else v.area[2],
    )
    regs = _switched(v, l2.regs) if l2.restores else v.regs
    amd = state.host.vendor == "amd"
    origin = VMRUN if amd else NESTED
    new = replace(v, regs=regs, area=stored, wp=l2.wp, cet=l2.cet, l2=None, origin=origin, since=UNTOUCHED)
    because = c.VMRUN_SWITCHES if amd else c.L2_STORED
    return Outcome(_with(state, op.vcpu, new), None, because=because)


def vmread(state: State, op: Vmread) -> Outcomes:
    """L1 reads a CET field of vmcs12: fails without the hardware, works with hardware and feature."""
    v = _vcpu(state, op.vcpu)
    failed = Outcome(state, (1, 0), because=c.VMCS12_FIELDS_ABSENT)
    place = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE).index(op.field)
    value = Outcome(state, (0, v.area[place]), because=c.VMCS12_FIELDS_ABSENT)
    host = state.host
    if not (host.load_cet_entry and host.load_cet_exit) or not (host.shstk or host.ibt):
        return failed
    return value if v.shstk else (value, failed)


def migrate(state: State, op: Migrate) -> Outcome:
    """A fresh vCPU with everything that was saved and restored; True if every call succeeded."""
    v = _vcpu(state, op.vcpu)
    fresh = new_vcpu(state, v.asked)
    new = replace(fresh, regs=v.regs, wp=v.wp, cet=v.cet, origin=MIGRATED, since=UNTOUCHED, area=v.area, smram=v.smram)
    return Outcome(_with(state, op.vcpu, new), True, because=c.MIGRATION_ROUND_TRIP)


# -- view


@dataclass(frozen=True, slots=True)
class View:
    """What hardware and memory show after a step; all but the first by slot, None where nothing is demanded."""

    s_cet: tuple[int, ...]
    """S_CET of each physical CPU, with no guest running."""
    crs: tuple[tuple[bool, bool] | None, ...]
    """CR0.WP and CR4.CET."""
    smram: tuple[int | None, ...]
    """The SSP slot."""
    area: tuple[tuple[int, int, int] | None, ...]
    """S_CET, SSP and table in vmcs12 or vmcb12, outside L2."""


VIEW_CLAUSES: dict[str, Clause] = {
    "s_cet": c.S_CET_IS_THE_HOSTS,
    "crs": c.CET_NEEDS_WP,
    "smram": c.SSP_THROUGH_SMRAM,
    "area": c.L2_STORED,
}


def view(state: State) -> View:
    """What hardware and memory show."""
    crs: list[tuple[bool, bool] | None] = []
    smram: list[int | None] = []
    area: list[tuple[int, int, int] | None] = []
    for v in state.vcpus:
        crs.append(None if v is None or v.dead else (v.wp, v.cet))
        smram.append(None if v is None else v.smram)
        area.append(None if v is None or v.l2 is not None else v.area)
    return View((state.host.s_cet,) * CPUS, tuple(crs), tuple(smram), tuple(area))


def cite(state: State, op: Operation, field: str, _expected: View, _got: View) -> Clause | None:
    """A better clause than the view field's."""
    if isinstance(op, Smi | Rsm):
        return c.SMM_CLEARS_CR4 if field == "crs" else c.SSP_THROUGH_SMRAM if field == "smram" else None
    if field == "area" and state.host.vendor == "amd":
        return c.VMRUN_SWITCHES
    return None
