"""What neither result nor view of a step shows."""

from __future__ import annotations

from typing import Any

from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.subsystem import Check


def _kept(world: Any) -> bool | str:
    """Whether no page went back that the TD may still map."""
    if not world.module.removal_failed:
        return False
    pfn = world.td_pages.handed_back
    return f"page {pfn:#x} goes back to the host while the TD may map it" if pfn else True


CHECKS: dict[type, tuple[Check, ...]] = {
    ops.GmemInvalidate: (Check(c.KEEPS_PAGE_ANYHOW, lambda record: _kept(record.env)),)
}
