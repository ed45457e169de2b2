"""Each simulator of AVIC's world alone: host, locks, memory, vCPUs, VMCBs, tables."""

from __future__ import annotations

import pytest

from conformance.environment.avic.host import Host
from conformance.environment.avic.memory import TAG
from conformance.environment.door import Environment, Frame
from conformance.model.avic import Config
from conformance.model.avic.operations import HwSetup
from conformance.specs.avic import PROFILES
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_IRR,
    EEXIST,
    ENOMEM,
    ENTRY_RUNNING,
    ENTRY_VALID,
    INT_CTL_AVIC,
    INT_CTL_INTR_MASKING,
    VMCB_APIC_BAR,
    VMCB_INT_CTL,
)
from tests.conformance.avic.bench import ON, UPSTREAM, Bench, breach, refuse


@pytest.fixture
def bench() -> Bench:
    """The simulators, untouched."""
    return Bench()


# -- the host


def test_host_finds_what_the_configuration_says() -> None:
    """The first setup is the configuration's, a later one replaces it."""
    host = Host(Environment(), Config(), UPSTREAM)

    assert host.found.avic
    assert host.load(HwSetup(npt=False)) is c.NEEDS_NESTED_PAGING
    assert not host.found.avic
    assert host.loaded == HwSetup(npt=False)


def test_host_holds_to_the_clauses_of_its_profile() -> None:
    """A clause without profiles holds for everybody."""
    posted = Host(Environment(), Config(), PROFILES["as-posted"])
    upstream = Host(Environment(), Config(), UPSTREAM)

    assert posted.applies(c.OPT_IN_BY_PARAMETER)
    assert not upstream.applies(c.OPT_IN_BY_PARAMETER)
    assert upstream.applies(c.NEEDS_CPUID_BIT)


# -- locks


def test_spinlock_is_atomic_context(bench: Bench) -> None:
    """Nothing sleeps until it is released."""
    bench.locks.lock("ir_list", 7)

    assert bench.door.atomic == 1
    with breach(c.NO_SLEEPING_WHILE_ATOMIC, "kzalloc with a spinlock held"):
        bench.memory.kzalloc(8)
    with breach(c.NO_SLEEPING_WHILE_ATOMIC, "lock slots with a spinlock held"):
        bench.locks.lock("slots", 0)

    bench.locks.unlock("ir_list", 7)
    assert bench.door.atomic == 0
    assert bench.memory.kzalloc(8) == 1


def test_lock_is_taken_and_released_once(bench: Bench) -> None:
    """Twice is a deadlock, or not held."""
    bench.locks.lock("inhibit", 0)

    with breach(c.ACQUISITIONS_BALANCE, "deadlock: inhibit of 0x0 is held already"):
        bench.locks.lock("inhibit", 0)
    bench.locks.unlock("inhibit", 0)
    with breach(c.ACQUISITIONS_BALANCE, "unlock of inhibit of 0x0, which is not held"):
        bench.locks.unlock("inhibit", 0)


def test_what_an_operation_took_it_returns(bench: Bench) -> None:
    """Locks of another operation do not matter to it."""
    bench.locks.lock("slots", 0)

    with breach(c.ACQUISITIONS_BALANCE, "returned with slots held"):
        bench.locks.returned()
    bench.door.frame = Frame()
    bench.locks.returned()


def test_kvm_lock_is_one_of_the_locks(bench: Bench) -> None:
    """Nothing that may need it happens in the middle of what is called with it."""
    bench.locks.take_kvm(0)
    assert bench.locks.owners

    bench.locks.drop_kvm(0)
    assert not bench.locks.owners


# -- memory


def test_page_has_undefined_content_until_it_is_cleared(bench: Bench) -> None:
    """What was there before shows."""
    address = bench.memory.alloc_page(1)
    page = bench.memory.find(address)

    assert (len(page.words), page.is_poisoned()) == (2048, True)
    bench.memory.clear_page(address)
    assert not page.is_poisoned()
    assert bench.watch.changed


def test_addresses_may_carry_a_tag() -> None:
    """A driver must not care."""
    bench = Bench(Config(tagged=True))
    address = bench.memory.alloc_page(0)

    assert address & ~ADDRESS_BITS == TAG & ~ADDRESS_BITS
    assert bench.memory.find(address).address == address & ADDRESS_BITS


