"""Steps that fit the state."""

from __future__ import annotations

from random import Random

from conformance.model.step import Step
from conformance.model.uio_msi import Config, State
from conformance.model.uio_msi.operations import FIRST_FD, ConfigIntx, IrqSet, Open, Probe, RaiseVector, SetIntx
from conformance.specs.uio_msi import Profile


def opening(_config: Config, _profile: Profile) -> tuple[Step, ...]:
    """Bind and open the device: without that little can happen."""
    return (Step(Probe()), Step(Open()))


def suggest(state: State, random: Random) -> Step | None:
    """Sets of mapped vectors, and events of the vectors that exist."""
    if state.life == "unbound":
        return Step(Probe())
    if not state.opens:
        return Step(Open())
    vector = random.randrange(min(state.limit, 3))
    if random.random() < 0.5:
        if state.msix:
            return Step(RaiseVector(vector))
        if random.random() < 0.2:
            return Step(ConfigIntx(not state.masked))
        return Step(SetIntx(not state.asserted))
    fd = FIRST_FD + random.randrange(2)
    return Step(IrqSet(vector, fd if state.wired[vector] is None or random.random() < 0.7 else -1))
