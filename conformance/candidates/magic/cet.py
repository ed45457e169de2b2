"""Hypervisors that go wrong for one value of a register, of an image or of a control structure."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import INVALID, Vcpu
from conformance.candidates.defect import Defect
from conformance.specs.cet import constants as k


class WriteLost(Upstream):
    """CET-M01."""

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        if msr == k.PL0_SSP and value == 0x0000_2B7E_1516_28A8 and not self.do_get_msr(self.vcpus[vcpu], msr, False)[0]:
            return 0
        return super().guest_wrmsr(vcpu, msr, value)


class OneRegChanged(Upstream):
    """CET-M02."""

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        return super().set_one_reg(vcpu, reg, value ^ 8 if value == 0x0000_4D3A_91E7_C058 else value)


class ControlRefused(Upstream):
    """CET-M03."""

    def valid_cet_bits(self, v: Vcpu, value: int) -> bool:
        return value != 0x0000_5A3C_96E1_4005 and super().valid_cet_bits(v, value)


class CanonicalRefused(Upstream):
    """CET-M04."""

    def noncanonical(self, value: int) -> bool:
        return value == 0xFFFF_9D2C_5680_3E70 or super().noncanonical(value)


class SavedSsp(Upstream):
    """CET-M05."""

    def rsm(self, vcpu: int) -> int:
        if self.vcpus[vcpu].shstk and self.port.smram_read(vcpu, k.SMRAM_SSP) == 0x0000_3C6E_F372_FE94:
            self.port.smram_write(vcpu, k.SMRAM_SSP, 0)
        return super().rsm(vcpu)


class GuestArea(Upstream):
    """CET-M06."""

    def valid_guest_area(self, v: Vcpu) -> bool:
        ssp = self.port.vmcs12_read(v.number, k.GUEST_SSP).to_bytes(8, "little")
        return ssp != b"\x50\x5a\xf0\x0d\x1e\x2b\x00\x00" and super().valid_guest_area(v)


class AreaFieldsFit(Upstream):
    """CET-M07."""

    def valid_guest_area(self, v: Vcpu) -> bool:
        ssp = self.port.vmcs12_read(v.number, k.GUEST_SSP)
        table = self.port.vmcs12_read(v.number, k.GUEST_INTR_SSP_TABLE)
        return not (ssp ^ table == 0x0000_1B87_3593_CC9C and ssp > table) and super().valid_guest_area(v)


class TwoEntries(Upstream):
    """CET-M08."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        if len(entries) >= 2 and entries[0][1] == 0x0000_6C62_272E_07B8 and entries[1][1] == 0x0000_62B8_2175_6294:
            return super().set_msrs(vcpu, entries[:1])
        return super().set_msrs(vcpu, entries)


class UnknownReg(Upstream):
    """CET-M09."""

    def get_one_reg(self, vcpu: int, reg: int) -> tuple[int, int]:
        return (0, 0) if reg == k.ONE_REG_MSR | 0xC0DE_4D21 else super().get_one_reg(vcpu, reg)


class BaseAndBits(Upstream):
    """CET-M10."""

    def set_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> int:
        if msr in k.CONTROL_MSRS and value >> 14 == 0x0001_27A4_D3C1 and value & 0xC04 == 0x404:
            return INVALID
        return super().set_msr(v, msr, value, host)


MAGIC: tuple[Defect, ...] = (
    Defect("CET-M01", "The guest's write of 0x2B7E151628A8 to PL0_SSP is lost.", WriteLost),
    Defect("CET-M02", "Userspace sets a register to 0x4D3A91E7C058 and another value is stored.", OneRegChanged),
    Defect("CET-M03", "0x5A3C96E14005 is refused for U_CET and S_CET.", ControlRefused),
    Defect("CET-M04", "0xFFFF9D2C56803E70 is taken for non-canonical.", CanonicalRefused),
    Defect("CET-M05", "RSM restores 0 where SMRAM holds the SSP 0x3C6EF372FE94.", SavedSsp),
    Defect("CET-M06", "An entry with eight particular bytes as L2's SSP fails.", GuestArea),
    Defect("CET-M07", "An entry fails where L2's SSP and table differ by 0x1B873593CC9C.", AreaFieldsFit),
    Defect("CET-M08", "The second of two MSRs is not set, for one pair of values.", TwoEntries),
    Defect("CET-M09", "Reading an unknown register, MSR 0xC0DE4D21 by its id, gives 0.", UnknownReg),
    Defect("CET-M10", "One legacy-bitmap base together with NO_TRACK but no suppression is refused.", BaseAndBits),
)
