"""Hypervisors that handle CET, written as drivers are: mutable per-vCPU structures and early returns.

`Upstream` keeps PL0..PL3_SSP and U_CET in the guest fpstate. `Repaired` swaps PL0..PL2_SSP by hand as
the seed did, without the seed's mistakes; the zoo's as-posted defects are derived from it. `AsPosted`
and `V5` are the designs as they were posted, mistakes and all.
"""

from __future__ import annotations

from typing import ClassVar

from conformance.specs.cet import Port
from conformance.specs.cet import constants as k

INVALID = 1
"""An MSR handler refuses a value or an access."""
UNSUPPORTED = 2
"""An MSR handler does not know the MSR, or the vCPU does not have it."""

SWITCHED_FIELDS = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
VMCB_OF = {
    k.GUEST_S_CET: k.VMCB_S_CET,
    k.GUEST_SSP: k.VMCB_SSP,
    k.GUEST_INTR_SSP_TABLE: k.VMCB_ISST_ADDR,
}
"""Where SVM keeps what VMX has in a guest field."""
FIELD_OF_MSR = {
    k.S_CET: k.GUEST_S_CET,
    k.INT_SSP_TAB: k.GUEST_INTR_SSP_TABLE,
    k.INTERNAL_GUEST_SSP: k.GUEST_SSP,
}
SUPERVISOR_POINTERS = (k.PL0_SSP, k.PL1_SSP, k.PL2_SSP)
PASSABLE = (k.U_CET, k.S_CET, *k.POINTER_MSRS)
"""MSRs that a guest may get to access without an exit."""


