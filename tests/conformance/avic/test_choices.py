"""When a VMCB is written, where a posted interrupt goes, what is restored: free choices, and mistakes next to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.linux.structs import Irqfd, Kvm, Vcpu
from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.defects.avic.linux import IndexBehindTheTable
from conformance.candidates.defects.avic.upstream import RestoreForgetsTimer
from conformance.candidates.load import Candidate
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.step import Parallel, Step
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_EOI,
    APIC_ICR,
    APIC_ID,
    APIC_LDR,
    APIC_SELF_IPI,
    APIC_TPR,
    BASE_AE,
    CPUID_X2AVIC_EXT,
    INHIBIT_APIC_BASE_MODIFIED,
    INHIBIT_APIC_ID_MODIFIED,
    X2APIC_MSRS,
)
from conformance.strategies.avic.domains import RUNNING, X2, X2AVIC_HOST
from conformance.strategies.avic.scopes.lifecycle import X2_BASE
from tests.conformance.avic.judging import AVIC, cited, judged
from tests.conformance.peers.linux_avic import EarlyAwake, WritesVmcbBeforeRunning

AE = APIC_BASE | 1 << BASE_AE
POSTED_ASLEEP = (s.Exit(0), s.Block(0), s.UpdateIrte(0, 0), s.IommuPost(0))
ALONE = Config(vcpus=(0,), running=True, enabled=True)
BY_THE_HOST = (s.Exit(0), s.Inhibit(3), s.UpdateIrte(0, 0), s.Inhibit(3, on=False), s.VmRun(0), s.Exit(0), s.Block(0))
LIFTED_WHILE_INJECTED = Step(s.Deliver(0), during=((10, Step(s.Inhibit(3, on=False))),))
NO_IPIV = Config(vcpus=(0, 1), running=True, enabled=True, ipiv=False)
LDRS = tuple(s.GuestWrite(vcpu, APIC_LDR, ldr << 24) for vcpu, ldr in ((0, 1), (1, 2), (0, 4), (1, 8)))
FIRST_TAG = Config(vcpus=(0,), next_tag=0)


class InterceptsIcr(Linux):
    """With x2AVIC only TPR and EOI are written without an exit."""

    def set_x2apic_msr_interception(self, v: Vcpu, intercept: bool) -> None:
        for offset in (APIC_EOI, APIC_TPR) if self.x2avic_enabled else ():
            self.port.set_msr_intercept(v.handle, X2APIC_MSRS + (offset >> 4), 1, int(intercept))


class EmptiesTheTable(Upstream):
    """No change of a logical id is followed: each one empties the whole logical table."""

    def _install_logical(self, v: Any) -> None:
        """What is not there exits, and is sent by software."""
        for other in v.kvm.vcpus.values():
            self._invalidate_logical(other)


class TakesTheOthersAlong(Upstream):
    """The entries of all others go whenever one changes."""

    def _handle_ldr_update(self, v: Any) -> None:
        for other in v.kvm.vcpus.values():
            self._invalidate_logical(other)
        super()._handle_ldr_update(v)


NOT_ACCUSED: list[tuple[Callable[[Any], Any], Config, tuple[Any, ...]]] = [
    (WritesVmcbBeforeRunning, RUNNING, (s.Exit(0), s.Inhibit(3), s.Inhibit(3, on=False), s.VmRun(0))),
    (WritesVmcbBeforeRunning, RUNNING, (s.Exit(0), s.Exit(1), s.Inhibit(3), s.Put(0), s.SetLapic(0), s.VmRun(1))),
    (WritesVmcbBeforeRunning, X2, (s.Exit(1), s.VcpuReset(1), s.VmRun(1))),
    (WritesVmcbBeforeRunning, NO_IPIV, (s.UpdateIrte(0, 0), s.Put(0), s.Inhibit(3), s.Load(0, 32), s.IommuPost(0))),
    (EarlyAwake, RUNNING, (s.Exit(0), s.SetLapic(0, irr=0x41), s.Block(0), s.VmRun(0), s.GuestEoi(0))),
    (WritesVmcbBeforeRunning, RUNNING, (s.Inhibit(3), LIFTED_WHILE_INJECTED, s.GuestEoi(0))),
    (EmptiesTheTable, RUNNING, (*LDRS, s.GuestIpi(0, 2, logical=True))),
    (InterceptsIcr, X2, (s.Put(1), s.GuestIpi(0, shorthand=3, defer=True), s.GuestIpi(17, 0, defer=True))),
    (Linux, RUNNING, POSTED_ASLEEP),
    (Upstream, ALONE, (*BY_THE_HOST, Step(Parallel(Step(s.IommuPost(0)), Step(s.VmDestroy()), (0,))))),
    (Upstream, ALONE, (*BY_THE_HOST, Step(Parallel(Step(s.IommuPost(0)), Step(s.VmDestroy()), (2,))))),
    (Linux, RUNNING, (s.Exit(0), s.SetLapic(0, rest=True, irr=0x52), s.GetLapic(0, APIC_ICR), s.VmRun(0))),
]


@pytest.mark.parametrize(("candidate", "config", "ops"), NOT_ACCUSED)
def test_a_free_choice_is_not_accused(candidate: Callable[[Any], Any], config: Config, ops: tuple[Any, ...]) -> None:
    """A VMCB is read at VMRUN, whoever has something to take need not begin to sleep, a sleeper's IRTE may post."""
    report = judged(candidate, config, *ops)

    assert cited(report) == ""
    assert report.tally.steps == len(ops)


