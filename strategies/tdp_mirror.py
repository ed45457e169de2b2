"""What may happen to a TDP MMU: addresses on both sides of the split, faults, and others in between."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import strategies as st

from conformance.model import tdp_mirror as model
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import (
    Accept,
    Access,
    AddrIsDirect,
    Age,
    ClearDirtyMasked,
    ClearDirtySlot,
    Config,
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
    State,
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
from conformance.specs.tdp_mirror import PROFILES, Profile
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import EBUSY, EFAULT, EHWPOISON, EIO, ENOMEM, MEM_GUEST_MEMFD
from conformance.strategies.domain import BOOLEAN, Domain, Race, Scope, Shape, just

SMALL = Config()
"""A TD of four gfns: three of guest memory, two of them private; one ordinary page."""
HUGE = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=())
"""All shared, with leaves that may be huge."""
UNEVEN = Config(huge=True, slots=((0, 0, 3, MEM_GUEST_MEMFD), (1, 3, 1, 0)), private_gfns=())
"""A block that two slots share, so that it cannot be huge."""
HALF_PRIVATE = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(0, 1))
"""A private block beside one that may be huge."""
MIXED = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(1,))
"""One block of both halves, one that may be huge."""
COPIED = Config(slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(0,), readonly_gfns=(1, 2))
"""Pages of the host that are shared with others until they are written."""
DEEP = Config(deep=True)
"""The candidate makes the SEAMCALLs; the TD is not finalized."""
EARLY = Config(deep=True, early=True)
TWO_FILES = Config(slots=((0, 0, 1, MEM_GUEST_MEMFD), (1, 2, 1, MEM_GUEST_MEMFD), (2, 3, 1, 0)), private_gfns=(0, 2))
"""Two slots of guest memory."""
PROTECTED = Config(mirror=False)
"""Private memory without a mirror (SW_PROTECTED)."""
PLAIN = Config(mirror=False, private=False, slots=((0, 0, 4, 0),), private_gfns=())
HIGH = Config(max_gfn=15, slots=((0, 0, 2, MEM_GUEST_MEMFD), (1, 8, 2, 0), (2, 10, 2, MEM_GUEST_MEMFD)),
              private_gfns=(0, 10))  # fmt: skip
"""gfns beyond what the root level can name."""
DELETING = Config(
    slots=((0, 0, 3, MEM_GUEST_MEMFD | k.SLOT_INVALID), (1, 3, 1, k.SLOT_INVALID)),
)
"""Slots in the middle of their deletion."""
FOUR_LEVELS = Config(
    index_bits=9, levels=4, direct_bit=35, max_gfn=2**35 - 1,
    slots=((0, 0, 3, MEM_GUEST_MEMFD), (1, 511, 3, 0), (2, 2**35 - 1, 1, 0)), private_gfns=(0, 1),
)  # fmt: skip
FIVE_LEVELS = replace(
    FOUR_LEVELS, levels=5, direct_bit=39, max_gfn=2**39 - 1, slots=(*FOUR_LEVELS.slots, (3, 2**37 - 1, 1, 0))
)

CONFIGS = (
    SMALL,
    HUGE,
    COPIED,
    UNEVEN,
    TWO_FILES,
    MIXED,
    DEEP,
    PROTECTED,
    PLAIN,
    HIGH,
    DELETING,
    FOUR_LEVELS,
    FIVE_LEVELS,
    EARLY,
)

SHARED = SMALL.direct_bits << 12
"""The address bit of the shared half in the small geometry."""

_vcpus: Domain[int] = Domain((0, 1))
_gpas: Domain[int] = Domain(
    (0, 0x1000, 0x3000 | SHARED, 0x2000 | SHARED),
    (0x2000, 0x3000, SHARED, 0x1000 | SHARED, 0x1234, 0x8000, 0x8000 | SHARED, 0x9000 | SHARED, 0xA000, 0xA000 | SHARED,
     511 << 12 | 1 << 47, 512 << 12 | 1 << 47, 511 << 12 | 1 << 51, 1 << 47, 1 << 51, 1 << 48,
     1 << 47 | 1 << 48, 2**48 - 4096, 2**37 - 1 << 12 | 1 << 51,
     2**52 - 4096),
)  # fmt: skip
_starts: Domain[int] = Domain((0, 1, 2, 3), (4, 5, 511, 512, 2**35 - 1, 2**35, 2**39))
_ends: Domain[int] = Domain((4, 1, 2, 3), (0, 8, 512, 513, 2**35, 2**39, 2**40))
_slots: Domain[int] = Domain((0, 1), (2,))
_types: Domain[int] = Domain((2, 4, 6, 3, 5, 7, 0, 1))
_filters: Domain[int] = Domain((1, 2, 3), (0,))
_gfns: Domain[int] = Domain((0, 1, 2, 3))

_LINK = ("ext_link", (-EBUSY, -EIO))
_SET = ("ext_set", (-EBUSY, -EIO))
_TOPUP = ("cache_topup", (-ENOMEM,))
_STALE = ("mmu_invalidate_retry", (1,))
_GMEM = ("gmem_get_pfn", (-ENOMEM, -EFAULT, -EIO, -EHWPOISON))
_HARDWARE = ("pt_cmpxchg", (1,))
_ANY_TIME = (_HARDWARE, ("pt_xchg", (1,)), ("pt_store", (1,)))
_YIELD = ("resched", (1, 2))
_REMOVE = ("ext_remove", (-EIO,))
_BUSY = k.TDX_OPERAND_BUSY
_BROKEN = k.TDX_OPERAND_INVALID
_HOST_FIRST = k.TDX_OPERAND_BUSY_HOST_PRIORITY
"""Sounds busy, and is not."""
_ADD = (
    ("tdh_mem_sept_add", (_BUSY | k.TDX_OPERAND_ID_SEPT, _BROKEN, _HOST_FIRST)),
    ("tdh_mem_page_aug", (_BUSY | k.TDX_OPERAND_ID_SEPT, _BROKEN, _HOST_FIRST)),
    ("tdh_mem_page_add", (_BUSY | k.TDX_OPERAND_ID_TDR, _BROKEN)),
)
_REMOVAL = (
    ("tdh_mem_range_block", (_BUSY | k.TDX_OPERAND_ID_SEPT, _BROKEN)),
    ("tdh_mem_track", (_BUSY | k.TDX_OPERAND_ID_EPOCH, _BROKEN, k.TDX_PREVIOUS_TLB_EPOCH_BUSY)),
    ("tdh_mem_page_remove", (_BUSY, _BROKEN)),
)
_NO_RANGES = ("flush_range", (-k.EOPNOTSUPP,))
_PAGES = ("page_alloc", (-ENOMEM,))
_FAULTS = (_LINK, _SET, _TOPUP, _PAGES, _STALE, _GMEM, _HARDWARE, _NO_RANGES, *_ADD)
_ZAPS = (_YIELD, ("pt_xchg", (1,)), _REMOVE, *_REMOVAL, _NO_RANGES)

_HOST = (HvaInvalidate, GmemInvalidate, SetAttributes, ZapAllFast, MmuReload, PageFault, Access)

SHAPES: dict[type, Shape] = {
    PageFault: Shape(
        {"vcpu": _vcpus, "gpa": _gpas, "private": BOOLEAN, "write": BOOLEAN, "present": BOOLEAN,
         "prefetch": Domain((False,), (True,))},
        weight=6, faults=_FAULTS, deepest=3, interrupts=_HOST, points=70,
        beside=(PageFault, HvaInvalidate, GmemInvalidate, SetAttributes, ZapAllFast, MmuReload, Unmap, EptViolation),
    ),
    VcpuCreate: Shape({"vcpu": _vcpus}, weight=1),
    VcpuDestroy: Shape({"vcpu": _vcpus}, weight=0.3, beside=(MmuReload, ZapAllFast), points=40),
    MmuReload: Shape(
        {"vcpu": _vcpus}, weight=2, faults=(_TOPUP, _PAGES), deepest=3, beside=(MmuReload, ZapAllFast), points=40,
        interrupts=(ZapAllFast, InvalidateRoots),
    ),
    MmuUnload: Shape({"vcpu": _vcpus}, weight=0.5),
    FreeObsoleteRoots: Shape({"vcpu": _vcpus}, weight=0.5),
    RootMatch: Shape({"mirror": BOOLEAN, "invalid": BOOLEAN, "types": _types}, weight=0.4),
    FilterToTypes: Shape({"attr_filter": _filters}, weight=0.2),
    AddrIsDirect: Shape({"gpa": _gpas}, weight=0.2),
    GfnIsAlias: Shape({"gfn": Domain((0, 3, 4, 7), (2**35 - 1, 2**35, 2**36, 2**39))}, weight=0.2),
    SelectRoot: Shape({"vcpu": _vcpus, "types": _types}, weight=0.2),
    TdpMap: Shape(
        {"vcpu": _vcpus, "gpa": _gpas, "private": BOOLEAN, "level": Domain((1, 2))}, weight=1.5,
        faults=(_LINK, _SET, _HARDWARE), deepest=2, beside=(PageFault, TdpMap), points=40,
    ),
    Faultin: Shape(
        {"vcpu": _vcpus, "gfn": Domain((0, 1, 2, 3), (4, 5, 8)), "private": BOOLEAN}, weight=0.3,
        faults=(_GMEM, _STALE), deepest=2,
    ),
    Prefault: Shape(
        {"vcpu": _vcpus, "gpa": Domain((0, 0x1000, 0x2000, 0x3000), (SHARED, 0x100, 0x8000, 0xA000, 1 << 47, 1 << 48)),
         "size": Domain((4096, 8192), (0, 100, 16384, 2**64 - 4096)), "flags": Domain((0,), (1,))},
        weight=1, faults=(*_FAULTS, ("signal_pending", (1,))), deepest=2, points=70,
        beside=(SlotDelete, SetAttributes, PageFault, GmemInvalidate), interrupts=_HOST,
    ),
    EptViolation: Shape(
        {"vcpu": _vcpus, "gpa": Domain((0, 0x1000), (0x2000, 0x3000))}, weight=1,
        faults=(*_FAULTS, ("signal_pending", (1,))), deepest=2, points=70, interrupts=_HOST,
        beside=(EptViolation, GmemInvalidate, SetAttributes, SlotDelete),
    ),
    FastFault: Shape({"vcpu": _vcpus, "gpa": _gpas, "private": BOOLEAN, "write": BOOLEAN}, faults=_ANY_TIME,
                     beside=(WrprotSlot, HvaInvalidate, ZapAllFast), points=30),
    GetWalk: Shape({"vcpu": _vcpus, "gpa": _gpas}, weight=0.5),
    GpaIsMapped: Shape({"vcpu": _vcpus, "gpa": _gpas}, weight=0.5),
    ZapLeafs: Shape({"start": _starts, "end": _ends, "flush": BOOLEAN}, weight=0.5, faults=(_YIELD, _REMOVE), deepest=4,
                    interrupts=(PageFault, Access, ZapAllFast, ZapSp), points=60),
    Unmap: Shape(
        {"start": _starts, "end": _ends, "attr_filter": _filters, "may_block": BOOLEAN, "flush": BOOLEAN}, weight=1,
        faults=_ZAPS, deepest=6, interrupts=(PageFault, Access, ZapAllFast, ZapSp), points=60,
        beside=(PageFault, ZapAllFast, Unmap),
    ),
    Age: Shape({"start": _starts, "end": _ends}, weight=0.5, faults=_ANY_TIME, beside=(PageFault, HvaInvalidate)),
    TestAge: Shape({"start": _starts, "end": _ends}, weight=0.3),
    WrprotSlot: Shape({"slot": _slots}, weight=0.6, faults=_ANY_TIME, beside=(PageFault, FastFault), points=30),
    ClearDirtySlot: Shape({"slot": _slots}, weight=0.4, faults=_ANY_TIME, beside=(PageFault,)),
    ClearDirtyMasked: Shape({"slot": _slots, "gfn": _gfns, "mask": Domain((1, 2, 3), (5,)), "wrprot": BOOLEAN},
                            weight=0.4, faults=_ANY_TIME),
    WriteProtectGfn: Shape({"slot": _slots, "gfn": _gfns}, weight=0.4, faults=_ANY_TIME),
    SplitHuge: Shape({"slot": _slots, "start": _gfns, "end": Domain((4, 1, 2, 3))}, weight=0.5,
                     faults=(("page_alloc", (-ENOMEM,)), *_ANY_TIME), deepest=3, interrupts=(PageFault,),
                     beside=(PageFault, HvaInvalidate, WrprotSlot, ZapAllFast), points=40),
    RecoverHuge: Shape({"slot": _slots}, weight=0.4),
    ZapSp: Shape({"mirror": BOOLEAN, "level": Domain((1, 2)), "gfn": Domain((0, 2), (512, 2**18))}, weight=0.5),
    InvalidateRoots: Shape({"types": Domain((2, 3), (0, 1))}, weight=0.5),
    ZapInvalidated: Shape({}, weight=0.6, faults=(_YIELD,), deepest=5,
                          beside=(HvaInvalidate, PageFault, MmuReload, ZapInvalidated),
                          interrupts=(HvaInvalidate, Access, MmuReload), points=40),
    ZapAllFast: Shape({}, weight=0.6, faults=(_YIELD,), deepest=5, points=60,
                      interrupts=(PageFault, MmuReload, HvaInvalidate, Access),
                      beside=(HvaInvalidate, MmuReload, PageFault, SetAttributes)),
    ZapAll: Shape({}, weight=0.2, faults=(_YIELD,), deepest=5),
    VmUninit: Shape({}, weight=0.5, faults=(("ext_free", (-EIO,)), ("tdh_phymem_page_reclaim", (_BROKEN,)), _YIELD),
                    deepest=3),
    SetAttributes: Shape(
        {"address": Domain((0, 0x1000, 0x2000, 0x3000), (0x100, 2**64 - 4096)),
         "size": Domain((4096, 8192, 16384), (0, 100, 2**64 - 4096, 2**21)),
         "attributes": Domain((0, k.ATTRIBUTE_PRIVATE), (1, 1 << 63)), "flags": Domain((0,), (1,))},
        weight=1.5, faults=(*_ZAPS, ("reserve_attributes", (-ENOMEM,))), deepest=4, points=70,
        interrupts=(PageFault, Access, Accept),
        beside=(PageFault, EptViolation, Prefault, ZapAllFast, Accept, SetAttributes),
    ),
    HvaInvalidate: Shape({"start": _starts, "end": _ends, "may_block": BOOLEAN}, faults=_ZAPS, deepest=4, points=60,
                         interrupts=(PageFault, Access), beside=(PageFault, ZapAllFast, SetAttributes)),
    GmemInvalidate: Shape({"start": _starts, "end": _ends}, faults=_ZAPS, deepest=4, points=60,
                          interrupts=(PageFault, Access, Accept),
                          beside=(PageFault, EptViolation, SetAttributes, Accept)),
    SlotCreate: Shape(
        {"slot": Domain((2, 0, 3)), "base": Domain((3, 2, 0), (4, 7, 8, 12, 15, 2**35 - 1, 2**35, 2**36 - 1)),
         "npages": Domain((1, 2), (0, 9, 2**35)),
         "flags": Domain((0, MEM_GUEST_MEMFD), (MEM_GUEST_MEMFD | k.MEM_LOG_DIRTY_PAGES,
                                                MEM_GUEST_MEMFD | k.MEM_READONLY))},
        weight=0.7,
    ),
    SlotDelete: Shape({"slot": _slots}, weight=0.3, faults=_ZAPS, deepest=3, beside=(Prefault, EptViolation, PageFault),
                      points=40),
    SlotMove: Shape({"slot": Domain((1, 0), (2,)), "base": Domain((2, 3, 0), (4, 8, 2**35))}, weight=0.4, faults=_ZAPS,
                    deepest=3, beside=(PageFault, Prefault), points=60, interrupts=(PageFault, Access)),
    InjectHuge: Shape({"gfn": Domain((0, 2))}, weight=0.1),
    StealReference: Shape({}, weight=0.1),
    HkidRelease: Shape({}, weight=0.2),
    Access: Shape({"vcpu": _vcpus, "gpa": _gpas, "write": BOOLEAN}, weight=2),
    Accept: Shape({"vcpu": _vcpus, "gpa": Domain((0, 0x1000), (0x2000, 0x3000))}, weight=1),
    InitRegion: Shape({"vcpu": _vcpus, "gpa": Domain((0, 0x1000), (0x2000, 0x3000))}, weight=1.5,
                      faults=(_GMEM, _TOPUP, *_ADD), deepest=2, points=80,
                      beside=(Finalize, InitRegion, GmemInvalidate)),
    Finalize: Shape({}, weight=0.5, faults=(("tdh_mr_finalize", (_BUSY,)),), beside=(Prefault, InitRegion)),
    SeptSet: Shape({"gfn": _gfns, "level": Domain((2, 3, 1))}, weight=0.1),
    SeptRemove: Shape({"gfn": _gfns}, weight=0.1),
    SeptFree: Shape({"gfn": Domain((0, 2))}, weight=0.1),
}  # fmt: skip


def opening(config: Config, _profile: Profile) -> tuple[Step, ...]:
    """One loaded vCPU; a deep TD with a first page, finalized."""
    steps = [Step(VcpuCreate(0)), Step(MmuReload(0))]
    if config.deep and not config.early:
        steps += [Step(InitRegion(0, 0)), Step(Finalize())]
    return tuple(steps)


def suggest(state: State, random: Random) -> Step | None:
    """Faults that can succeed, conversions of what is mapped, and an orderly end."""
    config = state.config
    draw = random.random()
    if not state.hkid or (not config.mirror and draw < 0.02):
        return _ending(state, random)
    if draw < 0.5:
        return _fitting_fault(state, random)
    if draw < 0.65:
        gfn = _some_gfn(state, random)
        new = 0 if gfn in state.attributes else k.ATTRIBUTE_PRIVATE
        return Step(SetAttributes(gfn << 12, 4096, new if config.private else 0))
    if draw < 0.8:
        gfn = _some_gfn(state, random)
        return Step(random.choice((HvaInvalidate, GmemInvalidate, Age))(gfn, gfn + random.choice((1, 2, 512))))
    if draw < 0.9 and state.roots:
        gfn = _some_gfn(state, random)
        write = random.random() < 0.5
        return Step(Access(random.randrange(config.vcpus), (gfn | config.direct_bits) << 12, write))
    if draw < 0.93:
        return Step(GmemInvalidate(0, config.max_gfn + 1))
    return Step(HkidRelease()) if draw < 0.95 else None


def _ending(state: State, random: Random) -> Step:
    alive = [i for i, pair in enumerate(state.vcpus) if pair is not None]
    if alive and random.random() < 0.8:
        return Step(VcpuDestroy(random.choice(alive)))
    return Step(VmUninit()) if not alive else Step(ZapAll())


def _some_gfn(state: State, random: Random) -> int:
    if not state.slots:
        return 0
    _, base, npages, _ = random.choice(state.slots)
    return base + random.randrange(npages)


def _fitting_fault(state: State, random: Random) -> Step | None:
    config = state.config
    loaded = [i for i, pair in enumerate(state.vcpus) if pair is not None and pair[0] != model.NONE]
    if not loaded:
        return Step(MmuReload(random.randrange(config.vcpus)))
    vcpu = random.choice(loaded)
    gfn = _some_gfn(state, random)
    private = gfn in state.attributes
    gpa = (gfn if private else gfn | config.direct_bits) << 12
    faults: tuple[Fault, ...] = ()
    if random.random() < 0.1:
        faults = (Fault(random.choice(("ext_link", "ext_set")), -EBUSY, random.randint(1, 2)),)
    return Step(PageFault(vcpu, gpa, private, random.random() < 0.5, random.random() < 0.3), faults)


# -- small worlds


def _fault(gfn: int, private: bool, vcpu: int = 0, **more: Any) -> Step:
    return Step(PageFault(vcpu, gfn << 12 if private else gfn << 12 | SHARED, private, **more))


_LIVES = tuple(Step(op(vcpu)) for vcpu in (0, 1) for op in (VcpuCreate, MmuReload, VcpuDestroy))

_SELECTIVE = (
    *_LIVES[:3],
    Step(MmuReload(0), (Fault("cache_topup", -ENOMEM),)),
    _fault(0, True),
    _fault(0, True, write=True),
    _fault(2, False),
    _fault(0, False),
    Step(PageFault(0, SHARED, True)),
    Step(SetAttributes(0, 4096, 0)),
    Step(SetAttributes(0, 4096, k.ATTRIBUTE_PRIVATE)),
    Step(SetAttributes(0, 4096, 0), (Fault("reserve_attributes", -ENOMEM),)),
    Step(HvaInvalidate(0, 4)),
    Step(GmemInvalidate(0, 4)),
    Step(ZapLeafs(0, 4)),
    Step(Unmap(0, 4, 3)),
    Step(Unmap(0, 4, 1, flush=True)),
    Step(Unmap(0, 4, 1, may_block=False)),
    Step(Unmap(0, 4, 0)),
    Step(InvalidateRoots()),
    Step(ZapInvalidated()),
    Step(ZapAllFast()),
    Step(MmuUnload(0)),
    Step(HkidRelease()),
    Step(ZapAll()),
    Step(VmUninit()),
    Step(SlotDelete(0)),
    Step(Age(0, 4)),
    Step(WrprotSlot(0)),
    Step(Access(0, 0x2000 | SHARED, True)),
)

_FAULTY = (
    *_LIVES[:2],
    _fault(0, True),
    *(Step(PageFault(0, 0, True), (Fault(call, error, nth),)) for call, error, nth in (
        ("ext_link", -EBUSY, 1), ("ext_link", -EBUSY, 2), ("ext_link", -EIO, 1), ("ext_link", -EIO, 2),
        ("ext_set", -EBUSY, 1), ("ext_set", -EIO, 1), ("cache_topup", -ENOMEM, 1), ("cache_topup", -ENOMEM, 3),
        ("mmu_invalidate_retry", 1, 1), ("mmu_invalidate_retry", 1, 3), ("gmem_get_pfn", -EHWPOISON, 1),
    )),
    Step(EptViolation(0, 0x1000), (Fault("ext_set", -EBUSY),)),
    Step(EptViolation(0, 0x1000), (Fault("ext_link", -EIO),)),
    Step(Prefault(0, 0)),
    Step(Prefault(0, 0x3000)),
    Step(Prefault(0, SHARED)),
    Step(Prefault(0, 0, 0)),
    Step(GmemInvalidate(0, 1)),
    Step(GmemInvalidate(0, 1), (Fault("ext_remove", -EIO),)),
    Step(GmemInvalidate(0, 4)),
    Step(TdpMap(0, 0, True)),
    Step(TdpMap(0, 0, True, 2)),
    Step(InjectHuge(0)),
    Step(Faultin(0, 4, False)),
    Step(StealReference()),
    Step(MmuUnload(0)),
    Step(VcpuDestroy(0)),
    Step(HkidRelease()),
    Step(VmUninit()),
    Step(VmUninit(), (Fault("ext_free", -EIO, 2),)),
    *(Step(RootMatch(mirror, invalid, types)) for mirror in (False, True) for invalid in (False, True)
      for types in range(8)),
    *(Step(FilterToTypes(f)) for f in range(4)),
    *(Step(AddrIsDirect(gpa)) for gpa in (0, SHARED)),
    *(Step(SelectRoot(0, types)) for types in range(8)),
)  # fmt: skip

_LOGGING = (
    *_LIVES[:2],
    _fault(0, False),
    _fault(1, False, write=True),
    _fault(2, False, write=True, present=True),
    Step(FastFault(0, SHARED, False, True)),
    Step(FastFault(0, 0, True, True)),
    Step(SetAttributes(0x1000, 4096, k.ATTRIBUTE_PRIVATE)),
    Step(SetAttributes(0x1000, 4096, 0)),
    _fault(1, True),
    Step(WrprotSlot(0)),
    Step(ClearDirtySlot(0)),
    Step(WrprotSlot(0), (Fault("pt_cmpxchg", 1),)),
    Step(ClearDirtyMasked(0, 0, 3, True)),
    Step(ClearDirtyMasked(0, 0, 1)),
    Step(ClearDirtySlot(0), (Fault("pt_xchg", 1),)),
    Step(ClearDirtySlot(0), (Fault("pt_store", 1),)),
    Step(WriteProtectGfn(0, 0)),
    Step(SplitHuge(0, 0, 4)),
    Step(SplitHuge(0, 0, 4), (Fault("page_alloc", -ENOMEM, 2),)),
    Step(SplitHuge(0, 0, 4), (Fault("pt_cmpxchg", 1),)),
    _fault(2, False, prefetch=True),
    Step(HvaInvalidate(2, 4), (Fault("pt_xchg", 1),)),
    Step(RecoverHuge(0)),
    Step(TdpMap(0, SHARED)),
    Step(TdpMap(0, 0x2000 | SHARED, False, 2)),
    Step(Access(0, 0x2000 | SHARED)),
    Step(PageFault(0, 0x3000 | SHARED), (Fault("flush_range", -k.EOPNOTSUPP),)),
    Step(ZapSp(False, 1, 0)),
    Step(ZapSp(True, 1, 0)),
    Step(Unmap(1, 3, 1), (Fault("resched", 2),)),
    Step(Access(0, SHARED, True)),
    Step(Age(0, 4)),
    Step(TestAge(0, 2)),
    Step(HvaInvalidate(0, 2)),
)

_SEAMCALLS = (
    *_LIVES[:2],
    Step(InitRegion(0, 0)),
    Step(InitRegion(0, 0), (Fault("tdh_mem_page_add", _BUSY),)),
    Step(Finalize()),
    Step(Finalize(), (Fault("tdh_mr_finalize", _BUSY),)),
    Step(Prefault(0, 0)),
    _fault(0, True),
    _fault(1, True),
    Step(PageFault(0, 0x1000, True), (Fault("tdh_mem_page_aug", _BUSY),)),
    Step(PageFault(0, 0, True), (Fault("tdh_mem_sept_add", _BUSY | k.TDX_OPERAND_ID_SEPT),)),
    Step(PageFault(0, 0, True), (Fault("tdh_mem_sept_add", _BROKEN),)),
    Step(Access(0, 0)),
    Step(Accept(0, 0)),
    Step(Accept(0, 0x1000)),
    Step(PageFault(0, 0x1000, True), (Fault("tdh_mem_page_aug", _HOST_FIRST),)),
    Step(GmemInvalidate(0, 4), (Fault("tdh_mem_track", k.TDX_PREVIOUS_TLB_EPOCH_BUSY),)),
    Step(GmemInvalidate(0, 1)),
    *(Step(GmemInvalidate(0, 1), (Fault(call, busy),)) for call, (busy, *_) in _REMOVAL),
    *(Step(GmemInvalidate(0, 1), (Fault(call, busy), Fault(call, busy, 2))) for call, (busy, *_) in _REMOVAL),
    Step(SeptSet(0, 2)),
    Step(SeptFree(0)),
    Step(SeptRemove(0)),
    Step(GmemInvalidate(0, 4)),
    Step(VcpuDestroy(0)),
    Step(HkidRelease()),
    Step(VmUninit()),
    Step(VmUninit(), (Fault("tdh_phymem_page_reclaim", _BROKEN),)),
)

_REACH = (
    *_LIVES[:2],
    Step(PageFault(0, 0, True)),
    Step(PageFault(0, 0x8000, False)),
    Step(PageFault(0, 0x8000 | SHARED, False)),
    Step(PageFault(0, 0xA000, True)),
    Step(PageFault(0, SHARED, False)),
    Step(SetAttributes(0, 4096, 0)),
    Step(Prefault(0, 0x8000)),
    Step(Prefault(0, 0xA000)),
    Step(GetWalk(0, 0)),
    Step(GetWalk(0, 0x8000 | SHARED)),
    Step(GpaIsMapped(0, 0x8000 | SHARED)),
    *(Step(SlotCreate(3, base, npages, flags)) for base, npages, flags in (
        (3, 1, 0), (3, 2, 0), (4, 1, 0), (7, 2, 0), (3, 6, 0), (15, 2, 0), (12, 1, MEM_GUEST_MEMFD | 1),
        (2, 1, MEM_GUEST_MEMFD), (0, 1, 0), (2, 1, MEM_GUEST_MEMFD | 2), (3, 0, 0),
    )),
    Step(SlotCreate(0, 0, 2, 0)),
    Step(SlotMove(1, 12)),
    Step(SlotMove(1, 2)),
    Step(SlotMove(0, 2)),
    _fault(1, False),
    Step(Access(0, 0x1000 | SHARED)),
    Step(ZapLeafs(4, 8)),
    Step(ZapLeafs(5, 6)),
    Step(Unmap(4, 8, 1)),
    Step(HvaInvalidate(4, 8)),
)  # fmt: skip

_REAL = (
    *_LIVES[:2],
    Step(PageFault(0, 0, True)),
    Step(PageFault(0, 0x1000, True)),
    Step(PageFault(0, 511 << 12 | 1 << 47, False)),
    Step(PageFault(0, 512 << 12 | 1 << 47, False)),
    Step(PageFault(0, 2**35 - 1 << 12 | 1 << 47, False)),
    Step(PageFault(0, 2**35 - 1 << 12, True)),
    Step(FastFault(0, 512 << 12 | 1 << 47, False, True)),
    Step(HvaInvalidate(511, 513)),
    Step(GmemInvalidate(0, 1)),
    Step(ZapLeafs(2**35, 2**36)),
    Step(ZapAllFast()),
    Step(AddrIsDirect(1 << 47)),
    Step(AddrIsDirect(1 << 48)),
)

_TWO_VCPUS = (
    *_LIVES,
    Step(ZapAllFast()),
    Step(InvalidateRoots()),
    Step(InvalidateRoots(3)),
    Step(ZapInvalidated()),
    Step(FreeObsoleteRoots(0)),
    Step(MmuUnload(0)),
    Step(SelectRoot(0, 4)),
    Step(HkidRelease()),
    Step(VmUninit()),
)

_DELETION = (
    *_LIVES[:2],
    _fault(0, True),
    _fault(3, False),
    _fault(0, True, prefetch=True),
    Step(Prefault(0, 0)),
    Step(Prefault(0, 0x3000)),
    Step(EptViolation(0, 0)),
)

_MEETING = (
    *_LIVES[:2],
    *(
        Step(fault.op, during=((point, Step(inner)),))
        for fault in (_fault(0, True), _fault(3, False))
        for inner in (HvaInvalidate(0, 4), GmemInvalidate(0, 4), SetAttributes(0, 4096, 0), ZapAllFast())
        for point in range(0, 40, 2)
    ),
)

_MOVING = (
    *_LIVES[:2],
    _fault(0, True),
    _fault(2, False),
    _fault(3, False),
    _fault(3, False, write=True, present=True),
    Step(Access(0, 0x3000 | SHARED)),
    Step(SlotDelete(0)),
    Step(SlotDelete(0), (Fault("ext_remove", -EIO),)),
    Step(SlotDelete(1)),
    Step(SlotMove(1, 2)),
    Step(SlotMove(1, 0)),
    Step(SlotMove(1, 3)),
    Step(SlotMove(0, 0)),
    Step(SlotCreate(2, 1, 2, 0)),
    Step(SlotCreate(2, 1, 2, MEM_GUEST_MEMFD)),
    Step(InvalidateRoots()),
    Step(GmemInvalidate(0, 4)),
    Step(HvaInvalidate(0, 4)),
)

_YIELDING = (
    *_LIVES[:2],
    _fault(2, False),
    _fault(3, False),
    *(
        Step(op, (Fault("resched", 2),), during=((point, Step(inner)),))
        for op in (Unmap(2, 4, 1), ZapLeafs(2, 4))
        for inner in (ZapAllFast(), ZapSp(False, 1, 2))
        for point in range(10, 60)
    ),
)

_TOGETHER = (
    *_LIVES[:2],
    *(
        Step(Parallel(Step(left), fault, (point,)))
        for left, fault in (
            (SetAttributes(0x1000, 4096, k.ATTRIBUTE_PRIVATE), _fault(0, False)),
            (HvaInvalidate(0, 2), _fault(0, False)),
        )
        for point in range(70)
    ),
)

SCOPES = {
    "two halves": Scope(SMALL, _SELECTIVE, depth=6, states=1228, transitions=8560),
    "refusals": Scope(SMALL, _FAULTY, depth=5, states=389, transitions=8908),
    "two vCPUs": Scope(SMALL, _TWO_VCPUS, depth=6, states=245, transitions=995),
    "protection and huge pages": Scope(MIXED, _LOGGING, depth=5, states=110, transitions=1295),
    "protection and huge pages, uneven": Scope(
        UNEVEN,
        (*_LIVES[:2], *(_fault(gfn, False) for gfn in range(4)), Step(RecoverHuge(0)), Step(SplitHuge(0, 0, 2)),
         Step(WrprotSlot(0)), Step(ClearDirtyMasked(0, 1, 3, True)), Step(HvaInvalidate(2, 4)), Step(SlotDelete(1)),
         Step(Unmap(0, 3)), Step(Unmap(2, 3)), Step(ZapLeafs(0, 2))),
        depth=5, states=68, transitions=428,
    ),
    "pages that may not be written yet": Scope(
        COPIED,
        (*_LIVES[:2], _fault(1, False), _fault(1, False, write=True), _fault(1, False, write=True, present=True),
         _fault(3, False), Step(FastFault(0, 0x1000 | SHARED, False, True)), Step(FastFault(0, 0x1000 | SHARED)),
         Step(WrprotSlot(0)), Step(WriteProtectGfn(0, 1)), Step(Access(0, 0x1000 | SHARED, True)),
         Step(HvaInvalidate(1, 2)), Step(HvaInvalidate(0, 4, False), (Fault("resched", 2),)), Step(ZapAllFast()),
         Step(Prefault(0, 0x1000))),
        depth=6, states=88, transitions=878,
    ),
    "a private block": Scope(
        HALF_PRIVATE,
        (*_LIVES[:2], _fault(0, True), _fault(1, True), _fault(2, False), Step(RecoverHuge(0)),
         Step(SplitHuge(0, 0, 4)), Step(WrprotSlot(0)), Step(ZapSp(True, 1, 0)), Step(HvaInvalidate(0, 4)),
         Step(GmemInvalidate(0, 2))),
        depth=5, states=55, transitions=238,
    ),
    "roots that are not valid any more": Scope(
        SMALL,
        (*_LIVES[:2], _fault(3, False), Step(InvalidateRoots()), Step(HvaInvalidate(0, 4)), Step(Unmap(3, 4, 1)),
         Step(SetAttributes(0x3000, 4096, k.ATTRIBUTE_PRIVATE)), Step(Age(0, 4)), Step(ZapInvalidated()),
         Step(Access(0, 0x3000 | SHARED, True))),
        depth=6, states=57, transitions=336,
    ),
    "teardown": Scope(
        SMALL,
        (*_LIVES[:3], Step(PageFault(0, 0, True), (Fault("ext_set", -EBUSY),)), Step(HkidRelease()), Step(ZapAll()),
         Step(Age(0, 4)), Step(HvaInvalidate(0, 4)), Step(VmUninit()),
         *(Step(VmUninit(), (Fault("ext_free", -EIO, nth),)) for nth in (1, 2))),
        depth=7, states=36, transitions=166,
    ),
    "two slots of guest memory": Scope(
        TWO_FILES,
        (*_LIVES[:2], _fault(0, True), _fault(2, True), _fault(3, False), Step(GmemInvalidate(0, 4)),
         Step(GmemInvalidate(1, 3)), Step(GmemInvalidate(0, 1)), Step(HvaInvalidate(0, 4)), Step(SlotDelete(1)),
         Step(SetAttributes(0, 16384, 0)), Step(SetAttributes(0x2000, 4096, 0)), Step(Unmap(1, 4, 2)),
         Step(Prefault(0, 0x2000))),
        depth=5, states=505, transitions=2607,
    ),
    "SEAMCALLs": Scope(DEEP, _SEAMCALLS, depth=6, needs=frozenset({"seamcalls"}), states=569, transitions=3666),
    "before finalize": Scope(EARLY, (*_LIVES[:2], Step(SeptSet(0, 1))), needs=frozenset({"seamcalls"}), states=6,
                             transitions=6),
    "reach of the root": Scope(HIGH, _REACH, depth=4, states=36, transitions=528),
    "slots in deletion": Scope(DELETING, _DELETION, states=3, transitions=11),
    "four levels of 512": Scope(FOUR_LEVELS, _REAL, depth=4, needs=frozenset({"tables-of-512"}), states=49,
                                transitions=203),
    "in the middle of faults": Scope(SMALL, _MEETING, depth=3, states=14, transitions=163),
    "in the middle of zaps": Scope(SMALL, _YIELDING, depth=5, states=9, transitions=1823),
    "beside faults": Scope(HUGE, _TOGETHER, depth=3, states=9, transitions=143),
    "slots that come and go": Scope(SMALL, _MOVING, depth=5, states=540, transitions=2351),
    "without a mirror": Scope(
        PROTECTED,
        (*_LIVES[:2], Step(PageFault(0, 0, True)), Step(PageFault(0, 0x2000, False)),
         Step(SetAttributes(0, 4096, 0)), Step(HvaInvalidate(0, 4)), Step(GmemInvalidate(0, 4)), Step(ZapAllFast()),
         Step(VcpuDestroy(0)), Step(VmUninit()), Step(FilterToTypes(0)), Step(FilterToTypes(2)), Step(AddrIsDirect(0))),
        depth=5, states=118, transitions=570,
    ),
    "without private memory": Scope(
        PLAIN,
        (*_LIVES[:2], Step(PageFault(0, 0x1000)), Step(PageFault(0, 0x1000, write=True, present=True)),
         *(Step(SetAttributes(0, 4096, value)) for value in (0, 1, k.ATTRIBUTE_PRIVATE)),
         Step(SlotCreate(2, 4, 1, MEM_GUEST_MEMFD)), Step(Prefault(0, 0x1000)), Step(HvaInvalidate(0, 4)),
         Step(GetWalk(0, 0x1000)), Step(VcpuDestroy(0)), Step(VmUninit())),
        depth=5, states=23, transitions=147,
    ),
    "long two halves": Scope(SMALL, _SELECTIVE, depth=7, in_gate=False),
}  # fmt: skip


# -- for Hypothesis


def configs() -> st.SearchStrategy[Config]:
    """Worlds, the plainest first."""
    return st.sampled_from(CONFIGS)


def operations(kind: type) -> st.SearchStrategy[Any]:
    """One kind of operation with its fields from their domains."""
    return st.builds(kind, **{name: domain.strategy() for name, domain in SHAPES[kind].fields.items()})


def faults(kind: type) -> st.SearchStrategy[tuple[Fault, ...]]:
    """No fault, or one of those that can meet this kind of operation."""
    shape = SHAPES[kind]
    planned = [
        st.builds(Fault, st.just(call), st.sampled_from(values), st.integers(1, shape.deepest))
        for call, values in shape.faults
    ]
    if not planned:
        return st.just(())
    return st.one_of(st.just(()), st.tuples(st.one_of(planned)))


def parallels(kind: type) -> st.SearchStrategy[Parallel]:
    """This kind of operation on one thread, a partner of it on another, and up to three switches."""
    shape = SHAPES[kind]
    rights = st.sampled_from(shape.beside).flatmap(operations).map(Step)
    points = st.lists(st.integers(0, 2 * shape.points), max_size=3, unique=True).map(lambda p: tuple(sorted(p)))
    return st.builds(Parallel, operations(kind).map(Step), rights, points)


NOTHING = just(0)
"""The domain of a field that only has its default."""


def _canonical() -> tuple[tuple[Config, tuple[Step, ...]], ...]:
    """Where races matter: one or two vCPUs, fresh or with something mapped, roots invalid or not."""
    first = (Step(VcpuCreate(0)), Step(MmuReload(0)))
    both = (*first, Step(VcpuCreate(1)), Step(MmuReload(1)))
    private, shared = _fault(0, True), _fault(3, False)
    deep = (*opening(DEEP, PROFILES["upstream"]), Step(VcpuCreate(1)), Step(MmuReload(1)))
    return (
        (SMALL, (Step(VcpuCreate(0)), Step(VcpuCreate(1)))),
        (SMALL, both),
        (SMALL, (*both, private, shared)),
        (SMALL, (*both, shared, Step(Access(0, 0x3000 | SHARED, True)))),
        (SMALL, (*first, Step(VcpuCreate(1)))),
        (SMALL, (*both, private, Step(InvalidateRoots()))),
        (SMALL, (*both, shared, Step(InvalidateRoots()))),
        (HUGE, both),
        (HUGE, (*both, _fault(0, False))),
        (HUGE, (*both, _fault(0, False), Step(WrprotSlot(0)))),
        (DEEP, deep),
        (PROTECTED, both),
    )


STARTS = _canonical()
"""(configuration, steps): states from which two operations are run at once."""


def _pairs() -> dict[str, Race]:
    """The pairs of section 9 and the other races of the sources, each where it matters."""
    first = (Step(VcpuCreate(0)), Step(MmuReload(0)))
    both = (*first, Step(VcpuCreate(1)), Step(MmuReload(1)))
    deep = (*opening(DEEP, PROFILES["upstream"]), Step(VcpuCreate(1)), Step(MmuReload(1)))
    private, other = _fault(0, True), _fault(0, True, 1)
    everything = Step(HvaInvalidate(0, 4))
    to_private = Step(SetAttributes(0x2000, 4096, k.ATTRIBUTE_PRIVATE))
    return {
        "one private leaf twice": Race(SMALL, both, private, other, 1),
        "one private leaf twice, busy": Race(
            SMALL, both, Step(PageFault(0, 0, True), (Fault("ext_link", -EBUSY, 2),)), other, 1
        ),
        "two private leaves of one new table": Race(SMALL, both, private, _fault(1, True, 1), 1),
        "a private fault and a reload": Race(
            SMALL, (*both, Step(InvalidateRoots())), private, Step(MmuReload(1)), 1
        ),
        "a shared fault and a yielding unmap": Race(
            SMALL, (*both, _fault(3, False)), _fault(2, False),
            Step(Unmap(2, 4, 1), (Fault("resched", 2),)), 1,
        ),
        "a private fault and its conversion": Race(SMALL, both, private, Step(SetAttributes(0, 4096, 0)), 1),
        "a shared fault and its conversion": Race(SMALL, both, _fault(2, False), to_private, 1),
        "zapping invalid roots and a notifier": Race(
            SMALL, (*both, _fault(3, False), Step(InvalidateRoots())), Step(ZapInvalidated()), everything, 1
        ),
        "a yielding zap and a fault": Race(
            SMALL, (*both, _fault(3, False)), Step(ZapAllFast(), (Fault("resched", 2),)), _fault(3, False), 1
        ),
        "the end of a vCPU and a reload": Race(SMALL, both, Step(VcpuDestroy(0)), Step(MmuReload(1)), 2),
        "two first loads": Race(SMALL, (Step(VcpuCreate(0)), Step(VcpuCreate(1))), Step(MmuReload(0)),
                                Step(MmuReload(1)), 1),
        "a prefault and the end of its slot": Race(SMALL, both, Step(Prefault(0, 0)), Step(SlotDelete(0)), 1),
        "a violation and the end of its slot": Race(SMALL, both, Step(EptViolation(0, 0)), Step(SlotDelete(0)), 1),
        "a huge fault and a conversion of its half": Race(
            HUGE, both, _fault(2, False), Step(SetAttributes(0x3000, 4096, k.ATTRIBUTE_PRIVATE)), 1
        ),
        "a split and a notifier": Race(
            HUGE, (*both, _fault(0, False), _fault(2, False)), Step(SplitHuge(0, 0, 4)), everything, 1
        ),
        "a split and write protection": Race(
            HUGE, (*both, _fault(0, False), _fault(2, False)), Step(SplitHuge(0, 0, 4)), Step(WrprotSlot(0)), 1
        ),
        "a split and the fast zap": Race(
            HUGE, (*both, _fault(0, False), _fault(2, False)), Step(SplitHuge(0, 0, 4)), Step(ZapAllFast()), 1
        ),
        "a fast fault and write protection": Race(
            HUGE, (*both, _fault(0, False), Step(WrprotSlot(0))), Step(FastFault(0, SHARED, False, True)),
            Step(WrprotSlot(0)), 1,
        ),
        "a page accepted and taken": Race(DEEP, deep, Step(Accept(1, 0)), Step(GmemInvalidate(0, 1)), 1),
        "two pages added": Race(DEEP, deep, _fault(1, True), _fault(1, True, 1), 1),
        "a page added and the TD finalized": Race(DEEP, first, Step(InitRegion(0, 0)), Step(Finalize()), 1),
    }  # fmt: skip


RACES = _pairs()
"""Pairs whose schedules with few switches are all tried, in both orders of starting."""
