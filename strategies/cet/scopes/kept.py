"""Steps for small worlds: values that others leave alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from conformance.model.cet import operations as m
from conformance.model.step import Fault, Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import A0, A1, A2, CARRIED, EXCHANGED, NEITHER, SHSTK_ONLY, tag
from conformance.strategies.cet.scopes.nesting import VMREADS
from conformance.strategies.cet.scopes.values import FITTING

_ALL_READ = (
    *(Step(m.Rdmsr(0, msr)) for msr in k.MSRS),
    Step(m.ReadSsp(0)),
    Step(m.GetMsrs(0, k.MSRS)),
    Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
)


def kept(values: dict[int, int], *between: object) -> tuple[Step, ...]:
    """Every register set at once, and read after operations that should change few of them or none."""
    sets = Step(m.SetMsrs(0, tuple(values.items()))), Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF)))
    return (*_ALL_READ, Step(m.Run(0)), *sets, *(op if isinstance(op, Step) else Step(op) for op in between))


def _faulted(op: object, call: str, deepest: int) -> tuple[Step, ...]:
    """The operation with each of its first copies refused."""
    return tuple(Step(op, (Fault(call, -k.EFAULT, nth),)) for nth in range(1, deepest + 1))


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
        m.NestedEnter(0, CARRIED),
        m.NestedEnter(0, EXCHANGED),
        m.NestedEnter(0, replace(EXCHANGED, intercepts=(k.PL0_SSP, k.S_CET))),
        m.NestedExit(0),
        *VMREADS,
    ),
    "refused": (
        m.NestedEnter(0, replace(EXCHANGED, host_ssp=2)),
        m.NestedEnter(0, replace(EXCHANGED, ssp=2)),
        m.NestedEnter(0, replace(EXCHANGED, s_cet=0x40, host_wp=False)),
        m.NestedEnter(0, replace(EXCHANGED, s_cet=0x40, load_host=False)),
        m.NestedEnter(0, replace(EXCHANGED, cet=True, wp=False)),
        m.NestedEnter(0, EXCHANGED),
        m.NestedExit(0),
        m.SetSregs(0, True, True),
    ),
    "faulted": (
        *_faulted(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, 0x4000), "copy_from_user", 2),
        *_faulted(m.SetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP, 0x4000), "copy_from_user", 2),
        *_faulted(m.SetMsrs(0, ((k.PL1_SSP, 0x4000), (k.S_CET, 3))), "copy_from_user", 2),
        *_faulted(m.GetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP), "copy_to_user", 1),
        *_faulted(m.GetMsrs(0, k.MSRS), "copy_to_user", 1),
        *_faulted(m.GetRegList(0, 1), "copy_to_user", 2),
        m.SetOneReg(0, k.ONE_REG_GUEST_SSP, 0x4001),
        m.SetMsrs(0, ((k.PL2_SSP, 0x4001), (k.PL3_SSP, 0x4000))),
        m.SetMsrs(0, ((k.XSS, 1 << 8),)),
        m.Leave(0),
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


def recreated() -> tuple[Step, ...]:
    """What a vCPU leaves behind for the next one in its slot."""
    return (
        Step(m.GetMsrs(0, k.MSRS)),
        Step(m.SetMsrs(0, tuple(FITTING.items()))),
        Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, tag(0, 0xF))),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
        Step(m.Destroy(0)),
        Step(m.Create(0)),
    )


def others() -> tuple[Step, ...]:
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
        *(Step(op) for op in (m.Smi(1), m.Rsm(1), m.Init(1), m.NestedEnter(1, EXCHANGED), m.NestedExit(1))),
        *(Step(op) for op in (m.Leave(1), m.Reset(1), m.Destroy(1), m.Create(1), m.Migrate(1))),
    )
