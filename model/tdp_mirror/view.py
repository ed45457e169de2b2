"""What can be observed from outside, and which clause a difference breaks."""

from __future__ import annotations

from typing import Any, NamedTuple

from conformance.model.step import Labels
from conformance.model.tdp_mirror.operations import (
    EptViolation,
    FreeObsoleteRoots,
    HvaInvalidate,
    InitRegion,
    InSlot,
    InvalidateRoots,
    MmuReload,
    MmuUnload,
    PageFault,
    Prefault,
    SetAttributes,
    Slot,
    SplitHuge,
    Table,
    TdpMap,
    Unmap,
    VcpuDestroy,
    ZapAllFast,
    ZapInvalidated,
    ZapLeafs,
    ZapSp,
)
from conformance.model.tdp_mirror.state import NONE, ExternalLeaf, Leaf, State, is_direct, references, slot_of
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c


class View(NamedTuple):
    """What can be observed: the meaning of the page tables, of the external tree, and who holds which root."""

    private: frozenset[tuple[int, int, str]]
    """Leaves of the valid mirror root: gfn, level, source."""
    shared: frozenset[Leaf]
    """Leaves of the valid direct root."""
    old: tuple[frozenset[Leaf], ...]
    """Leaves of each invalid root."""
    external: tuple[frozenset[Table], frozenset[ExternalLeaf]]
    """Tables and leaves of the external tree."""
    tables: tuple[frozenset[Table], frozenset[Table]]
    """Linked tables below the valid mirror root, and below the valid direct root."""
    roots: tuple[tuple[bool, bool, int], ...]
    """Mirror, invalid, references: of each listed root."""
    vcpus: tuple[tuple[int, int] | None, ...]
    """Direct and mirror root of each vCPU, as places in `roots`."""
    attributes: tuple[tuple[int, int], ...]
    """Runs of gfns that are PRIVATE."""
    slots: frozenset[Slot]
    td: int
    """State of the TD."""
    leaked: int
    bugged: bool


VIEW_CLAUSES: dict[str, Clause] = {
    "private": c.ROOT_BY_ADDRESS,
    "shared": c.ROOT_BY_ADDRESS,
    "old": c.ZAP_EXACT,
    "external": c.FREEZE_EXTERNAL_PUBLISH,
    "roots": c.ROOT_REFERENCES,
    "vcpus": c.MIRROR_SURVIVES_UNLOAD,
    "tables": c.ZAP_EXACT,
    "attributes": c.CONVERSION_ZAPS_OLD,
    "slots": c.GMEM_SLOT_FLAGS,
    "td": c.PREFAULT_AFTER_FINALIZE,
    "leaked": c.FAILED_FREE_LEAKS,
    "bugged": c.BUSY_IS_NO_BUG,
}

VIEW_LABELS: dict[str, Labels] = {
    "old": ("invalid root no. {}",),
    "external": (("tables", "leaves"),),
    "tables": (("below the mirror root", "below the direct root"),),
    "roots": ("root {}", ("mirror", "invalid", "references")),
    "vcpus": ("vCPU {}", ("direct root", "mirror root")),
}
"""What the parts of its fields are called."""

_MAPPING = (PageFault, TdpMap, Prefault, EptViolation, InitRegion)

_CITES: dict[tuple[type, str], Clause] = {
    (HvaInvalidate, "private"): c.HVA_SHARED_ONLY,
    (HvaInvalidate, "external"): c.HVA_SHARED_ONLY,
    (HvaInvalidate, "old"): c.UNMAP_INCLUDES_INVALID,
    (Unmap, "old"): c.UNMAP_INCLUDES_INVALID,
    (ZapLeafs, "private"): c.HOST_EVENTS_SPARE_PRIVATE,
    (MmuReload, "roots"): c.ROOT_REFERENCES,
    (MmuReload, "shared"): c.RELOAD_FREES_OBSOLETE,
    (MmuReload, "old"): c.RELOAD_FREES_OBSOLETE,
    (MmuReload, "tables"): c.RELOAD_FREES_OBSOLETE,
    (MmuReload, "vcpus"): c.RELOAD_FREES_OBSOLETE,
    (ZapAllFast, "private"): c.MIRROR_SURVIVES_UNLOAD,
    (InvalidateRoots, "roots"): c.ONE_MIRROR_ROOT,
    (SetAttributes, "old"): c.UNMAP_INCLUDES_INVALID,
    (SetAttributes, "attributes"): c.CONVERSION_ZAPS_OLD,
    (ZapAllFast, "roots"): c.FAST_ZAP_DIRECT,
    (VcpuDestroy, "roots"): c.DESTROY_PUTS_MIRROR,
    (MmuUnload, "roots"): c.MIRROR_SURVIVES_UNLOAD,
    (FreeObsoleteRoots, "roots"): c.MIRROR_SURVIVES_UNLOAD,
    (SplitHuge, "roots"): c.ITERATOR_PUTS,
}


