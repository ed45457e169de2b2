"""The world of cet as a whole: what a trace shows of a candidate that misuses it."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.load import load
from conformance.model.cet import operations as m
from conformance.model.step import Fault, Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import NEITHER, SHSTK_ONLY
from conformance.trace import Trace, from_data, to_data
from tests.conformance.cet.judging import ONE, TWO, A, B, S, blamed, run, window


def test_a_write_that_faults_in_hardware_is_a_violation() -> None:
    """The host's log would have a warning."""

    class Careless(Upstream):
        def valid_cet(self, v: Any, value: int) -> bool:
            return True

    report = run(Careless, m.SetMsrs(0, ((k.U_CET, 0x40),)))

    assert blamed(report) == "CET-001"
    assert report.failure is not None
    assert report.failure.kind == "fault"


def test_registers_need_the_guest_fpu() -> None:
    """Without it the candidate would read the VMM's own."""

    class Unlocked(Upstream):
        def xstate_read(self, v: Any, msr: int) -> int:
            return self.port.rdmsr(msr)

    assert blamed(run(Unlocked, m.GetMsrs(0, (k.PL0_SSP,)))) == "CET-053"


def test_an_unbalanced_fpu_is_seen_on_return_to_userspace() -> None:
    """Whoever loads must put."""

    class Forgetful(Upstream):
        def run_end(self, vcpu: int) -> None:
            pass

    assert blamed(run(Forgetful, m.Run(0), m.Leave(0))) == "CET-054"


def test_preemption_left_disabled_is_seen() -> None:
    """At the end of the operation that left it."""

    class Stuck(Upstream):
        def vcpu_put(self, vcpu: int) -> None:
            self.port.preempt_disable()

    assert blamed(run(Stuck, m.GetMsrs(0, ()))) == "CET-093"


def test_guest_s_cet_must_not_stay() -> None:
    """Without the exit control the guest's S_CET would survive the exit."""

    class NoExitControl(Upstream):
        def set_constant_fields(self, v: Any) -> None:
            super().set_constant_fields(v)
            self.port.vmcs_write(v.number, k.VM_EXIT_CONTROLS, 0)

    assert blamed(run(NoExitControl, m.Run(0), m.Wrmsr(0, k.S_CET, 1))) == "CET-047"


def test_a_user_sees_its_own_registers() -> None:
    """A value left in PL3_SSP reaches the VMM's user mode."""

    class Leaves(Repaired):
        def vcpu_put(self, vcpu: int) -> None:
            self.port.wrmsr(k.PL3_SSP, A)

    assert blamed(run(Leaves, m.Run(0), m.Leave(0))) in ("CET-045", "CET-048")


def test_another_vcpus_value_in_a_readable_register_is_a_leak() -> None:
    """Caught at the VM entry, before the guest reads it."""
    stale = load("builtin:CET-A-07", S).factory

    report = run(stale, m.Run(1), m.Wrmsr(1, k.PL0_SSP, B), m.Run(0), m.Exit(0), config=TWO)

    assert blamed(report) == "CET-046"


def test_threads_preempt_one_another() -> None:
    """Two vCPUs on one physical CPU take turns, with the notifiers that takes."""
    calls: list[tuple[str, int]] = []

    class Watching(Upstream):
        def sched_out(self, vcpu: int) -> None:
            calls.append(("out", vcpu))

        def sched_in(self, vcpu: int, cpu: int) -> None:
            calls.append(("in", vcpu))

    report = run(Watching, m.Run(0), m.Run(1), m.Exit(0), config=TWO)

    assert report.failure is None
    assert calls == [("out", 1), ("out", 2), ("in", 1)]


def test_a_softirq_takes_the_registers_and_gives_them_back() -> None:
    """kernel_fpu_begin in the middle of an ioctl changes no value."""
    step = Step(m.GetMsrs(0, (k.PL0_SSP,)), during=((5, Step(m.KernelFpu(0))), (6, Step(m.KernelFpu(0)))))

    report = run(Upstream, m.SetMsrs(0, ((k.PL0_SSP, A),)), step)

    assert report.failure is None


