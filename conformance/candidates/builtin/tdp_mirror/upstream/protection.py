"""Aging, write protection, dirty logging and huge pages, of the shared half only: tdp_mmu.c."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.upstream.mapping import Mapping
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import (
    ACCESSED,
    DIRTY,
    PA_MASK,
    WRITABLE,
    is_last,
    is_present,
)
from conformance.candidates.builtin.tdp_mirror.upstream.tdp_iter import Iter
from conformance.candidates.builtin.tdp_mirror.upstream.zapping import Zapping
from conformance.specs.tdp_mirror.constants import DIRECT_ROOTS, HEADER, MMU_WRITABLE, NONPRESENT, TABLE


class Protection(Zapping, Mapping):
    """What concerns valid direct roots alone."""

    def shared_leaves(self, start: int, end: int) -> Iterator[Iter]:
        """Leaves of the valid direct roots in a range, under RCU."""
        for root in self.each_root(self.shared_types()):
            self.port.rcu_read_lock()
            for it in self.walk(root, start, end):
                if is_present(it.old_spte) and is_last(it.old_spte, it.level):
                    yield it
            self.port.rcu_read_unlock()

    def shared_types(self) -> int:
        """Roots that aging, protection and dirty logging concern."""
        return DIRECT_ROOTS | self.valid_only

    def clear_bits(self, it: Iter, bits: int) -> bool:
        """Clear bits of a present leaf, whatever hardware does meanwhile; whether one was set."""
        while True:
            if not is_present(it.old_spte) or not is_last(it.old_spte, it.level):
                return False
            new = it.old_spte & ~bits
            if new == it.old_spte:
                return False
            found = self.port.pt_cmpxchg(it.page, it.index, it.old_spte, new)
            if found == it.old_spte:
                return True
            it.old_spte = self.after_failure(it.old_spte, found)

    def after_failure(self, _old: int, found: int) -> int:
        """What to compare with next."""
        return found

    def age_gfn_range(self, start: int, end: int) -> int:
        """kvm_tdp_mmu_age_gfn_range."""
        young = False
        for it in self.shared_leaves(start, end):
            young |= self.clear_bits(it, ACCESSED)
        return int(young)

    def test_age_gfn(self, start: int, end: int) -> int:
        """kvm_tdp_mmu_test_age_gfn."""
        young = False
        for it in self.shared_leaves(start, end):
            young |= bool(it.old_spte & ACCESSED)
        return int(young)

    def slot_range(self, slot: int) -> tuple[int, int]:
        """First gfn of a slot, and the one after it."""
        found = self.port.memslot_by_id(slot)
        return found[1], found[1] + found[2]

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """kvm_tdp_mmu_wrprot_slot."""
        changed = False
        for it in self.shared_leaves(*self.slot_range(slot)):
            if it.level >= min_level:
                changed |= self.clear_bits(it, WRITABLE)
        return int(changed)

    def clear_dirty_slot(self, slot: int) -> None:
        """kvm_tdp_mmu_clear_dirty_slot."""
        for it in self.shared_leaves(*self.slot_range(slot)):
            self.clear_bits(it, DIRTY)

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """kvm_tdp_mmu_clear_dirty_pt_masked."""
        for it in self.shared_leaves(gfn, gfn + mask.bit_length()):
            if it.level == 1 and mask >> it.gfn - gfn & 1:
                self.clear_bits(it, WRITABLE if wrprot else DIRTY)

    def write_protect_gfn(self, slot: int, gfn: int, min_level: int) -> int:
        """kvm_tdp_mmu_write_protect_gfn."""
        changed = False
        for it in self.shared_leaves(gfn, gfn + 1):
            if it.level >= min_level:
                changed |= self.clear_bits(it, WRITABLE | 1 << MMU_WRITABLE)
        return int(changed)

    def split_huge(self, slot: int, start: int, end: int, target_level: int) -> None:
        """kvm_tdp_mmu_try_split_huge_pages."""
        for root in self.each_root(self.shared_types()):
            if not self.split_root(root, start, end, target_level):
                self.leave_early(root)
                break

    def leave_early(self, root: ShadowPage) -> None:
        """Put the reference of an iteration that ends before its time."""
        self.put_root(root)

    def split_root(self, root: ShadowPage, start: int, end: int, target_level: int) -> bool:
        """False without memory."""
        port = self.port
        child: ShadowPage | None = None
        port.rcu_read_lock()
        for it in self.walk(root, start, end, target_level + 1):
            if not is_present(it.old_spte) or not is_last(it.old_spte, it.level):
                continue
            if child is None or child.level != it.level - 1:
                port.rcu_read_unlock()
                port.read_unlock()
                child = self.alloc_for_split()
                port.read_lock()
                port.rcu_read_lock()
                if child is None:
                    port.rcu_read_unlock()
                    return False
                child.level = it.level - 1
                it.yielded = True
                continue
            child.gfn = it.gfn
            self.init_sp(child)
            self.fill_split(child, it.old_spte)
            if self.link_sp(self.sps[it.page], it.index, it.gfn, it.old_spte, child):
                it.yielded = True
            else:
                child = None
        port.rcu_read_unlock()
        if child is not None:
            self.sps[child.page] = child
            self.free_sp(child)
        return True

    def alloc_for_split(self) -> ShadowPage | None:
        """tdp_mmu_alloc_sp_for_split; None without memory."""
        header = self.port.page_alloc(HEADER, 0)
        if not header:
            return None
        page = self.port.page_alloc(TABLE, NONPRESENT)
        if not page:
            self.port.page_free(header)
            return None
        return ShadowPage(page, header, False, 0, 0)

    def recover_huge(self, slot: int) -> int:
        """Zap tables whose leaves could be one huge leaf; the next fault installs it."""
        start, end = self.slot_range(slot)
        flush = False
        for root in self.each_root(self.shared_types()):
            self.port.rcu_read_lock()
            for it in self.walk(root, start, end, 2):
                if it.level == 2 and is_present(it.old_spte) and not is_last(it.old_spte, 2):
                    inside = start <= it.gfn and it.gfn + self.pages_per_entry(2) <= end
                    possible = inside and self.port.max_mapping_level(slot, it.gfn) > 1
                    if possible and self.is_contiguous(it.old_spte & PA_MASK):
                        self.set_spte(self.sps[it.page], it.index, it.gfn, NONPRESENT)
                        flush = True
            self.port.rcu_read_unlock()
        return int(flush)

    def is_contiguous(self, page: int) -> bool:
        """Whether a table of leaves maps one aligned run of pages."""
        first = self.port.pt_read(page, 0) & PA_MASK
        if (first >> 12) & (self.entries - 1):
            return False
        for index in range(self.entries):
            spte = self.port.pt_read(page, index)
            if not is_present(spte) or spte & PA_MASK != first + (index << 12):
                return False
        return True
