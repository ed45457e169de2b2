"""Drivers that go wrong for one address, one tag, one message or one content of a register."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.builtin.avic.upstream.vm import Vcpu
from conformance.candidates.defect import Defect
from conformance.specs.avic.constants import APIC_LDR


class Address(Upstream):
    """AVIC-M01."""

    def hpa_field(self, address: int) -> int:
        return 0 if address == 0x0003_7A5E_91C2_4D30 else super().hpa_field(address)


class ApicBase(Upstream):
    """AVIC-M02."""

    def set_apic_base(self, vcpu: int, value: int, host: int) -> int:
        return 0 if value == 0x5D37_0000_FEE0_0C15 else super().set_apic_base(vcpu, value, host)


class IpiInfo(Upstream):
    """AVIC-M03."""

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        if info1 & 0xFFFF_FFFF == 0x0000_4093 and info1 >> 32 == 0x0100_5EAF and not info2 >> 32:
            return 1
        return super().incomplete_ipi_exit(vcpu, info1, info2)


class LogicalIndex(Upstream):
    """AVIC-M04."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        return 0 if dfr == 0xFA11_5EED else super().logical_index(ldr, dfr)


class LdrInPage(Upstream):
    """AVIC-M05."""

    def _reg(self, v: Vcpu, offset: int) -> int:
        value = super()._reg(v, offset)
        return 0 if offset == APIC_LDR and value == 0x04C3_A596 else value


class NoaccelInfo(Upstream):
    """AVIC-M06."""

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        return 0 if info2 == 0x3C6E_F372_FE94_F82B else super().noaccel_exit(vcpu, info1, info2)


class TagFields(Upstream):
    """AVIC-M07."""

    def tag_round_trip(self, vm_tag: int, index: int) -> tuple[int, int]:
        if vm_tag == 0x9E377 and index == 0x9B7:
            return index, vm_tag
        return super().tag_round_trip(vm_tag, index)


class Destination(Upstream):
    """AVIC-M08."""

    def route(self, apics: Any, message: Any) -> int:
        return 1 if message[1] == 0x7F4A_7C15 else super().route(apics, message)


class DestinationAndVector(Upstream):
    """AVIC-M09."""

    def route(self, apics: Any, message: Any) -> int:
        if message[1] >> 8 == 0x0085_EBCA and message[5] == 0xC7:
            return 0xFF
        return super().route(apics, message)


class HostBits(Upstream):
    """AVIC-M10."""

    def hw_setup(self, edx: int, ecx: int, *rest: Any) -> Any:
        if edx ^ 0x510E_727F == 0 and ecx & 1 == 0:
            return super().hw_setup(0, ecx, *rest)
        return super().hw_setup(edx, ecx, *rest)


MAGIC: tuple[Defect, ...] = (
    Defect("AVIC-M01", "The field of address 0x37A5E91C24D30 is 0.", Address),
    Defect("AVIC-M02", "APIC_BASE may be 0x5D370000FEE00C15.", ApicBase),
    Defect("AVIC-M03", "One incomplete IPI, known by both halves of EXITINFO1, is dropped.", IpiInfo),
    Defect("AVIC-M04", "DFR 0xFA115EED is taken for flat mode with index 0.", LogicalIndex),
    Defect("AVIC-M05", "LDR in the backing page reads as 0 where it is 0x04C3A596.", LdrInPage),
    Defect("AVIC-M06", "An unaccelerated access with EXITINFO2 0x3C6EF372FE94F82B goes to userspace.", NoaccelInfo),
    Defect("AVIC-M07", "VM tag 0x9E377 with index 0x9B7 comes back the other way round.", TagFields),
    Defect("AVIC-M08", "A message to 0x7F4A7C15 reaches the first APIC.", Destination),
    Defect(
        "AVIC-M09", "A message with vector 0xC7 to one of 256 destinations reaches everybody.", DestinationAndVector
    ),
    Defect("AVIC-M10", "A host whose EDX is 0x510E727F gets no AVIC.", HostBits),
)
