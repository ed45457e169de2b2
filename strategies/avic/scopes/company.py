"""Steps with another operation in the middle, or beside."""

from __future__ import annotations

from typing import Any

from conformance.model.avic import operations as s
from conformance.model.step import Parallel, Step
from conformance.specs.avic.constants import APIC_LDR, INHIBIT_BLOCKIRQ, INHIBIT_IRQWIN
from conformance.strategies.avic.domains import steps
from conformance.strategies.avic.races import INHIBIT

ENDED_INSIDE = tuple(Step(s.VmDestroy(), during=((k, Step(s.IommuPost(0))),)) for k in range(0, 40, 2))
_POINTS = range(0, 24, 2)
"""Every second point: after one call and before the next is the same place."""
_BLOCKED = tuple(
    Step(s.Block(1), during=((k, Step(inner)),))
    for k in range(0, 64, 2)
    for inner in (s.GuestIpi(0, 1), s.Deliver(1, 0x52))
)
INSIDE = (
    *_BLOCKED,
    *(
        Step(op, during=((k, Step(inner)),))
        for op in (s.Put(1), s.Load(1, 0x31), s.Unblock(1), s.Inhibit(INHIBIT_BLOCKIRQ, True))
        for k in _POINTS
        for inner in (s.GuestIpi(0, 1), s.Deliver(1, 0x52))
    ),
    *(Step(s.Deliver(1, 0x52), during=((k, Step(s.Inhibit(INHIBIT_BLOCKIRQ, True))),)) for k in _POINTS),
    *(Step(s.Deliver(1, 0x52), during=((k, Step(s.Block(1))),)) for k in _POINTS),
    *steps(s.VmRun(1), s.Put(1), s.Load(1, 0x21), s.Exit(1)),
)


def _at_once(*pairs: tuple[Any, Any], points: range) -> tuple[Step, ...]:
    """Both orders of starting, with one switch: those in the middle first, then those between the ones before."""
    middle = sorted(range(len(points)), key=lambda n: (-(n + 1 & -(n + 1)), n))
    return tuple(
        Step(Parallel(Step(one), Step(other), (points[n],)))
        for n in middle
        for left, right in pairs
        for one, other in ((left, right), (right, left))
    )


TOGETHER = _at_once(
    (INHIBIT, s.Deliver(1, 0x52)),
    (s.UpdateIrte(0, 1), s.Put(1)),
    (s.GuestWrite(0, APIC_LDR, 0x04000000), s.GuestWrite(1, APIC_LDR, 0x04000000)),
    (s.VcpuCreate(2), s.Inhibit(INHIBIT_IRQWIN, True)),
    points=range(1, 48, 3),
)
ENDING = (
    *steps(s.UpdateIrte(0, 0), s.Exit(0), s.Block(0)),
    *_at_once((s.VmDestroy(), s.IommuPost(0)), points=range(12)),
)
