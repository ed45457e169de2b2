"""The port of AVIC: what a candidate provides, and what it may call."""

from __future__ import annotations

from typing import Protocol

Apics = tuple[tuple[int, int, int, int, int], ...]
"""APICs in creation order: id, mode (0 disabled, 1 xAPIC, 2 x2APIC), SPIV, LDR, DFR.

The id is the vCPU's; an xAPIC that was given another 8-bit ID has it in bits 39:32, plus bit 40.
LDR is the whole register: bits 31:24 in xAPIC mode, 32 bits in x2APIC mode.
"""

Message = tuple[int, int, int, int, int, int, int, int, int, int]
"""sender (-1 for an MSI), destination, logical, shorthand, mode, vector, level-triggered, asserted,
redirection hint, and flags: bit 0 32-bit ids, bit 1 broadcast quirk off. For an IPI from an
x2APIC the reserved bits of ICR that the guest set stand in flags[63:32]."""


class Candidate(Protocol):
    """What the harness calls. VMs and vCPUs are named by ints that the harness chooses."""

    # layer R
    def route(self, apics: Apics, message: Message) -> int:
        """The APICs that accept, as a bit mask by position in `apics`; -1 for #GP.

        By the manuals, but in profile kvm-lapic: a destination above 0xFF names no xAPIC, an MSI to 0xFF no x2APIC.
        """

    def signal_msi(self, apics: Apics, message: Message) -> int:
        """Return value of KVM_SIGNAL_MSI for this message, as KVM has it in every profile; vectors 0 to 15 count."""

    # layer T: setup and lifecycle
    def hw_setup(
        self,
        edx: int,
        ecx: int,
        npt: int,
        family: int,
        zen4: int,
        snp: int,
        hv_inuse_wr: int,
        avic: int,
        force: int,
        ipiv: int,
        next_tag: int,
    ) -> int:
        """Detect AVIC from CPUID Fn8000_000A and the parameters; called again when the module is loaded anew.

        `npt` is what became of nested paging, whatever EDX[0] says; `avic` and `force` are module parameters.
        `next_tag` is where the generator of VM tags stands, 32 bits, of which a driver takes what it uses.
        Result: bit 0 AVIC, bit 1 x2AVIC, bit 2 IPI virtualization, bits 31:16 the highest usable id (0 when
        AVIC is off).
        """

    def hw_unsetup(self) -> None:
        """Module exit: undo what setup registered."""

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        """Create a VM, with an in-kernel local APIC if `irqchip`. 0 or -ENOMEM."""

    def vm_precreate(self, vm: int) -> int:
        """Before each vCPU creation, with the VM's lock held, which creations themselves are not; idempotent.

        0 or -ENOMEM.
        """

    def vm_pre_destroy(self, vm: int) -> None:
        """Destruction begins; the vCPUs are still there."""

    def vm_destroy(self, vm: int) -> None:
        """Destruction ends; the vCPUs have been freed, or creation of the VM failed, and then nothing came before."""

    def vm_tag(self, vm: int) -> int:
        """The tag or id of this VM for the GALog; 0 while it has none."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        """Create a vCPU. 0, -ENOMEM, -EFAULT, -EINVAL (id not below max_vcpu_ids), -EEXIST, or the memslot's error.

        `vcpu` is new for each call, also when the id is a duplicate. The boot vCPU has id 0.
        """

    def vcpu_free(self, vcpu: int) -> None:
        """Free a vCPU that was created; one that did more than a RESET is freed with nothing beside it.

        The VM may live on: entries go, IRTEs return to host mode, and what the vCPU's id forbade may be allowed again.
        """

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        """RESET (`init` 0; follows each creation, when the vCPU is listed) or INIT."""

    def vmcb_reinit(self, vcpu: int) -> None:
        """After a SHUTDOWN exit the VMCB is undefined: rebuild it from zero, intercepts too. The MSR map is kept."""

    def prepare_guest(self, vcpu: int) -> None:
        """Last thing before VMRUN, on the vCPU's core: synchronise V_TPR, inject when AVIC is inactive."""

    def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
        """The highest vector of IRR may have changed."""

    def hwapic_isr_update(self, vcpu: int, max_isr: int) -> None:
        """The highest vector of ISR may have changed."""

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        """KVM_SET_LAPIC: 1024 bytes of registers, taken raw, ISR and TMR included; ID in the 8-bit format.

        0, or -EINVAL without an in-kernel APIC. Asked with AVIC off as well.
        """

    def get_lapic(self, vcpu: int) -> bytes:
        """KVM_GET_LAPIC: 1024 bytes of registers."""

    # exits, scheduling, delivery
    def vcpu_load(self, vcpu: int, host_id: int) -> None:
        """The vCPU's thread now runs on the core with that APIC id, which may have more than 12 bits."""

    def vcpu_put(self, vcpu: int) -> None:
        """The vCPU's thread leaves its core."""

    def vcpu_blocking(self, vcpu: int) -> int:
        """The vCPU is about to sleep. 1 if an interrupt is deliverable, so that it must not; 0 otherwise."""

    def vcpu_unblocking(self, vcpu: int) -> None:
        """The vCPU is awake again (or did not sleep)."""

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """AVIC_INCOMPLETE_IPI. 1 resumes the guest, 0 exits to user space.

        Where hardware left ICR busy set, bit 12 is 1 in `info1` and in the page.
        """

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        """AVIC_NOACCEL. 1 resumes the guest, 0 exits to user space."""

    def apic_access(self, vcpu: int, offset: int, value: int) -> int:
        """An intercepted write to an APIC register by MMIO or MSR. 0, or 1 for #GP.

        MMIO of an xAPIC gives no #GP. In x2APIC mode `offset` is 16 * (MSR - 0x800), and the ICR's `value` has 64 bits.
        """

    def set_apic_base(self, vcpu: int, value: int, host: int) -> int:
        """Write the APIC_BASE MSR, by the guest or by the host. 0, or 1 for #GP.

        Bits 63:52 are reserved; which of 51:48 are, the guest's CPUID says, which is not told: either is right.
        """

    def deliver(self, vcpu: int, vector: int, level: int) -> None:
        """A fixed interrupt from the host, already accepted by the enabled local APIC; IRR and TMR are still to do.

        Asked with AVIC off as well.
        """

    def inhibit(self, vm: int, reason: int, on: int) -> None:
        """Set or clear one inhibit reason; with AVIC off nothing follows."""

    def refresh(self, vcpu: int) -> None:
        """The request made by `request_refresh`: the vCPU is out of the guest and not blocking."""

    # posted interrupts
    def vcpu_tag(self, vcpu: int) -> int:
        """The GATag of this vCPU."""

    def ga_log_notify(self, tag: int) -> int:
        """The IOMMU logged an interrupt for a vCPU that does not run. 0."""

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        """Route `irq` to a vCPU, or to none (-1), posted before or not. 0, -EIO or the environment's error.

        With AVIC off it succeeds and posts nothing.
        """

    # pure helpers
    def hpa_field(self, address: int) -> int:
        """The field that holds this physical address."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        """Index in the logical table of an 8-bit logical id; -1 for none."""

    def phys_index(self, index: int) -> int:
        """Byte offset of a physical entry in the xAVIC table; -1 for none."""

    def tag_round_trip(self, vm_tag: int, index: int) -> tuple[int, int]:
        """Encode a GATag from VM tag and vCPU id, and decode it again."""

    def x2_ldr(self, apic_id: int) -> int:
        """The LDR of an x2APIC."""

    def ppr(self, tpr: int, isrv: int) -> int:
        """The PPR for a TPR and the highest in-service vector (0 for none)."""


class MovableTags(Protocol):
    """What a candidate may have besides: without it nobody sees whether tags come round to a live VM's."""

    def tags_pass(self, next_tag: int) -> None:
        """The generator of VM tags now stands at `next_tag`, as after that many VMs came and went."""


