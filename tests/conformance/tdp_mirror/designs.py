"""Designs that do a little more or other than Linux, and what each might get wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault as PageFaultOf
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.specs.tdp_mirror import constants as k


class Bypass:
    """A port of which some calls are made otherwise."""

    def __init__(self, port: Any, **calls: Callable[..., Any]) -> None:
        self._port = port
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        return self._calls.get(name) or getattr(self._port, name)


class MapsAround(Upstream):
    """A shared fault maps the neighbour of its page along, as a prefetch would."""

    prefetched = 1

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """What the guest has not asked for may fail."""
        result = super().page_fault(vcpu, gpa, error_code, prefetch)
        if result == k.RET_PF_FIXED and self.addr_is_direct(gpa) and not prefetch:
            near = gpa ^ 1 << k.PAGE_SHIFT
            if self.is_wanted(near >> k.PAGE_SHIFT & ~self.bits):
                super().page_fault(vcpu, near, error_code & ~(1 << k.PFERR_WRITE), self.prefetched)
        return result

    def is_wanted(self, gfn: int) -> bool:
        """Whether there is something that the host could give the guest."""
        return bool(self.port.memslot(gfn)) and not self.port.attributes(gfn)


class TouchesNeighbours(MapsAround):
    """As if the guest had asked for both."""

    prefetched = 0


class TakesTheWrongNeighbour(MapsAround):
    """The other page comes from the place of the first."""

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """It resolves one page for two."""
        port, first = self.port, gpa >> k.PAGE_SHIFT & ~self.bits
        self.port = Bypass(port, hva_get_pfn=lambda slot, _gfn, write: port.hva_get_pfn(slot, first, write))
        try:
            return super().page_fault(vcpu, gpa, error_code, prefetch)
        finally:
            self.port = port


class KeepsAStock(Upstream):
    """Pages are allocated for a vCPU beforehand, outside its caches, and given back when the VM ends."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.stock: list[tuple[int, int]] = []

    def vcpu_create(self, vcpu: int) -> int:
        """One of each."""
        pages = self.port.page_alloc(k.HEADER, 0), self.port.page_alloc(k.TABLE, k.NONPRESENT)
        self.stock.append(pages)
        return super().vcpu_create(vcpu)

    def alloc_for_split(self) -> ShadowPage | None:
        """From the stock, if there is any."""
        if not self.stock:
            return super().alloc_for_split()
        header, page = self.stock.pop()
        return ShadowPage(page, header, False, 0, 0)

    def vm_uninit(self) -> None:
        """What was not needed is given back."""
        for pages in self.stock:
            for page in filter(None, pages):
                self.port.page_free(page)
        super().vm_uninit()


class LosesTheStock(KeepsAStock):
    """Nobody gives it back."""

    def vm_uninit(self) -> None:
        """It is forgotten."""
        Upstream.vm_uninit(self)


class LosesWhatItTook(KeepsAStock):
    """A page is taken from the stock for a split that is not needed, and lost."""

    def split_huge(self, slot: int, start: int, end: int, target_level: int) -> None:
        """It prepares one before it looks."""
        header, page = self.stock.pop()
        self.port.sp_init(page, header, 0, 0, 0)
        super().split_huge(slot, start, end, target_level)


class KillsForAnAddition(Upstream):
    """A page that cannot be added to the TD is a VM bug, as every SEAMCALL is that fails."""

    is_bug = staticmethod(lambda status: status and status & k.TDX_STATUS_MASK != k.TDX_OPERAND_BUSY)

    def init_mem_region(self, vcpu: int, gpa: int) -> int:
        """Whoever adds a page twice does no good to his VM."""
        port, self.port = self.port, Bypass(self.port, tdh_mem_page_add=self.add)
        try:
            return super().init_mem_region(vcpu, gpa)
        finally:
            self.port = port

    def add(self, gpa: int, pfn: int) -> int:
        """The SEAMCALL, and what it means."""
        port = self.port._port
        status: int = port.tdh_mem_page_add(gpa, pfn)
        if self.is_bug(status):
            port.vm_bug("TDH.MEM.PAGE.ADD")
        return status


class KillsWhileBusy(KillsForAnAddition):
    """The same for what would go better the next time."""

    is_bug = staticmethod(bool)


class ComparesByItself(Upstream):
    """Before the lock is taken, the sequence number tells whether an invalidation has ended since."""

    def faultin(self, fault: PageFaultOf) -> int:
        """A page whose number is old already is not worth the lock."""
        port = self.port
        self.port = Bypass(port, mmu_invalidate_retry=lambda seq, _gfn: port.mmu_invalidate_seq() != seq)
        try:
            return super().faultin(fault)
        finally:
            self.port = port


class GoesByTheLastNumber(Upstream):
    """A page is judged by a snapshot that was taken when it was there already."""

    def faultin(self, fault: PageFaultOf) -> int:
        """The newest is the best."""
        result = super().faultin(fault)
        fault.seq = self.port.mmu_invalidate_seq()
        return result


class YieldsOnceAFlushIsDue(Upstream):
    """That a call may not block is forgotten when the second slot has its turn."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """There is something to flush by then."""
        return super().unmap_gfn_range(start, end, attr_filter, may_block or flush, flush)


class WidensTheHead(Upstream):
    """A conversion invalidates the huge page that its range begins in, and not the one that it ends in."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """The end stays where it is."""
        port, end = self.port, address + size >> k.PAGE_SHIFT
        self.port = Bypass(port, mmu_invalidate_begin=lambda start, _end: port.mmu_invalidate_begin(start, end))
        try:
            return super().set_attributes(address, size, attributes, flags)
        finally:
            self.port = port


class ReachesBeyondTheSlot(Upstream):
    """A huge leaf is made wherever the host has one, however small the slot is."""

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """As if all were one slot."""
        port, self.port = self.port, Bypass(self.port, memslot=self.everywhere)
        try:
            return super().page_fault(vcpu, gpa, error_code, prefetch)
        finally:
            self.port = port

    def everywhere(self, gfn: int) -> tuple[int, ...]:
        """The slot of a gfn, as large as may be."""
        slot: tuple[int, ...] = self.port._port.memslot(gfn)
        return (slot[0], 0, self.max_gfn + 1, slot[3]) if slot else ()


class SaysThatItIsDead(Upstream):
    """A fault that has killed the VM says so, rather than let the vCPU try again."""

    is_dead = True

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        """RETRY is for the living."""
        result = super().page_fault(vcpu, gpa, error_code, prefetch)
        dead = bool(self.port.vm_is_dead()) == self.is_dead
        return -k.EIO if result == k.RET_PF_RETRY and dead else result


class GivesUpWhileBusy(SaysThatItIsDead):
    """An error for what would go better the next time."""

    is_dead = False


class ReloadsAgain(Upstream):
    """A load that finds its root invalid by the time it is used begins anew."""

    def mmu_reload(self, vcpu: int) -> int:
        """Until it has one that is valid."""
        while True:
            result = super().mmu_reload(vcpu)
            if result or not self.sps[self.root_hpa[vcpu]].invalid:
                return result
            self.free_obsolete_roots(vcpu)
