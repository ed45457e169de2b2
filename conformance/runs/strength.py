"""How strong the suite is: every defect of the zoo, which clause kills it, in how many steps and seconds."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from conformance.candidates.defect import Defect
from conformance.candidates.load import Candidate, defects, load
from conformance.engines.context import Context
from conformance.runs.request import ENGINES, GATE_STEPS
from conformance.runs.result import failure_to_data
from conformance.runs.watchdog import watching
from conformance.runs.workers import Tell
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import Failure

CAMPAIGN_STEPS = 400_000
"""Steps of the campaign at most for one defect."""
SECONDS = 120.0
"""Longest search for one defect, of the processor's time: a crowded machine finds what an idle one does."""
SECONDS_ALONE = 30.0
"""The same of one engine that searches alone, which need not find it."""


@dataclass(frozen=True, slots=True)
class Kill:
    """What became of one defect."""

    defect: Defect
    failure: Failure | None
    """What the suite reported first; None when the defect survived or has no candidate."""
    engine: str
    seconds: float

    @property
    def is_killed(self) -> bool:
        """Whether the suite found the defect at all."""
        return self.failure is not None

    @property
    def is_expected(self) -> bool:
        """Whether the clause cited is one of those the defect names."""
        return self.failure is not None and self.failure.clause.id in self.defect.clauses

    @property
    def steps(self) -> int:
        """Length of the minimal trace; 0 when it survived."""
        if self.failure is None or self.failure.trace is None:
            return 0
        return len(self.failure.trace.steps)


def kills(of: Subsystem, only: str | None = None, seed: int = 0) -> Iterator[Kill]:
    """Search for each defect of the zoo in turn."""
    for defect in defects(of.name):
        if only is not None and defect.id != only:
            continue
        if defect.candidate is None:
            yield Kill(defect, None, "", 0.0)
            continue
        yield kill(of, defect, load(f"builtin:{defect.id}", of), seed)


SEARCHES = ("explore", "interleave", "campaign", "machine", "symbolic")
"""The engines that search, small scopes first, then random walks, then the machine; the last only where it is named."""


def kill(of: Subsystem, defect: Defect, candidate: Candidate, seed: int = 0, alone: str = "") -> Kill:
    """Search for one defect, with every engine in turn, or with one `alone`, doing what it does in the gate.

    A defect whose clauses are only SHOULD shows as a warning, which counts.
    """
    started, begun = time.process_time(), _spent()
    limit = SECONDS_ALONE if alone else SECONDS
    known: set[str] = set()
    for name in SEARCHES:
        if alone != name and (alone or name not in ENGINES):
            continue
        context = Context(
            subsystem=of,
            candidate=candidate,
            profile=candidate.profile,
            seed=seed,
            steps=GATE_STEPS.get(name) if alone else CAMPAIGN_STEPS,
            deadline=started + limit,
            clock=time.process_time,
            stop_at_first=True,
            wanted=frozenset(defect.clauses),
            engine=name,
            known=known,
        )
        with watching():
            importlib.import_module(f"conformance.engines.{name}").run(context)
        found = _chosen(defect, context)
        if found is not None:
            return Kill(defect, found, name, _spent() - begun)
        if time.process_time() - started > limit:
            break
    return Kill(defect, None, "", _spent() - begun)


def _spent() -> float:
    """Seconds of the processor's time, those of ended child processes included."""
    return sum(os.times()[:4])


def _chosen(defect: Defect, context: Context) -> Failure | None:
    """The failure that counts: the first binding one, or an expected warning."""
    expected = [f for f in context.warnings if f.clause.id in defect.clauses]
    found = context.failures + expected
    return found[0] if found else None


def summary(results: list[Kill]) -> tuple[int, int, int, float]:
    """(killed, expressible, cited as expected, median seconds of the killed)."""
    expressible = [k for k in results if k.defect.candidate is not None]
    killed = [k for k in expressible if k.is_killed]
    seconds = median([k.seconds for k in killed]) if killed else 0.0
    return len(killed), len(expressible), sum(k.is_expected for k in killed), seconds


def kill_job(job: tuple[str, str, int, str], tell: Tell) -> dict[str, object]:
    """Search for one defect, in any process."""
    name, identifier, seed, alone = job
    tell(0, 0, 0)
    of = subsystem(name)
    defect = next(d for d in defects(name) if d.id == identifier)
    done = kill(of, defect, load(f"builtin:{identifier}", of), seed, alone)
    failure = failure_to_data(done.failure) if done.failure is not None else None
    return {"failure": failure, "engine": done.engine, "seconds": done.seconds}
