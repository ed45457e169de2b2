// SPDX-License-Identifier: Apache-2.0
/*
 * A TDP MMU with mirror roots for TDX, cut as the kernel's own is: an iterator over entries, atomic
 * and exclusive setters, and the hooks that keep the external tree.
 *
 * -DDEFECT=n makes the driver wrong in one of the ways of DEFECTS below.
 */
#include <errno.h>
#include <stdlib.h>

#include "tdp_mirror.h"
#include "tdp_mirror_constants.h"

/*
 * DEFECTS, by their number; those with an id are the zoo's.
 *  1  A-01   the mirror reference leaks on reload
 *  2  A-12   the root selector compares for equality
 *  3  U-05   unmap forgets invalid roots
 *  4  U-09   a page reference leaks on a bug path
 *  5  N-04   splitting a dirty leaf gives clean ones
 *  6  N-05   a prefetched leaf counts as accessed
 *  7         a table is freed and stays known: use after free
 *  8         the array of vCPUs' roots is one too short: out of bounds
 *  9         a vCPU without a root is taken to have one: NULL is dereferenced
 */
#ifndef DEFECT
#define DEFECT 0
#endif

#define BIT(n) (1ULL << (n))
#define MAX_VCPUS 64
#define MAX_SLOTS 64
#define MAX_LEVEL 5
#define MAX_CACHE 5
#define HASH_SIZE 256

#define SPTE_PRESENT BIT(PRESENT)
#define SPTE_ACCESSED BIT(ACCESSED)
#define SPTE_DIRTY BIT(DIRTY)
#define SPTE_WRITABLE BIT(WRITE)
#define SPTE_HUGE BIT(HUGE)
#define SPTE_SOFT_WRITABLE (BIT(HOST_WRITABLE) | BIT(MMU_WRITABLE))
#define SPTE_PA_MASK ((BIT(PFN_BITS) - 1) << PAGE_SHIFT)
#define SPTE_TABLE (NONPRESENT | SPTE_PRESENT | SPTE_ACCESSED | RWX)

struct kvm_mmu_page {
	struct kvm_mmu_page *hash_next;
	struct kvm_mmu_page *next_root;	/* kept when it leaves the list: whoever is at it goes on */
	u64 spt;			/* the table */
	u64 header;
	u64 external;			/* page of the external tree, or 0 */
	u64 gfn;
	int level;
	bool mirror, invalid;
	bool scheduled;			/* to be zapped since it was invalidated */
	bool has_parent;
	u64 parent;
	u32 parent_index;
};

struct fault {
	int vcpu;
	u64 gpa, gfn;
	bool private, write, prefetch, writable;
	bool has_slot;
	u64 seq;
	s64 pfn;
	int max_level, goal_level;
	struct tdp_mirror_memslot slot;
};

struct kvm {
	const struct tdp_mirror_env *env;
	void *world;
	bool mirror, private;
	u64 direct_bits, max_gfn;
	int root_level, index_bits;
	u32 entries;
	struct kvm_mmu_page *pages[HASH_SIZE];
	struct kvm_mmu_page *roots;
	u64 *root_hpa, *mirror_root_hpa;	/* of each vCPU, INVALID_PAGE without one */
};

/* -- arithmetic -- */

static u64 min64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static u64 max64(u64 a, u64 b)
{
	return a > b ? a : b;
}

static u64 pages_per_entry(const struct kvm *kvm, int level)
{
	return BIT(kvm->index_bits * (level - 1));
}

static u32 spte_index(const struct kvm *kvm, u64 gfn, int level)
{
	return gfn >> kvm->index_bits * (level - 1) & (kvm->entries - 1);
}

static u64 gfn_round(const struct kvm *kvm, u64 gfn, int level)
{
	return gfn & ~(pages_per_entry(kvm, level) - 1);
}

static u64 gfn_direct_bits(const struct kvm *kvm, const struct kvm_mmu_page *root)
{
	return root->mirror ? 0 : kvm->direct_bits;
}

/* Whether no walk from the root can name the gfn. */
static bool is_unmappable(const struct kvm *kvm, u64 gfn)
{
	return gfn >= pages_per_entry(kvm, kvm->root_level + 1);
}

static bool is_present(u64 spte)
{
	return spte & SPTE_PRESENT;
}

static bool is_last(u64 spte, int level)
{
	return level == PG_LEVEL_4K || spte & SPTE_HUGE;
}

static bool is_leaf(u64 spte, int level)
{
	return is_present(spte) && is_last(spte, level);
}

static u64 spte_to_pfn(u64 spte)
{
	return (spte & SPTE_PA_MASK) >> PAGE_SHIFT;
}

static u64 pt_read(struct kvm *kvm, u64 page, u32 index)
{
	return kvm->env->pt_read(kvm->world, page, index);
}

static void vm_bug(struct kvm *kvm, const char *what)
{
	kvm->env->vm_bug(kvm->world, what);
}

static int tdp_vm_init(void *self, int mirror, u64 direct_bits, int root_level, int index_bits, u64 max_gfn,
		       int private)
{
	struct kvm *kvm = self;

	kvm->mirror = mirror;
	kvm->private = private;
	kvm->direct_bits = direct_bits;
	kvm->root_level = root_level;
	kvm->index_bits = index_bits;
	kvm->max_gfn = max_gfn;
	kvm->entries = 1U << index_bits;
	return 0;
}

static int tdp_addr_is_direct(void *self, u64 gpa)
{
	struct kvm *kvm = self;

	return !kvm->direct_bits || gpa >> PAGE_SHIFT & kvm->direct_bits;
}

static int tdp_gfn_is_alias(void *self, u64 gfn)
{
	struct kvm *kvm = self;

	return (gfn & kvm->direct_bits) != 0;
}

/* -- tables -- */

static struct kvm_mmu_page **page_bucket(struct kvm *kvm, u64 page)
{
	return &kvm->pages[(page >> PAGE_SHIFT) % HASH_SIZE];
}

static struct kvm_mmu_page *to_shadow_page(struct kvm *kvm, u64 page)
{
	struct kvm_mmu_page *sp = *page_bucket(kvm, page);

	while (sp && sp->spt != page)
		sp = sp->hash_next;
	return sp;
}

static void hash_page(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	struct kvm_mmu_page **bucket = page_bucket(kvm, sp->spt);

	sp->hash_next = *bucket;
	*bucket = sp;
}

static void unhash_page(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	struct kvm_mmu_page **link = page_bucket(kvm, sp->spt);

	while (*link && *link != sp)
		link = &(*link)->hash_next;
	if (*link)
		*link = sp->hash_next;
}

static struct kvm_mmu_page *new_page(u64 spt, u64 header, bool mirror, int level, u64 gfn)
{
	struct kvm_mmu_page *sp = calloc(1, sizeof(*sp));

	if (!sp)
		abort();	/* the harness counts pages; what describes them is not among them */
	sp->spt = spt;
	sp->header = header;
	sp->mirror = mirror;
	sp->level = level;
	sp->gfn = gfn;
	return sp;
}

static void tdp_mmu_init_sp(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	u32 role = sp->level | BIT(ROLE_DIRECT) | RWX << ROLE_ACCESS | sp->mirror << ROLE_MIRROR;

	hash_page(kvm, sp);
	kvm->env->sp_init(kvm->world, sp->spt, sp->header, role, sp->gfn, sp->external);
}

static struct kvm_mmu_page *tdp_mmu_alloc_sp(struct kvm *kvm, int vcpu, bool mirror, int level, u64 gfn,
					     bool with_external)
{
	u64 header = kvm->env->cache_alloc(kvm->world, vcpu, HEADER);
	u64 spt = kvm->env->cache_alloc(kvm->world, vcpu, TABLE);
	struct kvm_mmu_page *sp = new_page(spt, header, mirror, level, gfn);

	if (with_external)
		sp->external = kvm->env->cache_alloc(kvm->world, vcpu, EXTERNAL);
	tdp_mmu_init_sp(kvm, sp);
	return sp;
}

static void tdp_mmu_free_sp(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	u64 spt = sp->spt, header = sp->header, external = sp->external;

	if (DEFECT != 7)
		unhash_page(kvm, sp);
	free(sp);
	if (external)
		kvm->env->page_free(kvm->world, external);
	kvm->env->page_free(kvm->world, spt);
	kvm->env->page_free(kvm->world, header);
}

static void tdp_rcu_callback(void *self, u64 page)
{
	tdp_mmu_free_sp(self, to_shadow_page(self, page));
}

static void handle_removed_pt(struct kvm *kvm, struct kvm_mmu_page *sp, u64 base, bool shared);

/* Bookkeeping of a change, and removal of what is not reachable any more. */
static void handle_changed_spte(struct kvm *kvm, u64 gfn, u64 old, u64 new, int level, bool shared)
{
	bool was_present = is_present(old), was_leaf = is_leaf(old, level), now_leaf = is_leaf(new, level);

	if (was_leaf != now_leaf)
		kvm->env->update_page_stats(kvm->world, level, now_leaf ? 1 : -1);
	if (!was_present || was_leaf)
		return;
	if (!is_present(new) || now_leaf || (old & SPTE_PA_MASK) != (new & SPTE_PA_MASK))
		handle_removed_pt(kvm, to_shadow_page(kvm, old & SPTE_PA_MASK), gfn, shared);
}

static void remove_external_spte(struct kvm *kvm, u64 gfn, int level, u64 old)
{
	if (kvm->env->ext_remove(kvm->world, gfn, level, spte_to_pfn(old)))
		vm_bug(kvm, "external leaf not removed");
}

/* Freeze one entry of a removed table; the old value. */
static u64 remove_entry(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, bool shared)
{
	u64 old;

	if (!shared) {
		old = pt_read(kvm, sp->spt, index);
		if (is_leaf(old, sp->level))
			return kvm->env->pt_xchg(kvm->world, sp->spt, index, FROZEN);
		kvm->env->pt_store(kvm->world, sp->spt, index, FROZEN);
		return old;
	}
	while ((old = kvm->env->pt_xchg(kvm->world, sp->spt, index, FROZEN)) == FROZEN)
		kvm->env->cond_resched(kvm->world);
	return old;
}

