"""Ciphers and signatures of the simulated secure processor: real ones, and stand-ins behind the same interface."""

from __future__ import annotations

import hashlib
import zlib
from functools import cache
from typing import Protocol

from conformance.verdict import UsageError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:  # pragma: no cover - the message is tested in a process of its own
    raise UsageError(
        "snp_guest_request needs the package 'cryptography': install conformance[snp], or cryptography itself"
    ) from missing

TAG_SIZE = 16
SIGNATURE_SIZE = 512
COMPONENT_SIZE = 72
"""R and S of a signature, little-endian."""


class Suite(Protocol):
    """What the firmware, the guest and the verifier need."""

    real: bool

    def __hash__(self) -> int: ...

    def encrypt(self, key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
        """Ciphertext and 16 bytes of tag."""

    def decrypt(self, key: bytes, iv: bytes, aad: bytes, data: bytes) -> bytes | None:
        """The payload, None when the tag does not fit."""

    def sign(self, message: bytes) -> bytes:
        """512 bytes: R and S in 72 little-endian bytes each, the rest zero."""

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is the chip's over the message, and formed as it must be."""


class RealSuite:
    """AES-256-GCM and ECDSA P-384 with SHA-384."""

    real = True

    def encrypt(self, key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
        """Ciphertext and 16 bytes of tag."""
        return _gcm(key).encrypt(iv, payload, aad)

    def decrypt(self, key: bytes, iv: bytes, aad: bytes, data: bytes) -> bytes | None:
        """The payload, None when the tag does not fit."""
        try:
            return _gcm(key).decrypt(iv, data, aad)
        except InvalidTag:
            return None

    def sign(self, message: bytes) -> bytes:
        """Sign with the chip's key."""
        return encode_signature(chip_key().sign(message, ec.ECDSA(hashes.SHA384())))

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Verify with the chip's public key."""
        return verify_with(chip_key().public_key(), message, signature)


class StandInSuite:
    """Neither secret nor unforgeable, but sensitive to every input: for runs that check everything else.

    The keystream hides the payload from a glance, so that a message left in the clear still shows.
    """

    real = False

    def encrypt(self, key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
        """Ciphertext and 16 bytes of tag."""
        return _mask(key, iv, payload) + _tag(key, iv, aad, payload)

    def decrypt(self, key: bytes, iv: bytes, aad: bytes, data: bytes) -> bytes | None:
        """The payload, None when the tag does not fit."""
        payload = _mask(key, iv, data[:-TAG_SIZE])
        return payload if _tag(key, iv, aad, payload) == data[-TAG_SIZE:] else None

    def sign(self, message: bytes) -> bytes:
        """A digest in the places of R and S."""
        digest = hashlib.sha1(message, usedforsecurity=False).digest()
        return digest.ljust(COMPONENT_SIZE, b"\0") + digest.ljust(SIGNATURE_SIZE - COMPONENT_SIZE, b"\0")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the digest is the message's."""
        return signature == self.sign(message)


REAL = RealSuite()
STAND_IN = StandInSuite()


@cache
def chip_key() -> ec.EllipticCurvePrivateKey:
    """The key that signs reports; a fixed one, so that runs repeat."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha384(b"the simulated chip").digest()) >> 1, ec.SECP384R1())


def encode_signature(der: bytes) -> bytes:
    """A DER signature in the layout of a report."""
    r, s = utils.decode_dss_signature(der)
    parts = r.to_bytes(COMPONENT_SIZE, "little") + s.to_bytes(COMPONENT_SIZE, "little")
    return parts.ljust(SIGNATURE_SIZE, b"\0")


def verify_with(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature`, in the layout of a report, is `key`'s over `message`."""
    if len(signature) != SIGNATURE_SIZE or any(signature[2 * COMPONENT_SIZE :]):
        return False
    r = int.from_bytes(signature[:COMPONENT_SIZE], "little")
    s = int.from_bytes(signature[COMPONENT_SIZE : 2 * COMPONENT_SIZE], "little")
    try:
        key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


@cache
def _gcm(key: bytes) -> AESGCM:
    return AESGCM(key)


@cache
def _stream(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest() * 128)


def _mask(key: bytes, iv: bytes, payload: bytes) -> bytes:
    size = len(payload)
    stream = _stream(key) >> 8 * (4096 - size) if size <= 4096 else 0
    return (int.from_bytes(payload) ^ stream ^ int.from_bytes(iv[:8])).to_bytes(size) if size >= 8 else payload


def _tag(key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
    first = zlib.crc32(payload, zlib.crc32(aad, zlib.crc32(iv, zlib.crc32(key))))
    second = zlib.adler32(payload, zlib.crc32(aad, first))
    return (first << 32 | second).to_bytes(8) * 2


__all__ = ["REAL", "STAND_IN", "Suite", "chip_key", "encode_signature", "verify_with", "x509"]
