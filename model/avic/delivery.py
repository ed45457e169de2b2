"""Interrupts from the host and from devices, posted ones included."""

from __future__ import annotations

from conformance.model.avic.apic import pend
from conformance.model.avic.looking import lately
from conformance.model.avic.operations import Answers, Deliver, GaLogNotify, IommuPost, UpdateIrte
from conformance.model.avic.state import Irte, State, find, found, has_apic, is_active, with_vcpu
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import EIO


def deliver(state: State, op: Deliver, _env: Answers, _profile: Profile) -> Outcomes:
    """The host's interrupt reaches IRR and, if the vCPU can take it, the vCPU (AVIC-082)."""
    vcpu = pend(found(state, op.id), op.vector, op.level)
    if not has_apic(state):
        return Outcome(with_vcpu(state, vcpu), 0, because=c.OFF_IS_A_SOFTWARE_APIC)
    woken = frozenset({op.id}) if any(v.pending for v in state.vcpus) else None
    effect = c.DELIVERY_SETS_IRR_FIRST
    if is_active(state, vcpu) and vcpu.in_guest:
        effect = c.DOORBELL_NAMES_THE_CORE
    also = (c.ACCEPTANCE_SETS_IRR_AND_TMR,)
    return tuple(
        Outcome(after, 0, because=c.DELIVERY_SETS_IRR_FIRST, effect=effect, also=also)
        for after in lately(with_vcpu(state, vcpu), woken)
    )


def update_irte(state: State, op: UpdateIrte, env: Answers, _profile: Profile) -> Outcomes:
    """Route a device interrupt.

    What cannot be posted now may or may not be once AVIC is active again, and a vCPU that has no core or sleeps
    may not know yet whether it is. Either way the vCPU gets what the device raises.

    Returns:
        0     posted to the vCPU if AVIC is active for it, else in host mode
        -EIO  the affinity call gave no metadata; in host mode (AVIC-095)
        other the affinity call's refusal; in host mode
    """
    if not has_apic(state):
        return Outcome(state, 0, because=c.OFF_IS_A_SOFTWARE_APIC, effect=c.OFF_IS_A_SOFTWARE_APIC)
    others = tuple(i for i in state.irtes if i.irq != op.irq)
    if env.set_vcpu_affinity:
        result = -EIO if env.set_vcpu_affinity > 0 else env.set_vcpu_affinity
        left, because = _routed(state, others), c.MISSING_METADATA_REVERTS
        return Outcome(left, result, because=because, effect=because)
    because = c.OLD_VCPU_FORGETS_IRTE if len(others) < len(state.irtes) else c.IRTE_FOLLOWS_VCPU
    vcpu = find(state, op.id)
    if vcpu is None:
        return Outcome(_routed(state, others), 0, because=because, effect=because)
    posted, by_host = (
        Outcome(
            _routed(state, _sorted(*others, Irte(op.irq, op.id, op.vector, way))), 0, because=because, effect=because
        )
        for way in (False, True)
    )
    return posted if is_active(state, vcpu) and vcpu.core >= 0 and not vcpu.asleep else (posted, by_host)


def _sorted(*irtes: Irte) -> tuple[Irte, ...]:
    return tuple(sorted(irtes, key=lambda i: i.irq))


def _routed(state: State, irtes: tuple[Irte, ...]) -> State:
    return State(state.config, state.host, state.vms, state.vcpus, irtes, state.late, stale=state.stale)


def iommu_post(state: State, op: IommuPost, _env: Answers, _profile: Profile) -> Outcomes:
    """A posted interrupt sets IRR and rings, logs, or waits for the next VMRUN; TMR is hardware's business."""
    irte = next((i for i in state.irtes if i.irq == op.irq), None)
    if irte is None:
        return ()  # in this one of the possible states it is routed nowhere
    vcpu = found(state, irte.id)
    because = c.GALOG_WAKES_EXACTLY_ONE if vcpu.asleep else c.IRTE_FOLLOWS_VCPU
    levels = (False,) if irte.by_host else (None, False)
    pended = [with_vcpu(state, pend(vcpu, irte.vector, level)) for level in levels]
    ways = dict.fromkeys(after for accepted in pended for after in lately(accepted))
    return tuple(Outcome(s, 0, because=because, effect=because) for s in ways)


def ga_log_notify(state: State, _op: GaLogNotify, _env: Answers, _profile: Profile) -> Outcome:
    """A tag that nobody has wakes nobody (AVIC-091)."""
    return Outcome(state, 0, because=c.TAG_ROUND_TRIP, effect=c.GALOG_WAKES_EXACTLY_ONE)
