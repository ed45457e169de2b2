/*
 * KVM-1: while the handler of an interrupt runs, KVM_GET_LAPIC shows neither ISR nor PPR.
 *
 * One vCPU with an in-kernel local APIC is sent vector 0x51 and takes it in real mode; its handler writes to a port,
 * and there the local APIC is looked at. By the manuals ISR has 0x51 until EOI, and PPR is 0x50.
 *
 *     cc -O1 -o kvm_isr kvm_isr.c && ./kvm_isr
 *
 * Exit code: 0 ISR and PPR are as the manuals have them, 1 they are not, 77 there is no KVM here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#define VECTOR 0x51
#define CODE 0x1000
#define HANDLER 0x1100

static void need(long ok, const char *what)
{
	if (ok < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(77);
	}
}

static unsigned int reg(const struct kvm_lapic_state *apic, int offset)
{
	unsigned int value;

	memcpy(&value, apic->regs + offset, sizeof(value));
	return value;
}

static void set_reg(struct kvm_lapic_state *apic, int offset, unsigned int value)
{
	memcpy(apic->regs + offset, &value, sizeof(value));
}

int main(void)
{
	static const unsigned char code[] = { 0xfb, 0x90, 0xeb, 0xfd };		/* sti; nop; jmp -3 */
	static const unsigned char handler[] = { 0xe6, 0x10 };			/* out %al, $0x10 */
	static const unsigned short gate[] = { HANDLER, 0 };
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_userspace_memory_region region = { .memory_size = 0x2000 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = VECTOR };
	struct kvm_lapic_state apic;
	struct kvm_sregs sregs;
	struct kvm_regs regs = { .rip = CODE, .rsp = CODE, .rflags = 2 };
	struct kvm_run *run;
	struct utsname host;
	unsigned int isr, ppr;
	unsigned char *memory;
	int kvm, vm, vcpu, size;

	need(kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	need(vm = ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	need(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	need(vcpu = ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	need(size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	memory = mmap(NULL, 0x2000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(run == MAP_FAILED || memory == MAP_FAILED ? -1 : 0, "mmap");
	region.userspace_addr = (unsigned long)memory;
	need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	memcpy(memory + CODE, code, sizeof(code));
	memcpy(memory + HANDLER, handler, sizeof(handler));
	memcpy(memory + 4 * VECTOR, gate, sizeof(gate));

	need(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	need(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	need(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	need(ioctl(vcpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
	set_reg(&apic, 0xf0, 0x1ff);
	need(ioctl(vcpu, KVM_SET_LAPIC, &apic), "KVM_SET_LAPIC");
	need(ioctl(vm, KVM_SIGNAL_MSI, &msi), "KVM_SIGNAL_MSI");

	alarm(10);	/* no guest of ours takes as long */
	need(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO) {
		fprintf(stderr, "exit reason %u instead of the handler's OUT\n", run->exit_reason);
		return 77;
	}
	need(ioctl(vcpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
	isr = reg(&apic, 0x100 + 0x10 * (VECTOR / 32)) >> VECTOR % 32 & 1;
	ppr = reg(&apic, 0xa0);
	uname(&host);
	printf("Linux %s: in the handler of vector %#x, ISR[%#x] = %u (expected 1), PPR = %#x (expected %#x)\n",
	       host.release, VECTOR, VECTOR, isr, ppr, VECTOR & 0xf0);
	return isr == 1 && ppr == (VECTOR & 0xf0) ? 0 : 1;
}
