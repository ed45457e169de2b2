"""Drivers that are wrong only when two of their operations meet."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream import (
    ACCESS_SLOT,
    DERIVED,
    GA_LOG_INTR,
    HOST_ID,
    TAG_MASK,
    TAG_SHIFT,
    Kvm,
    Upstream,
    Vcpu,
)
from conformance.specs.avic.constants import APIC_BASE, EEXIST, EINVAL, EIO, ENTRY_RUNNING, ENTRY_VALID, NO_METADATA


class RefreshesEarly(Upstream):
    """A vCPU does not wait until the reasons it is to follow are in force."""

    def _update_apicv(self, v: Vcpu) -> None:
        active = self.avic and v.kvm.irqchip and v.enabled and not v.kvm.inhibits and v.addressable
        if active != v.apicv_active:
            v.apicv_active = active
            self._refresh_exec_ctrl(v)


class KickedBeforeAsked(Upstream):
    """A vCPU leaves the guest, and may be back before it is asked to look at the reasons."""

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        mask = kvm.inhibits & ~reasons | value
        if bool(mask) != bool(kvm.inhibits):
            for v in list(kvm.vcpus.values()):
                self.port.kick(v.handle)
                self.port.request_refresh(v.handle)
        kvm.inhibits = mask


class LastLookLost(Upstream):
    """Inhibits that follow from the registers are computed before the lock is taken, so an older look may win."""

    def _recalculate_map(self, kvm: Kvm) -> None:
        if self.avic:
            self._set_inhibits(kvm, DERIVED, self._derived(kvm))


class IrteToldUnlocked(Upstream):
    """An IRTE is told where its vCPU ran when last looked, with the list unlocked in between."""

    def _post(self, v: Vcpu, irq: int, vector: int) -> int:
        port = self.port
        if not v.apicv_active:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return 0
        entry = v.entry
        port.unlock("ir_list", v.handle)
        result: int = port.set_vcpu_affinity(irq, self.hpa_field(v.regs), vector, self.vcpu_tag(v.handle))
        port.lock("ir_list", v.handle)
        if result == NO_METADATA:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return -EIO
        v.irqs[irq] = vector
        v.posting = True
        running = entry >> ENTRY_RUNNING & 1
        port.iommu_update_ga(irq, entry & HOST_ID if running else -1, int(not running and bool(entry & GA_LOG_INTR)))
        return 0


class WakesAfterUnlock(Upstream):
    """The vCPU that a tag names is woken when the lock that keeps it there is dropped."""

    def ga_log_notify(self, tag: int) -> int:
        port = self.port
        port.lock("ga_hash", 0)
        kvm = self.hash.get(tag >> TAG_SHIFT & TAG_MASK)
        v = None if kvm is None else kvm.vcpus.get(tag & 0xFFF)
        port.unlock("ga_hash", 0)
        if v is not None:
            port.wake(v.handle)
        return 0


class DuplicateSeenLate(Upstream):
    """An id counts as taken only when its vCPU is complete."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        kvm = self.vms[vm]
        if apic_id >= min(kvm.max_vcpu_ids, 4096):
            return -EINVAL
        if apic_id in kvm.vcpus:
            return -EEXIST
        v = Vcpu(kvm, vcpu, apic_id)
        error = self._vcpu_init(v)
        if not error:
            self.vcpus[vcpu] = kvm.vcpus[apic_id] = v
        return error


class SlotUnlocked(Upstream):
    """Whether the access page is there is looked up without the lock of the memslots."""

    def _init_backing_page(self, v: Vcpu) -> int:
        port, kvm = self.port, v.kvm
        if v.id > min(self.max_phys, kvm.max_vcpu_ids - 1) or kvm.inhibits:
            return super()._init_backing_page(v)
        if not kvm.access_page and not kvm.access_page_gone:
            error: int = port.set_memory_region(kvm.vm, ACCESS_SLOT, APIC_BASE, 4096)
            if error:
                return error
            kvm.access_page = True
        v.entry = self.hpa_field(v.regs) | 1 << ENTRY_VALID
        port.write64(kvm.phys_table, 8 * v.id, v.entry)
        return 0


class LocksInTwoOrders(Upstream):
    """Creation takes the memslots' lock and then that of the reasons; a change of the reasons the other way round."""

    def _init_backing_page(self, v: Vcpu) -> int:
        self.port.lock("slots", v.kvm.vm)
        self.port.lock("inhibit", v.kvm.vm)
        self.port.unlock("inhibit", v.kvm.vm)
        self.port.unlock("slots", v.kvm.vm)
        return super()._init_backing_page(v)

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        self.port.lock("slots", kvm.vm)
        super()._change_inhibits(kvm, reasons, value)
        self.port.unlock("slots", kvm.vm)