class TakesAnySelfIpi(Upstream):
    """SELF_IPI by software has no illegal vectors."""

    def _x2_write(self, v: Any, offset: int, value: int) -> int:
        if offset == APIC_SELF_IPI and value < 16:
            self._deliver(v, value, 0)
            return 0
        return super()._x2_write(v, offset, value)


class X2AvicOfBefore(Upstream):
    """A module that is loaded anew goes on with x2AVIC, whatever it says."""

    def hw_setup(self, *found: Any) -> int:
        before = self.x2avic
        result = super().hw_setup(*found)
        self.x2avic = self.avic and (self.x2avic or before)
        return result


class OwesForEver(WritesVmcbBeforeRunning):
    """A deactivation that is owed is forgotten."""

    def prepare_guest(self, vcpu: int) -> None:
        if not self.vcpus[vcpu].apicv_active:
            self.__dict__.setdefault("owing", set()).discard(vcpu)
        super().prepare_guest(vcpu)


class MsrsStayOpen(WritesVmcbBeforeRunning):
    """Deactivation intercepts MSRs only of who is in x2APIC mode, which a RESET has just ended."""

    def set_x2apic_msr_interception(self, v: Vcpu, intercept: bool) -> None:
        if not intercept or v.x2apic:
            super().set_x2apic_msr_interception(v, intercept)


class LogsForNobody(Linux):
    """An IRTE that is posted while its vCPU sleeps does not log."""

    def activate_guest_mode(self, v: Vcpu, irqfd: Irqfd, cpu: int, log: bool) -> int:
        return super().activate_guest_mode(v, irqfd, cpu, False)


class SendsWhatIsRestored(Linux):
    """Restores registers as a guest writes them, ICR too."""

    def set_state(self, v: Vcpu, registers: bytes) -> None:
        super().set_state(v, registers)
        self.send_ipi(v, self.get_reg(v, APIC_ICR), 0)


class LiftsForAll(Linux):
    """Whoever gets its own id back ends the inhibit, whatever ids others have."""

    def _reg_write(self, v: Vcpu, offset: int, value: int) -> int:
        result = super()._reg_write(v, offset, value)
        if offset == APIC_ID and value >> 24 == v.id & 0xFF:
            self.recalculate_apic_map(v.kvm)
            self.clear_apicv_inhibit(v.kvm, INHIBIT_APIC_ID_MODIFIED)
        return result


class ForgetsMovedBase(Linux):
    """A base that is back lifts the inhibit."""

    def set_base(self, v: Vcpu, value: int) -> None:
        super().set_base(v, value)
        if v.apic and value & ~0xFFF == APIC_BASE:
            self.clear_apicv_inhibit(v.kvm, INHIBIT_APIC_BASE_MODIFIED)


class UnpostsOneOnly(Linux):
    """Of the IRTEs of a vCPU that is freed the first returns to host mode."""

    def avic_free_vcpu(self, v: Vcpu) -> None:
        for irq in list(v.ir_list)[1:]:
            del v.ir_list[irq], self.irqfds[irq]
        super().avic_free_vcpu(v)


class WrapsUnseen(Linux):
    """The creation in which the generator comes round does not look yet whose the tag is."""

    def add_vm_to_ga_log_list(self, kvm: Kvm) -> None:
        if not kvm.vm_id and self.next_vm_id == 0xFFFFF:
            self.next_vm_id_wrapped, kvm.vm_id, self.next_vm_id = True, 1, 1
            self.ga_log_vms[1] = kvm
        super().add_vm_to_ga_log_list(kvm)


