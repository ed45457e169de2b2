"""One inhabitant of the zoo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defect:
    """A known defect of some real design, and the wrong candidate that has it alone."""

    id: str
    """As in the facts: `UIO-D05`."""
    text: str
    """One sentence: what it does wrong."""
    candidate: type | None = None
    """The wrong candidate; None where `why_not` says why there is none."""
    clauses: tuple[str, ...] = ()
    """Ids of the clauses that may be cited for it."""
    steps: int | None = None
    """Length of the shortest trace that shows it, where the facts give one."""
    why_not: str = ""
    """One sentence why it cannot be expressed as a candidate."""
    note: str = ""
    """Why a clause beyond those the facts name is right, where that is so."""
