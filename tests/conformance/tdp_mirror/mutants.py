"""Correct TDP MMUs with one line wrong, for the clauses that no defect of the zoo is cited with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from conformance.candidates.builtin.tdp_mirror.as_posted import PostedTypes
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.specs.tdp_mirror import constants as k
from tests.conformance.peers.tdp_mirror import Unpinned


class Tampering:
    """A port on which one call is made otherwise."""

    def __init__(self, port: Any, call: str, change: Callable[..., Any]) -> None:
        self._port = port
        self._call = call
        self._change = change

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._port, name)
        return partial(self._change, real) if name == self._call else real


def tampering(call: str, change: Callable[..., Any]) -> Callable[[Any], Upstream]:
    """The correct MMU, of whose calls one goes wrong: `change` gets the real one and its arguments."""
    return lambda port: Upstream(Tampering(port, call, change))


class ChildrenWithoutFlag(Upstream):
    """Only roots say that they are mirrors."""

    def role_word(self, mirror: bool, level: int, invalid: bool = False) -> int:
        """Below them nobody does."""
        return super().role_word(mirror and level == self.levels, level, invalid)


class MatchesInSilence(Upstream):
    """Types without a kind are nothing to complain of."""

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """0."""
        return super().root_match(mirror, invalid, types) if types & (k.DIRECT_ROOTS | k.MIRROR_ROOTS) else 0


class PostedMatchesInvalid(PostedTypes):
    """Bit 0 says nothing."""

    def root_match(self, mirror: int, invalid: int, types: int) -> int:
        """The kind alone."""
        return super().root_match(mirror, 0, types)


class SwapsFilters(Upstream):
    """Private means direct."""

    def filter_to_types(self, attr_filter: int) -> int:
        """The other way round."""
        return super().filter_to_types((0, 2, 1, 3)[attr_filter])


class AgesInvalid(Upstream):
    """Accessed bits of roots that are invalid go as well."""

    def shared_types(self) -> int:
        """All direct ones."""
        return super().shared_types() | k.TYPE_VALIDITY


class InvalidatesInSilence(Upstream):
    """The bit of invalid roots is dropped without a word."""

    def invalidate_roots(self, types: int) -> None:
        """Without it."""
        super().invalidate_roots(types & ~k.TYPE_VALIDITY)


class NothingIsDirect(Upstream):
    """A VM without a split has no direct address."""

    def addr_is_direct(self, gpa: int) -> int:
        """The bit alone."""
        return int(bool(gpa >> 12 & self.bits))


class LooksUnderDirect(Upstream):
    """Whatever is mapped is looked for under the direct root."""

    def gpa_is_mapped(self, vcpu: int, gpa: int) -> int:
        """Of both halves."""
        return super().gpa_is_mapped(vcpu, gpa | self.bits << 12)


class DirectWithoutBits(Upstream):
    """Direct roots are indexed by the natural gfn."""

    def root_bits(self, root: Any) -> int:
        """None."""
        return 0


class WalksInSilence(Upstream):
    """A walk from beyond the split is empty, and that is all."""

    def walk(self, root: Any, start: int, end: int, min_level: int = 1) -> Any:
        """No warning."""
        return iter(()) if self.root_bits(root) and start >= self.bits else super().walk(root, start, end, min_level)


class RootPerVcpu(Upstream):
    """Each vCPU has roots of its own role."""

    vcpu = 0

    def alloc_root(self, vcpu: int, mirror: bool) -> None:
        """Whose it is."""
        self.vcpu = vcpu
        super().alloc_root(vcpu, mirror)

    def role_word(self, mirror: bool, level: int, invalid: bool = False) -> int:
        """As if it were of another address space."""
        return super().role_word(mirror, level, invalid) | self.vcpu << 24

    def find_root(self, mirror: bool) -> Any:
        """Only those of vCPU 0 are shared."""
        return None if self.vcpu else super().find_root(mirror)


class NeverFinds(Upstream):
    """A load makes a new root."""

    def find_root(self, mirror: bool) -> Any:
        """None."""
        return None


class TakesTwice(Upstream):
    """Loading a direct root that is there takes two references."""

    def find_root(self, mirror: bool) -> Any:
        """One too many."""
        found = super().find_root(mirror)
        if found is not None and not mirror:
            self.port.refcount_inc_not_zero(found.page)
        return found


class UnloadsBoth(Upstream):
    """An unload drops the mirror root too."""

    def mmu_unload(self, vcpu: int) -> None:
        """Both."""
        super().mmu_unload(vcpu)
        self.put_mirror(vcpu)


class DestroysUnlocked(Upstream):
    """The mirror root is put without mmu_lock."""

    def put_mirror(self, vcpu: int) -> None:
        """As if nobody walked it."""
        page = self.mirror_root_hpa[vcpu]
        if page != k.INVALID_PAGE:
            self.mirror_root_hpa[vcpu] = k.INVALID_PAGE
            self.port.vcpu_root(vcpu, 1, k.INVALID_PAGE)
            self.put_root(self.sps[page])


class TellsNobody(Upstream):
    """vCPUs do not hear of obsolete roots."""

    def zap_all_fast(self) -> None:
        """No request."""
        self.port.write_lock()
        self.invalidate_roots(k.DIRECT_ROOTS)
        self.port.write_unlock()
        self.zap_invalidated_roots()


class InvalidatesShared(Upstream):
    """Roots become invalid under the read lock."""

    def zap_all_fast(self) -> None:
        """Shared."""
        self.port.read_lock()
        self.invalidate_roots(k.DIRECT_ROOTS)
        self.port.read_unlock()


class UninitHurries(Upstream):
    """The end does not wait for RCU callbacks."""

    def vm_uninit(self) -> None:
        """Without the barrier."""
        self.invalidate_roots(k.DIRECT_ROOTS | k.MIRROR_ROOTS)
        self.zap_scheduled(shared=False)


class ExternalRoot(Upstream):
    """A mirror root has an external page."""

    def alloc_sp(self, vcpu: int, mirror: bool, level: int, gfn: int, *, with_external: bool) -> Any:
        """Like its children."""
        return super().alloc_sp(vcpu, mirror, level, gfn, with_external=mirror)


class LeavesEarly(Upstream):
    """An iteration that ends before its time keeps its root."""

    def leave_early(self, root: Any) -> None:
        """Not put."""


class MapsUnderInvalid(Upstream):
    """Nobody looks whether a root is valid."""

    def is_stale(self, fault: Any) -> bool:
        """Not now."""
        return False

    def tdp_mmu_map(self, fault: Any) -> int:
        """Nor now."""
        root = self.sps[self.fault_root(fault)]
        root.invalid, was = False, root.invalid
        result = super().tdp_mmu_map(fault)
        root.invalid = was
        return result


class LeavesWithoutSve(Upstream):
    """Leaves without bit 63."""

    def make_spte(self, fault: Any, level: int, mirror: bool) -> int:
        """The guest would get #VE."""
        return super().make_spte(fault, level, mirror) & ~k.NONPRESENT


