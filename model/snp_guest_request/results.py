"""What an exit or an entry point may answer."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.model.step import Outcome, Outcomes
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import MALFORMED, RESUME
from conformance.specs.snp_guest_request.profiles import Profile


@dataclass(frozen=True, slots=True, eq=False)
class AnyErrno:
    """Equals every negative errno: the clause asks for an error and names none."""

    def __eq__(self, other: object) -> bool:
        return type(other) is int and other < 0

    def __repr__(self) -> str:
        return "a negative errno"


@dataclass(frozen=True, slots=True, eq=False)
class AnyRefusal:
    """Equals a negative errno, and every resumption in which the guest does not see success."""

    def __eq__(self, other: object) -> bool:
        if type(other) is tuple and other[0] == RESUME:
            return bool(other[1] or other[2])
        return type(other) is int and other < 0

    def __repr__(self) -> str:
        return "an errno, or an answer that is no success"


ERRNO = AnyErrno()
REFUSAL = AnyRefusal()
SUCCESS = (RESUME, 0, 0, None)


def malformed(reason: int) -> tuple[object, ...]:
    """The result of a malformed input: SW_EXITINFO1, SW_EXITINFO2, and RBX unchanged."""
    return (RESUME, MALFORMED, reason, None)


def answer(info2: int, rbx: int | None = None) -> tuple[object, ...]:
    """The result of a request that was taken: RBX is given only where it was too small."""
    return (RESUME, 0, info2, rbx)


def posted_or(profile: Profile, status: int, reason: int) -> tuple[object, ...]:
    """A refusal of the input: in the low half as posted, else malformed."""
    return answer(status) if profile.errors == "posted" else malformed(reason)


def each_of(outcomes: Outcomes) -> tuple[Outcome, ...]:
    """One outcome or several, as several."""
    return outcomes if isinstance(outcomes, tuple) else (outcomes,)


INERT = (c.MALFORMED_IS_INERT, c.CHECK_ORDER)
