"""Defects of the correct MMU: each class has one thing wrong, so that the clause it breaks can be named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault, ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import (
    ACCESSED,
    DIRTY,
    PA_MASK,
    WRITABLE,
    is_last,
    is_present,
)
from conformance.candidates.builtin.tdp_mirror.upstream.tdp_iter import Iter
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import FROZEN, INVALID_PAGE


class MirrorReferenceLeak(Upstream):
    """Obtains the mirror root on every load."""

    def alloc_roots(self, vcpu: int) -> None:
        """Both, always."""
        if self.mirror:
            self.alloc_root(vcpu, True)
        self.alloc_root(vcpu, False)


class MirrorRootReplaced(MirrorReferenceLeak):
    """The fast zap invalidates every root; the next load takes a new mirror root."""

    def zap_all_fast(self) -> None:
        """Mirrors as well."""
        port = self.port
        port.write_lock()
        self.invalidate_roots(k.DIRECT_ROOTS | k.MIRROR_ROOTS)
        port.make_all_cpus_request(k.REQ_FREE_OBSOLETE_ROOTS)
        port.write_unlock()
        self.zap_invalidated_roots()


class SpinsOnMirror(Upstream):
    """A zap that shares the lock repeats a refused exchange for ever."""

    def gives_up(self) -> bool:
        """Never."""
        return False


class UninitSharesLock(SpinsOnMirror):
    """Zaps at the end of the VM under the read lock."""

    def vm_uninit(self) -> None:
        """Mirrors refuse to be zapped like that."""
        self.invalidate_roots(k.DIRECT_ROOTS | k.MIRROR_ROOTS)
        self.zap_scheduled(shared=True)
        self.port.rcu_barrier()


class ZapAllTakesMirrors(Upstream):
    """mmu_notifier release zaps any root."""

    def zap_all(self) -> None:
        """Private memory goes as well."""
        self.port.write_lock()
        for root in self.each_root(self.all_types):
            self.zap_root(root, False)
        self.port.write_unlock()


class NotifierHitsPrivate(Upstream):
    """unmap looks at every root, whatever the filter."""

    def filter_to_types(self, attr_filter: int) -> int:
        """Both, when asked by an unmap of the shared half."""
        types = super().filter_to_types(attr_filter)
        return types | k.MIRROR_ROOTS if self.in_unmap and self.mirror else types

    in_unmap = False

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """The notifier does not say which half it means."""
        self.in_unmap = True
        super().hva_invalidate(start, end, may_block)
        self.in_unmap = False


class RangeZapHitsPrivate(Upstream):
    """A host event zaps any valid root."""

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """Both halves."""
        due = bool(flush)
        for root in self.each_root(k.DIRECT_ROOTS | k.MIRROR_ROOTS):
            due = self.zap_leafs_root(root, start, end, True, due)
        return int(due)


class HelpersWalkMirrors(Upstream):
    """Write protection, aging and dirty logging walk mirrors."""

    def shared_types(self) -> int:
        """Both kinds."""
        return k.DIRECT_ROOTS | k.MIRROR_ROOTS


class SplitsMirror(Upstream):
    """Complains about a huge mirror leaf, and splits it."""

    def splits_mirror(self) -> bool:
        """On with it."""
        self.port.vm_bug("huge leaf in a mirror")
        return True

    def set_spte_atomic(self, sp: ShadowPage, index: int, gfn: int, old: int, new: int) -> tuple[int, int]:
        """The seed exchanges mirror entries like any other."""
        if sp.mirror and is_present(old):
            found: int = self.port.pt_cmpxchg(sp.page, index, old, new)
            return (0, old) if found == old else (-k.EBUSY, found)
        return super().set_spte_atomic(sp, index, gfn, old, new)


class HugeMirrorLeaf(Upstream):
    """Nothing refuses a leaf of 2M under a mirror."""

    def refuses_level(self, root: ShadowPage, fault: Fault) -> bool:
        """Nobody looks."""
        return False


class FastPathTakesPrivate(Upstream):
    """The fast path answers private faults from the shared half."""

    def can_be_fast(self, gpa: int, error_code: int) -> bool:
        """Anything may be fast."""
        return True


class FastPathKeyWithAlias(Upstream):
    """The fast path looks up the address with its alias bit."""

    def fast_key(self, gpa: int) -> int:
        """The bit is added once more by the walk, whose start is then beyond its bound."""
        return gpa >> 12

    def last_spte(self, root: int, gfn: int) -> tuple[int, int, int] | None:
        """An empty walk."""
        if self.bits and gfn >= self.bits:
            self.port.warn_once("walk starts beyond the direct bits")
            return None
        return super().last_spte(root, gfn)


class SelectsByEquality(Upstream):
    """The mirror root is selected by exactly MIRROR."""

    def select_root(self, vcpu: int, types: int) -> int:
        """A validity bit flips the answer."""
        if types == k.MIRROR_ROOTS and self.mirror:
            return self.mirror_root_hpa[vcpu]
        return self.root_hpa[vcpu]


class EmptyFilterSilent(Upstream):
    """An unmap without a filter zaps nothing and says nothing."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """Fails open."""
        return super().unmap_gfn_range(start, end, attr_filter, may_block, flush) if attr_filter else flush


class RootByAccess(Upstream):
    """Chooses the root by PRIVATE_ACCESS and never compares it with the address."""

    def halves_disagree(self, fault: Fault) -> bool:
        """Nobody looks."""
        return False

    def fault_root(self, fault: Fault) -> int:
        """By is_private."""
        if self.mirror and fault.private:
            return self.mirror_root_hpa[fault.vcpu]
        return self.root_hpa[fault.vcpu]


class NoRcuDereference(Upstream):
    """Looks at a table before it enters the RCU read section."""

    def tdp_mmu_map(self, fault: Fault) -> int:
        """The role of the root's first table, without RCU."""
        root = self.fault_root(fault)
        if root != INVALID_PAGE:
            self.port.pt_read(root, 0)
        return super().tdp_mmu_map(fault)


