"""Each form of a report, read by a real parser or held to a schema, whatever a candidate says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import jsonschema
import junitparser
import kcidb_io
import msgspec
import pytest
from tap.line import Line
from tap.parser import Parser

from conformance.reports import annotations, cases, forms, github, record, text
from conformance.reports import json as json_form
from conformance.reports.record import (
    ClauseVerdict,
    Concluded,
    FailureFound,
    Footer,
    Header,
    KillFound,
    Part,
    Report,
    StaleFound,
    WarningFound,
)
from conformance.reports.story import Act, Call, Story, Told
from conformance.verdict import Exit, UsageError
from tests import kunit
from tests.report_schema import SCHEMED

NASTY = (
    "a\n::error::b%0A%25\r\n# SKIP c\nok 7 - d # TODO\nnot ok 8 e\n1..3\n# Subtest: f\n"
    "  KTAP version 1\nTAP version 14\n"
    "]]> <b>&amp;</b> ``` ```` | [x](y) </details> \x00\x07\x1b[31m\x7f\x85\u2028\u202e\udcff\ud800\ufffe \U0001f600\n"
    "reboot: System halted\nKernel panic - not syncing: VFS:\n---\n...\nBail out! g\n \\ '\" , : # end"
)
LONG = "long " * 5_000 + "x" * 20_000
PLAIN = "mine.py:Shelf"
DATA = Path(__file__).parent / "data"


def header(candidate: str = PLAIN) -> Header:
    return Header(subsystem="toy", profile="upstream", candidate=candidate, engines=("explore",))


def verdict(number: int, verdict: str, level: str = "MUST", why: str = "") -> ClauseVerdict:
    return ClauseVerdict(f"TOY-{number:03d}", level, verdict, 1, f"Sentence {number}.", "the tests", why)


def failure_fields(said: str = "because") -> dict[str, Any]:
    """Those of a finding."""
    told = Told((Act(said, said, True, (said,)), Act(said, said, point=1)), (Call(0, said, said),), (said,))
    return {
        "operation": "Take",
        "mismatch": "result",
        "detail": said,
        "step": 0,
        "expected": said,
        "got": said,
        "engine": "explore",
        "seconds": 0.1,
        "flaky": False,
        "trace": {"schema": 1, "subsystem": "toy", "profile": "upstream", "config": {}, "steps": [{"op": "Take"}]},
        "story": Story((told,), (said,), said),
    }


def finding(kind: type, number: int, said: str = "because", **more: Any) -> Any:
    named = {"clause": f"TOY-{number:03d}", "signature": f"TOY-{number:03d}:Take:result"}
    return kind(**{**failure_fields(said), **named, **more})


def concluded(code: Exit, **more: Any) -> Concluded:
    return Concluded(**{"exit": int(code), "why": "why", "complete": True, "steps": 9, "seconds": 1.5, **more})


def report(code: Exit, part: Part, **more: Any) -> Report:
    part.conclusion = part.conclusion or concluded(code)
    return Report([part], Footer(int(code), more.pop("why", "toy: why"), 9, 2.5, **more))


def conforming() -> Report:
    clauses = [
        verdict(1, "pass"),
        verdict(2, "not-applicable", why="needs colour, which the candidate does not have"),
        verdict(3, "untestable", why="Nothing observes it."),
        verdict(4, "not-exercised", "SHOULD", "no trace reached it"),
        verdict(5, "pass", "SHOULD"),
        verdict(6, "known"),
    ]
    known = finding(FailureFound, 6, status="known")
    return report(Exit.CONFORMS, Part(header(), clauses, [known], [finding(WarningFound, 5)]))


def failing() -> Report:
    clauses = [verdict(1, "fail"), verdict(2, "not-exercised", why="no trace reached it"), verdict(3, "pass")]
    found = [finding(FailureFound, 1), finding(FailureFound, 1, signature="TOY-001:Put:crash", mismatch="crash")]
    return report(Exit.DOES_NOT_CONFORM, Part(header(), clauses, found))


def inconclusive() -> Report:
    clauses = [
        verdict(1, "not-exercised", why="no trace reached it"),
        verdict(2, "fail"),
        verdict(3, "not-exercised", "SHOULD"),
    ]
    return report(Exit.INCONCLUSIVE, Part(header(), clauses, [finding(FailureFound, 2, flaky=True)]))


def interrupted() -> Report:
    """One subsystem was done, the second one was begun, the third one was not."""
    done = Part(header(), [verdict(1, "pass")], conclusion=concluded(Exit.CONFORMS))
    cut = concluded(Exit.INCONCLUSIVE, interrupted=True, why="inconclusive: interrupted before the end")
    begun = Part(header(), [verdict(1, "pass"), verdict(2, "not-exercised")], conclusion=cut)
    return Report([done, begun, Part(header())], Footer(4, "interrupted before the end", 9, 1.0, interrupted=True))


def broken_suite() -> Report:
    errors = ("toy.explore: by zero", "toy.machine.1: by one")
    part = Part(header(), [verdict(1, "pass")], conclusion=concluded(Exit.HARNESS, errors=errors))
    return report(Exit.HARNESS, part)


def stale(code: Exit = Exit.STALE_BASELINE) -> Report:
    part = Part(header(), [verdict(1, "pass")], stale=[StaleFound("TOY-001", "TOY-001:Take:result", "K-7")])
    return report(code, part)


def strength() -> Report:
    kills = [
        KillFound("TOY-D01", "TOY-001", ("TOY-001",), True, "explore", 3, 0.1, ""),
        KillFound("TOY-D02", "TOY-002", ("TOY-001",), True, "explore", 3, 0.1, ""),
        KillFound("TOY-D03", None, ("TOY-001",), False, "", 0, 0.1, ""),
        KillFound("TOY-D04", None, (), False, "", 0, 0.0, "Nothing observes that."),
    ]
    return Report([Part(header("zoo"), kills=kills)], Footer(1, "toy: 2 of 3 defects killed", 0, 1.0))


def hostile(said: str) -> Report:
    clauses = [verdict(1, "fail"), verdict(2, "known"), verdict(3, "pass", "SHOULD"), verdict(4, "pass")]
    more = {"engine": said, "operation": said, "mismatch": said, "saved": said}
    signed = [{**more, "signature": f"TOY-00{n}:{said}:{said}"} for n in (1, 2, 3)]
    part = Part(
        header(f"{said}.py:{said}"),
        clauses,
        [
            finding(FailureFound, 1, said, **signed[0]),
            finding(FailureFound, 2, said, status="known", reason=said, **signed[1]),
        ],
        [finding(WarningFound, 3, said, **signed[2])],
        [StaleFound("TOY-004", f"TOY-004:{said}:{said}", said, "review", said)],
        conclusion=concluded(Exit.HARNESS, why=said, errors=(said, said), notes={"explored": 3}),
    )
    return Report([part], Footer(3, said, 9, 1.0))


def documented() -> Report:
    """The report that `docs/report.md` shows in every form."""
    head = Header(subsystem="uio_msi", profile="upstream", candidate="mine.py:Uio", engines=("explore",))
    clauses = [
        ClauseVerdict("UIO-005", "MUST", "pass", 41, "A vector number that does not exist is refused."),
        ClauseVerdict("UIO-007", "MUST", "not-applicable", 0, why="needs compat, which the candidate does not have"),
        ClauseVerdict("UIO-047", "MUST", "fail", 12, "The first open enables MSI-X exactly once.", "uio_msi_open"),
        ClauseVerdict("UIO-075", "MUST", "known", 7, "remove leaves nothing behind.", "drivers/uio/uio.c"),
    ]
    opened = Told((Act("open()", "0"),))
    story = Story((opened, Told((Act("open()", ended=False),), (Call(0, "pci_enable_msix((0, 1))"),))))
    steps = {**failure_fields()["trace"], "subsystem": "uio_msi", "steps": [{"op": "Open"}, {"op": "Open"}]}
    common = {
        **failure_fields(),
        "trace": steps,
        "operation": "Open",
        "mismatch": "protocol",
        "expected": "",
        "got": "",
    }
    failed = FailureFound(
        **{
            **common,
            "clause": "UIO-047",
            "signature": "UIO-047:Open:protocol",
            "step": 1,
            "detail": "pci_enable_msix while MSI-X is enabled",
            "story": story,
        }
    )
    known = FailureFound(
        **{
            **common,
            "clause": "UIO-075",
            "signature": "UIO-075:Remove:protocol",
            "step": 1,
            "detail": "pci_disable_device while MSI-X is on",
            "story": None,
            "status": "known",
        }
    )
    why = "does not conform: 1 clause broken (UIO-047)"
    ended = Concluded(exit=1, why=why, complete=False, steps=4_711, seconds=0.5)
    return Report([Part(head, clauses, [failed, known], conclusion=ended)], Footer(1, f"uio_msi: {why}", 4_711, 0.6))


@dataclass(frozen=True)
class Sample:
    """A report, and how many of its cases have which outcome."""

    make: Callable[[], Report]
    counts: tuple[int, int, int, int, int]
    """Passed, failed, in error, known, skipped."""


SAMPLES = {
    "conforming": Sample(conforming, (2, 0, 0, 1, 3)),
    "failing": Sample(failing, (1, 1, 0, 0, 1)),
    "inconclusive": Sample(inconclusive, (0, 0, 2, 0, 1)),
    "interrupted": Sample(interrupted, (2, 0, 3, 0, 0)),
    "suite broken": Sample(broken_suite, (1, 0, 1, 0, 0)),
    "stale": Sample(stale, (1, 1, 0, 0, 0)),
    "stale, tolerated": Sample(lambda: stale(Exit.CONFORMS), (2, 0, 0, 0, 0)),
    "strength": Sample(strength, (2, 1, 0, 0, 1)),
    "nothing ran": Sample(lambda: report(Exit.NOTHING_RAN, Part(header(), [verdict(1, "pass")])), (1, 0, 1, 0, 0)),
    "another reason": Sample(lambda: report(Exit.INCONCLUSIVE, Part(header(), [verdict(1, "pass")])), (1, 0, 1, 0, 0)),
    "unfinished": Sample(lambda: Report([Part(header())]), (0, 0, 1, 0, 0)),
    "empty": Sample(lambda: Report([]), (0, 0, 1, 0, 0)),
    "hostile": Sample(lambda: hostile(NASTY), (2, 2, 1, 1, 0)),
    "long": Sample(lambda: hostile(LONG), (2, 2, 1, 1, 0)),
}

every_sample = pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)


def rendered(form: str, what: Report) -> str:
    """A form's text: UTF-8, the same each time."""
    data = forms.FORMS[form](what)
    assert data == forms.FORMS[form](what)
    return data.decode()


