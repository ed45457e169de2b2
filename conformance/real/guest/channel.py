"""System calls into a guest, one line each way; several lines at once cost one turn."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from conformance.verdict import Crash, Hang, HarnessError

PATIENCE = 60.0
"""Seconds that an answer may take; an emulated processor on a crowded machine is slow."""
SYS = {
    "read": 0, "write": 1, "close": 3, "lseek": 8, "mmap": 9, "munmap": 11, "ioctl": 16, "pread": 17, "pwrite": 18,
    "pipe2": 293, "dup": 32, "madvise": 28, "openat": 257, "eventfd2": 290, "ftruncate": 77, "memfd_create": 319,
    "poll": 7, "epoll_create1": 291, "sched_setaffinity": 203, "getpid": 39, "fcntl": 72, "dup3": 292, "access": 21,
    "readlink": 89,
    "setitimer": 38,
}  # fmt: skip
"""Numbers of the system calls, x86-64."""
AT_FDCWD = 2**64 - 100
O_RDONLY, O_RDWR, O_NONBLOCK, O_SYNC, O_CLOEXEC, O_PATH = 0, 2, 0o4000, 0o4010000, 0o2000000, 0o10000000


class Gone(Crash):
    """Nobody is at the other end any more: the guest has ended, of whatever."""


class Answer(NamedTuple):
    """What the guest said."""

    value: int
    """Result; negative: an errno."""
    data: tuple[bytes, ...]
    """The buffers of the request as the call left them, in order; the memory that was read."""


class Back(NamedTuple):
    """In place of a number: what the request so many before this one gave, of the same `ask`."""

    ago: int
    plus: int = 0

    def __str__(self) -> str:
        return f"@{self.ago}+{self.plus}" if self.plus else f"@{self.ago}"


def call(name: str, *args: int | bytes | str | Back) -> str:
    """A system call as a line: numbers, buffers that come back, and strings without blanks."""
    return " ".join(("s", str(SYS[name]), *map(_word, args)))


def opening(path: str, flags: int) -> str:
    """Open a file."""
    return call("openat", AT_FDCWD, path, flags, 0o600)


def within(seconds: float, line: str) -> list[str]:
    """The requests that make a call and end it with a signal after so long; the answer of the call is the second."""
    microseconds = int(seconds * 1_000_000)
    begin, end = (struct.pack("<4q", 0, 0, us // 1_000_000, us % 1_000_000) for us in (microseconds, 0))
    return [call("setitimer", 0, begin, 0), line, call("setitimer", 0, end, 0)]


def storing(path: str, content: bytes) -> str:
    """Write to a file of sysfs; the result is the number of bytes."""
    return f"e {path} {content.hex()}"


def _word(value: int | bytes | str | Back) -> str:
    if isinstance(value, bytes):
        return "#" + value.hex()
    if isinstance(value, str):
        return "=" + value
    return str(value) if isinstance(value, Back) else str(value & (2**64 - 1))


class Channel:
    """The socket that leads to the helper. Every wait ends: in an answer, `Gone` or a `Hang`."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.rest = b""
        self.is_open = True
        """Whether anything can be asked."""

    def ask(self, lines: Sequence[str], patience: float = PATIENCE) -> list[Answer]:
        """Send requests, and wait for the answers to all of them.

        After a `Hang` nothing more is asked: an answer that comes late would be taken for the next one's.

        Raises:
            Gone  the guest has ended
            Hang  it does not answer
        """
        try:
            self.socket.settimeout(patience)
            self.socket.sendall(("\n".join(lines) + "\n").encode())
            return [_answer(line) for line in self._lines(len(lines))]
        except TimeoutError:
            self.close()
            raise Hang(f"the guest does not answer within {patience:g} s: {lines[0][:80]}") from None
        except OSError as error:
            self.close()
            raise Gone(f"the guest is gone: {error}") from None

    def close(self) -> None:
        """Ask nothing more."""
        self.is_open = False
        self.socket.close()

    def one(self, line: str, patience: float = PATIENCE) -> Answer:
        """One request."""
        return self.ask([line], patience)[0]

    def must(self, line: str) -> int:
        """The result of a request that nothing should refuse.

        Raises:
            HarnessError  it is refused
        """
        return self.must_all([line])[0].value

    def must_all(self, lines: Sequence[str]) -> list[Answer]:
        """The answers to requests that nothing should refuse.

        Raises:
            HarnessError  one is refused
        """
        answers = self.ask(lines)
        for line, answer in zip(lines, answers, strict=True):
            if answer.value < 0:
                raise HarnessError(f"the guest refused {line[:80]}: {answer.value}")
        return answers

    def _lines(self, n: int) -> list[bytes]:
        have: list[bytes] = []
        while len(have) < n:
            whole, newline, rest = self.rest.partition(b"\n")
            if newline:
                have.append(whole)
                self.rest = rest
                continue
            more = self.socket.recv(1 << 18)
            if not more:
                raise ConnectionError("its emulator has ended")
            self.rest += more
        return have


def _answer(line: bytes) -> Answer:
    value, *data = line.split()
    return Answer(int(value), tuple(bytes.fromhex(part.decode()) for part in data))
