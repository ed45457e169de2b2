"""The second half of arch/x86/kvm/mmu/tdp_mmu.c: how a fault maps, and how the tables are asked."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.linux.kvm import Fault, Sp
from conformance.candidates.builtin.tdp_mirror.linux.spte import (
    is_large,
    is_last,
    is_present,
    is_writable,
    make_small_spte,
    make_spte,
    pfn_of,
)
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import TdpIter, walk
from conformance.candidates.builtin.tdp_mirror.linux.tdp_mmu import Zapping
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    EFAULT,
    EIO,
    EXTERNAL,
    FROZEN,
    MIRROR_ROOTS,
    PAGE_SHIFT,
    PFERR_PRIVATE_ACCESS,
    PFERR_WRITE,
    PG_LEVEL_4K,
    RET_PF_FIXED,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    ROLE_LEVEL_MASK,
)


def is_access_allowed(fault: Fault, spte: int) -> bool:
    """is_access_allowed."""
    return is_present(spte) and (not fault.write or is_writable(spte))


class Mapping(Zapping):
    """kvm_tdp_mmu_map and what it calls."""

    def select_root(self, vcpu: int, types: int) -> int:
        """tdp_mmu_get_root; INVALID_PAGE where there is no such root."""
        v = self.kvm.vcpus[vcpu]
        return v.mirror_root if types & MIRROR_ROOTS and not types & DIRECT_ROOTS else v.root

    def root_for_addr(self, vcpu: int, addr: int) -> Sp | None:
        """tdp_mmu_get_root_for_fault: by the address alone. None before the root is loaded."""
        return self.root_to_sp(self.select_root(vcpu, DIRECT_ROOTS if self.addr_is_direct(addr) else MIRROR_ROOTS))

    def strip(self, addr: int) -> int:
        """gfn of an address without its shared bit."""
        return addr >> PAGE_SHIFT & ~self.kvm.direct_bits

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """kvm_tdp_mmu_map of a page that the caller has resolved."""
        if (self.kvm.has_mirror and bool(is_private) == bool(self.addr_is_direct(gpa))) or not self.is_mappable(gpa):
            return -EFAULT
        code = is_private << PFERR_PRIVATE_ACCESS | write << PFERR_WRITE
        return self.tdp_mmu_map(
            Fault(vcpu, gpa, code, False, self.strip(gpa), pfn=pfn, max_level=goal_level, goal_level=goal_level)
        )

    def tdp_mmu_map(self, fault: Fault) -> int:
        """kvm_tdp_mmu_map, mmu_lock held for read. RET_PF, or -EIO for what no mirror may hold.

        What a mirror may not hold is refused here, before a table is made for it; the hook, which asserts it too,
        would come after. No root, or one invalidated meanwhile, is the next load's business.
        """
        root = self.root_for_addr(fault.vcpu, fault.addr)
        if root is None or root.invalid:
            return RET_PF_RETRY
        if self.vm_bug_on(root.is_mirror and fault.goal_level > PG_LEVEL_4K, "a huge leaf for a mirror"):
            return -EIO
        self.port.rcu_read_lock()
        result = self._walk_to_goal(fault, root)
        self.port.rcu_read_unlock()
        return result

    def _walk_to_goal(self, fault: Fault, root: Sp) -> int:
        for it in walk(self, root, fault.gfn, fault.gfn + 1):
            if it.old_spte == FROZEN:
                return RET_PF_RETRY
            if it.level == fault.goal_level:
                return self.map_handle_target_level(fault, it)
            if is_present(it.old_spte) and not is_large(it.old_spte):
                continue
            huge = is_present(it.old_spte)
            if self.vm_bug_on(huge and root.is_mirror, "a huge leaf in a mirror"):
                return -EIO
            sp = self.tdp_mmu_alloc_sp(fault.vcpu)
            if root.is_mirror:
                sp.external_spt = self.port.cache_alloc(fault.vcpu, EXTERNAL)
            self.tdp_mmu_init_child_sp(sp, it)
            if self.split_huge_page(it, sp, shared=True) if huge else self.link_sp(it, sp, shared=True):
                self.tdp_mmu_free_sp(sp)
                return RET_PF_RETRY
        return RET_PF_RETRY

    def tdp_mmu_init_child_sp(self, sp: Sp, it: TdpIter) -> None:
        """tdp_mmu_init_child_sp: the parent's role, one level below."""
        parent = self._sp(it.table)
        role = parent.role & ~ROLE_LEVEL_MASK | parent.level - 1
        self.tdp_mmu_init_sp(sp, (it.table, it.index), it.gfn, role)

    def map_handle_target_level(self, fault: Fault, it: TdpIter) -> int:
        """tdp_mmu_map_handle_target_level. RET_PF."""
        old = it.old_spte
        allowed = fault.prefetch or is_access_allowed(fault, old)
        if is_present(old) and allowed and is_last(old, it.level):
            self.warn_on_once(fault.pfn != pfn_of(old), "a spurious fault found another page")
            return RET_PF_SPURIOUS
        new = make_spte(fault.pfn, it.level, writable=fault.map_writable, prefetch=fault.prefetch)
        if new == old:
            return RET_PF_SPURIOUS
        if self.set_spte_atomic(it, new):
            return RET_PF_RETRY
        if is_present(old) and not is_last(old, it.level):
            self.flush_remote_tlbs_gfn(it.gfn, it.level)
        return RET_PF_FIXED

    def split_huge_page(self, it: TdpIter, sp: Sp, *, shared: bool) -> int:
        """tdp_mmu_split_huge_page. 0, or a negative errno when somebody changed the entry."""
        entries = 1 << self.kvm.index_bits
        pages = self.pages_per_hpage(sp.level)
        for index in range(entries):
            self.port.pt_store(sp.spt, index, make_small_spte(it.old_spte, sp.level, index, pages))
        error = self.link_sp(it, sp, shared=shared)
        if not error:
            self.port.update_page_stats(sp.level, entries)
        return error

    # -- look-ups

    def get_walk(self, vcpu: int, gpa: int) -> tuple[int, ...]:
        """kvm_tdp_mmu_get_walk."""
        return tuple(spte for _, spte in self._get_walk(vcpu, gpa))

    def _get_walk(self, vcpu: int, gpa: int) -> tuple[tuple[int, int], ...]:
        """Level and entry, from the root down."""
        root = self.root_for_addr(vcpu, gpa)
        if root is None or not self.is_mappable(gpa):
            return ()
        gfn = self.strip(gpa)
        self.port.rcu_read_lock()
        found = tuple((it.level, it.old_spte) for it in walk(self, root, gfn, gfn + 1))
        self.port.rcu_read_unlock()
        return found

    def gpa_is_mapped(self, vcpu: int, gpa: int) -> int:
        """kvm_tdp_mmu_gpa_is_mapped."""
        found = self._get_walk(vcpu, gpa)
        if not found:
            return 0
        level, spte = found[-1]
        return int(is_present(spte) and is_last(spte, level))
