"""What performs each operation, and judges what it leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conformance.environment.snp_guest_request.operations import certificates, exits, guest, lifecycle
from conformance.model.snp_guest_request import operations as o

OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    o.GuestRequest: exits.request,
    o.ExtGuestRequest: exits.request,
    o.UnknownExit: exits.unknown_exit,
    o.Continue: exits.continue_,
    o.Boot: lifecycle.boot,
    o.VmCreate: lifecycle.vm_create,
    o.SevInit: lifecycle.sev_init,
    o.LaunchStart: lifecycle.launch_start,
    o.LaunchFinish: lifecycle.launch_finish,
    o.EnableReqCerts: lifecycle.enable_req_certs,
    o.VcpuCreate: lifecycle.vcpu_create,
    o.RegisterGhcb: lifecycle.register_ghcb,
    o.Decommission: lifecycle.decommission,
    o.VmDestroy: lifecycle.vm_destroy,
    o.MoveFrom: lifecycle.move_from,
    o.MirrorFrom: lifecycle.mirror_from,
    o.SnpShutdown: lifecycle.snp_shutdown,
    o.SetInstanceCerts: certificates.set_instance_certs,
    o.GetInstanceCerts: certificates.get_instance_certs,
    o.HostSetExtConfig: certificates.host_set_ext_config,
    o.HostGetExtConfig: certificates.host_get_ext_config,
    o.CloseFd: lifecycle.close_fd,
    o.RemoveSlot: lifecycle.remove_slot,
    o.Wait: lifecycle.wait,
    o.Open: guest.open_,
    o.GetReport: guest.get_report,
    o.GetDerivedKey: guest.get_derived_key,
    o.GetExtReport: guest.get_ext_report,
    o.Close: guest.close,
    o.Kexec: guest.kexec,
    o.ParseCerts: guest.parse_certs,
}

__all__ = ["OPERATIONS"]
