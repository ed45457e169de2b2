"""arch/x86/kvm/mmu/tdp_iter.c: pre-order walks of the page tables."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.linux.kvm import Kvm, Sp
from conformance.candidates.builtin.tdp_mirror.linux.spte import is_last, is_present, table_of
from conformance.specs.tdp_mirror.constants import PG_LEVEL_4K


class TdpIter:
    """struct tdp_iter. Each table is read inside an RCU section of the caller."""

    def __init__(self, kvm: Kvm, root: Sp, min_level: int, start: int, gfn_bits: int) -> None:
        """tdp_iter_start."""
        self.port = kvm.port
        self.index_bits = kvm.kvm.index_bits
        self.gfn_bits = gfn_bits
        self.root = root
        self.min_level = min_level
        self.next_last_level_gfn = start
        self.yielded_gfn = start
        self.yielded = False
        self.path = {root.level: root.spt}
        self.level = root.level
        self.gfn = self.index = self.old_spte = 0
        self.valid = not kvm.warn_on_once(bool(gfn_bits) and start >= gfn_bits, "tdp_iter_start: start is an alias")
        if self.valid:
            self.restart()

    @property
    def table(self) -> int:
        """Table of the present entry."""
        return self.path[self.level]

    def _pages(self, level: int) -> int:
        return 1 << self.index_bits * (level - 1)

    def _round(self, gfn: int, level: int) -> int:
        return gfn & -self._pages(level)

    def refresh(self) -> None:
        """tdp_iter_refresh_sptep."""
        shifted = (self.gfn | self.gfn_bits) >> self.index_bits * (self.level - 1)
        self.index = shifted & (1 << self.index_bits) - 1
        self.read()

    def read(self) -> None:
        """Read the entry again."""
        self.old_spte = self.port.pt_read(self.table, self.index)

    def restart(self) -> None:
        """tdp_iter_restart: from the root down to the next gfn to visit."""
        self.yielded = False
        self.yielded_gfn = self.next_last_level_gfn
        self.level = self.root.level
        self.gfn = self._round(self.next_last_level_gfn, self.level)
        self.refresh()
        self.valid = True

    def _step_down(self) -> bool:
        if self.level == self.min_level:
            return False
        self.read()  # somebody may have put a table, or taken it away, since the caller looked
        if not is_present(self.old_spte) or is_last(self.old_spte, self.level):
            return False
        self.level -= 1
        self.path[self.level] = table_of(self.old_spte)
        self.gfn = self._round(self.next_last_level_gfn, self.level)
        self.refresh()
        return True

    def _step_side(self) -> bool:
        if self.index == (1 << self.index_bits) - 1:
            return False
        self.gfn += self._pages(self.level)
        self.next_last_level_gfn = self.gfn
        self.index += 1
        self.read()
        return True

    def _step_up(self) -> bool:
        if self.level == self.root.level:
            return False
        self.level += 1
        self.gfn = self._round(self.gfn, self.level)
        self.refresh()
        return True

    def next(self) -> None:
        """tdp_iter_next."""
        if self.yielded:
            self.restart()
            return
        if self._step_down():
            return
        while not self._step_side():
            if not self._step_up():
                self.valid = False
                return


def walk(kvm: Kvm, root: Sp, start: int, end: int, min_level: int = PG_LEVEL_4K) -> Iterator[TdpIter]:
    """for_each_tdp_pte_min_level: the entries of a root that cover [start, end), in its own half.

    gfns that the tables cannot hold are not theirs: an index that wraps would lead to somebody else's entry.
    """
    end = min(end, kvm.pages_per_hpage(root.level + 1))
    it = TdpIter(kvm, root, min_level, start, 0 if root.is_mirror else kvm.kvm.direct_bits)
    while it.valid and it.gfn < end:
        yield it
        it.next()


def walk_all(kvm: Kvm, root: Sp, min_level: int) -> Iterator[TdpIter]:
    """for_each_tdp_pte_min_level_all: every entry of a root, whatever half it is of."""
    it = TdpIter(kvm, root, min_level, 0, 0)
    while it.valid:
        yield it
        it.next()


def walk_leafs(kvm: Kvm, root: Sp, start: int, end: int) -> Iterator[TdpIter]:
    """tdp_root_for_each_leaf_pte."""
    for it in walk(kvm, root, start, end):
        if is_present(it.old_spte) and is_last(it.old_spte, it.level):
            yield it
