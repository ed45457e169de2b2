"""Entries of page tables as words: what their bits say."""

from __future__ import annotations

from conformance.specs.tdp_mirror import constants as k

PFN_MASK = ((1 << k.PFN_BITS) - 1) << k.PAGE_SHIFT
"""Of an entry that points to a table: its address."""


def present(entry: int) -> int:
    """The MMU-present bit."""
    return entry >> k.PRESENT & 1


def is_leaf(entry: int, level: int) -> bool:
    """Whether an entry of a table of this level maps memory."""
    return bool(entry >> k.PRESENT & 1) and (level == 1 or bool(entry >> k.HUGE & 1))


def pfn_of(entry: int) -> int:
    """The page frame that an entry names."""
    return (entry & PFN_MASK) >> k.PAGE_SHIFT


def is_volatile(entry: int, level: int) -> bool:
    """Whether hardware, or the lockless fast path, may change what must not be lost of the entry at this moment.

    The accessed bit is not of that kind: a false answer to who was there costs nothing but time.
    """
    if not is_leaf(entry, level):
        return False
    if not entry >> k.WRITE & 1 and entry >> k.HOST_WRITABLE & 1 and entry >> k.MMU_WRITABLE & 1:
        return True
    return bool(entry >> k.WRITE & 1 and not entry >> k.DIRTY & 1)
