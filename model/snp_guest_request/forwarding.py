"""Forwarding a request: why no command is issued, what firmware answers, and how pages come back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from conformance.model.freedom import End, Freedom, Part
from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.addresses import INDEX, address, page_at
from conformance.model.snp_guest_request.guest_memory import (
    asks_report,
    data_gpa,
    is_composed,
    is_readable,
    is_writable,
    with_page,
)
from conformance.model.snp_guest_request.messages import MESSAGES, Message, firmware_status
from conformance.model.snp_guest_request.operations import CPU_OF, LATE_EFAULT, VM_OF, Answers, ExtGuestRequest, Request
from conformance.model.snp_guest_request.results import LASTING, REFUSAL, SUCCESS, answer
from conformance.model.snp_guest_request.state import Label, State, registered_page, with_vm
from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EFAULT,
    EIO,
    ETIMEDOUT,
    FIRMWARE,
    INVALID_ADDRESS,
    PAGE_SIZE,
    RECLAIM,
)
from conformance.specs.snp_guest_request.profiles import Profile

RAN, ANSWERED, CLEARED, OLD, DEAD = "ran", "answered", "response cleared", "old response", "dead"
UNISSUED = (RAN, ANSWERED, OLD, DEAD)
"""Parts that nobody can have done who issued no command."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a request does to the pages for certificates before its command."""

    parts: tuple[Part, ...] = ()
    must: tuple[End, ...] = ()
    """Why it cannot go on."""
    may: tuple[End, ...] = ()
    """What somebody may find wrong who looks at more of the pages than he needs."""
    hit: bool = False
    """Some of it falls on the message."""


NO_DATA = Data()


@dataclass(frozen=True, slots=True)
class Counted:
    """Which clauses the answer exercises, and which a wrong one breaks."""

    also: tuple[Clause, ...] = ()
    effect: Clause | None = None
    owed: Clause | None = None
    """Cited before the clauses on success and status: what firmware answers is owed to this one."""


PLAIN = Counted()


def fault(profile: Profile) -> object:
    """The answer to a guest page that cannot be used."""
    return answer(INVALID_ADDRESS) if profile.errors == "posted" else -EIO


def is_refused(env: Answers) -> bool:
    """Whether the handler could not have the lock or the memory that it wanted."""
    return bool(env.mutex_lock_killable or env.alloc_page or env.alloc_fw_page or env.kmalloc or env.kzalloc)


def refusals(state: State, op: Request, env: Answers, profile: Profile, *, kept: bool = False) -> tuple[End, ...]:
    """Why no command is issued for a valid request; () when one is.

    Each is right while it holds, whichever is met first. `kept`: the message was read before, and may have been kept.
    """
    vm = state.vms[VM_OF[op.vcpu]]
    posted = profile.errors == "posted"
    found: list[End] = []
    if not vm.has_context:
        found.append(End(REFUSAL, c.NO_CONTEXT, c.NO_CONTEXT, before=UNISSUED))
    if is_refused(env):
        found.append(End(REFUSAL, c.NOT_DELIVERED, c.NOT_DELIVERED, before=UNISSUED))
    if env.read_guest or not (kept or is_readable(vm, op)):
        found.append(End(fault(profile), c.GUEST_PAGE_FAULT, before=UNISSUED))
    if profile.pages == "inplace":
        found += _not_taken(state, op, env, profile)
    if vm.fd != "open":
        effect = c.RESPONSE_PAGE_BACK if profile.pages == "inplace" else None
        found.append(End(REFUSAL if posted else LASTING, c.FD_RULE, effect, before=UNISSUED))
    if state.dead:
        found.append(End(REFUSAL if posted else LASTING, c.DEAD_FIRMWARE, c.DEAD_FIRMWARE, before=UNISSUED))
    given = env.snp_guest_request
    if LATE_EFAULT < given < 0 and given != -ETIMEDOUT:
        found.append(End(REFUSAL if posted else given, c.NOT_DELIVERED, c.NOT_DELIVERED, before=UNISSUED))
    return tuple(found)


def _not_taken(state: State, op: Request, env: Answers, profile: Profile) -> list[End]:
    """In place: why the response page does not become firmware's."""
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    found: list[End] = []
    if not is_writable(vm, address(op.resp, cpu)) or env.gfn_to_pfn:
        found.append(End(fault(profile), c.GUEST_PAGE_FAULT, before=UNISSUED))
    untouched = (*UNISSUED, CLEARED)
    if _taken(state, op, profile):
        found.append(End(REFUSAL, c.RESPONSE_PAGE_FREE, c.RESPONSE_PAGE_FREE, before=untouched))
    if env.rmp_make_private:
        found.append(End(REFUSAL, c.RESPONSE_PAGE_BACK, c.RESPONSE_PAGE_BACK, before=UNISSUED))
    return found


