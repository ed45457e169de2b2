"""What hardware walks: physical and logical tables, and backing pages, word by word."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_ISR,
    APIC_TMR,
    ENTRY_RUNNING,
    ENTRY_VALID,
    VMCB_BACKING_PAGE,
    VMCB_LOGICAL_TABLE,
)
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.memory import Memory, Page, Watch
    from conformance.environment.avic.vcpus import Cpu, Vcpus
    from conformance.environment.door import Environment

BITMAPS_END = 0x280
"""ISR, TMR and IRR lie between 0x100 and here."""
RESETTING = ("VcpuCreate", "VcpuReset", "SetLapic", "SetApicBase")
"""Operations during which nothing else can reach the vCPU's bitmaps."""
EXITING = ("GuestIpi", "HandleExit", "RawIpiExit")
"""Operations in which an index comes from an exit."""


class Tables(Simulator):
    """Loads and stores of a driver, to pages of which some are walked by hardware at any time.

    Which pages those are, the VMCBs say. Accesses happen in the order in which they are made: there is no store buffer.
    """

    CLAUSES = (
        c.ENTRY_STORES_ARE_ATOMIC,
        c.WIDE_HOST_ID_CHANGES_NOTHING,
        c.BITMAPS_CHANGE_ATOMICALLY,
        c.ANY_EXITINFO_TOLERATED,
        c.MAX_INDEX_IN_RANGE,
    )

    def __init__(self, door: Environment, memory: Memory, vcpus: Vcpus, watch: Watch) -> None:
        super().__init__(door)
        self.memory = memory
        self.pages = memory.pages
        self.vcpus = vcpus
        self.watch = watch
        self.physical: set[int] = set()
        """Frames of physical tables that some VMCB names."""
        self.backing: dict[int, Cpu] = {}
        """Frames of backing pages that some VMCB names."""
        self.stale: set[tuple[int, int]] = set()
        """(table, index) whose entry once said that its vCPU runs."""
        self.before: tuple[int, ...] = ()
        """Logical table entries before a write of LDR or DFR; see the check on it."""

    def digest(self) -> Hashable:
        """What is left in the logical table, entries of long ago included."""
        return self.logical_entries()

    def forget(self, cpu: Cpu) -> None:
        """The vCPU's backing page is none any more."""
        self.backing = {frame: owner for frame, owner in self.backing.items() if owner is not cpu}

    def backing_page(self, cpu: Cpu) -> Page | None:
        """The page that the VMCB names as the vCPU's registers."""
        vmcb = cpu.vmcb
        if vmcb is None:
            return None
        address = vmcb.fields.get(VMCB_BACKING_PAGE, 0) & ADDRESS_BITS
        return self.pages.get(address) if address else None

    def logical_table(self, vm: int) -> Page | None:
        """The logical table of a VM, None while no VMCB names one."""
        for cpu in self.vcpus.order:
            if cpu.vm == vm and cpu.vmcb is not None:
                return self.pages.get(cpu.vmcb.get(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
        return None

    def logical_entries(self) -> tuple[int, ...]:
        """Words of VM 0's logical table that are not 0, as index << 32 | word."""
        page = self.logical_table(0)
        if page is None:
            return ()
        return tuple(index << 32 | page.words[index] for index in sorted(page.live))

    def _word(self, address: int, offset: int, width: int) -> Page:
        page = self.memory.find(address)
        if offset < 0 or offset + width > 4 * len(page.words):
            clause = c.ANY_EXITINFO_TOLERATED if self.door.frame.actor in EXITING else c.MAX_INDEX_IN_RANGE
            raise Violation(clause, f"access at {offset:#x}, outside the page at {address:#x}")
        if offset % width:
            raise Violation(c.ENTRY_STORES_ARE_ATOMIC, f"access at {offset:#x} is not aligned to {width} bytes")
        return page

    def read32(self, address: int, offset: int) -> int:
        """One 32-bit load."""
        return self._word(address, offset, 4).words[offset >> 2]

    def read64(self, address: int, offset: int) -> int:
        """One 64-bit load."""
        return self._word(address, offset, 8).read64(offset)

    def write32(self, address: int, offset: int, value: int) -> None:
        """One 32-bit store; not on half a physical entry, nor on a live bitmap."""
        page = self._word(address, offset, 4)
        if page.address in self.physical:
            raise Violation(c.ENTRY_STORES_ARE_ATOMIC, f"32-bit store to half the physical entry {offset >> 3}")
        if APIC_ISR <= offset < BITMAPS_END and page.address in self.backing:
            self._plain_bitmap_store(page, offset)
        self.watch.changed = True
        page.set(offset >> 2, value & 0xFFFFFFFF)

    def write64(self, address: int, offset: int, value: int) -> None:
        """One 64-bit store."""
        page = self._word(address, offset, 8)
        if page.address in self.physical:
            self._entry_store(page, offset >> 3, value)
        elif APIC_ISR <= offset < BITMAPS_END and page.address in self.backing:
            self._plain_bitmap_store(page, offset)
        self.watch.changed = True
        page.write64(offset, value)

    def _plain_bitmap_store(self, page: Page, offset: int) -> None:
        """Hardware and the IOMMU set bits in these words at any time, but while the vCPU is being reset.

        ISR is changed by hardware only while its vCPU runs, so that vCPU's thread has it to itself outside the guest.
        """
        owner = self.backing[page.address]
        own = offset < APIC_TMR and owner.busy > 0 and not owner.in_guest
        if not own and self.door.frame.actor not in RESETTING:
            raise Violation(
                c.BITMAPS_CHANGE_ATOMICALLY, f"plain store to the bitmap word at {offset:#x} of {page.address:#x}"
            )

    def _entry_store(self, page: Page, index: int, value: int) -> None:
        """Hardware must never see IsRunning with a host id that is not the vCPU's core, nor a live entry gone."""
        old = page.read64(8 * index)
        if old >> ENTRY_VALID & 1 and not value >> ENTRY_VALID & 1:
            self._entry_gone(old & ADDRESS_BITS, index)
        if not value >> ENTRY_RUNNING & 1:
            return
        self.stale.add((page.address, index))
        owner = self.backing.get(value & ADDRESS_BITS)
        if owner is None or owner.core < 0:
            return
        host_id = value & 0xFFF
        if owner.core > 0xFFF:
            raise Violation(
                c.WIDE_HOST_ID_CHANGES_NOTHING, f"entry {index} says running on {host_id:#x}, not {owner.core:#x}"
            )
        if host_id == owner.core:
            self.door.hold(c.ENTRY_STORES_ARE_ATOMIC)
        elif host_id == owner.last_core & 0xFFF or host_id == 0:
            raise Violation(
                c.ENTRY_STORES_ARE_ATOMIC,
                f"entry {index} says running on core {host_id:#x}, but the vCPU is on {owner.core:#x}",
            )

    def _half_changes(self, page: Page, index: int, half: int) -> None:
        """A locked instruction changes one half of a physical entry; the whole is seen at once all the same."""
        other = page.words[index ^ 1]
        self._entry_store(page, index >> 1, half << 32 | other if index & 1 else other << 32 | half)

    def _entry_gone(self, frame: int, index: int) -> None:
        """An invalid entry loses what is sent to everybody, so nobody may run then, unless its vCPU goes."""
        owner = self.backing.get(frame)
        if owner is None or owner.leaving or self.vcpus.listed.get((owner.vm, owner.id)) is not owner:
            return
        order = self.vcpus.order
        walking = [cpu.id for cpu in order if cpu.vm == owner.vm and cpu.in_guest]
        if any(vmcb.is_avic for cpu in order if cpu.id in walking and (vmcb := cpu.vmcb) is not None):
            raise Violation(
                c.ENTRY_STORES_ARE_ATOMIC, f"entry {index} is invalid for a while, with vCPUs {walking} in the guest"
            )

    def or32(self, address: int, offset: int, bits: int) -> int:
        """Locked OR."""
        page = self._word(address, offset, 4)
        index = offset >> 2
        old = page.words[index]
        if page.address in self.physical:
            self._half_changes(page, index, old | bits)
        page.set(index, old | bits)
        if APIC_ISR <= offset < BITMAPS_END:
            self.door.hold(c.BITMAPS_CHANGE_ATOMICALLY)
        else:
            self.watch.changed = True
        return old

    def and32(self, address: int, offset: int, bits: int) -> int:
        """Locked AND."""
        page = self._word(address, offset, 4)
        index = offset >> 2
        old = page.words[index]
        if page.address in self.physical:
            self._half_changes(page, index, old & bits)
        page.set(index, old & bits)
        if APIC_ISR <= offset < BITMAPS_END:
            self.door.hold(c.BITMAPS_CHANGE_ATOMICALLY)
        else:
            self.watch.changed = True
        return old
