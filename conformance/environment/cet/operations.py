"""What each operation does: guest instructions in hardware, entry points of userspace and of other threads.

Guest instructions run here, not in the candidate, unless an intercept or the emulator sends them there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import errorcode
from typing import TYPE_CHECKING, Any

from conformance.environment.cet.control_registers import cr0_of, cr4_of
from conformance.environment.cet.registers import PLACE, SSP, XSS
from conformance.environment.cet.skeleton import (
    begin_ioctl,
    end_ioctl,
    guest_exits,
    guest_runs,
    reset,
    vm_entry,
    vm_exit,
)
from conformance.model.cet import operations as m
from conformance.model.cet.capabilities import BOTH, KINDS, capabilities
from conformance.model.cet.state import COMPONENTS
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.cet.threads import Thread
    from conformance.environment.cet.world import Cet


def _pair(world: Cet, function: Callable[..., Any], *args: Any) -> tuple[int, int]:
    """Call into the candidate where two ints must come back."""
    answer = world.enter(function, *args)
    if not (isinstance(answer, tuple) and len(answer) == 2 and type(answer[0]) is type(answer[1]) is int):
        raise Crash(f"{function.__name__} returned {world.text_of(answer)}, expected (int, int)", "type")
    return answer


def _tuple(world: Cet, function: Callable[..., Any], *args: Any) -> tuple[int, ...]:
    """Call into the candidate where a tuple of ints must come back."""
    answer = world.enter(function, *args)
    if not isinstance(answer, tuple) or not _are_ints(answer):
        raise Crash(f"{function.__name__} returned {world.text_of(answer)}, expected (int, …)", "type")
    return answer


def _are_ints(values: Any) -> bool:
    return isinstance(values, tuple | list) and all(type(value) is int for value in values)


# -- the module


def _shown(loaded: tuple[int, bool, bool]) -> str:
    """What loading the module came to, its errno by name."""
    error, shstk, ibt = loaded
    return f"({f'-{errorcode[-error]}' if -error in errorcode else error}, {shstk}, {ibt})"


def set_up(world: Cet) -> Violation | None:
    """Load the module on the configuration's host, create its vCPUs; what was wrong with that."""
    host, deferred = world.platform.host, None
    ready = not host.s_cet >> k.SH_STK_EN & 1
    result = _load_module(world)
    shstk, ibt, _, because = capabilities(host)
    wanted = (0, shstk, ibt) if ready else (-k.EIO, False, False)
    kinds = {(0, *capabilities(host, known)[:2]): known for known in KINDS[::-1]} if ready else {wanted: BOTH}
    world.platform.known = kinds.get(result, BOTH)
    if result not in kinds:
        clause = because if ready else c.HOST_SHADOW_STACK_REFUSED
        return Violation(clause, f"vendor_init and kvm_caps gave {_shown(result)}, expected {_shown(wanted)}")
    for slot, cpuid in enumerate(world.config.vcpus if ready else ()):
        if create(world, m.Create(slot, cpuid)):
            deferred = Violation(c.ANSWERS, "a vCPU could not be created")
    return deferred


def vendor_init(world: Cet, op: m.VendorInit) -> tuple[int, bool, bool]:
    """Load the module on another host."""
    world.platform.boot(op.host)
    world.processors.boot()
    world.structure = world.vmcb if world.platform.amd else world.vmcs
    return _load_module(world)


def _load_module(world: Cet) -> tuple[int, bool, bool]:
    result = world.enter_int(world.driver.vendor_init)
    if result:
        world.platform.caps = (False, False)
        return result, False, False
    shstk, ibt, _ = _kvm_caps(world)
    world.platform.caps = (shstk, ibt)
    return 0, shstk, ibt


def _kvm_caps(world: Cet) -> tuple[bool, bool, int]:
    caps = world.enter(world.driver.kvm_caps)
    if not (isinstance(caps, tuple) and len(caps) == 3 and all(type(cap) in (int, bool) for cap in caps)):
        raise Crash(f"kvm_caps returned {world.text_of(caps)}, expected (bool, bool, int)", "type")
    return bool(caps[0]), bool(caps[1]), caps[2]


