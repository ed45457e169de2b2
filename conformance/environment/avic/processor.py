"""The processor's AVIC hardware: VMRUN, IPIs and doorbells, and registers that a guest reaches without an exit."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.avic.bitmaps import evaluate, highest
from conformance.environment.avic.ipi import Ipi, send
from conformance.environment.avic.vmcbs import CACHED
from conformance.environment.simulator import Simulator
from conformance.model.avic.apic import mode_of
from conformance.model.avic.routing import X2APIC
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_IRR,
    APIC_LVTT,
    APIC_SPIV,
    APIC_TPR,
    BASE_AE,
    CLEAN_AVIC,
    DOORBELL_MSR,
    INT_CTL_INTR_MASKING,
    INT_CTL_X2AVIC,
    SPIV_ENABLE,
    TLB_FLUSH_ASID,
    VMCB_ASID,
    VMCB_INT_CTL,
    VMCB_NESTED_CTL,
    VMCB_PHYSICAL_TABLE,
    VMCB_TLB_CONTROL,
    X2APIC_MSRS,
)
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.host import Host
    from conformance.environment.avic.memory import Page, Watch
    from conformance.environment.avic.tables import Tables
    from conformance.environment.avic.vcpus import Cpu, Vcpus
    from conformance.environment.door import Environment
    from conformance.model.avic import Config


class Processor(Simulator):
    """What hardware does with VMCBs and tables, in the ways that a configuration chooses where manuals leave freedom.

    Instructions are not executed: a vCPU is in the guest or outside, and what it does there is an operation. Caches of
    VMCB fields end at VMRUN; those of table entries matter only for erratum 1235.
    """

    CLAUSES = (
        c.ACTIVE_CONTROLS_SET,
        c.X2_BIT_ONLY_IN_X2APIC_MODE,
        c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS,
        c.X2APIC_MSRS_INTERCEPTED,
        c.TIMER_LVT_INTERCEPTED,
        c.MAX_INDEX_IN_RANGE,
        c.CLEAN_BIT_CLEARED_ON_CHANGE,
        c.TLB_FLUSHED_ON_ACTIVATION,
        c.V_TPR_FOLLOWS_TPR,
        c.DOORBELL_NAMES_THE_CORE,
    )

    def __init__(
        self, door: Environment, config: Config, host: Host, vcpus: Vcpus, tables: Tables, watch: Watch
    ) -> None:
        super().__init__(door)
        self.config = config
        self.host = host
        self.vcpus = vcpus
        self.tables = tables
        self.watch = watch
        self.on_core: dict[int, tuple[Cpu, int]] = {}
        """The vCPU that each core ran last, and its ASID then."""

    def digest(self) -> Hashable:
        """Whose translations each core holds, where that is not who runs there, and whose VMCB is not what it was."""
        held = tuple((core, cpu.vm, cpu.id, asid) for core, (cpu, asid) in self.on_core.items() if cpu.core != core)
        rebuilt = tuple((cpu.vm, cpu.id) for cpu in self.vcpus.order if cpu.vmcb is not None and cpu.vmcb.rebuilt)
        return held, rebuilt

    def vmrun(self, cpu: Cpu) -> None:
        """VMRUN: consistency checks, caches, and delivery (APM 15.29.4)."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        fields = vmcb.fields
        control = fields.get(VMCB_INT_CTL, 0)
        self.vcpus.vms[cpu.vm].ran = True
        hybrid = control >> INT_CTL_X2AVIC & 3 == 2 and mode_of(cpu.base) == X2APIC
        self.watch.changed = self.watch.changed or vmcb.cached is None or hybrid
        mode = control >> 30 & 3
        if mode:
            self._check_controls(cpu, control, mode)
        if mode != 3 and self.host.found.avic:
            detail = f"vCPU {cpu.id} enters with x2APIC MSRs open and int_ctl {control:#x}"
            self.door.require(c.X2APIC_MSRS_INTERCEPTED, not vmcb.opened, detail)
        now = tuple(fields.get(offset, 0) for offset in CACHED)
        if vmcb.cached is not None and vmcb.clean >> CLEAN_AVIC & 1 and now != vmcb.cached:
            offset = next(o for o, a, b in zip(CACHED, now, vmcb.cached, strict=True) if a != b)
            raise Violation(
                c.CLEAN_BIT_CLEARED_ON_CHANGE, f"VMCB {offset:#x} of vCPU {cpu.id} changed with clean bit 11 set"
            )
        self.door.hold(c.CLEAN_BIT_CLEARED_ON_CHANGE)
        vmcb.cached, vmcb.clean = now, 0xFFFFFFFF
        if self.host.applies(c.TLB_FLUSHED_ON_ACTIVATION):
            self._check_flushes(cpu, mode)
        vmcb.mode = mode
        vmcb.flush = vmcb.rebuilt = False
        self.on_core[cpu.core] = cpu, fields.get(VMCB_ASID, 0)
        cpu.in_guest = True
        page = self.tables.backing_page(cpu)
        if page is None or not cpu.base >> BASE_AE & 1:
            return
        tpr = page.words[APIC_TPR >> 2] >> 4 & 0xF
        self.door.require(
            c.V_TPR_FOLLOWS_TPR,
            control & 0xF == tpr,
            f"vCPU {cpu.id} enters with V_TPR {control & 0xF:#x} while TPR[7:4] is {tpr:#x}",
        )
        if mode & 2:
            evaluate(page, control & 0xF)
        elif not vmcb.cr8 and self.host.found.avic:
            self._hears_of_cr8(cpu, page)

    def _hears_of_cr8(self, cpu: Cpu, page: Page) -> None:
        """While AVIC is inactive, lowering CR8 must exit if that lets a pending vector in."""
        vector = highest(page, APIC_IRR)
        masked = vector >= 16 and vector >> 4 <= page.words[APIC_TPR >> 2] >> 4 & 0xF
        if self.host.applies(c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS):
            self.door.require(
                c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS,
                not masked or not page.words[APIC_SPIV >> 2] >> SPIV_ENABLE & 1,
                f"vCPU {cpu.id} enters without AVIC and with CR8 writes not intercepted, though TPR holds back vector "
                f"{vector:#x}",
            )

    def _check_controls(self, cpu: Cpu, control: int, mode: int) -> None:
        vmcb = cpu.vmcb
        assert vmcb is not None
        fine = mode & 2 and control >> INT_CTL_INTR_MASKING & 1 and vmcb.get(VMCB_NESTED_CTL) & 1
        detail = f"vCPU {cpu.id}: int_ctl {control:#x}, nested_ctl {vmcb.get(VMCB_NESTED_CTL):#x}"
        self.door.require(c.ACTIVE_CONTROLS_SET, bool(fine) or mode == 1, detail)
        x2 = mode & 1
        fits = not x2 or (mode == 3 and mode_of(cpu.base) == X2APIC and self.host.found.x2avic)
        self.door.require(c.X2_BIT_ONLY_IN_X2APIC_MODE, fits, f"{detail}, APIC_BASE {cpu.base:#x}")
        limit = 255 if not x2 else max(self.host.found.max_id, 511)
        if mode == 3 and self.host.applies(c.TIMER_LVT_INTERCEPTED):
            open_ = (X2APIC_MSRS + (APIC_LVTT >> 4), 1) in vmcb.opened
            self.door.require(c.TIMER_LVT_INTERCEPTED, not open_, f"vCPU {cpu.id} enters with writes of LVTT open")
        index = vmcb.get(VMCB_PHYSICAL_TABLE) & 0xFFF
        self.door.require(c.MAX_INDEX_IN_RANGE, index <= limit, f"vCPU {cpu.id}: maximum index {index}, limit {limit}")

    def _check_flushes(self, cpu: Cpu, mode: int) -> None:
        """Translations of the APIC page must not survive a change of what it means (AVIC-022)."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        flush = vmcb.get(VMCB_TLB_CONTROL)
        if mode and mode != vmcb.mode:
            done = vmcb.flush or flush in (1, TLB_FLUSH_ASID)
            self.door.require(
                c.TLB_FLUSHED_ON_ACTIVATION, done, f"vCPU {cpu.id} enters with AVIC mode {mode} without a flush"
            )
        last, asid = self.on_core.get(cpu.core, (cpu, 0))
        if mode != 2 or last is cpu or last.vm != cpu.vm or not last.alive:
            return
        if asid == vmcb.get(VMCB_ASID):
            self.door.require(
                c.TLB_FLUSHED_ON_ACTIVATION,
                flush in (1, TLB_FLUSH_ASID) or vmcb.flush,
                f"core {cpu.core:#x} ran vCPU {last.id}, now vCPU {cpu.id} with TLB_CONTROL {flush}",
            )

    def wrmsr(self, msr: int, value: int) -> None:
        """Ring a doorbell."""
        if msr != DOORBELL_MSR:
            raise Violation(c.DOORBELL_NAMES_THE_CORE, f"wrmsr({msr:#x}): no such MSR here")
        if not 0 <= value <= 0xFFF:
            raise Violation(c.DOORBELL_NAMES_THE_CORE, f"doorbell {value:#x}: reserved bits are set")
        self.door.hold(c.DOORBELL_NAMES_THE_CORE)
        self.doorbell(value)

    def doorbell(self, host_id: int) -> None:
        """A vCPU in guest mode on that core looks at its IRR; otherwise nothing happens.

        A core whose id has more than 12 bits hears of none.
        """
        bits = 0xFF if self.config.narrow_host_ids else 0xFFF
        for cpu in self.vcpus.order:
            if cpu.in_guest and cpu.core <= 0xFFF and cpu.core & bits == host_id & bits:
                self.look(cpu)

    def smp_mb(self) -> None:
        """A full barrier: calls happen in the order in which they are made, so nothing is left to do."""

    def look(self, cpu: Cpu) -> None:
        """A vCPU in the guest takes what it can of its IRR, if AVIC is active for it."""
        page, vmcb = self.tables.backing_page(cpu), cpu.vmcb
        if page is not None and vmcb is not None and vmcb.is_avic and cpu.base >> BASE_AE & 1:
            evaluate(page, vmcb.get(VMCB_INT_CTL) & 0xF)

    def is_open(self, cpu: Cpu, offset: int) -> bool:
        """Whether hardware performs a guest's write to this register without asking."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        if not vmcb.is_avic:
            return False
        if mode_of(cpu.base) != X2APIC:
            return True
        return vmcb.is_x2avic and (X2APIC_MSRS + (offset >> 4), 1) in vmcb.opened

    def send(self, cpu: Cpu, page: Page, low: int, high: int) -> Ipi:
        """A vCPU in the guest writes its ICR; who runs looks at once."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        tables = self.tables
        ipi = send(vmcb, tables.pages, page, cpu.id, low, high, self.config, tables.stale)
        for host_id in ipi.doorbells:
            if host_id < 0:
                self.look(cpu)
            else:
                self.doorbell(host_id)
        return ipi

    def write_tpr(self, cpu: Cpu, page: Page, value: int) -> None:
        """A vCPU in the guest writes TPR: V_TPR follows, and what it held back is taken."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        page.set(APIC_TPR >> 2, value & 0xFF)
        vmcb.fields[VMCB_INT_CTL] = vmcb.get(VMCB_INT_CTL) & ~0xF | value >> 4 & 0xF
        self.look(cpu)
