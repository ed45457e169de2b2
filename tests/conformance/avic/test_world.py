"""The world of AVIC tells drivers with a single mistake from a correct one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.defects.avic import upstream as u
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.avic.constants import CPUID_X2AVIC_EXT, EEXIST
from conformance.strategies.avic.domains import RUNNING, THREE, X2AVIC_HOST
from tests.conformance.avic.judging import cited, judged


def test_hardware_sets_no_bit_when_a_target_is_invalid() -> None:
    """A directed IPI with one invalid target exits before any IRR bit is set, so the driver alone delivers."""
    report = judged(u.InvalidTargetDropped, RUNNING, s.GuestIpi(0, 3 | 4, logical=True))

    assert cited(report) == "AVIC-069"


def test_clean_bit_is_honoured() -> None:
    """A pointer that changes with clean bit 11 set is caught at the next VMRUN."""

    class KeepsClean(u.GrowthMovesPages):
        def _avic_init_vmcb(self, v: Any) -> None:
            super()._avic_init_vmcb(v)

    report = judged(KeepsClean, Config(vcpus=(0,)), s.Enter(0), s.VcpuCreate(1), s.Enter(0))

    assert cited(report) == "AVIC-018"


def test_vmcb_of_a_running_vcpu_is_out_of_bounds() -> None:
    """Growth that moves the page of a vCPU in the guest writes its VMCB there (AP-13)."""
    report = judged(u.GrowthMovesPages, RUNNING, s.VcpuCreate(2))

    assert cited(report) == "AVIC-019"


def test_plain_store_to_a_live_bitmap_is_a_lost_update() -> None:
    """IRR changes by locked operations only (AVIC-055)."""

    class PlainStore(Upstream):
        def _set_vector(self, v: Any, base: int, vector: int) -> None:
            offset = base + (vector >> 5) * 16
            self.port.write32(v.regs, offset, self.port.read32(v.regs, offset) | 1 << (vector & 31))

    assert cited(judged(PlainStore, RUNNING, s.Deliver(1))) == "AVIC-055"


def test_half_an_entry_cannot_be_stored() -> None:
    """A physical entry is one 64-bit store (AVIC-032)."""

    class TwoHalves(Upstream):
        def _publish(self, v: Any) -> None:
            self.port.write32(v.kvm.phys_table, 8 * v.id, v.entry & 0xFFFFFFFF)
            self.port.write32(v.kvm.phys_table, 8 * v.id + 4, v.entry >> 32)

    assert cited(judged(TwoHalves, RUNNING)) == "AVIC-032"


def test_use_after_free_is_named() -> None:
    """Memory given back is nobody's (AVIC-065)."""

    class UsesFreed(Upstream):
        def vcpu_free(self, vcpu: int) -> None:
            regs = self.vcpus[vcpu].regs
            super().vcpu_free(vcpu)
            self.port.read32(regs, 0)

    assert cited(judged(UsesFreed, Config(vcpus=(0,)), s.VmDestroy())) == "AVIC-065"


def test_lock_held_at_return_is_named() -> None:
    """Locks are released on every path (AVIC-065)."""

    class Keeps(Upstream):
        def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
            self.port.lock("slots", 0)

    assert cited(judged(Keeps, Config(vcpus=(0,)), s.HwapicUpdate(0))) == "AVIC-065"


def test_crash_is_a_finding() -> None:
    """An exception of the driver cites the clause on robustness."""

    class Crashes(Upstream):
        def deliver(self, vcpu: int, vector: int, level: int) -> None:
            raise KeyError(vector)

    assert cited(judged(Crashes, RUNNING, s.Deliver(1))) == "AVIC-108"


def test_boot_that_fails_is_judged_before_the_first_step() -> None:
    """set_lapic that the guest never sees shows before anything else happens (AP-18)."""
    assert cited(judged(u.TwoCopies, RUNNING)) == "AVIC-053"


class LooksFirst(Upstream):
    """Looks at IRR before IsRunning is cleared."""

    def vcpu_blocking(self, vcpu: int) -> int:
        v = self.vcpus[vcpu]
        v.blocking = True
        found = self._has_interrupt(v)
        self._put(v, log=True)
        return int(found >= 0)


