"""One local APIC as values: registers, modes, priorities, and what keeps AVIC off."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, logical_map_is_aliased, x2_ldr
from conformance.model.avic.state import Registers, State, Vcpu, Vm
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
    INHIBIT_APIC_ID_MODIFIED,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_ALIASED,
    LVT_MASKED,
    SPIV_RESET,
)

ID, TPR, LDR, DFR, SPIV = APIC_ID >> 4, APIC_TPR >> 4, APIC_LDR >> 4, APIC_DFR >> 4, APIC_SPIV >> 4
ISR, TMR, IRR, ICR, ICR2 = APIC_ISR >> 4, APIC_TMR >> 4, APIC_IRR >> 4, APIC_ICR >> 4, APIC_ICR2 >> 4
LVTS = range(APIC_LVTT >> 4, (APIC_LVTERR >> 4) + 1)
LVT0, TMICT, TDCR = APIC_LVT0 >> 4, APIC_TMICT >> 4, APIC_TDCR >> 4
"""Numbers of registers: offset / 16."""

_NOTHING = (0,) * 8
_DERIVED = 1 << INHIBIT_PHYSICAL_ID_ALIASED | 1 << INHIBIT_APIC_ID_MODIFIED | 1 << INHIBIT_LOGICAL_ID_ALIASED


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


def logical_index(ldr: int, dfr: int) -> int:
    """Index in the logical table of an 8-bit logical id, -1 for none (AVIC-037)."""
    if dfr | 0x0FFFFFFF == FLAT:
        return ldr.bit_length() - 1 if ldr and ldr & (ldr - 1) == 0 else -1
    cluster, member = ldr >> 4, ldr & 0xF
    if cluster == 0xF or not member or member & (member - 1):
        return -1
    return 4 * cluster + member.bit_length() - 1


def derived_inhibits(vcpus: Sequence[Vcpu]) -> int:
    """The inhibits that follow from the APICs of one VM (AVIC-086, AVIC-087)."""
    mask = 0
    apics = [seen_by_routing(v) for v in vcpus]
    ids = [(a.xid, a.id) for a in apics if a.mode == XAPIC]
    if len({xid for xid, _ in ids}) < len(ids):
        mask |= 1 << INHIBIT_PHYSICAL_ID_ALIASED
    if any(xid != own & 0xFF for xid, own in ids):
        mask |= 1 << INHIBIT_APIC_ID_MODIFIED
    if logical_map_is_aliased(apics):
        mask |= 1 << INHIBIT_LOGICAL_ID_ALIASED
    return mask


def recalculated(state: State, n: int) -> State:
    """The state with the inhibits of VM `n` derived anew."""
    vm = state.vms[n]
    if vm is None or not vm.irqchip:
        return state
    mask = vm.inhibits & ~_DERIVED | derived_inhibits([v for v in state.vcpus if v.vm == n])
    if mask == vm.inhibits:
        return state
    return with_vm(state, n, Vm(vm.irqchip, vm.max_vcpu_ids, mask))


def with_vm(state: State, n: int, vm: Vm | None) -> State:
    """The state with VM `n` replaced."""
    vms = (vm, state.vms[1]) if n == 0 else (state.vms[0], vm)
    return State(state.config, state.host, vms, state.vcpus, state.irtes, state.late, stale=state.stale)


def with_vcpus(state: State, vcpus: tuple[Vcpu, ...]) -> State:
    """The state with other vCPUs."""
    return State(state.config, state.host, state.vms, vcpus, state.irtes, state.late, stale=state.stale)


def with_vcpu(state: State, vcpu: Vcpu) -> State:
    """The state with the vCPU of that VM and id replaced."""
    vcpus = tuple(vcpu if v.id == vcpu.id and v.vm == vcpu.vm else v for v in state.vcpus)
    return State(state.config, state.host, state.vms, vcpus, state.irtes, state.late, stale=state.stale)


def find(state: State, apic_id: int, vm: int = 0) -> Vcpu | None:
    """The vCPU of that id, None when there is none."""
    for v in state.vcpus:
        if v.id == apic_id and v.vm == vm:
            return v
    return None


def has_apic(state: State, vm: int = 0) -> bool:
    """Whether the vCPUs of this VM have backing pages."""
    record = state.vms[vm]
    return state.host.avic and record is not None and record.irqchip


def is_active(state: State, vcpu: Vcpu) -> bool:
    """Whether AVIC is active for this vCPU (AVIC-085)."""
    vm = state.vms[vcpu.vm]
    return state.host.avic and vm is not None and vm.irqchip and not vm.inhibits and vcpu.base >> BASE_AE & 1 == 1


def is_running(state: State, vcpu: Vcpu) -> bool:
    """Whether IsRunning is 1 in the vCPU's hardware entry (AVIC-030)."""
    return state.host.ipiv and 0 <= vcpu.core <= 0xFFF and not vcpu.asleep and is_active(state, vcpu)


def settled(state: State, woken: frozenset[int] | None = None) -> State:
    """The state once vCPUs in the guest took what they can, and sleepers with something to take are awake.

    `woken` limits the second to vCPUs of these ids, while a deferred exit still owes the others a wake-up.
    vCPUs that are late stay as they are.
    """
    changed = False
    vcpus = []
    for v in state.vcpus:
        new = v
        if v.id in state.late:
            pass
        elif v.in_guest:
            vector = deliverable(v)
            if vector >= 0:
                new = take(v, vector)
        elif v.asleep and (woken is None or v.id in woken) and deliverable(v) >= 0:
            new = with_run(v, v.core, False, False)
        changed = changed or new is not v
        vcpus.append(new)
    return with_vcpus(state, tuple(vcpus)) if changed else state


def with_late(state: State, late: frozenset[int]) -> State:
    """The state in which these vCPUs, and no others, have yet to look."""
    return State(state.config, state.host, state.vms, state.vcpus, state.irtes, late, stale=state.stale)


def lately(state: State, woken: frozenset[int] | None = None) -> tuple[State, ...]:
    """The state settled, and then, where that changes something, with the vCPUs concerned late.

    The second is for operations in company: another one may come between the acceptance of a
    message and the moment when its target looks.
    """
    done = settled(state, woken)
    if done is state:
        return (done,)
    late = frozenset(v.id for v, old in zip(done.vcpus, state.vcpus, strict=True) if v is not old)
    return done, with_late(state, state.late | late)


def with_entries(before: State, after: State) -> State:
    """The state after an operation, with the vCPUs of VM 0 whose logical entry may be out of date by now."""
    vm = after.vms[0]
    if after.vcpus is before.vcpus and after.vms is before.vms:
        return after
    if not after.stale and (vm is None or not vm.inhibits):
        return after
    stale = set(after.stale)
    for v in after.vcpus:
        if v.vm:
            continue
        if is_active(after, v):
            if v.core >= 0 and not v.asleep:
                stale.discard(v.id)
            continue
        old = find(before, v.id)
        if old is not None and (_claims(old) != _claims(v)):
            stale.add(v.id)
    stale &= {v.id for v in after.vcpus if not v.vm}
    if stale == after.stale:
        return after
    return State(
        after.config, after.host, after.vms, after.vcpus, after.irtes, after.late, after.passing, frozenset(stale)
    )


def _claims(v: Vcpu) -> tuple[int, int, int]:
    """What decides a vCPU's logical entry."""
    return mode_of(v.base), v.regs[LDR], v.regs[DFR]
