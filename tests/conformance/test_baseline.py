"""Baselines: what is known stays known, what is new is red, and the file is never half written."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import pytest

from conformance.baseline import entry as entries
from conformance.baseline import file as files
from conformance.baseline import kills as kills_file
from conformance.baseline.entry import Entry, When, gap
from conformance.commands import main as cli
from conformance.engines import campaign, explore, interleave, machine
from conformance.reports import forms
from conformance.reports.json import read as read_report
from conformance.runs import unit
from conformance.runs.strength import Kill
from conformance.trace import to_data, write_atomically
from conformance.verdict import Ending, Exit, Failure
from tests import toyland
from tests.toy import TOY, Put, Shelf, Take, trace
from tests.toyland import CANDIDATES, ZOO, Leaky, shipped

MINE = ("toy", "--candidate", "builtin:mine")
ACCEPT = ("--accept", "--expires", "30d")


class Forgetful(Shelf):
    """Says that an empty shelf is full."""

    def take(self) -> int:
        """Another errno."""
        return super().take() if self.items else -28


class Both(Forgetful, Leaky):
    """Two defects."""


class Clock:
    """Stands for `datetime`: the days of the story."""

    day: ClassVar[datetime] = datetime(2026, 3, 2, 12, tzinfo=UTC)

    @classmethod
    def now(cls, _zone: Any) -> datetime:
        """Noon."""
        return cls.day


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The toy is shipped with a candidate of the test's own, the gate is short, and the day is known."""
    with shipped(monkeypatch):
        monkeypatch.setitem(unit.GATE_STEPS, "campaign", 1_000)
        monkeypatch.setattr(machine, "run", lambda _context: None)  # slow, and finds nothing else
        monkeypatch.setattr(entries, "datetime", Clock)
        monkeypatch.setattr(Clock, "day", Clock.day)
        monkeypatch.setitem(CANDIDATES, "mine", Leaky)
        monkeypatch.chdir(tmp_path)
        yield


