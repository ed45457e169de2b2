"""Where the MSI-X table and the pending bits lie decides what may be exported (UIO-085, 096)."""

from __future__ import annotations

import pytest

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.specs.uio_msi import MAPS_TYPE
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import PAGE_SIZE
from conformance.strategies.uio_msi.domains import LAYOUTS
from tests.conformance.uio_msi.driving import caught


class Splits(Upstream):
    """Exports what is left of a BAR when the pages of the table and of the pending bits are cut out."""

    def _maps(self, bars: list[tuple[int, int, int, int]]) -> MAPS_TYPE:
        maps: list[tuple[str, int, int, int, int]] = []
        for bar, flags, start, size in bars:
            if flags & k.IORESOURCE_MEM:
                first, end = start & -PAGE_SIZE, start + size + PAGE_SIZE - 1 & -PAGE_SIZE
                for a, b in self._cut(first, end):
                    maps.append((f"BAR{bar}", a, start - a if a == first else 0, b - a, k.UIO_MEM_PHYS))
        return tuple(maps[: k.MAX_UIO_MAPS])

    def _cut(self, first: int, end: int) -> list[tuple[int, int]]:
        pieces = [(first, end)]
        for start, size in self._private():
            low, high = start & -PAGE_SIZE, start + size + PAGE_SIZE - 1 & -PAGE_SIZE
            around = [((a, min(b, max(low, a))), (max(a, min(high, b)), b)) for a, b in pieces]
            pieces = [(a, b) for pair in around for a, b in pair if a < b]
        return pieces

    def _private(self) -> list[tuple[int, int]]:
        """Bus address and size of the table and of the pending bits."""
        cap = self.port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        if not cap:
            return []
        vectors = self._vectors(cap)
        return [
            (self._address(cap + k.PCI_MSIX_TABLE), vectors * k.PCI_MSIX_ENTRY_SIZE),
            (self._address(cap + k.PCI_MSIX_PBA), self._pending_bytes(vectors)),
        ]

    def _vectors(self, cap: int) -> int:
        return (self.port.pci_read_config(cap + k.PCI_MSIX_FLAGS, 2) & k.PCI_MSIX_FLAGS_QSIZE) + 1

    def _pending_bytes(self, vectors: int) -> int:
        return (vectors + 63) // 64 * 8

    def _address(self, register: int) -> int:
        word: int = self.port.pci_read_config(register, 4)
        return self.port.pci_resource_start(word & k.PCI_MSIX_BIR) + (word & k.PCI_MSIX_OFFSET)


class OneEntryShort(Splits):
    """Takes the field, which is one less, for the size of the table."""

    def _vectors(self, cap: int) -> int:
        return super()._vectors(cap) - 1


class TableOfItsOwn(Splits):
    """Cuts out the entries that it uses itself."""

    def _vectors(self, cap: int) -> int:
        return min(super()._vectors(cap), k.MAX_MSIX_VECTORS)


class WholeWordsOnly(Splits):
    """Rounds the words of the pending bits down."""

    def _pending_bytes(self, vectors: int) -> int:
        return vectors // 64 * 8


class OneWord(Splits):
    """Takes all pending bits for one word."""

    def _pending_bytes(self, vectors: int) -> int:
        return 8


class SameBar(Splits):
    """Looks for the pending bits in the BAR of the table."""

    def _address(self, register: int) -> int:
        cap = self.port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        bar = self.port.pci_read_config(cap + k.PCI_MSIX_TABLE, 4) & k.PCI_MSIX_BIR
        offset: int = self.port.pci_read_config(register, 4) & k.PCI_MSIX_OFFSET
        return self.port.pci_resource_start(bar) + offset


class PagesFromTheOffset(Splits):
    """Counts the pages of each from its size alone, wherever in a page it begins."""

    def _private(self) -> list[tuple[int, int]]:
        return [(start & -PAGE_SIZE, size) for start, size in super()._private()]


class OwnBarAlone(Upstream):
    """Keeps back the BAR of the table, and none that shares a page with it."""

    def _maps(self, bars: list[tuple[int, int, int, int]]) -> MAPS_TYPE:
        cap = self.port.pci_find_capability(k.PCI_CAP_ID_MSIX)
        words = (k.PCI_MSIX_TABLE, k.PCI_MSIX_PBA) if cap else ()
        own = {self.port.pci_read_config(cap + at, 4) & k.PCI_MSIX_BIR for at in words}
        maps: list[tuple[str, int, int, int, int]] = []
        for bar, flags, start, size in bars:
            if flags & k.IORESOURCE_MEM and bar not in own:
                first, end = start & -PAGE_SIZE, start + size + PAGE_SIZE - 1 & -PAGE_SIZE
                maps.append((f"BAR{bar}", first, start - first, end - first, k.UIO_MEM_PHYS))
        return tuple(maps[: k.MAX_UIO_MAPS])


WORLDS = tuple(f"world-{layout}" for layout in LAYOUTS)


def test_every_bar_may_be_split_around_them() -> None:
    """Each page that holds neither may be exported."""
    assert not caught(Splits, *WORLDS)


def test_a_bar_in_the_page_of_the_table_is_kept_back() -> None:
    """Whoever exports it exports the table, which is advised against; whoever keeps it back is right."""
    assert not caught(Upstream, "world-2-beside")
    assert caught(OwnBarAlone, "world-2-beside") == {"UIO-096"}
    assert not caught(OwnBarAlone, "world-1-apart")


@pytest.mark.parametrize("wrong", [OneEntryShort, TableOfItsOwn, WholeWordsOnly, OneWord, SameBar, PagesFromTheOffset])
def test_wrong_sizes_show_at_some_boundary(wrong: type[Splits]) -> None:
    """What is a page or a word too short exports a page too many."""
    assert caught(wrong, *WORLDS) == {"UIO-085"}
