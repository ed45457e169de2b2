"""Right code is not accused where a specification leaves the means open, and the wrong code next to it still is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.linux.structs import Kvm
from conformance.candidates.builtin.avic.linux.structs import Vcpu as LinuxVcpu
from conformance.candidates.builtin.avic.upstream import Kvm as UpstreamKvm
from conformance.candidates.builtin.avic.upstream import Upstream, Vcpu
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.avic.routing import DISABLED, X2APIC, Apic, Message
from conformance.model.step import Fault, Step
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_TPR,
    BROADCAST,
    CPUID_X2AVIC_EXT,
    DOORBELL_MSR,
    ENOMEM,
    ENTRY_RUNNING,
    ICR_BUSY,
    INHIBIT_PHYSICAL_ID_TOO_BIG,
    IPI_INVALID_TARGET,
    TLB_FLUSH_ASID,
    VMCB_ASID,
    VMCB_TLB_CONTROL,
    X2_BROADCAST,
)
from conformance.strategies.avic.domains import ON, X2_ON, X2AVIC_HOST
from tests.conformance.avic.judging import cited, judged
from tests.conformance.peers.linux_avic import AtomicIsr, EoiByVector, KvmRouting, OneAsidPerVm, WideAddresses

CREATED = Config(vcpus=(0, 1), edx=X2AVIC_HOST)
ONE = Config(vcpus=(0,), running=True, enabled=True)
TWO = Config(vcpus=(0, 1), running=True, enabled=True)
STICKY = Config(vcpus=(0, 1, 2), running=True, enabled=True, busy_sticky=True)
CLEARED = Config(vcpus=(0, 1), running=True, enabled=True, eoi_cleared=True)
X2_17 = Config(vcpus=(0, 1, 17), running=True, x2apic=True, edx=X2AVIC_HOST)
X2_300 = Config(vcpus=(0, 1, 300), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT)
FLAT_PAIR = (Apic(0, ldr=1 << 24), Apic(1, ldr=2 << 24))
MIXED = (Apic(0, ldr=1 << 24), Apic(1, DISABLED), Apic(2, ldr=3 << 24), Apic(3, spiv=0xFF, ldr=1 << 24))
MOVED = (s.Exit(0), s.Exit(1), s.Put(1), s.Put(0), s.Load(0, 33), s.Load(1, 32), s.VmRun(1), s.VmRun(0))
"""Two vCPUs that change cores."""


# -- drivers that are right in another way


class KeepsStaleEntries(Upstream):
    """Touches the logical table only while AVIC is active for the vCPU; when it is again, at its next entry."""

    def _handle_ldr_update(self, v: Vcpu) -> None:
        if v.apicv_active:
            super()._handle_ldr_update(v)

    def _handle_dfr_update(self, v: Vcpu) -> None:
        if v.apicv_active:
            super()._handle_dfr_update(v)

    def _post_state_restore(self, v: Vcpu) -> None:
        if v.apicv_active:
            super()._post_state_restore(v)


class NeverForgetsBigIds(Upstream):
    """The inhibit of an id that was too big stays, whatever becomes of its vCPU."""

    def _set_inhibit(self, kvm: UpstreamKvm, reason: int, on: bool) -> None:
        if on or reason != INHIBIT_PHYSICAL_ID_TOO_BIG:
            super()._set_inhibit(kvm, reason, on)


class LatelyAliased(Linux):
    """As kvm_arch_vcpu_create has it: the first RESET comes before the vCPU is listed, so the map does not hold it."""

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        v = self.vcpus[vcpu]
        listed = v.kvm.vcpus
        known = self.__dict__.setdefault("known", set())
        if vcpu in known:
            super().vcpu_reset(vcpu, init)
            return
        known.add(vcpu)
        v.kvm.vcpus = [other for other in listed if other is not v]
        super().vcpu_reset(vcpu, init)
        v.kvm.vcpus = listed


class AsksTheSender(Upstream):
    """An IPI to everybody is one in the sender's mode, as in bhyve and in AVIC's own walk of the tables."""

    def route(self, apics: tuple[Any, ...], message: tuple[int, ...]) -> int:
        to_all = X2_BROADCAST if apics[message[0]][1] == 2 else BROADCAST
        if message[0] >= 0 and not message[3] and message[1] == to_all:
            message = (*message[:3], 2, *message[4:])
        return int(super().route(apics, message))


class TablesWithTheFirst(Linux):
    """Tables are made by the first vCPU's creation, and kept until the VM goes, whatever becomes of that vCPU."""

    def vm_precreate(self, vm: int) -> int:
        return 0

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        return super().vm_precreate(vm) or super().vcpu_create(vm, vcpu, apic_id)


