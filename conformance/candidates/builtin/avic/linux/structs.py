"""What Linux keeps for a VM, a vCPU and a device interrupt."""

from __future__ import annotations

from dataclasses import dataclass, field

from conformance.candidates.builtin.avic.linux.irq_comm import ApicMap
from conformance.specs.avic.constants import BASE_AE, BASE_EXTD, FLAT

CLEAN, DIRTY = range(2)
"""States of `Kvm.apic_map_dirty`."""


@dataclass(slots=True)
class Irqfd:
    """A device interrupt on the list of the vCPU it goes to."""

    irq: int
    vector: int
    guest_mode: bool
    """The IRTE posts; in host mode it stays on the list, for when AVIC comes back."""


@dataclass(slots=True, eq=False)
class Vcpu:
    """struct vcpu_svm and the struct kvm_lapic behind it."""

    handle: int
    kvm: Kvm
    id: int
    idx: int = -1
    apic: int = 0
    """Handle of struct kvm_lapic; 0 without an in-kernel APIC."""
    regs: int = 0
    """The register page, which is AVIC's backing page too."""
    msrpm: int = 0
    apic_base: int = 1 << BASE_AE
    apicv_active: bool = False
    sw_enabled: bool = False
    """SPIV bit 8 as software applied it; hardware may have written the page before."""
    addressable: bool = True
    """Its id has an entry in the physical table."""
    entry: int = 0
    """Shadow of the physical entry, with the synthetic GA_LOG_INTR."""
    ldr_reg: int = 0
    dfr_reg: int = FLAT
    """The LDR and DFR that its logical entry was made from."""
    ir_list: dict[int, Irqfd] = field(default_factory=dict)
    cpu: int = -1
    blocking: bool = False
    asid: int = 0
    asid_generation: int = 0
    asid_cpu: int = -1
    x2avic_msrs_intercepted: bool = True

    @property
    def hw_enabled(self) -> bool:
        """APIC_BASE.AE, and an APIC in the kernel: kvm_apic_present."""
        return self.apic != 0 and self.apic_base >> BASE_AE & 1 == 1

    @property
    def x2apic(self) -> bool:
        """apic_x2apic_mode."""
        return self.apic_base >> BASE_EXTD & 1 == 1


@dataclass(slots=True, eq=False)
class Kvm:
    """struct kvm_svm."""

    id: int
    handle: int
    irqchip: bool
    max_vcpu_ids: int
    vcpus: list[Vcpu] = field(default_factory=list)
    ids: set[int] = field(default_factory=set)
    """Ids taken, also by vCPUs that are still being created."""
    inhibits: int = 0
    apic_map: ApicMap | None = None
    apic_map_dirty: int = CLEAN
    access_page: bool = False
    """The slot at the APIC's default base is there."""
    access_page_inhibited: bool = False
    physical_table: int = 0
    logical_table: int = 0
    vm_id: int = 0
