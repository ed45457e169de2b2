"""Which folder may import which: specs, then model, then strategies, then conformance; nothing looks down."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = ("specs", "model", "strategies", "conformance")
"""Each folder may import the ones before it."""
OUTSIDE = {
    "specs": set[str](),
    "model": set[str](),
    "strategies": {"hypothesis"},
}
"""What else, beside the standard library, may be imported; conformance may import what pyproject asks for."""
STANDARD = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "enum", "errno", "functools", "hashlib", "hmac",
    "itertools", "math", "operator", "random", "re", "struct", "types", "typing",
}  # fmt: skip
"""The part of the standard library that pure code may use: nothing that has a clock, files or a network.

`random` is there for `random.Random` as a type: the campaign passes its own, seeded.
"""


def files(folder: str) -> list[Path]:
    """Python files of one row."""
    return sorted((ROOT / folder).rglob("*.py"))


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement within, those inside others too."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.stmt):
            yield inner
        if not isinstance(inner, ast.expr):
            yield from statements(inner)


@cache
def imports(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """All of a file, inside functions too; several tests ask."""
    every = statements(ast.parse(path.read_text()))
    return tuple(node for node in every if isinstance(node, ast.Import | ast.ImportFrom))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(row or top-level package, line) of every import; relative ones stay inside the folder and are left out."""
    for node in imports(path):
        if isinstance(node, ast.Import):
            yield from ((_row(alias.name), node.lineno) for alias in node.names)
        elif node.level == 0 and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((_row(name), node.lineno) for name in names)


def _row(module: str) -> str:
    """The row of one of our modules; of others the top-level package."""
    first, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    return second if first == "conformance" and second in ROWS else first


def test_only_the_package_names_the_rooms() -> None:
    """A plain `model` is another module here, and somebody else's elsewhere."""
    folders = (*ROWS, "tests", "benchmarks", "examples")

    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in folders
        for path in files(folder)
        for node in imports(path)
        if _top(node) & {"specs", "model", "strategies"}
    ]

    assert not wrong


def _top(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The top-level packages that an absolute import names."""
    if isinstance(node, ast.ImportFrom):
        return set() if node.level else {(node.module or "").partition(".")[0]}
    return {alias.name.partition(".")[0] for alias in node.names}


@pytest.mark.parametrize("folder", ROWS)
def test_nothing_imports_a_folder_below_its_own(folder: str) -> None:
    """The direction holds, imports inside functions included; nobody imports the tests."""
    forbidden = {*ROWS[ROWS.index(folder) + 1 :], "tests", "benchmarks", "examples"}

    wrong = [
        f"{p.relative_to(ROOT)}:{line} imports {n}" for p in files(folder) for n, line in imported(p) if n in forbidden
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", list(OUTSIDE))
def test_the_pure_folders_import_little(folder: str) -> None:
    """A model that cannot reach a clock or a file has none."""
    allowed = {*ROWS[: ROWS.index(folder) + 1], *OUTSIDE[folder], *STANDARD}

    wrong = [
        f"{p.relative_to(ROOT)}:{line} imports {n}"
        for p in files(folder)
        for n, line in imported(p)
        if n not in allowed
    ]

    assert not wrong, "\n".join(wrong)


def test_candidates_do_not_know_the_model() -> None:
    """A candidate that shared code with the model would share its mistakes."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "conformance" / "candidates" / "builtin").rglob("*.py")
        for name, line in imported(path)
        if name in ("model", "strategies")
    ]

    assert not wrong, "\n".join(wrong)


def test_what_is_imported_is_asked_for() -> None:
    """Every package that conformance imports is a dependency; those of an extra are where the extra is for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in project["dependencies"]}
    ours = {*ROWS, *sys.stdlib_module_names}
    extras = {
        ("cffi", "abi"),
        ("pycparser", "abi"),
        ("cryptography", "snp_guest_request"),
        ("jinja2", "html.py"),
        ("distributed", "cluster.py"),
        ("distributed", "station.py"),
        ("crosshair", "symbolic"),
        ("_crosshair_tracers", "symbolic"),
        ("z3", "symbolic"),
    }

    stray = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files("conformance")
        for name, line in imported(path)
        if name not in asked | ours and not any((name, part) in extras for part in path.parts)
    ]

    assert not stray, "\n".join(stray)
