"""How often each operation happens, with which values, and in what company.

Preemption is an operation of its own, and may strike in the middle of most others.
"""

from __future__ import annotations

from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import (
    AREA,
    CPU,
    CPUID,
    DENIED,
    ENTRIES,
    HOST,
    INDICES,
    MSR,
    POINTER,
    REG,
    SAVED_SSP,
    SSP,
    VALUE,
    VCPU,
    WORDS,
)
from conformance.strategies.domain import BOOLEAN, Domain, Shape

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
    m.Vmread: Shape({"vcpu": VCPU, "field": Domain(k.VMCS12_FIELDS)}, 0.3),
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
