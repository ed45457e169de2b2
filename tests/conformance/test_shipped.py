"""The traces that the suite ships: each still shows what it is there for, and accuses nobody who is right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.candidates.defect import Defect
from conformance.candidates.load import defects, load
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.engines.corpus import SHIPPED, slug
from conformance.lockstep import run_trace
from conformance.subsystem import NAMES, subsystem
from conformance.trace import encode
from tests.ship_corpus import changes, file_of, shown

EXPRESSIBLE = [(name, defect) for name in NAMES for defect in defects(name) if defect.candidate is not None]
FIELDS = [(name, field) for name in NAMES for field in subsystem(name).view_clauses]
AGAIN = "python -m tests.ship_corpus makes it anew"


@pytest.mark.parametrize(("name", "defect"), EXPRESSIBLE, ids=lambda value: getattr(value, "id", value))
def test_each_defect_has_a_trace_that_shows_it(name: str, defect: Defect) -> None:
    """All its steps can happen, and its name is what the defect does wrong in the last of them."""
    path = file_of(name, defect)
    assert path is not None, AGAIN

    signatures = shown(subsystem(name), corpus.read(path), load(f"builtin:{defect.id}", subsystem(name)))

    assert path.stem in {f"{defect.id}-{slug(signature)}" for signature in signatures}, AGAIN


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_each_field_of_the_view_has_a_trace_that_changes_it(name: str, field: str) -> None:
    """In its last step, on some shipped candidate; on a defect where no right one changes it."""
    trace = corpus.read(SHIPPED / name / f"view-{field}.json")

    assert changes(subsystem(name), trace, field), AGAIN


@pytest.mark.parametrize("name", NAMES)
def test_a_right_candidate_passes_them_all(name: str) -> None:
    """Under its own profile, those that it has the capabilities for."""
    of = subsystem(name)
    upstream = load("builtin:upstream", of)

    accused = {}
    for path in corpus.files(SHIPPED / name):
        trace = corpus.read(path)
        if not lacking(of, trace, upstream.capabilities):
            report = run_trace(of, replace(trace, profile=upstream.profile), upstream.factory)
            if report.failure is not None:
                accused[path.name] = report.failure.signature

    assert accused == {}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_is_shipped(name: str) -> None:
    """A defect that was renamed leaves no trace behind, and a trace is shipped in the form in which it is written."""
    wanted = {path for of, defect in EXPRESSIBLE if of == name and (path := file_of(name, defect))}
    wanted |= {SHIPPED / name / f"view-{field}.json" for of, field in FIELDS if of == name}
    wanted |= set(corpus.files(SHIPPED / name / "real"))  # measured: see tests/real_facts.py

    assert set(corpus.files(SHIPPED / name)) == wanted
    assert all(path.read_text() == encode(corpus.read(path)) for path in wanted)