/* Give the external page back; leak it when the firmware keeps it. */
static void free_external_spt(struct kvm *kvm, struct kvm_mmu_page *sp)
{
	if (!kvm->env->ext_free(kvm->world, sp->gfn, sp->level, sp->external))
		return;
	vm_bug(kvm, "external table not freed");
	kvm->env->page_leak(kvm->world, sp->external);
	sp->external = 0;
}

/* Take a table apart: freeze its entries, remove what is below, free it later. */
static void handle_removed_pt(struct kvm *kvm, struct kvm_mmu_page *sp, u64 base, bool shared)
{
	kvm->env->account_pgtable(kvm->world, -1);
	for (u32 index = 0; index < kvm->entries; index++) {
		u64 gfn = base + index * pages_per_entry(kvm, sp->level);
		u64 old = remove_entry(kvm, sp, index, shared);

		handle_changed_spte(kvm, gfn, old, FROZEN, sp->level, shared);
		if (sp->mirror && is_leaf(old, sp->level))
			remove_external_spte(kvm, gfn, sp->level, old);
	}
	if (sp->mirror && sp->external)
		free_external_spt(kvm, sp);
	kvm->env->call_rcu(kvm->world, sp->spt);
}

/* Freeze, tell the external tree, publish or restore. */
static int set_external_spte_present(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, u64 gfn, u64 old, u64 new)
{
	int err;

	if (is_present(old)) {
		vm_bug(kvm, "mirror entry is already present");
		return -EIO;
	}
	if (kvm->env->pt_cmpxchg(kvm->world, sp->spt, index, old, FROZEN) != old)
		return -EBUSY;
	if (is_last(new, sp->level))
		err = kvm->env->ext_set(kvm->world, gfn, sp->level, spte_to_pfn(new));
	else
		err = kvm->env->ext_link(kvm->world, gfn, sp->level,
					 to_shadow_page(kvm, new & SPTE_PA_MASK)->external);
	kvm->env->pt_store(kvm->world, sp->spt, index, err ? old : new);
	return err;
}

/* 0 or an error; *old becomes the value found when the exchange was lost. */
static int tdp_mmu_set_spte_atomic(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, u64 gfn, u64 *old, u64 new)
{
	u64 found;
	int err;

	if (sp->mirror && new != FROZEN) {
		if (!is_present(new)) {
			vm_bug(kvm, "atomic zap of a mirror entry");
			return -EBUSY;
		}
		err = set_external_spte_present(kvm, sp, index, gfn, *old, new);
		if (err)
			return err;
	} else {
		found = kvm->env->pt_cmpxchg(kvm->world, sp->spt, index, *old, new);
		if (found != *old) {
			*old = found;
			return -EBUSY;
		}
	}
	handle_changed_spte(kvm, gfn, *old, new, sp->level, true);
	return 0;
}

/* With the lock held for write. */
static void tdp_mmu_set_spte(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, u64 gfn, u64 new)
{
	u64 old = pt_read(kvm, sp->spt, index);

	if (is_leaf(old, sp->level))
		old = kvm->env->pt_xchg(kvm->world, sp->spt, index, new);
	else
		kvm->env->pt_store(kvm->world, sp->spt, index, new);
	handle_changed_spte(kvm, gfn, old, new, sp->level, false);
	if (!sp->mirror)
		return;
	if (is_present(new))
		vm_bug(kvm, "exclusive store of a present mirror entry");
	if (is_leaf(old, sp->level))
		remove_external_spte(kvm, gfn, sp->level, old);
}

/* -- roots -- */

static int tdp_root_match(void *self, int mirror, int invalid, int types)
{
	struct kvm *kvm = self;

	if (!(types & (DIRECT_ROOTS | MIRROR_ROOTS))) {
		kvm->env->warn_once(kvm->world, "root types without a kind");
		return 0;
	}
	if (invalid && !(types & TYPE_VALIDITY))
		return 0;
	return (types & (mirror ? MIRROR_ROOTS : DIRECT_ROOTS)) != 0;
}

static int tdp_filter_to_types(void *self, int attr_filter)
{
	struct kvm *kvm = self;
	int types = 0;

	if (!kvm->mirror)
		return DIRECT_ROOTS;
	if (!attr_filter)
		kvm->env->warn_once(kvm->world, "empty filter");
	if (attr_filter & FILTER_PRIVATE)
		types |= MIRROR_ROOTS;
	if (attr_filter & FILTER_SHARED)
		types |= DIRECT_ROOTS;
	return types;
}

static u64 tdp_select_root(void *self, int vcpu, int types)
{
	struct kvm *kvm = self;
	bool mirror = types & MIRROR_ROOTS && !(types & DIRECT_ROOTS);

	if (DEFECT == 2)
		mirror = types == MIRROR_ROOTS;
	return mirror && kvm->mirror ? kvm->mirror_root_hpa[vcpu] : kvm->root_hpa[vcpu];
}

static struct kvm_mmu_page *find_root(struct kvm *kvm, bool mirror)
{
	struct kvm_mmu_page *root;

	for (root = kvm->roots; root; root = root->next_root)
		if (root->mirror == mirror && !root->invalid &&
		    kvm->env->refcount_inc_not_zero(kvm->world, root->spt))
			return root;
	return NULL;
}

/* A root with two references: the vCPU's and the MMU's. */
static struct kvm_mmu_page *new_root(struct kvm *kvm, int vcpu, bool mirror)
{
	struct kvm_mmu_page *root = tdp_mmu_alloc_sp(kvm, vcpu, mirror, kvm->root_level, 0, false);
	struct kvm_mmu_page **last = &kvm->roots;

	kvm->env->refcount_set(kvm->world, root->spt, 2);
	while (*last)
		last = &(*last)->next_root;
	*last = root;
	kvm->env->roots_add(kvm->world, root->spt);
	return root;
}

static void kvm_tdp_mmu_alloc_root(struct kvm *kvm, int vcpu, bool mirror)
{
	struct kvm_mmu_page *root;

	kvm->env->read_lock(kvm->world);
	kvm->env->pages_lock(kvm->world);
	root = find_root(kvm, mirror);
	if (!root)
		root = new_root(kvm, vcpu, mirror);
	kvm->env->pages_unlock(kvm->world);
	(mirror ? kvm->mirror_root_hpa : kvm->root_hpa)[vcpu] = root->spt;
	kvm->env->vcpu_root(kvm->world, vcpu, mirror, root->spt);
	kvm->env->read_unlock(kvm->world);
}

static void kvm_tdp_mmu_put_root(struct kvm *kvm, struct kvm_mmu_page *root)
{
	struct kvm_mmu_page **link;

	if (!kvm->env->refcount_dec_and_test(kvm->world, root->spt))
		return;
	if (!root->invalid)
		vm_bug(kvm, "final put of a valid root");
	kvm->env->pages_lock(kvm->world);
	for (link = &kvm->roots; *link != root; link = &(*link)->next_root)
		;
	*link = root->next_root;
	kvm->env->roots_del(kvm->world, root->spt);
	kvm->env->pages_unlock(kvm->world);
	kvm->env->call_rcu(kvm->world, root->spt);
}

/* The next root of the types, with a reference; puts the previous one. */
static struct kvm_mmu_page *next_root(struct kvm *kvm, struct kvm_mmu_page *previous, int types)
{
	struct kvm_mmu_page *root;

	kvm->env->rcu_read_lock(kvm->world);
	root = previous ? previous->next_root : kvm->roots;
	for (; root; root = root->next_root)
		if (tdp_root_match(kvm, root->mirror, root->invalid, types) &&
		    kvm->env->refcount_inc_not_zero(kvm->world, root->spt))
			break;
	kvm->env->rcu_read_unlock(kvm->world);
	if (previous)
		kvm_tdp_mmu_put_root(kvm, previous);
	return root;
}

#define for_each_root(kvm, root, types) \
	for (root = next_root(kvm, NULL, types); root; root = next_root(kvm, root, types))

static void tdp_invalidate_roots(void *self, int types)
{
	struct kvm *kvm = self;
	struct kvm_mmu_page *root;

	if (types & TYPE_VALIDITY) {
		kvm->env->warn_once(kvm->world, "invalid roots cannot be invalidated");
		types &= ~TYPE_VALIDITY;
	}
	for (root = kvm->roots; root; root = root->next_root) {
		if (root->invalid || !tdp_root_match(kvm, root->mirror, 0, types))
			continue;
		root->invalid = true;
		root->scheduled = true;
		kvm->env->role_invalidate(kvm->world, root->spt);
	}
}

/* -- the iterator over entries -- */

struct tdp_iter {
	struct kvm *kvm;
	struct kvm_mmu_page *root;
	int min_level, level;
	u64 direct_bits;
	u64 next_last_level_gfn, yielded_gfn, gfn;
	u64 path[MAX_LEVEL + 1];
	u64 page;
	u32 index;
	u64 old_spte;
	bool valid, yielded;
};

static void tdp_iter_reset(struct tdp_iter *iter)
{
	iter->page = iter->path[iter->level];
	iter->index = spte_index(iter->kvm, iter->gfn | iter->direct_bits, iter->level);
	iter->old_spte = pt_read(iter->kvm, iter->page, iter->index);
}

/* From the root again, towards the next entry to visit. */
static void tdp_iter_restart(struct tdp_iter *iter)
{
	iter->yielded = false;
	iter->yielded_gfn = iter->next_last_level_gfn;
	iter->level = iter->root->level;
	iter->path[iter->level] = iter->root->spt;
	iter->gfn = gfn_round(iter->kvm, iter->next_last_level_gfn, iter->level);
	tdp_iter_reset(iter);
}