@pytest.mark.parametrize("point", [12, 16])
def test_irr_is_looked_at_after_running_is_cleared(point: int) -> None:
    """An IPI between the look at IRR and the clearing of IsRunning is lost, and the vCPU sleeps (AVIC-036)."""
    report = judged(LooksFirst, RUNNING, s.Exit(1), Step(s.Block(1), during=((point, Step(s.GuestIpi(0, 1))),)))

    assert cited(report) == "AVIC-036"


def test_of_two_at_once_the_one_that_blocks_is_blamed() -> None:
    """Not the IPI that it meets, whichever comes last in the order that explains most."""
    block, ipi = Step(s.Block(1)), Step(s.GuestIpi(0, 1))
    pairs = [Parallel(*pair, schedule=(n,)) for pair in ((block, ipi), (ipi, block)) for n in range(40)]
    found = {cited(judged(LooksFirst, RUNNING, s.Exit(1), pair)) for pair in pairs}

    assert found == {"", "AVIC-036"}


def test_irtes_that_are_wrong_after_two_at_once_are_the_irtes_fault() -> None:
    """Where the vCPU runs was read before the lock was taken (AVIC-094)."""

    class ReadsEarly(Linux):
        def activate_guest_mode(self, v: Any, irqfd: Any, cpu: int, log: bool) -> int:
            return super().activate_guest_mode(v, irqfd, self.early, log)

        def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
            self.early = 0x20
            return super().update_irte(irq, vcpu, vector)

    steps = (Parallel(Step(s.UpdateIrte(0, 0)), Step(s.Put(0)), schedule=(n,)) for n in range(20))
    found = {cited(judged(ReadsEarly, RUNNING, step)) for step in steps}

    assert found == {"", "AVIC-094"}


@pytest.mark.parametrize(
    ("result", "said"), [(-38, "-ENOSYS"), (0, "0x0 (no AVIC)"), (0xFE0003, "0xfe0003 (AVIC, x2AVIC, highest id 254)")]
)
def test_what_hw_setup_says_is_told_in_words(result: int, said: str) -> None:
    """Also where a first draft says that it has none."""
    odd = type("Odd", (Upstream,), {"hw_setup": lambda self, *args: result})
    report = judged(odd, Config())

    assert report.failure is not None
    expected = "0xfe0005 (AVIC, IPI virtualization, highest id 254)"
    assert report.failure.detail == f"hw_setup returned {said}, expected {expected}"


def test_ids_that_nobody_has_are_no_duplicates() -> None:
    """A driver that never gives an id back is blamed for what it says (AVIC-061)."""

    class Hoards(Upstream):
        def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
            ids = self.__dict__.setdefault("ids", set())
            if apic_id in ids:
                return -EEXIST
            ids.add(apic_id)
            return super().vcpu_create(vm, vcpu, apic_id)

    assert cited(judged(Hoards, RUNNING, s.Put(1), s.VcpuFree(1), s.VcpuCreate(1))) == "AVIC-061"
    full = (Step(s.VcpuCreate(2), faults=(Fault("set_memory_region", -EEXIST),)), s.VcpuCreate(3))
    assert cited(judged(Upstream, RUNNING, *full)) == ""


def test_tables_that_are_too_small_are_no_exits_fault() -> None:
    """An access beyond a table is EXITINFO2's fault where that has the index, and the table's elsewhere (AVIC-015)."""

    class Small(Linux):
        def table_order(self, kvm: Any) -> int:
            return 0

    config = Config(edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT)
    steps = (s.VmCreate(0, max_vcpu_ids=1024), s.VcpuCreate(600))

    assert cited(judged(Small, config, *steps)) == "AVIC-015"


def test_self_ipi_with_reserved_bits_faults() -> None:
    """A driver that sends it all the same is wrong (AVIC-114)."""

    class Sends(Upstream):
        def _x2_write(self, v: Any, offset: int, value: int) -> int:
            return super()._x2_write(v, offset, value & 0xFF if offset == 0x3F0 else value)

    config = Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True)

    assert cited(judged(Sends, config, s.GuestSelfIpi(0, 0x141))) == "AVIC-114"


def test_logged_interrupt_wakes() -> None:
    """A notifier that wakes nobody leaves the vCPU asleep (AVIC-092)."""

    class Sleepy(Upstream):
        def ga_log_notify(self, tag: int) -> int:
            return 0

    assert cited(judged(Sleepy, RUNNING, s.UpdateIrte(0, 0), s.Exit(0), s.Block(0), s.IommuPost(0))) == "AVIC-092"


