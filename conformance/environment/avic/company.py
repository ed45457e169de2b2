"""What can happen in the middle of an operation, and beside one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.model.avic import operations as s

if TYPE_CHECKING:
    from conformance.environment.avic.vcpus import Cpu, Vcpus


def runs_on(vcpus: Vcpus, op: Any) -> Cpu | None:
    """The vCPU whose thread performs this operation."""
    if isinstance(op, s.Deliver | s.VcpuCreate | s.VcpuFree | s.UpdateIrte | s.X2Ldr):
        return None
    apic_id = getattr(op, "id", None)
    return None if apic_id is None else vcpus.listed.get((getattr(op, "vm", 0), apic_id))


def can_run_beside(vcpus: Vcpus, left: Any, right: Any) -> bool:
    """Whether two threads can do this at once: one vCPU has one thread, and a VM that goes has no vCPU running."""
    if getattr(left, "defer", False) or getattr(right, "defer", False):
        return False
    if any(isinstance(op, s.VmDestroy) for op in (left, right)):
        gone, other = (left, right) if isinstance(left, s.VmDestroy) else (right, left)
        if isinstance(other, s.VmCreate | s.VcpuCreate):
            return bool(other.vm != gone.vm)
        return isinstance(other, s.IommuPost | s.GaLogNotify)
    if isinstance(left, s.VmCreate) and isinstance(right, s.VmCreate):
        return left.vm != right.vm
    if isinstance(left, s.VcpuFree) or isinstance(right, s.VcpuFree):
        return False  # whoever walks all vCPUs may rely on those that live
    if any(isinstance(op, s.VcpuCreate) and op.abandoned for op in (left, right)):
        # Given up before generic code listed it: only another creation meets it.
        return isinstance(left, s.VcpuCreate) and isinstance(right, s.VcpuCreate)
    own = runs_on(vcpus, left)
    return own is None or own is not runs_on(vcpus, right)


def is_ready(vcpus: Vcpus, cpu: Cpu, op: Any) -> bool:
    """Whether the vCPU is where it must be to do this now."""
    if cpu.exit is not None or cpu.kicked or cpu.woken:
        return isinstance(op, s.HandleExit) and not cpu.kicked and not cpu.woken
    match op:
        case s.Block():
            return cpu.core >= 0 and not cpu.asleep and not cpu.in_guest
        case s.Unblock():
            return cpu.core >= 0 and cpu.asleep
        case s.VmRun():
            return cpu.core >= 0 and not cpu.asleep and not cpu.in_guest
        case s.Put():
            return cpu.core >= 0
        case s.Load():
            return cpu.core < 0 and all(other.core != op.host_id for other in vcpus.order)
        case s.GuestIpi(defer=True):
            return False
        case s.Exit() | s.GuestIpi() | s.GuestEoi() | s.GuestWrite() | s.GuestRead() | s.GuestSelfIpi():
            return cpu.in_guest
        case _:
            return False
