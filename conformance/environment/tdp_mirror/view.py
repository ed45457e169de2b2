"""What can be observed from outside, read from what the world owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.model.tdp_mirror import View
from conformance.model.tdp_mirror.state import NONE

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror


def view(world: TdpMirror) -> View:
    """What can be seen from outside."""
    meant = world.meaning.of_all()
    roots = world.roots.listed
    sept = world.sept
    places = {root.pa: i for i, root in enumerate(roots)}
    return View(
        meant.private,
        meant.shared,
        meant.old,
        (frozenset(sept.tables), sept.view()),
        meant.tables,
        tuple((root.is_mirror, root.invalid, root.refs) for root in roots),
        tuple(None if v is None else (places.get(v.root, NONE), places.get(v.mirror, NONE)) for v in world.vcpus.all),
        world.attributes.private.ranges(),
        frozenset(world.slots.by_id.values()),
        world.td.state,
        world.heap.leaked,
        world.vm.bugged,
    )
