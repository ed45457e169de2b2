"""The seed series of May 2024, defects and all, and its root types alone."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault, ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import is_present
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    EBUSY,
    FILTER_PRIVATE,
    FILTER_SHARED,
    INVALID_PAGE,
    MIRROR_ROOTS,
    TYPE_VALIDITY,
)


class PostedTypes(Upstream):
    """Root types and filters as the seed has them, and nothing else of it."""

    profile = "as-posted"

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """Bit 0 restricts to valid roots."""
        if not types & (DIRECT_ROOTS | MIRROR_ROOTS):
            self.port.warn_once("root types without a kind")
            return 0
        if types & TYPE_VALIDITY and invalid:
            return 0
        return int(bool(types & (MIRROR_ROOTS if mirror else DIRECT_ROOTS)))

    @property
    def all_types(self) -> int:
        """KVM_ANY_ROOTS."""
        return DIRECT_ROOTS | MIRROR_ROOTS

    @property
    def invalid_too(self) -> int:
        """Without the VALID bit validity is ignored."""
        return 0

    @property
    def valid_only(self) -> int:
        """KVM_VALID_ROOTS."""
        return TYPE_VALIDITY

    def filter_to_types(self, attr_filter: int) -> int:
        """kvm_process_to_root_types."""
        if not attr_filter:
            self.port.warn_once("no process")
        if not self.mirror:
            return DIRECT_ROOTS
        types = 0
        if attr_filter & FILTER_PRIVATE:
            types |= MIRROR_ROOTS
        if attr_filter & FILTER_SHARED:
            types |= DIRECT_ROOTS
        return types


class AsPosted(PostedTypes):
    """The seed of May 2024 with the hooks that reflect building and tearing down."""

    def select_root(self, vcpu: int, types: int) -> int:
        """The mirror for exactly MIRROR."""
        if types == MIRROR_ROOTS and self.mirror:
            return self.mirror_root_hpa[vcpu]
        return self.root_hpa[vcpu]

    def alloc_roots(self, vcpu: int) -> None:
        """Both roots on every load."""
        if self.mirror:
            self.alloc_root(vcpu, True)
        self.alloc_root(vcpu, False)

    def invalidate_roots(self, types: int) -> None:
        """Whatever was asked for, every valid root."""
        super().invalidate_roots(types | DIRECT_ROOTS | MIRROR_ROOTS)

    def vm_uninit(self) -> None:
        """Sharing the lock, as the fast zap does."""
        self.invalidate_roots(DIRECT_ROOTS | MIRROR_ROOTS)
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
            return (0, old) if found == old else (-EBUSY, found)
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
