"""Other legal ways of being KVM: each is the kernel-shaped candidate but for one decision."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.linux.msrs import ONE_REG_SIZE
from conformance.candidates.builtin.cet.linux.state import Vcpu
from conformance.candidates.builtin.cet.linux.svm import Svm
from conformance.candidates.builtin.cet.linux.vmx import Vmx
from conformance.specs.cet import constants as k


class ValueBeforeFpu(Linux):
    """Copies all that KVM_SET_ONE_REG brings before it loads the FPU."""

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        """The struct, the id, the value, and only then the guest's registers."""
        if self.port.copy_from_user(ONE_REG_SIZE):
            return -k.EFAULT
        part = self.vcpus[vcpu]
        index = self.kvm_translate_reg(part, reg)
        if index < 0:
            return index
        if self.port.copy_from_user(8):
            return -k.EFAULT
        load_fpu = self.is_xstate_managed_msr(part, index)
        if load_fpu:
            self.port.load_guest_fpu(vcpu)
        result = self.set_msr(part, index, value, True)
        if load_fpu:
            self.port.put_guest_fpu(vcpu)
        return -k.EINVAL if result else 0


class DirtySvm(Svm):
    """Trusts no clean bit."""

    def prepare_entry(self, vcpu: Vcpu) -> None:
        """Clear clean bit 12 before every VMRUN."""
        self.port.vmcb_mark_dirty(vcpu.number, self.level(vcpu), k.VMCB_CET)


class DirtyAlways(Linux):
    """Marks the CET fields of a VMCB dirty before every VMRUN."""

    SVM = DirtySvm


class StopsL2Writes(Linux):
    """Stops every WRMSR of a CET MSR by L2 and judges it itself, though L1 passes them."""

    def merge_msr_bitmaps(self, vcpu: Vcpu) -> None:
        """Reads as the kernel's, writes never."""
        for msr in (*k.CONTROL_MSRS, *k.POINTER_MSRS):
            own = vcpu.intercepts.get(msr, 3) | k.WRITE
            self.set_intercept(vcpu, 2, msr, own | self.port.l1_intercepts(vcpu.number, msr))


class NoTaskSwitches(Linux):
    """Emulates no task switch while CR4.CET is set, whatever U_CET and S_CET say."""

    def kvm_task_switch(self, vcpu: Vcpu, active: bool) -> int:
        """CR4.CET alone decides."""
        return k.UNHANDLEABLE if active else k.EMULATED


class EagerIntercepts(Linux):
    """Recomputes bitmaps where CPUID or filter change, as kernels before 6.17 did."""

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        """At once."""
        result = super().set_cpuid(vcpu, shstk, ibt, lm, xsaves, xss)
        self._follow(vcpu)
        return result

    def set_msr_filter(self, vcpu: int, denied: tuple[int, ...]) -> None:
        """At once."""
        super().set_msr_filter(vcpu, denied)
        self._follow(vcpu)

    def _follow(self, vcpu: int) -> None:
        part = self.vcpus[vcpu]
        part.recalc_intercepts = False
        self.recalc_intercepts(part)


class ChecksThePair(Linux):
    """Refuses KVM_SET_SREGS with CR4.CET and no CR0.WP."""

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """The pair first."""
        if cr4 >> k.CR4_CET & 1 and not cr0 >> k.CR0_WP & 1:
            return -k.EINVAL
        return super().set_sregs(vcpu, cr0, cr4)


class AnyBitmapBase(Linux):
    """Goes by the manual for bits 13:12 of U_CET and S_CET."""

    profile = "hardware"

    def is_bitmap_aligned(self, data: int) -> bool:
        """Every page is."""
        return True


class EarlyVmx(Vmx):
    """Looks at the guest area while vmcs01 is still current."""

    def nested_vmx_enter_non_root_mode(self, vcpu: Vcpu, from_vmentry: bool) -> int:
        """A failed entry never switches the VMCS."""
        if from_vmentry and not self.nested_vmx_check_guest_state(vcpu):
            vcpu.run_pending = False
            self.load_vmcs12_host_state(vcpu, failed=True)
            return k.INVALID_GUEST_STATE
        return super().nested_vmx_enter_non_root_mode(vcpu, from_vmentry)


class ChecksBeforeTheSwitch(Linux):
    """Checks all of vmcs12 before it touches a VMCS."""

    VMX = EarlyVmx


PEERS: dict[str, Any] = {
    "value-before-fpu": ValueBeforeFpu,
    "dirty-always": DirtyAlways,
    "stops-l2-writes": StopsL2Writes,
    "no-task-switches": NoTaskSwitches,
    "eager-intercepts": EagerIntercepts,
    "checks-the-pair": ChecksThePair,
    "any-bitmap-base": AnyBitmapBase,
    "checks-before-the-switch": ChecksBeforeTheSwitch,
}
"""Each conforms; the class says in a sentence what it does otherwise."""
