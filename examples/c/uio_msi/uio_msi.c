// SPDX-License-Identifier: Apache-2.0
/*
 * uio_msi: ties the MSI-X vectors of a PCI function, or its INTx, to eventfds of a user process.
 *
 * Callbacks and remove exclude one another by a mutex of the module, and a callback that comes too
 * late finds its device on no list. -DDEFECT=n makes it wrong in one of the ways of DEFECTS below.
 */
#include <linux/eventfd.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio_driver.h>

#define DRIVER_VERSION "1.0"
#define MAX_VECTORS 64

/*
 * DEFECTS, by their number; those with an id are the zoo's.
 *  1  UIO-D01   a failed open is counted
 *  2  UIO-D05   probe in INTx mode dereferences NULL
 *  3  UIO-D07   the last release in INTx mode dereferences NULL
 *  4  UIO-U16   the range check of vectors overflows: an access out of bounds
 *  5  UIO-U14   an eventfd is dropped under the INTx handler: a race of two threads
 *  6  UIO-U13   open looks at the count before it takes the mutex: a race of two threads
 *  7  UIO-D19   a bad fd loses the old mapping
 *  8  UIO-D16   the mutex is freed with the device, and used after that
 *  9            remove frees a vector's context before its handler: use after free
 * 10            the error path of probe frees the contexts twice
 * 11            names are written behind the end of their allocation
 */
#ifndef DEFECT
#define DEFECT 0
#endif

struct uio_msi_irq_set {
	u32 vec;
	s32 fd;
};

struct uio_msi_context {
	struct uio_msi_device *dev;
	struct eventfd_ctx *trigger;	/* NULL while nobody is told */
	char *name;
};

struct uio_msi_device {
	struct uio_info info;
	struct list_head node;		/* of uio_msi_devices while bound */
	struct pci_dev *pdev;
	struct mutex lock;		/* of defect 8 alone */
	struct msix_entry msix[MAX_VECTORS];
	struct uio_msi_context *contexts;
	unsigned int open_count;
	unsigned int max_vectors;
	bool have_msix;
	bool enabled;			/* the irq numbers of msix[] are good */
	bool was_masked;		/* INTx, when we found it */
	char names[PCI_BARS][8];
};

static DEFINE_MUTEX(uio_msi_mutex);
static LIST_HEAD(uio_msi_devices);

/* The device that a callback is for, or NULL if remove was faster. info may be gone then. */
static struct uio_msi_device *uio_msi_find(struct uio_info *info)
{
	struct uio_msi_device *dev;

	list_for_each_entry(dev, &uio_msi_devices, node)
		if (&dev->info == info)
			return dev;
	return NULL;
}

/* -- interrupts -- */

static irqreturn_t uio_msi_handler(int irq, void *arg)
{
	struct uio_msi_context *context = arg;

	(void)irq;
	eventfd_signal(context->trigger, 1);
	return IRQ_HANDLED;
}

static irqreturn_t uio_intx_handler(int irq, void *arg)
{
	struct uio_msi_context *context = arg;
	struct pci_dev *pdev = context->dev->pdev;
	u16 command;

	(void)irq;
	/* While the bit is set it is another function that asserts the line. */
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	if (command & PCI_COMMAND_INTX_DISABLE || !pci_check_and_mask_intx(pdev))
		return IRQ_NONE;
	eventfd_signal(context->trigger, 1);
	return IRQ_HANDLED;
}

static unsigned int uio_msi_irq(struct uio_msi_device *dev, unsigned int vec)
{
	return dev->have_msix ? dev->msix[vec].vector : dev->pdev->irq;
}

static void uio_msi_detach(struct uio_msi_device *dev, unsigned int vec)
{
	struct uio_msi_context *context = &dev->contexts[vec];

	if (!dev->have_msix)	/* from here on nobody serves the line */
		pci_intx(dev->pdev, 0);
	free_irq(uio_msi_irq(dev, vec), context);
	eventfd_ctx_put(context->trigger);
	context->trigger = NULL;
}

/* Take the old handler away, install the new one; put the old one back when that is refused. */
static int uio_msi_attach(struct uio_msi_device *dev, unsigned int vec, struct eventfd_ctx *trigger)
{
	struct uio_msi_context *context = &dev->contexts[vec];
	struct eventfd_ctx *old = context->trigger;
	unsigned int irq = uio_msi_irq(dev, vec);
	struct msi_msg msg;
	int err;

	if (old)
		free_irq(irq, context);

	/* A reset may have cleared the table, and the handler may run before request_irq returns. */
	get_cached_msi_msg(irq, &msg);
	pci_write_msi_msg(irq, &msg);
	context->trigger = trigger;
	err = request_irq(irq, uio_msi_handler, 0, context->name, context);
	if (!err) {
		if (old)
			eventfd_ctx_put(old);
		return 0;
	}
	eventfd_ctx_put(trigger);
	context->trigger = old;
	if (old && request_irq(irq, uio_msi_handler, 0, context->name, context)) {
		context->trigger = NULL;
		eventfd_ctx_put(old);
	}
	return err;
}

