"""The world of AVIC, wired: memory, tables, hardware and the kernel around one driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from conformance.environment.avic.boot import bring_about
from conformance.environment.avic.company import can_run_beside, is_ready, runs_on
from conformance.environment.avic.host import Host
from conformance.environment.avic.invariants import inspect, tags_are_unique
from conformance.environment.avic.iommu import Iommu
from conformance.environment.avic.locks import KernelLocks
from conformance.environment.avic.memory import Memory, Watch
from conformance.environment.avic.operations import OPERATIONS
from conformance.environment.avic.processor import Processor
from conformance.environment.avic.slots import Slots
from conformance.environment.avic.tables import Tables
from conformance.environment.avic.threads import Threads
from conformance.environment.avic.vcpus import Vcpus
from conformance.environment.avic.view import view
from conformance.environment.avic.vmcbs import Vmcbs
from conformance.environment.door import Environment
from conformance.model.avic import Config, View
from conformance.model.avic import operations as s
from conformance.specs.avic import Candidate, Port, Profile
from conformance.specs.avic import clauses as c


class Avic(Environment):
    """AVIC hardware, and the host and its user space around one driver."""

    PORT: ClassVar[type] = Port
    TWO_CPUS: ClassVar[bool] = True
    OPERATIONS = OPERATIONS

    driver: Candidate
    host: Host
    locks: KernelLocks
    memory: Memory
    slots: Slots
    vcpus: Vcpus
    tables: Tables
    vmcbs: Vmcbs
    processor: Processor
    iommu: Iommu
    threads: Threads

    def __init__(self, config: Config, profile: Profile) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.watch = watch = Watch()
        self.host = Host(self, config, profile)
        self.locks = KernelLocks(self)
        self.memory = Memory(self, self.locks, watch, config.tagged)
        self.slots = Slots(self, self.locks, self.memory, watch)
        self.vcpus = Vcpus(self)
        self.tables = Tables(self, self.memory, self.vcpus, watch)
        self.vmcbs = Vmcbs(self, self.host, self.locks, self.vcpus, self.tables, watch)
        self.processor = Processor(self, config, self.host, self.vcpus, self.tables, watch)
        self.iommu = Iommu(self, self.tables)
        self.threads = Threads(self, self.vcpus, self.tables, self.processor)
        self.booting = False
        """More vCPUs of the configuration are to come, so the invariants can wait."""
        self.last = ""
        """Name of the outermost operation that just ended."""

    def begin(self, factory: Callable[[Any], Any]) -> None:
        """Create the driver, load the module, and bring the configured vCPUs about."""
        super().begin(factory)
        if self.threads.member("hw_setup") is not None:
            bring_about(self)

    def act(self, op: Any) -> Any:
        """Perform an operation, let other vCPUs' threads go on, and examine the invariants when nothing is in progress.

        Inside another operation the other vCPUs wait until that is over. Beside one, on a second
        thread, they go on when this operation is over, whatever the other is in the middle of.
        """
        threads, locks = self.threads, self.locks
        cpu = runs_on(self.vcpus, op)
        if cpu is not None:
            if cpu.busy and self.scheduler is not None:
                self.scheduler.block("the vCPU", lambda: not cpu.busy)
            cpu.busy += 1
        name = self.frame.actor = type(op).__name__
        threads.depth += 1
        try:
            if cpu is not None and cpu.kicked and self.scheduler is not None:
                threads.serve(cpu)  # the guest goes on first
            result = OPERATIONS[type(op)](self, op)
            if locks.owners:
                locks.returned()
            if cpu is not None:
                cpu.busy -= 1
                cpu = None
            if (threads.depth == 1 or self.scheduler is not None) and self.vcpus.order and self.breach is None:
                threads.drain()
        finally:
            if cpu is not None:
                cpu.busy -= 1
            threads.depth -= 1
        if threads.depth == 0:
            self.hold(c.ENTRY_POINTS_RETURN)
            self.last = name
            if self.watch.changed and not self.booting:
                self.watch.changed = False
                self._examine()
        return result

    def _examine(self) -> None:
        """The invariants, and after a creation the tags too."""
        inspect(self)
        if self.last in ("VcpuCreate", "VmCreate"):
            tags_are_unique(self)
            if self.scheduler is not None and self.last == "VcpuCreate":
                self.hold(c.TABLES_PUBLISHED_COMPLETE)

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Whether two threads can do this at once: one vCPU has one thread, and a VM that goes has no vCPU running."""
        return can_run_beside(self.vcpus, left, right)

    def can_interrupt(self, op: Any) -> bool:
        """Whether the vCPU is free and where it must be; its threads may have moved since the step began.

        What happens inside an operation happens in full, so it cannot wait for a lock that this one holds;
        two threads can.
        """
        if self.locks.owners:
            return False
        cpu = runs_on(self.vcpus, op)
        if cpu is not None:
            return not cpu.busy and is_ready(self.vcpus, cpu, op)
        return isinstance(op, s.Deliver | s.Inhibit | s.UpdateIrte | s.IommuPost | s.GaLogNotify)

    def view(self) -> View:
        """What hardware and the host see."""
        return view(self)
