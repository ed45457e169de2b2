"""VMs and vCPUs as the driver keeps them."""

from __future__ import annotations

from conformance.specs.avic.constants import BASE_AE, BASE_EXTD, FLAT

LVR = 0x00050014
ACCESS_SLOT = 509
"""Private memslot of the APIC access page."""
HOST_ID = 0xFFF


class Kvm:
    """One VM."""

    def __init__(self, vm: int, irqchip: int, max_vcpu_ids: int) -> None:
        self.vm = vm
        self.irqchip = bool(irqchip)
        self.max_vcpu_ids = max_vcpu_ids
        self.vcpus: dict[int, Vcpu] = {}
        self.taken: set[int] = set()
        """Ids that exist or are being created."""
        self.phys_table = 0
        self.logical_table = 0
        self.inhibits = 0
        self.access_page = False
        self.access_page_gone = False
        self.vm_id = 0


class Vcpu:
    """One vCPU."""

    def __init__(self, kvm: Kvm, handle: int, vcpu_id: int) -> None:
        self.kvm = kvm
        self.handle = handle
        self.id = vcpu_id
        self.regs = 0
        """Address of the register page."""
        self.apic_base = 0
        self.apicv_active = False
        self.addressable = True
        self.entry = 0
        """Software copy of the physical entry."""
        self.ldr = 0
        self.dfr = FLAT
        """What the logical table was last told."""
        self.blocking = False
        self.irqs: dict[int, int] = {}
        """Device interrupts routed to this vCPU, and their vectors."""
        self.posting = False
        """Whether their IRTEs are posted; they are in host mode while AVIC is inactive."""

    @property
    def enabled(self) -> bool:
        """APIC enabled in hardware."""
        return bool(self.apic_base >> BASE_AE & 1)

    @property
    def x2(self) -> bool:
        """X2APIC mode."""
        return self.apic_base >> BASE_AE & 1 == 1 and self.apic_base >> BASE_EXTD & 1 == 1
