/*
 * A UIO MSI-X driver that keeps every clause, as a process: the entry points of docs/uio_msi.md over wire.h.
 *
 * Callbacks and remove exclude one another by a mutex of the module, and a callback that comes too late finds the device
 * gone. `--defect ID` turns on one of three defects of the suite's zoo.
 */
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UIO_MSI_IRQ_SET 0x40084987
#define MAX_MSIX_VECTORS 64
#define MAX_UIO_MAPS 5
#define MAX_UIO_PORT_REGIONS 5
#define PCI_BARS 6
#define PAGE_SIZE 0x1000
#define UIO_IRQ_CUSTOM (-1)
#define UIO_MEM_PHYS 1
#define UIO_PORT_X86 1
#define IRQF_SHARED 0x80
#define IRQ_NOTCONNECTED 0x80000000
#define IRQ_NONE 0
#define IRQ_HANDLED 1
#define IORESOURCE_IO 0x100
#define IORESOURCE_MEM 0x200
#define CAP_SYS_RAWIO 17
#define PCI_COMMAND 0x04
#define PCI_COMMAND_INTX_DISABLE 0x0400
#define PCI_CAP_ID_MSIX 0x11
#define PCI_MSIX_TABLE 4
#define PCI_MSIX_PBA 8
#define PCI_MSIX_BIR 7

#define STATE_MUTEX INT64_C(0x100) /* static mutex of the module: it outlives the device */
#define SIZEOF_DEVICE INT64_C(0x400)
#define SIZEOF_CONTEXT 0x10

static enum { NONE, COUNT_LEAKS_ON_FAILED_OPEN, INTX_PROBE_WITHOUT_ENTRIES, NEVER_MASKS } defect;

struct bar {
	int number;
	int64_t flags, start, size;
};

struct uio_msi {
	int64_t device; /* its allocation, NULL while unbound */
	bool bound, msix, was_masked;
	int64_t irq;
	int open_count, max_vectors;
	bool switched_on;
	int64_t contexts; /* the context table: the dev_id of a vector is the address of its entry */
	int64_t names[MAX_MSIX_VECTORS];
	int64_t triggers[MAX_MSIX_VECTORS]; /* eventfd context by vector, 0 while it has none */
	int64_t irqs[MAX_MSIX_VECTORS];	    /* irq number by vector, of the current enabling */
};

/* -- What the kernel is asked for */

static int64_t kzalloc(int64_t size)
{
	return env("kzalloc", "i", size);
}

static void kfree(int64_t token)
{
	env("kfree", "i", token);
}

static int64_t read_config(int64_t where, int64_t size)
{
	return env("pci_read_config", "ii", where, size);
}

static void pci_intx(bool enable)
{
	env("pci_intx", "i", (int64_t)enable);
}

static void lock(void)
{
	env("mutex_lock", "i", STATE_MUTEX);
}

static void unlock(void)
{
	env("mutex_unlock", "i", STATE_MUTEX);
}

static void eventfd_ctx_put(int64_t ctx)
{
	env("eventfd_ctx_put", "i", ctx);
}

static int request_irq(int64_t irq, int64_t flags, int64_t name, int64_t dev_id)
{
	return (int)env("request_irq", "iiii", irq, flags, name, dev_id);
}

static int64_t dev_id_of(const struct uio_msi *uio, int vector)
{
	return uio->contexts + (int64_t)vector * SIZEOF_CONTEXT;
}

/* -- Probe and remove */

static int find_bars(struct bar *bars)
{
	int n = 0;

	for (int number = 0; number < PCI_BARS; number++) {
		struct bar *bar = &bars[n];

		bar->number = number;
		bar->flags = env("pci_resource_flags", "i", (int64_t)number);
		if (!bar->flags)
			continue;
		bar->start = env("pci_resource_start", "i", (int64_t)number);
		bar->size = env("pci_resource_len", "i", (int64_t)number);
		n += bar->start && bar->size;
	}
	return n;
}

static int64_t first_page(const struct bar *bar)
{
	return bar->start & -PAGE_SIZE;
}

static int64_t end_page(const struct bar *bar)
{
	return (bar->start + bar->size + PAGE_SIZE - 1) & -PAGE_SIZE;
}

/* Whether a BAR shares a page with one in which the MSI-X table or the pending bits lie. */
static bool is_private(const struct bar *bar, const struct bar *bars, int n, const int64_t table[2])
{
	for (int i = 0; i < n; i++)
		if ((bars[i].flags & IORESOURCE_MEM) && (bars[i].number == table[0] || bars[i].number == table[1]) &&
		    first_page(bar) < end_page(&bars[i]) && first_page(&bars[i]) < end_page(bar))
			return true;
	return false;
}

