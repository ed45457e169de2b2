"""The run structure that a vCPU shares with userspace."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.model.snp_guest_request.operations import VM_OF
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import RUN_RET
from conformance.verdict import Violation


class Run:
    """What KVM_RUN and its caller tell one another about one exit."""

    __slots__ = ("instants", "read_ret", "told")

    def __init__(self) -> None:
        self.told: list[int] = [0, 0, 0, 0]
        """Reason, gpa, npages, ret."""
        self.read_ret = 0
        """How often ret was read since userspace wrote it."""
        self.instants: list[bytes] = []
        """Contents that the guest's request page had when the vCPU exited."""


class RunStructures(Simulator):
    """struct kvm_run of each vCPU; another thread of userspace may write it at any time, so ret is read once.

    Of its many exits only the one for certificates is there.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.CERTS_ANSWER,)

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.of_vcpu = [Run() for _ in VM_OF]

    def run_exit(self, vcpu: int, reason: int, gpa: int, npages: int, ret: int) -> int:
        self.of_vcpu[vcpu].told = [reason, gpa, npages, ret]
        return 0

    def run_read(self, vcpu: int, field: int) -> int:
        run = self.of_vcpu[vcpu]
        if field != RUN_RET:
            return run.told[2]
        run.read_ret += 1
        if run.read_ret > 1:
            raise Violation(c.CERTS_ANSWER, "run.ret is read twice; another thread may have changed it")
        return run.told[3]

    def answer(self, vcpu: int, npages: int, ret: int) -> list[bytes]:
        """Userspace answers the exit; what the request page had been when it happened."""
        run = self.of_vcpu[vcpu]
        run.told[2], run.told[3], run.read_ret = npages, ret, 0
        return list(run.instants)

    def forget(self, vm: int) -> None:
        """The VM's vCPUs are gone."""
        for vcpu, owner in enumerate(VM_OF):
            if owner == vm:
                self.of_vcpu[vcpu] = Run()
