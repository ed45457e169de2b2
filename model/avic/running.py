"""Scheduling, register accesses, delivery, inhibits and posted interrupts."""

from __future__ import annotations

from conformance.model.avic.apic import (
    DFR,
    ID,
    ISR,
    LDR,
    LVTS,
    SPIV,
    TDCR,
    TMICT,
    TMR,
    TPR,
    deliverable,
    find,
    has_bit,
    highest,
    is_active,
    lately,
    mode_of,
    pend,
    put,
    recalculated,
    settled,
    with_bit,
    with_events,
    with_regs,
    with_run,
    with_vcpu,
    with_vm,
)
from conformance.model.avic.routing import X2APIC
from conformance.model.avic.state import (
    Answers,
    Block,
    Deliver,
    Exit,
    GuestEoi,
    GuestRead,
    GuestWrite,
    Inhibit,
    IommuPost,
    Irte,
    Load,
    Put,
    RawNoaccel,
    Registers,
    State,
    Unblock,
    UpdateIrte,
    Vcpu,
    Vm,
    VmRun,
)
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
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
    EIO,
    LVT_MASKED,
    SPIV_ENABLE,
)
from conformance.specs.clause import Clause


def _found(state: State, apic_id: int) -> Vcpu:
    vcpu = find(state, apic_id)
    assert vcpu is not None
    return vcpu


def load(state: State, op: Load) -> Outcome:
    """The vCPU gets a core; IsRunning follows unless it is blocking or the core's id is too wide."""
    vcpu = _found(state, op.id)
    because = c.IS_RUNNING_TELLS_THE_TRUTH
    if vcpu.asleep:
        because = c.LOAD_WHILE_BLOCKING_WAITS
    elif op.host_id > 0xFFF:
        because = c.WIDE_HOST_ID_CHANGES_NOTHING
    after = with_vcpu(state, with_run(vcpu, op.host_id, vcpu.asleep, False, vcpu.pending))
    return Outcome(after, 0, because=because, effect=because, also=(c.HOST_ID_IS_WHOLE,))


def put_vcpu(state: State, op: Put) -> Outcome:
    """The vCPU loses its core; IsRunning is cleared."""
    vcpu = _found(state, op.id)
    because = c.LOAD_WHILE_BLOCKING_WAITS if vcpu.asleep else c.IS_RUNNING_TELLS_THE_TRUTH
    after = with_vcpu(state, with_run(vcpu, -1, vcpu.asleep, False, vcpu.pending))
    return Outcome(after, 0, because=because, effect=because)


def leave_guest(state: State, op: Exit) -> Outcome:
    """Outside the guest but still on its core, so IsRunning stays."""
    vcpu = _found(state, op.id)
    after = with_vcpu(state, with_run(vcpu, vcpu.core, False, False))
    return Outcome(after, 0, because=c.IS_RUNNING_TELLS_THE_TRUTH)


def block(state: State, op: Block) -> Outcome:
    """The vCPU sleeps unless it has something to take.

    Returns:
        0  asleep
        1  an interrupt is deliverable, so it does not sleep (AVIC-036)
    """
    vcpu = _found(state, op.id)
    if deliverable(vcpu) >= 0:
        awake = with_vcpu(state, with_run(vcpu, vcpu.core, False, False))
        return Outcome(awake, 1, because=c.BLOCKING_CHECKS_IRR_LAST, effect=c.IS_RUNNING_TELLS_THE_TRUTH)
    asleep = with_vcpu(state, with_run(vcpu, vcpu.core, True, False))
    return Outcome(asleep, 0, because=c.BLOCKING_CHECKS_IRR_LAST, effect=c.BLOCKING_CHECKS_IRR_LAST)


def unblock(state: State, op: Unblock) -> Outcome:
    """A sleeper wakes; that performs the load."""
    vcpu = _found(state, op.id)
    after = with_vcpu(state, with_run(vcpu, vcpu.core, False, False))
    return Outcome(after, 0, because=c.LOAD_WHILE_BLOCKING_WAITS, effect=c.LOAD_WHILE_BLOCKING_WAITS)


def vm_run(state: State, op: VmRun) -> Outcome:
    """Enter the guest; what is deliverable is taken at once, by hardware or by injection."""
    vcpu = with_events(_found(state, op.id), 0)
    after = with_vcpu(state, with_run(vcpu, vcpu.core, False, True))
    owed = frozenset[int]() if any(v.pending for v in state.vcpus) else None
    also = (c.ACTIVE_CONTROLS_SET,) if is_active(state, vcpu) else (c.INHIBIT_KICKS_AND_LOSES_NOTHING,)
    return Outcome(settled(after, owed), 0, because=c.ACTIVE_IFF_NOTHING_FORBIDS, also=also)


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


def guest_write(state: State, op: GuestWrite) -> Outcomes:
    """Write a register: accelerated, trapped, faulting or intercepted, with the same end.

    Returns:
        0  written with the register's mask, or read-only in xAPIC mode and ignored
        1  #GP, in x2APIC mode, for registers that are read-only or do not exist
    """
    vcpu = _found(state, op.id)
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
    ways = [settled(recalculated(with_vcpu(state, with_regs(vcpu, r)), 0)) for r in _masked(regs, op.offset)]
    because = c.TRAP_REAPPLIES_WITH_MASKS
    also: tuple[Clause, ...] = (c.INHIBITS_RECOMPUTED,)
    if op.offset == APIC_TPR:
        because, also = c.V_TPR_FOLLOWS_TPR, ()
    elif op.offset == APIC_ID:
        because = c.FOREIGN_APIC_ID_INHIBITS
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


