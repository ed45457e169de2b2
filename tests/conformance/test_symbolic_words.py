"""Words remember how they were computed, bytes what they are parts of, and the solver goes the other way."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("crosshair", reason="CrossHair is not installed: pip install 'conformance[symbolic]'")

from conformance.symbolic.octets import Octets, Store
from conformance.symbolic.solver import Solver, Variable
from conformance.symbolic.tracing import traced
from conformance.symbolic.words import PATH, Condition, Word

HIGHEST = (1 << 64) - 1
MAGIC = 0x9E37_79B9_7F4A_7C15


def path_of(function: Callable[..., Any], *values: int) -> Any:
    """What a function answers when it is asked with words; the path is then in PATH."""
    words = [Word(value, ("var", (at,))) for at, value in enumerate(values)]
    PATH.conditions, PATH.on, PATH.is_target = [], True, True
    try:
        with traced():
            return function(*words)
    finally:
        PATH.on = False


def other_way(function: Callable[..., Any], *values: int) -> list[int]:
    """Arguments with which the function answers True, by turning one comparison after the other."""
    waiting, asked = [list(values)], set()
    while waiting:
        found = waiting.pop(0)
        if path_of(function, *found):
            return found
        path = list(PATH.conditions)
        variables = {(at,): Variable(value, 0, HIGHEST) for at, value in enumerate(found)}
        for at, condition in enumerate(path):
            if (condition.site, condition.answer) not in asked:
                asked.add((condition.site, condition.answer))
                solved = Solver(variables, path).solve(condition.term, not condition.answer, at)
                if solved is not None:
                    waiting.append([solved.get((n,), value) for n, value in enumerate(found)])
    raise AssertionError("no arguments found")


TABLE = {MAGIC: "found", 7: "other"}


@functools.lru_cache
def mixed(value: int) -> int:
    """A cached function: what it made of a word must not be what it gives for an int."""
    return value ^ value >> 3


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a == MAGIC,
        lambda a, b: int(a) + 1 == MAGIC,
        lambda a, b: a * 0x85EB_CA6B & 0xFFFF_FFFF == 0x1234_5678,
        lambda a, b: a ^ b == MAGIC and a > b,
        lambda a, b: a >> 17 == 0x1234 and b % 4096 == 0x777,
        lambda a, b: a // 16 == MAGIC >> 8,
        lambda a, b: a in TABLE and TABLE[a] == "found",
        lambda a, b: a in {MAGIC, MAGIC + 1},
        lambda a, b: a in range(1 << 40, (1 << 40) + 5),
        lambda a, b: a.to_bytes(8, "little") == b"\x01magic\x02\x03",
        lambda a, b: struct.pack("<QQ", a, b)[5:11] == b"middle",
        lambda a, b: struct.unpack_from(">H", struct.pack("<Q", a), 2)[0] == 0xBEEF,
        lambda a, b: int.from_bytes(bytes(a.to_bytes(8, "big"))[2:6], "big") == 0x5EED_F00D,
        lambda a, b: mixed(a) == MAGIC,
    ],
)
def test_an_argument_is_found(function: Callable[[int, int], bool]) -> None:
    """By way of arithmetic, look-ups, bytes, records and caches."""
    arguments = other_way(function, 5, 9)

    assert function(*arguments)
    assert all(type(value) is int for value in arguments)


def test_memory_remembers_what_was_stored() -> None:
    """And forgets what was stored over."""
    word = Word(0x1122_3344, ("var", (0,)))
    store = Store(16)

    store[4:8] = word.to_bytes(4, "little")
    store[5] = 0

    assert bytes(memoryview(store)) == bytes(4) + b"\x44\x00\x22\x11" + bytes(8)
    assert sorted(store.marks) == [4, 6, 7]
    assert isinstance(store[4:8], Store)
    assert isinstance(store[6], Word)
    assert type(store[5]) is int


def test_bytes_of_words_are_bytes() -> None:
    """Whoever looks closely sees no difference."""
    octets = Word(0x4142, ("var", (0,))).to_bytes(2, "big")

    assert isinstance(octets, Octets)
    assert octets == b"AB"
    assert b"<" + octets + b">" == b"<AB>"
    assert hash(octets) == hash(b"AB")
    assert octets.ljust(4, b"\0") == b"AB\0\0"


def test_a_cache_gives_no_words_away() -> None:
    """What is cached is what plain ints gave."""
    path_of(lambda a, b: mixed(a) > b, 1000, 1)

    assert type(mixed(1000)) is int


def test_what_need_not_change_stays_as_it_is() -> None:
    """A number is solved for, and what it is compared with on the way keeps its value where it can."""
    variables = {(name,): Variable(value, 0, (1 << 64) - 1) for name, value in (("first", 7), ("last", 9))}
    first, last = ((("var", name)) for name in variables)
    path = [Condition(("lt", first, last), True, (test_what_need_not_change_stays_as_it_is.__code__, 0, None), 0, True)]
    solver = Solver(variables, path)
    difference = ("eq", ("sub", last, first), ("const", 0xABCDEF))

    assert solver.solve(("eq", last, ("const", 0xABCDEF)), True, 1) == {("last",): 0xABCDEF}
    assert solver.alone(difference, True) == [{("last",): 0xABCDEF + 7}]
