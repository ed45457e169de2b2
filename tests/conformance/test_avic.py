"""AVIC: the environment's hardware, the shipped candidates, and the zoo."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.avic import CANDIDATES
from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.builtin.avic.router import Router
from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.defect import Defect
from conformance.candidates.defects.avic import DEFECTS
from conformance.candidates.defects.avic import upstream as u
from conformance.candidates.defects.avic.as_posted import Repaired
from conformance.candidates.load import load
from conformance.engines import campaign, explore, interleave
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.model.avic import Config
from conformance.model.avic import operations as o
from conformance.model.avic.routing import Message
from conformance.model.step import Fault, Step
from conformance.specs.avic.constants import APIC_DFR, APIC_LDR, CLUSTER, ENOMEM
from conformance.strategies.avic.domains import APICS, RESET, RUNNING, THREE
from conformance.strategies.avic.scopes import SCOPES
from conformance.strength import kill
from conformance.subsystem import subsystem
from conformance.trace import Trace

AVIC = subsystem("avic")


def judged(candidate: Callable[[Any], Any], config: Config, *ops: Any, profile: str = "upstream") -> Report:
    """The report on a trace of these operations."""
    steps = tuple(op if isinstance(op, Step) else Step(op) for op in ops)
    return run_trace(AVIC, Trace("avic", profile, config, steps), candidate)


def cited(report: Report) -> str:
    """Id of the clause that failed, or nothing."""
    return report.failure.clause.id if report.failure else ""


def test_start_that_fails_is_minimised() -> None:
    """A candidate that is wrong before the first step is reported with an empty trace."""
    candidate = load("builtin:UP-15", AVIC)
    old = replace(AVIC, scopes={"erratum 1235": SCOPES["erratum 1235"]})
    context = Context(subsystem=old, candidate=candidate, profile="upstream", stop_at_first=True)

    explore.run(context)

    assert [f.clause.id for f in context.failures] == ["AVIC-008"]
    assert context.failures[0].trace is not None
    assert context.failures[0].trace.steps == ()


def test_campaign_opens_only_with_what_the_candidate_has() -> None:
    """A pure router is walked through messages alone, though walks usually open with a VM."""
    candidate = load("builtin:router", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="upstream", steps=600)

    campaign.run(context)

    assert context.failures == []
    assert context.tally.steps >= 600


def test_a_pure_router_has_nothing_to_run_at_once() -> None:
    """Operations of other layers are not paired for it, hunting or not."""
    context = Context(subsystem=AVIC, candidate=load("builtin:router", AVIC), profile="upstream", hunting=True)

    interleave.run(context)

    assert context.tally.steps == 0


# -- the environment


def test_hardware_sets_no_bit_when_a_target_is_invalid() -> None:
    """A directed IPI with one invalid target exits before any IRR bit is set, so the driver alone delivers."""
    report = judged(u.InvalidTargetDropped, RUNNING, o.GuestIpi(0, 3 | 4, logical=True))

    assert cited(report) == "AVIC-069"


def test_clean_bit_is_honoured() -> None:
    """A pointer that changes with clean bit 11 set is caught at the next VMRUN."""

    class KeepsClean(u.GrowthMovesPages):
        def _avic_init_vmcb(self, v: Any) -> None:
            super()._avic_init_vmcb(v)

    report = judged(KeepsClean, Config(vcpus=(0,)), o.Enter(0), o.VcpuCreate(1), o.Enter(0))

    assert cited(report) == "AVIC-018"


def test_vmcb_of_a_running_vcpu_is_out_of_bounds() -> None:
    """Growth that moves the page of a vCPU in the guest writes its VMCB there (AP-13)."""
    report = judged(u.GrowthMovesPages, RUNNING, o.VcpuCreate(2))

    assert cited(report) == "AVIC-019"


def test_plain_store_to_a_live_bitmap_is_a_lost_update() -> None:
    """IRR changes by locked operations only (AVIC-055)."""

    class PlainStore(Upstream):
        def _set_vector(self, v: Any, base: int, vector: int) -> None:
            offset = base + (vector >> 5) * 16
            self.port.write32(v.regs, offset, self.port.read32(v.regs, offset) | 1 << (vector & 31))

    assert cited(judged(PlainStore, RUNNING, o.Deliver(1))) == "AVIC-055"


def test_half_an_entry_cannot_be_stored() -> None:
    """A physical entry is one 64-bit store (AVIC-032)."""

    class TwoHalves(Upstream):
        def _publish(self, v: Any) -> None:
            self.port.write32(v.kvm.phys_table, 8 * v.id, v.entry & 0xFFFFFFFF)
            self.port.write32(v.kvm.phys_table, 8 * v.id + 4, v.entry >> 32)

    assert cited(judged(TwoHalves, RUNNING)) == "AVIC-032"


def test_use_after_free_is_named() -> None:
    """Memory given back is nobody's (AVIC-065)."""

    class UsesFreed(Upstream):
        def vcpu_free(self, vcpu: int) -> None:
            regs = self.vcpus[vcpu].regs
            super().vcpu_free(vcpu)
            self.port.read32(regs, 0)

    assert cited(judged(UsesFreed, Config(vcpus=(0,)), o.VmDestroy())) == "AVIC-065"


