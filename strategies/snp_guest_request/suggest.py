"""Steps that fit the state."""

from __future__ import annotations

from random import Random
from typing import Any

from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import (
    VM_OF,
    Continue,
    ExtGuestRequest,
    GuestRequest,
    HostSetExtConfig,
    Open,
    RemoveSlot,
    SetInstanceCerts,
)
from conformance.model.snp_guest_request.state import State
from conformance.model.step import Parallel, Step
from conformance.specs.snp_guest_request.constants import EAGAIN, EIO, ENOSPC


def suggest(state: State, random: Random) -> Step | None:
    """A step that leads on: continue what is pending, use what is there, start what is not."""
    if state.guest is not None:
        return None if state.guest.opened or random.random() < 0.3 else Step(Open(random.randrange(4)))
    pending = [v for v, vcpu in enumerate(state.vcpus) if vcpu.pending is not None]
    if pending and random.random() < 0.05:
        return Step(RemoveSlot(VM_OF[pending[0]], random.choice(("R0", "P0", "D0"))))
    if pending and random.random() < 0.7:
        return Step(Continue(pending[0], random.choice((0, 0, ENOSPC, EAGAIN, EIO, 22)), random.choice((1, 2, 4))))
    if state.dead and random.random() < 0.5:
        alive = [v for v, vcpu in enumerate(state.vcpus) if vcpu.created and not state.vms[VM_OF[v]].bugged]
        return Step(GuestRequest(random.choice(alive))) if alive else None
    roll = random.random()
    if roll < 0.15:
        second = [v for v, vcpu in enumerate(state.vcpus) if vcpu.created]
        if second:
            vcpu = random.choice(second)
            ghcb = state.vcpus[vcpu].registered or "own"
            return Step(GuestRequest(vcpu, random.choice(tuple(MESSAGES)), ghcb=ghcb))
    elif roll < 0.22 and state.vms[0].life == "running" and state.vcpus[1].registered:
        points = tuple(sorted(random.sample(range(40), random.randrange(1, 4))))
        right: Any = random.choice((GuestRequest(1), GuestRequest(1, resp="P'"), ExtGuestRequest(1, data="D")))
        left: Any = random.choice((GuestRequest(0), GuestRequest(0, "key"), ExtGuestRequest(0)))
        return Step(Parallel(Step(left), Step(right), points))
    elif roll < 0.27 and state.certs == "kernel" and state.vms[0].life == "running":
        points = tuple(sorted(random.sample(range(40), random.randrange(1, 3))))
        other: Any = random.choice(
            (SetInstanceCerts(0, "B", 8192), HostSetExtConfig("I", 8192, 2), SetInstanceCerts(0, "A", 0))
        )
        return Step(Parallel(Step(ExtGuestRequest(0)), Step(other), points))
    return None
