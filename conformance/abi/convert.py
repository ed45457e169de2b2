"""Values from Python to C and back, as a plan says.

The same two ways serve both directions of call: whoever calls passes arguments to C and takes results from it, whoever
is called takes arguments from C and gives results to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from conformance.abi.plan import Kind, Plan, Value, fields
from conformance.verdict import Crash

ROOM = {Kind.BYTES: 1 << 16, Kind.MANY: 1 << 12}
"""Elements that a caller in Python has room for."""


def arguments_to_c(ffi: Any, plan: Plan) -> Callable[[Sequence[Any], list[Any]], list[Any]]:
    """(Python arguments, list that keeps alive what they point to) -> arguments in C."""
    values = plan.arguments

    def convert(arguments: Sequence[Any], alive: list[Any]) -> list[Any]:
        given: list[Any] = []
        for value, argument in zip(values, arguments, strict=True):
            given += _to_c(ffi, value, argument, alive)
        return given

    return convert


def arguments_from_c(ffi: Any, plan: Plan) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Arguments in C -> Python arguments."""
    values = plan.arguments
    if all(value.kind in (Kind.NUMBER, Kind.FLAG) for value in values):
        count = len(values)
        return lambda given: given[:count]

    def convert(given: Sequence[Any]) -> list[Any]:
        at = 0
        arguments = []
        for value in values:
            arguments.append(_from_c(ffi, value, given, at))
            at += value.width
        return arguments

    return convert


def _to_c(ffi: Any, value: Value, argument: Any, alive: list[Any]) -> list[Any]:
    match value.kind:
        case Kind.NUMBER | Kind.FLAG:
            return [argument]
        case Kind.TEXT:
            return [_text(ffi, argument, alive)]
        case Kind.BYTES:
            return [argument, len(argument)]
        case Kind.MANY:
            if value.ctype.kind == "struct":
                records = [_record_to_c(ffi, value.ctype, element, alive) for element in argument]
                return [records, len(records)]
            return [argument, len(argument)]
        case Kind.ONE:
            return [[_record_to_c(ffi, value.ctype, argument, alive)]]


def _from_c(ffi: Any, value: Value, given: Sequence[Any], at: int) -> Any:
    match value.kind:
        case Kind.NUMBER | Kind.FLAG:
            return given[at]
        case Kind.TEXT:
            return _string(ffi, given[at])
        case Kind.BYTES | Kind.MANY:
            return _array_from_c(ffi, value, given[at], given[at + 1])
        case Kind.ONE:
            return _record_from_c(ffi, value.ctype, given[at][0])


def results_from_c(ffi: Any, plan: Plan) -> Callable[[Callable[..., Any], Sequence[Any]], Any]:
    """(C function with all but the results bound, arguments in C) -> Python result.

    The conversion makes room for what the function stores.

    Raises:
        Crash  the function claims to have stored more than there was room for
    """
    outs = [(out, ffi.typeof(f"{_name(out.ctype)} *"), ffi.typeof(f"{_name(out.ctype)}[]")) for out in plan.outs]

    def call(function: Callable[..., Any], given: Sequence[Any]) -> Any:
        places: list[Any] = []
        for out, pointer, array in outs:
            if out.kind in ROOM:
                room = ROOM[out.kind]
                places += [ffi.new(array, room), ffi.new("size_t *", room)]
            else:
                places.append(ffi.new(pointer))
        returned = function(*given, *places)
        if plan.is_optional:
            return _record_from_c(ffi, plan.outs[0].ctype, places[0][0]) if returned else ()
        parts = [] if plan.returned is None else [returned]
        at = 0
        for out, _, _ in outs:
            if out.kind in ROOM:
                parts.append(_stored(ffi, plan, out, places[at], places[at + 1][0]))
                at += 2
            else:
                parts.append(places[at][0])
                at += 1
        return tuple(parts) if plan.is_tuple else parts[0] if parts else None

    return call


def _stored(ffi: Any, plan: Plan, out: Value, place: Any, length: int) -> Any:
    if length > ROOM[out.kind]:
        raise Crash(f"{plan.name}: {out.name}_len is {length} where there is room for {ROOM[out.kind]}", "type")
    return _array_from_c(ffi, out, place, length)


