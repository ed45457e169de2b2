"""The guest's driver, laid out as drivers/virt/coco/sev-guest and arch/x86/coco/sev/core.c are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EAGAIN,
    EBADMSG,
    EFAULT,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTTY,
    ETIMEDOUT,
    EXT_GUEST_REQUEST,
    FW_BLOB_MAX_SIZE,
    GUEST_REQUEST,
    HEADER_SIZE,
    KEY_REQ,
    KEY_RSP_SIZE,
    MSG_ALGO,
    MSG_SEQNO,
    MSG_SIZE,
    MSG_TYPE,
    MSG_VERSION,
    PAGE_SIZE,
    REPORT_REQ,
    REPORT_RSP_SIZE,
    SECRETS_SEQNO,
    SECRETS_VMPCK,
    TOO_SMALL_INFO2,
)
from conformance.specs.snp_guest_request.port import Port

VMPCK_KEY_LEN = 32
AUTHTAG_LEN = 16
REPORT_BUFFER = 4000
"""Bytes that the caller of SNP_GET_REPORT gives for the answer."""
SNP_REQ_MAX_RETRY_DURATION = 60
SNP_REQ_RETRY_DELAY = 2
UINT_MAX = 2**32 - 1
SEV_RET_NO_FW_CALL = 2**64 - 1
"""exitinfo2 until a host has answered: no command reached firmware."""
NOT_ASKED = 0xFF
"""exitinfo2 of an ioctl that ended before anything was sent."""
SNP_CMD_MUTEX = "snp_cmd_mutex"


@dataclass(slots=True)
class GuestReq:
    """struct snp_guest_req, with struct snp_req_data in it."""

    exit_code: int
    msg_type: int
    payload: bytes
    resp_sz: int
    """Bytes of the answer's buffer, the authentication tag included."""
    certs_data: int = 0
    """Address of the pages for certificates."""
    data_npages: int = 0
    exitinfo2: int = NOT_ASKED


