"""Pages that a guest shares with its host."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from conformance.environment.door import Environment, Frame
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.mutexes import Mutexes
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import HEADER_SIZE, PAGE_SIZE
from conformance.verdict import Violation

REGION_BASE = 0x10_0000
WORD = 8
TELLING = 3
"""Bytes other than 0 that a word needs to be known wherever it stands."""
PIECE = 4
"""Bytes of a message, none of them 0, that are known for a piece of it when they are stored where it has them."""
CRUMBS = 8
"""The same, of those that are stored by fewer at once: of bytes that are anything, so many do not happen to fit."""
STALE = b"of another user, once"[:16]
"""What pages hold that nobody cleared."""
_IN_THE_CLEAR = "a message in the clear is in memory that the host shares"


class Region:
    """Pages that the driver allocated at once."""

    __slots__ = ("data", "leaked", "read", "shared", "trap", "users")

    def __init__(self, npages: int) -> None:
        self.data = bytearray(STALE * (npages * PAGE_SIZE // len(STALE)))
        self.shared = False
        self.leaked = False
        self.trap = range(0)
        """Offsets of the page that the host changes once it was read from; empty where it changes none."""
        self.read: list[range] = []
        """What was read of that page."""
        self.users: list[dict[Frame, frozenset[Hashable]]] = [{} for _ in range(npages)]
        """For each page, by operation that used it, the locks under which it always did."""


class Window:
    """One page that the driver tells the host, as the host finds it."""

    __slots__ = ("data", "offset", "region")

    def __init__(self, region: Region, offset: int) -> None:
        self.region = region
        self.offset = offset
        self.data = memoryview(region.data)[offset : offset + PAGE_SIZE]

    def is_left_alone(self) -> None:
        """The host changes nothing here behind the driver's back."""
        self.region.trap, self.region.read = range(0), []

    def changes_once_read(self) -> None:
        """The host does, as soon as the driver has looked."""
        self.region.trap = range(self.offset, self.offset + PAGE_SIZE)


