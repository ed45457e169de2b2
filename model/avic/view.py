"""What can be seen from outside, and which clause to cite where it differs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from conformance.model.avic import operations as s
from conformance.model.avic.apic import DFR, ICR, ICR2, ISR, LVT0, TMR, mode_of, put
from conformance.model.avic.routing import X2APIC, XAPIC
from conformance.model.avic.state import Registers, State, Vcpu, find, has_apic, is_active, is_running
from conformance.model.step import Labels, Parallel
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import APIC_BASE, BASE_AE, ICR_BUSY, INHIBIT_APIC_BASE_MODIFIED, REGISTER_NAMES
from conformance.specs.clause import Clause


class View(NamedTuple):
    """What hardware and the host see, one item per vCPU in the order of VM and id."""

    run: tuple[tuple[int, ...], ...]
    """VM, id, core, asleep, in guest mode."""
    events: tuple[int, ...]
    """Signals since the last VMRUN."""
    controls: tuple[tuple[int, ...] | None, ...]
    """int_ctl bits 31 and 30, CR8 write intercept while active, ICR open; None for a vCPU outside the guest.

    A VMCB is read at VMRUN, so a driver may bring it in line then, or as soon as it knows.
    """
    running: tuple[int, ...]
    """Host id of the hardware entry while IsRunning is set, -1 otherwise."""
    bar: tuple[int | None, ...]
    """APIC_BAR; None where the base was moved or there is no APIC."""
    regs: tuple[Registers | None, ...]
    """Registers in the backing page; None where there is no enabled APIC."""
    irtes: tuple[tuple[int, ...], ...]
    """Posted IRTEs: irq, id, vector, core it is told to run on; without IPI virtualization of vCPUs in the guest."""


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

VIEW_LABELS: dict[str, Labels] = {
    "run": ("vCPU at place {}", ("VM", "id", "core", "asleep", "in guest mode")),
    "events": ("vCPU at place {}",),
    "controls": ("vCPU at place {}", ("int_ctl bit 31", "int_ctl bit 30", "CR8 write intercept", "ICR open")),
    "running": ("vCPU at place {}",),
    "bar": ("vCPU at place {}",),
    "regs": ("vCPU at place {}", REGISTER_NAMES),
    "irtes": ("IRTE at place {}", ("irq", "id", "vector", "core")),
}
"""What the parts of its fields are called."""


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
    regs: list[Registers | None] = []
    x2avic = state.host.x2avic
    for v in state.vcpus:
        apic = has_apic(state, v.vm)
        run.append((v.vm, v.id, v.core, v.asleep, v.in_guest))
        events.append(v.events)
        active = is_active(state, v)
        if v.in_guest:
            x2 = int(active and x2avic and mode_of(v.base) == X2APIC)
            controls.append((int(active), x2, 0, x2))
        else:
            controls.append(None)
        entries.append(v.core if is_running(state, v) else -1)
        bar.append(APIC_BASE if apic and v.base & ~0xFFF == APIC_BASE else None)
        regs.append(_shown(v) if apic and v.base >> BASE_AE & 1 else None)
    irtes: tuple[tuple[int, ...], ...] = ()
    if state.irtes:
        irtes = _told(state)
    return View(tuple(run), tuple(events), tuple(controls), tuple(entries), tuple(bar), tuple(regs), irtes)


def _shown(v: Vcpu) -> Registers:
    """The registers; ICR high has 8 bits in xAPIC mode, whatever x2APIC mode left below them, which has no DFR."""
    if v.regs[DFR] and mode_of(v.base) == X2APIC:
        return put(v.regs, DFR, 0)
    if mode_of(v.base) == XAPIC and v.regs[ICR2] & 0xFFFFFF:
        return put(v.regs, ICR2, v.regs[ICR2] & 0xFF000000)
    return v.regs


def _told(state: State) -> tuple[tuple[int, ...], ...]:
    shown = []
    for i in state.irtes:
        v = find(state, i.id)
        if v is None or i.by_host or not (v.in_guest or state.host.ipiv):
            continue
        if 0 <= v.core <= 0xFFF and not v.asleep and is_active(state, v):
            shown.append((i.irq, i.id, i.vector, v.core))
    return tuple(shown)


def cite(state: State, op: Any, field: str, expected: Any, got: Any) -> Clause | None:
    """A better clause than the field's, where the difference tells."""
    if field == "regs":
        return _cite_registers(state, op, expected.regs, got.regs)
    if field == "controls":
        return _cite_controls(state, op, expected.controls, got.controls)
    if field == "running":
        pairs = [(e, g) for e, g in zip(expected.running, got.running, strict=False) if e != g]
        if any(e >= 0 and g >= 0 for e, g in pairs):
            return c.HOST_ID_IS_WHOLE
        if isinstance(op, s.SetApicBase) and not op.value >> BASE_AE & 1:
            return c.ACTIVE_IFF_NOTHING_FORBIDS
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


