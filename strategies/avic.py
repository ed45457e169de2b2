"""What may happen to an AVIC driver and to a router, simplest first."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

from hypothesis import strategies as st

from conformance.model.avic import Config, State
from conformance.model.avic import operations as o
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, Message, x2_ldr
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.avic import Profile
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    APIC_LVT0,
    APIC_LVTT,
    APIC_RRR,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TPR,
    BASE_AE,
    BASE_EXTD,
    CLUSTER,
    CPUID_AVIC,
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
from conformance.strategies.domain import BOOLEAN, Domain, Race, Scope, Shape

XAVIC_HOST = 1 << CPUID_NP | 1 << CPUID_AVIC
X2AVIC_HOST = XAVIC_HOST | 1 << CPUID_X2AVIC
ON = APIC_BASE | 1 << BASE_AE
X2_ON = ON | 1 << BASE_EXTD

RUNNING = Config(vcpus=(0, 1), running=True, enabled=True)
THREE = Config(vcpus=(0, 1, 2), running=True, enabled=True)
RESET = Config(vcpus=(0, 1), running=True)
"""Two running vCPUs with reset values: software-disabled, without logical ids."""
X2 = Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST)

CONFIGS = (
    RUNNING,
    Config(),
    Config(vcpus=(0, 1)),
    THREE,
    RESET,
    X2,
    Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True),
    Config(vcpus=(0, 1), running=True, enabled=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 1, 2), running=True, enabled=True, family=0x17, stale_running=True),
    Config(vcpus=(0, 1), running=True, enabled=True, ipiv=False),
    Config(vcpus=(0, 1), tagged=True),
    Config(vcpus=(0, 1), running=True, enabled=True, tagged=True),
    Config(vcpus=(0, 1, 2), running=True, enabled=True, busy_sticky=True, eoi_cleared=True, last_index=True),
    Config(vcpus=(0, 1), running=True, checks_spiv=True, clears_tmr=True, nonfixed_is_invalid_target=True),
    Config(vcpus=(0, 1), running=True, enabled=True, narrow_host_ids=True),
    Config(vcpus=(0,)),
    Config(vcpus=(0, 1), running=True, enabled=True, max_vcpu_ids=2),
    Config(vcpus=(0, 15, 31), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 128, 254), running=True, enabled=True),
    Config(avic=0),
    Config(vcpus=(0, 1), irqchip=False),
    Config(vcpus=(0, 1), avic=0),
    Config(next_tag=0xFFFFF),
    Config(next_tag=0xFFFFFFFF),
    Config(edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),
    Config(vcpus=(0, 255, 256), edx=X2AVIC_HOST),
    Config(vcpus=(0, 1, 300), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),
)

IDS = Domain((0, 1, 2), (17, 255, 256, 300, 15, 31, 128, 254), usual=0.9)
NEW_IDS = Domain((0, 1, 2), (255, 254, 17, 256, 300, 511, 512, 4095, 4096, 7), usual=0.75)
VECTORS = Domain((0x41, 0x52, 0x30), (0, 15, 16, 31, 32, 0xF0, 0xFE, 0xFF), usual=0.85)
DELIVERED = Domain((0x41, 0x52, 0x30), (16, 32, 0xF0, 0xFF))
LDRS = Domain((0, 1, 2, 4, 3, 0x11, 0x12), (8, 0x80, 0xFF, 0x10, 0x18, 0x1F, 0xE8, 0xF0, 0xF1))
DESTINATIONS = Domain(
    (1, 0, 2, 3, 0xFF),
    (4, 0x11, 0x12, 0x13, 0x80, 0xFE, 0x100, 0xFFFF, 0x10000, 0x10002, 0xF8000, 0x100001, 0xFFFFFFFF, 0x20002, 17)
    + (0x01000001, 0x01010001, 0xFFFF0001),
    usual=0.75,
)
HOST_IDS = Domain((0x20, 0x21, 0x22, 0x123), (0, 0xFE, 0xFF, 0x100, 0xFFE, 0xFFF, 0x1000), usual=0.7)
TPRS = Domain((0, 0x40, 0x50, 0xFF), (0x0F, 0x10, 0x3F, 0x4F, 0x51))
SPIVS = Domain((0x1FF, 0xFF), (0x13F, 0x3FF, 0x2FF))

WRITES: dict[int, tuple[int, ...]] = {
    APIC_TPR: (0, 0x40, 0x50, 0xFF),
    APIC_SPIV: (0x1FF, 0xFF, 0x7FF, 0x2FF),
    APIC_LDR: (0, 0x01000000, 0x02000000, 0x03000000, 0x11000000, 0x12000000, 0xF1000000, 0x04ABCDEF, 0x10000000),
    APIC_DFR: (FLAT, CLUSTER, 0, 0xF0000000),
    APIC_ID: (0, 0x01000000, 0x02000000, 0x05ABCDEF),
    APIC_LVTT: (0x10000, 0x100EF),
    APIC_LVT0: (0x10000,),
    APIC_TDCR: (0, 0xB, 0xFFFFFFFF),
    APIC_RRR: (0, 0xFFFFFFFF),
    0x280: (0, 1),
    0x330: (0x100FE,),
    0x380: (0, 1000),
    0x030: (0,),
    0x0A0: (0xFF,),
    0x100: (0xFFFFFFFF,),
    0x210: (0xFFFFFFFF,),
    0x390: (5,),
    0x400: (1,),
    0x480: (0,),
    0x500: (0,),
}
"""What guests write, by offset."""


def guest_writes() -> st.SearchStrategy[o.GuestWrite]:
    """Registers of every class with the values that matter to them."""
    pairs = [(offset, value) for offset, values in WRITES.items() for value in values]
    return st.builds(
        lambda apic_id, pair: o.GuestWrite(apic_id, *pair), st.sampled_from(IDS.values), st.sampled_from(pairs)
    )


APICS: tuple[tuple[Apic, ...], ...] = (
    (Apic(0, ldr=1 << 24), Apic(1, ldr=2 << 24)),
    (Apic(0, ldr=1 << 24), Apic(1, ldr=2 << 24), Apic(2, spiv=0xFF, ldr=4 << 24)),
    (Apic(0, ldr=0x11 << 24, dfr=CLUSTER), Apic(1, ldr=0x12 << 24, dfr=CLUSTER), Apic(2, ldr=0x21 << 24, dfr=CLUSTER)),
    tuple(Apic(i, X2APIC, ldr=x2_ldr(i)) for i in (0, 1, 17)),
    (Apic(0, ldr=1 << 24), Apic(1, X2APIC, ldr=x2_ldr(1)), Apic(16, X2APIC, ldr=x2_ldr(16)), Apic(3)),
    (Apic(0, ldr=1 << 24), Apic(1, DISABLED), Apic(2, ldr=3 << 24), Apic(3, spiv=0xFF, ldr=1 << 24)),
    (Apic(0, ldr=1 << 24), Apic(1, ldr=0x11 << 24, dfr=CLUSTER), Apic(2), Apic(255, X2APIC, ldr=x2_ldr(255))),
    (Apic(0), Apic(256), Apic(300, ldr=8 << 24), Apic(44, ldr=4 << 24)),
    (Apic(0), Apic(256, X2APIC, ldr=x2_ldr(256)), Apic(300, X2APIC, ldr=x2_ldr(300)), Apic(2, ldr=0)),
    (Apic(0, ldr=1 << 24, xid=1), Apic(1, ldr=2 << 24), Apic(2, ldr=4 << 24, dfr=0x5FFFFFFF)),
    (Apic(1, X2APIC, ldr=x2_ldr(1)), Apic(2, xid=2), Apic(3, X2APIC, spiv=0xFF, ldr=x2_ldr(3))),
    (Apic(0, ldr=0xF1 << 24, dfr=CLUSTER), Apic(1, ldr=0xF2 << 24, dfr=CLUSTER)),
    (Apic(0, spiv=0x2FF, ldr=1 << 24), Apic(1, spiv=0x100, ldr=2 << 24), Apic(2, spiv=0, ldr=4 << 24)),
    (Apic(0, xid=1), Apic(1, X2APIC, ldr=x2_ldr(1))),
    (Apic(0, xid=255), Apic(255), Apic(1, ldr=4 << 24, dfr=0x5FFFFFFF), Apic(2, ldr=0x13 << 24, dfr=0x5FFFFFFF)),
    tuple(Apic(i, X2APIC, ldr=x2_ldr(i)) for i in range(17)),
    tuple(Apic(i, ldr=1 << 24 + i) for i in range(8)),
    tuple(Apic(i, ldr=(i // 4 << 4 | 1 << i % 4) << 24, dfr=CLUSTER) for i in range(12)),
)
"""Sets of APICs: flat, cluster, x2APIC, mixed, aliased, disabled in hardware or software, changed ids, many."""

FEW = 5
"""APICs beyond which a set is tried with fewer messages."""
RESERVED_BITS = (13, 16, 17, *range(20, 32))
"""Bits of ICR low that an x2APIC reserves."""


def apics() -> st.SearchStrategy[tuple[Apic, ...]]:
    """One to five APICs of any modes with different ids; the x2APIC ones have their derived LDR."""
    one = st.builds(
        _apic,
        st.sampled_from((0, 1, 2, 3, 15, 16, 17, 31, 127, 255, 256, 300, 511)),
        st.sampled_from((XAPIC, X2APIC, DISABLED)),
        st.sampled_from((0x1FF, 0xFF, 0x2FF)),
        st.sampled_from(LDRS.values),
        st.sampled_from((FLAT, CLUSTER, 0x5FFFFFFF)),
        st.sampled_from((-1, -1, -1, 0, 1, 44)),
    )
    return st.lists(one, min_size=1, max_size=5, unique_by=lambda a: a.id).map(tuple)


def _apic(apic_id: int, mode: int, spiv: int, ldr: int, dfr: int, xid: int) -> Apic:
    if mode == X2APIC:
        return Apic(apic_id, mode, spiv, x2_ldr(apic_id))
    return Apic(apic_id, mode, spiv, ldr << 24, dfr, xid if mode == XAPIC else -1)


def messages() -> st.SearchStrategy[Message]:
    """MSIs and IPIs of every mode and shorthand; some are not legal for the APICs they meet."""
    return st.builds(
        Message,
        dest=st.sampled_from(DESTINATIONS.values),
        sender=st.sampled_from((-1, 0, 1)),
        logical=st.booleans(),
        shorthand=st.sampled_from((0, 0, 1, 2, 3)),
        mode=st.sampled_from((0, 1, 4, 5, 6, 2, 3, 7)),
        vector=st.sampled_from(VECTORS.values),
        level=st.booleans(),
        asserted=st.booleans(),
        hint=st.booleans(),
        wide=st.booleans(),
        no_quirk=st.booleans(),
        reserved=st.sampled_from((0, 0, *(1 << bit for bit in RESERVED_BITS))),
    )


def random_apics(random: Random) -> tuple[Apic, ...]:
    """The same as `apics`, quickly."""
    choice = random.choice
    ids = random.sample((0, 1, 2, 3, 15, 16, 17, 31, 127, 255, 256, 300, 511), random.randint(1, 5))
    kinds = choice(((XAPIC,), (XAPIC,), (X2APIC,), (XAPIC, X2APIC), (XAPIC, X2APIC, DISABLED)))
    dfrs = choice(((FLAT,), (FLAT,), (CLUSTER,), (FLAT, CLUSTER), (FLAT, 0x5FFFFFFF)))
    xids = choice(((-1,), (-1,), (-1,), (-1, 0, 1, 44)))
    return tuple(
        _apic(i, choice(kinds), choice((0x1FF, 0x1FF, 0xFF, 0x2FF)), choice(LDRS.values), choice(dfrs), choice(xids))
        for i in ids
    )


def random_message(random: Random, count: int) -> Message:
    """The same as `messages`, quickly, and mostly legal."""
    choice = random.choice
    sender = choice((-1, random.randrange(count)))
    ipi = sender >= 0
    rare = random.random() < 0.1
    return Message(
        dest=DESTINATIONS.sample(random),
        sender=sender,
        logical=random.random() < 0.5,
        shorthand=choice((0, 0, 0, 1, 2, 3)) if ipi else 0,
        mode=choice((0, 0, 0, 1, 4, 5, 6, 2, 3, 7)),
        vector=VECTORS.sample(random),
        level=random.random() < 0.1,
        asserted=random.random() < 0.8,
        hint=not ipi and rare,
        wide=random.random() < 0.3,
        no_quirk=random.random() < 0.3,
        reserved=1 << choice(RESERVED_BITS) if ipi and random.random() < 0.05 else 0,
    )


def _samples(make: Any, count: int) -> tuple[Any, ...]:
    random = Random("avic")
    return tuple(make(random) for _ in range(count))


ROUTED = Domain(APICS, _samples(random_apics, 400), usual=0.3)
MESSAGES = Domain((Message(0), Message(1)), _samples(lambda r: random_message(r, 4), 3000), usual=0.02)

_NO_MEMORY = ("alloc_page", (-ENOMEM,))
_CREATION = (
    _NO_MEMORY,
    ("kzalloc", (-ENOMEM,)),
    ("alloc_vmcb", (-ENOMEM,)),
    ("set_memory_region", (-ENOMEM, -EEXIST)),
    ("gfn_to_page", (-ENOMEM,)),
)
_SENDERS = (o.GuestIpi, o.Deliver)
_MESSAGES = (o.GuestIpi, o.Deliver, o.IommuPost)
_EVENTS = (o.GuestIpi, o.Deliver, o.GuestEoi, o.Inhibit, o.Put, o.VmRun)


def _all(**fields: Domain[Any]) -> dict[str, Domain[object]]:
    return dict(fields)


SHAPES: dict[type, Shape] = {
    o.Route: Shape(_all(apics=ROUTED, message=MESSAGES), weight=2),
    o.SignalMsi: Shape(_all(apics=ROUTED, message=MESSAGES), weight=2),
    o.HwSetup: Shape(
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
    o.HwUnsetup: Shape({}, weight=0.2),
    o.VmCreate: Shape(
        _all(
            vm=Domain((0, 1)),
            irqchip=Domain((True,), (False,), usual=0.9),
            max_vcpu_ids=Domain((4096,), (2, 255, 256), usual=0.9),
            abandoned=Domain((False,), (True,), usual=0.9),
        ),
        faults=(_NO_MEMORY, ("kzalloc", (-ENOMEM,))),
        deepest=3,
        weight=0.6,
        beside=(o.VmCreate,),
    ),
    o.VmDestroy: Shape(
        _all(vm=Domain((0, 1))),
        weight=0.15,
        interrupts=(o.GaLogNotify, o.IommuPost),
        beside=(o.IommuPost, o.GaLogNotify, o.VcpuCreate),
        points=40,
    ),
    o.VmTag: Shape(_all(vm=Domain((0, 1))), weight=0.4),
    o.VcpuCreate: Shape(
        _all(id=NEW_IDS, vm=Domain((0,), (1,)), abandoned=Domain((False,), (True,), usual=0.9)),
        faults=_CREATION,
        deepest=3,
        weight=1,
        beside=(o.VcpuCreate, o.GuestIpi, o.Inhibit, o.Enter),
        points=40,
    ),
    o.TagsPass: Shape(_all(next=Domain((1, 0xFFFFF), (0xFFFFE, 0, 2, 0xFFFFFFFF))), weight=0.2),
    o.VcpuFree: Shape(_all(id=NEW_IDS, vm=Domain((0,), (1,))), weight=0.3),
    o.VcpuReset: Shape(_all(id=IDS, init=BOOLEAN), weight=0.6),
    o.VmcbReinit: Shape(_all(id=IDS), weight=0.3),
    o.Enter: Shape(_all(id=IDS, tpr=Domain((-1, 0x20, 0), (0x40, 0xFF)), vm=Domain((0,), (1,))), weight=0.6),
    o.SetLapic: Shape(
        _all(
            id=IDS,
            tpr=TPRS,
            ldr=LDRS,
            cluster=Domain((False,), (True,)),
            spiv=SPIVS,
            irr=Domain((0, 0x41), (0x20, 0x52, 0xF0)),
        ),
        weight=0.6,
    ),
    o.GetLapic: Shape(
        _all(id=IDS, offset=Domain((APIC_TPR, APIC_LDR, APIC_SPIV, 0x220), (APIC_ID, APIC_DFR, 0x120, 0x300, 0x320))),
        weight=0.4,
    ),
    o.HwapicUpdate: Shape(_all(id=IDS, irr=VECTORS, isr=VECTORS), weight=0.2),
    o.MemoryPressure: Shape({}, weight=0.2),
    o.GuestStore: Shape(_all(page=Domain((1, 2), (255,))), weight=0.2),
    o.UserStore: Shape(_all(page=Domain((0, 1), (2,))), weight=0.2),
    o.SetApicBase: Shape(
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
    o.Load: Shape(
        _all(id=IDS, host_id=HOST_IDS),
        weight=1.5,
        interrupts=_SENDERS,
        beside=(*_MESSAGES, o.UpdateIrte),
        points=12,
    ),
    o.Put: Shape(_all(id=IDS), weight=1, interrupts=_SENDERS, beside=(*_MESSAGES, o.UpdateIrte), points=12),
    o.Exit: Shape(_all(id=IDS), weight=1.5),
    o.Block: Shape(_all(id=IDS), weight=1.5, interrupts=_SENDERS, beside=(*_MESSAGES, o.UpdateIrte), points=64),
    o.Unblock: Shape(_all(id=IDS), weight=0.4, interrupts=_SENDERS, beside=(*_MESSAGES, o.UpdateIrte), points=12),
    o.VmRun: Shape(_all(id=IDS), weight=2.5, beside=_MESSAGES, points=40),
    o.GuestIpi: Shape(
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
        beside=(o.GuestIpi,),
        points=40,
    ),
    o.GuestSelfIpi: Shape(_all(id=IDS, value=Domain((0x41, 0x52), (0, 15, 0x100, 0x141))), weight=0.3),
    o.GuestWrite: Shape(
        _all(
            id=IDS,
            offset=Domain((APIC_LDR, APIC_TPR, APIC_DFR, APIC_SPIV, APIC_ID), tuple(WRITES), usual=0.75),
            value=Domain(
                (0, 0x01000000, 0x02000000, 0x1FF, FLAT),
                (0x11000000, CLUSTER, 0x50, 0x03000000, 0x10000, 5, 0xFFF900EF),
            ),
        ),
        weight=2,
        beside=(o.GuestIpi, o.Deliver, o.GuestWrite),
        points=40,
    ),
    o.GuestRead: Shape(_all(id=IDS, offset=Domain((0x90, 0x390, 0x80), (0x400, 0x480, 0x20))), weight=0.2),
    o.GuestEoi: Shape(_all(id=IDS), weight=2, beside=_MESSAGES, points=24),
    o.HandleExit: Shape(_all(id=IDS), weight=2),
    o.RawIpiExit: Shape(
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
    o.RawNoaccel: Shape(
        _all(
            id=IDS,
            info1=Domain((1 << 32 | 0xD0, 0x90), (1 << 32 | 0xFF0, 0x540, 0xD0, 1 << 32 | 0x540, 1 << 32 | 0x20)),
            info2=Domain((0,), (0xFF, 2**64 - 1)),
        ),
        weight=0.3,
    ),
    o.Deliver: Shape(
        _all(id=IDS, vector=DELIVERED, level=BOOLEAN),
        weight=2.5,
        interrupts=(o.Block, o.VmRun, o.Inhibit),
        beside=_MESSAGES,
        points=24,
    ),
    o.Inhibit: Shape(
        _all(reason=Domain((INHIBIT_BLOCKIRQ, INHIBIT_IRQWIN), TOLD_INHIBITS), on=BOOLEAN),
        weight=0.8,
        interrupts=_SENDERS,
        beside=(*_MESSAGES, o.UpdateIrte, o.Load, o.Put, o.Block, o.VmRun, o.VcpuReset, o.Inhibit),
        points=40,
    ),
    o.UpdateIrte: Shape(
        _all(irq=Domain((0, 1)), id=Domain((0, 1, -1), (2,)), vector=Domain((0x51, 0x61))),
        weight=0.8,
        faults=(("set_vcpu_affinity", (NO_METADATA,)),),
        deepest=2,
    ),
    o.IommuPost: Shape(_all(irq=Domain((0, 1))), weight=0.8),
    o.GaLogNotify: Shape(_all(tag=Domain((0, 0xFFFFFFFF))), weight=0.2),
    o.HpaField: Shape(
        _all(address=Domain((0x12345000, 0x8010000012345ABC), (0, 0xFFF, 2**52 - 1, 2**64 - 1), (0, 2**64 - 1))),
        weight=0.2,
    ),
    o.LogicalIndex: Shape(
        _all(ldr=Domain((1, 2, 0x11), (0, 3, 0x80, 0xF1), (0, 255)), dfr=Domain((FLAT, CLUSTER))), weight=0.3
    ),
    o.PhysIndex: Shape(_all(index=Domain((0, 1, 254, 255, -1), (256, 511, -(2**31)), (-512, 4096))), weight=0.2),
    o.TagRoundTrip: Shape(
        _all(
            vm_tag=Domain((1, 2), (0xFFFFF, 0x80000), (1, 0xFFFFF)),
            index=Domain((0, 1), (255, 256, 511, 4095), (0, 4095)),
        ),
        weight=0.2,
    ),
    o.X2Ldr: Shape(_all(id=Domain((0, 1, 17), (15, 16, 255, 256, 4095), (0, 4095))), weight=0.2),
    o.Ppr: Shape(
        _all(tpr=Domain((0, 0x10, 0x4F), (0xFF,), (0, 255)), isrv=Domain((0, 0x41, 0x10), (0xFF,), (0, 255))),
        weight=0.2,
    ),
}

SEEN_FIELDS = (o.Load, o.Put, o.Block, o.Unblock, o.VmRun, o.HandleExit, o.GuestEoi)


def suggest(state: State, random: Random) -> Step | None:
    """Something that gets a vCPU going, or an access with a value that means something to its register."""
    mine = [v for v in state.vcpus if v.vm == 0]
    if not mine:
        return None
    v = random.choice(mine)
    if v.pending:
        return Step(o.HandleExit(v.id))
    if v.core < 0:
        return Step(o.Load(v.id, HOST_IDS.sample(random)))
    if v.asleep:
        return Step(o.Unblock(v.id)) if random.random() < 0.2 else Step(o.Deliver(v.id))
    draw = random.random()
    if not v.in_guest:
        return Step(o.VmRun(v.id) if draw < 0.7 else o.Block(v.id))
    if draw < 0.45:
        offset = random.choice(tuple(WRITES)[:5]) if random.random() < 0.7 else random.choice(tuple(WRITES))
        return Step(o.GuestWrite(v.id, offset, random.choice(WRITES[offset])))
    if draw < 0.7:
        other = random.choice(mine)
        if random.random() < 0.5:
            return Step(o.GuestIpi(v.id, other.id, vector=VECTORS.sample(random), defer=random.random() < 0.1))
        ldr = other.regs[0x0D]
        dest = ldr if other.base >> BASE_EXTD & 1 else ldr >> 24 or 3
        return Step(o.GuestIpi(v.id, dest, logical=True, vector=VECTORS.sample(random)))
    return Step(o.GuestEoi(v.id))


def opening(config: Config, _profile: Profile) -> tuple[Step, ...]:
    """A VM with two vCPUs, where the configuration brings none."""
    if config.vcpus:
        return ()
    return (Step(o.VmCreate()), Step(o.VcpuCreate(0)), Step(o.VcpuCreate(1)))


# -- small worlds


def _steps(*ops: Any) -> tuple[Step, ...]:
    return tuple(Step(op) for op in ops)


def _faulty(op: Any, *calls: tuple[str, int, int]) -> tuple[Step, ...]:
    return tuple(Step(op, (Fault(call, value, nth),)) for call, value, nth in calls)


_FAILURES = (
    ("alloc_page", -ENOMEM, 1),
    ("alloc_page", -ENOMEM, 2),
    ("alloc_page", -ENOMEM, 3),
    ("kzalloc", -ENOMEM, 1),
    ("alloc_vmcb", -ENOMEM, 1),
    ("set_memory_region", -ENOMEM, 1),
    ("set_memory_region", -ENOMEM, 2),
    ("gfn_to_page", -ENOMEM, 1),
    ("gfn_to_page", -ENOMEM, 2),
)

_LIFECYCLE = (
    *_steps(
        o.HwUnsetup(),
        o.VmCreate(),
        o.VmCreate(abandoned=True),
        o.VcpuCreate(0),
        o.VcpuCreate(1),
        o.VcpuCreate(255),
        o.VcpuCreate(1, abandoned=True),
        o.VcpuFree(0),
        o.VcpuFree(1),
        o.VcpuReset(0),
        o.VcpuReset(0, init=True),
        o.VmcbReinit(0),
        o.Enter(0),
        o.Enter(0, tpr=0x20),
        o.Enter(1),
        o.SetLapic(0, tpr=0x20),
        o.GetLapic(0, APIC_TPR),
        o.MemoryPressure(),
        o.GuestStore(1),
        o.UserStore(0),
        o.HwapicUpdate(0),
        o.VmDestroy(),
    ),
    *_faulty(o.VmCreate(), *_FAILURES[:4]),
    *_faulty(o.VcpuCreate(0), *_FAILURES),
    *_faulty(o.VcpuCreate(1), *_FAILURES),
)

_LOGICAL = _steps(
    *(o.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (0, 1, 2, 3, 0x11, 0xF1)),
    *(o.GuestWrite(1, APIC_LDR, ldr << 24) for ldr in (1, 2, 0x11)),
    *(o.GuestWrite(i, APIC_DFR, dfr) for i in (0, 1) for dfr in (FLAT, CLUSTER)),
    *(o.GuestWrite(0, APIC_ID, other << 24) for other in (0, 1)),
    o.GuestWrite(0, APIC_SPIV, 0x1FF),
    o.VcpuReset(0),
    *(o.GuestIpi(1, dest, logical=True) for dest in (1, 3, 0x11)),
)
_LOGICAL_MORE = _steps(
    *(o.GuestWrite(i, APIC_LDR, ldr << 24) for i in (0, 1) for ldr in (0, 1, 2, 3, 0x11, 0x12, 0xF1)),
    *(o.GuestWrite(1, APIC_ID, other << 24) for other in (0, 1)),
    o.GuestWrite(1, APIC_SPIV, 0x1FF),
    *(o.GuestIpi(1, dest, logical=True) for dest in (0, 2, 0x13, 0xFF)),
)

_SLEEP = _steps(
    *(op(1) for op in (o.Exit, o.Block, o.Put, o.VmRun, o.GuestEoi)), o.Load(1, 0x21), o.Exit(2), o.Block(2)
)
_IPI = (
    *_steps(
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
    *_SLEEP,
)
_IPI_MORE = _steps(
    *(o.GuestIpi(0, dest) for dest in (0, 2)),
    *(o.GuestIpi(0, dest, logical=True) for dest in (1, 3, 0xFF)),
    o.Put(2),
    o.VmRun(2),
    o.Load(2, 0x22),
    o.GuestEoi(2),
)
_ERRATUM = (*_steps(o.GuestIpi(0, 1), o.GuestIpi(0, 6, logical=True), o.GuestIpi(0, 1, shorthand=3)), *_SLEEP)

_MODES = _steps(
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

_REASONS = _steps(
    *(o.Inhibit(reason, on) for reason in TOLD_INHIBITS for on in (True, False)),
    o.SetApicBase(0, ON | 0x1000),
    o.SetApicBase(0, ON),
    *(o.SetApicBase(0, ON | 1 << bit) for bit in (0, 9, 48, 63)),
    o.GuestWrite(0, APIC_ID, 0x05000000),
    o.GuestWrite(0, APIC_ID, 0),
    o.GuestWrite(0, APIC_LDR, 0x02000000),
    o.GuestWrite(0, APIC_LDR, 0x01000000),
)
_X2 = _steps(
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
_X2_MORE = _steps(
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
_WIDE = _steps(
    o.GuestIpi(0, 300), o.GuestIpi(0, 0x12 << 16 | 1 << 12, logical=True), o.Exit(300), o.Block(300), o.VmRun(300)
)

_BIG_IDS = _steps(
    *(o.GuestWrite(254, APIC_LDR, ldr << 24) for ldr in (0x80, 0xE8)),
    o.GuestWrite(254, APIC_DFR, CLUSTER),
    o.GuestWrite(0, APIC_DFR, CLUSTER),
    *(o.GuestIpi(0, dest, logical=True) for dest in (0x80, 0xE8)),
    *(o.GuestIpi(0, dest) for dest in (128, 254)),
    *(op(i) for i in (254, 128) for op in (o.Exit, o.Block)),
    o.VmRun(254),
)
_LAST_BITS = _steps(
    *(o.GuestIpi(0, dest, logical=True) for dest in (0x8000, 0x18000, 0x8001, 0x10001)),
    *(o.GuestIpi(0, dest) for dest in (15, 16, 31)),
    *(op(i) for i in (15, 31) for op in (o.Exit, o.Block)),
    o.VmRun(15),
)
_POSTED = (
    *_steps(
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
    *_faulty(
        o.UpdateIrte(0, 0),
        ("set_vcpu_affinity", NO_METADATA, 1),
        ("set_vcpu_affinity", NO_METADATA, 2),
    ),
)

_DESTROYED = tuple(Step(o.VmDestroy(), during=((k, Step(o.IommuPost(0))),)) for k in range(0, 40, 2))

_LEVEL = _steps(
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

_ACCESSES = (
    *_steps(*(o.GuestWrite(0, offset, value) for offset, values in WRITES.items() for value in values)),
    *_steps(*(o.GuestRead(0, offset) for offset in (0x80, 0x90, 0x390, 0x400, 0x480))),
    *_steps(
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

_BITS = (5, 6, 12, 14, 17, 19, 25, 27, 30)
"""Feature bits beside those that matter."""
_EVERY_SETUP = tuple(
    o.HwSetup(edx, ecx, family=family, avic=avic)
    for edx in (
        XAVIC_HOST,
        X2AVIC_HOST,
        *(1 << CPUID_NP | 1 << b for b in _BITS),
        *(XAVIC_HOST | 1 << b for b in _BITS),
    )
    for ecx in (0, 1 << CPUID_X2AVIC_EXT, 1 << 5, 1 << 7)
    for family in (0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B)
    for avic in (1, -1)
) + tuple(
    o.HwSetup(edx, ecx, npt, family, zen4, snp, wr, avic, force, ipiv)
    for edx in (XAVIC_HOST, X2AVIC_HOST, 1 << CPUID_NP, 1 << CPUID_NP | 1 << CPUID_X2AVIC)
    for ecx in (0, 1 << CPUID_X2AVIC_EXT)
    for npt in (True, False)
    for family, zen4 in ((0x19, False), (0x19, True), (0x17, False), (0x18, True), (0x1A, False))
    for snp, wr in ((False, False), (True, False), (True, True))
    for avic in (1, 0, -1, 7)
    for force in (False, True)
    for ipiv in (True, False)
)

_HELPED = _steps(
    *(o.LogicalIndex(ldr, dfr) for ldr in range(256) for dfr in (FLAT, CLUSTER)),
    *(o.PhysIndex(i) for i in (*range(-2, 260), 511, 512, 4095, 2**31 - 1, -(2**31))),
    *(o.X2Ldr(i) for i in (0, 1, 7, 8, 15, 16, 17, 31, 127, 254, 255, 256, 300, 511, 512, 4094, 4095)),
    *(o.HpaField(a) for a in (0x12345000, 0x8010000012345ABC, 0x1000, 0xFFF, 2**47 | 0x1000, 2**52 - 1, 2**64 - 1, 0)),
    *(
        o.Ppr(t, i)
        for t in (0, 0x0F, 0x10, 0x3F, 0x40, 0x4F, 0x50, 0xFF)
        for i in (0, 0x10, 0x3F, 0x40, 0x41, 0x50, 0xFF)
    ),
    *(o.TagRoundTrip(vm, i) for vm in (1, 2, 0x80000, 0xFFFFF) for i in (0, 1, 255, 256, 511, 512, 4095)),
)


def _unusual(setup: o.HwSetup) -> int:
    """In how many fields a host differs from the usual one."""
    usual = o.HwSetup()
    return sum(getattr(setup, name) != getattr(usual, name) for name in SHAPES[o.HwSetup].fields)


_SETUPS = _steps(*sorted(dict.fromkeys(_EVERY_SETUP), key=_unusual))


def _routed() -> tuple[Step, ...]:
    dests = (0, 1, 2, 3, 4, 0x11, 0x13, 0xFF, 0x100, 0x10003, 0x01000001, 0x01010001, 0xFFFF0001, 0xFFFFFFFF, 300, 44)
    steps = []
    for group, dest, logical in product(APICS, dests, (False, True)):
        for mode, vector, hint in ((0, 0x41, False), (1, 0x42, False), (0, 0x43, True), (4, 2, False), (0, 15, False)):
            steps.append(o.Route(group, Message(dest, -1, logical, 0, mode, vector, hint=hint)))
            if group[0].mode != DISABLED and not hint:
                steps.append(o.Route(group, Message(dest, 0, logical, 0, mode, vector)))
        if len(group) > FEW:
            continue
        steps += [
            o.Route(group, Message(dest, -1, logical, wide=w, no_quirk=q)) for w in (False, True) for q in (False, True)
        ]
        steps += [o.Route(group, Message(dest, 0, logical, kind)) for kind in (1, 2, 3)]
        if dest not in (1, 3, 0xFF):
            continue
        steps += [
            o.Route(group, Message(dest, sender, logical, mode=mode, level=level, asserted=asserted))
            for sender in (-1, 0)
            for mode in range(8)
            for level, asserted in ((True, True), (True, False), (False, False))
        ]
    for group in APICS:
        steps += [o.Route(group, Message(1, 0, reserved=1 << bit)) for bit in RESERVED_BITS]
    return _steps(*steps)


def _signalled() -> tuple[Step, ...]:
    flags = tuple(product((False, True), (False, True)))
    return _steps(
        *(
            o.SignalMsi(group, Message(dest, -1, logical, 0, mode, 0x41 + n, hint=hint, wide=wide, no_quirk=quirk))
            for group in APICS
            for n, (dest, logical) in enumerate(product((0, 1, 3, 4, 0x13, 0xFF, 44, 300, 0xFFFFFFFF), (False, True)))
            for mode, hint in ((0, False), (1, False), (0, True))
            for wide, quirk in flags
        )
    )


_HALVES = tuple(range(0, 40, 3))
_POINTS = range(0, 24, 2)
"""Every second point: after one call and before the next is the same place."""
_BLOCKED = tuple(
    Step(o.Block(1), during=((k, Step(inner)),))
    for k in range(0, 64, 2)
    for inner in (o.GuestIpi(0, 1), o.Deliver(1, 0x52))
)
_RACES = (
    *_BLOCKED,
    *(
        Step(op, during=((k, Step(inner)),))
        for op in (o.Put(1), o.Load(1, 0x31), o.Unblock(1), o.Inhibit(INHIBIT_BLOCKIRQ, True))
        for k in _POINTS
        for inner in (o.GuestIpi(0, 1), o.Deliver(1, 0x52))
    ),
    *(Step(o.Deliver(1, 0x52), during=((k, Step(o.Inhibit(INHIBIT_BLOCKIRQ, True))),)) for k in _POINTS),
    *(Step(o.Deliver(1, 0x52), during=((k, Step(o.Block(1))),)) for k in _POINTS),
    *_steps(o.VmRun(1), o.Put(1), o.Load(1, 0x21), o.Exit(1)),
)


def _race(config: Config, *ops: Any, switches: int = 1) -> Race:
    """The last two operations at once, after the others; with no switch, the gate leaves it to random schedules."""
    *before, left, right = _steps(*ops)
    return Race(config, tuple(before), left, right, switches)


_SLEEPING = (o.Exit(1), o.Block(1))
_INHIBITED = (o.Inhibit(INHIBIT_BLOCKIRQ, True),)
_INHIBIT, _ALLOW = o.Inhibit(INHIBIT_BLOCKIRQ, True), o.Inhibit(INHIBIT_BLOCKIRQ, False)
_POST = o.UpdateIrte(0, 1)

RACES: dict[str, Race] = {
    "creation beside creation": _race(Config(), o.VmCreate(), o.VcpuCreate(0), o.VcpuCreate(1), switches=0),
    "creation beside its namesake": _race(Config(), o.VmCreate(), o.VcpuCreate(1), o.VcpuCreate(1)),
    "creation beside one given up": _race(
        Config(),
        o.VmCreate(),
        o.VcpuCreate(0, abandoned=True),
        o.VcpuCreate(0),
    ),
    "two creations given up": _race(
        Config(), o.VmCreate(), o.VcpuCreate(0, abandoned=True), o.VcpuCreate(1, abandoned=True), switches=0
    ),
    "tag beside tag": _race(Config(next_tag=0xFFFFF), o.VmCreate(0), o.VmCreate(1)),
    "first vCPUs of two VMs": _race(
        Config(next_tag=0xFFFFFFFF), o.VmCreate(0), o.VmCreate(1), o.VcpuCreate(0, 0), o.VcpuCreate(0, 1), switches=0
    ),
    "creation beside a run": _race(Config(vcpus=(0,)), o.VcpuCreate(1), o.Enter(0)),
    "end of one VM beside creation in another": _race(
        Config(vcpus=(0,)),
        o.VmCreate(1),
        o.VcpuCreate(0, 1),
        o.VmDestroy(1),
        o.VcpuCreate(1),
    ),
    "creation beside an IPI to it": _race(RUNNING, o.VcpuCreate(2), o.GuestIpi(0, 2)),
    "creation beside an inhibit": _race(RUNNING, o.VcpuCreate(2), _INHIBIT),
    "blocking beside an IPI": _race(RUNNING, o.Exit(1), o.Block(1), o.GuestIpi(0, 1)),
    "blocking beside a logical IPI": _race(RUNNING, o.Exit(1), o.Block(1), o.GuestIpi(0, 2, logical=True)),
    "blocking beside delivery": _race(RUNNING, o.Exit(1), o.Block(1), o.Deliver(1, 0x52)),
    "blocking beside a posted interrupt": _race(RUNNING, _POST, o.Exit(1), o.Block(1), o.IommuPost(0)),
    "blocking without IPI virtualization": _race(
        Config(vcpus=(0, 1), running=True, enabled=True, family=0x17, stale_running=True),
        o.Exit(1),
        o.Block(1),
        o.GuestIpi(0, 1),
    ),
    "blocking while inhibited": _race(RUNNING, *_INHIBITED, o.Exit(1), o.Block(1), o.GuestIpi(0, 1)),
    "waking beside an IPI": _race(RUNNING, *_SLEEPING, o.Unblock(1), o.GuestIpi(0, 1)),
    "waking beside delivery": _race(RUNNING, *_SLEEPING, o.Unblock(1), o.Deliver(1, 0x52)),
    "waking beside a posted interrupt": _race(RUNNING, _POST, *_SLEEPING, o.Unblock(1), o.IommuPost(0), switches=2),
    "sleeper put beside an IPI": _race(RUNNING, *_SLEEPING, o.Put(1), o.GuestIpi(0, 1)),
    "sleeper loaded beside an IPI": _race(RUNNING, *_SLEEPING, o.Put(1), o.Load(1, 0x31), o.GuestIpi(0, 1)),
    "put beside an IPI": _race(RUNNING, o.Put(1), o.GuestIpi(0, 1)),
    "load beside an IPI": _race(RUNNING, o.Put(1), o.Load(1, 0x31), o.GuestIpi(0, 1)),
    "put beside a posted interrupt": _race(RUNNING, _POST, o.Put(1), o.IommuPost(0), switches=2),
    "load beside a posted interrupt": _race(RUNNING, _POST, o.Put(1), o.Load(1, 0x31), o.IommuPost(0), switches=2),
    "put beside a new route": _race(RUNNING, o.Put(1), _POST, switches=2),
    "put beside a route away": _race(RUNNING, _POST, o.Put(1), o.UpdateIrte(0, 0)),
    "put beside the end of a route": _race(RUNNING, _POST, o.Put(1), o.UpdateIrte(0, -1), switches=2),
    "load beside a new route": _race(RUNNING, o.Put(1), o.Load(1, 0x31), _POST, switches=2),
    "load beside a route away": _race(RUNNING, _POST, o.Put(1), o.Load(1, 0x31), o.UpdateIrte(0, 0)),
    "blocking beside a new route": _race(RUNNING, o.Exit(1), o.Block(1), _POST),
    "blocking beside a route away": _race(RUNNING, _POST, o.Exit(1), o.Block(1), o.UpdateIrte(0, 0)),
    "waking beside a new route": _race(RUNNING, *_SLEEPING, o.Unblock(1), _POST),
    "inhibit beside a new route": _race(RUNNING, _INHIBIT, _POST),
    "inhibit lifted beside a new route": _race(RUNNING, *_INHIBITED, _ALLOW, _POST),
    "inhibit beside delivery": _race(RUNNING, _INHIBIT, o.Deliver(1, 0x52)),
    "inhibit beside an IPI": _race(RUNNING, _INHIBIT, o.GuestIpi(0, 1)),
    "inhibit beside an IPI to a sleeper": _race(RUNNING, *_SLEEPING, _INHIBIT, o.GuestIpi(0, 1)),
    "inhibit beside a posted interrupt": _race(RUNNING, _POST, _INHIBIT, o.IommuPost(0)),
    "inhibit beside a load": _race(RUNNING, o.Put(1), _INHIBIT, o.Load(1, 0x31)),
    "inhibit beside a put": _race(RUNNING, _INHIBIT, o.Put(1)),
    "inhibit beside blocking": _race(RUNNING, o.Exit(1), _INHIBIT, o.Block(1)),
    "inhibit beside entry": _race(RUNNING, o.Exit(1), _INHIBIT, o.VmRun(1)),
    "inhibit beside reset": _race(RUNNING, o.Exit(1), _INHIBIT, o.VcpuReset(1)),
    "inhibit lifted beside delivery": _race(RUNNING, *_INHIBITED, _ALLOW, o.Deliver(1, 0x52)),
    "inhibit lifted beside an IPI": _race(RUNNING, *_INHIBITED, _ALLOW, o.GuestIpi(0, 1)),
    "inhibit lifted beside entry": _race(RUNNING, *_INHIBITED, o.Exit(1), _ALLOW, o.VmRun(1)),
    "two inhibits": _race(RUNNING, _INHIBIT, o.Inhibit(INHIBIT_IRQWIN, True)),
    "inhibit beside the end of another": _race(
        RUNNING,
        *_INHIBITED,
        _ALLOW,
        o.Inhibit(INHIBIT_IRQWIN, True),
    ),
    "foreign id beside delivery": _race(RUNNING, o.GuestWrite(0, APIC_ID, 0x05000000), o.Deliver(1, 0x52)),
    "foreign id beside an IPI": _race(RUNNING, o.GuestWrite(0, APIC_ID, 0x05000000), o.GuestIpi(1, 0)),
    "LDR beside an IPI to the old": _race(
        RUNNING, o.GuestWrite(0, APIC_LDR, 0x04000000), o.GuestIpi(1, 1, logical=True)
    ),
    "LDR beside an IPI to both": _race(RUNNING, o.GuestWrite(0, APIC_LDR, 0x04000000), o.GuestIpi(1, 5, logical=True)),
    "LDR beside an IPI to others": _race(
        RUNNING, o.GuestWrite(0, APIC_LDR, 0x04000000), o.GuestIpi(1, 7, logical=True)
    ),
    "LDR beside an IPI to the new": _race(
        RUNNING, o.GuestWrite(1, APIC_LDR, 0x04000000), o.GuestIpi(0, 4, logical=True)
    ),
    "LDR beside LDR": _race(RUNNING, o.GuestWrite(0, APIC_LDR, 0x04000000), o.GuestWrite(1, APIC_LDR, 0x04000000)),
    "DFR beside an IPI": _race(RUNNING, o.GuestWrite(0, APIC_DFR, CLUSTER), o.GuestIpi(1, 3, logical=True)),
    "software disabled beside an IPI": _race(RUNNING, o.GuestWrite(0, APIC_SPIV, 0xFF), o.GuestIpi(1, 0)),
    "delivery beside an IPI": _race(RUNNING, o.Deliver(1, 0x52), o.GuestIpi(0, 1), switches=2),
    "delivery beside an IPI of its vector": _race(RUNNING, o.Deliver(1, 0x41), o.GuestIpi(0, 1), switches=2),
    "delivery beside delivery": _race(RUNNING, o.Exit(1), o.Deliver(1, 0x41), o.Deliver(1, 0x52, level=True)),
    "delivery beside a posted interrupt": _race(
        RUNNING, _POST, o.Put(1), o.Deliver(1, 0x52), o.IommuPost(0), switches=2
    ),
    "delivery beside an EOI": _race(RUNNING, o.Deliver(1, 0x41, level=True), o.GuestEoi(1), o.Deliver(1, 0x52)),
    "delivery beside the EOI of its vector": _race(
        RUNNING, o.Deliver(1, 0x41, level=True), o.GuestEoi(1), o.Deliver(1, 0x41)
    ),
    "entry beside delivery": _race(RUNNING, o.Exit(1), o.VmRun(1), o.Deliver(1, 0x52)),
    "entry beside an IPI": _race(RUNNING, o.Exit(1), o.VmRun(1), o.GuestIpi(0, 1), switches=2),
    "entry beside delivery while inhibited": _race(
        RUNNING, *_INHIBITED, o.Exit(1), o.Deliver(1, 0x41), o.VmRun(1), o.Deliver(1, 0x52)
    ),
    "EOI beside delivery while inhibited": _race(
        RUNNING, *_INHIBITED, o.Deliver(1, 0x41), o.GuestEoi(1), o.Deliver(1, 0x52)
    ),
    "IPI beside IPI": _race(THREE, o.GuestIpi(0, 2), o.GuestIpi(1, 2, vector=0x52), switches=2),
    "IPI beside IPI of its vector": _race(THREE, o.GuestIpi(0, 2), o.GuestIpi(1, 2), switches=2),
    "end beside a posted interrupt": _race(
        Config(vcpus=(0,), running=True, enabled=True),
        o.UpdateIrte(0, 0),
        o.Exit(0),
        o.Block(0),
        o.VmDestroy(),
        o.IommuPost(0),
    ),
    "end beside a log entry": _race(
        Config(vcpus=(0,), running=True, enabled=True), o.Exit(0), o.Block(0), o.VmDestroy(), o.GaLogNotify(0)
    ),
    "x2AVIC: blocking beside an IPI": _race(X2, o.Exit(17), o.Block(17), o.GuestIpi(0, 17)),
    "x2AVIC: blocking beside a logical IPI": _race(X2, o.Exit(17), o.Block(17), o.GuestIpi(0, 0x10002, logical=True)),
    "x2AVIC: inhibit beside an IPI": _race(X2, _INHIBIT, o.GuestIpi(0, 1), switches=0),
}
"""Two operations at once, from the states in which their order matters to a driver (facts 4.6)."""


STARTS: tuple[tuple[Config, tuple[Step, ...]], ...] = (
    (Config(), _steps(o.VmCreate())),
    (RUNNING, _steps(_POST, o.Exit(1))),
    (RUNNING, _steps(*_INHIBITED, o.Exit(1))),
    (RUNNING, _steps(_POST, *_SLEEPING)),
    (RUNNING, _steps(_POST, o.Put(1))),
    (RUNNING, ()),
    (RUNNING, _steps(*_INHIBITED, o.Deliver(1))),
    (Config(next_tag=0xFFFFF), ()),
    (Config(next_tag=0xFFFFFFFF), _steps(o.VmCreate(0), o.VmCreate(1))),
    (Config(vcpus=(0,)), ()),
    (Config(vcpus=(0,), running=True, enabled=True), _steps(o.UpdateIrte(0, 0), o.Exit(0), o.Block(0))),
    (THREE, _steps(o.Exit(1), o.Block(1), o.Exit(2))),
    (X2, _steps(o.Exit(17))),
    (Config(vcpus=(0, 1), running=True, enabled=True, family=0x17, stale_running=True), _steps(o.Exit(1))),
    (Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True), _steps(o.Exit(1))),
)
"""Where two operations meet, most telling first."""


_PARALLEL = tuple(
    Step(Parallel(Step(left), Step(right), (a, b)))
    for left, right in (
        (o.VcpuCreate(0), o.VcpuCreate(1)),
        (o.VcpuCreate(1), o.VcpuCreate(1)),
        (o.VcpuCreate(0, abandoned=True), o.VcpuCreate(1, abandoned=True)),
    )
    for a in _HALVES
    for b in _HALVES
    if a < b
)


def _at_once(*pairs: tuple[Any, Any], points: range) -> tuple[Step, ...]:
    """Both orders of starting, with one switch: those in the middle first, then those between the ones before."""
    middle = sorted(range(len(points)), key=lambda n: (-(n + 1 & -(n + 1)), n))
    return tuple(
        Step(Parallel(Step(one), Step(other), (points[n],)))
        for n in middle
        for left, right in pairs
        for one, other in ((left, right), (right, left))
    )


_TOGETHER = _at_once(
    (_INHIBIT, o.Deliver(1, 0x52)),
    (o.UpdateIrte(0, 1), o.Put(1)),
    (o.GuestWrite(0, APIC_LDR, 0x04000000), o.GuestWrite(1, APIC_LDR, 0x04000000)),
    (o.VcpuCreate(2), o.Inhibit(INHIBIT_IRQWIN, True)),
    points=range(1, 48, 3),
)
_ENDING = (
    *_steps(o.UpdateIrte(0, 0), o.Exit(0), o.Block(0)),
    *_at_once((o.VmDestroy(), o.IommuPost(0)), points=range(12)),
)
_SLEEPER = _steps(
    *(op(1) for op in (o.Exit, o.Block, o.Put, o.Unblock, o.VmRun)), o.Load(1, 0x31), o.GuestIpi(0, 1), o.Deliver(1)
)
_FAILING = (
    *_steps(o.VmCreate()),
    *_faulty(
        o.VcpuCreate(0), ("alloc_page", -ENOMEM, 1), ("alloc_vmcb", -ENOMEM, 1), ("set_memory_region", -ENOMEM, 1)
    ),
    *_steps(o.VmDestroy(), o.VcpuCreate(1)),
)
_CREATING = (*_steps(o.VmCreate(), o.VmDestroy(), o.VcpuCreate(2)), *_PARALLEL)
_TAGS = (
    *_steps(*(op(vm) for vm in (0, 1) for op in (o.VmCreate, o.VmTag, o.VmDestroy))),
    *_steps(o.VcpuCreate(0, 0), o.VcpuCreate(0, 1)),
    *(
        Step(Parallel(Step(o.VmCreate(0)), Step(o.VmCreate(1)), (a, b)))
        for a in range(0, 16, 2)
        for b in range(16, 24, 4)
    ),
    *(
        Step(Parallel(Step(o.VcpuCreate(0, 0)), Step(o.VcpuCreate(0, 1)), (a, b)))
        for a in range(0, 24, 2)
        for b in range(24, 40, 8)
    ),
)
_TWO_VMS = (
    *_steps(
        o.VmCreate(1),
        o.VcpuCreate(0, 1),
        o.VcpuCreate(1, 1),
        o.VcpuCreate(255, 1),
        *(o.Enter(i, tpr, vm=1) for i, tpr in ((0, -1), (1, 0x20), (255, -1))),
        o.VcpuFree(0, 1),
        o.VmDestroy(1),
        o.Inhibit(INHIBIT_BLOCKIRQ, True),
        o.GuestIpi(0, 0xFF),
        o.UpdateIrte(0, 1),
        o.Exit(1),
        o.Block(1),
        o.IommuPost(0),
    ),
)
_PASSING_TAGS = _steps(o.VmCreate(0), o.VmCreate(1), o.VmDestroy(1), *(o.TagsPass(n) for n in (0, 1, 0xFFFFF)))
_FREED = _steps(
    *(o.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (4, 1)),
    *(op(i) for i in (1, 2) for op in (o.Put, o.VcpuFree, o.VcpuCreate)),
    o.GuestIpi(0, 6, logical=True),
    o.GuestIpi(0, 1),
    o.GuestIpi(0, 0, shorthand=3),
    o.Load(1, 0x21),
    o.VmRun(1),
    o.UpdateIrte(0, 1),
    o.IommuPost(0),
    o.Enter(1),
)
_FIRST_TAGS = (
    *_steps(o.VmCreate(0), o.VmCreate(1), o.VcpuCreate(0, 0), o.VcpuCreate(0, 1), o.VmTag(1)),
    *(Step(Parallel(Step(o.VmCreate(0)), Step(o.VmCreate(1)), (a,))) for a in (8, 10, 12)),
)
_BIG = _steps(
    o.VmCreate(),
    o.VmCreate(max_vcpu_ids=256),
    o.VmCreate(max_vcpu_ids=2),
    *(o.VcpuCreate(i) for i in (0, 1, 254, 255, 256, 300, 511, 512, 4095, 4096)),
    o.Enter(0),
    o.Enter(1),
    o.Enter(255),
    o.Enter(256),
    o.VmDestroy(),
)

_T = frozenset({"layer-t"})
_E = frozenset({"layer-t", "exits"})

SCOPES: dict[str, Scope] = {
    "helpers": Scope(Config(), _HELPED, depth=1, needs=frozenset({"helpers"})),
    "setup": Scope(Config(), _SETUPS, depth=1, needs=_T),
    "routing": Scope(Config(), _routed(), depth=1, needs=frozenset({"layer-r"})),
    "return values": Scope(Config(), _signalled(), depth=1, needs=frozenset({"kvm-return"})),
    "lifecycle": Scope(Config(), _LIFECYCLE, depth=4, needs=_T),
    "tagged addresses": Scope(
        Config(tagged=True), _steps(o.VmCreate(), o.VcpuCreate(0), o.Enter(0)), depth=3, needs=_T
    ),
    "failures, one after the other": Scope(Config(), _FAILING, depth=2, needs=_T, sequences=3),
    "off": Scope(Config(avic=0), _LIFECYCLE, depth=3, needs=_T),
    "no irqchip": Scope(
        Config(),
        _steps(o.VmCreate(irqchip=False), o.VcpuCreate(0), o.Enter(0), o.VcpuReset(0), o.VmDestroy()),
        depth=4,
        needs=_T,
    ),
    "ids": Scope(Config(), _BIG, depth=4, needs=_T),
    "wide ids": Scope(Config(edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT), _BIG, depth=3, needs=_T),
    "tags": Scope(Config(next_tag=0xFFFFF), _TAGS, depth=4, needs=_T),
    "wrapping tags": Scope(Config(next_tag=0xFFFFFFFF), _TAGS, depth=4, needs=_T),
    "first tags": Scope(Config(next_tag=0xFFFFF), _FIRST_TAGS, depth=1, needs=_T, sequences=4),
    "first wide tags": Scope(Config(next_tag=0xFFFFFFFF), _FIRST_TAGS, depth=1, needs=_T, sequences=4),
    "tags come round": Scope(Config(), _PASSING_TAGS, depth=1, needs=_T, sequences=4),
    "two VMs": Scope(RUNNING, _TWO_VMS, depth=5, needs=frozenset({"layer-t", "exits", "posted"})),
    "freed vCPUs": Scope(THREE, _FREED, depth=4, needs=frozenset({"layer-t", "exits", "posted"})),
    "creation beside creation": Scope(Config(), _CREATING, depth=3, needs=_T),
    "logical table": Scope(RESET, _LOGICAL, depth=3, needs=_E),
    "sleeper": Scope(RUNNING, _SLEEPER, depth=5, needs=_E),
    "interrupts to three": Scope(THREE, _IPI, depth=3, needs=_E),
    "modes and inhibits": Scope(RUNNING, _MODES, depth=3, needs=_E),
    "reasons": Scope(RUNNING, _REASONS, depth=3, needs=_E),
    "reset in x2APIC mode": Scope(
        X2, _steps(o.Exit(1), o.VcpuReset(1), o.VcpuReset(1, init=True), o.VmRun(1)), depth=3, needs=_E
    ),
    "x2avic": Scope(X2, _X2, depth=3, needs=_E),
    "x2avic, all accesses": Scope(X2, (*_X2, *_X2_MORE), depth=1, needs=_E),
    "x2avic, wide ids": Scope(
        Config(vcpus=(0, 1, 300), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),
        _WIDE,
        depth=3,
        needs=_E,
    ),
    "big xAPIC ids": Scope(Config(vcpus=(0, 128, 254), running=True), _BIG_IDS, depth=3, needs=_E),
    "last bits of x2APIC clusters": Scope(
        Config(vcpus=(0, 15, 16, 31), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST),
        _LAST_BITS,
        depth=3,
        needs=_E,
    ),
    "x2apic without x2avic": Scope(
        Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True), (*_X2, *_X2_MORE), depth=2, needs=_E
    ),
    "levels and priorities": Scope(RUNNING, _LEVEL, depth=3, needs=_E),
    "eoi cleared by hardware": Scope(
        Config(vcpus=(0, 1), running=True, enabled=True, eoi_cleared=True, busy_sticky=True), _LEVEL, depth=3, needs=_E
    ),
    "LVTs": Scope(
        RUNNING, _steps(*(o.GuestWrite(0, n, 0xFFF900EF) for n in range(APIC_LVTT, 0x380, 0x10))), depth=1, needs=_E
    ),
    "accesses": Scope(RUNNING, _ACCESSES, depth=2, needs=_E),
    "posted": Scope(RUNNING, _POSTED, depth=4, needs=frozenset({"layer-t", "exits", "posted"})),
    "posted to one": Scope(
        Config(vcpus=(0,), running=True, enabled=True),
        (*_steps(o.UpdateIrte(0, 0), o.Exit(0), o.Block(0)), *_DESTROYED),
        depth=4,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "two at once": Scope(RUNNING, _TOGETHER, depth=1, needs=frozenset({"layer-t", "exits", "posted"})),
    "two routes": Scope(
        Config(vcpus=(0,), running=True, enabled=True),
        _steps(
            *(o.UpdateIrte(irq, 0, 0x51 + 16 * irq) for irq in (0, 1)),
            *(op(0) for op in (o.Exit, o.Block, o.Unblock, o.VmRun)),
            o.IommuPost(0),
            o.IommuPost(1),
        ),
        depth=5,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "end beside an interrupt": Scope(
        Config(vcpus=(0,), running=True, enabled=True),
        _ENDING,
        depth=4,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "races": Scope(RUNNING, _RACES, depth=2, needs=_E),
    "erratum 1235": Scope(
        Config(vcpus=(0, 1, 2), running=True, enabled=True, family=0x17, stale_running=True),
        _ERRATUM,
        depth=3,
        needs=_E,
    ),
    "logical table, deep": Scope(RESET, (*_LOGICAL, *_LOGICAL_MORE), depth=4, needs=_E, in_gate=False),
    "modes and inhibits, deep": Scope(RUNNING, _MODES, depth=5, needs=_E, in_gate=False),
    "interrupts to three, deep": Scope(THREE, (*_IPI, *_IPI_MORE), depth=4, needs=_E, in_gate=False),
    "x2avic, deep": Scope(X2, (*_X2, *_X2_MORE), depth=3, needs=_E, in_gate=False),
}


PINNED = {
    "helpers": (1, 888),
    "setup": (7, 4936),
    "failures, one after the other": (3, 6),
    "sleeper": (46, 164),
    "routing": (1, 11523),
    "lifecycle": (15, 292),
    "tagged addresses": (3, 4),
    "off": (8, 120),
    "no irqchip": (3, 7),
    "ids": (150, 726),
    "wide ids": (62, 210),
    "tags": (9, 154),
    "wrapping tags": (9, 154),
    "first tags": (4, 5),
    "first wide tags": (4, 5),
    "tags come round": (3, 5),
    "two VMs": (370, 1286),
    "freed vCPUs": (503, 1864),
    "creation beside creation": (7, 1101),
    "logical table": (612, 2280),
    "interrupts to three": (846, 2711),
    "modes and inhibits": (326, 869),
    "reasons": (137, 920),
    "big xAPIC ids": (234, 593),
    "last bits of x2APIC clusters": (231, 550),
    "LVTs": (7, 6),
    "x2avic": (294, 902),
    "x2avic, all accesses": (18, 38),
    "x2avic, wide ids": (15, 37),
    "x2apic without x2avic": (183, 669),
    "levels and priorities": (325, 964),
    "eoi cleared by hardware": (325, 964),
    "accesses": (306, 4046),
    "posted": (182, 929),
    "posted to one": (8, 111),
    "two at once": (7, 128),
    "end beside an interrupt": (8, 59),
    "two routes": (57, 180),
    "reset in x2APIC mode": (6, 10),
    "races": (37, 727),
    "erratum 1235": (109, 240),
}
"""Reachable states and legal transitions of the gate's worlds, for the correct driver."""
SCOPES = {
    name: replace(scope, states=PINNED[name][0], transitions=PINNED[name][1]) if name in PINNED else scope
    for name, scope in SCOPES.items()
}


# -- Hypothesis


def configs() -> st.SearchStrategy[Config]:
    """The configurations of random runs, plainest first."""
    return st.sampled_from(CONFIGS)


def operations(kind: type) -> st.SearchStrategy[Any]:
    """One kind of operation, with a value from each field's domain."""
    return st.builds(kind, **{name: domain.strategy() for name, domain in SHAPES[kind].fields.items()})


def faults(kind: type) -> st.SearchStrategy[tuple[Fault, ...]]:
    """No refusal, or one of those that this operation may meet."""
    planned = [
        (Fault(call, value, nth),)
        for call, values in SHAPES[kind].faults
        for value in values
        for nth in range(1, SHAPES[kind].deepest + 1)
    ]
    return st.sampled_from([(), *planned])


def during(kind: type) -> st.SearchStrategy[tuple[tuple[int, Step], ...]]:
    """Nothing, or one operation in the middle of this one."""
    shape = SHAPES[kind]
    inner = st.one_of([operations(other) for other in shape.interrupts])
    return st.one_of(st.just(()), st.builds(lambda k, op: ((k, Step(op)),), st.integers(0, shape.points - 1), inner))
