"""Zapping, and the flushes that follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from conformance.environment.tdp_mirror.words import PFN_MASK, is_leaf
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import FILTER_SHARED

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def flushing(world: TdpMirror, function: Callable[..., Any], *args: Any, flush: bool = False) -> None:
    """Call with the write lock held, and flush as it says; it may ask for a flush that is not due (TDP-081)."""
    me, tlbs = world.threads.me, world.tlbs
    if world.scheduler is None and world.active == 1:
        tlbs.due.clear()  # what an earlier call owed and nobody can show any more
    tlbs.asked[me] = flush
    result = world.enter_int(function, *args)
    if world.scheduler is None:
        wanted = tlbs.is_due()
        world.require(c.FLUSH_STICKY, bool(result) or not wanted, "the call asks for no flush, and one is due")
    if result:
        tlbs.flush_remote_tlbs()
    tlbs.asked[me] = False
    world.hold(c.FLUSH_BEFORE_YIELD)


def _bounded(world: TdpMirror, start: int, direct: bool) -> None:
    """A walk of direct roots from beyond the split warns (TDP-016)."""
    bits = world.config.direct_bits
    if bits and start >= bits and direct and any(not root.is_mirror for root in world.roots.listed):
        world.vm.warns(c.WALK_START_BOUND, f"a walk of direct roots from {start:#x}")


def zap_leafs(world: TdpMirror, op: ops.ZapLeafs) -> int:
    """Leaves of direct roots in a range."""
    world.mmu_lock.write_lock()
    flushing(world, world.driver.zap_leafs, op.start, op.end, int(op.flush), flush=op.flush)
    _bounded(world, op.start, world.roots.valid(mirror=False) is not None)
    world.mmu_lock.write_unlock()
    return 0


def unmap(world: TdpMirror, op: ops.Unmap) -> int:
    """As a notifier unmaps: inside an invalidation, which may forbid to sleep."""
    me, lock = world.threads.me, world.mmu_lock
    lock.may_block[me] = op.may_block
    lock.write_lock()
    world.invalidation.mmu_invalidate_begin(op.start, op.end)
    before = world.tables.version
    flushing(
        world, world.driver.unmap_gfn_range, op.start, op.end, op.attr_filter, int(op.may_block), int(op.flush),
        flush=op.flush,
    )  # fmt: skip
    if world.config.mirror and not op.attr_filter and not world.vm.bugged and before == world.tables.version:
        world.vm.warns(c.EMPTY_FILTER_NOT_SILENT, "an unmap without a filter")
    _bounded(world, op.start, bool(op.attr_filter & FILTER_SHARED))
    if not op.may_block:
        world.hold(c.NO_BLOCK_NO_YIELD)
    lock.may_block[me] = True
    world.invalidation.mmu_invalidate_end()
    lock.write_unlock()
    return 0


def zap_sp(world: TdpMirror, op: ops.ZapSp) -> int:
    """One table and all below it."""
    root = world.roots.valid(mirror=op.mirror)
    assert root is not None
    tables = world.tables
    page = next(
        entry & PFN_MASK
        for table, index, entry in tables.walk(root)
        if not is_leaf(entry, table.level) and (table.level - 1, tables.gfn(table, index)) == (op.level, op.gfn)
    )
    world.mmu_lock.write_lock()
    result = world.enter_int(world.driver.zap_sp, page)
    world.tlbs.flush_remote_tlbs()
    world.mmu_lock.write_unlock()
    return result


def zap_invalidated(world: TdpMirror, _op: ops.ZapInvalidated) -> int:
    """The slow half of the fast zap."""
    world.enter(world.driver.zap_invalidated_roots)
    return 0


def zap_all_fast(world: TdpMirror, _op: ops.ZapAllFast) -> int:
    """Both halves, under slots_lock."""
    world.slots_lock.slots_lock()
    world.enter(world.driver.zap_all_fast)
    world.slots_lock.slots_unlock()
    return 0


def zap_all(world: TdpMirror, _op: ops.ZapAll) -> int:
    """The VM's memory goes away."""
    world.enter(world.driver.zap_all)
    world.tlbs.flush_remote_tlbs()
    return 0


def vm_uninit(world: TdpMirror, _op: ops.VmUninit) -> int:
    """The end: nothing is left, and callbacks were waited for."""
    world.enter(world.driver.vm_uninit)
    kept = (("roots", world.roots.listed), ("tables", world.tables.pages), ("a stock of pages", world.heap.stock))
    left = [name for name, value in kept if value]
    accounted = world.accounts.accounted
    world.require(c.UNINIT_COMPLETE, not left, f"vm_uninit leaves {' and '.join(left)}")
    world.require(c.UNINIT_COMPLETE, accounted == 0, f"vm_uninit leaves {accounted} accounted tables")
    world.require(c.UNINIT_COMPLETE, world.rcu.waited, "vm_uninit does not wait for RCU callbacks")
    if world.vm.bugged:
        world.sept.leaves.clear()
    elif world.config.mirror:
        status = world.sept.reclaim_root()
        world.require(c.UNINIT_COMPLETE, not status, f"the root page of the TD cannot be reclaimed: {status:#x}")
    world.td.premaps = 0
    return 0
