/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI of tdp_mirror: what a library exports, and what it may call.
 *
 * A library that defines
 *
 *	const struct tdp_mirror_driver tdp_mirror_driver = { .abi_version = TDP_MIRROR_ABI, ... };
 *
 * is tested by --candidate lib:PATH.so. docs/c.md says how one is written; types.h what holds for
 * all five subsystems: ownership, lengths, errors, threads.
 *
 * Capabilities, each with the entry points that it needs:
 *   small-tables: page tables of fewer than 512 entries and fewer than four levels, as bounded
 *       runs use.
 *   seamcalls: the external operations themselves, down to the firmware's SEAMCALLs. Needs
 *       sept_link, sept_set, sept_remove, sept_free, init_mem_region, td_finalize.
 *   tables-of-512: page tables of 512 entries and four or five levels.
 */
#ifndef CONFORMANCE_TDP_MIRROR_H
#define CONFORMANCE_TDP_MIRROR_H

#include "types.h"

/* Counted up when an entry point or an environment call is added, goes or changes. */
#define TDP_MIRROR_ABI 1

/* A memory slot: gfns [base, base + npages). */
struct tdp_mirror_memslot {
	int slot;	/* number of the slot */
	u64 base;	/* first gfn */
	u64 npages;
	u32 flags;	/* MEM_LOG_DIRTY_PAGES and so on, and SLOT_INVALID */
};

/*
 * What a candidate may call. Tables are named by their physical address; handles are ints, NULL is
 * 0.
 *
 * The table is valid as long as the library is loaded; world is what create was given.
 */
struct tdp_mirror_env {
	/* -- memory -- */

	/*
	 * Fill a vCPU's cache of HEADER, TABLE or EXTERNAL objects up to count; entries of tables
	 * start as init.
	 *
	 * 0, or -ENOMEM. May sleep: not under mmu_lock.
	 */
	int (*cache_topup)(void *world, int vcpu, int kind, int count, u64 init);

	/* Take an object from the cache; never fails if it was topped up. */
	u64 (*cache_alloc)(void *world, int vcpu, int kind);

	/* Give back all that the vCPU's caches hold. */
	void (*cache_free)(void *world, int vcpu);

	/* Allocate one object outside any cache. Its address, or 0. May sleep. */
	u64 (*page_alloc)(void *world, int kind, u64 init);

	/* Give an object back to the allocator. */
	void (*page_free)(void *world, u64 page);

	/*
	 * Drop a page on purpose because its owner is not known any more; it is never given out
	 * again.
	 *
	 * For the external page of a table that ext_free did not give back; the rest of the table
	 * is freed. Whoever just forgets the page does as well.
	 */
	void (*page_leak)(void *world, u64 page);

	/*
	 * Fill in the header of a table before it is linked: role word, base gfn, external page or
	 * 0.
	 */
	void (*sp_init)(void *world, u64 page, u64 header, u32 role, u64 gfn, u64 external);

	/* One page table more or less, roots not counted. */
	void (*account_pgtable)(void *world, s64 change);

	/* So many leaves more or less at this level. */
	void (*update_page_stats)(void *world, int level, s64 change);

	/* -- page-table entries -- */

	/* Read an entry (READ_ONCE). */
	u64 (*pt_read)(void *world, u64 page, u32 index);

	/* Plain store (WRITE_ONCE). */
	void (*pt_store)(void *world, u64 page, u32 index, u64 value);

	/* Compare and exchange; returns the value found, which is old on success. */
	u64 (*pt_cmpxchg)(void *world, u64 page, u32 index, u64 old, u64 new);

	/* Exchange; returns the old value. */
	u64 (*pt_xchg)(void *world, u64 page, u32 index, u64 new);

	/* Atomic fetch-and; returns the old value. */
	u64 (*pt_and)(void *world, u64 page, u32 index, u64 mask);

	/* -- roots -- */

	/* Initialise a root's reference count. */
	void (*refcount_set)(void *world, u64 page, u64 count);

	/* Take a reference unless there is none left. 0 or 1. */
	int (*refcount_inc_not_zero)(void *world, u64 page);

	/* Put a reference; 1 if it was the last. */
	int (*refcount_dec_and_test)(void *world, u64 page);

	/* Insert a root in the list; pages_lock held. */
	void (*roots_add)(void *world, u64 page);

	/* Remove a root from the list; pages_lock held. */
	void (*roots_del)(void *world, u64 page);

