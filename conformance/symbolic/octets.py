"""Bytes that know which of them are parts of a word: contents of pages, records, registers in memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Self, SupportsIndex

from conformance.symbolic.words import PATH, Term, Word, term_of

Marks = Mapping[int, Term]
"""Offset -> the term of the byte there."""


def marks_of(data: Any) -> Marks:
    """Of bytes that know nothing, none."""
    return data.marks if isinstance(data, Octets | Store) else {}


def _cut(data: Octets | Store, key: slice) -> dict[int, Term]:
    start, stop, stride = key.indices(len(data))
    if stride != 1:
        return {}
    if stop - start < len(data.marks):
        return {at - start: data.marks[at] for at in range(start, stop) if at in data.marks}
    return {at - start: term for at, term in data.marks.items() if start <= at < stop}


def _same(left: Any, right: Any, answer: bool) -> bool:
    """Note that bytes were compared."""
    if len(left) == len(right) and (marks_of(left) or marks_of(right)):
        mine, others = marks_of(left), marks_of(right)
        unknown = sorted({*mine, *others})
        raw, other = _raw(left), _raw(right)
        fixed = answer or all(raw[at] == other[at] for at in range(len(raw)) if at not in mine and at not in others)
        if fixed:
            each = tuple(
                ("eq", mine.get(at, ("const", raw[at])), others.get(at, ("const", other[at]))) for at in unknown
            )
            PATH.note(("all", *each), answer)
    return answer


def _raw(data: Any) -> bytes:
    return bytes.__getitem__(data, slice(None)) if isinstance(data, bytes) else bytes(memoryview(data))


class Octets(bytes):
    """Bytes, some of which are parts of words."""

    marks: Marks

    def __new__(cls, data: Any, marks: Marks) -> Self:
        """The bytes with their marks."""
        self = bytes.__new__(cls, data)
        self.marks = marks
        return self

    __hash__ = bytes.__hash__

    def __getitem__(self, key: Any) -> Any:
        found = bytes.__getitem__(self, key)
        if isinstance(key, slice):
            return Octets(found, _cut(self, key))
        at = key if key >= 0 else len(self) + key
        return Word(found, self.marks[at]) if at in self.marks else found

    def __iter__(self) -> Iterator[int]:
        for at, value in enumerate(bytes.__iter__(self)):
            yield Word(value, self.marks[at]) if at in self.marks else value

    def __add__(self, other: Any) -> bytes:
        return join([self, other])

    def __radd__(self, other: Any) -> bytes:
        return join([other, self])

    def __eq__(self, other: object) -> bool:
        answer = bytes.__eq__(self, other)
        return _same(self, other, answer) if isinstance(other, bytes | bytearray) else answer

    def __ne__(self, other: object) -> bool:
        answer = bytes.__ne__(self, other)
        return not _same(self, other, not answer) if isinstance(other, bytes | bytearray) else answer

    def ljust(self, width: SupportsIndex, fill: Any = b" ") -> bytes:
        """Padded on the right."""
        return Octets(bytes.ljust(self, width, fill), self.marks)

    def startswith(self, prefix: Any, *where: Any) -> bool:
        """Whether it begins so."""
        if where or not isinstance(prefix, bytes | bytearray) or len(prefix) > len(self):
            return bytes.startswith(self, prefix, *where)
        return bool(self[: len(prefix)] == prefix)

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (_raw(self),)


class Store(bytearray):
    """Memory: bytes that are written, some of which are parts of words."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.marks: dict[int, Term] = dict(marks_of(args[0])) if args else {}

    def __getitem__(self, key: Any) -> Any:
        found = bytearray.__getitem__(self, key)
        if isinstance(key, slice):
            part = Store(found)
            part.marks = _cut(self, key)
            return part
        at = key if key >= 0 else len(self) + key
        return Word(found, self.marks[at]) if at in self.marks else found

    def __setitem__(self, key: Any, value: Any) -> None:
        before = len(self)
        bytearray.__setitem__(self, key, value)
        if not isinstance(key, slice):
            at = key if key >= 0 else before + key
            self.marks.pop(at, None)
            if isinstance(value, Word):
                self.marks[at] = ("byte", value.term, 0)
            return
        start, stop, stride = key.indices(before)
        if stride != 1 or len(self) != before:
            self.marks = {}
            if (start, stop) != (0, before):
                return
        else:
            for at in [at for at in self.marks if start <= at < stop]:
                del self.marks[at]
        for at, term in marks_of(value).items():
            self.marks[start + at] = term

    def __iter__(self) -> Iterator[int]:
        for at, value in enumerate(bytearray.__iter__(self)):
            yield Word(value, self.marks[at]) if at in self.marks else value

    def __add__(self, other: Any) -> bytearray:
        return Store(join([self, other]))

    def __eq__(self, other: object) -> bool:
        answer = bytearray.__eq__(self, other)
        return _same(self, other, answer) if isinstance(other, bytes | bytearray) else answer

    def __ne__(self, other: object) -> bool:
        answer = bytearray.__ne__(self, other)
        return not _same(self, other, not answer) if isinstance(other, bytes | bytearray) else answer

    __hash__ = None  # as of any bytearray


