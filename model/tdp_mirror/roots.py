"""Roots: loaded, dropped, invalidated, counted, and chosen by type."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.freedom import End, Freedom, Part
from conformance.model.matchers import OneOf
from conformance.model.step import Outcome, Outcomes
from conformance.model.tdp_mirror.operations import (
    AddrIsDirect,
    Answers,
    FilterToTypes,
    FreeObsoleteRoots,
    GfnIsAlias,
    InvalidateRoots,
    MmuReload,
    MmuUnload,
    RootMatch,
    SelectRoot,
    StealReference,
    VcpuCreate,
    VcpuDestroy,
    VmUninit,
    ZapAll,
    ZapAllFast,
    ZapInvalidated,
)
from conformance.model.tdp_mirror.state import (
    NONE,
    Root,
    State,
    is_alias,
    is_direct,
    is_loaded,
    references,
    valid_root,
    with_root,
)
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    ENOMEM,
    FILTER_PRIVATE,
    FILTER_SHARED,
    MIRROR_ROOTS,
    TYPE_VALIDITY,
)


def _collect(state: State) -> State:
    """Roots that nobody holds any more leave the list."""
    for index in range(len(state.roots) - 1, -1, -1):
        if references(state, index) == 0 and not state.roots[index].lost:
            state = _without(state, index)
    return state


def _without(state: State, index: int) -> State:
    """One root leaves the list; those behind it move up."""
    return replace(
        state,
        roots=state.roots[:index] + state.roots[index + 1 :],
        vcpus=tuple(
            None if pair is None else (pair[0] - (pair[0] > index), pair[1] - (pair[1] > index)) for pair in state.vcpus
        ),
    )


def _set_vcpu(state: State, vcpu: int, pair: tuple[int, int] | None) -> State:
    return replace(state, vcpus=(*state.vcpus[:vcpu], pair, *state.vcpus[vcpu + 1 :]))


def _drop_direct(state: State, vcpu: int, only_invalid: bool) -> State:
    pair = state.vcpus[vcpu]
    assert pair is not None
    if pair[0] == NONE or (only_invalid and not state.roots[pair[0]].invalid):
        return state
    return _collect(_set_vcpu(state, vcpu, (NONE, pair[1])))


def _empty_roots(state: State, chosen: frozenset[int]) -> State:
    """Nothing is left below the chosen roots."""
    roots = tuple(
        Root(root.mirror, root.invalid, root.scheduled) if i in chosen else root for i, root in enumerate(state.roots)
    )
    return replace(state, roots=roots)


def vcpu_create(state: State, op: VcpuCreate, _answers: Answers, _profile: Profile) -> Outcomes:
    """A vCPU without roots."""
    return Outcome(
        replace(_set_vcpu(state, op.vcpu, (NONE, NONE)), obsolete=state.obsolete - {op.vcpu}),
        0,
        because=c.MIRROR_BEFORE_DIRECT,
    )


def vcpu_destroy(state: State, op: VcpuDestroy, _answers: Answers, _profile: Profile) -> Outcomes:
    """Put both references, the mirror's exactly once (TDP-028)."""
    return Outcome(
        _collect(_set_vcpu(state, op.vcpu, None)), 0, because=c.DESTROY_PUTS_MIRROR, also=(c.ROOT_REFERENCES,)
    )


def mmu_unload(state: State, op: MmuUnload, _answers: Answers, _profile: Profile) -> Outcomes:
    """The direct root goes, the mirror root stays (TDP-027)."""
    if state.stolen and state.vcpus[op.vcpu] is not None and is_loaded(state, op.vcpu):
        return _final_put(state, op.vcpu)
    return Outcome(
        _drop_direct(state, op.vcpu, False),
        0,
        because=c.MIRROR_SURVIVES_UNLOAD,
        also=(c.ROOT_REFERENCES,),
    )


