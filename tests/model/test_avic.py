"""The model of AVIC: routing, tables as they must be, and what is left open."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from conformance.model import avic as model
from conformance.model.avic import operations as s
from conformance.model.avic import routing
from conformance.model.avic.apic import ID, IRR, ISR, LDR, highest, mode_of, seen_by_routing
from conformance.model.avic.ipi import hardware_targets
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.routing import DISABLED, X2APIC, Apic, Message, kvm_route, route, x2_ldr
from conformance.model.avic.state import is_active
from conformance.model.step import Outcome
from conformance.specs.avic import PROFILES
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import APIC_DFR, APIC_ID, APIC_LDR, APIC_RRR, APIC_SPIV, CLUSTER, FLAT
from conformance.strategies.avic.domains import RESET, RUNNING, THREE, X2, random_apics, random_message

UPSTREAM = PROFILES["upstream"]


def after(config: model.Config, *ops: Any) -> model.State:
    """The plainest state after these operations."""
    state = model.initial(config, UPSTREAM)
    for op in ops:
        assert model.legal(state, op), op
        state = plain(state, op).state
    return state


def plain(state: model.State, op: Any) -> Outcome:
    """The plainest outcome."""
    outcomes = model.step(state, op, model.Answers(), UPSTREAM)
    return outcomes if isinstance(outcomes, Outcome) else outcomes[0]


def pending(state: model.State, n: int) -> int:
    """Highest vector in IRR of a vCPU."""
    return highest(state.vcpus[n].regs, IRR)


def in_service(state: model.State, n: int) -> int:
    """Highest vector in ISR of a vCPU."""
    return highest(state.vcpus[n].regs, ISR)


def test_a_restored_id_that_is_another_inhibits_until_it_is_the_own_one() -> None:
    """AVIC is off meanwhile, and the register has it (AVIC-053, AVIC-086)."""
    moved = after(model.Config(vcpus=(0, 1), enabled=True), s.SetLapic(1, ldr=2, xid=7))
    back = plain(moved, s.SetLapic(1, ldr=2)).state

    assert moved.vcpus[1].regs[ID] == 7 << 24
    assert [is_active(state, vcpu) for state in (moved, back) for vcpu in state.vcpus] == [False] * 2 + [True] * 2


def test_an_id_cannot_be_restored_in_x2apic_mode() -> None:
    """It is the vCPU's there."""
    state = after(X2, s.Exit(0), s.SetLapic(0, xid=7))

    assert seen_by_routing(state.vcpus[0]).mode == X2APIC
    assert state.vcpus[0].regs[ID] == 0


@pytest.mark.parametrize(
    ("ldr", "dfr", "index"),
    [
        (1, FLAT, 0),
        (0x80, FLAT, 7),
        (3, FLAT, -1),
        (0, FLAT, -1),
        (0x11, CLUSTER, 4),
        (0xE8, CLUSTER, 59),
        (0xF1, CLUSTER, -1),
    ],
)
def test_logical_index(ldr: int, dfr: int, index: int) -> None:
    """Flat is a power of two, cluster is four per cluster, and cluster 15 has none (AVIC-037)."""
    assert logical_index(ldr, dfr) == index


def test_logical_indices_are_distinct() -> None:
    """No two logical ids of one mode share an index."""
    for dfr, count in ((FLAT, 8), (CLUSTER, 60)):
        indices = [logical_index(ldr, dfr) for ldr in range(256)]

        assert sorted(i for i in indices if i >= 0) == list(range(count))


def test_ipi_reaches_its_target() -> None:
    """A physical IPI to a vCPU in the guest is taken at once."""
    state = after(RUNNING, s.GuestIpi(0, 1))

    assert in_service(state, 1) == 0x41
    assert pending(state, 1) == -1


def test_priority_holds_back() -> None:
    """A vector of a class not above TPR's waits in IRR (AVIC-054)."""
    state = after(RUNNING, s.GuestWrite(1, 0x80, 0x50), s.GuestIpi(0, 1))

    assert pending(state, 1) == 0x41
    assert in_service(state, 1) == -1


def test_sleeper_is_woken_by_what_it_can_take() -> None:
    """No lost wake-up (AVIC-074)."""
    state = after(RUNNING, s.Exit(1), s.Block(1), s.GuestIpi(0, 1))

    assert not state.vcpus[1].asleep


def test_partly_invalid_destination_reaches_the_valid_ones() -> None:
    """Logical bits without an owner are ignored (AVIC-069)."""
    state = after(RUNNING, s.GuestIpi(0, 0b1010, logical=True))

    assert in_service(state, 1) == 0x41


