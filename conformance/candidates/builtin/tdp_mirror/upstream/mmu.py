"""vCPUs and their roots, and the ends of a VM: mmu.c."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream.zapping import Zapping
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    EXTERNAL,
    HEADER,
    INVALID_PAGE,
    MIRROR_ROOTS,
    REQ_FREE_OBSOLETE_ROOTS,
    TABLE,
)

KINDS = (HEADER, TABLE, EXTERNAL)
MAX_CACHE = 5


class Mmu(Zapping):
    """What a vCPU loads and drops."""

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
        if self.port.check_request(vcpu, REQ_FREE_OBSOLETE_ROOTS):
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

    def zap_all_fast(self) -> None:
        """kvm_mmu_zap_all_fast."""
        port = self.port
        port.write_lock()
        self.invalidate_roots(DIRECT_ROOTS)
        port.make_all_cpus_request(REQ_FREE_OBSOLETE_ROOTS)
        port.write_unlock()
        self.zap_invalidated_roots()

    def zap_all(self) -> None:
        """kvm_mmu_zap_all: the VM is going away."""
        self.port.write_lock()
        for root in self.each_root(DIRECT_ROOTS | self.invalid_too):
            self.zap_root(root, False)
        self.port.write_unlock()

    def vm_uninit(self) -> None:
        """kvm_mmu_uninit_tdp_mmu."""
        self.invalidate_roots(DIRECT_ROOTS | MIRROR_ROOTS)
        self.zap_scheduled(shared=False)
        self.port.rcu_barrier()
