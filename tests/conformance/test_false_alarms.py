"""Traces that once accused a correct candidate, each for a mistake of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.candidates.load import load
from conformance.engines import corpus
from conformance.lockstep import run_trace
from conformance.subsystem import available, subsystem

TRACES = Path(__file__).resolve().parents[1] / "traces"


@pytest.mark.parametrize("path", corpus.files(TRACES), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_correct_candidate_is_not_accused_again(path: Path) -> None:
    """The folder is named for the subsystem; the file for what was misunderstood."""
    trace = corpus.read(path)
    assert trace.subsystem in available()
    of = subsystem(trace.subsystem)

    report = run_trace(of, trace, load("builtin:upstream", of).factory)

    assert report.failure is None
