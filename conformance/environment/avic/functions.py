"""What needs no VM: a router's answers, and pure functions of a table's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.environment.foreign import plain
from conformance.model.avic import operations as s
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import EINVAL
from conformance.verdict import Crash

if TYPE_CHECKING:
    from conformance.environment.avic.world import Avic


def irqfds(world: Avic, op: s.Irqfds) -> Any:
    """Ask the router what eventfds do."""
    router: Any = world.driver
    limit = world.threads.member("irq_routing")
    if callable(limit):
        limit = world.enter(limit)
    done = plain(world.enter(router.irqfds, tuple((a.what, a.fd, a.n, a.table) for a in op.acts)))
    if not (type(done) is tuple and len(done) == len(op.acts) and all(map(_is_done, done))):
        raise world.remember(
            Crash(f"irqfds returned {world.text_of(done)}, expected (result, vectors) for each act", "type")
        )
    if type(limit) is int and world.profile.kvm_routing:
        for act, (result, _) in zip(op.acts, done, strict=True):
            if act.what == "route":
                _require_limit(world, act, result, limit)
    return done


def _require_limit(world: Avic, act: s.Act, result: int, limit: int) -> None:
    """A table is refused for a gsi beyond what is told, and for no other but one that it has twice."""
    gsis = [gsi for gsi, _ in act.table]
    wanted = -EINVAL if len(set(gsis)) < len(gsis) or any(gsi >= limit for gsi in gsis) else 0
    detail = f"{act} gives {result}, expected {wanted}: KVM_CAP_IRQ_ROUTING tells {limit}"
    world.require(c.ROUTING_REPLACED_WHOLE, result == wanted, detail)


def _is_done(part: Any) -> bool:
    """Whether it is an int and a tuple of ints."""
    if not (type(part) is tuple and len(part) == 2):
        return False
    result, vectors = part
    return type(result) is int and type(vectors) is tuple and all(type(vector) is int for vector in vectors)


def route(world: Avic, op: s.Route | s.SignalMsi) -> int:
    """Ask the router."""
    apics = tuple((a.id | (a.xid << 32 | 1 << 40 if a.xid >= 0 else 0), a.mode, a.spiv, a.ldr, a.dfr) for a in op.apics)
    m = op.message
    message = (
        m.sender,
        m.dest,
        int(m.logical),
        m.shorthand,
        m.mode,
        m.vector,
        int(m.level),
        int(m.asserted),
        int(m.hint),
        int(m.wide) | int(m.no_quirk) << 1 | m.reserved << 32,
    )
    entry = world.driver.route if isinstance(op, s.Route) else world.driver.signal_msi
    return world.enter_int(entry, apics, message)


def helper(world: Avic, op: Any) -> Any:
    """Ask a pure function."""
    driver = world.driver
    match op:
        case s.HpaField():
            return world.enter_int(driver.hpa_field, op.address)
        case s.LogicalIndex():
            return world.enter_int(driver.logical_index, op.ldr, op.dfr)
        case s.PhysIndex():
            return world.enter_int(driver.phys_index, op.index)
        case s.X2Ldr():
            return world.enter_int(driver.x2_ldr, op.id)
        case s.Ppr():
            return world.enter_int(driver.ppr, op.tpr, op.isrv)
        case _:
            return world.enter(driver.tag_round_trip, op.vm_tag, op.index)
