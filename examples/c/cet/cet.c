// SPDX-License-Identifier: Apache-2.0
/*
 * CET shadow stacks for guests, as merged into KVM: the guest FPU carries U_CET and PL0_SSP to
 * PL3_SSP, VMCS or VMCB carry S_CET, SSP and the interrupt SSP table.
 *
 * -DDEFECT=n makes the driver wrong in one of the ways of DEFECTS below.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cet.h"
#include "cet_constants.h"

/*
 * DEFECTS, by their number; those with an id are the zoo's.
 *  1  CET-U-02   ONE_REG accesses without the guest FPU
 *  2  CET-U-08   INT_SSP_TAB can be read without LM
 *  3  CET-U-15   XSS is not reported as an MSR to save
 *  4  CET-U-18   SHSTK is offered with shadow paging
 *  5  CET-U-21   RSM ignores an invalid SSP
 *  6             a vCPU is freed before its fpstate is given back: use after free
 *  7             the list of denied MSRs is freed and kept: double free
 *  8             the list of denied MSRs has room for one too few: out of bounds
 *  9             a vCPU that was never offered a CPUID has none: NULL is dereferenced
 */
#ifndef DEFECT
#define DEFECT 0
#endif

#define BIT(n) (1ULL << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What handlers of MSRs return. */
enum msr_result { MSR_OK, MSR_INVALID, MSR_UNSUPPORTED };

enum cet_field { FIELD_S_CET, FIELD_SSP, FIELD_TABLE, NR_FIELDS };

static const u32 vmcs_fields[NR_FIELDS] = { GUEST_S_CET, GUEST_SSP, GUEST_INTR_SSP_TABLE };
static const u32 vmcs_host_fields[NR_FIELDS] = { HOST_S_CET, HOST_SSP, HOST_INTR_SSP_TABLE };
static const u32 vmcb_fields[NR_FIELDS] = { VMCB_S_CET, VMCB_SSP, VMCB_ISST_ADDR };

static const u32 passable_msrs[] = { U_CET, S_CET, PL0_SSP, PL1_SSP, PL2_SSP, PL3_SSP };

struct cpuid_offer {
	bool shstk, ibt, lm, xsaves;
	u64 xss;
};

struct kvm_vcpu {
	struct kvm_vcpu *next;
	int id;
	struct cpuid_offer *offered;
	bool shstk, ibt, lm, xsaves;
	bool ran;
	bool is_guest_mode;		/* it is in L2 */
	u64 supported_xss;
	u64 xss;
	u32 xsaves_size;
	u32 *denied;
	size_t nr_denied;
	int cpu;
	int vmcb_cpu[2];		/* where vmcb01 and vmcb02 ran last */
	u64 l1_cr0, l1_cr4;		/* of L1, while SVM runs L2 */
};

struct kvm {
	const struct cet_env *env;
	void *world;
	struct kvm_vcpu *vcpus;
	bool svm;
	bool shstk, ibt, lm;
	bool ignore_msrs;
	bool nested_cet;
	unsigned int width;
	u64 xss, host_xss, host_s_cet;
	u32 advertised[16];
	size_t nr_advertised;
};

static struct kvm_vcpu *get_vcpu(struct kvm *kvm, int id)
{
	struct kvm_vcpu *vcpu = kvm->vcpus;

	while (vcpu && vcpu->id != id)
		vcpu = vcpu->next;
	return vcpu;
}

/* -- what KVM offers on this host -- */

static u64 host_cap(struct kvm *kvm, const char *name)
{
	return kvm->env->host_cap(kvm->world, name);
}

static bool vmx_has_cet(struct kvm *kvm)
{
	return host_cap(kvm, "load_cet_entry") && host_cap(kvm, "load_cet_exit") &&
	       host_cap(kvm, "unrestricted") && host_cap(kvm, "basic56");
}

static void kvm_set_cpu_caps(struct kvm *kvm)
{
	const u64 cet_xss = BIT(CET_U) | BIT(CET_S);

	kvm->xss = host_cap(kvm, "xsaves") ? host_cap(kvm, "xss") & cet_xss : 0;
	kvm->shstk = host_cap(kvm, "shstk");
	kvm->ibt = host_cap(kvm, "ibt") && !kvm->svm;
	if (DEFECT != 4 && !host_cap(kvm, "tdp"))
		kvm->shstk = false;
	if (host_cap(kvm, "smaller_maxphyaddr") || (!kvm->svm && !vmx_has_cet(kvm)))
		kvm->shstk = kvm->ibt = false;

	/* Features and XSS bits stand or fall together. */
	if (kvm->xss != cet_xss)
		kvm->shstk = kvm->ibt = false;
	if (!kvm->shstk && !kvm->ibt)
		kvm->xss = 0;
}

static void kvm_advertise(struct kvm *kvm, u32 msr)
{
	kvm->advertised[kvm->nr_advertised++] = msr;
}

static void kvm_init_msr_lists(struct kvm *kvm)
{
	kvm->nr_advertised = 0;
	if (kvm->shstk || kvm->ibt) {
		kvm_advertise(kvm, U_CET);
		kvm_advertise(kvm, S_CET);
	}
	for (u32 msr = PL0_SSP; kvm->shstk && msr <= PL3_SSP; msr++)
		kvm_advertise(kvm, msr);
	if (kvm->shstk && kvm->lm)
		kvm_advertise(kvm, INT_SSP_TAB);
	if (kvm->xss && DEFECT != 3)
		kvm_advertise(kvm, XSS);
}

static bool is_advertised(const struct kvm *kvm, u32 msr)
{
	for (size_t i = 0; i < kvm->nr_advertised; i++)
		if (kvm->advertised[i] == msr)
			return true;
	return false;
}

