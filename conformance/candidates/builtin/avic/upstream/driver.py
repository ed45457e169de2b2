"""The whole driver."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.lifecycle import Lifecycle
from conformance.specs.avic.constants import (
    APIC_IRR,
    APIC_ISR,
    APIC_TPR,
    TLB_FLUSH_ASID,
    VMCB_INT_CTL,
    VMCB_TLB_CONTROL,
)


class Upstream(Lifecycle):
    """The correct driver."""

    profile = "upstream"
    capabilities = frozenset({"layer-r", "layer-t", "exits", "posted", "helpers"})

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
