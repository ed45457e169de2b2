"""What a run says while it goes on: the first failure in full, what is left, and that a candidate never starts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.commands import main as cli
from conformance.commands import run as commands
from conformance.reports.progress import Progress
from conformance.runs.request import Request, Unit
from conformance.runs.result import Result
from conformance.runs.unit import run_unit, unit_job
from conformance.runs.work import Work
from conformance.runs.workers import Jobs
from conformance.verdict import Exit
from tests.toyland import in_short, shipped

UNIT = Unit("uio_msi", "builtin:UIO-U03", None, "corpus")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
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


@pytest.mark.parametrize("apart", [False, True])
def test_a_unit_tells_of_a_failure_when_it_is_found(apart: bool) -> None:
    """In any worker, long before the unit ends, with trace and story."""
    told: list[tuple[int, str]] = []

    def hear(_number: int, steps: int, _clauses: int, _failures: int, *found: dict[str, object]) -> None:
        told.extend((steps, str(data["signature"])) for data in found)

    ((_, result),) = Jobs(unit_job, [UNIT], 1, hear, apart=apart).run()

    assert [signature for _, signature in told] == [data["signature"] for data in result.failures]
    assert told[0][0] < result.steps


@pytest.mark.usefixtures("toy")
def test_the_first_failure_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, so that standard output is the same however many work; with the command that repeats it."""
    code, out, err = conformance(
        capsys, "run", "toy", "--engine", "explore,campaign", "--candidate", "builtin:as-posted"
    )
    shown = err[err.index("first failure") :]

    assert code == Exit.DOES_NOT_CONFORM
    assert re.search(r"(?m)^first failure after \d+\.\d s: TOY-007:Take:view\.held$", shown)
    assert "TOY-007 violated by builtin:as-posted at step" in shown
    (repeat,) = re.findall(r"replay (\S+\.json)", shown)
    assert Path(repeat).is_file()
    assert repeat in out


@pytest.mark.usefixtures("toy")
def test_only_what_is_judged_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`-k` leaves the others out; -x ends at once, and shows the failure once."""
    _, _, filtered = conformance(
        capsys, "run", "toy", "--engine", "explore,campaign", "--candidate", "builtin:as-posted", "-k", "TOY-001"
    )
    _, out, first = conformance(
        capsys, "run", "toy", "--engine", "explore,campaign", "--candidate", "builtin:as-posted", "-x"
    )

    assert "first failure" not in filtered + first
    assert out.count(" violated by ") == 1


def test_progress_says_what_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs, and what then; also where no step has been taken yet."""
    monkeypatch.setattr("conformance.reports.progress.EVERY", 0.0)

    with Progress(["a", "b", "c", "d", "e"]) as progress:
        progress.tell(0, 0, 0, 0)
        progress.end(0, 5, (), ())
        progress.tell(4, 1, 0, 0)
    lines = capsys.readouterr().err.splitlines()

    assert [line.partition("; ")[2] for line in lines] == [
        "running a; then b, c and 2 more",
        "then b, c and 2 more",
        "running e; then b, c and 1 more",
    ]
    assert [line.split()[2] for line in lines] == ["0/5", "1/5", "1/5"]


def test_progress_counts_in_english(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure, two failures."""
    monkeypatch.setattr("conformance.reports.progress.EVERY", 0.0)

    with Progress(["a"]) as progress:
        progress.tell(0, 9, 1, 1)
        progress.tell(0, 9, 2, 2)
    lines = capsys.readouterr().err.splitlines()

    assert [line.partition("/s  ")[2].partition(";")[0] for line in lines] == [
        "1 clause exercised  1 failure",
        "2 clauses exercised  2 failures",
    ]


@pytest.mark.parametrize("engine", ["corpus", "explore", "interleave", "campaign", "machine"])
def test_every_engine_ends_with_one_trace(engine: str, tmp_path: Path) -> None:
    """Whichever is first; a unit that comes later does nothing at all."""
    (tmp_path / "bad.py").write_text(
        "from conformance.candidates.builtin.uio_msi import CANDIDATES\n"
        "class Bad(CANDIDATES['upstream']):\n    def __init__(self, port):\n        raise RuntimeError\n"
    )
    work = Unit("uio_msi", f"{tmp_path}/bad.py:Bad", None, engine)

    result = run_unit(work)
    later = run_unit(replace(work, settled=True))

    assert [data["signature"] for data in result.failures] == ["UIO-078:Start:crash"]
    assert result.settled
    assert (result.steps, later.steps, later.failures) == (0, 0, [])
    assert result.traces <= 4


def test_work_that_is_settled_is_handed_out_as_such() -> None:
    """Of that subsystem alone."""
    work = Work([UNIT, UNIT, replace(UNIT, subsystem="other")], Request((("uio_msi", UNIT.spec),)))
    handed = iter(work)

    first = next(handed)
    work.learn(0, Result("uio_msi.corpus", "uio_msi", UNIT.spec, "upstream", [], settled=True))

    assert [first.settled, *(each.settled for each in handed)] == [False, True, False]


@pytest.mark.usefixtures("toy")
def test_the_first_failure_is_of_a_clause_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """With -k -x goes on past the failures of others."""
    command = ("run", "toy", "--engine", "explore,campaign", "--candidate", "builtin:as-posted", "-x", "-k")

    code, out, _ = conformance(capsys, *command, "TOY-007")
    other, said, _ = conformance(capsys, *command, "TOY-00[1-6]")

    assert (code, out.count(" violated by ")) == (Exit.DOES_NOT_CONFORM, 1)
    assert (other, said.count(" violated by ")) == (Exit.CONFORMS, 0)
    assert "6 pass" in said


def test_a_constructor_that_ends_its_process_is_settled_at_once(tmp_path: Path) -> None:
    """The other units are told, and there is one finding."""
    (tmp_path / "gone.py").write_text(
        "import os\nfrom conformance.candidates.builtin.uio_msi import CANDIDATES\n"
        "class Gone(CANDIDATES['upstream']):\n    def __init__(self, port):\n        os._exit(3)\n"
    )
    said: list[str] = []
    request = Request((("uio_msi", f"{tmp_path}/gone.py:Gone"),))
    run = commands.Run(request, traces=tmp_path, say=said.append, complain=said.append)

    ending = run.perform()

    assert ending.why == "uio_msi: does not conform: 1 clause broken (UIO-078)"
    assert "because   its process ended with exit code 3" in "\n".join(said)
    assert run.is_told
