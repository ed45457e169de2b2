"""The world of one hypervisor: which simulators there are, and who knows whom."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from conformance.environment.cet import operations
from conformance.environment.cet.control_registers import ControlRegisters
from conformance.environment.cet.events import Events
from conformance.environment.cet.fpu import Fpu
from conformance.environment.cet.guest_memory import GuestMemory
from conformance.environment.cet.intercepts import Intercepts
from conformance.environment.cet.msrs import Msrs
from conformance.environment.cet.onlookers import Onlookers
from conformance.environment.cet.platform import Platform
from conformance.environment.cet.processors import Processors
from conformance.environment.cet.threads import Thread, Threads
from conformance.environment.cet.users import UserCopies
from conformance.environment.cet.values import Values
from conformance.environment.cet.vcpus import PerVcpu
from conformance.environment.cet.view import view
from conformance.environment.cet.vmcb import Vmcb
from conformance.environment.cet.vmcs import Vmcs
from conformance.environment.cet.vmsa import Vmsa
from conformance.environment.door import Environment
from conformance.model.cet import Config, View
from conformance.model.cet import operations as m
from conformance.model.cet.capabilities import BOTH
from conformance.model.cet.state import SLOTS, State, initial
from conformance.specs.cet import Port, Profile
from conformance.specs.cet import clauses as c
from conformance.verdict import Violation


class Cet(Environment):
    """One hypervisor with two vCPUs on two physical CPUs, of either vendor."""

    PORT = Port
    OPERATIONS = operations.OPERATIONS
    TWO_CPUS = True

    platform: Platform
    processors: Processors
    fpu: Fpu
    msrs: Msrs
    threads: Threads
    vmcs: Vmcs
    vmcb: Vmcb
    vmsa: Vmsa
    crs: ControlRegisters
    memory: GuestMemory
    intercepts: Intercepts
    events: Events
    users: UserCopies
    values: Values
    onlookers: Onlookers

    def __init__(self, config: Config, profile: Profile) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.platform = platform = Platform(self, config)
        self.processors = processors = Processors(self, platform)
        self.fpu = Fpu(self, platform, processors, profile)
        self.msrs = Msrs(self, processors, self.fpu, profile)
        self.threads = Threads(self, processors, self.fpu)
        self.vmcs = Vmcs(self, platform, processors)
        self.vmcb = Vmcb(self, platform, processors)
        self.vmsa = Vmsa(self, platform, processors)
        self.crs = ControlRegisters(self)
        self.memory = GuestMemory(self, platform)
        self.intercepts = Intercepts(self, platform, self.memory, profile)
        self.events = Events(self)
        self.users = UserCopies(self)
        self.values = Values(self, self.threads)
        self.onlookers = Onlookers(self, processors, self.values, profile)
        self.structure: Vmcs | Vmcb = self.vmcb if platform.amd else self.vmcs
        """What VM entries use on this host."""
        self.per_vcpu: tuple[PerVcpu[Any], ...] = (
            self.fpu,
            self.vmsa,
            self.crs,
            self.memory,
            self.intercepts,
            self.events,
            self.values,
        )
        self.deferred: Violation | None = None
        """What was wrong before the first step; the first step reports it."""
        self.traffic = 0
        """Accesses to shadow-stack MSRs during the last exit handled in the kernel."""

    def begin(self, factory: Callable[[Any], Any]) -> None:
        """Load the module, create the configuration's vCPUs."""
        super().begin(factory)
        if self.breach is None:
            self.deferred = operations.set_up(self)
            self.frame.actor = None

    def starting_at(self, state: State) -> State:
        """What the module knows of is its own choice."""
        known = self.platform.known
        return state if known == BOTH else initial(self.config, self.profile, known)

    def digest(self) -> Hashable:
        """Also the fpstates of vCPUs without SHSTK, which may have been kept or cleared, and who is yet to leave L2."""
        lacking = (vcpu for vcpu, permissions in self.intercepts.parts.items() if not permissions.shstk)
        kept = tuple(tuple(self.fpu.parts[vcpu].fpstate or ()) for vcpu in lacking)
        level = self.structure.level
        late = tuple(level(vcpu) for vcpu, thread in self.threads.parts.items() if thread.l2 != (level(vcpu) > 0))
        return super().digest(), kept, late

    def act(self, op: Any) -> Any:
        """Perform one operation; afterwards the thread it interrupted runs again."""
        if self.deferred is not None:
            raise self.deferred
        around = self.frame.outer
        outer: Thread | None = None if around is None else around.actor
        self.frame.actor, atomic = outer, self.atomic
        result = self.OPERATIONS[type(op)](self, op)
        if self.atomic != atomic:
            raise Violation(c.ANSWERS, f"preemption is disabled {self.atomic - atomic} times too often")
        if outer is not None and not outer.on:
            self.threads.switch_to(outer, outer.cpu)
        self.frame.actor = outer
        return result

    def create(self, slot: int) -> Thread:
        """A vCPU with all that hardware and kernel keep for it."""
        thread = self.threads.create(slot)
        self.structure.add(thread.number)
        for simulator in self.per_vcpu:
            simulator.add(thread.number)
        return thread

    def forget(self, vcpu: int) -> None:
        """It is gone."""
        self.threads.remove(vcpu)
        self.structure.remove(vcpu)
        for simulator in self.per_vcpu:
            simulator.remove(vcpu)

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Two vCPUs on two physical CPUs, of which neither comes to the other's."""
        if not (0 <= left.vcpu < SLOTS and 0 <= right.vcpu < SLOTS):
            return False
        first, second = self.threads.slots[left.vcpu], self.threads.slots[right.vcpu]
        if first is None or second is None or first is second:
            return False
        return not {first.cpu, getattr(left, "cpu", first.cpu)} & {second.cpu, getattr(right, "cpu", second.cpu)}

    def can_interrupt(self, op: Any) -> bool:
        """Another thread can run at any point; the interrupted one can only be preempted."""
        if isinstance(op, m.HostTask | m.KernelFpu):
            return True
        thread = self.threads.slots[op.vcpu] if 0 <= op.vcpu < SLOTS else None
        if thread is None:
            return False
        mine = thread is self.frame.actor
        if type(op) is m.Window:
            return thread.loaded and mine
        return (not mine or type(op) is m.Preempt) and thread.live == thread.loaded == (type(op) in m.WHILE_LIVE)

    def view(self) -> View:
        """Registers of the host, and what memory holds for each vCPU."""
        return view(self)
