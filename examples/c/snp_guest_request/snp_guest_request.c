// SPDX-License-Identifier: Apache-2.0
/*
 * Guest requests of SEV-SNP guests, as a hypervisor handles them: bounce pages, one command at a
 * time and VM, certificates from userspace.
 *
 * The request is copied once; what it is, is read from the copy that is forwarded. -DDEFECT=n makes
 * the driver wrong in one of the ways of DEFECTS below.
 */
#include <errno.h>
#include <stdlib.h>

#include "snp_guest_request.h"
#include "snp_guest_request_constants.h"

/*
 * DEFECTS, by their number; those with an id are the zoo's.
 *  1  SNP-D01   the status variable reaches the guest though no command wrote it
 *  2  SNP-D11   equal request and response pages are processed
 *  3  SNP-D19   missing registers count as 0
 *  4  SNP-U07   a failed init returns 0
 *  5  SNP-V07   pages may begin in the middle of a page
 *  6  SNP-V11   the GHCB that was registered first stays it
 *  7            the copy of the GHCB is freed when the vCPU leaves, and with the vCPU: double free
 *  8            a vCPU that went with its VM stays in the table: double free
 *  9            the registers are kept in an array that is one too short: out of bounds
 * 10            the copy of the GHCB is never allocated: NULL is dereferenced
 */
#ifndef DEFECT
#define DEFECT 0
#endif

#define MAX_VMS 16
#define MAX_VCPUS 16
#define SNP_POLICY_RSVD_ONE (1ULL << 17)
#define CERT_TABLE_ENTRY_SIZE 24
#define IS_ALIGNED(x, a) (((x) & ((a) - 1)) == 0)

enum { RAX, RBX, RCX, RDX, NR_REGS };

static const u32 reg_offsets[NR_REGS] = { GHCB_RAX, GHCB_RBX, GHCB_RCX, GHCB_RDX };

struct kvm_sev_info {
	int vm;
	int kind;
	int vcpus;
	bool active;
	bool certs_enabled;
	u32 asid;
	int fd;
	u64 snp_context;		/* physical address of the guest context, or 0 */
	u64 guest_req_buf;		/* bounce pages, used with guest_req_mutex held */
	u64 guest_resp_buf;
	char guest_req_mutex[24];
};

/* What one exit brought with it. */
struct ghcb_copy {
	u64 regs[NR_REGS];
	bool has_regs;
	u64 valid[2];
	u64 exit_code;
	u64 exit_info_1;
	u64 exit_info_2;
};

struct vcpu_svm {
	struct kvm_sev_info *sev;
	struct ghcb_copy *ghcb;
	bool mapped;
	bool registered;
	u64 registered_gpa;
	u64 req_gpa;			/* of the request that waits for userspace */
	u64 resp_gpa;
};

struct sev_device {
	const struct snp_guest_request_env *env;
	void *world;
	struct kvm_sev_info *sevs[MAX_VMS];
	struct vcpu_svm *svms[MAX_VCPUS];
};

static bool sev_snp_guest(const struct kvm_sev_info *sev)
{
	return sev->kind == SNP && sev->active;
}

/* An address as firmware wants it. */
static u64 psp_pa(u64 address)
{
	return address | 1ULL << C_BIT;
}

/* -- pages and the guest context -- */

/* Give a page back that firmware had; one that it keeps is never used again. */
static void snp_free_firmware_page(struct sev_device *dev, u64 page)
{
	u64 pfn = page >> 12;

	if (dev->env->snp_page_reclaim(dev->world, pfn) || dev->env->rmp_make_shared(dev->world, pfn)) {
		dev->env->leak_page(dev->world, pfn);
		return;
	}
	dev->env->free_page(dev->world, page);
}

static int snp_guest_req_init(struct sev_device *dev, struct kvm_sev_info *sev)
{
	u64 req, resp;

	req = dev->env->alloc_page(dev->world, 1);
	if (!req)
		return -ENOMEM;
	resp = dev->env->alloc_fw_page(dev->world);
	if (!resp) {
		dev->env->free_page(dev->world, req);
		return -EIO;
	}
	dev->env->mutex_init(dev->world, sev->guest_req_mutex);
	sev->guest_req_buf = req;
	sev->guest_resp_buf = resp;
	return 0;
}

