"""The vCPUs' threads: what each does when it was woken, kicked or asked, and its way into the guest and out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from conformance.environment.avic.bitmaps import highest
from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_ICR,
    APIC_IRR,
    APIC_ISR,
    APIC_SELF_IPI,
    APIC_TPR,
    BASE_AE,
    EXIT_INCOMPLETE_IPI,
)
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.processor import Processor
    from conformance.environment.avic.tables import Tables
    from conformance.environment.avic.vcpus import Cpu, Vcpus
    from conformance.environment.door import Environment


class Threads(Simulator):
    """KVM's run loop on the thread of each vCPU, and the cores that the host's scheduler gives them.

    Threads that were woken or kicked go on when the operation in progress is over, in the order of VM and id. Signals,
    time slices and halt polling are not modelled.
    """

    CLAUSES = (
        c.INHIBIT_KICKS_AND_LOSES_NOTHING,
        c.OTHER_IPI_EXITS_RESUME,
        c.UNKNOWN_OFFSETS_HARMLESS,
        c.ANY_EXITINFO_TOLERATED,
    )

    def __init__(self, door: Environment, vcpus: Vcpus, tables: Tables, processor: Processor) -> None:
        super().__init__(door)
        self.vcpus = vcpus
        self.tables = tables
        self.processor = processor
        self.depth = 0
        """Operations in progress, one inside another or beside."""

    def drain(self) -> None:
        """Let each vCPU's thread, unless it is in the middle of something, do what it was asked to."""
        waiting = [cpu for cpu in self.vcpus.order if self._has_work(cpu)]
        while waiting:
            for cpu in waiting:
                if self._has_work(cpu):
                    cpu.busy += 1
                    try:
                        self.serve(cpu)
                    finally:
                        cpu.busy -= 1
            waiting = [cpu for cpu in self.vcpus.order if self._has_work(cpu)]

    def _has_work(self, cpu: Cpu) -> bool:
        if cpu.vm in self.vcpus.vms and self.vcpus.vms[cpu.vm].closed:
            return False
        if cpu.busy or cpu.exit is not None:
            return False
        return cpu.woken or cpu.kicked or self._may_refresh(cpu) or self._comes_out(cpu)

    @staticmethod
    def _may_refresh(cpu: Cpu) -> bool:
        return cpu.refresh and cpu.core >= 0 and cpu.exit is None and not cpu.asleep and not cpu.in_guest

    @staticmethod
    def _comes_out(cpu: Cpu) -> bool:
        """A vCPU that runs without AVIC need not be kicked for a refresh: the next tick of the host's clock will do."""
        return cpu.refresh and cpu.in_guest and cpu.vmcb is not None and not cpu.vmcb.is_avic

    def serve(self, cpu: Cpu) -> None:
        """One vCPU's thread does what it was asked to."""
        if self._comes_out(cpu):
            cpu.in_guest, cpu.kicked = False, True
        if cpu.woken:
            self._wake_up(cpu)
        while self._may_refresh(cpu) and not cpu.kicked:
            self._refresh(cpu)
        if cpu.kicked:
            self.reenter(cpu)

    def member(self, name: str) -> Any:
        """Something that not every candidate has, or None; looking for it may run code of the candidate's."""
        return self.door.enter(getattr, self.door.driver, name, None)

    def _refresh(self, cpu: Cpu) -> None:
        cpu.refresh = False
        refresh = self.member("refresh")  # what only keeps tables has nothing to look at again
        if refresh is not None:
            self.door.enter(refresh, cpu.handle)

    def _wake_up(self, cpu: Cpu) -> None:
        """A woken vCPU looks whether there is something for it, and sleeps on if not."""
        cpu.woken = False
        signalled, cpu.signalled = cpu.signalled, False
        if not cpu.asleep or not (signalled or self.deliverable(cpu)):
            return
        cpu.asleep = False
        if cpu.core < 0:
            cpu.unblocked = True
        else:
            self.door.enter(self.door.driver.vcpu_unblocking, cpu.handle)

    def deliverable(self, cpu: Cpu) -> bool:
        """Whether there is a vector in the backing page that the vCPU can take."""
        page = self.tables.backing_page(cpu)
        if page is None or not cpu.base >> BASE_AE & 1:
            return False
        tpr = page.words[APIC_TPR >> 2] >> 4 & 0xF
        return highest(page, APIC_IRR) >> 4 > max(tpr, highest(page, APIC_ISR) >> 4)

    def reenter(self, cpu: Cpu) -> None:
        """Back into the guest: requests, preparation, VMRUN."""
        cpu.entering = True
        while True:
            cpu.kicked = False
            self._prepare(cpu)
            if cpu.kicked and cpu.injected < 0:
                continue  # the last look before VMRUN finds that there is something new
            self.processor.vmrun(cpu)
            if not cpu.kicked:
                break
            cpu.in_guest = False  # what was injected goes first
        cpu.entering = False

    def _prepare(self, cpu: Cpu) -> None:
        """What was requested, and the driver's preparation; an injection must be what it moved to ISR."""
        if cpu.refresh:
            self._refresh(cpu)
        page = self.tables.backing_page(cpu)
        isr = -1 if page is None else highest(page, APIC_ISR)
        cpu.injected = -1
        self.door.enter(self.door.driver.prepare_guest, cpu.handle)
        while cpu.refresh:  # asked for while preparing: the last look before VMRUN finds it
            if cpu.injected >= 0:
                cpu.kicked = True  # what was injected goes first, and the vCPU comes back for the request
                break
            self._refresh(cpu)
            self.door.enter(self.door.driver.prepare_guest, cpu.handle)
        page = self.tables.backing_page(cpu)
        if page is not None:
            taken = highest(page, APIC_ISR)
            if taken > isr and cpu.injected != taken:
                detail = f"vector {taken:#x} moved to ISR of vCPU {cpu.id} but not injected"
                raise Violation(c.INHIBIT_KICKS_AND_LOSES_NOTHING, detail)

    def handle(self, cpu: Cpu, exit_: tuple[int, int, int]) -> None:
        """An AVIC exit: the handler runs outside the guest and must resume it."""
        code, info1, info2 = exit_
        cpu.in_guest = False
        if code == EXIT_INCOMPLETE_IPI:
            clause = c.OTHER_IPI_EXITS_RESUME
            result = self.quietly(self.door.driver.incomplete_ipi_exit, cpu.handle, info1, info2)
        else:
            clause = c.UNKNOWN_OFFSETS_HARMLESS
            result = self.door.enter_int(self.door.driver.noaccel_exit, cpu.handle, info1, info2)
        self.door.require(clause, result == 1, f"the handler of exit {code:#x} returned {result}, not 1 (resume)")
        self.resume(cpu)

    def quietly(self, handler: Callable[..., int], *args: int) -> int:
        """An IPI's handler, in which nothing is logged that a guest can cause; others' threads may log."""
        log = self.door.frame.log
        first = len(log)
        result = self.door.enter_int(handler, *args)
        texts = [call[1][0] for call in log[first:] if call[0] == "warn"]
        self.door.require(c.ANY_EXITINFO_TOLERATED, not texts, f"warned {texts[0]!r}" if texts else "")
        return result

    def resume(self, cpu: Cpu) -> None:
        """Back into the guest after an exit, now or when whoever interrupted it is done."""
        if self.depth > 1 and cpu.refresh and self.door.scheduler is None:
            cpu.kicked = True  # who asked is still at it; the request is served when that is over
            return
        self.reenter(cpu)

    def access(self, cpu: Cpu, *accesses: tuple[int, int]) -> int:
        """Intercepted writes, one exit each; stops at the first #GP."""
        result = 0
        for offset, value in accesses:
            cpu.in_guest = False
            enter = self.quietly if offset in (APIC_ICR, APIC_SELF_IPI) else self.door.enter_int
            result = enter(self.door.driver.apic_access, cpu.handle, offset, value)
            self.resume(cpu)
            if result:
                break
        return result

    def arrive(self, cpu: Cpu) -> None:
        """The thread got the core that the vCPU says it is on."""
        self.door.enter(self.door.driver.vcpu_load, cpu.handle, cpu.core)
        if cpu.unblocked:
            cpu.unblocked = False
            self.door.enter(self.door.driver.vcpu_unblocking, cpu.handle)
        if cpu.refresh and not cpu.asleep:
            self._refresh(cpu)

    def leave_core(self, cpu: Cpu) -> None:
        """The thread loses its core, and is out of the guest by then."""
        cpu.in_guest = cpu.kicked = False
        put = self.member("vcpu_put")
        if put is not None:
            self.door.enter(put, cpu.handle)
        cpu.last_core, cpu.core = cpu.core, -1
