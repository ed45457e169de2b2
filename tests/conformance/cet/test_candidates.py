"""The hypervisors of cet: correct ones are not accused, the seed fails as analysed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.candidates.builtin.cet.as_posted import AsPosted
from conformance.candidates.builtin.cet.hardware import Hardware
from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign, explore, interleave
from conformance.engines.context import Context
from conformance.model.cet import initial, legal
from conformance.model.cet import operations as m
from conformance.model.cet import step as model_step
from conformance.model.step import Outcome, Parallel, Step
from conformance.specs.cet import PROFILES
from conformance.specs.cet import constants as k
from conformance.strategies.cet import suggest
from conformance.strategies.cet.domains import AMD, IBT_ONLY, NEITHER, SHSTK_ONLY
from conformance.subsystem import Subsystem
from tests.conformance.cet.judging import ONE, TWO, A, B, S, blamed, run, window
from tests.conformance.peers.linux_cet import PEERS as VARIANTS

PEERS = Path(__file__).parents[1] / "peers" / "cet.py"
LINUX = PEERS.with_name("linux_cet.py")


@pytest.mark.parametrize(
    "spec",
    [
        "builtin:upstream",
        "builtin:hardware",
        "builtin:repaired",
        f"{PEERS}:LazySwap",
        f"{PEERS}:Cautious",
        "builtin:linux",
        *(pytest.param(f"{LINUX}:{peer.__name__}", marks=pytest.mark.gates) for peer in VARIANTS.values()),
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


@pytest.mark.gates
@pytest.mark.parametrize("peer", VARIANTS)
def test_variants_of_linux_conform_in_small_worlds(peer: str) -> None:
    """Those worlds in which each of them does something else than the kernel."""
    candidate = load(f"{LINUX}:{VARIANTS[peer].__name__}", S)
    scopes = {name: S.scopes[name] for name in ("emulator", "kept-refused", "moved-svm", "two-vmcb12s", "filtered")}
    context = Context(subsystem=replace(S, scopes=scopes), candidate=candidate, profile=candidate.profile)

    explore.run(context)

    assert [failure.signature for failure in context.failures] == []


@pytest.mark.parametrize("scope", ["torn", "pair", "switches-vmx", "switches-svm", "bypass"])
@pytest.mark.parametrize("spec", ["builtin:repaired", f"{PEERS}:LazySwap"])
def test_hand_swapping_candidates_conform_in_small_worlds(spec: str, scope: str) -> None:
    """The worlds in which the seed fails."""
    candidate = load(spec, S)
    of = replace(S, scopes={scope: S.scopes[scope]})
    context = Context(subsystem=of, candidate=candidate, profile=candidate.profile)

    explore.run(context)

    assert [failure.signature for failure in context.failures] == []


class ResetKeepsL1(Upstream):
    """RESET in L2 clears vmcb02 alone: what L1 had comes back with vmcb01."""

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        """Remember and write back."""
        was_in_l2 = self.svm and self.vcpus[vcpu].l2
        kept = [self.port.vmcb_read(vcpu, 1, offset) for offset in (k.VMCB_S_CET, k.VMCB_SSP)] if was_in_l2 else []
        super().vcpu_reset(vcpu, init)
        for offset, value in zip((k.VMCB_S_CET, k.VMCB_SSP), kept, strict=False):
            self.port.vmcb_write(vcpu, 1, offset, value)
            self.port.vmcb_mark_dirty(vcpu, 1, k.VMCB_CET)


class L1KeptByExit(Upstream):
    """An exit from L2 without the exit control gives L1 what it had before."""

    def load_host_area(self, v: Any, values: list[int]) -> None:
        """What vmcs01 still holds."""
        fields = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
        super().load_host_area(v, [self.field_read(v, field) for field in fields])


class RestoreLosesTable(Upstream):
    """KVM_SET_NESTED_STATE leaves the interrupt SSP table behind in vmcs01."""

    def set_nested_state(self, vcpu: int) -> int:
        """S_CET and SSP come along."""
        result = super().set_nested_state(vcpu)
        self.field_write(self.vcpus[vcpu], k.GUEST_INTR_SSP_TABLE, 0)
        return result


class AnyControlWillDo(Upstream):
    """VMREAD of each CET field goes by the VM-entry control."""

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        """The host area's, too."""
        loads = self.port.host_cap("load_cet_entry")
        return (0, self.port.vmcs12_read(vcpu, field)) if loads else (1, 0)


