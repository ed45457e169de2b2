"""One entry of a baseline: a failure that is known, and what has become of it."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, date, datetime
from typing import Literal

import msgspec

from conformance.reports.version import SUITE

NOT_EXERCISED = "not-exercised"
"""Ends the signature of an entry that says: nothing exercises this MUST, since known failures stand in the way."""
Became = Literal["fixed", "changed", "review", "expired"]
"""What can make an entry need attention."""


def today() -> date:
    """The date that entries expire by, the same all over the world."""
    return datetime.now(UTC).date()


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an entry is in force; elsewhere it is passed over. All that is said must hold."""

    capabilities: tuple[str, ...] = ()
    """The candidate declares all of these."""
    suite: str = ""
    """Beginning of this suite's version: `0.1` holds for 0.1.0."""
    python: str = ""
    """Beginning of Python's version: `3.12`."""
    machine: str = ""
    """As `uname -m` says: `x86_64`."""

    def holds(self, capabilities: frozenset[str]) -> bool:
        """Whether it does here, for a candidate that declares these capabilities."""
        return (
            capabilities.issuperset(self.capabilities)
            and _begins(SUITE.rpartition(" ")[2], self.suite)
            and _begins(platform.python_version(), self.python)
            and self.machine in ("", platform.machine())
        )


def _begins(version: str, wanted: str) -> bool:
    """`3.1` is no beginning of 3.12.1."""
    return not wanted or f"{version}.".startswith(f"{wanted}.")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A failure that is known; one table of the file, in this order."""

    clause: str
    signature: str
    subsystem: str
    candidate: str
    """As given to --candidate."""
    profile: str
    status: Literal["known", "fixed", "changed", "review"] = "known"
    """What `baseline update` last saw."""
    first_seen: date
    last_seen: date
    """To the month: it is written again only where it is older than that, so that branches seldom meet in it."""
    reason: str = ""
    ticket: str = ""
    owner: str = ""
    expires: date | None = None
    """The last day on which it is accepted."""
    when: When = When()
    trace: str = ""
    """JSON, as in a trace file; empty where the clause is not exercised."""
    where: str = ""
    """Path and lines, for people; not in the file."""

    @property
    def id(self) -> str:
        """Names the entry in its file: the same on every branch that records the same failure."""
        return identifier(self.subsystem, self.candidate, self.profile, self.signature)

    @property
    def is_gap(self) -> bool:
        """Whether it is a clause that nothing exercises, and not a failure."""
        return self.signature == gap(self.clause)

    @property
    def is_tracked(self) -> bool:
        """Whether somebody or some day will see to it."""
        return bool(self.ticket) or self.expires is not None

    @property
    def why(self) -> str:
        """One line for reports: reason, ticket, owner, last day."""
        until = f"until {self.expires.isoformat()}" if self.expires is not None else ""
        return ", ".join(part for part in (self.reason, self.ticket, self.owner, until) if part)

    def stale(self, became: Became, told: str) -> Stale:
        """That it needs attention, in a sentence."""
        where = f" ({self.where})" if self.where else ""
        return Stale(self.clause, self.signature, self.id, became, f"{self.signature} {told}: {self.id}{where}")


class Stale(msgspec.Struct, frozen=True):
    """An entry that needs attention."""

    clause: str
    signature: str
    id: str
    became: Became
    text: str


def identifier(subsystem: str, candidate: str, profile: str, signature: str) -> str:
    """The id of the entry for this failure: its clause, and a digest of all that it is about."""
    told = f"{subsystem}\n{candidate}\n{profile}\n{signature}"
    digest = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()
    return f"{signature.partition(':')[0]}-{digest[:8]}"


def gap(clause: str) -> str:
    """The signature of what nothing exercises."""
    return f"{clause}:{NOT_EXERCISED}"
