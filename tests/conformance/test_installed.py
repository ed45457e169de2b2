"""The wheel, in an environment of its own, beside a user's project with a `model`, `specs`, `strategies` itself."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import yaml

from conformance.baseline import file as files
from conformance.baseline.entry import Entry
from conformance.runs.request import Request, units
from conformance.specs.uio_msi import CLAUSES

ROOT = Path(__file__).parents[2]
DRIVER = """
from conformance.candidates.builtin.uio_msi import CANDIDATES

import helper
import model

assert (helper.WHAT, model.WHAT) == ("a sibling", "the user's")


class Driver(CANDIDATES["upstream"]):
    pass
"""


def command(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command whose environment names nothing of this checkout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON", "TOX"))}
    return subprocess.run(
        words,
        cwd=cwd,
        env={**clean, "NO_COLOR": "1", **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    done = command(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The bin folder of an environment with the wheel; what it depends on is lent by ours."""
    home = wheel.parent / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    done = command(
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)),
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    site = Path(
        command(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).stdout[:-1]
    )
    (site / "lent.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return home / "bin"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Most projects have a `model`; this one has all three, a driver in a folder of its own, and a test."""
    for name in ("model", "specs", "strategies"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not of the suite')\n")
    source = tmp_path / "src"
    source.mkdir()
    (source / "driver.py").write_text(DRIVER)
    (source / "helper.py").write_text("WHAT = 'a sibling'\n")
    (source / "model.py").write_text("""WHAT = "the user's"\n""")
    (tmp_path / "test_theirs.py").write_text("def test_theirs():\n    assert True\n")
    return tmp_path


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    """What it puts at the top of site-packages hides nobody's modules."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"conformance"}
    for inside in (
        "specs/clause.py",
        "model/step.py",
        "strategies/domain.py",
        "reports/report.schema.json",
        "corpus/uio_msi/view-lost.json",
    ):
        assert f"conformance/{inside}" in names


@pytest.mark.parametrize("how", ["conformance", "python -m conformance"])
def test_it_runs_beside_the_users_modules(installed: Path, project: Path, how: str) -> None:
    """As a command and as a module, with a candidate that imports what lies beside it."""
    program, *words = how.split()

    done = command(
        *(str(installed / program), *words, "run", "uio_msi", "--candidate", "src/driver.py:Driver"),
        *("--engine", "campaign", "-k", "UIO-047"),
        cwd=project,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    others = len(CLAUSES) - 1
    assert f"conforms: 1 clauses passed, the other {others} were not judged" in done.stdout


def test_pytest_runs_in_the_users_project(installed: Path, project: Path) -> None:
    """The plugin is there without being named, and needs none of our settings."""
    done = command(
        *(str(installed / "python"), "-m", "pytest", "--candidate", "uio_msi=src/driver.py:Driver"),
        *("-k", "uio_msi.campaign.2 or test_theirs", "-n", "2"),
        cwd=project,
    )

    assert done.returncode == 4, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "exit 4: uio_msi: inconclusive: no failure in the part of the work that was done" in done.stdout


WRONG = """
from conformance.candidates.defects.uio_msi import DEFECTS

(Driver,) = [defect.candidate for defect in DEFECTS if defect.id == "UIO-D27"]
"""
KNOWN = Entry(
    clause="UIO-060",
    signature="UIO-060:Probe:result",
    subsystem="uio_msi",
    candidate="src/driver.py:Driver",
    profile="upstream",
    first_seen=date(2026, 3, 2),
    last_seen=date(2026, 3, 2),
    ticket="T-1",
    trace='{"schema": 1, "subsystem": "uio_msi", "steps": [{"op": "Probe", "answers": {"ioremap": -12}}]}',
)
RECIPES = (ROOT / "docs" / "ci.md").read_text()


def recipe(title: str) -> str:
    """The example of a section of docs/ci.md."""
    section = RECIPES[RECIPES.index(f"## {title}\n") :]
    return section.split("```")[1].partition("\n")[2]


def conformance_commands(listed: str) -> list[list[str]]:
    """The words of the suite's own commands in a file for CI."""
    scripts = [str(script) for script in _values(yaml.safe_load(listed))]
    return [shlex.split(script)[1:] for script in scripts if script.startswith("conformance run ")]


def _values(data: object) -> Iterator[object]:
    if isinstance(data, dict):
        yield from (value for item in data.values() for value in _values(item))
    elif isinstance(data, list):
        yield from (value for item in data for value in _values(item))
    else:
        yield data


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's repository with a driver that has one defect, and the recipe for tox."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "driver.py").write_text(WRONG)
    (tmp_path / "tox.ini").write_text(recipe("tox"))
    known = files.new(tmp_path / "conformance.toml")
    known.put([KNOWN])
    known.write()
    (tmp_path / "test_theirs.py").write_text("def test_theirs():\n    assert True\n")
    return tmp_path


@pytest.mark.gates
def test_the_recipes_for_tox_and_pytest_work(wheel: Path, installed: Path, repository: Path) -> None:
    """As they stand in docs/ci.md, in a repository of a user's: tox with what pip finds for the wheel."""
    tox = command(sys.executable, "-m", "tox", "run", cwd=repository, CONFORMANCE=str(wheel))
    program, *words = shlex.split(recipe("pytest"))
    assert program == "pytest"
    tested = command(str(installed / "python"), "-m", "pytest", *words, cwd=repository)

    assert tox.returncode == 0, tox.stdout + tox.stderr
    assert "exit 0: uio_msi: nothing new: " in tox.stdout
    assert "UIO-060:Probe:result: T-1" in tox.stdout
    assert tested.returncode == 0, tested.stdout + tested.stderr
    done = len(units(Request((("uio_msi", ""),)))) + 1
    assert f"{done} passed, 1 xfailed" in tested.stdout, "all units, and the test of theirs"
    for name in ("conformance.xml", "conformance-pytest.xml"):
        assert "known" in (repository / name).read_text()


@pytest.mark.parametrize("title", ["GitHub", "GitLab"])
def test_the_commands_of_the_other_recipes_are_understood(installed: Path, repository: Path, title: str) -> None:
    """Up to where the run would begin: it ends at a pattern that matches nothing, after all else was read."""
    listed = conformance_commands(recipe(title))

    assert listed
    for words in listed:
        named = [word.replace("$GITHUB_STEP_SUMMARY", "summary.md") for word in words]
        done = command(str(installed / "conformance"), *named, "-k", "NONE-*", cwd=repository)
        assert (done.returncode, done.stderr) == (
            2,
            "conformance: -k NONE-*: matches no clause; known: " + done.stderr.rpartition("known: ")[2],
        )
