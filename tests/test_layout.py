"""One layout for all five subsystems, and the sizes that keep a room liveable."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.environment.simulator import Simulator
from conformance.specs.clause import Clause
from conformance.subsystem import NAMES, subsystem
from tests.test_imports import statements

ROOT = Path(__file__).parents[1]
ROOMS = {
    "specs": {"clauses", "profiles", "port", "constants"},
    "model": {"operations", "state", "step", "view"},
    "strategies": {"domains", "shapes", "scopes", "races", "suggest"},
    "conformance/environment": {"world", "operations", "view", "checks"},
    "conformance/candidates/builtin": {"upstream", "as_posted"},
    "conformance/candidates/defects": {"upstream"},
    "tests/conformance": {"test_simulators", "test_candidates", "test_zoo"},
}
"""What every subsystem has in a room, beside `__init__`; a file or a folder of that name."""
ONE_FILE = {
    "tests/specs": "test_{}.py",
    "tests/model": "test_{}.py",
    "tests/strategies": "test_{}.py",
    "tests/symbolic": "{}.py",
}
"""Rooms in which a subsystem is one file."""
FURTHER_NAMES = {"specs", "strategies"}
"""Rooms in which there is nothing else: chapters, simulators and candidates have names of their own."""
LONGEST_CLASS, LONGEST_FUNCTION, LONGEST_FILE = 400, 60, 700
PROJECT = ("specs", "model", "strategies", "conformance", "tests", "benchmarks")

everywhere = pytest.mark.parametrize("name", NAMES)


@everywhere
@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_the_same_files(room: str, name: str) -> None:
    """One guess finds any clause, rule, simulator or defect."""
    folder = ROOT / room / name
    there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}

    assert ROOMS[room] <= there, f"{room}/{name} lacks {', '.join(sorted(ROOMS[room] - there))}"
    if room in FURTHER_NAMES:
        assert there <= ROOMS[room] | {"__init__"}


@everywhere
@pytest.mark.parametrize("room", ONE_FILE)
def test_rooms_with_one_file_have_it(room: str, name: str) -> None:
    """Of the same name for all."""
    assert (ROOT / room / ONE_FILE[room].format(name)).is_file()


@everywhere
def test_a_file_of_defects_is_named_for_the_candidate_they_are_made_from(name: str) -> None:
    """`defects/S/upstream.py` holds what differs from `builtin/S/upstream.py`."""
    candidates, defects = (ROOT / "conformance" / "candidates" / kind / name for kind in ("builtin", "defects"))

    stray = {path.stem for path in defects.iterdir() if path.stem not in ("__init__", "__pycache__")} - {
        path.stem for path in candidates.iterdir()
    }

    assert not stray


def simulators(name: str) -> dict[str, type[Simulator]]:
    """The simulators of a subsystem's world, by attribute."""
    world = importlib.import_module(f"conformance.environment.{name}.world")
    worlds = [
        kind
        for kind in vars(world).values()
        if isinstance(kind, type) and "PORT" in vars(kind) and kind.__module__ == world.__name__
    ]
    (kind,) = worlds
    found: dict[str, type[Simulator]] = kind.simulators()
    return found


@everywhere
def test_the_world_is_made_of_simulators(name: str) -> None:
    """Each with a docstring that says what it stands for; the port's methods are theirs, not the world's."""
    found = simulators(name)

    assert len(found) >= 5
    for attribute, kind in found.items():
        assert len(kind.__doc__ or "") > 40, attribute
    world = importlib.import_module(f"conformance.environment.{name}").ENVIRONMENT
    of = subsystem(name)
    calls = {call for call in vars(of.port) if not call.startswith("_")}
    assert not {call for call in calls if call in vars(world)}


@everywhere
def test_a_simulator_names_the_clauses_that_it_cites(name: str) -> None:
    """All that its methods name; what else it lists, a function of its folder cites for it."""
    clauses = importlib.import_module(f"conformance.specs.{name}.clauses")
    folder = ROOT / "conformance" / "environment" / name
    helpers = [node for path in folder.glob("*.py") for node in ast.parse(path.read_text()).body]
    lent = {clause for node in helpers if not isinstance(node, ast.ClassDef) for clause in _clauses(node, clauses)}
    for attribute, kind in simulators(name).items():
        path = Path(importlib.import_module(kind.__module__).__file__ or "")
        (node,) = [
            n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef) and n.name == kind.__name__
        ]
        cited = {clause for inner in node.body if not _is_list(inner) for clause in _clauses(inner, clauses)}

        own = set(kind.CLAUSES)
        assert cited - own == set(), f"{attribute} in {path.name} does not list them"
        assert own - cited - _inherited(kind) - lent == set(), f"nothing in {path.name} cites these for {attribute}"


def _is_list(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in ("CLAUSES", "CALL_CLAUSES")


def _clauses(node: ast.AST, clauses: object) -> Iterator[Clause]:
    """The clauses that code names, as `c.NAME`."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "c":
            found = getattr(clauses, inner.attr, None)
            if isinstance(found, Clause):
                yield found


def _inherited(kind: type[Simulator]) -> set[Clause]:
    return {clause for base in kind.__mro__[1:] for clause in vars(base).get("CLAUSES", ())}


def test_nothing_grows_too_large() -> None:
    """Classes, functions and files, but for catalogues of clauses and zoos, which are data."""
    wrong = []
    for folder in PROJECT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            where = path.relative_to(ROOT)
            if len(text.splitlines()) > LONGEST_FILE and path.stem != "clauses" and "defects" not in path.parts:
                wrong.append(f"{where}: {len(text.splitlines())} lines")
            wrong += [f"{where}: {what}" for what in _too_long(ast.parse(text))]

    assert not wrong, "\n".join(wrong)


def _too_long(tree: ast.Module) -> Iterator[str]:
    for node in statements(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > (LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION):
                yield f"{node.name} has {lines} lines"
