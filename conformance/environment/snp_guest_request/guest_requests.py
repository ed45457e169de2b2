"""SNP_GUEST_REQUEST: a guest message goes to firmware on one page, and its answer comes back on another."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.firmware import Firmware
from conformance.environment.snp_guest_request.frames import Page
from conformance.environment.snp_guest_request.frames import seen as seen_by_host
from conformance.environment.snp_guest_request.guest_contexts import GuestContexts, frame_of
from conformance.environment.snp_guest_request.mailbox import Mailbox, written
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.environment.snp_guest_request.ratelimit import RateLimit
from conformance.environment.snp_guest_request.tasks import Task, Tasks
from conformance.model.snp_guest_request.addresses import address
from conformance.model.snp_guest_request.operations import CPU_OF, LATE_EFAULT
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    C_BIT,
    CONTEXT,
    EBUSY,
    EFAULT,
    EIO,
    FIRMWARE,
    HEADER_SIZE,
    INVALID_GUEST,
    INVALID_PAGE_STATE,
    RMP_NAMES,
)
from conformance.specs.snp_guest_request.profiles import Profile
from conformance.verdict import Violation


class GuestRequests(Simulator):
    """The firmware's command that answers guest messages, held to what its caller owes the guest.

    Messages themselves are `Firmware`'s business. The reported TCB is there because reports show it.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_CONTEXT,
        c.MOVE,
        c.ONE_COMMAND,
        c.RESPONSE_FIRMWARE_OWNED,
        c.PAGE_STAYS_IN_FLIGHT,
        c.VMS_INDEPENDENT,
        c.ONE_AT_A_TIME,
        c.GUEST_PAGES_STAY,
        c.WHOLE_REQUEST,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "snp_guest_request": (
            c.ONE_COMMAND,
            c.RESPONSE_FIRMWARE_OWNED,
            c.ONE_AT_A_TIME,
            c.PAGE_STAYS_IN_FLIGHT,
            c.VMS_INDEPENDENT,
            c.LOCK_ORDER,
            c.LOCK_INITIALISED,
        )
    }

    def __init__(
        self,
        door: Environment,
        tasks: Tasks,
        memory: HostMemory,
        contents: Contents,
        mailbox: Mailbox,
        contexts: GuestContexts,
        rates: RateLimit,
        profile: Profile,
        suite: Suite,
    ) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.memory = memory
        self.contents = contents
        self.mailbox = mailbox
        self.contexts = contexts
        self.rates = rates
        self.refused = door.refused
        self.bounces = profile.pages == "bounce"
        self.firmware = Firmware(suite)

    def snp_guest_request(self, fd: int, gctx: int, request: int, response: int, error: int) -> tuple[int, int]:
        task = self.tasks.current
        task.issued += 1
        req, res, page = self._judge_command(gctx, request, response)
        early = self.mailbox.command("snp_guest_request", fd, error)
        if early is not None:
            return early
        task.ran += 1
        context = page.context
        if context is None or page.state != CONTEXT:
            return self.mailbox.status(INVALID_GUEST, error)
        if res.state != FIRMWARE:
            return self.mailbox.status(INVALID_PAGE_STATE, error)
        source = req.data if not req.is_guest or req.shadow is None else req.shadow
        gstate = context.state
        status, message = self.firmware.guest_request(context, bytes(source))
        if status:
            return self.mailbox.status(status, error)
        if context.state == "gone" and gstate != "gone":
            page.state = FIRMWARE
        if res.is_guest:
            self.contents.touch(res)
        res.data[: len(message)] = message
        res.vms.add(task.vm)
        res.stamp = self.door.frame
        task.filled.add(res)
        self.rates.count(task.vm)
        key = message[0x3C]
        number = int.from_bytes(message[0x20:0x28], "little")
        self.contents.responses[message[:HEADER_SIZE]] = (("rsp", context.guest, key, number), message)
        self.contents.judge_signer(self.firmware.reported_tcb)
        if self.door.frame.given.get("snp_guest_request") == LATE_EFAULT:
            return -EFAULT, written(error)
        return self.mailbox.status(0, error)

    def _judge_command(self, gctx: int, request: int, response: int) -> tuple[Page, Page, Page]:
        """The protocol of the command: whose context, which pages, in which state (SNP-015)."""
        task, bit = self.tasks.current, 1 << C_BIT
        page = self.memory.pages.get(frame_of(gctx))
        if page is None or page.freed:
            raise Violation(c.NO_CONTEXT, f"SNP_GUEST_REQUEST with guest context {gctx:#x}, where none is")
        if page.leaked:
            raise Violation(c.NO_CONTEXT, f"SNP_GUEST_REQUEST with guest context {gctx:#x}, which was leaked")
        if task.vm in self.contexts.joined and self.contexts.of_vm[task.vm] is not page:
            raise Violation(c.MOVE, "SNP_GUEST_REQUEST for a VM that was moved away, or is a mirror")
        if page.context is None or (page.owner != task.vm and self.contexts.of_vm[task.vm] is not page):
            raise Violation(c.ONE_COMMAND, "SNP_GUEST_REQUEST with another VM's guest context")
        if self.contexts.of_vm[task.vm] is not page:
            raise Violation(c.NO_CONTEXT, "SNP_GUEST_REQUEST for a VM whose context was moved away or given up")
        if not gctx & request & response & bit:
            raise Violation(c.ONE_COMMAND, "an address given to firmware lacks the C-bit")
        if (gctx | request | response) & 0xFFF:
            raise Violation(c.ONE_COMMAND, "an address given to firmware is no page's")
        req, res = (self._frame(frame_of(address)) for address in (request, response))
        if res.state != FIRMWARE:
            raise Violation(c.RESPONSE_FIRMWARE_OWNED, f"the response page is in RMP state {RMP_NAMES[res.state]}")
        self._judge_pages(req, res)
        if self.bounces:
            self._judge_bounced(req, res)
        return req, res, page

    def _judge_pages(self, req: Page, res: Page) -> None:
        """Both are the VM's own, and this request's alone (SNP-080, SNP-065, SNP-038)."""
        task = self.tasks.current
        for what, used in (("request", req), ("response", res)):
            if used.is_guest and used.refs <= 0:
                raise Violation(c.PAGE_STAYS_IN_FLIGHT, f"firmware is given guest page {used.name} without a reference")
            if used.is_guest and used.vm != task.vm:
                raise Violation(c.VMS_INDEPENDENT, f"the {what} page is VM {used.vm}'s")
            if not used.is_guest and used.vms - {task.vm}:
                raise Violation(c.VMS_INDEPENDENT, f"the {what} buffer holds data of another VM")
        if res.is_guest and res.in_flight is not self.door.frame:
            raise Violation(c.ONE_AT_A_TIME, f"page {res.name} was made firmware's by another vCPU's request")
        if req in task.filled and req.stamp is not self.door.frame:
            raise Violation(c.ONE_AT_A_TIME, "the request buffer was filled again by another vCPU's request")

    def _judge_bounced(self, req: Page, res: Page) -> None:
        """Guest pages stay the guest's, and the request is the guest's as of one instant (SNP-027, SNP-016)."""
        task = self.tasks.current
        if req.is_guest or res.is_guest:
            raise Violation(c.GUEST_PAGES_STAY, "firmware is given a guest page")
        seen = (*task.instants, self._now(task)) if task.instants else ()
        if seen and bytes(req.data) not in seen and not task.misaligned:
            raise Violation(c.WHOLE_REQUEST, "firmware is given other bytes than the guest's request page had")
        self.door.hold(c.WHOLE_REQUEST)

    def digest(self) -> Hashable:
        """The TCB that reports show."""
        return self.firmware.reported_tcb

    def _now(self, task: Task) -> bytes:
        """The guest's request page as it is: the guest may have its certificates put over its message."""
        gpa = address(getattr(task.op, "req", "R"), CPU_OF[task.vcpu])
        page = self.memory.memslots.page(task.vm, gpa, write=False)
        return b"" if page is None else bytes(seen_by_host(page))

    def snp_config(self, tcb: int) -> int:
        self.mailbox.enter()
        if self.mailbox.dead:
            return -EBUSY
        refusal = self.refused("snp_config")
        if refusal:
            return -EIO if refusal > 0 else refusal
        self.firmware.reported_tcb = tcb
        return 0

    def _frame(self, pfn: int) -> Page:
        page = self.memory.known(pfn)
        if page is None:
            raise Violation(c.ONE_COMMAND, f"firmware is given page frame {pfn:#x}, where nothing is")
        return page