	/* Set role.invalid of a root. */
	void (*role_invalidate)(void *world, u64 page);

	/* Store root_hpa, or mirror_root_hpa, of a vCPU: an address or INVALID_PAGE. */
	void (*vcpu_root)(void *world, int vcpu, int mirror, u64 page);

	/* Give the direct root to hardware; flushes the vCPU's TLB. */
	void (*load_pgd)(void *world, int vcpu, u64 page, int level);

	/* -- locks and RCU -- */

	/* mmu_lock for read. */
	void (*read_lock)(void *world);

	/* Release mmu_lock taken for read. */
	void (*read_unlock)(void *world);

	/* mmu_lock for write. */
	void (*write_lock)(void *world);

	/* Release mmu_lock taken for write. */
	void (*write_unlock)(void *world);

	/* Drop mmu_lock, let others run, and take it again in the same mode. */
	void (*lock_yield)(void *world);

	/* tdp_mmu_pages_lock: the list of roots and of tables. */
	void (*pages_lock)(void *world);

	/* Release the pages lock. */
	void (*pages_unlock)(void *world);

	/* A mutex: slots and attributes change under it. Not under mmu_lock. */
	void (*slots_lock)(void *world);

	/* Release the slots mutex. */
	void (*slots_unlock)(void *world);

	/* Slots read under it stay. */
	void (*srcu_read_lock)(void *world);

	/* Leave the section. */
	void (*srcu_read_unlock)(void *world);

	/* Wait until every reader that holds an old slot is gone. */
	void (*synchronize_srcu)(void *world);

	/* Enter an RCU read section; they nest. */
	void (*rcu_read_lock)(void *world);

	/* Leave an RCU read section. */
	void (*rcu_read_unlock)(void *world);

	/* After a grace period call rcu_callback(page). */
	void (*call_rcu)(void *world, u64 page);

	/* Wait until all callbacks have run. */
	void (*rcu_barrier)(void *world);

	/* Whether mmu_lock should be dropped for others. 0 or 1. */
	int (*resched)(void *world);

	/* Let others run; called in loops that wait for them. */
	void (*cond_resched)(void *world);

	/* -- the external tree -- */

	/* Link page under the external entry (gfn, level). 0, -EBUSY or -EIO. */
	int (*ext_link)(void *world, u64 gfn, int level, u64 page);

	/* Map pfn at gfn. 0, -EBUSY or -EIO. */
	int (*ext_set)(void *world, u64 gfn, int level, u64 pfn);

	/* Unmap the leaf. 0 or -EIO. */
	int (*ext_remove)(void *world, u64 gfn, int level, u64 pfn);

	/* Give back the external page of the table of this level at this base gfn. 0 or -EIO. */
	int (*ext_free)(void *world, u64 gfn, int level, u64 page);

	/* -- TLBs and requests -- */

	/* Flush every vCPU's TLB. */
	void (*flush_remote_tlbs)(void *world);

	/* Flush gfns and their aliases. 0, or -EOPNOTSUPP: flush everything instead. */
	int (*flush_range)(void *world, u64 gfn, u64 count);

	/* Raise a request on every vCPU. */
	void (*make_all_cpus_request)(void *world, int request);

	/* Test and clear a request. 0 or 1. */
	int (*check_request)(void *world, int vcpu, int request);

	/*
	 * Whether a request waits for the vCPU, so that it should go back to its run loop. 0 or 1.
	 */
	int (*vcpu_has_events)(void *world, int vcpu);

	/* -- slots, attributes, invalidation, pages -- */

	/* (slot, base, npages, flags) of the slot that holds gfn, or (). */
	bool (*memslot)(void *world, u64 gfn, struct tdp_mirror_memslot *memslot);

	/* The slots that overlap [start, end), by base gfn. */
	void (*memslots)(void *world, u64 start, u64 end, struct tdp_mirror_memslot *memslots,
		      size_t *memslots_len);

	/* (slot, base, npages, flags), or (). */
	bool (*memslot_by_id)(void *world, int slot, struct tdp_mirror_memslot *memslot);

	/* Add or replace a slot; slots_lock held. 0, or -EEXIST when it overlaps another. */
	int (*memslot_install)(void *world, int slot, u64 base, u64 npages, u32 flags);

	/* Remove a slot; slots_lock held. */
	void (*memslot_remove)(void *world, int slot);

