"""Guest messages and attestation reports in the bytes of the firmware interface, and the chip's certificates."""

from __future__ import annotations

import datetime
import hashlib
import struct
import uuid
from dataclasses import dataclass, field
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from conformance.environment.snp_guest_request.crypto import TAG_SIZE, Suite, chip_key
from conformance.specs.snp_guest_request.constants import HEADER_SIZE, MSG_ALGO, REPORT_SIZE

ALGO_AES_256_GCM = 1
SIGNED_SIZE = 0x2A0
"""Bytes of a report that the signature covers."""

_HEADER = struct.Struct("<16s16xQ8xBBHBBH4xB35x")
"""Tag, number, algorithm, header version, header size, type, version, payload size, VMPCK."""
_REPORT = struct.Struct("<IIQ16s16sIIQQI4x64s48s32s48s48s32s32sQ3s21x64sQ3sx3sxQQQ152x512s")


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a message header; the tag is empty until the payload is encrypted."""

    number: int
    type: int
    size: int
    vmpck: int
    tag: bytes = bytes(TAG_SIZE)
    version: int = 1
    algo: int = ALGO_AES_256_GCM
    header_version: int = 1
    header_size: int = HEADER_SIZE

    def encode(self) -> bytes:
        """The 96 bytes."""
        return _HEADER.pack(
            self.tag,
            self.number,
            self.algo,
            self.header_version,
            self.header_size,
            self.type,
            self.version,
            self.size,
            self.vmpck,
        )

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Read 96 bytes."""
        tag, number, algo, header_version, header_size, kind, version, size, vmpck = _HEADER.unpack_from(data)
        return cls(number, kind, size, vmpck, tag, version, algo, header_version, header_size)


def iv_of(number: int) -> bytes:
    """The 12 bytes that a message of that number is encrypted under."""
    return number.to_bytes(8, "little") + bytes(4)


def seal(suite: Suite, key: bytes, header: Header, payload: bytes) -> bytes:
    """A whole message: header with tag, and encrypted payload."""
    plain = header.encode()
    sealed = suite.encrypt(key, iv_of(header.number), plain[MSG_ALGO:], payload)
    return sealed[-TAG_SIZE:] + plain[TAG_SIZE:] + sealed[:-TAG_SIZE]


def unseal(suite: Suite, key: bytes, message: bytes) -> bytes | None:
    """The payload of a message, None when its tag does not fit."""
    header = Header.decode(message)
    body = message[HEADER_SIZE : HEADER_SIZE + header.size]
    aad = message[MSG_ALGO:HEADER_SIZE]
    return suite.decrypt(key, iv_of(header.number), aad, body + header.tag)


def tcb(boot_loader: int, tee: int, snp: int, microcode: int) -> int:
    """TCB_VERSION of Milan and Genoa."""
    return boot_loader | tee << 8 | snp << 48 | microcode << 56


@dataclass(frozen=True, slots=True)
class Platform:
    """The chip, as reports show it."""

    chip_id: bytes = field(default_factory=lambda: hashlib.sha512(b"the simulated chip").digest())
    current_tcb: int = tcb(4, 0, 22, 213)
    platform_info: int = 3
    firmware: bytes = bytes((8, 55, 1))
    """Build, minor and major."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a guest was launched with, as reports show it."""

    policy: int = 0x30000
    measurement: bytes = bytes(range(48))
    host_data: bytes = bytes(32)
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    guest_svn: int = 0x534E5001
    report_id: bytes = bytes(range(32, 64))
    report_id_ma: bytes = b"\xff" * 32


PLATFORM = Platform()
LAUNCH = Launch()


