"""arch/x86/kvm/mmu/mmu.c: loading of roots, faults, prefault, and what slots and attributes ask of the MMU."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.linux.kvm import Fault, Vcpu
from conformance.candidates.builtin.tdp_mirror.linux.spte import (
    WRITABLE_MASK,
    is_last,
    is_mmu_writable,
    is_present,
)
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import walk
from conformance.candidates.builtin.tdp_mirror.linux.tdp_mmu_log import Logging
from conformance.candidates.builtin.tdp_mirror.linux.tdp_mmu_map import is_access_allowed
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    EAGAIN,
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    ENOENT,
    EOPNOTSUPP,
    EXTERNAL,
    FILTER_PRIVATE,
    FILTER_SHARED,
    HEADER,
    INVALID_PAGE,
    MAX_HUGE_LEVEL,
    MEM_GUEST_MEMFD,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    MEMORY_EXIT_PRIVATE,
    NONPRESENT,
    PAGE_SHIFT,
    PFERR_GUEST_FINAL,
    PFERR_PRIVATE_ACCESS,
    PG_LEVEL_2M,
    PG_LEVEL_4K,
    REQ_FREE_OBSOLETE_ROOTS,
    RET_PF_CONTINUE,
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    RET_PF_WRITE_PROTECTED,
    SLOT_INVALID,
    TABLE,
)

PAGE_SIZE = 1 << PAGE_SHIFT
PT64_ROOT_MAX_LEVEL = 5
FAST_RETRIES = 4


class Loading(Logging):
    """vCPUs, and the roots that they load and drop."""

    def vcpu_create(self, vcpu: int) -> int:
        """kvm_mmu_create. 0."""
        self.kvm.vcpus[vcpu] = Vcpu()
        return 0

    def vcpu_destroy(self, vcpu: int) -> None:
        """kvm_mmu_destroy: the one place where the mirror root is dropped."""
        self.mmu_unload(vcpu)
        if self.kvm.has_mirror:
            self.port.read_lock()
            self._free_root_page(vcpu, mirror=True)
            self.port.read_unlock()
        self.port.cache_free(vcpu)
        del self.kvm.vcpus[vcpu]

    def _free_root_page(self, vcpu: int, *, mirror: bool) -> None:
        """mmu_free_root_page."""
        v = self.kvm.vcpus[vcpu]
        root = self.root_to_sp(v.mirror_root if mirror else v.root)
        if root is None:
            return
        self.put_root(root)
        if mirror:
            v.mirror_root = INVALID_PAGE
        else:
            v.root = INVALID_PAGE
        self.port.vcpu_root(vcpu, int(mirror), INVALID_PAGE)

    def mmu_unload(self, vcpu: int) -> None:
        """kvm_mmu_unload: kvm_mmu_free_roots of what hardware walks."""
        if self.kvm.vcpus[vcpu].root == INVALID_PAGE:
            return
        self.port.read_lock()
        self._free_root_page(vcpu, mirror=False)
        self.port.read_unlock()

    def is_obsolete_root(self, vcpu: int) -> bool:
        """is_obsolete_root."""
        root = self.root_to_sp(self.kvm.vcpus[vcpu].root)
        return root is not None and root.invalid

    def free_obsolete_roots(self, vcpu: int) -> None:
        """kvm_mmu_free_obsolete_roots."""
        if self.is_obsolete_root(vcpu):
            self.mmu_unload(vcpu)

    def mmu_reload(self, vcpu: int) -> int:
        """kvm_mmu_reload. With a direct root there is a mirror root too. 0 or -ENOMEM."""
        if self.port.check_request(vcpu, REQ_FREE_OBSOLETE_ROOTS):
            self.free_obsolete_roots(vcpu)
        if self.kvm.vcpus[vcpu].root != INVALID_PAGE:
            return 0
        return self._mmu_load(vcpu)

    def _mmu_load(self, vcpu: int) -> int:
        """kvm_mmu_load."""
        error = self.topup_memory_caches(vcpu)
        if error:
            return error
        v = self.kvm.vcpus[vcpu]
        if self.kvm.has_mirror and v.mirror_root == INVALID_PAGE:
            self.tdp_mmu_alloc_root(vcpu, mirror=True)
        self.tdp_mmu_alloc_root(vcpu, mirror=False)
        self.port.load_pgd(vcpu, v.root, self.kvm.root_level)
        return 0

    def topup_memory_caches(self, vcpu: int) -> int:
        """mmu_topup_memory_caches. 0 or -ENOMEM."""
        kinds = (EXTERNAL, TABLE, HEADER) if self.kvm.has_mirror else (TABLE, HEADER)
        for kind in kinds:
            error = self.port.cache_topup(vcpu, kind, PT64_ROOT_MAX_LEVEL, NONPRESENT if kind == TABLE else 0)
            if error:
                return error
        return 0

    def zap_all_fast(self) -> None:
        """kvm_mmu_zap_all_fast: vCPUs hear of it in the section in which their roots become obsolete."""
        self.port.write_lock()
        self.invalidate_roots(DIRECT_ROOTS)
        self.port.make_all_cpus_request(REQ_FREE_OBSOLETE_ROOTS)
        self.port.write_unlock()
        self.tdp_mmu_zap_invalidated_roots(shared=True)


class Faulting(Loading):
    """Faults."""

    def is_private_gfn(self, gfn: int) -> bool:
        """kvm_mem_is_private; a VM without private memory has no attributes."""
        return self.kvm.has_private and bool(self.port.attributes(gfn))

    def memory_fault_exit(self, fault: Fault) -> None:
        """kvm_mmu_prepare_memory_fault_exit."""
        flags = MEMORY_EXIT_PRIVATE if fault.is_private else 0
        self.port.memory_fault_exit(fault.gfn << PAGE_SHIFT, PAGE_SIZE, flags)

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """kvm_mmu_page_fault, from a run loop that enters no dead VM."""
        if self.port.vm_is_dead():
            return -EIO
        return self.mmu_do_page_fault(vcpu, gpa, error_code, prefetch=bool(prefetch))

    def _fault(self, vcpu: int, gpa: int, error_code: int, *, prefetch: bool) -> Fault:
        gfn = self.strip(gpa)
        return Fault(vcpu, gpa, error_code, prefetch, gfn, slot=self.port.memslot(gfn))

    def mmu_do_page_fault(self, vcpu: int, gpa: int, error_code: int, *, prefetch: bool) -> int:
        """kvm_mmu_do_page_fault. RET_PF or a negative errno."""
        fault = self._fault(vcpu, gpa, error_code, prefetch=prefetch)
        result = self.tdp_page_fault(fault)
        if result == RET_PF_EMULATE and fault.is_private:
            self.memory_fault_exit(fault)
            return -EFAULT
        return result

    def tdp_page_fault(self, fault: Fault) -> int:
        """kvm_tdp_mmu_page_fault."""
        result = self.fast_page_fault(fault)
        if result != RET_PF_INVALID:
            return result
        error = self.topup_memory_caches(fault.vcpu)
        if error:
            return error
        result = self.mmu_faultin_pfn(fault)
        if result != RET_PF_CONTINUE:
            return result
        result = RET_PF_RETRY
        self.port.read_lock()
        if not self._is_page_fault_stale(fault):
            self._hugepage_adjust(fault)
            result = self.tdp_mmu_map(fault)
        self.port.pfn_release(fault.grabbed)
        self.port.read_unlock()
        return result

    def _is_page_fault_stale(self, fault: Fault) -> bool:
        """is_page_fault_stale."""
        if self.is_obsolete_root(fault.vcpu):
            return True
        return bool(self.port.mmu_invalidate_retry(fault.mmu_seq, fault.gfn))

    def _hugepage_adjust(self, fault: Fault) -> None:
        """kvm_mmu_hugepage_adjust."""
        if fault.max_level == PG_LEVEL_4K or fault.slot[3] & MEM_LOG_DIRTY_PAGES:
            return
        fault.goal_level = min(fault.max_level, self.max_mapping_level(fault.slot, fault.gfn))
        fault.pfn &= -self.pages_per_hpage(fault.goal_level)

    # -- the page behind a gfn

    def faultin_pfn(self, vcpu: int, gfn: int, is_private: int) -> int:
        """kvm_mmu_faultin_pfn of a gfn as it is, alias bits and all."""
        slot = () if self.gfn_is_alias(gfn) else self.port.memslot(gfn)
        code = is_private << PFERR_PRIVATE_ACCESS
        shared = 0 if is_private else self.kvm.direct_bits << PAGE_SHIFT
        fault = Fault(vcpu, gfn << PAGE_SHIFT | shared, code, False, gfn, slot=slot)
        result = self.mmu_faultin_pfn(fault)
        if result == RET_PF_CONTINUE:
            self.port.pfn_release(fault.grabbed)
        return result

    def mmu_faultin_pfn(self, fault: Fault) -> int:
        """kvm_mmu_faultin_pfn. RET_PF_CONTINUE with a reference to the page, RET_PF, or a negative errno.

        A mismatch of address and access cannot come from hardware that derives one from the other; it is refused.
        """
        if self.vm_bug_on(bool(self.gfn_is_alias(fault.gfn)), "a gfn with an alias bit is resolved"):
            return -EFAULT
        fault.mmu_seq = self.port.mmu_invalidate_seq()
        mismatch = self.kvm.has_mirror and fault.is_private == bool(self.addr_is_direct(fault.addr))
        if mismatch or fault.is_private != self.is_private_gfn(fault.gfn):
            self.memory_fault_exit(fault)
            return -EFAULT
        if not fault.slot:
            return self._handle_noslot_fault(fault)
        if fault.slot[3] & SLOT_INVALID:
            return -EAGAIN if fault.prefetch else RET_PF_RETRY
        if not self.is_mappable(fault.addr):
            self.memory_fault_exit(fault)
            return -EFAULT
        if self.port.mmu_invalidate_retry(fault.mmu_seq, fault.gfn):
            return RET_PF_RETRY
        result = self._faultin_private(fault) if fault.is_private else self._faultin_shared(fault)
        if result != RET_PF_CONTINUE:
            return result
        fault.grabbed = fault.pfn
        if self.port.mmu_invalidate_retry(fault.mmu_seq, fault.gfn):
            self.port.pfn_release(fault.grabbed)
            return RET_PF_RETRY
        return RET_PF_CONTINUE

    def _handle_noslot_fault(self, fault: Fault) -> int:
        """kvm_handle_noslot_fault, with MMIO caching off."""
        if fault.is_private:
            self.memory_fault_exit(fault)
            return -EFAULT
        return RET_PF_EMULATE

    def _faultin_private(self, fault: Fault) -> int:
        """kvm_mmu_faultin_pfn_private. TDX has pages of 4K alone."""
        if not fault.slot[3] & MEM_GUEST_MEMFD:
            self.memory_fault_exit(fault)
            return -EFAULT
        pfn = self.port.gmem_get_pfn(fault.slot[0], fault.gfn)
        if pfn < 0:
            self.memory_fault_exit(fault)
            return pfn
        fault.pfn, fault.max_level = pfn, PG_LEVEL_4K
        return RET_PF_CONTINUE

    def _faultin_shared(self, fault: Fault) -> int:
        """__kvm_faultin_pfn, and kvm_handle_error_pfn of a slot that may only be read."""
        readonly = bool(fault.slot[3] & MEM_READONLY)
        if readonly and fault.write:
            return RET_PF_EMULATE
        fault.pfn, writable, level = self.port.hva_get_pfn(fault.slot[0], fault.gfn, int(fault.write))
        fault.map_writable = bool(writable) and not readonly
        fault.max_level = min(level, MAX_HUGE_LEVEL)
        return RET_PF_CONTINUE

    # -- the fast path

    def fast_pf(self, vcpu: int, gpa: int, error_code: int) -> int:
        """fast_page_fault."""
        return self.fast_page_fault(self._fault(vcpu, gpa, error_code, prefetch=False))

    def _can_be_fast(self, fault: Fault) -> bool:
        """page_fault_can_be_fast. Mirrors have no fast path, so neither has an access to their half."""
        if self.kvm.has_mirror and (fault.is_private or not self.addr_is_direct(fault.addr)):
            return False
        if not fault.present or not fault.write:
            return False
        return fault.is_private == self.is_private_gfn(fault.gfn)

    def fast_page_fault(self, fault: Fault) -> int:
        """fast_page_fault: INVALID, FIXED or SPURIOUS. Without mmu_lock; hardware sets the dirty bit."""
        root = self.root_to_sp(self.kvm.vcpus[fault.vcpu].root)
        if root is None or not self.is_mappable(fault.addr) or not self._can_be_fast(fault):
            return RET_PF_INVALID
        result = RET_PF_INVALID
        self.port.rcu_read_lock()
        for _ in range(FAST_RETRIES):
            last = None
            for it in walk(self, root, fault.gfn, fault.gfn + 1):
                last = (it.table, it.index, it.old_spte, it.level)
            if last is None:
                break
            table, index, spte, level = last
            if not is_present(spte) or not is_last(spte, level):
                break
            if is_access_allowed(fault, spte):
                result = RET_PF_SPURIOUS
                break
            if not is_mmu_writable(spte):
                break
            if level > PG_LEVEL_4K and fault.slot and fault.slot[3] & MEM_LOG_DIRTY_PAGES:
                break
            if self.port.pt_cmpxchg(table, index, spte, spte | WRITABLE_MASK) == spte:
                result = RET_PF_FIXED
                break
        self.port.rcu_read_unlock()
        return result


class Mmu(Faulting):
    """Prefault; what slots and attributes ask."""

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        """kvm_vcpu_ioctl of a VM that is not dead, kvm_vcpu_pre_fault_memory, and the first page of it."""
        if self.ioctl_is_refused():
            return -EIO
        if flags or gpa % PAGE_SIZE or size % PAGE_SIZE or not gpa < gpa + size < 1 << 64:
            return -EINVAL
        self.port.srcu_read_lock()
        result = -EINTR if self.port.signal_pending() else self._arch_pre_fault_memory(vcpu, gpa, size)
        self.port.srcu_read_unlock()
        return result

    def _arch_pre_fault_memory(self, vcpu: int, gpa: int, size: int) -> int:
        """kvm_arch_vcpu_pre_fault_memory."""
        if not self.port.pre_fault_allowed():
            return -EOPNOTSUPP
        if self.gfn_is_alias(gpa >> PAGE_SHIFT):
            return -EINVAL
        error = self.mmu_reload(vcpu)
        if error:
            return error
        code, shared = 1 << PFERR_GUEST_FINAL, 0
        if self.is_private_gfn(gpa >> PAGE_SHIFT):
            code |= 1 << PFERR_PRIVATE_ACCESS
        else:
            shared = self.kvm.direct_bits << PAGE_SHIFT
        level = self.tdp_map_page(vcpu, gpa | shared, code)
        if level < 0:
            return level
        cover = self.pages_per_hpage(level) << PAGE_SHIFT
        return min(size, (gpa & -cover) + cover - gpa)

    def tdp_map_page(self, vcpu: int, gpa: int, error_code: int) -> int:
        """kvm_tdp_map_page: until it is mapped. The level, or a negative errno.

        A root that becomes obsolete meanwhile is loaded anew, as no fault through it ever ends otherwise.
        """
        while True:
            if self.port.signal_pending():
                return -EINTR
            if self.port.vm_is_dead():
                return -EIO
            self.port.cond_resched()
            fault = self._fault(vcpu, gpa, error_code, prefetch=True)
            result = self.tdp_page_fault(fault)
            if result != RET_PF_RETRY:
                break
            error = self.mmu_reload(vcpu)
            if error:
                return error
        if result < 0:
            return result
        if result in (RET_PF_FIXED, RET_PF_SPURIOUS, RET_PF_WRITE_PROTECTED):
            return fault.goal_level
        if result == RET_PF_EMULATE and fault.is_private:
            self.memory_fault_exit(fault)
            return -EFAULT
        return -ENOENT if result == RET_PF_EMULATE else -EIO

    def flush_shadow_memslot(self, base: int, npages: int) -> None:
        """kvm_arch_flush_shadow_memslot: a plain VM zaps everything, others the leaves of the slot."""
        if not self.kvm.has_private and not self.kvm.has_mirror:
            self.zap_all_fast()
            return
        self.port.write_lock()
        if self.unmap_gfn_range(base, base + npages, FILTER_PRIVATE | FILTER_SHARED, 1, 0):
            self.port.flush_remote_tlbs()
        self.port.write_unlock()

    def pre_set_range(self, slot: tuple[int, ...], start: int, end: int) -> tuple[int, int]:
        """What kvm_arch_pre_set_memory_attributes adds to the invalidation: blocks that stick out at either end."""
        first, last = start, end
        for level in range(PG_LEVEL_2M, min(MAX_HUGE_LEVEL, self.kvm.root_level) + 1):
            pages = self.pages_per_hpage(level)
            for block in (start & -pages, end - 1 & -pages):
                if block >= slot[1] and block + pages <= slot[1] + slot[2]:
                    first, last = min(first, block), max(last, block + pages)
        return first, last

    def pre_set_memory_attributes(self, start: int, end: int, attributes: int) -> bool:
        """kvm_arch_pre_set_memory_attributes: the half that the gfns leave is unmapped. Whether to flush."""
        attr_filter = FILTER_SHARED if attributes else FILTER_PRIVATE
        return bool(self.unmap_gfn_range(start, end, attr_filter, 1, 0))
