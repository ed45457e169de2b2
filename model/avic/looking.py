"""When vCPUs look at what they were sent: at once, or late, so that another operation comes in between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from conformance.model.avic.apic import deliverable, take, with_run
from conformance.model.avic.state import State, with_vcpus


def settled(state: State, woken: frozenset[int] | None = None) -> State:
    """The state once vCPUs in the guest took what they can, and sleepers with something to take are awake.

    `woken` limits the second to vCPUs of these ids, while a deferred exit still owes the others a wake-up.
    vCPUs that are late stay as they are.
    """
    changed = False
    vcpus = []
    for v in state.vcpus:
        new = v
        if v.id in state.late:
            pass
        elif v.in_guest:
            vector = deliverable(v)
            if vector >= 0:
                new = take(v, vector)
        elif v.asleep and (woken is None or v.id in woken) and deliverable(v) >= 0:
            new = with_run(v, v.core, False, False)
        changed = changed or new is not v
        vcpus.append(new)
    return with_vcpus(state, tuple(vcpus)) if changed else state


def with_late(state: State, late: frozenset[int]) -> State:
    """The state in which these vCPUs, and no others, have yet to look."""
    return State(state.config, state.host, state.vms, state.vcpus, state.irtes, late, stale=state.stale)


def lately(state: State, woken: frozenset[int] | None = None) -> tuple[State, ...]:
    """The state settled, and then, where that changes something, with the vCPUs concerned late.

    The second is for operations in company: another one may come between the acceptance of a
    message and the moment when its target looks.
    """
    done = settled(state, woken)
    if done is state:
        return (done,)
    late = frozenset(v.id for v, old in zip(done.vcpus, state.vcpus, strict=True) if v is not old)
    return done, with_late(state, state.late | late)


def looked(state: State) -> Iterator[State]:
    """The state with each choice of the late vCPUs having looked; nothing else is unfinished."""
    for count in range(len(state.late), -1, -1):
        for done in combinations(sorted(state.late), count):
            yield settled(with_late(state, state.late.difference(done)))
