"""Steps of running vCPUs: registers, interrupts, modes, inhibits, posted interrupts."""

from __future__ import annotations

from conformance.model.avic import operations as s
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
    *(s.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (0, 1, 2, 3, 0x11, 0xF1)),
    *(s.GuestWrite(1, APIC_LDR, ldr << 24) for ldr in (1, 2, 0x11)),
    *(s.GuestWrite(i, APIC_DFR, dfr) for i in (0, 1) for dfr in (FLAT, CLUSTER)),
    *(s.GuestWrite(0, APIC_ID, other << 24) for other in (0, 1)),
    s.GuestWrite(0, APIC_SPIV, 0x1FF),
    s.VcpuReset(0),
    *(s.GuestIpi(1, dest, logical=True) for dest in (1, 3, 0x11)),
)
LOGICAL_MORE = steps(
    *(s.GuestWrite(i, APIC_LDR, ldr << 24) for i in (0, 1) for ldr in (0, 1, 2, 3, 0x11, 0x12, 0xF1)),
    *(s.GuestWrite(1, APIC_ID, other << 24) for other in (0, 1)),
    s.GuestWrite(1, APIC_SPIV, 0x1FF),
    *(s.GuestIpi(1, dest, logical=True) for dest in (0, 2, 0x13, 0xFF)),
)

SLEEP = steps(*(op(1) for op in (s.Exit, s.Block, s.Put, s.VmRun, s.GuestEoi)), s.Load(1, 0x21), s.Exit(2), s.Block(2))
IPI = (
    *steps(
        *(s.GuestIpi(0, dest) for dest in (1, 5, 0xFF)),
        *(s.GuestIpi(0, dest, logical=True) for dest in (2, 6, 7, 0xA)),
        *(s.GuestIpi(0, 1, shorthand=kind) for kind in (1, 2, 3)),
        s.GuestIpi(0, 1, defer=True),
        s.GuestIpi(0, 6, logical=True, defer=True),
        s.GuestIpi(0, 1, mode=4),
        s.GuestIpi(0, 1, vector=15),
        s.GuestIpi(0, 1, level=True),
        s.HandleExit(0),
    ),
    *SLEEP,
)
IPI_MORE = steps(
    *(s.GuestIpi(0, dest) for dest in (0, 2)),
    *(s.GuestIpi(0, dest, logical=True) for dest in (1, 3, 0xFF)),
    s.Put(2),
    s.VmRun(2),
    s.Load(2, 0x22),
    s.GuestEoi(2),
)
ERRATUM = (*steps(s.GuestIpi(0, 1), s.GuestIpi(0, 6, logical=True), s.GuestIpi(0, 1, shorthand=3)), *SLEEP)

MODES = steps(
    s.Inhibit(INHIBIT_BLOCKIRQ, True),
    s.Inhibit(INHIBIT_BLOCKIRQ, False),
    s.Inhibit(INHIBIT_IRQWIN, True),
    s.VcpuReset(0),
    s.VcpuReset(0, init=True),
    s.VmcbReinit(0),
    s.SetApicBase(0, X2_ON, host=True),
    s.SetApicBase(0, X2_ON),
    s.SetApicBase(0, ON | 0x1000),
    s.SetApicBase(0, APIC_BASE),
    s.Load(0, 0x123),
    s.Load(0, 0x1000),
    s.Put(0),
    s.Exit(0),
    s.Block(0),
    s.Unblock(0),
    s.SetLapic(0, tpr=0xF0, ldr=1),
    s.SetLapic(0, irr=0x41),
    s.VmRun(0),
    s.Deliver(0, 0x52),
    s.GuestEoi(0),
    s.GuestIpi(1, 0),
    s.GuestWrite(0, APIC_TPR, 0x50),
)

