"""The ioctl: what is decoded, and what is refused."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.freedom import End, Freedom, Part
from conformance.model.matchers import ERRNO
from conformance.model.step import Outcome, Outcomes, each
from conformance.model.uio_msi.eventfds import eventfd_of
from conformance.model.uio_msi.handles import after_remove
from conformance.model.uio_msi.intx import with_intx_unmasked
from conformance.model.uio_msi.mapping import mapping_outcomes, without_mapping
from conformance.model.uio_msi.operations import PAGE, PAGE_END, Answers, CompatIoctl, Errno, Flood, RawIoctl, has_line
from conformance.model.uio_msi.outcomes import InRange, decided_by
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    COMMAND_MASK,
    EFAULT,
    ENOMEM,
    IRQ_SET_SIZE,
    MAX_MSIX_VECTORS,
    UIO_MSI_IRQ_SET,
)


def raw_ioctl(state: State, op: RawIoctl | CompatIoctl, answers: Answers, profile: Profile) -> Outcomes:
    """Decode a command.

    an allocation gave NULL            -ENOMEM, or what follows
    not UIO_MSI_IRQ_SET                unknown_cmd, whatever the pointer (UIO-001 to UIO-003)
    8 bytes not all mapped             -EFAULT (UIO-004)
    """
    if state.life == "gone":
        return after_remove(state)
    cmd = op.cmd & COMMAND_MASK
    if cmd == UIO_MSI_IRQ_SET and is_readable(op.pointer):
        outcomes = irq_set(state, op.vector, op.fd, answers, profile)
        return outcomes if op.pointer == PAGE else decided_by(outcomes, c.ARGUMENT_IS_EIGHT_BYTES)
    if cmd == UIO_MSI_IRQ_SET:
        refused = Outcome(state, -EFAULT, c.BAD_POINTER, c.BAD_POINTER, also=(c.ORDER_OF_CHECKS,))
    else:
        clause = c.UNKNOWN_COMMAND
        if not is_readable(op.pointer):
            clause = c.UNKNOWN_IGNORES_ARGUMENT
        elif cmd & 0xFFFF == UIO_MSI_IRQ_SET & 0xFFFF:
            clause = c.WHOLE_COMMAND_COMPARED
        refused = Outcome(state, profile.unknown_cmd, clause, clause, also=(c.UNKNOWN_COMMAND, c.ORDER_OF_CHECKS))
    return (refused, *_out_of_memory(state)) if _lacks_memory(answers) else refused


def flood(state: State, op: Flood, answers: Answers, profile: Profile) -> Outcomes:
    """So many bad ioctls: the first decides, the others change nothing any more (UIO-087 looks at the log)."""
    outcomes = raw_ioctl(state, RawIoctl(op.cmd, op.pointer, op.vector, op.fd), answers, profile)
    if op.cmd & COMMAND_MASK != UIO_MSI_IRQ_SET or not is_readable(op.pointer) or op.vector < state.limit:
        return outcomes
    return decided_by(outcomes, c.NO_SUCH_VECTOR)


def irq_set(state: State, vector: int, fd: int, answers: Answers, profile: Profile) -> Outcomes:
    """UIO_MSI_IRQ_SET with its argument in place.

    an allocation gave NULL            -ENOMEM, whatever else is wrong; or what follows
    argument vanished                  -EFAULT (UIO-004)
    vector >= max_vectors              vec_oob; nothing touched (UIO-009, UIO-010)
    fd < 0                             0; unmapped (UIO-012 to UIO-014)
    no interrupt at all                any errno (UIO-094)
    fd refused                         its errno; old mapping kept, or lost (UIO-015, UIO-020)
    request_irq refused                its errno; old mapping kept or lost, whole (UIO-021, UIO-022); or what follows,
                                       if a further request was granted; if that was refused, its errno as well
    otherwise                          0; mapped to the eventfd (UIO-016, UIO-018)

    Source: uio_msi as posted, uio_msi_ioctl and set_irq_eventfd.
    """
    if state.life == "gone":
        return after_remove(state)
    starved = _lacks_memory(answers)
    if answers.copy_from_user:
        gone = Outcome(state, -EFAULT, c.BAD_POINTER, c.BAD_POINTER)
        return (gone, *_out_of_memory(state)) if starved else gone
    if vector >= state.limit:
        beyond = _no_such_vector(state, vector, fd, profile)
        return (beyond, *_out_of_memory(state)) if starved else beyond
    if fd < 0:
        return _detach(state, vector, fd, answers, profile)
    if not state.msix and not has_line(state.config):
        return Outcome(state, ERRNO, c.NO_LINE, c.NO_LINE)
    found = eventfd_of(state, fd)
    refusal = found if found < 0 else answers.eventfd_ctx_fdget
    refusals = {refusal: c.BAD_FD} if refusal else {}
    if answers.request_irq:
        refusals.setdefault(answers.request_irq, c.REQUEST_ERRNO_FORWARDED)
    if answers.refused_again:
        refusals.setdefault(answers.refused_again, c.REQUEST_ERRNO_FORWARDED)
    met = refusal or (answers.request_irq and not answers.granted_again)
    if starved:
        refusals.setdefault(-ENOMEM, c.NEVER_HALF_MAPPED)
    if met:
        return _set_refused(state, vector, refusals, profile)
    mapped = mapping_outcomes(state, vector, found, profile, answers.unmask_coalesced)
    return (*_set_refused(state, vector, refusals, profile), *each(mapped)) if refusals else mapped


def _no_such_vector(state: State, vector: int, fd: int, profile: Profile) -> Outcome:
    """The limit of the driver's own, below the size of the table, is UIO-065's; what else is wrong comes later."""
    because = c.NUMBER_OF_VECTORS if MAX_MSIX_VECTORS <= vector < state.config.vectors else c.NO_SUCH_VECTOR
    if fd < 0 or eventfd_of(state, fd) < 0:
        because = c.ORDER_OF_CHECKS
    return Outcome(state, profile.vec_oob, because, c.NO_SUCH_VECTOR_TOUCHES_NOTHING, (c.NO_SUCH_VECTOR,))


def _detach(state: State, vector: int, fd: int, answers: Answers, profile: Profile) -> Outcomes:
    """Nothing that is refused on the way keeps the vector from being unmapped, but for what comes before all else."""
    if state.wired[vector] is None:
        because = c.DETACHING_TWICE_IS_FINE if fd == -1 else c.ANY_NEGATIVE_DETACHES
        done = InRange(state, 0, because, c.DETACHING_TWICE_IS_FINE)
    else:
        because = c.MINUS_ONE_DETACHES if fd == -1 else c.ANY_NEGATIVE_DETACHES
        done = InRange(without_mapping(state, vector, profile), 0, because, c.SILENT_AFTER_DETACH)
    if not _lacks_memory(answers) and not answers.request_irq:
        return done
    late = () if not answers.request_irq else (replace(done, result=answers.request_irq),)
    return (done, *late, *(_out_of_memory(state) if _lacks_memory(answers) else ()))


def _lacks_memory(answers: Answers) -> bool:
    return bool(answers.kzalloc or answers.kcalloc or answers.kasprintf)


def _out_of_memory(state: State) -> tuple[Outcome, ...]:
    """The ioctl ended at an allocation, before it did anything: a driver may allocate anywhere."""
    return (Outcome(state, -ENOMEM, c.NEVER_HALF_MAPPED, c.NEVER_HALF_MAPPED),)


def _set_refused(state: State, vector: int, refusals: dict[Errno, Clause], profile: Profile) -> Freedom:
    """A set that met these refusals: the old mapping is there as before, or gone as a whole (UIO-021).

    Losing it to a bad fd breaks UIO-020, where that says so. On its way the driver may have unmasked INTx, or written
    the message again.
    """
    parts: tuple[Part, ...] = ()
    if not state.msix and profile.intx_unmask == "set":
        parts = (Part("unmasked", with_intx_unmasked, owed=False),)
    if vector in state.lost:
        parts = (*parts, Part("written", lambda s: s._replace(lost=s.lost - {vector}), owed=False))
    if state.wired[vector] is not None:
        parts = (*parts, Part("unmapped", lambda s: without_mapping(s, vector, profile), owed=False))
    ends: tuple[End, ...] = ()
    for errno, because in refusals.items():
        effect, also = c.NEVER_HALF_MAPPED, (c.OTHER_VECTORS_UNTOUCHED,)
        if because is not c.BAD_FD:
            ends = (*ends, End(errno, because, effect, also))
        elif state.wired[vector] is None:
            ends = (*ends, End(errno, because, c.OTHER_VECTORS_UNTOUCHED))
        else:
            breaches = (c.BAD_FD_KEEPS_OLD,) if profile.bad_fd_replace == "keep" else ()
            kept = End(errno, because, None, (c.BAD_FD_KEEPS_OLD, effect, *also), before=("unmapped",))
            lost = End(errno, because, also=(effect,), breaches=breaches, after=("unmapped",))
            ends = (*ends, kept, lost)
    return Freedom(state, parts, ends)


def is_readable(pointer: int) -> bool:
    """Whether all 8 bytes at a user pointer are mapped."""
    return PAGE <= pointer <= PAGE_END - IRQ_SET_SIZE
