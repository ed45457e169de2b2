"""The two tables at run time: environment calls that C makes, and entry points that Python calls.

A breach of a clause is an exception in Python, which must not pass through frames of C. So the first one is kept, C is
left by a jump (`modes.py`) or, where callbacks serve, does nothing more by any environment call; then it is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
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
        """`struct conformance_world` of the compiled module; None with callbacks."""
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
        self.has_world = False
        """Whether `world` is the compiled module's record, and not cffi's handle."""
        self.create: Callable[[Any, Any, Any], Any] = lambda table, env, world: table.create(env, world)
        self.functions: Any = None
        """Makes a driver's entry points of numbers; None with callbacks."""

    def live_of(self) -> Callable[[Any], Live]:
        """Finds what `world` stands for."""
        from_handle = self.ffi.from_handle
        if not self.has_world:
            return from_handle  # type: ignore[no-any-return]
        cast, pointer = self.ffi.cast, self.ffi.typeof("struct conformance_world *")
        return lambda world: from_handle(cast(pointer, world).handle)  # type: ignore[no-any-return]

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


class Held:
    """A driver in C, for as long as anything of it can be called."""

    def __init__(self, binding: Binding, table: Any, port: Any, *, jumps: bool) -> None:
        ffi = binding.ffi
        self.table = table
        self.live = live = Live(port)
        self.handle = self.world = ffi.new_handle(live)
        self.pointer = ffi.NULL
        if binding.has_world:
            live.world = self.world = ffi.new("struct conformance_world *")
            address = partial(ffi.cast, "void *")
            self.world.handle, self.world.jumps = self.handle, jumps
            self.world.live, self.world.port = address(id(live)), address(id(port))
        self.pointer = binding.create(table, binding.env, self.world)

    def __del__(self) -> None:
        """The world it was made for is gone. One that was left in the middle of something is let be."""
        world, live = self.live.world, self.live
        if not self.pointer or (live.raised is not None and world is not None and world.jumps):
            return
        live.raised = live.raised or HarnessError("the driver is gone")
        if world is not None:  # no environment call does anything any more
            world.raised, world.jumps = 1, 0
        self.table.destroy(self.pointer)


class Driver:
    """A driver in C, as the environment sees it; a subclass has the entry points of one library."""

    binding: Binding
    table: Any
    """`struct S_driver` of the library."""
    can_leave = True
    """Whether it is C through and through, so that its frames can be left."""

    def __init__(self, port: Any) -> None:
        binding = self.binding
        held = Held(binding, self.table, port, jumps=self.can_leave)
        self.live, self.pointer = held.live, held.pointer
        self.held = held
        if binding.lost or self.live.raised is not None:
            self.leave(binding.lost)
        if not self.pointer:
            raise Crash("create returned NULL")
        if binding.functions is not None:
            address = partial(binding.ffi.cast, "uintptr_t")
            made = binding.functions(
                held, int(address(self.table)), int(address(self.pointer)), int(address(held.world))
            )
            self.__dict__.update((n, f) for n, f in zip(binding.entries, made, strict=True) if f is not None)

    def leave(self, lost: list[BaseException]) -> None:
        """Raise what an environment call raised, now that C has returned."""
        errors = list(lost)
        lost.clear()
        if self.live.raised is not None:
            raise self.live.raised
        error = errors[0]
        raise error if isinstance(error, Breach | KeyboardInterrupt) else HarnessError(str(error)) from error


def driver_class(binding: Binding, table: Any, enter: Callable[[str], Callable[..., Any] | None], name: str) -> type:
    """A subclass of `Driver` for one library; `enter(entry point)` is None where it has none."""
    members: dict[str, Any] = {"binding": binding, "table": table}
    for entry, plan in binding.entries.items():
        function = enter(entry)
        if function is not None:
            members[entry] = binding.method(plan, function)
    return type(name, (Driver,), members)


def entry_points(binding: Binding, table: Any) -> Mapping[str, bool]:
    """Which entry points a library has."""
    return {entry: bool(getattr(table, entry)) for entry in binding.entries}