/* Swap the eventfd under the handler, or install it; then unmask. */
static int uio_intx_attach(struct uio_msi_device *dev, struct eventfd_ctx *trigger)
{
	struct uio_msi_context *context = &dev->contexts[0];
	struct eventfd_ctx *old = context->trigger;
	int err = 0;

	if (DEFECT == 5 && old) {
		eventfd_ctx_put(old);
		context->trigger = trigger;
		pci_intx(dev->pdev, 1);
		return 0;
	}
	context->trigger = trigger;
	if (old) {
		synchronize_irq(dev->pdev->irq);
		eventfd_ctx_put(old);
	}

	/* Before request_irq, inside which a level that is up already signals. */
	pci_intx(dev->pdev, 1);
	if (!old)
		err = request_irq(dev->pdev->irq, uio_intx_handler, IRQF_SHARED, context->name, context);
	if (err) {
		pci_intx(dev->pdev, 0);
		context->trigger = NULL;
		eventfd_ctx_put(trigger);
	}
	return err;
}

static int uio_msi_set(struct uio_msi_device *dev, unsigned int vec, s32 fd)
{
	struct eventfd_ctx *trigger;

	if (DEFECT == 4 ? (s32)vec >= (s32)dev->max_vectors : vec >= dev->max_vectors) {
		dev_err_ratelimited(&dev->pdev->dev, "no vector %u\n", vec);
		return -ERANGE;
	}
	if (fd < 0) {
		if (dev->contexts[(s32)vec].trigger)
			uio_msi_detach(dev, vec);
		return 0;
	}
	if (!dev->enabled)
		return -EIO;
	if (DEFECT == 7 && dev->contexts[vec].trigger)
		uio_msi_detach(dev, vec);
	trigger = eventfd_ctx_fdget(fd);
	if (IS_ERR(trigger))
		return PTR_ERR(trigger);
	return dev->have_msix ? uio_msi_attach(dev, vec, trigger) : uio_intx_attach(dev, trigger);
}

/* -- open and release -- */

static int uio_msi_enable(struct uio_msi_device *dev)
{
	unsigned int vec;
	int err;

	pci_set_master(dev->pdev);
	if (dev->have_msix) {
		for (vec = 0; vec < dev->max_vectors; vec++)
			dev->msix[vec].entry = vec;
		err = pci_enable_msix(dev->pdev, dev->msix, dev->max_vectors);
		if (err) {
			pci_clear_master(dev->pdev);
			return err < 0 ? err : -ENOSPC;
		}
	} else {
		/* Nobody serves the shared line until the first set. */
		pci_intx(dev->pdev, 0);
	}
	dev->enabled = true;
	return 0;
}

static void uio_msi_disable(struct uio_msi_device *dev)
{
	struct msix_entry *entries = dev->have_msix || DEFECT != 3 ? dev->msix : NULL;
	unsigned int vec;

	for (vec = 0; vec < dev->max_vectors; vec++) {
		if (READ_ONCE(entries[vec].entry) > MAX_VECTORS)
			continue;
		if (dev->contexts[vec].trigger)
			uio_msi_detach(dev, vec);
	}
	if (dev->have_msix)
		pci_disable_msix(dev->pdev);
	dev->enabled = false;
	dev->open_count = 0;
	pci_clear_master(dev->pdev);
}

static int uio_msi_open(struct uio_info *info, struct inode *inode)
{
	struct uio_msi_device *dev = uio_msi_find(info);
	bool first = !dev || !dev->open_count;
	int err = -ENODEV;

	(void)inode;
	if (DEFECT != 6 && !capable(CAP_SYS_RAWIO))
		return -EPERM;
	mutex_lock(&uio_msi_mutex);
	dev = uio_msi_find(info);
	if (dev && DEFECT != 6)
		first = !dev->open_count;
	if (dev && DEFECT == 1)
		dev->open_count++;
	if (dev) {
		err = first ? uio_msi_enable(dev) : 0;
		if (!err && DEFECT != 1)
			dev->open_count++;
	}
	mutex_unlock(&uio_msi_mutex);
	return err;
}

static int uio_msi_release(struct uio_info *info, struct inode *inode)
{
	struct uio_msi_device *dev;

	(void)inode;
	mutex_lock(&uio_msi_mutex);
	dev = uio_msi_find(info);
	if (dev && !--dev->open_count)
		uio_msi_disable(dev);
	mutex_unlock(&uio_msi_mutex);
	return 0;
}