@pytest.fixture
def conformance(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """(exit code, everything said) of one command."""

    def invoke(*arguments: str) -> tuple[int, str]:
        code = cli.invoke(arguments)
        out, err = capsys.readouterr()
        return code, err + out

    return invoke


def known(signature: str = "TOY-007:Take:view.held", **values: Any) -> Entry:
    """An entry for `builtin:mine`."""
    day = Clock.day.date()
    told: dict[str, Any] = {
        "clause": signature.partition(":")[0],
        "signature": signature,
        "subsystem": "toy",
        "candidate": "builtin:mine",
        "profile": "upstream",
        "first_seen": day,
        "last_seen": day,
        "ticket": "T-1",
        "trace": json.dumps(to_data(trace(Put(0), Put(0), Take()))),
    }
    return Entry(**{**told, **values})


def gaps() -> list[Entry]:
    """What no short gate of the toy exercises."""
    return [known(gap(clause), trace="") for clause in ("TOY-008", "TOY-011")]


def written(*listed: Entry, path: str = "known.toml") -> Path:
    """A baseline of these entries."""
    baseline = files.new(Path(path))
    baseline.put(listed)
    baseline.write()
    return Path(path)


def full(_file: int) -> None:
    """The disk is."""
    raise OSError(errno.ENOSPC, "No space left on device")


def told(said: str, signature: str) -> list[str]:
    """The lines of the file that are to be deleted, by what was said."""
    where = re.search(rf"{signature} no longer fails: \S+\s+\((\S+):(\d+)-(\d+)\)", said)
    assert where is not None
    return Path(where[1]).read_text().splitlines()[int(where[2]) - 1 : int(where[3])]


def statuses(path: Path = Path("known.toml")) -> dict[str, str]:
    """Signature -> status of a baseline."""
    return {entry.signature: entry.status for entry in files.read(path).entries()}


def test_two_weeks(conformance: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded, green, fixed, broken anew, expired: each day ends as it should, and no file is lost on the way."""
    file = Path("known.toml")
    gate = ("run", *MINE, "--baseline", "known.toml", "--report", "json:report")

    # Monday: a mistyped path is never green, and says what to type instead.
    code, said = conformance(*gate)
    assert code == 2
    line = re.search(r"this records it: python -m conformance (.*)", said)
    assert line is not None
    assert conformance(*line[1].split())[0] == 0
    first = file.read_text()
    leak = "TOY-007:Take:view.held"
    assert statuses()[leak] == "known"

    # Tuesday: green, and the same again.
    code, said = conformance(*gate)
    assert (code, said.splitlines()[-1]) == (
        0,
        "exit 0: toy: nothing new: 9 clauses passed, 1 known failure, 2 MUST not exercised, as accepted",
    )
    assert "violated by" not in said

    # Wednesday: a new bug is red although the known one remains; looking does not hide it.
    monkeypatch.setitem(CANDIDATES, "mine", Both)
    code, said = conformance(*gate)
    assert code == 1
    assert "TOY-005 violated by builtin:mine" in said
    assert "TOY-007 violated" not in said
    code, said = conformance("baseline", "update", "known.toml", *MINE)
    assert (code, file.read_text()) == (1, first)
    assert "1 new, not recorded without --accept" in said

    # Thursday: the recording ends half-way, on a full disk; nothing is lost.
    with pytest.MonkeyPatch.context() as crash:
        crash.setattr(os, "fsync", full)
        assert conformance("baseline", "update", "known.toml", *MINE, *ACCEPT)[0] == 3
    assert file.read_text() == first
    assert [path.name for path in Path().glob("*known*")] == ["known.toml"]
    Clock.day += timedelta(days=3)
    assert conformance("baseline", "update", "known.toml", *MINE, "--accept", "--ticket", "T-2")[0] == 0
    assert conformance(*gate)[0] == 0
    assert set(statuses()) == {leak, gap("TOY-008"), gap("TOY-011"), "TOY-005:Take:result"}

    # Second week: the leak is fixed, which the gate wants to have written down.
    monkeypatch.setitem(CANDIDATES, "mine", Forgetful)
    code, said = conformance(*gate)
    assert code == 6
    assert told(said, leak)[0].startswith("[known.TOY-007-")
    assert told(said, leak)[-1].startswith("trace = ")
    assert conformance("baseline", "prune", "known.toml")[0] == 0
    assert leak not in statuses()
    assert conformance(*gate)[0] == 0

    # Then the day comes until which the first entries were accepted.
    Clock.day += timedelta(days=90)
    code, said = conformance(*gate)
    assert code == 6
    assert "2 have expired (TOY-008-" in said.splitlines()[-1]


def test_the_file_says_what_is_known_and_keeps_what_people_wrote(conformance: Callable[..., tuple[int, str]]) -> None:
    """Comments, order inside an entry and fields of theirs survive an update."""
    written(known(), *gaps())
    text = Path("known.toml").read_text()
    assert """trace = '{"schema": 1""" in text
    text = text.replace("[known.TOY-007", "# Sam looks at this.\n[known.TOY-007")
    text = text.replace('ticket = "T-1"\ntrace', 'owner = "sam"   # until May\nticket = "T-9"\ntrace', 1)
    Path("known.toml").write_text(text)
    Clock.day += timedelta(days=40)

    code, said = conformance("baseline", "update", "known.toml", *MINE)

    assert code == 0, said
    assert Path("known.toml").read_text() == text.replace("last_seen = 2026-03-02", "last_seen = 2026-04-11")


def test_a_trace_that_fails_otherwise_is_new(conformance: Callable[..., tuple[int, str]]) -> None:
    """Its entry is changed, its new signature red; accepting that replaces the entry."""
    other = known("TOY-004:Take:result")
    written(other, *gaps())

    code, said = conformance("run", *MINE, "--baseline", "known.toml")
    accepted, _ = conformance("baseline", "update", "known.toml", *MINE, *ACCEPT)

    assert code == 1
    assert f"1 fails otherwise ({other.id})" in said.splitlines()[-1]
    assert "TOY-004:Take:result fails otherwise now, as TOY-007:Take:view.held" in " ".join(said.split())
    assert (accepted, set(statuses())) == (
        0,
        {"TOY-007:Take:view.held", gap("TOY-008"), gap("TOY-011")},
    )


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"trace": '{"schema": 1, "subsystem": "toy", "steps": [{"op": "Fly"}]}'}, "unknown operation 'Fly'"),
        ({"trace": "nonsense"}, "its trace is none of this version"),
        ({"trace": json.dumps({**to_data(trace(Take())), "profile": "other"})}, "its trace is of profile other"),
    ],
)
def test_a_trace_that_means_nothing_any_more_needs_review(
    conformance: Callable[..., tuple[int, str]], broken: dict[str, str], told: str
) -> None:
    """It hides nothing: what it was to stand for is new again; and nothing deletes it but people."""
    written(known(**broken), *gaps())

    code, said = conformance("run", *MINE, "--baseline", "known.toml")
    pruned, _ = conformance("baseline", "prune", "known.toml")

    assert code == 1
    assert "TOY-007 violated by builtin:mine" in said
    assert "1 cannot be judged any more" in said.splitlines()[-1]
    assert told in " ".join(said.split())
    assert (pruned, len(statuses())) == (6, 3)