static int cet_vendor_init(void *self)
{
	struct kvm *kvm = self;

	kvm->svm = host_cap(kvm, "vendor") == 1;
	kvm->width = host_cap(kvm, "width");
	kvm->lm = host_cap(kvm, "lm");
	kvm->ignore_msrs = host_cap(kvm, "ignore_msrs");
	kvm->host_s_cet = 0;
	if (host_cap(kvm, "shstk") || (host_cap(kvm, "ibt") && !kvm->svm)) {
		kvm->host_s_cet = kvm->env->rdmsr(kvm->world, S_CET);
		if (kvm->host_s_cet & BIT(SH_STK_EN))
			return -EIO;
	}
	kvm->host_xss = host_cap(kvm, "xsaves") ? kvm->env->rdmsr(kvm->world, XSS) : 0;
	kvm_set_cpu_caps(kvm);
	kvm->nested_cet = !kvm->svm && (kvm->shstk || kvm->ibt);
	kvm_init_msr_lists(kvm);
	return 0;
}

static void cet_kvm_caps(void *self, bool *shstk, bool *ibt, u64 *xss)
{
	struct kvm *kvm = self;

	*shstk = kvm->shstk;
	*ibt = kvm->ibt;
	*xss = kvm->xss;
}

static bool cet_nested_load_cet(void *self)
{
	struct kvm *kvm = self;

	return kvm->nested_cet;
}

static void cet_get_msr_index_list(void *self, u32 *indices, size_t *indices_len)
{
	struct kvm *kvm = self;

	for (size_t i = 0; i < kvm->nr_advertised && i < *indices_len; i++)
		indices[i] = kvm->advertised[i];
	*indices_len = kvm->nr_advertised;
}

/* -- the three values that VM entries switch -- */

static int current_level(const struct kvm_vcpu *vcpu)
{
	return vcpu->is_guest_mode ? 2 : 1;
}

static u64 field_read(struct kvm *kvm, struct kvm_vcpu *vcpu, enum cet_field field)
{
	if (kvm->svm)
		return kvm->env->vmcb_read(kvm->world, vcpu->id, current_level(vcpu), vmcb_fields[field]);
	return kvm->env->vmcs_read(kvm->world, vcpu->id, vmcs_fields[field]);
}

static void field_write(struct kvm *kvm, struct kvm_vcpu *vcpu, enum cet_field field, u64 value)
{
	int level = current_level(vcpu);

	if (!kvm->svm) {
		kvm->env->vmcs_write(kvm->world, vcpu->id, vmcs_fields[field], value);
		return;
	}
	kvm->env->vmcb_write(kvm->world, vcpu->id, level, vmcb_fields[field], value);
	kvm->env->vmcb_mark_dirty(kvm->world, vcpu->id, level, VMCB_CET);
}

static bool has_field(const struct kvm_vcpu *vcpu, enum cet_field field)
{
	return vcpu->shstk || (vcpu->ibt && field == FIELD_S_CET);
}

/* -- the life of a vCPU -- */

/* Host state and the load-CET controls, where the processor has them. */
static void vmx_set_constant_host_state(struct kvm *kvm, int id)
{
	if (!host_cap(kvm, "load_cet_entry") || !host_cap(kvm, "load_cet_exit"))
		return;
	kvm->env->vmcs_write(kvm->world, id, HOST_S_CET, kvm->host_s_cet);
	kvm->env->vmcs_write(kvm->world, id, HOST_SSP, 0);
	kvm->env->vmcs_write(kvm->world, id, HOST_INTR_SSP_TABLE, 0);
	kvm->env->vmcs_write(kvm->world, id, VM_ENTRY_CONTROLS, BIT(VM_ENTRY_LOAD_CET));
	kvm->env->vmcs_write(kvm->world, id, VM_EXIT_CONTROLS, BIT(VM_EXIT_LOAD_CET));
}

static int cet_vcpu_create(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu;
	int err;

	err = kvm->env->alloc_guest_fpstate(kvm->world, id);
	if (err)
		return err;
	vcpu = calloc(1, sizeof(*vcpu));
	if (vcpu && DEFECT != 9)
		vcpu->offered = calloc(1, sizeof(*vcpu->offered));
	if (!vcpu || (!vcpu->offered && DEFECT != 9)) {
		free(vcpu);
		kvm->env->free_guest_fpstate(kvm->world, id);
		return -ENOMEM;
	}
	vcpu->id = id;
	vcpu->xsaves_size = XSAVE_BASE_SIZE;
	vcpu->vmcb_cpu[0] = vcpu->vmcb_cpu[1] = -1;
	vcpu->next = kvm->vcpus;
	kvm->vcpus = vcpu;
	if (!kvm->svm) {
		for (int level = 2; level >= 1; level--) {
			kvm->env->vmcs_load(kvm->world, id, level);
			vmx_set_constant_host_state(kvm, id);
		}
	}
	return 0;
}

static void free_vcpu(struct kvm_vcpu *vcpu)
{
	free(vcpu->denied);
	free(vcpu->offered);
	free(vcpu);
}

static void cet_vcpu_destroy(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu **link = &kvm->vcpus, *vcpu;

	while ((*link)->id != id)
		link = &(*link)->next;
	vcpu = *link;
	if (DEFECT != 6)
		*link = vcpu->next;
	free_vcpu(vcpu);
	if (DEFECT == 6) {
		kvm->env->free_guest_fpstate(kvm->world, (*link)->id);
		*link = (*link)->next;
		return;
	}
	kvm->env->free_guest_fpstate(kvm->world, id);
}

static bool is_denied(const struct kvm_vcpu *vcpu, u32 msr)
{
	for (size_t i = 0; i < vcpu->nr_denied; i++)
		if (vcpu->denied[i] == msr)
			return true;
	return false;
}

