"""Accesses to APIC registers and APIC_BASE that software completes."""

from __future__ import annotations

from struct import Struct

from conformance.candidates.builtin.avic.upstream.inhibits import Inhibits
from conformance.candidates.builtin.avic.upstream.vm import ACCESS_SLOT, LVR, Vcpu
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ESR,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_ISR,
    APIC_LDR,
    APIC_LVR,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_PPR,
    APIC_RRR,
    APIC_SELF_IPI,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TMICT,
    APIC_TMR,
    APIC_TPR,
    BASE_AE,
    BASE_EXTD,
    ICR_BUSY,
    INHIBIT_APIC_BASE_MODIFIED,
    X2_ICR_RESERVED,
)

TRAPS = frozenset(
    {APIC_ID, APIC_EOI, APIC_RRR, APIC_LDR, APIC_DFR, APIC_SPIV, APIC_ESR, APIC_ICR, APIC_TMICT, APIC_TDCR}
    | set(range(APIC_LVTT, APIC_LVTERR + 16, 16))
)
LAPIC_STATE = Struct("<256I")
X2_READ_ONLY = (APIC_ID, APIC_LVR, APIC_LDR, APIC_PPR)


class Accesses(Inhibits):
    """Writes that hardware does not perform, and the ioctls."""

    def apic_access(self, vcpu: int, offset: int, value: int) -> int:
        """An intercepted register write."""
        v = self.vcpus[vcpu]
        if v.x2:
            return self._x2_write(v, offset, value)
        self._reg_write(v, offset, value)
        return 0

    def _x2_write(self, v: Vcpu, offset: int, value: int) -> int:
        if offset == APIC_ICR:
            return self._x2_icr_write(v, value)
        if offset == APIC_SELF_IPI:
            if value >> 8:
                return 1
            self._send(v, value | 1 << 18, 0)
            return 0
        if offset == APIC_ESR:
            return int(value != 0)
        if offset in X2_READ_ONLY or offset not in TRAPS | {APIC_TPR} or offset in (APIC_RRR, APIC_DFR):
            return 1
        self._reg_write(v, offset, value)
        return 0

    def _x2_icr_write(self, v: Vcpu, value: int) -> int:
        low = value & 0xFFFFFFFF & ~(1 << ICR_BUSY)
        if low & X2_ICR_RESERVED:
            return 1
        self.port.write32(v.regs, APIC_ICR, low)
        self.port.write32(v.regs, APIC_ICR2, value >> 32)
        self._send(v, low, value >> 32)
        return 0

    def _reg_write(self, v: Vcpu, offset: int, value: int) -> None:
        """kvm_lapic_reg_write."""
        port = self.port
        if offset == APIC_ID:
            port.write32(v.regs, APIC_ID, value & 0xFF000000)
            self._recalculate_map(v.kvm)
        elif offset == APIC_TPR:
            port.write32(v.regs, APIC_TPR, value & 0xFF)
            self._update_ppr(v)
        elif offset == APIC_EOI:
            self._set_eoi(v, self._find_highest(v, APIC_ISR))
        elif offset == APIC_LDR:
            port.write32(v.regs, APIC_LDR, value & 0xFF000000)
            self._recalculate_map(v.kvm)
        elif offset == APIC_DFR:
            port.write32(v.regs, APIC_DFR, (value | 0x0FFFFFFF) & 0xFFFFFFFF)
            self._recalculate_map(v.kvm)
        elif offset == APIC_SPIV:
            port.write32(v.regs, APIC_SPIV, value & 0x3FF)
            self._recalculate_map(v.kvm)
        elif offset == APIC_ICR:
            low = value & ~(1 << ICR_BUSY)
            port.write32(v.regs, APIC_ICR, low)
            self._send(v, low, self._reg(v, APIC_ICR2))
        elif offset == APIC_ICR2:
            port.write32(v.regs, APIC_ICR2, value if v.x2 else value & 0xFF000000)
        elif APIC_LVTT <= offset <= APIC_LVTERR:
            port.write32(v.regs, offset, value & 0x1F7FF)
        elif offset == APIC_TMICT:
            port.write32(v.regs, APIC_TMICT, value)
        elif offset == APIC_TDCR:
            port.write32(v.regs, APIC_TDCR, value & 0xB)
        elif offset != APIC_ESR:
            self._unknown_write(v, offset)

    def _unknown_write(self, v: Vcpu, offset: int) -> None:
        """Registers that cannot be written are left alone, as hardware does."""

    def _set_eoi(self, v: Vcpu, vector: int) -> None:
        if vector < 0:
            return
        self._clear_vector(v, APIC_ISR, vector)
        self._update_ppr(v)
        if self._test_vector(v, APIC_TMR, vector):
            self.port.ioapic_eoi(v.kvm.vm, vector)

    def set_apic_base(self, vcpu: int, value: int, host: int) -> int:
        """Write APIC_BASE."""
        v = self.vcpus[vcpu]
        enable, extend = value >> BASE_AE & 1, value >> BASE_EXTD & 1
        if value & 0x2FF or value >> 48 or (extend and not enable):
            return 1
        if not host and ((v.x2 and enable and not extend) or (not v.enabled and extend)):
            return 1
        old_x2, old_enabled = v.x2, v.enabled
        v.apic_base = value
        if enable and value & ~0xFFF != APIC_BASE:
            self._set_inhibit(v.kvm, INHIBIT_APIC_BASE_MODIFIED, on=True)
        if v.x2 and not old_x2:
            self._enter_x2(v)
        elif v.enabled and (old_x2 or not old_enabled) and not v.x2:
            self.port.write32(v.regs, APIC_ID, (v.id & 0xFF) << 24)
        if self.avic:
            self._post_state_restore(v)
        self._recalculate_map(v.kvm)
        was = v.apicv_active
        self._update_apicv(v)
        if v.apicv_active and was and v.x2 != old_x2:
            self._refresh_virtual_apic_mode(v)
        return 0

    def _enter_x2(self, v: Vcpu) -> None:
        port, kvm = self.port, v.kvm
        port.write32(v.regs, APIC_ID, v.id)
        port.write32(v.regs, APIC_LDR, self.x2_ldr(v.id))
        if self.avic and not self.x2avic and not kvm.access_page_gone:
            port.lock("slots", kvm.vm)
            kvm.access_page_gone = True
            if kvm.access_page:
                port.set_memory_region(kvm.vm, ACCESS_SLOT, 0, 0)
                kvm.access_page = False
            port.unlock("slots", kvm.vm)

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        """KVM_SET_LAPIC."""
        v = self.vcpus[vcpu]
        values = dict(zip(range(0, 0x400, 16), LAPIC_STATE.unpack(registers)[::4], strict=True))
        values[APIC_LVR] = LVR
        if v.x2:
            values[APIC_ID], values[APIC_LDR] = v.id, self.x2_ldr(v.id)
        self.port.clear_page(v.regs)
        for offset, value in values.items():
            if value:
                self.port.write32(v.regs, offset, value)
        if self.avic:
            self._post_state_restore(v)
        self._recalculate_map(v.kvm)
        self._update_ppr(v)
        return 0
