"""What the world can do, and what the specification allows: one function for each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror import (
    dirty_logging,
    faults,
    huge_pages,
    invalidation,
    mapping,
    prefault,
    roots,
    slots,
    td,
    zapping,
)
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.operations import Answers, Config, Op
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
    logs,
    private_leaves,
    references,
    slot_by_id,
    slot_of,
    valid_root,
)
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    EIO,
    MEM_GUEST_MEMFD,
    MEM_LOG_DIRTY_PAGES,
    MIRROR_ROOTS,
    SLOT_INVALID,
    TD_INIT,
    TD_RUNNABLE,
)

_PURE = (ops.RootMatch, ops.FilterToTypes, ops.AddrIsDirect, ops.GfnIsAlias)
_END = (ops.HkidRelease, ops.VmUninit, ops.ZapAll)
_NOTIFIED = (ops.HvaInvalidate, ops.GmemInvalidate, ops.Age, ops.TestAge)
_WHEN_BUGGED = (ops.Prefault, ops.EptViolation, ops.VcpuDestroy, ops.GmemInvalidate, *_END)


def legal(state: State, op: Op) -> bool:
    """No fault without a loaded vCPU, no teardown step before its time."""
    kind = type(op)
    if state.gone:
        return False
    if kind in _PURE:
        return True
    if isinstance(op, _NOTIFIED) and not _can_notify(state.config, op):
        return False
    vcpu = getattr(op, "vcpu", None)
    if vcpu is not None:
        if vcpu >= len(state.vcpus) or (state.vcpus[vcpu] is None) != (kind is ops.VcpuCreate):
            return False
    if state.stolen and not state.bugged:
        return isinstance(op, ops.MmuUnload) and _holds_valid(state, op.vcpu)
    if state.corrupt:
        return kind in (ops.PageFault, ops.TdpMap, ops.Prefault, ops.EptViolation) and _reaches_corruption(state, op)
    if state.bugged:
        return kind in _WHEN_BUGGED and _legal_end(state, op)
    if kind in _END:
        return _legal_end(state, op)
    if not state.hkid:
        return kind in (ops.VcpuDestroy, ops.HvaInvalidate, ops.Age, ops.TestAge) or (
            kind in (ops.SeptRemove, ops.Finalize) and state.config.deep
        )
    return _legal_alive(state, op)


def legal_beside(state: State, op: Op) -> bool:
    """What had begun goes on when another thread kills the VM."""
    if isinstance(op, ops.InitRegion) and state.config.deep and state.td == TD_RUNNABLE:
        state = replace(state, td=TD_INIT)
    return legal(replace(state, bugged=False) if state.bugged and not state.stolen else state, op) or legal(state, op)


def _legal_end(state: State, op: Op) -> bool:
    match op:
        case ops.HkidRelease():
            return state.hkid and state.config.mirror and not private_leaves(state)
        case ops.VmUninit():
            return all(v is None for v in state.vcpus) and not (state.hkid and state.config.mirror)
        case ops.GmemInvalidate():
            return state.hkid and state.config.private
        case ops.Prefault():
            return state.hkid and is_loaded(state, op.vcpu) and not is_alias(state.config, op.gpa >> 12)
        case ops.EptViolation():
            loaded = state.hkid and is_loaded(state, op.vcpu) and not is_alias(state.config, op.gpa >> 12)
            return loaded and _is_private_half(state.config, op.gpa)
    return True


def _legal_alive(state: State, op: Op) -> bool:
    config = state.config
    match op:
        case ops.TdpMap():
            return _legal_map(state, op)
        case ops.Faultin():
            return is_loaded(state, op.vcpu) and state.td == TD_RUNNABLE and (config.private or not op.private)
        case ops.EptViolation():
            return is_loaded(state, op.vcpu) and _is_private_half(config, op.gpa) and _runs(state)
        case ops.PageFault():
            return is_loaded(state, op.vcpu) and _runs(state) and (config.private or not op.private)
        case ops.Accept():
            return config.mirror and is_loaded(state, op.vcpu) and not is_alias(config, op.gpa >> 12) and _runs(state)
        case ops.FastFault() | ops.GetWalk() | ops.Access():
            return is_loaded(state, op.vcpu) and _runs(state)
        case ops.GpaIsMapped() | ops.SelectRoot():
            return is_loaded(state, op.vcpu)
        case ops.ZapSp():
            root = valid_root(state, op.mirror)
            return root != NONE and (op.level, op.gfn) in state.roots[root].tables
        case ops.Unmap():
            return (bool(op.attr_filter) or config.mirror) and (op.start < op.end or not config.huge)
        case ops.ZapLeafs():
            return op.start < op.end or not config.huge
        case ops.InvalidateRoots():
            return not op.types & MIRROR_ROOTS
        case ops.SlotCreate():
            slot = slot_by_id(state, op.slot)
            # Without a mirror a deletion, by whatever name, may zap all there is.
            return (
                slot is None
                or bool(slot[3] & MEM_GUEST_MEMFD and (op.npages or config.mirror))
                or slots.changes_logging(slot, op)
            )
        case ops.SlotDelete() | ops.SlotMove():
            slot = slot_by_id(state, op.slot)
            return slot is not None and config.mirror and not slot[3] & SLOT_INVALID
        case ops.GmemInvalidate():
            return config.private
        case ops.SetAttributes():
            start, end = op.address >> 12, op.address + op.size >> 12
            within = end <= config.max_gfn + 1 and not (start < end and has_alias(config, start, end - 1))
            return op.address + op.size > 2**64 or within
        case ops.StealReference():
            index = valid_root(state, False)
            return index != NONE and references(state, index) == 2 and not state.roots[index].tables
        case ops.InjectHuge():
            return _can_corrupt(state, op.gfn)
        case ops.InitRegion():
            return config.deep and state.td == TD_INIT and not config.early and not is_alias(config, op.gpa >> 12)
        case ops.Finalize():
            return config.deep and not config.early
        case ops.SeptSet():
            return config.deep and (op.level > 1 or (config.early and state.td == TD_INIT))
        case ops.SeptRemove():
            return False
        case ops.SeptFree():
            return config.deep
    return not isinstance(op, ops.InSlot) or _legal_in_slot(state, op)


def _is_private_half(config: Config, gpa: int) -> bool:
    """Whether a violation at `gpa` is a TD's and private: the one kind that is asked for, alive or dead."""
    return config.mirror and not is_direct(config, gpa)


