// SPDX-License-Identifier: Apache-2.0
/*
 * AVIC: AMD's virtual interrupt controller, driven as KVM drives it, with the local APIC's software
 * half working on the page that hardware walks.
 *
 * -DDEFECT=n makes the driver wrong in one of the ways of DEFECTS below.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "avic.h"
#include "avic_constants.h"

/*
 * DEFECTS, by their number; those with an id are the zoo's.
 *  1  UP-03   an IPI with an invalid target is dropped
 *  2  UP-15   erratum 1235 is ignored
 *  3  UP-25   the notifier outlives the module
 *  4  UP-36   CR8 writes are never intercepted
 *  5  UP-38   a core keeps translations of another vCPU
 *  6          a vCPU that is freed stays on the list of its VM: use after free
 *  7          the last register is written behind the image of KVM_GET_LAPIC: out of bounds
 *  8          a VM without an in-kernel APIC has no list of ids: NULL is dereferenced
 *  9          the list of interrupts is freed and kept: double free
 */
#ifndef DEFECT
#define DEFECT 0
#endif

#define BIT(n) (1ULL << (n))
#define APIC_VERSION 0x00050014
#define APIC_IMAGE 0x400
#define APIC_ACCESS_PAGE_SLOT 509
#define AVIC_VM_ID_MASK 0xFFFFFU
#define AVIC_VM_ID_SHIFT 12
#define AVIC_VCPU_ID_MASK 0xFFFU
#define HOST_APIC_ID_MASK 0xFFFULL
#define MAX_VCPU_IDS 4096

/* In the software copy of a physical entry alone: the IOMMU shall log. */
#define ENTRY_GA_LOG_INTR BIT(61)

#define INHIBITS_DERIVED                                                                  \
	(BIT(INHIBIT_PHYSICAL_ID_ALIASED) | BIT(INHIBIT_APIC_ID_MODIFIED) |               \
	 BIT(INHIBIT_LOGICAL_ID_ALIASED))

struct irq_route {
	int irq;
	int vector;
};

struct kvm {
	struct kvm *next;
	int vm;
	bool irqchip;
	u32 max_vcpu_ids;
	struct kvm_vcpu *first, **last;	/* the vCPUs that exist, in the order of their creation */
	bool *taken;			/* ids that exist or are being created */
	u64 phys_table, logical_table;
	u64 inhibits;
	bool access_page, access_page_gone;
	bool hashed;			/* a tag of the GALog finds it */
	u32 vm_id;
};

struct kvm_vcpu {
	struct kvm_vcpu *next;		/* of its VM */
	struct kvm_vcpu *next_of_all;
	struct kvm *kvm;
	int handle;
	u32 id;
	u64 regs;			/* address of the register page, or 0 */
	u64 apic_base;
	bool apicv_active;
	bool addressable;
	bool blocking;
	bool posting;			/* its IRTEs are posted; in host mode while AVIC is inactive */
	u64 entry;			/* software copy of the physical entry */
	u32 ldr, dfr;			/* what the logical table was last told */
	struct irq_route *irqs;		/* routed to it, in the order of their numbers */
	size_t nr_irqs;
};

struct last_vcpu {
	int cpu;
	int vcpu;
};

struct avic {
	const struct avic_env *env;
	void *world;
	bool enabled, x2avic, ipiv;
	u32 max_phys;
	struct kvm *vms;
	struct kvm_vcpu *vcpus;
	u32 next_vm_id;
	bool wrapped;
	bool notifier;
	struct last_vcpu *cores;	/* which vCPU each core ran last */
	size_t nr_cores;
};

/* -- VMs, vCPUs -- */

static struct kvm *find_kvm(struct avic *avic, int vm)
{
	struct kvm *kvm = avic->vms;

	while (kvm && kvm->vm != vm)
		kvm = kvm->next;
	return kvm;
}

static struct kvm_vcpu *find_vcpu(struct avic *avic, int handle)
{
	struct kvm_vcpu *v = avic->vcpus;

	while (v && v->handle != handle)
		v = v->next_of_all;
	return v;
}

static struct kvm_vcpu *find_vcpu_by_id(struct kvm *kvm, u32 id)
{
	struct kvm_vcpu *v = kvm->first;

	while (v && v->id != id)
		v = v->next;
	return v;
}

static bool apic_enabled(const struct kvm_vcpu *v)
{
	return v->apic_base & BIT(BASE_AE);
}

static bool apic_x2(const struct kvm_vcpu *v)
{
	return apic_enabled(v) && v->apic_base & BIT(BASE_EXTD);
}

static void lock(struct avic *avic, const char *name, int of)
{
	avic->env->lock(avic->world, name, of);
}

static void unlock(struct avic *avic, const char *name, int of)
{
	avic->env->unlock(avic->world, name, of);
}

/* -- functions of numbers alone -- */

static u64 avic_hpa_field(void *self, u64 address)
{
	(void)self;
	return address & ADDRESS_BITS;
}

static int fls32(u32 value)
{
	return value ? 32 - __builtin_clz(value) : 0;
}

static int avic_logical_index(void *self, u32 ldr, u32 dfr)
{
	u32 cluster = 0, member = ldr;

	(void)self;
	if (!ldr)
		return -1;
	if ((dfr | 0x0FFFFFFF) != FLAT) {
		cluster = ldr >> 4;
		member = ldr & 0xF;
		if (cluster >= 0xF)
			return -1;
	}
	if (!member || member & (member - 1))
		return -1;
	return (cluster << 2) + fls32(member) - 1;
}

static s64 avic_phys_index(void *self, s64 index)
{
	(void)self;
	return index >= 0 && index < 0xFF ? 8 * index : -1;
}

static u32 avic_tag(u32 vm_id, u32 index)
{
	return (vm_id & AVIC_VM_ID_MASK) << AVIC_VM_ID_SHIFT | (index & AVIC_VCPU_ID_MASK);
}

static void avic_tag_round_trip(void *self, u32 vm_tag, u32 index, u32 *vm_tag_out, u32 *index_out)
{
	u32 tag = avic_tag(vm_tag, index);

	(void)self;
	*vm_tag_out = tag >> AVIC_VM_ID_SHIFT & AVIC_VM_ID_MASK;
	*index_out = tag & AVIC_VCPU_ID_MASK;
}

static u32 avic_x2_ldr(void *self, u32 apic_id)
{
	(void)self;
	return (apic_id >> 4) << 16 | 1U << (apic_id & 0xF);
}

static u32 avic_ppr(void *self, u32 tpr, u32 isrv)
{
	(void)self;
	return (tpr & 0xF0) >= (isrv & 0xF0) ? tpr : isrv & 0xF0;
}

/* -- layer R: by the manuals, each APIC asked in turn -- */

static bool apic_match_dest(const struct avic_apic *apic, u32 dest, int logical)
{
	u32 logical_id = apic->ldr >> 24;

	if (apic->mode == 2) {
		if (dest == X2_BROADCAST)
			return true;
		if (logical)
			return (dest ^ apic->ldr) >> 16 == 0 && dest & apic->ldr & 0xFFFF;
		return dest == (u32)apic->id;
	}
	if (dest == BROADCAST)
		return true;
	if (!logical)
		return dest == (apic->id >> 40 & 1 ? apic->id >> 32 & 0xFF : apic->id & 0xFF);
	if (apic->dfr >> 28 == 0xF)
		return logical_id & dest;
	return logical_id >> 4 == dest >> 4 && logical_id & dest & 0xF;
}

static bool apic_is_named(const struct avic_apic *apics, size_t n, const struct avic_message *m)
{
	if (!apics[n].mode)
		return false;
	switch (m->shorthand) {
	case NO_SHORTHAND:
		return apic_match_dest(&apics[n], m->destination, m->logical);
	case SELF:
		return (int)n == m->sender;
	default:
		return m->shorthand == ALL || (int)n != m->sender;
	}
}

