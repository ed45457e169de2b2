"""Guest frame numbers and the page frames behind them: alias bits, sources of pages, how both are written."""

from __future__ import annotations

from typing import Any

from conformance.model.tdp_mirror.state import GMEM_SOURCES, HVA_SOURCES
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

_PLACE = 37
"""Pages of one source are 2**37 frames apart, so a frame number tells its gfn and its source."""
_SOURCES = {i + 1: name for i, name in enumerate(HVA_SOURCES + GMEM_SOURCES)}
ORIGIN = {name: i << _PLACE for i, name in _SOURCES.items()}
"""Source to the page frame of its gfn 0."""


def natural(gfn: int, bits: int, what: str) -> None:
    """No gfn that leaves the MMU has an alias bit (TDP-012)."""
    if gfn & bits:
        raise Violation(c.NO_ALIAS_IN_CALLS, f"{what}: gfn {gfn:#x} has the alias bit")


def source_of(pfn: int, gfn: int) -> str:
    """Name of the place a page comes from; with its gfn where that is another one."""
    name = _SOURCES.get(pfn >> _PLACE, "?")
    other = pfn & ((1 << _PLACE) - 1)
    return name if other == gfn else f"{name} of {other:#x}"


def hex_of(values: dict[Any, Any]) -> str:
    """A dict as text, its numbers in hex."""
    return "{" + ", ".join(f"{_number(key)}: {_number(value)}" for key, value in values.items()) + "}"


def _number(value: Any) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)
