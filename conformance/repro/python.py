"""A trace as a test for pytest, which needs the suite and the candidate."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass

from conformance.model.step import Parallel, Step
from conformance.reports import values
from conformance.repro.code import Source, comment, meaning
from conformance.repro.reference import Taken
from conformance.specs.clause import Clause
from conformance.trace import Trace
from conformance.verdict import Failure

WIDTH = 110


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a trace that is to become a program."""

    trace: Trace
    clause: Clause | None
    """What it shows, where that is known."""
    failure: Failure | None
    """What the candidate did, where one was named."""
    spec: str
    taken: list[Taken] | None
    """The same steps on a correct candidate."""
    right: str = ""
    """That candidate."""


def program(case: Case) -> str:
    """The test file."""
    source = Source()
    body = _body(case, source)
    name = "_".join([*(case.clause.id if case.clause is not None else "trace").lower().split("-")])
    head = [
        *_docstring(case),
        "",
        "import os",
        "",
        "from conformance.machines import Play",
        *source.lines(),
        "",
        f'CANDIDATE = os.environ.get("CANDIDATE", {_literal(case.spec)})',
        "",
        "",
        f"def test_{name}() -> None:",
        f'    """{_first(case)}"""',
    ]
    return "\n".join([*head, *body]) + "\n"


def _docstring(case: Case) -> list[str]:
    lines = [*textwrap.wrap(_first(case), WIDTH), ""]
    if case.clause is not None:
        lines += [f"Clause {case.clause.id} ({case.clause.level.name}), from: {case.clause.source}"]
    if case.failure is not None:
        found = case.failure
        where = f"at step {found.step + 1} of {len(case.trace.steps)}" if found.step >= 0 else "at its start"
        lines += [f"Broken by {case.spec} {where}, found as {found.signature}."]
    lines += ["", "    pytest FILE", "    CANDIDATE=OTHER pytest FILE    # whatever --candidate takes"]
    safe = [line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in lines]
    return [f'"""{safe[0]}', *safe[1:], '"""']


def _literal(text: str) -> str:
    """A string as Python source, in the quotes that the rest has: JSON's escapes are Python's, too."""
    return json.dumps(text, ensure_ascii=False)


def _first(case: Case) -> str:
    sentence = case.clause.text if case.clause is not None else f"A trace of {case.trace.subsystem} that must conform."
    return sentence.replace('"', "'")


def _body(case: Case, source: Source) -> list[str]:
    trace = case.trace
    world = source.value(trace.config)
    should = "" if case.clause is None or case.clause.level.is_binding else f', should=("{case.clause.id}",)'
    given = f'"{trace.subsystem}", CANDIDATE, profile="{trace.profile}", world={world}{should}'
    lines = [f"    play = Play({given})", ""]
    last = len(trace.steps) - 1 if case.failure is None else case.failure.step
    for number, step in enumerate(trace.steps):
        if number == last and case.failure is not None:
            lines += _mismatch(case.failure)
        lines += _step(source, step, case.taken[number] if case.taken is not None else None)
    return [*lines, "    play.end()"]


def _mismatch(failure: Failure) -> list[str]:
    """What the candidate did in the step that follows."""
    told = [failure.detail] if failure.detail else []
    told += [f"{label} {text}" for label, text in (("expected", failure.expected), ("got", failure.got)) if text]
    lines = [line for text in told for part in text.splitlines() for line in textwrap.wrap(part, WIDTH - 6)]
    return ["", *comment([f"What was wrong here: {lines[0]}" if lines else "Here it went wrong.", *lines[1:]], "    ")]


def _step(source: Source, step: Step, taken: Taken | None) -> list[str]:
    """One step, with the results that are allowed where they can be listed."""
    plain = not step.faults and not step.during and not isinstance(step.op, Parallel)
    call = f"play({source.value(step.op if plain else step)})"
    if taken is None or not taken.allowed or step.faults:
        done = (
            "" if taken is None or taken.result is None else f"  # -> {values.result(taken.result)} where all is well"
        )
        return [f"    {call}{done}"]
    if len(taken.allowed) == 1:
        only = taken.allowed[0]
        compared = f"is {only!r}" if only is None or isinstance(only, bool) else f"== {source.value(only)}"
        return [f"    assert {call} {compared}{meaning(taken.allowed)}"]
    listed = ", ".join(source.value(result) for result in taken.allowed)
    return [f"    assert {call} in ({listed}){meaning(taken.allowed)}"]