static void snp_guest_req_cleanup(struct sev_device *dev, struct kvm_sev_info *sev)
{
	if (sev->guest_resp_buf)
		snp_free_firmware_page(dev, sev->guest_resp_buf);
	if (sev->guest_req_buf)
		dev->env->free_page(dev->world, sev->guest_req_buf);
	sev->guest_req_buf = 0;
	sev->guest_resp_buf = 0;
}

static int snp_decommission_context(struct sev_device *dev, struct kvm_sev_info *sev)
{
	u64 context = sev->snp_context;
	u64 status;
	int ret;

	if (!context)
		return 0;
	ret = dev->env->snp_decommission(dev->world, NO_FD, psp_pa(context), 0, &status);
	sev->snp_context = 0;
	if (ret) {
		/* Firmware still uses the page, and the ASID with it. */
		dev->env->leak_page(dev->world, context >> 12);
		sev->asid = 0;
		return ret;
	}
	snp_free_firmware_page(dev, context);
	return 0;
}

/* -- VMs -- */

static int snp_vm_create(void *self, int vm, int kind)
{
	struct sev_device *dev = self;
	struct kvm_sev_info *sev;
	char *name;

	if (vm < 0 || vm >= MAX_VMS)
		return -EINVAL;
	sev = calloc(1, sizeof(*sev));
	if (!sev)
		return -ENOMEM;
	sev->vm = vm;
	sev->kind = kind;
	sev->fd = NO_FD;
	/* One lock a VM: "vmN.guest_req_mutex". */
	name = sev->guest_req_mutex;
	*name++ = 'v';
	*name++ = 'm';
	if (vm >= 10)
		*name++ = '0' + vm / 10;
	*name++ = '0' + vm % 10;
	for (const char *rest = ".guest_req_mutex"; *rest; rest++)
		*name++ = *rest;
	dev->sevs[vm] = sev;
	return 0;
}

static int snp_sev_init(void *self, int vm)
{
	struct sev_device *dev = self;
	struct kvm_sev_info *sev = dev->sevs[vm];
	int asid, ret = 0;

	if (sev->active)
		return -EINVAL;
	asid = dev->env->alloc_asid(dev->world);
	if (asid < 0)
		return DEFECT == 4 ? 0 : asid;
	if (sev->kind == SNP)
		ret = snp_guest_req_init(dev, sev);
	if (ret) {
		dev->env->free_asid(dev->world, asid);
		return DEFECT == 4 ? 0 : ret;
	}
	sev->asid = asid;
	sev->active = true;
	return 0;
}

static int snp_launch_start(void *self, int vm, int fd, u64 policy)
{
	struct sev_device *dev = self;
	struct kvm_sev_info *sev = dev->sevs[vm];
	u64 context, status;
	int ret;

	if (!sev_snp_guest(sev))
		return -ENOTTY;
	if (sev->snp_context || !(policy & SNP_POLICY_RSVD_ONE))
		return -EINVAL;

	context = dev->env->alloc_fw_page(dev->world);
	if (!context)
		return -ENOTTY;
	ret = dev->env->snp_gctx_create(dev->world, fd, psp_pa(context), 0, &status);
	if (ret) {
		snp_free_firmware_page(dev, context);
		return ret;
	}
	sev->snp_context = context;
	sev->fd = fd;
	ret = dev->env->snp_launch_start(dev->world, fd, psp_pa(context), policy, 0, &status);
	if (!ret)
		ret = dev->env->snp_activate(dev->world, fd, psp_pa(context), sev->asid, 0, &status);
	if (ret)
		snp_decommission_context(dev, sev);
	return ret;
}

static int snp_launch_finish(void *self, int vm)
{
	struct sev_device *dev = self;
	struct kvm_sev_info *sev = dev->sevs[vm];
	u64 status;

	if (!sev->snp_context)
		return -EINVAL;
	return dev->env->snp_launch_finish(dev->world, sev->fd, psp_pa(sev->snp_context), 0, &status);
}

