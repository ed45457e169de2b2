"""CR0 and CR4 as the guest sees them."""

from __future__ import annotations

from conformance.environment.cet.vcpus import PerVcpu
from conformance.model.cet.view import CRS, Crs
from conformance.specs.cet.constants import CR0_WP, CR4_CET

CR0_REST = 0x8000_0033
CR4_REST = 0x4_0020
"""Bits of CR0 and CR4 that never change here: PAE and OSXSAVE of CR4, without which no guest has XSAVES."""


def cr0_of(wp: bool) -> int:
    """CR0 with that WP."""
    return CR0_REST | wp << CR0_WP


def cr4_of(cet: bool) -> int:
    """CR4 with that CET."""
    return CR4_REST | cet << CR4_CET


class Pair:
    """The two registers of one vCPU."""

    __slots__ = ("cr0", "cr4")

    def __init__(self) -> None:
        self.cr0 = CR0_REST
        self.cr4 = CR4_REST


class ControlRegisters(PerVcpu[Pair]):
    """Guest CR0 and CR4, wherever KVM keeps them; of their bits only WP and CET ever change.

    MOV to CR4 by a guest that owns the bit is the processor's, with its interlock; all else is the candidate's.
    """

    def add(self, vcpu: int) -> None:
        """Power-up values."""
        self.parts[vcpu] = Pair()

    def boot(self, vcpu: int) -> None:
        """The guest starts over after INIT or RESET: it sets the other bits again, WP and CET are as it finds them."""
        part = self.parts[vcpu]
        part.cr0, part.cr4 = cr0_of(bool(part.cr0 >> CR0_WP & 1)), cr4_of(bool(part.cr4 >> CR4_CET & 1))

    def bits(self, vcpu: int) -> Crs:
        """CR0.WP and CR4.CET."""
        part = self.parts[vcpu]
        return CRS[part.cr0 >> CR0_WP & 1][part.cr4 >> CR4_CET & 1]

    def mov_cr4(self, vcpu: int, cet: bool) -> bool:
        """MOV to CR4 without an exit; False for #GP, since CET needs WP."""
        part = self.parts[vcpu]
        if cet and not part.cr0 >> CR0_WP & 1:
            return False
        part.cr4 = cr4_of(cet)
        return True

    def read_cr(self, vcpu: int, number: int) -> int:
        """CR0 or CR4."""
        part = self.of(vcpu)
        return part.cr4 if number == 4 else part.cr0

    def write_cr(self, vcpu: int, number: int, value: int) -> None:
        """CR0 or CR4."""
        part = self.of(vcpu)
        if number == 4:
            part.cr4 = value
        else:
            part.cr0 = value
