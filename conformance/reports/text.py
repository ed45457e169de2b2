"""What people read: a failure that explains itself, and the summary of a run."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from conformance.candidates.load import Candidate
from conformance.company import Done
from conformance.lockstep import StepReport, run_trace
from conformance.model.step import Parallel, Step
from conformance.reports import values
from conformance.runs.conclusion import Conclusion
from conformance.runs.strength import Kill
from conformance.runs.strength import summary as strength_summary
from conformance.runs.watchdog import watching
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem
from conformance.trace import Trace
from conformance.verdict import Failure, HarnessError, Verdict

WIDTH = 110
"""Columns that lists are wrapped to."""
LABEL = 10
"""Columns of the labels in front of a failure's lines."""
CALLS = 20
"""Environment calls of the failing step that are shown at most, the last ones."""


def program() -> str:
    """How this program was called, so that a printed command can be pasted."""
    name = Path(sys.argv[0]).name
    return "python -m conformance" if name.startswith(("__main__", "pytest", "-")) or not name else "conformance"


def failure(found: Failure, of: Subsystem, candidate: Candidate, saved: Path | str | None = None) -> str:
    """One failure from its headline to the command that repeats it."""
    assert found.trace is not None
    steps, note = _replayed(found, of, candidate)
    lines = [_headline(found, candidate.spec), *_wrapped(found.clause.text, "  ")]
    lines += _labelled("world", _world(found.trace, of))
    unended = "" if found.kind == "type" else " did not end"
    for number, report in enumerate(steps, 1):
        lines += step(number, report, unended)
    lines += _mismatch(found)
    if steps:
        lines += _labelled("calls", calls(steps[-1]))
    lines += _labelled("source", textwrap.wrap(found.clause.source, WIDTH - LABEL - 2))
    lines += _labelled("note", [note] if note else [])
    if saved is not None:
        lines.append(f"  {'repeat':<{LABEL}}{replay_command(saved, candidate)}")
    return "\n".join(lines)


def another(found: Failure, saved: Path | str | None) -> str:
    """A further failure of a clause that one was printed of already: its signature, and where its trace is."""
    assert found.trace is not None
    n = len(found.trace.steps)
    where = f": {saved}" if saved is not None else ""
    return f"  also      {found.signature}, {n} {'step' if n == 1 else 'steps'}{where}"


def step(number: int, report: StepReport, unended: str = " did not end") -> list[str]:
    """One step with its results, the refusals met, and what happened during it.

    `unended` stands in place of a result where the step was cut short.
    """
    label = f"step {number}"
    if isinstance(report.step.op, Parallel):
        points = ", ".join(map(str, report.step.op.schedule))
        at = f", switching at points {points}" if points else ""
        first = _labelled(label, [f"two threads{at}"])
        sides = zip(("left", "right"), report.done, strict=False)
        return first + [f"    {side:<{LABEL - 2}}{_done(done, report, unended)}" for side, done in sides]
    lines = _labelled(label, [_done(report.done[0], report, unended)])
    for done in report.inner:
        point = next((k for k, planned in report.step.during if planned is done.step), None)
        lines.append(f"    {f'at point {point}':<{LABEL + 2}}{_done(done, report, unended)}")
    return lines


def calls(report: StepReport) -> list[str]:
    """The environment calls of a step in the order in which they took effect."""
    who = ("left", "right") if isinstance(report.step.op, Parallel) else ("", *("during" for _ in report.inner))
    wide = max((len(w) for w in who), default=0) if any(of for of, _ in report.calls) or who[0] else 0
    lines = []
    for of, (name, arguments, returned) in report.calls:
        label = f"{who[of]:<{wide}}  " if wide else ""
        lines.append(label + values.call(name, arguments, returned))
    if len(lines) > CALLS:
        return [f"… {len(lines) - CALLS} calls before these", *lines[-CALLS:]]
    return lines


def operation(what: Step) -> str:
    """A step in one line, without results."""
    if isinstance(what.op, Parallel):
        return f"{operation(what.op.left)} beside {operation(what.op.right)}"
    faults = "".join(f", {f.call}={values.result(f.value)}" for f in what.faults)
    during = "".join(f" with {operation(inner)} at point {k}" for k, inner in what.during)
    return values.operation(what.op) + (f" refusing {faults[2:]}" if faults else "") + during