def test_a_step_that_the_model_does_not_allow_any_more_needs_review(
    conformance: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a change of the model would pass for a fix."""
    from conformance import subsystem

    written(known(), *gaps())
    toy = subsystem.subsystem("toy")
    narrower = replace(toy, legal=lambda state, op: len(state.numbers) < 1 or not isinstance(op, Put))
    monkeypatch.setattr(unit, "subsystem", lambda _name: narrower)

    code, said = conformance("baseline", "prune", "known.toml")

    assert code == 6
    assert "the model does not let all the steps of its trace happen" in " ".join(said.split())


def test_an_entry_for_elsewhere_is_passed_over(conformance: Callable[..., tuple[int, str]]) -> None:
    """It hides nothing here, and is no reason to complain."""
    written(known(when=When(machine="pdp11")), *gaps())

    code, said = conformance("run", *MINE, "--baseline", "known.toml")
    accepted, told = conformance("baseline", "update", "known.toml", *MINE, *ACCEPT)

    assert code == 1
    assert "attention" not in said
    assert accepted == 1
    assert "is for elsewhere, by its `when`" in told


def test_conditions_hold_by_whole_numbers() -> None:
    """`3.1` is not the beginning of 3.11."""
    python = entries.platform.python_version()
    major, minor, _ = python.split(".", 2)

    assert When(python=f"{major}.{minor}", suite="0.1", capabilities=("a",)).holds(frozenset("ab"))
    assert not When(python=f"{major}.{minor[:-1] or 9}").holds(frozenset())
    assert not When(capabilities=("a",)).holds(frozenset())
    assert not When(suite="0.2").holds(frozenset())


def test_what_nobody_will_see_to_is_refused(conformance: Callable[..., tuple[int, str]]) -> None:
    """A ticket or a last day, or somebody says that neither is wanted."""
    written(known(ticket=""), *gaps())

    refused, said = conformance("run", *MINE, "--baseline", "known.toml")
    allowed, _ = conformance("run", *MINE, "--baseline", "known.toml", "--allow-untracked")
    recorded, told = conformance("baseline", "update", "new.toml", *MINE, "--accept")

    assert (refused, allowed, recorded) == (2, 0, 2)
    assert "has neither ticket nor expires" in said
    assert "--accept needs --ticket or --expires" in told
    assert not Path("new.toml").exists()


def test_a_known_failure_costs_no_search(
    conformance: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing minimises it."""
    written(known(), *gaps())
    asked: list[str] = []
    minimiser = explore.minimiser

    def watched(context: Any) -> Any:
        def minimise(failure: Any) -> Any:
            asked.append(failure.signature)
            return minimiser(context)(failure)

        return minimise

    monkeypatch.setattr(explore, "minimiser", watched)

    assert conformance("run", *MINE, "--baseline", "known.toml", "--engine", "explore")[0] == 0
    assert asked == []
    assert conformance("run", *MINE, "--engine", "explore")[0] == 1
    assert asked == ["TOY-007:Take:view.held"]


def test_a_clause_that_is_exercised_after_all_is_stale(conformance: Callable[..., tuple[int, str]]) -> None:
    """In the gate, where it means something; a part of the work says nothing of it."""
    written(known(), *gaps(), known(gap("TOY-005"), trace=""))

    code, said = conformance("run", *MINE, "--baseline", "known.toml")
    part, _ = conformance("run", *MINE, "--baseline", "known.toml", "--engine", "explore,campaign")
    updated, _ = conformance("baseline", "update", "known.toml", *MINE)
    pruned, _ = conformance("baseline", "prune", "known.toml")

    assert (code, part, updated, pruned) == (6, 0, 6, 0)
    assert "TOY-005 is exercised now" in said
    assert gap("TOY-005") not in statuses()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("clause =", "clause", 1), "not TOML"),
        (lambda text: text + text[text.index("[known") :], "stands twice"),
        (lambda text: text.replace("status", "statsu", 1), "unknown field `statsu`"),
        (lambda text: text.replace('status = "known"', 'status = "odd"', 1), "Invalid enum value 'odd'"),
        (lambda text: "answer = 42\n" + text, "holds tables [known.ID], and nothing else"),
        (lambda text: text + "[other]\nanswer = 42\n", "holds tables [known.ID], and nothing else"),
        (lambda text: text.replace("clause = ", 'where = "here"\nclause = ', 1), "unknown field `where`"),
    ],
)
def test_a_broken_file_is_refused_with_a_sentence(
    conformance: Callable[..., tuple[int, str]], change: Callable[[str], str], told: str
) -> None:
    """By whatever reads it, with the line; and nothing is written."""
    file = written(known(), *gaps())
    text = change(file.read_text())
    file.write_text(text)

    for words in (("run", *MINE, "--baseline"), ("baseline", "update"), ("baseline", "prune")):
        rest = MINE if words[1] == "update" else ()
        code, said = conformance(*words, "known.toml", *rest)
        assert (code, len(said.splitlines())) == (2, 1), said
        assert said.startswith("conformance: known.toml: line ")
        assert told in said
    assert conformance("baseline", "lint", "known.toml")[0] == 2
    assert file.read_text() == text


