"""Extended requests: which certificates are handed out, from the kernel or by userspace."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.snp_guest_request.addresses import address
from conformance.model.snp_guest_request.forwarding import forwarded, is_refused, refusals
from conformance.model.snp_guest_request.guest_memory import data_gpa, is_composed, is_readable, is_writable, with_page
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import CPU_OF, VM_OF, Answers, Continue, ExtGuestRequest
from conformance.model.snp_guest_request.results import INERT, REFUSAL, answer, malformed
from conformance.model.snp_guest_request.state import Label, State, with_vcpu
from conformance.model.step import Outcome, Outcomes, each
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EAGAIN,
    EINVAL,
    EIO,
    ENOSPC,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    FW_BLOB_MAX_SIZE,
    GENERIC_INFO2,
    INVALID_ADDRESS,
    INVALID_INPUT,
    PAGE_SIZE,
    REPORT_REQ,
    TOO_SMALL_INFO2,
)
from conformance.specs.snp_guest_request.profiles import Profile


def extended_request(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """Certificates first, then as a basic request."""
    vm = state.vms[VM_OF[op.vcpu]]
    posted = profile.errors == "posted"
    if is_refused(env) or env.read_guest:
        # Certificates may have been written by then, in a handler that takes its lock or reads the message after.
        return tuple(o for s in _partly(state, op, _labels(state, op, profile)) for o in refusals(s, op, env, profile))
    if not posted:
        if not is_readable(vm, op):
            return forwarded(state, op, env, profile)
        message = MESSAGES[op.message] if is_composed(op) else MESSAGES["zero"]
        if message.type != REPORT_REQ:
            basic = forwarded(state, op, env, profile, also=(c.OTHER_TYPES_ARE_BASIC, *_never_exits(profile)))
            ignored = op.missing or data_gpa(op) % PAGE_SIZE
            return _owed(basic, c.OTHER_TYPES_ARE_BASIC) if ignored else basic
        if "a" in op.missing or "b" in op.missing:
            return Outcome(state, malformed(INVALID_INPUT), c.REGISTERS_SUPPLIED, also=INERT)
        if data_gpa(op) % PAGE_SIZE:
            return Outcome(state, malformed(INVALID_INPUT), c.DATA_ALIGNED, also=INERT)
    if op.race == "type" and not posted:
        late = tuple(replace(o, breaches=(c.TYPE_OF_SNAPSHOT,)) for o in each(forwarded(state, op, env, profile)))
        return (*each(_with_certs(state, op, env, profile)), *late)
    return _with_certs(state, op, env, profile)


def _with_certs(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """A report request with a place for certificates."""
    vm = state.vms[VM_OF[op.vcpu]]
    npages = 0 if "b" in op.missing else op.npages
    blob = vm.instance or state.host_certs if profile.certs == "kernel" else None
    if profile.certs == "userspace" and vm.certs:
        result = (EXIT, EXIT_SNP_REQ_CERTS, data_gpa(op), op.npages, 0)
        pending = with_vcpu(state, op.vcpu, pending=op)
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
        return (small, *refusals(state, op, env, profile))
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
        asks = is_readable(vm, op) and is_composed(op) and MESSAGES[op.message].type == REPORT_REQ
        if not asks or "a" in op.missing or "b" in op.missing or data_gpa(op) % PAGE_SIZE:
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
        for o in each(outcomes)
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
        gpa = data_gpa(op) + i * PAGE_SIZE
        if not is_writable(state.vms[number], gpa):
            result = answer(INVALID_ADDRESS) if profile.errors == "posted" else -EIO
            failed = [
                Outcome(partly, result, c.DATA_BEFORE_COMMAND, c.DATA_BEFORE_COMMAND)
                for partly in dict.fromkeys((state, written))
            ]
            return (*failed, *refusals(state, op, env, profile))
        written = with_page(written, number, gpa, label)
    result = answer(INVALID_ADDRESS) if profile.errors == "posted" else -EIO
    failed_ones = tuple(
        Outcome(partly, result, c.DATA_BEFORE_COMMAND, c.DATA_BEFORE_COMMAND) for partly in _partly(state, op, labels)
    )
    if env.clear_guest or (env.write_guest and profile.pages == "inplace"):
        return (*failed_ones, *refusals(state, op, env, profile))
    outcomes = each(forwarded(written, op, env, profile, (*also, clause), effect=clause))
    if env.write_guest:
        outcomes += failed_ones
    if is_composed(op) and 0 <= address(op.req, CPU_OF[op.vcpu]) - data_gpa(op) < len(labels) * PAGE_SIZE:
        # The certificates fell on the message: firmware sees them, unless it was copied before.
        outcomes += each(forwarded(written, replace(op, message="zero"), env, profile, (*also, clause)))
    if profile.pages == "inplace" and 0 <= address(op.resp, CPU_OF[op.vcpu]) - data_gpa(op) < op.npages * PAGE_SIZE:
        # All pages that were offered are data pages, those that the certificates do not need as well.
        outcomes += tuple(Outcome(s, REFUSAL, c.RESPONSE_PAGE_FREE) for s in dict.fromkeys((state, written)))
    if written is not state:
        # A refusal that needs no command may be found before the certificates are written.
        outcomes += refusals(state, op, env, profile)
    return outcomes


def _partly(state: State, op: ExtGuestRequest, labels: tuple[Label, ...]) -> tuple[State, ...]:
    """The states after none, one, … of the data pages were written, as far as they can be."""
    states = [state]
    for i, label in enumerate(labels):
        if not is_writable(state.vms[VM_OF[op.vcpu]], data_gpa(op) + i * PAGE_SIZE):
            break
        states.append(with_page(states[-1], VM_OF[op.vcpu], data_gpa(op) + i * PAGE_SIZE, label))
    return tuple(states)


def continue_(state: State, op: Continue, env: Answers, profile: Profile) -> Outcomes:
    """Userspace answered the certificate exit.

    Source: certificate-fetching series v7, snp_complete_req_certs.
    """
    pending = state.vcpus[op.vcpu].pending
    assert isinstance(pending, ExtGuestRequest)
    state = with_vcpu(state, op.vcpu, pending=None)
    if op.ret == 0:
        filled = state
        if op.npages and is_writable(state.vms[VM_OF[op.vcpu]], data_gpa(pending)):
            filled = with_page(state, VM_OF[op.vcpu], data_gpa(pending), "user")
        if env.ratelimit:
            return Outcome(filled, answer(BUSY_INFO2), c.RATE, also=(c.NO_ACTION, c.HALVES))
        outcomes = each(forwarded(filled, pending, env, profile, (c.CERTS_ANSWER, c.GHCB_SNAPSHOT)))
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
