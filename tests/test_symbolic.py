"""CrossHair looks for values that break the properties of the pure parts in `tests/symbolic/`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("crosshair", reason="CrossHair is not installed: pip install 'conformance[symbolic]'")

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1
"""Processor time for one property."""


def crosshair(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run CrossHair in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "crosshair", *arguments, f"--per_condition_timeout={SECONDS}"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """CrossHair's answer: exit 0 when it found no counterexample, 1 when it found one."""
    return crosshair("check", "--analysis_kind=asserts", str(path))


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "symbolic").glob("*.py")), ids=lambda path: path.stem)
def test_no_value_breaks_a_property(path: Path) -> None:
    """For each property, as far as the time allows."""
    answer = check(path)

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_wrong_property_is_broken(tmp_path: Path) -> None:
    """The search is not vacuous: it solves for the one command that a false claim forgets."""
    claim = tmp_path / "claim.py"
    claim.write_text(
        "from tests.symbolic.uio_msi import _OPENED, ENOTTY, NOTHING_REFUSED, UPSTREAM\n"
        "from tests.symbolic.uio_msi import RawIoctl, _only, raw_ioctl\n\n\n"
        "def every_command_is_unknown(cmd: int) -> None:\n"
        "    assert 0 <= cmd < 2**32\n"
        "    outcome = _only(raw_ioctl(_OPENED, RawIoctl(cmd), NOTHING_REFUSED, UPSTREAM))\n"
        "    assert outcome.result == -ENOTTY\n"
    )

    answer = check(claim)

    assert answer.returncode == 1
    assert str(0x40084987) in answer.stdout


@pytest.mark.parametrize("name", ["mask", "flat_index", "cluster_index"])
def test_the_posted_avic_arithmetic_differs_from_the_specification(name: str) -> None:
    """`crosshair diffbehavior` finds a value for which the posted driver computes something else."""
    pair = [f"tests.symbolic.pairs.avic.{design}_{name}" for design in ("specified", "posted")]

    answer = crosshair("diffbehavior", *pair)

    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert f"posted_{name} : returns" in answer.stdout
