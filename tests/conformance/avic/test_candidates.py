"""The shipped drivers and routers of AVIC."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.avic import CANDIDATES
from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.builtin.avic.router import Router
from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.defects.avic import DEFECTS
from conformance.candidates.defects.avic import upstream as u
from conformance.candidates.defects.avic.as_posted import Repaired
from conformance.candidates.load import load
from conformance.engines import explore, interleave
from conformance.engines.context import Context
from conformance.lockstep import run_trace
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.avic.routing import Message
from conformance.model.step import Fault, Step
from conformance.specs.avic.constants import APIC_DFR, APIC_LDR, CLUSTER, ENOMEM
from conformance.strategies.avic.domains import APICS, RESET, RUNNING
from conformance.strategies.avic.scopes import SCOPES
from conformance.trace import Trace
from tests.conformance.avic.judging import AVIC, cited, judged


@pytest.mark.parametrize(
    "ops",
    [
        (s.Exit(1), s.Block(1), s.GuestIpi(0, 1)),
        (s.Put(1), s.GuestIpi(0, 1, defer=True), s.Load(1, 0x21), s.VmRun(1), s.GuestEoi(1), s.HandleExit(0)),
        (s.GuestIpi(0, 1, level=True), s.GuestEoi(1)),
        (s.Inhibit(3, on=True), s.Deliver(1), s.Inhibit(3, on=False), s.GuestEoi(1)),
        (s.GuestWrite(0, APIC_LDR, 0x02000000), s.GuestWrite(1, APIC_LDR, 0x01000000), s.GuestIpi(0, 2, logical=True)),
        (s.GuestWrite(0, APIC_DFR, CLUSTER), s.GuestWrite(1, APIC_DFR, CLUSTER), s.GuestIpi(0, 2, logical=True)),
        (s.UpdateIrte(0, 1), s.Exit(1), s.Block(1), s.IommuPost(0), s.VmRun(1)),
        (s.Exit(0), s.VcpuReset(0), s.VmRun(0), s.GuestIpi(1, 0)),
        (Step(s.VcpuCreate(2), (Fault("alloc_page", -ENOMEM),)), s.VcpuCreate(2), s.Exit(0), s.Exit(1), s.VmDestroy()),
        (  # a software-disabled vCPU has the logical id of another for a while
            *(s.VcpuCreate(2), s.Load(2, 0x22), s.VmRun(2), s.Exit(1)),
            *(s.GuestWrite(2, APIC_LDR, 0x02000000), s.GuestWrite(2, APIC_LDR, 0), s.VmRun(1)),
        ),
    ],
)
def test_upstream_is_silent(ops: tuple[Any, ...]) -> None:
    """The correct driver agrees with the model on the turns that matter."""
    report = judged(Upstream, RUNNING, *ops)

    assert report.failure is None
    assert report.warnings == []
    assert report.tally.steps == len(ops)


def test_other_correct_drivers_are_not_accused() -> None:
    """Backing pages from private memslots, and a memslot made anew for each vCPU, conform as well."""
    for candidate in (u.MemslotBacked, u.Growing):
        report = judged(
            candidate, RUNNING, s.VcpuCreate(2), s.MemoryPressure(), s.GuestStore(1), s.UserStore(0), s.GuestIpi(0, 1)
        )

        assert report.failure is None


def test_inactive_at_once_is_not_accused() -> None:
    """A driver that deactivates vCPUs outside the guest at once, without waiting for them, conforms."""

    class Eager(Upstream):
        def _set_inhibits(self, kvm: Any, reasons: int, value: int) -> None:
            super()._set_inhibits(kvm, reasons, value)
            for v in list(kvm.vcpus.values()):
                if not self.port.vcpu_mode(v.handle):
                    self._update_apicv(v)

    for on in (True, False):
        report = judged(
            Eager, RUNNING, s.Put(1), s.Inhibit(3, on=True), s.Inhibit(3, on=on), s.Load(1, 0x30), s.VmRun(1)
        )
        assert report.failure is None


def test_missing_logical_entries_only_warn() -> None:
    """Without logical entries every logical IPI exits and is emulated: slow, and only a SHOULD (AVIC-039)."""

    class NoEntries(Upstream):
        def _install_logical(self, v: Any) -> None:
            pass

    report = judged(NoEntries, RESET, s.GuestWrite(0, APIC_LDR, 1 << 24), s.GuestIpi(1, 1, logical=True))

    assert report.failure is None
    assert [w.clause.id for w in report.warnings] == ["AVIC-039"]


_ONE = Config(vcpus=(0,))
_NO_MEMORY = (Fault("set_memory_region", -ENOMEM),)
_NO_PAGE = (Fault("gfn_to_page", -ENOMEM),)
_WRAPPING = Config(next_tag=0xFFFFFFFF)


@pytest.mark.parametrize(
    ("clause", "config", "ops"),
    [
        ("AVIC-014", Config(tagged=True), (s.VmCreate(), s.VcpuCreate(0))),
        ("AVIC-014", Config(), (s.VmCreate(), Step(s.VcpuCreate(0), _NO_PAGE))),
        ("AVIC-058", _ONE, (Step(s.VcpuCreate(1), _NO_MEMORY),)),
        ("AVIC-061", _ONE, (s.VcpuCreate(0),)),
        ("AVIC-048", _ONE, (s.MemoryPressure(),)),
        ("AVIC-049", _ONE, (s.UserStore(0),)),
        ("AVIC-053", _ONE, (s.SetLapic(0, tpr=0x20),)),
        ("AVIC-017", _ONE, (s.VmcbReinit(0),)),
        ("AVIC-051", _ONE, (s.VcpuCreate(1),)),
        ("AVIC-010", Config(), (s.VmCreate(irqchip=False), s.VcpuCreate(0))),
        ("AVIC-063", _WRAPPING, (s.VmCreate(0), s.VmCreate(1), s.VcpuCreate(0), s.VcpuCreate(0, 1))),
        ("AVIC-011", Config(), (s.VmCreate(max_vcpu_ids=2), s.VcpuCreate(2))),
        ("AVIC-026", _ONE, (s.Enter(0),)),
        ("AVIC-037", Config(), (s.LogicalIndex(1),)),
        ("AVIC-029", Config(), (s.PhysIndex(-1),)),
        ("AVIC-014", Config(), (s.HpaField(0x8010000012345ABC),)),
    ],
)
def test_as_posted_fails(clause: str, config: Config, ops: tuple[Any, ...]) -> None:
    """The posted design's defects show one by one, in the last of these steps."""
    report = judged(CANDIDATES["as-posted"], config, *ops, profile="as-posted")

    assert cited(report) == clause
    assert report.failure is not None
    assert report.failure.step == len(ops) - 1


