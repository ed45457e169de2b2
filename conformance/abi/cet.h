/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI of cet: what a library exports, and what it may call.
 *
 * A library that defines
 *
 *	const struct cet_driver cet_driver = { .abi_version = CET_ABI, ... };
 *
 * is tested by --candidate lib:PATH.so. docs/c.md says how one is written; types.h what holds for
 * all five subsystems: ownership, lengths, errors, threads.
 *
 * Capabilities, each with the entry points that it needs:
 *   one-reg: KVM_GET_ONE_REG, KVM_SET_ONE_REG and KVM_GET_REG_LIST. Needs set_one_reg,
 *       get_one_reg, get_reg_list.
 *   xsave: KVM_GET_XSAVE and KVM_SET_XSAVE. Needs get_xsave, set_xsave.
 *   smm: system management mode. Needs smi, rsm.
 *   nested: nested virtualization. Needs nested_enter, nested_exit, set_nested_state, vmread,
 *       nested_load_cet.
 *   emulator: an instruction emulator. Needs emulate.
 */
#ifndef CONFORMANCE_CET_H
#define CONFORMANCE_CET_H

#include "types.h"

/* Counted up when an entry point or an environment call is added, goes or changes. */
#define CET_ABI 1

/* One MSR of KVM_SET_MSRS. */
struct cet_msr_entry {
	u32 index;
	u64 data;
};

/*
 * What a candidate may ask of hardware, kernel and memory.
 *
 * The table is valid as long as the library is loaded; world is what create was given.
 */
struct cet_env {
	/*
	 * A property of the host or a module parameter.
	 *
	 * vendor is 1 for AMD and 0 for Intel, width the bits of a linear address (57 with la57,
	 * else 48), xss the bits of XSS that hardware has, of which RDMSR shows those that the host
	 * uses (own_xss), s_cet the host's S_CET. The others are 0 or 1: the features shstk, ibt,
	 * xsaves, lm, la57; of VMX load_cet_entry, load_cet_exit, basic56 (IA32_VMX_BASIC[56]),
	 * unrestricted; of KVM tdp, smaller_maxphyaddr, sev_es (its guests' state is encrypted),
	 * and the parameter ignore_msrs.
	 */
	u64 (*host_cap)(void *world, const char *name);

	/* RDMSR on the physical CPU the candidate runs on; must not fault. */
	u64 (*rdmsr)(void *world, u32 msr);

	/*
	 * WRMSR on the physical CPU the candidate runs on; a fault is a warning in the host's log.
	 */
	void (*wrmsr)(void *world, u32 msr, u64 value);

	/* WRMSR that may fault. 0, or -EIO when it did. */
	int (*wrmsr_safe)(void *world, u32 msr, u64 value);

	/* Preemption is off until the matching preempt_enable; they nest. */
	void (*preempt_disable)(void *world);

	/* Undo one preempt_disable; the outermost is a point of preemption. */
	void (*preempt_enable)(void *world);

	/* A zeroed fpstate for vcpu, before anything else is done with it. 0 or -ENOMEM. */
	int (*alloc_guest_fpstate)(void *world, int vcpu);

	/* Give the fpstate back; it must not be in use. */
	void (*free_guest_fpstate)(void *world, int vcpu);

	/*
	 * Save the task's FPU registers, load the guest's; from now on the guest FPU is in use.
	 *
	 * Component 11 always, component 12 where the profile has the FPU code manage it.
	 */
	void (*load_guest_fpu)(void *world, int vcpu);

	/* Save the guest's FPU registers, load the task's; the guest FPU is no longer in use. */
	void (*put_guest_fpu)(void *world, int vcpu);

	/* Whether load_guest_fpu was the last of the two. */
	bool (*guest_fpu_in_use)(void *world, int vcpu);

	/* Lock the FPU registers, after reloading them if the kernel took them in between. */
	void (*fpu_get)(void *world);

	/* Unlock the FPU registers. */
	void (*fpu_put)(void *world);

	/*
	 * Put one component of a guest fpstate that is not in use into its initial state; RESET and
	 * INIT need it.
	 */
	void (*fpstate_clear)(void *world, int vcpu, int component);

	/*
	 * Take one component of a user's XSAVE image into the guest fpstate. 0, or -EINVAL for a
	 * supervisor one.
	 */
	int (*copy_uabi_to_fpstate)(void *world, int vcpu, int component, const u64 *words,
		      size_t words_len);

