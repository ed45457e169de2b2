"""Accesses to the registers of an APIC, by the guest and by user space."""

from __future__ import annotations

from conformance.model.avic.apic import (
    DFR,
    ICR2,
    ID,
    IRR,
    ISR,
    LDR,
    LVTS,
    NO_REGISTERS,
    SPIV,
    TDCR,
    TMICT,
    TMR,
    TPR,
    has_bit,
    highest,
    mode_of,
    put,
    reset_registers,
    with_bit,
    with_regs,
)
from conformance.model.avic.inhibits import recalculations
from conformance.model.avic.looking import settled
from conformance.model.avic.operations import (
    RESTORED,
    Answers,
    GetLapic,
    GuestEoi,
    GuestRead,
    GuestWrite,
    HwapicUpdate,
    RawNoaccel,
    SetApicBase,
    SetLapic,
)
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, x2_ldr
from conformance.model.avic.state import Registers, State, Vm, find, found, is_active, with_vcpu, with_vm
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ESR,
    APIC_ID,
    APIC_LDR,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_RRR,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TMICT,
    APIC_TPR,
    BASE_AE,
    BASE_EXTD,
    CLUSTER,
    FLAT,
    INHIBIT_APIC_BASE_MODIFIED,
    LVT_MASKED,
    SPIV_ENABLE,
)
from conformance.specs.clause import Clause

MOST_ADDRESS_BITS, TOLD_ADDRESS_BITS = 52, 48
"""Bits of a physical address: at most, and what every guest of this world has."""


def written(regs: Registers, offset: int, value: int) -> Registers | None:
    """Registers after a software write at an xAPIC offset; None where nothing can be written."""
    if offset == APIC_ID:
        return put(regs, ID, value & 0xFF000000)
    if offset == APIC_TPR:
        return put(regs, TPR, value & 0xFF)
    if offset == APIC_LDR:
        return put(regs, LDR, value & 0xFF000000)
    if offset == APIC_DFR:
        return put(regs, DFR, value | 0x0FFFFFFF)
    if offset == APIC_SPIV:
        return put(regs, SPIV, value & 0x3FF)
    if offset >> 4 in LVTS and offset & 0xF == 0:
        return put(regs, offset >> 4, value & (0x107FF if offset == APIC_LVT0 else 0x100FF))
    if offset == APIC_TMICT:
        return put(regs, TMICT, value)
    if offset == APIC_TDCR:
        return put(regs, TDCR, value & 0xB)
    return None


X2_WRITABLE = (APIC_TPR, APIC_SPIV, *range(APIC_LVTT, APIC_LVTERR + 16, 16), APIC_TMICT, APIC_TDCR)
"""Registers, besides EOI, ICR and SELF_IPI, that an x2APIC lets the guest write."""


def guest_write(state: State, op: GuestWrite, _env: Answers, _profile: Profile) -> Outcomes:
    """Write a register: accelerated, trapped, faulting or intercepted, with the same end.

    Returns:
        0  written with the register's mask, or read-only in xAPIC mode and ignored
        1  #GP, in x2APIC mode, for registers that are read-only or do not exist
    """
    vcpu = found(state, op.id)
    if mode_of(vcpu.base) == X2APIC:
        if op.offset == APIC_ESR and op.value == 0:
            return Outcome(state, 0, because=c.TRAP_REAPPLIES_WITH_MASKS)
        if op.offset not in X2_WRITABLE:
            because = c.X2APIC_LDR_IS_READ_ONLY if op.offset == APIC_LDR else c.X2APIC_MSRS_INTERCEPTED
            return Outcome(state, 1, because=because, effect=because)
    regs = written(vcpu.regs, op.offset, op.value)
    if regs is None:
        because = c.REMOTE_READ_IGNORED if op.offset == APIC_RRR else c.TRAPS_AND_FAULTS_TOLD_APART
        return Outcome(settled(state), 0, because=because, effect=because)
    ways = [
        settled(way)
        for r in _masked(regs, op.offset)
        for way in recalculations(with_vcpu(state, with_regs(vcpu, r)), 0)
    ]
    because = c.TRAP_REAPPLIES_WITH_MASKS
    also: tuple[Clause, ...] = (c.INHIBITS_RECOMPUTED,)
    if op.offset == APIC_TPR:
        because, also = c.V_TPR_FOLLOWS_TPR, ()
    elif op.offset == APIC_ID:
        because = c.FOREIGN_APIC_ID_INHIBITS
    elif op.offset == APIC_DFR and op.value != FLAT and op.value | 0x0FFFFFFF == FLAT:
        because = c.FLAT_IS_ALL_ONES
    elif op.offset in (APIC_LDR, APIC_DFR):
        because = c.LOGICAL_WRITES_REACH_SOFTWARE_APIC
    done = tuple(Outcome(after, 0, because=because, effect=because, also=also) for after in ways)
    if mode_of(vcpu.base) == X2APIC and op.value != regs[op.offset >> 4]:
        return *done, Outcome(state, 1, because=because)
    return done if len(done) > 1 else done[0]


