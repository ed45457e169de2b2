"""What the world can do, and what the specification allows each operation to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.model.cet import control, emulator, guest, module, nesting, running, smm, userspace
from conformance.model.cet import operations as m
from conformance.model.cet.legality import legal_idle, legal_live
from conformance.model.cet.operations import Answers
from conformance.model.cet.state import CPUS, SLOTS, State, Vcpu
from conformance.model.step import Outcomes
from conformance.specs.cet import Profile


def legal(state: State, op: m.Operation) -> bool:
    """What the world can do at all."""
    match op:
        case m.VendorInit(host):
            return host.vendor == state.host.vendor and not state.reloaded and not any(state.vcpus)
        case m.SupportedXss() | m.MsrIndexList() | m.NestedCapabilities():
            return state.ready
        case m.HostTask(cpu) | m.KernelFpu(cpu):
            return 0 <= cpu < CPUS
        case m.Create(vcpu):
            return state.ready and 0 <= vcpu < SLOTS and state.vcpus[vcpu] is None
        case _:
            v = state.vcpus[op.vcpu] if 0 <= op.vcpu < SLOTS else None
            return v is not None and 0 <= getattr(op, "cpu", 0) < CPUS and _legal_of(state, v, op)


def _legal_of(state: State, v: Vcpu, op: m.Operation) -> bool:
    """Legality of an operation on a vCPU that exists."""
    kind = type(op)
    if kind is m.Window:
        return True
    if kind is m.Destroy or kind is m.Leave:
        return v.live == (kind is m.Leave)
    if v.dead:
        return kind is m.Reset and not v.live
    if kind in m.WHILE_LIVE:
        return v.live and legal_live(state, v, op)
    return not v.live and legal_idle(state, v, op)


Function = Callable[[State, Any, Answers, Profile], Outcomes]
"""What each operation is allowed to do: of the state, the operation, what the environment refused, and the profile."""

STEPS: dict[type, Function] = {
    m.Rdmsr: guest.rdmsr,
    m.Wrmsr: guest.wrmsr,
    m.Xrstors: guest.xrstors,
    m.Xsaves: guest.xsaves,
    m.WriteSsp: guest.ssp,
    m.ReadSsp: guest.ssp,
    m.Run: running.run,
    m.Leave: running.leave,
    m.Preempt: running.preempt,
    m.Window: running.preempt,
    m.Halt: running.preempt,
    m.HostTask: running.host_task,
    m.KernelFpu: running.kernel_fpu,
    m.Exit: running.kernel_exit,
    m.SetMsrs: userspace.set_msrs,
    m.GetMsrs: userspace.get_msrs,
    m.SetOneReg: userspace.set_one_reg,
    m.GetOneReg: userspace.get_one_reg,
    m.GetRegList: userspace.get_reg_list,
    m.GetXsave: userspace.xsave,
    m.SetXsave: userspace.xsave,
    m.Migrate: userspace.migrate,
    m.MovCr0: control.mov_cr,
    m.MovCr4: control.mov_cr,
    m.SetSregs: control.set_sregs,
    m.Init: control.reset,
    m.Reset: control.reset,
    m.GetMpState: control.reset,
    m.CpuidSize: control.cpuid_size,
    m.Emulate: emulator.emulate,
    m.Smi: smm.smi,
    m.Rsm: smm.rsm,
    m.NestedEnter: nesting.nested_enter,
    m.SetNestedState: nesting.nested_enter,
    m.NestedExit: nesting.nested_exit,
    m.Vmread: nesting.vmread,
    m.VendorInit: module.vendor_init,
    m.SupportedXss: module.supported_xss,
    m.MsrIndexList: module.msr_index_list,
    m.NestedCapabilities: module.nested_capabilities,
    m.Create: module.create,
    m.Destroy: module.destroy,
    m.SetCpuid: module.set_cpuid,
    m.SetFilter: module.set_filter,
}


def step(state: State, op: m.Operation, env: Answers, profile: Profile) -> Outcomes:
    """What the specification allows `op` to do in `state`."""
    return STEPS[type(op)](state, op, env, profile)
