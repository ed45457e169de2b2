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
from conformance.model.avic import operations as o
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
        (o.Exit(1), o.Block(1), o.GuestIpi(0, 1)),
        (o.Put(1), o.GuestIpi(0, 1, defer=True), o.Load(1, 0x21), o.VmRun(1), o.GuestEoi(1), o.HandleExit(0)),
        (o.GuestIpi(0, 1, level=True), o.GuestEoi(1)),
        (o.Inhibit(3, on=True), o.Deliver(1), o.Inhibit(3, on=False), o.GuestEoi(1)),
        (o.GuestWrite(0, APIC_LDR, 0x02000000), o.GuestWrite(1, APIC_LDR, 0x01000000), o.GuestIpi(0, 2, logical=True)),
        (o.GuestWrite(0, APIC_DFR, CLUSTER), o.GuestWrite(1, APIC_DFR, CLUSTER), o.GuestIpi(0, 2, logical=True)),
        (o.UpdateIrte(0, 1), o.Exit(1), o.Block(1), o.IommuPost(0), o.VmRun(1)),
        (o.Exit(0), o.VcpuReset(0), o.VmRun(0), o.GuestIpi(1, 0)),
        (Step(o.VcpuCreate(2), (Fault("alloc_page", -ENOMEM),)), o.VcpuCreate(2), o.Exit(0), o.Exit(1), o.VmDestroy()),
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
            candidate, RUNNING, o.VcpuCreate(2), o.MemoryPressure(), o.GuestStore(1), o.UserStore(0), o.GuestIpi(0, 1)
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
            Eager, RUNNING, o.Put(1), o.Inhibit(3, on=True), o.Inhibit(3, on=on), o.Load(1, 0x30), o.VmRun(1)
        )
        assert report.failure is None


def test_missing_logical_entries_only_warn() -> None:
    """Without logical entries every logical IPI exits and is emulated: slow, and only a SHOULD (AVIC-039)."""

    class NoEntries(Upstream):
        def _install_logical(self, v: Any) -> None:
            pass

    report = judged(NoEntries, RESET, o.GuestWrite(0, APIC_LDR, 1 << 24), o.GuestIpi(1, 1, logical=True))

    assert report.failure is None
    assert [w.clause.id for w in report.warnings] == ["AVIC-039"]


_ONE = Config(vcpus=(0,))
_NO_MEMORY = (Fault("set_memory_region", -ENOMEM),)
_NO_PAGE = (Fault("gfn_to_page", -ENOMEM),)
_WRAPPING = Config(next_tag=0xFFFFFFFF)


@pytest.mark.parametrize(
    ("clause", "config", "ops"),
    [
        ("AVIC-014", Config(tagged=True), (o.VmCreate(), o.VcpuCreate(0))),
        ("AVIC-014", Config(), (o.VmCreate(), Step(o.VcpuCreate(0), _NO_PAGE))),
        ("AVIC-058", _ONE, (Step(o.VcpuCreate(1), _NO_MEMORY),)),
        ("AVIC-061", _ONE, (o.VcpuCreate(0),)),
        ("AVIC-048", _ONE, (o.MemoryPressure(),)),
        ("AVIC-049", _ONE, (o.UserStore(0),)),
        ("AVIC-053", _ONE, (o.SetLapic(0, tpr=0x20),)),
        ("AVIC-017", _ONE, (o.VmcbReinit(0),)),
        ("AVIC-051", _ONE, (o.VcpuCreate(1),)),
        ("AVIC-010", Config(), (o.VmCreate(irqchip=False), o.VcpuCreate(0))),
        ("AVIC-063", _WRAPPING, (o.VmCreate(0), o.VmCreate(1), o.VcpuCreate(0), o.VcpuCreate(0, 1))),
        ("AVIC-011", Config(), (o.VmCreate(max_vcpu_ids=2), o.VcpuCreate(2))),
        ("AVIC-026", _ONE, (o.Enter(0),)),
        ("AVIC-037", Config(), (o.LogicalIndex(1),)),
        ("AVIC-029", Config(), (o.PhysIndex(-1),)),
        ("AVIC-014", Config(), (o.HpaField(0x8010000012345ABC),)),
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
    message = o.Route(APICS[0], Message(1, vector=5))

    assert cited(judged(Router, Config(), message, profile="kvm-lapic")) == "AVIC-109"
    assert cited(judged(KvmLapic, Config(), message, profile="upstream")) == "AVIC-102"
