"""Slots, attributes and invalidations, as user space and the memory management ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def set_attributes(world: TdpMirror, op: ops.SetAttributes) -> int:
    """KVM_SET_MEMORY_ATTRIBUTES."""
    return world.enter_int(world.driver.set_attributes, op.address, op.size, op.attributes, op.flags)


def hva_invalidate(world: TdpMirror, op: ops.HvaInvalidate) -> int:
    """An MMU notifier: pages of the host go."""
    world.guest_memory.will_move("hva", op.start, op.end)
    world.mmu_lock.may_block[world.threads.me] = op.may_block
    world.enter(world.driver.hva_invalidate, op.start, op.end, int(op.may_block))
    _go_back(world, private=False)
    return 0


def gmem_invalidate(world: TdpMirror, op: ops.GmemInvalidate) -> int:
    """A hole is punched into guest memory, with the lock of its file held."""
    memory = world.guest_memory
    memory.filemap_invalidate_lock()
    memory.will_move("gmem", op.start, op.end)
    world.enter(world.driver.gmem_invalidate, op.start, op.end)
    _go_back(world, private=True)
    memory.filemap_invalidate_unlock()
    return 0


def _go_back(world: TdpMirror, *, private: bool) -> None:
    """What was not invalidated goes back as well, and a fault that is on its way may map it after that (TDP-056).

    Where no vCPU has roots nobody is on his way, and nothing need be announced.
    """
    memory, config = world.guest_memory, world.config
    marked, reach = world.attributes.private, config.cover(config.levels + 1)
    unannounced = memory.move().ranges()
    for start, end in unannounced if world.vcpus.may_fault() and not world.vm.bugged else ():
        # Ranges may be as large as the address space: what a gfn is meant for changes at few of them.
        for gfn in (start, *(edge for edge in marked.edges if start < edge < end)):
            if gfn < reach and (not config.mirror or (gfn in marked) == private):
                raise Violation(
                    c.STALE_FAULT, f"the page of gfn {gfn:#x} goes back to the host without an invalidation"
                )
    memory.gone.clear()


def slot_create(world: TdpMirror, op: ops.SlotCreate) -> int:
    """KVM_SET_USER_MEMORY_REGION2."""
    return world.enter_int(world.driver.slot_create, op.slot, op.base, op.npages, op.flags)


def slot_delete(world: TdpMirror, op: ops.SlotDelete) -> int:
    """The same with no pages."""
    return world.enter_int(world.driver.slot_delete, op.slot)


def slot_move(world: TdpMirror, op: ops.SlotMove) -> int:
    """The same with another base."""
    return world.enter_int(world.driver.slot_move, op.slot, op.base)
