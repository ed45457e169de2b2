"""The two tables at run time: environment calls that C makes, and entry points that Python calls.

A breach of a clause is an exception in Python, which must not pass through frames of C. So the first one is kept, C is
left by a jump (`modes.py`) or, where callbacks serve, does nothing more by any environment call; then it is raised.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any

from conformance.abi.convert import (
    arguments_from_c,
    arguments_to_c,
    no_results,
    results_from_c,
    results_to_c,
)
from conformance.abi.header import Header
from conformance.abi.plan import Plan, of_subsystem
from conformance.subsystem import Subsystem
from conformance.verdict import Breach, Crash, HarnessError


class Live:
    """What environment calls of one driver in C come to."""

    __slots__ = ("leaving", "port", "raised")

    def __init__(self, port: Any, leaving: Any) -> None:
        self.port = port
        self.leaving = leaving
        """Where 1 has C left at the end of an environment call; None where that cannot be."""
        self.raised: BaseException | None = None
        """The first exception out of an environment call; nothing more is done after it."""

    def fail(self, name: str, error: BaseException) -> None:
        """Keep what an environment call raised."""
        if self.raised is None:
            if isinstance(error, RuntimeError | OverflowError | TypeError):
                error = Crash(f"{name}: a pointer is NULL, or an argument out of range: {error}", "type")
            self.raised = error

    def leave(self) -> None:
        """Have C left: nothing that it does counts any more."""
        if self.leaving is not None:
            self.leaving[0] = 1


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
        self.leaving: Any = None
        """As in `Live`."""

    def answer(self, plan: Plan) -> Callable[..., Any]:
        """What answers one environment call: a Python function of `world` and the arguments in C."""
        name = plan.name
        from_handle = self.ffi.from_handle
        refusal = refusal_of(plan)
        if plan.is_simple:

            def simple(world: Any, *given: Any) -> Any:
                live = from_handle(world)
                if live.raised is None:
                    try:
                        return getattr(live.port, name)(*given)
                    except BaseException as error:  # kept until C has returned
                        live.fail(name, error)
                live.leave()
                return refusal

            return simple
        take, give = arguments_from_c(self.ffi, plan), results_to_c(self.ffi, plan)
        give_nothing = no_results(plan)
        first = sum(value.width for value in plan.arguments)

        def converted(world: Any, *given: Any) -> Any:
            live = from_handle(world)
            if live.raised is None:
                try:
                    return give(getattr(live.port, name)(*take(given)), given[first:])
                except BaseException as error:  # kept until C has returned
                    live.fail(name, error)
            live.leave()
            give_nothing(given[first:])
            return refusal

        return converted

    def missed(self, _kind: Any, error: BaseException, _traceback: Any) -> None:
        """Told by cffi of an error outside of what `answer` guards: a result that its type cannot hold, a signal."""
        self.lost.append(error)

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


class Driver:
    """A driver in C, as the environment sees it; a subclass has the entry points of one library."""

    binding: Binding
    table: Any
    """`struct S_driver` of the library."""
    can_leave = True
    """Whether it is C through and through, so that its frames can be left."""

    def __init__(self, port: Any) -> None:
        binding = self.binding
        self.live = Live(port, binding.leaving if self.can_leave else None)
        self.handle = binding.ffi.new_handle(self.live)
        self.pointer = binding.ffi.NULL
        self.pointer = self.table.create(binding.env, self.handle)
        if binding.lost or self.live.raised is not None:
            self.leave(binding.lost)
        if not self.pointer:
            raise Crash("create returned NULL")

    def leave(self, lost: list[BaseException]) -> None:
        """Raise what an environment call raised, now that C has returned."""
        errors = list(lost)
        lost.clear()
        if self.live.raised is not None:
            raise self.live.raised
        error = errors[0]
        raise error if isinstance(error, Breach | KeyboardInterrupt) else HarnessError(str(error)) from error

    def __del__(self) -> None:
        """The world it was made for is gone. One that was left in the middle of something is let be."""
        if self.pointer and (self.live.raised is None or self.live.leaving is None):
            self.table.destroy(self.pointer)


def refusal_of(plan: Plan) -> Any:
    """What an environment call returns once nothing counts any more."""
    if plan.returned is None:
        return None
    kind = plan.returned.ctype
    if kind.cname == "_Bool":
        return False
    return 0 if kind.cname.startswith("u") or kind.cname == "size_t" else -errno.EIO


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
