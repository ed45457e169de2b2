"""What the world can do, and what the specification allows then."""

from __future__ import annotations

from typing import assert_never

from conformance.model.step import Outcome, Outcomes
from conformance.model.uio_msi.binding import probe, remove
from conformance.model.uio_msi.eventfds import eventfd_of, read_eventfd, with_fd
from conformance.model.uio_msi.events import raise_many, raise_vector
from conformance.model.uio_msi.handles import close_device, flood_opens, open_device
from conformance.model.uio_msi.intx import config_intx, flood_writes, other_interrupt, set_intx, write
from conformance.model.uio_msi.ioctls import flood, irq_set, is_readable, raw_ioctl
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    Answers,
    Close,
    CloseFd,
    CompatIoctl,
    CompatIrqSet,
    ConfigIntx,
    DeviceReset,
    Flood,
    FloodOpens,
    FloodWrites,
    IrqSet,
    ListInterrupts,
    Open,
    Operation,
    OtherInterrupt,
    Probe,
    RaiseMany,
    RaiseVector,
    RawIoctl,
    ReadEventfd,
    Remove,
    ReuseFd,
    SetIntx,
    Write,
    has_line,
)
from conformance.model.uio_msi.outcomes import decided_by
from conformance.model.uio_msi.state import CLOSED, PIPE, State, number_of_vectors
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import COMMAND_MASK, EBADF, UIO_MSI_IRQ_SET


def step(state: State, op: Operation, answers: Answers, profile: Profile) -> Outcomes:
    """What the specification allows `op` to do here."""
    match op:
        case IrqSet(vector, fd):
            return irq_set(state, vector, fd, answers, profile)
        case RaiseVector():
            return raise_vector(state, op.vector, answers)
        case RaiseMany():
            return raise_many(state, op)
        case RawIoctl():
            return raw_ioctl(state, op, answers, profile)
        case CompatIoctl():
            return decided_by(raw_ioctl(state, op, answers, profile), c.COMPAT_IDENTICAL)
        case CompatIrqSet(vector, fd):
            return decided_by(irq_set(state, vector, fd, answers, profile), c.COMPAT_IDENTICAL)
        case Open():
            return open_device(state, op, answers, profile)
        case Close():
            return close_device(state, profile)
        case Probe():
            return probe(state, answers, profile)
        case Remove():
            return remove(state, profile)
        case SetIntx():
            return set_intx(state, op)
        case OtherInterrupt():
            return other_interrupt(state)
        case ConfigIntx():
            return config_intx(state, op, answers, profile)
        case Write():
            return write(state, op, answers, profile)
        case CloseFd(fd):
            was_open = state.fds[fd - FIRST_FD] != CLOSED
            return Outcome(with_fd(state, fd, CLOSED), 0 if was_open else -EBADF, c.CLOSED_FD_STILL_SIGNALLED)
        case ReuseFd():
            named = PIPE if op.pipe else len(state.config.eventfds)
            return Outcome(with_fd(state, op.fd, named), 0, c.FD_NAMES_OBJECT)
        case ReadEventfd():
            return read_eventfd(state, op)
        case DeviceReset():
            lost = frozenset(range(state.limit))
            return Outcome(state._replace(lost=lost, was_reset=True), 0, c.MESSAGE_REWRITTEN)
        case ListInterrupts():
            return Outcome(state, 0, c.MEMORY_SAFE)
        case Flood():
            return flood(state, op, answers, profile)
        case FloodOpens():
            return flood_opens(state, op, profile)
        case FloodWrites():
            return flood_writes(state, op, profile)
        case _:
            assert_never(op)


def legal(state: State, op: Operation) -> bool:
    """Whether the world can do `op` at all; bad arguments are fair."""
    match op:
        case Flood():
            return state.opens > 0 and _is_refused(state, op)
        case FloodOpens():
            return state.life == "bound" and not state.config.handles
        case FloodWrites():
            return state.opens > 0 and state.life == "bound" and (bool(state.msix) or state.wired[0] is None)
        case IrqSet() | CompatIrqSet() | RawIoctl() | CompatIoctl():
            return state.opens > 0 and (not state.config.ceiling or _set_within_ceiling(state, op))
        case RaiseVector(vector):
            return _has_vector(state, vector) and (state.msix is False or _gain_within_ceiling(state, vector))
        case RaiseMany(vector):
            return _has_vector(state, vector) and not state.config.ceiling
        case Open():
            return not state.config.handles or state.opens < state.config.handles
        case Close():
            return state.opens > 0
        case Probe():
            return state.life == "unbound"
        case Remove():
            return state.life == "bound"
        case SetIntx(level):
            return _has_intx(state) and (not level or state.asserted or _gain_within_ceiling(state, 0))
        case OtherInterrupt():
            return _has_intx(state)
        case ConfigIntx():
            return bool(state.msix) or state.opens == 0 or _gain_within_ceiling(state, 0)
        case Write():
            return state.opens > 0 and (bool(state.msix) or _gain_within_ceiling(state, 0))
        case CloseFd() | ReuseFd():
            return True
        case ReadEventfd(fd):
            return state.fds[fd - FIRST_FD] >= 0
        case DeviceReset():
            return bool(state.msix) and state.opens > 0 and state.life == "bound"
        case ListInterrupts():
            return True
        case _:
            assert_never(op)


def _has_vector(state: State, vector: int) -> bool:
    """Whether the function may send the message of a vector; that its driver gave MSI-X up is not known outside."""
    if not state.config.vectors:
        return False
    return vector < (number_of_vectors(state.config) if state.msix is False else state.limit)


def _has_intx(state: State) -> bool:
    """Whether the function may interrupt by INTx: it has no MSI-X, none that works, or none could be had at probe."""
    config = state.config
    return has_line(config) and (not config.vectors or config.msix_broken or state.may_use_intx)


def _is_refused(state: State, op: Flood) -> bool:
    """Whether an ioctl changes nothing however often it is repeated: most are refused, and nothing is unmapped twice.

    A refused request_irq is refused to those who call it: who has the action already maps the eventfd, which signals
    nothing while the level is low.
    """
    if op.cmd & COMMAND_MASK != UIO_MSI_IRQ_SET or not is_readable(op.pointer):
        return not op.refusal
    if op.vector >= state.limit or (op.fd >= 0 and eventfd_of(state, op.fd) < 0):
        return not op.refusal
    if op.fd < 0:
        return not op.refusal and state.wired[op.vector] is None
    return op.refusal < 0 and not state.asserted


def _gain_within_ceiling(state: State, vector: int) -> bool:
    wired, ceiling = state.wired[vector], state.config.ceiling
    return not ceiling or wired is None or state.counters[wired] < ceiling


def _set_within_ceiling(state: State, op: IrqSet | CompatIrqSet | RawIoctl | CompatIoctl) -> bool:
    if op.vector >= len(state.wired):
        return True
    found = eventfd_of(state, op.fd)
    return (
        found < 0 or not (state.pending[op.vector] or state.asserted) or (state.counters[found] < state.config.ceiling)
    )
