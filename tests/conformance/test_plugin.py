"""The pytest plugin: items, verdicts and exit status, alone and with workers, in a project of the user's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance.baseline import file as files
from conformance.baseline.entry import Entry
from conformance.commands import corpus
from tests.report_schema import SCHEMED

ROOT = Path(__file__).parent.parent.parent
SMALL = ("-m", "conformance", "-k", "uio_msi.campaign.2 or uio_msi.corpus")
"""Two engines that take little time."""

CANDIDATE = ("--candidate", "uio_msi=builtin:upstream")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that knows nothing of ours, with a test of its own and no settings."""
    (tmp_path / "test_theirs.py").write_text("def test_theirs():\n    assert True\n")
    return tmp_path


def run(project: Path, *arguments: str) -> tuple[int, str]:
    """(exit status, output) of a pytest of its own, in the project."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conformance.plugin", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST")},
            "NO_COLOR": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_part_of_the_work_finds_nothing_and_says_that_it_is_a_part(project: Path, workers: tuple[str, ...]) -> None:
    """Items by unit, verdicts in the summary, and a report: the same with workers."""
    path = project / "report.jsonl"

    status, out = run(
        project, *SMALL, *workers, "--candidate", "uio_msi=builtin:upstream", "--conformance-report", f"json:{path}"
    )

    assert status == 4, out
    assert "uio_msi: builtin:upstream, profile upstream" in out
    assert "\nexit 4: uio_msi: inconclusive: no failure in the part of the work that was done, " in out
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        SCHEMED.validate(line)
    assert (lines[0]["candidate"], lines[-1]["exit"]) == ("builtin:upstream", 4)


def test_a_wrong_candidate_fails_with_the_text_of_its_failures(project: Path) -> None:
    """The item shows what the command line would."""
    status, out = run(project, *SMALL, "-n", "2", "--candidate", "uio_msi=builtin:UIO-D05")

    assert status == 1
    assert "UIO-078 violated by builtin:UIO-D05 at step 1 of 1" in out
    assert "exit 1: uio_msi: does not conform: " in out
    assert "Traceback" not in out


def test_units_stand_beside_the_projects_own_tests(project: Path) -> None:
    """Nobody has to name a file of ours; without a candidate nothing is added."""
    both = run(project, "--collect-only", "-q", *CANDIDATE)[1]
    alone = run(project, "--collect-only", "-q")[1]

    assert both.splitlines()[0] == "conformance::uio_msi.corpus"
    assert "test_theirs.py::test_theirs" in both
    assert alone.splitlines()[0] == "test_theirs.py::test_theirs"


def test_an_option_without_a_candidate_is_a_usage_error(project: Path) -> None:
    """Otherwise a mistyped job would be green."""
    status, out = run(project, "--conformance-seed", "0")

    assert status == 4
    assert "ERROR: --conformance-seed: needs --candidate SUBSYSTEM=SPEC" in out


def test_a_run_without_a_candidate_does_not_import_the_suite(project: Path) -> None:
    """The plugin is loaded wherever the suite is installed; it must cost nothing there."""
    (project / "test_theirs.py").write_text(
        "import sys\n\ndef test_theirs():\n    assert 'conformance.subsystem' not in sys.modules\n"
    )

    assert run(project)[0] == 0


def test_items_are_named_by_their_unit(project: Path) -> None:
    """Subsystem, engine and part."""
    status, out = run(project, "--collect-only", "-q", "-m", "conformance", "--candidate", "uio_msi=builtin:upstream")

    assert status == 0
    names = [line.rpartition("::")[2] for line in out.splitlines() if "::" in line]
    assert names == [
        *("uio_msi.corpus", "uio_msi.explore", "uio_msi.interleave.1", "uio_msi.interleave.2"),
        *("uio_msi.campaign.1", "uio_msi.campaign.2"),
        *(f"uio_msi.machine.{part}" for part in (1, 2, 3, 4)),
    ]


def test_a_candidate_that_is_not_there_is_a_usage_error(project: Path) -> None:
    """pytest's own exit status for usage is 4; one line, nothing runs."""
    status, out = run(project, "--candidate", "uio_msi=builtin:upstraem")

    assert status == 4
    assert "ERROR: --candidate=builtin:upstraem: uio_msi ships no 'upstraem'; did you mean 'upstream'?" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_report_that_cannot_be_written_is_refused(project: Path, workers: tuple[str, ...]) -> None:
    """Before anything runs, with workers too."""
    status, out = run(project, *SMALL, *workers, *CANDIDATE, "--conformance-report", "json:/proc/report.jsonl")
    other, says = run(project, *SMALL, *workers, *CANDIDATE, "--conformance-report", f"json:{project}/no/report.jsonl")

    assert (status, other) == (4, 4), out
    assert "ERROR: --conformance-report=json:/proc/report.jsonl: " in out
    assert f"there is no directory {project}/no" in says


