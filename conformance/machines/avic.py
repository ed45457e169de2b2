"""The Hypothesis machine of avic: one rule per operation."""

from __future__ import annotations

from typing import Any

from hypothesis.stateful import initialize, rule

from conformance.machines.base import Machine
from conformance.model.avic import Config, requires
from conformance.model.avic import operations as s
from conformance.model.step import Fault, Step
from conformance.strategies.avic import shapes as ops

Faults = tuple[Fault, ...]
During = tuple[tuple[int, Step], ...]


class Avic(Machine):
    """Drive an AVIC driver or a router and the model with the same operations."""

    SUBSYSTEM = "avic"

    @initialize(config=ops.configs())
    def start(self, config: Config) -> None:
        """Load the module on a host, with the configured vCPUs."""
        if requires(config) <= type(self).capabilities:
            self.begin(config)

    @rule(op=ops.operations(s.Route))
    def route(self, op: Any) -> None:
        """Who accepts this message?"""
        self.take(op)

    @rule(op=ops.operations(s.SignalMsi))
    def signal_msi(self, op: Any) -> None:
        """What does KVM_SIGNAL_MSI return for this message?"""
        self.take(op)

    @rule(op=ops.operations(s.HwSetup))
    def hw_setup(self, op: Any) -> None:
        """The module is loaded on such a host with such parameters."""
        self.take(op)

    @rule(op=ops.operations(s.HwUnsetup))
    def hw_unsetup(self, op: Any) -> None:
        """Module exit and load: what was registered is given back, and registered again."""
        self.take(op)

    @rule(op=ops.operations(s.VmCreate), faults=ops.faults(s.VmCreate))
    def vm_create(self, op: Any, faults: Faults) -> None:
        """Create a VM."""
        self.take(op, faults)

    @rule(op=ops.operations(s.VmDestroy), during=ops.during(s.VmDestroy))
    def vm_destroy(self, op: Any, during: During) -> None:
        """Destroy a VM with all its vCPUs."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.VmTag))
    def vm_tag(self, op: Any) -> None:
        """Is the VM's tag unique among live VMs and not 0?"""
        self.take(op)

    @rule(op=ops.operations(s.VcpuCreate), faults=ops.faults(s.VcpuCreate))
    def vcpu_create(self, op: Any, faults: Faults) -> None:
        """Create a vCPU; RESET follows."""
        self.take(op, faults)

    @rule(op=ops.operations(s.VcpuFree))
    def vcpu_free(self, op: Any) -> None:
        """Free a vCPU while its VM lives on."""
        self.take(op)

    @rule(op=ops.operations(s.TagsPass))
    def tags_pass(self, op: Any) -> None:
        """So many VMs come and go that the generator of tags stands elsewhere."""
        self.take(op)

    @rule(op=ops.operations(s.VcpuReset))
    def vcpu_reset(self, op: Any) -> None:
        """RESET or INIT of a vCPU outside the guest."""
        self.take(op)

    @rule(op=ops.operations(s.VmcbReinit))
    def vmcb_reinit(self, op: Any) -> None:
        """A SHUTDOWN exit left the VMCB undefined."""
        self.take(op)

    @rule(op=ops.operations(s.Enter))
    def enter(self, op: Any) -> None:
        """A short visit to the guest of a vCPU that is not loaded: load, VMRUN, an accelerated TPR write, exit, put."""
        self.take(op)

    @rule(op=ops.operations(s.SetLapic))
    def set_lapic(self, op: Any) -> None:
        """KVM_SET_LAPIC with reset values but for these registers."""
        self.take(op)

    @rule(op=ops.operations(s.GetLapic))
    def get_lapic(self, op: Any) -> None:
        """Read one register through KVM_GET_LAPIC."""
        self.take(op)

    @rule(op=ops.operations(s.HwapicUpdate))
    def hwapic_update(self, op: Any) -> None:
        """The common code reports the highest IRR and ISR vectors."""
        self.take(op)

    @rule(op=ops.operations(s.MemoryPressure))
    def memory_pressure(self, op: Any) -> None:
        """The host moves every page that nobody holds a reference to."""
        self.take(op)

    @rule(op=ops.operations(s.GuestStore))
    def guest_store(self, op: Any) -> None:
        """A vCPU stores to guest-physical page 0xFEE00 + n, n > 0, as to memory."""
        self.take(op)

    @rule(op=ops.operations(s.UserStore))
    def user_store(self, op: Any) -> None:
        """User space stores into its mapping of memory at guest-physical page 0xFEE00 + n."""
        self.take(op)

    @rule(op=ops.operations(s.SetApicBase))
    def set_apic_base(self, op: Any) -> None:
        """Write the APIC_BASE MSR."""
        self.take(op)

    @rule(op=ops.operations(s.Load), during=ops.during(s.Load))
    def load(self, op: Any, during: During) -> None:
        """The vCPU's thread gets a core."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.Put), during=ops.during(s.Put))
    def put(self, op: Any, during: During) -> None:
        """The vCPU's thread loses its core; it leaves the guest first."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.Exit))
    def exit(self, op: Any) -> None:
        """The vCPU leaves the guest, by HLT or for the host's sake, and stays outside."""
        self.take(op)

    @rule(op=ops.operations(s.Block), during=ops.during(s.Block))
    def block(self, op: Any, during: During) -> None:
        """A vCPU outside the guest has nothing to do."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.Unblock), during=ops.during(s.Unblock))
    def unblock(self, op: Any, during: During) -> None:
        """A sleeping vCPU wakes for a reason of its own."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.VmRun))
    def vm_run(self, op: Any) -> None:
        """Enter the guest and stay."""
        self.take(op)

    @rule(op=ops.operations(s.GuestIpi), during=ops.during(s.GuestIpi))
    def guest_ipi(self, op: Any, during: During) -> None:
        """A vCPU in the guest writes its ICR."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.GuestSelfIpi))
    def guest_self_ipi(self, op: Any) -> None:
        """A vCPU in the guest, in x2APIC mode, writes SELF_IPI."""
        self.take(op)

    @rule(op=ops.operations(s.GuestWrite))
    def guest_write(self, op: Any) -> None:
        """A vCPU in the guest writes an APIC register other than EOI and ICR."""
        self.take(op)

    @rule(op=ops.operations(s.GuestRead))
    def guest_read(self, op: Any) -> None:
        """A vCPU in the guest reads an APIC register."""
        self.take(op)

    @rule(op=ops.operations(s.GuestEoi))
    def guest_eoi(self, op: Any) -> None:
        """A vCPU in the guest ends its highest interrupt."""
        self.take(op)

    @rule(op=ops.operations(s.HandleExit))
    def handle_exit(self, op: Any) -> None:
        """The handler of a deferred exit runs, and the guest resumes."""
        self.take(op)

    @rule(op=ops.operations(s.RawIpiExit))
    def raw_ipi_exit(self, op: Any) -> None:
        """An AVIC_INCOMPLETE_IPI exit with any content."""
        self.take(op)

    @rule(op=ops.operations(s.RawNoaccel))
    def raw_noaccel(self, op: Any) -> None:
        """An AVIC_NOACCEL exit with any content."""
        self.take(op)

    @rule(op=ops.operations(s.Deliver), during=ops.during(s.Deliver))
    def deliver(self, op: Any, during: During) -> None:
        """The host sends a fixed interrupt to a vCPU."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.Inhibit), during=ops.during(s.Inhibit))
    def inhibit(self, op: Any, during: During) -> None:
        """Somebody sets or clears an inhibit reason of VM 0."""
        self.take(op, (), during)

    @rule(op=ops.operations(s.UpdateIrte), faults=ops.faults(s.UpdateIrte))
    def update_irte(self, op: Any, faults: Faults) -> None:
        """Route a device interrupt to a vCPU, or to none (-1)."""
        self.take(op, faults)

    @rule(op=ops.operations(s.IommuPost))
    def iommu_post(self, op: Any) -> None:
        """The device raises its posted interrupt."""
        self.take(op)

    @rule(op=ops.operations(s.GaLogNotify))
    def ga_log_notify(self, op: Any) -> None:
        """The GALog holds a tag that nobody has."""
        self.take(op)

    @rule(op=ops.operations(s.HpaField))
    def hpa_field(self, op: Any) -> None:
        """The field that holds a physical address."""
        self.take(op)

    @rule(op=ops.operations(s.LogicalIndex))
    def logical_index(self, op: Any) -> None:
        """Index in the logical table."""
        self.take(op)

    @rule(op=ops.operations(s.PhysIndex))
    def phys_index(self, op: Any) -> None:
        """Offset of a physical entry."""
        self.take(op)

    @rule(op=ops.operations(s.TagRoundTrip))
    def tag_round_trip(self, op: Any) -> None:
        """Encode and decode a GATag."""
        self.take(op)

    @rule(op=ops.operations(s.X2Ldr))
    def x2_ldr(self, op: Any) -> None:
        """LDR of an x2APIC."""
        self.take(op)

    @rule(op=ops.operations(s.Ppr))
    def ppr(self, op: Any) -> None:
        """PPR from TPR and the highest in-service vector."""
        self.take(op)


MACHINE = Avic
