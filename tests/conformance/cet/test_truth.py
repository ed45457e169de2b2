"""Right code built in another way is not accused, and the wrong code beside it still is.

Each trace is the smallest that once accused a design of being right in its own manner; each has a wrong candidate
with it, which what was loosened must not let pass.
"""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import Vcpu
from conformance.candidates.defects.cet import upstream as wrong
from conformance.model.cet import operations as m
from conformance.model.step import Fault, Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, NEITHER, SHSTK_ONLY
from tests.conformance.cet.judging import ONE, A, B, blamed, run
from tests.conformance.cet.mutants import bent
from tests.conformance.peers.linux_cet import ChecksBeforeTheSwitch, DirtyAlways, NoTaskSwitches, StopsL2Writes

SVM = m.Config(AMD, (SHSTK_ONLY,))
PROTECTED = m.Config(m.Host(vendor="amd", ibt=False, sev_es=True), (SHSTK_ONLY,))
BUSY = m.Config(m.Host(own_xss=0x800))
NO_SHSTK = m.Config(vcpus=(m.Cpuid(shstk=False),))
IBT_ON_AMD = m.Host(
    vendor="amd",
    shstk=False,
    load_cet_entry=False,
    load_cet_exit=False,
    basic56=False,
    unrestricted=False,
)
BAD_REG = k.ONE_REG_GUEST_SSP | 1
GUEST_AREA = m.Area(
    s_cet=1, ssp=2, table=A, wp=False, host_s_cet=2, host_ssp=B, host_table=B, host_cet=False, load_host=True
)
BATCH = m.SetMsrs(0, ((k.PL0_SSP, A), (k.PL1_SSP, B)))
NEITHER_FEATURE = m.Config(vcpus=(NEITHER,))
FAILED = (m.NestedEnter(0, GUEST_AREA), m.ReadSsp(0), m.Rdmsr(0, k.S_CET), m.Rdmsr(0, k.INT_SSP_TAB))
KEPT = (m.NestedEnter(0, m.Area(s_cet=0x40, load_host=False)), m.ReadSsp(0), m.Rdmsr(0, k.S_CET))
ACTIVE = (m.SetSregs(0, True, True), m.Run(0), m.Wrmsr(0, k.S_CET, 5))


def refused(op: Any, nth: int = 1) -> Step:
    """The operation, with one of its copies from userspace refused."""
    return Step(op, (Fault("copy_from_user", -k.EFAULT, nth),))


class JudgesNothing(Linux):
    """Stops L2's writes of S_CET, and takes them as they come."""

    def merge_msr_bitmaps(self, vcpu: Any) -> None:
        """Reads as the kernel's, writes never."""
        super().merge_msr_bitmaps(vcpu)
        self.set_intercept(vcpu, 2, k.S_CET, k.WRITE)

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        """Unchecked."""
        if msr == k.S_CET and self.vcpus[vcpu].guest_mode:
            return self.ops.set_msr(self.vcpus[vcpu], msr, value, False)
        return super().guest_wrmsr(vcpu, msr, value)


class IbtOnAmd(Upstream):
    """Offers IBT wherever the processor has it."""

    def vendor_init(self) -> int:
        """As found."""
        result = super().vendor_init()
        self.ibt, self.xss = self.port.host_cap("ibt") == 1, 0x1800
        return result


class NeverXss(Upstream):
    """Leaves XSS to hardware on every host."""

    def enter_guest(self, vcpu: int) -> None:
        """Only the VMCB."""
        self.follow_cpu(self.vcpus[vcpu])

    def exit_guest(self, vcpu: int) -> None:
        """Nothing to bring back."""


class NoSuchCopy(Upstream):
    """Reports what userspace set though its request could not be read."""

    def get_one_reg(self, vcpu: int, reg: int) -> tuple[int, int]:
        """Whatever the copy says."""
        self.port.copy_from_user(k.ONE_REG_SIZE)
        return super().get_one_reg(vcpu, reg)


