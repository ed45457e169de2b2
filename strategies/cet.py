"""What happens to a hypervisor's CET state: values, interleavings and worlds.

Values are tagged with the vCPU and the register they are meant for, so a value that turns up in the
wrong place shows where it came from. Preemption is an operation of its own, and may strike in the
middle of most others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

from hypothesis import strategies as st

from conformance.model.cet import State
from conformance.model.cet import operations as m
from conformance.model.cet.state import XSS, Vcpu
from conformance.model.step import Fault, Step
from conformance.specs.cet import constants as k
from conformance.strategies.domain import BOOLEAN, Domain, Race, Scope, Shape


def tag(vcpu: int, msr: int, n: int = 0) -> int:
    """A canonical, aligned value that says which vCPU and register it was made for."""
    return 0x1000_0000_0000 | vcpu << 32 | (msr & 0xF) << 16 | n << 3


# -- values

POINTER_EDGES = (
    4,
    8,
    1,
    2,
    3,
    0x7FFF_FFFF_FFFC,
    0x8000_0000_0000,
    0x00FF_FFFF_FFFF_FFFC,
    0x0100_0000_0000_0000,
    0xFFFF_8000_0000_0000,
    0xFF00_0000_0000_0000,
    0xFFFE_0000_0000_0000,
    0xAAAA_AAAA_AAAA_AAA8,
    0xFFFF_FFFF_FFFF_FFFC,
    0xFFFF_FFFF_FFFF_FFFF,
    1 << 32,
)
"""Both ends of the canonical halves at 48 and 57 bits, and each kind of misalignment."""

CONTROL_EDGES = (
    0x3,
    0x2,
    0x4,
    0x3C,
    0x40,
    0x80,
    0x100,
    0x200,
    0x400,
    0x800,
    0xC00,
    0x1000,
    0x2000,
    0x3000,
    0x4000,
    0x4004,
    0x7FFF_FFFF_C000,
    0x8000_0000_0004,
    0x8000_0000_0000_0004,
    0xFFFF_8000_0000_0005,
)
"""Each field of U_CET and S_CET by itself, and bases on both sides of canonical."""

XSS_EDGES = (0x800, 0x1000, 0x1801, 1 << 8, (1 << 64) - 1)

MSR: Domain[int] = Domain(
    (k.PL0_SSP, k.PL1_SSP, k.XSS, k.U_CET, k.S_CET, k.PL2_SSP, k.PL3_SSP, k.INT_SSP_TAB),
    (k.INTERNAL_GUEST_SSP, 0x6A9),
    usual=0.95,
)
VALUE: Domain[int] = Domain(
    (tag(0, k.PL0_SSP), 0, tag(1, k.PL0_SSP), tag(0, k.PL1_SSP), 1, 0x1800, 5),
    POINTER_EDGES + CONTROL_EDGES + XSS_EDGES,
    (0, (1 << 64) - 1),
)
POINTER: Domain[int] = Domain((tag(0, k.PL0_SSP), 0, tag(1, k.PL1_SSP)), POINTER_EDGES)
SSP: Domain[int] = Domain((tag(0, 0xF), 0, tag(1, 0xF), 1 << 32, 0x1000))
SAVED_SSP: Domain[int | None] = Domain((None,), (tag(0, 0xA), 0, 1, 2, 4, 0xAAAA_AAAA_AAAA_AAA8, 0xFFFF_8000_0000_0000))
VCPU: Domain[int] = Domain((0, 1), usual=1.0)
CPU: Domain[int] = Domain((0, 1), usual=1.0)

WORDS: Domain[tuple[int, ...]] = Domain(
    (
        (tag(0, k.PL0_SSP, 1), tag(0, k.PL1_SSP, 1), tag(0, k.PL2_SSP, 1)),
        (),
        (1, tag(0, k.PL3_SSP, 1)),
        (tag(1, k.PL0_SSP, 1), 0, tag(1, k.PL2_SSP, 1)),
        (0, tag(1, k.PL3_SSP, 1)),
    )
)
"""Component 12 has three words, component 11 two; no words stand for the initial state."""

ENTRIES: Domain[tuple[tuple[int, int], ...]] = Domain(
    (
        ((k.PL0_SSP, tag(0, k.PL0_SSP, 2)),),
        ((k.PL1_SSP, tag(0, k.PL1_SSP, 2)),),
        ((k.S_CET, 1),),
        ((k.U_CET, 1), (k.PL3_SSP, tag(0, k.PL3_SSP, 2))),
        ((k.INT_SSP_TAB, tag(0, k.INT_SSP_TAB, 2) | 1),),
        ((k.XSS, 0x1800),),
        ((k.PL0_SSP, 0),),
        ((k.PL2_SSP, tag(1, k.PL2_SSP, 2)),),
    ),
    (
        ((k.PL0_SSP, tag(0, k.PL0_SSP, 3)), (k.PL1_SSP, 1), (k.PL2_SSP, tag(0, k.PL2_SSP, 3))),
        ((k.S_CET, 1), (k.PL1_SSP, tag(0, k.PL1_SSP, 3))),
        ((k.S_CET, 0x40), (k.PL0_SSP, 8)),
        ((k.PL0_SSP, 8), (k.PL0_SSP, 16)),
        ((k.S_CET, 0), (k.PL1_SSP, 8), (k.INT_SSP_TAB, 1 << 62), (k.PL2_SSP, 8)),
        ((k.XSS, 0), (k.U_CET, 0), (k.S_CET, 0)),
        ((0x6A9, 0), (k.PL0_SSP, 8)),
        ((k.XSS, 1 << 8),),
        (),
        *((((msr, value),)) for msr in k.CONTROL_MSRS for value in CONTROL_EDGES),
        *((((msr, value),)) for msr in (k.PL0_SSP, k.PL3_SSP, k.INT_SSP_TAB) for value in POINTER_EDGES),
        ((k.PL0_SSP, 0),) * 255,
        ((k.PL0_SSP, 8),) * 256,
    ),
)
INDICES: Domain[tuple[int, ...]] = Domain(
    (
        (k.PL0_SSP,),
        (k.PL1_SSP,),
        (k.S_CET,),
        (k.U_CET, k.PL3_SSP),
        (k.INT_SSP_TAB,),
        (k.XSS,),
        k.MSRS,
        (k.PL2_SSP,),
    ),
    (
        (k.S_CET, k.PL1_SSP),
        (k.S_CET, k.PL1_SSP, k.XSS),
        (k.PL0_SSP, 0x6A9, k.PL1_SSP),
        (0x6A9,),
        (),
        k.MSRS[::-1],
        (k.S_CET,) * 255,
        (k.S_CET,) * 256,
    ),
)

BAD_REGS = (
    k.ONE_REG_GUEST_SSP | 1,
    k.ONE_REG_GUEST_SSP ^ 0x60 << 56,
    k.ONE_REG_GUEST_SSP | 1 << 40,
    k.ONE_REG_GUEST_SSP | 1 << 48,
    k.ONE_REG_GUEST_SSP ^ 1 << 52,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 1 << 52,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 3 << 32,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 2 << 32,
    (k.ONE_REG_MSR | k.PL0_SSP) | 1 << 47,
    (k.ONE_REG_MSR | k.PL0_SSP) | 1 << 51,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 1 << 63,
    k.ONE_REG_MSR | 0x6A9,
)
REG: Domain[int] = Domain(
    (k.ONE_REG_GUEST_SSP, k.ONE_REG_MSR | k.PL0_SSP, k.ONE_REG_MSR | k.S_CET, k.ONE_REG_MSR | k.U_CET),
    (*(k.ONE_REG_MSR | msr for msr in k.MSRS), *BAD_REGS),
    usual=0.6,
)

CPUIDS = tuple(
    m.Cpuid(shstk, ibt, lm, xsaves, 0x1800 if xsaves else 0)
    for lm, xsaves, shstk, ibt in product((True, False), (True, False), (True, False), (True, False))
)
CPUID: Domain[m.Cpuid] = Domain(CPUIDS[:4], (*CPUIDS[4:], m.Cpuid(xss=0x800), m.Cpuid(xss=0)))
DENIED: Domain[tuple[int, ...]] = Domain(
    ((), (k.PL0_SSP,), (k.S_CET, k.PL3_SSP)), ((k.U_CET, k.PL1_SSP), (k.INT_SSP_TAB, k.PL2_SSP), (k.XSS,))
)


def areas() -> tuple[m.Area, ...]:
    """The plain area, the four combinations of the controls, and each field by itself at each of its edges."""
    plain = m.Area(
        s_cet=1, ssp=tag(0, 0xE), table=tag(0, 0xD), host_s_cet=2, host_ssp=tag(0, 0xC), host_table=tag(0, 0xB)
    )
    listed = [replace(plain, load=load, load_host=load_host) for load, load_host in product((True, False), repeat=2)]
    listed += [replace(plain, cet=cet, wp=wp) for cet, wp in product((True, False), repeat=2)]
    listed += [replace(plain, host_cet=cet, host_wp=wp) for cet, wp in product((True, False), repeat=2)]
    listed += [replace(plain, intercepts=(msr,)) for msr in (k.PL0_SSP, k.PL3_SSP, k.U_CET, k.S_CET)]
    listed += [replace(plain, intercepts=(k.PL1_SSP, k.PL2_SSP))]
    bare = replace(plain, load=False, load_host=False)
    listed += [replace(bare, cet=True, wp=False), replace(bare, host_cet=True, host_wp=False)]
    listed += [replace(bare, s_cet=0x40), replace(bare, ssp=1), replace(bare, table=1 << 62)]
    listed += [replace(bare, host_s_cet=0x40), replace(bare, host_ssp=2), replace(bare, host_table=1 << 62)]
    listed += [replace(plain, s_cet=0x40, host_s_cet=0x40), replace(plain, cet=True, wp=False, host_ssp=1)]
    listed += [replace(plain, clean=True), m.Area(clean=True, load=False, load_host=False, cet=False)]
    listed += [m.Area(cet=False, load=False, load_host=False)]
    listed += [replace(plain, s_cet=value) for value in (*CONTROL_EDGES, 0)]
    listed += [replace(plain, ssp=value) for value in (*POINTER_EDGES, 0, 1 << 47, 1 << 56)]
    listed += [replace(plain, table=value) for value in (*POINTER_EDGES, 0)]
    small = replace(plain, host_64=False, host_ssp=0x1000)
    listed += [
        small,
        replace(small, host_ssp=1 << 32),
        replace(small, host_ssp=0xFFFF_FFFC),
        replace(small, host_s_cet=1 << 32 | 4),
        replace(small, host_table=1 << 40),
    ]
    listed += [replace(plain, host_s_cet=value) for value in (*CONTROL_EDGES, 0)]
    listed += [replace(plain, host_ssp=value) for value in (*POINTER_EDGES, 0, 1 << 47, 1 << 56)]
    listed += [replace(plain, host_table=value) for value in (*POINTER_EDGES, 0)]
    return tuple(dict.fromkeys(listed))


AREAS = areas()
AREA: Domain[m.Area] = Domain(AREAS[:10], AREAS[10:])

# -- worlds

INTEL = m.Host()
AMD = m.Host(vendor="amd", ibt=False)
SHSTK_ONLY = m.Cpuid(ibt=False)
IBT_ONLY = m.Cpuid(shstk=False)
NEITHER = m.Cpuid(shstk=False, ibt=False)

CONFIGS = (
    m.Config(vcpus=(m.Cpuid(), m.Cpuid())),
    m.Config(vcpus=(m.Cpuid(),)),
    m.Config(vcpus=(m.Cpuid(), NEITHER)),
    m.Config(vcpus=(IBT_ONLY, SHSTK_ONLY)),
    m.Config(AMD, (SHSTK_ONLY, SHSTK_ONLY)),
    m.Config(AMD, (SHSTK_ONLY, NEITHER)),
    m.Config(m.Host(la57=True, s_cet=4), (m.Cpuid(), m.Cpuid(xsaves=False, xss=0))),
    m.Config(vcpus=(m.Cpuid(lm=False), m.Cpuid(xss=0x800))),
    m.Config(vcpus=(NEITHER, m.Cpuid(shstk=False, ibt=False, xsaves=False, xss=0)), ignore_msrs=True),
    m.Config(m.Host(ibt=False), (m.Cpuid(), SHSTK_ONLY)),
    m.Config(m.Host(vendor="amd", sev_es=True), (m.Cpuid(),)),
    m.Config(m.Host(tdp=False, lm=False), (m.Cpuid(), IBT_ONLY)),
    m.Config(m.Host(xss=0x800), (m.Cpuid(),)),
    m.Config(m.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False, xss=0), (m.Cpuid(),)),
    m.Config(vcpus=()),
)


def hosts() -> tuple[m.Host, ...]:
    """Every combination of features, XSS bits and paging, with all VMX prerequisites or without one of them."""
    on, masks = (True, False), (0x1800, 0x800, 0x1000, 0)
    controls = [(True, True, True, True), (False, True, True, True), (True, False, True, True)]
    controls += [(True, True, False, True), (True, True, True, False), (False, False, False, False)]
    listed = [m.Host(xss=xss) for xss in masks] + [m.Host(smaller_maxphyaddr=True), m.Host(tdp=False)]
    listed += [m.Host(s_cet=1), m.Host(s_cet=2), m.Host(s_cet=4), m.Host(vendor="amd", ibt=False, s_cet=3)]
    listed += [m.Host(vendor, lm=False, ibt=ibt) for vendor in ("intel", "amd") for ibt in on]
    listed += [m.Host("intel", True, True, True, True, 0x1800, *prerequisites) for prerequisites in controls]
    listed += [
        m.Host("intel", shstk, ibt, xsaves, True, xss, *prerequisites, tdp, not larger)
        for xss, prerequisites in product(masks, controls)
        for shstk, ibt, xsaves, tdp, larger in product(on, repeat=5)
    ]
    listed += [
        m.Host("amd", shstk, ibt, xsaves, True, xss, False, False, False, False, tdp, not larger)
        for xss in masks
        for shstk, ibt, xsaves, tdp, larger in product(on, repeat=5)
    ]
    return tuple(dict.fromkeys(listed))


HOSTS = hosts()
HOST: Domain[m.Host] = Domain((INTEL, m.Host(s_cet=1), AMD), HOSTS)

_PREEMPTIONS = (m.Window, m.HostTask, m.KernelFpu)
_OTHERS = (m.Window, m.Window, *_PREEMPTIONS, m.Wrmsr, m.Rdmsr, m.Run, m.Leave, m.GetMsrs, m.SetMsrs, m.Xrstors)
_FAULT_IN = (("copy_from_user", (-k.EFAULT,)),)
_FAULT_OUT = (("copy_from_user", (-k.EFAULT,)), ("copy_to_user", (-k.EFAULT,)))


_BESIDE = (m.Wrmsr, m.Rdmsr, m.Run, m.Leave, m.SetMsrs, m.GetMsrs, m.Exit)
"""Operations of one vCPU that may run at the same time as some of another vCPU on the other physical CPU."""


SHAPES: dict[type, Shape] = {
    m.Run: Shape({"vcpu": VCPU, "cpu": CPU}, 3, interrupts=_OTHERS, beside=_BESIDE, points=6),
    m.Leave: Shape({"vcpu": VCPU}, 2, interrupts=_OTHERS, beside=_BESIDE, points=12),
    m.Wrmsr: Shape(
        {"vcpu": VCPU, "msr": MSR, "value": VALUE, "emulated": BOOLEAN}, 5, interrupts=_OTHERS, beside=_BESIDE, points=8
    ),
    m.Rdmsr: Shape({"vcpu": VCPU, "msr": MSR, "emulated": BOOLEAN}, 5, interrupts=_OTHERS, beside=_BESIDE, points=6),
    m.Xrstors: Shape({"vcpu": VCPU, "component": Domain((k.CET_S, k.CET_U)), "words": WORDS}, 2),
    m.Xsaves: Shape({"vcpu": VCPU, "component": Domain((k.CET_S, k.CET_U))}, 1),
    m.WriteSsp: Shape({"vcpu": VCPU, "value": SSP}, 1),
    m.ReadSsp: Shape({"vcpu": VCPU}, 1),
    m.CpuidSize: Shape({"vcpu": VCPU}, 0.5),
    m.MovCr0: Shape({"vcpu": VCPU, "wp": BOOLEAN}, 1, interrupts=_PREEMPTIONS, points=4),
    m.MovCr4: Shape({"vcpu": VCPU, "cet": BOOLEAN, "owned": BOOLEAN}, 1.5, interrupts=_PREEMPTIONS, points=4),
    m.Exit: Shape({"vcpu": VCPU}, 0.5, beside=(m.Exit, m.Wrmsr, m.Leave)),
    m.Halt: Shape({"vcpu": VCPU, "cpu": CPU}, 0.5),
    m.Preempt: Shape({"vcpu": VCPU, "cpu": CPU}, 2),
    m.Window: Shape({"vcpu": VCPU, "cpu": CPU}, 0),
    m.HostTask: Shape({"cpu": CPU}, 0.7),
    m.KernelFpu: Shape({"cpu": CPU}, 0.5),
    m.SetMsrs: Shape(
        {"vcpu": VCPU, "entries": ENTRIES, "cpu": CPU}, 2, _FAULT_IN, deepest=2, interrupts=_OTHERS, points=12
    ),
    m.GetMsrs: Shape(
        {"vcpu": VCPU, "indices": INDICES, "cpu": CPU}, 2, _FAULT_OUT, deepest=2, interrupts=_OTHERS, points=12
    ),
    m.SetOneReg: Shape(
        {"vcpu": VCPU, "reg": REG, "value": POINTER, "cpu": CPU}, 1, _FAULT_IN, interrupts=_PREEMPTIONS, points=8
    ),
    m.GetOneReg: Shape({"vcpu": VCPU, "reg": REG, "cpu": CPU}, 1, _FAULT_OUT, interrupts=_PREEMPTIONS, points=8),
    m.GetRegList: Shape(
        {"vcpu": VCPU, "n": Domain((1, 0), (2, (1 << 64) - 1)), "cpu": CPU}, 0.4, _FAULT_OUT, deepest=2
    ),
    m.SetSregs: Shape(
        {"vcpu": VCPU, "wp": BOOLEAN, "cet": BOOLEAN, "cpu": CPU}, 0.7, interrupts=_PREEMPTIONS, points=4
    ),
    m.Init: Shape({"vcpu": VCPU}, 0.5, interrupts=_PREEMPTIONS, points=10),
    m.Reset: Shape({"vcpu": VCPU, "cpu": CPU}, 0.5, interrupts=_PREEMPTIONS, points=10),
    m.GetMpState: Shape({"vcpu": VCPU, "init": Domain((True, False)), "cpu": CPU}, 0.5, interrupts=_PREEMPTIONS),
    m.GetXsave: Shape({"vcpu": VCPU, "cpu": CPU}, 0.2),
    m.SetXsave: Shape({"vcpu": VCPU, "component": Domain((k.CET_S, k.CET_U, 2)), "words": WORDS, "cpu": CPU}, 0.3),
    m.Emulate: Shape({"vcpu": VCPU, "instruction": Domain(m.EMULATED), "user": BOOLEAN}, 1),
    m.Smi: Shape({"vcpu": VCPU}, 0.4, interrupts=_PREEMPTIONS, points=4),
    m.Rsm: Shape({"vcpu": VCPU, "ssp": SAVED_SSP}, 0.8),
    m.NestedEnter: Shape({"vcpu": VCPU, "area": AREA}, 1, interrupts=_PREEMPTIONS, points=12),
    m.NestedExit: Shape({"vcpu": VCPU}, 0.7, interrupts=_PREEMPTIONS, points=12),
    m.SetNestedState: Shape({"vcpu": VCPU, "area": AREA, "cpu": CPU}, 0.4),
    m.Vmread: Shape({"vcpu": VCPU, "field": Domain((k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE))}, 0.3),
    m.Migrate: Shape({"vcpu": VCPU, "order": Domain((0, 1, 2)), "cpu": CPU}, 0.5),
    m.SetCpuid: Shape({"vcpu": VCPU, "cpuid": CPUID, "cpu": CPU}, 0.5, interrupts=_PREEMPTIONS, points=4),
    m.SetFilter: Shape({"vcpu": VCPU, "denied": DENIED}, 0.3),
    m.Create: Shape({"vcpu": VCPU, "cpuid": CPUID}, 0.7, (("alloc_guest_fpstate", (-k.ENOMEM,)),)),
    m.Destroy: Shape({"vcpu": VCPU}, 0.2),
    m.VendorInit: Shape({"host": HOST}, 1),
    m.SupportedXss: Shape({}, 0.1),
    m.MsrIndexList: Shape({}, 0.1),
    m.NestedCapabilities: Shape({}, 0.1),
}


# -- steps that fit the state


def suggest(state: State, random: Random) -> Step | None:
    """Tagged writes, reads, swaps and preemption windows of the vCPUs there are."""
    present = [slot for slot, v in enumerate(state.vcpus) if v is not None and not v.dead]
    if not present:
        return None
    slot = random.choice(present)
    v = state.vcpus[slot]
    assert v is not None
    cpu = int(random.random() < 0.25)
    if not v.live:
        return _suggest_idle(slot, cpu, random)
    return _suggest_live(v, slot, cpu, random)


def _suggest_idle(slot: int, cpu: int, random: Random) -> Step:
    during = _preempted(slot, cpu, random, 10)
    msr = random.choice(k.POINTER_MSRS)
    chance = random.random()
    if chance < 0.5:
        return Step(m.Run(slot, cpu), during=during)
    if chance < 0.7:
        value = 0 if random.random() < 0.25 else tag(slot, msr, random.randrange(1, 4))
        return Step(m.SetMsrs(slot, ((msr, value),), cpu), during=during)
    indices = (msr,) if chance < 0.85 else k.MSRS
    return Step(m.GetMsrs(slot, indices, cpu), during=during)


def _suggest_live(v: Vcpu, slot: int, cpu: int, random: Random) -> Step:
    msr = random.choice((*k.POINTER_MSRS, k.S_CET, k.U_CET, k.INT_SSP_TAB))
    emulated = random.random() < 0.3
    chance = random.random()
    if chance < 0.1:
        return Step(m.Leave(slot), during=_preempted(slot, cpu, random, 12))
    if chance < 0.18:
        return Step(m.Preempt(slot, cpu))
    if chance < 0.5:
        value = tag(slot, msr, random.randrange(1, 4))
        if msr in k.CONTROL_MSRS:
            value = random.choice((1, 3, 5, 0x4001))
        return Step(m.Wrmsr(slot, msr, 0 if random.random() < 0.2 else value, emulated))
    if chance < 0.6 and v.xss:
        if not v.regs[XSS]:
            return Step(m.Wrmsr(slot, k.XSS, v.xss))
        words = tuple(tag(slot, pointer, random.randrange(4, 7)) for pointer in k.POINTER_MSRS[:3])
        return Step(m.Xrstors(slot, k.CET_S, words if random.random() < 0.8 else ()))
    if chance < 0.65:
        return Step(m.WriteSsp(slot, tag(slot, 0xF, random.randrange(1, 4)))) if v.shstk else Step(m.Exit(slot))
    if chance < 0.7 and v.shstk:
        return Step(m.ReadSsp(slot))
    return Step(m.Rdmsr(slot, msr, emulated))


def _preempted(slot: int, cpu: int, random: Random, points: int) -> tuple[tuple[int, Step], ...]:
    """Now and then a preemption of the vCPU itself, somewhere in the middle."""
    if random.random() < 0.6:
        return ()
    return ((random.randrange(points), Step(m.Window(slot, cpu))),)


# -- small worlds

A0, A1, A2 = tag(0, k.PL0_SSP), tag(0, k.PL1_SSP), tag(0, k.PL2_SSP)
B0, B1 = tag(1, k.PL0_SSP), tag(1, k.PL1_SSP)


def _windows(op: object, points: range, slot: int = 0) -> tuple[Step, ...]:
    """The operation by itself, and with a preemption of its own vCPU at each of these points."""
    return (Step(op), *(Step(op, during=((point, Step(m.Window(slot))),)) for point in points))


def _core() -> tuple[Step, ...]:
    """One vCPU with two pointers: every path by which they are written, read, saved and lost."""
    return (
        Step(m.Rdmsr(0, k.PL0_SSP)),
        Step(m.Rdmsr(0, k.PL0_SSP, emulated=True)),
        Step(m.Rdmsr(0, k.PL1_SSP)),
        Step(m.GetMsrs(0, (k.PL0_SSP,))),
        Step(m.GetMsrs(0, (k.PL1_SSP,))),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        Step(m.Wrmsr(0, k.PL0_SSP, 0)),
        Step(m.Wrmsr(0, k.PL0_SSP, 0, emulated=True)),
        Step(m.Leave(0)),
        Step(m.Init(0)),
        Step(m.SetMsrs(0, ((k.PL1_SSP, A1),))),
        Step(m.SetMsrs(0, ((k.PL0_SSP, A0),))),
        Step(m.Wrmsr(0, k.XSS, 0x1000)),
        Step(m.Xrstors(0, k.CET_S, (A0, A1, A2))),
        Step(m.Preempt(0)),
        Step(m.Preempt(0, 1)),
        Step(m.HostTask(0)),
        Step(m.Exit(0)),
        Step(m.GetMpState(0, True)),
    )


def _torn() -> tuple[Step, ...]:
    """One vCPU with one pointer and a preemption at every point of every ioctl and intercepted write."""
    return (
        Step(m.Rdmsr(0, k.PL0_SSP)),
        Step(m.GetMsrs(0, (k.PL1_SSP,))),
        *_windows(m.GetMsrs(0, (k.PL0_SSP,)), range(9)),
        *_windows(m.Run(0), range(6)),
        *_windows(m.Leave(0), range(16)),
        Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        *_windows(m.Wrmsr(0, k.PL0_SSP, A0, emulated=True), range(8)),
        *_windows(m.SetMsrs(0, ((k.PL1_SSP, A1),)), range(9)),
    )


def _pair(windows: range) -> tuple[Step, ...]:
    """Two vCPUs that share a physical CPU."""
    steps: list[Step] = []
    for slot, value in ((0, A1), (1, B1)):
        steps += [
            Step(m.Run(slot)),
            *_windows(m.Leave(slot), windows, slot),
            Step(m.Wrmsr(slot, k.PL1_SSP, value)),
            Step(m.Rdmsr(slot, k.PL1_SSP)),
            *_windows(m.GetMsrs(slot, k.POINTER_MSRS), windows, slot),
            Step(m.Wrmsr(slot, k.PL2_SSP, tag(slot, k.PL2_SSP), emulated=True)),
        ]
        if len(windows) > 1:
            steps += [
                Step(m.HostTask(0)),
                Step(m.Wrmsr(slot, k.XSS, 0x1000)),
                Step(m.Xrstors(slot, k.CET_S, (0, value, 0))),
                Step(m.SetMsrs(slot, ((k.PL1_SSP, value),))),
                Step(m.Preempt(slot, 1)),
                Step(m.Init(slot)),
            ]
    return tuple(steps)


BITS = (0, *(1 << bit for bit in range(64)))


def _values(msr: int) -> tuple[int, ...]:
    """Each bit by itself, and the edges that matter for this register."""
    if msr in k.CONTROL_MSRS:
        return (*BITS, *CONTROL_EDGES)
    return (*BITS, *(XSS_EDGES if msr == k.XSS else POINTER_EDGES))


TESTED = (k.U_CET, k.S_CET, k.PL0_SSP, k.PL3_SSP, k.INT_SSP_TAB, k.XSS)
"""Registers whose values are tried without gaps; PL1_SSP and PL2_SSP get the edges."""
PAIRS = tuple(1 << high | 1 << low for high in range(16) for low in range(high))
"""Pairs of the low bits of U_CET and S_CET."""


def _host_values() -> Iterator[Step]:
    """Edges first, then each bit."""
    for value in POINTER_EDGES:
        yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, value))
    for msr in k.MSRS:
        for value in CONTROL_EDGES if msr in k.CONTROL_MSRS else POINTER_EDGES:
            yield Step(m.SetMsrs(0, ((msr, value),)))
    for value in BITS:
        yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, value))
    for msr in TESTED:
        for value in _values(msr):
            yield Step(m.SetMsrs(0, ((msr, value),)))
    for value in PAIRS:
        yield Step(m.SetMsrs(0, ((k.S_CET, value),)))
    for msr in (k.U_CET, k.PL0_SSP):
        for value in CONTROL_EDGES if msr == k.U_CET else POINTER_EDGES:
            yield Step(m.SetOneReg(0, k.ONE_REG_MSR | msr, value))
    for msr in k.MSRS:
        yield Step(m.GetMsrs(0, (msr,)))


def _guest_values() -> Iterator[Step]:
    yield Step(m.Run(0))
    for msr in (*k.MSRS, k.INTERNAL_GUEST_SSP):
        yield Step(m.Rdmsr(0, msr))
        yield Step(m.Rdmsr(0, msr, emulated=True))
    for msr in (*k.MSRS, k.INTERNAL_GUEST_SSP):
        for value in _values(msr) if msr in TESTED else POINTER_EDGES:
            yield Step(m.Wrmsr(0, msr, value, emulated=True))
        for value in CONTROL_EDGES if msr in k.CONTROL_MSRS else POINTER_EDGES:
            yield Step(m.Wrmsr(0, msr, value))
    for value in PAIRS:
        yield Step(m.Wrmsr(0, k.U_CET, value, emulated=True))


def _nested() -> tuple[Step, ...]:
    """Every area, accepted or refused."""
    return (Step(m.Run(0)), *(Step(m.NestedEnter(0, area)) for area in AREAS))


def _switches() -> tuple[Step, ...]:
    """Few areas, and all that may happen before, in and after L2."""
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.Rdmsr(0, k.INT_SSP_TAB)),
        Step(m.ReadSsp(0)),
        Step(m.Rdmsr(0, k.PL3_SSP)),
        Step(m.Run(0)),
        Step(m.Leave(0)),
        *(Step(m.NestedEnter(0, area)) for area in AREAS[:4]),
        Step(m.SetSregs(0, True, False)),
        Step(m.SetNestedState(0, replace(AREAS[0], cet=False))),
        Step(m.NestedExit(0)),
        Step(m.Wrmsr(0, k.S_CET, 3)),
        Step(m.Wrmsr(0, k.INT_SSP_TAB, A1)),
        Step(m.Wrmsr(0, k.PL3_SSP, A0)),
        Step(m.SetMsrs(0, ((k.S_CET, 1),))),
    )


def _control() -> tuple[Step, ...]:
    """CR0.WP and CR4.CET by every way there is."""
    return (
        Step(m.Run(0)),
        Step(m.Leave(0)),
        *(Step(m.MovCr0(0, wp)) for wp in (True, False)),
        *(Step(m.MovCr4(0, cet, owned)) for cet, owned in product((True, False), repeat=2)),
        *(Step(m.SetSregs(0, wp, cet)) for wp, cet in product((True, False), repeat=2)),
        Step(m.WriteSsp(0, A0)),
        Step(m.Wrmsr(0, k.S_CET, 1)),
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.ReadSsp(0)),
        Step(m.Reset(0)),
    )


def _smm() -> tuple[Step, ...]:
    """SMM, with what the handler may do to the save area and to CR0.WP."""
    return (
        Step(m.Run(0)),
        *(Step(m.MovCr0(0, wp)) for wp in (True, False)),
        Step(m.MovCr4(0, True)),
        Step(m.WriteSsp(0, A0)),
        Step(m.ReadSsp(0)),
        Step(m.Smi(0)),
        *(Step(m.Rsm(0, ssp)) for ssp in (None, A1, 1, 2, 0xFFFF_8000_0000_0004, 0xAAAA_AAAA_AAAA_AAA8)),
        Step(m.Rdmsr(0, k.INTERNAL_GUEST_SSP)),
        Step(m.Wrmsr(0, k.S_CET, 1)),
        Step(m.Rdmsr(0, k.S_CET)),
    )


def _emulator() -> tuple[Step, ...]:
    """Every instruction under every combination of what makes CET active."""
    return (
        *(Step(m.Emulate(0, name, user)) for name, user in product(m.EMULATED, (False, True))),
        Step(m.SetSregs(0, True, True)),
        Step(m.Run(0)),
        Step(m.WriteSsp(0, 1 << 32)),
        Step(m.WriteSsp(0, 0xFFFF_FFFC)),
        *(Step(m.Wrmsr(0, k.S_CET, value)) for value in (1, 4, 5, 0)),
        *(Step(m.Wrmsr(0, k.U_CET, value)) for value in (1, 4)),
    )


def _setting_up() -> tuple[Step, ...]:
    """CPUID, the filter, creation and destruction, and what the guest sees of them."""
    return (
        *map(Step, _VMREADS),
        Step(m.CpuidSize(0)),
        Step(m.Run(0)),
        *(Step(m.Wrmsr(0, k.XSS, value)) for value in (0x1800, 0x800, 0x1000)),
        *(Step(m.Rdmsr(0, msr)) for msr in k.MSRS),
        Step(m.Leave(0)),
        *(Step(m.SetCpuid(0, cpuid)) for cpuid in CPUID.values),
        *(Step(m.SetFilter(0, denied)) for denied in DENIED.values),
        Step(m.Destroy(0)),
        Step(m.Create(0)),
        Step(m.Create(0), (Fault("alloc_guest_fpstate", -k.ENOMEM),)),
    )


def _filtered() -> tuple[Step, ...]:
    """What follows the filter, and what follows a CPUID, in every order."""
    return (
        Step(m.SetFilter(0, (k.PL0_SSP, k.S_CET))),
        Step(m.SetCpuid(0, SHSTK_ONLY)),
        Step(m.Reset(0)),
        Step(m.Run(0)),
        Step(m.Rdmsr(0, k.PL0_SSP)),
    )


def _bypass() -> tuple[Step, ...]:
    """XRSTORS, which no intercept sees."""
    return (
        Step(m.Rdmsr(0, k.PL0_SSP)),
        Step(m.Xsaves(0, k.CET_S)),
        Step(m.GetMsrs(0, (k.PL0_SSP,))),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.XSS, 0x1000)),
        Step(m.SetMsrs(0, ((k.XSS, 0x1000),))),
        Step(m.Xrstors(0, k.CET_S, (A0, A1, A2))),
        Step(m.Leave(0)),
        Step(m.Preempt(0, 1)),
        Step(m.Rdmsr(0, k.PL0_SSP, emulated=True)),
    )


FITTING = {
    k.U_CET: 0xFFFF_FFFF_FFFF_C43F,
    k.S_CET: 0xFFFF_FFFF_FFFE_C83F,
    **{msr: 0xFFFF_FFFF_FFFF_FFFC ^ (msr & 0xF) << 16 for msr in k.POINTER_MSRS},
    k.INT_SSP_TAB: 0xFFFF_FFFF_FFF7_FFFF,
    k.XSS: 0x1800,
}
"""A value for each MSR with as many bits as it may have, so that one which gets lost is missed; no two are alike."""
PLAIN = {**{msr: tag(0, msr) for msr in k.MSRS}, k.U_CET: 1, k.S_CET: 1, k.XSS: 0x800}
"""A value for each MSR that most vCPUs with the feature take."""


def _registers_of_host() -> Iterator[Step]:
    """Each register set and read by userspace."""
    yield from (Step(m.GetMsrs(0, (msr,))) for msr in k.MSRS)
    yield Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP))
    yield from (Step(m.SetMsrs(0, ((msr, value),))) for msr, value in FITTING.items())
    yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF)))


def _registers_of_guest() -> Iterator[Step]:
    """Each register written by the guest, then read, also across INIT and preemption."""
    yield from (Step(m.Rdmsr(0, msr)) for msr in k.MSRS)
    yield Step(m.ReadSsp(0))
    yield Step(m.Run(0))
    yield from (Step(m.Wrmsr(0, msr, value)) for msr, value in FITTING.items())
    yield from (Step(m.Wrmsr(0, msr, FITTING[msr], emulated=True)) for msr in (k.U_CET, k.S_CET, k.PL3_SSP))
    yield Step(m.WriteSsp(0, tag(0, 0xF)))
    yield from (Step(op) for op in (m.Init(0), m.Preempt(0, 1)))


def _presence() -> Iterator[Step]:
    """Every register there may be, by every way to it: what a vCPU has, and what it makes of what it has not."""
    for msr in (*k.MSRS, 0x6A9):
        reg = k.ONE_REG_MSR | msr
        yield Step(m.GetMsrs(0, (msr,)))
        yield Step(m.GetOneReg(0, reg))
        for value in (0, PLAIN.get(msr, 8)):
            yield Step(m.SetMsrs(0, ((msr, value),)))
            yield Step(m.SetOneReg(0, reg, value))
    yield Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP))
    yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, 0))
    yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, 0x1000))
    yield Step(m.SetSregs(0, True, True))
    yield Step(m.Run(0))
    for msr, emulated in product((*k.MSRS, 0x6A9, k.INTERNAL_GUEST_SSP), (False, True)):
        yield Step(m.Rdmsr(0, msr, emulated))
        for value in (0, PLAIN.get(msr, 8)):
            yield Step(m.Wrmsr(0, msr, value, emulated))


def _zero(msr: int) -> tuple[Step, ...]:
    """One register, written and cleared by every way to it."""
    values = (PLAIN[msr], 0)
    return (
        Step(m.Rdmsr(0, msr)),
        Step(m.Rdmsr(0, msr, emulated=True)),
        Step(m.GetMsrs(0, (msr,))),
        Step(m.Run(0)),
        Step(m.Leave(0)),
        *(Step(m.Wrmsr(0, msr, value, emulated)) for value, emulated in product(values, (False, True))),
        *(Step(m.SetMsrs(0, ((msr, value),))) for value in values),
    )


_ALL_READ = (
    *(Step(m.Rdmsr(0, msr)) for msr in k.MSRS),
    Step(m.ReadSsp(0)),
    Step(m.GetMsrs(0, k.MSRS)),
    Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
)


def _kept(values: dict[int, int], *between: object) -> tuple[Step, ...]:
    """Every register set at once, and read after operations that should change few of them or none."""
    sets = Step(m.SetMsrs(0, tuple(values.items()))), Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF)))
    return (*_ALL_READ, Step(m.Run(0)), *sets, *map(Step, between))


def _fitting(cpuid: m.Cpuid) -> dict[int, int]:
    """`FITTING` for a vCPU with these features."""
    bits = 3 * cpuid.shstk | ((1 << 64) - 4) * cpuid.ibt
    absent = () if cpuid.shstk else (*k.POINTER_MSRS, k.INT_SSP_TAB)
    return {
        msr: value & bits if msr in k.CONTROL_MSRS else value for msr, value in FITTING.items() if msr not in absent
    }


_CARRIED = m.Area(s_cet=1, ssp=0x2000, table=0x3000, cet=False, load=False, load_host=False)
_EXCHANGED = replace(_CARRIED, load=True, load_host=True, host_s_cet=2, host_ssp=0x4000, host_table=0x5000)
_VMREADS = tuple(m.Vmread(0, field) for field in (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE))
KEPT: dict[str, tuple[object, ...]] = {
    "control": (
        *(m.MovCr0(0, wp) for wp in (True, False)),
        *(m.MovCr4(0, cet, owned) for cet, owned in product((True, False), repeat=2)),
        *(m.SetSregs(0, True, cet) for cet in (True, False)),
    ),
    "smm": (m.SetSregs(0, True, True), m.Smi(0), m.Rsm(0), m.Rsm(0, 0), m.Rsm(0, 0x1234_5678), m.MovCr0(0, False)),
    "reset": (
        m.Leave(0),
        m.Init(0),
        m.Reset(0),
        m.GetMpState(0, True),
        *(m.Migrate(0, order) for order in (0, 1, 2)),
    ),
    "nested": (
        m.NestedEnter(0, _CARRIED),
        m.NestedEnter(0, _EXCHANGED),
        m.NestedEnter(0, replace(_EXCHANGED, intercepts=(k.PL0_SSP, k.S_CET))),
        m.NestedExit(0),
        *_VMREADS,
    ),
    "scheduling": (
        m.Leave(0),
        m.Preempt(0, 1),
        m.Halt(0, 1),
        m.Exit(0),
        m.HostTask(0),
        m.KernelFpu(0),
    ),
    "userspace": (
        m.SetFilter(0, (k.PL0_SSP,)),
        m.SetFilter(0),
        m.GetXsave(0),
        m.SetXsave(0, k.CET_S, (8, 16, 24)),
        m.SetXsave(0, k.CET_U, (1, 8)),
        m.SetXsave(0, 2),
        m.GetMpState(0, False),
        m.GetRegList(0, 1),
        m.SetCpuid(0),
        m.SetCpuid(0, NEITHER),
        m.Leave(0),
        m.Init(0),
        m.Reset(0),
    ),
}
"""By topic: operations that leave alone what they do not name."""


def _sizes() -> tuple[Step, ...]:
    """XSS through all its values, and the sizes that CPUID gives for them."""
    return (
        Step(m.CpuidSize(0)),
        Step(m.Rdmsr(0, k.XSS)),
        Step(m.Run(0)),
        Step(m.Leave(0)),
        *(Step(m.Wrmsr(0, k.XSS, value)) for value in (0x1800, 0x1000, 0x800, 0)),
        *(Step(m.SetMsrs(0, ((k.XSS, value),))) for value in (0x1000, 0)),
        Step(m.Xsaves(0, k.CET_S)),
        Step(m.Xsaves(0, k.CET_U)),
        *(Step(op) for op in (m.Init(0), m.Reset(0))),
    )


def _stale() -> tuple[Step, ...]:
    """A read that fails right after one that succeeded."""
    return (
        Step(m.SetMsrs(0, ((k.PL0_SSP, A0),))),
        Step(m.GetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP)),
        Step(m.GetOneReg(0, k.ONE_REG_MSR | 0x6A9)),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP | 1)),
        Step(m.GetMsrs(0, (k.PL0_SSP, 0x6A9))),
    )


def _recreated() -> tuple[Step, ...]:
    """What a vCPU leaves behind for the next one in its slot."""
    return (
        Step(m.GetMsrs(0, k.MSRS)),
        Step(m.SetMsrs(0, tuple(FITTING.items()))),
        Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF))),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
        Step(m.Destroy(0)),
        Step(m.Create(0)),
    )


def _struck(op: object, point: int) -> tuple[Step, ...]:
    """The operation, with its thread taken away at one point: and back, to the other physical CPU, or for a task."""
    return tuple(Step(op, during=((point, Step(by)),)) for by in (m.Window(0), m.Window(0, 1), m.HostTask(0)))


def _torn_leave(point: int) -> tuple[Step, ...]:
    """A value written and read back, with a preemption at one point of leaving KVM_RUN."""
    return (
        Step(m.GetMsrs(0, (k.PL0_SSP,))),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        *_struck(m.Leave(0), point),
    )


def _torn_write(point: int) -> tuple[Step, ...]:
    """A value that userspace set, with a preemption at one point of the guest's first write of another."""
    return (
        Step(m.Rdmsr(0, k.PL1_SSP)),
        Step(m.SetMsrs(0, ((k.PL1_SSP, A1),))),
        Step(m.Run(0)),
        *_struck(m.Wrmsr(0, k.PL0_SSP, A0), point),
    )


