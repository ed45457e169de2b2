"""A guest's driver in the shape of Linux sev-guest."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EBADMSG,
    EINVAL,
    EIO,
    ENOMEM,
    ENOTTY,
    ETIMEDOUT,
    EXT_GUEST_REQUEST,
    FW_BLOB_MAX_SIZE,
    GUEST_REQUEST,
    HEADER_SIZE,
    KEY_REQ,
    KEY_RSP_SIZE,
    MSG_ALGO,
    PAGE_SIZE,
    REPORT_REQ,
    REPORT_RSP_SIZE,
    SECRETS_SEQNO,
    SECRETS_VMPCK,
    TOO_SMALL_INFO2,
)

RETRY_PERIOD = 60
RETRY_DELAY = 2
KEY_SIZE = 32
TAG_SIZE = 16
HEADER = struct.Struct("<16s16xQ8xBBHBBH4xB35x")
ENTRY = struct.Struct("<16sII")
LOCK = "snp_cmd_mutex"


class GuestDriver:
    """One lock around key, number and shared pages; every doubt wipes the key."""

    profile: ClassVar[str] = "upstream"
    capabilities: ClassVar[frozenset[str]] = frozenset({"guest", "verifier"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.vmpck = 0
        self.request = 0
        self.response = 0
        self.certs = 0
        self.locked = False

    # -- life

    def open(self, vmpck: int) -> int:
        if not 0 <= vmpck <= 3:
            return -EINVAL
        self.vmpck = vmpck
        if self.is_disabled():
            return -EINVAL
        pages: list[int] = []
        for npages in (1, 1, FW_BLOB_MAX_SIZE // PAGE_SIZE):
            gpa = self.alloc_shared(npages)
            if not gpa:
                for other in pages:
                    self.free_shared(other)
                return -ENOMEM
            pages.append(gpa)
        self.request, self.response, self.certs = pages
        if not self.locked:
            self.port.mutex_init(LOCK)
            self.locked = True
        return 0

    def alloc_shared(self, npages: int) -> int:
        gpa = self.port.alloc_pages(npages)
        if gpa and self.port.set_decrypted(gpa):
            self.free_shared(gpa)
            return 0
        return int(gpa)

    def free_shared(self, gpa: int) -> None:
        if self.port.set_encrypted(gpa):
            self.port.leak_pages(gpa)
        else:
            self.port.free_pages(gpa)

    def close(self) -> int:
        for gpa in (self.request, self.response, self.certs):
            self.free_shared(gpa)
        return 0

    # -- key and number

    def key(self) -> bytes:
        return bytes(self.port.read_secrets(SECRETS_VMPCK + self.vmpck * KEY_SIZE, KEY_SIZE))

    def is_disabled(self) -> bool:
        return not any(self.key())

    def wipe(self) -> None:
        self.port.write_secrets(SECRETS_VMPCK + self.vmpck * KEY_SIZE, bytes(KEY_SIZE))

    def stored(self) -> int:
        return int.from_bytes(self.port.read_secrets(SECRETS_SEQNO + 4 * self.vmpck, 4), "little")

    def next_number(self) -> int:
        """The number to send, 0 when there is none left."""
        number = self.stored() + 1
        return 0 if number >= 2**32 - 1 else number

    def count_exchange(self) -> None:
        value = self.stored() + 2 & 0xFFFFFFFF
        self.port.write_secrets(SECRETS_SEQNO + 4 * self.vmpck, value.to_bytes(4, "little"))

    # -- messages

    def seal(self, number: int, kind: int, payload: bytes) -> bytes:
        header = HEADER.pack(bytes(TAG_SIZE), number, 1, 1, HEADER_SIZE, kind, 1, len(payload), self.vmpck)
        iv = number.to_bytes(8, "little") + bytes(4)
        sealed = self.port.gcm_encrypt(self.key(), iv, header[MSG_ALGO:], payload)
        return bytes(sealed[-TAG_SIZE:] + header[TAG_SIZE:] + sealed[:-TAG_SIZE])

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        """The payload of the response, b"" when it is not the answer to message `number`."""
        message = bytes(self.port.shared_read(self.response, PAGE_SIZE))
        tag, got, _, _, _, got_kind, version, got_size, _ = HEADER.unpack_from(message)
        if got != number + 1 or got_kind != kind + 1 or version != 1:
            return b""
        if got_size > size:
            return b""
        iv = got.to_bytes(8, "little") + bytes(4)
        body = message[HEADER_SIZE : HEADER_SIZE + got_size]
        return bytes(self.port.gcm_decrypt(self.key(), iv, message[MSG_ALGO:HEADER_SIZE], body + tag))

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        return self.port.guest_exit(code, self.request, self.response, self.certs, npages)  # type: ignore[no-any-return]  # Port is untyped here

    def exchange(self, kind: int, payload: bytes, size: int, code: int, npages: int) -> tuple[int, int, bytes, int]:
        """Result, exitinfo2, answer and bytes needed. Called with the lock held."""
        port = self.port
        if self.is_disabled():
            return -ENOTTY, 0, b"", 0
        number = self.next_number()
        if not number:
            return -EIO, 0, b"", 0
        message = self.seal(number, kind, payload)
        port.shared_write(self.response, bytes(PAGE_SIZE))
        port.shared_write(self.request, message.ljust(PAGE_SIZE, b"\0"))
        start, needed = port.now(), 0
        while True:
            info1, info2, rbx = self.send(code, npages)
            if info1 == 0 and info2 == BUSY_INFO2:
                if port.now() - start > RETRY_PERIOD:
                    self.wipe()
                    return -ETIMEDOUT, info2, b"", 0
                port.sleep(RETRY_DELAY)
                continue
            if info1 == 0 and info2 == TOO_SMALL_INFO2 and code == EXT_GUEST_REQUEST:
                needed, code = rbx * PAGE_SIZE, GUEST_REQUEST
                continue
            break
        if info1 or info2:
            self.wipe()
            return -EIO, info2, b"", 0
        self.count_exchange()
        answer = self.unseal(number, kind, size)
        if not answer:
            self.wipe()
            return -EBADMSG, 0, b"", 0
        if needed:
            return -EIO, TOO_SMALL_INFO2, b"", needed
        return 0, 0, answer, 0

    # -- entry points

    def lock(self) -> None:
        self.port.mutex_lock(LOCK)

    def unlock(self) -> None:
        self.port.mutex_unlock(LOCK)

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        payload = struct.pack("<64sII24x", data, vmpl, 0)
        self.lock()
        ret, info2, answer, _ = self.exchange(REPORT_REQ, payload, REPORT_RSP_SIZE, GUEST_REQUEST, 0)
        self.unlock()
        return ret, info2, answer

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        payload = struct.pack("<IIQIIQ", 0, 0, fields, vmpl, svn, tcb)
        self.lock()
        ret, info2, answer, _ = self.exchange(KEY_REQ, payload, KEY_RSP_SIZE, GUEST_REQUEST, 0)
        self.unlock()
        return ret, info2, answer

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        if not address:
            certs_len = 0
        if certs_len % PAGE_SIZE or certs_len > FW_BLOB_MAX_SIZE:
            return -EINVAL, 0, b"", b"", 0
        payload = struct.pack("<64sII24x", data, vmpl, 0)
        self.lock()
        ret, info2, answer, certs, needed = self.ext_locked(payload, certs_len)
        self.unlock()
        return ret, info2, answer, certs, needed

    def ext_locked(self, payload: bytes, certs_len: int) -> tuple[int, int, bytes, bytes, int]:
        npages = certs_len // PAGE_SIZE
        if npages:
            self.port.shared_write(self.certs, bytes(certs_len))
        ret, info2, answer, needed = self.exchange(REPORT_REQ, payload, REPORT_RSP_SIZE, EXT_GUEST_REQUEST, npages)
        certs = bytes(self.port.shared_read(self.certs, certs_len)) if not ret and npages else b""
        return ret, info2, answer, certs, needed

    # -- certificate tables

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        found: list[tuple[bytes, bytes]] = []
        at = 0
        while at + ENTRY.size <= len(table):
            guid, offset, length = ENTRY.unpack_from(table, at)
            if not (any(guid) or offset or length):
                return 0, tuple(found)
            if offset + length > len(table):
                return -EINVAL, ()
            found.append((guid, table[offset : offset + length]))
            at += ENTRY.size
        return -EINVAL, ()
