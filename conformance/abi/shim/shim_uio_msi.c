/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel as a UIO driver of a PCI function sees it: each function passes on to the suite what it
 * is asked, and keeps what only the driver's own memory can hold.
 *
 * Compiled together with the driver. -DSHIM_PROFILE='"..."' and -DSHIM_CAPABILITIES='"..."' say
 * which profile it follows and what it has; by default the first profile, and everything.
 */
#include <stdio.h>
#include <stdlib.h>

#include "shim_uio_msi.h"

/* Here these are names of environment calls. */
#undef dev_err
#undef dev_warn
#undef dev_info
#undef dev_err_ratelimited
#undef eventfd_signal
#undef spin_lock_irqsave
#undef spin_unlock_irqrestore

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) memset(start, SHIM_POISON, size)
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#ifndef SHIM_PROFILE
#define SHIM_PROFILE NULL
#endif
#ifndef SHIM_CAPABILITIES
#define SHIM_CAPABILITIES NULL
#endif

#define SHIM_POISON 0x6b	/* what freed memory holds: a pointer read there is none */
#define SHIM_RED 0xbb		/* what stands behind an allocation */
#define SHIM_RED_ZONE 16
#define SHIM_OPAQUE (1UL << 32)	/* pointers below are numbers of the suite, such as those of eventfds */
#define SHIM_STATIC 0x100	/* the suite's first address for static data of the module */
#define SHIM_STATICS 64

struct allocation {
	struct list_head node;
	u64 token;
	size_t size;
	char *memory;	/* behind this record */
	bool freed;
};

struct action {
	struct list_head node;
	unsigned int irq;
	irq_handler_t handler;
	void *dev_id;
	const char *name;
};

/* One driver: what `create` returned. */
struct shim {
	const struct uio_msi_env *env;
	void *world;
	struct shim_statics *statics;
	struct pci_dev pdev;
	struct uio_info *info;
	/* Its callbacks as registered: a core of 4.1 calls them when the driver may have freed info. */
	struct uio_info callbacks;
	struct list_head allocations;
	struct list_head freed;		/* allocations that were; never used again */
	struct list_head actions;
	const void *known[SHIM_STATICS];	/* static data that was named, in order */
};

static struct shim *now;

#define CALL(name, ...) now->env->name(now->world, ##__VA_ARGS__)

static struct shim *enter(void *self)
{
	struct shim *shim = self;

	if (now != shim) {
		shim_statics_enter(shim->statics);
		now = shim;
	}
	return shim;
}

/* -- addresses -- */

/* The address of static data; 0 where it is not known yet, and must not be taken for it. */
static u64 static_token(const void *pointer, bool is_static)
{
	for (int i = 0; i < SHIM_STATICS; i++) {
		if (!now->known[i] && !is_static)
			return 0;
		if (!now->known[i])
			now->known[i] = pointer;
		if (now->known[i] == pointer)
			return SHIM_STATIC + 0x10 * i;
	}
	abort();
}

static struct allocation *allocation_in(struct list_head *list, const void *pointer)
{
	struct allocation *found;

	list_for_each_entry(found, list, node)
		if ((const char *)pointer >= found->memory && (const char *)pointer <= found->memory + found->size)
			return found;
	return NULL;
}

static struct allocation *allocation_of(const void *pointer)
{
	struct allocation *found = allocation_in(&now->allocations, pointer);

	if (!found)
		return allocation_in(&now->freed, pointer);
	/* What is named once is named again soon. */
	list_del(&found->node);
	list_add(&found->node, &now->allocations);
	return found;
}

/* What the suite knows a pointer by. */
static u64 token(const void *pointer)
{
	struct allocation *found;
	u64 known;

	if ((uintptr_t)pointer < SHIM_OPAQUE)
		return (uintptr_t)pointer;
	known = static_token(pointer, false);
	if (known)
		return known;
	found = allocation_of(pointer);
	return found ? found->token + (u64)((const char *)pointer - found->memory) : static_token(pointer, true);
}

