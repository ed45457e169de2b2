"""CrossHair's tracer sees words through the builtins that would forget them.

`int(word)`, `int.from_bytes`, `struct`, look-ups in dicts and sets, and caches of functions: at each of them in the
code of candidate, model and world the call that is made is one that remembers.
"""

from __future__ import annotations

import dis
import functools
import struct
from collections.abc import Callable
from typing import Any

from _crosshair_tracers import frame_stack_read, frame_stack_write
from crosshair.tracers import COMPOSITE_TRACER, TracingModule

from conformance.symbolic.octets import Octets, Store, join, marks_of, number, pack, unpack
from conformance.symbolic.words import OURS, PATH, Word, plain

_CONTAINS = dis.opmap["CONTAINS_OP"]
_SUBSCRIPT = dis.opmap.get("BINARY_SUBSCR", 256)
_KEYS = 64
"""Keys of a container that a word is compared with at most."""


def _int(*args: Any, **kwargs: Any) -> Any:
    if len(args) == 1 and not kwargs:
        value = args[0]
        if type(value) is Word:
            return value
        inner = getattr(type(value), "__int__", None)
        if type(value) not in (int, str, bytes, float, bool) and inner is not None:
            return inner(value)
    return int(*args, **kwargs)


def _type(*args: Any) -> Any:
    if len(args) != 1:
        return type(*args)
    kind = type(args[0])
    return {Word: int, Octets: bytes, Store: bytearray}.get(kind, kind)


def _bytes(*args: Any) -> bytes:
    if len(args) == 1:
        (given,) = args
        if isinstance(given, bytes | bytearray):
            marks = marks_of(given)
            return Octets(memoryview(given), dict(marks)) if marks else bytes(memoryview(given))
        if isinstance(given, int):
            return bytes(plain(given))
        listed = list(given)
        marks = {at: ("byte", value.term, 0) for at, value in enumerate(listed) if type(value) is Word}
        return Octets(bytes(listed), marks) if marks else bytes(listed)
    return bytes(*args)


def _bytearray(*args: Any) -> bytearray:
    if len(args) == 1 and not isinstance(args[0], bytes | bytearray | int | memoryview):
        return Store(_bytes(args[0]))
    return Store(*args)


def _from_bytes(data: Any, byteorder: Any = "big", *, signed: bool = False) -> int:
    if isinstance(data, Octets | Store):
        return number(data, byteorder, signed=signed)
    return int.from_bytes(data, byteorder, signed=signed)


def _unpack_exactly(form: Any, data: Any) -> tuple[Any, ...]:
    return unpack(form, data) if marks_of(data) else struct.unpack(form, data)


def _method_unpack(self: struct.Struct, data: Any) -> tuple[Any, ...]:
    return unpack(self.format, data) if marks_of(data) else self.unpack(data)


def _method_unpack_from(self: struct.Struct, buffer: Any, offset: int = 0) -> tuple[Any, ...]:
    return unpack(self.format, buffer, offset)


def _method_pack(self: struct.Struct, *values: Any) -> bytes:
    return pack(self.format, *values)


def _join(self: bytes, parts: Any) -> bytes:
    listed = list(parts)
    return self.join(listed) if self or not any(marks_of(part) for part in listed) else join(listed)


def _get(self: dict[Any, Any], key: Any, default: Any = None) -> Any:
    _note_key(self, key)
    return dict.get(self, key, default)


INSTEAD: dict[Any, Callable[..., Any]] = {
    int: _int,
    type: _type,
    bytes: _bytes,
    bytearray: _bytearray,
    struct.pack: pack,
    struct.unpack: _unpack_exactly,
    struct.unpack_from: unpack,
    struct.Struct.pack: _method_pack,
    struct.Struct.unpack: _method_unpack,
    struct.Struct.unpack_from: _method_unpack_from,
    bytes.join: _join,
    dict.get: _get,
    int.from_bytes: _from_bytes,
}
"""What is called instead of what."""
_CACHED = type(functools.lru_cache(_get))


def _note_key(container: Any, key: Any) -> None:
    """A word is looked up among constants: it might have been any of them."""
    if type(key) is not Word or not PATH.on:
        return
    for other in list(container)[:_KEYS]:
        if isinstance(other, int):
            PATH.note(("eq", key.term, ("const", plain(other))), plain(other) == plain(key), plain(other))


class Calls(TracingModule):  # type: ignore[no-untyped-call]  # CrossHair comes half typed
    """Calls of what would forget a word. `trace_op` stays CrossHair's, which is then done in C."""

    def trace_call(self, frame: Any, fn: Any, binding_target: object) -> Callable[..., Any] | None:
        """What is called instead, if anything."""
        if type(fn) is _CACHED:
            wrapped: Callable[..., Any] = fn.__wrapped__
            return wrapped
        try:
            found = INSTEAD.get(fn)
        except TypeError:
            return None
        if found is None or frame.f_code.co_filename.startswith(OURS):
            return None
        return found


class LookUps(TracingModule):  # type: ignore[no-untyped-call]  # as above
    """Look-ups of words in containers."""

    opcodes_wanted = frozenset({_CONTAINS, _SUBSCRIPT})

    def trace_op(self, frame: Any, codeobj: Any, opcodenum: int) -> Any:
        """Before an instruction."""
        item = frame_stack_read(frame, -2 if opcodenum == _CONTAINS else -1)
        if type(item) is not Word:
            return
        container = frame_stack_read(frame, -1 if opcodenum == _CONTAINS else -2)
        if isinstance(container, range) and opcodenum == _CONTAINS:
            value = plain(item)
            if container.step == 1:
                PATH.note(("ge", item.term, ("const", container.start)), value >= container.start)
                PATH.note(("lt", item.term, ("const", container.stop)), value < container.stop)
            frame_stack_write(frame, -2, value)
        elif isinstance(container, dict | set | frozenset):
            _note_key(container, item)


class traced:  # noqa: N801  # used as a statement
    """Code inside is seen through."""

    def __init__(self) -> None:
        self.modules = (Calls(), LookUps())

    def __enter__(self) -> None:
        for module in self.modules:
            COMPOSITE_TRACER.push_module(module)
        COMPOSITE_TRACER.__enter__()

    def __exit__(self, *told: object) -> None:
        COMPOSITE_TRACER.__exit__(*told)  # type: ignore[no-untyped-call]  # as above
        for module in reversed(self.modules):
            COMPOSITE_TRACER.pop_config(module)