class StoresWithoutIpis(Linux):
    """Where IPIs are not virtualized no entry says that a vCPU runs; it is written at each put, and at no load."""

    loading = False

    def avic_vcpu_load(self, v: LinuxVcpu, cpu: int, toggle: bool = False) -> None:
        self.loading = True
        super().avic_vcpu_load(v, cpu, toggle)
        self.loading = False

    def write_entry(self, v: LinuxVcpu, entry: int) -> None:
        if not self.loading:
            super().write_entry(v, entry)

    def avic_vcpu_put(self, v: LinuxVcpu, blocking: bool = False, toggle: bool = False) -> None:
        super().avic_vcpu_put(v, blocking, toggle)
        self.port.write64(v.kvm.physical_table, 8 * v.id, v.entry & ~(3 << 61))


ONE_X2 = (Apic(0, ldr=1 << 24), Apic(1, X2APIC, ldr=2))
"""An xAPIC and an x2APIC."""
MIXES = (s.Exit(1), s.SetApicBase(1, X2_ON, host=True), s.VmRun(1))
"""vCPU 1 becomes an x2APIC beside an xAPIC."""
NO_VMCB = Step(s.VcpuCreate(1), faults=(Fault("alloc_vmcb", -ENOMEM),))
NOT_ACCUSED: list[tuple[str, Callable[[Any], Any], Config, tuple[Any, ...]]] = [
    ("CR8 is not intercepted while nothing is held back", Linux, TWO, (s.Inhibit(3),)),
    (
        "an ICR that is busy is looked up in the page",
        Linux,
        TWO,
        (s.GuestIpi(1), s.RawIpiExit(1, 2**64 - 1, IPI_INVALID_TARGET << 32)),
    ),
    (
        "nothing is told of a core whose id does not fit, nor when it is left",
        Linux,
        TWO,
        (s.Exit(0), s.Block(0), s.Put(0), s.UpdateIrte(), s.Deliver(), s.Load(0, 0x1000), s.Put(0)),
    ),
    ("CR8, by an alias", Linux, TWO, (s.GuestWrite(0, APIC_LDR, 2 << 24),)),
    ("CR8, in x2APIC mode without x2AVIC", Linux, TWO, (s.SetApicBase(0, X2_ON),)),
    ("ISR belongs to the vCPU's thread", Linux, TWO, (s.Deliver(0, 65, level=True), s.GuestEoi(0))),
    ("ISR changed with locked instructions", AtomicIsr, TWO, (s.Deliver(0, 65, level=True), s.GuestEoi(0))),
    ("busy is seen in EXITINFO1", Linux, STICKY, (s.GuestIpi(level=True),)),
    ("busy is seen in EXITINFO1, of a missing target", Linux, STICKY, (s.GuestIpi(dest=3),)),
    ("busy is seen in the page", Upstream, STICKY, (s.GuestIpi(level=True), s.GuestIpi(dest=3))),
    ("EOI by vector", EoiByVector, CLEARED, (s.Deliver(0, 65, level=True), s.GuestEoi(0))),
    ("the access page goes when its vCPU enters", Linux, TWO, (s.Put(0), s.SetApicBase(0, X2_ON, host=True))),
    (
        "and stays gone",
        Linux,
        ONE,
        (s.Put(0), s.SetApicBase(0, X2_ON, host=True), s.Load(0, 0x20), s.VmRun(0), s.GuestIpi(0, 0)),
    ),
    ("a hint in SMI mode", Linux, Config(), (s.Route(FLAT_PAIR, Message(255, mode=2, hint=True, wide=True)),)),
    (
        "a hint in SMI mode, logical",
        Linux,
        Config(),
        (s.Route(FLAT_PAIR, Message(3, logical=True, mode=2, vector=254, hint=True)),),
    ),
    (
        "a hint in STARTUP mode",
        Linux,
        Config(),
        (s.Route(MIXED, Message(1, logical=True, mode=6, vector=82, hint=True)),),
    ),
    ("an xAPIC with the ID of an x2APIC is an alias", Linux, X2_17, (s.VcpuCreate(256),)),
    ("or it is none", Upstream, X2_17, (s.VcpuCreate(256),)),
    ("an alias found while inhibited", Linux, X2_300, (s.Inhibit(3), s.VcpuCreate(256), s.Inhibit(3, on=False))),
    (
        "an alias by a change of mode",
        Linux,
        Config(vcpus=(0, 255, 256), edx=X2AVIC_HOST),
        (s.Load(0, 32), s.SetApicBase(0, X2_ON, host=True)),
    ),
    ("a new alias is found with the next change", LatelyAliased, X2_17, (s.VcpuCreate(256), s.GuestWrite(1, 0xF0, 0))),
    (
        "the entry of a disabled APIC",
        Linux,
        TWO,
        (s.Exit(1), s.Put(1), s.SetApicBase(1, APIC_BASE, host=True), s.GuestIpi(0, 2, logical=True)),
    ),
    ("an address of 52 bits", WideAddresses, TWO, (s.SetApicBase(0, 1 << 50 | ON),)),
    ("an address of 48 bits", Linux, TWO, (s.SetApicBase(0, 1 << 50 | ON),)),
    ("ASIDs of each core", Linux, TWO, MOVED),
    ("one ASID, flushed", OneAsidPerVm, TWO, MOVED),
    ("a sleeper's own core is warned of", Linux, TWO, (s.Put(1), s.Load(1, 0x1000), s.Block(1), s.GuestIpi())),
    ("a creation given up leaves its inhibit", Linux, TWO, (s.VcpuCreate(255, abandoned=True), s.GuestIpi())),
    ("a freed vCPU leaves its inhibit", NeverForgetsBigIds, TWO, (s.VcpuCreate(255), s.VcpuFree(255), s.GuestIpi())),
    (
        "an x2APIC's IPI to 0xFF is for one",
        Linux,
        TWO,
        (s.Exit(0), s.SetApicBase(0, X2_ON, host=True), s.VmRun(0), s.GuestIpi(0, 0xFF)),
    ),
    (
        "DFR is what it was before x2APIC mode",
        Linux,
        TWO,
        (
            s.GuestWrite(0, APIC_DFR, 0x11000000),
            s.Exit(0),
            s.SetApicBase(0, X2_ON, host=True),
            s.SetApicBase(0, ON, host=True),
        ),
    ),
    (
        "an entry of eight bits for a wide id",
        Linux,
        Config(vcpus=(0,), running=True, edx=X2AVIC_HOST),
        (
            s.VcpuCreate(300),
            s.Load(300, 33),
            s.VmRun(300),
            s.GuestWrite(300, APIC_LDR, 1 << 24),
            s.GuestIpi(0, 1, logical=True),
        ),
    ),
    (
        "or for all xAPICs",
        Upstream,
        TWO,
        (s.Exit(0), s.SetApicBase(0, X2_ON, host=True), s.VmRun(0), s.GuestIpi(0, 0xFF)),
    ),
    ("an xAPIC's IPI to 0xFF reaches x2APICs", AsksTheSender, TWO, (s.Inhibit(3), *MIXES, s.GuestIpi(0, 0xFF))),
    ("or xAPICs alone", Linux, TWO, (s.Inhibit(3), *MIXES, s.GuestIpi(0, 0xFF))),
    ("so does an NMI", AsksTheSender, TWO, (*MIXES, s.GuestIpi(0, 0xFF, mode=4))),
    ("an x2APIC's IPI to all reaches xAPICs", AsksTheSender, TWO, (*MIXES, s.GuestIpi(1, X2_BROADCAST, mode=4))),
    ("or x2APICs alone", Linux, TWO, (*MIXES, s.GuestIpi(1, X2_BROADCAST, mode=4))),
    *[
        ("an IPI to all in the sender's mode", AsksTheSender, Config(), (s.Route(ONE_X2, Message(dest, n, logical)),))
        for n, dest in enumerate((BROADCAST, X2_BROADCAST))
        for logical in (False, True)
    ],
    (
        "no order where no entry says running",
        StoresWithoutIpis,
        Config(vcpus=(0, 1), running=True, family=0x17),
        (s.UpdateIrte(0, 1), s.Put(1), s.Inhibit(3), s.Load(1, 33)),
    ),
    ("tables outlive a first vCPU", TablesWithTheFirst, Config(), (s.VmCreate(), s.VcpuCreate(0, abandoned=True))),
    (
        "and a creation that was refused",
        TablesWithTheFirst,
        Config(),
        (s.VmCreate(), NO_VMCB, s.VcpuCreate(0), NO_VMCB, s.VmDestroy()),
    ),
    (
        "an entry that changed with the lift",
        KeepsStaleEntries,
        TWO,
        (s.GuestWrite(1, APIC_ID, 0), s.Put(1), s.SetLapic(1), s.GuestIpi(0, 2, logical=True)),
    ),
    (
        "an entry that changed before the lift",
        KeepsStaleEntries,
        TWO,
        (s.Inhibit(3), s.Put(1), s.SetLapic(1), s.Inhibit(3, on=False), s.GuestIpi(0, 2, logical=True)),
    ),
]


