"""A process that answers one line with one line, until it ends or is ended.

Each leads a session of its own and is killed with all that it has left there: by us, by the kernel where we are killed
(PR_SET_PDEATHSIG), and what it has started by a guard.
"""

from __future__ import annotations

import array
import atexit
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol

from conformance.processes import Guard, adopt, children, die_with, ended, runs, used

LONGEST = 4 << 20
"""Bytes of a line; the longest that a subsystem has a use for are a hundredth of that."""
MEMORY = 1 << 30
"""Bytes of memory that a process may take."""
SOON = 0.02
"""Seconds in which it answers as a rule; until then nothing else is looked at."""
TICK = 0.25
"""Seconds between two looks at how much it has."""
DYING = 3.0
"""Seconds in which a process that has closed its end must have ended."""
REMEMBERED = 64 << 10
"""Bytes kept of what it wrote to standard error, the last ones."""
TOLD = 6
"""Lines of it that are told at most."""

SHOW = "CONFORMANCE_TRACE_WIRE"
"""Environment variable: the file to which conversations are written (`--trace-wire`), `-` for standard error."""

_REPORT = re.compile(r"SUMMARY: \w+Sanitizer: .*|.*: runtime error: .*")


class Lost(Exception):
    """The process is no use any more, and has been ended; the message says what it did."""


class Silent(Lost):
    """It did not answer in time."""


class Closed(Lost):
    """It has closed its end, most likely because it has ended."""