def test_lock_held_at_return_is_named() -> None:
    """Locks are released on every path (AVIC-065)."""

    class Keeps(Upstream):
        def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
            self.port.lock("slots", 0)

    assert cited(judged(Keeps, Config(vcpus=(0,)), o.HwapicUpdate(0))) == "AVIC-065"


def test_crash_is_a_finding() -> None:
    """An exception of the driver cites the clause on robustness."""

    class Crashes(Upstream):
        def deliver(self, vcpu: int, vector: int, level: int) -> None:
            raise KeyError(vector)

    assert cited(judged(Crashes, RUNNING, o.Deliver(1))) == "AVIC-108"


def test_boot_that_fails_is_judged_before_the_first_step() -> None:
    """set_lapic that the guest never sees shows before anything else happens (AP-18)."""
    assert cited(judged(u.TwoCopies, RUNNING)) == "AVIC-053"


@pytest.mark.parametrize("point", [12, 16])
def test_irr_is_looked_at_after_running_is_cleared(point: int) -> None:
    """An IPI between the look at IRR and the clearing of IsRunning is lost, and the vCPU sleeps (AVIC-036)."""

    class LooksFirst(Upstream):
        def vcpu_blocking(self, vcpu: int) -> int:
            v = self.vcpus[vcpu]
            v.blocking = True
            found = self._has_interrupt(v)
            self._put(v, log=True)
            return int(found >= 0)

    report = judged(LooksFirst, RUNNING, o.Exit(1), Step(o.Block(1), during=((point, Step(o.GuestIpi(0, 1))),)))

    assert cited(report) == "AVIC-036"


def test_self_ipi_with_reserved_bits_faults() -> None:
    """A driver that sends it all the same is wrong (AVIC-114)."""

    class Sends(Upstream):
        def _x2_write(self, v: Any, offset: int, value: int) -> int:
            return super()._x2_write(v, offset, value & 0xFF if offset == 0x3F0 else value)

    config = Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True)

    assert cited(judged(Sends, config, o.GuestSelfIpi(0, 0x141))) == "AVIC-114"


def test_logged_interrupt_wakes() -> None:
    """A notifier that wakes nobody leaves the vCPU asleep (AVIC-092)."""

    class Sleepy(Upstream):
        def ga_log_notify(self, tag: int) -> int:
            return 0

    assert cited(judged(Sleepy, RUNNING, o.UpdateIrte(0, 0), o.Exit(0), o.Block(0), o.IommuPost(0))) == "AVIC-092"


# -- single mistakes, each in the operation that shows it


class _InvalidForAWhile(Upstream):
    def _publish(self, v: Any) -> None:
        self.port.write64(v.kvm.phys_table, 8 * v.id, 0)
        super()._publish(v)


class _ValidBeforeCleared(Upstream):
    def _handle_ldr_update(self, v: Any) -> None:
        old, v.ldr = v.ldr, self._reg(v, APIC_LDR) >> 24
        self._install_logical(v)
        if self.logical_index(old, v.dfr) >= 0:
            self.port.write32(v.kvm.logical_table, 4 * self.logical_index(old, v.dfr), 0)


class _TellsIrtesLate(Upstream):
    def _put(self, v: Any, log: bool) -> None:
        irqs, v.irqs = v.irqs, {}
        super()._put(v, log)
        v.irqs = irqs
        for irq in irqs:
            self.port.iommu_update_ga(irq, -1, int(log))


class _EmulatesOnceMore(Upstream):
    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        self.port.emulate_instruction(vcpu)
        return super().incomplete_ipi_exit(vcpu, info1, info2)


