"""Kind G: what a guest's driver may answer its caller, whatever the host does to it."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.hosts import (
    BUSY_SURELY_TAKEN,
    HONEST,
    HONEST_PAGES,
    LOST,
    REPLAYS,
    TAMPERED,
    script,
)
from conformance.model.snp_guest_request.operations import Answers, GetDerivedKey, GetExtReport, GetReport, Kexec, Open
from conformance.model.snp_guest_request.state import Guest, State
from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EBADMSG,
    EINVAL,
    EIO,
    ENOTTY,
    ETIMEDOUT,
    FW_BLOB_MAX_SIZE,
    PAGE_SIZE,
    TOO_SMALL_INFO2,
)

Call = GetReport | GetDerivedKey | GetExtReport


def call(state: State, op: Call, env: Answers) -> Outcomes:
    """One request of the caller: result, exitinfo2, answer, certificates, length needed.

    Returns:
        -EINVAL     certs_len is not acceptable; nothing was sent (SNP-091)
        -ENOTTY     the key was wiped (SNP-088)
        -EIO        the number would overflow, nothing was sent (SNP-085); or too small (SNP-086)
        -ETIMEDOUT  BUSY for more than 60 s (SNP-087)
        -EBADMSG    the response is not the answer to the request (SNP-089)
        0           the answer

    Source: sev-guest, handle_guest_request.
    """
    guest = state.guest
    assert guest is not None
    refused: list[Outcome] = []
    if type(op) is GetExtReport and op.buffer and (op.certs_len % PAGE_SIZE or op.certs_len > FW_BLOB_MAX_SIZE):
        refused.append(_result(state, -EINVAL, c.CERTS_LENGTH))
    if guest.wiped[guest.vmpck]:
        refused.append(_result(state, -ENOTTY, c.WIPE))
    elif guest.counts[guest.vmpck] + 1 >= 2**32 - 1:
        refused.append(_result(state, -EIO, c.SEQUENCE))
    if env.alloc_pages or env.set_decrypted:
        refused.append(_result(state, ERRNO, c.SHARED_PAGES_BACK))
    return tuple(refused) or _exchange(state, guest, op)


def _exchange(state: State, guest: Guest, op: Call) -> Outcomes:
    """Follow the host's treatment of each exit to the end."""
    extended = type(op) is GetExtReport
    pages = op.certs_len // PAGE_SIZE if type(op) is GetExtReport and op.buffer else 0
    exits = script(op.host)
    busy, needed, host = 0, 0, exits.pop(0) if exits else "ok"
    while host == "busy":
        busy += 1
        if busy > BUSY_SURELY_TAKEN + 1:
            return _wiped(state, guest, -ETIMEDOUT, c.BUSY_RESEND)
        host = exits.pop(0) if exits else "ok"
    also: tuple[Clause, ...] = (c.BUSY_RESEND,) if busy else ()
    timeout: tuple[Outcome, ...] = ()
    if busy > BUSY_SURELY_TAKEN:
        timeout = (_wiped(state, guest, -ETIMEDOUT, c.BUSY_RESEND),)
    if extended and (host.startswith("too-small") or (host in HONEST and pages < HONEST_PAGES)):
        needed = 1 if host == "too-small-lie" else HONEST_PAGES
        host = exits.pop(0) if exits else "ok"
        while host == "busy":
            busy += 1
            if busy > BUSY_SURELY_TAKEN + 1:
                return _wiped(state, guest, -ETIMEDOUT, c.BUSY_RESEND)
            host = exits.pop(0) if exits else "ok"
    if host == "toctou":
        good = _end(state, guest, op, "ok", needed, (*also, c.RESPONSE_CHECKED))
        return (good, _end(state, guest, op, "corrupt", needed, also), *timeout)
    return (_end(state, guest, op, host, needed, also), *timeout)


def _end(state: State, guest: Guest, op: Call, host: str, needed: int, also: tuple[Clause, ...]) -> Outcome:
    """What the last exit of the exchange leads to."""
    if host == "ok":
        after = replace(state, guest=_counted(guest)._replace(answered=True))
        if needed:
            result = (-EIO, TOO_SMALL_INFO2, None, None, needed * PAGE_SIZE)
            because = also[0] if also else c.TOO_SMALL_RESEND
            return Outcome(after, result, because, c.TOO_SMALL_RESEND, (c.TOO_SMALL_RESEND, c.COUNTERS, c.SEQUENCE))
        kind = "key" if type(op) is GetDerivedKey else "report"
        certs = "certs" if type(op) is GetExtReport else None
        because = also[0] if also else c.SEQUENCE
        clauses = (
            c.SEQUENCE,
            c.NO_IV_REUSE,
            c.RESPONSE_CHECKED,
            c.COUNTERS,
            c.RESPONSE_HEADER,
            c.PRIVATE_ENCRYPTION,
            *also,
        )
        clauses += () if type(op) is GetDerivedKey else (c.SIGNATURE,)
        return Outcome(after, (0, 0, kind, certs, 0), because, c.COUNTERS, clauses)
    if host in REPLAYS or host in TAMPERED:
        processed = _counted(guest) if host in TAMPERED else guest
        clause = c.PRIVATE_ENCRYPTION if host in REPLAYS else c.RESPONSE_CHECKED
        return _wiped(state, processed, -EBADMSG, clause, (c.RESPONSE_CHECKED,))
    return _wiped(state, _counted(guest) if host in LOST else guest, ERRNO, c.WIPE)


def _counted(guest: Guest) -> Guest:
    counts = list(guest.counts)
    counts[guest.vmpck] += 2
    return guest._replace(counts=tuple(counts))


def _wiped(state: State, guest: Guest, result: object, clause: Clause, also: tuple[Clause, ...] = ()) -> Outcome:
    wiped = list(guest.wiped)
    wiped[guest.vmpck] = True
    after = replace(state, guest=guest._replace(wiped=tuple(wiped)))
    return Outcome(after, (result, None, None, None, 0), clause, c.WIPE, also)


def _result(state: State, errno: object, clause: Clause) -> Outcome:
    return Outcome(state, (errno, None, None, None, 0), clause, clause)


def open_(state: State, op: Open | Kexec, env: Answers) -> Outcome:
    """The driver starts, unless the key is disabled, does not exist, or pages cannot be had."""
    guest = state.guest
    assert guest is not None
    if op.vmpck > 3 or guest.wiped[op.vmpck] or env.alloc_pages or env.set_decrypted:
        return Outcome(replace(state, guest=guest._replace(opened=False)), ERRNO, c.WIPE)
    return Outcome(replace(state, guest=guest._replace(opened=True, vmpck=op.vmpck)), 0, c.SEQUENCE)


def close(state: State) -> Outcome:
    """The driver stops; its pages are the guest's again, or leaked."""
    guest = state.guest
    assert guest is not None
    return Outcome(replace(state, guest=guest._replace(opened=False)), 0, c.SHARED_PAGES_BACK)