class WalkSeesTooMuch(Upstream):
    """All that a walk meets is present."""

    def get_walk(self, vcpu: int, gpa: int) -> tuple[int, ...]:
        """Whatever bit 11 says."""
        return tuple(spte | 1 << k.PRESENT for spte in super().get_walk(vcpu, gpa))


class LeavesFrozen(Upstream):
    """Where the external tree refused, the entry stays frozen."""

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """Restored at the next try."""
        error = super().set_external_present(page, index, gfn, old, new, level)
        if error:
            self.port.pt_cmpxchg(page, index, old, k.FROZEN)
        return error


class OtherPage(Upstream):
    """A leaf that becomes writable maps the page beside."""

    def map_target(self, sp: Any, index: int, old: int, fault: Any) -> int:
        """One further."""
        fault.pfn += old >> k.PRESENT & 1
        return super().map_target(sp, index, old, fault)


class FreezesExclusively(Upstream):
    """The exclusive setter stores FROZEN."""

    def set_spte(self, sp: Any, index: int, gfn: int, new: int) -> int:
        """First."""
        self.port.pt_store(sp.page, index, k.FROZEN)
        return super().set_spte(sp, index, gfn, new)


class NoExit(Upstream):
    """User space is not told where the fault was."""

    def fault_exit(self, fault: Any) -> None:
        """Nothing."""


class NoSlotIsAnError(Upstream):
    """A shared gfn without a slot is no MMIO."""

    def no_slot(self, fault: Any) -> int:
        """EFAULT."""
        super().no_slot(fault)
        return -k.EFAULT


