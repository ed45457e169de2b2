"""Host memory that a driver allocates, and guest memory that may move under it."""

from __future__ import annotations

from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import ADDRESS_BITS
from conformance.verdict import Violation

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


class Memory:
    """Every page there is, by frame address; freed ones are remembered to know a stale use."""

    __slots__ = ("freed", "next", "pages", "slots", "tag")

    def __init__(self, tagged: bool) -> None:
        self.tag = TAG if tagged else 0
        self.pages: dict[int, Page] = {}
        self.freed: set[int] = set()
        self.slots: dict[tuple[int, int], tuple[int, int, dict[int, Page]]] = {}
        """(vm, slot) -> guest frame, number of frames, and the pages made so far by frame."""
        self.next = 0x000F_FF00_1234_5000 if tagged else 0x123_45000

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

    def guest_page(self, vm: int, gfn: int) -> Page | None:
        """The page behind a guest frame, made on first use; None outside every memslot."""
        for (owner, _), (first, count, made) in self.slots.items():
            if owner == vm and first <= gfn < first + count:
                if gfn not in made:
                    made[gfn] = self.allocate(guest=True)
                return made[gfn]
        return None

    def delete_slot(self, key: tuple[int, int]) -> None:
        """Remove a memslot; its pages go with it."""
        _, _, made = self.slots.pop(key)
        for page in made.values():
            self.free(page)

    def move_unreferenced(self) -> None:
        """Migrate every guest page that nobody refers to: the content moves, the frame is gone."""
        for _, _, made in self.slots.values():
            for gfn, page in made.items():
                if page.references == 0:
                    new = self.allocate(guest=True)
                    new.words, new.live = page.words, page.live
                    self.free(page)
                    made[gfn] = new
