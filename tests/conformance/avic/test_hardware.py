"""Each simulator of AVIC's world alone: the processor, the IOMMU, the vCPUs' threads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conformance.environment.avic.bitmaps import change, evaluate, has, highest
from conformance.environment.avic.vmcbs import Vmcb
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_ICR,
    APIC_IRR,
    APIC_ISR,
    APIC_TPR,
    CLEAN_AVIC,
    DOORBELL_MSR,
    INT_CTL_AVIC,
    INT_CTL_INTR_MASKING,
    IPI_INVALID_TARGET,
    IPI_NOT_RUNNING,
    NO_METADATA,
    VMCB_APIC_BAR,
    VMCB_INT_CTL,
    VMCB_NESTED_CTL,
    VMCB_PHYSICAL_TABLE,
    X2APIC_MSRS,
)
from conformance.specs.clause import Clause
from tests.conformance.avic.bench import ON, Bench, breach, refuse


@pytest.fixture
def bench() -> Bench:
    """The simulators, untouched."""
    return Bench()


# -- bitmaps


def test_highest_vector_is_delivered_if_its_class_is_higher(bench: Bench) -> None:
    """IRR to ISR, and no lower class after it."""
    page = bench.memory.allocate()
    page.clear()
    for vector in (0x41, 0x52):
        change(page, APIC_IRR, vector, on=True)

    assert evaluate(page, 5) == -1
    assert evaluate(page, 4) == 0x52
    assert evaluate(page, 0) == -1
    assert (highest(page, APIC_ISR), highest(page, APIC_IRR), has(page, APIC_IRR, 0x52)) == (0x52, 0x41, False)


# -- the processor


def test_vmrun_delivers_and_caches(bench: Bench) -> None:
    """What the clean bit says is clean is not read again."""
    cpu = bench.vcpu(core=0x20)
    page = bench.tables.backing_page(cpu)
    assert page is not None
    assert cpu.vmcb is not None
    change(page, APIC_IRR, 0x41, on=True)

    bench.processor.vmrun(cpu)

    assert (cpu.in_guest, highest(page, APIC_ISR), cpu.vmcb.clean >> CLEAN_AVIC & 1) == (True, 0x41, 1)
    assert bench.vcpus.vms[0].ran
    cpu.in_guest = False
    bench.vmcbs.vmcb_write(cpu.handle, VMCB_APIC_BAR, APIC_BASE)
    with breach(c.CLEAN_BIT_CLEARED_ON_CHANGE, "VMCB 0x98 of vCPU 0 changed"):
        bench.processor.vmrun(cpu)
    bench.vmcbs.mark_vmcb_dirty(cpu.handle, 1 << CLEAN_AVIC)
    bench.processor.vmrun(cpu)


@pytest.mark.parametrize(
    ("offset", "value", "clause"),
    [
        (VMCB_NESTED_CTL, 0, c.ACTIVE_CONTROLS_SET),
        (VMCB_INT_CTL, 3 << 30 | 1 << INT_CTL_INTR_MASKING, c.X2_BIT_ONLY_IN_X2APIC_MODE),
        (VMCB_INT_CTL, 1 << INT_CTL_AVIC | 1 << INT_CTL_INTR_MASKING | 5, c.V_TPR_FOLLOWS_TPR),
        (VMCB_PHYSICAL_TABLE, 0x1000 | 256, c.MAX_INDEX_IN_RANGE),
    ],
)
def test_vmrun_checks_the_controls(bench: Bench, offset: int, value: int, clause: Clause) -> None:
    """Each field by itself."""
    cpu = bench.vcpu(core=0x20)
    bench.vmcbs.vmcb_write(cpu.handle, offset, value)

    with breach(clause):
        bench.processor.vmrun(cpu)


def test_vmrun_checks_the_permission_map(bench: Bench) -> None:
    """MSRs are closed without x2AVIC."""
    cpu = bench.vcpu(core=0x20)
    bench.vmcbs.set_msr_intercept(cpu.handle, 0x830, 1, 0)

    with breach(c.X2APIC_MSRS_INTERCEPTED):
        bench.processor.vmrun(cpu)


def test_vmrun_checks_the_flush(bench: Bench) -> None:
    """Translations of before the activation are gone."""
    cpu = bench.vcpu(core=0x20)
    assert cpu.vmcb is not None
    cpu.vmcb.flush = False

    with breach(c.TLB_FLUSHED_ON_ACTIVATION, "without a flush"):
        bench.processor.vmrun(cpu)


def test_doorbell_reaches_the_core_that_it_names(bench: Bench) -> None:
    """And nobody else; the MSR has twelve bits."""
    cpu, other = bench.vcpu(core=0x20), bench.vcpu(1, core=0x21)
    for each in (cpu, other):
        bench.runs(each)
        page = bench.tables.backing_page(each)
        assert page is not None
        change(page, APIC_IRR, 0x41, on=True)

    bench.processor.wrmsr(DOORBELL_MSR, 0x21)

    taken = [highest(p, APIC_ISR) for each in (cpu, other) if (p := bench.tables.backing_page(each))]
    assert taken == [-1, 0x41]
    with breach(c.DOORBELL_NAMES_THE_CORE, "reserved bits"):
        bench.processor.wrmsr(DOORBELL_MSR, 0x1021)
    with breach(c.DOORBELL_NAMES_THE_CORE, "no such MSR"):
        bench.processor.wrmsr(0x830, 0)


def test_ipi_reaches_a_target_that_runs(bench: Bench) -> None:
    """Without an exit."""
    sender, target = bench.vcpu(core=0x20), bench.vcpu(1, core=0x21)
    bench.runs(sender)
    bench.runs(target)
    page, other = bench.tables.backing_page(sender), bench.tables.backing_page(target)
    assert page is not None
    assert other is not None

    ipi = bench.processor.send(sender, page, 0x4041, 1 << 24)

    assert (ipi.info, highest(other, APIC_ISR), page.words[APIC_ICR >> 2]) == (None, 0x41, 0x4041)


def test_ipi_exits_where_hardware_cannot_reach(bench: Bench) -> None:
    """A target that does not run has its IRR bit set; an invalid one has nothing."""
    sender, target = bench.vcpu(core=0x20), bench.vcpu(1)
    bench.runs(sender)
    page, other = bench.tables.backing_page(sender), bench.tables.backing_page(target)
    assert page is not None
    assert other is not None

    absent = bench.processor.send(sender, page, 0x4041, 1 << 24)
    invalid = bench.processor.send(sender, page, 0x4041, 7 << 24)

    assert absent.info is not None
    assert invalid.info is not None
    assert (absent.info[2], highest(other, APIC_IRR)) == (IPI_NOT_RUNNING << 32 | 1, 0x41)
    assert invalid.info[2] == IPI_INVALID_TARGET << 32 | 7


def test_guest_lowers_its_priority_without_an_exit(bench: Bench) -> None:
    """V_TPR follows TPR, and what was held back is taken."""
    cpu = bench.vcpu(core=0x20)
    page = bench.tables.backing_page(cpu)
    assert page is not None
    assert bench.processor.is_open(cpu, APIC_TPR)
    bench.processor.write_tpr(cpu, page, 0x50)
    change(page, APIC_IRR, 0x41, on=True)
    bench.processor.look(cpu)
    assert highest(page, APIC_ISR) == -1

    bench.processor.write_tpr(cpu, page, 0x30)

    assert (highest(page, APIC_ISR), bench.vmcbs.vmcb_read(cpu.handle, VMCB_INT_CTL) & 0xF) == (0x41, 3)


def test_x2apic_registers_are_open_one_by_one() -> None:
    """Bit 30 alone opens nothing."""
    vmcb = Vmcb()
    vmcb.fields[VMCB_INT_CTL] = 3 << 30
    bench = Bench()
    cpu = bench.vcpus.make(0, 0, ON | 1 << 10)
    cpu.vmcb = vmcb

    assert not bench.processor.is_open(cpu, APIC_ICR)
    vmcb.opened.add((X2APIC_MSRS + (APIC_ICR >> 4), 1))
    assert bench.processor.is_open(cpu, APIC_ICR)


# -- the IOMMU


def test_irte_is_posted_and_told(bench: Bench) -> None:
    """It starts with nobody running, and goes back to host mode."""
    iommu, cpu = bench.iommu, bench.vcpu(core=0x20)
    page = bench.tables.backing_page(cpu)
    assert page is not None

    assert iommu.set_vcpu_affinity(0, page.address, 0x51, 0x1000) == 0
    irte = iommu.irtes[0]
    assert (irte.posted, irte.vector, irte.cpu, irte.log) == (True, 0x51, -1, 0)
    assert iommu.iommu_update_ga(0, 0x20, 0) == 0
    assert irte.cpu == 0x20
    iommu.set_vcpu_affinity(0, 0, 0, 0)
    assert (irte.posted, irte.returned, iommu.logged) == (False, True, {0: 0x1000})


def test_irte_names_a_backing_page(bench: Bench) -> None:
    """And only a posted one is told where its vCPU runs."""
    with breach(c.IRTE_FOLLOWS_VCPU, "no backing page"):
        bench.iommu.set_vcpu_affinity(0, bench.page(), 0x51, 0)
    with breach(c.OLD_VCPU_FORGETS_IRTE, "which is not posted"):
        bench.iommu.iommu_update_ga(1, 0x20, 0)


def test_posting_may_give_no_metadata(bench: Bench) -> None:
    """Return to host mode is never refused."""
    page = bench.tables.backing_page(bench.vcpu())
    assert page is not None
    refuse(bench.door, "set_vcpu_affinity", NO_METADATA)

    assert bench.iommu.set_vcpu_affinity(0, page.address, 0x51, 0) == NO_METADATA
    assert bench.iommu.set_vcpu_affinity(0, 0, 0, 0) == 0


def test_notifier_is_given_back_once(bench: Bench) -> None:
    """There is none to give back after that."""
    bench.iommu.register_ga_notifier()
    bench.iommu.unregister_ga_notifier()

    with breach(c.DESTROY_LEAVES_GALOG_FIRST, "no notifier is registered"):
        bench.iommu.unregister_ga_notifier()


# -- threads


class Driver:
    """A candidate that notes what is asked of it."""

    def __init__(self, **does: Any) -> None:
        self.asked: list[str] = []
        self.does = does

    def __getattr__(self, name: str) -> Any:
        def entry(*args: int) -> Any:
            self.asked.append(name)
            return self.does.get(name, lambda *_args: 1)(*args)

        return entry


def test_woken_thread_sleeps_on_unless_there_is_something(bench: Bench) -> None:
    """It looks at the backing page itself."""
    cpu = bench.vcpu(core=0x20)
    bench.door.driver = driver = Driver()
    cpu.asleep = cpu.woken = True

    bench.threads.drain()
    assert (cpu.asleep, driver.asked) == (True, [])

    page = bench.tables.backing_page(cpu)
    assert page is not None
    change(page, APIC_IRR, 0x41, on=True)
    cpu.woken = True
    bench.threads.drain()
    assert (cpu.asleep, driver.asked) == (False, ["vcpu_unblocking"])


def test_kicked_thread_goes_back_into_the_guest(bench: Bench) -> None:
    """It serves what was requested on the way."""
    cpu = bench.vcpu(core=0x20)
    bench.door.driver = driver = Driver()
    bench.runs(cpu)
    bench.vcpus.request_refresh(cpu.handle)
    bench.vcpus.kick(cpu.handle)

    bench.threads.drain()

    assert (cpu.in_guest, cpu.kicked, driver.asked) == (True, False, ["refresh", "prepare_guest"])


def test_busy_thread_is_not_served(bench: Bench) -> None:
    """Nor is one of a VM that is closed."""
    cpu = bench.vcpu(core=0x20)
    bench.door.driver = driver = Driver()
    bench.vcpus.request_refresh(cpu.handle)

    cpu.busy = 1
    bench.threads.drain()
    cpu.busy = 0
    bench.vcpus.vms[0].closed = True
    bench.threads.drain()

    assert driver.asked == []


def test_what_moved_to_isr_is_injected(bench: Bench) -> None:
    """A vector that is only moved is lost."""
    cpu = bench.vcpu(core=0x20)
    page = bench.tables.backing_page(cpu)
    assert page is not None
    bench.door.driver = Driver(prepare_guest=lambda _vcpu: change(page, APIC_ISR, 0x41, on=True))

    with breach(c.INHIBIT_KICKS_AND_LOSES_NOTHING, "vector 0x41 moved to ISR of vCPU 0 but not injected"):
        bench.threads.reenter(cpu)


def test_exit_is_handled_outside_and_resumed(bench: Bench) -> None:
    """A handler that asks for user space is wrong."""
    cpu = bench.vcpu(core=0x20)
    bench.door.driver = driver = Driver(noaccel_exit=lambda *_args: 0)
    bench.runs(cpu)

    bench.threads.handle(cpu, (0x401, 0, 1 << 32))
    assert (cpu.in_guest, driver.asked) == (True, ["incomplete_ipi_exit", "prepare_guest"])
    with breach(c.UNKNOWN_OFFSETS_HARMLESS, "returned 0, not 1"):
        bench.threads.handle(cpu, (0x402, 0, 0))


def test_thread_gets_and_loses_a_core(bench: Bench) -> None:
    """A sleeper that was woken without one unblocks when it has one."""
    cpu = bench.vcpu(core=0x20)
    bench.door.driver = driver = Driver()
    cpu.unblocked = True

    bench.threads.arrive(cpu)
    bench.threads.leave_core(cpu)

    assert driver.asked == ["vcpu_load", "vcpu_unblocking", "vcpu_put"]
    assert (cpu.core, cpu.last_core) == (-1, 0x20)
    bench.door.driver = SimpleNamespace()
    bench.threads.leave_core(cpu)
