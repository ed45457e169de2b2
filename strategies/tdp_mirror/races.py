"""Pairs of operations at once, and the states in which their order matters."""

from __future__ import annotations

from conformance.model.step import Fault, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror.operations import (
    Accept,
    Access,
    Age,
    ClearDirtySlot,
    EptViolation,
    FastFault,
    Finalize,
    GmemInvalidate,
    HkidRelease,
    HvaInvalidate,
    InitRegion,
    InvalidateRoots,
    MmuReload,
    PageFault,
    Prefault,
    SetAttributes,
    SlotDelete,
    SplitHuge,
    TdpMap,
    Unmap,
    VcpuCreate,
    VcpuDestroy,
    VmUninit,
    WriteProtectGfn,
    WrprotSlot,
    ZapAllFast,
    ZapInvalidated,
)
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror.constants import ATTRIBUTE_PRIVATE, EBUSY
from conformance.strategies.domain import Race
from conformance.strategies.tdp_mirror.domains import DEEP, HUGE, PROTECTED, SHARED, SMALL, fault_at
from conformance.strategies.tdp_mirror.suggest import opening

_FIRST = (Step(VcpuCreate(0)), Step(MmuReload(0)))
_BOTH = (*_FIRST, Step(VcpuCreate(1)), Step(MmuReload(1)))
_DEEP = (*opening(DEEP, PROFILES["upstream"]), Step(VcpuCreate(1)), Step(MmuReload(1)))
_PRIVATE, _OTHER = fault_at(0, True), fault_at(0, True, 1)
_SHARED = fault_at(3, False)
_EVERYTHING = Step(HvaInvalidate(0, 4))
_TO_PRIVATE = Step(SetAttributes(0x2000, 4096, ATTRIBUTE_PRIVATE))

AFTERWARDS: tuple[Step, ...] = (
    Step(GmemInvalidate(0, 4)), Step(HkidRelease()), Step(VcpuDestroy(0)), Step(VcpuDestroy(1)), Step(VmUninit()),
)  # fmt: skip
"""The end of the VM: what two operations lost between them is missed then."""

STARTS: tuple[tuple[Config, tuple[Step, ...]], ...] = (
    (SMALL, (Step(VcpuCreate(0)), Step(VcpuCreate(1)))),
    (SMALL, _BOTH),
    (SMALL, (*_BOTH, _PRIVATE, _SHARED)),
    (SMALL, (*_BOTH, _SHARED, Step(Access(0, 0x3000 | SHARED, True)))),
    (SMALL, (*_FIRST, Step(VcpuCreate(1)))),
    (SMALL, (*_BOTH, _PRIVATE, Step(InvalidateRoots()))),
    (SMALL, (*_BOTH, _SHARED, Step(InvalidateRoots()))),
    (HUGE, _BOTH),
    (HUGE, (*_BOTH, fault_at(0, False))),
    (HUGE, (*_BOTH, fault_at(0, False), Step(WrprotSlot(0)))),
    (DEEP, _DEEP),
    (PROTECTED, _BOTH),
)
"""(configuration, steps) where races matter: one or two vCPUs, fresh or with something mapped, roots invalid or not."""

