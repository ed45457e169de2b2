"""The kernel CI database's JSON, schema 5.3: what was tested is a build, a clause a test, a known failure an issue."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from conformance.reports import json, text, values
from conformance.reports.cases import Case, Outcome, Suite, cut, line, safe, suites
from conformance.reports.record import Finding, Report
from conformance.verdict import Verdict

ORIGIN = "conformance"
EXCERPT = 16_384
"""Characters of a log excerpt at most."""
_STATUS = {
    Outcome.PASS: "PASS",
    Outcome.FAIL: "FAIL",
    Outcome.KNOWN: "FAIL",
    Outcome.ERROR: "ERROR",
    Outcome.SKIP: "SKIP",
}


def render(report: Report) -> bytes:
    """One object; ids come from the report's own text, those of issues from what failed."""
    digest = hashlib.sha256(json.render(report)).hexdigest()[:16]
    data: dict[str, Any] = {
        "version": {"major": 5, "minor": 3},
        "checkouts": [{"id": f"{ORIGIN}:{digest}", "origin": ORIGIN, "comment": "the candidates of one run"}],
        "builds": [],
        "tests": [],
        "issues": [],
        "incidents": [],
    }
    for number, suite in enumerate(suites(report), 1):
        _add(data, suite, f"{ORIGIN}:{digest}", f"{ORIGIN}:{digest}/{number}")
    return msgspec.json.format(json.encode(data), indent=1) + b"\n"


def _add(data: dict[str, Any], suite: Suite, checkout: str, build: str) -> None:
    head = suite.part.header
    names = ("subsystem", "candidate", "profile", "suite", "capabilities", "engines", "seed", "budget")
    misc = {name: getattr(head, name) for name in names if getattr(head, name) is not None}
    comment = line(f"{head.subsystem}: {head.candidate}, profile {head.profile}, by {head.suite}")
    data["builds"].append(
        {"id": build, "origin": ORIGIN, "checkout_id": checkout, "comment": comment, "misc": _plain(misc)}
    )
    tests: dict[str, str] = {}
    for case in suite.cases:
        test = _test(case, build, f"{ORIGIN}.{safe(head.subsystem)}.{case.name}")
        data["tests"].append(test)
        tests[case.clause.id if case.clause is not None else ""] = test["id"]
        for found in case.findings:
            if found.status == "known":
                data["issues"].append(_issue(found, case, suite))
                data["incidents"].append(_incident(build, suite, found.signature, test["id"], present=True))
    for stale in suite.part.stale:
        if not stale.is_gone:
            continue
        test_of = tests.get(stale.clause)
        data["incidents"].append(_incident(build, suite, stale.signature, test_of, present=False))


def _test(case: Case, build: str, path: str) -> dict[str, Any]:
    missed = case.clause is not None and case.clause.verdict == Verdict.NOT_EXERCISED.value
    status = "MISS" if missed and case.outcome is Outcome.ERROR else _STATUS[case.outcome]
    test: dict[str, Any] = {
        "id": f"{build}/{case.name}",
        "origin": ORIGIN,
        "build_id": build,
        "path": path,
        "status": status,
    }
    if case.clause is not None:
        test["comment"] = line(case.clause.text)
        misc = {name: getattr(case.clause, name) for name in ("level", "verdict", "exercised", "source")}
        test["misc"] = _plain(misc | {"signatures": [found.signature for found in case.findings]})
    if told := case.text or case.why:
        test["log_excerpt"] = cut(told, EXCERPT)
    return test


def _issue(found: Finding, case: Case, suite: Suite) -> dict[str, Any]:
    assert case.clause is not None
    told = text.finding(found, case.clause, suite.part.header.candidate, found.saved)
    return {
        "id": _issue_id(suite, found.signature),
        "origin": ORIGIN,
        "version": 1,
        "report_subject": text.headline(found, case.clause, suite.part.header.candidate),
        "culprit": {"code": True, "tool": False, "harness": False},
        "comment": cut(told, EXCERPT),
        "misc": {"signature": values.printable(found.signature)},
    }


def _incident(build: str, suite: Suite, signature: str, test: str | None, *, present: bool) -> dict[str, Any]:
    of = {"test_id": test} if test is not None else {"build_id": build}
    return {
        "id": f"{build}/{values.printable(signature)}",
        "origin": ORIGIN,
        "issue_id": _issue_id(suite, signature),
        "issue_version": 1,
        "present": present,
        **of,
    }


def _issue_id(suite: Suite, signature: str) -> str:
    """The same from run to run, so that incidents of many runs are of one issue."""
    head = suite.part.header
    return f"{ORIGIN}:{values.printable(f'{head.subsystem}/{head.candidate}/{signature}')}"


def _plain(misc: dict[str, Any]) -> dict[str, Any]:
    """Texts of plain characters."""
    return {name: _plain_value(value) for name, value in misc.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain_value(item) for item in value]
    return line(value) if isinstance(value, str) else value