def test_allocations_may_be_refused(bench: Bench) -> None:
    """0 comes back, and nothing was made."""
    refuse(bench.door, "alloc_page", -ENOMEM)
    assert bench.memory.alloc_page(0) == 0

    refuse(bench.door, "kzalloc", -ENOMEM)
    assert bench.memory.kzalloc(8) == 0
    assert (bench.memory.pages, bench.memory.handles) == ({}, set())


def test_memory_given_back_is_nobodys(bench: Bench) -> None:
    """Nor is memory that never was."""
    address, handle = bench.memory.alloc_page(0), bench.memory.kzalloc(8)
    bench.memory.free_page(address)
    bench.memory.kfree(handle)

    with breach(c.ACQUISITIONS_BALANCE, "use of the freed page"):
        bench.memory.clear_page(address)
    with breach(c.ACQUISITIONS_BALANCE, "is no page that was allocated"):
        bench.memory.free_page(0x1000)
    with breach(c.NO_IRQCHIP_NO_AVIC, "NULL page"):
        bench.memory.clear_page(0)
    with breach(c.TABLES_FREED_ONCE, "kfree.1.: not allocated"):
        bench.memory.kfree(handle)


def test_mappings_balance(bench: Bench) -> None:
    """One kunmap for each kmap."""
    address = bench.memory.alloc_page(0)

    assert bench.memory.kmap(address) == address
    bench.memory.kunmap(address)
    with breach(c.ACQUISITIONS_BALANCE, "not mapped"):
        bench.memory.kunmap(address)


# -- memslots


def test_memslot_has_pages_until_it_is_deleted(bench: Bench) -> None:
    """A slot is created once; frames outside it are nothing."""
    slots = bench.slots

    assert slots.set_memory_region(0, 9, APIC_BASE, 4096) == 0
    assert slots.set_memory_region(0, 9, APIC_BASE, 4096) == -EEXIST
    address = slots.gfn_to_page(0, APIC_BASE >> 12)
    assert bench.memory.find(address).references == 1
    assert slots.gfn_to_page(0, 1) == 0

    assert slots.set_memory_region(0, 9, 0, 0) == 0
    with breach(c.ACQUISITIONS_BALANCE, "use of the freed page"):
        slots.put_page(address)


def test_memslot_may_be_refused(bench: Bench) -> None:
    """The errno is the caller's, and there is no slot."""
    refuse(bench.door, "set_memory_region", -ENOMEM)

    assert bench.slots.set_memory_region(0, 9, APIC_BASE, 4096) == -ENOMEM
    assert bench.slots.slots == {}


def test_only_referenced_pages_stay(bench: Bench) -> None:
    """The content of the others moves to another frame."""
    slots = bench.slots
    slots.set_memory_region(0, 9, 0, 8192)
    held = slots.gfn_to_page(0, 0)
    moving = slots.guest_page(0, 1)
    assert moving is not None
    moving.set(3, 5)

    slots.move_unreferenced()

    moved = slots.guest_page(0, 1)
    assert moved is not None
    assert (moved.address != moving.address, moved.words[3]) == (True, 5)
    slots.put_page(held)
    with breach(c.ACQUISITIONS_BALANCE, "no reference is held"):
        slots.put_page(held)


def test_page_of_a_memslot_is_not_freed(bench: Bench) -> None:
    """It belongs to the slot."""
    bench.slots.set_memory_region(0, 9, 0, 4096)
    address = bench.slots.gfn_to_page(0, 0)

    with breach(c.ACQUISITIONS_BALANCE, "it belongs to a memslot"):
        bench.memory.free_page(address)


# -- vCPUs


def test_handles_are_not_used_again(bench: Bench) -> None:
    """A namesake has another one."""
    first = bench.vcpus.make(0, 1, ON)
    bench.vcpus.enlist(first)
    bench.vcpus.delist(first)
    second = bench.vcpus.make(0, 1, ON)

    assert first.handle != second.handle
    with breach(c.ENTRY_POINTS_RETURN, "there is no vCPU 5"):
        bench.vcpus.vcpu_mode(5)


def test_vcpus_are_listed_by_vm_and_id(bench: Bench) -> None:
    """In whatever order they were created."""
    for vm, apic_id in ((1, 0), (0, 7), (0, 2)):
        bench.vcpus.enlist(bench.vcpus.make(vm, apic_id, ON))

    assert [(cpu.vm, cpu.id) for cpu in bench.vcpus.order] == [(0, 2), (0, 7), (1, 0)]
    assert [cpu.id for cpu in bench.vcpus.of(0)] == [2, 7]


