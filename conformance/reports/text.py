"""What people read: a failure that explains itself, and the summary of a run."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conformance.real.adapter import MICROSECONDS, OPERATIONS
from conformance.reports import record, values
from conformance.reports.causes import causes
from conformance.reports.record import ClauseVerdict, Finding
from conformance.reports.story import Act, Story, Told
from conformance.runs.conclusion import Conclusion
from conformance.runs.strength import Kill
from conformance.runs.strength import summary as strength_summary
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem
from conformance.verdict import Failure, Verdict

WIDTH = 110
"""Columns that lists are wrapped to."""
LABEL = 10
"""Columns of the labels in front of a failure's lines."""
CALLS = 20
"""Environment calls of the failing step that are shown at most, the last ones."""
CAUSES = 6
"""Causes of failures at most that the summary lists."""
LINES = 100
"""Lines behind one label at most."""
LONGEST = 4_000
"""Characters of one line at most."""


def program() -> str:
    """How this program was called, so that a printed command can be pasted."""
    name = Path(sys.argv[0]).name
    return "python -m conformance" if name.startswith(("__main__", "pytest", "-")) or not name else "conformance"


def failure(found: Failure, spec: str, saved: Path | str | None = None) -> str:
    """One failure from its headline to the command that repeats it; its steps where its story is known."""
    return finding(record.finding(found), record.clause_verdict(found.clause), spec, saved)


def finding(found: Finding, clause: ClauseVerdict, spec: str, saved: Path | str | None = None) -> str:
    """The same of a record; no line of it holds anything but plain characters, whatever the candidate said."""
    story = found.story or Story(())
    lines = [headline(found, clause, spec), *_wrapped(clause.text, "  ")]
    lines += _labelled("world", story.world)
    unended = "" if found.mismatch == "type" else " did not end"
    for number, told in enumerate(story.steps, 1):
        lines += step(number, told, unended)
    lines += _mismatch(found)
    if story.steps:
        lines += _labelled("calls", calls(story.steps[-1]))
        lines += _labelled("from", story.origins)
    lines += _labelled("source", textwrap.wrap(clause.source, WIDTH - LABEL - 2))
    lines += _labelled("note", [story.note] if story.note else [])
    if saved:
        lines.append(f"  {'repeat':<{LABEL}}{replay_command(saved, spec)}")
    return "\n".join(_short(values.printable(line)) for line in lines)


def headline(found: Finding, clause: ClauseVerdict, spec: str) -> str:
    """Which clause was broken by whom, and when."""
    verb = "violated" if clause.is_binding else "not followed"
    steps = len(found.trace.get("steps", ()))
    where = "when it was created" if found.step < 0 else f"at step {found.step + 1} of {steps}"
    return _short(values.printable(f"{found.clause} {verb} by {spec} {where}"))


def another(found: Failure, saved: Path | str | None) -> str:
    """A further failure of a clause that one was printed of already: its signature, and where its trace is."""
    assert found.trace is not None
    n = len(found.trace.steps)
    where = f": {saved}" if saved is not None else ""
    return f"  also      {found.signature}, {n} {'step' if n == 1 else 'steps'}{where}"


def step(number: int, told: Told, unended: str = " did not end") -> list[str]:
    """One step with its results, the refusals met, and what happened during it.

    `unended` stands in place of a result where the step was cut short.
    """
    label = f"step {number}"
    if told.switches is not None:
        points = ", ".join(map(str, told.switches))
        at = f", switching at points {points}" if points else ""
        first = _labelled(label, [f"two threads{at}"])
        return first + [f"    {act.side:<{LABEL - 2}}{_act(act, unended)}" for act in told.acts]
    lines = _labelled(label, [_act(told.acts[0], unended)])
    lines += [f"    {f'at point {act.point}':<{LABEL + 2}}{_act(act, unended)}" for act in told.acts[1:]]
    return lines


