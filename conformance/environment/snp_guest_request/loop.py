"""The closed loop: a guest's exits handled by the shipped hypervisor, over the same firmware."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from conformance.environment.door import Environment
from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.honest_host import HonestHost
from conformance.environment.snp_guest_request.operations.exits import exit_through_ghcb
from conformance.environment.snp_guest_request.shared_pages import SharedPages, Window
from conformance.environment.snp_guest_request.tasks import Task
from conformance.model.snp_guest_request.addresses import GPA
from conformance.model.snp_guest_request.hosts import HONEST_PAGES
from conformance.model.snp_guest_request.operations import Continue, ExtGuestRequest, GuestRequest
from conformance.specs.snp_guest_request.constants import (
    ENOSPC,
    EXIT,
    EXT_GUEST_REQUEST,
    GUEST_REQUEST,
    RESUME,
)
from conformance.verdict import HarnessError

if TYPE_CHECKING:
    from conformance.environment.snp_guest_request.world import World


class Loop(HonestHost):
    """A machine with the shipped hypervisor, whose VM 0 is the guest under test.

    `machine` makes it: a world of kind H in which that VM runs already.
    """

    def __init__(
        self,
        door: Environment,
        shared: SharedPages,
        suite: Suite,
        counts: tuple[int, ...],
        machine: Callable[[], World],
    ) -> None:
        super().__init__(door, shared, suite, counts)
        self.machine = machine()

    @property
    def counts(self) -> tuple[int, ...]:
        """Firmware's message counters, in the machine."""
        context = self.machine.contexts.context(0)
        assert context is not None
        return tuple(context.counts)

    def answer(self, page: bytes, response: Window, rax: int, rbx: int, *, extended: bool) -> tuple[int, int, int]:
        """Hand the exit to the hypervisor, answer its question for certificates, and bring back what it wrote."""
        machine = self.machine
        pages = machine.memslots.mapped[0]
        pages[GPA["R0"] >> 12].data[:] = page
        pages[GPA["P0"] >> 12].data[:] = bytes(response.data)
        op = ExtGuestRequest(npages=rbx) if extended else GuestRequest()
        code = EXT_GUEST_REQUEST if extended else GUEST_REQUEST
        result = exit_with(machine, op, code, GPA["D0"] if extended else rax, rbx, page)
        if result[0] == EXIT:
            enough = rbx >= HONEST_PAGES
            result = machine.perform(Continue(0, 0 if enough else ENOSPC, rbx if enough else HONEST_PAGES))
            if enough:
                self.hand_out(rax, rbx)
        if type(result) is not tuple or result[0] != RESUME:
            raise HarnessError(f"the shipped hypervisor answers {result!r}")
        response.data[:] = pages[GPA["P0"] >> 12].data
        self.previous = bytes(response.data)
        return result[1], result[2], rbx if result[3] is None else result[3]


def exit_with(machine: World, op: Any, code: int, rax: int, rbx: int, message: bytes) -> Any:
    """An exit whose request page the guest itself has filled."""
    task = machine.tasks.begin(Task(op, 0, 0))
    task.instants.append(message)
    frame = machine.frame
    try:
        result = exit_through_ghcb(machine, op, code, GPA["R0"], GPA["P0"], rax, rbx)
        machine.settle(task)
    finally:
        machine.tasks.end(frame)
    return result