def cite_together(_state: State, op: Parallel, field: str) -> Clause | None:
    """A better clause than that of the operation which came last, where two at once went wrong."""
    if field == "irtes":
        return c.IRTE_FOLLOWS_VCPU
    if field == "run" and s.Block in (type(op.left.op), type(op.right.op)):
        return c.BLOCKING_CHECKS_IRR_LAST
    return None


def _cite_registers(state: State, op: Any, expected: Any, got: Any) -> Clause | None:
    if isinstance(op, s.GuestIpi):
        if _busy_stays(expected, got):
            return c.UNACCELERATED_IPI_SENT_ONCE
        if _icr_of_x2apic(state, op, expected, got):
            return c.X2_ICR_STORED_IN_HALVES
    if isinstance(op, s.SetLapic):
        restored = _only((*range(ISR, ISR + 8), *range(TMR, TMR + 8)), expected, got)
        return c.RESTORED_INTERRUPTS_END if restored else c.ONE_APIC_STATE
    if isinstance(op, s.GuestIpi | s.Deliver) and _only(range(TMR, TMR + 8), expected, got):
        return c.ACCEPTANCE_SETS_IRR_AND_TMR
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


def _busy_stays(expected: Any, got: Any) -> bool:
    """Whether some ICR is as it should be but for its busy bit, in which case targets are not to blame."""
    pairs = zip(expected, got, strict=False)
    return any(e and g and e[ICR] != g[ICR] and e[ICR] == g[ICR] & ~(1 << ICR_BUSY) for e, g in pairs)


def _icr_of_x2apic(state: State, op: s.GuestIpi, expected: Any, got: Any) -> bool:
    """Whether the sender is an x2APIC, and what differs is its ICR alone."""
    sender = find(state, op.id)
    x2 = sender is not None and mode_of(sender.base) == X2APIC
    return x2 and _only((ICR, ICR2), expected, got)


def _only(numbers: Collection[int], expected: Any, got: Any) -> bool:
    """Whether registers of these numbers differ and no others."""
    pairs = [(e, g) for e, g in zip(expected, got, strict=False) if e != g]
    if len(expected) != len(got) or not all(e and g for e, g in pairs):
        return False
    return all(n in numbers for e, g in pairs for n in range(64) if e[n] != g[n])


def _cite_controls(state: State, op: Any, expected: Any, got: Any) -> Clause | None:
    for e, g in zip(expected, got, strict=False):
        if e is None or g is None or e == g:
            continue
        if e[0] != g[0]:
            if isinstance(op, s.SetApicBase) and g[0] and _was_moved(state):
                return c.INHIBITS_RECOMPUTED
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


def _was_moved(state: State) -> bool:
    """Whether some vCPU's base was moved before, which is never forgotten."""
    vm = state.vms[0]
    return vm is not None and vm.inhibits >> INHIBIT_APIC_BASE_MODIFIED & 1 == 1