def join(parts: list[Any]) -> bytes:
    """One after the other."""
    marks: dict[int, Term] = {}
    base = 0
    for part in parts:
        for at, term in marks_of(part).items():
            marks[base + at] = term
        base += len(part)
    data = b"".join(map(_raw, parts))
    return Octets(data, marks) if marks else data


def number(data: Any, order: str, *, signed: bool = False) -> int:
    """The int that bytes stand for."""
    raw = _raw(data)
    value = int.from_bytes(raw, order, signed=signed)  # type: ignore[arg-type]  # little or big
    marks = marks_of(data)
    if not marks or len(raw) > 8:
        return value
    places = [
        (at if order == "little" else len(raw) - 1 - at, marks.get(at, ("const", raw[at]))) for at in range(len(raw))
    ]
    places.sort()
    first = places[0][1]
    term: Term
    if all(term[0] == "byte" and term[1] is first[1] and term[2] == k for k, term in places):
        term = ("and", first[1], ("const", (1 << 8 * len(raw)) - 1))
    else:
        term = ("const", 0)
        for k, part in places:
            term = ("or", term, ("shl", part, ("const", 8 * k)))
    if signed:
        top = 1 << 8 * len(raw) - 1
        term = ("sub", ("xor", term, ("const", top)), ("const", top))
    return Word(value, term)


_SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "l": 4, "L": 4, "q": 8, "Q": 8}


def _fields(form: str) -> list[tuple[str, int]] | None:
    """(code, count) of a format without alignment; None for others."""
    if isinstance(form, bytes):
        form = form.decode()
    if form[:1] not in ("<", ">", "=", "!"):
        return None
    listed, count = [], ""
    for letter in form[1:]:
        if letter.isdigit():
            count += letter
        elif letter in "xs":
            listed.append((letter, int(count or 1)))
            count = ""
        elif letter in _SIZES:
            listed += [(letter, 1)] * int(count or 1)
            count = ""
        elif not letter.isspace():
            return None
    return listed


def unpack(form: str, data: Any, offset: int = 0) -> tuple[Any, ...]:
    """As `struct.unpack_from`."""
    values = struct.unpack_from(form, data, offset)
    fields = _fields(form)
    if not marks_of(data) or fields is None:
        return values
    order = "big" if form[:1] in (">", "!") else "little"
    found: list[Any] = []
    at = offset
    for letter, count in fields:
        size = _SIZES.get(letter, 1) * count
        part = data[at : at + size]
        at += size
        if letter == "s":
            found.append(Octets(_raw(part), marks_of(part)))
        elif letter != "x":
            found.append(number(part, order, signed=letter.islower()))
    return tuple(found)


def pack(form: str, *values: Any) -> bytes:
    """As `struct.pack`."""
    data = struct.pack(form, *values)
    fields = _fields(form)
    if fields is None or not any(isinstance(value, Word | Octets) for value in values):
        return data
    order = "big" if form[:1] in (">", "!") else "little"
    marks: dict[int, Term] = {}
    left, at = list(values), 0
    for letter, count in fields:
        size = _SIZES.get(letter, 1) * count
        if letter != "x":
            value = left.pop(0)
            if isinstance(value, Word):
                term = term_of(value)
                for k in range(size):
                    marks[at + (k if order == "little" else size - 1 - k)] = ("byte", term, k)
            elif letter == "s":
                marks |= {at + k: term for k, term in marks_of(value).items() if k < size}
        at += size
    return Octets(data, marks)
