"""The guest, and the life of a TD: pages before it runs, its end, and calls of single hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.tdp_mirror.gfns import hex_of
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import PAGE_SHIFT, TDX_OPERAND_BUSY

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def access(world: TdpMirror, op: ops.Access) -> int:
    """Hardware translates for the guest."""
    world.guests.enter(op.vcpu)
    world.tlbs.access(op.vcpu, op.gpa >> PAGE_SHIFT, write=op.write)
    return 0


def accept(world: TdpMirror, op: ops.Accept) -> int:
    """The guest accepts a page, unless vCPUs are kept out."""
    world.vcpus.of(op.vcpu)
    if not world.guests.enter(op.vcpu):
        world.frame.given["kept_out"] = 1
        return TDX_OPERAND_BUSY
    return world.module.accept(op.vcpu, op.gpa >> PAGE_SHIFT)


def init_region(world: TdpMirror, op: ops.InitRegion) -> int:
    """A page of the TD's initial memory."""
    return world.enter_int(world.driver.init_mem_region, op.vcpu, op.gpa)


def finalize(world: TdpMirror, _op: ops.Finalize) -> int:
    """The TD may run, with all its pages (TDP-102)."""
    result = world.enter_int(world.driver.td_finalize)
    waiting = world.td.premaps if world.sept.runnable else 0
    world.require(c.PREMAPPED_COUNT, waiting <= 0, f"the TD is finalized while {waiting} pages wait to be added to it")
    return result


def hkid_release(world: TdpMirror, _op: ops.HkidRelease) -> int:
    """Nobody runs any more, and the TD loses its key."""
    world.guests.all_leave()
    world.sept.key = False
    return 0


def sept_set(world: TdpMirror, op: ops.SeptSet) -> int:
    """The hook alone; what it refuses it does not keep."""
    pins = world.td_pages.pins
    before = dict(pins)
    world.mmu_lock.write_lock()
    result = world.enter_int(world.driver.sept_set, op.gfn, op.level, world.guest_memory.page(op.gfn, True))
    world.mmu_lock.write_unlock()
    after = {pfn: n for pfn, n in pins.items() if n != before.get(pfn, 0)}
    world.require(c.BALANCED, not after, f"a refused page stays pinned: {hex_of(after)}")
    return result


def sept_remove(world: TdpMirror, op: ops.SeptRemove) -> int:
    """The hook alone."""
    world.mmu_lock.write_lock()
    result = world.enter_int(world.driver.sept_remove, op.gfn, 1, world.guest_memory.page(op.gfn, True))
    world.mmu_lock.write_unlock()
    return result


def sept_free(world: TdpMirror, op: ops.SeptFree) -> int:
    """The hook alone."""
    world.mmu_lock.write_lock()
    result = world.enter_int(world.driver.sept_free, op.gfn, 1, 0x1000)
    world.mmu_lock.write_unlock()
    return result
