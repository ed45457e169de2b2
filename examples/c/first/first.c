/* A first draft of uio_msi, on the bare ABI: it binds, opens, and refuses everything else. */
#include <errno.h>
#include <stdlib.h>

#include "uio_msi.h"
#include "uio_msi_constants.h"

struct first {
	const struct uio_msi_env *env;
	void *world;
};

static void *create(const struct uio_msi_env *env, void *world)
{
	struct first *first = calloc(1, sizeof(*first));

	if (first)
		*first = (struct first){ env, world };
	return first;
}

static void destroy(void *self)
{
	free(self);
}

static int probe(void *self, u32 irq, u8 hdr_type, bool is_virtfn)
{
	struct first *first = self;
	int err = first->env->pci_enable_device(first->world);

	(void)irq, (void)hdr_type, (void)is_virtfn;
	if (err)
		return err;
	return first->env->uio_register_device(first->world, "first", "0.1", UIO_IRQ_CUSTOM, false, NULL, 0, NULL, 0);
}

static void remove_device(void *self)
{
	struct first *first = self;

	first->env->uio_unregister_device(first->world);
	first->env->pci_disable_device(first->world);
}

static int open_device(void *self)
{
	(void)self;
	return 0;
}

static int release(void *self)
{
	(void)self;
	return 0;
}

static int ioctl(void *self, u32 cmd, u64 arg)
{
	(void)self, (void)cmd, (void)arg;
	return -ENOTTY;
}

static int handler(void *self, u32 irq, u64 dev_id)
{
	(void)self, (void)irq, (void)dev_id;
	return IRQ_NONE;
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
