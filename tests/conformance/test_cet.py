"""The world of cet, its hypervisors and its zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.candidates.builtin.cet.as_posted import AsPosted
from conformance.candidates.builtin.cet.hardware import Hardware
from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.defect import Defect
from conformance.candidates.defects.cet import DEFECTS
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign, explore, interleave
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.model.cet import initial
from conformance.model.cet import operations as m
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.cet import PROFILES
from conformance.specs.cet import constants as k
from conformance.strategies.cet import suggest
from conformance.strategies.cet.domains import IBT_ONLY, NEITHER, SHSTK_ONLY
from conformance.strength import kill
from conformance.subsystem import subsystem
from conformance.trace import Trace, from_data, to_data

S = subsystem("cet")
A, B = 0x1000_0000_0000, 0x1000_0001_0000
ONE = m.Config()
TWO = m.Config(vcpus=(m.Cpuid(), m.Cpuid()))
PEERS = Path(__file__).parent / "peers" / "cet.py"
BY_ID = {defect.id: defect for defect in DEFECTS}


def run(factory: Callable[[Any], Any], *ops: Any, config: m.Config = ONE, profile: str = "") -> Report:
    """Judge these operations."""
    steps = tuple(op if isinstance(op, Step) else Step(op) for op in ops)
    name = profile or getattr(factory, "profile", "upstream")
    return run_trace(S, Trace("cet", name, config, steps), factory, record=True)


def blamed(report: Report) -> str:
    """Id of the clause that ended the trace."""
    assert report.failure is not None
    return report.failure.clause.id


def window(op: Any, point: int, cpu: int = 0) -> Step:
    """The operation with a preemption of its own vCPU at point `point`."""
    return Step(op, during=((point, Step(m.Window(op.vcpu, cpu))),))


# -- the world


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
    stale = BY_ID["CET-A-07"].candidate
    assert stale is not None

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


# -- correct candidates


@pytest.mark.parametrize(
    "spec",
    [
        "builtin:upstream",
        "builtin:hardware",
        "builtin:repaired",
        f"{PEERS}:LazySwap",
        f"{PEERS}:Cautious",
    ],
)
def test_a_correct_candidate_is_not_accused(spec: str) -> None:
    """Whatever its profile and the calls it makes."""
    candidate = load(spec, S)
    context = Context(subsystem=S, candidate=candidate, profile=candidate.profile, steps=12_000, seed=3)

    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []


def test_what_another_left_on_a_physical_cpu_is_not_a_reload() -> None:
    """Two vCPUs with the same value: the FPU code leaves one's in the registers the other's thread comes to."""
    same = ((k.PL1_SSP, A),)
    company = ((0, Step(m.Run(1, 1))), (0, Step(m.Window(0, 1))))

    report = run(
        Upstream, m.SetMsrs(0, same), m.SetMsrs(1, same), Step(m.GetMsrs(0, (k.S_CET,)), during=company), config=TWO
    )

    assert report.failure is None


@pytest.mark.parametrize("scope", ["torn", "pair", "switches-vmx", "switches-svm", "bypass"])
@pytest.mark.parametrize("spec", ["builtin:repaired", f"{PEERS}:LazySwap"])
def test_hand_swapping_candidates_conform_in_small_worlds(spec: str, scope: str) -> None:
    """The worlds in which the seed fails."""
    candidate = load(spec, S)
    of = replace(S, scopes={scope: S.scopes[scope]})
    context = Context(subsystem=of, candidate=candidate, profile=candidate.profile)

    explore.run(context)

    assert [failure.signature for failure in context.failures] == []


def test_suggestions_keep_a_correct_candidate_busy() -> None:
    """They are steps like any other."""
    assert suggest(initial(m.Config(vcpus=()), PROFILES["upstream"]), Random(0)) is None


# -- the seed


@pytest.mark.parametrize(
    ("ops", "clauses", "config"),
    [
        # after the last save the notifier is still registered
        ((m.Run(0), m.Wrmsr(0, k.PL0_SSP, A), window(m.Leave(0), 5), m.Run(0), m.Rdmsr(0, k.PL0_SSP)), "043 044", ONE),
        # before the reload it is registered already
        (
            (m.Run(0), m.Wrmsr(0, k.PL0_SSP, A), m.Leave(0), window(m.Run(0), 0), m.Rdmsr(0, k.PL0_SSP)),
            "043 044",
            ONE,
        ),
        # any other ioctl
        (
            (m.Run(0), m.Wrmsr(0, k.PL0_SSP, A), m.Leave(0), window(m.GetMsrs(0, (k.PL0_SSP,)), 0)),
            "043 025 044",
            ONE,
        ),
        # what userspace set is never loaded
        ((m.SetMsrs(0, ((k.PL0_SSP, A),)), m.Run(0), m.Rdmsr(0, k.PL0_SSP)), "024 032 039", ONE),
        # XRSTORS
        (
            (m.Run(0), m.Wrmsr(0, k.XSS, 0x1000), m.Xrstors(0, k.CET_S, (A, 0, 0)), m.Leave(0)),
            "040 043 046 049",
            ONE,
        ),
        # an inactive vCPU reads what hardware holds
        (
            (
                m.Run(0),
                m.Wrmsr(0, k.XSS, 0x1000),
                m.Xrstors(0, k.CET_S, (A, 0, 0)),
                m.Run(1),
                m.Rdmsr(1, k.PL0_SSP),
            ),
            "039 046",
            TWO,
        ),
        # activation loads the written MSR only
        (
            (m.SetMsrs(0, ((k.PL1_SSP, B),)), m.Run(0), m.Wrmsr(0, k.PL0_SSP, A), m.Rdmsr(0, k.PL1_SSP)),
            "017 024",
            ONE,
        ),
        # a zero that does not reach the register
        (
            (m.Run(0), m.Wrmsr(0, k.PL0_SSP, A), m.Wrmsr(0, k.PL0_SSP, 0, emulated=True), m.Rdmsr(0, k.PL0_SSP)),
            "016 042",
            ONE,
        ),
        # reset
        ((m.Run(0), m.Wrmsr(0, k.PL0_SSP, A), m.Init(0), m.Rdmsr(0, k.PL0_SSP)), "076", ONE),
        # a stale array
        (
            (
                m.Run(0),
                m.Wrmsr(0, k.PL0_SSP, A),
                m.Wrmsr(0, k.PL0_SSP, B),
                m.Rdmsr(0, k.PL0_SSP, emulated=True),
            ),
            "042",
            ONE,
        ),
        # bit 12 whatever the hardware has
        ((m.VendorInit(m.Host(xss=0)), m.SupportedXss()), "060 061 075", m.Config(vcpus=())),
    ],
)
def test_the_seed_fails_as_analysed(ops: tuple[Any, ...], clauses: str, config: m.Config) -> None:
    """The sequences of the analysis, each with one of the clauses it names."""
    assert blamed(run(AsPosted, *ops, config=config)).removeprefix("CET-") in clauses.split()


# -- the zoo


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.candidate is not None], ids=lambda d: d.id)
def test_every_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """And in no more steps than the analysis needs, macros expanded."""
    found = kill(S, defect, load(f"builtin:{defect.id}", S))

    assert found.is_killed
    assert found.is_expected
    assert defect.steps is None or found.steps <= defect.steps


@pytest.mark.parametrize("candidate", [Upstream, Hardware], ids=lambda cls: cls.__name__)
def test_fpu_managed_candidates_agree_on_other_hosts(candidate: type) -> None:
    """IBT alone, neither feature, AMD: the plain life of a vCPU."""
    life = (m.Run(0), m.Wrmsr(0, k.U_CET, 0), m.Rdmsr(0, k.PL3_SSP), m.Leave(0), m.GetMsrs(0, k.MSRS), m.Migrate(0, 2))
    for cpuid in (IBT_ONLY, NEITHER, SHSTK_ONLY, m.Cpuid(lm=False)):
        for host in (m.Host(), m.Host(vendor="amd", ibt=False), m.Host(la57=True)):
            assert run(candidate, *life, config=m.Config(host, (cpuid,))).failure is None


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


class SharedScratch(Repaired):
    """Saves by way of one buffer for all vCPUs, as a driver with a static variable would."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.scratch = [0, 0, 0]

    def swap_out(self, v: Any) -> None:
        """Read into the buffer, then copy."""
        self.port.preempt_disable()
        if v.in_hardware:
            for index, msr in enumerate((k.PL0_SSP, k.PL1_SSP, k.PL2_SSP)):
                self.scratch[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
            v.ssp[:] = self.scratch
            v.in_hardware = False
        self.port.preempt_enable()


def interleaved(candidate: type) -> Context:
    """What two vCPUs on two physical CPUs show of a candidate."""
    of = subsystem("cet")
    loaded = Candidate("shared", candidate, "as-posted", frozenset(of.capabilities) - {"nested"})
    context = Context(subsystem=of, candidate=loaded, profile="as-posted")
    interleave.run(context)
    return context


def test_two_vcpus_at_once_do_not_accuse_the_correct_design() -> None:
    """Whatever the schedule: what belongs to one vCPU is out of the other's reach."""
    context = interleaved(Repaired)

    assert context.failures == []
    assert context.notes["interleave: switches"] > 1_000


def test_two_vcpus_at_once_show_a_shared_buffer() -> None:
    """One thread saves into it while the other does; preemption being off does not stop the other CPU."""
    context = interleaved(SharedScratch)

    assert context.failures
    assert all(any(type(s.op) is Parallel for s in f.trace.steps) for f in context.failures if f.trace)