class Vcpu:
    """What the driver remembers of one vCPU."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.offered: tuple[bool, bool, bool, bool, int] | None = None
        self.shstk = False
        self.ibt = False
        self.lm = False
        self.xsaves = False
        self.supported_xss = 0
        self.ran = False
        self.xss = 0
        self.xsaves_size = k.XSAVE_BASE_SIZE
        self.denied: tuple[int, ...] = ()
        self.smm = False
        self.l2 = False
        self.l1_state = (0, 0)
        """CR0 and CR4 of L1 while SVM runs L2."""
        # the manual swap of the seed and of v5
        self.ssp = [0, 0, 0]
        self.active = False
        self.in_hardware = False
        self.running = False


class Upstream:
    """The guest FPU carries PL0..PL3_SSP and U_CET; VMCS or VMCB carry the rest."""

    profile: ClassVar[str] = "upstream"
    base_aligned: ClassVar[bool] = True

    def __init__(self, port: Port) -> None:
        self.port = port
        self.vcpus: dict[int, Vcpu] = {}
        self.svm = False
        self.shstk = False
        self.ibt = False
        self.xss = 0
        self.lm = False
        self.width = 48
        self.host_s_cet = 0
        self.ignore_msrs = False
        self.advertised: tuple[int, ...] = ()
        self.nested_cet = False

    # -- module

    def vendor_init(self) -> int:
        """Sample the host, derive what KVM offers, then what nested VMX and userspace are told."""
        cap = self.port.host_cap
        self.svm = cap("vendor") == 1
        self.width = cap("width")
        self.lm = cap("lm") == 1
        self.ignore_msrs = cap("ignore_msrs") == 1
        self.host_s_cet = 0
        if cap("shstk") or (cap("ibt") and not self.svm):
            self.host_s_cet = self.port.rdmsr(k.S_CET)
            if self.host_s_cet & 1:
                return -k.EIO
        self.set_caps()
        self.nested_cet = not self.svm and (self.shstk or self.ibt)
        self.advertised = self.probe_msrs()
        return 0

    def set_caps(self) -> None:
        """SHSTK, IBT and the XSS bits this host allows."""
        cap = self.port.host_cap
        self.xss = cap("xss") & 0x1800 if cap("xsaves") else 0
        self.shstk = cap("shstk") == 1
        self.ibt = cap("ibt") == 1 and not self.svm
        if not cap("tdp"):
            self.shstk = False
        if cap("smaller_maxphyaddr") or not self.vendor_can():
            self.shstk = self.ibt = False
        self.settle_xss()

    def vendor_can(self) -> bool:
        """The prerequisites of VMX; SVM has none."""
        if self.svm:
            return True
        cap = self.port.host_cap
        return bool(cap("load_cet_entry") and cap("load_cet_exit") and cap("unrestricted") and cap("basic56"))

    def settle_xss(self) -> None:
        """Features and XSS bits stand or fall together."""
        if self.xss & 0x1800 != 0x1800:
            self.shstk = self.ibt = False
        if not self.shstk and not self.ibt:
            self.xss &= ~0x1800

    def probe_msrs(self) -> tuple[int, ...]:
        """The MSR index list."""
        msrs: list[int] = []
        if self.shstk or self.ibt:
            msrs += [k.U_CET, k.S_CET]
        if self.shstk:
            msrs += k.POINTER_MSRS
        if self.shstk and self.lm:
            msrs.append(k.INT_SSP_TAB)
        if self.xss:
            msrs.append(k.XSS)
        return tuple(msrs)

    def kvm_caps(self) -> tuple[bool, bool, int]:
        """What was derived."""
        return self.shstk, self.ibt, self.xss

    def nested_load_cet(self) -> bool:
        """What nested VMX was given."""
        return self.nested_cet

    def get_msr_index_list(self) -> tuple[int, ...]:
        """What was probed."""
        return self.advertised

    # -- vCPUs

    def vcpu_create(self, vcpu: int) -> int:
        """Allocate, and fill the constant VMCS fields."""
        refusal = self.port.alloc_guest_fpstate(vcpu)
        if refusal:
            return refusal
        v = self.vcpus[vcpu] = Vcpu(vcpu)
        if not self.svm:
            for level in (2, 1):
                self.port.vmcs_load(vcpu, level)
                self.set_constant_fields(v)
        return 0

    def set_constant_fields(self, v: Vcpu) -> None:
        """Host state and the load-CET controls, where the processor has them."""
        if not self.port.host_cap("load_cet_entry") or not self.port.host_cap("load_cet_exit"):
            return
        self.port.vmcs_write(v.number, k.HOST_S_CET, self.host_s_cet)
        self.port.vmcs_write(v.number, k.HOST_SSP, 0)
        self.port.vmcs_write(v.number, k.HOST_INTR_SSP_TABLE, 0)
        self.port.vmcs_write(v.number, k.VM_ENTRY_CONTROLS, 1 << k.VM_ENTRY_LOAD_CET)
        self.port.vmcs_write(v.number, k.VM_EXIT_CONTROLS, 1 << k.VM_EXIT_LOAD_CET)

    def vcpu_destroy(self, vcpu: int) -> None:
        """Give the fpstate back."""
        self.port.free_guest_fpstate(vcpu)
        del self.vcpus[vcpu]

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        """Cut userspace's offer down to what KVM has; frozen after the first run."""
        v = self.vcpus[vcpu]
        offered = (shstk, ibt, lm, xsaves, xss)
        if v.ran:
            return 0 if offered == v.offered else -k.EINVAL
        v.offered = offered
        v.shstk = shstk and self.shstk
        v.ibt = ibt and self.ibt
        v.lm = lm and self.lm
        v.xsaves = xsaves and self.port.host_cap("xsaves") == 1
        v.supported_xss = xss & self.xss
        self.recalc_intercepts(v)
        return 0

    def set_msr_filter(self, vcpu: int, denied: tuple[int, ...]) -> None:
        """Remember the denied MSRs, and intercept them."""
        v = self.vcpus[vcpu]
        v.denied = denied
        self.recalc_intercepts(v)

    def passes(self, v: Vcpu, msr: int) -> bool:
        """Whether L0 lets the guest have this MSR."""
        if msr in v.denied:
            return False
        if msr in k.CONTROL_MSRS:
            return v.shstk or (v.ibt and not self.svm)
        return v.shstk

    def recalc_intercepts(self, v: Vcpu) -> None:
        """Set every bitmap bit that can be passed, in both bitmaps while L2 is active."""
        both = k.READ | k.WRITE
        for msr in PASSABLE:
            on = not self.passes(v, msr)
            self.port.set_intercept(v.number, 1, msr, both, on)
            if v.l2:
                stopped = on or self.port.l1_intercepts(v.number, msr) != 0
                self.port.set_intercept(v.number, 2, msr, both, stopped)

    # -- context switches: all is in the FPU code's hands

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        """Nothing to do."""

    def vcpu_put(self, vcpu: int) -> None:
        """Nothing to do."""

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        v = self.vcpus[vcpu]
        v.ran = True
        self.port.load_guest_fpu(vcpu)

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        self.port.put_guest_fpu(vcpu)

    def sched_out(self, vcpu: int) -> None:
        """Nothing to do: the FPU code saves."""

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """Nothing to do: the FPU code reloads."""

    def enter_guest(self, vcpu: int) -> None:
        """Load the guest's XSS."""
        xss = self.vcpus[vcpu].xss
        if xss:
            self.port.wrmsr(k.XSS, xss)

    def exit_guest(self, vcpu: int) -> None:
        """Load the host's XSS."""
        if self.vcpus[vcpu].xss:
            self.port.wrmsr(k.XSS, 0)

    # -- MSRs

    def noncanonical(self, value: int) -> bool:
        """Not a linear address of this host."""
        top = value >> (self.width - 1)
        return top != 0 and top != (1 << (65 - self.width)) - 1

    def valid_cet(self, v: Vcpu, value: int) -> bool:
        """A value of U_CET or S_CET, the base's canonicality included."""
        return self.valid_cet_bits(v, value) and not self.noncanonical(value & ~0xFFF)

    def valid_cet_bits(self, v: Vcpu, value: int) -> bool:
        """A value of U_CET or S_CET, whatever its base."""
        if value & 0x3C0:
            return False
        if value & 0x3 and not v.shstk:
            return False
        if value & 0xFFFF_FFFF_FFFF_FC3C and not v.ibt:
            return False
        if value & 0xC00 == 0xC00:
            return False
        return not (self.base_aligned and value & 0x3000)

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        """Whether the guest FPU holds this MSR for this vCPU."""
        if msr == k.U_CET:
            return v.shstk or v.ibt
        return msr in k.POINTER_MSRS and v.shstk

    def xstate_read(self, v: Vcpu, msr: int) -> int:
        """RDMSR with the guest FPU locked into hardware."""
        self.port.fpu_get()
        value = self.port.rdmsr(msr)
        self.port.fpu_put()
        return value

    def xstate_write(self, v: Vcpu, msr: int, value: int) -> None:
        """WRMSR with the guest FPU locked into hardware."""
        self.port.fpu_get()
        self.port.wrmsr(msr, value)
        self.port.fpu_put()

    def field_read(self, v: Vcpu, field: int) -> int:
        """One of the three values that VM entries switch."""
        if self.svm:
            return self.port.vmcb_read(v.number, 2 if v.l2 else 1, VMCB_OF[field])
        return self.port.vmcs_read(v.number, field)

    def field_write(self, v: Vcpu, field: int, value: int) -> None:
        """One of the three values that VM entries switch; SVM must be told."""
        if not self.svm:
            self.port.vmcs_write(v.number, field, value)
            return
        level = 2 if v.l2 else 1
        self.port.vmcb_write(v.number, level, VMCB_OF[field], value)
        self.port.vmcb_mark_dirty(v.number, level, k.VMCB_CET)

    def set_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> int:
        """Check a value and store it."""
        if msr in k.CONTROL_MSRS:
            if not v.shstk and not v.ibt:
                return UNSUPPORTED
            if not self.valid_cet(v, value):
                return INVALID
        elif msr in k.POINTER_MSRS or msr in (k.INT_SSP_TAB, k.INTERNAL_GUEST_SSP):
            if msr == k.INTERNAL_GUEST_SSP and not host:
                return INVALID
            if not v.shstk:
                return UNSUPPORTED
            if msr == k.INT_SSP_TAB and not v.lm:
                return UNSUPPORTED
            if self.noncanonical(value):
                return INVALID
            if msr != k.INT_SSP_TAB and value & 3:
                return INVALID
        elif msr == k.XSS:
            return self.set_xss(v, value)
        else:
            return UNSUPPORTED
        self.store_msr(v, msr, value, host)
        return 0

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        """Put a checked value where it lives."""
        if msr in FIELD_OF_MSR:
            self.field_write(v, FIELD_OF_MSR[msr], value)
        else:
            self.xstate_write(v, msr, value)

    def set_xss(self, v: Vcpu, value: int) -> int:
        """Check XSS, store it, refresh CPUID."""
        if not v.xsaves:
            return UNSUPPORTED
        if value & ~v.supported_xss:
            return INVALID
        if value != v.xss:
            v.xss = value
            self.refresh_cpuid(v)
        return 0

    def refresh_cpuid(self, v: Vcpu) -> None:
        """The size of a compacted image follows XSS."""
        v.xsaves_size = k.XSAVE_BASE_SIZE
        if v.xss & 1 << k.CET_U:
            v.xsaves_size += 16
        if v.xss & 1 << k.CET_S:
            v.xsaves_size += 24

    def get_msr(self, v: Vcpu, msr: int, host: bool) -> tuple[int, int]:
        """Read an MSR the vCPU has."""
        if msr in k.CONTROL_MSRS:
            if not v.shstk and not v.ibt:
                return UNSUPPORTED, 0
        elif msr in k.POINTER_MSRS or msr in (k.INT_SSP_TAB, k.INTERNAL_GUEST_SSP):
            if msr == k.INTERNAL_GUEST_SSP and not host:
                return INVALID, 0
            if not v.shstk:
                return UNSUPPORTED, 0
            if msr == k.INT_SSP_TAB and not v.lm:
                return UNSUPPORTED, 0
        elif msr == k.XSS:
            if not host and not v.xsaves:
                return INVALID, 0
            return 0, v.xss
        else:
            return UNSUPPORTED, 0
        return 0, self.fetch_msr(v, msr)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        """Get a value from where it lives."""
        if msr in FIELD_OF_MSR:
            return self.field_read(v, FIELD_OF_MSR[msr])
        return self.xstate_read(v, msr)

    def do_set_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> int:
        """What an unsupported MSR means to guest, userspace and ignore_msrs."""
        result = self.set_msr(v, msr, value, host)
        if result != UNSUPPORTED:
            return result
        if host and value == 0 and msr in self.advertised:
            return 0
        return 0 if self.ignore_msrs else INVALID

    def do_get_msr(self, v: Vcpu, msr: int, host: bool) -> tuple[int, int]:
        """The same for reads."""
        result, value = self.get_msr(v, msr, host)
        if result != UNSUPPORTED:
            return result, value
        if host and msr in self.advertised:
            return 0, 0
        return (0, 0) if self.ignore_msrs else (INVALID, 0)

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        """The filter, then the MSR."""
        v = self.vcpus[vcpu]
        if msr in v.denied:
            return INVALID
        return self.do_set_msr(v, msr, value, False)

    def guest_rdmsr(self, vcpu: int, msr: int) -> tuple[int, int]:
        """The filter, then the MSR."""
        v = self.vcpus[vcpu]
        if msr in v.denied:
            return INVALID, 0
        return self.do_get_msr(v, msr, False)

    # -- ioctls

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """Load the guest FPU at the first MSR that needs it."""
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8):
            return -k.EFAULT
        if len(entries) >= k.MAX_MSR_ENTRIES:
            return -k.E2BIG
        if self.port.copy_from_user(16 * len(entries)):
            return -k.EFAULT
        loaded = False
        done = 0
        for msr, value in entries:
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = True
            if self.do_set_msr(v, msr, value, True):
                break
            done += 1
        if loaded:
            self.port.put_guest_fpu(vcpu)
        return done

    def get_msrs(self, vcpu: int, indices: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Load the guest FPU at the first MSR that needs it."""
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8):
            return -k.EFAULT, ()
        if len(indices) >= k.MAX_MSR_ENTRIES:
            return -k.E2BIG, ()
        if self.port.copy_from_user(16 * len(indices)):
            return -k.EFAULT, ()
        loaded = False
        values: list[int] = []
        for msr in indices:
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = True
            result, value = self.do_get_msr(v, msr, True)
            if result:
                break
            values.append(value)
        if loaded:
            self.port.put_guest_fpu(vcpu)
        if self.port.copy_to_user(16 * len(indices)):
            return -k.EFAULT, ()
        return len(values), tuple(values)

    def resolve_reg(self, v: Vcpu, reg: int) -> int | None:
        """The MSR behind a register id, GUEST_SSP's internal number included."""
        index, kind = reg & 0xFFFF_FFFF, reg >> 32 & 0xFF
        if reg >> 56 != 0x20 or reg & 0x000F_FF00_0000_0000:
            return None
        if kind == 3:
            if index != 0 or not v.shstk:
                return None
            kind, index = 2, k.INTERNAL_GUEST_SSP
        if kind != 2 or reg & 0x00F0_0000_0000_0000 != 0x0030_0000_0000_0000:
            return None
        return index

    def one_reg_needs_fpu(self, v: Vcpu, msr: int) -> bool:
        """Whether an access by id must load the guest FPU."""
        return self.is_xstate_msr(v, msr)

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        """Resolve the id, then set as userspace."""
        v = self.vcpus[vcpu]
        msr = self.resolve_reg(v, reg)
        if msr is None:
            return -k.EINVAL
        if self.port.copy_from_user(8):
            return -k.EFAULT
        loaded = self.one_reg_needs_fpu(v, msr)
        if loaded:
            self.port.load_guest_fpu(vcpu)
        result = self.do_set_msr(v, msr, value, True)
        if loaded:
            self.port.put_guest_fpu(vcpu)
        return -k.EINVAL if result else 0

    def get_one_reg(self, vcpu: int, reg: int) -> tuple[int, int]:
        """Resolve the id, then get as userspace."""
        v = self.vcpus[vcpu]
        msr = self.resolve_reg(v, reg)
        if msr is None:
            return -k.EINVAL, 0
        loaded = self.one_reg_needs_fpu(v, msr)
        if loaded:
            self.port.load_guest_fpu(vcpu)
        result, value = self.do_get_msr(v, msr, True)
        if loaded:
            self.port.put_guest_fpu(vcpu)
        if result:
            return -k.EINVAL, 0
        if self.port.copy_to_user(8):
            return -k.EFAULT, 0
        return 0, value

    def get_reg_list(self, vcpu: int, n: int) -> tuple[int, int, tuple[int, ...]]:
        """GUEST_SSP, if the vCPU has SHSTK."""
        ids = (k.ONE_REG_GUEST_SSP,) if self.vcpus[vcpu].shstk else ()
        if self.port.copy_from_user(8):
            return -k.EFAULT, 0, ()
        if self.port.copy_to_user(8):
            return -k.EFAULT, 0, ()
        if n < len(ids):
            return -k.E2BIG, len(ids), ()
        if ids and self.port.copy_to_user(8 * len(ids)):
            return -k.EFAULT, 0, ()
        return 0, len(ids), ids

    # -- control registers

    def bad_cet_cr4(self, v: Vcpu, cr4: int) -> bool:
        """CR4.CET without either feature."""
        return bool(cr4 >> k.CR4_CET & 1) and not (v.shstk or v.ibt)

    def set_cr0(self, vcpu: int, value: int) -> int:
        """CR0.WP must stay while CR4.CET is set."""
        if not value >> k.CR0_WP & 1 and self.port.read_cr(vcpu, 4) >> k.CR4_CET & 1:
            return INVALID
        self.port.write_cr(vcpu, 0, value)
        return 0

    def set_cr4(self, vcpu: int, value: int) -> int:
        """CR4.CET needs a feature and CR0.WP."""
        v = self.vcpus[vcpu]
        if self.bad_cet_cr4(v, value):
            return INVALID
        if value >> k.CR4_CET & 1 and not self.port.read_cr(vcpu, 0) >> k.CR0_WP & 1:
            return INVALID
        self.port.write_cr(vcpu, 4, value)
        return 0

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """Both at once: the final pair counts."""
        if self.bad_cet_cr4(self.vcpus[vcpu], cr4):
            return -k.EINVAL
        if cr4 >> k.CR4_CET & 1 and not cr0 >> k.CR0_WP & 1:
            return -k.EINVAL
        self.port.write_cr(vcpu, 0, cr0)
        self.port.write_cr(vcpu, 4, cr4)
        return 0

    # -- reset

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        """Clear everything; XSS only on RESET."""
        v = self.vcpus[vcpu]
        self.reset_xstate(v)
        for field in SWITCHED_FIELDS:
            self.field_write(v, field, 0)
        if not init and v.xss:
            v.xss = 0
            self.refresh_cpuid(v)

    def reset_xstate(self, v: Vcpu) -> None:
        """Clear both CET components, out of hardware if they are there."""
        in_use = self.port.guest_fpu_in_use(v.number)
        if in_use:
            self.port.put_guest_fpu(v.number)
        self.port.fpstate_clear(v.number, k.CET_U)
        self.port.fpstate_clear(v.number, k.CET_S)
        if in_use:
            self.port.load_guest_fpu(v.number)

    def get_mp_state(self, vcpu: int) -> int:
        """Process a pending INIT; the guest FPU is not in use here."""
        if self.port.take_init(vcpu):
            self.vcpu_reset(vcpu, True)
        return 0

    def cpuid_xsaves_size(self, vcpu: int) -> int:
        """The size kept with XSS."""
        return self.vcpus[vcpu].xsaves_size

    def get_xsave(self, vcpu: int) -> tuple[int, ...]:
        """AVX stands for all user components."""
        return (2,)

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """The FPU code sorts out what userspace may set."""
        return self.port.copy_uabi_to_fpstate(vcpu, component, words)

    # -- SMM

    def smi(self, vcpu: int) -> None:
        """Save SSP and the control registers, clear CR4.CET."""
        v = self.vcpus[vcpu]
        cr0, cr4 = self.port.read_cr(vcpu, 0), self.port.read_cr(vcpu, 4)
        self.port.smram_write(vcpu, k.SMRAM_CR0, cr0)
        self.port.smram_write(vcpu, k.SMRAM_CR4, cr4)
        if v.shstk:
            self.port.smram_write(vcpu, k.SMRAM_SSP, self.field_read(v, k.GUEST_SSP))
        self.port.write_cr(vcpu, 4, cr4 & ~(1 << k.CR4_CET))
        v.smm = True

    def rsm(self, vcpu: int) -> int:
        """Restore CR0 before CR4, then SSP, which may be bad."""
        v = self.vcpus[vcpu]
        v.smm = False
        self.port.write_cr(vcpu, 4, self.port.read_cr(vcpu, 4) & ~(1 << k.CR4_CET))
        self.port.write_cr(vcpu, 0, self.port.smram_read(vcpu, k.SMRAM_CR0))
        self.port.write_cr(vcpu, 4, self.port.smram_read(vcpu, k.SMRAM_CR4))
        if v.shstk:
            return self.set_msr(v, k.INTERNAL_GUEST_SSP, self.port.smram_read(vcpu, k.SMRAM_SSP), True)
        return 0

    # -- nesting

    def nested_enter(self, vcpu: int) -> int:
        """Check, then switch."""
        v = self.vcpus[vcpu]
        failed = self.check_vmcb12(v) if self.svm else self.check_vmcs12(v)
        if failed:
            return failed
        if self.svm:
            self.enter_vmcb02(v)
        else:
            self.enter_vmcs02(v, True)
        return k.ENTERED

    def check_vmcs12(self, v: Vcpu) -> int:
        """Host area first, then guest area."""

        def read(field: int) -> int:
            return self.port.vmcs12_read(v.number, field)

        exits = read(k.VM_EXIT_CONTROLS)
        if read(k.HOST_CR4) >> k.CR4_CET & 1 and not read(k.HOST_CR0) >> k.CR0_WP & 1:
            return k.VMFAIL_HOST_STATE
        if exits >> k.VM_EXIT_LOAD_CET & 1:
            s_cet, ssp = read(k.HOST_S_CET), read(k.HOST_SSP)
            if not self.valid_cet_bits(v, s_cet) or ssp & 3 or self.noncanonical(read(k.HOST_INTR_SSP_TABLE)):
                return k.VMFAIL_HOST_STATE
            if exits >> k.VM_EXIT_HOST_64 & 1:
                if self.noncanonical(s_cet) or self.noncanonical(ssp):
                    return k.VMFAIL_HOST_STATE
            elif s_cet >> 32 or ssp >> 32:
                return k.VMFAIL_HOST_STATE
        if read(k.GUEST_CR4) >> k.CR4_CET & 1 and not read(k.GUEST_CR0) >> k.CR0_WP & 1:
            return k.INVALID_GUEST_STATE
        if read(k.VM_ENTRY_CONTROLS) >> k.VM_ENTRY_LOAD_CET & 1 and not self.valid_guest_area(v):
            return k.INVALID_GUEST_STATE
        return 0

    def valid_guest_area(self, v: Vcpu) -> bool:
        """Guest SSP may be one bit short of canonical."""
        ssp = self.port.vmcs12_read(v.number, k.GUEST_SSP)
        if not self.valid_cet_bits(v, self.port.vmcs12_read(v.number, k.GUEST_S_CET)) or ssp & 3:
            return False
        if ssp >> self.width not in (0, (1 << (64 - self.width)) - 1):
            return False
        return not self.noncanonical(self.port.vmcs12_read(v.number, k.GUEST_INTR_SSP_TABLE))

    def enter_vmcs02(self, v: Vcpu, run_pending: bool) -> None:
        """Take L2's values from vmcs12, or carry L1's over."""
        before = [self.field_read(v, field) for field in SWITCHED_FIELDS]
        loads = self.port.vmcs12_read(v.number, k.VM_ENTRY_CONTROLS) >> k.VM_ENTRY_LOAD_CET & 1
        v.l2 = True
        self.port.vmcs_load(v.number, 2)
        for field, value in zip(SWITCHED_FIELDS, before, strict=True):
            taken = run_pending and loads and self.has_field(v, field)
            self.field_write(v, field, self.port.vmcs12_read(v.number, field) if taken else value)
        if run_pending:
            self.port.write_cr(v.number, 0, self.port.vmcs12_read(v.number, k.GUEST_CR0))
            self.port.write_cr(v.number, 4, self.port.vmcs12_read(v.number, k.GUEST_CR4))
        self.recalc_intercepts(v)

    def has_field(self, v: Vcpu, field: int) -> bool:
        """Whether the vCPU has what a guest field holds."""
        return v.shstk or (v.ibt and field == k.GUEST_S_CET)

    def check_vmcb12(self, v: Vcpu) -> int:
        """S_CET, and CR4.CET with CR0.WP."""
        if not self.valid_cet_bits(v, self.port.vmcs12_read(v.number, k.VMCB_S_CET)):
            return k.VMEXIT_INVALID
        cr0, cr4 = self.port.vmcs12_read(v.number, k.GUEST_CR0), self.port.vmcs12_read(v.number, k.GUEST_CR4)
        if cr4 >> k.CR4_CET & 1 and not cr0 >> k.CR0_WP & 1:
            return k.VMEXIT_INVALID
        return 0

    def enter_vmcb02(self, v: Vcpu) -> None:
        """Take L2's values from vmcb12."""
        v.l1_state = (self.port.read_cr(v.number, 0), self.port.read_cr(v.number, 4))
        v.l2 = True
        self.port.vmcb_switch(v.number, 2)
        if v.shstk:
            for field, offset in VMCB_OF.items():
                self.field_write(v, field, self.port.vmcs12_read(v.number, offset))
        self.port.write_cr(v.number, 0, self.port.vmcs12_read(v.number, k.GUEST_CR0))
        self.port.write_cr(v.number, 4, self.port.vmcs12_read(v.number, k.GUEST_CR4))
        self.recalc_intercepts(v)

    def nested_exit(self, vcpu: int) -> None:
        """Store L2's values, bring L1's back."""
        v = self.vcpus[vcpu]
        if self.svm:
            self.leave_vmcb02(v)
        else:
            self.leave_vmcs02(v)

    def leave_vmcs02(self, v: Vcpu) -> None:
        """Store to vmcs12; L1 gets the host area or L2's values."""
        port, vcpu = self.port, v.number
        values = [self.field_read(v, field) for field in SWITCHED_FIELDS]
        for field, value in zip(SWITCHED_FIELDS, values, strict=True):
            if self.has_field(v, field):
                port.vmcs12_write(vcpu, field, value)
        if port.vmcs12_read(vcpu, k.VM_EXIT_CONTROLS) >> k.VM_EXIT_LOAD_CET & 1:
            host = (k.HOST_S_CET, k.HOST_SSP, k.HOST_INTR_SSP_TABLE)
            values = [
                port.vmcs12_read(vcpu, area) if self.has_field(v, field) else value
                for area, field, value in zip(host, SWITCHED_FIELDS, values, strict=True)
            ]
        v.l2 = False
        port.vmcs_load(vcpu, 1)
        for field, value in zip(SWITCHED_FIELDS, values, strict=True):
            self.field_write(v, field, value)
        port.write_cr(vcpu, 0, port.vmcs12_read(vcpu, k.HOST_CR0))
        port.write_cr(vcpu, 4, port.vmcs12_read(vcpu, k.HOST_CR4))

    def leave_vmcb02(self, v: Vcpu) -> None:
        """Store to vmcb12; vmcb01 still has L1's values."""
        if v.shstk:
            for field, offset in VMCB_OF.items():
                self.port.vmcs12_write(v.number, offset, self.field_read(v, field))
        v.l2 = False
        self.port.vmcb_switch(v.number, 1)
        self.port.write_cr(v.number, 0, v.l1_state[0])
        self.port.write_cr(v.number, 4, v.l1_state[1])

    def set_nested_state(self, vcpu: int) -> int:
        """As entering, with nothing pending."""
        v = self.vcpus[vcpu]
        if self.check_vmcs12(v):
            return -k.EINVAL
        self.enter_vmcs02(v, False)
        return 0

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        """Only with CET at all."""
        if not self.shstk and not self.ibt:
            return 1, 0
        return 0, self.port.vmcs12_read(vcpu, field)

    # -- the emulator

    def emulate(self, vcpu: int, instruction: str, user: bool) -> int:
        """Refuse what active CET affects."""
        v = self.vcpus[vcpu]
        shstk, ibt = self.active_for(v, user)
        if instruction == "task_switch":
            here, there = self.active_for(v, True), self.active_for(v, False)
            return k.UNHANDLEABLE if any((*here, *there)) else k.EMULATED
        if instruction in ("ret", "indirect_call") and shstk:
            return k.UNHANDLEABLE
        if instruction in ("indirect_jmp", "indirect_call") and ibt:
            return k.UNHANDLEABLE
        if instruction == "far_jmp" and shstk and self.field_read(v, k.GUEST_SSP) >> 32:
            return k.EMULATED_GP
        return k.EMULATED

    def active_for(self, v: Vcpu, user: bool) -> tuple[bool, bool]:
        """SHSTK and IBT in force at that privilege."""
        if not self.port.read_cr(v.number, 4) >> k.CR4_CET & 1:
            return False, False
        value = self.fetch_msr(v, k.U_CET if user else k.S_CET)
        return bool(value & 1), bool(value & 4)


class Hardware(Upstream):
    """Accepts what the manual accepts in bits 13:12 of U_CET and S_CET."""

    profile: ClassVar[str] = "hardware"
    base_aligned: ClassVar[bool] = False


class Repaired(Upstream):
    """PL0..PL2_SSP in an array, swapped around KVM_RUN's loop and at context switches.

    Lazily: until a non-zero value or XSS bit 12 appears, the guest's accesses are intercepted and
    nothing is swapped. `in_hardware` says where the values are, so a save never comes twice.
    """

    profile: ClassVar[str] = "as-posted"

    def swap_in(self, v: Vcpu) -> None:
        """Registers from the array, once."""
        self.port.preempt_disable()
        if v.active and not v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])
            v.in_hardware = True
        self.port.preempt_enable()

    def swap_out(self, v: Vcpu) -> None:
        """Registers to the array, once, and cleared."""
        self.port.preempt_disable()
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
            v.in_hardware = False
        self.port.preempt_enable()

    def activate(self, v: Vcpu) -> None:
        """From now on swapped, and passed through."""
        if v.active:
            return
        v.active = True
        if v.running:
            self.swap_in(v)
        self.recalc_intercepts(v)

    def activates(self, value: int, host: bool) -> bool:
        """Whether a value starts the swapping."""
        return value != 0

    def passes(self, v: Vcpu, msr: int) -> bool:
        """As upstream, once swapped."""
        if msr in SUPERVISOR_POINTERS and not v.active:
            return False
        return super().passes(v, msr)

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        super().run_begin(vcpu)
        v = self.vcpus[vcpu]
        v.running = True
        self.swap_in(v)

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        v = self.vcpus[vcpu]
        v.running = False
        self.swap_out(v)
        super().run_end(vcpu)

    def sched_out(self, vcpu: int) -> None:
        """The thread leaves its physical CPU."""
        self.swap_out(self.vcpus[vcpu])

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The thread goes on."""
        v = self.vcpus[vcpu]
        if v.running:
            self.swap_in(v)

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        """As upstream, without the three that are swapped by hand."""
        return msr not in SUPERVISOR_POINTERS and super().is_xstate_msr(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        """Put a checked value where it lives."""
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        self.port.preempt_disable()
        v.ssp[msr - k.PL0_SSP] = value
        if v.in_hardware:
            self.port.wrmsr(msr, value)
        self.port.preempt_enable()
        if self.activates(value, host):
            self.activate(v)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        """Get a value from where it lives."""
        if msr not in SUPERVISOR_POINTERS:
            return super().fetch_msr(v, msr)
        self.port.preempt_disable()
        value = self.port.rdmsr(msr) if v.in_hardware else v.ssp[msr - k.PL0_SSP]
        self.port.preempt_enable()
        return value

    def set_xss(self, v: Vcpu, value: int) -> int:
        """Check XSS, store it, refresh CPUID."""
        result = super().set_xss(v, value)
        if v.xss >> k.CET_S & 1:
            self.activate(v)
        return result

    def reset_xstate(self, v: Vcpu) -> None:
        """Clear both CET components, out of hardware if they are there."""
        super().reset_xstate(v)
        self.port.preempt_disable()
        v.ssp = [0, 0, 0]
        if v.in_hardware:
            for msr in SUPERVISOR_POINTERS:
                self.port.wrmsr(msr, 0)
        self.port.preempt_enable()


class AsPosted(Upstream):
    """The seed's three patches: saved and cleared at every context switch of a loaded vCPU, lazily activated."""

    profile: ClassVar[str] = "as-posted"

    def settle_xss(self) -> None:
        """Features and XSS bits stand or fall together."""
        if not self.xss & 0x1800:
            self.shstk = self.ibt = False
        if not self.shstk and not self.ibt:
            self.xss = 0
        if self.port.host_cap("xsaves"):
            self.xss |= 1 << k.CET_S

    def save_ssp(self, v: Vcpu) -> None:
        """Registers to the array, then cleared."""
        if not v.shstk or not v.active:
            return
        self.port.preempt_disable()
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            v.ssp[index] = self.port.rdmsr(msr)
        for msr in SUPERVISOR_POINTERS:
            self.port.wrmsr(msr, 0)
        self.port.preempt_enable()

    def reload_ssp(self, v: Vcpu) -> None:
        """Registers from the array."""
        if not v.shstk or not v.active:
            return
        for index, msr in enumerate(SUPERVISOR_POINTERS):
            self.port.wrmsr(msr, v.ssp[index])

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        super().run_begin(vcpu)
        self.reload_ssp(self.vcpus[vcpu])

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        self.save_ssp(self.vcpus[vcpu])
        super().run_end(vcpu)

    def sched_out(self, vcpu: int) -> None:
        """The thread leaves its physical CPU."""
        self.save_ssp(self.vcpus[vcpu])

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The thread goes on."""
        self.reload_ssp(self.vcpus[vcpu])

    def recalc_intercepts(self, v: Vcpu) -> None:
        """Set every bitmap bit that can be passed, in both bitmaps while L2 is active."""
        super().recalc_intercepts(v)
        if not v.active:
            for msr in SUPERVISOR_POINTERS:
                self.port.set_intercept(v.number, 1, msr, k.WRITE, True)

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        """As upstream, without the three that are swapped by hand."""
        return msr not in SUPERVISOR_POINTERS and super().is_xstate_msr(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        """Put a checked value where it lives."""
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        activates = value != 0 and not host
        if activates:
            v.active = True
        v.ssp[msr - k.PL0_SSP] = value
        if activates:
            self.recalc_intercepts(v)
            self.port.wrmsr(msr, value)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        """Get a value from where it lives."""
        if msr in SUPERVISOR_POINTERS:
            return v.ssp[msr - k.PL0_SSP]
        return super().fetch_msr(v, msr)


class V5(AsPosted):
    """The series' v5: swapped when guest state is loaded and put, otherwise as the seed, and not cleared."""

    profile: ClassVar[str] = "v5"

    def settle_xss(self) -> None:
        """Features and XSS bits stand or fall together."""
        Upstream.settle_xss(self)

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before the loop."""
        Upstream.run_begin(self, vcpu)

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after the loop."""
        Upstream.run_end(self, vcpu)

    def enter_guest(self, vcpu: int) -> None:
        """Load the guest's XSS."""
        v = self.vcpus[vcpu]
        if v.active and not v.in_hardware:
            self.reload_ssp(v)
            v.in_hardware = True
        super().enter_guest(vcpu)

    def put_guest_state(self, v: Vcpu) -> None:
        """Registers to the array if they are loaded."""
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
            v.in_hardware = False

    def vcpu_put(self, vcpu: int) -> None:
        """The ioctl ends."""
        self.put_guest_state(self.vcpus[vcpu])

    def sched_out(self, vcpu: int) -> None:
        """The thread leaves its physical CPU."""
        self.put_guest_state(self.vcpus[vcpu])

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """The thread goes on."""


CANDIDATES: dict[str, type] = {
    "upstream": Upstream,
    "hardware": Hardware,
    "repaired": Repaired,
    "as-posted": AsPosted,
    "v5": V5,
}
