"""Certificate blobs: bytes that say whose they are, and which of them userspace handed in."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.specs.snp_guest_request.constants import PAGE_SIZE


@lru_cache(maxsize=256)
def blob_bytes(name: str, length: int) -> bytes:
    """Certificates called `name`: each 16 bytes say whose and which they are, in small letters after page 0.

    Fewer than that begin like none that is longer.
    """
    if length < 16:
        return bytes((0x80 | ord(name),)) * length
    names = ((name if at < PAGE_SIZE else name.lower(), at) for at in range(0, length + 16, 16))
    return "".join(f"{letter}{length:05x}{at:010x}" for letter, at in names).encode()[:length]


def blobs_in(data: bytes | bytearray) -> set[str]:
    """Names of the blobs of which at least one piece of 16 bytes is in `data`."""
    names = set()
    for offset in range(0, len(data) - 15, 16):
        piece = data[offset : offset + 16]
        if piece[:1].isalpha() and piece[6:12] == b"000000":
            names.add(chr(piece[0]).upper())
    return names


class Blobs(Simulator):
    """What userspace knows of the certificates that it has handed to the kernel: whose, how long, for which TCB.

    The bytes themselves are the kernel's to keep.
    """

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.installed: dict[tuple[str, int], None] = {}
        """Name and length of each that was ever handed in."""
        self.current: dict[int, tuple[str, int]] = {}
        """By VM, or HOST: the blob that was set last."""
        self.certs_tcb: dict[str, int] = {}
        """The TCB that the host's blob was set with."""

    def digest(self) -> Hashable:
        """The TCB that the host's blob was set with."""
        return tuple(self.certs_tcb.items())

    def candidates(self, newest: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Blobs in the order in which they are looked for: those first, then the longest."""
        return [*newest, *sorted(self.installed, key=lambda blob: -blob[1])]
