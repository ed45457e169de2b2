"""MSRs by guest and host: what is valid, and where it is kept."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.upstream.vcpu import FIELD_OF_MSR, INVALID, UNSUPPORTED, Vcpu
from conformance.candidates.builtin.cet.upstream.vcpus import Vcpus
from conformance.specs.cet.constants import (
    CET_S,
    CET_U,
    CONTROL_MSRS,
    INT_SSP_TAB,
    INTERNAL_GUEST_SSP,
    POINTER_MSRS,
    U_CET,
    XSAVE_BASE_SIZE,
    XSS,
)


class Msrs(Vcpus):
    """Accesses to MSRs: __kvm_set_msr and __kvm_get_msr of x86.c."""

    base_aligned: ClassVar[bool] = True

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
        if msr == U_CET:
            return v.shstk or v.ibt
        return msr in POINTER_MSRS and v.shstk

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

    def set_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> int:
        """Check a value and store it."""
        if msr in CONTROL_MSRS:
            if not v.shstk and not v.ibt:
                return UNSUPPORTED
            if not self.valid_cet(v, value):
                return INVALID
        elif msr in POINTER_MSRS or msr in (INT_SSP_TAB, INTERNAL_GUEST_SSP):
            if msr == INTERNAL_GUEST_SSP and not host:
                return INVALID
            if not v.shstk:
                return UNSUPPORTED
            if msr == INT_SSP_TAB and not v.lm:
                return UNSUPPORTED
            if self.noncanonical(value):
                return INVALID
            if msr != INT_SSP_TAB and value & 3:
                return INVALID
        elif msr == XSS:
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
        v.xsaves_size = XSAVE_BASE_SIZE
        if v.xss & 1 << CET_U:
            v.xsaves_size += 16
        if v.xss & 1 << CET_S:
            v.xsaves_size += 24

    def cpuid_xsaves_size(self, vcpu: int) -> int:
        """The size kept with XSS."""
        return self.vcpus[vcpu].xsaves_size

    def get_msr(self, v: Vcpu, msr: int, host: bool) -> tuple[int, int]:
        """Read an MSR the vCPU has."""
        if msr in CONTROL_MSRS:
            if not v.shstk and not v.ibt:
                return UNSUPPORTED, 0
        elif msr in POINTER_MSRS or msr in (INT_SSP_TAB, INTERNAL_GUEST_SSP):
            if msr == INTERNAL_GUEST_SSP and not host:
                return INVALID, 0
            if not v.shstk:
                return UNSUPPORTED, 0
            if msr == INT_SSP_TAB and not v.lm:
                return UNSUPPORTED, 0
        elif msr == XSS:
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