static s64 avic_route(void *self, const struct avic_apic *apics, size_t apics_len, const struct avic_message *m)
{
	bool one = m->mode == LOWEST || (m->hint && m->sender < 0);
	bool fixed = m->mode == FIXED || m->mode == LOWEST;
	s64 hit = 0;

	(void)self;
	if (m->sender >= 0 && apics[m->sender].mode == 2 && m->flags >> 32 & X2_ICR_RESERVED)
		return -1;
	if (m->mode == REMOTE_READ || m->mode == EXTINT || (m->mode == INIT && m->level && !m->asserted))
		return 0;
	if (fixed && (m->vector < 16 || (m->level && !m->asserted)))
		return 0;
	for (size_t n = 0; n < apics_len; n++) {
		if (!apic_is_named(apics, n, m))
			continue;
		if (fixed && !(apics[n].spiv & BIT(SPIV_ENABLE)))
			continue;
		hit |= BIT(n);
		if (fixed && one)
			break;
	}
	return hit;
}

/* -- setup -- */

static bool avic_wanted(u32 edx, int npt, u32 family, int zen4, int snp, int hv_inuse_wr, int param, int force)
{
	if (param == -1)
		param = edx & BIT(CPUID_X2AVIC) && (zen4 || family >= 0x1A);
	if (!param || !npt)
		return false;
	if (snp && !hv_inuse_wr)
		return false;
	return edx & BIT(CPUID_AVIC) || force;
}

static u32 avic_hw_setup(void *self, u32 edx, u32 ecx, int npt, u32 family, int zen4, int snp, int hv_inuse_wr,
			 int param, int force, int ipiv, u32 next_tag)
{
	struct avic *avic = self;
	bool erratum_1235 = (family == 0x17 || family == 0x18) && DEFECT != 2;

	avic->next_vm_id = (next_tag - 1) & AVIC_VM_ID_MASK;
	avic->enabled = avic_wanted(edx, npt, family, zen4, snp, hv_inuse_wr, param, force);
	avic->x2avic = avic->enabled && edx & BIT(CPUID_X2AVIC);
	avic->ipiv = avic->enabled && ipiv && !erratum_1235;
	avic->max_phys = 0;
	if (avic->enabled) {
		avic->max_phys = MAX_XAVIC;
		if (avic->x2avic)
			avic->max_phys = ecx & BIT(CPUID_X2AVIC_EXT) ? MAX_X2AVIC_EXT : MAX_X2AVIC;
		avic->env->register_ga_notifier(avic->world);
		avic->notifier = true;
	}
	return avic->enabled | avic->x2avic << 1 | avic->ipiv << 2 | avic->max_phys << 16;
}

static void avic_hw_unsetup(void *self)
{
	struct avic *avic = self;

	if (avic->notifier && DEFECT != 3) {
		avic->env->unregister_ga_notifier(avic->world);
		avic->notifier = false;
	}
}

/* -- the register page -- */

static u32 get_reg(struct avic *avic, const struct kvm_vcpu *v, u32 offset)
{
	return avic->env->read32(avic->world, v->regs, offset);
}

static void set_reg(struct avic *avic, const struct kvm_vcpu *v, u32 offset, u32 value)
{
	avic->env->write32(avic->world, v->regs, offset, value);
}

static int find_highest_vector(struct avic *avic, const struct kvm_vcpu *v, u32 bitmap)
{
	for (int n = 7; n >= 0; n--) {
		u32 word = get_reg(avic, v, bitmap + 16 * n);

		if (word)
			return 32 * n + fls32(word) - 1;
	}
	return -1;
}

static void set_vector(struct avic *avic, const struct kvm_vcpu *v, u32 bitmap, int vector)
{
	avic->env->or32(avic->world, v->regs, bitmap + (vector >> 5) * 16, 1U << (vector & 31));
}

static void clear_vector(struct avic *avic, const struct kvm_vcpu *v, u32 bitmap, int vector)
{
	avic->env->and32(avic->world, v->regs, bitmap + (vector >> 5) * 16, ~(1U << (vector & 31)));
}

static u32 update_ppr(struct avic *avic, const struct kvm_vcpu *v)
{
	u32 tpr = get_reg(avic, v, APIC_TPR) & 0xFF;
	int isrv = find_highest_vector(avic, v, APIC_ISR);
	u32 ppr = avic_ppr(avic, tpr, isrv < 0 ? 0 : isrv);

	set_reg(avic, v, APIC_PPR, ppr);
	return ppr;
}

/* The vector that could be taken now, or -1. */
static int has_interrupt(struct avic *avic, const struct kvm_vcpu *v)
{
	int vector;

	if (!v->regs || !apic_enabled(v))
		return -1;
	vector = find_highest_vector(avic, v, APIC_IRR);
	if (vector < 0 || (vector & 0xF0) <= (int)(update_ppr(avic, v) & 0xF0))
		return -1;
	return vector;
}

static void avic_get_lapic(void *self, int vcpu, u8 *registers, size_t *registers_len)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	u32 last = DEFECT == 7 ? APIC_IMAGE : APIC_IMAGE - 16;
	u8 *image = calloc(1, APIC_IMAGE);

	for (u32 offset = 0; image && offset <= last; offset += 16) {
		u32 value = get_reg(avic, v, offset);

		memcpy(image + offset, &value, sizeof(value));
	}
	if (image)
		memcpy(registers, image, *registers_len < APIC_IMAGE ? *registers_len : APIC_IMAGE);
	*registers_len = image ? APIC_IMAGE : 0;
	free(image);
}

/* -- what hardware walks: VMCB fields, physical and logical table -- */

static u64 vmcb_read(struct avic *avic, const struct kvm_vcpu *v, u32 offset)
{
	return avic->env->vmcb_read(avic->world, v->handle, offset);
}

static void vmcb_write(struct avic *avic, const struct kvm_vcpu *v, u32 offset, u64 value)
{
	avic->env->vmcb_write(avic->world, v->handle, offset, value);
}

static void intercept_x2apic_msrs(struct avic *avic, const struct kvm_vcpu *v, int on)
{
	static const u32 open[] = { APIC_TPR, APIC_EOI, APIC_SELF_IPI, APIC_ICR };

	for (size_t i = 0; i < sizeof(open) / sizeof(*open); i++)
		avic->env->set_msr_intercept(avic->world, v->handle, X2APIC_MSRS + (open[i] >> 4),
					     open[i] == APIC_TPR ? on : 1, on);
}

static void avic_activate_vmcb(struct avic *avic, struct kvm_vcpu *v)
{
	u64 control = vmcb_read(avic, v, VMCB_INT_CTL) & ~(BIT(INT_CTL_AVIC) | BIT(INT_CTL_X2AVIC));
	u64 table = vmcb_read(avic, v, VMCB_PHYSICAL_TABLE) & ~0xFFFULL;
	bool x2 = avic->x2avic && apic_x2(v);
	u32 limit = x2 ? avic->max_phys : MAX_XAVIC;

	if (limit > v->kvm->max_vcpu_ids - 1)
		limit = v->kvm->max_vcpu_ids - 1;
	vmcb_write(avic, v, VMCB_PHYSICAL_TABLE, table | limit);
	control |= BIT(INT_CTL_AVIC);
	if (x2)
		control |= BIT(INT_CTL_X2AVIC);
	vmcb_write(avic, v, VMCB_INT_CTL, control);
	avic->env->set_cr8_intercept(avic->world, v->handle, 0);
	avic->env->tlb_flush(avic->world, v->handle);
	intercept_x2apic_msrs(avic, v, !x2);
	avic->env->mark_vmcb_dirty(avic->world, v->handle, BIT(CLEAN_AVIC));
}

