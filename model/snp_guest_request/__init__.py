"""What SNP guest requests may do: the hypervisor's side and the guest's, as pure functions over one state."""

from __future__ import annotations

from typing import assert_never

from conformance.model.snp_guest_request import guest, hypervisor
from conformance.model.snp_guest_request.hypervisor import cite as cite
from conformance.model.snp_guest_request.messages import *  # noqa: F403 - one vocabulary
from conformance.model.snp_guest_request.state import *  # noqa: F403
from conformance.model.snp_guest_request.state import (
    Answers,
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
    State,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.step import Outcomes
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.profiles import Profile

Operation = (
    GuestRequest
    | ExtGuestRequest
    | UnknownExit
    | Continue
    | Boot
    | VmCreate
    | SevInit
    | LaunchStart
    | LaunchFinish
    | EnableReqCerts
    | VcpuCreate
    | RegisterGhcb
    | Decommission
    | VmDestroy
    | MoveFrom
    | MirrorFrom
    | SnpShutdown
    | SetInstanceCerts
    | GetInstanceCerts
    | HostSetExtConfig
    | HostGetExtConfig
    | CloseFd
    | RemoveSlot
    | Wait
    | Open
    | GetReport
    | GetDerivedKey
    | GetExtReport
    | Close
    | Kexec
    | ParseCerts
)

_GUEST = frozenset({"guest"})
_HYPERVISOR = frozenset({"hypervisor"})
_GUEST_OPERATIONS = (Open, GetReport, GetDerivedKey, GetExtReport, Close, Kexec)

NEEDS: dict[type, frozenset[str]] = dict.fromkeys(OPERATIONS, _HYPERVISOR)  # noqa: F405
NEEDS |= dict.fromkeys(_GUEST_OPERATIONS, _GUEST)
NEEDS |= dict.fromkeys((MoveFrom, MirrorFrom), frozenset({"hypervisor", "move"}))
NEEDS |= dict.fromkeys(
    (SetInstanceCerts, GetInstanceCerts, HostSetExtConfig, HostGetExtConfig), frozenset({"hypervisor", "kernel-certs"})
)
NEEDS |= dict.fromkeys((EnableReqCerts, Continue), frozenset({"hypervisor", "userspace-certs"}))
NEEDS[ParseCerts] = frozenset({"verifier"})

VIEW_CLAUSES: dict[str, Clause] = {
    "rmp": c.GUEST_PAGES_STAY,
    "counts": c.COUNTERS,
    "pages": c.SUCCESS,
    "contexts": c.CONTEXT_FAILURE,
    "bugged": c.RECLAIM_FAILED,
    "dead": c.TIMEOUT,
    "wiped": c.WIPE,
}
"""In the order of blame."""


def step(state: State, op: Operation, env: Answers, profile: Profile) -> Outcomes:
    """What the specification allows `op` to do."""
    match op:
        case GuestRequest() | ExtGuestRequest():
            return hypervisor.request(state, op, env, profile)
        case UnknownExit():
            return hypervisor.unknown_exit(state, op, env)
        case Continue():
            return hypervisor.continue_(state, op, env, profile)
        case GetReport() | GetDerivedKey() | GetExtReport():
            return guest.call(state, op, env)
        case VcpuCreate() | RegisterGhcb() | SnpShutdown() | CloseFd() | RemoveSlot() | Wait():
            return hypervisor.world(state, op)
        case Boot():
            return hypervisor.boot(state, op)
        case VmCreate():
            return hypervisor.vm_create(state, op)
        case SevInit():
            return hypervisor.sev_init(state, op, env)
        case LaunchStart():
            return hypervisor.launch_start(state, op, env)
        case LaunchFinish():
            return hypervisor.launch_finish(state, op, env)
        case EnableReqCerts():
            return hypervisor.enable_req_certs(state, op)
        case Decommission():
            return hypervisor.decommission(state, op, env)
        case VmDestroy():
            return hypervisor.vm_destroy(state, op, env)
        case MoveFrom():
            return hypervisor.move_from(state)
        case MirrorFrom():
            return hypervisor.mirror_from(state)
        case SetInstanceCerts():
            return hypervisor.set_instance_certs(state, op, env)
        case GetInstanceCerts():
            return hypervisor.get_instance_certs(state, op, env)
        case HostSetExtConfig():
            return hypervisor.host_set_ext_config(state, op, env)
        case HostGetExtConfig():
            return hypervisor.host_get_ext_config(state, op, env)
        case Open() | Kexec():
            return guest.open_(state, op, env)
        case Close():
            return guest.close(state)
        case ParseCerts():
            return guest.parse_certs(state, op)
        case _:
            assert_never(op)


def legal(state: State, op: Operation) -> bool:
    """What the world can do at all; everything else, bad arguments included, is fair."""
    if type(op) is ParseCerts:
        return True
    return hypervisor.legal(state, op) if state.guest is None else guest.legal(state, op)
