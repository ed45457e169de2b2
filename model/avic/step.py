"""The transitions, in company too, and what the world can do at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from conformance.model.avic import delivery, helpers, inhibits, ipi, irqfds, lifecycle, registers, running, setup
from conformance.model.avic import operations as s
from conformance.model.avic.apic import SPIV, mode_of
from conformance.model.avic.held import held_back, hiding, may_hold, shown_again, taken_by_hardware
from conformance.model.avic.logical_ids import with_entries
from conformance.model.avic.looking import looked, settled, with_late
from conformance.model.avic.operations import Answers
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC
from conformance.model.avic.state import State, Vcpu, find, has_apic, is_active, is_asked, is_running
from conformance.model.step import Outcome, Outcomes, each
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_ICR2,
    BASE_AE,
    BASE_EXTD,
    EEXIST,
    FIXED,
    LOWEST,
    SPIV_ENABLE,
    TOLD_INHIBITS,
    X2_ICR_RESERVED,
)

_LOOKING = (s.GuestEoi, s.GuestWrite, s.GuestRead, s.VmRun, s.HandleExit, s.RawIpiExit, s.RawNoaccel)
"""Operations in which their own vCPU looks."""


def step(state: State, op: Any, env: Answers, profile: Profile) -> Outcomes:
    """Every outcome that the specification allows.

    A message is accepted at one moment and taken by its target at another. Alone, a step is over
    when both are done. In company, the next operation may come in between, so each message also
    has an outcome that leaves its targets late, which `view` never shows.
    """
    outcomes = _plain(state, op, env, profile)
    if may_hold(state, op):
        return (*each(outcomes), *_held(state, op, env, profile), *_roused(outcomes))
    return outcomes


def _plain(state: State, op: Any, env: Answers, profile: Profile) -> Outcomes:
    """The outcomes where whatever is deliverable is taken."""
    if state.late or state.passing:
        return tuple(_in_company(state, op, env, profile))
    outcomes = TRANSITIONS[type(op)](state, op, env, profile)
    if isinstance(outcomes, Outcome):
        return _remembering(state, outcomes)
    held = (_ending(found, end) for found in outcomes if found.state.late for end in held_back(found.state, op))
    return tuple(_remembering(state, outcome) for outcome in (*outcomes, *held))


def _held(state: State, op: Any, env: Answers, profile: Profile) -> Iterator[Outcome]:
    """What may follow where a software-disabled APIC keeps to itself what it accepted before it was disabled."""
    without, hidden = hiding(state, op)
    for found in each(_plain(without, op, env, profile)):
        after = shown_again(found.state, hidden)
        yield _ending(found, after)
        taken = taken_by_hardware(after)
        if taken is not after:
            yield _ending(found, taken)


def _roused(outcomes: Outcomes) -> Iterator[Outcome]:
    """A sleeper that is kicked for something else looks at what hardware set in its page, and finds that held."""
    for found in each(outcomes):
        done = settled(found.state)
        if done is not found.state:
            yield _ending(found, done)


def _ending(found: Outcome, after: State) -> Outcome:
    """The outcome, with another state."""
    return Outcome(after, found.result, found.because, found.effect, found.also, found.breaches)


def _remembering(before: State, found: Outcome) -> Outcome:
    """The outcome, knowing whose logical entry may be out of date by now."""
    after = with_entries(before, found.state)
    return found if after is found.state else _ending(found, after)


def _in_company(state: State, op: Any, env: Answers, profile: Profile) -> Iterator[Outcome]:
    """What may follow an operation that is not quite over: any of the late vCPUs may look before `op` or after it."""
    own = frozenset({op.id}) if isinstance(op, _LOOKING) else frozenset[int]()
    for before in looked(state):
        if not _legal(before, op):
            continue
        for found in each(TRANSITIONS[type(op)](before, op, env, profile)):
            late = found.state.late
            ends = [settled(with_late(found.state, left)) for left in (frozenset[int](), late - own)]
            for end in dict.fromkeys((*ends, *(held_back(found.state, op) if late else ()))):
                yield Outcome(with_entries(before, end), found.result, found.because, found.effect, found.also)
        if isinstance(op, s.VcpuCreate) and (op.vm, op.id) in state.passing:
            yield Outcome(before, -EEXIST, because=c.DUPLICATE_ID_REFUSED, effect=c.DUPLICATE_ID_REFUSED)


TRANSITIONS: dict[type, Callable[[State, Any, Answers, Profile], Outcomes]] = {
    s.GuestIpi: ipi.guest_ipi,
    s.GuestWrite: registers.guest_write,
    s.GuestEoi: registers.guest_eoi,
    s.VmRun: running.vm_run,
    s.Load: running.load,
    s.Put: running.put_vcpu,
    s.Exit: running.leave_guest,
    s.Block: running.block,
    s.Unblock: running.unblock,
    s.Deliver: delivery.deliver,
    s.Inhibit: inhibits.inhibit,
    s.HandleExit: ipi.handle_exit,
    s.GuestSelfIpi: ipi.guest_self_ipi,
    s.GuestRead: registers.guest_read,
    s.RawIpiExit: ipi.raw_ipi_exit,
    s.RawNoaccel: registers.raw_noaccel,
    s.SetLapic: registers.set_lapic,
    s.GetLapic: registers.get_lapic,
    s.SetApicBase: registers.set_apic_base,
    s.Enter: lifecycle.enter,
    s.VcpuReset: lifecycle.vcpu_reset,
    s.VmcbReinit: lifecycle.vmcb_reinit,
    s.VcpuCreate: lifecycle.vcpu_create,
    s.VmCreate: lifecycle.vm_create,
    s.VmDestroy: lifecycle.vm_destroy,
    s.VmTag: lifecycle.vm_tag,
    s.HwSetup: setup.hw_setup,
    s.HwUnsetup: setup.hw_unsetup,
    s.VcpuFree: lifecycle.vcpu_free,
    s.TagsPass: lifecycle.vm_tag,
    s.HwapicUpdate: registers.hwapic_update,
    s.MemoryPressure: lifecycle.memory_pressure,
    s.GuestStore: lifecycle.store,
    s.UserStore: lifecycle.store,
    s.UpdateIrte: delivery.update_irte,
    s.IommuPost: delivery.iommu_post,
    s.GaLogNotify: delivery.ga_log_notify,
    s.Route: helpers.routing_step,
    s.SignalMsi: helpers.routing_step,
    s.Irqfds: irqfds.irqfds,
    s.HpaField: helpers.helper_step,
    s.LogicalIndex: helpers.helper_step,
    s.PhysIndex: helpers.helper_step,
    s.TagRoundTrip: helpers.helper_step,
    s.X2Ldr: helpers.helper_step,
    s.Ppr: helpers.helper_step,
}
"""What each operation does, alone, in a state where nothing is late."""


# -- what the world can do

_FREE = (s.HwSetup, s.HwUnsetup)
_HELPERS = (s.HpaField, s.LogicalIndex, s.PhysIndex, s.TagRoundTrip, s.X2Ldr, s.Ppr)
_WHILE_PENDING = (s.HandleExit, s.Load, s.Put, s.VmRun, s.GuestEoi, s.Unblock, s.Deliver)
"""What may happen between a deferred exit and its handler."""


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
    if kind is s.Irqfds:
        return irqfds.is_script(op)
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
        return is_asked(state) and (op.id == -1 or find(state, op.id) is not None)
    if kind is s.IommuPost:
        return _can_post(state, op)
    if kind is s.GaLogNotify:
        return has_apic(state) and op.tag in (0, 0xFFFFFFFF) and all(v.id != 4095 for v in state.vcpus)
    if kind is s.Inhibit:
        return is_asked(state) and op.reason in TOLD_INHIBITS
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
    enabled = v.base >> BASE_AE & 1 == 1
    if not is_asked(state, v.vm):
        return False
    if kind is s.SetLapic:
        return outside and enabled
    if kind is s.GetLapic:
        return outside and enabled and _is_readable(v, op.offset)
    if kind is s.Deliver:
        return enabled and v.regs[SPIV] >> SPIV_ENABLE & 1 == 1 and 16 <= op.vector <= 255
    if not apic:
        return False
    if kind is s.SetApicBase:
        comes_back = not enabled and op.value >> BASE_AE & 1 == 1 and (op.host or not op.value >> BASE_EXTD & 1)
        return (outside if op.host else v.in_guest) and not comes_back
    if kind is s.Block:
        return v.core >= 0 and outside and enabled
    if kind is s.Unblock:
        return v.asleep and v.core >= 0
    if kind is s.HandleExit:
        return bool(v.pending) and v.core >= 0
    if kind is s.VmRun:
        return outside and v.core >= 0
    if not v.in_guest:
        return False
    if kind is s.Exit:
        return True
    if not enabled:
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
