"""What passes between harness and candidate in a trace: entries, the calls made in them, and entries made in these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from conformance.candidates.load import load
from conformance.environment.door import Foreign
from conformance.lockstep import Lockstep
from conformance.runs.replaying import Replay
from conformance.runs.watchdog import watching
from conformance.runs.workers import Tell
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace


@dataclass(slots=True)
class Call:
    """One environment call."""

    name: str
    args: tuple[Any, ...]
    result: Any = None
    entries: list[Entry] = field(default_factory=list)
    """Entries in the middle of it: handlers."""


@dataclass(slots=True)
class Entry:
    """One entry into the candidate."""

    name: str
    args: tuple[Any, ...]
    result: Any = None
    calls: list[Call] = field(default_factory=list)


class Recorder:
    """Stands between a candidate and its port, and writes down what passes."""

    def __init__(self, factory: Callable[[Any], Any]) -> None:
        self.factory = factory
        self.open: list[Entry | Call] = []
        self.entries: list[Entry] = []
        """Those that nothing is around, since the last step."""

    def __call__(self, port: Any) -> Any:
        """The candidate's object."""
        driver = self.factory(_Port(self, port))
        return (_ForeignDriver if isinstance(driver, Foreign) else _Driver)(self, driver)

    def taken(self) -> list[Entry]:
        """The entries of a step."""
        taken, self.entries, self.open = self.entries, [], []
        return taken

    def enter(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Write down an entry."""
        entry = Entry(name, args)
        around = self.open[-1] if self.open else None
        (around.entries if isinstance(around, Call) else self.entries).append(entry)
        self.open.append(entry)
        entry.result = function(*args)
        self.open.pop()
        return entry.result

    def call(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Write down a call; one made from the constructor belongs to no entry."""
        call = Call(name, args)
        around = self.open[-1] if self.open else None
        if isinstance(around, Entry):
            around.calls.append(call)
        self.open.append(call)
        call.result = function(*args)
        self.open.pop()
        return call.result


class _Port:
    def __init__(self, recorder: Recorder, port: Any) -> None:
        self._recorder = recorder
        self._port = port

    def __getattr__(self, name: str) -> Any:
        recorder, function = self._recorder, getattr(self._port, name)
        return (lambda *args: recorder.call(name, function, args)) if callable(function) else function


class _Driver:
    def __init__(self, recorder: Recorder, driver: Any) -> None:
        self._recorder = recorder
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        recorder, function = self._recorder, getattr(self._driver, name)
        return (lambda *args: recorder.enter(name, function, args)) if callable(function) else function


class _ForeignDriver(_Driver, Foreign):
    """The door tells it when it is needed no more, which is no entry point."""

    def dismissed(self) -> None:
        self._driver.dismissed()


def recorded(of: Subsystem, trace: Trace, factory: Callable[[Any], Any]) -> list[list[Entry]]:
    """The entries of each step, up to a failure; those of the world's start come first."""
    recorder = Recorder(factory)
    lockstep = Lockstep(of, trace, recorder)
    steps = [recorder.taken()]
    try:
        for step in trace.steps:
            if lockstep.failure is None and lockstep.legal(step.op):
                lockstep.step(step)
                steps.append(recorder.taken())
    finally:
        lockstep.close()
    return steps


def recorded_job(job: Replay, _tell: Tell) -> list[list[Entry]]:
    """The same, in any process."""
    candidate = load(job.spec, subsystem(job.trace.subsystem))
    of = candidate.part(subsystem(job.trace.subsystem))
    with watching():
        return recorded(of, job.trace, candidate.factory)
