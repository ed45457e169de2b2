"""The first drafts in examples/: what docs/first_drafts.md shows of them is what is found."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from conformance.candidates.load import load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.reports import text
from conformance.reports.story import tell
from conformance.runs.watchdog import watching
from conformance.subsystem import subsystem
from conformance.verdict import Failure

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "first_drafts.md"
DRAFTS = {
    "uio_msi": "examples/uio_minimal.py:Minimal",
    "cet": "examples/cet_msrs.py:Msrs",
    "avic": "examples/avic_router.py:Router",
    "snp_guest_request": "examples/snp_guest.py:Guest",
    "tdp_mirror": "examples/tdp_roots.py:Roots",
}
STEPS = 1_500
"""Of the explorations, and of the campaign; enough for what the page names."""


@cache
def found(name: str) -> tuple[Failure, ...]:
    """The failures that a few steps find, in the order in which they are found."""
    candidate = load(str(ROOT / DRAFTS[name]), subsystem(name))
    of = candidate.part(subsystem(name))
    failures: dict[str, Failure] = {}
    for engine in (explore, campaign):
        context = Context(of, candidate, candidate.profile, known=set(failures))
        context.steps = context.deadline = STEPS
        context.clock = lambda context=context: context.tally.steps  # type: ignore[misc]  # of this round
        with watching():
            engine.run(context)
        failures |= {failure.signature: failure for failure in context.failures}
    return tuple(failures.values())


def section(name: str) -> str:
    """What the page says of a subsystem's draft."""
    (body,) = re.findall(rf"(?ms)^## {name}\n(.*?)(?=^## |\Z)", PAGE.read_text())
    return str(body)


@pytest.mark.parametrize("name", DRAFTS)
def test_the_page_names_what_is_found(name: str) -> None:
    """Every clause that is broken, and no other, with its sentence."""
    rows = dict(re.findall(r"(?m)^\| (\w+-\d+) \| (.*) \|$", section(name)))
    broken = {failure.clause.id: failure.clause for failure in found(name)}

    assert sorted(rows) == sorted(broken)
    assert all(rows[identifier] == clause.text for identifier, clause in broken.items())


@pytest.mark.parametrize("name", DRAFTS)
def test_the_failure_on_the_page_is_the_one_that_is_printed(name: str) -> None:
    """Line by line, but for the name of the trace's file and what is encrypted under keys of the day."""
    (shown,) = re.findall(r"(?s)```text\n(.*?)```", section(name))
    identifier = shown.split()[0]
    of, spec = subsystem(name), DRAFTS[name]
    failure = next(failure for failure in found(name) if failure.clause.id == identifier)

    told = tell(failure, of, load(str(ROOT / spec), of))

    printed = [line for line in text.failure(told, spec).splitlines() if " bytes)" not in line]
    assert [line for line in shown.splitlines()[:-1] if " bytes)" not in line] == printed
    assert shown.splitlines()[-1].startswith("  repeat    conformance replay .conformance/traces/")


def test_every_example_in_python_is_on_the_page() -> None:
    """And it is the commands at their heads that the page gives."""
    files = {spec.partition(":")[0] for spec in DRAFTS.values()}

    assert {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.py")} == files
    for name, spec in DRAFTS.items():
        command = f"conformance run {name} --candidate {spec}"
        assert command in (ROOT / spec.partition(":")[0]).read_text()
        assert command in section(name)