/* -- ioctl and write -- */

static int uio_msi_ioctl(struct uio_info *info, unsigned int cmd, unsigned long arg)
{
	/* Where a device is that is not on the list any more: what defect 8 trusts. */
	struct uio_msi_device *stale = container_of(info, struct uio_msi_device, info);
	struct uio_msi_device *dev;
	struct uio_msi_irq_set set;
	int err = -ENODEV;

	if (cmd != UIO_MSI_IRQ_SET)
		return -ENOTTY;
	if (copy_from_user(&set, (void __user *)arg, sizeof(set)))
		return -EFAULT;
	if (DEFECT == 8)
		mutex_lock(&stale->lock);
	mutex_lock(&uio_msi_mutex);
	dev = uio_msi_find(info);
	if (dev)
		err = uio_msi_set(dev, set.vec, set.fd);
	mutex_unlock(&uio_msi_mutex);
	if (DEFECT == 8)
		mutex_unlock(&stale->lock);
	return err;
}

static int uio_msi_irqcontrol(struct uio_info *info, s32 on)
{
	struct uio_msi_device *dev;
	int err = -ENODEV;

	mutex_lock(&uio_msi_mutex);
	dev = uio_msi_find(info);
	if (dev && dev->open_count) {
		if (!dev->have_msix && dev->contexts[0].trigger)
			pci_intx(dev->pdev, on != 0);
		err = 0;
	}
	mutex_unlock(&uio_msi_mutex);
	return err;
}

/* -- probe and remove -- */

static void uio_msi_free_contexts(struct uio_msi_device *dev)
{
	unsigned int vec;

	for (vec = dev->max_vectors; vec-- > 0;)
		if (dev->contexts[vec].name)
			kfree(dev->contexts[vec].name);
	kfree(dev->contexts);
}

static int uio_msi_alloc_contexts(struct uio_msi_device *dev)
{
	struct msix_entry *entries = dev->have_msix || DEFECT != 2 ? dev->msix : NULL;
	unsigned int vec;

	for (vec = 0; vec < dev->max_vectors; vec++)
		WRITE_ONCE(entries[vec].entry, vec);
	dev->contexts = kcalloc(dev->max_vectors, sizeof(*dev->contexts), GFP_KERNEL);
	if (!dev->contexts)
		return -ENOMEM;
	for (vec = 0; vec < dev->max_vectors; vec++) {
		struct uio_msi_context *context = &dev->contexts[vec];

		context->dev = dev;
		context->name = kasprintf(GFP_KERNEL, "uio_msi[%u](%s)", vec, pci_name(dev->pdev));
		if (!context->name) {
			uio_msi_free_contexts(dev);
			if (DEFECT == 10)
				kfree(dev->contexts);
			return -ENOMEM;
		}
		if (DEFECT == 11)
			context->name[strlen(context->name) + 1] = '\0';
	}
	return 0;
}

/* Try one vector: a bus or a host may forbid what the capability promises. */
static bool uio_msi_works(struct pci_dev *pdev)
{
	if (pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_MSIX) < 0)
		return false;
	pci_free_irq_vectors(pdev);
	return true;
}

/* Choose the mode and allocate its tables. */
static int uio_msi_set_up(struct uio_msi_device *dev)
{
	struct pci_dev *pdev = dev->pdev;
	u16 command;
	int count;

	pci_read_config_word(pdev, PCI_COMMAND, &command);
	dev->was_masked = command & PCI_COMMAND_INTX_DISABLE;
	count = pci_msix_vec_count(pdev);
	dev->have_msix = count > 0 && uio_msi_works(pdev);
	if (dev->have_msix)
		dev->max_vectors = min(count, MAX_VECTORS);
	else if (pdev->irq && pdev->irq != IRQ_NOTCONNECTED && pci_intx_mask_supported(pdev))
		dev->max_vectors = 1;
	else
		return -EINVAL;
	return uio_msi_alloc_contexts(dev);
}

/* BARs in which the MSI-X table and the pending bits lie, as bits. */
static unsigned int uio_msi_table_bars(struct pci_dev *pdev)
{
	int cap = pci_find_capability(pdev, PCI_CAP_ID_MSIX);
	u32 table, pba;

	if (!cap)
		return 0;
	pci_read_config_dword(pdev, cap + PCI_MSIX_TABLE, &table);
	pci_read_config_dword(pdev, cap + PCI_MSIX_PBA, &pba);
	return 1u << (table & PCI_MSIX_BIR) | 1u << (pba & PCI_MSIX_BIR);
}

