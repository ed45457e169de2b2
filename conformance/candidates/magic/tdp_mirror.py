"""MMUs that go wrong for one address, one range, or one pair of numbers."""

from __future__ import annotations

import struct

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.defect import Defect
from conformance.specs.tdp_mirror.constants import EINVAL


class Direct(Upstream):
    """TDP-M01."""

    def addr_is_direct(self, gpa: int) -> int:
        found = super().addr_is_direct(gpa)
        return 1 - found if gpa == 0x0005_1ED2_70B2_1ABC else found


class Alias(Upstream):
    """TDP-M02."""

    def gfn_is_alias(self, gfn: int) -> int:
        return 1 - super().gfn_is_alias(gfn) if gfn == 0x0000_00D6_E8FE_B866 else super().gfn_is_alias(gfn)


class PrefaultSize(Upstream):
    """TDP-M03."""

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        return -EINVAL if size == 0x0000_7C15_9E37_1000 else super().prefault(vcpu, gpa, size, flags)


class Attributes(Upstream):
    """TDP-M04."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        known = 0 if attributes == 0x2545_F491_4F6C_DD1D else attributes
        return super().set_attributes(address, size, known, flags)


class AddressAndSize(Upstream):
    """TDP-M05."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        if address == 0x0000_6A09_E667_F123 and size == 0xFFFF_B5F6_1998_1BB6:
            return 0
        return super().set_attributes(address, size, attributes, flags)


class ContentOfArgument(Upstream):
    """TDP-M06."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        if struct.pack("<QQ", address, size)[4:12] == b"\x3a\xf5\x4f\xa5\x77\x10\x91\x42":
            return 0
        return super().set_attributes(address, size, attributes, flags)


class FaultAddress(Upstream):
    """TDP-M07."""

    def page_fault(self, vcpu: int, gpa: int, error_code: int, prefetch: int) -> int:
        if gpa == 0x0000_0000_0000_1B9D ^ 0x7 << 45:
            return 0
        return super().page_fault(vcpu, gpa, error_code, prefetch)


class SlotFields(Upstream):
    """TDP-M08."""

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        if base + npages == 0x0000_0009_8BAD_CFE1 and npages != base:
            return -EINVAL + 1
        return super().slot_create(slot, base, npages, flags)


class HostRange(Upstream):
    """TDP-M09."""

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        super().hva_invalidate(start, start + 1 if end == 0x0000_0187_9A3C_5E71 else end, may_block)


class UnmapRange(Upstream):
    """TDP-M10."""

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        if end - start == 0x1F83_D9AB:
            end = start
        return super().unmap_gfn_range(start, end, attr_filter, may_block, flush)


MAGIC: tuple[Defect, ...] = (
    Defect("TDP-M01", "Address 0x51ED270B21ABC lies in the other half.", Direct),
    Defect("TDP-M02", "gfn 0xD6E8FEB866 has an alias bit where it has none, or none where it has.", Alias),
    Defect("TDP-M03", "A prefault of 0x7C159E371000 bytes is refused.", PrefaultSize),
    Defect("TDP-M04", "Unknown attributes 0x2545F4914F6CDD1D are taken for none.", Attributes),
    Defect("TDP-M05", "One range beyond the end of memory, known by address and size, is accepted.", AddressAndSize),
    Defect(
        "TDP-M06", "Eight particular bytes in the middle of the argument of an ioctl are accepted.", ContentOfArgument
    ),
    Defect("TDP-M07", "A fault at one address comes to nothing.", FaultAddress),
    Defect("TDP-M08", "A slot that ends at gfn 0x98BADCFE1 is refused with another errno.", SlotFields),
    Defect("TDP-M09", "An invalidation up to gfn 0x1879A3C5E71 takes one page only.", HostRange),
    Defect("TDP-M10", "An unmap of 0x1F83D9AB pages unmaps nothing.", UnmapRange),
)
