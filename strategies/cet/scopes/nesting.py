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
        Step(m.Wrmsr(0, k.INT_SSP_TAB, A1)),
        Step(m.Wrmsr(0, k.PL3_SSP, A0)),
        Step(m.SetMsrs(0, ((k.S_CET, 1),))),
    )


VMREADS = tuple(m.Vmread(0, field) for field in (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE))


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