def warning(found: Failure, repeat: str = "") -> list[str]:
    """A breach of a SHOULD clause, compact; `repeat` is the command that shows it again."""
    head = f"{found.clause.id} not followed ({found.clause.level.value}): {found.clause.text}"
    where = "" if found.trace is None or not found.trace.steps else f"by {operation(found.trace.steps[-1])}"
    detail = ": ".join(part for part in (where, found.detail) if part)
    lines = [*_hanging(head, "  warning   "), *(_hanging(detail, "            ") if detail else [])]
    return [*lines, f"            {repeat}"] if repeat else lines


def replay_command(saved: Path | str, candidate: Candidate) -> str:
    """What to type to see a saved trace again."""
    return f"{program()} replay {saved} --candidate {candidate.spec}"


def summary(conclusion: Conclusion) -> list[str]:
    """Counts of verdicts, then which clauses are not simply passed, then figures."""
    verdicts = conclusion.verdicts
    counts = [f"{n} {v.value}" for v in Verdict if (n := sum(x is v for x in verdicts.values()))]
    title = f"{conclusion.subsystem.name}: {conclusion.spec}, profile {conclusion.profile}"
    lines = [title, *_listed("verdicts", ", ".join(counts))]
    for verdict in (Verdict.FAIL, Verdict.KNOWN, Verdict.NOT_EXERCISED, Verdict.NOT_APPLICABLE, Verdict.UNTESTABLE):
        chosen = [clause for clause, v in verdicts.items() if v is verdict]
        if chosen:
            lines += _listed(_LABELS[verdict], compressed(chosen))
    speed = conclusion.steps / conclusion.seconds if conclusion.seconds else 0.0
    figures = f"{conclusion.steps:,} steps, {conclusion.seconds:.1f} s, {speed:,.0f} steps/s"
    explored = _explored(conclusion.notes)
    return [*lines, *_listed("figures", figures + (f"; {explored}" if explored else ""))]


def strength(of: Subsystem, kills: Sequence[Kill]) -> list[str]:
    """The zoo: which clause kills which defect, by which engine, in how many steps and seconds."""
    wide = max(len(k.defect.id) for k in kills)
    lines = [f"{of.name}: the zoo", f"  {'defect':<{wide}}  clause     engine      steps        seconds"]
    for k in kills:
        if k.defect.candidate is None:
            continue
        lines.append(f"  {k.defect.id:<{wide}}  {_kill(k)}")
        if k.is_killed and not k.is_expected:
            expected = ", ".join(k.defect.clauses)
            why = k.defect.note or "nobody expected that"
            lines += _hanging(f"instead of {expected}: {why}", " " * (wide + 4))
        if not k.is_killed:
            lines += _hanging(k.defect.text, " " * (wide + 4))
    for k in kills:
        if k.defect.candidate is None:
            lines += _hanging(f"{k.defect.id} has no candidate: {k.defect.why_not}", "  ")
    killed, expressible, expected_ones, median = strength_summary(list(kills))
    total = sum(k.seconds for k in kills)
    figures = f"killed {killed}/{expressible}, {expected_ones} by a clause that was expected"
    return [*lines, f"  {figures}; median {median:.2f} s, total {total:.1f} s"]


def _kill(k: Kill) -> str:
    if k.failure is None:
        return f"SURVIVED   {k.engine:<11} {'':<12} {k.seconds:7.2f}"
    wanted = "" if k.defect.steps is None else f" of {k.defect.steps}"
    clause = k.failure.clause.id + ("" if k.is_expected else "!")
    return f"{clause:<10} {k.engine:<11} {str(k.steps) + wanted:<12} {k.seconds:7.2f}"


def compressed(clauses: Iterable[Clause]) -> str:
    """Clause ids with runs of neighbours drawn together: `UIO-001..004, UIO-009`."""
    runs: list[list[str]] = []
    for clause in clauses:
        if runs and _follows(runs[-1][-1], clause.id):
            runs[-1].append(clause.id)
        else:
            runs.append([clause.id])
    return ", ".join(r[0] if len(r) == 1 else f"{r[0]}..{r[-1].rpartition('-')[2]}" for r in runs)


