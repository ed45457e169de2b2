"""Kind G: what a guest's driver may answer its caller, whatever the host does to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.model.matchers import ANYTHING, ERRNO, OneOf
from conformance.model.snp_guest_request.hosts import (
    BUSY,
    HONEST,
    HONEST_PAGES,
    LOST,
    NEEDED,
    REPLAYS,
    SEALED,
    TAMPERED,
)
from conformance.model.snp_guest_request.operations import (
    KNOWN_FIELDS,
    Answers,
    GetDerivedKey,
    GetExtReport,
    GetReport,
    Kexec,
    Open,
)
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
from conformance.specs.snp_guest_request.profiles import Profile

Call = GetReport | GetDerivedKey | GetExtReport


def call(state: State, op: Call, env: Answers, profile: Profile) -> Outcomes:
    """One request of the caller: result, exitinfo2, answer, certificates, length needed.

    Returns:
        -EINVAL     certs_len is not acceptable; nothing was sent (SNP-091); without a buffer it need not be looked at
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
    is_odd = type(op) is GetExtReport and (op.certs_len % PAGE_SIZE != 0 or op.certs_len > FW_BLOB_MAX_SIZE)
    length = (_unsent(state, -EINVAL, c.CERTS_LENGTH),) if is_odd else ()
    if type(op) is GetExtReport and op.buffer:
        refused += length
    if guest.wiped[guest.vmpck]:
        refused.append(_unsent(state, -ENOTTY, c.WIPE))
    elif _stored(guest) + 1 >= 2**32 - 1:
        refused.append(_unsent(state, -EIO, c.SEQUENCE))
    if env.alloc_pages or env.set_decrypted:
        refused.append(_unsent(state, ERRNO, c.SHARED_PAGES_BACK))
    ends = tuple(refused) or _exchange(state, guest, op, profile)
    return (*ends, *length)


def _stored(guest: Guest) -> int:
    """The sequence number that the driver has stored."""
    return guest.counts[guest.vmpck] + 2 * guest.ahead[guest.vmpck]


def _unsent(state: State, errno: object, clause: Clause) -> Outcome:
    return Outcome(state, (errno, ANYTHING, None, None, 0), clause, clause)


def _exchange(state: State, guest: Guest, op: Call, profile: Profile) -> tuple[Outcome, ...]:
    """Follow the host's treatment of each exit to the end."""
    pages = op.certs_len // PAGE_SIZE if type(op) is GetExtReport and op.buffer else 0
    exits = iter(op.host)
    end = _End(state, guest, op, profile)
    host, timeout = end.delayed(exits)
    if type(op) is GetExtReport and (host.startswith("too-small") or (host in HONEST and pages < HONEST_PAGES)):
        end.needed = NEEDED.get(host, HONEST_PAGES)
        host, timeout = end.delayed(exits)
    return (*(() if host == "busy-forever" else end.of(host)), *timeout)


