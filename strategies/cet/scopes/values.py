"""Steps for small worlds: every register with every value that matters, by every way to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from conformance.model.cet import operations as m
from conformance.model.step import Fault, Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import (
    A0,
    A1,
    AMD,
    BAD_REGS,
    CONTROL_EDGES,
    ENTRIES,
    IBT_ONLY,
    INDICES,
    NEITHER,
    POINTER_EDGES,
    REG,
    SHSTK_ONLY,
    WITHOUT_CET,
    XSS_EDGES,
    tag,
)

BITS = (0, *(1 << bit for bit in range(64)))


def values_of(msr: int) -> tuple[int, ...]:
    """Each bit by itself, and the edges that matter for this register."""
    if msr in k.CONTROL_MSRS:
        return (*BITS, *CONTROL_EDGES)
    return (*BITS, *(XSS_EDGES if msr == k.XSS else POINTER_EDGES))


TESTED = (k.U_CET, k.S_CET, k.PL0_SSP, k.PL3_SSP, k.INT_SSP_TAB, k.XSS)
"""Registers whose values are tried without gaps; PL1_SSP and PL2_SSP get the edges."""
PAIRS = tuple(1 << high | 1 << low for high in range(16) for low in range(high))
"""Pairs of the low bits of U_CET and S_CET."""


def host_values() -> Iterator[Step]:
    """Edges first, then each bit."""
    for value in POINTER_EDGES:
        yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, value))
    for msr in k.MSRS:
        for value in CONTROL_EDGES if msr in k.CONTROL_MSRS else POINTER_EDGES:
            yield Step(m.SetMsrs(0, ((msr, value),)))
    for value in BITS:
        yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, value))
    for msr in TESTED:
        for value in values_of(msr):
            yield Step(m.SetMsrs(0, ((msr, value),)))
    for value in PAIRS:
        yield Step(m.SetMsrs(0, ((k.S_CET, value),)))
    for msr in (k.U_CET, k.PL0_SSP):
        for value in CONTROL_EDGES if msr == k.U_CET else POINTER_EDGES:
            yield Step(m.SetOneReg(0, k.ONE_REG_MSR | msr, value))
    for msr in k.MSRS:
        yield Step(m.GetMsrs(0, (msr,)))


def guest_values() -> Iterator[Step]:
    """Every register read and written by the guest, with and without the emulator."""
    yield Step(m.Run(0))
    for msr in (*k.MSRS, k.INTERNAL_GUEST_SSP):
        yield Step(m.Rdmsr(0, msr))
        yield Step(m.Rdmsr(0, msr, emulated=True))
    for msr in (*k.MSRS, k.INTERNAL_GUEST_SSP):
        for value in values_of(msr) if msr in TESTED else POINTER_EDGES:
            yield Step(m.Wrmsr(0, msr, value, emulated=True))
        for value in CONTROL_EDGES if msr in k.CONTROL_MSRS else POINTER_EDGES:
            yield Step(m.Wrmsr(0, msr, value))
    for value in PAIRS:
        yield Step(m.Wrmsr(0, k.U_CET, value, emulated=True))


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


def registers_of_host() -> Iterator[Step]:
    """Each register set and read by userspace."""
    yield from (Step(m.GetMsrs(0, (msr,))) for msr in k.MSRS)
    yield Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP))
    yield from (Step(m.SetMsrs(0, ((msr, value),))) for msr, value in FITTING.items())
    yield Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF)))


def registers_of_guest() -> Iterator[Step]:
    """Each register written by the guest, then read, also across INIT and preemption."""
    yield from (Step(m.Rdmsr(0, msr)) for msr in k.MSRS)
    yield Step(m.ReadSsp(0))
    yield Step(m.Run(0))
    yield from (Step(m.Wrmsr(0, msr, value)) for msr, value in FITTING.items())
    yield from (Step(m.Wrmsr(0, msr, FITTING[msr], emulated=True)) for msr in (k.U_CET, k.S_CET, k.PL3_SSP))
    yield Step(m.WriteSsp(0, tag(0, 0xF)))
    yield from (Step(op) for op in (m.Init(0), m.Preempt(0, 1)))


def presence() -> Iterator[Step]:
    """Every register there may be, by every way to it: what a vCPU has, and what it makes of what it has not."""
    yield Step(m.GetMsrs(0, (k.INTERNAL_GUEST_SSP,)))
    yield Step(m.SetMsrs(0, ((k.INTERNAL_GUEST_SSP, 0x1000),)))
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


def zero(msr: int) -> tuple[Step, ...]:
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


def fitting(cpuid: m.Cpuid) -> dict[int, int]:
    """`FITTING` for a vCPU with these features."""
    bits = 3 * cpuid.shstk | ((1 << 64) - 4) * cpuid.ibt
    absent = () if cpuid.shstk else (*k.POINTER_MSRS, k.INT_SSP_TAB)
    return {
        msr: value & bits if msr in k.CONTROL_MSRS else value for msr, value in FITTING.items() if msr not in absent
    }


def sizes() -> tuple[Step, ...]:
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


def host_xss() -> tuple[Step, ...]:
    """XSS of a guest on a host that has one of its own, and what is left of it wherever somebody else comes to run."""
    return (
        Step(m.Rdmsr(0, k.XSS)),
        *(Step(m.Xsaves(0, component)) for component in (k.CET_S, k.CET_U)),
        Step(m.Run(0)),
        Step(m.Leave(0)),
        *(Step(m.Wrmsr(0, k.XSS, value)) for value in (0x1800, 0x1000, 0x800, 0)),
        Step(m.SetMsrs(0, ((k.XSS, 0x1000),))),
        Step(m.Xrstors(0, k.CET_S, (A0, 8, 16))),
        *(Step(op) for op in (m.Preempt(0), m.Preempt(0, 1), m.HostTask(0), m.Init(0), m.Reset(0))),
    )


def stale() -> tuple[Step, ...]:
    """A read that fails right after one that succeeded."""
    return (
        Step(m.SetMsrs(0, ((k.PL0_SSP, A0),))),
        Step(m.GetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP)),
        Step(m.GetOneReg(0, k.ONE_REG_MSR | 0x6A9)),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP | 1)),
        Step(m.GetMsrs(0, (k.PL0_SSP, 0x6A9))),
    )


_BAD_POINTER = (Fault("copy_from_user", -k.EFAULT),)


def userspace() -> tuple[Step, ...]:
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
    "host-xss-alone": m.Config(m.Host(shstk=False, ibt=False), (m.Cpuid(),)),
    "host-no-cet": m.Config(WITHOUT_CET, (m.Cpuid(),)),
    "amd": m.Config(m.Host(vendor="amd"), (m.Cpuid(),)),
    "amd-neither": m.Config(AMD, (NEITHER,)),
    "ignoring-neither": m.Config(vcpus=(NEITHER,), ignore_msrs=True),
    "ignoring-ibt": m.Config(vcpus=(m.Cpuid(shstk=False, xsaves=False, xss=0),), ignore_msrs=True),
}
"""Worlds in which registers are there or not, each for another reason."""