@pytest.mark.parametrize(
    ("candidate", "config", "ops"), [row[1:] for row in NOT_ACCUSED], ids=[r[0] for r in NOT_ACCUSED]
)
def test_right_code_is_not_accused(candidate: Callable[[Any], Any], config: Config, ops: tuple[Any, ...]) -> None:
    """Each is right by the manuals, though built in another way than the shipped driver."""
    report = judged(candidate, config, *ops)

    assert report.failure is None
    assert report.tally.steps == len(ops)


# -- and what is wrong next to it


class NeverHearsOfCr8(Linux):
    """Leaves CR8 writes alone while AVIC is inactive, also when TPR holds something back."""

    def update_cr8_intercept(self, v: LinuxVcpu) -> None:
        self.port.set_cr8_intercept(v.handle, 0)


class PlainIrr(Linux):
    """Sets IRR bits with a load and a store."""

    def set_vector(self, v: LinuxVcpu, bank: int, vector: int) -> None:
        at = bank + (vector >> 5) * 16
        self.port.write32(v.regs, at, self.port.read32(v.regs, at) | 1 << (vector & 31))


class TouchesOthersIsr(Linux):
    """Stores to the ISR of whom an interrupt is sent to."""

    def deliver_interrupt(self, v: LinuxVcpu, vector: int) -> None:
        self.port.write32(v.regs, APIC_ISR + (vector >> 5) * 16, 0)
        super().deliver_interrupt(v, vector)


