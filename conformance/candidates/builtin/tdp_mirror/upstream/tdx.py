"""The hooks behind the external operations, and what maps for the TD: tdx.c."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.tdp_mirror.upstream.faults import Faults
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault
from conformance.candidates.builtin.tdp_mirror.upstream.spte import PA_MASK, is_present
from conformance.specs.tdp_mirror.constants import (
    EBUSY,
    EINVAL,
    EIO,
    ENOENT,
    PG_LEVEL_4K,
    REQ_OUTSIDE_GUEST,
    RET_PF_RETRY,
    SLOT_INVALID,
    TD_INIT,
    TD_RUNNABLE,
    TDX_EPT_ENTRY_STATE_INCORRECT,
    TDX_OPERAND_BUSY,
    TDX_OPERAND_ID_RCX,
    TDX_STATUS_MASK,
)


class Tdx(Faults):
    """The TD."""

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """tdx_handle_ept_violation of the private half."""
        port = self.port
        while True:
            if port.vm_is_dead():
                return -EIO
            fault = Fault(vcpu, gpa, True, True, False)
            result = self.handle_fault(fault)
            if result != RET_PF_RETRY:
                return result
            if fault.slot and fault.slot[3] & SLOT_INVALID:
                return result
            if port.vcpu_has_events(vcpu) or port.signal_pending():
                return -EIO if port.vm_is_dead() else result
            port.cond_resched()

    def status(self, status: int) -> int:
        """A SEAMCALL's status without its operand."""
        return status & TDX_STATUS_MASK

    def sept_error(self, status: int) -> int:
        """0, -EBUSY, or a VM bug and -EIO."""
        if not status:
            return 0
        if self.status(status) == TDX_OPERAND_BUSY:
            return -EBUSY
        self.port.vm_bug(f"SEAMCALL failed: {status:#x}")
        return -EIO

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """tdx_sept_link_private_spt."""
        return self.sept_error(self.port.tdh_mem_sept_add(gfn << 12, level - 1, page))

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_set_private_spte."""
        port = self.port
        if level != PG_LEVEL_4K:
            port.vm_bug("private leaf above 4K")
            return -EIO
        port.page_pin(pfn)
        if port.td_state() == TD_RUNNABLE:
            error = self.sept_error(port.tdh_mem_page_aug(gfn << 12, 0, pfn))
        else:
            error = self.sept_premap(gfn, pfn)
        if error:
            self.unpin_after_error(pfn)
        return error

    def unpin_after_error(self, pfn: int) -> None:
        """The page was not given to the TD."""
        self.port.page_unpin(pfn)

    def sept_premap(self, gfn: int, pfn: int) -> int:
        """Before finalize the page is only counted; tdx_gmem_post_populate adds it."""
        if self.port.pre_fault_allowed():
            self.port.vm_bug("prefault before finalize")
            return -EIO
        self.port.premapped(1)
        return 0

    def insist(self, call: Any, *args: int) -> int:
        """A SEAMCALL that needs exclusive access: when busy, keep vCPUs out and try once more."""
        port = self.port
        status: int = call(*args)
        if self.status(status) == TDX_OPERAND_BUSY:
            port.wait_for_sept_zap(1)
            port.make_all_cpus_request(REQ_OUTSIDE_GUEST)
            status = call(*args)
            port.wait_for_sept_zap(0)
        return status

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_remove_private_spte: block, track, kick, remove, clean."""
        port = self.port
        if not port.hkid_assigned():
            port.vm_bug("no HKID")
            return self.bug_error()
        gpa = gfn << 12
        status = self.insist(port.tdh_mem_range_block, gpa, level - 1)
        not_there = TDX_EPT_ENTRY_STATE_INCORRECT | TDX_OPERAND_ID_RCX
        if status == not_there and port.td_state() != TD_RUNNABLE:
            self.forget_premapped(pfn)
            return 0
        if status or self.track():
            port.vm_bug("private page not blocked")
            return -EIO
        if self.insist(port.tdh_mem_page_remove, gpa, level - 1):
            port.vm_bug("private page not removed")
            return -EIO
        self.clean(pfn)
        port.page_unpin(pfn)
        return 0

    def forget_premapped(self, pfn: int) -> None:
        """The page was counted, and never added."""
        self.port.premapped(-1)
        self.port.page_unpin(pfn)

    def bug_error(self) -> int:
        """What a VM bug returns."""
        return -EIO

    def track(self) -> int:
        """tdx_track."""
        port = self.port
        if port.td_state() != TD_RUNNABLE:
            return 0
        status = self.insist(port.tdh_mem_track)
        port.make_all_cpus_request(REQ_OUTSIDE_GUEST)
        return status

    def clean(self, pfn: int) -> None:
        """The host may read the page again."""
        self.port.tdh_phymem_page_wbinvd(pfn)
        self.port.clear_page(pfn)

    def sept_free(self, gfn: int, level: int, page: int) -> int:
        """tdx_sept_free_private_spt."""
        port = self.port
        if port.hkid_assigned():
            port.vm_bug("HKID still assigned")
            return self.bug_error()
        if port.tdh_phymem_page_reclaim(page):
            port.vm_bug("page not reclaimed")
            return -EIO
        return 0

    def init_mem_region(self, vcpu: int, gpa: int) -> int:
        """tdx_vcpu_init_mem_region of one page."""
        port = self.port
        port.slots_lock()
        if port.td_state() == TD_RUNNABLE:
            port.slots_unlock()
            return -EINVAL
        port.srcu_read_lock()
        error = self.tdp_map_page(vcpu, gpa, True)
        if error >= 0:
            error = self.populate(vcpu, gpa)
        port.srcu_read_unlock()
        port.slots_unlock()
        return error

    def populate(self, vcpu: int, gpa: int) -> int:
        """tdx_gmem_post_populate."""
        port = self.port
        port.read_lock()
        sptes = self.get_walk(vcpu, gpa)
        error = -ENOENT
        if is_present(sptes[-1]):
            error = self.sept_error_quiet(port.tdh_mem_page_add(gpa, (sptes[-1] & PA_MASK) >> 12))
        if not error:
            port.premapped(-1)
        port.read_unlock()
        return error

    def sept_error_quiet(self, status: int) -> int:
        """As `sept_error`, without a VM bug."""
        if not status:
            return 0
        return -EBUSY if self.status(status) == TDX_OPERAND_BUSY else -EIO

    def td_finalize(self) -> int:
        """tdx_td_finalize."""
        self.port.slots_lock()
        error = self.finalize()
        self.port.slots_unlock()
        return error

    def finalize(self) -> int:
        """With slots_lock held, so that no page is being added."""
        port = self.port
        if port.td_state() != TD_INIT or not port.hkid_assigned() or port.premapped(0):
            return -EINVAL
        error = self.sept_error_quiet(port.tdh_mr_finalize())
        if not error:
            port.set_td_state(TD_RUNNABLE)
            port.allow_pre_fault()
        return error