static void tdp_iter_start(struct tdp_iter *iter, struct kvm *kvm, struct kvm_mmu_page *root, int min_level, u64 start,
			   u64 direct_bits)
{
	*iter = (struct tdp_iter){
		.kvm = kvm, .root = root, .min_level = min_level, .direct_bits = direct_bits,
		.next_last_level_gfn = start, .yielded_gfn = start, .valid = true,
	};
	if (direct_bits && start >= direct_bits) {
		kvm->env->warn_once(kvm->world, "walk starts beyond the direct bits");
		iter->valid = false;
		return;
	}
	tdp_iter_restart(iter);
}

static bool try_step_down(struct tdp_iter *iter)
{
	if (iter->level == iter->min_level)
		return false;
	iter->old_spte = pt_read(iter->kvm, iter->page, iter->index);
	if (!is_present(iter->old_spte) || is_last(iter->old_spte, iter->level))
		return false;
	iter->level--;
	iter->path[iter->level] = iter->old_spte & SPTE_PA_MASK;
	iter->gfn = gfn_round(iter->kvm, iter->next_last_level_gfn, iter->level);
	tdp_iter_reset(iter);
	return true;
}

static bool try_step_side(struct tdp_iter *iter)
{
	if (iter->index == iter->kvm->entries - 1)
		return false;
	iter->gfn += pages_per_entry(iter->kvm, iter->level);
	iter->next_last_level_gfn = iter->gfn;
	iter->index++;
	iter->old_spte = pt_read(iter->kvm, iter->page, iter->index);
	return true;
}

static bool try_step_up(struct tdp_iter *iter)
{
	if (iter->level == iter->root->level)
		return false;
	iter->level++;
	iter->gfn = gfn_round(iter->kvm, iter->gfn, iter->level);
	tdp_iter_reset(iter);
	return true;
}

static void tdp_iter_next(struct tdp_iter *iter)
{
	if (iter->yielded) {
		tdp_iter_restart(iter);
		return;
	}
	if (try_step_down(iter))
		return;
	do {
		if (try_step_side(iter))
			return;
	} while (try_step_up(iter));
	iter->valid = false;
}

/* As far as the root reaches: whether there is anything to walk; then *end is cut. */
static bool walk_start(struct tdp_iter *iter, struct kvm *kvm, struct kvm_mmu_page *root, int min_level, u64 start,
		       u64 *end)
{
	u64 reach = pages_per_entry(kvm, kvm->root_level + 1), bits = gfn_direct_bits(kvm, root);

	if (start >= reach) {
		if (bits)
			kvm->env->warn_once(kvm->world, "walk starts beyond the direct bits");
		iter->valid = false;
		return false;
	}
	*end = min64(*end, reach);
	tdp_iter_start(iter, kvm, root, min_level, start, bits);
	return iter->valid;
}

#define for_each_pte(iter, kvm, root, min_level, start, end)                               \
	for (walk_start(&(iter), kvm, root, min_level, start, &(end));                     \
	     (iter).valid && (iter).gfn < (end); tdp_iter_next(&(iter)))

/* Whether the lock was dropped. */
static bool tdp_mmu_iter_cond_resched(struct tdp_iter *iter, bool flush)
{
	struct kvm *kvm = iter->kvm;

	if (iter->next_last_level_gfn == iter->yielded_gfn || !kvm->env->resched(kvm->world))
		return false;
	if (flush)
		kvm->env->flush_remote_tlbs(kvm->world);
	kvm->env->rcu_read_unlock(kvm->world);
	kvm->env->lock_yield(kvm->world);
	kvm->env->rcu_read_lock(kvm->world);
	iter->yielded = true;
	return true;
}

static struct kvm_mmu_page *iter_sp(struct tdp_iter *iter)
{
	return to_shadow_page(iter->kvm, iter->page);
}

/* -- zapping -- */

static void zap_entry(struct tdp_iter *iter, bool shared)
{
	struct kvm *kvm = iter->kvm;
	u64 gfn = iter->gfn & ~gfn_direct_bits(kvm, iter->root);

	if (!shared) {
		tdp_mmu_set_spte(kvm, iter_sp(iter), iter->index, gfn, NONPRESENT);
		return;
	}
	while (is_present(iter->old_spte)) {
		if (!tdp_mmu_set_spte_atomic(kvm, iter_sp(iter), iter->index, gfn, &iter->old_spte, NONPRESENT))
			return;
		if (kvm->env->vm_is_dead(kvm->world))
			return;
		kvm->env->cond_resched(kvm->world);
	}
}

/* Every entry of the root, whatever the direct bits. */
static void zap_root_level(struct kvm *kvm, struct kvm_mmu_page *root, bool shared, int level)
{
	u64 end = pages_per_entry(kvm, kvm->root_level + 1);
	struct tdp_iter iter;

	for (tdp_iter_start(&iter, kvm, root, level, 0, 0); iter.valid && iter.gfn < end; tdp_iter_next(&iter)) {
		if (tdp_mmu_iter_cond_resched(&iter, false))
			continue;
		if (is_present(iter.old_spte) && iter.level <= level)
			zap_entry(&iter, shared);
	}
}

/* The huge levels first, so that each step is bounded. */
static void tdp_mmu_zap_root(struct kvm *kvm, struct kvm_mmu_page *root, bool shared)
{
	kvm->env->rcu_read_lock(kvm->world);
	if (kvm->root_level > MAX_HUGE_LEVEL)
		zap_root_level(kvm, root, shared, MAX_HUGE_LEVEL);
	zap_root_level(kvm, root, shared, root->level);
	kvm->env->rcu_read_unlock(kvm->world);
}

static void zap_scheduled(struct kvm *kvm, bool shared)
{
	struct kvm_mmu_page *root;

	if (shared)
		kvm->env->read_lock(kvm->world);
	else
		kvm->env->write_lock(kvm->world);
	for_each_root(kvm, root, TYPE_VALIDITY | DIRECT_ROOTS | MIRROR_ROOTS) {
		if (!root->scheduled)
			continue;
		root->scheduled = false;
		tdp_mmu_zap_root(kvm, root, shared);
		kvm_tdp_mmu_put_root(kvm, root);
	}
	if (shared)
		kvm->env->read_unlock(kvm->world);
	else
		kvm->env->write_unlock(kvm->world);
}

static void tdp_zap_invalidated_roots(void *self)
{
	zap_scheduled(self, true);
}

/* Whether a flush is due. */
static bool tdp_mmu_zap_leafs(struct kvm *kvm, struct kvm_mmu_page *root, u64 start, u64 end, bool can_yield,
			      bool flush)
{
	struct tdp_iter iter;

	end = min64(end, kvm->max_gfn + 1);
	kvm->env->rcu_read_lock(kvm->world);
	for_each_pte(iter, kvm, root, PG_LEVEL_4K, start, end) {
		if (can_yield && tdp_mmu_iter_cond_resched(&iter, flush)) {
			flush = false;
			continue;
		}
		if (!is_leaf(iter.old_spte, iter.level))
			continue;
		tdp_mmu_set_spte(kvm, iter_sp(&iter), iter.index, iter.gfn, NONPRESENT);
		if (!root->invalid)
			flush = true;
	}
	kvm->env->rcu_read_unlock(kvm->world);
	return flush;
}

static int tdp_zap_leafs(void *self, u64 start, u64 end, int flush)
{
	struct kvm *kvm = self;
	struct kvm_mmu_page *root;
	bool due = flush;

	for_each_root(kvm, root, DIRECT_ROOTS)
		due = tdp_mmu_zap_leafs(kvm, root, start, end, true, due);
	return due;
}

static int tdp_unmap_gfn_range(void *self, u64 start, u64 end, int attr_filter, int may_block, int flush)
{
	struct kvm *kvm = self;
	struct kvm_mmu_page *root;
	bool due = flush;
	int types = tdp_filter_to_types(kvm, attr_filter);

	if (DEFECT != 3)
		types |= TYPE_VALIDITY;
	for_each_root(kvm, root, types)
		due = tdp_mmu_zap_leafs(kvm, root, start, end, may_block, due);
	return due;
}

/* For NX recovery; mirrors are left alone. */
static int tdp_zap_sp(void *self, u64 page)
{
	struct kvm *kvm = self;
	struct kvm_mmu_page *sp = to_shadow_page(kvm, page);
	bool found;

	if (sp->mirror || !sp->has_parent)
		return 0;
	kvm->env->rcu_read_lock(kvm->world);
	found = (pt_read(kvm, sp->parent, sp->parent_index) & SPTE_PA_MASK) == page;
	if (found)
		tdp_mmu_set_spte(kvm, to_shadow_page(kvm, sp->parent), sp->parent_index, sp->gfn, NONPRESENT);
	kvm->env->rcu_read_unlock(kvm->world);
	return found;
}

/* -- mapping -- */

static struct kvm_mmu_page *root_for_fault(struct kvm *kvm, const struct fault *fault)
{
	bool mirror = kvm->mirror && !tdp_addr_is_direct(kvm, fault->gpa);
	u64 page = (mirror ? kvm->mirror_root_hpa : kvm->root_hpa)[fault->vcpu];

	return page == INVALID_PAGE ? NULL : to_shadow_page(kvm, page);
}

/* Leaves of the next level for all that a huge leaf maps. */
static void fill_split(struct kvm *kvm, struct kvm_mmu_page *child, u64 huge)
{
	u64 step = pages_per_entry(kvm, child->level) << PAGE_SHIFT;
	u64 small = child->level == PG_LEVEL_4K ? huge & ~SPTE_HUGE : huge;

	if (DEFECT == 5)
		small &= ~SPTE_DIRTY;
	for (u32 index = 0; index < kvm->entries; index++)
		kvm->env->pt_store(kvm->world, child->spt, index, small + index * step);
	if (!child->mirror)
		kvm->env->update_page_stats(kvm->world, child->level, kvm->entries);
}

static int tdp_mmu_link_sp(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, u64 gfn, u64 old,
			   struct kvm_mmu_page *child)
{
	bool was_present = is_present(old);
	int err;