def results_to_c(ffi: Any, plan: Plan) -> Callable[[Any, Sequence[Any]], Any]:
    """(Python result, places in C where results go) -> what the C function returns."""
    outs = plan.outs
    if not outs and not plan.is_tuple:
        return lambda result, _places: result
    if plan.returned is None and [out.kind for out in outs] == [Kind.BYTES] and not plan.is_tuple:

        def store(result: bytes, places: Sequence[Any]) -> None:
            place, length = places
            ffi.memmove(place, result, min(length[0], len(result)))
            length[0] = len(result)

        return store

    def convert(result: Any, places: Sequence[Any]) -> Any:
        if plan.is_optional:
            if result:
                _store_record(ffi, places[0], 0, outs[0].ctype, result)
            return bool(result)
        parts = list(result) if plan.is_tuple else [] if result is None else [result]
        returned = parts.pop(0) if plan.returned is not None else None
        at = 0
        for out, part in zip(outs, parts, strict=True):
            if out.kind in ROOM:
                _store_array(ffi, out, places[at], places[at + 1], part)
                at += 2
            else:
                places[at][0] = part
                at += 1
        return returned

    return convert


def no_results(plan: Plan) -> Callable[[Sequence[Any]], None]:
    """Tells through the places of a call that gives no result that nothing is there."""
    at = 0
    lengths: list[int] = []
    for out in plan.outs:
        if out.kind in ROOM:
            lengths.append(at + 1)
        at += out.width

    def store(places: Sequence[Any]) -> None:
        for place in lengths:
            if places[place]:
                places[place][0] = 0

    return store


def _store_array(ffi: Any, out: Value, place: Any, length: Any, part: Any) -> None:
    count = min(length[0], len(part))
    if out.kind is Kind.BYTES:
        ffi.buffer(place, count)[:] = part[:count]
    else:
        for index in range(count):
            if out.ctype.kind == "struct":
                _store_record(ffi, place, index, out.ctype, part[index])
            else:
                place[index] = part[index]
    length[0] = len(part)


def _store_record(ffi: Any, place: Any, index: int, ctype: Any, record: Sequence[Any]) -> None:
    kept: list[Any] = []
    place[index] = _record_to_c(ffi, ctype, record, kept)
    if kept:
        _KEPT.append(kept)


_KEPT: deque[list[Any]] = deque(maxlen=4096)
"""What records that were stored point to: they are read right after the call that stored them."""


def _array_from_c(ffi: Any, value: Value, place: Any, length: int) -> Any:
    if value.kind is Kind.BYTES:
        return bytes(ffi.buffer(place, length)) if length else b""
    if value.ctype.kind == "struct":
        return tuple(_record_from_c(ffi, value.ctype, place[index]) for index in range(length))
    return tuple(ffi.unpack(place, length)) if length else ()


def _record_from_c(ffi: Any, ctype: Any, record: Any) -> tuple[Any, ...]:
    parts: list[Any] = []
    kinds = dict(ctype.fields)
    for name, kind in fields(ctype):
        part = getattr(record, name)
        if kind is Kind.TEXT:
            part = _string(ffi, part)
        elif kind in ROOM:
            length = getattr(record, f"{name}_len")
            if length > ROOM[kind]:
                raise Crash(f"{name}_len is {length} in a {_name(ctype)}, and {ROOM[kind]} is the most", "type")
            part = _array_from_c(ffi, Value(name, kind, kinds[name].type.item), part, length)
        parts.append(part)
    return tuple(parts)


def _record_to_c(ffi: Any, ctype: Any, record: Sequence[Any], alive: list[Any]) -> list[Any]:
    parts: list[Any] = []
    kinds = dict(ctype.fields)
    for (name, kind), part in zip(fields(ctype), record, strict=True):
        if kind is Kind.TEXT:
            parts.append(_text(ffi, part, alive))
        elif kind in ROOM:
            item = kinds[name].type.item
            is_record = item.kind == "struct"
            elements = [_record_to_c(ffi, item, element, alive) for element in part] if is_record else part
            alive.append(ffi.new(f"{_name(item)}[]", elements))
            parts += [alive[-1], len(part)]
        else:
            parts.append(part)
    return parts


def _text(ffi: Any, text: str, alive: list[Any]) -> Any:
    alive.append(ffi.new("char[]", text.encode()))
    return alive[-1]


def _string(ffi: Any, pointer: Any) -> str:
    text: bytes = ffi.string(pointer)
    return text.decode(errors="replace")


def _name(ctype: Any) -> str:
    name: str = ctype.cname
    return name
