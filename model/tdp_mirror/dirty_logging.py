"""Write protection and dirty bits, of the shared half alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from conformance.model.step import Outcome, Outcomes
from conformance.model.tdp_mirror.operations import (
    Answers,
    ClearDirtyMasked,
    ClearDirtySlot,
    WriteProtectGfn,
    WrprotSlot,
)
from conformance.model.tdp_mirror.state import NONE, State, covering_leaf, overlaps, slot_range, valid_root, with_root
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import MAX_HUGE_LEVEL


def _protect(state: State, gfns: Iterable[range], levels: tuple[int, ...]) -> Outcomes:
    """Leaves of the valid direct root in the ranges become read-only; those of invalid roots may as well (TDP-109)."""
    clause = c.PROTECTION_COMPLETE
    states = dict.fromkeys(_protected(state, tuple(gfns), levels, wide) for wide in (False, True))
    return tuple(Outcome(s, 0, because=clause, effect=clause, also=(c.MIRROR_UNTOUCHED,)) for s in states)


def _protected(state: State, ranges: tuple[range, ...], levels: tuple[int, ...], wide: bool) -> State:
    config = state.config
    roots = []
    for root in state.roots:
        leaves = root.leaves
        if not root.mirror and (wide or not root.invalid):
            leaves = frozenset(
                (*leaf[:3], False)
                if leaf[1] in levels and any(overlaps(config, leaf, gfns) for gfns in ranges)
                else leaf
                for leaf in leaves
            )
        roots.append(root if leaves == root.leaves else replace(root, leaves=leaves))
    return replace(state, roots=tuple(roots))


def _from(level: int) -> tuple[int, ...]:
    return tuple(range(level, MAX_HUGE_LEVEL + 1))


def wrprot_slot(state: State, op: WrprotSlot, _answers: Answers, _profile: Profile) -> Outcomes:
    """Shared leaves of the slot, from a level on, become read-only; the mirror is not touched (TDP-095)."""
    return _protect(state, (slot_range(state, op.slot),), _from(op.level))


def clear_dirty_slot(state: State, _op: ClearDirtySlot, _answers: Answers, _profile: Profile) -> Outcomes:
    """Dirty bits only."""
    return Outcome(state, 0, because=c.PROTECTION_COMPLETE, effect=c.PROTECTION_COMPLETE, also=(c.MIRROR_UNTOUCHED,))


def clear_dirty_masked(state: State, op: ClearDirtyMasked, _answers: Answers, _profile: Profile) -> Outcomes:
    """Dirty or writable bits of the pages of 4K in the mask."""
    if not op.wrprot:
        return Outcome(
            state, 0, because=c.PROTECTION_COMPLETE, effect=c.PROTECTION_COMPLETE, also=(c.MIRROR_UNTOUCHED,)
        )
    gfns = (op.gfn + bit for bit in range(op.mask.bit_length()) if op.mask >> bit & 1)
    return _protect(state, (range(gfn, gfn + 1) for gfn in gfns), (1,))


def write_protect_gfn(state: State, op: WriteProtectGfn, _answers: Answers, _profile: Profile) -> Outcomes:
    """One page, if the level at which it is mapped is not below the one that is meant."""
    index = valid_root(state, False)
    if index != NONE:
        root = state.roots[index]
        leaf = covering_leaf(state.config, root, op.gfn)
        if leaf is not None and leaf[1] >= op.level:
            state = with_root(state, index, replace(root, shielded=root.shielded | {leaf[0]}))
    return _protect(state, (range(op.gfn, op.gfn + 1),), _from(op.level))
