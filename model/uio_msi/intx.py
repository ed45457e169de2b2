"""Functions that interrupt by INTx."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.matchers import ERRNO
from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.eventfds import with_signal
from conformance.model.uio_msi.events import delivered
from conformance.model.uio_msi.operations import NOTHING_REFUSED, Answers, ConfigIntx, FloodWrites, SetIntx, Write
from conformance.model.uio_msi.outcomes import InRange, any_of
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EINVAL, EIO, ENODEV, ENOSYS, EOPNOTSUPP, EVENTFD_MAX


def intx_mapping_outcomes(
    state: State,
    now: tuple[int | None, ...],
    eventfd: int,
    also: tuple[Clause, ...],
    effect: Clause,
    profile: Profile,
    coalesced: int,
) -> Outcomes:
    """A set unmasks INTx (UIO-083); a level still asserted signals at once and masks again (UIO-081).

    Not if the unmask coalesced with another one, whose signal is then that of both.
    """
    policy = profile.intx_unmask
    if state.user_unmasks and state.masked and state.wired[0] is None:
        # Nobody must unmask here, and who does so for a fresh user does what he should (UIO-084).
        unmasked = intx_mapping_outcomes(state._replace(masked=False), now, eventfd, also, effect, profile, coalesced)
        left = Outcome(state._replace(wired=now), 0, c.SET_RETURNS_ZERO, effect, also)
        return (left, *each(unmasked))
    if policy == "set" or (policy == "explicit" and state.wired[0] is None):
        masked = False
        also = (*also, c.INTX_UNMASK, c.INTX_LEFT_AS_FOUND)
        if state.wired[0] == eventfd:
            effect, also = c.INTX_UNMASK, (*also, effect)
    else:
        masked = state.masked
    if not state.asserted or masked:
        return InRange(state._replace(wired=now, masked=masked), 0, c.SET_RETURNS_ZERO, effect, also)
    once = state._replace(wired=now, masked=True, counters=with_signal(state.counters, eventfd))
    signalled = Outcome(once, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also)
    old = state.wired[0]
    if policy == "user" and old is not None:
        return signalled
    silent = Outcome(state._replace(wired=now, masked=True), 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also)
    outcomes = (signalled, silent) if coalesced else (signalled,)
    if old == eventfd:
        return outcomes
    if old is not None:
        # An assertion that raced with this set may have reached the new eventfd instead of the old one. Counters
        # never go down, so this explains nothing where the assertion came before.
        moved = (*once.counters[:old], max(once.counters[old] - 1, 0), *once.counters[old + 1 :])
        raced = once._replace(counters=with_signal(moved, eventfd))
        outcomes = (*outcomes, Outcome(raced, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also))
        if once.counters[old] < EVENTFD_MAX:
            return outcomes
        # The old eventfd is full: the signal that moved may never have shown there.
        full = once._replace(counters=with_signal(once.counters, eventfd))
        return (*outcomes, Outcome(full, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also))
    # A driver that unmasks after request_irq, inside which the handler has already signalled, is told again.
    twice = once._replace(counters=with_signal(once.counters, eventfd))
    return (*outcomes, Outcome(twice, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also))


def with_intx_unmasked(state: State) -> State:
    """INTx unmasked on the way to a set that was refused: a level still asserted reaches the old eventfd again."""
    wired = state.wired[0]
    if not state.asserted or wired is None:
        return state._replace(masked=False)
    return state._replace(masked=True, counters=with_signal(state.counters, wired))


def set_intx(state: State, op: SetIntx) -> Outcomes:
    """The function's INTx level: mapped and unmasked, an assertion signals once and masks (UIO-081).

    While nothing is mapped nobody is told, and the line is not left to itself (UIO-091). With MSI-X it is no interrupt.
    """
    now = state._replace(asserted=op.level)
    if state.msix:
        return Outcome(now, 0, c.SILENT_AFTER_RELEASE, c.SILENT_AFTER_RELEASE)
    wired = state.wired[0]
    if op.level and wired is None and state.opens and state.life == "bound" and not state.user_unmasks:
        return Outcome(now, 0, c.LINE_SERVED, c.LINE_SERVED)
    if op.level and may_be_masked(now):
        return perhaps_masked(Outcome(now, 0, c.SILENT_AFTER_DETACH, c.SILENT_AFTER_DETACH))
    if not op.level or state.asserted or state.masked or wired is None:
        silent = c.INTX_NO_SECOND_SIGNAL if state.masked and wired is not None else c.SILENT_AFTER_RELEASE
        return Outcome(now, 0, silent, silent)
    now = now._replace(counters=with_signal(state.counters, wired), masked=True)
    return Outcome(now, 0, c.INTX_MASKED_AND_SIGNALLED, c.INTX_MASKED_AND_SIGNALLED, delivered(state, wired)[1:])


def may_be_masked(state: State) -> bool:
    """Whether a handler that has nobody to tell may have masked the level, where only user space unmasks."""
    if not state.user_unmasks or state.msix or state.masked or state.wired[0] is not None:
        return False
    return state.asserted and state.opens > 0 and state.life == "bound"


def perhaps_masked(outcome: Outcome) -> tuple[Outcome, ...]:
    """This outcome, and what a handler makes of it that has nobody to tell."""
    if not may_be_masked(outcome.state):
        return (outcome,)
    return (outcome, replace(outcome, state=outcome.state._replace(masked=True)))


def other_interrupt(state: State) -> Outcome:
    """Our handler is called for another device's interrupt: never a signal (UIO-080, UIO-082)."""
    if state.msix or state.wired[0] is None:
        return Outcome(state, 0, c.SILENT_AFTER_DETACH, c.SILENT_AFTER_DETACH)
    clause = c.INTX_NO_SECOND_SIGNAL if state.asserted else c.INTX_NOT_OURS
    return Outcome(state, 0, clause, clause)


