"""Shipped candidates: handlers of each design, correct and as posted, and a guest's driver."""

from __future__ import annotations

from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.kvm import Stub, Throttled, Upstream
from conformance.candidates.builtin.snp_guest_request.posted import AsPosted, InPlace, PostedErrors

CANDIDATES = {
    "upstream": Upstream,
    "as-posted": AsPosted,
    "guest": GuestDriver,
    "inplace": InPlace,
    "posted-errors": PostedErrors,
    "stub": Stub,
    "throttled": Throttled,
}

__all__ = ["CANDIDATES", "AsPosted", "GuestDriver", "InPlace", "PostedErrors", "Stub", "Throttled", "Upstream"]
