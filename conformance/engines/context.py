"""What every engine is given: what to test, how long, and where to put what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from conformance.candidates.load import Candidate
from conformance.engines.leads import Leads
from conformance.environment.door import Environment
from conformance.lockstep import Report, run_trace
from conformance.model.step import Parallel, Step
from conformance.subsystem import Subsystem
from conformance.trace import Trace
from conformance.verdict import NOT_TRIED, Failure, Tally

HANGS = 4
"""Hangs after which an engine gives up on a candidate: the finding is made, and each costs a second."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One model state that an exploration reached."""

    state: Any
    depth: int
    """Steps of the shortest way there."""
    legal: int
    """Steps that could be taken there; 0 where the scope ends."""
    tried: int
    failed: int
    """Of those tried, how many the candidate got wrong."""


@dataclass(frozen=True, slots=True)
class Edge:
    """That steps lead from one state to another."""

    origin: int
    """Number of the state in the order in which they were reached."""
    to: int
    step: Step
    """The first of them."""
    steps: int
    """How many of those tried do."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What an exploration knows of the state graph of one scope in the end; steps that change nothing are left out."""

    scope: str
    config: Any
    states: tuple[Reached, ...]
    edges: tuple[Edge, ...]


@dataclass(slots=True)
class Context:
    """One engine's run over one candidate.

    Engines stop by themselves: at `steps` in the gate, when `expired()` in the hunt.
    """

    subsystem: Subsystem
    candidate: Candidate
    profile: str
    seed: int = 0
    """Seeds all of the engine's choices; the gate's is fixed."""
    steps: int | None = None
    """Steps to take, for engines that could go on for ever; None: until expired."""
    deadline: float | None = None
    """By `clock`, when to stop; None: never."""
    clock: Callable[[], float] = time.monotonic
    """What the deadline is read from; the processor's time where a crowded machine must not change what is found."""
    part: int = 0
    """This is part `part` of `parts` of the engine's work."""
    parts: int = 1
    hunting: bool = False
    """Whether a budget was given: larger scopes are explored too."""
    stop_at_first: bool = False
    """Whether one failure is enough (`strength`, `-x`)."""
    only: str = "*"
    """Pattern of the ids of clauses whose failure is; others are noted, and the search goes on."""
    engine: str = ""
    known: set[str] = field(default_factory=set)
    """Signatures found so far, by any engine of this run."""
    failures: list[Failure] = field(default_factory=list)
    """Minimal failures of binding clauses, one of each signature."""
    warnings: list[Failure] = field(default_factory=list)
    """Minimal breaches of SHOULD clauses, one of each signature."""
    tally: Tally = field(default_factory=Tally)
    progress: Callable[[Context], None] | None = None
    judge: Callable[..., Report] = run_trace
    """How minimising asks what a trace shows: elsewhere, where it may end the process."""
    tell: Callable[[Failure], Failure] | None = None
    """Adds the story to each failure that is kept; None where nobody will read it."""
    wanted: frozenset[str] = frozenset()
    """Ids of SHOULD clauses whose breach is enough for `stop_at_first`."""
    examples: int | None = None
    """Examples of the machine in the gate, where they are not as many as usual."""
    length: int | None = None
    """Steps of an example at most, where they are not as many as usual."""
    leads: Leads | None = None
    """What the campaign follows and remembers, in a hunt on many machines."""
    settled: frozenset[str] = frozenset()
    """Signatures that are settled as findings: noted as they are met, since nobody waits for a smaller trace."""
    stillborn: bool = False
    """Whether the candidate starts in no world, so that one trace says all there is to say."""
    starts: bool = False
    """Whether it is known to start in some world, though not in all."""
    notes: dict[str, int] = field(default_factory=dict)
    """Figures worth printing: states and transitions explored."""
    explored: list[Explored] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _reported: float = 0.0

    def expired(self) -> bool:
        """Whether to stop now; also reports progress every now and then."""
        now = time.monotonic()
        if self.progress is not None and now - self._reported > 0.2:
            self._reported = now
            self.progress(self)
        if self.tally.hangs >= HANGS or self.stillborn:
            return True
        return (self.deadline is not None and self.clock() >= self.deadline) or (
            self.stop_at_first
            and (
                any(fnmatchcase(f.clause.id, self.only) for f in self.failures)
                or any(w.clause.id in self.wanted for w in self.warnings)
            )
        )

    @property
    def fast(self) -> Callable[..., Environment]:
        """The environment for engines that take many steps: the subsystem's quick stand-ins where it has some."""
        return self.subsystem.fast or self.subsystem.environment

    def note_failure(self, failure: Failure, minimise: Callable[[Failure], Failure]) -> bool:
        """Record a failure the first time its signature shows; True if it was new."""
        self.tally.hangs += failure.kind == "hang"
        if failure.kind == NOT_TRIED:
            return False
        if failure.step < 0 and failure.kind in ("crash", "hang", "type") and not self.starts:
            failure = self._start(failure)
        if failure.signature in self.known:
            return False
        smallest = failure if self.stillborn or failure.signature in self.settled else minimise(failure)
        self.known.add(failure.signature)
        if smallest.signature != failure.signature:
            if smallest.signature in self.known:
                return False
            self.known.add(smallest.signature)
        known_now = replace(smallest, engine=self.engine, seconds=round(time.monotonic() - self.started, 3))
        if self.tell is not None:
            known_now = self.tell(known_now)
        (self.failures if is_binding(smallest) else self.warnings).append(known_now)
        if self.progress is not None:
            self.progress(self)
        return True

    def _start(self, failure: Failure) -> Failure:
        """A constructor's failure in the plainest world that shows it; learns whether the candidate starts in any.

        Where it hangs, the failing world and the plainest are all that are tried.
        """
        assert failure.trace is not None
        configs = [config for config in self.subsystem.configs if self.allows(config)]
        plainest = failure
        for config in configs[:1] if failure.kind == "hang" else configs:
            trace = replace(failure.trace, config=config)
            found = self.judge(self.subsystem, trace, self.candidate.factory, environment=self.fast).failure
            if found is None or found.step >= 0:
                self.starts = True
                return failure
            if plainest is failure and found.signature == failure.signature:
                plainest = found
        self.stillborn = True
        return plainest

    def note_warnings(self, warnings: list[Failure], minimise: Callable[[Failure], Failure]) -> None:
        """Record each warning whose signature is new."""
        for warning in warnings:
            self.note_failure(warning, minimise)

    def allows(self, config: Any) -> bool:
        """Whether the candidate has what a configuration needs."""
        return self.subsystem.requires(config) <= self.candidate.capabilities

    def can(self, op: type) -> bool:
        """Whether the candidate has what an operation needs."""
        return self.subsystem.needs.get(op, frozenset()) <= self.candidate.capabilities


def is_binding(failure: Failure) -> bool:
    """Whether a failure means that the candidate does not conform.

    A breach of a SHOULD clause does not, unless the candidate crashed or hung on the way.
    """
    return failure.clause.level.is_binding or failure.kind in ("crash", "hang", "type")


def lacking(of: Subsystem, trace: Trace, capabilities: frozenset[str]) -> list[str]:
    """Capabilities that a trace needs and a candidate does not declare."""
    needed = set(of.requires(trace.config))
    for step in trace.steps:
        if of.undisturbed and (step.faults or step.during or isinstance(step.op, Parallel)):
            needed.add("refusals and company")
        for op in _operations(step):
            needed |= of.needs.get(type(op), frozenset())
    return sorted(needed - capabilities)


def _operations(step: Step) -> list[Any]:
    inner = [op for _, other in step.during for op in _operations(other)]
    if isinstance(step.op, Parallel):
        return [*_operations(step.op.left), *_operations(step.op.right), *inner]
    return [step.op, *inner]