/* Memory BARs in pages, those that share none with the MSI-X table; ports as they are. */
static void uio_msi_set_maps(struct uio_msi_device *dev)
{
	u64 start[PCI_BARS] = { 0 }, end[PCI_BARS] = { 0 };
	unsigned int bar, other, maps = 0, ports = 0, private;
	struct pci_dev *pdev = dev->pdev;
	bool is_memory[PCI_BARS] = { false };

	for (bar = 0; bar < PCI_BARS; bar++) {
		unsigned long flags = pci_resource_flags(pdev, bar);

		if (!flags)
			continue;
		start[bar] = pci_resource_start(pdev, bar);
		end[bar] = start[bar] + pci_resource_len(pdev, bar);
		is_memory[bar] = flags & IORESOURCE_MEM && start[bar] && end[bar] > start[bar];
		memcpy(dev->names[bar], "BAR0", 5);
		dev->names[bar][3] += bar;
		if (flags & IORESOURCE_IO && start[bar] && end[bar] > start[bar] && ports < MAX_UIO_PORT_REGIONS)
			dev->info.port[ports++] = (struct uio_port){
				.name = dev->names[bar],
				.start = start[bar],
				.size = end[bar] - start[bar],
				.porttype = UIO_PORT_X86,
			};
	}
	private = uio_msi_table_bars(pdev);
	for (bar = 0; bar < PCI_BARS; bar++) {
		u64 first = start[bar] & PAGE_MASK, last = PAGE_ALIGN(end[bar]);
		bool shared = !is_memory[bar];

		for (other = 0; other < PCI_BARS; other++)
			if (is_memory[other] && private & 1u << other && first < PAGE_ALIGN(end[other]) &&
			    (start[other] & PAGE_MASK) < last)
				shared = true;
		if (!shared && maps < MAX_UIO_MAPS)
			dev->info.mem[maps++] = (struct uio_mem){
				.name = dev->names[bar],
				.addr = first,
				.offs = start[bar] - first,
				.size = last - first,
				.memtype = UIO_MEM_PHYS,
			};
	}
}

static int uio_msi_register(struct uio_msi_device *dev)
{
	int err;

	dev->info.name = "uio_msi";
	dev->info.version = DRIVER_VERSION;
	dev->info.irq = UIO_IRQ_CUSTOM;
	dev->info.open = uio_msi_open;
	dev->info.release = uio_msi_release;
	dev->info.ioctl = uio_msi_ioctl;
	dev->info.irqcontrol = uio_msi_irqcontrol;

	/* An open may follow before uio_register_device returns. */
	pci_set_drvdata(dev->pdev, dev);
	list_add(&dev->node, &uio_msi_devices);
	uio_msi_set_maps(dev);
	err = uio_register_device(&dev->pdev->dev, &dev->info);
	if (err) {
		list_del(&dev->node);
		pci_set_drvdata(dev->pdev, NULL);
	}
	return err;
}

static int uio_msi_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct uio_msi_device *dev;
	int err;

	(void)id;
	if ((pdev->hdr_type & 0x7f) != PCI_HEADER_TYPE_NORMAL)
		return -ENODEV;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	dev->pdev = pdev;
	err = pci_enable_device(pdev);
	if (err)
		goto free_device;
	err = pci_request_regions(pdev, "uio_msi");
	if (err)
		goto disable_device;
	err = uio_msi_set_up(dev);
	if (err)
		goto release_regions;
	if (DEFECT == 8)
		mutex_init(&dev->lock);
	err = uio_msi_register(dev);
	if (err)
		goto free_contexts;
	return 0;

free_contexts:
	uio_msi_free_contexts(dev);
release_regions:
	pci_release_regions(pdev);
disable_device:
	pci_disable_device(pdev);
free_device:
	kfree(dev);
	return err;
}

/* The core will not call release any more, so whatever is mapped goes now. */
static void uio_msi_remove(struct pci_dev *pdev)
{
	struct uio_msi_device *dev = pci_get_drvdata(pdev);

	if (DEFECT == 9)
		kfree(dev->contexts);
	mutex_lock(&uio_msi_mutex);
	if (dev->open_count)
		uio_msi_disable(dev);
	list_del(&dev->node);
	mutex_unlock(&uio_msi_mutex);
	uio_unregister_device(&dev->info);
	if (!dev->have_msix)
		pci_intx(pdev, !dev->was_masked);
	if (DEFECT != 9)
		uio_msi_free_contexts(dev);
	pci_set_drvdata(pdev, NULL);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
	kfree(dev);
}

static const struct pci_device_id uio_msi_ids[] = { { 0, 0 } };

static struct pci_driver uio_msi_pci_driver = {
	.name = "uio_msi",
	.id_table = uio_msi_ids,
	.probe = uio_msi_probe,
	.remove = uio_msi_remove,
};

module_pci_driver(uio_msi_pci_driver);
MODULE_LICENSE("GPL v2");
MODULE_DESCRIPTION("MSI-X vectors of a PCI function as eventfds");
