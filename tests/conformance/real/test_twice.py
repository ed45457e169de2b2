"""What is asked of a real implementation twice gets the same verdict, to how often each clause was exercised."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.load import load
from conformance.commands.main import invoke
from conformance.subsystem import subsystem
from conformance.verdict import UsageError

_OF_TIME = re.compile("second|_at$")


def told(path: Path) -> list[Any]:
    """What a report has, but for times."""
    return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(found) for name, found in value.items() if not _OF_TIME.search(name)}
    return [_timeless(found) for found in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("of", "name"), [("cet", "bochs-cet"), ("avic", "kvm-lapic")])
def test_two_runs_report_the_same(of: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped traces; the whole gate differs in length alone."""
    try:
        load(f"real:{name}", subsystem(of))
    except UsageError as error:
        pytest.skip(str(error))
    command = ["run", of, "--candidate", f"real:{name}", "-n", "1", "--engine", "corpus"]
    command += ["--traces", str(tmp_path / "traces")]

    codes = [invoke([*command, "--report", f"json:{tmp_path / run}"]) for run in ("first", "second")]

    assert codes[0] in (0, 4), capsys.readouterr().out
    assert codes[0] == codes[1]
    first, second = told(tmp_path / "first"), told(tmp_path / "second")
    assert first == second
    assert any(line.get("verdict") == "pass" and line["exercised"] for line in first)
