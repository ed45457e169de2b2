"""struct kvm, kvm_mmu_page and kvm_page_fault: what the files of the MMU share."""

from __future__ import annotations

from dataclasses import dataclass, field

from conformance.specs.tdp_mirror import Port
from conformance.specs.tdp_mirror.constants import (
    INVALID_PAGE,
    MAX_HUGE_LEVEL,
    PAGE_SHIFT,
    PFERR_PRESENT,
    PFERR_PRIVATE_ACCESS,
    PFERR_WRITE,
    PG_LEVEL_4K,
    ROLE_LEVEL_MASK,
    ROLE_MIRROR,
)


@dataclass(slots=True)
class Sp:
    """struct kvm_mmu_page: the header of a table."""

    spt: int
    header: int
    role: int = 0
    gfn: int = 0
    external_spt: int = 0
    ptep: tuple[int, int] | None = None
    """Table and index of the parent's entry; None for roots."""
    invalid: bool = False
    scheduled: bool = False
    """tdp_mmu_scheduled_root_to_zap."""

    @property
    def level(self) -> int:
        """role.level."""
        return self.role & ROLE_LEVEL_MASK

    @property
    def is_mirror(self) -> bool:
        """role.is_mirror."""
        return bool(self.role >> ROLE_MIRROR & 1)


@dataclass(slots=True)
class Vcpu:
    """struct kvm_mmu of a vCPU."""

    root: int = INVALID_PAGE
    mirror_root: int = INVALID_PAGE


@dataclass(slots=True)
class Fault:
    """struct kvm_page_fault."""

    vcpu: int
    addr: int
    error_code: int
    prefetch: bool
    gfn: int
    slot: tuple[int, ...] = ()
    pfn: int = 0
    grabbed: int = 0
    """Page that a reference is held to."""
    mmu_seq: int = 0
    map_writable: bool = True
    max_level: int = MAX_HUGE_LEVEL
    goal_level: int = PG_LEVEL_4K

    @property
    def write(self) -> bool:
        """A write."""
        return bool(self.error_code >> PFERR_WRITE & 1)

    @property
    def present(self) -> bool:
        """A present entry forbade the access."""
        return bool(self.error_code >> PFERR_PRESENT & 1)

    @property
    def is_private(self) -> bool:
        """The guest took the page for private."""
        return bool(self.error_code >> PFERR_PRIVATE_ACCESS & 1)


@dataclass(slots=True)
class Mutable:
    """What vm_init sets."""

    has_mirror: bool = False
    has_private: bool = False
    direct_bits: int = 0
    root_level: int = 4
    index_bits: int = 9
    max_gfn: int = 0
    roots: list[Sp] = field(default_factory=list)
    pages: dict[int, Sp] = field(default_factory=dict)
    vcpus: dict[int, Vcpu] = field(default_factory=dict)


class Kvm:
    """struct kvm with its page tables."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.kvm = Mutable()

    def vm_init(
        self, mirror: int, direct_bits: int, root_level: int, index_bits: int, max_gfn: int, private: int
    ) -> int:
        """kvm_mmu_init_vm, and what TDX says of its shared bit."""
        self.kvm = Mutable(bool(mirror), bool(private), direct_bits, root_level, index_bits, max_gfn)
        return 0

    # -- mmu.h

    def addr_is_direct(self, gpa: int) -> int:
        """kvm_is_addr_direct."""
        bits = self.kvm.direct_bits
        return int(not bits or bool(gpa >> PAGE_SHIFT & bits))

    def gfn_is_alias(self, gfn: int) -> int:
        """kvm_is_gfn_alias."""
        return int(bool(gfn & self.kvm.direct_bits))

    def pages_per_hpage(self, level: int) -> int:
        """KVM_PAGES_PER_HPAGE."""
        return 1 << self.kvm.index_bits * (level - 1)

    def is_mappable(self, addr: int) -> bool:
        """Whether the page tables have enough levels for an address."""
        return not addr >> PAGE_SHIFT + self.kvm.index_bits * self.kvm.root_level

    def root_to_sp(self, root: int) -> Sp | None:
        """Header of a root; None for INVALID_PAGE."""
        return None if root == INVALID_PAGE else self.kvm.pages[root]

    def vm_bug_on(self, condition: bool, what: str) -> bool:
        """KVM_BUG_ON."""
        if condition:
            self.port.vm_bug(what)
        return condition

    def warn_on_once(self, condition: bool, what: str) -> bool:
        """WARN_ON_ONCE."""
        if condition:
            self.port.warn_once(what)
        return condition

    def ioctl_is_refused(self) -> bool:
        """kvm_vm_ioctl and kvm_vcpu_ioctl: whether the VM is dead, before anything else is looked at."""
        return bool(self.port.vm_is_dead())

    def flush_remote_tlbs_gfn(self, gfn: int, level: int) -> None:
        """kvm_flush_remote_tlbs_gfn."""
        if self.port.flush_range(gfn, self.pages_per_hpage(level)):
            self.port.flush_remote_tlbs()
