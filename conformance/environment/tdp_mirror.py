"""The world of a TDP MMU: page-table memory, locks, RCU, TLBs, the external tree, slots and the TD.

Page-table words live here. Every change of a word is judged where it happens: who holds which
lock, who froze the entry, what the external tree was told. What the words mean is the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

from conformance.environment.door import Environment
from conformance.model.tdp_mirror import Config, View
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.operations import Table
from conformance.model.tdp_mirror.state import (
    BLOCKED,
    GMEM_SOURCES,
    HVA_SOURCES,
    MAPPED,
    NONE,
    PENDING,
    PENDING_BLOCKED,
    ExternalLeaf,
    Gfns,
    Leaf,
    gfns_in_slots,
)
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Port, Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import EBUSY, EEXIST, EIO, FROZEN, INVALID_PAGE, NONPRESENT
from conformance.subsystem import Check
from conformance.verdict import Crash, Violation

CALLS = 150_000
"""Environment calls within one operation after which a candidate hangs."""

BUGS = 100
"""VM bugs within one operation after which it counts as a loop that spins on a dead VM."""

_PFN_MASK = ((1 << k.PFN_BITS) - 1) << k.PAGE_SHIFT
_PLACE = 37
"""Pages of one source are 2**37 frames apart, so a frame number tells its gfn and its source."""
_SOURCES = {i + 1: name for i, name in enumerate(HVA_SOURCES + GMEM_SOURCES)}
_ORIGIN = {name: i << _PLACE for i, name in _SOURCES.items()}
_MAPPING = (ops.PageFault, ops.TdpMap, ops.Prefault, ops.EptViolation, ops.InitRegion)
"""Operations that map."""
_PROTECTING = (ops.WrprotSlot, ops.WriteProtectGfn, ops.ClearDirtySlot, ops.ClearDirtyMasked)
"""Operations that may take note of dirty pages and clear their bits."""
_SHARED_ONLY = (*_PROTECTING, ops.Age, ops.SplitHuge, ops.RecoverHuge, ops.ZapSp, ops.FastFault)
"""Operations that never alter a mirror (TDP-095)."""
_GUEST = (ops.Access, ops.Accept)
"""What a vCPU does in the guest, with no part of the candidate in it."""
_WARNED_OF = (
    c.MATCH_NEEDS_KIND,
    c.FILTER_TO_TYPES,
    c.EMPTY_FILTER_NOT_SILENT,
    c.WALK_START_BOUND,
    c.INVALIDATE_IGNORES_INVALID_BIT,
)
"""Clauses that ask for a warning."""
_WARNINGS: dict[type, frozenset[Clause]] = {
    ops.RootMatch: frozenset({c.MATCH_NEEDS_KIND}),
    ops.FilterToTypes: frozenset({c.FILTER_TO_TYPES, c.EMPTY_FILTER_NOT_SILENT}),
    ops.ZapLeafs: frozenset({c.WALK_START_BOUND}),
    ops.InvalidateRoots: frozenset({c.INVALIDATE_IGNORES_INVALID_BIT, c.MATCH_NEEDS_KIND}),
}
"""What a warning within an operation can be about; the others may warn of anything."""
_HOOK_CLAUSES = {
    "ext_link": c.LINK_ARGUMENTS,
    "ext_set": c.SET_ARGUMENTS,
    "ext_remove": c.REMOVAL_SEQUENCE,
    "ext_free": c.FREE_ARGUMENTS,
}
"""What a hook breaks that fails though the firmware had nothing against it."""
_ZAPPING = (ops.ZapInvalidated, ops.ZapAllFast, ops.VmUninit)
"""Operations that put the MMU's references to roots."""
_KIND_NAMES = {k.HEADER: "header", k.TABLE: "table", k.EXTERNAL: "external page"}


def _present(entry: int) -> int:
    return entry >> k.PRESENT & 1


def _is_leaf(entry: int, level: int) -> bool:
    return bool(entry >> k.PRESENT & 1) and (level == 1 or bool(entry >> k.HUGE & 1))


