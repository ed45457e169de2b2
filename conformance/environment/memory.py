"""User memory of a simulated process: ranges that are mapped, and what was written there."""

from __future__ import annotations

from collections.abc import Iterable


class UserMemory:
    """Mapped ranges and one object in them; all other mapped bytes are zero.

    A fetch that reaches an unmapped byte stops there, as copy_from_user does.
    """

    __slots__ = ("data", "pointer", "ranges")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.ranges = tuple(ranges)
        """(first byte, one past the last) of each mapped range."""
        self.pointer = 0
        self.data = b""

    def place(self, pointer: int, data: bytes) -> None:
        """Put `data` at `pointer` in place of what was put before; bytes outside the ranges are lost."""
        self.pointer = pointer
        self.data = data

    def fetch(self, pointer: int, n: int) -> bytes:
        """Up to `n` bytes at `pointer`, fewer where one is not mapped."""
        for first, end in self.ranges:
            if first <= pointer < end:
                n = min(n, end - pointer)
                break
        else:
            return b""
        skip = pointer - self.pointer
        if skip == 0 and n <= len(self.data):
            return self.data[:n]
        return bytes(self._byte(pointer + i) for i in range(n))

    def _byte(self, address: int) -> int:
        at = address - self.pointer
        return self.data[at] if 0 <= at < len(self.data) else 0