@every_sample
def test_what_is_red_agrees_with_the_exit_code(sample: Sample) -> None:
    """Nothing where it is 0, something where it is not."""
    made = sample.make()
    outcomes = [case.outcome for suite in cases.suites(made) for case in suite.cases]

    assert tuple(outcomes.count(outcome) for outcome in cases.Outcome) == sample.counts
    assert any(o.is_red for o in outcomes) == (made.footer is None or made.footer.exit != 0)


@every_sample
def test_json_lines_are_read_again(sample: Sample, tmp_path: Path) -> None:
    """Whatever stands in them; what UTF-8 does not have became the text of its escape."""
    path = tmp_path / "report.jsonl"
    path.write_text(rendered("json", sample.make()))

    for line in path.read_bytes().splitlines():
        SCHEMED.validate(json.loads(line))
    read = json_form.read(path)

    assert json_form.render(read) == path.read_bytes()


@every_sample
def test_junit_is_read_by_its_consumers(sample: Sample) -> None:
    """Counts as the elements say, one failure in a case at most."""
    told = rendered("junit", sample.make())

    read = junitparser.JUnitXml.fromstring(told.encode())
    passed, failed, in_error, known, skipped = sample.counts
    assert (read.tests, read.failures, read.errors, read.skipped) == (
        *(sum(sample.counts), failed, in_error),
        known + skipped,
    )
    elements = [len(list(case)) for suite in read for case in suite]
    assert len(elements) == passed + failed + in_error + known + skipped
    assert max(elements) <= 1
    for suite in Xml.fromstring(told):  # noqa: S314  # our own
        assert [len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")] == [
            int(suite.get(name) or 0) for name in ("failures", "errors", "skipped")
        ]


