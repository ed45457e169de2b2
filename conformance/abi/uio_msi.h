/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C ABI of uio_msi: what a library exports, and what it may call.
 *
 * A library that defines
 *
 *	const struct uio_msi_driver uio_msi_driver = { .abi_version = UIO_MSI_ABI, ... };
 *
 * is tested by --candidate lib:PATH.so. docs/c.md says how one is written; types.h what holds for
 * all five subsystems: ownership, lengths, errors, threads.
 *
 * Capabilities, each with the entry points that it needs:
 *   intx: binds functions without MSI-X and serves their INTx as vector 0.
 *   compat: has an entry point for 32-bit callers. Needs compat_ioctl.
 *   irqcontrol: registers irqcontrol, so that write() of 1 unmasks INTx. Needs irqcontrol.
 *   core-4.1: survives callbacks that race with remove, and a release after it, as with the UIO
 *       core of Linux 4.1.
 */
#ifndef CONFORMANCE_UIO_MSI_H
#define CONFORMANCE_UIO_MSI_H

#include "types.h"

/* Counted up when an entry point or an environment call is added, goes or changes. */
#define UIO_MSI_ABI 1

/* One entry of mem[] as registered. */
struct uio_msi_map {
	const char *name;
	u64 addr;	/* physical address of the first page */
	u64 offs;	/* bytes from there to the first byte that is meant */
	u64 size;	/* bytes, whole pages */
	int memtype;	/* UIO_MEM_PHYS */
};

/* One entry of port[] as registered. */
struct uio_msi_port {
	const char *name;
	u64 start;	/* first port */
	u64 size;	/* number of ports */
	int porttype;	/* UIO_PORT_X86 */
};

/*
 * What the driver may call: the kernel and the device behind it.
 *
 * Pointers are opaque ints, NULL is 0. What lives in memory of the driver (a mutex, a dev_id) is
 * named by an address in an allocation of kzalloc or kcalloc: its token plus an offset; addresses
 * below 0x1000 stand for static data of the module, which all functions that it drives share. A
 * dev_id may also be an eventfd's context. Nothing here must be called that a driver can do
 * without: neither regions nor ioremap nor names are needed for what it does.
 *
 * The table is valid as long as the library is loaded; world is what create was given.
 */
struct uio_msi_env {
	/* Power the function up. 0 or a negative errno. */
	int (*pci_enable_device)(void *world);

	/*
	 * Undo one pci_enable_device; the last one turns bus mastering off. No action, no MSI-X may
	 * be left.
	 */
	void (*pci_disable_device)(void *world);

	/* Claim all BARs. 0 or -EBUSY. */
	int (*pci_request_regions)(void *world, const char *name);

	/* Give the BARs back. */
	void (*pci_release_regions)(void *world);

	/* Let the function do DMA, and so send MSI-X messages. */
	void (*pci_set_master)(void *world);

	/* Stop the function's DMA. */
	void (*pci_clear_master)(void *world);

	/* Bus address of BAR bar (0 to 5), 0 if there is none. */
	u64 (*pci_resource_start)(void *world, int bar);

	/* Bytes of BAR bar, 0 if there is none or it is the upper half of a 64-bit one. */
	u64 (*pci_resource_len)(void *world, int bar);

	/* IORESOURCE_MEM or IORESOURCE_IO, 0 if there is none. */
	u64 (*pci_resource_flags)(void *world, int bar);

	/* Offset of capability cap in config space, 0 if there is none. */
	int (*pci_find_capability)(void *world, int cap);

	/* size (1, 2 or 4) bytes of config space at where, little endian. */
	u32 (*pci_read_config)(void *world, int where, int size);

	/*
	 * Write config space. The command register only under pci_cfg_access_lock (pci_intx needs
	 * no such lock).
	 */
	void (*pci_write_config)(void *world, int where, int size, u32 value);

	/* Keep user space, and others who hold it, out of config space; may sleep. */
	void (*pci_cfg_access_lock)(void *world);

	/* End of pci_cfg_access_lock. */
	void (*pci_cfg_access_unlock)(void *world);

	/* Reset the function. 0 or a negative errno. */
	int (*pci_reset_function)(void *world);

	/* Size of the MSI-X table, or -EINVAL without MSI-X. */
	int (*pci_msix_vec_count)(void *world);

