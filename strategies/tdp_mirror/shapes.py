"""How each operation is made, which calls may be refused in it, and who else may come between."""

from __future__ import annotations

from conformance.model.tdp_mirror.operations import (
    Accept,
    Access,
    AddrIsDirect,
    Age,
    ClearDirtyMasked,
    ClearDirtySlot,
    EptViolation,
    FastFault,
    Faultin,
    FilterToTypes,
    Finalize,
    FreeObsoleteRoots,
    GetWalk,
    GfnIsAlias,
    GmemInvalidate,
    GpaIsMapped,
    HkidRelease,
    HvaInvalidate,
    InitRegion,
    InjectHuge,
    InvalidateRoots,
    MmuReload,
    MmuUnload,
    PageFault,
    Prefault,
    RecoverHuge,
    RootMatch,
    SelectRoot,
    SeptFree,
    SeptRemove,
    SeptSet,
    SetAttributes,
    SlotCreate,
    SlotDelete,
    SlotMove,
    SplitHuge,
    StealReference,
    TdpMap,
    TestAge,
    Unmap,
    VcpuCreate,
    VcpuDestroy,
    VmUninit,
    WriteProtectGfn,
    WrprotSlot,
    ZapAll,
    ZapAllFast,
    ZapInvalidated,
    ZapLeafs,
    ZapSp,
)
from conformance.specs.tdp_mirror.constants import (
    ATTRIBUTE_PRIVATE,
    EBUSY,
    EFAULT,
    EHWPOISON,
    EIO,
    ENOMEM,
    EOPNOTSUPP,
    MEM_GUEST_MEMFD,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    TDX_OPERAND_ID_SEPT,
    TDX_OPERAND_ID_TDR,
)
from conformance.strategies.domain import BOOLEAN, Domain, Shape
from conformance.strategies.tdp_mirror.domains import (
    BROKEN,
    BUSY,
    ENDS,
    FILTERS,
    FIRSTS,
    GFNS,
    GPAS,
    LEVELS,
    MASKS,
    REMOVAL,
    SHARED,
    SLOTS,
    TYPES,
    VCPUS,
)

_LINK = ("ext_link", (-EBUSY, -EIO))
_SET = ("ext_set", (-EBUSY, -EIO))
_TOPUP = ("cache_topup", (-ENOMEM,))
_STALE = ("mmu_invalidate_retry", (1,))
_GMEM = ("gmem_get_pfn", (-ENOMEM, -EFAULT, -EIO, -EHWPOISON))
_HARDWARE = ("pt_cmpxchg", (1,))
_ANY_TIME = (_HARDWARE, ("pt_xchg", (1,)), ("pt_store", (1,)))
_YIELD = ("resched", (1, 2))
_REMOVE = ("ext_remove", (-EIO,))

_ADD = (
    ("tdh_mem_sept_add", (BUSY | TDX_OPERAND_ID_SEPT, BROKEN)),
    ("tdh_mem_page_aug", (BUSY | TDX_OPERAND_ID_SEPT, BROKEN)),
    ("tdh_mem_page_add", (BUSY | TDX_OPERAND_ID_TDR, BROKEN)),
)

_NO_RANGES = ("flush_range", (-EOPNOTSUPP,))
_PAGES = ("page_alloc", (-ENOMEM,))
_FAULTS = (_LINK, _SET, _TOPUP, _PAGES, _STALE, _GMEM, _HARDWARE, _NO_RANGES, *_ADD)
_ZAPS = (_YIELD, ("pt_xchg", (1,)), _REMOVE, *REMOVAL, _NO_RANGES)

_HOST = (HvaInvalidate, GmemInvalidate, SetAttributes, ZapAllFast, MmuReload, PageFault, Access)

