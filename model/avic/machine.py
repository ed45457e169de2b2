"""The transitions, the view, what is possible at all, and which clause to cite."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any, assert_never

from conformance.model.avic import ipi, lifecycle, running
from conformance.model.avic import state as s
from conformance.model.avic.apic import (
    ICR2,
    LVT0,
    SPIV,
    find,
    has_apic,
    is_active,
    is_running,
    logical_index,
    mode_of,
    ppr,
    put,
    settled,
    with_entries,
    with_late,
)
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, faults, kvm_route, mask, route, x2_ldr
from conformance.model.avic.state import Answers, Config, State, Vcpu, View
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_ICR2,
    BASE_AE,
    BASE_EXTD,
    EEXIST,
    FIXED,
    LOWEST,
    MAX_XAVIC,
    SPIV_ENABLE,
    TOLD_INHIBITS,
    X2_ICR_RESERVED,
)
from conformance.specs.clause import Clause


class _Anything:
    """Equal to every result: the specification says nothing."""

    def __eq__(self, _other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "anything"


def boot(config: Config, profile: Profile) -> tuple[Any, ...]:
    """Operations that bring about the vCPUs of a configuration, but for those whose creation may be refused."""
    if not config.vcpus:
        return ()
    host, _ = lifecycle.detected(setup_of(config), profile)
    free = profile.inhibits_big_ids or not host.avic or not config.irqchip
    ids = [i for i in config.vcpus if free or i <= host.max_id]
    ops: list[Any] = [s.VmCreate(0, config.irqchip, config.max_vcpu_ids)]
    ops += [s.VcpuCreate(i) for i in ids]
    if config.x2apic:
        ops += [s.SetApicBase(i, APIC_BASE | 1 << BASE_AE | 1 << BASE_EXTD, host=True) for i in ids]
    if config.enabled:
        ops += [s.SetLapic(i, ldr=1 << n if n < 8 else 0) for n, i in enumerate(ids)]
    if config.running:
        ops += [s.Load(i, 0x20 + n) for n, i in enumerate(ids)]
        ops += [s.VmRun(i) for i in ids]
    return tuple(ops)


@cache
def initial(config: Config, profile: Profile) -> State:
    """The module is loaded on the configured host, and the configured vCPUs are there.

    Kept, because every walk and replay begins with it: a dozen steps for each vCPU.
    """
    host, _ = lifecycle.detected(setup_of(config), profile)
    state = State(config, host)
    for op in boot(config, profile):
        outcomes = step(state, op, Answers(), profile)
        state = (outcomes if isinstance(outcomes, Outcome) else outcomes[0]).state
    return state


def setup_of(config: Config) -> s.HwSetup:
    """The setup that a configuration stands for."""
    return s.HwSetup(
        edx=config.edx,
        ecx=config.ecx,
        npt=config.npt,
        family=config.family,
        zen4=config.zen4,
        snp=config.snp,
        hv_inuse_wr=config.hv_inuse_wr,
        avic=config.avic,
        force=config.force,
        ipiv=config.ipiv,
    )


def step(state: State, op: Any, env: Answers, profile: Profile) -> Outcomes:
    """Every outcome that the specification allows.

    A message is accepted at one moment and taken by its target at another. Alone, a step is over
    when both are done. In company, the next operation may come in between, so each message also
    has an outcome that leaves its targets late, which `view` never shows.
    """
    if state.late or state.passing:
        return tuple(_in_company(state, op, env, profile))
    outcomes = _alone(state, op, env, profile)
    if isinstance(outcomes, Outcome):
        return _remembering(state, outcomes)
    return tuple(_remembering(state, outcome) for outcome in outcomes)


def _remembering(before: State, o: Outcome) -> Outcome:
    """The outcome, knowing whose logical entry may be out of date by now."""
    after = with_entries(before, o.state)
    return o if after is o.state else Outcome(after, o.result, o.because, o.effect, o.also, o.breaches)


def _in_company(state: State, op: Any, env: Answers, profile: Profile) -> Iterator[Outcome]:
    """What may follow an operation that is not quite over: any of the late vCPUs may look before `op` or after it."""
    own = frozenset({op.id}) if isinstance(op, _LOOKING) else frozenset[int]()
    for before in looked(state):
        if not _legal(before, op):
            continue
        outcomes = _alone(before, op, env, profile)
        for o in (outcomes,) if isinstance(outcomes, Outcome) else outcomes:
            late = o.state.late
            for end in dict.fromkeys(settled(with_late(o.state, left)) for left in (frozenset[int](), late - own)):
                yield Outcome(with_entries(before, end), o.result, o.because, o.effect, o.also)
        if isinstance(op, s.VcpuCreate) and (op.vm, op.id) in state.passing:
            yield Outcome(before, -EEXIST, because=c.DUPLICATE_ID_REFUSED, effect=c.DUPLICATE_ID_REFUSED)


def looked(state: State) -> Iterator[State]:
    """The state with each choice of the late vCPUs having looked; nothing else is unfinished."""
    for count in range(len(state.late), -1, -1):
        for done in combinations(sorted(state.late), count):
            yield settled(with_late(state, state.late.difference(done)))


def _alone(state: State, op: Any, env: Answers, profile: Profile) -> Outcomes:
    match op:
        case s.GuestIpi():
            return ipi.guest_ipi(state, op)
        case s.GuestWrite():
            return running.guest_write(state, op)
        case s.GuestEoi():
            return running.guest_eoi(state, op)
        case s.VmRun():
            return running.vm_run(state, op)
        case s.Load():
            return running.load(state, op)
        case s.Put():
            return running.put_vcpu(state, op)
        case s.Exit():
            return running.leave_guest(state, op)
        case s.Block():
            return running.block(state, op)
        case s.Unblock():
            return running.unblock(state, op)
        case s.Deliver():
            return running.deliver(state, op)
        case s.Inhibit():
            return running.inhibit(state, op)
        case s.HandleExit():
            return ipi.handle_exit(state, op)
        case s.GuestSelfIpi():
            return ipi.guest_self_ipi(state, op)
        case s.GuestRead():
            return running.guest_read(state, op)
        case s.RawIpiExit():
            return ipi.raw_ipi_exit(state, op)
        case s.RawNoaccel():
            return running.raw_noaccel(state, op)
        case s.SetLapic():
            return lifecycle.set_lapic(state, op)
        case s.GetLapic():
            return lifecycle.get_lapic(state, op)
        case s.SetApicBase():
            return lifecycle.set_apic_base(state, op)
        case s.Enter():
            return lifecycle.enter(state, op)
        case s.VcpuReset():
            return lifecycle.vcpu_reset(state, op)
        case s.VmcbReinit():
            return Outcome(state, 0, because=c.APIC_BAR_FOLLOWS_BASE, effect=c.APIC_BAR_FOLLOWS_BASE)
        case s.VcpuCreate():
            return lifecycle.vcpu_create(state, op, env, profile)
        case s.VmCreate():
            return lifecycle.vm_create(state, op, env)
        case s.VmDestroy():
            return lifecycle.vm_destroy(state, op)
        case s.VmTag():
            return Outcome(state, 0, because=c.VM_TAG_UNIQUE)
        case s.HwSetup():
            return lifecycle.hw_setup(state, op, profile)
        case s.HwUnsetup():
            return Outcome(state, lifecycle.features(state.host), because=c.OFF_MEANS_UNTOUCHED)
        case s.VcpuFree():
            return lifecycle.vcpu_free(state, op)
        case s.TagsPass():
            return Outcome(state, 0, because=c.VM_TAG_UNIQUE)
        case s.HwapicUpdate():
            return Outcome(state, 0, because=c.HWAPIC_UPDATES_DO_NOTHING, effect=c.HWAPIC_UPDATES_DO_NOTHING)
        case s.MemoryPressure():
            return Outcome(state, 0, because=c.BACKING_PAGE_STAYS, effect=c.BACKING_PAGE_STAYS)
        case s.GuestStore() | s.UserStore():
            return Outcome(state, 0, because=c.BACKING_PAGE_IS_PRIVATE, effect=c.BACKING_PAGE_IS_PRIVATE)
        case s.UpdateIrte():
            return running.update_irte(state, op, env)
        case s.IommuPost():
            return running.iommu_post(state, op)
        case s.GaLogNotify():
            return Outcome(state, 0, because=c.TAG_ROUND_TRIP, effect=c.GALOG_WAKES_EXACTLY_ONE)
        case s.Route() | s.SignalMsi():
            return routing_step(state, op, profile)
        case s.HpaField() | s.LogicalIndex() | s.PhysIndex() | s.TagRoundTrip() | s.X2Ldr() | s.Ppr():
            return helper_step(state, op, profile)
        case _:
            raise AssertionError(f"not an operation: {op!r}")


def routing_step(state: State, op: s.Route | s.SignalMsi, profile: Profile) -> Outcomes:
    """Ask a router who accepts a message, or what KVM_SIGNAL_MSI returns for it.

    Returns:
        a bit mask by position; -1 for #GP; for SignalMsi the number of acceptances, or -1 for -EPERM
    """
    message = op.message
    if isinstance(op, s.SignalMsi):
        _, accepted, _ = kvm_route(op.apics, message)
        return Outcome(state, accepted, because=c.KVM_ACCEPTED_COUNT)
    if profile.kvm_routing:
        if message.mode not in (FIXED, LOWEST) or (message.level and not message.asserted):
            return Outcome(state, _Anything(), because=c.ENTRY_POINTS_RETURN)
        if faults(op.apics, message):
            return Outcome(state, -1, because=c.KVM_SLOW_PATH)
        positions, _, because = kvm_route(op.apics, message)
        return Outcome(state, mask(positions), because=because)
    if faults(op.apics, message):
        return Outcome(state, -1, because=c.X2_ICR_RESERVED_BITS_FAULT)
    sets, because, also = route(op.apics, message)
    outcomes = tuple(Outcome(state, mask(positions), because=because, also=also) for positions in sets)
    return outcomes if len(outcomes) > 1 else outcomes[0]


Helper = s.HpaField | s.LogicalIndex | s.PhysIndex | s.TagRoundTrip | s.X2Ldr | s.Ppr


def helper_step(state: State, op: Helper, profile: Profile) -> Outcomes:
    """The pure functions that a driver may expose."""
    match op:
        case s.HpaField():
            return Outcome(state, op.address & ADDRESS_BITS, because=c.ONLY_ADDRESS_BITS_STORED)
        case s.LogicalIndex():
            because = c.LOGICAL_INDEX_IS_POWER_OF_TWO
            return Outcome(state, logical_index(op.ldr, op.dfr), because=because, also=(c.FLAT_IS_ALL_ONES,))
        case s.PhysIndex():
            offset = 8 * op.index if 0 <= op.index <= MAX_XAVIC else -1
            return Outcome(state, offset, because=c.NO_ENTRY_OUTSIDE_RANGE)
        case s.TagRoundTrip():
            return Outcome(state, (op.vm_tag, op.index), because=c.TAG_ROUND_TRIP)
        case s.X2Ldr():
            return Outcome(state, x2_ldr(op.id), because=c.X2APIC_LDR_IS_READ_ONLY)
        case s.Ppr():
            value = ppr(op.tpr, op.isrv)
            outcome = Outcome(state, value, because=c.PPR_FROM_TPR_AND_ISR)
            if profile.either_ppr and op.tpr >> 4 == op.isrv >> 4:
                return outcome, Outcome(state, op.isrv & 0xF0, because=c.PPR_FROM_TPR_AND_ISR)
            return outcome
        case _:
            assert_never(op)


# -- what the world can do

_FREE = (s.HwSetup, s.HwUnsetup)
_HELPERS = (s.HpaField, s.LogicalIndex, s.PhysIndex, s.TagRoundTrip, s.X2Ldr, s.Ppr)
_WHILE_PENDING = (s.HandleExit, s.Load, s.Put, s.VmRun, s.GuestEoi, s.Unblock, s.Deliver)
"""What may happen between a deferred exit and its handler."""


_LOOKING = (s.GuestEoi, s.GuestWrite, s.GuestRead, s.VmRun, s.HandleExit, s.RawIpiExit, s.RawNoaccel)
"""Operations in which their own vCPU looks."""


def legal(state: State, op: Any) -> bool:
    """Whether the world can do `op` in this state."""
    if state.late or state.passing:
        return any(_legal(before, op) for before in looked(state))
    return _legal(state, op)


def _legal(state: State, op: Any) -> bool:
    kind = type(op)
    if kind in _HELPERS:
        return True
    if kind in (s.Route, s.SignalMsi):
        return _is_message(op)
    if kind in _FREE:
        return state.vms == (None, None)
    if kind is s.VmCreate:
        return op.vm in (0, 1) and state.vms[op.vm] is None
    if kind in (s.VmDestroy, s.VmTag, s.VcpuCreate):
        busy = any(v.in_guest or v.pending for v in state.vcpus) if kind is s.VmDestroy else _has_pending(state)
        return op.vm in (0, 1) and state.vms[op.vm] is not None and not busy
    if kind is s.TagsPass:
        return state.host.avic and not _has_pending(state)
    if kind is s.VcpuFree:
        freed = find(state, op.id, op.vm) if op.vm in (0, 1) else None
        return freed is not None and freed.core < 0 and not _has_pending(state)
    if kind is s.Enter:
        visited = find(state, op.id, op.vm) if op.vm in (0, 1) else None
        return visited is not None and not _has_pending(state) and _legal_for(state, visited, op, kind)
    if state.vms[0] is None or (kind not in _WHILE_PENDING and _has_pending(state)):
        return False
    if kind is s.MemoryPressure or kind is s.UserStore:
        return True
    if kind is s.GuestStore:
        return bool(op.page > 0)
    if kind is s.UpdateIrte:
        return has_apic(state) and (op.id == -1 or find(state, op.id) is not None)
    if kind is s.IommuPost:
        return _can_post(state, op)
    if kind is s.GaLogNotify:
        return has_apic(state) and op.tag in (0, 0xFFFFFFFF) and all(v.id != 4095 for v in state.vcpus)
    if kind is s.Inhibit:
        return has_apic(state) and op.reason in TOLD_INHIBITS
    vcpu = find(state, op.id)
    return vcpu is not None and _legal_for(state, vcpu, op, kind)


def _has_pending(state: State) -> bool:
    return any(v.pending for v in state.vcpus)


def _is_message(op: s.Route | s.SignalMsi) -> bool:
    """Senders are present, MSIs have no shorthand, and a return value needs an edge MSI of fixed or lowest mode."""
    message, count = op.message, len(op.apics)
    if not -1 <= message.sender < count or len({a.id for a in op.apics}) < count:
        return False
    if message.sender < 0:
        if message.shorthand or message.reserved:
            return False
    elif (
        op.apics[message.sender].mode == DISABLED
        or message.hint
        or (op.apics[message.sender].mode == XAPIC and (message.dest >> 8 or message.reserved))
    ):
        return False
    if isinstance(op, s.SignalMsi):
        fits = message.dest >> 8 == 0 or message.wide
        return message.sender < 0 and message.mode in (FIXED, LOWEST) and not message.level and fits
    return True


def _can_post(state: State, op: s.IommuPost) -> bool:
    irte = next((i for i in state.irtes if i.irq == op.irq), None)
    vcpu = None if irte is None else find(state, irte.id)
    if vcpu is None or vcpu.core > 0xFFF:  # where nobody can say that it runs, hardware cannot ring
        return False
    return vcpu.base >> BASE_AE & 1 == 1 and vcpu.regs[SPIV] >> SPIV_ENABLE & 1 == 1


def _legal_for(state: State, v: Vcpu, op: Any, kind: type) -> bool:
    outside = not v.in_guest and not v.asleep and not v.pending
    apic = has_apic(state)
    if kind in (s.VcpuReset, s.VmcbReinit, s.HwapicUpdate):
        return outside
    if kind is s.Enter:
        return outside and v.core < 0
    if kind is s.Load:
        return v.core < 0 and op.host_id >= 0 and all(o.core != op.host_id for o in state.vcpus)
    if kind is s.Put:
        return v.core >= 0 and not v.pending
    if not apic:
        return False
    enabled = v.base >> BASE_AE & 1 == 1
    if kind is s.SetLapic:
        return outside and enabled
    if kind is s.GetLapic:
        return outside and enabled and _is_readable(v, op.offset)
    if kind is s.SetApicBase:
        comes_back = not enabled and op.value >> BASE_AE & 1 == 1 and (op.host or not op.value >> BASE_EXTD & 1)
        return (outside if op.host else v.in_guest) and not comes_back
    if kind is s.Block:
        return v.core >= 0 and outside and enabled
    if kind is s.Unblock:
        return v.asleep and v.core >= 0
    if kind is s.HandleExit:
        return bool(v.pending) and v.core >= 0
    if kind is s.Deliver:
        return enabled and v.regs[SPIV] >> SPIV_ENABLE & 1 == 1 and 16 <= op.vector <= 255
    if not enabled:
        return False
    if kind is s.VmRun:
        return outside and v.core >= 0
    if not v.in_guest:
        return False
    x2 = mode_of(v.base) == X2APIC
    if kind is s.GuestIpi:
        return _is_ipi(state, v, op, x2)
    if kind is s.GuestSelfIpi:
        return x2
    if kind is s.GuestWrite:
        return op.offset not in (APIC_ICR, APIC_ICR2, APIC_EOI)
    if kind is s.GuestRead:
        return not x2
    if kind is s.Exit:
        return True
    if kind is s.RawIpiExit:
        return is_active(state, v) and (not x2 or (state.host.x2avic and not op.info1 & (X2_ICR_RESERVED | 1 << 12)))
    if kind is s.RawNoaccel:
        return is_active(state, v) and not x2 and op.info1 & 0xFF0 not in (APIC_ICR, APIC_EOI)
    return kind is s.GuestEoi


def _is_readable(v: Vcpu, offset: int) -> bool:
    if offset & 0xF or not 0 <= offset < 0x400:
        return False
    if mode_of(v.base) == X2APIC and offset in (0x20, APIC_DFR):
        return False
    return offset not in (0x30, 0x90, 0xA0, 0xB0, 0xC0, 0x280, 0x2F0, 0x350, 0x390, 0x310)


def _is_ipi(state: State, v: Vcpu, op: s.GuestIpi, x2: bool) -> bool:
    fits = 0 <= op.vector <= 255 and 0 <= op.mode <= 7 and 0 <= op.shorthand <= 3
    if op.extra & ~(X2_ICR_RESERVED | 1 << 12) or not fits or not 0 <= op.dest < (1 << 32 if x2 else 1 << 8):
        return False
    if op.extra and not x2 and op.extra != 1 << 12:
        return False
    if not op.defer:
        return True
    if op.extra or not is_active(state, v) or (x2 and not state.host.x2avic):
        return False
    return all(is_running(state, other) for other in state.vcpus if other.in_guest)


# -- what can be seen

VIEW_CLAUSES: dict[str, Clause] = {
    "regs": c.HARDWARE_AND_HANDLER_MATCH_ROUTING,
    "run": c.NO_LOST_WAKE_UP,
    "events": c.UNACCELERATED_IPI_SENT_ONCE,
    "controls": c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS,
    "running": c.IS_RUNNING_TELLS_THE_TRUTH,
    "bar": c.APIC_BAR_FOLLOWS_BASE,
    "irtes": c.IRTE_FOLLOWS_VCPU,
}
"""Clause of each field of the view, in the order of blame."""


UNFINISHED = View((), (-1,), (), (), (), (), ())
"""The view of a state that only another operation can follow: nobody sees it."""


def view(state: State) -> View:
    """What hardware and the host see when everything is as it must be."""
    if state.late or state.passing:
        return UNFINISHED
    run: list[tuple[int, ...]] = []
    events: list[int] = []
    controls: list[tuple[int, ...] | None] = []
    entries: list[int] = []
    bar: list[int | None] = []
    regs: list[s.Registers | None] = []
    x2avic = state.host.x2avic
    for v in state.vcpus:
        apic = has_apic(state, v.vm)
        run.append((v.vm, v.id, v.core, v.asleep, v.in_guest))
        events.append(v.events)
        active = is_active(state, v)
        if v.core >= 0 and not v.asleep:
            x2 = int(active and x2avic and mode_of(v.base) == X2APIC)
            controls.append((int(active), x2, int(not active), x2))
        else:
            controls.append(None)
        entries.append(v.core if is_running(state, v) else -1)
        bar.append(APIC_BASE if apic and v.base & ~0xFFF == APIC_BASE else None)
        regs.append(_shown(v) if apic and v.base >> BASE_AE & 1 else None)
    irtes: tuple[tuple[int, ...], ...] = ()
    if state.irtes:
        irtes = _told(state)
    return View(tuple(run), tuple(events), tuple(controls), tuple(entries), tuple(bar), tuple(regs), irtes)


def _shown(v: Vcpu) -> s.Registers:
    """The registers; ICR high has 8 bits in xAPIC mode, whatever x2APIC mode left below them."""
    if mode_of(v.base) == XAPIC and v.regs[ICR2] & 0xFFFFFF:
        return put(v.regs, ICR2, v.regs[ICR2] & 0xFF000000)
    return v.regs


def _told(state: State) -> tuple[tuple[int, ...], ...]:
    shown = []
    for i in state.irtes:
        v = find(state, i.id)
        if v is not None and 0 <= v.core <= 0xFFF and not v.asleep and is_active(state, v):
            shown.append((i.irq, i.id, i.vector, v.core))
    return tuple(shown)


def cite(state: State, op: Any, field: str, expected: Any, got: Any) -> Clause | None:
    """A better clause than the field's, where the difference tells."""
    if field == "regs":
        return _cite_registers(state, op, expected.regs, got.regs)
    if field == "controls":
        return _cite_controls(op, expected.controls, got.controls)
    if field == "running":
        pairs = [(e, g) for e, g in zip(expected.running, got.running, strict=False) if e != g]
        if any(e >= 0 and g >= 0 for e, g in pairs):
            return c.HOST_ID_IS_WHOLE
        if isinstance(op, s.Inhibit | s.SetApicBase | s.GuestWrite):
            return c.INHIBITED_NEVER_RUNNING
        if isinstance(op, s.Load | s.Put) and any(v.id == op.id and v.asleep for v in state.vcpus):
            return c.LOAD_WHILE_BLOCKING_WAITS
        if state.config.family in (0x17, 0x18):
            return c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES
        if isinstance(op, s.Load) and op.host_id > 0xFF:
            return c.WIDE_HOST_ID_CHANGES_NOTHING if op.host_id > 0xFFF else c.HOST_ID_IS_WHOLE
        return c.IS_RUNNING_TELLS_THE_TRUTH
    if field == "bar":
        return c.APIC_BAR_FOLLOWS_BASE
    if field == "irtes" and not isinstance(op, s.UpdateIrte | s.VcpuFree):
        return c.IRTE_FOLLOWS_VCPU
    if field == "run" and isinstance(op, s.Block):
        return c.BLOCKING_CHECKS_IRR_LAST
    return None