static void *allocated(u64 token, size_t size, int fill)
{
	struct allocation *new;

	if (!token)
		return NULL;
	new = malloc(ALIGN(sizeof(*new), 16) + size + SHIM_RED_ZONE);
	if (!new)
		abort();
	new->memory = (char *)new + ALIGN(sizeof(*new), 16);
	new->token = token;
	new->size = size;
	new->freed = false;
	list_add(&new->node, &now->allocations);
	memset(new->memory, fill, size);
	memset(new->memory + size, SHIM_RED, SHIM_RED_ZONE);
#if defined(__SANITIZE_ADDRESS__)
	ASAN_POISON_MEMORY_REGION(new->memory + size, SHIM_RED_ZONE);
#endif
	return new->memory;
}

static void check_red_zone(const struct allocation *of)
{
#if !defined(__SANITIZE_ADDRESS__)
	for (int i = 0; i < SHIM_RED_ZONE; i++) {
		if ((u8)of->memory[of->size + i] == SHIM_RED)
			continue;
		fprintf(stderr, "BUG kmalloc-%zu: right redzone overwritten, %d bytes behind\n", of->size, i);
		abort();
	}
#else
	(void)of;
#endif
}

void *kzalloc(size_t size, gfp_t flags)
{
	(void)flags;
	return allocated(CALL(kzalloc, size), size, 0);
}

void *kmalloc(size_t size, gfp_t flags)
{
	(void)flags;
	return allocated(CALL(kzalloc, size), size, 0x5a);
}

void *kcalloc(size_t n, size_t size, gfp_t flags)
{
	(void)flags;
	return allocated(CALL(kcalloc, n, size), n * size, 0);
}

static char *text_of(const char *format, va_list arguments)
{
	char text[512];

	vsnprintf(text, sizeof(text), format, arguments);
	return strdup(text);
}

char *kasprintf(gfp_t flags, const char *format, ...)
{
	va_list arguments;
	char text[512], *memory;

	(void)flags;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	memory = allocated(CALL(kasprintf, text), strlen(text) + 1, 0);
	if (memory)
		strcpy(memory, text);
	return memory;
}

void kfree(const void *pointer)
{
	struct allocation *of = allocation_of(pointer);

	if (of && !of->freed)
		check_red_zone(of);
	CALL(kfree, token(pointer));
	if (of && !of->freed) {
		of->freed = true;
		list_del(&of->node);
		list_add(&of->node, &now->freed);
		ASAN_POISON_MEMORY_REGION(of->memory, of->size);
	}
}

/* -- printing -- */

const char *dev_name(const struct device *dev)
{
	(void)dev;
	return "0000:00:04.0";
}

void shim_print(const struct device *dev, int level, const char *format, ...)
{
	va_list arguments;
	char *text;

	(void)dev;
	va_start(arguments, format);
	text = text_of(format, arguments);
	va_end(arguments);
	text[strcspn(text, "\n")] = '\0';
	switch (level) {
	case 0:
		CALL(dev_err, text);
		break;
	case 1:
		CALL(dev_warn, text);
		break;
	case 2:
		CALL(dev_info, text);
		break;
	default:
		CALL(dev_err_ratelimited, text);
	}
	free(text);
}

/* -- PCI -- */

#define PLAIN_INT(name)                                                                            \
	int name(struct pci_dev *pdev)                                                             \
	{                                                                                          \
		(void)pdev;                                                                        \
		return CALL(name);                                                                 \
	}
#define PLAIN_VOID(name)                                                                           \
	void name(struct pci_dev *pdev)                                                            \
	{                                                                                          \
		(void)pdev;                                                                        \
		CALL(name);                                                                        \
	}
#define PLAIN_BOOL(name)                                                                           \
	bool name(struct pci_dev *pdev)                                                            \
	{                                                                                          \
		(void)pdev;                                                                        \
		return CALL(name) != 0;                                                            \
	}

