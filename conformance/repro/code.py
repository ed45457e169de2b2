"""Values of traces as Python source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from conformance.reports.values import errno_name


class Source:
    """Writes values, and remembers what has to be imported for them."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}

    def name(self, kind: type) -> str:
        """The name of a class, imported."""
        self.imports.setdefault(kind.__module__, set()).add(kind.__name__)
        return kind.__name__

    def value(self, what: Any) -> str:
        """A value; of records those fields that are not as usual."""
        if dataclasses.is_dataclass(what) and not isinstance(what, type):
            given = [
                f"{f.name}={self.value(getattr(what, f.name))}" for f in dataclasses.fields(what) if _told(f, what)
            ]
            return f"{self.name(type(what))}({', '.join(given)})"
        if isinstance(what, tuple):
            inner = ", ".join(map(self.value, what))
            return f"({inner},)" if len(what) == 1 else f"({inner})"
        if type(what) is int and what >= 4096:
            return hex(what)
        return repr(what)

    def lines(self) -> list[str]:
        """The imports."""
        return [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(self.imports.items())]


def _told(field: dataclasses.Field[Any], what: Any) -> bool:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return default is dataclasses.MISSING or getattr(what, field.name) != default


def comment(lines: Iterable[str], indent: str = "") -> list[str]:
    """As comments."""
    return [f"{indent}# {line}".rstrip() for line in lines]


def meaning(results: tuple[Any, ...]) -> str:
    """Names of the errnos among the results, where there are any."""
    named = [errno_name(result) for result in results if type(result) is int and -4096 < result < 0]
    return f"  # {', '.join(named)}" if named else ""