class EntryByEntry(Upstream):
    """Reads and stores a batch one entry after the other."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """As far as it can be read."""
        v = self.vcpus[vcpu]
        done = loaded = 0
        for msr, value in entries:
            if self.port.copy_from_user(16):
                done = done or -k.EFAULT
                break
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = 1
            if self.do_set_msr(v, msr, value, True):
                break
            done += 1
        if loaded:
            self.port.put_guest_fpu(vcpu)
        return done


class StoresUnread(Upstream):
    """Stores an entry that it could not read."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """The copy comes too late."""
        done = super().set_msrs(vcpu, entries)
        return -k.EFAULT if self.port.copy_from_user(8) else done


class OneRegisterAtATime(Upstream):
    """Takes CR0 of KVM_SET_SREGS before it looks at CR4."""

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """In the order of the structure."""
        self.port.write_cr(vcpu, 0, cr0)
        return super().set_sregs(vcpu, cr0, cr4)


class TakesBoth(Upstream):
    """Refuses KVM_SET_SREGS when all is done."""

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """Too late."""
        result = super().set_sregs(vcpu, cr0, cr4)
        self.port.write_cr(vcpu, 4, cr4)
        return result


class ForgetsTheVmcb(Upstream):
    """Writes a VMCB and leaves it clean."""

    def field_write(self, v: Vcpu, field: int, value: int) -> None:
        """Memory alone."""
        if self.svm:
            offset = {k.GUEST_S_CET: k.VMCB_S_CET, k.GUEST_SSP: k.VMCB_SSP}.get(field, k.VMCB_ISST_ADDR)
            self.port.vmcb_write(v.number, 2 if v.l2 else 1, offset, value)
        else:
            super().field_write(v, field, value)


class KeepsVmcs12(Upstream):
    """Keeps what exits from L2 stored in its own copy of vmcs12; L1 sees it by VMREAD, as it must."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.kept: dict[int, dict[int, int]] = {}

    def leave_vmcs02(self, v: Vcpu) -> None:
        """As upstream, without a word to L1's memory."""
        fields = [field for field in k.GUEST_FIELDS if self.has_field(v, field)]
        values = [self.field_read(v, field) for field in k.GUEST_FIELDS]
        self.kept[v.number] = {field: self.field_read(v, field) for field in fields}
        v.l2 = False
        self.port.vmcs_load(v.number, 1)
        self.load_host_area(v, values)

    def nested_enter(self, vcpu: int) -> int:
        """L1 has written all of it."""
        self.kept.pop(vcpu, None)
        return super().nested_enter(vcpu)

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        """What is kept comes first."""
        result, value = super().vmread(vcpu, field)
        return (result, value) if result else (0, self.kept.get(vcpu, {}).get(field, value))


class StoresAtExitsToHostArea(KeepsVmcs12):
    """Keeps L2's values only where the exit loads the host area."""

    def leave_vmcs02(self, v: Vcpu) -> None:
        """The others are lost."""
        super().leave_vmcs02(v)
        if not self.port.vmcs12_read(v.number, k.VM_EXIT_CONTROLS) >> k.VM_EXIT_LOAD_CET & 1:
            self.kept.pop(v.number)


class LoadsForMpState(Upstream):
    """Has the guest FPU loaded throughout KVM_GET_MP_STATE, as Linux had for MPX until 6.17."""

    def get_mp_state(self, vcpu: int) -> int:
        """An INIT puts it, clears, and loads it again."""
        self.port.load_guest_fpu(vcpu)
        super().get_mp_state(vcpu)
        self.port.put_guest_fpu(vcpu)
        return 0


class ClearsLoaded(LoadsForMpState):
    """Clears the fpstate beneath the registers that are in use."""

    def reset_xstate(self, v: Vcpu) -> None:
        """Without putting them."""
        self.port.fpstate_clear(v.number, k.CET_U)
        self.port.fpstate_clear(v.number, k.CET_S)


class ListsMore(Upstream):
    """Lists MSRs of other subsystems, which this port never brings it to handle."""

    def get_msr_index_list(self) -> tuple[int, ...]:
        """IA32_TIME_STAMP_COUNTER and IA32_SYSENTER_CS, too."""
        return (0x10, *super().get_msr_index_list(), 0x174)


