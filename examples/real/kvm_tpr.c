/*
 * LINUX-2: the low four bits of TPR that user space set are lost at the first exit, on AMD, with AVIC and without.
 *
 * KVM_SET_LAPIC sets TPR to 0xFF; the guest runs one OUT and does not touch its local APIC; KVM_GET_LAPIC then has 0xF0.
 * The exit path writes CR8, which has the upper four bits alone, back to TPR.
 *
 *     cc -O1 -o kvm_tpr kvm_tpr.c && ./kvm_tpr
 *
 * Exit code: 0 TPR is as it was set, 1 it is not, 77 there is no KVM here.
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
#include <unistd.h>

#define TPR 0x80

static long need(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(77);
	}
	return result;
}

int main(void)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_userspace_memory_region region = { .memory_size = 4096 };
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;
	struct kvm_lapic_state apic;
	int kvm = need(open("/dev/kvm", O_RDWR), "/dev/kvm"), vm, vcpu;
	unsigned char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	vm = need(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	need(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	memory[0] = 0xe6; /* out 0x10, al */
	memory[1] = 0x10;
	region.userspace_addr = (uintptr_t)memory;
	need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	vcpu = need(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	need(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	need(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	need(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

	need(ioctl(vcpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
	apic.regs[TPR] = (char)0xff;
	need(ioctl(vcpu, KVM_SET_LAPIC, &apic), "KVM_SET_LAPIC");
	need(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	need(ioctl(vcpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");

	printf("TPR is 0x%02x\n", (unsigned char)apic.regs[TPR]);
	return (unsigned char)apic.regs[TPR] != 0xff;
}
