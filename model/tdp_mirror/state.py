"""The VM as the specification sees it: two maps, roots, slots, attributes, and the external tree."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

from conformance.model.tdp_mirror.operations import Config, Slot, Table
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror.constants import MEM_GUEST_MEMFD, MEM_LOG_DIRTY_PAGES, TD_INIT, TD_RUNNABLE

NONE = -1
"""No root."""

Leaf = tuple[int, int, str, bool]
"""gfn, level, source of the page, writable."""

GMEM_SOURCES = ("gmem", "gmem'")
HVA_SOURCES = ("hva", "hva'")
"""Each page has two places it may come from; an invalidation moves it to the other."""


PENDING, MAPPED, BLOCKED, PENDING_BLOCKED = "pending", "mapped", "blocked", "pending, blocked"
"""States of a leaf of the external tree."""
ExternalLeaf = tuple[int, int, str, str]
"""gfn, level, source of the page, state."""


@dataclass(frozen=True, slots=True)
class Gfns:
    """A set of gfns that may be as large as the address space: where it begins and ends, in turn."""

    edges: tuple[int, ...] = ()

    @classmethod
    def of(cls, *gfns: int) -> Gfns:
        """The set of these single gfns."""
        whole = cls()
        for gfn in gfns:
            whole = whole.with_range(gfn, gfn + 1, True)
        return whole

    def __contains__(self, gfn: int) -> bool:
        """Whether an odd number of edges lies at or below the gfn."""
        return bool(bisect_right(self.edges, gfn) & 1)

    def __xor__(self, other: Gfns) -> Gfns:
        """The gfns in one of the two."""
        return Gfns(tuple(sorted(set(self.edges) ^ set(other.edges))))

    def with_range(self, start: int, end: int, member: bool) -> Gfns:
        """The same with all of [start, end) in it, or none."""
        if start >= end:
            return self
        below, above = bool(bisect_left(self.edges, start) & 1), end in self
        return Gfns(
            (
                *(edge for edge in self.edges if edge < start),
                *((start,) if below != member else ()),
                *((end,) if above != member else ()),
                *(edge for edge in self.edges if edge > end),
            )
        )

    def has_all(self, start: int, end: int, member: bool) -> bool:
        """Whether all of [start, end) is in it, or none."""
        return self.with_range(start, end, member) == self

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of each run of gfns."""
        return tuple(zip(self.edges[::2], self.edges[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Root:
    """One root and what hangs below it."""

    mirror: bool
    invalid: bool = False
    scheduled: bool = False
    """Whether the MMU's own reference is still to be put after a zap."""
    tables: frozenset[Table] = frozenset()
    leaves: frozenset[Leaf] = frozenset()
    lost: bool = False
    """Whether the MMU's own reference was lost, by no act of the candidate."""
    shielded: frozenset[int] = frozenset()
    """First gfns of leaves that the fast path may not make writable."""


@dataclass(frozen=True, slots=True)
class State:
    """The VM as the specification sees it."""

    config: Config
    roots: tuple[Root, ...] = ()
    """In the order in which they were listed."""
    vcpus: tuple[tuple[int, int] | None, ...] = ()
    """Direct and mirror root of each vCPU, as places in `roots`; None while it does not exist."""
    obsolete: frozenset[int] = frozenset()
    """vCPUs asked to free obsolete roots."""
    attributes: Gfns = Gfns()
    """gfns that are PRIVATE."""
    slots: tuple[Slot, ...] = ()
    moved_hva: Gfns = Gfns()
    """gfns whose page of the host is at its second place."""
    moved_gmem: Gfns = Gfns()
    """gfns whose page of guest memory is at its second place."""
    ext_tables: frozenset[Table] = frozenset()
    ext_leaves: frozenset[ExternalLeaf] = frozenset()
    premapped: frozenset[int] = frozenset()
    td: int = TD_RUNNABLE
    hkid: bool = True
    leaked: int = 0
    bugged: bool = False
    corrupt: bool = False
    gone: bool = False
    stolen: bool = False
    """Whether the next put of a direct root is the last of one that is still valid."""


def initial(config: Config, _profile: Profile) -> State:
    """No vCPU, no root; slots and attributes as the configuration says."""
    return State(
        config=config,
        vcpus=(None,) * config.vcpus,
        attributes=Gfns.of(*config.private_gfns),
        slots=config.slots,
        td=TD_INIT if config.deep else TD_RUNNABLE,
    )


def is_loaded(state: State, vcpu: int) -> bool:
    """Whether a vCPU has a direct root."""
    pair = state.vcpus[vcpu]
    return pair is not None and pair[0] != NONE


def is_obsolete(state: State, vcpu: int) -> bool:
    """Whether the direct root of a vCPU is invalid."""
    pair = state.vcpus[vcpu]
    return pair is not None and pair[0] != NONE and state.roots[pair[0]].invalid


def is_direct(config: Config, gpa: int) -> bool:
    """Whether an address lies in the shared half; all do where there is one half."""
    return not config.direct_bits or bool(gpa >> 12 & config.direct_bits)


def is_alias(config: Config, gfn: int) -> bool:
    """Whether a gfn has the bit of the shared half."""
    return bool(gfn & config.direct_bits)


def has_alias(config: Config, first: int, last: int) -> bool:
    """Whether a gfn from first to last has the alias bit."""
    bits = config.direct_bits
    return bool(bits) and (bool((first | last) & bits) or last // bits != first // bits)


def is_unmappable(config: Config, gfn: int) -> bool:
    """Whether a gfn is beyond what the root level can name."""
    return gfn >= config.cover(config.levels + 1)


def slot_of(state: State, gfn: int) -> Slot | None:
    """The slot that a gfn lies in."""
    return next((slot for slot in state.slots if slot[1] <= gfn < slot[1] + slot[2]), None)


def slot_by_id(state: State, slot: int) -> Slot | None:
    """The slot of this id."""
    return next((s for s in state.slots if s[0] == slot), None)


def slot_range(state: State, slot: int) -> range:
    """The gfns of a slot that exists."""
    found = slot_by_id(state, slot)
    assert found is not None
    return range(found[1], found[1] + found[2])


def valid_root(state: State, mirror: bool) -> int:
    """Place of the valid root of a kind, or NONE."""
    for i, root in enumerate(state.roots):
        if root.mirror == mirror and not root.invalid:
            return i
    return NONE


def private_leaves(state: State) -> frozenset[Leaf]:
    """Leaves of the valid mirror root."""
    root = valid_root(state, True)
    return frozenset() if root == NONE else state.roots[root].leaves


def covering_leaf(config: Config, root: Root, gfn: int) -> Leaf | None:
    """The leaf under a root that maps a gfn."""
    return next((leaf for leaf in root.leaves if leaf[0] <= gfn < leaf[0] + config.cover(leaf[1])), None)


def overlaps(config: Config, leaf: Leaf, gfns: range) -> bool:
    """Whether a leaf covers any of the gfns."""
    return leaf[0] < gfns.stop and gfns.start < leaf[0] + config.cover(leaf[1])


def source(state: State, gfn: int, private: bool) -> str:
    """Where the page behind a gfn comes from now."""
    return ("gmem" if private else "hva") + "'" * (gfn in (state.moved_gmem if private else state.moved_hva))


def huge_fits(state: State, gfn: int) -> bool:
    """Whether a leaf of level 2 may cover a shared gfn: one slot, contiguous pages, one attribute."""
    config = state.config
    if not config.huge:
        return False
    start, count = config.base(gfn, 2), config.cover(2)
    slot = slot_of(state, gfn)
    if slot is None or start < slot[1] or start + count > slot[1] + slot[2]:
        return False
    moved = start in state.moved_hva
    return state.attributes.has_all(start, start + count, False) and state.moved_hva.has_all(
        start, start + count, moved
    )


def logs(state: State, gfn: int) -> bool:
    """Whether the slot of a gfn logs dirty pages, so that nothing huge may be made writable there (TDP-112)."""
    slot = slot_of(state, gfn)
    return slot is not None and bool(slot[3] & MEM_LOG_DIRTY_PAGES)


def references(state: State, index: int) -> int:
    """References that a root should have: of the MMU, and of each vCPU that loaded it."""
    root = state.roots[index]
    own = 1 if root.scheduled or not (root.invalid or root.lost) else 0
    return own + sum(index in pair for pair in state.vcpus if pair is not None)


def with_root(state: State, index: int, root: Root) -> State:
    """The state with one root replaced."""
    return replace(state, roots=(*state.roots[:index], root, *state.roots[index + 1 :]))


def linked(state: State, index: int, tables: list[Table] | tuple[Table, ...]) -> State:
    """The state with tables linked below a root, in the external tree too below a mirror."""
    if not tables:
        return state
    root = state.roots[index]
    state = with_root(state, index, replace(root, tables=root.tables | frozenset(tables)))
    return replace(state, ext_tables=state.ext_tables | frozenset(tables)) if root.mirror else state


def with_external(state: State, gfn: int, page: str, kind: str) -> State:
    """The state with a 4K leaf set in the external tree."""
    return replace(state, ext_leaves=state.ext_leaves | {(gfn, 1, page, kind)})


def moved(state: State, kind: str, start: int, end: int) -> State:
    """The pages of a range go to their other place."""
    pages = gfns_in_slots(state.slots, kind, start, end)
    if kind == "hva":
        return replace(state, moved_hva=state.moved_hva ^ pages)
    return replace(state, moved_gmem=state.moved_gmem ^ pages)


def gfns_in_slots(slots: tuple[Slot, ...], kind: str, start: int, end: int) -> Gfns:
    """The gfns of a range that have such pages behind them."""
    pages = Gfns()
    for _, base, npages, flags in slots:
        if kind == "hva" or flags & MEM_GUEST_MEMFD:
            pages = pages.with_range(max(start, base), min(end, base + npages), True)
    return pages
