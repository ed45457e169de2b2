"""Kind G: what a host may do with an exit, by name."""

from __future__ import annotations

HONEST_PAGES = 2
"""Pages that the honest host's certificates need."""

NEEDED = {"too-small-lie": 1, "too-small-much": 0x110}
"""Pages that a dishonest host says its certificates need: fewer than were given, and more than a caller may give."""

BUSY = ("busy-long", "busy-forever")
"""The host says BUSY for less than 60 s, and for as long as it is asked."""

BUSY_LONG = 50
"""Seconds of `busy-long`; the driver still tries after them, however often it did."""

REPLAYS = ("drop", "replay")
"""Success is reported, but firmware was not asked."""

TAMPERED = (
    "wrong-number",
    "wrong-type",
    "wrong-version",
    "size-huge",
    "size-0",
    "corrupt",
    "tag",
    "sealed-number",
    "sealed-type",
    "sealed-version",
    "sealed-size",
)
"""Firmware was asked, and its answer changed on the way; `sealed`: by somebody who has the key."""

SEALED = ("sealed-number", "sealed-type", "sealed-version", "sealed-size")
"""Those of them that only a holder of the guest's key can do."""

LOST = ("lost", "lost-status", "exception")
"""Firmware was asked, and its answer arrived, but the host reports a failure."""

HONEST = ("ok", "toctou", *LOST, *TAMPERED)
"""Treatments in which the request reaches firmware, unless its certificates need more pages."""

REFUSALS = {
    "status": 0x16,
    "generic": 0xFFFFFFFF << 32,
    "unknown": 3 << 32,
    "both-halves": (5 << 32) | 0x16,
    "malformed": 0,
}
"""Answers that are no success, without firmware being asked; `malformed` has SW_EXITINFO1 2."""

HOSTS = (
    "ok",
    "toctou",
    "busy",
    "too-small",
    "too-small-lie",
    "too-small-much",
    *BUSY,
    *LOST,
    *REPLAYS,
    *TAMPERED,
    *REFUSALS,
)
"""What a host may do with one exit. `lost` reports the generic error, `lost-status` a firmware status,
`exception` has SW_EXITINFO1 1 and nothing in SW_EXITINFO2.
`toctou`: the response is good until it was read once."""
