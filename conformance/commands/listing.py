"""`conformance list` and `conformance explain`: what there is, and where each clause is checked."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from conformance.candidates.defect import Defect
from conformance.candidates.load import builtin_names, defects
from conformance.commands.options import nearest
from conformance.real.names import names as real
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import UsageError

WIDTH = 110

_ROOT = Path(__file__).parents[2]


def overview(names: Sequence[str]) -> str:
    """One paragraph per subsystem."""
    lines = []
    for name in names:
        of = subsystem(name)
        lines += [f"{name:<20}{of.title}"]
        lines += [f"{'':<20}{len(of.clauses)} clauses {of.clauses[0].id} to {of.clauses[-1].id}; {_zoo_size(name)}"]
        lines += [f"{'':<20}profiles {', '.join(of.profiles)}; candidates {', '.join(builtin_names(of))}"]
    lines += ["", "conformance list SUBSYSTEM shows its clauses, conformance explain CLAUSE one of them."]
    return "\n".join(lines)


def subsystem_text(name: str) -> str:
    """Everything there is of one subsystem."""
    of = subsystem(name)
    lines = [f"{name}: {of.title}", "", "profiles"]
    lines += [f"  {n:<18}{profile.text}" for n, profile in of.profiles.items()]
    lines += ["", "capabilities, all of them unless a candidate declares fewer"]
    lines += [f"  {n:<18}{sentence}" for n, sentence in of.capabilities.items()] or ["  none"]
    lines += [
        "",
        "candidates",
        *(f"  builtin:{n}" for n in builtin_names(of)),
        *(f"  real:{n}" for n in real(of)),
        "",
        "clauses",
    ]
    lines += [line for clause in of.clauses for line in _clause_lines(clause)]
    lines += ["", f"zoo: {_zoo_size(name)}; each runs as builtin:ID"]
    lines += [line for defect in defects(name) for line in _defect_lines(defect)]
    return "\n".join(lines)


def as_json(names: Sequence[str]) -> str:
    """The same for programs."""
    data = {"schema": 1, "subsystems": [_data(subsystem(name)) for name in names]}
    return msgspec.json.format(msgspec.json.encode(data), indent=1).decode()


def explain(identifier: str, names: Sequence[str]) -> str:
    """A clause, what cites it, what exercises it, and the defects it kills.

    Raises:
        UsageError  no subsystem has such a clause
    """
    of, clause = _find(identifier, names)
    lines = [f"{clause.id}  {clause.level.value}, {clause.kind.value}, {of.name}"]
    lines += textwrap.wrap(clause.text, WIDTH, initial_indent="  ", subsequent_indent="  ")
    lines += _labelled("source", clause.source)
    lines += _labelled("profiles", ", ".join(sorted(clause.profiles)) or "all")
    lines += _labelled("needs", ", ".join(sorted(clause.needs)))
    if clause.minimum > 1:
        lines += _labelled("minimum", f"a run must exercise it {clause.minimum} times")
    if clause.untestable:
        lines += _labelled("untestable", clause.untestable)
    for number, how in enumerate(_exercised(of, clause)):
        lines += _labelled("" if number else "checked by", how)
    for number, place in enumerate(_citations(of, clause)):
        lines += _labelled("" if number else "cited in", place)
    zoo = [defect for defect in defects(of.name) if clause.id in defect.clauses]
    for number, defect in enumerate(zoo):
        lines += _labelled("" if number else "kills", f"{defect.id}  {defect.text}")
    return "\n".join(lines)


def _find(identifier: str, names: Sequence[str]) -> tuple[Subsystem, Clause]:
    known = []
    prefix, _, number = identifier.upper().partition("-")
    wanted = f"{prefix}-{number:0>3}"
    for name in names:
        of = subsystem(name)
        for clause in of.clauses:
            if clause.id == wanted:
                return of, clause
            known.append(clause.id)
    raise UsageError(f"there is no clause {identifier!r}{nearest(identifier, known)}")


def _exercised(of: Subsystem, clause: Clause) -> Iterator[str]:
    """Ways in which a run comes to count the clause, beside the outcomes of the model."""
    fields = [field for field, blamed in of.view_clauses.items() if blamed is clause]
    if fields:
        yield f"the view: {', '.join(fields)} as observed after each step"
    calls = [call for call, clauses in of.clauses_of_calls().items() if clause in clauses]
    if calls:
        yield f"the environment, at each call of {', '.join(calls)}"
    operations = [op.__name__ for op, checks in of.checks.items() if any(check.clause is clause for check in checks)]
    if operations:
        yield f"a check after {', '.join(operations)}"
    if not (fields or calls or operations or clause.untestable):
        yield "results and views of the steps whose outcomes are cited below, or the simulators named there"
    if clause is of.robustness:
        yield "every step: a crash, a hang or a value of a wrong type breaks it"


def _citations(of: Subsystem, clause: Clause) -> Iterator[str]:
    """Functions of the model and the environment that name the clause's constant."""
    specs = importlib.import_module(f"conformance.specs.{of.name}")
    names = {name for name, value in _constants(specs) if value is clause}
    for room in ("conformance.model", "conformance.environment"):
        for module in _modules(f"{room}.{of.name}"):
            path = Path(inspect.getsourcefile(module) or "").resolve()
            where = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
            for function, line in _mentions(ast.parse(path.read_text()), names):
                yield f"{where}:{line}  {function}"


