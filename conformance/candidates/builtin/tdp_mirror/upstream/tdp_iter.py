"""The iterator over entries: tdp_iter.c."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import PA_MASK, is_last, is_present
from conformance.candidates.builtin.tdp_mirror.upstream.vm import Vm


class Iter:
    """Pre-order walk over the entries of a root, as tdp_iter."""

    def __init__(self, mmu: Vm, root: ShadowPage, min_level: int, start: int, bits: int) -> None:
        self.mmu = mmu
        self.root = root
        self.min_level = min_level
        self.bits = bits
        self.next_last_level_gfn = start
        self.yielded_gfn = start
        self.yielded = False
        self.path: dict[int, int] = {}
        self.valid = True
        self.level = 0
        self.gfn = 0
        self.page = 0
        self.index = 0
        self.old_spte = 0
        if bits and start >= bits:
            mmu.port.warn_once("walk starts beyond the direct bits")
            self.valid = False
            return
        self.restart()

    def restart(self) -> None:
        """From the root again, towards the next entry to visit."""
        self.yielded = False
        self.yielded_gfn = self.next_last_level_gfn
        self.level = self.root.level
        self.path = {self.level: self.root.page}
        self.gfn = self.round(self.next_last_level_gfn)
        self.reset()

    def round(self, gfn: int) -> int:
        """First gfn of the current entry."""
        return gfn & ~(self.mmu.pages_per_entry(self.level) - 1)

    def reset(self) -> None:
        """Read the current entry."""
        self.page = self.path[self.level]
        self.index = self.mmu.index_of(self.gfn | self.bits, self.level)
        self.old_spte = self.mmu.port.pt_read(self.page, self.index)

    def step_down(self) -> bool:
        """Into the table that the entry points to."""
        if self.level == self.min_level:
            return False
        self.old_spte = self.mmu.port.pt_read(self.page, self.index)
        if not is_present(self.old_spte) or is_last(self.old_spte, self.level):
            return False
        self.level -= 1
        self.path[self.level] = self.old_spte & PA_MASK
        self.gfn = self.round(self.next_last_level_gfn)
        self.reset()
        return True

    def step_side(self) -> bool:
        """To the next entry of the table."""
        if self.index == self.mmu.entries - 1:
            return False
        self.gfn += self.mmu.pages_per_entry(self.level)
        self.next_last_level_gfn = self.gfn
        self.index += 1
        self.old_spte = self.mmu.port.pt_read(self.page, self.index)
        return True

    def step_up(self) -> bool:
        """To the table above."""
        if self.level == self.root.level:
            return False
        self.level += 1
        self.gfn = self.round(self.gfn)
        self.reset()
        return True

    def next(self) -> None:
        """To the next entry, or the end."""
        if self.yielded:
            self.restart()
            return
        if self.step_down():
            return
        while True:
            if self.step_side():
                return
            if not self.step_up():
                break
        self.valid = False
