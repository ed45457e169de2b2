"""Requests, inhibits and the APIC access page (x86.c); what the vendor module supplies is declared here."""

from __future__ import annotations

from conformance.candidates.builtin.avic.linux.irq_comm import Routing
from conformance.candidates.builtin.avic.linux.structs import Irqfd, Kvm, Vcpu
from conformance.specs.avic import Port
from conformance.specs.avic.constants import APIC_BASE

ACCESS_PAGE_SLOT = 0x1FD
"""APIC_ACCESS_PAGE_PRIVATE_MEMSLOT."""


class X86:
    """VMs and vCPUs, and common code's half of APICv."""

    routing = Routing()

    def __init__(self, port: Port) -> None:
        self.port = port
        self.kvms: dict[int, Kvm] = {}
        self.vcpus: dict[int, Vcpu] = {}
        self.irqfds: dict[int, tuple[Vcpu, Irqfd]] = {}
        """irq_bypass_vcpu of each irq, and its place on that vCPU's list."""
        self.ga_log_vms: dict[int, Kvm] = {}
        """svm_vm_data_hash, by tag."""
        self.enable_apicv = False
        self.x2avic_enabled = False
        self.enable_ipiv = False
        self.max_physical_id = 0

    # kvm_x86_ops: declared here as there, and filled in by the vendor's module, which every instance is of

    def refresh_apicv_exec_ctrl(self, v: Vcpu) -> None:
        """Switch AVIC on or off for a vCPU that is out of the guest."""
        raise NotImplementedError

    def set_virtual_apic_mode(self, v: Vcpu) -> None:
        """Follow the APIC's mode."""
        raise NotImplementedError

    def apicv_post_state_restore(self, v: Vcpu) -> None:
        """Follow registers that were replaced."""
        raise NotImplementedError

    def deliver_interrupt(self, v: Vcpu, vector: int) -> None:
        """A fixed interrupt, accepted."""
        raise NotImplementedError

    # APICv

    def set_apicv_inhibit(self, kvm: Kvm, reason: int) -> None:
        """kvm_set_apicv_inhibit."""
        self._set_or_clear_apicv_inhibit(kvm, reason, True)

    def clear_apicv_inhibit(self, kvm: Kvm, reason: int) -> None:
        """kvm_clear_apicv_inhibit."""
        self._set_or_clear_apicv_inhibit(kvm, reason, False)

    def _set_or_clear_apicv_inhibit(self, kvm: Kvm, reason: int, on: bool) -> None:
        """Ask and kick first, so that a vCPU that sees the new set also sees the request; the lock makes it wait."""
        if not self.enable_apicv:
            return
        self.port.lock("inhibit", kvm.id)
        new = kvm.inhibits | 1 << reason if on else kvm.inhibits & ~(1 << reason)
        if bool(new) != bool(kvm.inhibits):
            self._make_all_cpus_request(kvm)
        kvm.inhibits = new
        self.port.unlock("inhibit", kvm.id)

    def _make_all_cpus_request(self, kvm: Kvm) -> None:
        """KVM_REQ_APICV_UPDATE to all; sleepers are left asleep (NO_WAKEUP)."""
        for v in list(kvm.vcpus):
            self.port.request_refresh(v.handle)
        self.port.smp_mb()
        for v in list(kvm.vcpus):
            if self.port.vcpu_mode(v.handle):
                self.port.kick(v.handle)

    def vcpu_update_apicv(self, v: Vcpu) -> None:
        """kvm_vcpu_update_apicv, on the vCPU's own thread."""
        if not v.apic:
            return
        if v.x2apic and not self.x2avic_enabled:
            self.inhibit_apic_access_page(v.kvm)
        self.port.lock("inhibit", v.kvm.id)
        activate = self.enable_apicv and not v.kvm.inhibits and v.hw_enabled
        if v.apicv_active != activate:
            v.apicv_active = activate
            self.refresh_apicv_exec_ctrl(v)
        self.port.unlock("inhibit", v.kvm.id)

    # the APIC access page

    def alloc_apic_access_page(self, kvm: Kvm) -> int:
        """kvm_alloc_apic_access_page: once for a VM, unless it was inhibited. 0, or the slot's error."""
        self.port.lock("slots", kvm.id)
        error = 0
        if not kvm.access_page and not kvm.access_page_inhibited:
            error = self.port.set_memory_region(kvm.id, ACCESS_PAGE_SLOT, APIC_BASE, 4096)
            kvm.access_page = error == 0
        self.port.unlock("slots", kvm.id)
        return error

    def inhibit_apic_access_page(self, kvm: Kvm) -> None:
        """kvm_inhibit_apic_access_page: the slot goes, and does not come back."""
        if not self.enable_apicv or kvm.access_page_inhibited:
            return
        self.port.lock("slots", kvm.id)
        if kvm.access_page:
            self.port.set_memory_region(kvm.id, ACCESS_PAGE_SLOT, 0, 0)
        kvm.access_page = False
        kvm.access_page_inhibited = True
        self.port.unlock("slots", kvm.id)
