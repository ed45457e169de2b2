"""What every scaffold says of a subsystem: its entry points, calls and capabilities, as text."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, get_args, get_origin

from conformance.candidates.promised import asked_for, entry_points
from conformance.subsystem import Subsystem
from conformance.wire.entries import entries_of
from conformance.wire.values import Method, methods

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which part of a subsystem a new candidate begins with."""

    of: Subsystem
    capabilities: frozenset[str]

    @property
    def entries(self) -> Mapping[str, Method]:
        """The entry points that it must have, by name."""
        known = entries_of(self.of)
        return {name: known[name] for name, _, _ in entry_points(self.of, self.capabilities)}

    @property
    def calls(self) -> Mapping[str, Method]:
        """The environment calls that it may make, by name."""
        return methods(self.of.port)


def plan(of: Subsystem, asked: frozenset[str]) -> Plan:
    """The plan for these capabilities; where none is asked for, for the least with which there is something to do."""
    return Plan(of, asked or _least(of))


def _least(of: Subsystem) -> frozenset[str]:
    """No capability, or the one with most entry points of those that lead to something alone."""
    if _applies(of, frozenset()):
        return frozenset()
    alone = [name for name in of.capabilities if _applies(of, frozenset({name}))]
    return frozenset({max(alone, key=lambda name: len(asked_for(of, name)))})


def _applies(of: Subsystem, has: frozenset[str]) -> bool:
    """Whether an operation can be drawn in a world."""
    worlds = any(of.requires(config) <= has for config in of.configs)
    return worlds and any(of.needs.get(op, frozenset()) <= has for op, shape in of.shapes.items() if shape.weight > 0)


def filled(template: str, **values: str) -> str:
    """One of the templates with its names replaced."""
    return Template((TEMPLATES / template).read_text()).substitute(values)


def type_text(kind: Any) -> str:
    """A type of the port as it is written."""
    if kind is type(None):
        return "None"
    if kind is Ellipsis:
        return "..."
    if get_origin(kind) is tuple:
        return f"tuple[{', '.join(map(type_text, get_args(kind))) or '()'}]"
    return str(kind.__name__)


def not_implemented(kind: Any, *, first: bool = True) -> str:
    """What an entry point with this result answers that does nothing: -ENOSYS, or what is nearest to it."""
    if kind is int:
        return "-ENOSYS" if first else "0"
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not inner or inner[-1] is Ellipsis:
            return "()"
        return f"({', '.join(not_implemented(k, first=first and not n) for n, k in enumerate(inner))},)".replace(
            ",)", ")" if len(inner) > 1 else ",)"
        )
    return {bool: "False", bytes: 'b""', str: '""'}.get(kind, "None")


def signature(name: str, method: Method) -> str:
    """The call as it is written: `probe(irq: int) -> int`."""
    inner = ", ".join(f"{parameter}: {type_text(kind)}" for parameter, kind in method.parameters.items())
    return f"{name}({inner}) -> {type_text(method.result)}"


def in_one_line(doc: str) -> str:
    """All that is said of a method, as the cell of a table."""
    return " ".join(doc.split()).replace("|", "\\|")


def wrapped(doc: str, width: int, indent: str = "") -> Iterator[str]:
    """A docstring's lines, wrapped anew; lists and indented lines stay as they are."""
    for number, paragraph in enumerate(inspect.cleandoc(doc).split("\n\n")):
        if number:
            yield indent.rstrip()
        if re.search(r"\n\s+\S", paragraph):
            yield from (indent + line for line in paragraph.splitlines())
        else:
            flat = " ".join(paragraph.split())
            yield from textwrap.wrap(
                flat, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )


def table(of: Mapping[str, Method]) -> str:
    """Calls and what they do, as Markdown."""
    rows = [f"| `{signature(name, method)}` | {in_one_line(method.doc)} |" for name, method in of.items()]
    return "\n".join(["| call | does |", "|---|---|", *rows])


def capabilities(plan_: Plan) -> str:
    """The capabilities that there are, with the entry points that each needs, as Markdown."""
    rows = []
    for name, sentence in plan_.of.capabilities.items():
        needs = [f"`{entry}`" for entry in asked_for(plan_.of, name)]
        mark = "yes" if name in plan_.capabilities else ""
        rows.append(f"| `{name}` | {mark} | {sentence} | {', '.join(needs)} |")
    return "\n".join(["| capability | declared | means | entry points |", "|---|---|---|---|", *rows])