SHAPES: dict[type, Shape] = {
    PageFault: Shape(
        {"vcpu": VCPUS, "gpa": GPAS, "private": BOOLEAN, "write": BOOLEAN, "present": BOOLEAN,
         "prefetch": Domain((False,), (True,))},
        weight=6, faults=_FAULTS, deepest=3, interrupts=_HOST, points=70,
        beside=(PageFault, HvaInvalidate, GmemInvalidate, SetAttributes, ZapAllFast, MmuReload, Unmap, EptViolation),
    ),
    VcpuCreate: Shape({"vcpu": VCPUS}, weight=1),
    VcpuDestroy: Shape({"vcpu": VCPUS}, weight=0.3, beside=(MmuReload, ZapAllFast), points=40),
    MmuReload: Shape(
        {"vcpu": VCPUS}, weight=2, faults=(_TOPUP, _PAGES), deepest=3, beside=(MmuReload, ZapAllFast), points=40,
        interrupts=(ZapAllFast, InvalidateRoots),
    ),
    MmuUnload: Shape({"vcpu": VCPUS}, weight=0.5),
    FreeObsoleteRoots: Shape({"vcpu": VCPUS}, weight=0.5),
    RootMatch: Shape({"mirror": BOOLEAN, "invalid": BOOLEAN, "types": TYPES}, weight=0.4),
    FilterToTypes: Shape({"attr_filter": FILTERS}, weight=0.2),
    AddrIsDirect: Shape({"gpa": GPAS}, weight=0.2),
    GfnIsAlias: Shape({"gfn": Domain((0, 3, 4, 7), (2**35 - 1, 2**35, 2**36, 2**39))}, weight=0.2),
    SelectRoot: Shape({"vcpu": VCPUS, "types": TYPES}, weight=0.2),
    TdpMap: Shape(
        {"vcpu": VCPUS, "gpa": GPAS, "private": BOOLEAN, "level": LEVELS}, weight=1.5,
        faults=(_LINK, _SET, _HARDWARE), deepest=2, beside=(PageFault, TdpMap), points=40,
    ),
    Faultin: Shape(
        {"vcpu": VCPUS, "gfn": Domain((0, 1, 2, 3), (4, 5, 8)), "private": BOOLEAN}, weight=0.3,
        faults=(_GMEM, _STALE), deepest=2,
    ),
    Prefault: Shape(
        {"vcpu": VCPUS, "gpa": Domain((0, 0x1000, 0x2000, 0x3000), (SHARED, 0x100, 0x8000, 0xA000, 1 << 47, 1 << 48)),
         "size": Domain((4096, 8192), (0, 100, 16384, 2**64 - 4096)), "flags": Domain((0,), (1,))},
        weight=1, faults=(*_FAULTS, ("signal_pending", (1,))), deepest=2, points=70,
        beside=(SlotDelete, SetAttributes, PageFault, GmemInvalidate), interrupts=_HOST,
    ),
    EptViolation: Shape(
        {"vcpu": VCPUS, "gpa": Domain((0, 0x1000), (0x2000, 0x3000))}, weight=1,
        faults=(*_FAULTS, ("signal_pending", (1,))), deepest=2, points=70, interrupts=_HOST,
        beside=(EptViolation, GmemInvalidate, SetAttributes, SlotDelete),
    ),
    FastFault: Shape({"vcpu": VCPUS, "gpa": GPAS, "private": BOOLEAN, "write": BOOLEAN}, faults=_ANY_TIME,
                     beside=(WrprotSlot, HvaInvalidate, ZapAllFast), points=30),
    GetWalk: Shape({"vcpu": VCPUS, "gpa": GPAS}, weight=0.5),
    GpaIsMapped: Shape({"vcpu": VCPUS, "gpa": GPAS}, weight=0.5),
    ZapLeafs: Shape({"start": FIRSTS, "end": ENDS, "flush": BOOLEAN}, weight=0.5, faults=(_YIELD, _REMOVE), deepest=4,
                    interrupts=(PageFault, Access, ZapAllFast, ZapSp), points=60),
    Unmap: Shape(
        {"start": FIRSTS, "end": ENDS, "attr_filter": FILTERS, "may_block": BOOLEAN, "flush": BOOLEAN}, weight=1,
        faults=_ZAPS, deepest=6, interrupts=(PageFault, Access, ZapAllFast, ZapSp), points=60,
        beside=(PageFault, ZapAllFast, Unmap),
    ),
    Age: Shape({"start": FIRSTS, "end": ENDS}, weight=0.5, faults=_ANY_TIME, beside=(PageFault, HvaInvalidate)),
    TestAge: Shape({"start": FIRSTS, "end": ENDS}, weight=0.3),
    WrprotSlot: Shape({"slot": SLOTS, "level": LEVELS}, weight=0.6, faults=_ANY_TIME, beside=(PageFault, FastFault),
                      points=30),
    ClearDirtySlot: Shape({"slot": SLOTS}, weight=0.4, faults=_ANY_TIME, beside=(PageFault, SplitHuge, FastFault)),
    ClearDirtyMasked: Shape(
        {"slot": SLOTS, "gfn": Domain(GFNS.scope, (1024, 511, 1030)), "mask": MASKS, "wrprot": BOOLEAN},
        weight=0.4, faults=_ANY_TIME,
    ),
    WriteProtectGfn: Shape(
        {"slot": SLOTS, "gfn": Domain(GFNS.scope, (511, 1030)), "level": LEVELS}, weight=0.4, faults=_ANY_TIME
    ),
    SplitHuge: Shape({"slot": SLOTS, "start": GFNS, "end": Domain((4, 1, 2, 3))}, weight=0.5,
                     faults=(("page_alloc", (-ENOMEM,)), *_ANY_TIME), deepest=3, interrupts=(PageFault,),
                     beside=(PageFault, HvaInvalidate, WrprotSlot, ZapAllFast), points=40),
    RecoverHuge: Shape({"slot": SLOTS}, weight=0.4),
    ZapSp: Shape({"mirror": BOOLEAN, "level": Domain((1, 2)), "gfn": Domain((0, 2), (512, 2**18))}, weight=0.5),
    InvalidateRoots: Shape({"types": Domain((2, 3), (0, 1))}, weight=0.5),
    ZapInvalidated: Shape({}, weight=0.6, faults=(_YIELD,), deepest=5,
                          beside=(HvaInvalidate, PageFault, MmuReload, ZapInvalidated),
                          interrupts=(HvaInvalidate, Access, MmuReload), points=40),
    ZapAllFast: Shape({}, weight=0.6, faults=(_YIELD,), deepest=5, points=60,
                      interrupts=(PageFault, MmuReload, HvaInvalidate, Access),
                      beside=(HvaInvalidate, MmuReload, PageFault, SetAttributes)),
    ZapAll: Shape({}, weight=0.2, faults=(_YIELD,), deepest=5),
    VmUninit: Shape({}, weight=0.5, faults=(("ext_free", (-EIO,)), ("tdh_phymem_page_reclaim", (BROKEN,)), _YIELD),
                    deepest=3),
    SetAttributes: Shape(
        {"address": Domain((0, 0x1000, 0x2000, 0x3000), (0x100, 2**64 - 4096)),
         "size": Domain((4096, 8192, 16384), (0, 100, 2**64 - 4096, 2**21)),
         "attributes": Domain((0, ATTRIBUTE_PRIVATE), (1, 1 << 63)), "flags": Domain((0,), (1,))},
        weight=1.5, faults=(*_ZAPS, ("reserve_attributes", (-ENOMEM,))), deepest=4, points=70,
        interrupts=(PageFault, Access, Accept),
        beside=(PageFault, EptViolation, Prefault, ZapAllFast, Accept, SetAttributes),
    ),
    HvaInvalidate: Shape({"start": FIRSTS, "end": ENDS, "may_block": BOOLEAN}, faults=_ZAPS, deepest=4, points=60,
                         interrupts=(PageFault, Access), beside=(PageFault, ZapAllFast, SetAttributes)),
    GmemInvalidate: Shape({"start": FIRSTS, "end": ENDS}, faults=_ZAPS, deepest=4, points=60,
                          interrupts=(PageFault, Access, Accept),
                          beside=(PageFault, EptViolation, SetAttributes, Accept)),
    SlotCreate: Shape(
        {"slot": Domain((2, 0, 3)), "base": Domain((3, 2, 0), (4, 7, 8, 12, 15, 2**35 - 1, 2**35, 2**36 - 1)),
         "npages": Domain((1, 2), (4, 0, 9, 2**35)),
         "flags": Domain((0, MEM_GUEST_MEMFD), (MEM_LOG_DIRTY_PAGES, MEM_GUEST_MEMFD | MEM_LOG_DIRTY_PAGES,
                                                MEM_GUEST_MEMFD | MEM_READONLY))},
        weight=0.7,
    ),
    SlotDelete: Shape({"slot": SLOTS}, weight=0.3, faults=_ZAPS, deepest=3, beside=(Prefault, EptViolation, PageFault),
                      points=40),
    SlotMove: Shape({"slot": Domain((1, 0), (2,)), "base": Domain((2, 3, 0), (4, 8, 2**35))}, weight=0.4, faults=_ZAPS,
                    deepest=3, beside=(PageFault, Prefault), points=60, interrupts=(PageFault, Access)),
    InjectHuge: Shape({"gfn": Domain((0, 2))}, weight=0.1),
    StealReference: Shape({}, weight=0.1),
    HkidRelease: Shape({}, weight=0.2),
    Access: Shape({"vcpu": VCPUS, "gpa": GPAS, "write": BOOLEAN}, weight=2),
    Accept: Shape({"vcpu": VCPUS, "gpa": Domain((0, 0x1000), (0x2000, 0x3000))}, weight=1),
    InitRegion: Shape({"vcpu": VCPUS, "gpa": Domain((0, 0x1000), (0x2000, 0x3000))}, weight=1.5,
                      faults=(_GMEM, _TOPUP, *_ADD), deepest=2, points=80,
                      beside=(Finalize, InitRegion, GmemInvalidate)),
    Finalize: Shape({}, weight=0.5, faults=(("tdh_mr_finalize", (BUSY,)),), beside=(Prefault, InitRegion)),
    SeptSet: Shape({"gfn": GFNS, "level": Domain((2, 3, 1))}, weight=0.1),
    SeptRemove: Shape({"gfn": GFNS}, weight=0.1),
    SeptFree: Shape({"gfn": Domain((0, 2))}, weight=0.1),
}  # fmt: skip
