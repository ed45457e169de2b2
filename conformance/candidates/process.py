"""`cmd:COMMAND`: a candidate that is a process, which speaks JSON over its standard input and output.

The process is started once and serves one instance after the other; only one that misbehaved, or that wants it so, is
replaced before the next trace. Whatever it does is a breach of the operation in which it does it.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from conformance.candidates.child import Child, Lost, Silent, program, shower, shown
from conformance.candidates.promised import check_capabilities, check_profile, entry_points, nearest, usual
from conformance.environment.door import Environment, Foreign
from conformance.subsystem import Subsystem
from conformance.verdict import Crash, Hang, UsageError
from conformance.wire.entries import entries_of
from conformance.wire.messages import (
    PROTOCOL,
    Call,
    Create,
    Destroy,
    Enter,
    FromDriver,
    Greeting,
    Hello,
    Raise,
    Result,
    Return,
    Stop,
    Stopped,
    ToDriver,
    encode,
    read_from_driver,
)
from conformance.wire.values import Method, from_json, methods, to_json

LOADING = 20.0
"""Seconds in which a process must have said hello."""
PATIENCE = 5.0
"""Seconds in which it must answer."""
IMPATIENCE = 1.0
"""Seconds from the second time on: it is known to hang."""
Start = Callable[[], Child]


def load_command(spec: str, command: str, of: Subsystem) -> Driver:
    """Start the process of `cmd:COMMAND` and hear what it says of itself.

    Raises:
        UsageError  there is no such program, it does not say hello, or what it says of itself cannot be
    """
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--candidate={spec}: {error}") from None
    if not argv:
        raise UsageError(f"--candidate={spec}: expected cmd:PROGRAM ARGUMENT…")
    found = shutil.which(argv[0])
    if found is None:
        what = "cannot be executed" if Path(argv[0]).is_file() else "there is no such program"
        raise UsageError(f"--candidate={spec}: {argv[0]}: {what}")
    return Driver(spec, of, lambda: Child(program([found, *argv[1:]])))


class Driver:
    """What makes instances of a candidate that lives in a process: its factory."""

    def __init__(self, spec: str, of: Subsystem, start: Start) -> None:
        self.spec = spec
        self.of = of
        self.start = start
        self.patience = PATIENCE
        self.child: Child | None = None
        """The process; None where the next instance needs a new one."""
        self.last_op = 0
        self.last_instance = 0
        self.left: list[int] = []
        """Instances that nobody has any more, of which the process has not been told."""
        self.show = shower()
        try:
            self.hello = self._greeted()
        except (Lost, OSError) as error:
            raise UsageError(f"--candidate={spec}: {error}") from None
        self._check(self.hello)
        self.__name__ = self.hello.name
        self.kind: type[Instance] = _class_of(self.hello, of)
        self.calls = {name: _Way(method) for name, method in methods(of.port).items()}

    @property
    def profile(self) -> str:
        """The one it declares."""
        return self.hello.profile or self.of.default_profile

    @property
    def capabilities(self) -> frozenset[str]:
        """Those that it declares, or the usual ones."""
        declared = self.hello.capabilities
        return usual(self.of) if declared is None else frozenset(declared)

    def __call__(self, port: Any) -> Instance:
        """A new instance, in a fresh process where it wants one or the last one is gone."""
        child = self._living()
        self.last_instance += 1
        instance = self.kind(self, child, self.last_instance, port)
        for number in self._forgotten():
            instance.perform("destroy", Destroy, number)
        instance.perform("create", Create, instance.number)
        return instance

    def end(self) -> None:
        """End the process."""
        if self.child is not None:
            self.child.end()
            self.child = None

    def ask(
        self, child: Child, message: ToDriver, descriptor: int | None = None, patience: float | None = None
    ) -> FromDriver:
        """Say one thing to the process and hear the answer.

        Raises:
            Crash  it has ended, or what it said is none of the messages
            Hang   it did not answer
        """
        if not child.is_alive:
            raise Crash("its process has ended in the middle of another operation")
        line = encode(message)
        if self.show is not None:
            self.show(child.pid, ">", line)
        try:
            answer = child.ask(line, patience or self.patience, descriptor)
        except Silent as silent:
            self.patience = self.patience if patience else IMPATIENCE
            raise Hang(str(silent)) from None
        except Lost as lost:
            raise Crash(str(lost)) from None
        if self.show is not None:
            self.show(child.pid, "<", answer)
        try:
            return read_from_driver(answer)
        except (msgspec.DecodeError, RecursionError) as error:
            child.end()
            raise Crash(f"said what is no message: {shown(answer)} ({error})") from None

    def _living(self) -> Child:
        """The process, started anew where there is none."""
        if self.child is None or not self.child.is_alive or self.hello.restart:
            try:
                told = self._greeted()
            except (Lost, OSError) as error:
                raise Crash(f"a new process could not be started: {error}") from None
            if told != self.hello:
                raise Crash(f"said of itself {told}, and {self.hello} before")
        assert self.child is not None
        return self.child

    def _greeted(self) -> Hello:
        """Start a process and hear what it says of itself."""
        self.left = []
        self.child = child = self.start()
        line = encode(Greeting(PROTOCOL, self.of.name))
        if self.show is not None:
            self.show(child.pid, ">", line)
        try:
            answer = child.ask(line, LOADING)
        except Silent as silent:
            raise Lost(f"did not say hello within {LOADING:g} s{_after_first_line(silent)}") from None
        if self.show is not None:
            self.show(child.pid, "<", answer)
        try:
            return msgspec.json.decode(answer, type=Hello)
        except (msgspec.DecodeError, RecursionError) as error:
            child.end()
            raise Lost(f"did not say hello, but {shown(answer)} ({error})") from None

    def _check(self, hello: Hello) -> None:
        """UsageError when what it says of itself cannot be."""
        of, spec = self.of, self.spec
        try:
            if hello.protocol != PROTOCOL:
                raise UsageError(f"--candidate={spec}: speaks protocol {hello.protocol}, this is protocol {PROTOCOL}")
            if hello.subsystem != of.name:
                raise UsageError(f"--candidate={spec}: implements {hello.subsystem!r}, expected {of.name!r}")
            _check_entries(spec, hello, of)
        except UsageError:
            self.end()
            raise

    def _forgotten(self) -> list[int]:
        left, self.left = self.left, []
        return left


class _Way:
    """How the arguments and the result of one environment call are translated."""

    __slots__ = ("arguments", "name", "result")

    def __init__(self, method: Method) -> None:
        self.name = method.name
        self.arguments = method.arguments_from_json()
        self.result = to_json(method.result)


class Instance(Foreign):
    """One instance in the process: what the harness calls; a subclass has a method for each entry point it has."""

    def __init__(self, driver: Driver, child: Child, number: int, port: Any) -> None:
        self.driver = driver
        self.child = child
        self.number = number
        self.port = port
        self.world: Environment = port._env

    def dismissed(self) -> None:
        """The trace is over: the process may forget it."""
        number, self.number = self.number, 0
        if number and self.child.is_alive:
            self.perform("destroy", Destroy, number)
        if self.driver.hello.restart:
            self.child.end()

    def __del__(self) -> None:
        """Nobody has it any more, though no trace has ended; the process is told when there is occasion."""
        if self.number and self.child is self.driver.child:
            self.driver.left.append(self.number)

    def perform(self, name: str, message: Callable[..., ToDriver], *told: Any) -> Any:
        """Say something that begins an operation, and do what the process asks for until it has ended."""
        driver, child = self.driver, self.child
        driver.last_op = op = driver.last_op + 1
        scheduler = self.world.scheduler
        thread = 0 if scheduler is None else scheduler.running
        answer = driver.ask(child, message(op, thread, *told))
        while True:
            if isinstance(answer, Call) and answer.op == op:
                answer = self._called(answer, op, thread)
            elif isinstance(answer, Return) and answer.op == op:
                return answer.value
            elif isinstance(answer, Raise) and answer.op == op:
                raise Crash(f"{name} raised {answer.error}")
            else:
                child.end()
                raise Crash(f"spoke out of turn: {shown(encode(answer))}, where operation {op} was to go on")

    def _called(self, call: Call, op: int, thread: int) -> FromDriver:
        """Make an environment call for the process, and hear what it says to the result."""
        driver, child = self.driver, self.child
        Environment.heard += 1  # it is not stuck: patience is for each answer, and calls have a budget of their own
        try:
            way = driver.calls.get(call.name)
            if way is None:
                raise Crash(f"asked for {call.name[:80]!r}, and there is no such environment call")
            args = way.arguments(call.args)
            value = getattr(self.port, call.name)(*args)
            result = Result(op, thread, way.result(value))
            descriptor = None
            if driver.hello.descriptors:
                descriptor = self.world.descriptor(call.name, value)
                result.descriptor = descriptor is not None
        except BaseException:  # the operation ends here, whatever it is: a breach, or the end of the other thread
            self._stop(op, thread)
            raise
        return driver.ask(child, result, descriptor)

    def _stop(self, op: int, thread: int) -> None:
        """Have the process leave an operation in the middle; it is ended where it does not."""
        driver, child = self.driver, self.child
        if driver.hello.restart:
            child.end()
        if not child.is_alive:
            return
        try:
            answer = driver.ask(child, Stop(op, thread), patience=IMPATIENCE)
        except (Crash, Hang):
            return  # the breach that ends the operation came first
        if not (type(answer) is Stopped and answer.op == op):
            child.end()


def _class_of(hello: Hello, of: Subsystem) -> type[Instance]:
    """A class with a method for each entry point that the process has."""
    known = entries_of(of)
    own = {name: _entry(known[name]) for name in hello.entries}
    return type(hello.name, (Instance,), own)


def _entry(method: Method) -> Callable[..., Any]:
    name = method.name
    arguments, result = method.arguments_to_json(), from_json(method.result)

    def enter(self: Instance, *args: Any) -> Any:
        return result(self.perform(name, Enter, self.number, name, arguments(args)))

    enter.__name__ = name
    return enter


def _check_entries(spec: str, hello: Hello, of: Subsystem) -> None:
    """Every entry point is known, and those are there that its capabilities need."""
    known = entries_of(of)
    for name in hello.entries:
        if name not in known:
            raise UsageError(f"--candidate={spec}: {of.name} has no entry point {name!r}{nearest(name, known)}")
    if hello.profile is not None:
        check_profile(f"--candidate={spec}: profile", hello.profile, of)
    declared = usual(of) if hello.capabilities is None else check_capabilities(spec, hello.capabilities, of)
    for name, _, capability in entry_points(of, declared):
        if name not in hello.entries:
            hint = "" if capability is None else f"; add it, or declare capabilities without {capability!r}"
            raise UsageError(f"--candidate={spec}: {hello.name} has no entry point {name!r}{hint}")


def _after_first_line(error: Exception) -> str:
    """The lines of a message after its first."""
    text = str(error)
    return text[text.index("\n") :] if "\n" in text else ""
