"""The summary of a step of GitHub Actions, in Markdown: `--report github:$GITHUB_STEP_SUMMARY`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from conformance.reports.cases import Case, Outcome, Suite, cut, line, suites
from conformance.reports.record import Report
from conformance.verdict import Exit

BYTES = 1_000_000
"""Of a summary at most; GitHub drops one that is larger than 1 MiB whole."""
ROWS = 100
"""Candidates in the table at most."""
TEXT = 20_000
"""Characters of one failure in a summary at most."""
_HEADINGS = {
    Exit.CONFORMS: "conforms",
    Exit.DOES_NOT_CONFORM: "does not conform",
    Exit.HARNESS: "the suite failed",
    Exit.INCONCLUSIVE: "inconclusive",
    Exit.NOTHING_RAN: "nothing ran",
    Exit.STALE_BASELINE: "the baseline needs attention",
}
_COLUMNS = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "fail",
    Outcome.ERROR: "error",
    Outcome.KNOWN: "known",
    Outcome.SKIP: "skipped",
}


def render(report: Report) -> bytes:
    """A table of counts, then what is to be read; what does not fit is counted."""
    listed = suites(report)
    done = [f"## Conformance: {_heading(report)}", _table(listed)]
    if report.footer is not None:
        done.append(_plain(f"exit {report.footer.exit}: {report.footer.why}"))
    left = BYTES - sum(len(block.encode()) + 2 for block in done) - 200
    unshown = 0
    for block in (block for suite in listed for block in _blocks(suite)):
        size = len(block.encode()) + 2
        if size > left:
            unshown += 1
            continue
        left -= size
        done.append(block)
    if unshown:
        done.append(f"{unshown} more are not shown here: a summary has no room for them.")
    return ("\n\n".join(done) + "\n").encode()


def _heading(report: Report) -> str:
    if report.footer is None:
        return "the run did not end"
    return _HEADINGS.get(Exit(report.footer.exit), "asked wrongly")


def _table(listed: list[Suite]) -> str:
    head = f"| subsystem | candidate | profile | {' | '.join(_COLUMNS.values())} |"
    return "\n".join([head, f"|---|---|---|{'--:|' * len(_COLUMNS)}", *(_row(suite) for suite in listed[:ROWS])])


def _row(suite: Suite) -> str:
    head = suite.part.header
    counts = " | ".join(str(suite.count(outcome)) for outcome in _COLUMNS)
    return f"| {_code(head.subsystem)} | {_code(head.candidate)} | {_code(head.profile)} | {counts} |"


def _blocks(suite: Suite) -> Iterator[str]:
    """Failures first; what is known is counted alone."""
    for outcome in (Outcome.FAIL, Outcome.ERROR, Outcome.PASS):
        chosen = [case for case in suite.cases if case.outcome is outcome and (case.text or case.why)]
        plain = [case for case in chosen if not case.text]
        yield from (_details(suite, case) for case in chosen if case.text)
        if plain:
            yield "\n".join(f"- {_code(f'{suite.part.header.subsystem} {c.name}')}: {_plain(c.why)}" for c in plain)


def _details(suite: Suite, case: Case) -> str:
    told = cut(case.text, TEXT)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", told))])
    sentence = line(case.clause.text, 300) if case.clause is not None else case.why
    subsystem = escape(line(suite.part.header.subsystem, 200))
    head = f"{_LABELS[case.outcome]} {subsystem} <code>{case.name}</code> {escape(sentence)}"
    return f"<details><summary>{head}</summary>\n\n{fence}text\n{told}\n{fence}\n\n</details>"


_LABELS = {Outcome.FAIL: "❌", Outcome.ERROR: "⚠️", Outcome.PASS: "warning"}


def _plain(what: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>()#+.!|~@&:-])", r"\\\1", line(what))


def _code(what: str) -> str:
    """A code span that holds anything, in a table too."""
    told = line(what, 200).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", told)), default=0))
    pad = " " if told[:1] in ("`", "") or told[-1:] == "`" else ""
    return f"{fence}{pad}{told or '?'}{pad}{fence}"
