"""Ciphers, signatures, reports and chains, against what this project did not write."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.environment.snp_guest_request.crypto import REAL, Suite, encode_signature, verify_with
from conformance.environment.snp_guest_request.report import (
    GUIDS,
    LAUNCH,
    PLATFORM,
    SIGNED_SIZE,
    Header,
    certificate_table,
    chain,
    report_body,
    signed_report,
)
from conformance.environment.snp_guest_request.verifier import REPORT_AT, chain_refused, is_of_chip, report_refused
from conformance.specs.snp_guest_request.constants import HEADER_SIZE, PAGE_SIZE, REPORT_SIZE
from tests.conformance.snp_guest_request.judging import DATA, SUITES


@pytest.mark.parametrize(
    ("key", "iv", "aad", "plain", "sealed"),
    [
        (bytes(32), bytes(12), b"", b"", "530f8afbc74536b9a963b4f1c4cb738b"),
        (bytes(32), bytes(12), b"", bytes(16), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
        (
            bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2),
            bytes.fromhex("cafebabefacedbaddecaf888"),
            bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
            bytes.fromhex(
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
            ),
            (
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
            ),
        ),
    ],
    ids=["case 13", "case 14", "case 16"],
)
def test_cipher_gives_the_published_answers(key: bytes, iv: bytes, aad: bytes, plain: bytes, sealed: str) -> None:
    """AES-256-GCM, the test cases of McGrew and Viega."""
    assert REAL.encrypt(key, iv, aad, plain).hex() == sealed
    assert REAL.decrypt(key, iv, aad, bytes.fromhex(sealed)) == plain


def test_signature_of_rfc_6979_verifies() -> None:
    """P-384 with SHA-384, message "sample" of RFC 6979 A.2.6, brought into the layout of a report."""
    x = 0xEC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13
    y = 0x8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720
    r = 0x94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46
    s = 0x99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    signature = (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(512, b"\0")

    assert verify_with(key, b"sample", signature)
    assert not verify_with(key, b"simple", signature)


def test_signature_beyond_r_and_s_is_zero() -> None:
    """SNP-083: anything after R and S is refused, and so is another length."""
    private = ec.derive_private_key(7, ec.SECP384R1())
    signature = encode_signature(private.sign(b"m", ec.ECDSA(hashes.SHA384())))

    assert verify_with(private.public_key(), b"m", signature)
    assert not verify_with(private.public_key(), b"m", signature[:-1] + b"\1")
    assert not verify_with(private.public_key(), b"m", signature[:-1])


@pytest.mark.parametrize("suite", SUITES, ids=["real", "stand-in"])
def test_suites_are_sensitive_to_every_input(suite: Suite) -> None:
    """Key, IV, header, payload and tag: a change of any is found."""
    key, iv, aad, plain = bytes(range(32)), bytes(12), b"header", bytes(range(200))
    sealed = suite.encrypt(key, iv, aad, plain)

    assert suite.decrypt(key, iv, aad, sealed) == plain
    assert suite.decrypt(bytes(32), iv, aad, sealed) is None
    assert suite.decrypt(key, b"\1" + iv[1:], aad, sealed) is None
    assert suite.decrypt(key, iv, b"Header", sealed) is None
    for at in (0, 100, 199, 200, 215):
        broken = bytearray(sealed)
        broken[at] ^= 1
        assert suite.decrypt(key, iv, aad, bytes(broken)) is None, at
    assert plain not in sealed


def test_header_lies_at_the_published_offsets() -> None:
    """The message header of 96 bytes."""
    raw = Header(0x1122334455667788, 5, 0x60, 3, bytes(range(1, 17))).encode()
    table = {0x00: bytes(range(1, 17)), 0x20: bytes.fromhex("8877665544332211"), 0x30: b"\1", 0x31: b"\1"}
    table |= {0x32: b"\x60\0", 0x34: b"\5", 0x35: b"\1", 0x36: b"\x60\0", 0x3C: b"\3"}

    assert len(raw) == HEADER_SIZE
    for offset, value in table.items():
        assert raw[offset : offset + len(value)] == value, hex(offset)
    assert not any(raw[0x10:0x20] + raw[0x28:0x30] + raw[0x38:0x3C] + raw[0x3D:])
    assert Header.decode(raw) == Header(0x1122334455667788, 5, 0x60, 3, bytes(range(1, 17)))


def test_report_lies_at_the_published_offsets() -> None:
    """The attestation report of 1184 bytes, version 2."""
    launch = replace(LAUNCH, family_id=b"F" * 16, image_id=b"I" * 16, host_data=b"H" * 32, guest_svn=9)
    raw = signed_report(REAL, report_body(PLATFORM, launch, DATA, 3, 0x1234))
    table: dict[int, bytes] = {
        0x000: struct.pack("<II", 2, 9),
        0x008: launch.policy.to_bytes(8, "little"),
        0x010: b"F" * 16,
        0x020: b"I" * 16,
        0x030: struct.pack("<II", 3, 1),
        0x038: PLATFORM.current_tcb.to_bytes(8, "little"),
        0x040: (3).to_bytes(8, "little"),
        0x048: bytes(8),
        0x050: DATA,
        0x090: launch.measurement,
        0x0C0: b"H" * 32,
        0x140: launch.report_id,
        0x160: b"\xff" * 32,
        0x180: struct.pack("<Q", 0x1234),
        0x188: bytes(24),
        0x1A0: PLATFORM.chip_id,
        0x1E0: PLATFORM.current_tcb.to_bytes(8, "little"),
        0x1E8: bytes((8, 55, 1, 0, 8, 55, 1, 0)),
        0x1F0: PLATFORM.current_tcb.to_bytes(8, "little"),
        0x208: bytes(152),
    }

    assert len(raw) == REPORT_SIZE == 1184
    for offset, value in table.items():
        assert raw[offset : offset + len(value)] == value, hex(offset)
    assert REAL.verify(raw[:0x2A0], raw[0x2A0:])


def test_certificate_table_is_read_by_its_guids() -> None:
    """GUIDs stand in the order of their text; entries end with zeros; offsets count from the table's start."""
    table = certificate_table([("VCEK", b"one"), ("ARK", b"three")])

    assert table[:16].hex() == "63da758de6644564adc5f4b93be8accd"
    assert struct.unpack_from("<II", table, 16) == (72, 3)
    assert struct.unpack_from("<II", table, 40) == (75, 5)
    assert table[48:72] == bytes(24)
    assert GuestDriver(None).parse_certs(table) == (0, ((GUIDS["VCEK"], b"one"), (GUIDS["ARK"], b"three")))


