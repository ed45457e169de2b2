"""Kind G: what a guest's driver may answer its caller, whatever the host does to it."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.snp_guest_request.hypervisor import ERRNO
from conformance.model.snp_guest_request.state import (
    Answers,
    Close,
    GetDerivedKey,
    GetExtReport,
    GetReport,
    Guest,
    Kexec,
    Open,
    ParseCerts,
    State,
)
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

HONEST_PAGES = 2
"""Pages that the honest host's certificates need."""

BUSY = {"busy-long": 28, "busy-forever": 40}
"""How often the host says BUSY, by name: for less than 60 s, and for more."""

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
    *BUSY,
    *LOST,
    *REPLAYS,
    *TAMPERED,
    *REFUSALS,
)
"""What a host may do with one exit. `lost` reports the generic error, `lost-status` a firmware status,
`exception` has SW_EXITINFO1 1 and nothing in SW_EXITINFO2.
`toctou`: the response is good until it was read once."""

BUSY_SURELY_TAKEN = 30
"""After so many BUSY, 2 s apart, the driver still tries; with two more it must have given up."""

TABLES: dict[str, tuple[str, ...]] = {
    "two": ("VCEK", "ASK"),
    "empty": (),
    "end-terminator": (),
    "stops-at-zero": ("VCEK",),
    "zero-length": ("VCEK",),
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

SOUND_TABLES = ("two", "empty", "end-terminator", "stops-at-zero")
"""Tables that must be parsed; of the others a parser may give the certificates named, fewer, or an error."""


def script(host: tuple[str, ...]) -> list[str]:
    """The host's treatment of one exit after the other."""
    return [step for name in host for step in (("busy",) * BUSY[name] if name in BUSY else (name,))]


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


def parse_certs(state: State, op: ParseCerts) -> Outcomes:
    """The certificates up to the zero entry; a table that is not sound gives an error or what is sound of it."""
    names = TABLES[op.table]
    plain = Outcome(state, (0, names), c.TABLE_BOUNDS)
    if op.table in SOUND_TABLES:
        return plain
    fewer = tuple(Outcome(state, (0, names[:n]), c.TABLE_BOUNDS) for n in range(len(names)))
    return (Outcome(state, (ERRNO, ()), c.TABLE_BOUNDS), plain, *fewer)


def legal(state: State, op: object) -> bool:
    """What the world can do at all, kind G."""
    guest = state.guest
    assert guest is not None
    match op:
        case GetReport() | GetExtReport():
            # How large an answer a driver has room for is left open, but for a key.
            return guest.opened and "sealed-size" not in op.host
        case GetDerivedKey() | Close():
            return guest.opened
        case Open():
            return not guest.opened
        case Kexec() | ParseCerts():
            return True
        case _:
            return False
