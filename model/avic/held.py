"""What an APIC accepted before software disabled it: held, says the manual, and handled by the CPU.

So a driver that injects may go on with it, as KVM does, or keep it until the APIC is enabled again, as Xen does.
Hardware takes it while AVIC is active and the guest runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.model.avic import operations as s
from conformance.model.avic.apic import IRR, SPIV, deliverable, take, with_regs
from conformance.model.avic.looking import settled, with_late
from conformance.model.avic.state import State, Vcpu, is_active, with_vcpus
from conformance.specs.avic.constants import APIC_SPIV, SPIV_ENABLE

_OWN = (s.GetLapic, s.SetLapic, s.VcpuFree, s.VcpuReset)
"""Operations that read or write IRR of their own vCPU."""
_NOTHING = (0,) * 8


def _holds(state: State, v: Vcpu, op: Any) -> bool:
    """Whether software has a say: not of a guest that runs with AVIC, or begins to."""
    regs = v.regs
    if regs[SPIV] >> SPIV_ENABLE & 1 or regs[IRR : IRR + 8] == _NOTHING:
        return False
    own = v.vm == 0 and getattr(op, "id", -1) == v.id
    if own and (isinstance(op, _OWN) or (isinstance(op, s.GuestWrite) and _enables(op))):
        return False
    runs = v.in_guest or (own and isinstance(op, s.VmRun))
    return not (runs and is_active(state, v))


def _enables(op: s.GuestWrite) -> bool:
    return op.offset == APIC_SPIV and op.value >> SPIV_ENABLE & 1 == 1


def may_hold(state: State, op: Any) -> bool:
    """Whether there is something that may be held in this operation."""
    return any(_holds(state, v, op) for v in state.vcpus)


def hiding(state: State, op: Any) -> tuple[State, dict[tuple[int, int], tuple[int, ...]]]:
    """The state without what is held, and that: IRR by VM and id."""
    hidden = {(v.vm, v.id): v.regs[IRR : IRR + 8] for v in state.vcpus if _holds(state, v, op)}
    return _with_irrs(state, dict.fromkeys(hidden, _NOTHING), only=True), hidden


def shown_again(state: State, hidden: dict[tuple[int, int], tuple[int, ...]]) -> State:
    """The state with what was held."""
    return _with_irrs(state, hidden)


def taken_by_hardware(state: State) -> State:
    """The state once those that run with AVIC by now, whatever they held before, took what they can."""
    vcpus = tuple(take(v, deliverable(v)) if _takes(state, v) else v for v in state.vcpus)
    return state if vcpus == state.vcpus else with_vcpus(state, vcpus)


def _takes(state: State, v: Vcpu) -> bool:
    return v.in_guest and v.id not in state.late and is_active(state, v) and deliverable(v) >= 0


def held_back(state: State, op: Any) -> Iterator[State]:
    """The state in which late vCPUs hold what they were just sent, because they are software-disabled by now.

    Not sleepers: these are woken for it, and may find it held.
    """
    held = {(v.vm, v.id): v.regs[IRR : IRR + 8] for v in state.vcpus if not v.asleep and _holds(state, v, op)}
    if any(vm == 0 and apic_id in state.late for vm, apic_id in held):
        without = _with_irrs(state, dict.fromkeys(held, _NOTHING), only=True)
        yield shown_again(settled(with_late(without, frozenset())), held)


def _with_irrs(state: State, bits: dict[tuple[int, int], tuple[int, ...]], *, only: bool = False) -> State:
    """The state with these bits in IRR besides what is there, or alone."""
    vcpus = []
    for v in state.vcpus:
        irr = bits.get((v.vm, v.id))
        if irr is not None:
            new = irr if only else tuple(a | b for a, b in zip(irr, v.regs[IRR : IRR + 8], strict=True))
            vcpus.append(with_regs(v, (*v.regs[:IRR], *new, *v.regs[IRR + 8 :])))
        else:
            vcpus.append(v)
    return State(
        state.config,
        state.host,
        state.vms,
        tuple(vcpus),
        state.irtes,
        state.late,
        state.passing,
        state.stale,
    )