def _torn_run(point: int) -> tuple[Step, ...]:
    """A value that userspace set, with a preemption at one point of KVM_RUN."""
    return (
        Step(m.Rdmsr(0, k.PL1_SSP)),
        Step(m.SetMsrs(0, ((k.PL1_SSP, A1),))),
        Step(m.GetMsrs(0, (k.PL1_SSP,))),
        Step(m.Leave(0)),
        *_struck(m.Run(0), point),
    )


def _torn_access(point: int) -> tuple[Step, ...]:
    """A value written, with a preemption at one point of an emulated access."""
    return (
        Step(m.Rdmsr(0, k.PL0_SSP)),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        *_struck(m.Rdmsr(0, k.PL0_SSP, emulated=True), point),
        *_struck(m.Wrmsr(0, k.PL0_SSP, 8, emulated=True), point),
    )


def _torn_init(point: int) -> tuple[Step, ...]:
    """A value the guest wrote, with a preemption at one point of INIT."""
    return (
        Step(m.Rdmsr(0, k.PL0_SSP)),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        *_struck(m.Init(0), point),
    )


def _torn_reset(point: int) -> tuple[Step, ...]:
    """A value that userspace set, with a preemption at one point of RESET or of an INIT outside of KVM_RUN."""
    return (
        Step(m.GetMsrs(0, (k.PL0_SSP,))),
        Step(m.SetMsrs(0, ((k.PL0_SSP, A0),))),
        *_struck(m.Reset(0), point),
        *_struck(m.GetMpState(0, True), point),
    )


