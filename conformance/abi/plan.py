"""Which arguments and results in C stand for which in Python: a port's method held against the header's function.

| in Python | as an argument | as a result |
|---|---|---|
| int, bool | an integer, bool | the value returned |
| str | `const char *` | |
| bytes, tuple[T, ...] | `const u8 *x, size_t x_len`; with T for u8 | `u8 *x, size_t *x_len`; with T for u8 |
| tuple[A, B, C] | `const struct *x`, fields in order | the first returned, the others by pointer; or all by pointer |
| tuple[int, ...] of one record or none | | `bool` returned, `struct *x` |

What is in a record is carried as an argument is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from conformance.abi.header import Function, Header
from conformance.candidates.promised import protocols
from conformance.ports import methods
from conformance.subsystem import Subsystem


class Kind(Enum):
    """How one Python value is passed."""

    NUMBER = "an integer"
    FLAG = "bool"
    TEXT = "const char *"
    BYTES = "bytes and their length"
    MANY = "elements and their number"
    ONE = "a pointer to one record"


@dataclass(frozen=True, slots=True)
class Value:
    """One Python value of a call, and what carries it in C."""

    name: str
    kind: Kind
    ctype: Any
    """The type of the argument or the result; of what the pointer points to for BYTES, MANY and ONE."""
    width: int = 1
    """Arguments in C that it takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One call, on both sides."""

    name: str
    function: Function
    arguments: tuple[Value, ...]
    returned: Value | None
    """What the C function returns; None for void."""
    outs: tuple[Value, ...]
    """What it stores through pointers."""
    is_tuple: bool
    """Whether the Python result is a tuple of `returned` and `outs`."""
    is_optional: bool
    """Whether the one record of `outs` is there only if `returned` says so, and else the result is ()."""

    @property
    def is_simple(self) -> bool:
        """Whether numbers alone are passed, so that nothing is converted."""
        plain = (Kind.NUMBER, Kind.FLAG)
        return not self.outs and not self.is_tuple and all(value.kind in plain for value in self.arguments)


class MismatchError(Exception):
    """The header and the port disagree; says where."""


def plans(functions: Mapping[str, Function], protocols: tuple[type, ...]) -> dict[str, Plan]:
    """How each method of the Protocols is called in C.

    Raises:
        MismatchError  a method or a function is missing, or they disagree
    """
    wanted = {name: method for protocol in protocols for name, method in methods(protocol).items()}
    if list(wanted) != list(functions):
        missing, extra = wanted.keys() - functions.keys(), functions.keys() - wanted.keys()
        if not missing and not extra:
            raise MismatchError("the functions are not in the order of the port")
        raise MismatchError(f"the header lacks {sorted(missing)} and has {sorted(extra)} besides")
    return {name: plan(functions[name], method) for name, method in wanted.items()}


def of_subsystem(header: Header, of: Subsystem) -> tuple[dict[str, Plan], dict[str, Plan]]:
    """Plans of the environment calls and of the entry points; those that a candidate may have besides come last."""
    return plans(header.env, (of.port,)), plans(header.driver, protocols(of))


def plan(function: Function, method: Callable[..., Any]) -> Plan:
    """How one method is called.

    Raises:
        MismatchError  name, kind or number of the arguments differ
    """
    hints = get_type_hints(method)
    left = list(zip(function.parameters, function.arguments, strict=True))
    arguments = [
        _argument(function.name, name, hints[name], left) for name in list(inspect.signature(method).parameters)[1:]
    ]
    wanted = hints["return"]
    parts = _parts(wanted)
    is_void = function.result.cname == "void"
    is_optional = function.result.kind == "primitive" and function.result.cname == "_Bool" and wanted is not bool
    is_optional = is_optional and get_args(wanted)[-1] is Ellipsis
    returned: Value | None = None
    if is_optional:
        returned = Value("result", Kind.FLAG, function.result)
    elif not is_void:
        returned = _scalar(function.name, "result", parts.pop(0) if parts else type(None), function.result)
    outs = tuple(_out(function.name, part, left, is_optional=is_optional) for part in parts)
    if left:
        raise MismatchError(f"{function.name}: {left[0][0]} is not in the port")
    is_tuple = get_origin(wanted) is tuple and get_args(wanted)[-1] is not Ellipsis
    return Plan(function.name, function, tuple(arguments), returned, outs, is_tuple, is_optional)


def _parts(wanted: Any) -> list[Any]:
    """The single values of a result."""
    if wanted is type(None):
        return []
    if get_origin(wanted) is tuple and get_args(wanted)[-1] is not Ellipsis:
        return list(get_args(wanted))
    return [wanted]


def _argument(call: str, name: str, wanted: Any, left: list[tuple[str, Any]]) -> Value:
    """What carries one argument; takes it from what is left."""
    ctype = _take(call, name, left)
    if wanted in (int, bool, str):
        return _scalar(call, name, wanted, ctype)
    if get_origin(wanted) is tuple and get_args(wanted)[-1] is not Ellipsis:
        _same_fields(call, name, wanted, _pointed(call, name, ctype))
        return Value(name, Kind.ONE, ctype.item)
    length = _take(call, f"{name}_len", left)
    if length.cname != "size_t":
        raise MismatchError(f"{call}: {name}_len is {length.cname}, not size_t")
    return _elements(call, name, wanted, _pointed(call, name, ctype))


def _out(call: str, wanted: Any, left: list[tuple[str, Any]], *, is_optional: bool) -> Value:
    """What carries one result that is stored through a pointer."""
    if not left:
        raise MismatchError(f"{call}: nothing carries the result {wanted}")
    name, ctype = left.pop(0)
    item = _pointed(call, name, ctype)
    if is_optional:
        if item.kind != "struct" or get_args(wanted)[0] is not int:
            raise MismatchError(f"{call}: {name} is no record of numbers")
        return Value(name, Kind.ONE, item)
    if wanted in (int, bool):
        return _scalar(call, name, wanted, item)
    length = _take(call, f"{name}_len", left)
    if length.cname != "size_t *":
        raise MismatchError(f"{call}: {name}_len is {length.cname}, not size_t *")
    return _elements(call, name, wanted, item)


def _take(call: str, name: str, left: list[tuple[str, Any]]) -> Any:
    if not left or left[0][0] != name:
        found = left[0][0] if left else "nothing"
        raise MismatchError(f"{call}: expected {name}, found {found}")
    return left.pop(0)[1]


def _pointed(call: str, name: str, ctype: Any) -> Any:
    if ctype.kind != "pointer":
        raise MismatchError(f"{call}: {name} is {ctype.cname}, not a pointer")
    return ctype.item


def _scalar(call: str, name: str, wanted: Any, ctype: Any) -> Value:
    if wanted is int and ctype.kind == "primitive" and ctype.cname not in ("_Bool", "char", "float", "double"):
        return Value(name, Kind.NUMBER, ctype)
    if wanted is bool and ctype.cname == "_Bool":
        return Value(name, Kind.FLAG, ctype)
    if wanted is str and ctype.cname == "char *":
        return Value(name, Kind.TEXT, ctype)
    raise MismatchError(f"{call}: {name} is {ctype.cname}, which is no {getattr(wanted, '__name__', wanted)}")


def _elements(call: str, name: str, wanted: Any, item: Any) -> Value:
    if wanted is bytes:
        if item.cname != "uint8_t":
            raise MismatchError(f"{call}: {name} points to {item.cname}, not to u8")
        return Value(name, Kind.BYTES, item, 2)
    element = get_args(wanted)[0]
    if element is int:
        _scalar(call, name, int, item)
    elif get_args(element)[-1] is not Ellipsis:
        _same_fields(call, name, element, item)
    elif item.kind != "struct":
        raise MismatchError(f"{call}: {name} points to {item.cname}, which is no record")
    return Value(name, Kind.MANY, item, 2)


def _same_fields(call: str, name: str, wanted: Any, item: Any) -> None:
    """The fields of a record are the parts of the tuple, in order."""
    if item.kind != "struct":
        raise MismatchError(f"{call}: {name} points to {item.cname}, which is no record")
    left = [(field, kind.type) for field, kind in item.fields]
    for part in get_args(wanted):
        if not left:
            raise MismatchError(f"{call}: {item.cname} has too few fields for {wanted}")
        field, ctype = left.pop(0)
        if part not in (int, bool, str):
            _elements(call, field, part, _pointed(call, field, ctype))
            _take(call, f"{field}_len", left)
        else:
            _scalar(call, field, part, ctype)
    if left:
        raise MismatchError(f"{call}: {item.cname} has the field {left[0][0]} besides")


def fields(item: Any) -> Iterator[tuple[str, Kind]]:
    """The parts of a record, and how each is carried."""
    left = iter(item.fields)
    for name, field in left:
        if field.type.cname == "char *":
            yield name, Kind.TEXT
        elif field.type.kind == "pointer":
            next(left)  # its length
            yield name, Kind.BYTES if field.type.item.cname == "uint8_t" else Kind.MANY
        else:
            yield name, Kind.FLAG if field.type.cname == "_Bool" else Kind.NUMBER
