"""Kind H: what a hypervisor's handler may answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from conformance.model.snp_guest_request.messages import INDEX, MESSAGES, WATCHED, address, firmware_status, page_at
from conformance.model.snp_guest_request.state import (
    CPU_OF,
    LATE_EFAULT,
    VM_OF,
    Answers,
    Blob,
    Boot,
    CloseFd,
    Continue,
    Decommission,
    EnableReqCerts,
    ExtGuestRequest,
    GetInstanceCerts,
    GuestRequest,
    HostGetExtConfig,
    HostSetExtConfig,
    Label,
    LaunchFinish,
    LaunchStart,
    MirrorFrom,
    MoveFrom,
    RegisterGhcb,
    RemoveSlot,
    SetInstanceCerts,
    SevInit,
    SnpShutdown,
    State,
    UnknownExit,
    Vcpu,
    VcpuCreate,
    View,
    Vm,
    VmCreate,
    VmDestroy,
    Wait,
    running,
)
from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EAGAIN,
    EBADF,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSR,
    ENOTTY,
    EPERM,
    ETIMEDOUT,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    FIRMWARE,
    FW_BLOB_MAX_SIZE,
    GENERIC_INFO2,
    INVALID_ADDRESS,
    INVALID_EVENT,
    INVALID_GUEST,
    INVALID_INPUT,
    INVALID_PARAM,
    INVALID_USAGE,
    MALFORMED,
    MISSING_INPUT,
    PAGE_SIZE,
    RECLAIM,
    REPORT_REQ,
    RESUME,
    SNP,
    TOO_SMALL_INFO2,
)
from conformance.specs.snp_guest_request.profiles import Profile


@dataclass(frozen=True, slots=True, eq=False)
class AnyErrno:
    """Equals every negative errno: the clause asks for an error and names none."""

    def __eq__(self, other: object) -> bool:
        return type(other) is int and other < 0

    def __repr__(self) -> str:
        return "a negative errno"


@dataclass(frozen=True, slots=True, eq=False)
class AnyRefusal:
    """Equals a negative errno, and every resumption in which the guest does not see success."""

    def __eq__(self, other: object) -> bool:
        if type(other) is tuple and other[0] == RESUME:
            return bool(other[1] or other[2])
        return type(other) is int and other < 0

    def __repr__(self) -> str:
        return "an errno, or an answer that is no success"


ERRNO = AnyErrno()
REFUSAL = AnyRefusal()
SUCCESS = (RESUME, 0, 0, None)

Request = GuestRequest | ExtGuestRequest


def malformed(reason: int) -> tuple[object, ...]:
    """The result of a malformed input: SW_EXITINFO1, SW_EXITINFO2, and RBX unchanged."""
    return (RESUME, MALFORMED, reason, None)


def answer(info2: int, rbx: int | None = None) -> tuple[object, ...]:
    """The result of a request that was taken: RBX is given only where it was too small."""
    return (RESUME, 0, info2, rbx)


# -- VMGEXIT


def request(state: State, op: Request, env: Answers, profile: Profile) -> Outcomes:
    """SNP Guest Request and SNP Extended Guest Request.

    Returns:
        malformed(2), (4), (5)  the input is refused and nothing happened (SNP-002 to SNP-009)
        errno                   the host failed; the guest does not go on (SNP-019 to SNP-021)
        status                  firmware's own refusal in the low half (SNP-018)
        1 << 32, 2 << 32        certificates need more pages, try again later (SNP-048, SNP-043)
        exit                    userspace is asked for certificates (SNP-062)
        0                       the response page holds firmware's answer (SNP-017)

    Source: KVM, sev_handle_vmgexit, sev_es_validate_vmgexit, snp_handle_ext_guest_req.
    """
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    if vm.life == "moved":
        return Outcome(state, REFUSAL, c.MOVE, c.MOVE)
    early = _entered(state, op, env)
    if early is not None:
        return early
    if vm.kind != SNP or vm.life == "mirror":
        return Outcome(state, _posted_or(profile, INVALID_GUEST, MISSING_INPUT), c.NOT_SNP, also=_INERT)
    extended = type(op) is ExtGuestRequest
    req, resp = address(op.req, cpu), address(op.resp, cpu)
    refused = _misplaced(state, op, req, resp, profile)
    if refused:
        return refused
    if env.ratelimit:
        return Outcome(state, answer(BUSY_INFO2), c.RATE, also=(c.NO_ACTION, c.HALVES))
    if not extended and _is_refused(env):
        return Outcome(state, REFUSAL, c.NOT_DELIVERED, c.NOT_DELIVERED)
    if not extended:
        return _forwarded(state, op, env, profile, also=(c.NO_OTHER_EXIT,) if profile.certs == "userspace" else ())
    assert type(op) is ExtGuestRequest
    return _extended(state, op, env, profile)


def _is_refused(env: Answers) -> bool:
    """Whether the handler could not have the lock or the memory that it wanted."""
    return bool(env.mutex_lock_killable or env.alloc_page or env.alloc_fw_page or env.kmalloc or env.kzalloc)


_INERT = (c.MALFORMED_IS_INERT, c.CHECK_ORDER)


def _entered(state: State, op: Request | UnknownExit, env: Answers) -> Outcomes | None:
    """What is decided before the exit code is looked at: registration, usage, valid bits.

    Usage comes before anything else, and nothing of an unregistered GHCB is processed: either order is right.
    """
    vm = state.vms[VM_OF[op.vcpu]]
    if env.ghcb_map:
        return Outcome(state, REFUSAL, c.NOT_DELIVERED)
    own = isinstance(op, UnknownExit) or op.ghcb == "own"
    unregistered = vm.kind == SNP and vm.life != "mirror" and not (own and state.vcpus[op.vcpu].registered)
    refused = Outcome(state, -EINVAL, c.REGISTERED_GHCB)
    if op.usage:
        told = Outcome(state, malformed(INVALID_USAGE), c.USAGE, also=_INERT)
        return (refused, told) if unregistered else told
    if unregistered:
        return refused
    if any(letter in op.missing for letter in "c12"):
        return Outcome(state, malformed(MISSING_INPUT), c.VALID_BITS, also=_INERT)
    return None


def unknown_exit(state: State, op: UnknownExit, env: Answers) -> Outcomes:
    """An exit code that nobody defined is malformed(6), after usage and valid bits."""
    early = _entered(state, op, env)
    return early or Outcome(state, malformed(INVALID_EVENT), c.CHECK_ORDER)


def _posted_or(profile: Profile, status: int, reason: int) -> tuple[object, ...]:
    """A refusal of the input: in the low half as posted, else malformed."""
    return answer(status) if profile.errors == "posted" else malformed(reason)


def _misplaced(state: State, op: Request, req: int, resp: int, profile: Profile) -> Outcomes:
    """Addresses that are misaligned or equal; () when they are neither.

    As posted the data address of an extended request comes first, and either order is taken for right.
    """
    found: list[Outcome] = []
    posted = profile.errors == "posted"
    if posted and type(op) is ExtGuestRequest and _data(op) % PAGE_SIZE:
        found.append(Outcome(state, answer(INVALID_ADDRESS), c.DATA_ALIGNED, also=_INERT))
    if req % PAGE_SIZE:
        found.append(Outcome(state, _posted_or(profile, INVALID_PARAM, MISSING_INPUT), c.REQUEST_ALIGNED, also=_INERT))
    if resp % PAGE_SIZE:
        found.append(Outcome(state, _posted_or(profile, INVALID_PARAM, MISSING_INPUT), c.RESPONSE_ALIGNED, also=_INERT))
    if req == resp:
        found.append(Outcome(state, REFUSAL if posted else malformed(MISSING_INPUT), c.DISTINCT_PAGES, also=_INERT))
    return tuple(found)


def _data(op: ExtGuestRequest) -> int:
    """RAX as a handler that ignores valid bits has it: 0 when it was not supplied."""
    return 0 if "a" in op.missing else address(op.data, CPU_OF[op.vcpu])


def _extended(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """Certificates first, then as a basic request."""
    vm = state.vms[VM_OF[op.vcpu]]
    posted = profile.errors == "posted"
    if _is_refused(env) or env.read_guest:
        # Certificates may have been written by then, in a handler that takes its lock or reads the message after.
        return tuple(o for s in _partly(state, op, _labels(state, op, profile)) for o in _refusals(s, op, env, profile))
    if not posted:
        if not _readable(vm, op):
            return _forwarded(state, op, env, profile)
        message = MESSAGES[op.message] if _composed(op) else MESSAGES["zero"]
        if message.type != REPORT_REQ:
            basic = _forwarded(state, op, env, profile, also=(c.OTHER_TYPES_ARE_BASIC, *_never_exits(profile)))
            ignored = op.missing or _data(op) % PAGE_SIZE
            return _owed(basic, c.OTHER_TYPES_ARE_BASIC) if ignored else basic
        if "a" in op.missing or "b" in op.missing:
            return Outcome(state, malformed(INVALID_INPUT), c.REGISTERS_SUPPLIED, also=_INERT)
        if _data(op) % PAGE_SIZE:
            return Outcome(state, malformed(INVALID_INPUT), c.DATA_ALIGNED, also=_INERT)
    if op.race == "type" and not posted:
        late = tuple(replace(o, breaches=(c.TYPE_OF_SNAPSHOT,)) for o in _tuple(_forwarded(state, op, env, profile)))
        return (*_tuple(_with_certs(state, op, env, profile)), *late)
    return _with_certs(state, op, env, profile)


def _with_certs(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """A report request with a place for certificates."""
    vm = state.vms[VM_OF[op.vcpu]]
    npages = 0 if "b" in op.missing else op.npages
    blob = vm.instance or state.host_certs if profile.certs == "kernel" else None
    if profile.certs == "userspace" and vm.certs:
        result = (EXIT, EXIT_SNP_REQ_CERTS, _data(op), op.npages, 0)
        pending = _with_vcpu(state, op.vcpu, pending=op)
        asked = Outcome(pending, result, c.CERTS_EXIT, also=(c.NO_LOCK_IN_USERSPACE,))
        return asked if vm.life in ("launched", "running") else (asked, Outcome(state, REFUSAL, c.NO_CONTEXT))
    large = profile.certs == "kernel" and npages * PAGE_SIZE > FW_BLOB_MAX_SIZE
    labels = _labels(state, op, profile)
    if blob is None:
        outcomes = _with_data(state, op, env, profile, labels, c.EMPTY_TABLE)
        if not npages:
            return _owed(outcomes, c.EMPTY_TABLE)
        return _owed(outcomes, c.LARGER_BUFFER) if large else outcomes
    needed = -(-blob.length // PAGE_SIZE)
    both = vm.instance is not None and state.host_certs is not None
    if npages < needed:
        because = c.PAGES_NEEDED if blob.length % PAGE_SIZE else c.INSTANCE_WINS if both else c.TOO_SMALL
        counted = (c.TOO_SMALL, c.PAGES_NEEDED, c.NO_ACTION)
        small = Outcome(state, answer(TOO_SMALL_INFO2, needed), because, c.TOO_SMALL, counted)
        return (small, *_refusals(state, op, env, profile))
    also: tuple[Clause, ...] = (c.BLOB_COPIED,) if both else ()
    also += (c.LARGER_BUFFER,) if npages > needed and not large else ()
    also += (c.NO_STALE_BLOB, c.BLOB_ATOMIC)
    outcomes = _with_data(state, op, env, profile, labels, c.INSTANCE_WINS if both else c.BLOB_COPIED, also)
    if both:
        return _owed(outcomes, c.INSTANCE_WINS)
    return _owed(outcomes, c.LARGER_BUFFER) if large else outcomes


def _labels(state: State, op: ExtGuestRequest, profile: Profile) -> tuple[Label, ...]:
    """What the data pages hold once the certificates are written; () when none are."""
    vm = state.vms[VM_OF[op.vcpu]]
    npages = 0 if "b" in op.missing else op.npages
    if profile.errors != "posted":
        asks = _readable(vm, op) and _composed(op) and MESSAGES[op.message].type == REPORT_REQ
        if not asks or "a" in op.missing or "b" in op.missing or _data(op) % PAGE_SIZE:
            return ()
    if profile.certs == "userspace" and vm.certs:
        return ()
    blob = vm.instance or state.host_certs if profile.certs == "kernel" else None
    if blob is None:
        return ("zero",) if npages else ()
    needed = -(-blob.length // PAGE_SIZE)
    pages = range(needed if npages >= needed else 0)
    return tuple((blob.name, i, min(PAGE_SIZE, blob.length - i * PAGE_SIZE)) for i in pages)


def _owed(outcomes: Outcomes, clause: Clause) -> Outcomes:
    """The same outcomes where what firmware answers is owed to `clause`: a wrong answer breaks that one first."""
    return tuple(
        replace(o, because=clause, also=(*o.also, o.because)) if o.because in (c.SUCCESS, c.FIRMWARE_STATUS) else o
        for o in _tuple(outcomes)
    )


def _never_exits(profile: Profile) -> tuple[Clause, ...]:
    return (c.NO_OTHER_EXIT,) if profile.certs == "userspace" else ()


def _with_data(
    state: State,
    op: ExtGuestRequest,
    env: Answers,
    profile: Profile,
    labels: tuple[Label, ...],
    clause: Clause,
    also: tuple[Clause, ...] = (),
) -> Outcomes:
    """Write the data pages, then forward; a page that cannot be written ends the request before the command."""
    number = VM_OF[op.vcpu]
    written = state
    for i, label in enumerate(labels):
        gpa = _data(op) + i * PAGE_SIZE
        if not _writable(state.vms[number], gpa):
            result = answer(INVALID_ADDRESS) if profile.errors == "posted" else -EIO
            failed = [
                Outcome(partly, result, c.DATA_BEFORE_COMMAND, c.DATA_BEFORE_COMMAND)
                for partly in dict.fromkeys((state, written))
            ]
            return (*failed, *_refusals(state, op, env, profile))
        written = _with_page(written, number, gpa, label)
    result = answer(INVALID_ADDRESS) if profile.errors == "posted" else -EIO
    failed_ones = tuple(
        Outcome(partly, result, c.DATA_BEFORE_COMMAND, c.DATA_BEFORE_COMMAND) for partly in _partly(state, op, labels)
    )
    if env.clear_guest or (env.write_guest and profile.pages == "inplace"):
        return (*failed_ones, *_refusals(state, op, env, profile))
    outcomes = _tuple(_forwarded(written, op, env, profile, (*also, clause), effect=clause))
    if env.write_guest:
        outcomes += failed_ones
    if _composed(op) and 0 <= address(op.req, CPU_OF[op.vcpu]) - _data(op) < len(labels) * PAGE_SIZE:
        # The certificates fell on the message: firmware sees them, unless it was copied before.
        outcomes += _tuple(_forwarded(written, replace(op, message="zero"), env, profile, (*also, clause)))
    if profile.pages == "inplace" and 0 <= address(op.resp, CPU_OF[op.vcpu]) - _data(op) < op.npages * PAGE_SIZE:
        # All pages that were offered are data pages, those that the certificates do not need as well.
        outcomes += tuple(Outcome(s, REFUSAL, c.RESPONSE_PAGE_FREE) for s in dict.fromkeys((state, written)))
    if written is not state:
        # A refusal that needs no command may be found before the certificates are written.
        outcomes += _refusals(state, op, env, profile)
    return outcomes


def _partly(state: State, op: ExtGuestRequest, labels: tuple[Label, ...]) -> tuple[State, ...]:
    """The states after none, one, … of the data pages were written, as far as they can be."""
    states = [state]
    for i, label in enumerate(labels):
        if not _writable(state.vms[VM_OF[op.vcpu]], _data(op) + i * PAGE_SIZE):
            break
        states.append(_with_page(states[-1], VM_OF[op.vcpu], _data(op) + i * PAGE_SIZE, label))
    return tuple(states)


def _refusals(state: State, op: Request, env: Answers, profile: Profile) -> tuple[Outcome, ...]:
    """Why no command is issued for a valid request, in the order KVM finds it; () when one is.

    The order among them is left to the implementation: each is right while it holds.
    """
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    posted, inplace = profile.errors == "posted", profile.pages == "inplace"
    fault = answer(INVALID_ADDRESS) if posted else -EIO
    found: list[Outcome] = []
    if vm.life not in ("launched", "running"):
        found.append(Outcome(state, REFUSAL, c.NO_CONTEXT, c.NO_CONTEXT))
    if _is_refused(env):
        found.append(Outcome(state, REFUSAL, c.NOT_DELIVERED, c.NOT_DELIVERED))
    if not _readable(vm, op) or env.read_guest:
        found.append(Outcome(state, fault, c.GUEST_PAGE_FAULT))
    if inplace:
        resp = address(op.resp, cpu)
        if not _writable(vm, resp) or env.gfn_to_pfn or page_at(address(op.req, cpu)) == "readonly":
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


def _forwarded(
    state: State,
    op: Request,
    env: Answers,
    profile: Profile,
    also: tuple[Clause, ...] = (),
    effect: Clause | None = None,
) -> Outcomes:
    """Have firmware answer, or say why not."""
    refusals = _refusals(state, op, env, profile)
    inplace = profile.pages == "inplace"
    if refusals:
        return _cleaned(op, env, refusals) if inplace else refusals
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
    message = MESSAGES[op.message] if _composed(op) else MESSAGES["zero"]
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
    counted = _with_vm(_counted(state, number, cpu, op.message), number, last=label)
    if profile.pages == "inplace":
        counted = _with_page(counted, number, address(op.resp, cpu), label)
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
    counted = _with_vm(_counted(state, number, cpu, op.message), number, last=label)
    also = (*also, c.COUNTERS, c.CONTEXT_DROPPED) if op.message == "export" else (*also, c.COUNTERS)
    also = (*also, c.GUEST_PAGES_STAY) if profile.pages == "bounce" else also
    if profile.pages == "bounce" and (not _writable(vm, resp) or env.write_guest):
        return (Outcome(counted, -EIO, c.GUEST_PAGE_FAULT),)
    return (Outcome(_with_page(counted, number, resp, label), SUCCESS, c.SUCCESS, effect, also),)


def _counted(state: State, number: int, cpu: int, message: str) -> State:
    """Firmware processed one message: its counter grew by 2, or the context is gone after an export."""
    vm = state.vms[number]
    if message == "export":
        return _with_vm(state, number, gstate="gone", counts=())
    counts = (*vm.counts[:cpu], vm.counts[cpu] + 2, *vm.counts[cpu + 1 :])
    return _with_vm(state, number, counts=counts)


def _stale(state: State, op: Request, env: Answers, profile: Profile, plain: Outcome) -> tuple[Outcome, ...]:
    """A bounce buffer that is copied out though firmware refused: an older response, or zeros."""
    if profile.pages != "bounce":
        return ()
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm, resp = state.vms[number], address(op.resp, cpu)
    if not _writable(vm, resp) or env.write_guest:
        return (Outcome(state, -EIO, c.GUEST_PAGE_FAULT),)
    found = [replace(plain, state=_with_page(state, number, resp, "zero"), also=(*plain.also, c.NO_OLD_RESPONSE))]
    if vm.last != "zero":
        old = replace(plain, state=_with_page(state, number, resp, vm.last), breaches=(c.NO_OLD_RESPONSE,))
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
    return _with_vm(state, number, bugged=True, moved=tuple(sorted((*vm.moved, (page, rmp)))))


# -- guest memory


def _composed(op: Request) -> bool:
    """Whether the request page is the one the guest left its message in."""
    return op.req == "R"


def _readable(vm: Vm, op: Request) -> bool:
    page = page_at(address(op.req, CPU_OF[op.vcpu]))
    return page is not None and page not in vm.removed


def _writable(vm: Vm, gpa: int) -> bool:
    page = page_at(gpa)
    return page is not None and page not in vm.removed and page != "readonly"


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
    if profile.errors != "posted" and not (_composed(op) and MESSAGES[op.message].type == REPORT_REQ):
        return False
    blob = state.vms[number].instance or state.host_certs
    pages = min(op.npages, -(-blob.length // PAGE_SIZE) if blob else 1)
    return 0 <= (address(op.resp, cpu) - _data(op)) // PAGE_SIZE < pages


def _with_page(state: State, number: int, gpa: int, label: Label) -> State:
    """Another content of a watched page; pages that nobody watches have none."""
    page = page_at(gpa)
    if page not in INDEX:
        return state
    i = INDEX[page]
    pages = state.vms[number].pages
    return _with_vm(state, number, pages=(*pages[:i], label, *pages[i + 1 :]))


def _with_vm(state: State, number: int, **changes: Any) -> State:
    vm = state.vms[number]._replace(**changes)
    vms = (vm, state.vms[1]) if number == 0 else (state.vms[0], vm)
    return replace(state, vms=vms)


def _with_vcpu(state: State, number: int, **changes: Any) -> State:
    vcpus = list(state.vcpus)
    vcpus[number] = vcpus[number]._replace(**changes)
    return replace(state, vcpus=tuple(vcpus))


def _tuple(outcomes: Outcomes) -> tuple[Outcome, ...]:
    return outcomes if isinstance(outcomes, tuple) else (outcomes,)


def cite(state: State, op: object, field: str, expected: View, got: View) -> Clause | None:
    """For data pages, the clause on certificates that decides what they hold; else the outcome's own clause.

    What is refused for its GHCB or its inputs writes nothing at all.
    """
    if not isinstance(op, Request) or field != "pages":
        return None
    number = VM_OF[op.vcpu]
    vm = state.vms[number]
    if vm.kind == SNP and vm.life != "mirror" and (op.ghcb != "own" or not state.vcpus[op.vcpu].registered):
        return c.REGISTERED_GHCB
    if op.usage or any(letter in op.missing for letter in "c12"):
        return c.MALFORMED_IS_INERT
    if type(op) is not ExtGuestRequest:
        return None
    page = page_at(address(op.resp, CPU_OF[op.vcpu]))
    wrong = [
        name
        for name, want, have in zip(WATCHED, expected.pages[number], got.pages[number], strict=True)
        if want != have and name != page
    ]
    if not wrong:
        return None
    if state.certs != "kernel" and not (_composed(op) and MESSAGES[op.message].type == REPORT_REQ):
        return c.OTHER_TYPES_ARE_BASIC
    instance, host = state.vms[number].instance, state.host_certs
    if state.certs == "kernel" and (instance or host):
        return c.INSTANCE_WINS if instance and host else c.BLOB_COPIED
    return c.EMPTY_TABLE


# -- continuing after userspace


def continue_(state: State, op: Continue, env: Answers, profile: Profile) -> Outcomes:
    """Userspace answered the certificate exit.

    Source: certificate-fetching series v7, snp_complete_req_certs.
    """
    pending = state.vcpus[op.vcpu].pending
    assert isinstance(pending, ExtGuestRequest)
    state = _with_vcpu(state, op.vcpu, pending=None)
    if op.ret == 0:
        filled = state
        if op.npages and _writable(state.vms[VM_OF[op.vcpu]], _data(pending)):
            filled = _with_page(state, VM_OF[op.vcpu], _data(pending), "user")
        if env.ratelimit:
            return Outcome(filled, answer(BUSY_INFO2), c.RATE, also=(c.NO_ACTION, c.HALVES))
        outcomes = _tuple(_forwarded(filled, pending, env, profile, (c.CERTS_ANSWER, c.GHCB_SNAPSHOT)))
        # The lock was free in between: the request page may have to be read again.
        return tuple(replace(o, breaches=tuple(b for b in o.breaches if b is not c.TYPE_OF_SNAPSHOT)) for o in outcomes)
    if op.ret == ENOSPC:
        result = answer(TOO_SMALL_INFO2, op.npages)
        return Outcome(state, result, c.CERTS_ANSWER, c.TOO_SMALL, (c.TOO_SMALL, c.NO_ACTION, c.HALVES))
    if op.ret == EAGAIN:
        return Outcome(state, answer(BUSY_INFO2), c.CERTS_ANSWER, c.BUSY_IS_INERT, (c.NO_ACTION, c.HALVES))
    if op.ret == EIO:
        return Outcome(state, answer(GENERIC_INFO2), c.CERTS_ANSWER, None, (c.NO_ACTION, c.HALVES))
    return Outcome(state, -EINVAL, c.CERTS_ANSWER)


# -- lifecycle


def boot(state: State, op: Boot) -> Outcome:
    """A VM from nothing to running; every entry point on the way returns 0."""
    vm = running(op.vm, op.kind, op.certs and op.kind == SNP and state.certs == "userspace")
    state = _with_vm(state, op.vm, **vm._asdict())
    state = _with_vcpu(state, 0 if op.vm == 0 else 2, created=True, registered=op.kind == SNP, pending=None)
    return Outcome(state, 0, c.INIT_FAILURE, None, (c.ENABLE_CERTS,) if vm.certs else ())


def vm_create(state: State, op: VmCreate) -> Outcome:
    """An empty VM."""
    return Outcome(_with_vm(state, op.vm, **Vm(op.kind, "created", guest=op.vm)._asdict()), 0, c.INIT_FAILURE)


def sev_init(state: State, op: SevInit, env: Answers) -> Outcome:
    """What requests need is taken, or the errno of the first refusal is returned and all is given back."""
    if env.alloc_page or env.kmalloc or env.kzalloc:
        return Outcome(state, -ENOMEM, c.INIT_FAILURE, c.INIT_FAILURE)
    if env.alloc_fw_page:
        return Outcome(state, -EIO, c.INIT_FAILURE, c.INIT_FAILURE)
    if env.alloc_asid:
        return Outcome(state, ERRNO, c.INIT_FAILURE, c.INIT_FAILURE)
    return Outcome(_with_vm(state, op.vm, life="init"), 0, c.INIT_FAILURE)


def launch_start(state: State, op: LaunchStart, env: Answers) -> Outcomes:
    """A guest context, or an error and nothing.

    Source: KVM, snp_launch_start; commit e3a7792d9676.
    """
    vm = state.vms[op.vm]
    if vm.life in ("launched", "running") or vm.kind != SNP:
        return Outcome(state, -EINVAL, c.ONE_CONTEXT, c.ONE_CONTEXT)
    left = _with_vm(state, op.vm, life="stuck") if env.snp_decommission else state
    failed = Outcome(left, ERRNO, c.CONTEXT_FAILURE, c.CONTEXT_FAILURE)
    if not op.valid:
        invalid = Outcome(state, -EINVAL, c.ONE_CONTEXT, c.ONE_CONTEXT)
        return (invalid, failed) if op.fd != "open" or _met(env) else invalid
    if op.fd != "open" or state.dead or _met(env):
        return failed
    started = _with_vm(state, op.vm, life="launched", gstate="launch", counts=(0, 0, 0, 0), guest=op.vm, fd="open")
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
    if vm.fd != "open":
        return Outcome(state, -EBADF, c.FD_RULE)
    if state.dead or env.snp_launch_finish:
        return Outcome(state, ERRNO, c.NOT_DELIVERED)
    return Outcome(_with_vm(state, op.vm, life="running", gstate="running"), 0, c.CONTEXT_FAILURE)


def enable_req_certs(state: State, op: EnableReqCerts) -> Outcome:
    """Allowed for SNP before any vCPU; the result has the answer to the attribute query beside it."""
    vm = state.vms[op.vm]
    cpus = [v for v in range(len(VM_OF)) if VM_OF[v] == op.vm and state.vcpus[v].created]
    if vm.kind != SNP or cpus:
        return Outcome(state, (-EINVAL, 1), c.ENABLE_CERTS)
    return Outcome(_with_vm(state, op.vm, certs=True), (0, 1), c.ENABLE_CERTS)


def decommission(state: State, op: Decommission, env: Answers) -> Outcomes:
    """Context and certificates are freed and forgotten, or leaked on purpose when firmware refuses."""
    vm = state.vms[op.vm]
    if vm.life not in ("launched", "running"):
        return Outcome(state, 0, c.DECOMMISSION)
    gone = _with_vm(state, op.vm, life="dropped", gstate="none", counts=(), fd="none", instance=None)
    if state.dead or env.snp_decommission or vm.gstate == "gone":
        state = _timed_out(state, env)
        because = c.CONTEXT_DROPPED if vm.gstate == "gone" else c.DECOMMISSION_FAILED
        return Outcome(_with_vm(state, op.vm, life="stuck", gstate="none", counts=(), instance=None), ERRNO, because)
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
    state = _with_vm(state, op.vm, **Vm()._asdict())
    for v, owner in enumerate(VM_OF):
        if owner == op.vm:
            state = _with_vcpu(state, v, **Vcpu()._asdict())
    return Outcome(state, 0, because, because)


def move_from(state: State) -> Outcomes:
    """VM 1 takes VM 0 over, or the request is refused and VM 1 does not stay."""
    src = state.vms[0]
    refused = Outcome(state, ERRNO, c.MOVE)
    dst = src._replace(pages=Vm().pages, moved=(), removed=frozenset(), bugged=False)
    moved = _with_vm(state, 1, **dst._asdict())
    left = Vm(src.kind, "moved", guest=0, pages=src.pages, removed=src.removed)
    moved = _with_vm(moved, 0, **left._asdict())
    moved = _with_vcpu(moved, 2, created=True, registered=True, pending=None)
    return (Outcome(moved, 0, c.MOVE, c.MOVE), refused)


def mirror_from(state: State) -> Outcomes:
    """VM 1 shares VM 0's encryption context without being an SNP VM, or is refused."""
    mirror = _with_vm(state, 1, **Vm(SNP, "mirror", guest=1)._asdict())
    mirror = _with_vcpu(mirror, 2, created=True, registered=True, pending=None)
    return (Outcome(mirror, 0, c.MOVE), Outcome(state, ERRNO, c.MOVE))


