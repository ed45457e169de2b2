"""One record that ties the rooms of a subsystem together; engines and reports know only it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any

from conformance.environment.door import Environment
from conformance.model.step import Labels, Outcomes, Step
from conformance.specs.clause import Clause, Profile
from conformance.strategies.domain import Domain, Race, Scope, Shape
from conformance.verdict import UsageError

NAMES = ("uio_msi", "cet", "avic", "snp_guest_request", "tdp_mirror")
"""The five subsystems; each is one file name in every folder."""


@dataclass(slots=True, eq=False)
class Record:
    """One judged step, as checks see it; never changed, and not frozen for the reason given at `Outcome`."""

    before: Any
    """The model's state before the step."""
    after: Any
    """The model's state after it."""
    op: Any
    result: Any
    calls: tuple[tuple[str, tuple[Any, ...], Any], ...]
    """Environment calls of the operation in the order made: name, arguments, result."""
    given: Mapping[str, int]
    """Refusals really met, by call."""
    env: Environment
    profile: Any


@dataclass(frozen=True, slots=True)
class Check:
    """A clause that neither result nor view shows: a predicate over one judged step.

    `holds` returns True where the clause holds, False where it does not apply, and one line
    of detail where it is broken.
    """

    clause: Clause
    holds: Callable[[Record], bool | str]


@dataclass(frozen=True, slots=True, eq=False)
class Subsystem:
    """What the engines need of a subsystem, gathered from its modules."""

    name: str
    title: str
    clauses: tuple[Clause, ...]
    profiles: Mapping[str, Profile]
    """By name; the first is the default."""
    capabilities: Mapping[str, str]
    """Capability -> one sentence."""
    robustness: Clause
    """Cited for crashes, hangs and values of a wrong type."""
    candidate: type
    """The Protocol a candidate class provides."""
    optional: Mapping[str, str]
    """Entry points that only a candidate with a capability needs: method -> capability."""
    port: type
    """The Protocol of the environment calls it may make."""
    config: type
    operations: Mapping[str, type]
    answers: type
    initial: Callable[[Any, Any], Any]
    """(config, profile) -> state."""
    legal: Callable[[Any, Any], bool]
    """(state, op): what the world can do at all."""
    step: Callable[[Any, Any, Any, Any], Outcomes]
    """(state, op, answers, profile) -> the allowed outcomes."""
    view: Callable[[Any], Any]
    view_clauses: Mapping[str, Clause]
    cite: Callable[[Any, Any, str, Any, Any], Clause | None] | None
    """(state before, op, view field, expected view, got view): a better clause than the field's, or None."""
    requires: Callable[[Any], frozenset[str]]
    """Capabilities that a configuration needs."""
    needs: Mapping[type, frozenset[str]]
    """Capabilities that an operation needs."""
    configs: tuple[Any, ...]
    """Configurations that random runs draw from, plainest first."""
    shapes: Mapping[type, Shape]
    scopes: Mapping[str, Scope]
    suggest: Callable[[Any, Random], Step | None] | None
    """A step that fits the state better than a blind draw, or None."""
    opening: Callable[[Any, Any], tuple[Step, ...]] | None
    """(config, profile): steps that random runs usually begin with."""
    environment: Callable[..., Environment]
    """(config, profile) -> Environment."""
    fast: Callable[..., Environment] | None
    """The same with quick stand-ins for what is slow (system calls, ciphers), or None."""
    checks: Mapping[type, tuple[Check, ...]]
    """By operation type."""
    starts: tuple[tuple[Any, tuple[Step, ...]], ...] = ()
    """(configuration, steps): where two operations at once are tried, most telling first; empty: the openings."""
    ahead: int = 2
    """How far beyond the nearest untried transition a walk of an exploration goes on; more where starts are dear."""
    afterwards: tuple[Step, ...] = ()
    """Steps that look at what two operations at once left behind, where the view does not show it."""
    races: Mapping[str, Race] = field(default_factory=dict)
    """By name: pairs of operations whose schedules are tried without gaps."""
    further: Mapping[str, tuple[str, Callable[..., Any]]] = field(default_factory=dict)
    """Entry points that no `candidate` must have, each with the capability that asks for it, and what it takes."""
    declared: frozenset[str] = frozenset()
    """Capabilities that a candidate has only if it says so."""
    undisturbed: bool = False
    """Whether operations happen one at a time and no call is refused: so it is with real implementations."""
    view_labels: Mapping[str, Labels] = field(default_factory=dict)
    """What the parts of a view's fields are called, of those made of tuples."""
    also_needs: Callable[[Any, Any], frozenset[str]] | None = None
    """(state, op): capabilities that an operation needs for its values' sake, or for where it happens."""
    legal_beside: Callable[[Any, Any], bool] | None = None
    """(state, op): whether an operation that had begun can end in the state that others left; None: as `legal`."""
    cite_together: Callable[[Any, Any, str], Clause | None] | None = None
    """(state before, `Parallel`, view field): as `cite`, of two operations at once."""

    @property
    def default_profile(self) -> str:
        """Name of the profile that holds unless another is asked for."""
        return next(iter(self.profiles))

    def clause(self, identifier: str) -> Clause:
        """The clause of that id; UsageError with the nearest one when there is none."""
        for clause in self.clauses:
            if clause.id == identifier:
                return clause
        raise UsageError(f"{self.name} has no clause {identifier!r}")

    def domain(self, op: type, field: str) -> Domain[Any]:
        """The domain of one field of one operation."""
        return self.shapes[op].fields[field]

    def within(self, capabilities: frozenset[str]) -> Subsystem:
        """The part of it that a candidate with these capabilities can be held to."""
        return self if self.also_needs is None or capabilities >= set(self.capabilities) else _part(self, capabilities)

    def clauses_of_calls(self) -> Mapping[str, tuple[Clause, ...]]:
        """Clauses that each environment call exercises."""
        return getattr(self.environment, "CALL_CLAUSES", {})


