"""A driver in the shape of Linux's avic.c and the local APIC it stands on."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.avic.router import Router
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ESR,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVR,
    APIC_LVT0,
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
    BASE_BSP,
    BASE_EXTD,
    BROADCAST,
    CLEAN_AVIC,
    DOORBELL_MSR,
    EEXIST,
    EINVAL,
    EIO,
    ENOMEM,
    ENTRY_RUNNING,
    ENTRY_VALID,
    FLAT,
    ICR_BUSY,
    INHIBIT_APIC_BASE_MODIFIED,
    INHIBIT_APIC_ID_MODIFIED,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_TOO_BIG,
    INT_CTL_AVIC,
    INT_CTL_INTR_MASKING,
    INT_CTL_X2AVIC,
    LVT0_EXTINT,
    LVT_MASKED,
    NO_METADATA,
    SPIV_RESET,
    TLB_FLUSH_ASID,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_NESTED_CTL,
    VMCB_PHYSICAL_TABLE,
    VMCB_TLB_CONTROL,
    X2_BROADCAST,
    X2_ICR_RESERVED,
)

LVR = 0x00050014
ACCESS_SLOT = 509
"""Private memslot of the APIC access page."""
TAG_SHIFT = 12
TAG_MASK = 0xFFFFF
GA_LOG_INTR = 1 << 61
"""Software-only flag in the copy of an entry."""
HOST_ID = 0xFFF
DERIVED = 1 << INHIBIT_PHYSICAL_ID_ALIASED | 1 << INHIBIT_APIC_ID_MODIFIED | 1 << INHIBIT_LOGICAL_ID_ALIASED
"""Reasons that are recomputed from the APICs."""

TRAPS = frozenset(
    {APIC_ID, APIC_EOI, APIC_RRR, APIC_LDR, APIC_DFR, APIC_SPIV, APIC_ESR, APIC_ICR, APIC_TMICT, APIC_TDCR}
    | set(range(APIC_LVTT, APIC_LVTERR + 16, 16))
)
X2_OPEN_WRITES = (APIC_TPR, APIC_EOI, APIC_SELF_IPI, APIC_ICR)
X2_READ_ONLY = (APIC_ID, APIC_LVR, APIC_LDR, APIC_PPR)


class Kvm:
    """One VM."""

    def __init__(self, vm: int, irqchip: int, max_vcpu_ids: int) -> None:
        self.vm = vm
        self.irqchip = bool(irqchip)
        self.max_vcpu_ids = max_vcpu_ids
        self.vcpus: dict[int, Vcpu] = {}
        self.taken: set[int] = set()
        """Ids that exist or are being created."""
        self.phys_table = 0
        self.logical_table = 0
        self.inhibits = 0
        self.access_page = False
        self.access_page_gone = False
        self.vm_id = 0


class Vcpu:
    """One vCPU."""

    def __init__(self, kvm: Kvm, handle: int, vcpu_id: int) -> None:
        self.kvm = kvm
        self.handle = handle
        self.id = vcpu_id
        self.regs = 0
        """Address of the register page."""
        self.apic_base = 0
        self.apicv_active = False
        self.addressable = True
        self.entry = 0
        """Software copy of the physical entry."""
        self.ldr = 0
        self.dfr = FLAT
        """What the logical table was last told."""
        self.blocking = False
        self.irqs: dict[int, int] = {}
        """Device interrupts routed to this vCPU, and their vectors."""
        self.posting = False
        """Whether their IRTEs are posted; they are in host mode while AVIC is inactive."""

    @property
    def enabled(self) -> bool:
        """APIC enabled in hardware."""
        return bool(self.apic_base >> BASE_AE & 1)

    @property
    def x2(self) -> bool:
        """X2APIC mode."""
        return self.apic_base >> BASE_AE & 1 == 1 and self.apic_base >> BASE_EXTD & 1 == 1


class Upstream(Router):
    """The correct driver."""

    profile = "upstream"
    capabilities = frozenset({"layer-r", "layer-t", "exits", "posted", "helpers"})

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.avic = self.x2avic = self.ipiv = False
        self.max_phys = 0
        self.vms: dict[int, Kvm] = {}
        self.vcpus: dict[int, Vcpu] = {}
        self.hash: dict[int, Kvm] = {}
        self.next_vm_id = 0
        self.wrapped = False
        self.notifier = False
        self.last_on_core: dict[int, int] = {}

    # -- module

    def hw_setup(
        self,
        edx: int,
        ecx: int,
        npt: int,
        family: int,
        zen4: int,
        snp: int,
        hv_inuse_wr: int,
        avic: int,
        force: int,
        ipiv: int,
        next_tag: int,
    ) -> int:
        """Decide what to use."""
        self.next_vm_id = (next_tag - 1) & TAG_MASK
        self.avic = self._want_avic(edx, npt, family, zen4, snp, hv_inuse_wr, avic, force)
        self.x2avic = self.avic and bool(edx & 1 << 18)
        self.ipiv = self.avic and bool(ipiv) and family not in (0x17, 0x18)
        self.max_phys = 0
        if self.avic:
            self.max_phys = 254
            if self.x2avic:
                self.max_phys = 4095 if ecx & 1 << 6 else 511
            self.port.register_ga_notifier()
            self.notifier = True
        return int(self.avic) | self.x2avic << 1 | self.ipiv << 2 | self.max_phys << 16

    def _want_avic(
        self, edx: int, npt: int, family: int, zen4: int, snp: int, hv_inuse_wr: int, avic: int, force: int
    ) -> bool:
        if avic == -1:
            avic = int(bool(edx & 1 << 18) and (bool(zen4) or family >= 0x1A))
        if not avic or not npt:
            return False
        if snp and not hv_inuse_wr:
            return False
        return bool(edx & 1 << 13 or force)

    def hw_unsetup(self) -> None:
        """Module exit."""
        if self.notifier:
            self.port.unregister_ga_notifier()
            self.notifier = False

    # -- VMs

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

    def _vm_init(self, kvm: Kvm) -> int:
        port = self.port
        order = 3 if self.max_phys > 511 else 0
        kvm.phys_table = port.alloc_page(order)
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

    # -- vCPUs

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

    def _avic_init_vmcb(self, v: Vcpu) -> None:
        port, kvm = self.port, v.kvm
        port.vmcb_write(v.handle, VMCB_BACKING_PAGE, self.hpa_field(v.regs))
        port.vmcb_write(v.handle, VMCB_LOGICAL_TABLE, self.hpa_field(kvm.logical_table))
        port.vmcb_write(v.handle, VMCB_PHYSICAL_TABLE, self.hpa_field(kvm.phys_table))
        port.vmcb_write(v.handle, VMCB_APIC_BAR, APIC_BASE)
        if v.apicv_active:
            self._activate_vmcb(v)
        else:
            self._deactivate_vmcb(v)

    def _activate_vmcb(self, v: Vcpu) -> None:
        port, h = self.port, v.handle
        control = port.vmcb_read(h, VMCB_INT_CTL) & ~(1 << INT_CTL_AVIC | 1 << INT_CTL_X2AVIC)
        table = port.vmcb_read(h, VMCB_PHYSICAL_TABLE) & ~0xFFF
        x2 = self.x2avic and v.x2
        limit = self.max_phys if x2 else 254
        port.vmcb_write(h, VMCB_PHYSICAL_TABLE, table | min(limit, v.kvm.max_vcpu_ids - 1))
        control |= 1 << INT_CTL_AVIC
        if x2:
            control |= 1 << INT_CTL_X2AVIC
        port.vmcb_write(h, VMCB_INT_CTL, control)
        port.set_cr8_intercept(h, 0)
        port.tlb_flush(h)
        self._intercept_x2apic(v, not x2)
        port.mark_vmcb_dirty(h, 1 << CLEAN_AVIC)

    def _deactivate_vmcb(self, v: Vcpu) -> None:
        port, h = self.port, v.handle
        control = port.vmcb_read(h, VMCB_INT_CTL) & ~(1 << INT_CTL_AVIC | 1 << INT_CTL_X2AVIC)
        port.vmcb_write(h, VMCB_INT_CTL, control)
        port.vmcb_write(h, VMCB_PHYSICAL_TABLE, port.vmcb_read(h, VMCB_PHYSICAL_TABLE) & ~0xFFF)
        port.set_cr8_intercept(h, 1)
        self._intercept_x2apic(v, intercept=True)
        port.mark_vmcb_dirty(h, 1 << CLEAN_AVIC)

    def _intercept_x2apic(self, v: Vcpu, intercept: bool) -> None:
        on = int(intercept)
        for offset in X2_OPEN_WRITES:
            self.port.set_msr_intercept(v.handle, 0x800 + (offset >> 4), 1 if offset != APIC_TPR else on, on)

    # -- activation

    def inhibit(self, vm: int, reason: int, on: int) -> None:
        """Set or clear a reason."""
        self._set_inhibit(self.vms[vm], reason, bool(on))

    def _set_inhibit(self, kvm: Kvm, reason: int, on: bool) -> None:
        self._set_inhibits(kvm, 1 << reason, int(on) << reason)

    def _set_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        """Change these reasons."""
        self.port.lock("inhibit", kvm.vm)
        self._change_inhibits(kvm, reasons, value)
        self.port.unlock("inhibit", kvm.vm)

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        """With the lock held: everybody leaves the guest before the new mask is in force."""
        port = self.port
        mask = kvm.inhibits & ~reasons | value
        if bool(mask) != bool(kvm.inhibits):
            for v in list(kvm.vcpus.values()):
                port.request_refresh(v.handle)
                port.kick(v.handle)
        kvm.inhibits = mask

    def refresh(self, vcpu: int) -> None:
        """KVM_REQ_APICV_UPDATE."""
        self._update_apicv(self.vcpus[vcpu])

    def _update_apicv(self, v: Vcpu) -> None:
        """Follow the reasons; whoever changes them holds the lock until they are in force."""
        self.port.lock("inhibit", v.kvm.vm)
        active = self.avic and v.kvm.irqchip and v.enabled and not v.kvm.inhibits and v.addressable
        if active != v.apicv_active:
            v.apicv_active = active
            self._refresh_exec_ctrl(v)
        self.port.unlock("inhibit", v.kvm.vm)

    def _refresh_exec_ctrl(self, v: Vcpu) -> None:
        self._refresh_virtual_apic_mode(v)
        cpu = self.port.vcpu_cpu(v.handle)
        if v.apicv_active:
            self._set_irte_mode(v, posted=True)
            if cpu >= 0 and not v.blocking:
                self._load(v, cpu)
        else:
            self._put(v, log=False)
            self._set_irte_mode(v, posted=False)

    def _set_irte_mode(self, v: Vcpu, posted: bool) -> None:
        """The IRTEs of a vCPU are posted while AVIC is active for it."""
        self.port.lock("ir_list", v.handle)
        v.posting = posted
        for irq, vector in sorted(v.irqs.items()):
            if posted:
                self.port.set_vcpu_affinity(irq, self.hpa_field(v.regs), vector, self.vcpu_tag(v.handle))
            else:
                self.port.set_vcpu_affinity(irq, 0, 0, 0)
        self.port.unlock("ir_list", v.handle)

    def _refresh_virtual_apic_mode(self, v: Vcpu) -> None:
        if not self.avic or not v.regs:
            return
        if v.apicv_active:
            self._post_state_restore(v)
            self._activate_vmcb(v)
        else:
            self._deactivate_vmcb(v)

    def _recalculate_map(self, kvm: Kvm) -> None:
        """Recompute the inhibits that follow from ids and logical ids; the last to look sees what all have written."""
        if not self.avic:
            return
        self.port.lock("inhibit", kvm.vm)
        self._change_inhibits(kvm, DERIVED, self._derived(kvm))
        self.port.unlock("inhibit", kvm.vm)

    def _derived(self, kvm: Kvm) -> int:
        mask = 0
        ids: set[int] = set()
        slots: set[int] = set()
        kind = ""
        aliased = False
        for v in list(kvm.vcpus.values()):
            if not v.enabled:
                continue
            if not v.x2:
                xid = self._reg(v, APIC_ID) >> 24
                if xid in ids:
                    mask |= 1 << INHIBIT_PHYSICAL_ID_ALIASED
                ids.add(xid)
                if xid != v.id & 0xFF:
                    mask |= 1 << INHIBIT_APIC_ID_MODIFIED
            ldr = self._reg(v, APIC_LDR)
            if not self._sw_enabled(v) or not ldr or aliased:
                continue
            own = "x2" if v.x2 else "flat" if self._reg(v, APIC_DFR) == FLAT else "cluster"
            if kind and kind != own:
                aliased = True
                continue
            kind = own
            if own != "x2":
                aliased = not self._take_slot(slots, ldr >> 24, own)
        if aliased:
            mask |= 1 << INHIBIT_LOGICAL_ID_ALIASED
        return mask

    @staticmethod
    def _take_slot(slots: set[int], ldr: int, kind: str) -> bool:
        bits = ldr if kind == "flat" else ldr & 0xF
        if not bits:
            return True
        slot = ldr if kind == "flat" else ldr | 0x100
        if bits & bits - 1 or slot in slots:
            return False
        slots.add(slot)
        return True

    # -- logical table

    def _logical_entry(self, v: Vcpu, ldr: int, dfr: int) -> int:
        return 4 * self.logical_index(ldr, dfr)

    def _invalidate_logical(self, v: Vcpu) -> None:
        offset = self._logical_entry(v, v.ldr, v.dfr)
        if offset >= 0 and self.port.read32(v.kvm.logical_table, offset) & 0xFF == v.id:
            self.port.write32(v.kvm.logical_table, offset, 0)

    def _handle_ldr_update(self, v: Vcpu) -> None:
        ldr = 0 if v.x2 or not v.enabled else self._reg(v, APIC_LDR) >> 24
        if ldr != v.ldr:
            self._invalidate_logical(v)
            v.ldr = ldr
        self._install_logical(v)

    def _install_logical(self, v: Vcpu) -> None:
        offset = self._logical_entry(v, v.ldr, v.dfr)
        if offset < 0 or not v.addressable or v.id >= 0xFF:
            return
        entry = 1 << 31 | v.id
        if self.port.read32(v.kvm.logical_table, offset) != entry:
            self.port.write32(v.kvm.logical_table, offset, entry)

    def _handle_dfr_update(self, v: Vcpu) -> None:
        if v.x2 or not v.enabled:
            return
        dfr = self._reg(v, APIC_DFR) | 0x0FFFFFFF
        if dfr != v.dfr:
            self._invalidate_logical(v)
            v.dfr = dfr
        self._install_logical(v)

    def _post_state_restore(self, v: Vcpu) -> None:
        """Bring the table in line with whatever LDR and DFR became while writes were not trapped."""
        ldr = 0 if v.x2 or not v.enabled else self._reg(v, APIC_LDR) >> 24
        dfr = v.dfr if v.x2 or not v.enabled else self._reg(v, APIC_DFR) | 0x0FFFFFFF
        if (ldr, dfr) != (v.ldr, v.dfr):
            self._invalidate_logical(v)
            v.ldr, v.dfr = ldr, dfr
        self._install_logical(v)

    # -- the software APIC

    def _reg(self, v: Vcpu, offset: int) -> int:
        return int(self.port.read32(v.regs, offset))

    def _sw_enabled(self, v: Vcpu) -> bool:
        return self._reg(v, APIC_SPIV) >> 8 & 1 == 1

    def _find_highest(self, v: Vcpu, base: int) -> int:
        for n in range(7, -1, -1):
            word = self._reg(v, base + 16 * n)
            if word:
                return 32 * n + word.bit_length() - 1
        return -1

    def _set_vector(self, v: Vcpu, base: int, vector: int) -> None:
        self.port.or32(v.regs, base + (vector >> 5) * 16, 1 << (vector & 31))

    def _clear_vector(self, v: Vcpu, base: int, vector: int) -> None:
        self.port.and32(v.regs, base + (vector >> 5) * 16, 0xFFFFFFFF ^ 1 << (vector & 31))

    def _test_vector(self, v: Vcpu, base: int, vector: int) -> bool:
        return self._reg(v, base + (vector >> 5) * 16) >> (vector & 31) & 1 == 1

    def _update_ppr(self, v: Vcpu) -> int:
        value = self.ppr(self._reg(v, APIC_TPR) & 0xFF, max(self._find_highest(v, APIC_ISR), 0))
        self.port.write32(v.regs, APIC_PPR, value)
        return value

    def _has_interrupt(self, v: Vcpu) -> int:
        """The vector that could be taken now, -1 for none."""
        if not v.regs or not v.enabled:
            return -1
        vector = self._find_highest(v, APIC_IRR)
        if vector < 0 or vector & 0xF0 <= self._update_ppr(v) & 0xF0:
            return -1
        return vector

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

    # -- routing in the kernel

    def _as_apics(self, kvm: Kvm) -> tuple[list[Vcpu], list[tuple[int, int, int, int, int]]]:
        vcpus = sorted(kvm.vcpus.values(), key=lambda v: v.id)
        apics = []
        for v in vcpus:
            mode = 0 if not v.enabled else 2 if v.x2 else 1
            ident = v.id | (self._reg(v, APIC_ID) >> 24 << 32 | 1 << 40 if mode == 1 else 0)
            apics.append((ident, mode, self._reg(v, APIC_SPIV), self._reg(v, APIC_LDR), self._reg(v, APIC_DFR)))
        return vcpus, apics

    def _send(self, v: Vcpu, low: int, high: int) -> None:
        """kvm_apic_send_ipi."""
        vcpus, apics = self._as_apics(v.kvm)
        dest = high if v.x2 else high >> 24
        level, asserted = low >> 15 & 1, low >> 14 & 1
        mode, vector = low >> 8 & 7, low & 0xFF
        message = (vcpus.index(v), dest, low >> 11 & 1, low >> 18 & 3, mode, vector, level, asserted, 0, 0)
        hit = self.route(tuple(apics), message)
        for n, target in enumerate(vcpus):
            if hit >> n & 1:
                self._accept(target, mode, vector, level)

    def _accept(self, v: Vcpu, mode: int, vector: int, level: int) -> None:
        """__apic_accept_irq."""
        if mode in (0, 1):
            self._deliver(v, vector, level)
        else:
            self.port.signal(v.handle, mode, vector)

    def deliver(self, vcpu: int, vector: int, level: int) -> None:
        """An interrupt from the host."""
        self._deliver(self.vcpus[vcpu], vector, level)

    def _deliver(self, v: Vcpu, vector: int, level: int) -> None:
        if level:
            self._set_vector(v, APIC_TMR, vector)
        else:
            self._clear_vector(v, APIC_TMR, vector)
        self._set_vector(v, APIC_IRR, vector)
        self.port.smp_mb()
        self._complete_delivery(v)

    def _complete_delivery(self, v: Vcpu) -> None:
        port = self.port
        in_guest = port.vcpu_mode(v.handle)
        if not v.apicv_active:
            port.kick(v.handle)
        elif in_guest:
            self._ring_doorbell(v)
        else:
            port.wake(v.handle)

    def _ring_doorbell(self, v: Vcpu) -> None:
        cpu = self.port.vcpu_cpu(v.handle)
        if cpu > HOST_ID:
            self.port.kick(v.handle)
        elif cpu >= 0:  # it may have left its core since it was looked at; then VMRUN will see IRR
            self.port.wrmsr(DOORBELL_MSR, cpu)

    # -- exits

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """AVIC_INCOMPLETE_IPI."""
        v = self.vcpus[vcpu]
        low, high = info1 & 0xFFFFFFFF, info1 >> 32 & 0xFFFFFFFF
        identifier = info2 >> 32
        if identifier in (0, 2):
            self._emulate_ipi(v, low, high)
        elif identifier == 1:
            self._kick_targets(v, low, high, info2 & 0xFFF)
        elif identifier == 3:
            self.port.warn(f"AVIC: invalid backing page, icr {info1:#x}")
        return 1

    def _emulate_ipi(self, v: Vcpu, low: int, high: int) -> None:
        if self._reg(v, APIC_ICR) >> ICR_BUSY & 1:
            stored, dest = self._reg(v, APIC_ICR) & ~(1 << ICR_BUSY), self._reg(v, APIC_ICR2)
            self.port.write32(v.regs, APIC_ICR, stored)
            self._send(v, stored, dest)
        else:
            self._send(v, low & ~(1 << ICR_BUSY), high)

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        """Hardware has set the IRR bits; make everybody look."""
        dest = high if v.x2 else high >> 24
        shorthand, logical = low >> 18 & 3, low >> 11 & 1
        named = set() if shorthand else self._named_in_tables(v, dest, logical)
        vcpus, apics = self._as_apics(v.kvm)
        own = vcpus.index(v)
        message = (own, dest, logical, shorthand, 4, 0, 0, 1, 0, 0)  # mode NMI: match whoever is present
        hit = self.route(tuple(apics), message)
        for n, target in enumerate(vcpus):
            if hit >> n & 1 or target.id in named:
                self._complete_delivery(target)

    def _named_in_tables(self, v: Vcpu, dest: int, logical: int) -> set[int]:
        """Ids that hardware reached through the tables, in the sender's mode; a broadcast reaches every entry."""
        if dest == (X2_BROADCAST if v.x2 else BROADCAST):
            return set(v.kvm.vcpus)
        if not logical:
            return {dest}
        if v.x2:
            return {(dest >> 16 << 4) + b for b in range(16) if dest >> b & 1}
        if self._reg(v, APIC_DFR) == FLAT:
            indices = [b for b in range(8) if dest >> b & 1]
        else:
            indices = [4 * (dest >> 4) + b for b in range(4) if dest >> b & 1]
        entries = [self.port.read32(v.kvm.logical_table, 4 * i) for i in indices]
        return {entry & 0xFF for entry in entries if entry >> 31}

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """AVIC_NOACCEL."""
        v = self.vcpus[vcpu]
        offset = info1 & 0xFF0
        if offset in TRAPS:
            self._trap_write(v, offset, info2 & 0xFF)
            return 1
        self.port.emulate_instruction(v.handle)
        return 1

    def _trap_write(self, v: Vcpu, offset: int, vector: int) -> None:
        if offset == APIC_EOI:
            self._set_eoi(v, vector)
            return
        if offset == APIC_RRR:
            return
        if offset == APIC_LDR:
            self._handle_ldr_update(v)
        elif offset == APIC_DFR:
            self._handle_dfr_update(v)
        self._reg_write(v, offset, self._reg(v, offset))

    def prepare_guest(self, vcpu: int) -> None:
        """Before VMRUN."""
        port = self.port
        v = self.vcpus[vcpu]
        cpu = port.vcpu_cpu(vcpu)
        flush = TLB_FLUSH_ASID if self.last_on_core.get(cpu, vcpu) != vcpu else 0
        self.last_on_core[cpu] = vcpu
        port.vmcb_write(vcpu, VMCB_TLB_CONTROL, flush)
        if not v.regs or not v.enabled:
            return
        if not v.apicv_active:
            vector = self._has_interrupt(v)
            if vector >= 0:
                self._clear_vector(v, APIC_IRR, vector)
                self._set_vector(v, APIC_ISR, vector)
                port.inject(vcpu, vector)
        tpr = self._reg(v, APIC_TPR) >> 4 & 0xF
        control = port.vmcb_read(vcpu, VMCB_INT_CTL)
        if control & 0xF != tpr:
            port.vmcb_write(vcpu, VMCB_INT_CTL, control & ~0xF | tpr)

    # -- scheduling

    def vcpu_load(self, vcpu: int, host_id: int) -> None:
        """The vCPU's thread got a core."""
        v = self.vcpus[vcpu]
        if v.apicv_active and not v.blocking:
            self._load(v, host_id)

    def vcpu_put(self, vcpu: int) -> None:
        """The vCPU's thread lost its core."""
        v = self.vcpus[vcpu]
        if v.apicv_active and not v.blocking:
            self._put(v, log=False)

    def vcpu_blocking(self, vcpu: int) -> int:
        """About to sleep: stop running first, look at IRR last."""
        v = self.vcpus[vcpu]
        v.blocking = True
        if v.apicv_active:
            self._put(v, log=True)
        return int(self._has_interrupt(v) >= 0)

    def vcpu_unblocking(self, vcpu: int) -> None:
        """Awake."""
        v = self.vcpus[vcpu]
        v.blocking = False
        cpu = self.port.vcpu_cpu(vcpu)
        if v.apicv_active and cpu >= 0:
            self._load(v, cpu)

    def _load(self, v: Vcpu, cpu: int) -> None:
        port = self.port
        if cpu > HOST_ID:  # the entry cannot say so; the IOMMU must not log any more, all the same
            self._put(v, log=False)
            return
        port.lock("ir_list", v.handle)
        v.entry = v.entry & ~(HOST_ID | GA_LOG_INTR) | cpu | 1 << ENTRY_RUNNING
        self._publish(v)
        for irq in sorted(v.irqs) if v.posting else ():
            port.iommu_update_ga(irq, cpu, 0)
        port.unlock("ir_list", v.handle)

    def _put(self, v: Vcpu, log: bool) -> None:
        port = self.port
        port.lock("ir_list", v.handle)
        for irq in sorted(v.irqs) if v.posting else ():
            port.iommu_update_ga(irq, -1, int(log))
        v.entry &= ~(1 << ENTRY_RUNNING | GA_LOG_INTR)
        if log:
            v.entry |= GA_LOG_INTR
        self._publish(v)
        port.unlock("ir_list", v.handle)

    def _publish(self, v: Vcpu) -> None:
        """Write the copy to the table, less what hardware must not see."""
        if not v.addressable or not v.entry:
            return
        entry = v.entry & ~GA_LOG_INTR
        if not self.ipiv:
            entry &= ~(1 << ENTRY_RUNNING)
        self.port.write64(v.kvm.phys_table, 8 * v.id, entry)

    def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
        """Nothing to do."""

    def hwapic_isr_update(self, vcpu: int, max_isr: int) -> None:
        """Nothing to do."""

    # -- user space

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
        values = {o: int.from_bytes(registers[o : o + 4], "little") for o in range(0, 0x400, 16)}
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

    def get_lapic(self, vcpu: int) -> bytes:
        """KVM_GET_LAPIC."""
        v = self.vcpus[vcpu]
        image = bytearray(1024)
        for offset in range(0, 0x400, 16):
            image[offset : offset + 4] = self._reg(v, offset).to_bytes(4, "little")
        return bytes(image)

    # -- posted interrupts

    def vcpu_tag(self, vcpu: int) -> int:
        """The GATag."""
        v = self.vcpus[vcpu]
        return self._tag(v.kvm.vm_id, v.id)

    def _tag(self, vm_id: int, index: int) -> int:
        return (vm_id & TAG_MASK) << TAG_SHIFT | index & 0xFFF

    def ga_log_notify(self, tag: int) -> int:
        """Wake the vCPU of the tag."""
        port = self.port
        port.lock("ga_hash", 0)
        kvm = self.hash.get(tag >> TAG_SHIFT & TAG_MASK)
        v = None if kvm is None else kvm.vcpus.get(tag & 0xFFF)
        if v is not None:
            port.wake(v.handle)
        port.unlock("ga_hash", 0)
        return 0

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        """Route an interrupt."""
        port = self.port
        for old in list(self.vcpus.values()):
            if irq in old.irqs:
                port.lock("ir_list", old.handle)
                del old.irqs[irq]
                port.unlock("ir_list", old.handle)
        v = self.vcpus.get(vcpu)
        if v is None:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return 0
        port.lock("ir_list", v.handle)
        result = self._post(v, irq, vector)
        port.unlock("ir_list", v.handle)
        return result

    def _post(self, v: Vcpu, irq: int, vector: int) -> int:
        """With the vCPU's list locked, so that where it runs stays what the IRTE is told."""
        port = self.port
        if not v.apicv_active:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return 0
        result: int = port.set_vcpu_affinity(irq, self.hpa_field(v.regs), vector, self.vcpu_tag(v.handle))
        if result < 0:
            return result
        if result == NO_METADATA:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return -EIO
        v.irqs[irq] = vector
        v.posting = True
        if v.entry >> ENTRY_RUNNING & 1:
            port.iommu_update_ga(irq, v.entry & HOST_ID, 0)
        else:
            port.iommu_update_ga(irq, -1, int(bool(v.entry & GA_LOG_INTR)))
        return 0

    # -- pure functions

    def hpa_field(self, address: int) -> int:
        """Bits 51:12."""
        return address & ADDRESS_BITS

    def logical_index(self, ldr: int, dfr: int) -> int:
        """Index in the logical table."""
        if not ldr:
            return -1
        cluster, member = 0, ldr
        if dfr | 0x0FFFFFFF != FLAT:
            cluster, member = ldr >> 4, ldr & 0xF
            if cluster >= 0xF:
                return -1
        if not member or member & member - 1:
            return -1
        return (cluster << 2) + member.bit_length() - 1

    def phys_index(self, index: int) -> int:
        """Byte offset of an entry."""
        return 8 * index if 0 <= index < 0xFF else -1

    def tag_round_trip(self, vm_tag: int, index: int) -> tuple[int, int]:
        """Encode and decode."""
        tag = self._tag(vm_tag, index)
        return tag >> TAG_SHIFT & TAG_MASK, tag & 0xFFF

    def x2_ldr(self, apic_id: int) -> int:
        """LDR of an x2APIC."""
        return (apic_id >> 4) << 16 | 1 << (apic_id & 0xF)

    def ppr(self, tpr: int, isrv: int) -> int:
        """Processor priority."""
        if tpr & 0xF0 >= isrv & 0xF0:
            return tpr
        return isrv & 0xF0
