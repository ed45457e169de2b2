"""The entry points: vCPU's life, VMRUN and interrupts (svm.c, and kvm_main.c around it)."""

from __future__ import annotations

from dataclasses import replace

from conformance.candidates.builtin.avic.linux.avic import VCPU_BITS, Scheduling
from conformance.candidates.builtin.avic.linux.irq_comm import (
    RELEASED,
    Apic,
    Irq,
    Routing,
    map_targets,
    recalculate_apic_map,
    slow_targets,
)
from conformance.candidates.builtin.avic.linux.structs import Kvm, Vcpu
from conformance.candidates.builtin.avic.linux.x86 import ACCESS_PAGE_SLOT
from conformance.specs.avic import Port
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_IRR,
    APIC_TPR,
    EEXIST,
    EINVAL,
    ENOMEM,
    EXTINT,
    FIXED,
    INHIBIT_ABSENT,
    INHIBIT_DISABLED,
    INIT,
    INT_CTL_INTR_MASKING,
    LOWEST,
    MAX_XAVIC,
    REMOTE_READ,
    VMCB_ASID,
    VMCB_INT_CTL,
    VMCB_NESTED_CTL,
    VMCB_TLB_CONTROL,
)

KVM_SIZE, LAPIC_SIZE, MSRPM_SIZE = 4096, 256, 8192
MAX_VCPU_IDS = 4096
MAX_ASID = 0x8000


