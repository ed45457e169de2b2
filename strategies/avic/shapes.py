"""The shape of each operation."""

from __future__ import annotations

from typing import Any

from conformance.model.avic import operations as s
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    APIC_SPIV,
    APIC_TPR,
    BASE_EXTD,
    CLUSTER,
    CPUID_NP,
    CPUID_X2AVIC,
    CPUID_X2AVIC_EXT,
    EEXIST,
    ENOMEM,
    FLAT,
    INHIBIT_BLOCKIRQ,
    INHIBIT_IRQWIN,
    NO_METADATA,
    TOLD_INHIBITS,
)
from conformance.strategies.avic.domains import (
    DELIVERED,
    DESTINATIONS,
    HOST_IDS,
    IDS,
    LDRS,
    MESSAGES,
    NEW_IDS,
    ON,
    RESERVED_BITS,
    ROUTED,
    SCRIPTS,
    SPIVS,
    TPRS,
    VECTORS,
    WRITES,
    X2_ON,
    X2AVIC_HOST,
    XAVIC_HOST,
)
from conformance.strategies.domain import BOOLEAN, Domain, Shape

_NO_MEMORY = ("alloc_page", (-ENOMEM,))
_CREATION = (
    _NO_MEMORY,
    ("kzalloc", (-ENOMEM,)),
    ("alloc_vmcb", (-ENOMEM,)),
    ("set_memory_region", (-ENOMEM, -EEXIST)),
    ("gfn_to_page", (-ENOMEM,)),
)
_SENDERS = (s.GuestIpi, s.Deliver)
_MESSAGES = (s.GuestIpi, s.Deliver, s.IommuPost)
_EVENTS = (s.GuestIpi, s.Deliver, s.GuestEoi, s.Inhibit, s.Put, s.VmRun)


def _all(**fields: Domain[Any]) -> dict[str, Domain[object]]:
    return dict(fields)