class LinuxGuest:
    """sev-guest since 6.14: the lock is snp_send_guest_request's, certificate pages are each request's own."""

    profile = "linux"
    capabilities = frozenset({"guest", "verifier"})

    WIPE_AFTER_FAILED_RESEND: ClassVar[bool] = False
    """Whether an error of the basic request that follows "too small" wipes the key; released Linux keeps it."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.has_mutex = False
        self.vmpck_id = 0
        self.vmpck: bytes | None = None
        """The key; None once it is wiped, or before it was there."""
        self.request = 0
        self.response = 0
        self.secret_request = b""

    # -- probe and remove

    def open(self, vmpck: int) -> int:
        """sev_guest_probe: snp_msg_alloc, then snp_msg_init."""
        if not self.has_mutex:
            self.port.mutex_init(SNP_CMD_MUTEX)
            self.has_mutex = True
        ret = self.snp_msg_alloc()
        if ret:
            return ret
        ret = self.snp_msg_init(vmpck)
        if ret:
            self.snp_msg_free()
        return ret

    def snp_msg_alloc(self) -> int:
        """One shared page for requests, one for responses."""
        self.request = self.alloc_shared_pages(1)
        if not self.request:
            return -ENOMEM
        self.response = self.alloc_shared_pages(1)
        if not self.response:
            self.free_shared_pages(self.request)
            self.request = 0
            return -ENOMEM
        return 0

    def snp_msg_init(self, vmpck_id: int) -> int:
        """Find the key; one of zeroes is no key."""
        if not 0 <= vmpck_id <= 3:
            return -EINVAL
        vmpck = self.port.read_secrets(SECRETS_VMPCK + vmpck_id * VMPCK_KEY_LEN, VMPCK_KEY_LEN)
        if not any(vmpck):
            return -EINVAL
        self.vmpck_id = vmpck_id
        self.vmpck = vmpck
        return 0

    def snp_msg_free(self) -> None:
        """Give both pages back."""
        self.vmpck = None
        self.free_shared_pages(self.response)
        self.free_shared_pages(self.request)
        self.request = self.response = 0

    def close(self) -> int:
        """sev_guest_remove."""
        self.snp_msg_free()
        return 0

    def alloc_shared_pages(self, npages: int) -> int:
        """Pages that the host sees, 0 when there are none."""
        gpa = self.port.alloc_pages(npages)
        if not gpa:
            return 0
        if self.port.set_decrypted(gpa):
            self.port.free_pages(gpa)
            return 0
        return gpa

    def free_shared_pages(self, gpa: int) -> None:
        """Private again, then free; leaked when they stay shared."""
        if not gpa:
            return
        if self.port.set_encrypted(gpa):
            self.port.leak_pages(gpa)
            return
        self.port.free_pages(gpa)

    # -- ioctls

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        """SNP_GET_REPORT."""
        req = GuestReq(GUEST_REQUEST, REPORT_REQ, report_req(data, vmpl), REPORT_BUFFER + AUTHTAG_LEN)
        ret, answer = self.snp_send_guest_request(req)
        return ret, req.exitinfo2, answer[:REPORT_RSP_SIZE]

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        """SNP_GET_DERIVED_KEY."""
        payload = struct.pack("<IIQIIQ", 0, 0, fields & 2**64 - 1, vmpl & UINT_MAX, svn & UINT_MAX, tcb & 2**64 - 1)
        req = GuestReq(GUEST_REQUEST, KEY_REQ, payload, KEY_RSP_SIZE + AUTHTAG_LEN)
        ret, answer = self.snp_send_guest_request(req)
        return ret, req.exitinfo2, answer

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        """SNP_GET_EXT_REPORT."""
        req = GuestReq(EXT_GUEST_REQUEST, REPORT_REQ, report_req(data, vmpl), REPORT_BUFFER + AUTHTAG_LEN)
        npages = 0
        if certs_len and address:
            if certs_len > FW_BLOB_MAX_SIZE or certs_len % PAGE_SIZE:
                return -EINVAL, req.exitinfo2, b"", b"", 0
            npages = certs_len // PAGE_SIZE
            ret = self.get_certs_pages(req, npages)
            if ret:
                return ret, req.exitinfo2, b"", b"", 0
        req.data_npages = npages
        ret, answer = self.snp_send_guest_request(req)
        needed = req.data_npages * PAGE_SIZE if req.exitinfo2 >> 32 == TOO_SMALL_INFO2 >> 32 else 0
        certs = self.port.shared_read(req.certs_data, certs_len) if npages and not ret else b""
        self.put_certs_pages(req)
        return ret, req.exitinfo2, answer[:REPORT_RSP_SIZE], certs, needed

    def get_certs_pages(self, req: GuestReq, npages: int) -> int:
        """Zeroed pages of this request's own: a host that supplies nothing leaves an empty table."""
        gpa = self.port.alloc_pages(npages)
        if not gpa:
            return -ENOMEM
        if self.port.set_decrypted(gpa):
            self.port.free_pages(gpa)
            return -EFAULT
        self.port.shared_write(gpa, bytes(npages * PAGE_SIZE))
        req.certs_data = gpa
        return 0

    def put_certs_pages(self, req: GuestReq) -> None:
        """Give this request's pages back."""
        self.free_shared_pages(req.certs_data)

    # -- messages

    def snp_send_guest_request(self, req: GuestReq) -> tuple[int, bytes]:
        """Result and answer of one exchange, under the one lock."""
        self.port.mutex_lock(SNP_CMD_MUTEX)
        ret, answer = self.exchange(req)
        self.port.mutex_unlock(SNP_CMD_MUTEX)
        return ret, answer

    def exchange(self, req: GuestReq) -> tuple[int, bytes]:
        """The key is used once per number, or not again."""
        if not self.vmpck:
            return -ENOTTY, b""
        seqno = self.snp_get_msg_seqno()
        if not seqno:
            return -EIO, b""
        self.port.shared_write(self.response, bytes(PAGE_SIZE))
        self.enc_payload(seqno, req)
        self.port.shared_write(self.request, self.secret_request)
        ret, is_too_small = self.handle_guest_request(req)
        return self.conclude(req, ret, is_too_small)

    def conclude(self, req: GuestReq, ret: int, is_too_small: bool) -> tuple[int, bytes]:
        """What an error means for the key; after "too small" nobody waits for the answer, so it is not looked at."""
        if ret:
            if not (is_too_small and ret == -EIO and not self.WIPE_AFTER_FAILED_RESEND):
                self.snp_disable_vmpck()
            return ret, b""
        if is_too_small:
            return -EIO, b""
        ret, answer = self.verify_and_dec_payload(req)
        if ret:
            self.snp_disable_vmpck()
        return ret, answer

    def snp_get_msg_seqno(self) -> int:
        """The next number, 0 when 32 bits do not hold it."""
        count = int.from_bytes(self.port.read_secrets(SECRETS_SEQNO + 4 * self.vmpck_id, 4), "little") + 1
        return 0 if count >= UINT_MAX else count

    def snp_inc_msg_seqno(self) -> None:
        """Firmware's answer has a number of its own."""
        at = SECRETS_SEQNO + 4 * self.vmpck_id
        count = int.from_bytes(self.port.read_secrets(at, 4), "little") + 2
        self.port.write_secrets(at, (count & UINT_MAX).to_bytes(4, "little"))

    def snp_disable_vmpck(self) -> None:
        """No IV is used twice: the key is gone from the secrets page too."""
        self.port.write_secrets(SECRETS_VMPCK + self.vmpck_id * VMPCK_KEY_LEN, bytes(VMPCK_KEY_LEN))
        self.vmpck = None

    def enc_payload(self, seqno: int, req: GuestReq) -> None:
        """Header and ciphertext, in private memory."""
        header = bytearray(HEADER_SIZE)
        struct.pack_into("<Q", header, MSG_SEQNO, seqno)
        struct.pack_into(
            "<BBHBBHIB", header, MSG_ALGO, 1, 1, HEADER_SIZE, req.msg_type, 1, len(req.payload), 0, self.vmpck_id
        )
        sealed = self.port.gcm_encrypt(self.vmpck or b"", iv(seqno), bytes(header[MSG_ALGO:]), req.payload)
        header[:AUTHTAG_LEN] = sealed[-AUTHTAG_LEN:]
        self.secret_request = (bytes(header) + sealed[:-AUTHTAG_LEN]).ljust(PAGE_SIZE, b"\0")

    def handle_guest_request(self, req: GuestReq) -> tuple[int, bool]:
        """__handle_guest_request: the same message until it is answered.

        Whether an extended request was "too small" comes second. The number is stored anyhow: an answer is checked
        against the request's own.
        """
        start = self.port.now()
        override_npages = 0
        is_too_small = False
        while True:
            ret = self.snp_issue_guest_request(req)
            if ret == -ENOSPC:
                override_npages = req.data_npages
                req.exit_code = GUEST_REQUEST
                is_too_small = True
            elif ret == -EAGAIN:
                if self.port.now() - start > SNP_REQ_MAX_RETRY_DURATION:
                    ret = -ETIMEDOUT
                    break
                self.port.sleep(SNP_REQ_RETRY_DELAY)
            else:
                break
        self.snp_inc_msg_seqno()
        if is_too_small:
            req.exitinfo2 = TOO_SMALL_INFO2
            req.data_npages = override_npages
        return ret, is_too_small

    def snp_issue_guest_request(self, req: GuestReq) -> int:
        """One VMGEXIT."""
        req.exitinfo2 = SEV_RET_NO_FW_CALL
        is_extended = req.exit_code == EXT_GUEST_REQUEST
        rax, rbx = (req.certs_data, req.data_npages) if is_extended else (0, 0)
        info1, info2, needed = self.port.guest_exit(req.exit_code, self.request, self.response, rax, rbx)
        if info1 & UINT_MAX:
            return -EIO
        req.exitinfo2 = info2
        if not info2:
            return 0
        if info2 == BUSY_INFO2:
            return -EAGAIN
        if info2 == TOO_SMALL_INFO2 and is_extended:
            req.data_npages = needed
            return -ENOSPC
        return -EIO

    def verify_and_dec_payload(self, req: GuestReq) -> tuple[int, bytes]:
        """Copied to private memory, then checked, then decrypted into a buffer of zeroes."""
        resp = self.port.shared_read(self.response, PAGE_SIZE)
        sent = self.secret_request
        (sent_seqno,) = struct.unpack_from("<Q", sent, MSG_SEQNO)
        (seqno,) = struct.unpack_from("<Q", resp, MSG_SEQNO)
        (size,) = struct.unpack_from("<H", resp, MSG_SIZE)
        if seqno != sent_seqno + 1:
            return -EBADMSG, b""
        if resp[MSG_TYPE] != sent[MSG_TYPE] + 1 or resp[MSG_VERSION] != sent[MSG_VERSION]:
            return -EBADMSG, b""
        if size + AUTHTAG_LEN > req.resp_sz:
            return -EBADMSG, b""
        sealed = resp[HEADER_SIZE : HEADER_SIZE + size] + resp[:AUTHTAG_LEN]
        payload = self.port.gcm_decrypt(self.vmpck or b"", iv(seqno), resp[MSG_ALGO:HEADER_SIZE], sealed)
        if not payload:
            return -EBADMSG, b""
        return 0, payload.ljust(req.resp_sz - AUTHTAG_LEN, b"\0")

    # -- certificates

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        """The entries up to the zero one, as sev_report_new walks them, each within the table."""
        certs: list[tuple[bytes, bytes]] = []
        for at in range(0, len(table) - 23, 24):
            guid, offset, length = struct.unpack_from("<16sII", table, at)
            if not any(guid) and not offset and not length:
                return 0, tuple(certs)
            if offset + length > len(table):
                return -EINVAL, ()
            certs.append((guid, table[offset : offset + length]))
        return -EINVAL, ()


def report_req(data: bytes, vmpl: int) -> bytes:
    """struct snp_report_req."""
    return struct.pack("<64sI28x", data, vmpl & UINT_MAX)


def iv(seqno: int) -> bytes:
    """The number, little-endian, and zeroes."""
    return seqno.to_bytes(8, "little") + bytes(4)