def calls(told: Told) -> list[str]:
    """The environment calls of a step in the order in which they took effect."""
    who = [act.side or ("" if number == 0 else "during") for number, act in enumerate(told.acts)]
    wide = max((len(w) for w in who), default=0) if any(call.of for call in told.calls) or who[0] else 0
    lines = []
    for call in told.calls:
        label = f"{who[call.of]:<{wide}}  " if wide else ""
        lines.append(f"{label}{call.made} -> {call.returned}" if call.returned else label + call.made)
    if len(lines) > CALLS:
        return [f"… {len(lines) - CALLS} calls before these", *lines[-CALLS:]]
    return lines


def warning(found: Failure, repeat: str = "", *, again: bool = False) -> list[str]:
    """A breach of a SHOULD clause, compact; `repeat` is the command that shows it again.

    Of a further breach (`again`) the clause is not said any more.
    """
    head = f"{found.clause.id} not followed ({found.clause.level.value}): {found.clause.text}"
    where = "" if found.trace is None or not found.trace.steps else f"by {values.step(found.trace.steps[-1])}"
    detail = ": ".join(part for part in (where, found.detail) if part)
    lines = [*([] if again else _hanging(head, "  warning   ")), *(_hanging(detail, "            ") if detail else [])]
    return [*lines, f"            {repeat}"] if repeat else lines


def warnings(found: Iterable[tuple[Failure, str]]) -> list[str]:
    """Breaches of SHOULD clauses, each with the command that shows it again; a clause is said before its first one."""
    lines: list[str] = []
    said: set[str] = set()
    for failure, repeat in sorted(found, key=lambda pair: pair[0].clause.id):
        lines += warning(failure, repeat, again=failure.clause.id in said)
        said.add(failure.clause.id)
    return lines


def recorded(signature: str, clause: Clause) -> str:
    """A failure, or a clause that nothing exercises, that a baseline does not have."""
    return "\n".join(_hanging(f"{signature}: {clause.text}", "  new       "))


def baseline(of: Conclusion) -> list[str]:
    """What a baseline expects, a line each, and which of its entries need attention."""
    lines = []
    for found in [*of.failures, *of.warnings]:
        if found.signature in of.known:
            lines += _hanging(f"{found.signature}: {of.known[found.signature]}".rstrip(": "), "  known     ")
    for clause, verdict in of.verdicts.items():
        if verdict is Verdict.NOT_EXERCISED and clause.id in of.gaps:
            lines += _hanging(f"{clause.id} is not exercised: {of.gaps[clause.id]}".rstrip(": "), "  known     ")
    for gone in of.stale:
        lines += _hanging(gone.text, "  attention ")
    return [_short(values.printable(line)) for line in lines]


def replay_command(saved: Path | str, spec: str) -> str:
    """What to type to see a saved trace again."""
    return f"{program()} replay {saved} --candidate {shlex.quote(spec)}"


def not_awaited(names: Sequence[str]) -> str:
    """What a hunt on many machines did not wait for."""
    listed = ", ".join(dict.fromkeys(names))
    return f"the time is up; {len(names)} jobs that slow machines had not ended were given up: {listed}"


def summary(conclusion: Conclusion) -> list[str]:
    """Counts of verdicts, then which clauses are not simply passed, then figures."""
    verdicts = conclusion.verdicts
    counts = [f"{n} {v.value}" for v in Verdict if (n := sum(x is v for x in verdicts.values()))]
    title = f"{conclusion.subsystem.name}: {conclusion.spec}, profile {conclusion.profile}"
    lines = [title, *_listed("verdicts", ", ".join(counts))]
    for verdict in (
        Verdict.FAIL,
        Verdict.KNOWN,
        Verdict.NOT_FOLLOWED,
        Verdict.NOT_EXERCISED,
        Verdict.NOT_APPLICABLE,
        Verdict.UNTESTABLE,
    ):
        chosen = [clause for clause, v in verdicts.items() if v is verdict]
        if chosen:
            lines += _listed(_LABELS[verdict], compressed(chosen))
    new = [found for found in conclusion.failures if found.signature not in conclusion.known]
    if len(new) > 1:
        lines += _listed("read first", _causes(new))
    speed = conclusion.steps / conclusion.seconds if conclusion.seconds else 0.0
    figures = f"{conclusion.steps:,} steps, {conclusion.seconds:.1f} s, {speed:,.0f} steps/s"
    explored = _explored(conclusion.notes)
    for sentence in conclusion.absent:
        lines += _listed("not there", sentence)
    return [*lines, *_listed("figures", figures + (f"; {explored}" if explored else ""))]


