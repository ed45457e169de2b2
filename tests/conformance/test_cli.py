"""The commands, on the toy subsystem: what they print, what they write, and the code they end with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.commands import main as cli
from conformance.engines import campaign, explore, interleave, machine
from conformance.reports import record
from conformance.verdict import Exit
from tests.report_schema import SCHEMA, SCHEMED
from tests.toyland import Remembering, in_short, shipped


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The toy is shipped, the gate is short, and traces go to a folder of the test's own."""
    with shipped(monkeypatch):
        in_short(monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield


def conformance(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one command."""
    code = cli.invoke(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a report, each held to the schema."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    for line in read:
        SCHEMED.validate(line)
    return read


def test_a_run_ends_with_one_line_that_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of standard output has the exit code and the reason."""
    code, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:upstream")

    assert code == 4
    assert out.splitlines()[-1] == "exit 4: toy: inconclusive: 2 MUST not exercised (TOY-008, TOY-011)"


def test_selected_clauses_decide_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """With -k the clauses that were exercised conform, and the others are not mentioned."""
    code, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:upstream", "-k", "TOY-00[1-7]")

    assert (code, out.splitlines()[-1]) == (0, "exit 0: toy: conforms: 7 clauses passed, the other 5 were not judged")
    assert "TOY-011" not in out


def test_a_failure_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Clause and sentence, minimal steps with results, expected before got, source, and how to repeat it."""
    code, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted", "--engine", "explore")

    assert code == 1
    shown = out[out.index("TOY-007 violated") : out.index("\n\nexit 1")]
    assert re.sub(r"held-[0-9a-f]+", "held-#", shown) == (
        "TOY-007 violated by builtin:as-posted at step 3 of 3\n"
        "  One allocation is held per number on the shelf.\n"
        "  step 1    put(value=0) -> 0\n"
        "  step 2    put(value=0) -> 0\n"
        "  step 3    take() -> 0\n"
        "  expected  held = 1\n"
        "  got       held = 2\n"
        "  calls     show((0,))\n"
        "  from      held: alloc() -> 2 in step 2, put\n"
        "  source    the tests\n"
        f"  repeat    {cli_name()} replay .conformance/traces/toy/TOY-007-Take-view.held-#.json"
        " --candidate builtin:as-posted"
    )


def cli_name() -> str:
    """How the tests' own process is called."""
    from conformance.reports.text import program

    return program()


def test_two_threads_are_shown_with_their_calls(capsys: pytest.CaptureFixture[str]) -> None:
    """Both operations with their results, and who called what in which order."""
    _, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:unlocked", "--engine", "campaign")

    assert re.search(r"step \d    two threads, switching at points \d", out)
    assert re.search(r"\n    left    \w+\(.*\) -> \d+\n    right   \w+\(", out)
    called = out[out.index("calls ") : out.index("source ")]
    assert set(re.findall(r" (left|right) +\w+\(", called)) == {"left", "right"}


def test_the_printed_command_repeats_the_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """`replay` shows what each step changed, and ends with 1."""
    _, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted", "--engine", "explore")
    command = re.search(r"repeat +\S.*? (replay .*)$", out, re.MULTILINE)
    assert command is not None

    code, out, _ = conformance(capsys, *command[1].split())

    assert code == 1
    assert "step 1    put(value=0) -> 0\n              numbers = (0,)\n              held = 1" in out
    assert out.splitlines()[-1] == "exit 1: toy: TOY-007 broken"


def test_replaying_on_a_correct_candidate_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    """The same trace, another candidate."""
    conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted", "--engine", "explore")
    (trace,) = Path(".conformance/traces/toy").iterdir()

    code, out, _ = conformance(capsys, "replay", str(trace), "--candidate", "toy=builtin:upstream")

    assert (code, out.splitlines()[-1]) == (0, "exit 0: toy: no failure in 3 steps")


def test_a_should_warns_and_fails_only_when_strict(capsys: pytest.CaptureFixture[str]) -> None:
    """Advice is not an obligation, unless one asks for it."""
    arguments = ("run", "toy", "--candidate", "builtin:untidy", "--engine", "explore", "-k", "TOY-009")

    code, out, _ = conformance(capsys, *arguments)
    strict, strict_out, _ = conformance(capsys, *arguments, "--strict")

    assert (code, strict) == (0, 1)
    assert "warning   TOY-009 not followed (SHOULD): Clear keeps nothing." in out
    assert "conforms: 0 clauses passed, 1 SHOULD not followed" in out.splitlines()[-1]
    assert "TOY-009 not followed by builtin:untidy at step 2 of 2" in strict_out


@pytest.mark.parametrize(
    ("candidate", "because"),
    [
        ("crashing", "take raised ValueError: out of numbers at toyland.py:"),
        ("typed", "clear returned '0' (str), expected int"),
    ],
)
def test_a_crash_is_a_finding(capsys: pytest.CaptureFixture[str], candidate: str, because: str) -> None:
    """An exception and a value of the wrong type break the clause on robustness."""
    code, out, err = conformance(capsys, "run", "toy", "--candidate", f"builtin:{candidate}", "--engine", "explore")

    assert code == 1
    assert err.startswith("first failure after ")
    assert "TOY-008 violated" in out
    assert f"because   {because}" in out


def test_a_failure_that_does_not_show_again_is_inconclusive(capsys: pytest.CaptureFixture[str]) -> None:
    """A candidate that keeps state between runs is not accused; it is told."""
    Remembering.made.clear()

    code, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:remembering", "--engine", "campaign")

    assert code == 4
    assert "note      it did not fail again when its trace was replayed: the candidate is not deterministic" in out
    assert "exit 4: toy: inconclusive: failures that did not show again when replayed (TOY-0" in out


def test_a_report_follows_its_schema(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Header, a line per clause, the failures with their traces, what was explored, and the footer."""
    path = tmp_path / "report.jsonl"

    conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted", "--report", f"json:{path}")
    read = lines(path)

    assert [line["kind"] for line in read] == ["header", *["clause"] * 12, "failure", "scope", "conclusion", "footer"]
    assert read[-4]["signature"] == "TOY-007:Take:view.held"
    assert [step["op"] for step in read[-4]["trace"]["steps"]] == ["Put", "Put", "Take"]
    assert Path(read[-4]["saved"]).is_file()
    assert (read[-2]["exit"], read[-2]["complete"]) == (1, True)
    assert (read[-1]["exit"], read[-1]["interrupted"]) == (1, False)


def test_warnings_are_lines_of_their_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A program can tell a breach of a SHOULD clause from a failure."""
    path = tmp_path / "report.jsonl"

    conformance(
        capsys, "run", "toy", "--candidate", "builtin:untidy", "--engine", "explore", "--report", f"json:{path}"
    )

    assert [line["clause"] for line in lines(path) if line["kind"] == "warning"] == ["TOY-009"]


def test_a_report_without_footer_stands_there_during_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the run, an old report is not mistaken for this run's."""
    path = tmp_path / "report.jsonl"
    path.write_text('{"kind":"footer","exit":0}\n')
    seen = []
    monkeypatch.setattr(explore, "run", lambda _context: seen.append(lines(path)))

    conformance(
        capsys, "run", "toy", "--candidate", "builtin:upstream", "--engine", "explore", "--report", f"json:{path}"
    )

    assert [[line["kind"] for line in read] for read in seen] == [["header"]]


def test_an_interrupted_run_reports_what_it_has(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the unit, not the report; units that never began are not waited for."""
    path = tmp_path / "report.jsonl"

    def interrupted(_context: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interleave, "run", interrupted)

    code, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:upstream", "--report", f"json:{path}")

    assert code == 4
    assert out.splitlines()[-1] == "exit 4: toy: inconclusive: interrupted before the end"
    footer = lines(path)[-1]
    assert (footer["kind"], footer["interrupted"], footer["exit"]) == ("footer", True, 4)
    assert any(line.get("verdict") == "pass" for line in lines(path))


def test_an_interrupted_run_with_failures_does_not_conform(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before Ctrl-C counts."""

    def interrupted(_context: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interleave, "run", interrupted)

    assert conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted")[0] == 1


def test_a_mistake_of_ours_is_neither_pass_nor_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence and exit 3; the other units still run."""

    def broken(_context: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(explore, "run", broken)

    code, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:upstream")

    assert code == 3
    assert out.splitlines()[-1].startswith("exit 3: toy: toy.explore: ZeroDivisionError: by zero at test_cli.py:")
    assert "10 pass" in out


def test_a_full_disk_is_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The report that could be written is whole; exit 3."""
    good = tmp_path / "good.jsonl"
    arguments = ("run", "toy", "--candidate", "builtin:upstream", "--engine", "explore")

    code, _, err = conformance(capsys, *arguments, "--report", f"json:{good}", "--report", "json:/dev/full")

    assert code == 3
    assert err.splitlines()[-1].startswith("conformance: the suite failed: No space left on device")
    assert lines(good)[-1]["kind"] == "footer"


def test_a_hunt_prints_its_seed_and_keeps_what_it_finds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corpus has the trace, and the next run tries it first."""
    monkeypatch.setattr(cli.random, "randrange", lambda _limit: 77)
    arguments = ("run", "toy", "--candidate", "builtin:as-posted", "--corpus", str(tmp_path / "corpus"))

    conformance(capsys, "corpus", "init", str(tmp_path / "corpus"))
    _, out, _ = conformance(capsys, *arguments, "--budget", "1s", "--engine", "campaign")
    code, again, _ = conformance(capsys, *arguments, "--engine", "corpus")

    assert out.startswith("hunting for 1 s with --seed 77\n")
    assert len(list((tmp_path / "corpus" / "toy").iterdir())) >= 1
    assert (code, "TOY-007 violated" in again) == (1, True)


def test_the_gate_gives_the_same_verdict_twice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing in a gate's report but its times depends on chance."""
    reports_: list[list[dict[str, Any]]] = []
    for name in ("a", "b"):
        path = tmp_path / name
        conformance(capsys, "run", "toy", "--candidate", "builtin:unlocked", "--report", f"json:{path}")
        reports_.append([{**line, "seconds": 0} for line in lines(path)])

    assert reports_[0] == reports_[1]


def test_strength_says_which_clause_kills_what(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A line per defect, those without a candidate with the reason, and a summary."""
    path = tmp_path / "kills.jsonl"

    code, out, _ = conformance(capsys, "strength", "toy", "--report", f"json:{path}")

    assert (code, out.splitlines()[-1]) == (0, "exit 0: toy: 2 of 2 defects killed")
    assert re.search(r"TOY-D01 +TOY-007 +explore +3 of 3 ", out)
    assert "TOY-D03 has no candidate: Nothing observes that." in out
    kills = [line for line in lines(path) if line["kind"] == "kill"]
    assert [(k["defect"], k["killed"]) for k in kills] == [("TOY-D01", True), ("TOY-D02", True), ("TOY-D03", False)]


def test_a_survivor_fails_the_strength(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect that nothing finds is a hole in the suite."""
    for engine in (explore, interleave, campaign, machine):
        monkeypatch.setattr(engine, "run", lambda _context: None)

    code, out, _ = conformance(capsys, "strength", "toy", "-k", "TOY-D01")

    assert code == 1
    assert re.search(r"TOY-D01 +SURVIVED", out)


def test_each_engine_is_measured_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A table of what each kills; a defect that survives one of them is no failure."""
    path = tmp_path / "kills.jsonl"
    code, out, _ = conformance(capsys, "strength", "toy", "--engine", "interleave,machine", "--report", f"json:{path}")
    refused, _, err = conformance(
        capsys, "strength", "toy", "--engine", "machine", "--record", str(tmp_path / "k.toml")
    )

    assert code == 0
    assert re.search(r"machine +killed 2/2 \(100%\), median \d", out)
    assert re.search(r"interleave +killed [12]/2 ", out)
    assert re.search(r"TOY-D01 +machine \d", out)
    headers = [line["engines"] for line in lines(path) if line["kind"] == "header"]
    assert headers == [["interleave"], ["machine"]]
    assert (refused, "a kill matrix is of all engines together" in err) == (2, True)


def test_a_zoo_that_no_pattern_matches_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Defects without a candidate alone are no table either; a pattern that matches nothing is refused."""
    code, out, _ = conformance(capsys, "strength", "toy", "-k", "TOY-D03")
    refused, _, err = conformance(capsys, "strength", "toy", "-k", "TOY-D9")

    assert (code, "TOY-D03 has no candidate" in out) == (0, True)
    assert (refused, "matches no defect; did you mean 'TOY-D0" in err) == (2, True)


def test_the_demo_explains_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each design as it was posted."""
    code, out, _ = conformance(capsys, "demo")

    assert code == 0
    assert "TOY-007 violated by builtin:as-posted at step 3 of 3" in out


def test_list_shows_everything_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Overview, one subsystem, and the same for programs."""
    _, overview, _ = conformance(capsys, "list")
    _, one, _ = conformance(capsys, "list", "toy")
    _, data, _ = conformance(capsys, "list", "--json")

    assert "12 clauses TOY-001 to TOY-012; 3 known defects, 2 of them runnable" in overview
    assert "  TOY-009  SHOULD    Clear keeps nothing." in one
    (toy,) = json.loads(data)["subsystems"]
    assert (toy["name"], len(toy["clauses"]), toy["candidates"][0]) == ("toy", 12, "builtin:upstream")


def test_explain_says_how_a_clause_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """Its sentence, the view field or the call or the check, the functions that cite it, and its kills."""
    _, seen, _ = conformance(capsys, "explain", "TOY-007")
    _, called, _ = conformance(capsys, "explain", "toy-006")
    _, checked, _ = conformance(capsys, "explain", "TOY-010")

    assert "checked by  the view: held as observed after each step" in seen
    assert re.search(r"tests/toy.py:\d+  _step", seen)
    assert "kills       TOY-D01  Memory leaks." in seen
    assert "the environment, at each call of free" in called
    assert "a check after Put" in checked


def test_colour_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    """What goes to a file has no escape sequences."""
    _, out, _ = conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted", "--engine", "explore")

    assert "\x1b" not in out


def test_long_runs_say_how_far_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain line every few seconds where there is no terminal."""
    monkeypatch.setattr("conformance.reports.progress.EVERY", 0.0)

    _, _, err = conformance(capsys, "run", "toy", "--candidate", "builtin:upstream", "--engine", "campaign")

    assert re.search(r"1/2 done  [\d,]+ steps  [\d,]+/s  \d+ clauses exercised  0 failures", err)


def test_the_first_failure_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """While other units go on; once."""
    _, out, err = conformance(capsys, "run", "toy", "--candidate", "builtin:as-posted")

    (line,) = [line for line in err.splitlines() if line.startswith("first failure")]
    assert re.fullmatch(r"first failure after \d+\.\d s: TOY-007:Take:view\.held", line)
    assert "first failure" not in out


def test_a_run_may_end_with_the_first_failure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What was not done is not judged, and the report is whole."""
    command = ("run", "toy", "--candidate", "builtin:as-posted", "-x")
    code, out, _ = conformance(capsys, *command, "--report", f"json:{tmp_path / 'a'}")

    assert code == 1
    assert out.count(" violated by ") == 1
    assert out.splitlines()[-1] == "exit 1: toy: does not conform: 1 clause broken (TOY-007)"
    assert lines(tmp_path / "a")[-1]["kind"] == "footer"
    assert "campaign" not in {line.get("engine") for line in lines(tmp_path / "a")}
    assert conformance(capsys, *command[:-2], "builtin:upstream", "-x")[1].endswith("(TOY-008, TOY-011)\n")


def test_every_exit_code_of_the_schema_is_one_of_ours() -> None:
    """The schema and the code list the same codes."""
    assert SCHEMA["$defs"]["exit"]["enum"] == [int(code) for code in Exit]
    assert SCHEMA["$defs"]["header"]["properties"]["schema"]["const"] == record.SCHEMA


def test_a_report_may_go_to_a_pipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A device or a pipe is written to, not replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    arguments = ("run", "toy", "--candidate", "builtin:upstream", "--engine", "explore", "--report", f"json:{pipe}")

    conformance(capsys, *arguments)
    kinds = [json.loads(line)["kind"] for line in os.read(reader, 1 << 16).splitlines()]
    os.close(reader)

    assert (kinds[0], kinds[-1], pipe.is_fifo()) == ("header", "footer", True)
