"""The seed's design without the seed's mistakes; the zoo's defects of the seed are derived from it."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import SUPERVISOR_POINTERS, Vcpu
from conformance.specs.cet.constants import CET_S, PL0_SSP


class Repaired(Upstream):
    """PL0..PL2_SSP in an array, swapped around KVM_RUN's loop and at context switches.

    Lazily: until a non-zero value or XSS bit 12 appears, the guest's accesses are intercepted and
    nothing is swapped. `in_hardware` says where the values are, so a save never comes twice.
    """

    profile: ClassVar[str] = "as-posted"

    def swap_in(self, v: Vcpu) -> None:
        """Registers from the array, once."""
        self.port.preempt_disable()
        if v.active and not v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])
            v.in_hardware = True
        self.port.preempt_enable()

    def swap_out(self, v: Vcpu) -> None:
        """Registers to the array, once, and cleared."""
        self.port.preempt_disable()
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
            v.in_hardware = False
        self.port.preempt_enable()

    def activate(self, v: Vcpu) -> None:
        """From now on swapped, and passed through."""
        if v.active:
            return
        v.active = True
        if v.running:
            self.swap_in(v)
        self.recalc_intercepts(v)

    def activates(self, value: int, host: bool) -> bool:
        """Whether a value starts the swapping."""
        return value != 0

    def passes(self, v: Vcpu, msr: int) -> bool:
        """As upstream, once swapped."""
        if msr in SUPERVISOR_POINTERS and not v.active:
            return False
        return super().passes(v, msr)

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        super().run_begin(vcpu)
        v = self.vcpus[vcpu]
        v.running = True
        self.swap_in(v)

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        v = self.vcpus[vcpu]
        v.running = False
        self.swap_out(v)
        super().run_end(vcpu)

    def sched_out(self, vcpu: int) -> None:
        """The thread leaves its physical CPU."""
        self.swap_out(self.vcpus[vcpu])

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The thread goes on."""
        super().sched_in(vcpu, cpu)
        v = self.vcpus[vcpu]
        if v.running:
            self.swap_in(v)

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        """As upstream, without the three that are swapped by hand."""
        return msr not in SUPERVISOR_POINTERS and super().is_xstate_msr(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        """Put a checked value where it lives."""
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        self.port.preempt_disable()
        v.ssp[msr - PL0_SSP] = value
        if v.in_hardware:
            self.port.wrmsr(msr, value)
        self.port.preempt_enable()
        if self.activates(value, host):
            self.activate(v)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        """Get a value from where it lives."""
        if msr not in SUPERVISOR_POINTERS:
            return super().fetch_msr(v, msr)
        self.port.preempt_disable()
        value = self.port.rdmsr(msr) if v.in_hardware else v.ssp[msr - PL0_SSP]
        self.port.preempt_enable()
        return value

    def set_xss(self, v: Vcpu, value: int) -> int:
        """Check XSS, store it, refresh CPUID."""
        result = super().set_xss(v, value)
        if v.xss >> CET_S & 1:
            self.activate(v)
        return result

    def reset_xstate(self, v: Vcpu) -> None:
        """Clear both CET components, out of hardware if they are there."""
        super().reset_xstate(v)
        self.port.preempt_disable()
        v.ssp = [0, 0, 0]
        if v.in_hardware:
            for msr in SUPERVISOR_POINTERS:
                self.port.wrmsr(msr, 0)
        self.port.preempt_enable()
