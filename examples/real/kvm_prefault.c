/*
 * LINUX-4: KVM_PRE_FAULT_MEMORY does not end after a memory slot was deleted.
 *
 * A vCPU has a root from one prefault; the deletion of another slot makes that root obsolete. Until the vCPU runs, each
 * further prefault tries again and again, since nothing in it drops the root: only a signal ends it.
 *
 *     cc -O1 -o kvm_prefault kvm_prefault.c && ./kvm_prefault
 *
 * Exit code: 0 it ends by itself, 1 only the signal ended it, 77 there is no KVM_PRE_FAULT_MEMORY here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct pre_fault {
	uint64_t gpa, size, flags, padding[5];
};
#define PRE_FAULT _IOWR(KVMIO, 0xd5, struct pre_fault)
#define CAP_PRE_FAULT 236

static void nothing(int signal) { (void)signal; }

static long need(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(77);
	}
	return result;
}

static void slot(int vm, unsigned int number, uint64_t gpa, uint64_t size, void *memory)
{
	struct kvm_userspace_memory_region region = {
		.slot = number, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)memory,
	};

	need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

int main(void)
{
	struct sigaction action = { .sa_handler = nothing };
	struct pre_fault first = { .size = 4096 }, second = { .size = 4096 };
	int kvm = need(open("/dev/kvm", O_RDWR), "/dev/kvm");
	int vm = need(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	int vcpu = need(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ioctl(kvm, KVM_CHECK_EXTENSION, CAP_PRE_FAULT) <= 0) {
		fprintf(stderr, "no KVM_PRE_FAULT_MEMORY here\n");
		return 77;
	}
	memset(memory, 1, 8192);
	slot(vm, 0, 0, 4096, memory);
	need(ioctl(vcpu, PRE_FAULT, &first), "KVM_PRE_FAULT_MEMORY");
	slot(vm, 1, 1 << 20, 4096, memory + 4096);
	slot(vm, 1, 1 << 20, 0, memory + 4096);

	sigaction(SIGALRM, &action, NULL);
	alarm(2);
	if (ioctl(vcpu, PRE_FAULT, &second) < 0 && errno == EINTR) {
		printf("the prefault did not end within 2 s\n");
		return 1;
	}
	printf("the prefault ended\n");
	return 0;
}
