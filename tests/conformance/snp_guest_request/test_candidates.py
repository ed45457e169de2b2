"""Correct candidates are not accused, and the posted one fails in the ways that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.snp_guest_request import CANDIDATES
from conformance.candidates.builtin.snp_guest_request.as_posted import AsPosted
from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream, psp_pa
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.model.snp_guest_request.operations import ExtGuestRequest, GetExtReport, GetReport, GuestRequest, Kexec
from conformance.specs import snp_guest_request as specs
from conformance.specs.snp_guest_request import constants as k
from conformance.specs.snp_guest_request.constants import PAGE_SIZE, SNP
from tests.conformance.snp_guest_request.judging import S, run


@pytest.mark.parametrize("name", ["upstream", "stub", "inplace", "posted-errors", "throttled", "guest"])
def test_correct_candidates_survive_a_campaign(name: str) -> None:
    """Random walks, all profiles: no clause is broken, no SHOULD either."""
    candidate = load(f"builtin:{name}", S)
    context = Context(S, candidate, candidate.profile, seed=11, steps=4_000)

    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


@pytest.mark.parametrize("name", ["upstream", "guest"])
def test_scopes_have_their_pinned_counts(name: str) -> None:
    """The correct candidates reach exactly the states that the model has, and break nothing."""
    candidate = load(f"builtin:{name}", S)
    context = Context(S, candidate, candidate.profile, steps=0)

    explore.run(context)

    assert not context.failures
    assert not context.warnings
    found = 0
    for scope, pinned in S.scopes.items():
        if pinned.states is not None and f"{scope}: states" in context.notes:
            assert context.notes[f"{scope}: states"] == pinned.states, scope
            assert context.notes[f"{scope}: transitions"] == pinned.transitions, scope
            found += 1
    assert found == (20 if name == "upstream" else 6)


@pytest.mark.parametrize("name", ["upstream", "stub", "inplace", "posted-errors", "throttled", "guest"])
def test_every_binding_clause_is_exercised(name: str) -> None:
    """What the gate walks and explores is enough for every MUST of the profile that can be tested."""
    candidate = load(f"builtin:{name}", S)
    context = Context(S, candidate, candidate.profile, seed=0, steps=8_000)
    campaign.run(context)
    for scope in explore.scopes(context):
        if not missing(context):
            break
        exploration = explore._Exploration(context, *scope)
        while exploration.go_on():
            pass

    assert missing(context) == []


def missing(context: Context) -> list[str]:
    """The binding clauses that nothing has exercised yet."""
    candidate = context.candidate
    return [
        clause.id
        for clause in S.clauses
        if clause.level.is_binding
        and not clause.untestable
        and clause.applies(candidate.profile, candidate.capabilities)
        and clause not in context.tally.clauses
    ]


@pytest.mark.parametrize("fast", [False, True], ids=["real", "stand-in"])
def test_real_and_stand_in_agree(fast: bool) -> None:
    """The same trace has the same answers with either cipher."""
    ops = (
        GuestRequest(),
        GuestRequest(message="key"),
        ExtGuestRequest(message="bad-tag"),
        GuestRequest(message="replay"),
    )

    report = run(Upstream, *ops, fast=fast)

    assert report.failure is None
    assert [step.result[2] for step in report.steps] == [0, 0, 0xB, 0x1D]


@pytest.mark.parametrize("fast", [False, True], ids=["real", "stand-in"])
def test_closed_loop(fast: bool) -> None:
    """Guest driver, hypervisor, firmware and verifier: reports, keys, certificates, too small, BUSY."""
    ops = (
        GetReport(),
        GetExtReport(),
        GetExtReport((), 4096),
        GetReport(("busy",)),
        GetExtReport(("too-small",)),
        Kexec(0),
        GetReport(),
        GetReport(("corrupt",)),
        GetReport(),
    )

    report = run(GuestDriver, *ops, fast=fast, side="guest", host="hypervisor")

    assert report.failure is None
    assert [step.result[0] for step in report.steps if isinstance(step.result, tuple)] == [0, 0, -5, 0, -5, 0, -74, -25]


class PerVcpuBuffers(Upstream):
    """Bounce pages and a lock per vCPU instead of per VM."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.own: dict[int, Sev] = {}

    def guest_req_init(self, sev: Sev) -> int:
        return 0

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        super().vcpu_create(vcpu, vm)
        if self.sevs[vm].kind == SNP:
            own = self.own[vcpu] = Sev(vm, SNP)
            own.lock = f"vcpu{vcpu}.guest_req_mutex"
            return super().guest_req_init(own)
        return 0

    def vm_destroy(self, vm: int) -> int:
        for vcpu in [v for v, own in self.own.items() if own.vm == vm]:
            super().guest_req_cleanup(self.own.pop(vcpu))
        return super().vm_destroy(vm)

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return self._as_own(vcpu, svm, super().guest_request)

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        return self._as_own(vcpu, svm, super().ext_guest_request)

    def _as_own(self, vcpu: int, svm: Svm, work: Callable[[int, Svm], int]) -> int:
        whole, own = svm.sev, self.own[vcpu]
        own.gctx, own.fd, own.certs_enabled = whole.gctx, whole.fd, whole.certs_enabled
        svm.sev = own
        ret = work(vcpu, svm)
        svm.sev = whole
        return ret


