"""Kind H: the environment calls of a hypervisor's handler."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from typing import Any

from conformance.environment.door import Environment, Frame
from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.firmware import Context, Firmware
from conformance.environment.snp_guest_request.memory import (
    ASSIGNED,
    BUFFER_BASE,
    BUFFER_STRIDE,
    HOST,
    HOST_PFN,
    IMMUTABLE,
    POISON,
    USER_BASE,
    Memory,
    Page,
    blobs_in,
    guest_page,
)
from conformance.model.snp_guest_request.addresses import GPA, WATCHED
from conformance.model.snp_guest_request.operations import LATE_EFAULT, VM_OF, Config, GuestRequest
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    ASID_OWNED,
    C_BIT,
    CONTEXT,
    EBADF,
    EBUSY,
    EFAULT,
    EIO,
    ETIMEDOUT,
    FIRMWARE,
    GHCB_RBX,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    GUEST_INVALID,
    GUEST_VALID,
    HEADER_SIZE,
    HV_FIXED,
    HYPERVISOR,
    INVALID_ASID,
    INVALID_GUEST,
    INVALID_PAGE_STATE,
    METADATA,
    MSG_TYPE,
    NO_FD,
    PAGE_SIZE,
    PRE_GUEST,
    PRE_SWAP,
    RECLAIM,
    RMP_NAMES,
    RUN_RET,
    SEV_CMD_MUTEX,
    UNINITIALISED,
)
from conformance.specs.snp_guest_request.profiles import Profile
from conformance.verdict import Crash, Violation

WORD = 2**64 - 1
UNTOUCHED: tuple[object, ...] = ("start",) * len(WATCHED)
HALF = UNINITIALISED & 0xFFFFFFFF
RATE_BURST, RATE_SECONDS = 2, 2
_RECLAIMED = {METADATA: RECLAIM, FIRMWARE: RECLAIM, PRE_GUEST: GUEST_INVALID, PRE_SWAP: GUEST_VALID}


def is_tainted(value: int) -> bool:
    """Whether either half of a value is what an uninitialised variable holds."""
    return value & 0xFFFFFFFF == HALF or value >> 32 & 0xFFFFFFFF == HALF


class Act:
    """One operation in progress, and what it has done so far."""

    __slots__ = (
        "allocated",
        "answered",
        "cleanup_failed",
        "entered",
        "filled",
        "ghcb_written",
        "held",
        "instants",
        "is_granted",
        "issued",
        "misaligned",
        "op",
        "ran",
        "small",
        "vcpu",
        "vm",
    )

    def __init__(self, op: Any, vm: int, vcpu: int) -> None:
        self.op = op
        self.vm = vm
        self.vcpu = vcpu
        self.issued = 0
        """SNP_GUEST_REQUEST commands issued."""
        self.ran = 0
        """Those that firmware saw."""
        self.allocated: list[Any] = []
        self.held: list[str] = []
        """Locks, in the order taken."""
        self.instants: list[bytes] = []
        """Contents that the guest's request page had during the operation."""
        self.misaligned = False
        """The request is not where a page begins, and no command is due."""
        self.ghcb_written = False
        self.answered: tuple[Suite, int, bytes, bytes] | None = None
        """Guest number, request header and response of the last message that firmware answered."""
        self.cleanup_failed = False
        """A guest page could not be reclaimed or made shared again."""
        self.is_granted = False
        """The VM was said to be within its rate."""
        self.small = False
        """Kind G: the host said that the data buffer is too small."""
        self.entered = False
        """The GHCB was mapped."""
        self.filled: set[Memory] = set()
        """Buffers that this operation filled."""


class Cpu:
    """A vCPU's GHCB as mapped, what was fetched from it, and its run structure."""

    __slots__ = ("instants", "mapped", "missing", "overlaid", "race", "raced", "read_ret", "run", "supplied")

    def __init__(self) -> None:
        self.mapped: Page | None = None
        self.missing = ""
        self.overlaid = False
        """The guest has its answer or its certificates put where a GHCB is."""
        self.race: dict[int, int] = {}
        """Byte of the GHCB -> what the guest stores there once it was fetched."""
        self.raced: set[int] = set()
        """Bytes that the guest changed after they were fetched."""
        self.run: list[int] = [0, 0, 0, 0]
        """Reason, gpa, npages, ret."""
        self.read_ret = 0
        self.supplied: dict[int, int] = {}
        self.instants: list[bytes] = []


