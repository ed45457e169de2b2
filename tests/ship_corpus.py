"""Make the traces that the suite ships: one for each defect of the zoo, one for each field of the view.

    python -m tests.ship_corpus [SUBSYSTEM...] [-n WORKERS] [--all]

A trace that is there and still shows what it is there for is kept; `--all` searches for each again. What it is there
for is in its name: the defect and the signature, or `view-FIELD`. `tests/conformance/test_shipped.py` says what must
hold of them, so after a change to a model it names those that this has to make again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from conformance.candidates.defect import Defect
from conformance.candidates.load import Candidate, builtin_names, defects, load
from conformance.engines import corpus
from conformance.engines.campaign import Walker
from conformance.engines.context import Context, lacking
from conformance.engines.corpus import SHIPPED, slug
from conformance.lockstep import run_trace
from conformance.recording import StepReport
from conformance.runs.result import failure_from_data
from conformance.runs.strength import kill_job
from conformance.runs.workers import Died, Jobs
from conformance.subsystem import Subsystem, available, subsystem
from conformance.trace import Trace, encode, write_atomically
from conformance.verdict import Failure

WALKS = 3_000
"""Random walks at most in search of a step that changes a field."""


def main() -> int:
    """Search for what is missing; 1 where something cannot be found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subsystems", nargs="*", default=available())
    parser.add_argument("-n", dest="workers", type=int, default=1)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    missing = []
    for name in args.subsystems:
        of = subsystem(name)
        missing += [f"{name}: {defect}" for defect in _ship_defects(of, args.workers, everything=args.all)]
        missing += [f"{name}: {field}" for field in _ship_fields(of, everything=args.all)]
    for what in missing:
        print(f"no trace for {what}")
    return 1 if missing else 0


def shown(of: Subsystem, trace: Trace, candidate: Candidate) -> set[str]:
    """Signatures of what a trace shows; none where a step of it cannot happen any more."""
    report = run_trace(of, trace, candidate.factory, record=True)
    if len(report.steps) != len(trace.steps) and trace.steps:  # without a step, creating the candidate is told as one
        return set()
    return {found.signature for found in [*report.warnings, *([report.failure] if report.failure else [])]}


def file_of(name: str, defect: Defect) -> Path | None:
    """The shipped trace of a defect."""
    return next(iter((SHIPPED / name).glob(f"{defect.id}-*.json")), None)


def changed(of: Subsystem, reports: list[StepReport], trace: Trace) -> Iterator[tuple[int, str]]:
    """(number of the step, field of the view that it changed), from 1, and 0 for none at all."""
    last = of.view(of.initial(trace.config, of.profiles[trace.profile]))
    for number, report in enumerate(reports, 1):
        if report.got is None:
            return
        yield from ((number, field) for field in of.view_clauses if getattr(report.got, field) != getattr(last, field))
        last = report.got


def _ship_defects(of: Subsystem, workers: int, *, everything: bool) -> list[str]:
    """Search for the defects without a good trace, and write what is found; those that survive."""
    wanted = []
    for defect in defects(of.name):
        path = file_of(of.name, defect)
        if defect.candidate is None:
            continue
        if path is not None:
            trace = corpus.read(path)
            signatures = shown(of, trace, load(f"builtin:{defect.id}", of))
            if not everything and path.stem in {f"{defect.id}-{slug(signature)}" for signature in signatures}:
                continue
        wanted.append(defect)
    survivors = []
    jobs = Jobs(kill_job, [(of.name, defect.id, 0, "") for defect in wanted], workers, lambda *_: None)
    for number, answer in jobs.run():
        defect = wanted[number]
        if isinstance(answer, Died) or not answer["failure"]:
            survivors.append(defect.id)
            continue
        found: Failure = failure_from_data(answer["failure"], of)
        old = file_of(of.name, defect)
        assert found.trace is not None
        write_atomically(SHIPPED / of.name / f"{defect.id}-{slug(found.signature)}.json", encode(found.trace))
        if old is not None and old.stem != f"{defect.id}-{slug(found.signature)}":
            old.unlink()
    return survivors