def _cite_registers(state: State, op: Any, expected: Any, got: Any) -> Clause | None:
    if isinstance(op, s.VcpuCreate | s.VmDestroy):
        own = [v.vm == op.vm and v.id == op.id for v in state.vcpus] if isinstance(op, s.VcpuCreate) else []
        old = {(v.vm, v.id) for v in state.vcpus}
        if own and any(own):
            return c.DUPLICATE_ID_REFUSED
        if len(expected) != len(got) or not isinstance(op, s.VcpuCreate):
            return None
        order = sorted(old | ({(op.vm, op.id)} if len(expected) > len(old) else set()))
        wrong = [key for key, e, g in zip(order, expected, got, strict=False) if e != g]
        if any(key in old for key in wrong):
            return c.OTHER_VCPUS_KEEP_REGISTERS
    if isinstance(op, s.VcpuCreate | s.VcpuReset):
        for e, g in zip(expected, got, strict=False):
            if e and g and e != g and e[:LVT0] + e[LVT0 + 1 :] == g[:LVT0] + g[LVT0 + 1 :]:
                return c.LVT0_MASKED_AFTER_RESET
        return c.REGISTERS_HAVE_RESET_VALUES
    return None


def _cite_controls(op: Any, expected: Any, got: Any) -> Clause | None:
    for e, g in zip(expected, got, strict=False):
        if e is None or g is None or e == g:
            continue
        if e[0] != g[0]:
            if isinstance(op, s.Inhibit):
                return c.INHIBIT_CONDITIONS if op.on else c.INHIBITS_RECOMPUTED
            if isinstance(op, s.GuestWrite | s.SetLapic | s.SetApicBase | s.VcpuReset):
                return c.INHIBIT_CONDITIONS
            return c.ACTIVE_IFF_NOTHING_FORBIDS
        if e[1] != g[1]:
            return c.X2_BIT_ONLY_IN_X2APIC_MODE
        if g[3] > e[3]:
            return c.X2APIC_MSRS_INTERCEPTED
    return c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS
