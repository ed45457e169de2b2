"""What an exit or an entry point may answer."""

from __future__ import annotations

from conformance.model.matchers import ERRNO, Such
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import EAGAIN, EINTR, MALFORMED, RESUME
from conformance.specs.snp_guest_request.profiles import Profile


def _is_refusal(result: object) -> bool:
    if type(result) is tuple and result[0] == RESUME:
        return result[1:3] != (0, 0)
    return result == ERRNO


REFUSAL = Such("an errno, or an answer that is no success", _is_refusal)
"""A negative errno, and every resumption in which the guest does not see success."""
LASTING = Such(
    "an errno that asks nobody to try again", lambda result: result == ERRNO and -result not in (EINTR, EAGAIN)
)
"""What is wrong stays wrong, and no interface says which errno that is."""
UNTOUCHED = (RESUME, None, None, None)
"""The guest goes on and finds its GHCB as it left it: no answer, and its own inputs are no success."""
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


INERT = (c.MALFORMED_IS_INERT, c.CHECK_ORDER)