# -- single mistakes, each in the operation that shows it


class _InvalidForAWhile(Upstream):
    def _publish(self, v: Any) -> None:
        self.port.write64(v.kvm.phys_table, 8 * v.id, 0)
        super()._publish(v)


class _TellsIrtesLate(Upstream):
    def _put(self, v: Any, log: bool) -> None:
        irqs, v.irqs = v.irqs, {}
        super()._put(v, log)
        v.irqs = irqs
        for irq in irqs:
            self.port.iommu_update_ga(irq, -1, int(log))


class _EmulatesOnceMore(Upstream):
    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        self.port.emulate_instruction(vcpu)
        return super().incomplete_ipi_exit(vcpu, info1, info2)


class _KeepsSilent(Upstream):
    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        return 1 if info2 >> 32 == 3 else super().incomplete_ipi_exit(vcpu, info1, info2)


class _InterceptsRunning(Upstream):
    def inhibit(self, vm: int, reason: int, on: int) -> None:
        for v in self.vms[vm].vcpus.values():
            self.port.set_cr8_intercept(v.handle, 1)
        super().inhibit(vm, reason, on)


class _TakesAnyTag(Upstream):
    def _vm_init(self, kvm: Any) -> int:
        taken, self.hash = self.hash, {}
        error = super()._vm_init(kvm)
        self.hash = taken | self.hash
        return error


class _ForgetsTheLogicalEntry(Upstream):
    def vcpu_free(self, vcpu: int) -> None:
        self.vcpus[vcpu].ldr = 0
        super().vcpu_free(vcpu)


class _InhibitsEveryVm(Upstream):
    def inhibit(self, vm: int, reason: int, on: int) -> None:
        for n in self.vms:
            super().inhibit(n, reason, on)


@pytest.mark.parametrize(
    ("candidate", "config", "ops", "clause"),
    [
        (_InvalidForAWhile, RUNNING, (s.Put(1), s.Load(1, 0x30)), "AVIC-032"),
        (_TellsIrtesLate, RUNNING, (s.UpdateIrte(0, 1), s.Put(1)), "AVIC-094"),
        (_EmulatesOnceMore, RUNNING, (s.Put(1), s.GuestIpi(0, 1)), "AVIC-068"),
        (_KeepsSilent, RUNNING, (s.RawIpiExit(0, 0x41, 3 << 32),), "AVIC-073"),
        (_InterceptsRunning, RUNNING, (s.Inhibit(3),), "AVIC-019"),
        (_TakesAnyTag, Config(), (s.VmCreate(0), s.TagsPass(0), s.VmCreate(1)), "AVIC-063"),
        (_ForgetsTheLogicalEntry, THREE, (s.Put(1), s.VcpuFree(1)), "AVIC-038"),
        (
            _InhibitsEveryVm,
            Config(vcpus=(0,)),
            (s.VmCreate(1), s.VcpuCreate(0, 1), s.Inhibit(3), s.Enter(0, vm=1)),
            "AVIC-085",
        ),
    ],
)
def test_a_single_mistake_is_named(
    candidate: Callable[[Any], Any], config: Config, ops: tuple[Any, ...], clause: str
) -> None:
    """Each of these drivers differs from the correct one in one place."""
    assert cited(judged(candidate, config, *ops)) == clause


@pytest.mark.parametrize("name", ["hw_setup", "vcpu_load", "tags_pass", "apic_access", "refresh", "vcpu_put"])
def test_looking_for_what_not_everybody_has_is_contained(name: str) -> None:
    """The candidate's own code may run then, and what it raises is a finding."""

    def breaks(_self: Any) -> Any:
        raise ValueError("not so")

    candidate = type("Breaks", (Upstream,), {name: property(breaks)})
    ops = (s.VmCreate(), s.VcpuCreate(0), s.TagsPass(7), s.Inhibit(3), s.Enter(0, tpr=0x20))

    report = judged(candidate, Config(edx=0x42001), *ops, s.Load(0, 0x20), s.Put(0))

    assert cited(report) == "AVIC-108"
    assert report.failure is not None
    assert "not so" in report.failure.detail
