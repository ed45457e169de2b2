"""JUnit XML, of the kind that pytest calls xunit2: what most continuous integration shows."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from conformance.reports.cases import Case, Outcome, Suite, line, safe, suites
from conformance.reports.record import Report

SKIPPED = (Outcome.SKIP, Outcome.KNOWN)


def render(report: Report) -> bytes:
    """One suite for each candidate, one case for each clause, never more than one failure in a case."""
    listed = suites(report)
    root = Xml.Element("testsuites", name="conformance")
    for number in ("tests", "failures", "errors", "skipped"):
        root.set(number, str(sum(int(_counts(suite)[number]) for suite in listed)))
    for suite in listed:
        root.append(_suite(suite))
    Xml.indent(root, " ")
    data: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _counts(suite: Suite) -> dict[str, str]:
    return {
        "tests": str(len(suite.cases)),
        "failures": str(suite.count(Outcome.FAIL)),
        "errors": str(suite.count(Outcome.ERROR)),
        "skipped": str(suite.count(*SKIPPED)),
    }


def _suite(suite: Suite) -> Xml.Element:
    head, concluded = suite.part.header, suite.part.conclusion
    element = Xml.Element("testsuite", {"name": safe(head.subsystem), **_counts(suite)})
    element.set("time", f"{concluded.seconds if concluded is not None else 0:.3f}")
    properties = Xml.SubElement(element, "properties")
    for name, value in {
        "suite": head.suite,
        "candidate": head.candidate,
        "profile": head.profile,
        "capabilities": " ".join(head.capabilities),
        "engines": " ".join(head.engines),
        "seed": "" if head.seed is None else str(head.seed),
        "budget": "" if head.budget is None else f"{head.budget:g}",
        "verdict": "" if concluded is None else concluded.why,
    }.items():
        Xml.SubElement(properties, "property", name=name, value=line(value))
    classname = f"{safe(head.subsystem)}.{safe(head.candidate)}"
    for case in suite.cases:
        element.append(_case(case, classname))
    return element


def _case(case: Case, classname: str) -> Xml.Element:
    element = Xml.Element("testcase", classname=classname, name=case.name, time="0.000")
    match case.outcome:
        case Outcome.FAIL:
            kinds = " ".join(dict.fromkeys(found.mismatch for found in case.findings))
            inner = Xml.SubElement(element, "failure", message=case.why, type=line(kinds) or "failure")
            inner.text = case.text or case.why
        case Outcome.ERROR:
            inner = Xml.SubElement(element, "error", message=case.why, type="inconclusive")
            inner.text = case.text or case.why
        case Outcome.SKIP:
            Xml.SubElement(element, "skipped", message=case.why, type="pytest.skip")
        case Outcome.KNOWN:
            Xml.SubElement(element, "skipped", message=case.why, type="pytest.xfail").text = case.text
        case Outcome.PASS if case.text or case.why:
            Xml.SubElement(element, "system-out").text = case.text or case.why
    return element