static int snp_enable_req_certs(void *self, int vm)
{
	struct sev_device *dev = self;
	struct kvm_sev_info *sev = dev->sevs[vm];

	if (!sev_snp_guest(sev) || sev->vcpus)
		return -EINVAL;
	sev->certs_enabled = true;
	return 0;
}

static int snp_has_req_certs(void *self)
{
	(void)self;
	return 1;
}

static int snp_decommission(void *self, int vm)
{
	struct sev_device *dev = self;

	return snp_decommission_context(dev, dev->sevs[vm]);
}

static void svm_free(struct sev_device *dev, int vcpu)
{
	struct vcpu_svm *svm = dev->svms[vcpu];

	if (svm)
		free(svm->ghcb);
	free(svm);
	if (DEFECT != 8)
		dev->svms[vcpu] = NULL;
}

static int snp_vm_destroy(void *self, int vm)
{
	struct sev_device *dev = self;
	struct kvm_sev_info *sev = dev->sevs[vm];

	for (int vcpu = 0; vcpu < MAX_VCPUS; vcpu++)
		if (dev->svms[vcpu] && dev->svms[vcpu]->sev == sev)
			svm_free(dev, vcpu);
	dev->sevs[vm] = NULL;
	if (sev->active) {
		snp_guest_req_cleanup(dev, sev);
		snp_decommission_context(dev, sev);
		if (sev->asid)
			dev->env->free_asid(dev->world, sev->asid);
	}
	free(sev);
	return 0;
}

static int snp_vm_move_from(void *self, int dst, int src)
{
	(void)self, (void)dst, (void)src;
	return -EINVAL;
}

static int snp_vm_mirror_from(void *self, int dst, int src)
{
	(void)self, (void)dst, (void)src;
	return -EINVAL;
}

static int snp_shutdown(void *self)
{
	(void)self;
	return 0;
}

/* -- vCPUs and their GHCBs -- */

static int snp_vcpu_create(void *self, int vcpu, int vm)
{
	struct sev_device *dev = self;
	struct vcpu_svm *svm;

	if (vcpu < 0 || vcpu >= MAX_VCPUS)
		return -EINVAL;
	svm = calloc(1, sizeof(*svm));
	if (!svm)
		return -ENOMEM;
	if (DEFECT != 10)
		svm->ghcb = calloc(1, DEFECT == 9 ? sizeof(u64) * (NR_REGS - 1) : sizeof(*svm->ghcb));
	if (!svm->ghcb && DEFECT != 10) {
		free(svm);
		return -ENOMEM;
	}
	svm->sev = dev->sevs[vm];
	svm->sev->vcpus++;
	dev->svms[vcpu] = svm;
	return 0;
}

static int snp_ghcb_register(void *self, int vcpu, u64 gpa)
{
	struct sev_device *dev = self;
	struct vcpu_svm *svm = dev->svms[vcpu];

	if (DEFECT == 6 && svm->registered)
		return 0;
	svm->registered = true;
	svm->registered_gpa = gpa;
	return 0;
}

static bool ghcb_is_valid(const struct ghcb_copy *ghcb, u32 offset)
{
	u32 bit = offset / 8;

	return ghcb->valid[bit / 64] >> bit % 64 & 1;
}

static u64 ghcb_get_if_valid(struct sev_device *dev, int vcpu, const struct ghcb_copy *ghcb, u32 offset)
{
	return ghcb_is_valid(ghcb, offset) ? dev->env->ghcb_read(dev->world, vcpu, offset, 8) : 0;
}

