"""Host memory: pages and small allocations of the hypervisor, and what it does with their bytes."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.frames import HOST, MOVED, POISON, Memory, Page, check_write, seen
from conformance.environment.snp_guest_request.memslots import Memslots
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import FIRMWARE, HYPERVISOR, PAGE_SIZE, RMP_NAMES
from conformance.specs.snp_guest_request.profiles import Profile
from conformance.verdict import Violation

HOST_PFN = 0x100000
BUFFER_BASE = 0x7000_0000_0000
BUFFER_STRIDE = 0x100000


class HostMemory(Simulator):
    """The page allocator, kmalloc, and the host's own accesses; guest pages too, once the hypervisor has their frame.

    Fresh memory holds poison where nobody asked for zeros, and no address is handed out twice, so that a stale one
    shows. Nothing is short but where that is planned.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_FREE_OF_ASSIGNED,
        c.NO_WRITE_TO_ASSIGNED,
        c.NO_HOST_BYTES,
        c.REFERENCES_DROPPED,
        c.PAGE_STAYS_IN_FLIGHT,
        c.BLOB_ATOMIC,
        c.DECOMMISSION,
        c.DECOMMISSION_FAILED,
        c.CONTEXT_FAILURE,
        c.ROBUST,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"free_page": (c.NO_FREE_OF_ASSIGNED,)}

    def __init__(
        self, door: Environment, tasks: Tasks, memslots: Memslots, contents: Contents, profile: Profile
    ) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.memslots = memslots
        self.contents = contents
        self.refused = door.refused
        self.of_kernel = profile.certs == "kernel"
        """Whether certificates are kept in host memory."""
        self.pages: dict[int, Page] = {}
        """By frame number."""
        self.buffers: dict[int, Memory] = {}
        """By address."""
        self.next_pfn = HOST_PFN
        self.next_buffer = BUFFER_BASE

    # -- allocation

    def alloc_page(self, zero: int) -> int:
        if self.refused("alloc_page"):
            return 0
        return self._new_page(bool(zero)).base

    def _new_page(self, zero: bool) -> Page:
        self.next_pfn += 1
        data = bytearray(PAGE_SIZE) if zero else bytearray(POISON * (PAGE_SIZE // len(POISON)))
        page = Page(self.next_pfn, data, self.tasks.current.vm, zero)
        self.pages[self.next_pfn] = page
        self.tasks.current.allocated.append(page)
        return page

    def free_page(self, address: int) -> int:
        page = self.pages.get(address >> 12)
        if page is None or page.freed:
            raise Violation(self._double(), f"page {address:#x} is freed, which is nobody's or was freed already")
        if page.state != HYPERVISOR:
            raise Violation(
                c.NO_FREE_OF_ASSIGNED,
                f"page {address:#x} goes back to the allocator in RMP state {RMP_NAMES[page.state]}",
            )
        page.freed = True
        return 0

    def _double(self) -> Clause:
        return c.CONTEXT_FAILURE if type(self.tasks.current.op).__name__ == "LaunchStart" else c.DECOMMISSION_FAILED

    def alloc_fw_page(self) -> int:
        if self.refused("alloc_fw_page"):
            return 0
        page = self._new_page(True)
        page.state = FIRMWARE
        return page.base

    def kmalloc(self, size: int) -> int:
        return self._allocate("kmalloc", size, POISON)

    def kzalloc(self, size: int) -> int:
        return self._allocate("kzalloc", size, b"\0")

    def _allocate(self, call: str, size: int, fill: bytes) -> int:
        if self.refused(call) or not 0 < size <= BUFFER_STRIDE // 2:
            return 0
        self.next_buffer += BUFFER_STRIDE
        data = bytearray((fill * size)[:size])
        buffer = Memory(self.next_buffer, data, self.tasks.current.vm, fill == b"\0")
        buffer.by = self.tasks.current.op
        self.buffers[self.next_buffer] = buffer
        self.tasks.current.allocated.append(buffer)
        return self.next_buffer

    def kfree(self, address: int) -> int:
        if address == 0:
            return 0
        buffer = self.buffers.get(address)
        if buffer is None or buffer.freed:
            raise Violation(c.DECOMMISSION_FAILED, f"{address:#x} is freed, which is nobody's or was freed already")
        buffer.freed = True
        return 0

    # -- access

    def frame(self, pfn: int) -> Page:
        """The page of a frame number, the host's or behind guest memory."""
        page = self.known(pfn)
        if page is None:
            raise Violation(c.ROBUST, f"page frame {pfn:#x} is nothing the hypervisor has")
        return page

    def known(self, pfn: int) -> Page | None:
        """The same, None where there is none or it was freed."""
        page = self.pages.get(pfn)
        if page is None:
            page = self.memslots.frame(pfn)
        return None if page is None or page.freed else page

    def at(self, address: int, size: int) -> tuple[Memory, int]:
        """The object that `size` bytes at `address` lie in, and the offset."""
        found: Memory | None = self.pages.get(address >> 12)
        if found is None and address >> 28 in (1, 2):
            found = self.frame(address >> 12)
            assert isinstance(found, Page)
            if found.refs <= 0:
                raise Violation(c.PAGE_STAYS_IN_FLIGHT, f"guest page {found.name} is used without a reference")
        if found is None:
            found = self.buffers.get(address - address % BUFFER_STRIDE)
        if found is None:
            raise Violation(c.ROBUST, f"host address {address:#x} is nothing the hypervisor has")
        if found.freed:
            clause = c.BLOB_ATOMIC if self.of_kernel and self.tasks.current.vcpu >= 0 else c.DECOMMISSION
            raise Violation(clause, f"memory at {address:#x} is used after it was freed")
        offset = address - found.base
        if size < 0 or offset + size > found.size:
            raise Violation(c.NO_HOST_BYTES, f"{size} bytes at {address:#x} reach beyond the {found.size} bytes there")
        return found, offset

    def load(self, address: int, size: int) -> int:
        memory, offset = self.at(address, size)
        value = int.from_bytes(seen(memory)[offset : offset + size], "little")
        if isinstance(memory, Page) and memory.is_guest:
            self.tasks.current.request_was_read(memory)
        return value

    def memcpy(self, destination: int, source: int, size: int) -> int:
        into, at = self.at(destination, size)
        out, start = self.at(source, size)
        if size > PAGE_SIZE:
            self.memcpy(destination, source, PAGE_SIZE)
            self.meanwhile("memcpy")
            return self.memcpy(destination + PAGE_SIZE, source + PAGE_SIZE, size - PAGE_SIZE)
        self.stored(into)
        into.data[at : at + size] = seen(out)[start : start + size]
        if isinstance(out, Page) and out.is_guest:
            self.tasks.current.request_was_read(out)
        into.vms |= out.vms
        into.lent |= out.lent
        if not out.clean:
            into.clean = False
        return 0

    def memset(self, address: int, value: int, size: int) -> int:
        memory, offset = self.at(address, size)
        self.stored(memory)
        memory.data[offset : offset + size] = bytes((value & 0xFF,)) * size
        if size == memory.size:
            memory.vms.clear()
            memory.clean = True
        return 0

    def meanwhile(self, call: str) -> None:
        """Of more than a page a part is copied: whoever waits for no lock may look at it now."""
        door = self.door
        if door.preempt is not None and not door.atomic:
            door.preempt(call)

    def stored(self, memory: Memory) -> None:
        """The host is about to write it."""
        if isinstance(memory, Page):
            check_write(memory, f"guest page {memory.name}" if memory.is_guest else "a host page")
            if memory.is_guest:
                self.contents.touch(memory)

    def put_pfn(self, pfn: int) -> int:
        page = self.frame(pfn)
        if page.refs <= 0:
            raise Violation(c.REFERENCES_DROPPED, f"a reference to page {page.name or hex(pfn)} is dropped twice")
        page.refs -= 1
        return 0

    # -- lives of VMs

    def digest(self) -> Hashable:
        """What is allocated, by whom it was taken: what an operation that failed has left behind."""
        live = [thing.owner for thing in (*self.pages.values(), *self.buffers.values()) if not thing.freed]
        return tuple(sorted(live))

    def judge_gone(self, vm: int) -> None:
        """No small allocation outlives the VM it was made for."""
        for buffer in self._kept(vm):
            raise Violation(c.DECOMMISSION, f"{buffer.size} bytes that {_operation(buffer.by)} took outlive their VM")

    def judge_decommissioned(self, vm: int) -> None:
        """Nor do certificates outlive the guest context; what else requests need may stay while the VM does."""
        for buffer in self._kept(vm):
            if buffer.lent:
                raise Violation(
                    c.DECOMMISSION,
                    f"{buffer.size} bytes of certificate storage that {_operation(buffer.by)} took are kept",
                )

    def _kept(self, vm: int) -> list[Memory]:
        return [buffer for buffer in self.buffers.values() if buffer.owner == vm and not buffer.freed]

    def move(self, src: int, dst: int) -> None:
        """A VM takes another one over: what that one had may be either's from now on."""
        for thing in (*self.pages.values(), *self.buffers.values()):
            if thing.owner == src:
                thing.owner, thing.vms = MOVED, {dst} if thing.vms else set()

    def forget(self, vm: int) -> None:
        """The VM's number is free again; of what was moved, the VM that is still there has the rest."""
        heirs = {vm: HOST, MOVED: 1 - vm}
        for thing in (*self.pages.values(), *self.buffers.values()):
            thing.owner = heirs.get(thing.owner, thing.owner)


def _operation(op: object) -> str:
    """Which operation, in words."""
    return "the start of the world" if op is None else repr(op)
