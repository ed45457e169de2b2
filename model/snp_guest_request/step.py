"""What is possible at all, and what the specification allows each operation to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from conformance.model.snp_guest_request import certificates, guest, lifecycle, stores, tables, vmgexit
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import (
    VM_OF,
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
    Operation,
    ParseCerts,
    RegisterGhcb,
    RemoveSlot,
    Request,
    SetInstanceCerts,
    SevInit,
    SnpShutdown,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.snp_guest_request.state import State, ghcb_page
from conformance.model.step import Outcomes
from conformance.specs.snp_guest_request.constants import FIRST_UNDEFINED, REPORT_REQ, SNP, UNSUPPORTED_EVENT
from conformance.specs.snp_guest_request.profiles import Profile


def step(state: State, op: Operation, env: Answers, profile: Profile) -> Outcomes:
    """What the specification allows `op` to do."""
    match op:
        case GuestRequest() | ExtGuestRequest():
            return vmgexit.request(state, op, env, profile)
        case UnknownExit():
            return vmgexit.unknown_exit(state, op, env)
        case Continue():
            return vmgexit.snapshot(op, certificates.continue_(state, op, env, profile))
        case GetReport() | GetDerivedKey() | GetExtReport():
            return guest.call(state, op, env, profile)
        case VcpuCreate():
            return lifecycle.vcpu_create(state, op, env)
        case RegisterGhcb() | SnpShutdown() | CloseFd() | RemoveSlot() | Wait():
            return lifecycle.world(state, op)
        case Boot():
            return lifecycle.boot(state, op)
        case VmCreate():
            return lifecycle.vm_create(state, op, env)
        case SevInit():
            return lifecycle.sev_init(state, op, env)
        case LaunchStart():
            return lifecycle.launch_start(state, op, env)
        case LaunchFinish():
            return lifecycle.launch_finish(state, op, env)
        case EnableReqCerts():
            return lifecycle.enable_req_certs(state, op)
        case Decommission():
            return lifecycle.decommission(state, op, env)
        case VmDestroy():
            return lifecycle.vm_destroy(state, op, env)
        case MoveFrom():
            return lifecycle.move_from(state)
        case MirrorFrom():
            return lifecycle.mirror_from(state)
        case SetInstanceCerts():
            return stores.set_instance_certs(state, op, env)
        case GetInstanceCerts():
            return stores.get_instance_certs(state, op, env)
        case HostSetExtConfig():
            return stores.host_set_ext_config(state, op, env)
        case HostGetExtConfig():
            return stores.host_get_ext_config(state, op, env)
        case Open() | Kexec():
            return guest.open_(state, op, env)
        case Close():
            return guest.close(state)
        case ParseCerts():
            return tables.parse_certs(state, op)
        case _:
            assert_never(op)


def legal(state: State, op: Operation) -> bool:
    """What the world can do at all; everything else, bad arguments included, is fair."""
    if type(op) is ParseCerts:
        return True
    if state.parses:
        return False
    possible = (_POSSIBLE if state.guest is None else _POSSIBLE_IN_GUEST).get(type(op))
    return possible is not None and possible(state, op)


def also_needs(state: State, op: Operation) -> frozenset[str]:
    """Capabilities that an operation needs for its values' sake: certificates must be enabled on the way."""
    fetches = type(op) is Boot and op.certs and op.kind == SNP and state.certs == "userspace"
    return frozenset({"userspace-certs"}) if fetches else frozenset()


# -- kind H


def _can_exit(state: State, op: Request) -> bool:
    return _can_run(state, op) and _is_sane(op) and not _hits_waiting_request(state, op)


def _can_run(state: State, op: Request | UnknownExit) -> bool:
    """A vCPU runs when it exists, waits for nobody, and its VM is there and not bugged."""
    vcpu, vm = state.vcpus[op.vcpu], state.vms[VM_OF[op.vcpu]]
    return vcpu.created and vcpu.pending is None and not vm.bugged and vm.life != "absent"


def _can_exit_so(state: State, op: UnknownExit) -> bool:
    """Whether nobody defined the code: SVM's exits lie below, -1 and its neighbours are SVM's errors."""
    is_undefined = UNSUPPORTED_EVENT != op.code >= FIRST_UNDEFINED and op.code >> 32 != 0xFFFF_FFFF
    return is_undefined and _can_run(state, op)


def _hits_waiting_request(state: State, op: Request) -> bool:
    """Whether an answer lands in the request page of a sibling that waits for userspace, or an exit in its GHCB.

    Its guest knows what it asks until it is answered.
    """
    vm = VM_OF[op.vcpu]
    waiting = [(n, v) for n, v in enumerate(state.vcpus) if VM_OF[n] == vm]
    if not any(v.pending is not None for _, v in waiting):
        return False
    if any(v.pending is not None and ghcb_page(n, v.pending.ghcb) == ghcb_page(op.vcpu, op.ghcb) for n, v in waiting):
        return True
    return any(name.startswith("R'") for name in (op.resp, getattr(op, "data", "")))


def _is_sane(op: Request) -> bool:
    """Requests whose content the guest knows: its own message, or a page in which no message ever was."""
    if op.race == "type" and not (op.req == "R" and MESSAGES[op.message].type == REPORT_REQ):
        return False
    return op.req.partition("+")[0] not in ("P", "P'", "R'", "D", "D1", "D3", "G", "G'") or op.req == op.resp