def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    conformance: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A gate takes minutes; what is only looked at need not be written."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("conformance.commands.baseline.Update._candidate", lambda *_: Ending(Exit.CONFORMS, "ran"))

    code, said = conformance("baseline", "update", "file/known.toml", *MINE, "--accept", "--allow-untracked")
    looked, _ = conformance("baseline", "update", "file/known.toml", *MINE)

    assert (code, looked) == (2, 0)
    assert said.splitlines()[-1] == (
        f"conformance: file/known.toml: cannot be written, since nothing can be in {tmp_path}/file"
    )


def test_lint_lists_all_that_is_wrong(conformance: Callable[..., tuple[int, str]]) -> None:
    """By line, whatever else is wrong; and is content with what update writes."""
    day = Clock.day.date()
    fine = written(known(), *gaps(), path="fine.toml")
    wrong = [
        known(expires=day - timedelta(days=1)),
        known("TOY-001:Put:result", trace="{}", status="fixed"),
        known("TOY-099:Put:result", candidate="builtin:other", ticket=""),
        known("TOY-002:Put:result", subsystem="attic"),
    ]
    file = written(*wrong)
    text = file.read_text()
    blocks = text.split("[known.")
    file.write_text("[known.".join([blocks[0], *reversed(blocks[1:])]) + "\n[known.X]\nclause = 1\n")

    code, said = conformance("baseline", "lint", "known.toml")

    assert code == 2
    for told in (
        "was accepted until 2026-03-01",
        "has no trace of this version",
        "no longer failed when it was last looked at",
        "is of a clause that toy does not have",
        "has neither ticket nor expires",
        "is of a subsystem that is not here, 'attic'",
        "an update sorts them",
        "X: Expected `str`, got `int` - at `$.clause`",
    ):
        assert told in said, told
    numbers = [int(line.split(":")[1]) for line in said.splitlines() if line.startswith("known.toml:")]
    assert len(numbers) > 8
    assert numbers == sorted(numbers)
    assert conformance("baseline", "lint", str(fine))[0] == 0


