/* A draft of uio_msi that binds, maps and wires MSI-X vectors to eventfds; docs/c.md goes on from here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uio_msi.h"
#include "uio_msi_constants.h"

struct draft {
	const struct uio_msi_env *env;
	void *w;
	u64 mem;		/* token of kzalloc: the mutex is at its start */
	int table;		/* entries of the MSI-X table */
	int count;		/* of them used */
	int opens;
	u64 ctx[MAX_MSIX_VECTORS];
};

static void *create(const struct uio_msi_env *env, void *world)
{
	struct draft *d = calloc(1, sizeof(*d));

	if (d) {
		d->env = env;
		d->w = world;
	}
	return d;
}

static void destroy(void *self)
{
	free(self);
}

struct range {
	u64 from, to;
};

/* The pages of the MSI-X table and of the pending bits, in order of address. */
static void find_holes(struct draft *d, struct range hole[2])
{
	const struct uio_msi_env *e = d->env;
	int cap = e->pci_find_capability(d->w, PCI_CAP_ID_MSIX), i;
	u64 size[2] = { (u64)d->table * PCI_MSIX_ENTRY_SIZE, (d->table + 63) / 64 * 8 };

	for (i = 0; i < 2; i++) {
		u32 where = e->pci_read_config(d->w, cap + (i ? PCI_MSIX_PBA : PCI_MSIX_TABLE), 4);
		u64 at = e->pci_resource_start(d->w, where & PCI_MSIX_BIR) + (where & PCI_MSIX_OFFSET);

		hole[i].from = at & ~(u64)(PAGE_SIZE - 1);
		hole[i].to = (at + size[i] + PAGE_SIZE - 1) & ~(u64)(PAGE_SIZE - 1);
	}
	if (hole[0].from > hole[1].from) {
		struct range swap = hole[0];

		hole[0] = hole[1];
		hole[1] = swap;
	}
}

static size_t add_bar(struct uio_msi_map *map, size_t maps, const char *name, u64 start, u64 len,
		      const struct range hole[2])
{
	u64 at = start, end = start + len;
	int i;

	for (i = 0; i < 3; i++) {
		u64 to = i < 2 && hole[i].from < end ? hole[i].from : end;

		if (to > at && maps < MAX_UIO_MAPS)
			map[maps++] = (struct uio_msi_map){ name, at, 0, to - at, UIO_MEM_PHYS };
		if (i < 2 && hole[i].to > at)
			at = hole[i].to;
	}
	return maps;
}

static int probe(void *self, u32 irq, u8 hdr_type, bool is_virtfn)
{
	struct draft *d = self;
	const struct uio_msi_env *e = d->env;
	struct uio_msi_map map[MAX_UIO_MAPS];
	struct uio_msi_port port[MAX_UIO_PORT_REGIONS];
	static const char *const names[] = { "BAR0", "BAR1", "BAR2", "BAR3", "BAR4", "BAR5" };
	size_t maps = 0, ports = 0;
	struct range hole[2];
	int err, bar;

	(void)irq, (void)is_virtfn;
	if (hdr_type != 0)
		return -ENODEV;
	err = e->pci_enable_device(d->w);
	if (err)
		return err;
	d->count = e->pci_msix_vec_count(d->w);
	if (d->count < 0) {
		err = d->count;
		goto disable;
	}
	d->table = d->count;
	if (d->count > MAX_MSIX_VECTORS)
		d->count = MAX_MSIX_VECTORS;
	d->mem = e->kzalloc(d->w, 64);
	if (!d->mem) {
		err = -ENOMEM;
		goto disable;
	}
	e->mutex_init(d->w, d->mem);
	err = e->pci_request_regions(d->w, "draft");
	if (err)
		goto free;
	find_holes(d, hole);
	for (bar = 0; bar < PCI_BARS; bar++) {
		u64 start = e->pci_resource_start(d->w, bar), len = e->pci_resource_len(d->w, bar);
		u64 flags = e->pci_resource_flags(d->w, bar);

		if (!len || !start)
			continue;
		if (flags & IORESOURCE_MEM)
			maps = add_bar(map, maps, names[bar], start, len, hole);
		else if ((flags & IORESOURCE_IO) && ports < MAX_UIO_PORT_REGIONS)
			port[ports++] = (struct uio_msi_port){ names[bar], start, len, UIO_PORT_X86 };
	}
	d->opens = 0;
	err = e->uio_register_device(d->w, "draft", "0.1", UIO_IRQ_CUSTOM, false, map, maps, port, ports);
	if (!err)
		return 0;
	e->pci_release_regions(d->w);
free:
	e->kfree(d->w, d->mem);
disable:
	e->pci_disable_device(d->w);
	return err;
}

