"""What KVM keeps of the host and of each vCPU: kvm_caps, kvm_host and struct kvm_vcpu_arch."""

from __future__ import annotations

from conformance.specs.cet.constants import READ, WRITE

RW = READ | WRITE
CET_ALL = 0x1800
"""XFEATURE_MASK_CET_ALL: components 11 and 12."""
UNSUPPORTED = 2
"""KVM_MSR_RET_UNSUPPORTED."""
FILTERED = 3
"""KVM_MSR_RET_FILTERED."""
U64 = (1 << 64) - 1


def is_noncanonical(address: int, bits: int) -> bool:
    """Whether bits 63 to `bits` - 1 of a linear address differ from one another."""
    upper = (address & U64) >> (bits - 1)
    return upper not in (0, U64 >> (bits - 1))


class Caps:
    """kvm_caps, KVM's CPU capabilities, and what was sampled of the host when the module was loaded."""

    def __init__(self) -> None:
        self.shstk = False
        self.ibt = False
        self.lm = False
        self.xsaves = False
        self.supported_xss = 0
        self.host_xss = 0
        """kvm_host.xss."""
        self.host_s_cet = 0
        """kvm_host.s_cet."""
        self.load_cet = False
        """cpu_has_load_cet_ctrl(): both halves of the pair of controls."""
        self.width = 48
        """max_host_virt_addr_bits()."""


class Vcpu:
    """struct kvm_vcpu, as far as CET goes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cpu = 0
        self.has_run = False
        self.cpuid: tuple[bool, bool, bool, bool, int] | None = None
        self.shstk = False
        self.ibt = False
        self.lm = False
        self.xsaves = False
        self.supported_xss = 0
        self.xss = 0
        self.denied: tuple[int, ...] = ()
        self.recalc_intercepts = False
        """KVM_REQ_RECALC_INTERCEPTS."""
        self.nested_pages = False
        """KVM_REQ_GET_NESTED_STATE_PAGES."""
        self.intercepts: dict[int, int] = {}
        """Accesses that the bitmap of vmcs01 or vmcb01 stops, by MSR; everything where it has no entry."""
        self.guest_mode = False
        self.run_pending = False
        """nested_run_pending."""
        self.smm_guest_mode = False
        """The SMI came while L2 ran."""
        self.pre_vmenter = (0, 0, 0)
        """S_CET, SSP and table in force before an entry that does not load them."""
        self.l1_crs = (0, 0)
        """CR0 and CR4 in the save area of vmcb01."""
        self.last_vmcb12 = -1
        """last_vmcb12_gpa."""
        self.vmcb_cpu = [-1, -1]
        """Physical CPU of each VMCB's last VMRUN."""

    def has_cet(self) -> bool:
        """SHSTK or IBT."""
        return self.shstk or self.ibt