def _can_notify(config: Config, op: ops.HvaInvalidate | ops.GmemInvalidate | ops.Age | ops.TestAge) -> bool:
    """Whether a range is one that those can mean who know gfns and no halves: not empty, without alias bits.

    The host takes back huge pages as a whole: it splits them in an invalidation of their own.
    """
    cut = config.huge and isinstance(op, ops.HvaInvalidate) and (op.start | op.end) & (config.cover(2) - 1)
    return not cut and op.start < op.end and not has_alias(config, op.start, op.end - 1)


def also_needs(state: State, op: Any) -> frozenset[str]:
    """Capabilities that an operation needs for its values' sake: not every candidate heeds what a slot logs."""
    is_asked = type(op) is ops.SlotCreate and slots.is_of_logging(state, op)
    return frozenset({"log-dirty"}) if is_asked else frozenset()


def _legal_in_slot(state: State, op: ops.InSlot) -> bool:
    slot = slot_by_id(state, op.slot)
    if slot is None:
        return False
    end = slot[1] + slot[2]
    match op:
        case ops.ClearDirtyMasked():
            return op.mask > 0 and slot[1] <= op.gfn and op.gfn + op.mask.bit_length() <= end
        case ops.WrprotSlot():
            return op.level == 1 or state.config.huge
        case ops.WriteProtectGfn():
            return slot[1] <= op.gfn < end and (op.level == 1 or state.config.huge)
        case ops.SplitHuge():
            return slot[1] <= op.start < op.end <= end
        case ops.RecoverHuge():
            return not slot[3] & MEM_LOG_DIRTY_PAGES
    return True


def _legal_map(state: State, op: ops.TdpMap) -> bool:
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
    return op.level == 1 or (op.level == 2 and huge_fits(state, gfn) and not logs(state, gfn))