REASONS = steps(
    *(s.Inhibit(reason, on) for reason in TOLD_INHIBITS for on in (True, False)),
    s.SetApicBase(0, ON | 0x1000),
    s.SetApicBase(0, ON),
    *(s.SetApicBase(0, ON | 1 << bit) for bit in (0, 9, 48, 63)),
    s.GuestWrite(0, APIC_ID, 0x05000000),
    s.GuestWrite(0, APIC_ID, 0),
    s.GuestWrite(0, APIC_LDR, 0x02000000),
    s.GuestWrite(0, APIC_LDR, 0x01000000),
)
DERIVED = steps(
    *(s.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (1, 2)),
    *(s.GuestWrite(0, APIC_SPIV, spiv) for spiv in (0xFF, 0x1FF)),
    *(s.GuestWrite(0, APIC_DFR, dfr) for dfr in (CLUSTER, FLAT)),
    s.Exit(0),
    *(s.SetLapic(0, ldr=ldr, spiv=spiv) for ldr in (1, 2) for spiv in (0xFF, 0x1FF)),
    s.SetLapic(0, ldr=1, cluster=True),
    s.VcpuReset(0),
    s.VcpuReset(0, init=True),
    s.VmRun(0),
)
"""Every way to what inhibits are derived from, and away from it."""
X2AVIC = steps(
    *(s.GuestIpi(0, dest) for dest in (1, 17, 5)),
    *(s.GuestIpi(0, dest, logical=True) for dest in (3, 0x10002, 0x10003)),
    s.GuestIpi(0, 1, extra=1 << 31),
    s.GuestIpi(0, 1, shorthand=3),
    s.GuestWrite(0, APIC_LDR, 1),
    s.VcpuReset(1),
    *(op(1) for op in (s.Exit, s.Block)),
    s.Exit(17),
    s.Block(17),
    s.VmRun(17),
    s.Inhibit(INHIBIT_BLOCKIRQ, True),
)
X2AVIC_MORE = steps(
    *(s.GuestIpi(0, dest) for dest in (0xFF, 0xFFFFFFFF)),
    *(s.GuestIpi(0, dest, logical=True) for dest in (2, 0x8)),
    *(s.GuestIpi(0, 1, extra=1 << bit) for bit in RESERVED_BITS),
    s.GuestIpi(0, 3, logical=True, defer=True),
    *(s.GuestSelfIpi(0, value) for value in (0x41, 0x141, 5)),
    s.GuestWrite(0, APIC_TPR, 0x50),
    s.HandleExit(0),
    s.VcpuReset(1, init=True),
    *(op(1) for op in (s.Put, s.VmRun, s.GuestEoi)),
    s.Load(1, 0x21),
    s.Inhibit(INHIBIT_BLOCKIRQ, False),
)
WIDE = steps(
    s.GuestIpi(0, 300), s.GuestIpi(0, 0x12 << 16 | 1 << 12, logical=True), s.Exit(300), s.Block(300), s.VmRun(300)
)

BIG_IDS = steps(
    *(s.GuestWrite(254, APIC_LDR, ldr << 24) for ldr in (0x80, 0xE8)),
    s.GuestWrite(254, APIC_DFR, CLUSTER),
    s.GuestWrite(0, APIC_DFR, CLUSTER),
    *(s.GuestIpi(0, dest, logical=True) for dest in (0x80, 0xE8)),
    *(s.GuestIpi(0, dest) for dest in (128, 254)),
    *(op(i) for i in (254, 128) for op in (s.Exit, s.Block)),
    s.VmRun(254),
)
LAST_BITS = steps(
    *(s.GuestIpi(0, dest, logical=True) for dest in (0x8000, 0x18000, 0x8001, 0x10001)),
    *(s.GuestIpi(0, dest) for dest in (15, 16, 31)),
    *(op(i) for i in (15, 31) for op in (s.Exit, s.Block)),
    s.VmRun(15),
)
POSTED = (
    *steps(
        s.UpdateIrte(0, 0),
        s.UpdateIrte(0, 1),
        s.UpdateIrte(0, -1),
        s.IommuPost(0),
        s.GaLogNotify(0),
        s.GaLogNotify(0xFFFFFFFF),
        s.Load(0, 0x123),
        s.VmRun(0),
        s.Put(0),
        s.Exit(0),
        s.Block(0),
        s.Unblock(0),
        s.GuestEoi(0),
        s.Exit(1),
        s.Block(1),
        s.Put(1),
        s.Load(1, 0x21),
        s.VmRun(1),
        s.Exit(0),
        s.VmDestroy(),
    ),
    *faulty(
        s.UpdateIrte(0, 0),
        ("set_vcpu_affinity", NO_METADATA, 1),
        ("set_vcpu_affinity", NO_METADATA, 2),
    ),
)

LEVEL = steps(
    s.Deliver(0, 0x41, level=True),
    s.Deliver(0, 0x41),
    s.Deliver(0, 0x52),
    s.Deliver(1, 0x41),
    s.GuestEoi(0),
    s.GuestWrite(0, APIC_TPR, 0x40),
    s.GuestWrite(0, APIC_TPR, 0x50),
    s.GuestWrite(0, APIC_TPR, 0),
    s.GuestIpi(1, 0, level=True),
    s.GuestIpi(1, 0),
    s.Inhibit(INHIBIT_BLOCKIRQ, True),
    s.Inhibit(INHIBIT_BLOCKIRQ, False),
    s.Put(0),
    s.Load(0, 0x20),
    s.VmRun(0),
)

ACCESSES = (
    *steps(*(s.GuestWrite(0, offset, value) for offset, values in WRITES.items() for value in values)),
    *steps(*(s.GuestRead(0, offset) for offset in (0x80, 0x90, 0x390, 0x400, 0x480))),
    *steps(
        *(
            s.RawIpiExit(0, info1, identifier << 32 | index)
            for identifier in (0, 1, 2, 3, 4, 5, 6, 8, 0x101, 0x80000002)
            for info1 in (0x41, 1 << 56 | 0x41, 0xFF00000000000841, 0xC0041, 2**64 - 1)
            for index in (0, 255, 4095)
        ),
        *(
            s.RawNoaccel(0, write << 32 | offset, 0xFF)
            for write in (0, 1)
            for offset in (0x20, 0xD0, 0x40, 0x540, 0xFF0)
        ),
    ),
)
SLEEPER = steps(
    *(op(1) for op in (s.Exit, s.Block, s.Put, s.Unblock, s.VmRun)),
    s.Load(1, 0x31),
    s.Load(1, 0x1000),
    s.GuestIpi(0, 1),
    s.Deliver(1),
)