_LABELS = {
    Verdict.FAIL: "failing",
    Verdict.KNOWN: "known",
    Verdict.NOT_EXERCISED: "not exercised",
    Verdict.NOT_APPLICABLE: "not applicable",
    Verdict.UNTESTABLE: "untestable",
}


def _replayed(found: Failure, of: Subsystem, candidate: Candidate) -> tuple[list[StepReport], str]:
    """The steps with their results, and a note when the failure did not show again."""
    assert found.trace is not None
    for environment in (of.environment, *([of.fast] if of.fast is not None else [])):
        try:
            with watching():
                report = run_trace(of, found.trace, candidate.factory, environment=environment, record=True)
        except HarnessError as error:
            return [], f"replaying it failed: {error}"
        again = [*report.warnings, *([report.failure] if report.failure is not None else [])]
        if found.signature in [f.signature for f in again]:
            return report.steps, ""
    return report.steps, "it did not fail again when its trace was replayed: the candidate is not deterministic"


def _headline(found: Failure, spec: str) -> str:
    assert found.trace is not None
    verb = "violated" if found.clause.level.is_binding else "not followed"
    where = "when it was created" if found.step < 0 else f"at step {found.step + 1} of {len(found.trace.steps)}"
    return f"{found.clause.id} {verb} by {spec} {where}"


def _world(trace: Trace, of: Subsystem) -> list[str]:
    """Profile and configuration, where they are not the plainest."""
    told = [] if trace.profile == of.default_profile else [f"profile {trace.profile}"]
    config = values.value(trace.config)
    return [*told, *([] if config.endswith("()") else [config])]


def _mismatch(found: Failure) -> list[str]:
    lines = []
    if found.detail:
        lines += _labelled("because", found.detail.splitlines())
    if found.expected or found.got:
        lines += _labelled("expected", found.expected.splitlines() or ["nothing"])
        lines += _labelled("got", found.got.splitlines() or ["nothing"])
    return lines


def _done(done: Done, report: StepReport, unended: str) -> str:
    """An operation, its result, and the refusals it met."""
    text = values.performed(done.step.op, done.result)
    if done.result is None and report.got is None:
        text += unended
    met = ", ".join(
        f"{name} refused: {values.errno_name(value)}" if value < 0 else f"{name} returned {values.number(value)}"
        for name, value in done.frame.given.items()
    )
    return f"{text}     {met}" if met else text


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    """Lines behind a label, long ones wrapped; the label stands before the first."""
    wrapped = [part for line in lines for part in _unbroken(line)]
    return [f"  {label if i == 0 else '':<{LABEL}}{line}" for i, line in enumerate(wrapped)]


def _unbroken(line: str) -> list[str]:
    """A line in pieces of the width, without tearing values apart; spaces inside it stay as they are."""
    if len(line) <= WIDTH:
        return [line]
    return textwrap.wrap(
        line,
        WIDTH - LABEL,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _hanging(text: str, first: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def _listed(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<16}", subsequent_indent=" " * 18)


def _follows(before: str, after: str) -> bool:
    (prefix, _, number), (other, _, following) = before.rpartition("-"), after.rpartition("-")
    return prefix == other and number.isdecimal() and following.isdecimal() and int(following) == int(number) + 1


def _explored(notes: dict[str, Any]) -> str:
    """`explored: 2 scopes, 441 states, 8,388 transitions`; figures of other engines as they are."""
    states = [n for name, n in notes.items() if name.endswith(": states")]
    transitions = [n for name, n in notes.items() if name.endswith(": transitions")]
    told = list(_others(notes))
    if states:
        scopes = "1 scope" if len(states) == 1 else f"{len(states)} scopes"
        told.insert(0, f"explored {scopes}: {sum(states):,} states, {sum(transitions):,} transitions")
    return "; ".join(told)


def _others(notes: dict[str, Any]) -> Iterator[str]:
    for name, n in notes.items():
        if not re.search(r": (states|transitions)$", name):
            yield f"{name}: {n:,}" if isinstance(n, int) else f"{name}: {n}"