def test_deferred_exit_only_wakes() -> None:
    """What the target took before the handler ran does not come back (AVIC-070)."""
    state = after(
        RUNNING, s.Put(1), s.GuestIpi(0, 1, defer=True), s.Load(1, 0x21), s.VmRun(1), s.GuestEoi(1), s.HandleExit(0)
    )

    assert pending(state, 1) == -1
    assert in_service(state, 1) == -1


def test_software_disabled_target_is_left_open() -> None:
    """Hardware may set the IRR bit of a software-disabled target, software does not (AVIC-107)."""
    state = model.initial(RESET, UPSTREAM)

    outcomes = model.step(state, s.GuestIpi(0, 1), model.Answers(), UPSTREAM)

    assert isinstance(outcomes, tuple)
    assert {in_service(o.state, 1) for o in outcomes} == {-1, 0x41}


def test_hardware_and_routing_agree_on_enabled_vcpus() -> None:
    """On tables as they must be, hardware reaches whom routing names, whatever the message."""
    random = Random("agree")
    state = after(THREE)
    for _ in range(500):
        message = Message(
            random.randrange(256),
            0,
            random.random() < 0.5,
            random.choice((0, 0, 2, 3)),
            vector=random.randrange(16, 256),
        )
        sets, _, _ = route([seen_by_routing(v) for v in state.vcpus], message)
        for hit in hardware_targets(state, state.vcpus[0], message):
            assert tuple(sorted(hit)) in sets


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (s.GuestWrite(0, APIC_ID, 0x05000000), 5),
        (s.GuestWrite(0, APIC_ID, 0x01000000), 4),
        (s.GuestWrite(0, APIC_LDR, 0x02000000), 11),
        (s.GuestWrite(0, APIC_LDR, 0x03000000), 11),
        (s.GuestWrite(0, APIC_DFR, CLUSTER), 11),
        (s.SetApicBase(0, 0xFEE01800), 6),
    ],
)
def test_inhibits(op: Any, reason: int) -> None:
    """Aliases, foreign ids and a moved base keep AVIC off (AVIC-086)."""
    state = after(RUNNING, op)

    assert state.vms[0] is not None
    assert state.vms[0].inhibits >> reason & 1
    assert not is_active(state, state.vcpus[0])


def test_own_id_again_lifts_the_inhibit() -> None:
    """Writing the original id back re-activates AVIC (AVIC-080)."""
    state = after(RUNNING, s.GuestWrite(0, APIC_ID, 0x05000000), s.GuestWrite(0, APIC_ID, 0))

    assert is_active(state, state.vcpus[0])


def test_software_disabled_apics_do_not_alias() -> None:
    """A logical id of an APIC that is off in software counts for nothing."""
    state = after(RESET, s.GuestWrite(0, APIC_LDR, 0x02000000), s.GuestWrite(1, APIC_LDR, 0x02000000))

    assert is_active(state, state.vcpus[0])
    assert not is_active(
        plain(plain(state, s.GuestWrite(0, APIC_SPIV, 0x1FF)).state, s.GuestWrite(1, APIC_SPIV, 0x1FF)).state,
        state.vcpus[0],
    )


def test_remote_read_changes_nothing() -> None:
    """AVIC-078."""
    state = after(RUNNING)

    assert plain(state, s.GuestWrite(0, APIC_RRR, 0xFFFFFFFF)).state == state


def test_init_keeps_base_and_id() -> None:
    """INIT leaves x2APIC mode and id, and the LDR derived from it (AVIC-050)."""
    state = after(X2, s.Exit(17), s.VcpuReset(17, init=True))

    vcpu = state.vcpus[2]
    assert vcpu.regs[ID] == 17
    assert vcpu.regs[LDR] == x2_ldr(17)
    assert mode_of(vcpu.base) == X2APIC


@pytest.mark.parametrize(
    ("setup", "result"),
    [
        (s.HwSetup(), 0xFE0005),
        (s.HwSetup(npt=False), 0),
        (s.HwSetup(edx=1), 0),
        (s.HwSetup(edx=1, force=True), 0xFE0005),
        (s.HwSetup(edx=0x40001), 0),
        (s.HwSetup(edx=0x42001, avic=-1), 0),
        (s.HwSetup(edx=0x42001, avic=-1, zen4=True), 0x1FF0007),
        (s.HwSetup(edx=0x42001, ecx=0x40), 0xFFF0007),
        (s.HwSetup(family=0x17), 0xFE0001),
        (s.HwSetup(snp=True, force=True), 0),
        (s.HwSetup(snp=True, hv_inuse_wr=True), 0xFE0005),
    ],
)
def test_detection(setup: s.HwSetup, result: int) -> None:
    """AVIC-001 to AVIC-008."""
    assert plain(model.initial(model.Config(), UPSTREAM), setup).result == result


