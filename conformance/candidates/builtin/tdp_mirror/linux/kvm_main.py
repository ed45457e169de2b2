"""virt/kvm/kvm_main.c and guest_memfd.c: attributes, slots, and pages that are taken back."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.linux.mmu import PAGE_SIZE, Mmu
from conformance.specs.tdp_mirror.constants import (
    ATTRIBUTE_PRIVATE,
    EEXIST,
    EINVAL,
    EIO,
    FILTER_PRIVATE,
    FILTER_SHARED,
    MEM_GUEST_MEMFD,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    PAGE_SHIFT,
    SLOT_INVALID,
)

Slot = tuple[int, ...]
"""Id, base, npages, flags."""


class KvmMain(Mmu):
    """What user space and the memory management ask for. No ioctl reaches a dead VM."""

    # -- attributes

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """kvm_vm_ioctl_set_mem_attributes."""
        if self.ioctl_is_refused():
            return -EIO
        if flags or attributes & ~(ATTRIBUTE_PRIVATE if self.kvm.has_private else 0):
            return -EINVAL
        if not size or address + size >= 1 << 64 or address % PAGE_SIZE or size % PAGE_SIZE:
            return -EINVAL
        self.port.slots_lock()
        error = self._vm_set_mem_attributes(address >> PAGE_SHIFT, address + size >> PAGE_SHIFT, attributes)
        self.port.slots_unlock()
        return error

    def _vm_set_mem_attributes(self, start: int, end: int, attributes: int) -> int:
        """kvm_vm_set_mem_attributes. Nothing is invalidated where there is no slot, as nothing can be mapped there."""
        if self.port.range_has_attributes(start, end, attributes):
            return 0
        error = self.port.reserve_attributes(start, end)
        if error:
            return error
        begun = self._handle_pre_set(start, end, attributes)
        self.port.store_attributes(start, end, attributes)
        if begun:
            self._invalidate_end()
        return 0

    def _handle_pre_set(self, start: int, end: int, attributes: int) -> bool:
        """kvm_handle_gfn_range: the lock, and the invalidation, from the first slot on. Whether there was one."""
        slots = self.slots_in(start, end)
        if not slots:
            return False
        first, last = start, end
        for slot in slots:
            low, high = self.pre_set_range(slot, *self.clip(slot, start, end))
            first, last = min(first, low), max(last, high)
        self.port.write_lock()
        self.port.mmu_invalidate_begin(first, last)
        flush = False
        for slot in slots:
            flush |= self.pre_set_memory_attributes(*self.clip(slot, start, end), attributes)
        if flush:
            self.port.flush_remote_tlbs()
        self.port.write_unlock()
        return True

    def slots_in(self, start: int, end: int) -> tuple[Slot, ...]:
        """kvm_for_each_memslot_in_gfn_range."""
        return self.port.memslots(start, end)

    @staticmethod
    def clip(slot: Slot, start: int, end: int) -> tuple[int, int]:
        """The part of a range that lies in a slot."""
        return max(start, slot[1]), min(end, slot[1] + slot[2])

    def _invalidate_end(self) -> None:
        self.port.write_lock()
        self.port.mmu_invalidate_end()
        self.port.write_unlock()

    # -- pages that are taken back

    def hva_invalidate(self, start: int, end: int, may_block: int) -> None:
        """kvm_mmu_notifier_invalidate_range_start and _end."""
        if end <= start:
            return
        self.port.srcu_read_lock()
        begun = self._unmap_slots(self.slots_in(start, end), start, end, FILTER_SHARED, may_block)
        self.port.srcu_read_unlock()
        if begun:
            self._invalidate_end()

    def gmem_invalidate(self, start: int, end: int) -> None:
        """kvm_gmem_invalidate_begin and _end around the hole; whoever punches it holds the lock of the file."""
        if end <= start:
            return
        slots = tuple(slot for slot in self.slots_in(start, end) if slot[3] & MEM_GUEST_MEMFD)
        if self._unmap_slots(slots, start, end, FILTER_PRIVATE, 1):
            self._invalidate_end()

    def _unmap_slots(self, slots: tuple[Slot, ...], start: int, end: int, attr_filter: int, may_block: int) -> bool:
        """The lock, and the invalidation, from the first slot on. Whether there was one."""
        if not slots:
            return False
        self.port.write_lock()
        self.port.mmu_invalidate_begin(self.clip(slots[0], start, end)[0], self.clip(slots[-1], start, end)[1])
        flush = False
        for slot in slots:
            flush |= bool(self.unmap_gfn_range(*self.clip(slot, start, end), attr_filter, may_block, 0))
        if flush:
            self.port.flush_remote_tlbs()
        self.port.write_unlock()
        return True

    # -- slots

    def slot_create(self, slot: int, base: int, npages: int, flags: int) -> int:
        """kvm_set_memory_region of a size that is not zero."""
        return self._set_memory_region(slot, base, npages, flags)

    def slot_move(self, slot: int, base: int) -> int:
        """kvm_set_memory_region of a slot as it is, at another base."""
        old = self.port.memslot_by_id(slot)
        return self._set_memory_region(slot, base, old[2], old[3] & ~SLOT_INVALID) if old else -EINVAL

    def slot_delete(self, slot: int) -> int:
        """kvm_set_memory_region of size 0."""
        return self._set_memory_region(slot, 0, 0, 0)

    def _set_memory_region(self, slot: int, base: int, npages: int, flags: int) -> int:
        if self.ioctl_is_refused():
            return -EIO
        self.port.slots_lock()
        error = self._set_memory_region_locked(slot, base, npages, flags)
        self.port.slots_unlock()
        return error

    def _check_flags(self, flags: int) -> bool:
        """check_memory_region_flags."""
        valid = MEM_LOG_DIRTY_PAGES | MEM_READONLY
        if flags & MEM_GUEST_MEMFD:
            valid = MEM_GUEST_MEMFD if self.kvm.has_private else 0
        return not flags & ~valid

    def _set_memory_region_locked(self, slot: int, base: int, npages: int, flags: int) -> int:
        """kvm_set_memory_region: what is to change, and whether it may."""
        if not self._check_flags(flags):
            return -EINVAL
        old = self.port.memslot_by_id(slot)
        if not npages:
            return self._delete(old) if old else -EINVAL
        new = (slot, base, npages, flags)
        if not old:
            return -EEXIST if self._overlaps(new) else self._create(new)
        if (flags | old[3]) & MEM_GUEST_MEMFD or npages != old[2] or (flags ^ old[3]) & MEM_READONLY:
            return -EINVAL
        if base != old[1]:
            return -EEXIST if self._overlaps(new) else self._move(old, new)
        return self.port.memslot_install(*new) if flags != old[3] else 0

    def _overlaps(self, new: Slot) -> bool:
        """kvm_check_memslot_overlap."""
        return any(other[0] != new[0] for other in self.port.memslots(new[1], new[1] + new[2]))

    def _prepare_memory_region(self, new: Slot) -> int:
        """kvm_arch_prepare_memory_region, of each gfn rather than the last one. 0 or -EINVAL."""
        start, end, bits = new[1], new[1] + new[2], self.kvm.direct_bits
        if end - 1 > self.kvm.max_gfn:
            return -EINVAL
        return -EINVAL if bits and (start & bits or end - 1 & bits or new[2] > bits) else 0

    def _create(self, new: Slot) -> int:
        """kvm_set_memslot, KVM_MR_CREATE."""
        return self._prepare_memory_region(new) or self.port.memslot_install(*new)

    def _invalidate_memslot(self, old: Slot) -> None:
        """kvm_invalidate_memslot: nobody resolves pages of the slot any more, then its leaves go."""
        self.port.memslot_install(old[0], old[1], old[2], old[3] | SLOT_INVALID)
        self.port.synchronize_srcu()
        self.flush_shadow_memslot(old[1], old[2])

    def _delete(self, old: Slot) -> int:
        """kvm_set_memslot, KVM_MR_DELETE."""
        self._invalidate_memslot(old)
        self.port.memslot_remove(old[0])
        self.port.synchronize_srcu()
        return 0

    def _move(self, old: Slot, new: Slot) -> int:
        """kvm_set_memslot, KVM_MR_MOVE: the old place is empty before the new one is looked at."""
        self._invalidate_memslot(old)
        error = self._prepare_memory_region(new)
        installed = self.port.memslot_install(*(old if error else new))
        self.port.synchronize_srcu()
        return error or installed
