"""The host as it should be, between a guest and the secure processor."""

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.firmware import Context, Firmware
from conformance.environment.snp_guest_request.report import certificate_table, chain
from conformance.environment.snp_guest_request.shared_pages import SharedPages, Window
from conformance.model.snp_guest_request.hosts import HONEST_PAGES
from conformance.specs.snp_guest_request.constants import MSG_TYPE, PAGE_SIZE, REPORT_REQ, TOO_SMALL_INFO2


class HonestHost(Simulator):
    """A host that hands out its certificates first, and then has firmware answer.

    There is no hypervisor in it: `Loop` has one.
    """

    def __init__(self, door: Environment, shared: SharedPages, suite: Suite, counts: tuple[int, ...]) -> None:
        super().__init__(door)
        self.shared = shared
        self.suite = suite
        self.firmware = Firmware(suite)
        self.context = Context(0, "running", counts=list(counts))
        self.previous = b""
        """The last response, which a host could replay."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Firmware's message counters."""
        return tuple(self.context.counts)

    def answer(self, page: bytes, response: Window, rax: int, rbx: int, *, extended: bool) -> tuple[int, int, int]:
        """SW_EXITINFO1, SW_EXITINFO2 and RBX; the response is in its page, and certificates are at `rax`."""
        if extended and page[MSG_TYPE] == REPORT_REQ:
            if rbx < HONEST_PAGES:
                return 0, TOO_SMALL_INFO2, HONEST_PAGES
            self.hand_out(rax, rbx)
        status, message = self.firmware.guest_request(self.context, page)
        if not status:
            response.data[: len(message)] = message
            self.previous = message
        return 0, status, rbx

    def hand_out(self, rax: int, rbx: int) -> None:
        """Put the certificates where the guest wants them."""
        certs, offset = self.shared.within(rax, rbx * PAGE_SIZE)
        table = self.table()
        certs.data[offset : offset + len(table)] = table

    def table(self) -> bytes:
        """The honest host's certificate table."""
        if self.suite.real:
            return chain().table()
        return certificate_table([("VCEK", b"V" * 1400), ("ASK", b"S" * 1600), ("ARK", b"K" * 1500)])
