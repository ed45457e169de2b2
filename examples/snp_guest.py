"""A guest's driver for attestation reports in seventy lines: a first draft, with what a first draft gets wrong.

conformance run snp_guest_request --candidate examples/snp_guest.py:Guest
"""

import struct

EINVAL, EIO, EBADMSG = 22, 5, 74
PAGE = 4096
GUEST_REQUEST, EXT_GUEST_REQUEST = 0x80000011, 0x80000012
REPORT, KEY = 5, 3
KEYS, COUNTERS = 0x20, 0xA0  # in the secrets page
HEADER = struct.Struct("<16s16xQ8xBBHBBH4xB35x")  # tag, number, ..., type, version, size, ..., key
SEALED = 0x30  # from here on the header is authenticated


class Guest:
    """Opens, asks, closes; `port` is the guest's kernel and the host behind VMGEXIT."""

    capabilities = frozenset({"guest"})  # parses no certificates by itself

    def __init__(self, port):
        self.port = port

    def open(self, vmpck):
        self.vmpck = vmpck
        self.key = self.port.read_secrets(KEYS + 32 * vmpck, 32)
        if not any(self.key):
            return -EINVAL
        self.request, self.response = self.port.alloc_pages(1), self.port.alloc_pages(1)
        self.certs = self.port.alloc_pages(4)
        for pages in (self.request, self.response, self.certs):
            self.port.set_decrypted(pages)
        return 0

    def close(self):
        for pages in (self.request, self.response, self.certs):
            self.port.set_encrypted(pages)
            self.port.free_pages(pages)
        return 0

    def ask(self, kind, payload, code=GUEST_REQUEST, npages=0):
        """One exchange with firmware: result, exitinfo2, answer."""
        at = COUNTERS + 4 * self.vmpck
        number = int.from_bytes(self.port.read_secrets(at, 4), "little") + 1
        header = HEADER.pack(bytes(16), number, 1, 1, HEADER.size, kind, 1, len(payload), self.vmpck)
        sealed = self.port.gcm_encrypt(self.key, struct.pack("<Q4x", number), header[SEALED:], payload)
        self.port.shared_write(self.response, bytes(PAGE))
        self.port.shared_write(self.request, sealed[-16:] + header[16:] + sealed[:-16])
        info1, info2, _ = self.port.guest_exit(code, self.request, self.response, self.certs, npages)
        if info1 or info2:
            return -EIO, info2, b""
        self.port.write_secrets(at, (number + 1).to_bytes(4, "little"))
        message = self.port.shared_read(self.response, PAGE)
        tag, number, *_, size, _ = HEADER.unpack_from(message)
        body = message[HEADER.size : HEADER.size + size] + tag
        answer = self.port.gcm_decrypt(self.key, struct.pack("<Q4x", number), message[SEALED : HEADER.size], body)
        return (0, 0, answer) if answer else (-EBADMSG, 0, b"")

    def get_report(self, data, vmpl):
        return self.ask(REPORT, struct.pack("<64sI28x", data, vmpl))

    def get_derived_key(self, fields, vmpl, svn, tcb):
        return self.ask(KEY, struct.pack("<IIQIIQ", 0, 0, fields, vmpl, svn, tcb))

    def get_ext_report(self, data, vmpl, certs_len, address):
        payload = struct.pack("<64sI28x", data, vmpl)
        result, info2, answer = self.ask(REPORT, payload, EXT_GUEST_REQUEST, certs_len // PAGE)
        certs = self.port.shared_read(self.certs, certs_len) if address and not result else b""
        return result, info2, answer, certs, 0
