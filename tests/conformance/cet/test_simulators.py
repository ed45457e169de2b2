"""Each simulator of cet alone: it behaves, and a misuse is a breach at the call that commits it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conformance.environment.cet.control_registers import ControlRegisters, cr0_of, cr4_of
from conformance.environment.cet.events import Events
from conformance.environment.cet.fpu import Fpu
from conformance.environment.cet.guest_memory import GuestMemory
from conformance.environment.cet.intercepts import INTERCEPT_ALL, Intercepts
from conformance.environment.cet.msrs import Msrs
from conformance.environment.cet.onlookers import Onlookers
from conformance.environment.cet.platform import Platform
from conformance.environment.cet.processors import Processors
from conformance.environment.cet.registers import PL0, PL3, SSP, TABLE, XSS, S, U
from conformance.environment.cet.threads import Thread, Threads
from conformance.environment.cet.users import UserCopies
from conformance.environment.cet.values import Values
from conformance.environment.cet.vmcb import Vmcb
from conformance.environment.cet.vmcs import Vmcs
from conformance.environment.cet.vmsa import Vmsa
from conformance.environment.door import Environment, Frame
from conformance.model.cet import operations as m
from conformance.model.step import Fault
from conformance.specs.cet import PROFILES, Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.specs.clause import Clause
from conformance.verdict import Crash, Violation

UPSTREAM, AS_POSTED = PROFILES["upstream"], PROFILES["as-posted"]
AMD = m.Host(vendor="amd", ibt=False)
A = 0x1000_0000_0000


class Bench:
    """Simulators around a plain door, as far as a test needs them; vCPUs 1 and 2 are threads of slots 0 and 1."""

    def __init__(self, host: m.Host | None = None, profile: Profile = UPSTREAM) -> None:
        self.door = door = Environment()
        self.door.driver = self
        self.calls: list[tuple[str, int]] = []
        self.platform = Platform(door, m.Config(host or m.Host()))
        self.processors = Processors(door, self.platform)
        self.fpu = Fpu(door, self.platform, self.processors, profile)
        self.msrs = Msrs(door, self.processors, self.fpu, profile)
        self.threads = Threads(door, self.processors, self.fpu)
        self.vmcs = Vmcs(door, self.platform, self.processors)
        self.vmcb = Vmcb(door, self.platform, self.processors)
        self.memory = GuestMemory(door, self.platform)
        self.intercepts = Intercepts(door, self.platform, self.memory, profile)
        self.values = Values(door, self.threads)
        self.onlookers = Onlookers(door, self.processors, self.values, profile)
        for slot in (0, 1):
            vcpu = self.threads.create(slot).number
            parts: tuple[Any, ...] = (self.fpu, self.vmcs, self.vmcb, self.memory, self.intercepts, self.values)
            for simulator in parts:
                simulator.add(vcpu)

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The candidate's notifier."""
        self.calls.append(("in", vcpu))

    def sched_out(self, vcpu: int) -> None:
        """The candidate's notifier."""
        self.calls.append(("out", vcpu))

    def thread(self, vcpu: int = 1, cpu: int = 0) -> Thread:
        """The vCPU's thread, which executes now."""
        thread = self.threads.parts[vcpu]
        self.threads.switch_to(thread, cpu)
        return thread

    def in_guest(self, vcpu: int = 1, cpu: int = 0) -> Thread:
        """The vCPU's thread with its guest FPU loaded."""
        thread = self.thread(vcpu, cpu)
        self.fpu.alloc_guest_fpstate(vcpu)
        self.fpu.load_guest_fpu(vcpu)
        return thread


@contextmanager
def breach(clause: Clause) -> Iterator[pytest.ExceptionInfo[Violation]]:
    """The clause is broken within."""
    with pytest.raises(Violation) as raised:
        yield raised
    assert raised.value.clause is clause


def refusing(call: str, errno: int) -> Frame:
    """An operation in which the first such call is refused."""
    frame = Frame((Fault(call, errno),))
    frame.made[call] = 1
    return frame


# -- the host


def test_the_host_has_what_its_record_says() -> None:
    """A field by its name, the vendor as a number; no other property is known."""
    platform = Platform(Environment(), m.Config(m.Host(vendor="amd", la57=True), ignore_msrs=True))

    assert [platform.host_cap(name) for name in ("vendor", "width", "ignore_msrs", "shstk")] == [1, 57, 1, 1]
    with pytest.raises(Crash, match="no property 'smap'"):
        platform.host_cap("smap")


