"""Copies between the hypervisor and its guests, by address as the guest has it."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.frames import POISON, Page, check_write, seen
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.environment.snp_guest_request.memslots import Memslots
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import EFAULT, PAGE_SIZE
from conformance.verdict import Violation


class GuestCopies(Simulator):
    """kvm_read_guest, kvm_write_guest and kvm_clear_guest: page by page, and the first that is missing ends them.

    What is read is stamped with the operation that read it, so that two of them in one buffer show.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.NO_HOST_BYTES, c.NO_WRITE_TO_ASSIGNED, c.ONE_AT_A_TIME)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "write_guest": (c.NO_WRITE_TO_ASSIGNED, c.NO_HOST_BYTES)
    }

    def __init__(
        self, door: Environment, tasks: Tasks, memory: HostMemory, memslots: Memslots, contents: Contents
    ) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.memory = memory
        self.memslots = memslots
        self.contents = contents
        self.refused = door.refused

    def read_guest(self, vm: int, gpa: int, address: int, size: int) -> int:
        memory, offset = self.memory.at(address, size)
        pieces = self.memslots.pieces(vm, gpa, size, write=False)
        if pieces is None:
            return -EFAULT
        refusal = self.refused("read_guest")
        if refusal:
            return refusal
        self.memory.stored(memory)
        at = offset
        for page, start, count in pieces:
            memory.data[at : at + count] = seen(page)[start : start + count]
            at += count
        memory.vms.add(vm)
        if size == memory.size:
            memory.clean = True
        if isinstance(memory, Page):
            memory.stamp = self.door.frame
            self.tasks.current.filled.add(memory)
        self.tasks.current.request_was_read(pieces[0][0])
        return 0

    def write_guest(self, vm: int, gpa: int, address: int, size: int) -> int:
        memory, offset = self.memory.at(address, size)
        pieces = self.memslots.pieces(vm, gpa, size, write=True)
        refusal = self.refused("write_guest") if pieces is not None else 0
        if refusal:
            return refusal
        data = memory.data[offset : offset + size]
        if not memory.clean and POISON in data:
            raise Violation(c.NO_HOST_BYTES, f"{size} bytes for the guest hold host memory that nobody wrote")
        if memory.vms - {vm}:
            raise Violation(c.NO_HOST_BYTES, f"{size} bytes for VM {vm} come from memory that holds another VM's data")
        if isinstance(memory, Page) and memory in self.tasks.current.filled and memory.stamp is not self.door.frame:
            raise Violation(c.ONE_AT_A_TIME, "the response buffer was filled again by another vCPU's request")
        return self._store(vm, gpa, data, size)

    def clear_guest(self, vm: int, gpa: int, size: int) -> int:
        pieces = self.memslots.pieces(vm, gpa, size, write=True)
        refusal = self.refused("clear_guest") if pieces is not None else 0
        if refusal:
            return refusal
        return self._store(vm, gpa, bytes(size), size)

    def _store(self, vm: int, gpa: int, data: bytes | bytearray, size: int) -> int:
        at = 0
        while at < size:
            page = self.memslots.page(vm, gpa + at, write=True)
            if page is None:
                return -EFAULT
            start = (gpa + at) % PAGE_SIZE
            count = min(size - at, PAGE_SIZE - start)
            if page.shadow is None:
                check_write(page, f"guest page {page.name}")
                self.contents.touch(page)
                page.data[start : start + count] = data[at : at + count]
            at += count
        return 0
