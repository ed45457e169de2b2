"""VMGEXIT: what is decided before a request is looked at, and where it goes."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.freedom import End, Freedom
from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.addresses import address
from conformance.model.snp_guest_request.certificates import extended_request, written
from conformance.model.snp_guest_request.forwarding import PLAIN, Counted, clearing, forwarded
from conformance.model.snp_guest_request.guest_memory import data_gpa
from conformance.model.snp_guest_request.operations import (
    CPU_OF,
    VM_OF,
    Answers,
    Continue,
    ExtGuestRequest,
    Request,
    UnknownExit,
)
from conformance.model.snp_guest_request.results import INERT, LASTING, REFUSAL, answer, malformed, posted_or
from conformance.model.snp_guest_request.state import State, Vm
from conformance.model.step import Outcome, Outcomes, each
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EINVAL,
    INVALID_ADDRESS,
    INVALID_EVENT,
    INVALID_GUEST,
    INVALID_PARAM,
    INVALID_USAGE,
    MISSING_INPUT,
    PAGE_SIZE,
    SNP,
)
from conformance.specs.snp_guest_request.profiles import Profile


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
        data = written(state, op, env, profile).parts if isinstance(op, ExtGuestRequest) else ()
        return Freedom(state, (*data, *clearing(state, op)), (End(REFUSAL, c.MOVE, c.MOVE),))
    early = _entered(state, op, env)
    if early is not None:
        return early if op.usage else _hopeless(state, vm, early)
    if vm.kind != SNP or vm.life == "mirror":
        return Outcome(state, posted_or(profile, INVALID_GUEST, MISSING_INPUT), c.NOT_SNP, also=INERT)
    extended = type(op) is ExtGuestRequest
    req, resp = address(op.req, cpu), address(op.resp, cpu)
    refused = _misplaced(state, op, req, resp, profile)
    if refused:
        return _hopeless(state, vm, refused)
    if env.ratelimit:
        return Outcome(state, answer(BUSY_INFO2), c.RATE, also=(c.NO_ACTION, c.HALVES))
    if not extended:
        return snapshot(op, forwarded(state, op, env, profile, _BASIC if profile.certs == "userspace" else PLAIN))
    assert type(op) is ExtGuestRequest
    return snapshot(op, _hopeless(state, vm, extended_request(state, op, env, profile)))


def _hopeless(state: State, vm: Vm, outcomes: Outcomes) -> Outcomes:
    """Whatever else is wrong with a request, that no request of the VM can be answered may be found first."""
    if vm.kind != SNP or vm.life == "mirror":
        return outcomes
    if not vm.has_context or vm.life == "launched":
        return (*each(outcomes), Outcome(state, ERRNO, c.NO_CONTEXT))
    if state.dead or vm.fd != "open":
        return (*each(outcomes), Outcome(state, LASTING, c.DEAD_FIRMWARE if state.dead else c.FD_RULE))
    return outcomes


_BASIC = Counted((c.NO_OTHER_EXIT,))


def snapshot(op: Request | Continue, outcomes: Outcomes) -> Outcomes:
    """Where the guest changes its GHCB after it was fetched, another answer breaks the clause on that."""
    if op.race in ("", "type", "ret"):
        return outcomes
    return tuple(
        replace(o, because=c.GHCB_SNAPSHOT, effect=c.GHCB_SNAPSHOT, also=(*o.also, o.because)) for o in each(outcomes)
    )


def _entered(state: State, op: Request | UnknownExit, env: Answers) -> Outcomes | None:
    """What is decided before the exit code is looked at: registration, usage, valid bits.

    Usage comes before anything else, and nothing of an unregistered GHCB is processed: either order is right.
    """
    vm = state.vms[VM_OF[op.vcpu]]
    if env.ghcb_map:
        return Outcome(state, REFUSAL, c.NOT_DELIVERED)
    ghcb = "own" if isinstance(op, UnknownExit) else op.ghcb
    unregistered = vm.kind == SNP and vm.life != "mirror" and state.vcpus[op.vcpu].registered != ghcb
    refused = Outcome(state, -EINVAL, c.REGISTERED_GHCB)
    if op.usage:
        told = Outcome(state, malformed(INVALID_USAGE), c.USAGE, also=INERT)
        return (refused, told) if unregistered else told
    if unregistered:
        return refused
    if any(letter in op.missing for letter in "c12"):
        return Outcome(state, malformed(MISSING_INPUT), c.VALID_BITS, also=INERT)
    return None


def unknown_exit(state: State, op: UnknownExit, env: Answers) -> Outcomes:
    """An exit code that nobody defined is malformed(6), after usage and valid bits."""
    vm = state.vms[VM_OF[op.vcpu]]
    early = _entered(state, op, env)
    if op.usage and early:
        return early
    return _hopeless(state, vm, early or Outcome(state, malformed(INVALID_EVENT), c.CHECK_ORDER))


def _misplaced(state: State, op: Request, req: int, resp: int, profile: Profile) -> Outcomes:
    """Addresses that are misaligned or equal; () when they are neither.

    As posted the data address of an extended request comes first, and either order is taken for right.
    """
    found: list[Outcome] = []
    posted = profile.errors == "posted"
    if posted and type(op) is ExtGuestRequest and data_gpa(op) % PAGE_SIZE:
        found.append(Outcome(state, answer(INVALID_ADDRESS), c.DATA_ALIGNED, also=INERT))
    if req % PAGE_SIZE:
        found.append(Outcome(state, posted_or(profile, INVALID_PARAM, MISSING_INPUT), c.REQUEST_ALIGNED, also=INERT))
    if resp % PAGE_SIZE:
        found.append(Outcome(state, posted_or(profile, INVALID_PARAM, MISSING_INPUT), c.RESPONSE_ALIGNED, also=INERT))
    if req == resp:
        found.append(Outcome(state, REFUSAL if posted else malformed(MISSING_INPUT), c.DISTINCT_PAGES, also=INERT))
    return tuple(found)
