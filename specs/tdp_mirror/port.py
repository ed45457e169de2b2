"""The entry points of a candidate, and the environment calls that it may make."""

from __future__ import annotations

from typing import Protocol


class Candidate(Protocol):
    """What the harness calls. gfns are without alias bits unless said otherwise; ranges are [start, end).

    Whoever finds the VM dead may refuse with -EIO, in every entry point that returns an errno and before anything
    else is looked at; `vm_is_dead` stands for vm_dead and KVM_REQ_VM_DEAD alike. Locks that no entry point says are
    held are the candidate's to take. MMIO SPTEs are not made: a shared fault without a slot is RET_PF_EMULATE.
    """

    def vm_init(
        self, mirror: int, direct_bits: int, root_level: int, index_bits: int, max_gfn: int, private: int
    ) -> int:
        """Start the VM's MMU; called once, before anything else.

        `mirror`: whether the VM has mirror roots. `direct_bits`: gfn mask of the shared half, 0 when there is no
        split. `index_bits`: binary logarithm of the entries of a table (9 in real hardware).
        `max_gfn`: the last gfn that a slot may have, in whichever half; it need not be the last that an entry of the
        root covers, and may lie beyond what the root can name. `private`: whether it has private memory. Returns 0.
        """

    def vcpu_create(self, vcpu: int) -> int:
        """0, or -ENOMEM, or -EIO when the VM is dead; a vCPU that is refused is none."""

    def vcpu_destroy(self, vcpu: int) -> None:
        """Drop both roots and the caches of the vCPU."""

    def mmu_reload(self, vcpu: int) -> int:
        """Free obsolete roots if that is requested, then load roots if there is none.

        0, or -ENOMEM, or -EIO when the VM is dead.
        """

    def mmu_unload(self, vcpu: int) -> None:
        """Drop the direct root."""

    def free_obsolete_roots(self, vcpu: int) -> None:
        """Drop the direct root if it is invalid."""

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """Whether a root of this kind and validity belongs to `types`. 0 or 1."""

    def filter_to_types(self, attr_filter: int) -> int:
        """Root types that an attribute filter stands for."""

    def addr_is_direct(self, gpa: int) -> int:
        """Whether `gpa` lies in the shared half, or there is no split. 0 or 1."""

    def gfn_is_alias(self, gfn: int) -> int:
        """Whether `gfn` has an alias bit set. 0 or 1."""

    def select_root(self, vcpu: int, types: int) -> int:
        """Address of the vCPU's mirror root for types with MIRROR and without DIRECT, of its direct root otherwise.

        INVALID_PAGE where there is no such root.
        """

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """Resolve a fault. RET_PF or a negative errno; takes its own locks."""

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """Install `pfn` at `goal_level`; the caller has filled the caches, and holds mmu_lock for read.

        RET_PF or a negative errno.

        Refused, by RETRY or an error, on a vCPU that has no root for this half, or an invalid one.
        """

    def faultin_pfn(self, vcpu: int, gfn: int, is_private: int) -> int:
        """Resolve the page behind a raw gfn as a fault would, without mapping it.

        0 (RET_PF_CONTINUE), RET_PF, or a negative errno; -EFAULT and a VM bug when `gfn` has an alias bit.
        """

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        """KVM_PRE_FAULT_MEMORY for the first page of the range: bytes advanced, or a negative errno.

        It loads roots itself, and enters SRCU itself; faults come with SRCU held.
        """

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """A private EPT violation: a write, retried until it is not RETRY. RET_PF or a negative errno."""

    def fast_pf(self, vcpu: int, gpa: int, error_code: int) -> int:
        """The lockless path: INVALID (go the slow way), FIXED or SPURIOUS. It has nothing to warn of."""

    def get_walk(self, vcpu: int, gpa: int) -> tuple[int, ...]:
        """Entries on the walk to `gpa` in its own half, from the root down to the last level reached."""

    def gpa_is_mapped(self, vcpu: int, gpa: int) -> int:
        """Whether a present leaf maps `gpa`; the caller holds mmu_lock for read. 0 or 1."""

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """Zap leaves of valid roots, for an event of the host. mmu_lock held for write. Whether to flush."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """Zap the leaves of the filtered halves. mmu_lock held for write. Whether to flush."""

    def age_gfn_range(self, start: int, end: int) -> int:
        """Clear the accessed bits of the shared half. Whether one was set."""

    def test_age_gfn(self, start: int, end: int) -> int:
        """Whether an accessed bit of the shared half is set."""

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """Write-protect the leaves of a slot from `min_level` on. mmu_lock held for read. Whether anything changed."""

    def clear_dirty_slot(self, slot: int) -> None:
        """Clear the dirty bits of a slot. mmu_lock held for read."""

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """Clear the dirty (or writable) bits of gfn + each bit of `mask`. mmu_lock held for write."""

    def write_protect_gfn(self, slot: int, gfn: int, min_level: int) -> int:
        """Write-protect one page and take away MMU-writable. mmu_lock held for write. Whether it was writable.

        A leaf that maps it below `min_level` stays as it is.
        """

    def split_huge(self, slot: int, start: int, end: int, target_level: int) -> None:
        """Split huge leaves above the level. mmu_lock held for read."""

    def recover_huge(self, slot: int) -> int:
        """Zap leaves that could be huge. mmu_lock held for write. Whether to flush."""

    def zap_sp(self, page: int) -> int:
        """NX recovery: zap the table at `page` if it is linked. mmu_lock held for write. 0 or 1."""

    def invalidate_roots(self, types: int) -> None:
        """Mark valid roots of `types` invalid, scheduled to be zapped. mmu_lock held for write."""

    def zap_invalidated_roots(self) -> None:
        """Zap scheduled roots and put the MMU's reference to each. Takes mmu_lock itself."""

    def zap_all_fast(self) -> None:
        """Invalidate and replace all direct roots. slots_lock held."""

    def zap_all(self) -> None:
        """mmu_notifier release: zap every direct root. Takes mmu_lock itself."""

    def vm_uninit(self) -> None:
        """Free everything. No vCPU is left, the HKID is released."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """KVM_SET_MEMORY_ATTRIBUTES. 0 or a negative errno; takes slots_lock and mmu_lock itself."""

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """The host takes back the pages behind the shared half. Takes mmu_lock itself."""

    def gmem_invalidate(self, start: int, end: int) -> None:
        """A hole is punched in guest memory, or the file closed. The file's lock is held; takes mmu_lock itself."""

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """0 or a negative errno; takes slots_lock itself. An existing slot is modified, one of 0 pages deleted.

        A change of LOG_DIRTY, made of those alone that declare `log-dirty`, asks for no work: splitting, protection
        and recovery are entry points of their own.
        """

    def slot_delete(self, slot: int) -> int:
        """0 or -EINVAL; takes slots_lock itself, and flags the slot INVALID until nobody uses it any more."""

    def slot_move(self, slot: int, base: int) -> int:
        """0 or a negative errno; takes slots_lock itself."""

    def rcu_callback(self, page: int) -> None:
        """The grace period asked for by call_rcu(page) is over: free the table, its header, its external page.

        Which those are, the candidate has to remember.
        """

    def sept_link(self, gfn: int, level: int, page: int) -> int:
        """The external operation behind ext_link. 0, -EBUSY or -EIO."""

    def sept_set(self, gfn: int, level: int, pfn: int) -> int:
        """The external operation behind ext_set. 0, -EBUSY or -EIO."""

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """The external operation behind ext_remove. 0 or -EIO."""

    def sept_free(self, gfn: int, level: int, page: int) -> int:
        """The external operation behind ext_free. 0 or -EIO."""

    def init_mem_region(self, vcpu: int, gpa: int) -> int:
        """KVM_TDX_INIT_MEM_REGION of one page: map it and add it to the TD, before finalize. 0 or a negative errno."""

    def td_finalize(self) -> int:
        """KVM_TDX_FINALIZE_VM. 0 or a negative errno."""


