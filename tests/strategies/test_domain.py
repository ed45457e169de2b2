"""Domains: the same values at every resolution."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.strategies.domain import Domain, just

NUMBERS = Domain((0, 1), edges=(63, 64, 2**32 - 1), bounds=(0, 100))


def test_a_domain_without_a_plainest_value_is_an_error() -> None:
    """A combination that can generate nothing is refused at once."""
    with pytest.raises(ValueError, match="at least one value"):
        Domain(())


def test_samples_stay_within_the_domain_and_reach_all_of_it() -> None:
    """Scope, edges and the interval between the bounds."""
    random = Random(1)
    drawn = {NUMBERS.sample(random) for _ in range(3_000)}

    assert set(NUMBERS.values) <= drawn
    assert any(value not in NUMBERS.values for value in drawn)
    assert all(value in NUMBERS.values or 0 <= value <= 100 for value in drawn)


@given(NUMBERS.strategy())
def test_hypothesis_draws_the_same_values(value: int) -> None:
    """Listed or within the bounds."""
    assert value in NUMBERS.values or 0 <= value <= 100


@given(st.sampled_from(NUMBERS.values))
def test_simpler_values_come_earlier(value: int) -> None:
    """Simplifying ends, because each step goes down the list."""
    order = list(NUMBERS.values)

    assert [order.index(v) for v in NUMBERS.simpler(value)] == list(range(order.index(value)))


def test_an_unlisted_value_may_become_any_listed_one() -> None:
    """What came from the bounds is replaced by something that matters."""
    assert tuple(NUMBERS.simpler(50)) == NUMBERS.values


def test_a_constant_field_never_varies() -> None:
    """`just` is a domain of one value."""
    assert {just("x").sample(Random(n)) for n in range(9)} == {"x"}