static void avic_deactivate_vmcb(struct avic *avic, struct kvm_vcpu *v)
{
	u64 control = vmcb_read(avic, v, VMCB_INT_CTL) & ~(BIT(INT_CTL_AVIC) | BIT(INT_CTL_X2AVIC));

	vmcb_write(avic, v, VMCB_INT_CTL, control);
	vmcb_write(avic, v, VMCB_PHYSICAL_TABLE, vmcb_read(avic, v, VMCB_PHYSICAL_TABLE) & ~0xFFFULL);
	avic->env->set_cr8_intercept(avic->world, v->handle, 1);
	intercept_x2apic_msrs(avic, v, 1);
	avic->env->mark_vmcb_dirty(avic->world, v->handle, BIT(CLEAN_AVIC));
	if (DEFECT == 4)
		avic->env->set_cr8_intercept(avic->world, v->handle, 0);
}

static void avic_init_vmcb(struct avic *avic, struct kvm_vcpu *v)
{
	vmcb_write(avic, v, VMCB_BACKING_PAGE, avic_hpa_field(avic, v->regs));
	vmcb_write(avic, v, VMCB_LOGICAL_TABLE, avic_hpa_field(avic, v->kvm->logical_table));
	vmcb_write(avic, v, VMCB_PHYSICAL_TABLE, avic_hpa_field(avic, v->kvm->phys_table));
	vmcb_write(avic, v, VMCB_APIC_BAR, APIC_BASE);
	if (v->apicv_active)
		avic_activate_vmcb(avic, v);
	else
		avic_deactivate_vmcb(avic, v);
}

static void init_vmcb(struct avic *avic, struct kvm_vcpu *v)
{
	vmcb_write(avic, v, VMCB_INT_CTL, BIT(INT_CTL_INTR_MASKING));
	vmcb_write(avic, v, VMCB_NESTED_CTL, 1);
	avic->env->mark_vmcb_dirty(avic->world, v->handle, 0xFFFFFFFF);
	if (avic->enabled && v->kvm->irqchip)
		avic_init_vmcb(avic, v);
}

static void avic_invalidate_logical_id(struct avic *avic, struct kvm_vcpu *v)
{
	int index = avic_logical_index(avic, v->ldr, v->dfr);

	if (index < 0)
		return;
	if ((avic->env->read32(avic->world, v->kvm->logical_table, 4 * index) & 0xFF) == v->id)
		avic->env->write32(avic->world, v->kvm->logical_table, 4 * index, 0);
}

static void avic_install_logical_id(struct avic *avic, struct kvm_vcpu *v)
{
	int index = avic_logical_index(avic, v->ldr, v->dfr);
	u32 entry = 1U << LOGICAL_VALID | v->id;

	if (index < 0 || !v->addressable || v->id >= 0xFF)
		return;
	if (avic->env->read32(avic->world, v->kvm->logical_table, 4 * index) != entry)
		avic->env->write32(avic->world, v->kvm->logical_table, 4 * index, entry);
}

static u32 current_ldr(struct avic *avic, struct kvm_vcpu *v)
{
	return apic_x2(v) || !apic_enabled(v) ? 0 : get_reg(avic, v, APIC_LDR) >> 24;
}

static void avic_handle_ldr_update(struct avic *avic, struct kvm_vcpu *v)
{
	u32 ldr = current_ldr(avic, v);

	if (ldr != v->ldr) {
		avic_invalidate_logical_id(avic, v);
		v->ldr = ldr;
	}
	avic_install_logical_id(avic, v);
}

static void avic_handle_dfr_update(struct avic *avic, struct kvm_vcpu *v)
{
	u32 dfr;

	if (apic_x2(v) || !apic_enabled(v))
		return;
	dfr = get_reg(avic, v, APIC_DFR) | 0x0FFFFFFF;
	if (dfr != v->dfr) {
		avic_invalidate_logical_id(avic, v);
		v->dfr = dfr;
	}
	avic_install_logical_id(avic, v);
}

/* Bring the table in line with whatever LDR and DFR became while writes were not trapped. */
static void avic_apicv_post_state_restore(struct avic *avic, struct kvm_vcpu *v)
{
	u32 ldr = current_ldr(avic, v), dfr = v->dfr;

	if (apic_enabled(v) && !apic_x2(v))
		dfr = get_reg(avic, v, APIC_DFR) | 0x0FFFFFFF;
	if (ldr != v->ldr || dfr != v->dfr) {
		avic_invalidate_logical_id(avic, v);
		v->ldr = ldr;
		v->dfr = dfr;
	}
	avic_install_logical_id(avic, v);
}

/* Write the copy to the table, less what hardware must not see. */
static void avic_publish_entry(struct avic *avic, struct kvm_vcpu *v)
{
	u64 entry = v->entry & ~ENTRY_GA_LOG_INTR;

	if (!v->addressable || !v->entry)
		return;
	if (!avic->ipiv)
		entry &= ~BIT(ENTRY_RUNNING);
	avic->env->write64(avic->world, v->kvm->phys_table, 8 * v->id, entry);
}

static void avic_update_ga(struct avic *avic, struct kvm_vcpu *v, int cpu, int log)
{
	for (size_t i = 0; v->posting && i < v->nr_irqs; i++)
		avic->env->iommu_update_ga(avic->world, v->irqs[i].irq, cpu, log);
}

static void __avic_vcpu_put(struct avic *avic, struct kvm_vcpu *v, bool log)
{
	lock(avic, "ir_list", v->handle);
	avic_update_ga(avic, v, -1, log);
	v->entry &= ~(BIT(ENTRY_RUNNING) | ENTRY_GA_LOG_INTR);
	if (log)
		v->entry |= ENTRY_GA_LOG_INTR;
	avic_publish_entry(avic, v);
	unlock(avic, "ir_list", v->handle);
}

static void __avic_vcpu_load(struct avic *avic, struct kvm_vcpu *v, int cpu)
{
	if (cpu > (int)HOST_APIC_ID_MASK) {
		/* The entry cannot say so; the IOMMU must not log any more, all the same. */
		__avic_vcpu_put(avic, v, false);
		return;
	}
	lock(avic, "ir_list", v->handle);
	v->entry = (v->entry & ~(HOST_APIC_ID_MASK | ENTRY_GA_LOG_INTR)) | cpu | BIT(ENTRY_RUNNING);
	avic_publish_entry(avic, v);
	avic_update_ga(avic, v, cpu, 0);
	unlock(avic, "ir_list", v->handle);
}

static void avic_vcpu_load(void *self, int vcpu, u32 host_id)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);

	if (v->apicv_active && !v->blocking)
		__avic_vcpu_load(avic, v, host_id);
}

static void avic_vcpu_put(void *self, int vcpu)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);

	if (v->apicv_active && !v->blocking)
		__avic_vcpu_put(avic, v, false);
}

/* About to sleep: stop running first, look at IRR last. */
static int avic_vcpu_blocking(void *self, int vcpu)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);

	v->blocking = true;
	if (v->apicv_active)
		__avic_vcpu_put(avic, v, true);
	return has_interrupt(avic, v) >= 0;
}

static void avic_vcpu_unblocking(void *self, int vcpu)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	int cpu;

	v->blocking = false;
	cpu = avic->env->vcpu_cpu(avic->world, vcpu);
	if (v->apicv_active && cpu >= 0)
		__avic_vcpu_load(avic, v, cpu);
}

/* -- posted interrupts -- */

static u32 avic_vcpu_tag(void *self, int vcpu)
{
	struct kvm_vcpu *v = find_vcpu(self, vcpu);

	return avic_tag(v->kvm->vm_id, v->id);
}

static int avic_ga_log_notify(void *self, u32 tag)
{
	struct avic *avic = self;
	u32 vm_id = tag >> AVIC_VM_ID_SHIFT & AVIC_VM_ID_MASK;
	struct kvm_vcpu *v = NULL;
	struct kvm *kvm;

	lock(avic, "ga_hash", 0);
	for (kvm = avic->vms; kvm; kvm = kvm->next)
		if (kvm->hashed && kvm->vm_id == vm_id)
			break;
	if (kvm)
		v = find_vcpu_by_id(kvm, tag & AVIC_VCPU_ID_MASK);
	if (v)
		avic->env->wake(avic->world, v->handle);
	unlock(avic, "ga_hash", 0);
	return 0;
}