class OneErrorForAll(Upstream):
    """What guest memory says is not passed on."""

    def get_pfn(self, fault: Any) -> int:
        """EFAULT."""
        result = super().get_pfn(fault)
        return -k.EFAULT if result < 0 else result


class DeletionIsAnError(Upstream):
    """A slot on its way out is no slot."""

    def faultin(self, fault: Any) -> int:
        """EFAULT."""
        result = super().faultin(fault)
        return -k.EFAULT if result == -k.EAGAIN else result


class LosesTheFreeze(Upstream):
    """Whether the entry could be frozen is no matter."""

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """On with it."""
        if self.port.pt_cmpxchg(page, index, old, k.FROZEN) != old:
            self.port.ext_set(gfn, level, new >> 12 & (1 << k.PFN_BITS) - 1)
            return -k.EBUSY
        self.port.pt_store(page, index, old)
        return super().set_external_present(page, index, gfn, old, new, level)


class BusyIsABug(Upstream):
    """Contention kills the VM."""

    def set_external_present(self, page: int, index: int, gfn: int, old: int, new: int, level: int) -> int:
        """Whatever the error."""
        error = super().set_external_present(page, index, gfn, old, new, level)
        if error:
            self.port.vm_bug("the external tree said no")
        return error


class FillsCachesLate(Upstream):
    """Caches are filled with the lock held."""

    def map_fault(self, fault: Any) -> int:
        """Where they are needed."""
        return self.topup(fault.vcpu) or super().map_fault(fault)


class RemovesLate(Upstream):
    """Pages are removed outside once the lock is dropped."""

    late: tuple[tuple[int, int, int], ...] = ()

    def remove_external(self, gfn: int, level: int, old: int) -> None:
        """Noted."""
        self.late += ((gfn, level, old),)

    def gmem_invalidate(self, start: int, end: int) -> None:
        """And made up for."""
        super().gmem_invalidate(start, end)
        for removal in self.late:
            super().remove_external(*removal)


class FreesTopDown(Upstream):
    """A table is given back before what hangs below it."""

    def handle_removed_pt(self, sp: Any, base: int, shared: bool) -> None:
        """The external page first."""
        if sp.mirror and sp.external:
            self.free_external(sp)
        super().handle_removed_pt(sp, base, shared)

    def free_external(self, sp: Any) -> None:
        """Once."""
        super().free_external(sp)
        self.port.page_free(sp.external)
        sp.external = 0


class PunchesBoth(Upstream):
    """A hole in guest memory takes shared leaves too."""

    def gmem_invalidate(self, start: int, end: int) -> None:
        """Both halves."""
        self.invalidation(start, end, k.FILTER_PRIVATE | k.FILTER_SHARED, k.MEM_GUEST_MEMFD, 1)


class DeletesMore(Upstream):
    """The leaves of all slots go with one of them."""

    def zap_slot(self, base: int, npages: int) -> None:
        """Everything."""
        super().zap_slot(0, self.max_gfn + 1)


class InsistsRudely(Upstream):
    """A busy answer is met by asking again."""

    def insist(self, call: Any, *args: int) -> int:
        """Without keeping vCPUs out."""
        status: int = call(*args)
        return call(*args) if self.status(status) == k.TDX_OPERAND_BUSY else status  # type: ignore[no-any-return]


class BusyIsBroken(Upstream):
    """Busy is like any other failure."""

    def sept_error(self, status: int) -> int:
        """EIO."""
        return -k.EIO if super().sept_error(status) else 0


class AllowsTooSoon(Upstream):
    """Prefault is allowed before the TD is seen to run."""

    def finalize(self) -> int:
        """At the beginning."""
        self.port.allow_pre_fault()
        return super().finalize()


class PrefaultsNothing(Upstream):
    """A prefault outside of slots is an EFAULT."""

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        """Instead of ENOENT."""
        result = super().prefault(vcpu, gpa, size, flags)
        return -k.EFAULT if result == -k.ENOENT else result


def keeps_no_page(port: Any) -> Unpinned:
    """6.19 that lets go of a page which could not be removed."""
    return Unpinned(Tampering(port, "page_pin", lambda _real, _pfn: None))


class RecoversNothing(Upstream):
    """NX recovery leaves direct tables alone as well."""

    def zap_sp(self, page: int) -> int:
        """0."""
        return 0
