"""Legal relatives of the candidate `linux`: other releases, and what another maintainer could have decided."""

from __future__ import annotations

from collections.abc import Callable

from conformance.candidates.builtin.tdp_mirror.linux import Linux
from conformance.candidates.builtin.tdp_mirror.linux.kvm import Fault, Sp
from conformance.candidates.builtin.tdp_mirror.linux.spte import is_last, is_present, make_nonleaf_spte, make_spte
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import TdpIter, walk
from conformance.candidates.builtin.tdp_mirror.linux.tdp_mmu_map import is_access_allowed
from conformance.candidates.builtin.tdp_mirror.linux.tdx import operand_busy
from conformance.specs.tdp_mirror.constants import (
    EBUSY,
    EINTR,
    EINVAL,
    EIO,
    MEM_GUEST_MEMFD,
    NONPRESENT,
    PAGE_SHIFT,
    PFERR_GUEST_FINAL,
    PFERR_PRIVATE_ACCESS,
    PG_LEVEL_2M,
    PG_LEVEL_4K,
    RET_PF_FIXED,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    ROLE_LEVEL_MASK,
    SLOT_INVALID,
)


class Linux619(Linux):
    """6.19: a page is added to the TD while its entry is frozen, nothing is pinned, and removal tells nobody."""

    profile = "upstream-6.19"

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_set_private_spte."""
        if self.vm_bug_on(level != PG_LEVEL_4K, "a private page is not of 4K"):
            return -EIO
        return self._mem_page_aug(gfn, level, pfn) if self._is_runnable() else self._mem_page_add(gfn, pfn)

    def _mem_page_add(self, gfn: int, pfn: int) -> int:
        if self.vm_bug_on(bool(self.port.pre_fault_allowed()), "prefault of a TD that does not run"):
            return -EIO
        status = self.port.tdh_mem_page_add(gfn << PAGE_SHIFT, pfn)
        if operand_busy(status):
            return -EBUSY
        return -EIO if self.vm_bug_on(bool(status), f"TDH.MEM.PAGE.ADD: {status:#x}") else 0

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_remove_private_spte, void."""
        if self.vm_bug_on(not self.port.hkid_assigned(), "a page is removed from a TD without its key"):
            return 0
        if self.vm_bug_on(level != PG_LEVEL_4K, "a private page is not of 4K"):
            return 0
        gpa = gfn << PAGE_SHIFT
        status = self._insist(lambda: self.port.tdh_mem_range_block(gpa, level - 1))
        if self.vm_bug_on(bool(status), f"TDH.MEM.RANGE.BLOCK: {status:#x}"):
            return 0
        self._track()
        status = self._insist(lambda: self.port.tdh_mem_page_remove(gpa, level - 1))
        if self.vm_bug_on(bool(status), f"TDH.MEM.PAGE.REMOVE: {status:#x}"):
            return 0
        status = self.port.tdh_phymem_page_wbinvd(pfn)
        if not self.vm_bug_on(bool(status), f"TDH.PHYMEM.PAGE.WBINVD: {status:#x}"):
            self.port.clear_page(pfn)
        return 0

    def gmem_post_populate(self, vcpu: int, gpa: int, pfn: int) -> int:
        """kvm_tdp_mmu_map_private_pfn: the page that the file gave, with no second look-up."""
        slot = self.port.memslot(gpa >> PAGE_SHIFT)
        if not slot or not slot[3] & MEM_GUEST_MEMFD:
            return -EINVAL
        error = self.mmu_reload(vcpu) or self.topup_memory_caches(vcpu)
        if error:
            return error
        code = 1 << PFERR_GUEST_FINAL | 1 << PFERR_PRIVATE_ACCESS
        result = RET_PF_RETRY
        while result == RET_PF_RETRY:
            if self.port.signal_pending():
                return -EINTR
            if self.port.vm_is_dead():
                return -EIO
            self.port.cond_resched()
            self.port.read_lock()
            fault = Fault(vcpu, gpa, code, True, gpa >> PAGE_SHIFT, slot=slot, pfn=pfn, max_level=PG_LEVEL_4K)
            result = self.tdp_mmu_map(fault)
            self.port.read_unlock()
        return 0 if result == RET_PF_FIXED else -EIO