static void unpost(struct avic *avic, int irq)
{
	avic->env->set_vcpu_affinity(avic->world, irq, 0, 0, 0);
}

static int post(struct avic *avic, struct kvm_vcpu *v, int irq, int vector)
{
	return avic->env->set_vcpu_affinity(avic->world, irq, avic_hpa_field(avic, v->regs), vector,
					    avic_tag(v->kvm->vm_id, v->id));
}

static void forget_irq(struct kvm_vcpu *v, size_t i)
{
	v->nr_irqs--;
	memmove(&v->irqs[i], &v->irqs[i + 1], (v->nr_irqs - i) * sizeof(*v->irqs));
}

static int remember_irq(struct kvm_vcpu *v, int irq, int vector)
{
	struct irq_route *irqs = realloc(v->irqs, (v->nr_irqs + 1) * sizeof(*irqs));
	size_t i = v->nr_irqs;

	if (!irqs)
		return -ENOMEM;
	v->irqs = irqs;
	for (; i && irqs[i - 1].irq > irq; i--)
		irqs[i] = irqs[i - 1];
	irqs[i] = (struct irq_route){ irq, vector };
	v->nr_irqs++;
	return 0;
}

/* With the vCPU's list locked, so that where it runs stays what the IRTE is told. */
static int avic_post_irte(struct avic *avic, struct kvm_vcpu *v, int irq, int vector)
{
	int result;

	if (!v->apicv_active) {
		unpost(avic, irq);
		return 0;
	}
	result = post(avic, v, irq, vector);
	if (result < 0)
		return result;
	if (result == NO_METADATA) {
		unpost(avic, irq);
		return -EIO;
	}
	result = remember_irq(v, irq, vector);
	if (result)
		return result;
	v->posting = true;
	if (v->entry & BIT(ENTRY_RUNNING))
		avic->env->iommu_update_ga(avic->world, irq, v->entry & HOST_APIC_ID_MASK, 0);
	else
		avic->env->iommu_update_ga(avic->world, irq, -1, !!(v->entry & ENTRY_GA_LOG_INTR));
	return 0;
}

static int avic_update_irte(void *self, int irq, int vcpu, int vector)
{
	struct avic *avic = self;
	struct kvm_vcpu *v;
	int result;

	for (v = avic->vcpus; v; v = v->next_of_all) {
		for (size_t i = 0; i < v->nr_irqs; i++) {
			if (v->irqs[i].irq != irq)
				continue;
			lock(avic, "ir_list", v->handle);
			forget_irq(v, i);
			unlock(avic, "ir_list", v->handle);
			break;
		}
	}
	v = find_vcpu(avic, vcpu);
	if (!v) {
		unpost(avic, irq);
		return 0;
	}
	lock(avic, "ir_list", v->handle);
	result = avic_post_irte(avic, v, irq, vector);
	unlock(avic, "ir_list", v->handle);
	return result;
}

/* The IRTEs of a vCPU are posted while AVIC is active for it. */
static void avic_set_irte_mode(struct avic *avic, struct kvm_vcpu *v, bool posted)
{
	lock(avic, "ir_list", v->handle);
	v->posting = posted;
	for (size_t i = 0; i < v->nr_irqs; i++) {
		if (posted)
			post(avic, v, v->irqs[i].irq, v->irqs[i].vector);
		else
			unpost(avic, v->irqs[i].irq);
	}
	unlock(avic, "ir_list", v->handle);
}

/* -- activation -- */

/* With the lock held: everybody leaves the guest before the new mask is in force. */
static void change_inhibits(struct avic *avic, struct kvm *kvm, u64 reasons, u64 value)
{
	u64 mask = (kvm->inhibits & ~reasons) | value;

	if (!mask != !kvm->inhibits) {
		for (struct kvm_vcpu *v = kvm->first; v; v = v->next) {
			avic->env->request_refresh(avic->world, v->handle);
			avic->env->kick(avic->world, v->handle);
		}
	}
	kvm->inhibits = mask;
}

static void set_inhibit(struct avic *avic, struct kvm *kvm, int reason, bool on)
{
	lock(avic, "inhibit", kvm->vm);
	change_inhibits(avic, kvm, BIT(reason), on ? BIT(reason) : 0);
	unlock(avic, "inhibit", kvm->vm);
}

static void avic_inhibit(void *self, int vm, int reason, int on)
{
	struct avic *avic = self;

	set_inhibit(avic, find_kvm(avic, vm), reason, on);
}

static void avic_refresh_virtual_apic_mode(struct avic *avic, struct kvm_vcpu *v)
{
	if (!avic->enabled || !v->regs)
		return;
	if (v->apicv_active) {
		avic_apicv_post_state_restore(avic, v);
		avic_activate_vmcb(avic, v);
	} else {
		avic_deactivate_vmcb(avic, v);
	}
}

static void avic_refresh_apicv_exec_ctrl(struct avic *avic, struct kvm_vcpu *v)
{
	int cpu;

	avic_refresh_virtual_apic_mode(avic, v);
	cpu = avic->env->vcpu_cpu(avic->world, v->handle);
	if (v->apicv_active) {
		avic_set_irte_mode(avic, v, true);
		if (cpu >= 0 && !v->blocking)
			__avic_vcpu_load(avic, v, cpu);
	} else {
		__avic_vcpu_put(avic, v, false);
		avic_set_irte_mode(avic, v, false);
	}
}

/* Follow the reasons; whoever changes them holds the lock until they are in force. */
static void kvm_vcpu_update_apicv(struct avic *avic, struct kvm_vcpu *v)
{
	bool active;

	lock(avic, "inhibit", v->kvm->vm);
	active = avic->enabled && v->kvm->irqchip && apic_enabled(v) && !v->kvm->inhibits && v->addressable;
	if (active != v->apicv_active) {
		v->apicv_active = active;
		avic_refresh_apicv_exec_ctrl(avic, v);
	}
	unlock(avic, "inhibit", v->kvm->vm);
}

static void avic_refresh(void *self, int vcpu)
{
	kvm_vcpu_update_apicv(self, find_vcpu(self, vcpu));
}

enum logical_kind { NO_KIND, KIND_FLAT, KIND_CLUSTER, KIND_X2 };

/* What the logical ids that were looked at have in common. */
struct logical_ids {
	enum logical_kind kind;
	bool aliased;
	bool flat[256], cluster[256];
};

static void look_at_logical_id(struct avic *avic, struct kvm_vcpu *v, struct logical_ids *ids)
{
	u32 ldr = get_reg(avic, v, APIC_LDR), id = ldr >> 24, bits;
	enum logical_kind kind;
	bool *slot;

	if (!(get_reg(avic, v, APIC_SPIV) & BIT(SPIV_ENABLE)) || !ldr || ids->aliased)
		return;
	kind = KIND_X2;
	if (!apic_x2(v))
		kind = get_reg(avic, v, APIC_DFR) == FLAT ? KIND_FLAT : KIND_CLUSTER;
	if (ids->kind && ids->kind != kind) {
		ids->aliased = true;
		return;
	}
	ids->kind = kind;
	bits = kind == KIND_FLAT ? id : id & 0xF;
	if (kind == KIND_X2 || !bits)
		return;
	slot = kind == KIND_FLAT ? &ids->flat[id] : &ids->cluster[id];
	if (bits & (bits - 1) || *slot)
		ids->aliased = true;
	*slot = true;
}

/* Reasons that follow from the ids and logical ids of all APICs. */
static u64 derived_inhibits(struct avic *avic, struct kvm *kvm)
{
	struct logical_ids logical = { 0 };
	bool ids[256] = { false };
	u64 mask = 0;

	for (struct kvm_vcpu *v = kvm->first; v; v = v->next) {
		if (!apic_enabled(v))
			continue;
		if (!apic_x2(v)) {
			u32 xid = get_reg(avic, v, APIC_ID) >> 24;

			if (ids[xid])
				mask |= BIT(INHIBIT_PHYSICAL_ID_ALIASED);
			ids[xid] = true;
			if (xid != (v->id & 0xFF))
				mask |= BIT(INHIBIT_APIC_ID_MODIFIED);
		}
		look_at_logical_id(avic, v, &logical);
	}
	return logical.aliased ? mask | BIT(INHIBIT_LOGICAL_ID_ALIASED) : mask;
}

