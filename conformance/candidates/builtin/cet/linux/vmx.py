"""vmx.c and nested.c of VMX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.candidates.builtin.cet.linux.state import U64, Vcpu, is_noncanonical
from conformance.specs.cet import constants as k

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.candidates.builtin.cet.linux.x86 import Linux

FIELD_OF = {
    k.S_CET: k.GUEST_S_CET,
    k.INTERNAL_GUEST_SSP: k.GUEST_SSP,
    k.INT_SSP_TAB: k.GUEST_INTR_SSP_TABLE,
}
GUEST_CET = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
HOST_CET = (k.HOST_S_CET, k.HOST_SSP, k.HOST_INTR_SSP_TABLE)


class Vmx:
    """kvm_x86_ops of kvm_intel."""

    FAILED_ENTRY_LOADS_GUEST_AREA = False
    """Released Linux gives L1 vmcs12's guest area after a failed entry without the exit control, checked or not."""
    FIELDS_WITHOUT_HARDWARE = False
    """Before January 2026 Linux let L1 read the CET fields of vmcs12 on a processor that has none."""

    def __init__(self, kvm: Linux) -> None:
        self.kvm = kvm
        self.port = kvm.port
        self.nested_load_cet = False

    # -- vmx.c

    def hardware_setup(self) -> None:
        """setup_vmcs_config and vmx_set_cpu_caps."""
        has, caps = self.port.host_cap, self.kvm.caps
        caps.load_cet = bool(has("load_cet_entry") and has("load_cet_exit"))
        if not caps.load_cet or not has("unrestricted") or not has("basic56"):
            caps.shstk = caps.ibt = False

    def nested_setup(self) -> None:
        """nested_vmx_setup_ctls_msrs, once the capabilities are final."""
        caps = self.kvm.caps
        self.nested_load_cet = caps.load_cet and (caps.shstk or caps.ibt)

    def vcpu_create(self, vcpu: Vcpu) -> None:
        """init_vmcs."""
        self.port.vmcs_load(vcpu.number, 1)
        self.vmx_set_constant_host_state(vcpu)

    def vmx_set_constant_host_state(self, vcpu: Vcpu) -> None:
        """The host's CET state, and the controls that load it and the guest's."""
        if not self.kvm.caps.load_cet:
            return
        write, number = self.port.vmcs_write, vcpu.number
        write(number, k.HOST_S_CET, self.kvm.caps.host_s_cet)
        write(number, k.HOST_SSP, 0)
        write(number, k.HOST_INTR_SSP_TABLE, 0)
        write(number, k.VM_EXIT_CONTROLS, 1 << k.VM_EXIT_LOAD_CET)
        write(number, k.VM_ENTRY_CONTROLS, 1 << k.VM_ENTRY_LOAD_CET)

    def vcpu_reset(self, vcpu: Vcpu) -> None:
        """vmx_vcpu_reset."""
        caps, write = self.kvm.caps, self.port.vmcs_write
        if caps.shstk:
            write(vcpu.number, k.GUEST_SSP, 0)
            write(vcpu.number, k.GUEST_INTR_SSP_TABLE, 0)
        if caps.shstk or caps.ibt:
            write(vcpu.number, k.GUEST_S_CET, 0)

    def msr_intercepts(self, vcpu: Vcpu) -> Iterator[tuple[int, bool]]:
        """vmx_recalc_msr_intercepts: what is never touched stays as in a new bitmap, all intercepted."""
        caps = self.kvm.caps
        if caps.shstk:
            for msr in k.POINTER_MSRS:
                yield msr, not vcpu.shstk
        if caps.shstk or caps.ibt:
            for msr in k.CONTROL_MSRS:
                yield msr, not vcpu.has_cet()

    def set_msr(self, vcpu: Vcpu, index: int, data: int, host: bool) -> int:
        """vmx_set_msr: the current VMCS, L2's while L2 runs."""
        field = FIELD_OF.get(index)
        if field is None:
            return self.kvm.kvm_set_msr_common(vcpu, index, data, host)
        self.port.vmcs_write(vcpu.number, field, data)
        return 0

    def get_msr(self, vcpu: Vcpu, index: int, host: bool) -> tuple[int, int]:
        """vmx_get_msr."""
        field = FIELD_OF.get(index)
        if field is None:
            return self.kvm.kvm_get_msr_common(vcpu, index, host)
        return 0, self.port.vmcs_read(vcpu.number, field)

    def prepare_entry(self, vcpu: Vcpu) -> None:
        """vmx_prepare_switch_to_guest: nothing of CET."""

    # -- nested.c

    def vmcs_read_cet_state(self, vcpu: Vcpu) -> tuple[int, int, int]:
        """S_CET, SSP and table of the current VMCS, as far as the vCPU has the features."""
        read, number = self.port.vmcs_read, vcpu.number
        s_cet = read(number, k.GUEST_S_CET) if vcpu.has_cet() else 0
        if not vcpu.shstk:
            return s_cet, 0, 0
        return s_cet, read(number, k.GUEST_SSP), read(number, k.GUEST_INTR_SSP_TABLE)

    def vmcs_write_cet_state(self, vcpu: Vcpu, state: tuple[int, int, int]) -> None:
        """The same three, likewise."""
        write, number = self.port.vmcs_write, vcpu.number
        if vcpu.has_cet():
            write(number, k.GUEST_S_CET, state[0])
        if vcpu.shstk:
            write(number, k.GUEST_SSP, state[1])
            write(number, k.GUEST_INTR_SSP_TABLE, state[2])

    def vmcs12_cet(self, vcpu: Vcpu, fields: tuple[int, int, int]) -> tuple[int, int, int]:
        """S_CET, SSP and table of one area of vmcs12."""
        s_cet, ssp, table = (self.port.vmcs12_read(vcpu.number, field) for field in fields)
        return s_cet, ssp, table

    def has_control(self, vcpu: Vcpu, field: int, bit: int) -> bool:
        """A control in vmcs12."""
        return bool(self.port.vmcs12_read(vcpu.number, field) >> bit & 1)

    def is_valid_cet_state(self, vcpu: Vcpu, s_cet: int, ssp: int, table: int) -> bool:
        """What both areas have in common."""
        if not self.kvm.kvm_is_valid_u_s_cet(vcpu, s_cet) or ssp & 3:
            return False
        return not self.kvm.is_noncanonical_msr_address(table)

    def are_valid_crs(self, vcpu: Vcpu, cr0_field: int, cr4_field: int) -> bool:
        """nested_cr4_valid, and CET without WP."""
        cr0, cr4 = self.port.vmcs12_read(vcpu.number, cr0_field), self.port.vmcs12_read(vcpu.number, cr4_field)
        if not self.kvm.kvm_is_valid_cr4(vcpu, cr4):
            return False
        return not (cr4 >> k.CR4_CET & 1 and not cr0 >> k.CR0_WP & 1)

    def nested_vmx_check_host_state(self, vcpu: Vcpu) -> bool:
        """Whether VM entry would accept the host area."""
        if not self.are_valid_crs(vcpu, k.HOST_CR0, k.HOST_CR4):
            return False
        if not self.has_control(vcpu, k.VM_EXIT_CONTROLS, k.VM_EXIT_LOAD_CET):
            return True
        s_cet, ssp, table = self.vmcs12_cet(vcpu, HOST_CET)
        if not self.is_valid_cet_state(vcpu, s_cet, ssp, table):
            return False
        if self.has_control(vcpu, k.VM_EXIT_CONTROLS, k.VM_EXIT_HOST_64):
            noncanonical = self.kvm.is_noncanonical_msr_address
            return not (noncanonical(s_cet) or noncanonical(ssp))
        return not (s_cet >> 32 or ssp >> 32)

    def nested_vmx_check_guest_state(self, vcpu: Vcpu) -> bool:
        """Whether VM entry would accept the guest area: of SSP bits 63:N must be equal, one fewer than canonical."""
        if not self.are_valid_crs(vcpu, k.GUEST_CR0, k.GUEST_CR4):
            return False
        if not self.has_control(vcpu, k.VM_ENTRY_CONTROLS, k.VM_ENTRY_LOAD_CET):
            return True
        s_cet, ssp, table = self.vmcs12_cet(vcpu, GUEST_CET)
        if not self.is_valid_cet_state(vcpu, s_cet, ssp, table):
            return False
        return not is_noncanonical(ssp & U64, self.kvm.caps.width + 1)

    def nested_run(self, vcpu: Vcpu) -> int:
        """nested_vmx_run: the host area is checked before anything is switched."""
        if not self.nested_vmx_check_host_state(vcpu):
            return k.VMFAIL_HOST_STATE
        vcpu.run_pending = True
        return self.nested_vmx_enter_non_root_mode(vcpu, True)

    def nested_vmx_enter_non_root_mode(self, vcpu: Vcpu, from_vmentry: bool) -> int:
        """Remember L1's state if L2 is to keep it, switch to vmcs02, check, and fill vmcs02."""
        number, port = vcpu.number, self.port
        loads = vcpu.run_pending and self.has_control(vcpu, k.VM_ENTRY_CONTROLS, k.VM_ENTRY_LOAD_CET)
        if not loads:
            vcpu.pre_vmenter = self.vmcs_read_cet_state(vcpu)
        port.vmcs_load(number, 2)
        self.vmx_set_constant_host_state(vcpu)
        if from_vmentry and not self.nested_vmx_check_guest_state(vcpu):
            return self.vmentry_fail_vmexit(vcpu)
        vcpu.guest_mode = True
        self.prepare_vmcs02(vcpu, loads)
        if from_vmentry:
            self.kvm.merge_msr_bitmaps(vcpu)
        else:
            vcpu.nested_pages = True
        return k.ENTERED

    def vmentry_fail_vmexit(self, vcpu: Vcpu) -> int:
        """An exit to L1: its host area is loaded as after any other, the guest area is not stored."""
        vcpu.run_pending = False
        self.port.vmcs_load(vcpu.number, 1)
        self.load_vmcs12_host_state(vcpu, failed=not self.FAILED_ENTRY_LOADS_GUEST_AREA)
        return k.INVALID_GUEST_STATE

    def prepare_vmcs02(self, vcpu: Vcpu, loads: bool) -> None:
        """Guest state of L2."""
        number, port = vcpu.number, self.port
        self.vmcs_write_cet_state(vcpu, self.vmcs12_cet(vcpu, GUEST_CET) if loads else vcpu.pre_vmenter)
        port.write_cr(number, 0, port.vmcs12_read(number, k.GUEST_CR0))
        port.write_cr(number, 4, port.vmcs12_read(number, k.GUEST_CR4))

    def nested_vmexit(self, vcpu: Vcpu) -> None:
        """__nested_vmx_vmexit."""
        vcpu.guest_mode = False
        self.sync_vmcs02_to_vmcs12(vcpu)
        self.port.vmcs_load(vcpu.number, 1)
        self.load_vmcs12_host_state(vcpu)

    def sync_vmcs02_to_vmcs12(self, vcpu: Vcpu) -> None:
        """L2's state goes to vmcs12, what of it the vCPU has."""
        number, port = vcpu.number, self.port
        s_cet, ssp, table = self.vmcs_read_cet_state(vcpu)
        port.vmcs12_write(number, k.GUEST_CR0, port.read_cr(number, 0))
        port.vmcs12_write(number, k.GUEST_CR4, port.read_cr(number, 4))
        if vcpu.has_cet():
            port.vmcs12_write(number, k.GUEST_S_CET, s_cet)
        if vcpu.shstk:
            port.vmcs12_write(number, k.GUEST_SSP, ssp)
            port.vmcs12_write(number, k.GUEST_INTR_SSP_TABLE, table)

    def load_vmcs12_host_state(self, vcpu: Vcpu, failed: bool = False) -> None:
        """L1's state; what the host area does not give stays L2's, or L1's own where L2 never ran."""
        number, port = vcpu.number, self.port
        port.write_cr(number, 0, port.vmcs12_read(number, k.HOST_CR0))
        port.write_cr(number, 4, port.vmcs12_read(number, k.HOST_CR4))
        if self.has_control(vcpu, k.VM_EXIT_CONTROLS, k.VM_EXIT_LOAD_CET):
            self.vmcs_write_cet_state(vcpu, self.vmcs12_cet(vcpu, HOST_CET))
        elif not failed:
            self.vmcs_write_cet_state(vcpu, self.vmcs12_cet(vcpu, GUEST_CET))

    def leave_nested(self, vcpu: Vcpu) -> None:
        """vmx_leave_nested."""
        vcpu.run_pending = False
        self.nested_vmexit(vcpu)

    def leave_smm(self, vcpu: Vcpu) -> None:
        """Back into L2, with the state that the SMI's exit stored."""
        vcpu.run_pending = False
        self.nested_vmx_enter_non_root_mode(vcpu, False)
        self.vmcs_write_cet_state(vcpu, self.vmcs12_cet(vcpu, GUEST_CET))

    def set_nested_state(self, vcpu: Vcpu) -> int:
        """vmx_set_nested_state: no run is pending, so L2 goes on with what userspace put into vmcs01."""
        if vcpu.guest_mode:
            self.leave_nested(vcpu)
        if not self.nested_vmx_check_host_state(vcpu) or not self.nested_vmx_check_guest_state(vcpu):
            return -k.EINVAL
        vcpu.run_pending = False
        self.nested_vmx_enter_non_root_mode(vcpu, False)
        return 0

    def handle_vmread(self, vcpu: Vcpu, field: int) -> tuple[int, int]:
        """A field of vmcs12, if the processor has such fields."""
        if field in (*GUEST_CET, *HOST_CET) and not (self.kvm.caps.load_cet or self.FIELDS_WITHOUT_HARDWARE):
            return 1, 0
        return 0, self.port.vmcs12_read(vcpu.number, field)