/* Fetch each field once: the guest may store meanwhile. Returns the usage. */
static u32 sev_es_sync_from_ghcb(struct sev_device *dev, int vcpu, struct ghcb_copy *ghcb)
{
	ghcb->valid[0] = dev->env->ghcb_read(dev->world, vcpu, GHCB_VALID_BITMAP, 8);
	ghcb->valid[1] = dev->env->ghcb_read(dev->world, vcpu, GHCB_VALID_BITMAP + 8, 8);
	for (int reg = 0; reg < NR_REGS; reg++)
		ghcb->regs[reg] = ghcb_get_if_valid(dev, vcpu, ghcb, reg_offsets[reg]);
	ghcb->has_regs = true;
	ghcb->exit_code = ghcb_get_if_valid(dev, vcpu, ghcb, GHCB_SW_EXITCODE);
	ghcb->exit_info_1 = ghcb_get_if_valid(dev, vcpu, ghcb, GHCB_SW_EXITINFO1);
	ghcb->exit_info_2 = ghcb_get_if_valid(dev, vcpu, ghcb, GHCB_SW_EXITINFO2);
	return dev->env->ghcb_read(dev->world, vcpu, GHCB_USAGE, 4);
}

/* The reason why an exit is malformed, or 0. */
static u64 sev_es_validate_vmgexit(const struct vcpu_svm *svm, u32 usage)
{
	const struct ghcb_copy *ghcb = svm->ghcb;
	u64 mask = DEFECT == 5 ? PAGE_SIZE / 2 : PAGE_SIZE;

	if (usage)
		return INVALID_USAGE;
	if (!ghcb_is_valid(ghcb, GHCB_SW_EXITCODE) || !ghcb_is_valid(ghcb, GHCB_SW_EXITINFO1) ||
	    !ghcb_is_valid(ghcb, GHCB_SW_EXITINFO2))
		return MISSING_INPUT;
	if (ghcb->exit_code != GUEST_REQUEST && ghcb->exit_code != EXT_GUEST_REQUEST)
		return INVALID_EVENT;
	if (!sev_snp_guest(svm->sev))
		return MISSING_INPUT;
	if (!IS_ALIGNED(ghcb->exit_info_1, mask) || !IS_ALIGNED(ghcb->exit_info_2, mask))
		return MISSING_INPUT;
	if (DEFECT != 2 && ghcb->exit_info_1 == ghcb->exit_info_2)
		return MISSING_INPUT;
	return 0;
}

static u64 valid_bit(u32 offset)
{
	return 1ULL << (offset / 8 - 64);
}

/* Answer, and let the guest go on. */
static int snp_complete(struct sev_device *dev, int vcpu, u64 info_1, u64 info_2)
{
	u64 answered = valid_bit(GHCB_SW_EXITINFO1) | valid_bit(GHCB_SW_EXITINFO2) | valid_bit(GHCB_RBX);

	dev->env->ghcb_write(dev->world, vcpu, GHCB_SW_EXITINFO1, info_1);
	dev->env->ghcb_write(dev->world, vcpu, GHCB_SW_EXITINFO2, info_2);
	dev->env->ghcb_write(dev->world, vcpu, GHCB_VALID_BITMAP + 8, dev->svms[vcpu]->ghcb->valid[1] | answered);
	return RESUME;
}

static int snp_ghcb_leave(void *self, int vcpu)
{
	struct sev_device *dev = self;
	struct vcpu_svm *svm = dev->svms[vcpu];

	if (svm->mapped) {
		for (int reg = 0; svm->ghcb->has_regs && reg < NR_REGS; reg++)
			dev->env->ghcb_write(dev->world, vcpu, reg_offsets[reg], svm->ghcb->regs[reg]);
		dev->env->ghcb_unmap(dev->world, vcpu);
	}
	svm->mapped = false;
	svm->ghcb->has_regs = false;
	if (DEFECT == 7)
		free(svm->ghcb);
	return 0;
}

/* -- requests; the mutex is held in what is called between lock and unlock -- */

static int snp_copy_request(struct sev_device *dev, struct kvm_sev_info *sev, u64 gpa)
{
	return dev->env->read_guest(dev->world, sev->vm, gpa, sev->guest_req_buf, PAGE_SIZE) ? -EIO : 0;
}