@pytest.mark.parametrize(
    ("host", "msr", "value", "clause"),
    [
        (m.Host(), k.U_CET, 0x40, c.CET_RESERVED_BITS),
        (m.Host(), k.U_CET, 0x8000_0000_0004, c.CET_BASE_CANONICAL),
        (m.Host(ibt=False), k.U_CET, 4, c.CET_IBT_BITS_NEED_IBT),
        (m.Host(shstk=False, ibt=False), k.S_CET, None, c.CET_NEITHER_FEATURE),
        (m.Host(shstk=False), k.PL0_SSP, None, c.SSP_NEEDS_SHSTK),
        (m.Host(), k.PL0_SSP, 2, c.SSP_ALIGNED),
        (m.Host(), k.INT_SSP_TAB, 1 << 62, c.SSP_CANONICAL),
        (m.Host(), k.XSS, 1 << 8, c.XSS_NEVER_FAULTS),
        (m.Host(), k.XSS, 0x1800, None),
        (m.Host(), k.PL0_SSP, A, None),
    ],
)
def test_the_processor_faults_by_the_hosts_features(
    host: m.Host, msr: int, value: int | None, clause: Clause | None
) -> None:
    """Whatever a guest's CPUID says."""
    assert Bench(host).processors.fault(msr, value) is clause


def test_s_cet_after_an_exit_is_the_hosts() -> None:
    """On each physical CPU by itself."""
    processors = Bench(m.Host(s_cet=4)).processors
    processors.files[1][S] = 1

    processors.after_exit(0)
    with breach(c.S_CET_IS_THE_HOSTS):
        processors.after_exit(1)


def test_a_new_host_begins_with_zeros() -> None:
    """But for its own S_CET."""
    bench = Bench()
    bench.processors.files[0][PL0] = A

    bench.platform.boot(m.Host(s_cet=2))
    bench.processors.boot()

    assert [regs[S] for regs in bench.processors.files] == [2, 2]
    assert not bench.processors.files[0][PL0]


# -- RDMSR and WRMSR


def test_an_xstate_register_is_reached_with_the_fpu_locked() -> None:
    """Otherwise it may be anybody's."""
    bench = Bench()
    bench.in_guest()

    bench.fpu.fpu_get()
    bench.msrs.wrmsr(k.PL0_SSP, A)
    assert bench.msrs.rdmsr(k.PL0_SSP) == A
    bench.fpu.fpu_put()
    with breach(c.FPU_RESIDENT):
        bench.msrs.rdmsr(k.PL0_SSP)


def test_by_hand_the_pointers_are_reached_at_any_time() -> None:
    """The profile says who swaps them; they are those of the physical CPU that executes."""
    bench = Bench(profile=AS_POSTED)
    bench.thread(cpu=1)

    bench.msrs.wrmsr(k.PL0_SSP, A)

    assert [regs[PL0] for regs in bench.processors.files] == [0, A]


@pytest.mark.parametrize(("profile", "clause"), [(UPSTREAM, c.S_CET_NOT_XSTATE), (AS_POSTED, c.S_CET_IS_THE_HOSTS)])
def test_the_hosts_s_cet_is_left_alone(profile: Profile, clause: Clause) -> None:
    """By a WRMSR that would not even fault."""
    with breach(clause):
        Bench(profile=profile).msrs.wrmsr_safe(k.S_CET, 1)


def test_only_wrmsr_safe_may_fault() -> None:
    """The others leave a warning in the host's log."""
    msrs = Bench(profile=AS_POSTED).msrs

    assert msrs.wrmsr_safe(k.PL0_SSP, 1) == -k.EIO
    with breach(c.SSP_ALIGNED):
        msrs.wrmsr(k.PL0_SSP, 1)
    with breach(c.ANSWERS):
        msrs.rdmsr(0x10)


# -- the FPU code


def test_guest_and_user_take_turns_in_the_registers() -> None:
    """Each finds its own; PL0..PL2_SSP are nobody's in user mode."""
    bench = Bench()
    thread = bench.in_guest()
    regs, own = bench.processors.files[0], bench.fpu.parts[1].own
    regs[U], regs[PL0], regs[PL3] = 5, A, A + 8

    bench.fpu.put_guest_fpu(1)
    assert (regs[U], regs[PL0], regs[PL3]) == (own[0], 0, own[1])
    bench.fpu.load_guest_fpu(1)
    assert (regs[U], regs[PL0], regs[PL3]) == (5, A, A + 8)
    bench.fpu.put_guest_fpu(1)
    bench.fpu.back_to_user(thread)
    assert bench.door.held[c.USER_STATE_IS_THE_TASKS] == 1


