"""Hypervisors that are wrong in one way each: the mistakes of the seed, of its revisions, and of upstream's history.

Those of the seed and its revisions derive from `Repaired`, which swaps by hand as they did; the others
from `Upstream`.
"""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet import SUPERVISOR_POINTERS, Repaired, Upstream, Vcpu
from conformance.candidates.defect import Defect
from conformance.specs.cet import constants as k


class ExitWindowSave(Repaired):
    """After the last save the values still count as being in hardware, until vcpu_put."""

    def run_end(self, vcpu: int) -> None:
        super().run_end(vcpu)
        self.vcpus[vcpu].in_hardware = self.vcpus[vcpu].active

    def vcpu_put(self, vcpu: int) -> None:
        self.vcpus[vcpu].in_hardware = False


class EntryWindowSave(Repaired):
    """From vcpu_load on the values count as being in hardware, though KVM_RUN loads them later."""

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        self.vcpus[vcpu].in_hardware = self.vcpus[vcpu].active

    def run_begin(self, vcpu: int) -> None:
        self.vcpus[vcpu].in_hardware = False
        super().run_begin(vcpu)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        v.in_hardware = v.in_hardware and v.running
        return super().fetch_msr(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        v.in_hardware = v.in_hardware and v.running
        super().store_msr(v, msr, value, host)

    def vcpu_put(self, vcpu: int) -> None:
        self.vcpus[vcpu].in_hardware = False


class IoctlSave(Repaired):
    """A context switch within any ioctl saves what hardware holds."""

    def sched_out(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        v.in_hardware = v.active
        self.swap_out(v)


class ReloadOutsideRun(Repaired):
    """Being scheduled in loads the values in every ioctl, and nothing takes them out of hardware."""

    def sched_in(self, vcpu: int, cpu: int) -> None:
        super().sched_in(vcpu, cpu)
        v = self.vcpus[vcpu]
        if v.active and not v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])


class PassedReads(Repaired):
    """An inactive vCPU reads PL0..PL2_SSP without an exit; harmless while hardware holds zeros."""

    def recalc_intercepts(self, v: Vcpu) -> None:
        super().recalc_intercepts(v)
        if v.shstk and not v.active:
            for msr in SUPERVISOR_POINTERS:
                self.port.set_intercept(v.number, 1, msr, k.READ, msr in v.denied)


class HostWriteInactive(PassedReads):
    """Only the guest's own writes activate the swap; what userspace restored is never loaded."""

    def activates(self, value: int, host: bool) -> bool:
        return value != 0 and not host


class XrstorsBypass(Repaired):
    """Enabling component 12 in XSS does not activate the swap."""

    def set_xss(self, v: Vcpu, value: int) -> int:
        return Upstream.set_xss(self, v, value)


class StaleReads(PassedReads):
    """As inactive vCPUs read hardware, a save that leaves the values there shows them to the next vCPU."""

    profile: ClassVar[str] = "v5"
    kept: ClassVar[tuple[int, ...]] = SUPERVISOR_POINTERS

    def swap_out(self, v: Vcpu) -> None:
        if not v.in_hardware:
            return
        values = [self.port.rdmsr(msr) for msr in SUPERVISOR_POINTERS]
        super().swap_out(v)
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            if msr in self.kept:
                self.port.wrmsr(msr, values[index])


class LoadsWrittenOnly(Repaired):
    """Activation puts only the MSR just written into hardware."""

    def activates(self, value: int, host: bool) -> bool:
        return value != 0 and not host

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        first = msr in SUPERVISOR_POINTERS and v.running and not v.active and self.activates(value, host)
        if first:
            v.active = v.in_hardware = True
            self.recalc_intercepts(v)
        super().store_msr(v, msr, value, host)


class FlagBeforeData(Repaired):
    """The values count as being in hardware before activation has put them there."""

    def activates(self, value: int, host: bool) -> bool:
        return value != 0 and not host

    def activate(self, v: Vcpu) -> None:
        if v.active or not v.running:
            super().activate(v)
            return
        v.active = v.in_hardware = True
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            self.port.wrmsr(msr, v.ssp[index])
        self.recalc_intercepts(v)


class ZeroNotWritten(Repaired):
    """An intercepted write of zero reaches the array, not the register."""

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr in SUPERVISOR_POINTERS and value == 0:
            v.ssp[msr - k.PL0_SSP] = 0
            return
        super().store_msr(v, msr, value, host)


class ResetKeepsArray(Repaired):
    """INIT and RESET know nothing of the array and the registers."""

    def reset_xstate(self, v: Vcpu) -> None:
        Upstream.reset_xstate(self, v)


