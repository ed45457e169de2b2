"""A machine and a guest without a candidate, whose simulators are wired by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.snp_guest_request.blobs import Blobs
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.crypto import STAND_IN
from conformance.environment.snp_guest_request.files import Files
from conformance.environment.snp_guest_request.guest_contexts import GuestContexts
from conformance.environment.snp_guest_request.guest_copies import GuestCopies
from conformance.environment.snp_guest_request.guest_requests import GuestRequests
from conformance.environment.snp_guest_request.mailbox import Mailbox
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.environment.snp_guest_request.memslots import Memslots
from conformance.environment.snp_guest_request.messages import request_page
from conformance.environment.snp_guest_request.mutexes import Mutexes
from conformance.environment.snp_guest_request.ratelimit import RateLimit
from conformance.environment.snp_guest_request.rmp import Rmp
from conformance.environment.snp_guest_request.shared_pages import SharedPages
from conformance.environment.snp_guest_request.tasks import Task, Tasks
from conformance.model.snp_guest_request.addresses import GPA
from conformance.model.step import Fault
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import constants as k
from conformance.specs.snp_guest_request.profiles import PROFILES
from conformance.verdict import Violation

UPSTREAM, IN_PLACE = PROFILES["upstream"], PROFILES["kernel-certs"]
C = 1 << k.C_BIT


@dataclass
class Machine:
    """A machine without a candidate: the simulators of kind H, wired by hand around a plain door."""

    door: Environment
    tasks: Tasks
    mutexes: Mutexes
    contents: Contents
    memslots: Memslots
    memory: HostMemory
    copies: GuestCopies
    files: Files
    mailbox: Mailbox
    contexts: GuestContexts
    rmp: Rmp
    requests: GuestRequests

    def launch(self) -> int:
        """Give VM 0 memory and a context that runs; its address as firmware wants it."""
        self.memslots.populate(0)
        fd, context = self.files.opened(), self.memory.alloc_fw_page() | C
        assert self.contexts.snp_gctx_create(fd, context, 0) == (0, 0)
        assert self.contexts.snp_launch_start(fd, context, 1 << 17, 0) == (0, 0)
        assert self.contexts.snp_activate(fd, context, self.contexts.alloc_asid(), 0) == (0, 0)
        assert self.contexts.snp_launch_finish(fd, context, 0) == (0, 0)
        return context

    def ask(self, message: str = "report") -> tuple[int, int]:
        """Addresses of a buffer with the guest's message and of one for the answer, as firmware wants them."""
        page = request_page(STAND_IN, message, 0, 0, 0)
        self.memslots.mapped[0][GPA["R0"] >> 12].data[:] = page
        request, response = self.memory.alloc_page(1), self.memory.alloc_fw_page()
        assert self.copies.read_guest(0, GPA["R0"], request, k.PAGE_SIZE) == 0
        return request | C, response | C


def machine(profile: Any = UPSTREAM, op: Any = None, vm: int = 0) -> Machine:
    """One on which an operation is being performed for a VM."""
    door = Environment()
    tasks = Tasks(door)
    tasks.begin(Task(op, vm, -1 if op is None else 0))
    mutexes, files = Mutexes(door, tasks), Files(door)
    contents = Contents(door, tasks, Blobs(door), profile)
    memslots = Memslots(door, contents)
    memory = HostMemory(door, tasks, memslots, contents, profile)
    mailbox = Mailbox(door, tasks, mutexes, files)
    contexts = GuestContexts(door, tasks, memory, mailbox)
    rates = RateLimit(door, tasks, is_limited=False)
    return Machine(
        door,
        tasks,
        mutexes,
        contents,
        memslots,
        memory,
        GuestCopies(door, tasks, memory, memslots, contents),
        files,
        mailbox,
        contexts,
        Rmp(door, tasks, memory, contents, mailbox, profile),
        GuestRequests(door, tasks, memory, contents, mailbox, contexts, rates, profile, STAND_IN),
    )


def shared_pages() -> SharedPages:
    """A guest's pages, one operation in progress."""
    door = Environment()
    tasks = Tasks(door)
    tasks.begin(Task(None, 0, -1))
    return SharedPages(door, tasks, Mutexes(door, tasks))


def refuse(door: Environment, call: str, value: int) -> None:
    """Plan a refusal for the next operation, which makes no other call."""
    task = door.frame
    door.frame = Frame((Fault(call, value, 0),))
    door.frame.outer = task


@contextmanager
def breaks(clause: Clause) -> Iterator[None]:
    """Expects a clause to be broken."""
    with pytest.raises(Violation) as caught:
        yield
    assert caught.value.clause is clause