	/*
	 * Enable MSI-X with these table entries. 0; a negative errno; or k > 0: nothing done, k
	 * could be had.
	 *
	 * All vectors are masked until their first request_irq. pci_irq_vector gives the irq
	 * numbers, which are others at every enabling: one that was a vector's may be another
	 * vector's now, or another device's. INTx is disabled meanwhile: this sets the disable bit,
	 * and disabling MSI-X clears it, whatever it was before.
	 */
	int (*pci_enable_msix)(void *world, const u32 *entries, size_t entries_len);

	/* Enable between minvec and maxvec vectors. How many, or a negative errno (-ENOSPC). */
	int (*pci_enable_msix_range)(void *world, const u32 *entries, size_t entries_len,
		      int minvec, int maxvec);

	/*
	 * Disable MSI-X and give the irq numbers back; no vector may have an action. No-op while
	 * disabled.
	 */
	void (*pci_disable_msix)(void *world);

	/* pci_enable_msix_range over entries 0 and up (PCI_IRQ_MSIX). */
	int (*pci_alloc_irq_vectors)(void *world, int min_vecs, int max_vecs);

	/* Same as pci_disable_msix. */
	void (*pci_free_irq_vectors)(void *world);

	/*
	 * The irq number of the nr-th enabled vector; -EINVAL while MSI-X is off or out of range.
	 */
	int (*pci_irq_vector)(void *world, u32 nr);

	/* Write the cached message (get_cached_msi_msg) of irq into its table entry again. */
	void (*pci_write_msi_msg)(void *world, u32 irq);

	/* 1 if the disable bit of the command register works, else 0. */
	int (*pci_intx_mask_supported)(void *world);

	/*
	 * If the function asserts INTx: set the disable bit, set already or not, and return 1; else
	 * 0.
	 *
	 * On a shared line a handler that is called while the bit is set was not called for this
	 * function; only the command register says so, since user space may write it as well.
	 */
	int (*pci_check_and_mask_intx)(void *world);

	/*
	 * If the function asserts INTx: leave the disable bit and return 0; else clear it and
	 * return 1.
	 */
	int (*pci_check_and_unmask_intx)(void *world);

	/* Clear (1) or set (0) the disable bit. */
	void (*pci_intx)(void *world, int enable);

	/* Remember one pointer with the device. */
	void (*pci_set_drvdata)(void *world, u64 data);

	/* The pointer remembered; NULL after remove and after a failed probe. */
	u64 (*pci_get_drvdata)(void *world);

	/* Map device memory. A token, or NULL. */
	u64 (*ioremap)(void *world, u64 addr, u64 size);

	/* Unmap; each token once. */
	void (*iounmap)(void *world, u64 token);

	/* Allocate. A token, or NULL. */
	u64 (*kzalloc)(void *world, size_t size);

	/* Allocate an array. A token, or NULL. */
	u64 (*kcalloc)(void *world, size_t n, size_t size);

	/* Allocate a string. A token, or NULL. */
	u64 (*kasprintf)(void *world, const char *text);

	/* Free what kzalloc, kcalloc or kasprintf gave; NULL is fine. */
	void (*kfree)(void *world, u64 token);

	/*
	 * Fetch n bytes at user address src: what could be copied, shorter than n where it faults.
	 */
	void (*copy_from_user)(void *world, u64 src, size_t n, u8 *data, size_t *data_len);

	/* 1 if the calling process has the capability, else 0. */
	int (*capable)(void *world, int cap);

	/*
	 * Install Candidate.handler. 0 or a negative errno. The handler may run before this
	 * returns.
	 *
	 * name is a token of kasprintf, referenced until free_irq, or 0 for a constant string.
	 * dev_id is handed to the handler. With IRQF_SHARED it is not NULL and the function's own
	 * on that line; with MSI-X several vectors may have the same. IRQ_NOTCONNECTED is answered
	 * with -ENOTCONN.
	 */
	int (*request_irq)(void *world, u32 irq, u64 flags, u64 name, u64 dev_id);

	/* Remove the action of exactly this dev_id, and wait for its running handlers. */
	void (*free_irq)(void *world, u32 irq, u64 dev_id);

	/* Wait for running handlers of irq. */
	void (*synchronize_irq)(void *world, u32 irq);

	/*
	 * A counted reference to the eventfd that fd names in the calling process, or -EBADF,
	 * -EINVAL.
	 */
	s64 (*eventfd_ctx_fdget)(void *world, s32 fd);

	/* Drop one reference. */
	void (*eventfd_ctx_put)(void *world, u64 ctx);

	/*
	 * Add 1 to the counter; never sleeps, and may be called by a process as well as by a
	 * handler.
	 */
	void (*eventfd_signal)(void *world, u64 ctx);

