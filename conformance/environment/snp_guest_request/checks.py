"""Clauses that neither result nor view shows: predicates over one judged step."""

from __future__ import annotations

from conformance.environment.snp_guest_request.tasks import Task
from conformance.environment.snp_guest_request.world import World
from conformance.model.snp_guest_request.operations import Continue, ExtGuestRequest, GuestRequest, UnknownExit
from conformance.model.snp_guest_request.results import UNTOUCHED
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    MALFORMED,
    RESUME,
    TOO_SMALL_INFO2,
)
from conformance.subsystem import Check, Record

FIRMWARE_CALLS = frozenset({"snp_guest_request", "snp_page_reclaim", "snp_config", "snp_gctx_create"})
RMP_CALLS = frozenset({"rmp_make_private", "rmp_make_shared"})
GUEST_WRITES = frozenset({"write_guest", "clear_guest"})


def _made(record: Record, names: frozenset[str]) -> str:
    """The first call of those names, empty when none was made."""
    return next((name for name, _, _ in record.calls if name in names), "")


def _task(record: Record) -> Task:
    """What the operation came to."""
    assert isinstance(record.env, World)
    task = record.env.tasks.last
    assert task is not None
    return task


def _resumed(record: Record) -> tuple[int, int] | None:
    """SW_EXITINFO1 and SW_EXITINFO2 where the guest goes on and was told something."""
    result = record.result
    told = type(result) is tuple and result[0] == RESUME and result != UNTOUCHED
    return (result[1], result[2]) if told else None


def malformed_is_inert(record: Record) -> bool | str:
    """A malformed answer comes with no command, no RMP change and no write to guest memory."""
    told = _resumed(record)
    if told is None or told[0] != MALFORMED:
        return False
    made = _made(record, FIRMWARE_CALLS | RMP_CALLS | GUEST_WRITES)
    return f"{made} was called though the answer is malformed" if made else True


def too_small_is_inert(record: Record) -> bool | str:
    """No firmware command runs for a request whose data buffer is too small."""
    if _resumed(record) != (0, TOO_SMALL_INFO2):
        return False
    made = _made(record, FIRMWARE_CALLS)
    return f"{made} was called though the data buffer was too small" if made else True


def cheap_checks_first(record: Record) -> bool | str:
    """The RMP is not touched for a request whose data buffer is too small."""
    if _resumed(record) != (0, TOO_SMALL_INFO2):
        return False
    made = _made(record, RMP_CALLS)
    return f"{made} was called before the size was checked" if made else True


def busy_is_inert(record: Record) -> bool | str:
    """BUSY is only answered when no command ran."""
    if _resumed(record) != (0, BUSY_INFO2):
        return False
    return "BUSY was answered after a firmware command" if _task(record).issued else True


def ran_or_not(record: Record) -> bool | str:
    """A high half means that no command ran, a firmware status that one did."""
    told = _resumed(record)
    if told is None or told[0] or record.profile.errors == "posted":
        return False
    ran = _task(record).ran
    if told[1] >> 32 and ran:
        return f"SW_EXITINFO2 {told[1]:#x} says not processed, but a command ran"
    if not told[1] >> 32 and not ran:
        return f"SW_EXITINFO2 {told[1]:#x} is firmware's, but no command ran"
    return True


def one_command(record: Record) -> bool | str:
    """A request that firmware answered was put to it exactly once."""
    told = _resumed(record)
    if told is None or told[0] or told[1] >> 32 or record.profile.errors == "posted":
        return False
    issued = _task(record).issued
    return True if issued == 1 else f"{issued} commands were issued for one request"


def answer_is_valid(record: Record) -> bool | str:
    """What the guest is answered carries its valid bits."""
    if _resumed(record) is None:
        return False
    clear = _task(record).invalid
    return f"the valid bit of {' and '.join(clear)} is clear" if clear else True


def no_success_left(record: Record) -> bool | str:
    """A vCPU that is run again after an errno finds no success."""
    if type(record.result) is not int or record.profile.errors == "posted":
        return False
    return "the GHCB says success though KVM_RUN returned an errno" if _task(record).left_success else True


def exits_before_command(record: Record) -> bool | str:
    """No firmware command runs before userspace was asked."""
    if type(record.result) is not tuple or record.result[0] == RESUME:
        return False
    made = _made(record, FIRMWARE_CALLS)
    return f"{made} was called before userspace supplied certificates" if made else True


def is_killable(record: Record) -> bool | str:
    """A request waits for its lock so that it can be killed."""
    names = {name for name, _, _ in record.calls}
    if "mutex_lock" in names:
        return "a request waits uninterruptibly for a lock"
    return "mutex_lock_killable" in names


_COMPLETION = (
    Check(c.RAN_OR_NOT, ran_or_not),
    Check(c.ONE_COMMAND, one_command),
    Check(c.BUSY_IS_INERT, busy_is_inert),
    Check(c.TOO_SMALL, too_small_is_inert),
    Check(c.CHEAP_CHECKS_FIRST, cheap_checks_first),
    Check(c.KILLABLE, is_killable),
    Check(c.OUTPUT_VALID, answer_is_valid),
    Check(c.NO_SUCCESS_LEFT, no_success_left),
)
_MALFORMED = Check(c.MALFORMED_IS_INERT, malformed_is_inert)

CHECKS = {
    GuestRequest: (_MALFORMED, *_COMPLETION),
    ExtGuestRequest: (_MALFORMED, Check(c.CERTS_EXIT, exits_before_command), *_COMPLETION),
    UnknownExit: (_MALFORMED, Check(c.OUTPUT_VALID, answer_is_valid)),
    Continue: _COMPLETION,
}