class NoMirrorGuard(Upstream):
    """Walks whatever mirror_root_hpa holds."""

    def tdp_map(self, vcpu: int, gpa: int, pfn: int, is_private: int, write: int, goal_level: int) -> int:
        """All ones are no table."""
        root = self.mirror_root_hpa[vcpu] if is_private else self.root_hpa[vcpu]
        if root == INVALID_PAGE:
            self.port.pt_read(root, 0)
        return super().tdp_map(vcpu, gpa, pfn, is_private, write, goal_level)


class StaleCompare(Upstream):
    """Compares again with the value that just failed."""

    def after_failure(self, _old: int, found: int) -> int:
        """The stale one."""
        return _old


class SetsPresentAgain(Upstream):
    """Complains about a present mirror entry, then freezes it and calls the external tree."""

    def splits_mirror(self) -> bool:
        """So that a present entry is met at all."""
        return True

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """No return after the complaint."""
        port = self.port
        if is_present(old):
            port.vm_bug("mirror entry is already present")
        if port.pt_cmpxchg(page, index, old, FROZEN) != old:
            return -k.EBUSY
        error: int
        if is_last(new, level):
            error = port.ext_set(gfn, level, (new & PA_MASK) >> 12)
        else:
            error = port.ext_link(gfn, level, self.sps[new & PA_MASK].external)
        port.pt_store(page, index, old if error else new)
        return error


