"""Correct hypervisors built in other ways than the shipped ones."""

from __future__ import annotations

from typing import Any, ClassVar

from conformance.candidates.builtin.cet import SUPERVISOR_POINTERS, Upstream, Vcpu
from specs import cet as c


class LazySwap(Upstream):
    """Loads PL0..PL2_SSP before the first VM entry, saves them when the thread leaves, clears nothing.

    Nothing is lazy about interception: with SHSTK the pointers always pass.
    """

    profile: ClassVar[str] = "v5"

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        return (msr == c.PL3_SSP and v.shstk) or (msr == c.U_CET and (v.shstk or v.ibt))

    def enter_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        if not v.in_hardware and self.port.host_cap("shstk"):
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])
            v.in_hardware = True
        super().enter_guest(vcpu)

    def put(self, v: Vcpu) -> None:
        """Registers to memory."""
        self.port.preempt_disable()
        if v.in_hardware:
            v.ssp = [self.port.rdmsr(msr) for msr in SUPERVISOR_POINTERS]
            v.in_hardware = False
        self.port.preempt_enable()

    def vcpu_put(self, vcpu: int) -> None:
        self.put(self.vcpus[vcpu])

    def sched_out(self, vcpu: int) -> None:
        self.put(self.vcpus[vcpu])

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        self.put(v)
        v.ssp[msr - c.PL0_SSP] = value

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        if msr not in SUPERVISOR_POINTERS:
            return super().fetch_msr(v, msr)
        self.put(v)
        return v.ssp[msr - c.PL0_SSP]

    def reset_xstate(self, v: Vcpu) -> None:
        super().reset_xstate(v)
        self.put(v)
        v.ssp = [0, 0, 0]


class Cautious(Upstream):
    """Loads the FPU late, validates first, marks everything dirty, recomputes bitmaps at every entry."""

    def enter_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        self.recalc_intercepts(v)
        if self.svm:
            for level in (1, 2):
                self.port.vmcb_mark_dirty(vcpu, level, c.VMCB_CET)
        super().enter_guest(vcpu)

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8 + 16 * len(entries)):
            return -c.EFAULT
        if len(entries) >= c.MAX_MSR_ENTRIES:
            return -c.E2BIG
        loaded = False
        for done, (msr, value) in enumerate(entries):
            wrong = self.is_xstate_msr(v, msr) and (
                not self.valid_cet(v, value) if msr == c.U_CET else self.noncanonical(value) or value & 3 != 0
            )
            if wrong:
                self.unload(vcpu, loaded)
                return done
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = True
            if self.do_set_msr(v, msr, value, True):
                self.unload(vcpu, loaded)
                return done
        self.unload(vcpu, loaded)
        return len(entries)

    def unload(self, vcpu: int, loaded: bool) -> None:
        """Put the guest FPU if it was loaded."""
        if loaded:
            self.port.put_guest_fpu(vcpu)

    def xstate_read(self, v: Vcpu, msr: int) -> int:
        self.port.preempt_disable()
        value = super().xstate_read(v, msr)
        self.port.preempt_enable()
        return value

    def get_mp_state(self, vcpu: int) -> int:
        """Leaves a pending INIT to the next KVM_RUN."""
        return 0

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """Ignores what userspace may not set."""
        self.port.copy_uabi_to_fpstate(vcpu, component, words)
        return 0


PEERS: tuple[type[Any], ...] = (LazySwap, Cautious)
