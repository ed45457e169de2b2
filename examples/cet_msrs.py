"""CET state of a hypervisor on Intel in ninety lines: a first draft, with what a first draft gets wrong.

conformance run cet --candidate examples/cet_msrs.py:Msrs
"""

EIO, EFAULT, EINVAL = 5, 14, 22
U_CET, S_CET, SSP_TABLE, XSS = 0x6A0, 0x6A2, 0x6A8, 0xDA0
POINTERS = (0x6A4, 0x6A5, 0x6A6, 0x6A7)  # PL0_SSP to PL3_SSP
FIELDS = {S_CET: 0x6828, SSP_TABLE: 0x682C}  # what the VMCS carries; the guest FPU has the rest
HOST_S_CET, EXIT_CONTROLS, ENTRY_CONTROLS = 0x6C18, 0x400C, 0x4012
CR0_WP, CR4_CET = 1 << 16, 1 << 23
BOTH = 3


class Vcpu:
    shstk = ibt = False
    xss = 0


class Msrs:
    """Keeps no value twice: an MSR is where hardware has it."""

    capabilities = frozenset()  # no one-reg, xsave, smm, nested, emulator

    def __init__(self, port):
        self.port, self.vcpus = port, {}

    def vendor_init(self):
        cap = self.port.host_cap
        self.shstk, self.ibt = bool(cap("shstk")), bool(cap("ibt"))
        self.xss = cap("xss") & 0x1800
        return 0

    def kvm_caps(self):
        return self.shstk, self.ibt, self.xss

    def get_msr_index_list(self):
        return (U_CET, S_CET, *POINTERS, SSP_TABLE, XSS)

    def vcpu_create(self, vcpu):
        if self.port.alloc_guest_fpstate(vcpu):
            return -12
        self.vcpus[vcpu] = Vcpu()
        self.port.vmcs_load(vcpu, 1)
        self.port.vmcs_write(vcpu, ENTRY_CONTROLS, 1 << 20)
        self.port.vmcs_write(vcpu, EXIT_CONTROLS, 1 << 28)
        return 0

    def vcpu_destroy(self, vcpu):
        self.port.free_guest_fpstate(vcpu)

    def set_cpuid(self, vcpu, shstk, ibt, lm, xsaves, xss):
        v = self.vcpus[vcpu]
        v.shstk, v.ibt, v.mask = shstk and self.shstk, ibt and self.ibt, xss & self.xss
        for msr in (U_CET, S_CET, *POINTERS):
            self.port.set_intercept(vcpu, 1, msr, BOTH, not v.shstk)
        return 0

    def set_msr_filter(self, vcpu, denied):
        for msr in denied:
            self.port.set_intercept(vcpu, 1, msr, BOTH, True)

    def vcpu_load(self, vcpu, cpu):
        pass

    def vcpu_put(self, vcpu):
        pass

    def run_begin(self, vcpu):
        self.port.load_guest_fpu(vcpu)

    def run_end(self, vcpu):
        self.port.put_guest_fpu(vcpu)

    def sched_out(self, vcpu):
        pass

    def sched_in(self, vcpu, cpu):
        pass

    def enter_guest(self, vcpu):
        self.port.wrmsr(XSS, self.vcpus[vcpu].xss)

    def exit_guest(self, vcpu):
        self.port.wrmsr(XSS, 0)

    def guest_wrmsr(self, vcpu, msr, value):
        v = self.vcpus[vcpu]
        if msr == XSS:
            if value & ~v.mask:
                return 1
            v.xss = value
        elif msr in FIELDS:
            self.port.vmcs_write(vcpu, FIELDS[msr], value)
        elif msr in POINTERS and value & 3:
            return 1
        else:
            self.port.wrmsr(msr, value)
        return 0

    def guest_rdmsr(self, vcpu, msr):
        if msr == XSS:
            return 0, self.vcpus[vcpu].xss
        return 0, self.port.vmcs_read(vcpu, FIELDS[msr]) if msr in FIELDS else self.port.rdmsr(msr)

    def set_msrs(self, vcpu, entries):
        self.port.load_guest_fpu(vcpu)
        done = 0
        for msr, value in entries:
            if self.guest_wrmsr(vcpu, msr, value):
                break
            done += 1
        self.port.put_guest_fpu(vcpu)
        return done

    def get_msrs(self, vcpu, indices):
        self.port.load_guest_fpu(vcpu)
        values = tuple(self.guest_rdmsr(vcpu, msr)[1] for msr in indices)
        self.port.put_guest_fpu(vcpu)
        return len(values), values

    def set_cr0(self, vcpu, value):
        self.port.write_cr(vcpu, 0, value)
        return 0

    def set_cr4(self, vcpu, value):
        if value & CR4_CET and not self.port.read_cr(vcpu, 0) & CR0_WP:
            return 1
        self.port.write_cr(vcpu, 4, value)
        return 0

    def set_sregs(self, vcpu, cr0, cr4):
        return -EINVAL if self.set_cr0(vcpu, cr0) or self.set_cr4(vcpu, cr4) else 0

    def vcpu_reset(self, vcpu, init):
        self.port.write_cr(vcpu, 4, self.port.read_cr(vcpu, 4) & ~CR4_CET)
        self.port.write_cr(vcpu, 0, self.port.read_cr(vcpu, 0) & ~CR0_WP)
        for field in FIELDS.values():
            self.port.vmcs_write(vcpu, field, 0)

    def get_mp_state(self, vcpu):
        if self.port.take_init(vcpu):
            self.vcpu_reset(vcpu, True)
        return 0

    def cpuid_xsaves_size(self, vcpu):
        return 576
