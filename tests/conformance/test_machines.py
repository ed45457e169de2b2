"""Hypothesis machines: every step drawn is taken, and a user's own test file is enough."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from conformance.candidates.builtin.uio_msi import CANDIDATES
from conformance.engines import machine as engine
from conformance.engines.experience import Experience
from conformance.machines import machine, parts
from conformance.machines.base import Again, Disagreement, Machine, pool
from conformance.model.step import Parallel, Step
from conformance.model.uio_msi.operations import IrqSet
from conformance.strategies.domain import Shape
from conformance.subsystem import NAMES, subsystem
from conformance.verdict import UsageError
from tests.toy import ENOSPC, TOY, Shelf, context

SMALL = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


take = Machine.take


class Greedy(Shelf):
    """Says that a full shelf took the number."""

    def put(self, value: int) -> int:
        result = super().put(value)
        return 0 if result == -ENOSPC else result


class Untidy(Shelf):
    """Returns 1 from clear."""

    def clear(self) -> int:
        return super().clear() + 1


class Both(Greedy, Untidy):
    """Wrong twice."""


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces of failures are saved below the current folder."""
    monkeypatch.chdir(tmp_path)


def outcome(test: type[unittest.TestCase]) -> list[str]:
    """What an ordinary test runner says of a machine's TestCase: the texts of its errors and failures."""
    test.settings = SMALL  # type: ignore[attr-defined]  # as users do
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(test).run(result)
    assert result.testsRun == 1
    return [told for _, told in [*result.errors, *result.failures]]


def test_a_correct_candidate_passes_as_an_ordinary_test() -> None:
    assert outcome(machine(TOY, Shelf).TestCase) == []


def test_a_failure_shows_clause_minimal_steps_and_the_command_that_repeats_it() -> None:
    (told,) = outcome(machine(TOY, Greedy).TestCase)

    assert "TOY-002 violated by" in told
    assert told.count("  step ") == 3
    assert "put(value=0) -> 0" in told
    assert "got       0" in told
    command = next(line for line in told.splitlines() if "replay" in line)
    assert Path(command.split("replay ")[1].split()[0]).is_file()
    assert command.endswith("test_machines.py:Greedy")


def test_a_known_failure_is_passed_over_and_the_next_one_found() -> None:
    known = ("TOY-002:Put:result",)
    (told,) = outcome(machine(TOY, Both, known=known).TestCase)
    assert "TOY-012 violated by" in told
    assert outcome(machine(TOY, Greedy, known=known).TestCase) == []


def test_each_machine_has_a_name_of_its_own() -> None:
    """By the name Hypothesis knows whose an example is, and drops those that do not fail any more."""
    names = [
        machine(TOY, Shelf).__name__,
        machine(TOY, Greedy).__name__,
        machine(TOY, Shelf, strict=True).__name__,
        machine("uio_msi", "builtin:upstream").__name__,
        machine("uio_msi", "builtin:upstream", profile="vfio-like").__name__,
    ]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_a_machine_that_passes_leaves_the_examples_of_another_one_alone() -> None:
    database = InMemoryExampleDatabase()
    shared = settings(
        SMALL, derandomize=False, database=database, phases=[Phase.reuse, Phase.generate], report_multiple_bugs=False
    )
    with pytest.raises(Disagreement):
        run_state_machine_as_test(machine(TOY, Greedy), settings=settings(shared, max_examples=500))
    saved = {key: set(values) for key, values in database.data.items() if values}

    run_state_machine_as_test(machine(TOY, Shelf), settings=shared)

    assert saved
    assert all(saved[key] == database.data[key] for key in saved)


