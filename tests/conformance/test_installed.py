"""The wheel, in an environment of its own, beside a user's project with a `model`, `specs`, `strategies` itself."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRIVER = """
from conformance.candidates.builtin.uio_msi import CANDIDATES

import helper
import model

assert (helper.WHAT, model.WHAT) == ("a sibling", "the user's")


class Driver(CANDIDATES["upstream"]):
    pass
"""


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command whose environment names nothing of this checkout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
    return subprocess.run(
        words,
        cwd=cwd,
        env={**clean, "NO_COLOR": "1"},
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
    assert "conforms: 1 clauses passed, the other 89 were not judged" in done.stdout


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