class SvsmLikeErrors(Upstream):
    """Looks at the fd and the context before it touches anything, and zeroes a whole page for the table."""

    def supply_certs(self, svm: Svm) -> int:
        if not svm.regs[k.GHCB_RBX]:
            return 0
        return -5 if self.port.clear_guest(svm.sev.vm, svm.regs[k.GHCB_RAX], PAGE_SIZE) else 0

    def copy_request(self, sev: Sev, gpa: int) -> int:
        if not sev.gctx:
            return -22
        return super().copy_request(sev, gpa)


class MergedKvm(Upstream):
    """KVM as merged: uninterruptible locks, the type read apart from the page, old responses copied out."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        port, sev = self.port, svm.sev
        scratch = port.kzalloc(8)
        if not scratch:
            return -12
        failed = port.read_guest(sev.vm, svm.info1 + k.MSG_TYPE, scratch, 1)
        kind = port.load(scratch, 1)
        port.kfree(scratch)
        if failed:
            return -5
        if kind == k.REPORT_REQ:
            reason = self.validate_data(svm)
            if reason:
                return self.malformed(vcpu, reason)
            if self.asks_userspace(sev):
                svm.req, svm.resp = svm.info1, svm.info2
                port.run_exit(vcpu, k.EXIT_SNP_REQ_CERTS, svm.regs[k.GHCB_RAX], svm.regs[k.GHCB_RBX], 0)
                return k.EXIT
            if self.supply_certs(svm):
                return -5
        return self.guest_request(vcpu, svm)

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        if not sev.gctx:
            return -22, 0
        ret, status = self.port.snp_guest_request(
            sev.fd, psp_pa(sev.gctx), psp_pa(sev.req_buf), psp_pa(sev.resp_buf), 0
        )
        if ret and not status:
            return int(ret), 0
        return self.copy_response(sev, resp_gpa), int(status)

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        self.port.mutex_lock(svm.sev.lock)
        ret = self.copy_request(svm.sev, svm.info1)
        ret, info2 = (ret, 0) if ret else self.forward(svm.sev, svm.info2)
        self.port.mutex_unlock(svm.sev.lock)
        return ret or self.complete(vcpu, 0, info2)


@pytest.mark.gates
@pytest.mark.parametrize(
    ("factory", "tolerated"),
    [(PerVcpuBuffers, set()), (SvsmLikeErrors, set()), (MergedKvm, {"SNP-023", "SNP-024", "SNP-078"})],
)
def test_other_correct_designs_are_not_accused(factory: type[Upstream], tolerated: set[str]) -> None:
    """Other calls in another order, where the clauses allow it; what is only a SHOULD is only a warning."""
    candidate = Candidate("test", factory, factory.profile, factory.capabilities)
    context = Context(S, candidate, factory.profile, seed=5, steps=4_000)

    explore.run(context)
    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []
    assert {warning.clause.id for warning in context.warnings} == tolerated


def test_as_posted_fails_in_the_ways_the_thread_discussed() -> None:
    """Uninitialised status, fd ignored, equal pages, seized pages, cleanup, certificates too late."""
    candidate = load("builtin:as-posted", S)
    context = Context(S, candidate, candidate.profile, steps=0)

    explore.run(context)
    found = {failure.clause.id for failure in context.failures}

    assert AsPosted.profile == "as-posted"
    status = {"SNP-007", "SNP-019", "SNP-025", "SNP-042", "SNP-047", "SNP-048", "SNP-068"}
    pages = {"SNP-029", "SNP-032", "SNP-034", "SNP-036", "SNP-051", "SNP-052"}
    stores = {"SNP-055", "SNP-058", "SNP-059", "SNP-070", "SNP-071", "SNP-072"}
    assert found >= status | pages | stores
    assert all(len(f.trace.steps) <= 5 for f in context.failures if f.trace is not None)


def test_candidates_declare_what_they_are() -> None:
    """Profiles and capabilities of the shipped candidates exist."""
    for candidate in CANDIDATES.values():
        assert candidate.profile in specs.PROFILES
        assert candidate.capabilities <= specs.CAPABILITIES.keys()