def guest_read(state: State, _op: GuestRead) -> Outcome:
    """Read a register; nothing changes, and a read that faults is emulated once (a check counts)."""
    return Outcome(state, 0, because=c.TRAPS_AND_FAULTS_TOLD_APART, effect=c.TRAPS_AND_FAULTS_TOLD_APART)


def raw_noaccel(state: State, op: RawNoaccel) -> Outcomes:
    """An exit with any content resumes the guest (AVIC-081).

    A trap-class offset has the register's page value re-applied, which changes only what the page
    should not hold: bits that x2APIC mode left. Where the exit says that it was a read, the driver may ignore it.
    """
    because = c.UNKNOWN_OFFSETS_HARMLESS
    kept = Outcome(state, 1, because=because, effect=because)
    vcpu, offset = _found(state, op.id), op.info1 & 0xFF0
    regs = written(vcpu.regs, offset, vcpu.regs[offset >> 4]) if offset < 0x400 and offset != APIC_TPR else None
    if regs is None or regs == vcpu.regs:
        return kept
    return kept, Outcome(settled(recalculated(with_vcpu(state, with_regs(vcpu, regs)), 0)), 1, because=because)


def guest_eoi(state: State, op: GuestEoi) -> Outcome:
    """End the highest interrupt in service; a level-triggered one is broadcast to the IOAPICs (a check counts)."""
    vcpu = _found(state, op.id)
    vector = highest(vcpu.regs, ISR)
    because = c.PPR_FROM_TPR_AND_ISR
    if vector >= 0:
        if has_bit(vcpu.regs, TMR, vector):
            because = c.LEVEL_EOI_BROADCAST_ONCE
        vcpu = with_regs(vcpu, with_bit(vcpu.regs, ISR, vector, False))
    owed = frozenset[int]() if any(v.pending for v in state.vcpus) else None
    return Outcome(settled(with_vcpu(state, vcpu), owed), 0, because=because, effect=because)


def deliver(state: State, op: Deliver) -> Outcomes:
    """The host's interrupt reaches IRR and, if the vCPU can take it, the vCPU (AVIC-082)."""
    vcpu = pend(_found(state, op.id), op.vector, op.level)
    woken = frozenset({op.id}) if any(v.pending for v in state.vcpus) else None
    effect = c.DELIVERY_SETS_IRR_FIRST
    if is_active(state, vcpu) and vcpu.in_guest:
        effect = c.DOORBELL_NAMES_THE_CORE
    also = (c.ACCEPTANCE_SETS_IRR_AND_TMR,)
    return tuple(
        Outcome(after, 0, because=c.DELIVERY_SETS_IRR_FIRST, effect=effect, also=also)
        for after in lately(with_vcpu(state, vcpu), woken)
    )


def inhibit(state: State, op: Inhibit) -> Outcome:
    """Set or clear a reason; every vCPU outside sleep follows at once (AVIC-086, AVIC-087)."""
    vm = state.vms[0]
    assert vm is not None
    bit = 1 << op.reason
    mask = vm.inhibits | bit if op.on else vm.inhibits & ~bit
    after = with_vm(state, 0, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
    because = c.INHIBIT_CONDITIONS if op.on else c.INHIBITS_RECOMPUTED
    also = (c.INHIBITED_NEVER_RUNNING,) if op.on else ()
    effect = c.INHIBIT_KICKS_AND_LOSES_NOTHING
    return Outcome(settled(after), 0, because=because, effect=effect, also=also)


def update_irte(state: State, op: UpdateIrte, env: Answers) -> Outcomes:
    """Route a device interrupt.

    What cannot be posted now may or may not be once AVIC is active again, and a vCPU that has no core or sleeps
    may not know yet whether it is.

    Returns:
        0     posted to the vCPU if AVIC is active for it, else in host mode
        -EIO  the affinity call gave no metadata; in host mode (AVIC-095)
        other the affinity call's refusal; in host mode
    """
    others = tuple(i for i in state.irtes if i.irq != op.irq)
    if env.set_vcpu_affinity:
        result = -EIO if env.set_vcpu_affinity > 0 else env.set_vcpu_affinity
        left, because = _routed(state, others), c.MISSING_METADATA_REVERTS
        return Outcome(left, result, because=because, effect=because)
    because = c.OLD_VCPU_FORGETS_IRTE if len(others) < len(state.irtes) else c.IRTE_FOLLOWS_VCPU
    host = Outcome(_routed(state, others), 0, because=because, effect=because)
    vcpu = find(state, op.id)
    if vcpu is None:
        return host
    irtes = tuple(sorted((*others, Irte(op.irq, op.id, op.vector)), key=lambda i: i.irq))
    outcome = Outcome(_routed(state, irtes), 0, because=because, effect=because)
    return outcome if is_active(state, vcpu) and vcpu.core >= 0 and not vcpu.asleep else (host, outcome)


def _routed(state: State, irtes: tuple[Irte, ...]) -> State:
    return State(state.config, state.host, state.vms, state.vcpus, irtes, state.late, stale=state.stale)


def iommu_post(state: State, op: IommuPost) -> Outcomes:
    """A posted interrupt sets IRR and rings, logs, or waits for the next VMRUN; TMR is hardware's business."""
    irte = next((i for i in state.irtes if i.irq == op.irq), None)
    if irte is None:
        return ()  # in this one of the possible states it is in host mode
    vcpu = _found(state, irte.id)
    because = c.GALOG_WAKES_EXACTLY_ONE if vcpu.asleep else c.IRTE_FOLLOWS_VCPU
    pended = [with_vcpu(state, pend(vcpu, irte.vector, level)) for level in (None, False)]
    ways = dict.fromkeys(after for accepted in pended for after in lately(accepted))
    return tuple(Outcome(s, 0, because=because, effect=because) for s in ways)
