"""The engines over AVIC: explored worlds, races, walks."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from conformance.candidates.load import load
from conformance.engines import campaign, explore, interleave
from conformance.engines.context import Context
from conformance.strategies.avic.scopes import SCOPES
from tests.conformance.avic.judging import AVIC


def test_start_that_fails_is_minimised() -> None:
    """A candidate that is wrong before the first step is reported with an empty trace."""
    candidate = load("builtin:UP-15", AVIC)
    old = replace(AVIC, scopes={"erratum 1235": SCOPES["erratum 1235"]})
    context = Context(subsystem=old, candidate=candidate, profile="upstream", stop_at_first=True)

    explore.run(context)

    assert [f.clause.id for f in context.failures] == ["AVIC-008"]
    assert context.failures[0].trace is not None
    assert context.failures[0].trace.steps == ()


def test_campaign_opens_only_with_what_the_candidate_has() -> None:
    """A pure router is walked through messages alone, though walks usually open with a VM."""
    candidate = load("builtin:router", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="upstream", steps=600)

    campaign.run(context)

    assert context.failures == []
    assert context.tally.steps >= 600


def test_a_pure_router_has_nothing_to_run_at_once() -> None:
    """Operations of other layers are not paired for it, hunting or not."""
    context = Context(subsystem=AVIC, candidate=load("builtin:router", AVIC), profile="upstream", hunting=True)

    interleave.run(context)

    assert context.tally.steps == 0


def test_races_are_tried_without_gaps_and_hold() -> None:
    """Every schedule of the races, in both orders; a count that changes is news."""
    candidate = load("builtin:upstream", AVIC)
    context = Context(subsystem=AVIC, candidate=candidate, profile="upstream")
    search = interleave._Search(context)

    deque(search.races(), maxlen=0)

    assert context.failures == []
    assert (len(search.raced), sum(search.raced.values())) == (75, 6022)


@pytest.mark.parametrize("name", [name for name, scope in SCOPES.items() if scope.states is not None])
def test_worlds_have_their_size(name: str) -> None:
    """A change of the reachable states that nobody expected is news."""
    scope = SCOPES[name]
    candidate = load("builtin:upstream", AVIC)
    context = Context(subsystem=replace(AVIC, scopes={name: scope}), candidate=candidate, profile="upstream")

    explore.run(context)

    assert context.failures == []
    assert (context.notes[f"{name}: states"], context.notes[f"{name}: transitions"]) == (
        scope.states,
        scope.transitions,
    )
