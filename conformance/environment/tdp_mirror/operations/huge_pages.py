"""Huge pages are split and recovered, and found where no mirror may have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.tdp_mirror.gfns import ORIGIN
from conformance.environment.tdp_mirror.operations.zapping import flushing
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror.constants import HUGE, NONPRESENT, PAGE_SHIFT, PRESENT, RWX

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def split_huge(world: TdpMirror, op: ops.SplitHuge) -> int:
    """Before dirty logging of a range."""
    world.mmu_lock.read_lock()
    world.enter(world.driver.split_huge, op.slot, op.start, op.end, 1)
    world.mmu_lock.read_unlock()
    world.tlbs.flush_remote_tlbs()
    return 0


def recover_huge(world: TdpMirror, op: ops.RecoverHuge) -> int:
    """After it."""
    world.mmu_lock.write_lock()
    flushing(world, world.driver.recover_huge, op.slot)
    world.mmu_lock.write_unlock()
    return 0


def inject_huge(world: TdpMirror, op: ops.InjectHuge) -> int:
    """Memory corruption: a huge leaf in a mirror."""
    place = world.meaning.mirror_entry(op.gfn, 2)
    assert place is not None
    table, index = place
    pfn = ORIGIN["gmem"] + op.gfn
    table.entries[index] = NONPRESENT | 1 << PRESENT | RWX | 1 << HUGE | pfn << PAGE_SHIFT
    world.tables.version += 1
    return 0
