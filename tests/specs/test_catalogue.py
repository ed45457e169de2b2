"""What holds of every catalogue of clauses, and of every zoo."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.candidates.load import builtin_names, defects, load
from conformance.specs.clause import Level
from conformance.subsystem import available, subsystem

ROOT = Path(__file__).resolve().parents[2]
CLAUSES = {"uio_msi": 90, "cet": 92, "avic": 107, "snp_guest_request": 94, "tdp_mirror": 104}
"""How many clauses the sources give each catalogue; two clauses stand for one where profiles disagree."""

everywhere = pytest.mark.parametrize("name", available())


def source_of(folder: str, name: str) -> str:
    """The text of a subsystem's module or package in a folder."""
    path = ROOT / folder / f"{name}.py"
    files = [path] if path.exists() else sorted((ROOT / folder / name).rglob("*.py"))
    return "\n".join(file.read_text() for file in files)


@everywhere
def test_the_ids_are_complete_and_in_order(name: str) -> None:
    """No clause is dropped in silence."""
    clauses = subsystem(name).clauses
    prefix = clauses[0].id.partition("-")[0]

    assert len(clauses) >= CLAUSES[name]
    assert [c.id for c in clauses] == [f"{prefix}-{n:03d}" for n in range(1, len(clauses) + 1)]


@everywhere
def test_a_clause_is_a_sentence_with_a_source(name: str) -> None:
    """So is the reason why one cannot be tested."""
    for clause in subsystem(name).clauses:
        assert clause.text.rstrip().endswith("."), clause.id
        assert clause.source, clause.id
        assert not clause.untestable or clause.untestable.rstrip().endswith("."), clause.id


@everywhere
def test_a_clause_holds_in_profiles_and_for_capabilities_that_exist(name: str) -> None:
    """A misspelt profile would switch a clause off."""
    of = subsystem(name)
    for clause in of.clauses:
        assert clause.profiles <= set(of.profiles), clause.id
        assert clause.needs <= set(of.capabilities), clause.id


@everywhere
def test_every_testable_clause_is_cited(name: str) -> None:
    """The model, the environment or a check names each clause; what nobody names nobody checks."""
    of = subsystem(name)
    specs = source_of("specs", name)
    users = source_of("model", name) + source_of("conformance/environment", name)
    constants = dict(
        re.findall(r'^([A-Z][A-Z0-9_]*)(?:: Clause)? = \w+\(\s*(?:id=)?"([A-Z]+-\d{3})"', specs, re.MULTILINE)
    )
    by_id = {identifier: constant for constant, identifier in constants.items()}

    silent = [
        clause.id
        for clause in of.clauses
        if not clause.untestable
        and clause.level is not Level.MAY
        and by_id
        and not re.search(rf"\b{by_id.get(clause.id, clause.id)}\b", users)
    ]

    assert silent == []


@everywhere
def test_every_view_field_has_a_clause_and_every_operation_a_shape(name: str) -> None:
    """The lockstep could not name a breach otherwise, and no engine would take the step."""
    of = subsystem(name)

    assert set(of.shapes) == set(of.operations.values())
    assert all(clause in of.clauses for clause in of.view_clauses.values())


@everywhere
def test_every_shape_covers_its_fields(name: str) -> None:
    """Each field of an operation has a domain, and no domain is left over."""
    for op, shape in subsystem(name).shapes.items():
        assert set(shape.fields) == set(getattr(op, "__dataclass_fields__", {})), op.__name__


@everywhere
def test_a_defect_has_a_candidate_or_a_reason(name: str) -> None:
    """Never both, never neither; what it may be killed by exists."""
    zoo = defects(name)
    known = {clause.id for clause in subsystem(name).clauses}

    assert len({defect.id for defect in zoo}) == len(zoo)
    for defect in zoo:
        assert (defect.candidate is None) == bool(defect.why_not), defect.id
        assert set(defect.clauses) <= known, defect.id
        assert defect.clauses or defect.why_not, defect.id


@everywhere
def test_every_shipped_candidate_loads(name: str) -> None:
    """`builtin:upstream` is one of them."""
    of = subsystem(name)

    assert "upstream" in builtin_names(of)
    for shipped in builtin_names(of):
        assert load(f"builtin:{shipped}", of).profile in of.profiles