ROOMS = (
    "conformance.specs",
    "conformance.model",
    "conformance.strategies",
    "conformance.environment",
    "conformance.candidates.builtin",
    "conformance.candidates.defects",
)
"""Packages in which every subsystem has a module of its name."""


@cache
def available() -> tuple[str, ...]:
    """Subsystems that have a module in every room."""
    return tuple(
        name for name in NAMES if all(importlib.util.find_spec(f"{room}.{name}") is not None for room in ROOMS)
    )


@cache
def subsystem(name: str) -> Subsystem:
    """Load a subsystem by name; UsageError when there is no such subsystem."""
    if name not in available():
        import difflib

        near = difflib.get_close_matches(name, available(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(available())}"
        raise UsageError(f"unknown subsystem {name!r}{hint}")
    specs = importlib.import_module(f"conformance.specs.{name}")
    model = importlib.import_module(f"conformance.model.{name}")
    strategies = importlib.import_module(f"conformance.strategies.{name}")
    environment = importlib.import_module(f"conformance.environment.{name}")
    return Subsystem(
        name=name,
        title=(specs.__doc__ or "").strip().splitlines()[0],
        clauses=specs.CLAUSES,
        profiles=specs.PROFILES,
        capabilities=specs.CAPABILITIES,
        robustness=specs.ROBUSTNESS,
        candidate=specs.Candidate,
        optional=getattr(specs, "OPTIONAL", {}),
        port=specs.Port,
        config=model.Config,
        operations={op.__name__: op for op in model.OPERATIONS},
        answers=model.Answers,
        initial=model.initial,
        legal=model.legal,
        step=model.step,
        view=model.view,
        view_clauses=model.VIEW_CLAUSES,
        view_labels=getattr(model, "VIEW_LABELS", {}),
        cite=getattr(model, "cite", None),
        cite_together=getattr(model, "cite_together", None),
        requires=getattr(model, "requires", _nothing),
        needs=getattr(model, "NEEDS", {}),
        configs=strategies.CONFIGS,
        shapes=strategies.SHAPES,
        scopes=strategies.SCOPES,
        suggest=getattr(strategies, "suggest", None),
        opening=getattr(strategies, "opening", None),
        environment=environment.ENVIRONMENT,
        fast=getattr(environment, "FAST", None),
        checks=environment.CHECKS,
        starts=getattr(strategies, "STARTS", ()),
        ahead=getattr(strategies, "AHEAD", 2),
        afterwards=getattr(strategies, "AFTERWARDS", ()),
        races=getattr(strategies, "RACES", {}),
        also_needs=getattr(model, "also_needs", None),
        legal_beside=getattr(model, "legal_beside", None),
        declared=getattr(specs, "DECLARED", frozenset()),
        further=getattr(specs, "FURTHER", {}),
    )


@cache
def _part(of: Subsystem, capabilities: frozenset[str]) -> Subsystem:
    legal, needs = of.legal, of.also_needs
    assert needs is not None
    return replace(of, legal=lambda state, op: legal(state, op) and needs(state, op) <= capabilities)


def _nothing(_config: Any) -> frozenset[str]:
    return frozenset()
