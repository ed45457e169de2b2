"""TAP 14, flat, so that consumers of any version count clauses: `not ok 9 - uio_msi.UIO-009`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from conformance.reports.cases import Case, Outcome, line, safe, suites
from conformance.reports.json import encode
from conformance.reports.record import Report

_END = re.compile(r"^\s*\.\.\.")
"""What parsers take for the end of a block, however far it is indented."""


def render(report: Report) -> bytes:
    """A test point for each clause of each candidate; a known failure is `not ok` with TODO."""
    points = [(suite.part, case) for suite in suites(report) for case in suite.cases]
    lines = ["TAP version 14", f"1..{len(points)}"]
    before = None
    for number, (part, case) in enumerate(points, 1):
        if part is not before:
            before = part
            lines.append(f"# {line(f'{part.header.subsystem}: {part.header.candidate}, {part.header.suite}')}")
        lines.append(_point(number, f"{safe(part.header.subsystem)}.{case.name}", case))
        lines += [f"  {inner}" for inner in _block(case)]
    if report.footer is not None:
        lines.append(f"# exit {report.footer.exit}: {line(report.footer.why)}")
    return "".join(f"{each}\n" for each in lines).encode()


def _point(number: int, name: str, case: Case) -> str:
    match case.outcome:
        case Outcome.PASS:
            return f"ok {number} - {name}"
        case Outcome.SKIP:
            return f"ok {number} - {name} # SKIP {_escaped(case.why)}"
        case Outcome.KNOWN:
            return f"not ok {number} - {name} # TODO {_escaped(case.why)}"
        case _:
            return f"not ok {number} - {name}"


def _escaped(why: str) -> str:
    return why.replace("\\", "\\\\").replace("#", "\\#")


def _block(case: Case) -> Iterator[str]:
    """YAML, of which JSON's strings are a part."""
    if case.outcome is Outcome.SKIP or not (case.why or case.text):
        return
    severity = {Outcome.KNOWN: "todo", Outcome.PASS: "comment"}.get(case.outcome, case.outcome.value)
    yield "---"
    yield f"message: {encode(case.why).decode()}"
    yield f"severity: {severity}"
    if case.text:
        yield "text: |2"
        yield from (f"  {_END.sub('…', told)}" for told in case.text.split("\n"))
    yield "..."