class _KeepsSilent(Upstream):
    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        return 1 if info2 >> 32 == 3 else super().incomplete_ipi_exit(vcpu, info1, info2)


class _InterceptsRunning(Upstream):
    def inhibit(self, vm: int, reason: int, on: int) -> None:
        for v in self.vms[vm].vcpus.values():
            self.port.set_cr8_intercept(v.handle, 1)
        super().inhibit(vm, reason, on)


class _TakesAnyTag(Upstream):
    def _vm_init(self, kvm: Any) -> int:
        taken, self.hash = self.hash, {}
        error = super()._vm_init(kvm)
        self.hash = taken | self.hash
        return error


class _ForgetsTheLogicalEntry(Upstream):
    def vcpu_free(self, vcpu: int) -> None:
        self.vcpus[vcpu].ldr = 0
        super().vcpu_free(vcpu)


class _InhibitsEveryVm(Upstream):
    def inhibit(self, vm: int, reason: int, on: int) -> None:
        for n in self.vms:
            super().inhibit(n, reason, on)


@pytest.mark.parametrize(
    ("candidate", "config", "ops", "clause"),
    [
        (_InvalidForAWhile, RUNNING, (o.Put(1), o.Load(1, 0x30)), "AVIC-032"),
        (_ValidBeforeCleared, RUNNING, (o.GuestWrite(0, APIC_LDR, 4 << 24),), "AVIC-041"),
        (_TellsIrtesLate, RUNNING, (o.UpdateIrte(0, 1), o.Put(1)), "AVIC-094"),
        (_EmulatesOnceMore, RUNNING, (o.Put(1), o.GuestIpi(0, 1)), "AVIC-068"),
        (_KeepsSilent, RUNNING, (o.RawIpiExit(0, 0x41, 3 << 32),), "AVIC-073"),
        (_InterceptsRunning, RUNNING, (o.Inhibit(3),), "AVIC-019"),
        (_TakesAnyTag, Config(), (o.VmCreate(0), o.TagsPass(0), o.VmCreate(1)), "AVIC-063"),
        (_ForgetsTheLogicalEntry, THREE, (o.Put(1), o.VcpuFree(1)), "AVIC-038"),
        (
            _InhibitsEveryVm,
            Config(vcpus=(0,)),
            (o.VmCreate(1), o.VcpuCreate(0, 1), o.Inhibit(3), o.Enter(0, vm=1)),
            "AVIC-085",
        ),
    ],
)
def test_a_single_mistake_is_named(
    candidate: Callable[[Any], Any], config: Config, ops: tuple[Any, ...], clause: str
) -> None:
    """Each of these drivers differs from the correct one in one place."""
    assert cited(judged(candidate, config, *ops)) == clause


# -- the shipped candidates


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


# -- the zoo


@pytest.mark.parametrize("defect", [x for x in DEFECTS if x.candidate is not None], ids=lambda x: x.id)
def test_every_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """The suite finds it, and cites a clause that the facts name for it."""
    found = kill(AVIC, defect, load(f"builtin:{defect.id}", AVIC))

    assert found.is_killed
    assert found.is_expected, found.failure


def test_what_is_not_in_the_zoo_says_why() -> None:
    """Each defect of the facts has a driver or a reason."""
    facts = {f"AP-{n:02d}" for n in range(1, 36)} | {f"UP-{n:02d}" for n in range(1, 31)}

    assert all(bool(x.candidate) != bool(x.why_not) for x in DEFECTS)
    assert facts <= {x.id for x in DEFECTS}


def test_races_are_tried_without_gaps_and_hold() -> None:
    """Every schedule of the races, in both orders; a count that changes is news."""
    candidate = load("builtin:upstream", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="upstream")
    search = interleave._Search(context)

    deque(search.races(), maxlen=0)

    assert context.failures == []
    assert (len(search.raced), sum(search.raced.values())) == (75, 6022)


# -- the explored worlds


@pytest.mark.parametrize("name", [name for name, scope in SCOPES.items() if scope.states is not None])
def test_worlds_have_their_size(name: str) -> None:
    """A change of the reachable states that nobody expected is news."""
    scope = SCOPES[name]
    candidate = load("builtin:upstream", AVIC)
    context = Context(subsystem=replace(AVIC, scopes={name: scope}), candidate=candidate, profile="upstream")

    explore.run(context)

    assert context.failures == []
    assert (context.notes[f"{name}: states"], context.notes[f"{name}: transitions"]) == (
        scope.states,
        scope.transitions,
    )