class JudgesByL1(Upstream):
    """Takes CR0.WP of L1 for that of L2."""

    def nested_enter(self, vcpu: int) -> int:
        """Refuses what L1 could not do itself."""
        fails = k.VMEXIT_INVALID if self.svm else k.INVALID_GUEST_STATE
        return super().nested_enter(vcpu) if self.port.read_cr(vcpu, 0) >> k.CR0_WP & 1 else fails


ROWS = [
    # L2 may have CR4.CET while L1 has CR0.WP clear
    ((m.Run(0), m.NestedEnter(0, m.Area(s_cet=1))), ONE, (Upstream, Linux), JudgesByL1, "CET-081"),
    ((m.Run(0), m.NestedEnter(0, m.Area(s_cet=1))), SVM, (Upstream, Linux), JudgesByL1, "CET-091"),
    # vmcs12 is L1's to look at with VMREAD only, wherever it is kept
    (
        (m.Run(0), m.NestedEnter(0, m.Area(load_host=False)), m.WriteSsp(0, A), m.NestedExit(0)),
        ONE,
        (Upstream, Linux, KeepsVmcs12),
        StoresAtExitsToHostArea,
        "CET-085",
    ),
    # an INIT may meet the guest FPU loaded outside of KVM_RUN, too
    ((m.GetMpState(0, True),), ONE, (Upstream, LoadsForMpState), ClearsLoaded, "CET-077"),
    ((m.GetMpState(0, True),), ONE, (Linux,), wrong.PutWithoutLoad, "CET-054"),
    # MSRs of other subsystems are theirs, also in migration
    (
        (m.SetMsrs(0, ((k.XSS, 0x1800),)), m.Migrate(0), m.Run(0), m.Rdmsr(0, k.XSS)),
        ONE,
        (Upstream, ListsMore),
        wrong.XssNotAdvertised,
        "CET-032",
    ),
    # the request of a register is read before its id is known, its value afterwards
    ((refused(m.GetOneReg(0, k.ONE_REG_MSR | k.PL0_SSP)),), ONE, (Linux,), NoSuchCopy, "CET-027"),
    ((refused(m.SetOneReg(0, BAD_REG, A)),), ONE, (Linux,), wrong.ValueBeforeId, "CET-027"),
    ((refused(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, A), 2), m.GetMsrs(0, ())), ONE, (Linux,), None, ""),
    # a batch may be read at once or entry by entry, KVM_SET_SREGS judged as a whole or by register
    ((refused(BATCH, 2), m.GetMsrs(0, (k.PL0_SSP, k.PL1_SSP))), ONE, (Linux, EntryByEntry), None, ""),
    ((refused(m.SetMsrs(0, ((k.PL0_SSP, A),)), 3), m.GetMsrs(0, (k.PL0_SSP,))), ONE, (Linux,), StoresUnread, "CET-009"),
    # What was read before a batch stopped at a register that is not there is a matter of its own.
    (
        (refused(m.SetMsrs(0, ((k.PL0_SSP, A),)), 3), m.GetMsrs(0, (k.PL0_SSP, 0x6A9))),
        ONE,
        (Linux,),
        StoresUnread,
        "CET-009",
    ),
    ((m.SetSregs(0, True, True),), NEITHER_FEATURE, (Linux, OneRegisterAtATime), TakesBoth, "CET-070"),
    # a failed entry on the guest area is an exit
    ((m.Run(0), *FAILED), ONE, (Linux, ChecksBeforeTheSwitch), wrong.FailedEntryIgnored, "CET-094"),
    ((m.Run(0), *KEPT), ONE, (Linux, ChecksBeforeTheSwitch), wrong.FailedEntryLoadsGuestArea, "CET-094"),
    # a far jump looks at both privilege levels, a task switch too, and nobody need emulate either
    ((*ACTIVE, m.Emulate(0, "far_jmp", True)), ONE, (Linux,), None, ""),
    ((*ACTIVE, m.Emulate(0, "far_jmp", False)), ONE, (Linux,), wrong.FarJumpUnderIbt, "CET-067"),
    ((*ACTIVE, m.Emulate(0, "task_switch", True)), ONE, (Linux, NoTaskSwitches), None, ""),
    ((*ACTIVE[:2], m.Emulate(0, "task_switch", False)), ONE, (NoTaskSwitches,), None, ""),
    # hardware switches XSS of a guest with encrypted state
    (
        (m.Run(0), m.Wrmsr(0, k.XSS, 0x1800), m.Xrstors(0, 12, (A, A, A)), m.Xsaves(0, 12), m.Leave(0)),
        PROTECTED,
        (Linux, NeverXss),
        wrong.ProtectedXssRefused,
        "CET-073",
    ),
    # XSS is loaded while CR4.OSXSAVE is set, which it is
    ((m.Run(0), m.Wrmsr(0, k.XSS, 0x1800), m.Xsaves(0, 12)), ONE, (Linux,), NeverXss, "CET-073"),
    # who stops a write of L2 judges it
    (
        (m.Run(0), m.NestedEnter(0), m.Wrmsr(0, k.S_CET, 0x1000)),
        ONE,
        (Linux, Upstream, StopsL2Writes),
        None,
        "",
    ),
    ((m.Run(0), m.NestedEnter(0), m.Wrmsr(0, k.S_CET, 0x40)), ONE, (StopsL2Writes,), JudgesNothing, "CET-001"),
    # an AMD host with IBT has S_CET
    ((m.VendorInit(IBT_ON_AMD),), m.Config(m.Host("amd", ibt=False), ()), (Linux, Upstream), IbtOnAmd, "CET-064"),
    # clean bit 12 may be cleared at every VMRUN
    (
        (m.Run(0), m.NestedEnter(0), m.NestedExit(0), m.NestedEnter(0, m.Area(s_cet=2))),
        SVM,
        (DirtyAlways,),
        ForgetsTheVmcb,
        "CET-092",
    ),
]


