"""What arch/x86/kvm/mmu/tdp_mmu.c does for ageing, dirty logging and huge pages: to direct roots, never to a mirror."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.linux.kvm import Sp
from conformance.candidates.builtin.tdp_mirror.linux.spte import (
    ACCESSED_MASK,
    DIRTY_MASK,
    MMU_WRITABLE_MASK,
    WRITABLE_MASK,
    is_large,
    is_last,
    is_present,
    make_huge_spte,
    needs_atomic_update,
    table_of,
)
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import TdpIter, walk, walk_leafs
from conformance.candidates.builtin.tdp_mirror.linux.tdp_mmu_map import Mapping
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    HEADER,
    MAX_HUGE_LEVEL,
    MEM_LOG_DIRTY_PAGES,
    NONPRESENT,
    PG_LEVEL_2M,
    PG_LEVEL_4K,
    TABLE,
)

BITS_PER_LONG = 64


class Logging(Mapping):
    """Ageing, write protection, dirty bits; huge pages are split and recovered."""

    def _direct_roots(self) -> Iterator[Sp]:
        """Valid direct roots, without references: the caller keeps the list still or is in an RCU section."""
        for root in self.kvm.roots:
            if self._matches(root, DIRECT_ROOTS):
                yield root

    def slot_range(self, slot: int) -> tuple[int, int]:
        """First gfn of a slot, and the first after it."""
        found = self.port.memslot_by_id(slot)
        return (found[1], found[1] + found[2]) if found else (0, 0)

    # -- ageing: without mmu_lock

    def _age(self, start: int, end: int, *, test_only: bool) -> int:
        """__kvm_tdp_mmu_age_gfn_range."""
        young = 0
        self.port.rcu_read_lock()
        for root in self._direct_roots():
            for it in walk_leafs(self, root, start, end):
                if not it.old_spte & ACCESSED_MASK:
                    continue
                young = 1
                if test_only:
                    break
                self.port.pt_and(it.table, it.index, ~ACCESSED_MASK)
        self.port.rcu_read_unlock()
        return young

    def age_gfn_range(self, start: int, end: int) -> int:
        """kvm_tdp_mmu_age_gfn_range."""
        return self._age(start, end, test_only=False)

    def test_age_gfn(self, start: int, end: int) -> int:
        """kvm_tdp_mmu_test_age_gfn."""
        return self._age(start, end, test_only=True)

    # -- write protection and dirty bits

    def _clear_atomic(self, it: TdpIter, mask: int, *, leafs: bool) -> bool:
        """Take bits away under the read lock, until it succeeds or there is nothing to do. Whether it did."""
        while not self.iter_cond_resched(it, flush=False):
            old = it.old_spte
            if not is_present(old) or (leafs and not is_last(old, it.level)) or not old & mask:
                return False
            if not self.set_spte_atomic(it, old & ~mask):
                return True
        return False

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """kvm_tdp_mmu_wrprot_slot."""
        start, end = self.slot_range(slot)
        changed = False
        for root in self.roots_yield_safe(DIRECT_ROOTS):
            self.port.rcu_read_lock()
            for it in walk(self, root, start, end, min_level):
                changed |= self._clear_atomic(it, WRITABLE_MASK, leafs=True)
            self.port.rcu_read_unlock()
        return int(changed)

    def clear_dirty_slot(self, slot: int) -> None:
        """kvm_tdp_mmu_clear_dirty_slot."""
        start, end = self.slot_range(slot)
        for root in self.roots_yield_safe(DIRECT_ROOTS):
            self.port.rcu_read_lock()
            for it in walk(self, root, start, end):
                self._clear_atomic(it, DIRTY_MASK, leafs=False)
            self.port.rcu_read_unlock()

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """kvm_tdp_mmu_clear_dirty_pt_masked: 4K leaves alone, as huge ones are protected as a whole."""
        bits = WRITABLE_MASK if wrprot else DIRTY_MASK
        first = gfn + (mask & -mask).bit_length() - 1
        self.port.rcu_read_lock()
        for root in self._direct_roots() if mask else ():
            left = mask
            for it in walk_leafs(self, root, first, gfn + BITS_PER_LONG):
                if not left:
                    break
                if it.level > PG_LEVEL_4K or not left >> it.gfn - gfn & 1:
                    continue
                left &= ~(1 << it.gfn - gfn)
                if it.old_spte & bits:
                    self.clear_spte_bits(it, bits)
        self.port.rcu_read_unlock()

    def clear_spte_bits(self, it: TdpIter, mask: int) -> None:
        """tdp_mmu_clear_spte_bits."""
        if needs_atomic_update(it.old_spte, it.level):
            self.port.pt_and(it.table, it.index, ~mask)
        else:
            self.port.pt_store(it.table, it.index, it.old_spte & ~mask)

    def write_protect_gfn(self, slot: int, gfn: int, min_level: int) -> int:
        """kvm_tdp_mmu_write_protect_gfn."""
        changed = 0
        for root in self._direct_roots():
            self.port.rcu_read_lock()
            for it in walk(self, root, gfn, gfn + 1, min_level):
                if not is_present(it.old_spte) or not is_last(it.old_spte, it.level):
                    continue
                new = it.old_spte & ~(WRITABLE_MASK | MMU_WRITABLE_MASK)
                if new == it.old_spte:
                    break
                changed = 1
                self.protect(it, new)
            self.port.rcu_read_unlock()
        return changed

    def protect(self, it: TdpIter, new: int) -> None:
        """Replace an entry by what it is without its permission to write."""
        self.iter_set_spte(it, new)

    # -- huge pages

    def split_huge(self, slot: int, start: int, end: int, target_level: int) -> None:
        """kvm_tdp_mmu_try_split_huge_pages, mmu_lock held for read."""
        for root in self.roots_yield_safe(DIRECT_ROOTS):
            if not self._split_huge_pages_root(root, start, end, target_level):
                self.put_root(root)
                break

    def _alloc_sp_for_split(self) -> Sp | None:
        """tdp_mmu_alloc_sp_for_split."""
        header = self.port.page_alloc(HEADER, 0)
        if not header:
            return None
        table = self.port.page_alloc(TABLE, NONPRESENT)
        if not table:
            self.port.page_free(header)
            return None
        sp = self.kvm.pages[table] = Sp(spt=table, header=header)
        return sp

    def _split_huge_pages_root(self, root: Sp, start: int, end: int, target_level: int) -> bool:
        """tdp_mmu_split_huge_pages_root. False when there is no memory."""
        sp: Sp | None = None
        self.port.rcu_read_lock()
        for it in walk(self, root, start, end, target_level + 1):
            while not self.iter_cond_resched(it, flush=False):
                if not is_present(it.old_spte) or not is_large(it.old_spte):
                    break
                if sp is None:
                    self.port.rcu_read_unlock()
                    self.port.read_unlock()
                    sp = self._alloc_sp_for_split()
                    self.port.read_lock()
                    if sp is None:
                        return False
                    self.port.rcu_read_lock()
                    it.yielded = True
                    break
                self.tdp_mmu_init_child_sp(sp, it)
                if not self.split_huge_page(it, sp, shared=True):
                    sp = None
                    break
        self.port.rcu_read_unlock()
        if sp:
            self.tdp_mmu_free_sp(sp)
        return True

    def lpage_level(self, slot: tuple[int, ...], gfn: int) -> int:
        """Largest level that lpage_info allows: blocks inside the slot, all of whose gfns have the same attributes."""
        level = PG_LEVEL_4K
        while level < min(MAX_HUGE_LEVEL, self.kvm.root_level):
            pages = self.pages_per_hpage(level + 1)
            start = gfn & -pages
            if start < slot[1] or start + pages > slot[1] + slot[2]:
                break
            if self.kvm.has_private and not self.port.range_has_attributes(start, start + pages, 0):
                break
            level += 1
        return level

    def max_mapping_level(self, slot: tuple[int, ...], gfn: int) -> int:
        """kvm_mmu_max_mapping_level of a shared gfn."""
        level = self.lpage_level(slot, gfn)
        return level if level == PG_LEVEL_4K else min(level, self.port.max_mapping_level(slot[0], gfn))

    def recover_huge(self, slot: int) -> int:
        """kvm_tdp_mmu_recover_huge_pages: tables are replaced in place by the huge leaf that could be there."""
        found = self.port.memslot_by_id(slot)
        if not found or found[3] & MEM_LOG_DIRTY_PAGES:
            return 0
        flush = False
        for root in self.roots_yield_safe(DIRECT_ROOTS):
            flush = self.recover_huge_pages_range(root, found, flush=flush)
        return int(flush)

    def recover_huge_pages_range(self, root: Sp, slot: tuple[int, ...], *, flush: bool) -> bool:
        """recover_huge_pages_range, here under the write lock. Whether to flush."""
        _, base, npages, _ = slot
        self.port.rcu_read_lock()
        for it in walk(self, root, base, base + npages, PG_LEVEL_2M):
            if self.iter_cond_resched(it, flush=flush):
                flush = False
                continue
            if it.level > MAX_HUGE_LEVEL or not is_present(it.old_spte) or is_last(it.old_spte, it.level):
                continue
            if not base <= it.gfn < base + npages or self.max_mapping_level(slot, it.gfn) < it.level:
                continue
            flush |= self.recover(it)
        self.port.rcu_read_unlock()
        return flush

    def recover(self, it: TdpIter) -> bool:
        """tdp_mmu_make_huge_spte: from the first leaf of the table. Whether there was one."""
        child = self._sp(table_of(it.old_spte))
        for index in range(1 << self.kvm.index_bits):
            small = self.port.pt_read(child.spt, index)
            if is_present(small) and is_last(small, child.level):
                self.iter_set_spte(it, make_huge_spte(small, self.pages_per_hpage(it.level)))
                return True
        return False
