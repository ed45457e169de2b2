"""Any Python candidate as a process: `python -m conformance.wire.serve SUBSYSTEM CANDIDATE`.

It shows what the protocol asks of a driver, and that a candidate is judged alike in both forms. Each operation runs on
a greenlet of its own, which waits in its environment calls.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from greenlet import getcurrent, greenlet

from conformance.candidates.load import Candidate, load
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import UsageError
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
    read_from_suite,
)
from conformance.wire.values import from_json, methods, plain

Say = Callable[[FromDriver], None]


class Left(BaseException):
    """Raised in an operation that is to be left; no Exception, so that a candidate's handlers let it pass."""


class Server:
    """Instances of one candidate, and the operations in flight."""

    def __init__(self, candidate: Candidate, of: Subsystem, say: Say) -> None:
        self.candidate = candidate
        self.of = of
        self.say = say
        self.instances: dict[int, Any] = {}
        self.operations: dict[int, greenlet] = {}
        self.main = getcurrent()
        calls = {name: _call(name, from_json(method.result)) for name, method in methods(of.port).items()}
        self.port: type[_Port] = type("Port", (_Port,), calls)
        self.arguments = {name: method.arguments_from_json() for name, method in entries_of(of).items()}

    def hear(self, message: ToDriver) -> None:
        """Do what one message asks for; the answer has been said when this returns."""
        match message:
            case Greeting():
                self.say(self.hello())
            case Create(op=op, instance=number):
                self._begin(op, lambda: self._create(number))
            case Enter(op=op, instance=number, name=name, args=args):
                self._begin(op, lambda: self._enter(number, name, args))
            case Result(op=op, value=value):
                self.operations[op].switch(value)
            case Stop(op=op):
                self.operations[op].throw(Left)
            case Destroy(op=op, instance=number):
                self.instances.pop(number, None)
                self.say(Return(op))

    def hello(self) -> Hello:
        """What the candidate declares."""
        kind = self.candidate.factory
        return Hello(
            protocol=PROTOCOL,
            name=kind.__name__,
            subsystem=self.of.name,
            entries=[name for name in self.arguments if hasattr(kind, name)],
            profile=self.candidate.profile,
            capabilities=sorted(self.candidate.capabilities),
        )

    def _begin(self, op: int, work: Callable[[], Any]) -> None:
        def operation() -> None:
            answer: FromDriver
            try:
                answer = Return(op, plain(work()))
            except Left:
                answer = Stopped(op)
            except BaseException as error:  # whatever it is, it is told as what it is
                answer = Raise(op, _described(error))
            del self.operations[op]
            self.say(answer)

        self.operations[op] = thread = greenlet(operation, self.main)
        thread.switch()

    def _create(self, number: int) -> None:
        self.instances[number] = self.candidate.factory(self.port(self))

    def _enter(self, number: int, name: str, args: list[Any]) -> Any:
        instance = self.instances[number]
        return getattr(instance, name)(*self.arguments[name](args))

    def call(self, name: str, args: tuple[Any, ...]) -> Any:
        """Make an environment call in the operation that runs, and wait for its result."""
        me = getcurrent()
        op = next(op for op, thread in self.operations.items() if thread is me)
        self.say(Call(op, name, [plain(arg) for arg in args]))
        return self.main.switch()


class _Port:
    """What a candidate holds: a method for each environment call."""

    def __init__(self, server: Server) -> None:
        self.server = server


def _call(name: str, result: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(self: _Port, *args: Any) -> Any:
        return result(self.server.call(name, args))

    call.__name__ = name
    return call


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def lines(fd: int) -> Iterator[bytes]:
    """The lines that come through a descriptor."""
    rest = b""
    while read := os.read(fd, 1 << 18):
        *whole, rest = (rest + read).split(b"\n")
        yield from whole


def speak(candidate: Candidate, of: Subsystem, heard: int, said: int) -> None:
    """Serve a candidate until nobody asks any more."""

    def say(message: FromDriver) -> None:
        text = encode(message) + b"\n"
        while text:
            text = text[os.write(said, text) :]

    server = Server(candidate, of, say)
    for line in lines(heard):
        server.hear(read_from_suite(line))


def main(arguments: list[str]) -> int:
    """Serve the candidate that the arguments name over standard input and output."""
    if len(arguments) != 2:
        print("usage: python -m conformance.wire.serve SUBSYSTEM CANDIDATE", file=sys.stderr)
        return 2
    said = os.dup(1)
    os.dup2(2, 1)  # what a candidate prints is no message
    try:
        of = subsystem(arguments[0])
        candidate = load(arguments[1], of)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    speak(candidate, of, 0, said)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