@pytest.mark.parametrize(("ops", "config", "right", "culprit", "clause"), ROWS)
def test_another_right_design_is_not_accused(
    ops: tuple[Any, ...], config: m.Config, right: tuple[type, ...], culprit: type | None, clause: str
) -> None:
    """The trace passes on each of them, and fails on the wrong candidate beside them."""
    assert [run(candidate, *ops, config=config).failure for candidate in right] == [None] * len(right)

    assert culprit is None or blamed(run(culprit, *ops, config=config)) == clause


def test_a_cautious_driver_exercises_the_clean_bit() -> None:
    """CET-092 is looked at in every VMRUN, whatever the clean bit says; so the gate does not end for want of it."""
    report = run(DirtyAlways, m.Run(0), m.Exit(0), config=SVM)

    assert "CET-092" in {clause.id for clause, n in report.tally.clauses.items() if n}


@pytest.mark.parametrize(
    ("ops", "config", "culprit", "clause"),
    [
        ((m.Run(0), m.Leave(0)), BUSY, wrong.XssLeftBehind, "CET-096"),
        ((m.Run(0), m.Wrmsr(0, k.XSS, 0x1000), m.Preempt(0)), BUSY, wrong.XssRestoredAsZero, "CET-096"),
        ((m.Run(0), m.NestedEnter(0, m.Area(host_ssp=A))), ONE, wrong.HostFieldsOfL1, "CET-097"),
        (
            (m.Run(0), m.Wrmsr(0, k.S_CET, 1), m.NestedEnter(0, m.Area(host_ssp=2)), m.Rdmsr(0, k.S_CET)),
            ONE,
            wrong.RefusedEntryClears,
            "CET-095",
        ),
        (
            (m.Run(0), m.Preempt(0, 1), m.Wrmsr(0, k.S_CET, 1), m.Preempt(0), m.Exit(0)),
            SVM,
            wrong.VmcbTrustedElsewhere,
            "CET-098",
        ),
        ((m.SetSregs(0, True, True), m.Run(0), m.Init(0)), ONE, wrong.InitKeepsCr4, "CET-099"),
        ((m.Run(0), m.NestedEnter(0), m.Leave(0), m.Reset(0), m.Run(0)), ONE, wrong.ResetStaysInL2, "CET-100"),
        ((m.GetMsrs(0, (k.INTERNAL_GUEST_SSP,)),), NO_SHSTK, wrong.SspForAnyVcpu, "CET-021"),
    ],
)
def test_what_nobody_looked_at_is_seen(ops: tuple[Any, ...], config: m.Config, culprit: type, clause: str) -> None:
    """Hardware outside of the guest, L1 after an entry that failed, copies of a VMCB, resets."""
    assert blamed(run(culprit, *ops, config=config)) == clause

    assert [run(right, *ops, config=config).failure for right in (Upstream, Linux)] == [None, None]


