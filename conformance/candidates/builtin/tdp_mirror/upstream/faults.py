"""Page faults, slow and fast, and prefaults: mmu.c."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream.mapping import Mapping
from conformance.candidates.builtin.tdp_mirror.upstream.mmu import Mmu
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault
from conformance.candidates.builtin.tdp_mirror.upstream.spte import ACCESSED, DIRTY, SOFT_WRITABLE, WRITABLE
from conformance.specs.tdp_mirror import constants as k


class Faults(Mmu, Mapping):
    """From an address to a leaf, or a reason why not."""

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """kvm_mmu_do_page_fault."""
        private = bool(error_code >> k.PFERR_PRIVATE_ACCESS & 1)
        write = bool(error_code >> k.PFERR_WRITE & 1)
        fault = Fault(vcpu, gpa, private, write, bool(prefetch))
        if self.halves_disagree(fault):
            self.fault_exit(fault)
            return -k.EFAULT
        if error_code >> k.PFERR_PRESENT & 1:
            result = self.fast_pf(vcpu, gpa, error_code)
            if result != k.RET_PF_INVALID:
                return result
        return self.handle_fault(fault)

    def halves_disagree(self, fault: Fault) -> bool:
        """Whether access and address name different halves."""
        return self.mirror and fault.private == bool(self.addr_is_direct(fault.gpa))

    def fault_exit(self, fault: Fault) -> None:
        """kvm_mmu_prepare_memory_fault_exit."""
        flags = k.MEMORY_EXIT_PRIVATE if fault.private else 0
        self.port.memory_fault_exit((fault.gfn & ~self.bits) << 12, 4096, flags)

    def handle_fault(self, fault: Fault) -> int:
        """kvm_tdp_mmu_page_fault."""
        port = self.port
        fault.gfn &= ~self.bits
        error = self.topup(fault.vcpu)
        if error:
            return error
        result = self.faultin(fault)
        if result != k.RET_PF_CONTINUE:
            return result
        port.read_lock()
        result = k.RET_PF_RETRY if self.is_stale(fault) else self.map_fault(fault)
        port.read_unlock()
        port.pfn_release(fault.pfn)
        return result

    def faultin_pfn(self, vcpu: int, gfn: int, is_private: int) -> int:
        """kvm_mmu_faultin_pfn alone."""
        fault = Fault(vcpu, gfn << 12, bool(is_private), False, False)
        result = self.faultin(fault)
        if result == k.RET_PF_CONTINUE:
            self.port.pfn_release(fault.pfn)
        return result

    def faultin(self, fault: Fault) -> int:
        """kvm_mmu_faultin_pfn: snapshot, attributes, slot, page."""
        port = self.port
        if fault.gfn & self.bits:
            port.vm_bug("alias gfn")
            return -k.EFAULT
        fault.seq = port.mmu_invalidate_seq()
        if self.private and fault.private != bool(port.attributes(fault.gfn)):
            self.fault_exit(fault)
            return -k.EFAULT
        fault.slot = slot = port.memslot(fault.gfn)
        if not slot:
            return self.no_slot(fault)
        if slot[3] & k.SLOT_INVALID:
            return -k.EAGAIN if fault.prefetch else k.RET_PF_RETRY
        if self.is_unmappable(fault.gfn):
            self.fault_exit(fault)
            return -k.EFAULT
        if port.mmu_invalidate_retry(fault.seq, fault.gfn):
            return k.RET_PF_RETRY
        result = self.get_pfn(fault)
        if result == k.RET_PF_CONTINUE and port.mmu_invalidate_retry(fault.seq, fault.gfn):
            port.pfn_release(fault.pfn)
            return k.RET_PF_RETRY
        return result

    def no_slot(self, fault: Fault) -> int:
        """kvm_handle_noslot_fault."""
        if fault.private:
            self.fault_exit(fault)
            return -k.EFAULT
        return k.RET_PF_EMULATE

    def get_pfn(self, fault: Fault) -> int:
        """__kvm_mmu_faultin_pfn."""
        port, slot = self.port, fault.slot
        if fault.private:
            if not slot[3] & k.MEM_GUEST_MEMFD:
                self.fault_exit(fault)
                return -k.EFAULT
            fault.pfn = port.gmem_get_pfn(slot[0], fault.gfn)
            if fault.pfn < 0:
                self.fault_exit(fault)
                return fault.pfn
            return k.RET_PF_CONTINUE
        fault.pfn, writable, fault.max_level = port.hva_get_pfn(slot[0], fault.gfn, int(fault.write))
        fault.writable = bool(writable)
        return k.RET_PF_CONTINUE

    def is_stale(self, fault: Fault) -> bool:
        """is_page_fault_stale."""
        if self.sps[self.root_hpa[fault.vcpu]].invalid:
            return True
        return bool(self.port.mmu_invalidate_retry(fault.seq, fault.gfn))

    def map_fault(self, fault: Fault) -> int:
        """The level that the page allows, then the map."""
        fault.goal_level = self.hugepage_level(fault)
        return self.tdp_mmu_map(fault)

    def hugepage_level(self, fault: Fault) -> int:
        """kvm_mmu_hugepage_adjust: within the slot, and of one attribute."""
        if fault.private or fault.max_level < 2 or fault.slot[3] & k.MEM_LOG_DIRTY_PAGES:
            return 1
        count = self.pages_per_entry(2)
        start = fault.gfn & ~(count - 1)
        _, base, npages, _ = fault.slot
        if start < base or start + count > base + npages:
            return 1
        if self.private and any(self.port.attributes(gfn) for gfn in range(start, start + count)):
            return 1
        return 2

    def fast_pf(self, vcpu: int, gpa: int, error_code: int) -> int:
        """fast_page_fault: without mmu_lock, never for the private half."""
        if not self.can_be_fast(gpa, error_code):
            return k.RET_PF_INVALID
        port = self.port
        write = error_code >> k.PFERR_WRITE & 1
        port.rcu_read_lock()
        result = k.RET_PF_INVALID
        for _ in range(4):
            place = self.last_spte(self.root_hpa[vcpu], self.fast_key(gpa))
            if place is None:
                break
            page, index, spte = place
            if not write or spte & WRITABLE:
                result = k.RET_PF_SPURIOUS
                break
            if spte & SOFT_WRITABLE != SOFT_WRITABLE or self.is_logged_huge(page, gpa):
                break
            if port.pt_cmpxchg(page, index, spte, spte | WRITABLE | DIRTY | ACCESSED) == spte:
                result = k.RET_PF_FIXED
                break
        port.rcu_read_unlock()
        return result

    def is_logged_huge(self, page: int, gpa: int) -> bool:
        """Whether a huge leaf of this table lies in a slot that logs dirty pages."""
        if self.sps[page].level == 1:
            return False
        slot = self.port.memslot(gpa >> 12 & ~self.bits)
        return bool(slot and slot[3] & k.MEM_LOG_DIRTY_PAGES)

    def can_be_fast(self, gpa: int, error_code: int) -> bool:
        """page_fault_can_be_fast: the shared half, and as the attributes say."""
        if error_code >> k.PFERR_PRIVATE_ACCESS & 1 or not self.addr_is_direct(gpa):
            return False
        return not self.private or not self.port.attributes(gpa >> 12 & ~self.bits)

    def fast_key(self, gpa: int) -> int:
        """What the lockless walk looks for."""
        return gpa >> 12 & ~self.bits

    def tdp_map_page(self, vcpu: int, gpa: int, private: bool) -> int:
        """kvm_tdp_map_page: a prefetch, until it is not RETRY."""
        port = self.port
        while True:
            if port.signal_pending():
                return -k.EINTR
            if port.vm_is_dead():
                return -k.EIO
            error = self.mmu_reload(vcpu)
            if error:
                return error
            result = self.handle_fault(Fault(vcpu, gpa, private, False, True))
            if result != k.RET_PF_RETRY:
                break
            port.cond_resched()
        if result == k.RET_PF_EMULATE:
            return -k.ENOENT
        return result

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        """KVM_PRE_FAULT_MEMORY."""
        port = self.port
        if flags or gpa & 4095 or size & 4095 or not size or gpa + size > 2**64:
            return -k.EINVAL
        if not port.pre_fault_allowed():
            return -k.EOPNOTSUPP
        if self.gfn_is_alias(gpa >> 12):
            return -k.EINVAL
        port.srcu_read_lock()
        private = self.private and bool(port.attributes(gpa >> 12))
        if self.mirror and not private:
            gpa |= self.bits << 12
        result = self.tdp_map_page(vcpu, gpa, private)
        port.srcu_read_unlock()
        return result if result < 0 else 4096
