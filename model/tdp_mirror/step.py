"""What the world can do, and what the specification allows: one function for each operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from conformance.model.step import Outcomes
from conformance.model.tdp_mirror.dirty_logging import (
    clear_dirty_masked,
    clear_dirty_slot,
    write_protect_gfn,
    wrprot_slot,
)
from conformance.model.tdp_mirror.faults import fast_fault, faultin, get_walk, gpa_is_mapped, page_fault
from conformance.model.tdp_mirror.huge_pages import recover_huge, split_huge, zap_sp
from conformance.model.tdp_mirror.invalidation import access, age, gmem_invalidate, hva_invalidate
from conformance.model.tdp_mirror.mapping import tdp_map
from conformance.model.tdp_mirror.operations import (
    Accept,
    Access,
    AddrIsDirect,
    Age,
    Answers,
    ClearDirtyMasked,
    ClearDirtySlot,
    EptViolation,
    FastFault,
    Faultin,
    FilterToTypes,
    Finalize,
    FreeObsoleteRoots,
    GetWalk,
    GfnIsAlias,
    GmemInvalidate,
    GpaIsMapped,
    HkidRelease,
    HvaInvalidate,
    InitRegion,
    InjectHuge,
    InvalidateRoots,
    MmuReload,
    MmuUnload,
    Op,
    PageFault,
    Prefault,
    RecoverHuge,
    RootMatch,
    SelectRoot,
    SeptFree,
    SeptRemove,
    SeptSet,
    SetAttributes,
    SlotCreate,
    SlotDelete,
    SlotMove,
    SplitHuge,
    StealReference,
    TdpMap,
    TestAge,
    Unmap,
    VcpuCreate,
    VcpuDestroy,
    VmUninit,
    WriteProtectGfn,
    WrprotSlot,
    ZapAll,
    ZapAllFast,
    ZapInvalidated,
    ZapLeafs,
    ZapSp,
)
from conformance.model.tdp_mirror.prefault import ept_violation, prefault
from conformance.model.tdp_mirror.roots import (
    addr_is_direct,
    filter_to_types,
    free_obsolete_roots,
    gfn_is_alias,
    invalidate_roots,
    mmu_reload,
    mmu_unload,
    root_match,
    select_root,
    steal_reference,
    vcpu_create,
    vcpu_destroy,
    vm_uninit,
    zap_all,
    zap_all_fast,
    zap_invalidated,
)
from conformance.model.tdp_mirror.slots import set_attributes, slot_create, slot_delete, slot_move
from conformance.model.tdp_mirror.state import (
    NONE,
    State,
    covering_leaf,
    has_alias,
    huge_fits,
    is_alias,
    is_direct,
    is_loaded,
    is_unmappable,
    private_leaves,
    references,
    slot_by_id,
    slot_of,
    valid_root,
)
from conformance.model.tdp_mirror.td import accept, finalize, hkid_release, init_region, inject_huge, sept_refuses
from conformance.model.tdp_mirror.zapping import unmap, zap_leafs
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror.constants import MEM_GUEST_MEMFD, MIRROR_ROOTS, SLOT_INVALID, TD_INIT, TD_RUNNABLE

_PURE = (RootMatch, FilterToTypes, AddrIsDirect, GfnIsAlias)


def legal(state: State, op: Op) -> bool:
    """No fault without a loaded vCPU, no teardown step before its time."""
    kind = type(op)
    if state.gone:
        return False
    if kind in _PURE:
        return True
    vcpu = getattr(op, "vcpu", None)
    if vcpu is not None:
        if vcpu >= len(state.vcpus) or (state.vcpus[vcpu] is None) != (kind is VcpuCreate):
            return False
    if state.stolen and not state.bugged:
        return isinstance(op, MmuUnload) and _holds_valid(state, op.vcpu)
    if state.corrupt:
        return kind in (PageFault, TdpMap, Prefault, EptViolation) and _reaches_corruption(state, op)
    if state.bugged:
        return kind in (Prefault, EptViolation, VcpuDestroy, GmemInvalidate, *_END) and _legal_end(state, op)
    if kind in _END:
        return _legal_end(state, op)
    if not state.hkid:
        return kind in (VcpuDestroy, HvaInvalidate, Age, TestAge) or (
            kind in (SeptRemove, Finalize) and state.config.deep
        )
    return _legal_alive(state, op)


def legal_beside(state: State, op: Op) -> bool:
    """What had begun goes on when another thread kills the VM."""
    if isinstance(op, InitRegion) and state.config.deep and state.td == TD_RUNNABLE:
        state = replace(state, td=TD_INIT)
    return legal(replace(state, bugged=False) if state.bugged and not state.stolen else state, op) or legal(state, op)


_END = (HkidRelease, VmUninit, ZapAll)


def _legal_end(state: State, op: Op) -> bool:
    match op:
        case HkidRelease():
            return state.hkid and state.config.mirror and not private_leaves(state)
        case VmUninit():
            return all(v is None for v in state.vcpus) and not (state.hkid and state.config.mirror)
        case GmemInvalidate():
            return state.hkid and state.config.private
        case Prefault() | EptViolation():
            return state.hkid and is_loaded(state, op.vcpu) and not is_alias(state.config, op.gpa >> 12)
    return True


def _legal_alive(state: State, op: Op) -> bool:
    config = state.config
    match op:
        case TdpMap():
            return _legal_map(state, op)
        case Faultin():
            return is_loaded(state, op.vcpu) and state.td == TD_RUNNABLE and (config.private or not op.private)
        case EptViolation():
            return config.mirror and is_loaded(state, op.vcpu) and not is_direct(config, op.gpa) and _runs(state)
        case PageFault():
            return is_loaded(state, op.vcpu) and _runs(state) and (config.private or not op.private)
        case Accept():
            return config.mirror and is_loaded(state, op.vcpu) and not is_alias(config, op.gpa >> 12) and _runs(state)
        case FastFault() | GetWalk() | Access():
            return is_loaded(state, op.vcpu) and _runs(state)
        case GpaIsMapped() | SelectRoot():
            return is_loaded(state, op.vcpu)
        case ZapSp():
            root = valid_root(state, op.mirror)
            return root != NONE and (op.level, op.gfn) in state.roots[root].tables
        case Unmap():
            return (bool(op.attr_filter) or config.mirror) and (op.start < op.end or not config.huge)
        case ZapLeafs():
            return op.start < op.end or not config.huge
        case WrprotSlot() | ClearDirtySlot() | ClearDirtyMasked() | SplitHuge() | RecoverHuge() | WriteProtectGfn():
            return _legal_in_slot(state, op)
        case InvalidateRoots():
            return not op.types & MIRROR_ROOTS
        case SlotCreate():
            slot = slot_by_id(state, op.slot)
            return slot is None or bool(slot[3] & MEM_GUEST_MEMFD)
        case SlotDelete() | SlotMove():
            slot = slot_by_id(state, op.slot)
            return slot is not None and config.mirror and not slot[3] & SLOT_INVALID
        case GmemInvalidate():
            return config.private
        case HvaInvalidate():
            # The host takes back huge pages as a whole: it splits them in an invalidation of their own.
            return not config.huge or not (op.start | op.end) & (config.cover(2) - 1)
        case SetAttributes():
            start, end = op.address >> 12, op.address + op.size >> 12
            within = end <= config.max_gfn + 1 and not (start < end and has_alias(config, start, end - 1))
            return op.address + op.size > 2**64 or within
        case StealReference():
            index = valid_root(state, False)
            return index != NONE and references(state, index) == 2 and not state.roots[index].tables
        case InjectHuge():
            return _can_corrupt(state, op.gfn)
        case InitRegion():
            return config.deep and state.td == TD_INIT and not config.early and not is_alias(config, op.gpa >> 12)
        case Finalize():
            return config.deep and not config.early
        case SeptSet():
            return config.deep and (op.level > 1 or (config.early and state.td == TD_INIT))
        case SeptRemove():
            return False
        case SeptFree():
            return config.deep
    return True


def _legal_in_slot(
    state: State, op: WrprotSlot | ClearDirtySlot | ClearDirtyMasked | SplitHuge | RecoverHuge | WriteProtectGfn
) -> bool:
    slot = slot_by_id(state, op.slot)
    if slot is None:
        return False
    end = slot[1] + slot[2]
    match op:
        case ClearDirtyMasked():
            return op.mask > 0 and slot[1] <= op.gfn and op.gfn + op.mask.bit_length() <= end
        case WriteProtectGfn():
            return slot[1] <= op.gfn < end
        case SplitHuge():
            return slot[1] <= op.start < op.end <= end
    return True


def _legal_map(state: State, op: TdpMap) -> bool:
    config = state.config
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    gfn = op.gpa >> 12 & ~config.direct_bits
    if (
        not _runs(state)
        or op.private != (config.mirror and not is_direct(config, op.gpa))
        or is_unmappable(config, gfn)
    ):
        return False
    slot = slot_of(state, gfn)
    if slot is None or slot[3] & SLOT_INVALID or op.private != (gfn in state.attributes):
        return False
    if op.private:
        return bool(slot[3] & MEM_GUEST_MEMFD) and (pair[0] == NONE or not state.roots[pair[0]].invalid)
    if pair[0] == NONE or state.roots[pair[0]].invalid:
        return False
    return op.level == 1 or (op.level == 2 and huge_fits(state, gfn))


def _reaches_corruption(state: State, op: Op) -> bool:
    """Whether the operation walks into the huge leaf that was injected."""
    assert isinstance(op, PageFault | TdpMap | Prefault | EptViolation)
    if state.bugged or is_direct(state.config, op.gpa) or (isinstance(op, PageFault | TdpMap) and not op.private):
        return False
    if isinstance(op, TdpMap) and op.level != 1:
        return False
    if isinstance(op, Prefault) and (op.size, op.flags) != (4096, 0):
        return False
    pair = state.vcpus[op.vcpu]
    gfn = op.gpa >> 12
    if pair is None or NONE in pair or state.roots[pair[0]].invalid or gfn not in state.attributes:
        return False
    slot = slot_of(state, gfn)
    if slot is None or slot[3] & (MEM_GUEST_MEMFD | SLOT_INVALID) != MEM_GUEST_MEMFD:
        return False
    leaf = covering_leaf(state.config, state.roots[pair[1]], gfn)
    return leaf is not None and leaf[1] > 1


def _can_corrupt(state: State, gfn: int) -> bool:
    config = state.config
    root = valid_root(state, True)
    if root == NONE or config.levels < 3 or gfn & (config.cover(2) - 1) or not _runs(state):
        return False
    tables = state.roots[root].tables
    above = all(table in tables for table in config.path(gfn, 2))
    return above and (1, gfn) not in tables and slot_of(state, gfn) is not None


def _holds_valid(state: State, vcpu: int) -> bool:
    pair = state.vcpus[vcpu]
    return pair is not None and pair[0] != NONE and not state.roots[pair[0]].invalid


def _runs(state: State) -> bool:
    return state.td == TD_RUNNABLE and state.hkid


_STEPS: dict[type, Callable[[State, Any, Answers, Profile], Outcomes]] = {
    VcpuCreate: vcpu_create,
    VcpuDestroy: vcpu_destroy,
    MmuReload: mmu_reload,
    MmuUnload: mmu_unload,
    FreeObsoleteRoots: free_obsolete_roots,
    RootMatch: root_match,
    FilterToTypes: filter_to_types,
    AddrIsDirect: addr_is_direct,
    GfnIsAlias: gfn_is_alias,
    SelectRoot: select_root,
    PageFault: page_fault,
    TdpMap: tdp_map,
    Faultin: faultin,
    Prefault: prefault,
    EptViolation: ept_violation,
    FastFault: fast_fault,
    GetWalk: get_walk,
    GpaIsMapped: gpa_is_mapped,
    ZapLeafs: zap_leafs,
    Unmap: unmap,
    Age: age,
    TestAge: age,
    WrprotSlot: wrprot_slot,
    ClearDirtySlot: clear_dirty_slot,
    ClearDirtyMasked: clear_dirty_masked,
    WriteProtectGfn: write_protect_gfn,
    SplitHuge: split_huge,
    RecoverHuge: recover_huge,
    ZapSp: zap_sp,
    InvalidateRoots: invalidate_roots,
    ZapInvalidated: zap_invalidated,
    ZapAllFast: zap_all_fast,
    ZapAll: zap_all,
    VmUninit: vm_uninit,
    SetAttributes: set_attributes,
    HvaInvalidate: hva_invalidate,
    GmemInvalidate: gmem_invalidate,
    SlotCreate: slot_create,
    SlotDelete: slot_delete,
    SlotMove: slot_move,
    InjectHuge: inject_huge,
    StealReference: steal_reference,
    HkidRelease: hkid_release,
    Access: access,
    Accept: accept,
    InitRegion: init_region,
    Finalize: finalize,
    SeptSet: sept_refuses,
    SeptRemove: sept_refuses,
    SeptFree: sept_refuses,
}
"""The function of each operation."""


def step(state: State, op: Op, answers: Answers, profile: Profile) -> Outcomes:
    """What the specification allows."""
    return _STEPS[type(op)](state, op, answers, profile)
