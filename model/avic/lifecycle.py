"""VMs and vCPUs: creation, reset, a first visit to the guest, the end."""

from __future__ import annotations

from conformance.model.avic.apic import (
    ID,
    LDR,
    NO_REGISTERS,
    TPR,
    default_base,
    deliverable,
    mode_of,
    put,
    reset_registers,
    take,
    with_regs,
)
from conformance.model.avic.inhibits import recalculations
from conformance.model.avic.looking import settled
from conformance.model.avic.operations import (
    Answers,
    Enter,
    GuestStore,
    MemoryPressure,
    TagsPass,
    UserStore,
    VcpuCreate,
    VcpuFree,
    VcpuReset,
    VmcbReinit,
    VmCreate,
    VmDestroy,
    VmTag,
)
from conformance.model.avic.routing import DISABLED, XAPIC
from conformance.model.avic.state import State, Vcpu, Vm, find, has_apic, is_active, with_vcpu, with_vcpus, with_vm
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import EEXIST, EFAULT, EINVAL, ENOMEM, INHIBIT_PHYSICAL_ID_TOO_BIG
from conformance.specs.clause import Clause


def vm_create(state: State, op: VmCreate, env: Answers, _profile: Profile) -> Outcome:
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


def vm_destroy(state: State, op: VmDestroy, _env: Answers, _profile: Profile) -> Outcome:
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
    ways = dict.fromkeys((*recalculations(after, op.vm), after))  # its aliases may be noticed with the next change
    met = (c.REGISTERS_HAVE_RESET_VALUES, c.LVT0_MASKED_AFTER_RESET) if has_apic(state, op.vm) else ()
    created = tuple(Outcome(way, 0, because=because, also=met) for way in ways)
    if big and not profile.inhibits_big_ids:
        return *created, Outcome(state, -EINVAL, because=because)
    return created


def vcpu_free(state: State, op: VcpuFree, _env: Answers, _profile: Profile) -> Outcomes:
    """Free one vCPU: its entries and IRTEs are gone, the inhibits follow from the others (AVIC-052, AVIC-087)."""
    vcpus = tuple(v for v in state.vcpus if (v.vm, v.id) != (op.vm, op.id))
    irtes = tuple(i for i in state.irtes if op.vm or i.id != op.id)
    left = State(state.config, state.host, state.vms, vcpus, irtes, state.late, stale=state.stale)
    because, effect = c.TABLES_FREED_ONCE, c.OTHER_VCPUS_KEEP_REGISTERS
    outcomes = []
    for way in recalculations(left, op.vm):
        vm = way.vms[op.vm]
        assert vm is not None
        outcomes.append(Outcome(way, 0, because=because, effect=effect))
        if vm.inhibits >> INHIBIT_PHYSICAL_ID_TOO_BIG & 1 and not any(
            v.vm == op.vm and v.id > state.host.max_id for v in vcpus
        ):  # whether the inhibit outlives the vCPU is not said
            mask = vm.inhibits & ~(1 << INHIBIT_PHYSICAL_ID_TOO_BIG)
            lifted = with_vm(way, op.vm, Vm(vm.irqchip, vm.max_vcpu_ids, mask))
            outcomes.append(Outcome(settled(lifted), 0, because=because, effect=effect))
    return tuple(outcomes)


def vcpu_reset(state: State, op: VcpuReset, _env: Answers, _profile: Profile) -> Outcomes:
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
    ways = recalculations(with_vcpu(state, v), 0)
    return tuple(Outcome(way, 0, because=c.REGISTERS_HAVE_RESET_VALUES, also=also) for way in ways)


def enter(state: State, op: Enter, _env: Answers, _profile: Profile) -> Outcomes:
    """A short visit to the guest; the result says whether AVIC was active in it.

    With AVIC off, injection may be no business of this driver's.
    """
    vcpu = find(state, op.id, op.vm)
    assert vcpu is not None
    active = int(is_active(state, vcpu))
    v = fresh = Vcpu(vcpu.vm, vcpu.id, vcpu.regs, vcpu.base, vcpu.core, False, False, 0, ())
    vm = state.vms[op.vm]
    if vm is not None and vm.irqchip and mode_of(v.base) != DISABLED:
        vector = deliverable(v)
        v = take(v, vector) if vector >= 0 else v
        if op.tpr >= 0 and state.host.avic:
            v = with_regs(v, put(v.regs, TPR, op.tpr & 0xFF))
            vector = deliverable(v)
            v = take(v, vector) if vector >= 0 else v
    because, effect = c.ACTIVE_IFF_NOTHING_FORBIDS, c.V_TPR_FOLLOWS_TPR
    entered = Outcome(with_vcpu(state, v), active, because=because, effect=effect)
    if state.host.avic or v is fresh:
        return entered
    return entered, Outcome(with_vcpu(state, fresh), active, because=because, effect=effect)


def vmcb_reinit(state: State, _op: VmcbReinit, _env: Answers, _profile: Profile) -> Outcome:
    """The VMCB is as it was, once the driver has rebuilt it."""
    return Outcome(state, 0, because=c.APIC_BAR_FOLLOWS_BASE, effect=c.APIC_BAR_FOLLOWS_BASE)


def vm_tag(state: State, _op: VmTag | TagsPass, _env: Answers, _profile: Profile) -> Outcome:
    """Tags are no part of the state: whatever they are, each is its VM's alone (AVIC-063)."""
    return Outcome(state, 0, because=c.VM_TAG_UNIQUE)


def memory_pressure(state: State, _op: MemoryPressure, _env: Answers, _profile: Profile) -> Outcome:
    """Backing pages stay where they are (AVIC-048)."""
    return Outcome(state, 0, because=c.BACKING_PAGE_STAYS, effect=c.BACKING_PAGE_STAYS)


def store(state: State, _op: GuestStore | UserStore, _env: Answers, _profile: Profile) -> Outcome:
    """A store as to memory reaches no backing page (AVIC-049)."""
    return Outcome(state, 0, because=c.BACKING_PAGE_IS_PRIVATE, effect=c.BACKING_PAGE_IS_PRIVATE)
