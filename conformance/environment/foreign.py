"""Objects that a candidate has made: how they are shown and kept, whatever their own methods do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LONGEST = 1_000
"""Characters that are shown of one object."""
DEEPEST = 8
"""Levels of tuples and lists that are told one by one; no environment call takes more than three."""
_PLAIN = (int, str, bytes, bool, float, type(None))


class Strange:
    """What stands for an object that no environment call takes: it is told, and nothing is done with it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def shown(value: Any) -> str:
    """Its repr, of bounded length; its type where that cannot be had."""
    return _text(repr, value)


def described(error: BaseException) -> str:
    """What an exception says, of bounded length; nothing where it cannot say it."""
    return _text(str, error)


def plain(value: Any) -> Any:
    """The same without a class of the candidate's: what another process can be told, which has none of them."""
    return _plain(value, DEEPEST)


def _plain(value: Any, levels: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return _cut(value) if kind is str else value
    if _is_ours(kind):
        return value
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, str):
        return _cut(str.__str__(value))
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    if levels:
        if kind is list:
            return [_plain(item, levels - 1) for item in value]
        if isinstance(value, tuple):
            return tuple(_plain(item, levels - 1) for item in tuple.__iter__(value))
    return Strange(shown(value))


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("conformance", "specs")


def _text(to: Callable[[Any], str], value: Any) -> str:
    try:
        text = str.__str__(to(value))
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        text = f"<{type(value).__name__}>" if to is repr else ""
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… and {len(text) - LONGEST} characters more"
