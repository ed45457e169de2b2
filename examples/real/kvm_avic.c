/*
 * LINUX-1, LINUX-3, LINUX-8 and LINUX-9: what AVIC's tables say of vCPUs, read from /proc/kcore by root, on a kernel
 * without lockdown.
 *
 * LINUX-1: a second vCPU of an id is refused with EEXIST, but the entry of the physical table then names its backing
 * page, which is freed, and not that of the vCPU that is there.
 * LINUX-3: KVM_SET_LAPIC with another DFR and the LDR that was there leaves the vCPU without a valid entry in the
 * logical table; and a vCPU that leaves an LDR which another has, too, takes the entry away from both.
 * LINUX-8: an LDR of two bits has a valid entry, of the lower bit.
 * LINUX-9: an LDR that is set while vCPU 0 has the xAPIC id 1 has an entry that names vCPU 1, and keeps it when the id
 * is 0 again and AVIC is on.
 *
 *     cc -O1 -o kvm_avic kvm_avic.c && modprobe kvm_amd avic=1 && ./kvm_avic
 *
 * Exit code: 0 the tables are right; else 1 for LINUX-1, 2 for LINUX-3 by DFR, 4 for LINUX-3 by an alias, 8 for
 * LINUX-8, 16 for LINUX-9, added up; 77 there is no AVIC here, or no /proc/kcore.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#define APIC_BASE 0xfee00000ull
#define ADDRESS 0xffffffffff000ull
#define VALID 0x80000000u
#define ID 0x20
#define LDR 0xd0
#define DFR 0xe0
#define SPIV 0xf0
/* In a VMCB. */
#define INT_CTL 0x60
#define V_INTR_MASKING (1u << 24)
#define APIC_BAR 0x98
#define BACKING_PAGE 0xe0
#define LOGICAL_TABLE 0xf0
#define PHYSICAL_TABLE 0xf8
#define FS_BASE 0x448

#define CHUNK (1 << 20)

static int kvm, kcore;
static Elf64_Phdr segments[256];
static int n_segments;

static long need(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(77);
	}
	return result;
}

static void open_kcore(void)
{
	Elf64_Ehdr head;
	int i;

	kcore = need(open("/proc/kcore", O_RDONLY), "/proc/kcore");
	need(pread(kcore, &head, sizeof(head), 0) - (ssize_t)sizeof(head), "/proc/kcore");
	for (i = 0; i < head.e_phnum && n_segments < 256; i++) {
		Elf64_Phdr *s = &segments[n_segments];

		need(pread(kcore, s, sizeof(*s), head.e_phoff + i * sizeof(*s)) - (ssize_t)sizeof(*s), "/proc/kcore");
		n_segments += s->p_type == PT_LOAD && s->p_paddr != (Elf64_Addr)-1;
	}
}

static void read_memory(uint64_t address, void *to, size_t size)
{
	int i;

	for (i = 0; i < n_segments; i++) {
		Elf64_Phdr *s = &segments[i];

		if (address >= s->p_paddr && address + size <= s->p_paddr + s->p_memsz &&
		    pread(kcore, to, size, s->p_offset + address - s->p_paddr) == (ssize_t)size)
			return;
	}
	fprintf(stderr, "no memory at %#llx\n", (unsigned long long)address);
	exit(77);
}

static uint64_t word(uint64_t address)
{
	uint64_t value;

	read_memory(address, &value, sizeof(value));
	return value;
}

static unsigned int entry(uint64_t vmcb, int index)
{
	unsigned int value;

	read_memory((word(vmcb + LOGICAL_TABLE) & ADDRESS) + 4 * index, &value, sizeof(value));
	return value;
}

static int is_vmcb(const unsigned char *page, uint64_t mark)
{
	uint64_t base, bar;
	uint32_t control;

	memcpy(&base, page + FS_BASE, 8);
	memcpy(&bar, page + APIC_BAR, 8);
	memcpy(&control, page + INT_CTL, 4);
	return base == mark && bar == APIC_BASE && control & V_INTR_MASKING;
}

/* The VMCB of a vCPU: the page with the FS.base that only this one has. */
static uint64_t find_vmcb(uint64_t mark)
{
	static unsigned char memory[CHUNK];
	int i;

	for (i = 0; i < n_segments; i++) {
		Elf64_Phdr *s = &segments[i];
		uint64_t at;

		for (at = 0; at < s->p_memsz; at += CHUNK) {
			ssize_t n = s->p_memsz - at < CHUNK ? s->p_memsz - at : CHUNK, page;

			n = pread(kcore, memory, n, s->p_offset + at);
			for (page = 0; page + 4096 <= n; page += 4096)
				if (is_vmcb(memory + page, mark))
					return s->p_paddr + at + page;
		}
	}
	fprintf(stderr, "no VMCB with AVIC is found\n");
	exit(77);
}