def _torn_ioctl(point: int) -> tuple[Step, ...]:
    """Values of guest and userspace, with a preemption at one point of reading or writing them."""
    return (
        Step(m.GetMsrs(0, (k.PL0_SSP, k.PL1_SSP))),
        Step(m.SetMsrs(0, ((k.PL0_SSP, A0),))),
        *_struck(m.GetMsrs(0, (k.PL0_SSP,)), point),
        *_struck(m.SetMsrs(0, ((k.PL1_SSP, A1), (k.PL2_SSP, A2))), point),
        *_struck(m.SetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP, 8), point),
        *_struck(m.GetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP), point),
    )


_TORN = {
    "leave": (_torn_leave, 16),
    "write": (_torn_write, 12),
    "run": (_torn_run, 12),
    "access": (_torn_access, 8),
    "init": (_torn_init, 16),
    "reset": (_torn_reset, 16),
    "ioctl": (_torn_ioctl, 12),
}
"""Operations that are torn, and the points at which they may be."""


_BAD_POINTER = (Fault("copy_from_user", -k.EFAULT),)


def _userspace() -> tuple[Step, ...]:
    """Every id, list capacity and batch shape, with no state but one pointer."""
    return (
        Step(m.SetMsrs(0, ((k.PL0_SSP, A0),))),
        *(Step(m.GetOneReg(0, reg)) for reg in REG.values),
        *(Step(m.SetOneReg(0, reg, 0)) for reg in REG.values),
        *(Step(m.GetRegList(0, n)) for n in (0, 1, 2, (1 << 64) - 1)),
        *(Step(m.GetMsrs(0, indices)) for indices in INDICES.values),
        *(Step(m.SetMsrs(0, entries)) for entries in ENTRIES.values if len(entries) != 1),
        *(Step(m.SetOneReg(0, reg, 0), _BAD_POINTER) for reg in REG.values),
        *(Step(m.GetOneReg(0, reg), (Fault("copy_to_user", -k.EFAULT),)) for reg in BAD_REGS),
        *(Step(m.GetRegList(0, 1), (Fault("copy_to_user", -k.EFAULT, nth),)) for nth in (1, 2)),
        Step(m.GetRegList(0, 1), _BAD_POINTER),
        Step(m.GetMsrs(0, (k.S_CET, k.PL1_SSP)), (Fault("copy_from_user", -k.EFAULT, 2),)),
        Step(m.SetMsrs(0, ((k.PL1_SSP, A1),)), (Fault("copy_from_user", -k.EFAULT, 2),)),
        Step(m.SetMsrs(0, ((k.PL1_SSP, A1),)), _BAD_POINTER),
        Step(m.GetMsrs(0, (k.PL0_SSP,)), (Fault("copy_to_user", -k.EFAULT),)),
        Step(m.GetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP), (Fault("copy_to_user", -k.EFAULT),)),
        *(Step(m.Migrate(0, order)) for order in (0, 1, 2)),
        Step(m.GetXsave(0)),
        Step(m.SetXsave(0, k.CET_S, (A0, A1, 0))),
        Step(m.SetXsave(0, k.CET_U, (1, A0))),
    )


