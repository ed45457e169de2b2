"""Steps of running vCPUs: registers, interrupts, modes, inhibits, posted interrupts."""

from __future__ import annotations

from conformance.model.avic import operations as o
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    APIC_SPIV,
    APIC_TPR,
    CLUSTER,
    FLAT,
    INHIBIT_BLOCKIRQ,
    INHIBIT_IRQWIN,
    NO_METADATA,
    TOLD_INHIBITS,
)
from conformance.strategies.avic.domains import ON, RESERVED_BITS, WRITES, X2_ON, faulty, steps

LOGICAL = steps(
    *(o.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (0, 1, 2, 3, 0x11, 0xF1)),
    *(o.GuestWrite(1, APIC_LDR, ldr << 24) for ldr in (1, 2, 0x11)),
    *(o.GuestWrite(i, APIC_DFR, dfr) for i in (0, 1) for dfr in (FLAT, CLUSTER)),
    *(o.GuestWrite(0, APIC_ID, other << 24) for other in (0, 1)),
    o.GuestWrite(0, APIC_SPIV, 0x1FF),
    o.VcpuReset(0),
    *(o.GuestIpi(1, dest, logical=True) for dest in (1, 3, 0x11)),
)
LOGICAL_MORE = steps(
    *(o.GuestWrite(i, APIC_LDR, ldr << 24) for i in (0, 1) for ldr in (0, 1, 2, 3, 0x11, 0x12, 0xF1)),
    *(o.GuestWrite(1, APIC_ID, other << 24) for other in (0, 1)),
    o.GuestWrite(1, APIC_SPIV, 0x1FF),
    *(o.GuestIpi(1, dest, logical=True) for dest in (0, 2, 0x13, 0xFF)),
)

SLEEP = steps(*(op(1) for op in (o.Exit, o.Block, o.Put, o.VmRun, o.GuestEoi)), o.Load(1, 0x21), o.Exit(2), o.Block(2))
IPI = (
    *steps(
        *(o.GuestIpi(0, dest) for dest in (1, 5, 0xFF)),
        *(o.GuestIpi(0, dest, logical=True) for dest in (2, 6, 0xA)),
        *(o.GuestIpi(0, 1, shorthand=kind) for kind in (1, 2, 3)),
        o.GuestIpi(0, 1, defer=True),
        o.GuestIpi(0, 6, logical=True, defer=True),
        o.GuestIpi(0, 1, mode=4),
        o.GuestIpi(0, 1, vector=15),
        o.GuestIpi(0, 1, level=True),
        o.HandleExit(0),
    ),
    *SLEEP,
)
IPI_MORE = steps(
    *(o.GuestIpi(0, dest) for dest in (0, 2)),
    *(o.GuestIpi(0, dest, logical=True) for dest in (1, 3, 0xFF)),
    o.Put(2),
    o.VmRun(2),
    o.Load(2, 0x22),
    o.GuestEoi(2),
)
ERRATUM = (*steps(o.GuestIpi(0, 1), o.GuestIpi(0, 6, logical=True), o.GuestIpi(0, 1, shorthand=3)), *SLEEP)

MODES = steps(
    o.Inhibit(INHIBIT_BLOCKIRQ, True),
    o.Inhibit(INHIBIT_BLOCKIRQ, False),
    o.Inhibit(INHIBIT_IRQWIN, True),
    o.VcpuReset(0),
    o.VcpuReset(0, init=True),
    o.VmcbReinit(0),
    o.SetApicBase(0, X2_ON, host=True),
    o.SetApicBase(0, X2_ON),
    o.SetApicBase(0, ON | 0x1000),
    o.SetApicBase(0, APIC_BASE),
    o.Load(0, 0x123),
    o.Load(0, 0x1000),
    o.Put(0),
    o.Exit(0),
    o.Block(0),
    o.Unblock(0),
    o.SetLapic(0, tpr=0xF0, ldr=1),
    o.SetLapic(0, irr=0x41),
    o.VmRun(0),
    o.Deliver(0, 0x52),
    o.GuestEoi(0),
    o.GuestIpi(1, 0),
    o.GuestWrite(0, APIC_TPR, 0x50),
)