	child->has_parent = true;
	child->parent = sp->spt;
	child->parent_index = index;
	err = tdp_mmu_set_spte_atomic(kvm, sp, index, gfn, &old, SPTE_TABLE | child->spt);
	if (!err)
		kvm->env->account_pgtable(kvm->world, 1);
	else if (was_present && !child->mirror)
		kvm->env->update_page_stats(kvm->world, child->level, -(s64)kvm->entries);
	return err;
}

/* Link a new table under an entry, or split the huge leaf that is there. */
static int build_table(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, u64 spte, struct fault *fault)
{
	u64 gfn = gfn_round(kvm, fault->gfn, sp->level);
	struct kvm_mmu_page *child;

	if (is_present(spte) && sp->mirror) {
		vm_bug(kvm, "huge leaf in a mirror");
		return -EIO;
	}
	child = tdp_mmu_alloc_sp(kvm, fault->vcpu, sp->mirror, sp->level - 1, gfn, sp->mirror);
	if (is_present(spte))
		fill_split(kvm, child, spte);
	if (tdp_mmu_link_sp(kvm, sp, index, gfn, spte, child)) {
		tdp_mmu_free_sp(kvm, child);
		return RET_PF_RETRY;
	}
	return RET_PF_CONTINUE;
}

static u64 make_spte(struct kvm *kvm, const struct fault *fault, int level, bool mirror)
{
	u64 pfn = fault->pfn & ~(pages_per_entry(kvm, level) - 1);
	u64 spte = NONPRESENT | SPTE_PRESENT | MEMTYPE_WB | BIT(READ) | BIT(EXEC) | pfn << PAGE_SHIFT;

	if (!fault->prefetch || DEFECT == 6)
		spte |= SPTE_ACCESSED;
	if (level > PG_LEVEL_4K)
		spte |= SPTE_HUGE;
	if (fault->writable || mirror)
		spte |= SPTE_WRITABLE | SPTE_DIRTY | SPTE_SOFT_WRITABLE;
	return spte;
}

static void flush_gfns(struct kvm *kvm, u64 gfn, u64 count)
{
	if (kvm->env->flush_range(kvm->world, gfn, count))
		kvm->env->flush_remote_tlbs(kvm->world);
}

static int map_target_level(struct kvm *kvm, struct kvm_mmu_page *sp, u32 index, u64 old, struct fault *fault)
{
	bool was_present = is_present(old), was_leaf = is_leaf(old, sp->level);
	u64 gfn = gfn_round(kvm, fault->gfn, sp->level), new;

	if (was_leaf && (fault->prefetch || !fault->write || old & SPTE_WRITABLE))
		return RET_PF_SPURIOUS;
	new = make_spte(kvm, fault, sp->level, sp->mirror);
	if (was_leaf)
		new |= old & (SPTE_ACCESSED | SPTE_DIRTY);
	if (new == old)
		return RET_PF_SPURIOUS;
	if (tdp_mmu_set_spte_atomic(kvm, sp, index, gfn, &old, new))
		return RET_PF_RETRY;
	if (was_present && !was_leaf)
		flush_gfns(kvm, gfn, pages_per_entry(kvm, sp->level));
	return RET_PF_FIXED;
}

/* One entry per level, down to the goal. */
static int tdp_mmu_descend(struct kvm *kvm, struct kvm_mmu_page *root, struct fault *fault)
{
	u64 raw = fault->gfn | gfn_direct_bits(kvm, root);
	struct kvm_mmu_page *sp = root;

	for (;;) {
		u32 index = spte_index(kvm, raw, sp->level);
		u64 spte = pt_read(kvm, sp->spt, index);
		int ret;

		if (spte == FROZEN)
			return RET_PF_RETRY;
		if (sp->level == fault->goal_level)
			return map_target_level(kvm, sp, index, spte, fault);
		if (is_present(spte) && !is_last(spte, sp->level)) {
			sp = to_shadow_page(kvm, spte & SPTE_PA_MASK);
			continue;
		}
		ret = build_table(kvm, sp, index, spte, fault);
		if (ret != RET_PF_CONTINUE)
			return ret;
	}
}

static int kvm_tdp_mmu_map(struct kvm *kvm, struct fault *fault)
{
	struct kvm_mmu_page *root = root_for_fault(kvm, fault);
	int ret;

	if ((root->mirror && fault->goal_level > PG_LEVEL_4K) || root->invalid)
		return -EIO;
	kvm->env->rcu_read_lock(kvm->world);
	ret = tdp_mmu_descend(kvm, root, fault);
	kvm->env->rcu_read_unlock(kvm->world);
	return ret;
}

static struct fault new_fault(int vcpu, u64 gpa, bool private, bool write, bool prefetch)
{
	return (struct fault){
		.vcpu = vcpu, .gpa = gpa, .gfn = gpa >> PAGE_SHIFT, .private = private, .write = write,
		.prefetch = prefetch, .writable = true, .max_level = 1, .goal_level = 1,
	};
}

static int tdp_tdp_map(void *self, int vcpu, u64 gpa, u64 pfn, int is_private, int write, int goal_level)
{
	struct kvm *kvm = self;
	struct fault fault = new_fault(vcpu, gpa, is_private, write, false);

	fault.gfn &= ~kvm->direct_bits;
	fault.pfn = pfn + (fault.gfn & (pages_per_entry(kvm, goal_level) - 1));
	fault.goal_level = goal_level;
	if (DEFECT != 9 && !root_for_fault(kvm, &fault))
		return -EIO;
	return kvm_tdp_mmu_map(kvm, &fault);
}

/* -- vCPUs and their roots -- */

static int tdp_vcpu_create(void *self, int vcpu)
{
	struct kvm *kvm = self;

	if (vcpu < 0 || vcpu >= MAX_VCPUS)
		return -EINVAL;
	kvm->root_hpa[vcpu] = INVALID_PAGE;
	kvm->mirror_root_hpa[vcpu] = INVALID_PAGE;
	return 0;
}

static void put_vcpu_root(struct kvm *kvm, int vcpu, bool mirror)
{
	u64 *root_hpa = &(mirror ? kvm->mirror_root_hpa : kvm->root_hpa)[vcpu], page = *root_hpa;

	if (page == INVALID_PAGE)
		return;
	kvm->env->read_lock(kvm->world);
	*root_hpa = INVALID_PAGE;
	kvm->env->vcpu_root(kvm->world, vcpu, mirror, INVALID_PAGE);
	kvm_tdp_mmu_put_root(kvm, to_shadow_page(kvm, page));
	kvm->env->read_unlock(kvm->world);
}

static void tdp_mmu_unload(void *self, int vcpu)
{
	put_vcpu_root(self, vcpu, false);
}

static void tdp_vcpu_destroy(void *self, int vcpu)
{
	struct kvm *kvm = self;

	put_vcpu_root(kvm, vcpu, false);
	put_vcpu_root(kvm, vcpu, true);
	kvm->env->cache_free(kvm->world, vcpu);
}

static void tdp_free_obsolete_roots(void *self, int vcpu)
{
	struct kvm *kvm = self;
	u64 page = kvm->root_hpa[vcpu];

	if (page != INVALID_PAGE && to_shadow_page(kvm, page)->invalid)
		put_vcpu_root(kvm, vcpu, false);
}

static int mmu_topup_memory_caches(struct kvm *kvm, int vcpu)
{
	for (int kind = HEADER; kind <= (kvm->mirror ? EXTERNAL : TABLE); kind++) {
		int err = kvm->env->cache_topup(kvm->world, vcpu, kind, MAX_CACHE, NONPRESENT);

		if (err)
			return err;
	}
	return 0;
}

/* The mirror root first, and only once; then the direct root. */
static int kvm_mmu_load(struct kvm *kvm, int vcpu)
{
	int err = mmu_topup_memory_caches(kvm, vcpu);

	if (err)
		return err;
	if (kvm->mirror && (DEFECT == 1 || kvm->mirror_root_hpa[vcpu] == INVALID_PAGE))
		kvm_tdp_mmu_alloc_root(kvm, vcpu, true);
	kvm_tdp_mmu_alloc_root(kvm, vcpu, false);
	kvm->env->load_pgd(kvm->world, vcpu, kvm->root_hpa[vcpu], kvm->root_level);
	return 0;
}

static int tdp_mmu_reload(void *self, int vcpu)
{
	struct kvm *kvm = self;

	if (kvm->env->check_request(kvm->world, vcpu, REQ_FREE_OBSOLETE_ROOTS))
		tdp_free_obsolete_roots(kvm, vcpu);
	return kvm->root_hpa[vcpu] == INVALID_PAGE ? kvm_mmu_load(kvm, vcpu) : 0;
}

static void tdp_zap_all_fast(void *self)
{
	struct kvm *kvm = self;

	kvm->env->write_lock(kvm->world);
	tdp_invalidate_roots(kvm, DIRECT_ROOTS);
	kvm->env->make_all_cpus_request(kvm->world, REQ_FREE_OBSOLETE_ROOTS);
	kvm->env->write_unlock(kvm->world);
	zap_scheduled(kvm, true);
}

/* The VM is going away. */
static void tdp_zap_all(void *self)
{
	struct kvm *kvm = self;
	struct kvm_mmu_page *root;

	kvm->env->write_lock(kvm->world);
	for_each_root(kvm, root, DIRECT_ROOTS | TYPE_VALIDITY)
		tdp_mmu_zap_root(kvm, root, false);
	kvm->env->write_unlock(kvm->world);
}

static void tdp_vm_uninit(void *self)
{
	struct kvm *kvm = self;

	tdp_invalidate_roots(kvm, DIRECT_ROOTS | MIRROR_ROOTS);
	zap_scheduled(kvm, false);
	kvm->env->rcu_barrier(kvm->world);
}

/* -- faults -- */

static void memory_fault_exit(struct kvm *kvm, const struct fault *fault)
{
	kvm->env->memory_fault_exit(kvm->world, (fault->gfn & ~kvm->direct_bits) << PAGE_SHIFT, 4096,
				    fault->private ? MEMORY_EXIT_PRIVATE : 0);
}

static int refuse(struct kvm *kvm, const struct fault *fault, int err)
{
	memory_fault_exit(kvm, fault);
	return err;
}