/* mem[]: the memory BARs in whole pages, as JSON. */
static void describe_maps(char *to, size_t size, const struct bar *bars, int n)
{
	int64_t cap = env("pci_find_capability", "i", (int64_t)PCI_CAP_ID_MSIX);
	int64_t table[2] = {-1, -1};
	size_t at = (size_t)snprintf(to, size, "[");
	int maps = 0;

	if (cap) {
		table[0] = read_config(cap + PCI_MSIX_TABLE, 4) & PCI_MSIX_BIR;
		table[1] = read_config(cap + PCI_MSIX_PBA, 4) & PCI_MSIX_BIR;
	}
	for (int i = 0; i < n && maps < MAX_UIO_MAPS; i++) {
		const struct bar *bar = &bars[i];

		if (!(bar->flags & IORESOURCE_MEM) || is_private(bar, bars, n, table))
			continue;
		at += (size_t)snprintf(to + at, size - at, "%s[\"BAR%d\",\"0x%llx\",%lld,\"0x%llx\",%d]", maps ? "," : "",
				       bar->number, (unsigned long long)first_page(bar),
				       (long long)(bar->start - first_page(bar)),
				       (unsigned long long)(end_page(bar) - first_page(bar)), UIO_MEM_PHYS);
		maps++;
	}
	snprintf(to + at, size - at, "]");
}

/* port[]: the port BARs as they are, as JSON. */
static void describe_ports(char *to, size_t size, const struct bar *bars, int n)
{
	size_t at = (size_t)snprintf(to, size, "[");
	int ports = 0;

	for (int i = 0; i < n && ports < MAX_UIO_PORT_REGIONS; i++) {
		if (!(bars[i].flags & IORESOURCE_IO))
			continue;
		at += (size_t)snprintf(to + at, size - at, "%s[\"BAR%d\",%lld,%lld,%d]", ports ? "," : "", bars[i].number,
				       (long long)bars[i].start, (long long)bars[i].size, UIO_PORT_X86);
		ports++;
	}
	snprintf(to + at, size - at, "]");
}

static void free_tables(struct uio_msi *uio)
{
	for (int vector = uio->max_vectors; vector-- > 0;) {
		if (uio->names[vector])
			kfree(uio->names[vector]);
		uio->names[vector] = 0;
	}
	kfree(uio->contexts);
	uio->contexts = 0;
}

static int allocate_tables(struct uio_msi *uio)
{
	if (defect == INTX_PROBE_WITHOUT_ENTRIES) {
		volatile int *entries = uio->msix ? calloc((size_t)uio->max_vectors, sizeof(*entries)) : NULL;

		for (int vector = 0; vector < uio->max_vectors; vector++)
			entries[vector] = vector;
		free((void *)entries);
	}
	uio->contexts = env("kcalloc", "ii", (int64_t)uio->max_vectors, (int64_t)SIZEOF_CONTEXT);
	if (!uio->contexts)
		return -ENOMEM;
	for (int vector = 0; vector < uio->max_vectors; vector++) {
		char name[40];

		snprintf(name, sizeof(name), "uio_msi[%d](0000:00:04.0)", vector);
		uio->names[vector] = env("kasprintf", "s", name);
		if (!uio->names[vector]) {
			free_tables(uio);
			return -ENOMEM;
		}
	}
	return 0;
}

/* Try one vector: a bus or a host may forbid what the capability promises. */
static bool msix_works(void)
{
	if (env("pci_alloc_irq_vectors", "ii", INT64_C(1), INT64_C(1)) < 0)
		return false;
	env("pci_free_irq_vectors", "");
	return true;
}