class Host(Environment):
    """The machine under a hypervisor: memory, RMP, firmware, locks."""

    config: Config
    profile: Profile
    suite: Suite

    def build_host(self) -> None:
        """A machine in which nothing has happened yet."""
        self.acts: dict[Frame, Act] = {}
        self.no_act = Act(None, HOST, -1)
        self.last: Act | None = None
        self.firmware = Firmware(self.suite)
        self.dead = False
        self.pages: dict[int, Page] = {}
        self.buffers: dict[int, Memory] = {}
        self.guests: list[dict[int, Page]] = [{}, {}]
        self.watched: list[list[Page]] = [[], []]
        self.contexts: list[Page | None] = [None, None]
        self.bugged = [False, False]
        self.cpus = [Cpu() for _ in VM_OF]
        self.fds: dict[int, str] = {9: "other"}
        self.locks: dict[str, Frame | None] = {SEV_CMD_MUTEX: None}
        self.lock_users: dict[str, int] = {}
        self.order: dict[str, set[str]] = {}
        self.asids: dict[int, int] = {}
        self.next_pfn = HOST_PFN
        self.next_buffer = BUFFER_BASE
        self.next_asid = 1
        self.user = b""
        self.user_out = bytearray()
        self.seconds = 0
        self.rates: dict[int, list[int]] = {}
        """By VM, when requests were forwarded."""
        self.granted: dict[int, list[int]] = {}
        """By VM, when it was said to be within its rate."""
        self.responses: dict[bytes, tuple[object, bytes]] = {}
        self.installed: dict[tuple[str, int], None] = {}
        self.certs_tcb: dict[str, int] = {}
        self.current: dict[int, tuple[str, int]] = {}
        """By VM, or HOST: the blob that was set last."""
        self.inplace = self.profile.pages == "inplace"
        self.dirty: list[Page] = []
        """Guest pages that changed and are not yet classified."""
        self.labels: list[tuple[object, ...]] = [UNTOUCHED, UNTOUCHED]
        self.taken: dict[Page, None] = {}
        """Guest pages whose RMP entry was changed by the hypervisor."""
        self.removed: dict[int, Page] = {}
        """Pages whose memslot is gone, by frame number."""
        self.fetching: set[int] = set()
        """VMs for which fetching certificates from userspace was enabled."""
        self.next_fd = 100
        self.fd_of = [0, 0]
        """By VM: the file descriptor that was given at launch."""
        self.ghcbs: set[tuple[int, str]] = set()
        """Registered GHCB pages: VM and name."""
        self.lock_vm: dict[str, int] = {}
        self.loose_locks: set[str] = set()
        """Locks that a VM had when it was moved: it may have kept them or taken them along."""
        self.joined: set[int] = set()
        """VMs that were moved away, and mirrors."""

    @property
    def act(self) -> Act:
        """The operation that the running thread performs; none while the candidate is created."""
        return self.acts.get(self.frame) or self.no_act

    # -- GHCB and run structure

    def ghcb_map(self, vcpu: int, gpa: int) -> int:
        page = self.guest_page_at(VM_OF[vcpu], gpa)
        if page is None or gpa % PAGE_SIZE:
            return -EFAULT
        # What was mapped in this exit can be mapped again, to tell the guest its answer.
        refusal = 0 if self.act.entered else self.refused("ghcb_map")
        if refusal:
            return refusal
        self.act.entered = True
        self.cpus[vcpu].mapped = page
        return 0

    def ghcb_read(self, vcpu: int, offset: int, size: int) -> int:
        page = self._ghcb(vcpu)
        value = int.from_bytes(page.data[offset : offset + size], "little")
        cpu = self.cpus[vcpu]
        if cpu.raced and any(offset <= at < offset + size for at in cpu.raced):
            raise Violation(
                c.GHCB_SNAPSHOT,
                f"GHCB field {offset:#x} is fetched again, after the guest changed it: {value:#x}",
            )
        for at in [at for at in cpu.race if offset <= at < offset + size]:
            page.data[at] = cpu.race.pop(at)
            cpu.raced.add(at)
            self.hold(c.GHCB_SNAPSHOT)
        return value

    def ghcb_write(self, vcpu: int, offset: int, value: int) -> int:
        page = self._ghcb(vcpu)
        if not 0 <= value <= WORD:
            raise Crash(f"ghcb_write({offset:#x}): {value!r} is no 64-bit value", "type")
        if offset in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2):
            self.act.ghcb_written = True
        if offset in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2, GHCB_RBX) and is_tainted(value):
            raise Violation(c.NO_UNINITIALISED, f"GHCB field {offset:#x} is {value:#x}, bits that nobody wrote")
        self._written(page, "the GHCB")
        page.data[offset : offset + 8] = value.to_bytes(8, "little")
        self.cpus[vcpu].raced -= set(range(offset, offset + 8))
        return 0

    def ghcb_unmap(self, vcpu: int) -> int:
        self.cpus[vcpu].mapped = None
        return 0

    def _ghcb(self, vcpu: int) -> Page:
        page = self.cpus[vcpu].mapped
        if page is None:
            raise Violation(c.ROBUST, f"vCPU {vcpu} has no GHCB mapped")
        return page

    def run_exit(self, vcpu: int, reason: int, gpa: int, npages: int, ret: int) -> int:
        self.cpus[vcpu].run = [reason, gpa, npages, ret]
        return 0

    def run_read(self, vcpu: int, field: int) -> int:
        cpu = self.cpus[vcpu]
        if field != RUN_RET:
            return cpu.run[2]
        cpu.read_ret += 1
        if cpu.read_ret > 1:
            raise Violation(c.CERTS_ANSWER, "run.ret is read twice; another thread may have changed it")
        return cpu.run[3]

    # -- host memory

    def _owned(self, memory: Any) -> None:
        act = self.act
        act.allocated.append(memory)

    def alloc_page(self, zero: int) -> int:
        if self.refused("alloc_page"):
            return 0
        return self._new_page(bool(zero)).base

    def _new_page(self, zero: bool) -> Page:
        self.next_pfn += 1
        data = bytearray(PAGE_SIZE) if zero else bytearray(POISON * (PAGE_SIZE // len(POISON)))
        page = Page(self.next_pfn, data, self.act.vm, zero)
        self.pages[self.next_pfn] = page
        self._owned(page)
        return page

    def free_page(self, address: int) -> int:
        page = self.pages.get(address >> 12)
        if page is None or page.freed:
            raise Violation(self._double(), f"page {address:#x} is freed, which is nobody's or was freed already")
        if page.state != HYPERVISOR:
            raise Violation(
                c.NO_FREE_OF_ASSIGNED, f"page {address:#x} goes back to the allocator in RMP state {_rmp(page.state)}"
            )
        page.freed = True
        return 0

    def _double(self) -> Clause:
        return c.CONTEXT_FAILURE if type(self.act.op).__name__ == "LaunchStart" else c.DECOMMISSION_FAILED

    def alloc_fw_page(self) -> int:
        if self.refused("alloc_fw_page"):
            return 0
        page = self._new_page(True)
        page.state = FIRMWARE
        return page.base

    def leak_page(self, pfn: int) -> int:
        page = self._frame(pfn)
        if not (page.stuck or page.kept or self.dead):
            raise Violation(
                c.RESPONSE_PAGE_BACK if page.is_guest else self._leak_clause(page),
                f"page {pfn:#x} is leaked for no reason",
            )
        page.leaked = True
        return 0

    def kmalloc(self, size: int) -> int:
        return self._allocate("kmalloc", size, POISON)

    def kzalloc(self, size: int) -> int:
        return self._allocate("kzalloc", size, b"\0")

    def _allocate(self, call: str, size: int, fill: bytes) -> int:
        if self.refused(call) or not 0 < size <= BUFFER_STRIDE // 2:
            return 0
        self.next_buffer += BUFFER_STRIDE
        data = bytearray((fill * size)[:size])
        buffer = Memory(self.next_buffer, data, self.act.vm, fill == b"\0")
        self.buffers[self.next_buffer] = buffer
        self._owned(buffer)
        return self.next_buffer

    def kfree(self, address: int) -> int:
        if address == 0:
            return 0
        buffer = self.buffers.get(address)
        if buffer is None or buffer.freed:
            raise Violation(c.DECOMMISSION_FAILED, f"{address:#x} is freed, which is nobody's or was freed already")
        buffer.freed = True
        return 0

    def memory(self, address: int, size: int) -> tuple[Memory, int]:
        """The object that `size` bytes at `address` lie in, and the offset."""
        found: Memory | None = self.pages.get(address >> 12)
        if found is None and address >> 28 in (1, 2):
            found = self._frame(address >> 12)
            assert isinstance(found, Page)
            if found.refs <= 0:
                raise Violation(c.PAGE_STAYS_IN_FLIGHT, f"guest page {found.name} is used without a reference")
        if found is None:
            found = self.buffers.get(address - address % BUFFER_STRIDE)
        if found is None:
            raise Violation(c.ROBUST, f"host address {address:#x} is nothing the hypervisor has")
        if found.freed:
            clause = c.BLOB_ATOMIC if self.profile.certs == "kernel" and self.act.vcpu >= 0 else c.DECOMMISSION
            raise Violation(clause, f"memory at {address:#x} is used after it was freed")
        offset = address - found.base
        if size < 0 or offset + size > found.size:
            raise Violation(c.NO_HOST_BYTES, f"{size} bytes at {address:#x} reach beyond the {found.size} bytes there")
        return found, offset

    def load(self, address: int, size: int) -> int:
        memory, offset = self.memory(address, size)
        value = int.from_bytes(_seen(memory)[offset : offset + size], "little")
        if isinstance(memory, Page) and memory.is_guest:
            self._guest_races(memory)
        return value

    def memcpy(self, destination: int, source: int, size: int) -> int:
        into, at = self.memory(destination, size)
        out, start = self.memory(source, size)
        self._stored(into)
        into.data[at : at + size] = _seen(out)[start : start + size]
        if isinstance(out, Page) and out.is_guest:
            self._guest_races(out)
        into.vms |= out.vms
        if not out.clean:
            into.clean = False
        return 0

    def memset(self, address: int, value: int, size: int) -> int:
        memory, offset = self.memory(address, size)
        self._stored(memory)
        memory.data[offset : offset + size] = bytes((value & 0xFF,)) * size
        if size == memory.size:
            memory.vms.clear()
            memory.clean = True
        return 0

    def _stored(self, memory: Memory) -> None:
        if isinstance(memory, Page):
            self._written(memory, f"guest page {memory.name}" if memory.is_guest else "a host page")
            if memory.is_guest:
                self.touch(memory)

    def copy_from_user(self, address: int, user: int, size: int) -> int:
        memory, offset = self.memory(address, size)
        start = user - USER_BASE
        if start < 0 or start + size > len(self.user):
            return -EFAULT
        refusal = self.refused("copy_from_user")
        taken = size // 2 if refusal else size
        memory.data[offset : offset + taken] = self.user[start : start + taken]
        return refusal

    def copy_to_user(self, user: int, address: int, size: int) -> int:
        memory, offset = self.memory(address, size)
        start = user - USER_BASE
        if start < 0 or start + size > len(self.user_out):
            return -EFAULT
        refusal = self.refused("copy_to_user")
        taken = size // 2 if refusal else size
        self.user_out[start : start + taken] = memory.data[offset : offset + taken]
        return refusal

    # -- guest memory

    def guest_page_at(self, vm: int, gpa: int) -> Page | None:
        """The page that holds this address, None in a hole."""
        return self.guests[vm].get(gpa >> 12)

    def populate(self, vm: int) -> None:
        """Give a VM fresh memory."""
        pages = {gpa >> 12: guest_page(vm, name) for name, gpa in GPA.items()}
        self.guests[vm] = pages
        self.watched[vm] = [pages[GPA[name] >> 12] for name in WATCHED]
        self.labels[vm] = UNTOUCHED

    def read_guest(self, vm: int, gpa: int, address: int, size: int) -> int:
        memory, offset = self.memory(address, size)
        pieces = self._pieces(vm, gpa, size, write=False)
        if pieces is None:
            return -EFAULT
        refusal = self.refused("read_guest")
        if refusal:
            return refusal
        self._stored(memory)
        at = offset
        for page, start, count in pieces:
            memory.data[at : at + count] = _seen(page)[start : start + count]
            at += count
        memory.vms.add(vm)
        if size == memory.size:
            memory.clean = True
        if isinstance(memory, Page):
            memory.stamp = self.frame
            self.act.filled.add(memory)
        self._guest_races(pieces[0][0])
        return 0

    def _guest_races(self, page: Page) -> None:
        """The guest changes MSG_TYPE of its request page once it was read from, and then the end of the page."""
        act = self.act
        if getattr(act.op, "race", "") != "type" or not act.instants or bytes(page.data) != act.instants[0]:
            return
        for at, bits in ((MSG_TYPE, 6), (PAGE_SIZE - 1, 0xFF)):
            page.data[at] ^= bits
            act.instants.append(bytes(page.data))

    def write_guest(self, vm: int, gpa: int, address: int, size: int) -> int:
        memory, offset = self.memory(address, size)
        pieces = self._pieces(vm, gpa, size, write=True)
        refusal = self.refused("write_guest") if pieces is not None else 0
        if refusal:
            return refusal
        data = memory.data[offset : offset + size]
        if not memory.clean and POISON in data:
            raise Violation(c.NO_HOST_BYTES, f"{size} bytes for the guest hold host memory that nobody wrote")
        if memory.vms - {vm}:
            raise Violation(c.NO_HOST_BYTES, f"{size} bytes for VM {vm} come from memory that holds another VM's data")
        if isinstance(memory, Page) and memory in self.act.filled and memory.stamp is not self.frame:
            raise Violation(c.ONE_AT_A_TIME, "the response buffer was filled again by another vCPU's request")
        return self._store(vm, gpa, data, size)

    def clear_guest(self, vm: int, gpa: int, size: int) -> int:
        pieces = self._pieces(vm, gpa, size, write=True)
        refusal = self.refused("clear_guest") if pieces is not None else 0
        if refusal:
            return refusal
        return self._store(vm, gpa, bytes(size), size)

    def _store(self, vm: int, gpa: int, data: bytes | bytearray, size: int) -> int:
        at = 0
        while at < size:
            page = self._mapped(vm, gpa + at, write=True)
            if page is None:
                return -EFAULT
            start = (gpa + at) % PAGE_SIZE
            count = min(size - at, PAGE_SIZE - start)
            if page.shadow is None:
                self._written(page, f"guest page {page.name}")
                self.touch(page)
                page.data[start : start + count] = data[at : at + count]
            at += count
        return 0

    def touch(self, page: Page) -> None:
        """A guest page is about to change: keep what it held at first."""
        if not page.dirty:
            page.dirty = True
            page.before = bytes(page.data)
            self.dirty.append(page)

    def _pieces(self, vm: int, gpa: int, size: int, *, write: bool) -> list[tuple[Page, int, int]] | None:
        found: list[tuple[Page, int, int]] = []
        at = 0
        while at < size or not found:
            page = self._mapped(vm, gpa + at, write=write)
            if page is None:
                return None
            start = (gpa + at) % PAGE_SIZE
            count = min(size - at, PAGE_SIZE - start)
            found.append((page, start, count))
            at += max(count, 1)
        return found

    def _mapped(self, vm: int, gpa: int, *, write: bool) -> Page | None:
        page = self.guests[vm].get(gpa >> 12)
        return None if page is None or (write and page.name == "readonly") else page

    def gfn_to_pfn(self, vm: int, gfn: int) -> int:
        page = self._mapped(vm, gfn << 12, write=True)
        if page is None:
            return -EFAULT
        refusal = self.refused("gfn_to_pfn")
        if refusal:
            return refusal
        page.refs += 1
        return page.pfn

    def put_pfn(self, pfn: int) -> int:
        page = self._frame(pfn)
        if page.refs <= 0:
            raise Violation(c.REFERENCES_DROPPED, f"a reference to page {page.name or hex(pfn)} is dropped twice")
        page.refs -= 1
        return 0

    def _frame(self, pfn: int) -> Page:
        page = self.pages.get(pfn)
        if page is None and pfn >> 16 in (1, 2):
            page = self.guests[(pfn >> 16) - 1].get(pfn & 0xFFFF) or self.removed.get(pfn)
        if page is None or page.freed:
            raise Violation(c.ROBUST, f"page frame {pfn:#x} is nothing the hypervisor has")
        return page

    def _written(self, page: Page, what: str) -> None:
        if page.state in ASSIGNED:
            raise Violation(c.NO_WRITE_TO_ASSIGNED, f"the host writes {what}, which is in RMP state {_rmp(page.state)}")

    # -- RMP

    def rmp_lookup(self, pfn: int) -> int:
        return self._frame(pfn).state

    def rmp_make_private(self, pfn: int, gpa: int, asid: int, immutable: int) -> int:
        page = self._frame(pfn)
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
        page.asid, page.cleanup, page.in_flight = asid, 0, self.frame
        if page.is_guest:
            self.taken[page] = None
        return 0

    def rmp_make_shared(self, pfn: int) -> int:
        page = self._frame(pfn)
        self._may_update(page)
        refusal = self.refused("rmp_make_shared")
        if refusal:
            page.stuck = True
            self.act.cleanup_failed |= page.is_guest
            return refusal
        if page.is_guest:
            self.touch(page)
        page.state, page.asid, page.context = HYPERVISOR, 0, None
        return 0

    def _may_update(self, page: Page) -> None:
        if page.stuck:
            raise Violation(
                c.RECLAIM_FAILED if self.inplace else c.BOUNCE_PAGES, "RMPUPDATE of a page that was not reclaimed"
            )
        if page.state in IMMUTABLE:
            if page.in_flight is not None and page.in_flight is not self.frame and page.is_guest:
                raise Violation(c.ONE_AT_A_TIME, f"RMPUPDATE of page {page.name} while another vCPU's request uses it")
            raise Violation(
                c.RECLAIM_FIRST if self.inplace else c.BOUNCE_PAGES,
                f"RMPUPDATE of an immutable entry, in RMP state {_rmp(page.state)}",
            )

    def _may_take(self, page: Page) -> None:
        """In place a guest page becomes firmware's only if it is the guest's to give; with bounce pages never."""
        if not self.inplace:
            raise Violation(c.GUEST_PAGES_STAY, f"RMPUPDATE of guest page {page.name}")
        if page.state != HYPERVISOR:
            raise Violation(
                c.RESPONSE_PAGE_FREE, f"page {page.name} in RMP state {_rmp(page.state)} is taken from the guest"
            )
        if (page.vm, page.name) in self.ghcbs:
            raise Violation(c.RESPONSE_PAGE_FREE, f"GHCB page {page.name} is made firmware's")
        self.require(c.RESPONSE_PAGE_FREE, True, "")

    # -- firmware

    def _command(self, call: str, fd: int, error: int) -> tuple[int, int] | None:
        """What keeps a command from firmware, None when firmware shall process it."""
        self._enter_mailbox()
        if fd != NO_FD and self.fds.get(fd) != "sev":
            return -EBADF, error
        if self.dead:
            return -EBUSY, error
        refusal = self.refused(call)
        if refusal == -ETIMEDOUT:
            self.dead = True
            return -ETIMEDOUT, error & ~0xFFFFFFFF & WORD
        if refusal > 0:
            self.act.ran += call == "snp_guest_request"
            return -EIO, error & ~0xFFFFFFFF & WORD | refusal
        if refusal and refusal != LATE_EFAULT:
            return refusal, error
        return None

    @staticmethod
    def _status(status: int, error: int) -> tuple[int, int]:
        """Result and status variable after firmware has answered: only the low 32 bits are written."""
        return (-EIO if status else 0), error & ~0xFFFFFFFF & WORD | status

    def _context_page(self, gctx: int) -> Page | None:
        page = self.pages.get((gctx & ~(1 << C_BIT)) >> 12)
        return page if page is not None and page.state == CONTEXT and not page.freed else None

    def snp_gctx_create(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        early = self._command("snp_gctx_create", fd, error)
        if early is not None:
            return early
        page = self.pages.get((gctx & ~(1 << C_BIT)) >> 12)
        if page is None or page.state != FIRMWARE:
            return self._status(INVALID_PAGE_STATE, error)
        page.state, page.context = CONTEXT, Context(self.act.vm)
        self.contexts[self.act.vm] = page
        return self._status(0, error)

    def snp_launch_start(self, fd: int, gctx: int, policy: int, error: int) -> tuple[int, int]:
        early = self._command("snp_launch_start", fd, error)
        if early is not None:
            return early
        page = self._context_page(gctx)
        if page is None or page.context.state != "init":
            return self._status(INVALID_GUEST, error)
        if not policy >> 17 & 1:
            return self._status(7, error)
        page.context.state = "launch"
        return self._status(0, error)

    def snp_activate(self, fd: int, gctx: int, asid: int, error: int) -> tuple[int, int]:
        early = self._command("snp_activate", fd, error)
        if early is not None:
            return early
        page = self._context_page(gctx)
        if page is None:
            return self._status(INVALID_GUEST, error)
        if self.asids.get(asid) != self.act.vm:
            return self._status(ASID_OWNED if asid in self.asids else INVALID_ASID, error)
        page.context.asid = asid
        return self._status(0, error)

    def snp_launch_finish(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        early = self._command("snp_launch_finish", fd, error)
        if early is not None:
            return early
        page = self._context_page(gctx)
        if page is None or page.context.state != "launch":
            return self._status(INVALID_GUEST, error)
        page.context.state = "running"
        counts = page.context.counts
        if self.config.started and self.act.op is None and self.act.vm == 0:
            counts[0] = self.config.count
        return self._status(0, error)

    def snp_decommission(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        early = self._command("snp_decommission", fd, error)
        page = self.pages.get((gctx & ~(1 << C_BIT)) >> 12)
        if early is not None:
            if page is not None:
                page.stuck = page.kept = True
            return early
        if page is None or page.state != CONTEXT or page.freed:
            if page is not None:
                page.stuck = page.kept = True
            return self._status(INVALID_GUEST, error)
        page.state, page.decommissioned = FIRMWARE, True
        page.stuck = page.kept = False
        return self._status(0, error)

    def snp_guest_request(self, fd: int, gctx: int, request: int, response: int, error: int) -> tuple[int, int]:
        act = self.act
        act.issued += 1
        req, res, page = self._judge_command(gctx, request, response)
        early = self._command("snp_guest_request", fd, error)
        if early is not None:
            return early
        act.ran += 1
        context = page.context
        if context is None or page.state != CONTEXT:
            return self._status(INVALID_GUEST, error)
        if res.state != FIRMWARE:
            return self._status(INVALID_PAGE_STATE, error)
        source = req.data if not req.is_guest or req.shadow is None else req.shadow
        gstate = context.state
        status, message = self.firmware.guest_request(context, bytes(source))
        if status:
            return self._status(status, error)
        if context.state == "gone" and gstate != "gone":
            page.state = FIRMWARE
        if res.is_guest:
            self.touch(res)
        res.data[: len(message)] = message
        res.vms.add(act.vm)
        res.stamp = self.frame
        act.filled.add(res)
        if self.config.throttle:
            self._count_rate(act.vm)
        key = message[0x3C]
        number = int.from_bytes(message[0x20:0x28], "little")
        act.answered = (self.suite, context.guest, bytes(source[:HEADER_SIZE]), message)
        self.responses[message[:HEADER_SIZE]] = (("rsp", context.guest, key, number), message)
        self._judge_signer()
        if self.frame.given.get("snp_guest_request") == LATE_EFAULT:
            return -EFAULT, error & ~0xFFFFFFFF & WORD
        return self._status(0, error)

    def _judge_command(self, gctx: int, request: int, response: int) -> tuple[Page, Page, Page]:
        """The protocol of the command: whose context, which pages, in which state (SNP-015, SNP-027, SNP-016)."""
        act, bit = self.act, 1 << C_BIT
        page = self.pages.get((gctx & ~bit) >> 12)
        if page is None or page.freed:
            raise Violation(c.NO_CONTEXT, f"SNP_GUEST_REQUEST with guest context {gctx:#x}, where none is")
        if act.vm in self.joined and self.contexts[act.vm] is not page:
            raise Violation(c.MOVE, "SNP_GUEST_REQUEST for a VM that was moved away, or is a mirror")
        if page.context is None or (page.owner != act.vm and self.contexts[act.vm] is not page):
            raise Violation(c.ONE_COMMAND, "SNP_GUEST_REQUEST with another VM's guest context")
        if self.contexts[act.vm] is not page:
            raise Violation(c.NO_CONTEXT, "SNP_GUEST_REQUEST for a VM whose context was moved away or given up")
        if not gctx & request & response & bit:
            raise Violation(c.ONE_COMMAND, "an address given to firmware lacks the C-bit")
        if (gctx | request | response) & 0xFFF:
            raise Violation(c.ONE_COMMAND, "an address given to firmware is no page's")
        req, res = (self._fw_frame((address & ~bit) >> 12) for address in (request, response))
        if res.state != FIRMWARE:
            raise Violation(c.RESPONSE_FIRMWARE_OWNED, f"the response page is in RMP state {_rmp(res.state)}")
        for what, used in (("request", req), ("response", res)):
            if used.is_guest and used.refs <= 0:
                raise Violation(c.PAGE_STAYS_IN_FLIGHT, f"firmware is given guest page {used.name} without a reference")
            if used.is_guest and used.vm != act.vm:
                raise Violation(c.VMS_INDEPENDENT, f"the {what} page is VM {used.vm}'s")
            if not used.is_guest and used.vms - {act.vm}:
                raise Violation(c.VMS_INDEPENDENT, f"the {what} buffer holds data of another VM")
        if res.is_guest and res.in_flight is not self.frame:
            raise Violation(c.ONE_AT_A_TIME, f"page {res.name} was made firmware's by another vCPU's request")
        if req in act.filled and req.stamp is not self.frame:
            raise Violation(c.ONE_AT_A_TIME, "the request buffer was filled again by another vCPU's request")
        if self.profile.pages == "bounce":
            if req.is_guest or res.is_guest:
                raise Violation(c.GUEST_PAGES_STAY, "firmware is given a guest page")
            if act.instants and bytes(req.data) not in act.instants and not act.misaligned:
                raise Violation(c.WHOLE_REQUEST, "firmware is given other bytes than the guest's request page had")
            self.held[c.WHOLE_REQUEST] = self.held.get(c.WHOLE_REQUEST, 0) + 1
        return req, res, page

    def _fw_frame(self, pfn: int) -> Page:
        page = self.pages.get(pfn)
        if page is None and pfn >> 16 in (1, 2):
            page = self.guests[(pfn >> 16) - 1].get(pfn & 0xFFFF)
            if page is None and pfn in self.removed:
                page = self.removed[pfn]
        if page is None or page.freed:
            raise Violation(c.ONE_COMMAND, f"firmware is given page frame {pfn:#x}, where nothing is")
        return page

    def _judge_signer(self) -> None:
        """Host certificates that this request copied belong to the TCB that the report shows (SNP-060).

        While a blob is being set again for another TCB, nobody can tell which of the two it is.
        """
        act = self.act
        being_set = {getattr(other.op, "blob", "") for other in self.acts.values()}
        if self.profile.certs != "kernel" or not self.certs_tcb or type(act.op).__name__ != "ExtGuestRequest":
            return
        for page in self.watched[act.vm]:
            if page.dirty:
                name = chr(page.data[0])
                copied = name in self.certs_tcb and name not in being_set and name in blobs_in(page.data[:16])
                if copied and act.op.message == "report":
                    wanted = self.certs_tcb[name]
                    self.require(
                        c.CERTS_OF_SIGNER,
                        wanted == self.firmware.reported_tcb,
                        f"certificates of TCB {wanted:#x} with a report of TCB {self.firmware.reported_tcb:#x}",
                    )

    def snp_page_reclaim(self, pfn: int) -> int:
        page = self._frame(pfn)
        self._enter_mailbox()
        if self.dead:
            page.stuck = True
            self.act.cleanup_failed |= page.is_guest
            return -EBUSY
        if page.is_guest and page.in_flight is not None and page.in_flight is not self.frame and page.state == FIRMWARE:
            raise Violation(c.ONE_AT_A_TIME, f"page {page.name} is reclaimed while another vCPU's request uses it")
        if page.is_guest and page.cleanup:
            raise Violation(c.RECLAIM_FIRST, f"page {page.name} is reclaimed twice")
        refusal = self.refused("snp_page_reclaim")
        if refusal:
            page.stuck = True
            self.act.cleanup_failed |= page.is_guest
            return -EIO if refusal > 0 else refusal
        if page.state in (CONTEXT, HV_FIXED):
            return -EIO
        page.cleanup += 1
        page.stuck = page.stuck and page.is_guest
        page.state = _RECLAIMED.get(page.state, page.state)
        return 0

    def snp_config(self, tcb: int) -> int:
        self._enter_mailbox()
        if self.dead:
            return -EBUSY
        refusal = self.refused("snp_config")
        if refusal:
            return -EIO if refusal > 0 else refusal
        self.firmware.reported_tcb = tcb
        return 0

    def psp_is_dead(self) -> int:
        return int(self.dead)

    # -- locks

    def _enter_mailbox(self) -> None:
        """Every firmware command takes the driver's one mutex, unless its caller holds it."""
        if self.locks[SEV_CMD_MUTEX] is not self.frame:
            if self.act.held:
                self._ordered(SEV_CMD_MUTEX)
            self._wait(SEV_CMD_MUTEX)

    def mutex_init(self, name: str) -> int:
        if name in self.locks and name not in self.loose_locks:
            raise Violation(c.LOCK_INITIALISED, f"lock {name} is initialised twice")
        self.loose_locks.discard(name)
        self.locks[name] = None
        self.lock_vm[name] = self.act.vm
        self.lock_users.pop(name, None)
        return 0

    def mutex_lock(self, name: str) -> int:
        self._lock(name)
        return 0

    def mutex_lock_killable(self, name: str) -> int:
        self._usable(name)
        refusal = self.refused("mutex_lock_killable")
        if refusal:
            return refusal
        self._lock(name)
        return 0

    def _usable(self, name: str) -> None:
        if name not in self.locks:
            raise Violation(c.LOCK_INITIALISED, f"lock {name} is taken before it was initialised")

    def _lock(self, name: str) -> None:
        self._usable(name)
        frame = self.frame
        if self.locks[name] is frame:
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is taken twice by the same thread")
        act = self.acts.get(frame)
        if act is not None:
            if type(act.op) is GuestRequest and name != SEV_CMD_MUTEX:
                user = self.lock_users.setdefault(name, act.vm)
                if user != act.vm:
                    raise Violation(c.VMS_INDEPENDENT, f"lock {name} serves basic requests of two VMs")
            if act.held:
                self._ordered(name)
            act.held.append(name)
        self._wait(name)
        self.locks[name] = frame

    def _wait(self, name: str) -> None:
        if self.locks[name] is None or self.locks[name] is self.frame:
            return
        if self.scheduler is None:
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is held by an operation that has ended or cannot go on")
        self.scheduler.block(f"lock {name}", lambda: self.locks[name] is None)

    def _ordered(self, name: str) -> None:
        """Note that `name` is taken under the locks held; a cycle among such pairs can deadlock."""
        for held in self.act.held:
            if held == name:
                continue
            self.order.setdefault(held, set()).add(name)
            if self._reaches(name, held):
                raise Violation(c.LOCK_ORDER, f"{name} is taken under {held}, and elsewhere {held} under {name}")

    def _reaches(self, start: str, goal: str) -> bool:
        seen, todo = set(), [start]
        while todo:
            name = todo.pop()
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                todo += self.order.get(name, ())
        return False

    def mutex_unlock(self, name: str) -> int:
        self._usable(name)
        if self.locks[name] is not self.frame:
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is released by a thread that does not hold it")
        self.locks[name] = None
        act = self.acts.get(self.frame)
        if act is not None and name in act.held:
            act.held.remove(name)
        return 0

    # -- others

    def alloc_asid(self) -> int:
        refusal = self.refused("alloc_asid")
        if refusal:
            return -EBUSY if refusal > 0 else refusal
        asid = self.next_asid
        self.next_asid += 1
        self.asids[asid] = self.act.vm
        self._owned(asid)
        return asid

    def free_asid(self, asid: int) -> int:
        if self.asids.pop(asid, None) is None:
            raise Violation(c.DECOMMISSION_FAILED, f"ASID {asid} is freed, which is nobody's or was freed already")
        page = self.contexts[self.act.vm]
        if page is not None and page.context is not None and page.context.asid == asid:
            if page.kept:
                raise Violation(c.DECOMMISSION_FAILED, f"ASID {asid} is freed though decommissioning failed")
            if page.state == CONTEXT:
                raise Violation(c.DESTROY_ORDER, f"ASID {asid} is freed before its context is decommissioned")
        return 0

    def ratelimit(self, vm: int) -> int:
        if not self.config.throttle:
            return 1
        self.require(c.RATE, vm == self.act.vm, f"a request of VM {self.act.vm} asks for the rate of VM {vm}")
        recent = [t for t in self.granted.get(vm, []) if self.seconds - t < RATE_SECONDS]
        if len(recent) >= RATE_BURST:
            self.frame.given.setdefault("ratelimit", 1)
            return 0
        self.granted[vm] = [*recent, self.seconds]
        self.act.is_granted |= vm == self.act.vm
        return 1

    def _count_rate(self, vm: int) -> None:
        recent = [t for t in self.rates.get(vm, []) if self.seconds - t < RATE_SECONDS]
        self.require(
            c.RATE,
            self.act.is_granted or len(recent) < RATE_BURST,
            f"{len(recent) + 1} requests of VM {vm} within {RATE_SECONDS} s were forwarded",
        )
        self.rates[vm] = [*recent, self.seconds]

    def vm_bug(self, vm: int) -> int:
        self.bugged[vm] = True
        return 0

    def _leak_clause(self, memory: Memory) -> Clause:
        if isinstance(memory, Page) and memory.context is None:
            return c.BOUNCE_PAGES if not self.inplace else c.CONTEXT_FAILURE
        return c.DECOMMISSION


def _seen(memory: Memory) -> bytearray:
    """What the host finds in it: of a private guest page, the shared memory at its address."""
    shadow = memory.shadow if isinstance(memory, Page) else None
    return memory.data if shadow is None else shadow


def _rmp(state: int) -> str:
    return RMP_NAMES[state]