/* Whether L0 lets the guest have this MSR. */
static bool msr_passes(const struct kvm *kvm, const struct kvm_vcpu *vcpu, u32 msr)
{
	if (is_denied(vcpu, msr))
		return false;
	if (msr == U_CET || msr == S_CET)
		return vcpu->shstk || (vcpu->ibt && !kvm->svm);
	return vcpu->shstk;
}

static void recalc_msr_intercepts(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	for (size_t i = 0; i < ARRAY_SIZE(passable_msrs); i++) {
		u32 msr = passable_msrs[i];
		bool on = !msr_passes(kvm, vcpu, msr);

		kvm->env->set_intercept(kvm->world, vcpu->id, 1, msr, READ | WRITE, on);
		if (vcpu->is_guest_mode)
			kvm->env->set_intercept(kvm->world, vcpu->id, 2, msr, READ | WRITE,
						on || kvm->env->l1_intercepts(kvm->world, vcpu->id, msr));
	}
}

static int cet_set_cpuid(void *self, int id, bool shstk, bool ibt, bool lm, bool xsaves, u64 xss)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	struct cpuid_offer *offered = vcpu->offered;

	if (vcpu->ran) {
		bool same = offered->shstk == shstk && offered->ibt == ibt && offered->lm == lm &&
			    offered->xsaves == xsaves && offered->xss == xss;

		return same ? 0 : -EINVAL;
	}
	*offered = (struct cpuid_offer){ shstk, ibt, lm, xsaves, xss };
	vcpu->shstk = shstk && kvm->shstk;
	vcpu->ibt = ibt && kvm->ibt;
	vcpu->lm = lm && kvm->lm;
	vcpu->xsaves = xsaves && host_cap(kvm, "xsaves");
	vcpu->supported_xss = xss & kvm->xss;
	recalc_msr_intercepts(kvm, vcpu);
	return 0;
}

static void cet_set_msr_filter(void *self, int id, const u32 *denied, size_t denied_len)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	size_t room = DEFECT == 8 ? denied_len / 2 : denied_len;

	free(vcpu->denied);
	if (DEFECT != 7)
		vcpu->denied = NULL;
	vcpu->nr_denied = 0;
	if (denied_len) {
		vcpu->denied = malloc(room * sizeof(*denied));
		if (vcpu->denied) {
			for (size_t i = 0; i < denied_len; i++)
				vcpu->denied[i] = denied[i];
			vcpu->nr_denied = denied_len;
		}
	}
	recalc_msr_intercepts(kvm, vcpu);
}

static void cet_vcpu_load(void *self, int id, int cpu)
{
	get_vcpu(self, id)->cpu = cpu;
}

static void cet_vcpu_put(void *self, int id)
{
	(void)self, (void)id;
}

static void cet_run_begin(void *self, int id)
{
	struct kvm *kvm = self;

	get_vcpu(kvm, id)->ran = true;
	kvm->env->load_guest_fpu(kvm->world, id);
}

static void cet_run_end(void *self, int id)
{
	struct kvm *kvm = self;

	kvm->env->put_guest_fpu(kvm->world, id);
}

static void cet_sched_out(void *self, int id)
{
	(void)self, (void)id;
}

static void cet_sched_in(void *self, int id, int cpu)
{
	get_vcpu(self, id)->cpu = cpu;
}

static void cet_enter_guest(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	int level = current_level(vcpu);

	/* A VMCB that ran elsewhere last is clean for nobody here. */
	if (kvm->svm && vcpu->vmcb_cpu[level - 1] != vcpu->cpu) {
		vcpu->vmcb_cpu[level - 1] = vcpu->cpu;
		kvm->env->vmcb_mark_dirty(kvm->world, id, level, VMCB_CET);
	}
	if (vcpu->xsaves && vcpu->xss != kvm->host_xss)
		kvm->env->wrmsr(kvm->world, XSS, vcpu->xss);
}

static void cet_exit_guest(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (vcpu->xsaves && vcpu->xss != kvm->host_xss)
		kvm->env->wrmsr(kvm->world, XSS, kvm->host_xss);
}

/* -- MSRs -- */

static bool is_noncanonical(const struct kvm *kvm, u64 value)
{
	u64 top = value >> (kvm->width - 1);

	return top && top != BIT(65 - kvm->width) - 1;
}

/* A value of U_CET or S_CET, whatever its base. */
static bool is_valid_cet_bits(const struct kvm_vcpu *vcpu, u64 value)
{
	if (value & 0x3C0)
		return false;
	if (value & 0x3 && !vcpu->shstk)
		return false;
	if (value & 0xFFFFFFFFFFFFFC3CULL && !vcpu->ibt)
		return false;
	if ((value & 0xC00) == 0xC00)
		return false;
	return !(value & 0x3000);
}

static bool is_pointer_msr(u32 msr)
{
	return msr >= PL0_SSP && msr <= PL3_SSP;
}

/* Whether the guest FPU holds this MSR for this vCPU. */
static bool is_xstate_managed_msr(const struct kvm_vcpu *vcpu, u32 msr)
{
	if (msr == U_CET)
		return vcpu->shstk || vcpu->ibt;
	return is_pointer_msr(msr) && vcpu->shstk;
}

static u64 xstate_read(struct kvm *kvm, u32 msr)
{
	u64 value;

	kvm->env->fpu_get(kvm->world);
	value = kvm->env->rdmsr(kvm->world, msr);
	kvm->env->fpu_put(kvm->world);
	return value;
}

static void xstate_write(struct kvm *kvm, u32 msr, u64 value)
{
	kvm->env->fpu_get(kvm->world);
	kvm->env->wrmsr(kvm->world, msr, value);
	kvm->env->fpu_put(kvm->world);
}