def _masked(regs: Registers, offset: int) -> list[Registers]:
    """The registers after a write; a software-disabled APIC may also mask its LVTs."""
    if regs[SPIV] >> SPIV_ENABLE & 1 or (offset != APIC_SPIV and offset >> 4 not in LVTS):
        return [regs]
    masked = regs
    for n in LVTS if offset == APIC_SPIV else (offset >> 4,):
        masked = put(masked, n, masked[n] | LVT_MASKED)
    return [regs, masked] if masked != regs else [regs]


def guest_read(state: State, _op: GuestRead, _env: Answers, _profile: Profile) -> Outcome:
    """Read a register; nothing changes, and a read that faults is emulated once (a check counts)."""
    return Outcome(state, 0, because=c.TRAPS_AND_FAULTS_TOLD_APART, effect=c.TRAPS_AND_FAULTS_TOLD_APART)


def raw_noaccel(state: State, op: RawNoaccel, _env: Answers, _profile: Profile) -> Outcomes:
    """An exit with any content resumes the guest (AVIC-081).

    A trap-class offset has the register's page value re-applied, which changes only what the page
    should not hold: bits that x2APIC mode left. Where the exit says that it was a read, the driver may ignore it.
    """
    because = c.UNKNOWN_OFFSETS_HARMLESS
    kept = Outcome(state, 1, because=because, effect=because)
    vcpu, offset = found(state, op.id), op.info1 & 0xFF0
    regs = written(vcpu.regs, offset, vcpu.regs[offset >> 4]) if offset < 0x400 and offset != APIC_TPR else None
    if regs is None or regs == vcpu.regs:
        return kept
    ways = recalculations(with_vcpu(state, with_regs(vcpu, regs)), 0)
    return kept, *(Outcome(settled(way), 1, because=because) for way in ways)


def guest_eoi(state: State, op: GuestEoi, _env: Answers, _profile: Profile) -> Outcomes:
    """End the highest interrupt in service; a level-triggered one is broadcast to the IOAPICs (a check counts).

    Where hardware cleared the bit itself, a driver that ends the highest one ends another (AVIC-115).
    """
    vcpu = found(state, op.id)
    owed = frozenset[int]() if any(v.pending for v in state.vcpus) else None
    vector = highest(vcpu.regs, ISR)
    because = c.PPR_FROM_TPR_AND_ISR
    level = vector >= 0 and has_bit(vcpu.regs, TMR, vector)
    if level:
        because = c.LEVEL_EOI_BROADCAST_ONCE
    if vector >= 0:
        vcpu = with_regs(vcpu, with_bit(vcpu.regs, ISR, vector, False))
    done = Outcome(settled(with_vcpu(state, vcpu), owed), 0, because=because, effect=because)
    second = highest(vcpu.regs, ISR)
    if not (level and state.config.eoi_cleared and is_active(state, vcpu) and second >= 0):
        return done
    both = settled(with_vcpu(state, with_regs(vcpu, with_bit(vcpu.regs, ISR, second, False))), owed)
    return done, Outcome(both, 0, because=because, effect=because, breaches=(c.EOI_ENDED_BY_VECTOR,))


