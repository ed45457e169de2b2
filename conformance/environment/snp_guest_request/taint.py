"""What a variable holds that nobody has written."""

from __future__ import annotations

from conformance.specs.snp_guest_request.constants import UNINITIALISED

HALF = UNINITIALISED & 0xFFFFFFFF


def is_tainted(value: int) -> bool:
    """Whether either half of a value is what an uninitialised variable holds."""
    return value & 0xFFFFFFFF == HALF or value >> 32 & 0xFFFFFFFF == HALF
