"""The host that runs vCPUs: operations of the harness, the run loop, and what can be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from conformance.environment.avic.calls import Calls, Guest
from conformance.environment.avic.hardware import CACHED, Cpu, change, evaluate, has, highest, send
from conformance.environment.avic.inspect import inspect, resources
from conformance.environment.avic.memory import Page
from conformance.model import avic as model
from conformance.model.avic import operations as o
from conformance.model.avic.apic import default_base, mode_of
from conformance.model.avic.boot import boot, setup_of
from conformance.model.avic.ipi import icr_low
from conformance.model.avic.routing import X2APIC
from conformance.model.avic.setup import detected, features
from conformance.specs.avic import Candidate, Port, Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SELF_IPI,
    APIC_SPIV,
    APIC_TMR,
    APIC_TPR,
    BASE_AE,
    CLEAN_AVIC,
    CLUSTER,
    ENTRY_RUNNING,
    EXIT_INCOMPLETE_IPI,
    EXIT_NOACCEL,
    FAULT_READS,
    FLAT,
    ICR_BUSY,
    INT_CTL_INTR_MASKING,
    LVT_MASKED,
    TLB_FLUSH_ASID,
    TRAP_WRITES,
    VMCB_APIC_BAR,
    VMCB_ASID,
    VMCB_INT_CTL,
    VMCB_NESTED_CTL,
    VMCB_PHYSICAL_TABLE,
    VMCB_TLB_CONTROL,
    X2_ICR_RESERVED,
    X2APIC_MSRS,
)
from conformance.specs.clause import Clause
from conformance.verdict import Violation

UNSEEN = (0x03, 0x09, 0x0A, 0x0B, 0x0C, 0x28, 0x2F, 0x39, 0x3F)
"""Registers that no clause fixes: LVR, APR, PPR, EOI, RRR, ESR, CMCI LVT, current count, SELF_IPI."""
LVT_SEEN = 0xFFF900FF
"""Bits of an LVT that clauses fix: vector, mask, and the reserved ones above."""
BOOT_CLAUSES: dict[type, Clause] = {
    o.VmCreate: c.TABLES_BELONG_TO_ONE_VM,
    o.VcpuCreate: c.ACTIVE_IFF_NOTHING_FORBIDS,
    o.SetApicBase: c.APIC_BASE_REFUSED,
    o.SetLapic: c.ONE_APIC_STATE,
    o.Load: c.IS_RUNNING_TELLS_THE_TRUTH,
    o.VmRun: c.ACTIVE_IFF_NOTHING_FORBIDS,
}
"""Cited when an operation that brings a configured vCPU about is refused."""
VISITING_CORE = 0x40
"""Core of the first vCPU that `Enter` loads for a short visit."""


class World(Calls):
    """AVIC hardware, the host's scheduler and user space around one driver."""

    PORT: ClassVar[type] = Port
    TWO_CPUS: ClassVar[bool] = True
    driver: Candidate

    def __init__(self, config: model.Config, profile: Profile) -> None:
        super().__init__(config, profile)
        self.depth = 0
        self.booting = False
        """More vCPUs of the configuration are to come, so the invariants can wait."""
        self.was_posted = False
        """Whether the device interrupt raised last went past the host."""
        self.delivering = 0
        """Device interrupts in host mode that are on their way into the driver."""
        self.on_core: dict[int, Cpu] = {}
        """The vCPU that each core ran last."""
        self.order: list[Cpu] = []
        self.routes: dict[int, tuple[int, int]] = {}
        """Where each device interrupt was last sent to: vCPU id (-1 for none) and vector."""
        self.loaded = setup_of(config)
        """How the module was last loaded."""
        self.before: tuple[int, ...] = ()
        """Logical table entries before a write of LDR or DFR; see the check on it."""

    # -- performing

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Create the driver, load the module, and bring the configured vCPUs about."""
        super().start(factory)
        if getattr(self.driver, "hw_setup", None) is None:
            return
        config = self.config
        self._setup(self.loaded)
        ops = boot(config, self.profile)
        for n, op in enumerate(ops, 1):
            self.booting = n < len(ops)
            result = self.perform(op)
            if result != 0:
                raise self.remember(Violation(BOOT_CLAUSES[type(op)], f"{op!r} returned {result!r}, not 0", "boot"))
        if ops:
            self._compare_boot(model.initial(config, self.profile))

    def _compare_boot(self, state: model.State) -> None:
        """What the configured vCPUs look like is judged before anything else happens."""
        expected, got = model.view(state), self.view()
        for name, clause in model.VIEW_CLAUSES.items():
            if getattr(expected, name) != getattr(got, name):
                last = o.SetLapic() if self.config.enabled else o.VcpuReset()
                cited = model.cite(state, last, name, expected, got)
                if name == "regs" and self.config.enabled:
                    cited = c.ONE_APIC_STATE
                raise self.remember(Violation(cited or clause, f"after the start {name} is not as expected", "boot"))

    def perform(self, op: Any) -> Any:
        """Perform an operation, let other vCPUs' threads go on, and examine the invariants when nothing is in progress.

        Inside another operation the other vCPUs wait until that is over. Beside one, on a second
        thread, they go on when this operation is over, whatever the other is in the middle of.
        """
        cpu = self._runs_on(op)
        if cpu is not None:
            if cpu.busy and self.scheduler is not None:
                self.scheduler.block("the vCPU", lambda: not cpu.busy)
            cpu.busy += 1
        frame = self.frame
        frame.actor = type(op).__name__
        self.depth += 1
        try:
            if cpu is not None and cpu.kicked and self.scheduler is not None:
                self._serve(cpu)  # the guest goes on first
            result = self.OPERATIONS[type(op)](self, op)
            if frame in self.locks.values():
                name = next(key[0] for key, owner in self.locks.items() if owner is frame)
                raise Violation(c.ACQUISITIONS_BALANCE, f"returned with {name} held")
            if cpu is not None:
                cpu.busy -= 1
                cpu = None
            if (self.depth == 1 or self.scheduler is not None) and self.order and self.breach is None:
                self._drain()
        finally:
            if cpu is not None:
                cpu.busy -= 1
            self.depth -= 1
        if self.depth == 0:
            self.hold(c.ENTRY_POINTS_RETURN)
            self.last = type(op).__name__
            if self.changed and not self.booting:
                self.changed = False
                inspect(self)
                if self.last in ("VcpuCreate", "VmCreate"):
                    self._check_tags()
                    if self.scheduler is not None and self.last == "VcpuCreate":
                        self.hold(c.TABLES_PUBLISHED_COMPLETE)
        return result

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Whether two threads can do this at once: one vCPU has one thread, and a VM that goes has no vCPU running."""
        if getattr(left, "defer", False) or getattr(right, "defer", False):
            return False
        if any(isinstance(op, o.VmDestroy) for op in (left, right)):
            gone, other = (left, right) if isinstance(left, o.VmDestroy) else (right, left)
            if isinstance(other, o.VmCreate | o.VcpuCreate):
                return bool(other.vm != gone.vm)
            return isinstance(other, o.IommuPost | o.GaLogNotify)
        if isinstance(left, o.VmCreate) and isinstance(right, o.VmCreate):
            return left.vm != right.vm
        if isinstance(left, o.VcpuFree) or isinstance(right, o.VcpuFree):
            return False  # whoever walks all vCPUs may rely on those that live
        if any(isinstance(op, o.VcpuCreate) and op.abandoned for op in (left, right)):
            # Given up before generic code listed it: only another creation meets it.
            return isinstance(left, o.VcpuCreate) and isinstance(right, o.VcpuCreate)
        own = self._runs_on(left)
        return own is None or own is not self._runs_on(right)

    def can_interrupt(self, op: Any) -> bool:
        """Whether the vCPU is free and where it must be; its threads may have moved since the step began.

        What happens inside an operation happens in full, so it cannot wait for a lock that this one holds;
        two threads can.
        """
        if self.locks:
            return False
        cpu = self._runs_on(op)
        if cpu is not None:
            return not cpu.busy and self._is_ready(cpu, op)
        return isinstance(op, o.Deliver | o.Inhibit | o.UpdateIrte | o.IommuPost | o.GaLogNotify)

    def _is_ready(self, cpu: Cpu, op: Any) -> bool:
        if cpu.exit is not None or cpu.kicked or cpu.woken:
            return isinstance(op, o.HandleExit) and not cpu.kicked and not cpu.woken
        match op:
            case o.Block():
                return cpu.core >= 0 and not cpu.asleep and not cpu.in_guest
            case o.Unblock():
                return cpu.core >= 0 and cpu.asleep
            case o.VmRun():
                return cpu.core >= 0 and not cpu.asleep and not cpu.in_guest
            case o.Put():
                return cpu.core >= 0
            case o.Load():
                return cpu.core < 0 and all(other.core != op.host_id for other in self.order)
            case o.GuestIpi(defer=True):
                return False
            case o.Exit() | o.GuestIpi() | o.GuestEoi() | o.GuestWrite() | o.GuestRead() | o.GuestSelfIpi():
                return cpu.in_guest
            case _:
                return False

    def _runs_on(self, op: Any) -> Cpu | None:
        """The vCPU whose thread performs this operation."""
        if isinstance(op, o.Deliver | o.VcpuCreate | o.VcpuFree | o.UpdateIrte | o.X2Ldr):
            return None
        apic_id = getattr(op, "id", None)
        return None if apic_id is None else self.listed.get((getattr(op, "vm", 0), apic_id))

    def _cpu(self, apic_id: int, vm: int = 0) -> Cpu:
        return self.listed[vm, apic_id]

    def _drain(self) -> None:
        """Let each vCPU's thread, unless it is in the middle of something, do what it was asked to."""
        waiting = [cpu for cpu in self.order if self._has_work(cpu)]
        while waiting:
            for cpu in waiting:
                if self._has_work(cpu):
                    cpu.busy += 1
                    try:
                        self._serve(cpu)
                    finally:
                        cpu.busy -= 1
            waiting = [cpu for cpu in self.order if self._has_work(cpu)]

    def _has_work(self, cpu: Cpu) -> bool:
        if cpu.vm in self.vms and self.vms[cpu.vm].closed:
            return False
        return not cpu.busy and cpu.exit is None and (cpu.woken or cpu.kicked or self._may_refresh(cpu))

    @staticmethod
    def _may_refresh(cpu: Cpu) -> bool:
        return cpu.refresh and cpu.core >= 0 and cpu.exit is None and not cpu.asleep and not cpu.in_guest

    def _serve(self, cpu: Cpu) -> None:
        """One vCPU's thread does what it was asked to."""
        if cpu.woken:
            self._wake_up(cpu)
        while self._may_refresh(cpu) and not cpu.kicked:
            self._refresh(cpu)
        if cpu.kicked:
            self._reenter(cpu)

    def _refresh(self, cpu: Cpu) -> None:
        cpu.refresh = False
        self.enter(self.driver.refresh, cpu.handle)

    def _wake_up(self, cpu: Cpu) -> None:
        """A woken vCPU looks whether there is something for it, and sleeps on if not."""
        cpu.woken = False
        signalled, cpu.signalled = cpu.signalled, False
        if not cpu.asleep or not (signalled or self._deliverable(cpu)):
            return
        cpu.asleep = False
        if cpu.core < 0:
            cpu.unblocked = True
        else:
            self.enter(self.driver.vcpu_unblocking, cpu.handle)

    def _deliverable(self, cpu: Cpu) -> bool:
        page = self.backing_page(cpu)
        if page is None or not cpu.base >> BASE_AE & 1:
            return False
        tpr = page.words[APIC_TPR >> 2] >> 4 & 0xF
        return highest(page, APIC_IRR) >> 4 > max(tpr, highest(page, APIC_ISR) >> 4)

    # -- running a vCPU

    def _reenter(self, cpu: Cpu) -> None:
        """Back into the guest: requests, preparation, VMRUN."""
        cpu.entering = True
        while True:
            cpu.kicked = False
            self._prepare(cpu)
            if cpu.kicked and cpu.injected < 0:
                continue  # the last look before VMRUN finds that there is something new
            self._vmrun(cpu)
            if not cpu.kicked:
                break
            cpu.in_guest = False  # what was injected goes first
        cpu.entering = False

    def _prepare(self, cpu: Cpu) -> None:
        """What was requested, and the driver's preparation; an injection must be what it moved to ISR."""
        if cpu.refresh:
            self._refresh(cpu)
        page = self.backing_page(cpu)
        isr = -1 if page is None else highest(page, APIC_ISR)
        cpu.injected = -1
        self.enter(self.driver.prepare_guest, cpu.handle)
        while cpu.refresh:  # asked for while preparing: the last look before VMRUN finds it
            self._refresh(cpu)
            if cpu.injected < 0:
                self.enter(self.driver.prepare_guest, cpu.handle)
        page = self.backing_page(cpu)
        if page is not None:
            taken = highest(page, APIC_ISR)
            if taken > isr and cpu.injected != taken:
                detail = f"vector {taken:#x} moved to ISR of vCPU {cpu.id} but not injected"
                raise Violation(c.INHIBIT_KICKS_AND_LOSES_NOTHING, detail)

    def _vmrun(self, cpu: Cpu) -> None:
        """VMRUN: consistency checks, caches, and delivery (APM 15.29.4)."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        fields = vmcb.fields
        control = fields.get(VMCB_INT_CTL, 0)
        self.vms[cpu.vm].ran = True
        self.changed = self.changed or vmcb.cached is None
        mode = control >> 30 & 3
        if mode:
            self._check_controls(cpu, control, mode)
        if mode != 3 and self.known_host.avic:
            detail = f"vCPU {cpu.id} enters with x2APIC MSRs open and int_ctl {control:#x}"
            self.require(c.X2APIC_MSRS_INTERCEPTED, not vmcb.opened, detail)
        now = tuple(fields.get(offset, 0) for offset in CACHED)
        if vmcb.cached is not None and vmcb.clean >> CLEAN_AVIC & 1 and now != vmcb.cached:
            offset = next(o for o, a, b in zip(CACHED, now, vmcb.cached, strict=True) if a != b)
            raise Violation(
                c.CLEAN_BIT_CLEARED_ON_CHANGE, f"VMCB {offset:#x} of vCPU {cpu.id} changed with clean bit 11 set"
            )
        self.hold(c.CLEAN_BIT_CLEARED_ON_CHANGE)
        vmcb.cached, vmcb.clean = now, 0xFFFFFFFF
        if self.applies(c.TLB_FLUSHED_ON_ACTIVATION):
            self._check_flushes(cpu, mode)
        vmcb.mode = mode
        vmcb.flush = False
        self.on_core[cpu.core] = cpu
        cpu.in_guest = True
        page = self.backing_page(cpu)
        if page is None or not cpu.base >> BASE_AE & 1:
            return
        tpr = page.words[APIC_TPR >> 2] >> 4 & 0xF
        self.require(
            c.V_TPR_FOLLOWS_TPR,
            control & 0xF == tpr,
            f"vCPU {cpu.id} enters with V_TPR {control & 0xF:#x} while TPR[7:4] is {tpr:#x}",
        )
        if mode & 2:
            evaluate(page, control & 0xF)

    def _check_controls(self, cpu: Cpu, control: int, mode: int) -> None:
        vmcb = cpu.vmcb
        assert vmcb is not None
        fine = mode & 2 and control >> INT_CTL_INTR_MASKING & 1 and vmcb.get(VMCB_NESTED_CTL) & 1
        detail = f"vCPU {cpu.id}: int_ctl {control:#x}, nested_ctl {vmcb.get(VMCB_NESTED_CTL):#x}"
        self.require(c.ACTIVE_CONTROLS_SET, bool(fine) or mode == 1, detail)
        x2 = mode & 1
        fits = not x2 or (mode == 3 and mode_of(cpu.base) == X2APIC and self.known_host.x2avic)
        self.require(c.X2_BIT_ONLY_IN_X2APIC_MODE, fits, f"{detail}, APIC_BASE {cpu.base:#x}")
        limit = 255 if not x2 else max(self.known_host.max_id, 511)
        index = vmcb.get(VMCB_PHYSICAL_TABLE) & 0xFFF
        self.require(c.MAX_INDEX_IN_RANGE, index <= limit, f"vCPU {cpu.id}: maximum index {index}, limit {limit}")

    def _check_flushes(self, cpu: Cpu, mode: int) -> None:
        """Translations of the APIC page must not survive a change of what it means (AVIC-022)."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        flush = vmcb.get(VMCB_TLB_CONTROL)
        if mode and mode != vmcb.mode:
            done = vmcb.flush or flush in (1, TLB_FLUSH_ASID)
            self.require(
                c.TLB_FLUSHED_ON_ACTIVATION, done, f"vCPU {cpu.id} enters with AVIC mode {mode} without a flush"
            )
        last = self.on_core.get(cpu.core)
        if mode != 2 or last is None or last is cpu or last.vm != cpu.vm or not last.alive or last.vmcb is None:
            return
        if last.vmcb.get(VMCB_ASID) == vmcb.get(VMCB_ASID):
            self.require(
                c.TLB_FLUSHED_ON_ACTIVATION,
                flush in (1, TLB_FLUSH_ASID) or vmcb.flush,
                f"core {cpu.core:#x} ran vCPU {last.id}, now vCPU {cpu.id} with TLB_CONTROL {flush}",
            )

    def doorbell(self, host_id: int) -> None:
        """A vCPU in guest mode on that core looks at its IRR; otherwise nothing happens."""
        bits = 0xFF if self.config.narrow_host_ids else 0xFFF
        for cpu in self.order:
            if cpu.in_guest and cpu.core & bits == host_id & bits:
                self._evaluate(cpu)

    def _evaluate(self, cpu: Cpu) -> None:
        page, vmcb = self.backing_page(cpu), cpu.vmcb
        if page is not None and vmcb is not None and vmcb.is_avic and cpu.base >> BASE_AE & 1:
            evaluate(page, vmcb.get(VMCB_INT_CTL) & 0xF)

    def _handle(self, cpu: Cpu, exit_: tuple[int, int, int]) -> None:
        """An AVIC exit: the handler runs outside the guest and must resume it."""
        code, info1, info2 = exit_
        cpu.in_guest = False
        if code == EXIT_INCOMPLETE_IPI:
            handler, clause = self.driver.incomplete_ipi_exit, c.OTHER_IPI_EXITS_RESUME
        else:
            handler, clause = self.driver.noaccel_exit, c.UNKNOWN_OFFSETS_HARMLESS
        result = self.enter_int(handler, cpu.handle, info1, info2)
        self.require(clause, result == 1, f"the handler of exit {code:#x} returned {result}, not 1 (resume)")
        self._resume(cpu)

    def _resume(self, cpu: Cpu) -> None:
        if self.depth > 1 and cpu.refresh and self.scheduler is None:
            cpu.kicked = True  # who asked is still at it; the request is served when that is over
            return
        self._reenter(cpu)

    def _access(self, cpu: Cpu, *accesses: tuple[int, int]) -> int:
        """Intercepted writes, one exit each; stops at the first #GP."""
        result = 0
        for offset, value in accesses:
            cpu.in_guest = False
            result = self.enter_int(self.driver.apic_access, cpu.handle, offset, value)
            self._resume(cpu)
            if result:
                break
        return result

    def _is_open(self, cpu: Cpu, offset: int) -> bool:
        """Whether hardware performs a guest's write to this register without asking."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        if not vmcb.is_avic:
            return False
        if mode_of(cpu.base) != X2APIC:
            return True
        return vmcb.is_x2avic and (X2APIC_MSRS + (offset >> 4), 1) in vmcb.opened

    # -- operations: setup and lifecycle

    def _setup(self, op: o.HwSetup) -> int:
        self.loaded = op
        host, because = detected(op, self.profile)
        self.known_host = host
        got = self.enter_int(
            self.driver.hw_setup,
            op.edx,
            op.ecx,
            int(op.npt),
            op.family,
            int(op.zen4),
            int(op.snp),
            int(op.hv_inuse_wr),
            op.avic,
            int(op.force),
            int(op.ipiv),
            self.config.next_tag,
        )
        wanted = features(host)
        for mask, clause in (
            (1, because),
            (2, c.X2AVIC_ALONE_IS_NOTHING),
            (4, c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES),
        ):
            self.require(clause, not (got ^ wanted) & mask, f"hw_setup returned {got:#x}, expected {wanted:#x}")
        self.require(c.HIGHEST_APIC_ID, got == wanted, f"hw_setup returned {got:#x}, expected {wanted:#x}")
        return got

    def hw_setup(self, op: o.HwSetup) -> int:
        """Unload the module and load it on another host."""
        self.enter(self.driver.hw_unsetup)
        return self._setup(op)

    def hw_unsetup(self, op: o.HwUnsetup) -> int:
        """Unload and load: no notifier may stay in between."""
        self.enter(self.driver.hw_unsetup)
        self.require(c.DESTROY_LEAVES_GALOG_FIRST, self.notifiers == 0, "a notifier is registered after module exit")
        return self._setup(self.loaded)

    def vm_create(self, op: o.VmCreate) -> int:
        """Create a VM; when something later fails it is destroyed at once."""
        before = resources(self)
        result = self.enter_int(self.driver.vm_create, op.vm, int(op.irqchip), op.max_vcpu_ids)
        if result == 0 and not op.abandoned:
            self.vms[op.vm] = Guest(op.irqchip)
            if not self.known_host.avic:
                fresh = self.scheduler is not None or resources(self)[0] == before[0]
                self.require(c.OFF_MEANS_UNTOUCHED, fresh, "a page was allocated with AVIC off")
            return 0
        if result == 0:
            self.enter(self.driver.vm_destroy, op.vm)
        if self.scheduler is None:
            after = resources(self)
            self.require(c.FAILED_VM_LEAVES_NOTHING, before == after, f"left behind: {_difference(before, after)}")
        return result

    def vm_destroy(self, op: o.VmDestroy) -> int:
        """Destroy a VM and its vCPUs."""
        guest = self.vms[op.vm]
        mine = [cpu for cpu in self.order if cpu.vm == op.vm]
        if self.scheduler is not None and any(cpu.busy for cpu in mine):
            self.scheduler.block("the vCPUs", lambda: not any(cpu.busy for cpu in mine))
        guest.closed = True
        self.enter(self.driver.vm_pre_destroy, op.vm)
        guest.dying = True
        if self.delivering and self.scheduler is not None:
            self.scheduler.block("deliveries", lambda: not self.delivering)
        for cpu in [cpu for cpu in self.order if cpu.vm == op.vm]:
            if cpu.core >= 0:
                self._leave_core(cpu)
            self._free(cpu)
        self.enter(self.driver.vm_destroy, op.vm)
        del self.vms[op.vm]
        if op.vm == 0:
            self.irtes.clear()
        if not self.vms and self.depth == 1:
            left = len(self.memory.pages) + len(self.handles) + len(self.memory.slots)
            pages = [hex(address) for address in self.memory.pages]
            self.require(
                c.TABLES_FREED_ONCE,
                left == 0,
                f"left: pages {pages}, {len(self.handles)} objects, {len(self.memory.slots)} memslots",
            )
        return 0

    def _free(self, cpu: Cpu) -> None:
        cpu.leaving = True
        self.enter(self.driver.vcpu_free, cpu.handle)
        cpu.alive = False
        self.require(c.TABLES_FREED_ONCE, cpu.vmcb is None, f"vCPU {cpu.id} was freed without its VMCB")
        if self.listed.get((cpu.vm, cpu.id)) is cpu:
            del self.listed[cpu.vm, cpu.id]
        self.order = list(self.listed.values())
        self.backing = {frame: owner for frame, owner in self.backing.items() if owner is not cpu}

    def vm_tag(self, op: o.VmTag) -> int:
        """0 for a good tag, 1 for none though there are vCPUs, 2 for one that another VM has."""
        tags = {vm: self.enter_int(self.driver.vm_tag, vm) for vm in self.vms}
        own = tags[op.vm]
        needed = self.known_host.avic and self.vms[op.vm].irqchip and any(cpu.vm == op.vm for cpu in self.order)
        if own == 0:
            return int(needed)
        return 2 if any(vm != op.vm and tag == own for vm, tag in tags.items()) else 0

    def _check_tags(self) -> None:
        """Each VM with vCPUs has a tag, and nobody else has it."""
        if not self.known_host.avic:
            return
        tags = {vm: self.enter_int(self.driver.vm_tag, vm) for vm, guest in self.vms.items() if guest.irqchip}
        for vm, tag in tags.items():
            used = any(cpu.vm == vm for cpu in self.order)
            detail = f"VM {vm} has tag {tag:#x}, the others {[hex(t) for v, t in tags.items() if v != vm]}"
            alone = all(other != tag for v, other in tags.items() if v != vm)
            self.require(c.VM_TAG_UNIQUE, (tag != 0 or not used) and (tag == 0 or alone), detail)

    def vcpu_create(self, op: o.VcpuCreate) -> int:
        """Create a vCPU, with the VM's lock around the first half, and RESET it."""
        driver = self.driver
        key = ("kvm", op.vm)
        if key in self.locks and self.scheduler is not None:
            self.scheduler.block("kvm->lock", lambda: key not in self.locks)
        self.locks[key] = self.frame
        try:
            result = self.enter_int(driver.vm_precreate, op.vm)
        finally:
            self.locks.pop(key, None)
        if result:
            return result
        handle = op.vm << 16 | op.id
        while handle in self.cpus:
            handle += 1 << 24
        cpu = Cpu(op.vm, op.id, handle, default_base(op.id))
        self.cpus[handle] = cpu
        before, regs = resources(self), self._all_registers()
        result = self.enter_int(driver.vcpu_create, op.vm, handle, op.id)
        if result:
            cpu.alive = False
            self._require_unchanged(op, before)
            if self.scheduler is None:
                clause = c.DUPLICATE_ID_REFUSED if (op.vm, op.id) in self.listed else c.OTHER_VCPUS_KEEP_REGISTERS
                self.require(clause, regs == self._all_registers(), "a creation that failed changed registers")
            return result
        other = self.listed.get((op.vm, op.id))
        self.require(c.DUPLICATE_ID_REFUSED, other is None or other.leaving, f"vCPU {op.id} was created a second time")
        if other is None or other.leaving:
            self.listed[op.vm, op.id] = cpu
            self.listed = dict(sorted(self.listed.items()))
            self.order = list(self.listed.values())
        self.changed = True
        cpu.busy += 1
        self.enter(driver.vcpu_reset, handle, 0)
        cpu.busy -= 1
        if op.abandoned:
            self._free(cpu)
            self._require_unchanged(op, before)
        return result

    def vcpu_free(self, op: o.VcpuFree) -> int:
        """Free one vCPU of a VM that lives on."""
        cpu = self.listed[op.vm, op.id]
        self.changed = True
        self._free(cpu)
        left = [irq for irq, irte in self.irtes.items() if irte.posted and irte.page not in self.backing]
        self.require(c.OLD_VCPU_FORGETS_IRTE, not left, f"irqs {left} are posted to a vCPU that was freed")
        for irq in [irq for irq, (apic_id, _) in self.routes.items() if (op.vm, apic_id) == (0, op.id)]:
            self.routes[irq] = (-1, 0)
        return 0

    def tags_pass(self, op: o.TagsPass) -> int:
        """Move the generator of tags, where the driver lets us."""
        move = getattr(self.driver, "tags_pass", None)
        if move is not None:
            self.enter(move, op.next)
        return 0

    def _all_registers(self) -> list[tuple[int, ...] | None]:
        return [self._registers(cpu) for cpu in self.order]

    def _require_unchanged(self, op: o.VcpuCreate, before: tuple[Any, ...]) -> None:
        """What a creation that came to nothing leaves; another thread's work is not told apart."""
        if self.scheduler is not None:
            return
        after = resources(self)
        clause = c.FAILED_CREATE_LEAVES_NOTHING
        if not op.abandoned and (op.vm, op.id) in self.listed:
            clause = c.DUPLICATE_ID_REFUSED
        self.require(clause, before == after, f"changed by a creation that failed: {_difference(before, after)}")

    def vcpu_reset(self, op: o.VcpuReset) -> int:
        """RESET or INIT."""
        cpu = self._cpu(op.id)
        if not op.init:
            cpu.base = default_base(op.id)
        cpu.events = 0
        self.changed = True
        self.enter(self.driver.vcpu_reset, cpu.handle, int(op.init))
        return 0

    def vmcb_reinit(self, op: o.VmcbReinit) -> int:
        """The VMCB's content is lost; the driver rebuilds it."""
        cpu = self._cpu(op.id)
        vmcb = cpu.vmcb
        assert vmcb is not None
        vmcb.fields.clear()
        vmcb.clean = 0
        self.enter(self.driver.vmcb_reinit, cpu.handle)
        self.changed = True
        return 0

    def visit(self, op: o.Enter) -> int:
        """Load where there is something to load, VMRUN, write TPR, exit, put."""
        cpu = self._cpu(op.id, op.vm)
        load = getattr(self.driver, "vcpu_load", None)
        cpu.core = VISITING_CORE + self.order.index(cpu)
        if load is not None:
            self._arrive(cpu)
        cpu.events = 0
        self._reenter(cpu)
        vmcb = cpu.vmcb
        assert vmcb is not None
        active = int(vmcb.is_avic)
        page = self.backing_page(cpu)
        if op.tpr >= 0 and page is not None and cpu.base >> BASE_AE & 1:
            self._write_tpr(cpu, page, op.tpr)
        cpu.in_guest = False
        if load is not None:
            self.enter(self.driver.vcpu_put, cpu.handle)
        cpu.last_core, cpu.core = cpu.core, -1
        return active

    def _write_tpr(self, cpu: Cpu, page: Page, value: int) -> None:
        if not self._is_open(cpu, APIC_TPR):
            self._access(cpu, (APIC_TPR, value))
            return
        vmcb = cpu.vmcb
        assert vmcb is not None
        page.set(APIC_TPR >> 2, value & 0xFF)
        vmcb.fields[VMCB_INT_CTL] = vmcb.get(VMCB_INT_CTL) & ~0xF | value >> 4 & 0xF
        self._evaluate(cpu)

    # -- operations: user space and memory

    def set_lapic(self, op: o.SetLapic) -> int:
        """KVM_SET_LAPIC."""
        cpu = self._cpu(op.id)
        x2 = mode_of(cpu.base) == X2APIC
        words = [0] * 256
        words[APIC_ID >> 2] = (op.id & 0xFF) << 24 if not x2 else op.id << 24 & 0xFFFFFFFF
        words[APIC_TPR >> 2] = op.tpr & 0xFF
        words[APIC_LDR >> 2] = (op.ldr & 0xFF) << 24
        words[APIC_DFR >> 2] = CLUSTER if op.cluster else FLAT
        words[APIC_SPIV >> 2] = op.spiv
        for offset in range(APIC_LVTT, APIC_LVTERR + 16, 16):
            words[offset >> 2] = LVT_MASKED
        if op.irr >= 16:
            words[(APIC_IRR >> 2) + 4 * (op.irr >> 5)] |= 1 << (op.irr & 31)
        self.changed = True
        result = self.enter_int(
            self.driver.set_lapic, cpu.handle, b"".join(word.to_bytes(4, "little") for word in words)
        )
        if self._deliverable(cpu):
            cpu.woken = True
        return result

    def get_lapic(self, op: o.GetLapic) -> int:
        """KVM_GET_LAPIC, one register of it."""
        cpu = self._cpu(op.id)
        image = self.enter(self.driver.get_lapic, cpu.handle)
        if not isinstance(image, bytes) or len(image) != 1024:
            raise Violation(c.ENTRY_POINTS_RETURN, f"get_lapic returned {image!r}, expected 1024 bytes", "type")
        value = int.from_bytes(image[op.offset : op.offset + 4], "little")
        return value & LVT_SEEN if APIC_LVTT <= op.offset <= APIC_LVTERR else value

    def hwapic_update(self, op: o.HwapicUpdate) -> int:
        """The common code's reports."""
        cpu = self._cpu(op.id)
        self.enter(self.driver.hwapic_irr_update, cpu.handle, op.irr)
        self.enter(self.driver.hwapic_isr_update, cpu.handle, op.isr)
        return 0

    def memory_pressure(self, op: o.MemoryPressure) -> int:
        """Unreferenced guest pages move."""
        self.memory.move_unreferenced()
        self.changed = True
        return 0

    def store(self, op: o.GuestStore | o.UserStore) -> int:
        """Scribble over the memory behind a guest frame, if there is any."""
        page = self.memory.guest_page(0, (APIC_BASE >> 12) + op.page)
        if page is not None:
            page.set(APIC_TPR >> 2, 0xA5)
        return 0

    # -- operations: scheduling

    def set_apic_base(self, op: o.SetApicBase) -> int:
        """Write APIC_BASE."""
        cpu = self._cpu(op.id)
        was_in = cpu.in_guest
        cpu.in_guest = False
        before = cpu.base
        cpu.base = op.value
        result = self.enter_int(self.driver.set_apic_base, cpu.handle, op.value, int(op.host))
        if result:
            cpu.base = before
        self.changed = True
        if was_in:
            self._resume(cpu)
        return result

    def _arrive(self, cpu: Cpu) -> None:
        self.enter(self.driver.vcpu_load, cpu.handle, cpu.core)
        if cpu.unblocked:
            cpu.unblocked = False
            self.enter(self.driver.vcpu_unblocking, cpu.handle)
        if cpu.refresh and not cpu.asleep:
            self._refresh(cpu)

    def load(self, op: o.Load) -> int:
        """The scheduler gives the vCPU's thread a core."""
        cpu = self._cpu(op.id)
        cpu.core = op.host_id
        self._arrive(cpu)
        return 0

    def put(self, op: o.Put) -> int:
        """The scheduler takes it away."""
        self._leave_core(self._cpu(op.id))
        return 0

    def _leave_core(self, cpu: Cpu) -> None:
        cpu.in_guest = cpu.kicked = False
        put = getattr(self.driver, "vcpu_put", None)
        if put is not None:
            self.enter(put, cpu.handle)
        cpu.last_core, cpu.core = cpu.core, -1

    def leave_guest(self, op: o.Exit) -> int:
        """Out of the guest."""
        self._cpu(op.id).in_guest = False
        return 0

    def block(self, op: o.Block) -> int:
        """The vCPU sleeps unless the driver finds an interrupt."""
        cpu = self._cpu(op.id)
        cpu.blocking, cpu.woken = True, False
        result = self.enter_int(self.driver.vcpu_blocking, cpu.handle)
        cpu.blocking = False
        if result == 0:
            cpu.asleep = True
        else:
            cpu.woken = False
            self.enter(self.driver.vcpu_unblocking, cpu.handle)
        return result

    def unblock(self, op: o.Unblock) -> int:
        """A sleeper wakes for a reason of its own."""
        cpu = self._cpu(op.id)
        if not cpu.asleep:
            return 0  # somebody was quicker
        cpu.asleep = False
        self.enter(self.driver.vcpu_unblocking, cpu.handle)
        return 0

    def vm_run(self, op: o.VmRun) -> int:
        """Into the guest."""
        cpu = self._cpu(op.id)
        cpu.events = 0
        self._reenter(cpu)
        return 0

    # -- operations: what a guest does

    def guest_ipi(self, op: o.GuestIpi) -> int:
        """Write ICR: by hardware where it may, by the intercept otherwise."""
        cpu = self._cpu(op.id)
        x2 = mode_of(cpu.base) == X2APIC
        low = icr_low(op)
        high = op.dest if x2 else (op.dest & 0xFF) << 24
        page = self.backing_page(cpu)
        if page is None or not self._is_open(cpu, APIC_ICR):
            if x2:
                return self._access(cpu, (APIC_ICR, high << 32 | low))
            return self._access(cpu, (APIC_ICR2, high), (APIC_ICR, low))
        if x2 and low & X2_ICR_RESERVED:
            return 1
        self._send(cpu, page, low, high, op.defer)
        return 0

    def _send(self, cpu: Cpu, page: Page, low: int, high: int, defer: bool) -> None:
        vmcb = cpu.vmcb
        assert vmcb is not None
        ipi = send(vmcb, self.memory, page, cpu.id, low, high, self.knobs, self.stale)
        for host_id in ipi.doorbells:
            if host_id < 0:
                self._evaluate(cpu)
            else:
                self.doorbell(host_id)
        if ipi.info is None:
            return
        if defer:
            cpu.in_guest = False
            cpu.exit = ipi.info
        else:
            self._handle(cpu, ipi.info)

    def handle_exit(self, op: o.HandleExit) -> int:
        """The deferred handler."""
        cpu = self._cpu(op.id)
        exit_ = cpu.exit
        cpu.exit = None
        if exit_ is not None:
            self._handle(cpu, exit_)
        else:  # hardware needed no help after all
            self._resume(cpu)
        return 0

    def guest_self_ipi(self, op: o.GuestSelfIpi) -> int:
        """SELF_IPI."""
        cpu = self._cpu(op.id)
        page = self.backing_page(cpu)
        if page is None or not self._is_open(cpu, APIC_SELF_IPI):
            return self._access(cpu, (APIC_SELF_IPI, op.value))
        if op.value >> 8:
            return 1
        kept = page.words[APIC_ICR >> 2], page.words[APIC_ICR2 >> 2]
        if op.value >= 16:
            self._send(cpu, page, op.value | 1 << 18, 0, defer=False)
        page.set(APIC_ICR >> 2, kept[0])
        page.set(APIC_ICR2 >> 2, kept[1])
        return 0

    def guest_write(self, op: o.GuestWrite) -> int:
        """A register write of any class (APM table 15-22)."""
        cpu = self._cpu(op.id)
        page = self.backing_page(cpu)
        self.before = self.logical_entries()
        if page is None or not self._is_open(cpu, op.offset):
            return self._access(cpu, (op.offset, op.value))
        if op.offset == APIC_TPR:
            self._write_tpr(cpu, page, op.value)
            return 0
        if mode_of(cpu.base) == X2APIC:
            return self._access(cpu, (op.offset, op.value))
        if op.offset in TRAP_WRITES:
            page.set(op.offset >> 2, op.value & 0xFFFFFFFF)
            self.changed = True
        self._handle(cpu, (EXIT_NOACCEL, 1 << 32 | op.offset & 0xFF0, 0))
        return 0

    def guest_read(self, op: o.GuestRead) -> int:
        """A register read: from the page, or a fault."""
        cpu = self._cpu(op.id)
        if self._is_open(cpu, op.offset) and (op.offset in FAULT_READS or op.offset >= 0x400):
            self._handle(cpu, (EXIT_NOACCEL, op.offset & 0xFF0, 0))
        return 0

    def guest_eoi(self, op: o.GuestEoi) -> int:
        """EOI: accelerated for an edge, an exit for a level."""
        cpu = self._cpu(op.id)
        page = self.backing_page(cpu)
        if page is None or not self._is_open(cpu, APIC_EOI):
            return self._access(cpu, (APIC_EOI, 0))
        vector = highest(page, APIC_ISR)
        if vector < 0:
            return 0
        if not has(page, APIC_TMR, vector):
            change(page, APIC_ISR, vector, on=False)
            self._evaluate(cpu)
            return 0
        if self.config.eoi_cleared:
            change(page, APIC_ISR, vector, on=False)
        self._handle(cpu, (EXIT_NOACCEL, 1 << 32 | APIC_EOI, vector))
        return 0

    def raw_ipi_exit(self, op: o.RawIpiExit) -> int:
        """An IPI exit with any content."""
        return self._raw(op, self.driver.incomplete_ipi_exit)

    def raw_noaccel(self, op: o.RawNoaccel) -> int:
        """A NOACCEL exit with any content."""
        return self._raw(op, self.driver.noaccel_exit)

    def _raw(self, op: o.RawIpiExit | o.RawNoaccel, handler: Callable[..., int]) -> int:
        cpu = self._cpu(op.id)
        cpu.in_guest = False
        result = self.enter_int(handler, cpu.handle, op.info1, op.info2)
        self._resume(cpu)
        return result

    # -- operations: host

    def deliver(self, op: o.Deliver) -> int:
        """An interrupt from the host's side."""
        self.enter(self.driver.deliver, self._cpu(op.id).handle, op.vector, int(op.level))
        return 0

    def inhibit(self, op: o.Inhibit) -> int:
        """Somebody sets or clears a reason."""
        self.enter(self.driver.inhibit, 0, op.reason, int(op.on))
        return 0

    def update_irte(self, op: o.UpdateIrte) -> int:
        """Route a device interrupt."""
        handle = -1 if op.id < 0 else self._cpu(op.id).handle
        self.routes[op.irq] = (op.id, op.vector)
        return self.enter_int(self.driver.update_irte, op.irq, handle, op.vector)

    def iommu_post(self, op: o.IommuPost) -> int:
        """The device raises its interrupt."""
        irte = self.irtes.get(op.irq)
        self.was_posted = irte is not None and irte.posted
        if irte is None or not irte.posted:  # in host mode the host takes it and delivers it itself
            return self._deliver_in_host_mode(op)
        page = self.memory.pages.get(irte.page)
        if page is None:
            raise Violation(c.BACKING_PAGE_STAYS, f"irq {op.irq} is posted to the freed page {irte.page:#x}")
        change(page, APIC_IRR, irte.vector, on=True)
        if irte.cpu >= 0:
            self.doorbell(irte.cpu)
        elif irte.log and self.notifiers:
            self.enter_int(self.driver.ga_log_notify, irte.tag)
        return 0

    def _deliver_in_host_mode(self, op: o.IommuPost) -> int:
        apic_id, vector = self.routes.get(op.irq, (-1, 0))
        guest = self.vms.get(0)
        if guest is None or guest.dying:  # nobody takes it any more, but the log may still hold an entry of before
            if op.irq in self.logged and self.notifiers:
                self.enter_int(self.driver.ga_log_notify, self.logged[op.irq])
        elif apic_id >= 0:
            self.delivering += 1
            self.enter(self.driver.deliver, self._cpu(apic_id).handle, vector, 0)
            self.delivering -= 1
        return 0

    def ga_log(self, op: o.GaLogNotify) -> int:
        """A log entry with a tag that nobody has."""
        return self.enter_int(self.driver.ga_log_notify, op.tag)

    # -- operations: pure functions

    def route(self, op: o.Route | o.SignalMsi) -> int:
        """Ask the router."""
        apics = tuple(
            (a.id | (a.xid << 32 | 1 << 40 if a.xid >= 0 else 0), a.mode, a.spiv, a.ldr, a.dfr) for a in op.apics
        )
        m = op.message
        message = (
            m.sender,
            m.dest,
            int(m.logical),
            m.shorthand,
            m.mode,
            m.vector,
            int(m.level),
            int(m.asserted),
            int(m.hint),
            int(m.wide) | int(m.no_quirk) << 1 | m.reserved << 32,
        )
        entry = self.driver.route if isinstance(op, o.Route) else self.driver.signal_msi
        return self.enter_int(entry, apics, message)

    def helper(self, op: Any) -> Any:
        """Ask a pure function."""
        driver = self.driver
        match op:
            case o.HpaField():
                return self.enter_int(driver.hpa_field, op.address)
            case o.LogicalIndex():
                return self.enter_int(driver.logical_index, op.ldr, op.dfr)
            case o.PhysIndex():
                return self.enter_int(driver.phys_index, op.index)
            case o.X2Ldr():
                return self.enter_int(driver.x2_ldr, op.id)
            case o.Ppr():
                return self.enter_int(driver.ppr, op.tpr, op.isrv)
            case _:
                return self.enter(driver.tag_round_trip, op.vm_tag, op.index)

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        o.Route: route,
        o.SignalMsi: route,
        o.HwSetup: hw_setup,
        o.HwUnsetup: hw_unsetup,
        o.VmCreate: vm_create,
        o.VmDestroy: vm_destroy,
        o.VmTag: vm_tag,
        o.VcpuCreate: vcpu_create,
        o.VcpuFree: vcpu_free,
        o.TagsPass: tags_pass,
        o.VcpuReset: vcpu_reset,
        o.VmcbReinit: vmcb_reinit,
        o.Enter: visit,
        o.SetLapic: set_lapic,
        o.GetLapic: get_lapic,
        o.HwapicUpdate: hwapic_update,
        o.MemoryPressure: memory_pressure,
        o.GuestStore: store,
        o.UserStore: store,
        o.SetApicBase: set_apic_base,
        o.Load: load,
        o.Put: put,
        o.Exit: leave_guest,
        o.Block: block,
        o.Unblock: unblock,
        o.VmRun: vm_run,
        o.GuestIpi: guest_ipi,
        o.GuestSelfIpi: guest_self_ipi,
        o.GuestWrite: guest_write,
        o.GuestRead: guest_read,
        o.GuestEoi: guest_eoi,
        o.HandleExit: handle_exit,
        o.RawIpiExit: raw_ipi_exit,
        o.RawNoaccel: raw_noaccel,
        o.Deliver: deliver,
        o.Inhibit: inhibit,
        o.UpdateIrte: update_irte,
        o.IommuPost: iommu_post,
        o.GaLogNotify: ga_log,
        o.HpaField: helper,
        o.LogicalIndex: helper,
        o.PhysIndex: helper,
        o.TagRoundTrip: helper,
        o.X2Ldr: helper,
        o.Ppr: helper,
    }

    # -- what can be seen

    def logical_entries(self) -> tuple[int, ...]:
        """Words of VM 0's logical table that are not 0, as index << 32 | word."""
        from conformance.environment.avic.inspect import logical_table

        page = logical_table(self, 0)
        if page is None:
            return ()
        return tuple(index << 32 | page.words[index] for index in sorted(page.live))

    def view(self) -> model.View:
        """What hardware and the host see."""
        run: list[tuple[int, ...]] = []
        events: list[int] = []
        controls: list[tuple[int, ...] | None] = []
        running: list[int] = []
        bar: list[int | None] = []
        regs: list[tuple[int, ...] | None] = []
        avic = self.known_host.avic
        told = self.applies(c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS)
        for cpu in self.order:
            vmcb = cpu.vmcb
            run.append((cpu.vm, cpu.id, cpu.core, cpu.asleep, cpu.in_guest))
            events.append(cpu.events)
            if vmcb is None:
                controls.append(None)
                running.append(-1)
                bar.append(None)
                regs.append(None)
                continue
            if cpu.core >= 0 and not cpu.asleep:
                mode = vmcb.fields.get(VMCB_INT_CTL, 0) >> 30
                icr = int((X2APIC_MSRS + (APIC_ICR >> 4), 1) in vmcb.opened) if vmcb.opened else 0
                cr8 = int(vmcb.cr8) if told else int(not mode >> 1)
                controls.append((mode >> 1, mode & 1, cr8, icr or int(bool(vmcb.opened))))
            else:
                controls.append(None)
            running.append(self._running(cpu))
            apic = avic and self.vms[cpu.vm].irqchip
            at_home = apic and cpu.base & ~0xFFF == APIC_BASE
            bar.append(vmcb.fields.get(VMCB_APIC_BAR, 0) if at_home else None)
            regs.append(self._registers(cpu) if apic and cpu.base >> BASE_AE & 1 else None)
        irtes: tuple[tuple[int, ...], ...] = ()
        if self.irtes:
            irtes = self._told()
        return model.View(tuple(run), tuple(events), tuple(controls), tuple(running), tuple(bar), tuple(regs), irtes)

    def _running(self, cpu: Cpu) -> int:
        """Host id of the vCPU's hardware entry while IsRunning is set."""
        vmcb = cpu.vmcb
        assert vmcb is not None
        page = self.memory.pages.get(vmcb.fields.get(VMCB_PHYSICAL_TABLE, 0) & ADDRESS_BITS)
        if page is None or 2 * cpu.id + 1 >= len(page.words):
            return -1
        high = page.words[2 * cpu.id + 1]
        return page.words[2 * cpu.id] & 0xFFF if high >> (ENTRY_RUNNING - 32) & 1 else -1

    def _registers(self, cpu: Cpu) -> tuple[int, ...] | None:
        """The registers that clauses speak of, in the backing page."""
        page = self.backing_page(cpu)
        if page is None:
            return None
        words = page.words[0:256:4]
        for n in UNSEEN:
            words[n] = 0
        for n in range(APIC_LVTT >> 4, (APIC_LVTERR >> 4) + 1):
            words[n] &= LVT_SEEN if n != APIC_LVT0 >> 4 else LVT_SEEN | 0x700
        if cpu.id == 0 and words[APIC_LVT0 >> 4] & 0x7FF == 0x700:
            words[APIC_LVT0 >> 4] = LVT_MASKED
        if cpu.exit is not None:
            words[APIC_ICR >> 4] &= ~(1 << ICR_BUSY)
        mode = mode_of(cpu.base)
        if mode == X2APIC:
            words[APIC_DFR >> 4] = 0
        else:
            words[APIC_ICR2 >> 4] &= 0xFF000000
        return tuple(words)

    def _told(self) -> tuple[tuple[int, ...], ...]:
        shown: list[tuple[int, ...]] = []
        for irq in sorted(self.irtes):
            irte = self.irtes[irq]
            if irte.posted and irte.cpu >= 0:
                owner = self.backing.get(irte.page)
                shown.append((irq, -1 if owner is None else owner.id, irte.vector, irte.cpu))
            elif irte.returned:
                shown += self._delivered_by_the_host(irq)
        return tuple(shown)

    def _delivered_by_the_host(self, irq: int) -> list[tuple[int, ...]]:
        """An IRTE that an inhibit returned to host mode may stay there: the host knows where its vCPU is."""
        apic_id, vector = self.routes[irq]
        cpu = self.listed.get((0, apic_id))
        if cpu is None or cpu.asleep or not 0 <= cpu.core <= 0xFFF or cpu.vmcb is None or not cpu.vmcb.is_avic:
            return []
        return [(irq, apic_id, vector, cpu.core)]


def _difference(before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    """Names of the resources that differ."""
    names = ("pages", "objects", "memslots", "references and mappings", "VMCBs", "table entries")
    return ", ".join(n for n, a, b in zip(names, before, after, strict=True) if a != b) or "nothing"