def _final_put(state: State, vcpu: int) -> Outcomes:
    """The last reference of a root that is still valid: a VM bug, whatever becomes of the root (TDP-033)."""
    pair = state.vcpus[vcpu]
    assert pair is not None
    kept = replace(_set_vcpu(state, vcpu, (NONE, pair[1])), bugged=True, stolen=False)
    return tuple(
        Outcome(after, 0, because=c.FINAL_PUT_OF_VALID, effect=c.FINAL_PUT_OF_VALID)
        for after in (_without(kept, pair[0]), kept)
    )


def free_obsolete_roots(state: State, op: FreeObsoleteRoots, _answers: Answers, _profile: Profile) -> Outcomes:
    """The direct root goes if it is invalid."""
    return Outcome(_drop_direct(state, op.vcpu, True), 0, because=c.MIRROR_SURVIVES_UNLOAD)


def mmu_reload(state: State, op: MmuReload, answers: Answers, _profile: Profile) -> Outcomes:
    """Free obsolete roots if requested, then load what is missing (TDP-039, 021, 025)."""
    if answers.cache_topup or answers.page_alloc:
        clause = c.ALLOCATION_BEFORE_LOCK
        refused = End(-ENOMEM, because=clause, effect=clause, before=("loaded",))
        vain = loaded_in_vain(state, op.vcpu, answers)
        outcomes = Freedom(state, loading(op.vcpu), (refused,))
        return (*outcomes, *(Outcome(s, -ENOMEM, because=clause, effect=clause) for s in vain)) if vain else outcomes
    freed = without_obsolete(state, op.vcpu)
    loaded = Outcome(with_roots(freed, op.vcpu), 0, because=c.RELOAD_FREES_OBSOLETE, also=_load_clauses(freed, op.vcpu))
    if not answers.invalidated:
        return loaded
    starts = (freed, *loaded_in_vain(state, op.vcpu, answers))
    return tuple(replace(loaded, state=with_roots(start, op.vcpu)) for start in starts)


def loaded_in_vain(state: State, vcpu: int, answers: Answers) -> tuple[State, ...]:
    """The states after a vCPU has made direct roots that were invalidated before it could use them.

    It puts each, and may load once more. Whether it looks for the request again is open.
    """
    freed = without_obsolete(state, vcpu)
    pair = freed.vcpus[vcpu]
    if not answers.invalidated or pair is None or pair[0] != NONE or valid_root(freed, False) != NONE:
        return ()
    after: tuple[State, ...] = ()
    for _ in range(answers.invalidated):
        freed = _drop_direct(_invalidated(with_roots(freed, vcpu)), vcpu, True)
        after += (freed, replace(freed, obsolete=freed.obsolete | state.obsolete & {vcpu}))
    return after


def loading(vcpu: int) -> tuple[Part, ...]:
    """What a vCPU does before it maps: it frees obsolete roots if that is requested, and loads what is missing.

    Neither does harm to whoever then finds that there is nothing to map.
    """
    return (
        Part("freed", lambda state: without_obsolete(state, vcpu)),
        Part("loaded", lambda state: with_roots(state, vcpu), after=("freed",)),
    )


def without_obsolete(state: State, vcpu: int) -> State:
    """The state after a vCPU that was asked to has freed its obsolete root."""
    if vcpu in state.obsolete:
        return replace(_drop_direct(state, vcpu, True), obsolete=state.obsolete - {vcpu})
    return state


def _load_clauses(state: State, vcpu: int) -> tuple[Clause, ...]:
    pair = state.vcpus[vcpu]
    assert pair is not None
    if pair[0] != NONE:
        return ()
    clauses: tuple[Clause, ...] = (c.ROOT_REFERENCES, c.ONE_ROOT_PER_ROLE)
    if valid_root(state, False) == NONE:
        clauses += (c.NEW_ROOT_REFERENCES,)
    else:
        clauses += (c.ROOT_REUSED,)
    if state.config.mirror:
        clauses += (c.MIRROR_BEFORE_DIRECT, c.ONE_MIRROR_ROOT)
        if pair[1] != NONE:
            clauses += (c.MIRROR_ONLY_ONCE,)
    return clauses


