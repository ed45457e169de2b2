"""Two maps, private and shared, and the external tree that the private one must equal.

The state is what the page tables *mean*: per root a set of leaves and a set of linked tables.
How entries are frozen, exchanged and flushed is judged where it happens, in the environment.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, assert_never

from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import (
    EAGAIN,
    EBUSY,
    EEXIST,
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    ENOENT,
    ENOMEM,
    EOPNOTSUPP,
)

NONE = -1
"""No root."""

Leaf = tuple[int, int, str, bool]
"""gfn, level, source of the page, writable."""
Table = tuple[int, int]
"""Level and base gfn of a linked table that is not a root."""
Slot = tuple[int, int, int, int]
"""Id, base gfn, pages, flags."""

GMEM_SOURCES = ("gmem", "gmem'")
HVA_SOURCES = ("hva", "hva'")
"""Each page has two places it may come from; an invalidation moves it to the other."""


PENDING, MAPPED, BLOCKED, PENDING_BLOCKED = "pending", "mapped", "blocked", "pending, blocked"
"""States of a leaf of the external tree."""
ExternalLeaf = tuple[int, int, str, str]
"""gfn, level, source of the page, state."""


@dataclass(frozen=True, slots=True)
class Gfns:
    """A set of gfns that may be as large as the address space: where it begins and ends, in turn."""

    edges: tuple[int, ...] = ()

    @classmethod
    def of(cls, *gfns: int) -> Gfns:
        """The set of these single gfns."""
        whole = cls()
        for gfn in gfns:
            whole = whole.with_range(gfn, gfn + 1, True)
        return whole

    def __contains__(self, gfn: int) -> bool:
        """Whether an odd number of edges lies at or below the gfn."""
        return bool(bisect_right(self.edges, gfn) & 1)

    def __xor__(self, other: Gfns) -> Gfns:
        """The gfns in one of the two."""
        return Gfns(tuple(sorted(set(self.edges) ^ set(other.edges))))

    def with_range(self, start: int, end: int, member: bool) -> Gfns:
        """The same with all of [start, end) in it, or none."""
        if start >= end:
            return self
        below, above = bool(bisect_left(self.edges, start) & 1), end in self
        return Gfns(
            (
                *(edge for edge in self.edges if edge < start),
                *((start,) if below != member else ()),
                *((end,) if above != member else ()),
                *(edge for edge in self.edges if edge > end),
            )
        )

    def has_all(self, start: int, end: int, member: bool) -> bool:
        """Whether all of [start, end) is in it, or none."""
        return self.with_range(start, end, member) == self

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of each run of gfns."""
        return tuple(zip(self.edges[::2], self.edges[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Config:
    """The world a trace starts in: the reduced geometry of four gfns unless it says otherwise."""

    mirror: bool = True
    """Whether the VM has mirror roots (a TD)."""
    private: bool = True
    """Whether it has private memory at all."""
    index_bits: int = 1
    """Binary logarithm of the entries of a table."""
    levels: int = 3
    direct_bit: int = 2
    """Number of the gfn bit that selects the shared half, on VMs with a mirror."""
    max_gfn: int = 3
    vcpus: int = 2
    slots: tuple[Slot, ...] = ((0, 0, 3, k.MEM_GUEST_MEMFD), (1, 3, 1, 0))
    private_gfns: tuple[int, ...] = (0, 1)
    """gfns whose attribute is PRIVATE at the start."""
    readonly_gfns: tuple[int, ...] = ()
    """Shared gfns whose page of the host may be written only once it was asked for to be written."""
    huge: bool = False
    """Whether the pages behind the shared half are contiguous, so that leaves may be huge."""
    deep: bool = False
    """Whether the candidate makes the SEAMCALLs itself; the TD is then not finalized yet."""
    early: bool = False
    """A hostile world in which prefault is allowed before the TD is finalized."""

    @property
    def direct_bits(self) -> int:
        """Gfn mask of the shared half; 0 without a mirror."""
        return 1 << self.direct_bit if self.mirror else 0

    def cover(self, level: int) -> int:
        """Pages that one entry of a table of this level covers."""
        return 1 << self.index_bits * (level - 1)

    def base(self, gfn: int, level: int) -> int:
        """First gfn of the entry of this level that covers `gfn`."""
        return gfn & ~(self.cover(level) - 1)

    def path(self, gfn: int, level: int) -> tuple[Table, ...]:
        """Tables between the root and an entry of `level`, from the top."""
        return tuple((lv, self.base(gfn, lv + 1)) for lv in range(self.levels - 1, level - 1, -1))


# -- operations


@dataclass(frozen=True, slots=True)
class VcpuCreate:
    """Create a vCPU."""

    vcpu: int = 0


@dataclass(frozen=True, slots=True)
class VcpuDestroy:
    """Unload a vCPU, put its mirror root, free its caches."""

    vcpu: int = 0


@dataclass(frozen=True, slots=True)
class MmuReload:
    """Free obsolete roots if requested, then load roots."""

    vcpu: int = 0


@dataclass(frozen=True, slots=True)
class MmuUnload:
    """Drop the direct root."""

    vcpu: int = 0


@dataclass(frozen=True, slots=True)
class FreeObsoleteRoots:
    """Drop the direct root if it is invalid."""

    vcpu: int = 0


@dataclass(frozen=True, slots=True)
class RootMatch:
    """Does a root of this kind and validity belong to the types."""

    mirror: bool = False
    invalid: bool = False
    types: int = 0


@dataclass(frozen=True, slots=True)
class FilterToTypes:
    """Root types of an attribute filter."""

    attr_filter: int = 0


@dataclass(frozen=True, slots=True)
class AddrIsDirect:
    """Whether an address lies in the shared half."""

    gpa: int = 0


@dataclass(frozen=True, slots=True)
class GfnIsAlias:
    """Whether a gfn has an alias bit."""

    gfn: int = 0


@dataclass(frozen=True, slots=True)
class SelectRoot:
    """Which root of a vCPU the types select."""

    vcpu: int = 0
    types: int = k.MIRROR_ROOTS


@dataclass(frozen=True, slots=True)
class PageFault:
    """The guest touches an address that hardware cannot translate."""

    vcpu: int = 0
    gpa: int = 0
    private: bool = False
    """PRIVATE_ACCESS in the error code."""
    write: bool = False
    present: bool = False
    """PRESENT in the error code: the fast path may be tried."""
    prefetch: bool = False


@dataclass(frozen=True, slots=True)
class TdpMap:
    """Install the page of a gfn at a level, with mmu_lock held for read."""

    vcpu: int = 0
    gpa: int = 0
    private: bool = False
    level: int = 1


@dataclass(frozen=True, slots=True)
class Faultin:
    """Resolve the page behind a raw gfn."""

    vcpu: int = 0
    gfn: int = 0
    private: bool = False


@dataclass(frozen=True, slots=True)
class Prefault:
    """KVM_PRE_FAULT_MEMORY."""

    vcpu: int = 0
    gpa: int = 0
    size: int = 4096
    flags: int = 0


@dataclass(frozen=True, slots=True)
class EptViolation:
    """A private EPT violation, retried locally."""

    vcpu: int = 0
    gpa: int = 0


@dataclass(frozen=True, slots=True)
class FastFault:
    """The lockless path alone."""

    vcpu: int = 0
    gpa: int = 0
    private: bool = False
    write: bool = False


@dataclass(frozen=True, slots=True)
class GetWalk:
    """Entries on the walk to an address."""

    vcpu: int = 0
    gpa: int = 0


@dataclass(frozen=True, slots=True)
class GpaIsMapped:
    """Whether a present leaf maps an address."""

    vcpu: int = 0
    gpa: int = 0


@dataclass(frozen=True, slots=True)
class ZapLeafs:
    """A host event zaps a range of the VM."""

    start: int = 0
    end: int = 4
    flush: bool = False


@dataclass(frozen=True, slots=True)
class Unmap:
    """Zap a range of the filtered halves, within an invalidation."""

    start: int = 0
    end: int = 4
    attr_filter: int = k.FILTER_SHARED
    may_block: bool = True
    flush: bool = False


@dataclass(frozen=True, slots=True)
class Age:
    """Clear accessed bits."""

    start: int = 0
    end: int = 4


@dataclass(frozen=True, slots=True)
class TestAge:
    """Look at accessed bits."""

    start: int = 0
    end: int = 4


@dataclass(frozen=True, slots=True)
class WrprotSlot:
    """Write-protect a slot."""

    slot: int = 0


@dataclass(frozen=True, slots=True)
class ClearDirtySlot:
    """Clear the dirty bits of a slot."""

    slot: int = 0


@dataclass(frozen=True, slots=True)
class ClearDirtyMasked:
    """Clear dirty, or writable, bits of single pages."""

    slot: int = 0
    gfn: int = 0
    mask: int = 1
    wrprot: bool = False


@dataclass(frozen=True, slots=True)
class WriteProtectGfn:
    """Write-protect one page for good."""

    slot: int = 0
    gfn: int = 0


@dataclass(frozen=True, slots=True)
class SplitHuge:
    """Split the huge leaves of a range."""

    slot: int = 0
    start: int = 0
    end: int = 4


@dataclass(frozen=True, slots=True)
class RecoverHuge:
    """Make room for huge leaves again."""

    slot: int = 0


@dataclass(frozen=True, slots=True)
class ZapSp:
    """NX recovery of one table."""

    mirror: bool = False
    level: int = 1
    gfn: int = 0
    """Base gfn of the table."""


@dataclass(frozen=True, slots=True)
class InvalidateRoots:
    """Mark roots invalid, and ask vCPUs to drop them."""

    types: int = k.DIRECT_ROOTS


@dataclass(frozen=True, slots=True)
class ZapInvalidated:
    """Zap what was invalidated."""


@dataclass(frozen=True, slots=True)
class ZapAllFast:
    """Invalidate and zap all direct roots."""


@dataclass(frozen=True, slots=True)
class ZapAll:
    """mmu_notifier release."""


@dataclass(frozen=True, slots=True)
class VmUninit:
    """The end of the VM's MMU."""


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """KVM_SET_MEMORY_ATTRIBUTES."""

    address: int = 0
    size: int = 4096
    attributes: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True)
class HvaInvalidate:
    """The host takes back pages of the shared half."""

    start: int = 0
    end: int = 4
    may_block: bool = True


@dataclass(frozen=True, slots=True)
class GmemInvalidate:
    """Guest memory loses pages (hole punch, or the file closes)."""

    start: int = 0
    end: int = 4


@dataclass(frozen=True, slots=True)
class SlotCreate:
    """Create a slot, or modify one."""

    slot: int = 2
    base: int = 0
    npages: int = 1
    flags: int = 0


@dataclass(frozen=True, slots=True)
class SlotDelete:
    """Delete a slot."""

    slot: int = 0


@dataclass(frozen=True, slots=True)
class SlotMove:
    """Move a slot."""

    slot: int = 1
    base: int = 3


@dataclass(frozen=True, slots=True)
class InjectHuge:
    """Corruption: a huge leaf appears in the mirror."""

    gfn: int = 0


@dataclass(frozen=True, slots=True)
class StealReference:
    """Corruption: the MMU's own reference to the valid direct root is lost."""


@dataclass(frozen=True, slots=True)
class HkidRelease:
    """The TD loses its key: the beginning of its end."""


@dataclass(frozen=True, slots=True)
class Access:
    """The guest touches an address: hardware fills its TLB and sets accessed and dirty bits."""

    vcpu: int = 0
    gpa: int = 0
    write: bool = False


@dataclass(frozen=True, slots=True)
class Accept:
    """The guest accepts a private page (TDG.MEM.PAGE.ACCEPT): the firmware lets it use what was added."""

    vcpu: int = 0
    gpa: int = 0


@dataclass(frozen=True, slots=True)
class InitRegion:
    """KVM_TDX_INIT_MEM_REGION of one page."""

    vcpu: int = 0
    gpa: int = 0


@dataclass(frozen=True, slots=True)
class Finalize:
    """KVM_TDX_FINALIZE_VM."""


@dataclass(frozen=True, slots=True)
class SeptSet:
    """The external hook alone, where it must refuse."""

    gfn: int = 0
    level: int = 2


@dataclass(frozen=True, slots=True)
class SeptRemove:
    """The external hook alone, where it must refuse."""

    gfn: int = 0


@dataclass(frozen=True, slots=True)
class SeptFree:
    """The external hook alone, where it must refuse."""

    gfn: int = 0


Pure = RootMatch | FilterToTypes | AddrIsDirect | GfnIsAlias | SelectRoot
Op = (
    Pure | VcpuCreate | VcpuDestroy | MmuReload | MmuUnload | FreeObsoleteRoots | PageFault | TdpMap | Faultin
    | Prefault | EptViolation | FastFault | GetWalk | GpaIsMapped | ZapLeafs | Unmap | Age | TestAge | WrprotSlot
    | ClearDirtySlot | ClearDirtyMasked | WriteProtectGfn | SplitHuge | RecoverHuge | ZapSp | InvalidateRoots
    | ZapInvalidated | ZapAllFast | ZapAll | VmUninit | SetAttributes | HvaInvalidate | GmemInvalidate | SlotCreate
    | SlotDelete | SlotMove | InjectHuge | StealReference | HkidRelease | Access | Accept | InitRegion | Finalize
    | SeptSet | SeptRemove | SeptFree
)  # fmt: skip

OPERATIONS: tuple[type, ...] = (
    VcpuCreate, VcpuDestroy, MmuReload, MmuUnload, FreeObsoleteRoots, RootMatch, FilterToTypes, AddrIsDirect,
    GfnIsAlias, SelectRoot, PageFault, TdpMap, Faultin, Prefault, EptViolation, FastFault, GetWalk, GpaIsMapped,
    ZapLeafs, Unmap, Age, TestAge, WrprotSlot, ClearDirtySlot, ClearDirtyMasked, WriteProtectGfn, SplitHuge,
    RecoverHuge, ZapSp, InvalidateRoots, ZapInvalidated, ZapAllFast, ZapAll, VmUninit, SetAttributes, HvaInvalidate,
    GmemInvalidate, SlotCreate, SlotDelete, SlotMove, InjectHuge, StealReference, HkidRelease, Access, Accept,
    InitRegion, Finalize, SeptSet, SeptRemove, SeptFree,
)  # fmt: skip

NEEDS: dict[type, frozenset[str]] = {
    op: frozenset({"seamcalls"}) for op in (InitRegion, Finalize, SeptSet, SeptRemove, SeptFree)
}

_LIFE = (VcpuDestroy, MmuUnload, FreeObsoleteRoots, SelectRoot)
_FAULTS = (PageFault, TdpMap, Faultin, FastFault, GetWalk, GpaIsMapped, EptViolation, Access, Accept)
_PURE = (RootMatch, FilterToTypes, AddrIsDirect, GfnIsAlias)


def requires(config: Config) -> frozenset[str]:
    """Small tables, or the real ones; and SEAMCALLs for the deep world."""
    needed = {"tables-of-512" if config.index_bits == 9 and config.levels >= 4 else "small-tables"}
    return frozenset(needed | ({"seamcalls"} if config.deep else set()))


@dataclass(frozen=True, slots=True)
class Answers:
    """Refusals that the candidate really met: by call, and what others did to it."""

    cache_topup: int = 0
    page_alloc: int = 0
    ext_link: int = 0
    ext_set: int = 0
    ext_remove: int = 0
    ext_free: int = 0
    gmem_get_pfn: int = 0
    reserve_attributes: int = 0
    mmu_invalidate_retry: int = 0
    resched: int = 0
    flush_range: int = 0
    pt_cmpxchg: int = 0
    pt_xchg: int = 0
    pt_store: int = 0
    signal_pending: int = 0
    tdh_mem_sept_add: int = 0
    tdh_mem_page_add: int = 0
    tdh_mem_page_aug: int = 0
    tdh_mem_range_block: int = 0
    tdh_mem_track: int = 0
    tdh_mem_page_remove: int = 0
    tdh_phymem_page_reclaim: int = 0
    tdh_mr_finalize: int = 0
    contended: int = 0
    """Another thread got in the way: an entry was frozen, or changed before an exchange."""
    killed: int = 0
    """Another thread bugged the VM meanwhile."""
    slot_invalid: int = 0
    """A slot was met in the middle of its deletion or move."""
    vcpu_has_events: int = 0
    attributes_changed: int = 0
    """The attributes of a gfn were read twice, and differed."""
    sept_failed: int = 0
    """A removal SEAMCALL failed twice."""
    lock_dropped: int = 0
    """mmu_lock was dropped in the middle while another thread was there."""
    split_beside: int = 0
    """Another thread split a huge leaf meanwhile."""
    kept_out: int = 0
    """The vCPU could not enter the guest, because vCPUs must stay out."""


@dataclass(frozen=True, slots=True)
class Root:
    """One root and what hangs below it."""

    mirror: bool
    invalid: bool = False
    scheduled: bool = False
    """Whether the MMU's own reference is still to be put after a zap."""
    tables: frozenset[Table] = frozenset()
    leaves: frozenset[Leaf] = frozenset()
    shielded: frozenset[int] = frozenset()
    """First gfns of leaves that the fast path may not make writable."""


@dataclass(frozen=True, slots=True)
class State:
    """The VM as the specification sees it."""

    config: Config
    roots: tuple[Root, ...] = ()
    """In the order in which they were listed."""
    vcpus: tuple[tuple[int, int] | None, ...] = ()
    """Direct and mirror root of each vCPU, as places in `roots`; None while it does not exist."""
    obsolete: frozenset[int] = frozenset()
    """vCPUs asked to free obsolete roots."""
    attributes: Gfns = Gfns()
    """gfns that are PRIVATE."""
    slots: tuple[Slot, ...] = ()
    moved_hva: Gfns = Gfns()
    """gfns whose page of the host is at its second place."""
    moved_gmem: Gfns = Gfns()
    """gfns whose page of guest memory is at its second place."""
    ext_tables: frozenset[Table] = frozenset()
    ext_leaves: frozenset[ExternalLeaf] = frozenset()
    premapped: frozenset[int] = frozenset()
    td: int = k.TD_RUNNABLE
    hkid: bool = True
    leaked: int = 0
    bugged: bool = False
    corrupt: bool = False
    gone: bool = False
    stolen: bool = False
    """Whether the valid direct root lacks the MMU's reference."""


def initial(config: Config, _profile: Profile) -> State:
    """No vCPU, no root; slots and attributes as the configuration says."""
    return State(
        config=config,
        vcpus=(None,) * config.vcpus,
        attributes=Gfns.of(*config.private_gfns),
        slots=config.slots,
        td=k.TD_INIT if config.deep else k.TD_RUNNABLE,
    )


# -- what the world can do


def legal(state: State, op: Op) -> bool:
    """No fault without a loaded vCPU, no teardown step before its time."""
    kind = type(op)
    if state.gone:
        return False
    if kind in _PURE:
        return True
    vcpu = getattr(op, "vcpu", None)
    if vcpu is not None:
        if vcpu >= len(state.vcpus) or (state.vcpus[vcpu] is None) != (kind is VcpuCreate):
            return False
    if state.stolen and not state.bugged:
        return isinstance(op, MmuUnload) and _holds_valid(state, op.vcpu)
    if state.corrupt:
        return kind in (PageFault, TdpMap, Prefault, EptViolation) and _reaches_corruption(state, op)
    if state.bugged:
        return kind in (Prefault, EptViolation, VcpuDestroy, GmemInvalidate, *_END) and _legal_end(state, op)
    if kind in _END:
        return _legal_end(state, op)
    if not state.hkid:
        return kind in (VcpuDestroy, HvaInvalidate, Age, TestAge) or (
            kind in (SeptRemove, Finalize) and state.config.deep
        )
    return _legal_alive(state, op)


def legal_beside(state: State, op: Op) -> bool:
    """What had begun goes on when another thread kills the VM."""
    if isinstance(op, InitRegion) and state.config.deep and state.td == k.TD_RUNNABLE:
        state = replace(state, td=k.TD_INIT)
    return legal(replace(state, bugged=False) if state.bugged and not state.stolen else state, op) or legal(state, op)


_END = (HkidRelease, VmUninit, ZapAll)


def _legal_end(state: State, op: Op) -> bool:
    match op:
        case HkidRelease():
            return state.hkid and state.config.mirror and not _private(state)
        case VmUninit():
            return all(v is None for v in state.vcpus) and not (state.hkid and state.config.mirror)
        case GmemInvalidate():
            return state.hkid and state.config.private
        case Prefault() | EptViolation():
            return state.hkid and _is_loaded(state, op.vcpu) and not _alias(state.config, op.gpa >> 12)
    return True


def _legal_alive(state: State, op: Op) -> bool:
    config = state.config
    match op:
        case TdpMap():
            return _legal_map(state, op)
        case Faultin():
            return _is_loaded(state, op.vcpu) and state.td == k.TD_RUNNABLE and (config.private or not op.private)
        case EptViolation():
            return config.mirror and _is_loaded(state, op.vcpu) and not _is_direct(config, op.gpa) and _runs(state)
        case PageFault():
            return _is_loaded(state, op.vcpu) and _runs(state) and (config.private or not op.private)
        case Accept():
            return config.mirror and _is_loaded(state, op.vcpu) and not _alias(config, op.gpa >> 12) and _runs(state)
        case FastFault() | GetWalk() | Access():
            return _is_loaded(state, op.vcpu) and _runs(state)
        case GpaIsMapped() | SelectRoot():
            return _is_loaded(state, op.vcpu)
        case ZapSp():
            root = _valid(state, op.mirror)
            return root != NONE and (op.level, op.gfn) in state.roots[root].tables
        case Unmap():
            return (bool(op.attr_filter) or config.mirror) and (op.start < op.end or not config.huge)
        case ZapLeafs():
            return op.start < op.end or not config.huge
        case WrprotSlot() | ClearDirtySlot() | ClearDirtyMasked() | SplitHuge() | RecoverHuge() | WriteProtectGfn():
            return _legal_in_slot(state, op)
        case InvalidateRoots():
            return not op.types & k.MIRROR_ROOTS
        case SlotCreate():
            slot = _slot_by_id(state, op.slot)
            return slot is None or bool(slot[3] & k.MEM_GUEST_MEMFD)
        case SlotDelete() | SlotMove():
            slot = _slot_by_id(state, op.slot)
            return slot is not None and config.mirror and not slot[3] & k.SLOT_INVALID
        case GmemInvalidate():
            return config.private
        case HvaInvalidate():
            # The host takes back huge pages as a whole: it splits them in an invalidation of their own.
            return not config.huge or not (op.start | op.end) & (config.cover(2) - 1)
        case SetAttributes():
            start, end = op.address >> 12, op.address + op.size >> 12
            within = end <= config.max_gfn + 1 and not (start < end and _has_alias(config, start, end - 1))
            return op.address + op.size > 2**64 or within
        case StealReference():
            index = _valid(state, False)
            return index != NONE and _references(state, index) == 2 and not state.roots[index].tables
        case InjectHuge():
            return _can_corrupt(state, op.gfn)
        case InitRegion():
            return config.deep and state.td == k.TD_INIT and not config.early and not _alias(config, op.gpa >> 12)
        case Finalize():
            return config.deep and not config.early
        case SeptSet():
            return config.deep and (op.level > 1 or (config.early and state.td == k.TD_INIT))
        case SeptRemove():
            return False
        case SeptFree():
            return config.deep
    return True


def _legal_in_slot(
    state: State, op: WrprotSlot | ClearDirtySlot | ClearDirtyMasked | SplitHuge | RecoverHuge | WriteProtectGfn
) -> bool:
    slot = _slot_by_id(state, op.slot)
    if slot is None:
        return False
    end = slot[1] + slot[2]
    match op:
        case ClearDirtyMasked():
            return op.mask > 0 and slot[1] <= op.gfn and op.gfn + op.mask.bit_length() <= end
        case WriteProtectGfn():
            return slot[1] <= op.gfn < end
        case SplitHuge():
            return slot[1] <= op.start < op.end <= end
    return True


def _legal_map(state: State, op: TdpMap) -> bool:
    config = state.config
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    gfn = op.gpa >> 12 & ~config.direct_bits
    if not _runs(state) or op.private != (config.mirror and not _is_direct(config, op.gpa)) or _unmappable(config, gfn):
        return False
    slot = _slot_of(state, gfn)
    if slot is None or slot[3] & k.SLOT_INVALID or op.private != (gfn in state.attributes):
        return False
    if op.private:
        return bool(slot[3] & k.MEM_GUEST_MEMFD) and (pair[0] == NONE or not state.roots[pair[0]].invalid)
    if pair[0] == NONE or state.roots[pair[0]].invalid:
        return False
    return op.level == 1 or (op.level == 2 and _huge_fits(state, gfn))


def _reaches_corruption(state: State, op: Op) -> bool:
    """Whether the operation walks into the huge leaf that was injected."""
    assert isinstance(op, PageFault | TdpMap | Prefault | EptViolation)
    if state.bugged or _is_direct(state.config, op.gpa) or (isinstance(op, PageFault | TdpMap) and not op.private):
        return False
    if isinstance(op, TdpMap) and op.level != 1:
        return False
    if isinstance(op, Prefault) and (op.size, op.flags) != (4096, 0):
        return False
    pair = state.vcpus[op.vcpu]
    gfn = op.gpa >> 12
    if pair is None or NONE in pair or state.roots[pair[0]].invalid or gfn not in state.attributes:
        return False
    slot = _slot_of(state, gfn)
    if slot is None or slot[3] & (k.MEM_GUEST_MEMFD | k.SLOT_INVALID) != k.MEM_GUEST_MEMFD:
        return False
    leaf = _covering(state.config, state.roots[pair[1]], gfn)
    return leaf is not None and leaf[1] > 1


def _can_corrupt(state: State, gfn: int) -> bool:
    config = state.config
    root = _valid(state, True)
    if root == NONE or config.levels < 3 or gfn & (config.cover(2) - 1) or not _runs(state):
        return False
    tables = state.roots[root].tables
    above = all(table in tables for table in config.path(gfn, 2))
    return above and (1, gfn) not in tables and _slot_of(state, gfn) is not None


def _holds_valid(state: State, vcpu: int) -> bool:
    pair = state.vcpus[vcpu]
    return pair is not None and pair[0] != NONE and not state.roots[pair[0]].invalid


def _is_loaded(state: State, vcpu: int) -> bool:
    pair = state.vcpus[vcpu]
    return pair is not None and pair[0] != NONE


def _runs(state: State) -> bool:
    return state.td == k.TD_RUNNABLE and state.hkid


# -- reading the state


def _is_direct(config: Config, gpa: int) -> bool:
    return not config.direct_bits or bool(gpa >> 12 & config.direct_bits)


def _alias(config: Config, gfn: int) -> bool:
    return bool(gfn & config.direct_bits)


def _slot_of(state: State, gfn: int) -> Slot | None:
    return next((slot for slot in state.slots if slot[1] <= gfn < slot[1] + slot[2]), None)


def _slot_by_id(state: State, slot: int) -> Slot | None:
    return next((s for s in state.slots if s[0] == slot), None)


def _valid(state: State, mirror: bool) -> int:
    """Place of the valid root of a kind, or NONE."""
    for i, root in enumerate(state.roots):
        if root.mirror == mirror and not root.invalid:
            return i
    return NONE


def _private(state: State) -> frozenset[Leaf]:
    root = _valid(state, True)
    return frozenset() if root == NONE else state.roots[root].leaves


def _covering(config: Config, root: Root, gfn: int) -> Leaf | None:
    return next((leaf for leaf in root.leaves if leaf[0] <= gfn < leaf[0] + config.cover(leaf[1])), None)


def source(state: State, gfn: int, private: bool) -> str:
    """Where the page behind a gfn comes from now."""
    return ("gmem" if private else "hva") + "'" * (gfn in (state.moved_gmem if private else state.moved_hva))


def _huge_fits(state: State, gfn: int) -> bool:
    """Whether a leaf of level 2 may cover a shared gfn: one slot, contiguous pages, one attribute."""
    config = state.config
    if not config.huge:
        return False
    start, count = config.base(gfn, 2), config.cover(2)
    slot = _slot_of(state, gfn)
    if slot is None or start < slot[1] or start + count > slot[1] + slot[2]:
        return False
    moved = start in state.moved_hva
    return state.attributes.has_all(start, start + count, False) and state.moved_hva.has_all(
        start, start + count, moved
    )


def _references(state: State, index: int) -> int:
    root = state.roots[index]
    own = 1 if (not root.invalid and not (state.stolen and not root.mirror)) or root.scheduled else 0
    return own + sum(index in pair for pair in state.vcpus if pair is not None)


# -- changing it


def _with_root(state: State, index: int, root: Root) -> State:
    return replace(state, roots=(*state.roots[:index], root, *state.roots[index + 1 :]))


def _collect(state: State) -> State:
    """Roots that nobody holds any more leave the list."""
    for index in range(len(state.roots) - 1, -1, -1):
        if _references(state, index) == 0:
            state = replace(
                state,
                roots=state.roots[:index] + state.roots[index + 1 :],
                vcpus=tuple(
                    None if pair is None else (pair[0] - (pair[0] > index), pair[1] - (pair[1] > index))
                    for pair in state.vcpus
                ),
            )
    return state


def _set_vcpu(state: State, vcpu: int, pair: tuple[int, int] | None) -> State:
    return replace(state, vcpus=(*state.vcpus[:vcpu], pair, *state.vcpus[vcpu + 1 :]))


def _drop_direct(state: State, vcpu: int, only_invalid: bool) -> State:
    pair = state.vcpus[vcpu]
    assert pair is not None
    if pair[0] == NONE or (only_invalid and not state.roots[pair[0]].invalid):
        return state
    return _collect(_set_vcpu(state, vcpu, (NONE, pair[1])))


def _zap(state: State, start: int, end: int, mirror: bool, direct: bool, invalid: bool) -> State:
    """Remove the leaves that overlap [start, end) from the chosen roots, and from the external tree."""
    if start >= end:
        return state
    config = state.config
    roots = []
    gone: set[int] = set()
    for listed in state.roots:
        root = listed
        if (mirror if root.mirror else direct) and (invalid or not root.invalid):
            hit = frozenset(leaf for leaf in root.leaves if leaf[0] < end and start < leaf[0] + config.cover(leaf[1]))
            if hit:
                if root.mirror:
                    gone |= {leaf[0] for leaf in hit}
                root = replace(root, leaves=root.leaves - hit, shielded=root.shielded - {leaf[0] for leaf in hit})
        roots.append(root)
    if tuple(roots) == state.roots:
        return state
    return replace(
        state,
        roots=tuple(roots),
        ext_leaves=frozenset(leaf for leaf in state.ext_leaves if leaf[0] not in gone),
        premapped=state.premapped - gone,
    )


def _empty_roots(state: State, chosen: frozenset[int]) -> State:
    """Nothing is left below the chosen roots."""
    roots = tuple(
        Root(root.mirror, root.invalid, root.scheduled) if i in chosen else root for i, root in enumerate(state.roots)
    )
    return replace(state, roots=roots)


def _failed_removals(state: State, after: State, answers: Answers) -> Outcomes | None:
    """Outcomes of a zap during which one removal from the external tree failed: that page stays there."""
    if not answers.ext_remove and not answers.sept_failed:
        return None
    bugged = replace(after, bugged=True)
    also = (c.BUSY_RETRY_ONCE,) if answers.sept_failed else ()
    kept = [
        replace(bugged, ext_leaves=bugged.ext_leaves | {left})
        for leaf in state.ext_leaves - after.ext_leaves
        for left in ((leaf, _blocked(leaf)) if answers.sept_failed else (leaf,))
    ]
    kept += [replace(bugged, premapped=bugged.premapped | {gfn}) for gfn in state.premapped - after.premapped]
    clause = c.FAILED_REMOVE_KEEPS_PAGE
    return tuple(Outcome(s, 0, because=clause, effect=clause, also=also) for s in kept)


def _blocked(leaf: ExternalLeaf) -> ExternalLeaf:
    return (*leaf[:3], PENDING_BLOCKED if leaf[3] == PENDING else BLOCKED)


def _zapped(state: State, after: State, answers: Answers, because: Clause, *also: Clause) -> Outcomes:
    failed = _failed_removals(state, after, answers)
    return failed if failed is not None else Outcome(after, 0, because=because, effect=because, also=also)


# -- roots


def vcpu_create(state: State, op: VcpuCreate, _answers: Answers) -> Outcomes:
    """A vCPU without roots."""
    return Outcome(
        replace(_set_vcpu(state, op.vcpu, (NONE, NONE)), obsolete=state.obsolete - {op.vcpu}),
        0,
        because=c.MIRROR_BEFORE_DIRECT,
    )


def vcpu_destroy(state: State, op: VcpuDestroy, _answers: Answers) -> Outcomes:
    """Put both references, the mirror's exactly once (TDP-028)."""
    return Outcome(
        _collect(_set_vcpu(state, op.vcpu, None)), 0, because=c.DESTROY_PUTS_MIRROR, also=(c.ROOT_REFERENCES,)
    )


def mmu_unload(state: State, op: MmuUnload, _answers: Answers) -> Outcomes:
    """The direct root goes, the mirror root stays (TDP-027)."""
    if state.stolen and state.vcpus[op.vcpu] is not None and _is_loaded(state, op.vcpu):
        return _final_put(state, op.vcpu)
    return Outcome(
        _drop_direct(state, op.vcpu, False),
        0,
        because=c.MIRROR_SURVIVES_UNLOAD,
        also=(c.ROOT_REFERENCES,),
    )


def _final_put(state: State, vcpu: int) -> Outcomes:
    """The last reference of a root that is still valid: a VM bug, whatever becomes of the root (TDP-033)."""
    dropped = replace(_drop_direct(state, vcpu, False), bugged=True, stolen=False)
    index = _valid(dropped, False)
    freed = replace(dropped, roots=tuple(r for i, r in enumerate(dropped.roots) if i != index))
    freed = replace(
        freed, vcpus=tuple(None if pair is None else (pair[0], pair[1] - (pair[1] > index)) for pair in freed.vcpus)
    )
    kept = replace(dropped, stolen=True)
    return tuple(
        Outcome(after, 0, because=c.FINAL_PUT_OF_VALID, effect=c.FINAL_PUT_OF_VALID) for after in (freed, kept)
    )


def free_obsolete_roots(state: State, op: FreeObsoleteRoots, _answers: Answers) -> Outcomes:
    """The direct root goes if it is invalid."""
    return Outcome(_drop_direct(state, op.vcpu, True), 0, because=c.MIRROR_SURVIVES_UNLOAD)


def mmu_reload(state: State, op: MmuReload, answers: Answers) -> Outcomes:
    """Free obsolete roots if requested, then load what is missing (TDP-039, 021, 025)."""
    freed = _freed(state, op.vcpu)
    if answers.cache_topup or answers.page_alloc:
        clause = c.ALLOCATION_BEFORE_LOCK
        return tuple(Outcome(s, -ENOMEM, because=clause, effect=clause) for s in dict.fromkeys((freed, state)))
    return Outcome(_loaded(freed, op.vcpu), 0, because=c.RELOAD_FREES_OBSOLETE, also=_load_clauses(freed, op.vcpu))


def _freed(state: State, vcpu: int) -> State:
    if vcpu in state.obsolete:
        return replace(_drop_direct(state, vcpu, True), obsolete=state.obsolete - {vcpu})
    return state


def _load_clauses(state: State, vcpu: int) -> tuple[Clause, ...]:
    pair = state.vcpus[vcpu]
    assert pair is not None
    if pair[0] != NONE:
        return ()
    clauses: tuple[Clause, ...] = (c.ROOT_REFERENCES, c.ONE_ROOT_PER_ROLE)
    if _valid(state, False) == NONE:
        clauses += (c.NEW_ROOT_REFERENCES,)
    else:
        clauses += (c.ROOT_REUSED,)
    if state.config.mirror:
        clauses += (c.MIRROR_BEFORE_DIRECT, c.ONE_MIRROR_ROOT)
        if pair[1] != NONE:
            clauses += (c.MIRROR_ONLY_ONCE,)
    return clauses


def _loaded(state: State, vcpu: int) -> State:
    """Take a reference to a mirror root, if none is held, then to a direct root."""
    pair = state.vcpus[vcpu]
    assert pair is not None
    direct, mirror = pair
    if direct != NONE:
        return state
    if state.config.mirror and mirror == NONE:
        mirror = _valid(state, True)
        if mirror == NONE:
            mirror = len(state.roots)
            state = replace(state, roots=(*state.roots, Root(mirror=True)))
    direct = _valid(state, False)
    if direct == NONE:
        direct = len(state.roots)
        state = replace(state, roots=(*state.roots, Root(mirror=False)))
    return _set_vcpu(state, vcpu, (direct, mirror))


def invalidate_roots(state: State, op: InvalidateRoots, _answers: Answers) -> Outcomes:
    """Valid direct roots become invalid and are scheduled; the INVALID bit adds nothing (TDP-009)."""
    because = c.INVALIDATE_IGNORES_INVALID_BIT if op.types & k.TYPE_VALIDITY else c.SCHEDULED_ONCE
    after = _invalidated(state) if op.types & k.DIRECT_ROOTS else state
    return Outcome(
        replace(after, obsolete=_everybody(state)),
        0,
        because=because,
        effect=because,
        also=(c.ONE_MIRROR_ROOT, c.SCHEDULED_ONCE),
    )


def _everybody(state: State) -> frozenset[int]:
    return frozenset(i for i, pair in enumerate(state.vcpus) if pair is not None)


def _invalidated(state: State) -> State:
    roots = tuple(
        root if root.mirror or root.invalid else replace(root, invalid=True, scheduled=True) for root in state.roots
    )
    return replace(state, roots=roots)


def _zap_scheduled(state: State) -> State:
    chosen = frozenset(i for i, root in enumerate(state.roots) if root.scheduled)
    state = _empty_roots(state, chosen)
    return _collect(replace(state, roots=tuple(replace(root, scheduled=False) for root in state.roots)))


def zap_invalidated(state: State, _op: ZapInvalidated, _answers: Answers) -> Outcomes:
    """Scheduled roots are emptied and the MMU's reference put once (TDP-032)."""
    return Outcome(
        _zap_scheduled(state),
        0,
        because=c.SCHEDULED_ONCE,
        effect=c.SCHEDULED_ONCE,
        also=(c.ZAP_WHOLE_ROOT,) if any(root.scheduled and root.leaves for root in state.roots) else (),
    )


def zap_all_fast(state: State, _op: ZapAllFast, _answers: Answers) -> Outcomes:
    """Only direct roots (TDP-030)."""
    after = _zap_scheduled(_invalidated(state))
    return Outcome(
        replace(after, obsolete=_everybody(state)),
        0,
        because=c.FAST_ZAP_DIRECT,
        effect=c.FAST_ZAP_DIRECT,
        also=(c.ONE_MIRROR_ROOT, c.ZAP_WHOLE_ROOT) if _valid(state, True) != NONE else (c.ZAP_WHOLE_ROOT,),
    )


def zap_all(state: State, _op: ZapAll, _answers: Answers) -> Outcomes:
    """Every direct root, valid or not; never a mirror (TDP-035)."""
    direct = frozenset(i for i, root in enumerate(state.roots) if not root.mirror)
    return Outcome(_empty_roots(state, direct), 0, because=c.ZAP_ALL_DIRECT, effect=c.ZAP_ALL_DIRECT)


def vm_uninit(state: State, _op: VmUninit, answers: Answers) -> Outcomes:
    """Nothing is left, save pages leaked because the firmware did not give them back (TDP-036, 078)."""
    leaked = state.leaked + (1 if answers.ext_free or answers.tdh_phymem_page_reclaim else 0)
    after = replace(
        state, roots=(), ext_tables=frozenset(), ext_leaves=frozenset(), gone=True, leaked=leaked,
        premapped=frozenset(), bugged=state.bugged or leaked > state.leaked,
    )  # fmt: skip
    because = c.FAILED_FREE_LEAKS if leaked > state.leaked else c.UNINIT_COMPLETE
    return Outcome(after, 0, because=because, effect=because)


# -- faults


def _exit(config: Config, gfn: int, private: bool) -> tuple[int, int, int]:
    return (gfn & ~config.direct_bits) << 12, 4096, k.MEMORY_EXIT_PRIVATE if private else 0


_REFUSALS = (-EIO, -EFAULT, -EINVAL, k.RET_PF_RETRY)


def _refused(state: State, because: Clause) -> Outcomes:
    """Refused by one of several errors, with or without bugging the VM; nothing else changed."""
    return tuple(
        Outcome(replace(state, bugged=bugged), (result, ()), because=because, effect=because)
        for result in _REFUSALS
        for bugged in (True, False)
    )


def page_fault(state: State, op: PageFault, answers: Answers, profile: Profile) -> Outcomes:
    """Resolve a fault; the result is (RET_PF or -errno, memory-fault exit or ())."""
    normal = _fault(state, op.vcpu, op.gpa, op.private, op.write, op.prefetch, answers, profile)
    if op.present and _is_direct(state.config, op.gpa) and not op.private:
        fast = _fast(state, op.vcpu, op.gpa, op.write)
        if fast is not None and (fast.state != state or _is_obsolete(state, op.vcpu)):
            return (replace(fast, result=(fast.result, ())), *_tuple(normal))
    return normal


def _tuple(outcomes: Outcomes) -> tuple[Outcome, ...]:
    return (outcomes,) if isinstance(outcomes, Outcome) else outcomes


def _is_obsolete(state: State, vcpu: int) -> bool:
    pair = state.vcpus[vcpu]
    return pair is not None and pair[0] != NONE and state.roots[pair[0]].invalid


def _fault(
    state: State, vcpu: int, gpa: int, private: bool, write: bool, prefetch: bool, answers: Answers, profile: Profile
) -> Outcomes:
    config = state.config
    gfn = gpa >> 12 & ~config.direct_bits
    if config.mirror and private == _is_direct(config, gpa):
        clause = c.HALVES_DISAGREE
        refusals = (-EFAULT, ()), (-EFAULT, _exit(config, gfn, private))
        bugged = replace(state, bugged=True)
        return tuple(
            Outcome(after, result, because=clause, effect=clause)
            for after, results in ((state, refusals), (bugged, (*refusals, (-EIO, ()))))
            for result in results
        )
    if answers.cache_topup or answers.page_alloc:
        return Outcome(state, (-ENOMEM, ()), because=c.ALLOCATION_BEFORE_LOCK)
    resolved = _resolve(state, gfn, private, prefetch, answers)
    if resolved is not None and not answers.mmu_invalidate_retry:
        return resolved
    stale = Outcome(state, (k.RET_PF_RETRY, ()), because=c.STALE_FAULT, effect=c.STALE_FAULT)
    if resolved is not None:
        return (*_tuple(resolved), stale)
    if _unmappable(config, gfn):
        refused = Outcome(
            state,
            (-EFAULT, _exit(config, gfn, private)),
            because=c.UNMAPPABLE_ADDRESS,
            effect=c.UNMAPPABLE_ADDRESS,
        )
        return (refused, stale) if _is_obsolete(state, vcpu) or answers.mmu_invalidate_retry else refused
    if _is_obsolete(state, vcpu) or answers.mmu_invalidate_retry:
        return stale
    pair = state.vcpus[vcpu]
    assert pair is not None
    mirror = config.mirror and (private if profile.root_by_access else not _is_direct(config, gpa))
    return _map(state, pair[1] if mirror else pair[0], gfn, private, write, prefetch, answers, profile)


def _resolve(state: State, gfn: int, private: bool, prefetch: bool, answers: Answers) -> Outcomes | None:
    """Attributes, slot and page of a gfn; None when a page is there."""
    config = state.config
    exit_record = _exit(config, gfn, private)
    if private != (gfn in state.attributes):
        return Outcome(
            state, (-EFAULT, exit_record), because=c.ATTRIBUTE_MISMATCH, effect=c.CONVERSION_FINAL,
            also=(c.CONVERSION_FINAL,),
        )  # fmt: skip
    slot = _slot_of(state, gfn)
    if slot is None or (private and not slot[3] & k.MEM_GUEST_MEMFD):
        if slot is not None and (slot[3] & k.SLOT_INVALID or answers.slot_invalid):
            return _in_deletion(state, prefetch)
        return _no_slot(state, gfn, private)
    if slot[3] & k.SLOT_INVALID or answers.slot_invalid:
        return _in_deletion(state, prefetch)
    if answers.gmem_get_pfn:
        return Outcome(state, (answers.gmem_get_pfn, exit_record), because=c.GMEM_ERROR)
    return None


def _in_deletion(state: State, prefetch: bool) -> Outcome:
    result = -EAGAIN if prefetch else k.RET_PF_RETRY
    return Outcome(state, (result, ()), because=c.INVALID_SLOT, effect=c.INVALID_SLOT)


def _no_slot(state: State, gfn: int, private: bool) -> Outcome:
    """No page: the memory-fault exit for the private half, MMIO for the shared one."""
    config = state.config
    because = c.UNMAPPABLE_ADDRESS if _unmappable(config, gfn) else c.NO_BACKING
    result = (-EFAULT, _exit(config, gfn, True)) if private else (k.RET_PF_EMULATE, ())
    return Outcome(state, result, because=because, effect=because)


def _unmappable(config: Config, gfn: int) -> bool:
    return gfn >= config.cover(config.levels + 1)


def _map(
    state: State,
    index: int,
    gfn: int,
    private: bool,
    write: bool,
    prefetch: bool,
    answers: Answers,
    profile: Profile,
    level: int = 1,
) -> Outcomes:
    """Install the leaf of a gfn under a root, or find it there."""
    config = state.config
    root = state.roots[index]
    leaf = _covering(config, root, gfn)
    if root.mirror and leaf is not None and leaf[1] > 1:
        return _refused(state, c.MIRROR_NO_HUGE)
    outcomes: tuple[Outcome, ...] = ()
    if leaf is None:
        outcomes = _interrupted(state, index, gfn, answers)
        if not answers.ext_link and not answers.ext_set and not answers.pt_cmpxchg:
            writable = private or root.mirror or write or gfn not in config.readonly_gfns
            outcomes += _installed(state, index, gfn, private, profile, level, writable)
        return outcomes if len(outcomes) != 1 else outcomes[0]
    allowed = prefetch or not write or leaf[3]
    if answers.contended or answers.pt_cmpxchg:
        outcomes += tuple(
            Outcome(s, (k.RET_PF_RETRY, ()), because=c.FAULT_RESULT)
            for s in ((state, _split(state, index, gfn)) if leaf[1] > level else (state,))
        )
    outcomes += (_permitted(state, index, leaf, allowed),)
    if leaf[1] > level:
        split = _split(state, index, gfn)
        small = _covering(config, split.roots[index], gfn)
        assert small is not None
        outcomes += (_permitted(split, index, small, allowed),)
    elif not root.mirror and not private and (leaf[1] == 1 or answers.split_beside) and _huge_fits(state, gfn):
        outcomes += (_installed_huge(state, index, gfn),)
    return outcomes if len(outcomes) != 1 else outcomes[0]


def _permitted(state: State, index: int, leaf: Leaf, allowed: bool) -> Outcome:
    """A leaf that is there: SPURIOUS if it permits the access, FIXED when it is made to (TDP-068)."""
    if allowed:
        return Outcome(state, (k.RET_PF_SPURIOUS, ()), because=c.FAULT_RESULT, effect=c.FAULT_RESULT)
    root = state.roots[index]
    after = _with_root(
        state,
        index,
        replace(root, leaves=root.leaves - {leaf} | {(*leaf[:3], True)}, shielded=root.shielded - {leaf[0]}),
    )
    return Outcome(after, (k.RET_PF_FIXED, ()), because=c.FAULT_RESULT, effect=c.FAULT_RESULT)


def _interrupted(state: State, index: int, gfn: int, answers: Answers) -> tuple[Outcome, ...]:
    """RETRY after some of the missing tables were linked, because the external tree or another thread said no."""
    hard = -EIO in (answers.ext_link, answers.ext_set)
    reason = answers.ext_link or answers.ext_set or answers.contended or answers.pt_cmpxchg
    if not reason:
        return ()
    because = c.BUSY_IS_NO_BUG if answers.ext_link or answers.ext_set else c.FAULT_RESULT
    missing = [table for table in state.config.path(gfn, 1) if table not in state.roots[index].tables]
    least = len(missing) if answers.ext_set and not answers.ext_link else 0
    most = len(missing) - 1 if answers.ext_link and not answers.ext_set else len(missing)
    return tuple(
        Outcome(
            replace(_linked(state, index, missing[:n]), bugged=state.bugged or hard),
            (k.RET_PF_RETRY, ()),
            because=because,
            effect=c.FAILED_EXTERNAL_RESTORES,
            also=(c.FAILED_EXTERNAL_RESTORES,) if because is c.BUSY_IS_NO_BUG else (),
        )
        for n in range(least, most + 1)
    )


def _linked(state: State, index: int, tables: list[Table] | tuple[Table, ...]) -> State:
    if not tables:
        return state
    root = state.roots[index]
    state = _with_root(state, index, replace(root, tables=root.tables | frozenset(tables)))
    return replace(state, ext_tables=state.ext_tables | frozenset(tables)) if root.mirror else state


def _installed(
    state: State, index: int, gfn: int, private: bool, profile: Profile, level: int, writable: bool
) -> tuple[Outcome, ...]:
    config = state.config
    mirror = state.roots[index].mirror
    also = (c.ROOT_BY_ADDRESS, c.BUILD_TOP_DOWN) if mirror else (c.ROOT_BY_ADDRESS,)
    outcomes: tuple[Outcome, ...] = ()
    if level == 1:
        after = _linked(_split(state, index, gfn), index, config.path(gfn, 1))
        leaf = (gfn, 1, source(state, gfn, private), writable)
        root = after.roots[index]
        kept = frozenset(old for old in root.leaves if old[0] != gfn)
        shielded = root.shielded - {gfn} if writable else root.shielded | {gfn}
        after = _with_root(after, index, replace(root, leaves=kept | {leaf}, shielded=shielded))
        if mirror:
            after = _in_external(after, gfn, leaf[2], profile)
        outcomes = (Outcome(after, (k.RET_PF_FIXED, ()), because=c.FAULT_RESULT, also=also),)
    if not mirror and not private and _huge_fits(state, gfn):
        outcomes += (_installed_huge(state, index, gfn),)
    return outcomes


def _split(state: State, index: int, gfn: int) -> State:
    """Break a huge leaf in the way into leaves of 4K."""
    config = state.config
    root = state.roots[index]
    leaf = _covering(config, root, gfn)
    if leaf is None or leaf[1] == 1:
        return state
    gfns = range(leaf[0], leaf[0] + config.cover(leaf[1]))
    small = frozenset((g, 1, leaf[2], leaf[3]) for g in gfns)
    shielded = root.shielded | frozenset(gfns) if leaf[0] in root.shielded else root.shielded - frozenset(gfns)
    tables = root.tables | {(1, leaf[0])}
    return _with_root(
        state, index, replace(root, leaves=root.leaves - {leaf} | small, tables=tables, shielded=shielded)
    )


def _installed_huge(state: State, index: int, gfn: int) -> Outcome:
    config = state.config
    base = config.base(gfn, 2)
    after = _linked(state, index, config.path(gfn, 2))
    root = after.roots[index]
    leaves = frozenset(leaf for leaf in root.leaves if not base <= leaf[0] < base + config.cover(2))
    leaf = (base, 2, source(state, base, False), True)
    shielded = frozenset(g for g in root.shielded if not base <= g < base + config.cover(2))
    root = replace(root, leaves=leaves | {leaf}, tables=root.tables - {(1, base)}, shielded=shielded)
    return Outcome(
        _with_root(after, index, root), (k.RET_PF_FIXED, ()), because=c.FAULT_RESULT,
        also=(c.ROOT_BY_ADDRESS, c.STRADDLING_HUGE),
    )  # fmt: skip


def _in_external(state: State, gfn: int, page: str, profile: Profile) -> State:
    if state.td == k.TD_INIT and profile.premapped:
        return replace(state, premapped=state.premapped | {gfn})
    return _with_external(state, gfn, page, PENDING if state.td == k.TD_RUNNABLE else MAPPED)


def _with_external(state: State, gfn: int, page: str, kind: str) -> State:
    return replace(state, ext_leaves=state.ext_leaves | {(gfn, 1, page, kind)})


def tdp_map(state: State, op: TdpMap, answers: Answers, profile: Profile) -> Outcomes:
    """Install one leaf; a mirror takes none above 4K, and needs to be there (TDP-057, 024)."""
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    gfn = op.gpa >> 12 & ~state.config.direct_bits
    index = pair[1] if op.private else pair[0]
    if index == NONE:
        return _refused(state, c.MIRROR_BEFORE_DIRECT)
    if op.private and op.level > 1:
        found = _covering(state.config, state.roots[index], gfn)
        refused = _refused(state, c.MIRROR_4K_ONLY)
        if found is None:
            return refused
        also = Outcome(state, (k.RET_PF_SPURIOUS, ()), because=c.MIRROR_4K_ONLY, effect=c.MIRROR_NO_HUGE)
        return (*_tuple(refused), also)
    if answers.cache_topup or answers.page_alloc:
        return Outcome(state, (-ENOMEM, ()), because=c.ALLOCATION_BEFORE_LOCK)
    return _map(state, index, gfn, op.private, True, False, answers, profile, op.level)


def faultin(state: State, op: Faultin, answers: Answers) -> Outcomes:
    """Resolve a page: an alias gfn is a VM bug (TDP-018)."""
    if _alias(state.config, op.gfn):
        after = replace(state, bugged=True)
        return tuple(
            Outcome(after, (-EFAULT, exit_record), because=c.ALIAS_AT_FAULTIN, effect=c.ALIAS_AT_FAULTIN)
            for exit_record in ((), _exit(state.config, op.gfn, op.private))
        )
    resolved = _resolve(state, op.gfn, op.private, False, answers)
    if resolved is not None:
        if answers.mmu_invalidate_retry:
            stale = Outcome(state, (k.RET_PF_RETRY, ()), because=c.SNAPSHOT_FIRST, effect=c.SNAPSHOT_FIRST)
            return (*_tuple(resolved), stale)
        return resolved
    if _unmappable(state.config, op.gfn):
        results = (
            (-EFAULT, _exit(state.config, op.gfn, op.private)),
            (k.RET_PF_CONTINUE, ()),
            (k.RET_PF_RETRY, ()),
        )
        return tuple(Outcome(state, result, because=c.UNMAPPABLE_ADDRESS) for result in results)
    result = k.RET_PF_RETRY if answers.mmu_invalidate_retry else k.RET_PF_CONTINUE
    return Outcome(state, (result, ()), because=c.SNAPSHOT_FIRST)


def ept_violation(state: State, op: EptViolation, answers: Answers, profile: Profile) -> Outcomes:
    """A private write fault, repeated until it is not RETRY (TDP-104)."""
    return tuple(
        replace(outcome, because=c.VIOLATION_RETRIED, also=(*outcome.also, outcome.because))
        for outcome in _repeated(state, op.vcpu, op.gpa, True, False, answers, profile)
    )


def _repeated(
    state: State, vcpu: int, gpa: int, private: bool, prefetch: bool, answers: Answers, profile: Profile
) -> tuple[Outcome, ...]:
    """A fault that is tried again: what got in its way once is gone the next time, or the VM is dead."""
    dead: tuple[Outcome, ...] = ()
    if state.bugged:
        dead = (Outcome(state, (-EIO, ()), because=c.BUSY_IS_NO_BUG, effect=c.BUSY_IS_NO_BUG),)
        if not answers.killed:
            return dead
    outcomes = _tuple(_fault(state, vcpu, gpa, private, not prefetch, prefetch, answers, profile))
    if answers.mmu_invalidate_retry:
        later = replace(answers, mmu_invalidate_retry=0)
        outcomes += _tuple(_fault(state, vcpu, gpa, private, not prefetch, prefetch, later, profile))
    settled = dead
    has_events = (vcpu in state.obsolete or bool(answers.vcpu_has_events)) and not prefetch
    stops = answers.signal_pending or has_events
    for outcome in outcomes:
        if outcome.result[0] != k.RET_PF_RETRY:
            settled += (outcome,)
            continue
        if outcome.state.bugged:
            settled += (replace(outcome, result=(-EIO, ())),)
        if _is_stuck(state, vcpu, gpa, answers):
            settled += (outcome,)
        if stops:
            settled += (replace(outcome, result=(-EINTR if prefetch and not has_events else k.RET_PF_RETRY, ())),)
    if answers.ext_link or answers.ext_set or answers.mmu_invalidate_retry or answers.contended or answers.pt_cmpxchg:
        if -EIO not in (answers.ext_link, answers.ext_set):
            settled += _tuple(_fault(state, vcpu, gpa, private, not prefetch, prefetch, Answers(), profile))
    return settled + _after_tries(state, vcpu, gpa, private, settled, answers)


def _after_tries(
    state: State, vcpu: int, gpa: int, private: bool, settled: tuple[Outcome, ...], answers: Answers
) -> tuple[Outcome, ...]:
    """The same with the tables that an earlier try had linked, before the world changed."""
    pair = state.vcpus[vcpu]
    if pair is None or NONE in pair or _unmappable(state.config, gpa >> 12 & ~state.config.direct_bits):
        return ()
    index = pair[1] if state.config.mirror and private else pair[0]
    tries = _interrupted(state, index, gpa >> 12 & ~state.config.direct_bits, answers)
    return tuple(
        replace(outcome, state=replace(tried.state, bugged=outcome.state.bugged or tried.state.bugged))
        for outcome in settled
        if outcome.state == state
        for tried in tries
    )


def _is_stuck(state: State, vcpu: int, gpa: int, answers: Answers) -> bool:
    """Whether repeating cannot help: the root is obsolete, or the slot is being deleted."""
    slot = _slot_of(state, gpa >> 12 & ~state.config.direct_bits)
    deleted = slot is not None and bool(slot[3] & k.SLOT_INVALID)
    return _is_obsolete(state, vcpu) or deleted or bool(answers.slot_invalid)


def prefault(state: State, op: Prefault, answers: Answers, profile: Profile) -> Outcomes:
    """Map one page ahead of time: bytes advanced, or -errno (TDP-103)."""
    config = state.config
    result = _prefault_refusal(state, op)
    early = tuple(Outcome(state, -errno, because=clause, effect=clause) for errno, clause in result)
    if result and op.gpa + op.size != 2**64:
        return early
    if answers.signal_pending and not answers.mmu_invalidate_retry and not answers.contended:
        early += (Outcome(state, -EINTR, because=c.PREFAULT_RESULTS),)
    freed = _freed(state, op.vcpu)
    if answers.cache_topup or answers.page_alloc:
        failed = dict.fromkeys((freed, _loaded(freed, op.vcpu), state))
        return early + tuple(Outcome(s, -ENOMEM, because=c.ALLOCATION_BEFORE_LOCK) for s in failed)
    loaded = _loaded(freed, op.vcpu)
    if state.bugged:
        results = (-EIO, -EINTR) if answers.signal_pending else (-EIO,)
        states = dict.fromkeys((state, freed, loaded))
        early += tuple(Outcome(s, r, because=c.BUSY_IS_NO_BUG) for s in states for r in results)
        if not answers.killed:
            return early
    gfn = op.gpa >> 12
    private = gfn in state.attributes
    gpa = op.gpa if private else op.gpa | config.direct_bits << 12
    outcomes = early
    for outcome in _repeated(loaded, op.vcpu, gpa, private, True, answers, profile):
        for advanced in _advanced(outcome.result[0], private, _progress(outcome.state, op, private)):
            outcomes += (
                Outcome(
                    outcome.state, advanced, because=c.PREFAULT_RESULTS, effect=outcome.effect,
                    also=(outcome.because, *outcome.also),
                ),
            )  # fmt: skip
    if answers.signal_pending:
        outcomes += (Outcome(loaded, -EINTR, because=c.PREFAULT_RESULTS),)
    if answers.attributes_changed:
        changed = (Outcome(loaded, -EFAULT, because=c.ATTRIBUTE_MISMATCH),)
        outcomes += changed
        for half in (True, False):
            outcomes += _after_tries(loaded, op.vcpu, op.gpa, half, changed, answers)
    return outcomes


def _prefault_refusal(state: State, op: Prefault) -> list[tuple[int, Clause]]:
    """Errors that come before any work, each with its clause; several where their order is open."""
    if op.flags or op.gpa & 4095 or op.size & 4095 or op.size == 0 or op.gpa + op.size > 2**64:
        return [(EINVAL, c.PREFAULT_RESULTS)]
    refusals = []
    if op.gpa + op.size == 2**64 or _alias(state.config, op.gpa >> 12):
        refusals.append((EINVAL, c.PREFAULT_RESULTS))
    if state.td != k.TD_RUNNABLE and not state.config.early:
        refusals.append((EOPNOTSUPP, c.PREFAULT_AFTER_FINALIZE))
    return refusals


def _progress(state: State, op: Prefault, private: bool) -> tuple[int, ...]:
    """Bytes that one mapped page gives: its own, or up to the end of the huge leaf it is part of."""
    root = _valid(state, private and state.config.mirror)
    leaf = None if root == NONE else _covering(state.config, state.roots[root], op.gpa >> 12)
    end = op.gpa + 4096 if leaf is None else leaf[0] + state.config.cover(leaf[1]) << 12
    return tuple(dict.fromkeys((4096, min(op.size, end - op.gpa))))


def _advanced(result: int, private: bool, progress: tuple[int, ...] = (4096,)) -> tuple[int, ...]:
    """What prefault makes of a fault's result."""
    if result in (k.RET_PF_FIXED, k.RET_PF_SPURIOUS, k.RET_PF_WRITE_PROTECTED):
        return progress
    if result == k.RET_PF_EMULATE:
        return (-ENOENT,)
    if result == -EFAULT and private:
        return (-EFAULT, -ENOENT)
    if result == k.RET_PF_RETRY:
        return (-EAGAIN,)
    return (result,)


def fast_fault(state: State, op: FastFault) -> Outcomes:
    """The lockless path: never for the private half (TDP-095); it may leave anything to the slow way."""
    invalid = Outcome(state, k.RET_PF_INVALID, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    if op.private or (state.config.mirror and not _is_direct(state.config, op.gpa)):
        return invalid
    fast = _fast(state, op.vcpu, op.gpa, op.write)
    if fast is None:
        return Outcome(state, k.RET_PF_INVALID, because=c.FAULT_RESULT, effect=c.FAULT_RESULT)
    return (fast, Outcome(state, k.RET_PF_INVALID, because=c.FAULT_RESULT))


def _fast(state: State, vcpu: int, gpa: int, write: bool) -> Outcome | None:
    """FIXED or SPURIOUS for a leaf of the vCPU's direct root, valid or not; None without one."""
    pair = state.vcpus[vcpu]
    assert pair is not None
    root = state.roots[pair[0]]
    leaf = _covering(state.config, root, gpa >> 12 & ~state.config.direct_bits)
    if gpa >> 12 & ~state.config.direct_bits in state.attributes:
        return None
    if leaf is None or _unmappable(state.config, gpa >> 12):
        return None
    if not write or leaf[3]:
        return Outcome(state, k.RET_PF_SPURIOUS, because=c.FAULT_RESULT, also=(c.NO_ALIAS_IN_CALLS,))
    if leaf[0] in root.shielded:
        return None
    after = _with_root(state, pair[0], replace(root, leaves=root.leaves - {leaf} | {(*leaf[:3], True)}))
    return Outcome(after, k.RET_PF_FIXED, because=c.FAULT_RESULT, effect=c.FAULT_RESULT)


def get_walk(state: State, op: GetWalk) -> Outcomes:
    """1 for each entry on the walk that is present by bit 11, 0 for the one that ends it (TDP-043)."""
    config = state.config
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    root = state.roots[pair[0] if _is_direct(config, op.gpa) else pair[1]]
    gfn = op.gpa >> 12 & ~config.direct_bits
    if _unmappable(config, gfn):
        return tuple(Outcome(state, walk, because=c.UNMAPPABLE_ADDRESS) for walk in ((), (0,)))
    walk: tuple[int, ...] = ()
    for level in range(config.levels, 0, -1):
        leaf = _covering(config, root, gfn)
        is_table = level > 1 and (level - 1, config.base(gfn, level)) in root.tables
        present = is_table or (leaf is not None and leaf[1] == level)
        walk += (int(present),)
        if not is_table:
            break
    return Outcome(state, walk, because=c.PRESENCE_BIT, also=(c.WALK_INDEX,))


def gpa_is_mapped(state: State, op: GpaIsMapped) -> Outcomes:
    """Whether a leaf maps the address in its own half."""
    config = state.config
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    root = state.roots[pair[0] if _is_direct(config, op.gpa) else pair[1]]
    gfn = op.gpa >> 12 & ~config.direct_bits
    mapped = not _unmappable(config, gfn) and _covering(config, root, gfn) is not None
    return Outcome(state, int(mapped), because=c.ROOT_BY_ADDRESS, also=(c.PRESENCE_BIT,))


# -- zapping


def zap_leafs(state: State, op: ZapLeafs, answers: Answers) -> Outcomes:
    """A host event: shared leaves of the range; private ones should stay (TDP-096)."""
    bits = state.config.direct_bits
    if bits and op.start >= bits:
        return Outcome(state, 0, because=c.WALK_START_BOUND, effect=c.WALK_START_BOUND)
    spared = _zap(state, op.start, op.end, mirror=False, direct=True, invalid=False)
    outcome = Outcome(spared, 0, because=c.ZAP_EXACT, effect=c.ZAP_EXACT, also=(c.HOST_EVENTS_SPARE_PRIVATE,))
    both = _zap(spared, op.start, op.end, mirror=True, direct=False, invalid=False)
    if both is spared:
        return outcome
    tolerated = _zapped(spared, both, answers, c.ZAP_EXACT)
    return (
        outcome,
        *(replace(other, breaches=(c.HOST_EVENTS_SPARE_PRIVATE,)) for other in _tuple(tolerated)),
    )


def unmap(state: State, op: Unmap, answers: Answers) -> Outcomes:
    """The leaves of the filtered halves, invalid roots included (TDP-007, 080)."""
    config = state.config
    if config.mirror and not op.attr_filter:
        both = _zap(state, op.start, op.end, mirror=True, direct=True, invalid=True)
        chosen = (state, replace(state, bugged=True), both)
        return tuple(Outcome(s, 0, because=c.EMPTY_FILTER_NOT_SILENT, effect=c.EMPTY_FILTER_NOT_SILENT) for s in chosen)
    if config.direct_bits and op.start >= config.direct_bits:
        return Outcome(state, 0, because=c.WALK_START_BOUND, effect=c.WALK_START_BOUND)
    mirror = bool(op.attr_filter & k.FILTER_PRIVATE)
    direct = not config.mirror or bool(op.attr_filter & k.FILTER_SHARED)
    after = _zap(state, op.start, op.end, mirror, direct, invalid=True)
    return _zapped(state, after, answers, c.ZAP_EXACT, *_old(state, after))


def _old(state: State, after: State) -> tuple[Clause, ...]:
    """TDP-007 is exercised when an invalid root had leaves to lose."""
    lost = any(r.invalid and r.leaves for r in state.roots)
    return (c.UNMAP_INCLUDES_INVALID,) if lost and after is not state else ()


def hva_invalidate(state: State, op: HvaInvalidate, _answers: Answers) -> Outcomes:
    """Only the shared half loses its leaves (TDP-087); the pages then come from elsewhere."""
    after = _zap(state, op.start, op.end, mirror=False, direct=True, invalid=True)
    also = _old(state, after) + ((c.HVA_SHARED_ONLY,) if _private(state) else ())
    return Outcome(moved(after, "hva", op.start, op.end), 0, because=c.ZAP_EXACT, effect=c.ZAP_EXACT, also=also)


def gmem_invalidate(state: State, op: GmemInvalidate, answers: Answers) -> Outcomes:
    """Only the private half of the gfns bound to the file (TDP-088)."""
    after = state
    for _, base, npages, flags in state.slots:
        start, end = max(op.start, base), min(op.end, base + npages)
        if flags & k.MEM_GUEST_MEMFD and start < end:
            after = _zap(after, start, end, mirror=True, direct=not state.config.mirror, invalid=True)
    zapped = _zapped(state, after, answers, c.GMEM_PRIVATE_ONLY)
    return tuple(replace(o, state=moved(o.state, "gmem", op.start, op.end)) for o in _tuple(zapped))


def moved(state: State, kind: str, start: int, end: int) -> State:
    """The pages of a range go to their other place."""
    pages = gfns_in_slots(state.slots, kind, start, end)
    if kind == "hva":
        return replace(state, moved_hva=state.moved_hva ^ pages)
    return replace(state, moved_gmem=state.moved_gmem ^ pages)


def gfns_in_slots(slots: tuple[Slot, ...], kind: str, start: int, end: int) -> Gfns:
    """The gfns of a range that have such pages behind them."""
    pages = Gfns()
    for _, base, npages, flags in slots:
        if kind == "hva" or flags & k.MEM_GUEST_MEMFD:
            pages = pages.with_range(max(start, base), min(end, base + npages), True)
    return pages


def age(state: State) -> Outcomes:
    """Accessed bits are the environment's to judge; the maps stay."""
    clauses = (c.MIRROR_UNTOUCHED,) if _private(state) else ()
    return Outcome(state, 0, because=c.AGE_VALID_ONLY, effect=c.MIRROR_UNTOUCHED, also=clauses)


def _protect(state: State, gfns: Iterable[range], levels: tuple[int, ...]) -> Outcomes:
    """Leaves of the valid direct root in the ranges become read-only; those of invalid roots may as well (TDP-095)."""
    clause = c.MIRROR_UNTOUCHED
    states = dict.fromkeys(_protected(state, tuple(gfns), levels, wide) for wide in (False, True))
    return tuple(Outcome(s, 0, because=clause, effect=clause) for s in states)


def _protected(state: State, ranges: tuple[range, ...], levels: tuple[int, ...], wide: bool) -> State:
    config = state.config
    roots = []
    for root in state.roots:
        leaves = root.leaves
        if not root.mirror and (wide or not root.invalid):
            leaves = frozenset(
                (*leaf[:3], False)
                if leaf[1] in levels and any(_overlaps(config, leaf, gfns) for gfns in ranges)
                else leaf
                for leaf in leaves
            )
        roots.append(root if leaves == root.leaves else replace(root, leaves=leaves))
    return replace(state, roots=tuple(roots))


def _overlaps(config: Config, leaf: Leaf, gfns: range) -> bool:
    return leaf[0] < gfns.stop and gfns.start < leaf[0] + config.cover(leaf[1])


_ALL_LEVELS = (1, 2, 3)


def wrprot_slot(state: State, op: WrprotSlot) -> Outcomes:
    """Shared leaves of the slot become read-only; the mirror is not touched (TDP-095)."""
    return _protect(state, (_slot_range(state, op.slot),), _ALL_LEVELS)


def _slot_range(state: State, slot: int) -> range:
    found = _slot_by_id(state, slot)
    assert found is not None
    return range(found[1], found[1] + found[2])


def clear_dirty_slot(state: State, _op: ClearDirtySlot) -> Outcomes:
    """Dirty bits only."""
    return Outcome(state, 0, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)


def clear_dirty_masked(state: State, op: ClearDirtyMasked) -> Outcomes:
    """Dirty or writable bits of the pages of 4K in the mask."""
    if not op.wrprot:
        return Outcome(state, 0, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    gfns = (op.gfn + bit for bit in range(op.mask.bit_length()) if op.mask >> bit & 1)
    return _protect(state, (range(gfn, gfn + 1) for gfn in gfns), (1,))


def write_protect_gfn(state: State, op: WriteProtectGfn) -> Outcomes:
    """One page, at whatever level it is mapped."""
    index = _valid(state, False)
    if index != NONE:
        root = state.roots[index]
        leaf = _covering(state.config, root, op.gfn)
        if leaf is not None:
            state = _with_root(state, index, replace(root, shielded=root.shielded | {leaf[0]}))
    return _protect(state, (range(op.gfn, op.gfn + 1),), _ALL_LEVELS)


def split_huge(state: State, op: SplitHuge, answers: Answers) -> Outcomes:
    """Huge shared leaves of the range become leaves of 4K; others, or want of memory, may leave a part of it undone."""
    index = _valid(state, False)
    huge = [] if index == NONE else [leaf for leaf in state.roots[index].leaves if leaf[1] > 1]
    gfns = sorted(leaf[0] for leaf in huge if _overlaps(state.config, leaf, range(op.start, op.end)))
    after = _split_all(state, index, gfns)
    done = Outcome(after, 0, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    short = answers.page_alloc and not answers.contended
    if not answers.page_alloc and not answers.contended and not answers.lock_dropped and not answers.pt_cmpxchg:
        return done
    most = len(gfns) - 1 if short and not answers.lock_dropped else len(gfns)
    parts = [part for n in range(most, -1, -1) for part in combinations(gfns, n)]
    tried = tuple(
        Outcome(_split_all(state, index, part), 0, because=c.ITERATOR_PUTS, effect=c.MIRROR_UNTOUCHED) for part in parts
    )
    return tried or Outcome(state, 0, because=c.ITERATOR_PUTS)


def _split_all(state: State, index: int, gfns: Iterable[int]) -> State:
    for gfn in gfns:
        state = _split(state, index, gfn)
    return state


def recover_huge(state: State, op: RecoverHuge) -> Outcomes:
    """Tables of 4K leaves that could be one huge leaf may go."""
    index = _valid(state, False)
    same = Outcome(state, 0, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    if index == NONE or not state.config.huge:
        return same
    gfns = _slot_range(state, op.slot)
    outcomes: tuple[Outcome, ...] = (same,)
    for table in sorted(state.roots[index].tables):
        if table[0] == 1 and table[1] in gfns and _huge_fits(state, table[1]):
            outcomes += tuple(
                replace(o, state=change(o.state, index, table))
                for change in (_without_table, _merged)
                for o in outcomes
            )
    return outcomes


def _merged(state: State, index: int, table: Table) -> State:
    """A full table of leaves becomes the huge leaf that they could be; any other is left alone."""
    small = [leaf for leaf in state.roots[index].leaves if leaf[1] == 1 and state.config.base(leaf[0], 2) == table[1]]
    if len(small) < state.config.cover(2) or len({leaf[2] for leaf in small}) > 1:
        return state
    after = _installed_huge(state, index, table[1]).state
    root = after.roots[index]
    whole = _covering(state.config, root, table[1])
    assert whole is not None
    leaf = (*whole[:3], all(leaf[3] for leaf in small))
    return _with_root(after, index, replace(root, leaves=root.leaves - {whole} | {leaf}))


def _without_table(state: State, index: int, table: Table) -> State:
    """A table goes with all that hangs below it."""
    root = state.roots[index]
    level, base = table
    end = base + state.config.cover(level + 1)
    tables = frozenset(t for t in root.tables if not (t[0] <= level and base <= t[1] < end))
    leaves = frozenset(leaf for leaf in root.leaves if not (leaf[1] <= level and base <= leaf[0] < end))
    shielded = root.shielded & {leaf[0] for leaf in leaves}
    return _with_root(state, index, replace(root, tables=tables, leaves=leaves, shielded=shielded))


def zap_sp(state: State, op: ZapSp) -> Outcomes:
    """NX recovery: a direct table goes; a mirror table is left alone (TDP-095)."""
    if op.mirror:
        return Outcome(state, 0, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    index = _valid(state, False)
    after = _without_table(state, index, (op.level, op.gfn))
    return Outcome(after, 1, because=c.STATISTICS, effect=c.ZAP_EXACT)


# -- conversion and slots


def set_attributes(state: State, op: SetAttributes, answers: Answers) -> Outcomes:
    """Zap the half that the range leaves, then store (TDP-089)."""
    config = state.config
    allowed = k.ATTRIBUTE_PRIVATE if config.private else 0
    start, end = op.address >> 12, op.address + op.size >> 12
    if op.flags or op.attributes & ~allowed or op.size == 0 or (op.address | op.size) & 4095:
        return Outcome(state, -EINVAL, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    if op.address + op.size > 2**64:
        return Outcome(state, -EINVAL, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    private = bool(op.attributes & k.ATTRIBUTE_PRIVATE)
    wanted = state.attributes.with_range(start, end, private)
    if wanted == state.attributes:
        return Outcome(state, 0, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    if answers.reserve_attributes:
        return Outcome(state, -ENOMEM, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    after = state
    for _, base, npages, _flags in state.slots:
        lo, hi = max(start, base), min(end, base + npages)
        if lo < hi:
            direct = private or not config.mirror
            after = _zap(after, lo, hi, mirror=not private, direct=direct, invalid=True)
    clause = c.CONVERSION_ZAPS_OLD
    zapped = _zapped(state, after, answers, clause, c.CONVERSION_FINAL, *_old(state, after))
    return tuple(replace(o, state=replace(o.state, attributes=wanted)) for o in _tuple(zapped))


def slot_create(state: State, op: SlotCreate) -> Outcomes:
    """Refuse what guest memory cannot have, and gfns that are aliases (TDP-094, 020)."""
    config = state.config
    last = op.base + op.npages - 1
    gmem = op.flags & k.MEM_GUEST_MEMFD
    exists = _slot_by_id(state, op.slot) is not None
    refusal = None
    if exists or (gmem and (op.flags & (k.MEM_LOG_DIRTY_PAGES | k.MEM_READONLY) or not config.private)):
        refusal = c.GMEM_SLOT_FLAGS
    elif op.npages <= 0 or last > config.max_gfn or _has_alias(config, op.base, last):
        refusal = c.SLOT_ALIAS
    if refusal is not None:
        return Outcome(state, -EINVAL, because=refusal, effect=refusal)
    if any(op.base < base + npages and base <= last for _, base, npages, _ in state.slots):
        return Outcome(state, -EEXIST, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS)
    return Outcome(
        replace(state, slots=(*state.slots, (op.slot, op.base, op.npages, op.flags))), 0, because=c.SLOT_ALIAS
    )


def _has_alias(config: Config, first: int, last: int) -> bool:
    """Whether a gfn from first to last has the alias bit."""
    bits = config.direct_bits
    return bool(bits) and (bool((first | last) & bits) or last // bits != first // bits)


def slot_delete(state: State, op: SlotDelete, answers: Answers) -> Outcomes:
    """Leaves of both halves within the slot, nothing else (TDP-093)."""
    gfns = _slot_range(state, op.slot)
    after = _zap(state, gfns.start, gfns.stop, mirror=True, direct=True, invalid=True)
    slots = tuple(slot for slot in state.slots if slot[0] != op.slot)
    zapped = _zapped(state, after, answers, c.SLOT_DELETE_LEAFS)
    return tuple(replace(o, state=replace(o.state, slots=slots)) for o in _tuple(zapped))


def slot_move(state: State, op: SlotMove, answers: Answers) -> Outcomes:
    """As a deletion and a creation; slots with guest memory stay where they are (TDP-094)."""
    config = state.config
    slot = _slot_by_id(state, op.slot)
    assert slot is not None
    if slot[3] & k.MEM_GUEST_MEMFD:
        return Outcome(state, -EINVAL, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS)
    last = op.base + slot[2] - 1
    if last > config.max_gfn or _has_alias(config, op.base, last):
        return Outcome(state, -EINVAL, because=c.SLOT_ALIAS, effect=c.SLOT_ALIAS)
    others = tuple(s for s in state.slots if s is not slot)
    if any(op.base < base + npages and base <= last for _, base, npages, _ in others):
        return Outcome(state, -EEXIST, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS)
    if op.base == slot[1]:
        return Outcome(state, 0, because=c.SLOT_DELETE_LEAFS)
    gfns = _slot_range(state, op.slot)
    after = _zap(state, gfns.start, gfns.stop, mirror=True, direct=True, invalid=True)
    slots = tuple((s[0], op.base, s[2], s[3]) if s is slot else s for s in state.slots)
    zapped = _zapped(state, after, answers, c.SLOT_DELETE_LEAFS)
    return tuple(replace(o, state=replace(o.state, slots=slots)) for o in _tuple(zapped))


# -- the TD


def inject_huge(state: State, op: InjectHuge) -> Outcomes:
    """Corruption, not an act of the candidate."""
    index = _valid(state, True)
    root = state.roots[index]
    leaf = (op.gfn, 2, "gmem", True)
    after = replace(_with_root(state, index, replace(root, leaves=root.leaves | {leaf})), corrupt=True)
    return Outcome(after, 0, because=c.MIRROR_NO_HUGE)


def accept(state: State, op: Accept, answers: Answers) -> Outcomes:
    """A pending page becomes the guest's; the result is the firmware's status."""
    clause = c.FREEZE_EXTERNAL_PUBLISH
    if answers.kept_out:
        return Outcome(state, k.TDX_OPERAND_BUSY, because=c.BUSY_RETRY_ONCE, effect=clause)
    leaf = next((leaf for leaf in state.ext_leaves if leaf[0] == op.gpa >> 12), None)
    if leaf is None or leaf[3] in (BLOCKED, PENDING_BLOCKED):
        return Outcome(state, k.TDX_EPT_ENTRY_STATE_INCORRECT, because=clause, effect=clause)
    if leaf[3] == MAPPED:
        return Outcome(state, k.TDX_PAGE_ALREADY_ACCEPTED, because=clause, effect=clause)
    after = replace(state, ext_leaves=state.ext_leaves - {leaf} | {(*leaf[:3], MAPPED)})
    return Outcome(after, k.TDX_SUCCESS, because=clause, effect=clause)


def init_region(state: State, op: InitRegion, answers: Answers, profile: Profile) -> Outcomes:
    """Map a private page and add it to the TD (TDP-102)."""
    freed = _freed(state, op.vcpu)
    loaded = _loaded(freed, op.vcpu)
    if answers.cache_topup or answers.page_alloc:
        failed = dict.fromkeys((freed, loaded, state))
        return tuple(Outcome(s, -ENOMEM, because=c.ALLOCATION_BEFORE_LOCK) for s in failed)
    if state.td == k.TD_RUNNABLE:
        return tuple(
            Outcome(s, -errno, because=c.PREMAPPED_COUNT, effect=c.PREMAPPED_COUNT)
            for s in dict.fromkeys((state, freed, loaded))
            for errno in (EINVAL, EIO)
        )
    gfn = op.gpa >> 12
    outcomes: tuple[Outcome, ...] = ()
    for outcome in _repeated(loaded, op.vcpu, op.gpa, True, True, answers, profile):
        outcomes += _added(outcome, gfn, answers, profile)
    if answers.signal_pending:
        outcomes += (Outcome(loaded, -EINTR, because=c.PREFAULT_RESULTS),)
    return outcomes


def _added(outcome: Outcome, gfn: int, answers: Answers, profile: Profile) -> tuple[Outcome, ...]:
    state, result = outcome.state, outcome.result[0]
    if result == k.RET_PF_SPURIOUS and gfn not in state.premapped:
        results = (0, -EIO, -EBUSY) if answers.tdh_mem_page_add else (0, -EIO)
        return tuple(Outcome(state, r, because=c.PREMAPPED_COUNT) for r in results)
    if result not in (k.RET_PF_FIXED, k.RET_PF_SPURIOUS):
        return tuple(Outcome(state, r, because=outcome.because) for r in _advanced(result, True))
    if profile.premapped and answers.tdh_mem_page_add:
        errno = EBUSY if answers.tdh_mem_page_add & k.TDX_STATUS_MASK == k.TDX_OPERAND_BUSY else EIO
        return (Outcome(state, -errno, because=c.PREMAPPED_COUNT, effect=c.PREMAPPED_COUNT),)
    page = source(state, gfn, True)
    added = _with_external(replace(state, premapped=state.premapped - {gfn}), gfn, page, MAPPED)
    return (Outcome(added, 0, because=c.PREMAPPED_COUNT, effect=c.PREMAPPED_COUNT),)


def finalize(state: State, _op: Finalize, answers: Answers) -> Outcomes:
    """Only once, and with nothing premapped (TDP-102)."""
    if state.td != k.TD_INIT or state.premapped or not state.hkid:
        clause = c.PREMAPPED_COUNT if state.premapped else c.PREFAULT_AFTER_FINALIZE
        return Outcome(state, -EINVAL, because=clause, effect=clause)
    if answers.tdh_mr_finalize:
        return Outcome(state, -EBUSY, because=c.BUSY_TO_EBUSY, effect=c.PREFAULT_AFTER_FINALIZE)
    return Outcome(
        replace(state, td=k.TD_RUNNABLE), 0, because=c.PREFAULT_AFTER_FINALIZE,
        effect=c.PREFAULT_AFTER_FINALIZE,
    )  # fmt: skip


def sept_refuses(state: State, op: SeptSet | SeptRemove | SeptFree) -> Outcomes:
    """A hook called where it must not be: VM bug and EIO, nothing else (TDP-057, 100)."""
    clause: Clause = c.HKID_ORDER
    if isinstance(op, SeptSet):
        clause = c.MIRROR_4K_ONLY if op.level > 1 else c.BALANCED
    return Outcome(replace(state, bugged=True), -EIO, because=clause, effect=clause, also=(c.HKID_ORDER,))


# -- pure questions


def root_match(state: State, op: RootMatch, profile: Profile) -> Outcomes:
    """The truth table of 8 types by 4 roots."""
    kind = op.types & (k.MIRROR_ROOTS if op.mirror else k.DIRECT_ROOTS)
    if not op.types & (k.MIRROR_ROOTS | k.DIRECT_ROOTS):
        return Outcome(state, 0, because=c.MATCH_NEEDS_KIND)
    validity = bool(op.types & k.TYPE_VALIDITY)
    if profile.bit0_is_valid:
        return Outcome(state, int(bool(kind) and not (validity and op.invalid)), because=c.MATCH_VALID_BIT)
    return Outcome(state, int(bool(kind) and (validity or not op.invalid)), because=c.MATCH_INVALID_WITH_KIND)


def filter_to_types(state: State, op: FilterToTypes) -> Outcomes:
    """DIRECT for all without a mirror; else by half."""
    if not state.config.mirror:
        return Outcome(state, k.DIRECT_ROOTS, because=c.FILTER_TO_TYPES)
    types = 0
    if op.attr_filter & k.FILTER_PRIVATE:
        types |= k.MIRROR_ROOTS
    if op.attr_filter & k.FILTER_SHARED:
        types |= k.DIRECT_ROOTS
    return Outcome(state, types, because=c.FILTER_TO_TYPES)


def select_root(state: State, op: SelectRoot) -> Outcomes:
    """Place of the vCPU's mirror root for MIRROR without DIRECT, of its direct root otherwise."""
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    mirror = op.types & k.MIRROR_ROOTS and not op.types & k.DIRECT_ROOTS and state.config.mirror
    return Outcome(state, pair[1] if mirror else pair[0], because=c.SELECT_MIRROR)


def step(state: State, op: Op, answers: Answers, profile: Profile) -> Outcomes:
    """What the specification allows."""
    match op:
        case PageFault():
            return page_fault(state, op, answers, profile)
        case Access():
            return Outcome(state, 0, because=c.NO_STALE_TLB)
        case MmuReload():
            return mmu_reload(state, op, answers)
        case VcpuCreate():
            return vcpu_create(state, op, answers)
        case VcpuDestroy():
            return vcpu_destroy(state, op, answers)
        case MmuUnload():
            return mmu_unload(state, op, answers)
        case FreeObsoleteRoots():
            return free_obsolete_roots(state, op, answers)
        case RootMatch():
            return root_match(state, op, profile)
        case FilterToTypes():
            return filter_to_types(state, op)
        case AddrIsDirect():
            return Outcome(state, int(_is_direct(state.config, op.gpa)), because=c.ADDR_IS_DIRECT)
        case GfnIsAlias():
            return Outcome(state, int(_alias(state.config, op.gfn)), because=c.ADDR_IS_DIRECT)
        case SelectRoot():
            return select_root(state, op)
        case TdpMap():
            return tdp_map(state, op, answers, profile)
        case Faultin():
            return faultin(state, op, answers)
        case Prefault():
            return prefault(state, op, answers, profile)
        case EptViolation():
            return ept_violation(state, op, answers, profile)
        case FastFault():
            return fast_fault(state, op)
        case GetWalk():
            return get_walk(state, op)
        case GpaIsMapped():
            return gpa_is_mapped(state, op)
        case ZapLeafs():
            return zap_leafs(state, op, answers)
        case Unmap():
            return unmap(state, op, answers)
        case Age() | TestAge():
            return age(state)
        case WrprotSlot():
            return wrprot_slot(state, op)
        case ClearDirtySlot():
            return clear_dirty_slot(state, op)
        case ClearDirtyMasked():
            return clear_dirty_masked(state, op)
        case WriteProtectGfn():
            return write_protect_gfn(state, op)
        case SplitHuge():
            return split_huge(state, op, answers)
        case RecoverHuge():
            return recover_huge(state, op)
        case ZapSp():
            return zap_sp(state, op)
        case InvalidateRoots():
            return invalidate_roots(state, op, answers)
        case ZapInvalidated():
            return zap_invalidated(state, op, answers)
        case ZapAllFast():
            return zap_all_fast(state, op, answers)
        case ZapAll():
            return zap_all(state, op, answers)
        case VmUninit():
            return vm_uninit(state, op, answers)
        case SetAttributes():
            return set_attributes(state, op, answers)
        case HvaInvalidate():
            return hva_invalidate(state, op, answers)
        case GmemInvalidate():
            return gmem_invalidate(state, op, answers)
        case SlotCreate():
            return slot_create(state, op)
        case SlotDelete():
            return slot_delete(state, op, answers)
        case SlotMove():
            return slot_move(state, op, answers)
        case InjectHuge():
            return inject_huge(state, op)
        case StealReference():
            return Outcome(replace(state, stolen=True), 0, because=c.ROOT_REFERENCES)
        case HkidRelease():
            return Outcome(replace(state, hkid=False), 0, because=c.HKID_ORDER)
        case Accept():
            return accept(state, op, answers)
        case InitRegion():
            return init_region(state, op, answers, profile)
        case Finalize():
            return finalize(state, op, answers)
        case SeptSet() | SeptRemove() | SeptFree():
            return sept_refuses(state, op)
    assert_never(op)


# -- the view


@dataclass(frozen=True, slots=True)
class View:
    """What can be observed: the meaning of the page tables, of the external tree, and who holds which root."""

    private: frozenset[tuple[int, int, str]]
    """Leaves of the valid mirror root: gfn, level, source."""
    shared: frozenset[Leaf]
    """Leaves of the valid direct root."""
    old: tuple[frozenset[Leaf], ...]
    """Leaves of each invalid root."""
    external: tuple[frozenset[Table], frozenset[ExternalLeaf]]
    """Tables and leaves of the external tree."""
    tables: tuple[frozenset[Table], frozenset[Table]]
    """Linked tables below the valid mirror root, and below the valid direct root."""
    roots: tuple[tuple[bool, bool, int], ...]
    """Mirror, invalid, references: of each listed root."""
    vcpus: tuple[tuple[int, int] | None, ...]
    """Direct and mirror root of each vCPU, as places in `roots`."""
    attributes: tuple[tuple[int, int], ...]
    """Runs of gfns that are PRIVATE."""
    slots: frozenset[Slot]
    td: tuple[int, int]
    """State of the TD, premapped leaves."""
    leaked: int
    bugged: bool


VIEW_CLAUSES: dict[str, Clause] = {
    "private": c.ROOT_BY_ADDRESS,
    "shared": c.ROOT_BY_ADDRESS,
    "old": c.ZAP_EXACT,
    "external": c.FREEZE_EXTERNAL_PUBLISH,
    "roots": c.ROOT_REFERENCES,
    "vcpus": c.MIRROR_SURVIVES_UNLOAD,
    "tables": c.ZAP_EXACT,
    "attributes": c.CONVERSION_ZAPS_OLD,
    "slots": c.GMEM_SLOT_FLAGS,
    "td": c.PREMAPPED_COUNT,
    "leaked": c.FAILED_FREE_LEAKS,
    "bugged": c.BUSY_IS_NO_BUG,
}

_CITES: dict[tuple[type, str], Clause] = {
    (HvaInvalidate, "private"): c.HVA_SHARED_ONLY,
    (HvaInvalidate, "external"): c.HVA_SHARED_ONLY,
    (HvaInvalidate, "old"): c.UNMAP_INCLUDES_INVALID,
    (Unmap, "old"): c.UNMAP_INCLUDES_INVALID,
    (ZapLeafs, "private"): c.HOST_EVENTS_SPARE_PRIVATE,
    (MmuReload, "roots"): c.ROOT_REFERENCES,
    (MmuReload, "shared"): c.RELOAD_FREES_OBSOLETE,
    (MmuReload, "old"): c.RELOAD_FREES_OBSOLETE,
    (MmuReload, "tables"): c.RELOAD_FREES_OBSOLETE,
    (GmemInvalidate, "td"): c.PREMAPPED_COUNT,
    (SetAttributes, "td"): c.PREMAPPED_COUNT,
    (SlotDelete, "td"): c.PREMAPPED_COUNT,
    (Finalize, "td"): c.PREFAULT_AFTER_FINALIZE,
    (MmuReload, "vcpus"): c.RELOAD_FREES_OBSOLETE,
    (ZapAllFast, "private"): c.MIRROR_SURVIVES_UNLOAD,
    (InvalidateRoots, "roots"): c.ONE_MIRROR_ROOT,
    (SetAttributes, "old"): c.UNMAP_INCLUDES_INVALID,
    (SetAttributes, "attributes"): c.CONVERSION_ZAPS_OLD,
    (ZapAllFast, "roots"): c.FAST_ZAP_DIRECT,
    (VcpuDestroy, "roots"): c.DESTROY_PUTS_MIRROR,
    (MmuUnload, "roots"): c.MIRROR_SURVIVES_UNLOAD,
    (FreeObsoleteRoots, "roots"): c.MIRROR_SURVIVES_UNLOAD,
}


def cite(state: State, op: Any, field: str, expected: Any, got: Any) -> Clause | None:
    """Name the clause on what this operation must spare."""
    if isinstance(op, MmuReload | Prefault | InitRegion) and field == "roots":
        return _cite_load(state, expected.roots, got.roots)
    if isinstance(op, ZapInvalidated | ZapAllFast) and field in ("old", "tables"):
        return c.ZAP_WHOLE_ROOT
    if isinstance(op, PageFault) and state.config.mirror and op.private == _is_direct(state.config, op.gpa):
        return c.HALVES_DISAGREE
    return _CITES.get((type(op), field))


def _cite_load(state: State, expected: tuple[Any, ...], got: tuple[Any, ...]) -> Clause:
    """A load that went wrong: too many roots, an invalid one kept, a new or a mirror root with a wrong count."""
    if len(got) > len(expected):
        return c.ROOT_REUSED
    wrong = [n for n, (want, have) in enumerate(zip(expected, got, strict=False)) if want != have]
    if any(root[1] and root not in expected for root in got):
        return c.RELOAD_FREES_OBSOLETE
    if wrong and wrong[0] >= len(state.roots):
        return c.NEW_ROOT_REFERENCES
    if wrong and got[wrong[0]][0] and wrong[0] < len(state.roots) and got[wrong[0]][2] > expected[wrong[0]][2]:
        return c.MIRROR_ONLY_ONCE
    return c.ROOT_REFERENCES


_NO_LEAVES: frozenset[Leaf] = frozenset()
_NO_TABLES: frozenset[Table] = frozenset()


def view(state: State) -> View:
    """The refinement: what the state looks like from outside."""
    private: frozenset[tuple[int, int, str]] = frozenset()
    shared, old = _NO_LEAVES, []
    mirror_tables = direct_tables = _NO_TABLES
    roots = []
    for index, root in enumerate(state.roots):
        roots.append((root.mirror, root.invalid, _references(state, index)))
        if root.invalid:
            old.append(root.leaves)
        elif root.mirror:
            private = frozenset(leaf[:3] for leaf in root.leaves)
            mirror_tables = root.tables
        else:
            shared, direct_tables = root.leaves, root.tables
    return View(
        private,
        shared,
        tuple(old),
        (state.ext_tables, state.ext_leaves),
        (mirror_tables, direct_tables),
        tuple(roots),
        state.vcpus,
        state.attributes.ranges(),
        frozenset(state.slots),
        (state.td, len(state.premapped)),
        state.leaked,
        state.bugged,
    )
