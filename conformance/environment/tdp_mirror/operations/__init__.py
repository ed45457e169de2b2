"""Each operation: what enters the candidate, or acts on the world around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.environment.tdp_mirror.operations import dirty_logging, faults, huge_pages, roots, slots, td, zapping
from conformance.model.tdp_mirror import operations as ops

OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
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
    ops.TdpMap: faults.tdp_map,
    ops.Faultin: faults.faultin,
    ops.Prefault: faults.prefault,
    ops.EptViolation: faults.ept_violation,
    ops.FastFault: faults.fast_fault,
    ops.GetWalk: faults.get_walk,
    ops.GpaIsMapped: faults.gpa_is_mapped,
    ops.ZapLeafs: zapping.zap_leafs,
    ops.Unmap: zapping.unmap,
    ops.Age: dirty_logging.age,
    ops.TestAge: dirty_logging.test_age,
    ops.WrprotSlot: dirty_logging.wrprot_slot,
    ops.ClearDirtySlot: dirty_logging.clear_dirty_slot,
    ops.ClearDirtyMasked: dirty_logging.clear_dirty_masked,
    ops.WriteProtectGfn: dirty_logging.write_protect_gfn,
    ops.SplitHuge: huge_pages.split_huge,
    ops.RecoverHuge: huge_pages.recover_huge,
    ops.ZapSp: zapping.zap_sp,
    ops.InvalidateRoots: roots.invalidate_roots,
    ops.ZapInvalidated: zapping.zap_invalidated,
    ops.ZapAllFast: zapping.zap_all_fast,
    ops.ZapAll: zapping.zap_all,
    ops.VmUninit: zapping.vm_uninit,
    ops.SetAttributes: slots.set_attributes,
    ops.HvaInvalidate: slots.hva_invalidate,
    ops.GmemInvalidate: slots.gmem_invalidate,
    ops.SlotCreate: slots.slot_create,
    ops.SlotDelete: slots.slot_delete,
    ops.SlotMove: slots.slot_move,
    ops.InjectHuge: huge_pages.inject_huge,
    ops.StealReference: roots.steal_reference,
    ops.HkidRelease: td.hkid_release,
    ops.Access: td.access,
    ops.Accept: td.accept,
    ops.InitRegion: td.init_region,
    ops.Finalize: td.finalize,
    ops.SeptSet: td.sept_set,
    ops.SeptRemove: td.sept_remove,
    ops.SeptFree: td.sept_free,
}

__all__ = ["OPERATIONS"]