PLAIN_INT(pci_enable_device)
PLAIN_VOID(pci_disable_device)
PLAIN_VOID(pci_release_regions)
PLAIN_VOID(pci_set_master)
PLAIN_VOID(pci_clear_master)
PLAIN_VOID(pci_cfg_access_lock)
PLAIN_VOID(pci_cfg_access_unlock)
PLAIN_INT(pci_reset_function)
PLAIN_INT(pci_msix_vec_count)
PLAIN_VOID(pci_disable_msix)
PLAIN_VOID(pci_free_irq_vectors)
PLAIN_BOOL(pci_intx_mask_supported)
PLAIN_BOOL(pci_check_and_mask_intx)
PLAIN_BOOL(pci_check_and_unmask_intx)

int pci_request_regions(struct pci_dev *pdev, const char *name)
{
	(void)pdev;
	return CALL(pci_request_regions, name);
}

resource_size_t pci_resource_start(struct pci_dev *pdev, int bar)
{
	(void)pdev;
	return CALL(pci_resource_start, bar);
}

resource_size_t pci_resource_len(struct pci_dev *pdev, int bar)
{
	(void)pdev;
	return CALL(pci_resource_len, bar);
}

unsigned long pci_resource_flags(struct pci_dev *pdev, int bar)
{
	(void)pdev;
	return CALL(pci_resource_flags, bar);
}

int pci_find_capability(struct pci_dev *pdev, int cap)
{
	(void)pdev;
	return CALL(pci_find_capability, cap);
}

#define CONFIG(suffix, type)                                                                       \
	int pci_read_config_##suffix(struct pci_dev *pdev, int where, type *value)                 \
	{                                                                                          \
		(void)pdev;                                                                        \
		*value = (type)CALL(pci_read_config, where, sizeof(type));                         \
		return 0;                                                                          \
	}                                                                                          \
	int pci_write_config_##suffix(struct pci_dev *pdev, int where, type value)                 \
	{                                                                                          \
		(void)pdev;                                                                        \
		CALL(pci_write_config, where, sizeof(type), value);                                \
		return 0;                                                                          \
	}

CONFIG(byte, u8)
CONFIG(word, u16)
CONFIG(dword, u32)

static int give_vectors(struct msix_entry *entries, int count)
{
	for (int i = 0; i < count; i++)
		entries[i].vector = CALL(pci_irq_vector, i);
	return count;
}

static void numbers_of(const struct msix_entry *entries, int count, u32 *numbers)
{
	numbers[0] = 0;
	for (int i = 0; i < count; i++)
		numbers[i] = entries[i].entry;
}

int pci_enable_msix(struct pci_dev *pdev, struct msix_entry *entries, int nvec)
{
	u32 numbers[nvec > 0 ? nvec : 1];
	int err;

	(void)pdev;
	numbers_of(entries, nvec, numbers);
	err = CALL(pci_enable_msix, numbers, nvec);
	if (!err)
		give_vectors(entries, nvec);
	return err;
}

int pci_enable_msix_range(struct pci_dev *pdev, struct msix_entry *entries, int minvec, int maxvec)
{
	u32 numbers[maxvec > 0 ? maxvec : 1];
	int count;

	(void)pdev;
	numbers_of(entries, maxvec, numbers);
	count = CALL(pci_enable_msix_range, numbers, maxvec, minvec, maxvec);
	return count > 0 ? give_vectors(entries, count) : count;
}

int pci_enable_msix_exact(struct pci_dev *pdev, struct msix_entry *entries, int nvec)
{
	int count = pci_enable_msix_range(pdev, entries, nvec, nvec);

	return count < 0 ? count : 0;
}

int pci_alloc_irq_vectors(struct pci_dev *pdev, unsigned int min_vecs, unsigned int max_vecs, unsigned int flags)
{
	(void)pdev;
	return flags & PCI_IRQ_MSIX ? CALL(pci_alloc_irq_vectors, min_vecs, max_vecs) : -ENOSPC;
}

int pci_irq_vector(struct pci_dev *pdev, unsigned int nr)
{
	(void)pdev;
	return CALL(pci_irq_vector, nr);
}

