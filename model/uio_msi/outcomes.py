"""Several outcomes at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.operations import Errno
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi.clauses import NUMBER_OF_VECTORS
from conformance.specs.uio_msi.constants import ERANGE


class InRange(Outcome):
    """What becomes of a vector that is there: who says that it is not has another max_vectors."""

    __slots__ = ()

    def decider(self, result: Any) -> Clause:
        """As for any outcome, but for the errno of a vector out of range."""
        return NUMBER_OF_VECTORS if result == -ERANGE else super().decider(result)


def decided_by(outcomes: Outcomes, clause: Clause) -> Outcomes:
    """The same outcomes, decided by another clause."""
    return tuple(replace(o, because=clause, also=(o.because, *o.also), effect=o.effect) for o in each(outcomes))


def any_of(state: State, errnos: tuple[Errno, ...], because: Clause) -> Outcomes:
    """Nothing happens, and any of these is the answer."""
    return tuple(Outcome(state, errno, because) for errno in errnos)
