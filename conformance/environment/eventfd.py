"""Eventfds of the simulated process, in two backends of one interface.

`RealEventfds` uses Linux eventfds, so that counters, number reuse and wake-ups are the kernel's
own; `FastEventfds` keeps numbers in memory for runs where system calls would dominate. The same
trace gives the same verdict on both.

The process's fd numbers stay in 256 to 511, so that a closed number is really closed; what the
harness keeps for itself lies at 512 and above.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from errno import EAGAIN, EBADF, EINVAL, EMFILE
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from conformance.environment.door import Taken

FIRST_USER_FD = 256
FIRST_OWN_FD = 512
"""Descriptors the harness keeps lie here and above, out of the process's way."""
_PAGE = 4096
"""Bytes of a file of /proc that are read at once: more than such a one has."""
O_PATH = 0o10000000
SATURATED = 2**64 - 2
"""The largest counter that user space can reach. Signals stop here; the kernel's own could reach one more."""


class Kind(NamedTuple):
    """How an eventfd is created."""

    initval: int
    semaphore: bool
    nonblock: bool


class Eventfds(Protocol):
    """Eventfds, the fd numbers that name them, and the references a driver holds."""

    def fdget(self, fd: int) -> int:
        """Take a reference to what `fd` names: the eventfd's index, or -EBADF, -EINVAL."""
        ...

    def held(self, eventfd: int) -> int | None:
        """The descriptor of the driver's last reference, None where references are none; still ours."""
        ...

    def put(self, eventfd: int) -> None:
        """Drop a reference; the caller knows that there is one."""
        ...

    def signal(self, eventfd: int) -> None:
        """Add 1 unless saturated; never blocks."""
        ...

    def counters(self) -> tuple[int, ...]:
        """Of all eventfds, without changing them."""
        ...

    def references(self) -> tuple[int, ...]:
        """That the driver holds, by eventfd."""
        ...

    def read(self, fd: int) -> int:
        """What a read gives without blocking: the number, or -EAGAIN."""
        ...

    def close_number(self, fd: int) -> int:
        """User space closes `fd`: 0, or -EBADF."""
        ...

    def reuse_number(self, fd: int, eventfd: int | None) -> None:
        """User space has `fd` name another eventfd, or a pipe."""
        ...

    def woken(self, eventfd: int) -> bool:
        """Whether a poller was woken since the last question."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class World(NamedTuple):
    """What the process has open at the start."""

    eventfds: Sequence[Kind]
    """The last one is open nowhere: the decoy."""
    duplicate: int
    """A second number of the first eventfd."""
    o_path: int
    """An O_PATH descriptor of the first eventfd."""
    others: Sequence[int]
    """Numbers of a pipe, /dev/null, an epoll, and another device file."""


class FastEventfds:
    """Counters in a list."""

    __slots__ = ("_counters", "_kinds", "_references", "_woken", "table")

    PIPE = -1
    """In `table`: open, but no eventfd."""
    PATH = -2
    """In `table`: open with O_PATH."""

    def __init__(self, world: World) -> None:
        self._kinds = world.eventfds
        self._counters = [kind.initval for kind in world.eventfds]
        self._references = [0] * len(world.eventfds)
        self._woken = 0
        table = {FIRST_USER_FD + i: i for i in range(len(world.eventfds) - 1)}
        table[world.duplicate] = 0
        table[world.o_path] = self.PATH
        for fd in world.others:
            table[fd] = self.PIPE
        self.table = table
        """What each number names: an index, PIPE or PATH."""

    def fdget(self, fd: int) -> int:
        """As the protocol says."""
        found = self.table.get(fd, self.PATH)
        if found < 0:
            return -EINVAL if found == self.PIPE else -EBADF
        self._references[found] += 1
        return found

    def held(self, eventfd: int) -> int | None:
        """References are numbers here."""
        return None

    def put(self, eventfd: int) -> None:
        """As the protocol says."""
        self._references[eventfd] -= 1

    def signal(self, eventfd: int) -> None:
        """As the protocol says."""
        if self._counters[eventfd] != SATURATED:
            self._counters[eventfd] += 1
        self._woken |= 1 << eventfd

    def counters(self) -> tuple[int, ...]:
        """As the protocol says."""
        return tuple(self._counters)

    def references(self) -> tuple[int, ...]:
        """As the protocol says."""
        return tuple(self._references)

    def read(self, fd: int) -> int:
        """As the protocol says."""
        eventfd = self.table[fd]
        count = self._counters[eventfd]
        if not count:
            return -EAGAIN
        taken = 1 if self._kinds[eventfd].semaphore else count
        self._counters[eventfd] = count - taken
        return taken

    def close_number(self, fd: int) -> int:
        """As the protocol says."""
        return -EBADF if self.table.pop(fd, None) is None else 0

    def reuse_number(self, fd: int, eventfd: int | None) -> None:
        """As the protocol says."""
        self.table[fd] = self.PIPE if eventfd is None else eventfd

    def woken(self, eventfd: int) -> bool:
        """As the protocol says."""
        was = self._woken >> eventfd & 1
        self._woken &= ~(1 << eventfd)
        return bool(was)

    def close(self) -> None:
        """Nothing was lent."""


Method = TypeVar("Method", bound=Callable[..., Any])


def _judged(method: Method) -> Method:
    """What fails since the candidate has taken away what the eventfds need is told as that."""

    @wraps(method)
    def done(self: RealEventfds, *args: Any) -> Any:
        try:
            return method(self, *args)
        except (OSError, KeyError) as error:
            raise self._taken(error) or error from error

    return cast("Method", done)


class RealEventfds:
    """Linux eventfds.

    The harness keeps one descriptor of each, to look at the counter when the process has closed
    its own. A reference of the driver is a duplicate of the user's descriptor at 512 or above:
    a plain dup could take the very number the user just closed. Identity is the kernel's
    eventfd-id, counters are read from fdinfo, so that looking changes nothing.
    """

    __slots__ = ("_epoll", "_held", "_ids", "_kept", "_limit", "_user")

    def __init__(self, world: World) -> None:
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._user: set[int] = set()
        """Numbers the process has open."""
        self._kept: list[int] = []
        self._epoll = select.epoll.fromfd(_epoll_fd())
        for i, kind in enumerate(world.eventfds):
            self._create(kind, i if i < len(world.eventfds) - 1 else None)
        self._ids = {_identity(fd): i for i, fd in enumerate(self._kept)}
        self._held: list[list[int]] = [[] for _ in self._kept]
        """Duplicates that stand for the driver's references, by eventfd."""
        self._place(self._kept[0], world.duplicate, keep=True)
        self._place(os.open(f"/proc/self/fd/{self._kept[0]}", O_PATH | os.O_CLOEXEC), world.o_path)
        for make, fd in zip((_pipe_end, _null, _epoll_fd, _socket_fd), world.others, strict=True):
            self._place(make(), fd)

    def _create(self, kind: Kind, slot: int | None) -> None:
        flags = os.EFD_CLOEXEC | (os.EFD_SEMAPHORE if kind.semaphore else 0) | (os.EFD_NONBLOCK if kind.nonblock else 0)
        low = os.eventfd(0, flags)
        kept = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
        os.close(low)
        if kind.initval:
            os.eventfd_write(kept, kind.initval)
        if slot is not None:
            self._place(kept, FIRST_USER_FD + slot, keep=True)
        self._epoll.register(kept, select.EPOLLIN | select.EPOLLET)
        self._epoll.poll(0)
        self._kept.append(kept)

    def _place(self, fd: int, number: int, *, keep: bool = False) -> None:
        """Make `number` name what `fd` names; `fd` itself goes unless it is kept."""
        if fd != number:
            os.dup2(fd, number, inheritable=False)
        self._user.add(number)
        if not keep and fd != number:
            os.close(fd)

    @_judged
    def fdget(self, fd: int) -> int:
        """As the protocol says."""
        # Descriptors of the harness are not the process's.
        if fd not in self._user or fcntl.fcntl(fd, fcntl.F_GETFL) & O_PATH:
            return -EBADF
        if str(Path(f"/proc/self/fd/{fd}").readlink()) != "anon_inode:[eventfd]":
            return -EINVAL
        held = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
        eventfd = self._ids[_identity(held)]
        self._held[eventfd].append(held)
        return eventfd

    def held(self, eventfd: int) -> int | None:
        """As the protocol says."""
        held = self._held[eventfd]
        return held[-1] if held else None

    @_judged
    def put(self, eventfd: int) -> None:
        """As the protocol says."""
        os.close(self._held[eventfd].pop())

    @_judged
    def signal(self, eventfd: int) -> None:
        """As the protocol says. Through a duplicate of the driver's, as the kernel does through its reference."""
        held = self._held[eventfd]
        fd = held[-1] if held else self._kept[eventfd]
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        # A blocking write would hang us, for O_NONBLOCK belongs to the shared open file.
        if poll.poll(0):
            os.eventfd_write(fd, 1)

    @_judged
    def counters(self) -> tuple[int, ...]:
        """As the protocol says."""
        return tuple([_fdinfo(fd, "eventfd-count", 16) for fd in self._kept])

    def references(self) -> tuple[int, ...]:
        """As the protocol says."""
        return tuple([len(held) for held in self._held])

    @_judged
    def read(self, fd: int) -> int:
        """As the protocol says."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return os.eventfd_read(fd) if poll.poll(0) else -EAGAIN

    @_judged
    def close_number(self, fd: int) -> int:
        """As the protocol says."""
        if fd not in self._user:
            return -EBADF
        os.close(fd)
        self._user.remove(fd)
        return 0

    @_judged
    def reuse_number(self, fd: int, eventfd: int | None) -> None:
        """As the protocol says."""
        if eventfd is None:
            self._place(_pipe_end(), fd)
        else:
            self._place(self._kept[eventfd], fd, keep=True)

    @_judged
    def woken(self, eventfd: int) -> bool:
        """As the protocol says. An edge-triggered waiter sees each write, but no write at saturation."""
        events = {fd for fd, _ in self._epoll.poll(0)}
        return self._kept[eventfd] in events

    def close(self) -> None:
        """As the protocol says."""
        with suppress(OSError):  # whom the candidate has closed is gone already
            self._epoll.close()
        for fd in [*self._user, *self._kept, *(fd for held in self._held for fd in held)]:
            with suppress(OSError):
                os.close(fd)
        self._user, self._kept, self._held = set(), [], []

    def _taken(self, error: Exception) -> Taken | None:
        """What the candidate did that made this fail; None where it is not known to have done anything."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit < self._limit:
            return Taken(f"lowered the number of descriptors that its process may have to {limit}")
        if isinstance(error, OSError) and error.errno == EMFILE:
            return Taken(f"opened all {limit} descriptors that its process may have")
        changed = sorted(fd for fd, eventfd in self._lent() if not self._names(fd, eventfd))
        if not changed:
            return None
        return Taken(f"closed or replaced descriptors that are not its own: {', '.join(map(str, changed))}")

    def _lent(self) -> Iterator[tuple[int, int | None]]:
        """Descriptors that are open here, and the eventfd that each names where that is fixed."""
        yield self._epoll.fileno(), None
        yield from ((fd, None) for fd in self._user)
        yield from ((fd, eventfd) for eventfd, fd in enumerate(self._kept))
        yield from ((fd, eventfd) for eventfd, held in enumerate(self._held) for fd in held)

    def _names(self, fd: int, eventfd: int | None) -> bool:
        """Whether a descriptor is open, and names that eventfd."""
        with suppress(OSError):
            os.fstat(fd)
            return eventfd is None or self._ids.get(_identity(fd)) == eventfd
        return False


def _fdinfo(fd: int, key: str, base: int) -> int:
    info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY)
    try:
        text = os.read(info, _PAGE)
    finally:
        os.close(info)
    for line in text.decode().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value, base)
    raise OSError(f"/proc/self/fdinfo/{fd} has no {key}")


def _identity(fd: int) -> int:
    """The kernel's number of the eventfd, the same through every descriptor."""
    return _fdinfo(fd, "eventfd-id", 10)


def _pipe_end() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def _null() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def _epoll_fd() -> int:
    own = select.epoll()
    fd = fcntl.fcntl(own.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
    own.close()
    return fd


def _socket_fd() -> int:
    left, right = socket.socketpair()
    right.close()
    return left.detach()
