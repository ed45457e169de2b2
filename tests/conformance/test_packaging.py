"""What is installed, what hides it, and whether the README's example is what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from conformance import __main__ as program
from conformance.commands import main as cli
from conformance.reports.version import SUITE

ROOT = Path(__file__).parent.parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """An interpreter of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_reports_name_the_version_that_is_packaged() -> None:
    """One version, in two places that must agree."""
    assert f"{PYPROJECT['project']['name']} {PYPROJECT['project']['version']}" == SUITE


def test_it_cannot_be_uploaded_by_mistake() -> None:
    """Package indexes refuse what carries this classifier."""
    assert "Private :: Do Not Upload" in PYPROJECT["project"]["classifiers"]


def test_all_holds_every_other_extra() -> None:
    """Nobody has to list them."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]

    assert set(re.findall(r"\w+", everything)) - {"conformance"} == set(extras) - {"all"}


def test_the_console_script_is_the_command_line() -> None:
    """What pyproject names is there."""
    assert PYPROJECT["project"]["scripts"] == {"conformance": f"{program.__name__}:{program.main.__name__}"}


def test_the_users_own_modules_hide_nothing(tmp_path: Path) -> None:
    """Most projects have a `model`; it stays theirs, and ours is found beside it."""
    for name in ("model", "specs", "strategies"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('somebody imported this')\n")

    done = python("-m", "conformance", "list", cwd=tmp_path, PYTHONPATH=str(ROOT))

    assert done.returncode == 0, done.stderr


def test_it_runs_from_any_directory(tmp_path: Path) -> None:
    """Only the import path must lead to it."""
    done = python("-m", "conformance", "--version", cwd=tmp_path, PYTHONPATH=str(ROOT))

    assert (done.returncode, done.stdout) == (0, f"{SUITE}\n")


def test_a_missing_optional_package_takes_one_subsystem_away(tmp_path: Path) -> None:
    """The others are there, and one line says what the missing one needs."""
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')\n")

    done = python("-m", "conformance", "list", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    asked = python("-m", "conformance", "list", "snp_guest_request", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")

    assert done.returncode == 0, done.stderr
    assert "snp_guest_request is left out: snp_guest_request needs the package 'cryptography'" in done.stderr
    assert "96 clauses UIO-001 to UIO-096" in done.stdout
    assert (asked.returncode, len(asked.stderr.splitlines())) == (2, 1)


def test_the_readmes_driver_is_the_example() -> None:
    """What the reader copies is what the tests run."""
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    assert block == (ROOT / "examples" / "uio_minimal.py").read_text()


def test_the_readmes_driver_fails_as_the_readme_says(tmp_path: Path) -> None:
    """The failure shown is the one that is printed; which of the worlds shows it first may change."""
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "uio_minimal.py").write_text(block)

    done = python(
        *("-m", "conformance", "run", "uio_msi", "--candidate", "examples/uio_minimal.py:Minimal"),
        *("--engine", "explore", "-k", "UIO-047"),
        cwd=tmp_path,
        PYTHONPATH=str(ROOT),
    )

    assert done.returncode == 1, done.stderr
    lines = [line for line in shown.splitlines() if not re.match(r"  (world|calls|repeat) |   ", line)]
    assert len(lines) == 7
    assert [line for line in lines if line not in done.stdout.splitlines()] == []


def test_the_readme_knows_every_exit_code_and_every_command() -> None:
    """It cannot fall behind."""
    codes = [int(code) for code in re.findall(r"^\| (\d) \|", README, re.MULTILINE)]

    assert codes == [0, 1, 2, 3, 4, 5, 6]
    assert [name for name in cli.cli.commands if f"conformance {name}" not in README] == []
