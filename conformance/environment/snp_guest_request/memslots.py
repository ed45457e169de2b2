"""Guest memory as KVM has it: memslots, and references to the pages behind them."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.frames import Page, frame_number, guest_page
from conformance.model.snp_guest_request.addresses import GPA, WATCHED
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import EFAULT, PAGE_SIZE
from conformance.verdict import Violation


class Memslots(Simulator):
    """For each VM the guest pages that userspace maps, and the frames behind those whose slot is gone.

    Every page is a slot of its own. No dirty log, no large pages, and nobody is told when a slot goes.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.REFERENCES_DROPPED,)

    def __init__(self, door: Environment, contents: Contents) -> None:
        super().__init__(door)
        self.contents = contents
        self.refused = door.refused
        self.mapped: list[dict[int, Page]] = [{}, {}]
        """By VM and gfn."""
        self.removed: dict[int, Page] = {}
        """Pages whose memslot is gone, by frame number."""

    def populate(self, vm: int) -> None:
        """Give a VM fresh memory."""
        pages = {gpa >> 12: guest_page(vm, name) for name, gpa in GPA.items()}
        self.mapped[vm] = pages
        self.contents.watch(vm, [pages[GPA[name] >> 12] for name in WATCHED])

    def remove(self, vm: int, gpa: int) -> None:
        """The slot goes; its frame stays while somebody holds a reference."""
        page = self.mapped[vm].pop(gpa >> 12, None)
        if page is not None:
            self.removed[page.pfn] = page

    def frame(self, pfn: int) -> Page | None:
        """The page of a frame number that lies behind guest memory, mapped or not."""
        if pfn >> 16 not in (1, 2):
            return None
        gfn = pfn & 0x7FFF | (pfn >> 15 & 1) << 20
        return self.mapped[(pfn >> 16) - 1].get(gfn) or self.removed.get(pfn)

    def own(self, vm: int, gpa: int) -> Page | None:
        """The page as the guest itself finds it, whose memory does not go away under it."""
        return self.mapped[vm].get(gpa >> 12) or self.removed.get(frame_number(vm, gpa >> 12))

    def page(self, vm: int, gpa: int, *, write: bool) -> Page | None:
        """The page that holds this address, None in a hole, or where it would be written and is read-only."""
        page = self.mapped[vm].get(gpa >> 12)
        return None if page is None or (write and page.name == "readonly") else page

    def pieces(self, vm: int, gpa: int, size: int, *, write: bool) -> list[tuple[Page, int, int]] | None:
        """Page, offset and count of each piece of a range of guest memory; None where one is missing."""
        found: list[tuple[Page, int, int]] = []
        at = 0
        while at < size or not found:
            page = self.page(vm, gpa + at, write=write)
            if page is None:
                return None
            start = (gpa + at) % PAGE_SIZE
            count = min(size - at, PAGE_SIZE - start)
            found.append((page, start, count))
            at += max(count, 1)
        return found

    def gfn_to_pfn(self, vm: int, gfn: int) -> int:
        page = self.page(vm, gfn << 12, write=True)
        if page is None:
            return -EFAULT
        refusal = self.refused("gfn_to_pfn")
        if refusal:
            return refusal
        page.refs += 1
        return page.pfn

    def digest(self) -> Hashable:
        """References to guest pages."""
        return tuple((page.pfn, page.refs) for pages in self.mapped for page in pages.values() if page.refs)

    def judge_gone(self, vm: int) -> None:
        """No reference to a page outlives its VM."""
        for guest in (*self.mapped[vm].values(), *self.removed.values()):
            if guest.vm == vm and guest.refs and not guest.leaked:
                raise Violation(c.REFERENCES_DROPPED, f"{guest.refs} references to page {guest.name} outlive their VM")
        self.door.hold(c.REFERENCES_DROPPED)

    def forget(self, vm: int) -> None:
        """The VM's memory is gone."""
        self.removed = {pfn: page for pfn, page in self.removed.items() if page.vm != vm}
        self.mapped[vm] = {}
        self.contents.forget(vm)
