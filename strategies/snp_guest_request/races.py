"""Pairs of operations whose schedules of few switches are all tried."""

from __future__ import annotations

from conformance.model.snp_guest_request.operations import (
    CloseFd,
    Config,
    Continue,
    ExtGuestRequest,
    GetDerivedKey,
    GetExtReport,
    GetReport,
    GuestRequest,
    HostSetExtConfig,
    RemoveSlot,
    SetInstanceCerts,
)
from conformance.model.step import Step
from conformance.specs.snp_guest_request.constants import SNP
from conformance.strategies.domain import Race
from conformance.strategies.snp_guest_request.domains import KERNEL_CERTS


def _races() -> dict[str, Race]:
    """Requests that meet one another, certificate stores and what goes away; and two users of one guest driver.

    Two ioctls on one VM never meet: the generic code holds kvm->lock; nor two on /dev/sev, for sev_cmd_mutex.
    """
    two = Config(vcpus=2)
    other_vm = Config(second=SNP)
    fetching = Config(vcpus=2, certs=True)
    guest = Config(side="guest")
    request, extended = Step(GuestRequest(0)), Step(ExtGuestRequest(0))
    stored = (Step(SetInstanceCerts(0, "A", 4096)),)
    hosted = (Step(HostSetExtConfig("H", 4096)),)
    stored_two = (Step(SetInstanceCerts(0, "A", 8192)),)
    two_blobs = (Step(HostSetExtConfig("H", 8192)), Step(SetInstanceCerts(0, "A", 8192)))
    hosted_two = (Step(HostSetExtConfig("H", 8192)),)
    store, unstore = Step(SetInstanceCerts(0, "B", 8192)), Step(SetInstanceCerts(0, "A", 0))
    host_store = Step(HostSetExtConfig("I", 8192, 2))
    return {
        "request-request": Race(two, (), request, Step(GuestRequest(1))),
        "one-response-page": Race(two, (), request, Step(GuestRequest(1, resp="P'")), switches=1),
        "request-extended": Race(two, (), request, Step(ExtGuestRequest(1)), switches=1),
        "exit-request": Race(fetching, (), extended, Step(GuestRequest(1)), switches=1),
        "two-vms": Race(other_vm, (), request, Step(GuestRequest(2)), switches=1),
        "request-slot": Race(two, (), request, Step(RemoveSlot(0, "P0"))),
        "request-refused": Race(two, (), request, Step(GuestRequest(1, "bad-tag")), switches=1),
        "extended-refused": Race(two, (), extended, Step(GuestRequest(1, "bad-tag")), switches=1),
        "continue-request": Race(fetching, (extended,), Step(Continue(0)), Step(GuestRequest(1)), switches=1),
        "continue-extended": Race(fetching, (extended,), Step(Continue(0)), Step(ExtGuestRequest(1)), switches=1),
        "request-close": Race(two, (), request, Step(CloseFd(0))),
        "extended-store": Race(two, stored, extended, store, profiles=KERNEL_CERTS),
        "extended-unstore": Race(two, stored, extended, unstore, profiles=KERNEL_CERTS),
        "extended-host-store": Race(two, hosted, extended, host_store, profiles=KERNEL_CERTS),
        "two-blobs": Race(other_vm, two_blobs, extended, Step(ExtGuestRequest(2)), switches=1, profiles=KERNEL_CERTS),
        "extended-store-alike": Race(two, stored_two, extended, store, switches=1, profiles=KERNEL_CERTS),
        "extended-host-store-alike": Race(two, hosted_two, extended, host_store, switches=1, profiles=KERNEL_CERTS),
        "report-report": Race(guest, (), Step(GetReport()), Step(GetReport())),
        "busy-report-key": Race(guest, (), Step(GetReport(("busy",))), Step(GetDerivedKey())),
        "refused-report-key": Race(guest, (), Step(GetReport(("status",))), Step(GetDerivedKey())),
        "refused-key-report": Race(guest, (), Step(GetDerivedKey(("status",))), Step(GetReport()), switches=1),
        "refused-report-extended": Race(guest, (), Step(GetReport(("status",))), Step(GetExtReport()), switches=1),
        "extended-extended": Race(guest, (), Step(GetExtReport()), Step(GetExtReport((), 0))),
        "extended-pages": Race(guest, (), Step(GetExtReport()), Step(GetExtReport()), switches=1),
    }


RACES = _races()
"""Pairs whose schedules of up to two switches are all tried, in both orders of starting."""