def report_body(platform: Platform, launch: Launch, data: bytes, vmpl: int, reported_tcb: int) -> bytes:
    """The bytes of a version 2 report that are signed."""
    return _REPORT.pack(
        2,
        launch.guest_svn,
        launch.policy,
        launch.family_id,
        launch.image_id,
        vmpl,
        1,
        platform.current_tcb,
        platform.platform_info,
        0,
        data,
        launch.measurement,
        launch.host_data,
        launch.id_key_digest,
        launch.author_key_digest,
        launch.report_id,
        launch.report_id_ma,
        reported_tcb,
        bytes(3),
        platform.chip_id,
        platform.current_tcb,
        platform.firmware,
        platform.firmware,
        platform.current_tcb,
        0,
        0,
        bytes(512),
    )[:SIGNED_SIZE]


def signed_report(suite: Suite, body: bytes) -> bytes:
    """A whole report."""
    report = body + suite.sign(body)
    assert len(report) == REPORT_SIZE
    return report


# -- certificates

GUIDS = {
    "VCEK": uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes,
    "VLEK": uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes,
    "ASK": uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes,
    "ARK": uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes,
    "CRL": uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea").bytes,
}
_ENTRY = struct.Struct("<16sII")
_OID = "1.3.6.1.4.1.3704.1."
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)


def certificate_table(entries: list[tuple[str, bytes]]) -> bytes:
    """Entries, the zero entry, and the certificates."""
    offset = _ENTRY.size * (len(entries) + 1)
    heads, bodies = b"", b""
    for name, data in entries:
        heads += _ENTRY.pack(GUIDS[name], offset + len(bodies), len(data))
        bodies += data
    return heads + bytes(_ENTRY.size) + bodies


@dataclass(frozen=True, slots=True)
class Chain:
    """ARK, ASK and VCEK as DER."""

    ark: bytes
    ask: bytes
    vcek: bytes

    def table(self) -> bytes:
        """The certificate table of this chain."""
        return certificate_table([("VCEK", self.vcek), ("ASK", self.ask), ("ARK", self.ark)])


@cache
def chain(product: str = "Milan") -> Chain:
    """Real certificates for the simulated chip, made once per process because RSA keys take a second each."""
    ark_key, ask_key = (rsa.generate_private_key(65537, 4096) for _ in range(2))
    ark_name, ask_name = _name(f"ARK-{product}"), _name(f"SEV-{product}")
    ca = x509.BasicConstraints(ca=True, path_length=None)
    ark = _builder(ark_name, ark_name, 65536, ark_key.public_key()).add_extension(ca, critical=True)
    ask = _builder(ark_name, ask_name, 65537, ask_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    vcek = _builder(ask_name, _name("SEV-VCEK"), 1, chip_key().public_key())
    for oid, value in _vcek_extensions(PLATFORM, product):
        vcek = vcek.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(_OID + oid), value), critical=False)
    return Chain(
        _der(ark.sign(ark_key, hashes.SHA384(), rsa_padding=_PSS)),
        _der(ask.sign(ark_key, hashes.SHA384(), rsa_padding=_PSS)),
        _der(vcek.sign(ask_key, hashes.SHA384(), rsa_padding=_PSS)),
    )


def _vcek_extensions(platform: Platform, product: str) -> list[tuple[str, bytes]]:
    """Extensions of a VCEK: DER of integers, of the product's name, and the bare bytes of the hardware id."""
    version = platform.current_tcb.to_bytes(8, "little")
    name = f"{product}-B0".encode()
    spl = {"3.1": version[0], "3.2": version[1], "3.3": version[6], "3.8": version[7]}
    spl |= {f"3.{n}": 0 for n in (4, 5, 6, 7)}
    integers = [(oid, _der_integer(value)) for oid, value in sorted(spl.items())]
    return [("1", _der_integer(0)), ("2", b"\x16" + bytes((len(name),)) + name), *integers, ("4", platform.chip_id)]


def _der_integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1)
    return b"\x02" + bytes((len(body),)) + body


def _name(common: str) -> x509.Name:
    pairs = (
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _builder(issuer: x509.Name, subject: x509.Name, serial: int, key: object) -> x509.CertificateBuilder:
    start = datetime.datetime(2020, 10, 22, tzinfo=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=25 * 365))
        .public_key(key)  # type: ignore[arg-type]  # RSA for the authorities, P-384 for the chip
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