SPELLED = steps(
    *(s.GuestWrite(0, APIC_DFR, dfr) for dfr in (0xF0000000, FLAT, CLUSTER)),
    *(s.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (1, 4, 0x10)),
    s.GuestIpi(1, 4, logical=True),
)
"""DFR whose low bits the guest leaves 0: flat all the same."""
UNNAMED = steps(
    s.GuestWrite(1, APIC_LDR, 0),
    *(op(1) for op in (s.Exit, s.Block)),
    s.GuestIpi(0, 0xFF, logical=True),
    s.GuestIpi(0, 0xFF),
)
"""Broadcasts to who has no logical id."""
HYBRID = steps(
    s.SetApicBase(0, X2_ON),
    *(op(1) for op in (s.Exit, s.Block, s.VmRun)),
    *(s.GuestIpi(0, dest) for dest in (1, 0xFFFFFFFF)),
    s.GuestIpi(0, 0, shorthand=3),
    s.GuestIpi(1, 0),
    s.GuestWrite(1, APIC_SPIV, 0x1FF),
)
"""An x2APIC among xAPICs that have no logical id, so that nothing inhibits AVIC."""
POSTED_WIDE = steps(
    *(s.UpdateIrte(0, i) for i in (1, 257)),
    *(op(i) for i in (1, 257) for op in (s.Exit, s.Block)),
    s.IommuPost(0),
    s.VmRun(257),
)
RESTORED = steps(
    s.Exit(0),
    s.SetLapic(0, irr=0x52, isr=0x41, level=True, ldr=1),
    s.SetLapic(0, irr=0x45, isr=0x41, ldr=1),
    s.SetLapic(0, isr=0x61, ldr=1, rest=True),
    s.SetLapic(0, ldr=1, xid=7),
    s.VmRun(0),
    s.GuestEoi(0),
    s.Deliver(0, 0x52),
    s.Inhibit(INHIBIT_BLOCKIRQ, True),
    s.Inhibit(INHIBIT_BLOCKIRQ, False),
)
DISABLED_APIC = steps(
    s.SetApicBase(1, APIC_BASE),
    *(op(1) for op in (s.Exit, s.VmRun, s.Put)),
    s.SetApicBase(1, APIC_BASE, host=True),
    s.Load(1, 0x21),
    *(s.GuestIpi(0, dest) for dest in (1, 0xFF)),
    s.GuestIpi(0, 2, logical=True),
    s.GuestIpi(0, 1, mode=4),
    s.VcpuReset(1),
)
HELD_BACK = steps(
    s.GuestWrite(0, APIC_TPR, 0x50),
    s.Deliver(0, 0x41),
    s.Deliver(0, 0x62),
    s.Inhibit(INHIBIT_BLOCKIRQ, True),
    s.Inhibit(INHIBIT_BLOCKIRQ, False),
    s.GuestWrite(0, APIC_TPR, 0),
    s.GuestEoi(0),
)
SOFTWARE = (
    *steps(
        s.SetLapic(0, irr=0x41, ldr=1),
        s.SetLapic(0, tpr=0x50, irr=0x41),
        s.Deliver(0, 0x52, level=True),
        *(s.GetLapic(0, offset) for offset in (APIC_TPR, 0x220, 0x120, 0x1A0)),
        s.Enter(0),
        s.VcpuReset(0),
        *(s.UpdateIrte(0, i) for i in (0, 1, -1)),
        s.Inhibit(INHIBIT_BLOCKIRQ, True),
        s.Inhibit(INHIBIT_BLOCKIRQ, False),
        s.VcpuFree(1),
    ),
)
"""A VM with an in-kernel APIC, and AVIC off."""
SOFTWARE_DISABLED = steps(
    s.GuestWrite(1, APIC_SPIV, 0xFF),
    s.GuestWrite(1, APIC_SPIV, 0x1FF),
    s.Inhibit(INHIBIT_BLOCKIRQ, True),
    s.GuestIpi(0, 3, logical=True, mode=1),
    s.GuestWrite(0, APIC_SPIV, 0xFF),
    s.GuestIpi(1, 3, logical=True, mode=1),
    s.GuestIpi(0, 2, logical=True, mode=4),
    s.GuestIpi(0, 2, logical=True),
    s.GuestIpi(0, 1, mode=4),
)
CHANGES_MODE = steps(
    s.GuestWrite(1, APIC_LDR, 0),
    s.SetApicBase(0, X2_ON),
    s.GuestIpi(1, 1, logical=True),
    s.VcpuReset(0),
    s.Exit(0),
    s.VmRun(0),
)
MOVED = steps(
    *(op(i) for i in (0, 1) for op in (s.Put, s.VmRun)),
    *(s.Load(i, core) for i in (0, 1) for core in (0x20, 0x21)),
    s.GuestIpi(0, 1),
)
"""Two vCPUs that change cores; what a core held of the other shows at VMRUN."""
