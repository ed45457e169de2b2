"""Walks over entries that yield, and zapping: tdp_mmu.c."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.roots import Roots
from conformance.candidates.builtin.tdp_mirror.upstream.spte import PA_MASK, is_last, is_present
from conformance.candidates.builtin.tdp_mirror.upstream.tdp_iter import Iter
from conformance.specs.tdp_mirror.constants import DIRECT_ROOTS, MAX_HUGE_LEVEL, NONPRESENT


class Zapping(Roots):
    """Iteration over entries, and what it zaps."""

    def zap_invalidated_roots(self) -> None:
        """As the fast zap does it, sharing the lock."""
        self.zap_scheduled(shared=True)

    def zap_scheduled(self, *, shared: bool) -> None:
        """kvm_tdp_mmu_zap_invalidated_roots."""
        port = self.port
        (port.read_lock if shared else port.write_lock)()
        for root in self.each_root(self.all_types):
            if root.scheduled:
                root.scheduled = False
                self.zap_root(root, shared)
                self.put_root(root)
        (port.read_unlock if shared else port.write_unlock)()

    def walk(self, root: ShadowPage, start: int, end: int, min_level: int = 1) -> Iterator[Iter]:
        """for_each_tdp_pte_min_level, as far as the root reaches."""
        reach = self.pages_per_entry(self.levels + 1)
        if start >= reach:
            if self.root_bits(root):
                self.port.warn_once("walk starts beyond the direct bits")
            return
        end = min(end, reach)
        iterator = Iter(self, root, min_level, start, self.root_bits(root))
        while iterator.valid and iterator.gfn < end:
            yield iterator
            iterator.next()

    def walk_all(self, root: ShadowPage, min_level: int) -> Iterator[Iter]:
        """for_each_tdp_pte_min_level_all: every entry of the root, whatever the direct bits."""
        iterator = Iter(self, root, min_level, 0, 0)
        end = self.pages_per_entry(self.levels + 1)
        while iterator.valid and iterator.gfn < end:
            yield iterator
            iterator.next()

    def cond_resched(self, iterator: Iter, flush: bool) -> bool:
        """tdp_mmu_iter_cond_resched: whether the lock was dropped."""
        port = self.port
        if iterator.next_last_level_gfn == iterator.yielded_gfn or not port.resched():
            return False
        if flush:
            port.flush_remote_tlbs()
        port.rcu_read_unlock()
        port.lock_yield()
        port.rcu_read_lock()
        iterator.yielded = True
        return True

    def zap_root(self, root: ShadowPage, shared: bool) -> None:
        """tdp_mmu_zap_root: the huge levels first, so that each step is bounded."""
        self.port.rcu_read_lock()
        if self.levels > MAX_HUGE_LEVEL:
            self.zap_root_level(root, shared, MAX_HUGE_LEVEL)
        self.zap_root_level(root, shared, root.level)
        self.port.rcu_read_unlock()

    def zap_root_level(self, root: ShadowPage, shared: bool, level: int) -> None:
        """__tdp_mmu_zap_root."""
        for it in self.walk_all(root, level):
            if self.cond_resched(it, False):
                continue
            while is_present(it.old_spte) and it.level <= level:
                if not shared:
                    self.set_spte(self.sps[it.page], it.index, it.gfn & ~self.root_bits(root), NONPRESENT)
                    break
                error, it.old_spte = self.set_spte_atomic(
                    self.sps[it.page], it.index, it.gfn & ~self.root_bits(root), it.old_spte, NONPRESENT
                )
                if not error or self.gives_up():
                    break
                self.port.cond_resched()

    def gives_up(self) -> bool:
        """Whether a refused exchange is not worth repeating."""
        return bool(self.port.vm_is_dead())

    def zap_leafs_root(self, root: ShadowPage, start: int, end: int, can_yield: bool, flush: bool) -> bool:
        """tdp_mmu_zap_leafs: whether a flush is due."""
        end = min(end, self.max_gfn + 1)
        self.port.rcu_read_lock()
        for it in self.walk(root, start, end):
            if can_yield and self.cond_resched(it, flush):
                flush = False
                continue
            if is_present(it.old_spte) and is_last(it.old_spte, it.level):
                self.set_spte(self.sps[it.page], it.index, it.gfn, NONPRESENT)
                if not root.invalid:
                    flush = True
        self.port.rcu_read_unlock()
        return flush

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """For events of the host: the shared half only."""
        due = bool(flush)
        for root in self.each_root(DIRECT_ROOTS | self.valid_only):
            due = self.zap_leafs_root(root, start, end, True, due)
        return int(due)

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """kvm_tdp_mmu_unmap_gfn_range."""
        due = bool(flush)
        types = self.filter_to_types(attr_filter) | self.invalid_too
        for root in self.each_root(types):
            due = self.zap_leafs_root(root, start, end, bool(may_block), due)
        return int(due)

    def zap_sp(self, page: int) -> int:
        """kvm_tdp_mmu_zap_sp, for NX recovery; mirrors are left alone."""
        sp = self.sps[page]
        if sp.mirror or sp.parent is None:
            return 0
        port = self.port
        parent, index = sp.parent
        port.rcu_read_lock()
        found = port.pt_read(parent, index) & PA_MASK == page
        if found:
            self.set_spte(self.sps[parent], index, sp.gfn, NONPRESENT)
        port.rcu_read_unlock()
        return int(found)
