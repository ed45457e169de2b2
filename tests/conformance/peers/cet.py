"""Correct hypervisors built in other ways than the shipped ones."""

from __future__ import annotations

from typing import Any, ClassVar

from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import (
    PASSABLE,
    SUPERVISOR_POINTERS,
    SWITCHED_FIELDS,
    VMCB_OF,
    Vcpu,
)
from conformance.specs.cet import Port
from conformance.specs.cet import constants as k


class LazySwap(Upstream):
    """Loads PL0..PL2_SSP before the first VM entry, saves them when the thread leaves, clears nothing.

    Nothing is lazy about interception: with SHSTK the pointers always pass.
    """

    profile: ClassVar[str] = "v5"

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        return (msr == k.PL3_SSP and v.shstk) or (msr == k.U_CET and (v.shstk or v.ibt))

    def enter_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        if not v.in_hardware and self.port.host_cap("shstk"):
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])
            v.in_hardware = True
        super().enter_guest(vcpu)

    def put(self, v: Vcpu) -> None:
        """Registers to memory."""
        self.port.preempt_disable()
        if v.in_hardware:
            v.ssp = [self.port.rdmsr(msr) for msr in SUPERVISOR_POINTERS]
            v.in_hardware = False
        self.port.preempt_enable()

    def vcpu_put(self, vcpu: int) -> None:
        self.put(self.vcpus[vcpu])

    def sched_out(self, vcpu: int) -> None:
        self.put(self.vcpus[vcpu])

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        self.put(v)
        v.ssp[msr - k.PL0_SSP] = value

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        if msr not in SUPERVISOR_POINTERS:
            return super().fetch_msr(v, msr)
        self.put(v)
        return v.ssp[msr - k.PL0_SSP]

    def reset_xstate(self, v: Vcpu) -> None:
        super().reset_xstate(v)
        self.put(v)
        v.ssp = [0, 0, 0]


class Cautious(Upstream):
    """Loads the FPU late, validates first, marks everything dirty, recomputes bitmaps at every entry."""

    def enter_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        self.recalc_intercepts(v)
        if self.svm:
            for level in (1, 2):
                self.port.vmcb_mark_dirty(vcpu, level, k.VMCB_CET)
        super().enter_guest(vcpu)

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8 + 16 * len(entries)):
            return -k.EFAULT
        if len(entries) >= k.MAX_MSR_ENTRIES:
            return -k.E2BIG
        loaded = False
        for done, (msr, value) in enumerate(entries):
            wrong = self.is_xstate_msr(v, msr) and (
                not self.valid_cet(v, value) if msr == k.U_CET else self.noncanonical(value) or value & 3 != 0
            )
            if wrong:
                self.unload(vcpu, loaded)
                return done
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = True
            if self.do_set_msr(v, msr, value, True):
                self.unload(vcpu, loaded)
                return done
        self.unload(vcpu, loaded)
        return len(entries)

    def unload(self, vcpu: int, loaded: bool) -> None:
        """Put the guest FPU if it was loaded."""
        if loaded:
            self.port.put_guest_fpu(vcpu)

    def xstate_read(self, v: Vcpu, msr: int) -> int:
        self.port.preempt_disable()
        value = super().xstate_read(v, msr)
        self.port.preempt_enable()
        return value

    def get_mp_state(self, vcpu: int) -> int:
        """Leaves a pending INIT to the next KVM_RUN."""
        return 0

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """Ignores what userspace may not set."""
        self.port.copy_uabi_to_fpstate(vcpu, component, words)
        return 0