def test_a_user_that_sees_another_value_is_a_breach() -> None:
    """Whoever wrote it there."""
    bench = Bench(profile=AS_POSTED)
    thread = bench.thread()
    bench.fpu.restore(thread)
    bench.processors.files[0][PL3] = A

    with breach(c.USER_STATE_IS_THE_TASKS):
        bench.fpu.back_to_user(thread)


def test_what_a_softirq_took_is_reloaded_by_fpu_get() -> None:
    """In between hardware holds somebody else's."""
    bench = Bench()
    thread = bench.in_guest()
    bench.processors.files[0][PL0] = A

    bench.fpu.save(thread)
    bench.processors.files[0][PL0] = 0
    bench.fpu.fpu_get()

    assert bench.processors.files[0][PL0] == A
    assert bench.fpu.is_resident(thread)
    assert bench.door.atomic == 1


def test_the_guest_fpu_is_loaded_and_put_in_turns() -> None:
    """By its own thread, with an fpstate that was not given back."""
    bench = Bench()
    bench.in_guest()
    for misuse in (bench.fpu.load_guest_fpu, bench.fpu.free_guest_fpstate, bench.fpu.require_put):
        with breach(c.FPU_BALANCED):
            misuse(1)
    with breach(c.FPU_BALANCED):
        bench.fpu.put_guest_fpu(2)
    with breach(c.FPU_BALANCED):
        bench.fpu.before_entry(bench.threads.parts[2])
    with breach(c.FPU_RESIDENT):
        bench.fpu.fpu_put()


def test_a_component_is_cleared_while_the_fpu_is_not_in_use() -> None:
    """And only a component that CET has to do with."""
    bench = Bench()
    bench.in_guest()
    bench.processors.files[0][PL0] = A

    with breach(c.INIT_ANYWHERE):
        bench.fpu.fpstate_clear(1, k.CET_S)
    bench.door.breach = None
    bench.fpu.put_guest_fpu(1)
    bench.fpu.fpstate_clear(1, k.CET_S)
    bench.fpu.load_guest_fpu(1)
    assert not bench.processors.files[0][PL0]
    with breach(c.INIT_ANYWHERE):
        bench.fpu.fpstate_clear(1, k.CET_S)


def test_an_image_sets_user_components_only() -> None:
    """The CET ones are the supervisor's."""
    fpu = Bench().fpu

    assert fpu.copy_uabi_to_fpstate(1, 2, ()) == 0
    assert fpu.copy_uabi_to_fpstate(1, k.CET_U, (1, 8)) == -k.EINVAL


def test_memory_for_an_fpstate_may_be_refused() -> None:
    """Then there is none."""
    bench = Bench()
    bench.door.frame = refusing("alloc_guest_fpstate", -k.ENOMEM)

    assert bench.fpu.alloc_guest_fpstate(1) == -k.ENOMEM
    bench.fpu.require_given_back(1)


def test_a_vcpu_that_is_not_there_is_the_candidates_mistake() -> None:
    """Whichever simulator is asked."""
    with pytest.raises(Crash, match="there is no vCPU 7"):
        Bench().fpu.guest_fpu_in_use(7)


# -- the scheduler


def test_a_thread_gives_way_to_another() -> None:
    """Notifiers of a loaded vCPU are called on both ways."""
    bench = Bench()
    first, second = bench.thread(1), bench.threads.parts[2]
    first.loaded = second.loaded = True

    bench.threads.switch_to(second, 0)
    bench.threads.switch_to(first, 0)

    assert bench.calls == [("out", 1), ("in", 2), ("out", 2), ("in", 1)]
    assert bench.door.frame.actor is first
    assert (first.on, second.on, first.cpu, second.cpu) == (True, False, 0, 0)


def test_a_thread_takes_its_registers_along() -> None:
    """To another physical CPU, through memory."""
    bench = Bench()
    thread = bench.in_guest()
    bench.processors.files[0][PL0] = A

    bench.threads.switch_to(thread, 1)
    bench.fpu.before_entry(thread)

    assert bench.processors.files[1][PL0] == A


def test_a_thread_that_ended_runs_nowhere() -> None:
    """Its slot and its physical CPU are free, its number is not."""
    bench = Bench()
    bench.thread(1)

    bench.threads.remove(1)

    assert bench.threads.current[0] is None
    assert bench.door.frame.actor is None
    assert bench.threads.create(0).number == 3


