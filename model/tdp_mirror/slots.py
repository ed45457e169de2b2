"""Conversion of memory, and slots that come, move and go."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.freedom import End, Freedom, Part
from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror.operations import (
    Answers,
    Config,
    SetAttributes,
    Slot,
    SlotCreate,
    SlotDelete,
    SlotMove,
)
from conformance.model.tdp_mirror.state import State, has_alias, slot_by_id, slot_range
from conformance.model.tdp_mirror.zapping import lost_by_invalid, zap, zap_outcomes, zaps
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    ATTRIBUTE_PRIVATE,
    EEXIST,
    EINVAL,
    ENOMEM,
    MEM_GUEST_MEMFD,
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
)


def set_attributes(state: State, op: SetAttributes, answers: Answers, _profile: Profile) -> Outcomes:
    """Zap the half that the range leaves, then store (TDP-089)."""
    config = state.config
    allowed = ATTRIBUTE_PRIVATE if config.private else 0
    start, end = op.address >> 12, op.address + op.size >> 12
    if op.flags or op.attributes & ~allowed or op.size == 0 or (op.address | op.size) & 4095:
        return Outcome(state, -EINVAL, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    if op.address + op.size > 2**64:
        return Outcome(state, -EINVAL, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    private = bool(op.attributes & ATTRIBUTE_PRIVATE)
    wanted = state.attributes.with_range(start, end, private)
    if answers.reserve_attributes:
        return Outcome(state, -ENOMEM, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    if wanted == state.attributes:
        return Outcome(state, 0, because=c.CONVERSION_IDLE, effect=c.CONVERSION_IDLE)
    afters: tuple[State, ...] = (state,)
    for _, base, npages, _flags in state.slots:
        lo, hi = max(start, base), min(end, base + npages)
        if lo < hi:
            direct = private or not config.mirror
            afters = tuple(s for after in afters for s in zaps(after, lo, hi, not private, direct, invalid=True))
    return tuple(
        replace(o, state=replace(o.state, attributes=wanted))
        for after in afters
        for o in each(
            zap_outcomes(
                state, after, answers, c.CONVERSION_ZAPS_OLD, c.CONVERSION_FINAL, *lost_by_invalid(state, after)
            )
        )
    )


def gmem_refused(config: Config, flags: int) -> bool:
    """Whether guest memory cannot have these flags, or the VM no guest memory (TDP-094)."""
    wrong = flags & (MEM_LOG_DIRTY_PAGES | MEM_READONLY) or not config.private
    return bool(flags & MEM_GUEST_MEMFD and wrong)


def changes_logging(slot: Slot, op: SlotCreate) -> bool:
    """Whether a slot without guest memory stays where it is, and only logs its dirty pages or no longer does."""
    return (op.base, op.npages) == slot[1:3] and {op.flags, slot[3]} <= {0, MEM_LOG_DIRTY_PAGES}


def is_of_logging(state: State, op: SlotCreate) -> bool:
    """Whether what is asked is that a slot without guest memory logs its dirty pages, or that it no longer does."""
    slot = slot_by_id(state, op.slot)
    if slot is not None:
        return changes_logging(slot, op)
    return bool(op.flags & MEM_LOG_DIRTY_PAGES and not op.flags & MEM_GUEST_MEMFD)


def _logging_changed(state: State, slot: Slot, flags: int) -> Outcomes:
    """The flag alone changes (TDP-112); leaves may go, they come back by themselves."""
    gfns = slot_range(state, slot[0])
    slots = tuple((*s[:3], flags) if s is slot else s for s in state.slots)
    unmapped = Part(
        "unmapped", lambda s: zap(s, gfns.start, gfns.stop, mirror=False, direct=True, invalid=True), owed=False
    )
    return Freedom(replace(state, slots=slots), (unmapped,), (End(0, because=c.LOGGED_AT_4K, effect=c.LOGGED_AT_4K),))


def slot_create(state: State, op: SlotCreate, answers: Answers, profile: Profile) -> Outcomes:
    """Refuse what guest memory cannot have, and gfns that are aliases (TDP-094, 020).

    A slot that is there is changed, and one that has no pages any more is deleted, as it is in KVM's ABI; whether its
    flags are looked at by then is left open.
    """
    config = state.config
    last = op.base + op.npages - 1
    found = slot_by_id(state, op.slot)
    exists = found is not None
    if found is not None and changes_logging(found, op):
        return _logging_changed(state, found, op.flags)
    if exists and not op.npages:
        refused = Outcome(state, -EINVAL, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS)
        deleted = each(slot_delete(state, SlotDelete(op.slot), answers, profile))
        return (refused, *(replace(o, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS) for o in deleted))
    refusal = None
    if exists or gmem_refused(config, op.flags):
        refusal = c.GMEM_SLOT_FLAGS
    elif op.npages <= 0 or last > config.max_gfn or has_alias(config, op.base, last):
        refusal = c.SLOT_ALIAS
    ends: tuple[End, ...] = ()
    if refusal is not None:
        ends += (End(-EINVAL, because=refusal, effect=refusal),)
    if any(op.base < base + npages and base <= last for _, base, npages, _ in state.slots):
        ends += (End(-EEXIST, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS),)
    if ends:
        return Freedom(state, (), ends)
    return Outcome(
        replace(state, slots=(*state.slots, (op.slot, op.base, op.npages, op.flags))), 0, because=c.SLOT_ALIAS
    )


def slot_delete(state: State, op: SlotDelete, answers: Answers, _profile: Profile) -> Outcomes:
    """Leaves of both halves within the slot, nothing else (TDP-093)."""
    gfns = slot_range(state, op.slot)
    after = zap(state, gfns.start, gfns.stop, mirror=True, direct=True, invalid=True)
    slots = tuple(slot for slot in state.slots if slot[0] != op.slot)
    zapped = zap_outcomes(state, after, answers, c.SLOT_DELETE_LEAFS)
    return tuple(replace(o, state=replace(o.state, slots=slots)) for o in each(zapped))


def slot_move(state: State, op: SlotMove, answers: Answers, _profile: Profile) -> Outcomes:
    """As a deletion and a creation; slots with guest memory stay where they are (TDP-094).

    The slot may be empty before the new place is looked at: shared leaves come back by themselves.
    """
    config = state.config
    slot = slot_by_id(state, op.slot)
    assert slot is not None
    if slot[3] & MEM_GUEST_MEMFD:
        return Outcome(state, -EINVAL, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS)
    last = op.base + slot[2] - 1
    gfns = slot_range(state, op.slot)
    after = zap(state, gfns.start, gfns.stop, mirror=True, direct=True, invalid=True)
    unmapped = (Part("unmapped", lambda _: after, owed=False),)
    ends: tuple[End, ...] = ()
    if last > config.max_gfn or has_alias(config, op.base, last):
        ends += (End(-EINVAL, because=c.SLOT_ALIAS, effect=c.SLOT_ALIAS),)
    others = tuple(s for s in state.slots if s is not slot)
    if any(op.base < base + npages and base <= last for _, base, npages, _ in others):
        ends += (End(-EEXIST, because=c.GMEM_SLOT_FLAGS, effect=c.GMEM_SLOT_FLAGS),)
    if not ends and op.base == slot[1]:
        ends = (End(0, because=c.SLOT_DELETE_LEAFS),)
    if ends:
        return Freedom(state, unmapped, ends)
    slots = tuple((s[0], op.base, s[2], s[3]) if s is slot else s for s in state.slots)
    zapped = zap_outcomes(state, after, answers, c.SLOT_DELETE_LEAFS)
    return tuple(replace(o, state=replace(o.state, slots=slots)) for o in each(zapped))
