"""Faults: which half, which page, and the lockless ways around them."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror.mapping import map_leaf, or_more
from conformance.model.tdp_mirror.operations import (
    Access,
    Answers,
    Config,
    FastFault,
    Faultin,
    GetWalk,
    GpaIsMapped,
    PageFault,
)
from conformance.model.tdp_mirror.state import (
    State,
    covering_leaf,
    is_alias,
    is_direct,
    is_obsolete,
    is_unmappable,
    logs,
    slot_of,
    with_root,
)
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    EAGAIN,
    EFAULT,
    EIO,
    ENOMEM,
    MEM_GUEST_MEMFD,
    MEMORY_EXIT_PRIVATE,
    RET_PF_CONTINUE,
    RET_PF_EMULATE,
    RET_PF_FIXED,
    RET_PF_INVALID,
    RET_PF_RETRY,
    RET_PF_SPURIOUS,
    SLOT_INVALID,
)


def memory_fault_exit(config: Config, gfn: int, private: bool) -> tuple[int, int, int]:
    """The exit to user space: gpa, size, flags."""
    return (gfn & ~config.direct_bits) << 12, 4096, MEMORY_EXIT_PRIVATE if private else 0


def page_fault(state: State, op: PageFault, answers: Answers, profile: Profile) -> Outcomes:
    """Resolve a fault; the result is (RET_PF or -errno, memory-fault exit or ())."""
    normal = fault(state, op.vcpu, op.gpa, op.private, op.write, op.prefetch, answers, profile)
    if op.present and not _in_mirror(state.config, op.gpa, op.private):
        fast = fast_outcome(state, op.vcpu, op.gpa, op.private, op.write)
        if fast is not None and (fast.state != state or is_obsolete(state, op.vcpu)):
            return (replace(fast, result=(fast.result, ())), *each(normal))
    return normal


def fault(
    state: State, vcpu: int, gpa: int, private: bool, write: bool, prefetch: bool, answers: Answers, profile: Profile
) -> Outcomes:
    """A fault at an address, by the normal way; the result is as for `page_fault`."""
    config = state.config
    gfn = gpa >> 12 & ~config.direct_bits
    if config.mirror and private == is_direct(config, gpa):
        clause = c.HALVES_DISAGREE
        refusals = (-EFAULT, ()), (-EFAULT, memory_fault_exit(config, gfn, private))
        bugged = replace(state, bugged=True)
        without_memory = ((-ENOMEM, ()),) if answers.cache_topup or answers.page_alloc else ()
        return tuple(
            Outcome(after, result, because=clause, effect=clause)
            for after, results in ((state, (*refusals, *without_memory)), (bugged, (*refusals, (-EIO, ()))))
            for result in results
        )
    if answers.cache_topup or answers.page_alloc:
        return Outcome(state, (-ENOMEM, ()), because=c.ALLOCATION_BEFORE_LOCK)
    resolved = _resolve(state, gfn, private, prefetch, answers)
    if resolved is not None and not answers.mmu_invalidate_retry:
        return resolved
    stale = Outcome(state, (RET_PF_RETRY, ()), because=c.STALE_FAULT, effect=c.STALE_FAULT)
    if resolved is not None:
        return (*each(resolved), stale)
    if is_unmappable(config, gfn):
        refused = Outcome(
            state,
            (-EFAULT, memory_fault_exit(config, gfn, private)),
            because=c.UNMAPPABLE_ADDRESS,
            effect=c.UNMAPPABLE_ADDRESS,
        )
        return (refused, stale) if is_obsolete(state, vcpu) or answers.mmu_invalidate_retry else refused
    pair = state.vcpus[vcpu]
    assert pair is not None
    mirror = config.mirror and (private if profile.root_by_access else not is_direct(config, gpa))
    if is_obsolete(state, vcpu) or answers.mmu_invalidate_retry:
        return (stale, *_found_without_lock(state, pair[1], gfn)) if mirror else stale
    index = pair[1] if mirror else pair[0]
    return or_more(map_leaf(state, index, gfn, private, write, prefetch, answers, profile), index, gfn, answers)


def _found_without_lock(state: State, index: int, gfn: int) -> tuple[Outcome, ...]:
    """Whoever looks before he takes the lock may find the leaf of a mirror, which permits all there is."""
    leaf = covering_leaf(state.config, state.roots[index], gfn)
    if leaf is None or leaf[1] > 1:
        return ()
    return (Outcome(state, (RET_PF_SPURIOUS, ()), because=c.FAULT_RESULT, effect=c.FAULT_RESULT),)


def _resolve(state: State, gfn: int, private: bool, prefetch: bool, answers: Answers) -> Outcomes | None:
    """What is wrong with attributes, slot or page of a gfn, whichever is found first; None when a page is there."""
    exit_record = memory_fault_exit(state.config, gfn, private)
    slot = slot_of(state, gfn)
    wrong: tuple[Outcome, ...] = ()
    if private != (gfn in state.attributes):
        wrong += (
            Outcome(
                state, (-EFAULT, exit_record), because=c.ATTRIBUTE_MISMATCH, effect=c.CONVERSION_FINAL,
                also=(c.CONVERSION_FINAL,),
            ),
        )  # fmt: skip
    if slot is not None and (slot[3] & SLOT_INVALID or answers.slot_invalid):
        wrong += _in_deletion(state, prefetch)
    if slot is None or (private and not slot[3] & MEM_GUEST_MEMFD):
        wrong += (_no_slot(state, gfn, private),)
    if not wrong and answers.gmem_get_pfn:
        return Outcome(state, (answers.gmem_get_pfn, exit_record), because=c.GMEM_ERROR)
    return wrong or None


def _in_deletion(state: State, prefetch: bool) -> tuple[Outcome, ...]:
    """RETRY; a prefetch does better with EAGAIN, as whoever waits for the end of the deletion may delay it."""
    results = (-EAGAIN, RET_PF_RETRY) if prefetch else (RET_PF_RETRY,)
    clause = c.INVALID_SLOT
    return tuple(Outcome(state, (result, ()), because=clause, effect=clause) for result in results)


def _no_slot(state: State, gfn: int, private: bool) -> Outcome:
    """No page: the memory-fault exit for the private half, MMIO for the shared one."""
    config = state.config
    because = c.UNMAPPABLE_ADDRESS if is_unmappable(config, gfn) else c.NO_BACKING
    result = (-EFAULT, memory_fault_exit(config, gfn, True)) if private else (RET_PF_EMULATE, ())
    return Outcome(state, result, because=because, effect=because)


def faultin(state: State, op: Faultin, answers: Answers, _profile: Profile) -> Outcomes:
    """Resolve a page: an alias gfn is a VM bug (TDP-018)."""
    if is_alias(state.config, op.gfn):
        after = replace(state, bugged=True)
        return tuple(
            Outcome(after, (-EFAULT, exit_record), because=c.ALIAS_AT_FAULTIN, effect=c.ALIAS_AT_FAULTIN)
            for exit_record in ((), memory_fault_exit(state.config, op.gfn, op.private))
        )
    resolved = _resolve(state, op.gfn, op.private, False, answers)
    if resolved is not None:
        if answers.mmu_invalidate_retry:
            stale = Outcome(state, (RET_PF_RETRY, ()), because=c.SNAPSHOT_FIRST, effect=c.SNAPSHOT_FIRST)
            return (*each(resolved), stale)
        return resolved
    if is_unmappable(state.config, op.gfn):
        results = (
            (-EFAULT, memory_fault_exit(state.config, op.gfn, op.private)),
            (RET_PF_CONTINUE, ()),
            (RET_PF_RETRY, ()),
        )
        return tuple(Outcome(state, result, because=c.UNMAPPABLE_ADDRESS) for result in results)
    result = RET_PF_RETRY if answers.mmu_invalidate_retry else RET_PF_CONTINUE
    return Outcome(state, (result, ()), because=c.SNAPSHOT_FIRST)


def fast_fault(state: State, op: FastFault, _answers: Answers, _profile: Profile) -> Outcomes:
    """The lockless path: never for the half of a mirror (TDP-095); it may leave anything to the slow way."""
    invalid = Outcome(state, RET_PF_INVALID, because=c.MIRROR_UNTOUCHED, effect=c.MIRROR_UNTOUCHED)
    if _in_mirror(state.config, op.gpa, op.private):
        return invalid
    fast = fast_outcome(state, op.vcpu, op.gpa, op.private, op.write)
    if fast is None:
        return Outcome(state, RET_PF_INVALID, because=c.FAULT_RESULT, effect=c.FAULT_RESULT)
    return (fast, Outcome(state, RET_PF_INVALID, because=c.FAULT_RESULT))


def _in_mirror(config: Config, gpa: int, private: bool) -> bool:
    """Whether an access is to the half of a mirror, by its kind or by its address."""
    return config.mirror and (private or not is_direct(config, gpa))


def fast_outcome(state: State, vcpu: int, gpa: int, private: bool, write: bool) -> Outcome | None:
    """FIXED or SPURIOUS for a leaf of the vCPU's direct root, valid or not; None without one.

    The attributes say so too: what is found is what the access asks for.
    """
    pair = state.vcpus[vcpu]
    assert pair is not None
    root = state.roots[pair[0]]
    leaf = covering_leaf(state.config, root, gpa >> 12 & ~state.config.direct_bits)
    if private != (gpa >> 12 & ~state.config.direct_bits in state.attributes):
        return None
    if leaf is None or is_unmappable(state.config, gpa >> 12):
        return None
    if not write or leaf[3]:
        return Outcome(state, RET_PF_SPURIOUS, because=c.FAULT_RESULT, also=(c.NO_ALIAS_IN_CALLS,))
    if leaf[0] in root.shielded or (leaf[1] > 1 and logs(state, leaf[0])):
        return None
    after = with_root(state, pair[0], replace(root, leaves=root.leaves - {leaf} | {(*leaf[:3], True)}))
    return Outcome(after, RET_PF_FIXED, because=c.FAULT_RESULT, effect=c.FAULT_RESULT)


def get_walk(state: State, op: GetWalk, _answers: Answers, _profile: Profile) -> Outcomes:
    """1 for each entry on the walk that is present by bit 11, 0 for the one that ends it (TDP-043)."""
    config = state.config
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    root = state.roots[pair[0] if is_direct(config, op.gpa) else pair[1]]
    gfn = op.gpa >> 12 & ~config.direct_bits
    if is_unmappable(config, gfn):
        return tuple(Outcome(state, walk, because=c.UNMAPPABLE_ADDRESS) for walk in ((), (0,)))
    walk: tuple[int, ...] = ()
    for level in range(config.levels, 0, -1):
        leaf = covering_leaf(config, root, gfn)
        is_table = level > 1 and (level - 1, config.base(gfn, level)) in root.tables
        present = is_table or (leaf is not None and leaf[1] == level)
        walk += (int(present),)
        if not is_table:
            break
    return Outcome(state, walk, because=c.PRESENCE_BIT, also=(c.WALK_INDEX,))


def gpa_is_mapped(state: State, op: GpaIsMapped, _answers: Answers, _profile: Profile) -> Outcomes:
    """Whether a leaf maps the address in its own half."""
    config = state.config
    pair = state.vcpus[op.vcpu]
    assert pair is not None
    root = state.roots[pair[0] if is_direct(config, op.gpa) else pair[1]]
    gfn = op.gpa >> 12 & ~config.direct_bits
    mapped = not is_unmappable(config, gfn) and covering_leaf(config, root, gfn) is not None
    return Outcome(state, int(mapped), because=c.ROOT_BY_ADDRESS, also=(c.PRESENCE_BIT,))


def access(state: State, _op: Access, _answers: Answers, _profile: Profile) -> Outcomes:
    """What hardware finds, and keeps in its TLB, is the environment's to judge (TDP-084)."""
    return Outcome(state, 0, because=c.NO_STALE_TLB)
