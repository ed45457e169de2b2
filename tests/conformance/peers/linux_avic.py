"""Drivers laid out as Linux's that differ as other correct ones do, and where released Linux breaks a clause."""

from __future__ import annotations

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.linux.irq_comm import RELEASED as RELEASED_ROUTING
from conformance.candidates.builtin.avic.linux.structs import Vcpu
from conformance.candidates.defects.avic import linux as released
from conformance.specs.avic.constants import (
    APIC_EOI,
    APIC_ICR,
    APIC_ISR,
    APIC_LDR,
    EINVAL,
    ICR_BUSY,
    TLB_FLUSH_ASID,
    VMCB_ASID,
    VMCB_TLB_CONTROL,
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


class WritesVmcbBeforeRunning(Linux):
    """Notes what becomes of AVIC, and brings the VMCB, the permission map and the TLB in line before the next VMRUN."""

    def set_virtual_apic_mode(self, v: Vcpu) -> None:
        """The tables at once, since others walk them."""
        if not v.apic or not self.enable_apicv:
            return
        if v.x2apic and v.addressable:
            self.leave_logical_table(v)
        if v.apicv_active:
            self.apicv_post_state_restore(v)
        self.__dict__.setdefault("owing", set()).add(v.handle)

    def prepare_guest(self, vcpu: int) -> None:
        """What is owed, with all clean bits cleared."""
        v = self.vcpus[vcpu]
        owing = self.__dict__.setdefault("owing", set())
        if vcpu in owing:
            owing.discard(vcpu)
            if v.apicv_active:
                self.activate_vmcb(v)
            else:
                self.deactivate_vmcb(v)
        super().prepare_guest(vcpu)
        self.port.mark_vmcb_dirty(vcpu, 0xFFFFFFFF)


class EarlyAwake(Linux):
    """Does not begin to sleep where something can be taken already."""

    def vcpu_blocking(self, vcpu: int) -> int:
        """IsRunning stays then, and nothing is to undo."""
        if self.has_interrupt(self.vcpus[vcpu]) >= 0:
            return 1
        return super().vcpu_blocking(vcpu)

    def vcpu_unblocking(self, vcpu: int) -> None:
        """Of who slept."""
        if self.vcpus[vcpu].blocking:
            super().vcpu_unblocking(vcpu)


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


class ResetWhileInactive(Linux):
    """kvm_lapic_reset updates the logical table for a vCPU whose AVIC is active, and for no other."""

    def restored(self, v: Vcpu) -> None:
        """apicv_post_state_restore, if active."""
        if v.apicv_active:
            super().restored(v)


PEERS = {
    "busy-from-page": BusyFromPage,
    "eager-access-page": EagerAccessPage,
    "atomic-isr": AtomicIsr,
    "atomic-restore": AtomicRestore,
    "writes-vmcb-before-running": WritesVmcbBeforeRunning,
    "early-awake": EarlyAwake,
    "cr8-always-intercepted": Cr8AlwaysIntercepted,
    "eoi-by-vector": EoiByVector,
    "one-asid-per-vm": OneAsidPerVm,
    "installs-on-dfr": InstallsOnDfr,
    "wide-addresses": WideAddresses,
    "posts-when-active": PostsWhenActive,
    "reset-while-inactive": ResetWhileInactive,
    "tables-6.16": Tables616,
    "kvm-routing": KvmRouting,
}


RELEASED = {
    "AVIC-061": released.DuplicateFoundLate,
    "AVIC-058": released.PermissionMapLast,
    "AVIC-038 DFR": released.RawDfr,
    "AVIC-038 x2APIC": released.EntryStaysInX2apic,
    "AVIC-071": released.LogicalBroadcastByTable,
    "AVIC-071 modes": released.BroadcastByTargetsMode,
    "AVIC-067": released.WakesAfterUnlock,
    "AVIC-102": released.TakesLowVectors,
    "AVIC-101": released.HashesUnmapped,
    "AVIC-104": released.NoNmiWhileDisabled,
    "AVIC-083": released.DoorbellOutOfRange,
    "AVIC-096": released.BroadcastQuirk,
    "AVIC-094": released.LogsWheneverPut,
}