class Deferred(Upstream):
    """Does late what it can do late: caches fields and recomputes intercepts before the next entry.

    Host fields and controls are written when a vCPU is loaded, XSS goes back to the host's only when the thread
    leaves, accepted control registers are not judged as a pair, and a changed CPUID counts only if it changes
    what the guest gets.
    """

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.cache: dict[int, dict[int, int]] = {}
        self.stale: set[int] = set()
        self.guest_xss: set[int] = set()

    def vcpu_create(self, vcpu: int) -> int:
        self.vcpus[vcpu] = Vcpu(vcpu)
        self.cache[vcpu] = {}
        refusal = self.port.alloc_guest_fpstate(vcpu)
        if refusal:
            del self.vcpus[vcpu]
        return refusal

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        super().vcpu_load(vcpu, cpu)
        if not self.svm:
            self.set_constant_fields(self.vcpus[vcpu])

    def recalc_intercepts(self, v: Vcpu) -> None:
        self.stale.add(v.number)

    def field_read(self, v: Vcpu, field: int) -> int:
        cache = self.cache[v.number]
        if field not in cache:
            cache[field] = super().field_read(v, field)
        return cache[field]

    def field_write(self, v: Vcpu, field: int, value: int) -> None:
        self.cache[v.number][field] = value

    def flush(self, v: Vcpu) -> None:
        """Cached fields to the current control structure."""
        for field, value in self.cache[v.number].items():
            if self.svm:
                level = 2 if v.l2 else 1
                self.port.vmcb_mark_dirty(v.number, level, k.VMCB_CET)
                self.port.vmcb_write(v.number, level, VMCB_OF[field], value)
            else:
                self.port.vmcs_write(v.number, field, value)
        self.cache[v.number].clear()

    def enter_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        if vcpu in self.stale:
            self.stale.discard(vcpu)
            super().recalc_intercepts(v)
        self.flush(v)
        self.follow_cpu(v)
        if self.port.host_cap("xsaves"):
            self.port.wrmsr(k.XSS, v.xss)
            self.guest_xss.add(vcpu)

    def exit_guest(self, vcpu: int) -> None:
        """Nothing yet."""

    def restore_xss(self, vcpu: int) -> None:
        """The host's XSS, once."""
        if vcpu in self.guest_xss:
            self.guest_xss.discard(vcpu)
            self.port.wrmsr(k.XSS, self.host_xss)

    def vcpu_put(self, vcpu: int) -> None:
        self.restore_xss(vcpu)
        self.flush(self.vcpus[vcpu])

    def sched_out(self, vcpu: int) -> None:
        self.restore_xss(vcpu)
        self.flush(self.vcpus[vcpu])

    def enter_vmcs02(self, v: Vcpu, run_pending: bool) -> None:
        before = {field: self.field_read(v, field) for field in SWITCHED_FIELDS}
        self.flush(v)
        self.port.vmcs_load(v.number, 2)
        self.set_constant_fields(v)
        v.l2 = True
        loads = self.port.vmcs12_read(v.number, k.VM_ENTRY_CONTROLS) >> k.VM_ENTRY_LOAD_CET & 1
        if run_pending:
            self.port.write_cr(v.number, 4, self.port.vmcs12_read(v.number, k.GUEST_CR4))
            self.port.write_cr(v.number, 0, self.port.vmcs12_read(v.number, k.GUEST_CR0))
        for field in reversed(SWITCHED_FIELDS):
            taken = run_pending and loads and self.has_field(v, field)
            self.field_write(v, field, self.port.vmcs12_read(v.number, field) if taken else before[field])
        self.recalc_intercepts(v)

    def enter_vmcb02(self, v: Vcpu) -> None:
        self.flush(v)
        super().enter_vmcb02(v)

    def leave_vmcb02(self, v: Vcpu) -> None:
        for field, offset in VMCB_OF.items():
            if v.shstk:
                self.port.vmcs12_write(v.number, offset, self.field_read(v, field))
        self.cache[v.number].clear()
        v.l2 = False
        self.port.write_cr(v.number, 4, v.l1_state[1])
        self.port.write_cr(v.number, 0, v.l1_state[0])
        self.port.vmcb_switch(v.number, 1)

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        if self.bad_cet_cr4(self.vcpus[vcpu], cr4):
            return -k.EINVAL
        self.port.write_cr(vcpu, 4, cr4)
        self.port.write_cr(vcpu, 0, cr0)
        return 0

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        v = self.vcpus[vcpu]
        cut = (
            shstk and self.shstk,
            ibt and self.ibt,
            lm and self.lm,
            xsaves and bool(self.port.host_cap("xsaves")),
            xss & self.xss,
        )
        if v.ran and cut != (v.shstk, v.ibt, v.lm, v.xsaves, v.supported_xss):
            return -k.EINVAL
        v.shstk, v.ibt, v.lm, v.xsaves, v.supported_xss = cut
        self.recalc_intercepts(v)
        return 0


