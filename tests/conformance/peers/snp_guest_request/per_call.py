"""A guest driver that shares pages only while it talks to the host."""

from __future__ import annotations

import struct
from typing import Any

from conformance.specs.snp_guest_request.constants import (
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
    PAGE_SIZE,
    REPORT_REQ,
    SECRETS_SEQNO,
    SECRETS_VMPCK,
)


class PerCall:
    """A guest driver that keeps key and number itself, and has shared pages only while it talks to the host."""

    profile = "upstream"
    capabilities = frozenset({"guest", "verifier"})
    LOCK = "messages"

    def __init__(self, port: Any) -> None:
        self.port = port
        self.number = self.slot = 0
        self.secret = b""
        self.pages: list[int] = []
        port.mutex_init(self.LOCK)

    def open(self, vmpck: int) -> int:
        if vmpck not in range(4):
            return -EINVAL
        self.slot = vmpck
        self.secret = self.port.read_secrets(SECRETS_VMPCK + 32 * vmpck, 32)
        self.number = int.from_bytes(self.port.read_secrets(SECRETS_SEQNO + 4 * vmpck, 4), "little")
        return 0 if self.secret.strip(b"\0") else -EINVAL

    def close(self) -> int:
        self.secret = b""
        return 0

    def shared(self, npages: int) -> int:
        gpa = self.port.alloc_pages(npages)
        if gpa:
            self.pages.append(gpa)
            if self.port.set_decrypted(gpa):
                return 0
        return gpa

    def unshare(self) -> None:
        for gpa in self.pages:
            (self.port.leak_pages if self.port.set_encrypted(gpa) else self.port.free_pages)(gpa)
        self.pages = []

    def forget(self) -> None:
        self.secret = b""
        self.port.write_secrets(SECRETS_VMPCK + 32 * self.slot, bytes(32))

    def talk(self, kind: int, payload: bytes, room: int, pages: int | None) -> tuple[int, int, bytes, bytes, int]:
        self.port.mutex_lock(self.LOCK)
        if not self.secret:
            result: tuple[int, int, bytes, bytes, int] = (-ENOTTY, 0, b"", b"", 0)
        elif self.number >= 2**32 - 2:
            result = (-EIO, 0, b"", b"", 0)
        else:
            request, response = self.shared(1), self.shared(1)
            certs = self.shared(pages) if pages else 0
            if not request or not response or (pages and not certs):
                result = (-ENOMEM, 0, b"", b"", 0)
            else:
                result = self.exchange(kind, payload, room, pages, request, response, certs)
            self.unshare()
        self.port.mutex_unlock(self.LOCK)
        return result

    def exchange(
        self, kind: int, payload: bytes, room: int, pages: int | None, request: int, response: int, certs: int
    ) -> tuple[int, int, bytes, bytes, int]:
        port, number = self.port, self.number + 1
        aad = struct.pack("<BBHBBH4xB35x", 1, 1, HEADER_SIZE, kind, 1, len(payload), self.slot)
        sealed = port.gcm_encrypt(self.secret, struct.pack("<Q4x", number), aad, payload)
        port.shared_write(request, sealed[-16:] + struct.pack("<16xQ8x", number) + aad + sealed[:-16])
        port.shared_write(response, bytes(PAGE_SIZE))
        if pages:
            port.shared_write(certs, bytes(pages << 12))
        code = EXT_GUEST_REQUEST if pages is not None else GUEST_REQUEST
        tries = needed = 0
        while True:
            told, info2, rbx = port.guest_exit(code, request, response, certs, pages or 0)
            if (told, info2) == (0, 2 << 32):
                tries += 1
                if tries > 30:
                    self.forget()
                    return -ETIMEDOUT, 2 << 32, b"", b"", 0
                port.sleep(2)
            elif (told, info2) == (0, 1 << 32) and code == EXT_GUEST_REQUEST:
                code, needed, pages = GUEST_REQUEST, rbx << 12, 0
            else:
                break
        if told or info2:
            self.forget()
            return -EIO, info2, b"", b"", 0
        message = port.shared_read(response, PAGE_SIZE)
        self.number += 2
        port.write_secrets(SECRETS_SEQNO + 4 * self.slot, struct.pack("<I", self.number))
        body = self.opened(message, kind, room)
        if not body:
            self.forget()
            return -EBADMSG, 0, b"", b"", 0
        if needed:
            return -EIO, 1 << 32, b"", b"", needed
        return 0, 0, body, port.shared_read(certs, pages << 12) if certs and pages else b"", 0

    def opened(self, message: bytes, kind: int, room: int) -> bytes:
        number, found, version, size = struct.unpack_from("<32xQ12xBBH", message)
        wanted = (self.number, kind + 1, 1)
        if (number, found, version) != wanted or size + 16 > room + 16 or HEADER_SIZE + size > PAGE_SIZE:
            return b""
        body = message[HEADER_SIZE : HEADER_SIZE + size] + message[:16]
        return bytes(self.port.gcm_decrypt(self.secret, struct.pack("<Q4x", number), message[48:HEADER_SIZE], body))

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        return self.talk(REPORT_REQ, data + struct.pack("<I28x", vmpl), 4000, None)[:3]

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        return self.talk(KEY_REQ, struct.pack("<8xQIIQ", fields, vmpl, svn, tcb), 64, None)[:3]

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        length = certs_len if address else 0
        if length & 0xFFF or length > FW_BLOB_MAX_SIZE:
            return -EINVAL, 0, b"", b"", 0
        return self.talk(REPORT_REQ, data + struct.pack("<I28x", vmpl), 4000, length >> 12)

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        found = []
        for at in range(0, len(table) - 23, 24):
            entry = table[at : at + 24]
            if entry == bytes(24):
                return 0, tuple(found)
            start, length = struct.unpack_from("<II", entry, 16)
            if length > len(table) or start > len(table) - length:
                return 0, tuple(found)
            found.append((entry[:16], table[start : start + length]))
        return -EINVAL, ()
