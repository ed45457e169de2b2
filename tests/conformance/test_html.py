"""The page: its structure, what it does with hostile texts, and how it works in a browser."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conformance.candidates.load import Candidate
from conformance.commands import main as cli
from conformance.engines import explore
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.reports import forms, graph, html, page, record
from conformance.reports.json import read
from conformance.reports.story import tell
from conformance.runs.result import failure_to_data
from conformance.trace import Trace
from conformance.verdict import UsageError
from tests import chromium
from tests.chromium import Browser, browser
from tests.toy import TOY, Put, Take, context, trace
from tests.toyland import Leaky, Unlocked, shipped

VOID = {"meta", "br", "input", "rect"}
HOSTILE = '</script><img src=x onerror="window.harmed = 1">\'"&<!-- \x00\x1b[31m\u2028\u202e\ud800'
TAMED = '</script><img src=x onerror="window.harmed = 1">\'"&<!-- \\x00\\x1b[31m\\u2028\\u202e\\ud800'


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with shipped(monkeypatch):
        page._catalogue.cache_clear()
        yield
    page._catalogue.cache_clear()


@dataclass
class Element:
    """One element of a page."""

    tag: str
    attributes: dict[str, str]
    content: list[Element | str] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """The elements right below it."""
        return [item for item in self.content if isinstance(item, Element)]

    @property
    def said(self) -> str:
        """Its own text, as it stands."""
        return "".join(item for item in self.content if isinstance(item, str))

    def all(self, tag: str, **wanted: str) -> list[Element]:
        """The elements below it of that tag with these attributes."""
        found = [self] if self.tag == tag and all(self.attributes.get(k) == v for k, v in wanted.items()) else []
        return found + [inner for child in self.children for inner in child.all(tag, **wanted)]

    def every(self) -> Iterator[Element]:
        """Itself and all below."""
        yield self
        for child in self.children:
            yield from child.every()

    @property
    def text(self) -> str:
        """All the text below it, spaces drawn together."""
        return " ".join("".join(i if isinstance(i, str) else f"{i.text} " for i in self.content).split())


class Parser(HTMLParser):
    """Makes a tree, and refuses what is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)


def parsed(page: bytes) -> Element:
    """The tree of a page."""
    parser = Parser()
    parser.feed(page.decode())
    parser.close()
    (root,) = parser.open
    return root


def finding(candidate: type, given: Trace, **changed: Any) -> record.FailureFound:
    """The failure that a trace shows on a candidate, as in a report."""
    found = run_trace(TOY, given, candidate).failure
    assert found is not None
    told = tell(found, TOY, Candidate("mine.py:Shelf", candidate, "upstream", frozenset()))
    return msgspec.convert({**failure_to_data(told), "engine": "explore", **changed}, record.FailureFound)


def leak(**changed: Any) -> record.FailureFound:
    """A plain failure with a refusal on the way to it."""
    steps = (Step(Put(1), (Fault("alloc", -12),)), Step(Put(2)), Step(Put(3)), Step(Take()))
    return finding(Leaky, trace(*steps), **changed)


def race() -> record.FailureFound:
    """One of two threads."""
    both = Step(Parallel(Step(Put(1)), Step(Put(2)), (0,)))
    return finding(Unlocked, trace(Put(0), both))


def header(candidate: str = "mine.py:Shelf", profile: str = "upstream", **more: Any) -> record.Header:
    """Of the toy."""
    return record.Header(subsystem="toy", profile=profile, candidate=candidate, engines=("explore",), **more)


def report(*found: record.FailureFound, candidate: str = "mine.py:Shelf", scopes: bool = False) -> record.Report:
    """A report with these failures, of every clause of the toy."""
    broken = {f.clause for f in found}
    verdicts = [
        record.ClauseVerdict(c.id, c.level.value, "fail" if c.id in broken else "pass", 10**n)
        for n, c in enumerate(TOY.clauses)
    ]
    explored: list[record.Line] = []
    if scopes:
        given = context(Leaky)
        explore.run(given)
        explored = [msgspec.convert(graph.tell(given.explored[0], TOY, "upstream"), record.ScopeExplored)]
    ending = record.Footer(1 if found else 0, "toy: does not conform" if found else "toy: conforms", 1_234, 0.5)
    return record.gathered([header(candidate), *verdicts, *found, *explored, ending])