CONTROLS_ALONE = m.Config(m.Host(shstk=False, ibt=False), (m.Cpuid(),))
NO_CONTROLS = m.Config(m.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False), (m.Cpuid(),))


def test_vmread_of_cet_fields_goes_by_the_controls_or_by_the_feature() -> None:
    """Where a host has the controls alone; without them nobody reads the fields."""
    trace = m.Run(0), m.Vmread(0, k.GUEST_S_CET)

    assert [run(design, *trace, config=CONTROLS_ALONE).failure for design in (Linux, Upstream)] == [None, None]
    assert blamed(run(wrong.Vmcs12FieldsAlways, *trace, config=NO_CONTROLS)) == "CET-089"


def by_control(self: Any, vcpu: int, field: int) -> tuple[int, int]:
    """A field is there with the control that loads it."""
    control = "load_cet_exit" if field in k.HOST_FIELDS else "load_cet_entry"
    return (0, self.port.vmcs12_read(vcpu, field)) if self.port.host_cap(control) else (1, 0)


@pytest.mark.parametrize("field", [k.GUEST_S_CET, k.HOST_S_CET, k.GUEST_SSP, k.HOST_SSP])
@pytest.mark.parametrize(("entry", "left"), [(True, False), (False, True), (False, False), (True, True)])
def test_a_field_of_vmcs12_is_there_with_its_control_or_with_both(field: int, entry: bool, left: bool) -> None:
    """A driver that always has it is found where its own control is missing, one that never has it where none is."""
    config = m.Config(m.Host(load_cet_entry=entry, load_cet_exit=left), (m.Cpuid(),))
    trace = m.Run(0), m.Vmread(0, field)
    own = left if field in k.HOST_FIELDS else entry
    designs = Linux, Upstream, bent(Linux, vmread=by_control)
    never = bent(Upstream, vmread=lambda *_: (1, 0))

    assert [run(design, *trace, config=config).failure for design in designs] == [None] * 3
    for driver, is_right in ((wrong.Vmcs12FieldsAlways, own), (never, not (entry and left))):
        report = run(driver, *trace, config=config)
        assert (report.failure is None) if is_right else (blamed(report) == "CET-089")


@pytest.mark.parametrize("field", [k.GUEST_S_CET, k.HOST_S_CET])
def test_s_cet_is_there_for_a_guest_with_ibt_alone(field: int) -> None:
    """IBT needs it as well."""
    never = bent(Upstream, vmread=lambda *_: (1, 0))
    config = m.Config(m.Host(), (m.Cpuid(shstk=False),))

    assert blamed(run(never, m.Run(0), m.Vmread(0, field), config=config)) == "CET-089"


class LeavesL2AtTheEntry(Upstream):
    """RESET decides that the vCPU runs L1; which VMCB runs is told before it does."""

    late: frozenset[int] = frozenset()

    def leave_l2(self, v: Vcpu) -> None:
        """Remembered."""
        if v.l2:
            v.l2 = False
            self.late |= {v.number}

    def enter_guest(self, vcpu: int) -> None:
        """Done."""
        if vcpu in self.late:
            self.late -= {vcpu}
            self.port.vmcb_switch(vcpu, 1)
        super().enter_guest(vcpu)


IN_L2 = (m.Run(0), m.NestedEnter(0, m.Area(s_cet=1, ssp=A, load=True, load_host=True)), m.Leave(0))


def test_a_reset_leaves_l2_when_the_guest_runs() -> None:
    """What runs next counts, and only once it runs."""
    trace = *IN_L2, m.Reset(0), m.Run(0), m.Rdmsr(0, k.S_CET), m.ReadSsp(0)

    assert run(LeavesL2AtTheEntry, *trace, config=SVM).failure is None
    assert run(wrong.ResetStaysInL2, *IN_L2, m.Reset(0), config=SVM).failure is None
    assert blamed(run(wrong.ResetStaysInL2, *IN_L2, m.Reset(0), m.Run(0), config=SVM)) == "CET-100"
