/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI of snp_guest_request: what a library exports, and what it may call.
 *
 * A library that defines
 *
 *	const struct snp_guest_request_driver snp_guest_request_driver = { .abi_version = SNP_GUEST_REQUEST_ABI, ... };
 *
 * is tested by --candidate lib:PATH.so. docs/c.md says how one is written; types.h what holds for
 * all five subsystems: ownership, lengths, errors, threads.
 *
 * Capabilities, each with the entry points that it needs:
 *   hypervisor: handles guest requests of SNP VMs (kind H). Needs vm_create, sev_init,
 *       launch_start, launch_finish, vcpu_create, ghcb_register, vmgexit, ghcb_leave,
 *       decommission, vm_destroy, snp_shutdown.
 *   guest: is a guest's driver of the secure processor (kind G). Needs open, get_report,
 *       get_derived_key, get_ext_report, close.
 *   verifier: parses certificate tables. Needs parse_certs.
 *   userspace-certs: fetches certificates from userspace (certs=userspace). Needs
 *       enable_req_certs, has_req_certs, vcpu_continue.
 *   kernel-certs: keeps certificates of its own (certs=kernel). Needs set_instance_certs,
 *       get_instance_certs, host_set_ext_config, host_get_ext_config.
 *   throttle: limits the rate of guest requests.
 *   move: answers requests to move or mirror a VM. Needs vm_move_from, vm_mirror_from.
 */
#ifndef CONFORMANCE_SNP_GUEST_REQUEST_H
#define CONFORMANCE_SNP_GUEST_REQUEST_H

#include "types.h"

/* Counted up when an entry point or an environment call is added, goes or changes. */
#define SNP_GUEST_REQUEST_ABI 1

/* One certificate of a table; both point into the table, or into memory of the driver. */
struct snp_guest_request_cert {
	const u8 *guid;
	size_t guid_len;
	const u8 *data;
	size_t data_len;
};

/*
 * Environment calls; 0 or a negative errno unless a method says more.
 *
 * Host memory is addressed by int: pages lie at pfn << 12, small allocations elsewhere, NULL is 0.
 *
 * The table is valid as long as the library is loaded; world is what create was given.
 */
struct snp_guest_request_env {
	/* -- GHCB and run structure -- */

	/*
	 * Map the page as the vCPU's GHCB; again while it is mapped, or after it was, is no harm.
	 */
	int (*ghcb_map)(void *world, int vcpu, u64 gpa);

	/*
	 * Little-endian value of size bytes, as the guest has them now: it may store there between
	 * two calls.
	 */
	u64 (*ghcb_read)(void *world, int vcpu, u32 offset, size_t size);

	/* Store 8 bytes for the guest. */
	int (*ghcb_write)(void *world, int vcpu, u32 offset, u64 value);

	/* Undo ghcb_map. */
	int (*ghcb_unmap)(void *world, int vcpu);

	/* Fill the run structure for an exit to userspace. */
	int (*run_exit)(void *world, int vcpu, u32 reason, u64 gpa, u64 npages, u64 ret);

	/* RUN_NPAGES or RUN_RET, as userspace has it now. */
	u64 (*run_read)(void *world, int vcpu, int field);

	/* -- host memory -- */

	/* Address of a host page, zeroed if asked for; 0 when memory is short. */
	u64 (*alloc_page)(void *world, int zero);

	/* Give a host page back to the allocator. */
	int (*free_page)(void *world, u64 address);

	/*
	 * Address of a zeroed page in RMP state FIRMWARE; 0 when memory is short or the transition
	 * fails.
	 */
	u64 (*alloc_fw_page)(void *world);

	/* Never use this page again; said once, of a page that could not be had back. */
	int (*leak_page)(void *world, u64 pfn);

	/* Address of size bytes whose content is whatever was there; 0 when memory is short. */
	u64 (*kmalloc)(void *world, size_t size);

	/* Address of size zero bytes; 0 when memory is short. */
	u64 (*kzalloc)(void *world, size_t size);

	/* Give an allocation back; 0 is allowed. */
	int (*kfree)(void *world, u64 address);

	/* Little-endian value of size bytes of host memory. */
	u64 (*load)(void *world, u64 address, size_t size);

	/* Copy host memory. */
	int (*memcpy)(void *world, u64 destination, u64 source, size_t size);

