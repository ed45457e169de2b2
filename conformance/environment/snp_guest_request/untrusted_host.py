"""The host as a guest must take it to be: it may do anything to messages."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from conformance.environment.door import Environment, Frame
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.clock import Clock
from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.firmware import vmpck
from conformance.environment.snp_guest_request.honest_host import HonestHost
from conformance.environment.snp_guest_request.report import Header, seal, unseal
from conformance.environment.snp_guest_request.shared_pages import SharedPages, Window
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.model.snp_guest_request.hosts import BUSY, BUSY_LONG, HONEST_PAGES, NEEDED, REFUSALS, TAMPERED
from conformance.model.snp_guest_request.operations import GetExtReport
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EXT_GUEST_REQUEST,
    GENERIC_INFO2,
    HEADER_SIZE,
    INVALID_PARAM,
    KEY_RSP_SIZE,
    PAGE_SIZE,
    TOO_SMALL_INFO2,
)
from conformance.verdict import Violation

_TAMPER = {
    "wrong-number": (0x20, 2),
    "wrong-type": (0x34, 2),
    "wrong-version": (0x35, 2),
    "size-huge": (0x37, 0xFF),
    "corrupt": (0x70, 1),
    "tag": (0x00, 1),
}
"""Offset and bits that the host flips in the response."""
_RESEAL = {
    "sealed-number": lambda answer, body: (replace(answer, number=answer.number + 2), body),
    "sealed-type": lambda answer, body: (replace(answer, type=answer.type + 2), body),
    "sealed-version": lambda answer, body: (replace(answer, version=2), body),
    "sealed-size": lambda answer, body: (replace(answer, size=KEY_RSP_SIZE + 16), body.ljust(KEY_RSP_SIZE + 16, b"\0")),
}
"""What an adversary who has the key makes of the response, so that no tag gives it away."""


BUSY_SECONDS = 60
"""For so long a guest may be told BUSY before it gives up."""


class Exchange:
    """What the host does with the exits of one operation."""

    __slots__ = ("last", "script", "since", "small")

    def __init__(self, script: list[str]) -> None:
        self.script = script
        """The treatment of one exit after the other; honest when it is at its end."""
        self.since = -1
        """When the treatment was begun that lasts; -1 while none does."""
        self.last = (0, 0)
        """SW_EXITINFO1 and SW_EXITINFO2 of its last answer."""
        self.small = False
        """It said that the data buffer is too small."""

    def next(self, now: int) -> str:
        """The treatment of an exit at this time."""
        host = self.script[0] if self.script else "ok"
        if host in BUSY:
            self.since = now if self.since < 0 else self.since
            if host == "busy-forever" or now - self.since < BUSY_LONG:
                return "busy"
            self.since = -1
            del self.script[0]
            return self.next(now)
        return self.script.pop(0) if self.script else "ok"


class UntrustedHost(Simulator):
    """VMGEXIT of a guest whose host delays, drops, replays, refuses and changes messages, as each operation plans it.

    Firmware can be trusted, so what reaches it is answered; what the guest sends the host sees, and remembers.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_IV_REUSE,
        c.BUSY_RESEND,
        c.PRIVATE_ENCRYPTION,
        c.TOO_SMALL_RESEND,
        c.CERTS_LENGTH,
        c.CERTS_PAGES_CLEAR,
        c.ROBUST,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"guest_exit": (c.NO_IV_REUSE, c.ONE_LOCK)}

    def __init__(
        self, door: Environment, tasks: Tasks, shared: SharedPages, clock: Clock, honest: HonestHost, suite: Suite
    ) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.shared = shared
        self.clock = clock
        self.honest = honest
        self.suite = suite
        self.exchanges: dict[Frame, Exchange] = {}
        """By operation."""
        self.sent: dict[tuple[int, int], bytes] = {}
        """By key and number, the message that was encrypted with them."""
        self.busy_at: dict[bytes, int] = {}
        """By message, when it was answered BUSY."""
        self.busy_since: dict[bytes, int] = {}
        """By message, when it was first answered BUSY, and nothing else since."""

    def plan(self, treatments: list[str]) -> None:
        """How the exits of the running operation will be treated."""
        self.exchanges[self.door.frame] = Exchange(treatments)

    def end(self) -> Exchange:
        """The running operation has ended; what the host did with its exits."""
        return self.exchanges.pop(self.door.frame, None) or Exchange([])

    def guest_exit(self, code: int, info1: int, info2: int, rax: int, rbx: int) -> tuple[int, int, int]:
        request, response = self.shared.window(info1), self.shared.window(info2)
        for window in (request, response):
            self.shared.judge_alone(window.region, window.offset, PAGE_SIZE)
            if not window.region.shared:
                raise Violation(c.ROBUST, "a page given to the host is not shared with it")
        response.is_left_alone()
        page = bytes(request.data)
        header = Header.decode(page)
        message = page[: HEADER_SIZE + min(header.size, PAGE_SIZE - HEADER_SIZE)]
        self._judge_sent(header, message, response)
        exchange = self.exchanges.setdefault(self.door.frame, Exchange([]))
        host = exchange.next(self.clock.seconds)
        extended = code == EXT_GUEST_REQUEST
        op = self.tasks.current.op
        if extended and exchange.small:
            raise Violation(c.TOO_SMALL_RESEND, "after too small the message is sent as an extended request again")
        if extended and isinstance(op, GetExtReport):
            given = op.certs_len // PAGE_SIZE if op.buffer else 0
            if rbx < given or (rbx and not given):
                raise Violation(c.CERTS_LENGTH, f"{rbx} pages are offered where the caller gave {given}")
            if rbx:
                self._judge_offered(rax, rbx)
        told = self._treat(host, extended, header, response, page, rax, rbx)
        exchange.last = told[:2]
        exchange.small |= extended and told[:2] == (0, TOO_SMALL_INFO2)
        return told

    def _treat(
        self, host: str, extended: bool, header: Header, response: Window, page: bytes, rax: int, rbx: int
    ) -> tuple[int, int, int]:
        """What the host answers, by the name of its treatment."""
        message = page[: HEADER_SIZE + min(header.size, PAGE_SIZE - HEADER_SIZE)]
        if host == "busy":
            self.busy_at[message] = self.clock.seconds
            self.busy_since.setdefault(message, self.clock.seconds)
            return 0, BUSY_INFO2, rbx
        self.busy_since.pop(message, None)
        if host == "too-small" or host in NEEDED:
            return 0, TOO_SMALL_INFO2, NEEDED.get(host, HONEST_PAGES)
        if host in REFUSALS:
            return (2, 5, rbx) if host == "malformed" else (0, REFUSALS[host], rbx)
        if host == "drop":
            return 0, 0, rbx
        if host == "replay":
            response.data[: len(self.honest.previous)] = self.honest.previous
            return 0, 0, rbx
        info1_, info2_, rbx = self.honest.answer(page, response, rax, rbx, extended=extended)
        if info2_ or info1_:
            return info1_, info2_, rbx
        if host == "lost":
            return 0, GENERIC_INFO2, rbx
        if host == "lost-status":
            return 0, INVALID_PARAM, rbx
        if host == "exception":
            return 1, 0, rbx
        if host in TAMPERED:
            self._tamper(host, header, response)
        elif host == "toctou":
            response.changes_once_read()
        return 0, 0, rbx

    def _judge_sent(self, header: Header, message: bytes, response: Window) -> None:
        """What the host sees of a message: its number was never used for another, and the response page is clear."""
        known = self.sent.setdefault((header.vmpck, header.number), message)
        if known != message:
            raise Violation(
                c.NO_IV_REUSE, f"VMPCK{header.vmpck} encrypts two different messages under number {header.number}"
            )
        busy = self.busy_at.pop(message, None)
        if busy is not None and self.clock.seconds - busy < 1:
            raise Violation(c.BUSY_RESEND, "after BUSY the message is sent again without a delay")
        seconds = 0 if busy is None else busy - self.busy_since[message]
        if seconds > BUSY_SECONDS:
            raise Violation(c.BUSY_RESEND, f"after {seconds} s of BUSY the message is sent again")
        if any(response.data[:HEADER_SIZE]):
            raise Violation(c.PRIVATE_ENCRYPTION, "the response page is not cleared before sending")
        self.door.hold(c.NO_IV_REUSE)

    def _judge_offered(self, rax: int, rbx: int) -> None:
        """Pages for certificates show the host nothing, and their caller nothing but the host's (SNP-098)."""
        region, offset = self.shared.within(rax, rbx * PAGE_SIZE)
        self.shared.judge_alone(region, offset, rbx * PAGE_SIZE)
        clear = not any(region.data[offset : offset + rbx * PAGE_SIZE])
        self.door.require(c.CERTS_PAGES_CLEAR, clear, "pages are offered for certificates that are not clear")

    def _tamper(self, host: str, asked: Header, response: Window) -> None:
        if host in _RESEAL:
            key = vmpck(0, asked.vmpck)
            body = unseal(self.suite, key, bytes(response.data))
            assert body is not None
            message = seal(self.suite, key, *_RESEAL[host](Header.decode(bytes(response.data)), body))
            response.data[: len(message)] = message
            return
        if host == "size-0":
            response.data[0x36:0x38] = b"\0\0"
            return
        at, bits = _TAMPER[host]
        response.data[at] ^= bits
