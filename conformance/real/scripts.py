"""Measured facts that no operation of a subsystem can say: scripts of plain acts, each with what it was seen to give.

A script is a file of JSON lines in `corpus/S/real/raw/`. The first line says whose fact it is; each other line is one
act of the adapter's bench: `do`, its arguments by name, and perhaps `gives`, the result that was measured; `keep`, a
name for the result; `when`, results that have to be kept for the line to be done. `"$name"` is a result that was kept,
and a text that begins with `0x` a number.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from conformance.verdict import Breach, HarnessError

SUFFIX = ".jsonl"
_WORDS = {"do", "gives", "keep", "when"}
_HEADER = {"adapter", "fact", "row", "finding"}
_NUMBER = re.compile(r"-?0x[0-9a-f]+")
_UNSAID = object()
Method = TypeVar("Method", bound=Callable[..., Any])


def act(method: Method) -> Method:
    """A method of a bench that scripts can name."""
    method.is_act = True  # type: ignore[attr-defined]  # a mark on the function
    return method


class Bench(ABC):
    """One real implementation, laid out for scripts: a fresh one for each.

    An act makes one or a few calls of the real interface and returns what they gave: a number, a text, or a list of
    these. A negative number is an errno, which an act may raise as OSError, too.
    """

    ACTS: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.ACTS |= {name for name, method in vars(cls).items() if getattr(method, "is_act", False)}

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    def do(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """One act."""
        try:
            return getattr(self, name)(**arguments)
        except OSError as error:
            return -(error.errno or 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One act of a script."""

    do: str
    arguments: Mapping[str, Any]
    gives: Any
    """What was measured; `_UNSAID` where nothing is compared."""
    keep: str
    when: Mapping[str, tuple[Any, ...]]

    @property
    def is_compared(self) -> bool:
        """Whether it says what was measured."""
        return self.gives is not _UNSAID

    def __str__(self) -> str:
        told = (f"{name}={_text(value)}" for name, value in self.arguments.items())
        return f"{self.do}({', '.join(told)})"


@dataclass(frozen=True, slots=True)
class Script:
    """One fact, or what belongs to one row of them."""

    name: str
    adapter: str
    """The folder of `conformance/real/`."""
    fact: str
    """The section that it was measured for: `A.5`."""
    row: str
    finding: str
    """The id in `docs/findings.md` of what a right implementation would not do."""
    lines: tuple[Line, ...]


def load(path: Path) -> Script:
    """Read a script; HarnessError where it is none, since all of them are shipped."""
    try:
        head, *rest = (msgspec.json.decode(line) for line in path.read_bytes().splitlines())
        if not set(head) <= _HEADER or not all(isinstance(value, str) for value in head.values()):
            raise HarnessError(f"{path}: its first line has the texts {', '.join(sorted(_HEADER))} alone")
        lines = tuple(_line(data) for data in rest)
        return Script(path.stem, head["adapter"], head["fact"], head["row"], head.get("finding", ""), lines)
    except (OSError, ValueError, KeyError, msgspec.DecodeError) as error:
        raise HarnessError(f"{path}: not a script: {error}") from None


def shipped(folder: Path, adapter: str) -> list[Script]:
    """The scripts of an adapter, in a fixed order."""
    return [script for path in sorted(folder.glob(f"*{SUFFIX}")) if (script := load(path)).adapter == adapter]


def check(script: Script, bench: type[Bench]) -> None:
    """HarnessError where a line asks for what the bench does not have, or nothing is compared."""
    for line in script.lines:
        if line.do not in bench.ACTS:
            raise HarnessError(f"{script.name}: no act {line.do!r}; known: {', '.join(sorted(bench.ACTS))}")
        try:
            inspect.signature(getattr(bench, line.do)).bind(None, **line.arguments)
        except TypeError as error:
            raise HarnessError(f"{script.name}: {line}: {error}") from None
    if not any(line.is_compared for line in script.lines):
        raise HarnessError(f"{script.name}: nothing is compared")


class Outcome(Enum):
    """What came of a script, as reports say it."""

    SAME = "reproduced"
    DIFFERENT = "not reproduced"
    ABSENT = "left out, as this version does not have what they ask"
    RIGHT = "that are findings and do not show here"


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a script."""

    script: Script
    compared: int
    """Results that were held against what was measured; 0 where nothing of it is there."""
    difference: str
    """The first result that is another; empty where there is none."""

    @property
    def outcome(self) -> Outcome:
        """In one word."""
        if self.difference:
            return Outcome.RIGHT if self.script.finding else Outcome.DIFFERENT
        return Outcome.SAME if self.compared else Outcome.ABSENT


def play(script: Script, bench: Bench) -> Played:
    """Do the acts up to the first that gives something else."""
    kept: dict[str, Any] = {}
    compared = 0
    for number, line in enumerate(script.lines, start=1):
        if any(kept.get(name) not in wanted for name, wanted in line.when.items()):
            continue
        given = {name: _said(value, kept) for name, value in line.arguments.items()}
        told = bench.do(line.do, given)
        if line.keep:
            kept[line.keep] = told
        if line.is_compared:
            compared += 1
            if told != _said(line.gives, kept):
                where = f"act {number} of {len(script.lines)}, {line}"
                return Played(script, compared, f"{where} gave {_text(told)}, measured was {_text(line.gives)}")
    return Played(script, compared, "")


def play_all(scripts: list[Script], bench: Callable[[], Bench]) -> Iterator[Played]:
    """Each on a fresh bench; once more where the real thing ended under it, which emulators do of their own."""
    for script in scripts:
        try:
            yield _played(script, bench)
        except HarnessError:
            yield _played(script, bench)


def _played(script: Script, bench: Callable[[], Bench]) -> Played:
    try:
        made = bench()
        try:
            return play(script, made)
        finally:
            made.close()
    except Breach as breach:
        raise HarnessError(f"{script.name}: {breach.detail}") from None


def _line(data: dict[str, Any]) -> Line:
    when = {name: tuple(_number(value) for value in values) for name, values in data.get("when", {}).items()}
    arguments = {name: _number(value) for name, value in data.items() if name not in _WORDS}
    gives = _number(data["gives"]) if "gives" in data else _UNSAID
    return Line(data["do"], arguments, gives, data.get("keep", ""), when)


def _number(value: Any) -> Any:
    """With each text that is a number as a number."""
    if isinstance(value, list):
        return [_number(each) for each in value]
    return int(value, 16) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _said(value: Any, kept: Mapping[str, Any]) -> Any:
    """With each name of a result replaced by that."""
    if isinstance(value, list):
        return [_said(each, kept) for each in value]
    if isinstance(value, str) and value.startswith("$"):
        return kept[value[1:]]
    return value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_text(each) for each in value)}]"
    return hex(value) if isinstance(value, int) and value > 255 else str(value)
