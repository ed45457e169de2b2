/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI of avic: what a library exports, and what it may call.
 *
 * A library that defines
 *
 *	const struct avic_driver avic_driver = { .abi_version = AVIC_ABI, ... };
 *
 * is tested by --candidate lib:PATH.so. docs/c.md says how one is written; types.h what holds for
 * all five subsystems: ownership, lengths, errors, threads.
 *
 * Capabilities, each with the entry points that it needs:
 *   layer-r: routes messages: names the APICs that accept one. Needs route.
 *   layer-t: maintains VMCB fields, backing pages and tables. Needs hw_setup, hw_unsetup,
 *       vm_create, vm_precreate, vm_pre_destroy, vm_destroy, vm_tag, vcpu_create, vcpu_free,
 *       vcpu_reset, vmcb_reinit, prepare_guest, hwapic_irr_update, hwapic_isr_update, set_lapic,
 *       get_lapic.
 *   exits: completes AVIC exits and follows loading, blocking and inhibits. Needs vcpu_load,
 *       vcpu_put, vcpu_blocking, vcpu_unblocking, incomplete_ipi_exit, noaccel_exit,
 *       apic_access, set_apic_base, deliver, inhibit, refresh.
 *   posted: posts device interrupts and listens to the GALog. Needs vcpu_tag, ga_log_notify,
 *       update_irte.
 *   helpers: exposes its pure functions. Needs hpa_field, logical_index, phys_index,
 *       tag_round_trip, x2_ldr, ppr.
 *   kvm-return: returns the number of acceptances as KVM_SIGNAL_MSI does. Needs signal_msi.
 *   irqfd: delivers interrupts from eventfds by a routing table. Needs irqfds.
 */
#ifndef CONFORMANCE_AVIC_H
#define CONFORMANCE_AVIC_H

#include "types.h"

/* Counted up when an entry point or an environment call is added, goes or changes. */
#define AVIC_ABI 3

/* A local APIC, for layer R. */
struct avic_apic {
	u64 id;		/* the vCPU's; an xAPIC that was given another 8-bit ID has it in bits 39:32, plus bit 40 */
	int mode;	/* 0 disabled, 1 xAPIC, 2 x2APIC */
	u32 spiv;
	u32 ldr;	/* the whole register: bits 31:24 in xAPIC mode, 32 bits in x2APIC mode */
	u32 dfr;
};

/* An interrupt message, for layer R. */
struct avic_message {
	int sender;		/* position in the list of APICs; -1 for an MSI */
	u32 destination;
	int logical;
	int shorthand;		/* NO_SHORTHAND, SELF, ALL, OTHERS */
	int mode;		/* FIXED to EXTINT */
	int vector;
	int level;		/* level-triggered */
	int asserted;
	int hint;		/* redirection hint */
	u64 flags;		/* bit 0 32-bit ids, bit 1 broadcast quirk off; bits 63:32 the reserved bits of the ICR that were set */
};

/* A gsi of a routing table, and the vector that it delivers. */
struct avic_gsi_route {
	u32 gsi;
	u32 vector;
};

/* One thing that is done with eventfds. */
struct avic_irqfd_act {
	const char *what;	/* "route", "assign", "deassign", "write" or "read" */
	int fd;			/* of assign, deassign, write and read */
	u64 n;			/* the gsi of assign and deassign; what is written */
	const struct avic_gsi_route *table;	/* of route: the whole table */
	size_t table_len;
};

/* What came of it. The vectors are the driver's memory, and stay as they are until it is called again. */
struct avic_irqfd_done {
	s64 result;		/* 0 or a negative errno; of a read the counter or -EAGAIN */
	const u32 *delivered;	/* vectors that this act put into IRR, without those of the acts before */
	size_t delivered_len;
};

/*
 * What a candidate may ask of the host, the hardware and the rest of the kernel.
 *
 * The table is valid as long as the library is loaded; world is what create was given.
 */
struct avic_env {
	/* 2^order contiguous pages with undefined content; their physical address, or 0. */
	u64 (*alloc_page)(void *world, int order);