def test_junit_holds_the_text_of_a_failure() -> None:
    """The same that is printed; a further way to break the clause is behind it."""
    made = failing()
    part = made.parts[0]
    root = Xml.fromstring(rendered("junit", made))  # noqa: S314  # our own

    (failure,) = root.iter("failure")
    told = [text.finding(found, part.clauses[0], PLAIN) for found in part.failures]
    assert failure.text == "\n\n".join(told)
    assert failure.get("message") == "TOY-001 violated by mine.py:Shelf at step 1 of 1, and in 1 more ways"
    assert [case.get("classname") for case in root.iter("testcase")] == ["toy.mine_py_Shelf"] * 3


def test_junit_says_why_a_clause_was_not_judged() -> None:
    """Not applicable, untestable, not exercised, known: each with its reason."""
    root = Xml.fromstring(rendered("junit", conforming()))  # noqa: S314  # our own

    assert [(s.get("type"), s.get("message")) for s in root.iter("skipped")] == [
        ("pytest.skip", "not applicable: needs colour, which the candidate does not have"),
        ("pytest.skip", "untestable: Nothing observes it."),
        ("pytest.skip", "not exercised: no trace reached it"),
        ("pytest.xfail", "known failure: TOY-006:Take:result"),
    ]


@every_sample
def test_ktap_is_read_by_the_kernels_rules(sample: Sample) -> None:
    """Without an error, with a status for each case, and with the names of the clauses."""
    made = sample.make()
    read = kunit.parse(rendered("ktap", made))

    assert read.all_errors() == []
    assert [suite.name for suite in read.children] == [s.part.header.subsystem for s in cases.suites(made)]
    found = [test for suite in read.children for test in suite.children]
    assert [test.name for test in found] == [case.name for suite in cases.suites(made) for case in suite.cases]
    passed, failed, in_error, known, skipped = sample.counts
    statuses = [test.status for test in found]
    assert [statuses.count(s) for s in ("success", "failure", "skipped")] == [
        passed + known,
        failed + in_error,
        skipped,
    ]
    assert (read.status == "failure") == (failed + in_error > 0)


