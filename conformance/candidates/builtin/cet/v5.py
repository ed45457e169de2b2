"""The series' v5 as it was posted."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.as_posted import AsPosted
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import SUPERVISOR_POINTERS, Vcpu


class V5(AsPosted):
    """The series' v5: swapped when guest state is loaded and put, otherwise as the seed, and not cleared."""

    profile: ClassVar[str] = "v5"

    def settle_xss(self) -> None:
        """Features and XSS bits stand or fall together."""
        Upstream.settle_xss(self)

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        Upstream.run_begin(self, vcpu)

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        Upstream.run_end(self, vcpu)

    def enter_guest(self, vcpu: int) -> None:
        """Load the guest's XSS."""
        v = self.vcpus[vcpu]
        if v.active and not v.in_hardware:
            self.reload_ssp(v)
            v.in_hardware = True
        super().enter_guest(vcpu)

    def put_guest_state(self, v: Vcpu) -> None:
        """Registers to the array if they are loaded."""
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
            v.in_hardware = False

    def vcpu_put(self, vcpu: int) -> None:
        """The ioctl ends."""
        self.put_guest_state(self.vcpus[vcpu])

    def sched_out(self, vcpu: int) -> None:
        """The thread leaves its physical CPU."""
        self.put_guest_state(self.vcpus[vcpu])

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The thread goes on."""
        Upstream.sched_in(self, vcpu, cpu)
