"""Huge leaves split, tables recovered, and NX recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import combinations

from conformance.model.step import Outcome, Outcomes
from conformance.model.tdp_mirror.mapping import installed_huge, split_leaf
from conformance.model.tdp_mirror.operations import Answers, RecoverHuge, SplitHuge, Table, ZapSp
from conformance.model.tdp_mirror.state import (
    NONE,
    State,
    covering_leaf,
    huge_fits,
    overlaps,
    slot_range,
    valid_root,
    with_root,
)
from conformance.model.tdp_mirror.zapping import zap_root
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c

Change = Callable[[State, int, Table], State]
"""What becomes of one table below a root."""


def split_huge(state: State, op: SplitHuge, answers: Answers, _profile: Profile) -> Outcomes:
    """Huge shared leaves of the range become leaves of 4K; others, or want of memory, may leave a part of it undone."""
    index = valid_root(state, False)
    huge = [] if index == NONE else [leaf for leaf in state.roots[index].leaves if leaf[1] > 1]
    gfns = sorted(leaf[0] for leaf in huge if overlaps(state.config, leaf, range(op.start, op.end)))
    after = _split_all(state, index, gfns)
    done = Outcome(after, 0, because=c.SPLIT_COMPLETE, effect=c.SPLIT_COMPLETE, also=(c.MIRROR_UNTOUCHED,))
    short = answers.page_alloc and not answers.contended
    if not answers.page_alloc and not answers.contended and not answers.lock_dropped and not answers.pt_cmpxchg:
        return done
    most = len(gfns) - 1 if short and not answers.lock_dropped else len(gfns)
    parts = [part for n in range(most, -1, -1) for part in combinations(gfns, n)]
    tried = tuple(
        Outcome(_split_all(state, index, part), 0, because=c.ITERATOR_PUTS, effect=c.SPLIT_COMPLETE) for part in parts
    )
    return tried or Outcome(state, 0, because=c.ITERATOR_PUTS)


def _split_all(state: State, index: int, gfns: Iterable[int]) -> State:
    for gfn in gfns:
        state = split_leaf(state, index, gfn)
    return state


def recover_huge(state: State, op: RecoverHuge, _answers: Answers, _profile: Profile) -> Outcomes:
    """Tables of 4K leaves that could be one huge leaf may go, or lose their leaves, or become that leaf."""
    index = valid_root(state, False)
    same = Outcome(state, 0, because=c.SPLIT_COMPLETE, effect=c.SPLIT_COMPLETE, also=(c.MIRROR_UNTOUCHED,))
    if index == NONE or not state.config.huge:
        return same
    gfns = slot_range(state, op.slot)
    outcomes: tuple[Outcome, ...] = (same,)
    for table in sorted(state.roots[index].tables):
        if table[0] == 1 and table[1] in gfns and huge_fits(state, table[1]):
            outcomes += tuple(
                replace(o, state=change(o.state, index, table))
                for change in (_without_table, _without_leaves, *_merges(state, index, table))
                for o in outcomes
            )
    return outcomes


def _merges(state: State, index: int, table: Table) -> tuple[Change, ...]:
    """The huge leaf that a table of leaves could be, full or not: with the permissions of one of them.

    Where a page is protected for good none of them is lifted.
    """
    root = state.roots[index]
    small = [leaf for leaf in root.leaves if leaf[1] == 1 and state.config.base(leaf[0], 2) == table[1]]
    if not small or len({leaf[2] for leaf in small}) > 1:
        return ()
    permitted = {leaf[3] for leaf in small}
    if root.shielded & {leaf[0] for leaf in small}:
        permitted = {all(permitted)}
    return tuple(partial(_merged, writable) for writable in permitted)


def _merged(writable: bool, state: State, index: int, table: Table) -> State:
    """A table of leaves becomes one huge leaf."""
    after = installed_huge(state, index, table[1]).state
    root = after.roots[index]
    whole = covering_leaf(state.config, root, table[1])
    assert whole is not None
    return with_root(after, index, replace(root, leaves=root.leaves - {whole} | {(*whole[:3], writable)}))


def _without_leaves(state: State, index: int, table: Table) -> State:
    """The leaves of a table go, the table stays."""
    start = table[1]
    return zap_root(state, index, start, start + state.config.cover(2))


def _without_table(state: State, index: int, table: Table) -> State:
    """A table goes with all that hangs below it."""
    root = state.roots[index]
    level, base = table
    end = base + state.config.cover(level + 1)
    tables = frozenset(t for t in root.tables if not (t[0] <= level and base <= t[1] < end))
    leaves = frozenset(leaf for leaf in root.leaves if not (leaf[1] <= level and base <= leaf[0] < end))
    shielded = root.shielded & {leaf[0] for leaf in leaves}
    return with_root(state, index, replace(root, tables=tables, leaves=leaves, shielded=shielded))


def zap_sp(state: State, op: ZapSp, _answers: Answers, _profile: Profile) -> Outcomes:
    """NX recovery: a direct table goes; a mirror table is left alone (TDP-095)."""
    if op.mirror:
        return Outcome(state, 0, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    index = valid_root(state, False)
    after = _without_table(state, index, (op.level, op.gfn))
    return Outcome(after, 1, because=c.NX_RECOVERY_ZAPS, effect=c.NX_RECOVERY_ZAPS)