class WakesAll(Linux):
    """Whatever the log says, everybody is woken."""

    def ga_log_notifier(self, tag: int) -> None:
        for v in self.vcpus.values():
            self.port.wake(v.handle)


def test_who_was_woken_is_named_as_the_trace_names_vcpus() -> None:
    """By id, not by the handle that the driver was given."""
    known = judged(WakesAll, RUNNING, s.UpdateIrte(0, 1), s.Exit(1), s.Block(1), s.IommuPost(0)).failure
    unknown = judged(WakesAll, RUNNING, s.GaLogNotify(0xFFFFFFFF)).failure

    assert known is not None
    assert known.detail == "woke vCPU 0 of VM 0 and vCPU 1 of VM 0, the tag is that of vCPU 1 of VM 0"
    assert unknown is not None
    assert unknown.detail == "woke vCPU 0 of VM 0 and vCPU 1 of VM 0, though nobody has the tag"


STILL_FOUND: list[tuple[Callable[[Any], Any], Config, tuple[Any, ...], str]] = [
    (TakesTheOthersAlong, RUNNING, LDRS, "AVIC-041"),
    (
        X2AvicOfBefore,
        Config(vcpus=(), running=True, edx=X2AVIC_HOST),
        (s.HwSetup(), s.VmCreate(), s.VcpuCreate(0), s.SetApicBase(0, X2_BASE, True), s.Load(0, 32), s.VmRun(0)),
        "AVIC-013",
    ),
    (TakesAnySelfIpi, X2, (s.Inhibit(3), s.GuestSelfIpi(0, 5)), "AVIC-107"),
    (OwesForEver, RUNNING, (s.Exit(0), s.Inhibit(3), s.VmRun(0)), "AVIC-086"),
    (MsrsStayOpen, X2, (s.Exit(1), s.VcpuReset(1), s.VmRun(1)), "AVIC-021"),
    (LogsForNobody, RUNNING, POSTED_ASLEEP, "AVIC-094"),
    (RestoreForgetsTimer, RUNNING, (s.Exit(0), s.SetLapic(0, rest=True)), "AVIC-053"),
    (SendsWhatIsRestored, RUNNING, (s.Exit(0), s.SetLapic(0, rest=True)), "AVIC-053"),
    (UnpostsOneOnly, RUNNING, (s.UpdateIrte(0, 1), s.UpdateIrte(1, 1), s.Put(1), s.VcpuFree(1)), "AVIC-093"),
    (
        IndexBehindTheTable,
        Config(vcpus=(0,), running=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT, max_vcpu_ids=512),
        (s.Exit(0),),
        "AVIC-015",
    ),
    (LiftsForAll, RUNNING, (s.GuestWrite(0, APIC_ID, 5 << 24), s.GuestWrite(1, APIC_ID, 1 << 24)), "AVIC-086"),
    (ForgetsMovedBase, RUNNING, (s.SetApicBase(0, AE | 0x1000), s.SetApicBase(0, AE)), "AVIC-087"),
    (WrapsUnseen, FIRST_TAG, (s.TagsPass(0xFFFFF), s.VmCreate(1), s.VcpuCreate(0, 1)), "AVIC-063"),
]


@pytest.mark.parametrize(("candidate", "config", "ops", "clause"), STILL_FOUND)
def test_the_mistake_next_to_it_is_found(
    candidate: Callable[[Any], Any], config: Config, ops: tuple[Any, ...], clause: str
) -> None:
    """And blamed on the clause that a reader expects."""
    assert cited(judged(candidate, config, *ops)) == clause


@pytest.mark.parametrize(
    ("culprit", "world", "clause"),
    [(X2AvicOfBefore, "loaded anew", "AVIC-013"), (TakesAnySelfIpi, "x2apic without x2avic", "AVIC-107")],
)
def test_a_small_world_finds_it(culprit: type, world: str, clause: str) -> None:
    """And leaves the right driver alone."""

    def explored(candidate: type) -> list[str]:
        context = Context(
            subsystem=replace(AVIC, scopes={world: AVIC.scopes[world]}),
            candidate=Candidate("here", candidate, "upstream", frozenset(AVIC.capabilities)),
            profile="upstream",
        )
        explore.run(context)
        return [failure.clause.id for failure in context.failures]

    assert explored(culprit) == [clause]
    assert explored(Upstream) == []
