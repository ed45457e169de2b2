"""What is asked of a TDP MMU and its world: configurations, operations, and the refusals that were met."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs.tdp_mirror.constants import DIRECT_ROOTS, FILTER_SHARED, MEM_GUEST_MEMFD, MIRROR_ROOTS

Table = tuple[int, int]
"""Level and base gfn of a linked table that is not a root."""
Slot = tuple[int, int, int, int]
"""Id, base gfn, pages, flags."""


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
    slots: tuple[Slot, ...] = ((0, 0, 3, MEM_GUEST_MEMFD), (1, 3, 1, 0))
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
    types: int = MIRROR_ROOTS


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
    attr_filter: int = FILTER_SHARED
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
    """Write-protect the leaves of a slot at a level or above it."""

    slot: int = 0
    level: int = 1


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
    """Write-protect for good what maps one page at a level or above it."""

    slot: int = 0
    gfn: int = 0
    level: int = 1


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

    types: int = DIRECT_ROOTS


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


InSlot = WrprotSlot | ClearDirtySlot | ClearDirtyMasked | SplitHuge | RecoverHuge | WriteProtectGfn
"""What concerns the leaves of one slot."""
Pure = RootMatch | FilterToTypes | AddrIsDirect | GfnIsAlias | SelectRoot
Op = (
    Pure | InSlot | VcpuCreate | VcpuDestroy | MmuReload | MmuUnload | FreeObsoleteRoots | PageFault | TdpMap | Faultin
    | Prefault | EptViolation | FastFault | GetWalk | GpaIsMapped | ZapLeafs | Unmap | Age | TestAge | ZapSp
    | InvalidateRoots | ZapInvalidated | ZapAllFast | ZapAll | VmUninit | SetAttributes | HvaInvalidate
    | GmemInvalidate | SlotCreate | SlotDelete | SlotMove | InjectHuge | StealReference | HkidRelease | Access | Accept
    | InitRegion | Finalize | SeptSet | SeptRemove | SeptFree
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
    taken: int = 0
    """Another thread took a page out of the external tree meanwhile."""
    slot_invalid: int = 0
    """A slot was met in the middle of its deletion or move."""
    vcpu_has_events: int = 0
    attributes_changed: int = 0
    """The attributes of a gfn were read twice, and differed."""
    sept_failed: int = 0
    """A removal SEAMCALL failed twice."""
    along: int = 0
    """Places in the table of a fault's leaf that the same operation mapped along with it, as a mask."""
    invalidated: int = 0
    """How often another thread invalidated a root meanwhile."""
    lock_dropped: int = 0
    """mmu_lock was dropped in the middle while another thread was there."""
    split_beside: int = 0
    """Another thread split a huge leaf meanwhile."""
    kept_out: int = 0
    """The vCPU could not enter the guest, because vCPUs must stay out."""
