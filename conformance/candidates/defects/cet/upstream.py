"""Mistakes of upstream's history, and of the seed's capabilities."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import INVALID, SWITCHED_FIELDS, VMCB_OF, Vcpu
from conformance.specs.cet import constants as k


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


class FailedEntryIgnored(Upstream):
    """An entry that fails on the guest area leaves L1 as it was."""

    def nested_enter(self, vcpu: int) -> int:
        v = self.vcpus[vcpu]
        return (not self.svm and self.check_vmcs12(v)) or super().nested_enter(vcpu)


class FailedEntryLoadsGuestArea(Upstream):
    """After a failed entry without the exit control L1 gets the guest area, as after an exit."""

    def nested_enter(self, vcpu: int) -> int:
        result = super().nested_enter(vcpu)
        v, read = self.vcpus[vcpu], self.port.vmcs12_read
        if result == k.INVALID_GUEST_STATE and not read(vcpu, k.VM_EXIT_CONTROLS) >> k.VM_EXIT_LOAD_CET & 1:
            for field in SWITCHED_FIELDS:
                if self.has_field(v, field):
                    self.field_write(v, field, read(vcpu, field))
        return result


class RefusedEntryClears(Upstream):
    """An entry that VM-fails, or an invalid VMRUN, costs L1 its S_CET, SSP and table."""

    def nested_enter(self, vcpu: int) -> int:
        result = super().nested_enter(vcpu)
        if result in (k.VMFAIL_HOST_STATE, k.VMEXIT_INVALID):
            for field in SWITCHED_FIELDS:
                self.field_write(self.vcpus[vcpu], field, 0)
        return result


class XssLeftBehind(Upstream):
    """The guest's XSS stays in hardware."""

    def exit_guest(self, vcpu: int) -> None:
        pass


class XssRestoredAsZero(Upstream):
    """Whatever the host's XSS was, it is 0 after the guest."""

    def exit_guest(self, vcpu: int) -> None:
        if self.vcpus[vcpu].xss:
            self.port.wrmsr(k.XSS, 0)


class HostFieldsOfL1(Upstream):
    """L1's host area is taken for vmcs02's own."""

    def enter_vmcs02(self, v: Vcpu, run_pending: bool) -> None:
        super().enter_vmcs02(v, run_pending)
        for field in (k.HOST_SSP, k.HOST_INTR_SSP_TABLE):
            self.port.vmcs_write(v.number, field, self.port.vmcs12_read(v.number, field))


class ValueBeforeId(Upstream):
    """KVM_SET_ONE_REG looks for the value before it knows whether there is such a register."""

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        return -k.EFAULT if self.port.copy_from_user(8) else super().set_one_reg(vcpu, reg, value)


class FarJumpUnderIbt(Upstream):
    """A far jump is emulated while IBT is active."""

    def emulate(self, vcpu: int, instruction: str, user: bool) -> int:
        return k.EMULATED if instruction == "far_jmp" else super().emulate(vcpu, instruction, user)


class VmcbTrustedElsewhere(Upstream):
    """A VMCB stays clean on another physical CPU, which may have an older copy of it."""

    def follow_cpu(self, v: Vcpu) -> None:
        pass


class InitKeepsCr4(Upstream):
    """INIT leaves CR4.CET and CR0.WP as they were."""

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        before = self.port.read_cr(vcpu, 0), self.port.read_cr(vcpu, 4)
        super().vcpu_reset(vcpu, init)
        if init:
            self.port.write_cr(vcpu, 0, before[0])
            self.port.write_cr(vcpu, 4, before[1])


class ResetStaysInL2(Upstream):
    """RESET of a vCPU in L2 clears L2's state, and goes on in L2."""

    def leave_l2(self, v: Vcpu) -> None:
        pass


class AnyCleanVmcb12(Upstream):
    """A clean vmcb12 is taken for the one that ran last."""

    def enter_vmcb02(self, v: Vcpu) -> None:
        kept = [self.port.vmcb_read(v.number, 2, offset) for offset in VMCB_OF.values()]
        super().enter_vmcb02(v)
        if self.trusts(v) and self.port.vmcs12_read(v.number, k.VMCB_CLEAN) >> k.VMCB_CET & 1:
            for field, value in zip(VMCB_OF, kept, strict=True):
                self.field_write(v, field, value)
        v.entered = True

    def trusts(self, v: Vcpu) -> bool:
        """Whether vmcb02 has been filled before."""
        return v.entered


class CleanVmcb12OfNobody(AnyCleanVmcb12):
    """A clean vmcb12 is not read even by a vCPU that never ran it, a migrated one."""

    def trusts(self, v: Vcpu) -> bool:
        return True


class SspForAnyVcpu(Upstream):
    """KVM_GET_MSRS shows SSP under its internal number whatever the vCPU has."""

    def get_msr(self, v: Vcpu, msr: int, host: bool) -> tuple[int, int]:
        if msr == k.INTERNAL_GUEST_SSP and host:
            return 0, self.fetch_msr(v, msr)
        return super().get_msr(v, msr, host)


class L2WritesUnjudged(Upstream):
    """WRMSR of L2 is always stopped, and S_CET taken as it comes."""

    def recalc_intercepts(self, v: Vcpu) -> None:
        super().recalc_intercepts(v)
        if v.l2:
            self.port.set_intercept(v.number, 2, k.S_CET, k.WRITE, True)

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        v = self.vcpus[vcpu]
        if v.l2 and msr == k.S_CET and (v.shstk or v.ibt):
            self.field_write(v, k.GUEST_S_CET, value)
            return 0
        return super().guest_wrmsr(vcpu, msr, value)


class ProtectedXssRefused(Upstream):
    """A guest with encrypted state cannot write XSS."""

    def set_xss(self, v: Vcpu, value: int) -> int:
        return INVALID if self.port.host_cap("sev_es") and value else super().set_xss(v, value)


class FilterForL1Only(Upstream):
    """A filter that is set while L2 runs is merged into its bitmap at the next nested entry only."""

    def set_msr_filter(self, vcpu: int, denied: tuple[int, ...]) -> None:
        v = self.vcpus[vcpu]
        v.l2, in_l2 = False, v.l2
        super().set_msr_filter(vcpu, denied)
        v.l2 = in_l2


class UserspaceSeesL1(Upstream):
    """On SVM userspace reads S_CET, SSP and the table of vmcb01, also while L2 runs."""

    def get_msrs(self, vcpu: int, indices: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        v = self.vcpus[vcpu]
        v.l2, in_l2 = v.l2 and not self.svm, v.l2
        answer = super().get_msrs(vcpu, indices)
        v.l2 = in_l2
        return answer


class FaultTakenForZero(Upstream):
    """KVM_SET_ONE_REG of SSP whose value cannot be read stores 0, and says -EFAULT."""

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        result = super().set_one_reg(vcpu, reg, value)
        if result == -k.EFAULT and reg == k.ONE_REG_GUEST_SSP:
            self.field_write(self.vcpus[vcpu], k.GUEST_SSP, 0)
        return result


class RefusedVmrunDropsCet(Upstream):
    """A VMRUN that is refused clears L1's CR4.CET."""

    def check_vmcb12(self, v: Vcpu) -> int:
        refused = super().check_vmcb12(v)
        if refused:
            self.port.write_cr(v.number, 4, self.port.read_cr(v.number, 4) & ~(1 << k.CR4_CET))
        return refused
