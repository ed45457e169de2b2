"""Memory as objects: page frames with their RMP entries, and small allocations."""

from __future__ import annotations

from typing import Any

from conformance.model.snp_guest_request.addresses import GPA
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import HYPERVISOR, PAGE_SIZE, RMP_NAMES
from conformance.verdict import Violation

POISON = b"\xaa" * 16
"""What fresh host memory holds: no message and no certificate of the suite has it."""
HOST = -1
"""Owner of what no VM has."""
MOVED = 2
"""Owner of what a VM had before it was moved: the source or the destination has it."""
ASSIGNED = frozenset(range(2, 10))
"""RMP states in which a host write faults: all but HYPERVISOR and HV_FIXED."""
IMMUTABLE = frozenset({1, 2, 3, 4, 6, 7})

START_BYTES = {name: bytes((0xE0 + i,)) * PAGE_SIZE for i, name in enumerate(GPA)}
"""What guest pages hold before anybody writes."""


class Memory:
    """A page or an allocation: its bytes and who has had to do with it."""

    __slots__ = ("base", "by", "clean", "data", "freed", "lent", "owner", "size", "vms")

    def __init__(self, base: int, data: bytearray, owner: int, clean: bool) -> None:
        self.base = base
        self.data = data
        self.size = len(data)
        self.owner = owner
        self.clean = clean
        """Nothing in it was never written."""
        self.freed = False
        self.lent = False
        """Something of userspace's was copied into it: certificates."""
        self.by: Any = None
        """The operation that it was taken for."""
        self.vms: set[int] = set()
        """VMs whose data may still be in it."""


class Page(Memory):
    """A page frame, of the host or behind guest memory."""

    __slots__ = (
        "asid",
        "before",
        "cleanup",
        "context",
        "decommissioned",
        "dirty",
        "in_flight",
        "is_ghcb",
        "kept",
        "label",
        "leaked",
        "name",
        "pfn",
        "refs",
        "shadow",
        "stamp",
        "state",
        "stuck",
        "unshared",
        "vm",
    )

    def __init__(self, pfn: int, data: bytearray, owner: int, clean: bool) -> None:
        super().__init__(pfn << 12, data, owner, clean)
        self.pfn = pfn
        self.state = HYPERVISOR
        self.asid = 0
        self.refs = 0
        self.leaked = False
        self.stuck = False
        """Firmware would not give it back: it must never be used again."""
        self.unshared = False
        """An RMPUPDATE was refused since: another may be tried."""
        self.kept = False
        """A context page that firmware would not decommission."""
        self.decommissioned = False
        self.context: Any = None
        """The firmware's `Context` while it is one."""
        self.vm = HOST
        """For a guest page, the VM it is mapped in."""
        self.name = ""
        self.is_ghcb = False
        """A GHCB that was registered."""
        self.label: object = "start"
        self.dirty = False
        self.before = b""
        """Content before the operation that wrote it."""
        self.stamp: object = None
        """The operation that last filled it."""
        self.in_flight: object = None
        self.cleanup = 0
        """Reclaims since the page became FIRMWARE."""
        self.shadow: bytearray | None = None
        """For a private guest page: the shared memory at the same address, which is empty and which nobody sees."""

    @property
    def is_guest(self) -> bool:
        """Whether it lies behind guest memory."""
        return bool(self.name)


def frame_number(vm: int, gfn: int) -> int:
    """The frame behind a VM's page; those above 4 GiB come after those below."""
    return (vm + 1) << 16 | gfn >> 20 << 15 | gfn & 0x7FFF


def guest_page(vm: int, name: str) -> Page:
    """A page of guest memory as it is before anybody writes."""
    gpa = GPA[name]
    page = Page(frame_number(vm, gpa >> 12), bytearray(START_BYTES[name]), vm, True)
    page.vm, page.name = vm, name
    page.vms.add(vm)
    if name == "private":
        page.state, page.asid, page.shadow = 9, vm + 1, bytearray(PAGE_SIZE)
    return page


def seen(memory: Memory) -> bytearray:
    """What the host finds in it: of a private guest page, the shared memory at its address."""
    shadow = memory.shadow if isinstance(memory, Page) else None
    return memory.data if shadow is None else shadow


def check_write(page: Page, what: str) -> None:
    """The CPU looks the page up in the RMP before the host writes it."""
    if page.state in ASSIGNED:
        raise Violation(
            c.NO_WRITE_TO_ASSIGNED, f"the host writes {what}, which is in RMP state {RMP_NAMES[page.state]}"
        )
