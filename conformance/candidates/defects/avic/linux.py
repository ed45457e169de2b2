"""Released Linux where it breaks a clause that its driver here keeps, a class a place."""

from __future__ import annotations

from dataclasses import replace

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.linux.structs import Irqfd, Kvm, Vcpu
from conformance.specs.avic.constants import (
    APIC_DFR,
    BROADCAST,
    DOORBELL_MSR,
    EEXIST,
    ENOMEM,
    ICR_LOGICAL,
    MAX_XAVIC,
    X2_BROADCAST,
)


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


class BroadcastByTargetsMode(Linux):
    """avic_kick_target_vcpus matches a broadcast in the target's mode, so an x2APIC's wakes no xAPIC."""

    def is_broadcast(self, source: Vcpu, dest: int) -> bool:
        """Nothing is special."""
        return False


class IndexBehindTheTable(Linux):
    """The maximum index is the number of ids, not the highest: one entry more than the table may have."""

    def max_index(self, v: Vcpu) -> int:
        """One too many, where user space set the limit."""
        return min(v.kvm.max_vcpu_ids, self.max_physical_id if self.x2avic_enabled and v.x2apic else MAX_XAVIC)
