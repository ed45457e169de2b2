"""Drivers laid out as Linux's that differ as other correct ones do, and released Linux where it breaks a clause."""

from __future__ import annotations

from dataclasses import replace

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.linux.irq_comm import RELEASED as RELEASED_ROUTING
from conformance.candidates.builtin.avic.linux.structs import Irqfd, Kvm, Vcpu
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_ISR,
    APIC_LDR,
    BROADCAST,
    DOORBELL_MSR,
    EEXIST,
    EINVAL,
    ENOMEM,
    ICR_BUSY,
    ICR_LOGICAL,
    TLB_FLUSH_ASID,
    VMCB_ASID,
    VMCB_TLB_CONTROL,
    X2_BROADCAST,
)

# -- other correct drivers


class BusyFromPage(Linux):
    """Takes the busy bit from the ICR in the page as well as from EXITINFO1, so it is cleared wherever it is set."""

    def is_busy(self, v: Vcpu, low: int) -> bool:
        """As the exit or the page says."""
        return super().is_busy(v, low) or self.get_reg(v, APIC_ICR) >> ICR_BUSY & 1 == 1


class EagerAccessPage(Linux):
    """Deletes the access page when the mode changes, not when the vCPU next enters."""

    def set_virtual_apic_mode(self, v: Vcpu) -> None:
        """The slot first."""
        if v.hw_enabled and v.x2apic and not self.x2avic_enabled:
            self.inhibit_apic_access_page(v.kvm)
        super().set_virtual_apic_mode(v)


class AtomicIsr(Linux):
    """Changes ISR with locked instructions too."""

    def change_isr(self, v: Vcpu, vector: int, on: bool) -> None:
        """As IRR."""
        if on:
            self.set_vector(v, APIC_ISR, vector)
        else:
            self.clear_vector(v, APIC_ISR, vector)


class AtomicRestore(AtomicIsr):
    """Writes restored and reset vectors with locked instructions as well."""

    def store_state(self, v: Vcpu, offset: int, value: int) -> None:
        """Banks of vectors by AND and OR, the rest plainly."""
        if APIC_ISR <= offset < APIC_ISR + 0x180:
            self.port.and32(v.regs, offset, value)
            self.port.or32(v.regs, offset, value)
        else:
            super().store_state(v, offset, value)

    def clear_vectors(self, v: Vcpu) -> None:
        """AND with 0."""
        for n in range(24):
            self.port.and32(v.regs, APIC_ISR + n * 16, 0)


class Cr8AlwaysIntercepted(Linux):
    """Intercepts CR8 writes all the time that AVIC is not active."""

    def update_cr8_intercept(self, v: Vcpu) -> None:
        """deactivate_vmcb has set it."""


class EoiByVector(Linux):
    """Ends the vector that the exit names, also when hardware had cleared its bit."""

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """A level EOI is finished from EXITINFO2."""
        v = self.vcpus[vcpu]
        if info1 & 0xFF0 != APIC_EOI or info2 & 0xFF < 16:
            return super().noaccel_exit(vcpu, info1, info2)
        self.change_isr(v, info2 & 0xFF, on=False)
        self.update_ppr(v)
        self.send_ioapic_eoi(v, info2 & 0xFF)
        return 1


class OneAsidPerVm(Linux):
    """All vCPUs of a VM share an ASID, and a core that runs another of them flushes it."""

    def pre_svm_run(self, v: Vcpu) -> None:
        """TLB_CONTROL 3 unless this vCPU ran here last, and nowhere else since."""
        last = self.__dict__.setdefault("last_on_core", {})
        moved = last.get(v.cpu) is not v or v.asid_cpu != v.cpu
        last[v.cpu], v.asid_cpu = v, v.cpu
        self.port.vmcb_write(v.handle, VMCB_ASID, 1 + v.kvm.id)
        self.port.vmcb_write(v.handle, VMCB_TLB_CONTROL, TLB_FLUSH_ASID if moved else 0)