def _needs(steps: tuple[Step, ...]) -> frozenset[str]:
    """What a candidate must have to take all of these steps."""
    return frozenset[str]().union(*(m.NEEDS.get(type(step.op), frozenset()) for step in steps))


def _others() -> tuple[Step, ...]:
    """One vCPU, with all its registers set, beside another with which everything happens, on one physical CPU."""
    other = {msr: value ^ (1 << 32 if msr in k.POINTER_MSRS else 0) for msr, value in FITTING.items()} | {k.XSS: 0x1000}
    return (
        Step(m.GetMsrs(0, k.MSRS)),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
        Step(m.ReadSsp(0)),
        Step(m.Rdmsr(0, k.XSS)),
        Step(m.Rdmsr(0, k.PL0_SSP)),
        Step(m.Rdmsr(0, k.INTERNAL_GUEST_SSP)),
        Step(m.CpuidSize(0)),
        Step(m.Xrstors(0, k.CET_S, (A0, A1, A2))),
        Step(m.SetMsrs(0, tuple(FITTING.items()))),
        Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF))),
        Step(m.SetCpuid(0, SHSTK_ONLY)),
        Step(m.SetFilter(0, (k.PL0_SSP,))),
        Step(m.Run(0)),
        Step(m.Run(1)),
        Step(m.SetMsrs(1, tuple(other.items()))),
        Step(m.Wrmsr(1, k.XSS, 0x1000)),
        Step(m.WriteSsp(1, tag(1, 0xF))),
        Step(m.SetFilter(1, (k.PL0_SSP, k.XSS))),
        Step(m.SetCpuid(1, NEITHER)),
        Step(m.MovCr0(1, True)),
        *(Step(op) for op in (m.Smi(1), m.Rsm(1), m.Init(1), m.NestedEnter(1, _EXCHANGED), m.NestedExit(1))),
        *(Step(op) for op in (m.Leave(1), m.Reset(1), m.Destroy(1), m.Create(1), m.Migrate(1))),
    )


