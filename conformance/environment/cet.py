"""Hardware, scheduler, FPU code and the generic skeleton of KVM, as far as CET state meets them.

Two physical CPUs with a register file each; one thread per vCPU, moved and preempted by the
scheduler with its notifiers; guest and user FPU registers; VMCS and VMCB with the processor's
copy of the latter; SMRAM and L1's vmcs12. Guest instructions run here, not in the candidate,
unless an intercept or the emulator sends them there.

Each vCPU has the set of values ever written by or for it. A register or a result that shows a
vCPU a value only another one knows is a leak, whatever else is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from conformance.environment.door import Environment
from conformance.model.cet import View
from conformance.model.cet import operations as m
from conformance.model.cet.capabilities import capabilities
from conformance.model.cet.state import COMPONENTS, CPUS, SLOTS, Vcpu
from conformance.model.cet.values import base_of, control_refusal, is_canonical, one_reg_msr, pointer_refusal
from conformance.specs.cet import Port, Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.specs.clause import Clause
from conformance.subsystem import Check, Record
from conformance.verdict import Crash, Violation

U, S, PL0, PL1, PL2, PL3, TABLE, XSS, SSP = range(9)
"""Places in a register file: the MSRs by number, then SSP."""
PLACE = {msr: place for place, msr in enumerate(k.MSRS)}
XSTATE = (U, PL0, PL1, PL2, PL3)
"""Registers of components 11 and 12."""
POINTERS = (PL0, PL1, PL2)
BITMAP = k.MSRS[:7]
"""The MSRs that have bitmap entries."""
INTERCEPT_ALL = 0x3FFF
"""READ and WRITE of each of them, two bits each."""
CR0_REST = 0x8000_0033
CR4_REST = 0x20
"""Bits of CR0 and CR4 that never change here."""
FIELDS = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
SAVE_AREA = (k.VMCB_S_CET, k.VMCB_SSP, k.VMCB_ISST_ADDR)
SWITCHED = (S, SSP, TABLE)
"""Registers that a VM entry and exit switch, in the order of the two tuples above."""


class Virtual:
    """A vCPU with its thread: what hardware and kernel keep for it."""

    __slots__ = (
        "area",
        "asked",
        "before",
        "bitmap",
        "cached",
        "clean",
        "cpu",
        "cr0",
        "cr4",
        "dead",
        "denied",
        "fields",
        "filtered",
        "fpstate",
        "ibt",
        "in_use",
        "init",
        "intercepts",
        "level",
        "live",
        "loaded",
        "locked",
        "number",
        "on",
        "own",
        "reload",
        "shstk",
        "slot",
        "smram",
        "user",
        "user_saved",
        "written",
    )

    def __init__(self, number: int, slot: int, own: tuple[int, int]) -> None:
        self.number = number
        """How the candidate knows it."""
        self.slot = slot
        self.cpu = slot % CPUS
        self.on = False
        """Its thread is the one that runs on `cpu`."""
        self.loaded = False
        """The preempt notifier is registered."""
        self.live = False
        """In KVM_RUN's loop."""
        self.own = own
        """U_CET and PL3_SSP of the thread's user mode."""
        self.user = own
        self.user_saved = True
        """The user registers are in memory, not in hardware."""
        self.fpstate: list[int] | None = None
        self.in_use = False
        self.reload = False
        """In use, but hardware holds somebody else's registers."""
        self.locked = 0
        self.bitmap = [INTERCEPT_ALL, INTERCEPT_ALL]
        self.level = 0
        self.fields: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.clean = [False, False]
        self.cached: list[tuple[int, ...]] = [(0, 0, 0), (0, 0, 0)]
        self.cr0 = CR0_REST
        self.cr4 = CR4_REST
        self.smram: dict[int, int] = {}
        self.area: dict[int, int] = {}
        self.intercepts: tuple[int, ...] = ()
        self.init = False
        self.dead = False
        self.shstk = False
        self.ibt = False
        self.denied: tuple[int, ...] = ()
        self.filtered = False
        """A filter denied something once."""
        self.asked = m.Cpuid()
        self.written: set[int] = {0}
        self.before: tuple[int, ...] = ()
        """PL0..PL2_SSP of its physical CPU when its thread came there."""


