"""Released Linux, function by function: KVM's side of a guest request, and the driver in the guest."""

from __future__ import annotations

from conformance.candidates.builtin.snp_guest_request.linux.guest import LinuxGuest
from conformance.candidates.builtin.snp_guest_request.linux.host import Linux

__all__ = ["Linux", "LinuxGuest"]