class SharedPages(Simulator):
    """The guest's page allocator and set_memory_decrypted: what is shared the host reads, and changes at any time.

    Guest-physical addresses stand for virtual ones too. Pages that could not be made private again must be leaked.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.SHARED_PAGES_BACK,
        c.RESPONSE_CHECKED,
        c.PRIVATE_ENCRYPTION,
        c.ONE_LOCK,
        c.ROBUST,
    )

    def __init__(self, door: Environment, tasks: Tasks, mutexes: Mutexes) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.mutexes = mutexes
        self.refused = door.refused
        self.regions: dict[int, Region] = {}
        """By the address at which each begins."""
        self.next_region = REGION_BASE
        self.secrets: dict[Frame, dict[bytes, int]] = {}
        """By operation, the words that only the guest and firmware may know, and where each stands in its message."""
        self.messages: dict[Frame, list[bytes]] = {}
        """By operation, the messages that they are of."""
        self.crumbs: dict[Frame, set[int]] = {}
        """By operation, where bytes of a message were stored in pieces too small to be known for one."""

    def alloc_pages(self, npages: int) -> int:
        if self.refused("alloc_pages"):
            return 0
        gpa = self.next_region
        self.next_region += (npages + 1) * PAGE_SIZE
        self.regions[gpa] = Region(npages)
        return gpa

    def free_pages(self, gpa: int) -> int:
        region = self.region(gpa)
        if region.shared:
            raise Violation(c.SHARED_PAGES_BACK, f"pages at {gpa:#x} are freed while the host shares them")
        del self.regions[gpa]
        return 0

    def leak_pages(self, gpa: int) -> int:
        self.region(gpa).leaked = True
        return 0

    def set_decrypted(self, gpa: int) -> int:
        region = self.region(gpa)
        refusal = self.refused("set_decrypted")
        if refusal:
            return refusal
        region.shared = True
        self._judge_hidden(region, 0, len(region.data))
        return 0

    def set_encrypted(self, gpa: int) -> int:
        region = self.region(gpa)
        refusal = self.refused("set_encrypted")
        if refusal:
            return refusal
        region.shared = False
        return 0

    def shared_read(self, gpa: int, size: int) -> bytes:
        region, offset = self.within(gpa, size)
        self.judge_alone(region, offset, size)
        data = bytes(region.data[offset : offset + size])
        span = range(max(offset, region.trap.start), min(offset + size, region.trap.stop))
        if span:
            if any(read.start < span.stop and span.start < read.stop for read in region.read):
                raise Violation(
                    c.RESPONSE_CHECKED, "the response is read again from shared memory after the host changed it"
                )
            region.read.append(span)
            region.data[region.trap.start : region.trap.stop] = bytes(PAGE_SIZE)
        return data

    def shared_write(self, gpa: int, data: bytes) -> int:
        region, offset = self.within(gpa, len(data))
        self.judge_alone(region, offset, len(data))
        region.data[offset : offset + len(data)] = data
        if region.shared:
            if len(data) < 2 * WORD and self.messages:
                self._judge_piece(offset, data)
            self._judge_hidden(region, offset, offset + len(data))
        return 0

    def confide(self, message: bytes) -> None:
        """The running operation knows a message in the clear, and the host never may."""
        words = ((message[at : at + WORD], at) for at in range(0, len(message), WORD))
        known = self.secrets.setdefault(self.door.frame, {})
        known.update((word, at) for word, at in words if any(word))
        self.messages.setdefault(self.door.frame, []).append(message)

    def forget(self) -> None:
        """The running operation has ended; its caller has what it knew."""
        self.secrets.pop(self.door.frame, None)
        self.messages.pop(self.door.frame, None)
        self.crumbs.pop(self.door.frame, None)

    def _judge_piece(self, offset: int, data: bytes) -> None:
        """Nor is a piece of one stored at its place that is too short to hold a word (SNP-090)."""
        at = offset % PAGE_SIZE - HEADER_SIZE
        told = len(data) - data.count(0)
        if at < 0 or not told:
            return
        if any(message.startswith(data, at) for messages in self.messages.values() for message in messages):
            crumbs = self.crumbs.setdefault(self.door.frame, set())
            crumbs.update(at + i for i, byte in enumerate(data) if byte)
            if told >= PIECE or len(crumbs) >= CRUMBS:
                raise Violation(c.PRIVATE_ENCRYPTION, _IN_THE_CLEAR)

    def _judge_hidden(self, region: Region, start: int, end: int) -> None:
        """No word of a message is in the clear where the host looks, however it came there (SNP-090).

        A word with few bytes of its own is known only where a message would have it.
        """
        low = max(0, start - WORD + 1)
        seen = bytes(region.data[low : end + WORD - 1])
        if not any(seen):
            return
        for words in self.secrets.values():
            for word, at in words.items():
                if len(word) - word.count(0) < TELLING and not _is_at(seen, word, HEADER_SIZE + at - low):
                    continue
                if word in seen:
                    raise Violation(c.PRIVATE_ENCRYPTION, _IN_THE_CLEAR)

    def region(self, gpa: int) -> Region:
        """The allocation that begins there."""
        region = self.regions.get(gpa)
        if region is None:
            raise Violation(c.ROBUST, f"{gpa:#x} is no allocation of the driver")
        return region

    def window(self, gpa: int) -> Window:
        """The page of the driver's that begins there, wherever in an allocation that is."""
        region, offset = self.within(gpa, PAGE_SIZE)
        if offset % PAGE_SIZE:
            raise Violation(c.ROBUST, f"{gpa:#x} is within a page")
        return Window(region, offset)

    def judge_alone(self, region: Region, offset: int, size: int) -> None:
        """Pages that two calls use at once are used under one lock by both (SNP-092)."""
        locks = frozenset(self.mutexes.locks.held(self.door.frame))
        for number in range(offset // PAGE_SIZE, -(-(offset + size) // PAGE_SIZE)):
            self._judge_page(region, number, locks)

    def _judge_page(self, region: Region, number: int, locks: frozenset[Hashable]) -> None:
        frame, users, running = self.door.frame, region.users[number], self.tasks.running
        if frame in users:
            locks &= users[frame]
        elif len(users) > 1:
            users = region.users[number] = {user: held for user, held in users.items() if user in running}
        users[frame] = locks
        if len(running) > 1:
            for other, held in users.items():
                if other is not frame and other in running and not held & locks:
                    raise Violation(c.ONE_LOCK, "pages that another call in progress uses are used without its lock")

    def within(self, gpa: int, size: int) -> tuple[Region, int]:
        """The allocation that holds these bytes, and their offset."""
        for base, region in self.regions.items():
            if base <= gpa and gpa + size <= base + len(region.data):
                return region, gpa - base
        raise Violation(c.ROBUST, f"{size} bytes at {gpa:#x} are not the driver's")

    def digest(self) -> Hashable:
        """How many allocations the driver has."""
        return sum(not region.leaked for region in self.regions.values())

    def judge_back(self) -> None:
        """The driver is gone, and its pages are the allocator's again, or leaked."""
        for gpa, region in self.regions.items():
            if not region.leaked:
                raise Violation(c.SHARED_PAGES_BACK, f"pages at {gpa:#x} are neither freed nor leaked")
        self.regions.clear()


def _is_at(seen: bytes, word: bytes, first: int) -> bool:
    """Whether the word stands at this offset of some page of what is seen."""
    return any(seen.startswith(word, at) for at in range(first % PAGE_SIZE, len(seen), PAGE_SIZE))