void pci_intx(struct pci_dev *pdev, int enable)
{
	(void)pdev;
	CALL(pci_intx, enable);
}

void pci_set_drvdata(struct pci_dev *pdev, void *data)
{
	pdev->dev.driver_data = data;
	CALL(pci_set_drvdata, token(data));
}

void *pci_get_drvdata(struct pci_dev *pdev)
{
	return CALL(pci_get_drvdata) ? pdev->dev.driver_data : NULL;
}

void get_cached_msi_msg(unsigned int irq, struct msi_msg *msg)
{
	msg->irq = irq;
}

void pci_write_msi_msg(unsigned int irq, struct msi_msg *msg)
{
	(void)msg;
	CALL(pci_write_msi_msg, irq);
}

void __iomem *ioremap(resource_size_t addr, size_t size)
{
	return (void __iomem *)(uintptr_t)CALL(ioremap, addr, size);
}

void iounmap(void __iomem *mapped)
{
	CALL(iounmap, (uintptr_t)mapped);
}

/* -- interrupts -- */

static struct action *action_of(unsigned int irq, u64 dev_id)
{
	struct action *action;

	list_for_each_entry(action, &now->actions, node)
		if (action->irq == irq && token(action->dev_id) == dev_id)
			return action;
	return NULL;
}

static void forget(struct action *action)
{
	if (!action)
		return;
	list_del(&action->node);
	free(action);
}

int request_irq(unsigned int irq, irq_handler_t handler, unsigned long flags, const char *name, void *dev_id)
{
	struct action *action = calloc(1, sizeof(*action));
	struct allocation *of = allocation_of(name);
	int err;

	if (!action)
		abort();
	*action = (struct action){ .irq = irq, .handler = handler, .dev_id = dev_id, .name = name };
	list_add(&action->node, &now->actions);
	err = CALL(request_irq, irq, flags, of ? of->token : 0, token(dev_id));
	if (err)
		forget(action);
	return err;
}

const void *free_irq(unsigned int irq, void *dev_id)
{
	struct action *action;
	const void *name;

	CALL(free_irq, irq, token(dev_id));
	action = action_of(irq, token(dev_id));
	name = action ? action->name : NULL;
	forget(action);
	return name;
}

void synchronize_irq(unsigned int irq)
{
	CALL(synchronize_irq, irq);
}

struct eventfd_ctx *eventfd_ctx_fdget(int fd)
{
	return ERR_PTR(CALL(eventfd_ctx_fdget, fd));
}

void eventfd_ctx_put(struct eventfd_ctx *ctx)
{
	CALL(eventfd_ctx_put, (uintptr_t)ctx);
}

void shim_eventfd_signal(struct eventfd_ctx *ctx)
{
	CALL(eventfd_signal, (uintptr_t)ctx);
}

/* -- locks, users -- */

void mutex_init(struct mutex *lock)
{
	CALL(mutex_init, token(lock));
}

void mutex_lock(struct mutex *lock)
{
	CALL(mutex_lock, token(lock));
}

void mutex_unlock(struct mutex *lock)
{
	CALL(mutex_unlock, token(lock));
}

void shim_spin_lock(spinlock_t *lock)
{
	CALL(spin_lock_irqsave, token(lock));
}

void shim_spin_unlock(spinlock_t *lock)
{
	CALL(spin_unlock_irqrestore, token(lock));
}

unsigned long copy_from_user(void *to, const void __user *from, unsigned long n)
{
	size_t copied = n;

	CALL(copy_from_user, (uintptr_t)from, n, to, &copied);
	return n - copied;
}

bool capable(int cap)
{
	return CALL(capable, cap) != 0;
}

/* -- UIO -- */