OPTIONAL = {
    "sept_link": "seamcalls",
    "sept_set": "seamcalls",
    "sept_remove": "seamcalls",
    "sept_free": "seamcalls",
    "init_mem_region": "seamcalls",
    "td_finalize": "seamcalls",
}


class Port(Protocol):
    """What a candidate may call. Tables are named by their physical address; handles are ints, NULL is 0."""

    # -- memory

    def cache_topup(self, vcpu: int, kind: int, count: int, init: int) -> int:
        """Fill a vCPU's cache of HEADER, TABLE or EXTERNAL objects up to `count`; entries of tables start as `init`.

        0, or -ENOMEM. May sleep: not under mmu_lock.
        """

    def cache_alloc(self, vcpu: int, kind: int) -> int:
        """Take an object from the cache; never fails if it was topped up."""

    def cache_free(self, vcpu: int) -> None:
        """Give back all that the vCPU's caches hold."""

    def page_alloc(self, kind: int, init: int) -> int:
        """Allocate one object outside any cache. Its address, or 0. May sleep."""

    def page_free(self, page: int) -> None:
        """Give an object back to the allocator."""

    def page_leak(self, page: int) -> None:
        """Drop a page on purpose because its owner is not known any more; it is never given out again.

        For the external page of a table that `ext_free` did not give back; the rest of the table is freed. Whoever just
        forgets the page does as well.
        """

    def sp_init(self, page: int, header: int, role: int, gfn: int, external: int) -> None:
        """Fill in the header of a table before it is linked: role word, base gfn, external page or 0."""

    def account_pgtable(self, change: int) -> None:
        """One page table more or less, roots not counted."""

    def update_page_stats(self, level: int, change: int) -> None:
        """So many leaves more or less at this level."""

    # -- page-table entries

    def pt_read(self, page: int, index: int) -> int:
        """Read an entry (READ_ONCE)."""

    def pt_store(self, page: int, index: int, value: int) -> None:
        """Plain store (WRITE_ONCE)."""

    def pt_cmpxchg(self, page: int, index: int, old: int, new: int) -> int:
        """Compare and exchange; returns the value found, which is `old` on success."""

    def pt_xchg(self, page: int, index: int, new: int) -> int:
        """Exchange; returns the old value."""

    def pt_and(self, page: int, index: int, mask: int) -> int:
        """Atomic fetch-and; returns the old value."""

    # -- roots

    def refcount_set(self, page: int, count: int) -> None:
        """Initialise a root's reference count."""

    def refcount_inc_not_zero(self, page: int) -> int:
        """Take a reference unless there is none left. 0 or 1."""

    def refcount_dec_and_test(self, page: int) -> int:
        """Put a reference; 1 if it was the last."""

    def roots_add(self, page: int) -> None:
        """Insert a root in the list; pages_lock held."""

    def roots_del(self, page: int) -> None:
        """Remove a root from the list; pages_lock held."""

    def role_invalidate(self, page: int) -> None:
        """Set role.invalid of a root."""

    def vcpu_root(self, vcpu: int, mirror: int, page: int) -> None:
        """Store root_hpa, or mirror_root_hpa, of a vCPU: an address or INVALID_PAGE."""

    def load_pgd(self, vcpu: int, page: int, level: int) -> None:
        """Give the direct root to hardware; flushes the vCPU's TLB."""

    # -- locks and RCU

    def read_lock(self) -> None:
        """mmu_lock for read."""

    def read_unlock(self) -> None:
        """Release mmu_lock taken for read."""

    def write_lock(self) -> None:
        """mmu_lock for write."""

    def write_unlock(self) -> None:
        """Release mmu_lock taken for write."""

    def lock_yield(self) -> None:
        """Drop mmu_lock, let others run, and take it again in the same mode."""

    def pages_lock(self) -> None:
        """tdp_mmu_pages_lock: the list of roots and of tables."""

    def pages_unlock(self) -> None:
        """Release the pages lock."""

    def slots_lock(self) -> None:
        """A mutex: slots and attributes change under it. Not under mmu_lock."""

    def slots_unlock(self) -> None:
        """Release the slots mutex."""

    def srcu_read_lock(self) -> None:
        """Slots read under it stay."""

    def srcu_read_unlock(self) -> None:
        """Leave the section."""

    def synchronize_srcu(self) -> None:
        """Wait until every reader that holds an old slot is gone."""

    def rcu_read_lock(self) -> None:
        """Enter an RCU read section; they nest."""

    def rcu_read_unlock(self) -> None:
        """Leave an RCU read section."""

    def call_rcu(self, page: int) -> None:
        """After a grace period call `rcu_callback(page)`."""

    def rcu_barrier(self) -> None:
        """Wait until all callbacks have run."""

    def resched(self) -> int:
        """Whether mmu_lock should be dropped for others. 0 or 1."""

    def cond_resched(self) -> None:
        """Let others run; called in loops that wait for them."""

    # -- the external tree

    def ext_link(self, gfn: int, level: int, page: int) -> int:
        """Link `page` under the external entry (gfn, level). 0, -EBUSY or -EIO."""

    def ext_set(self, gfn: int, level: int, pfn: int) -> int:
        """Map `pfn` at gfn. 0, -EBUSY or -EIO."""

    def ext_remove(self, gfn: int, level: int, pfn: int) -> int:
        """Unmap the leaf. 0 or -EIO."""

    def ext_free(self, gfn: int, level: int, page: int) -> int:
        """Give back the external page of the table of this level at this base gfn. 0 or -EIO."""

    # -- TLBs and requests

    def flush_remote_tlbs(self) -> None:
        """Flush every vCPU's TLB."""

    def flush_range(self, gfn: int, count: int) -> int:
        """Flush gfns and their aliases. 0, or -EOPNOTSUPP: flush everything instead."""

    def make_all_cpus_request(self, request: int) -> None:
        """Raise a request on every vCPU."""

    def check_request(self, vcpu: int, request: int) -> int:
        """Test and clear a request. 0 or 1."""

    def vcpu_has_events(self, vcpu: int) -> int:
        """Whether a request waits for the vCPU, so that it should go back to its run loop. 0 or 1."""

    # -- slots, attributes, invalidation, pages

    def memslot(self, gfn: int) -> tuple[int, ...]:
        """(slot, base, npages, flags) of the slot that holds `gfn`, or ()."""

    def memslots(self, start: int, end: int) -> tuple[tuple[int, ...], ...]:
        """The slots that overlap [start, end), by base gfn."""

    def memslot_by_id(self, slot: int) -> tuple[int, ...]:
        """(slot, base, npages, flags), or ()."""

    def memslot_install(self, slot: int, base: int, npages: int, flags: int) -> int:
        """Add or replace a slot; slots_lock held. 0, or -EEXIST when it overlaps another."""

    def memslot_remove(self, slot: int) -> None:
        """Remove a slot; slots_lock held."""

    def attributes(self, gfn: int) -> int:
        """0 or ATTRIBUTE_PRIVATE."""

    def range_has_attributes(self, start: int, end: int, value: int) -> int:
        """Whether all gfns of [start, end) have exactly these attributes. 0 or 1.

        Under mmu_lock too: there is no lpage_info that says where huge pages are mixed.
        """

    def reserve_attributes(self, start: int, end: int) -> int:
        """Reserve memory so that storing cannot fail. 0 or -ENOMEM."""

    def store_attributes(self, start: int, end: int, value: int) -> None:
        """Set the attributes of a range; slots_lock held."""

    def mmu_invalidate_begin(self, start: int, end: int) -> None:
        """An invalidation of [start, end) begins; mmu_lock held for write. The range is known by then."""

    def mmu_invalidate_end(self) -> None:
        """It ends, and the sequence number grows; mmu_lock held for write."""

    def mmu_invalidate_seq(self) -> int:
        """The sequence number, of 64 bits; read with a barrier after it."""

    def mmu_invalidate_retry(self, seq: int, gfn: int) -> int:
        """Whether an invalidation covers `gfn` or has happened since `seq`. 0 or 1.

        `seq` is what `mmu_invalidate_seq` told this operation before it resolved the page.
        """

    def filemap_invalidate_lock(self) -> None:
        """The lock of the file of guest memory: while it is held none of its pages goes.

        Taken after slots_lock and before mmu_lock; `gmem_invalidate` is called with it held.
        """

    def filemap_invalidate_unlock(self) -> None:
        """Release it."""

    def gmem_get_pfn(self, slot: int, gfn: int) -> int:
        """Page of guest memory, with a reference; or a negative errno. May sleep."""

    def hva_get_pfn(self, slot: int, gfn: int, write: int) -> tuple[int, int, int]:
        """(pfn, writable, largest level) behind the shared half, with a reference. May sleep.

        `writable`: whether the leaf is to be writable, even for a read. Slots that may only be read do not occur.
        """

    def max_mapping_level(self, slot: int, gfn: int) -> int:
        """Largest level at which the host maps the page behind a shared gfn now."""

    def pfn_release(self, pfn: int) -> None:
        """Put the reference taken by gmem_get_pfn or hva_get_pfn."""

    def memory_fault_exit(self, gpa: int, size: int, flags: int) -> None:
        """Fill in KVM_EXIT_MEMORY_FAULT."""

    def pre_fault_allowed(self) -> int:
        """Whether pages may be prefaulted. 0 or 1."""

    def signal_pending(self) -> int:
        """Whether the thread should go back to userspace. 0 or 1."""

    def vm_is_dead(self) -> int:
        """Whether a VM bug, or its end, has marked the VM dead. 0 or 1."""

    # -- complaints

    def vm_bug(self, what: str) -> None:
        """KVM_BUG_ON: warns and marks the VM dead, and comes back."""

    def warn_once(self, what: str) -> None:
        """WARN_ON_ONCE: noted, and comes back."""

    # -- SEAMCALLs and what belongs to them (capability seamcalls); 64-bit status unless said otherwise

    def tdh_mem_sept_add(self, gpa: int, level: int, page: int) -> int:
        """TDH.MEM.SEPT.ADD: link `page` under the entry of this TDX level."""

    def tdh_mem_page_add(self, gpa: int, pfn: int) -> int:
        """TDH.MEM.PAGE.ADD, before finalize."""

    def tdh_mem_page_aug(self, gpa: int, level: int, pfn: int) -> int:
        """TDH.MEM.PAGE.AUG: add a pending page to a runnable TD."""

    def tdh_mem_range_block(self, gpa: int, level: int) -> int:
        """TDH.MEM.RANGE.BLOCK. What the entry was is not told; a page not added yet shows in the status."""

    def tdh_mem_range_unblock(self, gpa: int, level: int) -> int:
        """TDH.MEM.RANGE.UNBLOCK of what is blocked and tracked."""

    def tdh_mem_track(self) -> int:
        """TDH.MEM.TRACK: a new TLB epoch."""

    def tdh_mem_page_remove(self, gpa: int, level: int) -> int:
        """TDH.MEM.PAGE.REMOVE."""

    def tdh_mem_sept_remove(self, gpa: int, level: int) -> int:
        """TDH.MEM.SEPT.REMOVE of the empty table under the entry of this TDX level."""

    def tdh_mem_page_demote(self, gpa: int, level: int, page: int) -> int:
        """TDH.MEM.PAGE.DEMOTE: split a huge leaf, with `page` as the table."""

    def tdh_mem_page_promote(self, gpa: int, level: int) -> int:
        """TDH.MEM.PAGE.PROMOTE: merge the table under the entry of this TDX level into a huge leaf."""

    def tdh_phymem_page_wbinvd(self, pfn: int) -> int:
        """TDH.PHYMEM.PAGE.WBINVD: write back the cache lines of a page."""

    def tdh_phymem_page_reclaim(self, page: int) -> int:
        """TDH.PHYMEM.PAGE.RECLAIM: take back a page of a TD that is torn down."""

    def tdh_mr_finalize(self) -> int:
        """TDH.MR.FINALIZE: the TD becomes runnable."""

    def clear_page(self, pfn: int) -> None:
        """Overwrite a page that the TD no longer owns (MOVDIR64B). `pfn`: also of an external page, a frame number."""

    def page_pin(self, pfn: int) -> None:
        """Take a reference on a page that the TD will own."""

    def page_unpin(self, pfn: int) -> None:
        """Put that reference."""

    def wait_for_sept_zap(self, value: int) -> None:
        """Whether vCPUs must stay out of the guest; mmu_lock held for write."""

    def hkid_assigned(self) -> int:
        """Whether the TD still has its key. 0 or 1."""

    def td_state(self) -> int:
        """TD_INIT, TD_RUNNABLE or TD_TEARDOWN, as last set."""

    def set_td_state(self, state: int) -> None:
        """Store the state of the TD."""

    def allow_pre_fault(self) -> None:
        """pre_fault_allowed = true."""

    def premapped(self, change: int) -> int:
        """Add to nr_premapped and return it."""
