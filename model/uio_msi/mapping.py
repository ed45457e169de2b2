"""A vector that is mapped to an eventfd, and one that no longer is."""

from __future__ import annotations

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.eventfds import with_signal
from conformance.model.uio_msi.intx import intx_mapping_outcomes
from conformance.model.uio_msi.outcomes import InRange
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c


def mapping_outcomes(state: State, vector: int, eventfd: int, profile: Profile, coalesced: int = 0) -> Outcomes:
    """The set succeeded: what the hardware held back reaches the new eventfd at once."""
    wired = state.wired
    old = wired[vector]
    effect = c.FD_NAMES_OBJECT if old is None else c.SAME_AGAIN if old == eventfd else c.REPLACING
    also: tuple[Clause, ...] = ()
    because = c.SET_RETURNS_ZERO
    if old == eventfd:
        because, also = c.SAME_AGAIN, (c.SET_RETURNS_ZERO,)
    elif eventfd in wired:
        because, also = c.SHARED_EVENTFD, (c.SET_RETURNS_ZERO,)
    now = (*wired[:vector], eventfd, *wired[vector + 1 :])
    if not state.msix:
        return intx_mapping_outcomes(state, now, eventfd, also, effect, profile, coalesced)
    counters, pending = state.counters, state.pending
    if pending[vector]:
        effect = c.HELD_EVENT_DELIVERED_ONCE
        pending = (*pending[:vector], False, *pending[vector + 1 :])
        if vector not in state.lost:
            counters = with_signal(counters, eventfd)
    mapped = State(*state[:6], now, pending, state.lost, counters, *state[10:])
    if vector not in state.lost:
        plain = InRange(mapped, 0, because, effect, also)
        if not state.was_reset or old is not None:
            return plain
        # A set that was undone before anybody looked may have left the message as the reset did.
        unwritten = mapping_outcomes(state._replace(lost=state.lost | {vector}), vector, eventfd, profile)
        return (plain, *each(unwritten))
    return _mapped_after_reset(state, mapped, vector, eventfd, effect)


def _mapped_after_reset(state: State, mapped: State, vector: int, eventfd: int, effect: Clause) -> Outcomes:
    """A driver that writes the message again repairs the vector; one that does not leaves it deaf (UIO-032)."""
    repaired = mapped._replace(lost=state.lost - {vector})
    if state.pending[vector]:
        repaired = repaired._replace(counters=with_signal(mapped.counters, eventfd))
    breaches = (c.MESSAGE_REWRITTEN,) if state.wired[vector] is None else ()
    early = Outcome(repaired, 0, c.SET_RETURNS_ZERO, effect, also=(c.MESSAGE_REWRITTEN,))
    never = Outcome(mapped, 0, c.SET_RETURNS_ZERO, effect, breaches=breaches)
    if not state.pending[vector]:
        return (early, never)
    # Written again after the vector was unmasked: the held event is lost.
    late = mapped._replace(lost=repaired.lost)
    # Held by the driver, which needs no message to tell of it.
    told = mapped._replace(counters=repaired.counters)
    ends = [Outcome(end, 0, c.SET_RETURNS_ZERO, effect, breaches=(c.MESSAGE_REWRITTEN,)) for end in (late, told)]
    return (early, never, *ends)


def without_mapping(state: State, vector: int, profile: Profile) -> State:
    """The vector is mapped to nothing any more."""
    wired = state.wired
    now = (*wired[:vector], None, *wired[vector + 1 :])
    if state.msix:
        return state._replace(wired=now)
    return state._replace(wired=now, masked=state.masked and profile.intx_unmask == "user")
