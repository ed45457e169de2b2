"""`conformance replay`: contained like a run, and never silent for long."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from conformance.commands import main as cli
from conformance.commands import replay
from conformance.model.step import Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import Close, Open, Probe
from conformance.reports import progress
from conformance.runs import replaying
from conformance.runs.replaying import Replayed
from conformance.subsystem import subsystem
from conformance.trace import Trace, encode
from conformance.verdict import NOT_TRIED, Failure

STRANGER = """\
import ctypes
import os
from pathlib import Path

from conformance.candidates.builtin.uio_msi.upstream import Upstream

Path("imported-by").write_text(str(os.getpid()))


class Mine(Upstream):
    opened = 0

    def open(self):
        print("opening")
        self.opened += 1
        if self.opened == 2:
            {how}
        return super().open()
"""


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def written(how: str, *ops: object) -> tuple[str, ...]:
    """The command that replays these operations on a stranger whose second open does `how`."""
    Path("mine.py").write_text(STRANGER.format(how=how))
    Path("trace.json").write_text(encode(Trace("uio_msi", "upstream", Config(), tuple(map(Step, ops)))))
    return "replay", "trace.json", "--candidate", "mine.py:Mine"


def test_a_stranger_is_never_loaded_here(capsys: pytest.CaptureFixture[str]) -> None:
    """It may do to its process what it likes; the story comes as data, and what it prints is no verdict."""
    before = set(sys.modules)
    code = cli.invoke(written("pass", Probe(), Open(), Close()))
    out = capsys.readouterr().out

    assert code == 0
    assert int(Path("imported-by").read_text()) != os.getpid()
    assert not [name for name in set(sys.modules) - before if name.endswith("mine")]
    assert "step 2    open(rawio=True) -> 0\n              enabled = 2" in out
    assert "opening" not in out
    assert out.splitlines()[-1] == "exit 0: uio_msi: no failure in 3 steps"


@pytest.mark.parametrize("how", ["os._exit(0)", "ctypes.string_at(0)"])
def test_the_step_that_ends_the_process_is_shown(capsys: pytest.CaptureFixture[str], how: str) -> None:
    """With the steps before it, and what they changed; those after it are not."""
    code = cli.invoke(written(how, Probe(), Open(), Open(), Close()))
    out = capsys.readouterr().out

    assert code == 1
    assert "step 1    probe() -> 0\n              registered = True" in out
    assert "step 3    open(rawio=True) did not end" in out
    assert "UIO-078 violated by mine.py:Mine at step 3 of 3" in out
    assert "step 4" not in out


def test_a_process_that_ends_once_only_cannot_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither pass nor failure."""
    once = "Path('died').exists() or (Path('died').touch(), os._exit(3))"

    code = cli.invoke(written(once, Probe(), Open(), Open()))
    err = capsys.readouterr().err

    assert code == 3
    assert "its process ended with exit code 3, and did not end when the trace was taken once more" in err


def test_what_could_not_be_tried_is_no_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator that ends twice under a real kernel says nothing of the kernel."""
    lost = Failure(subsystem("uio_msi").robustness, "Open", NOT_TRIED, "the emulator ended, twice", 1)
    monkeypatch.setattr(replay, "replayed", lambda *_: Replayed([], lost))

    code = cli.invoke(written("pass", Probe(), Open()))
    out, err = capsys.readouterr()

    assert (code, "violated" in out) == (3, False)
    assert "trace.json: the emulator ended, twice" in err


def test_a_value_out_of_range_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A world that cannot be is a mistake in the trace."""
    command = written("pass", Probe())
    wrong = '"config": {"eventfds": [{"count": -1}]}'
    Path("trace.json").write_text(Path("trace.json").read_text().replace('"config": {}', wrong))

    code = cli.invoke(command)

    said = "conformance: trace.json: a value in it is out of its range: ValueError: value must be positive\n"
    assert (code, *capsys.readouterr()) == (2, "", said)


def test_a_long_trace_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute of silence looks like a hang."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    steps = [Probe(), *[Open(), Close()] * (2 * replaying.EVERY)]
    _, path, option, _ = written("pass", *steps)

    code = cli.invoke(("replay", path, option, "builtin:upstream"))
    lines = capsys.readouterr().err.splitlines()

    assert code == 0
    assert [line.split(" steps")[0].split()[-1] for line in lines] == ["1", "65", "129", "193", "257"]
    assert all(line.endswith("running replay") for line in lines)
