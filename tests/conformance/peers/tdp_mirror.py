"""Correct TDP MMUs that are built in another way than the shipped ones.

The first takes pages before it fills its caches, walks ranges backwards by recursion, freezes a removed
table whole before it looks below, and looks again where it lost a race. The second does everything
under the write lock, in one section, wider than need be, and finds its slots by range. The third pins
no page of the TD. The suite must accuse none of them.
"""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream.mmu import KINDS, MAX_CACHE
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault, ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import HUGE, PA_MASK, is_last, is_present
from conformance.candidates.builtin.tdp_mirror.upstream_6_19 import Upstream619
from conformance.specs.tdp_mirror.constants import (
    EIO,
    FROZEN,
    INVALID_PAGE,
    NONPRESENT,
    PG_LEVEL_4K,
    REQ_FREE_OBSOLETE_ROOTS,
    RET_PF_CONTINUE,
    RET_PF_INVALID,
    RET_PF_RETRY,
    TD_RUNNABLE,
)


class Backwards(Upstream):
    """From the end of a range to its beginning, without yielding."""

    def handle_fault(self, fault: Fault) -> int:
        """The page first, then memory."""
        port = self.port
        fault.gfn &= ~self.bits
        result = self.faultin(fault)
        if result != RET_PF_CONTINUE:
            return result
        result = self.topup(fault.vcpu)
        if not result:
            port.read_lock()
            result = RET_PF_RETRY if self.is_stale(fault) else self.map_fault(fault)
            port.read_unlock()
        port.pfn_release(fault.pfn)
        return result

    def topup(self, vcpu: int) -> int:
        """External pages first."""
        for kind in reversed(KINDS if self.mirror else KINDS[:2]):
            error: int = self.port.cache_topup(vcpu, kind, MAX_CACHE, self.initial_entry())
            if error:
                return error
        return 0

    def build_table(self, sp: ShadowPage, index: int, spte: int, fault: Fault) -> int:
        """A race that was lost in a direct root is looked at again."""
        result = super().build_table(sp, index, spte, fault)
        return RET_PF_CONTINUE if result == RET_PF_RETRY and not sp.mirror else result

    def zap_leafs_root(self, root: ShadowPage, start: int, end: int, can_yield: bool, flush: bool) -> bool:
        """By recursion."""
        bits = self.root_bits(root)
        if bits and start >= bits:
            self.port.warn_once("a range beyond the split")
            return flush
        end = min(end, self.max_gfn + 1, bits or end, self.pages_per_entry(self.levels + 1))
        self.port.rcu_read_lock()
        zapped = self.zap_below(root, root, 0, start, end)
        self.port.rcu_read_unlock()
        return flush or (zapped and not root.invalid)

    def zap_below(self, root: ShadowPage, sp: ShadowPage, base: int, start: int, end: int) -> bool:
        """Leaves of the range below a table whose first gfn, with its bits, is `base`; whether there was one."""
        zapped = False
        step = self.pages_per_entry(sp.level)
        bits = self.root_bits(root)
        for index in reversed(range(self.entries)):
            raw = base + index * step
            gfn = raw & ~bits
            if (step <= bits and not raw & bits) or gfn >= end or gfn + step <= start:
                continue
            old = self.port.pt_read(sp.page, index)
            if is_present(old) and is_last(old, sp.level):
                self.set_spte(sp, index, gfn, NONPRESENT)
                zapped = True
            elif is_present(old):
                zapped |= self.zap_below(root, self.sps[old & PA_MASK], raw, start, end)
        return zapped

    def set_spte(self, sp: ShadowPage, index: int, gfn: int, new: int) -> int:
        """Always by exchange."""
        old: int = self.port.pt_xchg(sp.page, index, new)
        self.handle_changed_spte(sp, gfn, old, new, sp.level, False)
        if sp.mirror and is_present(old) and is_last(old, sp.level):
            self.remove_external(gfn, sp.level, old)
        return old

    def handle_removed_pt(self, sp: ShadowPage, base: int, shared: bool) -> None:
        """All entries are frozen before the first is looked at."""
        port = self.port
        port.account_pgtable(-1)
        olds = [(index, port.pt_xchg(sp.page, index, FROZEN)) for index in range(self.entries)]
        for index, old in reversed(olds):
            gfn = base + index * self.pages_per_entry(sp.level)
            self.handle_changed_spte(sp, gfn, old, FROZEN, sp.level, shared)
            if sp.mirror and is_present(old) and is_last(old, sp.level):
                self.remove_external(gfn, sp.level, old)
        if sp.mirror and sp.external:
            self.free_external(sp)
        port.call_rcu(sp.page)


