"""The life of a VM, of its guest context, and of what lies around them."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.operations import (
    VM_OF,
    Answers,
    Boot,
    CloseFd,
    Decommission,
    EnableReqCerts,
    LaunchFinish,
    LaunchStart,
    RegisterGhcb,
    RemoveSlot,
    SevInit,
    SnpShutdown,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.snp_guest_request.results import LASTING
from conformance.model.snp_guest_request.state import State, Vcpu, Vm, running, with_vcpu, with_vm
from conformance.model.step import Outcome, Outcomes
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import EINVAL, ENOMEM, ETIMEDOUT, SNP


def boot(state: State, op: Boot) -> Outcome:
    """A VM from nothing to running; every entry point on the way returns 0."""
    vm = running(op.vm, op.kind, op.certs and op.kind == SNP and state.certs == "userspace")
    state = with_vm(state, op.vm, **vm._asdict())
    state = with_vcpu(
        state, 0 if op.vm == 0 else 2, created=True, registered="own" if op.kind == SNP else "", pending=None
    )
    return Outcome(state, 0, c.INIT_FAILURE, None, (c.ENABLE_CERTS,) if vm.certs else ())


def vm_create(state: State, op: VmCreate, env: Answers) -> Outcome:
    """An empty VM; where what is kept of it cannot be had, an error and nothing."""
    if env.alloc_page or env.alloc_fw_page or env.kmalloc or env.kzalloc or env.alloc_asid:
        return Outcome(state, ERRNO, c.INIT_FAILURE, c.INIT_FAILURE)
    return Outcome(with_vm(state, op.vm, **Vm(op.kind, "created", guest=op.vm)._asdict()), 0, c.INIT_FAILURE)


def sev_init(state: State, op: SevInit, env: Answers) -> Outcome:
    """What requests need is taken, or the errno of the first refusal is returned and all is given back."""
    if state.vms[op.vm].life != "created":
        return Outcome(state, ERRNO, c.LIFE_ORDER, c.LIFE_ORDER)
    if env.alloc_page or env.kmalloc or env.kzalloc:
        return Outcome(state, -ENOMEM, c.INIT_FAILURE, c.INIT_FAILURE)
    if env.alloc_fw_page:
        return Outcome(state, LASTING, c.INIT_FAILURE, c.INIT_FAILURE)
    if env.alloc_asid:
        return Outcome(state, ERRNO, c.INIT_FAILURE, c.INIT_FAILURE)
    return Outcome(with_vm(state, op.vm, life="init"), 0, c.INIT_FAILURE)


def launch_start(state: State, op: LaunchStart, env: Answers) -> Outcomes:
    """A guest context, or an error and nothing.

    Source: KVM, snp_launch_start; commit e3a7792d9676.
    """
    vm = state.vms[op.vm]
    if vm.life == "created" or vm.kind != SNP:
        return Outcome(state, ERRNO, c.LIFE_ORDER, c.LIFE_ORDER)
    if vm.life in ("launched", "running"):
        return Outcome(state, -EINVAL, c.ONE_CONTEXT, c.ONE_CONTEXT)
    left = with_vm(state, op.vm, life="stuck") if env.snp_decommission else state
    failed = Outcome(left, ERRNO, c.CONTEXT_FAILURE, c.CONTEXT_FAILURE)
    if not op.valid:
        invalid = Outcome(state, -EINVAL, c.ONE_CONTEXT, c.ONE_CONTEXT)
        return (invalid, failed) if op.fd != "open" or _met(env) else invalid
    if op.reserved:
        # Whoever leaves it to firmware is told there.
        return (Outcome(state, ERRNO, c.ONE_CONTEXT, c.ONE_CONTEXT), failed)
    if op.fd != "open" or state.dead or _met(env):
        return failed
    started = with_vm(state, op.vm, life="launched", gstate="launch", counts=(0, 0, 0, 0), guest=op.vm, fd="open")
    return Outcome(started, 0, c.CONTEXT_FAILURE)


def _met(env: Answers) -> bool:
    """Whether anything that context creation needs was refused."""
    return bool(
        env.alloc_page
        or env.alloc_fw_page
        or env.kmalloc
        or env.kzalloc
        or env.snp_gctx_create
        or env.snp_launch_start
        or env.snp_activate
        or env.alloc_asid
    )


def launch_finish(state: State, op: LaunchFinish, env: Answers) -> Outcome:
    """The guest may run; needs the stored file as every command does."""
    vm = state.vms[op.vm]
    if vm.life != "launched":
        return Outcome(state, ERRNO, c.LIFE_ORDER, c.LIFE_ORDER)
    if vm.fd != "open":
        return Outcome(state, LASTING, c.FD_RULE)
    if state.dead or env.snp_launch_finish:
        return Outcome(state, ERRNO, c.NOT_DELIVERED)
    return Outcome(with_vm(state, op.vm, life="running", gstate="running"), 0, c.CONTEXT_FAILURE)


def enable_req_certs(state: State, op: EnableReqCerts) -> Outcome:
    """Allowed for SNP before any vCPU; the result has the answer to the attribute query beside it."""
    vm = state.vms[op.vm]
    cpus = [v for v in range(len(VM_OF)) if VM_OF[v] == op.vm and state.vcpus[v].created]
    if vm.kind != SNP or cpus:
        return Outcome(state, (-EINVAL, 1), c.ENABLE_CERTS)
    return Outcome(with_vm(state, op.vm, certs=True), (0, 1), c.ENABLE_CERTS)


def decommission(state: State, op: Decommission, env: Answers) -> Outcomes:
    """Context and certificates are freed and forgotten, or leaked on purpose when firmware refuses."""
    vm = state.vms[op.vm]
    if vm.life not in ("launched", "running"):
        return Outcome(state, 0, c.DECOMMISSION)
    gone = with_vm(state, op.vm, life="dropped", gstate="none", counts=(), fd="none", instance=None)
    if state.dead or env.snp_decommission or vm.gstate == "gone":
        state = _timed_out(state, env)
        because = c.CONTEXT_DROPPED if vm.gstate == "gone" else c.DECOMMISSION_FAILED
        return Outcome(with_vm(state, op.vm, life="stuck", instance=None), ERRNO, because)
    plain = Outcome(gone, 0, c.DECOMMISSION, c.DECOMMISSION)
    if env.snp_page_reclaim or env.rmp_make_shared:
        return (plain, Outcome(gone, ERRNO, c.DECOMMISSION_FAILED))
    return plain


def _timed_out(state: State, env: Answers) -> State:
    """The secure processor is dead once it did not answer."""
    return replace(state, dead=True) if env.snp_decommission == -ETIMEDOUT else state


def vm_destroy(state: State, op: VmDestroy, env: Answers) -> Outcome:
    """The VM goes, whatever firmware says."""
    vm = state.vms[op.vm]
    because = c.DESTROY_ORDER
    state = _timed_out(state, env)
    if state.dead or env.snp_decommission or vm.life == "stuck":
        because = c.DECOMMISSION_FAILED
    elif vm.gstate == "gone":
        because = c.CONTEXT_DROPPED
    state = with_vm(state, op.vm, **Vm()._asdict())
    for v, owner in enumerate(VM_OF):
        if owner == op.vm:
            state = with_vcpu(state, v, **Vcpu()._asdict())
    return Outcome(state, 0, because, because)


def move_from(state: State) -> Outcomes:
    """VM 1 takes VM 0 over, or the request is refused and VM 1 does not stay."""
    src = state.vms[0]
    refused = Outcome(state, ERRNO, c.MOVE)
    dst = src._replace(pages=Vm().pages, moved=(), removed=frozenset(), bugged=False)
    moved = with_vm(state, 1, **dst._asdict())
    left = Vm(src.kind, "moved", guest=0, pages=src.pages, removed=src.removed)
    moved = with_vm(moved, 0, **left._asdict())
    moved = with_vcpu(moved, 2, created=True, registered="own", pending=None)
    return (Outcome(moved, 0, c.MOVE, c.MOVE), refused)


def mirror_from(state: State) -> Outcomes:
    """VM 1 shares VM 0's encryption context without being an SNP VM, or is refused."""
    mirror = with_vm(state, 1, **Vm(SNP, "mirror", guest=1)._asdict())
    mirror = with_vcpu(mirror, 2, created=True, registered="own", pending=None)
    return (Outcome(mirror, 0, c.MOVE), Outcome(state, ERRNO, c.MOVE))


