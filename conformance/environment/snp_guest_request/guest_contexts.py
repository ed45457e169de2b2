"""Guest contexts: what firmware keeps of each guest, and the ASIDs they are activated with."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.firmware import Context
from conformance.environment.snp_guest_request.frames import MOVED, Page
from conformance.environment.snp_guest_request.mailbox import Mailbox
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    ASID_OWNED,
    C_BIT,
    CONTEXT,
    EBUSY,
    FIRMWARE,
    INVALID_ASID,
    INVALID_GUEST,
    INVALID_PAGE_STATE,
    RMP_NAMES,
)
from conformance.verdict import Violation


class GuestContexts(Simulator):
    """The firmware's commands on guest contexts, from GCTX_CREATE to DECOMMISSION, and KVM's address-space ids.

    Launch measures nothing: between start and finish there are no pages. ASIDs are not used again and need no flush.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.DECOMMISSION, c.DECOMMISSION_FAILED, c.DESTROY_ORDER)

    def __init__(self, door: Environment, tasks: Tasks, memory: HostMemory, mailbox: Mailbox) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.memory = memory
        self.refused = door.refused
        self.command = mailbox.command
        self.status = mailbox.status
        self.of_vm: list[Page | None] = [None, None]
        """The page that is each VM's guest context."""
        self.joined: set[int] = set()
        """VMs that were moved away, and mirrors."""
        self.asids: dict[int, int] = {}
        """By ASID, the VM that has it."""
        self.next_asid = 1

    def _context_page(self, gctx: int) -> Page | None:
        page = self.memory.pages.get(frame_of(gctx))
        return page if page is not None and page.state == CONTEXT and not page.freed else None

    def snp_gctx_create(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        early = self.command("snp_gctx_create", fd, error)
        if early is not None:
            return early
        page = self.memory.pages.get(frame_of(gctx))
        if page is None or page.state != FIRMWARE:
            return self.status(INVALID_PAGE_STATE, error)
        page.state, page.context = CONTEXT, Context(self.tasks.current.vm)
        self.of_vm[self.tasks.current.vm] = page
        return self.status(0, error)

    def snp_launch_start(self, fd: int, gctx: int, policy: int, error: int) -> tuple[int, int]:
        early = self.command("snp_launch_start", fd, error)
        if early is not None:
            return early
        page = self._context_page(gctx)
        if page is None or page.context.state != "init":
            return self.status(INVALID_GUEST, error)
        if not policy >> 17 & 1 or policy >> 26:
            return self.status(7, error)
        page.context.state = "launch"
        return self.status(0, error)

    def snp_activate(self, fd: int, gctx: int, asid: int, error: int) -> tuple[int, int]:
        early = self.command("snp_activate", fd, error)
        if early is not None:
            return early
        page = self._context_page(gctx)
        if page is None:
            return self.status(INVALID_GUEST, error)
        if self.asids.get(asid) != self.tasks.current.vm:
            return self.status(ASID_OWNED if asid in self.asids else INVALID_ASID, error)
        page.context.asid = asid
        return self.status(0, error)

    def snp_launch_finish(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        early = self.command("snp_launch_finish", fd, error)
        if early is not None:
            return early
        page = self._context_page(gctx)
        if page is None or page.context.state != "launch":
            return self.status(INVALID_GUEST, error)
        page.context.state = "running"
        return self.status(0, error)

    def snp_decommission(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        early = self.command("snp_decommission", fd, error)
        page = self.memory.pages.get(frame_of(gctx))
        if early is not None:
            if page is not None:
                page.stuck = page.kept = True
            return early
        if page is None or page.state != CONTEXT or page.freed:
            if page is not None:
                page.stuck = page.kept = True
            return self.status(INVALID_GUEST, error)
        page.state, page.decommissioned = FIRMWARE, True
        page.stuck = page.kept = False
        return self.status(0, error)

    # -- ASIDs

    def alloc_asid(self) -> int:
        refusal = self.refused("alloc_asid")
        if refusal:
            return -EBUSY if refusal > 0 else refusal
        asid = self.next_asid
        self.next_asid += 1
        self.asids[asid] = self.tasks.current.vm
        self.tasks.current.allocated.append(asid)
        return asid

    def free_asid(self, asid: int) -> int:
        if self.asids.pop(asid, None) is None:
            raise Violation(c.DECOMMISSION_FAILED, f"ASID {asid} is freed, which is nobody's or was freed already")
        page = self.of_vm[self.tasks.current.vm]
        if page is not None and page.context is not None and page.context.asid == asid:
            if page.kept:
                raise Violation(c.DECOMMISSION_FAILED, f"ASID {asid} is freed though decommissioning failed")
            if page.state == CONTEXT:
                raise Violation(c.DESTROY_ORDER, f"ASID {asid} is freed before its context is decommissioned")
        return 0

    # -- lives of VMs

    def context(self, vm: int) -> Context | None:
        """What firmware knows of a VM's guest."""
        page = self.of_vm[vm]
        return None if page is None else page.context

    def has_page(self, vm: int) -> bool:
        """Whether the VM has a context page that is one."""
        page = self.of_vm[vm]
        return page is not None and page.context is not None and not page.freed

    def is_initialised(self, vm: int) -> bool:
        """Whether the VM has an address-space id."""
        return vm in self.asids.values()

    @property
    def keep_asids(self) -> bool:
        """Whether firmware would not decommission a context, so that its ASID must not be used again."""
        return any(page is not None and page.kept for page in self.of_vm)

    def judge_decommissioned(self, vm: int) -> None:
        """A context that was given up left no page behind."""
        page = self.of_vm[vm]
        if page is not None and not (page.freed or page.stuck or page.leaked):
            raise Violation(c.DECOMMISSION, f"the context page is kept in RMP state {RMP_NAMES[page.state]}")

    def judge_gone(self, vm: int) -> None:
        """No ASID outlives its VM, unless firmware keeps the context that it was activated with."""
        page = self.of_vm[vm]
        if page is not None and page.kept:
            if page.context is not None:
                self.asids.pop(page.context.asid, None)
            return
        for asid, owner in self.asids.items():
            if owner == vm:
                raise Violation(c.DESTROY_ORDER, f"ASID {asid} outlives its VM")

    def move(self, src: int, dst: int) -> None:
        """A VM takes another one over, with its context."""
        self.of_vm[dst], self.of_vm[src] = self.of_vm[src], None
        self.asids = {asid: MOVED if owner == src else owner for asid, owner in self.asids.items()}

    def forget(self, vm: int) -> None:
        """The VM's number is free again; of what was moved, the VM that is still there has the rest."""
        self.asids = {asid: 1 - vm if owner == MOVED else owner for asid, owner in self.asids.items() if owner != vm}
        self.of_vm[vm] = None
        self.joined.discard(vm)

    def view(self) -> tuple[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]]:
        """The state of each VM's guest, and firmware's message counters."""
        first, second = (self._state(page) for page in self.of_vm)
        return (first[0], second[0]), (first[1], second[1])

    @staticmethod
    def _state(page: Page | None) -> tuple[str, tuple[int, ...]]:
        context = None if page is None or page.freed or page.stuck else page.context
        if context is None or (page is not None and page.decommissioned):
            return "none", ()
        return context.state, (() if context.state == "gone" else tuple(context.counts))


def frame_of(address: int) -> int:
    """Frame number in an address as firmware has it, which carries the C-bit."""
    return (address & ~(1 << C_BIT)) >> 12
