"""The scheduler: which vCPU's thread runs on which physical CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import PL0, PL2
from conformance.environment.cet.vcpus import PerVcpu
from conformance.model.cet.operations import Cpuid
from conformance.model.cet.state import CPUS, SLOTS
from conformance.specs.cet import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.cet.fpu import Fpu
    from conformance.environment.cet.processors import Processors
    from conformance.environment.door import Environment


class Thread:
    """The thread of the VMM that runs one vCPU."""

    __slots__ = ("asked", "cpu", "found", "l2", "live", "loaded", "number", "on", "slot")

    def __init__(self, number: int, slot: int) -> None:
        self.number = number
        """How the candidate knows its vCPU."""
        self.slot = slot
        self.cpu = slot % CPUS
        self.on = False
        """It is the one that runs on `cpu`."""
        self.loaded = False
        """The preempt notifier is registered."""
        self.live = False
        """In KVM_RUN's loop."""
        self.l2 = False
        """It is in L2: so it ran last, or so it is to run next."""
        self.found: tuple[int, ...] = ()
        """PL0..PL2_SSP of its physical CPU when it came there."""
        self.asked = Cpuid()
        """The CPUID that the VMM gave the vCPU."""


class Threads(PerVcpu[Thread]):
    """sched/core.c: threads of vCPUs on two physical CPUs, their preempt notifiers, and preempt_disable.

    A thread runs until another comes to its physical CPU, or it blocks. No priorities, no time; threads that are
    no vCPU's show only in what they find in the registers.
    """

    CLAUSES = (c.ANSWERS,)

    def __init__(self, door: Environment, processors: Processors, fpu: Fpu) -> None:
        super().__init__(door)
        self.processors = processors
        self.files = processors.files
        self.fpu = fpu
        self.current: list[Thread | None] = [None] * CPUS
        """Whose thread runs on each physical CPU."""
        self.slots: list[Thread | None] = [None] * SLOTS
        self.created = 0

    def create(self, slot: int) -> Thread:
        """A thread for a vCPU in that slot; its number was never used."""
        self.created += 1
        thread = self.slots[slot] = self.parts[self.created] = Thread(self.created, slot)
        return thread

    def of_slot(self, slot: int) -> Thread:
        """The thread of a vCPU that is there."""
        thread = self.slots[slot]
        assert thread is not None
        return thread

    def remove(self, vcpu: int) -> None:
        """The thread ends; if it is the one that executes, nobody does."""
        thread = self.parts.pop(vcpu)
        if thread.on:
            self.current[thread.cpu] = None
            thread.on = False
        self.slots[thread.slot] = None
        if self.door.frame.actor is thread:
            self.door.frame.actor = None

    def switch_to(self, thread: Thread, cpu: int) -> None:
        """Let the thread run on `cpu`, with the notifiers that takes; from now on it executes."""
        door = self.door
        if not thread.on or thread.cpu != cpu:
            if thread.on:
                self.switch_from(thread)
            current = self.current[cpu]
            if current is not None:
                self.switch_from(current)
            thread.cpu, thread.on = cpu, True
            self.current[cpu] = thread
            door.frame.actor = thread
            if thread.loaded:
                door.atomic += 1
                self.look_around(thread)
                door.enter(door.driver.sched_in, thread.number, cpu)
                door.atomic -= 1
        door.frame.actor = thread

    def switch_from(self, thread: Thread) -> None:
        """Take the thread off its physical CPU: notifier, then the FPU registers."""
        door = self.door
        door.frame.actor = thread
        if thread.loaded:
            door.atomic += 1
            door.enter(door.driver.sched_out, thread.number)
            door.atomic -= 1
            self.processors.out_of_hands(thread.cpu)
        self.fpu.save(thread)
        thread.on = False
        self.current[thread.cpu] = None

    def look_around(self, thread: Thread) -> None:
        """Note what the thread finds in hardware."""
        thread.found = tuple(self.files[thread.cpu][PL0 : PL2 + 1])

    def window(self) -> None:
        """A point of preemption of the generic code, outside of any call of the candidate."""
        door = self.door
        if door.preempt is not None and not door.atomic:
            door.preempt("window")

    def preempt_disable(self) -> None:
        """Atomic context, nested."""
        self.door.atomic += 1

    def preempt_enable(self) -> None:
        """Undo one `preempt_disable`."""
        if not self.door.atomic:
            raise Violation(c.ANSWERS, "preempt_enable without preempt_disable")
        self.door.atomic -= 1
