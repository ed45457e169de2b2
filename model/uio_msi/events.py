"""Events of the function's MSI-X vectors."""

from __future__ import annotations

from conformance.model.step import Outcome, Outcomes
from conformance.model.uio_msi.eventfds import with_signal
from conformance.model.uio_msi.operations import NOTHING_REFUSED, Answers, RaiseMany
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EVENTFD_MAX


def raise_vector(state: State, vector: int, answers: Answers = NOTHING_REFUSED) -> Outcomes:
    """An event of the function.

    MSI-X off                          nothing (UIO-040)
    vector unmapped                    held in the pending bit, or by the driver (UIO-041); after a reset it may be
                                       lost, where a handler is there that no message calls
    vector mapped                      1 more in exactly its eventfd (UIO-033)

    Source: uio_msi as posted, uio_msi_irqhandler; PCI Local Bus 3.0, 6.8.2.
    """
    if not state.msix or not state.opens or state.life != "bound":
        return Outcome(state, 0, c.SILENT_AFTER_RELEASE, c.SILENT_AFTER_RELEASE)
    eventfd = state.wired[vector]
    if eventfd is None:
        pending = state.pending
        held = (*pending[:vector], True, *pending[vector + 1 :])
        kept = Outcome(state._replace(pending=held), 0, c.UNMAPPED_EVENT_HELD, c.UNMAPPED_EVENT_HELD)
        return (kept, Outcome(state, 0, c.MESSAGE_REWRITTEN)) if state.was_reset else kept
    if vector in state.lost and not answers.message_written:
        return Outcome(state, 0, c.MESSAGE_REWRITTEN)
    if vector in state.lost:
        state = state._replace(lost=state.lost - {vector})
    counters = state.counters
    after = State(*state[:9], with_signal(counters, eventfd), *state[10:])
    return Outcome(after, 0, c.ONE_EVENT_ONE_SIGNAL, None, delivered(state, eventfd))


def raise_many(state: State, op: RaiseMany) -> Outcomes:
    """So many events: a mapped eventfd gains as many, until it saturates (UIO-035); one is held, or none."""
    outcome = raise_vector(state, op.vector)
    if not isinstance(outcome, Outcome) or outcome.because is not c.ONE_EVENT_ONE_SIGNAL:
        return outcome
    eventfd = state.wired[op.vector]
    assert eventfd is not None
    counters = state.counters
    count = min(counters[eventfd] + op.count, EVENTFD_MAX)
    after = state._replace(counters=(*counters[:eventfd], count, *counters[eventfd + 1 :]))
    return Outcome(after, 0, c.EVENTS_ADD_UP, c.EVENTS_ADD_UP, (*outcome.also, c.ONE_EVENT_ONE_SIGNAL))


_DELIVERED = (c.MSIX_HANDLED, c.EVENTS_ADD_UP, c.HANDLERS_DO_NOT_SLEEP)


def delivered(state: State, eventfd: int) -> tuple[Clause, ...]:
    """What one more signal to this eventfd shows besides the signal."""
    also: tuple[Clause, ...] = _DELIVERED
    if eventfd not in state.fds:
        also = (*also, c.CLOSED_FD_STILL_SIGNALLED)
    return also
