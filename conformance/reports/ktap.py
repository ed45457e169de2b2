"""KTAP 1, as the kernel's kunit parser reads it: one test for each subsystem, in it one for each clause."""

from __future__ import annotations

import re
from collections.abc import Iterator

from conformance.reports.cases import Case, Outcome, Suite, line, safe, suites
from conformance.reports.record import Report

_END = re.compile(r"List of all partitions:|Kernel panic - not syncing: VFS:|reboot: System halted")
"""Where the parser stops reading, wherever in a line it stands."""


def render(report: Report) -> bytes:
    """The blocks of the subsystems; a known failure is `ok` with XFAIL."""
    listed = suites(report)
    lines = ["KTAP version 1", f"1..{len(listed)}"]
    for number, suite in enumerate(listed, 1):
        lines += [f"  {inner}" for inner in _block(suite)]
        is_red = suite.count(Outcome.FAIL, Outcome.ERROR)
        lines.append(f"{'not ok' if is_red else 'ok'} {number} {safe(suite.part.header.subsystem)}")
    if report.footer is not None:
        lines.append(_diagnostic(f"exit {report.footer.exit}: {line(report.footer.why)}"))
    return "".join(f"{_END.sub(_defused, each)}\n" for each in lines).encode()


def _block(suite: Suite) -> Iterator[str]:
    head = suite.part.header
    yield "KTAP version 1"
    yield f"# Subtest: {safe(head.subsystem)}"
    yield f"1..{len(suite.cases)}"
    yield _diagnostic(line(f"{head.candidate}, profile {head.profile}, {head.suite}"))
    for number, case in enumerate(suite.cases, 1):
        yield from (_diagnostic(told) for told in case.text.split("\n") if told)
        yield _result(number, case)
    counts = {"pass": Outcome.PASS, "fail": Outcome.FAIL, "xfail": Outcome.KNOWN}
    totals = " ".join(f"{name}:{suite.count(outcome)}" for name, outcome in counts.items())
    yield f"# Totals: {totals} xpass:0 skip:{suite.count(Outcome.SKIP)} error:{suite.count(Outcome.ERROR)}"


def _result(number: int, case: Case) -> str:
    why = f" {case.why.replace('#', ' ')}" if case.why else ""
    match case.outcome:
        case Outcome.PASS:
            return f"ok {number} {case.name}"
        case Outcome.KNOWN:
            return f"ok {number} {case.name} # XFAIL{why}"
        case Outcome.SKIP:
            return f"ok {number} {case.name} # SKIP{why}"
        case Outcome.ERROR:
            return f"not ok {number} {case.name} # ERROR{why}"
        case Outcome.FAIL:
            return f"not ok {number} {case.name}"


def _diagnostic(told: str) -> str:
    """A line that is no result and no header, whatever it says."""
    return f"#  {told}" if told.startswith("Subtest:") else f"# {told}"


def _defused(found: re.Match[str]) -> str:
    return found[0].replace(":", ";")
