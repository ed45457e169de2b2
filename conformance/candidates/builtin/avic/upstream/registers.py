"""The register page: words, bitmaps, priorities."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.module import Module
from conformance.candidates.builtin.avic.upstream.vm import Vcpu
from conformance.specs.avic.constants import APIC_IRR, APIC_ISR, APIC_PPR, APIC_SPIV, APIC_TPR


class Registers(Module):
    """The software APIC works on the page that hardware walks."""

    def _reg(self, v: Vcpu, offset: int) -> int:
        return int(self.port.read32(v.regs, offset))

    def _sw_enabled(self, v: Vcpu) -> bool:
        return self._reg(v, APIC_SPIV) >> 8 & 1 == 1

    def _find_highest(self, v: Vcpu, base: int) -> int:
        for n in range(7, -1, -1):
            word = self._reg(v, base + 16 * n)
            if word:
                return 32 * n + word.bit_length() - 1
        return -1

    def _set_vector(self, v: Vcpu, base: int, vector: int) -> None:
        self.port.or32(v.regs, base + (vector >> 5) * 16, 1 << (vector & 31))

    def _clear_vector(self, v: Vcpu, base: int, vector: int) -> None:
        self.port.and32(v.regs, base + (vector >> 5) * 16, 0xFFFFFFFF ^ 1 << (vector & 31))

    def _test_vector(self, v: Vcpu, base: int, vector: int) -> bool:
        return self._reg(v, base + (vector >> 5) * 16) >> (vector & 31) & 1 == 1

    def _update_ppr(self, v: Vcpu) -> int:
        value = self.ppr(self._reg(v, APIC_TPR) & 0xFF, max(self._find_highest(v, APIC_ISR), 0))
        self.port.write32(v.regs, APIC_PPR, value)
        return value

    def _has_interrupt(self, v: Vcpu) -> int:
        """The vector that could be taken now, -1 for none."""
        if not v.regs or not v.enabled:
            return -1
        vector = self._find_highest(v, APIC_IRR)
        if vector < 0 or vector & 0xF0 <= self._update_ppr(v) & 0xF0:
            return -1
        return vector

    def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
        """Nothing to do."""

    def hwapic_isr_update(self, vcpu: int, max_isr: int) -> None:
        """Nothing to do."""

    def get_lapic(self, vcpu: int) -> bytes:
        """KVM_GET_LAPIC."""
        v = self.vcpus[vcpu]
        image = bytearray(1024)
        for offset in range(0, 0x400, 16):
            image[offset : offset + 4] = self._reg(v, offset).to_bytes(4, "little")
        return bytes(image)
