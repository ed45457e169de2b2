"""Pages that the host or guest memory takes back, and accessed bits."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror.operations import Age, Answers, GmemInvalidate, HvaInvalidate, TestAge
from conformance.model.tdp_mirror.state import State, moved, private_leaves
from conformance.model.tdp_mirror.zapping import lost_by_invalid, zap_outcomes, zaps
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import MEM_GUEST_MEMFD


def hva_invalidate(state: State, op: HvaInvalidate, _answers: Answers, _profile: Profile) -> Outcomes:
    """Only the shared half loses its leaves (TDP-087); the pages then come from elsewhere."""
    private = (c.HVA_SHARED_ONLY,) if private_leaves(state) else ()
    return tuple(
        Outcome(
            moved(after, "hva", op.start, op.end), 0, because=c.ZAP_EXACT, effect=c.ZAP_EXACT,
            also=lost_by_invalid(state, after) + private,
        )
        for after in zaps(state, op.start, op.end, mirror=False, direct=True, invalid=True)
    )  # fmt: skip


def gmem_invalidate(state: State, op: GmemInvalidate, answers: Answers, _profile: Profile) -> Outcomes:
    """Only the private half of the gfns bound to the file (TDP-088)."""
    afters: tuple[State, ...] = (state,)
    for _, base, npages, flags in state.slots:
        start, end = max(op.start, base), min(op.end, base + npages)
        if flags & MEM_GUEST_MEMFD and start < end:
            direct = not state.config.mirror
            afters = tuple(s for after in afters for s in zaps(after, start, end, True, direct, invalid=True))
    return tuple(
        replace(o, state=moved(o.state, "gmem", op.start, op.end))
        for after in afters
        for o in each(zap_outcomes(state, after, answers, c.GMEM_PRIVATE_ONLY))
    )


def age(state: State, _op: Age | TestAge, _answers: Answers, _profile: Profile) -> Outcomes:
    """Accessed bits are the environment's to judge; the maps stay."""
    clauses = (c.MIRROR_UNTOUCHED,) if private_leaves(state) else ()
    return Outcome(state, 0, because=c.AGE_VALID_ONLY, effect=c.MIRROR_UNTOUCHED, also=clauses)
