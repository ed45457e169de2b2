"""A TDP MMU as Linux has it: an iterator over entries, atomic and exclusive setters, and the TDX hooks.

`Upstream` follows 6.16 with the fixes that the specification states as clauses; `Upstream619` adds
pages to the TD when they are mapped; `AsPosted` is the seed series of May 2024, defects and all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import FROZEN, INVALID_PAGE, NONPRESENT

PA_MASK = ((1 << 40) - 1) << 12
PRESENT = 1 << k.PRESENT
ACCESSED = 1 << k.ACCESSED
DIRTY = 1 << k.DIRTY
WRITABLE = 1 << k.WRITE
HUGE = 1 << k.HUGE
SOFT_WRITABLE = 1 << k.HOST_WRITABLE | 1 << k.MMU_WRITABLE
TABLE_ENTRY = NONPRESENT | PRESENT | ACCESSED | k.RWX
KINDS = (k.HEADER, k.TABLE, k.EXTERNAL)
MAX_CACHE = 5


def is_present(spte: int) -> bool:
    """Bit 11 and nothing else."""
    return bool(spte & PRESENT)


def is_last(spte: int, level: int) -> bool:
    """Whether a present entry is a leaf."""
    return level == k.PG_LEVEL_4K or bool(spte & HUGE)


class ShadowPage:
    """A table that this MMU built."""

    def __init__(self, page: int, header: int, mirror: bool, level: int, gfn: int) -> None:
        self.page = page
        self.header = header
        self.external = 0
        self.mirror = mirror
        self.level = level
        self.gfn = gfn
        self.invalid = False
        self.scheduled = False
        self.parent: tuple[int, int] | None = None


class Fault:
    """One fault on its way through the handler."""

    def __init__(self, vcpu: int, gpa: int, private: bool, write: bool, prefetch: bool) -> None:
        self.vcpu = vcpu
        self.gpa = gpa
        self.gfn = gpa >> 12
        self.private = private
        self.write = write
        self.prefetch = prefetch
        self.seq = 0
        self.pfn = 0
        self.writable = True
        self.max_level = 1
        self.goal_level = 1
        self.slot: tuple[int, ...] = ()


class Iter:
    """Pre-order walk over the entries of a root, as tdp_iter."""

    def __init__(self, mmu: Upstream, root: ShadowPage, min_level: int, start: int, bits: int) -> None:
        self.mmu = mmu
        self.root = root
        self.min_level = min_level
        self.bits = bits
        self.next_last_level_gfn = start
        self.yielded_gfn = start
        self.yielded = False
        self.path: dict[int, int] = {}
        self.valid = True
        self.level = 0
        self.gfn = 0
        self.page = 0
        self.index = 0
        self.old_spte = 0
        if bits and start >= bits:
            mmu.port.warn_once("walk starts beyond the direct bits")
            self.valid = False
            return
        self.restart()

    def restart(self) -> None:
        """From the root again, towards the next entry to visit."""
        self.yielded = False
        self.yielded_gfn = self.next_last_level_gfn
        self.level = self.root.level
        self.path = {self.level: self.root.page}
        self.gfn = self.round(self.next_last_level_gfn)
        self.reset()

    def round(self, gfn: int) -> int:
        """First gfn of the current entry."""
        return gfn & ~(self.mmu.pages_per_entry(self.level) - 1)

    def reset(self) -> None:
        """Read the current entry."""
        self.page = self.path[self.level]
        self.index = self.mmu.index_of(self.gfn | self.bits, self.level)
        self.old_spte = self.mmu.port.pt_read(self.page, self.index)

    def step_down(self) -> bool:
        """Into the table that the entry points to."""
        if self.level == self.min_level:
            return False
        self.old_spte = self.mmu.port.pt_read(self.page, self.index)
        if not is_present(self.old_spte) or is_last(self.old_spte, self.level):
            return False
        self.level -= 1
        self.path[self.level] = self.old_spte & PA_MASK
        self.gfn = self.round(self.next_last_level_gfn)
        self.reset()
        return True

    def step_side(self) -> bool:
        """To the next entry of the table."""
        if self.index == self.mmu.entries - 1:
            return False
        self.gfn += self.mmu.pages_per_entry(self.level)
        self.next_last_level_gfn = self.gfn
        self.index += 1
        self.old_spte = self.mmu.port.pt_read(self.page, self.index)
        return True

    def step_up(self) -> bool:
        """To the table above."""
        if self.level == self.root.level:
            return False
        self.level += 1
        self.gfn = self.round(self.gfn)
        self.reset()
        return True

    def next(self) -> None:
        """To the next entry, or the end."""
        if self.yielded:
            self.restart()
            return
        if self.step_down():
            return
        while True:
            if self.step_side():
                return
            if not self.step_up():
                break
        self.valid = False


class Upstream:
    """Linux 6.16."""

    profile = "upstream"

    def __init__(self, port: Any) -> None:
        self.port = port
        self.mirror = False
        self.private = False
        self.bits = 0
        self.levels = 4
        self.index_bits = 9
        self.entries = 512
        self.max_gfn = 0
        self.sps: dict[int, ShadowPage] = {}
        self.roots: list[ShadowPage] = []
        self.root_hpa: dict[int, int] = {}
        self.mirror_root_hpa: dict[int, int] = {}

    def vm_init(
        self, mirror: int, direct_bits: int, root_level: int, index_bits: int, max_gfn: int, private: int
    ) -> int:
        """Remember the shape of the VM."""
        self.mirror, self.private = bool(mirror), bool(private)
        self.bits, self.levels, self.index_bits, self.max_gfn = direct_bits, root_level, index_bits, max_gfn
        self.entries = 1 << index_bits
        return 0

    # -- arithmetic

    def pages_per_entry(self, level: int) -> int:
        """KVM_PAGES_PER_HPAGE."""
        return 1 << self.index_bits * (level - 1)

    def index_of(self, gfn: int, level: int) -> int:
        """SPTE_INDEX of a gfn."""
        return gfn >> self.index_bits * (level - 1) & (self.entries - 1)

    def root_bits(self, root: ShadowPage) -> int:
        """kvm_gfn_root_bits."""
        return 0 if root.mirror else self.bits

    def role_word(self, mirror: bool, level: int, invalid: bool = False) -> int:
        """The role of a table."""
        return level | 1 << k.ROLE_DIRECT | k.RWX << k.ROLE_ACCESS | invalid << k.ROLE_INVALID | mirror << k.ROLE_MIRROR

    # -- types of roots

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """tdp_mmu_root_match."""
        if not types & (k.DIRECT_ROOTS | k.MIRROR_ROOTS):
            self.port.warn_once("root types without a kind")
            return 0
        if invalid and not types & k.TYPE_VALIDITY:
            return 0
        return int(bool(types & (k.MIRROR_ROOTS if mirror else k.DIRECT_ROOTS)))

    def filter_to_types(self, attr_filter: int) -> int:
        """kvm_gfn_range_filter_to_root_types."""
        if not self.mirror:
            return k.DIRECT_ROOTS
        types = 0
        if not attr_filter:
            self.port.warn_once("empty filter")
        if attr_filter & k.FILTER_PRIVATE:
            types |= k.MIRROR_ROOTS
        if attr_filter & k.FILTER_SHARED:
            types |= k.DIRECT_ROOTS
        return types

    def addr_is_direct(self, gpa: int) -> int:
        """kvm_is_addr_direct."""
        return int(not self.bits or bool(gpa >> 12 & self.bits))

    def gfn_is_alias(self, gfn: int) -> int:
        """kvm_is_gfn_alias."""
        return int(bool(gfn & self.bits))

    def select_root(self, vcpu: int, types: int) -> int:
        """tdp_mmu_get_root."""
        if types & k.MIRROR_ROOTS and not types & k.DIRECT_ROOTS and self.mirror:
            return self.mirror_root_hpa[vcpu]
        return self.root_hpa[vcpu]

    @property
    def all_types(self) -> int:
        """Every root, valid or not."""
        return k.TYPE_VALIDITY | k.DIRECT_ROOTS | k.MIRROR_ROOTS

    @property
    def invalid_too(self) -> int:
        """What to add to types to include invalid roots."""
        return k.TYPE_VALIDITY

    @property
    def valid_only(self) -> int:
        """What to add to types to leave out invalid roots."""
        return 0

    # -- life of roots

    def vcpu_create(self, vcpu: int) -> int:
        """kvm_mmu_create."""
        self.root_hpa[vcpu] = self.mirror_root_hpa[vcpu] = INVALID_PAGE
        return 0

    def vcpu_destroy(self, vcpu: int) -> None:
        """kvm_mmu_destroy."""
        self.mmu_unload(vcpu)
        self.put_mirror(vcpu)
        self.port.cache_free(vcpu)

    def put_mirror(self, vcpu: int) -> None:
        """Put the vCPU's reference to the mirror root."""
        page = self.mirror_root_hpa[vcpu]
        if page == INVALID_PAGE:
            return
        self.port.read_lock()
        self.mirror_root_hpa[vcpu] = INVALID_PAGE
        self.port.vcpu_root(vcpu, 1, INVALID_PAGE)
        self.put_root(self.sps[page])
        self.port.read_unlock()

    def mmu_unload(self, vcpu: int) -> None:
        """kvm_mmu_free_roots of the direct root."""
        page = self.root_hpa[vcpu]
        if page == INVALID_PAGE:
            return
        self.port.read_lock()
        self.root_hpa[vcpu] = INVALID_PAGE
        self.port.vcpu_root(vcpu, 0, INVALID_PAGE)
        self.put_root(self.sps[page])
        self.port.read_unlock()

    def free_obsolete_roots(self, vcpu: int) -> None:
        """kvm_mmu_free_obsolete_roots."""
        page = self.root_hpa[vcpu]
        if page != INVALID_PAGE and self.sps[page].invalid:
            self.mmu_unload(vcpu)

    def mmu_reload(self, vcpu: int) -> int:
        """kvm_mmu_reload."""
        if self.port.check_request(vcpu, k.REQ_FREE_OBSOLETE_ROOTS):
            self.free_obsolete_roots(vcpu)
        if self.root_hpa[vcpu] != INVALID_PAGE:
            return 0
        return self.mmu_load(vcpu)

    def mmu_load(self, vcpu: int) -> int:
        """kvm_mmu_load."""
        error = self.topup(vcpu)
        if error:
            return error
        self.alloc_roots(vcpu)
        self.port.load_pgd(vcpu, self.root_hpa[vcpu], self.levels)
        return 0

    def alloc_roots(self, vcpu: int) -> None:
        """The mirror root first, and only once; then the direct root."""
        if self.mirror and self.mirror_root_hpa[vcpu] == INVALID_PAGE:
            self.alloc_root(vcpu, True)
        self.alloc_root(vcpu, False)

    def topup(self, vcpu: int) -> int:
        """mmu_topup_memory_caches."""
        for kind in KINDS if self.mirror else KINDS[:2]:
            error: int = self.port.cache_topup(vcpu, kind, MAX_CACHE, self.initial_entry())
            if error:
                return error
        return 0

    def initial_entry(self) -> int:
        """What a new table holds."""
        return NONPRESENT

    def alloc_root(self, vcpu: int, mirror: bool) -> None:
        """kvm_tdp_mmu_alloc_root: an existing valid root of the same role, or a new one."""
        port = self.port
        port.read_lock()
        port.pages_lock()
        root = self.find_root(mirror)
        if root is None:
            root = self.new_root(vcpu, mirror)
        port.pages_unlock()
        self.install_root(vcpu, root)
        port.read_unlock()

    def find_root(self, mirror: bool) -> ShadowPage | None:
        """A valid root of the role, with a reference."""
        for root in self.roots:
            if root.mirror == mirror and not root.invalid and self.port.refcount_inc_not_zero(root.page):
                return root
        return None

    def new_root(self, vcpu: int, mirror: bool) -> ShadowPage:
        """A root with two references: the vCPU's and the MMU's."""
        port = self.port
        root = self.alloc_sp(vcpu, mirror, self.levels, 0, with_external=False)
        port.refcount_set(root.page, 2)
        self.roots.append(root)
        port.roots_add(root.page)
        return root

    def install_root(self, vcpu: int, root: ShadowPage) -> None:
        """Store it in the vCPU's MMU."""
        (self.mirror_root_hpa if root.mirror else self.root_hpa)[vcpu] = root.page
        self.port.vcpu_root(vcpu, int(root.mirror), root.page)

    def put_root(self, root: ShadowPage) -> None:
        """kvm_tdp_mmu_put_root."""
        port = self.port
        if not port.refcount_dec_and_test(root.page):
            return
        if not root.invalid:
            port.vm_bug("final put of a valid root")
        port.pages_lock()
        self.roots.remove(root)
        port.roots_del(root.page)
        port.pages_unlock()
        port.call_rcu(root.page)

    def next_root(self, previous: ShadowPage | None, types: int) -> ShadowPage | None:
        """tdp_mmu_next_root: the next one with a reference; puts the previous one."""
        port = self.port
        port.rcu_read_lock()
        at = self.roots.index(previous) + 1 if previous is not None else 0
        found = None
        for root in self.roots[at:]:
            if self.root_match(int(root.mirror), int(root.invalid), types) and port.refcount_inc_not_zero(root.page):
                found = root
                break
        port.rcu_read_unlock()
        if previous is not None:
            self.put_root(previous)
        return found

    def each_root(self, types: int) -> Iterator[ShadowPage]:
        """Every root of the types, held while the caller works on it."""
        root = self.next_root(None, types)
        while root is not None:
            yield root
            root = self.next_root(root, types)

    def invalidate_roots(self, types: int) -> None:
        """kvm_tdp_mmu_invalidate_roots."""
        if types & k.TYPE_VALIDITY:
            self.port.warn_once("invalid roots cannot be invalidated")
            types &= ~k.TYPE_VALIDITY
        for root in self.roots:
            if not root.invalid and self.root_match(int(root.mirror), 0, types):
                root.invalid = root.scheduled = True
                self.port.role_invalidate(root.page)

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

    def zap_all_fast(self) -> None:
        """kvm_mmu_zap_all_fast."""
        port = self.port
        port.write_lock()
        self.invalidate_roots(k.DIRECT_ROOTS)
        port.make_all_cpus_request(k.REQ_FREE_OBSOLETE_ROOTS)
        port.write_unlock()
        self.zap_invalidated_roots()

    def zap_all(self) -> None:
        """kvm_mmu_zap_all: the VM is going away."""
        self.port.write_lock()
        for root in self.each_root(k.DIRECT_ROOTS | self.invalid_too):
            self.zap_root(root, False)
        self.port.write_unlock()

    def vm_uninit(self) -> None:
        """kvm_mmu_uninit_tdp_mmu."""
        self.invalidate_roots(k.DIRECT_ROOTS | k.MIRROR_ROOTS)
        self.zap_scheduled(shared=False)
        self.port.rcu_barrier()

    # -- tables

    def alloc_sp(self, vcpu: int, mirror: bool, level: int, gfn: int, *, with_external: bool) -> ShadowPage:
        """A table from the caches, its header filled in."""
        port = self.port
        header, page = port.cache_alloc(vcpu, k.HEADER), port.cache_alloc(vcpu, k.TABLE)
        sp = ShadowPage(page, header, mirror, level, gfn)
        if with_external:
            sp.external = port.cache_alloc(vcpu, k.EXTERNAL)
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

    # -- changing entries

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
            return -k.EIO
        if port.pt_cmpxchg(page, index, old, FROZEN) != old:
            return -k.EBUSY
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
                return -k.EBUSY, old
            error = self.set_external_present(sp.page, index, gfn, old, new, sp.level)
            if error:
                return error, old
        else:
            found: int = port.pt_cmpxchg(sp.page, index, old, new)
            if found != old:
                return -k.EBUSY, found
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

    # -- walking

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

    # -- zapping

    def zap_root(self, root: ShadowPage, shared: bool) -> None:
        """tdp_mmu_zap_root: the huge levels first, so that each step is bounded."""
        self.port.rcu_read_lock()
        if self.levels > k.MAX_HUGE_LEVEL:
            self.zap_root_level(root, shared, k.MAX_HUGE_LEVEL)
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
        for root in self.each_root(k.DIRECT_ROOTS | self.valid_only):
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

    # -- faults

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

    def is_unmappable(self, gfn: int) -> bool:
        """Whether no walk from the root can name the gfn."""
        return gfn >= self.pages_per_entry(self.levels + 1)

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

    def fault_root(self, fault: Fault) -> int:
        """tdp_mmu_get_root_for_fault."""
        if self.mirror and not self.addr_is_direct(fault.gpa):
            return self.mirror_root_hpa[fault.vcpu]
        return self.root_hpa[fault.vcpu]

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """kvm_tdp_mmu_map for a caller that resolved the page itself."""
        fault = Fault(vcpu, gpa, bool(is_private), bool(write), False)
        fault.gfn &= ~self.bits
        fault.pfn = pfn + (fault.gfn & (self.pages_per_entry(goal_level) - 1))
        fault.goal_level = goal_level
        if self.fault_root(fault) == INVALID_PAGE:
            return -k.EIO
        return self.tdp_mmu_map(fault)

    def map_fault(self, fault: Fault) -> int:
        """The level that the page allows, then the map."""
        fault.goal_level = self.hugepage_level(fault)
        return self.tdp_mmu_map(fault)

    def hugepage_level(self, fault: Fault) -> int:
        """kvm_mmu_hugepage_adjust: within the slot, and of one attribute."""
        if fault.private or fault.max_level < 2:
            return 1
        count = self.pages_per_entry(2)
        start = fault.gfn & ~(count - 1)
        _, base, npages, _ = fault.slot
        if start < base or start + count > base + npages:
            return 1
        if self.private and any(self.port.attributes(gfn) for gfn in range(start, start + count)):
            return 1
        return 2

    def refuses_level(self, root: ShadowPage, fault: Fault) -> bool:
        """Mirrors take nothing but 4K."""
        return root.mirror and fault.goal_level > 1

    def tdp_mmu_map(self, fault: Fault) -> int:
        """kvm_tdp_mmu_map: descend to the goal level, building tables on the way."""
        root = self.sps[self.fault_root(fault)]
        if self.refuses_level(root, fault) or root.invalid:
            return -k.EIO
        self.port.rcu_read_lock()
        result = self.descend(root, fault)
        self.port.rcu_read_unlock()
        return result

    def descend(self, root: ShadowPage, fault: Fault) -> int:
        """One entry per level."""
        port = self.port
        raw = fault.gfn | self.root_bits(root)
        sp = root
        while True:
            index = self.index_of(raw, sp.level)
            spte = port.pt_read(sp.page, index)
            if spte == FROZEN:
                return k.RET_PF_RETRY
            if sp.level == fault.goal_level:
                return self.map_target(sp, index, spte, fault)
            if not is_present(spte) or is_last(spte, sp.level):
                result = self.build_table(sp, index, spte, fault)
                if result != k.RET_PF_CONTINUE:
                    return result
                continue
            sp = self.sps[spte & PA_MASK]

    def build_table(self, sp: ShadowPage, index: int, spte: int, fault: Fault) -> int:
        """Link a new table under an entry, or split the huge leaf that is there."""
        gfn = fault.gfn & ~(self.pages_per_entry(sp.level) - 1)
        if is_present(spte) and sp.mirror and not self.splits_mirror():
            self.port.vm_bug("huge leaf in a mirror")
            return -k.EIO
        child = self.alloc_sp(fault.vcpu, sp.mirror, sp.level - 1, gfn, with_external=sp.mirror)
        if is_present(spte):
            self.fill_split(child, spte)
        if self.link_sp(sp, index, gfn, spte, child):
            self.free_sp(child)
            return k.RET_PF_RETRY
        return k.RET_PF_CONTINUE

    def splits_mirror(self) -> bool:
        """Whether the check on huge mirror leaves lets the split go on."""
        return False

    def fill_split(self, child: ShadowPage, huge: int) -> None:
        """Leaves of the next level for all that a huge leaf maps."""
        small = huge & ~HUGE if child.level == 1 else huge
        step = self.pages_per_entry(child.level) << 12
        for index in range(self.entries):
            self.port.pt_store(child.page, index, small + index * step)
        if not child.mirror:
            self.port.update_page_stats(child.level, self.entries)

    def link_sp(self, sp: ShadowPage, index: int, gfn: int, old: int, child: ShadowPage) -> int:
        """tdp_mmu_link_sp."""
        child.parent = (sp.page, index)
        error, _ = self.set_spte_atomic(sp, index, gfn, old, TABLE_ENTRY | child.page)
        if not error:
            self.port.account_pgtable(1)
        elif is_present(old) and not child.mirror:
            self.port.update_page_stats(child.level, -self.entries)
        return error

    def make_spte(self, fault: Fault, level: int, mirror: bool) -> int:
        """A leaf."""
        pfn = fault.pfn & ~(self.pages_per_entry(level) - 1)
        spte = NONPRESENT | PRESENT | k.MEMTYPE_WB | 1 << k.READ | 1 << k.EXEC | pfn << 12
        if not fault.prefetch:
            spte |= ACCESSED
        if level > 1:
            spte |= HUGE
        if fault.writable or mirror:
            spte |= WRITABLE | DIRTY | SOFT_WRITABLE
        return spte

    def map_target(self, sp: ShadowPage, index: int, old: int, fault: Fault) -> int:
        """tdp_mmu_map_handle_target_level."""
        was = is_present(old)
        was_leaf = was and is_last(old, sp.level)
        if was_leaf and (fault.prefetch or not fault.write or old & WRITABLE):
            return k.RET_PF_SPURIOUS
        new = self.make_spte(fault, sp.level, sp.mirror)
        if was_leaf:
            new |= old & (ACCESSED | DIRTY)
        if new == old:
            return k.RET_PF_SPURIOUS
        gfn = fault.gfn & ~(self.pages_per_entry(sp.level) - 1)
        error, _ = self.set_spte_atomic(sp, index, gfn, old, new)
        if error:
            return k.RET_PF_RETRY
        if was and not was_leaf:
            self.flush_gfns(gfn, self.pages_per_entry(sp.level))
        return k.RET_PF_FIXED

    def flush_gfns(self, gfn: int, count: int) -> None:
        """kvm_flush_remote_tlbs_range."""
        if self.port.flush_range(gfn, count):
            self.port.flush_remote_tlbs()

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
            if spte & SOFT_WRITABLE != SOFT_WRITABLE:
                break
            if port.pt_cmpxchg(page, index, spte, spte | WRITABLE | DIRTY | ACCESSED) == spte:
                result = k.RET_PF_FIXED
                break
        port.rcu_read_unlock()
        return result

    def can_be_fast(self, gpa: int, error_code: int) -> bool:
        """page_fault_can_be_fast: the shared half, and as the attributes say."""
        if error_code >> k.PFERR_PRIVATE_ACCESS & 1 or not self.addr_is_direct(gpa):
            return False
        return not self.private or not self.port.attributes(gpa >> 12 & ~self.bits)

    def fast_key(self, gpa: int) -> int:
        """What the lockless walk looks for."""
        return gpa >> 12 & ~self.bits

    def last_spte(self, root: int, gfn: int) -> tuple[int, int, int] | None:
        """Place and value of the leaf of a shared gfn."""
        if self.is_unmappable(gfn):
            return None
        page = root
        for level in range(self.levels, 0, -1):
            index = self.index_of(gfn | self.bits, level)
            spte = self.port.pt_read(page, index)
            if not is_present(spte):
                return None
            if is_last(spte, level):
                return page, index, spte
            page = spte & PA_MASK
        return None

    def get_walk(self, vcpu: int, gpa: int) -> tuple[int, ...]:
        """kvm_tdp_mmu_get_walk."""
        direct = self.addr_is_direct(gpa)
        page = self.root_hpa[vcpu] if direct else self.mirror_root_hpa[vcpu]
        gfn = gpa >> 12 & ~self.bits
        if self.is_unmappable(gfn):
            return ()
        raw = gfn | (self.bits if direct else 0)
        sptes: tuple[int, ...] = ()
        self.port.rcu_read_lock()
        for level in range(self.levels, 0, -1):
            spte = self.port.pt_read(page, self.index_of(raw, level))
            sptes += (spte,)
            if not is_present(spte) or is_last(spte, level):
                break
            page = spte & PA_MASK
        self.port.rcu_read_unlock()
        return sptes

    def gpa_is_mapped(self, vcpu: int, gpa: int) -> int:
        """kvm_tdp_mmu_gpa_is_mapped."""
        sptes = self.get_walk(vcpu, gpa)
        level = self.levels - len(sptes) + 1
        return int(bool(sptes) and is_present(sptes[-1]) and is_last(sptes[-1], level))

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

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """tdx_handle_ept_violation of the private half."""
        port = self.port
        while True:
            if port.vm_is_dead():
                return -k.EIO
            fault = Fault(vcpu, gpa, True, True, False)
            result = self.handle_fault(fault)
            if result != k.RET_PF_RETRY:
                return result
            if fault.slot and fault.slot[3] & k.SLOT_INVALID:
                return result
            if port.vcpu_has_events(vcpu) or port.signal_pending():
                return -k.EIO if port.vm_is_dead() else result
            port.cond_resched()

    # -- aging, write protection, dirty logging, huge pages: the shared half only

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
        return k.DIRECT_ROOTS | self.valid_only

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
                changed |= self.clear_bits(it, WRITABLE | 1 << k.MMU_WRITABLE)
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
        header = self.port.page_alloc(k.HEADER, 0)
        if not header:
            return None
        page = self.port.page_alloc(k.TABLE, NONPRESENT)
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

    # -- notifications, conversion, slots

    def slots_in(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Parts of a range that lie in slots: start, end, flags."""
        end = min(end, self.bits or end, self.max_gfn + 1)
        if start < end:
            for _, base, npages, flags in self.port.memslots(start, end):
                yield max(start, base), min(end, base + npages), flags

    def unmap_slots(self, start: int, end: int, attr_filter: int, need: int = 0, may_block: int = 1) -> None:
        """Unmap what of a range lies in slots, and flush."""
        flush = 0
        for lo, hi, flags in self.slots_in(start, end):
            if flags & need == need:
                flush = self.unmap_gfn_range(lo, hi, attr_filter, may_block, flush)
        if flush:
            self.port.flush_remote_tlbs()

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """An invalidation from its beginning to its end."""
        port = self.port
        port.write_lock()
        port.mmu_invalidate_begin(start, end)
        self.unmap_slots(start, end, attr_filter, need, may_block)
        port.write_unlock()
        port.write_lock()
        port.mmu_invalidate_end()
        port.write_unlock()

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """kvm_mmu_notifier_invalidate_range_start and _end."""
        self.invalidation(start, end, k.FILTER_SHARED, 0, may_block)

    def gmem_invalidate(self, start: int, end: int) -> None:
        """kvm_gmem_invalidate_begin and _end."""
        self.invalidation(start, end, k.FILTER_PRIVATE, k.MEM_GUEST_MEMFD, 1)

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """kvm_vm_ioctl_set_mem_attributes."""
        supported = k.ATTRIBUTE_PRIVATE if self.private else 0
        if flags or attributes & ~supported or not size or (address | size) & 4095 or address + size > 2**64:
            return -k.EINVAL
        port = self.port
        port.slots_lock()
        error = self.change_attributes(address >> 12, address + size >> 12, attributes)
        port.slots_unlock()
        return error

    def change_attributes(self, start: int, end: int, attributes: int) -> int:
        """kvm_vm_set_mem_attributes: zap the old half, store, end."""
        port = self.port
        if port.range_has_attributes(start, end, attributes):
            return 0
        error: int = port.reserve_attributes(start, end)
        if error:
            return error
        lo, hi = self.invalidated_range(start, end)
        port.write_lock()
        port.mmu_invalidate_begin(lo, hi)
        self.unmap_slots(start, end, self.old_half(attributes))
        port.write_unlock()
        port.store_attributes(start, end, attributes)
        port.write_lock()
        port.mmu_invalidate_end()
        port.write_unlock()
        return 0

    def invalidated_range(self, start: int, end: int) -> tuple[int, int]:
        """Potential huge pages that straddle the ends are part of it."""
        mask = self.pages_per_entry(2) - 1
        return start & ~mask, end + mask & ~mask

    def old_half(self, attributes: int) -> int:
        """The half that the pages leave."""
        return k.FILTER_SHARED if attributes & k.ATTRIBUTE_PRIVATE else k.FILTER_PRIVATE

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """__kvm_set_memory_region of a new slot, and kvm_arch_prepare_memory_region."""
        port = self.port
        gmem = flags & k.MEM_GUEST_MEMFD
        if gmem and (not self.private or flags & (k.MEM_LOG_DIRTY_PAGES | k.MEM_READONLY)):
            return -k.EINVAL
        if not self.accepts_range(base, npages):
            return -k.EINVAL
        port.slots_lock()
        existing = port.memslot_by_id(slot)
        if existing and existing[3] & k.MEM_GUEST_MEMFD:
            error = -k.EINVAL
        else:
            error = port.memslot_install(slot, base, npages, flags)
        port.slots_unlock()
        return error

    def accepts_range(self, base: int, npages: int) -> bool:
        """No gfn beyond the last one or with the alias bit."""
        last = base + npages - 1
        if npages <= 0 or last > self.max_gfn:
            return False
        if not self.bits:
            return True
        return not (base | last) & self.bits and base // self.bits == last // self.bits

    def zap_slot(self, base: int, npages: int) -> None:
        """kvm_mmu_zap_memslot."""
        port = self.port
        port.write_lock()
        if self.unmap_gfn_range(base, base + npages, k.FILTER_SHARED | k.FILTER_PRIVATE, 1, 0):
            port.flush_remote_tlbs()
        port.write_unlock()

    def slot_delete(self, slot: int) -> int:
        """Invalidate the slot, wait for its users, zap, remove."""
        port = self.port
        port.slots_lock()
        found = port.memslot_by_id(slot)
        if not found:
            port.slots_unlock()
            return -k.EINVAL
        port.memslot_install(slot, found[1], found[2], found[3] | k.SLOT_INVALID)
        port.synchronize_srcu()
        self.zap_slot(found[1], found[2])
        port.memslot_remove(slot)
        port.slots_unlock()
        return 0

    def slot_move(self, slot: int, base: int) -> int:
        """As a deletion and a creation at another place."""
        port = self.port
        port.slots_lock()
        error = self.move_slot(slot, base)
        port.slots_unlock()
        return error

    def move_slot(self, slot: int, base: int) -> int:
        """The move, with slots_lock held."""
        port = self.port
        found = port.memslot_by_id(slot)
        if not found or found[3] & k.MEM_GUEST_MEMFD or not self.accepts_range(base, found[2]):
            return -k.EINVAL
        if base == found[1]:
            return 0
        error: int = port.memslot_install(slot, base, found[2], found[3])
        if error:
            return error
        port.memslot_install(slot, found[1], found[2], found[3] | k.SLOT_INVALID)
        port.synchronize_srcu()
        self.zap_slot(found[1], found[2])
        return port.memslot_install(slot, base, found[2], found[3])  # type: ignore[no-any-return]  # an int

    # -- TDX: the hooks behind the external operations

    def status(self, status: int) -> int:
        """A SEAMCALL's status without its operand."""
        return status & k.TDX_STATUS_MASK

    def sept_error(self, status: int) -> int:
        """0, -EBUSY, or a VM bug and -EIO."""
        if not status:
            return 0
        if self.status(status) == k.TDX_OPERAND_BUSY:
            return -k.EBUSY
        self.port.vm_bug(f"SEAMCALL failed: {status:#x}")
        return -k.EIO

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """tdx_sept_link_private_spt."""
        return self.sept_error(self.port.tdh_mem_sept_add(gfn << 12, level - 1, page))

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """tdx_sept_set_private_spte."""
        port = self.port
        if level != k.PG_LEVEL_4K:
            port.vm_bug("private leaf above 4K")
            return -k.EIO
        port.page_pin(pfn)
        if port.td_state() == k.TD_RUNNABLE:
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
            return -k.EIO
        self.port.premapped(1)
        return 0

    def insist(self, call: Any, *args: int) -> int:
        """A SEAMCALL that needs exclusive access: when busy, keep vCPUs out and try once more."""
        port = self.port
        status: int = call(*args)
        if self.status(status) == k.TDX_OPERAND_BUSY:
            port.wait_for_sept_zap(1)
            port.make_all_cpus_request(k.REQ_OUTSIDE_GUEST)
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
        not_there = k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        if status == not_there and port.td_state() != k.TD_RUNNABLE:
            self.forget_premapped(pfn)
            return 0
        if status or self.track():
            port.vm_bug("private page not blocked")
            return -k.EIO
        if self.insist(port.tdh_mem_page_remove, gpa, level - 1):
            port.vm_bug("private page not removed")
            return -k.EIO
        self.clean(pfn)
        port.page_unpin(pfn)
        return 0

    def forget_premapped(self, pfn: int) -> None:
        """The page was counted, and never added."""
        self.port.premapped(-1)
        self.port.page_unpin(pfn)

    def bug_error(self) -> int:
        """What a VM bug returns."""
        return -k.EIO

    def track(self) -> int:
        """tdx_track."""
        port = self.port
        if port.td_state() != k.TD_RUNNABLE:
            return 0
        status = self.insist(port.tdh_mem_track)
        port.make_all_cpus_request(k.REQ_OUTSIDE_GUEST)
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
            return -k.EIO
        return 0

    def init_mem_region(self, vcpu: int, gpa: int) -> int:
        """tdx_vcpu_init_mem_region of one page."""
        port = self.port
        port.slots_lock()
        if port.td_state() == k.TD_RUNNABLE:
            port.slots_unlock()
            return -k.EINVAL
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
        error = -k.ENOENT
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
        return -k.EBUSY if self.status(status) == k.TDX_OPERAND_BUSY else -k.EIO

    def td_finalize(self) -> int:
        """tdx_td_finalize."""
        self.port.slots_lock()
        error = self.finalize()
        self.port.slots_unlock()
        return error

    def finalize(self) -> int:
        """With slots_lock held, so that no page is being added."""
        port = self.port
        if port.td_state() != k.TD_INIT or not port.hkid_assigned() or port.premapped(0):
            return -k.EINVAL
        error = self.sept_error_quiet(port.tdh_mr_finalize())
        if not error:
            port.set_td_state(k.TD_RUNNABLE)
            port.allow_pre_fault()
        return error


class Upstream619(Upstream):
    """After the post-populate clean-ups: a page is added to the TD when it is mapped."""

    profile = "upstream-6.19"

    def sept_premap(self, gfn: int, pfn: int) -> int:
        """PAGE.ADD at once."""
        if self.port.pre_fault_allowed():
            self.port.vm_bug("prefault before finalize")
            return -k.EIO
        return self.sept_error(self.port.tdh_mem_page_add(gfn << 12, pfn))

    def populate(self, vcpu: int, gpa: int) -> int:
        """Nothing is left to do."""
        return 0


class PostedTypes(Upstream):
    """Root types and filters as the seed has them, and nothing else of it."""

    profile = "as-posted"

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """Bit 0 restricts to valid roots."""
        if not types & (k.DIRECT_ROOTS | k.MIRROR_ROOTS):
            self.port.warn_once("root types without a kind")
            return 0
        if types & k.TYPE_VALIDITY and invalid:
            return 0
        return int(bool(types & (k.MIRROR_ROOTS if mirror else k.DIRECT_ROOTS)))

    @property
    def all_types(self) -> int:
        """KVM_ANY_ROOTS."""
        return k.DIRECT_ROOTS | k.MIRROR_ROOTS

    @property
    def invalid_too(self) -> int:
        """Without the VALID bit validity is ignored."""
        return 0

    @property
    def valid_only(self) -> int:
        """KVM_VALID_ROOTS."""
        return k.TYPE_VALIDITY

    def filter_to_types(self, attr_filter: int) -> int:
        """kvm_process_to_root_types."""
        if not attr_filter:
            self.port.warn_once("no process")
        if not self.mirror:
            return k.DIRECT_ROOTS
        types = 0
        if attr_filter & k.FILTER_PRIVATE:
            types |= k.MIRROR_ROOTS
        if attr_filter & k.FILTER_SHARED:
            types |= k.DIRECT_ROOTS
        return types


class AsPosted(PostedTypes):
    """The seed of May 2024 with the hooks that reflect building and tearing down."""

    def select_root(self, vcpu: int, types: int) -> int:
        """The mirror for exactly MIRROR."""
        if types == k.MIRROR_ROOTS and self.mirror:
            return self.mirror_root_hpa[vcpu]
        return self.root_hpa[vcpu]

    def alloc_roots(self, vcpu: int) -> None:
        """Both roots on every load."""
        if self.mirror:
            self.alloc_root(vcpu, True)
        self.alloc_root(vcpu, False)

    def invalidate_roots(self, types: int) -> None:
        """Whatever was asked for, every valid root."""
        super().invalidate_roots(types | k.DIRECT_ROOTS | k.MIRROR_ROOTS)

    def vm_uninit(self) -> None:
        """Sharing the lock, as the fast zap does."""
        self.invalidate_roots(k.DIRECT_ROOTS | k.MIRROR_ROOTS)
        self.zap_scheduled(shared=True)
        self.port.rcu_barrier()

    def zap_all(self) -> None:
        """Any roots."""
        self.port.write_lock()
        for root in self.each_root(self.all_types):
            self.zap_root(root, False)
        self.port.write_unlock()

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """Any valid roots."""
        due = bool(flush)
        for root in self.each_root(self.all_types | self.valid_only):
            due = self.zap_leafs_root(root, start, end, True, due)
        return int(due)

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """Any roots, whatever was asked for."""
        due = bool(flush)
        for root in self.each_root(self.all_types):
            due = self.zap_leafs_root(root, start, end, bool(may_block), due)
        return int(due)

    def shared_types(self) -> int:
        """Any valid roots."""
        return self.all_types | self.valid_only

    def fault_root(self, fault: Fault) -> int:
        """By is_private, not by address."""
        if self.mirror and fault.private:
            return self.mirror_root_hpa[fault.vcpu]
        return self.root_hpa[fault.vcpu]

    def halves_disagree(self, fault: Fault) -> bool:
        """Nobody looks."""
        return False

    def refuses_level(self, root: ShadowPage, fault: Fault) -> bool:
        """Nobody looks."""
        return False

    def splits_mirror(self) -> bool:
        """After the complaint, on with the split."""
        self.port.vm_bug("huge leaf in a mirror")
        return True

    def set_spte_atomic(self, sp: ShadowPage, index: int, gfn: int, old: int, new: int) -> tuple[int, int]:
        """A present mirror entry is exchanged like any other."""
        if sp.mirror and is_present(old) and is_present(new):
            found: int = self.port.pt_cmpxchg(sp.page, index, old, new)
            return (0, old) if found == old else (-k.EBUSY, found)
        return super().set_spte_atomic(sp, index, gfn, old, new)

    def gives_up(self) -> bool:
        """A refused exchange is repeated for ever."""
        return False

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """Whatever mirror_root_hpa holds is walked."""
        if is_private and self.mirror_root_hpa[vcpu] == INVALID_PAGE:
            self.port.pt_read(INVALID_PAGE, 0)
        return super().tdp_map(vcpu, gpa, pfn, is_private, write, goal_level)

    def can_be_fast(self, gpa: int, error_code: int) -> bool:
        """Private faults as well."""
        return True

    def fast_key(self, gpa: int) -> int:
        """With the alias bit."""
        return gpa >> 12

    def last_spte(self, root: int, gfn: int) -> tuple[int, int, int] | None:
        """A walk that adds the alias bit to what has it, and so starts beyond its end."""
        if self.bits and gfn >= self.bits:
            self.port.warn_once("walk starts beyond the direct bits")
            return None
        return super().last_spte(root, gfn)


CANDIDATES = {"upstream": Upstream, "upstream-6.19": Upstream619, "as-posted": AsPosted}
