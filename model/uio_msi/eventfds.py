"""What user space does with its eventfds and their numbers."""

from __future__ import annotations

from conformance.model.step import Outcome
from conformance.model.uio_msi.operations import DUP_FD, FIRST_FD, NOT_EVENTFDS, STANDARD_FDS, ReadEventfd
from conformance.model.uio_msi.state import CLOSED, State
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EAGAIN, EBADF, EINVAL, EVENTFD_MAX


def eventfd_of(state: State, fd: int) -> int:
    """The eventfd that `fd` names in the process, or the errno of looking it up (UIO-015)."""
    slot = fd - FIRST_FD
    if 0 <= slot < len(state.fds):
        found = state.fds[slot]
        return found if found >= 0 else -EBADF if found == CLOSED else -EINVAL
    if fd == DUP_FD:
        return 0
    return -EINVAL if fd in NOT_EVENTFDS or fd in STANDARD_FDS else -EBADF


def with_signal(counters: tuple[int, ...], eventfd: int) -> tuple[int, ...]:
    """Counters after one signal, saturating."""
    count = counters[eventfd]
    if count == EVENTFD_MAX:
        return counters
    return (*counters[:eventfd], count + 1, *counters[eventfd + 1 :])


def with_fd(state: State, fd: int, named: int) -> State:
    """A number of the process names something else now."""
    slot = fd - FIRST_FD
    return state._replace(fds=(*state.fds[:slot], named, *state.fds[slot + 1 :]))


def read_eventfd(state: State, op: ReadEventfd) -> Outcome:
    """Take the counter, or 1 of it with EFD_SEMAPHORE. What was signalled is there to be read."""
    eventfd = state.fds[op.fd - FIRST_FD]
    count = state.counters[eventfd]
    if not count:
        return Outcome(state, -EAGAIN, c.EVENTS_ADD_UP)
    eventfds = state.config.eventfds
    taken = 1 if eventfd < len(eventfds) and eventfds[eventfd].semaphore else count
    counters = (*state.counters[:eventfd], count - taken, *state.counters[eventfd + 1 :])
    return Outcome(state._replace(counters=counters), taken, c.EVENTS_ADD_UP)