	/*
	 * Stop or pass access (READ, WRITE or both) to msr while the vCPU runs L1 (level 1) or L2
	 * (level 2).
	 *
	 * All MSRs are intercepted in a new vCPU; XSS and whatever has no bitmap entry always is.
	 */
	void (*set_intercept)(void *world, int vcpu, int level, u32 msr, int access, bool on);

	/* Accesses (READ, WRITE) to msr that L1 intercepts for its L2. */
	int (*l1_intercepts)(void *world, int vcpu, u32 msr);

	/* VMREAD of the vCPU's current VMCS. */
	u64 (*vmcs_read)(void *world, int vcpu, u32 field);

	/*
	 * VMWRITE of the vCPU's current VMCS; fields of a new VMCS are 0, the entry and exit
	 * controls too.
	 *
	 * Unless VM_ENTRY_CONTROLS bit 20 and VM_EXIT_CONTROLS bit 28 are set, in vmcs01 and vmcs02
	 * each, nothing of S_CET, SSP and the table is loaded; what an exit loads is in the HOST_
	 * fields of the one that ran.
	 */
	void (*vmcs_write)(void *world, int vcpu, u32 field, u64 value);

	/* Make vmcs01 (level 1) or vmcs02 (level 2) current. */
	void (*vmcs_load)(void *world, int vcpu, int level);

	/* A field of vmcb01 or vmcb02, in memory. */
	u64 (*vmcb_read)(void *world, int vcpu, int level, u32 field);

	/*
	 * Store a field of vmcb01 or vmcb02; a physical CPU uses its copy of it until the clean bit
	 * is cleared.
	 */
	void (*vmcb_write)(void *world, int vcpu, int level, u32 field, u64 value);

	/* Clear a clean bit of vmcb01 or vmcb02. */
	void (*vmcb_mark_dirty)(void *world, int vcpu, int level, int bit);

	/* VMRUN uses vmcb01 or vmcb02 from now on. */
	void (*vmcb_switch)(void *world, int vcpu, int level);

	/*
	 * A field of the vmcs12 or vmcb12 in L1's memory.
	 *
	 * A vmcb12's CR0 and CR4 are read by the names of a VMCS's fields, GUEST_CR0 and GUEST_CR4.
	 */
	u64 (*vmcs12_read)(void *world, int vcpu, u32 field);

	/* Store a field of the vmcs12 or vmcb12 in L1's memory. */
	void (*vmcs12_write)(void *world, int vcpu, u32 field, u64 value);

	/*
	 * Guest-physical address of the vmcb12 that L1 runs; what its clean field says is meant of
	 * that one.
	 */
	u64 (*vmcb12_address)(void *world, int vcpu);

	/* CR0 or CR4 as the guest sees it. */
	u64 (*read_cr)(void *world, int vcpu, int number);

	/* Set CR0 or CR4 as the guest sees it, unchecked. */
	void (*write_cr)(void *world, int vcpu, int number, u64 value);

	/* Eight bytes of the SMM state-save map. */
	u64 (*smram_read)(void *world, int vcpu, u32 offset);

	/* Store eight bytes of the SMM state-save map. */
	void (*smram_write)(void *world, int vcpu, u32 offset, u64 value);

	/* Test and clear the pending INIT. */
	bool (*take_init)(void *world, int vcpu);

	/*
	 * 0 or -EFAULT. The size says what is copied to people, and in KVM_SET_ONE_REG which of two
	 * things.
	 */
	int (*copy_from_user)(void *world, size_t size);

	/* 0 or -EFAULT. */
	int (*copy_to_user)(void *world, size_t size);
};

/*
 * A hypervisor's handling of CET, entered where the generic code of KVM enters it.
 *
 * vcpu is a number the harness chose, never used twice. MSR handlers return 0, or 1 for #GP. Unless
 * an entry point says otherwise its vCPU's thread executes it, preemptible, on the physical CPU it
 * was last told of.
 *
 * self is what create returned.
 */
struct cet_driver {
	/* CET_ABI of the header that the library was compiled with. */
	u32 abi_version;

	/* Name of the profile that it follows, or NULL for the default one. */
	const char *profile;

	/*
	 * Capabilities that it has, separated by spaces; NULL for all. An entry point may be NULL only if
	 * it belongs to a capability that is not among them.
	 */
	const char *capabilities;

	/*
	 * A new driver as after loading the module, or NULL if there is no memory. It shares nothing with
	 * others that are alive at the same time, and must find static data as new. Environment calls may
	 * be made from here on.
	 */
	void *(*create)(const struct cet_env *env, void *world);

	/* The driver goes, in whatever state it is: free its memory. No environment call may be made. */
	void (*destroy)(void *self);

