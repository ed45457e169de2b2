"""The local APIC in software (lapic.c)."""

from __future__ import annotations

from conformance.candidates.builtin.avic.linux.irq_comm import (
    MAP_DISABLED,
    Apic,
    Irq,
    map_targets,
    recalculate_apic_map,
    slow_targets,
)
from conformance.candidates.builtin.avic.linux.structs import CLEAN, DIRTY, Kvm, Vcpu
from conformance.candidates.builtin.avic.linux.x86 import X86
from conformance.specs.avic import constants as k
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ESR,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVR,
    APIC_LVT0,
    APIC_LVT1,
    APIC_LVTERR,
    APIC_LVTPC,
    APIC_LVTT,
    APIC_LVTTHMR,
    APIC_PPR,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TMCCT,
    APIC_TMICT,
    APIC_TMR,
    APIC_TPR,
    BASE_AE,
    BASE_BSP,
    BASE_EXTD,
    CLUSTER,
    EXTINT,
    FIXED,
    FLAT,
    ICR_ASSERT,
    ICR_BUSY,
    ICR_LEVEL,
    ICR_LOGICAL,
    ICR_SHORTHAND,
    INHIBIT_APIC_BASE_MODIFIED,
    INHIBIT_APIC_ID_MODIFIED,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_ALIASED,
    INIT,
    LOWEST,
    LVT0_EXTINT,
    LVT_MASKED,
    REMOTE_READ,
    SELF,
    SPIV_ENABLE,
    SPIV_RESET,
    X2_ICR_RESERVED,
)

LVR = 0x00050014
LVT_FIELDS = 0x110FF
"""Mask, delivery status and vector."""
LVT_MASKS = {
    APIC_LVTT: LVT_FIELDS | 3 << 17,
    APIC_LVTTHMR: LVT_FIELDS | 0x700,
    APIC_LVTPC: LVT_FIELDS | 0x700,
    APIC_LVT0: LVT_FIELDS | 0xE700,
    APIC_LVT1: LVT_FIELDS | 0xE700,
    APIC_LVTERR: LVT_FIELDS,
}
"""Bits of each LVT register that a guest may set (apic_lvt_mask)."""
XAPIC_ONLY = (APIC_ID, APIC_LDR, APIC_DFR, APIC_ICR2)
"""Registers that an x2APIC does not let anybody write."""