static int get_pfn(struct kvm *kvm, struct fault *fault)
{
	int writable;

	if (!fault->private) {
		kvm->env->hva_get_pfn(kvm->world, fault->slot.slot, fault->gfn, fault->write, &fault->pfn, &writable,
				      &fault->max_level);
		fault->writable = writable;
		return RET_PF_CONTINUE;
	}
	if (!(fault->slot.flags & MEM_GUEST_MEMFD))
		return refuse(kvm, fault, -EFAULT);
	fault->pfn = kvm->env->gmem_get_pfn(kvm->world, fault->slot.slot, fault->gfn);
	return fault->pfn < 0 ? refuse(kvm, fault, fault->pfn) : RET_PF_CONTINUE;
}

/* Snapshot, attributes, slot, page. */
static int kvm_mmu_faultin_pfn(struct kvm *kvm, struct fault *fault)
{
	int ret;

	if (fault->gfn & kvm->direct_bits) {
		vm_bug(kvm, "alias gfn");
		return -EFAULT;
	}
	fault->seq = kvm->env->mmu_invalidate_seq(kvm->world);
	if (kvm->private && fault->private != !!kvm->env->attributes(kvm->world, fault->gfn))
		return refuse(kvm, fault, -EFAULT);
	fault->has_slot = kvm->env->memslot(kvm->world, fault->gfn, &fault->slot);
	if (!fault->has_slot)
		return fault->private ? refuse(kvm, fault, -EFAULT) : RET_PF_EMULATE;
	if (fault->slot.flags & SLOT_INVALID)
		return fault->prefetch ? -EAGAIN : RET_PF_RETRY;
	if (is_unmappable(kvm, fault->gfn))
		return refuse(kvm, fault, -EFAULT);
	if (kvm->env->mmu_invalidate_retry(kvm->world, fault->seq, fault->gfn))
		return RET_PF_RETRY;
	ret = get_pfn(kvm, fault);
	if (ret == RET_PF_CONTINUE && kvm->env->mmu_invalidate_retry(kvm->world, fault->seq, fault->gfn)) {
		kvm->env->pfn_release(kvm->world, fault->pfn);
		return RET_PF_RETRY;
	}
	return ret;
}

static int tdp_faultin_pfn(void *self, int vcpu, u64 gfn, int is_private)
{
	struct kvm *kvm = self;
	struct fault fault = new_fault(vcpu, gfn << PAGE_SHIFT, is_private, false, false);
	int ret = kvm_mmu_faultin_pfn(kvm, &fault);

	if (ret == RET_PF_CONTINUE)
		kvm->env->pfn_release(kvm->world, fault.pfn);
	return ret;
}

static bool is_page_fault_stale(struct kvm *kvm, const struct fault *fault)
{
	if (to_shadow_page(kvm, kvm->root_hpa[fault->vcpu])->invalid)
		return true;
	return kvm->env->mmu_invalidate_retry(kvm->world, fault->seq, fault->gfn);
}

/* Within the slot, and of one attribute; where dirty pages are logged each is mapped for itself. */
static int hugepage_level(struct kvm *kvm, const struct fault *fault)
{
	u64 count = pages_per_entry(kvm, PG_LEVEL_2M), start = fault->gfn & ~(count - 1);

	if (fault->private || fault->max_level < PG_LEVEL_2M || fault->slot.flags & MEM_LOG_DIRTY_PAGES)
		return PG_LEVEL_4K;
	if (start < fault->slot.base || start + count > fault->slot.base + fault->slot.npages)
		return PG_LEVEL_4K;
	for (u64 gfn = start; kvm->private && gfn < start + count; gfn++)
		if (kvm->env->attributes(kvm->world, gfn))
			return PG_LEVEL_4K;
	return PG_LEVEL_2M;
}

static int kvm_tdp_mmu_page_fault(struct kvm *kvm, struct fault *fault)
{
	int ret;

	fault->gfn &= ~kvm->direct_bits;
	ret = mmu_topup_memory_caches(kvm, fault->vcpu);
	if (ret)
		return ret;
	ret = kvm_mmu_faultin_pfn(kvm, fault);
	if (ret != RET_PF_CONTINUE)
		return ret;
	kvm->env->read_lock(kvm->world);
	if (is_page_fault_stale(kvm, fault)) {
		ret = RET_PF_RETRY;
	} else {
		fault->goal_level = hugepage_level(kvm, fault);
		ret = kvm_tdp_mmu_map(kvm, fault);
	}
	kvm->env->read_unlock(kvm->world);
	kvm->env->pfn_release(kvm->world, fault->pfn);
	return ret;
}

/* The shared half, and as the attributes say. */
static bool page_fault_can_be_fast(struct kvm *kvm, u64 gpa, u64 error_code)
{
	if (error_code >> PFERR_PRIVATE_ACCESS & 1 || !tdp_addr_is_direct(kvm, gpa))
		return false;
	return !kvm->private || !kvm->env->attributes(kvm->world, gpa >> PAGE_SHIFT & ~kvm->direct_bits);
}

/* Place and value of the leaf of a shared gfn; false without one. */
static bool last_spte(struct kvm *kvm, u64 page, u64 gfn, u64 *table, u32 *index, u64 *spte)
{
	if (is_unmappable(kvm, gfn))
		return false;
	for (int level = kvm->root_level; level > 0; level--) {
		*table = page;
		*index = spte_index(kvm, gfn | kvm->direct_bits, level);
		*spte = pt_read(kvm, page, *index);
		if (!is_present(*spte))
			return false;
		if (is_last(*spte, level))
			return true;
		page = *spte & SPTE_PA_MASK;
	}
	return false;
}

static bool is_logged(struct kvm *kvm, u64 gfn)
{
	struct tdp_mirror_memslot slot;

	return kvm->env->memslot(kvm->world, gfn, &slot) && slot.flags & MEM_LOG_DIRTY_PAGES;
}

static int try_fast_fault(struct kvm *kvm, int vcpu, u64 gfn, bool write)
{
	u64 table, spte;
	u32 index;

	for (int tries = 0; tries < 4; tries++) {
		if (!last_spte(kvm, kvm->root_hpa[vcpu], gfn, &table, &index, &spte))
			return RET_PF_INVALID;
		if (!write || spte & SPTE_WRITABLE)
			return RET_PF_SPURIOUS;
		if ((spte & SPTE_SOFT_WRITABLE) != SPTE_SOFT_WRITABLE)
			return RET_PF_INVALID;
		if (spte & SPTE_HUGE && is_logged(kvm, gfn))
			return RET_PF_INVALID;
		if (kvm->env->pt_cmpxchg(kvm->world, table, index, spte,
					 spte | SPTE_WRITABLE | SPTE_DIRTY | SPTE_ACCESSED) == spte)
			return RET_PF_FIXED;
	}
	return RET_PF_INVALID;
}

/* Without mmu_lock, never for the private half. */
static int tdp_fast_pf(void *self, int vcpu, u64 gpa, u64 error_code)
{
	struct kvm *kvm = self;
	int ret;

	if (!page_fault_can_be_fast(kvm, gpa, error_code))
		return RET_PF_INVALID;
	kvm->env->rcu_read_lock(kvm->world);
	ret = try_fast_fault(kvm, vcpu, gpa >> PAGE_SHIFT & ~kvm->direct_bits, error_code >> PFERR_WRITE & 1);
	kvm->env->rcu_read_unlock(kvm->world);
	return ret;
}

static int tdp_page_fault(void *self, int vcpu, u64 gpa, u64 error_code, int prefetch)
{
	struct kvm *kvm = self;
	struct fault fault = new_fault(vcpu, gpa, error_code >> PFERR_PRIVATE_ACCESS & 1,
				       error_code >> PFERR_WRITE & 1, prefetch);
	int ret;

	/* Access and address must name the same half. */
	if (kvm->mirror && fault.private == tdp_addr_is_direct(kvm, gpa))
		return refuse(kvm, &fault, -EFAULT);
	if (error_code >> PFERR_PRESENT & 1) {
		ret = tdp_fast_pf(kvm, vcpu, gpa, error_code);
		if (ret != RET_PF_INVALID)
			return ret;
	}
	return kvm_tdp_mmu_page_fault(kvm, &fault);
}

/* A prefetch, until it is not RETRY. */
static int kvm_tdp_map_page(struct kvm *kvm, int vcpu, u64 gpa, bool private)
{
	for (;;) {
		struct fault fault = new_fault(vcpu, gpa, private, false, true);
		int ret;

		if (kvm->env->signal_pending(kvm->world))
			return -EINTR;
		if (kvm->env->vm_is_dead(kvm->world))
			return -EIO;
		ret = tdp_mmu_reload(kvm, vcpu);
		if (ret)
			return ret;
		ret = kvm_tdp_mmu_page_fault(kvm, &fault);
		if (ret != RET_PF_RETRY)
			return ret == RET_PF_EMULATE ? -ENOENT : ret;
		kvm->env->cond_resched(kvm->world);
	}
}

static s64 tdp_prefault(void *self, int vcpu, u64 gpa, u64 size, u64 flags)
{
	struct kvm *kvm = self;
	bool private;
	int ret;

	if (flags || gpa & 4095 || size & 4095 || !size || gpa > UINT64_MAX - (size - 1))
		return -EINVAL;
	if (!kvm->env->pre_fault_allowed(kvm->world))
		return -EOPNOTSUPP;
	if (tdp_gfn_is_alias(kvm, gpa >> PAGE_SHIFT))
		return -EINVAL;
	kvm->env->srcu_read_lock(kvm->world);
	private = kvm->private && kvm->env->attributes(kvm->world, gpa >> PAGE_SHIFT);
	if (kvm->mirror && !private)
		gpa |= kvm->direct_bits << PAGE_SHIFT;
	ret = kvm_tdp_map_page(kvm, vcpu, gpa, private);
	kvm->env->srcu_read_unlock(kvm->world);
	return ret < 0 ? ret : 4096;
}

