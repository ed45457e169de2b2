"""Leaves and tables set under a root, in the external tree as well where the root is a mirror."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror.operations import Answers, TdpMap
from conformance.model.tdp_mirror.state import (
    MAPPED,
    NONE,
    PENDING,
    Leaf,
    State,
    covering_leaf,
    huge_fits,
    linked,
    logs,
    slot_of,
    source,
    with_external,
    with_root,
)
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    EFAULT,
    EINVAL,
    EIO,
    ENOMEM,
    RET_PF_FIXED,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    SLOT_INVALID,
    TD_INIT,
    TD_RUNNABLE,
)

_REFUSALS = (-EIO, -EFAULT, -EINVAL, RET_PF_RETRY)


def any_refusal(state: State, because: Clause, *, silently: bool = True) -> Outcomes:
    """Refused by one of several errors, with a VM bug or, where that is no matter, without; nothing else changed."""
    return tuple(
        Outcome(replace(state, bugged=bugged), (result, ()), because=because, effect=because)
        for result in _REFUSALS
        for bugged in ((True, False) if silently else (True,))
    )


def map_leaf(
    state: State,
    index: int,
    gfn: int,
    private: bool,
    write: bool,
    prefetch: bool,
    answers: Answers,
    profile: Profile,
    level: int = 1,
) -> Outcomes:
    """Install the leaf of a gfn under a root, or find it there."""
    config = state.config
    root = state.roots[index]
    leaf = covering_leaf(config, root, gfn)
    if root.mirror and leaf is not None and leaf[1] > 1:
        return any_refusal(state, c.MIRROR_NO_HUGE, silently=False)
    outcomes: tuple[Outcome, ...] = ()
    if leaf is None:
        outcomes = interrupted(state, index, gfn, answers)
        if not answers.ext_link and not answers.ext_set and not answers.pt_cmpxchg:
            writable = private or root.mirror or write or gfn not in config.readonly_gfns
            outcomes += _installed(state, index, gfn, private, profile, level, writable, write)
        return outcomes if len(outcomes) != 1 else outcomes[0]
    allowed = prefetch or not write or leaf[3]
    if answers.contended or answers.pt_cmpxchg:
        outcomes += tuple(
            Outcome(s, (RET_PF_RETRY, ()), because=c.FAULT_RESULT)
            for s in ((state, split_leaf(state, index, gfn)) if leaf[1] > level else (state,))
        )
    if allowed or leaf[1] == 1 or not logs(state, gfn):
        outcomes += (_permitted(state, index, leaf, allowed),)
    if leaf[1] > level:
        split = split_leaf(state, index, gfn)
        small = covering_leaf(config, split.roots[index], gfn)
        assert small is not None
        outcomes += (_permitted(split, index, small, allowed),)
        if not root.mirror:
            outcomes += each(
                map_leaf(_without(state, index, leaf), index, gfn, private, write, prefetch, answers, profile, level)
            )
    elif not root.mirror and not private and (leaf[1] == 1 or answers.split_beside) and huge_fits(state, gfn):
        outcomes += _huge(state, index, gfn, write)
    return outcomes if len(outcomes) != 1 else outcomes[0]


def _without(state: State, index: int, leaf: Leaf) -> State:
    """A huge leaf that is in the way is gone: faults bring its other pages back."""
    root = state.roots[index]
    return with_root(state, index, replace(root, leaves=root.leaves - {leaf}, shielded=root.shielded - {leaf[0]}))


def _permitted(state: State, index: int, leaf: Leaf, allowed: bool) -> Outcome:
    """A leaf that is there: SPURIOUS if it permits the access, FIXED when it is made to (TDP-068)."""
    if allowed:
        return Outcome(state, (RET_PF_SPURIOUS, ()), because=c.FAULT_RESULT, effect=c.FAULT_RESULT)
    root = state.roots[index]
    after = with_root(
        state,
        index,
        replace(root, leaves=root.leaves - {leaf} | {(*leaf[:3], True)}, shielded=root.shielded - {leaf[0]}),
    )
    return Outcome(after, (RET_PF_FIXED, ()), because=c.FAULT_RESULT, effect=c.FAULT_RESULT)


def interrupted(state: State, index: int, gfn: int, answers: Answers) -> tuple[Outcome, ...]:
    """RETRY after some of the missing tables were linked, because the external tree or another thread said no."""
    hard = -EIO in (answers.ext_link, answers.ext_set)
    reason = answers.ext_link or answers.ext_set or answers.contended or answers.pt_cmpxchg or answers.killed
    if not reason:
        return ()
    because = c.BUSY_IS_NO_BUG if answers.ext_link or answers.ext_set else c.FAULT_RESULT
    missing = [table for table in state.config.path(gfn, 1) if table not in state.roots[index].tables]
    least = len(missing) if answers.ext_set and not answers.ext_link else 0
    most = len(missing) - 1 if answers.ext_link and not answers.ext_set else len(missing)
    return tuple(
        Outcome(
            replace(linked(state, index, missing[:n]), bugged=state.bugged or hard),
            (RET_PF_RETRY, ()),
            because=because,
            effect=c.FAILED_EXTERNAL_RESTORES,
            also=(c.FAILED_EXTERNAL_RESTORES,) if because is c.BUSY_IS_NO_BUG else (),
        )
        for n in range(least, most + 1)
    )


def _installed(
    state: State, index: int, gfn: int, private: bool, profile: Profile, level: int, writable: bool, write: bool
) -> tuple[Outcome, ...]:
    config = state.config
    mirror = state.roots[index].mirror
    also = (c.ROOT_BY_ADDRESS, c.BUILD_TOP_DOWN) if mirror else (c.ROOT_BY_ADDRESS,)
    outcomes: tuple[Outcome, ...] = ()
    if level == 1 or (not mirror and (1, config.base(gfn, 2)) in state.roots[index].tables):
        after = linked(split_leaf(state, index, gfn), index, config.path(gfn, 1))
        leaf = (gfn, 1, source(state, gfn, private), writable)
        root = after.roots[index]
        kept = frozenset(old for old in root.leaves if old[0] != gfn)
        shielded = root.shielded - {gfn} if writable else root.shielded | {gfn}
        after = with_root(after, index, replace(root, leaves=kept | {leaf}, shielded=shielded))
        if mirror:
            after = _in_external(after, gfn, leaf[2], profile)
        outcomes = (Outcome(after, (RET_PF_FIXED, ()), because=c.FAULT_RESULT, also=also),)
    if not mirror and not private and huge_fits(state, gfn):
        outcomes += _huge(state, index, gfn, write)
    return outcomes


def or_more(outcomes: Outcomes, index: int, gfn: int, answers: Answers) -> Outcomes:
    """What follows when a leaf is installed or found; of a direct root's table more may be mapped along."""
    if not answers.along:
        return outcomes
    alone = each(outcomes)
    done = (o for o in alone if o.result[0] in (RET_PF_FIXED, RET_PF_SPURIOUS) and not o.state.roots[index].mirror)
    return (*alone, *(_along(outcome, index, gfn, answers.along) for outcome in done))


