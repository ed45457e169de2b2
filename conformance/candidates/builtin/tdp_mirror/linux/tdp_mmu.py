"""The first half of arch/x86/kvm/mmu/tdp_mmu.c: roots, how an entry is changed, and how it is zapped."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.linux.kvm import Kvm, Sp
from conformance.candidates.builtin.tdp_mirror.linux.spte import (
    is_last,
    is_present,
    make_nonleaf_spte,
    needs_atomic_update,
    pfn_of,
    table_of,
)
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import TdpIter, walk, walk_all
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    EBUSY,
    EIO,
    FILTER_PRIVATE,
    FILTER_SHARED,
    FROZEN,
    HEADER,
    MIRROR_ROOTS,
    NONPRESENT,
    PG_LEVEL_4K,
    ROLE_ACCESS,
    ROLE_DIRECT,
    ROLE_MIRROR,
    RWX,
    TABLE,
    TYPE_VALIDITY,
)

VALID_ROOTS = DIRECT_ROOTS | MIRROR_ROOTS
ALL_ROOTS = VALID_ROOTS | TYPE_VALIDITY


class Roots(Kvm):
    """The list of roots and their references."""

    def filter_to_types(self, attr_filter: int) -> int:
        """kvm_gfn_range_filter_to_root_types."""
        if not self.kvm.has_mirror:
            return DIRECT_ROOTS
        types = 0
        if attr_filter & FILTER_PRIVATE:
            types |= MIRROR_ROOTS
        if attr_filter & FILTER_SHARED:
            types |= DIRECT_ROOTS
        self.warn_on_once(not types, "filter_to_types: no half is meant")
        return types

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """tdp_mmu_root_match."""
        if self.warn_on_once(not types & VALID_ROOTS, "root_match: no kind is meant"):
            return 0
        if invalid and not types & TYPE_VALIDITY:
            return 0
        return int(bool(types & (MIRROR_ROOTS if mirror else DIRECT_ROOTS)))

    def _matches(self, root: Sp, types: int) -> bool:
        return bool(self.root_match(int(root.is_mirror), int(root.invalid), types))

    def put_root(self, root: Sp) -> None:
        """kvm_tdp_mmu_put_root. The last reference of a valid root is the MMU's own, put once it is invalid."""
        if not self.port.refcount_dec_and_test(root.spt):
            return
        self.vm_bug_on(not root.invalid, "put_root: the last reference of a valid root")
        self.port.pages_lock()
        self.kvm.roots.remove(root)
        self.port.roots_del(root.spt)
        self.port.pages_unlock()
        self.port.call_rcu(root.spt)

    def _next_root(self, previous: Sp | None, types: int) -> Sp | None:
        """tdp_mmu_next_root. The reference to the previous one keeps its place in the list until here."""
        self.port.rcu_read_lock()
        roots = self.kvm.roots
        position = roots.index(previous) + 1 if previous else 0
        found = None
        for root in roots[position:]:
            if self._matches(root, types) and self.port.refcount_inc_not_zero(root.spt):
                found = root
                break
        self.port.rcu_read_unlock()
        if previous:
            self.put_root(previous)
        return found

    def roots_yield_safe(self, types: int) -> Iterator[Sp]:
        """__for_each_tdp_mmu_root_yield_safe; whoever leaves early puts the root it is at."""
        root = self._next_root(None, types)
        while root:
            yield root
            root = self._next_root(root, types)

    def tdp_mmu_alloc_sp(self, vcpu: int) -> Sp:
        """tdp_mmu_alloc_sp: from the caches."""
        header = self.port.cache_alloc(vcpu, HEADER)
        sp = Sp(spt=self.port.cache_alloc(vcpu, TABLE), header=header)
        self.kvm.pages[sp.spt] = sp
        return sp

    def tdp_mmu_free_sp(self, sp: Sp) -> None:
        """tdp_mmu_free_sp; what is freed may be somebody else's at once."""
        del self.kvm.pages[sp.spt]
        if sp.external_spt:
            self.port.page_free(sp.external_spt)
        self.port.page_free(sp.spt)
        self.port.page_free(sp.header)

    def rcu_callback(self, page: int) -> None:
        """tdp_mmu_free_sp_rcu_callback."""
        self.tdp_mmu_free_sp(self.kvm.pages[page])

    def tdp_mmu_init_sp(self, sp: Sp, ptep: tuple[int, int] | None, gfn: int, role: int) -> None:
        """tdp_mmu_init_sp."""
        sp.ptep, sp.gfn, sp.role = ptep, gfn, role
        self.port.sp_init(sp.spt, sp.header, role, gfn, sp.external_spt)

    def tdp_mmu_alloc_root(self, vcpu: int, *, mirror: bool) -> None:
        """kvm_tdp_mmu_alloc_root: share a valid root of this role, or make one."""
        role = self.kvm.root_level | 1 << ROLE_DIRECT | RWX << ROLE_ACCESS | mirror << ROLE_MIRROR
        self.port.read_lock()
        root = next((sp for sp in self.roots_yield_safe(VALID_ROOTS) if sp.role == role), None)
        if root is None:
            self.port.pages_lock()
            root = self._valid_root(role) or self._new_root(vcpu, role)
            self.port.pages_unlock()
        self.port.read_unlock()
        if mirror:
            self.kvm.vcpus[vcpu].mirror_root = root.spt
        else:
            self.kvm.vcpus[vcpu].root = root.spt
        self.port.vcpu_root(vcpu, int(mirror), root.spt)

    def _valid_root(self, role: int) -> Sp | None:
        """Look again: whoever was faster has listed it under the lock that is held now."""
        for root in self.kvm.roots:
            if self._matches(root, VALID_ROOTS) and root.role == role and self.port.refcount_inc_not_zero(root.spt):
                return root
        return None

    def _new_root(self, vcpu: int, role: int) -> Sp:
        """One reference for the vCPU, one for the MMU until the root is invalid and zapped. Others see it last."""
        root = self.tdp_mmu_alloc_sp(vcpu)
        self.tdp_mmu_init_sp(root, None, 0, role)
        self.port.refcount_set(root.spt, 2)
        self.port.roots_add(root.spt)
        self.kvm.roots.append(root)
        return root

    def invalidate_roots(self, types: int) -> None:
        """kvm_tdp_mmu_invalidate_roots. The MMU's reference is kept until zap_invalidated_roots."""
        self.warn_on_once(bool(types & TYPE_VALIDITY), "invalidate_roots: invalid roots are meant")
        types &= ~TYPE_VALIDITY
        for root in self.kvm.roots:
            if self._matches(root, types) and not root.invalid:
                root.scheduled = True
                root.invalid = True
                self.port.role_invalidate(root.spt)


