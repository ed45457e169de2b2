"""Mistakes of the seed and of its revisions, which swapped by hand as `Repaired` does."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import SUPERVISOR_POINTERS, Vcpu
from conformance.specs.cet.constants import PL0_SSP, PL1_SSP, PL2_SSP, READ


class ExitWindowSave(Repaired):
    """After the last save the values still count as being in hardware, until vcpu_put."""

    def run_end(self, vcpu: int) -> None:
        super().run_end(vcpu)
        self.vcpus[vcpu].in_hardware = self.vcpus[vcpu].active

    def vcpu_put(self, vcpu: int) -> None:
        self.vcpus[vcpu].in_hardware = False


class EntryWindowSave(Repaired):
    """From vcpu_load on the values count as being in hardware, though KVM_RUN loads them later."""

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        super().vcpu_load(vcpu, cpu)
        self.vcpus[vcpu].in_hardware = self.vcpus[vcpu].active

    def run_begin(self, vcpu: int) -> None:
        self.vcpus[vcpu].in_hardware = False
        super().run_begin(vcpu)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        v.in_hardware = v.in_hardware and v.running
        return super().fetch_msr(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        v.in_hardware = v.in_hardware and v.running
        super().store_msr(v, msr, value, host)

    def vcpu_put(self, vcpu: int) -> None:
        self.vcpus[vcpu].in_hardware = False


class IoctlSave(Repaired):
    """A context switch within any ioctl saves what hardware holds."""

    def sched_out(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        v.in_hardware = v.active
        self.swap_out(v)


class ReloadOutsideRun(Repaired):
    """Being scheduled in loads the values in every ioctl, and nothing takes them out of hardware."""

    def sched_in(self, vcpu: int, cpu: int) -> None:
        super().sched_in(vcpu, cpu)
        v = self.vcpus[vcpu]
        if v.active and not v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])


class PassedReads(Repaired):
    """An inactive vCPU reads PL0..PL2_SSP without an exit; harmless while hardware holds zeros."""

    def recalc_intercepts(self, v: Vcpu) -> None:
        super().recalc_intercepts(v)
        if v.shstk and not v.active:
            for msr in SUPERVISOR_POINTERS:
                self.port.set_intercept(v.number, 1, msr, READ, msr in v.denied)


class HostWriteInactive(PassedReads):
    """Only the guest's own writes activate the swap; what userspace restored is never loaded."""

    def activates(self, value: int, host: bool) -> bool:
        return value != 0 and not host


class XrstorsBypass(Repaired):
    """Enabling component 12 in XSS does not activate the swap."""

    def set_xss(self, v: Vcpu, value: int) -> int:
        return Upstream.set_xss(self, v, value)


class StaleReads(PassedReads):
    """As inactive vCPUs read hardware, a save that leaves the values there shows them to the next vCPU."""

    profile: ClassVar[str] = "v5"
    kept: ClassVar[tuple[int, ...]] = SUPERVISOR_POINTERS

    def swap_out(self, v: Vcpu) -> None:
        if not v.in_hardware:
            return
        values = [self.port.rdmsr(msr) for msr in SUPERVISOR_POINTERS]
        super().swap_out(v)
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            if msr in self.kept:
                self.port.wrmsr(msr, values[index])


class LoadsWrittenOnly(Repaired):
    """Activation puts only the MSR just written into hardware."""

    def activates(self, value: int, host: bool) -> bool:
        return value != 0 and not host

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        first = msr in SUPERVISOR_POINTERS and v.running and not v.active and self.activates(value, host)
        if first:
            v.active = v.in_hardware = True
            self.recalc_intercepts(v)
        super().store_msr(v, msr, value, host)


class FlagBeforeData(Repaired):
    """The values count as being in hardware before activation has put them there."""

    def activates(self, value: int, host: bool) -> bool:
        return value != 0 and not host

    def activate(self, v: Vcpu) -> None:
        if v.active or not v.running:
            super().activate(v)
            return
        v.active = v.in_hardware = True
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            self.port.wrmsr(msr, v.ssp[index])
        self.recalc_intercepts(v)


class ZeroNotWritten(Repaired):
    """An intercepted write of zero reaches the array, not the register."""

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr in SUPERVISOR_POINTERS and value == 0:
            v.ssp[msr - PL0_SSP] = 0
            return
        super().store_msr(v, msr, value, host)


class ResetKeepsArray(Repaired):
    """INIT and RESET know nothing of the array and the registers."""

    def reset_xstate(self, v: Vcpu) -> None:
        Upstream.reset_xstate(self, v)


class ReadsArray(Repaired):
    """An intercepted read gives the array's value while the register holds a newer one."""

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        return v.ssp[msr - PL0_SSP] if msr in SUPERVISOR_POINTERS else super().fetch_msr(v, msr)


class SwapEveryExit(Repaired):
    """Saves and reloads around every VM exit."""

    def enter_guest(self, vcpu: int) -> None:
        super().enter_guest(vcpu)
        self.swap_in(self.vcpus[vcpu])

    def exit_guest(self, vcpu: int) -> None:
        self.swap_out(self.vcpus[vcpu])
        super().exit_guest(vcpu)


class PreemptibleSave(Repaired):
    """The save reads and clears with preemption enabled."""

    def swap_out(self, v: Vcpu) -> None:
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
            v.in_hardware = False


class ClearsFirstOnly(Repaired):
    """Only PL0_SSP is cleared after a save, and a context switch saves in every phase."""

    profile: ClassVar[str] = "v5"

    def swap_out(self, v: Vcpu) -> None:
        self.port.preempt_disable()
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
            self.port.wrmsr(PL0_SSP, 0)
            v.in_hardware = False
        self.port.preempt_enable()

    def sched_out(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        v.in_hardware = v.active
        self.swap_out(v)


class HostWriteToHardware(Repaired):
    """A host-initiated write goes straight to the registers of the current physical CPU."""

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        super().store_msr(v, msr, value, host)
        if host and value and msr in SUPERVISOR_POINTERS:
            self.port.wrmsr(msr, value)


class ZeroNeverTracked(StaleReads):
    """A guest that writes only zeros stays inactive, and reads what others left in PL1 and PL2_SSP."""

    kept: ClassVar[tuple[int, ...]] = (PL1_SSP, PL2_SSP)


class LoadedStateBypassed(XrstorsBypass):
    """XRSTORS goes unnoticed, and intercepted accesses use the array while the registers are loaded."""

    profile: ClassVar[str] = "v5"

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        return v.ssp[msr - PL0_SSP] if msr in SUPERVISOR_POINTERS else super().fetch_msr(v, msr)
