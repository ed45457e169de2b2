"""Tables, and entries that change: tdp_mmu.c up to tdp_mmu_set_spte."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import PA_MASK, is_last, is_present
from conformance.candidates.builtin.tdp_mirror.upstream.vm import Vm
from conformance.specs.tdp_mirror.constants import EBUSY, EIO, EXTERNAL, FROZEN, HEADER, NONPRESENT, TABLE


class Tables(Vm):
    """Shadow pages, and the setters of their entries."""

    def initial_entry(self) -> int:
        """What a new table holds."""
        return NONPRESENT

    def alloc_sp(self, vcpu: int, mirror: bool, level: int, gfn: int, *, with_external: bool) -> ShadowPage:
        """A table from the caches, its header filled in."""
        port = self.port
        header, page = port.cache_alloc(vcpu, HEADER), port.cache_alloc(vcpu, TABLE)
        sp = ShadowPage(page, header, mirror, level, gfn)
        if with_external:
            sp.external = port.cache_alloc(vcpu, EXTERNAL)
        self.init_sp(sp)
        return sp

    def init_sp(self, sp: ShadowPage) -> None:
        """tdp_mmu_init_sp."""
        self.sps[sp.page] = sp
        self.port.sp_init(sp.page, sp.header, self.role_word(sp.mirror, sp.level), sp.gfn, sp.external)

    def free_sp(self, sp: ShadowPage) -> None:
        """tdp_mmu_free_sp."""
        del self.sps[sp.page]
        if sp.external:
            self.port.page_free(sp.external)
        self.port.page_free(sp.page)
        self.port.page_free(sp.header)

    def rcu_callback(self, page: int) -> None:
        """tdp_mmu_free_sp_rcu_callback."""
        self.free_sp(self.sps[page])

    def handle_changed_spte(self, sp: ShadowPage, gfn: int, old: int, new: int, level: int, shared: bool) -> None:
        """Bookkeeping of a change, and removal of what is not reachable any more."""
        was, now = is_present(old), is_present(new)
        was_leaf, is_leaf = was and is_last(old, level), now and is_last(new, level)
        if was_leaf != is_leaf:
            self.port.update_page_stats(level, 1 if is_leaf else -1)
        if was and not was_leaf and (not now or is_leaf or old & PA_MASK != new & PA_MASK):
            self.handle_removed_pt(self.sps[old & PA_MASK], gfn, shared)

    def handle_removed_pt(self, sp: ShadowPage, base: int, shared: bool) -> None:
        """Take a table apart: freeze its entries, remove what is below, free it later."""
        port = self.port
        port.account_pgtable(-1)
        for index in range(self.entries):
            gfn = base + index * self.pages_per_entry(sp.level)
            old = self.remove_entry(sp, index, shared)
            self.handle_changed_spte(sp, gfn, old, FROZEN, sp.level, shared)
            if sp.mirror and is_present(old) and is_last(old, sp.level):
                self.remove_external(gfn, sp.level, old)
        if sp.mirror and sp.external:
            self.free_external(sp)
        port.call_rcu(sp.page)

    def remove_entry(self, sp: ShadowPage, index: int, shared: bool) -> int:
        """Freeze one entry of a removed table."""
        port = self.port
        if not shared:
            old: int = port.pt_read(sp.page, index)
            if is_present(old) and is_last(old, sp.level):
                return port.pt_xchg(sp.page, index, FROZEN)  # type: ignore[no-any-return]  # an int
            port.pt_store(sp.page, index, FROZEN)
            return old
        old = port.pt_xchg(sp.page, index, FROZEN)
        while old == FROZEN:
            port.cond_resched()
            old = port.pt_xchg(sp.page, index, FROZEN)
        return old

    def free_external(self, sp: ShadowPage) -> None:
        """Give the external page back; leak it when the firmware keeps it."""
        if self.port.ext_free(sp.gfn, sp.level, sp.external):
            self.port.vm_bug("external table not freed")
            self.port.page_leak(sp.external)
            sp.external = 0

    def remove_external(self, gfn: int, level: int, old: int) -> None:
        """remove_external_spte."""
        if self.port.ext_remove(gfn, level, (old & PA_MASK) >> 12):
            self.port.vm_bug("external leaf not removed")

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """set_external_spte_present: freeze, tell the external tree, publish or restore."""
        port = self.port
        if is_present(old):
            port.vm_bug("mirror entry is already present")
            return -EIO
        if port.pt_cmpxchg(page, index, old, FROZEN) != old:
            return -EBUSY
        error: int
        if is_last(new, level):
            error = port.ext_set(gfn, level, (new & PA_MASK) >> 12)
        else:
            error = port.ext_link(gfn, level, self.sps[new & PA_MASK].external)
        port.pt_store(page, index, old if error else new)
        return error

    def set_spte_atomic(self, sp: ShadowPage, index: int, gfn: int, old: int, new: int) -> tuple[int, int]:
        """tdp_mmu_set_spte_atomic: an error, and the value found when the exchange was lost."""
        port = self.port
        if sp.mirror and new != FROZEN:
            if not is_present(new):
                port.vm_bug("atomic zap of a mirror entry")
                return -EBUSY, old
            error = self.set_external_present(sp.page, index, gfn, old, new, sp.level)
            if error:
                return error, old
        else:
            found: int = port.pt_cmpxchg(sp.page, index, old, new)
            if found != old:
                return -EBUSY, found
        self.handle_changed_spte(sp, gfn, old, new, sp.level, True)
        return 0, old

    def set_spte(self, sp: ShadowPage, index: int, gfn: int, new: int) -> int:
        """tdp_mmu_set_spte, with the lock held for write; returns the old value."""
        port = self.port
        old: int = port.pt_read(sp.page, index)
        if is_present(old) and is_last(old, sp.level):
            old = port.pt_xchg(sp.page, index, new)
        else:
            port.pt_store(sp.page, index, new)
        self.handle_changed_spte(sp, gfn, old, new, sp.level, False)
        if sp.mirror:
            if is_present(new):
                port.vm_bug("exclusive store of a present mirror entry")
            if is_present(old) and is_last(old, sp.level):
                self.remove_external(gfn, sp.level, old)
        return old