class Direct(Upstream):
    """Clears a live vCPU's registers by WRMSR, holds the FPU over a whole batch, and looks twice.

    Returns the internal codes of MSR handlers, reads hardware's XSS back, uses the safe WRMSR, skips a VMCB load
    that vmcb12's clean bit makes needless, and refuses vmcs12's fields to a vCPU without CET.
    """

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.loaded_vmcb12: dict[int, int] = {}

    def reset_xstate(self, v: Vcpu) -> None:
        if not self.port.guest_fpu_in_use(v.number):
            for component in (k.CET_S, k.CET_U, 3, 4):
                self.port.fpstate_clear(v.number, component)
            return
        self.port.fpu_get()
        if self.port.host_cap("shstk") or (self.port.host_cap("ibt") and not self.svm):
            self.port.wrmsr(k.U_CET, 0)
        if self.port.host_cap("shstk"):
            for msr in reversed(k.POINTER_MSRS):
                self.port.wrmsr(msr, 0)
        self.port.fpu_put()

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        v = self.vcpus[vcpu]
        if not init:
            self.set_xss(v, 0)
            v.smm = False
        if v.l2:
            self.loaded_vmcb12.pop(vcpu, None)
            super().nested_exit(vcpu)
        for field in SWITCHED_FIELDS:
            self.field_write(v, field, 0)
        self.port.write_cr(vcpu, 0, 0)
        self.port.write_cr(vcpu, 4, 0)
        self.reset_xstate(v)

    def vcpu_destroy(self, vcpu: int) -> None:
        v = self.vcpus.pop(vcpu)
        for field in SWITCHED_FIELDS:
            self.field_write(v, field, 0)
        self.port.free_guest_fpstate(vcpu)

    def field_write(self, v: Vcpu, field: int, value: int) -> None:
        if self.svm:
            level = 2 if v.l2 else 1
            if self.port.vmcb_read(v.number, level, VMCB_OF[field]) == value:
                return
            self.port.vmcb_mark_dirty(v.number, level, k.VMCB_CET)
            self.port.vmcb_write(v.number, level, VMCB_OF[field], value)
        elif self.port.vmcs_read(v.number, field) != value:
            self.port.vmcs_write(v.number, field, value)

    def xstate_write(self, v: Vcpu, msr: int, value: int) -> None:
        self.port.preempt_disable()
        self.port.fpu_get()
        self.port.wrmsr_safe(msr, value)
        self.port.fpu_put()
        self.port.preempt_enable()

    def get_msrs(self, vcpu: int, indices: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8):
            return -k.EFAULT, ()
        if len(indices) >= k.MAX_MSR_ENTRIES:
            return -k.E2BIG, ()
        for _ in indices:
            if self.port.copy_from_user(16):
                return -k.EFAULT, ()
        reachable = []
        for msr in indices:
            reachable.append(msr)
            if msr not in k.MSRS or (msr not in self.advertised and not self.exists(v, msr)):
                if not self.ignore_msrs:
                    break
        managed = any(self.is_xstate_msr(v, msr) for msr in reachable)
        if managed:
            self.port.load_guest_fpu(vcpu)
            self.port.fpu_get()
        values = []
        for msr in indices:
            result, value = self.do_get_msr(v, msr, True)
            if result:
                break
            values.append(value)
        if managed:
            self.port.fpu_put()
            self.port.put_guest_fpu(vcpu)
        for _ in values:
            if self.port.copy_to_user(16):
                return -k.EFAULT, ()
        return len(values), tuple(values)

    def exists(self, v: Vcpu, msr: int) -> bool:
        """Whether userspace can read it."""
        return self.get_msr(v, msr, True)[0] == 0 if not self.is_xstate_msr(v, msr) else True

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        v = self.vcpus[vcpu]
        result = self.set_msr(v, msr, value, False) if msr not in v.denied else 3
        return 0 if result == 2 and self.ignore_msrs else result

    def guest_rdmsr(self, vcpu: int, msr: int) -> tuple[int, int]:
        v = self.vcpus[vcpu]
        result, value = self.get_msr(v, msr, False) if msr not in v.denied else (3, 0)
        return (0, 0) if result == 2 and self.ignore_msrs else (result, value)

    def enter_guest(self, vcpu: int) -> None:
        self.follow_cpu(self.vcpus[vcpu])
        if self.port.host_cap("xsaves"):
            self.port.rdmsr(k.XSS)
            self.port.wrmsr_safe(k.XSS, self.vcpus[vcpu].xss)

    def exit_guest(self, vcpu: int) -> None:
        if self.port.host_cap("xsaves") and self.port.rdmsr(k.XSS) != self.host_xss:
            self.port.wrmsr_safe(k.XSS, self.host_xss)

    def nested_enter(self, vcpu: int) -> int:
        failed = super().nested_enter(vcpu)
        if failed:
            self.loaded_vmcb12.pop(vcpu, None)
        return failed

    def enter_vmcb02(self, v: Vcpu) -> None:
        clean = self.port.vmcs12_read(v.number, k.VMCB_CLEAN) >> k.VMCB_CET & 1
        v.l1_state = (self.port.read_cr(v.number, 0), self.port.read_cr(v.number, 4))
        self.port.write_cr(v.number, 4, self.port.vmcs12_read(v.number, k.GUEST_CR4))
        self.port.write_cr(v.number, 0, self.port.vmcs12_read(v.number, k.GUEST_CR0))
        self.port.vmcb_switch(v.number, 2)
        v.l2 = True
        self.recalc_intercepts(v)
        address = self.port.vmcb12_address(v.number)
        if v.shstk and not (clean and self.loaded_vmcb12.get(v.number) == address):
            for field, offset in VMCB_OF.items():
                self.field_write(v, field, self.port.vmcs12_read(v.number, offset))
        self.loaded_vmcb12[v.number] = address

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        v = self.vcpus[vcpu]
        control = "load_cet_exit" if field in k.HOST_FIELDS else "load_cet_entry"
        if not self.port.host_cap(control) or not (v.shstk or (v.ibt and field in (k.GUEST_S_CET, k.HOST_S_CET))):
            return 1, 0
        return 0, self.port.vmcs12_read(vcpu, field)

    def rsm(self, vcpu: int) -> int:
        v = self.vcpus[vcpu]
        if v.shstk and self.set_msr(v, k.INTERNAL_GUEST_SSP, self.port.smram_read(vcpu, k.SMRAM_SSP), True):
            return 1
        v.smm = False
        cr0, cr4 = self.port.smram_read(vcpu, k.SMRAM_CR0), self.port.smram_read(vcpu, k.SMRAM_CR4)
        self.port.write_cr(vcpu, 0, cr0)
        self.port.write_cr(vcpu, 4, cr4)
        return 0

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        return -k.EINVAL if component in (k.CET_U, k.CET_S) else 0


