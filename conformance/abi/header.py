"""A header of the ABI, read: its two tables, the names and the types of their functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from conformance.verdict import UsageError

FOLDER = Path(__file__).parent
"""Where the headers are; what a compiler is told with -I."""

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_EXPORTED = re.compile(r"^extern .*;$", re.MULTILINE)
_DEFINE = re.compile(r"^#define (\w+) \(?(-?(?:0x)?[0-9A-Fa-f]+)(?:U|ULL)?\)?$", re.MULTILINE)
_MEMBER = re.compile(
    r"\t(?P<comment>/\*(?:(?!\*/).)*?\*/)\n"
    r"\t(?P<result>[\w ]+?) ?\(\*(?P<name>\w+)\)\((?P<arguments>[^)]*)\);",
    re.DOTALL,
)
"""A comment, and the function pointer that it describes."""
_KNOWN = "typedef _Bool bool; typedef unsigned long size_t; " + " ".join(
    f"typedef int {sign}int{bits}_t;" for sign in ("", "u") for bits in (8, 16, 32, 64)
)
"""What the included headers of the C library define, as far as names need it."""


@dataclass(frozen=True, slots=True)
class Function:
    """One entry of a table."""

    name: str
    parameters: tuple[str, ...]
    """Names of all arguments but the context pointer."""
    arguments: tuple[Any, ...]
    """Their types, as cffi has them."""
    result: Any


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a table as it is written."""

    name: str
    comment: str
    result: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Header:
    """The ABI of one subsystem."""

    subsystem: str
    text: str
    """All declarations, without comments and directives: what cffi is given."""
    version: int
    env: Mapping[str, Function]
    """Environment calls by name."""
    driver: Mapping[str, Function]
    """Entry points by name, without `create` and `destroy`."""


def numbers(text: str) -> dict[str, int]:
    """The numbers that a header defines."""
    return {name: int(value, 0) for name, value in _DEFINE.findall(text)}


def declarations(text: str) -> str:
    """A header without comments, directives and what the library exports."""
    plain = _DIRECTIVE.sub("", _COMMENT.sub("", text))
    return re.sub(r"\n\s*\n+", "\n", _EXPORTED.sub("", plain))


def ffi_class() -> Any:
    """cffi's FFI class.

    Raises:
        UsageError  cffi is not installed
    """
    try:
        from cffi import FFI
    except ImportError:
        raise UsageError("candidates by lib: need cffi: pip install 'conformance[c]'") from None
    return FFI


@cache
def header(name: str) -> Header:
    """The ABI of a subsystem, as its header has it."""
    return read(name, (FOLDER / f"{name}.h").read_text())


def members(name: str, table: str) -> list[Member]:
    """The functions of a subsystem's table, `env` or `driver`, in its order."""
    text = (FOLDER / f"{name}.h").read_text()
    written = text[text.index(f"struct {name}_{table} {{") :]
    found = _MEMBER.finditer(written[: written.index("\n};")])
    return [Member(m["name"], m["comment"], m["result"].strip(), " ".join(m["arguments"].split())) for m in found]


def read(name: str, text: str) -> Header:
    """A header's text, read."""
    plain = declarations((FOLDER / "types.h").read_text()) + declarations(text)
    ffi = ffi_class()()
    ffi.cdef(plain)
    named = _parameter_names(plain)
    driver = _functions(ffi, f"struct {name}_driver", named)
    return Header(
        subsystem=name,
        text=plain,
        version=numbers(text)[f"{name.upper()}_ABI"],
        env=_functions(ffi, f"struct {name}_env", named),
        driver={entry: function for entry, function in driver.items() if entry not in ("create", "destroy")},
    )


def _functions(ffi: Any, struct: str, named: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[str, Function]:
    """The function pointers of a struct, in their order."""
    fields = ((entry, field.type) for entry, field in ffi.typeof(struct).fields)
    return {
        entry: Function(entry, named[struct, entry][1:], kind.args[1:], kind.result)
        for entry, kind in fields
        if kind.kind == "function"
    }


def _parameter_names(plain: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Names of the arguments by struct and function pointer; cffi keeps their types only."""
    from pycparser import CParser, c_ast  # cffi's own parser

    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for node in CParser().parse(_KNOWN + plain).ext:
        struct = getattr(node, "type", None)
        if not isinstance(struct, c_ast.Struct) or struct.decls is None:
            continue
        for member in struct.decls:
            function = getattr(member.type, "type", None)
            if isinstance(function, c_ast.FuncDecl):
                found[f"struct {struct.name}", member.name] = tuple(p.name for p in function.args.params)
    return found