def test_wake_reaches_who_sleeps_or_is_about_to(bench: Bench) -> None:
    """Nobody else notices it."""
    cpu = bench.vcpu()
    bench.vcpus.wake(cpu.handle)
    assert not cpu.woken

    cpu.blocking = True
    bench.vcpus.wake(cpu.handle)
    assert cpu.woken


def test_kick_takes_a_vcpu_out_of_the_guest(bench: Bench) -> None:
    """Outside it is not noticed, unless the vCPU sleeps."""
    cpu = bench.vcpu()
    bench.vcpus.kick(cpu.handle)
    assert (cpu.kicked, cpu.woken) == (False, False)

    cpu.in_guest = True
    bench.vcpus.kick(cpu.handle)
    assert (cpu.kicked, bench.vcpus.vcpu_mode(cpu.handle)) == (True, 0)


@pytest.mark.parametrize("gone", ["freed", "being destroyed"])
def test_nobody_wakes_the_dead(bench: Bench, gone: str) -> None:
    """Neither a vCPU that was freed, nor from the log one whose VM goes."""
    cpu = bench.vcpu()
    bench.door.frame.actor = "GaLogNotify"
    bench.vcpus.vms[0].dying = True
    if gone == "freed":
        bench.vcpus.delist(cpu)

    with breach(c.DESTROY_LEAVES_GALOG_FIRST, gone):
        bench.vcpus.wake(cpu.handle)


def test_one_interrupt_is_injected_at_a_time(bench: Bench) -> None:
    """A second one would lose the first."""
    cpu = bench.vcpu()
    bench.vcpus.inject(cpu.handle, 0x41)

    with breach(c.INHIBIT_KICKS_AND_LOSES_NOTHING, "over 0x41"):
        bench.vcpus.inject(cpu.handle, 0x52)


def test_signals_pend_and_wake(bench: Bench) -> None:
    """By delivery mode: SMI 2, NMI 4, INIT 5, STARTUP 6."""
    cpu = bench.vcpu()
    cpu.asleep = True

    bench.vcpus.signal(cpu.handle, 4, 2)

    assert (cpu.events, cpu.woken, cpu.signalled) == (1 << 4, True, True)


# -- VMCBs


def test_vmcb_is_allocated_and_given_back(bench: Bench) -> None:
    """Zeroed at first; after it, nothing may be read."""
    cpu = bench.vcpus.make(0, 0, ON)

    refuse(bench.door, "alloc_vmcb", -ENOMEM)
    assert bench.vmcbs.alloc_vmcb(cpu.handle) == -ENOMEM
    bench.door.frame.plan = {}
    assert bench.vmcbs.alloc_vmcb(cpu.handle) == 0
    assert bench.vmcbs.vmcb_read(cpu.handle, VMCB_INT_CTL) == 0
    bench.vmcbs.free_vmcb(cpu.handle)
    with breach(c.ACQUISITIONS_BALANCE, "has no VMCB"):
        bench.vmcbs.vmcb_read(cpu.handle, VMCB_INT_CTL)


def test_vmcb_of_a_running_vcpu_is_left_alone(bench: Bench) -> None:
    """Fields and intercepts."""
    cpu = bench.vcpu()
    cpu.in_guest = True

    with breach(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED, "VMCB 0x98 of vCPU 0"):
        bench.vmcbs.vmcb_write(cpu.handle, VMCB_APIC_BAR, APIC_BASE)
    with breach(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED, "CR8 intercept"):
        bench.vmcbs.set_cr8_intercept(cpu.handle, 0)
    with breach(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED, "intercept of MSR 0x830"):
        bench.vmcbs.set_msr_intercept(cpu.handle, 0x830, 1, 1)


def test_fields_of_avic_stay_zero_while_it_is_off() -> None:
    """The other fields are the driver's."""
    bench = Bench(Config(avic=0))
    cpu = bench.vcpus.make(0, 0, ON)
    bench.vmcbs.alloc_vmcb(cpu.handle)

    bench.vmcbs.vmcb_write(cpu.handle, VMCB_INT_CTL, 1 << INT_CTL_INTR_MASKING)
    with breach(c.OFF_MEANS_UNTOUCHED, "with AVIC off"):
        bench.vmcbs.vmcb_write(cpu.handle, VMCB_INT_CTL, 1 << INT_CTL_AVIC)
    with breach(c.OFF_MEANS_UNTOUCHED, "with AVIC off"):
        bench.vmcbs.vmcb_write(cpu.handle, VMCB_APIC_BAR, APIC_BASE)