	/* Give pages back. */
	void (*free_page)(void *world, u64 address);

	/* Fill the whole allocation with zeros. */
	void (*clear_page)(void *world, u64 address);

	/* Zeroed kernel memory, for permission maps among others; a handle, or 0. */
	u64 (*kzalloc)(void *world, u64 size);

	/* Give kernel memory back. */
	void (*kfree)(void *world, u64 handle);

	/* A zeroed VMCB for this vCPU. 0 or -ENOMEM. */
	int (*alloc_vmcb)(void *world, int vcpu);

	/* Give the VMCB back. */
	void (*free_vmcb)(void *world, int vcpu);

	/*
	 * Create the private memslot slot, or delete it with size 0. 0, -EEXIST (not empty), or a
	 * refusal.
	 */
	int (*set_memory_region)(void *world, int vm, int slot, u64 gpa, u64 size);

	/*
	 * Page behind a guest frame, with a reference; its physical address, or 0 if there is none.
	 */
	u64 (*gfn_to_page)(void *world, int vm, u64 gfn);

	/*
	 * Drop a reference that gfn_to_page gave; an unreferenced page may be moved at any time.
	 */
	void (*put_page)(void *world, u64 address);

	/* Map a page; the address to use. Balanced by kunmap. */
	u64 (*kmap)(void *world, u64 address);

	/* Undo kmap. */
	void (*kunmap)(void *world, u64 address);

	/* One aligned 32-bit load from a page. */
	u32 (*read32)(void *world, u64 address, u32 offset);

	/* One aligned 64-bit load from a page. */
	u64 (*read64)(void *world, u64 address, u32 offset);

	/* One aligned 32-bit store. */
	void (*write32)(void *world, u64 address, u32 offset, u32 value);

	/* One aligned 64-bit store. */
	void (*write64)(void *world, u64 address, u32 offset, u64 value);

	/* Locked OR; the old value. A full barrier. */
	u32 (*or32)(void *world, u64 address, u32 offset, u32 bits);

	/* Locked AND; the old value. A full barrier. */
	u32 (*and32)(void *world, u64 address, u32 offset, u32 bits);

	/* A field of the VMCB control area; its width follows from the offset. */
	u64 (*vmcb_read)(void *world, int vcpu, u32 offset);

	/* Set a field of the VMCB control area. */
	void (*vmcb_write)(void *world, int vcpu, u32 offset, u64 value);

	/* Clear these clean bits. */
	void (*mark_vmcb_dirty)(void *world, int vcpu, u32 bits);

	/*
	 * Intercept (1) or pass through (0) reads and writes of an MSR. A VMCB starts with all
	 * intercepted.
	 */
	void (*set_msr_intercept)(void *world, int vcpu, u32 msr, int read, int write);

	/* Intercept CR8 writes or not. A VMCB starts with them intercepted. */
	void (*set_cr8_intercept)(void *world, int vcpu, int on);

	/* Request a flush of this vCPU's translations before its next VMRUN. */
	void (*tlb_flush)(void *world, int vcpu);

	/* A full memory barrier. */
	void (*smp_mb)(void *world);

	/* 1 while the vCPU is in guest mode, 0 outside. */
	int (*vcpu_mode)(void *world, int vcpu);

	/*
	 * APIC id of the core the vCPU is loaded on, -1 for none: Linux's vcpu->cpu keeps the last
	 * one.
	 */
	int (*vcpu_cpu)(void *world, int vcpu);

	/* Write a host MSR; the doorbell is 0xC001011B. */
	void (*wrmsr)(void *world, u32 msr, u64 value);

	/* Wake the vCPU if it sleeps. */
	void (*wake)(void *world, int vcpu);

	/*
	 * Make the vCPU leave guest mode, or wake it, so that it sees its requests and pending
	 * events.
	 */
	void (*kick)(void *world, int vcpu);

	/*
	 * Make the vCPU call refresh before it enters the guest again; it is neither kicked nor
	 * woken for it.
	 *
	 * A vCPU that is still being created may be asked too.
	 */
	void (*request_refresh)(void *world, int vcpu);