def supported_xss(world: Cet, _op: m.SupportedXss) -> int:
    """The CET bits; no bit at all may exceed the hardware's."""
    xss, host = _kvm_caps(world)[2], world.platform.host
    mask = host.xss if host.xsaves else 0
    world.require(c.XSS_WITHIN_HARDWARE, not xss & ~mask, f"supported_xss {xss:#x}, hardware {mask:#x}")
    return xss & 0x1800


def msr_index_list(world: Cet, _op: m.MsrIndexList) -> tuple[int, ...]:
    """The CET MSRs in the list, by number."""
    return tuple(sorted(msr for msr in _tuple(world, world.driver.get_msr_index_list) if msr in PLACE))


def nested_capabilities(world: Cet, _op: m.NestedCapabilities) -> bool:
    """The load-CET controls of nested VMX."""
    offered = world.enter(world.driver.nested_load_cet)
    if type(offered) not in (int, bool):
        raise Crash(f"nested_load_cet returned {world.text_of(offered)}, expected bool", "type")
    return bool(offered)


# -- vCPUs


def create(world: Cet, op: m.Create) -> int:
    """KVM_CREATE_VCPU and KVM_SET_CPUID2."""
    thread = world.create(op.vcpu)
    result = world.enter_int(world.driver.vcpu_create, thread.number)
    if result:
        world.forget(thread.number)
        return result
    return set_cpuid(world, m.SetCpuid(op.vcpu, op.cpuid, thread.cpu))


def destroy(world: Cet, op: m.Destroy) -> None:
    """Close the vCPU's file descriptor."""
    thread = world.threads.of_slot(op.vcpu)
    _destroy(world, thread)
    known = world.values.parts[thread.number]
    world.forget(thread.number)
    world.values.bury(known)


def _destroy(world: Cet, thread: Thread) -> None:
    world.threads.switch_to(thread, thread.cpu)
    world.enter(world.driver.vcpu_destroy, thread.number)
    world.fpu.require_given_back(thread.number)
    world.onlookers.after_destruction(thread.number)


def set_cpuid(world: Cet, op: m.SetCpuid) -> int:
    """KVM_SET_CPUID2."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    q = op.cpuid
    result = world.enter_int(world.driver.set_cpuid, thread.number, q.shstk, q.ibt, q.lm, q.xsaves, q.xss)
    if result == 0:
        thread.asked = q
        world.intercepts.configure(thread.number, q.shstk, q.ibt)
    end_ioctl(world, thread)
    return result


def set_filter(world: Cet, op: m.SetFilter) -> None:
    """A VM ioctl: no vCPU is loaded."""
    thread = world.threads.of_slot(op.vcpu)
    world.threads.switch_to(thread, thread.cpu)
    world.enter(world.driver.set_msr_filter, thread.number, op.denied)
    world.intercepts.deny(thread.number, op.denied)


# -- running


def run(world: Cet, op: m.Run) -> None:
    """KVM_RUN up to a first exit; the guest did nothing that matters here."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    world.enter(world.driver.run_begin, thread.number)
    thread.live = True
    world.fpu.require_loaded(thread.number)
    guest_runs(world, op.vcpu)


def leave(world: Cet, op: m.Leave) -> None:
    """KVM_RUN from its last VM exit on."""
    thread = world.threads.of_slot(op.vcpu)
    world.threads.switch_to(thread, thread.cpu)
    world.threads.window()
    thread.live = False
    world.enter(world.driver.run_end, thread.number)
    end_ioctl(world, thread, ran=True)


def kernel_exit(world: Cet, op: m.Exit) -> None:
    """An exit that needs nothing of the candidate, and the next entry and exit."""
    guest_exits(world, op.vcpu)
    log = world.frame.log
    start = len(log)
    guest_exits(world, op.vcpu)
    world.traffic = sum(
        call in ("rdmsr", "wrmsr", "wrmsr_safe") and PLACE.get(args[0], XSS) < XSS for call, args, _ in log[start:]
    )


def halt(world: Cet, op: m.Halt) -> None:
    """Block, and wake up on some physical CPU."""
    thread = guest_exits(world, op.vcpu)
    world.threads.switch_from(thread)
    world.threads.switch_to(thread, op.cpu)


