"""What a candidate may be asked that has no state: its router and its pure functions."""

from __future__ import annotations

from typing import assert_never

from conformance.model.avic import operations as s
from conformance.model.avic.apic import ppr
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.operations import Answers
from conformance.model.avic.routing import faults, kvm_route, mask, route, x2_ldr
from conformance.model.avic.state import State
from conformance.model.matchers import ANYTHING
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import ADDRESS_BITS, FIXED, LOWEST, MAX_XAVIC


def routing_step(state: State, op: s.Route | s.SignalMsi, _env: Answers, profile: Profile) -> Outcomes:
    """Ask a router who accepts a message, or what KVM_SIGNAL_MSI returns for it.

    Returns:
        a bit mask by position; -1 for #GP; for SignalMsi the number of acceptances, or -1 for -EPERM, as KVM has it
    """
    message = op.message
    if isinstance(op, s.SignalMsi):
        if not profile.kvm_routing:
            return Outcome(state, ANYTHING, because=c.ENTRY_POINTS_RETURN)
        _, accepted, _ = kvm_route(op.apics, message)
        return Outcome(state, accepted, because=c.KVM_ACCEPTED_COUNT)
    if profile.kvm_routing:
        if message.mode not in (FIXED, LOWEST) or (message.level and not message.asserted):
            return Outcome(state, ANYTHING, because=c.ENTRY_POINTS_RETURN)
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


def helper_step(state: State, op: Helper, _env: Answers, profile: Profile) -> Outcomes:
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