	/* Inject an interrupt at the coming VMRUN; software has moved it to ISR. */
	void (*inject)(void *world, int vcpu, int vector);

	/* Make SMI, NMI, INIT or STARTUP pending on a vCPU. */
	void (*signal)(void *world, int vcpu, int mode, int vector);

	/* Emulate the instruction that exited, RIP included. 1. */
	int (*emulate_instruction)(void *world, int vcpu);

	/* Broadcast the EOI of a level-triggered vector to the IOAPICs. */
	void (*ioapic_eoi)(void *world, int vm, int vector);

	/* Log a warning that an administrator sees. */
	void (*warn)(void *world, const char *text);

	/*
	 * Take a lock. Names: slots, hash, inhibit (sleeping), ir_list (spinlock of vCPU of),
	 * ga_hash (spinlock).
	 *
	 * Each is exclusive, one for each value of of: the VM for sleeping locks, 0 for ga_hash.
	 * What they guard is the driver's choice; kvm->lock is not among them.
	 */
	void (*lock)(void *world, const char *name, int of);

	/* Release it. */
	void (*unlock)(void *world, const char *name, int of);

	/* Have ga_log_notify called from now on. */
	void (*register_ga_notifier)(void *world);

	/* Stop that. */
	void (*unregister_ga_notifier)(void *world);

	/*
	 * Post an IRTE to a backing page, or return it to host mode (page 0).
	 *
	 * 0, a refusal, or 1: it succeeded but gave no metadata, so it cannot be updated later. A
	 * posted IRTE starts not running and without GALogIntr: tell it more with the vCPU's list
	 * locked. Page 0 is never refused, nor wrong for an irq that was never posted.
	 */
	int (*set_vcpu_affinity)(void *world, int irq, u64 page, int vector, u32 tag);

	/* Tell a posted IRTE where its vCPU runs (-1 for nowhere) and whether to log. 0. */
	int (*iommu_update_ga)(void *world, int irq, int cpu, int ga_log_intr);
};

/*
 * What the harness calls. VMs and vCPUs are named by ints that the harness chooses.
 *
 * self is what create returned.
 */
struct avic_driver {
	/* AVIC_ABI of the header that the library was compiled with. */
	u32 abi_version;

	/* Name of the profile that it follows, or NULL for the default one. */
	const char *profile;

	/*
	 * Capabilities that it has, separated by spaces; NULL for all but those that must be declared: irqfd.
	 * An entry point may be NULL only if it belongs to a capability that is not among them.
	 */
	const char *capabilities;

	/*
	 * A new driver as after loading the module, or NULL if there is no memory. It shares nothing with
	 * others that are alive at the same time, and must find static data as new. Environment calls may
	 * be made from here on.
	 */
	void *(*create)(const struct avic_env *env, void *world);

	/* The driver goes, in whatever state it is: free its memory. No environment call may be made. */
	void (*destroy)(void *self);

	/* -- layer R -- */

	/*
	 * The APICs that accept, as a bit mask by position in apics; -1 for #GP.
	 *
	 * By the manuals, but in profile kvm-lapic: a destination above 0xFF names no xAPIC, an MSI
	 * to 0xFF no x2APIC.
	 */
	s64 (*route)(void *self, const struct avic_apic *apics, size_t apics_len,
		      const struct avic_message *message);

	/*
	 * Return value of KVM_SIGNAL_MSI for this message, as KVM has it in every profile; vectors
	 * 0 to 15 count.
	 */
	int (*signal_msi)(void *self, const struct avic_apic *apics, size_t apics_len,
		      const struct avic_message *message);

	/* -- layer T: setup and lifecycle -- */

	/*
	 * Detect AVIC from CPUID Fn8000_000A and the parameters; called again when the module is
	 * loaded anew.
	 *
	 * npt is what became of nested paging, whatever EDX[0] says; avic and force are module
	 * parameters. next_tag is where the generator of VM tags stands, 32 bits, of which a driver
	 * takes what it uses. Result: bit 0 AVIC, bit 1 x2AVIC, bit 2 IPI virtualization, bits
	 * 31:16 the highest usable id (0 when AVIC is off).
	 */
	u32 (*hw_setup)(void *self, u32 edx, u32 ecx, int npt, u32 family, int zen4, int snp,
		      int hv_inuse_wr, int avic, int force, int ipiv, u32 next_tag);

