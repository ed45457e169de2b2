"""VMs and vCPUs as generic KVM keeps them, and what a vCPU's thread is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.vmcbs import Vmcb
    from conformance.environment.door import Environment

LOGGING = ("IommuPost", "GaLogNotify")
"""Operations that report log entries."""


class Guest:
    """One VM as the host sees it."""

    __slots__ = ("closed", "dying", "irqchip", "ran", "room")

    def __init__(self, irqchip: bool) -> None:
        self.irqchip = irqchip
        self.room = [2, 1] if irqchip else [0, 0]
        """Pages and objects that creations of its first vCPU may leave behind when they fail: tables and what holds
        them. None once there was a vCPU, or where memory was taken before."""
        self.ran = False
        """Some vCPU was run, so hardware may walk its tables."""
        self.closed = False
        """No thread of its vCPUs exists any more."""
        self.dying = False


@dataclass(slots=True, eq=False)
class Cpu:
    """One vCPU as the host's scheduler and the hardware see it."""

    vm: int
    id: int
    handle: int
    base: int
    vmcb: Vmcb | None = None
    core: int = -1
    last_core: int = -1
    asleep: bool = False
    in_guest: bool = False
    blocking: bool = False
    """Between vcpu_blocking and sleep."""
    woken: bool = False
    signalled: bool = False
    unblocked: bool = False
    """Woken while it had no core: vcpu_unblocking comes after the next load."""
    kicked: bool = False
    """Taken out of the guest, or on the way into it; it goes back once its requests are served."""
    entering: bool = False
    """On the way into the guest."""
    leaving: bool = False
    """Being freed, so that its id may be taken by another."""
    refresh: bool = False
    busy: int = 0
    alive: bool = True
    events: int = 0
    injected: int = -1
    exit: tuple[int, int, int] | None = None
    """A deferred exit: code, EXITINFO1, EXITINFO2."""


class Vcpus(Simulator):
    """Generic KVM's lists of VMs and vCPUs, the requests and events that a vCPU's thread will see, and its emulator.

    A request is a flag: that its target hears of it at once is the threads' business. The emulator and the IOAPIC take
    what they are given; a check counts.
    """

    CLAUSES = (c.ENTRY_POINTS_RETURN, c.DESTROY_LEAVES_GALOG_FIRST, c.INHIBIT_KICKS_AND_LOSES_NOTHING)

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.vms: dict[int, Guest] = {}
        self.cpus: dict[int, Cpu] = {}
        """By the handle that the driver knows."""
        self.listed: dict[tuple[int, int], Cpu] = {}
        """Created vCPUs, in the order of VM and id."""
        self.order: list[Cpu] = []
        """The same as a list."""

    def cpu(self, vcpu: int) -> Cpu:
        """The vCPU a driver names."""
        cpu = self.cpus.get(vcpu)
        if cpu is None:
            raise Violation(c.ENTRY_POINTS_RETURN, f"there is no vCPU {vcpu!r}")
        return cpu

    def named(self, apic_id: int, vm: int = 0) -> Cpu:
        """The vCPU that an operation names."""
        return self.listed[vm, apic_id]

    def of(self, vm: int) -> list[Cpu]:
        """The vCPUs of a VM."""
        return [cpu for cpu in self.order if cpu.vm == vm]

    def make(self, vm: int, apic_id: int, base: int) -> Cpu:
        """A vCPU that is being created, with a handle that none had before."""
        handle = vm << 16 | apic_id
        while handle in self.cpus:
            handle += 1 << 17  # there are two VMs, and an int has 31 bits
        cpu = self.cpus[handle] = Cpu(vm, apic_id, handle, base)
        return cpu

    def enlist(self, cpu: Cpu) -> None:
        """It is created: from now on its VM has it."""
        self.listed[cpu.vm, cpu.id] = cpu
        self.listed = dict(sorted(self.listed.items()))
        self.order = list(self.listed.values())

    def delist(self, cpu: Cpu) -> None:
        """It was freed."""
        cpu.alive = False
        if self.listed.get((cpu.vm, cpu.id)) is cpu:
            del self.listed[cpu.vm, cpu.id]
        self.order = list(self.listed.values())

    def vcpu_mode(self, vcpu: int) -> int:
        """1 in guest mode."""
        return int(self.cpu(vcpu).in_guest)

    def vcpu_cpu(self, vcpu: int) -> int:
        """Core that the vCPU is loaded on."""
        return self.cpu(vcpu).core

    def wake(self, vcpu: int) -> None:
        """Wake a sleeper."""
        cpu = self.cpu(vcpu)
        if not cpu.alive:
            raise Violation(c.DESTROY_LEAVES_GALOG_FIRST, f"wake of vCPU {cpu.id}, which was freed")
        if self.door.frame.actor in LOGGING and cpu.vm in self.vms and self.vms[cpu.vm].dying:
            raise Violation(c.DESTROY_LEAVES_GALOG_FIRST, f"wake of vCPU {cpu.id}, whose VM is being destroyed")
        if cpu.asleep or cpu.blocking:
            cpu.woken = True

    def kick(self, vcpu: int) -> None:
        """Take it out of the guest, or wake it."""
        cpu = self.cpu(vcpu)
        if cpu.in_guest or cpu.entering:
            cpu.in_guest = False
            cpu.kicked = True
        elif cpu.asleep or cpu.blocking:
            cpu.woken = True

    def request_refresh(self, vcpu: int) -> None:
        """The vCPU refreshes before it enters the guest again."""
        self.cpu(vcpu).refresh = True

    def inject(self, vcpu: int, vector: int) -> None:
        """Inject at the coming VMRUN."""
        cpu = self.cpu(vcpu)
        if cpu.injected >= 0:
            raise Violation(c.INHIBIT_KICKS_AND_LOSES_NOTHING, f"inject({vector:#x}) over {cpu.injected:#x}")
        cpu.injected = vector

    def signal(self, vcpu: int, mode: int, vector: int) -> None:
        """SMI, NMI, INIT or STARTUP become pending, and wake."""
        cpu = self.cpu(vcpu)
        cpu.events |= 1 << mode
        if cpu.asleep or cpu.blocking:
            cpu.woken = cpu.signalled = True

    def emulate_instruction(self, vcpu: int) -> int:
        """Emulate the faulting access."""
        self.cpu(vcpu)
        return 1

    def ioapic_eoi(self, vm: int, vector: int) -> None:
        """Broadcast a level EOI; a check counts."""