class BusyStays(Linux):
    """Sends what hardware gave up, and leaves the busy bit."""

    def incomplete_ipi_interception(self, v: LinuxVcpu, info1: int, info2: int) -> int:
        return super().incomplete_ipi_interception(v, info1 & ~(1 << ICR_BUSY), info2)


class NoBroadcast(Linux):
    """Ends level-triggered interrupts without telling the IOAPICs."""

    def send_ioapic_eoi(self, v: LinuxVcpu, vector: int) -> None:
        pass


class EndsTwice(EoiByVector):
    """Tells them twice."""

    def send_ioapic_eoi(self, v: LinuxVcpu, vector: int) -> None:
        super().send_ioapic_eoi(v, vector)
        super().send_ioapic_eoi(v, vector)


class KeepsAccessPage(Linux):
    """The access page stays when a vCPU uses x2APIC mode."""

    def inhibit_apic_access_page(self, kvm: Kvm) -> None:
        pass


class HintReachesTwo(Linux):
    """A redirected message in another mode than fixed reaches two of three."""

    def route(self, apics: tuple[Any, ...], message: tuple[int, ...]) -> int:
        return 0b011 if message[8] and message[4] > 1 else super().route(apics, message)


class LosesBroadcasts(Upstream):
    """Nobody is named by 0xFF or 0xFFFFFFFF."""

    def route(self, apics: tuple[Any, ...], message: tuple[int, ...]) -> int:
        return 0 if message[1] in (BROADCAST, X2_BROADCAST) else int(super().route(apics, message))


