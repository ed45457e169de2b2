"""What must hold when an operation returns, while none is in progress, and whenever another thread goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.tdp_mirror.gfns import hex_of
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import PAGE_SHIFT
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.tdp_mirror.world import TdpMirror

_HOLDABLE = (
    "the RCU read lock",
    "SRCU",
    "a reference to a guest page",
    "mmu_lock",
    "pages_lock",
    "slots_lock",
    "the lock of the file",
    "an invalidation",
)


def nothing_left(world: TdpMirror, me: int) -> None:
    """Nothing that the thread took may be left when its operation returns."""
    held = (
        world.rcu.depth[me],
        world.srcu.depth[me],
        world.guest_memory.grabbed[me],
        world.mmu_lock.is_held(me),
        world.pages_lock.holder == me,
        world.slots_lock.holder == me,
        world.guest_memory.file_holder == me,
        world.invalidation.begun[me],
    )
    if any(held):
        names = ", ".join(name for name, value in zip(_HOLDABLE, held, strict=True) if value)
        raise Violation(c.BALANCED, f"the call returns with {names} held")
    world.td_pages.judge_given()
    world.frozen.none_left(me)
    world.mirror.none_left(me)
    world.heap.none_left(me, c.FAILED_EXTERNAL_RESTORES if world.external.failed[me] else c.BALANCED)
    world.hold(c.BALANCED)
    world.hold(c.ROBUSTNESS)
    world.guests.none_left(me)


def settle(world: TdpMirror) -> None:
    """Sums that hold while no operation is in progress."""
    world.accounts.settle()
    if world.vm.bugged:
        return
    now = (world.tables.version, world.attributes.private)
    if world.config.mirror and world.settled != now:
        world.settled = now
        _halves(world)
    if world.config.deep:
        _pins(world)


def pages_gone(world: TdpMirror) -> None:
    """Nothing maps a page that goes back to the host, once mmu_lock is let go (TDP-080, 088)."""
    memory = world.guest_memory
    for kind, gfns in memory.gone if not world.vm.bugged else ():
        for root in world.roots.listed:
            for gfn, _, source, _ in world.meaning.leaves(root):
                if gfn in gfns and source.startswith(kind) and source != kind + "'" * (gfn in memory.moved[kind]):
                    clause = c.ZAP_EXACT if kind == "hva" else c.GMEM_PRIVATE_ONLY
                    clause = c.UNMAP_INCLUDES_INVALID if root.invalid else clause
                    raise Violation(clause, f"gfn {gfn:#x} is mapped to a page that goes back to the host")
    memory.gone.clear()


def _halves(world: TdpMirror) -> None:
    """What is mapped in a half has its attribute (TDP-090); huge leaves cover no mixed range (TDP-092)."""
    meant, marked, bits = world.meaning.of_all(), world.attributes.private, world.config.direct_bits
    op = world.performed
    if type(op) is ops.PageFault and op.private == (not bits or bool(op.gpa >> PAGE_SHIFT & bits)):
        return
    for gfn, level, *_ in meant.private:
        if gfn not in marked and level == 1:
            raise Violation(c.CONVERSION_FINAL, f"gfn {gfn:#x} is mapped private, its attribute is shared")
    for gfn, level, *_ in meant.shared:
        for covered in range(gfn, gfn + world.config.cover(level)):
            if covered in marked:
                clause = c.CONVERSION_FINAL if level == 1 else c.STRADDLING_HUGE
                raise Violation(clause, f"gfn {covered:#x} is mapped shared, its attribute is private")
        if level > 1:
            world.hold(c.STRADDLING_HUGE)
    if meant.private or meant.shared:
        world.hold(c.CONVERSION_FINAL)


def _pins(world: TdpMirror) -> None:
    """Every page of the TD is pinned once, and no other one."""
    pages = list(world.sept.leaves.values())
    if not world.sept.runnable:
        pages += [world.guest_memory.page(leaf[0], True) for leaf in world.meaning.of_all().private]
    wanted = dict.fromkeys(pages, 1)
    pins = {pfn: n for pfn, n in world.td_pages.pins.items() if n}
    if pins != wanted and (pins or world.profile.pins_pages):
        raise Violation(c.BALANCED, f"pages pinned {hex_of(pins)}, pages of the TD {hex_of(wanted)}")


def mirror_is_external(world: TdpMirror) -> None:
    """The mirror is the external tree, but for entries that somebody is at (R2)."""
    if not world.config.mirror or world.vm.bugged:
        return
    meant, sept, pages = world.meaning.of_all(), world.sept, world.tables.pages
    tables = meant.tables[0]
    frozen = {
        (world.tables.gfn(pages[pa], index), pages[pa].level)
        for pa, index in world.frozen.owners
        if pages[pa].root is not None
    }
    for level, gfn in tables ^ sept.tables.keys():
        if (level, gfn) in tables or (gfn, level + 1) not in frozen:
            raise Violation(
                c.FREEZE_EXTERNAL_PUBLISH,
                f"mirror and external tree differ in the table of level {level} at {gfn:#x}",
            )
    mapped = {gfn for gfn, *_ in meant.private}
    outside = {gfn for gfn, _ in sept.leaves}
    for gfn in mapped ^ outside:
        premapped = gfn in mapped and not sept.runnable and world.profile.premapped
        if not premapped and (gfn in mapped or ((gfn, 1) not in frozen and gfn not in world.mirror.cleared)):
            raise Violation(c.FREEZE_EXTERNAL_PUBLISH, f"mirror and external tree differ in the leaf at {gfn:#x}")
    world.hold(c.FREEZE_EXTERNAL_PUBLISH)
