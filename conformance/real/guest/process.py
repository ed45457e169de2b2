"""Descriptors of the process in the guest, under the numbers that the model of uio_msi gives them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from conformance.model.uio_msi.operations import (
    DECOY_COUNT,
    DUP_FD,
    FIRST_FD,
    NOT_EVENTFDS,
    O_PATH_FD,
    Config,
)
from conformance.real.guest.channel import O_CLOEXEC, O_NONBLOCK, O_PATH, O_RDONLY, Back, Channel, call, opening
from conformance.verdict import HarnessError

_EFD_SEMAPHORE = 1
_EAGAIN = -11
_FIRST_KEPT = 520
"""Descriptors from here on are the adapter's own."""


@dataclass(slots=True)
class Files:
    """The eventfds of a configuration. A second descriptor of each, kept aside, shows its counter while it lives."""

    channel: Channel
    config: Config
    kept: list[int] = field(default_factory=list)
    """By eventfd, the decoy last."""
    shown: list[int] = field(default_factory=list)
    """The fdinfo of each."""
    semaphore: list[bool] = field(default_factory=list)
    named: dict[int, int] = field(default_factory=dict)
    """User fd -> eventfd, or -1 for something else."""

    def __post_init__(self) -> None:
        """All in one turn, so each descriptor gets a number that is known before."""
        self.named = {FIRST_FD + index: index for index in range(len(self.config.eventfds))} | {DUP_FD: 0}
        made = [(e.semaphore, e.nonblock, e.count) for e in self.config.eventfds] + [(False, True, DECOY_COUNT)]
        lines: list[str] = []
        for index, (semaphore, nonblock, count) in enumerate(made):
            kept = _FIRST_KEPT + 2 * index
            self.kept.append(kept)
            self.shown.append(kept + 1)
            self.semaphore.append(semaphore)
            flags = (_EFD_SEMAPHORE if semaphore else 0) | (O_NONBLOCK if nonblock else 0)
            lines += [*_moved(call("eventfd2", 0, flags), kept), call("write", kept, struct.pack("<Q", count), 8)]
            lines += _moved(opening(f"/proc/self/fdinfo/{kept}", O_RDONLY), kept + 1)
        lines += [call("dup3", self.kept[eventfd], number, 0) for number, eventfd in self.named.items()]
        pipe, null, epoll, _device = NOT_EVENTFDS
        lines += _moved(opening("/dev/null", O_RDONLY), null)
        lines += _moved(call("epoll_create1", 0), epoll)
        lines += _moved(opening(f"/proc/self/fd/{self.kept[0]}", O_PATH), O_PATH_FD)
        self.channel.must_all(lines)
        self.reuse(pipe, pipe=True)
        self.named |= dict.fromkeys((null, epoll, O_PATH_FD), -1)

    def _name(self, number: int, eventfd: int) -> None:
        self.channel.must(call("dup3", self.kept[eventfd], number, 0))
        self.named[number] = eventfd

    def _pipe(self) -> int:
        answer = self.channel.one(call("pipe2", bytes(8), 0))
        reading, writing = struct.unpack("<ii", answer.data[0])
        self.channel.must(call("close", writing))
        return int(reading)

    def name_device(self, fd: int) -> str:
        """The request by which the device's own descriptor is among those that are no eventfds."""
        self.named[NOT_EVENTFDS[3]] = -1
        return call("dup3", fd, NOT_EVENTFDS[3], O_CLOEXEC)

    def forget_device(self) -> None:
        """It is closed; something else that is no eventfd takes its place."""
        self.channel.must(call("dup3", NOT_EVENTFDS[1], NOT_EVENTFDS[3], O_CLOEXEC))

    def close_number(self, fd: int) -> int:
        """User space closes a descriptor. 0 or -EBADF."""
        self.named.pop(fd, None)
        return self.channel.one(call("close", fd)).value

    def reuse(self, fd: int, pipe: bool) -> int:
        """Another thing takes a number. 0."""
        if pipe:
            reading = self._pipe()
            self.channel.must_all([call("dup3", reading, fd, 0), call("close", reading)])
            self.named[fd] = -1
        else:
            self._name(fd, len(self.config.eventfds))
        return 0

    def read(self, fd: int) -> int:
        """Read an eventfd; what was taken, or -EAGAIN where nothing can be, whether or not the read would block."""
        ready = self.channel.one(call("poll", struct.pack("<ihh", fd, 1, 0), 1, 0))
        if not ready.value or not struct.unpack("<ihh", ready.data[0])[2] & 1:
            return _EAGAIN
        answer = self.channel.one(call("read", fd, bytes(8), 8))
        return int(struct.unpack("<Q", answer.data[0])[0]) if answer.value == 8 else answer.value

    def read_ready(self, fd: int) -> int:
        """Read an eventfd that something is on its way to, in one turn."""
        poll, read = self.channel.ask(self.reading(fd))
        return int(struct.unpack("<Q", read.data[0])[0]) if poll.value == 1 else _EAGAIN

    def reading(self, fd: int) -> list[str]:
        """The requests that wait a second for an eventfd, and read it."""
        return [call("poll", struct.pack("<ihh", fd, 1, 0), 1, 1000), call("read", fd, bytes(8), 8)]

    def looks(self) -> list[str]:
        """Requests whose answers are the counters."""
        return [call("pread", fd, bytes(256), 256, 0) for fd in self.shown]

    def close(self) -> None:
        """Close all of it."""
        self.channel.ask([call("close", fd) for fd in (*self.kept, *self.shown, *self.named)])


def _moved(making: str, number: int) -> list[str]:
    """The requests that give what is made this number."""
    return [making, call("dup3", Back(1), number, 0), call("close", Back(2))]


def counter(shown: bytes) -> int:
    """The counter in the fdinfo of an eventfd."""
    for line in shown.split(b"\n"):
        if line.startswith(b"eventfd-count:"):
            return int(line.split(b":")[1].split(b"\0")[0], 16)
    raise HarnessError(f"no counter in the fdinfo of an eventfd: {shown[:80]!r}")