def preempted(world: Cet, op: m.Preempt | m.Window) -> None:
    """Off and on again, wherever the thread is in the kernel."""
    threads = world.threads
    thread = threads.of_slot(op.vcpu)
    if not thread.loaded:
        return
    if thread.live:
        world.hold(c.PCPU_MIGRATION_TRANSPARENT if thread.cpu != op.cpu else c.NO_LOST_UPDATE)
    else:
        world.hold(c.SAVE_IS_IDEMPOTENT)
    threads.switch_to(thread, thread.cpu)
    threads.switch_from(thread)
    threads.switch_to(thread, op.cpu)


def host_task(world: Cet, op: m.HostTask) -> None:
    """Another task's user mode: its FPU registers are restored, the rest is what it finds."""
    current = world.threads.current[op.cpu]
    if current is not None:
        world.threads.switch_from(current)
    world.fpu.host_task(op.cpu)
    world.onlookers.host_task(op.cpu)
    world.frame.actor = None


def kernel_fpu(world: Cet, op: m.KernelFpu) -> None:
    """kernel_fpu_begin in a softirq: the registers go to memory, and come back when needed."""
    current = world.threads.current[op.cpu]
    if current is not None:
        world.fpu.save(current)


# -- guest instructions


def wrmsr_guest(world: Cet, op: m.Wrmsr) -> int:
    """WRMSR: in hardware, or through the candidate when intercepted or emulated."""
    thread = vm_entry(world, op.vcpu)
    vcpu, place = thread.number, PLACE.get(op.msr, XSS)
    if not (op.emulated or world.intercepts.stops(vcpu, world.structure.level(vcpu), place, k.WRITE)):
        fault = world.processors.fault(op.msr, op.value)
        if fault is None:
            world.values.learn(vcpu, op.value)
            world.processors.files[thread.cpu][place] = op.value
        vm_exit(world, thread)
        return 0 if fault is None else 1
    vm_exit(world, thread)
    world.values.learn(vcpu, op.value)
    result = world.enter_int(world.driver.guest_wrmsr, vcpu, op.msr, op.value)
    if op.msr == k.XSS and result == 0:
        world.vmsa.accept(thread, op.value)
    return 1 if 0 < result <= 3 else result


def rdmsr_guest(world: Cet, op: m.Rdmsr) -> tuple[int, int]:
    """RDMSR, likewise."""
    thread = vm_entry(world, op.vcpu)
    vcpu, place = thread.number, PLACE.get(op.msr, XSS)
    if not (op.emulated or world.intercepts.stops(vcpu, world.structure.level(vcpu), place, k.READ)):
        fault = world.processors.fault(op.msr, None)
        value = world.processors.files[thread.cpu][place]
        vm_exit(world, thread)
        if fault is not None:
            return 1, 0
    else:
        vm_exit(world, thread)
        result, value = _pair(world, world.driver.guest_rdmsr, vcpu, op.msr)
        if result:
            return (1, 0) if 0 < result <= 3 else (result, value)
    world.values.check(vcpu, value, f"reads {hex(op.msr)} =")
    return 0, value


def xrstors(world: Cet, op: m.Xrstors) -> int:
    """XRSTORS of one component: no exit, whatever is intercepted."""
    thread = vm_entry(world, op.vcpu)
    enabled = world.processors.is_enabled(thread.cpu, op.component)
    if enabled:
        regs, places = world.processors.files[thread.cpu], COMPONENTS[op.component]
        words = op.words or (0,) * len(places)
        for place, value in zip(places, words, strict=True):
            regs[place] = value
        world.values.learn(thread.number, *words)
    vm_exit(world, thread)
    return 0 if enabled else 1


def xsaves(world: Cet, op: m.Xsaves) -> tuple[int, ...] | None:
    """XSAVES of one component."""
    thread = vm_entry(world, op.vcpu)
    regs = world.processors.files[thread.cpu]
    enabled = world.processors.is_enabled(thread.cpu, op.component)
    words = tuple(regs[place] for place in COMPONENTS[op.component])
    vm_exit(world, thread)
    if not enabled:
        return None
    for value in words:
        world.values.check(thread.number, value, "saves")
    return words


def write_ssp(world: Cet, op: m.WriteSsp) -> None:
    """SSP moves by itself."""
    thread = vm_entry(world, op.vcpu)
    world.processors.files[thread.cpu][SSP] = op.value
    world.values.learn(thread.number, op.value)
    vm_exit(world, thread)


