"""Leaves that are mapped, tables that are linked on the way, and lockless walks: tdp_mmu.c."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault, ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import (
    ACCESSED,
    DIRTY,
    HUGE,
    PA_MASK,
    PRESENT,
    SOFT_WRITABLE,
    TABLE_ENTRY,
    WRITABLE,
    is_last,
    is_present,
)
from conformance.candidates.builtin.tdp_mirror.upstream.tables import Tables
from conformance.specs.tdp_mirror.constants import (
    EIO,
    EXEC,
    FROZEN,
    INVALID_PAGE,
    MEMTYPE_WB,
    NONPRESENT,
    READ,
    RET_PF_CONTINUE,
    RET_PF_FIXED,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
)


class Mapping(Tables):
    """Building down to a leaf."""

    def fault_root(self, fault: Fault) -> int:
        """tdp_mmu_get_root_for_fault."""
        if self.mirror and not self.addr_is_direct(fault.gpa):
            return self.mirror_root_hpa[fault.vcpu]
        return self.root_hpa[fault.vcpu]

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """kvm_tdp_mmu_map for a caller that resolved the page itself."""
        fault = Fault(vcpu, gpa, bool(is_private), bool(write), False)
        fault.gfn &= ~self.bits
        fault.pfn = pfn + (fault.gfn & (self.pages_per_entry(goal_level) - 1))
        fault.goal_level = goal_level
        if self.fault_root(fault) == INVALID_PAGE:
            return -EIO
        return self.tdp_mmu_map(fault)

    def refuses_level(self, root: ShadowPage, fault: Fault) -> bool:
        """Mirrors take nothing but 4K."""
        return root.mirror and fault.goal_level > 1

    def tdp_mmu_map(self, fault: Fault) -> int:
        """kvm_tdp_mmu_map: descend to the goal level, building tables on the way."""
        root = self.sps[self.fault_root(fault)]
        if self.refuses_level(root, fault) or root.invalid:
            return -EIO
        self.port.rcu_read_lock()
        result = self.descend(root, fault)
        self.port.rcu_read_unlock()
        return result

    def descend(self, root: ShadowPage, fault: Fault) -> int:
        """One entry per level."""
        port = self.port
        raw = fault.gfn | self.root_bits(root)
        sp = root
        while True:
            index = self.index_of(raw, sp.level)
            spte = port.pt_read(sp.page, index)
            if spte == FROZEN:
                return RET_PF_RETRY
            if sp.level == fault.goal_level:
                return self.map_target(sp, index, spte, fault)
            if not is_present(spte) or is_last(spte, sp.level):
                result = self.build_table(sp, index, spte, fault)
                if result != RET_PF_CONTINUE:
                    return result
                continue
            sp = self.sps[spte & PA_MASK]

    def build_table(self, sp: ShadowPage, index: int, spte: int, fault: Fault) -> int:
        """Link a new table under an entry, or split the huge leaf that is there."""
        gfn = fault.gfn & ~(self.pages_per_entry(sp.level) - 1)
        if is_present(spte) and sp.mirror and not self.splits_mirror():
            self.port.vm_bug("huge leaf in a mirror")
            return -EIO
        child = self.alloc_sp(fault.vcpu, sp.mirror, sp.level - 1, gfn, with_external=sp.mirror)
        if is_present(spte):
            self.fill_split(child, spte)
        if self.link_sp(sp, index, gfn, spte, child):
            self.free_sp(child)
            return RET_PF_RETRY
        return RET_PF_CONTINUE

    def splits_mirror(self) -> bool:
        """Whether the check on huge mirror leaves lets the split go on."""
        return False

    def fill_split(self, child: ShadowPage, huge: int) -> None:
        """Leaves of the next level for all that a huge leaf maps."""
        small = huge & ~HUGE if child.level == 1 else huge
        step = self.pages_per_entry(child.level) << 12
        for index in range(self.entries):
            self.port.pt_store(child.page, index, small + index * step)
        if not child.mirror:
            self.port.update_page_stats(child.level, self.entries)

    def link_sp(self, sp: ShadowPage, index: int, gfn: int, old: int, child: ShadowPage) -> int:
        """tdp_mmu_link_sp."""
        child.parent = (sp.page, index)
        error, _ = self.set_spte_atomic(sp, index, gfn, old, TABLE_ENTRY | child.page)
        if not error:
            self.port.account_pgtable(1)
        elif is_present(old) and not child.mirror:
            self.port.update_page_stats(child.level, -self.entries)
        return error

    def make_spte(self, fault: Fault, level: int, mirror: bool) -> int:
        """A leaf."""
        pfn = fault.pfn & ~(self.pages_per_entry(level) - 1)
        spte = NONPRESENT | PRESENT | MEMTYPE_WB | 1 << READ | 1 << EXEC | pfn << 12
        if not fault.prefetch:
            spte |= ACCESSED
        if level > 1:
            spte |= HUGE
        if fault.writable or mirror:
            spte |= WRITABLE | DIRTY | SOFT_WRITABLE
        return spte

    def map_target(self, sp: ShadowPage, index: int, old: int, fault: Fault) -> int:
        """tdp_mmu_map_handle_target_level."""
        was = is_present(old)
        was_leaf = was and is_last(old, sp.level)
        if was_leaf and (fault.prefetch or not fault.write or old & WRITABLE):
            return RET_PF_SPURIOUS
        new = self.make_spte(fault, sp.level, sp.mirror)
        if was_leaf:
            new |= old & (ACCESSED | DIRTY)
        if new == old:
            return RET_PF_SPURIOUS
        gfn = fault.gfn & ~(self.pages_per_entry(sp.level) - 1)
        error, _ = self.set_spte_atomic(sp, index, gfn, old, new)
        if error:
            return RET_PF_RETRY
        if was and not was_leaf:
            self.flush_gfns(gfn, self.pages_per_entry(sp.level))
        return RET_PF_FIXED

    def flush_gfns(self, gfn: int, count: int) -> None:
        """kvm_flush_remote_tlbs_range."""
        if self.port.flush_range(gfn, count):
            self.port.flush_remote_tlbs()

    def last_spte(self, root: int, gfn: int) -> tuple[int, int, int] | None:
        """Place and value of the leaf of a shared gfn."""
        if self.is_unmappable(gfn):
            return None
        page = root
        for level in range(self.levels, 0, -1):
            index = self.index_of(gfn | self.bits, level)
            spte = self.port.pt_read(page, index)
            if not is_present(spte):
                return None
            if is_last(spte, level):
                return page, index, spte
            page = spte & PA_MASK
        return None

    def get_walk(self, vcpu: int, gpa: int) -> tuple[int, ...]:
        """kvm_tdp_mmu_get_walk."""
        direct = self.addr_is_direct(gpa)
        page = self.root_hpa[vcpu] if direct else self.mirror_root_hpa[vcpu]
        gfn = gpa >> 12 & ~self.bits
        if self.is_unmappable(gfn):
            return ()
        raw = gfn | (self.bits if direct else 0)
        sptes: tuple[int, ...] = ()
        self.port.rcu_read_lock()
        for level in range(self.levels, 0, -1):
            spte = self.port.pt_read(page, self.index_of(raw, level))
            sptes += (spte,)
            if not is_present(spte) or is_last(spte, level):
                break
            page = spte & PA_MASK
        self.port.rcu_read_unlock()
        return sptes

    def gpa_is_mapped(self, vcpu: int, gpa: int) -> int:
        """kvm_tdp_mmu_gpa_is_mapped."""
        sptes = self.get_walk(vcpu, gpa)
        level = self.levels - len(sptes) + 1
        return int(bool(sptes) and is_present(sptes[-1]) and is_last(sptes[-1], level))