def _nested_pair() -> tuple[Step, ...]:
    """Two vCPUs that are in L2 at once, each with an L1 of its own."""
    return (
        *(Step(m.Rdmsr(vcpu, k.S_CET)) for vcpu in (0, 1)),
        *(Step(m.Run(vcpu)) for vcpu in (0, 1)),
        Step(m.MovCr0(1, True)),
        Step(m.NestedEnter(0, _EXCHANGED)),
        Step(m.NestedEnter(1, replace(_CARRIED, s_cet=2, intercepts=(k.PL0_SSP,)))),
        *(Step(m.NestedExit(vcpu)) for vcpu in (0, 1)),
    )


def _migrated_svm() -> tuple[Step, ...]:
    """A vmcb12 that has not changed since the last VMRUN, on a vCPU that never ran it."""
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.Run(0)),
        Step(m.NestedEnter(0, _EXCHANGED)),
        Step(m.NestedEnter(0, replace(_EXCHANGED, clean=True))),
        Step(m.NestedExit(0)),
        Step(m.Leave(0)),
        Step(m.Migrate(0)),
    )


WITHOUT_CET = m.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False, xss=0)
PRESENCE = {
    "both": m.Config(vcpus=(m.Cpuid(),)),
    "shstk": m.Config(vcpus=(SHSTK_ONLY,)),
    "ibt": m.Config(vcpus=(IBT_ONLY,)),
    "neither": m.Config(vcpus=(NEITHER,)),
    "no-lm": m.Config(vcpus=(m.Cpuid(lm=False),)),
    "no-xsaves": m.Config(vcpus=(m.Cpuid(xsaves=False, xss=0),)),
    "half-xss": m.Config(vcpus=(m.Cpuid(xss=0x800),)),
    "host-no-lm": m.Config(m.Host(lm=False), (m.Cpuid(),)),
    "host-no-ibt": m.Config(m.Host(ibt=False), (m.Cpuid(),)),
    "host-no-tdp": m.Config(m.Host(tdp=False), (m.Cpuid(),)),
    "host-no-xsaves": m.Config(m.Host(xsaves=False), (m.Cpuid(),)),
    "host-no-cet": m.Config(WITHOUT_CET, (m.Cpuid(),)),
    "amd": m.Config(m.Host(vendor="amd"), (m.Cpuid(),)),
    "amd-neither": m.Config(AMD, (NEITHER,)),
    "ignoring-neither": m.Config(vcpus=(NEITHER,), ignore_msrs=True),
    "ignoring-ibt": m.Config(vcpus=(m.Cpuid(shstk=False, xsaves=False, xss=0),), ignore_msrs=True),
}
"""Worlds in which registers are there or not, each for another reason."""


