"""Steps for small worlds: L2."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet import operations as m
from conformance.model.step import Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import A0, A1, AREAS, CARRIED, EXCHANGED


def nested() -> tuple[Step, ...]:
    """Every area, accepted or refused."""
    return (Step(m.Run(0)), *(Step(m.NestedEnter(0, area)) for area in AREAS))


def switches() -> tuple[Step, ...]:
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
        Step(m.Wrmsr(0, k.S_CET, 0x40)),
        Step(m.Wrmsr(0, k.INT_SSP_TAB, A1)),
        Step(m.Wrmsr(0, k.PL3_SSP, A0)),
        Step(m.SetMsrs(0, ((k.S_CET, 1),))),
    )


VMREADS = tuple(m.Vmread(0, field) for field in k.VMCS12_FIELDS)


def vmread() -> tuple[Step, ...]:
    """Each CET field of vmcs12, by L1."""
    return (Step(m.Run(0)), *map(Step, VMREADS))


def nested_pair() -> tuple[Step, ...]:
    """Two vCPUs that are in L2 at once, each with an L1 of its own."""
    return (
        *(Step(m.Rdmsr(vcpu, k.S_CET)) for vcpu in (0, 1)),
        *(Step(m.Run(vcpu)) for vcpu in (0, 1)),
        Step(m.MovCr0(1, True)),
        Step(m.NestedEnter(0, EXCHANGED)),
        Step(m.NestedEnter(1, replace(CARRIED, s_cet=2, intercepts=(k.PL0_SSP,)))),
        *(Step(m.NestedExit(vcpu)) for vcpu in (0, 1)),
    )


def migrated_svm() -> tuple[Step, ...]:
    """A vmcb12 that has not changed since the last VMRUN, on a vCPU that never ran it."""
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.Run(0)),
        Step(m.NestedEnter(0, EXCHANGED)),
        Step(m.NestedEnter(0, replace(EXCHANGED, clean=True))),
        Step(m.NestedExit(0)),
        Step(m.Leave(0)),
        Step(m.Migrate(0)),
    )


def restored() -> tuple[Step, ...]:
    """L2 entered with one vmcs12, and restored with others."""
    entered = replace(EXCHANGED, host_s_cet=1, host_ssp=0x6000, host_table=0x7000)
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.ReadSsp(0)),
        Step(m.Run(0)),
        Step(m.Leave(0)),
        Step(m.NestedEnter(0, entered)),
        Step(m.NestedExit(0)),
        *(Step(m.SetNestedState(0, area)) for area in (EXCHANGED, CARRIED)),
    )


def two_vmcb12s() -> tuple[Step, ...]:
    """Two L2s in turn, whose L1 says of each vmcb12 that it has not changed since VMRUN took it, or refused it."""
    other = replace(EXCHANGED, address=1, s_cet=2, ssp=0x6000, table=0x7000)
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.ReadSsp(0)),
        Step(m.Run(0)),
        *(Step(m.NestedEnter(0, replace(area, clean=clean))) for area in (EXCHANGED, other) for clean in (False, True)),
        Step(m.NestedEnter(0, replace(other, cet=True, wp=False))),
        Step(m.NestedExit(0)),
    )


def moved_svm() -> tuple[Step, ...]:
    """A VMCB that one physical CPU runs, then another, then the first again."""
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.Run(0)),
        *(Step(m.Preempt(0, cpu)) for cpu in (0, 1)),
        Step(m.Wrmsr(0, k.S_CET, 1)),
        Step(m.WriteSsp(0, A0)),
        Step(m.NestedEnter(0, EXCHANGED)),
        Step(m.NestedExit(0)),
    )


def reset_in_mode() -> tuple[Step, ...]:
    """RESET in the midst of L2, or of SMM."""
    return (
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.ReadSsp(0)),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.S_CET, 1)),
        Step(m.NestedEnter(0, EXCHANGED)),
        Step(m.NestedExit(0)),
        Step(m.MovCr0(0, True)),
        Step(m.MovCr4(0, True)),
        Step(m.Smi(0)),
        Step(m.Rsm(0)),
        Step(m.Leave(0)),
        Step(m.Reset(0)),
    )


def userspace_in_l2() -> tuple[Step, ...]:
    """What userspace reads, writes and denies while the vCPU is in L2 or has been there."""
    stopped = replace(EXCHANGED, intercepts=(k.S_CET,), host_s_cet=1, cet=False)
    return (
        *(Step(m.Rdmsr(0, msr)) for msr in (k.S_CET, k.INT_SSP_TAB)),
        Step(m.ReadSsp(0)),
        Step(m.GetMsrs(0, (k.S_CET, k.INT_SSP_TAB, k.PL0_SSP))),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
        Step(m.Run(0)),
        Step(m.Leave(0)),
        Step(m.NestedEnter(0, EXCHANGED)),
        Step(m.NestedEnter(0, stopped)),
        Step(m.NestedExit(0)),
        Step(m.SetMsrs(0, ((k.S_CET, 3), (k.INT_SSP_TAB, A1)))),
        Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, A0)),
        Step(m.SetSregs(0, True, False)),
        Step(m.SetNestedState(0, EXCHANGED)),
        Step(m.SetFilter(0, (k.PL0_SSP, k.S_CET))),
        Step(m.SetFilter(0, ())),
    )