def test_every_bit_of_a_report_counts() -> None:
    """Each single-bit corruption of a genuine report is refused."""
    payload = struct.pack("<II24x", 0, REPORT_SIZE) + signed_report(
        REAL, report_body(PLATFORM, LAUNCH, DATA, 0, PLATFORM.current_tcb)
    )
    assert report_refused(REAL, payload, DATA) == ""

    covered = SIGNED_SIZE + 144
    for bit in range(8 * REPORT_SIZE):
        if bit >= 8 * covered and bit % 97:
            continue  # the zeros after R and S are compared in one piece
        broken = bytearray(payload)
        broken[REPORT_AT + bit // 8] ^= 1 << bit % 8
        assert report_refused(REAL, bytes(broken), DATA), bit


def test_public_verifier_accepts_our_report() -> None:
    """A verifier that others wrote accepts report and chain, and refuses them with one bit changed."""
    omne = pytest.importorskip("omne_attest", reason="the public verifier omne-attest is not installed")
    ours = chain()
    raw = signed_report(REAL, report_body(PLATFORM, LAUNCH, DATA, 0, PLATFORM.current_tcb))
    pin = hashlib.sha256(ours.ark).digest()
    policy = omne.Policy(measurement=LAUNCH.measurement, report_data=DATA, max_vmpl=0, reject_debug=True)

    report = omne.verify(raw, ours.vcek, ours.ask, ours.ark, pin, policy)

    assert report.measurement == LAUNCH.measurement
    for bit in range(0, 8 * (SIGNED_SIZE + 48), 37):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(omne.Fail):
            omne.verify(bytes(broken), ours.vcek, ours.ask, ours.ark, pin, policy)


def test_our_verifier_accepts_a_real_chip() -> None:
    """A report and a chain of real hardware, which the public verifier ships."""
    vectors = pytest.importorskip("omne_attest", reason="the public verifier omne-attest is not installed").vectors
    real = type(chain())(vectors.ark(), vectors.ask(), vectors.vcek())
    raw = vectors.attestation()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real VCEK has serial number 0
        assert chain_refused(raw, real) == ""
        assert chain_refused(bytes([raw[0] ^ 1]) + raw[1:], real) == "the report is not signed by the VCEK"


def test_chain_follows_from_its_root() -> None:
    """ARK, ASK and VCEK, and no other order of them."""
    ours = chain()
    raw = signed_report(REAL, report_body(PLATFORM, LAUNCH, DATA, 0, PLATFORM.current_tcb))

    assert chain_refused(raw, ours) == ""
    assert chain_refused(raw, replace(ours, ask=ours.ark)) != ""
    assert len(ours.table()) <= 2 * PAGE_SIZE


def test_missing_package_is_told_in_one_sentence() -> None:
    """Without `cryptography` loading says what to install."""
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from conformance.subsystem import subsystem\n"
        "try: subsystem('snp_guest_request')\n"
        "except BaseException as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "cryptography" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_chip_is_known_by_64_bytes_or_by_8() -> None:
    """On Turin the hwID is shorter, and the report fills it up."""
    turin, milan = bytes(range(1, 9)), bytes(range(64))

    assert is_of_chip(bytes(0x1A0) + turin + bytes(56), turin)
    assert is_of_chip(bytes(0x1A0) + milan, milan)
    assert not is_of_chip(bytes(0x1A0) + milan, milan[:8])
    assert not is_of_chip(bytes(0x1A0) + bytes(64), b"")
