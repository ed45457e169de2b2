"""Matchers stand for many results, and can be kept in sets like any result."""

from __future__ import annotations

import pytest

from conformance.model.matchers import ANYTHING, ERRNO, OneOf, Such


@pytest.mark.parametrize("matcher", [ANYTHING, ERRNO, OneOf(frozenset({-1, -5})), Such("odd", lambda x: x % 2 == 1)])
def test_matchers_are_told_apart_in_sets(matcher: object) -> None:
    """They equal what they allow, and hash as themselves."""
    assert matcher == -5
    assert {("state", matcher)} == {("state", matcher)}
    assert len({("state", matcher), ("state", -5)}) == 2
