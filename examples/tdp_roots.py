"""The roots and slots of a TDP MMU in ninety lines, which maps nothing yet: a first draft, with what it gets wrong.

conformance run tdp_mirror --candidate examples/tdp_roots.py:Roots
"""

EIO, EINVAL = 5, 22
NO_ROOT = 2**64 - 1
DIRECT, MIRROR = 2, 4  # types of roots
HEADER, TABLE, EXTERNAL = range(3)  # what the caches of a vCPU hold
NONPRESENT = 1 << 63
RETRY, INVALID = 1, 4  # what faults come to
ROLE_DIRECT, ROLE_ACCESS, ROLE_MIRROR = 1 << 7, 7 << 8, 1 << 19


def not_yet(_self, *_args):
    """Nothing is mapped, so there is nothing to be done."""
    return 0


class Roots:
    """What vCPUs load and drop; `port` has the tables, the locks and RCU."""

    capabilities = frozenset({"small-tables"})  # no SEAMCALLs, no tables of 512 entries

    def __init__(self, port):
        self.port, self.root, self.mirror_root, self.headers = port, {}, {}, {}

    def vm_init(self, mirror, direct_bits, root_level, index_bits, max_gfn, private):
        self.mirror, self.alias, self.level, self.max_gfn = mirror, direct_bits, root_level, max_gfn
        return 0

    def vcpu_create(self, vcpu):
        self.root[vcpu] = self.mirror_root[vcpu] = NO_ROOT
        return 0

    def mmu_reload(self, vcpu):
        for kind in (HEADER, TABLE, EXTERNAL):
            error = self.port.cache_topup(vcpu, kind, 2, NONPRESENT)
            if error:
                return error
        if self.mirror:
            self.mirror_root[vcpu] = self.new_root(vcpu, ROLE_MIRROR, 1)
        self.root[vcpu] = self.new_root(vcpu, ROLE_DIRECT, 0)
        self.port.load_pgd(vcpu, self.root[vcpu], self.level)
        return 0

    def new_root(self, vcpu, role, mirror):
        header, page = self.port.cache_alloc(vcpu, HEADER), self.port.cache_alloc(vcpu, TABLE)
        self.headers[page] = header
        self.port.sp_init(page, header, role | ROLE_DIRECT | ROLE_ACCESS | self.level, 0, 0)
        self.port.refcount_set(page, 1)
        self.port.pages_lock()
        self.port.roots_add(page)
        self.port.pages_unlock()
        self.port.vcpu_root(vcpu, mirror, page)
        return page

    def drop(self, vcpu, roots, mirror):
        page, roots[vcpu] = roots[vcpu], NO_ROOT
        if page != NO_ROOT:
            self.port.vcpu_root(vcpu, mirror, NO_ROOT)
            if self.port.refcount_dec_and_test(page):
                self.port.pages_lock()
                self.port.roots_del(page)
                self.port.pages_unlock()
                self.rcu_callback(page)

    def mmu_unload(self, vcpu):
        self.drop(vcpu, self.root, 0)

    def vcpu_destroy(self, vcpu):
        self.drop(vcpu, self.root, 0)
        self.drop(vcpu, self.mirror_root, 1)
        self.port.cache_free(vcpu)

    def rcu_callback(self, page):
        self.port.page_free(page)
        self.port.page_free(self.headers.pop(page))

    def root_match(self, mirror, invalid, types):
        return int(bool(types & (MIRROR if mirror else DIRECT)))

    def filter_to_types(self, attr_filter):
        return (DIRECT if attr_filter & 1 else 0) | (MIRROR if attr_filter & 2 else 0)

    def select_root(self, vcpu, types):
        return self.mirror_root[vcpu] if types & MIRROR else self.root[vcpu]

    def gfn_is_alias(self, gfn):
        return int(bool(gfn & self.alias))

    def addr_is_direct(self, gpa):
        return self.gfn_is_alias(gpa >> 12)

    def slot_create(self, slot, base, npages, flags):
        if base + npages > self.max_gfn:
            return -EINVAL
        self.port.slots_lock()
        error = self.port.memslot_install(slot, base, npages, flags)
        self.port.slots_unlock()
        return error

    def page_fault(self, vcpu, gpa, error_code, prefetch):
        return RETRY

    def fast_pf(self, vcpu, gpa, error_code):
        return INVALID

    def get_walk(self, vcpu, gpa):
        return ()

    def ept_violation(self, vcpu, gpa):
        return RETRY

    tdp_map = faultin_pfn = prefault = not_yet
    free_obsolete_roots = gpa_is_mapped = zap_leafs = unmap_gfn_range = age_gfn_range = test_age_gfn = not_yet
    wrprot_slot = clear_dirty_slot = clear_dirty_masked = write_protect_gfn = split_huge = recover_huge = not_yet
    zap_sp = invalidate_roots = zap_invalidated_roots = zap_all_fast = zap_all = vm_uninit = not_yet
    set_attributes = hva_invalidate = gmem_invalidate = slot_delete = slot_move = not_yet