class InstallsOnDfr(Linux):
    """Installs the entry of the new DFR at once, instead of with the next LDR write."""

    def handle_dfr_update(self, v: Vcpu) -> None:
        """The old entry goes, the new one comes."""
        changed = not v.x2apic and v.dfr_reg != self.effective_dfr(v)
        super().handle_dfr_update(v)
        if changed:
            v.ldr_reg = self.get_reg(v, APIC_LDR)
            self.ldr_write(v, v.ldr_reg, v.dfr_reg)


class WideAddresses(Linux):
    """A guest that was told 52 physical address bits."""

    maxphyaddr = 52


class PostsWhenActive(Linux):
    """Before 6.17: an IRTE that is routed while AVIC is off is on nobody's list, and in host mode until routed anew."""

    def pi_update_irte(self, irq: int, v: Vcpu | None, vector: int) -> int:
        """As if it had no vCPU."""
        return super().pi_update_irte(irq, v if v is not None and v.apicv_active else None, vector)


class Tables616(PostsWhenActive):
    """Until 6.16: tables and id are made with the VM, and a vCPU whose id is too big is refused."""

    profile = "arch"

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        """avic_vm_init; what it allocated goes when it fails."""
        error = super().vm_create(vm, irqchip, max_vcpu_ids)
        if error:
            return error
        error = self.avic_vcpu_precreate(self.kvms[vm])
        if error:
            self.vm_destroy(vm)
        return error

    def avic_init_vcpu(self, v: Vcpu) -> int:
        """-EINVAL above the hardware's maximum."""
        if self.enable_apicv and v.kvm.irqchip and v.id > self.max_physical_id:
            return -EINVAL
        return super().avic_init_vcpu(v)


class KvmRouting(Linux):
    """Routes by the optimised map and its quirks, as released."""

    profile = "kvm-lapic"
    routes_as_manuals = False
    routing = RELEASED_ROUTING


PEERS = {
    "busy-from-page": BusyFromPage,
    "eager-access-page": EagerAccessPage,
    "atomic-isr": AtomicIsr,
    "atomic-restore": AtomicRestore,
    "cr8-always-intercepted": Cr8AlwaysIntercepted,
    "eoi-by-vector": EoiByVector,
    "one-asid-per-vm": OneAsidPerVm,
    "installs-on-dfr": InstallsOnDfr,
    "wide-addresses": WideAddresses,
    "posts-when-active": PostsWhenActive,
    "tables-6.16": Tables616,
    "kvm-routing": KvmRouting,
}


# -- released Linux


