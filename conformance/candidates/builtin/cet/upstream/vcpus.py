"""vCPUs, their bitmaps and fields, and context switches."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream.module import Module
from conformance.candidates.builtin.cet.upstream.vcpu import PASSABLE, VMCB_OF, Vcpu
from conformance.specs.cet import constants as k


class Vcpus(Module):
    """The life of a vCPU around running: vmx.c and svm.c."""

    def vcpu_create(self, vcpu: int) -> int:
        """Allocate, and fill the constant VMCS fields."""
        refusal = self.port.alloc_guest_fpstate(vcpu)
        if refusal:
            return refusal
        v = self.vcpus[vcpu] = Vcpu(vcpu)
        if not self.svm:
            for level in (2, 1):
                self.port.vmcs_load(vcpu, level)
                self.set_constant_fields(v)
        return 0

    def set_constant_fields(self, v: Vcpu) -> None:
        """Host state and the load-CET controls, where the processor has them."""
        if not self.port.host_cap("load_cet_entry") or not self.port.host_cap("load_cet_exit"):
            return
        self.port.vmcs_write(v.number, k.HOST_S_CET, self.host_s_cet)
        self.port.vmcs_write(v.number, k.HOST_SSP, 0)
        self.port.vmcs_write(v.number, k.HOST_INTR_SSP_TABLE, 0)
        self.port.vmcs_write(v.number, k.VM_ENTRY_CONTROLS, 1 << k.VM_ENTRY_LOAD_CET)
        self.port.vmcs_write(v.number, k.VM_EXIT_CONTROLS, 1 << k.VM_EXIT_LOAD_CET)

    def vcpu_destroy(self, vcpu: int) -> None:
        """Give the fpstate back."""
        self.port.free_guest_fpstate(vcpu)
        del self.vcpus[vcpu]

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        """Cut userspace's offer down to what KVM has; frozen after the first run."""
        v = self.vcpus[vcpu]
        offered = (shstk, ibt, lm, xsaves, xss)
        if v.ran:
            return 0 if offered == v.offered else -k.EINVAL
        v.offered = offered
        v.shstk = shstk and self.shstk
        v.ibt = ibt and self.ibt
        v.lm = lm and self.lm
        v.xsaves = xsaves and self.port.host_cap("xsaves") == 1
        v.supported_xss = xss & self.xss
        self.recalc_intercepts(v)
        return 0

    def set_msr_filter(self, vcpu: int, denied: tuple[int, ...]) -> None:
        """Remember the denied MSRs, and intercept them."""
        v = self.vcpus[vcpu]
        v.denied = denied
        self.recalc_intercepts(v)

    def passes(self, v: Vcpu, msr: int) -> bool:
        """Whether L0 lets the guest have this MSR."""
        if msr in v.denied:
            return False
        if msr in k.CONTROL_MSRS:
            return v.shstk or (v.ibt and not self.svm)
        return v.shstk

    def recalc_intercepts(self, v: Vcpu) -> None:
        """Set every bitmap bit that can be passed, in both bitmaps while L2 is active."""
        both = k.READ | k.WRITE
        for msr in PASSABLE:
            on = not self.passes(v, msr)
            self.port.set_intercept(v.number, 1, msr, both, on)
            if v.l2:
                stopped = on or self.port.l1_intercepts(v.number, msr) != 0
                self.port.set_intercept(v.number, 2, msr, both, stopped)

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        """Remember where."""
        self.vcpus[vcpu].cpu = cpu

    def vcpu_put(self, vcpu: int) -> None:
        """Nothing to do."""

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        v = self.vcpus[vcpu]
        v.ran = True
        self.port.load_guest_fpu(vcpu)

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        self.port.put_guest_fpu(vcpu)

    def sched_out(self, vcpu: int) -> None:
        """Nothing to do: the FPU code saves."""

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """Remember where; the FPU code reloads."""
        self.vcpus[vcpu].cpu = cpu

    def enter_guest(self, vcpu: int) -> None:
        """Distrust another physical CPU's copy of the VMCB, load the guest's XSS."""
        v = self.vcpus[vcpu]
        self.follow_cpu(v)
        if v.xsaves and v.xss != self.host_xss:
            self.port.wrmsr(k.XSS, v.xss)

    def follow_cpu(self, v: Vcpu) -> None:
        """A VMCB that ran elsewhere last is clean for nobody here."""
        level = 2 if v.l2 else 1
        if self.svm and v.vmcb_cpu[level - 1] != v.cpu:
            v.vmcb_cpu[level - 1] = v.cpu
            self.port.vmcb_mark_dirty(v.number, level, k.VMCB_CET)

    def exit_guest(self, vcpu: int) -> None:
        """Load the host's XSS."""
        v = self.vcpus[vcpu]
        if v.xsaves and v.xss != self.host_xss:
            self.port.wrmsr(k.XSS, self.host_xss)

    def field_read(self, v: Vcpu, field: int) -> int:
        """One of the three values that VM entries switch."""
        if self.svm:
            return self.port.vmcb_read(v.number, 2 if v.l2 else 1, VMCB_OF[field])
        return self.port.vmcs_read(v.number, field)

    def field_write(self, v: Vcpu, field: int, value: int) -> None:
        """One of the three values that VM entries switch; SVM must be told."""
        if not self.svm:
            self.port.vmcs_write(v.number, field, value)
            return
        level = 2 if v.l2 else 1
        self.port.vmcb_write(v.number, level, VMCB_OF[field], value)
        self.port.vmcb_mark_dirty(v.number, level, k.VMCB_CET)
