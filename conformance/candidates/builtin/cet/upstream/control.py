"""CR0 and CR4, reset, SMM and the emulator."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream.msrs import Msrs
from conformance.candidates.builtin.cet.upstream.vcpu import INVALID, SWITCHED_FIELDS, Vcpu
from conformance.specs.cet import constants as k


class Control(Msrs):
    """Control registers and reset of x86.c, smm.c, emulate.c."""

    def bad_cet_cr4(self, v: Vcpu, cr4: int) -> bool:
        """CR4.CET without either feature."""
        return bool(cr4 >> k.CR4_CET & 1) and not (v.shstk or v.ibt)

    def set_cr0(self, vcpu: int, value: int) -> int:
        """CR0.WP must stay while CR4.CET is set."""
        if not value >> k.CR0_WP & 1 and self.port.read_cr(vcpu, 4) >> k.CR4_CET & 1:
            return INVALID
        self.port.write_cr(vcpu, 0, value)
        return 0

    def set_cr4(self, vcpu: int, value: int) -> int:
        """CR4.CET needs a feature and CR0.WP."""
        v = self.vcpus[vcpu]
        if self.bad_cet_cr4(v, value):
            return INVALID
        if value >> k.CR4_CET & 1 and not self.port.read_cr(vcpu, 0) >> k.CR0_WP & 1:
            return INVALID
        self.port.write_cr(vcpu, 4, value)
        return 0

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """Both at once: the final pair counts."""
        if self.bad_cet_cr4(self.vcpus[vcpu], cr4):
            return -k.EINVAL
        if cr4 >> k.CR4_CET & 1 and not cr0 >> k.CR0_WP & 1:
            return -k.EINVAL
        self.port.write_cr(vcpu, 0, cr0)
        self.port.write_cr(vcpu, 4, cr4)
        return 0

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        """Leave L2 and SMM, clear everything; XSS only on RESET."""
        v = self.vcpus[vcpu]
        v.smm = False
        if v.l2:
            self.leave_l2(v)
        self.port.write_cr(vcpu, 4, self.port.read_cr(vcpu, 4) & ~(1 << k.CR4_CET))
        self.port.write_cr(vcpu, 0, self.port.read_cr(vcpu, 0) & ~(1 << k.CR0_WP))
        self.reset_xstate(v)
        for field in SWITCHED_FIELDS:
            self.field_write(v, field, 0)
        if not init and v.xss:
            v.xss = 0
            self.refresh_cpuid(v)

    def leave_l2(self, v: Vcpu) -> None:
        """L1's control structure is current again, with nothing stored for L1 to read."""
        v.l2 = False
        if self.svm:
            self.port.vmcb_switch(v.number, 1)
        else:
            self.port.vmcs_load(v.number, 1)

    def reset_xstate(self, v: Vcpu) -> None:
        """Clear both CET components, out of hardware if they are there."""
        in_use = self.port.guest_fpu_in_use(v.number)
        if in_use:
            self.port.put_guest_fpu(v.number)
        self.port.fpstate_clear(v.number, k.CET_U)
        self.port.fpstate_clear(v.number, k.CET_S)
        if in_use:
            self.port.load_guest_fpu(v.number)

    def get_mp_state(self, vcpu: int) -> int:
        """Process a pending INIT; the guest FPU is not in use here."""
        if self.port.take_init(vcpu):
            self.vcpu_reset(vcpu, True)
        return 0

    def smi(self, vcpu: int) -> None:
        """Save SSP and the control registers, clear CR4.CET."""
        v = self.vcpus[vcpu]
        cr0, cr4 = self.port.read_cr(vcpu, 0), self.port.read_cr(vcpu, 4)
        self.port.smram_write(vcpu, k.SMRAM_CR0, cr0)
        self.port.smram_write(vcpu, k.SMRAM_CR4, cr4)
        if v.shstk:
            self.port.smram_write(vcpu, k.SMRAM_SSP, self.field_read(v, k.GUEST_SSP))
        self.port.write_cr(vcpu, 4, cr4 & ~(1 << k.CR4_CET))
        v.smm = True

    def rsm(self, vcpu: int) -> int:
        """Restore CR0 before CR4, then SSP, which may be bad."""
        v = self.vcpus[vcpu]
        v.smm = False
        self.port.write_cr(vcpu, 4, self.port.read_cr(vcpu, 4) & ~(1 << k.CR4_CET))
        self.port.write_cr(vcpu, 0, self.port.smram_read(vcpu, k.SMRAM_CR0))
        self.port.write_cr(vcpu, 4, self.port.smram_read(vcpu, k.SMRAM_CR4))
        if v.shstk:
            return self.set_msr(v, k.INTERNAL_GUEST_SSP, self.port.smram_read(vcpu, k.SMRAM_SSP), True)
        return 0

    def emulate(self, vcpu: int, instruction: str, user: bool) -> int:
        """Refuse what active CET affects."""
        v = self.vcpus[vcpu]
        shstk, ibt = self.active_for(v, user)
        if instruction == "task_switch":
            here, there = self.active_for(v, True), self.active_for(v, False)
            return k.UNHANDLEABLE if any((*here, *there)) else k.EMULATED
        if instruction in ("ret", "indirect_call") and shstk:
            return k.UNHANDLEABLE
        if instruction == "far_jmp":
            ibt = any(self.active_for(v, privilege)[1] for privilege in (True, False))
        if instruction in ("indirect_jmp", "indirect_call", "far_jmp") and ibt:
            return k.UNHANDLEABLE
        if instruction == "far_jmp" and shstk and self.field_read(v, k.GUEST_SSP) >> 32:
            return k.EMULATED_GP
        return k.EMULATED

    def active_for(self, v: Vcpu, user: bool) -> tuple[bool, bool]:
        """SHSTK and IBT in force at that privilege."""
        if not self.port.read_cr(v.number, 4) >> k.CR4_CET & 1:
            return False, False
        value = self.fetch_msr(v, k.U_CET if user else k.S_CET)
        return bool(value & 1), bool(value & 4)