class Conditional(Upstream):
    """Sets the load-CET controls only for vCPUs that have CET, and merges bitmaps with all L1 does not say."""

    def set_constant_fields(self, v: Vcpu) -> None:
        if not (self.shstk or self.ibt):
            return
        has = v.shstk or v.ibt
        self.port.vmcs_write(v.number, k.HOST_S_CET, self.host_s_cet)
        self.port.vmcs_write(v.number, k.VM_ENTRY_CONTROLS, has << k.VM_ENTRY_LOAD_CET)
        self.port.vmcs_write(v.number, k.VM_EXIT_CONTROLS, has << k.VM_EXIT_LOAD_CET)

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        v = self.vcpus[vcpu]
        had = v.shstk or v.ibt
        result = super().set_cpuid(vcpu, shstk, ibt, lm, xsaves, xss)
        if self.svm or (v.shstk or v.ibt) == had:
            return result
        for level in (2, 1):
            self.port.vmcs_load(vcpu, level)
            self.set_constant_fields(self.vcpus[vcpu])
            for field in SWITCHED_FIELDS:
                self.port.vmcs_write(vcpu, field, 0)
        return result

    def recalc_intercepts(self, v: Vcpu) -> None:
        """One access at a time, only those that change, L2's bitmap ready at all times."""
        for access in (k.WRITE, k.READ):
            for msr in reversed(PASSABLE):
                on = not self.passes(v, msr)
                self.port.set_intercept(v.number, 1, msr, access, on)
                mine = bool(self.port.l1_intercepts(v.number, msr) & access)
                self.port.set_intercept(v.number, 2, msr, access, on or mine)
        self.port.set_intercept(v.number, 1, k.INT_SSP_TAB, 3, True)
        self.port.set_intercept(v.number, 2, k.INT_SSP_TAB, 3, True)

    def has_field(self, v: Vcpu, field: int) -> bool:
        return v.shstk or (v.ibt and field == k.GUEST_S_CET)


