"""Simulators of AVIC's world without the world, and what tests of them share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from conformance.environment.avic.host import Host
from conformance.environment.avic.iommu import Iommu
from conformance.environment.avic.locks import KernelLocks
from conformance.environment.avic.memory import Memory, Watch
from conformance.environment.avic.processor import Processor
from conformance.environment.avic.slots import Slots
from conformance.environment.avic.tables import Tables
from conformance.environment.avic.threads import Threads
from conformance.environment.avic.vcpus import Cpu, Guest, Vcpus
from conformance.environment.avic.vmcbs import Vmcbs
from conformance.environment.door import Environment
from conformance.model.avic import Config
from conformance.specs.avic import PROFILES
from conformance.specs.avic.constants import (
    APIC_BASE,
    ENTRY_RUNNING,
    ENTRY_VALID,
    INT_CTL_AVIC,
    INT_CTL_INTR_MASKING,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_NESTED_CTL,
    VMCB_PHYSICAL_TABLE,
)
from conformance.specs.clause import Clause
from conformance.verdict import Violation

ON = APIC_BASE | 1 << 11
UPSTREAM = PROFILES["upstream"]


class Bench:
    """Simulators wired by hand, as far as a test wants them, with no candidate and a door to nowhere."""

    def __init__(self, config: Config = Config()) -> None:  # noqa: B008  # frozen
        self.door = Environment()
        self.watch = Watch()
        self.host = Host(self.door, config, UPSTREAM)
        self.locks = KernelLocks(self.door)
        self.memory = Memory(self.door, self.locks, self.watch, config.tagged)
        self.slots = Slots(self.door, self.locks, self.memory, self.watch)
        self.vcpus = Vcpus(self.door)
        self.tables = Tables(self.door, self.memory, self.vcpus, self.watch)
        self.vmcbs = Vmcbs(self.door, self.host, self.locks, self.vcpus, self.tables, self.watch)
        self.processor = Processor(self.door, config, self.host, self.vcpus, self.tables, self.watch)
        self.iommu = Iommu(self.door, self.tables)
        self.threads = Threads(self.door, self.vcpus, self.tables, self.processor)

    def vcpu(self, apic_id: int = 0, core: int = -1) -> Cpu:
        """A vCPU of VM 0 with a VMCB, a register page and tables, valid in the physical table, AVIC active."""
        if 0 not in self.vcpus.vms:
            self.vcpus.vms[0] = Guest(irqchip=True)
            self.physical = self.page()
        cpu = self.vcpus.make(0, apic_id, ON)
        self.vcpus.enlist(cpu)
        self.vmcbs.alloc_vmcb(cpu.handle)
        regs = self.page()
        for offset, value in (
            (VMCB_BACKING_PAGE, regs),
            (VMCB_PHYSICAL_TABLE, self.physical | 254),
            (VMCB_INT_CTL, 1 << INT_CTL_AVIC | 1 << INT_CTL_INTR_MASKING),
            (VMCB_NESTED_CTL, 1),
        ):
            self.vmcbs.vmcb_write(cpu.handle, offset, value)
        self.vmcbs.tlb_flush(cpu.handle)
        self.tables.write64(self.physical, 8 * apic_id, regs | 1 << ENTRY_VALID)
        cpu.core = core
        return cpu

    def page(self) -> int:
        """A page of zeros."""
        address = self.memory.alloc_page(0)
        self.memory.clear_page(address)
        return address

    def runs(self, cpu: Cpu) -> None:
        """The vCPU's entry says so, and it is in the guest."""
        page = self.tables.backing_page(cpu)
        assert page is not None
        entry = page.address | 1 << ENTRY_VALID | 1 << ENTRY_RUNNING | cpu.core
        self.tables.write64(self.physical, 8 * cpu.id, entry)
        self.processor.vmrun(cpu)


def refuse(door: Environment, call: str, value: int) -> None:
    """Plan a refusal; calls that do not pass the door are all number 0."""
    door.frame.plan = {(call, 0): value}


@contextmanager
def breach(clause: Clause, said: str | None = None) -> Iterator[None]:
    """What happens inside breaks this clause."""
    with pytest.raises(Violation, match=said) as caught:
        yield
    assert caught.value.clause is clause