	/* Fill host memory. */
	int (*memset)(void *world, u64 address, int value, size_t size);

	/* Copy from the caller's memory; -EFAULT may come after a part was copied. */
	int (*copy_from_user)(void *world, u64 address, u64 user, size_t size);

	/* Copy to the caller's memory; -EFAULT may come after a part was copied. */
	int (*copy_to_user)(void *world, u64 user, u64 address, size_t size);

	/* -- guest memory -- */

	/* Copy guest memory to host memory; -EFAULT where no page is mapped. */
	int (*read_guest)(void *world, int vm, u64 gpa, u64 address, size_t size);

	/* Copy host memory to guest memory; -EFAULT where no writable page is mapped. */
	int (*write_guest)(void *world, int vm, u64 gpa, u64 address, size_t size);

	/* Zero guest memory; -EFAULT where no writable page is mapped. */
	int (*clear_guest)(void *world, int vm, u64 gpa, size_t size);

	/*
	 * Page frame behind a guest page, with a reference; -EFAULT where no writable page is
	 * mapped.
	 */
	s64 (*gfn_to_pfn)(void *world, int vm, u64 gfn);

	/* Drop the reference. */
	int (*put_pfn)(void *world, u64 pfn);

	/* -- RMP -- */

	/* The page's RMP state, HYPERVISOR to GUEST_VALID. */
	int (*rmp_lookup)(void *world, u64 pfn);

	/* RMPUPDATE to assigned. */
	int (*rmp_make_private)(void *world, u64 pfn, u64 gpa, u32 asid, int immutable);

	/* RMPUPDATE to the all-zero entry. */
	int (*rmp_make_shared)(void *world, u64 pfn);

	/* -- firmware; addresses carry the C-bit, `error` is what the caller's status variable holds before -- */

	/* Make a FIRMWARE page a guest context: result and status. */
	int (*snp_gctx_create)(void *world, int fd, u64 gctx, u64 error, u64 *status);

	/* Begin the launch: result and status. */
	int (*snp_launch_start)(void *world, int fd, u64 gctx, u64 policy, u64 error, u64 *status);

	/* Bind the context to an ASID: result and status. */
	int (*snp_activate)(void *world, int fd, u64 gctx, u32 asid, u64 error, u64 *status);

	/* End the launch: result and status. */
	int (*snp_launch_finish)(void *world, int fd, u64 gctx, u64 error, u64 *status);

	/* Turn the context page into a FIRMWARE page again: result and status. */
	int (*snp_decommission)(void *world, int fd, u64 gctx, u64 error, u64 *status);

	/*
	 * Have firmware answer a guest message.
	 *
	 * Returns:
	 *     (0, 0)             done
	 *     (-EIO, status)     firmware refused with that status
	 *     (-ETIMEDOUT, 0)    firmware did not answer and is dead from now on
	 *     (-errno, error)    no command reached firmware, the caller's variable is as it was
	 */
	int (*snp_guest_request)(void *world, int fd, u64 gctx, u64 request, u64 response,
		      u64 error, u64 *status);

	/* Have firmware give a page back: the entry is no longer immutable. */
	int (*snp_page_reclaim)(void *world, u64 pfn);

	/* Set the TCB that reports show. */
	int (*snp_config)(void *world, u64 tcb);

	/* 1 once a command has timed out. */
	int (*psp_is_dead)(void *world);

	/* -- locks, identities, others -- */

	/*
	 * Make a lock of that name usable; it goes with the VM, or the guest's driver, in whose operation
	 * that happens. A lock of the whole host is made when the candidate is created.
	 */
	int (*mutex_init)(void *world, const char *name);

	/* Wait for the lock. */
	int (*mutex_lock)(void *world, const char *name);

	/* Wait for the lock; -EINTR when the waiter is killed. */
	int (*mutex_lock_killable)(void *world, const char *name);

	/* Release the lock. */
	int (*mutex_unlock)(void *world, const char *name);

	/* An address-space id, above 0. */
	int (*alloc_asid)(void *world);

	/* Give an address-space id back. */
	int (*free_asid)(void *world, u32 asid);

	/* 1 while the VM is within its rate of 2 requests per 2 s, else 0. */
	int (*ratelimit)(void *world, int vm);

	/* Mark the VM bugged: it never runs again. */
	int (*vm_bug)(void *world, int vm);

	/* -- kind G -- */

