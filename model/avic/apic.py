"""One local APIC as values: registers, modes, priorities."""

from __future__ import annotations

from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, x2_ldr
from conformance.model.avic.state import Registers, Vcpu
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TMICT,
    APIC_TMR,
    APIC_TPR,
    BASE_AE,
    BASE_BSP,
    BASE_EXTD,
    FLAT,
    LVT_MASKED,
    SPIV_RESET,
)

ID, TPR, LDR, DFR, SPIV = APIC_ID >> 4, APIC_TPR >> 4, APIC_LDR >> 4, APIC_DFR >> 4, APIC_SPIV >> 4
ISR, TMR, IRR, ICR, ICR2 = APIC_ISR >> 4, APIC_TMR >> 4, APIC_IRR >> 4, APIC_ICR >> 4, APIC_ICR2 >> 4
LVTS = range(APIC_LVTT >> 4, (APIC_LVTERR >> 4) + 1)
LVT0, TMICT, TDCR = APIC_LVT0 >> 4, APIC_TMICT >> 4, APIC_TDCR >> 4
"""Numbers of registers: offset / 16."""

_NOTHING = (0,) * 8


def put(regs: Registers, n: int, value: int) -> Registers:
    """The registers with number `n` changed."""
    return (*regs[:n], value, *regs[n + 1 :])


def reset_registers(apic_id: int, mode: int) -> Registers:
    """Register values after RESET or INIT of an APIC in that mode (AVIC-050)."""
    regs = [0] * 64
    regs[SPIV] = SPIV_RESET
    for n in LVTS:
        regs[n] = LVT_MASKED
    if mode == X2APIC:
        regs[ID], regs[LDR] = apic_id, x2_ldr(apic_id)
    else:
        regs[ID], regs[DFR] = (apic_id & 0xFF) << 24, FLAT
    return tuple(regs)


def default_base(apic_id: int) -> int:
    """APIC_BASE after RESET: enabled, xAPIC, and BSP on the boot vCPU."""
    return APIC_BASE | 1 << BASE_AE | (1 << BASE_BSP if apic_id == 0 else 0)


def mode_of(base: int) -> int:
    """Mode that an APIC_BASE value selects."""
    if not base >> BASE_AE & 1:
        return DISABLED
    return X2APIC if base >> BASE_EXTD & 1 else XAPIC


def has_bit(regs: Registers, first: int, vector: int) -> bool:
    """Whether the bit of `vector` is set in the bitmap that starts at register `first`."""
    return regs[first + (vector >> 5)] >> (vector & 31) & 1 == 1


def with_bit(regs: Registers, first: int, vector: int, on: bool) -> Registers:
    """The registers with the bit of `vector` set or cleared in a bitmap."""
    n, bit = first + (vector >> 5), 1 << (vector & 31)
    return put(regs, n, regs[n] | bit if on else regs[n] & ~bit)


def highest(regs: Registers, first: int) -> int:
    """Highest vector of a bitmap, -1 when it is empty."""
    for n in range(7, -1, -1):
        if regs[first + n]:
            return 32 * n + regs[first + n].bit_length() - 1
    return -1


def ppr(tpr: int, isrv: int) -> int:
    """Processor priority (AVIC-054); `isrv` is 0 when nothing is in service."""
    return tpr if tpr >> 4 >= isrv >> 4 else isrv & 0xF0


def deliverable(vcpu: Vcpu) -> int:
    """The vector that the vCPU would take now, -1 for none."""
    regs = vcpu.regs
    if regs[IRR : IRR + 8] == _NOTHING or not vcpu.base >> BASE_AE & 1:
        return -1
    vector = highest(regs, IRR)
    return vector if vector >> 4 > ppr(regs[TPR], max(highest(regs, ISR), 0)) >> 4 else -1


def take(vcpu: Vcpu, vector: int) -> Vcpu:
    """The vCPU with `vector` moved from IRR to ISR."""
    return with_regs(vcpu, with_bit(with_bit(vcpu.regs, IRR, vector, False), ISR, vector, True))


def pend(vcpu: Vcpu, vector: int, level: bool | None) -> Vcpu:
    """The vCPU with `vector` accepted; `level` None leaves TMR as it is (AVIC-104)."""
    regs = with_bit(vcpu.regs, IRR, vector, True)
    return with_regs(vcpu, regs if level is None else with_bit(regs, TMR, vector, level))


def with_regs(v: Vcpu, regs: Registers, base: int | None = None) -> Vcpu:
    """The vCPU with other registers, and another base where one is given."""
    base = v.base if base is None else base
    return Vcpu(v.vm, v.id, regs, base, v.core, v.asleep, v.in_guest, v.events, v.pending)


def with_run(v: Vcpu, core: int, asleep: bool, in_guest: bool, pending: tuple[int, ...] = ()) -> Vcpu:
    """The vCPU scheduled otherwise."""
    return Vcpu(v.vm, v.id, v.regs, v.base, core, asleep, in_guest, v.events, pending)


def with_events(v: Vcpu, events: int) -> Vcpu:
    """The vCPU with other signals."""
    return Vcpu(v.vm, v.id, v.regs, v.base, v.core, v.asleep, v.in_guest, events, v.pending)


def seen_by_routing(vcpu: Vcpu) -> Apic:
    """What routing needs of this vCPU's APIC."""
    regs, mode = vcpu.regs, mode_of(vcpu.base)
    xid = regs[ID] >> 24 if mode == XAPIC else -1
    return Apic(vcpu.id, mode, regs[SPIV], regs[LDR], regs[DFR], xid)


NO_REGISTERS = (0,) * 64
"""What stands for the registers of a disabled APIC, which nobody can see."""