/* How many entries the walk has. */
static int kvm_tdp_mmu_get_walk(struct kvm *kvm, int vcpu, u64 gpa, u64 sptes[MAX_LEVEL])
{
	bool direct = tdp_addr_is_direct(kvm, gpa);
	u64 page = (direct ? kvm->root_hpa : kvm->mirror_root_hpa)[vcpu];
	u64 gfn = gpa >> PAGE_SHIFT & ~kvm->direct_bits;
	int n = 0;

	if (is_unmappable(kvm, gfn))
		return 0;
	if (direct)
		gfn |= kvm->direct_bits;
	kvm->env->rcu_read_lock(kvm->world);
	for (int level = kvm->root_level; level > 0; level--) {
		u64 spte = pt_read(kvm, page, spte_index(kvm, gfn, level));

		sptes[n++] = spte;
		if (!is_present(spte) || is_last(spte, level))
			break;
		page = spte & SPTE_PA_MASK;
	}
	kvm->env->rcu_read_unlock(kvm->world);
	return n;
}

static void tdp_get_walk(void *self, int vcpu, u64 gpa, u64 *entries, size_t *entries_len)
{
	u64 sptes[MAX_LEVEL];
	int n = kvm_tdp_mmu_get_walk(self, vcpu, gpa, sptes);

	for (int i = 0; i < n && (size_t)i < *entries_len; i++)
		entries[i] = sptes[i];
	*entries_len = n;
}

static int tdp_gpa_is_mapped(void *self, int vcpu, u64 gpa)
{
	struct kvm *kvm = self;
	u64 sptes[MAX_LEVEL];
	int n = kvm_tdp_mmu_get_walk(kvm, vcpu, gpa, sptes);

	return n && is_leaf(sptes[n - 1], kvm->root_level - n + 1);
}

/* -- aging, write protection, dirty logging, huge pages: the shared half only -- */

/* Clear bits of a present leaf, whatever hardware does meanwhile; whether one was set. */
static bool clear_bits(struct tdp_iter *iter, u64 bits)
{
	struct kvm *kvm = iter->kvm;

	while (is_leaf(iter->old_spte, iter->level)) {
		u64 new = iter->old_spte & ~bits, found;

		if (new == iter->old_spte)
			return false;
		found = kvm->env->pt_cmpxchg(kvm->world, iter->page, iter->index, iter->old_spte, new);
		if (found == iter->old_spte)
			return true;
		iter->old_spte = found;
	}
	return false;
}

/* What is done to leaves: those of a level or above, in a mask of gfns from `gfn` on if there is one. */
struct leaf_work {
	u64 clear, look;
	int min_level, max_level;
	u64 gfn, mask;
};

/* Leaves of the valid direct roots in a range; whether something was changed, or seen. */
static bool for_shared_leaves(struct kvm *kvm, u64 start, u64 last, const struct leaf_work *work)
{
	struct kvm_mmu_page *root;
	struct tdp_iter iter;
	bool any = false;

	for_each_root(kvm, root, DIRECT_ROOTS) {
		u64 end = last;

		kvm->env->rcu_read_lock(kvm->world);
		for_each_pte(iter, kvm, root, PG_LEVEL_4K, start, end) {
			if (!is_leaf(iter.old_spte, iter.level))
				continue;
			any |= (iter.old_spte & work->look) != 0;
			if (!work->clear || iter.level < work->min_level || iter.level > work->max_level)
				continue;
			if (work->mask && !(work->mask >> (iter.gfn - work->gfn) & 1))
				continue;
			any |= clear_bits(&iter, work->clear);
		}
		kvm->env->rcu_read_unlock(kvm->world);
	}
	return any;
}

static int tdp_age_gfn_range(void *self, u64 start, u64 end)
{
	return for_shared_leaves(self, start, end, &(struct leaf_work){ .clear = SPTE_ACCESSED, .max_level = MAX_LEVEL });
}

static int tdp_test_age_gfn(void *self, u64 start, u64 end)
{
	return for_shared_leaves(self, start, end, &(struct leaf_work){ .look = SPTE_ACCESSED });
}

static struct tdp_mirror_memslot get_slot(struct kvm *kvm, int slot)
{
	struct tdp_mirror_memslot found = { .slot = slot };

	kvm->env->memslot_by_id(kvm->world, slot, &found);
	return found;
}

static int tdp_wrprot_slot(void *self, int slot, int min_level)
{
	struct tdp_mirror_memslot found = get_slot(self, slot);

	return for_shared_leaves(self, found.base, found.base + found.npages, &(struct leaf_work){
		.clear = SPTE_WRITABLE, .min_level = min_level, .max_level = MAX_LEVEL });
}

static void tdp_clear_dirty_slot(void *self, int slot)
{
	struct tdp_mirror_memslot found = get_slot(self, slot);

	for_shared_leaves(self, found.base, found.base + found.npages,
			  &(struct leaf_work){ .clear = SPTE_DIRTY, .max_level = MAX_LEVEL });
}

static void tdp_clear_dirty_masked(void *self, int slot, u64 gfn, u64 mask, int wrprot)
{
	u64 length = mask ? 64 - __builtin_clzll(mask) : 0;

	(void)slot;
	for_shared_leaves(self, gfn, gfn + length, &(struct leaf_work){
		.clear = wrprot ? SPTE_WRITABLE : SPTE_DIRTY, .max_level = PG_LEVEL_4K, .gfn = gfn, .mask = mask });
}

static int tdp_write_protect_gfn(void *self, int slot, u64 gfn, int min_level)
{
	(void)slot;
	return for_shared_leaves(self, gfn, gfn + 1, &(struct leaf_work){
		.clear = SPTE_WRITABLE | BIT(MMU_WRITABLE), .min_level = min_level, .max_level = MAX_LEVEL });
}

static struct kvm_mmu_page *alloc_sp_for_split(struct kvm *kvm)
{
	u64 header = kvm->env->page_alloc(kvm->world, HEADER, 0), spt;

	if (!header)
		return NULL;
	spt = kvm->env->page_alloc(kvm->world, TABLE, NONPRESENT);
	if (!spt) {
		kvm->env->page_free(kvm->world, header);
		return NULL;
	}
	return new_page(spt, header, false, 0, 0);
}

/* Without the lock, and so the walk begins anew. */
static struct kvm_mmu_page *alloc_unlocked(struct tdp_iter *iter)
{
	struct kvm *kvm = iter->kvm;
	struct kvm_mmu_page *child;

	kvm->env->rcu_read_unlock(kvm->world);
	kvm->env->read_unlock(kvm->world);
	child = alloc_sp_for_split(kvm);
	kvm->env->read_lock(kvm->world);
	kvm->env->rcu_read_lock(kvm->world);
	if (child)
		child->level = iter->level - 1;
	iter->yielded = true;
	return child;
}

/* False without memory. */
static bool split_root(struct kvm *kvm, struct kvm_mmu_page *root, u64 start, u64 end, int target_level)
{
	struct kvm_mmu_page *child = NULL;
	struct tdp_iter iter;
	bool is_known = false;	/* the child is among the tables, though it is not linked */

	kvm->env->rcu_read_lock(kvm->world);
	for_each_pte(iter, kvm, root, target_level + 1, start, end) {
		if (!is_leaf(iter.old_spte, iter.level))
			continue;
		if (!child || child->level != iter.level - 1) {
			child = alloc_unlocked(&iter);
			if (!child) {
				kvm->env->rcu_read_unlock(kvm->world);
				return false;
			}
			continue;
		}
		child->gfn = iter.gfn;
		if (is_known)
			unhash_page(kvm, child);
		tdp_mmu_init_sp(kvm, child);
		is_known = true;
		fill_split(kvm, child, iter.old_spte);
		if (tdp_mmu_link_sp(kvm, iter_sp(&iter), iter.index, iter.gfn, iter.old_spte, child)) {
			iter.yielded = true;
		} else {
			child = NULL;
			is_known = false;
		}
	}
	kvm->env->rcu_read_unlock(kvm->world);
	if (child)
		tdp_mmu_free_sp(kvm, child);
	return true;
}

static void tdp_split_huge(void *self, int slot, u64 start, u64 end, int target_level)
{
	struct kvm *kvm = self;
	struct kvm_mmu_page *root;

	(void)slot;
	for_each_root(kvm, root, DIRECT_ROOTS) {
		if (!split_root(kvm, root, start, end, target_level)) {
			kvm_tdp_mmu_put_root(kvm, root);
			break;
		}
	}
}

/* Whether a table of leaves maps one aligned run of pages. */
static bool is_contiguous(struct kvm *kvm, u64 page)
{
	u64 first = pt_read(kvm, page, 0) & SPTE_PA_MASK;

	if (first >> PAGE_SHIFT & (kvm->entries - 1))
		return false;
	for (u32 index = 0; index < kvm->entries; index++) {
		u64 spte = pt_read(kvm, page, index);

		if (!is_present(spte) || (spte & SPTE_PA_MASK) != first + ((u64)index << PAGE_SHIFT))
			return false;
	}
	return true;
}

/* Zap tables whose leaves could be one huge leaf; the next fault installs it. */
static int tdp_recover_huge(void *self, int slot)
{
	struct kvm *kvm = self;
	struct tdp_mirror_memslot found = get_slot(kvm, slot);
	u64 count = pages_per_entry(kvm, PG_LEVEL_2M);
	struct kvm_mmu_page *root;
	struct tdp_iter iter;
	bool flush = false;

	for_each_root(kvm, root, DIRECT_ROOTS) {
		u64 end = found.base + found.npages;

		kvm->env->rcu_read_lock(kvm->world);
		for_each_pte(iter, kvm, root, PG_LEVEL_2M, found.base, end) {
			if (iter.level != PG_LEVEL_2M || !is_present(iter.old_spte) || is_last(iter.old_spte, iter.level))
				continue;
			if (iter.gfn < found.base || iter.gfn + count > found.base + found.npages)
				continue;
			if (kvm->env->max_mapping_level(kvm->world, slot, iter.gfn) <= PG_LEVEL_4K)
				continue;
			if (!is_contiguous(kvm, iter.old_spte & SPTE_PA_MASK))
				continue;
			tdp_mmu_set_spte(kvm, iter_sp(&iter), iter.index, iter.gfn, NONPRESENT);
			flush = true;
		}
		kvm->env->rcu_read_unlock(kvm->world);
	}
	return flush;
}