class Cet(Environment):
    """The world of one hypervisor with two vCPUs on two physical CPUs."""

    PORT = Port
    TWO_CPUS = True
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "load_guest_fpu": (c.FPU_BALANCED,),
        "put_guest_fpu": (c.FPU_BALANCED,),
        "fpstate_clear": (c.INIT_SPARES_OTHERS,),
    }

    def __init__(self, config: m.Config, profile: Profile) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.managed = profile.fpu_managed
        self.swapped = XSTATE if profile.fpu_managed else (U, PL3)
        """Registers that the FPU code swaps."""
        self.host = config.host
        self.amd = config.host.vendor == "amd"
        self.cpus = [[0] * 9 for _ in range(CPUS)]
        for regs in self.cpus:
            regs[S] = config.host.s_cet
        self.current: list[Virtual | None] = [None] * CPUS
        """Whose thread runs on each physical CPU."""
        self.slots: list[Virtual | None] = [None] * SLOTS
        self.numbers: dict[int, Virtual] = {}
        self.created = 0
        self.ghosts: set[int] = set()
        """Values of vCPUs that were destroyed."""
        self.caps = (False, False)
        self.deferred: Violation | None = None
        """What was wrong before the first step; the first step reports it."""
        self.traffic = 0
        """Accesses to shadow-stack MSRs during the last exit handled in the kernel."""

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Load the module, create the configuration's vCPUs."""
        super().start(factory)
        if self.breach is not None:
            return
        ready = not self.host.s_cet >> k.SH_STK_EN & 1
        shstk, ibt, _, because = capabilities(self.host)
        result = self._load_module(self.host)
        wanted = (0, shstk, ibt) if ready else (-k.EIO, False, False)
        if result != wanted:
            clause = because if ready else c.HOST_SHADOW_STACK_REFUSED
            self.deferred = Violation(clause, f"vendor_init and kvm_caps gave {result}, expected {wanted}")
            return
        for slot, cpuid in enumerate(self.config.vcpus if ready else ()):
            if self.create(m.Create(slot, cpuid)):
                self.deferred = Violation(c.ANSWERS, "a vCPU could not be created")
        self.vm = None

    def perform(self, op: Any) -> Any:
        """Perform one operation; afterwards the thread it interrupted runs again."""
        if self.deferred is not None:
            raise self.remember(self.deferred)
        around = self.frame.outer
        outer: Virtual | None = None if around is None else around.actor
        self.vm, atomic = outer, self.atomic
        result = self.OPERATIONS[type(op)](self, op)
        if self.atomic != atomic:
            raise self.remember(Violation(c.ANSWERS, f"preemption is disabled {self.atomic - atomic} times too often"))
        if outer is not None and not outer.on:
            self._on(outer, outer.cpu)
        self.vm = outer
        return result

    @property
    def vm(self) -> Virtual | None:
        """The vCPU whose thread executes the operation in progress."""
        actor: Virtual | None = self.frame.actor
        return actor

    @vm.setter
    def vm(self, vm: Virtual | None) -> None:
        self.frame.actor = vm

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Two vCPUs on two physical CPUs, of which neither comes to the other's."""
        if not (0 <= left.vcpu < SLOTS and 0 <= right.vcpu < SLOTS):
            return False
        first, second = self.slots[left.vcpu], self.slots[right.vcpu]
        if first is None or second is None or first is second:
            return False
        return not {first.cpu, getattr(left, "cpu", first.cpu)} & {second.cpu, getattr(right, "cpu", second.cpu)}

    def can_interrupt(self, op: Any) -> bool:
        """Another thread can run at any point; the interrupted one can only be preempted."""
        if isinstance(op, m.HostTask | m.KernelFpu):
            return True
        vm = self.slots[op.vcpu] if 0 <= op.vcpu < SLOTS else None
        if vm is None:
            return False
        if type(op) is m.Window:
            return vm.loaded and vm is self.vm
        return (vm is not self.vm or type(op) is m.Preempt) and vm.live == vm.loaded == (type(op) in m.WHILE_LIVE)

    def view(self) -> View:
        """Registers of the host, and what memory holds for each vCPU."""
        crs: list[Any] = []
        smram: list[int | None] = []
        area: list[Any] = []
        for vm in self.slots:
            if vm is None:
                crs.append(None)
                smram.append(None)
                area.append(None)
            else:
                crs.append(None if vm.dead else (vm.cr0 >> k.CR0_WP & 1 == 1, vm.cr4 >> k.CR4_CET & 1 == 1))
                smram.append(vm.smram.get(k.SMRAM_SSP, 0))
                area.append(None if vm.level else self._area(vm))
        return View(tuple(regs[S] for regs in self.cpus), tuple(crs), tuple(smram), tuple(area))

    def _area(self, vm: Virtual) -> tuple[int, int, int]:
        get = vm.area.get
        s_cet, ssp, table = SAVE_AREA if self.amd else FIELDS
        return get(s_cet, 0), get(ssp, 0), get(table, 0)

    # -- the scheduler

    def _thread(self, slot: int) -> Virtual:
        vm = self.slots[slot]
        assert vm is not None
        return vm

    def _on(self, vm: Virtual, cpu: int) -> None:
        """Let the vCPU's thread run on `cpu`, with the notifiers that takes."""
        if not vm.on or vm.cpu != cpu:
            if vm.on:
                self._off(vm)
            current = self.current[cpu]
            if current is not None:
                self._off(current)
            if cpu != vm.cpu:
                vm.clean = [False, False]
            vm.cpu, vm.on = cpu, True
            self.current[cpu] = vm
            self.vm = vm
            if vm.loaded:
                self.atomic += 1
                vm.before = tuple(self.cpus[cpu][PL0 : PL2 + 1])
                self.enter(self.driver.sched_in, vm.number, cpu)
                self.atomic -= 1
        self.vm = vm

    def _off(self, vm: Virtual) -> None:
        """Take the vCPU's thread off its physical CPU: notifier, then the FPU registers."""
        self.vm = vm
        if vm.loaded:
            self.atomic += 1
            self.enter(self.driver.sched_out, vm.number)
            self.atomic -= 1
        self._save_fpu(vm)
        vm.on = False
        self.current[vm.cpu] = None

    def _save_fpu(self, vm: Virtual) -> None:
        """Move the thread's FPU registers, guest's or user's, to memory."""
        regs = self.cpus[vm.cpu]
        if vm.in_use:
            if not vm.reload:
                assert vm.fpstate is not None
                for place in self.swapped:
                    vm.fpstate[place] = regs[place]
                vm.reload = True
        elif not vm.user_saved:
            vm.user = (regs[U], regs[PL3])
            vm.user_saved = True

    def _restore_fpu(self, vm: Virtual) -> None:
        """Move them back into hardware, as before VM entry, return to user mode, or `fpu_get`."""
        regs = self.cpus[vm.cpu]
        if vm.in_use:
            if vm.reload:
                assert vm.fpstate is not None
                for place in self.swapped:
                    regs[place] = vm.fpstate[place]
                vm.reload = False
        elif vm.user_saved:
            regs[U], regs[PL3] = vm.user
            vm.user_saved = False

    def _window(self) -> None:
        """A point of preemption of the generic code, outside of any call of the candidate."""
        if self.preempt is not None and not self.atomic:
            self.preempt("window")

    # -- ioctls

    def _open(self, slot: int, cpu: int) -> Virtual:
        """vcpu_load: register the notifier, then the candidate's hook."""
        vm = self._thread(slot)
        self._on(vm, cpu)
        vm.before = tuple(self.cpus[vm.cpu][PL0 : PL2 + 1])
        self.atomic += 1
        vm.loaded = True
        self.enter(self.driver.vcpu_load, vm.number, cpu)
        self.atomic -= 1
        self._window()
        return vm

    def _close(self, vm: Virtual, *, ran: bool = False) -> None:
        """vcpu_put and the way back to userspace, where somebody else could look."""
        self._window()
        self.atomic += 1
        self.enter(self.driver.vcpu_put, vm.number)
        vm.loaded = False
        self.atomic -= 1
        self.require(c.FPU_BALANCED, not vm.in_use, "returned to userspace with the guest FPU loaded")
        if not ran:
            self._no_reload(vm)
        self._restore_fpu(vm)
        regs = self.cpus[vm.cpu]
        self.require(
            c.USER_STATE_IS_THE_TASKS,
            (regs[U], regs[PL3]) == vm.own,
            f"user mode sees U_CET={regs[U]:#x} PL3_SSP={regs[PL3]:#x}, its own are {vm.own[0]:#x} {vm.own[1]:#x}",
        )
        self._cleared(vm.cpu)

    def _no_reload(self, vm: Virtual) -> None:
        """An ioctl other than KVM_RUN brings no value of the vCPU into hardware that outlives it.

        Only the physical CPU it ends on counts, and only what came there since the thread did:
        others may have left the same values there before.
        """
        for place, old in zip(POINTERS, vm.before, strict=True):
            value = self.cpus[vm.cpu][place]
            if value and value != old and value in vm.written:
                raise self.remember(
                    Violation(c.NO_RELOAD_OUTSIDE_RUN, f"PL{place - PL0}_SSP is {value:#x} after vcpu_put")
                )
        self.hold(c.NO_RELOAD_OUTSIDE_RUN)

    def _cleared(self, cpu: int) -> None:
        if self.profile.cleared:
            values = self.cpus[cpu][PL0 : PL2 + 1]
            self.require(
                c.SUPERVISOR_POINTERS_CLEARED,
                not any(values),
                f"PL0..PL2_SSP of the host are {', '.join(f'{x:#x}' for x in values)}",
            )

    def _leak(self, vm: Virtual, value: int, what: str) -> None:
        """A value that only another vCPU knows must not show here."""
        if value in vm.written:
            return
        if value in self.ghosts:
            raise self.remember(
                Violation(c.DESTROYED_LEAVES_NOTHING, f"vCPU {vm.slot} {what} {value:#x} of a destroyed vCPU")
            )
        for other in self.slots:
            if other is not None and other is not vm and value in other.written:
                raise self.remember(
                    Violation(c.NO_LEAK_BETWEEN_VCPUS, f"vCPU {vm.slot} {what} {value:#x} of vCPU {other.slot}")
                )

    # -- VM entry and exit

    def _vmentry(self, slot: int) -> Virtual:
        """Bring the guest into hardware, and look at what it could read there."""
        vm = self._thread(slot)
        if not vm.on or self.vm is not vm:
            self._on(vm, vm.cpu)
        self.atomic += 1
        self.enter(self.driver.enter_guest, vm.number)
        if not vm.in_use:
            raise self.remember(Violation(c.FPU_BALANCED, "VM entry without the guest FPU"))
        if vm.reload:
            self._restore_fpu(vm)
        regs = self.cpus[vm.cpu]
        bits = vm.bitmap[vm.level]
        self._intercepts(vm, bits)
        for place in XSTATE:
            if regs[place] not in vm.written and not bits >> 2 * place & k.READ:
                self._leak(vm, regs[place], f"enters with {hex(k.MSRS[place])} =")
        self.hold(c.NO_LEAK_BETWEEN_VCPUS)
        if self.amd:
            self._vmrun(vm, regs)
        elif vm.fields[vm.level].get(k.VM_ENTRY_CONTROLS, 0) >> k.VM_ENTRY_LOAD_CET & 1:
            fields = vm.fields[vm.level]
            for place, field in zip(SWITCHED, FIELDS, strict=True):
                regs[place] = fields.get(field, 0)
        return vm

    def _intercepts(self, vm: Virtual, bits: int) -> None:
        """The bitmap of this entry: what must be stopped, and where the profile prescribes it, what must pass.

        Only entries count, so a candidate may recompute its bitmaps when it asks for them or just before it enters.
        """
        if not vm.shstk:
            self.require(c.INTERCEPT_WITHOUT_SHSTK, bits >> 4 & 0xFF == 0xFF, f"intercepts of PL0..PL3_SSP {bits:#x}")
        for msr in vm.denied:
            if msr in BITMAP:
                stopped = bits >> 2 * PLACE[msr] & 3 == 3
                self.require(c.FILTER_INTERCEPTS, stopped, f"{msr:#x} is passed through, which the filter denies")
        if vm.level:
            for msr in vm.intercepts:
                if msr in BITMAP:
                    passed = ~bits >> 2 * PLACE[msr] & 3
                    self.require(c.L2_INTERCEPTS, not passed, f"L2 reaches {msr:#x}, which L1 intercepts")
        if self.managed:
            self._prescribed(vm, bits)

    def _prescribed(self, vm: Virtual, bits: int) -> None:
        """Interception where the FPU code swaps all registers; L2 may be stopped more often than that."""
        self.require(c.TABLE_INTERCEPTED, bits >> 2 * TABLE & 3 == 3, f"INT_SSP_TAB is passed through ({bits:#x})")
        controls = vm.shstk or (vm.ibt and not self.amd)
        if not controls:
            self.require(c.CET_INTERCEPTS, bits & 0xF == 0xF, f"intercepts of U_CET and S_CET {bits:#x}")
        if vm.level:
            return
        for msr in BITMAP[:-1]:
            if msr in vm.denied or not (controls if msr in k.CONTROL_MSRS else vm.shstk):
                continue
            clause = c.CET_INTERCEPTS if msr in k.CONTROL_MSRS else c.PASS_WITH_SHSTK
            if vm.filtered:
                clause = c.FILTER_INTERCEPTS
            self.require(clause, not bits >> 2 * PLACE[msr] & 3, f"{msr:#x} is intercepted ({bits:#x})")

    def _vmrun(self, vm: Virtual, regs: list[int]) -> None:
        """VMRUN loads the save area, or the processor's copy of it where the clean bit says they agree."""
        fields = vm.fields[vm.level]
        memory = tuple(fields.get(field, 0) for field in SAVE_AREA)
        if vm.clean[vm.level]:
            self.require(
                c.VMCB_DIRTY,
                memory == vm.cached[vm.level],
                "VMRUN with clean bit 12 set after a write of S_CET, SSP or ISST_ADDR",
            )
        else:
            vm.cached[vm.level] = memory
        for place, value in zip(SWITCHED, memory, strict=True):
            regs[place] = value

    def _vmexit(self, vm: Virtual) -> None:
        """Save the guest's three registers, load the host's, let the candidate see the exit."""
        regs = self.cpus[vm.cpu]
        fields = vm.fields[vm.level]
        host = self.host
        if self.amd:
            memory = (regs[S], regs[SSP], regs[TABLE])
            fields[k.VMCB_S_CET], fields[k.VMCB_SSP], fields[k.VMCB_ISST_ADDR] = memory
            vm.cached[vm.level] = memory
            vm.clean[vm.level] = True
            regs[S], regs[SSP], regs[TABLE] = host.s_cet, 0, 0
        elif host.load_cet_entry and host.load_cet_exit:
            fields[k.GUEST_S_CET], fields[k.GUEST_SSP] = regs[S], regs[SSP]
            fields[k.GUEST_INTR_SSP_TABLE] = regs[TABLE]
            if fields.get(k.VM_EXIT_CONTROLS, 0) >> k.VM_EXIT_LOAD_CET & 1:
                regs[S], regs[SSP] = fields.get(k.HOST_S_CET, 0), fields.get(k.HOST_SSP, 0)
                regs[TABLE] = fields.get(k.HOST_INTR_SSP_TABLE, 0)
        if regs[S] != host.s_cet:
            raise self.remember(
                Violation(c.S_CET_IS_THE_HOSTS, f"S_CET is {regs[S]:#x} after a VM exit, the host's is {host.s_cet:#x}")
            )
        self.enter(self.driver.exit_guest, vm.number)
        self.atomic -= 1

    def _fault(self, msr: int, value: int | None) -> Clause | None:
        """Why the processor raises #GP for RDMSR (no value) or WRMSR, by the *host's* features."""
        host = self.host
        if msr in k.CONTROL_MSRS:
            ibt = host.ibt and not self.amd
            if not (host.shstk or ibt):
                return c.CET_NEITHER_FEATURE
            if value is None:
                return None
            refusal = control_refusal(value, host.shstk, ibt, False)
            return refusal or (None if is_canonical(base_of(value), host.width) else c.CET_BASE_CANONICAL)
        if msr == k.XSS:
            return c.XSS_NEVER_FAULTS if not host.xsaves or (value or 0) & ~host.xss else None
        if not host.shstk:
            return c.SSP_NEEDS_SHSTK
        if value is None:
            return None
        if msr == k.INT_SSP_TAB:
            return None if is_canonical(value, host.width) else c.SSP_CANONICAL
        return pointer_refusal(value, host.width)

    # -- guest instructions

    def wrmsr_guest(self, op: m.Wrmsr) -> int:
        """WRMSR: in hardware, or through the candidate when intercepted or emulated."""
        vm = self._vmentry(op.vcpu)
        place = PLACE.get(op.msr, XSS)
        if not (op.emulated or place >= XSS or vm.bitmap[vm.level] >> 2 * place & k.WRITE):
            fault = self._fault(op.msr, op.value)
            if fault is None:
                vm.written.add(op.value)
                self.cpus[vm.cpu][place] = op.value
            self._vmexit(vm)
            return 0 if fault is None else 1
        self._vmexit(vm)
        vm.written.add(op.value)
        result = self.enter_int(self.driver.guest_wrmsr, vm.number, op.msr, op.value)
        return 1 if 0 < result <= 3 else result

    def rdmsr_guest(self, op: m.Rdmsr) -> tuple[int, int]:
        """RDMSR, likewise."""
        vm = self._vmentry(op.vcpu)
        place = PLACE.get(op.msr, XSS)
        if not (op.emulated or place >= XSS or vm.bitmap[vm.level] >> 2 * place & k.READ):
            fault = self._fault(op.msr, None)
            value = self.cpus[vm.cpu][place]
            self._vmexit(vm)
            if fault is not None:
                return 1, 0
        else:
            self._vmexit(vm)
            result, value = self._pair(self.driver.guest_rdmsr, vm.number, op.msr)
            if result:
                return (1, 0) if 0 < result <= 3 else (result, value)
        self._leak(vm, value, f"reads {hex(op.msr)} =")
        return 0, value

    def xrstors(self, op: m.Xrstors) -> int:
        """XRSTORS of one component: no exit, whatever is intercepted."""
        vm = self._vmentry(op.vcpu)
        regs = self.cpus[vm.cpu]
        enabled = regs[XSS] >> op.component & 1
        if enabled:
            places = COMPONENTS[op.component]
            for place, value in zip(places, op.words or (0,) * len(places), strict=True):
                regs[place] = value
                vm.written.add(value)
        self._vmexit(vm)
        return 0 if enabled else 1

    def xsaves(self, op: m.Xsaves) -> tuple[int, ...] | None:
        """XSAVES of one component."""
        vm = self._vmentry(op.vcpu)
        regs = self.cpus[vm.cpu]
        enabled = regs[XSS] >> op.component & 1
        words = tuple(regs[place] for place in COMPONENTS[op.component])
        self._vmexit(vm)
        if not enabled:
            return None
        for value in words:
            self._leak(vm, value, "saves")
        return words

    def write_ssp(self, op: m.WriteSsp) -> None:
        """SSP moves by itself."""
        vm = self._vmentry(op.vcpu)
        self.cpus[vm.cpu][SSP] = op.value
        vm.written.add(op.value)
        self._vmexit(vm)

    def read_ssp(self, op: m.ReadSsp) -> int:
        """RDSSP."""
        vm = self._vmentry(op.vcpu)
        value = self.cpus[vm.cpu][SSP]
        self._vmexit(vm)
        self._leak(vm, value, "reads SSP =")
        return value

    def cpuid_size(self, op: m.CpuidSize) -> int:
        """CPUID always exits."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        return self.enter_int(self.driver.cpuid_xsaves_size, vm.number)

    def mov_cr0(self, op: m.MovCr0) -> int:
        """MOV to CR0 exits."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        return self.enter_int(self.driver.set_cr0, vm.number, CR0_REST | op.wp << k.CR0_WP)

    def mov_cr4(self, op: m.MovCr4) -> int:
        """MOV to CR4 exits unless the bit is guest-owned; then the processor keeps the interlock with CR0.WP."""
        vm = self._vmentry(op.vcpu)
        value = CR4_REST | op.cet << k.CR4_CET
        if op.owned:
            fault = op.cet and not vm.cr0 >> k.CR0_WP & 1
            if not fault:
                vm.cr4 = value
            self._vmexit(vm)
            return 1 if fault else 0
        self._vmexit(vm)
        return self.enter_int(self.driver.set_cr4, vm.number, value)

    def kernel_exit(self, op: m.Exit) -> None:
        """An exit that needs nothing of the candidate, and the next entry and exit."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        log = self.frame.log
        start = len(log)
        self._vmentry(op.vcpu)
        self._vmexit(vm)
        self.traffic = sum(
            call in ("rdmsr", "wrmsr", "wrmsr_safe") and PLACE.get(args[0], XSS) < XSS for call, args, _ in log[start:]
        )

    def halt(self, op: m.Halt) -> None:
        """Block, and wake up on some physical CPU."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        self._off(vm)
        self._on(vm, op.cpu)

    # -- other threads

    def preempted(self, op: m.Preempt | m.Window) -> None:
        """Off and on again, wherever the thread is in the kernel."""
        vm = self._thread(op.vcpu)
        if not vm.loaded:
            return
        if vm.live:
            self.hold(c.PCPU_MIGRATION_TRANSPARENT if vm.cpu != op.cpu else c.NO_LOST_UPDATE)
        else:
            self.hold(c.SAVE_IS_IDEMPOTENT)
        self._on(vm, vm.cpu)
        self._off(vm)
        self._on(vm, op.cpu)

    def host_task(self, op: m.HostTask) -> None:
        """Another task's user mode: its FPU registers are restored, the rest is what it finds."""
        current = self.current[op.cpu]
        if current is not None:
            self._off(current)
        regs = self.cpus[op.cpu]
        regs[U], regs[PL3] = self._own(64 + op.cpu)
        self._cleared(op.cpu)
        self.require(c.S_CET_IS_THE_HOSTS, regs[S] == self.host.s_cet, f"S_CET is {regs[S]:#x} under a host task")
        self.vm = None

    def kernel_fpu(self, op: m.KernelFpu) -> None:
        """kernel_fpu_begin in a softirq: the registers go to memory, and come back when needed."""
        current = self.current[op.cpu]
        if current is not None:
            self._save_fpu(current)

    def _own(self, number: int) -> tuple[int, int]:
        """User mode's U_CET and PL3_SSP of a task of the host."""
        if not self.host.shstk:
            return 0, 0
        return 1, 0x7F00_0000_0000 | number << 16

    # -- entry points of userspace

    def vendor_init(self, op: m.VendorInit) -> tuple[int, bool, bool]:
        """Load the module on another host."""
        self.host = op.host
        self.amd = op.host.vendor == "amd"
        for regs in self.cpus:
            regs[:] = [0] * 9
            regs[S] = op.host.s_cet
        return self._load_module(op.host)

    def _load_module(self, host: m.Host) -> tuple[int, bool, bool]:
        result = self.enter_int(self.driver.vendor_init)
        if result:
            self.caps = (False, False)
            return result, False, False
        shstk, ibt, _ = self._kvm_caps()
        self.caps = (shstk, ibt)
        return 0, shstk, ibt

    def _kvm_caps(self) -> tuple[bool, bool, int]:
        caps = self.enter(self.driver.kvm_caps)
        if not isinstance(caps, tuple) or len(caps) != 3:
            raise self.remember(Crash(f"kvm_caps returned {caps!r}, expected (bool, bool, int)", "type"))
        return bool(caps[0]), bool(caps[1]), caps[2]

    def supported_xss(self, _op: m.SupportedXss) -> int:
        """The CET bits; no bit at all may exceed the hardware's."""
        xss = self._kvm_caps()[2]
        mask = self.host.xss if self.host.xsaves else 0
        self.require(c.XSS_WITHIN_HARDWARE, not xss & ~mask, f"supported_xss {xss:#x}, hardware {mask:#x}")
        return xss & 0x1800

    def msr_index_list(self, _op: m.MsrIndexList) -> tuple[int, ...]:
        """The CET MSRs in the list, by number."""
        return tuple(sorted(msr for msr in self._tuple(self.driver.get_msr_index_list) if msr in PLACE))

    def nested_capabilities(self, _op: m.NestedCapabilities) -> bool:
        """The load-CET controls of nested VMX."""
        return bool(self.enter(self.driver.nested_load_cet))

    def create(self, op: m.Create) -> int:
        """KVM_CREATE_VCPU and KVM_SET_CPUID2."""
        self.created += 1
        vm = Virtual(self.created, op.vcpu, self._own(self.created))
        self.numbers[vm.number] = vm
        self.slots[op.vcpu] = vm
        result = self.enter_int(self.driver.vcpu_create, vm.number)
        if result:
            self._forget(vm)
            return result
        return self.set_cpuid(m.SetCpuid(op.vcpu, op.cpuid, vm.cpu))

    def _forget(self, vm: Virtual) -> None:
        """The vCPU is gone; what it wrote is remembered."""
        if vm.on:
            self.current[vm.cpu] = None
            vm.on = False
        del self.numbers[vm.number]
        self.slots[vm.slot] = None
        if self.vm is vm:
            self.vm = None

    def destroy(self, op: m.Destroy) -> None:
        """Close the vCPU's file descriptor."""
        vm = self._thread(op.vcpu)
        self._destroy(vm)
        self._forget(vm)
        self.ghosts |= vm.written - {0}
        for other in self.slots:
            if other is not None:
                self.ghosts -= other.written

    def _destroy(self, vm: Virtual) -> None:
        self._on(vm, vm.cpu)
        self.enter(self.driver.vcpu_destroy, vm.number)
        self.require(c.DESTROYED_LEAVES_NOTHING, vm.fpstate is None, "the guest fpstate was not given back")
        shown = (S, TABLE, *POINTERS) if self.profile.cleared else (S, TABLE)
        for regs in self.cpus:
            for place in shown:
                value = regs[place]
                if value and value in vm.written and value != self.host.s_cet and not self._known(vm, value):
                    raise self.remember(
                        Violation(
                            c.DESTROYED_LEAVES_NOTHING, f"{hex(k.MSRS[place])} of the host still holds {value:#x}"
                        )
                    )
        self.hold(c.DESTROYED_LEAVES_NOTHING)

    def _known(self, vm: Virtual, value: int) -> bool:
        return any(other is not None and other is not vm and value in other.written for other in self.slots)

    def set_cpuid(self, op: m.SetCpuid) -> int:
        """KVM_SET_CPUID2."""
        vm = self._open(op.vcpu, op.cpu)
        q = op.cpuid
        result = self.enter_int(self.driver.set_cpuid, vm.number, q.shstk, q.ibt, q.lm, q.xsaves, q.xss)
        if result == 0:
            vm.asked = q
            vm.shstk, vm.ibt = q.shstk and self.caps[0], q.ibt and self.caps[1]
        self._close(vm)
        return result

    def set_filter(self, op: m.SetFilter) -> None:
        """A VM ioctl: no vCPU is loaded."""
        vm = self._thread(op.vcpu)
        self._on(vm, vm.cpu)
        self.enter(self.driver.set_msr_filter, vm.number, op.denied)
        vm.denied = op.denied
        vm.filtered = vm.filtered or bool(op.denied)

    def run(self, op: m.Run) -> None:
        """KVM_RUN up to a first exit; the guest did nothing that matters here."""
        vm = self._open(op.vcpu, op.cpu)
        self.enter(self.driver.run_begin, vm.number)
        vm.live = True
        self.require(c.FPU_BALANCED, vm.in_use, "KVM_RUN without the guest FPU")
        self._once(vm)

    def _once(self, vm: Virtual) -> None:
        """Enter the guest for a moment: it is looked at, and does nothing that matters here."""
        self._window()
        self._vmentry(vm.slot)
        self._vmexit(vm)

    def leave(self, op: m.Leave) -> None:
        """KVM_RUN from its last VM exit on."""
        vm = self._thread(op.vcpu)
        self._on(vm, vm.cpu)
        self._window()
        vm.live = False
        self.enter(self.driver.run_end, vm.number)
        self._close(vm, ran=True)

    def set_msrs(self, op: m.SetMsrs) -> int:
        """KVM_SET_MSRS."""
        vm = self._open(op.vcpu, op.cpu)
        vm.written.update(value for _, value in op.entries)
        result = self.enter_int(self.driver.set_msrs, vm.number, op.entries)
        self._close(vm)
        return result

    def get_msrs(self, op: m.GetMsrs) -> tuple[int, tuple[int, ...]]:
        """KVM_GET_MSRS."""
        vm = self._open(op.vcpu, op.cpu)
        answer = self.enter(self.driver.get_msrs, vm.number, op.indices)
        self._close(vm)
        if not (isinstance(answer, tuple) and len(answer) == 2 and type(answer[0]) is int):
            raise self.remember(Crash(f"get_msrs returned {answer!r}, expected (int, (int, …))", "type"))
        count, values = answer
        for value in values:
            self._leak(vm, value, "shows userspace")
        return count, tuple(values)

    def set_one_reg(self, op: m.SetOneReg) -> int:
        """KVM_SET_ONE_REG."""
        vm = self._open(op.vcpu, op.cpu)
        vm.written.add(op.value)
        result = self.enter_int(self.driver.set_one_reg, vm.number, op.reg, op.value)
        self._close(vm)
        return result

    def get_one_reg(self, op: m.GetOneReg) -> tuple[int, int]:
        """KVM_GET_ONE_REG."""
        vm = self._open(op.vcpu, op.cpu)
        answer = self._pair(self.driver.get_one_reg, vm.number, op.reg)
        self._close(vm)
        self._leak(vm, answer[1], "shows userspace")
        return answer

    def get_reg_list(self, op: m.GetRegList) -> tuple[int, int, tuple[int, ...]]:
        """KVM_GET_REG_LIST."""
        vm = self._open(op.vcpu, op.cpu)
        answer = self.enter(self.driver.get_reg_list, vm.number, op.n)
        self._close(vm)
        if not (isinstance(answer, tuple) and len(answer) == 3):
            raise self.remember(Crash(f"get_reg_list returned {answer!r}, expected (int, int, (int, …))", "type"))
        result, n, ids = answer
        return (result, 0, ()) if result == -k.EFAULT else (result, n, tuple(ids))

    def set_sregs(self, op: m.SetSregs) -> int:
        """KVM_SET_SREGS."""
        vm = self._open(op.vcpu, op.cpu)
        cr0, cr4 = CR0_REST | op.wp << k.CR0_WP, CR4_REST | op.cet << k.CR4_CET
        result = self.enter_int(self.driver.set_sregs, vm.number, cr0, cr4)
        self._close(vm)
        return result

    def init(self, op: m.Init) -> None:
        """kvm_apic_accept_events within KVM_RUN."""
        vm = self._thread(op.vcpu)
        self._on(vm, vm.cpu)
        self._reset(vm, True)

    def _reset(self, vm: Virtual, init: bool) -> None:
        """The candidate's part, then that of the generic code."""
        self.enter(self.driver.vcpu_reset, vm.number, init)
        vm.cr0, vm.cr4 = CR0_REST, CR4_REST

    def reset(self, op: m.Reset) -> None:
        """RESET from userspace."""
        vm = self._open(op.vcpu, op.cpu)
        self._reset(vm, False)
        vm.dead = False
        self._close(vm)

    def get_mp_state(self, op: m.GetMpState) -> int:
        """KVM_GET_MP_STATE; an INIT it leaves pending is processed by the next KVM_RUN."""
        vm = self._open(op.vcpu, op.cpu)
        vm.init = op.init
        result = self.enter_int(self.driver.get_mp_state, vm.number)
        if vm.init:
            vm.init = False
            self.enter(self.driver.run_begin, vm.number)
            self._reset(vm, True)
            self.enter(self.driver.run_end, vm.number)
        if op.init:
            vm.cr0, vm.cr4 = CR0_REST, CR4_REST
        self._close(vm)
        return result

    def get_xsave(self, op: m.GetXsave) -> bool:
        """Whether KVM_GET_XSAVE holds component 11 or 12."""
        vm = self._open(op.vcpu, op.cpu)
        components = self._tuple(self.driver.get_xsave, vm.number)
        self._close(vm)
        return k.CET_U in components or k.CET_S in components

    def set_xsave(self, op: m.SetXsave) -> int:
        """KVM_SET_XSAVE."""
        vm = self._open(op.vcpu, op.cpu)
        vm.written.update(op.words)
        result = self.enter_int(self.driver.set_xsave, vm.number, op.component, op.words)
        self._close(vm)
        return result

    def emulate(self, op: m.Emulate) -> int:
        """An exit that needs the emulator."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        return self.enter_int(self.driver.emulate, vm.number, op.instruction, op.user)

    def smi(self, op: m.Smi) -> None:
        """An SMI between two entries."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        self.enter(self.driver.smi, vm.number)

    def rsm(self, op: m.Rsm) -> int:
        """RSM always exits."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        if op.ssp is not None:
            vm.smram[k.SMRAM_SSP] = op.ssp
            vm.written.add(op.ssp)
        result = self.enter_int(self.driver.rsm, vm.number)
        vm.dead = result != 0
        return result

    # -- nesting and migration

    def nested_enter(self, op: m.NestedEnter) -> int:
        """VMLAUNCH or VMRUN by L1, and L2's first moments."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        self._write_area(vm, op.area)
        result = self.enter_int(self.driver.nested_enter, vm.number)
        if result == k.ENTERED:
            self._once(vm)
        return result

    def _write_area(self, vm: Virtual, area: m.Area) -> None:
        """What L1 stored in its vmcs12 or vmcb12."""
        words = (area.s_cet, area.ssp, area.table)
        vm.written.update(words)
        vm.written.update((area.host_s_cet, area.host_ssp, area.host_table))
        vm.intercepts = area.intercepts
        vm.area.update(zip(SAVE_AREA if self.amd else FIELDS, words, strict=True))
        vm.area |= {
            k.GUEST_CR0: CR0_REST | area.wp << k.CR0_WP,
            k.GUEST_CR4: CR4_REST | area.cet << k.CR4_CET,
            k.HOST_CR0: CR0_REST | area.host_wp << k.CR0_WP,
            k.HOST_CR4: CR4_REST | area.host_cet << k.CR4_CET,
            k.HOST_S_CET: area.host_s_cet,
            k.HOST_SSP: area.host_ssp,
            k.HOST_INTR_SSP_TABLE: area.host_table,
            k.VM_ENTRY_CONTROLS: area.load << k.VM_ENTRY_LOAD_CET,
            k.VM_EXIT_CONTROLS: area.load_host << k.VM_EXIT_LOAD_CET | area.host_64 << k.VM_EXIT_HOST_64,
            k.VMCB_CLEAN: area.clean << k.VMCB_CET,
        }

    def nested_exit(self, op: m.NestedExit) -> None:
        """An exit from L2 that L1 asked for, and L1's first moments after it."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        self.enter(self.driver.nested_exit, vm.number)
        self._once(vm)

    def set_nested_state(self, op: m.SetNestedState) -> int:
        """KVM_SET_NESTED_STATE."""
        vm = self._open(op.vcpu, op.cpu)
        self._write_area(vm, op.area)
        result = self.enter_int(self.driver.set_nested_state, vm.number)
        self._close(vm)
        return result

    def vmread(self, op: m.Vmread) -> tuple[int, int]:
        """VMREAD by L1."""
        vm = self._vmentry(op.vcpu)
        self._vmexit(vm)
        result, value = self._pair(self.driver.vmread, vm.number, op.field)
        return (1, 0) if result else (0, value)

    def migrate(self, op: m.Migrate) -> bool:
        """What a VMM does: read all it is told of, write it into a fresh vCPU; whether all of it worked."""
        indices = self._tuple(self.driver.get_msr_index_list)
        count, values = self.get_msrs(m.GetMsrs(op.vcpu, indices, op.cpu))
        result, _, regs = self.get_reg_list(m.GetRegList(op.vcpu, 8, op.cpu))
        answers = [self.get_one_reg(m.GetOneReg(op.vcpu, reg, op.cpu)) for reg in regs]
        worked = count == len(indices) and result == 0 and all(answer[0] == 0 for answer in answers)
        old = self._thread(op.vcpu)
        self._destroy(old)
        self._forget(old)
        worked &= self.create(m.Create(op.vcpu, old.asked)) == 0
        new = self._thread(op.vcpu)
        new.written, new.area, new.smram = old.written, old.area, old.smram
        wp, cet = old.cr0 >> k.CR0_WP & 1 == 1, old.cr4 >> k.CR4_CET & 1 == 1
        worked &= self.set_sregs(m.SetSregs(op.vcpu, wp, cet, op.cpu)) == 0
        entries = tuple(zip(indices, values, strict=False))
        stored = [(reg, answer[1]) for reg, answer in zip(regs, answers, strict=True)]
        return worked & self._restore(op, entries, stored)

    def _restore(self, op: m.Migrate, entries: tuple[tuple[int, int], ...], stored: list[tuple[int, int]]) -> bool:
        """Write everything back in the order asked for."""

        def registers() -> bool:
            return all(self.set_one_reg(m.SetOneReg(op.vcpu, reg, x, op.cpu)) == 0 for reg, x in stored)

        def batch(chosen: tuple[tuple[int, int], ...]) -> bool:
            return self.set_msrs(m.SetMsrs(op.vcpu, chosen, op.cpu)) == len(chosen)

        if op.order == 0:
            return batch(entries) & registers()
        if op.order == 1:
            return registers() & batch(entries[::-1])
        return registers() & all(batch((entry,)) for entry in entries)

    def _pair(self, function: Callable[..., Any], *args: Any) -> tuple[int, int]:
        answer = self.enter(function, *args)
        if not (isinstance(answer, tuple) and len(answer) == 2 and type(answer[0]) is type(answer[1]) is int):
            raise self.remember(Crash(f"{function.__name__} returned {answer!r}, expected (int, int)", "type"))
        return answer

    def _tuple(self, function: Callable[..., Any], *args: Any) -> tuple[int, ...]:
        answer = self.enter(function, *args)
        if not isinstance(answer, tuple) or not all(type(x) is int for x in answer):
            raise self.remember(Crash(f"{function.__name__} returned {answer!r}, expected (int, …)", "type"))
        return answer

    # -- environment calls: registers

    def host_cap(self, name: str) -> int:
        """A field of `Host`; `vendor` is 1 for AMD."""
        if name == "ignore_msrs":
            return int(self.config.ignore_msrs)
        if name == "vendor":
            return int(self.amd)
        if name == "width":
            return self.host.width
        value = getattr(self.host, name, None)
        if not isinstance(value, int):
            raise self.remember(Crash(f"host_cap: no property {name!r}", "type"))
        return int(value)

    def _registers(self, msr: int, value: int | None) -> tuple[list[int], int]:
        """The register file in use, and the place; checks what holds for RDMSR and WRMSR alike."""
        place = PLACE.get(msr)
        if place is None:
            raise self.remember(Violation(c.ANSWERS, f"access to unknown MSR {msr:#x} faults"))
        vm = self.vm
        if self.managed and place in XSTATE:
            resident = vm is not None and vm.in_use and vm.locked > 0
            self.require(c.FPU_RESIDENT, resident, f"{hex(msr)} accessed without the guest FPU locked into hardware")
        if value is not None and place == S and value != self.host.s_cet:
            clause = c.S_CET_NOT_XSTATE if self.managed else c.S_CET_IS_THE_HOSTS
            raise self.remember(Violation(clause, f"the host's S_CET is set to {value:#x}"))
        return self.cpus[0 if vm is None else vm.cpu], place

    def rdmsr(self, msr: int) -> int:
        """RDMSR, must not fault."""
        regs, place = self._registers(msr, None)
        fault = self._fault(msr, None)
        if fault is not None:
            raise self.remember(Violation(c.ANSWERS, f"RDMSR {msr:#x} faults on this host", "fault"))
        return regs[place]

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR, must not fault."""
        regs, place = self._registers(msr, value)
        fault = self._fault(msr, value)
        if fault is not None:
            raise self.remember(Violation(fault, f"WRMSR {msr:#x} = {value:#x} faults on this host", "fault"))
        if place == XSS:
            self.hold(c.XSS_NEVER_FAULTS)
        regs[place] = value

    def wrmsr_safe(self, msr: int, value: int) -> int:
        """WRMSR that may fault."""
        regs, place = self._registers(msr, value)
        if self._fault(msr, value) is not None:
            return -k.EIO
        regs[place] = value
        return 0

    def preempt_disable(self) -> None:
        """Atomic context, nested."""
        self.atomic += 1

    def preempt_enable(self) -> None:
        """Undo one `preempt_disable`."""
        if not self.atomic:
            raise self.remember(Violation(c.ANSWERS, "preempt_enable without preempt_disable"))
        self.atomic -= 1

    # -- environment calls: the FPU

    def _of(self, vcpu: int) -> Virtual:
        vm = self.numbers.get(vcpu)
        if vm is None:
            raise self.remember(Crash(f"there is no vCPU {vcpu!r}", "type"))
        return vm

    def alloc_guest_fpstate(self, vcpu: int) -> int:
        """A zeroed guest fpstate."""
        vm = self._of(vcpu)
        refusal = self.refused("alloc_guest_fpstate")
        if refusal:
            return refusal
        vm.fpstate = [0] * 9
        return 0

    def free_guest_fpstate(self, vcpu: int) -> None:
        """Give it back, not in use."""
        vm = self._of(vcpu)
        self.require(
            c.FPU_BALANCED, vm.fpstate is not None and not vm.in_use, "the fpstate is in use or was given back"
        )
        vm.fpstate = None

    def load_guest_fpu(self, vcpu: int) -> None:
        """Save the user's registers, load the guest's."""
        vm = self._of(vcpu)
        right = vm is self.vm and not vm.in_use and vm.fpstate is not None
        self.require(c.FPU_BALANCED, right, f"load_guest_fpu({vcpu}) while it is in use, or by another thread")
        self._save_fpu(vm)
        vm.in_use = vm.reload = True
        self._restore_fpu(vm)

    def put_guest_fpu(self, vcpu: int) -> None:
        """Save the guest's registers, load the user's."""
        vm = self._of(vcpu)
        self.require(c.FPU_BALANCED, vm is self.vm and vm.in_use, f"put_guest_fpu({vcpu}) without load")
        self._save_fpu(vm)
        vm.in_use = vm.reload = False
        vm.user_saved = True
        self._restore_fpu(vm)
        if self.managed:
            regs = self.cpus[vm.cpu]
            regs[PL0] = regs[PL1] = regs[PL2] = 0

    def guest_fpu_in_use(self, vcpu: int) -> bool:
        """Loaded and not yet put."""
        return self._of(vcpu).in_use

    def fpu_get(self) -> None:
        """fpregs_lock, and reload what a softirq or the scheduler took."""
        vm = self.vm
        if vm is None:
            raise self.remember(Violation(c.FPU_RESIDENT, "fpu_get outside of any vCPU's thread"))
        self.atomic += 1
        vm.locked += 1
        self._restore_fpu(vm)

    def fpu_put(self) -> None:
        """fpregs_unlock."""
        vm = self.vm
        if vm is None or not vm.locked:
            raise self.remember(Violation(c.FPU_RESIDENT, "fpu_put without fpu_get"))
        vm.locked -= 1
        self.atomic -= 1

    def fpstate_clear(self, vcpu: int, component: int) -> None:
        """Initial state for one component of an fpstate that is not in use."""
        vm = self._of(vcpu)
        self.require(
            c.INIT_ANYWHERE, not vm.in_use, f"fpstate_clear({vcpu}, {component}) while the guest FPU is in use"
        )
        self.require(c.INIT_SPARES_OTHERS, component in (3, 4, k.CET_U, k.CET_S), f"component {component} is cleared")
        if vm.fpstate is not None:
            for place in COMPONENTS.get(component, ()):
                vm.fpstate[place] = 0

    def copy_uabi_to_fpstate(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """User components only."""
        vm = self._of(vcpu)
        self.require(c.FPU_BALANCED, not vm.in_use, "copy_uabi_to_fpstate while the guest FPU is in use")
        return -k.EINVAL if component in COMPONENTS else 0

    # -- environment calls: controls and memory

    def set_intercept(self, vcpu: int, level: int, msr: int, access: int, on: bool) -> None:
        """Set or clear bitmap bits."""
        vm, place = self._of(vcpu), PLACE.get(msr, XSS)
        if level not in (1, 2) or place >= XSS or access & ~3:
            raise self.remember(Crash(f"set_intercept({vcpu}, {level}, {msr:#x}, {access}): no such bit", "type"))
        bits = access << 2 * place
        vm.bitmap[level - 1] = vm.bitmap[level - 1] | bits if on else vm.bitmap[level - 1] & ~bits

    def l1_intercepts(self, vcpu: int, msr: int) -> int:
        """L1's bitmap for its L2."""
        return k.READ | k.WRITE if msr in self._of(vcpu).intercepts else 0

    def _fields(self, vcpu: int, level: int | None, amd: bool) -> tuple[Virtual, dict[int, int]]:
        vm = self._of(vcpu)
        if self.amd != amd or level not in (None, 1, 2):
            raise self.remember(Crash(f"no such control structure on this host (level {level})", "type"))
        return vm, vm.fields[vm.level if level is None else level - 1]

    def vmcs_read(self, vcpu: int, field: int) -> int:
        """VMREAD."""
        return self._fields(vcpu, None, False)[1].get(field, 0)

    def vmcs_write(self, vcpu: int, field: int, value: int) -> None:
        """VMWRITE; a control the processor lacks would fail the next entry."""
        fields = self._fields(vcpu, None, False)[1]
        if field == k.VM_ENTRY_CONTROLS and value >> k.VM_ENTRY_LOAD_CET & 1:
            self.require(c.VMX_PREREQUISITES, self.host.load_cet_entry, "the host has no load-CET entry control")
        if field == k.VM_EXIT_CONTROLS and value >> k.VM_EXIT_LOAD_CET & 1:
            self.require(c.VMX_PREREQUISITES, self.host.load_cet_exit, "the host has no load-CET exit control")
        fields[field] = value

    def vmcs_load(self, vcpu: int, level: int) -> None:
        """VMPTRLD."""
        vm, _ = self._fields(vcpu, level, False)
        vm.level = level - 1

    def vmcb_read(self, vcpu: int, level: int, field: int) -> int:
        """Memory, not the processor's copy."""
        return self._fields(vcpu, level, True)[1].get(field, 0)

    def vmcb_write(self, vcpu: int, level: int, field: int, value: int) -> None:
        """Memory, not the processor's copy."""
        self._fields(vcpu, level, True)[1][field] = value

    def vmcb_mark_dirty(self, vcpu: int, level: int, bit: int) -> None:
        """Clear one clean bit."""
        vm, _ = self._fields(vcpu, level, True)
        if bit == k.VMCB_CET:
            vm.clean[level - 1] = False

    def vmcb_switch(self, vcpu: int, level: int) -> None:
        """Choose the VMCB of the next VMRUN."""
        vm, _ = self._fields(vcpu, level, True)
        vm.level = level - 1

    def vmcs12_read(self, vcpu: int, field: int) -> int:
        """L1's memory."""
        return self._of(vcpu).area.get(field, 0)

    def vmcs12_write(self, vcpu: int, field: int, value: int) -> None:
        """L1's memory."""
        self._of(vcpu).area[field] = value

    def read_cr(self, vcpu: int, number: int) -> int:
        """CR0 or CR4."""
        vm = self._of(vcpu)
        return vm.cr4 if number == 4 else vm.cr0

    def write_cr(self, vcpu: int, number: int, value: int) -> None:
        """CR0 or CR4."""
        vm = self._of(vcpu)
        if number == 4:
            vm.cr4 = value
        else:
            vm.cr0 = value

    def smram_read(self, vcpu: int, offset: int) -> int:
        """The state-save map."""
        return self._of(vcpu).smram.get(offset, 0)

    def smram_write(self, vcpu: int, offset: int, value: int) -> None:
        """The state-save map."""
        self._of(vcpu).smram[offset] = value

    def take_init(self, vcpu: int) -> bool:
        """Test and clear."""
        vm = self._of(vcpu)
        pending, vm.init = vm.init, False
        return pending

    def copy_from_user(self, size: int) -> int:
        """0 or the planned -EFAULT."""
        return self.refused("copy_from_user")

    def copy_to_user(self, size: int) -> int:
        """0 or the planned -EFAULT."""
        return self.refused("copy_to_user")

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        m.VendorInit: vendor_init,
        m.SupportedXss: supported_xss,
        m.MsrIndexList: msr_index_list,
        m.NestedCapabilities: nested_capabilities,
        m.Create: create,
        m.Destroy: destroy,
        m.SetCpuid: set_cpuid,
        m.SetFilter: set_filter,
        m.Run: run,
        m.Leave: leave,
        m.Wrmsr: wrmsr_guest,
        m.Rdmsr: rdmsr_guest,
        m.Xrstors: xrstors,
        m.Xsaves: xsaves,
        m.WriteSsp: write_ssp,
        m.ReadSsp: read_ssp,
        m.CpuidSize: cpuid_size,
        m.MovCr0: mov_cr0,
        m.MovCr4: mov_cr4,
        m.Exit: kernel_exit,
        m.Halt: halt,
        m.Preempt: preempted,
        m.Window: preempted,
        m.HostTask: host_task,
        m.KernelFpu: kernel_fpu,
        m.SetMsrs: set_msrs,
        m.GetMsrs: get_msrs,
        m.SetOneReg: set_one_reg,
        m.GetOneReg: get_one_reg,
        m.GetRegList: get_reg_list,
        m.SetSregs: set_sregs,
        m.Init: init,
        m.Reset: reset,
        m.GetMpState: get_mp_state,
        m.GetXsave: get_xsave,
        m.SetXsave: set_xsave,
        m.Emulate: emulate,
        m.Smi: smi,
        m.Rsm: rsm,
        m.NestedEnter: nested_enter,
        m.NestedExit: nested_exit,
        m.SetNestedState: set_nested_state,
        m.Vmread: vmread,
        m.Migrate: migrate,
    }


