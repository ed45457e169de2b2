"""Setup, VMs, vCPUs, reset, and the ioctls on a vCPU's registers."""

from __future__ import annotations

from conformance.model.avic.apic import (
    DFR,
    ICR2,
    ID,
    IRR,
    LDR,
    SPIV,
    TPR,
    default_base,
    deliverable,
    find,
    has_apic,
    is_active,
    mode_of,
    put,
    recalculated,
    reset_registers,
    settled,
    take,
    with_bit,
    with_regs,
    with_vcpu,
    with_vcpus,
    with_vm,
)
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, x2_ldr
from conformance.model.avic.state import (
    Answers,
    Enter,
    GetLapic,
    Host,
    HwSetup,
    SetApicBase,
    SetLapic,
    State,
    Vcpu,
    VcpuCreate,
    VcpuFree,
    VcpuReset,
    Vm,
    VmCreate,
    VmDestroy,
)
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_BASE,
    BASE_AE,
    BASE_EXTD,
    CLUSTER,
    CPUID_AVIC,
    CPUID_X2AVIC,
    CPUID_X2AVIC_EXT,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOMEM,
    FLAT,
    INHIBIT_APIC_BASE_MODIFIED,
    INHIBIT_PHYSICAL_ID_TOO_BIG,
    MAX_X2AVIC,
    MAX_X2AVIC_EXT,
    MAX_XAVIC,
)
from conformance.specs.clause import Clause

NO_REGISTERS = (0,) * 64
"""What stands for the registers of a disabled APIC, which nobody can see."""


def detected(op: HwSetup, profile: Profile) -> tuple[Host, Clause]:
    """What setup finds, and the clause that decides (AVIC-001 to AVIC-008, AVIC-011)."""
    off = Host()
    has = op.edx >> CPUID_AVIC & 1 == 1
    x2 = op.edx >> CPUID_X2AVIC & 1 == 1
    if not op.npt:
        return off, c.NEEDS_NESTED_PAGING
    if profile.opt_in:
        if not has:
            return off, c.X2AVIC_ALONE_IS_NOTHING if x2 else c.NEEDS_CPUID_BIT
        return (Host(True, False, False, MAX_XAVIC) if op.avic else off), c.OPT_IN_BY_PARAMETER
    if op.snp and not op.hv_inuse_wr:
        return off, c.SNP_HOST_KEEPS_AVIC_OFF
    if not has and not op.force:
        return off, c.X2AVIC_ALONE_IS_NOTHING if x2 else c.NEEDS_CPUID_BIT
    if op.avic == -1 and not (x2 and (op.zen4 or op.family >= 0x1A)):
        return off, c.AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4
    if op.avic == 0:
        return off, c.AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4
    extended = op.ecx >> CPUID_X2AVIC_EXT & 1 == 1
    highest = (MAX_X2AVIC_EXT if extended else MAX_X2AVIC) if x2 else MAX_XAVIC
    old = op.family in (0x17, 0x18)
    found = Host(True, x2, op.ipiv and not old, highest)
    if old:
        return found, c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES
    if not has:
        return found, c.FORCE_BYPASSES_ONLY_CPUID
    if op.avic == -1:
        return found, c.AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4
    return found, c.HIGHEST_APIC_ID if x2 else c.NEEDS_CPUID_BIT


def features(host: Host) -> int:
    """The same as setup returns it."""
    return int(host.avic) | int(host.x2avic) << 1 | int(host.ipiv) << 2 | host.max_id << 16


def hw_setup(state: State, op: HwSetup, profile: Profile) -> Outcome:
    """Detect AVIC; the result is what was found."""
    host, because = detected(op, profile)
    return Outcome(State(state.config, host), features(host), because=because)


