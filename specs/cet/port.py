"""The two sides of the port: a hypervisor's entry points, and what it may ask of hardware and kernel."""

from __future__ import annotations

from typing import Protocol


class Candidate(Protocol):
    """A hypervisor's handling of CET, entered where the generic code of KVM enters it.

    `vcpu` is a number the harness chose, never used twice. MSR handlers return 0, or 1 for #GP. Unless an entry
    point says otherwise its vCPU's thread executes it, preemptible, on the physical CPU it was last told of.
    """

    def vendor_init(self) -> int:
        """Derive the capabilities of this host; called again when the module is loaded anew.

        No vCPU's thread executes it; RDMSR works all the same, and gives what the host runs with: S_CET, XSS.

        Returns 0, or -EIO for a host that runs with shadow stacks (CET-065).
        """

    def kvm_caps(self) -> tuple[bool, bool, int]:
        """SHSTK offered, IBT offered, XSS bits supported."""

    def nested_load_cet(self) -> bool:
        """Whether nested VMX offers the load-CET entry and exit controls."""

    def get_msr_index_list(self) -> tuple[int, ...]:
        """KVM_GET_MSR_INDEX_LIST, in any order; MSRs of other subsystems are not compared."""

    def vcpu_create(self, vcpu: int) -> int:
        """A new vCPU in power-up state. 0, or -ENOMEM when no fpstate was allocated.

        Its control structures hold zeros, its bitmaps stop everything, and set_cpuid follows.
        """

    def vcpu_destroy(self, vcpu: int) -> None:
        """The vCPU is not loaded and never comes back."""

    def set_cpuid(self, vcpu: int, shstk: bool, ibt: bool, lm: bool, xsaves: bool, xss: int) -> int:
        """KVM_SET_CPUID2: what userspace offers the guest; KVM's own capabilities still limit it.

        Returns 0, or -EINVAL for a change after the first KVM_RUN that entered the guest.
        """

    def set_msr_filter(self, vcpu: int, denied: tuple[int, ...]) -> None:
        """KVM_X86_SET_MSR_FILTER: guest accesses to these MSRs are denied with #GP from now on."""

    def vcpu_load(self, vcpu: int, cpu: int) -> None:
        """An ioctl begins on physical CPU `cpu`; the preempt notifier is registered already."""

    def vcpu_put(self, vcpu: int) -> None:
        """The ioctl ends; the preempt notifier is unregistered afterwards."""

    def run_begin(self, vcpu: int) -> None:
        """KVM_RUN, before its loop: loads the guest FPU."""

    def run_end(self, vcpu: int) -> None:
        """KVM_RUN, after its loop: puts the guest FPU."""

    def sched_out(self, vcpu: int) -> None:
        """Preempt notifier: the loaded vCPU's thread leaves its physical CPU."""

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """Preempt notifier: the loaded vCPU's thread continues on `cpu`."""

    def enter_guest(self, vcpu: int) -> None:
        """Preemption is disabled, VM entry follows: loads what neither FPU code nor VMCS carry, XSS for one.

        What the scheduler or a softirq took of the guest FPU is reloaded afterwards, by nobody's call. VMRUN of a
        guest with encrypted state (`sev_es`) loads XSS itself, with the value that was accepted last.
        """

    def exit_guest(self, vcpu: int) -> None:
        """A VM exit just happened, preemption is still disabled.

        S_CET, SSP and the table are the host's already, by the controls of the VMCS that ran or by #VMEXIT; XSS must be
        before the thread leaves this physical CPU or returns to userspace.
        """

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        """An intercepted or emulated WRMSR. 0, or 1 for #GP."""

    def guest_rdmsr(self, vcpu: int, msr: int) -> tuple[int, int]:
        """An intercepted or emulated RDMSR: (0, value), or (1, 0) for #GP."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """KVM_SET_MSRS with (MSR, value) entries: how many were processed, -E2BIG or -EFAULT."""

    def get_msrs(self, vcpu: int, indices: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """KVM_GET_MSRS: how many were processed, and their values; (-E2BIG, ()) or (-EFAULT, ()).

        Every copy from and to the user's arrays is one that may fail, in as many pieces as one likes; an empty batch
        needs none.
        """

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        """KVM_SET_ONE_REG. 0, -EINVAL or -EFAULT.

        `copy_from_user(ONE_REG_SIZE)` stands for the request, the id and where the value is; `copy_from_user(8)` for
        the value itself, which is looked for only if the id is good. Who leaves the first one out is not held to it.
        """

    def get_one_reg(self, vcpu: int, reg: int) -> tuple[int, int]:
        """KVM_GET_ONE_REG. (0, value), (-EINVAL, 0) or (-EFAULT, 0); the copies as for KVM_SET_ONE_REG."""

    def get_reg_list(self, vcpu: int, n: int) -> tuple[int, int, tuple[int, ...]]:
        """KVM_GET_REG_LIST with room for n ids: result, count, ids. 0, -E2BIG or -EFAULT."""

    def set_cr0(self, vcpu: int, value: int) -> int:
        """A guest's MOV to CR0 that exits. 0, written with `write_cr`, or 1 for #GP."""

    def set_cr4(self, vcpu: int, value: int) -> int:
        """A guest's MOV to CR4 that exits. 0, written with `write_cr`, or 1 for #GP."""

    def set_sregs(self, vcpu: int, cr0: int, cr4: int) -> int:
        """KVM_SET_SREGS, the two registers that matter here. 0 or -EINVAL."""

    def vcpu_reset(self, vcpu: int, init: bool) -> None:
        """INIT within KVM_RUN, or a full RESET from outside of it, also of a vCPU in SMM or in L2.

        CR0.WP and CR4.CET are the candidate's to clear; the guest sets their other bits again. RESET comes to vCPUs
        that have run, which Linux's does not: the FPU components must be cleared then too.
        """

    def get_mp_state(self, vcpu: int) -> int:
        """KVM_GET_MP_STATE: processes an INIT that is pending. 0."""

    def cpuid_xsaves_size(self, vcpu: int) -> int:
        """CPUID.(0xD,1):EBX as a guest with XSAVES sees it with XCR0 = 3."""

    def get_xsave(self, vcpu: int) -> tuple[int, ...]:
        """KVM_GET_XSAVE: numbers of the components in the image, besides 0 and 1."""

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """KVM_SET_XSAVE of an image with that one component. 0 or -EINVAL."""

    def smi(self, vcpu: int) -> None:
        """Enter SMM from L1, by the 64-bit state-save map: the vCPU has long mode."""

    def rsm(self, vcpu: int) -> int:
        """Leave SMM. 0, or 1 to shut down."""

    def nested_enter(self, vcpu: int) -> int:
        """VMLAUNCH or VMRUN by L1: `ENTERED`, or one of the three failures.

        The control structure that runs next, its entry and exit controls and host fields, the bitmap of L2, and CR0
        and CR4 as `write_cr` has them are the candidate's to bring about, L2's here and L1's again at the exit; of a
        vmcb01 it must remember L1's CR0 and CR4 itself. A VMCB's clean bits are as hardware left them.
        """

    def nested_exit(self, vcpu: int) -> None:
        """L2 exits to L1; CR0 and CR4 of L2 need not be stored for L1 to read."""

    def set_nested_state(self, vcpu: int) -> int:
        """KVM_SET_NESTED_STATE of a vCPU that is in L2, VMX only. 0; only states that an entry would take come here.

        No entry is pending, so S_CET, SSP and the table stay what userspace has set; L2's bitmap counts from the next
        VM entry on.
        """

    def vmread(self, vcpu: int, field: int) -> tuple[int, int]:
        """L1's VMREAD of a CET field of vmcs12, of either area: (0, value), or (1, 0) for VMfail.

        Supported is what the processor's controls are there for, whatever the guest's CPUID says.
        """

    def emulate(self, vcpu: int, instruction: str, user: bool) -> int:
        """Emulate one instruction at CPL 3 or 0: `EMULATED`, `EMULATED_GP` or `UNHANDLEABLE`.

        `ret`, `indirect_jmp`, `indirect_call`, `far_jmp` from 64-bit to compatibility mode, `task_switch`, or `mov`.
        While CR4.CET is set all but `mov` may be `UNHANDLEABLE`.
        """