def _scopes() -> dict[str, Scope]:
    probes = (m.SupportedXss(), m.MsrIndexList(), m.NestedCapabilities())
    loading = (*(Step(m.VendorInit(host)) for host in HOSTS), *map(Step, probes))
    one, svm = m.Config(vcpus=(m.Cpuid(),)), m.Config(AMD, (SHSTK_ONLY,))
    two = m.Config(vcpus=(m.Cpuid(), m.Cpuid()))
    ignoring = m.Config(vcpus=(NEITHER,), ignore_msrs=True)
    nested, one_reg = frozenset({"nested"}), frozenset({"one-reg"})
    scopes = {
        "core": Scope(one, _core()),
        "bypass": Scope(one, _bypass()),
        "bypass-neither": Scope(m.Config(vcpus=(NEITHER,)), (*_bypass(), Step(m.HostTask(0)))),
        "torn": Scope(one, _torn(), depth=5),
        "pair": Scope(two, _pair(range(4, 5)), depth=6),
        "control": Scope(one, _control()),
        "registers-host": Scope(one, tuple(_registers_of_host()), depth=3, needs=one_reg),
        "registers-guest": Scope(one, tuple(_registers_of_guest()), depth=4),
        "recreated": Scope(one, _recreated(), depth=6, needs=one_reg),
        "stale-reads": Scope(one, _stale(), sequences=3, needs=one_reg),
        "control-ibt": Scope(m.Config(vcpus=(IBT_ONLY,)), _control()),
        "control-neither": Scope(m.Config(vcpus=(NEITHER,)), _control()),
        "smm": Scope(one, _smm(), depth=6, needs=frozenset({"smm"})),
        "smm-ibt": Scope(m.Config(vcpus=(IBT_ONLY,)), _smm(), depth=5, needs=frozenset({"smm"})),
        "emulator": Scope(one, _emulator(), depth=5, needs=frozenset({"emulator"})),
        "setting-up": Scope(one, _setting_up(), depth=3),
        "filtered": Scope(one, _filtered(), sequences=4),
        "setting-up-sev-es": Scope(m.Config(m.Host(vendor="amd", sev_es=True), (m.Cpuid(),)), _setting_up(), depth=3),
        "setting-up-without-cet": Scope(PRESENCE["host-no-cet"], _setting_up(), depth=2),
        "capabilities": Scope(m.Config(vcpus=()), loading, depth=2),
        "nested-vmx": Scope(one, _nested(), depth=2, needs=nested),
        "nested-svm": Scope(svm, _nested(), depth=2, needs=nested),
        "switches-vmx": Scope(one, _switches(), depth=5, needs=nested),
        "switches-svm": Scope(svm, _switches(), depth=5, needs=nested),
        "nested-pair-vmx": Scope(two, _nested_pair(), depth=7, needs=nested),
        "nested-pair-svm": Scope(m.Config(AMD, (SHSTK_ONLY, SHSTK_ONLY)), _nested_pair(), depth=7, needs=nested),
        "others": Scope(two, _others(), depth=4),
        "migrated-svm": Scope(svm, _migrated_svm(), depth=8, needs=nested | one_reg),
        "userspace-ignoring": Scope(ignoring, _userspace(), depth=1, needs=one_reg),
        "guest-values-ignoring": Scope(ignoring, tuple(_guest_values()), depth=2),
        "pair-wide": Scope(two, _pair(range(12)), depth=7, in_gate=False),
    }
    scopes |= {f"presence-{name}": Scope(config, tuple(_presence()), depth=2) for name, config in PRESENCE.items()}
    worlds = {"": one, "-ibt": m.Config(vcpus=(IBT_ONLY,)), "-shstk": m.Config(vcpus=(SHSTK_ONLY,)), "-amd": svm}
    for (topic, between), (name, config) in product(KEPT.items(), worlds.items()):
        if not name or topic in ("reset", "control", "nested"):
            steps = _kept(_fitting(config.vcpus[0]), *between)
            scopes[f"kept-{topic}{name}"] = Scope(config, steps, depth=7, needs=_needs(steps))
    scopes["sizes"] = Scope(one, _sizes(), depth=5)
    scopes |= {f"zero-{msr:x}": Scope(one, _zero(msr), depth=4) for msr in k.MSRS}
    la57 = m.Config(m.Host(la57=True, s_cet=4), (m.Cpuid(),))
    no_xsaves = m.Config(vcpus=(m.Cpuid(xsaves=False, xss=0),))
    scopes["host-values-la57"] = Scope(la57, tuple(_host_values()), depth=1, needs=one_reg)
    scopes["nested-vmx-la57"] = Scope(la57, _nested(), depth=2, needs=nested)
    scopes["userspace-no-xsaves"] = Scope(no_xsaves, _userspace(), depth=1, needs=one_reg)
    features = {"both": m.Cpuid(), "shstk": SHSTK_ONLY, "ibt": IBT_ONLY, "neither": NEITHER, "no-lm": m.Cpuid(lm=False)}
    for name, cpuid in features.items():
        config = m.Config(vcpus=(cpuid,))
        scopes[f"userspace-{name}"] = Scope(config, _userspace(), depth=2, needs=one_reg)
        scopes[f"host-values-{name}"] = Scope(config, tuple(_host_values()), depth=1, needs=one_reg)
        scopes[f"guest-values-{name}"] = Scope(config, tuple(_guest_values()), depth=2)
    scopes |= {
        f"torn-{name}-{point}": Scope(one, steps(point), depth=3 if name in ("reset", "ioctl") else 4)
        for name, (steps, points) in _TORN.items()
        for point in range(points)
    }
    for name in ("shstk", "ibt"):
        scopes[f"nested-vmx-{name}"] = Scope(m.Config(vcpus=(features[name],)), _nested(), depth=2, needs=nested)
    return scopes