	/* Initialise the mutex at this address; static ones need no initialisation. */
	void (*mutex_init)(void *world, u64 mutex);

	/* Take the mutex; may sleep. */
	void (*mutex_lock)(void *world, u64 mutex);

	/* Release the mutex that this thread holds. */
	void (*mutex_unlock)(void *world, u64 mutex);

	/* Take a spinlock; atomic context until it is released. */
	void (*spin_lock_irqsave)(void *world, u64 lock);

	/* Release a spinlock. */
	void (*spin_unlock_irqrestore)(void *world, u64 lock);

	/*
	 * Make /dev/uioN appear; opens may follow at once. 0 or a negative errno.
	 *
	 * name and version are any but empty. irq is UIO_IRQ_CUSTOM for a driver that requests its
	 * irqs itself; with UIO_IRQ_NONE nobody can write to the device, and with a number the core
	 * requests that line and calls a handler of its own, which there is none of here.
	 * irqcontrol says whether the driver has that callback. Entries of mem are (name, addr,
	 * offs, size, memtype), of port (name, start, size, porttype); the pieces of a BAR that is
	 * split around the MSI-X table all bear its name.
	 */
	int (*uio_register_device)(void *world, const char *name, const char *version, s64 irq,
		      bool irqcontrol, const struct uio_msi_map *mem, size_t mem_len,
		      const struct uio_msi_port *port, size_t port_len);

	/*
	 * Make /dev/uioN disappear; with the 6.x core no callback is running or called after this.
	 */
	void (*uio_unregister_device)(void *world);

	/* Wake the readers of /dev/uioN. */
	void (*uio_event_notify)(void *world);

	/* Print a line. */
	void (*dev_err)(void *world, const char *text);

	/* Print a line. */
	void (*dev_warn)(void *world, const char *text);

	/* Print a line. */
	void (*dev_info)(void *world, const char *text);

	/* Print a line unless ten were printed lately. */
	void (*dev_err_ratelimited)(void *world, const char *text);
};

/*
 * A driver: what the harness calls. It is given the Port when it is created.
 *
 * One object lives through any number of bindings of one device, like a loaded module. What a
 * driver must do that no call asks for stands in docs/uio_msi.md.
 *
 * self is what create returned.
 */
struct uio_msi_driver {
	/* UIO_MSI_ABI of the header that the library was compiled with. */
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
	void *(*create)(const struct uio_msi_env *env, void *world);

	/* The driver goes, in whatever state it is: free its memory. No environment call may be made. */
	void (*destroy)(void *self);

	/*
	 * Bind the device; irq, hdr_type and is_virtfn as in struct pci_dev. 0 or a negative errno.
	 *
	 * irq is the function's INTx line, 0 or IRQ_NOTCONNECTED (0x80000000) where its pin leads
	 * nowhere; it is 0 for a VF, and may be any of these beside MSI-X. hdr_type is without the
	 * multi-function bit.
	 */
	int (*probe)(void *self, u32 irq, u8 hdr_type, bool is_virtfn);

	/* Unbind the device; there may be open handles. */
	void (*remove)(void *self);

	/*
	 * A handle of /dev/uioN was opened. 0, or a negative errno and the handle does not exist.
	 *
	 * The one place to ask capable; who lacks it gets -EPERM or -EACCES.
	 */
	int (*open)(void *self);

	/* A handle was closed. 0. */
	int (*release)(void *self);

	/* Handle command cmd (32 bits) with the user pointer arg. 0 or a negative errno. */
	int (*ioctl)(void *self, u32 cmd, u64 arg);

	/* As ioctl, for a 32-bit caller; arg is converted already. Needs compat. */
	int (*compat_ioctl)(void *self, u32 cmd, u64 arg);

	/*
	 * User space wrote on to the device. 0 or a negative errno. Needs irqcontrol.
	 *
	 * With INTx mapped 0 masks and 1 unmasks, and both return 0; another number unmasks, or is
	 * refused and does nothing. With MSI-X, and while nothing is mapped, any answer will do,
	 * and nothing happens.
	 */
	int (*irqcontrol)(void *self, s32 on);

	/*
	 * The interrupt handler of every request_irq. IRQ_NONE or IRQ_HANDLED. Must not sleep.
	 *
	 * Where the kernel has a function for each, this is one for all: irq tells INTx from MSI-X.
	 * It may read config space, use the INTx calls below and take spinlocks.
	 */
	int (*handler)(void *self, u32 irq, u64 dev_id);
};

/* What the library exports. */
extern const struct uio_msi_driver uio_msi_driver;

#endif