def test_two_branches_merge_by_git(conformance: Callable[..., tuple[int, str]]) -> None:
    """Each adds a failure, one of them a word of its own; the merge is what one update would have written."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", *identity, *words], check=True, capture_output=True)

    git("init", "-b", "main")
    middle, one, other = known(), known("TOY-001:Put:result"), known("TOY-010:Put:check")
    for branch, new in (("main", middle), ("ours", one), ("theirs", other)):
        if branch != "main":
            git("checkout", "-b", branch, "main")
        baseline = files.read(Path("known.toml")) if Path("known.toml").exists() else files.new(Path("known.toml"))
        baseline.put([new])
        baseline.write()
        if branch == "theirs":
            text = Path("known.toml").read_text()
            Path("known.toml").write_text(text.replace('ticket = "T-1"', 'reason = "told"\nticket = "T-1"', 1))
        git("add", "known.toml")
        git("commit", "-m", branch)

    git("merge", "-m", "both", "ours")

    told = known(reason="told")
    assert Path("known.toml").read_text() == written(told, one, other, path="all.toml").read_text()
    assert conformance("baseline", "lint", "known.toml")[0] in (0, 6)


def test_shards_come_to_what_one_run_says(conformance: Callable[..., tuple[int, str]]) -> None:
    """Each judges the stored traces, one tells of them; merged they are the run's bytes, times apart."""
    written(known(), *gaps(), known(gap("TOY-005"), trace=""), known("TOY-004:Put:result"))
    run = ("run", *MINE, "--baseline", "known.toml")
    whole = conformance(*run, "--report", "json:whole")
    for shard in "123":
        conformance(*run, "--shard", f"{shard}/3", "--report", f"json:part{shard}")

    merged = conformance("merge", "merged", "part2", "part3", "part1")

    assert merged[0] == whole[0] == 6
    assert merged[1].splitlines()[-1] == whole[1].splitlines()[-1]
    assert untimed("merged") == untimed("whole")


def untimed(path: str) -> list[dict[str, Any]]:
    """The lines of a report without their times."""
    return [{**json.loads(line), "seconds": 0} for line in Path(path).read_text().splitlines()]


def test_two_workers_and_one_give_the_same_bytes() -> None:
    """Times apart, of a real subsystem in real processes: what is known, and what is fixed."""
    trap = '{"schema": 1, "subsystem": "uio_msi", "steps": [{"op": "Probe", "answers": {"ioremap#2": -12}}]}'
    fine = '{"schema": 1, "subsystem": "uio_msi", "steps": [{"op": "Probe"}]}'
    uio: dict[str, Any] = {"subsystem": "uio_msi", "candidate": "builtin:UIO-D13"}
    remapped = known("UIO-062:Probe:protocol", trace=trap, **uio)
    written(remapped, known("UIO-061:Probe:result", trace=fine, **uio))
    reports = []
    for n in ("1", "2"):
        words = ("run", "uio_msi", "--candidate", uio["candidate"], "--engine", "campaign", "-k", "UIO-06[0-2]")
        code = subprocess.run(
            [sys.executable, "-m", "conformance", *words, "--baseline", "known.toml", "-n", n, "--report", f"json:{n}"],
            env={**os.environ, "PYTHONPATH": str(Path(toyland.__file__).parents[1])},
            capture_output=True,
            check=False,
        ).returncode
        assert code == 6
        reports.append(untimed(n))

    assert reports[0] == reports[1]
    assert [line["signature"] for line in reports[0] if line["kind"] == "failure"] == [remapped.signature]