def _taken(state: State, op: Request, profile: Profile) -> bool:
    """In place: the response page is not the guest's to give (SNP-029)."""
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    page = page_at(address(op.resp, cpu))
    if page == "private":
        return True
    if any(VM_OF[v] == number and page == registered_page(v, vcpu) for v, vcpu in enumerate(state.vcpus)):
        return True
    if type(op) is not ExtGuestRequest or "b" in op.missing or not op.npages:
        return False
    if profile.errors != "posted" and not asks_report(op):
        return False
    blob = state.vms[number].instance or state.host_certs
    pages = min(op.npages, -(-blob.length // PAGE_SIZE) if blob else 1)
    return 0 <= (address(op.resp, cpu) - data_gpa(op)) // PAGE_SIZE < pages


def early(state: State, op: Request, env: Answers, profile: Profile, *, kept: bool = False) -> tuple[End, ...]:
    """What a handler may find before it issues a command, or only after it.

    A response page that cannot be written; a message that has to be read again and is not there any more; a context
    that was to be given up, or whose launch is not finished; in place, a request page that can be read and not written:
    who copies it never knows.
    """
    vm = state.vms[VM_OF[op.vcpu]]
    given_up: tuple[End, ...] = ()
    if vm.life in ("stuck", "launched"):
        given_up = (End(REFUSAL if vm.life == "stuck" else ERRNO, c.NO_CONTEXT, c.NO_CONTEXT, before=UNISSUED),)
    if profile.pages != "bounce":
        return (*given_up, End(fault(profile), c.GUEST_PAGE_FAULT, before=UNISSUED)) if _is_readonly(op) else given_up
    unreadable = kept and not is_readable(vm, op)
    if not (unreadable or env.gfn_to_pfn or env.clear_guest or _is_lost(state, op, env)):
        return given_up
    return (*given_up, End(-EIO, c.GUEST_PAGE_FAULT, before=UNISSUED))


def _is_readonly(op: Request) -> bool:
    """Whether there is no writable page behind the request."""
    return page_at(address(op.req, CPU_OF[op.vcpu])) == "readonly"


def _is_lost(state: State, op: Request, env: Answers) -> bool:
    """Whether what firmware answers cannot be given to the guest."""
    return bool(env.write_guest) or not is_writable(state.vms[VM_OF[op.vcpu]], address(op.resp, CPU_OF[op.vcpu]))


def forwarded(
    state: State,
    op: Request,
    env: Answers,
    profile: Profile,
    counted: Counted = PLAIN,
    data: Data = NO_DATA,
    *,
    kept: bool = False,
) -> Outcomes:
    """Have firmware answer, or say why not."""
    must = (*refusals(state, op, env, profile, kept=kept), *data.must)
    inplace = profile.pages == "inplace"
    if must:
        ends = (*must, *data.may, *early(state, op, env, profile, kept=kept))
        found = Freedom(state, (*data.parts, *clearing(state, op)), ends)
        return _cleaned(op, env, found) if inplace else found
    if env.snp_guest_request == -ETIMEDOUT and inplace:
        # The dead firmware does not give the page back either.
        done = Freedom(replace(state, dead=True), (*data.parts, *clearing(state, op)), (_TIMED_OUT,))
        return tuple(replace(o, state=_leaked(o.state, op, FIRMWARE)) for o in done)
    halves = (c.NO_ACTION,) if profile.errors == "posted" else (c.NO_ACTION, c.HALVES)
    counted = replace(counted, also=(*counted.also, *halves))
    if data is NO_DATA and env == _UNREFUSED and _is_plain(state, op, env, profile, kept=kept):
        plain = _plainly(state, op, profile, counted)
        if plain is not None:
            return plain
    ends = (*_answers(state, op, env, profile, counted, data, kept=kept), *data.may)
    ends += early(state, op, env, profile, kept=kept)
    found = Freedom(state, _parts(state, op, data), ends)
    return _cleaned(op, env, found) if inplace else found


def _is_plain(state: State, op: Request, env: Answers, profile: Profile, *, kept: bool) -> bool:
    """Whether nothing can be found wrong but by firmware."""
    if op.race or kept or state.vms[VM_OF[op.vcpu]].life == "stuck":
        return False
    return not (_is_readonly(op) if profile.pages == "inplace" else _is_lost(state, op, env))


_UNREFUSED = Answers()
_TIMED_OUT = End(ERRNO, c.TIMEOUT, c.RECLAIM_FAILED, complete=True)


def _plainly(state: State, op: Request, profile: Profile, counted: Counted) -> Outcome | None:
    """The one outcome of a request that nothing is wrong with; None where firmware refuses it."""
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm = state.vms[number]
    message = MESSAGES[op.message] if is_composed(op) else MESSAGES["zero"]
    if firmware_status(message, vm.gstate, vm.counts[cpu] if vm.counts else 0):
        return None
    label = _label(state, op)
    after = with_page(_ran(state, op, label), number, address(op.resp, cpu), label)
    end = _success(op, profile, counted)
    also = (*end.also, c.RESPONSE_PAGE_BACK, c.CLEANUP_IS_NO_STATUS) if profile.pages == "inplace" else end.also
    return Outcome(after, SUCCESS, end.because, end.effect, also)


# -- parts


def clearing(state: State, op: Request) -> tuple[Part, ...]:
    """The response page may be cleared before firmware is asked: it holds nothing but an output."""
    number, gpa = VM_OF[op.vcpu], address(op.resp, CPU_OF[op.vcpu])
    if page_at(gpa) not in INDEX or not is_writable(state.vms[number], gpa):
        return ()
    return (Part(CLEARED, lambda s: with_page(s, number, gpa, "zero"), owed=False),)


def _parts(state: State, op: Request, data: Data) -> tuple[Part, ...]:
    """All that a request may have done by its end, in order."""
    number, gpa = VM_OF[op.vcpu], address(op.resp, CPU_OF[op.vcpu])
    last = state.vms[number].last
    label = _label(state, op)
    after = (
        Part(DEAD, lambda s: replace(s, dead=True), owed=False),
        Part(RAN, lambda s: _ran(s, op, label)),
        Part(OLD, lambda s: with_page(s, number, gpa, last), owed=False),
        Part(ANSWERED, lambda s: with_page(s, number, gpa, label), after=(RAN,)),
    )
    return (*data.parts, *clearing(state, op), *after)


def _label(state: State, op: Request) -> Label:
    """What the response page holds once firmware has answered."""
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    return ("rsp", vm.guest, cpu, (vm.counts[cpu] if vm.counts else 0) + 2)


def _ran(state: State, op: Request, label: Label) -> State:
    """Firmware processed one message: its counter grew by 2, or the context is gone after an export."""
    number, cpu = VM_OF[op.vcpu], CPU_OF[op.vcpu]
    vm = state.vms[number]
    if op.message == "export":
        return with_vm(state, number, gstate="gone", counts=(), last=label)
    counts = (*vm.counts[:cpu], vm.counts[cpu] + 2, *vm.counts[cpu + 1 :])
    return with_vm(state, number, counts=counts, last=label)


# -- ends


def _answers(
    state: State, op: Request, env: Answers, profile: Profile, counted: Counted, data: Data, *, kept: bool
) -> tuple[End, ...]:
    """What firmware makes of the message, and how the guest learns of it."""
    if env.snp_guest_request == -ETIMEDOUT:
        return (End(-ETIMEDOUT, c.TIMEOUT, c.TIMEOUT, after=(DEAD,), before=(RAN, ANSWERED, OLD)),)
    vm, cpu = state.vms[VM_OF[op.vcpu]], CPU_OF[op.vcpu]
    count = vm.counts[cpu] if vm.counts else 0
    ends: list[End] = []
    for message, breaches in _messages(op, profile, data, kept=kept):
        status = max(0, env.snp_guest_request) or firmware_status(message, vm.gstate, count)
        if status:
            ends += _told(state, op, env, profile, status, counted, breaches)
        elif env.snp_guest_request == LATE_EFAULT:
            ends.append(_late(profile))
        elif profile.pages == "bounce" and _is_lost(state, op, env):
            ends.append(End(-EIO, c.GUEST_PAGE_FAULT, complete=True, after=(RAN,), before=(DEAD, OLD, ANSWERED)))
        else:
            ends.append(replace(_success(op, profile, counted), breaches=breaches))
    return tuple(ends)


def _messages(
    op: Request, profile: Profile, data: Data, *, kept: bool
) -> tuple[tuple[Message, tuple[Clause, ...]], ...]:
    """What firmware may be given, and which SHOULD clauses are broken by it; the message as it was sent first.

    The guest flips MSG_TYPE once it was read: who reads the page again forwards bytes that fail their tag. Harmless
    where nothing was decided by the first read, or userspace was asked in between. Certificates that the guest has put
    over its message are forwarded, unless the message was copied before.
    """
    message = MESSAGES[op.message] if is_composed(op) else MESSAGES["zero"]
    broken = replace(message, tag=True)
    found: list[tuple[Message, tuple[Clause, ...]]] = [(message, ())]
    if op.race == "type":
        is_breach = type(op) is ExtGuestRequest and profile.pages == "bounce" and not kept
        found.append((broken, (c.TYPE_OF_SNAPSHOT,) if is_breach else ()))
    if data.hit:
        found += [(broken, ()), (MESSAGES["zero"], ())]
    return tuple(found)


def _told(
    state: State,
    op: Request,
    env: Answers,
    profile: Profile,
    status: int,
    counted: Counted,
    breaches: tuple[Clause, ...],
) -> list[End]:
    """Firmware refused. A bounce buffer that is copied out all the same holds an older response, or zeros."""
    last = state.vms[VM_OF[op.vcpu]].last
    also = (*counted.also, c.NO_OLD_RESPONSE) if last != "zero" else counted.also
    also = (*also, c.TYPE_OF_SNAPSHOT) if op.race == "type" and not breaches else also
    also = also if counted.owed is None else (*also, c.FIRMWARE_STATUS)
    plain = End(answer(status), counted.owed or c.FIRMWARE_STATUS, counted.effect, also, breaches, complete=True)
    ends = [replace(plain, before=UNISSUED)]
    if profile.pages == "bounce" and _is_lost(state, op, env):
        ends.append(End(-EIO, c.GUEST_PAGE_FAULT, complete=True, before=UNISSUED))
    elif profile.pages == "bounce" and last != "zero":
        stale = (*breaches, c.NO_OLD_RESPONSE)
        ends.append(replace(plain, breaches=stale, after=(OLD,), before=(RAN, ANSWERED, DEAD)))
    return ends


def _success(op: Request, profile: Profile, counted: Counted) -> End:
    also = (*counted.also, c.COUNTERS)
    also = (*also, c.CONTEXT_DROPPED) if op.message == "export" else also
    also = (*also, c.GUEST_PAGES_STAY) if profile.pages == "bounce" else also
    also = (*also, c.TYPE_OF_SNAPSHOT) if op.race == "type" else also
    also = also if counted.owed is None else (*also, c.SUCCESS)
    # Whether the response page was cleared before it was filled makes no difference.
    unseen = (CLEARED, OLD, DEAD)
    return End(SUCCESS, counted.owed or c.SUCCESS, counted.effect, also, complete=True, before=unseen)


def _late(profile: Profile) -> End:
    """Firmware answered, and then the driver failed: the number is used up, and the guest learns nothing of it."""
    done, never = ((RAN, ANSWERED), ()) if profile.pages == "inplace" else ((RAN,), (ANSWERED,))
    result = REFUSAL if profile.errors == "posted" else -EFAULT
    also = (c.COUNTERS,)
    return End(result, c.NOT_DELIVERED, c.NOT_DELIVERED, also, complete=True, after=done, before=(OLD, DEAD, *never))


def _cleaned(op: Request, env: Answers, found: Freedom) -> Outcomes:
    """In place: when the response page could not be had back it is leaked, and the VM is dead."""
    if not (env.snp_page_reclaim or env.rmp_make_shared):
        return found.each(lambda o: replace(o, also=(*o.also, c.RESPONSE_PAGE_BACK, c.CLEANUP_IS_NO_STATUS)))
    stuck, clause = (FIRMWARE, c.RECLAIM_FAILED) if env.snp_page_reclaim else (RECLAIM, c.MAKE_SHARED_FAILED)
    also = (c.CLEANUP_IS_NO_STATUS,)
    return tuple(Outcome(_leaked(o.state, op, stuck), ERRNO, clause, clause, also) for o in found)


def _leaked(state: State, op: Request, rmp: int) -> State:
    number = VM_OF[op.vcpu]
    page = page_at(address(op.resp, CPU_OF[op.vcpu])) or ""
    vm = state.vms[number]
    return with_vm(state, number, bugged=True, moved=tuple(sorted((*vm.moved, (page, rmp)))))
