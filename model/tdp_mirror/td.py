"""The TD: pages added and accepted, finalized, hooks where they must refuse, and corruption."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.freedom import End, Freedom
from conformance.model.matchers import ERRNO, OneOf
from conformance.model.step import Outcome, Outcomes
from conformance.model.tdp_mirror.operations import (
    Accept,
    Answers,
    Finalize,
    HkidRelease,
    InitRegion,
    InjectHuge,
    SeptFree,
    SeptRemove,
    SeptSet,
)
from conformance.model.tdp_mirror.prefault import prefault_results, repeated_fault
from conformance.model.tdp_mirror.roots import loading, with_roots, without_obsolete
from conformance.model.tdp_mirror.state import (
    BLOCKED,
    MAPPED,
    PENDING_BLOCKED,
    State,
    source,
    valid_root,
    with_external,
    with_root,
)
from conformance.model.tdp_mirror.zapping import zap
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    EBUSY,
    EINTR,
    EINVAL,
    EIO,
    ENOMEM,
    RET_PF_FIXED,
    RET_PF_SPURIOUS,
    TD_INIT,
    TD_RUNNABLE,
    TDX_EPT_ENTRY_STATE_INCORRECT,
    TDX_OPERAND_BUSY,
    TDX_PAGE_ALREADY_ACCEPTED,
    TDX_STATUS_MASK,
    TDX_SUCCESS,
)


def inject_huge(state: State, op: InjectHuge, _answers: Answers, _profile: Profile) -> Outcomes:
    """Corruption, not an act of the candidate."""
    index = valid_root(state, True)
    root = state.roots[index]
    leaf = (op.gfn, 2, "gmem", True)
    after = replace(with_root(state, index, replace(root, leaves=root.leaves | {leaf})), corrupt=True)
    return Outcome(after, 0, because=c.MIRROR_NO_HUGE)


def accept(state: State, op: Accept, answers: Answers, _profile: Profile) -> Outcomes:
    """A pending page becomes the guest's; the result is the firmware's status."""
    clause = c.FREEZE_EXTERNAL_PUBLISH
    if answers.kept_out:
        return Outcome(state, TDX_OPERAND_BUSY, because=c.BUSY_RETRY_ONCE, effect=clause)
    leaf = next((leaf for leaf in state.ext_leaves if leaf[0] == op.gpa >> 12), None)
    if leaf is None or leaf[3] in (BLOCKED, PENDING_BLOCKED):
        return Outcome(state, TDX_EPT_ENTRY_STATE_INCORRECT, because=clause, effect=clause)
    if leaf[3] == MAPPED:
        return Outcome(state, TDX_PAGE_ALREADY_ACCEPTED, because=clause, effect=clause)
    after = replace(state, ext_leaves=state.ext_leaves - {leaf} | {(*leaf[:3], MAPPED)})
    return Outcome(after, TDX_SUCCESS, because=clause, effect=clause)


def init_region(state: State, op: InitRegion, answers: Answers, profile: Profile) -> Outcomes:
    """Map a private page and add it to the TD (TDP-102)."""
    if answers.cache_topup or answers.page_alloc:
        return Freedom(state, loading(op.vcpu), (End(-ENOMEM, because=c.ALLOCATION_BEFORE_LOCK),))
    if state.td == TD_RUNNABLE:
        clause = c.PREMAPPED_COUNT
        ends = tuple(End(-errno, because=clause, effect=clause) for errno in (EINVAL, EIO))
        return Freedom(state, loading(op.vcpu), ends)
    loaded = with_roots(without_obsolete(state, op.vcpu), op.vcpu)
    tried = repeated_fault(loaded, op.vcpu, op.gpa, True, True, answers, profile)
    ends = tuple(end for outcome in tried for end in _unfit(outcome))
    if answers.signal_pending:
        ends += (End(-EINTR, because=c.PREFAULT_RESULTS),)
    gfn = op.gpa >> 12
    mapped = tuple(added for outcome in tried for added in _added(outcome, gfn, answers, profile))
    if answers.taken:
        mapped += tuple(_taken(outcome, gfn) for outcome in tried if outcome.result[0] == RET_PF_FIXED)
    return (*mapped, *Freedom(state, loading(op.vcpu), ends))


def _taken(outcome: Outcome, gfn: int) -> Outcome:
    """Between the map and the addition somebody took the page away: there is nothing to add."""
    gone = zap(outcome.state, gfn, gfn + 1, mirror=True, direct=False, invalid=True)
    return Outcome(gone, ERRNO, because=c.PREMAPPED_COUNT, effect=c.PREMAPPED_COUNT)


_UNFIT = (c.ATTRIBUTE_MISMATCH, c.NO_BACKING)


def _unfit(outcome: Outcome) -> tuple[End, ...]:
    """Why the page cannot be had, which may be asked before anything is done for it."""
    if outcome.because not in (*_UNFIT, c.GMEM_ERROR):
        return ()
    results = prefault_results(outcome.result[0], True) + ((-EINVAL,) if outcome.because in _UNFIT else ())
    return tuple(End(result, because=outcome.because) for result in results)


def _added(outcome: Outcome, gfn: int, answers: Answers, profile: Profile) -> tuple[Outcome, ...]:
    state, result = outcome.state, outcome.result[0]
    if result == RET_PF_SPURIOUS and gfn not in state.premapped:
        results = (0, -EIO, -EBUSY) if answers.tdh_mem_page_add else (0, -EIO)
        found = tuple(Outcome(state, r, because=c.PREMAPPED_COUNT) for r in results)
        return (*found, Outcome(replace(state, bugged=True), -EIO, because=c.BUSY_IS_NO_BUG))
    if result not in (RET_PF_FIXED, RET_PF_SPURIOUS):
        told = prefault_results(result, True)
        return tuple(Outcome(state, r, because=outcome.because) for r in told)
    if profile.premapped and answers.tdh_mem_page_add:
        errno = EBUSY if answers.tdh_mem_page_add & TDX_STATUS_MASK == TDX_OPERAND_BUSY else EIO
        refused = Outcome(state, -errno, because=c.PREMAPPED_COUNT, effect=c.PREMAPPED_COUNT)
        return (refused,) if errno == EBUSY else (refused, replace(refused, state=replace(state, bugged=True)))
    page = source(state, gfn, True)
    added = with_external(replace(state, premapped=state.premapped - {gfn}), gfn, page, MAPPED)
    return (Outcome(added, 0, because=c.PREMAPPED_COUNT, effect=c.PREMAPPED_COUNT),)


def finalize(state: State, _op: Finalize, answers: Answers, _profile: Profile) -> Outcomes:
    """Only once, and with nothing premapped (TDP-102)."""
    if state.td != TD_INIT or state.premapped or not state.hkid:
        clause = c.PREMAPPED_COUNT if state.premapped else c.PREFAULT_AFTER_FINALIZE
        return Outcome(state, -EINVAL, because=clause, effect=clause)
    if answers.tdh_mr_finalize:
        return Outcome(state, -EBUSY, because=c.BUSY_TO_EBUSY, effect=c.PREFAULT_AFTER_FINALIZE)
    return Outcome(
        replace(state, td=TD_RUNNABLE), 0, because=c.PREMAPPED_COUNT,
        effect=c.PREFAULT_AFTER_FINALIZE,
    )  # fmt: skip


def sept_refuses(state: State, op: SeptSet | SeptRemove | SeptFree, _answers: Answers, profile: Profile) -> Outcomes:
    """A hook called where it must not be: VM bug and EIO, which a removal of 6.19 tells nobody (TDP-057, 100)."""
    clause: Clause = c.HKID_ORDER
    if isinstance(op, SeptSet):
        clause = c.MIRROR_4K_ONLY if op.level > 1 else c.PREFAULT_AFTER_FINALIZE
    result = OneOf(frozenset({-EIO, 0})) if isinstance(op, SeptRemove) and not profile.premapped else -EIO
    return Outcome(replace(state, bugged=True), result, because=clause, effect=clause, also=(c.HKID_ORDER,))


def hkid_release(state: State, _op: HkidRelease, _answers: Answers, _profile: Profile) -> Outcomes:
    """Without its key the TD cannot run, nor lose pages one by one (TDP-100)."""
    return Outcome(replace(state, hkid=False), 0, because=c.HKID_ORDER)