/* The result of KVM_RUN, and SW_EXITINFO2 where that is 0. */
static int snp_forward(struct sev_device *dev, struct kvm_sev_info *sev, u64 resp_gpa, u64 *info_2)
{
	u64 status;
	int ret;

	*info_2 = 0;
	if (!sev->snp_context) {
		if (DEFECT == 1)	/* the variable is 0 where no command is tried */
			return 0;
		return -EINVAL;
	}
	ret = dev->env->snp_guest_request(dev->world, sev->fd, psp_pa(sev->snp_context), psp_pa(sev->guest_req_buf),
					  psp_pa(sev->guest_resp_buf), DEFECT == 1 ? UNINITIALISED : 0, &status);
	if (DEFECT == 1) {
		if (ret) {
			*info_2 = (u32)status;
			return 0;
		}
	} else {
		if (ret && !status)
			return ret;
		if (status) {
			*info_2 = status;
			return 0;
		}
	}
	return dev->env->write_guest(dev->world, sev->vm, resp_gpa, sev->guest_resp_buf, PAGE_SIZE) ? -EIO : 0;
}

static int snp_handle_guest_req(struct sev_device *dev, int vcpu)
{
	struct vcpu_svm *svm = dev->svms[vcpu];
	struct kvm_sev_info *sev = svm->sev;
	u64 info_2 = 0;
	int ret;

	ret = dev->env->mutex_lock_killable(dev->world, sev->guest_req_mutex);
	if (ret)
		return ret;
	ret = snp_copy_request(dev, sev, svm->ghcb->exit_info_1);
	if (!ret)
		ret = snp_forward(dev, sev, svm->ghcb->exit_info_2, &info_2);
	dev->env->mutex_unlock(dev->world, sev->guest_req_mutex);
	return ret ? ret : snp_complete(dev, vcpu, 0, info_2);
}

/* The reason why the pages for certificates cannot be used, or 0. */
static u64 snp_validate_data(struct ghcb_copy *ghcb)
{
	if (DEFECT == 3) {
		ghcb->valid[GHCB_RAX / 8 / 64] |= 1ULL << GHCB_RAX / 8 % 64;
		ghcb->valid[GHCB_RBX / 8 / 64] |= 1ULL << GHCB_RBX / 8 % 64;
	}
	if (!ghcb_is_valid(ghcb, GHCB_RAX) || !ghcb_is_valid(ghcb, GHCB_RBX))
		return INVALID_INPUT;
	return IS_ALIGNED(ghcb->regs[RAX], (u64)PAGE_SIZE) ? 0 : INVALID_INPUT;
}

/* Without userspace the guest gets an empty table. */
static int snp_supply_certs(struct sev_device *dev, struct vcpu_svm *svm)
{
	if (!svm->ghcb->regs[RBX])
		return 0;
	if (dev->env->clear_guest(dev->world, svm->sev->vm, svm->ghcb->regs[RAX], CERT_TABLE_ENTRY_SIZE))
		return -EIO;
	return 0;
}

static int snp_handle_ext_guest_req(struct sev_device *dev, int vcpu)
{
	struct vcpu_svm *svm = dev->svms[vcpu];
	struct kvm_sev_info *sev = svm->sev;
	struct ghcb_copy *ghcb = svm->ghcb;
	u64 reason = 0, info_2 = 0;
	bool exits = false;
	int ret;

	ret = dev->env->mutex_lock_killable(dev->world, sev->guest_req_mutex);
	if (ret)
		return ret;
	ret = snp_copy_request(dev, sev, ghcb->exit_info_1);
	if (!ret && dev->env->load(dev->world, sev->guest_req_buf + MSG_TYPE, 1) == REPORT_REQ) {
		reason = snp_validate_data(ghcb);
		exits = !reason && sev->certs_enabled;
		if (!reason && !exits)
			ret = snp_supply_certs(dev, svm);
	}
	if (!ret && !reason && !exits)
		ret = snp_forward(dev, sev, ghcb->exit_info_2, &info_2);
	dev->env->mutex_unlock(dev->world, sev->guest_req_mutex);

	if (ret)
		return ret;
	if (reason)
		return snp_complete(dev, vcpu, MALFORMED, reason);
	if (exits) {
		svm->req_gpa = ghcb->exit_info_1;
		svm->resp_gpa = ghcb->exit_info_2;
		dev->env->run_exit(dev->world, vcpu, EXIT_SNP_REQ_CERTS, ghcb->regs[RAX], ghcb->regs[RBX], 0);
		return EXIT;
	}
	return snp_complete(dev, vcpu, 0, info_2);
}

