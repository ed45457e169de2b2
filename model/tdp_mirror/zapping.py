"""Leaves removed from a range, and removals that the external tree refuses."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror.mapping import split_leaf
from conformance.model.tdp_mirror.operations import Answers, Unmap, ZapLeafs
from conformance.model.tdp_mirror.state import (
    BLOCKED,
    PENDING,
    PENDING_BLOCKED,
    ExternalLeaf,
    State,
    overlaps,
    with_root,
)
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import FILTER_PRIVATE, FILTER_SHARED


def zap(state: State, start: int, end: int, mirror: bool, direct: bool, invalid: bool) -> State:
    """Remove the leaves that overlap [start, end) from the chosen roots, and from the external tree."""
    if start >= end:
        return state
    config = state.config
    roots = []
    gone: set[int] = set()
    for listed in state.roots:
        root = listed
        if (mirror if root.mirror else direct) and (invalid or not root.invalid):
            hit = frozenset(leaf for leaf in root.leaves if leaf[0] < end and start < leaf[0] + config.cover(leaf[1]))
            if hit:
                if root.mirror:
                    gone |= {leaf[0] for leaf in hit}
                root = replace(root, leaves=root.leaves - hit, shielded=root.shielded - {leaf[0] for leaf in hit})
        roots.append(root)
    if tuple(roots) == state.roots:
        return state
    return replace(
        state,
        roots=tuple(roots),
        ext_leaves=frozenset(leaf for leaf in state.ext_leaves if leaf[0] not in gone),
        premapped=state.premapped - gone,
    )


def zaps(state: State, start: int, end: int, mirror: bool, direct: bool, invalid: bool) -> tuple[State, ...]:
    """What a zap may come to: huge leaves that lie in the range in part go as a whole, or are split first."""
    config = state.config
    ways: tuple[State, ...] = (state,)
    for index, root in enumerate(state.roots):
        if root.mirror or not direct or (root.invalid and not invalid):
            continue
        for leaf in root.leaves:
            inside = start <= leaf[0] and leaf[0] + config.cover(leaf[1]) <= end
            if leaf[1] > 1 and not inside and overlaps(config, leaf, range(start, end)):
                ways += tuple(split_leaf(way, index, leaf[0]) for way in ways)
    return tuple(zap(way, start, end, mirror, direct, invalid) for way in ways)


def zap_root(state: State, index: int, start: int, end: int) -> State:
    """Remove the leaves that overlap [start, end) from one direct root."""
    root = state.roots[index]
    gone = frozenset(leaf for leaf in root.leaves if overlaps(state.config, leaf, range(start, end)))
    shielded = root.shielded - {leaf[0] for leaf in gone}
    return with_root(state, index, replace(root, leaves=root.leaves - gone, shielded=shielded))


def _failed_removals(state: State, after: State, answers: Answers) -> Outcomes | None:
    """Outcomes of a zap during which one removal from the external tree failed: that page stays there."""
    if not answers.ext_remove and not answers.sept_failed:
        return None
    bugged = replace(after, bugged=True)
    also = (c.BUSY_RETRY_ONCE,) if answers.sept_failed else ()
    kept = [
        replace(bugged, ext_leaves=bugged.ext_leaves | {left})
        for leaf in state.ext_leaves - after.ext_leaves
        for left in ((leaf, _blocked(leaf)) if answers.sept_failed else (leaf,))
    ]
    kept += [replace(bugged, premapped=bugged.premapped | {gfn}) for gfn in state.premapped - after.premapped]
    if not answers.ext_remove:
        kept.append(bugged)  # the VM is lost, and what failed succeeded when it was tried again all the same
    clause = c.FAILED_REMOVE_KEEPS_PAGE
    return tuple(Outcome(s, 0, because=clause, effect=clause, also=also) for s in kept)


def _blocked(leaf: ExternalLeaf) -> ExternalLeaf:
    return (*leaf[:3], PENDING_BLOCKED if leaf[3] == PENDING else BLOCKED)


def zap_outcomes(state: State, after: State, answers: Answers, because: Clause, *also: Clause) -> Outcomes:
    """Outcomes of a zap that leads to `after`, save where a removal failed."""
    failed = _failed_removals(state, after, answers)
    return failed if failed is not None else Outcome(after, 0, because=because, effect=because, also=also)


def zap_leafs(state: State, op: ZapLeafs, answers: Answers, _profile: Profile) -> Outcomes:
    """A host event: shared leaves of the range; private ones should stay (TDP-096)."""
    bits = state.config.direct_bits
    if bits and op.start >= bits:
        return Outcome(state, 0, because=c.WALK_START_BOUND, effect=c.WALK_START_BOUND)
    spared = zaps(state, op.start, op.end, mirror=False, direct=True, invalid=False)
    outcomes = tuple(
        Outcome(s, 0, because=c.ZAP_EXACT, effect=c.ZAP_EXACT, also=(c.HOST_EVENTS_SPARE_PRIVATE,)) for s in spared
    )
    for before in spared:
        both = zap(before, op.start, op.end, mirror=True, direct=False, invalid=False)
        tolerated = zap_outcomes(before, both, answers, c.ZAP_EXACT) if both is not before else ()
        outcomes += tuple(replace(other, breaches=(c.HOST_EVENTS_SPARE_PRIVATE,)) for other in each(tolerated))
    return outcomes


def unmap(state: State, op: Unmap, answers: Answers, _profile: Profile) -> Outcomes:
    """The leaves of the filtered halves, invalid roots included (TDP-007, 080)."""
    config = state.config
    if config.mirror and not op.attr_filter:
        clause = c.EMPTY_FILTER_NOT_SILENT
        zapped = tuple(
            outcome
            for both in zaps(state, op.start, op.end, mirror=True, direct=True, invalid=True)
            for outcome in each(zap_outcomes(state, both, answers, clause))
        )
        chosen = (Outcome(state, 0, because=clause, effect=clause), *zapped)
        return (*chosen, *(replace(o, state=replace(o.state, bugged=True)) for o in chosen))
    if config.direct_bits and op.start >= config.direct_bits:
        return Outcome(state, 0, because=c.WALK_START_BOUND, effect=c.WALK_START_BOUND)
    mirror = bool(op.attr_filter & FILTER_PRIVATE)
    direct = not config.mirror or bool(op.attr_filter & FILTER_SHARED)
    outcomes: tuple[Outcome, ...] = ()
    for after in zaps(state, op.start, op.end, mirror, direct, invalid=True):
        outcomes += each(zap_outcomes(state, after, answers, c.ZAP_EXACT, *lost_by_invalid(state, after)))
    return outcomes


def lost_by_invalid(state: State, after: State) -> tuple[Clause, ...]:
    """TDP-007 is exercised when an invalid root had leaves to lose."""
    lost = any(r.invalid and r.leaves for r in state.roots)
    return (c.UNMAP_INCLUDES_INVALID,) if lost and after is not state else ()
