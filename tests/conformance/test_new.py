"""Candidates to begin with: they are built, load, answer "not implemented", and fail for that alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from conformance.abi.header import members
from conformance.candidates.load import Candidate, load
from conformance.candidates.promised import entry_points
from conformance.commands import main as cli
from conformance.commands.new import LANGUAGES, contents
from conformance.engines.campaign import Walker
from conformance.engines.context import Context
from conformance.runs.watchdog import watching
from conformance.scaffold.parts import plan
from conformance.subsystem import available, subsystem
from conformance.verdict import Exit, Failure
from conformance.wire.values import methods

FORMS = [(name, language) for name in available() for language in LANGUAGES]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)


def first_failure(of_name: str, candidate: Candidate) -> Failure:
    """What random walks find first."""
    of = subsystem(of_name)
    context = Context(candidate.part(of), candidate, candidate.profile, stop_at_first=True)
    walker = Walker(context, Random(1))
    walker.sample_pools()
    with watching():
        for _ in range(100):
            walker.walk()
            if context.failures:
                return context.failures[0]
    raise AssertionError("nothing is wrong with it")


@pytest.mark.parametrize(("name", "language"), FORMS)
def test_a_new_candidate_loads_and_fails_honestly(name: str, language: str, tmp_path: Path) -> None:
    """For what it does not do, not for a crash or a value of a wrong type."""
    if language == "c":
        pytest.importorskip("cffi")
        if shutil.which("cc") is None:
            pytest.skip("there is no C compiler")
    assert cli.invoke(("new", name, "--lang", language, "made")) == Exit.CONFORMS
    folder = tmp_path / "made"
    if language == "c":
        subprocess.run(["make", "-s", "-C", folder], check=True)
    spec = {
        "python": f"{folder}/driver.py:Driver",
        "c": f"lib:{folder}/driver.so",
        "command": f"cmd:{sys.executable} {folder}/driver.py",
    }[language]

    candidate = load(spec, subsystem(name))
    failure = first_failure(name, candidate)
    if language == "command":
        candidate.factory.end()  # type: ignore[attr-defined]

    assert failure.kind not in ("crash", "hang", "type")
    assert not failure.flaky


@pytest.mark.parametrize("name", available())
def test_every_entry_point_and_call_is_written_down(name: str) -> None:
    """With all capabilities, in each language; the README lists the environment calls."""
    of = subsystem(name)
    whole = plan(of, frozenset(of.capabilities))
    entries = {entry for entry, _, _ in entry_points(of, whole.capabilities)}

    python = contents(whole, "python")

    assert set(re.findall(r"    def (\w+)\(", python["driver.py"])) - {"__init__"} == entries
    besides = {"create", "destroy", "tags_pass", "irq_routing"}
    assert {member.name for member in members(name, "driver")} - besides == entries
    assert set(re.findall(r"driver_(\w+)\(", contents(whole, "c")["driver.c"])) - {"create", "destroy"} == entries
    assert set(re.findall(r"(?m)^\| `(\w+)\(", python["README.md"])) == entries | set(methods(of.port))
    for method in methods(of.port).values():
        assert " ".join(method.doc.split()).replace("|", "\\|") in python["README.md"]
    assert f"conformance.specs.{name}.constants" in python["README.md"]
    assert f"abi/{name}_constants.h" in contents(whole, "c")["README.md"]


def test_what_is_written_is_neat(tmp_path: Path) -> None:
    """As the project's own linters see it, but for rules of its own."""
    for name in available():
        assert cli.invoke(("new", name, name)) == Exit.CONFORMS

    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,I,UP,B",
        "--line-length",
        "121",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    if "No module named ruff" in done.stderr:
        pytest.skip("ruff is not installed")
    assert done.returncode == 0, done.stdout


def test_the_test_file_holds_the_candidate_to_the_specification(tmp_path: Path) -> None:
    """It fails for the first clause that is broken, with the command that repeats it."""
    assert cli.invoke(("new", "uio_msi", "made")) == Exit.CONFORMS

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "made/test_driver.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=_environment())

    assert done.returncode == 1
    assert re.search(r"UIO-\d+ violated by \S*Driver", done.stdout)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_a_folder_that_has_something_in_it_is_left_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """And an unknown capability is refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")

    codes = [cli.invoke(("new", "avic", "mine")), cli.invoke(("new", "avic", "other", "--capability", "layers-r"))]
    said = capsys.readouterr().err.splitlines()

    assert codes == [Exit.USAGE, Exit.USAGE]
    assert said[0] == "conformance: mine: is there already, and not an empty folder"
    assert said[1] == "conformance: --capability=layers-r: avic knows no such capability; did you mean 'layer-r'?"
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]


@pytest.mark.parametrize("was_there", [False, True])
def test_a_folder_that_cannot_be_written_is_asked_wrongly(
    was_there: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One sentence, and nothing half done is left: it can be asked for again."""
    written: list[Path] = []

    def full(path: Path, text: str) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)

    monkeypatch.setattr("conformance.commands.new.write_atomically", full)
    if was_there:
        (tmp_path / "mine").mkdir()

    code = cli.invoke(("new", "uio_msi", "mine"))

    assert code == Exit.USAGE
    assert capsys.readouterr().err == "conformance: mine: No space left on device\n"
    assert len(written) == 3
    assert not any(path.exists() for path in (tmp_path / "mine").rglob("*"))