	/* Bytes of the guest's secrets page. */
	void (*read_secrets)(void *world, u32 offset, size_t size, u8 *data, size_t *data_len);

	/* Store into the guest's secrets page. */
	int (*write_secrets)(void *world, u32 offset, const u8 *data, size_t data_len);

	/*
	 * Guest-physical address of private pages, which hold whatever was there; 0 when memory is
	 * short.
	 */
	u64 (*alloc_pages)(void *world, u64 npages);

	/* Give them back to the guest's allocator. */
	int (*free_pages)(void *world, u64 gpa);

	/* Never use them again. */
	int (*leak_pages)(void *world, u64 gpa);

	/* Share the pages with the host. */
	int (*set_decrypted)(void *world, u64 gpa);

	/* Make the pages private again. */
	int (*set_encrypted)(void *world, u64 gpa);

	/* Bytes as they are now; the host may change them at any time. */
	void (*shared_read)(void *world, u64 gpa, size_t size, u8 *data, size_t *data_len);

	/* Store into pages; the host sees it. */
	int (*shared_write)(void *world, u64 gpa, const u8 *data, size_t data_len);

	/* AES-256-GCM: ciphertext and 16 bytes of tag. */
	void (*gcm_encrypt)(void *world, const u8 *key, size_t key_len, const u8 *iv, size_t iv_len,
		      const u8 *aad, size_t aad_len, const u8 *payload, size_t payload_len, u8 *out,
		      size_t *out_len);

	/* The payload, or b"" when the tag does not fit; no message here has an empty payload. */
	void (*gcm_decrypt)(void *world, const u8 *key, size_t key_len, const u8 *iv, size_t iv_len,
		      const u8 *aad, size_t aad_len, const u8 *data, size_t data_len, u8 *out,
		      size_t *out_len);

	/* VMGEXIT: SW_EXITINFO1, SW_EXITINFO2 and RBX as the host left them. */
	void (*guest_exit)(void *world, u64 code, u64 info1, u64 info2, u64 rax, u64 rbx,
		      u64 *exitinfo1, u64 *exitinfo2, u64 *rbx_after);

	/* Let time pass. */
	int (*sleep)(void *world, u64 seconds);

	/* Seconds since the guest started. */
	u64 (*now)(void *world);
};

/*
 * Entry points of a hypervisor's handler (kind H) and of a guest's driver (kind G).
 *
 * VMs and vCPUs are numbered by the caller. Kind H answers 0 or a negative errno unless a method
 * says more.
 *
 * self is what create returned.
 */
struct snp_guest_request_driver {
	/* SNP_GUEST_REQUEST_ABI of the header that the library was compiled with. */
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
	void *(*create)(const struct snp_guest_request_env *env, void *world);

	/* The driver goes, in whatever state it is: free its memory. No environment call may be made. */
	void (*destroy)(void *self);

	/* Make an empty VM of kind SEV, SEV_ES or SNP. */
	int (*vm_create)(void *self, int vm, int kind);

	/*
	 * Make it a protected VM: take what requests need, initialise its lock. Once; a second time
	 * is an error.
	 */
	int (*sev_init)(void *self, int vm);

	/*
	 * Create the guest context and bind it; fd is the file of the secure processor to keep.
	 *
	 * Bit 17 of a valid policy is 1; bit 20 and those above 25 are 0 in the policies asked for
	 * here. What fails gives everything back, and a VM that is not initialised, or not SNP, is
	 * refused.
	 */
	int (*launch_start)(void *self, int vm, int fd, u64 policy);

	/* Let the guest run; an error where the launch was not started, or is finished. */
	int (*launch_finish)(void *self, int vm);

	/* Fetch certificates from userspace from now on (certs=userspace). */
	int (*enable_req_certs)(void *self, int vm);

	/* Attribute query: 1 when enable_req_certs exists and SNP is on (certs=userspace). */
	int (*has_req_certs)(void *self);

	/*
	 * Install the VM's own certificates from user memory; length 0 removes them (certs=kernel).
	 * -ENOTTY where the VM is not SNP, -EINVAL without a guest context and above 0x4000 bytes,
	 * -EFAULT, -ENOMEM.
	 */
	int (*set_instance_certs)(void *self, int vm, u64 user, u64 length);