class FlushLostOnSkip(Upstream):
    """Skipping the private root forgets that a flush is due."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """False for a skipped root."""
        due = bool(flush)
        for root in self.each_root(self.all_types):
            if self.mirror and root.mirror and not attr_filter & k.FILTER_PRIVATE:
                due = False
            elif not self.mirror or attr_filter & (k.FILTER_PRIVATE if root.mirror else k.FILTER_SHARED):
                due = self.zap_leafs_root(root, start, end, bool(may_block), due)
        return int(due)


class InvalidMatchesAnyKind(Upstream):
    """An invalid root belongs to all types that include invalid ones."""

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """Without its kind."""
        if invalid and types & (k.DIRECT_ROOTS | k.MIRROR_ROOTS):
            return int(bool(types & k.TYPE_VALIDITY))
        return super().root_match(mirror, invalid, types)


class UnmapForgetsInvalid(Upstream):
    """unmap leaves invalid roots alone."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """Valid ones only."""
        due = bool(flush)
        for root in self.each_root(self.filter_to_types(attr_filter)):
            due = self.zap_leafs_root(root, start, end, bool(may_block), due)
        return int(due)


class AttributeNotPassed(Upstream):
    """The step before a conversion does not see the new attribute."""

    def old_half(self, attributes: int) -> int:
        """As for attribute 0."""
        return k.FILTER_PRIVATE


class RemovesAbsentLeaf(Upstream):
    """The removal helper trusts its caller."""

    def zap_leafs_root(self, root: ShadowPage, start: int, end: int, can_yield: bool, flush: bool) -> bool:
        """Any entry of level 1 of a mirror."""
        if not root.mirror:
            return super().zap_leafs_root(root, start, end, can_yield, flush)
        self.port.rcu_read_lock()
        for it in self.walk(root, start, min(end, self.max_gfn + 1)):
            if it.level == 1 and not is_present(it.old_spte):
                self.remove_external(it.gfn, 1, it.old_spte)
            elif is_present(it.old_spte) and is_last(it.old_spte, it.level):
                self.set_spte(self.sps[it.page], it.index, it.gfn, k.NONPRESENT)
                flush = True
        self.port.rcu_read_unlock()
        return flush


class WrongErrno(Upstream):
    """EINVAL for what is a VM bug."""

    def bug_error(self) -> int:
        """The old class."""
        return -k.EINVAL


class PinLeak(Upstream):
    """Keeps the reference to a page that it refuses."""

    def unpin_after_error(self, pfn: int) -> None:
        """Only where a SEAMCALL refused it."""
        if self.port.td_state() == k.TD_RUNNABLE:
            self.port.page_unpin(pfn)


class PremapMiscount(Upstream):
    """A premapped page that is zapped stays counted."""

    def forget_premapped(self, pfn: int) -> None:
        """Without the decrement."""
        self.port.page_unpin(pfn)


class ReloadIgnoresObsolete(Upstream):
    """A load keeps a root that is obsolete."""

    def mmu_reload(self, vcpu: int) -> int:
        """Only when there is none."""
        return 0 if self.root_hpa[vcpu] != INVALID_PAGE else self.mmu_load(vcpu)


class PrefaultWaitsForDeletion(Upstream):
    """Prefault repeats while the slot is being deleted."""

    def faultin(self, fault: Fault) -> int:
        """RETRY for everybody."""
        result = super().faultin(fault)
        return k.RET_PF_RETRY if result == -k.EAGAIN else result


class ViolationWaitsForDeletion(Upstream):
    """A private violation repeats while the slot is being deleted."""

    def handle_fault(self, fault: Fault) -> int:
        """Forget the slot."""
        result = super().handle_fault(fault)
        if result == k.RET_PF_RETRY:
            fault.slot = ()
        return result


class HugeLeafOverMixedRange(Upstream):
    """Decides on the level early, and invalidates just the range that changes."""

    def faultin(self, fault: Fault) -> int:
        """The level as it was when the page was resolved."""
        result = super().faultin(fault)
        if result == k.RET_PF_CONTINUE:
            fault.goal_level = super().hugepage_level(fault)
        return result

    def hugepage_level(self, fault: Fault) -> int:
        """Not looked at again."""
        return fault.goal_level

    def invalidated_range(self, start: int, end: int) -> tuple[int, int]:
        """Without what straddles its ends."""
        return start, end


class AddressWraps(Upstream):
    """An address that the root cannot name is mapped where it wraps to."""

    def is_unmappable(self, gfn: int) -> bool:
        """Never."""
        return False


class AliasCheckedAtEnd(Upstream):
    """Looks at the last gfn of a slot only."""

    def accepts_range(self, base: int, npages: int) -> bool:
        """The first one may be an alias."""
        last = base + npages - 1
        return npages > 0 and last <= self.max_gfn and not last & self.bits


class PromotesMirror(SetsPresentAgain):
    """Replaces a table of a mirror by a huge leaf."""

    def splits_mirror(self) -> bool:
        """Not this time."""
        return False

    def refuses_level(self, root: ShadowPage, fault: Fault) -> bool:
        """Where a table is."""
        return root.mirror and fault.goal_level > 1 and not self.has_table(root, fault)

    def has_table(self, root: ShadowPage, fault: Fault) -> bool:
        """Whether the goal level holds a table."""
        self.port.rcu_read_lock()
        page, found = root.page, False
        for level in range(self.levels, fault.goal_level - 1, -1):
            spte = self.port.pt_read(page, self.index_of(fault.gfn, level))
            found = is_present(spte)
            if not found:
                break
            page = spte & PA_MASK
        self.port.rcu_read_unlock()
        return found


class BusyBlockIgnored(Upstream):
    """Goes on when blocking was refused as busy."""

    def insist(self, call: Any, *args: int) -> int:
        """Once, and a busy answer is as good as any."""
        status: int = call(*args)
        return 0 if self.status(status) == k.TDX_OPERAND_BUSY else status


class PageFreedWhileOwned(Upstream):
    """Takes no care of a page whose removal failed."""

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """The reference goes in any case."""
        error = super().sept_remove(gfn, level, pfn)
        if error and self.port.hkid_assigned():
            self.port.page_unpin(pfn)
        return error


class RefusesHugeSilently(Upstream):
    """A huge leaf in a mirror is met, and nobody is told."""

    def build_table(self, sp: ShadowPage, index: int, spte: int, fault: Fault) -> int:
        """Refused, as if it were nothing."""
        if is_present(spte) and sp.mirror:
            return -k.EIO
        return super().build_table(sp, index, spte, fault)


class SequenceOf32Bits(Upstream):
    """Keeps the invalidation sequence in 32 bits."""

    def is_stale(self, fault: Fault) -> bool:
        """What a u32 of it says."""
        fault.seq &= 2**32 - 1
        return super().is_stale(fault)


class ZapsUpToLastGfn(Upstream):
    """Zaps a root in steps of its entries, as many as fit into the address space."""

    def walk_all(self, root: ShadowPage, min_level: int) -> Iterator[Iter]:
        """The last entry of the root is left out where the last gfn lies within it."""
        step = self.pages_per_entry(root.level)
        end = (self.max_gfn + 1) // step * step
        for it in super().walk_all(root, min_level):
            if it.gfn & ~self.bits < end:
                yield it


class SplitCleansLeaves(Upstream):
    """The small leaves of a huge one that was dirty are clean."""

    def fill_split(self, child: ShadowPage, huge: int) -> None:
        """As if nobody had written."""
        super().fill_split(child, huge & ~DIRTY)


class PrefetchIsAccessed(Upstream):
    """A leaf that is mapped ahead of time counts as accessed."""

    def make_spte(self, fault: Fault, level: int, mirror: bool) -> int:
        """Like any other."""
        return super().make_spte(fault, level, mirror) | ACCESSED


class FlushOfRootBefore(Upstream):
    """Each root is zapped on its own, the newest first; what is due from the one before is remembered beside it."""

    def new_root(self, vcpu: int, mirror: bool) -> ShadowPage:
        """As list_add puts it: at the head."""
        root = super().new_root(vcpu, mirror)
        self.roots.insert(0, self.roots.pop())
        return root

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """A yield in a later root flushes nothing of an earlier one."""
        due = bool(flush)
        for root in self.each_root(self.filter_to_types(attr_filter) | self.invalid_too):
            due |= self.zap_leafs_root(root, start, end, bool(may_block), False)
        return int(due)


class ClearsBitsOfGone(Upstream):
    """Clears bits by an exchange with what was read before, whatever has become of the entry."""

    def clear_bits(self, it: Iter, bits: int) -> bool:
        """Without a comparison."""
        new = it.old_spte & ~bits
        if new == it.old_spte:
            return False
        self.port.pt_xchg(it.page, it.index, new)
        return True


class RemovedTablesStayOpen(Upstream):
    """Entries of removed tables are emptied, and whoever is late fills them again."""

    def remove_entry(self, sp: ShadowPage, index: int, shared: bool) -> int:
        """NONPRESENT where FROZEN is meant."""
        old: int = self.port.pt_xchg(sp.page, index, k.NONPRESENT)
        return old


class PageBeforeSnapshot(Upstream):
    """Resolves the page behind a gfn, then looks at the sequence."""

    def get_pfn(self, fault: Fault) -> int:
        """A change in between is not noticed."""
        result = super().get_pfn(fault)
        fault.seq = self.port.mmu_invalidate_seq()
        return result


class InvalidatesFirstSlot(Upstream):
    """A conversion invalidates the first slot that it meets, and converts them all."""

    def invalidated_range(self, start: int, end: int) -> tuple[int, int]:
        """As far as that slot goes."""
        slots = self.port.memslots(start, min(end, self.max_gfn + 1))
        return (max(start, slots[0][1]), min(end, slots[0][1] + slots[0][2])) if slots else (start, end)


class NeverTracks(Upstream):
    """A running TD's page is removed as soon as it is blocked."""

    def track(self) -> int:
        """vCPUs may still translate it."""
        return 0


