"""What the specification remembers, and the states next to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from conformance.model.avic.operations import Config
from conformance.specs.avic.constants import BASE_AE

# -- state

Registers = tuple[int, ...]
"""The 64 registers at offsets 0x000, 0x010, … 0x3F0; those that no clause fixes stay 0."""


@dataclass(frozen=True, slots=True)
class Host:
    """What setup found."""

    avic: bool = False
    x2avic: bool = False
    ipiv: bool = False
    max_id: int = 0


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM."""

    irqchip: bool
    max_vcpu_ids: int
    inhibits: int = 0
    """Bit mask of inhibit reasons."""


@dataclass(frozen=True, slots=True)
class Vcpu:
    """One vCPU; they are kept in the order of VM and id."""

    vm: int
    id: int
    regs: Registers
    base: int
    """APIC_BASE MSR."""
    core: int = -1
    """APIC id of the core it is loaded on; -1 for none."""
    asleep: bool = False
    in_guest: bool = False
    events: int = 0
    """SMI, NMI, INIT and STARTUP signalled since the last VMRUN, one bit per delivery mode."""
    pending: tuple[int, ...] = ()
    """A deferred exit: () none, (1,) targets to wake, (0, icrl, dest) an IPI to send."""


@dataclass(frozen=True, slots=True)
class Irte:
    """One device interrupt that is routed to a vCPU."""

    irq: int
    id: int
    vector: int
    by_host: bool = False
    """It was not posted when it was routed, and is not later either: the host delivers it."""


@dataclass(frozen=True, slots=True)
class State:
    """What the specification remembers."""

    config: Config = field(compare=False, repr=False)
    host: Host
    vms: tuple[Vm | None, Vm | None] = (None, None)
    vcpus: tuple[Vcpu, ...] = ()
    irtes: tuple[Irte, ...] = ()
    """In the order of irq."""
    late: frozenset[int] = frozenset()
    """Ids of vCPUs of VM 0 that have not yet looked at what they were sent; see `step.step`."""
    passing: frozenset[tuple[int, int]] = frozenset()
    """VM and id of vCPUs whose creation comes to nothing, but takes a while."""
    stale: frozenset[int] = frozenset()
    """Ids of vCPUs of VM 0 whose LDR, DFR or mode changed while AVIC was inactive for them, or with the step that made
    it active or inactive, and that have not run since: their entry in the logical table may be the one from before
    (AVIC-038 is not asked then, AVIC-045 at the next VMRUN)."""
    digest: int = field(default=0, init=False, compare=False, repr=False)
    """The hash once it was asked for: exploration looks a state up far more often than it makes one."""

    def __hash__(self) -> int:
        if not self.digest:
            object.__setattr__(
                self,
                "digest",
                hash((self.host, self.vms, self.vcpus, self.irtes, self.late, self.passing, self.stale)) or 1,
            )
        return self.digest


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


def is_asked(state: State, vm: int = 0) -> bool:
    """Whether the APICs of this VM are the driver's business: always with AVIC on, and in software where that is so."""
    record = state.vms[vm]
    return (state.host.avic or state.config.software) and record is not None and record.irqchip


def is_active(state: State, vcpu: Vcpu) -> bool:
    """Whether AVIC is active for this vCPU (AVIC-085)."""
    vm = state.vms[vcpu.vm]
    return state.host.avic and vm is not None and vm.irqchip and not vm.inhibits and vcpu.base >> BASE_AE & 1 == 1


def is_running(state: State, vcpu: Vcpu) -> bool:
    """Whether IsRunning is 1 in the vCPU's hardware entry (AVIC-030)."""
    return state.host.ipiv and 0 <= vcpu.core <= 0xFFF and not vcpu.asleep and is_active(state, vcpu)


def found(state: State, apic_id: int) -> Vcpu:
    """The vCPU of VM 0 that an operation speaks of: `legal` has seen to it that there is one."""
    vcpu = find(state, apic_id)
    assert vcpu is not None
    return vcpu