class Process(Protocol):
    """A process that leads a session, as `subprocess.Popen` has it."""

    pid: int
    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, below 0 a signal; TimeoutExpired when it does not end."""
        ...


Start = Callable[[int, int], Process]
"""Starts a process with one descriptor as standard input and output, and one as standard error."""


def program(argv: Sequence[str]) -> Start:
    """What starts a program."""

    def start(conversation: int, err: int) -> Process:
        parent = os.getpid()
        return subprocess.Popen(  # noqa: S603 - what the user wants tested
            argv,
            stdin=conversation,
            stdout=conversation,
            stderr=err,
            start_new_session=True,
            preexec_fn=lambda: _before_exec(parent),  # noqa: PLW1509 - whoever starts it has one thread
        )

    return start


class Child:
    """One process and both ends of the conversation with it."""

    def __init__(self, start: Start) -> None:
        """Start it; OSError when it cannot be started."""
        adopt(orphans=True)
        others = frozenset(children())
        ours, theirs = socket.socketpair()
        err, theirs_err = os.pipe2(os.O_CLOEXEC)
        try:
            self.process = start(theirs.fileno(), theirs_err)
        except BaseException:  # Ctrl-C too leaves no descriptor behind; it goes on to whoever asked for the process
            ours.close()
            os.close(err)
            raise
        finally:
            theirs.close()
            os.close(theirs_err)
        self.pid = self.process.pid
        self.is_alive = True
        self.socket = ours
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, round(SOON * 1e6)))
        self.err = err
        os.set_blocking(err, False)
        self.exited = os.pidfd_open(self.pid)
        self.said = b""
        """What it wrote to standard error lately."""
        self.rest = b""
        """What has come of its next line."""
        self.poll = select.poll()
        for fd in (ours.fileno(), err, self.exited):
            self.poll.register(fd, select.POLLIN)
        self.last = weakref.finalize(self, _end, self.process, os.getpid(), ours, (err, self.exited), others)
        _guard().watch(self.pid)
        _children.add(self)

    def ask(self, line: bytes, patience: float, descriptor: int | None = None) -> bytes:
        """Say one line, without its end, and hear the answer.

        Raises:
            Lost    it has ended, or did what nobody asked it to do; it is dead now
            Silent  it did not answer within `patience` seconds; it is dead now
        """
        try:
            if self.rest:
                raise Lost(f"spoke out of turn: {shown(self.rest)}")
            self._send(line + b"\n", patience, descriptor)
            return self._receive(patience)
        except Lost as lost:
            how = type(lost)(self._told(str(lost), isinstance(lost, Closed)))
            self.end()
            raise how from None
        except BaseException:  # a watchdog's Hang, Ctrl-C: the conversation is broken off in the middle
            self.end()
            raise

    def end(self) -> None:
        """Kill it, and what it has started in its session."""
        if self.is_alive:
            self.is_alive = False
            _children.discard(self)
            self.last()

    def forget(self) -> None:
        """It belongs to the process that we were forked from."""
        self.is_alive = False
        self.last.detach()
        self.socket.close()
        os.close(self.err)
        os.close(self.exited)
        self.process.returncode = 0  # nobody waits for it here

    # -- the conversation

    def _send(self, line: bytes, patience: float, descriptor: int | None) -> None:
        sent = 0
        deadline = None
        while sent < len(line):
            try:
                if descriptor is not None:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
                    sent += self.socket.sendmsg([line], rights)
                    descriptor = None
                else:
                    sent += self.socket.send(line[sent:] if sent else line)
            except BlockingIOError:
                deadline = deadline or time.monotonic() + patience
                self._wait_to_send(deadline - time.monotonic(), patience)
            except (BrokenPipeError, ConnectionResetError):
                return  # what it has said before is heard all the same

    def _wait_to_send(self, left: float, patience: float) -> None:
        """Until it reads on; what it says meanwhile is out of turn."""
        if left <= 0:
            raise Silent(f"did not read what it was told within {patience:g} s")
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN | select.POLLOUT)
        for _, event in waiting.poll(left * 1000):
            if event & select.POLLIN:
                self._hear()
                raise Lost(f"spoke out of turn: {shown(self.rest)}")

    def _receive(self, patience: float) -> bytes:
        if self._hear(0) and self.rest.endswith(b"\n") and self.rest.find(b"\n") == len(self.rest) - 1:
            line, self.rest = self.rest[:-1], b""
            return line
        return self._receive_later(patience)

    def _receive_later(self, patience: float) -> bytes:
        deadline, before = None, 0.0
        while b"\n" not in self.rest:
            ready = self.poll.poll(TICK * 1000)
            if ready and ready[0][0] == self.socket.fileno():
                self._hear()
                if len(self.rest) > LONGEST:
                    raise Lost(f"said a line of more than {LONGEST >> 20} MiB: {shown(self.rest)}")
            elif any(fd == self.exited for fd, _ in ready):
                raise Closed
            for fd, _ in ready:
                if fd == self.err:
                    self._drain()
            now = time.monotonic()
            if deadline is None:
                deadline, before = now + patience - (0 if ready else TICK), used(self.pid)
            if now >= deadline and not (runs(self.pid) and used(self.pid) - before < patience / 2):
                raise Silent(f"did not return within {patience:g} s")  # not for want of a processor
            if not ready:
                self._weigh()
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def _hear(self, flags: int = socket.MSG_DONTWAIT) -> bool:
        """Take what it has said; False when that was nothing new. Lost when it has closed its end."""
        try:
            heard = self.socket.recv(1 << 13 if flags == 0 else 1 << 18, flags)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            heard = b""
        if not heard:
            raise Closed(f"in the middle of a line: {shown(self.rest)}" if self.rest else "")
        self.rest = self.rest + heard if self.rest else heard
        return True

    def _drain(self) -> None:
        """Keep the end of what it says on standard error, so that it never waits for us to read it."""
        try:
            said = os.read(self.err, REMEMBERED)
        except BlockingIOError:
            return
        if not said:
            self.poll.unregister(self.err)
        self.said = (self.said + said)[-REMEMBERED:]

    def _weigh(self) -> None:
        """Lost when it takes too much memory."""
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            if pages * resource.getpagesize() > MEMORY:
                raise Lost(f"took more than {MEMORY >> 20} MiB of memory")

    # -- what became of it

    def _told(self, what: str, has_closed: bool) -> str:
        """What it did, how it ended, and the last that it wrote to standard error."""
        if has_closed:
            try:
                how = ended(self.process.wait(DYING))
            except subprocess.TimeoutExpired:
                how = "it closed its standard output"
            what = f"{how} {what}".rstrip()
        return "\n".join([what, *_last_lines(self._rest_of_stderr())])

    def _rest_of_stderr(self) -> bytes:
        with suppress(OSError):
            while len(said := os.read(self.err, REMEMBERED)):
                self.said = (self.said + said)[-REMEMBERED:]
        return self.said


def shown(line: bytes) -> str:
    """The beginning of what was said, fit to be printed."""
    text = line[:80].decode("utf-8", "backslashreplace")
    return repr(text) + (f" and {len(line) - 80} bytes more" if len(line) > 80 else "")


def shower() -> Callable[[int, str, bytes], None] | None:
    """What writes down the conversations, if somebody wants to see them."""
    path = os.environ.get(SHOW)
    return _writer(path) if path else None


@cache
def _writer(path: str) -> Callable[[int, str, bytes], None]:
    fd = 2 if path == "-" else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def show(pid: int, direction: str, line: bytes) -> None:
        with suppress(OSError):
            os.write(fd, b"%d %s %s\n" % (pid, direction.encode(), line))

    return show


def _last_lines(said: bytes) -> list[str]:
    """The sanitizer's summary, if there is one, else the last lines."""
    lines = [line.rstrip()[:200] for line in said.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    reports = [line for line in lines if _REPORT.fullmatch(line)]
    return [f"  stderr: {line}" for line in (reports or lines)[-TOLD:]]


def _before_exec(parent: int) -> None:
    """In the new process: the kernel kills it with us, signals are as a program expects them, no core is left.

    Memory is not limited there but looked at here: what a sanitizer reserves is more than anybody has.
    """
    die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _end(process: Process, owner: int, ours: socket.socket, descriptors: Sequence[int], others: frozenset[int]) -> None:
    """Kill a session and what has left it, wait for its leader, and give back what we had for it."""
    if os.getpid() != owner:
        return
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _kill_strays(others)
    _guard().forget(process.pid)
    ours.close()
    for fd in descriptors:
        os.close(fd)


def _kill_strays(others: frozenset[int]) -> None:
    """Kill orphans in sessions of their own that have come to us since a process was started.

    Those that may not be killed, since they have become another user's, are left alone.
    """
    tried = set(others)
    while strays := [pid for pid in children() if pid not in tried and _is_stray(pid)]:
        tried.update(strays)
        for pid in strays:
            with suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _is_stray(pid: int) -> bool:
    """Whether a child of ours is neither of our session, nor a process under test, nor the guard."""
    if pid == _guard().process.pid or any(child.pid == pid for child in _children):
        return False
    with suppress(ProcessLookupError):
        return os.getsid(pid) != os.getsid(0)
    return False


_children: weakref.WeakSet[Child] = weakref.WeakSet()


@cache
def _guard() -> Guard:
    """What kills the sessions of our children once we are gone."""
    made = Guard()
    atexit.register(made.end)
    return made


def _after_fork() -> None:
    """A fork has its own children and its own guard."""
    if _guard.cache_info().currsize:
        _guard().abandon()
        _guard.cache_clear()
    for child in list(_children):
        child.forget()
        _children.discard(child)


os.register_at_fork(after_in_child=_after_fork)