class Linux(Scheduling):
    """AVIC as Linux 6.16 to 6.18 has it, where that keeps the specification."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.next_asid: dict[int, tuple[int, int]] = {}
        """struct svm_cpu_data by core: generation and next ASID."""

    # -- VM

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        """kvm_arch_init_vm, KVM_CAP_MAX_VCPU_ID and KVM_CREATE_IRQCHIP."""
        handle = self.port.kzalloc(KVM_SIZE)
        if not handle:
            return -ENOMEM
        kvm = self.kvms[vm] = Kvm(vm, handle, bool(irqchip), max_vcpu_ids or MAX_VCPU_IDS)
        if not self.enable_apicv:
            kvm.inhibits = 1 << INHIBIT_DISABLED
        elif not irqchip:
            kvm.inhibits = 1 << INHIBIT_ABSENT
        return 0

    def vm_precreate(self, vm: int) -> int:
        """svm_vcpu_precreate."""
        return self.avic_vcpu_precreate(self.kvms[vm])

    def vm_pre_destroy(self, vm: int) -> None:
        """kvm_arch_pre_destroy_vm."""
        self.avic_vm_pre_destroy(self.kvms[vm])

    def vm_destroy(self, vm: int) -> None:
        """kvm_arch_destroy_vm; also of a VM whose creation failed, which nobody took out of the hash."""
        kvm = self.kvms.pop(vm)
        self.avic_vm_pre_destroy(kvm)
        if kvm.access_page:
            self.port.lock("slots", vm)
            self.port.set_memory_region(vm, ACCESS_PAGE_SLOT, 0, 0)
            self.port.unlock("slots", vm)
        self.avic_vm_destroy(kvm)
        self.port.kfree(kvm.handle)

    def vm_tag(self, vm: int) -> int:
        """avic_vm_id."""
        return self.kvms[vm].vm_id

    # -- vCPU

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        """kvm_vm_ioctl_create_vcpu: the id is taken before anything else is done for it."""
        kvm = self.kvms[vm]
        if not 0 <= apic_id < min(kvm.max_vcpu_ids, MAX_VCPU_IDS):
            return -EINVAL
        if apic_id in kvm.ids:
            return -EEXIST
        kvm.ids.add(apic_id)
        v = Vcpu(vcpu, kvm, apic_id)
        error = self.arch_vcpu_create(v)
        if error:
            kvm.ids.discard(apic_id)
            return error
        taken = {other.idx for other in kvm.vcpus}
        v.idx = next(idx for idx in range(len(taken) + 1) if idx not in taken)
        self.vcpus[vcpu] = v
        kvm.vcpus.append(v)
        return 0

    def arch_vcpu_create(self, v: Vcpu) -> int:
        """kvm_create_lapic, then svm_vcpu_create; the permission map comes before the entry, which nothing follows."""
        if not self.create_lapic(v):
            return -ENOMEM
        error = self.port.alloc_vmcb(v.handle)
        if error:
            self.free_lapic(v)
            return error
        v.msrpm = self.port.kzalloc(MSRPM_SIZE)
        error = self.avic_init_vcpu(v) if v.msrpm else -ENOMEM
        if error:
            if v.msrpm:
                self.port.kfree(v.msrpm)
            self.port.free_vmcb(v.handle)
            self.free_lapic(v)
        return error

    def create_lapic(self, v: Vcpu) -> bool:
        """kvm_create_lapic: active at first, and asked to look."""
        if not v.kvm.irqchip:
            return True
        v.apic = self.port.kzalloc(LAPIC_SIZE)
        if not v.apic:
            return False
        v.regs = self.zeroed_page(0)
        if not v.regs:
            self.port.kfree(v.apic)
            v.apic = 0
            return False
        if self.enable_apicv:
            v.apicv_active = True
            self.port.request_refresh(v.handle)
        return True

    def free_lapic(self, v: Vcpu) -> None:
        """kvm_free_lapic."""
        if v.apic:
            self.port.free_page(v.regs)
            self.port.kfree(v.apic)
            v.apic = v.regs = 0

    def vcpu_free(self, vcpu: int) -> None:
        """svm_vcpu_free and kvm_free_lapic; the map without it is made afterwards."""
        v = self.vcpus.pop(vcpu)
        kvm = v.kvm
        if self.enable_apicv:
            self.avic_free_vcpu(v)
        self.port.lock("hash", kvm.id)  # who makes the map walks the list
        kvm.vcpus.remove(v)
        self.port.unlock("hash", kvm.id)
        kvm.ids.discard(v.id)
        self.port.free_vmcb(vcpu)
        self.port.kfree(v.msrpm)
        self.free_lapic(v)
        self.mark_map_dirty(kvm)
        self.recalculate_apic_map(kvm)

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        """kvm_vcpu_reset."""
        v = self.vcpus[vcpu]
        self.lapic_reset(v, bool(init))
        self.init_vmcb(v)

    def vmcb_reinit(self, vcpu: int) -> None:
        """shutdown_interception, without the INIT that follows."""
        self.init_vmcb(self.vcpus[vcpu])

    def init_vmcb(self, v: Vcpu) -> None:
        """init_vmcb."""
        write = self.port.vmcb_write
        write(v.handle, VMCB_INT_CTL, 1 << INT_CTL_INTR_MASKING)
        write(v.handle, VMCB_NESTED_CTL, 1)
        write(v.handle, VMCB_ASID, 0)
        v.asid = v.asid_generation = 0
        self.port.set_cr8_intercept(v.handle, 1)
        if v.apic and self.enable_apicv:
            self.avic_init_vmcb(v)
        self.port.mark_vmcb_dirty(v.handle, 0xFFFFFFFF)

    # -- into the guest

    def prepare_guest(self, vcpu: int) -> None:
        """From kvm_check_and_inject_events to the end of svm_vcpu_run's preparation."""
        v = self.vcpus[vcpu]
        if v.apic and not v.apicv_active:
            vector = self.has_interrupt(v)
            if vector >= 0:
                self.get_apic_interrupt(v, vector)
                self.port.inject(vcpu, vector)
            if v.hw_enabled and v.sw_enabled:
                self.update_cr8_intercept(v)
        self.pre_svm_run(v)
        if v.apic:
            self.sync_lapic_to_cr8(v)

    def update_cr8_intercept(self, v: Vcpu) -> None:
        """svm_update_cr8_intercept: only while TPR masks what is pending."""
        irr = self.find_highest_vector(v, APIC_IRR)
        tpr = self.get_reg(v, APIC_TPR) >> 4 & 0xF
        self.port.set_cr8_intercept(v.handle, int(irr >= 0 and tpr >= irr >> 4))

    def pre_svm_run(self, v: Vcpu) -> None:
        """pre_svm_run and new_asid: each core hands out ASIDs of its own."""
        if v.asid_cpu != v.cpu:
            v.asid_generation = 0
            v.asid_cpu = v.cpu
            self.port.mark_vmcb_dirty(v.handle, 0xFFFFFFFF)
        generation, following = self.next_asid.get(v.cpu, (1, 1))
        control = 0
        if v.asid_generation != generation:
            if following > MAX_ASID:
                generation, following = generation + 1, 1
                control = 1
            v.asid, v.asid_generation = following, generation
            self.next_asid[v.cpu] = (generation, following + 1)
        self.port.vmcb_write(v.handle, VMCB_TLB_CONTROL, control)
        self.port.vmcb_write(v.handle, VMCB_ASID, v.asid)

    def sync_lapic_to_cr8(self, v: Vcpu) -> None:
        """sync_lapic_to_cr8, AVIC or not."""
        tpr = self.get_reg(v, APIC_TPR) >> 4 & 0xF
        int_ctl = self.port.vmcb_read(v.handle, VMCB_INT_CTL)
        self.port.vmcb_write(v.handle, VMCB_INT_CTL, int_ctl & ~0xF | tpr)

    def refresh(self, vcpu: int) -> None:
        """KVM_REQ_APICV_UPDATE."""
        self.vcpu_update_apicv(self.vcpus[vcpu])

    def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
        """SVM has none."""

    def hwapic_isr_update(self, vcpu: int, max_isr: int) -> None:
        """SVM has none."""

    # -- scheduling

    def vcpu_load(self, vcpu: int, host_id: int) -> None:
        """svm_vcpu_load, and avic_vcpu_load for who is not blocking."""
        v = self.vcpus[vcpu]
        v.cpu = host_id
        if v.apicv_active and not v.blocking:
            self.avic_vcpu_load(v, host_id)

    def vcpu_put(self, vcpu: int) -> None:
        """svm_vcpu_put and avic_vcpu_put: nothing is left to do for who was put when it began to block."""
        v = self.vcpus[vcpu]
        if v.apicv_active and v.entry >> 62 & 1:
            self.avic_vcpu_put(v, blocking=v.blocking)

    def vcpu_blocking(self, vcpu: int) -> int:
        """kvm_vcpu_block: avic_vcpu_blocking, then the last look."""
        v = self.vcpus[vcpu]
        v.blocking = True
        if v.apicv_active:
            self.avic_vcpu_put(v, blocking=True)
        self.port.smp_mb()
        return int(self.has_interrupt(v) >= 0)

    def vcpu_unblocking(self, vcpu: int) -> None:
        """avic_vcpu_unblocking."""
        v = self.vcpus[vcpu]
        v.blocking = False
        if v.apicv_active:
            self.avic_vcpu_load(v, v.cpu)

    # -- exits and messages

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """Exit 0x401."""
        return self.incomplete_ipi_interception(self.vcpus[vcpu], info1, info2)

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """Exit 0x402."""
        return self.unaccelerated_access_interception(self.vcpus[vcpu], info1)

    def apic_access(self, vcpu: int, offset: int, value: int) -> int:
        """An MSR write for an x2APIC, MMIO for others."""
        v = self.vcpus[vcpu]
        if v.hw_enabled and v.x2apic:
            return self.x2apic_msr_write(v, offset, value)
        return self.mmio_write(v, offset, value) if v.apic else 0

    def set_apic_base(self, vcpu: int, value: int, host: int) -> int:
        """MSR 0x1B."""
        return self.apic_set_base(self.vcpus[vcpu], value, bool(host))

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        """KVM_SET_LAPIC."""
        v = self.vcpus[vcpu]
        if not v.apic:
            return -EINVAL
        self.set_state(v, registers)
        return 0

    def get_lapic(self, vcpu: int) -> bytes:
        """KVM_GET_LAPIC."""
        v = self.vcpus[vcpu]
        return self.get_state(v) if v.apic else bytes(1024)

    def deliver(self, vcpu: int, vector: int, level: int) -> None:
        """The end of __apic_accept_irq."""
        self.set_irq(self.vcpus[vcpu], vector, bool(level))

    def inhibit(self, vm: int, reason: int, on: int) -> None:
        """kvm_set_apicv_inhibit and kvm_clear_apicv_inhibit."""
        if on:
            self.set_apicv_inhibit(self.kvms[vm], reason)
        else:
            self.clear_apicv_inhibit(self.kvms[vm], reason)

    # -- posted interrupts

    def vcpu_tag(self, vcpu: int) -> int:
        """The GATag."""
        return self.gatag(self.vcpus[vcpu])

    def ga_log_notify(self, tag: int) -> int:
        """The IOMMU's call."""
        self.ga_log_notifier(tag)
        return 0

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        """kvm_pi_update_irte."""
        if not self.enable_apicv:
            return 0
        return self.pi_update_irte(irq, None if vcpu < 0 else self.vcpus[vcpu], vector)

    # -- pure helpers

    def hpa_field(self, address: int) -> int:
        """Bits 51:12."""
        return address & ADDRESS_BITS

    def phys_index(self, index: int) -> int:
        """Slot in an xAVIC table."""
        return 8 * index if 0 <= index <= MAX_XAVIC else -1

    def tag_round_trip(self, vm_tag: int, index: int) -> tuple[int, int]:
        """AVIC_GATAG and its inverses."""
        tag = vm_tag << VCPU_BITS | index
        return tag >> VCPU_BITS, tag & (1 << VCPU_BITS) - 1

    # -- layer R

    routes_as_manuals = True
    """`route` matches APIC by APIC, as the manuals have it, instead of asking the map and its quirks first."""

    def route(self, apics: tuple[tuple[int, int, int, int, int], ...], message: tuple[int, ...]) -> int:
        """kvm_irq_delivery_to_apic over APICs that are given."""
        return self._route(apics, message, self.routes_as_manuals)[0]

    def signal_msi(self, apics: tuple[tuple[int, int, int, int, int], ...], message: tuple[int, ...]) -> int:
        """kvm_set_msi: whatever the manuals say, KVM's own answer."""
        return self._route(apics, message, False)[1]

    def _route(
        self, apics: tuple[tuple[int, int, int, int, int], ...], message: tuple[int, ...], manuals: bool
    ) -> tuple[int, int]:
        """Who accepts, as a mask, and how many; -1 for nobody that matched, and for #GP."""
        sender, dest, logical, shorthand, mode, vector, trigger, level, hint, flags = message
        if flags >> 32:
            return -1, -1
        routing = replace(
            Routing() if manuals else RELEASED,
            x2apic_format=flags & 1 == 1,
            broadcast_quirk=flags >> 1 & 1 == 0 and not manuals,
        )
        targets = [_apic(n, *apic) for n, apic in enumerate(apics)]
        source = targets[sender] if sender >= 0 else None
        irq = Irq(vector, mode, dest, bool(logical), shorthand, bool(trigger), bool(level), bool(hint))
        found, matched = None, True
        if not manuals:
            map_, _ = recalculate_apic_map(targets, routing)
            found = map_targets(map_, source, irq, routing)
        if found is None:
            irq, found, matched = slow_targets(targets, source, irq, routing)
        lowest = self.lowest_vector if manuals else 0
        mask = sum(1 << apic.index for apic in found if self._accepts(apic, irq, lowest))
        return mask, mask.bit_count() if matched else -1

    def _accepts(self, apic: Apic, irq: Irq, lowest: int) -> bool:
        """__apic_accept_irq, without doing it."""
        if irq.mode in (FIXED, LOWEST):
            if irq.trigger and not irq.level:
                return False
            return apic.present and apic.enabled and irq.vector >= lowest
        if irq.mode == INIT:
            return apic.present and (not irq.trigger or irq.level)
        return apic.present and irq.mode not in (REMOTE_READ, EXTINT)


def _apic(n: int, id_: int, mode: int, spiv: int, ldr: int, dfr: int) -> Apic:
    """An APIC of layer R: bit 40 of the id says that bits 39:32 are the xAPIC ID."""
    own = id_ & 0xFFFFFFFF
    xapic_id = id_ >> 32 & 0xFF if id_ >> 40 & 1 else own & 0xFF
    return Apic(n, own, xapic_id, mode != 0, mode == 2, spiv, ldr, dfr)
