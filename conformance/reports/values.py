"""How values are written: errno names, hex for registers and addresses, decimal for counts.

Failures, reports and replays all use these, so the same value looks the same everywhere.
"""

from __future__ import annotations

import dataclasses
import errno
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import zip_longest
from typing import Any

from conformance.model.matchers import AnyErrno, Anything, OneOf, Such
from conformance.model.step import Labels, Parallel, Step

HEX_FROM = 0x1000
"""Integers of this size and above are addresses or registers more often than counts."""
LONG = 76
"""A field whose text is longer than this is taken apart where it differs."""
MOST = 8
"""Lines at most for the parts of one field."""

ERRNO = {
    **errno.errorcode,
    11: "EAGAIN",
    35: "EDEADLK",
    95: "EOPNOTSUPP",
    512: "ERESTARTSYS",
    517: "EPROBE_DEFER",
    524: "ENOTSUPP",
}
"""The kernel's names; where two share a number, the one the kernel's sources use."""

_HEX_NAME = re.compile(
    r"(^|_)(addr|address|gpa|hpa|gva|gfn|pfn|msr|spte|pte|ssp|rip|rsp|mask|cr[0348]|efer|xcr0|xss|root|page"
    r"|cet|indices|entries|denied|intercepts|table|offset|where|bits)(_|$)"
)


def printable(text: str) -> str:
    """One line of text with what is no plain character written as its escape: control characters, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def number(value: int, name: str = "") -> str:
    """An integer: hex when it is large or its field is an address or a register."""
    if isinstance(value, bool):
        return repr(value)
    if abs(value) >= HEX_FROM or (value > 9 and _HEX_NAME.search(name)):
        return hex(value)
    return repr(value)


def errno_name(value: int) -> str:
    """`EBUSY` for -16; the number itself where it is no errno."""
    return ERRNO.get(-value) or number(value)


def value(what: Any, name: str = "") -> str:
    """Any plain value, as people want to read it; `name` is its field's."""
    match what:
        case Enum():
            return str(what.name)
        case int():
            return number(what, name)
        case bytes() | bytearray():
            return _bytes(bytes(what))
        case tuple() if hasattr(what, "_fields"):
            inner = ", ".join(f"{field}={value(item, field)}" for field, item in zip(what._fields, what, strict=True))
            return f"{type(what).__name__}({inner})"
        case tuple() if _is_run(what):
            return f"({what[0]}..{what[-1]})"
        case tuple():
            inner = ", ".join(value(item, name) for item in what)
            return f"({inner},)" if len(what) == 1 else f"({inner})"
        case frozenset():
            return "{" + ", ".join(value(item, name) for item in _ordered(what)) + "}"
        case Anything() | AnyErrno() | OneOf() | Such():
            return repr(what)
        case _ if dataclasses.is_dataclass(what) and not isinstance(what, type):
            says_itself = type(what).__str__ is not object.__str__
            return str(what) if says_itself else f"{type(what).__name__}({_fields(what)})"
    return repr(what)


def _is_run(items: tuple[Any, ...]) -> bool:
    """Whether these are many integers, each one more than the one before."""
    return (
        len(items) > MOST
        and all(type(item) is int for item in items)
        and items == tuple(range(items[0], items[-1] + 1))
    )


def result(what: Any) -> str:
    """What an operation or an environment call returned: negative errno by name."""
    if type(what) is int and what < 0:
        return f"-{ERRNO[-what]}" if -what in ERRNO else number(what)
    if type(what) is tuple and what:
        inner = ", ".join(result(item) for item in what)
        return f"({inner},)" if len(what) == 1 else f"({inner})"
    return value(what)


def part_results(op: Any, want: tuple[Any, ...], got: tuple[Any, ...]) -> tuple[str, str]:
    """Of a result with several parts, those that differ, each with what was asked of it: expected, got."""
    lists = [getattr(op, field.name) for field in dataclasses.fields(op)]
    asked = next((items for items in lists if isinstance(items, tuple) and len(items) == len(want)), range(len(want)))
    wrong = [n for n, (w, g) in enumerate(zip(want, got, strict=True)) if w != g]
    names = {n: f"part {n + 1}, {value(asked[n])}" for n in wrong}
    left, right = ([f"{name} -> {result(side[n])}" for n, name in names.items()] for side in (want, got))
    return "\n".join(_cut(left)), "\n".join(_cut(right))


def operation(op: Any) -> str:
    """`irq_set(vector=0, fd=1)`; when that gets long, without the fields that hold their default."""
    name = snake(type(op).__name__)
    whole = ", ".join(f"{f.name}={value(getattr(op, f.name), f.name)}" for f in dataclasses.fields(op))
    return f"{name}({whole if len(whole) <= LONG else _fields(op)})"


def performed(op: Any, returned: Any) -> str:
    """An operation and what it returned, if anything."""
    return operation(op) if returned is None else f"{operation(op)} -> {result(returned)}"


def step(what: Step) -> str:
    """A step in one line, without results."""
    if isinstance(what.op, Parallel):
        return f"{step(what.op.left)} beside {step(what.op.right)}"
    faults = "".join(f", {f.call}={result(f.value)}" for f in what.faults)
    during = "".join(f" with {step(inner)} at point {k}" for k, inner in what.during)
    return operation(what.op) + (f" refusing {faults[2:]}" if faults else "") + during