def _reaches_corruption(state: State, op: Op) -> bool:
    """Whether the operation walks into the huge leaf that was injected."""
    assert isinstance(op, ops.PageFault | ops.TdpMap | ops.Prefault | ops.EptViolation)
    if (
        state.bugged
        or is_direct(state.config, op.gpa)
        or (isinstance(op, ops.PageFault | ops.TdpMap) and not op.private)
    ):
        return False
    if isinstance(op, ops.TdpMap) and op.level != 1:
        return False
    if isinstance(op, ops.Prefault) and (op.size, op.flags) != (4096, 0):
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
    ops.VcpuCreate: roots.vcpu_create,
    ops.VcpuDestroy: roots.vcpu_destroy,
    ops.MmuReload: roots.mmu_reload,
    ops.MmuUnload: roots.mmu_unload,
    ops.FreeObsoleteRoots: roots.free_obsolete_roots,
    ops.RootMatch: roots.root_match,
    ops.FilterToTypes: roots.filter_to_types,
    ops.AddrIsDirect: roots.addr_is_direct,
    ops.GfnIsAlias: roots.gfn_is_alias,
    ops.SelectRoot: roots.select_root,
    ops.PageFault: faults.page_fault,
    ops.TdpMap: mapping.tdp_map,
    ops.Faultin: faults.faultin,
    ops.Prefault: prefault.prefault,
    ops.EptViolation: prefault.ept_violation,
    ops.FastFault: faults.fast_fault,
    ops.GetWalk: faults.get_walk,
    ops.GpaIsMapped: faults.gpa_is_mapped,
    ops.ZapLeafs: zapping.zap_leafs,
    ops.Unmap: zapping.unmap,
    ops.Age: invalidation.age,
    ops.TestAge: invalidation.age,
    ops.WrprotSlot: dirty_logging.wrprot_slot,
    ops.ClearDirtySlot: dirty_logging.clear_dirty_slot,
    ops.ClearDirtyMasked: dirty_logging.clear_dirty_masked,
    ops.WriteProtectGfn: dirty_logging.write_protect_gfn,
    ops.SplitHuge: huge_pages.split_huge,
    ops.RecoverHuge: huge_pages.recover_huge,
    ops.ZapSp: huge_pages.zap_sp,
    ops.InvalidateRoots: roots.invalidate_roots,
    ops.ZapInvalidated: roots.zap_invalidated,
    ops.ZapAllFast: roots.zap_all_fast,
    ops.ZapAll: roots.zap_all,
    ops.VmUninit: roots.vm_uninit,
    ops.SetAttributes: slots.set_attributes,
    ops.HvaInvalidate: invalidation.hva_invalidate,
    ops.GmemInvalidate: invalidation.gmem_invalidate,
    ops.SlotCreate: slots.slot_create,
    ops.SlotDelete: slots.slot_delete,
    ops.SlotMove: slots.slot_move,
    ops.InjectHuge: td.inject_huge,
    ops.StealReference: roots.steal_reference,
    ops.HkidRelease: td.hkid_release,
    ops.Access: faults.access,
    ops.Accept: td.accept,
    ops.InitRegion: td.init_region,
    ops.Finalize: td.finalize,
    ops.SeptSet: td.sept_refuses,
    ops.SeptRemove: td.sept_refuses,
    ops.SeptFree: td.sept_refuses,
}
"""The function of each operation."""


_FAULTS = (ops.PageFault, ops.TdpMap, ops.Faultin, ops.EptViolation)
_FIND_DEATH = (
    *_FAULTS, ops.Prefault, ops.VcpuCreate, ops.MmuReload, ops.InitRegion, ops.Finalize, ops.SetAttributes,
    ops.SlotCreate, ops.SlotDelete, ops.SlotMove,
)  # fmt: skip
"""Operations in which somebody may find the VM dead."""


def step(state: State, op: Op, answers: Answers, profile: Profile) -> Outcomes:
    """What the specification allows."""
    outcomes = _STEPS[type(op)](state, op, answers, profile)
    if (state.bugged or answers.killed) and type(op) in _FIND_DEATH:
        return _or_found_dead(state, op, outcomes)
    if -EIO in (answers.ext_link, answers.ext_set) and type(op) in _FIND_DEATH:
        return _or_dies(op, outcomes)
    return outcomes


def _or_found_dead(state: State, op: Op, outcomes: Outcomes) -> Outcomes:
    """Whoever finds the VM dead may refuse, in every operation and whatever he has done by then (TDP-064)."""
    allowed = each(outcomes)
    return (*allowed, *_dead(op, (state, *(outcome.state for outcome in allowed))))


def _or_dies(op: Op, outcomes: Outcomes) -> Outcomes:
    """So may whoever has killed it himself, as soon as it is dead."""
    allowed = each(outcomes)
    return (*allowed, *_dead(op, (outcome.state for outcome in allowed if outcome.state.bugged)))


def _dead(op: Op, states: Iterable[State]) -> tuple[Outcome, ...]:
    result = (-EIO, ()) if isinstance(op, _FAULTS) else -EIO
    clause = c.BUSY_IS_NO_BUG
    return tuple(Outcome(s, result, because=clause, effect=clause) for s in dict.fromkeys(states))
