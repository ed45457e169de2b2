"""Page-table memory: the pages, their entries and headers, and how hardware walks them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import natural
from conformance.environment.tdp_mirror.words import PFN_MASK, is_leaf, pfn_of, present
from conformance.model.tdp_mirror import Config
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Page:
    """A page-table page, and what its header says."""

    __slots__ = (
        "entries", "external", "gfn", "grace", "header", "init", "invalid", "level", "linked", "listed", "pa", "parent",
        "raw", "refs", "removed", "role", "root", "shut",
    )  # fmt: skip

    def __init__(self, pa: int, init: int) -> None:
        self.pa = pa
        self.init = init
        """Value of entries that were never written."""
        self.entries: dict[int, int] = {}
        self.header = 0
        self.external = 0
        self.role = -1
        self.gfn = 0
        """Base gfn as the header says."""
        self.level = 0
        self.raw = 0
        """First gfn of the table with alias bits, once it is linked."""
        self.root: Page | None = None
        self.parent: tuple[Page, int] | None = None
        """Table and index of the entry that linked it."""
        self.linked = False
        self.removed = False
        """Whether it was linked and is not any more."""
        self.shut = False
        """Whether it was unlinked by a writer of mmu_lock, who knew that nobody was on the way to its entries."""
        self.grace = False
        """Whether call_rcu was made."""
        self.listed = False
        self.invalid = False
        self.refs = 0

    @property
    def is_mirror(self) -> bool:
        """As the role word says."""
        return bool(self.role >> k.ROLE_MIRROR & 1)

    def read(self, index: int) -> int:
        """An entry."""
        return self.entries.get(index, self.init)


class Tables(Simulator):
    """The memory in which page tables lie, and the hardware's walk through it.

    Nothing is judged here but that an address names a table: what a change of an entry may be is the business of
    `Changes`, how tables come into reach that of `Links`, who may read that of `Entries`.
    Not modelled: caches of the walk; the words of headers other than role, gfn and external page.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.ROOT_KIND_FIXED,
        c.NO_ALIAS_IN_CALLS,
        c.MIRROR_BEFORE_DIRECT,
        c.TABLE_GRACE_PERIOD,
    )

    def __init__(self, door: Environment, config: Config) -> None:
        super().__init__(door)
        self.bits = config.direct_bits
        self.entries = 1 << config.index_bits
        """Entries of a table."""
        self.index_bits = config.index_bits
        self.cover = config.cover
        self.pages: dict[int, Page] = {}
        self.before_init: Callable[[int, int, int], None] = lambda page, header, external: None
        """Hears which objects become a table: page, header and external page."""
        self.freed: set[int] = set()
        self.version = 0
        """Changes whenever what the tables mean may have."""
        self.dirtied = 0
        """Times that a leaf became dirty which was clean, or came dirty where none was."""
        self.bare = 0
        """A table that was accessed under mmu_lock for read alone, where no table may go under it."""
        self.gone_beside_readers = False
        """Whether a table was unlinked by somebody who was no writer of mmu_lock."""

    def digest(self) -> Hashable:
        """What the candidate goes by where RCU keeps no table."""
        return bool(self.bare)

    # -- memory

    def add(self, pa: int, init: int) -> None:
        """A page becomes a table, perhaps not for the first time."""
        self.freed.discard(pa)
        self.pages[pa] = Page(pa, init)

    def drop(self, pa: int) -> None:
        """A page is no table any more, if it was one."""
        if self.pages.pop(pa, None) is not None:
            self.freed.add(pa)

    def of(self, pa: int) -> Page:
        """The table at an address."""
        table = self.pages.get(pa)
        if table is None:
            if pa in self.freed:
                raise Violation(c.TABLE_GRACE_PERIOD, f"table {pa:#x} is used after it was freed")
            raise Violation(c.MIRROR_BEFORE_DIRECT, f"{pa:#x} is no page table")
        return table

    def with_external(self, page: int) -> Page | None:
        """The table whose header names an external page."""
        return next((table for table in self.pages.values() if table.external == page), None)

    def sp_init(self, page: int, header: int, role: int, gfn: int, external: int) -> None:
        """Fill in a header."""
        table = self.of(page)
        if table.linked or table.removed:
            raise Violation(c.ROOT_KIND_FIXED, f"sp_init({page:#x}): the table is in use")
        natural(gfn, self.bits, "sp_init")
        self.before_init(page, header, external)
        table.header, table.role, table.gfn, table.external = header, role, gfn, external

    # -- walks

    def gfn(self, table: Page, index: int) -> int:
        """Natural gfn of an entry."""
        return table.raw + index * self.cover(table.level) & ~self.bits

    def index(self, gfn: int, level: int) -> int:
        """Index of the entry of a table of this level that covers a raw gfn."""
        return gfn >> self.index_bits * (level - 1) & (self.entries - 1)

    def walk(self, table: Page) -> Iterator[tuple[Page, int, int]]:
        """Every present entry reachable from a table."""
        for index, entry in table.entries.items():
            if present(entry):
                yield table, index, entry
                if not is_leaf(entry, table.level):
                    yield from self.walk(self.pages[entry & PFN_MASK])

    def place(self, root: Page, raw: int) -> tuple[Page, int, int] | None:
        """Table, index and word of the leaf that maps a gfn with its alias bits; None for none."""
        table = root
        while True:
            index = self.index(raw, table.level)
            entry = table.read(index)
            if not present(entry):
                return None
            if is_leaf(entry, table.level):
                return table, index, entry
            table = self.pages[entry & PFN_MASK]

    def _leaf_of(self, root: Page, gfn: int) -> tuple[Page, int, int] | None:
        return self.place(root, gfn if root.is_mirror else gfn | self.bits)

    def lookup(self, root: Page, gfn: int) -> int:
        """Page frame that a root maps a gfn to, as hardware finds it; -1 for none."""
        found = self._leaf_of(root, gfn)
        if found is None:
            return -1
        table, _, entry = found
        return pfn_of(entry) + (gfn & (self.cover(table.level) - 1))

    def is_writable(self, root: Page, gfn: int) -> bool:
        """Whether a root lets a gfn be written."""
        found = self._leaf_of(root, gfn)
        return found is not None and bool(found[2] >> k.WRITE & 1)