IrqfdActs = tuple[tuple[str, int, int, tuple[tuple[int, int], ...]], ...]
"""What is done: `route` (a table of gsi and vector), `assign` or `deassign` (eventfd, gsi), `write` (eventfd,
count), `read` (eventfd)."""


class Irqfds(Protocol):
    """What a router has besides that declares `irqfd`."""

    def irqfds(self, acts: IrqfdActs) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Do these in a fresh VM with one software-enabled xAPIC of id 0; for each its result and what it delivered.

        Result: 0 or a negative errno; of a read the counter or -EAGAIN. Delivered: the vectors that this act put
        into IRR, without those of the acts before; what an act leaves to a worker is done before the next act.
        Routes are edge-triggered fixed MSIs to APIC 0. Eventfds are numbered 0 to 2 and non-blocking; 3 is open and
        no eventfd, 4 is not open.
        """


class ToldRouting(Protocol):
    """What such a router may have: without it nobody sees where between 1024 and 2**31 its gsis end."""

    def irq_routing(self) -> int:
        """What KVM_CAP_IRQ_ROUTING tells, which its tables are held to; in Python an int will do."""


_T = (
    "hw_setup hw_unsetup vm_create vm_precreate vm_pre_destroy vm_destroy vm_tag vcpu_create vcpu_free vcpu_reset "
    "vmcb_reinit prepare_guest hwapic_irr_update hwapic_isr_update set_lapic get_lapic"
)
_EXITS = (
    "vcpu_load vcpu_put vcpu_blocking vcpu_unblocking incomplete_ipi_exit noaccel_exit apic_access set_apic_base "
    "deliver inhibit refresh"
)
OPTIONAL = {
    "route": "layer-r",
    "signal_msi": "kvm-return",
    **dict.fromkeys(_T.split(), "layer-t"),
    **dict.fromkeys(_EXITS.split(), "exits"),
    **dict.fromkeys(("vcpu_tag", "ga_log_notify", "update_irte"), "posted"),
    **dict.fromkeys(("hpa_field", "logical_index", "phys_index", "tag_round_trip", "x2_ldr", "ppr"), "helpers"),
}
"""Capability that each entry point needs."""


class Port(Protocol):
    """What a candidate may ask of the host, the hardware and the rest of the kernel."""

    def alloc_page(self, order: int) -> int:
        """2**order contiguous pages with undefined content; their physical address, or 0."""

    def free_page(self, address: int) -> None:
        """Give pages back."""

    def clear_page(self, address: int) -> None:
        """Fill the whole allocation with zeros."""

    def kzalloc(self, size: int) -> int:
        """Zeroed kernel memory, for permission maps among others; a handle, or 0."""

    def kfree(self, handle: int) -> None:
        """Give kernel memory back."""

    def alloc_vmcb(self, vcpu: int) -> int:
        """A zeroed VMCB for this vCPU. 0 or -ENOMEM."""

    def free_vmcb(self, vcpu: int) -> None:
        """Give the VMCB back."""

    def set_memory_region(self, vm: int, slot: int, gpa: int, size: int) -> int:
        """Create the private memslot `slot`, or delete it with size 0. 0, -EEXIST (not empty), or a refusal."""

    def gfn_to_page(self, vm: int, gfn: int) -> int:
        """Page behind a guest frame, with a reference; its physical address, or 0 if there is none."""

    def put_page(self, address: int) -> None:
        """Drop a reference that gfn_to_page gave; an unreferenced page may be moved at any time."""

    def kmap(self, address: int) -> int:
        """Map a page; the address to use. Balanced by kunmap."""

    def kunmap(self, address: int) -> None:
        """Undo kmap."""

    def read32(self, address: int, offset: int) -> int:
        """One aligned 32-bit load from a page."""

    def read64(self, address: int, offset: int) -> int:
        """One aligned 64-bit load from a page."""

    def write32(self, address: int, offset: int, value: int) -> None:
        """One aligned 32-bit store."""

    def write64(self, address: int, offset: int, value: int) -> None:
        """One aligned 64-bit store."""

    def or32(self, address: int, offset: int, bits: int) -> int:
        """Locked OR; the old value. A full barrier."""

    def and32(self, address: int, offset: int, bits: int) -> int:
        """Locked AND; the old value. A full barrier."""

    def vmcb_read(self, vcpu: int, offset: int) -> int:
        """A field of the VMCB control area; its width follows from the offset."""

    def vmcb_write(self, vcpu: int, offset: int, value: int) -> None:
        """Set a field of the VMCB control area."""

    def mark_vmcb_dirty(self, vcpu: int, bits: int) -> None:
        """Clear these clean bits."""

    def set_msr_intercept(self, vcpu: int, msr: int, read: int, write: int) -> None:
        """Intercept (1) or pass through (0) reads and writes of an MSR. A VMCB starts with all intercepted."""

    def set_cr8_intercept(self, vcpu: int, on: int) -> None:
        """Intercept CR8 writes or not. A VMCB starts with them intercepted."""

    def tlb_flush(self, vcpu: int) -> None:
        """Request a flush of this vCPU's translations before its next VMRUN."""

    def smp_mb(self) -> None:
        """A full memory barrier."""

    def vcpu_mode(self, vcpu: int) -> int:
        """1 while the vCPU is in guest mode, 0 outside."""

    def vcpu_cpu(self, vcpu: int) -> int:
        """APIC id of the core the vCPU is loaded on, -1 for none: Linux's vcpu->cpu keeps the last one."""

    def wrmsr(self, msr: int, value: int) -> None:
        """Write a host MSR; the doorbell is 0xC001011B."""

    def wake(self, vcpu: int) -> None:
        """Wake the vCPU if it sleeps."""

    def kick(self, vcpu: int) -> None:
        """Make the vCPU leave guest mode, or wake it, so that it sees its requests and pending events."""

    def request_refresh(self, vcpu: int) -> None:
        """Make the vCPU call `refresh` before it enters the guest again; it is neither kicked nor woken for it.

        A vCPU that is still being created may be asked too.
        """

    def inject(self, vcpu: int, vector: int) -> None:
        """Inject an interrupt at the coming VMRUN; software has moved it to ISR."""

    def signal(self, vcpu: int, mode: int, vector: int) -> None:
        """Make SMI, NMI, INIT or STARTUP pending on a vCPU."""

    def emulate_instruction(self, vcpu: int) -> int:
        """Emulate the instruction that exited, RIP included. 1."""

    def ioapic_eoi(self, vm: int, vector: int) -> None:
        """Broadcast the EOI of a level-triggered vector to the IOAPICs."""

    def warn(self, text: str) -> None:
        """Log a warning that an administrator sees."""

    def lock(self, name: str, of: int) -> None:
        """Take a lock. Names: slots, hash, inhibit (sleeping), ir_list (spinlock of vCPU `of`), ga_hash (spinlock).

        Each is exclusive, one for each value of `of`: the VM for sleeping locks, 0 for ga_hash. What they guard is the
        driver's choice; kvm->lock is not among them.
        """

    def unlock(self, name: str, of: int) -> None:
        """Release it."""

    def register_ga_notifier(self) -> None:
        """Have `ga_log_notify` called from now on."""

    def unregister_ga_notifier(self) -> None:
        """Stop that."""

    def set_vcpu_affinity(self, irq: int, page: int, vector: int, tag: int) -> int:
        """Post an IRTE to a backing page, or return it to host mode (page 0).

        0, a refusal, or 1: it succeeded but gave no metadata, so it cannot be updated later. A
        posted IRTE starts not running and without GALogIntr: tell it more with the vCPU's list locked.
        Page 0 is never refused, nor wrong for an irq that was never posted.
        """

    def iommu_update_ga(self, irq: int, cpu: int, ga_log_intr: int) -> int:
        """Tell a posted IRTE where its vCPU runs (-1 for nowhere) and whether to log. 0."""


FURTHER = {"irqfds": ("irqfd", Irqfds.irqfds)}
"""Entry points beside those of `Candidate`: the capability that must be declared for each, and what it takes."""
