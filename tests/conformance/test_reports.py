"""What runs say, piece by piece: the texts and the lines that the commands are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from conformance.candidates.load import Candidate
from conformance.engines import explore
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.reports import forms, graph, record, text, values
from conformance.reports import json as json_form
from conformance.reports.story import tell
from conformance.runs.result import failure_to_data
from conformance.runs.strength import Kill
from conformance.subsystem import subsystem
from conformance.trace import Trace
from conformance.verdict import Exit, Failure, UsageError
from tests import toy
from tests.report_schema import SCHEMA, SCHEMED
from tests.toy import TOY, Clear, Put, Shelf, Take, trace
from tests.toyland import ZOO, Crashing, Leaky, shipped


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with shipped(monkeypatch):
        yield


def failing(candidate: type, given: Trace) -> tuple[Failure, Candidate]:
    """The failure that a trace shows on a candidate."""
    found = run_trace(TOY, given, candidate).failure
    assert found is not None
    return found, Candidate("mine.py:Shelf", candidate, "upstream", frozenset())


def test_refusals_stand_beside_the_results_they_caused() -> None:
    """By name, where they were met; a planned refusal that was not met is not mentioned."""
    refused = Step(Put(1), (Fault("alloc", -12),))
    unmet = Step(Take(), (Fault("alloc", -12),))
    found, candidate = failing(Leaky, trace(refused, Put(2), Put(3), unmet))

    told = text.failure(tell(found, TOY, candidate), candidate.spec).splitlines()

    assert told[2] == "  step 1    put(value=1) -> -ENOMEM     alloc refused: ENOMEM"
    assert told[5] == "  step 4    take() -> 3"


def test_what_happens_in_the_middle_stands_below_its_step() -> None:
    """With the point at which it happened, and its own result."""

    class Deaf(Shelf):
        def take(self) -> int:
            self.port.show(())
            return 9

    found, candidate = failing(Deaf, trace(Step(Take(), during=((1, Step(Put(3))),))))

    told = text.failure(tell(found, TOY, candidate), candidate.spec)

    assert "  step 1    take() -> 9\n    at point 1  put(value=3) -> 0\n" in told
    assert "  calls             show(())\n            during  lock()\n" in told


def test_a_crash_says_where() -> None:
    """The exception, and the candidate's line."""
    found, candidate = failing(Crashing, trace(Take()))

    told = text.failure(tell(found, TOY, candidate), candidate.spec)

    assert "TOY-008 violated by mine.py:Shelf at step 1 of 1" in told
    assert "  step 1    take() did not end\n  because   take raised ValueError: out of numbers at toyland.py:" in told


def test_a_candidate_that_cannot_be_created_is_told_without_steps() -> None:
    """There was none yet."""

    class Stillborn(Shelf):
        def __init__(self, port: Any) -> None:
            raise OSError("no shelf")

    found, candidate = failing(Stillborn, trace())

    told = text.failure(tell(found, TOY, candidate), candidate.spec)

    assert told.startswith("TOY-008 violated by mine.py:Shelf when it was created\n")
    assert "because   Stillborn raised OSError: no shelf" in told


def test_a_should_that_is_broken_in_several_ways_is_said_once() -> None:
    """Then each way, with the command that shows it."""
    clear = Failure(toy.TIDY, "Clear", "should", "one is left", 0, trace=trace(Clear()))
    take = replace(clear, operation="Take", detail="none is left", trace=trace(Take()))

    assert text.warnings([(clear, "conformance replay 1.json"), (take, "conformance replay 2.json")]) == [
        "  warning   TOY-009 not followed (SHOULD): Clear keeps nothing.",
        "            by clear(): one is left",
        "            conformance replay 1.json",
        "            by take(): none is left",
        "            conformance replay 2.json",
    ]


def test_what_a_baseline_does_not_have_fits_the_width() -> None:
    """It is a sentence of the specification, and those are long."""
    clause = replace(toy.TIDY, text="Clear keeps nothing, " * 9)

    lines = text.recorded("TOY-009:Clear:should", clause).splitlines()

    assert lines[0].startswith("  new       TOY-009:Clear:should: Clear keeps nothing, ")
    assert max(map(len, lines)) <= text.WIDTH


def test_a_world_that_is_not_the_plainest_is_told() -> None:
    """The configuration, with the fields that differ from their default."""
    found, candidate = failing(Leaky, replace(trace(Put(1), Put(2), Take()), config=toy.Config(size=3)))

    assert "  world     Config(size=3)\n" in text.failure(tell(found, TOY, candidate), candidate.spec)


def test_long_lines_are_wrapped_but_not_the_command() -> None:
    """Values stay whole; what is to be pasted stays on one line."""

    class Wordy(Shelf):
        def take(self) -> int:
            self.port.show(tuple(range(0, 200, 2)))
            return 9

    found, candidate = failing(Wordy, trace(Take()))

    told = text.failure(tell(found, TOY, candidate), candidate.spec, "trace/" * 30).splitlines()

    assert max(len(line) for line in told if "repeat" not in line) <= text.WIDTH + 2
    assert told[-1].endswith("--candidate mine.py:Shelf")


def test_long_logs_show_their_end() -> None:
    """The calls next to the failure matter most."""

    class Chatty(Shelf):
        def take(self) -> int:
            for _ in range(50):
                self.port.show(())
            return 9

    found, candidate = failing(Chatty, trace(Take()))

    told = text.failure(tell(found, TOY, candidate), candidate.spec)

    assert "  calls     … 30 calls before these\n" in told
    assert told.count("show(())") == 20


