"""What keeps AVIC off for a VM: the reasons that somebody gives, and those that follow from its APICs."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.model.avic.apic import mode_of, seen_by_routing
from conformance.model.avic.looking import settled
from conformance.model.avic.operations import Answers, Inhibit
from conformance.model.avic.routing import X2APIC, XAPIC, logical_map_is_aliased, names_somebody
from conformance.model.avic.state import State, Vcpu, Vm, with_vm
from conformance.model.step import Outcome
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    INHIBIT_APIC_ID_MODIFIED,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_ALIASED,
)

_ALIASED = 1 << INHIBIT_PHYSICAL_ID_ALIASED | 1 << INHIBIT_LOGICAL_ID_ALIASED
_DERIVED = 1 << INHIBIT_PHYSICAL_ID_ALIASED | 1 << INHIBIT_APIC_ID_MODIFIED | 1 << INHIBIT_LOGICAL_ID_ALIASED


def derived_inhibits(vcpus: Sequence[Vcpu]) -> int:
    """The inhibits that follow from the APICs of one VM (AVIC-086, AVIC-087)."""
    mask = 0
    apics = [seen_by_routing(v) for v in vcpus]
    ids = [(a.xid, a.id) for a in apics if a.mode == XAPIC]
    if len({xid for xid, _ in ids}) < len(ids):
        mask |= 1 << INHIBIT_PHYSICAL_ID_ALIASED
    if any(xid != own & 0xFF for xid, own in ids):
        mask |= 1 << INHIBIT_APIC_ID_MODIFIED
    if logical_map_is_aliased(apics):
        mask |= 1 << INHIBIT_LOGICAL_ID_ALIASED
    return mask


def is_shared_across_modes(vcpus: Sequence[Vcpu]) -> bool:
    """Whether an x2APIC's id is also the ID of an xAPIC: hardware tells them apart, a map keyed by id does not."""
    modes = {mode_of(v.base) for v in vcpus}
    if X2APIC not in modes or XAPIC not in modes:
        return False
    apics = [seen_by_routing(v) for v in vcpus]
    return bool({a.id for a in apics if a.mode == X2APIC} & {a.xid for a in apics if a.mode == XAPIC})


def _is_aliased_by_ids(vcpus: Sequence[Vcpu]) -> bool:
    """Whether the logical map is not one to one even without LDRs that are no logical ids."""
    return logical_map_is_aliased([a for a in map(seen_by_routing, vcpus) if names_somebody(a)])


def recalculations(state: State, n: int) -> tuple[State, ...]:
    """The states in which the inhibits of VM `n` may be once they were derived anew.

    Usually one. Whether an id that an x2APIC and an xAPIC share is an alias, and whether an LDR counts that is no
    logical id, is the driver's choice (AVIC-086).
    """
    vm = state.vms[n]
    if vm is None or not vm.irqchip:
        return (state,)
    vcpus = [v for v in state.vcpus if v.vm == n]
    mask = vm.inhibits & ~_DERIVED | derived_inhibits(vcpus)
    ways: tuple[int, ...] = (mask, mask | _ALIASED) if is_shared_across_modes(vcpus) else (mask,)
    if mask >> INHIBIT_LOGICAL_ID_ALIASED & 1 and not _is_aliased_by_ids(vcpus):
        ways += (mask & ~(1 << INHIBIT_LOGICAL_ID_ALIASED),)
    if ways == (vm.inhibits,):
        return (state,)
    return tuple(with_vm(state, n, Vm(vm.irqchip, vm.max_vcpu_ids, way)) for way in dict.fromkeys(ways))


def inhibit(state: State, op: Inhibit, _env: Answers, _profile: Profile) -> Outcome:
    """Set or clear a reason; every vCPU outside sleep follows at once (AVIC-086, AVIC-087)."""
    vm = state.vms[0]
    assert vm is not None
    bit = 1 << op.reason
    mask = vm.inhibits | bit if op.on else vm.inhibits & ~bit
    after = with_vm(state, 0, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
    because = c.INHIBIT_CONDITIONS if op.on else c.INHIBITS_RECOMPUTED
    if not state.host.avic:
        return Outcome(after, 0, because=c.OFF_IS_A_SOFTWARE_APIC)
    also = (c.INHIBITED_NEVER_RUNNING,) if op.on else ()
    effect = c.INHIBIT_KICKS_AND_LOSES_NOTHING
    return Outcome(settled(after), 0, because=because, effect=effect, also=also)
