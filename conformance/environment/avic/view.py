"""What can be seen from outside: VMCBs, tables, backing pages, and where the host's vCPUs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.model.avic import View
from conformance.model.avic.apic import mode_of
from conformance.model.avic.routing import X2APIC
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_ICR,
    APIC_ICR2,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    BASE_AE,
    ENTRY_RUNNING,
    ICR_BUSY,
    LVT_MASKED,
    VMCB_APIC_BAR,
    VMCB_INT_CTL,
    VMCB_PHYSICAL_TABLE,
    X2APIC_MSRS,
)

if TYPE_CHECKING:
    from conformance.environment.avic.vcpus import Cpu
    from conformance.environment.avic.world import Avic

UNSEEN = (0x03, 0x09, 0x0A, 0x0B, 0x0C, 0x28, 0x2F, 0x39, 0x3F)
"""Registers that no clause fixes: LVR, APR, PPR, EOI, RRR, ESR, CMCI LVT, current count, SELF_IPI."""
LVT_SEEN = 0xFFF900FF
"""Bits of an LVT that clauses fix: vector, mask, and the reserved ones above."""


def view(world: Avic) -> View:
    """What hardware and the host see."""
    run: list[tuple[int, ...]] = []
    events: list[int] = []
    controls: list[tuple[int, ...] | None] = []
    running: list[int] = []
    bar: list[int | None] = []
    regs: list[tuple[int, ...] | None] = []
    avic = world.host.found.avic
    told = world.host.applies(c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS)
    for cpu in world.vcpus.order:
        vmcb = cpu.vmcb
        run.append((cpu.vm, cpu.id, cpu.core, cpu.asleep, cpu.in_guest))
        events.append(cpu.events)
        if vmcb is None:
            controls.append(None)
            running.append(-1)
            bar.append(None)
            regs.append(None)
            continue
        if cpu.in_guest:
            mode = vmcb.fields.get(VMCB_INT_CTL, 0) >> 30
            icr = int((X2APIC_MSRS + (APIC_ICR >> 4), 1) in vmcb.opened) if vmcb.opened else 0
            cr8 = int(vmcb.cr8) if told and mode >> 1 else 0  # of an inactive one, VMRUN asks
            controls.append((mode >> 1, mode & 1, cr8, icr or int(bool(vmcb.opened))))
        else:
            controls.append(None)
        running.append(_running(world, cpu))
        apic = avic and world.vcpus.vms[cpu.vm].irqchip
        at_home = apic and cpu.base & ~0xFFF == APIC_BASE
        bar.append(vmcb.fields.get(VMCB_APIC_BAR, 0) if at_home else None)
        regs.append(registers(world, cpu) if apic and cpu.base >> BASE_AE & 1 else None)
    irtes: tuple[tuple[int, ...], ...] = ()
    if world.iommu.irtes:
        irtes = _told(world)
    return View(tuple(run), tuple(events), tuple(controls), tuple(running), tuple(bar), tuple(regs), irtes)


def _running(world: Avic, cpu: Cpu) -> int:
    """Host id of the vCPU's hardware entry while IsRunning is set."""
    vmcb = cpu.vmcb
    assert vmcb is not None
    page = world.memory.pages.get(vmcb.fields.get(VMCB_PHYSICAL_TABLE, 0) & ADDRESS_BITS)
    if page is None or 2 * cpu.id + 1 >= len(page.words):
        return -1
    high = page.words[2 * cpu.id + 1]
    return page.words[2 * cpu.id] & 0xFFF if high >> (ENTRY_RUNNING - 32) & 1 else -1


def registers(world: Avic, cpu: Cpu) -> tuple[int, ...] | None:
    """The registers that clauses speak of, in the backing page."""
    page = world.tables.backing_page(cpu)
    if page is None:
        return None
    words = page.words[0:256:4]
    for n in UNSEEN:
        words[n] = 0
    for n in range(APIC_LVTT >> 4, (APIC_LVTERR >> 4) + 1):
        words[n] &= LVT_SEEN if n != APIC_LVT0 >> 4 else LVT_SEEN | 0x700
    if cpu.id == 0 and words[APIC_LVT0 >> 4] & 0x7FF == 0x700:
        words[APIC_LVT0 >> 4] = LVT_MASKED
    if cpu.exit is not None:
        words[APIC_ICR >> 4] &= ~(1 << ICR_BUSY)
    mode = mode_of(cpu.base)
    if mode == X2APIC:
        words[APIC_DFR >> 4] = 0
    else:
        words[APIC_ICR2 >> 4] &= 0xFF000000
    return tuple(words)


def _told(world: Avic) -> tuple[tuple[int, ...], ...]:
    shown: list[tuple[int, ...]] = []
    for irq in sorted(world.iommu.irtes):
        irte = world.iommu.irtes[irq]
        if irte.posted and irte.cpu >= 0:
            owner = world.tables.backing.get(irte.page)
            if not world.host.found.ipiv and owner is not None and not owner.in_guest:
                continue
            shown.append((irq, -1 if owner is None else owner.id, irte.vector, irte.cpu))
        elif irte.returned:
            shown += _delivered_by_the_host(world, irq)
    return tuple(shown)


def _delivered_by_the_host(world: Avic, irq: int) -> list[tuple[int, ...]]:
    """An IRTE that an inhibit returned to host mode may stay there: the host knows where its vCPU is."""
    apic_id, vector = world.iommu.routes[irq]
    cpu = world.vcpus.listed.get((0, apic_id))
    if cpu is None or cpu.asleep or not 0 <= cpu.core <= 0xFFF or cpu.vmcb is None:
        return []
    # Where IsRunning does not tell whether AVIC is active, the VMCB does in the guest, and nothing does outside.
    if not (_running(world, cpu) >= 0 if world.host.found.ipiv else cpu.in_guest and cpu.vmcb.is_avic):
        return []
    return [(irq, apic_id, vector, cpu.core)]
