"""L2 on VMX and on SVM."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream.msrs import Msrs
from conformance.candidates.builtin.cet.upstream.vcpu import SWITCHED_FIELDS, VMCB_OF, Vcpu
from conformance.specs.cet import constants as k


class Nested(Msrs):
    """vmx/nested.c and svm/nested.c."""

    def nested_enter(self, vcpu: int) -> int:
        """Check, then switch."""
        v = self.vcpus[vcpu]
        failed = self.check_vmcb12(v) if self.svm else self.check_vmcs12(v)
        if failed == k.INVALID_GUEST_STATE:
            self.load_host_area(v, [self.field_read(v, field) for field in SWITCHED_FIELDS])
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
        v.l2 = False
        port.vmcs_load(vcpu, 1)
        self.load_host_area(v, values)

    def load_host_area(self, v: Vcpu, values: list[int]) -> None:
        """L1 after an exit or a failed entry: its control registers, and the host area or these values."""
        port, vcpu = self.port, v.number
        if port.vmcs12_read(vcpu, k.VM_EXIT_CONTROLS) >> k.VM_EXIT_LOAD_CET & 1:
            host = (k.HOST_S_CET, k.HOST_SSP, k.HOST_INTR_SSP_TABLE)
            values = [
                port.vmcs12_read(vcpu, area) if self.has_field(v, field) else value
                for area, field, value in zip(host, SWITCHED_FIELDS, values, strict=True)
            ]
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
