"""The secure processor's part in guest requests: contexts, counters, checks in its order, and its answers."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from functools import lru_cache

from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.report import (
    LAUNCH,
    PLATFORM,
    Header,
    Launch,
    report_body,
    seal,
    signed_report,
    unseal,
)
from conformance.model.snp_guest_request.operations import KNOWN_FIELDS
from conformance.specs.snp_guest_request.constants import (
    AEAD_OFLOW,
    BAD_MEASUREMENT,
    HEADER_SIZE,
    INVALID_GUEST_STATE,
    INVALID_KEY,
    INVALID_PARAM,
    KEY_RSP_SIZE,
    PAGE_SIZE,
    REPORT_RSP_SIZE,
    REPORT_SIZE,
)

LAST_COUNT = 2**64 - 2
COMMITTED_TCB = PLATFORM.current_tcb


@lru_cache(maxsize=64)
def vmpck(guest: int, index: int) -> bytes:
    """Key `index` of guest number `guest`, as firmware puts it in the secrets page.

    Zero bytes at either end of a key do not disable it.
    """
    digest = hashlib.sha256(b"vmpck %d of guest %d" % (index, guest)).digest()
    return bytes(16) + digest[16:] if index == 2 else digest[:16] + bytes(16) if index == 3 else digest


@dataclass(slots=True)
class Context:
    """What firmware keeps in a guest context page."""

    guest: int
    state: str = "init"
    """init, launch, running; `gone` when firmware itself gave the page up."""
    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    launch: Launch = LAUNCH
    asid: int = 0

    @property
    def keys(self) -> tuple[bytes, ...]:
        """VMPCK0 to VMPCK3."""
        return tuple(vmpck(self.guest, i) for i in range(4))


@dataclass(slots=True)
class Firmware:
    """Answers guest messages; pages and their states are the caller's business."""

    suite: Suite
    reported_tcb: int = PLATFORM.current_tcb
    vlek: bool = False
    """Whether a VLEK is installed."""
    milan: bool = False
    """Older firmware refuses a bad tag with INVALID_PARAM."""
    memo: dict[tuple[object, ...], bytes] = field(default_factory=dict)
    """Answers given, where the suite's answer to a message never changes."""

    def guest_request(self, context: Context, page: bytes, offset: int = 0) -> tuple[int, bytes]:
        """Status, and the response message when it is 0.

        The checks stand in firmware's order: a tampered number fails its tag before it is compared, and
        the message's version and type are looked at only once it is authentic.

        Source: section order of AMD's published Genoa firmware source, by behaviour.
        """
        if context.state != "running":
            return INVALID_GUEST_STATE, b""
        if offset + HEADER_SIZE > PAGE_SIZE:
            return INVALID_PARAM, b""
        header = Header.decode(page[offset : offset + HEADER_SIZE])
        if header.header_version != 1 or header.header_size != HEADER_SIZE or header.algo != 1:
            return INVALID_PARAM, b""
        if header.size == 0 or header.size % 16 or offset + HEADER_SIZE + header.size > PAGE_SIZE:
            return INVALID_PARAM, b""
        if header.vmpck > 3:
            return INVALID_PARAM, b""
        message = page[offset : offset + HEADER_SIZE + header.size]
        key = vmpck(context.guest, header.vmpck)
        payload = unseal(self.suite, key, message)
        if payload is None:
            return (INVALID_PARAM if self.milan else BAD_MEASUREMENT), b""
        count = context.counts[header.vmpck]
        if count == LAST_COUNT or header.number != count + 1:
            return AEAD_OFLOW, b""
        if header.version != 1:
            return INVALID_PARAM, b""
        handler = _HANDLERS.get(header.type)
        if handler is None:
            return INVALID_PARAM, b""
        response = self._answer(context, header, payload, handler, key, message)
        context.counts[header.vmpck] = count + 2
        return 0, response

    def _answer(
        self, context: Context, header: Header, payload: bytes, handler: str, key: bytes, message: bytes
    ) -> bytes:
        memo = None if self.suite.real else (context.guest, self.reported_tcb, message)
        known = self.memo.get(memo) if memo else None
        if known is None or header.type == EXPORT:
            body = getattr(self, handler)(context, payload, header.vmpck)
            answer = Header(header.number + 1, header.type + 1, len(body), header.vmpck)
            known = seal(self.suite, key, answer, body)
            if memo:
                self.memo[memo] = known
        return known

    def report(self, context: Context, payload: bytes, key: int) -> bytes:
        """MSG_REPORT: the size is set even where the status is not 0."""
        status, report = 0, bytes(REPORT_SIZE)
        if len(payload) != 0x60:
            status = INVALID_PARAM
        else:
            data, vmpl, select = struct.unpack_from("<64sII", payload)
            if select >> 2 or any(payload[0x48:]) or vmpl < key:
                status = INVALID_PARAM
            elif select == 3 or (select == 2 and not self.vlek):
                status = INVALID_KEY
            else:
                body = report_body(PLATFORM, context.launch, data, vmpl, self.reported_tcb)
                report = signed_report(self.suite, body)
        answer = struct.pack("<II24x", status, REPORT_SIZE) + report
        assert len(answer) == REPORT_RSP_SIZE
        return answer

    def derived_key(self, context: Context, payload: bytes, key: int) -> bytes:
        """MSG_KEY: deterministic, and sensitive to each selected field."""
        status, derived = INVALID_PARAM, bytes(32)
        if len(payload) == 0x20:
            root, reserved, fields, vmpl, svn, tcb = struct.unpack("<IIQIIQ", payload)
            launch = context.launch
            if not (root >> 3 or reserved or fields >> KNOWN_FIELDS or vmpl < key or svn > launch.guest_svn) and (
                _is_within(tcb, COMMITTED_TCB)
            ):
                status = INVALID_KEY if root >> 1 == 3 or (root >> 1 == 2 and not self.vlek) else 0
            if not status:
                values = (
                    launch.policy.to_bytes(8, "little"),
                    launch.image_id,
                    launch.family_id,
                    launch.measurement,
                    svn.to_bytes(4, "little"),
                    tcb.to_bytes(8, "little"),
                )
                mixed = b"".join(v if fields >> i & 1 else bytes(len(v)) for i, v in enumerate(values))
                mixed += struct.pack("<IQI", root, fields, vmpl)
                derived = hmac.digest(b"the simulated chip", b"\1gmsg-keyreq\0" + mixed, "sha256")
        answer = struct.pack("<I28x", status) + derived
        assert len(answer) == KEY_RSP_SIZE
        return answer

    def tsc_info(self, context: Context, payload: bytes, key: int) -> bytes:
        """MSG_TSC_INFO: scale, offset and factor."""
        bad = len(payload) != 0x80 or any(payload)
        return struct.pack("<IIQQI100x", INVALID_PARAM if bad else 0, 0, 1 << 32, 0, 100)

    def cpuid(self, context: Context, payload: bytes, key: int) -> bytes:
        """MSG_CPUID: at most 64 functions, given back as they are."""
        count = int.from_bytes(payload[:4], "little")
        bad = len(payload) != 0xC10 or count > 64
        return (
            struct.pack("<I", INVALID_PARAM if bad else 0)
            + payload[:12].ljust(12, b"\0")[:12]
            + (payload[16:].ljust(0xC00, b"\0")[:0xC00])
        )

    def export(self, context: Context, payload: bytes, key: int) -> bytes:
        """MSG_EXPORT of the guest itself: firmware gives the context page up as a side effect."""
        context.state = "gone"
        return struct.pack("<I", 0).ljust(0xFA0, b"\0")

    def migration(self, context: Context, payload: bytes, key: int) -> bytes:
        """Messages of a migration agent, which the simulated guests are not: refused inside the response."""
        return struct.pack("<I12x", INVALID_PARAM)


EXPORT = 7

_HANDLERS = {
    1: "cpuid",
    3: "derived_key",
    5: "report",
    EXPORT: "export",
    9: "migration",
    11: "migration",
    13: "migration",
    15: "migration",
    17: "tsc_info",
}
"""Method that answers, by MSG_TYPE of the request."""


def _is_within(tcb: int, committed: int) -> bool:
    """Whether no component of a TCB version is newer."""
    return all(tcb >> shift & 0xFF <= committed >> shift & 0xFF for shift in range(0, 64, 8))
