/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel as a UIO driver of a PCI function sees it, in front of uio_msi.h.
 *
 * Real driver source is compiled with -I conformance/abi/shim, where <linux/pci.h> and the others
 * lead here, together with shim_uio_msi.c and statics.c of this folder. Functions have the kernel's
 * names and arguments. Memory of kzalloc and its relatives is real, and is what the suite knows by
 * the address that its own kzalloc gave: it is poisoned when it is freed, and never used again.
 */
#ifndef CONFORMANCE_SHIM_UIO_MSI_H
#define CONFORMANCE_SHIM_UIO_MSI_H

#include "kernel.h"
#include "uio_msi.h"
#include "uio_msi_constants.h"

#define PAGE_MASK (~((u64)PAGE_SIZE - 1))
#define PAGE_ALIGN(x) (((u64)(x) + PAGE_SIZE - 1) & PAGE_MASK)

/* -- slab.h, string.h -- */

void *kzalloc(size_t size, gfp_t flags);
void *kcalloc(size_t n, size_t size, gfp_t flags);
/* As kzalloc, but what it holds is not zero. */
void *kmalloc(size_t size, gfp_t flags);
__attribute__((format(printf, 2, 3))) char *kasprintf(gfp_t flags, const char *format, ...);
void kfree(const void *pointer);

/* -- device.h -- */

struct device {
	void *driver_data;
};

const char *dev_name(const struct device *dev);
__attribute__((format(printf, 3, 4))) void shim_print(const struct device *dev, int level, const char *format, ...);
#define dev_err(dev, ...) shim_print(dev, 0, __VA_ARGS__)
#define dev_warn(dev, ...) shim_print(dev, 1, __VA_ARGS__)
#define dev_notice(dev, ...) shim_print(dev, 2, __VA_ARGS__)
#define dev_info(dev, ...) shim_print(dev, 2, __VA_ARGS__)
#define dev_dbg(dev, ...) ((void)(dev))
#define dev_err_ratelimited(dev, ...) shim_print(dev, 3, __VA_ARGS__)

/* -- pci.h, msi.h -- */

struct pci_device_id {
	u32 vendor, device;
};

struct pci_dev {
	unsigned int irq;
	u8 hdr_type;
	unsigned int is_virtfn : 1;
	struct device dev;
};

struct pci_driver {
	const char *name;
	const struct pci_device_id *id_table;
	int (*probe)(struct pci_dev *pdev, const struct pci_device_id *id);
	void (*remove)(struct pci_dev *pdev);
};

/* The one driver of a library. */
extern struct pci_driver *const shim_pci_driver;
#define module_pci_driver(driver) struct pci_driver *const shim_pci_driver = &(driver)

struct msix_entry {
	u32 vector;
	u16 entry;
};

#define PCI_IRQ_MSIX (1u << 2)
#ifndef PCI_HEADER_TYPE_NORMAL
#define PCI_HEADER_TYPE_NORMAL 0
#endif

int pci_enable_device(struct pci_dev *pdev);
void pci_disable_device(struct pci_dev *pdev);
int pci_request_regions(struct pci_dev *pdev, const char *name);
void pci_release_regions(struct pci_dev *pdev);
void pci_set_master(struct pci_dev *pdev);
void pci_clear_master(struct pci_dev *pdev);
resource_size_t pci_resource_start(struct pci_dev *pdev, int bar);
resource_size_t pci_resource_len(struct pci_dev *pdev, int bar);
unsigned long pci_resource_flags(struct pci_dev *pdev, int bar);
int pci_find_capability(struct pci_dev *pdev, int cap);
int pci_read_config_byte(struct pci_dev *pdev, int where, u8 *value);
int pci_read_config_word(struct pci_dev *pdev, int where, u16 *value);
int pci_read_config_dword(struct pci_dev *pdev, int where, u32 *value);
int pci_write_config_byte(struct pci_dev *pdev, int where, u8 value);
int pci_write_config_word(struct pci_dev *pdev, int where, u16 value);
int pci_write_config_dword(struct pci_dev *pdev, int where, u32 value);
void pci_cfg_access_lock(struct pci_dev *pdev);
void pci_cfg_access_unlock(struct pci_dev *pdev);
int pci_reset_function(struct pci_dev *pdev);
int pci_msix_vec_count(struct pci_dev *pdev);
int pci_enable_msix(struct pci_dev *pdev, struct msix_entry *entries, int nvec);
int pci_enable_msix_range(struct pci_dev *pdev, struct msix_entry *entries, int minvec, int maxvec);
int pci_enable_msix_exact(struct pci_dev *pdev, struct msix_entry *entries, int nvec);
void pci_disable_msix(struct pci_dev *pdev);
int pci_alloc_irq_vectors(struct pci_dev *pdev, unsigned int min_vecs, unsigned int max_vecs, unsigned int flags);
void pci_free_irq_vectors(struct pci_dev *pdev);
int pci_irq_vector(struct pci_dev *pdev, unsigned int nr);
bool pci_intx_mask_supported(struct pci_dev *pdev);
bool pci_check_and_mask_intx(struct pci_dev *pdev);
bool pci_check_and_unmask_intx(struct pci_dev *pdev);
void pci_intx(struct pci_dev *pdev, int enable);
void pci_set_drvdata(struct pci_dev *pdev, void *data);
void *pci_get_drvdata(struct pci_dev *pdev);
static inline const char *pci_name(const struct pci_dev *pdev)
{
	return dev_name(&pdev->dev);
}

