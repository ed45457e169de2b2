"""x86.c: CR0 and CR4, as a guest and as userspace sets them."""

from __future__ import annotations

from conformance.candidates.builtin.cet.linux.msrs import Msrs
from conformance.candidates.builtin.cet.linux.state import Vcpu
from conformance.specs.cet import constants as k


class ControlRegisters(Msrs):
    """kvm_set_cr0, kvm_set_cr4, and KVM_SET_SREGS."""

    def kvm_is_valid_cr4(self, vcpu: Vcpu, cr4: int) -> bool:
        """Reserved bits, by the guest's CPUID."""
        return vcpu.has_cet() or not cr4 >> k.CR4_CET & 1

    def set_cr0(self, vcpu: int, value: int) -> int:
        """kvm_set_cr0."""
        if not value >> k.CR0_WP & 1 and self.port.read_cr(vcpu, 4) >> k.CR4_CET & 1:
            return 1
        self.port.write_cr(vcpu, 0, value)
        return 0

    def set_cr4(self, vcpu: int, value: int) -> int:
        """kvm_set_cr4."""
        if not self.kvm_is_valid_cr4(self.vcpus[vcpu], value):
            return 1
        if value >> k.CR4_CET & 1 and not self.port.read_cr(vcpu, 0) >> k.CR0_WP & 1:
            return 1
        self.port.write_cr(vcpu, 4, value)
        return 0

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """__set_sregs_common: each register is checked by itself, the pair is not."""
        if not self.kvm_is_valid_cr4(self.vcpus[vcpu], cr4):
            return -k.EINVAL
        self.port.write_cr(vcpu, 0, cr0)
        self.port.write_cr(vcpu, 4, cr4)
        return 0