	/* 0 or ATTRIBUTE_PRIVATE. */
	u64 (*attributes)(void *world, u64 gfn);

	/*
	 * Whether all gfns of [start, end) have exactly these attributes. 0 or 1.
	 *
	 * Under mmu_lock too: there is no lpage_info that says where huge pages are mixed.
	 */
	int (*range_has_attributes)(void *world, u64 start, u64 end, u64 value);

	/* Reserve memory so that storing cannot fail. 0 or -ENOMEM. */
	int (*reserve_attributes)(void *world, u64 start, u64 end);

	/* Set the attributes of a range; slots_lock held. */
	void (*store_attributes)(void *world, u64 start, u64 end, u64 value);

	/*
	 * An invalidation of [start, end) begins; mmu_lock held for write. The range is known by
	 * then.
	 */
	void (*mmu_invalidate_begin)(void *world, u64 start, u64 end);

	/* It ends, and the sequence number grows; mmu_lock held for write. */
	void (*mmu_invalidate_end)(void *world);

	/* The sequence number, of 64 bits; read with a barrier after it. */
	u64 (*mmu_invalidate_seq)(void *world);

	/*
	 * Whether an invalidation covers gfn or has happened since seq. 0 or 1.
	 *
	 * seq is what mmu_invalidate_seq told this operation before it resolved the page.
	 */
	int (*mmu_invalidate_retry)(void *world, u64 seq, u64 gfn);

	/*
	 * The lock of the file of guest memory: while it is held none of its pages goes.
	 *
	 * Taken after slots_lock and before mmu_lock; gmem_invalidate is called with it held.
	 */
	void (*filemap_invalidate_lock)(void *world);

	/* Release it. */
	void (*filemap_invalidate_unlock)(void *world);

	/* Page of guest memory, with a reference; or a negative errno. May sleep. */
	s64 (*gmem_get_pfn)(void *world, int slot, u64 gfn);

	/*
	 * (pfn, writable, largest level) behind the shared half, with a reference. May sleep.
	 *
	 * writable: whether the leaf is to be writable, even for a read. Slots that may only be
	 * read do not occur.
	 */
	void (*hva_get_pfn)(void *world, int slot, u64 gfn, int write, s64 *pfn, int *writable,
		      int *level);

	/* Largest level at which the host maps the page behind a shared gfn now. */
	int (*max_mapping_level)(void *world, int slot, u64 gfn);

	/* Put the reference taken by gmem_get_pfn or hva_get_pfn. */
	void (*pfn_release)(void *world, u64 pfn);

	/* Fill in KVM_EXIT_MEMORY_FAULT. */
	void (*memory_fault_exit)(void *world, u64 gpa, u64 size, u32 flags);

	/* Whether pages may be prefaulted. 0 or 1. */
	int (*pre_fault_allowed)(void *world);

	/* Whether the thread should go back to userspace. 0 or 1. */
	int (*signal_pending)(void *world);

	/* Whether a VM bug, or its end, has marked the VM dead. 0 or 1. */
	int (*vm_is_dead)(void *world);

	/* -- complaints -- */

	/* KVM_BUG_ON: warns and marks the VM dead, and comes back. */
	void (*vm_bug)(void *world, const char *what);

	/* WARN_ON_ONCE: noted, and comes back. */
	void (*warn_once)(void *world, const char *what);

	/* -- SEAMCALLs and what belongs to them (capability seamcalls); 64-bit status unless said otherwise -- */

	/* TDH.MEM.SEPT.ADD: link page under the entry of this TDX level. */
	u64 (*tdh_mem_sept_add)(void *world, u64 gpa, int level, u64 page);

	/* TDH.MEM.PAGE.ADD, before finalize. */
	u64 (*tdh_mem_page_add)(void *world, u64 gpa, u64 pfn);

	/* TDH.MEM.PAGE.AUG: add a pending page to a runnable TD. */
	u64 (*tdh_mem_page_aug)(void *world, u64 gpa, int level, u64 pfn);

	/*
	 * TDH.MEM.RANGE.BLOCK. What the entry was is not told; a page not added yet shows in the
	 * status.
	 */
	u64 (*tdh_mem_range_block)(void *world, u64 gpa, int level);

	/* TDH.MEM.RANGE.UNBLOCK of what is blocked and tracked. */
	u64 (*tdh_mem_range_unblock)(void *world, u64 gpa, int level);

