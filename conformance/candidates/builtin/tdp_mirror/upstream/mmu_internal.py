"""A table that the MMU built, and a fault on its way: mmu_internal.h."""

from __future__ import annotations


class ShadowPage:
    """A table that this MMU built."""

    def __init__(self, page: int, header: int, mirror: bool, level: int, gfn: int) -> None:
        self.page = page
        self.header = header
        self.external = 0
        self.mirror = mirror
        self.level = level
        self.gfn = gfn
        self.invalid = False
        self.scheduled = False
        self.parent: tuple[int, int] | None = None


class Fault:
    """One fault on its way through the handler."""

    def __init__(self, vcpu: int, gpa: int, private: bool, write: bool, prefetch: bool) -> None:
        self.vcpu = vcpu
        self.gpa = gpa
        self.gfn = gpa >> 12
        self.private = private
        self.write = write
        self.prefetch = prefetch
        self.seq = 0
        self.pfn = 0
        self.writable = True
        self.max_level = 1
        self.goal_level = 1
        self.slot: tuple[int, ...] = ()
