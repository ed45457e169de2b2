"""What the page tables mean: leaves and tables by gfn, for the view and for those who judge the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from conformance.environment.tdp_mirror.gfns import source_of
from conformance.environment.tdp_mirror.roots import Roots
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.words import PFN_MASK, is_leaf, pfn_of, present
from conformance.model.tdp_mirror.operations import Table
from conformance.model.tdp_mirror.state import Leaf
from conformance.specs.tdp_mirror import constants as k


class Meant(NamedTuple):
    """What all roots mean."""

    private: frozenset[tuple[int, int, str]]
    """Leaves of the mirror: gfn, level, source of the page."""
    shared: frozenset[Leaf]
    """Leaves of the valid direct root."""
    old: tuple[frozenset[Leaf], ...]
    """Leaves of each invalid root."""
    tables: tuple[frozenset[Table], frozenset[Table]]
    """Tables below the mirror and below the valid direct root."""


_NOTHING = Meant(frozenset(), frozenset(), (), (frozenset(), frozenset()))


class Meaning:
    """A reader of the tables: it changes nothing, and keeps what it found until an entry changes."""

    def __init__(self, tables: Tables, roots: Roots) -> None:
        self.tables = tables
        self.roots = roots
        self._seen = (-1, _NOTHING)

    def leaves(self, root: Page) -> Iterator[Leaf]:
        """Leaves below a root."""
        for table, index, entry in self.tables.walk(root):
            if is_leaf(entry, table.level):
                gfn = self.tables.gfn(table, index)
                yield gfn, table.level, source_of(pfn_of(entry), gfn), bool(entry >> k.WRITE & 1)

    def half(self, *, mirror: bool) -> Iterator[Leaf]:
        """Leaves below every root of a kind, valid or not."""
        for root in self.roots.listed:
            if root.is_mirror == mirror:
                yield from self.leaves(root)

    def _tables(self, root: Page) -> frozenset[Table]:
        return frozenset(
            (table.level - 1, self.tables.gfn(table, index))
            for table, index, entry in self.tables.walk(root)
            if not is_leaf(entry, table.level)
        )

    def of_all(self) -> Meant:
        """Leaves and tables of all roots."""
        version, meant = self._seen
        if version == self.tables.version:
            return meant
        private: frozenset[tuple[int, int, str]] = frozenset()
        shared: frozenset[Leaf] = frozenset()
        mirror_tables = direct_tables = frozenset[Table]()
        old = []
        for root in self.roots.listed:
            if root.invalid:
                old.append(frozenset(self.leaves(root)))
            elif root.is_mirror:
                private, mirror_tables = frozenset(leaf[:3] for leaf in self.leaves(root)), self._tables(root)
            else:
                shared, direct_tables = frozenset(self.leaves(root)), self._tables(root)
        meant = Meant(private, shared, tuple(old), (mirror_tables, direct_tables))
        self._seen = (self.tables.version, meant)
        return meant

    def mirror_entry(self, gfn: int, level: int) -> tuple[Page, int] | None:
        """The mirror entry of this level that covers `gfn`: table and index."""
        table = next((root for root in self.roots.listed if root.is_mirror), None)
        while table is not None:
            index = self.tables.index(gfn, table.level)
            if table.level == level:
                return table, index
            entry = table.read(index)
            if not present(entry) or is_leaf(entry, table.level):
                return None
            table = self.tables.pages[entry & PFN_MASK]
        return None

    def having(self, bit: int, start: int, end: int) -> tuple[bool, frozenset[tuple[int, int]]]:
        """Whether a leaf of the valid direct root in range has the bit; and who else has it."""
        mine, others = False, set()
        for root in self.roots.listed:
            for table, index, entry in self.tables.walk(root):
                if is_leaf(entry, table.level) and entry >> bit & 1:
                    gfn = self.tables.gfn(table, index)
                    inside = gfn < end and start < gfn + self.tables.cover(table.level)
                    if inside and not root.is_mirror and not root.invalid:
                        mine = True
                    else:
                        others.add((table.pa, index))
        return mine, frozenset(others)