# -- checks over one step


def _managed_by_xstate(v: Vcpu, msr: int | None) -> bool:
    """Whether the FPU code keeps this MSR for this vCPU."""
    if msr == k.U_CET:
        return v.shstk or v.ibt
    return msr in k.POINTER_MSRS and v.shstk


def _count(record: Record, name: str) -> int:
    return sum(call == name for call, _, _ in record.calls)


def _fpu_for_batch(record: Record) -> bool | str:
    """The FPU is loaded iff an XSTATE-managed MSR is accessed, at most once."""
    if not record.profile.fpu_managed or record.given:
        return False
    op, v = record.op, record.before.vcpus[record.op.vcpu]
    failing: tuple[int | None, ...] = ()
    if isinstance(op, m.SetMsrs | m.GetMsrs):
        listed = [msr for msr, _ in op.entries] if isinstance(op, m.SetMsrs) else list(op.indices)
        count = record.result if isinstance(op, m.SetMsrs) else record.result[0]
        accessed: tuple[int | None, ...] = tuple(listed[: max(count, 0)])
        if 0 <= count < len(listed):
            failing = (listed[count],)
    else:
        msr = one_reg_msr(op.reg)
        result = record.result if isinstance(op, m.SetOneReg) else record.result[0]
        accessed, failing = ((msr,), ()) if result == 0 else ((), (msr,))
    needed = any(_managed_by_xstate(v, msr) for msr in accessed)
    allowed = needed or any(_managed_by_xstate(v, msr) for msr in failing)
    loads = _count(record, "load_guest_fpu")
    if needed and loads != 1:
        return f"an XSTATE-managed MSR was accessed with {loads} loads of the guest FPU"
    if loads > 1 or (loads and not allowed):
        return f"the guest FPU was loaded {loads} times, no XSTATE-managed MSR was accessed"
    return True


