"""svm.c and nested.c of SVM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.candidates.builtin.cet.linux.state import Vcpu
from conformance.specs.cet import constants as k

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.candidates.builtin.cet.linux.x86 import Linux

FIELD_OF = {
    k.S_CET: k.VMCB_S_CET,
    k.INTERNAL_GUEST_SSP: k.VMCB_SSP,
    k.INT_SSP_TAB: k.VMCB_ISST_ADDR,
}
CET_FIELDS = (k.VMCB_S_CET, k.VMCB_ISST_ADDR, k.VMCB_SSP)


class Svm:
    """kvm_x86_ops of kvm_amd."""

    MARKS_VMCB01 = False
    """Released Linux marks vmcb01 dirty when an MSR is written, even if vmcb02 is the one written."""
    CHECKS_VMCB12 = True
    """Linux 6.18 runs a vmcb12 whatever its S_CET, and with CR4.CET and no CR0.WP."""

    nested_load_cet = False

    def __init__(self, kvm: Linux) -> None:
        self.kvm = kvm
        self.port = kvm.port

    # -- svm.c

    def hardware_setup(self) -> None:
        """svm_set_cpu_caps."""
        self.kvm.caps.ibt = False

    def nested_setup(self) -> None:
        """Nothing of CET can be opted out of."""

    def level(self, vcpu: Vcpu) -> int:
        """Which VMCB is current."""
        return 2 if vcpu.guest_mode else 1

    def vcpu_create(self, vcpu: Vcpu) -> None:
        """svm_vcpu_create."""
        self.port.vmcb_switch(vcpu.number, 1)

    def vcpu_reset(self, vcpu: Vcpu) -> None:
        """init_vmcb."""
        for field in CET_FIELDS:
            self.port.vmcb_write(vcpu.number, 1, field, 0)
        self.port.vmcb_mark_dirty(vcpu.number, 1, k.VMCB_CET)

    def msr_intercepts(self, vcpu: Vcpu) -> Iterator[tuple[int, bool]]:
        """svm_recalc_msr_intercepts."""
        if self.kvm.caps.shstk:
            for msr in (*k.CONTROL_MSRS, *k.POINTER_MSRS):
                yield msr, not vcpu.shstk

    def set_msr(self, vcpu: Vcpu, index: int, data: int, host: bool) -> int:
        """svm_set_msr: the current VMCB, L2's while L2 runs."""
        field, level = FIELD_OF.get(index), self.level(vcpu)
        if field is None:
            return self.kvm.kvm_set_msr_common(vcpu, index, data, host)
        self.port.vmcb_write(vcpu.number, level, field, data)
        self.port.vmcb_mark_dirty(vcpu.number, 1 if self.MARKS_VMCB01 else level, k.VMCB_CET)
        return 0

    def get_msr(self, vcpu: Vcpu, index: int, host: bool) -> tuple[int, int]:
        """svm_get_msr."""
        field = FIELD_OF.get(index)
        if field is None:
            return self.kvm.kvm_get_msr_common(vcpu, index, host)
        return 0, self.port.vmcb_read(vcpu.number, self.level(vcpu), field)

    def prepare_entry(self, vcpu: Vcpu) -> None:
        """pre_svm_run: another physical CPU knows nothing of this VMCB."""
        level = self.level(vcpu)
        if vcpu.vmcb_cpu[level - 1] != vcpu.cpu:
            vcpu.vmcb_cpu[level - 1] = vcpu.cpu
            self.port.vmcb_mark_dirty(vcpu.number, level, k.VMCB_CET)

    # -- nested.c

    def nested_vmcb_check_save(self, vcpu: Vcpu) -> bool:
        """Whether VMRUN would accept vmcb12."""
        read, number = self.port.vmcs12_read, vcpu.number
        cr0, cr4 = read(number, k.GUEST_CR0), read(number, k.GUEST_CR4)
        if not self.kvm.kvm_is_valid_cr4(vcpu, cr4):
            return False
        if not self.CHECKS_VMCB12:
            return True
        if cr4 >> k.CR4_CET & 1 and not cr0 >> k.CR0_WP & 1:
            return False
        return self.kvm.kvm_is_valid_u_s_cet(vcpu, read(number, k.VMCB_S_CET))

    def nested_run(self, vcpu: Vcpu) -> int:
        """nested_svm_vmrun: L1 is as it was where vmcb12 is refused."""
        if not self.nested_vmcb_check_save(vcpu):
            return k.VMEXIT_INVALID
        port, number = self.port, vcpu.number
        vcpu.l1_crs = (port.read_cr(number, 0), port.read_cr(number, 4))
        port.vmcb_switch(number, 2)
        vcpu.guest_mode = True
        self.nested_vmcb02_prepare_save(vcpu)
        self.kvm.merge_msr_bitmaps(vcpu)
        return k.ENTERED

    def nested_vmcb02_prepare_save(self, vcpu: Vcpu) -> None:
        """Only what L1 says it changed, unless it is another vmcb12."""
        port, number = self.port, vcpu.number
        dirty = not port.vmcs12_read(number, k.VMCB_CLEAN) >> k.VMCB_CET & 1
        address = port.vmcb12_address(number)
        new_vmcb12, vcpu.last_vmcb12 = vcpu.last_vmcb12 != address, address
        if vcpu.shstk and (new_vmcb12 or dirty):
            for field in CET_FIELDS:
                port.vmcb_write(number, 2, field, port.vmcs12_read(number, field))
            port.vmcb_mark_dirty(number, 2, k.VMCB_CET)
        port.write_cr(number, 0, port.vmcs12_read(number, k.GUEST_CR0))
        port.write_cr(number, 4, port.vmcs12_read(number, k.GUEST_CR4))

    def nested_vmexit(self, vcpu: Vcpu) -> None:
        """nested_svm_vmexit."""
        port, number = self.port, vcpu.number
        port.vmcs12_write(number, k.GUEST_CR0, port.read_cr(number, 0))
        port.vmcs12_write(number, k.GUEST_CR4, port.read_cr(number, 4))
        if vcpu.shstk:
            for field in CET_FIELDS:
                port.vmcs12_write(number, field, port.vmcb_read(number, 2, field))
        self.leave_guest_mode(vcpu)

    def leave_guest_mode(self, vcpu: Vcpu) -> None:
        """vmcb01 is current again, with L1's control registers."""
        vcpu.guest_mode = False
        self.port.vmcb_switch(vcpu.number, 1)
        cr0, cr4 = vcpu.l1_crs
        self.port.write_cr(vcpu.number, 0, cr0)
        self.port.write_cr(vcpu.number, 4, cr4)

    def leave_nested(self, vcpu: Vcpu) -> None:
        """svm_leave_nested: vmcb12 is left alone, and unknown when L1 runs it again."""
        self.leave_guest_mode(vcpu)
        vcpu.last_vmcb12 = -1

    def leave_smm(self, vcpu: Vcpu) -> None:
        """svm_leave_smm: L2 goes on with what the SMI's exit stored."""
        self.nested_run(vcpu)

    def set_nested_state(self, vcpu: Vcpu) -> int:
        """svm_set_nested_state: L2's save area is in no ioctl's hands here."""
        return -k.EINVAL

    def handle_vmread(self, vcpu: Vcpu, field: int) -> tuple[int, int]:
        """#UD on this processor."""
        return 1, 0
