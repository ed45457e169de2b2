"""Logical ids: the index in the logical table, and whose entry may be out of date."""

from __future__ import annotations

from conformance.model.avic.apic import DFR, LDR, mode_of
from conformance.model.avic.state import State, Vcpu, find, is_active
from conformance.specs.avic.constants import FLAT


def logical_index(ldr: int, dfr: int) -> int:
    """Index in the logical table of an 8-bit logical id, -1 for none (AVIC-037)."""
    if dfr | 0x0FFFFFFF == FLAT:
        return ldr.bit_length() - 1 if ldr and ldr & (ldr - 1) == 0 else -1
    cluster, member = ldr >> 4, ldr & 0xF
    if cluster == 0xF or not member or member & (member - 1):
        return -1
    return 4 * cluster + member.bit_length() - 1


def with_entries(before: State, after: State) -> State:
    """The state after an operation, with the vCPUs of VM 0 whose logical entry may be out of date by now."""
    if after.vcpus is before.vcpus and after.vms is before.vms:
        return after
    stale = set(after.stale)
    for v in after.vcpus:
        if v.vm:
            continue
        active = is_active(after, v)
        if active and v.core >= 0 and not v.asleep:
            stale.discard(v.id)
            continue
        old = find(before, v.id)
        if old is None or old is v or (active and is_active(before, old)):
            continue
        if _claims(old) != _claims(v):
            stale.add(v.id)
    if stale:
        stale &= {v.id for v in after.vcpus if not v.vm}
    if stale == after.stale:
        return after
    return State(
        after.config, after.host, after.vms, after.vcpus, after.irtes, after.late, after.passing, frozenset(stale)
    )


def _claims(v: Vcpu) -> tuple[int, int, int]:
    """What decides a vCPU's logical entry."""
    return mode_of(v.base), v.regs[LDR], v.regs[DFR]
