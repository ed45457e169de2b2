"""The seed as it was posted, mistakes and all."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import SUPERVISOR_POINTERS, Vcpu
from conformance.specs.cet.constants import CET_S, PL0_SSP, WRITE


class AsPosted(Upstream):
    """The seed's three patches: saved and cleared at every context switch of a loaded vCPU, lazily activated."""

    profile: ClassVar[str] = "as-posted"

    def settle_xss(self) -> None:
        """Features and XSS bits stand or fall together."""
        if not self.xss & 0x1800:
            self.shstk = self.ibt = False
        if not self.shstk and not self.ibt:
            self.xss = 0
        if self.port.host_cap("xsaves"):
            self.xss |= 1 << CET_S

    def save_ssp(self, v: Vcpu) -> None:
        """Registers to the array, then cleared."""
        if not v.shstk or not v.active:
            return
        self.port.preempt_disable()
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            v.ssp[index] = self.port.rdmsr(msr)
        for msr in SUPERVISOR_POINTERS:
            self.port.wrmsr(msr, 0)
        self.port.preempt_enable()

    def reload_ssp(self, v: Vcpu) -> None:
        """Registers from the array."""
        if not v.shstk or not v.active:
            return
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            self.port.wrmsr(msr, v.ssp[index])

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        super().run_begin(vcpu)
        self.reload_ssp(self.vcpus[vcpu])

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        self.save_ssp(self.vcpus[vcpu])
        super().run_end(vcpu)

    def sched_out(self, vcpu: int) -> None:
        """The thread leaves its physical CPU."""
        self.save_ssp(self.vcpus[vcpu])

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The thread goes on."""
        super().sched_in(vcpu, cpu)
        self.reload_ssp(self.vcpus[vcpu])

    def recalc_intercepts(self, v: Vcpu) -> None:
        """Set every bitmap bit that can be passed, in both bitmaps while L2 is active."""
        super().recalc_intercepts(v)
        if not v.active:
            for msr in SUPERVISOR_POINTERS:
                self.port.set_intercept(v.number, 1, msr, WRITE, True)

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        """As upstream, without the three that are swapped by hand."""
        return msr not in SUPERVISOR_POINTERS and super().is_xstate_msr(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        """Put a checked value where it lives."""
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        activates = value != 0 and not host
        if activates:
            v.active = True
        v.ssp[msr - PL0_SSP] = value
        if activates:
            self.recalc_intercepts(v)
            self.port.wrmsr(msr, value)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        """Get a value from where it lives."""
        if msr in SUPERVISOR_POINTERS:
            return v.ssp[msr - PL0_SSP]
        return super().fetch_msr(v, msr)
