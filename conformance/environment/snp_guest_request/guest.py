"""Kind G: a guest kernel around the driver, and a host that may do anything to its messages."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.environment.snp_guest_request.firmware import COMMITTED_TCB, Context, Firmware, vmpck
from conformance.environment.snp_guest_request.host import is_tainted
from conformance.environment.snp_guest_request.operations import Operations
from conformance.environment.snp_guest_request.report import (
    GUIDS,
    LAUNCH,
    Header,
    certificate_table,
    chain,
    seal,
    unseal,
)
from conformance.environment.snp_guest_request.verifier import report_refused
from conformance.model.snp_guest_request.hosts import HONEST_PAGES, REFUSALS, TAMPERED, script
from conformance.model.snp_guest_request.operations import (
    Close,
    GetDerivedKey,
    GetExtReport,
    GetReport,
    Kexec,
    Open,
    ParseCerts,
)
from conformance.model.snp_guest_request.state import guest_counts
from conformance.model.snp_guest_request.view import View
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EXT_GUEST_REQUEST,
    GENERIC_INFO2,
    HEADER_SIZE,
    INVALID_PARAM,
    KEY_RSP_SIZE,
    PAGE_SIZE,
    SECRETS_SEQNO,
    SECRETS_VMPCK,
    SEV_CMD_MUTEX,
    TOO_SMALL_INFO2,
)
from conformance.verdict import Crash, Violation

REGION_BASE = 0x10_0000
USER_BUFFER = 0x7F00_0000_0000
KEY_SIZE = 32
VMPL = 3
"""What callers ask for: allowed with every VMPCK."""
DATA = b"report data of the caller, 64 bytes, which nobody else may see.."
"""What the caller wants in the report; each operation puts its number in front."""
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
KEY_SVN = LAUNCH.guest_svn
KEY_TCB = COMMITTED_TCB
"""What callers ask a key for: the newest allowed."""


class Region:
    """Pages that the driver allocated."""

    __slots__ = ("data", "leaked", "read", "shared", "trap")

    def __init__(self, npages: int) -> None:
        self.data = bytearray(npages * PAGE_SIZE)
        self.shared = False
        self.leaked = False
        self.trap = False
        """The host changes it once it was read."""
        self.read: list[tuple[int, int]] = []
        """Ranges read since the trap was set, once it sprang."""


class GuestKernel(Operations):
    """The guest's kernel, its secrets page, and the host's treatment of its exits."""

    factory: Callable[[Any], Any]

    def build_guest(self) -> None:
        """A guest that has just started."""
        self.context = Context(0, "running", counts=list(guest_counts(self.config)))
        self.guest_firmware = Firmware(self.suite)
        self.secrets = bytearray(PAGE_SIZE)
        for i in range(4):
            at = SECRETS_VMPCK + i * KEY_SIZE
            self.secrets[at : at + KEY_SIZE] = vmpck(0, i)
        for i, count in enumerate(self.context.counts):
            at = SECRETS_SEQNO + 4 * i
            self.secrets[at : at + 4] = (count & 0xFFFFFFFF).to_bytes(4, "little")
        self.regions: dict[int, Region] = {}
        self.next_region = REGION_BASE
        self.sent: dict[tuple[int, int], bytes] = {}
        self.clock = 0
        self.scripts: dict[Any, list[str]] = {}
        self.previous = b""
        self.requested: dict[Any, tuple[bytes, bytes, int]] = {}
        self.busy_at: dict[bytes, int] = {}
        self.serial = 0
        self.loop: Any = None

    # -- environment calls

    def read_secrets(self, offset: int, size: int) -> bytes:
        return bytes(self.secrets[offset : offset + size])

    def write_secrets(self, offset: int, data: bytes) -> int:
        self.secrets[offset : offset + len(data)] = data
        return 0

    def alloc_pages(self, npages: int) -> int:
        if self.refused("alloc_pages"):
            return 0
        gpa = self.next_region
        self.next_region += (npages + 1) * PAGE_SIZE
        self.regions[gpa] = Region(npages)
        return gpa

    def free_pages(self, gpa: int) -> int:
        region = self._region(gpa)
        if region.shared:
            raise Violation(c.SHARED_PAGES_BACK, f"pages at {gpa:#x} are freed while the host shares them")
        del self.regions[gpa]
        return 0

    def leak_pages(self, gpa: int) -> int:
        self._region(gpa).leaked = True
        return 0

    def set_decrypted(self, gpa: int) -> int:
        region = self._region(gpa)
        refusal = self.refused("set_decrypted")
        if refusal:
            return refusal
        region.shared = True
        return 0

    def set_encrypted(self, gpa: int) -> int:
        region = self._region(gpa)
        refusal = self.refused("set_encrypted")
        if refusal:
            return refusal
        region.shared = False
        return 0

    def shared_read(self, gpa: int, size: int) -> bytes:
        self._alone()
        region, offset = self._within(gpa, size)
        span = (offset, offset + size)
        if region.read:
            if any(start < span[1] and span[0] < end for start, end in region.read):
                raise Violation(
                    c.RESPONSE_CHECKED, "the response is read again from shared memory after the host changed it"
                )
            region.read.append(span)
        data = bytes(region.data[offset : offset + size])
        if region.trap:
            region.trap = False
            region.read = [span]
            region.data[:] = bytes(len(region.data))
        return data

    def shared_write(self, gpa: int, data: bytes) -> int:
        self._alone()
        region, offset = self._within(gpa, len(data))
        if region.shared and DATA[8:] in data:
            raise Violation(c.PRIVATE_ENCRYPTION, "a message in the clear is written to memory that the host shares")
        region.data[offset : offset + len(data)] = data
        return 0

    def _region(self, gpa: int) -> Region:
        region = self.regions.get(gpa)
        if region is None:
            raise Violation(c.ROBUST, f"{gpa:#x} is no allocation of the driver")
        return region

    def _alone(self) -> None:
        """Shared pages are used under a lock while another call of the driver is in progress (SNP-092)."""
        if len(self.acts) > 1 and not self.act.held:
            raise Violation(c.ONE_LOCK, "shared pages are used without a lock while another call is in progress")

    def _within(self, gpa: int, size: int) -> tuple[Region, int]:
        for base, region in self.regions.items():
            if base <= gpa and gpa + size <= base + len(region.data):
                return region, gpa - base
        raise Violation(c.ROBUST, f"{size} bytes at {gpa:#x} are not the driver's")

    def gcm_encrypt(self, key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
        return self.suite.encrypt(key, iv, aad, payload)

    def gcm_decrypt(self, key: bytes, iv: bytes, aad: bytes, data: bytes) -> bytes:
        return self.suite.decrypt(key, iv, aad, data) or b""

    def sleep(self, seconds: int) -> int:
        self.clock += max(seconds, 0)
        return 0

    def now(self) -> int:
        return self.clock

    def guest_exit(self, code: int, info1: int, info2: int, rax: int, rbx: int) -> tuple[int, int, int]:
        self._alone()
        request, response = self._region(info1), self._region(info2)
        if not (request.shared and response.shared):
            raise Violation(c.ROBUST, "a page given to the host is not shared with it")
        response.trap, response.read = False, []
        page = bytes(request.data[:PAGE_SIZE])
        header = Header.decode(page)
        message = page[: HEADER_SIZE + min(header.size, PAGE_SIZE - HEADER_SIZE)]
        self._judge_sent(header, message, response)
        script = self.scripts.get(self.frame, [])
        host = script.pop(0) if script else "ok"
        extended = code == EXT_GUEST_REQUEST
        op = self.act.op
        if extended and self.act.small:
            raise Violation(c.TOO_SMALL_RESEND, "after too small the message is sent as an extended request again")
        if extended and isinstance(op, GetExtReport):
            given = op.certs_len // PAGE_SIZE if op.buffer else 0
            if rbx < given or (rbx and not given):
                raise Violation(c.CERTS_LENGTH, f"{rbx} pages are offered where the caller gave {given}")
        told = self._treat(host, extended, header, response, page, rax, rbx)
        self.act.small |= extended and told[:2] == (0, TOO_SMALL_INFO2)
        return told

    def _treat(
        self, host: str, extended: bool, header: Header, response: Region, page: bytes, rax: int, rbx: int
    ) -> tuple[int, int, int]:
        """What the host answers, by the name of its treatment."""
        message = page[: HEADER_SIZE + min(header.size, PAGE_SIZE - HEADER_SIZE)]
        if host == "busy":
            self.busy_at[message] = self.clock
            return 0, BUSY_INFO2, rbx
        if host == "too-small":
            return 0, TOO_SMALL_INFO2, HONEST_PAGES
        if host == "too-small-lie":
            return 0, TOO_SMALL_INFO2, 1
        if host in REFUSALS:
            return (2, 5, rbx) if host == "malformed" else (0, REFUSALS[host], rbx)
        if host == "drop":
            return 0, 0, rbx
        if host == "replay":
            response.data[: len(self.previous)] = self.previous
            return 0, 0, rbx
        info1_, info2_, rbx = self._honest(extended, page, response, rax, rbx)
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
            response.trap = True
        return 0, 0, rbx

    def _judge_sent(self, header: Header, message: bytes, response: Region) -> None:
        """What the host sees of a message: its number was never used for another, and the response page is clear."""
        known = self.sent.setdefault((header.vmpck, header.number), message)
        if known != message:
            raise Violation(
                c.NO_IV_REUSE, f"VMPCK{header.vmpck} encrypts two different messages under number {header.number}"
            )
        busy = self.busy_at.pop(message, None)
        if busy is not None and self.clock - busy < 1:
            raise Violation(c.BUSY_RESEND, "after BUSY the message is sent again without a delay")
        if any(response.data[:HEADER_SIZE]):
            raise Violation(c.PRIVATE_ENCRYPTION, "the response page is not cleared before sending")
        self.held[c.NO_IV_REUSE] = self.held.get(c.NO_IV_REUSE, 0) + 1

    def _honest(self, extended: bool, page: bytes, response: Region, rax: int, rbx: int) -> tuple[int, int, int]:
        """An honest host: certificates first, then firmware."""
        if self.loop is not None:
            return self.loop.exit(self, extended, page, response, rax, rbx)  # type: ignore[no-any-return]  # Loop
        if extended and page[0x34] == 5:
            if rbx < HONEST_PAGES:
                return 0, TOO_SMALL_INFO2, HONEST_PAGES
            certs, offset = self._within(rax, rbx * PAGE_SIZE)
            table = self.table()
            certs.data[offset : offset + len(table)] = table
        status, message = self.guest_firmware.guest_request(self.context, page)
        if not status:
            response.data[: len(message)] = message
            self.previous = message
            self._judge_answer(page, message)
        return 0, status, rbx

    def _judge_answer(self, page: bytes, message: bytes) -> None:
        """Firmware's own header follows the request's (SNP-081); the simulator is held to it as well."""
        asked, told = Header.decode(page), Header.decode(message)
        fits = told.vmpck == asked.vmpck and told.type == asked.type + 1 and told.number == asked.number + 1
        self.require(c.RESPONSE_HEADER, fits, f"response header {told} to request {asked}")

    def _tamper(self, host: str, asked: Header, response: Region) -> None:
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

    def table(self) -> bytes:
        """The honest host's certificate table."""
        if self.suite.real:
            return chain().table()
        return certificate_table([("VCEK", b"V" * 1400), ("ASK", b"S" * 1600), ("ARK", b"K" * 1500)])

    # -- operations

    def open_driver(self, op: Open) -> int:
        """Load the driver."""
        return self.enter_int(self.driver.open, op.vmpck)

    def close_driver(self, _op: Close) -> int:
        """Unload the driver; its pages are back or leaked."""
        result = self.enter_int(self.driver.close)
        for gpa, region in self.regions.items():
            if not region.leaked:
                raise Violation(c.SHARED_PAGES_BACK, f"pages at {gpa:#x} are neither freed nor leaked")
        self.regions.clear()
        return result

    def kexec(self, op: Kexec) -> int:
        """A new driver on the same secrets page; the pages of the old one are gone with its kernel."""
        self.regions.clear()
        self.locks = {SEV_CMD_MUTEX: None}
        self.driver = self.enter(self.factory, self.port)
        return self.enter_int(self.driver.open, op.vmpck)

    def get_report(self, op: GetReport) -> object:
        """SNP_GET_REPORT."""
        data = self._plan(op)
        return self._told(op, data, self.enter(self.driver.get_report, data, VMPL))

    def get_derived_key(self, op: GetDerivedKey) -> object:
        """SNP_GET_DERIVED_KEY."""
        self._plan(op)
        result = self.enter(self.driver.get_derived_key, op.fields, VMPL, KEY_SVN, KEY_TCB)
        return self._told(op, b"", result)

    def get_ext_report(self, op: GetExtReport) -> object:
        """SNP_GET_EXT_REPORT."""
        data = self._plan(op)
        address = USER_BUFFER if op.buffer else 0
        return self._told(op, data, self.enter(self.driver.get_ext_report, data, VMPL, op.certs_len, address))

    def _plan(self, op: Any) -> bytes:
        """Note how the host will treat this operation's exits; the data the caller wants in its report."""
        self.scripts[self.frame] = script(op.host)
        self.serial += 1
        return self.serial.to_bytes(8, "little") + DATA[8:]

    def _told(self, op: Any, data: bytes, result: Any) -> object:
        """Result, exitinfo2 where it means something, what the answer and the certificates are, length needed."""
        self.scripts.pop(self.frame, None)
        shape = [int, int, bytes, bytes, int] if type(op) is GetExtReport else [int, int, bytes]
        if type(result) is not tuple or [type(value) for value in result] != shape:
            raise Crash(f"returned {result!r}, expected {', '.join(kind.__name__ for kind in shape)}", "type")
        ret, info2, payload, *rest = result
        if is_tainted(info2) or (rest and is_tainted(rest[1])):
            raise Violation(c.NO_UNINITIALISED, f"the caller is given exitinfo2 {info2:#x}, bits that nobody wrote")
        self.hold(c.NO_UNINITIALISED)
        if ret:
            small = info2 == TOO_SMALL_INFO2 and rest and rest[1] and ret == -5
            return (ret, info2 if small else None, None, None, rest[1] if small else 0)
        certs = None
        if rest:
            table = self.table()
            certs = "certs" if rest[0][: len(table)] == table else "other certificates"
        return (ret, info2, self._kind(op, data, payload), certs, rest[1] if rest else 0)

    def _kind(self, op: Any, data: bytes, payload: bytes) -> str:
        if type(op) is GetDerivedKey:
            request = struct.pack("<IIQIIQ", 0, 0, op.fields, VMPL, KEY_SVN, KEY_TCB)
            fits = payload == self.guest_firmware.derived_key(self.context, request, 0)
            return "key" if fits else "another key"
        why = report_refused(self.suite, payload, data, VMPL)
        self.require(c.SIGNATURE, "signature" not in why, why)
        return "report" if not why else f"no report: {why}"

    def parse_certs(self, op: ParseCerts) -> object:
        """Parse a table; the certificates by name."""
        data, known = TABLE_BYTES[op.table]
        result = self.enter(self.driver.parse_certs, data)
        if type(result) is not tuple or len(result) != 2 or type(result[0]) is not int or type(result[1]) is not tuple:
            raise Crash(f"parse_certs returned {result!r}, expected (int, tuple)", "type")
        ret, entries = result
        names = []
        for i, entry in enumerate(entries):
            if type(entry) is not tuple or len(entry) != 2:
                raise Crash(f"parse_certs gave {entry!r}, expected (guid, certificate)", "type")
            name, body = known[i] if i < len(known) else ("", b"")
            fits = entry == (GUIDS.get(name), body)
            names.append(name if fits else f"other bytes ({len(entry[1])})")
        return (ret, tuple(names))

    def settle_guest(self) -> None:
        """What must hold when an operation of the guest has ended."""
        self.held[c.ROBUST] = self.held.get(c.ROBUST, 0) + 1
        for name, holder in self.locks.items():
            if holder is self.frame:
                raise Violation(c.ONE_LOCK, f"lock {name} is still held")

    def guest_view(self) -> View:
        """Firmware's counters, and which keys are wiped."""
        context = self.context if self.loop is None else self.loop.context
        wiped = tuple(
            not any(self.secrets[SECRETS_VMPCK + i * KEY_SIZE : SECRETS_VMPCK + (i + 1) * KEY_SIZE]) for i in range(4)
        )
        return View(counts=(tuple(context.counts),), wiped=wiped)

    def decrypted(self, message: bytes, key: int) -> bytes | None:
        """The payload of a firmware message to this guest."""
        return unseal(self.suite, vmpck(0, key), message)