def set_lapic(state: State, op: SetLapic, _env: Answers, _profile: Profile) -> Outcomes:
    """Registers from user space, taken raw; in x2APIC mode LDR stays derived from the id (AVIC-053)."""
    vcpu = find(state, op.id)
    assert vcpu is not None
    mode = mode_of(vcpu.base)
    regs = put(reset_registers(op.id, mode), TPR, op.tpr & 0xFF)
    regs = put(regs, SPIV, op.spiv)
    if mode == XAPIC:
        regs = put(regs, LDR, (op.ldr & 0xFF) << 24)
        regs = put(regs, DFR, CLUSTER if op.cluster else FLAT)
        regs = regs if op.xid < 0 else put(regs, ID, (op.xid & 0xFF) << 24)
    for offset, value in RESTORED.items() if op.rest else ():
        regs = put(regs, offset >> 4, value)
    if op.irr >= 16:
        regs = with_bit(regs, IRR, op.irr, True)
    if op.isr >= 16:
        regs = with_bit(with_bit(regs, ISR, op.isr, True), TMR, op.isr, op.level)
    because: Clause = c.RESTORED_INTERRUPTS_END if op.isr else c.ONE_APIC_STATE
    also = (c.RESTORE_SYNCS_LOGICAL_TABLE,)
    ways = recalculations(with_vcpu(state, with_regs(vcpu, regs)), 0)
    return tuple(Outcome(settled(way), 0, because=because, effect=because, also=also) for way in ways)


def get_lapic(state: State, op: GetLapic, _env: Answers, _profile: Profile) -> Outcome:
    """One register as user space sees it: the same as the guest (AVIC-053)."""
    vcpu = find(state, op.id)
    assert vcpu is not None
    return Outcome(state, vcpu.regs[op.offset >> 4], because=c.ONE_APIC_STATE)


def set_apic_base(state: State, op: SetApicBase, _env: Answers, _profile: Profile) -> Outcomes:
    """Move, disable or change the mode of an APIC.

    Returns:
        0  done; entering x2APIC mode sets ID and LDR from the id
        1  #GP: EXTD without AE, reserved bits, or a step that a guest may not take
    """
    vcpu = find(state, op.id)
    assert vcpu is not None
    old, new = mode_of(vcpu.base), mode_of(op.value)
    invalid = op.value >> BASE_EXTD & 1 and not op.value >> BASE_AE & 1
    step = (old, new) in ((X2APIC, XAPIC), (DISABLED, X2APIC))
    refused = Outcome(state, 1, because=c.APIC_BASE_REFUSED, effect=c.APIC_BASE_REFUSED)
    if invalid or op.value & 0x2FF or op.value >> MOST_ADDRESS_BITS or (step and not op.host):
        return refused
    regs = vcpu.regs
    kept = [regs]
    if new == DISABLED:
        kept = [NO_REGISTERS]
    elif new == X2APIC and old == XAPIC:
        fresh = put(put(regs, ID, vcpu.id), LDR, x2_ldr(vcpu.id))
        kept = [put(fresh, ICR2, high) for high in (regs[ICR2], regs[ICR2] & 0xFF000000)]  # nor what is left of ICR
    elif new == XAPIC and old == X2APIC:  # what LDR and DFR are then, no manual says
        back = put(regs, ID, (vcpu.id & 0xFF) << 24)
        kept = [
            put(put(back, LDR, ldr), DFR, dfr) for ldr in (regs[LDR], 0) for dfr in (FLAT, CLUSTER, regs[DFR] or FLAT)
        ]
    moved = new != DISABLED and op.value & ~0xFFF != APIC_BASE
    if moved:
        vm = state.vms[0]
        assert vm is not None
        mask = vm.inhibits | 1 << INHIBIT_APIC_BASE_MODIFIED
        state = with_vm(state, 0, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
    also = (c.X2APIC_LDR_IS_READ_ONLY,) if new == X2APIC else ()
    because = c.INHIBIT_CONDITIONS if moved else c.ACTIVE_IFF_NOTHING_FORBIDS
    entered = [with_vcpu(state, with_regs(vcpu, r, op.value)) for r in dict.fromkeys(kept)]
    ways = [way for after in entered for way in recalculations(after, 0)]
    done = tuple(Outcome(settled(s), 0, because=because, also=also) for s in ways)
    return done if not op.value >> TOLD_ADDRESS_BITS else (refused, *done)  # the guest's CPUID is not told


def hwapic_update(state: State, _op: HwapicUpdate, _env: Answers, _profile: Profile) -> Outcome:
    """Nothing follows from what the common code reports (AVIC-084)."""
    return Outcome(state, 0, because=c.HWAPIC_UPDATES_DO_NOTHING, effect=c.HWAPIC_UPDATES_DO_NOTHING)