	/* TDH.MEM.TRACK: a new TLB epoch. */
	u64 (*tdh_mem_track)(void *world);

	/* TDH.MEM.PAGE.REMOVE. */
	u64 (*tdh_mem_page_remove)(void *world, u64 gpa, int level);

	/* TDH.MEM.SEPT.REMOVE of the empty table under the entry of this TDX level. */
	u64 (*tdh_mem_sept_remove)(void *world, u64 gpa, int level);

	/* TDH.MEM.PAGE.DEMOTE: split a huge leaf, with page as the table. */
	u64 (*tdh_mem_page_demote)(void *world, u64 gpa, int level, u64 page);

	/*
	 * TDH.MEM.PAGE.PROMOTE: merge the table under the entry of this TDX level into a huge leaf.
	 */
	u64 (*tdh_mem_page_promote)(void *world, u64 gpa, int level);

	/* TDH.PHYMEM.PAGE.WBINVD: write back the cache lines of a page. */
	u64 (*tdh_phymem_page_wbinvd)(void *world, u64 pfn);

	/* TDH.PHYMEM.PAGE.RECLAIM: take back a page of a TD that is torn down. */
	u64 (*tdh_phymem_page_reclaim)(void *world, u64 page);

	/* TDH.MR.FINALIZE: the TD becomes runnable. */
	u64 (*tdh_mr_finalize)(void *world);

	/*
	 * Overwrite a page that the TD no longer owns (MOVDIR64B). pfn: also of an external page, a
	 * frame number.
	 */
	void (*clear_page)(void *world, u64 pfn);

	/* Take a reference on a page that the TD will own. */
	void (*page_pin)(void *world, u64 pfn);

	/* Put that reference. */
	void (*page_unpin)(void *world, u64 pfn);

	/* Whether vCPUs must stay out of the guest; mmu_lock held for write. */
	void (*wait_for_sept_zap)(void *world, u64 value);

	/* Whether the TD still has its key. 0 or 1. */
	int (*hkid_assigned)(void *world);

	/* TD_INIT, TD_RUNNABLE or TD_TEARDOWN, as last set. */
	int (*td_state)(void *world);

	/* Store the state of the TD. */
	void (*set_td_state)(void *world, int state);

	/* pre_fault_allowed = true. */
	void (*allow_pre_fault)(void *world);

	/* Add to nr_premapped and return it. */
	s64 (*premapped)(void *world, s64 change);
};

/*
 * What the harness calls. gfns are without alias bits unless said otherwise; ranges are [start,
 * end).
 *
 * Whoever finds the VM dead may refuse with -EIO, in every entry point that returns an errno and
 * before anything else is looked at; vm_is_dead stands for vm_dead and KVM_REQ_VM_DEAD alike. Locks
 * that no entry point says are held are the candidate's to take. MMIO SPTEs are not made: a shared
 * fault without a slot is RET_PF_EMULATE.
 *
 * self is what create returned.
 */
struct tdp_mirror_driver {
	/* TDP_MIRROR_ABI of the header that the library was compiled with. */
	u32 abi_version;

	/* Name of the profile that it follows, or NULL for the default one. */
	const char *profile;

	/*
	 * Capabilities that it has, separated by spaces; NULL for all. An entry point may be NULL only if
	 * it belongs to a capability that is not among them.
	 */
	const char *capabilities;

	/*
	 * A new driver as after loading the module, or NULL if there is no memory. It shares nothing with
	 * others that are alive at the same time, and must find static data as new. Environment calls may
	 * be made from here on.
	 */
	void *(*create)(const struct tdp_mirror_env *env, void *world);

	/* The driver goes, in whatever state it is: free its memory. No environment call may be made. */
	void (*destroy)(void *self);

	/*
	 * Start the VM's MMU; called once, before anything else.
	 *
	 * mirror: whether the VM has mirror roots. direct_bits: gfn mask of the shared half, 0 when
	 * there is no split. index_bits: binary logarithm of the entries of a table (9 in real
	 * hardware). max_gfn: the last gfn that a slot may have, in whichever half; it need not be
	 * the last that an entry of the root covers, and may lie beyond what the root can name.
	 * private: whether it has private memory. Returns 0.
	 */
	int (*vm_init)(void *self, int mirror, u64 direct_bits, int root_level, int index_bits,
		      u64 max_gfn, int private);