/* The last to look sees what all have written. */
static void kvm_recalculate_apic_map(struct avic *avic, struct kvm *kvm)
{
	if (!avic->enabled)
		return;
	lock(avic, "inhibit", kvm->vm);
	change_inhibits(avic, kvm, INHIBITS_DERIVED, derived_inhibits(avic, kvm));
	unlock(avic, "inhibit", kvm->vm);
}

/* -- interrupts that software sends -- */

static void avic_ring_doorbell(struct avic *avic, struct kvm_vcpu *v)
{
	int cpu = avic->env->vcpu_cpu(avic->world, v->handle);

	if (cpu > (int)HOST_APIC_ID_MASK)
		avic->env->kick(avic->world, v->handle);
	else if (cpu >= 0)	/* else it has left its core meanwhile, and VMRUN will see IRR */
		avic->env->wrmsr(avic->world, DOORBELL_MSR, cpu);
}

static void svm_complete_interrupt_delivery(struct avic *avic, struct kvm_vcpu *v)
{
	int in_guest = avic->env->vcpu_mode(avic->world, v->handle);

	if (!v->apicv_active)
		avic->env->kick(avic->world, v->handle);
	else if (in_guest)
		avic_ring_doorbell(avic, v);
	else
		avic->env->wake(avic->world, v->handle);
}

static void deliver_interrupt(struct avic *avic, struct kvm_vcpu *v, int vector, int level)
{
	if (level)
		set_vector(avic, v, APIC_TMR, vector);
	else
		clear_vector(avic, v, APIC_TMR, vector);
	set_vector(avic, v, APIC_IRR, vector);
	avic->env->smp_mb(avic->world);
	svm_complete_interrupt_delivery(avic, v);
}

static void avic_deliver(void *self, int vcpu, int vector, int level)
{
	deliver_interrupt(self, find_vcpu(self, vcpu), vector, level);
}

/* The APICs of a VM as layer R sees them, in the order of their ids. */
struct apic_list {
	size_t nr;
	struct kvm_vcpu *vcpus[64];
	struct avic_apic apics[64];
};

static void list_apics(struct avic *avic, struct kvm *kvm, struct apic_list *list)
{
	list->nr = 0;
	for (struct kvm_vcpu *v = kvm->first; v && list->nr < 64; v = v->next) {
		size_t n = list->nr++;

		for (; n && list->vcpus[n - 1]->id > v->id; n--)
			list->vcpus[n] = list->vcpus[n - 1];
		list->vcpus[n] = v;
	}
	for (size_t n = 0; n < list->nr; n++) {
		struct kvm_vcpu *v = list->vcpus[n];
		struct avic_apic *apic = &list->apics[n];

		apic->mode = !apic_enabled(v) ? 0 : apic_x2(v) ? 2 : 1;
		apic->id = v->id;
		if (apic->mode == 1)
			apic->id |= (u64)(get_reg(avic, v, APIC_ID) >> 24) << 32 | BIT(40);
		apic->spiv = get_reg(avic, v, APIC_SPIV);
		apic->ldr = get_reg(avic, v, APIC_LDR);
		apic->dfr = get_reg(avic, v, APIC_DFR);
	}
}

static int position(const struct apic_list *list, const struct kvm_vcpu *v)
{
	size_t n = 0;

	while (n < list->nr && list->vcpus[n] != v)
		n++;
	return n;
}

static void kvm_apic_send_ipi(struct avic *avic, struct kvm_vcpu *v, u32 low, u32 high)
{
	struct avic_message message = {
		.destination = apic_x2(v) ? high : high >> 24,
		.logical = low >> ICR_LOGICAL & 1,
		.shorthand = low >> ICR_SHORTHAND & 3,
		.mode = low >> 8 & 7,
		.vector = low & 0xFF,
		.level = low >> ICR_LEVEL & 1,
		.asserted = low >> ICR_ASSERT & 1,
	};
	struct apic_list list;
	s64 hit;

	list_apics(avic, v->kvm, &list);
	message.sender = position(&list, v);
	hit = avic_route(avic, list.apics, list.nr, &message);
	for (size_t n = 0; n < list.nr; n++) {
		if (!(hit >> n & 1))
			continue;
		if (message.mode == FIXED || message.mode == LOWEST)
			deliver_interrupt(avic, list.vcpus[n], message.vector, message.level);
		else
			avic->env->signal(avic->world, list.vcpus[n]->handle, message.mode, message.vector);
	}
}

/* -- writes that hardware does not perform, and ioctls -- */

static bool is_lvt(u32 offset)
{
	return offset >= APIC_LVTT && offset <= APIC_LVTERR && !(offset & 0xF);
}

static bool is_trap(u32 offset)
{
	switch (offset) {
	case APIC_ID:
	case APIC_EOI:
	case APIC_RRR:
	case APIC_LDR:
	case APIC_DFR:
	case APIC_SPIV:
	case APIC_ESR:
	case APIC_ICR:
	case APIC_TMICT:
	case APIC_TDCR:
		return true;
	default:
		return is_lvt(offset);
	}
}

static void apic_set_eoi(struct avic *avic, struct kvm_vcpu *v, int vector)
{
	if (vector < 0)
		return;
	clear_vector(avic, v, APIC_ISR, vector);
	update_ppr(avic, v);
	if (get_reg(avic, v, APIC_TMR + (vector >> 5) * 16) >> (vector & 31) & 1)
		avic->env->ioapic_eoi(avic->world, v->kvm->vm, vector);
}

static void kvm_lapic_reg_write(struct avic *avic, struct kvm_vcpu *v, u32 offset, u32 value)
{
	switch (offset) {
	case APIC_ID:
		set_reg(avic, v, APIC_ID, value & 0xFF000000);
		kvm_recalculate_apic_map(avic, v->kvm);
		break;
	case APIC_TPR:
		set_reg(avic, v, APIC_TPR, value & 0xFF);
		update_ppr(avic, v);
		break;
	case APIC_EOI:
		apic_set_eoi(avic, v, find_highest_vector(avic, v, APIC_ISR));
		break;
	case APIC_LDR:
		set_reg(avic, v, APIC_LDR, value & 0xFF000000);
		kvm_recalculate_apic_map(avic, v->kvm);
		break;
	case APIC_DFR:
		set_reg(avic, v, APIC_DFR, value | 0x0FFFFFFF);
		kvm_recalculate_apic_map(avic, v->kvm);
		break;
	case APIC_SPIV:
		set_reg(avic, v, APIC_SPIV, value & 0x3FF);
		kvm_recalculate_apic_map(avic, v->kvm);
		break;
	case APIC_ICR:
		value &= ~BIT(ICR_BUSY);
		set_reg(avic, v, APIC_ICR, value);
		kvm_apic_send_ipi(avic, v, value, get_reg(avic, v, APIC_ICR2));
		break;
	case APIC_ICR2:
		set_reg(avic, v, APIC_ICR2, apic_x2(v) ? value : value & 0xFF000000);
		break;
	case APIC_TMICT:
		set_reg(avic, v, APIC_TMICT, value);
		break;
	case APIC_TDCR:
		set_reg(avic, v, APIC_TDCR, value & 0xB);
		break;
	default:
		/* Registers that cannot be written are left alone, as hardware does. */
		if (is_lvt(offset))
			set_reg(avic, v, offset, value & 0x1F7FF);
	}
}

