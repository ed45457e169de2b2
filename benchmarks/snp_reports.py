"""Attestation reports per second with real cryptography: message, firmware, signature, answer, verification."""

from __future__ import annotations

import time

from conformance.environment.snp_guest_request.crypto import REAL
from conformance.environment.snp_guest_request.firmware import Context, Firmware, vmpck
from conformance.environment.snp_guest_request.messages import request_page
from conformance.environment.snp_guest_request.report import unseal
from conformance.environment.snp_guest_request.verifier import report_refused

WANTED = 1_000
"""Reports per second that the simulator must make."""
REPORTS = 2_000
DATA = bytes(range(64))


def reports(count: int) -> list[bytes]:
    """Responses to `count` encrypted report requests, each under its own number."""
    firmware, context = Firmware(REAL), Context(0, "running")
    made = []
    for n in range(count):
        status, message = firmware.guest_request(context, request_page(REAL, "report", 0, 0, 2 * n))
        assert status == 0
        made.append(message)
    return made


def test_reports_per_second() -> None:
    """AES-256-GCM both ways and a P-384 signature per report, in processor time; verification is measured beside it."""
    started = time.process_time()
    made = reports(REPORTS)
    rate = REPORTS / (time.process_time() - started)

    started = time.process_time()
    for message in made[:500]:
        assert report_refused(REAL, unseal(REAL, vmpck(0, 0), message) or b"", DATA) == ""
    verified = 500 / (time.process_time() - started)

    print(f"snp_guest_request: {rate:,.0f} attestation reports/s made, {verified:,.0f}/s verified")
    assert rate >= WANTED


if __name__ == "__main__":
    test_reports_per_second()
