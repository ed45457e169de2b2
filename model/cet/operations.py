"""The worlds that traces start in, the operations, and what the environment may refuse."""

from __future__ import annotations

from dataclasses import dataclass


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
    """SVM: the guests' register state is encrypted; VMRUN and #VMEXIT switch XSS, not the hypervisor."""
    own_xss: int = 0
    """XSS that the host itself runs with, 0x800 where its tasks have shadow stacks of the kernel's making."""

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
    """MSRs whose accesses L1 intercepts; all of them, if it has no bitmap."""
    address: int = 0
    """SVM: which vmcb12 it is, 0 or 1."""


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

TRANSFERS = ("ret", "indirect_jmp", "indirect_call", "far_jmp", "task_switch")
"""Of the instructions that `Emulate` knows, those that go elsewhere; the far jump is one to compatibility mode."""
EMULATED = ("mov", *TRANSFERS)
"""Instructions `Emulate` knows."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals of the environment, 0 where it did not refuse."""

    alloc_guest_fpstate: int = 0
    copy_from_user: int = 0
    copy_to_user: int = 0


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
