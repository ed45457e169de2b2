/*
 * KVM-3: a pending interrupt is not taken when the guest allows interrupts.
 *
 * One vCPU with an in-kernel local APIC has vector 0x51 pending when it starts to run in real mode. It executes STI,
 * 64 NOPs and a write to port 0x20; the handler writes to port 0x10. By the manuals the interrupt is taken after the
 * instruction that follows STI, so the first write is the handler's.
 *
 *     cc -O1 -o kvm_window kvm_window.c && ./kvm_window
 *
 * Exit code: 0 it is, 1 it is not, 77 there is no KVM here.
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

static void set_reg(struct kvm_lapic_state *apic, int offset, unsigned int value)
{
	memcpy(apic->regs + offset, &value, sizeof(value));
}

int main(void)
{
	static const unsigned char last[] = { 0xe6, 0x20 };			/* out %al, $0x20 */
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
	unsigned int port;
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
	memory[CODE] = 0xfb;			/* sti */
	memset(memory + CODE + 1, 0x90, 64);	/* nop */
	memcpy(memory + CODE + 65, last, sizeof(last));
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
		fprintf(stderr, "exit reason %u instead of an OUT\n", run->exit_reason);
		return 77;
	}
	port = run->io.port;
	uname(&host);
	printf("Linux %s: with vector %#x pending, the first write after STI is to port %#x (expected 0x10)\n",
	       host.release, VECTOR, port);
	return port == 0x10 ? 0 : 1;
}
