"""What is looked at before the first run, and what each check that fails says to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conformance.commands.doctor import doctor
from conformance.commands.new import new
from conformance.runs import checkup
from conformance.runs.checkup import Check, Checkup, checkup_job
from conformance.runs.workers import Tell
from conformance.subsystem import available
from conformance.verdict import Exit

HEAD = """import itertools, os
from conformance.candidates.builtin.uio_msi import CANDIDATES
TAGS = itertools.count()
class Uio(CANDIDATES['upstream']):
"""


def written(folder: Path, body: str) -> str:
    """The spec of a driver that is correct but for this."""
    (folder / "driver.py").write_text(HEAD + body)
    return f"{folder}/driver.py:Uio"


def silent(*_told: object) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks, of which a few are enough."""
    monkeypatch.setattr(checkup, "WALKS", 8)


def looked_at(spec: str, name: str = "uio_msi", tell: Tell = silent) -> dict[str, Check]:
    """Each check by its name."""
    return {check.name: check for check in checkup_job(Checkup(name, spec, None), tell)}


@pytest.mark.parametrize("name", ["uio_msi", "cet", "avic", "snp_guest_request", "tdp_mirror"])
def test_a_correct_candidate_is_plugged_in(name: str) -> None:
    """Every check is made, and holds."""
    checks = looked_at("builtin:upstream", name)

    assert tuple(checks) == checkup.CHECKS
    assert all(check.ok for check in checks.values())


@pytest.mark.parametrize("name", available())
def test_a_candidate_that_has_everything_to_do_is_plugged_in(name: str, tmp_path: Path) -> None:
    """As `conformance new` writes it: the run says what to begin with, the plumbing is not blamed for it."""
    said: list[str] = []
    new(name, "python", tmp_path / "made", (), silent)

    ending = doctor(name, f"{tmp_path}/made/driver.py:Driver", None, said.append)

    assert ending.exit is Exit.CONFORMS, said
    assert any("-ENOSYS" in line or "no world yet" in line for line in said)


def test_waiting_for_a_processor_is_not_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others take of the machine is not the candidate's."""
    waited = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(checkup, "_waited", lambda: float(next(waited)))

    check = looked_at("builtin:upstream")["speed"]

    assert check.ok
    assert 1_000 < int(check.said.split()[0].replace(",", "")) < 1_000_000


BROKEN = {
    "starts": ("    def __init__(self, port):\n        raise RuntimeError('no')\n", "no at driver.py:6", "constructor"),
    "answers": ("    def open(self):\n        return None\n", "open returned None", "specs/uio_msi/port.py"),
    "environment": (
        "    def __init__(self, port):\n        pass\n    def probe(self, *_):\n        return -5\n",
        "no call came through",
        "through the port",
    ),
    "same trace": (
        "    def probe(self, *args):\n        return super().probe(*args) if next(TAGS) % 2 else -5\n",
        "step 1: probe() -> -EIO",
        "keep all state in the object",
    ),
    "two starts": (
        "    def __init__(self, port):\n        self.port = port; next(TAGS) % 2 and port.pci_msix_vec_count()\n",
        "at the start: pci_msix_vec_count()",
        "keep all state in the object",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_can_fail(name: str, tmp_path: Path) -> None:
    """And says what is wrong, and what to do."""
    body, said, do = BROKEN[name]

    check = looked_at(written(tmp_path, body))[name]

    assert not check.ok
    assert said in check.said
    assert do in check.do


def test_a_slow_candidate_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how long the gate would take."""
    monkeypatch.setattr(checkup, "SLOW", 1e9)

    check = looked_at("builtin:upstream")["speed"]

    assert not check.ok
    assert "the gate takes more than" in check.said
    assert "cProfile" in check.do


def test_a_slow_program_is_told_to_profile_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile of the suite's process shows nothing of what happens in another one."""
    monkeypatch.setattr(checkup, "SLOW", 1e9)
    monkeypatch.setattr(checkup, "ENOUGH", 1)

    check = looked_at(f"cmd:{sys.executable} -m conformance.wire.serve uio_msi builtin:upstream")["speed"]

    assert not check.ok
    assert "profile the program" in check.do
    assert "cProfile" not in check.do


def test_each_check_is_told_when_it_is_done() -> None:
    """So that whoever listens knows how far it came, if the process ends."""
    told: list[str] = []

    checks = looked_at("builtin:UIO-U03", tell=lambda *words: told.extend(data["name"] for data in words[3:]))

    assert told == list(checks)


def test_a_candidate_that_ends_its_process_is_reported(tmp_path: Path) -> None:
    """By the check that it did not survive; what was found before stands."""
    said: list[str] = []
    spec = written(tmp_path, "    def open(self):\n        os._exit(3)\n")

    ending = doctor("uio_msi", spec, None, said.append)

    assert ending.exit is Exit.DOES_NOT_CONFORM
    assert [line.split()[:2] for line in said] == [
        ["uio_msi:", spec],
        ["ok", "loads"],
        ["ok", "starts"],
        ["FAIL", "answers"],
    ]
    assert "its process ended with exit code 3" in said[-1]


def test_what_cannot_be_loaded_says_why() -> None:
    """In the sentence that a run would say."""
    said: list[str] = []

    ending = doctor("uio_msi", "nowhere.py:Uio", None, said.append)

    assert ending.exit is Exit.USAGE
    assert "there is no file nowhere.py" in said[1]
    assert "conformance new uio_msi" in said[1]