def _ship_fields(of: Subsystem, *, everything: bool) -> list[str]:
    """Write, for each field of the view, a trace whose last step changes it; the fields that nothing changes."""
    paths = {field: SHIPPED / of.name / f"view-{field}.json" for field in of.view_clauses}
    missing = [
        field
        for field, path in paths.items()
        if everything or not path.exists() or not changes(of, corpus.read(path), field)
    ]
    for candidate in _everybody(of):
        for field, trace in _shortest(of, candidate, missing).items():
            write_atomically(paths[field], encode(_minimal(of, candidate, field, trace)))
            missing.remove(field)
    return [f"view field {field}" for field in missing]


def _everybody(of: Subsystem) -> Iterator[Candidate]:
    """The shipped candidates, and then the defects: there are fields that no correct candidate changes."""
    for name in [*builtin_names(of), *(defect.id for defect in defects(of.name) if defect.candidate is not None)]:
        yield load(f"builtin:{name}", of)


def changes(of: Subsystem, trace: Trace, field: str) -> bool:
    """Whether the last step of a trace changes the field on a candidate that is right, or on any if there is none."""
    return any(
        _change(of, trace, candidate, field) == len(trace.steps)
        for candidate in _everybody(of)
        if candidate.profile == trace.profile
    )


def _change(of: Subsystem, trace: Trace, candidate: Candidate, field: str) -> int:
    """The number of the step of a trace that changes the field first, from 1; 0 if none does."""
    return next((number for number, what in _changed(of, trace, candidate) if what == field), 0)


def _changed(of: Subsystem, trace: Trace, candidate: Candidate) -> list[tuple[int, str]]:
    """(number of the step, field that it changed), from 1; nothing where a right candidate fails."""
    if lacking(of, trace, candidate.capabilities):
        return []
    report = run_trace(of, trace, candidate.factory, record=True)
    is_right = candidate.spec.removeprefix("builtin:") in builtin_names(of)
    if (is_right and report.failure is not None) or len(report.steps) != len(trace.steps):
        return []
    return list(changed(of, report.steps, trace))


def _shortest(of: Subsystem, candidate: Candidate, fields: list[str]) -> dict[str, Trace]:
    """The shortest trace that changes each of these fields: of those that are saved, or of random walks."""
    best: dict[str, Trace] = {}
    for trace in _saved(of, candidate):
        _better(best, fields, trace, _changed(of, trace, candidate))
    if candidate.spec.removeprefix("builtin:") in builtin_names(of):
        walker = Walker(Context(subsystem=of, candidate=candidate, profile=candidate.profile), Random(of.name))
        walker.sample_pools()
        for _ in range(WALKS):
            if all(field in best for field in fields):
                break
            trace = walker.walk()
            _better(best, fields, trace, _changed(of, trace, candidate))
    return best


def _better(best: dict[str, Trace], fields: list[str], trace: Trace, seen: list[tuple[int, str]]) -> None:
    """Keep what changes a field sooner."""
    for number, field in seen:
        if field in fields and (field not in best or number < len(best[field].steps)):
            best[field] = trace.with_steps(trace.steps[:number])


def _minimal(of: Subsystem, candidate: Candidate, field: str, trace: Trace) -> Trace:
    """The trace without the steps that it can do without."""
    i = 0
    while i < len(trace.steps):
        shorter = trace.with_steps(trace.steps[:i] + trace.steps[i + 1 :])
        if shorter.steps and _change(of, shorter, candidate, field) == len(shorter.steps):
            trace = shorter
        else:
            i += 1
    return trace


def _saved(of: Subsystem, candidate: Candidate) -> Iterator[Trace]:
    """Shipped traces, as traces under the candidate's profile."""
    for path in corpus.files(SHIPPED / of.name):
        yield replace(corpus.read(path), profile=candidate.profile)


if __name__ == "__main__":
    sys.exit(main())