def vm_create(state: State, op: VmCreate, env: Answers) -> Outcome:
    """Create a VM.

    Returns:
        0        it exists, unless something later failed
        -ENOMEM  an allocation was refused; nothing is left
    """
    if env.alloc_page or env.kzalloc:
        return Outcome(state, -ENOMEM, because=c.FAILED_VM_LEAVES_NOTHING)
    if op.abandoned:
        return Outcome(state, 0, because=c.FAILED_VM_LEAVES_NOTHING)
    because = c.TABLES_BELONG_TO_ONE_VM if state.host.avic and op.irqchip else c.OFF_MEANS_UNTOUCHED
    return Outcome(with_vm(state, op.vm, Vm(op.irqchip, op.max_vcpu_ids)), 0, because=because)


def vm_destroy(state: State, op: VmDestroy) -> Outcome:
    """Destroy a VM and its vCPUs; nothing of it is left (AVIC-060)."""
    vcpus = tuple(v for v in state.vcpus if v.vm != op.vm)
    left = with_vm(with_vcpus(state, vcpus), op.vm, None)
    irtes = () if op.vm == 0 else state.irtes
    return Outcome(State(left.config, left.host, left.vms, vcpus, irtes), 0, because=c.TABLES_FREED_ONCE)


def _refusals(env: Answers) -> list[tuple[int, Clause]]:
    """Errors that a creation may end with, given what it was refused."""
    errors = []
    if env.alloc_page or env.kzalloc or env.alloc_vmcb:
        errors.append((-ENOMEM, c.FAILED_CREATE_LEAVES_NOTHING))
    if env.set_memory_region:
        errors.append((env.set_memory_region, c.FAILED_CREATE_LEAVES_NOTHING))
    if env.gfn_to_page:
        errors.append((-EFAULT, c.BACKING_PAGE_ERROR_RETURNED))
    return errors


def _passing(state: State, op: VcpuCreate) -> State:
    """The state in which the vCPU is still there for a namesake to meet."""
    passing = frozenset({(op.vm, op.id)})
    return State(state.config, state.host, state.vms, state.vcpus, state.irtes, passing=passing, stale=state.stale)


