"""The ioctl: what is decoded, and what is refused."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.eventfds import eventfd_of
from conformance.model.uio_msi.handles import after_remove
from conformance.model.uio_msi.intx import with_intx_unmasked
from conformance.model.uio_msi.mapping import mapping_outcomes, without_mapping
from conformance.model.uio_msi.operations import PAGE, PAGE_END, Answers, CompatIoctl, Errno, Flood, RawIoctl
from conformance.model.uio_msi.outcomes import decided_by
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import COMMAND_MASK, EFAULT, ENOMEM, IRQ_SET_SIZE, UIO_MSI_IRQ_SET


def raw_ioctl(state: State, op: RawIoctl | CompatIoctl, answers: Answers, profile: Profile) -> Outcomes:
    """Decode a command.

    not UIO_MSI_IRQ_SET                unknown_cmd, whatever the pointer (UIO-001 to UIO-003)
    8 bytes not all mapped             -EFAULT (UIO-004)
    """
    if state.life == "gone":
        return after_remove(state)
    cmd = op.cmd & COMMAND_MASK
    if cmd != UIO_MSI_IRQ_SET:
        clause = c.UNKNOWN_COMMAND
        if not is_readable(op.pointer):
            clause = c.UNKNOWN_IGNORES_ARGUMENT
        elif cmd & 0xFFFF == UIO_MSI_IRQ_SET & 0xFFFF:
            clause = c.WHOLE_COMMAND_COMPARED
        return Outcome(state, profile.unknown_cmd, clause, clause, also=(c.UNKNOWN_COMMAND, c.ORDER_OF_CHECKS))
    if not is_readable(op.pointer):
        refused = Outcome(state, -EFAULT, c.BAD_POINTER, c.BAD_POINTER, also=(c.ORDER_OF_CHECKS,))
        return (refused, _out_of_memory(state)) if _lacks_memory(answers) else refused
    outcomes = irq_set(state, op.vector, op.fd, answers, profile)
    if op.pointer == PAGE:
        return outcomes
    return decided_by(outcomes, c.ARGUMENT_IS_EIGHT_BYTES)


def flood(state: State, op: Flood, answers: Answers, profile: Profile) -> Outcomes:
    """So many bad ioctls: the first decides, the others change nothing any more (UIO-087 looks at the log)."""
    refused = replace(answers, request_irq=op.refusal) if op.refusal else answers
    outcomes = raw_ioctl(state, RawIoctl(op.cmd, op.pointer, op.vector, op.fd), refused, profile)
    if op.cmd & COMMAND_MASK != UIO_MSI_IRQ_SET or not is_readable(op.pointer) or op.vector < state.limit:
        return outcomes
    return decided_by(outcomes, c.NO_SUCH_VECTOR)


def irq_set(state: State, vector: int, fd: int, answers: Answers, profile: Profile) -> Outcomes:
    """UIO_MSI_IRQ_SET with its argument in place.

    an allocation gave NULL            -ENOMEM, whatever else is wrong; or what follows
    argument vanished                  -EFAULT (UIO-004)
    vector >= max_vectors              vec_oob; nothing touched (UIO-009, UIO-010)
    fd < 0                             0; unmapped (UIO-012 to UIO-014)
    fd refused                         its errno; old mapping kept, or lost (UIO-015, UIO-020)
    request_irq refused                its errno; old mapping kept or lost, whole (UIO-021, UIO-022)
    otherwise                          0; mapped to the eventfd (UIO-016, UIO-018)

    Source: uio_msi as posted, uio_msi_ioctl and set_irq_eventfd.
    """
    if state.life == "gone":
        return after_remove(state)
    if _lacks_memory(answers):
        return _no_memory(state, vector, fd, answers, profile)
    if answers.copy_from_user:
        return Outcome(state, -EFAULT, c.BAD_POINTER, c.BAD_POINTER)
    if vector >= state.limit:
        also = _ORDER if fd < 0 or eventfd_of(state, fd) < 0 else ()
        return Outcome(
            state,
            profile.vec_oob,
            c.NUMBER_OF_VECTORS if vector <= state.config.vectors else c.NO_SUCH_VECTOR,
            c.NO_SUCH_VECTOR_TOUCHES_NOTHING,
            (c.NO_SUCH_VECTOR, *also),
        )
    old = state.wired[vector]
    if fd < 0:
        if old is None:
            because = c.DETACHING_TWICE_IS_FINE if fd == -1 else c.ANY_NEGATIVE_DETACHES
            return Outcome(state, 0, because, c.DETACHING_TWICE_IS_FINE)
        because = c.MINUS_ONE_DETACHES if fd == -1 else c.ANY_NEGATIVE_DETACHES
        return Outcome(without_mapping(state, vector, profile), 0, because, c.SILENT_AFTER_DETACH)
    found = eventfd_of(state, fd)
    refusal = found if found < 0 else answers.eventfd_ctx_fdget
    if refusal:
        return _bad_fd(state, vector, refusal, profile)
    refusal = answers.request_irq
    if refusal:
        return _request_refused(state, vector, refusal, c.REQUEST_ERRNO_FORWARDED, profile)
    return mapping_outcomes(state, vector, found, profile)


def _no_memory(state: State, vector: int, fd: int, answers: Answers, profile: Profile) -> Outcomes:
    """A driver may allocate anywhere, before the copy or after the look-up, and may do without what it did not get."""
    rest = replace(answers, kzalloc=0, kcalloc=0, kasprintf=0)
    otherwise = each(irq_set(state, vector, fd, rest, profile))
    if vector >= state.limit or fd < 0:
        return (*otherwise, _out_of_memory(state))
    refused = _request_refused(state, vector, -ENOMEM, c.NEVER_HALF_MAPPED, profile)
    return (*each(refused), _out_of_memory(state), *otherwise)


def _lacks_memory(answers: Answers) -> bool:
    return bool(answers.kzalloc or answers.kcalloc or answers.kasprintf)


def _out_of_memory(state: State) -> Outcome:
    """The ioctl ended at an allocation, before it did anything."""
    return Outcome(state, -ENOMEM, c.NEVER_HALF_MAPPED, c.NEVER_HALF_MAPPED)


_ORDER = (c.ORDER_OF_CHECKS,)


def _bad_fd(state: State, vector: int, refusal: Errno, profile: Profile) -> Outcomes:
    if state.wired[vector] is None:
        return Outcome(state, refusal, c.BAD_FD, c.OTHER_VECTORS_UNTOUCHED)
    if profile.bad_fd_replace == "lose":
        return Outcome(without_mapping(state, vector, profile), refusal, c.BAD_FD)
    kept = Outcome(state, refusal, c.BAD_FD, also=(c.BAD_FD_KEEPS_OLD, c.OTHER_VECTORS_UNTOUCHED))
    lost = Outcome(without_mapping(state, vector, profile), refusal, c.BAD_FD, breaches=(c.BAD_FD_KEEPS_OLD,))
    return (kept, lost)


def _request_refused(state: State, vector: int, refusal: Errno, because: Clause, profile: Profile) -> Outcomes:
    also, effect = (c.OTHER_VECTORS_UNTOUCHED,), c.NEVER_HALF_MAPPED
    lost = Outcome(without_mapping(state, vector, profile), refusal, because, effect, also)
    if state.wired[vector] is None or profile.irq_fail_replace == "lose":
        return lost
    kept = Outcome(state, refusal, because, effect, also)
    if not state.msix and profile.intx_unmask == "set":
        return (kept, lost, Outcome(with_intx_unmasked(state), refusal, because, effect, also))
    if vector not in state.lost:
        return (kept, lost)
    # The message may have been written again on the way.
    repaired = state._replace(lost=state.lost - {vector})
    return (kept, Outcome(repaired, refusal, because, effect, also), lost)


def is_readable(pointer: int) -> bool:
    """Whether all 8 bytes at a user pointer are mapped."""
    return PAGE <= pointer <= PAGE_END - IRQ_SET_SIZE