/* The field that holds an MSR, or -1. */
static int field_of_msr(u32 msr)
{
	switch (msr) {
	case S_CET:
		return FIELD_S_CET;
	case INT_SSP_TAB:
		return FIELD_TABLE;
	case INTERNAL_GUEST_SSP:
		return FIELD_SSP;
	default:
		return -1;
	}
}

static void store_msr(struct kvm *kvm, struct kvm_vcpu *vcpu, u32 msr, u64 value)
{
	int field = field_of_msr(msr);

	if (field >= 0)
		field_write(kvm, vcpu, field, value);
	else
		xstate_write(kvm, msr, value);
}

static u64 fetch_msr(struct kvm *kvm, struct kvm_vcpu *vcpu, u32 msr)
{
	int field = field_of_msr(msr);

	return field >= 0 ? field_read(kvm, vcpu, field) : xstate_read(kvm, msr);
}

/* The size of a compacted image follows XSS. */
static void update_cpuid_runtime(struct kvm_vcpu *vcpu)
{
	vcpu->xsaves_size = XSAVE_BASE_SIZE;
	if (vcpu->xss & BIT(CET_U))
		vcpu->xsaves_size += 16;
	if (vcpu->xss & BIT(CET_S))
		vcpu->xsaves_size += 24;
}

static enum msr_result set_xss(struct kvm_vcpu *vcpu, u64 value)
{
	if (!vcpu->xsaves)
		return MSR_UNSUPPORTED;
	if (value & ~vcpu->supported_xss)
		return MSR_INVALID;
	if (value != vcpu->xss) {
		vcpu->xss = value;
		update_cpuid_runtime(vcpu);
	}
	return MSR_OK;
}

/* Whether the vCPU has an MSR that holds an SSP, or points to some. */
static enum msr_result has_ssp_msr(const struct kvm_vcpu *vcpu, u32 msr, bool host, bool reading)
{
	if (msr == INTERNAL_GUEST_SSP && !host)
		return MSR_INVALID;
	if (!vcpu->shstk)
		return MSR_UNSUPPORTED;
	if (msr == INT_SSP_TAB && !vcpu->lm && !(DEFECT == 2 && reading))
		return MSR_UNSUPPORTED;
	return MSR_OK;
}

static enum msr_result __kvm_set_msr(struct kvm *kvm, struct kvm_vcpu *vcpu, u32 msr, u64 value, bool host)
{
	enum msr_result result;

	switch (msr) {
	case U_CET:
	case S_CET:
		if (!vcpu->shstk && !vcpu->ibt)
			return MSR_UNSUPPORTED;
		if (!is_valid_cet_bits(vcpu, value) || is_noncanonical(kvm, value & ~0xFFFULL))
			return MSR_INVALID;
		break;
	case PL0_SSP:
	case PL1_SSP:
	case PL2_SSP:
	case PL3_SSP:
	case INT_SSP_TAB:
	case INTERNAL_GUEST_SSP:
		result = has_ssp_msr(vcpu, msr, host, false);
		if (result)
			return result;
		if (is_noncanonical(kvm, value))
			return MSR_INVALID;
		if (msr != INT_SSP_TAB && value & 3)
			return MSR_INVALID;
		break;
	case XSS:
		return set_xss(vcpu, value);
	default:
		return MSR_UNSUPPORTED;
	}
	store_msr(kvm, vcpu, msr, value);
	return MSR_OK;
}

static enum msr_result __kvm_get_msr(struct kvm *kvm, struct kvm_vcpu *vcpu, u32 msr, u64 *value, bool host)
{
	enum msr_result result;

	*value = 0;
	switch (msr) {
	case U_CET:
	case S_CET:
		if (!vcpu->shstk && !vcpu->ibt)
			return MSR_UNSUPPORTED;
		break;
	case PL0_SSP:
	case PL1_SSP:
	case PL2_SSP:
	case PL3_SSP:
	case INT_SSP_TAB:
	case INTERNAL_GUEST_SSP:
		result = has_ssp_msr(vcpu, msr, host, true);
		if (result)
			return result;
		break;
	case XSS:
		if (!host && !vcpu->xsaves)
			return MSR_INVALID;
		*value = vcpu->xss;
		return MSR_OK;
	default:
		return MSR_UNSUPPORTED;
	}
	*value = fetch_msr(kvm, vcpu, msr);
	return MSR_OK;
}

/* What an unsupported MSR means to guest, userspace and ignore_msrs: 0, or 1 for #GP. */
static int kvm_do_set_msr(struct kvm *kvm, struct kvm_vcpu *vcpu, u32 msr, u64 value, bool host)
{
	enum msr_result result = __kvm_set_msr(kvm, vcpu, msr, value, host);

	if (result != MSR_UNSUPPORTED)
		return result != MSR_OK;
	if (host && !value && is_advertised(kvm, msr))
		return 0;
	return !kvm->ignore_msrs;
}

static int kvm_do_get_msr(struct kvm *kvm, struct kvm_vcpu *vcpu, u32 msr, u64 *value, bool host)
{
	enum msr_result result = __kvm_get_msr(kvm, vcpu, msr, value, host);

	if (result != MSR_UNSUPPORTED)
		return result != MSR_OK;
	if (host && is_advertised(kvm, msr))
		return 0;
	return !kvm->ignore_msrs;
}

static int cet_guest_wrmsr(void *self, int id, u32 msr, u64 value)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	return is_denied(vcpu, msr) ? 1 : kvm_do_set_msr(kvm, vcpu, msr, value, false);
}

static int cet_guest_rdmsr(void *self, int id, u32 msr, u64 *value)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	int refused;

	*value = 0;
	if (is_denied(vcpu, msr))
		return 1;
	refused = kvm_do_get_msr(kvm, vcpu, msr, value, false);
	if (refused)
		*value = 0;
	return refused;
}

