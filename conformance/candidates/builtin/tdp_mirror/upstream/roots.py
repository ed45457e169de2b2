"""Root types, and roots that are found, made, put and iterated over: tdp_mmu.h and tdp_mmu.c."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.tables import Tables
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    FILTER_PRIVATE,
    FILTER_SHARED,
    MIRROR_ROOTS,
    TYPE_VALIDITY,
)


class Roots(Tables):
    """The list of roots."""

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """tdp_mmu_root_match."""
        if not types & (DIRECT_ROOTS | MIRROR_ROOTS):
            self.port.warn_once("root types without a kind")
            return 0
        if invalid and not types & TYPE_VALIDITY:
            return 0
        return int(bool(types & (MIRROR_ROOTS if mirror else DIRECT_ROOTS)))

    def filter_to_types(self, attr_filter: int) -> int:
        """kvm_gfn_range_filter_to_root_types."""
        if not self.mirror:
            return DIRECT_ROOTS
        types = 0
        if not attr_filter:
            self.port.warn_once("empty filter")
        if attr_filter & FILTER_PRIVATE:
            types |= MIRROR_ROOTS
        if attr_filter & FILTER_SHARED:
            types |= DIRECT_ROOTS
        return types

    def select_root(self, vcpu: int, types: int) -> int:
        """tdp_mmu_get_root."""
        if types & MIRROR_ROOTS and not types & DIRECT_ROOTS and self.mirror:
            return self.mirror_root_hpa[vcpu]
        return self.root_hpa[vcpu]

    @property
    def all_types(self) -> int:
        """Every root, valid or not."""
        return TYPE_VALIDITY | DIRECT_ROOTS | MIRROR_ROOTS

    @property
    def invalid_too(self) -> int:
        """What to add to types to include invalid roots."""
        return TYPE_VALIDITY

    @property
    def valid_only(self) -> int:
        """What to add to types to leave out invalid roots."""
        return 0

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
        if types & TYPE_VALIDITY:
            self.port.warn_once("invalid roots cannot be invalidated")
            types &= ~TYPE_VALIDITY
        for root in self.roots:
            if not root.invalid and self.root_match(int(root.mirror), 0, types):
                root.invalid = root.scheduled = True
                self.port.role_invalidate(root.page)
