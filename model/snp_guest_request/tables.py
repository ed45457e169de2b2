"""Certificate tables by name, and what a parser may make of them."""

from __future__ import annotations

from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.operations import ParseCerts
from conformance.model.snp_guest_request.state import State
from conformance.model.step import Outcome, Outcomes
from conformance.specs.snp_guest_request import clauses as c

TABLES: dict[str, tuple[str, ...]] = {
    "two": ("VCEK", "ASK"),
    "empty": (),
    "end-terminator": (),
    "stops-at-zero": ("VCEK",),
    "zero-length": ("VCEK",),
    "zero-length-first": ("VCEK", "ASK"),
    "duplicate": ("VCEK", "VCEK"),
    "overlap": ("VCEK", "ASK"),
    "in-header": ("VCEK",),
    "no-terminator": ("VCEK",),
    "beyond": ("VCEK",),
    "wraps": ("VCEK",),
    "short": (),
    "nothing": (),
}
"""Certificate tables by name, and the certificates in them that lie within the table."""

EMPTY_AFTER_ALL = ("zero-length", "short", "nothing")
"""Tables that hold no certificate: to find none in them is right."""

SOUND_TABLES = ("two", "empty", "end-terminator", "stops-at-zero")
"""Tables that must be parsed; of the others a parser may give the certificates named, fewer, or an error."""


def parse_certs(state: State, op: ParseCerts) -> Outcomes:
    """The certificates up to the zero entry; a table that is not sound gives an error or what is sound of it.

    It never reads as a table without certificates: a caller could not tell it from an empty one.
    """
    names = TABLES[op.table]
    plain = Outcome(state, (0, names), c.TABLE_BOUNDS)
    if op.table in SOUND_TABLES:
        return plain
    if op.table == "zero-length-first":
        # What is empty may be left out.
        return (plain, Outcome(state, (0, names[1:]), c.TABLE_BOUNDS), Outcome(state, (ERRNO, ()), c.TABLE_BOUNDS))
    least = 0 if op.table in EMPTY_AFTER_ALL else 1
    fewer = tuple(Outcome(state, (0, names[:n]), c.TABLE_BOUNDS) for n in range(least, len(names)))
    return (Outcome(state, (ERRNO, ()), c.TABLE_BOUNDS), plain, *fewer)