class LeaksTables(TablesWithTheFirst):
    """Makes further tables with each creation."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        for _ in range(2):
            self.port.alloc_page(0)
        return super().vcpu_create(vm, vcpu, apic_id)


class MasksWideCores(Linux):
    """Rings at another core where the id has more than 12 bits."""

    def ring_doorbell(self, v: LinuxVcpu) -> None:
        self.port.wrmsr(DOORBELL_MSR, self.port.vcpu_cpu(v.handle) & 0xFFF)


class LogsWhenPreempted(Linux):
    """A vCPU that loses its core has interrupts logged, though it is not blocking."""

    def avic_vcpu_put(self, v: LinuxVcpu, blocking: bool = False, toggle: bool = False) -> None:
        super().avic_vcpu_put(v, True, toggle)


class FreesPageFirst(Linux):
    """Frees the backing page of a vCPU to which devices still post."""

    def avic_free_vcpu(self, v: LinuxVcpu) -> None:
        self.port.free_page(v.regs)
        super().avic_free_vcpu(v)


class RunsByHalves(Linux):
    """Sets IsRunning with a locked OR before the host id is stored."""

    def write_entry(self, v: LinuxVcpu, entry: int) -> None:
        if entry >> ENTRY_RUNNING & 1:
            self.port.or32(v.kvm.physical_table, 8 * v.id + 4, 1 << 30)
        super().write_entry(v, entry)


class TakesAll(Upstream):
    """An MSI to 0xFF is one to x2APICs as well."""

    def route(self, apics: tuple[Any, ...], message: tuple[int, ...]) -> int:
        return 0b11 if message[0] < 0 and message[1] == BROADCAST else int(super().route(apics, message))


class SeesNoAlias(Upstream):
    """Two xAPICs of one ID are no reason to be inactive."""

    def _derived(self, kvm: UpstreamKvm) -> int:
        return 0


class EntryStaysForEver(Upstream):
    """Leaves the logical entry of an LDR that was replaced, active or not."""

    def _invalidate_logical(self, v: Vcpu) -> None:
        pass


class AnyAddress(Linux):
    """Accepts a base beyond every physical address."""

    maxphyaddr = 64


class SharesAsid(OneAsidPerVm):
    """All vCPUs of a VM share an ASID, and nobody flushes."""

    def pre_svm_run(self, v: LinuxVcpu) -> None:
        self.port.vmcb_write(v.handle, VMCB_ASID, 1 + v.kvm.id)
        self.port.vmcb_write(v.handle, VMCB_TLB_CONTROL, 0 if v.asid_cpu >= 0 else TLB_FLUSH_ASID)
        v.asid_cpu = v.cpu


class WarnsOfWideCores(Linux):
    """The IPI's handler complains of a target on a core that has no doorbell."""

    def ring_doorbell(self, v: LinuxVcpu) -> None:
        if self.port.vcpu_cpu(v.handle) > 0xFFF:
            self.port.warn("no doorbell")
        super().ring_doorbell(v)


class NeverInhibitedByBigIds(Upstream):
    """An id that is too big does not inhibit."""

    def _set_inhibit(self, kvm: UpstreamKvm, reason: int, on: bool) -> None:
        if reason != INHIBIT_PHYSICAL_ID_TOO_BIG:
            super()._set_inhibit(kvm, reason, on)


class NeverSyncs(KeepsStaleEntries):
    """Leaves the entries alone when AVIC is active again, too."""

    def _post_state_restore(self, v: Vcpu) -> None:
        pass


