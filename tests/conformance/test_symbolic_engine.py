"""`--engine symbolic` finds what chance does not, in every subsystem, and blames nobody who is right."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from types import CodeType
from typing import Any

import pytest

pytest.importorskip("crosshair", reason="CrossHair is not installed: pip install 'conformance[symbolic]'")

from conformance.candidates.load import Candidate, load, magic
from conformance.commands import options
from conformance.engines import corpus, symbolic
from conformance.engines.context import Context
from conformance.runs.request import ENGINES, Request, units
from conformance.subsystem import NAMES, subsystem
from conformance.symbolic import proposing
from conformance.symbolic.arguments import leaves
from conformance.symbolic.execution import Execution
from conformance.symbolic.proposing import DIED, GIVEN_UP, carrier, proposals
from conformance.verdict import Failure, HarnessError, UsageError

everywhere = pytest.mark.parametrize("name", NAMES)
REPRESENTATIVES = (
    "UIO-M05", "UIO-M07", "CET-M04", "CET-M09", "AVIC-M04", "AVIC-M07", "SNP-M01", "SNP-M09", "TDP-M02", "TDP-M08",
    "TDP-M10",
)  # fmt: skip
"""Content, two fields, a constant; each is found in about a second. All of them: `python -m benchmarks.symbolic`."""
SUBSYSTEM_OF = {"UIO": "uio_msi", "CET": "cet", "AVIC": "avic", "SNP": "snp_guest_request", "TDP": "tdp_mirror"}


def context(name: str, spec: str, **more: Any) -> Context:
    """What the engine is given for a candidate."""
    of = subsystem(name)
    candidate = load(spec, of)
    return Context(candidate.part(of), candidate, candidate.profile, engine="symbolic", **more)


def found(name: str, spec: str, **more: Any) -> list[Failure]:
    """What the engine finds."""
    run = context(name, spec, **more)
    symbolic.run(run)
    return run.failures


@pytest.mark.parametrize("identifier", REPRESENTATIVES)
def test_a_number_that_nobody_draws_is_found(identifier: str) -> None:
    """With the trace that shows it, made small like any other."""
    name = SUBSYSTEM_OF[identifier.split("-", 1)[0]]
    deadline = time.process_time() + 30

    failures = found(
        name, f"builtin:{identifier}", stop_at_first=True, deadline=deadline, clock=time.process_time, steps=600
    )

    assert [failure.trace is not None and len(failure.trace.steps) <= 4 for failure in failures] == [True]


@everywhere
def test_who_is_right_is_not_blamed(name: str) -> None:
    """Values that were solved for are as legal as those that are drawn."""
    assert found(name, "builtin:upstream", steps=45) == []


@everywhere
def test_the_numbers_of_the_magic_zoo_are_in_no_domain(name: str) -> None:
    """Nor can a defect show in a trace that the suite ships, so that chance finds none."""
    of = subsystem(name)
    listed = {
        value
        for shape in of.shapes.values()
        for domain in shape.fields.values()
        for one in domain.values
        for _, value in leaves(one)
    }
    zoo = magic(name)

    assert len(zoo) == 10
    for defect in zoo:
        assert defect.candidate is not None
        numbers = set(constants(defect.candidate))
        assert numbers
        assert not numbers & listed, defect.id


def constants(kind: type) -> Iterator[int]:
    """The large numbers, and the contents as numbers, in the methods of a class."""
    for method in vars(kind).values():
        code = getattr(method, "__code__", None)
        if isinstance(code, CodeType):
            yield from _in_code(code)


def _in_code(code: CodeType) -> Iterator[int]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _in_code(constant)
        elif isinstance(constant, bytes) and len(constant) >= 4:
            yield int.from_bytes(constant, "little")
        elif isinstance(constant, int) and constant >= 1 << 16 and constant + 1 & constant:
            yield constant


@everywhere
def test_the_magic_zoo_passes_what_the_suite_ships(name: str) -> None:
    """Apart from their number these candidates are right."""
    first, last = magic(name)[0], magic(name)[-1]
    for defect in (first, last):
        run = context(name, f"builtin:{defect.id}")

        corpus.run(run)

        assert run.failures == []
        assert run.tally.traces > 10


def test_it_is_no_part_of_the_gate() -> None:
    """It runs where it is named, after the others."""
    assert "symbolic" not in ENGINES
    assert options.engines(None) == ENGINES
    assert options.engines("symbolic,explore") == ("explore", "symbolic")
    request = Request((("uio_msi", "builtin:upstream"),), engines=("symbolic",), budget=10.0)
    assert [(unit.engine, unit.seconds) for unit in units(request)] == [("symbolic", 10.0)]


def test_without_crosshair_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything runs."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "crosshair" else real(name, *a))

    with pytest.raises(
        UsageError, match=r"^--engine=symbolic: needs CrossHair.* pip install 'conformance\[symbolic\]'$"
    ):
        options.engines("symbolic")


def test_what_is_no_python_is_served_through_the_model() -> None:
    """A correct candidate of the same profile carries the ints; the traces are for all."""
    run = context("cet", "builtin:upstream", steps=10)
    library = Candidate("lib:driver.so", run.candidate.factory, "upstream", frozenset())
    of, factory = carrier(replace(run, candidate=library))

    assert of is subsystem("cet")
    assert factory is load("builtin:upstream", of).factory
    assert carrier(run)[1] is run.candidate.factory


def test_the_same_is_proposed_every_time() -> None:
    """z3 is given an effort, not a time, and the walks a seed."""
    first, second = (list(proposals(context("uio_msi", "builtin:UIO-M02", steps=40))) for _ in range(2))

    assert first == second
    assert len(first) > 20


def test_what_it_did_is_told() -> None:
    """In the notes: runs, questions, and new ways that were found."""
    run = context("uio_msi", "builtin:upstream", steps=40)

    symbolic.run(run)

    assert run.notes["symbolic runs"] >= 40
    assert (
        0 < run.notes["symbolic branches by solving"] <= run.notes["symbolic solved"] <= run.notes["symbolic questions"]
    )


@pytest.mark.parametrize("method", ["__init__", "_take"])
def test_a_search_that_fails_is_no_pass(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What our own code raises is told as what it is, and not taken for a value that means nothing."""

    def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Execution, method, broken)

    with pytest.raises(HarnessError, match="ended by a mistake of its own"):
        found("uio_msi", "builtin:upstream", steps=20)


def test_a_search_that_is_killed_or_says_nothing_leaves_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """z3 may want more memory than there is, or never come back."""
    for act, figure in ((lambda: os.kill(os.getpid(), signal.SIGKILL), DIED), (lambda: time.sleep(60), GIVEN_UP)):
        monkeypatch.setattr(proposing, "SILENCE", 0.5)
        monkeypatch.setattr(Execution, "run", lambda *_, act=act: act())
        run = context("uio_msi", "builtin:upstream", steps=20)

        symbolic.run(run)

        assert run.notes[figure] == 1
