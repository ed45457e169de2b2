"""Faults that are repeated until they are settled: KVM_PRE_FAULT_MEMORY and private EPT violations."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.freedom import End, Freedom
from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror.faults import fault
from conformance.model.tdp_mirror.mapping import interrupted
from conformance.model.tdp_mirror.operations import Answers, EptViolation, Prefault
from conformance.model.tdp_mirror.roots import loaded_in_vain, loading, with_roots, without_obsolete
from conformance.model.tdp_mirror.state import (
    NONE,
    State,
    covering_leaf,
    is_alias,
    is_obsolete,
    is_unmappable,
    slot_of,
    valid_root,
)
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import EAGAIN, EFAULT, EINTR, EINVAL, EIO, ENOENT, ENOMEM, EOPNOTSUPP


def ept_violation(state: State, op: EptViolation, answers: Answers, profile: Profile) -> Outcomes:
    """A private write fault, repeated until it is not RETRY (TDP-104)."""
    return tuple(
        replace(outcome, because=c.VIOLATION_RETRIED, also=(*outcome.also, outcome.because))
        for outcome in repeated_fault(state, op.vcpu, op.gpa, True, False, answers, profile)
    )


def repeated_fault(
    state: State, vcpu: int, gpa: int, private: bool, prefetch: bool, answers: Answers, profile: Profile
) -> tuple[Outcome, ...]:
    """A fault that is tried again: what got in its way once is gone the next time, or the VM is dead.

    A violation may look for that before it tries again only, a prefault before it tries at all.
    """
    dead: tuple[Outcome, ...] = ()
    if state.bugged:
        dead = (Outcome(state, (-EIO, ()), because=c.BUSY_IS_NO_BUG, effect=c.BUSY_IS_NO_BUG),)
        if prefetch and not answers.killed:
            return dead
    outcomes = each(fault(state, vcpu, gpa, private, not prefetch, prefetch, answers, profile))
    if answers.mmu_invalidate_retry:
        later = replace(answers, mmu_invalidate_retry=0)
        outcomes += each(fault(state, vcpu, gpa, private, not prefetch, prefetch, later, profile))
    settled = dead
    has_events = (vcpu in state.obsolete or bool(answers.vcpu_has_events)) and not prefetch
    stops = answers.signal_pending or has_events
    for outcome in outcomes:
        if outcome.result[0] != k.RET_PF_RETRY:
            settled += (outcome,)
            continue
        if outcome.state.bugged:
            settled += (replace(outcome, result=(-EIO, ())),)
        if _is_stuck(state, vcpu, gpa, answers):
            settled += (outcome,)
        if stops:
            settled += (replace(outcome, result=(-EINTR if prefetch and not has_events else k.RET_PF_RETRY, ())),)
    if answers.ext_link or answers.ext_set or answers.mmu_invalidate_retry or answers.contended or answers.pt_cmpxchg:
        if -EIO not in (answers.ext_link, answers.ext_set):
            settled += each(fault(state, vcpu, gpa, private, not prefetch, prefetch, Answers(), profile))
    return settled + _after_tries(state, vcpu, gpa, private, settled, answers)


def _after_tries(
    state: State, vcpu: int, gpa: int, private: bool, settled: tuple[Outcome, ...], answers: Answers
) -> tuple[Outcome, ...]:
    """The same with the tables that an earlier try had linked, before the world changed."""
    pair = state.vcpus[vcpu]
    if pair is None or NONE in pair or is_unmappable(state.config, gpa >> 12 & ~state.config.direct_bits):
        return ()
    index = pair[1] if state.config.mirror and private else pair[0]
    tries = interrupted(state, index, gpa >> 12 & ~state.config.direct_bits, answers)
    return tuple(
        replace(outcome, state=replace(tried.state, bugged=outcome.state.bugged or tried.state.bugged))
        for outcome in settled
        if outcome.state == state
        for tried in tries
    )


def _is_stuck(state: State, vcpu: int, gpa: int, answers: Answers) -> bool:
    """Whether repeating cannot help: the root is obsolete, or the slot is being deleted."""
    slot = slot_of(state, gpa >> 12 & ~state.config.direct_bits)
    deleted = slot is not None and bool(slot[3] & k.SLOT_INVALID)
    return is_obsolete(state, vcpu) or deleted or bool(answers.slot_invalid)


def prefault(state: State, op: Prefault, answers: Answers, profile: Profile) -> Outcomes:
    """Map one page ahead of time: bytes advanced, or -errno (TDP-103)."""
    wrong = _prefault_refusal(state, op)
    ends = tuple(End(-errno, because=clause, effect=clause) for errno, clause in wrong)
    if answers.signal_pending:
        ends += (End(-EINTR, because=c.PREFAULT_RESULTS),)
    no_memory = bool(answers.cache_topup or answers.page_alloc)
    if no_memory:
        ends += (End(-ENOMEM, because=c.ALLOCATION_BEFORE_LOCK),)
    if state.bugged:
        ends += (End(-EIO, because=c.BUSY_IS_NO_BUG),)
    early = Freedom(state, loading(op.vcpu), ends)
    refused = bool(wrong) and (op.flags or op.gpa + op.size != 2**64)
    if refused or no_memory or (state.bugged and not answers.killed):
        return early
    starts = (without_obsolete(state, op.vcpu), *loaded_in_vain(state, op.vcpu, answers))
    loaded = (with_roots(start, op.vcpu) for start in starts)
    return (*early, *(outcome for s in loaded for outcome in _prefaulted(s, op, answers, profile)))


def _prefaulted(loaded: State, op: Prefault, answers: Answers, profile: Profile) -> tuple[Outcome, ...]:
    """What comes of the fault that a prefault makes."""
    state, config = loaded, loaded.config
    gfn = op.gpa >> 12
    private = gfn in state.attributes
    gpa = op.gpa if private else op.gpa | config.direct_bits << 12
    outcomes: tuple[Outcome, ...] = ()
    for outcome in repeated_fault(loaded, op.vcpu, gpa, private, True, answers, profile):
        for advanced in prefault_results(outcome.result[0], private, _progress(outcome.state, op, private)):
            outcomes += (
                Outcome(
                    outcome.state, advanced, because=c.PREFAULT_RESULTS, effect=outcome.effect,
                    also=(outcome.because, *outcome.also),
                ),
            )  # fmt: skip
    if answers.attributes_changed:
        changed = (Outcome(loaded, -EFAULT, because=c.ATTRIBUTE_MISMATCH),)
        outcomes += changed
        for half in (True, False):
            outcomes += _after_tries(loaded, op.vcpu, op.gpa, half, changed, answers)
    return outcomes


def _prefault_refusal(state: State, op: Prefault) -> list[tuple[int, Clause]]:
    """Errors that come before any work, each with its clause; several where their order is open."""
    refusals = []
    malformed = op.flags or op.gpa & 4095 or op.size & 4095 or op.size == 0 or op.gpa + op.size >= 2**64
    if malformed or is_alias(state.config, op.gpa >> 12):
        refusals.append((EINVAL, c.PREFAULT_RESULTS))
    if state.td != k.TD_RUNNABLE and not state.config.early:
        refusals.append((EOPNOTSUPP, c.PREFAULT_AFTER_FINALIZE))
    return refusals


def _progress(state: State, op: Prefault, private: bool) -> tuple[int, ...]:
    """Bytes that one mapped page gives: its own, or up to the end of the huge leaf it is part of."""
    root = valid_root(state, private and state.config.mirror)
    leaf = None if root == NONE else covering_leaf(state.config, state.roots[root], op.gpa >> 12)
    end = op.gpa + 4096 if leaf is None else leaf[0] + state.config.cover(leaf[1]) << 12
    return tuple(dict.fromkeys((4096, min(op.size, end - op.gpa))))


def prefault_results(result: int, private: bool, progress: tuple[int, ...] = (4096,)) -> tuple[int, ...]:
    """What prefault makes of a fault's result."""
    if result in (k.RET_PF_FIXED, k.RET_PF_SPURIOUS, k.RET_PF_WRITE_PROTECTED):
        return progress
    if result == k.RET_PF_EMULATE:
        return (-ENOENT,)
    if result == -EFAULT and private:
        return (-EFAULT, -ENOENT)
    if result == k.RET_PF_RETRY:
        return (-EAGAIN,)
    return (result,)