def test_a_report_without_its_footer_is_no_pass(conformance: Callable[..., tuple[int, str]]) -> None:
    """However content its lines are: merged, compared, or written again."""
    written(known(), *gaps())
    assert conformance("run", *MINE, "--baseline", "known.toml", "--report", "json:whole")[0] == 0
    Path("half").write_text("".join(Path("whole").read_text().splitlines(keepends=True)[:-1]))

    assert conformance("merge", "merged", "half")[0] == 4
    assert conformance("diff", "whole", "half")[0] == 4
    assert conformance("report", "junit", "half.xml", "half")[0] == 4
    assert conformance("report", "junit", "whole.xml", "whole")[0] == 0


def test_every_form_tells_known_from_new_and_stale(
    conformance: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known is no failure and has its reason; what needs attention is red."""
    written(known(reason="as posted"), *gaps(), known("TOY-004:Put:result"))
    monkeypatch.setitem(CANDIDATES, "mine", Both)
    listed = ("json", "junit", "ktap", "sarif", "github", "annotations", "html")
    reports = [word for form in listed for word in ("--report", f"{form}:{form}")]

    assert conformance("run", *MINE, "--baseline", "known.toml", *reports)[0] == 1

    said = {form: Path(form).read_text() for form in listed}
    (part,) = read_report(Path("json")).parts
    assert {f.signature: (f.status, f.reason) for f in part.failures} == {
        "TOY-005:Take:result": ("new", ""),
        "TOY-007:Take:view.held": ("known", "as posted, T-1"),
    }
    assert [s.became for s in part.stale] == ["changed"]
    assert 'message="known failure: TOY-007:Take:view.held (as posted, T-1)" type="pytest.xfail"' in said["junit"]
    assert "ok 7 TOY-007 # XFAIL known failure: TOY-007:Take:view.held (as posted, T-1)" in said["ktap"]
    assert "TOY-004-changed-TOY-004_Put_result" in said["ktap"]
    states = {r["partialFingerprints"]["signature/v1"]: r for r in json.loads(said["sarif"])["runs"][0]["results"]}
    assert {name.partition(":")[2]: result["baselineState"] for name, result in states.items()} == {
        "TOY-005:Take:result": "new",
        "TOY-007:Take:view.held": "unchanged",
        "TOY-004:Put:result": "absent",
    }
    for form in ("github", "annotations"):
        assert "TOY-005" in said[form]
        assert "TOY-004" in said[form]
        assert "as posted" not in said[form]
    assert "Known failures that need attention" in said["html"]
    assert "as posted, T-1" in said["html"]


def test_a_lost_kill_fails_by_name(
    conformance: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect that survives, one that is gone from the zoo, and a clause that kills nothing any more."""
    zoo = ("strength", "toy", "-k", "TOY-D0[12]")
    missing, said = conformance(*zoo, "--against", "kills.toml")
    recorded = conformance(*zoo, "--record", "kills.toml")[0]
    kills = Path("kills.toml").read_text()
    same = conformance(*zoo, "--against", "kills.toml")[0]
    Path("kills.toml").write_text(kills + 'TOY-D00 = "TOY-002"\n')
    for engine in (explore, interleave, campaign, machine):
        monkeypatch.setattr(engine, "run", lambda _context: None)

    lost, told = conformance("strength", "toy", "--against", "kills.toml")

    assert (missing, recorded, same, lost) == (2, 0, 0, 1)
    assert "this records it: python -m conformance strength toy --record kills.toml" in said
    assert kills.splitlines()[2:] == ["[toy]", 'TOY-D01 = "TOY-007"', 'TOY-D02 = "TOY-001"']
    assert "TOY-D01 is no longer killed; TOY-007 killed it" in told
    assert "TOY-D00, which TOY-002 killed, is no longer in the zoo" in told
    assert "3 of the recorded kills lost" in told.splitlines()[-1]
    assert Path("kills.toml").read_text() == kills + 'TOY-D00 = "TOY-002"\n'


def test_a_clause_that_kills_nothing_any_more_is_a_lost_kill() -> None:
    """Though the defect is still killed, by another one."""
    zoo = [
        Kill(defect, failure(clause), "explore", 0.0)
        for defect, clause in zip(ZOO[:2], ("TOY-007", "TOY-007"), strict=True)
    ]

    assert list(kills_file.lost({"toy": {"TOY-D01": "TOY-007", "TOY-D02": "TOY-001"}}, {"toy": zoo})) == [
        "TOY-001 kills nothing any more; it killed TOY-D02"
    ]


def failure(clause: str) -> Failure:
    """Some failure of a clause."""
    return Failure(TOY.clause(clause), "Take", "result", "", 0)


def watched(look: Callable[[], object]) -> Callable[[Path, str | bytes], None]:
    """`write_atomically` that looks before each of its lines at what a process killed there would leave."""

    def line(_frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            look()
        return line

    def call(frame: FrameType, _event: str, _argument: object) -> Any:
        return line if frame.f_code is write_atomically.__code__ else None

    def write(path: Path, text: str | bytes) -> None:
        sys.settrace(call)
        try:
            write_atomically(path, text)
        finally:
            sys.settrace(None)

    return write


def test_killed_at_any_moment_files_are_old_or_new(conformance: Callable[..., tuple[int, str]]) -> None:
    """An update, a prune and a report, at every line that writes them: never half of one, and never neither."""
    fixed = known("TOY-001:Put:result", trace=json.dumps(to_data(trace(Put(0)))))
    old = written(fixed, *gaps()).read_text()
    gate = ("run", *MINE, "--engine", "explore", "--report", "json:report", "--report", "ktap:ktap")
    conformance(*gate)
    reported = read_report(Path("report"))
    moments: list[tuple[str, str]] = []

    with pytest.MonkeyPatch.context() as patch:
        write = watched(lambda: moments.append((Path("known.toml").read_text(), Path("report").read_text())))
        patch.setattr(files, "write_atomically", write)
        patch.setattr(forms, "write_atomically", write)
        conformance("baseline", "update", "known.toml", *MINE, *ACCEPT)
        conformance("baseline", "prune", "known.toml")
        conformance(*gate)

    assert len(moments) >= 50
    seen = {text for text, _ in moments}
    assert len(seen) == 3, "old, updated, and pruned"
    assert old in seen
    for text in seen:
        Path("seen.toml").write_text(text)
        assert files.read(Path("seen.toml")).entries()
    for told in {told for _, told in moments}:
        Path("seen").write_text(told)
        report = read_report(Path("seen"))
        assert len(report.parts[0].clauses) in (0, len(reported.parts[0].clauses))
        assert (report.footer is None) == (not report.parts[0].clauses)


def test_a_stored_trace_that_ends_its_process_is_known_and_the_others_count() -> None:
    """Each is then judged in a process of its own; what passes is deleted, what still ends the process is kept."""
    Path("dying.py").write_text(
        "import os\n\nfrom conformance.candidates.builtin.uio_msi import CANDIDATES\n\n\n"
        "class Dying(CANDIDATES['upstream']):\n"
        "    def open(self):\n"
        "        os._exit(7)\n"
    )
    uio: dict[str, Any] = {"subsystem": "uio_msi", "candidate": "dying.py:Dying"}
    deadly = '{"schema": 1, "subsystem": "uio_msi", "steps": [{"op": "Probe"}, {"op": "Open"}]}'
    fine = '{"schema": 1, "subsystem": "uio_msi", "steps": [{"op": "Probe"}]}'
    written(
        known("UIO-078:Open:crash", trace=deadly, **uio),
        known("UIO-049:Open:result", trace=deadly, **uio),
        known("UIO-060:Probe:result", trace=fine, **uio),
    )

    done = subprocess.run(
        [sys.executable, "-m", "conformance", "baseline", "prune", "known.toml"],
        env={**os.environ, "PYTHONPATH": str(Path(toyland.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 6, done.stdout + done.stderr
    assert set(statuses()) == {"UIO-078:Open:crash", "UIO-049:Open:result"}
    assert "attention UIO-049:Open:result fails otherwise now, as UIO-078:Open:crash" in done.stdout
    assert "1 deleted, 2 kept" in done.stdout
