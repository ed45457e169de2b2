"""Entries of page tables: spte.h."""

from __future__ import annotations

from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import NONPRESENT

PA_MASK = ((1 << 40) - 1) << 12
PRESENT = 1 << k.PRESENT
ACCESSED = 1 << k.ACCESSED
DIRTY = 1 << k.DIRTY
WRITABLE = 1 << k.WRITE
HUGE = 1 << k.HUGE
SOFT_WRITABLE = 1 << k.HOST_WRITABLE | 1 << k.MMU_WRITABLE
TABLE_ENTRY = NONPRESENT | PRESENT | ACCESSED | k.RWX


def is_present(spte: int) -> bool:
    """Bit 11 and nothing else."""
    return bool(spte & PRESENT)


def is_last(spte: int, level: int) -> bool:
    """Whether a present entry is a leaf."""
    return level == k.PG_LEVEL_4K or bool(spte & HUGE)