class AtEntry(Upstream):
    """The seed's contract kept by swapping around each VM entry: nothing is ever in hardware in the kernel."""

    profile: ClassVar[str] = "as-posted"

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        return msr not in SUPERVISOR_POINTERS and super().is_xstate_msr(v, msr)

    def enter_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        if self.port.host_cap("shstk"):
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])
        super().enter_guest(vcpu)

    def exit_guest(self, vcpu: int) -> None:
        v = self.vcpus[vcpu]
        if self.port.host_cap("shstk"):
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
        super().exit_guest(vcpu)

    def passes(self, v: Vcpu, msr: int) -> bool:
        """Only what XRSTORS could write anyway."""
        return msr in k.POINTER_MSRS and super().passes(v, msr)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr in SUPERVISOR_POINTERS:
            v.ssp[msr - k.PL0_SSP] = value
        else:
            super().store_msr(v, msr, value, host)

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        return v.ssp[msr - k.PL0_SSP] if msr in SUPERVISOR_POINTERS else super().fetch_msr(v, msr)

    def reset_xstate(self, v: Vcpu) -> None:
        super().reset_xstate(v)
        v.ssp = [0, 0, 0]


class Owner(Upstream):
    """Leaves values in hardware and remembers, per physical CPU, whose they are; reloads only after somebody else."""

    profile: ClassVar[str] = "v5"

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.owner: dict[int, int] = {}
        self.on: dict[int, int] = {}
        self.live: set[int] = set()

    def is_xstate_msr(self, v: Vcpu, msr: int) -> bool:
        return msr not in SUPERVISOR_POINTERS and super().is_xstate_msr(v, msr)

    def passes(self, v: Vcpu, msr: int) -> bool:
        """Nothing is passed: whoever writes by XRSTORS is saved all the same."""
        return False

    def disown(self, vcpu: int) -> None:
        """What hardware holds for it is out of date."""
        for cpu in [cpu for cpu, owner in self.owner.items() if owner == vcpu]:
            del self.owner[cpu]

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        super().vcpu_load(vcpu, cpu)
        self.on[vcpu] = cpu

    def sched_in(self, vcpu: int, cpu: int) -> None:
        super().sched_in(vcpu, cpu)
        self.on[vcpu] = cpu

    def enter_guest(self, vcpu: int) -> None:
        v, cpu = self.vcpus[vcpu], self.on[vcpu]
        if self.port.host_cap("shstk") and self.owner.get(cpu) != vcpu:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                self.port.wrmsr(msr, v.ssp[index])
            self.disown(vcpu)
            self.owner[cpu] = vcpu
        if self.port.host_cap("shstk"):
            self.live.add(vcpu)
        super().enter_guest(vcpu)

    def save(self, vcpu: int) -> None:
        """Registers to memory, which stay in hardware too."""
        if vcpu in self.live:
            self.live.discard(vcpu)
            self.vcpus[vcpu].ssp = [self.port.rdmsr(msr) for msr in SUPERVISOR_POINTERS]

    def sched_out(self, vcpu: int) -> None:
        self.save(vcpu)

    def vcpu_put(self, vcpu: int) -> None:
        self.save(vcpu)

    def vcpu_destroy(self, vcpu: int) -> None:
        super().vcpu_destroy(vcpu)
        self.disown(vcpu)

    def store_msr(self, v: Vcpu, msr: int, value: int, host: bool) -> None:
        if msr not in SUPERVISOR_POINTERS:
            super().store_msr(v, msr, value, host)
            return
        self.port.preempt_disable()
        self.save(v.number)
        v.ssp[msr - k.PL0_SSP] = value
        self.disown(v.number)
        self.port.preempt_enable()

    def fetch_msr(self, v: Vcpu, msr: int) -> int:
        if msr not in SUPERVISOR_POINTERS:
            return super().fetch_msr(v, msr)
        self.port.preempt_disable()
        self.save(v.number)
        value = v.ssp[msr - k.PL0_SSP]
        self.port.preempt_enable()
        return value

    def reset_xstate(self, v: Vcpu) -> None:
        super().reset_xstate(v)
        self.port.preempt_disable()
        self.live.discard(v.number)
        v.ssp = [0, 0, 0]
        self.disown(v.number)
        self.port.preempt_enable()


PEERS: tuple[type[Any], ...] = (LazySwap, Cautious, Deferred, Direct, Conditional, AtEntry, Owner)