def vcpu_create(state: State, op: VcpuCreate, env: Answers, profile: Profile) -> Outcomes:
    """Create a vCPU, and RESET it.

    Returns:
        0        it exists, unless something later failed
        -EEXIST  a vCPU of that id exists; it is unharmed (AVIC-061)
        -EINVAL  the id is not below max_vcpu_ids
        other    the environment's refusal; nothing is left (AVIC-058, AVIC-059)
    """
    vm = state.vms[op.vm]
    assert vm is not None
    also = (c.BACKING_PAGE_ERROR_RETURNED,) if env.alloc_page or env.gfn_to_page else ()
    passing = _passing(state, op)
    errors = [
        Outcome(left, error, because=because, effect=because, also=also)
        for error, because in _refusals(env)
        for left in (state, passing)
    ]
    if find(state, op.id, op.vm) is not None:
        exists = Outcome(state, -EEXIST, because=c.DUPLICATE_ID_REFUSED, effect=c.DUPLICATE_ID_REFUSED)
        return (exists, *errors) if errors else exists
    if op.id >= min(vm.max_vcpu_ids, 4096):
        invalid = Outcome(state, -EINVAL, because=c.HIGHEST_APIC_ID)
        return (invalid, *errors) if errors else invalid
    if errors:
        return tuple(errors)
    big = vm.irqchip and state.host.avic and op.id > state.host.max_id
    because: Clause = c.ACTIVE_IFF_NOTHING_FORBIDS
    if big:
        because = c.TOO_BIG_ID_INHIBITS if profile.inhibits_big_ids else c.HIGHEST_APIC_ID
    elif not state.host.avic:
        because = c.OFF_MEANS_UNTOUCHED
    elif not vm.irqchip:
        because = c.NO_IRQCHIP_NO_AVIC
    if op.abandoned:
        outcome = Outcome(state, 0, because=c.OTHER_VCPUS_KEEP_REGISTERS)
        slowly = Outcome(passing, 0, because=c.OTHER_VCPUS_KEEP_REGISTERS)
        if not big:
            return outcome, slowly
        mask = vm.inhibits | 1 << INHIBIT_PHYSICAL_ID_TOO_BIG  # whether the inhibit outlives the vCPU is not said
        inhibited = settled(with_vm(state, op.vm, Vm(vm.irqchip, vm.max_vcpu_ids, mask)))
        kept = tuple(Outcome(left, 0, because=because) for left in (inhibited, _passing(inhibited, op)))
        if not profile.inhibits_big_ids:
            return outcome, slowly, *kept, Outcome(state, -EINVAL, because=because)
        return outcome, slowly, *kept
    new = Vcpu(op.vm, op.id, reset_registers(op.id, XAPIC), default_base(op.id))
    vcpus = tuple(sorted((*state.vcpus, new), key=lambda v: (v.vm, v.id)))
    after = with_vcpus(state, vcpus)
    if big:
        mask = vm.inhibits | 1 << INHIBIT_PHYSICAL_ID_TOO_BIG
        after = with_vm(after, op.vm, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
    after = recalculated(after, op.vm)
    met = (c.REGISTERS_HAVE_RESET_VALUES, c.LVT0_MASKED_AFTER_RESET) if has_apic(state, op.vm) else ()
    created = Outcome(after, 0, because=because, also=met)
    if big and not profile.inhibits_big_ids:
        return created, Outcome(state, -EINVAL, because=because)
    return created


def vcpu_free(state: State, op: VcpuFree) -> Outcomes:
    """Free one vCPU: its entries and IRTEs are gone, the inhibits follow from the others (AVIC-052, AVIC-087)."""
    vcpus = tuple(v for v in state.vcpus if (v.vm, v.id) != (op.vm, op.id))
    irtes = tuple(i for i in state.irtes if op.vm or i.id != op.id)
    left = State(state.config, state.host, state.vms, vcpus, irtes, state.late, stale=state.stale)
    because, effect = c.TABLES_FREED_ONCE, c.OTHER_VCPUS_KEEP_REGISTERS
    plain = recalculated(left, op.vm)
    vm = plain.vms[op.vm]
    assert vm is not None
    outcomes = [Outcome(plain, 0, because=because, effect=effect)]
    if vm.inhibits >> INHIBIT_PHYSICAL_ID_TOO_BIG & 1 and not any(
        v.vm == op.vm and v.id > state.host.max_id for v in vcpus
    ):  # whether the inhibit outlives the vCPU is not said
        mask = vm.inhibits & ~(1 << INHIBIT_PHYSICAL_ID_TOO_BIG)
        lifted = with_vm(plain, op.vm, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
        outcomes.append(Outcome(settled(lifted), 0, because=because, effect=effect))
    return tuple(outcomes)


def vcpu_reset(state: State, op: VcpuReset) -> Outcome:
    """RESET sets everything to its default; INIT leaves APIC_BASE and ID (AVIC-050)."""
    vcpu = find(state, op.id)
    assert vcpu is not None
    base = vcpu.base if op.init else default_base(op.id)
    mode = mode_of(base)
    regs = reset_registers(op.id, mode) if mode != DISABLED else NO_REGISTERS
    if op.init and mode == XAPIC:
        regs = put(regs, ID, vcpu.regs[ID])
    v = with_regs(vcpu, regs, base)
    v = Vcpu(v.vm, v.id, v.regs, v.base, v.core, v.asleep, v.in_guest, 0, ())
    also: tuple[Clause, ...] = (c.LVT0_MASKED_AFTER_RESET, c.APIC_BAR_FOLLOWS_BASE)
    if vcpu.regs[LDR]:
        also += (c.RESET_REMOVES_LOGICAL_ENTRY,)
    return Outcome(recalculated(with_vcpu(state, v), 0), 0, because=c.REGISTERS_HAVE_RESET_VALUES, also=also)


def enter(state: State, op: Enter) -> Outcome:
    """A short visit to the guest; the result says whether AVIC was active in it."""
    vcpu = find(state, op.id, op.vm)
    assert vcpu is not None
    active = int(is_active(state, vcpu))
    v = Vcpu(vcpu.vm, vcpu.id, vcpu.regs, vcpu.base, vcpu.core, False, False, 0, ())
    if has_apic(state, op.vm) and mode_of(v.base) != DISABLED:
        vector = deliverable(v)
        v = take(v, vector) if vector >= 0 else v
        if op.tpr >= 0:
            v = with_regs(v, put(v.regs, TPR, op.tpr & 0xFF))
            vector = deliverable(v)
            v = take(v, vector) if vector >= 0 else v
    return Outcome(with_vcpu(state, v), active, because=c.ACTIVE_IFF_NOTHING_FORBIDS, effect=c.V_TPR_FOLLOWS_TPR)


def set_lapic(state: State, op: SetLapic) -> Outcome:
    """Registers from user space, taken raw; in x2APIC mode LDR stays derived from the id (AVIC-053)."""
    vcpu = find(state, op.id)
    assert vcpu is not None
    mode = mode_of(vcpu.base)
    regs = put(reset_registers(op.id, mode), TPR, op.tpr & 0xFF)
    regs = put(regs, SPIV, op.spiv)
    if mode == XAPIC:
        regs = put(regs, LDR, (op.ldr & 0xFF) << 24)
        regs = put(regs, DFR, CLUSTER if op.cluster else FLAT)
    if op.irr >= 16:
        regs = with_bit(regs, IRR, op.irr, True)
    after = recalculated(with_vcpu(state, with_regs(vcpu, regs)), 0)
    return Outcome(
        settled(after), 0, because=c.ONE_APIC_STATE, effect=c.ONE_APIC_STATE, also=(c.RESTORE_SYNCS_LOGICAL_TABLE,)
    )


def get_lapic(state: State, op: GetLapic) -> Outcome:
    """One register as user space sees it: the same as the guest (AVIC-053)."""
    vcpu = find(state, op.id)
    assert vcpu is not None
    return Outcome(state, vcpu.regs[op.offset >> 4], because=c.ONE_APIC_STATE)


def set_apic_base(state: State, op: SetApicBase) -> Outcomes:
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
    if invalid or op.value & 0x2FF or op.value >> 48 or (step and not op.host):
        return Outcome(state, 1, because=c.APIC_BASE_REFUSED, effect=c.APIC_BASE_REFUSED)
    regs = vcpu.regs
    kept = [regs]
    if new == DISABLED:
        kept = [NO_REGISTERS]
    elif new == X2APIC and old == XAPIC:
        entered = put(put(put(regs, ID, vcpu.id), LDR, x2_ldr(vcpu.id)), DFR, 0)
        kept = [put(entered, ICR2, high) for high in (regs[ICR2], regs[ICR2] & 0xFF000000)]  # nor what is left of ICR
    elif new == XAPIC and old == X2APIC:  # what LDR and DFR are then, no manual says
        back = put(regs, ID, (vcpu.id & 0xFF) << 24)
        kept = [put(put(back, LDR, ldr), DFR, dfr) for ldr in (regs[LDR], 0) for dfr in (FLAT, CLUSTER)]
    moved = new != DISABLED and op.value & ~0xFFF != APIC_BASE
    if moved:
        vm = state.vms[0]
        assert vm is not None
        mask = vm.inhibits | 1 << INHIBIT_APIC_BASE_MODIFIED
        state = with_vm(state, 0, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
    also = (c.X2APIC_LDR_IS_READ_ONLY,) if new == X2APIC else ()
    because = c.INHIBIT_CONDITIONS if moved else c.ACTIVE_IFF_NOTHING_FORBIDS
    ways = [recalculated(with_vcpu(state, with_regs(vcpu, r, op.value)), 0) for r in dict.fromkeys(kept)]
    return tuple(Outcome(settled(s), 0, because=because, also=also) for s in ways)
