"""What lies in the guest's own memory: the SMM state-save map, and what L1 wrote for its L2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.control_registers import cr0_of, cr4_of
from conformance.environment.cet.registers import FIELDS, SAVE_AREA
from conformance.environment.cet.vcpus import PerVcpu
from conformance.model.cet.operations import Area
from conformance.model.cet.state import Words
from conformance.specs.cet import constants as k

if TYPE_CHECKING:
    from conformance.environment.cet.platform import Platform
    from conformance.environment.door import Environment


VMCB12_PAGES = 0x10_0000
"""Where in the guest's memory the vmcb12s are."""


class Pages:
    """The pages of one vCPU."""

    __slots__ = ("address", "areas", "intercepts", "smram")

    def __init__(self) -> None:
        self.smram: dict[int, int] = {}
        """The SMM state-save map, by offset."""
        self.areas: tuple[dict[int, int], dict[int, int]] = ({}, {})
        """vmcs12 or vmcb12, by field; SVM has two of them."""
        self.address = 0
        """Which one L1 runs."""
        self.intercepts: tuple[int, ...] = ()
        """MSRs that L1's bitmap stops."""

    @property
    def area(self) -> dict[int, int]:
        """The vmcs12 or vmcb12 that L1 runs."""
        return self.areas[self.address]


class GuestMemory(PerVcpu[Pages]):
    """Guest memory as far as the candidate looks for CET state there; it is where the guest says, and mapped.

    L1 does not write while its L2 runs. Of addresses only the vmcb12's are told apart; other contents are not modelled.
    """

    def __init__(self, door: Environment, platform: Platform) -> None:
        super().__init__(door)
        self.platform = platform

    def add(self, vcpu: int) -> None:
        """Zeros."""
        self.parts[vcpu] = Pages()

    def store(self, vcpu: int, area: Area) -> None:
        """L1 stores its vmcs12 or vmcb12, and its bitmap."""
        part = self.parts[vcpu]
        part.intercepts, part.address = area.intercepts, area.address
        words = (area.s_cet, area.ssp, area.table)
        part.area.update(zip(SAVE_AREA if self.platform.amd else FIELDS, words, strict=True))
        part.areas[part.address].update(
            {
                k.GUEST_CR0: cr0_of(area.wp),
                k.GUEST_CR4: cr4_of(area.cet),
                k.HOST_CR0: cr0_of(area.host_wp),
                k.HOST_CR4: cr4_of(area.host_cet),
                k.HOST_S_CET: area.host_s_cet,
                k.HOST_SSP: area.host_ssp,
                k.HOST_INTR_SSP_TABLE: area.host_table,
                k.VM_ENTRY_CONTROLS: area.load << k.VM_ENTRY_LOAD_CET,
                k.VM_EXIT_CONTROLS: area.load_host << k.VM_EXIT_LOAD_CET | area.host_64 << k.VM_EXIT_HOST_64,
                k.VMCB_CLEAN: area.clean << k.VMCB_CET,
            }
        )

    def words(self, vcpu: int) -> Words:
        """S_CET, SSP and table of vmcs12 or vmcb12."""
        get = self.parts[vcpu].area.get
        s_cet, ssp, table = SAVE_AREA if self.platform.amd else FIELDS
        return Words(get(s_cet, 0), get(ssp, 0), get(table, 0))

    def move(self, old: Pages, vcpu: int) -> None:
        """The memory of a vCPU that was migrated comes with it."""
        part = self.parts[vcpu]
        part.areas, part.address, part.smram = old.areas, old.address, old.smram

    def vmcs12_read(self, vcpu: int, field: int) -> int:
        """L1's memory."""
        return self.of(vcpu).area.get(field, 0)

    def vmcs12_write(self, vcpu: int, field: int, value: int) -> None:
        """L1's memory."""
        self.of(vcpu).area[field] = value

    def vmcb12_address(self, vcpu: int) -> int:
        """Page by page."""
        return VMCB12_PAGES + (self.of(vcpu).address << 12)

    def l1_intercepts(self, vcpu: int, msr: int) -> int:
        """L1's bitmap for its L2."""
        return k.READ | k.WRITE if msr in self.of(vcpu).intercepts else 0

    def smram_read(self, vcpu: int, offset: int) -> int:
        """The state-save map."""
        return self.of(vcpu).smram.get(offset, 0)

    def smram_write(self, vcpu: int, offset: int, value: int) -> None:
        """The state-save map."""
        self.of(vcpu).smram[offset] = value