def read_ssp(world: Cet, op: m.ReadSsp) -> int:
    """RDSSP."""
    thread = vm_entry(world, op.vcpu)
    value = world.processors.files[thread.cpu][SSP]
    vm_exit(world, thread)
    world.values.check(thread.number, value, "reads SSP =")
    return value


def cpuid_size(world: Cet, op: m.CpuidSize) -> int:
    """CPUID always exits."""
    thread = guest_exits(world, op.vcpu)
    return world.enter_int(world.driver.cpuid_xsaves_size, thread.number)


def mov_cr0(world: Cet, op: m.MovCr0) -> int:
    """MOV to CR0 exits."""
    thread = guest_exits(world, op.vcpu)
    return world.enter_int(world.driver.set_cr0, thread.number, cr0_of(op.wp))


def mov_cr4(world: Cet, op: m.MovCr4) -> int:
    """MOV to CR4 exits unless the bit is guest-owned; then the processor keeps the interlock with CR0.WP."""
    thread = vm_entry(world, op.vcpu)
    if op.owned:
        moved = world.crs.mov_cr4(thread.number, op.cet)
        vm_exit(world, thread)
        return 0 if moved else 1
    vm_exit(world, thread)
    return world.enter_int(world.driver.set_cr4, thread.number, cr4_of(op.cet))


def emulate(world: Cet, op: m.Emulate) -> int:
    """An exit that needs the emulator."""
    thread = guest_exits(world, op.vcpu)
    return world.enter_int(world.driver.emulate, thread.number, op.instruction, op.user)


def smi(world: Cet, op: m.Smi) -> None:
    """An SMI between two entries."""
    thread = guest_exits(world, op.vcpu)
    world.enter(world.driver.smi, thread.number)


def rsm(world: Cet, op: m.Rsm) -> int:
    """RSM always exits."""
    thread = guest_exits(world, op.vcpu)
    vcpu = thread.number
    if op.ssp is not None:
        world.memory.smram_write(vcpu, k.SMRAM_SSP, op.ssp)
        world.values.learn(vcpu, op.ssp)
    result = world.enter_int(world.driver.rsm, vcpu)
    world.events.parts[vcpu].shutdown = result != 0
    return result


# -- userspace


def set_msrs(world: Cet, op: m.SetMsrs) -> int:
    """KVM_SET_MSRS."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    world.values.learn(thread.number, *(value for _, value in op.entries))
    result = world.enter_int(world.driver.set_msrs, thread.number, op.entries)
    for msr, value in op.entries[: max(result, 0)]:
        if msr == k.XSS:
            world.vmsa.accept(thread, value)
    end_ioctl(world, thread)
    return result


def get_msrs(world: Cet, op: m.GetMsrs) -> tuple[int, tuple[int, ...]]:
    """KVM_GET_MSRS."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    answer = world.enter(world.driver.get_msrs, thread.number, op.indices)
    end_ioctl(world, thread)
    if not (isinstance(answer, tuple) and len(answer) == 2 and type(answer[0]) is int and _are_ints(answer[1])):
        raise Crash(f"get_msrs returned {world.text_of(answer)}, expected (int, (int, …))", "type")
    count, values = answer
    for value in values:
        world.values.check(thread.number, value, "shows userspace")
    return count, tuple(values)


def set_one_reg(world: Cet, op: m.SetOneReg) -> int:
    """KVM_SET_ONE_REG."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    world.values.learn(thread.number, op.value)
    result = world.enter_int(world.driver.set_one_reg, thread.number, op.reg, op.value)
    if op.reg == k.ONE_REG_MSR | k.XSS and result == 0:
        world.vmsa.accept(thread, op.value)
    end_ioctl(world, thread)
    return result


def get_one_reg(world: Cet, op: m.GetOneReg) -> tuple[int, int]:
    """KVM_GET_ONE_REG."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    answer = _pair(world, world.driver.get_one_reg, thread.number, op.reg)
    end_ioctl(world, thread)
    world.values.check(thread.number, answer[1], "shows userspace")
    return answer