def test_a_clean_bit_lets_the_processor_use_its_copy() -> None:
    """So a write that does not clear it is a violation at the next VMRUN."""
    amd = m.Config(m.Host(vendor="amd", ibt=False), (SHSTK_ONLY,))

    class Clean(Upstream):
        def field_write(self, v: Any, field: int, value: int) -> None:
            if field == k.GUEST_S_CET:
                self.port.vmcb_write(v.number, 1, k.VMCB_S_CET, value)
            else:
                super().field_write(v, field, value)

    write = m.SetMsrs(0, ((k.S_CET, 1),))
    assert blamed(run(Clean, m.Run(0), m.Exit(0), m.Leave(0), write, m.Run(0), m.Exit(0), config=amd)) == "CET-092"


def test_a_wrong_module_is_reported_at_the_first_step() -> None:
    """Before it there is nothing to point at."""

    class Generous(Upstream):
        def set_caps(self) -> None:
            self.shstk = self.ibt = True
            self.xss = 0x1800

    report = run(Generous, m.MsrIndexList(), config=m.Config(m.Host(unrestricted=False), ()))

    assert blamed(report) == "CET-062"


def test_a_value_of_a_wrong_type_cites_robustness() -> None:
    """A pair where a pair must be."""

    class Wrong(Upstream):
        def guest_rdmsr(self, vcpu: int, msr: int) -> tuple[int, int]:
            return None  # type: ignore[return-value]  # the point of the test

    assert blamed(run(Wrong, m.Run(0), m.Rdmsr(0, k.XSS))) == "CET-093"


def test_faults_are_given_where_the_candidate_meets_them() -> None:
    """A bad user pointer is -EFAULT, for each call by itself."""
    get = Step(m.GetMsrs(0, (k.PL0_SSP,)), faults=(Fault("copy_to_user", -k.EFAULT),))
    put = Step(m.SetMsrs(0, ((k.PL0_SSP, A),)), faults=(Fault("copy_from_user", -k.EFAULT, 2),))
    create = Step(m.Create(1), faults=(Fault("alloc_guest_fpstate", -k.ENOMEM),))

    report = run(Upstream, get, put, create)

    assert report.failure is None
    assert [step.result for step in report.steps] == [(-k.EFAULT, ()), -k.EFAULT, -k.ENOMEM]


def test_traces_survive_their_file() -> None:
    """Nested records and tuples come back as they were."""
    steps = (
        Step(m.NestedEnter(0, m.Area(s_cet=1, intercepts=(k.PL0_SSP,)))),
        window(m.SetMsrs(0, ((k.PL0_SSP, A),)), 3),
        Step(m.Rsm(0, None)),
        Step(m.VendorInit(m.Host(vendor="amd"))),
    )
    trace = Trace("cet", "upstream", TWO, steps)

    assert from_data(to_data(trace), {"cet": S.config}, {"cet": S.operations}) == trace


class Everything(Upstream):
    """Intercepts all there is."""

    def passes(self, v: Any, msr: int) -> bool:
        """Nothing passes."""
        return False


class EverythingByHand(Repaired):
    """The same, in a design that swaps by hand."""

    def passes(self, v: Any, msr: int) -> bool:
        """Nothing passes."""
        return False


class NothingAfterFilter(Upstream):
    """Forgets the filter when the CPUID is set."""

    def set_cpuid(self, vcpu: int, *offered: Any) -> int:
        """As if nothing were denied."""
        self.vcpus[vcpu].denied = ()
        return super().set_cpuid(vcpu, *offered)


@pytest.mark.parametrize(
    ("candidate", "config", "before", "clause"),
    [
        (Everything, ONE, (), "CET-037"),
        (Everything, m.Config(vcpus=(NEITHER,)), (), None),
        (EverythingByHand, ONE, (), None),
        (NothingAfterFilter, ONE, (m.SetFilter(0, (k.PL3_SSP,)), m.SetCpuid(0, m.Cpuid())), "CET-041"),
        (Upstream, ONE, (m.SetFilter(0, (k.PL3_SSP,)), m.SetCpuid(0, SHSTK_ONLY)), None),
    ],
)
def test_interception_counts_at_entry(
    candidate: type, config: m.Config, before: tuple[Any, ...], clause: str | None
) -> None:
    """What must pass or be stopped is looked at when the guest is entered, and only where it is prescribed."""
    failure = run(candidate, *before, m.Run(0), m.Exit(0), config=config).failure

    assert (failure and failure.clause.id) == clause
