"""What the driver remembers of a vCPU, and where what is kept."""

from __future__ import annotations

from conformance.specs.cet import constants as k

INVALID = 1
"""An MSR handler refuses a value or an access."""
UNSUPPORTED = 2
"""An MSR handler does not know the MSR, or the vCPU does not have it."""

SWITCHED_FIELDS = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
VMCB_OF = {
    k.GUEST_S_CET: k.VMCB_S_CET,
    k.GUEST_SSP: k.VMCB_SSP,
    k.GUEST_INTR_SSP_TABLE: k.VMCB_ISST_ADDR,
}
"""Where SVM keeps what VMX has in a guest field."""
FIELD_OF_MSR = {
    k.S_CET: k.GUEST_S_CET,
    k.INT_SSP_TAB: k.GUEST_INTR_SSP_TABLE,
    k.INTERNAL_GUEST_SSP: k.GUEST_SSP,
}
SUPERVISOR_POINTERS = (k.PL0_SSP, k.PL1_SSP, k.PL2_SSP)
PASSABLE = (k.U_CET, k.S_CET, *k.POINTER_MSRS)
"""MSRs that a guest may get to access without an exit."""


class Vcpu:
    """What the driver remembers of one vCPU."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.offered: tuple[bool, bool, bool, bool, int] | None = None
        self.shstk = False
        self.ibt = False
        self.lm = False
        self.xsaves = False
        self.supported_xss = 0
        self.ran = False
        self.xss = 0
        self.xsaves_size = k.XSAVE_BASE_SIZE
        self.denied: tuple[int, ...] = ()
        self.smm = False
        self.l2 = False
        self.entered = False
        """L2 ran on it."""
        self.cpu = 0
        self.vmcb_cpu = [-1, -1]
        """Physical CPU of the last VMRUN of each VMCB."""
        self.l1_state = (0, 0)
        """CR0 and CR4 of L1 while SVM runs L2."""
        # the manual swap of the seed and of v5
        self.ssp = [0, 0, 0]
        self.active = False
        self.in_hardware = False
        self.running = False