static u32 cet_cpuid_xsaves_size(void *self, int id)
{
	return get_vcpu(self, id)->xsaves_size;
}

/* -- ioctls -- */

static int cet_set_msrs(void *self, int id, const struct cet_msr_entry *entries, size_t entries_len)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	bool fpu_loaded = false;
	size_t i;

	if (kvm->env->copy_from_user(kvm->world, 8))
		return -EFAULT;
	if (entries_len >= MAX_MSR_ENTRIES)
		return -E2BIG;
	if (kvm->env->copy_from_user(kvm->world, 16 * entries_len))
		return -EFAULT;
	for (i = 0; i < entries_len; i++) {
		if (!fpu_loaded && is_xstate_managed_msr(vcpu, entries[i].index)) {
			kvm->env->load_guest_fpu(kvm->world, id);
			fpu_loaded = true;
		}
		if (kvm_do_set_msr(kvm, vcpu, entries[i].index, entries[i].data, true))
			break;
	}
	if (fpu_loaded)
		kvm->env->put_guest_fpu(kvm->world, id);
	return i;
}

static int cet_get_msrs(void *self, int id, const u32 *indices, size_t indices_len, u64 *values, size_t *values_len)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	size_t room = *values_len, i;
	bool fpu_loaded = false;
	u64 value;

	*values_len = 0;
	if (kvm->env->copy_from_user(kvm->world, 8))
		return -EFAULT;
	if (indices_len >= MAX_MSR_ENTRIES)
		return -E2BIG;
	if (kvm->env->copy_from_user(kvm->world, 16 * indices_len))
		return -EFAULT;
	for (i = 0; i < indices_len; i++) {
		if (!fpu_loaded && is_xstate_managed_msr(vcpu, indices[i])) {
			kvm->env->load_guest_fpu(kvm->world, id);
			fpu_loaded = true;
		}
		if (kvm_do_get_msr(kvm, vcpu, indices[i], &value, true))
			break;
		if (i < room)
			values[i] = value;
	}
	if (fpu_loaded)
		kvm->env->put_guest_fpu(kvm->world, id);
	if (kvm->env->copy_to_user(kvm->world, 16 * indices_len))
		return -EFAULT;
	*values_len = i;
	return i;
}

/* The MSR behind a register id, GUEST_SSP's internal number included; false where there is none. */
static bool resolve_one_reg(const struct kvm_vcpu *vcpu, u64 reg, u32 *msr)
{
	unsigned int type = reg >> 32 & 0xFF;

	*msr = reg;
	if (reg >> 56 != 0x20 || reg & 0x000FFF0000000000ULL)
		return false;
	if (type == 3) {
		if (*msr || !vcpu->shstk)
			return false;
		type = 2;
		*msr = INTERNAL_GUEST_SSP;
	}
	return type == 2 && (reg & 0x00F0000000000000ULL) == 0x0030000000000000ULL;
}

static int cet_set_one_reg(void *self, int id, u64 reg, u64 value)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	bool needs_fpu;
	int refused;
	u32 msr;

	if (!resolve_one_reg(vcpu, reg, &msr))
		return -EINVAL;
	if (kvm->env->copy_from_user(kvm->world, 8))
		return -EFAULT;
	needs_fpu = DEFECT != 1 && is_xstate_managed_msr(vcpu, msr);
	if (needs_fpu)
		kvm->env->load_guest_fpu(kvm->world, id);
	refused = kvm_do_set_msr(kvm, vcpu, msr, value, true);
	if (needs_fpu)
		kvm->env->put_guest_fpu(kvm->world, id);
	return refused ? -EINVAL : 0;
}

static int cet_get_one_reg(void *self, int id, u64 reg, u64 *value)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	bool needs_fpu;
	int refused;
	u64 found;
	u32 msr;

	*value = 0;
	if (!resolve_one_reg(vcpu, reg, &msr))
		return -EINVAL;
	needs_fpu = DEFECT != 1 && is_xstate_managed_msr(vcpu, msr);
	if (needs_fpu)
		kvm->env->load_guest_fpu(kvm->world, id);
	refused = kvm_do_get_msr(kvm, vcpu, msr, &found, true);
	if (needs_fpu)
		kvm->env->put_guest_fpu(kvm->world, id);
	if (refused)
		return -EINVAL;
	if (kvm->env->copy_to_user(kvm->world, 8))
		return -EFAULT;
	*value = found;
	return 0;
}

static int cet_get_reg_list(void *self, int id, size_t n, u64 *count, u64 *ids, size_t *ids_len)
{
	struct kvm *kvm = self;
	size_t nr_ids = get_vcpu(kvm, id)->shstk ? 1 : 0, room = *ids_len;

	*count = 0;
	*ids_len = 0;
	if (kvm->env->copy_from_user(kvm->world, 8) || kvm->env->copy_to_user(kvm->world, 8))
		return -EFAULT;
	if (n < nr_ids) {
		*count = nr_ids;
		return -E2BIG;
	}
	if (nr_ids && kvm->env->copy_to_user(kvm->world, 8 * nr_ids))
		return -EFAULT;
	*count = nr_ids;
	*ids_len = nr_ids;
	if (nr_ids && room)
		ids[0] = ONE_REG_GUEST_SSP;
	return 0;
}

/* AVX stands for all user components. */
static void cet_get_xsave(void *self, int id, int *components, size_t *components_len)
{
	(void)self, (void)id;
	if (*components_len)
		components[0] = 2;
	*components_len = 1;
}

static int cet_set_xsave(void *self, int id, int component, const u64 *words, size_t words_len)
{
	struct kvm *kvm = self;

	return kvm->env->copy_uabi_to_fpstate(kvm->world, id, component, words, words_len);
}

/* -- control registers, reset, SMM -- */

