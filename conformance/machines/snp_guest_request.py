"""The Hypothesis machine: one thin rule per operation of either kind."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from conformance.machines.base import Machine
from conformance.model.snp_guest_request.operations import (
    Boot,
    Close,
    CloseFd,
    Continue,
    Decommission,
    EnableReqCerts,
    ExtGuestRequest,
    GetDerivedKey,
    GetExtReport,
    GetInstanceCerts,
    GetReport,
    GuestRequest,
    HostGetExtConfig,
    HostSetExtConfig,
    Kexec,
    LaunchFinish,
    LaunchStart,
    MirrorFrom,
    MoveFrom,
    Open,
    ParseCerts,
    RegisterGhcb,
    RemoveSlot,
    SetInstanceCerts,
    SevInit,
    SnpShutdown,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.step import Fault
from conformance.strategies import snp_guest_request as ops


class SnpGuestRequest(Machine):
    """Drive a handler or a driver and the model with the same operations."""

    SUBSYSTEM = "snp_guest_request"

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        """A world that the candidate can live in."""
        self.begin(data.draw(ops.configs(type(self).capabilities), label="config"))

    @rule(op=ops.operations(GuestRequest), faults=ops.faults(GuestRequest))
    def guest_request(self, op: GuestRequest, faults: tuple[Fault, ...]) -> None:
        """The guest leaves `message` in its request page and exits with SNP Guest Request."""
        self.take(op, faults)

    @rule(op=ops.operations(ExtGuestRequest), faults=ops.faults(ExtGuestRequest))
    def ext_guest_request(self, op: ExtGuestRequest, faults: tuple[Fault, ...]) -> None:
        """As GuestRequest, with SNP Extended Guest Request: RAX and RBX name the pages for certificates."""
        self.take(op, faults)

    @rule(op=ops.operations(UnknownExit))
    def unknown_exit(self, op: UnknownExit) -> None:
        """The guest exits with a code that nobody defined."""
        self.take(op)

    @rule(op=ops.operations(Continue), faults=ops.faults(Continue))
    def continue_(self, op: Continue, faults: tuple[Fault, ...]) -> None:
        """Userspace answers a certificate exit and runs the vCPU again."""
        self.take(op, faults)

    @rule(op=ops.operations(Boot))
    def boot(self, op: Boot) -> None:
        """A VM from nothing to running, with one vCPU; `certs` enables certificate fetching on the way."""
        self.take(op)

    @rule(op=ops.operations(VmCreate))
    def vm_create(self, op: VmCreate) -> None:
        """An empty VM."""
        self.take(op)

    @rule(op=ops.operations(SevInit), faults=ops.faults(SevInit))
    def sev_init(self, op: SevInit, faults: tuple[Fault, ...]) -> None:
        """KVM_SEV_INIT2."""
        self.take(op, faults)

    @rule(op=ops.operations(LaunchStart), faults=ops.faults(LaunchStart))
    def launch_start(self, op: LaunchStart, faults: tuple[Fault, ...]) -> None:
        """KVM_SEV_SNP_LAUNCH_START with a file that is the secure processor's, closed or another."""
        self.take(op, faults)

    @rule(op=ops.operations(LaunchFinish))
    def launch_finish(self, op: LaunchFinish) -> None:
        """KVM_SEV_SNP_LAUNCH_FINISH."""
        self.take(op)

    @rule(op=ops.operations(EnableReqCerts))
    def enable_req_certs(self, op: EnableReqCerts) -> None:
        """KVM_SEV_SNP_ENABLE_REQ_CERTS, and the attribute query."""
        self.take(op)

    @rule(op=ops.operations(VcpuCreate))
    def vcpu_create(self, op: VcpuCreate) -> None:
        """A vCPU."""
        self.take(op)

    @rule(op=ops.operations(RegisterGhcb))
    def register_ghcb(self, op: RegisterGhcb) -> None:
        """The guest registers its GHCB."""
        self.take(op)

    @rule(op=ops.operations(Decommission), faults=ops.faults(Decommission))
    def decommission(self, op: Decommission, faults: tuple[Fault, ...]) -> None:
        """Give the guest context up."""
        self.take(op, faults)

    @rule(op=ops.operations(VmDestroy), faults=ops.faults(VmDestroy))
    def vm_destroy(self, op: VmDestroy, faults: tuple[Fault, ...]) -> None:
        """The last reference to the VM goes."""
        self.take(op, faults)

    @rule(op=ops.operations(MoveFrom))
    def move_from(self, op: MoveFrom) -> None:
        """A new VM 1 takes VM 0 over on the same host."""
        self.take(op)

    @rule(op=ops.operations(MirrorFrom))
    def mirror_from(self, op: MirrorFrom) -> None:
        """A new VM 1 mirrors VM 0."""
        self.take(op)

    @rule(op=ops.operations(SnpShutdown))
    def snp_shutdown(self, op: SnpShutdown) -> None:
        """SNP is shut down while no VM runs, to be initialised again by the next."""
        self.take(op)

    @rule(op=ops.operations(SetInstanceCerts), faults=ops.faults(SetInstanceCerts))
    def set_instance_certs(self, op: SetInstanceCerts, faults: tuple[Fault, ...]) -> None:
        """KVM_SEV_SNP_SET_CERTS with `length` bytes of blob `blob`."""
        self.take(op, faults)

    @rule(op=ops.operations(GetInstanceCerts), faults=ops.faults(GetInstanceCerts))
    def get_instance_certs(self, op: GetInstanceCerts, faults: tuple[Fault, ...]) -> None:
        """KVM_SEV_SNP_GET_CERTS into a buffer of `length` bytes."""
        self.take(op, faults)

    @rule(op=ops.operations(HostSetExtConfig), faults=ops.faults(HostSetExtConfig))
    def host_set_ext_config(self, op: HostSetExtConfig, faults: tuple[Fault, ...]) -> None:
        """SNP_SET_EXT_CONFIG: the host's certificates, and a new reported TCB with them."""
        self.take(op, faults)

    @rule(op=ops.operations(HostGetExtConfig), faults=ops.faults(HostGetExtConfig))
    def host_get_ext_config(self, op: HostGetExtConfig, faults: tuple[Fault, ...]) -> None:
        """SNP_GET_EXT_CONFIG into a buffer of `length` bytes."""
        self.take(op, faults)

    @rule(op=ops.operations(CloseFd))
    def close_fd(self, op: CloseFd) -> None:
        """Userspace closes the VM's file of the secure processor; its number may then mean another file."""
        self.take(op)

    @rule(op=ops.operations(RemoveSlot))
    def remove_slot(self, op: RemoveSlot) -> None:
        """Userspace takes a page of guest memory away."""
        self.take(op)

    @rule(op=ops.operations(Wait))
    def wait(self, op: Wait) -> None:
        """Seconds pass."""
        self.take(op)

    @rule(op=ops.operations(Open), faults=ops.faults(Open))
    def open_(self, op: Open, faults: tuple[Fault, ...]) -> None:
        """Load the driver for a VMPCK."""
        self.take(op, faults)

    @rule(op=ops.operations(GetReport))
    def get_report(self, op: GetReport) -> None:
        """SNP_GET_REPORT; `host` says how the host treats each exit of this operation, honestly once it ends."""
        self.take(op)

    @rule(op=ops.operations(GetDerivedKey))
    def get_derived_key(self, op: GetDerivedKey) -> None:
        """SNP_GET_DERIVED_KEY."""
        self.take(op)

    @rule(op=ops.operations(GetExtReport))
    def get_ext_report(self, op: GetExtReport) -> None:
        """SNP_GET_EXT_REPORT with a buffer of `certs_len` bytes, or none."""
        self.take(op)

    @rule(op=ops.operations(Close), faults=ops.faults(Close))
    def close(self, op: Close, faults: tuple[Fault, ...]) -> None:
        """Unload the driver."""
        self.take(op, faults)

    @rule(op=ops.operations(Kexec))
    def kexec(self, op: Kexec) -> None:
        """Another kernel starts: the driver's memory is lost, the secrets page stays."""
        self.take(op)

    @rule(op=ops.operations(ParseCerts))
    def parse_certs(self, op: ParseCerts) -> None:
        """Parse a certificate table, by name."""
        self.take(op)


MACHINE = SnpGuestRequest
