"""The module: what it found when it was loaded, and functions of numbers alone."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.avic.router import Router
from conformance.candidates.builtin.avic.upstream.vm import Kvm, Vcpu
from conformance.specs.avic.constants import ADDRESS_BITS, FLAT

TAG_SHIFT = 12
TAG_MASK = 0xFFFFF


class Module(Router):
    """What was found at setup, and what the driver keeps."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.avic = self.x2avic = self.ipiv = False
        self.max_phys = 0
        self.vms: dict[int, Kvm] = {}
        self.vcpus: dict[int, Vcpu] = {}
        self.hash: dict[int, Kvm] = {}
        self.next_vm_id = 0
        self.wrapped = False
        self.notifier = False
        self.last_on_core: dict[int, int] = {}

    def hw_setup(
        self,
        edx: int,
        ecx: int,
        npt: int,
        family: int,
        zen4: int,
        snp: int,
        hv_inuse_wr: int,
        avic: int,
        force: int,
        ipiv: int,
        next_tag: int,
    ) -> int:
        """Decide what to use."""
        self.next_vm_id = (next_tag - 1) & TAG_MASK
        self.avic = self._want_avic(edx, npt, family, zen4, snp, hv_inuse_wr, avic, force)
        self.x2avic = self.avic and bool(edx & 1 << 18)
        self.ipiv = self.avic and bool(ipiv) and family not in (0x17, 0x18)
        self.max_phys = 0
        if self.avic:
            self.max_phys = 254
            if self.x2avic:
                self.max_phys = 4095 if ecx & 1 << 6 else 511
            self.port.register_ga_notifier()
            self.notifier = True
        return int(self.avic) | self.x2avic << 1 | self.ipiv << 2 | self.max_phys << 16

    def _want_avic(
        self, edx: int, npt: int, family: int, zen4: int, snp: int, hv_inuse_wr: int, avic: int, force: int
    ) -> bool:
        if avic == -1:
            avic = int(bool(edx & 1 << 18) and (bool(zen4) or family >= 0x1A))
        if not avic or not npt:
            return False
        if snp and not hv_inuse_wr:
            return False
        return bool(edx & 1 << 13 or force)

    def hw_unsetup(self) -> None:
        """Module exit."""
        if self.notifier:
            self.port.unregister_ga_notifier()
            self.notifier = False

    def hpa_field(self, address: int) -> int:
        """Bits 51:12."""
        return address & ADDRESS_BITS

    def logical_index(self, ldr: int, dfr: int) -> int:
        """Index in the logical table."""
        if not ldr:
            return -1
        cluster, member = 0, ldr
        if dfr | 0x0FFFFFFF != FLAT:
            cluster, member = ldr >> 4, ldr & 0xF
            if cluster >= 0xF:
                return -1
        if not member or member & member - 1:
            return -1
        return (cluster << 2) + member.bit_length() - 1

    def phys_index(self, index: int) -> int:
        """Byte offset of an entry."""
        return 8 * index if 0 <= index < 0xFF else -1

    def _tag(self, vm_id: int, index: int) -> int:
        return (vm_id & TAG_MASK) << TAG_SHIFT | index & 0xFFF

    def tag_round_trip(self, vm_tag: int, index: int) -> tuple[int, int]:
        """Encode and decode."""
        tag = self._tag(vm_tag, index)
        return tag >> TAG_SHIFT & TAG_MASK, tag & 0xFFF

    def x2_ldr(self, apic_id: int) -> int:
        """LDR of an x2APIC."""
        return (apic_id >> 4) << 16 | 1 << (apic_id & 0xF)

    def ppr(self, tpr: int, isrv: int) -> int:
        """Processor priority."""
        if tpr & 0xF0 >= isrv & 0xF0:
            return tpr
        return isrv & 0xF0