class Page:
    """A page-table page, and what its header says."""

    __slots__ = (
        "entries", "external", "gfn", "grace", "header", "init", "invalid", "level", "linked", "listed", "pa", "parent",
        "raw", "refs", "removed", "role", "root",
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


class Vcpu:
    """What hardware and the kernel hold of a vCPU."""

    __slots__ = ("cached", "epoch", "init", "mirror", "pgd", "requests", "root", "tlb")

    def __init__(self) -> None:
        self.root = INVALID_PAGE
        self.mirror = INVALID_PAGE
        self.pgd: Page | None = None
        """The direct root that hardware walks."""
        self.tlb: dict[int, tuple[Page, int, bool, Page]] = {}
        """Shared translations: gfn to root, page frame, whether it is writable, and the table that held the leaf."""
        self.cached = [0, 0, 0]
        self.init = 0
        self.requests: set[int] = set()
        self.epoch = -1
        """TLB epoch in which it entered the guest, -1 outside."""


class Thread:
    """What one thread of the candidate holds within an operation."""

    __slots__ = (
        "bugs",
        "excused",
        "exit",
        "failed",
        "flush",
        "gave_up",
        "grabbed",
        "in_guest",
        "invalidating",
        "kicked",
        "lost",
        "may_block",
        "met_frozen",
        "moving",
        "op",
        "phase",
        "ranges",
        "rcu",
        "refusals",
        "refused_last",
        "seen",
        "sept_failed",
        "slots",
        "srcu",
        "stale",
    )  # fmt: skip

    def __init__(self, op: Any) -> None:
        self.op = op
        self.rcu = 0
        self.srcu = 0
        self.grabbed = 0
        """References to guest pages."""
        self.phase = 0
        """1 after a snapshot of the invalidation sequence, 2 after attributes were read then."""
        self.may_block = True
        self.invalidating = 0
        self.ranges: list[tuple[int, int]] = []
        """Ranges of the invalidations that it has begun."""
        self.exit: tuple[int, ...] = ()
        self.seen: dict[int, int] = {}
        """Attributes read so far in this operation."""
        self.moving: tuple[str, int, int] | None = None
        """Pages that go back to the host when the invalidation of this operation ends."""
        self.bugs = 0
        self.failed = False
        """Whether an external operation failed."""
        self.flush = False
        """Whether the caller came with a flush pending."""
        self.slots = 0
        self.lost: tuple[int, int] | None = None
        """page and index of the last freeze that was lost."""
        self.gave_up = False
        """Whether it met one the last time that it had the lock, and so must say RETRY."""
        self.met_frozen = False
        """Whether this mapper met a frozen entry since it took mmu_lock."""
        self.in_guest = False
        """Whether this is a vCPU that runs the guest."""
        self.stale: tuple[int, int, int, int] | None = None
        """The last failed exchange: page, index, expected, found."""
        self.refused_last = ""
        """The last SEAMCALL, if the firmware refused it for a reason of its own."""
        self.begin_hook()

    def begin_hook(self) -> None:
        """Nothing was asked of the firmware yet."""
        self.kicked = False
        """Whether vCPUs were kicked out of the guest."""
        self.refusals: dict[str, int] = {}
        """Statuses of the SEAMCALLs that were refused."""
        self.sept_failed = False
        """Whether a removal failed for good."""
        self.excused = False
        """Whether the firmware refused something for a reason of its own."""


class SecureEpt:
    """The firmware's page table of one TD: its leaf functions answer with a status and have no opinion.

    An entry is named by its first gfn and its level as the kernel counts levels; an entry that is in none of
    the maps is FREE. Source: TDX module 1.5, tdh_mem_*.c, sept_state_lookup and is_tlb_tracked.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runnable = not config.deep
        self.key = True
        """Whether the TD has its key; without it the TD is torn down."""
        self.tables: dict[Table, int] = {}
        """Level and base gfn of each table to its page."""
        self.leaves: dict[tuple[int, int], int] = {}
        """gfn and level of each leaf to its page frame."""
        self.pending: set[tuple[int, int]] = set()
        self.blocked: dict[tuple[int, int], int] = {}
        """gfn and level of each blocked entry to the epoch in which it was blocked."""
        self.assigned: set[int] = set()
        """Page frames that the TD has."""
        self.epoch = 1
        self.inside = [0, 0]
        """vCPUs in the guest, by the parity of the epoch in which they entered."""
        self.sharing: dict[int, str] = {}
        """Who is inside a call, to what it holds: the tree "shared" or "exclusive", "none", or the "root" of the TD."""

    # -- locks and epochs

    def acquire(self, who: int, how: str) -> int:
        """Hold the tree of the TD for one call; 0 or busy, as somebody else holds it."""
        others = [held for holder, held in self.sharing.items() if holder != who]
        if "root" in others or (how == "root" and others):
            return k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_TDR
        if ("exclusive" in others and how != "none") or (how == "exclusive" and "shared" in others):
            return k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT
        self.sharing[who] = how
        return k.TDX_SUCCESS

    def release(self, who: int) -> None:
        """The call is over."""
        self.sharing.pop(who, None)

    def enter(self) -> int:
        """A vCPU enters the guest; the epoch in which it does."""
        self.inside[self.epoch & 1] += 1
        return self.epoch

    def leave(self, epoch: int) -> None:
        """It leaves."""
        self.inside[epoch & 1] -= 1

    def is_tracked(self, blocked: int) -> bool:
        """Whether no TLB can hold what was blocked in that epoch."""
        return blocked < self.epoch - 1 or (blocked == self.epoch - 1 and not self.inside[blocked & 1])

    def track(self) -> int:
        """MEM.TRACK: a new epoch, unless a vCPU is still in the one before the last."""
        if not self.key:
            return k.TDX_OPERAND_INVALID
        if self.inside[self.epoch - 1 & 1]:
            return k.TDX_PREVIOUS_TLB_EPOCH_BUSY
        self.epoch += 1
        return k.TDX_SUCCESS

    # -- reading

    def _walk(self, gfn: int, level: int) -> int:
        """Whether an entry can be named at all, and is reached."""
        beyond = gfn < 0 or gfn >= self.config.cover(self.config.levels + 1)
        if not self.key or beyond or gfn & self.config.direct_bits or gfn & self.config.cover(level) - 1:
            return k.TDX_OPERAND_INVALID
        if any(table not in self.tables for table in self.config.path(gfn, level)):
            return k.TDX_EPT_WALK_FAILED
        return k.TDX_SUCCESS

    def _is_table(self, gfn: int, level: int) -> bool:
        return (level - 1, gfn) in self.tables

    def _wrong_leaf(self, gfn: int, level: int) -> int:
        """Why there is no such leaf."""
        if self._is_table(gfn, level):
            return k.TDX_PAGE_SIZE_MISMATCH | k.TDX_OPERAND_ID_RCX
        return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX

    def _out_of_reach(self, gfn: int, level: int) -> int:
        """Whether the guest may still reach an entry that is to change: it must be blocked and tracked."""
        if not self.runnable:
            return k.TDX_SUCCESS
        if (gfn, level) not in self.blocked:
            return k.TDX_GPA_RANGE_NOT_BLOCKED | k.TDX_OPERAND_ID_RCX
        if not self.is_tracked(self.blocked[gfn, level]):
            return k.TDX_TLB_TRACKING_NOT_DONE | k.TDX_OPERAND_ID_RCX
        return k.TDX_SUCCESS

    def state(self, gfn: int, level: int = 1) -> str:
        """State of a leaf, "" while there is none."""
        if (gfn, level) not in self.leaves:
            return ""
        if (gfn, level) in self.blocked:
            return PENDING_BLOCKED if (gfn, level) in self.pending else BLOCKED
        return PENDING if (gfn, level) in self.pending else MAPPED

    def has_page(self, pfn: int) -> bool:
        """Whether the tree maps a page frame."""
        return pfn in self.leaves.values()

    def view(self) -> frozenset[ExternalLeaf]:
        """The leaves."""
        return frozenset(
            (gfn, level, _source_of(pfn, gfn), self.state(gfn, level)) for (gfn, level), pfn in self.leaves.items()
        )

    # -- building

    def sept_add(self, gfn: int, level: int, page: int) -> int:
        """MEM.SEPT.ADD: a table under a free entry."""
        status = self._walk(gfn, level) if level > 1 else k.TDX_OPERAND_INVALID
        return status or self._free(gfn, level) or self._assign(page >> k.PAGE_SHIFT) or self._link(gfn, level, page)

    def _link(self, gfn: int, level: int, page: int) -> int:
        self.tables[level - 1, gfn] = page
        return k.TDX_SUCCESS

    def _free(self, gfn: int, level: int) -> int:
        if self._is_table(gfn, level) or (gfn, level) in self.leaves:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        return k.TDX_SUCCESS

    def _assign(self, pfn: int) -> int:
        """A page can be in the tree once."""
        if pfn in self.assigned:
            return k.TDX_PAGE_METADATA_INCORRECT
        self.assigned.add(pfn)
        return k.TDX_SUCCESS

    def _map(self, gfn: int, level: int, pfn: int, *, pending: bool) -> int:
        status = self._walk(gfn, level) or self._free(gfn, level) or self._assign(pfn)
        if not status:
            self.leaves[gfn, level] = pfn
            if pending:
                self.pending.add((gfn, level))
        return status

    def page_add(self, gfn: int, pfn: int) -> int:
        """MEM.PAGE.ADD, before the TD runs."""
        return k.TDX_OPERAND_INVALID if self.runnable else self._map(gfn, 1, pfn, pending=False)

    def page_aug(self, gfn: int, level: int, pfn: int) -> int:
        """MEM.PAGE.AUG, once it runs."""
        if not self.runnable or level not in (1, 2):
            return k.TDX_OPERAND_INVALID
        return self._map(gfn, level, pfn, pending=True)

    def accept(self, gfn: int, level: int = 1) -> int:
        """The guest's MEM.PAGE.ACCEPT."""
        status = self._walk(gfn, level)
        if status:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT if status == k.TDX_EPT_WALK_FAILED else status
        if self._is_table(gfn, level):
            return k.TDX_PAGE_SIZE_MISMATCH
        state = self.state(gfn, level)
        if state == MAPPED:
            return k.TDX_PAGE_ALREADY_ACCEPTED
        if state != PENDING:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT
        self.pending.discard((gfn, level))
        return k.TDX_SUCCESS

    # -- taking apart

    def range_block(self, gfn: int, level: int) -> int:
        """MEM.RANGE.BLOCK: no new translations; notes the epoch."""
        status = self._walk(gfn, level)
        if status:
            return status
        if not self._is_table(gfn, level) and (gfn, level) not in self.leaves:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        if (gfn, level) in self.blocked:
            return k.TDX_GPA_RANGE_ALREADY_BLOCKED
        self.blocked[gfn, level] = self.epoch
        return k.TDX_SUCCESS

    def range_unblock(self, gfn: int, level: int) -> int:
        """MEM.RANGE.UNBLOCK: of what is blocked and tracked."""
        status = self._walk(gfn, level)
        if status:
            return status
        if (gfn, level) not in self.blocked:
            return k.TDX_GPA_RANGE_NOT_BLOCKED | k.TDX_OPERAND_ID_RCX
        if not self.is_tracked(self.blocked[gfn, level]):
            return k.TDX_TLB_TRACKING_NOT_DONE | k.TDX_OPERAND_ID_RCX
        del self.blocked[gfn, level]
        return k.TDX_SUCCESS

    def page_remove(self, gfn: int, level: int) -> int:
        """MEM.PAGE.REMOVE of a leaf."""
        status = self._walk(gfn, level)
        if not status and (gfn, level) not in self.leaves:
            status = self._wrong_leaf(gfn, level)
        status = status or self._out_of_reach(gfn, level)
        if not status:
            self.forget(gfn, level)
        return status

    def forget(self, gfn: int, level: int = 1) -> None:
        """A leaf is gone, and its page is the host's."""
        pfn = self.leaves.pop((gfn, level), None)
        if pfn is not None:
            self.assigned.discard(pfn)
        self.pending.discard((gfn, level))
        self.blocked.pop((gfn, level), None)

    def sept_remove(self, gfn: int, level: int) -> int:
        """MEM.SEPT.REMOVE of an empty table."""
        status = self._walk(gfn, level)
        if not status and not self._is_table(gfn, level):
            status = k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        if not status and self.below(gfn, level):
            status = k.TDX_EPT_PAGE_NOT_FREE
        status = status or self._out_of_reach(gfn, level)
        if not status:
            self.assigned.discard(self.tables.pop((level - 1, gfn)) >> k.PAGE_SHIFT)
            self.blocked.pop((gfn, level), None)
        return status

    def below(self, gfn: int, level: int) -> bool:
        """Whether anything hangs below the table that an entry links."""
        end = gfn + self.config.cover(level)
        return any(lv < level - 1 and gfn <= base < end for lv, base in self.tables) or any(
            lv < level and gfn <= leaf < end for leaf, lv in self.leaves
        )

    # -- other sizes

    def page_demote(self, gfn: int, level: int, page: int) -> int:
        """MEM.PAGE.DEMOTE: a huge leaf becomes a table of leaves in the same state."""
        status = self._walk(gfn, level)
        if not status and (gfn, level) not in self.leaves:
            status = self._wrong_leaf(gfn, level)
        status = status or self._out_of_reach(gfn, level) or self._assign(page >> k.PAGE_SHIFT)
        if status:
            return status
        pfn, pending = self.leaves[gfn, level], (gfn, level) in self.pending
        self.forget(gfn, level)
        self.tables[level - 1, gfn] = page
        step = self.config.cover(level - 1)
        for offset in range(0, self.config.cover(level), step):
            self.leaves[gfn + offset, level - 1] = pfn + offset
            self.assigned.add(pfn + offset)
            if pending:
                self.pending.add((gfn + offset, level - 1))
        return k.TDX_SUCCESS

    def page_promote(self, gfn: int, level: int) -> int:
        """MEM.PAGE.PROMOTE: a full table of leaves side by side and alike becomes a huge leaf."""
        status = self._walk(gfn, level)
        if not status and not self._is_table(gfn, level):
            status = k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        status = status or self._out_of_reach(gfn, level)
        if status:
            return status
        places = [(gfn + n, level - 1) for n in range(0, self.config.cover(level), self.config.cover(level - 1))]
        first = self.leaves.get(places[0], -1)
        alike = len({self.state(*place) for place in places}) == 1
        side_by_side = all(self.leaves.get(place) == first + place[0] - gfn for place in places)
        if first & self.config.cover(level) - 1 or not alike or not side_by_side or places[0] in self.blocked:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        pending = places[0] in self.pending
        for place in places:
            self.forget(*place)
        self.assigned.discard(self.tables.pop((level - 1, gfn)) >> k.PAGE_SHIFT)
        self.blocked.pop((gfn, level), None)
        self.leaves[gfn, level] = first
        self.assigned.add(first)
        if pending:
            self.pending.add((gfn, level))
        return k.TDX_SUCCESS

    # -- the end

    def reclaim(self, page: int) -> int:
        """PHYMEM.PAGE.RECLAIM of a page of a TD that is torn down."""
        if self.key:
            return k.TDX_OPERAND_INVALID
        if page >> k.PAGE_SHIFT not in self.assigned:
            return k.TDX_PAGE_METADATA_INCORRECT
        self.assigned.discard(page >> k.PAGE_SHIFT)
        self.tables = {table: linked for table, linked in self.tables.items() if linked != page}
        return k.TDX_SUCCESS

    def reclaim_root(self) -> int:
        """PHYMEM.PAGE.RECLAIM of the TD's root page: only once it has no other page."""
        if self.key:
            return k.TDX_OPERAND_INVALID
        return k.TDX_TD_ASSOCIATED_PAGES_EXIST if self.assigned else k.TDX_SUCCESS


class TdpMirror(Environment):
    """The kernel around the TDP MMU, the hardware and the firmware below it."""

    PORT = Port
    CALL_CLAUSES: ClassVar[dict[str, tuple[Clause, ...]]] = {
        "pt_read": (c.RCU_PROTECTED,),
        "pt_cmpxchg": (c.ATOMIC_UPDATES, c.NONPRESENT_ENCODING),
        "pt_store": (c.ATOMIC_UPDATES, c.NONPRESENT_ENCODING),
        "memslot": (c.NO_ALIAS_IN_CALLS,),
        "gmem_get_pfn": (c.SNAPSHOT_FIRST, c.NO_ALIAS_IN_CALLS),
        "hva_get_pfn": (c.SNAPSHOT_FIRST, c.NO_ALIAS_IN_CALLS),
        "cache_topup": (c.ALLOCATION_BEFORE_LOCK,),
        "page_alloc": (c.ALLOCATION_BEFORE_LOCK,),
        "role_invalidate": (c.INVALIDATE_WRITE_LOCK,),
        "roots_del": (c.FREED_AFTER_GRACE,),
        "roots_add": (c.ROOT_KIND_FIXED, c.ONE_ROOT_PER_ROLE, c.ROOT_WITHOUT_EXTERNAL),
        "ext_link": (c.BUILD_TOP_DOWN, c.LINK_ARGUMENTS, c.PRESENT_NOT_SET_AGAIN),
        "ext_set": (c.BUILD_TOP_DOWN, c.SET_ARGUMENTS, c.PRESENT_NOT_SET_AGAIN),
        "ext_remove": (c.REMOVE_WRITE_LOCKED, c.REMOVE_ARGUMENTS, c.HKID_ORDER),
        "ext_free": (c.FREE_BOTTOM_UP, c.FREE_ARGUMENTS, c.HKID_ORDER),
    }

    def __init__(self, config: Config, profile: Profile) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.calls = CALLS
        self.bits = config.direct_bits
        self.entries_per_table = 1 << config.index_bits
        self.threads = [Thread(None), Thread(None)]
        self.active = 0
        self.performed: Any = None
        """The operation that ended last."""
        self.next_page = 0x1000
        self.pages: dict[int, Page] = {}
        self.objects: dict[int, int] = {}
        """Address to kind of every object that is allocated."""
        self.loose: dict[int, int] = {}
        """Objects in nobody's structure yet, or any more: address to the thread that has them."""
        self.freed: set[int] = set()
        self.owned: set[int] = set()
        """External pages that the TD owns, or may own since it did not give them back."""
        self.leaked = 0
        self.roots: list[Page] = []
        self.vcpus: list[Vcpu | None] = [None] * config.vcpus
        self.readers = [0, 0]
        self.writer = -1
        self.pages_holder = -1
        self.slots_holder = -1
        self.waiting_rcu: list[tuple[int, set[int]]] = []
        self.barrier = False
        self.frozen: dict[tuple[int, int], tuple[int, int]] = {}
        """(page, index) to the thread that froze the entry, and what was there."""
        self.agreed: dict[tuple[int, int], int] = {}
        """(page, index) to what the external tree agreed to: a page frame, or 0 for a table."""
        self.cleared: dict[int, tuple[int, int]] = {}
        """gfn of a mirror leaf that was cleared to its page frame and thread; the external tree does not know yet."""
        self.unflushed: set[int] = set()
        self.unannounced = False
        """Whether a root was invalidated and vCPUs were not asked yet to drop it."""
        self.pgtables = 0
        self.linked_tables = 0
        self.stats: dict[int, int] = {}
        self.leaf_counts: dict[int, int] = {}
        self.slots: dict[int, ops.Slot] = {slot[0]: slot for slot in config.slots}
        self.private_gfns = Gfns.of(*config.private_gfns)
        self.moved = {"hva": Gfns(), "gmem": Gfns()}
        self.sept = SecureEpt(config)
        self.premap_count = 0
        self.pins: dict[int, int] = {}
        self.unclean: dict[int, set[str]] = {}
        self.td = k.TD_INIT if config.deep else k.TD_RUNNABLE
        self.allowed = not config.deep or config.early
        self.hkid = True
        self.sept_wait = False
        self.sept_waiter = 0
        self.handed_back = 0
        """Page that went back to the host though the TD may still map it, where that is not forbidden."""
        self.removal_failed = False
        """Whether the firmware did not let go of a page, once."""
        self.bugged = False
        self.warned: set[Clause] = set()
        """What was warned of so far; a warning of a kind need not come twice."""
        self.sequence = 0
        self.invalidations: list[tuple[int, int]] = []
        self.version = 0
        self._seen: tuple[int, Any] = (-1, None)
        self._settled = (-1, Gfns())

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Create the candidate and let it initialise the VM."""
        super().start(factory)
        config = self.config
        self.enter_int(
            self.driver.vm_init, int(config.mirror), self.bits, config.levels, config.index_bits, config.max_gfn,
            int(config.private),
        )  # fmt: skip

    # -- threads and the borders of an operation

    @property
    def me(self) -> int:
        """Number of the running thread."""
        return self.scheduler.running if self.scheduler is not None else 0

    @property
    def thread(self) -> Thread:
        """What the running thread holds."""
        return self.threads[self.scheduler.running if self.scheduler is not None else 0]

    def can_interrupt(self, op: Any) -> bool:
        """Guest accesses always; anything else only while nobody holds a lock."""
        thread = self.thread
        if not self.can_run_beside(thread.op, op):
            return False
        if type(op) in _GUEST:
            return True
        free = self.writer < 0 and not any(self.readers) and self.pages_holder < 0 and self.slots_holder < 0
        return free and not thread.rcu and not (thread.srcu and type(op) in (ops.SlotDelete, ops.SlotMove))

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """A vCPU does one thing at a time."""
        vcpu = getattr(left, "vcpu", None)
        return vcpu is None or vcpu != getattr(right, "vcpu", None)

    def perform(self, op: Any) -> Any:
        """One operation, and what must be true when it returns."""
        me = self.me
        outer = self.threads[me]
        self.threads[me] = thread = Thread(op)
        self.active += 1
        try:
            vcpu = getattr(op, "vcpu", -1)
            if self.config.deep and vcpu >= 0 and type(op) not in _GUEST:
                self._leave_guest(self.vcpus[vcpu])
            result = self.OPERATIONS[type(op)](self, op)
            self._leave(me, thread, nested=outer.op is not None)
        finally:
            self.active -= 1
            self.threads[me] = outer
            self.performed = op
        if not self.active:
            self._settle()
        return result

    def _leave(self, me: int, thread: Thread, *, nested: bool) -> None:
        """Nothing the thread took may be left; what it interrupted may hold a few things."""
        if nested:
            return
        held = [
            name
            for name, value in (
                ("the RCU read lock", thread.rcu),
                ("SRCU", thread.srcu),
                ("a reference to a guest page", thread.grabbed),
                ("mmu_lock", self.readers[me] or self.writer == me),
                ("pages_lock", self.pages_holder == me),
                ("slots_lock", self.slots_holder == me),
                ("an invalidation", thread.invalidating),
            )
            if value
        ]
        if held:
            self._violate(c.BALANCED, f"the call returns with {', '.join(held)} held")
        for (pa, index), (owner, _) in self.frozen.items():
            if owner == me:
                self._violate(c.NOTHING_LEFT_FROZEN, f"entry {index} of table {pa:#x} is left frozen")
        self.hold(c.NOTHING_LEFT_FROZEN)
        for gfn, (pfn, owner) in self.cleared.items():
            if owner == me:
                self._violate(
                    c.REMOVE_ARGUMENTS, f"mirror leaf of gfn {gfn:#x} cleared, page {pfn:#x} not removed outside"
                )
        for pa, owner in self.loose.items():
            if owner == me:
                clause = c.FAILED_EXTERNAL_RESTORES if thread.failed else c.BALANCED
                self._violate(clause, f"{_KIND_NAMES[self.objects[pa]]} {pa:#x} is neither linked nor given back")
        self.hold(c.BALANCED)
        self.hold(c.ROBUSTNESS)
        if self.sept_wait and self.sept_waiter == me:
            self._violate(c.BUSY_RETRY_ONCE, "wait_for_sept_zap is left set")

    def _settle(self) -> None:
        """Sums that hold while no operation is in progress."""
        if self.pgtables != self.linked_tables:
            self._violate(c.STATISTICS, f"{self.linked_tables} tables are linked, {self.pgtables} are accounted")
        for level in self.stats.keys() | self.leaf_counts.keys():
            counted, real = self.stats.get(level, 0), self.leaf_counts.get(level, 0)
            if counted != real:
                self._violate(c.STATISTICS, f"{real} leaves of level {level}, statistics say {counted}")
        self.hold(c.STATISTICS)
        if self.config.mirror and not self.bugged and self._settled != (self.version, self.private_gfns):
            self._settled = (self.version, self.private_gfns)
            self._halves()
        if self.config.deep and not self.bugged:
            pages = list(self.sept.leaves.values())
            if not self.sept.runnable:
                pages += [self._page(leaf[0], True) for leaf in self._meaning()[0]]
            wanted = dict.fromkeys(pages, 1)
            pins = {pfn: n for pfn, n in self.pins.items() if n}
            if pins != wanted and (pins or self.profile.pins_pages):
                self._violate(c.BALANCED, f"pages pinned {_hex(pins)}, pages of the TD {_hex(wanted)}")

    def at_switch(self) -> None:
        """Between two threads: the mirror is the external tree, but for entries that somebody is at (R2)."""
        if not self.config.mirror or self.bugged:
            return
        private, _, _, (tables, _) = self._meaning()
        frozen = {
            (self._gfn(self.pages[pa], index), self.pages[pa].level)
            for pa, index in self.frozen
            if self.pages[pa].root is not None
        }
        for level, gfn in tables ^ self.sept.tables.keys():
            if (level, gfn) in tables or (gfn, level + 1) not in frozen:
                self._violate(
                    c.FREEZE_EXTERNAL_PUBLISH,
                    f"mirror and external tree differ in the table of level {level} at {gfn:#x}",
                )
        mapped = {gfn for gfn, *_ in private}
        outside = {gfn for gfn, _ in self.sept.leaves}
        for gfn in mapped ^ outside:
            premapped = gfn in mapped and not self.sept.runnable and self.profile.premapped
            if not premapped and (gfn in mapped or ((gfn, 1) not in frozen and gfn not in self.cleared)):
                self._violate(c.FREEZE_EXTERNAL_PUBLISH, f"mirror and external tree differ in the leaf at {gfn:#x}")
        self.hold(c.FREEZE_EXTERNAL_PUBLISH)

    def _halves(self) -> None:
        """What is mapped in a half has its attribute (TDP-090); huge leaves cover no mixed range (TDP-092)."""
        private, shared, _, _ = self._meaning()
        op = self.performed
        if type(op) is ops.PageFault and op.private == (not self.bits or bool(op.gpa >> k.PAGE_SHIFT & self.bits)):
            return
        for gfn, level, *_ in private:
            if gfn not in self.private_gfns and level == 1:
                self._violate(c.CONVERSION_FINAL, f"gfn {gfn:#x} is mapped private, its attribute is shared")
        for gfn, level, *_ in shared:
            for covered in range(gfn, gfn + self.config.cover(level)):
                if covered in self.private_gfns:
                    clause = c.CONVERSION_FINAL if level == 1 else c.STRADDLING_HUGE
                    self._violate(clause, f"gfn {covered:#x} is mapped shared, its attribute is private")
            if level > 1:
                self.hold(c.STRADDLING_HUGE)
        if private or shared:
            self.hold(c.CONVERSION_FINAL)

    def _violate(self, clause: Clause, detail: str) -> NoReturn:
        raise self.remember(Violation(clause, detail))

    def _natural(self, gfn: int, what: str) -> None:
        """No gfn that leaves the MMU has an alias bit (TDP-012)."""
        if gfn & self.bits:
            self._violate(c.NO_ALIAS_IN_CALLS, f"{what}: gfn {gfn:#x} has the alias bit")

    # -- memory

    def _new(self, kind: int, init: int) -> int:
        self.next_page += 1
        pa = self.next_page << k.PAGE_SHIFT
        self.objects[pa] = kind
        self.loose[pa] = self.me
        if kind == k.TABLE:
            self.pages[pa] = Page(pa, init)
        return pa

    def cache_topup(self, vcpu: int, kind: int, count: int, init: int) -> int:
        """Fill a cache; sleeps, so never under mmu_lock (TDP-071)."""
        me = self.me
        if self.readers[me] or self.writer == me:
            self._violate(c.ALLOCATION_BEFORE_LOCK, "cache_topup under mmu_lock")
        refusal = self.refused("cache_topup")
        if refusal:
            return refusal
        v = self._vcpu(vcpu)
        v.cached[kind] = max(v.cached[kind], count)
        if kind == k.TABLE:
            v.init = init
        return 0

    def cache_alloc(self, vcpu: int, kind: int) -> int:
        """Take an object; the cache must hold one (TDP-071)."""
        v = self._vcpu(vcpu)
        self._may_map("cache_alloc")
        if v.cached[kind] <= 0:
            self._violate(c.ALLOCATION_BEFORE_LOCK, f"cache of {_KIND_NAMES[kind]}s is empty")
        v.cached[kind] -= 1
        return self._new(kind, v.init)

    def cache_free(self, vcpu: int) -> None:
        """Empty the caches of a vCPU."""
        self._vcpu(vcpu).cached = [0, 0, 0]

    def page_alloc(self, kind: int, init: int) -> int:
        """Allocate; sleeps."""
        me = self.me
        if self.readers[me] or self.writer == me:
            self._violate(c.ALLOCATION_BEFORE_LOCK, "page_alloc under mmu_lock")
        if self.scheduler is not None and type(self.thread.op) is ops.SplitHuge:
            self.frame.given.setdefault("lock_dropped", 1)
        return 0 if self.refused("page_alloc") else self._new(kind, init)

    def page_free(self, page: int) -> None:
        """Free an object that nobody can reach (TDP-085) and the TD does not own (TDP-078)."""
        kind = self.objects.get(page)
        if kind is None:
            self._violate(c.BALANCED, f"page_free({page:#x}): not allocated, or freed twice")
        if page in self.owned:
            self._violate(c.FAILED_FREE_LEAKS, f"page_free({page:#x}): the external tree owns that page")
        if page not in self.loose:
            self._violate(c.TABLE_GRACE_PERIOD, f"page_free({page:#x}): still reachable, or no grace period")
        del self.objects[page], self.loose[page]
        if self.pages.pop(page, None) is not None:
            self.freed.add(page)

    def page_leak(self, page: int) -> None:
        """Give up a page that the firmware did not give back."""
        if page not in self.owned:
            self._violate(c.BALANCED, f"page_leak({page:#x}): nothing forbids to free that page")
        self.leaked += 1
        self.owned.discard(page)
        self.objects.pop(page, None)
        self.loose.pop(page, None)

    def sp_init(self, page: int, header: int, role: int, gfn: int, external: int) -> None:
        """Fill in a header."""
        table = self._table(page)
        if table.linked or table.removed:
            self._violate(c.ROOT_KIND_FIXED, f"sp_init({page:#x}): the table is in use")
        self._natural(gfn, "sp_init")
        table.header, table.role, table.gfn, table.external = header, role, gfn, external

    def account_pgtable(self, change: int) -> None:
        """Count a table."""
        self.pgtables += change

    def update_page_stats(self, level: int, change: int) -> None:
        """Count leaves."""
        self.stats[level] = self.stats.get(level, 0) + change

    # -- entries

    def _table(self, page: int) -> Page:
        table = self.pages.get(page)
        if table is None:
            if page in self.freed:
                self._violate(c.TABLE_GRACE_PERIOD, f"table {page:#x} is used after it was freed")
            self._violate(c.MIRROR_BEFORE_DIRECT, f"{page:#x} is no page table")
        return table

    def _access(self, page: int, index: int) -> Page:
        """The table, if this thread may touch it now (TDP-050)."""
        table = self.pages.get(page) or self._table(page)
        if table.linked:
            me = self.scheduler.running if self.scheduler is not None else 0
            if not self.threads[me].rcu and self.writer != me:
                self._violate(c.RCU_PROTECTED, f"table {page:#x} is accessed outside an RCU read section")
        if not 0 <= index < self.entries_per_table:
            raise self.remember(Crash(f"entry {index} of a table of {self.entries_per_table}"))
        return table

    def pt_read(self, page: int, index: int) -> int:
        """Read an entry."""
        table = self._access(page, index)
        value = table.entries.get(index, table.init)
        if value == FROZEN and self.scheduler is not None:
            self._contended()
            thread = self.thread
            if table.linked and type(thread.op) in _MAPPING and (self.readers[self.me] or self.writer == self.me):
                thread.met_frozen = True
        return value

    def _may_map(self, what: str) -> None:
        """A mapper that met FROZEN gives up (TDP-044)."""
        if self.thread.met_frozen:
            self._violate(c.FROZEN_IS_OWNED, f"{what} after a frozen entry was met")

    def _contended(self) -> None:
        if self.scheduler is not None:
            self.frame.given.setdefault("contended", 1)

    def pt_store(self, page: int, index: int, value: int) -> None:
        """Plain store."""
        table = self._access(page, index)
        if self.frame.plan:
            self._by_hardware("pt_store", table, index, table.read(index))
        self._change(table, index, table.read(index), value, True)

    def pt_cmpxchg(self, page: int, index: int, old: int, new: int) -> int:
        """Compare and exchange; hardware may set bits just before."""
        table = self._access(page, index)
        found = table.read(index)
        if found == old and self.frame.plan and self._by_hardware("pt_cmpxchg", table, index, found):
            found = table.read(index)
        thread = self.thread
        if found != old:
            now = (page, index, old, found)
            if thread.stale == now:
                self._violate(
                    c.REFRESH_AFTER_FAILURE, f"exchange of entry {index} repeated with the stale value {old:#x}"
                )
            thread.stale = now
            if new == FROZEN:
                thread.lost = (page, index)
            self._contended()
            return found
        thread.lost = None
        if thread.stale is not None:
            thread.stale = None
            self.hold(c.REFRESH_AFTER_FAILURE)
        if _present(new) and not _present(old):
            self._may_map("an entry is changed")
        self._change(table, index, old, new, False)
        return found

    def _by_hardware(self, call: str, table: Page, index: int, entry: int) -> bool:
        """Set accessed and dirty as hardware may at any time, if that is planned and possible."""
        root = table.root
        if root is None or root.is_mirror or not _is_leaf(entry, table.level):
            return False
        marked = entry | 1 << k.ACCESSED | (entry >> k.WRITE & 1) << k.DIRTY
        if marked == entry or not self.refused(call):
            return False
        table.entries[index] = marked
        return True

    def pt_xchg(self, page: int, index: int, new: int) -> int:
        """Exchange."""
        table = self._access(page, index)
        if self.frame.plan:
            self._by_hardware("pt_xchg", table, index, table.read(index))
        old = table.read(index)
        self._change(table, index, old, new, False)
        return old

    def pt_and(self, page: int, index: int, mask: int) -> int:
        """Atomic and."""
        table = self._access(page, index)
        old = table.read(index)
        self._change(table, index, old, old & mask, False)
        return old

    def _change(self, table: Page, index: int, old: int, new: int, plain: bool) -> None:
        """Judge one change of one entry, and make it."""
        me = self.me
        root = table.root
        where = f"entry {index} of the level {table.level} table {table.pa:#x}"
        if not table.linked:
            if root is not None:
                self._judge_removed(table, index, old, plain)
                self._count(table, index, old, new)
                if root.is_mirror and _is_leaf(old, table.level) and not _present(new):
                    self.cleared[self._gfn(table, index)] = ((old & _PFN_MASK) >> k.PAGE_SHIFT, me)
            table.entries[index] = new
            return
        assert root is not None
        key = (table.pa, index)
        self._judge_owner(key, old, new, plain, where)
        if not _present(new):
            self._judge_nonpresent(table, index, new, where)
        elif not new >> k.SUPPRESS_VE & 1:
            self._violate(c.NONPRESENT_ENCODING, f"{where}: {new:#x} is present without bit 63")
        if plain and self.writer != me and old != FROZEN:
            self._violate(c.ATOMIC_UPDATES, f"{where}: plain store of {new:#x} over {old:#x} without the write lock")
        if not plain and self.writer != me and not self.readers[me] and not (_present(old) and _present(new)):
            self._violate(c.ATOMIC_UPDATES, f"{where}: {old:#x} becomes {new:#x} without mmu_lock")
        if _present(new) and not _present(old) and root.invalid:
            self._violate(c.NO_MAP_UNDER_INVALID, f"{where}: {new:#x} installed under an invalid root")
        if _present(new) and not _present(old):
            self.hold(c.NO_MAP_UNDER_INVALID)
        if root.is_mirror:
            self._judge_mirror(table, index, old, new, where)
        elif plain and self._is_volatile(old, table.level):
            self._violate(c.ATOMIC_UPDATES, f"{where}: plain store over {old:#x}, which hardware may change")
        self._judge_leaf(table, index, old, new, where)
        if _is_leaf(old, table.level) and _is_leaf(new, table.level):
            self._judge_bits(old & ~new, where)
        if new == FROZEN:
            self.frozen[key] = (me, old)
        else:
            self.frozen.pop(key, None)
            self.agreed.pop(key, None)
        self._count(table, index, old, new)
        table.entries[index] = new
        self.version += 1
        self._relink(table, index, old, new)

    def _judge_removed(self, table: Page, index: int, old: int, plain: bool) -> None:
        """Others still have their hands in a table that was just unlinked (TDP-046)."""
        if not plain or not _present(old) or not table.removed:
            return
        where = f"entry {index} of the removed table {table.pa:#x}"
        if self.writer != self.me:
            self._violate(c.ATOMIC_UPDATES, f"{where}: plain store over {old:#x} without the write lock")
        if not table.is_mirror and self._is_volatile(old, table.level):
            self._violate(c.ATOMIC_UPDATES, f"{where}: plain store over {old:#x}, which hardware may change")

    def _judge_owner(self, key: tuple[int, int], old: int, new: int, plain: bool, where: str) -> None:
        if old == FROZEN:
            owner = self.frozen.get(key, (-1, 0))[0]
            if owner not in (self.me, -1):
                self._violate(c.FROZEN_IS_OWNED, f"{where}: frozen by thread {owner}, changed by thread {self.me}")
            if new == FROZEN:
                self._violate(c.FROZEN_IS_OWNED, f"{where}: frozen twice")
            self.hold(c.FROZEN_IS_OWNED)
        if new == FROZEN and plain:
            self._violate(c.EXCLUSIVE_SETTER_NOT_FROZEN, f"{where}: FROZEN stored in a linked table")
        if plain:
            self.hold(c.EXCLUSIVE_SETTER_NOT_FROZEN)

    def _judge_nonpresent(self, table: Page, index: int, new: int, where: str) -> None:
        if new in (NONPRESENT, FROZEN):
            return
        assert table.root is not None
        gfn = self._gfn(table, index)
        mmio = not table.root.is_mirror and new >> k.SUPPRESS_VE & 1 == 0 and self._slot(gfn) is None
        if not mmio:
            self._violate(c.NONPRESENT_ENCODING, f"{where}: {new:#x} is neither present, NONPRESENT nor FROZEN")

    @staticmethod
    def _is_volatile(entry: int, level: int) -> bool:
        """Whether hardware, or the lockless fast path, may change the entry at this moment."""
        if not _is_leaf(entry, level):
            return False
        if not entry >> k.WRITE & 1 and entry >> k.HOST_WRITABLE & 1 and entry >> k.MMU_WRITABLE & 1:
            return True
        return not entry >> k.ACCESSED & 1 or bool(entry >> k.WRITE & 1 and not entry >> k.DIRTY & 1)

    def _judge_mirror(self, table: Page, index: int, old: int, new: int, where: str) -> None:
        me = self.me
        key = (table.pa, index)
        if _present(old):
            if new == FROZEN and self.writer != me:
                return
            if _present(new) and table.level > 1:
                self._violate(c.MIRROR_NO_HUGE, f"{where} of a mirror: {old:#x} becomes {new:#x}")
            if _present(new):
                self._violate(c.MIRROR_UNTOUCHED, f"{where} of a mirror: {old:#x} becomes {new:#x}")
            if self.writer != me:
                self._violate(c.ATOMIC_ZAP_REFUSED, f"{where} of a mirror: zapped without the write lock")
            if type(self.thread.op) in _SHARED_ONLY:
                self._violate(c.MIRROR_UNTOUCHED, f"{where} of a mirror: {old:#x} becomes {new:#x}")
            self.hold(c.ATOMIC_ZAP_REFUSED)
            if _is_leaf(old, table.level):
                self.cleared[self._gfn(table, index)] = ((old & _PFN_MASK) >> k.PAGE_SHIFT, me)
            return
        if _present(new):
            if old == FROZEN and new == self.frozen.get(key, (me, 0))[1] and key not in self.agreed:
                return
            if old != FROZEN or key not in self.agreed:
                self._violate(
                    c.FREEZE_EXTERNAL_PUBLISH, f"{where} of a mirror: {new:#x} before the external tree agreed"
                )
            agreed = self.agreed[key]
            if agreed and agreed != (new & _PFN_MASK) >> k.PAGE_SHIFT:
                self._violate(c.SET_ARGUMENTS, f"{where}: {new:#x} published, page {agreed:#x} set outside")
            if _is_leaf(new, table.level):
                if table.level > 1:
                    self._violate(c.MIRROR_4K_ONLY, f"{where}: huge leaf {new:#x} in a mirror")
                if new & k.RWX != k.RWX:
                    self._violate(c.MIRROR_LEAF_RWX, f"{where}: mirror leaf {new:#x} lacks R, W or X")
                self.hold(c.MIRROR_LEAF_RWX)
            self.hold(c.FREEZE_EXTERNAL_PUBLISH)
        elif old == FROZEN:
            before = self.frozen.get(key, (me, new))[1]
            if _present(before):
                self._violate(c.ATOMIC_ZAP_REFUSED, f"{where} of a mirror: zapped without the write lock")
            if new != before:
                self._violate(c.FAILED_EXTERNAL_RESTORES, f"{where}: {before:#x} restored as {new:#x}")
            if key in self.agreed:
                self._violate(c.FREEZE_EXTERNAL_PUBLISH, f"{where}: the external tree agreed, nothing published")
            self.hold(c.FAILED_EXTERNAL_RESTORES)

    def _judge_leaf(self, table: Page, index: int, old: int, new: int, where: str) -> None:
        """Pages do not change under a leaf; each half is where it belongs."""
        assert table.root is not None
        if not _present(new):
            return
        if _is_leaf(old, table.level) and _is_leaf(new, table.level) and (old ^ new) & _PFN_MASK:
            self._violate(c.LEAF_PFN_FIXED, f"{where}: {old:#x} becomes {new:#x}, another page")
        if _present(old) and _is_leaf(new, table.level):
            self.hold(c.LEAF_PFN_FIXED)
        if self.bits:
            raw = table.raw + index * self.config.cover(table.level)
            below = self.config.cover(table.level) <= self.bits
            if below and bool(raw & self.bits) == table.root.is_mirror:
                self._violate(c.WALK_INDEX, f"{where}: gfn {raw:#x} is in the other half of this root")
        if _present(old) and not _is_leaf(old, table.level) and table.root.is_mirror:
            self._violate(c.MIRROR_NO_HUGE, f"{where}: a table of a mirror is replaced by {new:#x}")

    def _judge_bits(self, lost: int, where: str) -> None:
        """What hardware noted is lost only where somebody asks for it (TDP-046)."""
        op = type(self.thread.op)
        if lost >> k.ACCESSED & 1 and op is not ops.Age:
            self._violate(c.ATOMIC_UPDATES, f"{where}: the accessed bit is lost")
        if lost >> k.DIRTY & 1 and op not in _PROTECTING:
            self._violate(c.ATOMIC_UPDATES, f"{where}: the dirty bit is lost")

    def _gfn(self, table: Page, index: int) -> int:
        """Natural gfn of an entry."""
        return table.raw + index * self.config.cover(table.level) & ~self.bits

    def _count(self, table: Page, index: int, old: int, new: int) -> None:
        """Leaves that come and go; leaves of valid roots that go need a flush."""
        level = table.level
        was, now = _is_leaf(old, level), _is_leaf(new, level)
        if was == now:
            return
        self.leaf_counts[level] = self.leaf_counts.get(level, 0) + (1 if now else -1)
        root = table.root
        assert root is not None
        if was and not root.invalid and not _present(new):
            self.unflushed.add(self._gfn(table, index))

    def _relink(self, table: Page, index: int, old: int, new: int) -> None:
        """Tables that an entry points to come into reach, or go out of it."""
        level = table.level
        if _present(old) and not _is_leaf(old, level):
            before = set(self.unflushed)
            self._unlink(self.pages[old & _PFN_MASK])
            if _is_leaf(new, level):
                self.unflushed = before
        if _present(new) and not _is_leaf(new, level):
            self._link(table, index, new, old if _is_leaf(old, level) else 0)

    def _link(self, parent: Page, index: int, entry: int, split: int) -> None:
        """A table comes into reach, in the place of a huge leaf if it splits one."""
        child = self._table(entry & _PFN_MASK)
        if child.linked or child.removed:
            self._violate(c.CHILD_ROLE, f"table {child.pa:#x} is linked twice")
        assert parent.root is not None
        child.level = parent.level - 1
        child.raw = parent.raw + index * self.config.cover(parent.level)
        child.root = parent.root
        child.parent = (parent, index)
        gfn = child.raw & ~self.bits
        if child.role >> k.ROLE_MIRROR & 1 != parent.role >> k.ROLE_MIRROR & 1:
            self._violate(c.ROOT_KIND_FIXED, f"a child of table {parent.pa:#x} has another mirror flag")
        if child.gfn >= self.config.cover(self.config.levels + 1):
            self._violate(c.UNMAPPABLE_ADDRESS, f"a table for gfn {child.gfn:#x} is linked at gfn {gfn:#x}")
        wanted = parent.role - 1 & ~(1 << k.ROLE_INVALID)
        if child.role & ~(1 << k.ROLE_INVALID) != wanted or child.gfn != gfn:
            self._violate(
                c.CHILD_ROLE,
                f"table {child.pa:#x}: role {child.role:#x}, gfn {child.gfn:#x}, expected {wanted:#x}, {gfn:#x}",
            )
        if not split:
            self._fresh(child)
        else:
            first, step = split & _PFN_MASK, self.config.cover(child.level) << k.PAGE_SHIFT
            for i in range(self.entries_per_table):
                value = child.read(i)
                if not value >> k.SUPPRESS_VE & 1:
                    self._violate(c.NONPRESENT_ENCODING, f"entry {i} of table {child.pa:#x}: {value:#x} lacks bit 63")
                if not _is_leaf(value, child.level) or value & _PFN_MASK != first + i * step:
                    self._violate(c.LEAF_PFN_FIXED, f"entry {i} of table {child.pa:#x}: {value:#x}, split {split:#x}")
                self._count(child, i, NONPRESENT, value)
            self._tell_others("split_beside")
        child.linked = True
        self.linked_tables += 1
        for pa in (child.pa, child.header, child.external):
            self.loose.pop(pa, None)
        self.hold(c.CHILD_ROLE)

    def _fresh(self, table: Page) -> None:
        """All entries NONPRESENT before anybody can reach them (TDP-041)."""
        values = set(table.entries.values())
        if len(table.entries) < self.entries_per_table:
            values.add(table.init)
        if values - {NONPRESENT}:
            wrong = min(values - {NONPRESENT})
            self._violate(c.NEW_TABLE_NONPRESENT, f"new table {table.pa:#x} holds {wrong:#x}")
        self.hold(c.NEW_TABLE_NONPRESENT)

    def _unlink(self, table: Page) -> None:
        """A table and all below it are out of reach for new walks."""
        table.linked, table.removed = False, True
        self.linked_tables -= 1
        root = table.root
        assert root is not None
        for index, value in table.entries.items():
            if _is_leaf(value, table.level):
                if not root.invalid:
                    self.unflushed.add(self._gfn(table, index))
            elif _present(value):
                self._unlink(self.pages[value & _PFN_MASK])

    # -- roots

    def refcount_set(self, page: int, count: int) -> None:
        """Set a count."""
        self._table(page).refs = count

    def refcount_inc_not_zero(self, page: int) -> int:
        """Take a reference unless there is none."""
        table = self._table(page)
        if table.refs <= 0:
            return 0
        table.refs += 1
        return 1

    def refcount_dec_and_test(self, page: int) -> int:
        """Put a reference."""
        table = self._table(page)
        me = self.me
        if table.refs <= 0:
            self._violate(c.ROOT_REFERENCES, f"reference of root {page:#x} put once too often")
        if type(self.thread.op) is ops.VcpuDestroy and table.is_mirror and not self.readers[me] and self.writer != me:
            self._violate(c.DESTROY_PUTS_MIRROR, f"reference of mirror root {page:#x} put without mmu_lock")
        if table.invalid and type(self.thread.op) in _ZAPPING and self.scheduler is None:
            if table.refs <= self._still_needed(table) and any(_present(e) for e in table.entries.values()):
                self._violate(c.SCHEDULED_ONCE, f"the MMU's reference to root {page:#x} is put before it is zapped")
        table.refs -= 1
        return int(table.refs == 0)

    def _still_needed(self, table: Page) -> int:
        """References to an invalid root while it is being zapped: the MMU's, the iterator's and the vCPUs'."""
        return 2 + sum(v is not None and table.pa in (v.root, v.mirror) for v in self.vcpus)

    def roots_add(self, page: int) -> None:
        """List a root (TDP-023, 037, 041)."""
        table = self._table(page)
        if self.pages_holder != self.me:
            self._violate(c.ONE_ROOT_PER_ROLE, "a root is listed without pages_lock")
        if table.external:
            self._violate(c.ROOT_WITHOUT_EXTERNAL, f"root {page:#x} has the external page {table.external:#x}")
        if table.role < 0 or table.role & k.ROLE_LEVEL_MASK != self.config.levels:
            self._violate(c.ROOT_KIND_FIXED, f"root {page:#x} has role {table.role:#x}")
        if table.is_mirror and not self.config.mirror:
            self._violate(c.MIRROR_BEFORE_DIRECT, "a mirror root on a VM without mirrors")
        for other in self.roots:
            if not other.invalid and other.role == table.role:
                self._violate(c.ONE_ROOT_PER_ROLE, f"two valid roots of role {table.role:#x}")
        self._fresh(table)
        table.level, table.root, table.raw = self.config.levels, table, 0
        table.linked = table.listed = True
        self.roots.append(table)
        self.version += 1
        for pa in (table.pa, table.header):
            self.loose.pop(pa, None)

    def roots_del(self, page: int) -> None:
        """Unlist a root (TDP-034)."""
        table = self._table(page)
        if self.pages_holder != self.me or not table.listed or table.refs:
            self._violate(
                c.FREED_AFTER_GRACE,
                f"root {page:#x} unlisted with {table.refs} references, pages_lock held by {self.pages_holder}",
            )
        self.roots.remove(table)
        table.listed = table.linked = False
        table.removed = True
        self.version += 1

    def role_invalidate(self, page: int) -> None:
        """Mark a root invalid (TDP-029, 031)."""
        table = self._table(page)
        ending = type(self.thread.op) is ops.VmUninit
        if self.writer != self.me and not ending:
            self._violate(c.INVALIDATE_WRITE_LOCK, f"root {page:#x} invalidated without the write lock")
        if table.is_mirror and not ending:
            self._violate(c.ONE_MIRROR_ROOT, f"mirror root {page:#x} invalidated")
        self.unannounced = self.unannounced or not ending
        table.invalid = True
        table.role |= 1 << k.ROLE_INVALID
        self.version += 1

    def vcpu_root(self, vcpu: int, mirror: int, page: int) -> None:
        """Store a root of a vCPU (TDP-024)."""
        v = self._vcpu(vcpu)
        if mirror:
            v.mirror = page
        else:
            v.root = page
            v.pgd = None
        if self.config.mirror and v.mirror == INVALID_PAGE and v.root != INVALID_PAGE:
            self._violate(c.MIRROR_BEFORE_DIRECT, f"vCPU {vcpu} has a direct root and no mirror root")
        if not self.config.mirror and v.mirror != INVALID_PAGE:
            self._violate(c.MIRROR_BEFORE_DIRECT, f"vCPU {vcpu} of a VM without mirrors has a mirror root")

    def load_pgd(self, vcpu: int, page: int, level: int) -> None:
        """Load the direct root."""
        table = self._table(page)
        v = self._vcpu(vcpu)
        if not table.listed or table.is_mirror or level != self.config.levels:
            self._violate(c.ROOT_BY_ADDRESS, f"load_pgd({page:#x}, level {level}): not the direct root of this VM")
        v.pgd = table
        v.tlb.clear()

    def _vcpu(self, vcpu: int) -> Vcpu:
        v = self.vcpus[vcpu] if 0 <= vcpu < len(self.vcpus) else None
        if v is None:
            raise self.remember(Crash(f"there is no vCPU {vcpu}"))
        return v

    # -- locks

    def _acquire(self, what: str, free: Callable[[], bool]) -> None:
        if free():
            return
        if self.scheduler is None:
            self._violate(c.BALANCED, f"{what} taken while it is held")
        self.scheduler.block(what, free)

    def read_lock(self) -> None:
        """mmu_lock for read."""
        me = self.me
        if self.readers[me] or self.writer == me:
            self._violate(c.BALANCED, "mmu_lock taken for read while held")
        self._acquire("mmu_lock for read", lambda: self.writer < 0)
        self.readers[me] = 1

    def read_unlock(self) -> None:
        """Release it."""
        me = self.me
        if not self.readers[me]:
            self._violate(c.BALANCED, "mmu_lock released for read, not held")
        self._check_tlbs()
        self.readers[me] = 0
        self.threads[me].phase = 0
        self.threads[me].gave_up = self.threads[me].met_frozen
        self.threads[me].met_frozen = False

    def write_lock(self) -> None:
        """mmu_lock for write."""
        me = self.me
        if self.readers[me] or self.writer == me:
            self._violate(c.BALANCED, "mmu_lock taken for write while held")
        self._acquire("mmu_lock for write", lambda: self.writer < 0 and not any(self.readers))
        self.writer = me

    def write_unlock(self) -> None:
        """Release it: no TLB may hold what was zapped (TDP-084)."""
        if self.writer != self.me:
            self._violate(c.BALANCED, "mmu_lock released for write, not held")
        if not self.thread.may_block and type(self.thread.op) is ops.Unmap:
            self._violate(c.NO_BLOCK_NO_YIELD, "mmu_lock is dropped though the call may not block")
        if self.unannounced:
            self._violate(c.FAST_ZAP_DIRECT, "the write lock is dropped before vCPUs are told of obsolete roots")
        self._check_tlbs()
        self.writer = -1

    def lock_yield(self) -> None:
        """Let others in between (TDP-082, 083)."""
        me = self.me
        thread = self.thread
        if not thread.may_block:
            self._violate(c.NO_BLOCK_NO_YIELD, "mmu_lock is dropped though the call may not block")
        if (self.unflushed or thread.flush) and type(thread.op) is not ops.ZapAll:
            self._violate(c.FLUSH_BEFORE_YIELD, "mmu_lock is dropped with a flush pending")
        self.hold(c.FLUSH_BEFORE_YIELD)
        writing = self.writer == me
        (self.write_unlock if writing else self.read_unlock)()
        if self.preempt is not None and not self.atomic:
            self.preempt("lock_yield")
        (self.write_lock if writing else self.read_lock)()

    def _check_tlbs(self) -> None:
        """No TLB holds what was zapped; when the VM's memory goes away nobody runs any more."""
        if type(self.thread.op) is ops.ZapAll:
            return
        for number, v in enumerate(self.vcpus):
            if v is None or not v.tlb:
                continue
            for gfn, (root, pfn, _, table) in v.tlb.items():
                if root.listed and not root.invalid and (table.removed or self._lookup(root, gfn) != pfn):
                    self._violate(
                        c.NO_STALE_TLB, f"the TLB of vCPU {number} maps gfn {gfn:#x} to {pfn:#x}, which was zapped"
                    )
            self.hold(c.NO_STALE_TLB)

    def pages_lock(self) -> None:
        """The spinlock of the lists."""
        me = self.me
        if self.pages_holder == me:
            self._violate(c.BALANCED, "pages_lock taken twice")
        self._acquire("pages_lock", lambda: self.pages_holder < 0)
        self.pages_holder = me

    def pages_unlock(self) -> None:
        """Release it."""
        if self.pages_holder != self.me:
            self._violate(c.BALANCED, "pages_lock released, not held")
        self.pages_holder = -1

    def slots_lock(self) -> None:
        """The mutex of slots and attributes."""
        me = self.me
        if self.slots_holder == me or self.readers[me] or self.writer == me:
            self._violate(c.BALANCED, "slots_lock taken twice, or under mmu_lock")
        self._acquire("slots_lock", lambda: self.slots_holder < 0)
        self.slots_holder = me

    def slots_unlock(self) -> None:
        """Release it."""
        if self.slots_holder != self.me:
            self._violate(c.BALANCED, "slots_lock released, not held")
        if self.thread.invalidating and type(self.thread.op) is ops.SetAttributes:
            self._violate(c.CONVERSION_ZAPS_OLD, "slots_lock released in the middle of a conversion")
        self.slots_holder = -1

    def srcu_read_lock(self) -> None:
        """Enter a section."""
        self.thread.srcu += 1

    def srcu_read_unlock(self) -> None:
        """Leave it."""
        thread = self.thread
        if not thread.srcu:
            self._violate(c.BALANCED, "SRCU left, not entered")
        thread.srcu -= 1

    def synchronize_srcu(self) -> None:
        """Wait for readers of the old slots."""
        others = [t for t in self.threads if t is not self.thread and t.srcu]
        if others:
            self._acquire("readers of the old slots", lambda: not any(t.srcu for t in others))

    def rcu_read_lock(self) -> None:
        """Enter a section."""
        self.thread.rcu += 1

    def rcu_read_unlock(self) -> None:
        """Leave it; grace periods may end here."""
        me = self.me
        thread = self.threads[me]
        if not thread.rcu:
            self._violate(c.BALANCED, "RCU left, not entered")
        thread.rcu -= 1
        if not thread.rcu and self.waiting_rcu:
            for _, readers in self.waiting_rcu:
                readers.discard(me)
            self._end_grace_periods()

    def call_rcu(self, page: int) -> None:
        """Ask for a grace period before a table is freed (TDP-034, 085, 086)."""
        table = self._table(page)
        if table.linked or not table.removed or table.grace:
            clause = c.FREED_AFTER_GRACE if table.root is table else c.TABLE_GRACE_PERIOD
            self._violate(clause, f"call_rcu({page:#x}): the table is still linked, or was given up before")
        if table.root is not table:
            entries = table.entries
            if len(entries) < self.entries_per_table or set(entries.values()) != {FROZEN}:
                self._violate(c.REMOVED_FROZEN, f"removed table {page:#x} still takes new entries")
            above, index = table.parent or (table, 0)
            if above.removed and above.root is not above and above.read(index) != FROZEN:
                self._violate(c.REMOVED_FROZEN, f"removed table {above.pa:#x}: entry {index} is not frozen in time")
            self.hold(c.REMOVED_FROZEN)
        self.hold(c.TABLE_GRACE_PERIOD)
        table.grace = True
        self.barrier = False
        self.waiting_rcu.append((page, {i for i, t in enumerate(self.threads) if t.rcu}))
        self._end_grace_periods()

    def _end_grace_periods(self) -> None:
        """Run the callbacks for which no reader is left, at the earliest moment."""
        ready = [page for page, readers in self.waiting_rcu if not readers]
        if not ready:
            return
        self.waiting_rcu = [item for item in self.waiting_rcu if item[1]]
        me = self.me
        for page in ready:
            table = self.pages[page]
            for pa in (table.pa, table.header, table.external):
                if pa in self.objects and pa not in self.owned:
                    self.loose[pa] = me
            self.atomic += 1
            try:
                self.enter(self.driver.rcu_callback, page)
            finally:
                self.atomic -= 1

    def rcu_barrier(self) -> None:
        """Wait for all callbacks."""
        if self.waiting_rcu and self.scheduler is not None:
            self.scheduler.block("RCU callbacks", lambda: not self.waiting_rcu)
        self.barrier = True

    def resched(self) -> int:
        """Planned: once, or from then on."""
        plan = self.frame.plan
        if not plan:
            return 0
        made = self.frame.made["resched"]
        for (call, nth), value in plan.items():
            if call == "resched" and (made == nth or (value == 2 and made > nth)):
                self.frame.given["resched"] = value
                return 1
        return 0

    def cond_resched(self) -> None:
        """Let the other thread run."""
        if self.scheduler is not None:
            self.scheduler.give_way()

    # -- the external tree

    def _mirror_root(self) -> Page | None:
        return next((root for root in self.roots if root.is_mirror), None)

    def _find(self, gfn: int, level: int) -> tuple[Page, int] | None:
        """The mirror entry of this level that covers `gfn`."""
        table = self._mirror_root()
        while table is not None:
            index = gfn >> self.config.index_bits * (table.level - 1) & (self.entries_per_table - 1)
            if table.level == level:
                return table, index
            entry = table.read(index)
            if not _present(entry) or _is_leaf(entry, table.level):
                return None
            table = self.pages[entry & _PFN_MASK]
        return None

    def _judge_external(self, what: str, gfn: int, level: int) -> tuple[int, int]:
        """What must hold before the external tree is told anything new: the key of the frozen entry."""
        me = self.me
        self._natural(gfn, what)
        self._may_map(what)
        if not self.readers[me] and self.writer != me:
            self._violate(c.FREEZE_EXTERNAL_PUBLISH, f"{what}({gfn:#x}, level {level}) without mmu_lock")
        place = self._find(gfn, level)
        if place is None:
            self._violate(c.BUILD_TOP_DOWN, f"{what}({gfn:#x}, level {level}): the mirror has no such entry")
        key = (place[0].pa, place[1])
        owner, before = self.frozen.get(key, (-1, place[0].read(place[1])))
        if self.thread.lost == key and owner != me:
            self._violate(c.LOST_FREEZE, f"{what}({gfn:#x}, level {level}) though the entry could not be frozen")
        if _present(before):
            self._violate(c.PRESENT_NOT_SET_AGAIN, f"{what}({gfn:#x}, level {level}): the entry is present")
        if owner != me:
            self._violate(c.FREEZE_EXTERNAL_PUBLISH, f"{what}({gfn:#x}, level {level}): the entry is not frozen")
        if key in self.agreed:
            self._violate(c.FREEZE_EXTERNAL_PUBLISH, f"{what}({gfn:#x}, level {level}) twice for one entry")
        for table in self.config.path(gfn, level):
            if table not in self.sept.tables:
                self._violate(
                    c.BUILD_TOP_DOWN, f"{what}({gfn:#x}, level {level}): the external tree lacks table {table}"
                )
        self.hold(c.LOST_FREEZE)
        return key

    def ext_link(self, gfn: int, level: int, page: int) -> int:
        """Link an external page (TDP-060, 061, 065, 067)."""
        config = self.config
        if not 2 <= level <= config.levels or gfn & (config.cover(level) - 1):
            self._violate(c.LINK_ARGUMENTS, f"ext_link({gfn:#x}, level {level}): not an entry of a table")
        if self.objects.get(page) != k.EXTERNAL or page not in self.loose:
            self._violate(c.LINK_ARGUMENTS, f"ext_link({gfn:#x}, level {level}): {page:#x} is no external page")
        key = self._judge_external("ext_link", gfn, level)
        child = next((t for t in self.pages.values() if t.external == page), None)
        if child is None or (child.gfn, child.role & k.ROLE_LEVEL_MASK) != (gfn, level - 1):
            self._violate(c.LINK_ARGUMENTS, f"ext_link({gfn:#x}, level {level}): the page belongs to another table")
        refusal = self._hook("ext_link", gfn, level, page)
        if refusal:
            return refusal
        if not self.config.deep:
            self.sept.sept_add(gfn, level, page)
        if self.sept.tables.get((level - 1, gfn)) != page:
            self._violate(c.BUILD_TOP_DOWN, f"ext_link({gfn:#x}, level {level}) -> 0, the firmware has no such table")
        self.owned.add(page)
        self.agreed[key] = 0
        return 0

    def ext_set(self, gfn: int, level: int, pfn: int) -> int:
        """Map an external page (TDP-057, 060, 061, 066, 067)."""
        if level != 1:
            self._violate(c.MIRROR_4K_ONLY, f"ext_set({gfn:#x}) at level {level}")
        key = self._judge_external("ext_set", gfn, level)
        if pfn != self._page(gfn, True):
            clause = c.STALE_FAULT if pfn in self._pages(gfn) else c.SET_ARGUMENTS
            self._violate(clause, f"ext_set({gfn:#x}): page {pfn:#x}, gfn has {self._page(gfn, True):#x}")
        refusal = self._hook("ext_set", gfn, level, pfn)
        if refusal:
            return refusal
        if not self.config.deep:
            self.sept.page_aug(gfn, level, pfn)
        self.agreed[key] = pfn
        return 0

    def ext_remove(self, gfn: int, level: int, pfn: int) -> int:
        """Unmap an external page (TDP-073, 075, 100)."""
        self._natural(gfn, "ext_remove")
        if self.writer != self.me:
            self._violate(c.REMOVE_WRITE_LOCKED, f"ext_remove({gfn:#x}) without the write lock")
        cleared = self.cleared.get(gfn)
        if level != 1 or cleared is None or cleared[0] != pfn:
            self._violate(c.REMOVE_ARGUMENTS, f"ext_remove({gfn:#x}, level {level}, {pfn:#x}): no such leaf cleared")
        if not self.hkid:
            self._violate(c.HKID_ORDER, f"ext_remove({gfn:#x}) after the HKID was released")
        try:
            refusal = self._hook("ext_remove", gfn, level, pfn)
        finally:
            self.cleared.pop(gfn, None)
        if not refusal and not self.config.deep:
            self.sept.forget(gfn)
        return refusal

    def ext_free(self, gfn: int, level: int, page: int) -> int:
        """Take back an external table (TDP-076, 077, 078, 100)."""
        self._natural(gfn, "ext_free")
        if self.hkid:
            self._violate(c.HKID_ORDER, f"ext_free({gfn:#x}, level {level}) while the HKID is assigned")
        if self.writer != self.me:
            self._violate(c.REMOVE_WRITE_LOCKED, f"ext_free({gfn:#x}) without the write lock")
        if self.sept.tables.get((level, gfn)) != page:
            self._violate(c.FREE_ARGUMENTS, f"ext_free({gfn:#x}, level {level}, {page:#x}): no such table")
        if self.bugged:
            end = gfn + self.config.cover(level + 1)
            for leaf in [leaf for leaf, _ in self.sept.leaves if gfn <= leaf < end]:
                self.sept.forget(leaf)
        if self.sept.below(gfn, level + 1):
            self._violate(c.FREE_BOTTOM_UP, f"ext_free({gfn:#x}, level {level}): the table is not empty")
        refusal = self._hook("ext_free", gfn, level, page)
        if refusal:
            self._kill()
            self.sept.tables.pop((level, gfn), None)
            return refusal
        if not self.config.deep:
            self.sept.reclaim(page)
        if (level, gfn) in self.sept.tables:
            self._violate(c.FREE_ARGUMENTS, f"ext_free({gfn:#x}, level {level}) -> 0, the page was not reclaimed")
        self.owned.discard(page)
        return 0

    def _hook(self, name: str, gfn: int, level: int, page: int) -> int:
        """The module behind the external tree: ours, or the candidate's own hooks."""
        if not self.config.deep:
            refusal = self.refused(name)
        else:
            hook = getattr(self.driver, name.replace("ext_", "sept_"))
            self.thread.begin_hook()
            was_bugged = self.bugged
            refusal = self.enter_int(hook, gfn, level, page)
            if refusal and not self.thread.excused and not self.config.early and not was_bugged:
                statuses = ", ".join(f"{call}: {status:#x}" for call, status in self.thread.refusals.items())
                self._violate(
                    _HOOK_CLAUSES[name], f"{name}({gfn:#x}, level {level}) -> {refusal}; {statuses or 'no call'}"
                )
            self._judge_hook(name, gfn, refusal, was_bugged)
            if refusal:
                self.frame.given.setdefault(name, refusal)
        if refusal:
            self.thread.failed = True
            if refusal != -EBUSY:
                self._kill()
        return refusal

    def _judge_hook(self, name: str, gfn: int, result: int, was_bugged: bool) -> None:
        """What a candidate's hook made of the firmware's answers (TDP-097, 098, 099)."""
        if name in ("ext_link", "ext_set") and self.thread.refusals:
            busy = all(_is_busy(status) for status in self.thread.refusals.values())
            wanted = -EBUSY if busy else -EIO
            self.require(c.BUSY_TO_EBUSY, result == wanted, f"{name}({gfn:#x}): {result}, expected {wanted}")
            self.require(c.BUSY_TO_EBUSY, not (busy and self.thread.kicked), f"{name}({gfn:#x}): vCPUs kicked on BUSY")
            self.require(c.BUSY_IS_NO_BUG, busy or self.bugged, f"{name}({gfn:#x}) -> {result} without a VM bug")
        if name == "ext_remove":
            if self.thread.sept_failed:
                told = result == -EIO or not self.profile.premapped
                self.require(c.BUSY_RETRY_ONCE, told and self.bugged, f"ext_remove({gfn:#x}) -> {result}")
            elif not was_bugged:
                self.require(
                    c.BUSY_RETRY_ONCE if self.thread.refusals else c.REMOVAL_SEQUENCE,
                    not result,
                    f"ext_remove({gfn:#x}) -> {result}, refused: {_hex(self.thread.refusals)}",
                )
                gone = not self.sept.state(gfn)
                self.require(c.REMOVAL_SEQUENCE, gone, f"ext_remove({gfn:#x}) -> {result}, the page is still there")
            dirty = {pfn: missing for pfn, missing in self.unclean.items() if missing}
            self.require(c.REMOVAL_SEQUENCE, not dirty, f"ext_remove({gfn:#x}): pages not cleaned: {_hex(dirty)}")

    # -- TLBs and requests

    def flush_remote_tlbs(self) -> None:
        """Flush every TLB."""
        for v in self.vcpus:
            if v is not None:
                v.tlb.clear()
        self.unflushed.clear()
        self.thread.flush = False

    def flush_range(self, gfn: int, count: int) -> int:
        """Flush a range of gfns and their aliases."""
        self._natural(gfn, "flush_range")
        refusal = self.refused("flush_range")
        if refusal:
            return refusal
        for v in self.vcpus:
            if v is not None:
                v.tlb = {g: entry for g, entry in v.tlb.items() if not gfn <= g < gfn + count}
        self.unflushed = {g for g in self.unflushed if not gfn <= g < gfn + count}
        return 0

    def make_all_cpus_request(self, request: int) -> None:
        """Raise a request, or kick vCPUs out of the guest."""
        if request == k.REQ_OUTSIDE_GUEST:
            me = self.me
            others = [t for i, t in enumerate(self.threads) if i != me]
            if self.scheduler is not None and any(t.in_guest for t in others):
                self.scheduler.block("vCPUs to leave the guest", lambda: not any(t.in_guest for t in others))
            self.thread.kicked = True
            for v in self.vcpus:
                self._leave_guest(v)
            return
        if self.writer != self.me:
            self._violate(c.FAST_ZAP_DIRECT, "roots are declared obsolete outside the write lock")
        self.unannounced = False
        for v in self.vcpus:
            if v is not None:
                v.requests.add(request)

    def check_request(self, vcpu: int, request: int) -> int:
        """Test and clear."""
        v = self._vcpu(vcpu)
        if request in v.requests:
            v.requests.discard(request)
            return 1
        return 0

    def vcpu_has_events(self, vcpu: int) -> int:
        """Whether a request waits for the vCPU."""
        if not self._vcpu(vcpu).requests:
            return 0
        self.frame.given.setdefault("vcpu_has_events", 1)
        return 1

    # -- slots, attributes, invalidation, guest pages

    def _slot(self, gfn: int) -> ops.Slot | None:
        return next((s for s in self.slots.values() if s[1] <= gfn < s[1] + s[2]), None)

    def memslot(self, gfn: int) -> tuple[int, ...]:
        """Slot of a gfn."""
        self._natural(gfn, "memslot")
        return self._told(self._slot(gfn) or ())

    def _told(self, slot: tuple[int, ...]) -> tuple[int, ...]:
        """A slot on its way to the candidate: beside its deletion that may decide what the candidate does."""
        if slot and slot[3] & k.SLOT_INVALID and self.scheduler is not None:
            self.frame.given.setdefault("slot_invalid", 1)
        return slot

    def memslots(self, start: int, end: int) -> tuple[tuple[int, ...], ...]:
        """Slots of a range, in the order of their bases."""
        self._natural(start, "memslots")
        found = sorted((s for s in self.slots.values() if s[1] < end and start < s[1] + s[2]), key=_base)
        return tuple(self._told(slot) for slot in found)

    def memslot_by_id(self, slot: int) -> tuple[int, ...]:
        """Slot of an id."""
        return self._told(self.slots.get(slot, ()))

    def memslot_install(self, slot: int, base: int, npages: int, flags: int) -> int:
        """Add or replace."""
        self._holds_slots_lock("memslot_install")
        for other, start, count, _ in self.slots.values():
            if other != slot and base < start + count and start < base + npages:
                return -EEXIST
        self.slots[slot] = (slot, base, npages, flags)
        return 0

    def memslot_remove(self, slot: int) -> None:
        """Remove."""
        self._holds_slots_lock("memslot_remove")
        self.slots.pop(slot, None)

    def _holds_slots_lock(self, what: str) -> None:
        if self.slots_holder != self.me:
            self._violate(c.CONVERSION_ZAPS_OLD, f"{what} without slots_lock")

    def attributes(self, gfn: int) -> int:
        """Attributes of a gfn."""
        self._natural(gfn, "attributes")
        thread = self.thread
        if thread.phase == 1:
            thread.phase = 2
        value = k.ATTRIBUTE_PRIVATE if gfn in self.private_gfns else 0
        if thread.seen.setdefault(gfn, value) != value:
            self.frame.given["attributes_changed"] = 1
        return value

    def range_has_attributes(self, start: int, end: int, value: int) -> int:
        """Whether a whole range has these attributes."""
        self._natural(start, "range_has_attributes")
        return int(self.private_gfns.has_all(start, end, bool(value)))

    def reserve_attributes(self, start: int, end: int) -> int:
        """Reserve; start and end only matter to a real tree."""
        self._natural(start, "reserve_attributes")
        return self.refused("reserve_attributes")

    def store_attributes(self, start: int, end: int, value: int) -> None:
        """Store: inside an invalidation, after the other half was zapped (TDP-089)."""
        self._holds_slots_lock("store_attributes")
        if not any(lo <= start and end <= hi for lo, hi in self.invalidations):
            self._violate(c.CONVERSION_ZAPS_OLD, "attributes change outside an invalidation of their range")
        gfns = range(start, min(end, self.config.max_gfn + 1))
        for root in self.roots if self.config.mirror and not self.bugged else ():
            if root.is_mirror == (not value):
                for leaf in self._leaves(root):
                    if leaf[0] < gfns.stop and start < leaf[0] + self.config.cover(leaf[1]):
                        straddles = self.scheduler is not None and leaf[1] > 1
                        clause = c.STRADDLING_HUGE if straddles else c.CONVERSION_ZAPS_OLD
                        self._violate(clause, f"gfn {leaf[0]:#x} is still mapped in its old half")
        self.hold(c.CONVERSION_ZAPS_OLD)
        self.private_gfns = self.private_gfns.with_range(start, end, bool(value))

    def mmu_invalidate_begin(self, start: int, end: int) -> None:
        """Begin."""
        if self.writer != self.me:
            self._violate(c.STALE_FAULT, "mmu_invalidate_begin without the write lock")
        op = self.thread.op
        if type(op) is ops.SetAttributes:
            self._holds_slots_lock("the invalidation of a conversion")
        if start < end and getattr(op, "end", 0) <= (self.bits or end):
            self._natural(start, "mmu_invalidate_begin")
            if start:  # from 0 on it may be all there is, whatever the bits
                self._natural(end - 1, "mmu_invalidate_begin")
        self.invalidations.append((start, end))
        self.thread.ranges.append((start, end))
        self.thread.invalidating += 1

    def mmu_invalidate_end(self) -> None:
        """End."""
        if self.writer != self.me or not self.thread.invalidating:
            self._violate(c.STALE_FAULT, "mmu_invalidate_end without the write lock, or without a beginning")
        self._move()
        self.invalidations.remove(self.thread.ranges.pop())
        self.sequence += 1
        self.thread.invalidating -= 1

    def mmu_invalidate_seq(self) -> int:
        """Snapshot."""
        self.thread.phase = 1
        return self.sequence

    def mmu_invalidate_retry(self, seq: int, gfn: int) -> int:
        """Stale, really or as planned."""
        self._natural(gfn, "mmu_invalidate_retry")
        if seq != self.sequence or any(start <= gfn < end for start, end in self.invalidations):
            self.frame.given.setdefault("mmu_invalidate_retry", 1)
            return 1
        return int(bool(self.refused("mmu_invalidate_retry")))

    def _page(self, gfn: int, private: bool) -> int:
        kind = "gmem" if private else "hva"
        return _ORIGIN[kind + "'" * (gfn in self.moved[kind])] + gfn

    @staticmethod
    def _pages(gfn: int) -> tuple[int, ...]:
        """Both pages of guest memory that a gfn has at some time."""
        return tuple(_ORIGIN[name] + gfn for name in GMEM_SOURCES)

    def _grab(self, what: str, slot: int, gfn: int) -> None:
        """Pages are resolved outside mmu_lock, after a snapshot and the attributes (TDP-051)."""
        self._natural(gfn, what)
        me = self.me
        thread = self.threads[me]
        found = self.slots.get(slot, (slot, 0, 0, 0))
        if not found[1] <= gfn < found[1] + found[2]:
            self._violate(c.NO_BACKING, f"{what}: gfn {gfn:#x} is not in slot {slot}")
        if self.readers[me] or self.writer == me:
            self._violate(c.SNAPSHOT_FIRST, f"{what} under mmu_lock")
        if thread.phase < (2 if self.config.private else 1):
            self._violate(c.SNAPSHOT_FIRST, f"{what} before the invalidation sequence and the attributes are read")

    def gmem_get_pfn(self, slot: int, gfn: int) -> int:
        """A page of guest memory."""
        self._grab("gmem_get_pfn", slot, gfn)
        refusal = self.refused("gmem_get_pfn")
        if refusal:
            return refusal
        self.thread.grabbed += 1
        return self._page(gfn, True)

    def hva_get_pfn(self, slot: int, gfn: int, write: int) -> tuple[int, int, int]:
        """A page of the host."""
        self._grab("hva_get_pfn", slot, gfn)
        self.thread.grabbed += 1
        writable = int(bool(write) or gfn not in self.config.readonly_gfns)
        return self._page(gfn, False), writable, self.max_mapping_level(slot, gfn)

    def max_mapping_level(self, slot: int, gfn: int) -> int:
        """2 where the pages of a block lie side by side."""
        config = self.config
        if not config.huge:
            return 1
        start = config.base(gfn, 2)
        moved = self.moved["hva"]
        return 2 if moved.has_all(start, start + config.cover(2), start in moved) else 1

    def pfn_release(self, pfn: int) -> None:
        """Put the reference."""
        thread = self.thread
        if not thread.grabbed:
            self._violate(c.BALANCED, f"pfn_release({pfn:#x}): no reference is held")
        thread.grabbed -= 1

    def memory_fault_exit(self, gpa: int, size: int, flags: int) -> None:
        """Note the exit."""
        self.thread.exit = (gpa, size, flags)

    def pre_fault_allowed(self) -> int:
        """The flag."""
        return int(self.allowed)

    def signal_pending(self) -> int:
        """Planned."""
        return int(bool(self.refused("signal_pending")))

    def vm_is_dead(self) -> int:
        """After a VM bug."""
        return int(self.bugged)

    def _kill(self) -> None:
        """The VM is dead; what other threads have begun goes on."""
        if not self.bugged:
            self._tell_others("killed")
        self.bugged = True

    def _tell_others(self, what: str) -> None:
        """Other threads may have met what this one did."""
        for frame in self.scheduler.frames if self.scheduler is not None else ():
            if frame is not self.frame:
                frame.given.setdefault(what, 1)

    def vm_bug(self, what: str) -> None:
        """Note it, and go on; but not for ever (TDP-074)."""
        self._kill()
        self.thread.bugs += 1
        if self.thread.bugs > BUGS:
            self._violate(c.ATOMIC_ZAP_REFUSED, f"the VM is bugged {BUGS} times in one call: {what}")

    def warn_once(self, what: str) -> None:
        """Note it."""
        op = self.thread.op
        self.warned |= _WARNINGS.get(type(op), frozenset(_WARNED_OF))
        if type(op) is ops.FastFault:
            self._violate(c.NO_ALIAS_IN_CALLS, f"the fast path warns: {what}")

    def _warns(self, clause: Clause, detail: str) -> None:
        """A warning was due, now or the first time that there was reason for it."""
        self.require(clause, clause in self.warned, f"no warning: {detail}")

    # -- SEAMCALLs

    def _gpa(self, gpa: int) -> int:
        gfn = gpa >> k.PAGE_SHIFT
        self._natural(gfn, "SEAMCALL")
        return gfn

    def _seamcall(self, name: str, how: str, leaf: Callable[..., int], *args: int) -> int:
        """One call into the module: it holds its locks for a while, and others are busy meanwhile."""
        me = self.me
        status = self.refused(name) or self.sept.acquire(me, how)
        if status:
            self.frame.given.setdefault(name, status)
            self.thread.excused = True
            self.thread.refused_last = name
            return status
        self.thread.refused_last = ""
        try:
            self._linger()
            return leaf(*args)
        finally:
            self.sept.release(me)

    def _linger(self) -> None:
        """Another thread may run inside the module at the same time."""
        if self.scheduler is not None and self.preempt is not None and not self.atomic:
            self.preempt("SEAMCALL")

    def _adds(self, name: str, how: str, leaf: Callable[..., int], *args: int) -> int:
        """A call that adds to the tree; busy is the caller's business (TDP-099)."""
        status = self._seamcall(name, how, leaf, *args)
        if status:
            self.thread.refusals[name] = status
        return status

    def tdh_mem_sept_add(self, gpa: int, level: int, page: int) -> int:
        """Link an external page; the entry's table must be there and the entry free."""
        return self._adds("tdh_mem_sept_add", "shared", self.sept.sept_add, self._gpa(gpa), level + 1, page)

    def _given_away(self, pfn: int) -> None:
        if self.profile.pins_pages and not self.pins.get(pfn):
            self._violate(c.FAILED_REMOVE_KEEPS_PAGE, f"page {pfn:#x} given to the TD without a reference")

    def tdh_mem_page_add(self, gpa: int, pfn: int) -> int:
        """Add a page before finalize; nothing else may run in the TD."""
        gfn = self._gpa(gpa)
        self._given_away(pfn)
        return self._adds("tdh_mem_page_add", "root", self.sept.page_add, gfn, pfn)

    def tdh_mem_page_aug(self, gpa: int, level: int, pfn: int) -> int:
        """Add a page to a runnable TD."""
        gfn = self._gpa(gpa)
        if level:
            self._violate(c.MIRROR_4K_ONLY, f"TDH.MEM.PAGE.AUG of gfn {gfn:#x} at TDX level {level}")
        self._given_away(pfn)
        return self._adds("tdh_mem_page_aug", "shared", self.sept.page_aug, gfn, level + 1, pfn)

    def _insists(self, name: str, how: str, leaf: Callable[..., int], *args: int) -> int:
        """A call that must succeed: busy once is met by keeping vCPUs out (TDP-098)."""
        if name in self.thread.refusals:
            self.require(
                c.BUSY_RETRY_ONCE,
                self.sept_wait and self.thread.kicked,
                f"{name} tried again without keeping vCPUs out",
            )
        status = self._seamcall(name, how, leaf, *args)
        if status and (name in self.thread.refusals or not _is_busy(status)) and self.thread.refused_last == name:
            self.frame.given.setdefault("sept_failed", 1)
            self.thread.sept_failed = self.removal_failed = True
        if status:
            self.thread.refusals[name] = status
        return status

    def tdh_mem_range_block(self, gpa: int, level: int) -> int:
        """Block an entry; records the epoch."""
        return self._insists("tdh_mem_range_block", "exclusive", self.sept.range_block, self._gpa(gpa), level + 1)

    def tdh_mem_range_unblock(self, gpa: int, level: int) -> int:
        """Unblock an entry that was blocked and tracked."""
        return self._insists("tdh_mem_range_unblock", "exclusive", self.sept.range_unblock, self._gpa(gpa), level + 1)

    def tdh_mem_track(self) -> int:
        """A new epoch, unless a vCPU is still in the one before the last."""
        if not self.sept.runnable:
            self._violate(c.REMOVAL_SEQUENCE, "TDH.MEM.TRACK before the TD is finalized")
        status = self._insists("tdh_mem_track", "none", self.sept.track)
        if not status:
            self.thread.kicked = False
        return status

    def tdh_mem_page_remove(self, gpa: int, level: int) -> int:
        """Remove a page: blocked, and tracked if the TD runs (TDP-097)."""
        gfn = self._gpa(gpa)
        if self.sept.runnable and not self.thread.kicked and self.sept.state(gfn):
            self._violate(c.REMOVAL_SEQUENCE, f"TDH.MEM.PAGE.REMOVE of gfn {gfn:#x} without kicking vCPUs out")
        pfn = self.sept.leaves.get((gfn, level + 1), 0)
        status = self._insists("tdh_mem_page_remove", "shared", self.sept.page_remove, gfn, level + 1)
        if status & k.TDX_STATUS_MASK in (k.TDX_GPA_RANGE_NOT_BLOCKED, k.TDX_TLB_TRACKING_NOT_DONE):
            self._violate(
                c.REMOVAL_SEQUENCE, f"TDH.MEM.PAGE.REMOVE of gfn {gfn:#x}, which is not blocked or not tracked yet"
            )
        if not status:
            self.unclean[pfn] = {"wbinvd", "clear"}
        return status

    def tdh_mem_sept_remove(self, gpa: int, level: int) -> int:
        """Remove an empty table."""
        return self._insists("tdh_mem_sept_remove", "exclusive", self.sept.sept_remove, self._gpa(gpa), level + 1)

    def tdh_mem_page_demote(self, gpa: int, level: int, page: int) -> int:
        """Split a huge leaf."""
        gfn = self._gpa(gpa)
        return self._adds("tdh_mem_page_demote", "exclusive", self.sept.page_demote, gfn, level + 1, page)

    def tdh_mem_page_promote(self, gpa: int, level: int) -> int:
        """Merge a table into a huge leaf, which no mirror can follow (TDP-058)."""
        gfn = self._gpa(gpa)
        status = self._adds("tdh_mem_page_promote", "exclusive", self.sept.page_promote, gfn, level + 1)
        if not status:
            self._violate(c.MIRROR_NO_HUGE, f"TDH.MEM.PAGE.PROMOTE of gfn {gfn:#x}: a table becomes a huge leaf")
        return status

    def tdh_phymem_page_wbinvd(self, pfn: int) -> int:
        """Write back."""
        self.unclean.get(pfn, set()).discard("wbinvd")
        return 0

    def clear_page(self, pfn: int) -> None:
        """Overwrite; only after the caches were written back (TDP-097)."""
        missing = self.unclean.get(pfn)
        if missing and "wbinvd" in missing:
            self._violate(c.REMOVAL_SEQUENCE, f"page {pfn:#x} cleared before its cache lines were written back")
        if missing:
            missing.discard("clear")

    def tdh_phymem_page_reclaim(self, page: int) -> int:
        """Reclaim a page of a TD without its key."""
        return self._seamcall("tdh_phymem_page_reclaim", "none", self.sept.reclaim, page)

    def tdh_mr_finalize(self) -> int:
        """The TD may run."""
        return self._seamcall("tdh_mr_finalize", "root", self._finalized)

    def _finalized(self) -> int:
        self.sept.runnable = True
        return k.TDX_SUCCESS

    def page_pin(self, pfn: int) -> None:
        """Take a reference."""
        self.pins[pfn] = self.pins.get(pfn, 0) + 1

    def page_unpin(self, pfn: int) -> None:
        """Put it; not while the TD may still use the page (TDP-079)."""
        if self.pins.get(pfn, 0) <= 0:
            self._violate(c.BALANCED, f"page_unpin({pfn:#x}): no reference is held")
        if self.sept.has_page(pfn):
            self._violate(c.FAILED_REMOVE_KEEPS_PAGE, f"page {pfn:#x} is let go while the external tree maps it")
        if self.unclean.get(pfn):
            self._violate(c.REMOVAL_SEQUENCE, f"page {pfn:#x} is let go before {', '.join(sorted(self.unclean[pfn]))}")
        self.pins[pfn] -= 1

    def wait_for_sept_zap(self, value: int) -> None:
        """Keep vCPUs out."""
        if self.writer != self.me:
            self._violate(c.BUSY_RETRY_ONCE, "wait_for_sept_zap stored without the write lock")
        self.sept_wait, self.sept_waiter = bool(value), self.me
        self.thread.kicked = self.thread.kicked and not value

    def hkid_assigned(self) -> int:
        """The key."""
        return int(self.hkid)

    def td_state(self) -> int:
        """As stored."""
        return self.td

    def set_td_state(self, state: int) -> None:
        """Store."""
        self.td = state

    def allow_pre_fault(self) -> None:
        """Allow prefault: only once the TD is seen to run (TDP-101)."""
        self.require(c.PREFAULT_AFTER_FINALIZE, self.td == k.TD_RUNNABLE, "prefault allowed before the TD is RUNNABLE")
        self.allowed = True

    def premapped(self, change: int) -> int:
        """nr_premapped."""
        self.premap_count += change
        return self.premap_count

    def _leave_guest(self, v: Vcpu | None) -> None:
        if v is not None and v.epoch >= 0:
            self.sept.leave(v.epoch)
            v.epoch = -1

    # -- what the page tables mean

    def _walk(self, table: Page) -> Iterator[tuple[Page, int, int]]:
        """Every present entry reachable from a table."""
        for index, entry in table.entries.items():
            if _present(entry):
                yield table, index, entry
                if not _is_leaf(entry, table.level):
                    yield from self._walk(self.pages[entry & _PFN_MASK])

    def _leaves(self, root: Page) -> Iterator[Leaf]:
        for table, index, entry in self._walk(root):
            if _is_leaf(entry, table.level):
                gfn = self._gfn(table, index)
                yield gfn, table.level, _source(entry, gfn), bool(entry >> k.WRITE & 1)

    def _lookup(self, root: Page, gfn: int) -> int:
        """Page frame that a root maps a gfn to, as hardware finds it; -1 for none."""
        entry, level = self._leaf_of(root, gfn)
        if not entry:
            return -1
        return ((entry & _PFN_MASK) >> k.PAGE_SHIFT) + (gfn & (self.config.cover(level) - 1))

    def _is_writable(self, root: Page, gfn: int) -> bool:
        return bool(self._leaf_of(root, gfn)[0] >> k.WRITE & 1)

    def _leaf_of(self, root: Page, gfn: int) -> tuple[int, int]:
        """Leaf that maps a gfn, and its level; 0 and 0 for none."""
        raw = gfn if root.is_mirror else gfn | self.bits
        table = root
        while True:
            shift = self.config.index_bits * (table.level - 1)
            entry = table.read(raw >> shift & (self.entries_per_table - 1))
            if not _present(entry):
                return 0, 0
            if _is_leaf(entry, table.level):
                return entry, table.level
            table = self.pages[entry & _PFN_MASK]

    def _tables(self, root: Page) -> frozenset[Table]:
        return frozenset(
            (table.level - 1, self._gfn(table, index))
            for table, index, entry in self._walk(root)
            if not _is_leaf(entry, table.level)
        )

    def _meaning(self) -> tuple[Any, ...]:
        """Leaves and tables of all roots; kept until an entry changes."""
        if self._seen[0] == self.version:
            return self._seen[1]  # type: ignore[no-any-return]  # what is stored below
        private: frozenset[tuple[int, int, str]] = frozenset()
        shared: frozenset[Leaf] = frozenset()
        mirror_tables = direct_tables = frozenset[Table]()
        old = []
        for root in self.roots:
            if root.invalid:
                old.append(frozenset(self._leaves(root)))
            elif root.is_mirror:
                private, mirror_tables = frozenset(leaf[:3] for leaf in self._leaves(root)), self._tables(root)
            else:
                shared, direct_tables = frozenset(self._leaves(root)), self._tables(root)
        meaning = private, shared, tuple(old), (mirror_tables, direct_tables)
        self._seen = (self.version, meaning)
        return meaning

    def view(self) -> View:
        """What can be seen from outside."""
        private, shared, old, tables = self._meaning()
        places = {root.pa: i for i, root in enumerate(self.roots)}
        return View(
            private,
            shared,
            old,
            (frozenset(self.sept.tables), self.sept.view()),
            tables,
            tuple((root.is_mirror, root.invalid, root.refs) for root in self.roots),
            tuple(None if v is None else (places.get(v.root, NONE), places.get(v.mirror, NONE)) for v in self.vcpus),
            self.private_gfns.ranges(),
            frozenset(self.slots.values()),
            (self.td, self.premap_count),
            self.leaked,
            self.bugged,
        )

    # -- operations

    def _vcpu_create(self, op: ops.VcpuCreate) -> int:
        self.vcpus[op.vcpu] = Vcpu()
        return self.enter_int(self.driver.vcpu_create, op.vcpu)

    def _vcpu_destroy(self, op: ops.VcpuDestroy) -> int:
        self.enter(self.driver.vcpu_destroy, op.vcpu)
        v = self._vcpu(op.vcpu)
        if any(v.cached):
            self._violate(c.BALANCED, f"the caches of vCPU {op.vcpu} still hold objects")
        if (v.root, v.mirror) != (INVALID_PAGE, INVALID_PAGE):
            self._violate(c.DESTROY_PUTS_MIRROR, f"vCPU {op.vcpu} is destroyed with a root installed")
        self.vcpus[op.vcpu] = None
        return 0

    def _mmu_reload(self, op: ops.MmuReload) -> int:
        result = self.enter_int(self.driver.mmu_reload, op.vcpu)
        v = self._vcpu(op.vcpu)
        if result == 0 and (v.pgd is None or v.pgd.pa != v.root):
            self._violate(c.RELOAD_FREES_OBSOLETE, f"vCPU {op.vcpu}: hardware walks another root than was loaded")
        return result

    def _mmu_unload(self, op: ops.MmuUnload) -> int:
        self.enter(self.driver.mmu_unload, op.vcpu)
        return 0

    def _free_obsolete_roots(self, op: ops.FreeObsoleteRoots) -> int:
        self.enter(self.driver.free_obsolete_roots, op.vcpu)
        return 0

    def _root_match(self, op: ops.RootMatch) -> int:
        result = self.enter_int(self.driver.root_match, int(op.mirror), int(op.invalid), op.types)
        if not op.types & (k.DIRECT_ROOTS | k.MIRROR_ROOTS):
            self._warns(c.MATCH_NEEDS_KIND, f"root_match with types {op.types}")
        return result

    def _filter_to_types(self, op: ops.FilterToTypes) -> int:
        result = self.enter_int(self.driver.filter_to_types, op.attr_filter)
        if op.attr_filter == 0 and (self.config.mirror or self.profile.warns_on_empty_filter):
            self._warns(c.FILTER_TO_TYPES, "filter_to_types(0)")
        return result

    def _addr_is_direct(self, op: ops.AddrIsDirect) -> int:
        return self.enter_int(self.driver.addr_is_direct, op.gpa)

    def _gfn_is_alias(self, op: ops.GfnIsAlias) -> int:
        return self.enter_int(self.driver.gfn_is_alias, op.gfn)

    def _select_root(self, op: ops.SelectRoot) -> int:
        page = self.enter_int(self.driver.select_root, op.vcpu, op.types)
        return next((i for i, root in enumerate(self.roots) if root.pa == page), NONE)

    def _with_srcu(self, function: Callable[..., Any], *args: Any) -> tuple[int, tuple[int, ...]]:
        """A fault, as the run loop calls it: SRCU held. Its result and its memory-fault exit."""
        thread = self.thread
        thread.srcu += 1
        result = self.enter_int(function, *args)
        thread.srcu -= 1
        return result, thread.exit

    def _page_fault(self, op: ops.PageFault) -> tuple[int, tuple[int, ...]]:
        code = (
            op.write << k.PFERR_WRITE
            | op.present << k.PFERR_PRESENT
            | op.private << k.PFERR_PRIVATE_ACCESS
            | 1 << k.PFERR_GUEST_FINAL
        )
        return self._retries(*self._with_srcu(self.driver.page_fault, op.vcpu, op.gpa, code, int(op.prefetch)))

    def _retries(self, result: int, exit_record: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """What a mapper says that met FROZEN (TDP-044)."""
        if self.thread.gave_up and result >= 0 and result != k.RET_PF_RETRY:
            self._violate(c.FROZEN_IS_OWNED, f"result {result} after a frozen entry was met")
        return result, exit_record

    def _tdp_map(self, op: ops.TdpMap) -> tuple[int, tuple[int, ...]]:
        gfn = op.gpa >> k.PAGE_SHIFT & ~self.bits
        v = self._vcpu(op.vcpu)
        if INVALID_PAGE not in (v.root, v.mirror) or (v.mirror if op.private else v.root) != INVALID_PAGE:
            refusal = 0
            for kind in (k.HEADER, k.TABLE, k.EXTERNAL):
                refusal = refusal or self.cache_topup(op.vcpu, kind, 5, NONPRESENT)
            if refusal:
                return refusal, ()
        self.read_lock()
        base = gfn & ~(self.config.cover(op.level) - 1)
        result = self.enter_int(
            self.driver.tdp_map, op.vcpu, op.gpa, self._page(base, op.private), int(op.private), 1, op.level
        )
        self.read_unlock()
        return self._retries(result, ())

    def _faultin(self, op: ops.Faultin) -> tuple[int, tuple[int, ...]]:
        return self._with_srcu(self.driver.faultin_pfn, op.vcpu, op.gfn, int(op.private))

    def _prefault(self, op: ops.Prefault) -> int:
        return self.enter_int(self.driver.prefault, op.vcpu, op.gpa, op.size, op.flags)

    def _ept_violation(self, op: ops.EptViolation) -> tuple[int, tuple[int, ...]]:
        return self._with_srcu(self.driver.ept_violation, op.vcpu, op.gpa)

    def _fast_fault(self, op: ops.FastFault) -> int:
        code = op.write << k.PFERR_WRITE | 1 << k.PFERR_PRESENT | op.private << k.PFERR_PRIVATE_ACCESS
        return self.enter_int(self.driver.fast_pf, op.vcpu, op.gpa, code)

    def _get_walk(self, op: ops.GetWalk) -> tuple[int, ...]:
        walk = self.enter(self.driver.get_walk, op.vcpu, op.gpa)
        if type(walk) is not tuple or any(type(entry) is not int for entry in walk):
            raise self.remember(Crash(f"get_walk returned {walk!r}, expected a tuple of int", "type"))
        return tuple(_present(entry) for entry in walk)

    def _gpa_is_mapped(self, op: ops.GpaIsMapped) -> int:
        self.read_lock()
        result = self.enter_int(self.driver.gpa_is_mapped, op.vcpu, op.gpa)
        self.read_unlock()
        return result

    def _flushing(self, function: Callable[..., Any], *args: Any, flush: bool = False) -> None:
        """Call with the write lock held, and flush as it says; what it says must be exact (TDP-081)."""
        thread = self.thread
        thread.flush = flush
        result = self.enter_int(function, *args)
        if self.scheduler is None:
            wanted = thread.flush or bool(self.unflushed)
            self.require(
                c.FLUSH_STICKY, bool(result) == wanted, f"the call asks for a flush: {bool(result)}, due: {wanted}"
            )
        if result:
            self.flush_remote_tlbs()
        thread.flush = False
        self.hold(c.FLUSH_BEFORE_YIELD)

    def _bounded(self, start: int, direct: bool) -> None:
        """A walk of direct roots from beyond the split warns (TDP-016)."""
        if self.bits and start >= self.bits and direct and any(not root.is_mirror for root in self.roots):
            self._warns(c.WALK_START_BOUND, f"a walk of direct roots from {start:#x}")

    def _zap_leafs(self, op: ops.ZapLeafs) -> int:
        self.write_lock()
        self._flushing(self.driver.zap_leafs, op.start, op.end, int(op.flush), flush=op.flush)
        self._bounded(op.start, any(not r.is_mirror and not r.invalid for r in self.roots))
        self.write_unlock()
        return 0

    def _unmap(self, op: ops.Unmap) -> int:
        thread = self.thread
        thread.may_block = op.may_block
        self.write_lock()
        self.mmu_invalidate_begin(op.start, op.end)
        before = self.version
        self._flushing(
            self.driver.unmap_gfn_range, op.start, op.end, op.attr_filter, int(op.may_block), int(op.flush),
            flush=op.flush,
        )  # fmt: skip
        if self.config.mirror and not op.attr_filter and not self.bugged and before == self.version:
            self._warns(c.EMPTY_FILTER_NOT_SILENT, "an unmap without a filter")
        self._bounded(op.start, bool(op.attr_filter & k.FILTER_SHARED))
        if not op.may_block:
            self.hold(c.NO_BLOCK_NO_YIELD)
        thread.may_block = True
        self.mmu_invalidate_end()
        self.write_unlock()
        return 0

    def _bits_of(self, bit: int, start: int, end: int) -> tuple[bool, frozenset[tuple[int, int]]]:
        """Whether a leaf of the valid direct root in range has the bit; and who else has it."""
        mine, others = False, set()
        for root in self.roots:
            for table, index, entry in self._walk(root):
                if _is_leaf(entry, table.level) and entry >> bit & 1:
                    gfn = self._gfn(table, index)
                    inside = gfn < end and start < gfn + self.config.cover(table.level)
                    if inside and not root.is_mirror and not root.invalid:
                        mine = True
                    else:
                        others.add((table.pa, index))
        return mine, frozenset(others)

    def _age(self, op: ops.Age) -> int:
        young, others = self._bits_of(k.ACCESSED, op.start, op.end)
        result = self.enter_int(self.driver.age_gfn_range, op.start, op.end)
        if self.scheduler is None and op.start < op.end and (not self.bits or op.start < self.bits):
            after, still = self._bits_of(k.ACCESSED, op.start, op.end)
            self.require(c.AGE_VALID_ONLY, bool(result) == young, f"age: {bool(result)}, accessed: {young}")
            self.require(c.AGE_VALID_ONLY, not after, "age leaves accessed bits in the range")
            self.require(c.AGE_VALID_ONLY, others <= still, "age clears bits of an invalid or mirror root")
        return 0

    def _test_age(self, op: ops.TestAge) -> int:
        young, _ = self._bits_of(k.ACCESSED, op.start, op.end)
        result = self.enter_int(self.driver.test_age_gfn, op.start, op.end)
        if self.scheduler is None and op.start < op.end and (not self.bits or op.start < self.bits):
            self.require(c.AGE_VALID_ONLY, bool(result) == young, f"test_age: {bool(result)}, accessed: {young}")
        return 0

    def _protected(self, changed: int) -> None:
        """After write protection the caller flushes if the call says that something changed (TDP-084)."""
        if changed:
            self.flush_remote_tlbs()
        if self.scheduler is not None:
            return
        for number, v in enumerate(self.vcpus):
            for gfn, (root, _, writable, _) in v.tlb.items() if v is not None else ():
                if writable and root.listed and not root.invalid and not self._is_writable(root, gfn):
                    self._violate(
                        c.NO_STALE_TLB, f"the TLB of vCPU {number} lets gfn {gfn:#x} be written, which is protected"
                    )

    def _wrprot_slot(self, op: ops.WrprotSlot) -> int:
        self.read_lock()
        changed = self.enter_int(self.driver.wrprot_slot, op.slot, 1)
        self.read_unlock()
        self._protected(changed)
        return 0

    def _clear_dirty_slot(self, op: ops.ClearDirtySlot) -> int:
        self.read_lock()
        self.enter(self.driver.clear_dirty_slot, op.slot)
        self.read_unlock()
        self.flush_remote_tlbs()
        _, base, npages, _ = self.slots[op.slot]
        self._cleared_dirty(base, base + npages, (1, 2, 3))
        return 0

    def _cleared_dirty(self, start: int, end: int, levels: tuple[int, ...]) -> None:
        """No leaf of the valid direct root within the range is dirty, unless somebody was at it meanwhile."""
        if self.scheduler is not None or self.preempt is not None or self.frame.given:
            return
        for root in self.roots:
            for table, index, entry in self._walk(root) if not root.is_mirror and not root.invalid else ():
                gfn = self._gfn(table, index)
                inside = start <= gfn and gfn + self.config.cover(table.level) <= end
                if inside and table.level in levels and _is_leaf(entry, table.level) and entry >> k.DIRTY & 1:
                    self._violate(c.MIRROR_UNTOUCHED, f"gfn {gfn:#x} is left dirty")

    def _clear_dirty_masked(self, op: ops.ClearDirtyMasked) -> int:
        self.write_lock()
        self.enter(self.driver.clear_dirty_masked, op.slot, op.gfn, op.mask, int(op.wrprot))
        self.flush_remote_tlbs()
        for bit in range(op.mask.bit_length() if not op.wrprot else 0):
            if op.mask >> bit & 1:
                self._cleared_dirty(op.gfn + bit, op.gfn + bit + 1, (1,))
        self.write_unlock()
        return 0

    def _write_protect_gfn(self, op: ops.WriteProtectGfn) -> int:
        self.write_lock()
        self._protected(self.enter_int(self.driver.write_protect_gfn, op.slot, op.gfn, 1))
        self.write_unlock()
        return 0

    def _split_huge(self, op: ops.SplitHuge) -> int:
        self.read_lock()
        self.enter(self.driver.split_huge, op.slot, op.start, op.end, 1)
        self.read_unlock()
        self.flush_remote_tlbs()
        return 0

    def _recover_huge(self, op: ops.RecoverHuge) -> int:
        self.write_lock()
        self._flushing(self.driver.recover_huge, op.slot)
        self.write_unlock()
        return 0

    def _zap_sp(self, op: ops.ZapSp) -> int:
        root = next(r for r in self.roots if r.is_mirror == op.mirror and not r.invalid)
        page = next(
            entry & _PFN_MASK
            for table, index, entry in self._walk(root)
            if not _is_leaf(entry, table.level) and (table.level - 1, self._gfn(table, index)) == (op.level, op.gfn)
        )
        self.write_lock()
        result = self.enter_int(self.driver.zap_sp, page)
        self.flush_remote_tlbs()
        self.write_unlock()
        return result

    def _invalidate_roots(self, op: ops.InvalidateRoots) -> int:
        self.write_lock()
        self.enter(self.driver.invalidate_roots, op.types)
        self.make_all_cpus_request(k.REQ_FREE_OBSOLETE_ROOTS)
        self.write_unlock()
        if op.types & k.TYPE_VALIDITY and not self.profile.bit0_is_valid:
            self._warns(c.INVALIDATE_IGNORES_INVALID_BIT, f"invalidate_roots({op.types})")
        return 0

    def _zap_invalidated(self, _op: ops.ZapInvalidated) -> int:
        self.enter(self.driver.zap_invalidated_roots)
        return 0

    def _zap_all_fast(self, _op: ops.ZapAllFast) -> int:
        self.slots_lock()
        self.enter(self.driver.zap_all_fast)
        self.slots_unlock()
        return 0

    def _zap_all(self, _op: ops.ZapAll) -> int:
        self.enter(self.driver.zap_all)
        self.flush_remote_tlbs()
        return 0

    def _vm_uninit(self, _op: ops.VmUninit) -> int:
        self.barrier = False
        self.enter(self.driver.vm_uninit)
        left = [name for name, value in (("roots", self.roots), ("tables", self.pages)) if value]
        self.require(c.UNINIT_COMPLETE, not left, f"vm_uninit leaves {' and '.join(left)}")
        self.require(c.UNINIT_COMPLETE, self.pgtables == 0, f"vm_uninit leaves {self.pgtables} accounted tables")
        self.require(c.UNINIT_COMPLETE, self.barrier, "vm_uninit does not wait for RCU callbacks")
        if self.bugged:
            self.sept.leaves.clear()
        elif self.config.mirror:
            status = self.sept.reclaim_root()
            self.require(c.UNINIT_COMPLETE, not status, f"the root page of the TD cannot be reclaimed: {status:#x}")
        self.premap_count = 0
        return 0

    def _set_attributes(self, op: ops.SetAttributes) -> int:
        return self.enter_int(self.driver.set_attributes, op.address, op.size, op.attributes, op.flags)

    def _hva_invalidate(self, op: ops.HvaInvalidate) -> int:
        self.thread.moving = ("hva", op.start, op.end)
        self.thread.may_block = op.may_block
        self.enter(self.driver.hva_invalidate, op.start, op.end, int(op.may_block))
        self._move()
        return 0

    def _gmem_invalidate(self, op: ops.GmemInvalidate) -> int:
        self.thread.moving = ("gmem", op.start, op.end)
        self.enter(self.driver.gmem_invalidate, op.start, op.end)
        self._move()
        return 0

    def _move(self) -> None:
        """The pages go back to the host at the end of the invalidation, and the next ones are others."""
        thread = self.thread
        if thread.moving is None:
            return
        kind, start, end = thread.moving
        thread.moving = None
        gfns = gfns_in_slots(tuple(self.slots.values()), kind, start, end)
        for (gfn, _), pfn in self.sept.leaves.items() if kind == "gmem" else ():
            if gfn in gfns and pfn == self._page(gfn, True) and not self.pins.get(pfn):
                self._handed_back(pfn)
        self.moved[kind] ^= gfns

    def _handed_back(self, pfn: int) -> None:
        """A page goes back to the host while the TD may map it (TDP-079)."""
        if not self.config.deep:
            return
        if self.profile.pins_pages:
            self._violate(c.FAILED_REMOVE_KEEPS_PAGE, f"page {pfn:#x} goes back to the host while the TD may map it")
        self.handed_back = pfn

    def _slot_create(self, op: ops.SlotCreate) -> int:
        return self.enter_int(self.driver.slot_create, op.slot, op.base, op.npages, op.flags)

    def _slot_delete(self, op: ops.SlotDelete) -> int:
        return self.enter_int(self.driver.slot_delete, op.slot)

    def _slot_move(self, op: ops.SlotMove) -> int:
        return self.enter_int(self.driver.slot_move, op.slot, op.base)

    def _inject_huge(self, op: ops.InjectHuge) -> int:
        place = self._find(op.gfn, 2)
        assert place is not None
        pfn = _ORIGIN["gmem"] + op.gfn
        place[0].entries[place[1]] = NONPRESENT | 1 << k.PRESENT | k.RWX | 1 << k.HUGE | pfn << k.PAGE_SHIFT
        self.version += 1
        return 0

    def _steal_reference(self, _op: ops.StealReference) -> int:
        next(root for root in self.roots if not root.is_mirror and not root.invalid).refs -= 1
        return 0

    def _hkid_release(self, _op: ops.HkidRelease) -> int:
        for v in self.vcpus:
            self._leave_guest(v)
        self.hkid = self.sept.key = False
        return 0

    def _guest_access(self, op: ops.Access) -> int:
        """Hardware: fill the TLB from the loaded root, set accessed and dirty."""
        v = self._vcpu(op.vcpu)
        self._enter_guest(v)
        gfn = op.gpa >> k.PAGE_SHIFT
        if v.pgd is None or (self.bits and not gfn & self.bits) or gfn >= self.config.cover(self.config.levels + 1):
            return 0
        table = v.pgd
        while True:
            index = gfn >> self.config.index_bits * (table.level - 1) & (self.entries_per_table - 1)
            entry = table.read(index)
            if not _present(entry):
                return 0
            if _is_leaf(entry, table.level):
                break
            table = self.pages[entry & _PFN_MASK]
        writable = bool(entry >> k.WRITE & 1)
        if op.write and not writable:
            return 0
        table.entries[index] = entry | 1 << k.ACCESSED | (op.write << k.DIRTY)
        offset = gfn & (self.config.cover(table.level) - 1)
        v.tlb[gfn & ~self.bits] = (v.pgd, ((entry & _PFN_MASK) >> k.PAGE_SHIFT) + offset, writable, table)
        return 0

    def _enter_guest(self, v: Vcpu) -> bool:
        """False while vCPUs must stay out (TDP-098)."""
        if self.config.deep and v.epoch < 0:
            if self.sept_wait:
                return False
            v.epoch = self.sept.enter()
        return True

    def _accept(self, op: ops.Accept) -> int:
        """The guest: it holds the tree shared while the firmware works for it."""
        if not self._enter_guest(self._vcpu(op.vcpu)):
            self.frame.given["kept_out"] = 1
            return k.TDX_OPERAND_BUSY
        thread = self.thread
        thread.in_guest = True
        who = -1 - op.vcpu
        status = self.sept.acquire(who, "shared")
        while _is_busy(status):
            self.scheduler.give_way()
            status = self.sept.acquire(who, "shared")
        self._linger()
        status = self.sept.accept(op.gpa >> k.PAGE_SHIFT)
        self.sept.release(who)
        thread.in_guest = False
        return status

    def _init_region(self, op: ops.InitRegion) -> int:
        return self.enter_int(self.driver.init_mem_region, op.vcpu, op.gpa)

    def _finalize(self, _op: ops.Finalize) -> int:
        return self.enter_int(self.driver.td_finalize)

    def _sept_set(self, op: ops.SeptSet) -> int:
        before = dict(self.pins)
        self.write_lock()
        result = self.enter_int(self.driver.sept_set, op.gfn, op.level, self._page(op.gfn, True))
        self.write_unlock()
        after = {pfn: n for pfn, n in self.pins.items() if n != before.get(pfn, 0)}
        self.require(c.BALANCED, not after, f"a refused page stays pinned: {_hex(after)}")
        return result

    def _sept_remove(self, op: ops.SeptRemove) -> int:
        self.write_lock()
        result = self.enter_int(self.driver.sept_remove, op.gfn, 1, self._page(op.gfn, True))
        self.write_unlock()
        return result

    def _sept_free(self, op: ops.SeptFree) -> int:
        self.write_lock()
        result = self.enter_int(self.driver.sept_free, op.gfn, 1, 0x1000)
        self.write_unlock()
        return result

    OPERATIONS: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        ops.VcpuCreate: _vcpu_create,
        ops.VcpuDestroy: _vcpu_destroy,
        ops.MmuReload: _mmu_reload,
        ops.MmuUnload: _mmu_unload,
        ops.FreeObsoleteRoots: _free_obsolete_roots,
        ops.RootMatch: _root_match,
        ops.FilterToTypes: _filter_to_types,
        ops.AddrIsDirect: _addr_is_direct,
        ops.GfnIsAlias: _gfn_is_alias,
        ops.SelectRoot: _select_root,
        ops.PageFault: _page_fault,
        ops.TdpMap: _tdp_map,
        ops.Faultin: _faultin,
        ops.Prefault: _prefault,
        ops.EptViolation: _ept_violation,
        ops.FastFault: _fast_fault,
        ops.GetWalk: _get_walk,
        ops.GpaIsMapped: _gpa_is_mapped,
        ops.ZapLeafs: _zap_leafs,
        ops.Unmap: _unmap,
        ops.Age: _age,
        ops.TestAge: _test_age,
        ops.WrprotSlot: _wrprot_slot,
        ops.ClearDirtySlot: _clear_dirty_slot,
        ops.ClearDirtyMasked: _clear_dirty_masked,
        ops.WriteProtectGfn: _write_protect_gfn,
        ops.SplitHuge: _split_huge,
        ops.RecoverHuge: _recover_huge,
        ops.ZapSp: _zap_sp,
        ops.InvalidateRoots: _invalidate_roots,
        ops.ZapInvalidated: _zap_invalidated,
        ops.ZapAllFast: _zap_all_fast,
        ops.ZapAll: _zap_all,
        ops.VmUninit: _vm_uninit,
        ops.SetAttributes: _set_attributes,
        ops.HvaInvalidate: _hva_invalidate,
        ops.GmemInvalidate: _gmem_invalidate,
        ops.SlotCreate: _slot_create,
        ops.SlotDelete: _slot_delete,
        ops.SlotMove: _slot_move,
        ops.InjectHuge: _inject_huge,
        ops.StealReference: _steal_reference,
        ops.HkidRelease: _hkid_release,
        ops.Access: _guest_access,
        ops.Accept: _accept,
        ops.InitRegion: _init_region,
        ops.Finalize: _finalize,
        ops.SeptSet: _sept_set,
        ops.SeptRemove: _sept_remove,
        ops.SeptFree: _sept_free,
    }


def _source(entry: int, gfn: int) -> str:
    return _source_of((entry & _PFN_MASK) >> k.PAGE_SHIFT, gfn)


def _source_of(pfn: int, gfn: int) -> str:
    """Name of the place a page comes from; with its gfn where that is another one."""
    name = _SOURCES.get(pfn >> _PLACE, "?")
    other = pfn & ((1 << _PLACE) - 1)
    return name if other == gfn else f"{name} of {other:#x}"


def _is_busy(status: int) -> bool:
    return status & k.TDX_STATUS_MASK == k.TDX_OPERAND_BUSY


def _base(slot: ops.Slot) -> int:
    return slot[1]


def _hex(values: dict[Any, Any]) -> str:
    return "{" + ", ".join(f"{_number(key)}: {_number(value)}" for key, value in values.items()) + "}"


def _number(value: Any) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


ENVIRONMENT = TdpMirror

CHECKS: dict[type, tuple[Check, ...]] = {
    ops.GmemInvalidate: (Check(c.KEEPS_PAGE_ANYHOW, lambda record: _kept(record.env)),)
}


def _kept(env: Any) -> bool | str:
    """Whether no page went back that the TD may still map."""
    if not env.removal_failed:
        return False
    return f"page {env.handed_back:#x} goes back to the host while the TD may map it" if env.handed_back else True