def get_reg_list(world: Cet, op: m.GetRegList) -> tuple[int, int, tuple[int, ...]]:
    """KVM_GET_REG_LIST."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    answer = world.enter(world.driver.get_reg_list, thread.number, op.n)
    end_ioctl(world, thread)
    if not (isinstance(answer, tuple) and len(answer) == 3 and _are_ints(answer[:2]) and _are_ints(answer[2])):
        raise Crash(f"get_reg_list returned {world.text_of(answer)}, expected (int, int, (int, …))", "type")
    result, n, ids = answer
    return (result, 0, ()) if result == -k.EFAULT else (result, n, tuple(ids))


def set_sregs(world: Cet, op: m.SetSregs) -> int:
    """KVM_SET_SREGS."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    result = world.enter_int(world.driver.set_sregs, thread.number, cr0_of(op.wp), cr4_of(op.cet))
    end_ioctl(world, thread)
    return result


def get_xsave(world: Cet, op: m.GetXsave) -> bool:
    """Whether KVM_GET_XSAVE holds component 11 or 12."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    components = _tuple(world, world.driver.get_xsave, thread.number)
    end_ioctl(world, thread)
    return k.CET_U in components or k.CET_S in components


def set_xsave(world: Cet, op: m.SetXsave) -> int:
    """KVM_SET_XSAVE."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    world.values.learn(thread.number, *op.words)
    result = world.enter_int(world.driver.set_xsave, thread.number, op.component, op.words)
    end_ioctl(world, thread)
    return result


# -- reset


def init(world: Cet, op: m.Init) -> None:
    """kvm_apic_accept_events within KVM_RUN."""
    thread = world.threads.of_slot(op.vcpu)
    world.threads.switch_to(thread, thread.cpu)
    reset(world, thread, True)


def full_reset(world: Cet, op: m.Reset) -> None:
    """RESET from userspace."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    reset(world, thread, False)
    world.events.parts[thread.number].shutdown = False
    end_ioctl(world, thread)


def get_mp_state(world: Cet, op: m.GetMpState) -> int:
    """KVM_GET_MP_STATE; an INIT it leaves pending is processed by the next KVM_RUN."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    vcpu = thread.number
    events = world.events.parts[vcpu]
    events.init = op.init
    result = world.enter_int(world.driver.get_mp_state, vcpu)
    if events.init:
        events.init = False
        world.enter(world.driver.run_begin, vcpu)
        reset(world, thread, True)
        world.enter(world.driver.run_end, vcpu)
    if op.init:
        world.crs.boot(vcpu)
    end_ioctl(world, thread)
    return result


# -- nesting and migration


def nested_enter(world: Cet, op: m.NestedEnter) -> int:
    """VMLAUNCH or VMRUN by L1, and L2's first moments."""
    thread = guest_exits(world, op.vcpu)
    _store_area(world, thread.number, op.area)
    result = world.enter_int(world.driver.nested_enter, thread.number)
    if result == k.ENTERED:
        guest_runs(world, op.vcpu)
    return result


def _store_area(world: Cet, vcpu: int, area: m.Area) -> None:
    """What L1 stored in its vmcs12 or vmcb12."""
    host = (area.host_s_cet, area.host_ssp, area.host_table)
    world.values.learn(vcpu, area.s_cet, area.ssp, area.table, *host)
    world.memory.store(vcpu, area)


def nested_exit(world: Cet, op: m.NestedExit) -> None:
    """An exit from L2 that L1 asked for, and L1's first moments after it.

    A vmcs12 is read with VMREAD alone: L1 does that where nothing was stored, since a candidate may keep it elsewhere.
    """
    thread = guest_exits(world, op.vcpu)
    log, vcpu = world.frame.log, thread.number
    start = len(log)
    world.enter(world.driver.nested_exit, vcpu)
    stored = {args[1] for call, args, _ in log[start:] if call == "vmcs12_write"}
    guest_runs(world, op.vcpu)
    for field in () if world.platform.amd else k.GUEST_FIELDS:
        if field not in stored:
            result, value = _pair(world, world.driver.vmread, vcpu, field)
            if result == 0:
                world.memory.vmcs12_write(vcpu, field, value)


def set_nested_state(world: Cet, op: m.SetNestedState) -> int:
    """KVM_SET_NESTED_STATE."""
    thread = begin_ioctl(world, op.vcpu, op.cpu)
    _store_area(world, thread.number, op.area)
    result = world.enter_int(world.driver.set_nested_state, thread.number)
    thread.l2 = result == 0
    end_ioctl(world, thread)
    return result


