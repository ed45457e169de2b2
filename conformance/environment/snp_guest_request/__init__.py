"""The world of SNP guest requests: a machine with a secure processor for kind H, a guest's kernel for kind G.

`ENVIRONMENT` uses real cryptography; `FAST` the same world with a stand-in cipher behind the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from conformance.environment.snp_guest_request.checks import CHECKS
from conformance.environment.snp_guest_request.crypto import REAL, STAND_IN, Suite
from conformance.environment.snp_guest_request.guest import GuestKernel
from conformance.environment.snp_guest_request.host import Act
from conformance.environment.snp_guest_request.loop import Loop
from conformance.environment.snp_guest_request.operations import Operations
from conformance.model.snp_guest_request.operations import (
    VM_OF,
    Boot,
    Close,
    CloseFd,
    Config,
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
from conformance.model.snp_guest_request.view import View
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import SNP
from conformance.specs.snp_guest_request.port import Port
from conformance.specs.snp_guest_request.profiles import PROFILES, Profile
from conformance.verdict import Violation

_GUEST_OPERATIONS = (Open, GetReport, GetDerivedKey, GetExtReport, Close, Kexec, ParseCerts)

_COMPANY = (GuestRequest, ExtGuestRequest, SetInstanceCerts, HostSetExtConfig)
"""Operations on the candidate that may happen in the middle of another one."""


def _is_entangled(op: Any) -> bool:
    """Whether an operation touches pages that a guest fills itself in the same step: request pages and GHCBs."""
    return (
        getattr(op, "page", "P")[0] == "R"
        or getattr(op, "ghcb", "own") != "own"
        or getattr(op, "resp", "P")[0] in "RGD"
        or getattr(op, "data", "D")[0] in "GP"
    )


class World(GuestKernel):
    """Both kinds' environment; the configuration says which one the candidate lives in."""

    PORT = Port
    OPERATIONS: ClassVar[Mapping[type, Callable[..., Any]]] = {
        GuestRequest: Operations.request,
        ExtGuestRequest: Operations.request,
        UnknownExit: Operations.unknown_exit,
        Continue: Operations.continue_,
        Boot: Operations.boot,
        VmCreate: Operations.vm_create,
        SevInit: Operations.sev_init,
        LaunchStart: Operations.launch_start,
        LaunchFinish: Operations.launch_finish,
        EnableReqCerts: Operations.enable_req_certs,
        VcpuCreate: Operations.vcpu_create,
        RegisterGhcb: Operations.register_ghcb,
        Decommission: Operations.decommission,
        VmDestroy: Operations.vm_destroy,
        MoveFrom: Operations.move_from,
        MirrorFrom: Operations.mirror_from,
        SnpShutdown: Operations.snp_shutdown,
        SetInstanceCerts: Operations.set_instance_certs,
        GetInstanceCerts: Operations.get_instance_certs,
        HostSetExtConfig: Operations.host_set_ext_config,
        HostGetExtConfig: Operations.host_get_ext_config,
        CloseFd: Operations.close_fd,
        RemoveSlot: Operations.remove_slot,
        Wait: Operations.wait,
        Open: GuestKernel.open_driver,
        GetReport: GuestKernel.get_report,
        GetDerivedKey: GuestKernel.get_derived_key,
        GetExtReport: GuestKernel.get_ext_report,
        Close: GuestKernel.close_driver,
        Kexec: GuestKernel.kexec,
        ParseCerts: GuestKernel.parse_certs,
    }
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "ghcb_write": (c.NO_UNINITIALISED,),
        "write_guest": (c.NO_WRITE_TO_ASSIGNED, c.NO_HOST_BYTES),
        "free_page": (c.NO_FREE_OF_ASSIGNED,),
        "snp_guest_request": (
            c.ONE_COMMAND,
            c.RESPONSE_FIRMWARE_OWNED,
            c.ONE_AT_A_TIME,
            c.PAGE_STAYS_IN_FLIGHT,
            c.VMS_INDEPENDENT,
            c.LOCK_ORDER,
            c.LOCK_INITIALISED,
        ),
        "rmp_make_shared": (c.RECLAIM_FIRST, c.BOUNCE_PAGES),
        "guest_exit": (c.NO_IV_REUSE, c.ONE_LOCK),
    }

    def __init__(self, config: Config, profile: Profile, suite: Suite = REAL) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.suite = suite
        self.build_host()
        self.of_guest = config.side == "guest"
        if self.of_guest:
            self.build_guest()
            if config.host != "direct":
                self.loop = Loop(lambda c, p: World(c, p, suite), PROFILES["upstream"], config.count)

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Create the candidate, and bring the world to where the configuration has it."""
        self.factory = factory
        super().start(factory)
        if self.of_guest:
            if self.config.open:
                self._begin(lambda: self.enter_int(self.driver.open, 0), 0, c.SEQUENCE)
            return
        config = self.config
        if config.started:
            self._begin(lambda: self.boot(Boot(0, SNP, config.certs)), 0, c.INIT_FAILURE)
            if config.vcpus > 1:
                self._begin(lambda: self.enter_int(self.driver.vcpu_create, 1, 0), 0, c.INIT_FAILURE)
                self._begin(lambda: self.register_ghcb(RegisterGhcb(1)), 0, c.INIT_FAILURE)
        if config.second:
            self._begin(lambda: self.boot(Boot(1, config.second)), 1, c.INIT_FAILURE)

    def _begin(self, work: Callable[[], int], vm: int, clause: Any) -> None:
        """One step of the start: it returns 0 and leaves nothing behind, as an operation would."""
        act = Act(None, vm, -1)
        self.acts[self.frame] = act
        result = work()
        if result:
            raise self.remember(Violation(clause, f"the world does not start: an entry point returned {result}"))
        self.acts.pop(self.frame)
        self.frame = type(self.frame)()

    def perform(self, op: Any) -> Any:
        """Perform an operation, and judge what must hold whenever one has ended."""
        frame = self.frame
        vcpu = getattr(op, "vcpu", -1)
        act = Act(op, VM_OF[vcpu] if vcpu >= 0 else getattr(op, "vm", -1), vcpu)
        self.acts[frame] = act
        try:
            result = self.OPERATIONS[type(op)](self, op)
            if self.of_guest:
                self.settle_guest()
            else:
                self.settle(act)
        except Violation as violation:
            raise self.remember(violation) from None
        finally:
            self.acts.pop(frame, None)
        self.last = act
        return result

    def perform_raw(self, op: Any, code: int, info1: int, info2: int, rax: int, rbx: int, message: bytes) -> Any:
        """An exit of the closed loop, whose request page the guest itself has filled."""
        act = Act(op, 0, 0)
        act.instants.append(message)
        self.acts[self.frame] = act
        try:
            result = self._exit(op, code, info1, info2, rax, rbx)
            self.settle(act)
        finally:
            self.acts.pop(self.frame, None)
        return result

    def can_interrupt(self, op: Any) -> bool:
        """In the middle of an operation the world may change, and another vCPU may exit while no lock is held."""
        if type(op) in (CloseFd, RemoveSlot, Wait):
            return not _is_entangled(op)
        if any(holder is not None for holder in self.locks.values()):
            return False
        return type(op) in _COMPANY and all(self.can_run_beside(act.op, op) for act in self.acts.values())

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Two vCPUs, or a vCPU and an ioctl, that do not write what the other one has the guest's own hands in."""
        vcpus = (getattr(left, "vcpu", -1), getattr(right, "vcpu", -2))
        return vcpus[0] != vcpus[1] and not any(_is_entangled(op) for op in (left, right))

    def view(self) -> View:
        """What can be observed from outside."""
        return self.guest_view() if self.of_guest else self.host_view()


def fast(config: Config, profile: Profile) -> World:
    """The same world with the stand-in cipher."""
    return World(config, profile, STAND_IN)


ENVIRONMENT = World
FAST = fast

__all__ = ["CHECKS", "ENVIRONMENT", "FAST", "World"]
