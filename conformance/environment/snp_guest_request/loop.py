"""The closed loop: a guest's exits handled by the shipped hypervisor, over the same firmware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.environment.snp_guest_request.firmware import Context
from conformance.model.snp_guest_request.addresses import GPA
from conformance.model.snp_guest_request.hosts import HONEST_PAGES
from conformance.model.snp_guest_request.operations import Config, Continue, ExtGuestRequest, GuestRequest
from conformance.specs.snp_guest_request.constants import (
    ENOSPC,
    EXIT,
    EXT_GUEST_REQUEST,
    GUEST_REQUEST,
    PAGE_SIZE,
    RESUME,
)
from conformance.specs.snp_guest_request.profiles import Profile
from conformance.verdict import HarnessError


class Loop:
    """A machine with the shipped hypervisor, whose VM 0 is the guest under test."""

    def __init__(self, world: Callable[[Config, Profile], Any], profile: Profile, count: int) -> None:
        from conformance.candidates.builtin.snp_guest_request.upstream import Upstream

        self.world = world(Config(certs=True, count=count), profile)
        self.world.start(Upstream)

    @property
    def context(self) -> Context:
        """Firmware's context of the guest."""
        page = self.world.contexts[0]
        return page.context  # type: ignore[no-any-return]  # Page.context is Any

    def exit(
        self, guest: Any, extended: bool, message: bytes, response: Any, rax: int, rbx: int
    ) -> tuple[int, int, int]:
        """Hand the exit to the hypervisor, answer its question for certificates, and bring back what it wrote."""
        world = self.world
        pages = world.guests[0]
        pages[GPA["R0"] >> 12].data[:] = message
        pages[GPA["P0"] >> 12].data[:] = bytes(response.data[:PAGE_SIZE])
        op = ExtGuestRequest(npages=rbx) if extended else GuestRequest()
        code = EXT_GUEST_REQUEST if extended else GUEST_REQUEST
        result = world.perform_raw(op, code, GPA["R0"], GPA["P0"], GPA["D0"] if extended else rax, rbx, message)
        if result[0] == EXIT:
            enough = rbx >= HONEST_PAGES
            result = world.perform(Continue(0, 0 if enough else ENOSPC, rbx if enough else HONEST_PAGES))
            if enough:
                table = guest.table()
                certs, offset = guest._within(rax, rbx * PAGE_SIZE)
                certs.data[offset : offset + len(table)] = table
        if type(result) is not tuple or result[0] != RESUME:
            raise HarnessError(f"the shipped hypervisor answers {result!r}")
        response.data[:PAGE_SIZE] = pages[GPA["P0"] >> 12].data
        guest.previous = bytes(response.data[:PAGE_SIZE])
        return result[1], result[2], rbx if result[3] is None else result[3]