def vmread(world: Cet, op: m.Vmread) -> tuple[int, int]:
    """VMREAD by L1."""
    thread = guest_exits(world, op.vcpu)
    result, value = _pair(world, world.driver.vmread, thread.number, op.field)
    return (1, 0) if result else (0, value)


def migrate(world: Cet, op: m.Migrate) -> bool:
    """What a VMM does: read all it is told of, write it into a fresh vCPU; whether all of it worked.

    MSRs of other subsystems, which a candidate may list as well, are left to those.
    """
    indices = tuple(msr for msr in _tuple(world, world.driver.get_msr_index_list) if msr in k.MSRS)
    count, values = get_msrs(world, m.GetMsrs(op.vcpu, indices, op.cpu))
    result, _, regs = get_reg_list(world, m.GetRegList(op.vcpu, 8, op.cpu))
    answers = [get_one_reg(world, m.GetOneReg(op.vcpu, reg, op.cpu)) for reg in regs]
    worked = count == len(indices) and result == 0 and all(answer[0] == 0 for answer in answers)
    old = world.threads.of_slot(op.vcpu)
    _destroy(world, old)
    known, memory = world.values.parts[old.number], world.memory.parts[old.number]
    wp, cet = world.crs.bits(old.number)
    world.forget(old.number)
    worked &= create(world, m.Create(op.vcpu, old.asked)) == 0
    new = world.threads.of_slot(op.vcpu).number
    world.values.parts[new] = known
    world.memory.move(memory, new)
    worked &= set_sregs(world, m.SetSregs(op.vcpu, wp, cet, op.cpu)) == 0
    entries = tuple(zip(indices, values, strict=False))
    stored = [(reg, answer[1]) for reg, answer in zip(regs, answers, strict=True)]
    return worked & _restore(world, op, entries, stored)


def _restore(world: Cet, op: m.Migrate, entries: tuple[tuple[int, int], ...], stored: list[tuple[int, int]]) -> bool:
    """Write everything back in the order asked for."""

    def registers() -> bool:
        return all(set_one_reg(world, m.SetOneReg(op.vcpu, reg, x, op.cpu)) == 0 for reg, x in stored)

    def batch(chosen: tuple[tuple[int, int], ...]) -> bool:
        return set_msrs(world, m.SetMsrs(op.vcpu, chosen, op.cpu)) == len(chosen)

    if op.order == 0:
        return batch(entries) & registers()
    if op.order == 1:
        return registers() & batch(entries[::-1])
    return registers() & all(batch((entry,)) for entry in entries)


OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    m.VendorInit: vendor_init,
    m.SupportedXss: supported_xss,
    m.MsrIndexList: msr_index_list,
    m.NestedCapabilities: nested_capabilities,
    m.Create: create,
    m.Destroy: destroy,
    m.SetCpuid: set_cpuid,
    m.SetFilter: set_filter,
    m.Run: run,
    m.Leave: leave,
    m.Wrmsr: wrmsr_guest,
    m.Rdmsr: rdmsr_guest,
    m.Xrstors: xrstors,
    m.Xsaves: xsaves,
    m.WriteSsp: write_ssp,
    m.ReadSsp: read_ssp,
    m.CpuidSize: cpuid_size,
    m.MovCr0: mov_cr0,
    m.MovCr4: mov_cr4,
    m.Exit: kernel_exit,
    m.Halt: halt,
    m.Preempt: preempted,
    m.Window: preempted,
    m.HostTask: host_task,
    m.KernelFpu: kernel_fpu,
    m.SetMsrs: set_msrs,
    m.GetMsrs: get_msrs,
    m.SetOneReg: set_one_reg,
    m.GetOneReg: get_one_reg,
    m.GetRegList: get_reg_list,
    m.SetSregs: set_sregs,
    m.Init: init,
    m.Reset: full_reset,
    m.GetMpState: get_mp_state,
    m.GetXsave: get_xsave,
    m.SetXsave: set_xsave,
    m.Emulate: emulate,
    m.Smi: smi,
    m.Rsm: rsm,
    m.NestedEnter: nested_enter,
    m.NestedExit: nested_exit,
    m.SetNestedState: set_nested_state,
    m.Vmread: vmread,
    m.Migrate: migrate,
}