def strength() -> record.Report:
    """A report of the zoo: killed as expected, killed otherwise, survived, and without a candidate."""
    return record.gathered([
        header("zoo"),
        record.KillFound("TOY-D01", "TOY-007", ("TOY-007",), True, "explore", 3, 0.5, "", "Memory leaks."),
        record.KillFound("TOY-D02", "TOY-001", ("TOY-007",), True, "campaign", 1, 0.5, "", "Two threads collide."),
        record.KillFound("TOY-D03", None, ("TOY-002",), False, "", 0, 30.0, "", "Nobody knows."),
        record.KillFound("TOY-D04", None, (), False, "", 0, 0.0, "Nothing observes that.", "It falls down."),
        record.Footer(1, "toy: 2 of 3 defects killed; 1 survived", 0, 31.0),
    ])  # fmt: skip


def test_the_page_is_sound_and_reaches_for_nothing() -> None:
    """Closed elements, unique ids, links inside the page alone, no style attributes and no handlers."""
    page = parsed(html.together([("a", report(leak(), race(), scopes=True)), ("b", report()), ("c", strength())]))

    ids = [e.attributes["id"] for e in page.every() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in page.every():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name not in {"style", "src", "action"}
            if name == "href":
                assert value[0] == "#"
                assert value[1:] in ids
            if name in {"aria-labelledby", "for"}:
                assert value in ids


def test_only_the_pages_own_script_and_style_run() -> None:
    """The policy names them by their hashes, and allows nothing else."""
    page = parsed(html.render(report(leak())))

    (policy,) = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    (style,) = page.all("style")
    data, script = page.all("script")
    assert data.attributes["type"] == "application/json"
    assert "default-src 'none'" in policy
    for element, kind in ((style, "style"), (script, "script")):
        digest = b64encode(sha256(element.said.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http:", "url("):
        assert word not in script.said.replace("http://www.w3.org/2000/svg", "").replace("url(#", "")


def test_tables_and_headings_say_what_they_are() -> None:
    """Captions, scopes of heads, and no level of headings left out."""
    page = parsed(html.together([("a", report(leak())), ("b", strength())]))

    for table in page.all("table"):
        assert table.all("caption")[0].text
        assert all(head.attributes["scope"] in {"row", "col"} for head in table.all("th"))
    levels = [int(e.tag[1]) for e in page.every() if e.tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.all("html")[0].attributes["lang"] == "en"


def test_the_matrix_has_every_clause_by_candidate() -> None:
    """Verdicts in words, counts, and links to the failures."""
    page = parsed(html.together([("a", report(leak())), ("b", report(candidate="other.py:Shelf"))]))

    (matrix,) = page.all("table", **{"class": "matrix"})
    assert [h.text for h in matrix.all("th", **{"class": "candidate"})] == ["mine.py:Shelf", "other.py:Shelf"]
    rows = {row.all("th")[0].text: row for row in matrix.all("tr", **{"class": "clause"})}
    assert list(rows) == [clause.id for clause in TOY.clauses]
    assert TOY.clauses[6].text in rows["TOY-007"].text
    assert [cell.text for cell in rows["TOY-007"].all("td")[2:]] == ["✗ fail 1,000,000", "✓ pass 1,000,000"]
    assert rows["TOY-007"].all("a", href="#failure-1")
    assert "data-differs" in rows["TOY-007"].attributes
    assert "data-differs" not in rows["TOY-001"].attributes


def test_candidates_are_told_apart_by_as_little_as_it_takes() -> None:
    """Profile, then report, then place."""
    alike = [record.gathered([header(profile=p), record.ClauseVerdict("TOY-001", "MUST", "pass", 1)]) for p in "ppq"]

    page = parsed(html.together([("one", alike[0]), ("two", alike[1]), ("one", alike[2]), ("one", alike[0])]))

    assert [h.text for h in page.all("th", **{"class": "candidate"})] == [
        "mine.py:Shelf, profile p, one, no. 1",
        "mine.py:Shelf, profile p, two",
        "mine.py:Shelf, profile q",
        "mine.py:Shelf, profile p, one, no. 4",
    ]


def test_a_failure_can_be_read_without_scripts() -> None:
    """Sentence, difference, and the command that repeats it; the rest is data."""
    found = leak()

    page = parsed(html.render(report(found)))

    (shown,) = page.all("details", id="failure-1")
    for words in ("TOY-007", TOY.clauses[6].text, "at step 4 of 4", "held = 1", "held = 2", "mine.py:Shelf"):
        assert words in shown.text
    assert "conformance replay TOY-007-Take-view.held.json --candidate mine.py:Shelf" in shown.text
    data = json.loads(page.all("script")[0].said)
    assert json.loads(data["failures"][0]["trace"]) == found.trace
    assert data["failures"][0]["story"] == json.loads(msgspec.json.encode(found.story))


def test_large_numbers_of_a_trace_stay_what_they_are() -> None:
    """JavaScript would round them."""
    found = leak(trace={"steps": [{"op": "Put", "value": 2**64 - 1}]})

    data = json.loads(parsed(html.render(report(found))).all("script")[0].said)

    assert str(2**64 - 1) in data["failures"][0]["trace"]


def test_a_run_that_did_not_end_is_not_a_pass() -> None:
    """It says so, and that it says nothing of the candidate."""
    page = parsed(html.render(record.gathered([header()])))

    (run,) = [e for e in page.all("div") if e.attributes.get("class", "").startswith("run ")]
    assert "unfinished" in run.text
    assert "says nothing of the candidate" in run.text


def test_kills_stand_by_engine_and_clause() -> None:
    """Survivors, kills that nobody expected and defects without a candidate, too."""
    page = parsed(html.render(strength()))

    first, second = page.all("table", **{"class": "kills"})
    assert [h.text for h in first.all("th", scope="col")] == [
        "Defect", "What is wrong", "explore", "campaign", "Expected", "Steps", "Seconds",
    ]  # fmt: skip
    rows = {row.all("th")[0].text: row.text for row in first.all("tr")[1:]}
    assert "not expected" not in rows["TOY-D01"]
    assert "not expected" in rows["TOY-D02"]
    assert "survived" in rows["TOY-D03"]
    assert "Nothing observes that." in rows["TOY-D04"]
    assert [row.all("th")[0].text for row in second.all("tr")[1:]] == ["TOY-001", "TOY-007"]
    assert not page.all("table", **{"class": "matrix"})


def hostile() -> record.Report:
    """A report whose every text that a candidate or a file can influence is hostile."""
    plain = leak()
    assert plain.story is not None
    story = msgspec.to_builtins(plain.story)
    for step in story["steps"]:
        step["changes"] = [HOSTILE]
        for act in step["acts"]:
            act.update(did=HOSTILE, returned=HOSTILE, met=[HOSTILE])
        step["calls"] = [{"of": 0, "made": HOSTILE, "returned": HOSTILE}]
    story.update(world=[HOSTILE], note=HOSTILE)
    told = dict.fromkeys(("signature", "operation", "mismatch", "detail", "expected", "got", "engine"), HOSTILE)
    found = msgspec.convert({**msgspec.to_builtins(plain), **told, "story": story}, record.FailureFound)
    state = graph.Node(0, (HOSTILE,), 1, 1, 0)
    drawn = graph.Graph((state,), (graph.Arrow(0, 0, 0, 1),), (HOSTILE,))
    scope = record.ScopeExplored(
        scope=HOSTILE, world=HOSTILE, depths=(graph.Depth(1, 1, 1, 0),), limit=None, graph=drawn
    )
    head = record.Header(
        subsystem="toy", profile=HOSTILE, candidate=HOSTILE, capabilities=(HOSTILE,), engines=(HOSTILE,)
    )
    strange = record.ClauseVerdict(HOSTILE, HOSTILE, HOSTILE, 0)
    failed = record.ClauseVerdict("TOY-007", "MUST", "fail", 3)
    kill = record.KillFound(HOSTILE, HOSTILE, (HOSTILE,), True, HOSTILE, 1, 0.1, HOSTILE, HOSTILE)
    zoo = record.Header(subsystem=HOSTILE, profile=HOSTILE, candidate="zoo")
    return record.gathered([head, strange, failed, found, scope, zoo, kill, record.Footer(1, HOSTILE, 1, 0.1)])


def test_hostile_texts_stay_texts() -> None:
    """No element of theirs, no attribute of theirs, and nothing that hides or turns what stands there."""
    page = html.together([(HOSTILE, hostile())])
    tree = parsed(page)

    assert not tree.all("img")
    assert len(tree.all("script")) == 2
    assert TAMED in "".join(element.said for element in tree.every())
    assert not {"\x00", "\x1b", "\u2028", "\u202e"} & set(page.decode())
    data = tree.all("script")[0].said
    assert "<" not in data
    assert json.loads(data)["failures"][0]["story"]["world"] == [TAMED]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", "a\nb\tc"),
        ("\x7f\r", "\\x7f\\r"),
        ("ünï → ✗", "ünï → ✗"),
        ("\udcff", "\\udcff"),
        ("\u200b", "\\u200b"),
    ],
)
def test_legible_texts_hide_nothing(text: str, shown: str) -> None:
    """Lines, tabs and letters of any script stay; what cannot be seen is written out."""
    assert html.legible(text) == shown


def test_the_same_report_gives_the_same_page() -> None:
    """To the byte."""
    given = report(leak(), scopes=True)

    assert html.render(given) == html.render(given)


def test_without_jinja2_the_form_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence says what to install."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    html.template.cache_clear()

    with pytest.raises(UsageError, match=r"needs jinja2: pip install 'conformance\[reports\]'"):
        forms.targets([f"html:{tmp_path}/page.html"])


def written(folder: Path, name: str, given: record.Report) -> str:
    """A report on disk, as JSON lines."""
    path = folder / name
    path.write_bytes(forms.FORMS["json"](given))
    return str(path)


def test_one_page_is_made_of_several_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`conformance report html` says what it wrote; the page names the files."""
    first, second = written(tmp_path, "a.jsonl", report(leak())), written(tmp_path, "b.jsonl", strength())
    out = tmp_path / "page.html"

    code = cli.invoke(["report", "html", str(out), first, second])

    assert (code, capsys.readouterr().out) == (0, f"exit 0: 2 reports written as html to {out}\n")
    assert "a.jsonl" in parsed(out.read_bytes()).text
    assert "b.jsonl" in parsed(out.read_bytes()).text


def test_a_run_writes_its_page(tmp_path: Path) -> None:
    """`--report html:PATH`, beside other forms, with the graph of what it explored."""
    out, lines = tmp_path / "page.html", tmp_path / "report.jsonl"
    asked = ["--report", f"html:{out}", "--report", f"json:{lines}", "--traces", str(tmp_path / "traces")]

    code = cli.invoke(["run", "toy", "--candidate", "builtin:as-posted", "--engine", "explore", *asked])

    written_page = parsed(out.read_bytes())
    assert code == 1
    assert "TOY-007" in written_page.all("details", id="failure-1")[0].text
    assert "1 scopes" not in written_page.text
    assert written_page.all("details", **{"class": "scopes"})
    assert out.read_bytes() == html.render(read(lines))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pdf", "out", "a.jsonl"), "unknown form 'pdf'"),
        (("json", "out", "a.jsonl", "a.jsonl"), "json: holds one report, and 2 are given; html holds several"),
        (("html", "nowhere/out", "a.jsonl"), "there is no directory"),
        (("html", "out", "none.jsonl"), "none.jsonl: No such file or directory"),
    ],
)
def test_what_cannot_be_rendered_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    """With what was wrong, and nothing written."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "a.jsonl", report())

    assert cli.invoke(["report", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


in_a_browser = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for the tests of this file."""
    with browser(tmp_path_factory.mktemp("browser")) as begun:
        yield begun


@dataclass
class Opened:
    """A page in the browser."""

    browser: Browser
    folder: Path

    def show(self, page: bytes) -> None:
        """Go to it."""
        path = self.folder / "page.html"
        path.write_bytes(page)
        self.browser.complaints.clear()
        self.browser.requests.clear()
        self.browser.open(path)

    def run(self, script: str) -> Any:
        """The value of an expression, after what it caused."""
        return self.browser.run(f"(async () => {{ {script} }})()")

    def type(self, text: str) -> None:
        """Put a text into the search box."""
        self.run(f"""const box = document.getElementById("search"); box.value = {json.dumps(text)};
            box.dispatchEvent(new Event("input", {{ bubbles: true }}));""")

    def seen(self, selector: str) -> int:
        """How many of these can be seen."""
        return int(self.run(f"return [...document.querySelectorAll({json.dumps(selector)})]"
                            ".filter(e => e.checkVisibility()).length"))  # fmt: skip


@pytest.fixture
def opened(shared: Browser, tmp_path: Path) -> Iterator[Opened]:
    """For one test; ends with nothing complained of and nothing asked of a network."""
    shared.scheme("light")
    yield Opened(shared, tmp_path)
    assert shared.complaints == []
    assert [address for address in shared.requests if not address.startswith(("file:", "blob:"))] == []


OPEN = "const d = document.getElementById('{}'); d.open = true; await new Promise(r => setTimeout(r, 50));"


@in_a_browser
def test_a_failure_is_drawn_when_it_is_opened(opened: Opened) -> None:
    """Steps, calls, refusals and changes, in order."""
    opened.show(html.render(report(leak())))
    assert opened.seen(".sequence") == 0

    opened.run(OPEN.format("failure-1"))

    assert opened.run("return [...document.querySelectorAll('.step h4')].map(e => e.textContent)") == [
        f"Step {n}" for n in (1, 2, 3, 4)
    ]
    first = opened.run("return [...document.querySelectorAll('.step:first-child .message')].map(e => e.textContent)")
    assert first[0] == "candidate is asked: put(value=1)"
    assert "candidate calls: alloc(), refused: -ENOMEM" in first
    assert first[-1] == "candidate returns: -ENOMEM"
    assert opened.run("return document.querySelector('.changes').textContent") == "Now numbers = (2,)held = 1"


@in_a_browser
def test_two_threads_have_lanes_of_their_own(opened: Opened) -> None:
    """And the switch between them is drawn where it happened."""
    opened.show(html.render(report(race())))

    opened.run(OPEN.format("failure-1"))

    lanes = opened.run("""return [...document.querySelectorAll(".step:last-child .messages > li")].map(
        li => li.className.replace("message ", "") + (li.matches(".switch") ? " " + li.textContent : ""))""")
    assert lanes[:3] == ["op one", "switch switched to right", "op two"]
    assert lanes.index("result two") < lanes.index("call one")
    assert lanes[-1] == "result one"


@in_a_browser
def test_search_and_filters_leave_what_matches(opened: Opened) -> None:
    """Words anywhere, also in the calls; verdict, level, and back."""
    opened.show(html.together([("a", report(leak(), race())), ("b", report(candidate="other.py:Shelf"))]))
    found = "return document.getElementById('found').textContent"
    assert opened.run(found) == "12 of 12 clauses, 2 of 2 failures"

    opened.type("ALLOCATION held")
    assert opened.run(found).startswith("1 of 12 clauses, ")
    opened.type("alloc refused")
    assert opened.run(found) == "0 of 12 clauses, 1 of 2 failures"
    assert opened.seen("details.failure") == 1
    opened.type("")
    opened.run("document.querySelector('[name=verdict][value=fail]').click()")
    assert opened.seen("tr.clause") == 2
    opened.run("document.querySelector('[name=verdict][value=fail]').click()")
    opened.run("""const level = document.getElementById("level"); level.value = "SHOULD";
        level.dispatchEvent(new Event("input", { bubbles: true }));""")
    assert opened.seen("tr.clause") == sum(c.level.value == "SHOULD" for c in TOY.clauses) > 0
    opened.run("document.querySelector('[type=reset]').click(); await new Promise(r => setTimeout(r, 50));")
    assert opened.run(found) == "12 of 12 clauses, 2 of 2 failures"
    opened.run("document.getElementById('differs').click()")
    assert opened.seen("tr.clause") == 2


@in_a_browser
def test_a_link_leads_to_what_filters_hide(opened: Opened) -> None:
    """They are cleared, and the failure is open."""
    opened.show(html.render(report(leak())))
    opened.type("nothing has this")
    assert opened.seen("details.failure") == 0

    opened.run("location.hash = '#failure-1'; await new Promise(r => setTimeout(r, 50));")

    assert opened.seen("details.failure[open] .sequence") == 1


@in_a_browser
def test_everything_is_reached_by_keys(opened: Opened) -> None:
    """The skip link first, the slash to the search box, Enter opens a failure, a state tells of itself on focus."""
    opened.show(html.render(report(leak(), scopes=True)))
    focused = "return document.activeElement.id || document.activeElement.className || document.activeElement.tagName"

    opened.browser.press("Tab")
    assert opened.run(focused) == "skip"
    opened.browser.press("/", "/")
    assert opened.run(focused) == "search"
    opened.run("document.querySelector('details.failure summary').focus()")
    opened.browser.press("Enter")
    opened.run("await new Promise(r => setTimeout(r, 50))")
    assert opened.seen(".sequence") == 1
    opened.run("""document.querySelector("details.scopes").open = true; await new Promise(r => setTimeout(r, 50));
        document.querySelector("details.world").open = true; await new Promise(r => setTimeout(r, 50));
        document.querySelectorAll(".graph .state[tabindex]")[1].focus();""")
    told = opened.run("return document.querySelector('.told').textContent")
    assert "State 1: " in told
    assert "The way there: put(value=0)" in told


@in_a_browser
def test_the_state_graph_shows_what_was_covered(opened: Opened) -> None:
    """A node for each state, and failed ones by more than colour; the same as a table."""
    given = report(leak(), scopes=True)
    opened.show(html.render(given))
    seen = given.parts[0].scopes[0].graph
    assert seen is not None

    opened.run("""document.querySelector("details.scopes").open = true; await new Promise(r => setTimeout(r, 50));
        document.querySelector("details.world").open = true; await new Promise(r => setTimeout(r, 50));
        document.querySelector(".inside details").open = true; await new Promise(r => setTimeout(r, 50));""")

    labels = opened.run("return [...document.querySelectorAll('.state[tabindex]')].map(e => e.ariaLabel)")
    assert len(labels) == len(seen.states)
    assert labels[0] == "State 0, 0 steps from the start, 5 of 5 transitions tried"
    assert sum("failed" in label for label in labels) == sum(state.failed > 0 for state in seen.states) > 0
    assert opened.seen(".inside details tbody tr") == len(seen.states)
    assert opened.seen(".graph .arrow") == len(seen.arrows)


@in_a_browser
def test_coverage_is_a_map_with_counts(opened: Opened) -> None:
    """A cell for each clause, with its count in short and in full, and a shade for its order of magnitude."""
    opened.show(html.render(report()))

    cell = (
        "return [...document.querySelectorAll('.map td a')].map(a => [a.textContent, a.title, a.parentNode.className])"
    )
    cells = opened.run(cell)

    assert len(cells) == len(TOY.clauses)
    assert cells[0] == ["1", "TOY-001: exercised 1 time", "h1"]
    assert cells[3] == ["1k", "TOY-004: exercised 1,000 times", "h4"]


@in_a_browser
def test_light_and_dark_follow_the_reader(opened: Opened) -> None:
    """The system's preference, unless the switch says otherwise."""
    opened.show(html.render(report()))
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = opened.run(ground)

    opened.browser.scheme("dark")
    dark = opened.run(ground)
    opened.run("document.querySelector('[name=theme][value=light]').click()")
    chosen = opened.run(ground)
    opened.run("document.querySelector('[name=theme][value=auto]').click()")

    assert light != dark
    assert chosen == light


@in_a_browser
def test_hostile_texts_do_nothing_in_a_browser(opened: Opened) -> None:
    """Everything opened and drawn, nothing of theirs runs or becomes an element."""
    opened.show(html.together([(HOSTILE, hostile())]))

    for _ in range(3):
        opened.run("""for (const d of document.querySelectorAll("details")) d.open = true;
            for (const b of document.querySelectorAll(".earlier button")) b.click();
            await new Promise(r => setTimeout(r, 50));""")
    opened.run("document.querySelector('.state[tabindex]').focus()")

    assert opened.run("return window.harmed") is None
    assert opened.run("return document.querySelectorAll('img, main script, iframe, object').length") == 0
    assert TAMED in opened.run("return document.querySelector('.message.op').textContent")
    assert TAMED in opened.run("return document.querySelector('.told').textContent")


@in_a_browser
def test_five_hundred_clauses_of_ten_candidates_open_at_once(opened: Opened) -> None:
    """In less than four seconds of the processor, searched in less than two."""
    found = [leak(clause=f"BIG-{n:03d}", signature=f"BIG-{n:03d}:Take:view.held") for n in range(0, 500, 5)]
    columns = []
    for number in range(10):
        verdicts = [record.ClauseVerdict(f"BIG-{n:03d}", "MUST", "pass" if n % 5 else "fail", n) for n in range(500)]
        head = record.Header(subsystem="toy", profile="upstream", candidate=f"driver.py:V{number}")
        lines = [head, *verdicts, *found, record.Footer(1, "does not conform", 1, 0.1)]
        columns.append((f"v{number}.jsonl", record.gathered(lines)))
    page = html.together(columns)
    opened.browser.ask("Performance.enable", timeDomain="threadTicks")

    before = opened.browser.busy()
    opened.show(page)
    loaded = opened.browser.busy()
    opened.type("BIG-499")
    searched = opened.browser.busy()

    assert opened.seen("tr.clause") == 1
    assert opened.run("return document.querySelectorAll('.matrix td[data-v]').length") == 5_000
    assert loaded - before < 4
    assert searched - loaded < 2
