"""The Hypothesis machine of `cet`: one thin rule per operation, values from the domains."""

from __future__ import annotations

from hypothesis.stateful import initialize, rule

from conformance.machines.base import Machine
from conformance.model.cet import operations as m
from conformance.model.step import Step
from conformance.strategies import cet as strategies


class CetMachine(Machine):
    """Drive a hypervisor's CET handling through running, ioctls, preemption, reset and nesting."""

    @initialize(config=strategies.configs())
    def start(self, config: m.Config) -> None:
        """Load the module on a host and create the vCPUs."""
        self.begin(config)

    @rule(op=strategies.operations(m.VendorInit))
    def vendor_init(self, op: m.VendorInit) -> None:
        """Load the module anew, on this host; once in a trace, while there is no vCPU."""
        self.take(op)

    @rule(op=strategies.operations(m.SupportedXss))
    def supported_xss(self, op: m.SupportedXss) -> None:
        """Read the CET bits of `kvm_caps.supported_xss`."""
        self.take(op)

    @rule(op=strategies.operations(m.MsrIndexList))
    def msr_index_list(self, op: m.MsrIndexList) -> None:
        """KVM_GET_MSR_INDEX_LIST."""
        self.take(op)

    @rule(op=strategies.operations(m.NestedCapabilities))
    def nested_capabilities(self, op: m.NestedCapabilities) -> None:
        """Whether nested VMX offers the load-CET controls."""
        self.take(op)

    @rule(op=strategies.operations(m.Create))
    def create(self, op: m.Create) -> None:
        """Create a vCPU in an empty slot and give it this CPUID."""
        self.take(op)

    @rule(op=strategies.operations(m.Destroy))
    def destroy(self, op: m.Destroy) -> None:
        """Destroy a vCPU that is in no ioctl."""
        self.take(op)

    @rule(op=strategies.operations(m.SetCpuid))
    def set_cpuid(self, op: m.SetCpuid) -> None:
        """KVM_SET_CPUID2."""
        self.take(op)

    @rule(op=strategies.operations(m.SetFilter))
    def set_filter(self, op: m.SetFilter) -> None:
        """KVM_X86_SET_MSR_FILTER: the guest may not access these MSRs."""
        self.take(op)

    @rule(op=strategies.operations(m.Run), during=strategies.preemptions())
    def run(self, op: m.Run, during: tuple[tuple[int, Step], ...]) -> None:
        """KVM_RUN up to the point at which the guest may run: vcpu_load, window, run_begin."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.Leave), during=strategies.preemptions())
    def leave(self, op: m.Leave, during: tuple[tuple[int, Step], ...]) -> None:
        """KVM_RUN returns to userspace: run_end, window, vcpu_put."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.Wrmsr), during=strategies.preemptions())
    def wrmsr(self, op: m.Wrmsr, during: tuple[tuple[int, Step], ...]) -> None:
        """The guest writes an MSR."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.Rdmsr), during=strategies.preemptions())
    def rdmsr(self, op: m.Rdmsr, during: tuple[tuple[int, Step], ...]) -> None:
        """The guest reads an MSR: (0, value), or (1, 0) for #GP."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.Xrstors))
    def xrstors(self, op: m.Xrstors) -> None:
        """The guest restores component 11 (U_CET, PL3_SSP) or 12 (PL0..PL2_SSP). 0, or 1 for #GP."""
        self.take(op)

    @rule(op=strategies.operations(m.Xsaves))
    def xsaves(self, op: m.Xsaves) -> None:
        """The guest saves component 11 or 12: its words, or None where XSS does not enable it."""
        self.take(op)

    @rule(op=strategies.operations(m.WriteSsp))
    def write_ssp(self, op: m.WriteSsp) -> None:
        """The guest moves SSP, as SETSSBSY, RSTORSSP or a CALL do."""
        self.take(op)

    @rule(op=strategies.operations(m.ReadSsp))
    def read_ssp(self, op: m.ReadSsp) -> None:
        """The guest reads SSP."""
        self.take(op)

    @rule(op=strategies.operations(m.CpuidSize))
    def cpuid_size(self, op: m.CpuidSize) -> None:
        """The guest reads CPUID.(0xD,1):EBX."""
        self.take(op)

    @rule(op=strategies.operations(m.MovCr0))
    def mov_cr0(self, op: m.MovCr0) -> None:
        """The guest changes CR0.WP. 0, or 1 for #GP."""
        self.take(op)

    @rule(op=strategies.operations(m.MovCr4))
    def mov_cr4(self, op: m.MovCr4) -> None:
        """The guest changes CR4.CET. 0, or 1 for #GP."""
        self.take(op)

    @rule(op=strategies.operations(m.Exit))
    def exit(self, op: m.Exit) -> None:
        """An exit that the kernel handles by itself, without any MSR."""
        self.take(op)

    @rule(op=strategies.operations(m.Halt))
    def halt(self, op: m.Halt) -> None:
        """HLT: the thread blocks in KVM_RUN and is woken on `cpu`."""
        self.take(op)

    @rule(op=strategies.operations(m.Preempt))
    def preempt(self, op: m.Preempt) -> None:
        """The vCPU's thread is scheduled out wherever it is, and in again on `cpu`."""
        self.take(op)

    @rule(op=strategies.operations(m.HostTask))
    def host_task(self, op: m.HostTask) -> None:
        """Another task runs in user mode on `cpu` for a while."""
        self.take(op)

    @rule(op=strategies.operations(m.KernelFpu))
    def kernel_fpu(self, op: m.KernelFpu) -> None:
        """A softirq on `cpu` uses the FPU."""
        self.take(op)

    @rule(op=strategies.operations(m.SetMsrs), during=strategies.preemptions())
    def set_msrs(self, op: m.SetMsrs, during: tuple[tuple[int, Step], ...]) -> None:
        """KVM_SET_MSRS: how many were processed, or an errno."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.GetMsrs), during=strategies.preemptions())
    def get_msrs(self, op: m.GetMsrs, during: tuple[tuple[int, Step], ...]) -> None:
        """KVM_GET_MSRS: how many were processed, or an errno, and the values."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.SetOneReg))
    def set_one_reg(self, op: m.SetOneReg) -> None:
        """KVM_SET_ONE_REG."""
        self.take(op)

    @rule(op=strategies.operations(m.GetOneReg))
    def get_one_reg(self, op: m.GetOneReg) -> None:
        """KVM_GET_ONE_REG: (0, value) or (errno, 0)."""
        self.take(op)

    @rule(op=strategies.operations(m.GetRegList))
    def get_reg_list(self, op: m.GetRegList) -> None:
        """KVM_GET_REG_LIST: result, count written back, ids."""
        self.take(op)

    @rule(op=strategies.operations(m.SetSregs))
    def set_sregs(self, op: m.SetSregs) -> None:
        """KVM_SET_SREGS, CR0.WP and CR4.CET."""
        self.take(op)

    @rule(op=strategies.operations(m.Init), during=strategies.preemptions())
    def init(self, op: m.Init, during: tuple[tuple[int, Step], ...]) -> None:
        """An INIT reaches a vCPU that is in KVM_RUN."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.Reset))
    def reset(self, op: m.Reset) -> None:
        """A full RESET of a vCPU that is not in KVM_RUN."""
        self.take(op)

    @rule(op=strategies.operations(m.GetMpState), during=strategies.preemptions())
    def get_mp_state(self, op: m.GetMpState, during: tuple[tuple[int, Step], ...]) -> None:
        """KVM_GET_MP_STATE."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.GetXsave))
    def get_xsave(self, op: m.GetXsave) -> None:
        """KVM_GET_XSAVE: whether the image holds a CET component."""
        self.take(op)

    @rule(op=strategies.operations(m.SetXsave))
    def set_xsave(self, op: m.SetXsave) -> None:
        """KVM_SET_XSAVE of an image with one component."""
        self.take(op)

    @rule(op=strategies.operations(m.Emulate))
    def emulate(self, op: m.Emulate) -> None:
        """The emulator meets an instruction, at CPL 3 or 0."""
        self.take(op)

    @rule(op=strategies.operations(m.Smi))
    def smi(self, op: m.Smi) -> None:
        """An SMI arrives."""
        self.take(op)

    @rule(op=strategies.operations(m.Rsm))
    def rsm(self, op: m.Rsm) -> None:
        """The SMM handler ends. 0, or 1 for a shutdown."""
        self.take(op)

    @rule(op=strategies.operations(m.NestedEnter), during=strategies.preemptions())
    def nested_enter(self, op: m.NestedEnter, during: tuple[tuple[int, Step], ...]) -> None:
        """L1 enters L2."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.NestedExit), during=strategies.preemptions())
    def nested_exit(self, op: m.NestedExit, during: tuple[tuple[int, Step], ...]) -> None:
        """L2 exits to L1."""
        self.take(op, during=during)

    @rule(op=strategies.operations(m.SetNestedState))
    def set_nested_state(self, op: m.SetNestedState) -> None:
        """KVM_SET_NESTED_STATE of a vCPU in L2, no entry pending. VMX only."""
        self.take(op)

    @rule(op=strategies.operations(m.Vmread))
    def vmread(self, op: m.Vmread) -> None:
        """L1 reads a CET field of its vmcs12: (0, value), or (1, 0) for VMfail."""
        self.take(op)

    @rule(op=strategies.operations(m.Migrate))
    def migrate(self, op: m.Migrate) -> None:
        """Save everything advertised, restore it into a fresh vCPU of a fresh VM, destroy the old one."""
        self.take(op)


MACHINE = CetMachine
