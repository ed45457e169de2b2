"""Annotations of GitHub Actions, which are commands on a step's output: `--report annotations:-`."""

from __future__ import annotations

from conformance.reports.cases import Case, Outcome, Suite, cut, file_of, line, suites, warnings
from conformance.reports.record import Report

MOST = 10
"""Of each kind that are kept of a step."""
MESSAGE = 4_000
"""Characters of a message at most."""


def render(report: Report) -> bytes:
    """Errors for what is red, warnings for breaches of SHOULD clauses; nothing for what is known."""
    kinds: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    for suite in suites(report):
        for case in suite.cases:
            if (kind := _kind(case)) is not None:
                kinds[kind].append(_command(kind, suite, case))
    lines = [command for kind, commands in kinds.items() for command in _first(kind, commands)]
    return "".join(f"{each}\n" for each in lines).encode()


def _kind(case: Case) -> str | None:
    if case.outcome.is_red:
        return "error"
    if warnings(case):
        return "warning"
    return "notice" if case.outcome is Outcome.PASS and case.why else None


def _first(kind: str, commands: list[str]) -> list[str]:
    """As many as are shown; the last one says how many there are besides."""
    if len(commands) <= MOST:
        return commands
    more = len(commands) - MOST + 1
    return [*commands[: MOST - 1], f"::{kind} title=conformance::{more} more are in the report"]


def _command(kind: str, suite: Suite, case: Case) -> str:
    head = suite.part.header
    given = {"title": line(f"{head.subsystem} {case.name}", 200)}
    path = file_of(head.candidate)
    if path is not None:
        given = {"file": line(path, 400), "line": "1", **given}
    properties = ",".join(f"{name}={_property(value)}" for name, value in given.items())
    return f"::{kind} {properties}::{_data(cut(case.text or case.why, MESSAGE))}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