def test_a_breach_of_a_should_clause_fails_where_it_is_asked_for() -> None:
    class Keeps(Shelf):
        """Keeps what was put first, which only a SHOULD clause forbids."""

        def clear(self) -> int:
            while len(self.items) > 1:
                self.port.free(self.items.pop()[1])
            self._show()
            return 0

    assert outcome(machine(TOY, Keeps).TestCase) == []
    (told,) = outcome(machine(TOY, Keeps, strict=True).TestCase)
    assert "TOY-009 not followed by" in told


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (lambda: machine("uio_msi", CANDIDATES["upstream"], profile="mine"), "uio_msi has no profile 'mine'"),
        (lambda: machine("uio_msi", Shelf), "has no method"),
        (lambda: machine("uio_msi", "builtin:nobody"), "ships no 'nobody'"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(asked: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        asked()


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_that_fires_takes_a_step(name: str) -> None:
    """In each subsystem, from its first step on: nothing is drawn and then passed over."""
    driven = machine(name, "builtin:upstream")

    run_state_machine_as_test(driven, settings=settings(SMALL, max_examples=6))

    assert driven.tally.steps > 80
    assert driven.idle <= 0.05 * driven.tally.steps


@pytest.mark.parametrize("name", NAMES)
def test_what_accompanies_a_step_is_what_its_shape_allows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals of its calls, company of its kinds, partners that may run beside it, switches in order."""
    of = subsystem(name)
    taken: list[Step] = []
    monkeypatch.setattr(Machine, "suggestion", lambda _self, _seed: None)
    monkeypatch.setattr(Machine, "take", lambda self, step: taken.append(step) or take(self, step))
    run_state_machine_as_test(machine(of, "builtin:upstream"), settings=settings(SMALL, max_examples=60))

    accompanied = 0
    for step in taken:
        left, right = (step.op.left, step.op.right) if isinstance(step.op, Parallel) else (step, None)
        shape = of.shapes.get(type(left.op))
        if shape is None or (right is None and not step.faults and not step.during):
            continue  # opening steps may be of kinds that are not drawn
        accompanied += 1
        assert {fault.call for fault in step.faults} <= {call for call, _ in shape.faults}
        assert {type(inner.op) for _, inner in step.during} <= set(shape.interrupts)
        if right is not None:
            assert type(right.op) in shape.beside
            assert list(step.op.schedule) == sorted(set(step.op.schedule))
    assert accompanied


def test_the_engine_goes_on_behind_each_failure() -> None:
    found = context(Both)
    engine.run(found)
    assert {failure.signature for failure in found.failures} == {"TOY-002:Put:result", "TOY-012:Clear:result"}
    assert all(failure.trace is not None and len(failure.trace.steps) <= 3 for failure in found.failures)


def test_the_parts_of_the_gate_have_seeds_of_their_own() -> None:
    """The verdict does not depend on who does which part, and no two do the same."""
    first, second, again = (replace(context(Shelf), part=part, parts=2) for part in (0, 1, 0))
    for part in (first, second, again):
        engine.run(part)
    assert first.tally == again.tally
    assert first.tally.clauses != second.tally.clauses


def test_the_engine_ends_where_a_candidate_cannot_be_started() -> None:
    class Broken(Shelf):
        def __init__(self, port: Any) -> None:
            raise RuntimeError("no")

    found = context(Broken)
    engine.run(found)
    assert [failure.kind for failure in found.failures] == ["crash"]


def test_a_pool_holds_plain_values_first_and_every_listed_one() -> None:
    listed = pool(subsystem("uio_msi"), IrqSet)
    domains = subsystem("uio_msi").shapes[IrqSet].fields
    assert listed[0] == IrqSet(*(domain.scope[0] for domain in domains.values()))
    assert len(set(listed)) == len(listed)
    for name, domain in domains.items():
        assert set(domain.values) <= {getattr(op, name) for op in listed}


def test_the_work_of_a_test_divides_into_parts_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a test of its own for `pytest -n`, takes its share of the examples, and finds what is there."""
    taken: dict[int, list[Step]] = {}
    monkeypatch.setattr(
        Machine, "take", lambda self, step: taken.setdefault(type(self).part, []).append(step) or take(self, step)
    )
    divided = parts(machine(TOY, Shelf), 3)
    divided.settings = SMALL  # type: ignore[attr-defined]  # as users do
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(divided).run(result)

    assert (result.testsRun, result.errors, result.failures) == (3, [], [])
    assert len({tuple(steps) for steps in taken.values()}) == 3
    assert sum(map(len, taken.values())) <= 1.2 * SMALL.max_examples * SMALL.stateful_step_count

    wrong = parts(machine(TOY, Greedy), 2)
    wrong.settings = SMALL  # type: ignore[attr-defined]
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(wrong).run(result)
    assert all("TOY-002 violated by" in told for _, told in result.failures + result.errors)
    assert len(result.failures + result.errors) == 2
    with pytest.raises(UsageError, match="1 part or more, not 0"):
        parts(machine(TOY, Shelf), 0)


def test_one_class_serves_all_rounds_of_the_engine() -> None:
    """Hypothesis keeps each class that it has run, so a hunt with one for each round would grow."""
    before = len(RuleBasedStateMachine._setup_state_per_class)
    found = context(Shelf)
    engine.run(found)
    assert found.tally.traces > 2 * engine.ROUND
    assert len(RuleBasedStateMachine._setup_state_per_class) == before + 1


def test_a_refusal_is_planned_where_the_operation_makes_the_call() -> None:
    """Of the calls that its shape lists, those that were seen are more likely, and none deeper than it was made."""
    shape = Shape({}, faults=(("kzalloc", (-12,)), ("ioremap", (-12,)), ("kfree", (-1,))), deepest=4)
    seen = Experience(calls={IrqSet: {"kzalloc": 2, "mutex_lock": 9}})

    table = seen.refusable(IrqSet, shape)

    assert table.count(("kzalloc", (-12,), 2)) == 2
    assert table.count(("ioremap", (-12,), 4)) == 1
    assert set(Experience().refusable(IrqSet, shape)) == {(call, values, 4) for call, values in shape.faults}


def test_what_was_done_just_before_is_done_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same arguments: some mistakes show only then."""
    kinds: list[type | None] = []
    kind_from = Machine.kind_from
    monkeypatch.setattr(Machine, "kind_from", lambda self, at: kinds.append(kind_from(self, at)) or kinds[-1])
    run_state_machine_as_test(machine("uio_msi", "builtin:upstream"), settings=settings(SMALL, max_examples=10))
    assert 0.01 < kinds.count(Again) / len(kinds) < 0.15


def test_a_disagreement_is_an_assertion() -> None:
    """So that test runners say failure, not error."""
    assert issubclass(Disagreement, AssertionError)


@pytest.mark.parametrize("broken", [False, True])
def test_the_tutorial_works_as_it_stands(broken: bool, tmp_path: Path) -> None:
    """Its test file beside a correct driver; and beside one that releases wrongly, where it fails as printed."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "hypothesis.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "TestDriver" in block)
    driver = (
        "from conformance.candidates.builtin.uio_msi import CANDIDATES\n\n\nclass Minimal(CANDIDATES['upstream']):\n"
    )
    driver += "    def release(self):\n        super().release()\n        return 1\n" if broken else "    pass\n"
    (tmp_path / "driver.py").write_text(driver)
    (tmp_path / "test_driver.py").write_text(code)
    same = "settings.register_profile('same', derandomize=True, database=None)\nsettings.load_profile('same')\n"
    (tmp_path / "conftest.py").write_text(f"from hypothesis import settings\n\n{same}")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_driver.py")
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{root}"}, capture_output=True, text=True, check=False
    )

    if not broken:
        assert done.returncode == 0, done.stdout
        return
    assert done.returncode == 1
    printed = page.split("```\nUIO-055")[1].split("  repeat")[0].splitlines()[1:]
    for line in printed:
        assert line.strip() in done.stdout
