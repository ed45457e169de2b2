"""What performs each operation, and judges what it leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conformance.environment.snp_guest_request.operations import certificates, exits, guest, lifecycle
from conformance.model.snp_guest_request.operations import (
    Boot,
    Close,
    CloseFd,
    Continue,
    Decommission,
    EnableReqCerts,
    ExtGuestRequest,
    GetDerivedKey,
    GetExtReport,
    GetInstanceCerts,
    GetReport,
    GuestRequest,
    HostGetExtConfig,
    HostSetExtConfig,
    Kexec,
    LaunchFinish,
    LaunchStart,
    MirrorFrom,
    MoveFrom,
    Open,
    ParseCerts,
    RegisterGhcb,
    RemoveSlot,
    SetInstanceCerts,
    SevInit,
    SnpShutdown,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)

OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    GuestRequest: exits.request,
    ExtGuestRequest: exits.request,
    UnknownExit: exits.unknown_exit,
    Continue: exits.continue_,
    Boot: lifecycle.boot,
    VmCreate: lifecycle.vm_create,
    SevInit: lifecycle.sev_init,
    LaunchStart: lifecycle.launch_start,
    LaunchFinish: lifecycle.launch_finish,
    EnableReqCerts: lifecycle.enable_req_certs,
    VcpuCreate: lifecycle.vcpu_create,
    RegisterGhcb: lifecycle.register_ghcb,
    Decommission: lifecycle.decommission,
    VmDestroy: lifecycle.vm_destroy,
    MoveFrom: lifecycle.move_from,
    MirrorFrom: lifecycle.mirror_from,
    SnpShutdown: lifecycle.snp_shutdown,
    SetInstanceCerts: certificates.set_instance_certs,
    GetInstanceCerts: certificates.get_instance_certs,
    HostSetExtConfig: certificates.host_set_ext_config,
    HostGetExtConfig: certificates.host_get_ext_config,
    CloseFd: lifecycle.close_fd,
    RemoveSlot: lifecycle.remove_slot,
    Wait: lifecycle.wait,
    Open: guest.open_,
    GetReport: guest.get_report,
    GetDerivedKey: guest.get_derived_key,
    GetExtReport: guest.get_ext_report,
    Close: guest.close,
    Kexec: guest.kexec,
    ParseCerts: guest.parse_certs,
}

__all__ = ["OPERATIONS"]