	/*
	 * Copy the VM's own certificates to user memory: result and length needed (certs=kernel).
	 * -ENOTTY and -EINVAL as above, -ENOENT where there are none, -EINVAL with the length where it is
	 * too small.
	 */
	int (*get_instance_certs)(void *self, int vm, u64 user, u64 length, u64 *needed);

	/*
	 * Set the reported TCB unless tcb is 0, and the host's certificates; user 0 removes them
	 * (certs=kernel).
	 */
	int (*host_set_ext_config)(void *self, u64 tcb, u64 user, u64 length, int writable);

	/* Copy the host's certificates to user memory: result and length needed (certs=kernel). */
	int (*host_get_ext_config)(void *self, u64 user, u64 length, u64 *needed);

	/* Add a vCPU; it exits through the GHCB. */
	int (*vcpu_create)(void *self, int vcpu, int vm);

	/*
	 * The guest registers its GHCB page by the MSR protocol; the page that it registered last
	 * counts.
	 */
	int (*ghcb_register)(void *self, int vcpu, u64 gpa);

	/*
	 * Handle an exit whose GHCB is at gpa: RESUME, EXIT with the run structure filled, or
	 * -errno.
	 *
	 * The answer is stored by ghcb_leave at the latest, with the valid bits of its fields;
	 * those of the input may be cleared. A guest whose GHCB cannot be mapped may be resumed
	 * with nothing written.
	 */
	int (*vmgexit)(void *self, int vcpu, u64 gpa);

	/*
	 * Continue after EXIT; userspace has answered in the run structure. Results as for vmgexit.
	 */
	int (*vcpu_continue)(void *self, int vcpu);

	/*
	 * The vCPU is about to enter the guest, failed with an errno, or is freed: give registers
	 * and GHCB back.
	 */
	int (*ghcb_leave)(void *self, int vcpu);

	/*
	 * Give the guest context up.
	 *
	 * 0 where there is none. When firmware refuses, its errno: the context is then leaked and
	 * never used again, or kept, to be tried again when the VM goes.
	 */
	int (*decommission)(void *self, int vm);

	/* Free what is left of the VM; its vCPUs are gone. */
	int (*vm_destroy)(void *self, int vm);

	/* Move a running VM into an empty one on the same host. */
	int (*vm_move_from)(void *self, int dst, int src);

	/* Let an empty VM share the encryption context of another. */
	int (*vm_mirror_from)(void *self, int dst, int src);

	/* SNP is shut down on the whole host; it is initialised again before the next VM. */
	int (*snp_shutdown)(void *self);

	/*
	 * Kind G: start using key vmpck of the secrets page; an errno where there is none, or it is
	 * zeros.
	 */
	int (*open)(void *self, int vmpck);

	/*
	 * Kind G: result, exitinfo2 for the caller, and the decrypted answer (0x4C0 bytes) or b"".
	 *
	 * exitinfo2 is what the host answered in SW_EXITINFO2; free where nothing was sent, or
	 * nothing came of it.
	 */
	int (*get_report)(void *self, const u8 *data, size_t data_len, int vmpl, u64 *exitinfo2,
		      u8 *answer, size_t *answer_len);

	/* Kind G: result, exitinfo2, and the decrypted answer (0x40 bytes) or b"". */
	int (*get_derived_key)(void *self, u64 fields, int vmpl, u32 svn, u64 tcb, u64 *exitinfo2,
		      u8 *answer, size_t *answer_len);

	/*
	 * Kind G: result, exitinfo2, answer, certificate buffer, and length needed.
	 *
	 * address is 0 when the caller gives no buffer for certificates; the buffer is then b"".
	 * The length needed is 0 where nothing was too small.
	 */
	int (*get_ext_report)(void *self, const u8 *data, size_t data_len, int vmpl, u64 certs_len,
		      u64 address, u64 *exitinfo2, u8 *answer, size_t *answer_len, u8 *table,
		      size_t *table_len, u64 *needed);

	/* Kind G: stop, and give the shared pages back. */
	int (*close)(void *self);

	/*
	 * Result, and each certificate of the table by its GUID, in the table's order.
	 *
	 * A table with a bad entry gives an errno and (), or 0 and those before it; never 0 and ()
	 * as an empty one does.
	 */
	int (*parse_certs)(void *self, const u8 *table, size_t table_len,
		      struct snp_guest_request_cert *certs, size_t *certs_len);
};

/* What the library exports. */
extern const struct snp_guest_request_driver snp_guest_request_driver;

#endif
