"""The Hypothesis machine of the TDP MMU: one thin rule per operation."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from conformance.machines.base import Machine
from conformance.model.step import Fault, Parallel
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import PROFILES
from conformance.strategies.tdp_mirror import opening
from conformance.strategies.tdp_mirror.shapes import configs, faults, operations, parallels


class TdpMirror(Machine):
    """Drive a TDP MMU and the model with the same operations."""

    SUBSYSTEM = "tdp_mirror"

    @initialize(config=configs())
    def start(self, config: Config) -> None:
        """Start a VM; a first vCPU with its roots loaded."""
        self.begin(config)
        if self.lockstep is not None:
            for step in opening(config, PROFILES[self.profile]):
                self.take(step.op)

    @rule(op=operations(ops.VcpuCreate))
    def vcpu_create(self, op: ops.VcpuCreate) -> None:
        """Create a vCPU."""
        self.take(op)

    @rule(op=operations(ops.VcpuDestroy))
    def vcpu_destroy(self, op: ops.VcpuDestroy) -> None:
        """Unload a vCPU, put its mirror root, free its caches."""
        self.take(op)

    @rule(op=operations(ops.MmuReload), faults=faults(ops.MmuReload))
    def mmu_reload(self, op: ops.MmuReload, faults: tuple[Fault, ...]) -> None:
        """Free obsolete roots if requested, then load roots."""
        self.take(op, faults)

    @rule(op=operations(ops.MmuUnload))
    def mmu_unload(self, op: ops.MmuUnload) -> None:
        """Drop the direct root."""
        self.take(op)

    @rule(op=operations(ops.FreeObsoleteRoots))
    def free_obsolete_roots(self, op: ops.FreeObsoleteRoots) -> None:
        """Drop the direct root if it is invalid."""
        self.take(op)

    @rule(op=operations(ops.RootMatch))
    def root_match(self, op: ops.RootMatch) -> None:
        """Does a root of this kind and validity belong to the types."""
        self.take(op)

    @rule(op=operations(ops.FilterToTypes))
    def filter_to_types(self, op: ops.FilterToTypes) -> None:
        """Root types of an attribute filter."""
        self.take(op)

    @rule(op=operations(ops.AddrIsDirect))
    def addr_is_direct(self, op: ops.AddrIsDirect) -> None:
        """Whether an address lies in the shared half."""
        self.take(op)

    @rule(op=operations(ops.GfnIsAlias))
    def gfn_is_alias(self, op: ops.GfnIsAlias) -> None:
        """Whether a gfn has an alias bit."""
        self.take(op)

    @rule(op=operations(ops.SelectRoot))
    def select_root(self, op: ops.SelectRoot) -> None:
        """Which root of a vCPU the types select."""
        self.take(op)

    @rule(op=operations(ops.PageFault), faults=faults(ops.PageFault))
    def page_fault(self, op: ops.PageFault, faults: tuple[Fault, ...]) -> None:
        """The guest touches an address that hardware cannot translate."""
        self.take(op, faults)

    @rule(op=operations(ops.TdpMap), faults=faults(ops.TdpMap))
    def tdp_map(self, op: ops.TdpMap, faults: tuple[Fault, ...]) -> None:
        """Install the page of a gfn at a level, with mmu_lock held for read."""
        self.take(op, faults)

    @rule(op=operations(ops.Faultin), faults=faults(ops.Faultin))
    def faultin(self, op: ops.Faultin, faults: tuple[Fault, ...]) -> None:
        """Resolve the page behind a raw gfn."""
        self.take(op, faults)

    @rule(op=operations(ops.Prefault), faults=faults(ops.Prefault))
    def prefault(self, op: ops.Prefault, faults: tuple[Fault, ...]) -> None:
        """KVM_PRE_FAULT_MEMORY."""
        self.take(op, faults)

    @rule(op=operations(ops.EptViolation), faults=faults(ops.EptViolation))
    def ept_violation(self, op: ops.EptViolation, faults: tuple[Fault, ...]) -> None:
        """A private EPT violation, retried locally."""
        self.take(op, faults)

    @rule(op=operations(ops.FastFault), faults=faults(ops.FastFault))
    def fast_fault(self, op: ops.FastFault, faults: tuple[Fault, ...]) -> None:
        """The lockless path alone."""
        self.take(op, faults)

    @rule(op=operations(ops.GetWalk))
    def get_walk(self, op: ops.GetWalk) -> None:
        """Entries on the walk to an address."""
        self.take(op)

    @rule(op=operations(ops.GpaIsMapped))
    def gpa_is_mapped(self, op: ops.GpaIsMapped) -> None:
        """Whether a present leaf maps an address."""
        self.take(op)

    @rule(op=operations(ops.ZapLeafs), faults=faults(ops.ZapLeafs))
    def zap_leafs(self, op: ops.ZapLeafs, faults: tuple[Fault, ...]) -> None:
        """A host event zaps a range of the VM."""
        self.take(op, faults)

    @rule(op=operations(ops.Unmap), faults=faults(ops.Unmap))
    def unmap(self, op: ops.Unmap, faults: tuple[Fault, ...]) -> None:
        """Zap a range of the filtered halves, within an invalidation."""
        self.take(op, faults)

    @rule(op=operations(ops.Age), faults=faults(ops.Age))
    def age(self, op: ops.Age, faults: tuple[Fault, ...]) -> None:
        """Clear accessed bits."""
        self.take(op, faults)

    @rule(op=operations(ops.TestAge))
    def test_age(self, op: ops.TestAge) -> None:
        """Look at accessed bits."""
        self.take(op)

    @rule(op=operations(ops.WrprotSlot), faults=faults(ops.WrprotSlot))
    def wrprot_slot(self, op: ops.WrprotSlot, faults: tuple[Fault, ...]) -> None:
        """Write-protect a slot."""
        self.take(op, faults)

    @rule(op=operations(ops.ClearDirtySlot), faults=faults(ops.ClearDirtySlot))
    def clear_dirty_slot(self, op: ops.ClearDirtySlot, faults: tuple[Fault, ...]) -> None:
        """Clear the dirty bits of a slot."""
        self.take(op, faults)

    @rule(op=operations(ops.ClearDirtyMasked), faults=faults(ops.ClearDirtyMasked))
    def clear_dirty_masked(self, op: ops.ClearDirtyMasked, faults: tuple[Fault, ...]) -> None:
        """Clear dirty, or writable, bits of single pages."""
        self.take(op, faults)

    @rule(op=operations(ops.WriteProtectGfn), faults=faults(ops.WriteProtectGfn))
    def write_protect_gfn(self, op: ops.WriteProtectGfn, faults: tuple[Fault, ...]) -> None:
        """Write-protect one page for good."""
        self.take(op, faults)

    @rule(op=operations(ops.SplitHuge), faults=faults(ops.SplitHuge))
    def split_huge(self, op: ops.SplitHuge, faults: tuple[Fault, ...]) -> None:
        """Split the huge leaves of a range."""
        self.take(op, faults)

    @rule(op=operations(ops.RecoverHuge))
    def recover_huge(self, op: ops.RecoverHuge) -> None:
        """Make room for huge leaves again."""
        self.take(op)

    @rule(op=operations(ops.ZapSp))
    def zap_sp(self, op: ops.ZapSp) -> None:
        """NX recovery of one table."""
        self.take(op)

    @rule(op=operations(ops.InvalidateRoots))
    def invalidate_roots(self, op: ops.InvalidateRoots) -> None:
        """Mark roots invalid, and ask vCPUs to drop them."""
        self.take(op)

    @rule(op=operations(ops.ZapInvalidated), faults=faults(ops.ZapInvalidated))
    def zap_invalidated(self, op: ops.ZapInvalidated, faults: tuple[Fault, ...]) -> None:
        """Zap what was invalidated."""
        self.take(op, faults)

    @rule(op=operations(ops.ZapAllFast), faults=faults(ops.ZapAllFast))
    def zap_all_fast(self, op: ops.ZapAllFast, faults: tuple[Fault, ...]) -> None:
        """Invalidate and zap all direct roots."""
        self.take(op, faults)

    @rule(op=operations(ops.ZapAll), faults=faults(ops.ZapAll))
    def zap_all(self, op: ops.ZapAll, faults: tuple[Fault, ...]) -> None:
        """mmu_notifier release."""
        self.take(op, faults)

    @rule(op=operations(ops.VmUninit), faults=faults(ops.VmUninit))
    def vm_uninit(self, op: ops.VmUninit, faults: tuple[Fault, ...]) -> None:
        """The end of the VM's MMU."""
        self.take(op, faults)

    @rule(op=operations(ops.SetAttributes), faults=faults(ops.SetAttributes))
    def set_attributes(self, op: ops.SetAttributes, faults: tuple[Fault, ...]) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES."""
        self.take(op, faults)

    @rule(op=operations(ops.HvaInvalidate), faults=faults(ops.HvaInvalidate))
    def hva_invalidate(self, op: ops.HvaInvalidate, faults: tuple[Fault, ...]) -> None:
        """The host takes back pages of the shared half."""
        self.take(op, faults)

    @rule(op=operations(ops.GmemInvalidate), faults=faults(ops.GmemInvalidate))
    def gmem_invalidate(self, op: ops.GmemInvalidate, faults: tuple[Fault, ...]) -> None:
        """Guest memory loses pages (hole punch, or the file closes)."""
        self.take(op, faults)

    @rule(op=operations(ops.SlotCreate))
    def slot_create(self, op: ops.SlotCreate) -> None:
        """Create a slot, or modify one."""
        self.take(op)

    @rule(op=operations(ops.SlotDelete), faults=faults(ops.SlotDelete))
    def slot_delete(self, op: ops.SlotDelete, faults: tuple[Fault, ...]) -> None:
        """Delete a slot."""
        self.take(op, faults)

    @rule(op=operations(ops.SlotMove), faults=faults(ops.SlotMove))
    def slot_move(self, op: ops.SlotMove, faults: tuple[Fault, ...]) -> None:
        """Move a slot."""
        self.take(op, faults)

    @rule(op=operations(ops.InjectHuge))
    def inject_huge(self, op: ops.InjectHuge) -> None:
        """Corruption: a huge leaf appears in the mirror."""
        self.take(op)

    @rule(op=operations(ops.StealReference))
    def steal_reference(self, op: ops.StealReference) -> None:
        """Corruption: the MMU's own reference to the valid direct root is lost."""
        self.take(op)

    @rule(op=operations(ops.HkidRelease))
    def hkid_release(self, op: ops.HkidRelease) -> None:
        """The TD loses its key: the beginning of its end."""
        self.take(op)

    @rule(op=operations(ops.Access))
    def access(self, op: ops.Access) -> None:
        """The guest touches an address: hardware fills its TLB and sets accessed and dirty bits."""
        self.take(op)

    @rule(op=operations(ops.Accept))
    def accept(self, op: ops.Accept) -> None:
        """The guest accepts a private page."""
        self.take(op)

    @rule(op=operations(ops.InitRegion), faults=faults(ops.InitRegion))
    def init_region(self, op: ops.InitRegion, faults: tuple[Fault, ...]) -> None:
        """KVM_TDX_INIT_MEM_REGION of one page."""
        self.take(op, faults)

    @rule(op=operations(ops.Finalize), faults=faults(ops.Finalize))
    def finalize(self, op: ops.Finalize, faults: tuple[Fault, ...]) -> None:
        """KVM_TDX_FINALIZE_VM."""
        self.take(op, faults)

    @rule(op=operations(ops.SeptSet))
    def sept_set(self, op: ops.SeptSet) -> None:
        """The external hook alone, where it must refuse."""
        self.take(op)

    @rule(op=operations(ops.SeptRemove))
    def sept_remove(self, op: ops.SeptRemove) -> None:
        """The external hook alone, where it must refuse."""
        self.take(op)

    @rule(op=operations(ops.SeptFree))
    def sept_free(self, op: ops.SeptFree) -> None:
        """The external hook alone, where it must refuse."""
        self.take(op)

    @rule(op=st.one_of(parallels(ops.PageFault), parallels(ops.SetAttributes), parallels(ops.ZapAllFast)))
    def together(self, op: Parallel) -> None:
        """Two operations at once."""
        self.take(op)


MACHINE = TdpMirror
