"""Steps for small worlds: running, being preempted at every point, and XRSTORS that nobody sees."""

from __future__ import annotations

from conformance.model.cet import operations as m
from conformance.model.step import Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import A0, A1, A2, B1, tag


def _windows(op: object, points: range, slot: int = 0) -> tuple[Step, ...]:
    """The operation by itself, and with a preemption of its own vCPU at each of these points."""
    return (Step(op), *(Step(op, during=((point, Step(m.Window(slot))),)) for point in points))


def core() -> tuple[Step, ...]:
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


def torn() -> tuple[Step, ...]:
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


def pair(windows: range) -> tuple[Step, ...]:
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


def bypass() -> tuple[Step, ...]:
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


TORN = {
    "leave": (_torn_leave, 16),
    "write": (_torn_write, 12),
    "run": (_torn_run, 12),
    "access": (_torn_access, 8),
    "init": (_torn_init, 16),
    "reset": (_torn_reset, 16),
    "ioctl": (_torn_ioctl, 12),
}
"""Operations that are torn, and the points at which they may be."""
