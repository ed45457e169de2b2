"""AVIC's two exits."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.accesses import TRAPS, Accesses
from conformance.candidates.builtin.avic.upstream.vm import Vcpu
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_ICR2,
    APIC_LDR,
    APIC_RRR,
    BROADCAST,
    FLAT,
    ICR_BUSY,
    X2_BROADCAST,
)


class Exits(Accesses):
    """What hardware began, software completes."""

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """AVIC_INCOMPLETE_IPI."""
        v = self.vcpus[vcpu]
        low, high = info1 & 0xFFFFFFFF, info1 >> 32 & 0xFFFFFFFF
        identifier = info2 >> 32
        if identifier in (0, 2):
            self._emulate_ipi(v, low, high)
        elif identifier == 1:
            self._kick_targets(v, low, high, info2 & 0xFFF)
        elif identifier == 3:
            self.port.warn(f"AVIC: invalid backing page, icr {info1:#x}")
        return 1

    def _emulate_ipi(self, v: Vcpu, low: int, high: int) -> None:
        if self._reg(v, APIC_ICR) >> ICR_BUSY & 1:
            stored, dest = self._reg(v, APIC_ICR) & ~(1 << ICR_BUSY), self._reg(v, APIC_ICR2)
            self.port.write32(v.regs, APIC_ICR, stored)
            self._send(v, stored, dest)
        else:
            self._send(v, low & ~(1 << ICR_BUSY), high)

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        """Hardware has set the IRR bits; make everybody look."""
        dest = high if v.x2 else high >> 24
        shorthand, logical = low >> 18 & 3, low >> 11 & 1
        named = set() if shorthand else self._named_in_tables(v, dest, logical)
        vcpus, apics = self._as_apics(v.kvm)
        own = vcpus.index(v)
        message = (own, dest, logical, shorthand, 4, 0, 0, 1, 0, 0)  # mode NMI: match whoever is present
        hit = self.route(tuple(apics), message)
        for n, target in enumerate(vcpus):
            if hit >> n & 1 or target.id in named:
                self._complete_delivery(target)

    def _named_in_tables(self, v: Vcpu, dest: int, logical: int) -> set[int]:
        """Ids that hardware reached through the tables, in the sender's mode; a broadcast reaches every entry."""
        if dest == (X2_BROADCAST if v.x2 else BROADCAST):
            return set(v.kvm.vcpus)
        if not logical:
            return {dest}
        if v.x2:
            return {(dest >> 16 << 4) + b for b in range(16) if dest >> b & 1}
        if self._reg(v, APIC_DFR) == FLAT:
            indices = [b for b in range(8) if dest >> b & 1]
        else:
            indices = [4 * (dest >> 4) + b for b in range(4) if dest >> b & 1]
        entries = [self.port.read32(v.kvm.logical_table, 4 * i) for i in indices]
        return {entry & 0xFF for entry in entries if entry >> 31}

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """AVIC_NOACCEL."""
        v = self.vcpus[vcpu]
        offset = info1 & 0xFF0
        if offset in TRAPS:
            self._trap_write(v, offset, info2 & 0xFF)
            return 1
        self.port.emulate_instruction(v.handle)
        return 1

    def _trap_write(self, v: Vcpu, offset: int, vector: int) -> None:
        if offset == APIC_EOI:
            self._set_eoi(v, vector)
            return
        if offset == APIC_RRR:
            return
        if offset == APIC_LDR:
            self._handle_ldr_update(v)
        elif offset == APIC_DFR:
            self._handle_dfr_update(v)
        self._reg_write(v, offset, self._reg(v, offset))
