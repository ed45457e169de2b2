"""The pytest plugin: items, verdicts and exit status, alone and with workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads((ROOT / "conformance" / "reports" / "report.schema.json").read_text())
SMALL = ("-k", "uio_msi.campaign.2 or uio_msi.machine")
"""Two engines that take little time."""


def run(*arguments: str, cwd: Path = ROOT) -> tuple[int, str]:
    """(exit status, output) of a pytest of its own, in the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT / "conformance"), "-p", "no:cacheprovider", *arguments],
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_correct_candidate_passes(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Items by unit, verdicts in the summary, and a report: the same with workers."""
    path = tmp_path / "report.jsonl"

    status, out = run(
        *SMALL, *workers, "--candidate", "uio_msi=builtin:upstream", "--conformance-report", f"json:{path}"
    )

    assert status == 0, out
    assert "uio_msi: builtin:upstream, profile upstream" in out
    assert "\nexit 0: uio_msi: conforms: " in out
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    assert (lines[0]["candidate"], lines[-1]["exit"]) == ("builtin:upstream", 0)


def test_a_wrong_candidate_fails_with_the_text_of_its_failures() -> None:
    """The item shows what the command line would."""
    status, out = run(*SMALL, "-n", "2", "--candidate", "uio_msi=builtin:UIO-D05")

    assert status == 1
    assert "UIO-078 violated by builtin:UIO-D05 at step 1 of 1" in out
    assert "exit 1: uio_msi: does not conform: " in out
    assert "Traceback" not in out


def test_items_are_named_by_their_unit() -> None:
    """Subsystem, engine and part; other folders are not collected twice."""
    status, out = run("--collect-only", "-q", "--candidate", "uio_msi=builtin:upstream")

    assert status == 0
    names = [line.rpartition("::")[2] for line in out.splitlines() if "::" in line]
    assert names == [
        *("uio_msi.explore", "uio_msi.interleave.1", "uio_msi.interleave.2"),
        *("uio_msi.campaign.1", "uio_msi.campaign.2", "uio_msi.machine"),
    ]


def test_a_candidate_that_is_not_there_is_a_usage_error() -> None:
    """pytest's own exit status for usage is 4; one line, nothing runs."""
    status, out = run("--candidate", "uio_msi=builtin:upstraem")

    assert status == 4
    assert "ERROR: --candidate=builtin:upstraem: uio_msi ships no 'upstraem'; did you mean 'upstream'?" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_report_that_cannot_be_written_is_refused(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Before anything runs, with workers too."""
    status, out = run(*SMALL, *workers, "--conformance-report", "json:/proc/report.jsonl")
    other, says = run(*SMALL, *workers, "--conformance-report", f"json:{tmp_path}/no/report.jsonl")

    assert (status, other) == (4, 4), out
    assert "ERROR: --report=json:/proc/report.jsonl: " in out
    assert f"there is no directory {tmp_path}/no" in says


def test_a_hunt_says_how_to_repeat_it() -> None:
    """All workers use the seed that the controller chose."""
    status, out = run(
        *("-k", "uio_msi.campaign", "-n", "2"),
        *("--candidate", "uio_msi=builtin:upstream", "--conformance-budget", "2s", "--conformance-seed", "5"),
    )

    assert status == 0, out
    assert "repeat this hunt with --conformance-seed 5" in out
