"""How the tests of uio_msi run drivers and look at what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.model.step import Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import FIRST_FD
from conformance.specs.clause import Clause
from conformance.subsystem import subsystem
from conformance.trace import Trace
from conformance.verdict import Violation

S = subsystem("uio_msi")
INTX = Config(vectors=0)
SECOND = FIRST_FD + 1


def steps(*ops: Any) -> tuple[Step, ...]:
    """Plain steps."""
    return tuple(op if isinstance(op, Step) else Step(op) for op in ops)


def run(factory: Callable[[Any], Any], *ops: Any, config: Config | None = None, profile: str = "upstream") -> Report:
    """Judge these operations on the default environment."""
    return run_trace(S, Trace("uio_msi", profile, config or Config(), steps(*ops)), factory, record=True)


def blamed(report: Report) -> str:
    """Id of the clause that ended the trace."""
    assert report.failure is not None
    return report.failure.clause.id


def warned(report: Report) -> set[str]:
    """Ids of the SHOULD clauses broken."""
    assert report.failure is None
    return {warning.clause.id for warning in report.warnings}


def breach(call: Callable[..., Any], *args: Any) -> Clause | None:
    """The clause that a call breaks."""
    with pytest.raises(Violation) as caught:
        call(*args)
    return caught.value.clause


def walks(count: int, seed: int = 7) -> Iterator[Trace]:
    """Random traces of the correct driver."""
    candidate = load("builtin:upstream", S)
    context = Context(S, candidate, candidate.profile, seed=seed, steps=1)
    walker = campaign.Walker(context, Random(seed))
    walker.sample_pools()
    for _ in range(count):
        yield walker.walk()


LARGE = ("2,2,2", "intx-2,2", "unmerged")
"""Scopes that one driver's test is enough for."""


def explored(factory: type[Upstream], profile: str, walked: int = 0) -> Context:
    """What the gate's scopes find, or the smaller ones and some random steps."""
    candidate = Candidate("test", factory, profile, factory.capabilities)
    small = {name: scope for name, scope in S.scopes.items() if not walked or name not in LARGE}
    context = Context(replace(S, scopes=small), candidate, profile, steps=walked)
    explore.run(context)
    campaign.run(context)
    return context


def caught(factory: type[Upstream], *names: str) -> set[str]:
    """Ids of the clauses that a driver breaks in these scopes, SHOULD ones included."""
    candidate = Candidate("test", factory, "upstream", factory.capabilities)
    context = Context(replace(S, scopes={name: S.scopes[name] for name in names}), candidate, "upstream")
    explore.run(context)
    return {found.clause.id for found in (*context.failures, *context.warnings)}