static int kvm_x2apic_icr_write(struct avic *avic, struct kvm_vcpu *v, u64 value)
{
	u32 low = (u32)value & ~(u32)BIT(ICR_BUSY);

	if (low & X2_ICR_RESERVED)
		return 1;
	set_reg(avic, v, APIC_ICR, low);
	set_reg(avic, v, APIC_ICR2, value >> 32);
	kvm_apic_send_ipi(avic, v, low, value >> 32);
	return 0;
}

static int kvm_x2apic_msr_write(struct avic *avic, struct kvm_vcpu *v, u32 offset, u64 value)
{
	switch (offset) {
	case APIC_ICR:
		return kvm_x2apic_icr_write(avic, v, value);
	case APIC_SELF_IPI:
		if (value >> 8)
			return 1;
		kvm_apic_send_ipi(avic, v, value | SELF << ICR_SHORTHAND, 0);
		return 0;
	case APIC_ESR:
		return value != 0;
	case APIC_ID:
	case APIC_LVR:
	case APIC_LDR:
	case APIC_PPR:
	case APIC_RRR:
	case APIC_DFR:
		return 1;
	}
	if (!is_trap(offset) && offset != APIC_TPR)
		return 1;
	kvm_lapic_reg_write(avic, v, offset, value);
	return 0;
}

static int avic_apic_access(void *self, int vcpu, u32 offset, u64 value)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);

	if (apic_x2(v))
		return kvm_x2apic_msr_write(avic, v, offset, value);
	kvm_lapic_reg_write(avic, v, offset, value);
	return 0;
}

static void delete_access_page(struct avic *avic, struct kvm *kvm)
{
	avic->env->set_memory_region(avic->world, kvm->vm, APIC_ACCESS_PAGE_SLOT, 0, 0);
	kvm->access_page = false;
}

static void enter_x2apic(struct avic *avic, struct kvm_vcpu *v)
{
	struct kvm *kvm = v->kvm;

	set_reg(avic, v, APIC_ID, v->id);
	set_reg(avic, v, APIC_LDR, avic_x2_ldr(avic, v->id));
	if (!avic->enabled || avic->x2avic || kvm->access_page_gone)
		return;
	lock(avic, "slots", kvm->vm);
	kvm->access_page_gone = true;
	if (kvm->access_page)
		delete_access_page(avic, kvm);
	unlock(avic, "slots", kvm->vm);
}

static bool is_bad_apic_base(const struct kvm_vcpu *v, u64 value, int host)
{
	bool enable = value & BIT(BASE_AE), extend = value & BIT(BASE_EXTD);

	if (value & 0x2FF || value >> 48 || (extend && !enable))
		return true;
	return !host && ((apic_x2(v) && enable && !extend) || (!apic_enabled(v) && extend));
}

static int avic_set_apic_base(void *self, int vcpu, u64 value, int host)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	bool was_x2 = apic_x2(v), was_enabled = apic_enabled(v), was_active;

	if (is_bad_apic_base(v, value, host))
		return 1;
	v->apic_base = value;
	if (apic_enabled(v) && (value & ~0xFFFULL) != APIC_BASE)
		set_inhibit(avic, v->kvm, INHIBIT_APIC_BASE_MODIFIED, true);
	if (apic_x2(v) && !was_x2)
		enter_x2apic(avic, v);
	else if (apic_enabled(v) && (was_x2 || !was_enabled) && !apic_x2(v))
		set_reg(avic, v, APIC_ID, (v->id & 0xFF) << 24);
	if (avic->enabled)
		avic_apicv_post_state_restore(avic, v);
	kvm_recalculate_apic_map(avic, v->kvm);
	was_active = v->apicv_active;
	kvm_vcpu_update_apicv(avic, v);
	if (v->apicv_active && was_active && apic_x2(v) != was_x2)
		avic_refresh_virtual_apic_mode(avic, v);
	return 0;
}

static int avic_set_lapic(void *self, int vcpu, const u8 *registers, size_t registers_len)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);

	if (registers_len < APIC_IMAGE)
		return -EINVAL;
	avic->env->clear_page(avic->world, v->regs);
	for (u32 offset = 0; offset < APIC_IMAGE; offset += 16) {
		u32 value;

		memcpy(&value, registers + offset, sizeof(value));
		if (offset == APIC_LVR)
			value = APIC_VERSION;
		if (offset == APIC_ID && apic_x2(v))
			value = v->id;
		if (offset == APIC_LDR && apic_x2(v))
			value = avic_x2_ldr(avic, v->id);
		if (value)
			set_reg(avic, v, offset, value);
	}
	if (avic->enabled)
		avic_apicv_post_state_restore(avic, v);
	kvm_recalculate_apic_map(avic, v->kvm);
	update_ppr(avic, v);
	return 0;
}

/* -- exits -- */

static void emulate_ipi(struct avic *avic, struct kvm_vcpu *v, u32 low, u32 high)
{
	u32 stored, dest;

	if (!(get_reg(avic, v, APIC_ICR) & BIT(ICR_BUSY))) {
		kvm_apic_send_ipi(avic, v, low & ~BIT(ICR_BUSY), high);
		return;
	}
	stored = get_reg(avic, v, APIC_ICR) & ~BIT(ICR_BUSY);
	dest = get_reg(avic, v, APIC_ICR2);
	set_reg(avic, v, APIC_ICR, stored);
	kvm_apic_send_ipi(avic, v, stored, dest);
}

/* Whether hardware reached a vCPU through the logical table. */
static bool is_in_logical_entries(struct avic *avic, struct kvm_vcpu *v, u32 dest, u32 id)
{
	bool flat = get_reg(avic, v, APIC_DFR) == FLAT;
	u32 first = flat ? 0 : 4 * (dest >> 4);

	for (u32 b = 0; b < (flat ? 8u : 4u); b++) {
		u32 entry;

		if (!(dest >> b & 1))
			continue;
		entry = avic->env->read32(avic->world, v->kvm->logical_table, 4 * (first + b));
		if (entry >> LOGICAL_VALID && (entry & 0xFF) == id)
			return true;
	}
	return false;
}

/* Whether hardware reached it through the tables, in the sender's mode; a broadcast reaches every entry. */
static bool is_named_in_tables(struct avic *avic, struct kvm_vcpu *v, u32 dest, int logical, u32 id)
{
	if (dest == (apic_x2(v) ? X2_BROADCAST : BROADCAST))
		return true;
	if (!logical)
		return id == dest;
	if (apic_x2(v))
		return id >> 4 == dest >> 16 && dest >> (id & 0xF) & 1;
	return is_in_logical_entries(avic, v, dest, id);
}

/* Hardware has set the IRR bits; make everybody look. */
static void avic_kick_target_vcpus(struct avic *avic, struct kvm_vcpu *v, u32 low, u32 high)
{
	struct avic_message message = {
		.destination = apic_x2(v) ? high : high >> 24,
		.logical = low >> ICR_LOGICAL & 1,
		.shorthand = low >> ICR_SHORTHAND & 3,
		.mode = NMI,	/* whoever is present */
		.asserted = 1,
	};
	struct apic_list list;
	s64 hit;

	list_apics(avic, v->kvm, &list);
	message.sender = position(&list, v);
	hit = avic_route(avic, list.apics, list.nr, &message);
	for (size_t n = 0; n < list.nr; n++) {
		struct kvm_vcpu *target = list.vcpus[n];

		if (hit >> n & 1 || (!message.shorthand && is_named_in_tables(avic, v, message.destination,
									      message.logical, target->id)))
			svm_complete_interrupt_delivery(avic, target);
	}
}

static int avic_incomplete_ipi_exit(void *self, int vcpu, u64 info1, u64 info2)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	u32 low = info1, high = info1 >> 32;

	switch (info2 >> 32) {
	case IPI_INVALID_TARGET:
		if (DEFECT == 1)
			break;
		emulate_ipi(avic, v, low, high);
		break;
	case IPI_INVALID_TYPE:
		emulate_ipi(avic, v, low, high);
		break;
	case IPI_NOT_RUNNING:
		avic_kick_target_vcpus(avic, v, low, high);
		break;
	case IPI_INVALID_PAGE:
		avic->env->warn(avic->world, "AVIC: invalid backing page");
		break;
	}
	return 1;
}

