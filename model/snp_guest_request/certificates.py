"""Extended requests: which certificates are handed out, from the kernel or by userspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from conformance.model.freedom import End, Freedom, Part
from conformance.model.snp_guest_request.addresses import INDEX, address, page_at
from conformance.model.snp_guest_request.forwarding import (
    CLEARED,
    NO_DATA,
    PLAIN,
    UNISSUED,
    Counted,
    Data,
    clearing,
    early,
    fault,
    forwarded,
    is_refused,
    refusals,
)
from conformance.model.snp_guest_request.guest_memory import (
    asks_report,
    data_gpa,
    is_composed,
    is_readable,
    is_writable,
    with_page,
)
from conformance.model.snp_guest_request.operations import CPU_OF, VM_OF, Answers, Continue, ExtGuestRequest
from conformance.model.snp_guest_request.results import INERT, REFUSAL, answer, malformed
from conformance.model.snp_guest_request.state import Label, State, Vm, with_vcpu
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
    INVALID_INPUT,
    PAGE_SIZE,
    TOO_SMALL_INFO2,
)
from conformance.specs.snp_guest_request.profiles import Profile


def extended_request(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """Certificates first, then as a basic request."""
    vm = state.vms[VM_OF[op.vcpu]]
    if is_refused(env) or env.read_guest:
        # Certificates may have been written by then, in a handler that takes its lock or reads the message after.
        return forwarded(state, op, env, profile, PLAIN, written(state, op, env, profile))
    if profile.errors != "posted":
        if not is_readable(vm, op):
            return forwarded(state, op, env, profile)
        if not asks_report(op):
            also = (c.OTHER_TYPES_ARE_BASIC, *((c.NO_OTHER_EXIT,) if profile.certs == "userspace" else ()))
            ignored = op.missing or data_gpa(op) % PAGE_SIZE
            return forwarded(state, op, env, profile, Counted(also, owed=c.OTHER_TYPES_ARE_BASIC if ignored else None))
        clause = c.REGISTERS_SUPPLIED if "a" in op.missing or "b" in op.missing else c.DATA_ALIGNED
        if clause is c.REGISTERS_SUPPLIED or data_gpa(op) % PAGE_SIZE:
            told = End(malformed(INVALID_INPUT), clause, also=INERT)
            return Freedom(state, (), (told, *refusals(state, op, env, profile), *early(state, op, env, profile)))
    outcomes = _with_certs(state, op, env, profile)
    if op.race == "type" and profile.errors != "posted":
        late = (replace(o, breaches=(c.TYPE_OF_SNAPSHOT,)) for o in each(forwarded(state, op, env, profile)))
        return (*each(outcomes), *late)
    return outcomes


def _with_certs(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """A report request with a place for certificates."""
    vm = state.vms[VM_OF[op.vcpu]]
    npages = _npages(op)
    blob = vm.instance or state.host_certs if profile.certs == "kernel" else None
    if profile.certs == "userspace" and vm.certs:
        return _asked(state, op, env, profile)
    large = c.LARGER_BUFFER if profile.certs == "kernel" and npages * PAGE_SIZE > FW_BLOB_MAX_SIZE else None
    data = written(state, op, env, profile)
    if blob is None:
        counted = Counted((c.EMPTY_TABLE,), c.EMPTY_TABLE, large if npages else c.EMPTY_TABLE)
        return forwarded(state, op, env, profile, counted, data)
    needed = -(-blob.length // PAGE_SIZE)
    both = vm.instance is not None and state.host_certs is not None
    if npages < needed:
        because = c.PAGES_NEEDED if blob.length % PAGE_SIZE else c.INSTANCE_WINS if both else c.TOO_SMALL
        counts = (c.TOO_SMALL, c.PAGES_NEEDED, c.NO_ACTION)
        small = End(answer(TOO_SMALL_INFO2, needed), because, c.TOO_SMALL, counts)
        return Freedom(state, (), (small, *refusals(state, op, env, profile), *early(state, op, env, profile)))
    also: tuple[Clause, ...] = (c.BLOB_COPIED,) if both else ()
    also += (c.LARGER_BUFFER,) if npages > needed and not large else ()
    clause = c.INSTANCE_WINS if both else c.BLOB_COPIED
    counted = Counted((*also, c.NO_STALE_BLOB, c.BLOB_ATOMIC, clause), clause, clause if both else large)
    return forwarded(state, op, env, profile, counted, data)


def _asked(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Outcomes:
    """Userspace is asked; what the request would fail of anyway may be found before."""
    result = (EXIT, EXIT_SNP_REQ_CERTS, data_gpa(op), op.npages, 0)
    waits = with_vcpu(state, op.vcpu, pending=op)
    ends = (*refusals(state, op, env, profile), *early(state, op, env, profile))
    if not ends:
        return Outcome(waits, result, c.CERTS_EXIT, c.CERTS_EXIT, also=(c.NO_LOCK_IN_USERSPACE,))
    pending = Part("pending", lambda s: with_vcpu(s, op.vcpu, pending=op))
    asked = End(result, c.CERTS_EXIT, c.CERTS_EXIT, also=(c.NO_LOCK_IN_USERSPACE,), complete=True)
    return Freedom(state, (*clearing(state, op), pending), (asked, *(replace(e, before=("pending",)) for e in ends)))


def written(state: State, op: ExtGuestRequest, env: Answers, profile: Profile) -> Data:
    """What becomes of the pages for certificates before the command; nothing where userspace writes them."""
    return _data(state, op, env, profile, _labels(state, op, profile))


def _npages(op: ExtGuestRequest) -> int:
    return 0 if "b" in op.missing else op.npages


def _labels(state: State, op: ExtGuestRequest, profile: Profile) -> tuple[Label, ...]:
    """What the data pages hold once the certificates are written; () when none are."""
    vm = state.vms[VM_OF[op.vcpu]]
    npages = _npages(op)
    if profile.errors != "posted":
        asks = is_readable(vm, op) and asks_report(op)
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


def _data(state: State, op: ExtGuestRequest, env: Answers, profile: Profile, labels: tuple[Label, ...]) -> Data:
    """Write the data pages, in order; a page that cannot be written ends the request before the command.

    All pages that the guest offers are its to lose: an empty table may be written by clearing every one of them, up to
    what certificates can need.
    """
    if not labels:
        return NO_DATA
    number, first = VM_OF[op.vcpu], data_gpa(op)
    vm = state.vms[number]
    failed = End(fault(profile), c.DATA_BEFORE_COMMAND, c.DATA_BEFORE_COMMAND, before=UNISSUED)
    parts, must, may = _owed(vm, number, first, labels, failed)
    inplace = profile.pages == "inplace"
    if not must and (env.clear_guest or (env.write_guest and inplace)):
        must.append(failed)
    elif env.write_guest:
        may.append(failed)
    resp = address(op.resp, CPU_OF[op.vcpu])
    if labels == ("zero",) and parts:
        for i in range(1, min(_npages(op), FW_BLOB_MAX_SIZE // PAGE_SIZE)):
            gpa = first + i * PAGE_SIZE
            if not is_writable(vm, gpa):
                may.append(failed)
                break
            if gpa != resp and page_at(gpa) in INDEX:
                before = (parts[-1].name,)
                parts.append(Part(f"data {i}", _writes(number, gpa, "zero"), after=before, owed=False))
    if inplace and 0 <= resp - first < op.npages * PAGE_SIZE:
        # All pages that were offered are data pages, those that the certificates do not need as well.
        may.append(End(REFUSAL, c.RESPONSE_PAGE_FREE, c.RESPONSE_PAGE_FREE, before=(*UNISSUED, CLEARED)))
    offered = min(_npages(op) * PAGE_SIZE, FW_BLOB_MAX_SIZE)
    hit = is_composed(op) and 0 <= address(op.req, CPU_OF[op.vcpu]) - first < offered
    return Data(tuple(parts), tuple(must), tuple(may), hit)


def _owed(
    vm: Vm, number: int, first: int, labels: tuple[Label, ...], failed: End
) -> tuple[list[Part], list[End], list[End]]:
    """The pages that are owed, and that one of them cannot be written."""
    parts: list[Part] = []
    for i, label in enumerate(labels):
        gpa = first + i * PAGE_SIZE
        if not is_writable(vm, gpa):
            return parts, [failed], []
        after = (parts[-1].name,) if parts else ()
        parts.append(Part(f"data {i}", _writes(number, gpa, label), after=after))
    return parts, [], []


def _writes(number: int, gpa: int, label: Label) -> Callable[[State], State]:
    return lambda state: with_page(state, number, gpa, label)


_OVER_MESSAGE = Data(hit=True)
"""Userspace has put its table where the guest wanted it: over the message."""


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
        # The lock was free in between: the message may have been kept, or has to be read again.
        over = op.npages and is_composed(pending) and data_gpa(pending) == address(pending.req, CPU_OF[op.vcpu])
        data = _OVER_MESSAGE if over else NO_DATA
        return forwarded(filled, pending, env, profile, Counted((c.CERTS_ANSWER, c.GHCB_SNAPSHOT)), data, kept=True)
    if op.ret == ENOSPC:
        result = answer(TOO_SMALL_INFO2, op.npages)
        return Outcome(state, result, c.CERTS_ANSWER, c.TOO_SMALL, (c.TOO_SMALL, c.NO_ACTION, c.HALVES))
    if op.ret == EAGAIN:
        return Outcome(state, answer(BUSY_INFO2), c.CERTS_ANSWER, c.BUSY_IS_INERT, (c.NO_ACTION, c.HALVES))
    if op.ret == EIO:
        return Outcome(state, answer(GENERIC_INFO2), c.CERTS_ANSWER, None, (c.NO_ACTION, c.HALVES))
    return Outcome(state, -EINVAL, c.CERTS_ANSWER)
