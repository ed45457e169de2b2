"""Several outcomes at once."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes
from conformance.model.uio_msi.operations import Errno
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause


def each(outcomes: Outcomes) -> tuple[Outcome, ...]:
    """One outcome or several, as several."""
    return (outcomes,) if isinstance(outcomes, Outcome) else outcomes


def decided_by(outcomes: Outcomes, clause: Clause) -> Outcomes:
    """The same outcomes, decided by another clause."""
    return tuple(replace(o, because=clause, also=(o.because, *o.also), effect=o.effect) for o in each(outcomes))


def any_of(state: State, errnos: tuple[Errno, ...], because: Clause) -> Outcomes:
    """Nothing happens, and any of these is the answer."""
    return tuple(Outcome(state, errno, because) for errno in errnos)
