"""The Hypothesis machine of the TDP MMU: one thin rule per operation."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from conformance.machines.base import Machine
from conformance.model.step import Fault, Parallel
from conformance.model.tdp_mirror import operations as model
from conformance.specs.tdp_mirror import PROFILES
from conformance.strategies import tdp_mirror as ops


class TdpMirror(Machine):
    """Drive a TDP MMU and the model with the same operations."""

    SUBSYSTEM = "tdp_mirror"

    @initialize(config=ops.configs())
    def start(self, config: model.Config) -> None:
        """Start a VM; a first vCPU with its roots loaded."""
        self.begin(config)
        if self.lockstep is not None:
            for step in ops.opening(config, PROFILES[self.profile]):
                self.take(step.op)

    @rule(op=ops.operations(model.VcpuCreate))
    def vcpu_create(self, op: model.VcpuCreate) -> None:
        """Create a vCPU."""
        self.take(op)

    @rule(op=ops.operations(model.VcpuDestroy))
    def vcpu_destroy(self, op: model.VcpuDestroy) -> None:
        """Unload a vCPU, put its mirror root, free its caches."""
        self.take(op)

    @rule(op=ops.operations(model.MmuReload), faults=ops.faults(model.MmuReload))
    def mmu_reload(self, op: model.MmuReload, faults: tuple[Fault, ...]) -> None:
        """Free obsolete roots if requested, then load roots."""
        self.take(op, faults)

    @rule(op=ops.operations(model.MmuUnload))
    def mmu_unload(self, op: model.MmuUnload) -> None:
        """Drop the direct root."""
        self.take(op)

    @rule(op=ops.operations(model.FreeObsoleteRoots))
    def free_obsolete_roots(self, op: model.FreeObsoleteRoots) -> None:
        """Drop the direct root if it is invalid."""
        self.take(op)

    @rule(op=ops.operations(model.RootMatch))
    def root_match(self, op: model.RootMatch) -> None:
        """Does a root of this kind and validity belong to the types."""
        self.take(op)

    @rule(op=ops.operations(model.FilterToTypes))
    def filter_to_types(self, op: model.FilterToTypes) -> None:
        """Root types of an attribute filter."""
        self.take(op)

    @rule(op=ops.operations(model.AddrIsDirect))
    def addr_is_direct(self, op: model.AddrIsDirect) -> None:
        """Whether an address lies in the shared half."""
        self.take(op)

    @rule(op=ops.operations(model.GfnIsAlias))
    def gfn_is_alias(self, op: model.GfnIsAlias) -> None:
        """Whether a gfn has an alias bit."""
        self.take(op)

    @rule(op=ops.operations(model.SelectRoot))
    def select_root(self, op: model.SelectRoot) -> None:
        """Which root of a vCPU the types select."""
        self.take(op)

    @rule(op=ops.operations(model.PageFault), faults=ops.faults(model.PageFault))
    def page_fault(self, op: model.PageFault, faults: tuple[Fault, ...]) -> None:
        """The guest touches an address that hardware cannot translate."""
        self.take(op, faults)

    @rule(op=ops.operations(model.TdpMap), faults=ops.faults(model.TdpMap))
    def tdp_map(self, op: model.TdpMap, faults: tuple[Fault, ...]) -> None:
        """Install the page of a gfn at a level, with mmu_lock held for read."""
        self.take(op, faults)

    @rule(op=ops.operations(model.Faultin), faults=ops.faults(model.Faultin))
    def faultin(self, op: model.Faultin, faults: tuple[Fault, ...]) -> None:
        """Resolve the page behind a raw gfn."""
        self.take(op, faults)

    @rule(op=ops.operations(model.Prefault), faults=ops.faults(model.Prefault))
    def prefault(self, op: model.Prefault, faults: tuple[Fault, ...]) -> None:
        """KVM_PRE_FAULT_MEMORY."""
        self.take(op, faults)

    @rule(op=ops.operations(model.EptViolation), faults=ops.faults(model.EptViolation))
    def ept_violation(self, op: model.EptViolation, faults: tuple[Fault, ...]) -> None:
        """A private EPT violation, retried locally."""
        self.take(op, faults)

    @rule(op=ops.operations(model.FastFault), faults=ops.faults(model.FastFault))
    def fast_fault(self, op: model.FastFault, faults: tuple[Fault, ...]) -> None:
        """The lockless path alone."""
        self.take(op, faults)

    @rule(op=ops.operations(model.GetWalk))
    def get_walk(self, op: model.GetWalk) -> None:
        """Entries on the walk to an address."""
        self.take(op)

    @rule(op=ops.operations(model.GpaIsMapped))
    def gpa_is_mapped(self, op: model.GpaIsMapped) -> None:
        """Whether a present leaf maps an address."""
        self.take(op)

    @rule(op=ops.operations(model.ZapLeafs), faults=ops.faults(model.ZapLeafs))
    def zap_leafs(self, op: model.ZapLeafs, faults: tuple[Fault, ...]) -> None:
        """A host event zaps a range of the VM."""
        self.take(op, faults)

    @rule(op=ops.operations(model.Unmap), faults=ops.faults(model.Unmap))
    def unmap(self, op: model.Unmap, faults: tuple[Fault, ...]) -> None:
        """Zap a range of the filtered halves, within an invalidation."""
        self.take(op, faults)

    @rule(op=ops.operations(model.Age), faults=ops.faults(model.Age))
    def age(self, op: model.Age, faults: tuple[Fault, ...]) -> None:
        """Clear accessed bits."""
        self.take(op, faults)

    @rule(op=ops.operations(model.TestAge))
    def test_age(self, op: model.TestAge) -> None:
        """Look at accessed bits."""
        self.take(op)

    @rule(op=ops.operations(model.WrprotSlot), faults=ops.faults(model.WrprotSlot))
    def wrprot_slot(self, op: model.WrprotSlot, faults: tuple[Fault, ...]) -> None:
        """Write-protect a slot."""
        self.take(op, faults)

    @rule(op=ops.operations(model.ClearDirtySlot), faults=ops.faults(model.ClearDirtySlot))
    def clear_dirty_slot(self, op: model.ClearDirtySlot, faults: tuple[Fault, ...]) -> None:
        """Clear the dirty bits of a slot."""
        self.take(op, faults)

    @rule(op=ops.operations(model.ClearDirtyMasked), faults=ops.faults(model.ClearDirtyMasked))
    def clear_dirty_masked(self, op: model.ClearDirtyMasked, faults: tuple[Fault, ...]) -> None:
        """Clear dirty, or writable, bits of single pages."""
        self.take(op, faults)

    @rule(op=ops.operations(model.WriteProtectGfn), faults=ops.faults(model.WriteProtectGfn))
    def write_protect_gfn(self, op: model.WriteProtectGfn, faults: tuple[Fault, ...]) -> None:
        """Write-protect one page for good."""
        self.take(op, faults)

    @rule(op=ops.operations(model.SplitHuge), faults=ops.faults(model.SplitHuge))
    def split_huge(self, op: model.SplitHuge, faults: tuple[Fault, ...]) -> None:
        """Split the huge leaves of a range."""
        self.take(op, faults)

    @rule(op=ops.operations(model.RecoverHuge))
    def recover_huge(self, op: model.RecoverHuge) -> None:
        """Make room for huge leaves again."""
        self.take(op)

    @rule(op=ops.operations(model.ZapSp))
    def zap_sp(self, op: model.ZapSp) -> None:
        """NX recovery of one table."""
        self.take(op)

    @rule(op=ops.operations(model.InvalidateRoots))
    def invalidate_roots(self, op: model.InvalidateRoots) -> None:
        """Mark roots invalid, and ask vCPUs to drop them."""
        self.take(op)

    @rule(op=ops.operations(model.ZapInvalidated), faults=ops.faults(model.ZapInvalidated))
    def zap_invalidated(self, op: model.ZapInvalidated, faults: tuple[Fault, ...]) -> None:
        """Zap what was invalidated."""
        self.take(op, faults)

    @rule(op=ops.operations(model.ZapAllFast), faults=ops.faults(model.ZapAllFast))
    def zap_all_fast(self, op: model.ZapAllFast, faults: tuple[Fault, ...]) -> None:
        """Invalidate and zap all direct roots."""
        self.take(op, faults)

    @rule(op=ops.operations(model.ZapAll), faults=ops.faults(model.ZapAll))
    def zap_all(self, op: model.ZapAll, faults: tuple[Fault, ...]) -> None:
        """mmu_notifier release."""
        self.take(op, faults)

    @rule(op=ops.operations(model.VmUninit), faults=ops.faults(model.VmUninit))
    def vm_uninit(self, op: model.VmUninit, faults: tuple[Fault, ...]) -> None:
        """The end of the VM's MMU."""
        self.take(op, faults)

    @rule(op=ops.operations(model.SetAttributes), faults=ops.faults(model.SetAttributes))
    def set_attributes(self, op: model.SetAttributes, faults: tuple[Fault, ...]) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES."""
        self.take(op, faults)

    @rule(op=ops.operations(model.HvaInvalidate), faults=ops.faults(model.HvaInvalidate))
    def hva_invalidate(self, op: model.HvaInvalidate, faults: tuple[Fault, ...]) -> None:
        """The host takes back pages of the shared half."""
        self.take(op, faults)

    @rule(op=ops.operations(model.GmemInvalidate), faults=ops.faults(model.GmemInvalidate))
    def gmem_invalidate(self, op: model.GmemInvalidate, faults: tuple[Fault, ...]) -> None:
        """Guest memory loses pages (hole punch, or the file closes)."""
        self.take(op, faults)

    @rule(op=ops.operations(model.SlotCreate))
    def slot_create(self, op: model.SlotCreate) -> None:
        """Create a slot, or modify one."""
        self.take(op)

    @rule(op=ops.operations(model.SlotDelete), faults=ops.faults(model.SlotDelete))
    def slot_delete(self, op: model.SlotDelete, faults: tuple[Fault, ...]) -> None:
        """Delete a slot."""
        self.take(op, faults)

    @rule(op=ops.operations(model.SlotMove), faults=ops.faults(model.SlotMove))
    def slot_move(self, op: model.SlotMove, faults: tuple[Fault, ...]) -> None:
        """Move a slot."""
        self.take(op, faults)

    @rule(op=ops.operations(model.InjectHuge))
    def inject_huge(self, op: model.InjectHuge) -> None:
        """Corruption: a huge leaf appears in the mirror."""
        self.take(op)

    @rule(op=ops.operations(model.StealReference))
    def steal_reference(self, op: model.StealReference) -> None:
        """Corruption: the MMU's own reference to the valid direct root is lost."""
        self.take(op)

    @rule(op=ops.operations(model.HkidRelease))
    def hkid_release(self, op: model.HkidRelease) -> None:
        """The TD loses its key: the beginning of its end."""
        self.take(op)

    @rule(op=ops.operations(model.Access))
    def access(self, op: model.Access) -> None:
        """The guest touches an address: hardware fills its TLB and sets accessed and dirty bits."""
        self.take(op)

    @rule(op=ops.operations(model.Accept))
    def accept(self, op: model.Accept) -> None:
        """The guest accepts a private page."""
        self.take(op)

    @rule(op=ops.operations(model.InitRegion), faults=ops.faults(model.InitRegion))
    def init_region(self, op: model.InitRegion, faults: tuple[Fault, ...]) -> None:
        """KVM_TDX_INIT_MEM_REGION of one page."""
        self.take(op, faults)

    @rule(op=ops.operations(model.Finalize), faults=ops.faults(model.Finalize))
    def finalize(self, op: model.Finalize, faults: tuple[Fault, ...]) -> None:
        """KVM_TDX_FINALIZE_VM."""
        self.take(op, faults)

    @rule(op=ops.operations(model.SeptSet))
    def sept_set(self, op: model.SeptSet) -> None:
        """The external hook alone, where it must refuse."""
        self.take(op)

    @rule(op=ops.operations(model.SeptRemove))
    def sept_remove(self, op: model.SeptRemove) -> None:
        """The external hook alone, where it must refuse."""
        self.take(op)

    @rule(op=ops.operations(model.SeptFree))
    def sept_free(self, op: model.SeptFree) -> None:
        """The external hook alone, where it must refuse."""
        self.take(op)

    @rule(
        op=st.one_of(
            ops.parallels(model.PageFault), ops.parallels(model.SetAttributes), ops.parallels(model.ZapAllFast)
        )
    )
    def together(self, op: Parallel) -> None:
        """Two operations at once."""
        self.take(op)


MACHINE = TdpMirror