def _constants(module: ModuleType) -> Iterator[tuple[str, Any]]:
    yield from vars(module).items()
    for inner in _modules(module.__name__)[1:]:
        yield from vars(inner).items()


def _modules(name: str) -> list[ModuleType]:
    """A module, and the modules inside it when it is a folder."""
    module = importlib.import_module(name)
    inner = [
        importlib.import_module(f"{name}.{found.name}")
        for found in pkgutil.iter_modules(getattr(module, "__path__", []))
    ]
    return [module, *inner]


def _mentions(tree: ast.Module, names: set[str]) -> Iterator[tuple[str, int]]:
    """(function or table, line of the first mention) for each that names one of `names`."""
    for title, node in _named(tree):
        lines = [
            found.lineno
            for found in ast.walk(node)
            if (isinstance(found, ast.Name) and found.id in names)
            or (isinstance(found, ast.Attribute) and found.attr in names)
        ]
        if lines:
            yield title, min(lines)


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions and methods by name, and assignments by their target."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner
                elif isinstance(inner, ast.Assign | ast.AnnAssign):
                    yield f"{node.name}.{_target(inner)}", inner
        elif isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield _target(node), node


def _target(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return ast.unparse(target)


def _clause_lines(clause: Clause) -> list[str]:
    notes = [", ".join(sorted(clause.profiles))] if clause.profiles else []
    notes += [f"needs {', '.join(sorted(clause.needs))}"] if clause.needs else []
    notes += ["untestable"] if clause.untestable else []
    text = clause.text + (f" [{'; '.join(notes)}]" if notes else "")
    head = f"  {clause.id}  {clause.level.value:<9} "
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _defect_lines(defect: Defect) -> list[str]:
    missing = "" if defect.candidate is not None else f" [no candidate: {defect.why_not}]"
    head = f"  {defect.id:<10} "
    return textwrap.wrap(defect.text + missing, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _zoo_size(name: str) -> str:
    zoo = defects(name)
    runnable = sum(defect.candidate is not None for defect in zoo)
    return f"{len(zoo)} known defects" + (f", {runnable} of them runnable" if runnable < len(zoo) else "")


def _labelled(label: str, text: str) -> list[str]:
    if not text:
        return []
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<12}", subsequent_indent=" " * 14)


def _data(of: Subsystem) -> dict[str, Any]:
    return {
        "name": of.name,
        "title": of.title,
        "profiles": {name: profile.text for name, profile in of.profiles.items()},
        "capabilities": dict(of.capabilities),
        "candidates": [*(f"builtin:{name}" for name in builtin_names(of)), *(f"real:{name}" for name in real(of))],
        "clauses": [
            {
                "id": clause.id,
                "level": clause.level.value,
                "kind": clause.kind.value,
                "text": clause.text,
                "source": clause.source,
                "profiles": sorted(clause.profiles),
                "needs": sorted(clause.needs),
                "untestable": clause.untestable,
                "minimum": clause.minimum,
            }
            for clause in of.clauses
        ],
        "zoo": [
            {
                "id": defect.id,
                "text": defect.text,
                "candidate": f"builtin:{defect.id}" if defect.candidate is not None else None,
                "clauses": list(defect.clauses),
                "steps": defect.steps,
                "why_not": defect.why_not,
                "note": defect.note,
            }
            for defect in defects(of.name)
        ],
    }
