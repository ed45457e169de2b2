"""AVIC proper (avic.c): tables, VMCB, exits, scheduling, posted interrupts."""

from __future__ import annotations

from conformance.candidates.builtin.avic.linux.irq_comm import Irq, match_dest
from conformance.candidates.builtin.avic.linux.lapic import LVT_MASKS, Lapic
from conformance.candidates.builtin.avic.linux.structs import Irqfd, Kvm, Vcpu
from conformance.specs.avic import constants as k
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ESR,
    APIC_ICR,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVR,
    APIC_PPR,
    APIC_RRR,
    APIC_SELF_IPI,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TMICT,
    APIC_TMR,
    APIC_TPR,
    BROADCAST,
    CLEAN_AVIC,
    CPUID_AVIC,
    CPUID_X2AVIC,
    CPUID_X2AVIC_EXT,
    DOORBELL_MSR,
    EIO,
    ENOMEM,
    ENTRY_RUNNING,
    ENTRY_VALID,
    FLAT,
    ICR_BUSY,
    ICR_LOGICAL,
    ICR_SHORTHAND,
    INHIBIT_PHYSICAL_ID_TOO_BIG,
    INT_CTL_AVIC,
    INT_CTL_X2AVIC,
    LOGICAL_VALID,
    MAX_X2AVIC,
    MAX_X2AVIC_EXT,
    MAX_XAVIC,
    TRAP_WRITES,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
    X2_BROADCAST,
    X2APIC_MSRS,
)

RUNNING = 1 << ENTRY_RUNNING
GA_LOG_INTR = 1 << 61
"""In the shadow of an entry only."""
HOST_ID = 0xFFF
MAX_INDEX = 0xFFF
VCPU_BITS = 12
VM_ID_MASK = (1 << 32 - VCPU_BITS) - 1
AUTO = -1
TRAPS = {*TRAP_WRITES, APIC_EOI, APIC_ICR}

X2_READABLE = (
    *(APIC_ID, APIC_LVR, APIC_TPR, APIC_PPR, APIC_LDR, APIC_SPIV, APIC_ESR, APIC_ICR, APIC_TMICT, APIC_TDCR),
    *(bank + n * 16 for bank in (APIC_ISR, APIC_TMR, APIC_IRR) for n in range(8)),
    *LVT_MASKS,
)
"""Registers whose MSR an x2APIC may read without an exit."""
X2_WRITABLE = (APIC_TPR, APIC_EOI, APIC_SELF_IPI, APIC_ICR)


