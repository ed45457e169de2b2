"""arch/x86/kvm/vmx/tdx.c: the hooks of the external tree, and the TD's memory before it runs."""

from __future__ import annotations

from collections.abc import Callable

from conformance.candidates.builtin.tdp_mirror.linux.kvm_main import KvmMain
from conformance.specs.tdp_mirror.constants import (
    ATTRIBUTE_PRIVATE,
    EBUSY,
    EINTR,
    EINVAL,
    EIO,
    MEM_GUEST_MEMFD,
    PAGE_SHIFT,
    PFERR_GUEST_FINAL,
    PFERR_PRIVATE_ACCESS,
    PFERR_WRITE,
    PG_LEVEL_4K,
    REQ_OUTSIDE_GUEST,
    RET_PF_RETRY,
    SLOT_INVALID,
    TD_RUNNABLE,
    TDX_EPT_ENTRY_STATE_INCORRECT,
    TDX_OPERAND_BUSY,
    TDX_OPERAND_ID_RCX,
    TDX_STATUS_MASK,
)


def operand_busy(status: int) -> bool:
    """tdx_operand_busy."""
    return status & TDX_STATUS_MASK == TDX_OPERAND_BUSY


class Tdx(KvmMain):
    """The TDX half of KVM."""

    def _is_runnable(self) -> bool:
        return self.port.td_state() == TD_RUNNABLE

    # -- hooks that add

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """tdx_sept_link_private_spt."""
        status = self.port.tdh_mem_sept_add(gfn << PAGE_SHIFT, level - 1, page)
        if operand_busy(status):
            return -EBUSY
        return -EIO if self.vm_bug_on(bool(status), f"TDH.MEM.SEPT.ADD: {status:#x}") else 0

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_set_private_spte: the page gets a reference before the TD gets the page."""
        if self.vm_bug_on(level != PG_LEVEL_4K, "a private page is not of 4K"):
            return -EIO
        self.port.page_pin(pfn)
        if self._is_runnable():
            error = self._mem_page_aug(gfn, level, pfn)
        else:
            error = self._record_premap_cnt()
        if error:
            self.port.page_unpin(pfn)
        return error

    def _mem_page_aug(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_mem_page_aug."""
        status = self.port.tdh_mem_page_aug(gfn << PAGE_SHIFT, level - 1, pfn)
        if operand_busy(status):
            return -EBUSY
        return -EIO if self.vm_bug_on(bool(status), f"TDH.MEM.PAGE.AUG: {status:#x}") else 0

    def _record_premap_cnt(self) -> int:
        """tdx_mem_page_record_premap_cnt: TDH.MEM.PAGE.ADD comes later, and takes the count down."""
        if self.vm_bug_on(bool(self.port.pre_fault_allowed()), "prefault of a TD that does not run"):
            return -EIO
        self.port.premapped(1)
        return 0

    # -- hooks that take away: mmu_lock held for write

    def _insist(self, seamcall: Callable[[], int]) -> int:
        """Once more, with all vCPUs kept out of the TD, when the module is busy. The status."""
        status = seamcall()
        if operand_busy(status):
            self.port.wait_for_sept_zap(1)
            self.port.make_all_cpus_request(REQ_OUTSIDE_GUEST)
            status = seamcall()
            self.port.wait_for_sept_zap(0)
        return status

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_remove_private_spte. A page that is not in the TD yet is done with once it is not counted."""
        if self.vm_bug_on(not self.port.hkid_assigned(), "a page is removed from a TD without its key"):
            return -EIO
        if self.vm_bug_on(level != PG_LEVEL_4K, "a private page is not of 4K"):
            return -EIO
        gpa = gfn << PAGE_SHIFT
        status = self._insist(lambda: self.port.tdh_mem_range_block(gpa, level - 1))
        if self._is_premap_error(status) and self._uncount_premap():
            self.port.page_unpin(pfn)
            return 0
        if self.vm_bug_on(bool(status), f"TDH.MEM.RANGE.BLOCK: {status:#x}"):
            return -EIO
        self._track()
        return self._drop_private_spte(gpa, level, pfn)

    def _is_premap_error(self, status: int) -> bool:
        """tdx_is_sept_zap_err_due_to_premap."""
        return not self._is_runnable() and status == TDX_EPT_ENTRY_STATE_INCORRECT | TDX_OPERAND_ID_RCX

    def _uncount_premap(self) -> bool:
        if self.vm_bug_on(not self.port.premapped(0), "no page waits for TDH.MEM.PAGE.ADD"):
            return False
        self.port.premapped(-1)
        return True

    def _track(self) -> None:
        """tdx_track; nothing can be cached of a TD that never ran. If it fails, the removal that follows will too."""
        if not self._is_runnable():
            return
        status = self._insist(self.port.tdh_mem_track)
        self.vm_bug_on(bool(status), f"TDH.MEM.TRACK: {status:#x}")
        self.port.make_all_cpus_request(REQ_OUTSIDE_GUEST)

    def _drop_private_spte(self, gpa: int, level: int, pfn: int) -> int:
        """tdx_sept_drop_private_spte. After a failure the reference stays, as the TD may still have the page."""
        status = self._insist(lambda: self.port.tdh_mem_page_remove(gpa, level - 1))
        if self.vm_bug_on(bool(status), f"TDH.MEM.PAGE.REMOVE: {status:#x}"):
            return -EIO
        status = self.port.tdh_phymem_page_wbinvd(pfn)
        if self.vm_bug_on(bool(status), f"TDH.PHYMEM.PAGE.WBINVD: {status:#x}"):
            return -EIO
        self.port.clear_page(pfn)
        self.port.page_unpin(pfn)
        return 0

    def sept_free(self, gfn: int, level: int, page: int) -> int:
        """tdx_sept_free_private_spt."""
        if self.vm_bug_on(bool(self.port.hkid_assigned()), "a table is freed of a TD that has its key"):
            return -EIO
        if self.warn_on_once(bool(self.port.tdh_phymem_page_reclaim(page)), "TDH.PHYMEM.PAGE.RECLAIM"):
            return -EIO
        self.port.clear_page(page >> PAGE_SHIFT)
        return 0

    # -- faults

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """tdx_handle_ept_violation: a write, tried again here, as the guest would only come back.

        Whether the VM is dead is looked at before trying again, not before.
        """
        code = 1 << PFERR_GUEST_FINAL | 1 << PFERR_WRITE
        private = not self.addr_is_direct(gpa)
        if private:
            code |= 1 << PFERR_PRIVATE_ACCESS
        while True:
            result = self.mmu_do_page_fault(vcpu, gpa, code, prefetch=False)
            if result != RET_PF_RETRY or not private:
                return result
            if self.port.vcpu_has_events(vcpu) or self.port.signal_pending():
                return result
            if self.port.vm_is_dead():
                return -EIO
            slot = self.port.memslot(self.strip(gpa))
            if slot and slot[3] & SLOT_INVALID:
                return result
            self.port.cond_resched()

    # -- the TD's memory before it runs

    def init_mem_region(self, vcpu: int, gpa: int) -> int:
        """tdx_vcpu_init_mem_region of one page."""
        if self.ioctl_is_refused():
            return -EIO
        self.port.slots_lock()
        error = self._init_mem_region_locked(vcpu, gpa)
        self.port.slots_unlock()
        return error

    def _init_mem_region_locked(self, vcpu: int, gpa: int) -> int:
        if self._is_runnable() or gpa & (1 << PAGE_SHIFT) - 1 or self.addr_is_direct(gpa):
            return -EINVAL
        error = self.mmu_reload(vcpu)
        if error:
            return error
        if self.port.signal_pending():
            return -EINTR
        return self.gmem_populate(vcpu, gpa)

    def gmem_populate(self, vcpu: int, gpa: int) -> int:
        """kvm_gmem_populate, under the lock of the file."""
        slot = self.port.memslot(gpa >> PAGE_SHIFT)
        if not slot or not slot[3] & MEM_GUEST_MEMFD:
            return -EINVAL
        self.port.filemap_invalidate_lock()
        error = self._gmem_populate_locked(vcpu, gpa, slot)
        self.port.filemap_invalidate_unlock()
        return error

    def _gmem_populate_locked(self, vcpu: int, gpa: int, slot: tuple[int, ...]) -> int:
        """The page of the file first, then whether its attributes are right, then the TD."""
        gfn = gpa >> PAGE_SHIFT
        pfn = self.port.gmem_get_pfn(slot[0], gfn)
        if pfn < 0:
            return pfn
        error = -EINVAL
        if self.port.range_has_attributes(gfn, gfn + 1, ATTRIBUTE_PRIVATE):
            error = self.gmem_post_populate(vcpu, gpa, pfn)
        self.port.pfn_release(pfn)
        return error

    def gmem_post_populate(self, vcpu: int, gpa: int, pfn: int) -> int:
        """tdx_gmem_post_populate: map, then add; the locks held keep the mapping until then."""
        code = 1 << PFERR_GUEST_FINAL | 1 << PFERR_PRIVATE_ACCESS
        self.port.srcu_read_lock()
        level = self.tdp_map_page(vcpu, gpa, code)
        self.port.srcu_read_unlock()
        if level < 0:
            return level
        status = self.port.tdh_mem_page_add(gpa, pfn)
        if status:
            return -EBUSY if operand_busy(status) else -EIO
        self._uncount_premap()
        return 0

    def td_finalize(self) -> int:
        """tdx_td_finalize: prefault is allowed only once the TD is seen to run."""
        if self.ioctl_is_refused():
            return -EIO
        self.port.slots_lock()
        error = self._finalize_locked()
        self.port.slots_unlock()
        return error

    def _finalize_locked(self) -> int:
        if not self.port.hkid_assigned() or self._is_runnable() or self.port.premapped(0):
            return -EINVAL
        status = self.port.tdh_mr_finalize()
        if operand_busy(status):
            return -EBUSY
        if self.vm_bug_on(bool(status), f"TDH.MR.FINALIZE: {status:#x}"):
            return -EIO
        self.port.set_td_state(TD_RUNNABLE)
        self.port.allow_pre_fault()
        return 0
