"""What differs between the seed, the releases and the later clean-up, and what a candidate may lack."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs import clause

CAPABILITIES = {
    "small-tables": "page tables of fewer than 512 entries and fewer than four levels, as bounded runs use",
    "seamcalls": "the external operations themselves, down to the firmware's SEAMCALLs",
    "tables-of-512": "page tables of 512 entries and four or five levels",
    "log-dirty": "slot_create changes whether a slot logs its dirty pages, and faults heed it",
}
DECLARED = frozenset({"log-dirty"})
"""Capabilities that a candidate has only if it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(clause.Profile):
    """What differs between the seed, the releases and the later clean-up."""

    bit0_is_valid: bool = False
    """Bit 0 of root types restricts to valid roots, rather than including invalid ones."""
    warns_on_empty_filter: bool = False
    """Filter 0 warns on every VM, not only where there is a mirror."""
    root_by_access: bool = False
    """The root of a fault follows the access (private or not) rather than the address."""
    pins_pages: bool = True
    """Pages that the TD owns are kept by a reference; afterwards the caller's word is enough."""
    premapped: bool = True
    """Leaves set before the TD is finalized are counted, and added to it only later."""


PROFILES = {
    "upstream": Profile(name="upstream", text="Linux 6.16 with the error codes of 6.19"),
    "upstream-6.19": Profile(
        name="upstream-6.19",
        text="after the post-populate clean-ups: pages are added at once",
        pins_pages=False,
        premapped=False,
    ),
    "as-posted": Profile(
        name="as-posted",
        text="the seed post of May 2024 with the rest of its series",
        bit0_is_valid=True,
        warns_on_empty_filter=True,
        root_by_access=True,
    ),
}