def test_ktap_marks_known_failures() -> None:
    """As expected ones, with their text before them."""
    lines = rendered("ktap", conforming()).splitlines()

    assert "  ok 6 TOY-006 # XFAIL known failure: TOY-006:Take:result" in lines
    assert "  # TOY-006 violated by mine.py:Shelf at step 1 of 1" in lines
    assert "  # Totals: pass:2 fail:0 xfail:1 xpass:0 skip:3 error:0" in lines


def points(told: str) -> list[Line]:
    """The test points of a TAP document, every line of which must be something."""
    read = list(Parser().parse_text(told))
    assert [line.category for line in read][:2] == ["version", "plan"]
    assert {line.category for line in read} <= {"version", "plan", "test", "diagnostic"}
    found = [line for line in read if line.category == "test"]
    assert [point.number for point in found] == list(range(1, read[1].expected_tests + 1))
    return found


@every_sample
def test_tap_is_read_by_its_parser(sample: Sample) -> None:
    """Known failures are to be done, and no directive comes from a candidate."""
    made = sample.make()
    found = points(rendered("tap", made))

    assert [point.description for point in found] == [
        f"- {suite.part.header.subsystem}.{case.name}" for suite in cases.suites(made) for case in suite.cases
    ]
    kinds = [("skip" if p.skip else "todo" if p.todo else "ok" if p.ok else "not ok") for p in found]
    passed, failed, in_error, known, skipped = sample.counts
    assert [kinds.count(kind) for kind in ("ok", "not ok", "todo", "skip")] == [
        *(passed, failed + in_error),
        *(known, skipped),
    ]


def test_tap_holds_the_text_of_a_failure() -> None:
    """In a block of YAML that says what every form says."""
    made = hostile(NASTY)
    (first, *_) = points(rendered("tap", made))
    (case, *_) = cases.suites(made)[0].cases

    told = re.sub(r"(?m)^\s*\.\.\.", "…", case.text)
    assert first.yaml_block == {"message": case.why, "severity": "fail", "text": told + "\n"}