def vcpu_create(state: State, op: VcpuCreate, env: Answers) -> Outcome:
    """A vCPU; where it has pages of its own that cannot be had, an error and nothing."""
    if env.alloc_page or env.alloc_fw_page or env.kmalloc or env.kzalloc:
        return Outcome(state, ERRNO, c.INIT_FAILURE, c.INIT_FAILURE)
    return Outcome(with_vcpu(state, op.vcpu, created=True), 0, c.INIT_FAILURE)


def world(state: State, op: RegisterGhcb | SnpShutdown | CloseFd | RemoveSlot | Wait) -> Outcome:
    """What changes no answer of its own."""
    match op:
        case RegisterGhcb():
            return Outcome(with_vcpu(state, op.vcpu, registered=op.ghcb), 0, c.REGISTERED_GHCB)
        case SnpShutdown():
            kernel = (c.HOST_CERTS_DROPPED,) if state.certs == "kernel" else ()
            return Outcome(replace(state, host_certs=None), 0, c.INIT_FAILURE, None, kernel)
        case CloseFd():
            return Outcome(with_vm(state, op.vm, fd="foreign" if op.foreign else "closed"), 0, c.FD_RULE)
        case RemoveSlot():
            removed = state.vms[op.vm].removed | {op.page}
            return Outcome(with_vm(state, op.vm, removed=removed), 0, c.PAGE_STAYS_IN_FLIGHT)
        case Wait():
            return Outcome(state, 0, c.NO_LOCK_IN_USERSPACE if state.certs == "userspace" else c.LOCK_FREE_AFTER)