class FailsWhereNothingFailed(Upstream):
    """Finds a VM dead that is not."""

    def handle_fault(self, fault: Fault) -> int:
        """A second fault of a vCPU."""
        if fault.write and self.gpa_was_mapped(fault):
            return -k.EIO
        return super().handle_fault(fault)

    def gpa_was_mapped(self, fault: Fault) -> bool:
        """Whether there is a leaf."""
        self.port.read_lock()
        mapped = self.gpa_is_mapped(fault.vcpu, fault.gpa)
        self.port.read_unlock()
        return bool(mapped)


class ViolationSpinsOnDead(Upstream):
    """A violation is tried again though the VM is dead."""

    def ept_violation(self, vcpu: int, gpa: int) -> int:
        """Until it is not RETRY."""
        result = k.RET_PF_RETRY
        while result == k.RET_PF_RETRY:
            result = self.handle_fault(Fault(vcpu, gpa, True, True, False))
        return result


class RefusedMoveForgets(Upstream):
    """A slot that cannot be moved is gone."""

    def move_slot(self, slot: int, base: int) -> int:
        """Removed before the new place is looked at."""
        found = self.port.memslot_by_id(slot)
        if found and not found[3] & k.MEM_GUEST_MEMFD and not self.accepts_range(base, found[2]):
            self.zap_slot(found[1], found[2])
            self.port.memslot_remove(slot)
            return -k.EINVAL
        return super().move_slot(slot, base)