	/*
	 * Derive the capabilities of this host; called again when the module is loaded anew.
	 *
	 * No vCPU's thread executes it; RDMSR works all the same, and gives what the host runs
	 * with: S_CET, XSS.
	 *
	 * Returns 0, or -EIO for a host that runs with shadow stacks (CET-065).
	 */
	int (*vendor_init)(void *self);

	/* SHSTK offered, IBT offered, XSS bits supported. */
	void (*kvm_caps)(void *self, bool *shstk, bool *ibt, u64 *xss);

	/* Whether nested VMX offers the load-CET entry and exit controls. */
	bool (*nested_load_cet)(void *self);

	/* KVM_GET_MSR_INDEX_LIST, in any order; MSRs of other subsystems are not compared. */
	void (*get_msr_index_list)(void *self, u32 *indices, size_t *indices_len);

	/*
	 * A new vCPU in power-up state. 0, or -ENOMEM when no fpstate was allocated.
	 *
	 * Its control structures hold zeros, its bitmaps stop everything, and set_cpuid follows.
	 */
	int (*vcpu_create)(void *self, int vcpu);

	/* The vCPU is not loaded and never comes back. */
	void (*vcpu_destroy)(void *self, int vcpu);

	/*
	 * KVM_SET_CPUID2: what userspace offers the guest; KVM's own capabilities still limit it.
	 *
	 * Returns 0, or -EINVAL for a change after the first KVM_RUN that entered the guest.
	 */
	int (*set_cpuid)(void *self, int vcpu, bool shstk, bool ibt, bool lm, bool xsaves, u64 xss);

	/* KVM_X86_SET_MSR_FILTER: guest accesses to these MSRs are denied with #GP from now on. */
	void (*set_msr_filter)(void *self, int vcpu, const u32 *denied, size_t denied_len);

	/* An ioctl begins on physical CPU cpu; the preempt notifier is registered already. */
	void (*vcpu_load)(void *self, int vcpu, int cpu);

	/* The ioctl ends; the preempt notifier is unregistered afterwards. */
	void (*vcpu_put)(void *self, int vcpu);

	/* KVM_RUN, before its loop: loads the guest FPU. */
	void (*run_begin)(void *self, int vcpu);

	/* KVM_RUN, after its loop: puts the guest FPU. */
	void (*run_end)(void *self, int vcpu);

	/* Preempt notifier: the loaded vCPU's thread leaves its physical CPU. */
	void (*sched_out)(void *self, int vcpu);

	/* Preempt notifier: the loaded vCPU's thread continues on cpu. */
	void (*sched_in)(void *self, int vcpu, int cpu);

	/*
	 * Preemption is disabled, VM entry follows: loads what neither FPU code nor VMCS carry, XSS
	 * for one.
	 *
	 * What the scheduler or a softirq took of the guest FPU is reloaded afterwards, by nobody's
	 * call. VMRUN of a guest with encrypted state (sev_es) loads XSS itself, with the value
	 * that was accepted last.
	 */
	void (*enter_guest)(void *self, int vcpu);

	/*
	 * A VM exit just happened, preemption is still disabled.
	 *
	 * S_CET, SSP and the table are the host's already, by the controls of the VMCS that ran or
	 * by #VMEXIT; XSS must be before the thread leaves this physical CPU or returns to
	 * userspace.
	 */
	void (*exit_guest)(void *self, int vcpu);

	/* An intercepted or emulated WRMSR. 0, or 1 for #GP. */
	int (*guest_wrmsr)(void *self, int vcpu, u32 msr, u64 value);

	/* An intercepted or emulated RDMSR: (0, value), or (1, 0) for #GP. */
	int (*guest_rdmsr)(void *self, int vcpu, u32 msr, u64 *value);

	/* KVM_SET_MSRS with (MSR, value) entries: how many were processed, -E2BIG or -EFAULT. */
	int (*set_msrs)(void *self, int vcpu, const struct cet_msr_entry *entries,
		      size_t entries_len);

	/*
	 * KVM_GET_MSRS: how many were processed, and their values; (-E2BIG, ()) or (-EFAULT, ()).
	 *
	 * Every copy from and to the user's arrays is one that may fail, in as many pieces as one
	 * likes; an empty batch needs none.
	 */
	int (*get_msrs)(void *self, int vcpu, const u32 *indices, size_t indices_len, u64 *values,
		      size_t *values_len);

