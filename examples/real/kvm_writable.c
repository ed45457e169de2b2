/*
 * LINUX-6: KVM_PRE_FAULT_MEMORY makes a page writable that dirty logging has write-protected.
 *
 * A guest stores to a page, dirty logging of its slot begins and ends, and the guest stores again: it takes a fault, as
 * the page is write-protected. The same with a prefault in between: the guest takes no fault, so the page was made writable
 * by then. Faults are counted by the kernel (KVM_GET_STATS_FD, pf_taken).
 *
 *     cc -O1 -o kvm_writable kvm_writable.c && ./kvm_writable
 *
 * Exit code: 0 the prefault leaves the page as it is, 1 it makes it writable, 77 there is no KVM_PRE_FAULT_MEMORY here, or no
 * fault to be seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

struct pre_fault {
	uint64_t gpa, size, flags, padding[5];
};
#define PRE_FAULT _IOWR(KVMIO, 0xd5, struct pre_fault)
#define CAP_PRE_FAULT 236
#define STATS_FD _IO(KVMIO, 0xce)
#define PAGE 0x10000

struct stats_header {
	uint32_t flags, name_size, num_desc, id_offset, desc_offset, data_offset;
};
struct stats_desc {
	uint32_t flags;
	int16_t exponent;
	uint16_t size;
	uint32_t offset, bucket_size;
	char name[];
};

static int vm, vcpu, stats;
static char *memory;
static struct kvm_run *run;
static off_t faults_at;

static long need(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(77);
	}
	return result;
}

static void slot(unsigned int number, uint64_t gpa, unsigned int flags, void *at)
{
	struct kvm_userspace_memory_region region = {
		.slot = number, .flags = flags, .guest_phys_addr = gpa, .memory_size = 4096, .userspace_addr = (uintptr_t)at,
	};

	need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

static void find_faults(void)
{
	struct stats_header head;
	unsigned int i;

	need(pread(stats, &head, sizeof(head), 0), "statistics");
	for (i = 0; i < head.num_desc; i++) {
		size_t size = sizeof(struct stats_desc) + head.name_size;
		struct stats_desc *desc = calloc(1, size + 1);

		need(pread(stats, desc, size, head.desc_offset + i * size), "statistics");
		if (!strcmp(desc->name, "pf_taken"))
			faults_at = head.data_offset + desc->offset;
		free(desc);
	}
	if (!faults_at) {
		fprintf(stderr, "the kernel does not count pf_taken\n");
		exit(77);
	}
}

/* The guest stores to the page; how many faults that took. */
static unsigned long store(void)
{
	struct kvm_regs regs = { .rflags = 2 };
	uint64_t before, after;

	need(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	need(pread(stats, &before, 8, faults_at), "statistics");
	need(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	need(pread(stats, &after, 8, faults_at), "statistics");
	if (run->exit_reason != KVM_EXIT_IO) {
		fprintf(stderr, "exit reason %u instead of OUT\n", run->exit_reason);
		exit(77);
	}
	return after - before;
}

static void write_protect(void)
{
	slot(1, PAGE, KVM_MEM_LOG_DIRTY_PAGES, memory + 4096);
	slot(1, PAGE, 0, memory + 4096);
}

int main(void)
{
	static const unsigned char code[] = { 0xa2, 0x00, 0x00, 0xe6, 0x10 }; /* mov %al, 0; out %al, $0x10 */
	struct pre_fault prefault = { .gpa = PAGE, .size = 4096 };
	struct kvm_sregs sregs;
	struct utsname host;
	unsigned long without, with;
	int kvm = need(open("/dev/kvm", O_RDWR), "/dev/kvm"), size;

	if (ioctl(kvm, KVM_CHECK_EXTENSION, CAP_PRE_FAULT) <= 0) {
		fprintf(stderr, "no KVM_PRE_FAULT_MEMORY here\n");
		return 77;
	}
	vm = need(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	vcpu = need(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	stats = need(ioctl(vcpu, STATS_FD, 0), "KVM_GET_STATS_FD");
	size = need(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(run == MAP_FAILED || memory == MAP_FAILED ? -1 : 0, "mmap");
	madvise(memory, 8192, MADV_NOHUGEPAGE);
	memcpy(memory, code, sizeof(code));
	memory[4096] = 1;
	slot(0, 0, 0, memory);
	slot(1, PAGE, 0, memory + 4096);
	find_faults();
	need(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.ds.base = PAGE;
	need(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");

	alarm(10);	/* no guest of ours takes as long */
	store();
	write_protect();
	without = store();
	write_protect();
	need(ioctl(vcpu, PRE_FAULT, &prefault), "KVM_PRE_FAULT_MEMORY");
	with = store();
	uname(&host);
	printf("Linux %s: a store to a write-protected page takes %lu faults, after a prefault %lu\n", host.release, without, with);
	if (!without) {
		fprintf(stderr, "a write-protected page takes no fault here\n");
		return 77;
	}
	return with == 0;
}
