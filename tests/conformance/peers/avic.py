"""Correct AVIC drivers built in other ways than the shipped one: the freedom that the facts leave."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream import ACCESS_SLOT, HOST_ID, LVR, Kvm, Upstream, Vcpu
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_ICR,
    APIC_ID,
    APIC_LDR,
    APIC_LVR,
    APIC_TMR,
    BROADCAST,
    DOORBELL_MSR,
    ENOMEM,
    ICR_BUSY,
    TLB_FLUSH_ASID,
    VMCB_TLB_CONTROL,
)


class TablesWithTheFirstVcpu(Upstream):
    """Tables and tag come with the first vCPU and stay when it fails; pages before VMCBs; the smallest free tag."""

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        self.vms[vm] = Kvm(vm, irqchip, max_vcpu_ids)
        return 0

    def vm_precreate(self, vm: int) -> int:
        kvm, port = self.vms[vm], self.port
        if not self.avic or not kvm.irqchip:
            return 0
        if not kvm.logical_table:
            kvm.logical_table = self._cleared(0)
        if kvm.logical_table and not kvm.phys_table:
            kvm.phys_table = self._cleared(3 if self.max_phys > 511 else 0)
        if not kvm.phys_table:
            return -ENOMEM
        if not kvm.vm_id:
            port.lock("ga_hash", 0)
            kvm.vm_id = next(n for n in range(1, 1 << 20) if n not in self.hash)
            self.hash[kvm.vm_id] = kvm
            port.unlock("ga_hash", 0)
        return 0

    def _cleared(self, order: int) -> int:
        page: int = self.port.alloc_page(order)
        if page:
            self.port.clear_page(page)
        return page

    def _vm_release(self, kvm: Kvm) -> None:
        self._leave_hash(kvm)
        for page in (kvm.phys_table, kvm.logical_table):
            if page:
                self.port.free_page(page)
        if kvm.access_page:
            self.port.set_memory_region(kvm.vm, ACCESS_SLOT, 0, 0)

    def _vcpu_init(self, v: Vcpu) -> int:
        port = self.port
        error = self._alloc_regs(v) if v.kvm.irqchip else 0
        if error:
            return error
        error = port.alloc_vmcb(v.handle)
        if not error and v.regs and self.avic:
            error = self._init_backing_page(v)
            if error:
                port.free_vmcb(v.handle)
        if error and v.regs:
            self._free_regs(v)
        return error


class Chatty(Upstream):
    """Whatever is harmless is done too often: requests, kicks, doorbells, wake-ups, flushes, looks, locks, routes."""

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        mask = kvm.inhibits & ~reasons | value
        for v in list(kvm.vcpus.values()) if mask != kvm.inhibits else ():
            self.port.request_refresh(v.handle)
            self.port.kick(v.handle)
        kvm.inhibits = mask

    def _complete_delivery(self, v: Vcpu) -> None:
        port = self.port
        if not v.apicv_active:
            port.kick(v.handle)
            return
        cpu = port.vcpu_cpu(v.handle)
        if port.vcpu_mode(v.handle):
            self._ring_doorbell(v)
        elif 0 <= cpu <= HOST_ID:
            port.wrmsr(DOORBELL_MSR, cpu)
        port.wake(v.handle)

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        for target in list(v.kvm.vcpus.values()):
            self._complete_delivery(target)

    def prepare_guest(self, vcpu: int) -> None:
        super().prepare_guest(vcpu)
        self.port.vmcb_write(vcpu, VMCB_TLB_CONTROL, TLB_FLUSH_ASID)
        self.port.mark_vmcb_dirty(vcpu, 0xFFFFFFFF)

    def vcpu_put(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        if v.regs and self.avic and not v.blocking:
            self._put(v, log=False)

    def _deliver(self, v: Vcpu, vector: int, level: int) -> None:
        self.port.smp_mb()
        super()._deliver(v, vector, level)
        self.port.smp_mb()

    def _recalculate_map(self, kvm: Kvm) -> None:
        self.port.lock("map", kvm.vm)
        super()._recalculate_map(kvm)
        self.port.unlock("map", kvm.vm)

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        self.port.set_vcpu_affinity(irq, 0, 0, 0)
        return super().update_irte(irq, vcpu, vector)

    def vm_pre_destroy(self, vm: int) -> None:
        super().vm_pre_destroy(vm)
        super().vm_pre_destroy(vm)

    def vcpu_blocking(self, vcpu: int) -> int:
        v = self.vcpus[vcpu]
        if self._has_interrupt(v) >= 0:
            v.blocking = True
            if v.apicv_active:
                self._put(v, log=True)
            return 1
        return super().vcpu_blocking(vcpu)


class RebuildsTheTable(Upstream):
    """The logical table is compared as a whole with what it should hold; an EOI goes out before ISR changes."""

    def _rebuild(self, kvm: Kvm) -> None:
        port = self.port
        if not kvm.logical_table:
            return
        wanted: dict[int, int] = {}
        for v in sorted(kvm.vcpus.values(), key=lambda v: -v.id):
            if not v.regs or v.x2 or not v.enabled or not v.addressable or v.id >= BROADCAST:
                continue
            index = self.logical_index(self._reg(v, APIC_LDR) >> 24, self._reg(v, APIC_DFR) | 0x0FFFFFFF)
            if index >= 0:
                wanted[index] = 1 << 31 | v.id
        for index in range(64):
            old = port.read32(kvm.logical_table, 4 * index)
            if old and old != wanted.get(index):
                port.write32(kvm.logical_table, 4 * index, 0)
        for index, entry in sorted(wanted.items()):
            if port.read32(kvm.logical_table, 4 * index) != entry:
                port.write32(kvm.logical_table, 4 * index, entry)

    def _invalidate_logical(self, v: Vcpu) -> None:
        """Nothing is done by halves."""

    def _handle_ldr_update(self, v: Vcpu) -> None:
        self._rebuild(v.kvm)

    def _handle_dfr_update(self, v: Vcpu) -> None:
        self.port.write32(v.regs, APIC_DFR, self._reg(v, APIC_DFR) | 0x0FFFFFFF)
        self._rebuild(v.kvm)

    def _post_state_restore(self, v: Vcpu) -> None:
        self._rebuild(v.kvm)

    def vcpu_free(self, vcpu: int) -> None:
        kvm = self.vcpus[vcpu].kvm
        super().vcpu_free(vcpu)
        self._rebuild(kvm)

    def _emulate_ipi(self, v: Vcpu, low: int, high: int) -> None:
        self.port.and32(v.regs, APIC_ICR, 0xFFFFFFFF ^ 1 << ICR_BUSY)
        self._send(v, low & ~(1 << ICR_BUSY), high)

    def _set_eoi(self, v: Vcpu, vector: int) -> None:
        if vector < 0:
            return
        if self._test_vector(v, APIC_TMR, vector):
            self.port.ioapic_eoi(v.kvm.vm, vector)
        self._clear_vector(v, 0x100, vector)
        self._update_ppr(v)

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        v = self.vcpus[vcpu]
        for offset in range(0, 0x400, 16):
            value = int.from_bytes(registers[offset : offset + 4], "little")
            if offset == APIC_LVR:
                value = LVR
            elif v.x2 and offset in (APIC_ID, APIC_LDR):
                value = v.id if offset == APIC_ID else self.x2_ldr(v.id)
            if 0x100 <= offset < 0x280:
                self.port.or32(v.regs, offset, value)
                self.port.and32(v.regs, offset, value)
            else:
                self.port.write32(v.regs, offset, value)
        self._recalculate_map(v.kvm)
        if self.avic:
            self._rebuild(v.kvm)
        self._update_ppr(v)
        return 0


class AsLinuxDoes(Upstream):
    """Identical LDR and DFR writes do nothing, a DFR change installs nothing, a core with a wide id changes nothing."""

    def _handle_ldr_update(self, v: Vcpu) -> None:
        ldr = self._reg(v, APIC_LDR) >> 24
        if v.x2 or not v.enabled or ldr == v.ldr:
            return
        self._invalidate_logical(v)
        v.ldr = ldr
        self._install_logical(v)

    def _handle_dfr_update(self, v: Vcpu) -> None:
        dfr = self._reg(v, APIC_DFR) | 0x0FFFFFFF
        if v.x2 or not v.enabled or dfr == v.dfr:
            return
        self._invalidate_logical(v)
        v.dfr = dfr

    def _post_state_restore(self, v: Vcpu) -> None:
        if v.x2 or not v.enabled:
            self._invalidate_logical(v)
            v.ldr = 0
            return
        self._handle_dfr_update(v)
        self._handle_ldr_update(v)

    def _load(self, v: Vcpu, cpu: int) -> None:
        if cpu <= HOST_ID:
            super()._load(v, cpu)


class StaysInHostMode(Upstream):
    """IRTEs that an inhibit returned stay in host mode; flushes go through TLB_CONTROL; targets outside are kicked."""

    def _set_irte_mode(self, v: Vcpu, posted: bool) -> None:
        self.port.lock("ir_list", v.handle)
        v.posting = posted
        for irq in sorted(v.irqs) if not posted else ():
            self.port.set_vcpu_affinity(irq, 0, 0, 0)
        v.irqs = v.irqs if posted else {}
        self.port.unlock("ir_list", v.handle)

    def prepare_guest(self, vcpu: int) -> None:
        super().prepare_guest(vcpu)
        self.port.vmcb_write(vcpu, VMCB_TLB_CONTROL, 1)

    def _complete_delivery(self, v: Vcpu) -> None:
        if v.apicv_active and self.port.vcpu_mode(v.handle):
            self._ring_doorbell(v)
        else:
            self.port.kick(v.handle)
            self.port.wake(v.handle)