	/* 0, or -ENOMEM, or -EIO when the VM is dead; a vCPU that is refused is none. */
	int (*vcpu_create)(void *self, int vcpu);

	/* Drop both roots and the caches of the vCPU. */
	void (*vcpu_destroy)(void *self, int vcpu);

	/*
	 * Free obsolete roots if that is requested, then load roots if there is none.
	 *
	 * 0, or -ENOMEM, or -EIO when the VM is dead.
	 */
	int (*mmu_reload)(void *self, int vcpu);

	/* Drop the direct root. */
	void (*mmu_unload)(void *self, int vcpu);

	/* Drop the direct root if it is invalid. */
	void (*free_obsolete_roots)(void *self, int vcpu);

	/* Whether a root of this kind and validity belongs to types. 0 or 1. */
	int (*root_match)(void *self, int mirror, int invalid, int types);

	/* Root types that an attribute filter stands for. */
	int (*filter_to_types)(void *self, int attr_filter);

	/* Whether gpa lies in the shared half, or there is no split. 0 or 1. */
	int (*addr_is_direct)(void *self, u64 gpa);

	/* Whether gfn has an alias bit set. 0 or 1. */
	int (*gfn_is_alias)(void *self, u64 gfn);

	/*
	 * Address of the vCPU's mirror root for types with MIRROR and without DIRECT, of its direct
	 * root otherwise.
	 *
	 * INVALID_PAGE where there is no such root.
	 */
	u64 (*select_root)(void *self, int vcpu, int types);

	/* Resolve a fault. RET_PF or a negative errno; takes its own locks. */
	int (*page_fault)(void *self, int vcpu, u64 gpa, u64 error_code, int prefetch);

	/*
	 * Install pfn at goal_level; the caller holds mmu_lock for read. RET_PF or a negative
	 * errno.
	 *
	 * Refused, by RETRY or an error, on a vCPU that has no root for this half, or an invalid
	 * one.
	 */
	int (*tdp_map)(void *self, int vcpu, u64 gpa, u64 pfn, int is_private, int write,
		      int goal_level);

	/*
	 * Resolve the page behind a raw gfn as a fault would, without mapping it.
	 *
	 * 0 (RET_PF_CONTINUE), RET_PF, or a negative errno; -EFAULT and a VM bug when gfn has an
	 * alias bit.
	 */
	int (*faultin_pfn)(void *self, int vcpu, u64 gfn, int is_private);

	/*
	 * KVM_PRE_FAULT_MEMORY for the first page of the range: bytes advanced, or a negative
	 * errno.
	 *
	 * It loads roots itself, and enters SRCU itself; faults come with SRCU held.
	 */
	s64 (*prefault)(void *self, int vcpu, u64 gpa, u64 size, u64 flags);

	/*
	 * A private EPT violation: a write, retried until it is not RETRY. RET_PF or a negative
	 * errno.
	 */
	int (*ept_violation)(void *self, int vcpu, u64 gpa);

	/*
	 * The lockless path: INVALID (go the slow way), FIXED or SPURIOUS. It has nothing to warn
	 * of.
	 */
	int (*fast_pf)(void *self, int vcpu, u64 gpa, u64 error_code);

	/*
	 * Entries on the walk to gpa in its own half, from the root down to the last level reached.
	 */
	void (*get_walk)(void *self, int vcpu, u64 gpa, u64 *entries, size_t *entries_len);

	/* Whether a present leaf maps gpa; the caller holds mmu_lock for read. 0 or 1. */
	int (*gpa_is_mapped)(void *self, int vcpu, u64 gpa);

	/*
	 * Zap leaves of valid roots, for an event of the host. mmu_lock held for write. Whether to
	 * flush.
	 */
	int (*zap_leafs)(void *self, u64 start, u64 end, int flush);

	/* Zap the leaves of the filtered halves. mmu_lock held for write. Whether to flush. */
	int (*unmap_gfn_range)(void *self, u64 start, u64 end, int attr_filter, int may_block,
		      int flush);

	/* Clear the accessed bits of the shared half. Whether one was set. */
	int (*age_gfn_range)(void *self, u64 start, u64 end);

	/* Whether an accessed bit of the shared half is set. */
	int (*test_age_gfn)(void *self, u64 start, u64 end);

	/*
	 * Write-protect the leaves of a slot from min_level on. mmu_lock held for read. Whether
	 * anything changed.
	 */
	int (*wrprot_slot)(void *self, int slot, int min_level);

