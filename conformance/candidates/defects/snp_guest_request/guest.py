"""Guest drivers that are right but for one defect."""

from __future__ import annotations

from conformance.candidates.builtin.snp_guest_request.guest import ENTRY, HEADER, GuestDriver
from conformance.candidates.defect import Defect
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    ENOTTY,
    EXT_GUEST_REQUEST,
    FW_BLOB_MAX_SIZE,
    GENERIC_INFO2,
    HEADER_SIZE,
    MSG_ALGO,
    PAGE_SIZE,
    REPORT_REQ,
    REPORT_RSP_SIZE,
    UNINITIALISED,
)


class ErrorKeepsNumber(GuestDriver):
    """After an error neither counts nor wipes: the next message has the same number."""

    def wipe(self) -> None:
        pass


class TooSmallReturnsZero(GuestDriver):
    """Returns 0 where the data buffer was too small."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        ret, info2, answer, certs, needed = super().get_ext_report(data, vmpl, certs_len, address)
        return (0 if needed else ret), info2, answer, certs, needed


class BusyIsFatal(GuestDriver):
    """Takes BUSY for an error like any other."""

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        info1, info2, rbx = super().send(code, npages)
        return info1, GENERIC_INFO2 if info2 == 2 << 32 else info2, rbx


class PagesOutsideLock(GuestDriver):
    """Prepares the certificate pages before it takes the lock."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        if address and certs_len and certs_len % PAGE_SIZE == 0 and certs_len <= FW_BLOB_MAX_SIZE:
            self.port.shared_write(self.certs, bytes(certs_len))
        return super().get_ext_report(data, vmpl, certs_len, address)


class ErrorValueUnset(GuestDriver):
    """Copies an error value back to the caller that only firmware errors set."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        ret, info2, answer = super().get_report(data, vmpl)
        return ret, UNINITIALISED if ret and not info2 else info2, answer


class OwnCounter(GuestDriver):
    """Counts in its own memory, from 0 whenever it is loaded."""

    def open(self, vmpck: int) -> int:
        self.counted = 0
        return super().open(vmpck)

    def stored(self) -> int:
        return self.counted

    def count_exchange(self) -> None:
        self.counted += 2


class KeySeenBeforeLock(GuestDriver):
    """Looks whether the key is wiped before it takes the lock."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        if self.is_disabled():
            return -ENOTTY, 0, b""
        self.looked = True
        result = super().get_derived_key(fields, vmpl, svn, tcb)
        self.looked = False
        return result

    looked = False

    def is_disabled(self) -> bool:
        return False if self.looked else super().is_disabled()


class GivesUpEarly(GuestDriver):
    """Tries again for half the time that a host may say BUSY."""

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        started = self.port.now() if self.first else self.started
        self.started, self.first = started, False
        info1, info2, rbx = super().send(code, npages)
        busy = info1 == 0 and info2 == BUSY_INFO2
        late = busy and self.port.now() - started >= 30
        self.first = not busy or late
        return info1, GENERIC_INFO2 if late else info2, rbx

    first = True
    started = 0


class BadTableIsEmpty(GuestDriver):
    """Finds no certificates in a table with an entry that it cannot take."""

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        ret, certs = super().parse_certs(table)
        return 0, certs if not ret else ()


class StatusLost(GuestDriver):
    """Returns the errno alone where a request was refused."""

    def exchange(self, kind: int, payload: bytes, size: int, code: int, npages: int) -> tuple[int, int, bytes, int]:
        ret, info2, answer, needed = super().exchange(kind, payload, size, code, npages)
        return ret, info2 if needed else 0, answer, needed