REASONS = steps(
    *(o.Inhibit(reason, on) for reason in TOLD_INHIBITS for on in (True, False)),
    o.SetApicBase(0, ON | 0x1000),
    o.SetApicBase(0, ON),
    *(o.SetApicBase(0, ON | 1 << bit) for bit in (0, 9, 48, 63)),
    o.GuestWrite(0, APIC_ID, 0x05000000),
    o.GuestWrite(0, APIC_ID, 0),
    o.GuestWrite(0, APIC_LDR, 0x02000000),
    o.GuestWrite(0, APIC_LDR, 0x01000000),
)
X2AVIC = steps(
    *(o.GuestIpi(0, dest) for dest in (1, 17, 5)),
    *(o.GuestIpi(0, dest, logical=True) for dest in (3, 0x10002, 0x10003)),
    o.GuestIpi(0, 1, extra=1 << 31),
    o.GuestIpi(0, 1, shorthand=3),
    o.GuestWrite(0, APIC_LDR, 1),
    o.VcpuReset(1),
    *(op(1) for op in (o.Exit, o.Block)),
    o.Exit(17),
    o.Block(17),
    o.VmRun(17),
    o.Inhibit(INHIBIT_BLOCKIRQ, True),
)
X2AVIC_MORE = steps(
    *(o.GuestIpi(0, dest) for dest in (0xFF, 0xFFFFFFFF)),
    *(o.GuestIpi(0, dest, logical=True) for dest in (2, 0x8)),
    *(o.GuestIpi(0, 1, extra=1 << bit) for bit in RESERVED_BITS),
    o.GuestIpi(0, 3, logical=True, defer=True),
    o.GuestSelfIpi(0, 0x41),
    o.GuestSelfIpi(0, 0x141),
    o.GuestWrite(0, APIC_TPR, 0x50),
    o.HandleExit(0),
    o.VcpuReset(1, init=True),
    *(op(1) for op in (o.Put, o.VmRun, o.GuestEoi)),
    o.Load(1, 0x21),
    o.Inhibit(INHIBIT_BLOCKIRQ, False),
)
WIDE = steps(
    o.GuestIpi(0, 300), o.GuestIpi(0, 0x12 << 16 | 1 << 12, logical=True), o.Exit(300), o.Block(300), o.VmRun(300)
)

BIG_IDS = steps(
    *(o.GuestWrite(254, APIC_LDR, ldr << 24) for ldr in (0x80, 0xE8)),
    o.GuestWrite(254, APIC_DFR, CLUSTER),
    o.GuestWrite(0, APIC_DFR, CLUSTER),
    *(o.GuestIpi(0, dest, logical=True) for dest in (0x80, 0xE8)),
    *(o.GuestIpi(0, dest) for dest in (128, 254)),
    *(op(i) for i in (254, 128) for op in (o.Exit, o.Block)),
    o.VmRun(254),
)
LAST_BITS = steps(
    *(o.GuestIpi(0, dest, logical=True) for dest in (0x8000, 0x18000, 0x8001, 0x10001)),
    *(o.GuestIpi(0, dest) for dest in (15, 16, 31)),
    *(op(i) for i in (15, 31) for op in (o.Exit, o.Block)),
    o.VmRun(15),
)
POSTED = (
    *steps(
        o.UpdateIrte(0, 0),
        o.UpdateIrte(0, 1),
        o.UpdateIrte(0, -1),
        o.IommuPost(0),
        o.GaLogNotify(0),
        o.GaLogNotify(0xFFFFFFFF),
        o.Load(0, 0x123),
        o.VmRun(0),
        o.Put(0),
        o.Exit(0),
        o.Block(0),
        o.Unblock(0),
        o.GuestEoi(0),
        o.Exit(1),
        o.Block(1),
        o.Put(1),
        o.Load(1, 0x21),
        o.VmRun(1),
        o.Exit(0),
        o.VmDestroy(),
    ),
    *faulty(
        o.UpdateIrte(0, 0),
        ("set_vcpu_affinity", NO_METADATA, 1),
        ("set_vcpu_affinity", NO_METADATA, 2),
    ),
)

LEVEL = steps(
    o.Deliver(0, 0x41, level=True),
    o.Deliver(0, 0x41),
    o.Deliver(0, 0x52),
    o.Deliver(1, 0x41),
    o.GuestEoi(0),
    o.GuestWrite(0, APIC_TPR, 0x40),
    o.GuestWrite(0, APIC_TPR, 0x50),
    o.GuestWrite(0, APIC_TPR, 0),
    o.GuestIpi(1, 0, level=True),
    o.GuestIpi(1, 0),
    o.Inhibit(INHIBIT_BLOCKIRQ, True),
    o.Inhibit(INHIBIT_BLOCKIRQ, False),
    o.Put(0),
    o.Load(0, 0x20),
    o.VmRun(0),
)

ACCESSES = (
    *steps(*(o.GuestWrite(0, offset, value) for offset, values in WRITES.items() for value in values)),
    *steps(*(o.GuestRead(0, offset) for offset in (0x80, 0x90, 0x390, 0x400, 0x480))),
    *steps(
        *(
            o.RawIpiExit(0, info1, identifier << 32 | index)
            for identifier in (0, 1, 2, 3, 4, 5, 6, 8, 0x101, 0x80000002)
            for info1 in (0x41, 1 << 56 | 0x41, 0xFF00000000000841, 0xC0041, 2**64 - 1)
            for index in (0, 255, 4095)
        ),
        *(
            o.RawNoaccel(0, write << 32 | offset, 0xFF)
            for write in (0, 1)
            for offset in (0x20, 0xD0, 0x40, 0x540, 0xFF0)
        ),
    ),
)
SLEEPER = steps(
    *(op(1) for op in (o.Exit, o.Block, o.Put, o.Unblock, o.VmRun)), o.Load(1, 0x31), o.GuestIpi(0, 1), o.Deliver(1)
)