static int create_vm(void)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	int vm = need(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");

	need(ioctl(vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	return vm;
}

static int create_vcpu(int vm, int id, uint64_t mark)
{
	int vcpu = need(ioctl(vm, KVM_CREATE_VCPU, id), "KVM_CREATE_VCPU");
	struct kvm_sregs sregs;

	need(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.fs.base = mark;
	need(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	return vcpu;
}

static void set_logical(int vcpu, unsigned int ldr, unsigned int dfr)
{
	struct kvm_lapic_state apic;
	unsigned int spiv = 0x1ff;

	need(ioctl(vcpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
	ldr <<= 24;
	memcpy(apic.regs + LDR, &ldr, 4);
	memcpy(apic.regs + DFR, &dfr, 4);
	memcpy(apic.regs + SPIV, &spiv, 4);
	need(ioctl(vcpu, KVM_SET_LAPIC, &apic), "KVM_SET_LAPIC");
}

static int shows_linux_1(void)
{
	int vm = create_vm(), wrong;
	uint64_t vmcb, own, named;

	create_vcpu(vm, 0, 0x5eed00000001);
	vmcb = find_vmcb(0x5eed00000001);
	own = word(vmcb + BACKING_PAGE) & ADDRESS;
	if (ioctl(vm, KVM_CREATE_VCPU, 0) >= 0 || errno != EEXIST) {
		fprintf(stderr, "a second vCPU of an id is not refused\n");
		exit(77);
	}
	named = word(word(vmcb + PHYSICAL_TABLE) & ADDRESS) & ADDRESS;
	wrong = named != own;
	printf("after a second vCPU 0 was refused, entry 0 names %s page\n", wrong ? "another" : "the first one's");
	return wrong;
}

static int shows_linux_3_by_dfr(void)
{
	int vcpu = create_vcpu(create_vm(), 0, 0x5eed00000002);
	uint64_t vmcb = find_vmcb(0x5eed00000002);
	unsigned int flat, cluster;

	set_logical(vcpu, 1, 0xffffffff);
	flat = entry(vmcb, 0);
	set_logical(vcpu, 1, 0x0fffffff);
	cluster = entry(vmcb, 0);
	printf("LDR 1: logical entry 0 is %svalid when flat, %svalid when DFR is that of clusters\n",
	       flat & VALID ? "" : "not ", cluster & VALID ? "" : "not ");
	return flat & VALID && !(cluster & VALID);
}

static int shows_linux_3_by_alias(void)
{
	int vm = create_vm(), first = create_vcpu(vm, 0, 0x5eed00000003), second = create_vcpu(vm, 1, 0x5eed00000004);
	uint64_t vmcb = find_vmcb(0x5eed00000003);
	int wrong;

	set_logical(first, 1, 0xffffffff);
	set_logical(second, 1, 0xffffffff);
	set_logical(second, 2, 0xffffffff);
	wrong = !(entry(vmcb, 0) & VALID);
	printf("LDR 1, which another had for a while: logical entry 0 is %svalid\n", wrong ? "not " : "");
	return wrong;
}

static int shows_linux_8(void)
{
	int vcpu = create_vcpu(create_vm(), 0, 0x5eed00000005);
	uint64_t vmcb = find_vmcb(0x5eed00000005);
	int wrong;

	set_logical(vcpu, 3, 0xffffffff);
	wrong = !!(entry(vmcb, 0) & VALID);
	printf("LDR 3: logical entry 0 is %svalid\n", wrong ? "" : "not ");
	return wrong;
}

static void set_id(int vcpu, unsigned int id)
{
	struct kvm_lapic_state apic;

	need(ioctl(vcpu, KVM_GET_LAPIC, &apic), "KVM_GET_LAPIC");
	id <<= 24;
	memcpy(apic.regs + ID, &id, 4);
	need(ioctl(vcpu, KVM_SET_LAPIC, &apic), "KVM_SET_LAPIC");
}

static int shows_linux_9(void)
{
	int vcpu = create_vcpu(create_vm(), 0, 0x5eed00000006);
	uint64_t vmcb = find_vmcb(0x5eed00000006);
	int active, names;

	set_id(vcpu, 1);
	set_logical(vcpu, 1, 0xffffffff);
	set_id(vcpu, 0);
	ioctl(vcpu, KVM_RUN, 0); /* there is no memory, so it comes back at once; AVIC is on then, or is not */
	active = word(vmcb + INT_CTL) >> 31 & 1;
	names = entry(vmcb, 0) & 0xff;
	printf("LDR set while the id was another: AVIC is %s, logical entry 0 names vCPU %d\n", active ? "on" : "off", names);
	return active && entry(vmcb, 0) & VALID && names;
}

int main(void)
{
	struct utsname host;

	kvm = need(open("/dev/kvm", O_RDWR), "/dev/kvm");
	open_kcore();
	uname(&host);
	printf("Linux %s\n", host.release);
	fflush(stdout);
	return shows_linux_1() | shows_linux_3_by_dfr() << 1 | shows_linux_3_by_alias() << 2 | shows_linux_8() << 3 |
	       shows_linux_9() << 4;
}