class ReadsArray(Repaired):
    """An intercepted read gives the array's value while the register holds a newer one."""

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        return v.ssp[msr - k.PL0_SSP] if msr in SUPERVISOR_POINTERS else super().fetch_msr(v, msr)


class CetKernelForced(Upstream):
    """Bit 12 of XSS is offered on every host with XSAVES."""

    def settle_xss(self) -> None:
        super().settle_xss()
        if self.port.host_cap("xsaves"):
            self.xss |= 1 << k.CET_S


class AnyCetBitWillDo(Upstream):
    """With bit 12 forced, one CET bit of XSS is enough to offer the features."""

    def settle_xss(self) -> None:
        if self.port.host_cap("xsaves"):
            self.xss |= 1 << k.CET_S
        if not self.xss & 0x1800:
            self.shstk = self.ibt = False
        if not self.shstk and not self.ibt:
            self.xss &= ~0x1800


class SwapEveryExit(Repaired):
    """Saves and reloads around every VM exit."""

    def enter_guest(self, vcpu: int) -> None:
        super().enter_guest(vcpu)
        self.swap_in(self.vcpus[vcpu])

    def exit_guest(self, vcpu: int) -> None:
        self.swap_out(self.vcpus[vcpu])
        super().exit_guest(vcpu)


class PreemptibleSave(Repaired):
    """The save reads and clears with preemption enabled."""

    def swap_out(self, v: Vcpu) -> None:
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
            v.in_hardware = False