POSTED = {
    "AP-01": "AVIC-014",
    "AP-02": "why",
    "AP-03": "AVIC-037",
    "AP-04": "AVIC-037",
    "AP-05": "AVIC-037",
    "AP-06": "AVIC-037",
    "AP-07": "zoo",
    "AP-08": "AVIC-014",
    "AP-09": "zoo",
    "AP-10": "zoo",
    "AP-11": "zoo",
    "AP-12": "zoo",
    "AP-13": "zoo",
    "AP-14": "AVIC-061",
    "AP-15": "AVIC-048",
    "AP-16": "zoo",
    "AP-17": "AVIC-049",
    "AP-18": "AVIC-053",
    "AP-19": "zoo",
    "AP-20": "AVIC-017",
    "AP-21": "AVIC-051",
    "AP-22": "AVIC-010",
    "AP-23": "zoo",
    "AP-24": "zoo",
    "AP-25": "AVIC-063",
    "AP-26": "AVIC-011",
    "AP-27": "AVIC-026",
    "AP-28": "zoo",
    "AP-29": "AVIC-029",
    "AP-30": "zoo",
    "AP-31": "zoo",
    "AP-32": "why",
    "AP-33": "zoo",
    "AP-34": "why",
    "AP-35": "zoo",
}
"""Where each defect of the posting shows: the clause that the posted driver itself is accused of, a driver of the
zoo where another defect hides it there or its code is called by nobody, or the sentence why it cannot."""


def test_every_defect_of_the_posting_is_accounted_for() -> None:
    """The zoo has what the posted driver itself does not show, or says why not; see `POSTED`."""
    zoo = {x.id: x for x in DEFECTS}

    assert list(POSTED) == [f"AP-{n:02d}" for n in range(1, 36)]
    for name, where in POSTED.items():
        assert (where == "why") == bool(zoo[name].why_not)


def test_the_posted_driver_shows_its_defects() -> None:
    """One run over its small worlds and races accuses it of each clause that `POSTED` names."""
    candidate = load("builtin:as-posted", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="as-posted")

    explore.run(context)

    found = {failure.clause.id for failure in context.failures}
    assert {where for where in POSTED.values() if where.startswith("AVIC")} <= found


@pytest.mark.gates
def test_repaired_posting_conforms() -> None:
    """The design that the posted defects are put back into is not accused itself."""
    candidate = replace(load("builtin:as-posted", AVIC), factory=Repaired)
    context = Context(subsystem=AVIC, candidate=candidate, profile="as-posted")

    explore.run(context)
    interleave.run(context)

    assert [failure.signature for failure in context.failures] == []


@pytest.mark.parametrize(("candidate", "profile"), [(Router, "upstream"), (Router, "arch"), (KvmLapic, "kvm-lapic")])
def test_routers_agree_with_their_oracle(candidate: type, profile: str) -> None:
    """Every message of the routing scopes, in one lockstep."""
    steps: list[Any] = list(SCOPES["routing"].steps)
    if candidate is KvmLapic:
        steps += SCOPES["return values"].steps

    report = run_trace(AVIC, Trace("avic", profile, Config(), tuple(steps)), candidate)

    assert report.failure is None
    assert report.tally.steps > 5_000


def test_routers_are_told_apart() -> None:
    """KVM's routing is not the manuals', so each fails under the other's profile."""
    message = s.Route(APICS[0], Message(1, vector=5))

    assert cited(judged(Router, Config(), message, profile="kvm-lapic")) == "AVIC-109"
    assert cited(judged(KvmLapic, Config(), message, profile="upstream")) == "AVIC-102"