	/*
	 * KVM_SET_ONE_REG. 0, -EINVAL or -EFAULT.
	 *
	 * copy_from_user(ONE_REG_SIZE) stands for the request, the id and where the value is;
	 * copy_from_user(8) for the value itself, which is looked for only if the id is good. Who
	 * leaves the first one out is not held to it.
	 */
	int (*set_one_reg)(void *self, int vcpu, u64 reg, u64 value);

	/*
	 * KVM_GET_ONE_REG. (0, value), (-EINVAL, 0) or (-EFAULT, 0); the copies as for
	 * KVM_SET_ONE_REG.
	 */
	int (*get_one_reg)(void *self, int vcpu, u64 reg, u64 *value);

	/* KVM_GET_REG_LIST with room for n ids: result, count, ids. 0, -E2BIG or -EFAULT. */
	int (*get_reg_list)(void *self, int vcpu, size_t n, u64 *count, u64 *ids, size_t *ids_len);

	/* A guest's MOV to CR0 that exits. 0, written with write_cr, or 1 for #GP. */
	int (*set_cr0)(void *self, int vcpu, u64 value);

	/* A guest's MOV to CR4 that exits. 0, written with write_cr, or 1 for #GP. */
	int (*set_cr4)(void *self, int vcpu, u64 value);

	/* KVM_SET_SREGS, the two registers that matter here. 0 or -EINVAL. */
	int (*set_sregs)(void *self, int vcpu, u64 cr0, u64 cr4);

	/*
	 * INIT within KVM_RUN, or a full RESET from outside of it, also of a vCPU in SMM or in L2.
	 *
	 * CR0.WP and CR4.CET are the candidate's to clear; the guest sets their other bits again.
	 * RESET comes to vCPUs that have run, which Linux's does not: the FPU components must be
	 * cleared then too.
	 */
	void (*vcpu_reset)(void *self, int vcpu, bool init);

	/* KVM_GET_MP_STATE: processes an INIT that is pending. 0. */
	int (*get_mp_state)(void *self, int vcpu);

	/* CPUID.(0xD,1):EBX as a guest with XSAVES sees it with XCR0 = 3. */
	u32 (*cpuid_xsaves_size)(void *self, int vcpu);

	/* KVM_GET_XSAVE: numbers of the components in the image, besides 0 and 1. */
	void (*get_xsave)(void *self, int vcpu, int *components, size_t *components_len);

	/* KVM_SET_XSAVE of an image with that one component. 0 or -EINVAL. */
	int (*set_xsave)(void *self, int vcpu, int component, const u64 *words, size_t words_len);

	/* Enter SMM from L1, by the 64-bit state-save map: the vCPU has long mode. */
	void (*smi)(void *self, int vcpu);

	/* Leave SMM. 0, or 1 to shut down. */
	int (*rsm)(void *self, int vcpu);

	/*
	 * VMLAUNCH or VMRUN by L1: ENTERED, or one of the three failures.
	 *
	 * The control structure that runs next, its entry and exit controls and host fields, the
	 * bitmap of L2, and CR0 and CR4 as write_cr has them are the candidate's to bring about,
	 * L2's here and L1's again at the exit; of a vmcb01 it must remember L1's CR0 and CR4
	 * itself. A VMCB's clean bits are as hardware left them.
	 */
	int (*nested_enter)(void *self, int vcpu);

	/* L2 exits to L1; CR0 and CR4 of L2 need not be stored for L1 to read. */
	void (*nested_exit)(void *self, int vcpu);

	/*
	 * KVM_SET_NESTED_STATE of a vCPU that is in L2, VMX only. 0; only states that an entry
	 * would take come here.
	 *
	 * No entry is pending, so S_CET, SSP and the table stay what userspace has set; L2's bitmap
	 * counts from the next VM entry on.
	 */
	int (*set_nested_state)(void *self, int vcpu);

	/*
	 * L1's VMREAD of a CET field of vmcs12, of either area: (0, value), or (1, 0) for VMfail.
	 *
	 * Supported is what the processor's controls are there for, whatever the guest's CPUID
	 * says.
	 */
	int (*vmread)(void *self, int vcpu, u32 field, u64 *value);

	/*
	 * Emulate one instruction at CPL 3 or 0: EMULATED, EMULATED_GP or UNHANDLEABLE.
	 *
	 * ret, indirect_jmp, indirect_call, far_jmp from 64-bit to compatibility mode, task_switch,
	 * or mov. While CR4.CET is set all but mov may be UNHANDLEABLE.
	 */
	int (*emulate)(void *self, int vcpu, const char *instruction, bool user);
};

/* What the library exports. */
extern const struct cet_driver cet_driver;

#endif