def with_roots(state: State, vcpu: int) -> State:
    """Take a reference to a mirror root, if none is held, then to a direct root."""
    pair = state.vcpus[vcpu]
    assert pair is not None
    direct, mirror = pair
    if direct != NONE:
        return state
    if state.config.mirror and mirror == NONE:
        mirror = valid_root(state, True)
        if mirror == NONE:
            mirror = len(state.roots)
            state = replace(state, roots=(*state.roots, Root(mirror=True)))
    direct = valid_root(state, False)
    if direct == NONE or not references(state, direct):
        direct = len(state.roots)
        state = replace(state, roots=(*state.roots, Root(mirror=False)))
    return _set_vcpu(state, vcpu, (direct, mirror))


def invalidate_roots(state: State, op: InvalidateRoots, _answers: Answers, _profile: Profile) -> Outcomes:
    """Valid direct roots become invalid and are scheduled; the INVALID bit adds nothing (TDP-009)."""
    because = c.INVALIDATE_IGNORES_INVALID_BIT if op.types & TYPE_VALIDITY else c.SCHEDULED_ONCE
    after = _invalidated(state) if op.types & DIRECT_ROOTS else state
    return Outcome(
        replace(after, obsolete=_everybody(state)),
        0,
        because=because,
        effect=because,
        also=(c.ONE_MIRROR_ROOT, c.SCHEDULED_ONCE),
    )


def _everybody(state: State) -> frozenset[int]:
    return frozenset(i for i, pair in enumerate(state.vcpus) if pair is not None)


def _invalidated(state: State) -> State:
    roots = tuple(
        root if root.mirror or root.invalid else replace(root, invalid=True, scheduled=True) for root in state.roots
    )
    return replace(state, roots=roots)


def _zap_scheduled(state: State) -> State:
    chosen = frozenset(i for i, root in enumerate(state.roots) if root.scheduled)
    state = _empty_roots(state, chosen)
    return _collect(replace(state, roots=tuple(replace(root, scheduled=False) for root in state.roots)))


def zap_invalidated(state: State, _op: ZapInvalidated, _answers: Answers, _profile: Profile) -> Outcomes:
    """Scheduled roots are emptied and the MMU's reference put once (TDP-032)."""
    return Outcome(
        _zap_scheduled(state),
        0,
        because=c.SCHEDULED_ONCE,
        effect=c.SCHEDULED_ONCE,
        also=(c.ZAP_WHOLE_ROOT,) if any(root.scheduled and root.leaves for root in state.roots) else (),
    )


def zap_all_fast(state: State, _op: ZapAllFast, _answers: Answers, _profile: Profile) -> Outcomes:
    """Only direct roots (TDP-030)."""
    after = _zap_scheduled(_invalidated(state))
    return Outcome(
        replace(after, obsolete=_everybody(state)),
        0,
        because=c.FAST_ZAP_DIRECT,
        effect=c.FAST_ZAP_DIRECT,
        also=(c.ONE_MIRROR_ROOT, c.ZAP_WHOLE_ROOT) if valid_root(state, True) != NONE else (c.ZAP_WHOLE_ROOT,),
    )


def zap_all(state: State, _op: ZapAll, _answers: Answers, _profile: Profile) -> Outcomes:
    """Every direct root, valid or not; never a mirror (TDP-035)."""
    direct = frozenset(i for i, root in enumerate(state.roots) if not root.mirror)
    return Outcome(_empty_roots(state, direct), 0, because=c.ZAP_ALL_DIRECT, effect=c.ZAP_ALL_DIRECT)


