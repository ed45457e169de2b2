"""Ageing, write protection and dirty logging of the shared half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from conformance.environment.tdp_mirror.words import is_leaf
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import ACCESSED, DIRTY
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def _is_judged(world: TdpMirror, start: int, end: int) -> bool:
    """Whether what an ageing call says of a range can be told: nobody else is at it."""
    bits = world.config.direct_bits
    return world.scheduler is None and start < end and (not bits or start < bits)


def age(world: TdpMirror, op: ops.Age) -> int:
    """Test and clear: of valid direct roots alone."""
    young, others = world.meaning.having(ACCESSED, op.start, op.end)
    result = world.enter_int(world.driver.age_gfn_range, op.start, op.end)
    if _is_judged(world, op.start, op.end):
        after, still = world.meaning.having(ACCESSED, op.start, op.end)
        world.require(c.AGE_VALID_ONLY, bool(result) == young, f"age: {bool(result)}, accessed: {young}")
        world.require(c.AGE_VALID_ONLY, not after, "age leaves accessed bits in the range")
        world.require(c.AGE_VALID_ONLY, others <= still, "age clears bits of an invalid or mirror root")
    return 0


def test_age(world: TdpMirror, op: ops.TestAge) -> int:
    """Test alone."""
    young, _ = world.meaning.having(ACCESSED, op.start, op.end)
    result = world.enter_int(world.driver.test_age_gfn, op.start, op.end)
    if _is_judged(world, op.start, op.end):
        world.require(c.AGE_VALID_ONLY, bool(result) == young, f"test_age: {bool(result)}, accessed: {young}")
    return 0


def _protected(world: TdpMirror, changed: int) -> None:
    """After write protection the caller flushes if the call says that something changed (TDP-084)."""
    if changed:
        world.tlbs.flush_remote_tlbs()
    if world.scheduler is None:
        world.tlbs.judge_protected()


def wrprot_slot(world: TdpMirror, op: ops.WrprotSlot) -> int:
    """A whole slot."""
    dirty = _dirty(world)
    world.mmu_lock.read_lock()
    changed = world.enter_int(world.driver.wrprot_slot, op.slot, op.level)
    world.mmu_lock.read_unlock()
    _protected(world, changed)
    _still_dirty(world, dirty)
    return 0


def clear_dirty_slot(world: TdpMirror, op: ops.ClearDirtySlot) -> int:
    """A whole slot; the caller flushes anyhow."""
    dirty, before = _dirty(world), world.tables.dirtied
    world.mmu_lock.read_lock()
    world.enter(world.driver.clear_dirty_slot, op.slot)
    world.mmu_lock.read_unlock()
    world.tlbs.flush_remote_tlbs()
    _, base, npages, _ = world.slots.by_id[op.slot]
    _cleared_dirty(world, before, base, base + npages, (1, 2, 3))
    _still_dirty(world, {leaf for leaf in dirty if not base <= leaf[0] < base + npages})
    return 0


def _leaves(world: TdpMirror) -> Iterator[tuple[int, int, int]]:
    """gfn, level and word of each leaf of the valid direct root."""
    tables = world.tables
    for root in world.roots.listed:
        for table, index, entry in tables.walk(root) if not root.is_mirror and not root.invalid else ():
            if is_leaf(entry, table.level):
                yield tables.gfn(table, index), table.level, entry


def _is_alone(world: TdpMirror) -> bool:
    """Whether nobody else was at the entries during the operation."""
    return world.scheduler is None and world.preempt is None and not world.frame.given


def _dirty(world: TdpMirror) -> set[tuple[int, int]]:
    """gfn and level of the dirty leaves of the valid direct root."""
    return {(gfn, level) for gfn, level, entry in _leaves(world) if entry >> DIRTY & 1}


def _still_dirty(world: TdpMirror, leaves: set[tuple[int, int]]) -> None:
    """Nobody forgets of pages that he was not asked for that they were written."""
    lost = sorted(leaves - _dirty(world)) if _is_alone(world) else ()
    for gfn, _ in lost:
        raise Violation(c.PROTECTION_COMPLETE, f"gfn {gfn:#x} was dirty, and is not any more")


def _cleared_dirty(world: TdpMirror, before: int, start: int, end: int, levels: tuple[int, ...]) -> None:
    """No leaf of the valid direct root within the range is dirty, unless one became so since."""
    for gfn, level in sorted(_dirty(world)) if world.tables.dirtied == before else ():
        if start <= gfn and gfn + world.config.cover(level) <= end and level in levels:
            raise Violation(c.PROTECTION_COMPLETE, f"gfn {gfn:#x} is left dirty")


def clear_dirty_masked(world: TdpMirror, op: ops.ClearDirtyMasked) -> int:
    """Single gfns of a slot, as user space has collected them."""
    dirty, before = _dirty(world), world.tables.dirtied
    world.mmu_lock.write_lock()
    world.enter(world.driver.clear_dirty_masked, op.slot, op.gfn, op.mask, int(op.wrprot))
    world.tlbs.flush_remote_tlbs()
    meant = {op.gfn + bit for bit in range(op.mask.bit_length() if not op.wrprot else 0) if op.mask >> bit & 1}
    for gfn in meant:
        _cleared_dirty(world, before, gfn, gfn + 1, (1,))
    _still_dirty(world, {(gfn, level) for gfn, level in dirty if level > 1 or gfn not in meant})
    world.mmu_lock.write_unlock()
    return 0


def write_protect_gfn(world: TdpMirror, op: ops.WriteProtectGfn) -> int:
    """One gfn, for whoever shadows it."""
    dirty = _dirty(world)
    world.mmu_lock.write_lock()
    _protected(world, world.enter_int(world.driver.write_protect_gfn, op.slot, op.gfn, op.level))
    _still_dirty(world, dirty)
    world.mmu_lock.write_unlock()
    return 0