def test_steps_in_one_line_tell_everything() -> None:
    """For warnings and lists: refusals, company, threads."""
    assert values.step(Step(Put(1), (Fault("alloc", -12),))) == "put(value=1) refusing alloc=-ENOMEM"
    assert values.step(Step(Take(), during=((2, Step(Clear())),))) == "take() with clear() at point 2"
    assert values.step(Step(Parallel(Step(Put(1)), Step(Take())))) == "put(value=1) beside take()"


def test_neighbouring_clauses_are_drawn_together() -> None:
    """Long lists stay short, and lose nothing."""
    assert text.compressed(TOY.clauses) == "TOY-001..012"
    assert text.compressed([TOY.clauses[i] for i in (0, 2, 3, 5)]) == "TOY-001, TOY-003..004, TOY-006"


def test_an_unexpected_clause_is_marked_in_the_zoos_table() -> None:
    """With what was expected, and why another one is right, where the zoo says so."""
    found, _ = failing(Leaky, trace(Put(1), Put(2), Take()))
    surprising = replace(ZOO[0], clauses=("TOY-006",))
    explained = replace(surprising, note="The leak shows first.")

    told = "\n".join(text.strength(subsystem("toy"), [Kill(d, found, "explore", 0.5) for d in (surprising, explained)]))

    assert "TOY-D01  TOY-007!   explore     3 of 3          0.50" in told
    assert "instead of TOY-006: nobody expected that" in told
    assert "instead of TOY-006: The leak shows first." in told


def test_the_schema_refuses_what_is_not_a_line() -> None:
    """A schema that accepts everything describes nothing."""
    footer = msgspec.to_builtins(record.footer(Exit.CONFORMS, "conforms", steps=1, seconds=0.1))
    SCHEMED.validate(footer)

    for wrong in ({**footer, "more": 1}, {**footer, "exit": 7}, {**footer, "kind": "foot"}, {"kind": "footer"}):
        with pytest.raises(jsonschema.ValidationError):
            SCHEMED.validate(wrong)


def test_the_schema_is_one() -> None:
    """It is valid itself, against JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


HEADER = record.Header(subsystem="toy", profile="upstream", candidate="builtin:upstream")
FOOTER = record.Footer(0, "conforms", 1, 0.1)


def test_a_report_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while it is written leaves what was there."""
    path = tmp_path / "report.jsonl"
    chosen = forms.targets([f"json:{path}"])
    forms.begin(chosen, [HEADER])
    monkeypatch.setattr("conformance.trace.os.fsync", _full)

    with pytest.raises(OSError, match="No space left") as raised:
        forms.write(chosen, [HEADER, FOOTER])

    assert raised.value.filename == str(path)
    assert json_form.read(path) == record.gathered([HEADER])
    assert [p.name for p in tmp_path.iterdir()] == ["report.jsonl"]


def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By trying, since permissions do not tell everything."""
    monkeypatch.setattr("conformance.trace.os.fsync", _full)

    with pytest.raises(UsageError, match="No space left on device"):
        forms.begin(forms.targets([f"json:{tmp_path}/report.jsonl"]), [])


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Failures with their traces and stories, too."""
    found, candidate = failing(Leaky, trace(Put(1), Put(2), Take()))
    line = msgspec.convert(failure_to_data(tell(found, TOY, candidate)), record.FailureFound)
    chosen = forms.targets([f"json:{tmp_path}/report.jsonl"])
    lines = [HEADER, record.ClauseVerdict("TOY-001", "MUST", "pass", 3), line, FOOTER]

    forms.write(chosen, lines)

    assert list(record.scattered(json_form.read(chosen[0].path))) == lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "line 1 is not of a report: "),
        ('{"kind":"foot"}', "line 1 is not of a report: Invalid value 'foot'"),
        ('{"kind":"footer","exit":0,"why":"","steps":0,"seconds":0.0}\n' * 2, "something follows the footer"),
        ('{"kind":"clause","id":"TOY-001","level":"MUST","verdict":"pass","exercised":0}', "begins with a header"),
        ("\udcff", "line 1 is not of a report: "),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """With the file, the line, and what is wrong there."""
    path = tmp_path / "report.jsonl"
    path.write_text(text, errors="surrogateescape")

    with pytest.raises(UsageError, match=f"^{path}: .*{said}"):
        json_form.read(path)


def test_small_graphs_are_told_and_large_ones_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """States by what can be seen there; where there are too many to draw, figures by depth alone."""
    given = toy.context(Leaky)
    explore.run(given)

    small = msgspec.convert(graph.tell(given.explored[0], TOY, "upstream"), record.ScopeExplored)
    monkeypatch.setattr(graph, "SMALL", 3)
    large = msgspec.convert(graph.tell(given.explored[0], TOY, "upstream"), record.ScopeExplored)

    assert small.graph is not None
    assert small.graph.states[0].seen == ()
    first = small.graph.arrows[0]
    assert small.graph.steps[first.step] == "put(value=0)"
    assert "held = 1" in small.graph.states[first.to].seen
    assert (large.graph, large.depths) == (None, small.depths)
    assert [depth.states for depth in small.depths][:2] == [1, 2]
    SCHEMED.validate(json.loads(msgspec.json.encode(small)))
    SCHEMED.validate(json.loads(msgspec.json.encode(large)))


def _full(_handle: int) -> None:
    raise OSError(28, "No space left on device")
