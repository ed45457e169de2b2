"""A candidate that is a process: judged as any other, whatever it does."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from conformance.candidates.load import defects, load
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.engines.corpus import SHIPPED
from conformance.environment import door, scheduler
from conformance.lockstep import Report, run_trace
from conformance.subsystem import NAMES, subsystem
from conformance.trace import Trace
from tests.ship_corpus import file_of
from tests.wire import as_process


def signatures(report: Report) -> list[str]:
    """What a trace shows of a candidate."""
    return [found.signature for found in [*report.warnings, *([report.failure] if report.failure else [])]]


def floods(trace: Trace) -> bool:
    """Whether it has an operation that is a thousand."""
    return any(type(step.op).__name__ == "Flood" for step in trace.steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_defect_shows_in_a_process_what_it_shows_in_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clauses, operations and kinds, on the trace that the corpus has of it."""
    monkeypatch.setattr(door, "CALL_BUDGET", 5_000)
    monkeypatch.setattr(scheduler, "POINT_BUDGET", 5_000)
    of = subsystem(name)
    differing = {}
    for defect in defects(name):
        path = file_of(name, defect)
        if defect.candidate is None or path is None:
            continue
        trace = corpus.read(path)
        python, process = load(f"builtin:{defect.id}", of), as_process(defect.candidate, of)

        here, there = (signatures(run_trace(of, trace, one.factory)) for one in (python, process))

        process.factory.end()
        if here != there:
            differing[defect.id] = (here, there)
    assert differing == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_right_driver_passes_all_shipped_traces_in_one_process(name: str) -> None:
    """One instance after the other, without a new start."""
    of = subsystem(name)
    upstream = load("builtin:upstream", of)
    process = as_process(upstream.factory, of)
    first = process.factory.child.pid
    wrong = {}

    for path in corpus.files(SHIPPED / name):
        trace = corpus.read(path)
        if not lacking(of, trace, upstream.capabilities) and not floods(trace):
            report = run_trace(of, replace(trace, profile=upstream.profile), process.factory)
            if report.failure is not None:
                wrong[path.name] = report.failure

    assert wrong == {}
    assert process.factory.child.pid == first
    process.factory.end()
    gc.collect()