def call(name: str, arguments: Sequence[Any], returned: Any, names: Sequence[str] = ()) -> str:
    """One environment call: `request_irq(73, 1) -> -EBUSY`; `names` are its parameters'."""
    named = zip_longest(arguments, names[: len(arguments)], fillvalue="")
    text = f"{name}({', '.join(value(item, of) for item, of in named)})"
    return text if returned is None else f"{text} -> {result(returned)}"


def snake(name: str) -> str:
    """`IrqSet` as `irq_set`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.lstrip("_")).lower()


def difference(want: Any, got: Any, name: str, labels: Labels = ()) -> tuple[list[str], list[str]]:
    """Lines `name = value` for what differs between two values; nothing where they agree.

    What is labelled is taken apart, and a long field, so that one entry of a table does not hide among its neighbours.
    """
    if want == got:
        return [], []
    if labels and isinstance(want, tuple) and isinstance(got, tuple) and len(want) == len(got):
        level, below = labels[0], labels[1:]
        pairs = enumerate(zip(want, got, strict=True))
        return _parts((w, g, f"{name}, {_label(level, i)}", below) for i, (w, g) in pairs)
    left, right = _labelled(want, name, labels), _labelled(got, name, labels)
    if len(left) <= LONG and len(right) <= LONG:
        return [f"{name} = {left}"], [f"{name} = {right}"]
    if dataclasses.is_dataclass(want) and type(want) is type(got):
        names = [f.name for f in dataclasses.fields(want)]
        return _parts((getattr(want, f), getattr(got, f), f"{name}.{f}", ()) for f in names)
    if isinstance(want, tuple) and isinstance(got, tuple) and len(want) == len(got):
        return _parts((w, g, f"{name}[{i}]", ()) for i, (w, g) in enumerate(zip(want, got, strict=True)))
    if isinstance(want, tuple | frozenset) and isinstance(got, tuple | frozenset):
        return _members(want, got, name)
    if isinstance(want, bytes) and isinstance(got, bytes):
        return _first_bytes(want, got, name)
    return [f"{name} = {left}"], [f"{name} = {right}"]


def differences(
    want: Any, got: Any, fields: Sequence[str], labels: Mapping[str, Labels] | None = None
) -> tuple[str, str]:
    """The fields of two views that differ, each on lines of its own: expected, got."""
    called = labels or {}
    left: list[str] = []
    right: list[str] = []
    for name in fields:
        wanted, gotten = difference(getattr(want, name), getattr(got, name), name, called.get(name, ()))
        left += wanted
        right += gotten
    return "\n".join(left), "\n".join(right)


def _labelled(what: Any, name: str, labels: Labels) -> str:
    """A value with the names of its parts, where it has names."""
    if not labels or isinstance(labels[0], str) or not isinstance(what, tuple):
        return value(what, name)
    return "(" + ", ".join(f"{part}: {value(item)}" for part, item in zip(labels[0], what, strict=True)) + ")"


def _label(level: str | Sequence[str], index: int) -> str:
    return level.format(index) if isinstance(level, str) else level[index]


def _parts(parts: Any) -> tuple[list[str], list[str]]:
    left: list[str] = []
    right: list[str] = []
    for want, got, name, labels in parts:
        wanted, gotten = difference(want, got, name, labels)
        left += wanted
        right += gotten
    return _cut(left), _cut(right)


def _members(want: Any, got: Any, name: str) -> tuple[list[str], list[str]]:
    """Two collections of different length: what only one of them has."""
    wanted, gotten = Counter(map(value, want)), Counter(map(value, got))
    left = [f"{name} has {item}" for item in (wanted - gotten).elements()]
    right = [f"{name} has {item}" for item in (gotten - wanted).elements()]
    if not left and not right:
        left, right = [f"{name} in another order"], [f"{name} in another order"]
    none = f"{name} has none of the other's" if want and got else f"{name} is empty"
    return _cut(left or [none]), _cut(right or [none])


def _first_bytes(want: bytes, got: bytes, name: str) -> tuple[list[str], list[str]]:
    """The eight bytes around the first difference."""
    pairs = zip(want, got, strict=False)
    at = next((i for i, (w, g) in enumerate(pairs) if w != g), min(len(want), len(got))) & ~7
    label = f"{name}[{at}:{at + 8}]"
    return [f"{label} = {want[at : at + 8].hex()}"], [f"{label} = {got[at : at + 8].hex()}"]


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST else [*lines[: MOST - 1], f"… and {len(lines) - MOST + 1} more"]


def _fields(record: Any) -> str:
    shown = []
    for field in dataclasses.fields(record):
        item = getattr(record, field.name)
        if field.default is dataclasses.MISSING or item != field.default:
            shown.append(f"{field.name}={value(item, field.name)}")
    return ", ".join(shown)


def _bytes(data: bytes) -> str:
    if not data:
        return "no bytes"
    if not any(data):
        return f"{len(data)} zero bytes"
    return data.hex() if len(data) <= 16 else f"{data[:16].hex()}… ({len(data)} bytes)"


def _ordered(items: frozenset[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)