def test_preemption_is_enabled_as_often_as_disabled() -> None:
    """They nest."""
    threads = Bench().threads

    threads.preempt_disable()
    threads.preempt_enable()
    with breach(c.ANSWERS):
        threads.preempt_enable()


# -- VMX and SVM


def test_a_vm_entry_and_exit_switch_three_registers() -> None:
    """Where the controls say so."""
    bench = Bench()
    thread, regs = bench.thread(), bench.processors.files[0]
    bench.vmcs.vmcs_write(1, k.VM_ENTRY_CONTROLS, 1 << k.VM_ENTRY_LOAD_CET)
    bench.vmcs.vmcs_write(1, k.VM_EXIT_CONTROLS, 1 << k.VM_EXIT_LOAD_CET)
    bench.vmcs.vmcs_write(1, k.GUEST_SSP, A)

    bench.vmcs.enter(thread)
    assert regs[SSP] == A
    regs[S], regs[TABLE] = 1, A + 8
    bench.vmcs.leave(thread)

    assert (regs[S], regs[SSP], regs[TABLE]) == (0, 0, 0)
    assert [bench.vmcs.vmcs_read(1, field) for field in (k.GUEST_S_CET, k.GUEST_INTR_SSP_TABLE)] == [1, A + 8]


def test_each_level_has_a_vmcs_of_its_own() -> None:
    """VMREAD and VMWRITE go to the current one."""
    vmcs = Bench().vmcs
    vmcs.vmcs_write(1, k.GUEST_SSP, A)

    vmcs.vmcs_load(1, 2)
    assert vmcs.vmcs_read(1, k.GUEST_SSP) == 0
    vmcs.vmcs_load(1, 1)
    assert vmcs.vmcs_read(1, k.GUEST_SSP) == A


def test_a_control_that_the_processor_lacks_is_not_set() -> None:
    """The next VM entry would fail."""
    vmcs = Bench(m.Host(load_cet_exit=False)).vmcs

    vmcs.vmcs_write(1, k.VM_ENTRY_CONTROLS, 1 << k.VM_ENTRY_LOAD_CET)
    with breach(c.VMX_PREREQUISITES):
        vmcs.vmcs_write(1, k.VM_EXIT_CONTROLS, 1 << k.VM_EXIT_LOAD_CET)


def test_each_vendor_has_its_own_structures() -> None:
    """The other's are the candidate's mistake, and so is a third level."""
    for misuse in (lambda: Bench().vmcb.vmcb_read(1, 1, 0), lambda: Bench(AMD).vmcs.vmcs_read(1, 0)):
        with pytest.raises(Crash, match="no such control structure"):
            misuse()
    with pytest.raises(Crash, match="level 3"):
        Bench(AMD).vmcb.vmcb_switch(1, 3)


def test_a_clean_vmcb_is_not_read() -> None:
    """So a write without clearing the bit is lost; another level's bit does not help."""
    bench = Bench(AMD)
    thread = bench.thread()
    bench.vmcb.enter(thread)
    bench.vmcb.leave(thread)
    bench.vmcb.vmcb_write(1, 1, k.VMCB_SSP, A)
    bench.vmcb.vmcb_mark_dirty(1, 2, k.VMCB_CET)

    with breach(c.VMCB_DIRTY):
        bench.vmcb.enter(thread)


def test_a_dirty_vmcb_is_read() -> None:
    """And so is any on a physical CPU that has no copy."""
    bench = Bench(AMD)
    thread = bench.thread()
    bench.vmcb.enter(thread)
    bench.vmcb.leave(thread)

    bench.vmcb.vmcb_write(1, 1, k.VMCB_SSP, A)
    bench.vmcb.vmcb_mark_dirty(1, 1, k.VMCB_CET)
    bench.vmcb.enter(thread)
    assert bench.processors.files[0][SSP] == A
    bench.vmcb.leave(thread)
    bench.vmcb.vmcb_write(1, 1, k.VMCB_SSP, A + 8)
    bench.threads.switch_to(thread, 1)
    bench.vmcb.enter(thread)
    assert bench.processors.files[1][SSP] == A + 8


# -- memory and registers of the guest


