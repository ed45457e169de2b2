"""Several outcomes at once."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.operations import Errno
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause


def decided_by(outcomes: Outcomes, clause: Clause) -> Outcomes:
    """The same outcomes, decided by another clause."""
    return tuple(replace(o, because=clause, also=(o.because, *o.also), effect=o.effect) for o in each(outcomes))


def any_of(state: State, errnos: tuple[Errno, ...], because: Clause) -> Outcomes:
    """Nothing happens, and any of these is the answer."""
    return tuple(Outcome(state, errno, because) for errno in errnos)