def _causes(failures: Sequence[Failure]) -> str:
    """`UIO-048 (open, pci_enable_msix) and with it UIO-049; UIO-060 (probe, kcalloc); …`, the most telling first."""
    told = []
    for cause in causes(failures)[:CAUSES]:
        first, *others = cause.clauses
        told.append(f"{first.id} ({cause.place})" + (f" and with it {compressed(others)}" if others else ""))
    more = len(causes(failures)) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


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


def alone(of: Subsystem, table: Mapping[str, Sequence[Kill]]) -> list[str]:
    """What each engine kills by itself, and in which median time; then each defect with those that kill it."""
    lines = [f"{of.name}: each engine alone, doing what it does in the gate"]
    for engine, kills in table.items():
        killed, tried, _, median = strength_summary(list(kills))
        share = f"{killed / tried:.0%}" if tried else "none"
        lines.append(f"  {engine:<11} killed {killed}/{tried} ({share}), median {median:.2f} s")
    rows = {k.defect.id: k.defect for kills in table.values() for k in kills}
    wide = max(map(len, rows), default=0)
    for identifier in rows:
        seconds = {
            e: k.seconds for e, kills in table.items() for k in kills if k.defect.id == identifier and k.is_killed
        }
        told = ", ".join(f"{engine} {taken:.2f} s" for engine, taken in seconds.items())
        lines.append(f"  {identifier:<{wide}}  {told or 'none of them'}")
    return lines


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
    Verdict.NOT_FOLLOWED: "not followed",
    Verdict.NOT_EXERCISED: "not exercised",
    Verdict.NOT_APPLICABLE: "not applicable",
    Verdict.UNTESTABLE: "untestable",
}


def _mismatch(found: Finding) -> list[str]:
    lines = []
    if found.detail:
        lines += _labelled("because", found.detail.splitlines())
    if found.expected or found.got:
        lines += _labelled("expected", found.expected.splitlines() or ["nothing"])
        lines += _labelled("got", found.got.splitlines() or ["nothing"])
    return lines


def _act(act: Act, unended: str) -> str:
    """An operation, its result, and the refusals it met."""
    text = f"{act.did} -> {act.returned}" if act.returned else act.did
    if not act.ended:
        text += unended
    return f"{text}     {', '.join(act.met)}" if act.met else text


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    """Lines behind a label, long ones wrapped; the label stands before the first."""
    wrapped = [part for line in lines[:LINES] for part in _unbroken(line)]
    if len(lines) > LINES:
        wrapped.append(f"… and {len(lines) - LINES} more lines")
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


def _short(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}… ({len(line)} characters)"


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
    if MICROSECONDS in notes:
        rate = notes[OPERATIONS] * 1_000_000 / max(notes[MICROSECONDS], 1)
        told = [line for line in told if not line.startswith((OPERATIONS, MICROSECONDS))]
        told.insert(0, f"{notes[OPERATIONS]:,} {OPERATIONS}, {rate:,.0f} a second in it")
    if states:
        scopes = "1 scope" if len(states) == 1 else f"{len(states)} scopes"
        told.insert(0, f"explored {scopes}: {sum(states):,} states, {sum(transitions):,} transitions")
    return "; ".join(told)


def _others(notes: dict[str, Any]) -> Iterator[str]:
    for name, n in notes.items():
        if not re.search(r": (states|transitions)$", name):
            yield f"{name}: {n:,}" if isinstance(n, int) else f"{name}: {n}"