def _along(fixed: Outcome, index: int, gfn: int, places: int) -> Outcome:
    """What else of a table a shared fault may map: what the host has, where the guest would be given it."""
    state, config = fixed.state, fixed.state.config
    base = config.base(gfn, 2)
    for i in range(places.bit_length()):
        near, root = base + i, state.roots[index]
        slot = slot_of(state, near)
        if not places >> i & 1 or slot is None or slot[3] & SLOT_INVALID or near in state.attributes:
            continue
        if (1, base) in root.tables and covering_leaf(config, root, near) is None:
            writable = near not in config.readonly_gfns
            leaf = (near, 1, source(state, near, False), writable)
            shielded = root.shielded - {near} if writable else root.shielded | {near}
            state = with_root(state, index, replace(root, leaves=root.leaves | {leaf}, shielded=shielded))
    return replace(fixed, state=state)


def _huge(state: State, index: int, gfn: int, write: bool) -> tuple[Outcome, ...]:
    """The huge leaf that a fault may make: where dirty pages are logged, for a read alone, and not writable."""
    if not logs(state, gfn):
        return (installed_huge(state, index, gfn),)
    return () if write else (installed_huge(state, index, gfn, writable=False),)


def split_leaf(state: State, index: int, gfn: int) -> State:
    """Break a huge leaf in the way into leaves of 4K."""
    config = state.config
    root = state.roots[index]
    leaf = covering_leaf(config, root, gfn)
    if leaf is None or leaf[1] == 1:
        return state
    gfns = range(leaf[0], leaf[0] + config.cover(leaf[1]))
    small = frozenset((g, 1, leaf[2], leaf[3]) for g in gfns)
    shielded = root.shielded | frozenset(gfns) if leaf[0] in root.shielded else root.shielded - frozenset(gfns)
    tables = root.tables | {(1, leaf[0])}
    return with_root(state, index, replace(root, leaves=root.leaves - {leaf} | small, tables=tables, shielded=shielded))


def installed_huge(state: State, index: int, gfn: int, *, writable: bool = True) -> Outcome:
    """The leaf of level 2 that a shared gfn may get."""
    config = state.config
    base = config.base(gfn, 2)
    after = linked(state, index, config.path(gfn, 2))
    root = after.roots[index]
    leaves = frozenset(leaf for leaf in root.leaves if not base <= leaf[0] < base + config.cover(2))
    leaf = (base, 2, source(state, base, False), writable)
    shielded = frozenset(g for g in root.shielded if not base <= g < base + config.cover(2))
    root = replace(root, leaves=leaves | {leaf}, tables=root.tables - {(1, base)}, shielded=shielded)
    return Outcome(
        with_root(after, index, root), (RET_PF_FIXED, ()), because=c.FAULT_RESULT,
        also=(c.ROOT_BY_ADDRESS, c.STRADDLING_HUGE),
    )  # fmt: skip


def _in_external(state: State, gfn: int, page: str, profile: Profile) -> State:
    if state.td == TD_INIT and profile.premapped:
        return replace(state, premapped=state.premapped | {gfn})
    return with_external(state, gfn, page, PENDING if state.td == TD_RUNNABLE else MAPPED)


def tdp_map(state: State, op: TdpMap, answers: Answers, profile: Profile) -> Outcomes:
    """Install one leaf; a mirror takes none above 4K, and needs to be there (TDP-057, 024)."""
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    gfn = op.gpa >> 12 & ~state.config.direct_bits
    index = pair[1] if op.private else pair[0]
    if index == NONE:
        return any_refusal(state, c.MIRROR_BEFORE_DIRECT)
    if op.private and op.level > 1:
        found = covering_leaf(state.config, state.roots[index], gfn)
        refused = any_refusal(state, c.MIRROR_4K_ONLY)
        if found is None:
            return refused
        also = Outcome(state, (RET_PF_SPURIOUS, ()), because=c.MIRROR_4K_ONLY, effect=c.MIRROR_NO_HUGE)
        return (*each(refused), also)
    if answers.cache_topup or answers.page_alloc:
        return Outcome(state, (-ENOMEM, ()), because=c.ALLOCATION_BEFORE_LOCK)
    mapped = map_leaf(state, index, gfn, op.private, True, False, answers, profile, op.level)
    return or_more(mapped, index, gfn, answers)