def test_a_hunt_says_how_to_repeat_it(project: Path) -> None:
    """All workers use the seed that the controller chose."""
    status, out = run(
        project,
        *("-k", "uio_msi.campaign", "-n", "2"),
        *("--candidate", "uio_msi=builtin:upstream", "--conformance-budget", "0.5s", "--conformance-seed", "5"),
    )

    assert status == 4, out
    assert "repeat this hunt with --conformance-seed 5" in out


def baseline(project: Path, candidate: str) -> Entry:
    """A baseline with the failure of UIO-D05, as one of another candidate."""
    report = project / "found.jsonl"
    run(project, "-k", "campaign.2", "--candidate", KNOWN, "--conformance-report", f"json:{report}")
    found = [json.loads(line) for line in report.read_text().splitlines()]
    (failure,) = [line for line in found if line["kind"] == "failure"]
    entry = Entry(
        clause=failure["clause"],
        signature=failure["signature"],
        subsystem="uio_msi",
        candidate=candidate,
        profile="upstream",
        first_seen=date(2026, 3, 2),
        last_seen=date(2026, 3, 2),
        reason="to be freed",
        ticket="T-1",
        trace=json.dumps(failure["trace"]),
    )
    listed = files.new(project / "known.toml")
    listed.put([entry])
    listed.write()
    return entry


KNOWN = "uio_msi=builtin:UIO-D05"


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_known_failure_is_expected_and_stands_in_junit(project: Path, workers: tuple[str, ...]) -> None:
    """An item for the baseline, before the others, which know what it knows wherever they run."""
    entry = baseline(project, "builtin:UIO-D05")

    status, out = run(
        project,
        *("-k", "uio_msi.baseline or uio_msi.campaign.2", "--junitxml", "junit.xml", *workers),
        *("--candidate", KNOWN, "--baseline", "known.toml"),
    )

    assert status == 4, out  # for the MUSTs that a part of the work does not exercise
    assert re.search(r"1 passed, (\d+ deselected, )?1 xfailed", out)
    assert "violated by" not in out
    assert f"known     {entry.signature}: to be freed, T-1" in out
    cases = ElementTree.parse(project / "junit.xml").getroot().iter("skipped")  # noqa: S314 - pytest's own
    assert [case.get("message") for case in cases] == [f"1 known: {entry.signature} (to be freed, T-1)"]


@pytest.mark.gates
def test_a_fixed_failure_ends_with_the_command_lines_exit_status(project: Path) -> None:
    """Where nothing else failed: 6, and the lines to delete."""
    entry = baseline(project, "builtin:upstream")

    status, out = run(project, "-n", "2", *CANDIDATE, "--baseline", "known.toml")

    assert status == 6, out
    assert f"{entry.signature} no longer fails: {entry.id} (known.toml:5-" in " ".join(out.split())
    assert f"exit 6: uio_msi: the baseline needs attention: 1 no longer fails ({entry.id})" in out


def test_a_baseline_that_is_not_there_is_a_usage_error(project: Path) -> None:
    """With the line that records it."""
    status, out = run(project, *SMALL, *CANDIDATE, "--baseline", "no.toml")

    assert status == 4
    assert "there is no such file; this records it:" in out
    assert "baseline update no.toml uio_msi --candidate builtin:upstream --accept --expires 90d" in out


def test_a_hunt_adds_to_the_corpus(project: Path) -> None:
    """What workers find is kept by the controller, once, and tried from then on."""
    corpus.init(project / "traces")
    given = ("--candidate", "uio_msi=builtin:UIO-D05", "--conformance-corpus", "traces")

    run(project, "-k", "uio_msi.campaign", "-n", "2", *given, "--conformance-budget", "0.5s")
    added = [path.name for path in (project / "traces" / "uio_msi").iterdir()]
    status, out = run(project, "-k", "uio_msi.corpus", *given)

    assert len(added) == len({name.rsplit("-", 1)[0] for name in added}) >= 1
    assert any(name.startswith("UIO-078-Probe-crash-") for name in added)
    assert status == 1
    assert "UIO-078 violated by builtin:UIO-D05 at step 1 of 1" in out


def test_a_corpus_that_is_not_there_is_a_usage_error(project: Path) -> None:
    """As on the command line."""
    status, out = run(project, "--candidate", "uio_msi=builtin:upstream", "--conformance-corpus", "traces")

    assert status == 4
    assert "--conformance-corpus=traces: there is no such folder; `conformance corpus init traces` makes" in out


def test_a_candidate_that_ends_its_process_is_found_out(project: Path) -> None:
    """With the step that does it, as on the command line."""
    (project / "dying.py").write_text(
        "import os\n\nfrom conformance.candidates.builtin.uio_msi import CANDIDATES\n\n\n"
        "class Dying(CANDIDATES['upstream']):\n"
        "    def open(self):\n"
        "        os._exit(0)\n"
    )

    status, out = run(project, "-k", "uio_msi.corpus", "--candidate", "uio_msi=dying.py:Dying")

    assert status == 1, out
    assert "step 2    open(rawio=True) did not end" in out
    assert "because   its process ended with exit code 0" in out
