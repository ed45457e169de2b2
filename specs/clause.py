"""The record of one normative sentence, and of the named choices where sources disagree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How binding a clause is, in the words of RFC 2119."""

    MUST = "MUST"
    MUST_NOT = "MUST NOT"
    SHOULD = "SHOULD"
    MAY = "MAY"

    @property
    def is_binding(self) -> bool:
        """True where a breach means that the candidate does not conform."""
        return self in (Level.MUST, Level.MUST_NOT)


class Kind(Enum):
    """Where a clause is observed."""

    RESPONSE = "response"
    STATE = "state"
    ENV_PROTOCOL = "env-protocol"
    ORDERING = "ordering"
    RESOURCE = "resource"
    SECURITY = "security"
    INVARIANT = "invariant"


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """One sentence that can be false of a candidate.

    Clauses compare and hash by identity: each is one constant of its catalogue.
    """

    id: str
    """Prefix of the subsystem and three digits: `UIO-009`."""
    level: Level
    kind: Kind
    text: str
    """One sentence, in our words."""
    source: str
    """Where the sentence comes from; says so when the source was not verified."""
    profiles: frozenset[str] = frozenset()
    """Names of the profiles it holds in; empty means all of them."""
    needs: frozenset[str] = frozenset()
    """Capabilities a candidate must declare for the clause to apply to it."""
    untestable: str = ""
    """One sentence why no check exercises it; empty when one does."""
    minimum: int = 1
    """How often a run must exercise it before it may be called passed."""

    def __str__(self) -> str:
        return self.id

    def applies(self, profile: str, capabilities: frozenset[str]) -> bool:
        """Whether a candidate of this profile with these capabilities is held to the clause."""
        return (not self.profiles or profile in self.profiles) and self.needs <= capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named choice where sources disagree; subsystems add one field per choice."""

    name: str
    """`upstream`, `as-posted`, …"""
    text: str
    """One sentence for `conformance list`."""
