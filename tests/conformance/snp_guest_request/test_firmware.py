"""The simulated firmware: statuses, payloads, keys, and how a response follows its request."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from conformance.environment.snp_guest_request.crypto import REAL, Suite
from conformance.environment.snp_guest_request.firmware import LAST_COUNT, Firmware, vmpck
from conformance.environment.snp_guest_request.firmware import Context as GuestContext
from conformance.environment.snp_guest_request.messages import request_page, request_payload
from conformance.environment.snp_guest_request.report import LAUNCH, Header, unseal
from conformance.model.snp_guest_request.messages import MESSAGES, firmware_status
from conformance.specs.snp_guest_request import constants as k
from conformance.specs.snp_guest_request.constants import PAGE_SIZE
from tests.conformance.snp_guest_request.judging import SUITES


@pytest.mark.parametrize("suite", SUITES, ids=["real", "stand-in"])
@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("count", [0, 4, LAST_COUNT - 2, LAST_COUNT])
def test_status_of_every_message(suite: Suite, name: str, count: int) -> None:
    """SNP-082: the simulator refuses what the model says, at its own layer of bytes; counters move on success only."""
    context = GuestContext(0, "running", [0, count, 0, 0])

    status, _ = Firmware(suite).guest_request(context, request_page(suite, name, 0, 1, count))

    assert status == firmware_status(MESSAGES[name], "running", count)
    assert context.counts == [0, count + (0 if status else 2), 0, 0]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("report", 0),
        ("report-reserved-payload", 0x16),
        ("report-key-sel-3", 0x27),
        ("report-vlek", 0x27),
        ("key", 0),
        ("key-unknown-field", 0x16),
        ("key-svn-too-high", 0x16),
        ("tsc", 0),
        ("cpuid", 0),
        ("cpuid-too-many", 0x16),
        ("import", 0x16),
        ("vmrk", 0x16),
    ],
)
def test_payloads_are_refused_inside_the_response(name: str, status: int) -> None:
    """SNP-081: the command succeeds, and the encrypted payload says what is wrong."""
    context = GuestContext(0, "running")

    told, message = Firmware(REAL).guest_request(context, request_page(REAL, name, 0, 0, 0))
    payload = unseal(REAL, vmpck(0, 0), message)

    assert told == 0
    assert payload is not None
    assert int.from_bytes(payload[:4], "little") == status
    assert Header.decode(message).type == request_payload(name, 0)[0] + 1


@pytest.mark.parametrize("state", ["init", "launch"])
def test_guest_must_run(state: str) -> None:
    """Guest state comes before the header."""
    assert Firmware(REAL).guest_request(GuestContext(0, state), bytes(PAGE_SIZE))[0] == k.INVALID_GUEST_STATE


def test_old_firmware_has_another_status_for_a_bad_tag() -> None:
    """Milan answers INVALID_PARAM."""
    page = request_page(REAL, "bad-tag", 0, 0, 0)

    assert Firmware(REAL, milan=True).guest_request(GuestContext(0, "running"), page)[0] == k.INVALID_PARAM


def test_derived_keys_depend_on_what_is_selected() -> None:
    """Deterministic, and sensitive to each selected field and to nothing else."""
    firmware, context = Firmware(REAL), GuestContext(0, "running")

    def key(fields: int, launch: Any = LAUNCH) -> bytes:
        context.launch = launch
        return firmware.derived_key(context, struct.pack("<IIQIIQ", 0, 0, fields, 0, 0, 0), 0)[0x20:]

    other = replace(LAUNCH, measurement=b"m" * 48)
    assert key(0) == key(0) == key(0, other)
    assert key(1 << 3) != key(1 << 3, other)
    assert len({key(1 << bit) for bit in range(6)}) == 6


def test_message_beyond_its_page_is_refused() -> None:
    """Header and payload must lie within the page of the request."""
    page = request_page(REAL, "report", 0, 0, 0)

    assert Firmware(REAL).guest_request(GuestContext(0, "running"), page, PAGE_SIZE - 64)[0] == k.INVALID_PARAM


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", ["report", "key", "tsc", "cpuid", "report-key-sel-3"])
def test_a_response_follows_its_request(suite: Suite, name: str) -> None:
    """SNP-081: the same key, the next type and number, and a payload that opens; errors of the payload are inside."""
    page = request_page(suite, name, 0, 1, 4)
    status, message = Firmware(suite).guest_request(GuestContext(0, "running", counts=[0, 4, 0, 0]), page)
    asked, told = Header.decode(page), Header.decode(message)

    assert status == 0
    assert (told.vmpck, told.type, told.number) == (1, asked.type + 1, 6)
    assert (told.algo, told.header_version, told.header_size, told.version) == (1, 1, k.HEADER_SIZE, 1)
    assert unseal(suite, vmpck(0, 1), message) is not None
