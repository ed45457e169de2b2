"""Loading the module, and what KVM tells userspace."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream.vcpu import Vcpu
from conformance.specs.cet import Port
from conformance.specs.cet.constants import EIO, INT_SSP_TAB, POINTER_MSRS, S_CET, U_CET, XSS


class Module:
    """What KVM offers on this host: x86.c, the set-up of vmx.c and svm.c."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.vcpus: dict[int, Vcpu] = {}
        self.svm = False
        self.shstk = False
        self.ibt = False
        self.xss = 0
        self.lm = False
        self.width = 48
        self.host_s_cet = 0
        self.host_xss = 0
        self.ignore_msrs = False
        self.advertised: tuple[int, ...] = ()
        self.nested_cet = False

    def vendor_init(self) -> int:
        """Sample the host, derive what KVM offers, then what nested VMX and userspace are told."""
        cap = self.port.host_cap
        self.svm = cap("vendor") == 1
        self.width = cap("width")
        self.lm = cap("lm") == 1
        self.ignore_msrs = cap("ignore_msrs") == 1
        self.host_s_cet = 0
        if cap("shstk") or (cap("ibt") and not self.svm):
            self.host_s_cet = self.port.rdmsr(S_CET)
            if self.host_s_cet & 1:
                return -EIO
        self.host_xss = self.port.rdmsr(XSS) if cap("xsaves") else 0
        self.set_caps()
        self.nested_cet = not self.svm and (self.shstk or self.ibt)
        self.advertised = self.probe_msrs()
        return 0

    def set_caps(self) -> None:
        """SHSTK, IBT and the XSS bits this host allows."""
        cap = self.port.host_cap
        self.xss = cap("xss") & 0x1800 if cap("xsaves") else 0
        self.shstk = cap("shstk") == 1
        self.ibt = cap("ibt") == 1 and not self.svm
        if not cap("tdp"):
            self.shstk = False
        if cap("smaller_maxphyaddr") or not self.vendor_can():
            self.shstk = self.ibt = False
        self.settle_xss()

    def vendor_can(self) -> bool:
        """The prerequisites of VMX; SVM has none."""
        if self.svm:
            return True
        cap = self.port.host_cap
        return bool(cap("load_cet_entry") and cap("load_cet_exit") and cap("unrestricted") and cap("basic56"))

    def settle_xss(self) -> None:
        """Features and XSS bits stand or fall together."""
        if self.xss & 0x1800 != 0x1800:
            self.shstk = self.ibt = False
        if not self.shstk and not self.ibt:
            self.xss &= ~0x1800

    def probe_msrs(self) -> tuple[int, ...]:
        """The MSR index list."""
        msrs: list[int] = []
        if self.shstk or self.ibt:
            msrs += [U_CET, S_CET]
        if self.shstk:
            msrs += POINTER_MSRS
        if self.shstk and self.lm:
            msrs.append(INT_SSP_TAB)
        if self.xss:
            msrs.append(XSS)
        return tuple(msrs)

    def kvm_caps(self) -> tuple[bool, bool, int]:
        """What was derived."""
        return self.shstk, self.ibt, self.xss

    def nested_load_cet(self) -> bool:
        """What nested VMX was given."""
        return self.nested_cet

    def get_msr_index_list(self) -> tuple[int, ...]:
        """What was probed."""
        return self.advertised
