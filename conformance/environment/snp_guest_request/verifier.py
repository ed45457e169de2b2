"""The relying party: is this report genuine, and is it the one that was asked for?"""

from __future__ import annotations

import struct
from functools import cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from conformance.environment.snp_guest_request.crypto import Suite, verify_with
from conformance.environment.snp_guest_request.report import SIGNED_SIZE, Chain
from conformance.specs.snp_guest_request.constants import REPORT_RSP_SIZE, REPORT_SIZE

REPORT_AT = 0x20
"""Offset of the report in the payload of a response."""
REPORT_DATA = slice(0x50, 0x90)
VMPL = slice(0x30, 0x34)
CHIP_ID = slice(0x1A0, 0x1E0)


def report_refused(suite: Suite, payload: bytes, data: bytes, vmpl: int | None = None) -> str:
    """Why the payload of a report response is not the genuine report over `data`, for `vmpl`; empty when it is."""
    if len(payload) != REPORT_RSP_SIZE:
        return f"a report response has {REPORT_RSP_SIZE:#x} bytes, not {len(payload):#x}"
    status, size = struct.unpack_from("<II", payload)
    if status or size != REPORT_SIZE:
        return f"status {status:#x}, report size {size:#x}"
    report = payload[REPORT_AT : REPORT_AT + REPORT_SIZE]
    if report[REPORT_DATA] != data:
        return "the report is over other data than was asked for"
    if vmpl is not None and int.from_bytes(report[VMPL], "little") != vmpl:
        return "the report is for another VMPL than was asked for"
    if not suite.verify(report[:SIGNED_SIZE], report[SIGNED_SIZE:]):
        return "the signature does not verify over bytes 0..0x29F"
    return ""


def chain_refused(report: bytes, chain: Chain) -> str:
    """Why the report does not follow from the chain's ARK; empty when it does."""
    ark, ask, vcek = (x509.load_der_x509_certificate(der) for der in (chain.ark, chain.ask, chain.vcek))
    for what, issued, issuer in (("ARK", ark, ark), ("ASK", ask, ark), ("VCEK", vcek, ask)):
        if not _is_issued(issued, issuer):
            return f"the {what} is not signed by its issuer"
    key = vcek.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not verify_with(
        key, report[:SIGNED_SIZE], report[SIGNED_SIZE:]
    ):
        return "the report is not signed by the VCEK"
    chip = vcek.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.4")).value
    assert isinstance(chip, x509.UnrecognizedExtension)
    return "" if is_of_chip(report, chip.value) else "the VCEK is another chip's"


def is_of_chip(report: bytes, hwid: bytes) -> bool:
    """Whether a report and a VCEK name one chip; its hwID has 64 bytes, or 8 on Turin, followed by zeros."""
    return len(hwid) in (8, 64) and report[CHIP_ID] == hwid.ljust(64, b"\0")


@cache
def _is_issued(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        key.verify(issued.signature, issued.tbs_certificate_bytes, pss, hashes.SHA384())
    except InvalidSignature:
        return False
    return issued.issuer == issuer.subject
