"""Freedom as data: which outcomes parts and ends come to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.model.freedom import End, Freedom, Part, also_ends
from conformance.model.matchers import ANYTHING, ERRNO, OneOf, Such
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c

EBADF, ENOMEM = -9, -12
DONE: Clause = c.SET_RETURNS_ZERO
REFUSED: Clause = c.SILENT_AFTER_DETACH


def adding(name: str) -> Any:
    """A change that notes itself in a state that is a set of names."""
    return lambda state: state | {name}


def freedom(*parts: Part, ends: tuple[End, ...]) -> Freedom:
    return Freedom(frozenset(), parts, ends)


def found(outcomes: Any) -> list[tuple[frozenset[str], Any]]:
    """State and result of each outcome."""
    return [(o.state, o.result) for o in outcomes]


DETACH = Part("detached", adding("detached"))
WIRE = Part("wired", adding("wired"), after=("detached",))
CLEAR = Part("cleared", adding("cleared"), owed=False)
SUCCESS = End(0, DONE, complete=True)


def test_success_has_done_all_that_is_owed_and_what_is_not_owed_or_not() -> None:
    assert found(freedom(DETACH, CLEAR, WIRE, ends=(SUCCESS,))) == [
        (frozenset({"detached", "wired"}), 0),
        (frozenset({"detached", "wired", "cleared"}), 0),
    ]


def test_a_refusal_is_met_at_any_moment_that_the_order_allows() -> None:
    whole = freedom(DETACH, WIRE, ends=(End(EBADF, REFUSED),))
    assert found(whole) == [
        (frozenset(), EBADF),
        (frozenset({"detached"}), EBADF),
        (frozenset({"detached", "wired"}), EBADF),
    ]


def test_after_and_before_bound_the_moment() -> None:
    ends = (End(ENOMEM, REFUSED, after=("detached",), before=("wired",)), End(EBADF, REFUSED, before=("detached",)))
    assert found(freedom(DETACH, WIRE, ends=ends)) == [(frozenset({"detached"}), ENOMEM), (frozenset(), EBADF)]


def test_only_what_explains_a_result_is_computed() -> None:
    computed: list[str] = []

    def wire(state: Any) -> Any:
        computed.append("wired")
        return state | {"wired"}

    parts = (DETACH, Part("wired", wire, after=("detached",)))
    open_ = freedom(*parts, ends=(SUCCESS, End(EBADF, REFUSED, before=("wired",))))
    assert found(open_.explaining(EBADF)) == [(frozenset(), EBADF), (frozenset({"detached"}), EBADF)]
    assert computed == []
    assert found(open_.explaining(1)) == []


def test_equal_states_of_one_end_are_given_once() -> None:
    nothing = Part("looked", lambda state: state, owed=False)
    assert len(found(freedom(nothing, ends=(SUCCESS,)))) == 1


def test_further_ends_and_changes_reach_every_outcome() -> None:
    open_ = freedom(DETACH, ends=(SUCCESS,)).or_ends(End(EBADF, REFUSED, before=("detached",)))

    def grown(outcome: Any) -> Any:
        outcome.also = (*outcome.also, REFUSED)
        return outcome

    both = open_.each(grown).each(grown)
    assert [o.also for o in both] == [(REFUSED, REFUSED)] * 2
    assert found(also_ends(open_, frozenset({"dead"}), End(-5, REFUSED)))[-1] == (frozenset({"dead"}), -5)


@given(st.data())
def test_each_outcome_is_closed_under_the_order(data: st.DataObject) -> None:
    """Against the definition: all subsets of the parts, those kept that satisfy order and end."""
    names = ["a", "b", "c", "d"]
    parts = [
        Part(name, adding(name), after=tuple(data.draw(st.sets(st.sampled_from(names[:at])))) if at else ())
        for at, name in enumerate(names)
    ]
    some = st.sets(st.sampled_from(names), max_size=2)
    end = End(0, DONE, complete=data.draw(st.booleans()), after=tuple(data.draw(some)), before=tuple(data.draw(some)))
    expected = set()
    for bits in range(16):
        done = {name for at, name in enumerate(names) if bits >> at & 1}
        if any(not done.issuperset(part.after) for part in parts if part.name in done):
            continue
        must = set(end.after) | (set(names) - set(end.before) if end.complete else set())
        if must <= done and not done & set(end.before):
            expected.add(frozenset(done))
    assert {o.state for o in freedom(*parts, ends=(end,))} == expected


@pytest.mark.parametrize(
    ("matcher", "equal", "unequal", "words"),
    [
        (ANYTHING, [0, None, "x"], [], "anything"),
        (ERRNO, [-1, -524], [0, 1, None, (-1,)], "a negative errno"),
        (OneOf(frozenset({-22, -5})), [-22, -5], [0, -1], "-22 or -5"),
        (Such("an even number", lambda n: n % 2 == 0), [0, 2], [1], "an even number"),
    ],
)
def test_matchers_equal_what_they_allow_and_say_it(
    matcher: Any, equal: list[Any], unequal: list[Any], words: str
) -> None:
    assert all(matcher == value for value in equal)
    assert all(matcher != value for value in unequal)
    assert repr(matcher) == words