	/* Module exit: undo what setup registered. */
	void (*hw_unsetup)(void *self);

	/* Create a VM, with an in-kernel local APIC if irqchip. 0 or -ENOMEM. */
	int (*vm_create)(void *self, int vm, int irqchip, u32 max_vcpu_ids);

	/*
	 * Before each vCPU creation, with the VM's lock held, which creations themselves are not;
	 * idempotent.
	 *
	 * 0 or -ENOMEM.
	 */
	int (*vm_precreate)(void *self, int vm);

	/* Destruction begins; the vCPUs are still there. */
	void (*vm_pre_destroy)(void *self, int vm);

	/*
	 * Destruction ends; the vCPUs have been freed, or creation of the VM failed, and then
	 * nothing came before.
	 */
	void (*vm_destroy)(void *self, int vm);

	/* The tag or id of this VM for the GALog; 0 while it has none. */
	u32 (*vm_tag)(void *self, int vm);

	/*
	 * Create a vCPU. 0, -ENOMEM, -EFAULT, -EINVAL (id not below max_vcpu_ids), -EEXIST, or the
	 * memslot's error.
	 *
	 * vcpu is new for each call, also when the id is a duplicate. The boot vCPU has id 0.
	 */
	int (*vcpu_create)(void *self, int vm, int vcpu, u32 apic_id);

	/*
	 * Free a vCPU that was created; one that did more than a RESET is freed with nothing beside
	 * it.
	 *
	 * The VM may live on: entries go, IRTEs return to host mode, and what the vCPU's id forbade
	 * may be allowed again.
	 */
	void (*vcpu_free)(void *self, int vcpu);

	/* RESET (init 0; follows each creation, when the vCPU is listed) or INIT. */
	void (*vcpu_reset)(void *self, int vcpu, int init);

	/*
	 * After a SHUTDOWN exit the VMCB is undefined: rebuild it from zero, intercepts too. The MSR
	 * map is kept.
	 */
	void (*vmcb_reinit)(void *self, int vcpu);

	/*
	 * Last thing before VMRUN, on the vCPU's core: synchronise V_TPR, inject when AVIC is
	 * inactive.
	 */
	void (*prepare_guest)(void *self, int vcpu);

	/* The highest vector of IRR may have changed. */
	void (*hwapic_irr_update)(void *self, int vcpu, int max_irr);

	/* The highest vector of ISR may have changed. */
	void (*hwapic_isr_update)(void *self, int vcpu, int max_isr);

	/*
	 * KVM_SET_LAPIC: 1024 bytes of registers, taken raw, ISR and TMR included; ID in the 8-bit
	 * format.
	 *
	 * 0, or -EINVAL without an in-kernel APIC. Asked with AVIC off as well.
	 */
	int (*set_lapic)(void *self, int vcpu, const u8 *registers, size_t registers_len);

	/* KVM_GET_LAPIC: 1024 bytes of registers. */
	void (*get_lapic)(void *self, int vcpu, u8 *registers, size_t *registers_len);

	/* -- exits, scheduling, delivery -- */

	/*
	 * The vCPU's thread now runs on the core with that APIC id, which may have more than 12
	 * bits.
	 */
	void (*vcpu_load)(void *self, int vcpu, u32 host_id);

	/* The vCPU's thread leaves its core. */
	void (*vcpu_put)(void *self, int vcpu);

	/*
	 * The vCPU is about to sleep. 1 if an interrupt is deliverable, so that it must not; 0
	 * otherwise.
	 */
	int (*vcpu_blocking)(void *self, int vcpu);

	/* The vCPU is awake again (or did not sleep). */
	void (*vcpu_unblocking)(void *self, int vcpu);

	/*
	 * AVIC_INCOMPLETE_IPI. 1 resumes the guest, 0 exits to user space.
	 *
	 * Where hardware left ICR busy set, bit 12 is 1 in info1 and in the page.
	 */
	int (*incomplete_ipi_exit)(void *self, int vcpu, u64 info1, u64 info2);