class Sptes(Roots):
    """How an entry is changed, and what follows from it."""

    def _sp(self, table: int) -> Sp:
        """sptep_to_sp."""
        return self.kvm.pages[table]

    def write_spte(self, table: int, index: int, old: int, new: int, level: int) -> int:
        """kvm_tdp_mmu_write_spte: exchange what may change by itself, store what may not. The old value."""
        if needs_atomic_update(old, level):
            return self.port.pt_xchg(table, index, new)
        self.port.pt_store(table, index, new)
        return old

    def set_external_spte_present(self, it: TdpIter, new: int) -> int:
        """set_external_spte_present: freeze, tell the external tree, publish or take back. 0 or a negative errno.

        An entry that is present already is refused before the external tree hears of it, as later kernels do.
        """
        old = it.old_spte
        if self.vm_bug_on(is_present(old), "a present entry of a mirror is set again"):
            return -EIO
        found = self.port.pt_cmpxchg(it.table, it.index, old, FROZEN)
        if found != old:
            it.old_spte = found
            return -EBUSY
        if is_last(new, it.level):
            error = self.port.ext_set(it.gfn, it.level, pfn_of(new))
        else:
            error = self.port.ext_link(it.gfn, it.level, self._sp(table_of(new)).external_spt)
        self.port.pt_store(it.table, it.index, old if error else new)
        return error

    def set_spte_atomic(self, it: TdpIter, new: int) -> int:
        """tdp_mmu_set_spte_atomic, mmu_lock held for read. 0, or a negative errno; then old_spte is what was found."""
        if self._sp(it.table).is_mirror:
            if self.vm_bug_on(not is_present(new), "an entry of a mirror is zapped under the read lock"):
                return -EBUSY
            error = self.set_external_spte_present(it, new)
            if error:
                return error
        else:
            found = self.port.pt_cmpxchg(it.table, it.index, it.old_spte, new)
            if found != it.old_spte:
                it.old_spte = found
                return -EBUSY
        self.handle_changed_spte(it.gfn, it.old_spte, new, it.level, shared=True)
        return 0

    def set_spte(self, table: int, index: int, old: int, new: int, gfn: int, level: int) -> int:
        """tdp_mmu_set_spte, mmu_lock held for write. The old value."""
        old = self.write_spte(table, index, old, new, level)
        mirror = self._sp(table).is_mirror
        self.handle_changed_spte(gfn, old, new, level, shared=False)
        if mirror:
            self.vm_bug_on(is_present(new), "an entry of a mirror is set under the write lock")
            self.remove_external_spte(gfn, old, level)
        return old

    def iter_set_spte(self, it: TdpIter, new: int) -> None:
        """tdp_mmu_iter_set_spte."""
        it.old_spte = self.set_spte(it.table, it.index, it.old_spte, new, it.gfn, it.level)

    def remove_external_spte(self, gfn: int, old: int, level: int) -> None:
        """remove_external_spte: leaves only, as tables go by free_external_spt. A failure is a bug."""
        if not is_present(old) or not is_last(old, level):
            return
        if self.vm_bug_on(level != PG_LEVEL_4K, "a huge leaf of a mirror is removed"):
            return
        error = self.port.ext_remove(gfn, level, pfn_of(old))
        self.vm_bug_on(bool(error), "a page could not be removed from the external tree")

    def handle_changed_spte(self, gfn: int, old: int, new: int, level: int, *, shared: bool) -> None:
        """handle_changed_spte: count leaves that come or go, and take apart a table that is not reached any more."""
        if old == new:
            return
        was_present, now_present = is_present(old), is_present(new)
        if not was_present and not now_present:
            return
        was_leaf, now_leaf = was_present and is_last(old, level), now_present and is_last(new, level)
        if was_leaf != now_leaf:
            self.port.update_page_stats(level, 1 if now_leaf else -1)
        if was_present and not was_leaf and (now_leaf or not now_present):
            self.handle_removed_pt(table_of(old), shared=shared)

    def handle_removed_pt(self, table: int, *, shared: bool) -> None:
        """handle_removed_pt. Under the write lock nobody can fill an entry that is not present: it is passed over."""
        sp = self._sp(table)
        level = sp.level
        sp.ptep = None
        self.port.account_pgtable(-1)
        for index in range(1 << self.kvm.index_bits):
            gfn = sp.gfn + index * self.pages_per_hpage(level)
            if shared:
                old = self._freeze(table, index)
            else:
                old = self.port.pt_read(table, index)
                if not is_present(old):
                    continue
                old = self.write_spte(table, index, old, FROZEN, level)
            self.handle_changed_spte(gfn, old, FROZEN, level, shared=shared)
            if sp.is_mirror:
                self.vm_bug_on(shared, "a table of a mirror is removed under the read lock")
                self.remove_external_spte(gfn, old, level)
        if sp.is_mirror and self.port.ext_free(sp.gfn, level, sp.external_spt):
            self.port.page_leak(sp.external_spt)
            sp.external_spt = 0
        self.port.call_rcu(table)

    def _freeze(self, table: int, index: int) -> int:
        """Exchange with FROZEN; what somebody else has frozen is his until he gives it back."""
        while True:
            old = self.port.pt_xchg(table, index, FROZEN)
            if old != FROZEN:
                return old
            self.port.cond_resched()

    def link_sp(self, it: TdpIter, sp: Sp, *, shared: bool) -> int:
        """tdp_mmu_link_sp. 0 or a negative errno."""
        spte = make_nonleaf_spte(sp.spt)
        if shared:
            error = self.set_spte_atomic(it, spte)
            if error:
                return error
        else:
            self.iter_set_spte(it, spte)
        self.port.account_pgtable(1)
        return 0