class Avic(Lapic):
    """The vendor's half of APICv."""

    next_vm_id = 0
    next_vm_id_wrapped = False

    # -- module

    def want_avic_enabled(self, edx: int, npt: int, cpu: tuple[int, int], snp: tuple[int, int], avic: int) -> bool:
        """avic_want_avic_enabled, but for force_avic: `cpu` is family and Zen 4, `snp` host and HvInUseWrAllowed."""
        if avic == AUTO:
            avic = int(edx >> CPUID_X2AVIC & 1 == 1 and (cpu[1] != 0 or cpu[0] >= 0x1A))
        if not avic or not npt:
            return False
        if not edx >> CPUID_AVIC & 1:
            return False
        return not snp[0] or snp[1] != 0

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
        """avic_hardware_setup, and what svm_hardware_setup makes of it."""
        assumed = edx | 1 << CPUID_AVIC if force else edx
        self.enable_apicv = self.want_avic_enabled(assumed, npt, (family, zen4), (snp, hv_inuse_wr), avic)
        self.tags_pass(next_tag)
        self.x2avic_enabled = self.enable_ipiv = False
        self.max_physical_id = 0
        if not self.enable_apicv:
            return 0
        if not edx >> CPUID_AVIC & 1:
            self.port.warn("AVIC unsupported in CPUID but force enabled, your system might crash and burn")
        self.x2avic_enabled = edx >> CPUID_X2AVIC & 1 == 1
        self.max_physical_id = MAX_XAVIC
        if self.x2avic_enabled:
            self.max_physical_id = MAX_X2AVIC_EXT if ecx >> CPUID_X2AVIC_EXT & 1 else MAX_X2AVIC
        self.enable_ipiv = bool(ipiv) and family not in (0x17, 0x18)
        self.port.register_ga_notifier()
        return 1 | self.x2avic_enabled << 1 | self.enable_ipiv << 2 | self.max_physical_id << 16

    def hw_unsetup(self) -> None:
        """avic_hardware_unsetup."""
        if self.enable_apicv:
            self.port.unregister_ga_notifier()
        self.enable_apicv = False

    def tags_pass(self, next_tag: int) -> None:
        """So many VMs came and went: the generator has come round when it stands lower than it did."""
        self.next_vm_id_wrapped = self.next_vm_id_wrapped or next_tag & VM_ID_MASK < self.next_vm_id
        self.next_vm_id = next_tag & VM_ID_MASK

    # -- VM

    def table_order(self, kvm: Kvm) -> int:
        """avic_get_physical_id_table_order."""
        pages = (8 * (min(kvm.max_vcpu_ids - 1, self.max_physical_id) + 1) + 4095) >> 12
        return (pages - 1).bit_length()

    def avic_vcpu_precreate(self, kvm: Kvm) -> int:
        """Tables and id, for good: what was allocated stays until the VM goes, also when the next thing fails."""
        if not kvm.irqchip or not self.enable_apicv:
            return 0
        if not kvm.physical_table:
            kvm.physical_table = self.zeroed_page(self.table_order(kvm))
            if not kvm.physical_table:
                return -ENOMEM
        if not kvm.logical_table:
            kvm.logical_table = self.zeroed_page(0)
            if not kvm.logical_table:
                return -ENOMEM
        self.add_vm_to_ga_log_list(kvm)
        return 0

    def zeroed_page(self, order: int) -> int:
        """__get_free_pages with __GFP_ZERO; 0 if there is none."""
        page = self.port.alloc_page(order)
        if page:
            self.port.clear_page(page)
        return page

    def add_vm_to_ga_log_list(self, kvm: Kvm) -> None:
        """avic_add_vm_to_ga_log_list."""
        if kvm.vm_id:
            return
        self.port.lock("ga_hash", 0)
        while True:
            self.next_vm_id = self.next_vm_id + 1 & VM_ID_MASK
            if self.next_vm_id == 0:
                self.next_vm_id_wrapped = True
                continue
            if self.next_vm_id_wrapped and any(other.vm_id == self.next_vm_id for other in self.kvms.values()):
                continue
            break
        kvm.vm_id = self.next_vm_id
        self.ga_log_vms[kvm.vm_id] = kvm
        self.port.unlock("ga_hash", 0)

    def avic_vm_pre_destroy(self, kvm: Kvm) -> None:
        """Out of the hash, while the vCPUs are still there."""
        if not self.enable_apicv or not kvm.vm_id:
            return
        self.port.lock("ga_hash", 0)
        self.ga_log_vms.pop(kvm.vm_id, None)
        self.port.unlock("ga_hash", 0)

    def avic_vm_destroy(self, kvm: Kvm) -> None:
        """Free the tables, where there are any."""
        for page in (kvm.logical_table, kvm.physical_table):
            if page:
                self.port.free_page(page)
        kvm.logical_table = kvm.physical_table = 0

    # -- VMCB

    def avic_init_vmcb(self, v: Vcpu) -> None:
        """Pointers and BAR always, whether AVIC is active now or not."""
        write = self.port.vmcb_write
        write(v.handle, VMCB_BACKING_PAGE, v.regs & ADDRESS_BITS)
        write(v.handle, VMCB_LOGICAL_TABLE, v.kvm.logical_table & ADDRESS_BITS)
        write(v.handle, VMCB_PHYSICAL_TABLE, v.kvm.physical_table & ADDRESS_BITS)
        write(v.handle, VMCB_APIC_BAR, APIC_BASE)
        if v.apicv_active:
            self.activate_vmcb(v)
        else:
            self.deactivate_vmcb(v)

    def max_index(self, v: Vcpu) -> int:
        """avic_get_max_physical_id, for the mode that the vCPU is in."""
        arch_max = self.max_physical_id if self.x2avic_enabled and v.x2apic else MAX_XAVIC
        return min(v.kvm.max_vcpu_ids - 1, arch_max)

    def activate_vmcb(self, v: Vcpu) -> None:
        """avic_activate_vmcb."""
        x2avic = self.x2avic_enabled and v.x2apic
        self._write_avic_fields(v, 1 << INT_CTL_AVIC | x2avic << INT_CTL_X2AVIC, self.max_index(v))
        self.port.set_cr8_intercept(v.handle, 0)
        self.port.tlb_flush(v.handle)
        self.set_x2apic_msr_interception(v, not x2avic)

    def deactivate_vmcb(self, v: Vcpu) -> None:
        """avic_deactivate_vmcb."""
        self._write_avic_fields(v, 0, 0)
        self.port.set_cr8_intercept(v.handle, 1)
        self.set_x2apic_msr_interception(v, True)

    def _write_avic_fields(self, v: Vcpu, bits: int, index: int) -> None:
        int_ctl = self.port.vmcb_read(v.handle, VMCB_INT_CTL) & ~(1 << INT_CTL_AVIC | 1 << INT_CTL_X2AVIC)
        table = self.port.vmcb_read(v.handle, VMCB_PHYSICAL_TABLE) & ~MAX_INDEX
        self.port.vmcb_write(v.handle, VMCB_PHYSICAL_TABLE, table | index)
        self.port.vmcb_write(v.handle, VMCB_INT_CTL, int_ctl | bits)

    def set_x2apic_msr_interception(self, v: Vcpu, intercept: bool) -> None:
        """avic_set_x2apic_msr_interception."""
        if intercept == v.x2avic_msrs_intercepted or not self.x2avic_enabled:
            return
        for offset in sorted({*X2_READABLE, *X2_WRITABLE}):
            read = intercept or offset not in X2_READABLE
            write = intercept or offset not in X2_WRITABLE
            self.port.set_msr_intercept(v.handle, X2APIC_MSRS + (offset >> 4), int(read), int(write))
        v.x2avic_msrs_intercepted = intercept

    # -- vCPU

    def avic_init_vcpu(self, v: Vcpu) -> int:
        """avic_init_vcpu and avic_init_backing_page: the access page, then the entry."""
        if not self.enable_apicv or not v.kvm.irqchip:
            return 0
        if v.id > self.max_physical_id:
            self.set_apicv_inhibit(v.kvm, INHIBIT_PHYSICAL_ID_TOO_BIG)
            v.apicv_active = v.addressable = False
            return 0
        if not v.kvm.inhibits:
            error = self.alloc_apic_access_page(v.kvm)
            if error:
                return error
        v.entry = v.regs & ADDRESS_BITS | 1 << ENTRY_VALID
        self.write_entry(v, v.entry)
        return 0

    def avic_free_vcpu(self, v: Vcpu) -> None:
        """Undo avic_init_vcpu. Linux has no such thing: its vCPUs go with the VM."""
        self.port.lock("ir_list", v.handle)
        left = list(v.ir_list.values())
        v.ir_list.clear()
        for irqfd in left:
            self.irqfds.pop(irqfd.irq, None)
            if irqfd.guest_mode:
                self.port.set_vcpu_affinity(irqfd.irq, 0, 0, 0)
        self.port.unlock("ir_list", v.handle)
        if v.entry:
            self.write_entry(v, 0)
            v.entry = 0
            self.invalidate_logical_id_entry(v)

    def write_entry(self, v: Vcpu, entry: int) -> None:
        """WRITE_ONCE of the vCPU's slot in the physical table."""
        self.port.write64(v.kvm.physical_table, 8 * v.id, entry)

    # -- the logical table

    def logical_index(self, ldr: int, dfr: int) -> int:
        """avic_get_logical_id_entry, as an index; -1 for none."""
        cluster = 0
        if dfr != FLAT:
            cluster = ldr >> 4
            if cluster >= 0xF:
                return -1
            ldr &= 0xF
        if not ldr or ldr & ldr - 1:
            return -1
        return (cluster << 2) + ldr.bit_length() - 1

    def ldr_write(self, v: Vcpu, ldr: int, dfr: int) -> None:
        """avic_ldr_write."""
        index = self.logical_index(ldr >> 24, dfr)
        if index >= 0:
            self.port.write32(v.kvm.logical_table, 4 * index, 1 << LOGICAL_VALID | self.get_reg(v, APIC_ID) >> 24)

    def invalidate_logical_id_entry(self, v: Vcpu) -> None:
        """avic_invalidate_logical_id_entry: of the LDR and DFR that are remembered."""
        index = self.logical_index(v.ldr_reg >> 24, v.dfr_reg)
        if index >= 0 and v.addressable:
            self.port.and32(v.kvm.logical_table, 4 * index, ~(1 << LOGICAL_VALID) & 0xFFFFFFFF)

    def handle_ldr_update(self, v: Vcpu) -> None:
        """avic_handle_ldr_update."""
        ldr = self.get_reg(v, APIC_LDR)
        if v.x2apic or ldr == v.ldr_reg:
            return
        self.invalidate_logical_id_entry(v)
        v.ldr_reg = ldr
        self.ldr_write(v, ldr, self.effective_dfr(v))

    def handle_dfr_update(self, v: Vcpu) -> None:
        """avic_handle_dfr_update: the new entry comes with the next LDR write."""
        dfr = self.effective_dfr(v)
        if v.x2apic or v.dfr_reg == dfr:
            return
        self.invalidate_logical_id_entry(v)
        v.dfr_reg = dfr

    def effective_dfr(self, v: Vcpu) -> int:
        """DFR as the software APIC will keep it; released Linux caches what the guest wrote."""
        return self.get_reg(v, APIC_DFR) | 0x0FFFFFFF

    def apicv_post_state_restore(self, v: Vcpu) -> None:
        """avic_apicv_post_state_restore."""
        if v.addressable:
            self.handle_dfr_update(v)
            self.handle_ldr_update(v)

    def leave_logical_table(self, v: Vcpu) -> None:
        """An x2APIC has no logical entry; released Linux leaves the one it had as an xAPIC."""
        if v.ldr_reg:
            self.invalidate_logical_id_entry(v)
            v.ldr_reg = 0

    # -- doorbell and kicks

    def ring_doorbell(self, v: Vcpu) -> None:
        """avic_ring_doorbell; a core that has no doorbell is interrupted instead."""
        cpu = self.port.vcpu_cpu(v.handle)
        if cpu & ~HOST_ID:
            self.port.kick(v.handle)
        else:
            self.port.wrmsr(DOORBELL_MSR, cpu)

    def complete_interrupt_delivery(self, v: Vcpu) -> None:
        """svm_complete_interrupt_delivery: the mode is read before apicv_active."""
        in_guest = self.port.vcpu_mode(v.handle)
        if not v.apicv_active:
            self.port.kick(v.handle)
        elif in_guest:
            self.ring_doorbell(v)
        else:
            self.port.wake(v.handle)

    def deliver_interrupt(self, v: Vcpu, vector: int) -> None:
        """svm_deliver_interrupt."""
        self.set_vector(v, APIC_IRR, vector)
        self.port.smp_mb()
        self.complete_interrupt_delivery(v)

    def kick_vcpu_by_physical_id(self, kvm: Kvm, physical_id: int) -> None:
        """avic_kick_vcpu_by_physical_id."""
        for v in list(kvm.vcpus):
            if v.id == physical_id:
                self.complete_interrupt_delivery(v)

    def kick_target_vcpus_fast(self, source: Vcpu, low: int, dest: int, index: int) -> bool:
        """avic_kick_target_vcpus_fast: by the bits of the destination; False for those who must be matched."""
        if low >> ICR_SHORTHAND & 3 or self.needs_match(source, low, dest):
            return False
        if not low >> ICR_LOGICAL & 1:
            if dest != index:
                return False
            self.kick_vcpu_by_physical_id(source.kvm, dest)
            return True
        if source.x2apic:
            for bit in range(16):
                if dest >> bit & 1:
                    self.kick_vcpu_by_physical_id(source.kvm, ((dest >> 16) << 4) + bit)
            return True
        flat = self.get_reg(source, APIC_DFR) == FLAT
        first, members = (0, dest) if flat else ((dest >> 4) << 2, dest & 0xF)
        for bit in range(8):
            if members >> bit & 1:
                entry = self.port.read32(source.kvm.logical_table, 4 * (first + bit))
                if entry >> LOGICAL_VALID & 1:
                    self.kick_vcpu_by_physical_id(source.kvm, entry & 0xFF)
        return True

    def needs_match(self, source: Vcpu, low: int, dest: int) -> bool:
        """A broadcast; released Linux knows only physical ones, and looks a logical one up in the table."""
        return dest == (X2_BROADCAST if source.x2apic else BROADCAST)

    def is_broadcast(self, source: Vcpu, dest: int) -> bool:
        """Whether hardware reached every entry; released Linux asks each target in the target's own mode."""
        return dest == (X2_BROADCAST if source.x2apic else BROADCAST)

    def kick_target_vcpus(self, source: Vcpu, low: int, high: int, index: int) -> None:
        """avic_kick_target_vcpus: hardware has set IRR, so whoever sleeps is woken."""
        dest = high if source.x2apic else high >> 24
        if self.kick_target_vcpus_fast(source, low, dest, index):
            return
        irq = Irq(0, 0, dest, low >> ICR_LOGICAL & 1 == 1, low >> ICR_SHORTHAND & 3)
        sender = self.snapshot(source)
        everybody = self.is_broadcast(source, dest) and irq.shorthand == 0
        for v in list(source.kvm.vcpus):
            if everybody or match_dest(self.snapshot(v), sender, irq, self.routing):
                self.complete_interrupt_delivery(v)

    # -- exits

    def incomplete_ipi_interception(self, v: Vcpu, info1: int, info2: int) -> int:
        """avic_incomplete_ipi_interception."""
        low, high = info1 & 0xFFFFFFFF, info1 >> 32
        match info2 >> 32:
            case k.IPI_INVALID_TARGET | k.IPI_INVALID_TYPE:
                if self.is_busy(v, low):
                    self.write_nodecode(v, APIC_ICR)
                else:
                    self.send_ipi(v, low, high)
            case k.IPI_NOT_RUNNING:
                self.kick_target_vcpus(v, low, high, info2 & MAX_INDEX)
            case k.IPI_INVALID_PAGE:
                self.port.warn("Invalid backing page")
        return 1

    def is_busy(self, v: Vcpu, low: int) -> bool:
        """Whether hardware left the busy bit set: as the exit says."""
        return low >> ICR_BUSY & 1 == 1

    def unaccelerated_access_interception(self, v: Vcpu, info1: int) -> int:
        """avic_unaccelerated_access_interception."""
        offset = info1 & 0xFF0
        if offset not in TRAPS:
            return self.port.emulate_instruction(v.handle)
        if offset == APIC_LDR:
            self.handle_ldr_update(v)
        elif offset == APIC_DFR:
            self.handle_dfr_update(v)
        if offset != APIC_RRR:
            self.write_nodecode(v, offset)
        return 1


