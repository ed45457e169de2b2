"""Posted interrupts: the GATag, the GALog, and the IRTEs of a vCPU."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.module import TAG_MASK, TAG_SHIFT
from conformance.candidates.builtin.avic.upstream.tables import GA_LOG_INTR, Tables
from conformance.candidates.builtin.avic.upstream.vm import HOST_ID, Vcpu
from conformance.specs.avic.constants import EIO, ENTRY_RUNNING, NO_METADATA


class Posted(Tables):
    """Device interrupts that bypass the host."""

    def vcpu_tag(self, vcpu: int) -> int:
        """The GATag."""
        v = self.vcpus[vcpu]
        return self._tag(v.kvm.vm_id, v.id)

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