class ClearsFirstOnly(Repaired):
    """Only PL0_SSP is cleared after a save, and a context switch saves in every phase."""

    profile: ClassVar[str] = "v5"

    def swap_out(self, v: Vcpu) -> None:
        self.port.preempt_disable()
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
            self.port.wrmsr(k.PL0_SSP, 0)
            v.in_hardware = False
        self.port.preempt_enable()

    def sched_out(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        v.in_hardware = v.active
        self.swap_out(v)


class HostWriteToHardware(Repaired):
    """A host-initiated write goes straight to the registers of the current physical CPU."""

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        super().store_msr(v, msr, value, host)
        if host and value and msr in SUPERVISOR_POINTERS:
            self.port.wrmsr(msr, value)


class ZeroNeverTracked(StaleReads):
    """A guest that writes only zeros stays inactive, and reads what others left in PL1 and PL2_SSP."""

    kept: ClassVar[tuple[int, ...]] = (k.PL1_SSP, k.PL2_SSP)


class LoadedStateBypassed(XrstorsBypass):
    """XRSTORS goes unnoticed, and intercepted accesses use the array while the registers are loaded."""

    profile: ClassVar[str] = "v5"

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        return v.ssp[msr - k.PL0_SSP] if msr in SUPERVISOR_POINTERS else super().fetch_msr(v, msr)


class PutWithoutLoad(Upstream):
    """INIT puts the guest FPU whether or not it is in use."""

    def reset_xstate(self, v: Vcpu) -> None:
        self.port.put_guest_fpu(v.number)
        self.port.fpstate_clear(v.number, k.CET_U)
        self.port.fpstate_clear(v.number, k.CET_S)
        self.port.load_guest_fpu(v.number)


class OneRegWithoutFpu(Upstream):
    """KVM_GET_ONE_REG and KVM_SET_ONE_REG do not load the guest FPU."""

    def one_reg_needs_fpu(self, v: Vcpu, msr: int) -> bool:
        return False


class IgnoredGuestSsp(Upstream):
    """With ignore_msrs GUEST_SSP is a register of vCPUs without SHSTK too."""

    def resolve_reg(self, v: Vcpu, reg: int) -> int | None:
        if reg == k.ONE_REG_GUEST_SSP and self.ignore_msrs:
            return k.INTERNAL_GUEST_SSP
        return super().resolve_reg(v, reg)


class SCetThroughXstate(Upstream):
    """A host-initiated write of S_CET goes the way of the XSTATE-managed MSRs, to the host's register."""

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr == k.S_CET:
            self.xstate_write(v, msr, value)
        super().store_msr(v, msr, value, host)


class Pl3ForIbt(Upstream):
    """PL3_SSP is passed through to a vCPU with IBT alone."""

    def passes(self, v: Vcpu, msr: int) -> bool:
        return super().passes(v, msr) or (msr == k.PL3_SSP and v.ibt and msr not in v.denied)


class UncheckedVmcb12(Upstream):
    """VMRUN does not check vmcb12's CET state."""

    def check_vmcb12(self, v: Vcpu) -> int:
        return 0


class WrongVmcbDirty(Upstream):
    """A write while L2 is active marks vmcb01 dirty."""

    def field_write(self, v: Vcpu, field: int, value: int) -> None:
        clean = self.port.vmcb_mark_dirty
        if not self.svm or not v.l2:
            super().field_write(v, field, value)
            return
        offset = {k.GUEST_S_CET: k.VMCB_S_CET, k.GUEST_SSP: k.VMCB_SSP}.get(field, k.VMCB_ISST_ADDR)
        self.port.vmcb_write(v.number, 2, offset, value)
        clean(v.number, 1, k.VMCB_CET)


class TableReadWithoutLm(Upstream):
    """INT_SSP_TAB can be read without long mode."""

    def get_msr(self, v: Vcpu, msr: int, host: bool) -> tuple[int, int]:
        if msr == k.INT_SSP_TAB and v.shstk:
            return 0, self.fetch_msr(v, msr)
        return super().get_msr(v, msr, host)


class UncheckedBase(Upstream):
    """The base in U_CET and S_CET may be non-canonical."""

    def valid_cet(self, v: Vcpu, value: int) -> bool:
        return self.valid_cet_bits(v, value)


class NestedCapsFirst(Upstream):
    """Nested VMX is set up before SHSTK and IBT are adjusted."""

    def vendor_init(self) -> int:
        result = super().vendor_init()
        cap = self.port.host_cap
        controls = cap("load_cet_entry") and cap("load_cet_exit")
        self.nested_cet = not self.svm and bool(controls and (cap("shstk") or cap("ibt")))
        return result


class Vmcs12FieldsAlways(Upstream):
    """L1 can read the CET fields of vmcs12 on any host."""

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        return 0, self.port.vmcs12_read(vcpu, field)


class XssOutlivesFeatures(Upstream):
    """SHSTK and IBT are cleared, the CET bits of supported_xss are not."""

    def settle_xss(self) -> None:
        if self.xss & 0x1800 != 0x1800:
            self.shstk = self.ibt = False


class ToggleClears(Upstream):
    """Every change of CR4.CET clears S_CET, SSP and the table, and SMRAM does not get SSP."""

    def set_cr4(self, vcpu: int, value: int) -> int:
        changed = (self.port.read_cr(vcpu, 4) ^ value) >> k.CR4_CET & 1
        result = super().set_cr4(vcpu, value)
        if changed and not result:
            for field in (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE):
                self.field_write(self.vcpus[vcpu], field, 0)
        return result


class XssNotAdvertised(Upstream):
    """XSS is missing from the MSR index list."""

    def probe_msrs(self) -> tuple[int, ...]:
        return tuple(msr for msr in super().probe_msrs() if msr != k.XSS)


class ProtectedXssDropped(Upstream):
    """A guest with encrypted state writes XSS and nobody keeps track."""

    def set_xss(self, v: Vcpu, value: int) -> int:
        size = v.xsaves_size
        result = super().set_xss(v, value)
        if self.port.host_cap("sev_es"):
            v.xsaves_size = size
        return result


class PointersIntercepted(Upstream):
    """PL0_SSP is intercepted for a vCPU with SHSTK."""

    def passes(self, v: Vcpu, msr: int) -> bool:
        return msr != k.PL0_SSP and super().passes(v, msr)


class ShadowPagingForgotten(Upstream):
    """SHSTK survives shadow paging and a smaller guest MAXPHYADDR."""

    def set_caps(self) -> None:
        cap = self.port.host_cap
        super().set_caps()
        if self.vendor_can() and not self.shstk:
            self.xss = cap("xss") & 0x1800 if cap("xsaves") else 0
            self.shstk = cap("shstk") == 1
            self.settle_xss()


class FarJumpUnchecked(Upstream):
    """A far jump to compatibility mode is emulated with SSP above 32 bits."""

    def emulate(self, vcpu: int, instruction: str, user: bool) -> int:
        result = super().emulate(vcpu, instruction, user)
        return k.EMULATED if result == k.EMULATED_GP else result


class InternalMsrInSmm(Upstream):
    """The guest can read KVM's name for SSP while it is in SMM."""

    def guest_rdmsr(self, vcpu: int, msr: int) -> tuple[int, int]:
        v = self.vcpus[vcpu]
        if msr == k.INTERNAL_GUEST_SSP and v.smm and v.shstk:
            return 0, self.field_read(v, k.GUEST_SSP)
        return super().guest_rdmsr(vcpu, msr)


class RsmIgnoresFailure(Upstream):
    """RSM goes on when SSP cannot be restored."""

    def rsm(self, vcpu: int) -> int:
        super().rsm(vcpu)
        return 0


DEFECTS: tuple[Defect, ...] = (
    Defect(
        "CET-A-01",
        "A preemption after the last save saves the cleared registers.",
        ExitWindowSave,
        ("CET-043", "CET-044"),
        9,
    ),
    Defect(
        "CET-A-02",
        "A preemption between vcpu_load and the reload saves the host's zeros.",
        EntryWindowSave,
        ("CET-043", "CET-044", "CET-025", "CET-009"),
        8,
        note="CET-009: the candidate cannot tell the entry of KVM_RUN from other ioctls, where a set value is lost.",
    ),
    Defect(
        "CET-A-03",
        "A preemption within any other ioctl saves the host's zeros.",
        IoctlSave,
        ("CET-043", "CET-044", "CET-025", "CET-009"),
        7,
        note="CET-009: with a value that userspace set and reads back, no guest is needed.",
    ),
    Defect(
        "CET-A-04",
        "sched_in loads the values in ioctls that never take them out again.",
        ReloadOutsideRun,
        ("CET-045", "CET-049"),
        6,
    ),
    Defect(
        "CET-A-05",
        "A value set by userspace never activates the swap, and the guest reads zero.",
        HostWriteInactive,
        ("CET-024", "CET-032", "CET-039"),
        5,
    ),
    Defect(
        "CET-A-06",
        "XRSTORS of component 12 bypasses the lazy activation.",
        XrstorsBypass,
        ("CET-040", "CET-043", "CET-046", "CET-049", "CET-042", "CET-025"),
        7,
        note="CET-042 and CET-025: an intercepted or host-initiated read misses what XRSTORS wrote, at once.",
    ),
    Defect(
        "CET-A-07",
        "A vCPU that is not yet swapped reads what another left in the registers.",
        StaleReads,
        ("CET-039", "CET-046"),
        8,
    ),
    Defect(
        "CET-A-08",
        "Activation loads only the MSR written, and the next save overwrites the others.",
        LoadsWrittenOnly,
        ("CET-017", "CET-024", "CET-043"),
        6,
        note="CET-043: the next save, at a preemption, overwrites the others for good.",
    ),
    Defect(
        "CET-A-09",
        "A preemption between the flag and the registers saves zeros over the array.",
        FlagBeforeData,
        ("CET-043", "CET-051", "CET-017"),
        8,
    ),
    Defect(
        "CET-A-10",
        "An intercepted write of zero does not reach the register.",
        ZeroNotWritten,
        ("CET-016", "CET-042", "CET-024"),
        5,
        note="CET-024: the same write by userspace never reaches a vCPU that is swapped.",
    ),
    Defect("CET-A-11", "Neither INIT nor RESET clears array and registers.", ResetKeepsArray, ("CET-076",), 5),
    Defect(
        "CET-A-12",
        "An intercepted read returns the array instead of the live register.",
        ReadsArray,
        ("CET-042", "CET-025", "CET-017"),
        6,
        note="CET-017: after a write of another pointer the stale value looks like that write's doing.",
    ),
    Defect(
        "CET-A-13",
        "Bit 12 of XSS is offered whatever the hardware has.",
        CetKernelForced,
        ("CET-060", "CET-061", "CET-075", "CET-073"),
        2,
        note="CET-073: without XSS in hardware the guest's write should have been refused.",
    ),
    Defect(
        "CET-A-14", "One CET bit, forced at that, is enough to offer SHSTK.", AnyCetBitWillDo, ("CET-060", "CET-061"), 2
    ),
    Defect(
        "CET-A-15",
        "Userspace must save three more MSRs that XSAVE images lack.",
        why_not="It is an objection to the interface; nothing is wrong while the MSRs are advertised.",
    ),
    Defect(
        "CET-A-16",
        "The sched_out hook is called with a constant 0 for the physical CPU.",
        why_not="The port's sched_out takes no physical CPU, so there is nothing to get wrong.",
    ),
    Defect(
        "CET-A-17",
        "Six MSR accesses per save and three per reload, at every boundary.",
        SwapEveryExit,
        ("CET-057",),
        note="Taken to exits handled in the kernel, where the clause says there should be none.",
    ),
    Defect(
        "CET-V4-1",
        "A save with preemption enabled is torn by a context switch.",
        PreemptibleSave,
        ("CET-051", "CET-043", "CET-044"),
        6,
        note="From outside a torn save and a second one look alike: a value is lost in the exit window.",
    ),
    Defect(
        "CET-V4-2",
        "Only PL0_SSP is cleared, so a save in another vCPU's ioctl takes PL1_SSP for its own.",
        ClearsFirstOnly,
        ("CET-044", "CET-046", "CET-043", "CET-025", "CET-009"),
        10,
        note="CET-043, CET-025, CET-009: with one vCPU the same save loses PL0_SSP.",
    ),
    Defect(
        "CET-V4-3",
        "KVM_SET_MSRS writes the guest's value to the current physical CPU.",
        HostWriteToHardware,
        ("CET-045", "CET-046", "CET-049"),
        3,
    ),
    Defect(
        "CET-V4-4",
        "A vCPU that writes only zeros is never tracked, and reads another's values.",
        ZeroNeverTracked,
        ("CET-016", "CET-046"),
        8,
    ),
    Defect(
        "CET-V5-1",
        "XRSTORS bypasses activation, and intercepted accesses use the array while the registers are loaded.",
        LoadedStateBypassed,
        ("CET-040", "CET-042", "CET-025", "CET-017"),
        5,
        note="CET-017: as for the array of the seed.",
    ),
    Defect(
        "CET-U-01",
        "INIT in KVM_GET_MP_STATE puts a guest FPU that was not loaded.",
        PutWithoutLoad,
        ("CET-054", "CET-077"),
        1,
    ),
    Defect("CET-U-02", "ONE_REG accesses without the guest FPU.", OneRegWithoutFpu, ("CET-053", "CET-055"), 1),
    Defect(
        "CET-U-03", "ignore_msrs makes GUEST_SSP succeed without SHSTK.", IgnoredGuestSsp, ("CET-027", "CET-029"), 1
    ),
    Defect("CET-U-04", "A guest's S_CET is written to the host's MSR.", SCetThroughXstate, ("CET-047", "CET-056"), 1),
    Defect("CET-U-05", "PL3_SSP is passed through to an IBT-only vCPU.", Pl3ForIbt, ("CET-013", "CET-035"), 2),
    Defect("CET-U-06", "VMRUN accepts invalid CET state in vmcb12.", UncheckedVmcb12, ("CET-091",), 2),
    Defect("CET-U-07", "A write to vmcb02 marks vmcb01 dirty.", WrongVmcbDirty, ("CET-092",), 4),
    Defect("CET-U-08", "INT_SSP_TAB can be read without LM.", TableReadWithoutLm, ("CET-014",), 2),
    Defect("CET-U-09", "A non-canonical base reaches a WRMSR that faults.", UncheckedBase, ("CET-006",), 1),
    Defect("CET-U-10", "Nested load-CET controls are offered without the features.", NestedCapsFirst, ("CET-066",), 2),
    Defect("CET-U-11", "CET fields of vmcs12 can be read without the hardware.", Vmcs12FieldsAlways, ("CET-089",), 2),
    Defect(
        "CET-U-12", "supported_xss keeps CET bits without the features.", XssOutlivesFeatures, ("CET-060", "CET-061"), 2
    ),
    Defect("CET-U-13", "Toggling CR4.CET clears S_CET, SSP and the table.", ToggleClears, ("CET-071", "CET-079"), 6),
    Defect(
        "CET-U-14",
        "Requesting permission for AMX drops the supervisor components from guest fpstates.",
        why_not="The mistake is in the host's FPU code, which is the environment here.",
    ),
    Defect("CET-U-15", "XSS is not reported as an MSR to save.", XssNotAdvertised, ("CET-031", "CET-032"), 1),
    Defect(
        "CET-U-16", "XSS written by an SEV-ES guest leaves CPUID's sizes stale.", ProtectedXssDropped, ("CET-073",), 3
    ),
    Defect("CET-U-17", "PL0_SSP is intercepted although the vCPU has SHSTK.", PointersIntercepted, ("CET-036",), 1),
    Defect("CET-U-18", "SHSTK is offered with shadow paging.", ShadowPagingForgotten, ("CET-063",), 1),
    Defect(
        "CET-U-19", "A far jump to compatibility mode ignores SSP above 32 bits.", FarJumpUnchecked, ("CET-067",), 6
    ),
    Defect("CET-U-20", "In SMM the guest reads KVM's own MSR for SSP.", InternalMsrInSmm, ("CET-030",), 3),
    Defect("CET-U-21", "RSM ignores an invalid SSP.", RsmIgnoresFailure, ("CET-079",), 3),
)