class Scheduling(Avic):
    """Load and put, and the device interrupts that follow them."""

    def update_iommu_vcpu_affinity(self, v: Vcpu, cpu: int, log: bool, toggle: bool) -> None:
        """avic_update_iommu_vcpu_affinity, with the list's lock held."""
        for irqfd in v.ir_list.values():
            if toggle and cpu < 0:
                if irqfd.guest_mode:
                    self.port.set_vcpu_affinity(irqfd.irq, 0, 0, 0)
                irqfd.guest_mode = False
            elif toggle:
                self.activate_guest_mode(v, irqfd, cpu, log)
            elif irqfd.guest_mode:
                self.port.iommu_update_ga(irqfd.irq, cpu, int(log))

    def activate_guest_mode(self, v: Vcpu, irqfd: Irqfd, cpu: int, log: bool) -> int:
        """amd_iommu_activate_guest_mode: post, and say where to; what cannot be kept up to date returns to the host."""
        result = self.port.set_vcpu_affinity(irqfd.irq, v.regs & ADDRESS_BITS, irqfd.vector, self.gatag(v))
        irqfd.guest_mode = result == 0
        if result == 0:
            self.port.iommu_update_ga(irqfd.irq, cpu, int(log))
            return 0
        self.port.set_vcpu_affinity(irqfd.irq, 0, 0, 0)
        return result if result < 0 else -EIO

    def avic_vcpu_load(self, v: Vcpu, cpu: int, toggle: bool = False) -> None:
        """__avic_vcpu_load: entry, then IRTEs."""
        if cpu & ~HOST_ID:
            self.port.warn(f"host APIC id {cpu:#x} does not fit an AVIC entry")
            return
        if not v.entry:
            return
        self.port.lock("ir_list", v.handle)
        entry = v.entry & ~(HOST_ID | GA_LOG_INTR) | cpu | RUNNING
        v.entry = entry
        self.write_entry(v, entry if self.enable_ipiv else entry & ~RUNNING)
        self.update_iommu_vcpu_affinity(v, cpu, log=False, toggle=toggle)
        self.port.unlock("ir_list", v.handle)

    def avic_vcpu_put(self, v: Vcpu, blocking: bool = False, toggle: bool = False) -> None:
        """__avic_vcpu_put: IRTEs, then entry; the host id stays."""
        if not v.entry:
            return
        self.port.lock("ir_list", v.handle)
        self.update_iommu_vcpu_affinity(v, -1, log=blocking, toggle=toggle)
        entry = v.entry & ~(RUNNING | GA_LOG_INTR)
        if self.enable_ipiv:
            self.write_entry(v, entry)
        v.entry = entry | GA_LOG_INTR if blocking else entry
        self.port.unlock("ir_list", v.handle)

    def set_virtual_apic_mode(self, v: Vcpu) -> None:
        """avic_refresh_virtual_apic_mode."""
        if not v.apic or not self.enable_apicv:
            return
        if v.x2apic and v.addressable:
            self.leave_logical_table(v)
        if v.apicv_active:
            self.apicv_post_state_restore(v)
            self.activate_vmcb(v)
        else:
            self.deactivate_vmcb(v)
        self.port.mark_vmcb_dirty(v.handle, 1 << CLEAN_AVIC)

    def refresh_apicv_exec_ctrl(self, v: Vcpu) -> None:
        """avic_refresh_apicv_exec_ctrl."""
        if not self.enable_apicv:
            return
        self.set_virtual_apic_mode(v)
        if v.apicv_active:
            self.avic_vcpu_load(v, v.cpu, toggle=True)
        else:
            self.avic_vcpu_put(v, toggle=True)

    # -- posted interrupts

    def gatag(self, v: Vcpu) -> int:
        """AVIC_GATAG."""
        return v.kvm.vm_id << VCPU_BITS | v.idx

    def ga_log_notifier(self, tag: int) -> None:
        """avic_ga_log_notifier; the wake-up happens under the lock, so that the VM cannot go meanwhile."""
        self.port.lock("ga_hash", 0)
        kvm = self.ga_log_vms.get(tag >> VCPU_BITS)
        for v in list(kvm.vcpus) if kvm is not None else ():
            if v.idx == tag & (1 << VCPU_BITS) - 1:
                self.port.wake(v.handle)
        self.port.unlock("ga_hash", 0)

    def pi_update_irte(self, irq: int, v: Vcpu | None, vector: int) -> int:
        """avic_pi_update_irte: off the old vCPU's list first, whatever the new route is."""
        if irq in self.irqfds:
            old, _ = self.irqfds.pop(irq)
            self.port.lock("ir_list", old.handle)
            old.ir_list.pop(irq, None)
            self.port.unlock("ir_list", old.handle)
        if v is None or not v.apic:
            self.port.set_vcpu_affinity(irq, 0, 0, 0)
            return 0
        irqfd = Irqfd(irq, vector, guest_mode=False)
        self.port.lock("ir_list", v.handle)
        error = 0
        if v.apicv_active:
            running = v.entry & RUNNING
            cpu = v.entry & HOST_ID if running else -1
            error = self.activate_guest_mode(v, irqfd, cpu, log=not running and v.entry & GA_LOG_INTR != 0)
        else:
            self.port.set_vcpu_affinity(irq, 0, 0, 0)
        if not error:
            v.ir_list[irq] = irqfd
            self.irqfds[irq] = (v, irqfd)
        self.port.unlock("ir_list", v.handle)
        return error