static void avic_unaccel_trap_write(struct avic *avic, struct kvm_vcpu *v, u32 offset, int vector)
{
	switch (offset) {
	case APIC_EOI:
		apic_set_eoi(avic, v, vector);
		return;
	case APIC_RRR:
		return;
	case APIC_LDR:
		avic_handle_ldr_update(avic, v);
		break;
	case APIC_DFR:
		avic_handle_dfr_update(avic, v);
		break;
	}
	kvm_lapic_reg_write(avic, v, offset, get_reg(avic, v, offset));
}

static int avic_noaccel_exit(void *self, int vcpu, u64 info1, u64 info2)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	u32 offset = info1 & 0xFF0;

	if (is_trap(offset))
		avic_unaccel_trap_write(avic, v, offset, info2 & 0xFF);
	else
		avic->env->emulate_instruction(avic->world, v->handle);
	return 1;
}

/* -- before VMRUN -- */

/* Whether the core ran another vCPU last; from now on it has run this one. */
static bool core_ran_another(struct avic *avic, int cpu, int vcpu)
{
	struct last_vcpu *cores;
	bool another;

	for (size_t i = 0; i < avic->nr_cores; i++) {
		if (avic->cores[i].cpu != cpu)
			continue;
		another = avic->cores[i].vcpu != vcpu;
		avic->cores[i].vcpu = vcpu;
		return another && DEFECT != 5;
	}
	cores = realloc(avic->cores, (avic->nr_cores + 1) * sizeof(*cores));
	if (!cores)
		return true;
	avic->cores = cores;
	cores[avic->nr_cores++] = (struct last_vcpu){ cpu, vcpu };
	return false;
}

static void avic_prepare_guest(void *self, int vcpu)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	int cpu = avic->env->vcpu_cpu(avic->world, vcpu), vector;
	u64 control, tpr;

	vmcb_write(avic, v, VMCB_TLB_CONTROL, core_ran_another(avic, cpu, vcpu) ? TLB_FLUSH_ASID : 0);
	if (!v->regs || !apic_enabled(v))
		return;
	if (!v->apicv_active) {
		vector = has_interrupt(avic, v);
		if (vector >= 0) {
			clear_vector(avic, v, APIC_IRR, vector);
			set_vector(avic, v, APIC_ISR, vector);
			avic->env->inject(avic->world, vcpu, vector);
		}
	}
	tpr = get_reg(avic, v, APIC_TPR) >> 4 & 0xF;
	control = vmcb_read(avic, v, VMCB_INT_CTL);
	if ((control & 0xF) != tpr)
		vmcb_write(avic, v, VMCB_INT_CTL, (control & ~0xFULL) | tpr);
}

static void avic_hwapic_update(void *self, int vcpu, int max)
{
	(void)self, (void)vcpu, (void)max;
}

/* -- the life of a VM -- */

static void leave_hash(struct avic *avic, struct kvm *kvm)
{
	lock(avic, "ga_hash", 0);
	kvm->hashed = false;
	unlock(avic, "ga_hash", 0);
}

static bool is_hashed(struct avic *avic, u32 vm_id)
{
	for (struct kvm *kvm = avic->vms; kvm; kvm = kvm->next)
		if (kvm->hashed && kvm->vm_id == vm_id)
			return true;
	return false;
}

static int avic_vm_init(struct avic *avic, struct kvm *kvm)
{
	kvm->phys_table = avic->env->alloc_page(avic->world, avic->max_phys > MAX_X2AVIC ? 3 : 0);
	if (!kvm->phys_table)
		return -ENOMEM;
	avic->env->clear_page(avic->world, kvm->phys_table);
	kvm->logical_table = avic->env->alloc_page(avic->world, 0);
	if (!kvm->logical_table)
		return -ENOMEM;
	avic->env->clear_page(avic->world, kvm->logical_table);

	lock(avic, "ga_hash", 0);
	do {
		avic->next_vm_id = (avic->next_vm_id + 1) & AVIC_VM_ID_MASK;
		if (!avic->next_vm_id)
			avic->wrapped = true;
	} while (!avic->next_vm_id || (avic->wrapped && is_hashed(avic, avic->next_vm_id)));
	kvm->vm_id = avic->next_vm_id;
	kvm->hashed = true;
	unlock(avic, "ga_hash", 0);
	return 0;
}

static void unlink_kvm(struct avic *avic, struct kvm *kvm)
{
	struct kvm **link = &avic->vms;

	while (*link != kvm)
		link = &(*link)->next;
	*link = kvm->next;
}

static void vm_release(struct avic *avic, struct kvm *kvm)
{
	if (kvm->access_page) {
		lock(avic, "slots", kvm->vm);
		delete_access_page(avic, kvm);
		unlock(avic, "slots", kvm->vm);
	}
	if (kvm->logical_table)
		avic->env->free_page(avic->world, kvm->logical_table);
	if (kvm->phys_table)
		avic->env->free_page(avic->world, kvm->phys_table);
	leave_hash(avic, kvm);
	unlink_kvm(avic, kvm);
	free(kvm->taken);
	free(kvm);
}

static int avic_vm_create(void *self, int vm, int irqchip, u32 max_vcpu_ids)
{
	struct avic *avic = self;
	struct kvm *kvm = calloc(1, sizeof(*kvm));
	int err = 0;

	if (!kvm)
		return -ENOMEM;
	if (irqchip || DEFECT != 8)
		kvm->taken = calloc(MAX_VCPU_IDS, sizeof(*kvm->taken));
	if (!kvm->taken && DEFECT != 8) {
		free(kvm);
		return -ENOMEM;
	}
	kvm->vm = vm;
	kvm->irqchip = irqchip;
	kvm->max_vcpu_ids = max_vcpu_ids;
	kvm->last = &kvm->first;
	kvm->next = avic->vms;
	avic->vms = kvm;
	if (avic->enabled && kvm->irqchip)
		err = avic_vm_init(avic, kvm);
	if (err)
		vm_release(avic, kvm);
	return err;
}

/* Everything was allocated with the VM. */
static int avic_vm_precreate(void *self, int vm)
{
	(void)self, (void)vm;
	return 0;
}

static void avic_vm_pre_destroy(void *self, int vm)
{
	leave_hash(self, find_kvm(self, vm));
}

static void avic_vm_destroy(void *self, int vm)
{
	vm_release(self, find_kvm(self, vm));
}

static void avic_tags_pass(void *self, u32 next_tag)
{
	struct avic *avic = self;
	u32 now = (next_tag - 1) & AVIC_VM_ID_MASK;

	avic->wrapped |= now < avic->next_vm_id;
	avic->next_vm_id = now;
}

static u32 avic_vm_tag(void *self, int vm)
{
	return find_kvm(self, vm)->vm_id;
}

/* -- the life of a vCPU -- */

static int avic_init_backing_page(struct avic *avic, struct kvm_vcpu *v)
{
	struct kvm *kvm = v->kvm;
	int err = 0;

	if (v->id > avic->max_phys || v->id > kvm->max_vcpu_ids - 1) {
		v->addressable = false;
		set_inhibit(avic, kvm, INHIBIT_PHYSICAL_ID_TOO_BIG, true);
		return 0;
	}
	if (!kvm->inhibits) {
		lock(avic, "slots", kvm->vm);
		if (!kvm->access_page && !kvm->access_page_gone) {
			err = avic->env->set_memory_region(avic->world, kvm->vm, APIC_ACCESS_PAGE_SLOT, APIC_BASE, 4096);
			kvm->access_page = !err;
		}
		unlock(avic, "slots", kvm->vm);
		if (err)
			return err;
	}
	v->entry = avic_hpa_field(avic, v->regs) | BIT(ENTRY_VALID);
	avic->env->write64(avic->world, kvm->phys_table, 8 * v->id, v->entry);
	return 0;
}

