"""Host memory: pages and objects that a driver allocates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import ADDRESS_BITS
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.locks import KernelLocks
    from conformance.environment.door import Environment

TAG = 0x8010_0000_0000_0ABC
"""Bits that tagged physical addresses carry outside 51:12."""
POISON = 0xDEADBEEF
GUARD = 0x40
"""Frames between two allocations, so that a wrong address is nobody's."""


class Page:
    """An allocation: 32-bit words, and which of them are not 0."""

    __slots__ = ("address", "guest", "live", "maps", "poisoned", "references", "words")

    def __init__(self, address: int, order: int, guest: bool, poisoned: bool) -> None:
        count = 1024 << order
        self.address = address
        self.words = [POISON if poisoned else 0] * count
        self.live: set[int] = set()
        self.poisoned = poisoned
        """Not cleared as a whole; see `is_poisoned`."""
        self.guest = guest
        """It backs a memslot: the guest and user space reach it, and it moves unless referenced."""
        self.references = 0
        self.maps = 0

    def set(self, index: int, value: int) -> None:
        """Store one 32-bit word."""
        self.words[index] = value
        if value:
            self.live.add(index)
        else:
            self.live.discard(index)

    def is_poisoned(self) -> bool:
        """Whether some word still holds what was there before the allocation."""
        if self.poisoned:
            self.poisoned = POISON in self.words
        return self.poisoned

    def read64(self, offset: int) -> int:
        """One 64-bit entry."""
        index = offset >> 2
        return self.words[index] | self.words[index + 1] << 32

    def write64(self, offset: int, value: int) -> None:
        """Store one 64-bit entry."""
        index = offset >> 2
        self.set(index, value & 0xFFFFFFFF)
        self.set(index + 1, value >> 32 & 0xFFFFFFFF)

    def clear(self) -> None:
        """Fill with zeros."""
        self.words = [0] * len(self.words)
        self.live = set()
        self.poisoned = False

    def entries(self) -> list[int]:
        """Indices of the 64-bit entries that are not 0, in order."""
        return sorted({index >> 1 for index in self.live})


class Watch:
    """Whether something that an invariant speaks of may have changed since they were last examined."""

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed = False


class Memory(Simulator):
    """The host's memory: pages by frame address, and objects by handle.

    Frames never run out and are not used again, so that a stale use shows. Sizes of objects do not matter, nor does
    where a page is mapped.
    """

    CLAUSES = (c.ACQUISITIONS_BALANCE, c.TABLES_FREED_ONCE, c.NO_IRQCHIP_NO_AVIC, c.OLD_VCPU_FORGETS_IRTE)

    def __init__(self, door: Environment, locks: KernelLocks, watch: Watch, tagged: bool = False) -> None:
        super().__init__(door)
        self.locks = locks
        self.watch = watch
        self.tag = TAG if tagged else 0
        self.pages: dict[int, Page] = {}
        self.freed: set[int] = set()
        self.next = 0x000F_FF00_1234_5000 if tagged else 0x123_45000
        self.posted: Callable[[int], list[int]] = lambda _address: []
        """Irqs that the IOMMU posts to a page: it writes there, whoever has the page then."""
        self.handles: set[int] = set()
        self.next_handle = 1

    def allocate(self, order: int = 0, guest: bool = False) -> Page:
        """A new page with undefined content."""
        page = Page(self.next, order, guest, poisoned=not guest)
        self.pages[page.address] = page
        self.next += GUARD << 12
        return page

    def name(self, page: Page) -> int:
        """The physical address by which a driver knows a page."""
        return page.address | self.tag

    def find(self, address: int) -> Page:
        """The page at an address that a driver uses; Violation when there is none."""
        frame = address & ADDRESS_BITS
        page = self.pages.get(frame)
        if page is not None:
            return page
        if frame == 0:
            raise Violation(c.NO_IRQCHIP_NO_AVIC, "access through a NULL page pointer: there is no APIC or no page")
        if frame in self.freed:
            raise Violation(c.ACQUISITIONS_BALANCE, f"use of the freed page {frame:#x}")
        raise Violation(c.ACQUISITIONS_BALANCE, f"{address:#x} is no page that was allocated")

    def free(self, page: Page) -> None:
        """Take a page back."""
        del self.pages[page.address]
        self.freed.add(page.address)

    def alloc_page(self, order: int) -> int:
        """2**order pages with undefined content."""
        self.locks.may_sleep("alloc_page")
        if self.door.refused("alloc_page"):
            return 0
        self.watch.changed = True
        return self.name(self.allocate(order))

    def free_page(self, address: int) -> None:
        """Give pages back; twice is a violation."""
        page = self.find(address)
        if page.guest:
            raise Violation(c.ACQUISITIONS_BALANCE, f"free_page({address:#x}): it belongs to a memslot")
        if irqs := self.posted(page.address):
            raise Violation(c.OLD_VCPU_FORGETS_IRTE, f"free_page({address:#x}): irqs {irqs} are still posted to it")
        self.watch.changed = True
        self.free(page)

    def clear_page(self, address: int) -> None:
        """Fill with zeros."""
        self.find(address).clear()
        self.watch.changed = True

    def kzalloc(self, size: int) -> int:
        """Zeroed kernel memory."""
        self.locks.may_sleep("kzalloc")
        if self.door.refused("kzalloc"):
            return 0
        handle = self.next_handle
        self.next_handle += 1
        self.handles.add(handle)
        return handle

    def kfree(self, handle: int) -> None:
        """Give kernel memory back; twice is a violation."""
        if handle not in self.handles:
            raise Violation(c.TABLES_FREED_ONCE, f"kfree({handle}): not allocated")
        self.handles.discard(handle)

    def kmap(self, address: int) -> int:
        """Map a page."""
        self.find(address).maps += 1
        return address

    def kunmap(self, address: int) -> None:
        """Undo kmap."""
        page = self.find(address)
        if page.maps == 0:
            raise Violation(c.ACQUISITIONS_BALANCE, f"kunmap({address:#x}): not mapped")
        page.maps -= 1