class ResizesGuestMemory(Upstream):
    """A slot of guest memory that is created again gets the new size."""

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """Modified."""
        found = self.port.memslot_by_id(slot)
        if not found or npages:
            return super().slot_create(slot, base, npages, flags)
        self.port.slots_lock()
        self.port.memslot_install(slot, found[1], 1, found[3])
        self.port.slots_unlock()
        return 0


class RecoversTooMuch(Upstream):
    """Recovering zaps every table of leaves of the slot, whether or not they could be huge."""

    def is_contiguous(self, page: int) -> bool:
        """Nobody looks."""
        return True

    def recover_huge(self, slot: int) -> int:
        """Nor at the level that the host allows."""
        start, end = self.slot_range(slot)
        for root in self.each_root(self.shared_types()):
            self.port.rcu_read_lock()
            for it in self.walk(root, start, end, 2):
                if it.level == 2 and is_present(it.old_spte) and not is_last(it.old_spte, 2):
                    self.set_spte(self.sps[it.page], it.index, it.gfn, k.NONPRESENT)
            self.port.rcu_read_unlock()
        return 1


class ProtectsFirstLeaf(Upstream):
    """Write protection ends at the first leaf that it protects."""

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """The others may be written."""
        changed = False
        for it in self.shared_leaves(*self.slot_range(slot)):
            changed = changed or self.clear_bits(it, WRITABLE)
        return int(changed)


