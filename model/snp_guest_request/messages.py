"""Guest messages by name: what an operation says without holding bytes, and what firmware makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs.snp_guest_request.constants import (
    AEAD_OFLOW,
    BAD_MEASUREMENT,
    CPUID_REQ,
    EXPORT_REQ,
    INVALID_GUEST,
    INVALID_GUEST_STATE,
    INVALID_PARAM,
    KEY_REQ,
    REPORT_REQ,
    TSC_INFO_REQ,
)

LAST_COUNT = 2**64 - 2
"""Message count at which firmware takes no further request."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is wrong with a message, in the order in which firmware finds it; nothing, for a good one."""

    type: int
    """MSG_TYPE in the header, as the hypervisor sees it."""
    header: bool = False
    """Header fields, sizes or VMPCK are out of range."""
    tag: bool = False
    """The authentication tag does not fit."""
    number: bool = False
    """Encrypted well, but under another number than the next."""
    late: bool = False
    """MSG_VERSION or MSG_TYPE are unknown, which firmware looks at last."""


MESSAGES = {
    "report": Message(REPORT_REQ),
    "key": Message(KEY_REQ),
    "tsc": Message(TSC_INFO_REQ),
    "cpuid": Message(CPUID_REQ),
    "export": Message(EXPORT_REQ),
    "import": Message(9),
    "absorb": Message(11),
    "vmrk": Message(13),
    "absorb-noma": Message(15),
    "report-reserved-payload": Message(REPORT_REQ),
    "report-key-sel-3": Message(REPORT_REQ),
    "report-vlek": Message(REPORT_REQ),
    "key-unknown-field": Message(KEY_REQ),
    "key-svn-too-high": Message(KEY_REQ),
    "cpuid-too-many": Message(CPUID_REQ),
    "reserved-0x28": Message(REPORT_REQ),
    "bad-tag": Message(REPORT_REQ, tag=True),
    "key-bad-tag": Message(KEY_REQ, tag=True),
    "replay": Message(REPORT_REQ, number=True),
    "number-same": Message(REPORT_REQ, number=True),
    "number-ahead": Message(REPORT_REQ, number=True),
    "number-huge": Message(REPORT_REQ, number=True),
    "number-tampered": Message(REPORT_REQ, tag=True),
    "reserved-0x38": Message(REPORT_REQ, tag=True),
    "foreign-key": Message(REPORT_REQ, tag=True),
    "hdr-version": Message(REPORT_REQ, header=True),
    "hdr-size": Message(REPORT_REQ, header=True),
    "algo": Message(REPORT_REQ, header=True),
    "size-0": Message(REPORT_REQ, header=True),
    "size-8": Message(REPORT_REQ, header=True),
    "size-0xfb0": Message(REPORT_REQ, header=True),
    "size-0xfff0": Message(REPORT_REQ, header=True),
    "vmpck-4": Message(REPORT_REQ, header=True),
    "version-0": Message(REPORT_REQ, late=True),
    "version-2": Message(REPORT_REQ, late=True),
    "type-0": Message(0, late=True),
    "type-6": Message(6, late=True),
    "type-19": Message(19, late=True),
    "type-21": Message(21, late=True),
    "type-133": Message(133, late=True),
    "type-255": Message(255, late=True),
    "zero": Message(0, header=True),
}
"""By name. The last ones have a defect that firmware refuses; payloads that it refuses inside a response are good."""


def firmware_status(message: Message, gstate: str, count: int) -> int:
    """Status of the first check that fails, 0 when firmware answers the message.

    Source: section 4.3 of the firmware's order of checks (AMD's published Genoa firmware source).
    """
    if gstate == "gone":
        return INVALID_GUEST
    if gstate != "running":
        return INVALID_GUEST_STATE
    if message.header:
        return INVALID_PARAM
    if message.tag:
        return BAD_MEASUREMENT
    if count == LAST_COUNT or message.number:
        return AEAD_OFLOW
    if message.late:
        return INVALID_PARAM
    return 0
