"""The two tables at run time: environment calls that C makes, and entry points that Python calls.

A breach of a clause is an exception in Python, which must not pass through frames of C. So the first one is kept, C is
left by a jump (`modes.py`) or, where callbacks serve, does nothing more by any environment call; then it is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from conformance.abi.convert import (
    arguments_from_c,
    arguments_to_c,
    no_results,
    results_from_c,
    results_to_c,
)
from conformance.abi.header import Header
from conformance.abi.plan import Kind, Plan, of_subsystem
from conformance.abi.source import refusal as refusal_of
from conformance.subsystem import Subsystem
from conformance.verdict import Breach, Crash, HarnessError


class Live:
    """What environment calls of one driver in C come to."""

    __slots__ = ("port", "raised", "world")

    def __init__(self, port: Any) -> None:
        self.port = port
        self.world: Any = None
        """`struct conformance_world` of the compiled module, once a call by cffi has met it."""
        self.raised: BaseException | None = None
        """The first exception out of an environment call; nothing more is done after it."""

    def fail(self, name: str, error: BaseException) -> None:
        """Keep what an environment call raised, and have C left where that can be."""
        if self.raised is None:
            if isinstance(error, RuntimeError | TypeError):
                error = Crash(f"{name}: a pointer is NULL, or an argument out of range: {error}", "type")
            elif isinstance(error, OverflowError):
                error = HarnessError(f"{name}: the header's types are too narrow for the result: {error}")
            self.raised = error
        if self.world is not None:
            self.world.raised = 1

    def narrow(self, name: str) -> None:
        """The arguments of an entry point do not fit."""
        raise HarnessError(f"{name}: the header's types are too narrow for the arguments")


class Binding:
    """The ABI of one subsystem, ready for its libraries.

    `ffi` reads and writes memory; `enter(name)` gives a function of the driver's table and the arguments in C;
    `serve(name, function)` has an environment call answered.
    """

    def __init__(self, header: Header, of: Subsystem, ffi: Any) -> None:
        self.header = header
        self.ffi = ffi
        self.calls, self.entries = of_subsystem(header, of)
        self.lost: list[BaseException] = []
        """Errors that cffi met after an environment call, so that nobody else knows of them."""
        self.env: Any = None
        """The table of environment calls."""
        self.new: Callable[..., Any] | None = None
        """Makes a driver by the compiled module; None with callbacks."""
        self.live: Callable[[int], Live] | None = None
        """Finds by the compiled module what an address of `world` stands for; None with callbacks."""

    def live_of(self) -> Callable[[Any], Live]:
        """Finds what `world` stands for."""
        if self.live is None:
            of_handle: Callable[[Any], Live] = self.ffi.from_handle
            return of_handle
        cast, look, pointer = self.ffi.cast, self.live, self.ffi.typeof("struct conformance_world *")

        def find(world: Any) -> Live:
            live: Live = look(int(cast("uintptr_t", world)))
            live.world = cast(pointer, world)
            return live

        return find

    def answer(self, plan: Plan) -> Callable[..., Any]:
        """What answers one environment call: a Python function of `world` and the arguments in C."""
        name = plan.name
        live_of = self.live_of()
        refusal = None if plan.returned is None else refusal_of(plan)
        call = attrgetter(f"port.{name}")

        def failed(live: Live, error: BaseException | None) -> Any:
            if error is not None:
                live.fail(name, error)
            return refusal

        if plan.is_simple:
            return _answer_of_numbers(live_of, call, failed)
        if [value.kind for value in plan.arguments] == [Kind.TEXT] and not plan.outs:
            return _answer_of_text(self.ffi, live_of, call, failed)
        take, give = arguments_from_c(self.ffi, plan), results_to_c(self.ffi, plan)
        give_nothing = no_results(plan)
        first = sum(value.width for value in plan.arguments)

        def converted(world: Any, *given: Any) -> Any:
            live = live_of(world)
            error = None
            if live.raised is None:
                try:
                    return give(call(live)(*take(given)), given[first:])
                except BaseException as raised:  # kept until C has returned
                    error = raised
            give_nothing(given[first:])
            return failed(live, error)

        return converted

    def missed(self, _kind: Any, error: BaseException, traceback: Any) -> None:
        """Told by cffi of an error outside of what `answer` guards: a result that its type cannot hold, a signal."""
        world = None if traceback is None else traceback.tb_frame.f_locals.get("world")
        if world is None:
            self.lost.append(error)
        else:
            self.live_of()(world).fail("an environment call", error)

    def method(self, plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
        """One entry point as a method of `Driver`; `function` takes `self` and the arguments in C."""
        lost = self.lost
        if plan.is_simple:

            def simple(driver: Driver, *arguments: Any) -> Any:
                try:
                    result = function(driver.pointer, *arguments)
                except OverflowError as error:
                    raise HarnessError(f"{plan.name}{arguments!r}: the header's types are too narrow") from error
                if lost or driver.live.raised is not None:
                    driver.leave(lost)
                return result

            method = simple
        else:
            to_c, call = arguments_to_c(self.ffi, plan), results_from_c(self.ffi, plan)

            def converted(driver: Driver, *arguments: Any) -> Any:
                alive: list[Any] = []
                try:
                    result = call(function, [driver.pointer, *to_c(arguments, alive)])
                except OverflowError as error:
                    raise HarnessError(f"{plan.name}{arguments!r}: the header's types are too narrow") from error
                if lost or driver.live.raised is not None:
                    driver.leave(lost)
                return result

            method = converted
        method.__name__ = plan.name
        return method


def _answer_of_numbers(
    live_of: Callable[[Any], Live], call: Callable[[Live], Any], failed: Callable[[Live, BaseException | None], Any]
) -> Callable[..., Any]:
    """What answers an environment call of numbers."""

    def numbers(world: Any, *given: Any) -> Any:
        live = live_of(world)
        error = None
        if live.raised is None:
            try:
                return call(live)(*given)
            except BaseException as raised:  # kept until C has returned
                error = raised
        return failed(live, error)

    return numbers


def _answer_of_text(
    ffi: Any,
    live_of: Callable[[Any], Live],
    call: Callable[[Live], Any],
    failed: Callable[[Live, BaseException | None], Any],
) -> Callable[..., Any]:
    """What answers an environment call of one text: messages, names, of which there are many."""
    string = ffi.string

    def text(world: Any, pointer: Any) -> Any:
        live = live_of(world)
        error = None
        if live.raised is None:
            try:
                return call(live)(string(pointer).decode(errors="replace"))
            except BaseException as raised:  # kept until C has returned
                error = raised
        return failed(live, error)

    return text


class Driver:
    """A driver in C, as the environment sees it; a subclass has the entry points of one library."""

    binding: Binding
    table: Any
    """`struct S_driver` of the library."""
    address: int
    """Where that is."""
    can_leave = True
    """Whether it is C through and through, so that its frames can be left."""
    profile: str
    """The one that the library declares, if it does."""
    capabilities: frozenset[str]
    """Those that it declares, or the usual ones."""
    note: str = ""
    """Why it runs slower than it could."""
    real_threads: bool = False
    """Whether two operations at once are two threads of the system."""

    def __init__(self, port: Any) -> None:
        binding = self.binding
        self.live = live = Live(port)
        if binding.new is not None:
            self.self_address = binding.new(live, port, self.address, self.can_leave, self.__dict__)
        else:
            self.handle = binding.ffi.new_handle(live)
            made = self.table.create(binding.env, self.handle)
            self.self_address = int(binding.ffi.cast("uintptr_t", made))
        if binding.lost or live.raised is not None:
            self.leave(binding.lost)
        if not self.self_address:
            raise Crash("create returned NULL")

    @property
    def pointer(self) -> Any:
        """What `create` returned, for cffi."""
        return self.binding.ffi.cast("void *", self.self_address)

    def leave(self, lost: list[BaseException]) -> None:
        """Raise what an environment call raised, now that C has returned."""
        errors = list(lost)
        lost.clear()
        if self.live.raised is not None:
            raise self.live.raised
        error = errors[0]
        raise error if isinstance(error, Breach | KeyboardInterrupt) else HarnessError(str(error)) from error

    def __del__(self) -> None:
        """The world it was made for is gone; of a compiled module's driver the last function takes it along."""
        if self.binding.new is None and self.__dict__.get("self_address"):
            self.live.raised = self.live.raised or HarnessError("the driver is gone")
            self.table.destroy(self.pointer)


def driver_class(
    binding: Binding, table: Any, enter: Callable[[str], Callable[..., Any] | None], name: str
) -> type[Driver]:
    """A subclass of `Driver` for one library; `enter(entry point)` is None where it has none."""
    members: dict[str, Any] = {
        "binding": binding,
        "table": table,
        "address": int(binding.ffi.cast("uintptr_t", table)),
    }
    for entry, plan in binding.entries.items():
        function = enter(entry)
        if function is not None:
            members[entry] = binding.method(plan, function)
    return type(name, (Driver,), members)