static u64 read_cr(struct kvm *kvm, const struct kvm_vcpu *vcpu, int number)
{
	return kvm->env->read_cr(kvm->world, vcpu->id, number);
}

static void write_cr(struct kvm *kvm, const struct kvm_vcpu *vcpu, int number, u64 value)
{
	kvm->env->write_cr(kvm->world, vcpu->id, number, value);
}

static bool cet_without_wp(u64 cr0, u64 cr4)
{
	return cr4 & BIT(CR4_CET) && !(cr0 & BIT(CR0_WP));
}

static bool is_bad_cr4(const struct kvm_vcpu *vcpu, u64 cr4)
{
	return cr4 & BIT(CR4_CET) && !vcpu->shstk && !vcpu->ibt;
}

static int cet_set_cr0(void *self, int id, u64 value)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (!(value & BIT(CR0_WP)) && read_cr(kvm, vcpu, 4) & BIT(CR4_CET))
		return 1;
	write_cr(kvm, vcpu, 0, value);
	return 0;
}

static int cet_set_cr4(void *self, int id, u64 value)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (is_bad_cr4(vcpu, value))
		return 1;
	if (value & BIT(CR4_CET) && cet_without_wp(read_cr(kvm, vcpu, 0), value))
		return 1;
	write_cr(kvm, vcpu, 4, value);
	return 0;
}

static int cet_set_sregs(void *self, int id, u64 cr0, u64 cr4)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (is_bad_cr4(vcpu, cr4) || cet_without_wp(cr0, cr4))
		return -EINVAL;
	write_cr(kvm, vcpu, 0, cr0);
	write_cr(kvm, vcpu, 4, cr4);
	return 0;
}

/* L1's control structure is current again, with nothing stored for L1 to read. */
static void leave_nested(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	vcpu->is_guest_mode = false;
	if (kvm->svm)
		kvm->env->vmcb_switch(kvm->world, vcpu->id, 1);
	else
		kvm->env->vmcs_load(kvm->world, vcpu->id, 1);
}

/* Clear both CET components, out of hardware if they are there. */
static void xstate_reset(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	bool in_use = kvm->env->guest_fpu_in_use(kvm->world, vcpu->id);

	if (in_use)
		kvm->env->put_guest_fpu(kvm->world, vcpu->id);
	kvm->env->fpstate_clear(kvm->world, vcpu->id, CET_U);
	kvm->env->fpstate_clear(kvm->world, vcpu->id, CET_S);
	if (in_use)
		kvm->env->load_guest_fpu(kvm->world, vcpu->id);
}

static void cet_vcpu_reset(void *self, int id, bool init)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (vcpu->is_guest_mode)
		leave_nested(kvm, vcpu);
	write_cr(kvm, vcpu, 4, read_cr(kvm, vcpu, 4) & ~BIT(CR4_CET));
	write_cr(kvm, vcpu, 0, read_cr(kvm, vcpu, 0) & ~BIT(CR0_WP));
	xstate_reset(kvm, vcpu);
	for (int field = 0; field < NR_FIELDS; field++)
		field_write(kvm, vcpu, field, 0);
	if (!init && vcpu->xss) {
		vcpu->xss = 0;
		update_cpuid_runtime(vcpu);
	}
}

static int cet_get_mp_state(void *self, int id)
{
	struct kvm *kvm = self;

	/* The guest FPU is not in use here. */
	if (kvm->env->take_init(kvm->world, id))
		cet_vcpu_reset(kvm, id, true);
	return 0;
}

static void cet_smi(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	u64 cr0 = read_cr(kvm, vcpu, 0), cr4 = read_cr(kvm, vcpu, 4);

	kvm->env->smram_write(kvm->world, id, SMRAM_CR0, cr0);
	kvm->env->smram_write(kvm->world, id, SMRAM_CR4, cr4);
	if (vcpu->shstk)
		kvm->env->smram_write(kvm->world, id, SMRAM_SSP, field_read(kvm, vcpu, FIELD_SSP));
	write_cr(kvm, vcpu, 4, cr4 & ~BIT(CR4_CET));
}

static int cet_rsm(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	enum msr_result result;

	/* CR0 before CR4, since CR4.CET asks for CR0.WP. */
	write_cr(kvm, vcpu, 4, read_cr(kvm, vcpu, 4) & ~BIT(CR4_CET));
	write_cr(kvm, vcpu, 0, kvm->env->smram_read(kvm->world, id, SMRAM_CR0));
	write_cr(kvm, vcpu, 4, kvm->env->smram_read(kvm->world, id, SMRAM_CR4));
	if (!vcpu->shstk)
		return 0;
	result = __kvm_set_msr(kvm, vcpu, INTERNAL_GUEST_SSP, kvm->env->smram_read(kvm->world, id, SMRAM_SSP), true);
	return DEFECT == 5 ? 0 : result != MSR_OK;
}

/* -- the emulator -- */

static void cet_in_force(struct kvm *kvm, struct kvm_vcpu *vcpu, bool user, bool *shstk, bool *ibt)
{
	u64 value;

	*shstk = *ibt = false;
	if (!(read_cr(kvm, vcpu, 4) & BIT(CR4_CET)))
		return;
	value = fetch_msr(kvm, vcpu, user ? U_CET : S_CET);
	*shstk = value & BIT(SH_STK_EN);
	*ibt = value & BIT(ENDBR_EN);
}

