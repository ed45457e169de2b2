"""Every clause can fail: each has a wrong candidate that is told so by it or by its neighbour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.candidates.builtin.avic.as_posted import AsPosted
from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.candidates.defects.avic import DEFECTS
from conformance.candidates.defects.avic.upstream import MemslotBacked
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.avic.routing import DISABLED, X2APIC, Apic, Message, x2_ldr
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.avic import CLAUSES
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_LDR,
    APIC_LVTT,
    APIC_RRR,
    APIC_TMR,
    APIC_TPR,
    BROADCAST,
    CLUSTER,
    CPUID_NP,
    CPUID_X2AVIC,
    CPUID_X2AVIC_EXT,
    EINVAL,
    ENOMEM,
    ENTRY_RUNNING,
    ENTRY_VALID,
    INHIBIT_PIT_REINJ,
    INT_CTL_INTR_MASKING,
    INT_CTL_X2AVIC,
    NO_METADATA,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)
from conformance.strategies.avic.domains import ON, RUNNING, THREE, X2, X2_ON, X2AVIC_HOST
from tests.conformance.avic.judging import cited, judged

ZOO = {defect.id: defect.candidate for defect in DEFECTS}
EMPTY = Config()
ONE = Config(vcpus=(0,))
TWO = Config(vcpus=(0, 1))
FRESH = Config(vcpus=(0, 1), running=True)
LONE = Config(vcpus=(0,), running=True, enabled=True)
X2_TRAPPED = Config(vcpus=(0, 1), running=True, enabled=True, x2apic=True)
FLAT_PAIR = (Apic(0, ldr=1 << 24), Apic(1, ldr=2 << 24))
X2_PAIR = (Apic(0, X2APIC, ldr=x2_ldr(0)), Apic(1, X2APIC, ldr=x2_ldr(1)))
SLEEPS = (s.Exit(1), s.Block(1))


def wrong(base: type = Upstream, **methods: Callable[..., Any]) -> type:
    """A candidate with these methods replaced."""
    return type("Wrong" + base.__name__, (base,), methods)


def irqfds(acts: tuple[s.Act, ...], **methods: Callable[..., Any]) -> Row:
    """A wrong router that is asked this of its eventfds."""
    return Row(wrong(KvmLapic, **methods), EMPTY, (s.Irqfds(acts),), profile="kvm-lapic")


def unlooked(self: Any, fd: int, gsi: int, _table: object) -> tuple[int, tuple[int, ...]]:
    """Assigned, whatever its counter."""
    self.gsi_of[fd] = gsi
    return 0, ()


ROUTED = s.Act("route", table=((0, 0x41),))


class _Without:
    """A port on which one call does nothing."""

    def __init__(self, port: Any, call: str) -> None:
        self.port = port
        self.call = call

    def __getattr__(self, name: str) -> Any:
        if name == self.call:
            return lambda *_: 1 if name == "emulate_instruction" else 0
        return getattr(self.port, name)


def without(call: str, base: type = Upstream) -> type:
    """A candidate that never makes this call."""

    def start(self: Any, port: Any) -> None:
        base.__init__(self, _Without(port, call))

    return type(f"Without_{call}", (base,), {"__init__": start})


def after(name: str, then: Callable[..., Any], base: type = Upstream) -> type:
    """A candidate that does something more at the end of one method."""
    original = getattr(base, name)

    def both(self: Any, *args: Any, **named: Any) -> Any:
        result = original(self, *args, **named)
        then(self, *args, **named)
        return result

    return wrong(base, **{name: both})


def told(base: type = Upstream, **changed: int) -> type:
    """A candidate that is told something else at setup than is so."""
    names = ("edx", "ecx", "npt", "family", "zen4", "snp", "hv_inuse_wr", "avic", "force", "ipiv", "next_tag")

    def setup(self: Any, *args: int) -> int:
        asked = (changed.get(n, a) for n, a in zip(names, args, strict=True))
        return base.hw_setup(self, *asked)  # type: ignore[attr-defined]  # a candidate's

    return wrong(base, hw_setup=setup)


def answers(mask: int) -> type:
    """A router that names the same APICs for every message."""
    return wrong(route=lambda self, apics, message: mask)


def control(self: Any, v: Any, on: int = 0, off: int = 0) -> None:
    """Change int_ctl."""
    self.port.vmcb_write(v.handle, VMCB_INT_CTL, self.port.vmcb_read(v.handle, VMCB_INT_CTL) & ~off | on)


def own_tables(self: Any, v: Any) -> None:
    """A logical table for this vCPU alone."""
    page = self.port.alloc_page(0)
    self.port.clear_page(page)
    self.port.vmcb_write(v.handle, VMCB_LOGICAL_TABLE, page)


def entry_with(bits: int) -> type:
    """Physical entries with these bits."""
    return wrong(_publish=lambda self, v: self.port.write64(v.kvm.phys_table, 8 * v.id, v.entry | bits))


def runs_before_it_says_where(self: Any, v: Any, cpu: int) -> None:
    """IsRunning first, the host id later."""
    v.entry |= 1 << ENTRY_RUNNING
    self._publish(v)
    Upstream._load(self, v, cpu)


def forgets_core(self: Any, v: Any, log: bool) -> None:
    """Put clears the host id."""
    v.entry &= ~0xFFF
    self._publish(v)


def truncated(self: Any, v: Any, cpu: int) -> None:
    """A host id is cut to what fits."""
    Upstream._load(self, v, cpu & 0xFFF)


def installs_first(self: Any, v: Any) -> None:
    """The new logical entry before the old one is cleared."""
    old = self._logical_entry(v, v.ldr, v.dfr)
    v.ldr = self._reg(v, APIC_LDR) >> 24
    self._install_logical(v)
    if old >= 0 and old != self._logical_entry(v, v.ldr, v.dfr):
        self.port.write32(v.kvm.logical_table, old, 0)


def wipes_entry_0(self: Any, v: Any) -> None:
    """Every LDR write clears the first logical entry, whosever it is."""
    self.port.write32(v.kvm.logical_table, 0, 0)


def reserved_bit(self: Any, v: Any) -> None:
    """A logical entry with a reserved bit."""
    offset = self._logical_entry(v, v.ldr, v.dfr)
    if offset >= 0:
        self.port.write32(v.kvm.logical_table, offset, 1 << 31 | 1 << 8 | v.id)


def wipes_another(self: Any, vcpu: int) -> None:
    """Freeing a vCPU changes a register of another."""
    other = next(iter(self.vcpus.values()))
    self.port.write32(other.regs, APIC_TPR, 0x20)


def tmr_last(self: Any, v: Any, vector: int, level: int) -> None:
    """IRR first, then TMR."""
    self._set_vector(v, APIC_IRR, vector)
    (self._set_vector if level else self._clear_vector)(v, APIC_TMR, vector)
    self._complete_delivery(v)


def always_edge(self: Any, v: Any, vector: int, level: int) -> None:
    """Every interrupt is an edge."""
    Upstream._deliver(self, v, vector, 0)


def plain_irr(self: Any, v: Any, bank: int, vector: int) -> None:
    """A load and a store."""
    at = bank + (vector >> 5) * 16
    self.port.write32(v.regs, at, self.port.read32(v.regs, at) | 1 << (vector & 31))


def loses_irr(self: Any, v: Any) -> None:
    """A switch clears what is pending."""
    for n in range(8):
        self.port.and32(v.regs, APIC_IRR + 16 * n, 0)


def keeps_id(self: Any, v: Any, offset: int, value: int) -> None:
    """The APIC ID cannot be written."""
    Upstream._reg_write(self, v, offset, v.id << 24 if offset == APIC_ID else value)


def not_reapplied(self: Any, v: Any, offset: int, value: int) -> None:
    """What hardware wrote is left as it is."""


def loses_ldr(self: Any, v: Any, offset: int, value: int) -> None:
    """An LDR with several bits does not reach the software APIC."""
    Upstream._reg_write(self, v, offset, 0 if offset == APIC_LDR and value >> 24 == 3 else value)


def ldr_writable(self: Any, vcpu: int, offset: int, value: int) -> int:
    """An x2APIC takes a new LDR."""
    return 0 if offset == APIC_LDR else int(Upstream.apic_access(self, vcpu, offset, value))


def deactivates_at_once(self: Any, vm: int, reason: int, on: int) -> None:
    """Clears int_ctl of all vCPUs before they are kicked."""
    for v in self.vms[vm].vcpus.values():
        self._deactivate_vmcb(v)
    Upstream.inhibit(self, vm, reason, on)


def refused_base(self: Any, vcpu: int, value: int, host: int) -> int:
    """Takes reserved bits."""
    return int(Upstream.set_apic_base(self, vcpu, value & (1 << 40) - 1 & ~0x200, host))


def keeps_irte(self: Any, irq: int, vcpu: int, vector: int) -> int:
    """A route to nobody changes nothing."""
    return 0 if vcpu < 0 else int(Upstream.update_irte(self, irq, vcpu, vector))


def no_metadata(self: Any, irq: int, vcpu: int, vector: int) -> int:
    """An IRTE that cannot be kept up to date is no error."""
    return max(0, int(Upstream.update_irte(self, irq, vcpu, vector)))


def another_error(self: Any, vm: int, vcpu: int, apic_id: int) -> int:
    """The error of the backing page becomes another."""
    error = int(MemslotBacked.vcpu_create(self, vm, vcpu, apic_id))
    return -EINVAL if error else 0


def entry_of_nobody(self: Any, v: Any) -> None:
    """A valid entry where none may be."""
    self.port.write64(v.kvm.phys_table, 8 * BROADCAST, 1 << ENTRY_VALID)


def wakes_the_first(self: Any, tag: int) -> int:
    """Any tag wakes the first vCPU."""
    self.port.wake(next(iter(self.vcpus)))
    return 0


@dataclass(frozen=True)
class Row:
    """A wrong candidate, and the steps in which a clause tells it so."""

    candidate: type | None
    config: Config
    ops: tuple[Any, ...]
    neighbour: str = ""
    """The clause that is cited, where that is another one, and no plainer wrong candidate is cited with this one."""
    profile: str = "upstream"


LEVEL_EOI = (s.Deliver(0, 65, level=True), s.GuestEoi(0))
HELD_BACK = (s.GuestWrite(0, APIC_TPR, 0x50), s.Deliver(0, 0x41), s.Inhibit(3))
CREATES = (s.VmCreate(), s.VcpuCreate(0))
TWICE = tuple(
    Step(Parallel(Step(s.VcpuCreate(1)), Step(s.VcpuCreate(1)), (a, b))) for a in range(12) for b in range(a + 1, 24)
)
TABLE: dict[int, Row] = {
    1: Row(told(edx=1 << 13), EMPTY, (s.HwSetup(edx=1 << CPUID_NP),)),
    2: Row(told(npt=1), EMPTY, (s.HwSetup(npt=False),)),
    3: Row(told(AsPosted, avic=0), EMPTY, (s.HwSetup(avic=7),), profile="as-posted"),
    4: Row(told(avic=1), EMPTY, (s.HwSetup(avic=-1),)),
    5: Row(told(force=0), EMPTY, (s.HwSetup(edx=1 << CPUID_NP, force=True),)),
    6: Row(told(edx=X2AVIC_HOST), EMPTY, (s.HwSetup(edx=1 << CPUID_NP | 1 << CPUID_X2AVIC),)),
    7: Row(told(snp=0), EMPTY, (s.HwSetup(snp=True),)),
    8: Row(told(family=0x19), EMPTY, (s.HwSetup(family=0x17),)),
    9: Row(after("vm_create", lambda self, *_: self.port.alloc_page(0)), Config(avic=0), (s.VmCreate(),)),
    10: Row(ZOO["AP-22"], EMPTY, (s.VmCreate(irqchip=False), s.VcpuCreate(0))),
    11: Row(told(ecx=0), EMPTY, (s.HwSetup(edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),)),
    12: Row(
        after("_activate_vmcb", lambda self, v: control(self, v, off=1 << INT_CTL_INTR_MASKING)), TWO, (s.Enter(0),)
    ),
    13: Row(after("_activate_vmcb", lambda self, v: control(self, v, on=1 << INT_CTL_X2AVIC)), TWO, (s.Enter(0),)),
    14: Row(ZOO["AP-01"], Config(tagged=True), CREATES),
    15: Row(
        after("_activate_vmcb", lambda self, v: self.port.vmcb_write(v.handle, VMCB_PHYSICAL_TABLE, v.kvm.phys_table)),
        TWO,
        (s.Enter(0),),
    ),
    16: Row(after("_avic_init_vmcb", own_tables), EMPTY, (*CREATES, s.VcpuCreate(1))),
    17: Row(ZOO["AP-20"], ONE, (s.VmcbReinit(0),)),
    18: Row(without("mark_vmcb_dirty"), RUNNING, (s.Inhibit(3),)),
    19: Row(wrong(inhibit=deactivates_at_once), RUNNING, (s.Inhibit(3),)),
    20: Row(ZOO["UP-36"], RUNNING, HELD_BACK),
    21: Row(ZOO["UP-17"], X2, (s.Exit(1), s.VcpuReset(1), s.VmRun(1))),
    22: Row(without("tlb_flush"), TWO, (s.Enter(0),)),
    23: Row(ZOO["UP-21"], RUNNING, (s.Inhibit(3), s.VcpuCreate(2))),
    24: Row(ZOO["UP-16"], TWO, (s.SetLapic(0, tpr=0x20), s.Enter(0))),
    25: Row(without("clear_page"), EMPTY, CREATES),
    26: Row(entry_with(1 << 40), TWO, (s.Load(0), s.Put(0), s.Enter(0))),
    27: Row(entry_with(1 << 55), TWO, (s.Load(0), s.VmRun(0))),
    28: Row(
        after(
            "_init_backing_page", lambda self, v: self.port.write64(v.kvm.phys_table, 8 * BROADCAST, 1 << ENTRY_VALID)
        ),
        TWO,
        (s.Enter(0),),
    ),
    29: Row(wrong(phys_index=lambda self, index: 8 * index), EMPTY, (s.PhysIndex(-1),)),
    30: Row(wrong(_load=lambda self, v, cpu: None), TWO, (s.Load(0),)),
    31: Row(ZOO["AP-28"], TWO, (s.Load(0, 0x123),)),
    32: Row(wrong(_load=runs_before_it_says_where), TWO, (s.Load(0),)),
    33: Row(after("_put", forgets_core), TWO, (s.Load(0), s.Put(0))),
    34: Row(ZOO["UP-14b"], RUNNING, (*SLEEPS, s.Put(1), s.Load(1, 0x31))),
    35: Row(wrong(_load=truncated), TWO, (s.Load(0, 0x1000),)),
    36: Row(wrong(vcpu_blocking=lambda self, vcpu: 0), RUNNING, (s.Exit(1), s.Deliver(1), s.Block(1))),
    37: Row(ZOO["AP-03"], EMPTY, (s.LogicalIndex(2),)),
    38: Row(ZOO["AP-07"], RUNNING, (s.GuestWrite(1, APIC_LDR, 4 << 24),)),
    39: Row(wrong(_install_logical=lambda self, v: None), FRESH, (s.GuestWrite(0, APIC_LDR, 1 << 24),)),
    40: Row(after("_install_logical", reserved_bit), FRESH, (s.GuestWrite(0, APIC_LDR, 1 << 24),)),
    41: Row(after("_handle_ldr_update", wipes_entry_0), RUNNING, (s.GuestWrite(1, APIC_LDR, 4 << 24),)),
    42: Row(wrong(_reg_write=loses_ldr), FRESH, (s.GuestWrite(0, APIC_LDR, 3 << 24),)),
    43: Row(
        wrong(_handle_dfr_update=lambda self, v: setattr(v, "dfr", self._reg(v, APIC_DFR))),
        FRESH,
        (s.GuestWrite(0, APIC_LDR, 0x10 << 24), s.GuestWrite(0, APIC_DFR, CLUSTER)),
        "AVIC-038",
    ),
    44: Row(ZOO["AP-07"], RUNNING, (s.Exit(1), s.VcpuReset(1))),
    45: Row(ZOO["AP-07"], RUNNING, (s.Exit(1), s.SetLapic(1, ldr=4))),
    46: Row(wrong(apic_access=ldr_writable), X2, (s.GuestWrite(0, APIC_LDR, 1),)),
    47: Row(wrong(_reg_write=not_reapplied), FRESH, (s.GuestWrite(0, APIC_DFR, 0xF0000000),)),
    48: Row(ZOO["AP-15"], ONE, (s.MemoryPressure(),)),
    49: Row(ZOO["AP-17"], ONE, (s.UserStore(0),)),
    50: Row(ZOO["AP-19"], TWO, (s.SetLapic(0, tpr=0x20), s.VcpuReset(0))),
    51: Row(ZOO["AP-21"], ONE, (s.VcpuCreate(1),)),
    52: Row(after("vcpu_free", wipes_another), TWO, (s.VcpuFree(1),)),
    53: Row(ZOO["AP-18"], ONE, (s.Load(0), s.SetLapic(0, tpr=0x20), s.GetLapic(0))),
    54: Row(wrong(ppr=lambda self, tpr, isrv: tpr), EMPTY, (s.Ppr(0, 0x41),)),
    55: Row(wrong(_set_vector=plain_irr), RUNNING, (s.Deliver(0),)),
    56: Row(wrong(_deliver=tmr_last), RUNNING, (s.Deliver(0),)),
    57: Row(
        after("_x2_icr_write", lambda self, v, value: self.port.write32(v.regs, APIC_ICR2, 0)),
        X2_TRAPPED,
        (s.GuestIpi(0, 1),),
    ),
    58: Row(ZOO["LX-02"], TWO, (Step(s.VcpuCreate(2), (Fault("kzalloc", -ENOMEM, 2),)),)),
    59: Row(
        wrong(MemslotBacked, vcpu_create=another_error),
        EMPTY,
        (s.VmCreate(), Step(s.VcpuCreate(0), (Fault("gfn_to_page", -ENOMEM),))),
    ),
    60: Row(wrong(_vm_release=lambda self, kvm: self._leave_hash(kvm)), EMPTY, (*CREATES, s.VmDestroy())),
    61: Row(ZOO["LX-01"], TWO, (s.VcpuCreate(0),)),
    62: Row(ZOO["C-01"], ONE, TWICE, "AVIC-061"),
    63: Row(wrong(vm_tag=lambda self, vm: 0), Config(next_tag=0xFFFFFFFF), (s.VmCreate(0), s.VcpuCreate(0))),
    64: Row(ZOO["UP-20"], RUNNING, (s.VcpuCreate(255),)),
    65: Row(after("vcpu_load", lambda self, vcpu, core: self.port.lock("hash", 0)), TWO, (s.Load(0),)),
    66: Row(ZOO["UP-22"], EMPTY, (s.VmCreate(abandoned=True),)),
    67: Row(ZOO["UP-25"], EMPTY, (s.HwUnsetup(),)),
    68: Row(wrong(_emulate_ipi=lambda self, v, low, high: None), RUNNING, (s.GuestIpi(level=True),)),
    69: Row(wrong(_emulate_ipi=lambda self, v, low, high: None), RUNNING, (s.GuestIpi(0, 6, logical=True),)),
    70: Row(wrong(_kick_targets=lambda self, *_: None), RUNNING, (*SLEEPS, s.GuestIpi(0, 1))),
    71: Row(
        wrong(_kick_targets=lambda self, v, low, high, index: None), THREE, (*SLEEPS, s.GuestIpi(0, 6, logical=True))
    ),
    72: Row(wrong(_kick_targets=lambda self, *_: None), RUNNING, (*SLEEPS, s.GuestIpi(0, 2, logical=True))),
    73: Row(wrong(incomplete_ipi_exit=lambda self, *_: 0), RUNNING, (s.GuestIpi(vector=15),)),
    74: Row(wrong(_kick_targets=lambda self, *_: None), RUNNING, (*SLEEPS, s.GuestIpi(0, 1)), "AVIC-070"),
    75: Row(after("_kick_targets", lambda self, *_: self.port.warn("!")), RUNNING, (*SLEEPS, s.GuestIpi(0, 1))),
    76: Row(without("emulate_instruction"), RUNNING, (s.GuestWrite(0, 0x400, 1),)),
    77: Row(wrong(_reg_write=not_reapplied), RUNNING, (s.GuestWrite(0, APIC_LVTT, 0xFFF900EF),)),
    78: Row(ZOO["UP-26"], RUNNING, (s.GuestWrite(0, APIC_RRR, 0xFFFFFFFF),)),
    79: Row(without("ioapic_eoi"), RUNNING, LEVEL_EOI),
    80: Row(wrong(_reg_write=keeps_id), RUNNING, (s.GuestWrite(0, APIC_ID, 5 << 24),)),
    81: Row(wrong(noaccel_exit=lambda self, *_: 0), RUNNING, (s.GuestRead(0, 0x90),)),
    82: Row(without("wake"), RUNNING, (*SLEEPS, s.Deliver(1))),
    83: Row(without("wrmsr"), RUNNING, (s.Deliver(1),)),
    84: Row(
        wrong(hwapic_irr_update=lambda self, vcpu, irr: self._set_vector(self.vcpus[vcpu], APIC_IRR, irr)),
        ONE,
        (s.HwapicUpdate(0),),
    ),
    85: Row(wrong(_activate_vmcb=lambda self, v: None), TWO, (s.Enter(0),)),
    86: Row(ZOO["UP-28"], RUNNING, (s.Inhibit(INHIBIT_PIT_REINJ),)),
    87: Row(
        wrong(inhibit=lambda self, vm, reason, on: on and Upstream.inhibit(self, vm, reason, on)),
        RUNNING,
        (s.Inhibit(3), s.Inhibit(3, on=False)),
    ),
    88: Row(after("_refresh_exec_ctrl", loses_irr), RUNNING, (s.Exit(1), s.Deliver(1), s.Inhibit(3))),
    89: Row(ZOO["UP-14"], RUNNING, (s.Inhibit(3),)),
    90: Row(ZOO["UP-18"], LONE, (s.SetApicBase(0, X2_ON),)),
    91: Row(wrong(ga_log_notify=wakes_the_first), RUNNING, (s.GaLogNotify(0),)),
    92: Row(wrong(ga_log_notify=lambda self, tag: 0), RUNNING, (s.UpdateIrte(0, 1), *SLEEPS, s.IommuPost(0))),
    93: Row(wrong(update_irte=keeps_irte), RUNNING, (s.UpdateIrte(0, 0), s.UpdateIrte(0, -1))),
    94: Row(ZOO["LX-12"], RUNNING, (s.UpdateIrte(0, 0),)),
    95: Row(
        wrong(update_irte=no_metadata),
        RUNNING,
        (Step(s.UpdateIrte(0, 0), (Fault("set_vcpu_affinity", NO_METADATA),)),),
    ),
    96: Row(answers(0), EMPTY, (s.Route(FLAT_PAIR, Message(1)),)),
    97: Row(answers(0), EMPTY, (s.Route(FLAT_PAIR, Message(3, logical=True)),)),
    98: Row(answers(0), EMPTY, (s.Route(X2_PAIR, Message(3, logical=True)),)),
    99: Row(answers(0), EMPTY, (s.Route(FLAT_PAIR, Message(0, 0, shorthand=3)),)),
    100: Row(answers(1), EMPTY, (s.Route((Apic(0, spiv=0xFF),), Message(0)),)),
    101: Row(answers(3), EMPTY, (s.Route(FLAT_PAIR, Message(3, logical=True, mode=1)),)),
    102: Row(answers(2), EMPTY, (s.Route(FLAT_PAIR, Message(1, vector=15)),)),
    103: Row(answers(2), EMPTY, (s.Route(FLAT_PAIR, Message(1, level=True, asserted=False)),)),
    104: Row(wrong(_deliver=always_edge), RUNNING, (s.Deliver(0, level=True),)),
    105: Row(answers(0), EMPTY, (s.Route(X2_PAIR, Message(1, 0, reserved=1 << 31)),)),
    106: Row(answers(3), EMPTY, (s.Route((Apic(0), Apic(1, DISABLED)), Message(BROADCAST)),)),
    107: Row(wrong(_send=lambda self, v, low, high: None), RUNNING, (s.Inhibit(3), s.GuestIpi(0, 1))),
    108: Row(wrong(vcpu_load=lambda self, vcpu, core: 1 // 0), TWO, (s.Load(0),)),
    109: Row(wrong(KvmLapic, route=lambda self, *_: 0), EMPTY, (s.Route(FLAT_PAIR, Message(1)),), profile="kvm-lapic"),
    110: Row(
        wrong(KvmLapic, route=lambda self, *_: 0), EMPTY, (s.Route(FLAT_PAIR, Message(BROADCAST)),), profile="kvm-lapic"
    ),
    111: Row(
        wrong(KvmLapic, signal_msi=lambda self, *_: 7),
        EMPTY,
        (s.SignalMsi(FLAT_PAIR, Message(1)),),
        profile="kvm-lapic",
    ),
    112: Row(wrong(set_apic_base=refused_base), RUNNING, (s.SetApicBase(0, ON | 1 << 63),)),
    113: Row(
        after("_put", lambda self, v, log: (self.port.lock("ga_hash", 0), self.port.alloc_page(0))),
        TWO,
        (s.Load(0), s.Put(0)),
    ),
    114: Row(wrong(_x2_icr_write=lambda self, v, value: 0), X2_TRAPPED, (s.GuestIpi(0, 1, extra=1 << 31),)),
    115: Row(Linux, Config(vcpus=(0, 1), running=True, enabled=True, eoi_cleared=True), LEVEL_EOI),
    116: Row(ZOO["UP-31"], X2, (s.Exit(0), s.VmRun(0))),
    117: Row(
        wrong(update_irte=lambda self, *_: -5), Config(vcpus=(0, 1), avic=0, software=True), (s.UpdateIrte(0, 0),)
    ),
    118: Row(ZOO["UP-35"], TWO, (s.SetLapic(0, isr=0x41),)),
    119: irqfds(_assign=lambda self, *_: (0, ()), acts=(s.Act("assign"), s.Act("assign", 0, 1))),
    120: irqfds(_inject=lambda self, fd: (), acts=(ROUTED, s.Act("assign"), s.Act("write", 0, 1))),
    121: irqfds(_assign=unlooked, acts=(ROUTED, s.Act("write", 0, 1), s.Act("assign"))),
    122: irqfds(_deassign=lambda self, *_: (-22, ()), acts=(s.Act("deassign"),)),
    123: irqfds(_route=lambda self, *_: (0, ()), acts=(s.Act("route", table=((0, 0x41), (0, 0x42))),)),
    124: Row(wrong(_handle_ldr_update=installs_first), RUNNING, (s.GuestWrite(1, APIC_LDR, 4 << 24),)),
}
"""Number of each testable clause -> what is wrong, and shows it."""


def test_the_table_has_no_gaps() -> None:
    """Each clause that can be tested has a row, and no row a clause that cannot."""
    assert [f"AVIC-{n:03d}" for n in TABLE] == [clause.id for clause in CLAUSES if not clause.untestable]


@pytest.mark.parametrize("number", TABLE)
def test_the_clause_can_fail(number: int) -> None:
    """The wrong candidate is told so by the clause, or by the neighbour that the row names."""
    row = TABLE[number]
    assert row.candidate is not None

    report = judged(row.candidate, row.config, *row.ops, profile=row.profile)

    named = {cited(report)} | {warning.clause.id for warning in report.warnings}
    assert (row.neighbour or f"AVIC-{number:03d}") in named


def merged(self: Any, _fd: int, _n: int, table: tuple[tuple[int, int], ...]) -> tuple[int, tuple[int, ...]]:
    """The new table beside the old one."""
    self.table.update(table)
    return 0, ()


def cleared_when_refused(self: Any, _fd: int, _n: int, table: tuple[tuple[int, int], ...]) -> Any:
    """A table that is refused leaves none."""
    self.table = {}
    return KvmLapic._route(self, _fd, _n, table)


def swallowed(self: Any, fd: int, n: int, _table: object) -> tuple[int, tuple[int, ...]]:
    """What is written to an eventfd without a gsi is lost."""
    return KvmLapic._write(self, fd, n, ()) if fd in self.gsi_of else (0, ())


def taken_from_any(self: Any, fd: int, _gsi: int, _table: object) -> tuple[int, tuple[int, ...]]:
    """Whichever gsi is named."""
    self.gsi_of.pop(fd, None)
    return 0, ()


ASSIGN, WRITE, READ = s.Act("assign"), s.Act("write", 0, 1), s.Act("read")
NOT_THE_LAST = {
    "a second gsi, then a read": ("_assign", lambda self, *_: (0, ()), (ASSIGN, s.Act("assign", 0, 1), READ), 119),
    "tables add up": ("_route", merged, (ROUTED, ASSIGN, s.Act("route"), WRITE), 123),
    "a refused table clears": (
        "_route",
        cleared_when_refused,
        (ROUTED, ASSIGN, s.Act("route", table=((4096, 0x42),)), WRITE),
        123,
    ),
    "writes without a gsi are lost": ("_write", swallowed, (ASSIGN, s.Act("deassign"), WRITE, READ), 122),
    "taken from another gsi": ("_deassign", taken_from_any, (ROUTED, ASSIGN, s.Act("deassign", 0, 1), WRITE), 122),
}


@pytest.mark.parametrize("name", NOT_THE_LAST)
def test_the_act_that_went_wrong_is_blamed(name: str) -> None:
    """Not the last one; and what an earlier act broke by its own clause."""
    method, how, acts, number = NOT_THE_LAST[name]

    report = judged(wrong(KvmLapic, **{method: how}), EMPTY, s.Irqfds(acts), profile="kvm-lapic")

    assert cited(report) == f"AVIC-{number}"


@pytest.mark.parametrize("op", [s.Irqfds((ASSIGN, s.Act("assign", 0, 1))), s.SignalMsi(FLAT_PAIR, Message(1))])
def test_kvms_own_answers_are_asked_in_its_profile_alone(op: Any) -> None:
    """Elsewhere no clause says them."""
    candidate = wrong(KvmLapic, _assign=lambda self, *_: (0, ()), signal_msi=lambda self, *_: 7)

    assert cited(judged(candidate, EMPTY, op, profile="upstream")) == ""
    assert cited(judged(candidate, EMPTY, op, profile="kvm-lapic")) in ("AVIC-119", "AVIC-111")


@pytest.mark.parametrize("profile", ["upstream", "kvm-lapic"])
@pytest.mark.parametrize("answer", [-38, (), ((0, ()),), ((0, ()), 0), ((0, ()), (0, (1.5,)))])
def test_an_answer_of_another_form_is_a_finding(profile: str, answer: object) -> None:
    """Whatever is in it."""
    candidate = wrong(KvmLapic, irqfds=lambda *_: answer)

    report = judged(candidate, EMPTY, s.Irqfds((ASSIGN, READ)), profile=profile)

    assert cited(report) == "AVIC-108"
