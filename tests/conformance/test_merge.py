"""Reports of shards put together, and two reports compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conformance.commands import main as cli
from conformance.engines import machine
from conformance.reports import diff, record
from conformance.reports import json as json_form
from conformance.reports.merge import Source, merge
from conformance.reports.record import ClauseVerdict, Concluded, FailureFound, Footer, Header, KillFound, Part, Report
from conformance.reports.version import SUITE
from conformance.runs import request, unit
from conformance.verdict import Exit, UsageError
from tests.report_schema import SCHEMED
from tests.toy import TOY
from tests.toyland import shipped


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The toy is shipped, the gate is short, and traces go to a folder of the test's own."""
    with shipped(monkeypatch):
        monkeypatch.setitem(unit.GATE_STEPS, "campaign", 2_000)
        monkeypatch.setattr(machine, "run", lambda _context: None)  # slow, and finds nothing else
        monkeypatch.chdir(tmp_path)
        yield


def conformance(*arguments: str) -> int:
    return cli.invoke(arguments)


def untimed(path: str) -> list[dict[str, Any]]:
    """The lines of a report, each held to the schema, without their times."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    for line in lines:
        SCHEMED.validate(line)
    return [{**line, "seconds": 0} for line in lines]


@pytest.mark.parametrize("candidate", ["as-posted", "untidy"])
def test_shards_come_to_what_one_run_says(candidate: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Line by line, times apart; in any order; with the run's last line and its exit code."""
    run = ("run", "toy", "--candidate", f"builtin:{candidate}")
    whole = conformance(*run, "--report", "json:whole")
    last = capsys.readouterr().out.splitlines()[-1]
    for shard in (1, 2, 3):
        conformance(*run, "--shard", f"{shard}/3", "--report", f"json:part{shard}")
    capsys.readouterr()

    merged = conformance("merge", "merged", "part3", "part1", "part2")

    assert (merged, capsys.readouterr().out.splitlines()[-1]) == (whole, last)
    assert untimed("merged") == untimed("whole")