class Zapping(Sptes):
    """How leaves, tables and whole roots go."""

    def iter_cond_resched(self, it: TdpIter, *, flush: bool) -> bool:
        """tdp_mmu_iter_cond_resched: yield if others wait, but only once something was done since the last time."""
        if not self.port.resched() or it.next_last_level_gfn == it.yielded_gfn:
            return False
        if flush:
            self.port.flush_remote_tlbs()
        self.port.rcu_read_unlock()
        self.port.lock_yield()
        self.port.rcu_read_lock()
        it.yielded = True
        return True

    def _zap_root_level(self, root: Sp, zap_level: int, *, shared: bool) -> None:
        """__tdp_mmu_zap_root."""
        for it in walk_all(self, root, zap_level):
            while not self.iter_cond_resched(it, flush=False):
                if not is_present(it.old_spte) or it.level > zap_level:
                    break
                if not shared:
                    self.iter_set_spte(it, NONPRESENT)
                    break
                if not self.set_spte_atomic(it, NONPRESENT):
                    break

    def zap_root_levels(self, root: Sp) -> tuple[int, ...]:
        """Levels at which a root is zapped, one after another: all of them, as CONFIG_KVM_PROVE_MMU does."""
        return tuple(range(PG_LEVEL_4K, root.level + 1))

    def tdp_mmu_zap_root(self, root: Sp, *, shared: bool) -> None:
        """tdp_mmu_zap_root: one pass per level, lest a whole subtree goes without a chance to yield."""
        self.port.rcu_read_lock()
        for level in self.zap_root_levels(root):
            self._zap_root_level(root, level, shared=shared)
        self.port.rcu_read_unlock()

    def zap_sp(self, page: int) -> int:
        """kvm_tdp_mmu_zap_sp; NX recovery never meets a mirror."""
        sp = self.kvm.pages.get(page)
        if sp is None or sp.ptep is None or sp.is_mirror:
            return 0
        table, index = sp.ptep
        self.port.rcu_read_lock()
        old = self.port.pt_read(table, index)
        linked = is_present(old) and table_of(old) == page
        if linked:
            self.set_spte(table, index, old, NONPRESENT, sp.gfn, sp.level + 1)
        self.port.rcu_read_unlock()
        return int(linked)

    def tdp_mmu_zap_leafs(self, root: Sp, start: int, end: int, *, may_yield: bool, flush: bool) -> bool:
        """tdp_mmu_zap_leafs. Leaves of invalid roots need no flush: whoever loads a root flushes."""
        end = min(end, self.kvm.max_gfn + 1)
        self.port.rcu_read_lock()
        for it in walk(self, root, start, end):
            if may_yield and self.iter_cond_resched(it, flush=flush):
                flush = False
                continue
            if not is_present(it.old_spte) or not is_last(it.old_spte, it.level):
                continue
            self.iter_set_spte(it, NONPRESENT)
            if not root.invalid:
                flush = True
        self.port.rcu_read_unlock()
        return flush

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """kvm_tdp_mmu_zap_leafs, of the shared half: what asks for it is an event of the host."""
        flushing = bool(flush)
        for root in self.roots_yield_safe(DIRECT_ROOTS):
            flushing = self.tdp_mmu_zap_leafs(root, start, end, may_yield=True, flush=flushing)
        return int(flushing)

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """kvm_tdp_mmu_unmap_gfn_range: invalid roots too, as pages go back to the host after it."""
        flushing = bool(flush)
        for root in self.roots_yield_safe(self.filter_to_types(attr_filter) | TYPE_VALIDITY):
            flushing = self.tdp_mmu_zap_leafs(root, start, end, may_yield=bool(may_block), flush=flushing)
        return int(flushing)

    def zap_all(self) -> None:
        """kvm_mmu_zap_all. Nobody is left who could use a stale translation, so it flushes nothing."""
        self.port.write_lock()
        for root in self.roots_yield_safe(DIRECT_ROOTS | TYPE_VALIDITY):
            self.tdp_mmu_zap_root(root, shared=False)
        self.port.write_unlock()

    def tdp_mmu_zap_invalidated_roots(self, *, shared: bool) -> None:
        """kvm_tdp_mmu_zap_invalidated_roots."""
        if shared:
            self.port.read_lock()
        else:
            self.port.write_lock()
        for root in self.roots_yield_safe(ALL_ROOTS):
            if root.scheduled:
                root.scheduled = False
                self.tdp_mmu_zap_root(root, shared=shared)
                self.put_root(root)
        if shared:
            self.port.read_unlock()
        else:
            self.port.write_unlock()

    def zap_invalidated_roots(self) -> None:
        """As kvm_mmu_zap_all_fast calls it: direct roots, lock held for read."""
        self.tdp_mmu_zap_invalidated_roots(shared=True)

    def vm_uninit(self) -> None:
        """kvm_mmu_uninit_tdp_mmu. Tables of a mirror go under the write lock alone."""
        self.invalidate_roots(VALID_ROOTS)
        self.tdp_mmu_zap_invalidated_roots(shared=False)
        self.warn_on_once(bool(self.kvm.roots), "vm_uninit: roots are left")
        self.port.rcu_barrier()