class _End:
    """The ways in which one exchange may end."""

    def __init__(self, state: State, guest: Guest, op: Call, profile: Profile) -> None:
        self.state, self.guest, self.op = state, guest, op
        self.keeps = profile.resend == "keeps"
        self.needed = 0
        """Pages that the host said it needs, 0 while it did not."""
        self.busy: list[str] = []
        """How the host kept it waiting."""

    def delayed(self, exits: Iterator[str]) -> tuple[str, tuple[Outcome, ...]]:
        """What follows BUSY, and the ends that waiting for it may have; "busy-forever" when nothing follows.

        How long a driver waits between two tries is its own business: after 50 s it still tries, and after a little
        more it may have given up.
        """
        host = next(exits, "ok")
        while host in ("busy", "busy-long"):
            self.busy.append(host)
            host = next(exits, "ok")
        if host == "busy-forever":
            self.busy.append(host)
        given_up = (set(self.busy) & set(BUSY) and len(self.busy) > 1) or host == "busy-forever"
        return host, self._wiped(self.guest, -ETIMEDOUT, c.BUSY_RESEND) if given_up else ()

    def of(self, host: str) -> tuple[Outcome, ...]:
        """What the last exit of the exchange leads to."""
        guest, counted = self.guest, _counted(self.guest)
        if guest.ahead[guest.vmpck] and host in HONEST:
            # Firmware does not take the number.
            return self._refused(guest)
        if host == "ok":
            return (self._answered(counted), *self._declined(counted))
        if host == "toctou":
            answered = self._answered(counted, (c.RESPONSE_CHECKED,))
            return (answered, *self._declined(counted), *self.of("corrupt"))
        if host in REPLAYS or host in TAMPERED:
            after = counted if host in TAMPERED else guest
            clause = c.PRIVATE_ENCRYPTION if host in REPLAYS else c.RESPONSE_CHECKED
            clause = c.SEALED_HEADER if host in SEALED else clause
            wiped = self._wiped(after, -EBADMSG, clause, (c.RESPONSE_CHECKED,))
            if self.needed:
                # Nobody waits for that response, so nobody has to look at it.
                return (*wiped, self._kept(after if host in TAMPERED else _ahead(guest), c.TOO_SMALL_RESEND))
            return (*wiped, *self._believed(counted, host))
        return self._refused(counted if host in LOST else guest)

    def _because(self, plain: Clause) -> Clause:
        return c.BUSY_RESEND if self.busy else plain

    def _answered(self, guest: Guest, also: tuple[Clause, ...] = ()) -> Outcome:
        """The exchange is complete."""
        if self.needed:
            return self._kept(guest._replace(answered=True), self._because(c.TOO_SMALL_RESEND))
        after = replace(self.state, guest=guest._replace(answered=True))
        clauses = (
            c.SEQUENCE,
            c.NO_IV_REUSE,
            c.RESPONSE_CHECKED,
            c.PRIVATE_ENCRYPTION,
            *also,
        )
        clauses += () if type(self.op) is GetDerivedKey else (c.SIGNATURE,)
        because = self._because(also[0] if also else c.SEQUENCE)
        return Outcome(after, self._success(self._kind()), because, c.SEQUENCE, clauses)

    def _declined(self, guest: Guest) -> tuple[Outcome, ...]:
        """Firmware's answer may say no: the caller is given that answer, or an errno for it."""
        if type(self.op) is not GetDerivedKey or not self.op.fields >> KNOWN_FIELDS:
            return ()
        after = replace(self.state, guest=guest._replace(answered=True))
        return (Outcome(after, (ERRNO, ANYTHING, None, None, 0), c.AS_ASKED, c.SEQUENCE),)

    def _kind(self) -> str:
        return "key" if type(self.op) is GetDerivedKey else "report"

    def _success(self, kind: object) -> tuple[object, ...]:
        return (0, 0, kind, "certs" if type(self.op) is GetExtReport else None, 0)

    def _believed(self, guest: Guest, host: str) -> tuple[Outcome, ...]:
        """A driver that leaves it at the tag takes what somebody sealed who has its key."""
        if host not in SEALED:
            return ()
        kind: object = OneOf(frozenset({"key", "another key"})) if host == "sealed-size" else self._kind()
        after = replace(self.state, guest=guest._replace(answered=True))
        return (Outcome(after, self._success(kind), c.SEALED_HEADER, breaches=(c.SEALED_HEADER,)),)

    def _kept(self, guest: Guest, because: Clause) -> Outcome:
        """The caller is told how much room the certificates need, and the key stays usable."""
        result = (-EIO, TOO_SMALL_INFO2, None, None, self.needed * PAGE_SIZE)
        also = (c.TOO_SMALL_RESEND, c.SEQUENCE)
        return Outcome(replace(self.state, guest=guest), result, because, c.TOO_SMALL_RESEND, also)

    def _refused(self, guest: Guest) -> tuple[Outcome, ...]:
        """An answer that is no success: the key is wiped; released Linux keeps it after "too small"."""
        ends = self._wiped(guest, ERRNO, c.WIPE)
        if self.keeps and self.needed:
            asked = guest.counts != self.guest.counts
            ends = (self._kept(guest if asked else _ahead(guest), c.WIPE), *ends)
        return ends

    def _wiped(
        self,
        guest: Guest,
        result: object,
        clause: Clause,
        also: tuple[Clause, ...] = (),
    ) -> tuple[Outcome, ...]:
        """The key is gone; after "too small" the caller may be told of that, whatever came then."""
        wiped = list(guest.wiped)
        wiped[guest.vmpck] = True
        after = replace(self.state, guest=guest._replace(wiped=tuple(wiped)))
        plain = Outcome(after, (result, ANYTHING, None, None, 0), clause, c.WIPE, also)
        if not self.needed:
            return (plain,)
        return (plain, replace(plain, result=(result, TOO_SMALL_INFO2, None, None, self.needed * PAGE_SIZE)))


def _counted(guest: Guest) -> Guest:
    """Firmware has answered one message more."""
    return guest._replace(counts=_plus(guest.counts, guest.vmpck, 2))


def _ahead(guest: Guest) -> Guest:
    """The driver has counted an exchange that firmware saw nothing of."""
    return guest._replace(ahead=_plus(guest.ahead, guest.vmpck, 1))


def _plus(numbers: tuple[int, ...], at: int, more: int) -> tuple[int, ...]:
    return (*numbers[:at], numbers[at] + more, *numbers[at + 1 :])


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
