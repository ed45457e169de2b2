"""Values of the ports as JSON, and back, as the signatures of the ports say.

| in the port | as JSON |
|---|---|
| int | a number; outside of ±(2**53 - 1), which not every language reads exactly, a string: "0x…" or "-0x…" |
| bool | true, false |
| str | a string |
| bytes | a string of two hexadecimal digits each |
| tuple | an array |
| None | null |

An int is understood in either form, whatever its size. What does not fit its type comes through as it is: whoever asked
for it judges it, as a value of a wrong type that a Python candidate returns.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

from conformance import ports

EXACT = 2**53 - 1
"""The largest number that is a JSON number here."""

Convert = Callable[[Any], Any]

_HEX = re.compile(r"-?0[xX][0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a port: what goes in and what comes out."""

    name: str
    parameters: Mapping[str, Any]
    """Types by name, in order."""
    result: Any
    doc: str

    def arguments_to_json(self) -> Callable[[Sequence[Any]], list[Any]]:
        """Makes a list of JSON values of arguments; too many or too few are kept."""
        return _each([to_json(kind) for kind in self.parameters.values()], list)

    def arguments_from_json(self) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        """The other way round."""
        return _each([from_json(kind) for kind in self.parameters.values()], tuple)


@cache
def methods(protocol: type) -> Mapping[str, Method]:
    """The methods of a Protocol by name, in its order."""
    found = {}
    for name, function in ports.methods(protocol).items():
        hints = get_type_hints(function)
        result = hints.pop("return")
        found[name] = Method(name, hints, result, inspect.getdoc(function) or "")
    return found


def to_json(kind: Any) -> Convert:
    """What makes a JSON value of a value of this type; ours, so it is right but for bools that stand for ints."""
    if kind is int:
        return _int_to_json
    if kind is bool:
        return _bool_to_json
    if kind is bytes:
        return plain
    if get_origin(kind) is tuple:
        return _tuple(kind, to_json, list)
    return plain


def from_json(kind: Any) -> Convert:
    """What makes a value of this type of a JSON value."""
    if kind is int:
        return _int_from_json
    if kind is bytes:
        return _bytes_from_json
    if get_origin(kind) is tuple:
        return _tuple(kind, from_json, tuple)
    return _untyped


def _int_to_json(value: Any) -> Any:
    if isinstance(value, int):
        if -EXACT <= value <= EXACT:
            return value if type(value) is int else int(value)
        return hex(value)
    return plain(value)


def _bool_to_json(value: Any) -> Any:
    return bool(value) if isinstance(value, int) else plain(value)


def _int_from_json(value: Any) -> Any:
    if type(value) is str and _HEX.fullmatch(value):
        return int(value, 16)
    return _untyped(value)


def _bytes_from_json(value: Any) -> Any:
    if type(value) is str:
        try:
            return bytes.fromhex(value)
        except ValueError:
            return value
    return _untyped(value)


def _tuple(kind: GenericAlias, convert: Callable[[Any], Convert], make: type[list[Any] | tuple[Any, ...]]) -> Convert:
    kinds = get_args(kind)
    if kinds[-1] is Ellipsis:
        one = convert(kinds[0])

        def many(value: Any) -> Any:
            return make([one(item) for item in value]) if isinstance(value, list | tuple) else plain(value)

        return many
    each = _each([convert(inner) for inner in kinds], make)

    def some(value: Any) -> Any:
        return each(value) if isinstance(value, list | tuple) else plain(value)

    return some


def _each(converts: Sequence[Convert], make: Callable[[list[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    """Converts a sequence item by item; what it has too many is kept as it is."""

    def convert(values: Sequence[Any]) -> Any:
        done = [one(value) for one, value in zip(converts, values, strict=False)]
        return make(done + [_untyped(value) for value in values[len(converts) :]] if len(values) > len(done) else done)

    return convert


def _untyped(value: Any) -> Any:
    """A JSON value as it is; arrays are tuples in the ports."""
    return tuple(map(_untyped, value)) if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Any value as JSON, as well as it can be: what a driver in Python says, right or wrong."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, int):
        return _int_to_json(int(value))
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value)