# -- certificates in the kernel


def set_instance_certs(state: State, op: SetInstanceCerts, env: Answers) -> Outcomes:
    """Install, replace or remove the VM's own certificates.

    Which of two wrong arguments is found first is left open.

    Source: v7 62/64; v9 49/51.
    """
    refused = _no_store(state, op.vm)
    found: list[Outcome] = []
    if refused:
        found.append(Outcome(state, refused, c.INSTANCE_IOCTLS if refused != -EINVAL else c.DECOMMISSION, also=_SET))
    if op.length > FW_BLOB_MAX_SIZE:
        found.append(Outcome(state, -EINVAL, c.INSTANCE_IOCTLS, c.INSTANCE_IOCTLS))
    if found:
        return tuple(found)
    if op.length == 0:
        return Outcome(_with_vm(state, op.vm, instance=None), 0, c.INSTANCE_IOCTLS)
    if env.kmalloc or env.kzalloc:
        return Outcome(state, -ENOMEM, c.INSTANCE_IOCTLS, c.INSTANCE_IOCTLS)
    if env.copy_from_user:
        return Outcome(state, -EFAULT, c.INSTANCE_IOCTLS, c.INSTANCE_IOCTLS)
    return Outcome(_with_vm(state, op.vm, instance=Blob(op.blob, op.length)), 0, c.INSTANCE_IOCTLS)