RACES: dict[str, Race] = {
    "one private leaf twice": Race(SMALL, _BOTH, _PRIVATE, _OTHER, 1),
    "one private leaf twice, busy": Race(
        SMALL, _BOTH, Step(PageFault(0, 0, True), (Fault("ext_link", -EBUSY, 2),)), _OTHER, 1
    ),
    "one private leaf mapped twice": Race(
        SMALL, (*_BOTH, _PRIVATE, _TO_PRIVATE), Step(TdpMap(0, 0x2000, True, 1)), Step(TdpMap(1, 0x2000, True, 1)), 2
    ),
    "two who zap invalid roots": Race(
        SMALL, (*_BOTH, _SHARED, Step(InvalidateRoots())), Step(ZapInvalidated()), Step(ZapInvalidated()), 1
    ),
    "two private leaves of one new table": Race(SMALL, _BOTH, _PRIVATE, fault_at(1, True, 1), 1),
    "a private fault and a reload": Race(
        SMALL, (*_BOTH, Step(InvalidateRoots())), _PRIVATE, Step(MmuReload(1)), 1
    ),
    "a shared fault and a yielding unmap": Race(
        SMALL, (*_BOTH, fault_at(3, False)), fault_at(2, False),
        Step(Unmap(2, 4, 1), (Fault("resched", 2),)), 1,
    ),
    "a private fault and its conversion": Race(SMALL, _BOTH, _PRIVATE, Step(SetAttributes(0, 4096, 0)), 1),
    "a shared fault and its conversion": Race(SMALL, _BOTH, fault_at(2, False), _TO_PRIVATE, 1),
    "zapping invalid roots and a notifier": Race(
        SMALL, (*_BOTH, fault_at(3, False), Step(InvalidateRoots())), Step(ZapInvalidated()), _EVERYTHING, 1
    ),
    "a yielding zap and a fault": Race(
        SMALL, (*_BOTH, fault_at(3, False)), Step(ZapAllFast(), (Fault("resched", 2),)), fault_at(3, False), 1
    ),
    "the end of a vCPU and a reload": Race(SMALL, _BOTH, Step(VcpuDestroy(0)), Step(MmuReload(1)), 2),
    "two first loads": Race(SMALL, (Step(VcpuCreate(0)), Step(VcpuCreate(1))), Step(MmuReload(0)),
                            Step(MmuReload(1)), 1),
    "a prefault and the end of its slot": Race(SMALL, _BOTH, Step(Prefault(0, 0)), Step(SlotDelete(0)), 1),
    "a violation and the end of its slot": Race(SMALL, _BOTH, Step(EptViolation(0, 0)), Step(SlotDelete(0)), 1),
    "a huge fault and a conversion of its half": Race(
        HUGE, _BOTH, fault_at(2, False), Step(SetAttributes(0x3000, 4096, ATTRIBUTE_PRIVATE)), 1
    ),
    "a huge fault and a conversion of its other half": Race(
        HUGE, _BOTH, fault_at(3, False), _TO_PRIVATE, 1
    ),
    "a split and a notifier": Race(
        HUGE, (*_BOTH, fault_at(0, False), fault_at(2, False)), Step(SplitHuge(0, 0, 4)), _EVERYTHING, 1
    ),
    "a split and write protection": Race(
        HUGE, (*_BOTH, fault_at(0, False), fault_at(2, False)), Step(SplitHuge(0, 0, 4)), Step(WrprotSlot(0)), 1
    ),
    "a split and the fast zap": Race(
        HUGE, (*_BOTH, fault_at(0, False), fault_at(2, False)), Step(SplitHuge(0, 0, 4)), Step(ZapAllFast()), 1
    ),
    "a split and ageing": Race(
        HUGE, (*_BOTH, fault_at(0, False), fault_at(2, False)), Step(SplitHuge(0, 0, 4)), Step(Age(0, 4)), 1
    ),
    "a split and the dirty bits": Race(
        HUGE, (*_BOTH, fault_at(0, False), fault_at(2, False)), Step(SplitHuge(0, 0, 4)), Step(ClearDirtySlot(0)), 1
    ),
    "a split and a fast fault": Race(
        HUGE, (*_BOTH, fault_at(0, False), Step(WrprotSlot(0))), Step(SplitHuge(0, 0, 4)),
        Step(FastFault(0, SHARED, False, True)), 1,
    ),
    "a split and a guest that writes": Race(
        HUGE, (*_BOTH, fault_at(0, False), Step(ClearDirtySlot(0))), Step(SplitHuge(0, 0, 4)),
        Step(Access(0, SHARED, True)), 1,
    ),
    "a huge leaf for a table and a leaf in it": Race(
        HUGE, (*_BOTH, Step(TdpMap(0, SHARED, False, 1))), Step(TdpMap(0, SHARED, False, 2)),
        Step(TdpMap(1, 0x1000 | SHARED, False, 1)), 1,
    ),
    "a huge leaf for a table and write protection": Race(
        HUGE, (*_BOTH, Step(TdpMap(0, SHARED, False, 1))), Step(TdpMap(0, SHARED, False, 2)), Step(WrprotSlot(0)), 1
    ),
    "dirty bits and a notifier": Race(SMALL, (*_BOTH, _SHARED), Step(ClearDirtySlot(1)), _EVERYTHING, 1),
    "write protection and a notifier": Race(SMALL, (*_BOTH, _SHARED), Step(WrprotSlot(1)), _EVERYTHING, 1),
    "a fast fault and write protection": Race(
        HUGE, (*_BOTH, fault_at(0, False), Step(WrprotSlot(0))), Step(FastFault(0, SHARED, False, True)),
        Step(WrprotSlot(0)), 1,
    ),
    "a fast fault and protection for good": Race(
        HUGE, (*_BOTH, fault_at(0, False), Step(WrprotSlot(0))), Step(FastFault(0, SHARED, False, True)),
        Step(WriteProtectGfn(0, 0)), 1,
    ),
    "a fast fault and the fast zap": Race(
        SMALL, (*_BOTH, _SHARED), Step(FastFault(0, 0x3000 | SHARED, False, True)), Step(ZapAllFast()), 1
    ),
    "a yielding notifier and the end of invalid roots": Race(
        SMALL, (*_BOTH, _SHARED, Step(InvalidateRoots()), Step(MmuReload(0)), Step(MmuReload(1))),
        Step(HvaInvalidate(0, 4), (Fault("resched", 2),)), Step(ZapInvalidated()), 1,
    ),
    "a fast fault and a notifier": Race(
        HUGE, (*_BOTH, fault_at(0, False), Step(WrprotSlot(0))), Step(FastFault(0, SHARED, False, True)),
        _EVERYTHING, 1,
    ),
    "ageing and a notifier": Race(SMALL, (*_BOTH, _SHARED), Step(Age(0, 4)), _EVERYTHING, 1),
    "a page added and taken": Race(DEEP, _FIRST, Step(InitRegion(0, 0)), Step(GmemInvalidate(0, 1)), 1),
    "a leaf that no mirror may have and a fault": Race(SMALL, _BOTH, Step(TdpMap(0, 0, True, 2)), _OTHER, 1),
    "a page accepted and taken": Race(DEEP, _DEEP, Step(Accept(1, 0)), Step(GmemInvalidate(0, 1)), 1),
    "two pages added": Race(DEEP, _DEEP, fault_at(1, True), fault_at(1, True, 1), 1),
    "a page added and the TD finalized": Race(DEEP, _FIRST, Step(InitRegion(0, 0)), Step(Finalize()), 1),
}  # fmt: skip
"""The pairs of section 9 and the other races of the sources, each where it matters.

Their schedules with few switches are all tried, in both orders of starting.
"""