def _can_continue(state: State, op: Continue) -> bool:
    return state.vcpus[op.vcpu].pending is not None and not state.vms[VM_OF[op.vcpu]].bugged


def _can_begin(state: State, op: Boot | VmCreate) -> bool:
    return state.vms[op.vm].life == "absent" and not state.dead


def _can_init(state: State, op: SevInit) -> bool:
    return state.vms[op.vm].life in ("created", *_INITIALISED)


def _can_launch(state: State, op: LaunchStart) -> bool:
    vm = state.vms[op.vm]
    return vm.life in ("created", *_INITIALISED) and not vm.bugged


def _can_finish(state: State, op: LaunchFinish) -> bool:
    vm = state.vms[op.vm]
    return vm.life in ("created", *_INITIALISED) and not vm.bugged


def _can_enable(state: State, op: EnableReqCerts) -> bool:
    return state.certs == "userspace" and state.vms[op.vm].life in _INITIALISED


def _can_add_vcpu(state: State, op: VcpuCreate) -> bool:
    return not state.vcpus[op.vcpu].created and state.vms[VM_OF[op.vcpu]].life in _INITIALISED


def _can_register(state: State, op: RegisterGhcb) -> bool:
    vcpu, vm = state.vcpus[op.vcpu], state.vms[VM_OF[op.vcpu]]
    return vcpu.created and vcpu.pending is None and vm.kind == SNP and vm.life in _INITIALISED


def _can_decommission(state: State, op: Decommission) -> bool:
    vm = state.vms[op.vm]
    return vm.kind == SNP and vm.life in ("launched", "running", "dropped")


def _can_destroy(state: State, op: VmDestroy) -> bool:
    return state.vms[op.vm].life != "absent" and not (op.vm == 0 and state.vms[1].life == "mirror")


def _can_join(state: State, _op: MoveFrom | MirrorFrom) -> bool:
    src, dst = state.vms
    return (
        src.life == "running"
        and not src.bugged
        and src.gstate == "running"
        and dst.life == "absent"
        and (src.kind == SNP and all(v.pending is None for v in state.vcpus))
    )


def _can_shut_down(state: State, _op: SnpShutdown) -> bool:
    return all(vm.life == "absent" for vm in state.vms) and not state.dead


def _can_store(state: State, op: SetInstanceCerts | GetInstanceCerts) -> bool:
    return state.certs == "kernel" and state.vms[op.vm].life in (*_INITIALISED, "dropped")


def _can_configure(state: State, _op: HostSetExtConfig | HostGetExtConfig) -> bool:
    return state.certs == "kernel"


def _can_close_fd(state: State, op: CloseFd) -> bool:
    return state.vms[op.vm].fd != "none"


def _can_remove_slot(state: State, op: RemoveSlot) -> bool:
    return state.vms[op.vm].life not in ("absent", "moved")


def _always(_state: State, _op: Operation) -> bool:
    return True


_INITIALISED = ("init", "launched", "running")

_POSSIBLE: Mapping[type, Callable[[State, Any], bool]] = {
    GuestRequest: _can_exit,
    ExtGuestRequest: _can_exit,
    UnknownExit: _can_exit_so,
    Continue: _can_continue,
    Boot: _can_begin,
    VmCreate: _can_begin,
    SevInit: _can_init,
    LaunchStart: _can_launch,
    LaunchFinish: _can_finish,
    EnableReqCerts: _can_enable,
    VcpuCreate: _can_add_vcpu,
    RegisterGhcb: _can_register,
    Decommission: _can_decommission,
    VmDestroy: _can_destroy,
    MoveFrom: _can_join,
    MirrorFrom: _can_join,
    SnpShutdown: _can_shut_down,
    SetInstanceCerts: _can_store,
    GetInstanceCerts: _can_store,
    HostSetExtConfig: _can_configure,
    HostGetExtConfig: _can_configure,
    CloseFd: _can_close_fd,
    RemoveSlot: _can_remove_slot,
    Wait: _always,
}
"""Kind H: what must hold for each operation to be possible at all."""


# -- kind G


def _is_open(state: State, _op: Operation) -> bool:
    return state.guest is not None and state.guest.opened


def _is_closed(state: State, op: Open) -> bool:
    return not _is_open(state, op)


def _has_room(state: State, op: GetReport | GetExtReport) -> bool:
    """How large an answer a driver has room for is left open, but for a key."""
    return _may_ask(state, op) and "sealed-size" not in op.host


def _may_ask(state: State, op: GetReport | GetDerivedKey | GetExtReport) -> bool:
    """Firmware answers for the VMPL of the key and those below it; what it says to others is its own business."""
    return state.guest is not None and state.guest.opened and state.guest.vmpck <= op.vmpl <= 3


_POSSIBLE_IN_GUEST: Mapping[type, Callable[[State, Any], bool]] = {
    Open: _is_closed,
    GetReport: _has_room,
    GetDerivedKey: _may_ask,
    GetExtReport: _has_room,
    Close: _is_open,
    Kexec: _always,
}
"""Kind G."""
