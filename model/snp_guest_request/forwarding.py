"""Forwarding a request: why no command is issued, what firmware answers, and how pages come back."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.addresses import address, page_at
from conformance.model.snp_guest_request.guest_memory import data_gpa, is_composed, is_readable, is_writable, with_page
from conformance.model.snp_guest_request.messages import MESSAGES, firmware_status
from conformance.model.snp_guest_request.operations import CPU_OF, LATE_EFAULT, VM_OF, Answers, ExtGuestRequest, Request
from conformance.model.snp_guest_request.results import REFUSAL, SUCCESS, answer
from conformance.model.snp_guest_request.state import Label, State, with_vm
from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EBADF,
    EBUSY,
    EFAULT,
    EIO,
    ETIMEDOUT,
    FIRMWARE,
    INVALID_ADDRESS,
    PAGE_SIZE,
    RECLAIM,
    REPORT_REQ,
)
from conformance.specs.snp_guest_request.profiles import Profile


def is_refused(env: Answers) -> bool:
    """Whether the handler could not have the lock or the memory that it wanted."""
    return bool(env.mutex_lock_killable or env.alloc_page or env.alloc_fw_page or env.kmalloc or env.kzalloc)


def refusals(state: State, op: Request, env: Answers, profile: Profile) -> tuple[Outcome, ...]:
    """Why no command is issued for a valid request, in the order KVM finds it; () when one is.

    The order among them is left to the implementation: each is right while it holds.
    """
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    posted, inplace = profile.errors == "posted", profile.pages == "inplace"
    fault = answer(INVALID_ADDRESS) if posted else -EIO
    found: list[Outcome] = []
    if vm.life not in ("launched", "running"):
        found.append(Outcome(state, REFUSAL, c.NO_CONTEXT, c.NO_CONTEXT))
    if is_refused(env):
        found.append(Outcome(state, REFUSAL, c.NOT_DELIVERED, c.NOT_DELIVERED))
    if not is_readable(vm, op) or env.read_guest:
        found.append(Outcome(state, fault, c.GUEST_PAGE_FAULT))
    if inplace:
        resp = address(op.resp, cpu)
        if not is_writable(vm, resp) or env.gfn_to_pfn or page_at(address(op.req, cpu)) == "readonly":
            found.append(Outcome(state, fault, c.GUEST_PAGE_FAULT))
        if _taken(state, op, profile):
            found.append(Outcome(state, REFUSAL, c.RESPONSE_PAGE_FREE, c.RESPONSE_PAGE_FREE))
        if env.rmp_make_private:
            found.append(Outcome(state, REFUSAL, c.RESPONSE_PAGE_BACK, c.RESPONSE_PAGE_BACK))
    if vm.fd != "open":
        found.append(
            Outcome(state, REFUSAL if posted else -EBADF, c.FD_RULE, c.RESPONSE_PAGE_BACK if inplace else None)
        )
    if state.dead:
        found.append(Outcome(state, REFUSAL if posted else -EBUSY, c.DEAD_FIRMWARE, c.DEAD_FIRMWARE))
    given = env.snp_guest_request
    if LATE_EFAULT < given < 0 and given != -ETIMEDOUT:
        found.append(Outcome(state, REFUSAL if posted else given, c.NOT_DELIVERED, c.NOT_DELIVERED))
    return tuple(found)


def _taken(state: State, op: Request, profile: Profile) -> bool:
    """In place: the response page is not the guest's to give (SNP-029)."""
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    page = page_at(address(op.resp, cpu))
    if page == "private":
        return True
    cpus = [v for v in range(len(VM_OF)) if VM_OF[v] == number and state.vcpus[v].registered]
    if page in [f"G{CPU_OF[v]}" for v in cpus]:
        return True
    if type(op) is not ExtGuestRequest or "b" in op.missing or not op.npages:
        return False
    if profile.errors != "posted" and not (is_composed(op) and MESSAGES[op.message].type == REPORT_REQ):
        return False
    blob = state.vms[number].instance or state.host_certs
    pages = min(op.npages, -(-blob.length // PAGE_SIZE) if blob else 1)
    return 0 <= (address(op.resp, cpu) - data_gpa(op)) // PAGE_SIZE < pages


def forwarded(
    state: State,
    op: Request,
    env: Answers,
    profile: Profile,
    also: tuple[Clause, ...] = (),
    effect: Clause | None = None,
) -> Outcomes:
    """Have firmware answer, or say why not."""
    refused = refusals(state, op, env, profile)
    inplace = profile.pages == "inplace"
    if refused:
        return _cleaned(op, env, refused) if inplace else refused
    if env.snp_guest_request == -ETIMEDOUT:
        dead = replace(state, dead=True)
        if inplace:
            return Outcome(_leaked(dead, op, FIRMWARE), ERRNO, c.TIMEOUT, c.RECLAIM_FAILED)
        return Outcome(dead, -ETIMEDOUT, c.TIMEOUT, c.TIMEOUT)
    also += (c.NO_ACTION,) if profile.errors == "posted" else (c.NO_ACTION, c.HALVES)
    outcomes = _answered(state, op, env, profile, also, effect)
    return _cleaned(op, env, outcomes) if inplace else outcomes


def _answered(
    state: State, op: Request, env: Answers, profile: Profile, also: tuple[Clause, ...], effect: Clause | None
) -> tuple[Outcome, ...]:
    """What firmware makes of the message, and how the guest learns of it."""
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm = state.vms[number]
    message = MESSAGES[op.message] if is_composed(op) else MESSAGES["zero"]
    count = vm.counts[cpu] if vm.counts else 0
    given = env.snp_guest_request
    status = given if given > 0 else firmware_status(message, vm.gstate, count)
    outcomes: tuple[Outcome, ...]
    if status:
        also = (*also, c.STATUS_ORDER, c.NO_OLD_RESPONSE) if vm.last != "zero" else (*also, c.STATUS_ORDER)
        plain = Outcome(state, answer(status), c.FIRMWARE_STATUS, effect, also)
        outcomes = (plain, *_stale(state, op, env, profile, plain))
    elif given == LATE_EFAULT:
        return (_late(state, op, profile),)
    else:
        outcomes = _succeeded(state, op, env, profile, ("rsp", vm.guest, cpu, count + 2), also, effect)
    if op.race == "type":
        outcomes = _raced(state, op, env, profile, outcomes)
    return outcomes


def _raced(
    state: State, op: Request, env: Answers, profile: Profile, outcomes: tuple[Outcome, ...]
) -> tuple[Outcome, ...]:
    """The guest flips MSG_TYPE once it was read: who reads the page again forwards bytes that fail their tag.

    Harmless where nothing was decided by the first read; where certificates were, a SHOULD is broken.
    """
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    flipped = replace(MESSAGES[op.message], tag=True)
    status = max(0, env.snp_guest_request) or firmware_status(flipped, vm.gstate, vm.counts[cpu] if vm.counts else 0)
    breach = (c.TYPE_OF_SNAPSHOT,) if type(op) is ExtGuestRequest and profile.pages == "bounce" else ()
    mixed = Outcome(state, answer(status), c.FIRMWARE_STATUS, None, (), breach)
    stale = tuple(replace(o, breaches=(*o.breaches, *breach)) for o in _stale(state, op, env, profile, mixed))
    first = replace(outcomes[0], also=(*outcomes[0].also, c.TYPE_OF_SNAPSHOT))
    return (first, *outcomes[1:], mixed, *stale)


def _late(state: State, op: Request, profile: Profile) -> Outcome:
    """Firmware answered, and then the driver failed: the number is used up, and the guest learns nothing of it."""
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm = state.vms[number]
    label = ("rsp", vm.guest, cpu, vm.counts[cpu] + 2)
    counted = with_vm(_counted(state, number, cpu, op.message), number, last=label)
    if profile.pages == "inplace":
        counted = with_page(counted, number, address(op.resp, cpu), label)
    return Outcome(
        counted, REFUSAL if profile.errors == "posted" else -EFAULT, c.NOT_DELIVERED, c.NOT_DELIVERED, (c.COUNTERS,)
    )


def _succeeded(
    state: State,
    op: Request,
    env: Answers,
    profile: Profile,
    label: Label,
    also: tuple[Clause, ...],
    effect: Clause | None,
) -> tuple[Outcome, ...]:
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm = state.vms[number]
    resp = address(op.resp, cpu)
    counted = with_vm(_counted(state, number, cpu, op.message), number, last=label)
    also = (*also, c.COUNTERS, c.CONTEXT_DROPPED) if op.message == "export" else (*also, c.COUNTERS)
    also = (*also, c.GUEST_PAGES_STAY) if profile.pages == "bounce" else also
    if profile.pages == "bounce" and (not is_writable(vm, resp) or env.write_guest):
        return (Outcome(counted, -EIO, c.GUEST_PAGE_FAULT),)
    return (Outcome(with_page(counted, number, resp, label), SUCCESS, c.SUCCESS, effect, also),)


def _counted(state: State, number: int, cpu: int, message: str) -> State:
    """Firmware processed one message: its counter grew by 2, or the context is gone after an export."""
    vm = state.vms[number]
    if message == "export":
        return with_vm(state, number, gstate="gone", counts=())
    counts = (*vm.counts[:cpu], vm.counts[cpu] + 2, *vm.counts[cpu + 1 :])
    return with_vm(state, number, counts=counts)


def _stale(state: State, op: Request, env: Answers, profile: Profile, plain: Outcome) -> tuple[Outcome, ...]:
    """A bounce buffer that is copied out though firmware refused: an older response, or zeros."""
    if profile.pages != "bounce":
        return ()
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm, resp = state.vms[number], address(op.resp, cpu)
    if not is_writable(vm, resp) or env.write_guest:
        return (Outcome(state, -EIO, c.GUEST_PAGE_FAULT),)
    found = [replace(plain, state=with_page(state, number, resp, "zero"), also=(*plain.also, c.NO_OLD_RESPONSE))]
    if vm.last != "zero":
        old = replace(plain, state=with_page(state, number, resp, vm.last), breaches=(c.NO_OLD_RESPONSE,))
        found.append(old)
    return tuple(o for o in found if o.state != state or o.breaches)


def _cleaned(op: Request, env: Answers, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """In place: when the response page could not be had back it is leaked, and the VM is dead."""
    if not (env.snp_page_reclaim or env.rmp_make_shared):
        return tuple(replace(o, also=(*o.also, c.RESPONSE_PAGE_BACK, c.CLEANUP_IS_NO_STATUS)) for o in outcomes)
    stuck, clause = (FIRMWARE, c.RECLAIM_FAILED) if env.snp_page_reclaim else (RECLAIM, c.MAKE_SHARED_FAILED)
    return tuple(
        Outcome(_leaked(o.state, op, stuck), ERRNO, clause, clause, (c.CLEANUP_IS_NO_STATUS,)) for o in outcomes
    )


def _leaked(state: State, op: Request, rmp: int) -> State:
    number = VM_OF[op.vcpu]
    page = page_at(address(op.resp, CPU_OF[op.vcpu])) or ""
    vm = state.vms[number]
    return with_vm(state, number, bugged=True, moved=tuple(sorted((*vm.moved, (page, rmp)))))
