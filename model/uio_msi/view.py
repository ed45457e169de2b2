"""What can be observed from outside, and who is to blame when it differs."""

from __future__ import annotations

from typing import NamedTuple

from conformance.model.step import Labels
from conformance.model.uio_msi.operations import Close, CompatIoctl, CompatIrqSet, IrqSet, Open, Operation, RawIoctl
from conformance.model.uio_msi.state import State
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import MAX_MSIX_VECTORS


class View(NamedTuple):
    """What can be observed from outside."""

    leftovers: tuple[str, ...]
    """Resources the driver holds while it is not bound."""
    registered: bool
    """/dev/uioN exists."""
    enabled: int
    """Number of MSI-X vectors enabled."""
    references: tuple[int, ...]
    """eventfd references the driver holds, by eventfd."""
    counters: tuple[int, ...]
    """By eventfd, the decoy last."""
    pending: tuple[bool, ...]
    """Pending bits, by vector."""
    masked: bool
    """INTx is mapped and its disable bit is set."""
    lost: tuple[bool, ...]
    """By vector: mapped, and its message in the MSI-X table is cleared."""
    unserved: bool
    """The function drives the shared line while the device is open, and no handler is there to mask it."""


NOT_ONE = (False,) * MAX_MSIX_VECTORS
"""No vector of as many as there may be."""

VIEW_CLAUSES: dict[str, Clause] = {
    "leftovers": c.FAILED_PROBE_LEAVES_NOTHING,
    "registered": c.PROBE_MEANS_REGISTERED,
    "enabled": c.FIRST_OPEN_ENABLES,
    "references": c.ONE_REFERENCE_EACH,
    "counters": c.ONE_EVENT_ONE_SIGNAL,
    "pending": c.UNMAPPED_EVENT_HELD,
    "masked": c.INTX_MASKED_AND_SIGNALLED,
    "lost": c.MESSAGE_REWRITTEN,
    "unserved": c.LINE_SERVED,
}

VIEW_LABELS: dict[str, Labels] = {
    "references": ("eventfd {}",),
    "counters": ("eventfd {}",),
    "pending": ("vector {}",),
    "lost": ("vector {}",),
}
"""What the parts of its fields are called."""


def view(state: State) -> View:
    """What can be observed of this state."""
    wired, lost = state.wired, state.lost
    bound = state.life == "bound"
    return View(
        (),
        bound,
        state.limit if state.msix and bound and state.opens else 0,
        tuple([wired.count(o) for o in range(len(state.counters))]),
        state.counters,
        state.pending,
        state.masked and wired[0] is not None,
        tuple([v in lost and o is not None for v, o in enumerate(wired)]) if lost else NOT_ONE[: len(wired)],
        False,
    )


def cite(state: State, op: Operation, field: str, expected: View, got: View) -> Clause | None:
    """A clause that names the disagreement better than the outcome's or the field's own."""
    if field == "unserved":
        return c.LINE_SERVED
    match op:
        case IrqSet(vector, fd) | CompatIrqSet(vector, fd) | RawIoctl(_, _, vector, fd) | CompatIoctl(_, _, vector, fd):
            if field == "counters" and fd >= 0 and state.msix:
                return c.HELD_EVENT_DELIVERED_ONCE if _has_too_many(expected.counters, got.counters) else None
            return _cite_set(state, vector, field, expected, got)
        case Open():
            few = field == "enabled" and expected.enabled and got.enabled and not state.opens
            return c.NUMBER_OF_VECTORS if few else None
        case Close():
            return c.REMOVE_WHILE_OPEN if state.life == "gone" and field == "leftovers" else None
        case _:
            return None


def _has_too_many(expected: tuple[int, ...], got: tuple[int, ...]) -> bool:
    """Whether somebody was told of more than there was, and nobody of less."""
    return expected != got and all(have >= want for want, have in zip(expected, got, strict=True))


def _cite_set(state: State, vector: int, field: str, expected: View, got: View) -> Clause | None:
    if field == "masked":
        if expected != view(state):
            return c.INTX_UNMASK
        # Nothing should have changed: the set was refused, or its outcome says better what it had to do.
        return c.NEVER_HALF_MAPPED if got.masked and got._replace(masked=False) == expected else None
    if field == "pending":
        want, have = expected.pending, got.pending
        if any(i != vector and a != b for i, (a, b) in enumerate(zip(want, have, strict=False))):
            return c.OTHER_VECTORS_UNTOUCHED
    if field == "references" and vector < state.limit:
        held, references = expected.references, got.references
        others = set(state.wired) - {state.wired[vector]}
        if any(o in others and a > b for o, (a, b) in enumerate(zip(held, references, strict=True))):
            return c.OTHER_VECTORS_UNTOUCHED
        return c.ONE_REFERENCE_EACH if sum(held) != sum(references) else None
    return None