@every_sample
def test_kcidb_is_valid(sample: Sample) -> None:
    """By the library that its database uses."""
    read = json.loads(rendered("kcidb", sample.make()))

    assert kcidb_io.schema.V5_3.is_valid_exactly(read)
    kcidb_io.schema.V5_3.validate_exactly(read)
    statuses = [test["status"] for test in read["tests"]]
    passed, failed, in_error, known, skipped = sample.counts
    assert [statuses.count("PASS"), statuses.count("FAIL"), statuses.count("SKIP")] == [passed, failed + known, skipped]
    assert statuses.count("ERROR") + statuses.count("MISS") == in_error
    for kind in ("tests", "issues", "incidents", "builds"):
        ids = [item["id"] for item in read[kind]]
        assert len(ids) == len(set(ids))


def test_kcidb_tells_known_failures_from_new_ones() -> None:
    """A known failure is an issue with an incident, one that is gone an incident that is not present."""
    known = json.loads(rendered("kcidb", conforming()))
    part = Part(header(), [verdict(6, "pass")], stale=[StaleFound("TOY-006", "TOY-006:Take:result", "K-7")])
    gone = json.loads(rendered("kcidb", report(Exit.STALE_BASELINE, part)))

    (issue,) = known["issues"]
    assert issue["culprit"] == {"code": True, "tool": False, "harness": False}
    assert [(i["issue_id"], i["present"]) for i in known["incidents"]] == [(issue["id"], True)]
    assert [(i["issue_id"], i["present"]) for i in gone["incidents"]] == [(issue["id"], False)]
    assert gone["issues"] == []
    assert json.loads(rendered("kcidb", failing()))["issues"] == []


