"""Entries of page tables, as arch/x86/kvm/mmu/spte.c makes and reads them (EPT with accessed and dirty bits)."""

from __future__ import annotations

from conformance.specs.tdp_mirror.constants import (
    ACCESSED,
    DIRTY,
    HOST_WRITABLE,
    HUGE,
    MEMTYPE_WB,
    MMU_WRITABLE,
    NONPRESENT,
    PAGE_SHIFT,
    PFN_BITS,
    PG_LEVEL_4K,
    PRESENT,
    RWX,
    WRITE,
)

WRITABLE_MASK = 1 << WRITE
DIRTY_MASK = 1 << DIRTY
ACCESSED_MASK = 1 << ACCESSED
HUGE_MASK = 1 << HUGE
MMU_WRITABLE_MASK = 1 << MMU_WRITABLE
ADDRESS_MASK = ((1 << PFN_BITS) - 1) << PAGE_SHIFT


def is_present(spte: int) -> bool:
    """is_shadow_present_pte."""
    return bool(spte >> PRESENT & 1)


def is_large(spte: int) -> bool:
    """is_large_pte."""
    return bool(spte >> HUGE & 1)


def is_last(spte: int, level: int) -> bool:
    """is_last_spte; says nothing of presence."""
    return level == PG_LEVEL_4K or is_large(spte)


def is_writable(spte: int) -> bool:
    """is_writable_pte."""
    return bool(spte >> WRITE & 1)


def is_mmu_writable(spte: int) -> bool:
    """is_mmu_writable_spte."""
    return bool(spte >> MMU_WRITABLE & 1)


def pfn_of(spte: int) -> int:
    """spte_to_pfn."""
    return (spte & ADDRESS_MASK) >> PAGE_SHIFT


def table_of(spte: int) -> int:
    """Address of the table that a non-leaf entry points to."""
    return spte & ADDRESS_MASK


def needs_atomic_update(spte: int, level: int) -> bool:
    """kvm_tdp_mmu_spte_need_atomic_update: whether somebody may change the entry outside mmu_lock.

    The fast fault may make it writable, and hardware may set its dirty bit. The accessed bit does not count: a false
    answer about it is tolerated anyhow.
    """
    if not is_present(spte) or not is_last(spte, level):
        return False
    if not is_writable(spte):
        return is_mmu_writable(spte)
    return not spte & DIRTY_MASK


def make_spte(pfn: int, level: int, *, writable: bool, prefetch: bool) -> int:
    """A leaf. Not accessed yet when it is made before the guest asks; dirty at once when it is writable."""
    spte = NONPRESENT | 1 << PRESENT | RWX & ~WRITABLE_MASK | MEMTYPE_WB | pfn << PAGE_SHIFT
    if not prefetch:
        spte |= ACCESSED_MASK
    if level > PG_LEVEL_4K:
        spte |= HUGE_MASK
    if writable:
        spte |= 1 << HOST_WRITABLE | WRITABLE_MASK | MMU_WRITABLE_MASK | DIRTY_MASK
    return spte


def make_nonleaf_spte(table: int) -> int:
    """An entry that points to a table."""
    return NONPRESENT | 1 << PRESENT | ACCESSED_MASK | RWX | table


def make_small_spte(huge: int, level: int, index: int, pages: int) -> int:
    """Entry `index` of the table of this level that takes the place of a huge leaf."""
    small = huge + (index * pages << PAGE_SHIFT)
    return small & ~HUGE_MASK if level == PG_LEVEL_4K else small


def make_huge_spte(small: int, pages: int) -> int:
    """The huge leaf that takes the place of the table that holds `small`."""
    return (small | HUGE_MASK) & ~((pages - 1) << PAGE_SHIFT)