static int snp_vmgexit(void *self, int vcpu, u64 gpa)
{
	struct sev_device *dev = self;
	struct vcpu_svm *svm = dev->svms[vcpu];
	u64 reason;
	u32 usage;
	int ret;

	ret = dev->env->ghcb_map(dev->world, vcpu, gpa);
	if (ret)
		return ret;
	svm->mapped = true;
	if (sev_snp_guest(svm->sev) && !(svm->registered && svm->registered_gpa == gpa))
		return -EINVAL;
	usage = sev_es_sync_from_ghcb(dev, vcpu, svm->ghcb);
	reason = sev_es_validate_vmgexit(svm, usage);
	if (reason)
		return snp_complete(dev, vcpu, MALFORMED, reason);
	if (svm->ghcb->exit_code == GUEST_REQUEST)
		return snp_handle_guest_req(dev, vcpu);
	return snp_handle_ext_guest_req(dev, vcpu);
}

/* Userspace has looked for certificates. */
static int snp_vcpu_continue(void *self, int vcpu)
{
	struct sev_device *dev = self;
	struct vcpu_svm *svm = dev->svms[vcpu];
	u64 answer = dev->env->run_read(dev->world, vcpu, RUN_RET);

	switch (answer) {
	case 0:
		svm->ghcb->exit_info_1 = svm->req_gpa;
		svm->ghcb->exit_info_2 = svm->resp_gpa;
		return snp_handle_guest_req(dev, vcpu);
	case ENOSPC:
		svm->ghcb->regs[RBX] = dev->env->run_read(dev->world, vcpu, RUN_NPAGES);
		return snp_complete(dev, vcpu, 0, TOO_SMALL_INFO2);
	case EAGAIN:
		return snp_complete(dev, vcpu, 0, BUSY_INFO2);
	case EIO:
		return snp_complete(dev, vcpu, 0, GENERIC_INFO2);
	default:
		return -EINVAL;
	}
}

/* -- the module -- */

static void *snp_create(const struct snp_guest_request_env *env, void *world)
{
	struct sev_device *dev = calloc(1, sizeof(*dev));

	if (dev) {
		dev->env = env;
		dev->world = world;
	}
	return dev;
}

static void snp_destroy(void *self)
{
	struct sev_device *dev = self;

	for (int vcpu = 0; vcpu < MAX_VCPUS; vcpu++)
		svm_free(dev, vcpu);
	for (int vm = 0; vm < MAX_VMS; vm++)
		free(dev->sevs[vm]);
	free(dev);
}

const struct snp_guest_request_driver snp_guest_request_driver = {
	.abi_version = SNP_GUEST_REQUEST_ABI,
	.profile = "upstream",
	.capabilities = "hypervisor userspace-certs move",
	.create = snp_create,
	.destroy = snp_destroy,
	.vm_create = snp_vm_create,
	.sev_init = snp_sev_init,
	.launch_start = snp_launch_start,
	.launch_finish = snp_launch_finish,
	.enable_req_certs = snp_enable_req_certs,
	.has_req_certs = snp_has_req_certs,
	.vcpu_create = snp_vcpu_create,
	.ghcb_register = snp_ghcb_register,
	.vmgexit = snp_vmgexit,
	.vcpu_continue = snp_vcpu_continue,
	.ghcb_leave = snp_ghcb_leave,
	.decommission = snp_decommission,
	.vm_destroy = snp_vm_destroy,
	.vm_move_from = snp_vm_move_from,
	.vm_mirror_from = snp_vm_mirror_from,
	.snp_shutdown = snp_shutdown,
};