int uio_register_device(struct device *parent, struct uio_info *info)
{
	struct uio_msi_map mem[MAX_UIO_MAPS];
	struct uio_msi_port port[MAX_UIO_PORT_REGIONS];
	size_t maps = 0, ports = 0;
	int err;

	(void)parent;
	for (; maps < MAX_UIO_MAPS && info->mem[maps].size; maps++) {
		const struct uio_mem *m = &info->mem[maps];

		mem[maps] = (struct uio_msi_map){ m->name ? m->name : "", m->addr, m->offs, m->size, m->memtype };
	}
	for (; ports < MAX_UIO_PORT_REGIONS && info->port[ports].size; ports++) {
		const struct uio_port *p = &info->port[ports];

		port[ports] = (struct uio_msi_port){ p->name ? p->name : "", p->start, p->size, p->porttype };
	}
	now->info = info;
	now->callbacks = *info;
	err = CALL(uio_register_device, info->name, info->version, info->irq, info->irqcontrol != NULL, mem, maps, port,
		   ports);
	if (err)
		now->info = NULL;
	return err;
}

void uio_unregister_device(struct uio_info *info)
{
	(void)info;
	CALL(uio_unregister_device);
}

void uio_event_notify(struct uio_info *info)
{
	(void)info;
	CALL(uio_event_notify);
}

/* -- the table -- */

static void *create(const struct uio_msi_env *env, void *world)
{
	struct shim *shim = calloc(1, sizeof(*shim));

	if (!shim)
		return NULL;
	shim->env = env;
	shim->world = world;
	INIT_LIST_HEAD(&shim->allocations);
	INIT_LIST_HEAD(&shim->freed);
	INIT_LIST_HEAD(&shim->actions);
	shim->statics = shim_statics_new();
	enter(shim);
	return shim;
}

static void free_all(struct list_head *allocations)
{
	struct allocation *allocation, *next;

	list_for_each_entry_safe(allocation, next, allocations, node) {
		ASAN_UNPOISON_MEMORY_REGION(allocation->memory, allocation->size + SHIM_RED_ZONE);
		free(allocation);
	}
}

static void destroy(void *self)
{
	struct shim *shim = self;
	struct action *action, *following;

	free_all(&shim->allocations);
	free_all(&shim->freed);
	list_for_each_entry_safe(action, following, &shim->actions, node)
		free(action);
	shim_statics_free(shim->statics);
	if (now == shim)
		now = NULL;
	free(shim);
}

static int probe(void *self, u32 irq, u8 hdr_type, bool is_virtfn)
{
	struct shim *shim = enter(self);
	int err;

	shim->pdev = (struct pci_dev){ .irq = irq, .hdr_type = hdr_type, .is_virtfn = is_virtfn };
	err = shim_pci_driver->probe(&shim->pdev, NULL);
	if (err)
		shim->pdev.dev.driver_data = NULL;
	return err;
}

static void remove_(void *self)
{
	shim_pci_driver->remove(&enter(self)->pdev);
}

static int open_(void *self)
{
	enter(self);
	return now->callbacks.open ? now->callbacks.open(now->info, NULL) : 0;
}

static int release(void *self)
{
	enter(self);
	return now->callbacks.release ? now->callbacks.release(now->info, NULL) : 0;
}

static int ioctl(void *self, u32 cmd, u64 arg)
{
	enter(self);
	return now->callbacks.ioctl ? now->callbacks.ioctl(now->info, cmd, arg) : -ENOTTY;
}

static int irqcontrol(void *self, s32 on)
{
	enter(self);
	return now->callbacks.irqcontrol ? now->callbacks.irqcontrol(now->info, on) : -ENOSYS;
}

static int handler(void *self, u32 irq, u64 dev_id)
{
	struct action *action;

	enter(self);
	action = action_of(irq, dev_id);
	return action ? action->handler(irq, action->dev_id) : IRQ_NONE;
}

const struct uio_msi_driver uio_msi_driver = {
	.abi_version = UIO_MSI_ABI,
	.profile = SHIM_PROFILE,
	.capabilities = SHIM_CAPABILITIES,
	.create = create,
	.destroy = destroy,
	.probe = probe,
	.remove = remove_,
	.open = open_,
	.release = release,
	.ioctl = ioctl,
	.compat_ioctl = ioctl,
	.irqcontrol = irqcontrol,
	.handler = handler,
};