def test_vmcb_names_what_hardware_walks(bench: Bench) -> None:
    """Until it is given back."""
    cpu = bench.vcpu()
    page = bench.tables.backing_page(cpu)
    assert page is not None

    assert bench.tables.backing == {page.address: cpu}
    assert bench.tables.physical == {bench.physical}
    bench.vmcbs.free_vmcb(cpu.handle)
    assert bench.tables.backing == {}


def test_permission_map_starts_closed(bench: Bench) -> None:
    """Reads and writes are opened one by one."""
    cpu = bench.vcpu()
    assert cpu.vmcb is not None

    bench.vmcbs.set_msr_intercept(cpu.handle, 0x830, 1, 0)

    assert cpu.vmcb.opened == {(0x830, 1)}


# -- tables


def test_stores_reach_the_page(bench: Bench) -> None:
    """32 and 64 bits, and the locked ones with the old value."""
    tables, address = bench.tables, bench.page()

    tables.write64(address, 8, 0x1_0000_0002)
    tables.write32(address, 12, 7)
    assert tables.read64(address, 8) == 0x7_0000_0002
    assert tables.or32(address, 12, 8) == 7
    assert tables.and32(address, 12, 8) == 15
    assert tables.read32(address, 12) == 8


def test_accesses_are_aligned_and_inside_the_page(bench: Bench) -> None:
    """Anything else tears or corrupts."""
    address = bench.page()

    with breach(c.ENTRY_STORES_ARE_ATOMIC, "not aligned to 8 bytes"):
        bench.tables.write64(address, 4, 0)
    with breach(c.MAX_INDEX_IN_RANGE, "outside the page"):
        bench.tables.read32(address, 4096)


def test_live_bitmap_is_changed_by_locked_operations(bench: Bench) -> None:
    """Hardware sets bits in it at any time, but while the vCPU is reset."""
    cpu = bench.vcpu()
    page = bench.tables.backing_page(cpu)
    assert page is not None

    bench.tables.or32(page.address, APIC_IRR, 2)
    with breach(c.BITMAPS_CHANGE_ATOMICALLY, "plain store to the bitmap word"):
        bench.tables.write32(page.address, APIC_IRR, 0)
    bench.door.frame.actor = "VcpuReset"
    bench.tables.write32(page.address, APIC_IRR, 0)
    assert page.words[APIC_IRR >> 2] == 0


def test_physical_entry_is_one_store(bench: Bench) -> None:
    """A half of it is never seen."""
    bench.vcpu()

    with breach(c.ENTRY_STORES_ARE_ATOMIC, "32-bit store to half the physical entry 1"):
        bench.tables.write32(bench.physical, 8, 0)


def test_running_names_the_core(bench: Bench) -> None:
    """Not the core before, and none whose id does not fit."""
    cpu = bench.vcpu(core=0x21)
    page = bench.tables.backing_page(cpu)
    assert page is not None
    entry = page.address | 1 << ENTRY_VALID | 1 << ENTRY_RUNNING
    cpu.last_core = 0x20

    bench.tables.write64(bench.physical, 0, entry | 0x21)
    with breach(c.ENTRY_STORES_ARE_ATOMIC, "running on core 0x20, but the vCPU is on 0x21"):
        bench.tables.write64(bench.physical, 0, entry | 0x20)
    cpu.core = 0x1021
    with breach(c.WIDE_HOST_ID_CHANGES_NOTHING, "not 0x1021"):
        bench.tables.write64(bench.physical, 0, entry | 0x21)


def test_entry_stays_valid_while_a_vcpu_runs(bench: Bench) -> None:
    """A message to everybody would miss it, unless its vCPU goes."""
    cpu = bench.vcpu()
    bench.vcpu(1).in_guest = True

    with breach(c.ENTRY_STORES_ARE_ATOMIC, r"entry 0 is invalid for a while, with vCPUs \[1\] in the guest"):
        bench.tables.write64(bench.physical, 0, 0)
    cpu.leaving = True
    bench.tables.write64(bench.physical, 0, 0)