_SET = (c.INSTANCE_IOCTLS,)


def _no_store(state: State, number: int) -> int:
    vm = state.vms[number]
    if vm.kind != SNP or vm.life == "mirror":
        return -ENOTTY
    return 0 if vm.life in ("launched", "running") else -EINVAL


def get_instance_certs(state: State, op: GetInstanceCerts, env: Answers) -> Outcomes:
    """Result, pages of the length stored for the caller, and what was copied.

    A length that an implementation keeps rounded up to pages is as good as the exact one.
    """
    refused = _no_store(state, op.vm)
    if refused:
        return Outcome(state, (refused, 0, None), c.INSTANCE_IOCTLS if refused != -EINVAL else c.DECOMMISSION)
    blob = state.vms[op.vm].instance
    if blob is None:
        return Outcome(state, (-ENOENT, 0, None), c.INSTANCE_IOCTLS)
    return _copied_out(state, blob, op.length, env, c.INSTANCE_IOCTLS, -EINVAL, also=(c.NO_STALE_BLOB,))


def _copied_out(
    state: State, blob: Blob, length: int, env: Answers, clause: Clause, *small: int, also: tuple[Clause, ...] = ()
) -> Outcomes:
    pages = -(-blob.length // PAGE_SIZE)
    too_small = tuple(Outcome(state, (errno, pages, None), clause) for errno in small)
    copied = Outcome(state, (0, pages, blob), clause, None, also)
    if env.copy_to_user:
        copied = Outcome(state, (-EFAULT, pages, None), clause)
    if length < blob.length:
        return too_small
    return copied if length >= pages * PAGE_SIZE else (copied, *too_small)


def host_set_ext_config(state: State, op: HostSetExtConfig, env: Answers) -> Outcomes:
    """Install, replace or remove the host's certificates, with the TCB they belong to.

    Which of two wrong arguments is found first is left open.

    Source: ccp API of v7 32/64.
    """
    found: list[Outcome] = []
    if not op.writable:
        found.append(Outcome(state, -EPERM, c.HOST_IOCTLS))
    if op.blob and (op.length == 0 or op.length % PAGE_SIZE):
        found.append(Outcome(state, -EINVAL, c.HOST_IOCTLS))
    if found:
        return tuple(found)
    if env.kmalloc or env.kzalloc:
        return Outcome(state, -ENOMEM, c.HOST_IOCTLS)
    if env.copy_from_user:
        return Outcome(state, -EFAULT, c.HOST_IOCTLS)
    if op.tcb and (env.snp_config or state.dead):
        return Outcome(state, ERRNO, c.HOST_IOCTLS)
    return Outcome(replace(state, host_certs=Blob(op.blob, op.length) if op.blob else None), 0, c.HOST_IOCTLS)


def host_get_ext_config(state: State, op: HostGetExtConfig, env: Answers) -> Outcomes:
    """As get_instance_certs; without certificates the length is 0."""
    if state.host_certs is None:
        return tuple(Outcome(state, (errno, 0, None), c.HOST_CERTS_DROPPED) for errno in (0, -ENOENT))
    return _copied_out(state, state.host_certs, op.length, env, c.HOST_IOCTLS, -ENOSR, -EIO)


# -- the world


def world(state: State, op: VcpuCreate | RegisterGhcb | SnpShutdown | CloseFd | RemoveSlot | Wait) -> Outcome:
    """What changes no answer of its own."""
    match op:
        case VcpuCreate():
            return Outcome(_with_vcpu(state, op.vcpu, created=True), 0, c.INIT_FAILURE)
        case RegisterGhcb():
            return Outcome(_with_vcpu(state, op.vcpu, registered=True), 0, c.REGISTERED_GHCB)
        case SnpShutdown():
            kernel = (c.HOST_CERTS_DROPPED,) if state.certs == "kernel" else ()
            return Outcome(replace(state, host_certs=None), 0, c.INIT_FAILURE, None, kernel)
        case CloseFd():
            return Outcome(_with_vm(state, op.vm, fd="foreign" if op.foreign else "closed"), 0, c.FD_RULE)
        case RemoveSlot():
            removed = state.vms[op.vm].removed | {op.page}
            return Outcome(_with_vm(state, op.vm, removed=removed), 0, c.PAGE_STAYS_IN_FLIGHT)
        case Wait():
            return Outcome(state, 0, c.NO_LOCK_IN_USERSPACE if state.certs == "userspace" else c.LOCK_FREE_AFTER)


def legal(state: State, op: object) -> bool:
    """What the world can do at all, kind H."""
    match op:
        case GuestRequest() | ExtGuestRequest() | UnknownExit():
            if not _can_run(state, op.vcpu):
                return False
            return isinstance(op, UnknownExit) or (_sane(op) and not _hits_waiting_request(state, op))
        case Continue():
            return state.vcpus[op.vcpu].pending is not None and not state.vms[VM_OF[op.vcpu]].bugged
        case Boot() | VmCreate():
            return state.vms[op.vm].life == "absent" and not state.dead
        case SevInit():
            return state.vms[op.vm].life == "created"
        case LaunchStart():
            vm = state.vms[op.vm]
            return vm.kind == SNP and vm.life in ("init", "launched", "running") and not vm.bugged
        case LaunchFinish():
            vm = state.vms[op.vm]
            return vm.life == "launched" and not vm.bugged
        case EnableReqCerts():
            return state.certs == "userspace" and state.vms[op.vm].life in ("init", "launched", "running")
        case VcpuCreate():
            vm = state.vms[VM_OF[op.vcpu]]
            return not state.vcpus[op.vcpu].created and vm.life in ("init", "launched", "running")
        case RegisterGhcb():
            vcpu, vm = state.vcpus[op.vcpu], state.vms[VM_OF[op.vcpu]]
            return (
                vcpu.created and not vcpu.registered and vm.kind == SNP and vm.life in ("init", "launched", "running")
            )
        case Decommission():
            vm = state.vms[op.vm]
            return vm.kind == SNP and vm.life in ("launched", "running", "dropped")
        case VmDestroy():
            return state.vms[op.vm].life != "absent" and not (op.vm == 0 and state.vms[1].life == "mirror")
        case MoveFrom() | MirrorFrom():
            src, dst = state.vms
            return (
                src.life == "running"
                and not src.bugged
                and src.gstate == "running"
                and dst.life == "absent"
                and (src.kind == SNP and all(v.pending is None for v in state.vcpus))
            )
        case SnpShutdown():
            return all(vm.life == "absent" for vm in state.vms) and not state.dead
        case SetInstanceCerts() | GetInstanceCerts():
            return state.certs == "kernel" and state.vms[op.vm].life in ("init", "launched", "running", "dropped")
        case HostSetExtConfig() | HostGetExtConfig():
            return state.certs == "kernel"
        case CloseFd():
            return state.vms[op.vm].fd != "none"
        case RemoveSlot():
            return state.vms[op.vm].life not in ("absent", "moved")
        case Wait():
            return True
        case _:
            return False


def _can_run(state: State, number: int) -> bool:
    """A vCPU runs when it exists, waits for nobody, and its VM is neither bugged nor half torn down."""
    vcpu, vm = state.vcpus[number], state.vms[VM_OF[number]]
    return vcpu.created and vcpu.pending is None and not vm.bugged and vm.life not in ("absent", "stuck")


def _hits_waiting_request(state: State, op: Request) -> bool:
    """Whether an answer lands in the request page of a sibling that waits for userspace, or an exit in its GHCB.

    Its guest knows what it asks until it is answered.
    """
    if not any(v.pending is not None for v in state.vcpus):
        return False
    return op.ghcb == "sibling" or any(name.startswith("R'") for name in (op.resp, getattr(op, "data", "")))


def _sane(op: Request) -> bool:
    """Requests whose content the guest knows: its own message, or a page in which no message ever was."""
    if op.race == "type" and not (op.req == "R" and MESSAGES[op.message].type == REPORT_REQ):
        return False
    return op.req.partition("+")[0] not in ("P", "P'", "R'", "D", "D1", "D3", "G", "G'") or op.req == op.resp