static int cet_emulate(void *self, int id, const char *instruction, bool user)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	bool ret = !strcmp(instruction, "ret");
	bool indirect_call = !strcmp(instruction, "indirect_call");
	bool indirect_jmp = !strcmp(instruction, "indirect_jmp");
	bool far_jmp = !strcmp(instruction, "far_jmp");
	bool shstk, ibt, other_shstk, other_ibt;

	cet_in_force(kvm, vcpu, user, &shstk, &ibt);
	if (far_jmp || !strcmp(instruction, "task_switch")) {
		/* They may change the privilege. */
		cet_in_force(kvm, vcpu, !user, &other_shstk, &other_ibt);
		ibt |= other_ibt;
		if (!far_jmp)
			return shstk || other_shstk || ibt ? UNHANDLEABLE : EMULATED;
	}
	if ((ret || indirect_call) && shstk)
		return UNHANDLEABLE;
	if ((indirect_jmp || indirect_call || far_jmp) && ibt)
		return UNHANDLEABLE;
	if (far_jmp && shstk && field_read(kvm, vcpu, FIELD_SSP) >> 32)
		return EMULATED_GP;
	return EMULATED;
}

/* -- L2 -- */

static u64 vmcs12_read(struct kvm *kvm, const struct kvm_vcpu *vcpu, u32 field)
{
	return kvm->env->vmcs12_read(kvm->world, vcpu->id, field);
}

static bool is_valid_host_area(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	u64 exits = vmcs12_read(kvm, vcpu, VM_EXIT_CONTROLS), s_cet, ssp;

	if (cet_without_wp(vmcs12_read(kvm, vcpu, HOST_CR0), vmcs12_read(kvm, vcpu, HOST_CR4)))
		return false;
	if (!(exits & BIT(VM_EXIT_LOAD_CET)))
		return true;
	s_cet = vmcs12_read(kvm, vcpu, HOST_S_CET);
	ssp = vmcs12_read(kvm, vcpu, HOST_SSP);
	if (!is_valid_cet_bits(vcpu, s_cet) || ssp & 3 ||
	    is_noncanonical(kvm, vmcs12_read(kvm, vcpu, HOST_INTR_SSP_TABLE)))
		return false;
	if (exits & BIT(VM_EXIT_HOST_64))
		return !is_noncanonical(kvm, s_cet) && !is_noncanonical(kvm, ssp);
	return !(s_cet >> 32) && !(ssp >> 32);
}

static bool is_valid_guest_area(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	u64 ssp, top;

	if (cet_without_wp(vmcs12_read(kvm, vcpu, GUEST_CR0), vmcs12_read(kvm, vcpu, GUEST_CR4)))
		return false;
	if (!(vmcs12_read(kvm, vcpu, VM_ENTRY_CONTROLS) & BIT(VM_ENTRY_LOAD_CET)))
		return true;
	/* SSP may be one bit short of canonical. */
	ssp = vmcs12_read(kvm, vcpu, GUEST_SSP);
	top = ssp >> kvm->width;
	return is_valid_cet_bits(vcpu, vmcs12_read(kvm, vcpu, GUEST_S_CET)) && !(ssp & 3) &&
	       (!top || top == BIT(64 - kvm->width) - 1) &&
	       !is_noncanonical(kvm, vmcs12_read(kvm, vcpu, GUEST_INTR_SSP_TABLE));
}

/* Host area first, then guest area; 0 or what the entry fails with. */
static int nested_vmx_check(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	if (!is_valid_host_area(kvm, vcpu))
		return VMFAIL_HOST_STATE;
	return is_valid_guest_area(kvm, vcpu) ? 0 : INVALID_GUEST_STATE;
}

/* L1 after an exit or a failed entry: its control registers, and the host area or these values. */
static void load_vmcs12_host_state(struct kvm *kvm, struct kvm_vcpu *vcpu, u64 values[NR_FIELDS])
{
	bool loads = vmcs12_read(kvm, vcpu, VM_EXIT_CONTROLS) & BIT(VM_EXIT_LOAD_CET);

	for (int field = 0; field < NR_FIELDS; field++) {
		bool taken = loads && has_field(vcpu, field);

		field_write(kvm, vcpu, field, taken ? vmcs12_read(kvm, vcpu, vmcs_host_fields[field]) : values[field]);
	}
	write_cr(kvm, vcpu, 0, vmcs12_read(kvm, vcpu, HOST_CR0));
	write_cr(kvm, vcpu, 4, vmcs12_read(kvm, vcpu, HOST_CR4));
}

static void fields_read(struct kvm *kvm, struct kvm_vcpu *vcpu, u64 values[NR_FIELDS])
{
	for (int field = 0; field < NR_FIELDS; field++)
		values[field] = field_read(kvm, vcpu, field);
}

/* Take L2's values from vmcs12 where an entry is pending, or carry L1's over. */
static void prepare_vmcs02(struct kvm *kvm, struct kvm_vcpu *vcpu, bool run_pending)
{
	u64 before[NR_FIELDS];
	bool loads;

	fields_read(kvm, vcpu, before);
	loads = vmcs12_read(kvm, vcpu, VM_ENTRY_CONTROLS) & BIT(VM_ENTRY_LOAD_CET);
	vcpu->is_guest_mode = true;
	kvm->env->vmcs_load(kvm->world, vcpu->id, 2);
	for (int field = 0; field < NR_FIELDS; field++) {
		bool taken = run_pending && loads && has_field(vcpu, field);

		field_write(kvm, vcpu, field, taken ? vmcs12_read(kvm, vcpu, vmcs_fields[field]) : before[field]);
	}
	if (run_pending) {
		write_cr(kvm, vcpu, 0, vmcs12_read(kvm, vcpu, GUEST_CR0));
		write_cr(kvm, vcpu, 4, vmcs12_read(kvm, vcpu, GUEST_CR4));
	}
	recalc_msr_intercepts(kvm, vcpu);
}