class AttributesFirst(Linux):
    """Before TDH.MEM.PAGE.ADD the page is resolved as a fault would: sequence and attributes are read first."""

    def gmem_populate(self, vcpu: int, gpa: int) -> int:
        """Attributes, then the page of the file."""
        self.port.mmu_invalidate_seq()
        self.port.attributes(gpa >> PAGE_SHIFT)
        return super().gmem_populate(vcpu, gpa)


class FlushesMore(AttributesFirst):
    """Whoever unmaps or maps flushes, whether or not it is due."""

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """A flush is always asked for."""
        return super().zap_leafs(start, end, flush) | 1

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """A flush is always asked for."""
        return super().unmap_gfn_range(start, end, attr_filter, may_block, flush) | 1

    def zap_all(self) -> None:
        """Whoever may still run sees nothing of what is gone."""
        self.port.write_lock()
        self.port.flush_remote_tlbs()
        self.port.write_unlock()
        super().zap_all()
        self.port.flush_remote_tlbs()

    def map_handle_target_level(self, fault: Fault, it: TdpIter) -> int:
        """Any change of an entry is followed by a flush of its gfn."""
        result = super().map_handle_target_level(fault, it)
        self.flush_remote_tlbs_gfn(it.gfn, it.level)
        return result


class FindsDeathElsewhere(AttributesFirst):
    """Entering the guest, loading and faulting look for a dead VM; ioctls do not, and a map looks under the lock."""

    def mmu_reload(self, vcpu: int) -> int:
        """As vcpu_enter_guest does: KVM_REQ_VM_DEAD is the first of the requests."""
        return -EIO if self.port.vm_is_dead() else super().mmu_reload(vcpu)

    def tdp_mmu_map(self, fault: Fault) -> int:
        """A dead VM gets no more entries."""
        return -EIO if self.port.vm_is_dead() else super().tdp_mmu_map(fault)

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """Before the first try."""
        return -EIO if self.port.vm_is_dead() else super().ept_violation(vcpu, gpa)

    def ioctl_is_refused(self) -> bool:
        """Kernels before vm_dead let every ioctl in."""
        return False


class Exchanges(AttributesFirst):
    """Write protection always exchanges the entry, whether or not somebody could change it meanwhile."""

    def protect(self, it: TdpIter, new: int) -> None:
        """The old value, which it returns, shows whatever hardware has set."""
        old = self.port.pt_xchg(it.table, it.index, new)
        self.handle_changed_spte(it.gfn, old, new, it.level, shared=False)


class RecoversByZapping(AttributesFirst):
    """Before 6.13: leaves that could be huge are zapped, and the next fault maps them anew."""

    def recover_huge_pages_range(self, root: Sp, slot: tuple[int, ...], *, flush: bool) -> bool:
        """zap_collapsible_spte_range, under the write lock."""
        _, base, npages, _ = slot
        self.port.rcu_read_lock()
        for it in walk(self, root, base, base + npages):
            if self.iter_cond_resched(it, flush=flush):
                flush = False
                continue
            if not is_present(it.old_spte) or not is_last(it.old_spte, it.level):
                continue
            if self.max_mapping_level(slot, it.gfn) > it.level:
                self.iter_set_spte(it, NONPRESENT)
                flush = True
        self.port.rcu_read_unlock()
        return flush


class ZapsInTwoPasses(AttributesFirst):
    """Without CONFIG_KVM_PROVE_MMU: tables of 1G first, then the entries of the root."""

    def zap_root_levels(self, root: Sp) -> tuple[int, ...]:
        """Where a root is of 1G entries, blocks of 2M are the first pass."""
        return (min(PG_LEVEL_2M + 1, root.level - 1), root.level)