_TWO = m.Config(vcpus=(m.Cpuid(), m.Cpuid()))
_BOTH_IN_GUEST = (Step(m.Run(0, 0)), Step(m.Run(1, 1)))
STARTS: tuple[tuple[m.Config, tuple[Step, ...]], ...] = (
    (_TWO, _BOTH_IN_GUEST),
    (_TWO, (*_BOTH_IN_GUEST, Step(m.Wrmsr(0, k.PL0_SSP, A0)), Step(m.Wrmsr(1, k.PL0_SSP, A1)))),
    (_TWO, (Step(m.Run(0, 0)),)),
    (_TWO, ()),
)
"""Where two vCPUs on two physical CPUs meet: both in the guest, one, or neither."""


def _races() -> dict[str, Race]:
    """Two vCPUs on two physical CPUs, each doing what touches registers that they could share by mistake."""
    steps = {
        "wrmsr": Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        "emulated": Step(m.Wrmsr(0, k.PL0_SSP, A0, emulated=True)),
        "rdmsr": Step(m.Rdmsr(0, k.PL0_SSP, emulated=True)),
        "leave": Step(m.Leave(0)),
        "exit": Step(m.Exit(0)),
    }
    others = {
        "wrmsr": Step(m.Wrmsr(1, k.PL0_SSP, A1, emulated=True)),
        "leave": Step(m.Leave(1)),
        "exit": Step(m.Exit(1)),
    }
    races = {
        f"{name}-{other}": Race(_TWO, _BOTH_IN_GUEST, left, right)
        for name, left in steps.items()
        for other, right in others.items()
    }
    sets = Step(m.SetMsrs(0, ((k.PL0_SSP, A0),), 0)), Step(m.SetMsrs(1, ((k.PL0_SSP, A1),), 1))
    gets = Step(m.GetMsrs(0, (k.PL0_SSP, k.U_CET), 0)), Step(m.GetMsrs(1, (k.PL0_SSP, k.U_CET), 1))
    races["run-run"] = Race(_TWO, (), Step(m.Run(0, 0)), Step(m.Run(1, 1)))
    races["run-set"] = Race(_TWO, (), Step(m.Run(0, 0)), sets[1])
    races["set-set"] = Race(_TWO, (), *sets)
    races["set-get"] = Race(_TWO, (), sets[0], gets[1])
    races["get-wrmsr"] = Race(_TWO, (_BOTH_IN_GUEST[1],), gets[0], others["wrmsr"])
    races["get-leave"] = Race(_TWO, (_BOTH_IN_GUEST[1],), gets[0], others["leave"])
    pl0, table = k.ONE_REG_MSR | k.PL0_SSP, k.ONE_REG_MSR | k.INT_SSP_TAB
    stored = (Step(m.SetMsrs(0, ((k.PL0_SSP, A0),), 0)), Step(m.SetMsrs(1, ((k.PL0_SSP, A1),), 1)))
    set_regs = Step(m.SetOneReg(0, pl0, A0, 0)), Step(m.SetOneReg(1, table, A1, 1))
    get_regs = Step(m.GetOneReg(0, pl0, 0)), Step(m.GetOneReg(1, pl0, 1))
    races["set-reg-set-reg"] = Race(_TWO, (), *set_regs, switches=1)
    races["get-get"] = Race(_TWO, stored, *gets, switches=1)
    races["get-reg-get-reg"] = Race(_TWO, stored, *get_regs)
    races["get-reg-wrmsr"] = Race(_TWO, (*stored, _BOTH_IN_GUEST[1]), get_regs[0], others["wrmsr"], switches=1)
    both = (*stored, *_BOTH_IN_GUEST)
    races["init-wrmsr"] = Race(_TWO, both, Step(m.Init(0)), others["wrmsr"], switches=1)
    races["init-leave"] = Race(_TWO, both, Step(m.Init(0)), others["leave"], switches=1)
    enabled = (*both, Step(m.Wrmsr(0, k.XSS, 0x1000)), Step(m.Wrmsr(1, k.XSS, 0x800)))
    races["xss-xss"] = Race(_TWO, enabled, steps["exit"], others["exit"])
    races["xss-wrmsr"] = Race(_TWO, enabled, Step(m.Wrmsr(0, k.XSS, 0x1800)), others["exit"])
    wide = (*_BOTH_IN_GUEST, Step(m.MovCr0(1, True)), Step(m.MovCr4(1, True)))
    races["smi-smi"] = Race(_TWO, wide, Step(m.Smi(0)), Step(m.Smi(1)), switches=1)
    in_smm = (*wide, Step(m.Smi(0)), Step(m.Smi(1)))
    races["rsm-rsm"] = Race(_TWO, in_smm, Step(m.Rsm(0)), Step(m.Rsm(1)), switches=1)
    areas = replace(_CARRIED, s_cet=2), replace(_EXCHANGED, intercepts=(k.PL0_SSP,))
    entries = Step(m.NestedEnter(0, areas[0])), Step(m.NestedEnter(1, areas[1]))
    races["enter-enter"] = Race(_TWO, both, *entries, switches=1)
    in_l2 = (*both, *entries)
    races["exit-l2-exit-l2"] = Race(_TWO, in_l2, Step(m.NestedExit(0)), Step(m.NestedExit(1)), switches=1)
    return races


