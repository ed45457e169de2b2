"""x86.c and cpuid.c: the module, vCPUs, KVM_RUN, control registers, reset; the rest comes from its neighbours."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.cet.linux.emulate import Emulator
from conformance.candidates.builtin.cet.linux.smm import Smm
from conformance.candidates.builtin.cet.linux.state import CET_ALL, Caps, Vcpu
from conformance.candidates.builtin.cet.linux.svm import Svm
from conformance.candidates.builtin.cet.linux.vmx import Vmx
from conformance.specs.cet import constants as k

CR4_OSXSAVE = 18
SIZES = {k.CET_U: 16, k.CET_S: 24}
"""Bytes of a component in a compacted image."""


class Linux(Emulator, Smm):
    """KVM with the vendor module of the host loaded."""

    profile = "upstream"

    VMX = Vmx
    SVM = Svm

    def __init__(self, port: Any) -> None:
        self.port = port
        self.caps = Caps()
        self.ops: Vmx | Svm = self.VMX(self)
        self.vcpus: dict[int, Vcpu] = {}

    # -- the module

    def vendor_init(self) -> int:
        """kvm_x86_vendor_init."""
        has, caps = self.port.host_cap, Caps()
        self.caps = caps
        self.ops = self.SVM(self) if has("vendor") else self.VMX(self)
        caps.width = 57 if has("la57") else 48
        caps.xsaves, caps.lm = bool(has("xsaves")), bool(has("lm"))
        if has("shstk") or has("ibt"):
            caps.host_s_cet = self.port.rdmsr(k.S_CET)
            if caps.host_s_cet >> k.SH_STK_EN & 1:
                return -k.EIO
        if caps.xsaves:
            caps.host_xss = self.port.rdmsr(k.XSS)
            caps.supported_xss = has("xss") & CET_ALL
        self.kvm_set_cpu_caps()
        self.ops.hardware_setup()
        self.kvm_setup_xss_caps()
        self.ops.nested_setup()
        return 0

    def kvm_set_cpu_caps(self) -> None:
        """What the processor has, less what KVM cannot do with these parameters."""
        has, caps = self.port.host_cap, self.caps
        caps.shstk, caps.ibt = bool(has("shstk")), bool(has("ibt"))
        if not has("tdp"):
            caps.shstk = False
        if has("smaller_maxphyaddr"):
            caps.shstk = caps.ibt = False

    def kvm_setup_xss_caps(self) -> None:
        """CET needs both components, and they need CET."""
        caps = self.caps
        if not caps.xsaves or not (caps.shstk or caps.ibt):
            caps.supported_xss &= ~CET_ALL
        if caps.supported_xss & CET_ALL != CET_ALL:
            caps.shstk = caps.ibt = False
            caps.supported_xss &= ~CET_ALL

    def kvm_caps(self) -> tuple[bool, bool, int]:
        """SHSTK, IBT, XSS."""
        return self.caps.shstk, self.caps.ibt, self.caps.supported_xss

    # -- vCPUs

    def vcpu_create(self, vcpu: int) -> int:
        """kvm_arch_vcpu_create: the fpstate, the vendor's part, then RESET."""
        refusal: int = self.port.alloc_guest_fpstate(vcpu)
        if refusal:
            return refusal
        part = self.vcpus[vcpu] = Vcpu(vcpu)
        self.ops.vcpu_create(part)
        self.kvm_vcpu_reset(part, False)
        return 0

    def vcpu_destroy(self, vcpu: int) -> None:
        """kvm_arch_vcpu_destroy."""
        del self.vcpus[vcpu]
        self.port.free_guest_fpstate(vcpu)

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        """kvm_set_cpuid: after the first run only the same again."""
        part, asked = self.vcpus[vcpu], (shstk, ibt, lm, xsaves, xss)
        if part.has_run:
            return 0 if part.cpuid == asked else -k.EINVAL
        part.cpuid = asked
        caps = self.caps
        part.shstk, part.ibt = shstk and caps.shstk, ibt and caps.ibt
        part.lm, part.xsaves = lm and caps.lm, xsaves and caps.xsaves
        part.supported_xss = xss & caps.supported_xss
        part.recalc_intercepts = True
        return 0

    def set_msr_filter(self, vcpu: int, denied: tuple[int, ...]) -> None:
        """kvm_vm_ioctl_set_msr_filter: bitmaps follow before the next entry."""
        part = self.vcpus[vcpu]
        part.denied = denied
        part.recalc_intercepts = True

    def cpuid_xsaves_size(self, vcpu: int) -> int:
        """kvm_update_cpuid_runtime: xstate_required_size, compacted."""
        xss = self.vcpus[vcpu].xss
        return k.XSAVE_BASE_SIZE + sum(size for bit, size in SIZES.items() if xss >> bit & 1)

    # -- running

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        """kvm_arch_vcpu_load."""
        self.vcpus[vcpu].cpu = cpu

    def vcpu_put(self, vcpu: int) -> None:
        """kvm_arch_vcpu_put: nothing of CET lives beyond VM exits but in the FPU's hands."""

    def sched_out(self, vcpu: int) -> None:
        """kvm_sched_out."""
        self.vcpu_put(vcpu)

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """kvm_sched_in."""
        self.vcpu_load(vcpu, cpu)

    def run_begin(self, vcpu: int) -> None:
        """kvm_arch_vcpu_ioctl_run."""
        self.port.load_guest_fpu(vcpu)

    def run_end(self, vcpu: int) -> None:
        """kvm_arch_vcpu_ioctl_run, on its way out."""
        self.port.put_guest_fpu(vcpu)

    def enter_guest(self, vcpu: int) -> None:
        """vcpu_enter_guest up to VM entry: requests first, xfeatures last."""
        part = self.vcpus[vcpu]
        if part.recalc_intercepts:
            part.recalc_intercepts = False
            self.recalc_intercepts(part)
        if part.nested_pages:
            part.nested_pages = False
            self.merge_msr_bitmaps(part)
        self.ops.prepare_entry(part)
        self.kvm_load_xfeatures(part, part.xss)

    def exit_guest(self, vcpu: int) -> None:
        """vcpu_enter_guest from VM exit on."""
        part = self.vcpus[vcpu]
        part.has_run = True
        part.run_pending = False
        self.kvm_load_xfeatures(part, self.caps.host_xss)

    def kvm_load_xfeatures(self, vcpu: Vcpu, xss: int) -> None:
        """Guest's or host's XSS, of use only with CR4.OSXSAVE; protected state is the hardware's to load."""
        if self.port.host_cap("sev_es"):
            return
        if not self.port.read_cr(vcpu.number, 4) >> CR4_OSXSAVE & 1:
            return
        if vcpu.xsaves and vcpu.xss != self.caps.host_xss:
            self.port.wrmsr(k.XSS, xss)

    # -- interception

    def recalc_intercepts(self, vcpu: Vcpu) -> None:
        """The bitmap of L1; that of a running L2 is made of it."""
        for msr, stop in self.ops.msr_intercepts(vcpu):
            access = 3 if stop or not self.kvm_msr_allowed(vcpu, msr) else 0
            vcpu.intercepts[msr] = access
            self.set_intercept(vcpu, 1, msr, access)
        if vcpu.guest_mode:
            vcpu.nested_pages = True

    def merge_msr_bitmaps(self, vcpu: Vcpu) -> None:
        """The bitmap of L2: L1's wishes for it, and KVM's for L1."""
        for msr in (*k.CONTROL_MSRS, *k.POINTER_MSRS):
            own = vcpu.intercepts.get(msr, 3)
            self.set_intercept(vcpu, 2, msr, own | self.port.l1_intercepts(vcpu.number, msr))

    def set_intercept(self, vcpu: Vcpu, level: int, msr: int, access: int) -> None:
        """Both bits of an MSR."""
        for kind in (k.READ, k.WRITE):
            self.port.set_intercept(vcpu.number, level, msr, kind, bool(access & kind))

    # -- reset

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        """INIT, or RESET."""
        self.kvm_vcpu_reset(self.vcpus[vcpu], init)

    def kvm_vcpu_reset(self, vcpu: Vcpu, init: bool) -> None:
        """Leave L2 and SMM, then registers, FPU and the vendor's part."""
        if vcpu.guest_mode:
            self.ops.leave_nested(vcpu)
        vcpu.smm_guest_mode = False
        self.kvm_xstate_reset(vcpu)
        if not init:
            vcpu.xss = 0
        self.ops.vcpu_reset(vcpu)
        number, port = vcpu.number, self.port
        port.write_cr(number, 0, port.read_cr(number, 0) & ~(1 << k.CR0_WP))
        port.write_cr(number, 4, port.read_cr(number, 4) & ~(1 << k.CR4_CET))

    def kvm_xstate_reset(self, vcpu: Vcpu) -> None:
        """Clear the CET components in memory, where alone the kernel can change them.

        Linux knows no RESET but creation, whose fpstate is zero already; here a RESET of a used vCPU must clear too.
        """
        port, number = self.port, vcpu.number
        components = [bit for bit in (k.CET_U, k.CET_S) if self.caps.supported_xss >> bit & 1]
        if not components:
            return
        in_use = port.guest_fpu_in_use(number)
        if in_use:
            port.put_guest_fpu(number)
        for component in components:
            port.fpstate_clear(number, component)
        if in_use:
            port.load_guest_fpu(number)

    def get_mp_state(self, vcpu: int) -> int:
        """kvm_apic_accept_events."""
        if self.port.take_init(vcpu):
            self.kvm_vcpu_reset(self.vcpus[vcpu], True)
        return 0

    # -- XSAVE images

    def get_xsave(self, vcpu: int) -> tuple[int, ...]:
        """fpu_copy_guest_fpstate_to_uabi: user components alone."""
        return ()

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """fpu_copy_uabi_to_guest_fpstate."""
        result: int = self.port.copy_uabi_to_fpstate(vcpu, component, words)
        return result

    # -- nesting

    def nested_load_cet(self) -> bool:
        """The load-CET controls in the VMX capability MSRs of L1."""
        return self.ops.nested_load_cet

    def nested_enter(self, vcpu: int) -> int:
        """VMLAUNCH or VMRUN."""
        return self.ops.nested_run(self.vcpus[vcpu])

    def nested_exit(self, vcpu: int) -> None:
        """An exit that L1 wants."""
        self.ops.nested_vmexit(self.vcpus[vcpu])

    def set_nested_state(self, vcpu: int) -> int:
        """KVM_SET_NESTED_STATE."""
        return self.ops.set_nested_state(self.vcpus[vcpu])

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        """VMREAD."""
        return self.ops.handle_vmread(self.vcpus[vcpu], field)
