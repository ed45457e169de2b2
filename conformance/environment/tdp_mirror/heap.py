"""Objects of the MMU: where they come from, who has them, and when they may be freed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.frozen import FrozenEntries
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.vcpus import Vcpus
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment

_KIND_NAMES = {k.HEADER: "header", k.TABLE: "table", k.EXTERNAL: "external page"}


class Cache:
    """Objects of each kind that a vCPU has in store."""

    __slots__ = ("init", "stored")

    def __init__(self) -> None:
        self.stored = [0, 0, 0]
        self.init = 0
        """What entries of its tables begin as."""


class Heap(Simulator):
    """The allocator: headers, tables and external pages, directly or through the caches of vCPUs.

    An object is loose while it is in nobody's structure: freshly allocated, or past its grace period. Then some
    thread has it, which must link it or give it back. Addresses are not used again.
    Not modelled: how large a cache really is; it holds at least what was asked for last.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.ALLOCATION_BEFORE_LOCK,
        c.BALANCED,
        c.FAILED_FREE_LEAKS,
        c.TABLE_GRACE_PERIOD,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "cache_topup": (c.ALLOCATION_BEFORE_LOCK,),
        "page_alloc": (c.ALLOCATION_BEFORE_LOCK,),
    }

    def __init__(
        self,
        door: Environment,
        threads: Threads,
        mmu_lock: MmuLock,
        tables: Tables,
        vcpus: Vcpus,
        frozen: FrozenEntries,
    ) -> None:
        super().__init__(door)
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.tables = tables
        self.vcpus = vcpus
        self.frozen = frozen
        self.next_page = 0x1000
        self.free: dict[int, list[int]] = {kind: [] for kind in _KIND_NAMES}
        """Addresses of objects that were given back, by kind, the latest last."""
        self.objects: dict[int, int] = {}
        """Address to kind of every object that is allocated."""
        self.loose: dict[int, int] = {}
        """Objects in nobody's structure yet, or any more: address to the thread that has them."""
        self.stock: set[int] = set()
        """Those of them that were allocated for a vCPU outside its caches, and not yet used: a stock may be kept."""
        self.owned: set[int] = set()
        """External pages that the TD owns, or may own since it did not give them back."""
        self.leaked = 0
        """Pages that are lost to the host."""
        self.withheld: set[int] = set()
        """Those of them that the TD did not give back when it was asked to."""
        self.caches: dict[int, Cache] = {}
        """By vCPU."""
        tables.before_init = self.use

    def _new(self, kind: int, init: int) -> int:
        """The object that was freed last, as allocators do, or one that was never used."""
        free = self.free[kind]
        if free:
            pa = free.pop()
        else:
            self.next_page += 1
            pa = self.next_page << k.PAGE_SHIFT
        self.objects[pa] = kind
        self.loose[pa] = self.threads.me
        if kind == k.TABLE:
            self.tables.add(pa, init)
        return pa

    def _may_sleep(self, what: str) -> None:
        if self.mmu_lock.is_held(self.threads.me):
            raise Violation(c.ALLOCATION_BEFORE_LOCK, f"{what} under mmu_lock")

    def _cache(self, vcpu: int) -> Cache:
        cache = self.caches.get(vcpu)
        if cache is None:
            self.vcpus.of(vcpu)
            cache = self.caches[vcpu] = Cache()
        return cache

    # -- whose an object is

    def use(self, *objects: int) -> None:
        """A thread takes them from a stock, and has to do something with them."""
        for pa in objects:
            if pa in self.stock:
                self.stock.discard(pa)
                self.loose[pa] = self.threads.me

    def take(self, *objects: int) -> None:
        """They are in a structure now."""
        for pa in objects:
            self.loose.pop(pa, None)

    def let_go(self, table: Page) -> None:
        """Nobody can reach a table any more: its objects are those of the thread that its callback runs on."""
        me = self.threads.me
        for pa in (table.pa, table.header, table.external):
            if pa in self.objects and pa not in self.owned:
                self.loose[pa] = me

    def give_to_td(self, page: int) -> None:
        """The TD has an external page."""
        self.owned.add(page)

    def take_from_td(self, page: int) -> None:
        """It has given the page back."""
        self.owned.discard(page)

    def withhold(self, page: int) -> None:
        """The TD does not give the page back: it is lost, whether or not somebody says so."""
        self.leaked += 1
        self.withheld.add(page)

    def is_spare(self, pa: int, kind: int) -> bool:
        """Whether it is an object of this kind that is in no structure."""
        return self.objects.get(pa) == kind and pa in self.loose

    def none_left(self, me: int, clause: Clause) -> None:
        """Whoever returns keeps no object to himself, but for a stock."""
        for pa, owner in self.loose.items():
            if owner == me and pa not in self.stock:
                raise Violation(clause, f"{_KIND_NAMES[self.objects[pa]]} {pa:#x} is neither linked nor given back")

    def end_vcpu(self, vcpu: int) -> None:
        """A vCPU is gone, with empty caches."""
        if any(self._cache(vcpu).stored):
            raise Violation(c.BALANCED, f"the caches of vCPU {vcpu} still hold objects")
        del self.caches[vcpu]

    # -- environment calls

    def cache_topup(self, vcpu: int, kind: int, count: int, init: int) -> int:
        """Fill a cache; sleeps, so never under mmu_lock (TDP-071)."""
        self._may_sleep("cache_topup")
        refusal = self.door.refused("cache_topup")
        if refusal:
            return refusal
        cache = self._cache(vcpu)
        cache.stored[kind] = max(cache.stored[kind], count)
        if kind == k.TABLE:
            cache.init = init
        return 0

    def cache_alloc(self, vcpu: int, kind: int) -> int:
        """Take an object; the cache must hold one (TDP-071)."""
        cache = self._cache(vcpu)
        self.frozen.may_map("cache_alloc")
        if cache.stored[kind] <= 0:
            raise Violation(c.ALLOCATION_BEFORE_LOCK, f"cache of {_KIND_NAMES[kind]}s is empty")
        cache.stored[kind] -= 1
        return self._new(kind, cache.init)

    def cache_free(self, vcpu: int) -> None:
        """Empty the caches of a vCPU."""
        self._cache(vcpu).stored = [0, 0, 0]

    def page_alloc(self, kind: int, init: int) -> int:
        """Allocate; sleeps."""
        self._may_sleep("page_alloc")
        door = self.door
        if door.scheduler is not None and type(self.threads.op) is ops.SplitHuge:
            door.frame.given.setdefault("lock_dropped", 1)
        if door.refused("page_alloc"):
            return 0
        page = self._new(kind, init)
        if hasattr(self.threads.op, "vcpu"):
            self.stock.add(page)
        return page

    def page_free(self, page: int) -> None:
        """Free an object that nobody can reach (TDP-085) and the TD does not own (TDP-078)."""
        if page not in self.objects:
            raise Violation(c.BALANCED, f"page_free({page:#x}): not allocated, or freed twice")
        if page in self.owned:
            raise Violation(c.FAILED_FREE_LEAKS, f"page_free({page:#x}): the external tree owns that page")
        if page not in self.loose:
            raise Violation(c.TABLE_GRACE_PERIOD, f"page_free({page:#x}): still reachable, or no grace period")
        self.free[self.objects.pop(page)].append(page)
        del self.loose[page]
        self.stock.discard(page)
        self.tables.drop(page)

    def page_leak(self, page: int) -> None:
        """Give up a page that the firmware did not give back."""
        if page not in self.owned:
            raise Violation(c.BALANCED, f"page_leak({page:#x}): nothing forbids to free that page")
        self.leaked += page not in self.withheld
        self.owned.discard(page)
        self.objects.pop(page, None)
        self.loose.pop(page, None)
