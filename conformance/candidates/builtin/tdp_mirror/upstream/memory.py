"""Notifications, attributes and slots: kvm_main.c and guest_memfd.c."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.candidates.builtin.tdp_mirror.upstream.zapping import Zapping
from conformance.specs.tdp_mirror.constants import (
    ATTRIBUTE_PRIVATE,
    EINVAL,
    FILTER_PRIVATE,
    FILTER_SHARED,
    MEM_GUEST_MEMFD,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    SLOT_INVALID,
)


class Memory(Zapping):
    """What memory the VM has, and of which half."""

    def slots_in(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Parts of a range that lie in slots: start, end, flags."""
        end = min(end, self.bits or end, self.max_gfn + 1)
        if start < end:
            for _, base, npages, flags in self.port.memslots(start, end):
                yield max(start, base), min(end, base + npages), flags

    def unmap_slots(self, start: int, end: int, attr_filter: int, need: int = 0, may_block: int = 1) -> None:
        """Unmap what of a range lies in slots, and flush."""
        flush = 0
        for lo, hi, flags in self.slots_in(start, end):
            if flags & need == need:
                flush = self.unmap_gfn_range(lo, hi, attr_filter, may_block, flush)
        if flush:
            self.port.flush_remote_tlbs()

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """An invalidation from its beginning to its end."""
        port = self.port
        port.write_lock()
        port.mmu_invalidate_begin(start, end)
        self.unmap_slots(start, end, attr_filter, need, may_block)
        port.write_unlock()
        port.write_lock()
        port.mmu_invalidate_end()
        port.write_unlock()

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """kvm_mmu_notifier_invalidate_range_start and _end."""
        self.invalidation(start, end, FILTER_SHARED, 0, may_block)

    def gmem_invalidate(self, start: int, end: int) -> None:
        """kvm_gmem_invalidate_begin and _end."""
        self.invalidation(start, end, FILTER_PRIVATE, MEM_GUEST_MEMFD, 1)

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """kvm_vm_ioctl_set_mem_attributes."""
        supported = ATTRIBUTE_PRIVATE if self.private else 0
        if flags or attributes & ~supported or not size or (address | size) & 4095 or address + size > 2**64:
            return -EINVAL
        port = self.port
        port.slots_lock()
        error = self.change_attributes(address >> 12, address + size >> 12, attributes)
        port.slots_unlock()
        return error

    def change_attributes(self, start: int, end: int, attributes: int) -> int:
        """kvm_vm_set_mem_attributes: zap the old half, store, end."""
        port = self.port
        if port.range_has_attributes(start, end, attributes):
            return 0
        error: int = port.reserve_attributes(start, end)
        if error:
            return error
        lo, hi = self.invalidated_range(start, end)
        port.write_lock()
        port.mmu_invalidate_begin(lo, hi)
        self.unmap_slots(start, end, self.old_half(attributes))
        port.write_unlock()
        port.store_attributes(start, end, attributes)
        port.write_lock()
        port.mmu_invalidate_end()
        port.write_unlock()
        return 0

    def invalidated_range(self, start: int, end: int) -> tuple[int, int]:
        """Potential huge pages that straddle the ends are part of it."""
        mask = self.pages_per_entry(2) - 1
        return start & ~mask, end + mask & ~mask

    def old_half(self, attributes: int) -> int:
        """The half that the pages leave."""
        return FILTER_SHARED if attributes & ATTRIBUTE_PRIVATE else FILTER_PRIVATE

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """__kvm_set_memory_region of a new slot, and kvm_arch_prepare_memory_region."""
        port = self.port
        gmem = flags & MEM_GUEST_MEMFD
        if gmem and (not self.private or flags & (MEM_LOG_DIRTY_PAGES | MEM_READONLY)):
            return -EINVAL
        if not self.accepts_range(base, npages):
            return -EINVAL
        port.slots_lock()
        existing = port.memslot_by_id(slot)
        if existing and (existing[3] & MEM_GUEST_MEMFD or existing[2] != npages):
            error = -EINVAL
        else:
            error = port.memslot_install(slot, base, npages, flags)
        port.slots_unlock()
        return error

    def accepts_range(self, base: int, npages: int) -> bool:
        """No gfn beyond the last one or with the alias bit."""
        last = base + npages - 1
        if npages <= 0 or last > self.max_gfn:
            return False
        if not self.bits:
            return True
        return not (base | last) & self.bits and base // self.bits == last // self.bits

    def zap_slot(self, base: int, npages: int) -> None:
        """kvm_mmu_zap_memslot."""
        port = self.port
        port.write_lock()
        if self.unmap_gfn_range(base, base + npages, FILTER_SHARED | FILTER_PRIVATE, 1, 0):
            port.flush_remote_tlbs()
        port.write_unlock()

    def slot_delete(self, slot: int) -> int:
        """Invalidate the slot, wait for its users, zap, remove."""
        port = self.port
        port.slots_lock()
        found = port.memslot_by_id(slot)
        if not found:
            port.slots_unlock()
            return -EINVAL
        port.memslot_install(slot, found[1], found[2], found[3] | SLOT_INVALID)
        port.synchronize_srcu()
        self.zap_slot(found[1], found[2])
        port.memslot_remove(slot)
        port.slots_unlock()
        return 0

    def slot_move(self, slot: int, base: int) -> int:
        """As a deletion and a creation at another place."""
        port = self.port
        port.slots_lock()
        error = self.move_slot(slot, base)
        port.slots_unlock()
        return error

    def move_slot(self, slot: int, base: int) -> int:
        """The move, with slots_lock held."""
        port = self.port
        found = port.memslot_by_id(slot)
        if not found or found[3] & MEM_GUEST_MEMFD or not self.accepts_range(base, found[2]):
            return -EINVAL
        if base == found[1]:
            return 0
        error: int = port.memslot_install(slot, base, found[2], found[3])
        if error:
            return error
        port.memslot_install(slot, found[1], found[2], found[3] | SLOT_INVALID)
        port.synchronize_srcu()
        self.zap_slot(found[1], found[2])
        return port.memslot_install(slot, base, found[2], found[3])  # type: ignore[no-any-return]  # an int
