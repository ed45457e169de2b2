"""What a run is asked for, and the units of work that it divides into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from conformance.baseline.entry import Entry, today
from conformance.engines.leads import Recipe

ENGINES = ("corpus", "explore", "interleave", "campaign", "machine")
"""In the order in which they run: known failures first, then shortest counterexamples."""

FURTHER_ENGINES = ("symbolic",)
"""Those that run where they are named: they take too long for every gate."""

ALL_ENGINES = (*ENGINES, *FURTHER_ENGINES)
"""Whatever can be named, in the order in which it runs."""

BASELINE = "baseline"
"""Stands for an engine in the units that judge the stored traces of known failures, before anything is searched for."""

GATE_STEPS = {"campaign": 40_000, "symbolic": 1_500}
"""Steps of the engines that could go on for ever, in the gate; of `symbolic`, runs with symbolic arguments."""

PARTS = {"campaign": 2, "interleave": 2, "machine": 4}
"""Into how many units an engine's work divides; fixed, so the verdict of the gate is the same for every `-n`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for."""

    candidates: tuple[tuple[str, str], ...]
    """(subsystem, candidate spec)."""
    profile: str | None = None
    """None: the one the candidate declares."""
    engines: tuple[str, ...] = ENGINES
    seed: int = 0
    budget: float | None = None
    """Seconds to hunt; None: the gate."""
    corpus: str | None = None
    """The user's folder of traces, tried before those that the suite ships."""
    shard: tuple[int, int] = (1, 1)
    """Do part I of N."""
    workers: int = 1
    baseline: tuple[Entry, ...] = ()
    """Failures that are known, of any candidates."""
    today: date = field(default_factory=today)
    """Entries that expired before are told of."""
    first: bool = False
    """End with the first failure."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of work: an engine, or a part of one, on one candidate."""

    subsystem: str
    spec: str
    profile: str | None
    engine: str
    seed: int = 0
    part: int = 0
    parts: int = 1
    seconds: float | None = None
    corpus: str | None = None
    first: bool = False
    only: str = "*"
    """Pattern of the ids of clauses of which `first` is meant."""
    known: tuple[str, ...] = ()
    """Signatures that nothing is spent on: stored traces have shown them, or others found them already."""
    follow: tuple[Recipe, ...] | None = None
    """What leads the campaign in a hunt on many machines; None elsewhere."""
    entries: tuple[Entry, ...] = ()
    """Of a unit that judges stored traces: the candidate's, in any profile."""
    today: date | None = None
    settled: bool = False
    """Whether another unit has shown that the candidate does not start, so that there is nothing to do."""

    @property
    def name(self) -> str:
        """For progress lines and test ids: `uio_msi.campaign.1`."""
        suffix = f".{self.part + 1}" if self.parts > 1 else ""
        return f"{self.subsystem}.{self.engine}{suffix}"


def units(request: Request) -> list[Unit]:
    """The work of a request, in a fixed order; `shard` picks its part of the list."""
    listed = baselines(request)
    for name, spec in request.candidates:
        for engine in request.engines:
            listed += _engine_units(request, name, spec, engine)
    index, count = request.shard
    chosen = listed[index - 1 :: count]
    if request.budget is None:
        return chosen
    return _share_time(chosen, request)


def baselines(request: Request) -> list[Unit]:
    """The units that judge stored traces, whatever the shard: all must know what is known."""
    return [
        Unit(name, spec, request.profile, BASELINE, request.seed, entries=entries, today=request.today)
        for name, spec in request.candidates
        if (entries := tuple(e for e in request.baseline if (e.subsystem, e.candidate) == (name, spec)))
    ]


def is_complete(name: str, done: Iterable[str]) -> bool:
    """Whether these units of a subsystem are all that there are, so that a clause left unexercised means something.

    The baseline is extra: nobody has to have one.
    """
    return {unit.name for unit in units(Request(((name, ""),)))} <= set(done)


def _engine_units(request: Request, name: str, spec: str, engine: str) -> list[Unit]:
    parts = max(PARTS.get(engine, 1), 1)
    return [
        Unit(name, spec, request.profile, engine, request.seed, part, parts, None, request.corpus, request.first)
        for part in range(parts)
    ]


def _share_time(chosen: Sequence[Unit], request: Request) -> list[Unit]:
    """Divide the budget: each unit gets its share of what the workers have."""
    assert request.budget is not None
    # Of each part.
    shares = {"corpus": 0.5, "explore": 2.0, "interleave": 1.0, "campaign": 3.0, "machine": 1.0, "symbolic": 3.0}
    hunting = [unit for unit in chosen if unit.engine != BASELINE]
    total = sum(shares[unit.engine] for unit in hunting) or 1.0
    seconds = request.budget * max(1, min(request.workers, len(hunting)))
    return [
        unit if unit.engine == BASELINE else replace(unit, seconds=max(1.0, seconds * shares[unit.engine] / total))
        for unit in chosen
    ]