@pytest.mark.parametrize(("host", "field"), [(m.Host(), k.GUEST_SSP), (AMD, k.VMCB_SSP)])
def test_l1_stores_what_it_wants_for_l2(host: m.Host, field: int) -> None:
    """In the layout of its vendor, with the MSRs that it stops."""
    memory = Bench(host).memory

    memory.store(1, m.Area(s_cet=1, ssp=A, intercepts=(k.PL0_SSP,)))
    memory.vmcs12_write(1, field, A + 8)

    assert memory.words(1) == (1, A + 8, 0)
    assert memory.vmcs12_read(1, k.GUEST_CR4) == cr4_of(True)
    assert [memory.l1_intercepts(1, msr) for msr in (k.PL0_SSP, k.PL1_SSP)] == [k.READ | k.WRITE, 0]


def test_memory_moves_with_the_guest() -> None:
    """The state-save map, and what L1 wrote."""
    memory = Bench().memory
    memory.smram_write(1, k.SMRAM_SSP, A)
    memory.store(1, m.Area(ssp=A))

    memory.move(memory.parts[1], 2)

    assert memory.smram_read(2, k.SMRAM_SSP) == A
    assert memory.words(2) == (0, A, 0)


def test_each_physical_cpu_has_a_copy_of_a_vmcb() -> None:
    """What ran elsewhere in between is stale here, unless the clean bit says so."""
    bench = Bench(AMD)
    for cpu, value in ((0, A), (1, A + 8)):
        thread = bench.thread(1, cpu)
        bench.vmcb.enter(thread)
        bench.processors.files[cpu][SSP] = value
        bench.vmcb.leave(thread)

    with breach(c.VMCB_MOVED):
        bench.vmcb.enter(bench.thread(1, 0))
    bench.vmcb.vmcb_mark_dirty(1, 1, k.VMCB_CET)
    bench.vmcb.enter(bench.thread(1, 0))
    assert bench.processors.files[0][SSP] == A + 8


def test_vmrun_of_protected_state_switches_xss() -> None:
    """To the value last accepted, and back to the host's."""
    bench = Bench(m.Host(vendor="amd", ibt=False, sev_es=True, own_xss=0x800))
    vmsa, thread = Vmsa(bench.door, bench.platform, bench.processors), bench.thread()
    vmsa.add(1)
    vmsa.accept(thread, 0x1000)

    vmsa.enter(thread)
    assert bench.processors.files[0][XSS] == 0x1000
    vmsa.leave(thread)
    assert bench.processors.files[0][XSS] == 0x800
    bench.processors.files[0][XSS] = 0
    with breach(c.XSS_IS_THE_HOSTS):
        bench.processors.out_of_hands(0)


def test_the_processor_keeps_cet_and_wp_together() -> None:
    """Where the guest owns the bit; the candidate may write what it wants, and the guest sets the others again."""
    crs = ControlRegisters(Environment())
    crs.add(1)

    assert not crs.mov_cr4(1, True)
    crs.write_cr(1, 0, cr0_of(True))
    assert crs.mov_cr4(1, True)
    assert crs.bits(1) == (True, True)
    assert crs.read_cr(1, 4) == cr4_of(True)
    crs.write_cr(1, 4, 0)
    crs.boot(1)
    assert (crs.bits(1), crs.read_cr(1, 4)) == ((True, False), cr4_of(False))


def test_an_init_is_taken_once() -> None:
    """Whoever takes it processes it."""
    events = Events(Environment())
    events.add(1)
    events.parts[1].init = True

    assert [events.take_init(1), events.take_init(1)] == [True, False]


def test_a_copy_fails_where_it_is_planned() -> None:
    """Each of the two by itself."""
    door = Environment()
    users = UserCopies(door)
    door.frame = refusing("copy_to_user", -k.EFAULT)

    assert (users.copy_from_user(8), users.copy_to_user(8)) == (0, -k.EFAULT)


# -- interception


def test_a_new_vcpu_is_intercepted_everywhere() -> None:
    """Its two bitmaps are apart; XSS has no entry."""
    intercepts = Bench().intercepts

    intercepts.set_intercept(1, 1, k.PL0_SSP, k.READ, False)

    assert intercepts.parts[1].bits == [INTERCEPT_ALL & ~(k.READ << 2 * PL0), INTERCEPT_ALL]
    assert not intercepts.stops(1, 0, PL0, k.READ)
    assert intercepts.stops(1, 0, PL0, k.WRITE)
    assert intercepts.stops(1, 0, XSS, k.READ)
    with pytest.raises(Crash, match="no such bit"):
        intercepts.set_intercept(1, 1, k.XSS, k.READ, False)


