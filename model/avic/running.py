"""Scheduling a vCPU: load and put, block and unblock, into the guest and out of it."""

from __future__ import annotations

from conformance.model.avic.apic import deliverable, with_events, with_run
from conformance.model.avic.looking import settled
from conformance.model.avic.operations import Answers, Block, Exit, Load, Put, Unblock, VmRun
from conformance.model.avic.state import State, found, is_active, with_vcpu
from conformance.model.step import Outcome
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c


def load(state: State, op: Load, _env: Answers, _profile: Profile) -> Outcome:
    """The vCPU gets a core; IsRunning follows unless it is blocking or the core's id is too wide."""
    vcpu = found(state, op.id)
    because = c.IS_RUNNING_TELLS_THE_TRUTH
    if vcpu.asleep:
        because = c.LOAD_WHILE_BLOCKING_WAITS
    elif op.host_id > 0xFFF:
        because = c.WIDE_HOST_ID_CHANGES_NOTHING
    after = with_vcpu(state, with_run(vcpu, op.host_id, vcpu.asleep, False, vcpu.pending))
    return Outcome(after, 0, because=because, effect=because, also=(c.HOST_ID_IS_WHOLE,))


def put_vcpu(state: State, op: Put, _env: Answers, _profile: Profile) -> Outcome:
    """The vCPU loses its core; IsRunning is cleared."""
    vcpu = found(state, op.id)
    because = c.LOAD_WHILE_BLOCKING_WAITS if vcpu.asleep else c.IS_RUNNING_TELLS_THE_TRUTH
    after = with_vcpu(state, with_run(vcpu, -1, vcpu.asleep, False, vcpu.pending))
    return Outcome(after, 0, because=because, effect=because)


def leave_guest(state: State, op: Exit, _env: Answers, _profile: Profile) -> Outcome:
    """Outside the guest but still on its core, so IsRunning stays."""
    vcpu = found(state, op.id)
    after = with_vcpu(state, with_run(vcpu, vcpu.core, False, False))
    return Outcome(after, 0, because=c.IS_RUNNING_TELLS_THE_TRUTH)


def block(state: State, op: Block, _env: Answers, _profile: Profile) -> Outcome:
    """The vCPU sleeps unless it has something to take.

    Returns:
        0  asleep
        1  an interrupt is deliverable, so it does not sleep (AVIC-036)
    """
    vcpu = found(state, op.id)
    if deliverable(vcpu) >= 0:
        awake = with_vcpu(state, with_run(vcpu, vcpu.core, False, False))
        return Outcome(awake, 1, because=c.BLOCKING_CHECKS_IRR_LAST, effect=c.IS_RUNNING_TELLS_THE_TRUTH)
    asleep = with_vcpu(state, with_run(vcpu, vcpu.core, True, False))
    return Outcome(asleep, 0, because=c.BLOCKING_CHECKS_IRR_LAST, effect=c.BLOCKING_CHECKS_IRR_LAST)


def unblock(state: State, op: Unblock, _env: Answers, _profile: Profile) -> Outcome:
    """A sleeper wakes; that performs the load."""
    vcpu = found(state, op.id)
    after = with_vcpu(state, with_run(vcpu, vcpu.core, False, False))
    return Outcome(after, 0, because=c.LOAD_WHILE_BLOCKING_WAITS, effect=c.LOAD_WHILE_BLOCKING_WAITS)


def vm_run(state: State, op: VmRun, _env: Answers, _profile: Profile) -> Outcome:
    """Enter the guest; what is deliverable is taken at once, by hardware or by injection."""
    vcpu = with_events(found(state, op.id), 0)
    after = with_vcpu(state, with_run(vcpu, vcpu.core, False, True))
    owed = frozenset[int]() if any(v.pending for v in state.vcpus) else None
    also = (c.ACTIVE_CONTROLS_SET,) if is_active(state, vcpu) else (c.INHIBIT_KICKS_AND_LOSES_NOTHING,)
    return Outcome(settled(after, owed), 0, because=c.ACTIVE_IFF_NOTHING_FORBIDS, also=also)