class ByRange:
    """A port whose slots are found by range."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def memslot(self, gfn: int) -> tuple[int, ...]:
        """The first slot of a range of one gfn."""
        found: tuple[tuple[int, ...], ...] = self.port.memslots(gfn, gfn + 1)
        return found[0] if found else ()


class Coarse(Upstream):
    """The lock is held for write, and for long; what is flushed and invalidated is more than need be."""

    def __init__(self, port: Any) -> None:
        super().__init__(ByRange(port))

    def fast_pf(self, vcpu: int, gpa: int, error_code: int) -> int:
        """Everything goes the slow way."""
        return RET_PF_INVALID

    def handle_fault(self, fault: Fault) -> int:
        """A fault under the write lock."""
        port = self.port
        fault.gfn &= ~self.bits
        error = self.topup(fault.vcpu)
        if error:
            return error
        result = self.faultin(fault)
        if result != RET_PF_CONTINUE:
            return result
        port.write_lock()
        result = RET_PF_RETRY if self.is_stale(fault) else self.map_fault(fault)
        port.write_unlock()
        port.pfn_release(fault.pfn)
        return result

    def zap_invalidated_roots(self) -> None:
        """Not shared."""
        self.zap_scheduled(shared=False)

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """One critical section."""
        port = self.port
        port.write_lock()
        port.mmu_invalidate_begin(start, end)
        self.unmap_slots(start, end, attr_filter, need, may_block)
        port.mmu_invalidate_end()
        port.write_unlock()

    def change_attributes(self, start: int, end: int, attributes: int) -> int:
        """One critical section, and all of the VM is being invalidated."""
        port = self.port
        if port.range_has_attributes(start, end, attributes):
            return 0
        error: int = port.reserve_attributes(start, end)
        if error:
            return error
        port.write_lock()
        port.mmu_invalidate_begin(0, self.max_gfn + 1)
        self.unmap_slots(start, end, self.old_half(attributes))
        port.flush_remote_tlbs()
        port.store_attributes(start, end, attributes)
        port.mmu_invalidate_end()
        port.write_unlock()
        return 0

    def mmu_reload(self, vcpu: int) -> int:
        """Memory before anything changes."""
        page = self.root_hpa[vcpu]
        if page == INVALID_PAGE or self.sps[page].invalid:
            error = self.topup(vcpu)
            if error:
                return error
        if self.port.check_request(vcpu, REQ_FREE_OBSOLETE_ROOTS):
            self.free_obsolete_roots(vcpu)
        if self.root_hpa[vcpu] == INVALID_PAGE:
            self.alloc_roots(vcpu)
            self.port.load_pgd(vcpu, self.root_hpa[vcpu], self.levels)
        return 0

    def recover_huge(self, slot: int) -> int:
        """A table is replaced by the huge leaf in place."""
        start, end = self.slot_range(slot)
        flush = False
        for root in self.each_root(self.shared_types()):
            self.port.rcu_read_lock()
            for it in self.walk(root, start, end, 2):
                page = it.old_spte & PA_MASK
                is_table = it.level == 2 and is_present(it.old_spte) and not is_last(it.old_spte, 2)
                inside = start <= it.gfn and it.gfn + self.pages_per_entry(2) <= end
                if is_table and inside and self.port.max_mapping_level(slot, it.gfn) > 1 and self.is_contiguous(page):
                    small = [self.port.pt_read(page, index) for index in range(self.entries)]
                    flags = ~0
                    for spte in small:
                        flags &= spte & ~PA_MASK
                    self.set_spte(self.sps[it.page], it.index, it.gfn, flags | small[0] & PA_MASK | HUGE)
                    flush = True
            self.port.rcu_read_unlock()
        return int(flush)


class Unpinned(Upstream619):
    """No page of the TD is pinned; one that the firmware does not let go of is kept then."""

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """Without a reference."""
        port = self.port
        if level != PG_LEVEL_4K:
            port.vm_bug("private leaf above 4K")
            return -EIO
        if port.td_state() == TD_RUNNABLE:
            return self.sept_error(port.tdh_mem_page_aug(gfn << 12, 0, pfn))
        return self.sept_premap(gfn, pfn)

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """Block, track, remove, clean; a failure keeps the page for ever."""
        port = self.port
        if not port.hkid_assigned():
            port.vm_bug("no HKID")
            return -EIO
        gpa = gfn << 12
        failed = self.insist(port.tdh_mem_range_block, gpa, level - 1) or self.track()
        if failed or self.insist(port.tdh_mem_page_remove, gpa, level - 1):
            port.vm_bug("private page not removed")
            port.page_pin(pfn)
            return -EIO
        self.clean(pfn)
        return 0
