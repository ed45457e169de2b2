"""The reverse map table: who owns which page, and how pages come back from firmware."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.frames import IMMUTABLE, Page
from conformance.environment.snp_guest_request.mailbox import Mailbox
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    CONTEXT,
    EBUSY,
    EIO,
    FIRMWARE,
    GUEST_INVALID,
    GUEST_VALID,
    HV_FIXED,
    HYPERVISOR,
    METADATA,
    PRE_GUEST,
    PRE_SWAP,
    RECLAIM,
    RMP_NAMES,
)
from conformance.specs.snp_guest_request.profiles import Profile
from conformance.verdict import Violation

_RECLAIMED = {METADATA: RECLAIM, FIRMWARE: RECLAIM, PRE_GUEST: GUEST_INVALID, PRE_SWAP: GUEST_VALID}


class Rmp(Simulator):
    """RMPUPDATE by the hypervisor, SNP_PAGE_RECLAIM by firmware, and the pages that are given up for lost.

    An entry is kept with its page (`Page.state`, `asid`, `in_flight`); pages of 4 KiB only, no VMPLs. Firmware's other
    commands change the entries of their own pages by themselves.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.GUEST_PAGES_STAY,
        c.RESPONSE_PAGE_FREE,
        c.RESPONSE_PAGE_BACK,
        c.RECLAIM_FIRST,
        c.RECLAIM_FAILED,
        c.MAKE_SHARED_FAILED,
        c.BOUNCE_PAGES,
        c.ONE_AT_A_TIME,
        c.CONTEXT_FAILURE,
        c.DECOMMISSION,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"rmp_make_shared": (c.RECLAIM_FIRST, c.BOUNCE_PAGES)}

    def __init__(
        self,
        door: Environment,
        tasks: Tasks,
        memory: HostMemory,
        contents: Contents,
        mailbox: Mailbox,
        profile: Profile,
    ) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.memory = memory
        self.contents = contents
        self.mailbox = mailbox
        self.refused = door.refused
        self.inplace = profile.pages == "inplace"
        self.taken: dict[Page, None] = {}
        """Guest pages whose RMP entry was changed by the hypervisor."""

    def rmp_lookup(self, pfn: int) -> int:
        return self.memory.frame(pfn).state

    def rmp_make_private(self, pfn: int, gpa: int, asid: int, immutable: int) -> int:
        page = self.memory.frame(pfn)
        self._may_update(page)
        if page.is_guest:
            self._may_take(page)
        refusal = self.refused("rmp_make_private")
        if refusal:
            return refusal
        if asid:
            page.state = PRE_GUEST if immutable else GUEST_INVALID
        elif immutable:
            page.state = METADATA if gpa else FIRMWARE
        else:
            page.state = RECLAIM
        page.asid, page.cleanup, page.in_flight = asid, 0, self.door.frame
        if page.is_guest:
            self.taken[page] = None
        return 0

    def rmp_make_shared(self, pfn: int) -> int:
        page = self.memory.frame(pfn)
        self._may_update(page)
        refusal = self.refused("rmp_make_shared")
        if refusal:
            page.stuck = page.unshared = True
            self.tasks.current.cleanup_failed |= page.is_guest
            return refusal
        if page.unshared:
            page.stuck = page.unshared = False
            self.tasks.current.cleanup_failed &= not page.is_guest
        if page.is_guest:
            self.contents.touch(page)
        page.state, page.asid, page.context = HYPERVISOR, 0, None
        return 0

    def _may_update(self, page: Page) -> None:
        if page.stuck and not page.unshared:
            raise Violation(
                c.RECLAIM_FAILED if self.inplace else c.BOUNCE_PAGES, "RMPUPDATE of a page that was not reclaimed"
            )
        if page.state in IMMUTABLE:
            if self._is_anothers(page):
                raise Violation(c.ONE_AT_A_TIME, f"RMPUPDATE of page {page.name} while another vCPU's request uses it")
            raise Violation(
                c.RECLAIM_FIRST if self.inplace else c.BOUNCE_PAGES,
                f"RMPUPDATE of an immutable entry, in RMP state {RMP_NAMES[page.state]}",
            )

    def _is_anothers(self, page: Page) -> bool:
        """Whether it is a guest page that another operation made firmware's."""
        return page.is_guest and page.in_flight is not None and page.in_flight is not self.door.frame

    def _may_take(self, page: Page) -> None:
        """In place a guest page becomes firmware's only if it is the guest's to give; with bounce pages never."""
        if not self.inplace:
            raise Violation(c.GUEST_PAGES_STAY, f"RMPUPDATE of guest page {page.name}")
        if page.state != HYPERVISOR:
            raise Violation(
                c.RESPONSE_PAGE_FREE, f"page {page.name} in RMP state {RMP_NAMES[page.state]} is taken from the guest"
            )
        if page.is_ghcb:
            raise Violation(c.RESPONSE_PAGE_FREE, f"GHCB page {page.name} is made firmware's")
        self.door.require(c.RESPONSE_PAGE_FREE, True, "")

    def snp_page_reclaim(self, pfn: int) -> int:
        page = self.memory.frame(pfn)
        self.mailbox.enter()
        if self.mailbox.dead:
            page.stuck = True
            self.tasks.current.cleanup_failed |= page.is_guest
            return -EBUSY
        if page.state == FIRMWARE and self._is_anothers(page):
            raise Violation(c.ONE_AT_A_TIME, f"page {page.name} is reclaimed while another vCPU's request uses it")
        if page.is_guest and page.cleanup:
            raise Violation(c.RECLAIM_FIRST, f"page {page.name} is reclaimed twice")
        refusal = self.refused("snp_page_reclaim")
        if refusal:
            page.stuck = True
            self.tasks.current.cleanup_failed |= page.is_guest
            return -EIO if refusal > 0 else refusal
        if page.state in (CONTEXT, HV_FIXED):
            return -EIO
        page.cleanup += 1
        page.stuck = page.stuck and page.is_guest
        page.state = _RECLAIMED.get(page.state, page.state)
        return 0

    def leak_page(self, pfn: int) -> int:
        page = self.memory.frame(pfn)
        if not (page.stuck or page.kept or self.mailbox.dead):
            raise Violation(
                c.RESPONSE_PAGE_BACK if page.is_guest else self.leak_clause(page),
                f"page {pfn:#x} is leaked for no reason",
            )
        if page.leaked:
            clause = c.RECLAIM_FAILED if page.is_guest else self.leak_clause(page)
            raise Violation(clause, f"page {pfn:#x} is leaked a second time")
        page.leaked = True
        return 0

    def leak_clause(self, page: Page) -> Clause:
        """What is broken by a page of the hypervisor's that is lost for no reason."""
        if page.context is None:
            return c.CONTEXT_FAILURE if self.inplace else c.BOUNCE_PAGES
        return c.DECOMMISSION

    def judge_gone(self, vm: int) -> None:
        """No page outlives the VM it was made for but what is leaked on purpose."""
        for page in self.memory.pages.values():
            if page.owner == vm and not (page.freed or page.stuck or page.leaked):
                raise Violation(
                    self.leak_clause(page), f"page {page.base:#x} in RMP state {RMP_NAMES[page.state]} outlives its VM"
                )

    def settle(self) -> None:
        """The operation that has ended left no guest page in another state than it found it, or leaked it."""
        for page in self.taken:
            at_rest = page.state in (HYPERVISOR, GUEST_VALID) or page.leaked
            if not at_rest and page.in_flight is self.door.frame:
                failed = c.MAKE_SHARED_FAILED if page.state == RECLAIM else c.RECLAIM_FAILED
                clause = failed if page.stuck else c.RESPONSE_PAGE_BACK
                raise Violation(
                    clause, f"page {page.name} is left in RMP state {RMP_NAMES[page.state]}, and not leaked"
                )

    def forget(self, vm: int) -> None:
        """The VM's memory is gone."""
        self.taken = {page: None for page in self.taken if page.vm != vm}

    def view(self) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
        """By VM, guest pages that are not in their resting state."""
        if not self.taken:
            return (), ()
        return self._moved(0), self._moved(1)

    def _moved(self, vm: int) -> tuple[tuple[str, int], ...]:
        moved = [(page.name, page.state) for page in self.taken if page.vm == vm and page.state != _at_rest(page)]
        return tuple(sorted(moved))


def _at_rest(page: Page) -> int:
    """RMP state of a guest page that nobody has touched."""
    return GUEST_VALID if page.name == "private" else HYPERVISOR
