"""Host memory, guest pages and the RMP: objects whose every use the environment can judge."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from conformance.model.snp_guest_request.addresses import GPA
from conformance.specs.snp_guest_request.constants import HYPERVISOR, PAGE_SIZE

ZERO_PAGE = bytes(PAGE_SIZE)
POISON = b"\xaa" * 16
"""What fresh host memory holds: no message and no certificate of the suite has it."""
HOST = -1
"""Owner of what no VM has."""
HOST_PFN = 0x100000
BUFFER_BASE = 0x7000_0000_0000
BUFFER_STRIDE = 0x100000
USER_BASE = 0x5500_0000_0000
ASSIGNED = frozenset(range(2, 10))
"""RMP states in which a host write faults: all but HYPERVISOR and HV_FIXED."""
IMMUTABLE = frozenset({1, 2, 3, 4, 6, 7})

START_BYTES = {name: bytes((0xE0 + i,)) * PAGE_SIZE for i, name in enumerate(GPA)}
"""What guest pages hold before anybody writes."""
USER_TABLE = b"USER" * (PAGE_SIZE // 4)
"""What userspace puts where the guest wants certificates."""


class Memory:
    """A page or an allocation: its bytes and who has had to do with it."""

    __slots__ = ("base", "clean", "data", "freed", "owner", "size", "vms")

    def __init__(self, base: int, data: bytearray, owner: int, clean: bool) -> None:
        self.base = base
        self.data = data
        self.size = len(data)
        self.owner = owner
        self.clean = clean
        """Nothing in it was never written."""
        self.freed = False
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
        self.kept = False
        """A context page that firmware would not decommission."""
        self.decommissioned = False
        self.context: Any = None
        """The firmware's `Context` while it is one."""
        self.vm = HOST
        """For a guest page, the VM it is mapped in."""
        self.name = ""
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


def guest_page(vm: int, name: str) -> Page:
    """A page of guest memory as it is before anybody writes."""
    gpa = GPA[name]
    page = Page((vm + 1) << 16 | gpa >> 12, bytearray(START_BYTES[name]), vm, True)
    page.vm, page.name = vm, name
    page.vms.add(vm)
    if name == "private":
        page.state, page.asid, page.shadow = 9, vm + 1, bytearray(PAGE_SIZE)
    return page


@lru_cache(maxsize=256)
def blob_bytes(name: str, length: int) -> bytes:
    """Certificates called `name`: each 16 bytes say whose and which they are, in small letters after page 0.

    Fewer than that begin like none that is longer.
    """
    if length < 16:
        return bytes((0x80 | ord(name),)) * length
    names = ((name if at < PAGE_SIZE else name.lower(), at) for at in range(0, length + 16, 16))
    return "".join(f"{letter}{length:05x}{at:010x}" for letter, at in names).encode()[:length]


def classify(
    page: Page,
    responses: dict[bytes, tuple[object, bytes]],
    installed: dict[tuple[str, int], None],
    newest: list[tuple[str, int]],
) -> object:
    """What a watched page holds, in the words of the model; "corrupt" when it is none of them.

    Where only a part was written, the rest may be what it was, or zero; so `newest` blobs are looked for first.
    """
    data = bytes(page.data)
    if data == START_BYTES[page.name]:
        return "start"
    found = responses.get(data[:0x60])
    if found is not None:
        label, message = found
        return label if data.startswith(message) else "corrupt"
    if not any(data[:24]):
        return "zero" if _rest_is_old(page, data, 24) else "corrupt"
    if data == USER_TABLE:
        return "user"
    for name, length in (*newest, *sorted(installed, key=lambda blob: -blob[1])):
        blob = blob_bytes(name, length)
        for i in range(-(-length // PAGE_SIZE)):
            part = blob[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            if data.startswith(part) and _rest_is_old(page, data, len(part)):
                return (name, i, len(part))
    return "corrupt"


def blobs_in(data: bytes | bytearray) -> set[str]:
    """Names of the blobs of which at least one piece of 16 bytes is in `data`."""
    names = set()
    for offset in range(0, len(data) - 15, 16):
        piece = data[offset : offset + 16]
        if piece[:1].isalpha() and piece[6:12] == b"000000":
            names.add(chr(piece[0]).upper())
    return names


def _rest_is_old(page: Page, data: bytes, size: int) -> bool:
    rest = data[size:]
    return rest == page.before[size:] or not any(rest)


Handler = Callable[..., Any]
