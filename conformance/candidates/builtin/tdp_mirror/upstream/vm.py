"""What all of the MMU knows of its VM: its port, its shape, and arithmetic on gfns."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.specs.tdp_mirror.constants import ROLE_ACCESS, ROLE_DIRECT, ROLE_INVALID, ROLE_MIRROR, RWX


class Vm:
    """The VM as its MMU knows it."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self.mirror = False
        self.private = False
        self.bits = 0
        self.levels = 4
        self.index_bits = 9
        self.entries = 512
        self.max_gfn = 0
        self.sps: dict[int, ShadowPage] = {}
        self.roots: list[ShadowPage] = []
        self.root_hpa: dict[int, int] = {}
        self.mirror_root_hpa: dict[int, int] = {}

    def vm_init(
        self, mirror: int, direct_bits: int, root_level: int, index_bits: int, max_gfn: int, private: int
    ) -> int:
        """Remember the shape of the VM."""
        self.mirror, self.private = bool(mirror), bool(private)
        self.bits, self.levels, self.index_bits, self.max_gfn = direct_bits, root_level, index_bits, max_gfn
        self.entries = 1 << index_bits
        return 0

    def pages_per_entry(self, level: int) -> int:
        """KVM_PAGES_PER_HPAGE."""
        return 1 << self.index_bits * (level - 1)

    def index_of(self, gfn: int, level: int) -> int:
        """SPTE_INDEX of a gfn."""
        return gfn >> self.index_bits * (level - 1) & (self.entries - 1)

    def root_bits(self, root: ShadowPage) -> int:
        """kvm_gfn_root_bits."""
        return 0 if root.mirror else self.bits

    def role_word(self, mirror: bool, level: int, invalid: bool = False) -> int:
        """The role of a table."""
        return level | 1 << ROLE_DIRECT | RWX << ROLE_ACCESS | invalid << ROLE_INVALID | mirror << ROLE_MIRROR

    def addr_is_direct(self, gpa: int) -> int:
        """kvm_is_addr_direct."""
        return int(not self.bits or bool(gpa >> 12 & self.bits))

    def gfn_is_alias(self, gfn: int) -> int:
        """kvm_is_gfn_alias."""
        return int(bool(gfn & self.bits))

    def is_unmappable(self, gfn: int) -> bool:
        """Whether no walk from the root can name the gfn."""
        return gfn >= self.pages_per_entry(self.levels + 1)