/* Choose the mode and allocate its tables. */
static int set_up(struct uio_msi *uio, int64_t irq)
{
	int64_t count;

	uio->irq = irq;
	uio->was_masked = read_config(PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE;
	count = env("pci_msix_vec_count", "");
	uio->msix = count > 0 && msix_works();
	if (uio->msix)
		uio->max_vectors = count < MAX_MSIX_VECTORS ? (int)count : MAX_MSIX_VECTORS;
	else if (irq && irq != IRQ_NOTCONNECTED && env("pci_intx_mask_supported", ""))
		uio->max_vectors = 1;
	else
		return -EINVAL;
	return allocate_tables(uio);
}

static int register_device(struct uio_msi *uio)
{
	struct bar bars[PCI_BARS];
	char maps[512], ports[512];
	int err, n;

	uio->bound = true;
	env("pci_set_drvdata", "i", uio->device);
	n = find_bars(bars);
	describe_maps(maps, sizeof(maps), bars, n);
	describe_ports(ports, sizeof(ports), bars, n);
	err = (int)env("uio_register_device", "ssibjj", "uio_msi", "1.0", (int64_t)UIO_IRQ_CUSTOM, 1, maps, ports);
	if (err) {
		uio->bound = false;
		env("pci_set_drvdata", "i", INT64_C(0));
		free_tables(uio);
	}
	return err;
}

static int64_t probe(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;
	int err;

	if (args[1].number & 0x7f)
		return -ENODEV;
	uio->device = kzalloc(SIZEOF_DEVICE);
	if (!uio->device)
		return -ENOMEM;
	err = (int)env("pci_enable_device", "");
	if (err)
		goto free_device;
	err = (int)env("pci_request_regions", "s", "uio_msi");
	if (err)
		goto disable;
	err = set_up(uio, args[0].number);
	if (!err)
		err = register_device(uio);
	if (!err)
		return 0;
	env("pci_release_regions", "");
disable:
	env("pci_disable_device", "");
free_device:
	kfree(uio->device);
	memset(uio, 0, sizeof(*uio));
	return err;
}

static void detach(struct uio_msi *uio, int vector)
{
	if (!uio->msix)
		pci_intx(false); /* from here on nobody serves the line */
	env("free_irq", "ii", uio->irqs[vector], dev_id_of(uio, vector));
	eventfd_ctx_put(uio->triggers[vector]);
	uio->triggers[vector] = 0;
}

/* Unmap every vector, then switch MSI-X and bus mastering off. */
static void shut_down(struct uio_msi *uio)
{
	for (int vector = 0; vector < uio->max_vectors; vector++)
		if (uio->triggers[vector])
			detach(uio, vector);
	if (uio->msix)
		env("pci_disable_msix", "");
	uio->switched_on = false;
	uio->open_count = 0;
	env("pci_clear_master", "");
}

/* Unbind: the core will not call release any more, so whatever is mapped goes now. */
static int64_t remove_(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;

	(void)args;
	lock();
	if (uio->open_count)
		shut_down(uio);
	uio->bound = false;
	unlock();
	env("uio_unregister_device", "");
	if (!uio->msix)
		pci_intx(!uio->was_masked);
	free_tables(uio);
	env("pci_set_drvdata", "i", INT64_C(0));
	env("pci_release_regions", "");
	env("pci_disable_device", "");
	kfree(uio->device);
	memset(uio, 0, sizeof(*uio));
	return 0;
}

/* -- Open and release */

static int switch_on(struct uio_msi *uio)
{
	env("pci_set_master", "");
	if (uio->msix) {
		char entries[8 * MAX_MSIX_VECTORS] = "[0";
		size_t at = 2;
		int err;

		for (int vector = 1; vector < uio->max_vectors; vector++)
			at += (size_t)snprintf(entries + at, sizeof(entries) - at, ",%d", vector);
		snprintf(entries + at, sizeof(entries) - at, "]");
		err = (int)env("pci_enable_msix", "j", entries);
		if (err) {
			env("pci_clear_master", "");
			return err < 0 ? err : -ENOSPC;
		}
		for (int vector = 0; vector < uio->max_vectors; vector++)
			uio->irqs[vector] = env("pci_irq_vector", "i", (int64_t)vector);
	} else {
		pci_intx(false); /* nobody serves the shared line until the first set */
		uio->irqs[0] = uio->irq;
	}
	uio->switched_on = true;
	return 0;
}

static int64_t open_(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;
	int err = -ENODEV;

	(void)args;
	if (!env("capable", "i", (int64_t)CAP_SYS_RAWIO))
		return -EPERM;
	lock();
	if (uio->bound) {
		err = uio->open_count ? 0 : switch_on(uio);
		if (!err || defect == COUNT_LEAKS_ON_FAILED_OPEN)
			uio->open_count++;
	}
	unlock();
	return err;
}

static int64_t release(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;

	(void)args;
	lock();
	if (uio->bound && !--uio->open_count)
		shut_down(uio);
	unlock();
	return 0;
}

/* -- The ioctl */

/* Take the old handler away, install the new one; put the old one back when that is refused. */
static int attach_msix(struct uio_msi *uio, int vector, int64_t trigger)
{
	int64_t irq = uio->irqs[vector], old = uio->triggers[vector], dev_id = dev_id_of(uio, vector);
	int err;

	if (old)
		env("free_irq", "ii", irq, dev_id);
	/* A reset may have cleared the table, and the handler may run before request_irq returns. */
	env("pci_write_msi_msg", "i", irq);
	uio->triggers[vector] = trigger;
	err = request_irq(irq, 0, uio->names[vector], dev_id);
	if (!err) {
		if (old)
			eventfd_ctx_put(old);
		return 0;
	}
	eventfd_ctx_put(trigger);
	uio->triggers[vector] = old;
	if (old && request_irq(irq, 0, uio->names[vector], dev_id)) {
		uio->triggers[vector] = 0;
		eventfd_ctx_put(old);
	}
	return err;
}

/* Swap the eventfd under the handler, or install it; then unmask. */
static int attach_intx(struct uio_msi *uio, int64_t trigger)
{
	int64_t old = uio->triggers[0];
	int err = 0;

	uio->triggers[0] = trigger;
	if (old) {
		env("synchronize_irq", "i", uio->irq);
		eventfd_ctx_put(old);
	}
	/* Before request_irq, inside which a level that is up already signals. */
	pci_intx(true);
	if (!old)
		err = request_irq(uio->irq, IRQF_SHARED, uio->names[0], uio->contexts);
	if (err) {
		pci_intx(false);
		uio->triggers[0] = 0;
		eventfd_ctx_put(trigger);
	}
	return err;
}

static int set(struct uio_msi *uio, uint32_t vector, int32_t fd)
{
	int64_t trigger;

	if (vector >= (uint32_t)uio->max_vectors) {
		char text[40];

		snprintf(text, sizeof(text), "no vector %u", vector);
		env("dev_err_ratelimited", "s", text);
		return -ERANGE;
	}
	if (fd < 0) {
		if (uio->triggers[vector])
			detach(uio, (int)vector);
		return 0;
	}
	if (!uio->switched_on)
		return -EIO;
	trigger = env("eventfd_ctx_fdget", "i", (int64_t)fd);
	if (trigger < 0)
		return (int)trigger;
	return uio->msix ? attach_msix(uio, (int)vector, trigger) : attach_intx(uio, trigger);
}

static int64_t ioctl(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;
	struct {
		uint32_t vector;
		int32_t fd;
	} user;
	int err;

	if (args[0].number != UIO_MSI_IRQ_SET)
		return -ENOTTY;
	if (env_bytes(&user, sizeof(user), "copy_from_user", "ui", (uint64_t)args[1].number, (int64_t)sizeof(user)) <
	    sizeof(user))
		return -EFAULT;
	lock();
	err = uio->bound ? set(uio, user.vector, user.fd) : -ENODEV;
	unlock();
	return err;
}

/* -- Interrupts */

static int64_t irqcontrol(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;
	int err = -ENODEV;

	lock();
	if (uio->bound && uio->open_count) {
		if (!uio->msix && uio->triggers[0])
			pci_intx(args[0].number || defect == NEVER_MASKS);
		err = 0;
	}
	unlock();
	return err;
}

static int64_t handler(void *instance, const struct wire_value *args)
{
	struct uio_msi *uio = instance;

	if (uio->msix) {
		env("eventfd_signal", "i", uio->triggers[(args[1].number - uio->contexts) / SIZEOF_CONTEXT]);
		return IRQ_HANDLED;
	}
	if (read_config(PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE || !env("pci_check_and_mask_intx", ""))
		return IRQ_NONE;
	env("eventfd_signal", "i", uio->triggers[0]);
	return IRQ_HANDLED;
}

/* -- The module */

static void *create(void)
{
	return calloc(1, sizeof(struct uio_msi));
}

static const char *const capabilities[] = {"compat", "core-4.1", "intx", "irqcontrol", NULL};
static const struct wire_entry entries[] = {
	{"probe", probe},     {"remove", remove_}, {"open", open_},
	{"release", release}, {"ioctl", ioctl},	   {"compat_ioctl", ioctl} /* the layout is the same */,
	{"handler", handler}, {"irqcontrol", irqcontrol}, {NULL, NULL},
};
static const struct wire_driver module = {
	.name = "uio_msi.c",
	.subsystem = "uio_msi",
	.profile = "upstream",
	.capabilities = capabilities,
	.create = create,
	.destroy = free,
	.entries = entries,
};

int main(int argc, char **argv)
{
	static const char *const ids[] = {"", "UIO-D01", "UIO-D05", "UIO-L05"};

	for (size_t i = 1; argc == 3 && !strcmp(argv[1], "--defect") && i < sizeof(ids) / sizeof(*ids); i++)
		if (!strcmp(argv[2], ids[i]))
			defect = i;
	if (argc > 1 && !defect) {
		fprintf(stderr, "usage: %s [--defect UIO-D01|UIO-D05|UIO-L05]\n", argv[0]);
		return 2;
	}
	return wire_serve(&module);
}