struct msi_msg {
	u32 irq;
};

void get_cached_msi_msg(unsigned int irq, struct msi_msg *msg);
/* Writes the cached message only; the suite knows no other. */
void pci_write_msi_msg(unsigned int irq, struct msi_msg *msg);

/* -- io.h -- */

void __iomem *ioremap(resource_size_t addr, size_t size);
void iounmap(void __iomem *token);

/* -- interrupt.h -- */

typedef int irqreturn_t;
typedef irqreturn_t (*irq_handler_t)(int irq, void *dev_id);

int request_irq(unsigned int irq, irq_handler_t handler, unsigned long flags, const char *name, void *dev_id);
/* Returns the name that request_irq was given, as in the kernel. */
const void *free_irq(unsigned int irq, void *dev_id);
void synchronize_irq(unsigned int irq);

/* -- eventfd.h -- */

struct eventfd_ctx;

struct eventfd_ctx *eventfd_ctx_fdget(int fd);
void eventfd_ctx_put(struct eventfd_ctx *ctx);
void shim_eventfd_signal(struct eventfd_ctx *ctx);
/* Since 6.8 without a count, before that with one, which was always 1. */
#define eventfd_signal(ctx, ...) shim_eventfd_signal(ctx)

/* -- mutex.h, spinlock.h -- */

struct mutex {
	u64 unused;
};

typedef struct {
	u64 unused;
} spinlock_t;

#define __MUTEX_INITIALIZER(name) { 0 }
#define DEFINE_MUTEX(name) struct mutex name = { 0 }
#define DEFINE_SPINLOCK(name) spinlock_t name = { 0 }

void mutex_init(struct mutex *lock);
void mutex_lock(struct mutex *lock);
void mutex_unlock(struct mutex *lock);
#define mutex_destroy(lock) ((void)(lock))
#define spin_lock_init(lock) ((void)(lock))
void shim_spin_lock(spinlock_t *lock);
void shim_spin_unlock(spinlock_t *lock);
#define spin_lock_irqsave(lock, flags) ((flags) = 0, shim_spin_lock(lock))
#define spin_unlock_irqrestore(lock, flags) ((void)(flags), shim_spin_unlock(lock))
#define spin_lock(lock) shim_spin_lock(lock)
#define spin_unlock(lock) shim_spin_unlock(lock)
#define spin_lock_irq(lock) shim_spin_lock(lock)
#define spin_unlock_irq(lock) shim_spin_unlock(lock)

/* -- uaccess.h, capability.h -- */

unsigned long copy_from_user(void *to, const void __user *from, unsigned long n);
bool capable(int cap);

/* -- uio_driver.h, with the ioctl of the series that uio_msi was posted in -- */

struct uio_mem {
	const char *name;
	phys_addr_t addr;
	unsigned long offs;
	resource_size_t size;
	int memtype;
	void __iomem *internal_addr;
};

struct uio_port {
	const char *name;
	unsigned long start;
	unsigned long size;
	int porttype;
};

struct inode;

struct uio_info {
	const char *name;
	const char *version;
	struct uio_mem mem[MAX_UIO_MAPS];
	struct uio_port port[MAX_UIO_PORT_REGIONS];
	long irq;
	unsigned long irq_flags;
	void *priv;
	int (*irqcontrol)(struct uio_info *info, s32 irq_on);
	int (*open)(struct uio_info *info, struct inode *inode);
	int (*release)(struct uio_info *info, struct inode *inode);
	int (*ioctl)(struct uio_info *info, unsigned int cmd, unsigned long arg);
};

int uio_register_device(struct device *parent, struct uio_info *info);
void uio_unregister_device(struct uio_info *info);
void uio_event_notify(struct uio_info *info);

#endif
