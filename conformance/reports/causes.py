"""Failures that come from one place, told together: one cause often breaks many clauses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conformance.specs.clause import Clause
from conformance.verdict import Failure


@dataclass(frozen=True, slots=True)
class Cause:
    """One place in which something goes wrong, and what is broken by it."""

    place: str
    """`open, pci_enable_msix`: the operation and, where it is known, the environment call."""
    failures: tuple[Failure, ...]
    """Those with the shortest traces first."""

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """What is broken, the most telling first."""
        return tuple(dict.fromkeys(failure.clause for failure in self.failures))


def causes(failures: Sequence[Failure]) -> list[Cause]:
    """Failures by the place in which they first diverge: the plainest cause first, and of equal ones that of most."""
    grouped: dict[str, list[Failure]] = {}
    for failure in sorted(failures, key=_length):
        grouped.setdefault(_place(failure), []).append(failure)
    found = [Cause(place, tuple(group)) for place, group in grouped.items()]
    return sorted(found, key=lambda cause: (_length(cause.failures[0]), -len(cause.failures)))


def _place(failure: Failure) -> str:
    cause = getattr(failure.story, "cause", "")
    return cause or failure.operation


def _length(failure: Failure) -> int:
    return len(failure.trace.steps) if failure.trace is not None else 0