class VmplIgnored(GuestDriver):
    """Asks for the least privileged VMPL whatever its caller wants."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        return super().get_report(data, 3)


class StaleCertsPages(GuestDriver):
    """Offers its pages for certificates as the last call, or whoever had them before, has left them."""

    def ext_locked(self, payload: bytes, certs_len: int) -> tuple[int, int, bytes, bytes, int]:
        npages = certs_len // PAGE_SIZE
        ret, info2, answer, needed = self.exchange(REPORT_REQ, payload, REPORT_RSP_SIZE, EXT_GUEST_REQUEST, npages)
        certs = bytes(self.port.shared_read(self.certs, certs_len)) if not ret and npages else b""
        return ret, info2, answer, certs, needed


class TagIsEnough(GuestDriver):
    """Takes every response that opens with the key, whatever its header says."""

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        message = bytes(self.port.shared_read(self.response, PAGE_SIZE))
        tag, got, *_, got_size, _ = HEADER.unpack_from(message)
        iv = got.to_bytes(8, "little") + bytes(4)
        body = message[HEADER_SIZE : HEADER_SIZE + got_size]
        return bytes(self.port.gcm_decrypt(self.key(), iv, message[MSG_ALGO:HEADER_SIZE], body + tag))


class FieldsOfHalf(GuestDriver):
    """Keeps 32 bits of the fields that a key is derived from."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        return super().get_derived_key(fields & 0xFFFFFFFF, vmpl, svn, tcb)


class EndsAtNoBytes(GuestDriver):
    """Takes a certificate of no bytes for the end of the table."""

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        for at in range(0, len(table) - ENTRY.size + 1, ENTRY.size):
            if not ENTRY.unpack_from(table, at)[2]:
                return super().parse_certs(table[:at] + bytes(ENTRY.size) + table[at + ENTRY.size :])
        return super().parse_certs(table)


class StagesByteByByte(GuestDriver):
    """Lays its messages out where the host can see them, a byte after the other, each in place of the last."""

    def seal(self, number: int, kind: int, payload: bytes) -> bytes:
        for at, byte in enumerate(payload):
            self.port.shared_write(self.request + HEADER_SIZE + at, bytes([byte]))
            self.port.shared_write(self.request + HEADER_SIZE + at, bytes(1))
        return super().seal(number, kind, payload)


DEFECTS: tuple[Defect, ...] = (
    Defect(
        "SNP-G01",
        "After an error the number is used again.",
        ErrorKeepsNumber,
        ("SNP-084", "SNP-088", "SNP-087", "SNP-089", "SNP-090"),
        2,
        note="the key that was not wiped is seen before the number is used again",
    ),
    Defect("SNP-G02", "Too small returns 0.", TooSmallReturnsZero, ("SNP-086",), 1),
    Defect(
        "SNP-G03",
        "BUSY is fatal.",
        BusyIsFatal,
        ("SNP-087", "SNP-085"),
        1,
        note="the answer that is missing is the request's own",
    ),
    Defect("SNP-G04", "Certificate pages are prepared outside the lock.", PagesOutsideLock, ("SNP-092",), 1),
    Defect("SNP-G05", "An unset error value reaches the caller.", ErrorValueUnset, ("SNP-099",), 1),
    Defect("SNP-G06", "The counter starts at 0 with every load.", OwnCounter, ("SNP-085",), 2),
    Defect(
        "SNP-V09",
        "The key is looked at before the lock is taken, and may be wiped by then.",
        KeySeenBeforeLock,
        ("SNP-084", "SNP-088", "SNP-092"),
        1,
    ),
    Defect("SNP-V10", "The driver gives up on BUSY after half the time.", GivesUpEarly, ("SNP-087",), 1),
    Defect("SNP-V15", "A table with a bad entry reads as an empty one.", BadTableIsEmpty, ("SNP-093",), 1),
    Defect("SNP-V16", "The caller is not told what the host answered.", StatusLost, ("SNP-099",), 1),
    Defect("SNP-V17", "The VMPL that was asked for is ignored.", VmplIgnored, ("SNP-097",), 1),
    Defect("SNP-V18", "Pages for certificates are offered uncleared.", StaleCertsPages, ("SNP-098",), 1),
    Defect("SNP-V21", "A response is taken for its tag alone.", TagIsEnough, ("SNP-096",), 1),
    Defect("SNP-V24", "Fields of a key are cut to 32 bits.", FieldsOfHalf, ("SNP-097",), 1),
    Defect("SNP-V25", "A certificate of no bytes ends the table.", EndsAtNoBytes, ("SNP-093",), 1),
    Defect("SNP-V26", "A message is in the clear byte by byte.", StagesByteByByte, ("SNP-090",), 1),
)
