"""Results that a clause leaves open: what equals them is allowed.

An outcome's `result` is compared with what the candidate returned; where a clause names no single
value, it holds one of these. They are written as what they allow. Each is equal to many values and has the hash of
none: in a set it stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Anything:
    """Every result: the specification says nothing."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "anything"


@dataclass(frozen=True, slots=True, eq=False)
class AnyErrno:
    """Every negative errno: the clause asks for an error and names none."""

    def __eq__(self, other: object) -> bool:
        return type(other) is int and other < 0

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "a negative errno"


@dataclass(frozen=True, slots=True, eq=False)
class OneOf:
    """Any of several values, with the words for them where a list would say less."""

    allowed: frozenset[Any]
    words: str = ""

    def __eq__(self, other: object) -> bool:
        return other in self.allowed

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.words or " or ".join(map(repr, sorted(self.allowed, key=repr)))


@dataclass(frozen=True, slots=True, eq=False)
class Such:
    """Every result of which a predicate holds."""

    words: str
    """What it allows: `an errno, or an answer that is no success`."""
    holds: Callable[[Any], bool]

    def __eq__(self, other: object) -> bool:
        return self.holds(other)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return self.words


ANYTHING = Anything()
ERRNO = AnyErrno()