class BuildsAside(AttributesFirst):
    """In a direct root, tables that are missing are filled, leaf and all, before one exchange links them."""

    def _walk_to_goal(self, fault: Fault, root: Sp) -> int:
        """What is there is walked as usual; a mirror is built from the top."""
        for it in () if root.is_mirror else walk(self, root, fault.gfn, fault.gfn + 1):
            if it.old_spte == NONPRESENT and it.level > fault.goal_level:
                return self._build_aside(fault, it)
            if not is_present(it.old_spte) or is_last(it.old_spte, it.level) or it.level == fault.goal_level:
                break
        return super()._walk_to_goal(fault, root)

    def _build_aside(self, fault: Fault, it: TdpIter) -> int:
        """Tables from the entry down to the goal, the lowest filled first."""
        made: list[Sp] = []
        table, index = it.table, it.index
        for level in range(it.level - 1, fault.goal_level - 1, -1):
            sp = self.tdp_mmu_alloc_sp(fault.vcpu)
            role = self._sp(it.table).role & ~ROLE_LEVEL_MASK | level
            self.tdp_mmu_init_sp(sp, (table, index), fault.gfn & -self.pages_per_hpage(level + 1), role)
            made.append(sp)
            shifted = (fault.gfn | self.kvm.direct_bits) >> self.kvm.index_bits * (level - 1)
            table, index = sp.spt, shifted & (1 << self.kvm.index_bits) - 1
        spte = make_spte(fault.pfn, fault.goal_level, writable=fault.map_writable, prefetch=fault.prefetch)
        self.fill(table, index, spte)
        for sp in reversed(made[1:]):
            assert sp.ptep is not None
            self.port.pt_store(*sp.ptep, make_nonleaf_spte(sp.spt))
        if self.port.pt_cmpxchg(it.table, it.index, NONPRESENT, make_nonleaf_spte(made[0].spt)) != NONPRESENT:
            for sp in made:
                self.tdp_mmu_free_sp(sp)
            return RET_PF_RETRY
        self.port.account_pgtable(len(made))
        self.port.update_page_stats(fault.goal_level, 1)
        return RET_PF_FIXED

    def fill(self, table: int, index: int, spte: int) -> None:
        """The leaf, in a table that nobody else sees yet."""
        self.port.pt_store(table, index, spte)


class LooksFirst(AttributesFirst):
    """A page that is mapped already is found without a lock, before anything is resolved or allocated."""

    def tdp_page_fault(self, fault: Fault) -> int:
        """What is wrong with slot or attributes is seen first."""
        fits = fault.slot and not fault.slot[3] & SLOT_INVALID and self.is_mappable(fault.addr)
        private = not self.addr_is_direct(fault.addr)
        right = fault.is_private is private and private is self.is_private_gfn(fault.gfn)
        root = self.root_for_addr(fault.vcpu, fault.addr)
        if self.kvm.has_mirror and fits and right and root and not root.invalid:
            level = self.look(fault, root)
            if level:
                fault.goal_level = level
                return RET_PF_SPURIOUS
        return super().tdp_page_fault(fault)

    def look(self, fault: Fault, root: Sp) -> int:
        """The level at which a leaf permits the access; 0 without one. No mirror has any but of 4K."""
        found = 0
        self.port.rcu_read_lock()
        for it in walk(self, root, fault.gfn, fault.gfn + 1):
            if is_last(it.old_spte, it.level) and (fault.prefetch or is_access_allowed(fault, it.old_spte)):
                found = it.level if is_present(it.old_spte) and not (root.is_mirror and it.level > PG_LEVEL_4K) else 0
        self.port.rcu_read_unlock()
        return found


class TriesAgain(AttributesFirst):
    """A SEAMCALL that adds is made up to three times while the module is busy, as v19 of the series made it sixteen."""

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """TDH.MEM.SEPT.ADD."""
        return self.told(self.again(lambda: self.port.tdh_mem_sept_add(gfn << PAGE_SHIFT, level - 1, page)))

    def _mem_page_aug(self, gfn: int, level: int, pfn: int) -> int:
        """TDH.MEM.PAGE.AUG."""
        return self.told(self.again(lambda: self.port.tdh_mem_page_aug(gfn << PAGE_SHIFT, level - 1, pfn)))

    def again(self, seamcall: Callable[[], int]) -> int:
        """The last status."""
        status = seamcall()
        for _ in range(2):
            status = seamcall() if operand_busy(status) else status
        return status

    def told(self, status: int) -> int:
        """0, -EBUSY, or -EIO with a VM bug."""
        if operand_busy(status):
            return -EBUSY
        return -EIO if self.vm_bug_on(bool(status), f"a page could not be added: {status:#x}") else 0


PEERS = {
    "linux-6.19": Linux619,
    "attributes-first": AttributesFirst,
    "flushes-more": FlushesMore,
    "finds-death-elsewhere": FindsDeathElsewhere,
    "exchanges": Exchanges,
    "recovers-by-zapping": RecoversByZapping,
    "zaps-in-two-passes": ZapsInTwoPasses,
    "builds-aside": BuildsAside,
    "looks-first": LooksFirst,
    "tries-again": TriesAgain,
}
"""Name to class; each class says in its first sentence how it differs."""