class PutsHalfZapped(Upstream):
    """A root is given up after the first of its entries was zapped."""

    def zap_root_level(self, root: ShadowPage, shared: bool, level: int) -> None:
        """Those of the natural half, where a direct root has none."""
        if root.mirror or not self.bits:
            super().zap_root_level(root, shared, level)
        else:
            self.port.pt_read(root.page, 0)


class PutsBeforeZap(Upstream):
    """The MMU's reference to a root is put before the root is zapped."""

    def zap_scheduled(self, *, shared: bool) -> None:
        """The wrong way round."""
        port = self.port
        (port.read_lock if shared else port.write_lock)()
        for root in self.each_root(self.all_types):
            if root.scheduled:
                root.scheduled = False
                self.put_root(root)
                self.zap_root(root, shared)
        (port.read_unlock if shared else port.write_unlock)()


class NobodyBugs(Upstream):
    """A broken external tree is reported from hand to hand, and nobody declares the VM dead."""

    def sept_error(self, status: int) -> int:
        """EIO, no more."""
        return self.sept_error_quiet(status)


class HugeWhileLogged(Upstream):
    """Faults map huge pages whether the slot logs dirty pages or not."""

    def hugepage_level(self, fault: Fault) -> int:
        """Of the flags nothing is known."""
        fault.slot = (*fault.slot[:3], fault.slot[3] & ~k.MEM_LOG_DIRTY_PAGES)
        return super().hugepage_level(fault)


class FastPathHugeWhileLogged(Upstream):
    """The lockless path makes a huge leaf writable again that was protected to log what is written."""

    def is_logged_huge(self, page: int, gpa: int) -> bool:
        """Never asked."""
        return False


class LogsGuestMemory(Upstream):
    """A slot of guest memory may log dirty pages, if only it is told so later."""

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """The flags of what is there already are not looked at."""
        found = self.port.memslot_by_id(slot)
        if not found or found[:3] != (slot, base, npages) or flags != found[3] | k.MEM_LOG_DIRTY_PAGES:
            return super().slot_create(slot, base, npages, flags)
        self.port.slots_lock()
        self.port.memslot_install(slot, base, npages, flags)
        self.port.slots_unlock()
        return 0


class TakenDownUnflushed(Upstream):
    """A fault that needs a small leaf takes the huge one down, and hardware goes on with it."""

    def build_table(self, sp: ShadowPage, index: int, spte: int, fault: Fault) -> int:
        """An empty table comes in its place."""
        if not is_present(spte) or sp.mirror:
            return super().build_table(sp, index, spte, fault)
        gfn = fault.gfn & ~(self.pages_per_entry(sp.level) - 1)
        error, _ = self.set_spte_atomic(sp, index, gfn, spte, k.NONPRESENT)
        return k.RET_PF_RETRY if error else super().build_table(sp, index, k.NONPRESENT, fault)


class EndsBeforeZapping(Upstream):
    """An invalidation begins and ends, and then what was invalidated is zapped."""

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """The pages have gone back by then."""
        port = self.port
        port.write_lock()
        port.mmu_invalidate_begin(start, end)
        port.mmu_invalidate_end()
        port.write_unlock()
        port.write_lock()
        self.unmap_slots(start, end, attr_filter, need, may_block)
        port.write_unlock()


class HoleInFirstSlot(Upstream):
    """A hole over two slots is announced for the first of them, and punched in both."""

    def gmem_invalidate(self, start: int, end: int) -> None:
        """As far as that slot goes."""
        port = self.port
        slots = port.memslots(start, end)
        port.write_lock()
        port.mmu_invalidate_begin(start, min(end, slots[0][1] + slots[0][2]) if slots else end)
        self.unmap_slots(start, end, k.FILTER_PRIVATE, k.MEM_GUEST_MEMFD)
        port.mmu_invalidate_end()
        port.write_unlock()


class NoFlushInInvalidRoot(Upstream):
    """A walk that makes way in an invalid root, which owes no flush, forgets the one that it came with."""

    def zap_leafs_root(self, root: ShadowPage, start: int, end: int, can_yield: bool, flush: bool) -> bool:
        """As if none were due."""
        return super().zap_leafs_root(root, start, end, can_yield, flush and not root.invalid) or (
            flush and not can_yield
        )