static int avic_init_vcpu(struct avic *avic, struct kvm_vcpu *v)
{
	int err = avic->env->alloc_vmcb(avic->world, v->handle);

	if (err || !v->kvm->irqchip)
		return err;
	v->regs = avic->env->alloc_page(avic->world, 0);
	if (!v->regs) {
		err = -ENOMEM;
		goto free_vmcb;
	}
	avic->env->clear_page(avic->world, v->regs);
	if (avic->enabled)
		err = avic_init_backing_page(avic, v);
	if (!err)
		return 0;
	avic->env->free_page(avic->world, v->regs);
free_vmcb:
	avic->env->free_vmcb(avic->world, v->handle);
	return err;
}

static int avic_vcpu_create(void *self, int vm, int vcpu, u32 apic_id)
{
	struct avic *avic = self;
	struct kvm *kvm = find_kvm(avic, vm);
	struct kvm_vcpu *v, **link;
	int err;

	if (apic_id >= kvm->max_vcpu_ids || apic_id >= MAX_VCPU_IDS)
		return -EINVAL;
	if (kvm->taken[apic_id])
		return -EEXIST;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	kvm->taken[apic_id] = true;
	v->kvm = kvm;
	v->handle = vcpu;
	v->id = apic_id;
	v->addressable = true;
	v->dfr = FLAT;
	err = avic_init_vcpu(avic, v);
	if (err) {
		kvm->taken[apic_id] = false;
		free(v);
		return err;
	}
	for (link = &avic->vcpus; *link; link = &(*link)->next_of_all)
		;
	*link = v;
	*kvm->last = v;
	kvm->last = &v->next;
	return 0;
}

static void unlink_vcpu(struct avic *avic, struct kvm_vcpu *v)
{
	struct kvm_vcpu **link = &avic->vcpus;

	while (*link != v)
		link = &(*link)->next_of_all;
	*link = v->next_of_all;
}

static void unlink_from_vm(struct kvm_vcpu *v)
{
	struct kvm_vcpu **link = &v->kvm->first;

	while (*link != v)
		link = &(*link)->next;
	*link = v->next;
	if (!*link)
		v->kvm->last = link;
}

static void free_vcpu(struct kvm_vcpu *v)
{
	free(v->irqs);
	if (DEFECT == 9 && v->irqs)
		free(v->irqs);
	free(v);
}

static void avic_vcpu_free(void *self, int vcpu)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);
	struct kvm *kvm = v->kvm;
	bool has_apic = v->regs;

	unlink_vcpu(avic, v);
	lock(avic, "inhibit", kvm->vm);	/* whoever looks at all vCPUs' registers holds it */
	if (DEFECT != 6)
		unlink_from_vm(v);
	unlock(avic, "inhibit", kvm->vm);
	for (size_t i = 0; i < v->nr_irqs; i++)
		unpost(avic, v->irqs[i].irq);
	if (has_apic && avic->enabled) {
		avic_invalidate_logical_id(avic, v);
		if (v->addressable)
			avic->env->write64(avic->world, kvm->phys_table, 8 * v->id, 0);
	}
	if (has_apic)
		avic->env->free_page(avic->world, v->regs);
	avic->env->free_vmcb(avic->world, vcpu);
	kvm->taken[v->id] = false;
	free_vcpu(v);
	if (has_apic)
		kvm_recalculate_apic_map(avic, kvm);
}

static void kvm_lapic_reset(struct avic *avic, struct kvm_vcpu *v, bool init)
{
	u32 keep = get_reg(avic, v, APIC_ID);

	avic->env->clear_page(avic->world, v->regs);
	set_reg(avic, v, APIC_LVR, APIC_VERSION);
	for (u32 offset = APIC_LVTT; offset <= APIC_LVTERR; offset += 16)
		set_reg(avic, v, offset, LVT_MASKED);
	if (!v->id)
		set_reg(avic, v, APIC_LVT0, LVT0_EXTINT);
	set_reg(avic, v, APIC_SPIV, SPIV_RESET);
	set_reg(avic, v, APIC_DFR, FLAT);
	if (apic_x2(v)) {
		set_reg(avic, v, APIC_ID, v->id);
		set_reg(avic, v, APIC_LDR, avic_x2_ldr(avic, v->id));
	} else {
		set_reg(avic, v, APIC_ID, init ? keep : (v->id & 0xFF) << 24);
	}
}

static void avic_vcpu_reset(void *self, int vcpu, int init)
{
	struct avic *avic = self;
	struct kvm_vcpu *v = find_vcpu(avic, vcpu);

	if (!init)
		v->apic_base = APIC_BASE | BIT(BASE_AE) | (v->id ? 0 : BIT(BASE_BSP));
	if (v->regs)
		kvm_lapic_reset(avic, v, init);
	init_vmcb(avic, v);
	if (!v->regs)
		return;
	if (avic->enabled)
		avic_apicv_post_state_restore(avic, v);
	kvm_recalculate_apic_map(avic, v->kvm);
	kvm_vcpu_update_apicv(avic, v);
}

static void avic_vmcb_reinit(void *self, int vcpu)
{
	init_vmcb(self, find_vcpu(self, vcpu));
}

/* -- the module -- */

static void *avic_create(const struct avic_env *env, void *world)
{
	struct avic *avic = calloc(1, sizeof(*avic));

	if (avic) {
		avic->env = env;
		avic->world = world;
	}
	return avic;
}

static void avic_destroy(void *self)
{
	struct avic *avic = self;

	while (avic->vcpus) {
		struct kvm_vcpu *v = avic->vcpus;

		avic->vcpus = v->next_of_all;
		free(v->irqs);
		free(v);
	}
	while (avic->vms) {
		struct kvm *kvm = avic->vms;

		avic->vms = kvm->next;
		free(kvm->taken);
		free(kvm);
	}
	free(avic->cores);
	free(avic);
}

const struct avic_driver avic_driver = {
	.abi_version = AVIC_ABI,
	.profile = "upstream",
	.capabilities = "layer-r layer-t exits posted helpers",
	.create = avic_create,
	.destroy = avic_destroy,
	.route = avic_route,
	.hw_setup = avic_hw_setup,
	.hw_unsetup = avic_hw_unsetup,
	.vm_create = avic_vm_create,
	.vm_precreate = avic_vm_precreate,
	.vm_pre_destroy = avic_vm_pre_destroy,
	.vm_destroy = avic_vm_destroy,
	.vm_tag = avic_vm_tag,
	.vcpu_create = avic_vcpu_create,
	.vcpu_free = avic_vcpu_free,
	.vcpu_reset = avic_vcpu_reset,
	.vmcb_reinit = avic_vmcb_reinit,
	.prepare_guest = avic_prepare_guest,
	.hwapic_irr_update = avic_hwapic_update,
	.hwapic_isr_update = avic_hwapic_update,
	.set_lapic = avic_set_lapic,
	.get_lapic = avic_get_lapic,
	.vcpu_load = avic_vcpu_load,
	.vcpu_put = avic_vcpu_put,
	.vcpu_blocking = avic_vcpu_blocking,
	.vcpu_unblocking = avic_vcpu_unblocking,
	.incomplete_ipi_exit = avic_incomplete_ipi_exit,
	.noaccel_exit = avic_noaccel_exit,
	.apic_access = avic_apic_access,
	.set_apic_base = avic_set_apic_base,
	.deliver = avic_deliver,
	.inhibit = avic_inhibit,
	.refresh = avic_refresh,
	.vcpu_tag = avic_vcpu_tag,
	.ga_log_notify = avic_ga_log_notify,
	.update_irte = avic_update_irte,
	.hpa_field = avic_hpa_field,
	.logical_index = avic_logical_index,
	.phys_index = avic_phys_index,
	.tag_round_trip = avic_tag_round_trip,
	.x2_ldr = avic_x2_ldr,
	.ppr = avic_ppr,
	.tags_pass = avic_tags_pass,
};