def cite(state: State, op: Any, field: str, expected: Any, got: Any) -> Clause | None:
    """Name the clause on what this operation must spare."""
    if isinstance(op, MmuReload) and _lost_mirror(state, got):
        return c.MIRROR_SURVIVES_UNLOAD
    if isinstance(op, MmuReload | Prefault | InitRegion) and field == "roots":
        return _cite_load(state, expected.roots, got.roots)
    if isinstance(op, ZapInvalidated | ZapAllFast) and field in ("old", "tables"):
        return c.ZAP_WHOLE_ROOT if len(expected.old) == len(got.old) else c.SCHEDULED_ONCE
    if isinstance(op, PageFault) and state.config.mirror and op.private == is_direct(state.config, op.gpa):
        return c.HALVES_DISAGREE
    if isinstance(op, InSlot | ZapSp) and (
        field in ("private", "external") or (field == "tables" and expected.tables[0] != got.tables[0])
    ):
        return c.MIRROR_UNTOUCHED
    if field == "shared" and isinstance(op, _MAPPING) and _only_writable(expected.shared, got.shared):
        return c.FAULT_RESULT
    if field == "shared" and isinstance(op, _MAPPING):
        return _cite_huge(state, got.shared - expected.shared)
    if field == "bugged" and (got.bugged or (isinstance(op, _MAPPING) and not state.corrupt)):
        return c.BUSY_IS_NO_BUG
    return _CITES.get((type(op), field))


def _lost_mirror(state: State, got: View) -> bool:
    """Whether a vCPU has no mirror root any more."""
    pairs = zip(state.vcpus, got.vcpus, strict=True)
    return any(was is not None and now is not None and was[1] != NONE and now[1] == NONE for was, now in pairs)


def _only_writable(expected: frozenset[Leaf], got: frozenset[Leaf]) -> bool:
    """Whether leaves differ in nothing but whether they may be written."""
    return {leaf[:3] for leaf in expected} == {leaf[:3] for leaf in got}


def _cite_huge(state: State, leaves: frozenset[Leaf]) -> Clause | None:
    """What a huge leaf covers that is not like the page it was made for: it has no slot, or is private."""
    for leaf in leaves:
        gfns = range(leaf[0], leaf[0] + state.config.cover(leaf[1]))
        if len({slot_of(state, gfn) for gfn in (gfns[0], gfns[-1])}) > 1:
            return c.NO_BACKING
        if leaf[1] > 1 and any(gfn in state.attributes for gfn in gfns):
            return c.STRADDLING_HUGE
    return None


def _cite_load(state: State, expected: tuple[Any, ...], got: tuple[Any, ...]) -> Clause:
    """A load that went wrong: too many roots, an invalid one kept, a new or a mirror root with a wrong count."""
    if len(got) > len(expected):
        return c.ROOT_REUSED
    wrong = [n for n, (want, have) in enumerate(zip(expected, got, strict=False)) if want != have]
    if any(root[1] and root not in expected for root in got):
        return c.RELOAD_FREES_OBSOLETE
    if wrong and wrong[0] >= len(state.roots):
        return c.NEW_ROOT_REFERENCES
    if wrong and got[wrong[0]][0] and wrong[0] < len(state.roots) and got[wrong[0]][2] > expected[wrong[0]][2]:
        return c.MIRROR_ONLY_ONCE
    return c.ROOT_REFERENCES


_NO_LEAVES: frozenset[Leaf] = frozenset()
_NO_TABLES: frozenset[Table] = frozenset()


def view(state: State) -> View:
    """The refinement: what the state looks like from outside."""
    private: frozenset[tuple[int, int, str]] = frozenset()
    shared, old = _NO_LEAVES, []
    mirror_tables = direct_tables = _NO_TABLES
    roots = []
    for index, root in enumerate(state.roots):
        roots.append((root.mirror, root.invalid, references(state, index)))
        if root.invalid:
            old.append(root.leaves)
        elif root.mirror:
            private = frozenset(leaf[:3] for leaf in root.leaves)
            mirror_tables = root.tables
        else:
            shared, direct_tables = root.leaves, root.tables
    return View(
        private,
        shared,
        tuple(old),
        (state.ext_tables, state.ext_leaves),
        (mirror_tables, direct_tables),
        tuple(roots),
        state.vcpus,
        state.attributes.ranges(),
        frozenset(state.slots),
        state.td,
        state.leaked,
        state.bugged,
    )
