"""Processes for the tests of the wire: forks of the test, which know all that it has imported."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.child import Child, Start
from conformance.candidates.defect import Defect
from conformance.candidates.load import Candidate, from_class
from conformance.candidates.process import Driver
from conformance.model.step import Step
from conformance.model.uio_msi.operations import Open, Probe
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace
from conformance.wire.serve import speak

UIO = subsystem("uio_msi")
OPENED = Trace("uio_msi", "upstream", UIO.configs[0], (Step(Probe()), Step(Open()), Step(Open())))


class Forked:
    """A fork that leads a session."""

    def __init__(self, candidate: Candidate, of: Subsystem, conversation: int, err: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            with suppress(BaseException):
                os.setsid()
                os.dup2(conversation, 0)
                os.dup2(conversation, 1)
                os.dup2(err, 2)
                os.closerange(3, 512)
                signal.setitimer(signal.ITIMER_REAL, 0)
                for number in (signal.SIGALRM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                speak(candidate, of, 0, 1)
            os._exit(0)

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen` has it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
        return self.returncode


def forked(kind: type, of: Subsystem) -> Start:
    """What starts a process that serves a Python class."""
    candidate = from_class(kind, of, kind.__name__)
    return lambda conversation, err: Forked(candidate, of, conversation, err)


def as_process(kind: type, of: Subsystem) -> Candidate:
    """A Python class as a candidate that is a process."""
    start = forked(kind, of)
    driver = Driver(kind.__name__, of, lambda: Child(start))
    return Candidate(kind.__name__, driver, driver.profile, driver.capabilities)


class Zoo:
    """Any of several classes that have the same entry points, in one process: the one chosen when a trace begins."""

    def __init__(self, kinds: Sequence[type], like: Defect, of: Subsystem) -> None:
        self.kinds = kinds
        self.index = index = mmap.mmap(-1, 8)
        """Of the one that is chosen, in memory that the process shares."""
        assert like.candidate is not None

        class Chosen(like.candidate):
            def __new__(cls, port: object) -> object:
                return kinds[int.from_bytes(index[:8], "little")](port)

        self.factory = as_process(Chosen, of).factory

    def chosen(self, kind: type) -> Callable[[Any], Any]:
        """The factory, which makes instances of this class from now on."""
        self.index[:8] = self.kinds.index(kind).to_bytes(8, "little")
        return self.factory

    def end(self) -> None:
        """End the process."""
        self.factory.end()


def opening(misdeed: Callable[[], Any]) -> type:
    """A driver that is right but in `open`."""

    class Wild(Upstream):
        def open(self) -> int:
            return misdeed() or 0

    return Wild