/* -- notifications, attributes, slots -- */

/* Unmap what of a range lies in slots with these flags, and flush. */
static void unmap_slots(struct kvm *kvm, u64 start, u64 end, int attr_filter, u32 need, int may_block)
{
	struct tdp_mirror_memslot slots[MAX_SLOTS];
	size_t n = MAX_SLOTS;
	int flush = 0;

	if (kvm->direct_bits)
		end = min64(end, kvm->direct_bits);
	end = min64(end, kvm->max_gfn + 1);
	if (start >= end)
		return;
	kvm->env->memslots(kvm->world, start, end, slots, &n);
	for (size_t i = 0; i < n && i < MAX_SLOTS; i++) {
		if ((slots[i].flags & need) != need)
			continue;
		flush = tdp_unmap_gfn_range(kvm, max64(start, slots[i].base),
					    min64(end, slots[i].base + slots[i].npages), attr_filter, may_block, flush);
	}
	if (flush)
		kvm->env->flush_remote_tlbs(kvm->world);
}

static void invalidate(struct kvm *kvm, u64 start, u64 end, int attr_filter, u32 need, int may_block)
{
	kvm->env->write_lock(kvm->world);
	kvm->env->mmu_invalidate_begin(kvm->world, start, end);
	unmap_slots(kvm, start, end, attr_filter, need, may_block);
	kvm->env->write_unlock(kvm->world);
	kvm->env->write_lock(kvm->world);
	kvm->env->mmu_invalidate_end(kvm->world);
	kvm->env->write_unlock(kvm->world);
}

static void tdp_hva_invalidate(void *self, u64 start, u64 end, int may_block)
{
	invalidate(self, start, end, FILTER_SHARED, 0, may_block);
}

static void tdp_gmem_invalidate(void *self, u64 start, u64 end)
{
	invalidate(self, start, end, FILTER_PRIVATE, MEM_GUEST_MEMFD, 1);
}

/* Zap the half that the pages leave, store, end. */
static int kvm_vm_set_mem_attributes(struct kvm *kvm, u64 start, u64 end, u64 attributes)
{
	u64 mask = pages_per_entry(kvm, PG_LEVEL_2M) - 1;
	int err;

	if (kvm->env->range_has_attributes(kvm->world, start, end, attributes))
		return 0;
	err = kvm->env->reserve_attributes(kvm->world, start, end);
	if (err)
		return err;
	kvm->env->write_lock(kvm->world);
	/* Potential huge pages that straddle the ends are part of it. */
	kvm->env->mmu_invalidate_begin(kvm->world, start & ~mask, (end + mask) & ~mask);
	unmap_slots(kvm, start, end, attributes & ATTRIBUTE_PRIVATE ? FILTER_SHARED : FILTER_PRIVATE, 0, 1);
	kvm->env->write_unlock(kvm->world);
	kvm->env->store_attributes(kvm->world, start, end, attributes);
	kvm->env->write_lock(kvm->world);
	kvm->env->mmu_invalidate_end(kvm->world);
	kvm->env->write_unlock(kvm->world);
	return 0;
}

static int tdp_set_attributes(void *self, u64 address, u64 size, u64 attributes, u64 flags)
{
	struct kvm *kvm = self;
	u64 supported = kvm->private ? ATTRIBUTE_PRIVATE : 0, start = address >> PAGE_SHIFT;
	int err;

	if (flags || attributes & ~supported || !size || (address | size) & 4095 || address > UINT64_MAX - (size - 1))
		return -EINVAL;
	kvm->env->slots_lock(kvm->world);
	err = kvm_vm_set_mem_attributes(kvm, start, start + (size >> PAGE_SHIFT), attributes);
	kvm->env->slots_unlock(kvm->world);
	return err;
}

/* No gfn beyond the last one or with the alias bit. */
static bool accepts_range(const struct kvm *kvm, u64 base, u64 npages)
{
	u64 last = base + npages - 1;

	if (!npages || last < base || last > kvm->max_gfn)
		return false;
	if (!kvm->direct_bits)
		return true;
	return !((base | last) & kvm->direct_bits) && base / kvm->direct_bits == last / kvm->direct_bits;
}

static int tdp_slot_create(void *self, int slot, u64 base, u64 npages, u32 flags)
{
	struct kvm *kvm = self;
	struct tdp_mirror_memslot existing;
	int err;

	if (flags & MEM_GUEST_MEMFD && (!kvm->private || flags & (MEM_LOG_DIRTY_PAGES | MEM_READONLY)))
		return -EINVAL;
	if (!accepts_range(kvm, base, npages))
		return -EINVAL;
	kvm->env->slots_lock(kvm->world);
	if (kvm->env->memslot_by_id(kvm->world, slot, &existing) && existing.flags & MEM_GUEST_MEMFD)
		err = -EINVAL;
	else
		err = kvm->env->memslot_install(kvm->world, slot, base, npages, flags);
	kvm->env->slots_unlock(kvm->world);
	return err;
}

/* From invalid on nobody new uses the slot; once its users are gone, nothing of it may stay mapped. */
static void kvm_invalidate_memslot(struct kvm *kvm, const struct tdp_mirror_memslot *slot)
{
	kvm->env->memslot_install(kvm->world, slot->slot, slot->base, slot->npages, slot->flags | SLOT_INVALID);
	kvm->env->synchronize_srcu(kvm->world);
	kvm->env->write_lock(kvm->world);
	if (tdp_unmap_gfn_range(kvm, slot->base, slot->base + slot->npages, FILTER_SHARED | FILTER_PRIVATE, 1, 0))
		kvm->env->flush_remote_tlbs(kvm->world);
	kvm->env->write_unlock(kvm->world);
}

static int tdp_slot_delete(void *self, int slot)
{
	struct kvm *kvm = self;
	struct tdp_mirror_memslot found;
	bool exists;

	kvm->env->slots_lock(kvm->world);
	exists = kvm->env->memslot_by_id(kvm->world, slot, &found);
	if (exists) {
		kvm_invalidate_memslot(kvm, &found);
		kvm->env->memslot_remove(kvm->world, slot);
	}
	kvm->env->slots_unlock(kvm->world);
	return exists ? 0 : -EINVAL;
}

/* With slots_lock held. */
static int move_slot(struct kvm *kvm, int slot, u64 base)
{
	struct tdp_mirror_memslot found;
	int err;

	if (!kvm->env->memslot_by_id(kvm->world, slot, &found) || found.flags & MEM_GUEST_MEMFD ||
	    !accepts_range(kvm, base, found.npages))
		return -EINVAL;
	if (base == found.base)
		return 0;
	err = kvm->env->memslot_install(kvm->world, slot, base, found.npages, found.flags);
	if (err)
		return err;
	kvm_invalidate_memslot(kvm, &found);
	return kvm->env->memslot_install(kvm->world, slot, base, found.npages, found.flags);
}

static int tdp_slot_move(void *self, int slot, u64 base)
{
	struct kvm *kvm = self;
	int err;

	kvm->env->slots_lock(kvm->world);
	err = move_slot(kvm, slot, base);
	kvm->env->slots_unlock(kvm->world);
	return err;
}

/* -- TDX -- */

/* A write of the private half, retried here, as the guest would only come back. */
static int tdp_ept_violation(void *self, int vcpu, u64 gpa)
{
	struct kvm *kvm = self;

	for (;;) {
		struct fault fault = new_fault(vcpu, gpa, true, true, false);
		int ret;

		if (kvm->env->vm_is_dead(kvm->world))
			return -EIO;
		ret = kvm_tdp_mmu_page_fault(kvm, &fault);
		if (ret != RET_PF_RETRY || (fault.has_slot && fault.slot.flags & SLOT_INVALID))
			return ret;
		if (kvm->env->vcpu_has_events(kvm->world, vcpu) || kvm->env->signal_pending(kvm->world))
			return kvm->env->vm_is_dead(kvm->world) ? -EIO : ret;
		kvm->env->cond_resched(kvm->world);
	}
}

static bool tdx_operand_busy(u64 status)
{
	return (status & TDX_STATUS_MASK) == TDX_OPERAND_BUSY;
}

/* 0, -EBUSY, or a VM bug and -EIO. */
static int tdx_error(struct kvm *kvm, u64 status)
{
	if (!status)
		return 0;
	if (tdx_operand_busy(status))
		return -EBUSY;
	vm_bug(kvm, "SEAMCALL failed");
	return -EIO;
}

static int tdx_error_quiet(u64 status)
{
	if (!status)
		return 0;
	return tdx_operand_busy(status) ? -EBUSY : -EIO;
}

static int tdp_sept_link(void *self, u64 gfn, int level, u64 page)
{
	struct kvm *kvm = self;

	return tdx_error(kvm, kvm->env->tdh_mem_sept_add(kvm->world, gfn << PAGE_SHIFT, level - 1, page));
}

/* Before finalize the page is only counted; init_mem_region adds it. */
static int tdx_mem_page_record_premap_cnt(struct kvm *kvm)
{
	if (kvm->env->pre_fault_allowed(kvm->world)) {
		vm_bug(kvm, "prefault before finalize");
		return -EIO;
	}
	kvm->env->premapped(kvm->world, 1);
	return 0;
}

static int tdp_sept_set(void *self, u64 gfn, int level, u64 pfn)
{
	struct kvm *kvm = self;
	int err;

	if (level != PG_LEVEL_4K) {
		vm_bug(kvm, "private leaf above 4K");
		return -EIO;
	}
	kvm->env->page_pin(kvm->world, pfn);
	if (kvm->env->td_state(kvm->world) == TD_RUNNABLE)
		err = tdx_error(kvm, kvm->env->tdh_mem_page_aug(kvm->world, gfn << PAGE_SHIFT, 0, pfn));
	else
		err = tdx_mem_page_record_premap_cnt(kvm);
	if (err && (DEFECT != 4 || kvm->env->td_state(kvm->world) == TD_RUNNABLE))
		kvm->env->page_unpin(kvm->world, pfn);
	return err;
}

