"""Faults, maps and look-ups, as their callers make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from conformance.environment.tdp_mirror.words import present
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


Faulted = tuple[int, tuple[int, ...]]
"""Result of a fault, and its memory-fault exit."""


def _with_srcu(world: TdpMirror, function: Callable[..., Any], *args: Any) -> Faulted:
    """A fault, as the run loop calls it: SRCU held. Its result and its memory-fault exit."""
    me, depth = world.threads.me, world.srcu.depth
    depth[me] += 1
    result = world.enter_int(function, *args)
    depth[me] -= 1
    return result, world.vm.exits[me]


def _retries(world: TdpMirror, result: int, exit_record: tuple[int, ...]) -> Faulted:
    """What a mapper says that met FROZEN (TDP-044)."""
    if world.frozen.gave_up(world.threads.me) and result >= 0 and result != k.RET_PF_RETRY:
        raise Violation(c.FROZEN_IS_OWNED, f"result {result} after a frozen entry was met")
    return result, exit_record


def page_fault(world: TdpMirror, op: ops.PageFault) -> Faulted:
    """A fault of a guest."""
    code = (
        op.write << k.PFERR_WRITE
        | op.present << k.PFERR_PRESENT
        | op.private << k.PFERR_PRIVATE_ACCESS
        | 1 << k.PFERR_GUEST_FINAL
    )
    return _retries(world, *_with_srcu(world, world.driver.page_fault, op.vcpu, op.gpa, code, int(op.prefetch)))


def tdp_map(world: TdpMirror, op: ops.TdpMap) -> Faulted:
    """A map of a page that the caller has resolved, with caches filled and the lock held for read."""
    gfn = op.gpa >> k.PAGE_SHIFT & ~world.config.direct_bits
    v = world.vcpus.of(op.vcpu)
    if k.INVALID_PAGE not in (v.root, v.mirror) or (v.mirror if op.private else v.root) != k.INVALID_PAGE:
        refusal = 0
        for kind in (k.HEADER, k.TABLE, k.EXTERNAL):
            refusal = refusal or world.heap.cache_topup(op.vcpu, kind, 5, k.NONPRESENT)
        if refusal:
            return refusal, ()
    world.mmu_lock.read_lock()
    pfn = world.guest_memory.page(world.config.base(gfn, op.level), op.private)
    result = world.enter_int(world.driver.tdp_map, op.vcpu, op.gpa, pfn, int(op.private), 1, op.level)
    world.mmu_lock.read_unlock()
    return _retries(world, result, ())


def faultin(world: TdpMirror, op: ops.Faultin) -> Faulted:
    """The page of a fault, without a map."""
    return _with_srcu(world, world.driver.faultin_pfn, op.vcpu, op.gfn, int(op.private))


def prefault(world: TdpMirror, op: ops.Prefault) -> int:
    """A range is mapped before the guest asks."""
    return world.enter_int(world.driver.prefault, op.vcpu, op.gpa, op.size, op.flags)


def ept_violation(world: TdpMirror, op: ops.EptViolation) -> Faulted:
    """A violation of a TD's guest, tried again until it is resolved."""
    return _with_srcu(world, world.driver.ept_violation, op.vcpu, op.gpa)


def fast_fault(world: TdpMirror, op: ops.FastFault) -> int:
    """The lockless path."""
    code = op.write << k.PFERR_WRITE | 1 << k.PFERR_PRESENT | op.private << k.PFERR_PRIVATE_ACCESS
    return world.enter_int(world.driver.fast_pf, op.vcpu, op.gpa, code)


def get_walk(world: TdpMirror, op: ops.GetWalk) -> tuple[int, ...]:
    """Which entries of the walk are present, from the root down."""
    walk = world.enter(world.driver.get_walk, op.vcpu, op.gpa)
    if type(walk) is not tuple or any(type(entry) is not int for entry in walk):
        raise Crash(f"get_walk returned {world.text_of(walk)}, expected a tuple of int", "type")
    return tuple(present(entry) for entry in walk)


def gpa_is_mapped(world: TdpMirror, op: ops.GpaIsMapped) -> int:
    """Asked with the lock held for read."""
    world.mmu_lock.read_lock()
    result = world.enter_int(world.driver.gpa_is_mapped, op.vcpu, op.gpa)
    world.mmu_lock.read_unlock()
    return result