def test_some_of_the_shards_are_not_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Clauses that they did not exercise say nothing, and merging goes on from what was merged."""
    run = ("run", "toy", "--candidate", "builtin:upstream")
    conformance(*run, "--report", "json:whole")
    for shard in (1, 2, 3):
        conformance(*run, "--shard", f"{shard}/3", "--report", f"json:part{shard}")

    some = conformance("merge", "some", "part1", "part2")
    everything = conformance("merge", "merged", "some", "part3")

    assert (some, everything) == (4, 4)
    assert untimed("merged") == untimed("whole")
    assert "2 MUST not exercised" in capsys.readouterr().out.splitlines()[-1]


def header(**more: Any) -> Header:
    return Header(**{"subsystem": "toy", "profile": "upstream", "candidate": "mine.py:Shelf", **more})


ENDED = Footer(0, "conforms", 9, 1.0)


def report(*parts: Part, footer: Footer | None = ENDED) -> Report:
    return Report(list(parts), footer)


def part(units: str = "toy.explore", clauses: list[ClauseVerdict] | None = None, **more: Any) -> Part:
    concluded = Concluded(exit=0, why="conforms", complete=False, steps=9, seconds=1.0)
    fields = {name: more.pop(name) for name in list(more) if name in Header.__struct_fields__}
    listed = clauses if clauses is not None else [ClauseVerdict("TOY-001", "MUST", "pass", 3)]
    return Part(header(units=tuple(units.split()), **fields), listed, **{"conclusion": concluded, **more})


def everything() -> list[ClauseVerdict]:
    """All clauses of the toy, passed."""
    return [ClauseVerdict(clause.id, clause.level.value, "pass", 99) for clause in TOY.clauses]


def failure(signature: str = "TOY-001:Take:result", **more: Any) -> FailureFound:
    trace = {"schema": 1, "subsystem": "toy", "profile": "upstream", "config": {}, "steps": [{"op": "Take"}]}
    fields = {"operation": "Take", "mismatch": "result", "detail": "", "step": 0, "expected": "1", "got": "2"}
    found = {"engine": "explore", "seconds": 0.1, "flaky": False, "trace": trace, "story": None}
    return FailureFound(clause=signature[:7], signature=signature, **{**fields, **found, **more})


def merged(*reports: Report) -> Any:
    return merge([Source(f"part{number}", each) for number, each in enumerate(reports, 1)])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (part("toy.machine.1", suite="conformance 0.0.9"), f"part2: it is of conformance 0.0.9, and this is {SUITE}"),
        (
            part("toy.machine.1", candidate="b.py:B"),
            "part2: another candidate than in part1: 'b.py:B', not 'mine.py:Sh",
        ),
        (part("toy.machine.1", profile="as-posted"), "part2: another profile than in part1: 'as-posted', not 'upstre"),
        (part("toy.machine.1", strict=True), "part2: another --strict than in part1: true, not false"),
        (part("toy.machine.1", only="TOY-00*"), "part2: another pattern of clauses than in part1: 'TOY-00*', not '*'"),
        (part("toy.explore"), "part2: the work of toy.explore is in part1 already"),
        (part("x.explore", subsystem="x"), "part2: there is no subsystem 'x' here"),
        (
            part("", kills=[KillFound("TOY-D01", None, (), False, "", 0, 0.0, "")]),
            "part2: it is a report of strength, and only those of runs are merged",
        ),
        (
            part(
                "toy.machine.1", failures=[failure(trace={"schema": 1, "subsystem": "toy", "steps": [{"op": "Fly"}]})]
            ),
            "part1, part2: a trace cannot be read: $.steps[0].op: unknown operation 'Fly'",
        ),
    ],
)
def test_what_is_not_of_one_run_is_refused(other: Part, said: str) -> None:
    """With a sentence that names the report and what is different."""
    with pytest.raises(UsageError) as raised:
        merged(report(part()), report(other))

    assert str(raised.value).startswith(said)


def test_hunts_with_different_seeds_are_different_work() -> None:
    """The merged report has none."""
    done = merged(report(part(seed=1, budget=9.0)), report(part(seed=2, budget=9.0)))

    (only,) = record.gathered(done.lines).parts
    assert (only.header.seed, only.header.units, only.clauses[0].exercised) == (None, ("toy.explore",), 6)


def test_a_truncated_part_truncates_the_whole() -> None:
    """What the others found is there; a failure is still one."""
    cut = report(Part(header(units=("toy.machine.1",))), footer=None)

    passed = merged(report(part()), cut)
    failed = merged(report(part(failures=[failure()])), cut)

    assert record.gathered(passed.lines).footer is None
    assert (passed.ending.exit, passed.ending.why) == (Exit.INCONCLUSIVE, "inconclusive: part2 is truncated")
    assert failed.ending.exit is Exit.DOES_NOT_CONFORM
    assert [f.signature for f in record.gathered(failed.lines).parts[0].failures] == ["TOY-001:Take:result"]


def test_an_interrupted_part_interrupts_the_whole() -> None:
    """Also where it had not begun."""
    stopped = Footer(4, "interrupted before the end", 0, 1.0, interrupted=True)

    done = merged(report(part()), report(Part(header(units=("toy.machine.1",))), footer=stopped))

    assert (done.ending.exit, done.lines[-1].interrupted) == (Exit.INCONCLUSIVE, True)


def test_of_two_failures_with_one_signature_the_plainer_stays() -> None:
    """With where its trace is, whichever report it is in."""
    longer = {**failure().trace, "steps": [{"op": "Put"}, {"op": "Take"}]}
    reports = (
        report(part("toy.machine.1", failures=[failure(trace=longer, saved="long", engine="machine")])),
        report(part(failures=[failure(saved="short")])),
    )

    for given in (reports, reports[::-1]):
        (found,) = record.gathered(merged(*given).lines).parts[0].failures
        assert (found.saved, len(found.trace["steps"]), found.engine) == ("short", 1, "explore")


def test_known_and_stale_failures_stay_what_they_are() -> None:
    """Of all the parts, once each; entries that need attention keep the run from being content."""
    known = part(clauses=everything(), failures=[failure(status="known")])
    gone = [record.StaleFound("TOY-001", "TOY-001:Put:result", name) for name in ("TOY-001-b", "TOY-001-a")]

    done = merged(report(known), report(part("toy.machine.1", stale=gone)), report(part("toy.corpus", stale=gone)))

    (only,) = record.gathered(done.lines).parts
    assert [f.status for f in only.failures] == ["known"]
    assert [s.id for s in only.stale] == ["TOY-001-a", "TOY-001-b"]
    assert done.ending.exit is Exit.STALE_BASELINE
    assert done.ending.why == "toy: the baseline needs attention: 2 no longer fail (TOY-001-a, TOY-001-b)"


def test_all_units_are_a_whole_run() -> None:
    """One that is left out leaves something out, the saved traces too."""
    names = [u.name for u in request.units(request.Request((("toy", "x"),)))]

    assert request.is_complete("toy", names)
    assert not request.is_complete("toy", names[1:])


def compared(old: list[Part], new: list[Part]) -> diff.Difference:
    return diff.compare(report(*old), report(*new))


def clause(number: int, verdict: str, level: str = "MUST") -> ClauseVerdict:
    return ClauseVerdict(f"TOY-00{number}", level, verdict, 1, f"Sentence {number}.")


def test_what_broke_and_what_is_fixed() -> None:
    """By signature; what is gone without its clause being passed is not called fixed."""
    gone = [failure("TOY-001:Take:result"), failure("TOY-002:Take:result"), failure("TOY-003:Take:result")]
    old = part(clauses=[clause(1, "fail"), clause(2, "fail"), clause(3, "fail"), clause(4, "pass")], failures=gone)
    now = [failure("TOY-003:Put:crash"), failure("TOY-004:Put:crash", flaky=True)]
    new = part(
        clauses=[clause(1, "pass"), clause(2, "not-exercised"), clause(3, "fail"), clause(4, "fail")], failures=now
    )

    found = compared([old], [new])

    assert found.broken == ["TOY-003:Put:crash Sentence 3."]
    assert found.fixed == ["TOY-001:Take:result Sentence 1."]
    assert found.unseen == [
        "TOY-002:Take:result Sentence 2. (not exercised)",
        "TOY-003:Take:result Sentence 3. (fail)",
    ]
    assert diff.ending(found).exit is Exit.DOES_NOT_CONFORM


def test_what_is_exercised_and_what_no_longer_is() -> None:
    """A MUST that nobody exercises any more makes the comparison inconclusive, a SHOULD does not."""
    old = part(clauses=[clause(1, "pass"), clause(2, "not-exercised"), clause(3, "pass", "SHOULD")])
    new = part(clauses=[clause(1, "not-exercised"), clause(2, "pass"), clause(3, "not-exercised", "SHOULD")])

    found = compared([old], [new])

    assert found.exercised == ["TOY-002 (MUST) Sentence 2."]
    assert found.unexercised == ["TOY-001 (MUST) Sentence 1.", "TOY-003 (SHOULD) Sentence 3."]
    assert diff.ending(found).why == "inconclusive: no longer exercised: TOY-001"


def test_what_got_slower() -> None:
    """Told, and no reason to fail."""
    fast = Concluded(exit=0, why="", complete=True, steps=3_000, seconds=1.0)
    slow = msgspec.structs.replace(fast, seconds=2.0)

    found = compared([part(conclusion=fast)], [part(conclusion=slow)])

    assert found.slower == ["toy: 3,000 -> 1,500 steps/s"]
    assert compared([part(conclusion=slow)], [part(conclusion=fast)]).slower == []
    assert diff.ending(found).exit is Exit.CONFORMS


def test_what_was_tested_otherwise_is_told() -> None:
    """Another candidate may be the point; the reader is to know."""
    found = compared([part(), part(subsystem="a")], [part(candidate="b.py:B"), part(subsystem="b")])

    assert found.other == ["toy: candidate mine.py:Shelf -> b.py:B", "a: not in NEW", "b: not in OLD"]


def test_a_truncated_new_report_proves_nothing() -> None:
    """Even where nothing broke."""
    found = diff.compare(report(part()), report(part(), footer=None))

    assert found.other == ["NEW is truncated"]
    assert diff.ending(found).exit is Exit.INCONCLUSIVE


def test_a_defect_that_survives_is_broken() -> None:
    """Of reports of strength."""
    killed = KillFound("TOY-D01", "TOY-001", (), True, "explore", 1, 0.1, "")
    survived = msgspec.structs.replace(killed, clause=None, killed=False)

    assert compared([part(kills=[killed])], [part(kills=[survived])]).broken == ["TOY-D01  is no longer killed"]
    assert compared([part(kills=[survived])], [part(kills=[killed])]).fixed == ["TOY-D01  is killed by TOY-001"]


def test_the_command_compares_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Headings with lines below, and the last line that says why."""
    broken = part(clauses=[clause(1, "fail")], failures=[failure()])
    (tmp_path / "old").write_bytes(json_form.render(report(part())))
    (tmp_path / "new").write_bytes(json_form.render(report(broken)))

    code = conformance("diff", "old", "new")
    same = conformance("diff", "old", "old")

    assert (code, same) == (1, 0)
    assert capsys.readouterr().out == (
        "broken:\n  TOY-001:Take:result Sentence 1.\nexit 1: 1 broken, 0 fixed\nexit 0: nothing broke, 0 fixed\n"
    )


def test_a_merged_report_may_take_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Merging a single report renders it."""
    (tmp_path / "part").write_bytes(json_form.render(report(part(clauses=everything()))))

    conformance("merge", "out", "part", "--report", "junit:out.xml", "--report", "annotations:-")

    assert (tmp_path / "out.xml").read_text().count("<testcase") == 12
    assert capsys.readouterr().err == ""
