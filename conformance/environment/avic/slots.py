"""Memslots: guest memory that may move under whoever holds no reference to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import EEXIST
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.locks import KernelLocks
    from conformance.environment.avic.memory import Memory, Page, Watch
    from conformance.environment.door import Environment


class Slots(Simulator):
    """Guest memory by memslot, made when it is first touched; the host moves a page that nobody holds a reference to.

    Only private memslots are modelled: the guest's own memory is no business of this driver.
    """

    CLAUSES = (c.ACQUISITIONS_BALANCE,)

    def __init__(self, door: Environment, locks: KernelLocks, memory: Memory, watch: Watch) -> None:
        super().__init__(door)
        self.locks = locks
        self.memory = memory
        self.watch = watch
        self.slots: dict[tuple[int, int], tuple[int, int, dict[int, Page]]] = {}
        """(vm, slot) -> guest frame, number of frames, and the pages made so far by frame."""

    def guest_page(self, vm: int, gfn: int) -> Page | None:
        """The page behind a guest frame, made on first use; None outside every memslot."""
        for (owner, _), (first, count, made) in self.slots.items():
            if owner == vm and first <= gfn < first + count:
                if gfn not in made:
                    made[gfn] = self.memory.allocate(guest=True)
                return made[gfn]
        return None

    def move_unreferenced(self) -> None:
        """Migrate every guest page that nobody refers to: the content moves, the frame is gone."""
        memory = self.memory
        for _, _, made in self.slots.values():
            for gfn, page in made.items():
                if page.references == 0:
                    new = memory.allocate(guest=True)
                    new.words, new.live = page.words, page.live
                    memory.free(page)
                    made[gfn] = new
        self.watch.changed = True

    def set_memory_region(self, vm: int, slot: int, gpa: int, size: int) -> int:
        """Create or delete a private memslot; its pages go with it."""
        self.locks.may_sleep("set_memory_region")
        key = (vm, slot)
        if size and key in self.slots:
            return -EEXIST
        refusal = self.door.refused("set_memory_region")
        if refusal:
            return refusal
        self.watch.changed = True
        if size:
            self.slots[key] = (gpa >> 12, size >> 12, {})
        elif key in self.slots:
            for page in self.slots.pop(key)[2].values():
                self.memory.free(page)
        return 0

    def gfn_to_page(self, vm: int, gfn: int) -> int:
        """The page behind a guest frame, with a reference."""
        self.locks.may_sleep("gfn_to_page")
        if self.door.refused("gfn_to_page"):
            return 0
        page = self.guest_page(vm, gfn)
        if page is None:
            return 0
        page.references += 1
        return self.memory.name(page)

    def put_page(self, address: int) -> None:
        """Drop a reference."""
        page = self.memory.find(address)
        if page.references == 0:
            raise Violation(c.ACQUISITIONS_BALANCE, f"put_page({address:#x}): no reference is held")
        page.references -= 1