def config_intx(state: State, op: ConfigIntx, answers: Answers, profile: Profile) -> Outcomes:
    """User space writes the disable bit: nothing to MSI-X; with INTx that is the mask, while it is mapped (UIO-095).

    Cleared, a level still asserted signals once more. Where only user space unmasks, the bit also matters before a set.
    """
    if state.msix or (state.wired[0] is None and profile.intx_unmask != "user"):
        return Outcome(state, 0, c.INTX_LEFT_AS_FOUND)
    if op.disable:
        return Outcome(state._replace(masked=True), 0, c.USER_WRITES_DISABLE_BIT, c.USER_WRITES_DISABLE_BIT)
    if not state.masked:
        return Outcome(state, 0, c.USER_WRITES_DISABLE_BIT, c.USER_WRITES_DISABLE_BIT)
    unmasked = Outcome(with_intx_unmasked(state), 0, c.USER_WRITES_DISABLE_BIT, c.USER_WRITES_DISABLE_BIT)
    masked_again = answers.unmask_coalesced or may_be_masked(unmasked.state)
    return (unmasked, Outcome(state, 0, c.USER_WRITES_DISABLE_BIT)) if masked_again else unmasked


def write(state: State, op: Write, answers: Answers, profile: Profile) -> Outcomes:
    """irqcontrol.

    INTx mapped, and 1                 0; unmasked; a level still asserted signals at once and masks (UIO-083)
    INTx mapped, and 0                 0; masked (UIO-093)
    INTx mapped, and another number    as 1, or an errno, and nothing happens
    MSI-X, nothing mapped, or removed  any answer; nothing happens
    """
    wired = state.wired[0]
    if profile.intx_unmask == "user":
        return Outcome(state, ERRNO if state.life == "gone" else -ENOSYS, c.INTX_UNMASK)
    if state.life == "gone" or state.msix or wired is None:
        return any_of(state, _ANY_ANSWER, c.MEMORY_SAFE)
    if not op.value:
        return Outcome(state._replace(masked=True), 0, c.IRQCONTROL_MASKS, c.IRQCONTROL_MASKS)
    outcomes: tuple[Outcome, ...] = (Outcome(with_intx_unmasked(state), 0, c.INTX_UNMASK, c.INTX_UNMASK),)
    if answers.unmask_coalesced:
        outcomes = (*outcomes, Outcome(state._replace(masked=True), 0, c.INTX_UNMASK, c.INTX_UNMASK))
    return outcomes if op.value == 1 else (*outcomes, Outcome(state, ERRNO, c.INTX_UNMASK, c.INTX_UNMASK))


def flood_writes(state: State, op: FloodWrites, profile: Profile) -> Outcomes:
    """So many writes that do nothing (UIO-087 looks at the log)."""
    return write(state, Write(op.value), NOTHING_REFUSED, profile)


_ANY_ANSWER = (0, -EINVAL, -EIO, -ENODEV, -ENOSYS, -EOPNOTSUPP)
"""What a driver may say where nothing says what it must."""