def _host_s_cet_untouched(record: Record) -> bool | str:
    """S_CET is accessed, and the host's own is not written on the way."""
    op = record.op
    msrs = [msr for msr, _ in op.entries] if isinstance(op, m.SetMsrs) else [op.msr]
    if k.S_CET not in msrs or not record.profile.fpu_managed:
        return False
    written = any(call in ("wrmsr", "wrmsr_safe") and args[0] == k.S_CET for call, args, _ in record.calls)
    return "the host's S_CET was written" if written else True


def _quiet_exit(record: Record) -> bool | str:
    """No shadow-stack MSR is touched between one exit and the next."""
    traffic = record.env.traffic  # type: ignore[attr-defined]  # this subsystem's environment
    return f"{traffic} accesses to shadow-stack MSRs" if traffic else True


def _init_without_fpu(record: Record) -> bool | str:
    """An INIT outside of KVM_RUN leaves the FPU alone."""
    if not record.op.init:
        return False
    swaps = _count(record, "load_guest_fpu") + _count(record, "put_guest_fpu")
    taken = _count(record, "take_init")
    return f"the guest FPU was swapped {swaps} times for an INIT" if swaps and taken else True


_BATCH = Check(c.FPU_LOADED_FOR_BATCH, _fpu_for_batch)

CHECKS: dict[type, tuple[Check, ...]] = {
    m.SetMsrs: (_BATCH, Check(c.S_CET_NOT_XSTATE, _host_s_cet_untouched)),
    m.GetMsrs: (_BATCH,),
    m.SetOneReg: (_BATCH,),
    m.GetOneReg: (_BATCH,),
    m.Wrmsr: (Check(c.S_CET_NOT_XSTATE, _host_s_cet_untouched),),
    m.Exit: (Check(c.NO_SWAP_ON_KERNEL_EXITS, _quiet_exit),),
    m.GetMpState: (Check(c.INIT_ANYWHERE, _init_without_fpu),),
}

ENVIRONMENT = Cet
