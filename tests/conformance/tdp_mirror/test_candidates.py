"""The TDP MMUs: correct ones, shipped and built another way, are not accused; the posted one is."""

from __future__ import annotations

from collections import deque
from itertools import islice
from pathlib import Path

import pytest

from conformance.candidates.builtin.tdp_mirror import CANDIDATES
from conformance.candidates.builtin.tdp_mirror.as_posted import AsPosted
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream_6_19 import Upstream619
from conformance.engines import campaign, explore, interleave
from conformance.strategies.tdp_mirror import SCOPES
from tests.conformance.tdp_mirror.judging import context


@pytest.mark.parametrize("name", [n for n, scope in SCOPES.items() if scope.in_gate])
def test_the_gate_explores_exactly_these_worlds(name: str) -> None:
    """The counts are pinned: a change nobody expected is news."""
    here = context("builtin:upstream")
    scope = SCOPES[name]
    exploration = explore._Exploration(here, name, scope)
    while exploration.go_on():
        pass

    assert here.failures == []
    assert here.warnings == []
    assert (here.notes[f"{name}: states"], here.notes[f"{name}: transitions"]) == (scope.states, scope.transitions)


@pytest.mark.parametrize("candidate", ["builtin:upstream", "builtin:upstream-6.19"])
def test_random_walks_of_a_correct_candidate_are_silent(candidate: str) -> None:
    """Interrupts, second threads and faults included."""
    here = context(candidate, steps=6_000, seed=5)

    campaign.run(here)

    assert here.failures == []
    assert here.warnings == []


def test_interleavings_of_the_correct_candidate_are_silent() -> None:
    """Some order of two operations explains every schedule: of the races without gaps, then of any pairs.

    The races are the eight of section 9 and the others that the sources tell of; a count that changes is news.
    """
    here = context("builtin:upstream", seed=3)
    search = interleave._Search(here)

    deque(search.races(), maxlen=0)
    deque(islice(search.every_pair(), 600), maxlen=0)

    assert here.failures == []
    assert search.raced == SCHEDULES
    assert search.schedules == 600 + sum(SCHEDULES.values())
    assert search.switches > 600


def test_the_posted_design_breaks_what_the_series_fixed_later() -> None:
    """Its own root types are in order, the rest is not."""
    here = context("builtin:as-posted", steps=4_000)

    campaign.run(here)

    cited = {failure.clause.id for failure in here.failures}
    assert len(cited) >= 8
    assert not cited & {"TDP-002", "TDP-003", "TDP-004"}


def test_candidates_name_their_profiles() -> None:
    """Each is judged by the profile it declares."""
    assert {name: candidate.profile for name, candidate in CANDIDATES.items()} == {
        "linux": "upstream",
        "upstream": "upstream",
        "upstream-6.19": "upstream-6.19",
        "as-posted": "as-posted",
    }
    assert {Upstream.profile, Upstream619.profile, AsPosted.profile} == set(CANDIDATES) - {"linux"}


SCHEDULES = {
    "one private leaf twice": 162,
    "one private leaf twice, busy": 154,
    "two private leaves of one new table": 162,
    "a private fault and a reload": 64,
    "a shared fault and a yielding unmap": 99,
    "a private fault and its conversion": 128,
    "a shared fault and its conversion": 110,
    "zapping invalid roots and a notifier": 144,
    "a yielding zap and a fault": 111,
    "the end of a vCPU and a reload": 94,
    "two first loads": 102,
    "a prefault and the end of its slot": 150,
    "a violation and the end of its slot": 138,
    "a huge fault and a conversion of its half": 100,
    "a huge fault and a conversion of its other half": 100,
    "a fast fault and the fast zap": 78,
    "a yielding notifier and the end of invalid roots": 203,
    "a split and a notifier": 152,
    "a split and write protection": 128,
    "a split and the fast zap": 150,
    "a fast fault and write protection": 48,
    "a fast fault and protection for good": 44,
    "one private leaf mapped twice": 1686,
    "two who zap invalid roots": 114,
    "a split and ageing": 126,
    "a split and the dirty bits": 128,
    "a split and a fast fault": 74,
    "a split and a guest that writes": 60,
    "a huge leaf for a table and a leaf in it": 40,
    "a huge leaf for a table and write protection": 66,
    "dirty bits and a notifier": 124,
    "write protection and a notifier": 124,
    "a page accepted and taken": 76,
    "two pages added": 104,
    "a page added and the TD finalized": 148,
    "a fast fault and a notifier": 70,
    "ageing and a notifier": 128,
    "a page added and taken": 167,
    "a leaf that no mirror may have and a fault": 82,
}
"""By race: schedules of as many switches as it says, in both orders of starting."""


def test_the_races_are_tried_without_gaps_on_6_19_too() -> None:
    """There the TD's own operations take other locks."""
    here = context("builtin:upstream-6.19")
    search = interleave._Search(here)

    deque(search.races(), maxlen=0)

    assert here.failures == []
    assert search.raced == SCHEDULES | {"a page added and the TD finalized": 130, "a page added and taken": 149}


PEERS = Path(__file__).parents[1] / "peers" / "tdp_mirror.py"


@pytest.mark.gates
@pytest.mark.parametrize("name", ["Backwards", "Coarse", "Unpinned"])
def test_a_peer_is_not_accused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the small scopes nor at random nor with another thread."""
    monkeypatch.setattr(interleave, "GATE_SCHEDULES", 500)
    here = context(f"{PEERS}:{name}", steps=6_000)

    explore.run(here)
    campaign.run(here)
    interleave.run(here)

    assert [failure.signature for failure in here.failures] == []
