"""The guest's side of messages: request pages by name, good ones and others."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from conformance.environment.snp_guest_request.firmware import vmpck
from conformance.environment.snp_guest_request.report import LAUNCH, Header, seal
from conformance.specs.snp_guest_request.constants import EXPORT_REQ, PAGE_SIZE


def request_payload(name: str, key: int) -> tuple[int, bytes]:
    """Type and payload of the guest's request of that name, VMPCK `key`."""
    vmpl = key
    data = bytes(range(64))
    match name:
        case "key" | "key-bad-tag":
            return 3, struct.pack("<IIQIIQ", 0, 0, 0b001001, vmpl, 0, 0)
        case "key-unknown-field":
            return 3, struct.pack("<IIQIIQ", 0, 0, 1 << 40, vmpl, 0, 0)
        case "key-svn-too-high":
            return 3, struct.pack("<IIQIIQ", 0, 0, 0, vmpl, LAUNCH.guest_svn + 1, 0)
        case "tsc":
            return 17, bytes(0x80)
        case "cpuid":
            return 1, struct.pack("<I", 2).ljust(0xC10, b"\0")
        case "cpuid-too-many":
            return 1, struct.pack("<I", 65).ljust(0xC10, b"\0")
        case "export":
            return EXPORT_REQ, bytes(0x60)
        case "import" | "absorb" | "vmrk" | "absorb-noma":
            return {"import": 9, "absorb": 11, "vmrk": 13, "absorb-noma": 15}[name], bytes(0x40)
        case "report-reserved-payload":
            return 5, struct.pack("<64sII24s", data, vmpl, 0, b"\1".ljust(24, b"\0"))
        case "report-key-sel-3":
            return 5, struct.pack("<64sII24x", data, vmpl, 3)
        case "report-vlek":
            return 5, struct.pack("<64sII24x", data, vmpl, 2)
        case _:
            return 5, struct.pack("<64sII24x", data, vmpl, 0)


_TYPES = {"type-0": 0, "type-6": 6, "type-19": 19, "type-21": 21, "type-133": 133, "type-255": 255}


_SIZES = {"size-0": 0, "size-8": 8, "size-0xfb0": 0xFB0, "size-0xfff0": 0xFFF0}


_PATCHES = {
    "reserved-0x28": (0x28, b"\1"),
    "reserved-0x38": (0x38, b"\1"),
    "bad-tag": (0x00, b"\xff\xfe"),
    "key-bad-tag": (0x00, b"\xff\xfe"),
    "hdr-version": (0x31, b"\2"),
    "hdr-size": (0x32, b"\x50\0"),
    "algo": (0x30, b"\0"),
    "vmpck-4": (0x3C, b"\4"),
}


@lru_cache(maxsize=4096)
def request_page(suite: Any, name: str, guest: int, key: int, count: int) -> bytes:
    """The 4096 bytes of a request page with the message of that name, when firmware has counted `count`."""
    kind, payload = request_payload(name, key)
    number = count + 1
    if name == "replay":
        number = max(count - 1, 1) if count else 3
    elif name in ("number-same", "number-ahead", "number-huge"):
        number = {"number-same": count, "number-ahead": count + 3, "number-huge": 2**64 - 1}[name]
    number = min(number, 2**64 - 1)
    header = Header(
        number,
        _TYPES.get(name, kind),
        len(payload),
        key,
        version={"version-0": 0, "version-2": 2}.get(name, 1),
    )
    secret = vmpck(guest + 7 if name == "foreign-key" else guest, key)
    message = bytearray(seal(suite, secret, header, payload))
    if name in _PATCHES:
        at, data = _PATCHES[name]
        message[at : at + len(data)] = (
            bytes(a ^ b for a, b in zip(message[at:], data, strict=False)) if at == 0 else data
        )
    elif name in _SIZES:
        message[0x36:0x38] = _SIZES[name].to_bytes(2, "little")
    elif name == "number-tampered":
        message[0x20:0x28] = (count + 1 ^ 0x100).to_bytes(8, "little")
    elif name == "zero":
        message = bytearray()
    return bytes(message).ljust(PAGE_SIZE, b"\0")
