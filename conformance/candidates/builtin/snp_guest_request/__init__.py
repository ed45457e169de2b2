"""Shipped candidates: handlers of each design, correct and as posted, and a guest's driver."""

from __future__ import annotations

from conformance.candidates.builtin.snp_guest_request.as_posted import AsPosted
from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.inplace import InPlace
from conformance.candidates.builtin.snp_guest_request.linux import Linux, LinuxGuest
from conformance.candidates.builtin.snp_guest_request.posted_errors import PostedErrors
from conformance.candidates.builtin.snp_guest_request.stub import Stub
from conformance.candidates.builtin.snp_guest_request.throttled import Throttled
from conformance.candidates.builtin.snp_guest_request.upstream import Upstream

CANDIDATES = {
    "upstream": Upstream,
    "as-posted": AsPosted,
    "guest": GuestDriver,
    "inplace": InPlace,
    "posted-errors": PostedErrors,
    "stub": Stub,
    "throttled": Throttled,
    "linux": Linux,
    "linux-guest": LinuxGuest,
}

__all__ = ["CANDIDATES"]
