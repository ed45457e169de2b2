"""Running, and being scheduled out and in, which changes nothing."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet.operations import Answers, Exit, Halt, HostTask, KernelFpu, Leave, Preempt, Run, Window
from conformance.model.cet.state import (
    EMULATED_WRITE,
    HALTED,
    MOVED,
    SWITCHED,
    TORN,
    UNTOUCHED,
    WINDOW,
    XRSTORS,
    State,
    crossed,
    vcpu_of,
    with_vcpu,
)
from conformance.model.step import Outcome
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c


def run(state: State, op: Run, _env: Answers, _profile: Profile) -> Outcome:
    """Begin to run; the values are those of before."""
    v = vcpu_of(state, op.vcpu)
    new = with_vcpu(crossed(state, op.vcpu), op.vcpu, replace(v, live=True, ran=True))
    return Outcome(new, None, because=c.NO_LOST_UPDATE)


def leave(state: State, op: Leave, _env: Answers, _profile: Profile) -> Outcome:
    """Return to userspace; the values stay."""
    v = vcpu_of(state, op.vcpu)
    bypassed = v.origin == XRSTORS and v.since == UNTOUCHED
    new = replace(v, live=False, since=SWITCHED if bypassed else v.since)
    return Outcome(with_vcpu(state, op.vcpu, new), None, because=c.NO_LOST_UPDATE)


def preempt(state: State, op: Preempt | Window | Halt, _env: Answers, _profile: Profile) -> Outcome:
    """Being scheduled out and in changes nothing."""
    v = vcpu_of(state, op.vcpu)
    because = c.HALT_IS_PREEMPTION if isinstance(op, Halt) else c.NO_LOST_UPDATE
    if not v.live:
        since = WINDOW
    elif isinstance(op, Window) and v.origin == EMULATED_WRITE:
        since = TORN
    elif op.cpu:
        since = MOVED
    else:
        since = HALTED if isinstance(op, Halt) else SWITCHED
    if since == v.since:
        return Outcome(state, None, because=because)
    return Outcome(with_vcpu(state, op.vcpu, replace(v, since=since)), None, because=because, also=_ATOMIC)


_ATOMIC = (c.SAVE_IS_ATOMIC,)


def host_task(state: State, _op: HostTask, _env: Answers, _profile: Profile) -> Outcome:
    """Another task in user mode changes nothing."""
    return Outcome(state, None, because=c.USER_STATE_IS_THE_TASKS)


def kernel_fpu(state: State, _op: KernelFpu, _env: Answers, _profile: Profile) -> Outcome:
    """A softirq changes nothing."""
    return Outcome(state, None, because=c.FPU_BALANCED)


def kernel_exit(state: State, _op: Exit, _env: Answers, _profile: Profile) -> Outcome:
    """An exit that the kernel handles by itself changes nothing."""
    return Outcome(state, None, because=c.NO_LOST_UPDATE)
