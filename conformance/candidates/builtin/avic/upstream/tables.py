"""What hardware walks: VMCB fields, physical and logical table; load and put keep IsRunning."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.delivery import Delivery
from conformance.candidates.builtin.avic.upstream.vm import HOST_ID, Vcpu
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_LDR,
    APIC_SELF_IPI,
    APIC_TPR,
    CLEAN_AVIC,
    ENTRY_RUNNING,
    INT_CTL_AVIC,
    INT_CTL_X2AVIC,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)

GA_LOG_INTR = 1 << 61
"""Software-only flag in the copy of an entry."""
X2_OPEN_WRITES = (APIC_TPR, APIC_EOI, APIC_SELF_IPI, APIC_ICR)


class Tables(Delivery):
    """VMCB fields and table entries."""

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
        self._intercept_cr8(v, 0)
        port.tlb_flush(h)
        self._intercept_x2apic(v, not x2)
        port.mark_vmcb_dirty(h, 1 << CLEAN_AVIC)

    def _deactivate_vmcb(self, v: Vcpu) -> None:
        port, h = self.port, v.handle
        control = port.vmcb_read(h, VMCB_INT_CTL) & ~(1 << INT_CTL_AVIC | 1 << INT_CTL_X2AVIC)
        port.vmcb_write(h, VMCB_INT_CTL, control)
        port.vmcb_write(h, VMCB_PHYSICAL_TABLE, port.vmcb_read(h, VMCB_PHYSICAL_TABLE) & ~0xFFF)
        self._intercept_cr8(v, 1)
        self._intercept_x2apic(v, intercept=True)
        port.mark_vmcb_dirty(h, 1 << CLEAN_AVIC)

    def _intercept_cr8(self, v: Vcpu, on: int) -> None:
        self.port.set_cr8_intercept(v.handle, on)

    def _intercept_x2apic(self, v: Vcpu, intercept: bool) -> None:
        on = int(intercept)
        for offset in X2_OPEN_WRITES:
            self.port.set_msr_intercept(v.handle, 0x800 + (offset >> 4), 1 if offset != APIC_TPR else on, on)

    def _logical_entry(self, v: Vcpu, ldr: int, dfr: int) -> int:
        return 4 * self.logical_index(ldr, dfr)

    def _invalidate_logical(self, v: Vcpu) -> None:
        offset = self._logical_entry(v, v.ldr, v.dfr)
        if offset >= 0 and self.port.read32(v.kvm.logical_table, offset) & 0xFF == v.id:
            self.port.write32(v.kvm.logical_table, offset, 0)
            self._give_back(v, offset)

    def _give_back(self, v: Vcpu, offset: int) -> None:
        """An APIC that is disabled by SPIV inhibits nothing, and leaves an entry that it took to whoever had it."""
        same = [
            other
            for other in v.kvm.vcpus.values()
            if other is not v and other.enabled and self._logical_entry(other, other.ldr, other.dfr) == offset
        ]
        if same and not self._sw_enabled(v):
            for other in same:
                self._install_logical(other)

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
