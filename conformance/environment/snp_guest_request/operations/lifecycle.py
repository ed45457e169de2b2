"""The life of VMs, of their guest contexts, and of what lies around them."""

from __future__ import annotations

from collections.abc import Callable
from errno import errorcode
from typing import TYPE_CHECKING, Any

from conformance.environment.snp_guest_request.files import CLOSED_FD, FOREIGN_FD
from conformance.environment.snp_guest_request.frames import Page
from conformance.model.snp_guest_request.addresses import GPA
from conformance.model.snp_guest_request.operations import (
    VM_OF,
    Boot,
    CloseFd,
    Decommission,
    EnableReqCerts,
    LaunchFinish,
    LaunchStart,
    MirrorFrom,
    MoveFrom,
    RegisterGhcb,
    RemoveSlot,
    SevInit,
    SnpShutdown,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.snp_guest_request.state import ghcb_page
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import PAGE_SIZE, RMP_NAMES, SNP
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.snp_guest_request.world import World


POLICY = 1 << 17 | 1 << 16
RESERVED_POLICY = 1 << 63
INVALID_POLICY = 1 << 20 | 1 << 16
"""SMT is allowed; without bit 17, whatever else there is, a policy is invalid."""


def boot(world: World, op: Boot) -> int:
    """Every entry point from nothing to running."""
    vm = op.vm
    world.memslots.populate(vm)
    fd = world.files.of_vm[vm] = world.files.opened()
    vcpu = 0 if vm == 0 else 2
    steps: list[tuple[Any, ...]] = [("vm_create", vm, op.kind), ("sev_init", vm)]
    if op.kind == SNP:
        steps += [("launch_start", vm, fd, POLICY), ("launch_finish", vm)]
        if op.certs and world.profile.certs == "userspace":
            steps.append(("enable_req_certs", vm))
    steps.append(("vcpu_create", vcpu, vm))
    if op.kind == SNP:
        steps.append(("ghcb_register", vcpu, GPA["G0"]))
    for name, *arguments in steps:
        bring_about(world, c.ENABLE_CERTS if name == "enable_req_certs" else c.INIT_FAILURE, name, *arguments)
    world.ghcbs.register(vcpu, GPA["G0"])
    if op.certs:
        world.vms.fetching.add(vm)
    return 0


def bring_about(world: World, clause: Clause, name: str, *arguments: int) -> None:
    """Call an entry point that nothing is refused: it returns 0, or the clause is broken that it serves."""
    result = world.enter_int(getattr(world.driver, name), *arguments)
    if result:
        told = f"-{errorcode[-result]}" if -result in errorcode else str(result)
        called = ", ".join(hex(a) if a >= PAGE_SIZE else str(a) for a in arguments)
        raise Violation(clause, f"{name}({called}) returned {told}, though nothing was refused")


def vm_create(world: World, op: VmCreate) -> int:
    """An empty VM with memory."""
    world.memslots.populate(op.vm)
    result = world.enter_int(world.driver.vm_create, op.vm, op.kind)
    if result < 0:
        _nothing_left(world, c.INIT_FAILURE)
        _forget(world, op.vm)
    return result


def sev_init(world: World, op: SevInit) -> int:
    """KVM_SEV_INIT2."""
    clause = c.LIFE_ORDER if world.contexts.is_initialised(op.vm) else c.INIT_FAILURE
    result = world.enter_int(world.driver.sev_init, op.vm)
    if result < 0:
        _nothing_left(world, clause)
    return result


def launch_start(world: World, op: LaunchStart) -> int:
    """KVM_SEV_SNP_LAUNCH_START."""
    number = world.files.opened() if op.fd == "open" else {"closed": CLOSED_FD, "foreign": FOREIGN_FD}[op.fd]
    has_context = world.contexts.has_page(op.vm)
    policy = (POLICY if op.valid else INVALID_POLICY) | RESERVED_POLICY * op.reserved
    result = world.enter_int(world.driver.launch_start, op.vm, number, policy)
    if result < 0:
        refused = has_context or not op.valid or op.reserved
        _nothing_left(world, c.ONE_CONTEXT if refused else c.CONTEXT_FAILURE)
    else:
        world.files.of_vm[op.vm] = number
    return result


def _nothing_left(world: World, clause: Clause) -> None:
    """After a failure everything taken was given back, but for what firmware would not give back."""
    contexts = world.contexts
    for taken in world.tasks.current.allocated:
        if isinstance(taken, int):
            if taken in contexts.asids and not contexts.keep_asids:
                raise Violation(clause, f"ASID {taken} is lost after the failure")
        elif not taken.freed and not (isinstance(taken, Page) and (taken.stuck or taken.leaked)):
            what = f"a page in RMP state {RMP_NAMES[taken.state]}" if isinstance(taken, Page) else "an allocation"
            raise Violation(clause, f"{what} at {taken.base:#x} is lost after the failure")
    world.hold(clause)


def launch_finish(world: World, op: LaunchFinish) -> int:
    """KVM_SEV_SNP_LAUNCH_FINISH."""
    return world.enter_int(world.driver.launch_finish, op.vm)


def enable_req_certs(world: World, op: EnableReqCerts) -> tuple[int, int]:
    """Enabling, and the attribute query."""
    result = world.enter_int(world.driver.enable_req_certs, op.vm)
    if result == 0:
        world.vms.fetching.add(op.vm)
    return result, world.enter_int(world.driver.has_req_certs)


def vcpu_create(world: World, op: VcpuCreate) -> int:
    """A vCPU."""
    result = world.enter_int(world.driver.vcpu_create, op.vcpu, VM_OF[op.vcpu])
    if result < 0:
        _nothing_left(world, c.INIT_FAILURE)
    return result


def register_ghcb(world: World, op: RegisterGhcb) -> int:
    """The guest registers its GHCB."""
    gpa = GPA[ghcb_page(op.vcpu, op.ghcb) or ""]
    world.ghcbs.register(op.vcpu, gpa)
    return world.enter_int(world.driver.ghcb_register, op.vcpu, gpa)


def decommission(world: World, op: Decommission) -> int:
    """Give the context up."""
    result = world.enter_int(world.driver.decommission, op.vm)
    if result == 0:
        world.contexts.judge_decommissioned(op.vm)
        world.memory.judge_decommissioned(op.vm)
    return result


def vm_destroy(world: World, op: VmDestroy) -> int:
    """The VM goes, and nothing of it stays but what is leaked on purpose."""
    vm = op.vm
    for vcpu, owner in enumerate(VM_OF):
        if owner == vm and world.ghcbs.of_vcpu[vcpu].mapped is not None:
            world.enter_int(world.driver.ghcb_leave, vcpu)
    result = world.enter_int(world.driver.vm_destroy, vm)
    world.memslots.judge_gone(vm)
    world.rmp.judge_gone(vm)
    world.memory.judge_gone(vm)
    world.contexts.judge_gone(vm)
    _forget(world, vm)
    return result


def _forget(world: World, vm: int) -> None:
    """The VM's number is free again."""
    for simulator in (
        world.memory,
        world.contexts,
        world.mutexes,
        world.rmp,
        world.memslots,
        world.vms,
        world.rates,
        world.ghcbs,
        world.runs,
    ):
        simulator.forget(vm)


def move_from(world: World, _op: MoveFrom) -> int:
    """VM 1 is created, takes VM 0 over, and gets a vCPU; or goes again when that is refused."""
    result = _join(world, world.driver.vm_move_from)
    if result:
        return result
    world.contexts.move(0, 1)
    world.files.of_vm[1] = world.files.of_vm[0]
    world.vms.move(0, 1)
    world.memory.move(0, 1)
    world.mutexes.loosen(0)
    return _joined(world, 0)


def mirror_from(world: World, _op: MirrorFrom) -> int:
    """As for a move, but VM 0 keeps what it has."""
    return _join(world, world.driver.vm_mirror_from) or _joined(world, 1)


def _join(world: World, function: Callable[..., int]) -> int:
    """VM 1 is created to join VM 0, and goes again when that is refused."""
    world.memslots.populate(1)
    world.tasks.current.vm = 1
    result = world.enter_int(world.driver.vm_create, 1, SNP) or world.enter_int(function, 1, 0)
    if result:
        world.enter_int(world.driver.vm_destroy, 1)
        _forget(world, 1)
    return result


def _joined(world: World, contextless: int) -> int:
    """VM 1 gets a vCPU; `contextless` has no guest context of its own from now on."""
    world.contexts.joined.add(contextless)
    world.enter_int(world.driver.vcpu_create, 2, 1)
    world.enter_int(world.driver.ghcb_register, 2, GPA["G0"])
    world.ghcbs.register(2, GPA["G0"])
    return 0


def snp_shutdown(world: World, _op: SnpShutdown) -> int:
    """SNP is shut down on the host."""
    return world.enter_int(world.driver.snp_shutdown)


# -- the world around


def close_fd(world: World, op: CloseFd) -> int:
    """The VM's file of the secure processor goes."""
    world.files.close(op.vm, foreign=op.foreign)
    return 0


def remove_slot(world: World, op: RemoveSlot) -> int:
    """A page of guest memory goes."""
    world.memslots.remove(op.vm, GPA[op.page])
    return 0


def wait(world: World, op: Wait) -> int:
    """Time passes."""
    world.rates.seconds += op.seconds
    return 0