HELD_BACK = (s.GuestWrite(0, APIC_TPR, 0x50), s.Deliver(0, 0x41), s.Inhibit(3))
STILL_FOUND: list[tuple[Callable[[Any], Any], Config, tuple[Any, ...], str]] = [
    (NeverHearsOfCr8, TWO, HELD_BACK, "AVIC-020"),
    (PlainIrr, TWO, (s.Deliver(0),), "AVIC-055"),
    (TouchesOthersIsr, TWO, (s.Exit(0), s.Deliver(0)), "AVIC-055"),
    (BusyStays, STICKY, (s.GuestIpi(level=True),), "AVIC-068"),
    (BusyStays, STICKY, (s.GuestIpi(dest=3),), "AVIC-068"),  # not the targets' clause
    (NoBroadcast, TWO, (s.Deliver(0, 65, level=True), s.GuestEoi(0)), "AVIC-079"),
    (EndsTwice, CLEARED, (s.Deliver(0, 65, level=True), s.GuestEoi(0)), "AVIC-079"),
    (KeepsAccessPage, ONE, (s.Put(0), s.SetApicBase(0, X2_ON, host=True), s.Load(0, 0x20), s.VmRun(0)), "AVIC-090"),
    (
        HintReachesTwo,
        Config(),
        (s.Route((*FLAT_PAIR, Apic(2, ldr=4 << 24)), Message(7, logical=True, mode=4, hint=True)),),
        "AVIC-097",
    ),
    (LosesBroadcasts, TWO, (s.Inhibit(3), s.GuestIpi(0, 0xFF)), "AVIC-107"),
    (LosesBroadcasts, Config(), (s.Route(FLAT_PAIR, Message(0xFF, 0)),), "AVIC-096"),
    (LosesBroadcasts, TWO, (s.Inhibit(3), *MIXES, s.GuestIpi(0, 0xFF)), "AVIC-107"),
    *[
        (LosesBroadcasts, Config(), (s.Route(ONE_X2, Message(to, n)),), "AVIC-096")
        for n, to in ((0, 255), (1, 2**32 - 1))
    ],
    (TakesAll, Config(), (s.Route(ONE_X2, Message(BROADCAST)),), "AVIC-096"),
    (MasksWideCores, TWO, (s.Put(1), s.Load(1, 0x1021), s.VmRun(1), s.Deliver(1)), "AVIC-083"),
    (LogsWhenPreempted, TWO, (s.UpdateIrte(0, 0), s.Put(0)), "AVIC-094"),
    (FreesPageFirst, TWO, (s.UpdateIrte(0, 1), s.Put(1), s.VcpuFree(1)), "AVIC-093"),
    (RunsByHalves, CREATED, (s.Load(0), s.Put(0), s.Load(0, 0x30)), "AVIC-032"),
    (LeaksTables, Config(), (s.VmCreate(), NO_VMCB), "AVIC-058"),
    (SeesNoAlias, TWO, (s.GuestWrite(1, APIC_ID, 0),), "AVIC-086"),
    (SeesNoAlias, CREATED, (s.VcpuCreate(256), s.VcpuReset(0), s.Enter(0)), "AVIC-085"),
    (EntryStaysForEver, TWO, (s.GuestWrite(1, APIC_LDR, 4 << 24),), "AVIC-038"),
    (AnyAddress, TWO, (s.SetApicBase(0, 1 << 52 | ON),), "AVIC-112"),
    (SharesAsid, TWO, MOVED, "AVIC-022"),
    (WarnsOfWideCores, TWO, (s.Put(1), s.Load(1, 0x1000), s.VmRun(1), s.GuestIpi()), "AVIC-075"),
    (NeverInhibitedByBigIds, TWO, (s.VcpuCreate(255),), "AVIC-085"),
    (
        NeverSyncs,
        TWO,
        (s.GuestWrite(1, APIC_LDR, 4 << 24), s.Inhibit(3), s.GuestWrite(1, APIC_LDR, 0), s.Inhibit(3, on=False)),
        "AVIC-045",
    ),
]


@pytest.mark.parametrize(("candidate", "config", "ops", "clause"), STILL_FOUND)
def test_the_wrong_code_beside_it_is_found(
    candidate: Callable[[Any], Any], config: Config, ops: tuple[Any, ...], clause: str
) -> None:
    """Whoever goes further than that breaks the clause."""
    assert cited(judged(candidate, config, *ops)) == clause


