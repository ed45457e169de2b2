"""Certificate tables by name, sound ones and others, in bytes."""

from __future__ import annotations

import struct

from conformance.environment.snp_guest_request.report import GUIDS, certificate_table
from conformance.specs.snp_guest_request.constants import PAGE_SIZE


def _tables() -> dict[str, tuple[bytes, tuple[tuple[str, bytes], ...]]]:
    """Certificate tables by name, and the certificates that lie within them."""
    vcek, ask = b"the VCEK, as DER....", b"the ASK, as DER"
    entry = struct.Struct("<16sII")
    one, two = ("VCEK", vcek), ("ASK", ask)
    guid, other = GUIDS["VCEK"], GUIDS["ASK"]
    zero = bytes(24)
    return {
        "two": (certificate_table([one, two]), (one, two)),
        "empty": (bytes(PAGE_SIZE), ()),
        "end-terminator": (zero, ()),
        "stops-at-zero": (entry.pack(guid, 72, 20) + zero + entry.pack(other, 72, 15) + vcek, (one,)),
        "zero-length": (entry.pack(guid, 48, 0) + zero + vcek, (("VCEK", b""),)),
        "zero-length-first": (
            entry.pack(guid, 72, 0) + entry.pack(other, 72, 15) + zero + ask,
            (("VCEK", b""), two),
        ),
        "duplicate": (certificate_table([one, one]), (one, one)),
        "overlap": (entry.pack(guid, 72, 20) + entry.pack(other, 72, 15) + zero + vcek, (one, ("ASK", vcek[:15]))),
        "in-header": (entry.pack(guid, 0, 16) + zero, (("VCEK", guid),)),
        "no-terminator": (entry.pack(guid, 4, 20), (("VCEK", entry.pack(guid, 4, 20)[4:24]),)),
        "beyond": (entry.pack(guid, 72, 20) + entry.pack(other, 80, 4000) + zero + vcek, (one,)),
        "wraps": (entry.pack(guid, 72, 20) + entry.pack(other, 2**32 - 16, 32) + zero + vcek, (one,)),
        "short": (bytes(20), ()),
        "nothing": (b"", ()),
    }


TABLE_BYTES = _tables()
