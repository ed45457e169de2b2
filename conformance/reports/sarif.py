"""SARIF 2.1.0, for code scanning: a run for each candidate, a rule for each clause, a result for each failure."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import msgspec

from conformance.reports import json, text, values
from conformance.reports.cases import Case, Outcome, Suite, file_of, line, safe, suites
from conformance.reports.record import ClauseVerdict, FailureFound, Finding, Footer, Report, StaleFound
from conformance.verdict import Exit

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_MAY_END = (Exit.CONFORMS, Exit.DOES_NOT_CONFORM, Exit.STALE_BASELINE)
"""Exits of a run that did what it was to do."""


def render(report: Report) -> bytes:
    """One log; what is no candidate's fault is a notification."""
    runs = [_run(suite, report.footer) for suite in suites(report)]
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}
    return msgspec.json.format(json.encode(log), indent=1) + b"\n"


def _run(suite: Suite, footer: Footer | None) -> dict[str, Any]:
    head = suite.part.header
    name, _, version = head.suite.partition(" ")
    index = {clause.id: number for number, clause in enumerate(suite.part.clauses)}
    driver = {
        "name": name or "conformance",
        "rules": [_rule(clause, head.subsystem) for clause in suite.part.clauses],
        **({"version": version} if version else {}),
    }
    found = [*suite.part.failures, *suite.part.warnings]
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"conformance/{safe(head.subsystem)}/{safe(head.candidate)}/"},
        "invocations": [_invocation(suite, footer, index)],
        "results": [_result(f, suite, index) for f in found]
        + [_absent(stale, suite, index) for stale in suite.part.stale if stale.is_gone],
        "properties": {
            "subsystem": line(head.subsystem),
            "candidate": line(head.candidate),
            "profile": line(head.profile),
        },
    }


def _rule(clause: ClauseVerdict, subsystem: str) -> dict[str, Any]:
    sentence = line(clause.text) or clause.id
    return {
        "id": clause.id,
        "shortDescription": {"text": sentence},
        "fullDescription": {"text": sentence},
        "help": {"text": f"{sentence}\n\nSource: {line(clause.source)}"},
        "defaultConfiguration": {"level": "error" if clause.is_binding else "warning"},
        "properties": {"tags": [safe(subsystem), clause.level]},
    }


def _result(found: Finding, suite: Suite, index: dict[str, int]) -> dict[str, Any]:
    clause = suite.part.clause(found.clause)
    level = "error" if isinstance(found, FailureFound) else "warning"
    told = text.finding(found, clause, suite.part.header.candidate, found.saved)
    result = {
        **_about(found.clause, found.signature, suite, index),
        "level": level,
        "message": {"text": told},
        "baselineState": "unchanged" if found.status == "known" else "new",
        "properties": {"engine": line(found.engine), "flaky": found.flaky},
    }
    if found.status == "known":
        reason = line(found.reason)
        result["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": f"known{f': {reason}' if reason else ''}"}
        ]
    return result


def _absent(stale: StaleFound, suite: Suite, index: dict[str, int]) -> dict[str, Any]:
    told = stale.text or f"{stale.signature} is a known failure that no longer fails ({stale.id})"
    return {
        **_about(stale.clause, stale.signature, suite, index),
        "level": "note",
        "message": {"text": line(told)},
        "baselineState": "absent",
    }


def _about(clause: str, signature: str, suite: Suite, index: dict[str, int]) -> dict[str, Any]:
    """Which rule, where, and by what the same result is known again."""
    about: dict[str, Any] = {
        "ruleId": clause,
        "locations": [_location(suite.part.header.candidate)],
        "partialFingerprints": {"signature/v1": values.printable(f"{suite.part.header.subsystem}:{signature}")},
    }
    return about | ({"ruleIndex": index[clause]} if clause in index else {})


def _location(candidate: str) -> dict[str, Any]:
    """The candidate's file; of one that is imported by name the name alone."""
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": line(candidate) or "?"}]}
    path = file_of(candidate)
    if path is None:
        return location
    quoted = quote(path.encode(errors="backslashreplace"))
    uri = f"file://{quoted}" if PurePath(path).is_absolute() else quoted
    physical = {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}
    return {"physicalLocation": physical, **location}


def _invocation(suite: Suite, footer: Footer | None, index: dict[str, int]) -> dict[str, Any]:
    concluded = suite.part.conclusion
    told = [_notification(case, index) for case in suite.cases if case.outcome is Outcome.ERROR]
    told += [
        {"level": "warning", "message": {"text": line(stale.text or stale.id)}}
        for stale in suite.part.stale
        if not stale.is_gone
    ]
    ended: dict[str, Any] = {}
    if footer is not None:
        end = concluded if concluded is not None else footer
        ended = {"exitCode": end.exit, "exitCodeDescription": line(end.why)}
    return {
        "executionSuccessful": footer is not None and ended["exitCode"] in _MAY_END,
        **ended,
        "toolExecutionNotifications": told,
    }


def _notification(case: Case, index: dict[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {"level": "error", "message": {"text": f"{case.name}: {case.why}"}}
    if case.clause is not None:
        told["associatedRule"] = {"id": case.clause.id, "index": index[case.clause.id]}
    return told