SHAPES: dict[type, Shape] = {
    s.Route: Shape(_all(apics=ROUTED, message=MESSAGES), weight=2),
    s.SignalMsi: Shape(_all(apics=ROUTED, message=MESSAGES), weight=2),
    s.Irqfds: Shape(_all(acts=SCRIPTS), weight=2),
    s.HwSetup: Shape(
        _all(
            edx=Domain((XAVIC_HOST, X2AVIC_HOST), (1 << CPUID_NP, 1 << CPUID_NP | 1 << CPUID_X2AVIC, 0)),
            ecx=Domain((0,), (1 << CPUID_X2AVIC_EXT, 1 << 5, 1 << 7)),
            npt=Domain((True,), (False,)),
            family=Domain((0x19,), (0x17, 0x18, 0x1A, 0x1B, 0x16)),
            zen4=BOOLEAN,
            snp=Domain((False,), (True,)),
            hv_inuse_wr=BOOLEAN,
            avic=Domain((1, -1, 0), (7,)),
            force=Domain((False,), (True,)),
            ipiv=Domain((True,), (False,)),
        ),
        weight=0.5,
    ),
    s.HwUnsetup: Shape({}, weight=0.2),
    s.VmCreate: Shape(
        _all(
            vm=Domain((0, 1)),
            irqchip=Domain((True,), (False,), usual=0.9),
            max_vcpu_ids=Domain((4096,), (2, 255, 256, 512, 513), usual=0.9),
            abandoned=Domain((False,), (True,), usual=0.9),
        ),
        faults=(_NO_MEMORY, ("kzalloc", (-ENOMEM,))),
        deepest=3,
        weight=0.6,
        beside=(s.VmCreate,),
    ),
    s.VmDestroy: Shape(
        _all(vm=Domain((0, 1))),
        weight=0.15,
        interrupts=(s.GaLogNotify, s.IommuPost),
        beside=(s.IommuPost, s.GaLogNotify, s.VcpuCreate),
        points=40,
    ),
    s.VmTag: Shape(_all(vm=Domain((0, 1))), weight=0.4),
    s.VcpuCreate: Shape(
        _all(id=NEW_IDS, vm=Domain((0,), (1,)), abandoned=Domain((False,), (True,), usual=0.9)),
        faults=_CREATION,
        deepest=3,
        weight=1,
        beside=(s.VcpuCreate, s.GuestIpi, s.Inhibit, s.Enter),
        points=40,
    ),
    s.TagsPass: Shape(_all(next=Domain((1, 0xFFFFF), (0xFFFFE, 0, 2, 0xFFFFFFFF))), weight=0.2),
    s.VcpuFree: Shape(_all(id=NEW_IDS, vm=Domain((0,), (1,))), weight=0.3),
    s.VcpuReset: Shape(_all(id=IDS, init=BOOLEAN), weight=0.6),
    s.VmcbReinit: Shape(_all(id=IDS), weight=0.3),
    s.Enter: Shape(_all(id=IDS, tpr=Domain((-1, 0x20, 0), (0x40, 0xFF)), vm=Domain((0,), (1,))), weight=0.6),
    s.SetLapic: Shape(
        _all(
            id=IDS,
            tpr=TPRS,
            ldr=LDRS,
            cluster=Domain((False,), (True,)),
            spiv=SPIVS,
            irr=Domain((0, 0x41), (0x20, 0x52, 0xF0)),
            isr=Domain((0, 0x41), (0x20, 0x52, 0xF0), usual=0.9),
            level=BOOLEAN,
            rest=Domain((False,), (True,), usual=0.7),
            xid=Domain((-1,), (0, 1, 7), usual=0.9),
        ),
        weight=0.6,
    ),
    s.GetLapic: Shape(
        _all(
            id=IDS,
            offset=Domain(
                (APIC_TPR, APIC_LDR, APIC_SPIV, 0x220), (APIC_ID, APIC_DFR, 0x120, 0x300, 0x320, 0x380, 0x3E0)
            ),
        ),
        weight=0.4,
    ),
    s.HwapicUpdate: Shape(_all(id=IDS, irr=VECTORS, isr=VECTORS), weight=0.2),
    s.MemoryPressure: Shape({}, weight=0.2),
    s.GuestStore: Shape(_all(page=Domain((1, 2), (255,))), weight=0.2),
    s.UserStore: Shape(_all(page=Domain((0, 1), (2,))), weight=0.2),
    s.SetApicBase: Shape(
        _all(
            id=IDS,
            value=Domain(
                (ON, X2_ON),
                (APIC_BASE, APIC_BASE | 1 << BASE_EXTD, ON | 0x1000, ON | 1, ON | 0x100, ON | 1 << 50)
                + (ON | 0x200, ON | 1 << 47, ON | 1 << 48, ON | 1 << 63),
            ),
            host=BOOLEAN,
        ),
        weight=0.25,
    ),
    s.Load: Shape(
        _all(id=IDS, host_id=HOST_IDS),
        weight=1.5,
        interrupts=_SENDERS,
        beside=(*_MESSAGES, s.UpdateIrte),
        points=12,
    ),
    s.Put: Shape(_all(id=IDS), weight=1, interrupts=_SENDERS, beside=(*_MESSAGES, s.UpdateIrte), points=12),
    s.Exit: Shape(_all(id=IDS), weight=1.5),
    s.Block: Shape(_all(id=IDS), weight=1.5, interrupts=_SENDERS, beside=(*_MESSAGES, s.UpdateIrte), points=64),
    s.Unblock: Shape(_all(id=IDS), weight=0.4, interrupts=_SENDERS, beside=(*_MESSAGES, s.UpdateIrte), points=12),
    s.VmRun: Shape(_all(id=IDS), weight=2.5, beside=_MESSAGES, points=40),
    s.GuestIpi: Shape(
        _all(
            id=IDS,
            dest=DESTINATIONS,
            logical=BOOLEAN,
            shorthand=Domain((0, 0, 2, 3), (1,)),
            mode=Domain((0,), (4, 1, 5, 6, 2, 3, 7), usual=0.85),
            vector=VECTORS,
            level=Domain((False,), (True,), usual=0.93),
            asserted=Domain((True,), (False,), usual=0.9),
            extra=Domain((0,), (1 << 12, *(1 << bit for bit in RESERVED_BITS)), usual=0.95),
            defer=Domain((False,), (True,), usual=0.85),
        ),
        weight=5,
        interrupts=_EVENTS,
        beside=(s.GuestIpi,),
        points=40,
    ),
    s.GuestSelfIpi: Shape(_all(id=IDS, value=Domain((0x41, 0x52), (0, 15, 0x100, 0x141))), weight=0.3),
    s.GuestWrite: Shape(
        _all(
            id=IDS,
            offset=Domain((APIC_LDR, APIC_TPR, APIC_DFR, APIC_SPIV, APIC_ID), tuple(WRITES), usual=0.75),
            value=Domain(
                (0, 0x01000000, 0x02000000, 0x1FF, FLAT),
                (0x11000000, CLUSTER, 0x50, 0x03000000, 0x10000, 5, 0xFFF900EF),
                (0, 0xFFFFFFFF),
            ),
        ),
        weight=2,
        beside=(s.GuestIpi, s.Deliver, s.GuestWrite),
        points=40,
    ),
    s.GuestRead: Shape(_all(id=IDS, offset=Domain((0x90, 0x390, 0x80), (0x400, 0x480, 0x20))), weight=0.2),
    s.GuestEoi: Shape(_all(id=IDS), weight=2, beside=_MESSAGES, points=24),
    s.HandleExit: Shape(_all(id=IDS), weight=2),
    s.RawIpiExit: Shape(
        _all(
            id=IDS,
            info1=Domain((0x41, 1 << 56 | 0x41), (0xC0041, 0x01000841, 0xFF00000000000041, 0x80041, 2**64 - 1, 0)),
            info2=Domain(
                (1 << 32, 3 << 32),
                (0, 2 << 32, 4 << 32, 5 << 32, 6 << 32, 1 << 32 | 0xFFF, 1 << 32 | 255, 2**64 - 1)
                + tuple(identifier << 32 for identifier in (7, 8, 9, 0x10, 0x100, 0x80000000)),
            ),
        ),
        weight=0.4,
    ),
    s.RawNoaccel: Shape(
        _all(
            id=IDS,
            info1=Domain((1 << 32 | 0xD0, 0x90), (1 << 32 | 0xFF0, 0x540, 0xD0, 1 << 32 | 0x540, 1 << 32 | 0x20)),
            info2=Domain((0,), (0xFF, 2**64 - 1)),
        ),
        weight=0.3,
    ),
    s.Deliver: Shape(
        _all(id=IDS, vector=DELIVERED, level=BOOLEAN),
        weight=2.5,
        interrupts=(s.Block, s.VmRun, s.Inhibit),
        beside=_MESSAGES,
        points=24,
    ),
    s.Inhibit: Shape(
        _all(reason=Domain((INHIBIT_BLOCKIRQ, INHIBIT_IRQWIN), TOLD_INHIBITS), on=BOOLEAN),
        weight=0.8,
        interrupts=_SENDERS,
        beside=(*_MESSAGES, s.UpdateIrte, s.Load, s.Put, s.Block, s.VmRun, s.VcpuReset, s.Inhibit),
        points=40,
    ),
    s.UpdateIrte: Shape(
        _all(irq=Domain((0, 1)), id=Domain((0, 1, -1), (2,)), vector=Domain((0x51, 0x61))),
        weight=0.8,
        faults=(("set_vcpu_affinity", (NO_METADATA,)),),
        deepest=2,
    ),
    s.IommuPost: Shape(_all(irq=Domain((0, 1))), weight=0.8),
    s.GaLogNotify: Shape(_all(tag=Domain((0, 0xFFFFFFFF))), weight=0.2),
    s.HpaField: Shape(
        _all(address=Domain((0x12345000, 0x8010000012345ABC), (0, 0xFFF, 2**52 - 1, 2**64 - 1), (0, 2**64 - 1))),
        weight=0.2,
    ),
    s.LogicalIndex: Shape(
        _all(ldr=Domain((1, 2, 0x11), (0, 3, 0x80, 0xF1), (0, 255)), dfr=Domain((FLAT, CLUSTER))), weight=0.3
    ),
    s.PhysIndex: Shape(_all(index=Domain((0, 1, 254, 255, -1), (256, 511, -(2**31)), (-512, 4096))), weight=0.2),
    s.TagRoundTrip: Shape(
        _all(
            vm_tag=Domain((1, 2), (0xFFFFF, 0x80000), (1, 0xFFFFF)),
            index=Domain((0, 1), (255, 256, 511, 4095), (0, 4095)),
        ),
        weight=0.2,
    ),
    s.X2Ldr: Shape(_all(id=Domain((0, 1, 17), (15, 16, 255, 256, 4095), (0, 4095))), weight=0.2),
    s.Ppr: Shape(
        _all(tpr=Domain((0, 0x10, 0x4F), (0xFF,), (0, 255)), isrv=Domain((0, 0x41, 0x10), (0xFF,), (0, 255))),
        weight=0.2,
    ),
}