@pytest.mark.parametrize(
    ("passed", "shstk", "level", "clause"),
    [
        (k.PL0_SSP, False, 0, c.INTERCEPT_WITHOUT_SHSTK),
        (k.U_CET, False, 0, c.CET_INTERCEPTS),
        (k.INT_SSP_TAB, True, 0, c.TABLE_INTERCEPTED),
        (k.PL1_SSP, True, 1, c.L2_INTERCEPTS),
        (k.PL2_SSP, True, 1, c.FILTER_INTERCEPTS),
    ],
)
def test_what_must_be_stopped_is_looked_at_on_entry(passed: int, shstk: bool, level: int, clause: Clause) -> None:
    """By CPUID, by L1's bitmap, by the filter."""
    bench = Bench()
    bench.platform.caps = (True, True)
    bench.intercepts.configure(1, shstk, False)
    bench.intercepts.deny(1, (k.PL2_SSP,))
    bench.memory.store(1, m.Area(intercepts=(k.PL1_SSP,)))
    bench.intercepts.set_intercept(1, level + 1, passed, k.READ, False)

    with breach(clause) as broken:
        bench.intercepts.at_entry(1, level)
    assert f"{passed:#x}" in str(broken.value)


def test_what_must_pass_is_looked_at_where_it_is_prescribed() -> None:
    """A vCPU with SHSTK has its pointers to itself, unless the candidate swaps them by hand."""
    for profile in (UPSTREAM, AS_POSTED):
        bench = Bench(profile=profile)
        bench.platform.caps = (True, True)
        bench.intercepts.configure(1, True, True)
        if profile is UPSTREAM:
            with breach(c.CET_INTERCEPTS):
                bench.intercepts.at_entry(1, 0)
        for msr in k.CONTROL_MSRS:
            bench.intercepts.set_intercept(1, 1, msr, k.READ | k.WRITE, False)
        if profile is UPSTREAM:
            with breach(c.PASS_WITH_SHSTK):
                bench.intercepts.at_entry(1, 0)
        else:
            bench.intercepts.at_entry(1, 0)


# -- leaks


def test_a_value_that_only_another_knows_is_a_leak() -> None:
    """What both know may be either's; what nobody wrote is not ours to judge."""
    values = Bench().values
    values.parts[1] |= {A, 8}
    values.parts[2] |= {A}

    values.check(2, A, "reads")
    values.check(2, 99, "reads")
    with breach(c.NO_LEAK_BETWEEN_VCPUS):
        values.check(2, 8, "reads")


def test_values_outlive_their_vcpu() -> None:
    """Those that nobody else knows."""
    bench = Bench()
    bench.values.parts[2] |= {A}

    bench.values.bury({0, A, 8})

    assert bench.values.ghosts == {8}
    with breach(c.DESTROYED_LEAVES_NOTHING):
        bench.values.check(2, 8, "reads")


def test_an_ioctl_brings_no_value_into_hardware() -> None:
    """One that was there before is not the ioctl's doing."""
    bench = Bench(profile=AS_POSTED)
    thread, regs = bench.thread(), bench.processors.files[0]
    bench.values.parts[1] |= {A, A + 8}
    regs[PL0] = A

    bench.threads.look_around(thread)
    bench.onlookers.after_ioctl(thread)
    regs[PL0] = A + 8
    with breach(c.NO_RELOAD_OUTSIDE_RUN):
        bench.onlookers.after_ioctl(thread)


def test_user_mode_finds_zeros_where_the_profile_clears() -> None:
    """And the host's own S_CET in any case."""
    for profile in (UPSTREAM, AS_POSTED):
        bench = Bench(profile=profile)
        bench.processors.files[0][PL0] = A
        if profile.cleared:
            with breach(c.SUPERVISOR_POINTERS_CLEARED):
                bench.onlookers.in_user_mode(0)
        else:
            bench.onlookers.host_task(0)
            bench.processors.files[0][S] = 1
            with breach(c.S_CET_IS_THE_HOSTS):
                bench.onlookers.host_task(0)


def test_a_destroyed_vcpu_leaves_nothing_in_hardware() -> None:
    """What another knows too may be the other's."""
    bench = Bench()
    bench.processors.files[1][TABLE] = A
    bench.values.parts[1] |= {A}

    with breach(c.DESTROYED_LEAVES_NOTHING):
        bench.onlookers.after_destruction(1)
    bench.values.parts[2] |= {A}
    bench.onlookers.after_destruction(1)