def test_ending_the_highest_vector_is_right_unless_hardware_cleared_it() -> None:
    """What processors do is not verified, so a driver that counts on one of both is only warned."""
    ops = (s.Deliver(0, 65, level=True), s.GuestEoi(0))

    assert judged(Linux, TWO, *ops).warnings == []
    assert {w.clause.id for w in judged(Linux, CLEARED, *ops).warnings} == {"AVIC-115"}


def test_plain_stores_reach_other_banks_of_nobody() -> None:
    """TMR is written by whoever sends, so it is changed atomically also by its own vCPU."""

    class PlainTmr(Linux):
        def set_eoi(self, v: LinuxVcpu) -> None:
            self.port.write32(v.regs, APIC_IRR - 0x80, 0)
            super().set_eoi(v)

    assert cited(judged(PlainTmr, TWO, s.Deliver(0, 65, level=True), s.GuestEoi(0))) == "AVIC-055"


@pytest.mark.parametrize(("profile", "clause"), [("kvm-lapic", ""), ("upstream", "AVIC-107")])
def test_kvms_map_names_xapics_by_number_in_its_own_profile_alone(profile: str, clause: str) -> None:
    """An x2APIC's logical destination goes by ids there, and reaches an xAPIC that has no logical id."""
    mixed = (
        s.GuestWrite(1, APIC_LDR, 0),
        s.Inhibit(3),
        s.SetApicBase(0, APIC_BASE | 0xC00),
        s.GuestIpi(0, dest=2, logical=True, mode=4),
    )

    assert cited(judged(KvmRouting, TWO, *mixed, profile=profile)) == clause


class WideIds(KvmRouting):
    """Where the VMM has enabled 32-bit ids."""

    routing = replace(KvmRouting.routing, x2apic_format=True)


class LowVectors(KvmRouting):
    """Takes vectors below 16 as any other, as KVM does."""

    lowest_vector = 0


BY_NUMBER = (s.GuestWrite(1, APIC_LDR, 0), s.Inhibit(3), s.SetApicBase(0, APIC_BASE | 0xC00))
SAME_ID = (s.Inhibit(3), s.GuestWrite(1, APIC_ID, 0))
AS_KVM_DOES: list[tuple[type, tuple[Any, ...]]] = [
    *[(KvmRouting, (*BY_NUMBER, s.GuestIpi(0, 2, logical=True, mode=mode))) for mode in (2, 4, 5, 6)],
    *[
        (KvmRouting, (*BY_NUMBER, s.GuestIpi(0, 2, logical=True, mode=mode, level=True, asserted=False)))
        for mode in (2, 4, 6)
    ],
    (LowVectors, (s.Inhibit(3), s.GuestIpi(0, 1, vector=5))),
    (LowVectors, (s.GuestIpi(0, 1, vector=5, level=True),)),
    (Linux, (s.Inhibit(3), s.GuestIpi(0, 1, vector=5))),
    *[(WideIds, (*SAME_ID, s.GuestIpi(0, 0, mode=mode))) for mode in (0, 4)],
]


@pytest.mark.parametrize(("candidate", "ops"), AS_KVM_DOES)
def test_what_kvm_does_is_right_in_its_profile(candidate: type, ops: tuple[Any, ...]) -> None:
    """In most modes it doesn't look at the trigger; it takes low vectors; ids may have 32 bits."""
    assert cited(judged(candidate, TWO, *ops, profile="kvm-lapic")) == ""


@pytest.mark.parametrize("mode", [0, 1, 4, 5, 6])
@pytest.mark.parametrize("base", [KvmRouting, WideIds, LowVectors])
def test_an_ipi_that_reaches_nobody_is_found_there_too(base: type, mode: int) -> None:
    """However it may be routed, by every map somebody has it; of SMIs there need be none."""
    deaf = type("Deaf", (base,), {"irq_delivery_to_apic": lambda self, kvm, source, irq: None})

    assert cited(judged(deaf, TWO, s.Inhibit(3), s.GuestIpi(0, 1, mode=mode), profile="kvm-lapic")) == "AVIC-107"