RACES = _races()
"""Pairs whose schedules of up to two switches are all tried, in both orders of starting."""

AFTERWARDS = (
    *(Step(m.Run(vcpu, vcpu)) for vcpu in (0, 1)),
    *(Step(m.Rdmsr(vcpu, msr)) for vcpu in (0, 1) for msr in k.MSRS),
    *(Step(m.ReadSsp(vcpu)) for vcpu in (0, 1)),
)
"""What the guests read once both run again."""


SCOPES = _scopes()


# -- Hypothesis strategies, for the machine


def configs() -> st.SearchStrategy[m.Config]:
    """Worlds, plainest first."""
    return st.sampled_from(CONFIGS)


def operations(kind: type) -> st.SearchStrategy[object]:
    """One kind of operation with fields from their domains; shrinks towards the plainest values."""
    return st.builds(kind, **{name: domain.strategy() for name, domain in SHAPES[kind].fields.items()})


def preemptions() -> st.SearchStrategy[tuple[tuple[int, Step], ...]]:
    """Nothing in the middle of an operation, or one preemption at one of its points."""
    inner = st.builds(
        lambda point, vcpu, cpu: ((point, Step(m.Window(vcpu, cpu))),),
        st.integers(0, 11),
        VCPU.strategy(),
        CPU.strategy(),
    )
    return st.one_of(st.just(()), inner)