	/* AVIC_NOACCEL. 1 resumes the guest, 0 exits to user space. */
	int (*noaccel_exit)(void *self, int vcpu, u64 info1, u64 info2);

	/*
	 * An intercepted write to an APIC register by MMIO or MSR. 0, or 1 for #GP.
	 *
	 * MMIO of an xAPIC gives no #GP. In x2APIC mode offset is 16 * (MSR - 0x800), and the ICR's
	 * value has 64 bits.
	 */
	int (*apic_access)(void *self, int vcpu, u32 offset, u64 value);

	/*
	 * Write the APIC_BASE MSR, by the guest or by the host. 0, or 1 for #GP.
	 *
	 * Bits 63:52 are reserved; which of 51:48 are, the guest's CPUID says, which is not told:
	 * either is right.
	 */
	int (*set_apic_base)(void *self, int vcpu, u64 value, int host);

	/*
	 * A fixed interrupt from the host, already accepted by the enabled local APIC; IRR and TMR
	 * are still to do.
	 *
	 * Asked with AVIC off as well.
	 */
	void (*deliver)(void *self, int vcpu, int vector, int level);

	/* Set or clear one inhibit reason; with AVIC off nothing follows. */
	void (*inhibit)(void *self, int vm, int reason, int on);

	/* The request made by request_refresh: the vCPU is out of the guest and not blocking. */
	void (*refresh)(void *self, int vcpu);

	/* -- posted interrupts -- */

	/* The GATag of this vCPU. */
	u32 (*vcpu_tag)(void *self, int vcpu);

	/* The IOMMU logged an interrupt for a vCPU that does not run. 0. */
	int (*ga_log_notify)(void *self, u32 tag);

	/*
	 * Route irq to a vCPU, or to none (-1), posted before or not. 0, -EIO or the environment's
	 * error.
	 *
	 * With AVIC off it succeeds and posts nothing.
	 */
	int (*update_irte)(void *self, int irq, int vcpu, int vector);

	/* -- pure helpers -- */

	/* The field that holds this physical address. */
	u64 (*hpa_field)(void *self, u64 address);

	/* Index in the logical table of an 8-bit logical id; -1 for none. */
	int (*logical_index)(void *self, u32 ldr, u32 dfr);

	/* Byte offset of a physical entry in the xAVIC table; -1 for none. */
	s64 (*phys_index)(void *self, s64 index);

	/* Encode a GATag from VM tag and vCPU id, and decode it again. */
	void (*tag_round_trip)(void *self, u32 vm_tag, u32 index, u32 *vm_tag_out, u32 *index_out);

	/* The LDR of an x2APIC. */
	u32 (*x2_ldr)(void *self, u32 apic_id);

	/* The PPR for a TPR and the highest in-service vector (0 for none). */
	u32 (*ppr)(void *self, u32 tpr, u32 isrv);

	/*
	 * Beside the entry points: what a driver may have. NULL where it has not.
	 */

	/*
	 * The generator of VM tags now stands at next_tag, as after that many VMs came and went.
	 */
	void (*tags_pass)(void *self, u32 next_tag);

	/*
	 * Do these in a fresh VM with one software-enabled xAPIC of id 0; for each its result and what
	 * it delivered: as many records as there are acts. Needed by irqfd.
	 *
	 * Routes are edge-triggered fixed MSIs to APIC 0. Eventfds are numbered 0 to 2 and
	 * non-blocking; 3 is open and no eventfd, 4 is not open. What an act leaves to a worker is
	 * done before the next act.
	 */
	void (*irqfds)(void *self, const struct avic_irqfd_act *acts, size_t acts_len,
		       struct avic_irqfd_done *done, size_t *done_len);

	/*
	 * What KVM_CAP_IRQ_ROUTING tells, which the tables of irqfds are held to.
	 */
	s64 (*irq_routing)(void *self);
};

/* What the library exports. */
extern const struct avic_driver avic_driver;

#endif