def test_posted_profile_is_opt_in() -> None:
    """Any non-zero parameter turns AVIC on, -1 included (AVIC-003)."""
    state = model.initial(model.Config(), PROFILES["as-posted"])

    for parameter, found in ((0, False), (1, True), (-1, True), (7, True)):
        outcome = model.step(state, s.HwSetup(avic=parameter), model.Answers(), PROFILES["as-posted"])
        assert isinstance(outcome, Outcome)
        assert bool(outcome.result) == found


def test_lowest_priority_names_exactly_one() -> None:
    """AVIC-101: membership and cardinality."""
    apics = [Apic(i, ldr=1 << i << 24) for i in range(3)]

    sets, because, _ = route(apics, Message(0xB, -1, logical=True, mode=1))

    assert sets == ((0,), (1,))
    assert because is c.LOWEST_PRIORITY_PICKS_ONE


@pytest.mark.parametrize("message", [Message(0xFF, -1, mode=1), Message(0xFF, 1, shorthand=2, mode=1)])
def test_a_broadcast_of_lowest_priority_may_be_fixed(message: Message) -> None:
    """AVIC-101: by destination as by shorthand, as KVM looks at the destination alone; two of three never accept."""
    apics = [Apic(i, ldr=1 << i << 24) for i in range(3)]

    assert route(apics, message)[0] == ((0,), (1,), (2,), (0, 1, 2))


def test_disabled_apics_never_accept() -> None:
    """AVIC-106, by the manuals and by KVM, for any message."""
    random = Random("disabled")
    for _ in range(2000):
        apics = random_apics(random)
        message = random_message(random, len(apics))
        if message.sender >= 0 and apics[message.sender].mode == DISABLED:
            continue
        off = {n for n, a in enumerate(apics) if a.mode == DISABLED}
        for positions in route(apics, message)[0]:
            assert not off & set(positions)
        assert not off & set(kvm_route(apics, message)[0])


@pytest.mark.parametrize(
    ("apics", "message", "expected"),
    [
        ((Apic(0), Apic(256)), Message(0), ((0, 1), 2)),
        ((Apic(0), Apic(256)), Message(0, wide=True), ((0,), 1)),
        ((Apic(0), Apic(1, X2APIC, ldr=2)), Message(0xFF), ((0, 1), 2)),
        ((Apic(0), Apic(1, spiv=0xFF)), Message(1), ((), 0)),
        ((Apic(0), Apic(1)), Message(7), ((), 0)),
        ((Apic(0), Apic(256)), Message(7), ((), -1)),
        ((Apic(0, ldr=1 << 24), Apic(1, spiv=0xFF)), Message(3, logical=True, mode=1, vector=0x41), ((), 0)),
        ((Apic(0, ldr=1 << 24), Apic(1, ldr=0x11 << 24, dfr=CLUSTER)), Message(0x11, logical=True), ((0, 1), 2)),
    ],
)
def test_kvm_deviations(apics: tuple[Apic, ...], message: Message, expected: tuple[tuple[int, ...], int]) -> None:
    """Aliases, the broadcast quirk, lost messages and -EPERM as KVM has them."""
    positions, accepted, _ = kvm_route(apics, message)

    assert (positions, accepted) == expected


def test_manuals_and_kvm_differ_only_where_they_may() -> None:
    """The two oracles are independent, so most random fixed messages must agree, and some must not."""
    random = Random("oracles")
    same = different = 0
    for _ in range(4000):
        apics = random_apics(random)
        message = random_message(random, len(apics))
        if message.mode not in (0, 1) or message.vector < 16 or (message.level and not message.asserted):
            continue
        if message.sender >= 0 and apics[message.sender].mode == DISABLED:
            continue
        if kvm_route(apics, message)[0] in route(apics, message)[0]:
            same += 1
        else:
            different += 1

    assert different > 0
    assert same > 4 * different


def test_view_has_an_item_for_each_vcpu() -> None:
    """Every tuple of the view follows the order of the vCPUs."""
    view = model.view(after(THREE))

    lengths = {len(getattr(view, name)) for name in ("run", "events", "controls", "running", "bar", "regs")}
    assert lengths == {3}


def test_every_view_field_has_a_clause() -> None:
    """Nothing can be seen that no clause speaks of."""
    assert set(model.VIEW_CLAUSES) == {"run", "events", "controls", "running", "bar", "regs", "irtes"}


def test_matching_is_by_own_mode() -> None:
    """An xAPIC never answers to 0xFFFFFFFF, an x2APIC never to 0xFF."""
    assert not routing.matches_physical(Apic(0), 0xFFFFFFFF)
    assert not routing.matches_physical(Apic(0, X2APIC), 0xFF)
