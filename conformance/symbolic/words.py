"""Ints that know how they were computed, and the path: what was asked of them, and how it was answered.

A `Word` is the int that it stands for, so whatever takes an int takes it. Arithmetic gives further words; each
comparison is noted, with the place in the code that made it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as File
from types import CodeType, FrameType
from typing import Any, Self

OURS = str(File(__file__).parent)
"""Frames of these files are not the place that made a comparison."""
WIDTH = 128
"""Bits of a term: what is larger is known by its value only."""
DEEPEST = 400
"""Operations in a term beyond which it is known by its value only."""
LONGEST = 4_000
"""Comparisons noted of one run."""

Term = tuple[Any, ...]
"""("var", name), ("const", n), or an operation and its terms."""
Site = tuple[CodeType, int, int | None]
"""Code, offset of the instruction, and the constant that was compared with, where it was one."""


@dataclass(slots=True, eq=False)
class Condition:
    """A comparison that was made, and its answer."""

    term: Term
    answer: bool
    site: Site
    step: int
    """Of the trace, from 0."""
    is_target: bool
    """Whether the other answer is worth looking for: made by candidate or model, not by the world."""


class Path:
    """The comparisons of one run, in their order."""

    __slots__ = ("conditions", "is_target", "on", "step")

    def __init__(self) -> None:
        self.conditions: list[Condition] = []
        self.on = False
        self.is_target = False
        self.step = 0

    def note(self, term: Term, answer: bool, extra: int | None = None) -> None:
        """A comparison is made."""
        if not self.on or len(self.conditions) >= LONGEST:
            return
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename.startswith(OURS):
            frame = frame.f_back
        if frame is None:
            return
        if extra is None and term[0] != "all" and term[2][0] == "const":
            extra = term[2][1]
        site = (frame.f_code, frame.f_lasti, extra)
        self.conditions.append(Condition(term, answer, site, self.step, self.is_target))


PATH = Path()
"""Of the run that is under way; there is one at a time."""


class Word(int):
    """An int and the term that it is the value of."""

    term: Term
    depth: int

    def __new__(cls, value: int, term: Term, depth: int = 1) -> Self:
        """The int with its term."""
        self = int.__new__(cls, value)
        self.term = term
        self.depth = depth
        return self

    __hash__ = int.__hash__

    def __bool__(self) -> bool:
        answer = int.__ne__(self, 0)
        PATH.note(("ne", self.term, ("const", 0)), answer)
        return answer

    def __neg__(self) -> int:
        return made(int.__neg__(self), ("sub", ("const", 0), self.term), self.depth)

    def __invert__(self) -> int:
        return made(int.__invert__(self), ("xor", self.term, ("const", -1)), self.depth)

    def __pos__(self) -> int:
        return self

    def __int__(self) -> int:
        return int.__int__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int.__int__(self),)

    def __deepcopy__(self, memo: Any) -> Word:
        return self

    def to_bytes(self, length: Any = 1, byteorder: Any = "big", *, signed: bool = False) -> bytes:
        """As bytes that know which part of the word they are."""
        from conformance.symbolic.octets import Octets

        data = int.to_bytes(self, length, byteorder, signed=signed)
        order = range(len(data)) if byteorder == "little" else range(len(data) - 1, -1, -1)
        return Octets(data, {at: ("byte", self.term, k) for at, k in enumerate(order)})


def term_of(value: int) -> Term:
    """Of a word its term, of any other int the constant."""
    return value.term if isinstance(value, Word) else ("const", int(value))


def made(value: int, term: Term, depth: int) -> int:
    """The word, or the plain int where the term would be too large to reason about."""
    if depth > DEEPEST or value.bit_length() >= WIDTH:
        return value
    return Word(value, term, depth + 1)


def plain(value: int) -> int:
    """The int alone."""
    return int.__int__(value)


def _arithmetic(name: str, symbol: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    forward, backward = getattr(int, f"__{name}__"), getattr(int, f"__r{name}__")

    def operate(self: Word, other: Any) -> Any:
        value = forward(self, other)
        if value is NotImplemented:
            return value
        depth = self.depth + (other.depth if isinstance(other, Word) else 0)
        return made(value, (symbol, self.term, term_of(other)), depth)

    def operate_reversed(self: Word, other: Any) -> Any:
        value = backward(self, other)
        if value is NotImplemented:
            return value
        return made(value, (symbol, term_of(other), self.term), self.depth)

    return operate, operate_reversed


def _comparison(symbol: str) -> Callable[..., Any]:
    concrete = getattr(int, f"__{symbol}__")

    def compare(self: Word, other: Any) -> Any:
        answer = concrete(self, other)
        if answer is not NotImplemented:
            PATH.note((symbol, self.term, term_of(other)), answer)
        return answer

    return compare


for _name, _symbol in {
    "add": "add", "sub": "sub", "mul": "mul", "floordiv": "div", "mod": "mod",
    "and": "and", "or": "or", "xor": "xor", "lshift": "shl", "rshift": "shr",
}.items():  # fmt: skip
    _forward, _backward = _arithmetic(_name, _symbol)
    setattr(Word, f"__{_name}__", _forward)
    setattr(Word, f"__r{_name}__", _backward)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Word, f"__{_name}__", _comparison(_name))
