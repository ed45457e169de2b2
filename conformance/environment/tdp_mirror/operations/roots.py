"""vCPUs come and go, load roots and drop them; root types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.state import NONE
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    DIRECT_ROOTS,
    INVALID_PAGE,
    MIRROR_ROOTS,
    REQ_FREE_OBSOLETE_ROOTS,
    TYPE_VALIDITY,
)
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def vcpu_create(world: TdpMirror, op: ops.VcpuCreate) -> int:
    """A new vCPU, or none if it is refused."""
    world.vcpus.create(op.vcpu)
    result = world.enter_int(world.driver.vcpu_create, op.vcpu)
    if result < 0:
        _end(world, op.vcpu)
    return result


def vcpu_destroy(world: TdpMirror, op: ops.VcpuDestroy) -> int:
    """Its caches and roots must be gone."""
    world.enter(world.driver.vcpu_destroy, op.vcpu)
    _end(world, op.vcpu)
    return 0


def _end(world: TdpMirror, vcpu: int) -> None:
    world.heap.end_vcpu(vcpu)
    world.vcpus.destroy(vcpu)


def mmu_reload(world: TdpMirror, op: ops.MmuReload) -> int:
    """Hardware walks what was loaded."""
    result = world.enter_int(world.driver.mmu_reload, op.vcpu)
    pgd = world.tlbs.of(op.vcpu).pgd
    if result == 0 and (pgd is None or pgd.pa != world.vcpus.of(op.vcpu).root):
        raise Violation(c.RELOAD_FREES_OBSOLETE, f"vCPU {op.vcpu}: hardware walks another root than was loaded")
    return result


def mmu_unload(world: TdpMirror, op: ops.MmuUnload) -> int:
    """Drop the direct root."""
    world.enter(world.driver.mmu_unload, op.vcpu)
    return 0


def free_obsolete_roots(world: TdpMirror, op: ops.FreeObsoleteRoots) -> int:
    """Drop the direct root if it is invalid."""
    world.enter(world.driver.free_obsolete_roots, op.vcpu)
    return 0


def root_match(world: TdpMirror, op: ops.RootMatch) -> int:
    """Types without a kind are warned of."""
    result = world.enter_int(world.driver.root_match, int(op.mirror), int(op.invalid), op.types)
    if not op.types & (DIRECT_ROOTS | MIRROR_ROOTS):
        world.vm.warns(c.MATCH_NEEDS_KIND, f"root_match with types {op.types}")
    return result


def filter_to_types(world: TdpMirror, op: ops.FilterToTypes) -> int:
    """An empty filter is warned of."""
    result = world.enter_int(world.driver.filter_to_types, op.attr_filter)
    if op.attr_filter == 0 and (world.config.mirror or world.profile.warns_on_empty_filter):
        world.vm.warns(c.FILTER_TO_TYPES, "filter_to_types(0)")
    return result


def addr_is_direct(world: TdpMirror, op: ops.AddrIsDirect) -> int:
    """A pure question."""
    return world.enter_int(world.driver.addr_is_direct, op.gpa)


def gfn_is_alias(world: TdpMirror, op: ops.GfnIsAlias) -> int:
    """A pure question."""
    return world.enter_int(world.driver.gfn_is_alias, op.gfn)


def select_root(world: TdpMirror, op: ops.SelectRoot) -> int:
    """The place in the list of the root that is chosen; NONE for INVALID_PAGE, and what is no root has no place."""
    page = world.enter_int(world.driver.select_root, op.vcpu, op.types)
    nowhere = NONE if page == INVALID_PAGE else NONE - 1
    return next((i for i, root in enumerate(world.roots.listed) if root.pa == page), nowhere)


def invalidate_roots(world: TdpMirror, op: ops.InvalidateRoots) -> int:
    """As the fast zap does it: under the write lock, and vCPUs are told."""
    world.mmu_lock.write_lock()
    world.enter(world.driver.invalidate_roots, op.types)
    world.vcpus.make_all_cpus_request(REQ_FREE_OBSOLETE_ROOTS)
    world.mmu_lock.write_unlock()
    if op.types & TYPE_VALIDITY and not world.profile.bit0_is_valid:
        world.vm.warns(c.INVALIDATE_IGNORES_INVALID_BIT, f"invalidate_roots({op.types})")
    return 0


def steal_reference(world: TdpMirror, _op: ops.StealReference) -> int:
    """The valid direct root has one reference too few."""
    root = world.roots.valid(mirror=False)
    assert root is not None
    root.refs -= 1
    return 0
