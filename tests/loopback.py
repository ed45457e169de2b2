"""A Python candidate behind the C ABI: what a library in C would be, without one to be written.

Its entry points are called through a table of function pointers, and its environment calls go through another one, so
that all of a header's types and conversions are exercised, both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from conformance.abi.binding import Live, driver_class
from conformance.abi.convert import arguments_from_c, arguments_to_c, no_results, results_from_c, results_to_c
from conformance.abi.modes import Mode
from conformance.abi.plan import Plan
from conformance.verdict import Crash

_LOADED: list[Served] = []
"""What has been loaded stays, as a library does."""


def loopback(candidate: type, way: Mode) -> type:
    """The candidate as it would be loaded from a library."""
    served = Served(candidate, way)
    driver = driver_class(way.binding, *served.parts())
    driver.can_leave = False  # a jump would skip frames of Python
    _LOADED.append(served)
    return driver


class Served:
    """A Python candidate's table of entry points."""

    def __init__(self, candidate: type, way: Mode) -> None:
        self.candidate = candidate
        self.way = way
        self.binding = way.binding
        self.ffi = ffi = way.binding.ffi
        self.drivers: dict[int, Any] = {}
        """Those that live, by the number that `create` gave."""
        self.last = 0
        self.table = ffi.new(f"struct {way.binding.header.subsystem}_driver *")
        self.kept: list[Any] = []
        kinds = {name: field.type for name, field in ffi.typeof(self.table[0]).fields}
        self.table.create = self._callback(kinds["create"], self.create)
        self.table.destroy = self._callback(kinds["destroy"], self.destroy)
        for name, plan in way.binding.entries.items():
            if hasattr(candidate, name):
                setattr(self.table, name, self._callback(kinds[name], self._entry(plan)))

    def parts(self) -> tuple[Any, Callable[[str], Any], str]:
        """What `driver_class` wants besides the binding."""

        def enter(entry: str) -> Any:
            return self.way.enter(entry, self.table) if getattr(self.table, entry) else None

        return self.table, enter, self.candidate.__name__

    def _callback(self, kind: Any, function: Callable[..., Any]) -> Any:
        self.kept.append(self.ffi.callback(kind, function))
        return self.kept[-1]

    def create(self, env: Any, world: Any) -> Any:
        """A new candidate, behind a port that calls through the table."""
        self.last += 1
        live = self.binding.live_of()(world)
        try:
            self.drivers[self.last] = self.candidate(CPort(self.binding, env, world, live)), live
        except BaseException as error:  # `Left` too, of a breach in the constructor: no frame of C may see it
            live.fail("create", Crash(f"create raised {type(error).__name__}: {error}"))
        return self.ffi.cast("void *", self.last)

    def destroy(self, pointer: Any) -> None:
        """Forget it."""
        self.drivers.pop(int(self.ffi.cast("uintptr_t", pointer)), None)

    def _entry(self, plan: Plan) -> Callable[..., Any]:
        ffi = self.ffi
        take, give, give_nothing = arguments_from_c(ffi, plan), results_to_c(ffi, plan), no_results(plan)
        first = sum(value.width for value in plan.arguments)
        nothing = None if plan.returned is None else 0

        def entry(pointer: Any, *given: Any) -> Any:
            driver, live = self.drivers[int(ffi.cast("uintptr_t", pointer))]
            try:
                result = getattr(driver, plan.name)(*take(given))
            except BaseException as error:  # `Left` too, after a breach, which is what is told then
                live.fail(plan.name, Crash(f"{plan.name} raised {type(error).__name__}: {error}"))
            else:
                try:
                    return _fits(ffi, plan, give(result, given[first:]))
                except (TypeError, ValueError, OverflowError) as error:
                    live.fail(plan.name, Crash(f"{plan.name} returned {result!r}: {error}", "type"))
            give_nothing(given[first:])
            return nothing

        return entry


def _fits(ffi: Any, plan: Plan, returned: Any) -> Any:
    """What can be returned; cffi would find it out where nobody hears of it."""
    if plan.returned is not None:
        ffi.new(f"{plan.returned.ctype.cname} *", returned)
    return returned


class CPort:
    """Environment calls of a table, as a Python candidate makes them."""

    def __init__(self, binding: Any, env: Any, world: Any, live: Live) -> None:
        self._parts = binding, env, world, live

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """One call, when it is first made."""
        binding, env, world, live = self._parts
        if name not in binding.calls:
            raise AttributeError(name)
        plan = binding.calls[name]
        to_c, call = arguments_to_c(binding.ffi, plan), results_from_c(binding.ffi, plan)
        made = _calling(to_c, call, partial(getattr(env, name), world), live)
        setattr(self, name, made)
        return made


class Left(BaseException):
    """Leaves the candidate after a breach, as C is left."""


def _calling(
    to_c: Callable[..., Any], call: Callable[..., Any], function: Callable[..., Any], live: Live
) -> Callable[..., Any]:
    def calling(*arguments: Any) -> Any:
        alive: list[Any] = []
        result = call(function, to_c(arguments, alive))
        if live.raised is not None:
            raise Left
        return result

    return calling
