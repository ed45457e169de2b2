"""VMs and vCPUs: creation, reset, and the end."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.exits import Exits
from conformance.candidates.builtin.avic.upstream.module import TAG_MASK
from conformance.candidates.builtin.avic.upstream.vm import ACCESS_SLOT, LVR, Kvm, Vcpu
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    APIC_LVR,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SPIV,
    BASE_AE,
    BASE_BSP,
    EEXIST,
    EINVAL,
    ENOMEM,
    ENTRY_VALID,
    FLAT,
    INHIBIT_PHYSICAL_ID_TOO_BIG,
    INT_CTL_INTR_MASKING,
    LVT0_EXTINT,
    LVT_MASKED,
    SPIV_RESET,
    VMCB_INT_CTL,
    VMCB_NESTED_CTL,
)


class Lifecycle(Exits):
    """What a VM and a vCPU hold from creation to the end."""

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        """Allocate the tables and an id."""
        kvm = Kvm(vm, irqchip, max_vcpu_ids)
        if self.avic and kvm.irqchip:
            error = self._vm_init(kvm)
            if error:
                self._vm_release(kvm)
                return error
        self.vms[vm] = kvm
        return 0

    def _table_order(self, _kvm: Kvm) -> int:
        """Room for every id that there may be."""
        return 3 if self.max_phys > 511 else 0

    def _vm_init(self, kvm: Kvm) -> int:
        port = self.port
        kvm.phys_table = port.alloc_page(self._table_order(kvm))
        if not kvm.phys_table:
            return -ENOMEM
        port.clear_page(kvm.phys_table)
        kvm.logical_table = port.alloc_page(0)
        if not kvm.logical_table:
            return -ENOMEM
        port.clear_page(kvm.logical_table)
        port.lock("ga_hash", 0)
        while True:
            self.next_vm_id = self.next_vm_id + 1 & TAG_MASK
            if self.next_vm_id == 0:
                self.wrapped = True
                continue
            if self.wrapped and self.next_vm_id in self.hash:
                continue
            break
        kvm.vm_id = self.next_vm_id
        self.hash[kvm.vm_id] = kvm
        port.unlock("ga_hash", 0)
        return 0

    def _vm_release(self, kvm: Kvm) -> None:
        port = self.port
        if kvm.access_page:
            port.lock("slots", kvm.vm)
            port.set_memory_region(kvm.vm, ACCESS_SLOT, 0, 0)
            port.unlock("slots", kvm.vm)
        for page in (kvm.logical_table, kvm.phys_table):
            if page:
                port.free_page(page)
        self._leave_hash(kvm)

    def _leave_hash(self, kvm: Kvm) -> None:
        self.port.lock("ga_hash", 0)
        if self.hash.get(kvm.vm_id) is kvm:
            del self.hash[kvm.vm_id]
        self.port.unlock("ga_hash", 0)

    def vm_precreate(self, vm: int) -> int:
        """Everything was allocated with the VM."""
        return 0

    def vm_pre_destroy(self, vm: int) -> None:
        """No GALog entry finds the VM any more."""
        self._leave_hash(self.vms[vm])

    def vm_destroy(self, vm: int) -> None:
        """Free what the VM holds."""
        self._vm_release(self.vms.pop(vm))

    def tags_pass(self, next_tag: int) -> None:
        """As if so many VMs had come and gone since the last one."""
        position = (next_tag - 1) & TAG_MASK
        self.wrapped = self.wrapped or position < self.next_vm_id
        self.next_vm_id = position

    def vm_tag(self, vm: int) -> int:
        """The VM's id in the GALog."""
        return self.vms[vm].vm_id

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        """Allocate VMCB and register page, and fill in the physical entry."""
        kvm = self.vms[vm]
        if apic_id >= min(kvm.max_vcpu_ids, 4096):
            return -EINVAL
        if apic_id in kvm.taken:
            return -EEXIST
        kvm.taken.add(apic_id)
        v = Vcpu(kvm, vcpu, apic_id)
        error = self._vcpu_init(v)
        if error:
            kvm.taken.discard(apic_id)
            return error
        self.vcpus[vcpu] = v
        kvm.vcpus[apic_id] = v
        return 0

    def _vcpu_init(self, v: Vcpu) -> int:
        port = self.port
        error: int = port.alloc_vmcb(v.handle)
        if error:
            return error
        if v.kvm.irqchip:
            error = self._alloc_regs(v)
            if error:
                port.free_vmcb(v.handle)
                return error
            if self.avic:
                error = self._init_backing_page(v)
                if error:
                    self._free_regs(v)
                    port.free_vmcb(v.handle)
                    return error
        return 0

    def _alloc_regs(self, v: Vcpu) -> int:
        v.regs = self.port.alloc_page(0)
        if not v.regs:
            return -ENOMEM
        self.port.clear_page(v.regs)
        return 0

    def _free_regs(self, v: Vcpu) -> None:
        self.port.free_page(v.regs)

    def _init_backing_page(self, v: Vcpu) -> int:
        port, kvm = self.port, v.kvm
        if v.id > min(self.max_phys, kvm.max_vcpu_ids - 1):
            v.addressable = False
            self._set_inhibit(kvm, INHIBIT_PHYSICAL_ID_TOO_BIG, on=True)
            return 0
        if not kvm.inhibits:
            port.lock("slots", kvm.vm)
            error: int = 0
            if not kvm.access_page and not kvm.access_page_gone:
                error = port.set_memory_region(kvm.vm, ACCESS_SLOT, APIC_BASE, 4096)
                kvm.access_page = not error
            port.unlock("slots", kvm.vm)
            if error:
                return error
        v.entry = self.hpa_field(v.regs) | 1 << ENTRY_VALID
        port.write64(kvm.phys_table, 8 * v.id, v.entry)
        return 0

    def vcpu_free(self, vcpu: int) -> None:
        """Give everything of the vCPU back."""
        port = self.port
        v = self.vcpus.pop(vcpu)
        kvm = v.kvm
        port.lock("inhibit", kvm.vm)  # whoever looks at all vCPUs' registers holds it
        kvm.vcpus.pop(v.id, None)
        port.unlock("inhibit", kvm.vm)
        for irq in sorted(v.irqs):
            port.set_vcpu_affinity(irq, 0, 0, 0)
        if v.regs:
            if self.avic:
                self._invalidate_logical(v)
                if v.addressable:
                    port.write64(kvm.phys_table, 8 * v.id, 0)
            self._free_regs(v)
        port.free_vmcb(v.handle)
        kvm.taken.discard(v.id)
        if v.regs:
            self._recalculate_map(kvm)

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        """RESET or INIT."""
        v = self.vcpus[vcpu]
        if not init:
            v.apic_base = APIC_BASE | 1 << BASE_AE | (1 << BASE_BSP if v.id == 0 else 0)
        if v.regs:
            self._lapic_reset(v, bool(init))
        self._init_vmcb(v)
        if v.regs and self.avic:
            self._post_state_restore(v)
        if v.regs:
            self._recalculate_map(v.kvm)
            self._update_apicv(v)

    def _lapic_reset(self, v: Vcpu, init: bool) -> None:
        port, page = self.port, v.regs
        keep = port.read32(page, APIC_ID)
        port.clear_page(page)
        port.write32(page, APIC_LVR, LVR)
        for offset in range(APIC_LVTT, APIC_LVTERR + 16, 16):
            port.write32(page, offset, LVT_MASKED)
        if v.id == 0:
            port.write32(page, APIC_LVT0, LVT0_EXTINT)
        port.write32(page, APIC_SPIV, SPIV_RESET)
        port.write32(page, APIC_DFR, FLAT)
        if v.x2:
            port.write32(page, APIC_ID, v.id)
            port.write32(page, APIC_LDR, self.x2_ldr(v.id))
        else:
            port.write32(page, APIC_ID, keep if init else (v.id & 0xFF) << 24)

    def vmcb_reinit(self, vcpu: int) -> None:
        """Rebuild the VMCB."""
        self._init_vmcb(self.vcpus[vcpu])

    def _init_vmcb(self, v: Vcpu) -> None:
        port = self.port
        port.vmcb_write(v.handle, VMCB_INT_CTL, 1 << INT_CTL_INTR_MASKING)
        port.vmcb_write(v.handle, VMCB_NESTED_CTL, 1)
        port.mark_vmcb_dirty(v.handle, 0xFFFFFFFF)
        if self.avic and v.kvm.irqchip:
            self._avic_init_vmcb(v)