static void unwire(struct draft *d, int vec)
{
	const struct uio_msi_env *e = d->env;

	if (!d->ctx[vec])
		return;
	e->free_irq(d->w, e->pci_irq_vector(d->w, vec), d->ctx[vec]);
	e->eventfd_ctx_put(d->w, d->ctx[vec]);
	d->ctx[vec] = 0;
}

static void shut(struct draft *d)
{
	int vec;

	for (vec = 0; vec < d->count; vec++)
		unwire(d, vec);
	d->env->pci_disable_msix(d->w);
	d->env->pci_clear_master(d->w);
}

static void remove_device(void *self)
{
	struct draft *d = self;
	const struct uio_msi_env *e = d->env;

	e->uio_unregister_device(d->w);
	if (d->opens)
		shut(d);
	e->pci_release_regions(d->w);
	e->pci_disable_device(d->w);
	e->kfree(d->w, d->mem);
}

static int open_device(void *self)
{
	struct draft *d = self;
	const struct uio_msi_env *e = d->env;
	u32 entries[MAX_MSIX_VECTORS];
	int err = 0, i;

	if (!e->capable(d->w, CAP_SYS_RAWIO))
		return -EPERM;
	e->mutex_lock(d->w, d->mem);
	if (!d->opens) {
		for (i = 0; i < d->count; i++)
			entries[i] = i;
		e->pci_set_master(d->w);
		err = e->pci_enable_msix(d->w, entries, d->count);
		if (err) {
			e->pci_clear_master(d->w);
			goto out;
		}
	}
	d->opens++;
out:
	e->mutex_unlock(d->w, d->mem);
	return err;
}

static int release(void *self)
{
	struct draft *d = self;

	d->env->mutex_lock(d->w, d->mem);
	if (!--d->opens)
		shut(d);
	d->env->mutex_unlock(d->w, d->mem);
	return 0;
}

static int ioctl(void *self, u32 cmd, u64 arg)
{
	struct draft *d = self;
	const struct uio_msi_env *e = d->env;
	struct { u32 vec; s32 fd; } set;
	size_t len = sizeof(set);
	s64 ctx;
	int err = 0;

	if (cmd != UIO_MSI_IRQ_SET)
		return -ENOTTY;
	e->copy_from_user(d->w, arg, sizeof(set), (u8 *)&set, &len);
	if (len < sizeof(set))
		return -EFAULT;
	if (set.vec >= (u32)d->count)
		return -ERANGE;
	e->mutex_lock(d->w, d->mem);
	if (set.fd < 0) {
		unwire(d, set.vec);
		goto out;
	}
	ctx = e->eventfd_ctx_fdget(d->w, set.fd);
	if (ctx < 0) {
		err = ctx;
		goto out;
	}
	unwire(d, set.vec);
	err = e->request_irq(d->w, e->pci_irq_vector(d->w, set.vec), 0, 0, ctx);
	if (err)
		e->eventfd_ctx_put(d->w, ctx);
	else
		d->ctx[set.vec] = ctx;
out:
	e->mutex_unlock(d->w, d->mem);
	return err;
}

static int handler(void *self, u32 irq, u64 dev_id)
{
	struct draft *d = self;

	(void)irq;
	d->env->eventfd_signal(d->w, dev_id);
	return IRQ_HANDLED;
}

const struct uio_msi_driver uio_msi_driver = {
	.abi_version = UIO_MSI_ABI,
	.capabilities = "",
	.create = create,
	.destroy = destroy,
	.probe = probe,
	.remove = remove_device,
	.open = open_device,
	.release = release,
	.ioctl = ioctl,
	.handler = handler,
};