OPTIONAL = {
    "set_one_reg": "one-reg",
    "get_one_reg": "one-reg",
    "get_reg_list": "one-reg",
    "get_xsave": "xsave",
    "set_xsave": "xsave",
    "smi": "smm",
    "rsm": "smm",
    "nested_enter": "nested",
    "nested_exit": "nested",
    "set_nested_state": "nested",
    "vmread": "nested",
    "nested_load_cet": "nested",
    "emulate": "emulator",
}


class Port(Protocol):
    """What a candidate may ask of hardware, kernel and memory."""

    def host_cap(self, name: str) -> int:
        """A property of the host or a module parameter: each `vendor_init` may find another one, of the same vendor.

        `vendor` is 1 for AMD and 0 for Intel, `width` the bits of a linear address (57 with `la57`, else 48), `xss` the
        bits of XSS that hardware has, of which RDMSR shows those that the host uses (`own_xss`), `s_cet` the host's
        S_CET. The others are 0 or 1: the features `shstk`, `ibt`, `xsaves`, `lm`, `la57`; of VMX `load_cet_entry`,
        `load_cet_exit`, `basic56` (IA32_VMX_BASIC[56]), `unrestricted`; of KVM `tdp`, `smaller_maxphyaddr`, `sev_es`
        (its guests' state is encrypted), and the parameter `ignore_msrs`.
        """

    def rdmsr(self, msr: int) -> int:
        """RDMSR on the physical CPU the candidate runs on; must not fault."""

    def wrmsr(self, msr: int, value: int) -> None:
        """WRMSR on the physical CPU the candidate runs on; a fault is a warning in the host's log."""

    def wrmsr_safe(self, msr: int, value: int) -> int:
        """WRMSR that may fault. 0, or -EIO when it did."""

    def preempt_disable(self) -> None:
        """Preemption is off until the matching `preempt_enable`; they nest."""

    def preempt_enable(self) -> None:
        """Undo one `preempt_disable`; the outermost is a point of preemption."""

    def alloc_guest_fpstate(self, vcpu: int) -> int:
        """A zeroed fpstate for `vcpu`, before anything else is done with it. 0 or -ENOMEM."""

    def free_guest_fpstate(self, vcpu: int) -> None:
        """Give the fpstate back; it must not be in use."""

    def load_guest_fpu(self, vcpu: int) -> None:
        """Save the task's FPU registers, load the guest's; from now on the guest FPU is in use.

        Component 11 always, component 12 where the profile has the FPU code manage it.
        """

    def put_guest_fpu(self, vcpu: int) -> None:
        """Save the guest's FPU registers, load the task's; the guest FPU is no longer in use."""

    def guest_fpu_in_use(self, vcpu: int) -> bool:
        """Whether `load_guest_fpu` was the last of the two."""

    def fpu_get(self) -> None:
        """Lock the FPU registers, after reloading them if the kernel took them in between."""

    def fpu_put(self) -> None:
        """Unlock the FPU registers."""

    def fpstate_clear(self, vcpu: int, component: int) -> None:
        """Put one component of a guest fpstate that is not in use into its initial state; RESET and INIT need it."""

    def copy_uabi_to_fpstate(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """Take one component of a user's XSAVE image into the guest fpstate. 0, or -EINVAL for a supervisor one."""

    def set_intercept(self, vcpu: int, level: int, msr: int, access: int, on: bool) -> None:
        """Stop or pass `access` (READ, WRITE or both) to `msr` while the vCPU runs L1 (level 1) or L2 (level 2).

        All MSRs are intercepted in a new vCPU; XSS and whatever has no bitmap entry always is.
        """

    def l1_intercepts(self, vcpu: int, msr: int) -> int:
        """Accesses (READ, WRITE) to `msr` that L1 intercepts for its L2."""

    def vmcs_read(self, vcpu: int, field: int) -> int:
        """VMREAD of the vCPU's current VMCS."""

    def vmcs_write(self, vcpu: int, field: int, value: int) -> None:
        """VMWRITE of the vCPU's current VMCS; fields of a new VMCS are 0, the entry and exit controls too.

        Unless VM_ENTRY_CONTROLS bit 20 and VM_EXIT_CONTROLS bit 28 are set, in vmcs01 and vmcs02 each, nothing of
        S_CET, SSP and the table is loaded; what an exit loads is in the HOST_ fields of the one that ran.
        """

    def vmcs_load(self, vcpu: int, level: int) -> None:
        """Make vmcs01 (level 1) or vmcs02 (level 2) current."""

    def vmcb_read(self, vcpu: int, level: int, field: int) -> int:
        """A field of vmcb01 or vmcb02, in memory."""

    def vmcb_write(self, vcpu: int, level: int, field: int, value: int) -> None:
        """Store a field of vmcb01 or vmcb02; a physical CPU uses its copy of it until the clean bit is cleared."""

    def vmcb_mark_dirty(self, vcpu: int, level: int, bit: int) -> None:
        """Clear a clean bit of vmcb01 or vmcb02."""

    def vmcb_switch(self, vcpu: int, level: int) -> None:
        """VMRUN uses vmcb01 or vmcb02 from now on."""

    def vmcs12_read(self, vcpu: int, field: int) -> int:
        """A field of the vmcs12 or vmcb12 in L1's memory.

        A vmcb12's CR0 and CR4 are read by the names of a VMCS's fields, GUEST_CR0 and GUEST_CR4.
        """

    def vmcs12_write(self, vcpu: int, field: int, value: int) -> None:
        """Store a field of the vmcs12 or vmcb12 in L1's memory."""

    def vmcb12_address(self, vcpu: int) -> int:
        """Guest-physical address of the vmcb12 that L1 runs; what its clean field says is meant of that one."""

    def read_cr(self, vcpu: int, number: int) -> int:
        """CR0 or CR4 as the guest sees it."""

    def write_cr(self, vcpu: int, number: int, value: int) -> None:
        """Set CR0 or CR4 as the guest sees it, unchecked."""

    def smram_read(self, vcpu: int, offset: int) -> int:
        """Eight bytes of the SMM state-save map."""

    def smram_write(self, vcpu: int, offset: int, value: int) -> None:
        """Store eight bytes of the SMM state-save map."""

    def take_init(self, vcpu: int) -> bool:
        """Test and clear the pending INIT."""

    def copy_from_user(self, size: int) -> int:
        """0 or -EFAULT. The size says what is copied to people, and in KVM_SET_ONE_REG which of two things."""

    def copy_to_user(self, size: int) -> int:
        """0 or -EFAULT."""