def vm_uninit(state: State, _op: VmUninit, answers: Answers, _profile: Profile) -> Outcomes:
    """Nothing is left, save pages leaked because the firmware did not give them back (TDP-036, 078)."""
    leaked = state.leaked + (1 if answers.ext_free or answers.tdh_phymem_page_reclaim else 0)
    after = replace(
        state, roots=(), ext_tables=frozenset(), ext_leaves=frozenset(), gone=True, leaked=leaked,
        premapped=frozenset(), bugged=state.bugged or leaked > state.leaked,
    )  # fmt: skip
    because = c.FAILED_FREE_LEAKS if leaked > state.leaked else c.UNINIT_COMPLETE
    return Outcome(after, 0, because=because, effect=because)


def root_match(state: State, op: RootMatch, _answers: Answers, profile: Profile) -> Outcomes:
    """The truth table of 8 types by 4 roots."""
    kind = op.types & (MIRROR_ROOTS if op.mirror else DIRECT_ROOTS)
    if not op.types & (MIRROR_ROOTS | DIRECT_ROOTS):
        return Outcome(state, 0, because=c.MATCH_NEEDS_KIND)
    validity = bool(op.types & TYPE_VALIDITY)
    if profile.bit0_is_valid:
        return Outcome(state, int(bool(kind) and not (validity and op.invalid)), because=c.MATCH_VALID_BIT)
    return Outcome(state, int(bool(kind) and (validity or not op.invalid)), because=c.MATCH_INVALID_WITH_KIND)


def filter_to_types(state: State, op: FilterToTypes, _answers: Answers, _profile: Profile) -> Outcomes:
    """DIRECT for all without a mirror; else by half."""
    if not state.config.mirror:
        return Outcome(state, DIRECT_ROOTS, because=c.FILTER_TO_TYPES)
    types = 0
    if op.attr_filter & FILTER_PRIVATE:
        types |= MIRROR_ROOTS
    if op.attr_filter & FILTER_SHARED:
        types |= DIRECT_ROOTS
    return Outcome(state, types, because=c.FILTER_TO_TYPES)


def select_root(state: State, op: SelectRoot, _answers: Answers, _profile: Profile) -> Outcomes:
    """Place of the vCPU's mirror root for MIRROR without DIRECT, of its direct root otherwise.

    Where there are no mirrors the first is whatever `mirror_root_hpa` says, or the only root there is.
    """
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    if op.types & MIRROR_ROOTS and not op.types & DIRECT_ROOTS:
        if state.config.mirror:
            return Outcome(state, pair[1], because=c.SELECT_MIRROR)
        return Outcome(state, OneOf(frozenset({NONE, pair[0]})), because=c.SELECT_MIRROR)
    if not op.types & (MIRROR_ROOTS | DIRECT_ROOTS):
        return Outcome(state, OneOf(frozenset({NONE, pair[0]})), because=c.SELECT_MIRROR)
    return Outcome(state, pair[0], because=c.SELECT_MIRROR)


def addr_is_direct(state: State, op: AddrIsDirect, _answers: Answers, _profile: Profile) -> Outcomes:
    """One bit of the address tells (TDP-011)."""
    return Outcome(state, int(is_direct(state.config, op.gpa)), because=c.ADDR_IS_DIRECT)


def gfn_is_alias(state: State, op: GfnIsAlias, _answers: Answers, _profile: Profile) -> Outcomes:
    """The same bit of a gfn, where there are two halves."""
    return Outcome(state, int(is_alias(state.config, op.gfn)), because=c.ADDR_IS_DIRECT)


def steal_reference(state: State, _op: StealReference, _answers: Answers, _profile: Profile) -> Outcomes:
    """Corruption, not an act of the candidate."""
    index = valid_root(state, False)
    robbed = with_root(state, index, replace(state.roots[index], lost=True))
    return Outcome(replace(robbed, stolen=True), 0, because=c.ROOT_REFERENCES)