def _tables() -> dict[str, tuple[bytes, tuple[tuple[str, bytes], ...]]]:
    """Certificate tables by name, and the certificates that lie within them."""
    vcek, ask = b"the VCEK, as DER....", b"the ASK, as DER"
    entry = struct.Struct("<16sII")
    one, two = ("VCEK", vcek), ("ASK", ask)
    guid, other = GUIDS["VCEK"], GUIDS["ASK"]
    zero = bytes(24)
    return {
        "two": (certificate_table([one, two]), (one, two)),
        "empty": (bytes(PAGE_SIZE), ()),
        "end-terminator": (zero, ()),
        "stops-at-zero": (entry.pack(guid, 72, 20) + zero + entry.pack(other, 72, 15) + vcek, (one,)),
        "zero-length": (entry.pack(guid, 48, 0) + zero + vcek, (("VCEK", b""),)),
        "duplicate": (certificate_table([one, one]), (one, one)),
        "overlap": (entry.pack(guid, 72, 20) + entry.pack(other, 72, 15) + zero + vcek, (one, ("ASK", vcek[:15]))),
        "in-header": (entry.pack(guid, 0, 16) + zero, (("VCEK", guid),)),
        "no-terminator": (entry.pack(guid, 4, 20), (("VCEK", entry.pack(guid, 4, 20)[4:24]),)),
        "beyond": (entry.pack(guid, 72, 20) + entry.pack(other, 80, 4000) + zero + vcek, (one,)),
        "wraps": (entry.pack(guid, 72, 20) + entry.pack(other, 2**32 - 16, 32) + zero + vcek, (one,)),
        "short": (bytes(20), ()),
        "nothing": (b"", ()),
    }


TABLE_BYTES = _tables()
