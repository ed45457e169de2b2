"""smm.c: enter_smm and emulator_leave_smm, as far as SSP, CR0 and CR4 go."""

from __future__ import annotations

from conformance.candidates.builtin.cet.linux.registers import ControlRegisters
from conformance.candidates.builtin.cet.linux.state import Vcpu
from conformance.specs.cet import constants as k


class Smm(ControlRegisters):
    """System management mode."""

    CR4_BEFORE_CR0 = False
    """Released Linux restores CR4 while CR0.WP is still the handler's, and RSM fails where that cleared WP."""

    def smi(self, vcpu: int) -> None:
        """enter_smm: save, leave L2, then the handler's CR0 and CR4; WP stays."""
        part, port = self.vcpus[vcpu], self.port
        port.smram_write(vcpu, k.SMRAM_CR0, port.read_cr(vcpu, 0))
        port.smram_write(vcpu, k.SMRAM_CR4, port.read_cr(vcpu, 4))
        if part.shstk:
            _, ssp = self.get_msr(part, k.INTERNAL_GUEST_SSP, True)
            port.smram_write(vcpu, k.SMRAM_SSP, ssp)
        part.smm_guest_mode = part.guest_mode
        if part.guest_mode:
            self.ops.nested_vmexit(part)
        port.write_cr(vcpu, 4, port.read_cr(vcpu, 4) & ~(1 << k.CR4_CET))

    def rsm(self, vcpu: int) -> int:
        """emulator_leave_smm: enter L2 again where the SMI left it, then load what was saved."""
        part = self.vcpus[vcpu]
        if part.smm_guest_mode:
            part.smm_guest_mode = False
            self.ops.leave_smm(part)
        return self.rsm_load_state_64(part)

    def rsm_load_state_64(self, vcpu: Vcpu) -> int:
        """Control registers, then SSP, by the rules for host-initiated writes."""
        if self.rsm_enter_protected_mode(vcpu):
            return 1
        if not vcpu.shstk:
            return 0
        ssp = self.port.smram_read(vcpu.number, k.SMRAM_SSP)
        return 1 if self.set_msr(vcpu, k.INTERNAL_GUEST_SSP, ssp, True) else 0

    def rsm_enter_protected_mode(self, vcpu: Vcpu) -> int:
        """Saved CR0 and CR4, of which only the pair must be right."""
        port, number = self.port, vcpu.number
        cr0, cr4 = port.smram_read(number, k.SMRAM_CR0), port.smram_read(number, k.SMRAM_CR4)
        if self.CR4_BEFORE_CR0:
            return self.set_cr4(number, cr4) or self.set_cr0(number, cr0)
        port.write_cr(number, 4, port.read_cr(number, 4) & ~(1 << k.CR4_CET))
        return self.set_cr0(number, cr0) or self.set_cr4(number, cr4)