static void prepare_vmcb02(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	vcpu->l1_cr0 = read_cr(kvm, vcpu, 0);
	vcpu->l1_cr4 = read_cr(kvm, vcpu, 4);
	vcpu->is_guest_mode = true;
	kvm->env->vmcb_switch(kvm->world, vcpu->id, 2);
	for (int field = 0; vcpu->shstk && field < NR_FIELDS; field++)
		field_write(kvm, vcpu, field, vmcs12_read(kvm, vcpu, vmcb_fields[field]));
	write_cr(kvm, vcpu, 0, vmcs12_read(kvm, vcpu, GUEST_CR0));
	write_cr(kvm, vcpu, 4, vmcs12_read(kvm, vcpu, GUEST_CR4));
	recalc_msr_intercepts(kvm, vcpu);
}

static int cet_nested_enter(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);
	u64 values[NR_FIELDS];
	int failed;

	if (kvm->svm) {
		if (!is_valid_cet_bits(vcpu, vmcs12_read(kvm, vcpu, VMCB_S_CET)) ||
		    cet_without_wp(vmcs12_read(kvm, vcpu, GUEST_CR0), vmcs12_read(kvm, vcpu, GUEST_CR4)))
			return VMEXIT_INVALID;
		prepare_vmcb02(kvm, vcpu);
		return ENTERED;
	}
	failed = nested_vmx_check(kvm, vcpu);
	if (failed == INVALID_GUEST_STATE) {
		fields_read(kvm, vcpu, values);
		load_vmcs12_host_state(kvm, vcpu, values);
	}
	if (failed)
		return failed;
	prepare_vmcs02(kvm, vcpu, true);
	return ENTERED;
}

static void nested_vmx_exit(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	u64 values[NR_FIELDS];

	fields_read(kvm, vcpu, values);
	for (int field = 0; field < NR_FIELDS; field++)
		if (has_field(vcpu, field))
			kvm->env->vmcs12_write(kvm->world, vcpu->id, vmcs_fields[field], values[field]);
	leave_nested(kvm, vcpu);
	load_vmcs12_host_state(kvm, vcpu, values);
}

/* vmcb01 still has L1's values. */
static void nested_svm_exit(struct kvm *kvm, struct kvm_vcpu *vcpu)
{
	for (int field = 0; vcpu->shstk && field < NR_FIELDS; field++)
		kvm->env->vmcs12_write(kvm->world, vcpu->id, vmcb_fields[field], field_read(kvm, vcpu, field));
	leave_nested(kvm, vcpu);
	write_cr(kvm, vcpu, 0, vcpu->l1_cr0);
	write_cr(kvm, vcpu, 4, vcpu->l1_cr4);
}

static void cet_nested_exit(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (kvm->svm)
		nested_svm_exit(kvm, vcpu);
	else
		nested_vmx_exit(kvm, vcpu);
}

static int cet_set_nested_state(void *self, int id)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu = get_vcpu(kvm, id);

	if (nested_vmx_check(kvm, vcpu))
		return -EINVAL;
	prepare_vmcs02(kvm, vcpu, false);
	return 0;
}

static int cet_vmread(void *self, int id, u32 field, u64 *value)
{
	struct kvm *kvm = self;

	*value = 0;
	if (!kvm->shstk && !kvm->ibt)
		return 1;
	*value = kvm->env->vmcs12_read(kvm->world, id, field);
	return 0;
}

/* -- the module -- */

static void *cet_create(const struct cet_env *env, void *world)
{
	struct kvm *kvm = calloc(1, sizeof(*kvm));

	if (kvm) {
		kvm->env = env;
		kvm->world = world;
		kvm->width = 48;
	}
	return kvm;
}

static void cet_destroy(void *self)
{
	struct kvm *kvm = self;
	struct kvm_vcpu *vcpu, *next;

	for (vcpu = kvm->vcpus; vcpu; vcpu = next) {
		next = vcpu->next;
		free_vcpu(vcpu);
	}
	free(kvm);
}

const struct cet_driver cet_driver = {
	.abi_version = CET_ABI,
	.profile = "upstream",
	.create = cet_create,
	.destroy = cet_destroy,
	.vendor_init = cet_vendor_init,
	.kvm_caps = cet_kvm_caps,
	.nested_load_cet = cet_nested_load_cet,
	.get_msr_index_list = cet_get_msr_index_list,
	.vcpu_create = cet_vcpu_create,
	.vcpu_destroy = cet_vcpu_destroy,
	.set_cpuid = cet_set_cpuid,
	.set_msr_filter = cet_set_msr_filter,
	.vcpu_load = cet_vcpu_load,
	.vcpu_put = cet_vcpu_put,
	.run_begin = cet_run_begin,
	.run_end = cet_run_end,
	.sched_out = cet_sched_out,
	.sched_in = cet_sched_in,
	.enter_guest = cet_enter_guest,
	.exit_guest = cet_exit_guest,
	.guest_wrmsr = cet_guest_wrmsr,
	.guest_rdmsr = cet_guest_rdmsr,
	.set_msrs = cet_set_msrs,
	.get_msrs = cet_get_msrs,
	.set_one_reg = cet_set_one_reg,
	.get_one_reg = cet_get_one_reg,
	.get_reg_list = cet_get_reg_list,
	.set_cr0 = cet_set_cr0,
	.set_cr4 = cet_set_cr4,
	.set_sregs = cet_set_sregs,
	.vcpu_reset = cet_vcpu_reset,
	.get_mp_state = cet_get_mp_state,
	.cpuid_xsaves_size = cet_cpuid_xsaves_size,
	.get_xsave = cet_get_xsave,
	.set_xsave = cet_set_xsave,
	.smi = cet_smi,
	.rsm = cet_rsm,
	.nested_enter = cet_nested_enter,
	.nested_exit = cet_nested_exit,
	.set_nested_state = cet_set_nested_state,
	.vmread = cet_vmread,
	.emulate = cet_emulate,
};
