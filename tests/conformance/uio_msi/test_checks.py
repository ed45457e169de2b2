"""How what is wrong with mem[] and port[] is told."""

from __future__ import annotations

from conformance.environment.uio_msi.checks import _shown


def test_addresses_are_told_as_the_calls_show_them() -> None:
    """So that the sentence can be found again in the call that it is about."""
    assert _shown(("BAR1", 0xF0010000, 0, 0x1000, 1)) == "('BAR1', 0xf0010000, 0, 0x1000, 1)"