@every_sample
def test_sarif_is_valid(sample: Sample) -> None:
    """Against a schema of the parts that are used; runs of one file differ in their category."""
    schema = json.loads((DATA / "sarif-parts.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    made = sample.make()
    read = json.loads(rendered("sarif", made))

    jsonschema.validate(read, schema, format_checker=jsonschema.FormatChecker())
    for run in read["runs"]:
        rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
        for result in run["results"]:
            assert rules[result["ruleIndex"]] == result["ruleId"]
    ended = [invocation["executionSuccessful"] for run in read["runs"] for invocation in run["invocations"]]
    assert all(ended) or made.footer is None or made.footer.exit not in (0, 1, 6)


def test_sarif_says_what_is_new() -> None:
    """And what a baseline knows, and what of it is gone; each is recognised by its signature."""
    (known,) = json.loads(rendered("sarif", conforming()))["runs"]
    (gone,) = json.loads(rendered("sarif", stale()))["runs"]
    (new,) = json.loads(rendered("sarif", failing()))["runs"]

    assert [(r["level"], r["baselineState"], "suppressions" in r) for r in known["results"]] == [
        ("error", "unchanged", True),
        ("warning", "new", False),
    ]
    assert [r["baselineState"] for r in [*gone["results"], *new["results"]]] == ["absent", "new", "new"]
    assert new["results"][0]["partialFingerprints"] == {"signature/v1": "toy:TOY-001:Take:result"}
    assert new["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "mine.py"}


@every_sample
def test_a_summary_fits_and_holds_no_strange_markup(sample: Sample) -> None:
    """Below GitHub's limit; every block of text is closed by the fence that opened it, and nothing else is HTML."""
    told = rendered("github", sample.make())

    assert len(told.encode()) <= github.BYTES
    outside, fence = [], ""
    for line in told.splitlines():
        if fence:
            fence = "" if line == fence else fence
        elif opened := re.match(r"(`{3,})text$", line):
            fence = opened[1]
        else:
            outside.append(re.sub(r"(`+) ?.*? ?\1", "", line))
    assert fence == ""
    tags = re.findall(r"(?<!\\)</?\w+>", "\n".join(outside))
    assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}
    assert tags.count("<details>") == tags.count("</details>") == tags.count("<summary>")


def test_a_summary_counts_what_it_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub would drop the whole."""
    monkeypatch.setattr(github, "BYTES", 10_000)
    clauses = [verdict(n, "fail") for n in range(1, 40)]
    found = [finding(FailureFound, n) for n in range(1, 40)]

    told = rendered("github", report(Exit.DOES_NOT_CONFORM, Part(header(), clauses, found)))

    shown = told.count("<details>")
    assert 0 < shown < 39
    assert f"{39 - shown} more are not shown here" in told
    assert len(told.encode()) <= github.BYTES


def unescaped(value: str) -> str:
    for escape, char in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        value = value.replace(escape, char)
    return value


@every_sample
def test_annotations_are_one_command_a_line(sample: Sample) -> None:
    """Errors for what is red; a candidate can give no command of its own."""
    made = sample.make()
    lines = rendered("annotations", made).splitlines()

    commands = [re.fullmatch(r"::(error|warning|notice) ([^:]*)::(.*)", line) for line in lines]
    assert all(commands)
    red = [case for suite in cases.suites(made) for case in suite.cases if case.outcome.is_red]
    errors = [command for command in commands if command and command[1] == "error"]
    assert [unescaped(c[3]) for c in errors] == [cases.cut(case.text or case.why, annotations.MESSAGE) for case in red]
    for command in commands:
        assert command
        given = dict(pair.split("=", 1) for pair in command[2].split(","))
        assert given["title"].startswith("toy ") or given["title"].startswith("conformance ")


def test_annotations_beyond_the_limit_are_counted() -> None:
    """Those that GitHub would drop without a word."""
    clauses = [verdict(n, "fail") for n in range(1, 31)]
    found = [finding(FailureFound, n) for n in range(1, 31)]

    lines = rendered("annotations", report(Exit.DOES_NOT_CONFORM, Part(header(), clauses, found))).splitlines()

    assert len(lines) == annotations.MOST
    assert lines[0].startswith("::error file=mine.py,line=1,title=toy TOY-001::TOY-001 violated by mine.py:Shelf")
    assert lines[-1] == "::error title=conformance::21 more are in the report"


@pytest.mark.parametrize("said", [NASTY, LONG], ids=["nasty", "long"])
def test_the_text_of_a_failure_is_plain(said: str) -> None:
    """Lines of printable characters, of bounded length, whatever the record holds."""
    part = hostile(said).parts[0]

    for found in [*part.failures, *part.warnings]:
        lines = text.finding(found, part.clause(found.clause), part.header.candidate, said).split("\n")
        assert all(line.isprintable() for line in lines)
        assert max(map(len, lines)) <= text.LONGEST + 30


def test_a_form_may_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written there before the run ends."""
    chosen = forms.targets(["annotations:-"])
    forms.begin(chosen, [header()])
    assert capsys.readouterr().out == ""

    forms.write(chosen, record.scattered(failing()))

    assert capsys.readouterr().out.startswith("::error file=mine.py")


def test_an_unknown_form_is_refused() -> None:
    """With those that there are, and the one that was meant."""
    with pytest.raises(UsageError, match=r"--report=xml:a: expected FORM:PATH, where FORM is json, junit, ktap, tap"):
        forms.targets(["xml:a"])
    with pytest.raises(UsageError, match=r"annotations, html; did you mean 'html'\?"):
        forms.targets(["htlm:a"])


def test_a_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    """With its version, before anything else of it is looked at."""
    path = tmp_path / "report.jsonl"
    path.write_bytes(msgspec.json.encode({"kind": "header", "schema": 9, "colour": "red"}))

    with pytest.raises(UsageError, match="line 1 is not of a report: this version reads schema 1, not 9"):
        json_form.read(path)


@pytest.mark.parametrize("form", [form for form in forms.FORMS if form != "html"])
def test_the_documentation_shows_every_form(form: str) -> None:
    """As it is: each line of its example is one of the form's, in order."""
    told = (Path(__file__).parent.parent.parent / "docs" / "report.md").read_text()
    section = told[told.index(f"### `{form}`") :]
    shown = section[section.index("```") :].split("```")[1].split("\n")[1:-1]

    lines = iter(rendered(form, documented()).splitlines())

    assert shown
    assert [line for line in shown if line != "…" and line not in lines] == []