enum seamcall { RANGE_BLOCK, TRACK, PAGE_REMOVE };

static u64 seamcall(struct kvm *kvm, enum seamcall call, u64 gpa, int level)
{
	switch (call) {
	case RANGE_BLOCK:
		return kvm->env->tdh_mem_range_block(kvm->world, gpa, level);
	case TRACK:
		return kvm->env->tdh_mem_track(kvm->world);
	default:
		return kvm->env->tdh_mem_page_remove(kvm->world, gpa, level);
	}
}

/* One that needs exclusive access: when busy, keep vCPUs out and try once more. */
static u64 seamcall_exclusive(struct kvm *kvm, enum seamcall call, u64 gpa, int level)
{
	u64 status = seamcall(kvm, call, gpa, level);

	if (!tdx_operand_busy(status))
		return status;
	kvm->env->wait_for_sept_zap(kvm->world, 1);
	kvm->env->make_all_cpus_request(kvm->world, REQ_OUTSIDE_GUEST);
	status = seamcall(kvm, call, gpa, level);
	kvm->env->wait_for_sept_zap(kvm->world, 0);
	return status;
}

static u64 tdx_track(struct kvm *kvm)
{
	u64 status;

	if (kvm->env->td_state(kvm->world) != TD_RUNNABLE)
		return 0;
	status = seamcall_exclusive(kvm, TRACK, 0, 0);
	kvm->env->make_all_cpus_request(kvm->world, REQ_OUTSIDE_GUEST);
	return status;
}

/* Block, track, kick, remove, clean. */
static int tdp_sept_remove(void *self, u64 gfn, int level, u64 pfn)
{
	struct kvm *kvm = self;
	u64 gpa = gfn << PAGE_SHIFT, status;

	if (!kvm->env->hkid_assigned(kvm->world)) {
		vm_bug(kvm, "no HKID");
		return -EIO;
	}
	status = seamcall_exclusive(kvm, RANGE_BLOCK, gpa, level - 1);
	if (status == (TDX_EPT_ENTRY_STATE_INCORRECT | TDX_OPERAND_ID_RCX) &&
	    kvm->env->td_state(kvm->world) != TD_RUNNABLE) {
		/* The page was counted, and never added. */
		kvm->env->premapped(kvm->world, -1);
		kvm->env->page_unpin(kvm->world, pfn);
		return 0;
	}
	if (status || tdx_track(kvm)) {
		vm_bug(kvm, "private page not blocked");
		return -EIO;
	}
	if (seamcall_exclusive(kvm, PAGE_REMOVE, gpa, level - 1)) {
		vm_bug(kvm, "private page not removed");
		return -EIO;
	}
	kvm->env->tdh_phymem_page_wbinvd(kvm->world, pfn);
	kvm->env->clear_page(kvm->world, pfn);
	kvm->env->page_unpin(kvm->world, pfn);
	return 0;
}

static int tdp_sept_free(void *self, u64 gfn, int level, u64 page)
{
	struct kvm *kvm = self;

	(void)gfn, (void)level;
	if (kvm->env->hkid_assigned(kvm->world)) {
		vm_bug(kvm, "HKID still assigned");
		return -EIO;
	}
	if (kvm->env->tdh_phymem_page_reclaim(kvm->world, page)) {
		vm_bug(kvm, "page not reclaimed");
		return -EIO;
	}
	return 0;
}

static int tdx_gmem_post_populate(struct kvm *kvm, int vcpu, u64 gpa)
{
	u64 sptes[MAX_LEVEL];
	int n, err = -ENOENT;

	kvm->env->read_lock(kvm->world);
	n = kvm_tdp_mmu_get_walk(kvm, vcpu, gpa, sptes);
	if (n && is_present(sptes[n - 1]))
		err = tdx_error_quiet(kvm->env->tdh_mem_page_add(kvm->world, gpa, spte_to_pfn(sptes[n - 1])));
	if (!err)
		kvm->env->premapped(kvm->world, -1);
	kvm->env->read_unlock(kvm->world);
	return err;
}

static int tdp_init_mem_region(void *self, int vcpu, u64 gpa)
{
	struct kvm *kvm = self;
	int err;

	kvm->env->slots_lock(kvm->world);
	if (kvm->env->td_state(kvm->world) == TD_RUNNABLE) {
		kvm->env->slots_unlock(kvm->world);
		return -EINVAL;
	}
	kvm->env->srcu_read_lock(kvm->world);
	err = kvm_tdp_map_page(kvm, vcpu, gpa, true);
	if (err >= 0)
		err = tdx_gmem_post_populate(kvm, vcpu, gpa);
	kvm->env->srcu_read_unlock(kvm->world);
	kvm->env->slots_unlock(kvm->world);
	return err;
}

/* With slots_lock held, so that no page is being added. */
static int finalize(struct kvm *kvm)
{
	int err;

	if (kvm->env->td_state(kvm->world) != TD_INIT || !kvm->env->hkid_assigned(kvm->world) ||
	    kvm->env->premapped(kvm->world, 0))
		return -EINVAL;
	err = tdx_error_quiet(kvm->env->tdh_mr_finalize(kvm->world));
	if (!err) {
		kvm->env->set_td_state(kvm->world, TD_RUNNABLE);
		kvm->env->allow_pre_fault(kvm->world);
	}
	return err;
}

static int tdp_td_finalize(void *self)
{
	struct kvm *kvm = self;
	int err;

	kvm->env->slots_lock(kvm->world);
	err = finalize(kvm);
	kvm->env->slots_unlock(kvm->world);
	return err;
}

/* -- the module -- */

static void tdp_destroy(void *self)
{
	struct kvm *kvm = self;

	for (int i = 0; i < HASH_SIZE; i++) {
		while (kvm->pages[i]) {
			struct kvm_mmu_page *sp = kvm->pages[i];

			kvm->pages[i] = sp->hash_next;
			free(sp);
		}
	}
	free(kvm->root_hpa);
	free(kvm->mirror_root_hpa);
	free(kvm);
}

static void *tdp_create(const struct tdp_mirror_env *env, void *world)
{
	struct kvm *kvm = calloc(1, sizeof(*kvm));
	int vcpus = DEFECT == 8 ? 1 : MAX_VCPUS;

	if (!kvm)
		return NULL;
	kvm->env = env;
	kvm->world = world;
	kvm->root_level = 4;
	kvm->index_bits = 9;
	kvm->entries = 512;
	kvm->root_hpa = malloc(vcpus * sizeof(*kvm->root_hpa));
	kvm->mirror_root_hpa = malloc(vcpus * sizeof(*kvm->mirror_root_hpa));
	if (!kvm->root_hpa || !kvm->mirror_root_hpa) {
		tdp_destroy(kvm);
		return NULL;
	}
	for (int vcpu = 0; vcpu < vcpus; vcpu++)
		kvm->root_hpa[vcpu] = kvm->mirror_root_hpa[vcpu] = INVALID_PAGE;
	return kvm;
}

const struct tdp_mirror_driver tdp_mirror_driver = {
	.abi_version = TDP_MIRROR_ABI,
	.profile = "upstream",
	.capabilities = "small-tables seamcalls tables-of-512 log-dirty",
	.create = tdp_create,
	.destroy = tdp_destroy,
	.vm_init = tdp_vm_init,
	.vcpu_create = tdp_vcpu_create,
	.vcpu_destroy = tdp_vcpu_destroy,
	.mmu_reload = tdp_mmu_reload,
	.mmu_unload = tdp_mmu_unload,
	.free_obsolete_roots = tdp_free_obsolete_roots,
	.root_match = tdp_root_match,
	.filter_to_types = tdp_filter_to_types,
	.addr_is_direct = tdp_addr_is_direct,
	.gfn_is_alias = tdp_gfn_is_alias,
	.select_root = tdp_select_root,
	.page_fault = tdp_page_fault,
	.tdp_map = tdp_tdp_map,
	.faultin_pfn = tdp_faultin_pfn,
	.prefault = tdp_prefault,
	.ept_violation = tdp_ept_violation,
	.fast_pf = tdp_fast_pf,
	.get_walk = tdp_get_walk,
	.gpa_is_mapped = tdp_gpa_is_mapped,
	.zap_leafs = tdp_zap_leafs,
	.unmap_gfn_range = tdp_unmap_gfn_range,
	.age_gfn_range = tdp_age_gfn_range,
	.test_age_gfn = tdp_test_age_gfn,
	.wrprot_slot = tdp_wrprot_slot,
	.clear_dirty_slot = tdp_clear_dirty_slot,
	.clear_dirty_masked = tdp_clear_dirty_masked,
	.write_protect_gfn = tdp_write_protect_gfn,
	.split_huge = tdp_split_huge,
	.recover_huge = tdp_recover_huge,
	.zap_sp = tdp_zap_sp,
	.invalidate_roots = tdp_invalidate_roots,
	.zap_invalidated_roots = tdp_zap_invalidated_roots,
	.zap_all_fast = tdp_zap_all_fast,
	.zap_all = tdp_zap_all,
	.vm_uninit = tdp_vm_uninit,
	.set_attributes = tdp_set_attributes,
	.hva_invalidate = tdp_hva_invalidate,
	.gmem_invalidate = tdp_gmem_invalidate,
	.slot_create = tdp_slot_create,
	.slot_delete = tdp_slot_delete,
	.slot_move = tdp_slot_move,
	.rcu_callback = tdp_rcu_callback,
	.sept_link = tdp_sept_link,
	.sept_set = tdp_sept_set,
	.sept_remove = tdp_sept_remove,
	.sept_free = tdp_sept_free,
	.init_mem_region = tdp_init_mem_region,
	.td_finalize = tdp_td_finalize,
};