class DuplicateFoundLate(Linux):
    """kvm_vm_ioctl_create_vcpu looks for the id after kvm_arch_vcpu_create overwrote the living vCPU's entry."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        """The entry then points at a page that is freed."""
        kvm = self.kvms[vm]
        if apic_id not in kvm.ids:
            return super().vcpu_create(vm, vcpu, apic_id)
        v = Vcpu(vcpu, kvm, apic_id)
        error = self.arch_vcpu_create(v)
        if error:
            return error
        self.port.free_vmcb(vcpu)
        self.port.kfree(v.msrpm)
        self.free_lapic(v)
        return -EEXIST


class PermissionMapLast(Linux):
    """svm_vcpu_create allocates the MSR permission map after avic_init_vcpu, and does not undo that when it fails."""

    def arch_vcpu_create(self, v: Vcpu) -> int:
        """The entry of the vCPU that is not created stays."""
        if not self.create_lapic(v):
            return -ENOMEM
        error = self.port.alloc_vmcb(v.handle)
        if error:
            self.free_lapic(v)
            return error
        error = self.avic_init_vcpu(v)
        if not error:
            v.msrpm = self.port.kzalloc(8192)
            error = 0 if v.msrpm else -ENOMEM
        if error:
            self.port.free_vmcb(v.handle)
            self.free_lapic(v)
        return error


class RawDfr(Linux):
    """avic_handle_dfr_update caches what the guest wrote, before its low 28 bits are forced to 1."""

    def effective_dfr(self, v: Vcpu) -> int:
        """As it stands in the page."""
        return self.get_reg(v, APIC_DFR)


class EntryStaysInX2apic(Linux):
    """Going from xAPIC to x2APIC leaves the logical entry, since the handlers do nothing for an x2APIC."""

    def leave_logical_table(self, v: Vcpu) -> None:
        """Nothing."""


class LogicalBroadcastByTable(Linux):
    """avic_kick_target_vcpus_fast knows physical broadcasts only, and takes a logical 0xFF for eight table slots."""

    def needs_match(self, source: Vcpu, low: int, dest: int) -> bool:
        """A physical broadcast."""
        physical = not low >> ICR_LOGICAL & 1
        return physical and dest == (X2_BROADCAST if source.x2apic else BROADCAST)


class ResetWhileInactive(Linux):
    """kvm_lapic_reset updates the logical table for a vCPU whose AVIC is active, and for no other."""

    def restored(self, v: Vcpu) -> None:
        """apicv_post_state_restore, if active."""
        if v.apicv_active:
            super().restored(v)


class WakesAfterUnlock(Linux):
    """avic_ga_log_notifier finds the vCPU under the lock and wakes it without, when its VM may be gone."""

    def ga_log_notifier(self, tag: int) -> None:
        """Wake what was found."""
        self.port.lock("ga_hash", 0)
        kvm: Kvm | None = self.ga_log_vms.get(tag >> 12)
        found = [v for v in kvm.vcpus if v.idx == tag & 0xFFF] if kvm is not None else []
        self.port.unlock("ga_hash", 0)
        for v in found:
            self.port.wake(v.handle)


class TakesLowVectors(Linux):
    """__apic_accept_irq sets IRR for vectors 0 to 15."""

    lowest_vector = 0


class HashesUnmapped(Linux):
    """kvm_apic_map_get_dest_lapic picks among the bits of the destination, and loses the message where nobody is."""

    routing = replace(Linux.routing, hashes_unmapped=True)


class NoNmiWhileDisabled(Linux):
    """kvm_recalculate_logical_map leaves software-disabled APICs out, so a logical NMI does not reach them."""

    routing = replace(Linux.routing, enabled_only=True)


class DoorbellOutOfRange(Linux):
    """avic_ring_doorbell writes whatever APIC id the core has."""

    def ring_doorbell(self, v: Vcpu) -> None:
        """With reserved bits."""
        self.port.wrmsr(DOORBELL_MSR, self.port.vcpu_cpu(v.handle))


class BroadcastQuirk(Linux):
    """An MSI to 0xFF reaches x2APICs as a broadcast, unless user space turned the quirk off."""

    routes_as_manuals = False


class LogsWheneverPut(Linux):
    """Before 6.17 an IRTE logs whenever its vCPU does not run, blocking or not."""

    def update_iommu_vcpu_affinity(self, v: Vcpu, cpu: int, log: bool, toggle: bool) -> None:
        """GALogIntr always."""
        super().update_iommu_vcpu_affinity(v, cpu, True, toggle)

    def activate_guest_mode(self, v: Vcpu, irqfd: Irqfd, cpu: int, log: bool) -> int:
        """GALogIntr always."""
        return super().activate_guest_mode(v, irqfd, cpu, True)


RELEASED = {
    "AVIC-061": DuplicateFoundLate,
    "AVIC-058": PermissionMapLast,
    "AVIC-038 DFR": RawDfr,
    "AVIC-038 x2APIC": EntryStaysInX2apic,
    "AVIC-071": LogicalBroadcastByTable,
    "AVIC-044": ResetWhileInactive,
    "AVIC-067": WakesAfterUnlock,
    "AVIC-102": TakesLowVectors,
    "AVIC-101": HashesUnmapped,
    "AVIC-104": NoNmiWhileDisabled,
    "AVIC-083": DoorbellOutOfRange,
    "AVIC-096": BroadcastQuirk,
    "AVIC-094": LogsWheneverPut,
}