	/* Clear the dirty bits of a slot. mmu_lock held for read. */
	void (*clear_dirty_slot)(void *self, int slot);

	/*
	 * Clear the dirty (or writable) bits of gfn + each bit of mask. mmu_lock held for write.
	 */
	void (*clear_dirty_masked)(void *self, int slot, u64 gfn, u64 mask, int wrprot);

	/*
	 * Write-protect one page and take away MMU-writable. mmu_lock held for write. Whether it
	 * was writable.
	 *
	 * A leaf that maps it below min_level stays as it is.
	 */
	int (*write_protect_gfn)(void *self, int slot, u64 gfn, int min_level);

	/* Split huge leaves above the level. mmu_lock held for read. */
	void (*split_huge)(void *self, int slot, u64 start, u64 end, int target_level);

	/* Zap leaves that could be huge. mmu_lock held for write. Whether to flush. */
	int (*recover_huge)(void *self, int slot);

	/* NX recovery: zap the table at page if it is linked. mmu_lock held for write. 0 or 1. */
	int (*zap_sp)(void *self, u64 page);

	/* Mark valid roots of types invalid, scheduled to be zapped. mmu_lock held for write. */
	void (*invalidate_roots)(void *self, int types);

	/* Zap scheduled roots and put the MMU's reference to each. Takes mmu_lock itself. */
	void (*zap_invalidated_roots)(void *self);

	/* Invalidate and replace all direct roots. slots_lock held. */
	void (*zap_all_fast)(void *self);

	/* mmu_notifier release: zap every direct root. Takes mmu_lock itself. */
	void (*zap_all)(void *self);

	/* Free everything. No vCPU is left, the HKID is released. */
	void (*vm_uninit)(void *self);

	/*
	 * KVM_SET_MEMORY_ATTRIBUTES. 0 or a negative errno; takes slots_lock and mmu_lock itself.
	 */
	int (*set_attributes)(void *self, u64 address, u64 size, u64 attributes, u64 flags);

	/* The host takes back the pages behind the shared half. Takes mmu_lock itself. */
	void (*hva_invalidate)(void *self, u64 start, u64 end, int may_block);

	/*
	 * A hole is punched in guest memory, or the file closed. The file's lock is held; takes
	 * mmu_lock itself.
	 */
	void (*gmem_invalidate)(void *self, u64 start, u64 end);

	/*
	 * 0 or a negative errno; takes slots_lock itself. An existing slot is modified, one of 0
	 * pages deleted.
	 *
	 * A change of LOG_DIRTY asks for no work: splitting, protection and recovery are entry
	 * points of their own.
	 */
	int (*slot_create)(void *self, int slot, u64 base, u64 npages, u32 flags);

	/*
	 * 0 or -EINVAL; takes slots_lock itself, and flags the slot INVALID until nobody uses it
	 * any more.
	 */
	int (*slot_delete)(void *self, int slot);

	/* 0 or a negative errno; takes slots_lock itself. */
	int (*slot_move)(void *self, int slot, u64 base);

	/*
	 * The grace period asked for by call_rcu(page) is over: free the table, its header, its
	 * external page.
	 *
	 * Which those are, the candidate has to remember.
	 */
	void (*rcu_callback)(void *self, u64 page);

	/* The external operation behind ext_link. 0, -EBUSY or -EIO. */
	int (*sept_link)(void *self, u64 gfn, int level, u64 page);

	/* The external operation behind ext_set. 0, -EBUSY or -EIO. */
	int (*sept_set)(void *self, u64 gfn, int level, u64 pfn);

	/* The external operation behind ext_remove. 0 or -EIO. */
	int (*sept_remove)(void *self, u64 gfn, int level, u64 pfn);

	/* The external operation behind ext_free. 0 or -EIO. */
	int (*sept_free)(void *self, u64 gfn, int level, u64 page);

	/*
	 * KVM_TDX_INIT_MEM_REGION of one page: map it and add it to the TD, before finalize. 0 or a
	 * negative errno.
	 */
	int (*init_mem_region)(void *self, int vcpu, u64 gpa);

	/* KVM_TDX_FINALIZE_VM. 0 or a negative errno. */
	int (*td_finalize)(void *self);
};

/* What the library exports. */
extern const struct tdp_mirror_driver tdp_mirror_driver;

#endif
