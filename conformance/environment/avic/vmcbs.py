"""VMCBs: control areas, permission maps, and what hardware keeps of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    ENOMEM,
    INT_CTL_AVIC,
    INT_CTL_X2AVIC,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.host import Host
    from conformance.environment.avic.locks import KernelLocks
    from conformance.environment.avic.memory import Watch
    from conformance.environment.avic.tables import Tables
    from conformance.environment.avic.vcpus import Cpu, Vcpus
    from conformance.environment.door import Environment

CACHED = (VMCB_APIC_BAR, VMCB_BACKING_PAGE, VMCB_LOGICAL_TABLE, VMCB_PHYSICAL_TABLE)
"""VMCB fields that hardware may keep while clean bit 11 is set."""


class Vmcb:
    """The control area of one VMCB, its permission map, and what hardware keeps of it."""

    __slots__ = ("cached", "clean", "cr8", "fields", "flush", "mode", "opened", "rebuilt")

    def __init__(self) -> None:
        self.fields: dict[int, int] = {}
        self.clean = 0
        self.cached: tuple[int, ...] | None = None
        self.flush = False
        """A TLB flush was requested since the last VMRUN."""
        self.mode = 0
        """int_ctl bits 31:30 at the last VMRUN."""
        self.rebuilt = False
        """Its content was lost since the last VMRUN."""
        self.cr8 = True
        """CR8 writes are intercepted."""
        self.opened: set[tuple[int, int]] = set()
        """(MSR, 0 read or 1 write) that pass through."""

    def get(self, offset: int) -> int:
        """A field; 0 until it is written."""
        return self.fields.get(offset, 0)

    @property
    def is_avic(self) -> bool:
        """int_ctl bit 31."""
        return self.fields.get(VMCB_INT_CTL, 0) >> INT_CTL_AVIC & 1 == 1

    @property
    def is_x2avic(self) -> bool:
        """int_ctl bit 30."""
        return self.fields.get(VMCB_INT_CTL, 0) >> INT_CTL_X2AVIC & 1 == 1


class Vmcbs(Simulator):
    """One VMCB for each vCPU, by the vCPU's handle: AVIC's fields, and of the others those that clauses speak of.

    Not modelled: the save area, nested VMCBs, and where a VMCB lies in memory.
    """

    CLAUSES = (c.ACQUISITIONS_BALANCE, c.VMCB_OF_RUNNING_VCPU_UNTOUCHED, c.OFF_MEANS_UNTOUCHED)

    def __init__(
        self, door: Environment, host: Host, locks: KernelLocks, vcpus: Vcpus, tables: Tables, watch: Watch
    ) -> None:
        super().__init__(door)
        self.host = host
        self.locks = locks
        self.vcpus = vcpus
        self.tables = tables
        self.watch = watch

    def of(self, vcpu: int) -> tuple[Cpu, Vmcb]:
        """A vCPU and its VMCB."""
        cpu = self.vcpus.cpu(vcpu)
        if cpu.vmcb is None:
            raise Violation(c.ACQUISITIONS_BALANCE, f"vCPU {vcpu:#x} has no VMCB")
        return cpu, cpu.vmcb

    def alloc_vmcb(self, vcpu: int) -> int:
        """A zeroed VMCB."""
        self.locks.may_sleep("alloc_vmcb")
        cpu = self.vcpus.cpu(vcpu)
        if self.door.refused("alloc_vmcb"):
            return -ENOMEM
        cpu.vmcb = Vmcb()
        return 0

    def free_vmcb(self, vcpu: int) -> None:
        """Give the VMCB back."""
        cpu, _ = self.of(vcpu)
        self.tables.forget(cpu)
        cpu.vmcb = None
        self.watch.changed = True

    def vmcb_read(self, vcpu: int, offset: int) -> int:
        """A field of the control area."""
        return self.of(vcpu)[1].get(offset)

    def vmcb_write(self, vcpu: int, offset: int, value: int) -> None:
        """Set a field; not while the vCPU is in guest mode, and no AVIC field with AVIC off."""
        cpu, vmcb = self.of(vcpu)
        self._out_of_guest(cpu, f"VMCB {offset:#x}")
        if vmcb.cached is not None:
            self.door.hold(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED)
        if not self.host.found.avic:
            bits = 1 << INT_CTL_AVIC | 1 << INT_CTL_X2AVIC
            if (offset in CACHED and value) or (offset == VMCB_INT_CTL and value & bits):
                raise Violation(c.OFF_MEANS_UNTOUCHED, f"VMCB {offset:#x} := {value:#x} with AVIC off")
        vmcb.fields[offset] = value
        self.watch.changed = True
        if offset == VMCB_PHYSICAL_TABLE and value & ADDRESS_BITS:
            self.tables.physical.add(value & ADDRESS_BITS)
        elif offset == VMCB_BACKING_PAGE and value & ADDRESS_BITS:
            self.tables.backing.setdefault(value & ADDRESS_BITS, cpu)

    @staticmethod
    def _out_of_guest(cpu: Cpu, what: str) -> None:
        if cpu.in_guest:
            raise Violation(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED, f"{what} of vCPU {cpu.id} written in guest mode")

    def mark_vmcb_dirty(self, vcpu: int, bits: int) -> None:
        """Clear clean bits."""
        self.of(vcpu)[1].clean &= ~bits

    def set_msr_intercept(self, vcpu: int, msr: int, read: int, write: int) -> None:
        """Intercept or pass through an MSR."""
        self._out_of_guest(self.vcpus.cpu(vcpu), f"intercept of MSR {msr:#x}")
        opened = self.of(vcpu)[1].opened
        for kind, intercept in enumerate((read, write)):
            if intercept:
                opened.discard((msr, kind))
            else:
                opened.add((msr, kind))

    def set_cr8_intercept(self, vcpu: int, on: int) -> None:
        """Intercept CR8 writes or not."""
        self._out_of_guest(self.vcpus.cpu(vcpu), "CR8 intercept")
        self.of(vcpu)[1].cr8 = bool(on)

    def tlb_flush(self, vcpu: int) -> None:
        """Request a flush before the next VMRUN."""
        self.of(vcpu)[1].flush = True