@pytest.mark.parametrize(
    ("culprit", "scope", "clause"),
    [
        (ResetKeepsL1, "reset-in-mode-svm", "CET-076"),
        (L1KeptByExit, "switches-vmx", "CET-086"),
        (RestoreLosesTable, "userspace-in-l2", "CET-084"),
        (AnyControlWillDo, "vmread-entry-alone", "CET-089"),
    ],
)
def test_a_small_world_shows_what_lies_behind_the_model(culprit: type, scope: str, clause: str) -> None:
    """What the VMCBs and VMCSs hold tells states apart that are one to the model; and hosts have one control each."""
    for candidate, found in ((Upstream, set()), (culprit, {clause})):
        loaded = Candidate("culprit", candidate, "upstream", frozenset(S.capabilities))
        context = Context(subsystem=replace(S, scopes={scope: S.scopes[scope]}), candidate=loaded, profile="upstream")

        explore.run(context)

        assert found <= {failure.clause.id for failure in context.failures}
        assert bool(found) == bool(context.failures)


def test_suggestions_keep_a_correct_candidate_busy() -> None:
    """They are steps like any other."""
    assert suggest(initial(m.Config(vcpus=()), PROFILES["upstream"]), Random(0)) is None


@pytest.mark.parametrize("host", [m.Host(), AMD], ids=["intel", "amd"])
def test_nested_entries_that_are_suggested_can_happen(host: m.Host) -> None:
    """Both vmcb12s, their clean bits where those are true, and each way in which an entry ends."""
    random, seen = Random(1), []
    for _ in range(60):
        state = initial(m.Config(host, (SHSTK_ONLY,)), PROFILES["upstream"])
        for _ in range(60):
            suggested = suggest(state, random)
            assert suggested is not None
            if type(suggested.op) is m.NestedEnter:
                assert legal(state, suggested.op)
            elif not legal(state, suggested.op):
                continue
            outcomes = model_step(state, suggested.op, m.Answers(), PROFILES["upstream"])
            outcome = outcomes[0] if isinstance(outcomes, tuple) else outcomes
            assert isinstance(outcome, Outcome)
            if type(suggested.op) is m.NestedEnter:
                seen.append((outcome.result, suggested.op.area.clean, suggested.op.area.address))
            state = outcome.state

    assert {result for result, _, _ in seen} == ({0, 3} if host is AMD else {0, 1, 2})
    if host is AMD:
        assert {(clean, address) for result, clean, address in seen if not result} == set(
            product((False, True), (0, 1))
        )


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


@pytest.mark.parametrize("candidate", [Upstream, Hardware], ids=lambda cls: cls.__name__)
def test_fpu_managed_candidates_agree_on_other_hosts(candidate: type) -> None:
    """IBT alone, neither feature, AMD: the plain life of a vCPU."""
    life = (m.Run(0), m.Wrmsr(0, k.U_CET, 0), m.Rdmsr(0, k.PL3_SSP), m.Leave(0), m.GetMsrs(0, k.MSRS), m.Migrate(0, 2))
    for cpuid in (IBT_ONLY, NEITHER, SHSTK_ONLY, m.Cpuid(lm=False)):
        for host in (m.Host(), m.Host(vendor="amd", ibt=False), m.Host(la57=True)):
            assert run(candidate, *life, config=m.Config(host, (cpuid,))).failure is None


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


def interleaved(candidate: type, of: Subsystem = S, *, stop_at_first: bool = False) -> Context:
    """What two vCPUs on two physical CPUs show of a candidate."""
    loaded = Candidate("shared", candidate, "as-posted", frozenset(of.capabilities) - {"nested"})
    context = Context(subsystem=of, candidate=loaded, profile="as-posted", stop_at_first=stop_at_first)
    interleave.run(context)
    return context


@pytest.mark.gates
def test_two_vcpus_at_once_do_not_accuse_the_correct_design() -> None:
    """Whatever the schedule: what belongs to one vCPU is out of the other's reach."""
    context = interleaved(Repaired)

    assert context.failures == []
    assert context.notes["interleave: switches"] > 1_000


def test_two_vcpus_at_once_show_a_shared_buffer() -> None:
    """One thread saves into it while the other does; preemption being off does not stop the other CPU."""
    context = interleaved(SharedScratch, replace(S, races={}), stop_at_first=True)

    assert context.failures
    assert all(any(type(s.op) is Parallel for s in f.trace.steps) for f in context.failures if f.trace)