class Lapic(X86):
    """Registers, the map, messages and acceptance."""

    maxphyaddr = 48
    """Of the guest's CPUID, which the port does not tell."""

    # registers

    def get_reg(self, v: Vcpu, offset: int) -> int:
        """kvm_lapic_get_reg."""
        return self.port.read32(v.regs, offset)

    def set_reg(self, v: Vcpu, offset: int, value: int) -> None:
        """kvm_lapic_set_reg."""
        self.port.write32(v.regs, offset, value & 0xFFFFFFFF)

    def test_vector(self, v: Vcpu, bank: int, vector: int) -> bool:
        """apic_test_vector."""
        return self.get_reg(v, bank + (vector >> 5) * 16) >> (vector & 31) & 1 == 1

    def set_vector(self, v: Vcpu, bank: int, vector: int) -> None:
        """set_bit: locked, as hardware and the IOMMU write IRR too."""
        self.port.or32(v.regs, bank + (vector >> 5) * 16, 1 << (vector & 31))

    def clear_vector(self, v: Vcpu, bank: int, vector: int) -> None:
        """clear_bit: locked."""
        self.port.and32(v.regs, bank + (vector >> 5) * 16, ~(1 << (vector & 31)) & 0xFFFFFFFF)

    def change_isr(self, v: Vcpu, vector: int, on: bool) -> None:
        """__test_and_set_bit, __test_and_clear_bit: not locked, as only the vCPU's own thread does it."""
        offset, bit = APIC_ISR + (vector >> 5) * 16, 1 << (vector & 31)
        old = self.get_reg(v, offset)
        self.set_reg(v, offset, old | bit if on else old & ~bit)

    def find_highest_vector(self, v: Vcpu, bank: int) -> int:
        """apic_find_highest_vector; -1 for none."""
        for n in range(7, -1, -1):
            word = self.get_reg(v, bank + n * 16)
            if word:
                return n * 32 + word.bit_length() - 1
        return -1

    def update_ppr(self, v: Vcpu) -> int:
        """apic_update_ppr."""
        ppr = self.ppr(self.get_reg(v, APIC_TPR), max(self.find_highest_vector(v, APIC_ISR), 0))
        if self.get_reg(v, APIC_PPR) != ppr:
            self.set_reg(v, APIC_PPR, ppr)
        return ppr

    def ppr(self, tpr: int, isrv: int) -> int:
        """__apic_update_ppr."""
        return tpr & 0xFF if tpr & 0xF0 >= isrv & 0xF0 else isrv & 0xF0

    def x2_ldr(self, apic_id: int) -> int:
        """kvm_apic_calc_x2apic_ldr."""
        return (apic_id >> 4) << 16 | 1 << (apic_id & 0xF)

    def has_interrupt(self, v: Vcpu) -> int:
        """kvm_apic_has_interrupt: the vector that can be taken, -1 for none."""
        if not v.hw_enabled:
            return -1
        ppr = self.update_ppr(v)
        irr = self.find_highest_vector(v, APIC_IRR)
        return irr if irr & 0xF0 > ppr & 0xF0 and irr >= 0 else -1

    # the map

    def mark_map_dirty(self, kvm: Kvm) -> None:
        """Something changed that the map is made of."""
        kvm.apic_map_dirty = DIRTY

    def snapshot(self, v: Vcpu) -> Apic:
        """What routing looks at."""
        return Apic(
            index=v.idx,
            id=v.id,
            xapic_id=self.get_reg(v, APIC_ID) >> 24,
            present=v.hw_enabled,
            x2=v.x2apic,
            spiv=v.sw_enabled << SPIV_ENABLE,
            ldr=self.get_reg(v, APIC_LDR),
            dfr=self.get_reg(v, APIC_DFR),
        )

    def recalculate_apic_map(self, kvm: Kvm) -> None:
        """kvm_recalculate_apic_map: whatever the map cannot hold, AVIC cannot either."""
        if kvm.apic_map_dirty == CLEAN or not kvm.irqchip:
            return
        self.port.lock("hash", kvm.id)
        while kvm.apic_map_dirty != CLEAN:
            kvm.apic_map_dirty = CLEAN
            new, mismatch = recalculate_apic_map([self.snapshot(v) for v in list(kvm.vcpus)], self.routing)
            for reason, on in (
                (INHIBIT_PHYSICAL_ID_ALIASED, new is None),
                (INHIBIT_LOGICAL_ID_ALIASED, new is None or new.logical_mode == MAP_DISABLED),
                (INHIBIT_APIC_ID_MODIFIED, mismatch),
            ):
                if on:
                    self.set_apicv_inhibit(kvm, reason)
                else:
                    self.clear_apicv_inhibit(kvm, reason)
            kvm.apic_map = new
        self.port.unlock("hash", kvm.id)

    # messages

    def send_ipi(self, v: Vcpu, low: int, high: int) -> None:
        """kvm_apic_send_ipi."""
        irq = Irq(
            vector=low & 0xFF,
            mode=low >> 8 & 7,
            dest=high if v.x2apic else high >> 24,
            logical=low >> ICR_LOGICAL & 1 == 1,
            shorthand=low >> ICR_SHORTHAND & 3,
            trigger=low >> ICR_LEVEL & 1 == 1,
            level=low >> ICR_ASSERT & 1 == 1,
        )
        self.irq_delivery_to_apic(v.kvm, v, irq)

    def irq_delivery_to_apic(self, kvm: Kvm, source: Vcpu, irq: Irq) -> None:
        """kvm_irq_delivery_to_apic: by the map, or one by one."""
        vcpus = {v.idx: v for v in list(kvm.vcpus)}
        apics = {idx: self.snapshot(v) for idx, v in vcpus.items()}
        sender = apics.get(source.idx)
        targets = map_targets(kvm.apic_map, sender, irq, self.routing)
        if targets is None:
            irq, targets, _ = slow_targets(list(apics.values()), sender, irq, self.routing)
        for apic in targets:
            if apic.index in vcpus:
                self.accept_irq(vcpus[apic.index], irq)

    def accept_irq(self, v: Vcpu, irq: Irq) -> None:
        """__apic_accept_irq."""
        if irq.mode in (FIXED, LOWEST):
            if irq.trigger and not irq.level:
                return
            if not v.hw_enabled or not v.sw_enabled:
                return
            if irq.vector < self.lowest_vector:
                return
            self.set_irq(v, irq.vector, irq.trigger)
        elif irq.mode == INIT:
            if not irq.trigger or irq.level:
                self.port.signal(v.handle, irq.mode, irq.vector)
                self.port.kick(v.handle)
        elif irq.mode not in (REMOTE_READ, EXTINT):
            self.port.signal(v.handle, irq.mode, irq.vector)
            self.port.kick(v.handle)

    lowest_vector = 16
    """Vectors below are not accepted; released Linux takes them all."""

    def set_irq(self, v: Vcpu, vector: int, level: bool) -> None:
        """The end of acceptance: TMR first, then IRR by the vendor's way."""
        if self.test_vector(v, APIC_TMR, vector) != level:
            if level:
                self.set_vector(v, APIC_TMR, vector)
            else:
                self.clear_vector(v, APIC_TMR, vector)
        self.deliver_interrupt(v, vector)

    def set_eoi(self, v: Vcpu) -> None:
        """apic_set_eoi: the highest vector in service ends, whatever the exit said."""
        vector = self.find_highest_vector(v, APIC_ISR)
        if vector < 0:
            return
        self.change_isr(v, vector, on=False)
        self.update_ppr(v)
        self.send_ioapic_eoi(v, vector)

    def send_ioapic_eoi(self, v: Vcpu, vector: int) -> None:
        """kvm_ioapic_send_eoi."""
        if self.test_vector(v, APIC_TMR, vector):
            self.port.ioapic_eoi(v.kvm.id, vector)

    def get_apic_interrupt(self, v: Vcpu, vector: int) -> None:
        """kvm_apic_ack_interrupt: from IRR to ISR."""
        self.clear_vector(v, APIC_IRR, vector)
        self.change_isr(v, vector, on=True)
        self.update_ppr(v)

    # register writes

    def write_nodecode(self, v: Vcpu, offset: int) -> None:
        """kvm_apic_write_nodecode: apply what hardware wrote already."""
        if v.x2apic and offset == APIC_ICR:
            self.x2apic_icr_write(v, self.get_reg(v, APIC_ICR2) << 32 | self.get_reg(v, APIC_ICR))
        else:
            self.reg_write(v, offset, self.get_reg(v, offset))

    def x2apic_icr_write(self, v: Vcpu, data: int) -> int:
        """kvm_x2apic_icr_write, with AMD's split ICR."""
        if data & X2_ICR_RESERVED:
            return 1
        data &= ~(1 << ICR_BUSY)
        self.send_ipi(v, data & 0xFFFFFFFF, data >> 32)
        self.set_reg(v, APIC_ICR, data)
        self.set_reg(v, APIC_ICR2, data >> 32)
        return 0

    def x2apic_msr_write(self, v: Vcpu, offset: int, data: int) -> int:
        """kvm_x2apic_msr_write."""
        if offset == APIC_ICR:
            return self.x2apic_icr_write(v, data)
        if data >> 32:
            return 1
        return self.reg_write(v, offset, data)

    def mmio_write(self, v: Vcpu, offset: int, value: int) -> int:
        """apic_mmio_write: never a fault."""
        if v.hw_enabled and not offset & 0xF:
            self.reg_write(v, offset & 0xFF0, value & 0xFFFFFFFF)
        return 0

    def reg_write(self, v: Vcpu, offset: int, value: int) -> int:
        """kvm_lapic_reg_write: 0, or 1 for a register that cannot be written so."""
        result = 1 if v.x2apic and offset in XAPIC_ONLY else self._reg_write(v, offset, value)
        self.recalculate_apic_map(v.kvm)
        return result

    def _reg_write(self, v: Vcpu, offset: int, value: int) -> int:
        match offset:
            case k.APIC_ID:
                self._set_mapped(v, APIC_ID, value & 0xFF000000)
            case k.APIC_TPR:
                self.set_reg(v, APIC_TPR, value & 0xFF)
                self.update_ppr(v)
            case k.APIC_EOI:
                self.set_eoi(v)
            case k.APIC_LDR:
                self._set_mapped(v, APIC_LDR, value & 0xFF000000)
            case k.APIC_DFR:
                self._set_mapped(v, APIC_DFR, value | CLUSTER)
            case k.APIC_SPIV:
                self._write_spiv(v, value & 0x3FF)
            case k.APIC_ICR:
                value &= ~(1 << ICR_BUSY)
                self.send_ipi(v, value, self.get_reg(v, APIC_ICR2))
                self.set_reg(v, APIC_ICR, value)
            case k.APIC_ICR2:
                self.set_reg(v, APIC_ICR2, value & 0xFF000000)
            case _ if offset in LVT_MASKS:
                self.set_reg(v, offset, (value if v.sw_enabled else value | LVT_MASKED) & LVT_MASKS[offset])
            case k.APIC_TMICT:
                self.set_reg(v, APIC_TMICT, value)
            case k.APIC_TDCR:
                self.set_reg(v, APIC_TDCR, value & 0xB)
            case k.APIC_ESR:
                return int(v.x2apic and value != 0)
            case k.APIC_SELF_IPI:
                if not v.x2apic or value >> 8:
                    return 1
                self.send_ipi(v, SELF << ICR_SHORTHAND | value, 0)
            case _:
                return 1
        return 0

    def _set_mapped(self, v: Vcpu, offset: int, value: int) -> None:
        self.set_reg(v, offset, value)
        self.mark_map_dirty(v.kvm)

    def _write_spiv(self, v: Vcpu, value: int) -> None:
        self.set_spiv(v, value)
        if not value >> SPIV_ENABLE & 1:
            for offset in LVT_MASKS:
                self.set_reg(v, offset, self.get_reg(v, offset) | LVT_MASKED)

    def set_spiv(self, v: Vcpu, value: int) -> None:
        """apic_set_spiv."""
        enabled = value >> SPIV_ENABLE & 1 == 1
        self.set_reg(v, APIC_SPIV, value)
        if enabled != v.sw_enabled:
            v.sw_enabled = enabled
            self.mark_map_dirty(v.kvm)

    # APIC_BASE, reset, state

    def apic_set_base(self, v: Vcpu, value: int, host: bool) -> int:
        """kvm_apic_set_base: 0, or 1 for a base that is refused."""
        if v.apic_base == value:
            return 0
        reserved = 0x2FF | ~((1 << self.maxphyaddr) - 1)
        enabled, extended = value >> BASE_AE & 1, value >> BASE_EXTD & 1
        if value & reserved or (extended and not enabled):
            return 1
        if not host:
            if v.hw_enabled and v.x2apic and enabled and not extended:
                return 1
            if not v.hw_enabled and v.apic and extended:
                return 1
        self.set_base(v, value)
        self.recalculate_apic_map(v.kvm)
        return 0

    def set_base(self, v: Vcpu, value: int) -> None:
        """__kvm_apic_set_base."""
        changed = v.apic_base ^ value
        v.apic_base = value
        if not v.apic:
            return
        enabled, extended = value >> BASE_AE & 1, value >> BASE_EXTD & 1
        if changed >> BASE_AE & 1:
            if enabled:
                self._set_mapped(v, APIC_ID, v.id << 24)
            else:
                self.mark_map_dirty(v.kvm)
        if changed >> BASE_EXTD & 1:
            if extended:
                self._set_mapped(v, APIC_ID, v.id)
                self._set_mapped(v, APIC_LDR, self.x2_ldr(v.id))
            elif enabled:
                self._set_mapped(v, APIC_ID, v.id << 24)
        if changed & (1 << BASE_AE | 1 << BASE_EXTD):
            self.port.request_refresh(v.handle)
            self.set_virtual_apic_mode(v)
        if enabled and value & ~0xFFF & (1 << 52) - 1 != APIC_BASE:
            self.set_apicv_inhibit(v.kvm, INHIBIT_APIC_BASE_MODIFIED)

    def lapic_reset(self, v: Vcpu, init: bool) -> None:
        """kvm_lapic_reset."""
        if not init:
            self.set_base(v, APIC_BASE | 1 << BASE_AE | int(v.id == 0) << BASE_BSP)
        if not v.apic:
            return
        if not init:
            self._set_mapped(v, APIC_ID, v.id << 24)
        self.set_reg(v, APIC_LVR, LVR)
        for offset in LVT_MASKS:
            self.set_reg(v, offset, LVT_MASKED)
        if v.id == 0:
            self.set_reg(v, APIC_LVT0, LVT0_EXTINT)
        self._set_mapped(v, APIC_DFR, FLAT)
        self.set_spiv(v, SPIV_RESET)
        self.set_reg(v, APIC_TPR, 0)
        if not v.x2apic:
            self._set_mapped(v, APIC_LDR, 0)
        for offset in (APIC_ESR, APIC_ICR, APIC_ICR2, APIC_TDCR, APIC_TMICT, APIC_TMCCT):
            self.set_reg(v, offset, 0)
        self.clear_vectors(v)
        self.update_ppr(v)
        self.restored(v)
        self.recalculate_apic_map(v.kvm)

    def clear_vectors(self, v: Vcpu) -> None:
        """Plain stores: a vCPU that is reset is out of the guest."""
        for n in range(8):
            for bank in (APIC_IRR, APIC_ISR, APIC_TMR):
                self.set_reg(v, bank + n * 16, 0)

    def restored(self, v: Vcpu) -> None:
        """Released Linux does this for an active vCPU alone, and leaves the old logical entry of another one."""
        if self.enable_apicv:
            self.apicv_post_state_restore(v)

    def get_state(self, v: Vcpu) -> bytes:
        """kvm_apic_get_state, with 8-bit ids."""
        words = [self.port.read32(v.regs, offset) for offset in range(0, 1024, 4)]
        if v.x2apic:
            words[APIC_ID >> 2] = words[APIC_ID >> 2] << 24 & 0xFFFFFFFF
        return b"".join(word.to_bytes(4, "little") for word in words)

    def set_state(self, v: Vcpu, registers: bytes) -> None:
        """kvm_apic_set_state: raw, but for id and LDR of an x2APIC and the version."""
        words = [int.from_bytes(registers[n : n + 4], "little") for n in range(0, 1024, 4)]
        self.set_spiv(v, words[APIC_SPIV >> 2])
        if v.x2apic:
            words[APIC_ID >> 2] = v.id
            words[APIC_LDR >> 2] = self.x2_ldr(v.id)
        for n, word in enumerate(words):
            self.store_state(v, 4 * n, word)
        self.mark_map_dirty(v.kvm)
        self.recalculate_apic_map(v.kvm)
        self.set_reg(v, APIC_LVR, LVR)
        self.update_ppr(v)
        self.set_reg(v, APIC_TMCCT, 0)
        self.restored(v)

    def store_state(self, v: Vcpu, offset: int, value: int) -> None:
        """One word of the new state: a plain store, as memcpy's."""
        self.port.write32(v.regs, offset, value)
